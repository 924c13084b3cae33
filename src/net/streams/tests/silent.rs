//! Connections that become silent, and those that replace them.

use super::*;

/// The connections that the behaviour closes.
fn closes(out: &[Out]) -> Vec<usize> {
    let close = |out: &Out| match out {
        ToSwarm::CloseConnection {
            connection: CloseConnection::One(connection),
            ..
        } => (0..9).find(|n| ConnectionId::new_unchecked(*n) == *connection),
        _ => None,
    };
    out.iter().filter_map(close).collect()
}

/// A lease over connection 1. Its second beat was not answered, so a fresh one was sent.
/// Returns its dial.
fn replacing() -> (World, ConnectionId) {
    let mut world = World::new();
    world.connect(1);
    world.beat();
    world.streams.answered(&world.peer, 1);
    world.beat();
    world.out();
    world.beat_fresh();
    let dials = dials(&world.out());
    assert_eq!(dials.len(), 1);
    (world, dials[0])
}

#[test]
fn a_fresh_beat_goes_over_a_new_connection_and_the_silent_one_is_closed() {
    let (mut world, _) = replacing();
    world.connect(2);
    let out = world.out();
    assert_eq!((on_connection(&out), closes(&out)), (vec![2], vec![1]));
    world.disconnect(1);
    assert!(events(world.out()).is_empty(), "the lease is elsewhere");
    world.beat();
    assert_eq!(on_connection(&world.out()), [2]);
}

#[test]
fn an_ack_of_the_silent_connection_keeps_it_and_gives_the_fresh_beat_up() {
    let (mut world, dial) = replacing();
    let body = Vec::new();
    world.tells(1, Happened::Ack { lease: 1, body });
    let acks = events(world.out());
    let [
        Event::Ack {
            lease: 1,
            last:
                LastBeat {
                    sequence: 1,
                    is_awaited: true,
                },
            ..
        },
    ] = acks[..]
    else {
        panic!("{acks:?}");
    };
    world.streams.answered(&world.peer, 1);
    world.connect(2);
    let out = world.out();
    assert!(on_connection(&out).is_empty() && closes(&out).is_empty());
    world.beat();
    assert_eq!(on_connection(&world.out()), [1]);
    world.dial_fails(dial);
    assert!(world.out().is_empty());
}

#[test]
fn what_the_silent_connection_says_unasked_does_not_keep_it() {
    let (mut world, _) = replacing();
    let body = Vec::new();
    world.tells(1, Happened::Ack { lease: 1, body });
    world.out();
    world.connect(2);
    let out = world.out();
    assert_eq!((on_connection(&out), closes(&out)), (vec![2], vec![1]));
}

#[test]
fn a_fresh_beat_that_cannot_be_sent_ends_both_streams_once() {
    let (mut world, dial) = replacing();
    world.dial_fails(dial);
    let out = world.out();
    assert_eq!(on_connection(&out), [1], "the silent stream is dropped");
    let ends = events(out);
    assert!(matches!(ends[..], [Event::LeaseClosed { .. }]), "{ends:?}");
    world.disconnect(1);
    assert!(events(world.out()).is_empty());
}

#[test]
fn the_end_of_the_silent_connection_does_not_end_the_fresh_beat() {
    let (mut world, _) = replacing();
    world.disconnect(1);
    assert!(events(world.out()).is_empty());
    world.connect(2);
    assert_eq!(on_connection(&world.out()), [2]);
}

#[test]
fn a_connection_whose_lease_was_dropped_unanswered_takes_nothing_more() {
    let mut world = World::new();
    world.connect(1);
    world.beat();
    world.streams.drop_lease(world.peer);
    world.out();
    world.streams.probe(world.peer, Vec::new());
    let (id, body) = (OwnRequestId(1), Vec::new());
    world.streams.request(world.peer, Vec::new(), id, body);
    world.beat_fresh();
    let out = world.out();
    assert!(on_connection(&out).is_empty());
    assert_eq!(
        dials(&out).len(),
        2,
        "one for all, and the fresh one its own"
    );
    world.connect(2);
    let out = world.out();
    assert_eq!(on_connection(&out), [2, 2, 2]);
    assert_eq!(closes(&out), [1]);
}

#[test]
fn a_lease_that_was_answered_leaves_its_connection_in_use() {
    let mut world = World::new();
    world.connect(1);
    world.beat();
    world.streams.answered(&world.peer, 1);
    world.streams.drop_lease(world.peer);
    world.out();
    world.streams.probe(world.peer, Vec::new());
    assert_eq!(on_connection(&world.out()), [1]);
}

#[test]
fn after_a_pong_that_did_not_come_another_connection_is_made_until_the_peer_is_heard() {
    let mut world = World::new();
    world.connect(1);
    world.streams.probe(world.peer, Vec::new());
    world.out();
    world.tells(
        1,
        Happened::Probed {
            verdict: Verdict::Silent,
        },
    );
    world.streams.probe(world.peer, Vec::new());
    let out = world.out();
    assert!(on_connection(&out).is_empty());
    let dial = dials(&out)[0];
    world.dial_fails(dial);
    world.out();
    world.beats(1, StreamId(1));
    world.read();
    world.streams.probe(world.peer, Vec::new());
    assert_eq!(on_connection(&world.out()), [1]);
}

#[test]
fn a_response_that_is_late_makes_its_connection_doubtful_and_a_refusal_does_not() {
    for (kind, doubted) in [
        (std::io::ErrorKind::TimedOut, true),
        (std::io::ErrorKind::ConnectionReset, false),
    ] {
        let mut world = World::new();
        world.connect(1);
        let id = OwnRequestId(1);
        world
            .streams
            .request(world.peer, Vec::new(), id, Vec::new());
        world.out();
        let body = Err(kind.into());
        world.tells(1, Happened::Response { id, body });
        world.out();
        world.beat();
        assert_eq!(dials(&world.out()).len(), usize::from(doubted), "{kind}");
    }
}

#[test]
fn fresh_beats_do_not_wait_for_dials_that_seem_lost_and_these_are_bounded() {
    let mut world = World::new();
    let mut under_way = Vec::new();
    for _ in 0..5 {
        world.beat_fresh();
        under_way.extend(dials(&world.out()));
        world.streams.drop_lease(world.peer);
    }
    assert_eq!(under_way.len(), MAX_DIALS);
    world.beat_fresh();
    world.dial_fails(under_way[0]);
    assert_eq!(dials(&world.out()).len(), 0, "others are under way");
    world.dial_fails(under_way[2]);
    let ends = events(world.out());
    assert!(matches!(ends[..], [Event::LeaseClosed { .. }]), "{ends:?}");
    world.connect(1);
    assert!(on_connection(&world.out()).is_empty());
}

#[test]
fn after_a_change_of_the_network_nothing_more_waits_for_a_dial_that_began_before() {
    let mut world = World::new();
    world.streams.probe(world.peer, Vec::new());
    world.streams.probe(world.peer, Vec::new());
    let before = dials(&world.out());
    assert_eq!(before.len(), 1);
    world.streams.network_changed();
    world.streams.probe(world.peer, Vec::new());
    world.streams.probe(world.peer, Vec::new());
    assert_eq!(dials(&world.out()).len(), 1);
    world.dial_fails(before[0]);
    assert!(
        events(world.out()).is_empty(),
        "they wait for the later one"
    );
    world.connect(1);
    assert_eq!(on_connection(&world.out()), [1, 1, 1, 1]);
}
