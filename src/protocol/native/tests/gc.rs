//! Silent peers are removed; the loops keep their times.

use super::*;
use crate::protocol::lookup::Here as _;

fn closed(out: &[(u64, Action)]) -> Vec<(u64, PeerId)> {
    let close = |(at, action): &(u64, Action)| match action {
        Action::Close { peer, .. } => Some((*at, *peer)),
        _ => None,
    };
    out.iter().filter_map(close).collect()
}

/// A rig that has run to just before its first GC after 70 s, and the time of that GC.
fn before_a_run() -> (Rig, u64) {
    let mut rig = Rig::new();
    while rig.native.gc.next() < at(70_000) {
        let next = rig.native.gc.next().as_millis();
        rig.run(next);
    }
    let run = rig.native.gc.next().as_millis();
    (rig, run)
}

#[test]
fn a_lease_silent_for_more_than_two_thirds_is_collected_and_nobody_else() {
    let (_, run) = before_a_run();
    for (silent, gone) in [(59_999, 0), (60_000, 0), (60_001, 1)] {
        let mut rig = Rig::new();
        rig.run(run - silent);
        rig.indexer(1);
        rig.run(run - 30_000);
        rig.indexer(2);
        assert!(closed(&rig.run(run - 1)).is_empty());
        let out = rig.run(run);
        assert_eq!(closed(&out).len(), gone, "silent for {silent}");
        let view = rig.view();
        assert_eq!(view.expiry(1).is_none(), gone == 1);
        assert_eq!(view.did("gc"), u32::from(gone == 1));
        assert_eq!(view.live.len(), 2, "left to run out by itself");
        assert_eq!(view.known.len(), 2, "the refresh loop will look for it");
        assert_eq!(
            view.expiry(2),
            Some(at(run + 60_000)),
            "the others go on undisturbed"
        );
    }
}

#[test]
fn a_collected_entry_of_live_indexers_runs_out_at_receipt_plus_lease() {
    let (_, run) = before_a_run();
    let mut rig = Rig::new();
    rig.run(run - 60_001);
    rig.indexer(1);
    rig.run(run);
    assert!(rig.view().records.is_empty());
    rig.run(run + 29_999);
    assert_eq!(rig.view().live.len(), 1);
    rig.run(run + 30_000);
    assert!(rig.view().live.is_empty());
}

#[test]
fn a_stale_node_leaves_responsible_peers_too() {
    let (_, run) = before_a_run();
    let mut rig = Rig::new();
    rig.run(run - 60_001);
    rig.node(100);
    rig.run(run - 1);
    assert_eq!(rig.view().responsible, [peer(100)]);
    assert_eq!(closed(&rig.run(run)), [(run, peer(100))]);
    assert!(rig.native.delegation.is_empty());
}

#[test]
fn a_late_beat_renews_before_gc() {
    let (_, run) = before_a_run();
    let mut rig = Rig::new();
    rig.run(run - 60_001);
    rig.indexer(1);
    rig.run(run - 1);
    rig.now = run;
    rig.beat(Role::Indexer, 1, 1, None);
    assert!(closed(&rig.run(run)).is_empty());
}

#[test]
fn the_loops_run_first_in_different_phases_and_then_with_jitter() {
    let mut rig = Rig::new();
    let runs =
        |rig: &Rig| -> Vec<u64> { rig.view().runs.iter().map(|(_, runs, _)| *runs).collect() };
    for (now, expected) in [
        (9_999, [0, 0, 0]),
        (10_000, [0, 0, 1]),
        (19_999, [0, 0, 1]),
        (20_000, [0, 1, 1]),
        (29_999, [0, 1, 1]),
        (30_000, [1, 1, 1]),
    ] {
        rig.run(now);
        assert_eq!(runs(&rig), expected, "offload, refresh, gc at {now}");
    }
    for ticker in [
        &rig.native.offload.ticker,
        &rig.native.refresh.ticker,
        &rig.native.gc,
    ] {
        let last = ticker.stats().last;
        let pause = ticker.next() - last.unwrap();
        assert!((30_000..=33_000).contains(&pause.as_millis()), "{pause:?}");
    }
}

#[test]
fn a_tick_late_by_more_than_its_interval_moves_granted_leases_on() {
    let mut rig = Rig::new();
    rig.indexer(1);
    rig.node(100);
    // GC was due at 10 s. A delay of a whole interval is in time, and a millisecond more is not.
    assert_eq!(rig.native.overslept(at(40_000)), Duration::ZERO);
    rig.now = 1_010_000;
    let gap = rig.native.overslept(at(rig.now));
    assert_eq!(gap, Duration::from_secs(1_000));
    rig.native.shift(at(rig.now), gap);
    assert!(closed(&rig.run(1_010_000)).is_empty());
    let view = rig.view();
    assert_eq!(view.expiry(1), Some(at(1_090_000)));
    assert_eq!(view.live.len(), 1);
    assert_eq!(rig.native.overslept(at(rig.now)), Duration::ZERO);
}

#[test]
fn input_that_piled_up_while_stopped_may_replace_more_streams_than_can_be_closed() {
    let mut rig = Rig::new();
    for stream in 1..200 {
        rig.beat(Role::Indexer, 1, stream, None);
    }
    let out = rig.drain();
    assert_eq!(out.len(), 40, "the newest of the replaced are closed");
    let newest = Action::Close {
        peer: peer(1),
        stream: StreamId(198),
        ended: None,
    };
    assert_eq!(out.last(), Some(&newest));
}

#[test]
fn nothing_loops_whatever_is_due_at_once() {
    let mut rig = Rig::new();
    for n in 1..=32 {
        rig.indexer(n);
    }
    rig.learn_native(60);
    for n in 100..103 {
        rig.node(n);
        rig.ask(n, Want::OffersFailed);
    }
    for now in [29_000, 95_000, 400_000, 4_000_000] {
        rig.now = now;
        rig.drain();
    }
    rig.native.shut_down();
    rig.drain();
}

#[test]
fn a_lease_that_has_run_out_takes_no_room_before_gc_comes_by() {
    for (later, code) in [(10_000, AckCode::Full), (10_001, AckCode::Accepted)] {
        let mut rig = Rig::new();
        rig.run(45_000);
        for n in 100..103 {
            let lease = Duration::from_secs(10);
            let outcome = rig.beat_with(Role::Node, n, n.into(), lease, None, None, &[]);
            assert_eq!(outcome.ack.code, AckCode::Accepted);
        }
        // GC ran at 40 s and is not due before 70 s.
        rig.now += later;
        assert_eq!(rig.node(103).code, code, "{later} ms after the last beat");
    }
}

/// The state of the peer, as the native reports it.
fn presence(rig: &Rig, n: u8) -> Option<Presence> {
    let entry = rig.native.entry(at(rig.now), &peer(n));
    entry.map(|entry| entry.presence)
}

#[test]
fn a_stale_node_that_was_taken_in_is_lost_and_one_that_gives_up_has_left() {
    let (_, run) = before_a_run();
    let mut rig = Rig::new();
    rig.run(run - 60_001);
    for n in [100, 101] {
        rig.beat(Role::Node, n, n.into(), Some(&record(n, 1)));
    }
    rig.give_up(Role::Node, 101, 101);
    rig.run(run - 1);
    assert_eq!(presence(&rig, 100), Some(Presence::Alive));
    assert_eq!(presence(&rig, 101), Some(Presence::Left));
    rig.run(run);
    assert_eq!(presence(&rig, 100), Some(Presence::Lost));
    rig.beat(Role::Node, 100, 7, Some(&record(100, 2)));
    assert_eq!(presence(&rig, 100), Some(Presence::Alive));
}

#[test]
fn an_indexer_has_left_ten_seconds_after_its_farewell_and_not_if_it_was_lost_or_is_back() {
    let mut rig = Rig::new();
    rig.run(1_000);
    rig.indexer(1);
    rig.indexer(2);
    rig.give_up(Role::Indexer, 2, 2);
    assert!(!rig.native.has_left(at(10_999), &peer(2)));
    assert!(rig.native.has_left(at(11_000), &peer(2)));
    assert!(!rig.native.has_left(at(11_000), &peer(1)), "it is alive");
    rig.indexer(2);
    assert!(!rig.native.has_left(at(11_000), &peer(2)), "it is back");
    rig.run(400_000);
    assert!(rig.native.lost().unwrap().find(&peer(1)).is_some());
    assert!(!rig.native.has_left(at(400_000), &peer(1)), "it was lost");
}

#[test]
fn an_indexer_that_left_or_was_lost_is_kept_with_its_role_and_in_no_list_of_nodes() {
    let (_, run) = before_a_run();
    let mut rig = Rig::new();
    rig.run(run - 60_001);
    rig.indexer(1);
    rig.indexer(2);
    rig.give_up(Role::Indexer, 2, 2);
    rig.run(run);
    let lost = rig.native.lost().unwrap();
    let kept = |n| lost.find(&peer(n)).map(|lost| (lost.role, lost.presence));
    assert_eq!(kept(1), Some((Role::Indexer, Presence::Lost)));
    assert_eq!(kept(2), Some((Role::Indexer, Presence::Left)));
    let which = Selection {
        filter: &Filter::default(),
        from: Cursor::Start,
        gone: true,
    };
    let next = rig.native.entries(at(run), which, &mut |entry| {
        panic!("{entry:?}");
    });
    assert_eq!(next, None);
    rig.indexer(1);
    rig.indexer(2);
    assert_eq!(rig.native.lost().unwrap().stats().used, 0);
}
