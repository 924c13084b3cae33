//! `refreshIndexersFromDHT`: finds again, in the DHT, known indexers that are about to leave `live_indexers` or are not there.
//!
//! ```text
//!  tick ─▶ for every known id: does live_indexers[id] outlive the next run?
//!            │ no
//!            ▼
//!          search "/indexer/<id>", 5 s at most, 8 at once ─▶ every value as it streams in: decoded, valid? keep the best
//!            │                                        (the first valid one gives the others 1 s more)
//!            │
//!            ├─ best stored in live_indexers if the entry is still missing or worse ─▶ "native: refreshed indexer from DHT"
//!            └─ nothing valid: nothing stored, nothing logged; the next searches come less often
//! ```
//!
//! Values arrive verified and decoded; here they are judged by time and rank. A run that is still searching when the next
//! tick comes goes on; that tick is skipped.

use core::time::Duration;

use heapless::Vec;

use crate::protocol::{Instant, PeerId, RecordInfo, time::Ticker};

use super::{known_peer_ids::KnownPeerIds, live_indexers::LiveIndexers};

/// Searches in flight at most (DESIGN.md).
pub const MAX_SEARCHES: usize = 8;
/// Time for one search (the diagram's `ctx 5s`).
pub const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a search goes on after its first valid value: a peer that answers no query holds Kademlia up for the whole 5 s, and
/// an entry may run out in that time.
pub const SETTLE_TIME: Duration = Duration::from_secs(1);

/// What became of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The best value is in `live_indexers` now.
    Refreshed,
    /// Nothing valid came, or the entry had become better in the meantime.
    Unchanged,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Search {
    peer: PeerId,
    deadline: Instant,
    best: Option<RecordInfo>,
}

/// The refresh loop over at most `K` known ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refresh<const K: usize> {
    /// Its timer.
    pub ticker: Ticker,
    waiting: Vec<PeerId, K>,
    searches: Vec<Search, MAX_SEARCHES>,
}

impl<const K: usize> Refresh<K> {
    /// The loop before its first run.
    pub const fn new() -> Self {
        Self {
            ticker: Ticker::new(),
            waiting: Vec::new(),
            searches: Vec::new(),
        }
    }

    /// One tick: collects the known ids whose entry is missing or would not outlive the next run.
    pub fn tick<const I: usize>(
        &mut self,
        now: Instant,
        known: &mut KnownPeerIds<K>,
        live: &LiveIndexers<I>,
    ) {
        if !self.waiting.is_empty() || !self.searches.is_empty() {
            return;
        }
        let next_run = now + self.ticker.longest_gap();
        // As many ids as `known` holds at most: there is room.
        self.waiting.extend(
            known
                .iter()
                .filter(|peer| !live.outlives(peer, next_run))
                .copied(),
        );
        self.waiting.retain(|peer| known.take_turn(peer));
    }

    /// Begins the next search, if one is due and one is free.
    pub fn next_search(&mut self, now: Instant) -> Option<PeerId> {
        if self.searches.is_full() {
            return None;
        }
        let peer = self.waiting.pop()?;
        // There is room: asked above.
        let _ = self.searches.push(Search {
            peer,
            deadline: now + SEARCH_TIMEOUT,
            best: None,
        });
        Some(peer)
    }

    /// One value of the search for `peer`, at wall-clock time `own_ms`: kept if it is valid and the best so far.
    pub fn value(&mut self, now: Instant, own_ms: u64, peer: &PeerId, record: &RecordInfo) {
        let Some(search) = self.searches.iter_mut().find(|search| search.peer == *peer) else {
            return;
        };
        let better = search
            .best
            .as_ref()
            .is_none_or(|best| best.rank() < record.rank());
        if record.peer == *peer && record.is_valid_copy(own_ms) && better {
            if search.best.is_none() {
                search.deadline = search.deadline.min(now + SETTLE_TIME);
            }
            search.best = Some(record.clone());
        }
    }

    /// The search for `peer` has ended, or its time is over: the best value is stored.
    pub fn conclude<const I: usize>(
        &mut self,
        now: Instant,
        own_ms: u64,
        peer: &PeerId,
        known: &mut KnownPeerIds<K>,
        live: &mut LiveIndexers<I>,
    ) -> Outcome {
        let Some(at) = self.searches.iter().position(|search| search.peer == *peer) else {
            return Outcome::Unchanged;
        };
        let best = self
            .searches
            .swap_remove(at)
            .best
            .filter(|best| best.is_valid_copy(own_ms));
        known.searched(peer, best.is_some());
        // Who gave its lease up while we searched is known no longer and is not brought back.
        match best {
            Some(best) if known.contains(peer) && live.found_in_dht(now, own_ms, &best) => {
                Outcome::Refreshed
            }
            _ => Outcome::Unchanged,
        }
    }

    /// A search whose time is over.
    pub fn overdue(&self, now: Instant) -> Option<PeerId> {
        self.searches
            .iter()
            .find(|search| search.deadline <= now)
            .map(|search| search.peer)
    }

    /// When the next search's time is over.
    pub fn timeout(&self) -> Option<Instant> {
        self.searches.iter().map(|search| search.deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Addrs, Name};

    const S: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn record(n: u8, issued_at_ms: u64) -> RecordInfo {
        RecordInfo {
            peer: peer(n),
            sequence: issued_at_ms,
            issued_at_ms,
            ttl: 270 * S,
            addrs: Addrs::new(),
            name: Name::new(),
        }
    }

    struct Fixture {
        refresh: Refresh<16>,
        known: KnownPeerIds<16>,
        live: LiveIndexers<16>,
    }

    impl Fixture {
        fn knowing(ids: impl Iterator<Item = u8>) -> Self {
            let mut f = Self {
                refresh: Refresh::new(),
                known: KnownPeerIds::new(),
                live: LiveIndexers::new(),
            };
            f.refresh.ticker.start(at(0), 30 * S, 3);
            ids.for_each(|n| f.known.heard_of(at(0), &peer(n)));
            f
        }

        fn searches(&mut self, now: u64) -> std::vec::Vec<PeerId> {
            self.refresh.tick(at(now), &mut self.known, &self.live);
            std::iter::from_fn(|| self.refresh.next_search(at(now))).collect()
        }

        fn conclude(&mut self, now: u64, own_ms: u64, n: u8) -> Outcome {
            self.refresh
                .conclude(at(now), own_ms, &peer(n), &mut self.known, &mut self.live)
        }
    }

    #[test]
    fn a_known_id_without_an_entry_is_searched_for() {
        assert_eq!(Fixture::knowing(1..=2).searches(0).len(), 2);
    }

    #[test]
    fn an_entry_that_outlives_the_next_run_is_fresh_and_left_alone() {
        // The next run comes after 33 s at the latest, jitter included.
        for (expires_in, searched) in [(33_001, 0), (33_000, 0), (32_999, 1)] {
            let mut f = Fixture::knowing(1..=1);
            let lease = Duration::from_millis(expires_in);
            f.live
                .beat(at(0), &peer(1), lease, None, Some(&record(1, 0)))
                .unwrap();
            assert_eq!(f.searches(0).len(), searched, "expires in {expires_in} ms");
        }
    }

    #[test]
    fn at_most_eight_searches_run_at_once() {
        let mut f = Fixture::knowing(1..=12);
        let first = f.searches(0);
        assert_eq!(first.len(), 8);
        f.refresh
            .conclude(at(1), 0, &first[0], &mut f.known, &mut f.live);
        assert!(f.refresh.next_search(at(1)).is_some());
        assert!(f.refresh.next_search(at(1)).is_none());
    }

    #[test]
    fn the_best_of_all_values_is_stored_whatever_their_order() {
        for order in [[10, 30, 20], [30, 20, 10], [20, 10, 30]] {
            let mut f = Fixture::knowing(1..=1);
            f.searches(0);
            order
                .iter()
                .for_each(|&issued| f.refresh.value(at(0), 30, &peer(1), &record(1, issued)));
            assert_eq!(f.conclude(0, 30, 1), Outcome::Refreshed);
            assert_eq!(f.live.find(at(0), &peer(1)).unwrap().expires, at(270_000));
        }
    }

    #[test]
    fn expired_early_and_foreign_values_are_not_valid() {
        let own_ms = 1_000_000;
        for (value, outcome) in [
            (record(1, own_ms - 270_000), Outcome::Refreshed),
            (record(1, own_ms - 270_001), Outcome::Unchanged),
            (record(1, own_ms + 120_000), Outcome::Refreshed),
            (record(1, own_ms + 120_001), Outcome::Unchanged),
            (record(2, own_ms), Outcome::Unchanged),
        ] {
            let mut f = Fixture::knowing(1..=1);
            f.searches(0);
            f.refresh.value(at(0), own_ms, &peer(1), &value);
            assert_eq!(f.conclude(0, own_ms, 1), outcome, "{value:?}");
        }
    }

    #[test]
    fn with_nothing_valid_nothing_is_stored() {
        let mut f = Fixture::knowing(1..=1);
        f.searches(0);
        assert_eq!(f.conclude(0, 0, 1), Outcome::Unchanged);
        assert_eq!(f.live.iter(at(0)).count(), 0);
    }

    #[test]
    fn an_entry_that_became_better_while_searching_is_kept() {
        let mut f = Fixture::knowing(1..=1);
        f.searches(0);
        f.refresh.value(at(0), 200_000, &peer(1), &record(1, 0));
        f.live
            .beat(at(10), &peer(1), 90 * S, None, Some(&record(1, 1)))
            .unwrap();
        let before = f.live.clone();
        assert_eq!(f.conclude(10, 200_000, 1), Outcome::Unchanged);
        assert_eq!(f.live, before);
    }

    #[test]
    fn a_search_is_over_at_five_seconds_and_not_before() {
        let mut f = Fixture::knowing(1..=1);
        f.searches(0);
        assert_eq!(f.refresh.overdue(at(4_999)), None);
        assert_eq!(f.refresh.timeout(), Some(at(5_000)));
        assert_eq!(f.refresh.overdue(at(5_000)), Some(peer(1)));
    }

    #[test]
    fn the_first_valid_value_gives_the_others_one_second_more() {
        let mut f = Fixture::knowing(1..=2);
        f.searches(0);
        f.refresh.value(at(500), 30, &peer(1), &record(1, 10));
        f.refresh.value(at(1_400), 30, &peer(1), &record(1, 20));
        assert_eq!(f.refresh.overdue(at(1_499)), None);
        assert_eq!(f.refresh.overdue(at(1_500)), Some(peer(1)));
        f.refresh.value(at(4_500), 30, &peer(2), &record(2, 10));
        f.conclude(1_500, 30, 1);
        assert_eq!(f.refresh.overdue(at(4_999)), None);
        assert_eq!(f.refresh.overdue(at(5_000)), Some(peer(2)), "5 s at most");
    }

    #[test]
    fn who_gave_its_lease_up_during_the_search_is_not_brought_back() {
        let mut f = Fixture::knowing(1..=1);
        f.searches(0);
        f.refresh.value(at(0), 0, &peer(1), &record(1, 0));
        f.known.forget(at(1), &peer(1), 270 * S);
        assert_eq!(f.conclude(2, 0, 1), Outcome::Unchanged);
    }

    #[test]
    fn a_run_that_is_still_searching_skips_the_tick() {
        let mut f = Fixture::knowing(1..=9);
        assert_eq!(f.searches(0).len(), 8);
        assert!(f.searches(30_000).is_empty());
        assert_eq!(f.refresh.waiting.len(), 1);
    }
}
