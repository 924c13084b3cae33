//! Networks: private ones, IPv6, names.

use std::fs;

use super::harness::{Look, SLACK, World};

fn key_file(world: &World, name: &str, digit: char) -> String {
    let path = world.path(name);
    let key = digit.to_string().repeat(64);
    fs::write(&path, format!("/key/swarm/psk/1.0.0/\n/base16/\n{key}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn private_network_takes_in_who_has_its_key_and_nobody_else() {
    let world = World::new();
    let (ours, theirs) = (
        key_file(&world, "ours", 'a'),
        key_file(&world, "theirs", 'b'),
    );
    let native = world.native("native", &["--psk", &ours]);
    assert!(!native.log().contains("anyone"), "{}", native.log());
    let stranger = world.node("stranger", &[&native], &["--psk", &theirs]);
    let keyless = world.node("keyless", &[&native], &[]);
    for refused in [&stranger, &keyless] {
        // It has tried, and the attempt has failed.
        refused.until("a failed try", SLACK, |_| {
            let why = "cannot be reached at 127.0.0.1:";
            let log = refused.log();
            log.contains(why) && log.contains("handshake refused: is the key the same?")
        });
    }
    let indexer = world.indexer("indexer", &[&native], &["--psk", &ours]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    let node = world.node("node", &[&native], &["--psk", &ours, "--name", "cam"]);
    node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
    for refused in [&stranger, &keyless] {
        assert!(refused.status().leases.is_empty());
        // The only server that it knows has not answered.
        assert_eq!(world.ask(refused, "find", &["cam"]).code, Some(3));
    }
    let status = native.status();
    assert!(status.responsible_peers.is_empty());
    assert_eq!(status.stream_records.len(), 1, "the indexer's alone");
}

#[test]
fn open_native_says_so_once() {
    let world = World::new();
    let native = world.native("native", &[]);
    let log = native.log();
    assert_eq!(
        log.matches("any device that reaches this native may join")
            .count(),
        1
    );
    assert!(log.contains("--psk"), "{log}");
}

#[test]
fn everything_works_over_ipv6() {
    let world = World::new();
    let listen = ["--listen", "/ip6/::1/tcp/0"];
    let native = world.native("native", &listen);
    assert!(native.addr.starts_with("/ip6/::1/tcp/"), "{}", native.addr);
    let indexer = world.indexer("indexer", &[&native], &listen);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    let node = world.node("node", &[&native], &listen);
    node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
    let entry = native.status().live(&indexer).unwrap().clone();
    assert_eq!(entry.addrs, indexer.status().listen);
}

#[test]
fn native_is_found_by_name() {
    let world = World::new();
    let native = world.native("native", &[]);
    let tail = native.addr.strip_prefix("/ip4/127.0.0.1").unwrap();
    for (name, protocol) in [("node-1", "dns4"), ("node-2", "dns")] {
        let addr = format!("/{protocol}/localhost{tail}");
        let node = world.node(name, &[], &["--native", &addr]);
        node.until("the native's lease", SLACK, |s| s.is_under_native(&native));
    }
}

#[test]
fn native_under_another_identity_gives_no_lease() {
    let world = World::new();
    let native = world.native("native", &[]);
    let other = world.native("other", &[]);
    let (addr, _) = native.addr.rsplit_once('/').unwrap();
    let wrong = format!("{addr}/{}", other.id);
    let node = world.node("node", &[], &["--native", &wrong]);
    node.until("a failed try", SLACK, |_| {
        node.log().contains("another peer answers, with the id ")
    });
    assert!(node.status().leases.is_empty());
    assert!(native.status().stream_records.is_empty());
}
