//! How fast a node gets a lease: the bounds of the interface, measured from observed events.

use std::time::{Duration, Instant};

use super::harness::{Look, SLACK, World, ms};

/// After `ready`, if nothing must be probed.
const FIRST_LEASE: Duration = Duration::from_secs(1);
/// After the loss of the only indexer, and after `ready` if dead candidates are probed first.
const NEXT_LEASE: Duration = Duration::from_secs(4);

#[test]
fn node_without_an_indexer_is_under_the_natives_lease_a_second_after_ready() {
    let world = World::new();
    let native = world.native("native", &[]);
    let node = world.node("node", &[&native], &[]);
    node.until("the native's lease", SLACK, |s| s.is_under_native(&native));
    let took = node.ready.elapsed();
    assert!(took <= FIRST_LEASE, "{took:?}");
}

#[test]
fn node_is_on_an_indexer_in_time_when_one_comes() {
    let world = World::new();
    let native = world.native("native", &["--offload-interval", "1s"]);
    // Only the unsolicited `released` can move it.
    let node = world.node("node", &[&native], &["--connect-interval", "1h"]);
    node.until("the native's lease", SLACK, |s| s.is_under_native(&native));
    native.until_runs("offload", 1);
    let indexer = world.indexer("indexer", &[&native], &[]);
    node.until("the indexer's lease", SLACK, |s| s.holds_lease_of(&indexer));
    let took = indexer.ready.elapsed();
    assert!(took <= ms(1_100) + Duration::from_secs(3), "{took:?}");
}

#[test]
fn node_whose_only_indexer_is_killed_is_under_the_natives_lease_in_time() {
    let world = World::new();
    let native = world.native("native", &[]);
    let mut indexer = world.indexer("indexer", &[&native], &[]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    let node = world.node("node", &[&native], &["--connect-interval", "1h"]);
    node.until("the indexer's lease", SLACK, |s| s.holds_lease_of(&indexer));
    assert!(!node.status().holds_lease_of(&native));
    let killed = Instant::now();
    indexer.kill();
    node.until("the native's lease", SLACK, |s| s.holds_lease_of(&native));
    let took = killed.elapsed();
    assert!(took <= NEXT_LEASE, "{took:?}");
}

#[test]
fn node_whose_only_indexer_is_killed_is_under_anothers_lease_in_time() {
    let world = World::new();
    let native = world.native("native", &[]);
    let mut first = world.indexer("first", &[&native], &[]);
    native.until("the first", SLACK, |s| s.live(&first).is_some());
    let args = ["--connect-interval", "1h", "--min-indexers", "1"];
    let node = world.node("node", &[&native], &args);
    node.until("the first's lease", SLACK, |s| s.holds_lease_of(&first));
    let second = world.indexer("second", &[&native], &[]);
    native.until("the second", SLACK, |s| s.live(&second).is_some());
    assert!(!node.status().holds_lease_of(&second));
    let killed = Instant::now();
    first.kill();
    node.until("the second's lease", SLACK, |s| s.holds_lease_of(&second));
    let took = killed.elapsed();
    assert!(took <= NEXT_LEASE, "{took:?}");
}

#[test]
fn native_takes_in_in_time_when_dead_candidates_are_probed_first() {
    let world = World::new();
    let settled = [world.settle_native("n1"), world.settle_native("n2")];
    let near = world.settled(&settled[0], &[&settled[1]], &["--lease", "20s"]);
    let far = world.settled(&settled[1], &[&settled[0]], &["--lease", "20s"]);
    let indexer = world.indexer("indexer", &[&near], &["--lease", "20s"]);
    far.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    // It accepts connections and answers nothing, so only the end of the probe shows that it is
    // dead.
    indexer.freeze();
    let node = world.node("node", &[&far], &[]);
    node.until("the native's lease", SLACK, |s| s.is_under_native(&far));
    let took = node.ready.elapsed();
    assert!(took <= NEXT_LEASE, "{took:?}");
    assert!(far.status().live(&indexer).is_some());
}

#[test]
fn node_fills_its_leases_at_its_next_connect_to_natives() {
    let world = World::new();
    let native = world.native("native", &[]);
    let first = world.indexer("first", &[&native], &[]);
    native.until("the first", SLACK, |s| s.live(&first).is_some());
    let node = world.node("node", &[&native], &["--min-indexers", "2"]);
    node.until("the first's lease", SLACK, |s| s.holds_lease_of(&first));
    let second = world.indexer("second", &[&native], &[]);
    node.until("both leases", SLACK, |s| {
        s.holds_lease_of(&first) && s.holds_lease_of(&second)
    });
}
