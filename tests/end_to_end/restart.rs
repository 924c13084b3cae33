//! What survives a restart.

use std::net::TcpListener;

use rustix::process::Signal;

use super::harness::{Look, SLACK, World};

#[test]
fn every_role_keeps_its_identity_and_finds_the_others_again() {
    let world = World::new();
    let settled = world.settle_native("native");
    let mut native = world.settled(&settled, &[], &[]);
    let mut indexer = world.indexer("indexer", &[&native], &[]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    let mut node = world.node("node", &[&native], &["--name", "cam"]);
    node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
    let id = node.id.clone();
    node.end(Signal::TERM);
    let mut node = world.node("node", &[&native], &["--name", "cam"]);
    assert_eq!(node.id, id);
    node.until("its lease again", SLACK, |s| s.holds_lease_of(&indexer));
    // The same holds after a kill.
    node.kill();
    let node = world.node("node", &[&native], &["--name", "cam"]);
    assert_eq!(node.id, id);
    node.until("its lease again", SLACK, |s| s.holds_lease_of(&indexer));
    let id = indexer.id.clone();
    indexer.kill();
    let indexer = world.indexer("indexer", &[&native], &[]);
    assert_eq!(indexer.id, id);
    node.until("the new indexer's lease", SLACK, |s| {
        s.holds_lease_of(&indexer)
    });
    let id = native.id.clone();
    native.end(Signal::TERM);
    let native = world.settled(&settled, &[], &[]);
    assert_eq!(native.id, id);
    native.until("the indexer again", SLACK, |s| s.live(&indexer).is_some());
    node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
}

#[test]
fn second_process_on_a_data_directory_is_told_so() {
    let world = World::new();
    let native = world.native("native", &[]);
    for role in ["native", "indexer", "node"] {
        let output = world.start_in_vain(role, "native", &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("native"), "{stderr}");
        assert!(stderr.contains("another"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    assert_eq!(native.status().peer_id, native.id);
}

#[test]
fn start_that_fails_leaves_no_new_directory_behind() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    for args in [&["--listen", &listen][..], &["--psk", "/nowhere"]] {
        let output = world.start_in_vain("native", "mistyped", args);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(!world.path("mistyped").exists(), "{args:?}");
    }
    let mut native = world.native("native", &[]);
    native.end(Signal::TERM);
    let output = world.start_in_vain("native", "native", &["--listen", &listen]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(world.native("native", &[]).id, native.id);
}

#[test]
fn node_and_indexer_started_without_a_native_use_those_of_their_last_run() {
    let world = World::new();
    let native = world.native("native", &[]);
    let mut indexer = world.indexer("indexer", &[&native], &[]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    let mut node = world.node("node", &[&native], &[]);
    node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
    node.end(Signal::TERM);
    indexer.end(Signal::TERM);
    let indexer = world.indexer("indexer", &[], &[]);
    native.until("the indexer again", SLACK, |s| s.live(&indexer).is_some());
    let node = world.node("node", &[], &[]);
    node.until("its lease again", SLACK, |s| s.holds_lease_of(&indexer));
    for peer in [&indexer, &node] {
        assert!(peer.log().contains("no --native given"), "{}", peer.log());
    }
}

#[test]
fn native_looks_for_the_indexers_of_its_last_run_and_stores_nothing_where_there_is_nothing() {
    let world = World::new();
    let settled = world.settle_native("native");
    let mut native = world.settled(&settled, &[], &[]);
    let mut indexer = world.indexer("indexer", &[&native], &["--lease", "60s"]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    native.end(Signal::TERM);
    indexer.kill();
    let native = world.settled(&settled, &[], &[]);
    native.until("the indexer known", SLACK, |s| s.knows(&indexer));
    native.until_runs("refresh", 4);
    assert!(native.status().live_indexers.is_empty());
    assert_eq!(native.refreshed(), 0);
}
