//! The DHT between two peers: valid records that are put are found, invalid ones are not; and which
//! peer learns which address.

use std::time::{Duration, Instant};

use libp2p::{
    Multiaddr, PeerId,
    kad::{Quorum, Record, store::RecordStore},
    swarm::ConnectionId,
};
use smol::future::yield_now;

use super::world::{World, id_of, key};
use crate::{
    net::{
        NetEvent,
        dht::{self, DhtEvent, Kademlia},
        envelope::{open_indexer, sign_indexer},
        executor::waits::block_on,
    },
    protocol::{self, Role, codec::record::Kind},
};

const NOW: u64 = 1_700_000_000_000;
const TTL: Duration = Duration::from_secs(270);
const PAIR: [Role; 2] = [Role::Native, Role::Native];

fn subject() -> protocol::PeerId {
    id_of(&key(50))
}

fn envelope(sequence: u64, issued_at_ms: u64) -> Vec<u8> {
    let addr: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
    sign_indexer(&key(50), sequence, issued_at_ms, TTL, &[addr]).unwrap()
}

fn kademlia(world: &mut World, at: usize) -> &mut Kademlia {
    world.net(at).swarm.behaviour_mut().kademlia().unwrap()
}

/// Two natives that have identified each other.
async fn acquainted() -> World {
    let mut world = World::new(&PAIR).await;
    let (peer, addrs) = (world.id(1), world.0[1].addrs.clone());
    world.net(0).probe(peer, &addrs);
    for (at, other) in [(0, 1), (1, 0)] {
        let other = world.id(other).into();
        while dht::routing::addresses(kademlia(&mut world, at), &other).is_empty() {
            world
                .meanwhile(smol::future::yield_now(), |_, _, _| {})
                .await;
        }
    }
    world
}

/// Puts bytes under a key as a peer without any checks would, and waits until the other side has
/// received them.
async fn put(world: &mut World, key: libp2p::kad::RecordKey, value: Vec<u8>) -> Option<DhtEvent> {
    let record = Record {
        key,
        value,
        publisher: None,
        expires: Some(Instant::now() + TTL),
    };
    kademlia(world, 0).put_record(record, Quorum::One).unwrap();
    let search = world.net(1).search(Kind::Node, subject()).unwrap();
    let mut offered = None;
    // The search goes to the same peer, and its answer comes after that of the PUT.
    world
        .until(|_, at, event| match event {
            NetEvent::Dht(event @ DhtEvent::Offered { .. }) => {
                assert_eq!(at, 1);
                offered = Some(event);
                Some(())
            }
            NetEvent::Dht(DhtEvent::Ended { search: ended, .. }) if ended == search => Some(()),
            _ => None,
        })
        .await;
    offered
}

/// Every envelope that a search finds.
async fn find(world: &mut World, at: usize) -> Vec<Vec<u8>> {
    let search = world.net(at).search(Kind::Indexer, subject()).unwrap();
    let mut found = Vec::new();
    world
        .until(|_, _, event| {
            match event {
                NetEvent::Dht(DhtEvent::Found { envelope, .. }) => found.push(envelope),
                NetEvent::Dht(DhtEvent::Ended { search: ended, .. }) => {
                    return (search == ended).then_some(());
                }
                _ => {}
            }
            None
        })
        .await;
    found
}

#[test]
fn a_published_record_is_offered_to_the_others_and_found_there() {
    block_on(async {
        let mut world = acquainted().await;
        let signed = envelope(1, NOW);
        let info = open_indexer(&signed).unwrap().info;
        world
            .net(0)
            .publish(Kind::Indexer, &info, signed.clone(), NOW);
        let (kind, info, offered) = world
            .until(|_, at, event| match event {
                NetEvent::Dht(DhtEvent::Offered {
                    record,
                    envelope,
                    kind,
                    ..
                }) if at == 1 => Some((kind, record.info, envelope)),
                _ => None,
            })
            .await;
        assert_eq!((kind, &offered), (Kind::Indexer, &signed));
        assert!(
            kademlia(&mut world, 1)
                .store_mut()
                .get(&dht::key(kind, &subject()))
                .is_none(),
            "nothing is stored that was not judged"
        );
        world.net(1).keep(kind, &info, (offered, None), NOW);
        assert_eq!(
            find(&mut world, 1).await,
            [signed.clone(), signed],
            "its own copy and the other's"
        );
    });
}

#[test]
fn a_forged_record_is_not_offered() {
    block_on(async {
        let mut world = acquainted().await;
        let mut forged = envelope(1, NOW);
        *forged.last_mut().unwrap() ^= 1;
        let key = dht::key(Kind::Indexer, &subject());
        assert!(put(&mut world, key, forged).await.is_none());
        assert!(
            find(&mut world, 1).await.is_empty(),
            "nor found where it is stored"
        );
    });
}

#[test]
fn a_record_under_the_key_of_another_peer_or_kind_is_not_offered() {
    block_on(async {
        let mut world = acquainted().await;
        for key in [
            dht::key(Kind::Indexer, &id_of(&key(51))),
            dht::key(Kind::Node, &subject()),
            libp2p::kad::RecordKey::new(b"/pk/1"),
        ] {
            assert!(put(&mut world, key, envelope(1, NOW)).await.is_none());
        }
    });
}

#[test]
fn a_search_that_was_ended_is_not_heard_of_again() {
    block_on(async {
        let mut world = acquainted().await;
        let ended = world.net(0).search(Kind::Indexer, subject()).unwrap();
        world.net(0).end_search(ended);
        let other = world.net(0).search(Kind::Indexer, subject()).unwrap();
        world
            .until(|_, _, event| match event {
                NetEvent::Dht(DhtEvent::Ended { search, .. }) => {
                    assert_eq!(search, other);
                    Some(())
                }
                _ => None,
            })
            .await;
    });
}

#[test]
fn a_burst_of_records_is_put_a_few_at_a_time_and_the_lease_lives_on() {
    block_on(async {
        let mut world = acquainted().await;
        world.lease(0, 1).await;
        let mut expected = Vec::new();
        // As many records as the store of a peer in these tests holds.
        for seed in 100..108 {
            let addr: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
            let signed = sign_indexer(&key(seed), 1, NOW, TTL, &[addr]).unwrap();
            let info = open_indexer(&signed).unwrap().info;
            expected.push(info.peer);
            world.net(0).publish(Kind::Indexer, &info, signed, NOW);
        }
        let mut offered = Vec::new();
        world
            .until(|_, _, event| {
                match event {
                    NetEvent::Dht(DhtEvent::Offered { record, .. }) => {
                        offered.push(record.info.peer);
                    }
                    NetEvent::LeaseClosed { .. } => panic!("the PUTs cost the lease"),
                    _ => {}
                }
                (offered.len() == expected.len()).then_some(())
            })
            .await;
        offered.sort();
        expected.sort();
        assert_eq!(offered, expected, "each once");
    });
}

#[test]
fn loopback_addresses_leave_the_routing_table_when_a_far_peer_connects() {
    block_on(async {
        let mut world = acquainted().await;
        let other = world.id(1).into();
        let far = "/ip4/203.0.113.77/tcp/1".parse().unwrap();
        let net = world.net(0);
        assert!(net.is_local());
        assert!(
            !net.scope
                .connected(protocol::PeerId::from_bytes([9; 32]), &far, None)
        );
        net.confine();
        assert!(dht::routing::addresses(kademlia(&mut world, 0), &other).is_empty());
    });
}

/// Where the routing table of the first peer has this one.
fn routed(world: &mut World, peer: &PeerId) -> Vec<Multiaddr> {
    dht::routing::addresses(kademlia(world, 0), peer)
}

#[test]
fn a_server_is_in_the_routing_table_only_where_a_dial_has_found_it() {
    block_on(async {
        let mut world = World::new(&PAIR).await;
        let there = world.multiaddr(1);
        let (peer, stranger) = (world.id(1).into(), id_of(&key(60)).into());
        // No connection of this process comes from there.
        let connection = ConnectionId::new_unchecked(usize::MAX);
        for id in [peer, stranger] {
            let addrs = [there.clone()].into_iter();
            world.net(0).claimed(id, connection, addrs);
        }
        assert!(routed(&mut world, &peer).is_empty());
        while !world.net(0).dht.claims.is_idle() {
            world.meanwhile(yield_now(), |_, _, _| {}).await;
        }
        assert_eq!(routed(&mut world, &peer).len(), 1);
        assert!(routed(&mut world, &stranger).is_empty());
        // After the wrong claim, no claim is dialled there.
        let addrs = [there].into_iter();
        world.net(0).claimed(stranger, connection, addrs);
        assert!(world.net(0).dht.claims.is_idle());
    });
}

#[test]
fn a_server_that_cannot_be_dialled_is_taken_out_of_the_routing_table() {
    block_on(async {
        let mut world = World::new(&[Role::Native]).await;
        let gone: PeerId = id_of(&key(60)).into();
        // Port 1 of this host has no listener.
        let nowhere = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        kademlia(&mut world, 0).add_address(&gone, nowhere);
        assert_eq!(routed(&mut world, &gone).len(), 1);
        kademlia(&mut world, 0).get_closest_peers(gone);
        while !routed(&mut world, &gone).is_empty() {
            world.meanwhile(yield_now(), |_, _, _| {}).await;
        }
    });
}
