//! The diagram's third loop: the stream GC.

use super::harness::{Look, SLACK, World};

const LEASE_MS: u64 = 6_000;

#[test]
fn silent_indexer_is_collected_and_its_entry_runs_out_while_the_other_beats_on() {
    let world = World::new();
    // The other indexer signs no record in this time, so there is no reason to contact the silent
    // one.
    let args = ["--lease", "60s", "--refresh-interval", "1h"];
    let native = world.native("native", &args);
    let beating = ["--lease", "60s", "--beat-interval", "1s"];
    let a = world.indexer("a", &[&native], &beating);
    native.until("the first", SLACK, |s| s.stream_record(&a).is_some());
    let b = world.indexer("b", &[&native], &["--lease", "6s"]);
    native.until("both indexers", SLACK, |s| {
        s.stream_record(&a).is_some() && s.stream_record(&b).is_some()
    });
    b.freeze();
    let mut last_seen = 0;
    let left = super::harness::eventually("its stream record collected", SLACK, || {
        let status = native.status();
        assert!(status.stream_record(&a).is_some() && status.live(&a).is_some());
        match status.stream_record(&b) {
            Some(record) => {
                last_seen = record.last_seen_ms;
                None
            }
            None => Some(status.live(&b).map(|entry| entry.expires_in_ms)),
        }
    });
    // The second condition of GC: it holds at two thirds of a silent lease and not before, which is
    // a third of the lease before the first condition.
    let left = left.expect("its entry is left alone");
    assert!(left <= LEASE_MS / 3, "{left} ms: collected too early");
    assert!(last_seen >= LEASE_MS / 2, "{last_seen} ms: too early");
    native.until("its entry run out", SLACK, |s| {
        assert!(s.stream_record(&a).is_some() && s.live(&a).is_some());
        s.live(&b).is_none()
    });
    // Without its stream, the connection is unused. It ends 10 s after its last exchange, and the
    // native gives up its requests to the silent indexer within 10 s.
    native.until("one connection, the other's", SLACK * 2, |s| {
        s.used("connections") == 1
    });
    let status = native.status();
    assert!(status.stream_record(&a).unwrap().last_seen_ms < LEASE_MS);
    assert!(status.live(&a).unwrap().expires_in_ms > 60_000 - LEASE_MS);
    assert!(
        status.knows(&b),
        "it is searched for in the DHT from now on"
    );
}

#[test]
fn silent_node_leaves_the_tables_of_all_protocols() {
    let world = World::new();
    let native = world.native("native", &[]);
    let other = world.node("other", &[&native], &["--name", "cam-2"]);
    native.until("one taken in", SLACK, |s| s.is_responsible_for(&other));
    let silent = world.node("silent", &[&native], &["--name", "cam-1"]);
    native.until("both taken in and listed", SLACK, |s| {
        s.is_responsible_for(&silent) && s.is_responsible_for(&other) && s.used("directory") == 2
    });
    assert_eq!(world.ask(&native, "find", &["cam-1"]).code, Some(0));
    silent.freeze();
    native.until("its stream record collected", SLACK, |s| {
        s.stream_record(&silent).is_none()
    });
    let status = native.status();
    for table in ["stream_records", "responsible_peers", "directory"] {
        assert_eq!(status.used(table), 1, "{table}");
    }
    assert_eq!(world.ask(&native, "find", &["cam-1"]).code, Some(1));
    assert_eq!(world.ask(&native, "find", &["cam-2"]).code, Some(0));
    assert!(status.is_responsible_for(&other));
}

#[test]
fn indexer_that_was_collected_is_back_with_its_next_beat() {
    let world = World::new();
    let native = world.native("native", &["--refresh-interval", "1h"]);
    let indexer = world.indexer("indexer", &[&native], &[]);
    native.until("the indexer", SLACK, |s| {
        s.stream_record(&indexer).is_some()
    });
    indexer.freeze();
    native.until("nothing left of it", SLACK, |s| {
        s.stream_record(&indexer).is_none() && s.live(&indexer).is_none()
    });
    indexer.signal(rustix::process::Signal::CONT);
    native.until("it is back", SLACK, |s| {
        s.stream_record(&indexer).is_some() && s.live(&indexer).is_some()
    });
}
