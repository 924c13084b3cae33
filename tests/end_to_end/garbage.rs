//! A native among peers that do not speak libp2p.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::harness::{Look, Peer, SLACK, World};

/// Connections that each kind of garbage opens.
const CONNECTIONS: usize = 150;

fn socket(peer: &Peer) -> SocketAddr {
    let parts: Vec<&str> = peer.addr.split('/').collect();
    format!("{}:{}", parts[2], parts[4]).parse().unwrap()
}

/// Bytes of no protocol, different for each connection.
fn noise(mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    (0..4096).map(|_| next()).collect()
}

#[test]
fn native_lives_and_serves_among_silent_and_senseless_connections() {
    let world = World::new();
    let native = world.native("native", &[]);
    let open = || TcpStream::connect_timeout(&socket(&native), Duration::from_secs(10));
    let mut held = Vec::new();
    for n in 0..CONNECTIONS {
        // Silent connections, and connections that begin correctly.
        held.extend(open());
        if let Ok(mut stream) = open() {
            let _ = stream.write_all(b"\x13/multistream/1.0.0\n\x07/noise\n");
            let _ = stream.write_all(&noise(n as u64 + 1));
            held.push(stream);
        }
        if let Ok(mut stream) = open() {
            // The native may close the connection in the middle, which is an error here and
            // correct.
            let _ = stream.write_all(&noise(n as u64 + 1_000_000));
        }
    }
    assert!(held.len() > CONNECTIONS, "{} connected", held.len());
    assert_eq!(native.status().peer_id, native.id);
    let node = world.node("node", &[&native], &[]);
    node.until("the native's lease", SLACK, |s| s.is_under_native(&native));
    drop(held);
    let indexer = world.indexer("indexer", &[&native], &[]);
    node.until("the indexer's lease", SLACK, |s| s.holds_lease_of(&indexer));
}

#[test]
fn every_role_has_at_most_two_threads() {
    let world = World::new();
    let native = world.native("native", &[]);
    let indexer = world.indexer("indexer", &[&native], &[]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    let by_name = native.addr.replace("/ip4/127.0.0.1", "/dns4/localhost");
    let node = world.node("node", &[], &["--native", &by_name]);
    node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
    for peer in [&native, &indexer, &node] {
        let tasks = fs::read_dir(format!("/proc/{}/task", peer.pid())).unwrap();
        let names: Vec<_> = tasks
            .map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap())
            .collect();
        assert!((1..=2).contains(&names.len()), "{names:?}");
    }
}
