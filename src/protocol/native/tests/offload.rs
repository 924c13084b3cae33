//! Nodes that were taken in are handed over to indexers.

use super::*;
use crate::protocol::AckBuf;

/// A node was taken in at 1 s on stream 100, because it could not use the indexer that had
/// registered before. The last beat of that indexer came at `beat`. The first run of the loop is at
/// 30 s.
fn taken_in(beat: u64) -> Rig {
    let mut rig = Rig::new();
    rig.indexer(1);
    rig.now = 1_000;
    assert!(rig.ask(100, Want::OffersFailed).unwrap().takes_in);
    assert_eq!(rig.node(100).code, AckCode::Accepted);
    rig.run(beat);
    rig.indexer(1);
    rig.drain();
    rig
}

fn probe(n: u8) -> Action {
    Action::Probe {
        peer: peer(n),
        addrs: addrs(n),
    }
}

fn releases(out: &[(u64, Action)]) -> Vec<(u64, PeerId, StreamId, AckBuf)> {
    let release = |(at, action): &(u64, Action)| match action {
        Action::Release {
            peer,
            stream,
            left,
            offer,
        } => {
            let ack = Ack::released(*left, offer.as_slice());
            Some((*at, *peer, *stream, ack.into()))
        }
        _ => None,
    };
    out.iter().filter_map(release).collect()
}

#[test]
fn at_its_tick_and_not_before_the_node_is_released_with_the_indexer_that_has_a_place() {
    let mut rig = taken_in(25_000);
    assert!(releases(&rig.run(29_999)).is_empty());
    assert_eq!(rig.view().responsible, [peer(100)]);
    let out = rig.run(30_000);
    let told = releases(&out);
    let [(30_000, node, StreamId(100), ack)] = told.as_slice() else {
        panic!("{out:?}");
    };
    assert_eq!((*node, ack.code), (peer(100), AckCode::Released));
    assert_eq!(
        ack.lease,
        Duration::from_secs(61),
        "what is left of its lease"
    );
    assert_eq!(ack.offers.first().unwrap().peer, peer(1));
    assert_eq!(rig.view().did("offload"), 1);
    // At the next tick, at most 33 s later, there is nothing to do.
    rig.run(63_001);
    assert_eq!(rig.view().did("offload"), 0);
    let view = rig.view();
    assert!(view.responsible.is_empty());
    assert_eq!(view.expiry(100), Some(at(91_000)), "the lease runs on");
    assert!(
        !out.iter()
            .any(|(_, action)| matches!(action, Action::Close { .. })),
        "and so does the stream"
    );
}

#[test]
fn an_indexer_that_registers_has_the_nodes_at_once_and_others_wait_a_second() {
    let mut rig = Rig::new();
    rig.node(100);
    rig.run(5_000);
    rig.indexer(1);
    assert_eq!(releases(&rig.run(5_000)).len(), 1);
    // The offer failed, and another indexer registers.
    assert!(rig.ask(100, Want::OffersFailed).unwrap().takes_in);
    rig.node(100);
    rig.indexer(2);
    assert!(releases(&rig.run(5_999)).is_empty());
    assert_eq!(releases(&rig.run(6_000)).len(), 1);
}

#[test]
fn a_beat_of_an_indexer_that_is_here_already_begins_no_run() {
    let mut rig = taken_in(5_000);
    rig.beat(Role::Indexer, 1, 1, Some(&record(1, 2)));
    assert!(releases(&rig.run(9_000)).is_empty());
    // A new stream is a registration.
    rig.native.stream_closed(at(9_000), &peer(1), StreamId(1));
    rig.beat(Role::Indexer, 1, 7, None);
    assert_eq!(releases(&rig.run(9_000)).len(), 1);
}

#[test]
fn further_beats_of_a_released_node_are_answered_released_and_renew_nothing() {
    let mut rig = taken_in(25_000);
    rig.run(30_000);
    for now in [30_001, 40_000] {
        rig.run(now);
        rig.indexer(1);
        let ack = rig.node(100);
        assert_eq!(ack.code, AckCode::Released);
        assert_eq!(ack.lease, Duration::from_millis(91_000 - now));
        assert_eq!(ack.offers.len(), 1);
        assert_eq!(rig.view().expiry(100), Some(at(91_000)));
        assert!(rig.view().responsible.is_empty());
    }
    rig.now = 91_001;
    assert_eq!(rig.view().expiry(100), None, "it has run out");
}

#[test]
fn candidates_are_pinged_and_an_overdue_ping_leaves_the_nodes_where_they_are() {
    let mut rig = taken_in(2_000);
    assert_eq!(rig.run(29_999), []);
    let out = rig.run(30_000);
    assert_eq!(out, [(30_000, probe(1))]);
    assert_eq!(rig.run(32_000), []);
    assert_eq!(rig.view().responsible, [peer(100)]);
    assert_eq!(rig.node(100), Ack::accepted(LEASE));
}

#[test]
fn a_pong_in_time_releases_the_nodes() {
    let mut rig = taken_in(2_000);
    rig.run(31_999);
    rig.native.probed(at(31_999), &peer(1), Verdict::Reachable);
    let told: Vec<_> = rig.drain();
    assert!(
        matches!(told.as_slice(), [Action::Release { .. }]),
        "{told:?}"
    );
    assert!(rig.view().responsible.is_empty());
}

#[test]
fn an_indexer_whose_lease_has_run_out_is_no_candidate() {
    let mut rig = Rig::new();
    // With this lease the entry ends at the tick, or one millisecond before.
    for (n, lease) in [(1, 30_000), (2, 29_999)] {
        let lease = Duration::from_millis(lease);
        rig.beat_with(
            Role::Indexer,
            n,
            u64::from(n),
            lease,
            Some(&record(n, 1)),
            None,
            &[],
        );
        rig.native
            .stream_closed(at(0), &peer(n), StreamId(u64::from(n)));
        rig.native
            .live_indexers
            .judge(at(0), &peer(n), Verdict::Silent);
    }
    rig.node(100);
    let out = rig.run(30_000);
    let probed: Vec<_> = out
        .iter()
        .filter(|(_, action)| matches!(action, Action::Probe { .. }))
        .collect();
    assert_eq!(probed, [&(30_000, probe(1))]);
}

#[test]
fn with_nobody_taken_in_nobody_is_pinged() {
    let mut rig = Rig::new();
    rig.indexer(1);
    let out = rig.run(50_000);
    assert!(
        !out.iter()
            .any(|(_, action)| matches!(action, Action::Probe { .. }))
    );
}

#[test]
fn a_node_whose_stream_is_gone_is_released_all_the_same_and_told_at_its_next_beat() {
    let mut rig = taken_in(25_000);
    rig.native
        .stream_closed(at(25_000), &peer(100), StreamId(100));
    assert!(releases(&rig.run(30_000)).is_empty());
    assert!(rig.view().responsible.is_empty());
    assert_eq!(
        rig.beat(Role::Node, 100, 101, None).ack.code,
        AckCode::Released
    );
}

#[test]
fn indexers_that_are_all_full_are_as_none_and_a_place_that_comes_free_is_used_by_the_next_run() {
    let mut rig = taken_in(25_000);
    let load = |rig: &mut Rig, load| {
        rig.beat_with(Role::Indexer, 1, 1, LEASE, None, Some(load), &[]);
    };
    load(&mut rig, (8, 8));
    assert!(releases(&rig.run(59_999)).is_empty());
    assert_eq!(rig.view().responsible, [peer(100)]);
    let next = rig.native.offload.ticker.next().as_millis();
    assert!((60_000..=63_000).contains(&next), "a tenth of jitter");
    load(&mut rig, (7, 8));
    rig.node(100);
    assert!(releases(&rig.run(next - 1)).is_empty());
    assert_eq!(releases(&rig.run(next)).len(), 1);
}

#[test]
fn a_released_node_whose_offers_failed_is_taken_in_again() {
    let mut rig = taken_in(25_000);
    rig.run(30_000);
    assert!(rig.ask(100, Want::OffersFailed).unwrap().takes_in);
    assert!(rig.view().responsible.is_empty(), "its beat makes it so");
    assert_eq!(rig.node(100), Ack::accepted(LEASE));
    assert_eq!(rig.view().responsible, [peer(100)]);
    assert_eq!(rig.view().expiry(100), Some(at(120_000)));
}

#[test]
fn a_released_node_finds_no_indexer_any_more_and_is_taken_in_again() {
    let mut rig = taken_in(25_000);
    rig.run(30_000);
    rig.give_up(Role::Indexer, 1, 1);
    let ack = rig.node(100);
    assert_eq!((ack.code, ack.offers.len()), (AckCode::Released, 0));
    assert!(rig.ask(100, Want::Lease).unwrap().takes_in);
    assert_eq!(rig.node(100), Ack::accepted(LEASE));
}

#[test]
fn a_node_that_was_handed_over_neither_left_nor_was_lost() {
    for gives_up in [true, false] {
        let mut rig = taken_in(25_000);
        rig.beat(Role::Node, 100, 100, Some(&record(100, 1)));
        rig.run(30_000);
        rig.native
            .entry(at(30_000), &peer(100))
            .expect("it is listed");
        if gives_up {
            rig.give_up(Role::Node, 100, 100);
        }
        for now in (50_000..=200_000).step_by(20_000) {
            rig.run(now);
            rig.indexer(1);
        }
        assert_eq!(rig.native.entry(at(rig.now), &peer(100)), None);
    }
}

#[test]
fn node_whose_first_beat_comes_after_the_first_indexer_does_not_wait_for_a_tick() {
    let mut rig = Rig::new();
    rig.now = 1_000;
    assert!(rig.ask(100, Want::Lease).unwrap().takes_in);
    rig.now = 1_050;
    rig.indexer(1);
    rig.drain();
    rig.now = 1_100;
    assert_eq!(rig.node(100).code, AckCode::Accepted);
    let out = rig.run(1_100);
    let told = releases(&out);
    let [(1_100, _, _, ack)] = told.as_slice() else {
        panic!("{out:?}");
    };
    assert_eq!(ack.offers.first().unwrap().peer, peer(1));
}

#[test]
fn node_at_which_every_offer_failed_is_not_sent_back_for_a_node_that_comes_late() {
    let mut rig = Rig::new();
    assert!(rig.ask(101, Want::Lease).unwrap().takes_in);
    rig.indexer(1);
    rig.now = 1_000;
    assert!(rig.ask(100, Want::OffersFailed).unwrap().takes_in);
    rig.node(100);
    rig.run(2_000);
    rig.node(101);
    let out = rig.run(3_500);
    let told: Vec<_> = releases(&out).iter().map(|told| told.1).collect();
    assert_eq!(told, [peer(101)]);
    assert_eq!(rig.view().responsible, [peer(100)]);
}
