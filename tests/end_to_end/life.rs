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
    pump.logs("made a new identity in ");
    pump.logs(&format!("{name} of version "));
    pump.logs(" starts in an open network: 1 native configured, leases of 3 s, ");
    indexer.logs(&format!("{name} at 127.0.0.1 joins"));
    pump.end(Signal::TERM);
    indexer.logs(&format!("{name} at 127.0.0.1 has left: it was here for "));
    let mut pump = world.node("pump", &[&native], &["--name", "pump"]);
    indexer.logs(&format!("{name} at 127.0.0.1 is back after "));
    // The log goes on in one file: the second life has made none.
    assert_eq!(pump.log().matches("made a new identity").count(), 1);
    pump.kill();
    // The address is known while the connection of the silent peer is open.
    indexer.logs(&format!("{name} "));
    indexer.logs(" is lost: no heartbeat for ");
}

#[test]
fn indexer_that_a_native_has_lost_is_back_with_the_time_between() {
    let world = World::new();
    let native = world.native("native", &[]);
    let mut indexer = world.indexer("indexer", &[&native], &[]);
    let name = format!("indexer …{}", indexer.short_id());
    native.logs(&format!("{name} at 127.0.0.1 joins"));
    indexer.kill();
    native.logs(&format!(
        "the connection with {name} has ended: it is lost unless"
    ));
    native.logs(" is lost: no heartbeat for ");
    let told = |status: &oc_discovery::embed::Status| {
        let summary = &status.verdict.summary;
        summary.contains("no indexer is alive").then_some(())
    };
    native.eventually("its loss in the verdict", SLACK, told);
    let _indexer = world.indexer("indexer", &[&native], &[]);
    native.logs(&format!("{name} at 127.0.0.1 is back after "));
}

#[test]
fn end_of_the_connection_of_a_lost_indexer_does_not_say_that_it_may_be_back() {
    let world = World::new();
    let native = world.native("native", &[]);
    let indexer = world.indexer("indexer", &[&native], &[]);
    let name = format!("indexer …{}", indexer.short_id());
    native.logs(&format!("{name} at 127.0.0.1 joins"));
    indexer.freeze();
    native.logs(&format!("{name} at 127.0.0.1 is lost: no heartbeat for "));
    indexer.signal(Signal::CONT);
    native.logs(&format!("{name} at 127.0.0.1 is back after "));
    let log = native.log();
    assert!(!log.contains("it is lost unless"), "{log}");
}

#[test]
fn a_native_tells_why_it_takes_a_node_in_and_where_it_goes() {
    let world = World::new();
    let native = world.native("native", &[]);
    let pump = world.node("pump", &[&native], &["--name", "pump"]);
    let name = called(&pump, "pump");
    native.logs(&format!(
        "takes {name} at 127.0.0.1 in: no indexer is alive"
    ));
    let indexer = world.indexer("indexer", &[&native], &[]);
    let id = indexer.short_id();
    native.logs(&format!(
        "releases {name} at 127.0.0.1 to indexer …{id} at 127.0.0.1:"
    ));
    native.logs(&format!(
        "{name} at 127.0.0.1 was sent to an indexer and gives its lease here up: it was here for "
    ));
    pump.until("the indexer's lease", SLACK, |s| s.holds_lease_of(&indexer));
    pump.logs(&format!("s with indexer …{id} at 127.0.0.1:"));
}
