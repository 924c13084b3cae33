//! A peer with heartbeat streams on two connections: it has moved, or two devices share its
//! identity.

use super::*;

/// A stream on connection 1, and a newer one on connection 2. Returns their outboxes.
fn two_streams() -> (World, [Outbox; 2]) {
    let mut world = World::new();
    (1..=2).for_each(|connection| world.connect(connection));
    let outboxes = [1, 2].map(|n| world.beats(n, StreamId(n as u64)));
    assert_eq!(world.read(), Some(StreamId(1)));
    assert_eq!(world.read(), Some(StreamId(2)));
    world.out();
    (world, outboxes)
}

fn is_answered(outbox: &Outbox) -> bool {
    outbox.take(&mut cx()).answers
}

#[test]
fn a_newer_stream_does_not_take_the_acks_of_the_older_one() {
    let (world, [older, newer]) = two_streams();
    world
        .streams
        .ack(&world.peer, StreamId(1), b"", AckKind::Answer);
    assert!(is_answered(&older) && !is_answered(&newer));
    world
        .streams
        .ack(&world.peer, StreamId(2), b"", AckKind::LastAnswer);
    assert!(is_answered(&newer));
}

#[test]
fn a_stream_that_is_being_closed_is_told_nothing_more() {
    let (mut world, [older, _]) = two_streams();
    world.streams.close(world.peer, StreamId(1));
    world.beats(1, StreamId(1));
    world.read();
    world
        .streams
        .ack(&world.peer, StreamId(1), b"", AckKind::Answer);
    assert!(!is_answered(&older));
}

#[test]
fn a_first_beat_that_comes_after_that_of_a_newer_stream_is_told_nothing() {
    let mut world = World::new();
    (1..=2).for_each(|connection| world.connect(connection));
    world.beats(2, StreamId(2));
    let late = world.beats(1, StreamId(1));
    world.read();
    world.read();
    world
        .streams
        .ack(&world.peer, StreamId(1), b"", AckKind::Answer);
    assert!(!is_answered(&late));
}

#[test]
fn the_streams_of_a_connection_end_with_it_and_no_others() {
    let (mut world, _) = two_streams();
    world.disconnect(1);
    let closed = events(world.out());
    assert!(matches!(
        closed[..],
        [Event::StreamClosed {
            stream: StreamId(1),
            ..
        }]
    ));
    world.disconnect(2);
    assert_eq!(events(world.out()).len(), 1);
}

#[test]
fn a_stream_is_probed_over_its_own_connection_and_once() {
    let (mut world, _) = two_streams();
    for (stream, connection) in [(1, 1), (2, 2)] {
        world.streams.probe_stream(world.peer, StreamId(stream));
        assert_eq!(on_connection(&world.out()), [connection]);
    }
    for verdict in [Verdict::Reachable, Verdict::Silent] {
        world.tells(1, Happened::Probed { verdict });
    }
    let told = events(world.out());
    assert!(matches!(
        told[..],
        [Event::StreamProbed {
            stream: StreamId(1),
            verdict: Verdict::Reachable,
            ..
        }]
    ));
    world.disconnect(2);
    let mut told = events(world.out()).into_iter();
    assert!(told.any(|event| matches!(
        event,
        Event::StreamProbed {
            stream: StreamId(2),
            verdict: Verdict::Silent,
            ..
        }
    )));
}

#[test]
fn a_stream_that_has_ended_is_not_there() {
    let mut world = World::new();
    world.streams.probe_stream(world.peer, StreamId(1));
    assert!(matches!(
        events(world.out())[..],
        [Event::StreamProbed {
            verdict: Verdict::Silent,
            ..
        }]
    ));
}
