//! Peers that violate our protocols: each loses its stream, and no other peer is affected.

use std::pin::pin;

use futures_util::{AsyncReadExt, AsyncWriteExt};

use super::world::{LEASE, Raw, World, ends, out_beat, send};
use crate::{
    net::{
        NetEvent,
        executor::waits::block_on,
        frames::{encoded, frame, read_frame},
    },
    protocol::{
        Ack, AckCode, Offer, Offers, Role, StreamId,
        codec::{
            directory::{Response, decode_response},
            frame::{MAX_FRAME, MAX_RESPONSE},
            grant::Membership,
            heartbeat::{decode_ack, encode_beat},
        },
    },
};

const HEARTBEAT: &str = "/oc/heartbeat/1.0.0";
const DIRECTORY: &str = "/oc/directory/1.0.0";
const PING: &str = "/ipfs/ping/1.0.0";
const KADEMLIA: &str = "/oc/kad/1.0.0";

fn beat(sequence: u64) -> Vec<u8> {
    encoded(|buffer| encode_beat(sequence, &out_beat(), None, &[], Membership::OPEN, buffer))
}

/// Accepts every beat, and records which streams there were and which are over.
#[derive(Default)]
struct Server {
    beats: Vec<(StreamId, u64)>,
    closed: Vec<StreamId>,
}

impl Server {
    fn on(&mut self, world: &mut World, at: usize, event: NetEvent) {
        let beat = world.answer(at, &event, &Ack::accepted(LEASE));
        self.beats.extend(beat);
        if let NetEvent::StreamClosed { stream, .. } = event {
            self.closed.push(stream);
        }
    }
}

/// Sends frames on one heartbeat stream, which the server must end. Then checks that it still
/// serves.
async fn ended_by(frames: Vec<Vec<u8>>) -> Server {
    let mut world = World::new(&[Role::Indexer, Role::Node]).await;
    let mut server = Server::default();
    let to = world.multiaddr(0);
    let client = async {
        let raw = Raw::connect(9, to).await;
        let mut stream = raw.open(HEARTBEAT).await;
        for bytes in frames {
            // The server may have ended the stream already.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
        }
        assert!(ends(pin!(&mut stream)).await);
        raw
    };
    let _raw = world
        .meanwhile(client, |world, at, event| server.on(world, at, event))
        .await;
    world.lease(1, 0).await;
    server
}

fn framed(body: &[u8]) -> Vec<u8> {
    frame(body)
}

#[test]
fn a_jump_in_the_sequence_ends_the_stream() {
    let server = block_on(ended_by(vec![framed(&beat(0)), framed(&beat(2))]));
    assert_eq!(server.beats.len(), 1);
}

#[test]
fn a_repeated_sequence_ends_the_stream() {
    let server = block_on(ended_by(vec![framed(&beat(0)), framed(&beat(0))]));
    assert_eq!(server.beats.len(), 1);
}

#[test]
fn garbage_ends_the_stream() {
    let server = block_on(ended_by(vec![framed(b"\xff\xff\xff")]));
    assert!(server.beats.is_empty());
}

#[test]
fn an_oversized_frame_ends_the_stream() {
    let server = block_on(ended_by(vec![framed(&vec![0; MAX_FRAME + 1])]));
    assert!(server.beats.is_empty());
}

#[test]
fn a_stream_that_never_beats_ends() {
    let server = block_on(ended_by(vec![]));
    assert!(server.beats.is_empty());
}

#[test]
fn a_connection_on_which_streams_are_only_begun_ends() {
    block_on(async {
        let mut world = World::new(&[Role::Indexer, Role::Node]).await;
        let to = world.multiaddr(0);
        world.lease(1, 0).await;
        let client = async {
            let raw = Raw::connect(9, to).await;
            let mut begun = std::collections::VecDeque::new();
            // One is always being negotiated, and one has no beat.
            while let Some(stream) = raw.begin().await {
                begun.push_back(stream);
                if begun.len() > 4 {
                    begun.pop_front();
                }
                futures_timer::Delay::new(std::time::Duration::from_millis(300)).await;
            }
        };
        world.meanwhile(client, |_, _, _| {}).await;
        // The connection of the lease is as silent, and stays.
        assert_eq!(world.net(0).tables()[0].used, 1);
    });
}

#[test]
fn half_a_first_beat_is_none() {
    let server = block_on(ended_by(vec![framed(&beat(0))[..5].to_vec()]));
    assert!(server.beats.is_empty());
}

#[test]
fn beats_sent_ahead_are_taken_one_after_another() {
    block_on(async {
        let mut world = World::new(&[Role::Indexer]).await;
        let mut server = Server::default();
        let to = world.multiaddr(0);
        let client = async {
            let raw = Raw::connect(9, to).await;
            let mut stream = raw.open(HEARTBEAT).await;
            let all: Vec<u8> = (0..50).flat_map(|n| framed(&beat(n))).collect();
            stream.write_all(&all).await.unwrap();
            stream.flush().await.unwrap();
            for n in 0..50 {
                let ack = read_frame(&mut stream, MAX_FRAME).await.unwrap();
                assert_eq!(decode_ack(&ack).unwrap().sequence, n);
            }
        };
        world
            .meanwhile(client, |world, at, event| server.on(world, at, event))
            .await;
        assert_eq!(server.beats.len(), 50);
    });
}

#[test]
fn who_beats_too_fast_is_told_why_and_loses_its_stream_then_its_connection() {
    block_on(async {
        let mut world = World::new(&[Role::Indexer]).await;
        let mut server = Server::default();
        let to = world.multiaddr(0);
        let flood: Vec<u8> = (0..4_100).flat_map(|n| framed(&beat(n))).collect();
        let client = async {
            let raw = Raw::connect(9, to).await;
            let mut stream = raw.open(HEARTBEAT).await;
            // The server may have ended the stream before it is written.
            let _ = stream.write_all(&flood).await;
            let _ = stream.flush().await;
            let last = loop {
                let ack = read_frame(&mut stream, MAX_FRAME).await.unwrap();
                let ack = decode_ack(&ack).unwrap().ack;
                if ack.code != AckCode::Accepted {
                    break ack;
                }
            };
            assert_eq!(last.code, AckCode::Refused);
            assert_eq!(
                last.reason,
                "beats come faster than 16 a second: the stream ends"
            );
            assert!(ends(pin!(&mut stream)).await);
            let mut again = raw.open(HEARTBEAT).await;
            let _ = again.write_all(&flood).await;
            let _ = again.flush().await;
            assert!(ends(pin!(&mut again)).await);
            raw
        };
        let mut too_fast = 0;
        let _raw = world
            .meanwhile(client, |world, at, event| {
                too_fast += u32::from(matches!(event, NetEvent::TooFast { .. }));
                server.on(world, at, event);
            })
            .await;
        assert_eq!(too_fast, 1);
        // 64 at once, and 16 in each second that it took.
        let answered = server.beats.len();
        assert!((64..300).contains(&answered), "{answered}");
        while world.net(0).tables()[0].used > 0 {
            world
                .meanwhile(smol::future::yield_now(), |_, _, _| {})
                .await;
        }
    });
}

#[test]
fn a_newer_stream_replaces_the_older() {
    block_on(async {
        let mut world = World::new(&[Role::Indexer]).await;
        let mut server = Server::default();
        let to = world.multiaddr(0);
        let client = async {
            let raw = Raw::connect(9, to).await;
            let mut older = raw.open(HEARTBEAT).await;
            send(&mut older, &beat(0)).await;
            read_frame(&mut older, MAX_FRAME).await.unwrap();
            let mut newer = raw.open(HEARTBEAT).await;
            send(&mut newer, &beat(0)).await;
            read_frame(&mut newer, MAX_FRAME).await.unwrap();
            assert!(ends(pin!(&mut older)).await);
            send(&mut newer, &beat(1)).await;
            read_frame(&mut newer, MAX_FRAME).await.unwrap();
        };
        world
            .meanwhile(client, |world, at, event| server.on(world, at, event))
            .await;
        let (first, second) = (server.beats[0].0, server.beats[1].0);
        assert_eq!(server.beats, [(first, 0), (second, 0), (second, 1)]);
        assert_eq!(server.closed, [first]);
    });
}

#[test]
fn a_peer_that_does_not_read_loses_its_stream() {
    block_on(async {
        let mut world = World::new(&[Role::Indexer]).await;
        let to = world.multiaddr(0);
        let mut offers = Offers::new();
        while offers
            .push(Offer {
                peer: world.id(0),
                addrs: world.0[0].addrs.clone(),
                ttl: LEASE,
                free: None,
            })
            .is_ok()
        {}
        let released = Ack::released(LEASE, &offers);
        let client = async {
            let raw = Raw::connect(9, to).await;
            let mut stream = raw.open(HEARTBEAT).await;
            send(&mut stream, &beat(0)).await;
            (raw, stream)
        };
        let mut lease = None;
        let _held = world
            .meanwhile(client, |_, _, event| {
                if let NetEvent::Beat { frame, .. } = event {
                    lease = Some((frame.peer, frame.stream));
                }
            })
            .await;
        // Unsolicited acks without end, which fill the window of the stream and then our own bound.
        loop {
            if let Some((peer, stream)) = lease {
                world.net(0).tell(peer, stream, &released);
            }
            let turn = smol::future::yield_now();
            let mut closed = false;
            world
                .meanwhile(turn, |_, _, event| match event {
                    NetEvent::Beat { frame, .. } => lease = Some((frame.peer, frame.stream)),
                    NetEvent::StreamClosed { .. } => closed = true,
                    _ => {}
                })
                .await;
            if closed {
                break;
            }
        }
    });
}

#[test]
fn pings_are_answered_by_every_role_on_two_streams_at_once() {
    for role in [Role::Node, Role::Indexer] {
        block_on(async {
            let mut world = World::new(&[role]).await;
            let to = world.multiaddr(0);
            let client = async {
                let raw = Raw::connect(9, to).await;
                let mut streams = [raw.open(PING).await, raw.open(PING).await];
                for round in 0..3 {
                    for stream in &mut streams {
                        let ping = [round; 32];
                        stream.write_all(&ping).await.unwrap();
                        stream.flush().await.unwrap();
                        let mut pong = [0; 32];
                        stream.read_exact(&mut pong).await.unwrap();
                        assert_eq!(pong, ping);
                    }
                }
            };
            world.meanwhile(client, |_, _, _| {}).await;
        });
    }
}

/// The first stream is opened before the connection has its handler for Kademlia, the second one
/// after.
#[test]
fn silent_streams_of_kademlia_do_not_keep_a_connection() {
    block_on(async {
        let mut world = World::new(&[Role::Native]).await;
        let to = world.multiaddr(0);
        let client = async {
            let raw = Raw::connect(9, to).await;
            let mut streams = [raw.open(KADEMLIA).await, raw.open(KADEMLIA).await];
            for stream in &mut streams {
                assert!(ends(pin!(stream)).await);
            }
        };
        world.meanwhile(client, |_, _, _| {}).await;
        assert_eq!(world.net(0).swarm.network_info().num_peers(), 0);
    });
}

#[test]
fn a_request_that_is_none_is_answered_with_an_error() {
    block_on(async {
        let mut world = World::new(&[Role::Indexer]).await;
        let to = world.multiaddr(0);
        let client = async {
            let raw = Raw::connect(9, to).await;
            let mut stream = raw.open(DIRECTORY).await;
            send(&mut stream, b"\xa1\x00\x18\x63").await;
            let response = read_frame(&mut stream, MAX_RESPONSE).await.unwrap();
            assert!(ends(pin!(&mut stream)).await);
            response
        };
        let response = world
            .meanwhile(client, |_, _, event| {
                assert!(!matches!(event, NetEvent::Request { .. }));
            })
            .await;
        let mut room = Default::default();
        let response = decode_response(&response, &mut room);
        assert!(matches!(response, Ok(Response::Error(_))));
    });
}

#[test]
fn a_peer_may_have_eight_requests_open_and_loses_the_ninth() {
    block_on(async {
        let mut world = World::new(&[Role::Indexer]).await;
        let to = world.multiaddr(0);
        let client = async {
            let raw = Raw::connect(9, to).await;
            let mut open = Vec::new();
            for _ in 0..8 {
                let mut stream = raw.open(DIRECTORY).await;
                send(&mut stream, b"\xa1\x00\x00").await;
                open.push(stream);
            }
            let mut ninth = raw.open(DIRECTORY).await;
            // The stream may have been reset already.
            let _ = ninth.write_all(&framed(b"\xa1\x00\x00")).await;
            let _ = ninth.flush().await;
            assert!(ends(pin!(&mut ninth)).await);
            (raw, open)
        };
        let mut waiting = Vec::new();
        let (raw, mut open) = world
            .meanwhile(client, |_, _, event| {
                if let NetEvent::Request { id, .. } = event {
                    waiting.push(id);
                }
            })
            .await;
        assert_eq!(waiting.len(), 8);
        // One answered request makes room for one more.
        world
            .net(0)
            .respond(waiting[0], &Response::Indexers(Default::default()));
        let client = async {
            read_frame(&mut open[0], MAX_RESPONSE).await.unwrap();
            let mut stream = raw.open(DIRECTORY).await;
            send(&mut stream, b"\xa1\x00\x00").await;
            stream
        };
        let _stream = world.meanwhile(client, |_, _, _| {}).await;
        world
            .until(|_, _, event| matches!(event, NetEvent::Request { .. }).then_some(()))
            .await;
    });
}
