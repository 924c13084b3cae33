mod presence;
mod spare;

use std::{boxed::Box, vec::Vec};

use super::*;
use crate::protocol::LeaseEnd;
use crate::protocol::input::tests::Events;
use crate::protocol::{
    AckCode, Action, Name, Pace, RecordInfo, Verdict,
    capacities::MAX_NATIVES,
    signing::{Urgency, record_ttl},
};

const LEASE: Duration = Duration::from_secs(90);
const CONFIG: IndexerConfig = IndexerConfig {
    terms: Terms {
        lease: LEASE,
        beat_interval: Duration::from_secs(30),
    },
    gc_interval: Duration::from_secs(30),
};

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn record(n: u8, sequence: u64, name: &str) -> RecordInfo {
    RecordInfo {
        peer: peer(n),
        sequence,
        issued_at_ms: sequence,
        ttl: record_ttl(LEASE),
        addrs: Addrs::new(),
        name: Name::try_from(name).unwrap(),
    }
}

/// An indexer with room for two nodes. Its GC runs first at 10 s.
fn indexer() -> Box<Indexer<2>> {
    let mut indexer = Box::new(Indexer::new());
    indexer.start(at(0), peer(0), 1, CONFIG);
    indexer
}

fn node_beat<'a>(
    indexer: &'a mut Indexer<2>,
    now: u64,
    n: u8,
    stream: u64,
    lease: Duration,
    record: Option<&RecordInfo>,
) -> BeatOutcome<'a> {
    let beat = Beat {
        record: record.map(SignedRecord::of),
        ..Beat::new(Role::Node, lease)
    };
    indexer.beat(at(now), &peer(n), StreamId(stream), &beat)
}

fn join(indexer: &mut Indexer<2>, now: u64, n: u8) -> Ack<'_> {
    node_beat(indexer, now, n, u64::from(n), LEASE, None).ack
}

/// The end of a node's lease that was held, and not heard of, for this long.
fn ended(how: EndCause, seconds: u32) -> LeaseEnd {
    LeaseEnd {
        how,
        role: Role::Node,
        held_s: seconds,
        silent_s: seconds,
    }
}

fn drain<const N: usize>(indexer: &mut Indexer<N>, now: u64) -> Vec<Action> {
    let mut out = Vec::new();
    while let Some(action) = indexer.poll(at(now), now) {
        out.push(action);
        assert!(out.len() < 1000, "poll does not come to an end");
    }
    assert!(indexer.timeout() > at(now), "it would spin");
    out
}

#[test]
fn a_beat_makes_a_lease_and_lists_the_node_and_its_record_is_published_once() {
    let mut indexer = indexer();
    let pump = record(1, 5, "pump");
    let outcome = node_beat(&mut indexer, 0, 1, 1, LEASE, Some(&pump));
    assert_eq!(outcome.ack, Ack::accepted(LEASE));
    assert!(outcome.publish);
    assert_eq!(indexer.claimants(at(0), "pump").nodes.len(), 1);
    assert_eq!(
        indexer.listed(at(0), &peer(1)).unwrap().envelope(),
        b"signed"
    );
    assert!(!node_beat(&mut indexer, 1, 1, 1, LEASE, Some(&pump)).publish);
    let again = record(1, 6, "fan");
    assert!(node_beat(&mut indexer, 2, 1, 1, LEASE, Some(&again)).publish);
    assert!(
        indexer.claimants(at(0), "pump").nodes.is_empty(),
        "it has another name now"
    );
}

#[test]
fn a_full_indexer_answers_full_with_a_reason_and_renews_those_it_has() {
    let mut indexer = indexer();
    for n in [1, 2] {
        assert_eq!(join(&mut indexer, 0, n).code, AckCode::Accepted);
    }
    let ack = join(&mut indexer, 1, 3);
    assert_eq!(ack.code, AckCode::Full);
    assert!(ack.reason.contains("try another"));
    assert_eq!(join(&mut indexer, 1, 2).code, AckCode::Accepted);
    node_beat(&mut indexer, 2, 1, 1, Duration::ZERO, None);
    drain(&mut indexer, 2);
    assert_eq!(join(&mut indexer, 3, 3).code, AckCode::Accepted);
}

#[test]
fn giving_up_ends_lease_and_listing_at_once_and_closes_the_stream() {
    let mut indexer = indexer();
    let pump = record(1, 5, "pump");
    node_beat(&mut indexer, 0, 1, 7, LEASE, Some(&pump));
    drain(&mut indexer, 0);
    let ack = node_beat(&mut indexer, 1, 1, 7, Duration::ZERO, None).ack;
    assert_eq!(ack, Ack::accepted(Duration::ZERO));
    assert!(indexer.listed(at(0), &peer(1)).is_none() && !indexer.reserves_slot(&peer(1)));
    let close = Action::Close {
        peer: peer(1),
        stream: StreamId(7),
        ended: Some(ended(EndCause::Left, 0)),
    };
    assert_eq!(drain(&mut indexer, 1), [close]);
}

#[test]
fn a_node_silent_for_two_thirds_of_its_lease_is_collected_by_the_next_run_and_listed_no_more() {
    // The first run is at 10 s, which is exactly two thirds of 15 s.
    for (lease, collected) in [(15_001, false), (15_000, false), (14_999, true)] {
        let mut indexer = indexer();
        let pump = record(1, 5, "pump");
        let lease = Duration::from_millis(lease);
        node_beat(&mut indexer, 0, 1, 1, lease, Some(&pump));
        drain(&mut indexer, 9_999);
        assert!(indexer.listed(at(0), &peer(1)).is_some());
        let out = drain(&mut indexer, 10_000);
        let closed = matches!(out.first(), Some(Action::Close { .. }));
        assert_eq!(closed, collected, "{lease:?}");
        assert_eq!(indexer.listed(at(0), &peer(1)).is_none(), collected);
        assert_eq!(!indexer.reserves_slot(&peer(1)), collected);
    }
}

#[test]
fn the_end_of_a_stream_is_not_the_end_of_the_lease() {
    let mut indexer = indexer();
    let pump = record(1, 5, "pump");
    node_beat(&mut indexer, 0, 1, 1, LEASE, Some(&pump));
    indexer.stream_closed(at(1), &peer(1), StreamId(1));
    drain(&mut indexer, 10_000);
    assert!(indexer.listed(at(0), &peer(1)).is_some());
}

#[test]
fn beats_of_others_than_nodes_of_older_streams_and_with_foreign_records_are_refused() {
    let mut indexer = indexer();
    for role in [Role::Indexer, Role::Native] {
        let beat = Beat::new(role, LEASE);
        let ack = indexer.beat(at(0), &peer(1), StreamId(1), &beat).ack;
        assert_eq!(ack.code, AckCode::Refused);
    }
    let foreign = record(2, 1, "pump");
    let ack = node_beat(&mut indexer, 0, 1, 1, LEASE, Some(&foreign)).ack;
    assert_eq!(ack.code, AckCode::Refused);
    node_beat(&mut indexer, 0, 1, 5, LEASE, None);
    let before = indexer.clone();
    for lease in [LEASE, Duration::ZERO] {
        let ack = node_beat(&mut indexer, 1, 1, 4, lease, None).ack;
        assert_eq!(ack.code, AckCode::Refused);
    }
    assert_eq!(indexer, before);
}

#[test]
fn it_signs_its_record_and_beats_to_every_native_with_record_and_load() {
    let mut indexer = indexer();
    join(&mut indexer, 0, 1);
    assert_eq!(drain(&mut indexer, 0), [Action::Sign]);
    indexer.record_signed(at(0), Urgency::NextBeat);
    for n in [8, 9] {
        indexer.learn_native(at(0), peer(n), Addrs::new());
    }
    indexer.learn_native(at(0), peer(0), Addrs::new());
    let beat = |server| Action::Beat {
        server: peer(server),
        addrs: Addrs::new(),
        beat: OutBeat {
            role: Role::Indexer,
            lease: LEASE,
            with_record: true,
            fresh: false,
            publisher: Publisher::Receiver,
            load: Some(Load {
                held: 1,
                possible: 2,
            }),
        },
    };
    assert_eq!(drain(&mut indexer, 0), [beat(8), beat(9)], "not to itself");
}

#[test]
fn a_changed_network_is_for_the_log_only_if_something_is_tried_again() {
    for (now, retries) in [(249, false), (250, true)] {
        let mut indexer = indexer();
        indexer.learn_native(at(0), peer(9), Addrs::new());
        drain(&mut indexer, 0);
        indexer.network_changed(at(now));
        let actions = drain(&mut indexer, now);
        assert_eq!(actions.first() == Some(&Action::Retry), retries, "at {now}");
    }
}

#[test]
fn a_native_that_has_no_room_is_left_and_tried_again_later() {
    let mut indexer = indexer();
    drain(&mut indexer, 0);
    indexer.learn_native(at(0), peer(9), Addrs::new());
    drain(&mut indexer, 0);
    let ack = Ack::full("no room");
    indexer.acked(at(100), &peer(9), &ack);
    let server = peer(9);
    let reason = ack.reason;
    let denied = Action::Denied { server, reason };
    assert_eq!(drain(&mut indexer, 100), [denied, Action::Drop { server }]);
    let again = indexer.timeout().as_millis();
    assert!(again <= 600, "the first pause is at most 500 ms");
    assert!(matches!(
        drain(&mut indexer, again).as_slice(),
        [Action::Beat { .. }]
    ));
}

#[test]
fn a_tick_late_by_more_than_its_interval_moves_leases_on_and_shutting_down_gives_them_up() {
    let mut indexer = indexer();
    drain(&mut indexer, 0);
    indexer.learn_native(at(0), peer(9), Addrs::new());
    drain(&mut indexer, 0);
    join(&mut indexer, 0, 1);
    assert_eq!(indexer.overslept(at(40_000)), Duration::ZERO);
    let gap = indexer.overslept(at(500_000));
    assert_eq!(gap, Duration::from_secs(490));
    indexer.shift(at(500_000), gap);
    drain(&mut indexer, 500_000);
    assert!(indexer.reserves_slot(&peer(1)));
    indexer.shut_down();
    assert_eq!(
        drain(&mut indexer, 500_000),
        [],
        "the stream was dropped: there is no client to notify"
    );
}

fn source(host: u8) -> TransportAddr {
    let ip = core::net::IpAddr::from([192, 0, 2, host]);
    core::net::SocketAddr::new(ip, 1000).into()
}

/// The first beat of a new stream of node 1 from this host; `None` if it is held.
fn comes<'a>(
    indexer: &'a mut Indexer<2>,
    stream: u64,
    host: u8,
    record: &RecordInfo,
) -> Option<BeatOutcome<'a>> {
    match indexer.stream_opened(at(0), &peer(1), StreamId(stream), source(host)) {
        FirstBeat::Now => Some(node_beat(indexer, 0, 1, stream, LEASE, Some(record))),
        FirstBeat::Held => None,
    }
}

#[test]
fn the_record_of_the_device_that_holds_the_lease_counts_and_that_of_the_refused_one_does_not() {
    let mut indexer = indexer();
    let (original, copy) = (record(1, 5, "original"), record(1, 9, "copy"));
    let listed = |indexer: &Indexer<2>| {
        ["original", "copy"].map(|name| indexer.claimants(at(0), name).nodes.len())
    };
    comes(&mut indexer, 1, 1, &original).unwrap();
    comes(&mut indexer, 2, 2, &copy).unwrap();
    assert_eq!(listed(&indexer), [0, 1], "the second replaces the first");
    comes(&mut indexer, 3, 1, &original).unwrap();
    assert_eq!(listed(&indexer), [1, 0], "though it was signed earlier");
    assert_eq!(comes(&mut indexer, 4, 2, &copy), None);
    let (peer, stream) = (peer(1), StreamId(3));
    assert!(drain(&mut indexer, 0).contains(&Action::ProbeStream { peer, stream }));
    indexer.stream_probed(at(1), &peer, stream, Verdict::Reachable);
    let stream = StreamId(4);
    assert!(drain(&mut indexer, 1).contains(&Action::Judge { peer, stream }));
    let outcome = node_beat(&mut indexer, 1, 1, 4, LEASE, Some(&copy));
    assert_eq!(
        (outcome.ack.code, outcome.publish),
        (AckCode::Refused, false)
    );
    assert_eq!(listed(&indexer), [1, 0]);
}

#[test]
fn natives_beyond_those_that_the_build_says_get_no_beat() {
    let mut indexer = indexer();
    for n in 1..=MAX_NATIVES as u8 + 1 {
        indexer.learn_native(at(0), peer(n), Addrs::new());
    }
    let mut held = Vec::new();
    indexer.servers(at(0), &mut |server| held.push(server.peer));
    assert_eq!(held, (1..=MAX_NATIVES as u8).map(peer).collect::<Vec<_>>());
}

#[test]
fn lease_with_a_native_that_is_no_longer_configured_is_given_up() {
    let mut indexer = indexer();
    indexer.learn_native(at(0), peer(9), Addrs::new());
    drain(&mut indexer, 0);
    let native = &peer(9);
    indexer.handle(at(10), Input::NativeForgotten { native });
    assert!(!indexer.is_native(&peer(9)) && !indexer.reserves_slot(&peer(9)));
    let ends = |action: &Action| matches!(action, Action::Drop { .. } | Action::GiveUp { .. });
    assert!(drain(&mut indexer, 10).iter().any(ends));
    // It can come back.
    indexer.learn_native(at(20), peer(9), Addrs::new());
    assert!(indexer.is_native(&peer(9)));
}

#[test]
fn shorter_interval_of_the_gc_counts_from_the_moment_at_which_it_is_set() {
    let mut indexer = indexer();
    drain(&mut indexer, 10_000);
    let next = indexer.gc.next();
    let pace = |gc| Pace {
        beat: CONFIG.terms.beat_interval,
        gc: Duration::from_millis(gc),
        ..Pace::default()
    };
    indexer.handle(at(10_000), Input::Paced(pace(60_000)));
    assert_eq!(
        indexer.gc.next(),
        next,
        "the longer one begins with the next run"
    );
    indexer.handle(at(10_000), Input::Paced(pace(500)));
    assert_eq!(indexer.gc.next(), at(10_500));
}
