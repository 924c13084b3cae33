//! Which servers are asked, and in which order, with the machines of all roles.

use std::{boxed::Box, vec::Vec};

use super::*;
use crate::protocol::{
    Ack, Addrs, Beat, Indexer, IndexerConfig, IndexersAnswer, Machine, Name, Native, NativeConfig,
    Node, NodeConfig, Offer, RecordInfo, Role, SignedRecord, StreamId, Terms,
    dial_back::servers::in_order, input::tests::Events,
};

const SECOND: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(90);
const TERMS: Terms = Terms {
    lease: LEASE,
    beat_interval: Duration::from_secs(30),
};

/// The servers that a process with the id `own` asks.
fn asked_by(machine: &dyn Machine, own: u8, now: u64) -> Vec<PeerId> {
    let mut all = Vec::new();
    in_order(at(now), &peer(own), machine, &mut |server| all.push(server));
    all
}

fn peers(all: impl IntoIterator<Item = u8>) -> Vec<PeerId> {
    all.into_iter().map(peer).collect()
}

/// Sends what is due.
fn run(machine: &mut impl Machine, now: u64) {
    while machine.poll(at(now), now).is_some() {}
}

/// An indexer of natives 1, 2 and 3 that has sent its beats.
fn indexer(own: u8) -> Box<Indexer<2>> {
    let mut indexer = Box::new(Indexer::new());
    let config = IndexerConfig {
        terms: TERMS,
        gc_interval: SECOND,
    };
    indexer.start(at(0), peer(own), 1, config);
    for native in 1..=3 {
        indexer.learn_native(at(0), peer(native), Addrs::new());
    }
    run(&mut *indexer, 0);
    indexer
}

#[test]
fn no_server_is_asked_before_a_lease_is_held_or_after_it_has_expired() {
    let mut indexer = indexer(90);
    assert_eq!(asked_by(&*indexer, 90, 10), []);
    indexer.acked(at(10), &peer(2), &Ack::accepted(LEASE));
    assert_eq!(asked_by(&*indexer, 90, 10), peers([1, 2, 3]));
    // It counts from its beat.
    assert_eq!(asked_by(&*indexer, 90, 90_000), peers([1, 2, 3]));
    assert_eq!(asked_by(&*indexer, 90, 90_001), []);
}

#[test]
fn processes_begin_at_different_natives_and_none_asks_itself() {
    for (own, order) in [(90, [1, 2, 3]), (91, [2, 3, 1]), (92, [3, 1, 2])] {
        let mut indexer = indexer(own);
        indexer.acked(at(0), &peer(1), &Ack::accepted(LEASE));
        assert_eq!(asked_by(&*indexer, own, 0), peers(order));
        assert!(!asked_by(&*indexer, 2, 0).contains(&peer(2)));
    }
}

#[test]
fn a_node_asks_natives_before_the_indexers_whose_leases_it_holds() {
    let mut node = Node::new();
    let config = NodeConfig {
        terms: TERMS,
        connect_interval: LEASE,
        min_indexers: 2,
    };
    node.start(at(0), peer(90), 1, config);
    node.learn_native(at(0), peer(1), Addrs::new());
    run(&mut node, 0);
    let offers = [10, 11].map(|n| Offer {
        peer: peer(n),
        addrs: [Addr::from_iter([n])].into_iter().collect(),
        ttl: LEASE,
        free: None,
    });
    let answer = IndexersAnswer {
        offers: &offers,
        takes_in: false,
    };
    node.answered(at(0), &peer(1), Some(answer));
    run(&mut node, 0);
    assert_eq!(asked_by(&node, 90, 0), [], "both leases are sought");
    node.acked(at(0), &peer(11), &Ack::accepted(LEASE));
    assert_eq!(asked_by(&node, 90, 0), peers([1, 11]));
}

#[test]
fn a_native_asks_its_fellows_and_then_the_indexers_that_it_knows() {
    let mut native = Box::new(Native::<2, 4, 2, 8>::new());
    let config = NativeConfig {
        terms: TERMS,
        offload_interval: LEASE,
        refresh_interval: LEASE,
        gc_interval: LEASE,
    };
    native.start(at(0), peer(90), 1, config);
    native.learn_native(at(0), peer(1), Addrs::new());
    let record = RecordInfo {
        peer: peer(10),
        sequence: 1,
        issued_at_ms: 1,
        ttl: LEASE,
        addrs: Addrs::new(),
        name: Name::new(),
    };
    let beat = Beat {
        record: Some(SignedRecord::of(&record)),
        ..Beat::new(Role::Indexer, LEASE)
    };
    native.beat(at(0), &peer(10), StreamId(1), &beat);
    for (now, asked) in [(90_000, peers([1, 10])), (90_001, peers([1]))] {
        assert_eq!(asked_by(&*native, 90, now), asked, "{now}");
    }
}

#[test]
fn nobody_is_asked_about_an_address_that_there_is_not() {
    let mut indexer = indexer(90);
    indexer.acked(at(0), &peer(1), &Ack::accepted(LEASE));
    let mut client = Client::new(at(0), Role::Indexer, 1);
    let own = peer(90);
    assert_eq!(client.poll(at(3_000), &own, None), None);
    assert_eq!(client.timeout(), at(13_000));
    let machine: &dyn Machine = &*indexer;
    assert_eq!(client.poll(at(13_000), &own, Some(machine)), Some(peer(1)));
}
