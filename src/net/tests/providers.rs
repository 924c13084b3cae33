//! The providers of a name: one server of the DHT announces it, and all servers find it.

use std::{collections::HashMap, time::Duration};

use super::world::World;
use crate::{
    net::{
        NetEvent,
        dht::{DhtEvent, SearchId},
        executor::{self, waits::block_on_for},
    },
    protocol::{Addrs, AnnounceEnd, Coverage, Key, PeerId, Role},
};

/// More than twice as many as keep an announcement.
const SERVERS: usize = 20;
/// Servers that keep an announcement.
const COPIES: usize = 8;
/// All pairs connect, which takes 10 s of CPU: minutes on a slow or busy machine.
const LIMIT: Duration = Duration::from_secs(600);

fn name() -> Key {
    Key::Name("pump-3".try_into().unwrap())
}

/// Servers of which the first three are natives. Each knows one native, as after its first lease.
async fn servers(count: usize) -> World {
    let role = |at| if at < 3 { Role::Native } else { Role::Indexer };
    let roles: Vec<_> = (0..count).map(role).collect();
    let mut world = World::new(&roles).await;
    for at in 1..count {
        let native = (at + 1) % at.min(3);
        let (peer, addrs) = (world.id(native), world.0[native].addrs.clone());
        world.net(at).probe(peer, &addrs);
        world
            .until(|_, index, event| {
                (index == at && matches!(event, NetEvent::Probed { .. })).then_some(())
            })
            .await;
    }
    // It waits until each knows of another server.
    for at in 0..count {
        eventually(&mut world, |world| count == 1 || !is_alone(world, at)).await;
    }
    world
}

fn is_alone(world: &mut World, at: usize) -> bool {
    let kademlia = world.net(at).swarm.behaviour_mut().kademlia().unwrap();
    kademlia.kbuckets().all(|bucket| bucket.is_empty())
}

/// Announces the key, and waits until the announcer and the 8 servers nearest to the key keep it.
/// Kademlia does not wait for these.
async fn announce(world: &mut World, from: usize, key: &Key) {
    let copies = kept(world) + world.0.len().min(1 + COPIES);
    // Again, because a query ends after 5 s and leaves out servers that take longer than 1 s, which
    // is not enough on a busy machine.
    while kept(world) < copies {
        try_announce(world, from, key).await;
        let arrives = executor::within(Duration::from_millis(300), std::future::pending::<()>());
        world.meanwhile(arrives, |_, _, _| {}).await;
    }
}

async fn try_announce(world: &mut World, from: usize, key: &Key) -> bool {
    assert!(world.net(from).provide(key));
    world
        .until(|_, index, event| match event {
            NetEvent::Dht(DhtEvent::Announced { key: of, end }) if index == from => {
                assert_eq!(of, *key);
                Some(end == AnnounceEnd::Taken)
            }
            _ => None,
        })
        .await
}

/// Entries in the stores of all peers.
fn kept(world: &mut World) -> usize {
    let stores = world.0.iter_mut().filter_map(|peer| {
        let kademlia = peer.net.swarm.behaviour_mut().kademlia()?;
        Some(kademlia.store_mut().providers.stats().used)
    });
    stores.sum()
}

/// Runs the peers until this holds.
async fn eventually(world: &mut World, mut holds: impl FnMut(&mut World) -> bool) {
    while !holds(world) {
        world
            .meanwhile(smol::future::yield_now(), |_, _, _| {})
            .await;
    }
}

/// What one search found.
#[derive(Default)]
struct Found {
    servers: HashMap<PeerId, Addrs>,
    reached: Option<u16>,
    more: bool,
}

/// All peers search for the key at once.
async fn searches(world: &mut World, key: &Key) -> Vec<Found> {
    let all = 0..world.0.len();
    let searches: Vec<SearchId> = all
        .map(|at| world.net(at).providers(key).unwrap())
        .collect();
    let mut found: Vec<Found> = searches.iter().map(|_| Found::default()).collect();
    world
        .until(|_, index, event| {
            match event {
                NetEvent::Dht(DhtEvent::Provided {
                    search,
                    servers,
                    coverage,
                }) => {
                    assert_eq!(search, searches[index]);
                    found[index].servers.extend(servers);
                    found[index].more |= coverage == Coverage::Partial;
                }
                NetEvent::Dht(DhtEvent::Ended { search, reached }) if search == searches[index] => {
                    found[index].reached = Some(reached);
                }
                _ => {}
            }
            found.iter().all(|f| f.reached.is_some()).then_some(())
        })
        .await;
    found
}

/// Every peer but the announcer finds it, with its addresses.
async fn must_find(world: &mut World, announcer: PeerId) {
    let peer = world.0.iter().find(|peer| peer.id == announcer);
    let named = HashMap::from([(announcer, peer.unwrap().addrs.clone())]);
    loop {
        let found = searches(world, &name()).await;
        let mut missing = Vec::new();
        for (at, found) in found.iter().enumerate() {
            let is_announcer = world.id(at) == announcer;
            assert!(!found.more && (found.servers.is_empty() || found.servers == named));
            if found.servers.is_empty() != is_announcer {
                missing.push(at);
            }
        }
        // Again for the same reason as an announcement.
        if missing.is_empty() {
            return;
        }
        println!("not found by {missing:?}");
    }
}

#[test]
fn what_one_server_announced_is_found_from_all_and_with_half_of_them_gone() {
    block_on_for(LIMIT, async {
        let mut world = servers(SERVERS).await;
        let announcer = world.id(17);
        announce(&mut world, 17, &name()).await;
        must_find(&mut world, announcer).await;

        let mut at = 0;
        world.0.retain(|_| {
            at += 1;
            at % 2 == 0
        });
        must_find(&mut world, announcer).await;
    });
}

#[test]
fn a_name_that_nobody_announced_is_answered_by_servers_that_name_none() {
    block_on_for(LIMIT, async {
        let mut world = servers(12).await;
        let found = searches(&mut world, &name()).await;
        assert!(found.iter().all(|found| found.servers.is_empty()));
        assert!(found.iter().any(|found| found.reached > Some(0)));
    });
}

#[test]
fn where_no_server_is_known_nothing_is_announced_and_nobody_reached() {
    block_on_for(LIMIT, async {
        let mut world = servers(1).await;
        assert!(world.net(0).provide(&name()));
        let end = world
            .until(|_, _, event| match event {
                NetEvent::Dht(DhtEvent::Announced { end, .. }) => Some(end),
                _ => None,
            })
            .await;
        assert_eq!(end, AnnounceEnd::Failed);
        assert_eq!(searches(&mut world, &name()).await[0].reached, Some(0));
    });
}

#[test]
fn of_nine_providers_an_answer_names_eight_and_says_that_there_may_be_more() {
    block_on_for(LIMIT, async {
        let mut world = servers(10).await;
        for at in 1..10 {
            announce(&mut world, at, &name()).await;
        }
        let mut named = HashMap::new();
        // Each server names the ninth when it is asked again.
        while named.len() < 9 {
            let mut found = searches(&mut world, &name()).await;
            named.extend(found.swap_remove(0).servers);
            assert!(found.iter().any(|found| found.more));
        }
    });
}

#[test]
fn a_node_and_a_server_without_an_address_announce_nothing() {
    block_on_for(LIMIT, async {
        let mut world = World::new(&[Role::Node, Role::Native]).await;
        assert!(!world.net(0).provide(&name()));
        assert!(world.net(0).providers(&name()).is_none());
        world.net(1).announced.clear();
        assert!(!world.net(1).provide(&name()));
    });
}
