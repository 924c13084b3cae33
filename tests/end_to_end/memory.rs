//! What is left when peers are gone.

use std::time::{Duration, Instant};

use super::harness::{Look, SLACK, World};

/// Three leases of the tests: what a record lives from its receipt.
const RECORD_TTL: Duration = Duration::from_secs(9);

#[test]
fn record_of_a_killed_indexer_leaves_the_dht_store_when_it_runs_out() {
    let world = World::new();
    let native = world.native("native", &[]);
    let mut indexer = world.indexer("indexer", &[&native], &[]);
    indexer.until("its lease", SLACK, |s| s.holds_lease_of(&native));
    native.until("its record", SLACK, |s| s.used("dht_records") == 1);
    indexer.kill();
    let killed = Instant::now();
    native.until("its record gone", RECORD_TTL + SLACK, |s| {
        s.used("dht_records") == 0
    });
    // Without a timer of its own it would wait for housekeeping, up to 20 s.
    let took = killed.elapsed();
    assert!(took < RECORD_TTL + Duration::from_secs(5), "{took:?}");
}
