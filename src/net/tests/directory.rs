//! Directory requests and probes.

use super::world::World;
use crate::{
    net::{NetEvent, OwnRequestId, executor::waits::block_on},
    protocol::{
        IndexersAnswer, Reason, Role, Verdict, Want,
        codec::directory::{Request, Response, Room, decode_response},
    },
};

const ASK: Request = Request::Indexers {
    most: 4,
    want: Want::Lease,
    from: None,
};

fn ask(world: &mut World, from: usize, to: usize, id: u64) {
    let (peer, addrs) = (world.id(to), world.0[to].addrs.clone());
    world
        .net(from)
        .request(peer, &addrs, OwnRequestId(id), &ASK);
}

#[test]
fn a_request_is_answered_to_who_asked() {
    block_on(async {
        let mut world = World::new(&[Role::Native, Role::Node]).await;
        ask(&mut world, 1, 0, 7);
        let answer = world
            .until(|world, at, event| match event {
                NetEvent::Request { from, id, request } => {
                    assert_eq!((at, from), (0, world.id(1)));
                    assert!(matches!(*request, Request::Indexers { most: 4, .. }));
                    let answer = IndexersAnswer {
                        takes_in: true,
                        ..Default::default()
                    };
                    world.net(0).respond(id, &Response::Indexers(answer));
                    None
                }
                NetEvent::Response { id, response, .. } => {
                    assert_eq!((at, id), (1, OwnRequestId(7)));
                    Some(response)
                }
                _ => None,
            })
            .await;
        let (answer, mut room) = (answer.unwrap(), Room::default());
        let answer = decode_response(&answer, &mut room);
        assert!(matches!(answer, Ok(Response::Indexers(answer)) if answer.takes_in));
    });
}

#[test]
fn who_serves_nobody_says_so() {
    block_on(async {
        let mut world = World::new(&[Role::Node, Role::Node]).await;
        ask(&mut world, 0, 1, 1);
        let answer = world
            .until(|_, _, event| match event {
                NetEvent::Response { response, .. } => Some(response),
                _ => None,
            })
            .await;
        assert!(answer.is_err());
    });
}

#[test]
fn many_requests_at_once_wait_for_each_other_and_the_lease_lives_on() {
    block_on(async {
        let mut world = World::new(&[Role::Native, Role::Node]).await;
        world.lease(1, 0).await;
        for id in 0..64 {
            ask(&mut world, 1, 0, id);
        }
        let mut answered = Vec::new();
        world
            .until(|world, at, event| {
                match event {
                    NetEvent::Request { id, .. } => {
                        let reason = Reason::try_from("later").unwrap();
                        world.net(at).respond(id, &Response::Error(reason));
                    }
                    NetEvent::Response { id, response, .. } => {
                        let body = response.unwrap();
                        assert!(matches!(
                            decode_response(&body, &mut Room::default()),
                            Ok(Response::Error(_))
                        ));
                        answered.push(id.0);
                    }
                    NetEvent::LeaseClosed { .. } => panic!("the requests cost the lease"),
                    _ => {}
                }
                (answered.len() == 64).then_some(())
            })
            .await;
        answered.sort_unstable();
        assert_eq!(answered, (0..64).collect::<Vec<_>>());
    });
}

#[test]
fn every_request_ends_when_the_other_side_goes_away() {
    block_on(async {
        let mut world = World::new(&[Role::Node, Role::Native]).await;
        for id in 0..6 {
            ask(&mut world, 0, 1, id);
        }
        world
            .until(|_, _, event| matches!(event, NetEvent::Request { .. }).then_some(()))
            .await;
        world.0.pop();
        let mut ended = 0;
        world
            .until(|_, _, event| {
                if let NetEvent::Response { response, .. } = event {
                    assert!(response.is_err());
                    ended += 1;
                }
                (ended == 6).then_some(())
            })
            .await;
    });
}

#[test]
fn a_probe_dials_and_is_answered_by_every_role() {
    block_on(async {
        let mut world = World::new(&[Role::Native, Role::Indexer, Role::Node]).await;
        for at in [1, 2] {
            let (peer, addrs) = (world.id(at), world.0[at].addrs.clone());
            world.net(0).probe(peer, &addrs);
            let probed = world
                .until(|_, _, event| match event {
                    NetEvent::Probed { peer, verdict } => Some((peer, verdict)),
                    _ => None,
                })
                .await;
            assert_eq!(probed, (peer, Verdict::Reachable));
        }
    });
}
