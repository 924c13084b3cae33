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
fn a_run_takes_the_time_until_its_last_search_ends() {
    let mut f = Fixture::knowing(1..=2);
    assert_eq!(f.searches(0).len(), 2);
    f.conclude(700, 0, 1);
    assert_eq!(f.refresh.ticker.stats().took, Duration::ZERO);
    f.conclude(1_900, 0, 2);
    assert_eq!(f.refresh.ticker.stats().took, Duration::from_millis(1_900));
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
fn entries_that_expire_soonest_are_searched_for_first_and_have_all_eight_if_nothing_else_waits() {
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
