//! Which indexers a native hands out, and what it answers to a node that asks.
//!
//! Invariants: an answer never waits longer than its candidates need, 2 s at most; a verdict that was good when the question arrived is
//! good for its answer; no node is told that it is taken in while an indexer is known to be reachable, unless it said that every offer
//! failed; of the peers that only ask, every live indexer is named to somebody in the end;
//! an answer to a node that wants a lease names first an indexer that fewest nodes failed at, and of these one with the greatest weight
//! (at most 64 free leases count, less the places promised); of equal ones each is the first as often as the others, so that one which
//! boasts beside `n` others with room for 64 leads one answer in `n + 1`.

use core::cmp::Reverse;

use super::*;
use crate::protocol::table::keep_best;
use asks::Candidates;
use standing::KEPT_SHARE;

impl<const I: usize, const K: usize, const R: usize, const S: usize> Native<I, K, R, S> {
    /// A request for indexers; `None`: the answer comes later.
    pub(super) fn take_ask(&mut self, now: Instant, mut ask: Ask) -> Option<IndexersAnswer> {
        let catches_up = !self.overslept(now).is_zero();
        if ask.want == Want::OffersFailed {
            self.note_failures(now, &ask.node);
        }
        if !catches_up {
            let candidates = self.candidates(now, ask.want);
            if candidates
                .iter()
                .all(|peer| self.live_indexers.is_decided(now, now, peer))
            {
                return Some(self.answer(now, now, &ask));
            }
            ask.candidates = Some((now, candidates));
        }
        if self.asks.is_full() {
            // No node is taken in while an indexer may be reachable: without an offer it asks again.
            return Some(IndexersAnswer {
                offers: self.offers(now, now, ask.most),
                takes_in: false,
            });
        }
        // There is room: asked above.
        let _ = self.asks.push(ask);
        None
    }

    /// The next request whose candidates are decided, answered. Requests that waited for the end of an oversleep get candidates first.
    pub(super) fn pop_answer(&mut self, now: Instant) -> Option<Action> {
        while let Some(at) = self.asks.iter().position(|ask| ask.candidates.is_none()) {
            let want = self.asks.get(at)?.want;
            let candidates = self.candidates(now, want);
            self.asks.get_mut(at)?.candidates = Some((now, candidates));
        }
        let at = self.asks.iter().position(|ask| {
            ask.deadline() <= now
                || ask.candidates.iter().all(|(since, candidates)| {
                    candidates
                        .iter()
                        .all(|peer| self.live_indexers.is_decided(now, *since, peer))
                })
        })?;
        let ask = self.asks.swap_remove(at);
        let since = ask.candidates.as_ref().map_or(now, |(since, _)| *since);
        Some(Action::Answer {
            request: ask.request,
            answer: self.answer(now, since, &ask),
        })
    }

    fn answer(&mut self, now: Instant, since: Instant, ask: &Ask) -> IndexersAnswer {
        if ask.want == Want::Nothing {
            return IndexersAnswer {
                offers: self.next_shown(now, ask.most),
                takes_in: false,
            };
        }
        let offers = self.offers(now, since, ask.most);
        self.told_nodes
            .told(now, &ask.node, offers.iter().map(|offer| &offer.peer));
        let is_stranded = offers.is_empty() || ask.want == Want::OffersFailed;
        if is_stranded {
            self.make_room_for_node(now, &ask.node);
        }
        let takes_in = is_stranded && self.delegation.has_room(now, &ask.node);
        if takes_in {
            let stranded = ask.want == Want::OffersFailed;
            self.delegation.give_ticket(now, &ask.node, stranded);
        } else if is_stranded {
            self.delegation.count_refusal();
        }
        IndexersAnswer { offers, takes_in }
    }

    /// For a node that wants a lease: the reachable that have room, best first. Those at which fewer nodes failed go first; of these, those
    /// of networks that are named less often so far, because ids cost nothing and networks do; then those with more free leases. If not
    /// all can be named and nodes failed lately, the last places are kept: half of them for indexers that proved themselves, by lot, and
    /// half for those that are here the longest.
    pub(super) fn offers(&mut self, now: Instant, since: Instant, most: usize) -> Offers {
        let most = most.min(MAX_LIST);
        let mut listed: Vec<Listed<'_>, I> = Vec::new();
        // As many as there are entries: there is room.
        listed.extend(
            self.live_indexers
                .iter(now)
                .filter(|entry| {
                    entry.verdict(since) == Some(true)
                        && entry.has_room()
                        && !entry.addrs.is_empty()
                })
                .map(|entry| Listed::new(now, entry, self.rng.bits())),
        );
        let is_troubled = listed.iter().any(|one| one.failures > 0);
        let kept = if is_troubled && listed.len() > most {
            most / KEPT_SHARE
        } else {
            0
        };
        let mut offers = Offers::new();
        while offers.len() < most {
            let all = listed.iter().enumerate();
            let next = if offers.len() < most - kept {
                all.max_by_key(|(_, one)| one.rank())
            } else if offers.len() < most - kept / 2 {
                all.max_by_key(|(_, one)| (one.entry.standing.has_proved(), one.lot))
            } else {
                all.max_by_key(|(_, one)| (one.entry.standing.seniority(), one.lot))
            };
            let Some(at) = next.map(|(at, _)| at) else {
                break;
            };
            let Listed { entry, .. } = listed.swap_remove(at);
            for other in &mut listed {
                other.named += u8::from(other.entry.prefix() == entry.prefix());
            }
            // There is room: asked above.
            let _ = offers.push(entry.offer(now));
        }
        offers
    }

    /// A node gave its lease up. If it had been sent to an indexer, that one has accepted it.
    pub(super) fn note_departure(&mut self, now: Instant, node: &PeerId) {
        if let Some(is_it) = self.told_nodes.where_sent(now, node) {
            for entry in self.live_indexers.iter_mut(now) {
                if is_it(&entry.peer) {
                    entry.standing.proved();
                }
            }
        }
    }

    /// A node says that every offer failed: so did the indexers that it was told lately, as far as it goes.
    fn note_failures(&mut self, now: Instant, node: &PeerId) {
        if let Some(has_failed) = self.told_nodes.all_failed(now, node) {
            for entry in self.live_indexers.iter_mut(now) {
                if has_failed(&entry.peer) {
                    entry.standing.failed(now);
                }
            }
        }
    }

    /// For a peer that only asks, without a cursor: the live indexers in the order of their ids, going on where the last such answer
    /// ended, and once round.
    fn next_shown(&mut self, now: Instant, most: usize) -> Offers {
        let mut offers = Offers::new();
        offers.extend(
            self.live_indexers
                .iter_after(now, &self.shown_up_to)
                .map(|entry| entry.offer(now))
                .filter(|offer| !offer.addrs.is_empty())
                .take(most.min(MAX_LIST)),
        );
        if let Some(last) = offers.last() {
            self.shown_up_to = last.peer;
        }
        offers
    }

    /// The page of live indexers that begins at the cursor. While the native catches up after an oversleep, entries count that will
    /// when their leases are moved on.
    pub(super) fn page_of(&self, now: Instant, from: Cursor, most: usize) -> IndexersPage {
        let gap = self.overslept(now);
        let mut page = IndexersPage::default();
        let mut last = None;
        let entries = self.live_indexers.iter_from(from);
        for entry in entries.filter(|entry| now <= entry.expires + gap && !entry.addrs.is_empty()) {
            if page.offers.len() >= most.clamp(1, MAX_LIST) {
                page.next = last;
                break;
            }
            last = Some(entry.peer);
            // There is room: asked above.
            let _ = page.offers.push(entry.offer(now));
        }
        page
    }

    /// Which indexers to probe for an answer: those that keep places in it if nodes failed lately, then the reachable, then those of which nothing is known, in
    /// random order.
    fn candidates(&mut self, now: Instant, want: Want) -> Candidates {
        if want == Want::Nothing {
            return Candidates::new();
        }
        let may_be_offered = |entry: &&LiveIndexer| {
            entry.verdict(now) != Some(false) && entry.has_room() && !entry.addrs.is_empty()
        };
        let mut kept: Vec<_, { MAX_LIST / KEPT_SHARE }, u8> = Vec::new();
        let mut best: Vec<(bool, u64, PeerId), { asks::MAX_CANDIDATES }, u8> = Vec::new();
        for entry in self.live_indexers.iter(now).filter(may_be_offered) {
            let is_reachable = entry.verdict(now) == Some(true);
            keep_best(&mut best, (is_reachable, self.rng.bits(), entry.peer));
            keep_best(&mut kept, (entry.standing.seniority(), entry.peer));
        }
        let mut candidates = Candidates::new();
        let mut entries = self.live_indexers.iter(now);
        if entries.any(|entry| entry.failures(now) > 0) {
            candidates.extend(kept.iter().map(|(_, peer)| *peer));
        }
        for (_, _, peer) in &best {
            if !candidates.contains(peer) {
                // What does not fit is the least of them.
                let _ = candidates.push(*peer);
            }
        }
        candidates
    }
}

/// An indexer that an answer may name.
struct Listed<'a> {
    entry: &'a LiveIndexer,
    failures: u8,
    /// How many of its network are named already.
    named: u8,
    weight: i64,
    /// Decides between equals.
    lot: u64,
}

impl<'a> Listed<'a> {
    fn new(now: Instant, entry: &'a LiveIndexer, lot: u64) -> Self {
        Self {
            entry,
            failures: entry.failures(now),
            named: 0,
            weight: entry.weight(),
            lot,
        }
    }

    /// The greater is named first.
    fn rank(&self) -> (Reverse<u8>, Reverse<u8>, i64, u64) {
        (
            Reverse(self.failures),
            Reverse(self.named),
            self.weight,
            self.lot,
        )
    }
}
