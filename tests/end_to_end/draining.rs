//! `drain`: an indexer hands its nodes over, and they are found all the time.

use oc_discovery::embed::Found;
use rustix::process::Signal;

use super::harness::{Look as _, Peer, SLACK, World};

/// Whether `find` at this daemon names the node.
fn finds(world: &World, at: &Peer, name: &str) -> bool {
    let found = world.ask(at, "find", &["--json", name]);
    let records = miniserde::json::from_str::<Found>(&found.stdout);
    records.is_ok_and(|found| !found.records.is_empty())
}

#[test]
fn drained_indexer_hands_every_node_over_and_may_be_stopped() {
    let world = World::new();
    let native = world.native("native", &[]);
    let old = world.indexer("old", &[&native], &[]);
    let nodes = ["a", "b", "c"].map(|name| world.node(name, &[&native], &["--name", name]));
    for node in &nodes {
        node.until("a lease with the only indexer", SLACK, |s| {
            s.holds_lease_of(&old)
        });
    }
    let new = world.indexer("new", &[&native], &[]);
    native.until("both indexers", SLACK, |s| s.live_indexers.len() == 2);
    let drained = world.ask(&old, "drain", &[] as &[&str]);
    assert_eq!(drained.code, Some(0), "{drained:?}");
    assert!(drained.stdout.starts_with("hands over 3 nodes\n"));
    for name in ["a", "b", "c"] {
        let said = format!("  {name} has moved\n");
        assert!(drained.stdout.contains(&said), "{drained:?}");
    }
    assert!(drained.stdout.ends_with("empty: it can be stopped now\n"));
    old.logs("drains: hands its nodes (3) over");
    old.logs("is drained and empty: it can be stopped now");
    for node in &nodes {
        assert!(node.status().holds_lease_of(&new), "{}", node.log());
        assert!(!node.log().contains("without a lease"), "{}", node.log());
    }
    assert!(finds(&world, &new, "a"));
    let mut old = old;
    old.end(Signal::TERM);
    assert!(finds(&world, &new, "b"));
}

#[test]
fn drained_indexer_keeps_its_nodes_while_no_other_one_has_a_place() {
    let world = World::new();
    let native = world.native("native", &[]);
    let only = world.indexer("only", &[&native], &[]);
    let node = world.node("node", &[&native], &["--name", "a"]);
    node.until("a lease", SLACK, |s| s.holds_lease_of(&only));
    let begun = world.ask(&only, "drain", &["--json"]);
    assert_eq!(begun.code, Some(0), "{begun:?}");
    assert!(begun.stdout.contains("\"draining\":true"), "{begun:?}");
    assert!(begun.stdout.contains("\"name\":\"a\""), "{begun:?}");
    // A newcomer finds no place here, so the native takes it in.
    let late = world.node("late", &[&native], &["--name", "b"]);
    late.until("a lease with the native", SLACK, |s| {
        s.holds_lease_of(&native)
    });
    assert!(node.status().holds_lease_of(&only));
    let undone = world.ask(&only, "drain", &["--undo"]);
    assert_eq!(undone.stdout, "it takes nodes again; still here: 1 node\n");
    let again = world.ask(&only, "drain", &["--undo"]);
    let nothing = "there is no drain to undo: it takes nodes as before, and has ";
    assert!(again.stdout.starts_with(nothing), "{again:?}");
    late.until("a lease with the indexer", SLACK, |s| {
        s.holds_lease_of(&only)
    });
}

#[test]
fn only_an_indexer_can_be_drained() {
    let world = World::new();
    let native = world.native("native", &[]);
    let refused = world.ask(&native, "drain", &[] as &[&str]);
    assert_eq!(refused.code, Some(1));
    let said = "only an indexer can be drained, and this is a native";
    assert!(refused.stderr.contains(said), "{refused:?}");
}
