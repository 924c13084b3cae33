//! Searches of the DHT, and the holders that they name.
//!
//! Invariants: at most [`MAX_HOLDERS`] providers are asked, each once; a search for providers ends
//! when [`ENOUGH`] servers named no new one, or after [`PROVIDERS_LIMIT`].

use super::{DhtSearch, Errand, Lookup, MAX_SEARCHES, Open, Target};
use crate::protocol::{
    Addrs, Coverage, Instant, PeerId,
    lookup::{ENOUGH, LookupAction, MAX_HOLDERS, MAX_ROUNDS, PROVIDERS_LIMIT, QueryId, Question},
};

/// How a search for providers ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RoundEnd {
    /// It has found enough, or all there is.
    InTime,
    /// Its time was over before.
    OutOfTime,
}

impl<const S: usize, const Q: usize, const R: usize, const O: usize> Lookup<S, Q, R, O> {
    /// Plans the search that the question needs; `records`: those for a peer.
    pub(super) fn search<const N: usize>(&mut self, records: [DhtSearch; N]) {
        match self.question {
            Question::Indexers => {}
            Question::Name(_) | Question::Service(_) => {
                self.searches.extend([DhtSearch::Providers])
            }
            Question::Peer(_) => self.searches.extend(records),
        }
    }

    pub(super) fn next_search(&mut self, now: Instant, next: &mut u64) -> Option<LookupAction> {
        let search = self.searches.pop()?;
        let query = self.open(now, Target::Dht(search), next);
        match (search, &self.question) {
            (DhtSearch::Record(role), Question::Peer(peer)) => {
                let (role, peer) = (role, *peer);
                Some(LookupAction::Search { query, role, peer })
            }
            (_, question) => {
                let key = question.key()?;
                Some(LookupAction::Providers { query, key })
            }
        }
    }

    /// Takes the providers that one server of the DHT names. Returns whether the search is one of
    /// this lookup.
    pub(in crate::protocol::lookup) fn provided(
        &mut self,
        now: Instant,
        query: QueryId,
        providers: &[(PeerId, Addrs)],
        coverage: Coverage,
    ) -> bool {
        if self.open_search(query).is_none() {
            return false;
        }
        if now > self.deadline {
            return true;
        }
        self.progress.reached = self.progress.reached.saturating_add(1);
        self.progress.is_full |= coverage == Coverage::Partial;
        let mut is_new = false;
        for (peer, addrs) in providers {
            is_new |= self.ask_holder(*peer, addrs);
        }
        self.progress.is_new |= is_new;
        self.progress.agreed = match (is_new, providers.is_empty()) {
            (true, _) => 1,
            (false, true) => self.progress.agreed,
            (false, false) => self.progress.agreed.saturating_add(1),
        };
        true
    }

    /// Takes note that a search is over, in which so many servers have answered. Returns whether it
    /// was an open one of this lookup.
    pub(in crate::protocol::lookup) fn searched(
        &mut self,
        now: Instant,
        query: QueryId,
        reached: u16,
    ) -> bool {
        let Some(at) = self.open_search(query) else {
            return false;
        };
        if now <= self.deadline {
            let search = self.open.swap_remove(at).target;
            self.count_reached(reached);
            if search == Target::Dht(DhtSearch::Providers) {
                self.end_round(RoundEnd::InTime);
            }
        }
        true
    }

    /// Ends a search for providers that has found enough, or has run out of time.
    pub(super) fn next_end(&mut self, now: Instant) -> Option<LookupAction> {
        let is_it = |open: &Open| open.target == Target::Dht(DhtSearch::Providers);
        let at = self.position(is_it)?;
        let has_enough = self.progress.agreed >= ENOUGH;
        let is_late = self
            .open
            .get(at)
            .is_some_and(|open| now >= self.end_of(open));
        if !has_enough && !is_late {
            return None;
        }
        let query = self.open.swap_remove(at).query;
        self.is_cut |= !has_enough && self.progress.reached < u16::from(ENOUGH);
        self.count_reached(self.progress.reached);
        self.end_round(match has_enough {
            true => RoundEnd::InTime,
            false => RoundEnd::OutOfTime,
        });
        Some(LookupAction::EndSearch { query })
    }

    /// Searches again if a server may know of more providers than it has named. It names others by
    /// turns, but another lookup may have had a turn in between. So these are all only if the last
    /// round has named no new one.
    fn end_round(&mut self, end: RoundEnd) {
        let has_time = end == RoundEnd::InTime;
        let progress = &mut self.progress;
        progress.rounds += 1;
        let is_new = core::mem::take(&mut progress.is_new);
        if !progress.is_full {
            return;
        }
        if has_time && !progress.more && progress.rounds < MAX_ROUNDS {
            (progress.reached, progress.agreed) = (0, 0);
            self.searches.extend([DhtSearch::Providers]);
        } else {
            progress.more |= is_new || !has_time;
        }
    }

    /// When a search for providers that does not end by itself is ended.
    pub(super) fn end_of(&self, search: &Open) -> Instant {
        search.since
            + if self.has_found() {
                self.patience
            } else {
                PROVIDERS_LIMIT
            }
    }

    /// The search of the DHT with this name, if it is under way.
    pub(super) fn open_search(&self, query: QueryId) -> Option<usize> {
        self.position(|open| open.query == query && open.is_search())
    }

    /// Takes note of how many servers of the DHT a search has reached. If it has reached none
    /// although there is one, the answer is not complete.
    fn count_reached(&mut self, reached: u16) {
        self.is_unreached |= reached == 0 && !self.vouchers.is_empty();
        self.is_cut |= self.is_unreached;
    }

    /// Asks a provider for what it lists. Returns whether it is new.
    fn ask_holder(&mut self, peer: PeerId, addrs: &Addrs) -> bool {
        if peer == self.own || self.servers.has(&peer) {
            return false;
        }
        if usize::from(self.progress.holders) == MAX_HOLDERS {
            self.progress.more = true;
            return false;
        }
        self.progress.holders += 1;
        self.ask_at(peer, addrs.clone(), Errand::Indexer);
        true
    }
}

// A lookup has either one search for providers or these.
const _: () = assert!(MAX_SEARCHES >= 2);
