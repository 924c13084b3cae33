//! The loop by itself: when runs begin and end, and where each node goes.

use core::time::Duration;

use super::*;
use crate::protocol::Shortage;
use crate::protocol::{
    Addr, Load, Name, Reader, RecordInfo, address::Families, signing::record_ttl,
};

const OWN: PeerId = PeerId::from_bytes([0; 32]);
const LEASE: Duration = Duration::from_secs(90);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn beat(live: &mut LiveIndexers<4>, now: u64, n: u8, load: Option<(u32, u32)>) {
    let record = RecordInfo {
        peer: peer(n),
        sequence: 1,
        issued_at_ms: 0,
        ttl: record_ttl(LEASE),
        addrs: [Addr::from_iter([n])].into_iter().collect(),
        name: Name::new(),
    };
    let load = load.map(|(held, possible)| Load { held, possible });
    live.beat(at(now), &peer(n), LEASE, load, Some(&record))
        .unwrap();
}

fn taken_in(nodes: u8) -> Delegation<8> {
    let mut delegation = Delegation::new();
    for n in 0..nodes {
        delegation.take_in(at(0), &peer(100 + n), Shortage::NoneLive);
    }
    delegation
}

fn releases(delegation: &mut Delegation<8>) -> std::vec::Vec<(PeerId, PeerId)> {
    std::iter::from_fn(|| delegation.pop_release()).collect()
}

#[test]
fn with_nobody_taken_in_no_candidate_is_pinged() {
    let (mut offload, mut live) = (Offload::<4>::new(), LiveIndexers::new());
    beat(&mut live, 0, 1, None);
    offload.tick(at(20_000), &Delegation::<8>::new(), &mut live);
    assert_eq!(offload.undecided().count(), 0);
    assert_eq!(offload.phase, Phase::Idle);
}

#[test]
fn candidates_are_the_live_indexers_whose_lease_has_not_run_out() {
    for (now, expected) in [(89_999, 1), (90_000, 1), (90_001, 0)] {
        let (mut offload, mut live) = (Offload::<4>::new(), LiveIndexers::new());
        beat(&mut live, 0, 1, None);
        offload.tick(at(now), &taken_in(1), &mut live);
        assert_eq!(offload.undecided().count(), expected, "at {now}");
    }
}

#[test]
fn with_reachable_indexers_everybody_is_released_and_load_spreads() {
    let (mut offload, mut live, mut delegation) =
        (Offload::<4>::new(), LiveIndexers::new(), taken_in(4));
    beat(&mut live, 0, 1, Some((0, 100)));
    beat(&mut live, 0, 2, Some((0, 100)));
    offload.tick(at(5_000), &delegation, &mut live);
    offload.advance(at(5_000), &OWN, &mut delegation, &mut live);
    assert!(delegation.is_empty());
    let told = releases(&mut delegation);
    let to_first = told
        .iter()
        .filter(|(_, indexer)| *indexer == peer(1))
        .count();
    assert_eq!((told.len(), to_first), (4, 2));
}

#[test]
fn a_run_waits_for_the_last_verdict_and_decides_once() {
    let (mut offload, mut live, mut delegation) =
        (Offload::<4>::new(), LiveIndexers::new(), taken_in(1));
    beat(&mut live, 0, 1, None);
    beat(&mut live, 0, 2, None);
    offload.tick(at(20_000), &delegation, &mut live);
    live.judge(at(20_100), &peer(1), Verdict::Silent);
    offload.advance(at(20_100), &OWN, &mut delegation, &mut live);
    assert_eq!(offload.undecided().collect::<std::vec::Vec<_>>(), [peer(2)]);
    live.judge(at(22_000), &peer(2), Verdict::Reachable);
    offload.advance(at(22_000), &OWN, &mut delegation, &mut live);
    assert_eq!(releases(&mut delegation), [(peer(100), peer(2))]);
}

#[test]
fn a_run_takes_the_time_from_its_begin_to_its_decision() {
    let (mut offload, mut live, mut delegation) =
        (Offload::<4>::new(), LiveIndexers::new(), taken_in(1));
    beat(&mut live, 0, 1, None);
    offload.tick(at(20_000), &delegation, &mut live);
    offload.advance(at(20_700), &OWN, &mut delegation, &mut live);
    let took = |offload: &Offload<4>| offload.ticker.stats().took;
    assert_eq!(took(&offload), Duration::ZERO, "it has not decided");
    live.judge(at(20_701), &peer(1), Verdict::Silent);
    offload.advance(at(20_701), &OWN, &mut delegation, &mut live);
    assert_eq!(took(&offload), Duration::from_millis(701));
    offload.tick(at(50_000), &delegation, &mut live);
    live.judge(at(50_100), &peer(1), Verdict::Reachable);
    offload.advance(at(50_100), &OWN, &mut delegation, &mut live);
    assert_eq!(took(&offload), Duration::from_millis(801));
}

#[test]
fn with_no_reachable_indexer_the_nodes_stay() {
    let (mut offload, mut live, mut delegation) =
        (Offload::<4>::new(), LiveIndexers::new(), taken_in(3));
    beat(&mut live, 0, 1, None);
    offload.tick(at(20_000), &delegation, &mut live);
    live.judge(at(22_000), &peer(1), Verdict::Silent);
    offload.advance(at(22_000), &OWN, &mut delegation, &mut live);
    assert_eq!(delegation.iter().count(), 3);
    assert!(releases(&mut delegation).is_empty());
    assert_eq!(offload.phase, Phase::Idle, "the next tick begins anew");
}

#[test]
fn reachable_indexers_that_are_all_full_are_as_none() {
    let (mut offload, mut live, mut delegation) =
        (Offload::<4>::new(), LiveIndexers::new(), taken_in(3));
    beat(&mut live, 0, 1, Some((8, 8)));
    offload.tick(at(1_000), &delegation, &mut live);
    offload.advance(at(1_000), &OWN, &mut delegation, &mut live);
    assert_eq!(delegation.iter().count(), 3);
}

#[test]
fn with_too_few_places_the_rest_is_taken_in_again_untold() {
    let (mut offload, mut live, mut delegation) =
        (Offload::<4>::new(), LiveIndexers::new(), taken_in(5));
    beat(&mut live, 0, 1, Some((6, 8)));
    beat(&mut live, 0, 2, None);
    offload.tick(at(1_000), &delegation, &mut live);
    offload.advance(at(1_000), &OWN, &mut delegation, &mut live);
    assert_eq!(
        delegation.iter().count(),
        2,
        "two places known, one for the unknown"
    );
    assert_eq!(releases(&mut delegation).len(), 3);
}

#[test]
fn an_indexer_that_went_away_during_the_pings_gets_no_node() {
    let (mut offload, mut live, mut delegation) =
        (Offload::<4>::new(), LiveIndexers::new(), taken_in(1));
    beat(&mut live, 0, 1, Some((0, 9)));
    beat(&mut live, 0, 2, Some((0, 9)));
    live.disconnected(&peer(2));
    offload.tick(at(5_000), &delegation, &mut live);
    offload.advance(at(5_000), &OWN, &mut delegation, &mut live);
    live.disconnected(&peer(1));
    live.judge(at(7_000), &peer(2), Verdict::Silent);
    offload.advance(at(7_000), &OWN, &mut delegation, &mut live);
    assert!(!delegation.is_empty() && releases(&mut delegation).is_empty());
}

#[test]
fn an_indexer_that_registers_during_the_pings_gets_nodes() {
    let (mut offload, mut live, mut delegation) =
        (Offload::<4>::new(), LiveIndexers::new(), taken_in(1));
    beat(&mut live, 0, 1, None);
    offload.tick(at(20_000), &delegation, &mut live);
    offload.advance(at(20_000), &OWN, &mut delegation, &mut live);
    beat(&mut live, 20_500, 2, Some((0, 9)));
    live.judge(at(21_000), &peer(1), Verdict::Silent);
    offload.advance(at(21_000), &OWN, &mut delegation, &mut live);
    assert_eq!(releases(&mut delegation), [(peer(100), peer(2))]);
}

#[test]
fn silent_indexers_hold_a_run_up_for_two_seconds_if_another_is_reachable() {
    for (now, released) in [(6_999, 0), (7_000, 1)] {
        let (mut offload, mut live, mut delegation) =
            (Offload::<4>::new(), LiveIndexers::new(), taken_in(1));
        beat(&mut live, 0, 1, Some((0, 9)));
        beat(&mut live, 0, 2, Some((0, 9)));
        live.disconnected(&peer(2));
        offload.tick(at(5_000), &delegation, &mut live);
        assert_eq!(offload.timeout(), Some(at(7_000)));
        offload.advance(at(now), &OWN, &mut delegation, &mut live);
        assert_eq!(releases(&mut delegation).len(), released, "at {now}");
    }
}

#[test]
fn a_late_run_goes_on_until_one_is_reachable_and_wakes_nobody_meanwhile() {
    let (mut offload, mut live, mut delegation) =
        (Offload::<4>::new(), LiveIndexers::new(), taken_in(1));
    for n in 1..=3 {
        beat(&mut live, 0, n, Some((0, 9)));
        live.disconnected(&peer(n));
    }
    offload.tick(at(5_000), &delegation, &mut live);
    live.judge(at(7_000), &peer(1), Verdict::Silent);
    offload.advance(at(7_000), &OWN, &mut delegation, &mut live);
    assert_eq!((offload.undecided().count(), offload.timeout()), (2, None));
    live.judge(at(7_100), &peer(2), Verdict::Reachable);
    offload.advance(at(7_100), &OWN, &mut delegation, &mut live);
    assert_eq!(releases(&mut delegation), [(peer(100), peer(2))]);
    assert_eq!(
        offload.undecided().count(),
        0,
        "no indexer is pinged without need"
    );
}

#[test]
fn the_indexers_heard_last_are_pinged_first() {
    let (mut offload, mut live) = (Offload::<4>::new(), LiveIndexers::new());
    for (now, n) in [(0, 1), (7_000, 2), (3_000, 3)] {
        beat(&mut live, now, n, None);
    }
    offload.tick(at(20_000), &taken_in(1), &mut live);
    let order: std::vec::Vec<_> = offload.undecided().collect();
    assert_eq!(order, [peer(2), peer(3), peer(1)]);
}

#[test]
fn a_registration_begins_a_run_at_once_and_the_next_a_second_later() {
    let (mut offload, mut live, mut delegation) =
        (Offload::<4>::new(), LiveIndexers::new(), taken_in(1));
    let advance = |offload: &mut Offload<4>, now, delegation: &mut Delegation<8>, live: &mut _| {
        offload.advance(at(now), &OWN, delegation, live);
        releases(delegation).len()
    };
    beat(&mut live, 5_000, 1, Some((0, 9)));
    offload.indexer_registered();
    assert_eq!(advance(&mut offload, 5_000, &mut delegation, &mut live), 1);
    delegation.take_in(at(5_100), &peer(100), Shortage::NoneLive);
    offload.indexer_registered();
    assert_eq!(offload.timeout(), Some(at(6_000)));
    assert_eq!(advance(&mut offload, 5_999, &mut delegation, &mut live), 0);
    assert_eq!(advance(&mut offload, 6_000, &mut delegation, &mut live), 1);
    assert_eq!(offload.timeout(), None);
}

#[test]
fn a_run_that_a_registration_began_waits_for_pings_only_if_places_are_short() {
    for (free, released) in [(2, 2), (1, 0)] {
        let (mut offload, mut live, mut delegation) =
            (Offload::<4>::new(), LiveIndexers::new(), taken_in(2));
        beat(&mut live, 0, 2, Some((0, 9)));
        live.disconnected(&peer(2));
        beat(&mut live, 5_000, 1, Some((0, free)));
        offload.indexer_registered();
        offload.advance(at(5_000), &OWN, &mut delegation, &mut live);
        assert_eq!(releases(&mut delegation).len(), released, "{free} free");
    }
}

#[test]
fn with_nobody_taken_in_a_registration_begins_nothing() {
    let (mut offload, mut live, mut delegation) =
        (Offload::<4>::new(), LiveIndexers::new(), taken_in(0));
    beat(&mut live, 0, 1, None);
    live.disconnected(&peer(1));
    offload.indexer_registered();
    offload.advance(at(1), &OWN, &mut delegation, &mut live);
    assert_eq!((offload.undecided().count(), offload.timeout()), (0, None));
}

#[test]
fn an_indexer_that_boasts_gets_no_more_nodes_than_another_with_room() {
    let (mut offload, mut live, mut delegation) =
        (Offload::<4>::new(), LiveIndexers::new(), taken_in(8));
    beat(&mut live, 0, 1, Some((0, u32::MAX)));
    beat(&mut live, 0, 2, Some((900, 1024)));
    offload.tick(at(1_000), &delegation, &mut live);
    offload.advance(at(1_000), &OWN, &mut delegation, &mut live);
    let told = releases(&mut delegation);
    let boaster = told.iter().filter(|(_, to)| *to == peer(1)).count();
    assert_eq!((told.len(), boaster), (8, 4));
}

/// A beat of an indexer with room that listens at an IPv4 address.
fn beat_at(live: &mut LiveIndexers<4>, now: u64, n: u8, ip: [u8; 4]) {
    let addr = [4].into_iter().chain(ip).chain([6, 0, 1]).collect();
    let record = RecordInfo {
        peer: peer(n),
        sequence: 1,
        issued_at_ms: 0,
        ttl: record_ttl(LEASE),
        addrs: [addr].into_iter().collect(),
        name: Name::new(),
    };
    let load = Load {
        held: 0,
        possible: 9,
    };
    live.beat(at(now), &peer(n), LEASE, Some(load), Some(&record))
        .unwrap();
}

/// One node on another host.
fn far_node() -> Delegation<8> {
    let mut delegation = taken_in(1);
    delegation.note_reader(&peer(100), Reader::far(Families::V4));
    delegation
}

#[test]
fn an_indexer_for_its_own_host_alone_ends_no_run_of_nodes_elsewhere() {
    let (mut offload, mut live, mut delegation) =
        (Offload::<4>::new(), LiveIndexers::new(), far_node());
    beat_at(&mut live, 0, 1, [127, 0, 0, 1]);
    beat_at(&mut live, 0, 2, [192, 0, 2, 1]);
    live.disconnected(&peer(2));
    offload.tick(at(5_000), &delegation, &mut live);
    offload.advance(at(7_000), &OWN, &mut delegation, &mut live);
    assert_eq!(offload.undecided().collect::<std::vec::Vec<_>>(), [peer(2)]);
    live.judge(at(8_000), &peer(2), Verdict::Reachable);
    offload.advance(at(8_000), &OWN, &mut delegation, &mut live);
    assert_eq!(releases(&mut delegation), [(peer(100), peer(2))]);
}

#[test]
fn a_registration_hurries_only_for_nodes_that_can_go_there() {
    for (ip, released) in [([127, 0, 0, 1], 0), ([192, 0, 2, 1], 1)] {
        let (mut offload, mut live, mut delegation) =
            (Offload::<4>::new(), LiveIndexers::new(), far_node());
        beat_at(&mut live, 0, 2, [192, 0, 2, 2]);
        live.disconnected(&peer(2));
        beat_at(&mut live, 5_000, 1, ip);
        offload.indexer_registered();
        offload.advance(at(5_000), &OWN, &mut delegation, &mut live);
        assert_eq!(releases(&mut delegation).len(), released, "{ip:?}");
        assert_eq!(offload.undecided().count(), 1 - released, "{ip:?}");
    }
}

#[test]
fn each_node_goes_where_it_can_and_places_are_reserved_there_alone() {
    let (mut offload, mut live, mut delegation) =
        (Offload::<4>::new(), LiveIndexers::new(), taken_in(3));
    for n in [100, 101] {
        delegation.note_reader(&peer(n), Reader::far(Families::V4));
    }
    beat_at(&mut live, 0, 1, [127, 0, 0, 1]);
    offload.tick(at(5_000), &delegation, &mut live);
    offload.advance(at(5_000), &OWN, &mut delegation, &mut live);
    assert_eq!(releases(&mut delegation), [(peer(102), peer(1))]);
    assert_eq!(delegation.len(), 2);
    assert_eq!(live.find(at(5_000), &peer(1)).unwrap().free(), Some(8));
}
