//! Natives that deal with each other: an indexer of one is found by the others, and is removed from
//! all of them.

use oc_discovery::embed::Source;
use rustix::process::Signal;

use super::harness::{Look, Peer, SLACK, World, eventually, ms};

/// Three natives in a chain: only the middle one is a neighbour of both others.
fn chain(world: &World) -> [Peer; 3] {
    let [n1, n2, n3] = ["n1", "n2", "n3"].map(|name| world.settle_native(name));
    [
        world.settled(&n1, &[&n2], &[]),
        world.settled(&n2, &[&n1, &n3], &[]),
        world.settled(&n3, &[&n2], &[]),
    ]
}

#[test]
fn indexer_of_the_first_is_handed_out_by_the_third_and_leaves_all_when_its_record_runs_out() {
    let world = World::new();
    let natives = chain(&world);
    let [n1, n2, n3] = &natives;
    let node = world.node("node", &[n3], &[]);
    node.until("the third's lease", SLACK, |s| s.is_under_native(n3));
    let mut indexer = world.indexer("indexer", &[n1], &[]);
    for native in [n2, n3] {
        let source = native.eventually("the indexer", SLACK, |s| {
            s.live(&indexer).map(|entry| entry.source)
        });
        assert_eq!(source, Source::Dht);
        assert!(native.status().stream_record(&indexer).is_none());
    }
    node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
    let late = world.node("late", &[n3], &[]);
    late.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
    indexer.kill();
    // Records live 9 s here, and this one is not signed again.
    eventually("the indexer gone everywhere", ms(10_000) + SLACK, || {
        natives
            .iter()
            .all(|native| native.status().live(&indexer).is_none())
            .then_some(())
    });
    for native in &natives {
        native.until_runs("refresh", 3);
    }
    for native in &natives {
        assert!(native.status().live(&indexer).is_none());
    }
    node.until("the third's lease", SLACK, |s| s.is_under_native(n3));
}

#[test]
fn indexer_that_ends_is_gone_from_its_natives_at_once_and_not_brought_back() {
    let world = World::new();
    let natives = chain(&world);
    let [n1, n2, n3] = &natives;
    let mut indexer = world.indexer("indexer", &[n1, n2], &[]);
    for native in [n1, n2] {
        native.until("its beats", SLACK, |s| {
            s.stream_record(&indexer).is_some()
                && s.live(&indexer)
                    .is_some_and(|entry| entry.source == Source::Heartbeat)
        });
    }
    // The third native would report it to the second.
    n3.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    let (status, _) = indexer.end(Signal::TERM);
    assert_eq!(status.code(), Some(0));
    let gone = |native: &Peer| {
        let status = native.status();
        assert!(status.live(&indexer).is_none());
        assert!(!status.knows(&indexer));
        assert!(status.stream_record(&indexer).is_none());
    };
    for native in [n1, n2] {
        // The process has ended, so its last beat was answered.
        gone(native);
    }
    let (first, second) = (n1.status().runs("refresh"), n2.status().runs("refresh"));
    eventually("eight runs of the refresh", SLACK, || {
        gone(n1);
        gone(n2);
        (n1.status().runs("refresh") >= first + 8 && n2.status().runs("refresh") >= second + 8)
            .then_some(())
    });
    n3.until("its record run out", SLACK, |s| s.live(&indexer).is_none());
    gone(n1);
    gone(n2);
}

#[test]
fn native_started_with_the_first_alone_shares_indexers_with_it_in_both_directions() {
    let world = World::new();
    let first = world.native("first", &[]);
    let args = ["--native", first.addr.as_str()];
    let second = world.native("second", &args);
    let of_first = world.indexer("of-first", &[&first], &[]);
    let of_second = world.indexer("of-second", &[&second], &[]);
    second.until("the first's indexer", SLACK, |s| {
        s.live(&of_first).is_some()
    });
    first.until("the second's indexer", SLACK, |s| {
        s.live(&of_second).is_some()
    });
    assert_eq!(first.status().used("guests"), 1);
    assert_eq!(second.status().used("guests"), 0);
    // Their indexers are given to both of them, as the README says.
    let _of_both = world.indexer("of-both", &[&first, &second], &[]);
    for native in [&first, &second] {
        native.until("OK", SLACK, |s| s.verdict.state.word() == "OK");
    }
    // What it is told can be pasted.
    let hint = format!("start this native with --native {}", second.addr);
    eventually("the guest with its address", SLACK, || {
        let told = world.ask(&first, "doctor", &[] as &[&str]);
        told.stdout.contains(&hint).then_some(())
    });
    // Once, and not at two levels.
    let log = first.log();
    assert_eq!(log.matches("guest").count(), 1, "{log}");
}
