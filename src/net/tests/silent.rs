//! Servers of the DHT that do not answer, and are the nearest to what is searched for.

use std::net::TcpListener;

use libp2p::{
    Multiaddr,
    kad::{KBucketKey, ProviderRecord, store::RecordStore},
};

use super::world::{Peer, World, id_of, key};
use crate::{
    net::{
        NetEvent, convert,
        dht::{self, DhtEvent},
        executor::waits::block_on,
    },
    protocol::{Key, PeerId, Role},
};

/// As many as are asked at a time.
const SILENT: usize = 3;

fn name() -> Key {
    Key::Name("pump-3".try_into().unwrap())
}

/// Sorts peers by their distance from the name.
fn sort<T>(peers: &mut [T], id: impl Fn(&T) -> PeerId) {
    let sought = KBucketKey::new(convert::provider_key(&name()));
    peers.sort_by_key(|peer| sought.distance(&KBucketKey::from(libp2p::PeerId::from(id(peer)))));
}

/// Puts a peer into the routing table of the first.
fn route(world: &mut World, peer: PeerId, addr: Multiaddr) {
    let own = world.id(0).into();
    let kademlia = world.net(0).swarm.behaviour_mut().kademlia().unwrap();
    dht::route(kademlia, own, &peer.into(), [addr].into_iter());
}

/// All servers but the first know the providers of the name. Does a search of the first find it?
async fn is_found(world: &mut World) -> bool {
    let holder = id_of(&key(99));
    let addrs = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
    let record = ProviderRecord::new(convert::provider_key(&name()), holder.into(), addrs);
    for peer in &mut world.0[1..] {
        let kademlia = peer.net.swarm.behaviour_mut().kademlia().unwrap();
        kademlia.store_mut().add_provider(record.clone()).unwrap();
    }
    let sought = world.net(0).providers(&name()).unwrap();
    world
        .until(|_, who, event| match event {
            NetEvent::Dht(DhtEvent::Provided {
                search, servers, ..
            }) if (who, search) == (0, sought) => Some(servers[0].0 == holder),
            NetEvent::Dht(DhtEvent::Ended { search, .. }) if (who, search) == (0, sought) => {
                Some(false)
            }
            _ => None,
        })
        .await
}

#[test]
fn three_nearest_servers_that_are_connected_and_silent_do_not_stall_a_search() {
    block_on(async {
        let mut world = World::new(&[Role::Native; 8]).await;
        for at in 1..8 {
            let (peer, addrs) = (world.id(at), world.0[at].addrs.clone());
            world.net(0).probe(peer, &addrs);
            world
                .until(|_, who, event| {
                    (who == 0 && matches!(event, NetEvent::Probed { .. })).then_some(())
                })
                .await;
            let addr = world.multiaddr(at);
            route(&mut world, peer, addr);
        }
        sort(&mut world.0[1..], |peer: &Peer| peer.id);
        // They keep their connections, and nothing runs that would answer.
        let _silent: Vec<Peer> = world.0.drain(1..=SILENT).collect();
        assert!(is_found(&mut world).await);
    });
}

#[test]
fn three_nearest_servers_whose_hosts_are_mute_do_not_stall_a_search() {
    block_on(async {
        let mut world = World::new(&[Role::Native; 4]).await;
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = mute.local_addr().unwrap().port();
        let mut ids: Vec<PeerId> = (100..250).map(|seed| id_of(&key(seed))).collect();
        ids.extend((1..4).map(|at| world.id(at)));
        sort(&mut ids, |id| *id);
        assert!((1..4).all(|at| !ids[..SILENT].contains(&world.id(at))));
        for id in ids[..SILENT].iter().copied() {
            route(
                &mut world,
                id,
                format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap(),
            );
        }
        for at in 1..4 {
            let (peer, addr) = (world.id(at), world.multiaddr(at));
            route(&mut world, peer, addr);
        }
        assert!(is_found(&mut world).await);
    });
}
