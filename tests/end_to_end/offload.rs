//! The diagram's first loop: nodes taken in by the native are handed over to indexers as soon as
//! some are reachable.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::{Look, SLACK, World};

/// A released node moves within this time.
const MOVE: Duration = Duration::from_secs(1);
/// All nodes are with an indexer this long after it registered, because offload then runs, at most
/// once a second.
const HOME: Duration = Duration::from_secs(2);
/// A probe takes up to 2 s, and a native that sends no ping answers much earlier.
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
    // It was taken in once and stayed: it was not released in between.
    assert!(status.responsible_peers[0].since_ms >= status.uptime_ms - since);
    assert!(status.stream_record(&node).is_some());
    assert!(node.status().is_under_native(&native));
}

#[test]
fn nodes_go_to_the_indexers_as_soon_as_they_are_reachable() {
    let world = World::new();
    let native = world.native("native", &[]);
    // These nodes would not look for an indexer by themselves.
    let args = ["--connect-interval", "1h", "--min-indexers", "1"];
    let nodes = ["node-1", "node-2", "node-3"].map(|name| world.node(name, &[&native], &args));
    native.until("all taken in", SLACK, |s| {
        nodes.iter().all(|node| s.is_responsible_for(node))
    });
    let a = world.indexer("a", &[&native], &[]);
    let b = world.indexer("b", &[&native], &[]);
    native.until("no node taken in", SLACK, |s| {
        s.responsible_peers.is_empty()
    });
    let released = Instant::now();
    for node in &nodes {
        node.until("an indexer's lease", SLACK, |s| {
            s.holds_lease_of(&a) || s.holds_lease_of(&b)
        });
    }
    let took = released.elapsed();
    assert!(took <= MOVE, "{took:?}");
    for node in &nodes {
        node.until("that lease alone", SLACK, |s| s.leases.len() == 1);
        assert!(
            native
                .log()
                .contains(&format!("(…{}) at 127.0.0.1 to indexer", node.short_id()))
        );
    }
    // They gave up the native's lease once they had another.
    native.until("no node's stream", SLACK, |s| {
        nodes.iter().all(|node| s.stream_record(node).is_none())
    });
    assert!(native.status().responsible_peers.is_empty());
}

#[test]
fn nodes_go_to_an_indexer_when_it_registers_however_long_the_interval_is() {
    let world = World::new();
    let native = world.native("native", &["--offload-interval", "1h"]);
    let args = ["--connect-interval", "1h", "--min-indexers", "1"];
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let nodes = names.map(|name| world.node(name, &[&native], &args));
    native.until("all taken in", SLACK, |s| {
        nodes.iter().all(|node| s.is_responsible_for(node))
    });
    let indexer = world.indexer("indexer", &[&native], &[]);
    for node in &nodes {
        node.until("the indexer's lease", SLACK, |s| s.holds_lease_of(&indexer));
    }
    let took = indexer.ready.elapsed();
    assert!(took <= HOME, "{took:?}");
}

#[test]
fn node_that_hears_nothing_is_released_all_the_same_and_goes_when_it_is_back() {
    let world = World::new();
    let lease = ["--lease", "60s"];
    let native = world.native("native", &lease);
    let node = world.node("node", &[&native], &lease);
    native.until("the node taken in", SLACK, |s| s.is_responsible_for(&node));
    node.freeze();
    let indexer = world.indexer("indexer", &[&native], &lease);
    native.until("no node taken in", SLACK, |s| {
        s.responsible_peers.is_empty()
    });
    // The lease runs on until the node has another.
    assert!(native.status().stream_record(&node).is_some());
    node.signal(Signal::CONT);
    node.until("the indexer's lease alone", SLACK, |s| {
        s.holds_lease_of(&indexer) && s.leases.len() == 1
    });
    native.until("its stream given up", SLACK, |s| {
        s.stream_record(&node).is_none()
    });
}

#[test]
fn candidates_that_do_not_answer_a_ping_are_none_and_one_that_does_gets_the_nodes() {
    let world = World::new();
    let lease = ["--lease", "10s", "--refresh-interval", "1s"];
    let settled = [world.settle_native("n1"), world.settle_native("n2")];
    let near = world.settled(&settled[0], &[&settled[1]], &lease);
    let mut far = world.settled(&settled[1], &[&settled[0]], &lease);
    let mut deaf = world.indexer("deaf", &[&near], &["--lease", "10s"]);
    far.until("the deaf one", SLACK, |s| s.live(&deaf).is_some());
    far.end(Signal::TERM);
    deaf.kill();
    // The native knows the id from its last run. The node arrives before the entry exists, so only
    // the offload loop pings the indexer.
    let far = world.settled(&settled[1], &[&settled[0]], &lease);
    let node = world.node("node", &[&far], &["--connect-interval", "1h"]);
    far.until("the node taken in", SLACK, |s| s.is_responsible_for(&node));
    far.until("the deaf one", SLACK, |s| s.live(&deaf).is_some());
    far.until_runs("offload", 4);
    let status = far.status();
    assert!(status.live(&deaf).is_some(), "its record still runs");
    assert!(status.is_responsible_for(&node), "no indexer is reachable");
    assert!(!far.log().contains("releases"), "{}", far.log());
    // This indexer beats only to the other native, so only a ping can show that it is alive.
    let alive = world.indexer("alive", &[&near], &["--lease", "10s"]);
    node.until("its lease", SLACK, |s| s.holds_lease_of(&alive));
    assert!(far.status().stream_record(&alive).is_none());
}

#[test]
fn indexer_whose_lease_ran_out_is_no_candidate() {
    let world = World::new();
    // Its entry can be removed only by its time to live.
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
