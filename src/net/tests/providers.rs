//! Who can say which node has a name: announced by one server of the DHT, and found from all.

use std::collections::HashMap;

use super::world::World;
use crate::{
    net::{
        NetEvent,
        dht::{DhtEvent, SearchId},
        executor::block_on,
    },
    protocol::{Addrs, Key, PeerId, Role},
};

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
            .until(|_, who, event| {
                (who == at && matches!(event, NetEvent::Probed { .. })).then_some(())
            })
            .await;
    }
    world
}

/// Announces the key until a server has taken it.
async fn announce(world: &mut World, from: usize, key: &Key) {
    loop {
        assert!(world.net(from).provide(key));
        let ok = world
            .until(|_, who, event| match event {
                NetEvent::Dht(DhtEvent::Announced { key: of, ok }) if who == from => {
                    assert_eq!(of, *key);
                    Some(ok)
                }
                _ => None,
            })
            .await;
        if ok {
            return;
        }
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
        .until(|_, who, event| {
            match event {
                NetEvent::Dht(DhtEvent::Provided {
                    search,
                    servers,
                    more,
                }) => {
                    assert_eq!(search, searches[who]);
                    found[who].servers.extend(servers);
                    found[who].more |= more;
                }
                NetEvent::Dht(DhtEvent::Ended { search, reached }) if search == searches[who] => {
                    found[who].reached = Some(reached);
                }
                _ => {}
            }
            found.iter().all(|f| f.reached.is_some()).then_some(())
        })
        .await;
    found
}

/// Everyone but the announcer was named it, with its addresses.
fn must_have_found(world: &World, found: &[Found], announcer: PeerId) {
    let addrs = &world
        .0
        .iter()
        .find(|peer| peer.id == announcer)
        .unwrap()
        .addrs;
    for (at, found) in found.iter().enumerate() {
        let is_announcer = world.id(at) == announcer;
        let expected = (!is_announcer).then(|| (announcer, addrs.clone()));
        assert_eq!(found.servers, HashMap::from_iter(expected), "by {at}");
        assert!(found.reached > Some(0) && !found.more, "by {at}");
    }
}

#[test]
fn what_one_of_forty_servers_announced_is_found_from_all_and_with_half_of_them_gone() {
    block_on(async {
        let mut world = servers(40).await;
        let announcer = world.id(17);
        announce(&mut world, 17, &name()).await;
        let found = searches(&mut world, &name()).await;
        must_have_found(&world, &found, announcer);

        let mut at = 0;
        world.0.retain(|_| {
            at += 1;
            at % 2 == 0
        });
        let found = searches(&mut world, &name()).await;
        must_have_found(&world, &found, announcer);
    });
}

#[test]
fn a_name_that_nobody_announced_is_answered_by_servers_that_name_none() {
    block_on(async {
        let mut world = servers(12).await;
        for found in searches(&mut world, &name()).await {
            assert!(found.servers.is_empty() && found.reached > Some(2));
        }
    });
}

#[test]
fn where_no_server_is_known_nothing_is_announced_and_nobody_reached() {
    block_on(async {
        let mut world = servers(1).await;
        assert!(world.net(0).provide(&name()));
        let ok = world
            .until(|_, _, event| match event {
                NetEvent::Dht(DhtEvent::Announced { ok, .. }) => Some(ok),
                _ => None,
            })
            .await;
        assert!(!ok);
        assert_eq!(searches(&mut world, &name()).await[0].reached, Some(0));
    });
}

#[test]
fn of_nine_providers_an_answer_names_eight_and_says_that_there_may_be_more() {
    block_on(async {
        let mut world = servers(10).await;
        for at in 1..10 {
            announce(&mut world, at, &name()).await;
        }
        let found = searches(&mut world, &name()).await;
        assert!(found.iter().all(|found| found.more));
        // Each server begins with another.
        assert!(found[0].servers.len() == 9);
    });
}

#[test]
fn a_node_and_a_server_without_an_address_announce_nothing() {
    block_on(async {
        let mut world = World::new(&[Role::Node, Role::Native]).await;
        assert!(!world.net(0).provide(&name()));
        assert!(world.net(0).providers(&name()).is_none());
        world.net(1).announced.clear();
        assert!(!world.net(1).provide(&name()));
    });
}
