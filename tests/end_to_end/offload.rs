//! The diagram's first loop: nodes taken in by the native go to indexers as soon as some are reachable.

use std::time::Duration;

use super::harness::{Look, SLACK, World};

/// A probe has 2 s; a native that pings nobody answers well before.
const NO_PROBE: Duration = Duration::from_secs(2);

#[test]
fn node_is_taken_in_while_there_is_no_indexer_and_stays() {
    let world = World::new();
    let native = world.native("native", &[]);
    let node = world.node("node", &[&native], &[]);
    node.until("the native's lease", SLACK, |s| s.is_under_native(&native));
    let since = native.eventually("the node taken in", SLACK, |s| {
        s.is_responsible_for(&node).then_some(s.uptime_ms)
    });
    native.until_runs("offload", 4);
    let status = native.status();
    assert!(status.is_responsible_for(&node));
    // It was taken in once and stayed: nobody let it go in between.
    assert!(status.responsible_peers[0].since_ms >= status.uptime_ms - since);
    assert!(status.stream_record(&node).is_some());
    assert!(node.status().is_under_native(&native));
}

#[test]
fn nodes_go_to_the_indexers_as_soon_as_they_are_reachable() {
    let world = World::new();
    let native = world.native("native", &[]);
    // They would not look for an indexer of their own accord.
    let args = ["--connect-interval", "1h", "--min-indexers", "1"];
    let nodes = ["node-1", "node-2", "node-3"].map(|name| world.node(name, &[&native], &args));
    native.until("all taken in", SLACK, |s| {
        nodes.iter().all(|node| s.is_responsible_for(node))
    });
    let a = world.indexer("a", &[&native], &[]);
    let b = world.indexer("b", &[&native], &[]);
    native.until("nobody taken in", SLACK, |s| s.responsible_peers.is_empty());
    for node in &nodes {
        node.until("an indexer's lease alone", SLACK, |s| {
            (s.holds_lease_of(&a) || s.holds_lease_of(&b)) && s.leases.len() == 1
        });
        assert!(native.log().contains(&format!("releases {}", node.id)));
    }
    // What the native held for them they gave up once they had another.
    native.until("no node's stream", SLACK, |s| {
        nodes.iter().all(|node| s.stream_record(node).is_none())
    });
    assert!(native.status().responsible_peers.is_empty());
}

#[test]
fn candidates_that_do_not_answer_a_ping_are_none_and_one_that_does_gets_the_nodes() {
    let world = World::new();
    let settled = [world.settle_native("n1"), world.settle_native("n2")];
    let near = world.settled(&settled[0], &[&settled[1]], &["--lease", "10s"]);
    let far = world.settled(&settled[1], &[&settled[0]], &["--lease", "10s"]);
    let mut deaf = world.indexer("deaf", &[&near], &["--lease", "10s"]);
    far.until("the deaf one", SLACK, |s| s.live(&deaf).is_some());
    deaf.kill();
    let node = world.node("node", &[&far], &["--connect-interval", "1h"]);
    far.until("the node taken in", SLACK, |s| s.is_responsible_for(&node));
    far.until_runs("offload", 4);
    let status = far.status();
    assert!(status.live(&deaf).is_some(), "its record still runs");
    assert!(status.is_responsible_for(&node), "nobody is reachable");
    // This one speaks to the other native only: nothing but a ping can tell that it is there.
    let alive = world.indexer("alive", &[&near], &["--lease", "10s"]);
    node.until("its lease", SLACK, |s| s.holds_lease_of(&alive));
    assert!(far.status().stream_record(&alive).is_none());
}

#[test]
fn indexer_whose_lease_ran_out_is_no_candidate() {
    let world = World::new();
    // Nothing but the time to live takes its entry away.
    let rarely = ["--gc-interval", "1h", "--refresh-interval", "1h"];
    let native = world.native("native", &rarely);
    let indexer = world.indexer("indexer", &[&native], &["--lease", "1s"]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    indexer.freeze();
    native.until("its lease run out", SLACK, |s| s.live(&indexer).is_none());
    let node = world.node("node", &[&native], &[]);
    node.until("the native's lease", SLACK, |s| s.is_under_native(&native));
    let took = node.ready.elapsed();
    assert!(took < NO_PROBE, "{took:?}: a candidate was pinged");
    native.until_runs("offload", 4);
    assert!(native.status().is_responsible_for(&node));
}
