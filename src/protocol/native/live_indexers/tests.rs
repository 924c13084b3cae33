//! The table of live indexers at its boundaries.

use super::*;
use crate::protocol::Name;

const LEASE: Duration = Duration::from_secs(90);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn record(n: u8, issued_at_ms: u64, ttl_ms: u64) -> RecordInfo {
    RecordInfo {
        peer: peer(n),
        sequence: issued_at_ms,
        issued_at_ms,
        ttl: Duration::from_millis(ttl_ms),
        addrs: Addrs::new(),
        name: Name::new(),
    }
}

#[test]
fn an_entry_made_by_a_beat_counts_until_receipt_plus_lease() {
    let mut live = LiveIndexers::<4>::new();
    assert_eq!(live.beat(at(0), &peer(1), LEASE, None, None), Ok(false));
    assert!(
        live.find(at(0), &peer(1)).is_none(),
        "live only with a record"
    );
    assert_eq!(
        live.beat(at(0), &peer(1), LEASE, None, Some(&record(1, 0, 1))),
        Ok(true)
    );
    assert!(live.find(at(90_000), &peer(1)).is_some());
    assert!(live.find(at(90_001), &peer(1)).is_none());
}

#[test]
fn who_is_new_here_is_counted_and_who_was_away_is_new() {
    let mut live = LiveIndexers::<4>::new();
    let beat = |live: &mut LiveIndexers<4>, now, n| {
        let record = record(n, 0, 1);
        live.beat(at(now), &peer(n), LEASE, None, Some(&record))
    };
    let newest = |count, n| {
        let peer = peer(n);
        Some(NewestIndexer { count, peer })
    };
    assert_eq!(live.newest(), None);
    beat(&mut live, 0, 1).unwrap();
    assert_eq!(live.newest(), newest(1, 1));
    beat(&mut live, 90_000, 1).unwrap();
    assert_eq!(live.newest(), newest(1, 1), "its entry is live");
    beat(&mut live, 180_001, 1).unwrap();
    assert_eq!(live.newest(), newest(2, 1), "it had run out");
    assert!(live.found_in_dht(at(180_001), 0, &record(2, 0, 9_000)));
    assert_eq!(live.newest(), newest(3, 2));
    assert!(live.found_in_dht(at(189_001), 0, &record(2, 1, 18_000)));
    assert_eq!(live.newest(), newest(3, 2));
    assert!(live.found_in_dht(at(207_003), 0, &record(2, 2, 90_000)));
    assert_eq!(live.newest(), newest(4, 2));
}

#[test]
fn an_entry_from_the_dht_counts_to_the_end_of_its_records_life() {
    let mut live = LiveIndexers::<4>::new();
    assert!(live.found_in_dht(at(5), 1_000_000, &record(1, 990_000, 30_000)));
    assert_eq!(live.find(at(5), &peer(1)).unwrap().expires, at(20_005));
}

#[test]
fn a_copy_of_the_same_record_lengthens_an_entry_and_never_shortens_it() {
    let mut live = LiveIndexers::<4>::new();
    live.beat(at(0), &peer(1), LEASE, None, Some(&record(1, 0, 270_000)))
        .unwrap();
    assert!(
        !live.found_in_dht(at(0), 180_000, &record(1, 0, 270_000)),
        "as long as the entry"
    );
    assert!(
        live.found_in_dht(at(1), 180_000, &record(1, 0, 270_000)),
        "a millisecond longer"
    );
    assert!(
        !live.found_in_dht(at(2), 180_001, &record(1, 0, 270_000)),
        "the same again"
    );
    assert!(
        live.found_in_dht(at(2), 180_000, &record(1, 1, 270_000)),
        "re-signed"
    );
    assert_eq!(live.find(at(2), &peer(1)).unwrap().source, Source::Dht);
}

/// A beat brings a record with the first sequence and expiry, then a copy with the second ones
/// comes from the DHT. Returns whether the copy was stored, and the sequence and expiry of the
/// entry.
fn after_copy(by_beat: (u64, u64), copy: (u64, u64)) -> (bool, u64, Instant) {
    let with = |(sequence, expires): (u64, u64)| RecordInfo {
        sequence,
        ..record(1, expires - 270_000, 270_000)
    };
    let mut live = LiveIndexers::<4>::new();
    live.beat(at(0), &peer(1), LEASE, None, Some(&with(by_beat)))
        .unwrap();
    let stored = live.found_in_dht(at(0), 1_000_000, &with(copy));
    let entry = live.find(at(0), &peer(1)).unwrap();
    (stored, entry.rank.sequence, entry.expires)
}

#[test]
fn what_a_beat_brought_is_replaced_only_by_a_better_record() {
    let ours = (7, 1_270_000);
    for (copy, stored) in [
        ((6, 1_269_999), false),
        ((8, 1_269_999), false),
        ((6, 1_270_000), false),
        ((6, 1_270_001), false),
        ((8, 1_270_000), true),
        ((8, 1_270_001), true),
    ] {
        let kept = if stored { copy.0 } else { 7 };
        let (was_stored, sequence, _) = after_copy(ours, copy);
        assert_eq!((was_stored, sequence), (stored, kept), "{copy:?}");
    }
    // If a better record ends before the lease does, the lease goes on.
    let (stored, sequence, expires) = after_copy((7, 1_010_000), (8, 1_020_000));
    assert_eq!((stored, sequence, expires), (true, 8, at(90_000)));
}

#[test]
fn an_entry_that_has_run_out_takes_no_room() {
    let full_at = |now| {
        let mut live = LiveIndexers::<2>::new();
        for n in [1, 2] {
            let lease = LEASE + Duration::from_secs(n.into());
            live.beat(at(0), &peer(n), lease, None, Some(&record(n, 0, 1)))
                .unwrap();
        }
        let from_dht = live.clone().found_in_dht(at(now), 0, &record(3, 0, 9_000));
        let by_beat = live.beat(at(now), &peer(3), LEASE, None, Some(&record(3, 0, 1)));
        assert_eq!(live.stats(at(now)).evicted, u64::from(from_dht));
        assert!(live.find(at(now), &peer(2)).is_some());
        (from_dht, by_beat)
    };
    assert_eq!(full_at(91_000), (false, Err(Full)));
    assert_eq!(full_at(91_001), (true, Ok(true)));
}

#[test]
fn a_failed_probe_does_not_outweigh_a_beat_that_came_while_it_ran() {
    let cases = [
        (999, Verdict::Reachable),
        (1_000, Verdict::Reachable),
        (1_001, Verdict::Silent),
    ];
    for (began, expected) in cases {
        let mut live = LiveIndexers::<4>::new();
        live.beat(at(1_000), &peer(1), LEASE, None, Some(&record(1, 0, 1)))
            .unwrap();
        live.probe_ended(at(2_999), at(began), &peer(1), Verdict::Silent);
        let verdict = live.find(at(2_999), &peer(1)).unwrap().verdict(at(2_999));
        assert_eq!(verdict, Some(expected), "probe of {began}");
    }
}

#[test]
fn after_a_beat_and_the_end_of_its_stream_a_probe_from_before_says_nothing() {
    let mut live = LiveIndexers::<4>::new();
    live.beat(at(1_000), &peer(1), LEASE, None, Some(&record(1, 0, 1)))
        .unwrap();
    live.disconnected(&peer(1));
    live.probe_ended(at(2_000), at(900), &peer(1), Verdict::Silent);
    let verdict =
        |live: &LiveIndexers<4>| live.find(at(2_000), &peer(1)).unwrap().verdict(at(2_000));
    assert_eq!(verdict(&live), None);
    live.probe_ended(at(2_000), at(900), &peer(1), Verdict::Reachable);
    assert_eq!(verdict(&live), Some(Verdict::Reachable));
}

#[test]
fn a_verdict_that_was_good_when_the_question_arrived_is_good_for_its_answer() {
    let mut live = LiveIndexers::<4>::new();
    live.beat(at(0), &peer(1), LEASE, None, Some(&record(1, 0, 1)))
        .unwrap();
    let entry = live.find(at(11_999), &peer(1)).unwrap();
    assert_eq!(
        entry.verdict(at(10_000)),
        Some(Verdict::Reachable),
        "asked then"
    );
    assert_eq!(entry.verdict(at(10_001)), None);
}

#[test]
fn loads_are_clamped_to_65535() {
    let mut live = LiveIndexers::<4>::new();
    let load = Some(Load {
        held: 70_000,
        possible: u32::MAX,
    });
    live.beat(at(0), &peer(1), LEASE, load, Some(&record(1, 0, 1)))
        .unwrap();
    assert_eq!(live.find(at(0), &peer(1)).unwrap().free(), Some(0));
    let load = Some(Load {
        held: 0,
        possible: u32::MAX,
    });
    live.beat(at(0), &peer(1), LEASE, load, None).unwrap();
    assert_eq!(live.find(at(0), &peer(1)).unwrap().free(), Some(65_535));
}

#[test]
fn a_beat_displaces_the_dht_entry_that_would_expire_first() {
    let mut live = LiveIndexers::<2>::new();
    live.found_in_dht(at(0), 0, &record(1, 0, 9_000));
    live.found_in_dht(at(0), 0, &record(2, 0, 8_000));
    assert!(
        !live.found_in_dht(at(0), 0, &record(3, 0, 90_000)),
        "the DHT displaces nothing"
    );
    assert_eq!(
        live.beat(at(0), &peer(3), LEASE, None, Some(&record(3, 0, 1))),
        Ok(true)
    );
    assert!(live.find(at(0), &peer(2)).is_none());
    live.beat(at(0), &peer(4), LEASE, None, Some(&record(4, 0, 1)))
        .unwrap();
    assert_eq!(
        live.beat(at(0), &peer(5), LEASE, None, Some(&record(5, 0, 1))),
        Err(Full)
    );
    assert_eq!(live.stats(at(0)).used, 2);
    assert_eq!(
        (live.stats(at(0)).refused, live.stats(at(0)).evicted),
        (2, 2)
    );
}

#[test]
fn a_verdict_speaks_for_ten_seconds() {
    let mut live = LiveIndexers::<4>::new();
    live.beat(at(0), &peer(1), LEASE, None, Some(&record(1, 0, 1)))
        .unwrap();
    let verdict =
        |live: &LiveIndexers<4>, now| live.find(at(now), &peer(1)).unwrap().verdict(at(now));
    assert_eq!(verdict(&live, 10_000), Some(Verdict::Reachable));
    assert_eq!(verdict(&live, 10_001), None);
    live.judge(at(11_000), &peer(1), Verdict::Silent);
    assert_eq!(verdict(&live, 21_000), Some(Verdict::Silent));
    assert_eq!(verdict(&live, 21_001), None);
    live.judge(at(22_000), &peer(1), Verdict::Reachable);
    live.disconnected(&peer(1));
    assert_eq!(
        verdict(&live, 22_000),
        None,
        "the stream it came on is closed"
    );
}

#[test]
fn promises_hold_until_the_next_beat() {
    let mut live = LiveIndexers::<4>::new();
    let load = Some(Load {
        held: 1,
        possible: 3,
    });
    live.beat(at(0), &peer(1), LEASE, load, Some(&record(1, 0, 1)))
        .unwrap();
    let entry = live.find_mut(&peer(1)).unwrap();
    entry.reserve();
    assert_eq!((entry.free(), entry.places()), (Some(1), 1));
    entry.reserve();
    assert!(!entry.has_room());
    live.beat(at(1), &peer(1), LEASE, load, None).unwrap();
    assert_eq!(live.find(at(1), &peer(1)).unwrap().free(), Some(2));
}

#[test]
fn an_unknown_number_of_free_leases_is_one_place() {
    let mut live = LiveIndexers::<4>::new();
    live.found_in_dht(at(0), 0, &record(1, 0, 9_000));
    let entry = live.find_mut(&peer(1)).unwrap();
    assert_eq!((entry.free(), entry.places()), (None, 1));
    entry.reserve();
    assert_eq!((entry.free(), entry.places()), (None, 0));
    live.forget_silent_promises();
    assert_eq!(live.find(at(0), &peer(1)).unwrap().places(), 1);
}
