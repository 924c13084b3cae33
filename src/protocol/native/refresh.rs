//! `refreshIndexersFromDHT`: searches the DHT for known indexers that are not in `live_indexers` or
//! are about to expire there.
//!
//! ```text
//!  tick ─▶ for every known id: does live_indexers[id] outlive the next run?
//!            │ no: those whose entry expires soonest first, then those without an entry
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
//!   twice, and none is searched for twice at a time. Of the ids without an entry, those whose last
//!   search is the longest ago come first.

use core::time::Duration;

use heapless::Vec;

use crate::protocol::{Instant, PeerId, RecordInfo, Rng, time::Ticker};

use super::{known_peer_ids::KnownPeerIds, live_indexers::LiveIndexers};

/// Searches in flight at most (ARCHITECTURE.md, "Refresh").
pub const MAX_SEARCHES: usize = 8;
/// The number of them for ids that have an entry, and for ids that have none.
const HALF: usize = MAX_SEARCHES / 2;
/// Time for one search (the diagram's `ctx 5s`).
pub const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The result of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchOutcome {
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
pub struct Refresh<const K: usize> {
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
    pub const fn new() -> Self {
        Self {
            ticker: Ticker::new(),
            waiting: Vec::new(),
            with_entry: 0,
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
    pub fn next_search(&mut self, now: Instant) -> Option<PeerId> {
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
    pub fn value<const I: usize>(
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
    pub fn serve<const I: usize>(
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
    pub fn conclude<const I: usize>(
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
        let best = best.filter(|best| best.is_valid_copy(own_ms));
        known.searched(now, peer, best.is_some(), rng);
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

    /// A search whose time is over.
    pub fn overdue(&self, now: Instant) -> Option<PeerId> {
        self.searches
            .iter()
            .find(|search| search.deadline <= now)
            .map(|search| search.peer)
    }

    /// When the time of the next search is over, or the next entry must be renewed.
    pub fn timeout(&self) -> Option<Instant> {
        self.searches
            .iter()
            .map(|search| search.serve_at.unwrap_or(search.deadline))
            .min()
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

        /// Gives the known id an entry that expires `expires` ms after the start.
        fn enter(&mut self, n: u8, expires: u64) {
            let lease = Duration::from_millis(expires);
            self.live
                .beat(at(0), &peer(n), lease, None, Some(&record(n, 0)))
                .unwrap();
        }

        fn value(&mut self, now: u64, own_ms: u64, n: u8, record: &RecordInfo) {
            self.refresh
                .value(at(now), own_ms, &peer(n), record, &self.live);
            self.serve(now, own_ms);
        }

        fn searches(&mut self, now: u64) -> std::vec::Vec<PeerId> {
            self.refresh.tick(at(now), &mut self.known, &self.live);
            std::iter::from_fn(|| self.refresh.next_search(at(now))).collect()
        }

        fn serve(&mut self, now: u64, own_ms: u64) {
            self.refresh
                .serve(at(now), own_ms, &self.known, &mut self.live);
        }

        fn conclude(&mut self, now: u64, own_ms: u64, n: u8) -> SearchOutcome {
            self.refresh.conclude(
                at(now),
                own_ms,
                &peer(n),
                &mut self.known,
                &mut self.live,
                &mut Rng::new(1),
            )
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
    fn ids_without_an_entry_have_half_of_the_eight_searches() {
        let mut f = Fixture::knowing(1..=12);
        let first = f.searches(0);
        assert_eq!(first, (1..=4).map(peer).collect::<std::vec::Vec<_>>());
        f.conclude(1, 0, 1);
        assert_eq!(f.refresh.next_search(at(1)), Some(peer(5)));
        assert_eq!(f.refresh.next_search(at(1)), None);
    }

    #[test]
    fn entries_that_expire_soonest_are_searched_for_first_and_have_all_eight_if_nothing_else_waits()
    {
        let mut f = Fixture::knowing(1..=10);
        (1..=10).for_each(|n| f.enter(n, 30_000 - 1_000 * u64::from(n)));
        let first = f.searches(0);
        assert_eq!(
            first,
            (3..=10).rev().map(peer).collect::<std::vec::Vec<_>>()
        );
    }

    #[test]
    fn ids_with_and_without_an_entry_have_a_half_each_while_both_wait() {
        let mut f = Fixture::knowing(1..=16);
        (1..=8).for_each(|n| f.enter(n, 20_000));
        let first = f.searches(0);
        let with_entry = first.iter().filter(|peer| peer.as_bytes()[0] <= 8).count();
        assert_eq!((first.len(), with_entry), (8, 4));
        // One search of each kind ends, and one of the same kind follows.
        f.conclude(1, 0, 1);
        assert_eq!(f.refresh.next_search(at(1)), Some(peer(5)));
        f.conclude(1, 0, 9);
        assert_eq!(f.refresh.next_search(at(1)), Some(peer(13)));
        assert_eq!(f.refresh.next_search(at(1)), None);
    }

    #[test]
    fn entries_about_to_run_out_are_looked_at_each_run_however_many_dead_ids_wait() {
        let mut f = Fixture::knowing(1..=16);
        f.enter(1, 60_000);
        assert_eq!(f.searches(0).len(), 4, "four dead ids; the entry is fresh");
        assert_eq!(f.searches(30_000), [peer(1)], "and now it is not");
    }

    #[test]
    fn of_dead_ids_the_one_searched_for_the_longest_ago_is_next() {
        let mut f = Fixture::knowing(1..=6);
        assert_eq!(f.searches(0), [peer(1), peer(2), peer(3), peer(4)]);
        for n in 1..=4 {
            f.conclude(5_000 + u64::from(n), 0, n);
        }
        assert_eq!(f.searches(30_000), [peer(5), peer(6), peer(1), peer(2)]);
    }

    #[test]
    fn an_entry_that_runs_out_during_the_search_is_served_then_by_the_best_value_so_far() {
        let mut f = Fixture::knowing(1..=1);
        f.enter(1, 3_000);
        f.searches(0);
        f.value(100, 10, 1, &record(1, 20));
        f.value(200, 10, 1, &record(1, 10));
        assert_eq!(f.refresh.timeout(), Some(at(3_000)));
        f.serve(2_999, 10);
        assert_eq!(f.live.expiry(at(2_999), &peer(1)), Some(at(3_000)));
        f.serve(3_000, 10);
        assert_eq!(f.live.expiry(at(3_000), &peer(1)), Some(at(273_010)));
        assert_eq!(f.refresh.timeout(), Some(at(5_000)), "the search goes on");
        f.value(4_000, 30, 1, &record(1, 30));
        assert_eq!(f.conclude(5_000, 30, 1), SearchOutcome::Refreshed);
        assert_eq!(f.live.expiry(at(5_000), &peer(1)), Some(at(275_000)));
    }

    #[test]
    fn an_entry_that_outlives_its_search_waits_for_the_best_value() {
        for (expires, timeout) in [(4_999, 4_999), (5_000, 5_000), (5_001, 5_000)] {
            let mut f = Fixture::knowing(1..=1);
            f.enter(1, expires);
            f.searches(0);
            f.value(100, 10, 1, &record(1, 10));
            assert_eq!(f.refresh.timeout(), Some(at(timeout)), "{expires}");
        }
    }

    #[test]
    fn the_best_of_all_values_is_stored_whatever_their_order() {
        for order in [[10, 30, 20], [30, 20, 10], [20, 10, 30]] {
            let mut f = Fixture::knowing(1..=1);
            f.searches(0);
            order
                .iter()
                .for_each(|&issued| f.value(0, 30, 1, &record(1, issued)));
            assert_eq!(f.conclude(0, 30, 1), SearchOutcome::Refreshed);
            assert_eq!(f.live.find(at(0), &peer(1)).unwrap().expires, at(270_000));
        }
    }

    #[test]
    fn expired_early_and_foreign_values_are_not_valid() {
        let own_ms = 1_000_000;
        for (value, outcome) in [
            (record(1, own_ms - 270_000), SearchOutcome::Refreshed),
            (record(1, own_ms - 270_001), SearchOutcome::Unchanged),
            (record(1, own_ms + 120_000), SearchOutcome::Refreshed),
            (record(1, own_ms + 120_001), SearchOutcome::Unchanged),
            (record(2, own_ms), SearchOutcome::Unchanged),
        ] {
            let mut f = Fixture::knowing(1..=1);
            f.searches(0);
            f.value(0, own_ms, 1, &value);
            assert_eq!(f.conclude(0, own_ms, 1), outcome, "{value:?}");
        }
    }

    #[test]
    fn with_nothing_valid_nothing_is_stored() {
        let mut f = Fixture::knowing(1..=1);
        f.searches(0);
        assert_eq!(f.conclude(0, 0, 1), SearchOutcome::Unchanged);
        assert_eq!(f.live.iter(at(0)).count(), 0);
    }

    #[test]
    fn an_entry_that_became_better_while_searching_is_kept() {
        let mut f = Fixture::knowing(1..=1);
        f.searches(0);
        f.value(0, 200_000, 1, &record(1, 0));
        f.live
            .beat(at(10), &peer(1), 90 * S, None, Some(&record(1, 1)))
            .unwrap();
        let before = f.live.clone();
        assert_eq!(f.conclude(10, 200_000, 1), SearchOutcome::Unchanged);
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
    fn values_count_until_the_search_is_over_however_late_they_come() {
        let mut f = Fixture::knowing(1..=1);
        f.searches(0);
        f.value(100, 30, 1, &record(1, 10));
        assert_eq!(f.refresh.overdue(at(4_999)), None);
        f.value(4_999, 30, 1, &record(1, 20));
        assert_eq!(f.conclude(5_000, 30, 1), SearchOutcome::Refreshed);
        assert_eq!(f.live.expiry(at(5_000), &peer(1)), Some(at(274_990)));
    }

    #[test]
    fn who_gave_its_lease_up_during_the_search_is_not_brought_back() {
        let mut f = Fixture::knowing(1..=1);
        f.searches(0);
        f.value(0, 0, 1, &record(1, 0));
        f.known.forget(at(1), &peer(1), 270 * S);
        assert_eq!(f.conclude(2, 0, 1), SearchOutcome::Unchanged);
    }
}
