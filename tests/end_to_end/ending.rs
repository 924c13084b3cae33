//! How processes end.

use std::time::Duration;

use rustix::process::Signal;

use super::harness::{Look, Peer, SLACK, World, eventually, ms};

/// The time that the interface allows for a graceful end.
const GRACEFUL: Duration = Duration::from_secs(2);

fn ends_well(peer: &mut Peer, signal: Signal) {
    let (status, took) = peer.end(signal);
    assert_eq!(status.code(), Some(0), "{}", peer.log());
    assert!(took < GRACEFUL, "{took:?}");
}

#[test]
fn an_indexer_that_ended_in_order_is_no_reason_for_an_incomplete_find() {
    let world = World::new();
    let native = world.native("native", &[]);
    let mut first = world.indexer("first", &[&native], &[]);
    let second = world.indexer("second", &[&native], &[]);
    native.until("both indexers", SLACK, |status| {
        [&first, &second].iter().all(|it| status.live(it).is_some())
    });
    let node = world.node("node", &[&native], &["--name", "pump"]);
    node.until("a lease with each", SLACK, |status| {
        [&first, &second].iter().all(|it| status.holds_lease_of(it))
    });
    first.end(Signal::TERM);
    // Its nodes have ten seconds to move; after that its leave counts.
    let complete = ms(10_000) + SLACK;
    for asked in [&node, &second, &native] {
        eventually("a complete answer", complete, || {
            let answer = world.ask(asked, "find", &["pump"]);
            (answer.code == Some(0)).then_some(())
        });
    }
}

#[test]
fn every_role_ends_in_order_and_gives_its_leases_up() {
    for signal in [Signal::TERM, Signal::INT] {
        let world = World::new();
        // Leases are far longer than the test, so an entry that is gone was given up.
        let lease = ["--lease", "60s"];
        let settled = [world.settle_native("n1"), world.settle_native("n2")];
        let mut n1 = world.settled(&settled[0], &[&settled[1]], &lease);
        let mut n2 = world.settled(&settled[1], &[&settled[0]], &lease);
        let mut indexer = world.indexer("indexer", &[&n1], &lease);
        n1.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
        let mut node = world.node("node", &[&n1], &lease);
        indexer.until("the node", SLACK, |s| s.stream_record(&node).is_some());
        n2.until("the other native", SLACK, |s| {
            s.stream_record(&n1).is_some()
        });
        ends_well(&mut node, signal);
        assert!(indexer.status().stream_record(&node).is_none());
        ends_well(&mut indexer, signal);
        let status = n1.status();
        assert!(status.stream_record(&indexer).is_none() && status.live(&indexer).is_none());
        ends_well(&mut n1, signal);
        assert!(n2.status().stream_record(&n1).is_none());
        ends_well(&mut n2, signal);
    }
}

#[test]
fn node_under_the_natives_lease_gives_it_up() {
    let world = World::new();
    let native = world.native("native", &["--lease", "60s"]);
    let mut node = world.node("node", &[&native], &["--lease", "60s"]);
    native.until("the node taken in", SLACK, |s| s.is_responsible_for(&node));
    ends_well(&mut node, Signal::TERM);
    let status = native.status();
    assert!(status.stream_record(&node).is_none());
    assert_eq!(status.used("responsible_peers"), 0);
}

#[test]
fn server_that_is_deaf_does_not_hold_the_end_up() {
    let world = World::new();
    let native = world.native("native", &["--lease", "60s"]);
    let mut indexer = world.indexer("indexer", &[&native], &["--lease", "60s"]);
    native.until("the indexer", SLACK, |s| {
        s.stream_record(&indexer).is_some()
    });
    native.freeze();
    ends_well(&mut indexer, Signal::TERM);
}

#[test]
fn second_signal_ends_at_once() {
    let world = World::new();
    let native = world.native("native", &["--lease", "60s"]);
    let mut indexer = world.indexer("indexer", &[&native], &["--lease", "60s"]);
    native.until("the indexer", SLACK, |s| {
        s.stream_record(&indexer).is_some()
    });
    // The last beat gets no answer.
    native.freeze();
    indexer.signal(Signal::TERM);
    eventually("the first signal taken", SLACK, || {
        indexer
            .log()
            .contains("ends: giving leases up")
            .then_some(())
    });
    let (status, took) = indexer.end(Signal::TERM);
    assert_eq!(status.code(), Some(143), "ended by the second signal");
    assert!(took < Duration::from_secs(1), "{took:?}");
}
