//! The log of a server tells the life of each lease: which peer came, from where, why, and how it
//! ended.

use rustix::process::Signal;

use super::harness::{Look as _, Peer, SLACK, World};

fn called(node: &Peer, name: &str) -> String {
    format!("node {name} (…{})", node.short_id())
}

#[test]
fn an_indexer_tells_who_joins_leaves_is_lost_and_is_back() {
    let world = World::new();
    let native = world.native("native", &[]);
    let indexer = world.indexer("indexer", &[&native], &[]);
    native.logs(&format!(
        "indexer …{} at 127.0.0.1 joins",
        indexer.short_id()
    ));
    let mut pump = world.node("pump", &[&native], &["--name", "pump"]);
    let name = called(&pump, "pump");
    pump.logs(&format!("{name} of version "));
    pump.logs(" starts in an open network: 1 native configured, leases of 3 s, ");
    indexer.logs(&format!("{name} at 127.0.0.1 joins"));
    pump.end(Signal::TERM);
    indexer.logs(&format!("{name} has left: it was here for "));
    let mut pump = world.node("pump", &[&native], &["--name", "pump"]);
    indexer.logs(&format!("{name} at 127.0.0.1 is back after "));
    pump.kill();
    indexer.logs(&format!("{name} is lost: no heartbeat for "));
}

#[test]
fn a_native_tells_why_it_takes_a_node_in_and_where_it_goes() {
    let world = World::new();
    let native = world.native("native", &[]);
    let pump = world.node("pump", &[&native], &["--name", "pump"]);
    let name = called(&pump, "pump");
    native.logs(&format!("takes {name} at 127.0.0.1 in: no indexer is live"));
    let indexer = world.indexer("indexer", &[&native], &[]);
    let id = indexer.short_id();
    native.logs(&format!("releases {name} to indexer …{id}"));
    native.logs(" is with its indexer now: it was here for ");
    pump.until("the indexer's lease", SLACK, |s| s.holds_lease_of(&indexer));
    pump.logs(&format!("s with indexer …{id} at 127.0.0.1:"));
}
