//! Beats, acks, and all ends of a heartbeat stream.

use std::time::{Duration, Instant};

use super::world::{LEASE, World, out_beat};
use crate::{
    net::{NetEvent, convert, executor::waits::block_on},
    protocol::{
        Ack, AckCode, Addrs, Offer, Offers, Role, Verdict, codec::heartbeat::AckCause,
        farewell::ANSWER_LIMIT,
    },
};

const PAIR: [Role; 2] = [Role::Indexer, Role::Node];

fn is_beat(event: &NetEvent, sequence: u64) -> bool {
    matches!(event, NetEvent::Beat { frame, .. } if frame.sequence == sequence)
}

#[test]
fn a_beat_is_answered_and_the_next_goes_over_the_same_stream() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        let stream = world.lease(1, 0).await;
        world.beat(1, 0);
        let second = world
            .until(|_, at, event| match event {
                NetEvent::Beat { frame, .. } if at == 0 => Some((frame.stream, frame.sequence)),
                _ => None,
            })
            .await;
        assert_eq!(second, (stream, 1));
    });
}

#[test]
fn released_is_pushed_unasked_and_the_lease_goes_on() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        let stream = world.lease(1, 0).await;
        let node = world.id(1);
        let mut offers = Offers::new();
        offers
            .push(Offer {
                peer: world.id(0),
                addrs: world.0[0].addrs.clone(),
                ttl: LEASE,
                free: Some(3),
            })
            .unwrap();
        let released = Ack::released(LEASE, &offers);
        world.net(0).tell(node, stream, &released);
        let (cause, ack) = world
            .until(|_, at, event| match event {
                NetEvent::Ack { cause, ack, .. } if at == 1 => Some((cause, ack)),
                _ => None,
            })
            .await;
        assert_eq!(cause, AckCause::Unsolicited);
        assert_eq!(
            ack.as_ack(),
            released,
            "a peer on loopback hears of loopback"
        );
        world.beat(1, 0);
        world
            .until(|_, at, event| {
                let next = is_beat(&event, 1);
                assert!(!matches!(event, NetEvent::StreamClosed { .. }));
                (at == 0 && next).then_some(())
            })
            .await;
    });
}

#[test]
fn a_refusal_is_read_before_its_stream_ends_on_both_sides() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        world.beat(1, 0);
        let (mut refused, mut closed, mut lease_closed) = (false, false, false);
        world
            .until(|world, at, event| {
                world.answer(at, &event, &Ack::refused("no"));
                match event {
                    NetEvent::Ack { ack, .. } => {
                        assert_eq!((ack.code, lease_closed), (AckCode::Refused, false));
                        refused = true;
                    }
                    NetEvent::StreamClosed { .. } => closed = true,
                    NetEvent::LeaseClosed { .. } => lease_closed = true,
                    _ => {}
                }
                (refused && closed && lease_closed).then_some(())
            })
            .await;
    });
}

#[test]
fn what_was_said_before_a_close_still_arrives() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        world.beat(1, 0);
        let mut heard = false;
        world
            .until(|world, at, event| {
                let ack = Ack::accepted(Duration::ZERO);
                if let Some((stream, _)) = world.answer(at, &event, &ack) {
                    let client = world.id(1);
                    world.net(at).close(client, stream);
                }
                match event {
                    NetEvent::Ack { .. } => heard = true,
                    NetEvent::LeaseClosed { .. } => {
                        assert!(heard, "the stream ended without its ack");
                        return Some(());
                    }
                    _ => {}
                }
                None
            })
            .await;
    });
}

#[test]
fn a_lease_given_up_ends_with_a_beat_of_0_ms_and_its_ack() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        world.lease(1, 0).await;
        let server = world.id(0);
        world.net(1).give_up(server, Role::Node);
        let mut asked_for = None;
        world
            .until(|world, at, event| {
                world.answer(at, &event, &Ack::accepted(Duration::ZERO));
                match event {
                    NetEvent::Beat { frame, source } => {
                        let (beat, _) = world.net(at).read_beat(&frame).unwrap();
                        assert_eq!(source.is_some(), beat.sequence == 0, "said once a stream");
                        asked_for = Some(beat.lease);
                    }
                    NetEvent::LeaseClosed { .. } => panic!("it was given up, not lost"),
                    NetEvent::GaveUp { server: from } => {
                        assert_eq!((at, from), (1, server));
                        return Some(());
                    }
                    _ => {}
                }
                None
            })
            .await;
        assert_eq!(asked_for, Some(Duration::ZERO));
    });
}

#[test]
fn a_server_that_does_not_take_the_last_beat_holds_nobody_up() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        world.lease(1, 0).await;
        let server = world.id(0);
        world.net(1).give_up(server, Role::Node);
        // The beat arrives, and is never answered.
        world
            .until(|_, at, event| {
                (at == 1 && matches!(event, NetEvent::GaveUp { .. })).then_some(())
            })
            .await;
    });
}

#[test]
fn a_late_ack_of_the_beat_before_does_not_end_a_lease_given_up() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        world.beat(1, 0);
        let mut given_up = None;
        world
            .until(|world, at, event| {
                if is_beat(&event, 0) {
                    let server = world.id(0);
                    world.net(1).give_up(server, Role::Node);
                    given_up = Some(Instant::now());
                    world.answer(at, &event, &Ack::accepted(LEASE));
                }
                // The last beat is not answered.
                (at == 1 && matches!(event, NetEvent::GaveUp { .. })).then_some(())
            })
            .await;
        assert!(given_up.unwrap().elapsed() >= ANSWER_LIMIT);
    });
}

#[test]
fn a_lease_taken_again_while_its_end_is_under_way_is_a_new_one() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        let old = world.lease(1, 0).await;
        let server = world.id(0);
        world.net(1).give_up(server, Role::Node);
        world.beat(1, 0);
        let (mut given_up, mut fresh) = (false, false);
        world
            .until(|world, at, event| {
                if let Some((stream, sequence)) = world.answer(at, &event, &Ack::accepted(LEASE)) {
                    fresh |= stream > old && sequence == 0;
                }
                match event {
                    NetEvent::GaveUp { .. } => given_up = true,
                    NetEvent::LeaseClosed { .. } => panic!("the end of the old one is not its end"),
                    _ => {}
                }
                (given_up && fresh).then_some(())
            })
            .await;
        world.beat(1, 0);
        world
            .until(|_, at, event| (at == 0 && is_beat(&event, 1)).then_some(()))
            .await;
    });
}

#[test]
fn a_dropped_stream_is_told_to_the_server_only() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        let stream = world.lease(1, 0).await;
        let server = world.id(0);
        world.net(1).drop_lease(server);
        world
            .until(|_, at, event| match event {
                NetEvent::StreamClosed { stream: closed, .. } => {
                    assert_eq!((at, closed), (0, stream));
                    Some(())
                }
                NetEvent::LeaseClosed { .. } => panic!("the client dropped it itself"),
                _ => None,
            })
            .await;
        assert_ne!(
            world.lease(1, 0).await,
            stream,
            "the next lease has its own stream"
        );
    });
}

#[test]
fn a_server_that_cannot_be_dialled_closes_the_lease_once() {
    block_on(async {
        let mut world = World::new(&[Role::Node, Role::Indexer]).await;
        let stranger = super::world::id_of(&super::world::key(99));
        // Nothing listens on the discard port of this host.
        let dead = convert::to_addrs(&["/ip4/127.0.0.1/tcp/9".parse().unwrap()]);
        world.net(0).beat(stranger, &dead, &out_beat(), None, &[]);
        world.net(0).probe(stranger, &dead);
        let (mut closed, mut dead) = (0, 0);
        world
            .until(|_, _, event| {
                match event {
                    NetEvent::LeaseClosed { server, why } => {
                        assert_eq!(server, stranger);
                        assert!(
                            why.is_some_and(|why| why.to_string().starts_with("at 127.0.0.1:9: "))
                        );
                        closed += 1;
                    }
                    NetEvent::Probed { peer, verdict } => {
                        assert_eq!((peer, verdict), (stranger, Verdict::Silent));
                        dead += 1;
                    }
                    _ => {}
                }
                (closed > 0 && dead > 0).then_some(())
            })
            .await;
        // Any other event that is under way arrives before the end of a whole exchange.
        world.lease(0, 1).await;
        assert_eq!((closed, dead), (1, 1));
    });
}

#[test]
fn a_server_that_takes_no_beats_is_named_with_what_it_does_not_speak() {
    block_on(async {
        let mut world = World::new(&[Role::Node, Role::Native]).await;
        world.beat(1, 0);
        let why = world
            .until(|_, at, event| match event {
                NetEvent::LeaseClosed { why, .. } if at == 1 => Some(why),
                _ => None,
            })
            .await;
        assert_eq!(
            why.map(|why| why.to_string()).as_deref(),
            Some("it does not speak /oc/heartbeat/1.0.0")
        );
    });
}

#[test]
fn a_server_without_an_address_closes_the_lease() {
    block_on(async {
        let mut world = World::new(&[Role::Node]).await;
        let stranger = super::world::id_of(&super::world::key(99));
        world
            .net(0)
            .beat(stranger, &Addrs::new(), &out_beat(), None, &[]);
        world
            .until(|_, _, event| matches!(event, NetEvent::LeaseClosed { .. }).then_some(()))
            .await;
    });
}

#[test]
fn a_server_that_sends_more_than_4_acks_for_a_beat_loses_the_stream() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        let released = Ack::released(LEASE, &[]);
        let stream = world.lease(1, 0).await;
        let node = world.id(1);
        for _ in 0..3 {
            world.net(0).tell(node, stream, &released);
        }
        let mut told = 0;
        world
            .until(|_, at, event| match event {
                NetEvent::Ack { cause, .. } => {
                    assert_eq!((at, cause), (1, AckCause::Unsolicited));
                    told += 1;
                    (told == 3).then_some(())
                }
                NetEvent::LeaseClosed { why, .. } => panic!("{why:?}"),
                _ => None,
            })
            .await;
        world.net(0).tell(node, stream, &released);
        let why = world
            .until(|_, _, event| match event {
                NetEvent::LeaseClosed { why, .. } => Some(why),
                NetEvent::Ack { .. } => panic!("it is one too many"),
                _ => None,
            })
            .await;
        assert_eq!(
            why.map(|why| why.to_string()).as_deref(),
            Some("it sent more than 4 acks for one beat")
        );
    });
}
