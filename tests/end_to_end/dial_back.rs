//! A process learns whether others reach it, because a server dials it back on request.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use libp2p::identity::Keypair;
use oc_discovery::embed::{ReachableState, Status};
use oc_discovery::protocol::codec::directory::{
    Request, Response, Room, decode_response, encode_request,
};
use oc_discovery::protocol::dial_back::{DialedBack, Finding, OF_ONE_HOST, PAUSE};

use super::harness::{Look as _, Peer, SLACK, World};
use super::liars::liar::{Liars, ask};
use super::mistakes::key_file;
use super::stranger::socket;
use super::wire::encoded;

fn reached(status: &Status) -> Option<(String, String)> {
    let reachable = status.reachable.clone()?;
    (reachable.state == ReachableState::Yes).then_some(())?;
    Some((reachable.by?, reachable.addr?))
}

fn metrics(world: &World, peer: &Peer) -> String {
    world
        .ask(peer, "status", &["--format", "openmetrics"])
        .stdout
}

#[test]
fn indexer_and_native_learn_from_each_other_that_they_are_reached() {
    let world = World::new();
    let native = world.native("native", &[]);
    let indexer = world.indexer("indexer", &[&native], &[]);
    for (peer, server, role) in [
        (&indexer, &native, "indexer"),
        (&native, &indexer, "native"),
    ] {
        let (by, addr) = peer.eventually("it is reached", SLACK, reached);
        assert_eq!((by, addr), (server.id.clone(), socket(peer).to_string()));
        let line = "reachable from outside: yes (";
        let told = world.ask(peer, "status", &[""; 0]);
        assert!(told.stdout.contains(line), "{told:?}");
        assert!(told.stdout.contains(&format!("…{}", server.short_id())));
        let told = world.ask(peer, "doctor", &[""; 0]);
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(
            told.stdout.contains("reachable: from outside: yes"),
            "{told:?}"
        );
        let sample = format!("oc_discovery_reachable{{role=\"{role}\"}} 1\n");
        assert!(metrics(&world, peer).contains(&sample));
        assert_eq!(peer.log().matches(line).count(), 1, "{}", peer.log());
    }
    // No connection is left of it but the one that there was, and no peer is known that was not.
    for peer in [&native, &indexer] {
        peer.until("one connection", SLACK, |s| s.used("connections") == 1);
    }
    assert_eq!(native.status().stream_records.len(), 1);
    assert!(indexer.status().stream_records.is_empty());
}

#[test]
fn doctor_of_a_node_in_a_private_network_asks_at_once() {
    let world = World::new();
    let key = key_file(&world, "key", 'a');
    let native = world.native("native", &["--psk", &key]);
    let node = world.node("node", &[&native], &["--psk", &key]);
    node.until("its lease", SLACK, |s| s.is_under_native(&native));
    let told = world.ask(&node, "doctor", &[""; 0]);
    assert!(
        told.stdout.contains("reachable: from outside: yes"),
        "{told:?}"
    );
    assert_eq!(reached(&node.status()).unwrap().0, native.id);
}

#[test]
fn nothing_is_known_from_a_native_of_an_earlier_version() {
    let world = World::new();
    let (_old, addr) = Liars::old_native();
    let indexer = world.indexer("indexer", &[], &["--native", &addr]);
    let reason = indexer.eventually("the answer", SLACK, |status| {
        let reachable = status.reachable.clone()?;
        assert_eq!(reachable.state, ReachableState::Unknown);
        reachable.by?;
        reachable.reason
    });
    assert_eq!(reason, "it does not dial back: an earlier version");
    let told = world.ask(&indexer, "doctor", &[""; 0]);
    assert!(told.stdout.contains("note      reachable: "), "{told:?}");
    assert!(!told.stdout.contains("unreachable"), "{told:?}");
    assert!(!metrics(&world, &indexer).contains("oc_discovery_reachable"));
}

/// A port that counts the connections to it.
fn counting() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    thread::spawn(move || {
        for connection in listener.incoming() {
            seen.fetch_add(1, Relaxed);
            drop(connection);
        }
    });
    (port, count)
}

/// Asks for these ports over one connection of the key.
fn asks(to: SocketAddr, key: &Keypair, ports: &[u16]) -> io::Result<Vec<DialedBack>> {
    let requests = ports.iter().map(|port| {
        let request = Request::DialBack { port: *port };
        encoded(|buffer| encode_request(&request, buffer))
    });
    let responses = ask(to, key, requests.collect())?;
    let read = responses.iter().map(|body| {
        let mut room = Room::default();
        match decode_response(body, &mut room) {
            Ok(Response::DialedBack(answer)) => answer,
            other => panic!("{other:?}"),
        }
    });
    Ok(read.collect())
}

#[test]
fn strangers_of_one_host_have_four_dials_in_ten_seconds_whatever_their_identities() {
    let world = World::new();
    let native = world.native("native", &[]);
    let (port, count) = counting();
    let begin = Instant::now();
    let mut dialled = 0;
    for _ in 0..12 {
        let key = Keypair::generate_ed25519();
        let answers = asks(socket(&native), &key, &[port, port, 22, port]).unwrap();
        let findings: Vec<Finding> = answers.iter().map(|answer| answer.finding).collect();
        // No peer has a second dial, and no dial goes to a low port.
        assert_eq!(findings[1..], [Finding::Cannot; 3], "{answers:?}");
        assert!(answers[2].reason.contains("below 1024"), "{answers:?}");
        dialled += usize::from(findings[0] != Finding::Cannot);
    }
    let pauses = begin.elapsed().as_secs() / PAUSE.as_secs();
    let most = OF_ONE_HOST * (1 + usize::try_from(pauses).unwrap());
    assert!(
        (OF_ONE_HOST..=most).contains(&dialled),
        "{dialled} of {most}"
    );
    assert_eq!(count.load(Relaxed), dialled);
    let status = native.status();
    assert!(status.stream_records.is_empty() && status.problems.is_empty());
    let table = status.table("dial_backs");
    assert_eq!((table.used, table.refused), (0, 12 * 4 - dialled as u64));
    native.until("no connection", Duration::from_secs(30), |s| {
        s.used("connections") == 0
    });
}

#[test]
fn a_stranger_is_not_reached_at_the_port_of_another_peer() {
    let world = World::new();
    let native = world.native("native", &[]);
    let other = world.native("other", &[]);
    let key = Keypair::generate_ed25519();
    let answers = asks(socket(&native), &key, &[socket(&other).port()]).unwrap();
    assert_eq!(answers[0].finding, Finding::Not);
    assert_eq!(
        answers[0].reason, "it could not connect",
        "what is there is not said"
    );
    assert!(other.log().lines().count() < 10, "{}", other.log());
}
