//! `refreshIndexersFromDHT`: searches the DHT for known indexers that are not in `live_indexers` or
//! are about to expire there.
//!
//! ```text
//!  tick ─▶ for every known id: does live_indexers[id] outlive the next run?
//!            │ no: the earliest expiry first, and ids without an entry last
//!            ▼
//!          search "/indexer/<id>", 5 s at most, 8 at once ─▶ each value as it arrives: decoded,
//!            │                                                valid? keep the best
//!            ├─ best stored in live_indexers if the entry is still missing or worse
//!            │    ─▶ "native: refreshed indexer from DHT"
//!            └─ nothing valid: nothing stored or logged; the next searches come less often
//! ```
//!
//! Invariants:
//! - Values arrive verified and decoded; here their time and rank are checked. A search takes every
//!   value until the query has ended or 5 s have passed. An entry that would expire during this
//!   time is renewed at its expiry by the best value so far.
//! - Ids without an entry have at most half of the searches while ids with an entry may need them,
//!   so that dead ids never prevent the refresh of an entry. Ids with an entry leave the other half
//!   to those without one while some of these wait.
//! - A tick that comes while searches of the last one still wait checks all ids again. No id waits
//!   twice, and none is searched for twice at a time. Of the ids without an entry, those with the
//!   earliest last search come first.

use core::time::Duration;

use heapless::Vec;

use crate::protocol::{Instant, PeerId, RecordInfo, Rng, time::Ticker};

use super::{
    known_peer_ids::{KnownPeerIds, SearchEnd},
    live_indexers::LiveIndexers,
};

/// Searches in flight at most (ARCHITECTURE.md, "Refresh").
pub(super) const MAX_SEARCHES: usize = 8;
/// The number of them for ids that have an entry, and for ids that have none.
const HALF: usize = MAX_SEARCHES / 2;
/// Time for one search (the diagram's `ctx 5s`).
pub(super) const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The result of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SearchOutcome {
    /// A value of this search was stored in `live_indexers`.
    Refreshed,
    /// No valid value came, or the entry had become better meanwhile.
    Unchanged,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Search {
    peer: PeerId,
    deadline: Instant,
    best: Option<RecordInfo>,
    /// Whether the peer had an entry when the search began.
    for_entry: bool,
    /// When the entry expires, if that is before the end of the search and there is a value to
    /// renew it with.
    serve_at: Option<Instant>,
    /// Whether one of its values has been stored already.
    stored: bool,
}

/// An id to search for. The least is searched for first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    has_no_entry: bool,
    /// When its entry expires, or, without one, when it was last searched for.
    at: Instant,
    peer: PeerId,
}

/// The refresh loop, for at most `K` known ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Refresh<const K: usize> {
    /// Its timer.
    pub ticker: Ticker,
    /// The ids to search for; the last element is taken first. Those without an entry are before
    /// those with one.
    waiting: Vec<Due, K>,
    /// How many at the end of `waiting` have an entry.
    with_entry: usize,
    searches: Vec<Search, MAX_SEARCHES>,
}

impl<const K: usize> Refresh<K> {
    /// The loop before its first run.
    pub(super) const fn new() -> Self {
        Self {
            ticker: Ticker::new(),
            waiting: Vec::new(),
            with_entry: 0,
            searches: Vec::new(),
        }
    }

    /// One tick: collects the known ids without an entry that outlives the next run.
    pub(super) fn tick<const I: usize>(
        &mut self,
        now: Instant,
        known: &mut KnownPeerIds<K>,
        live: &LiveIndexers<I>,
    ) {
        known.drop_silent(now);
        let next_run = now + self.ticker.longest_gap();
        let is_due = |peer: &PeerId, searched: Instant| {
            let expires = live.expiry(now, peer);
            let is_due = expires.is_none_or(|at| at < next_run)
                && !self.searches.iter().any(|search| search.peer == *peer);
            is_due.then(|| Due {
                has_no_entry: expires.is_none(),
                at: expires.unwrap_or(searched),
                peer: *peer,
            })
        };
        self.waiting.clear();
        // The list has room for all ids that `known` can hold.
        self.waiting.extend(known.take_turns(is_due));
        self.waiting.sort_unstable_by(|one, other| other.cmp(one));
        let with_entry = self.waiting.iter().filter(|due| !due.has_no_entry);
        self.with_entry = with_entry.count();
    }

    /// Begins the next search, if one is due and one is free.
    pub(super) fn next_search(&mut self, now: Instant) -> Option<PeerId> {
        if self.searches.is_full() {
            return None;
        }
        let running = |for_entry| {
            let same = |search: &&Search| search.for_entry == for_entry;
            self.searches.iter().filter(same).count()
        };
        let without = self.waiting.len() - self.with_entry;
        let for_entry = self.with_entry > 0 && (running(true) < HALF || without == 0);
        let Due { peer, .. } = if for_entry {
            self.with_entry -= 1;
            self.waiting.pop()?
        } else if without > 0 && running(false) < HALF {
            self.waiting.remove(without - 1)
        } else {
            return None;
        };
        // There is room: this was checked above.
        let _ = self.searches.push(Search {
            peer,
            deadline: now + SEARCH_TIMEOUT,
            best: None,
            for_entry,
            serve_at: None,
            stored: false,
        });
        Some(peer)
    }

    /// Takes one value of the search for `peer`, at wall-clock time `own_ms`. It is kept if it is
    /// valid and the best so far.
    pub(super) fn value<const I: usize>(
        &mut self,
        now: Instant,
        own_ms: u64,
        peer: &PeerId,
        record: &RecordInfo,
        live: &LiveIndexers<I>,
    ) {
        let Some(search) = self.searches.iter_mut().find(|search| search.peer == *peer) else {
            return;
        };
        let better = search
            .best
            .as_ref()
            .is_none_or(|best| best.rank() < record.rank());
        if record.peer != *peer || !record.is_valid_copy(own_ms) || !better {
            return;
        }
        let expiry = live.expiry(now, peer);
        search.serve_at = expiry.filter(|at| *at < search.deadline && !search.stored);
        search.best = Some(record.clone());
    }

    /// Renews the entries that expire while their search goes on.
    pub(super) fn serve<const I: usize>(
        &mut self,
        now: Instant,
        own_ms: u64,
        known: &KnownPeerIds<K>,
        live: &mut LiveIndexers<I>,
    ) {
        for search in &mut self.searches {
            if search.serve_at.is_some_and(|at| at <= now)
                && let Some(best) = &search.best
            {
                search.serve_at = None;
                search.stored |= known.contains(&search.peer)
                    && best.is_valid_copy(own_ms)
                    && live.found_in_dht(now, own_ms, best);
            }
        }
    }

    /// Ends the search for `peer`, because the query has ended or the time is over, and stores the
    /// best value.
    pub(super) fn conclude<const I: usize>(
        &mut self,
        now: Instant,
        own_ms: u64,
        peer: &PeerId,
        known: &mut KnownPeerIds<K>,
        live: &mut LiveIndexers<I>,
        rng: &mut Rng,
    ) -> SearchOutcome {
        let Some(at) = self.searches.iter().position(|search| search.peer == *peer) else {
            return SearchOutcome::Unchanged;
        };
        let Search { best, stored, .. } = self.searches.swap_remove(at);
        if self.searches.is_empty() && self.waiting.is_empty() {
            self.ticker.decided(self.ticker.last(), now);
        }
        let best = best.filter(|best| best.is_valid_copy(own_ms));
        let end = match best {
            Some(_) => SearchEnd::Found,
            None => SearchEnd::Failed,
        };
        known.searched(now, peer, end, rng);
        // An indexer that gave its lease up during the search is no longer known, so its record is
        // not stored.
        let stored_now =
            best.is_some_and(|best| known.contains(peer) && live.found_in_dht(now, own_ms, &best));
        if stored || stored_now {
            SearchOutcome::Refreshed
        } else {
            SearchOutcome::Unchanged
        }
    }

    /// A search that has run out of time.
    pub(super) fn overdue(&self, now: Instant) -> Option<PeerId> {
        self.searches
            .iter()
            .find(|search| search.deadline <= now)
            .map(|search| search.peer)
    }

    /// When the time of the next search is over, or the next entry must be renewed.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.searches
            .iter()
            .map(|search| search.serve_at.unwrap_or(search.deadline))
            .min()
    }
}

#[cfg(test)]
mod tests;
