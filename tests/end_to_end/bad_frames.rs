//! Frames that Yamux does not allow: they end their connection, and do not fill the log.

use std::time::Instant;

use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::identity::Keypair;

use super::harness::{Look as _, Peer, SLACK, World, eventually, ms, within};
use super::stranger::connect;

/// Connections of one peer, one after the other.
const CONNECTIONS: usize = 20;
/// Frames that it tries to send on each.
const FRAMES: usize = 20_000;

/// A SYN for a stream with an even id, which only the other side may open.
const BAD: [u8; 12] = [0, 1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0];

/// Sends bad frames until the connection ends; true if it did.
fn send_bad_frames(to: &Peer, key: &Keypair) -> bool {
    let mut frames = connect(to, key);
    let ended = within(SLACK, async {
        let many = BAD.repeat(64);
        for _ in 0..FRAMES / 64 {
            if frames.write_all(&many).await.is_err() || frames.flush().await.is_err() {
                return;
            }
        }
        // All frames fitted into the socket buffers. The answer is a GoAway and the end.
        let mut answer = Vec::new();
        // A reset is an end too.
        let _ = frames.read_to_end(&mut answer).await;
    });
    ended.is_some()
}

fn is_unmoved_by_bad_frames(world: &World, peer: &Peer) {
    let key = Keypair::generate_ed25519();
    let before = peer.log().lines().count();
    for _ in 0..CONNECTIONS {
        assert!(send_bad_frames(peer, &key), "the connection goes on");
        let begin = Instant::now();
        peer.status();
        assert!(begin.elapsed() < ms(2000), "{:?}", begin.elapsed());
    }
    peer.until("no connection of it", SLACK, |s| s.used("connections") <= 1);
    let id = key.public().to_peer_id().to_base58();
    let (_, end) = id.split_at(id.len() - 8);
    let said = format!(
        "closed a connection of peer …{end}: it broke the rules of Yamux: invalid stream id 2\n"
    );
    eventually("why", SLACK, || peer.log().contains(&said).then_some(()));
    let log = peer.log();
    assert_eq!(log.matches(&said).count(), 1, "{log}");
    assert!(!log.contains("yamux::"), "{log}");
    let counted = peer.status().counters["broken_connections"];
    assert_eq!(counted, CONNECTIONS as u64);
    let lines = log.lines().count() - before;
    assert!(lines <= 6, "{lines} lines");
    assert_eq!(world.ask::<&str>(peer, "status", &[]).code, Some(0));
}

#[test]
fn native_closes_a_connection_with_bad_frames_and_says_so_once() {
    let world = World::new();
    let native = world.native("native", &[]);
    is_unmoved_by_bad_frames(&world, &native);
}

#[test]
fn node_closes_a_connection_with_bad_frames_and_says_so_once() {
    let world = World::new();
    let native = world.native("native", &[]);
    let node = world.node("node", &[&native], &[]);
    node.until("its lease", SLACK, |s| s.is_under_native(&native));
    is_unmoved_by_bad_frames(&world, &node);
    assert!(node.status().is_under_native(&native));
}
