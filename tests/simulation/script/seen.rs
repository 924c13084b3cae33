//! What a story can observe.

use std::{collections::BTreeSet, time::Duration};

use oc_discovery::protocol::{Instant, Presence, Role, StreamRecord};

use super::Stage;
use crate::{device::Device, world::REAL};

/// What can be observed.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// The node holds a lease.
    Leased(&'a str),
    /// The first holds a lease with the second, and both know it.
    Under(&'a str, &'a str),
    /// The native has taken the node in.
    TakenIn(&'a str, &'a str),
    /// The native has taken no node in.
    NobodyTakenIn(&'a str),
    /// The native has the indexer in `live_indexers`; any other server lists the node.
    Lists(&'a str, &'a str),
    /// The reverse of `Lists`.
    Omits(&'a str, &'a str),
    /// The server has granted the peer a lease, and keeps it.
    Grants(&'a str, &'a str),
    /// The reverse of `Grants`.
    LetGo(&'a str, &'a str),
    /// The server has had a beat of the peer within the last second.
    Hears(&'a str, &'a str),
    /// The last lookup found these and no others. Each server that it asked has answered.
    Found(&'a [&'a str]),
    /// The same, and a server has not answered.
    FoundInPart(&'a [&'a str]),
    /// One of these two.
    Told(&'a [&'a str]),
    /// The last lookup is over. The first that it found is this one, and it has counted this many
    /// claimants, which are all.
    FirstOf(&'a str, u32),
    /// The server reports that two devices use this identity.
    Contested(&'a str, &'a str),
    /// The listing of the first is over and complete. These are the nodes that are there; no other
    /// is.
    Rows(&'a str, &'a [&'a str]),
    /// The listing of the first has ended without these servers, and only without them.
    RowsWithout(&'a str, &'a [&'a str]),
    /// The listing of the first says that the node has left or was lost.
    RowOfVanished(&'a str, &'a str),
    /// The watch of the first says that the node is there.
    Tells(&'a str, &'a str),
    /// The reverse of `Tells`.
    TellsNot(&'a str, &'a str),
    /// The watch of the first says that the node has left.
    TellsLeft(&'a str, &'a str),
    /// The watch of the first reports no server as silent, and has reported that since this
    /// changed.
    HasCaughtUp(&'a str),
    /// Its process runs, although it may have been told to end.
    Runs(&'a str),
    /// It has no process.
    Ended(&'a str),
    /// Own time is right.
    RightTime(&'a str),
    /// The node has made at most this many requests and attempts within a minute.
    Tries(&'a str, usize),
}

impl Stage {
    /// Whether this is so now.
    pub(super) fn is_so(&self, seen: Seen<'_>) -> bool {
        let world = &self.world;
        let now = world.now;
        let every = |name: &str, is_so: &dyn Fn(&Device) -> bool| {
            let mut all = self.all(name).into_iter();
            all.all(|no| is_so(&world.devices[no]))
        };
        let any = |name: &str, is_so: &dyn Fn(&Device) -> bool| {
            let mut all = self.all(name).into_iter();
            all.any(|no| is_so(&world.devices[no]))
        };
        let found = |names: &[&str]| {
            let mut found = world.desk.found().to_vec();
            let mut wanted: Vec<_> = names
                .iter()
                .map(|name| world.devices[self.number(name)].peer)
                .collect();
            found.sort();
            wanted.sort();
            found == wanted
        };
        let peers = |names: &[&str]| {
            let all = names.iter().flat_map(|name| self.all(name));
            all.map(|no| world.devices[no].peer)
                .collect::<BTreeSet<_>>()
        };
        match seen {
            Seen::Leased(node) => every(node, &|node| node.holds_with(now, |_| true)),
            Seen::Under(client, server) => every(client, &|client| {
                any(server, &|server| {
                    client.holds_with(now, |peer| *peer == server.peer)
                        && server.view(now).has_record(&client.peer)
                })
            }),
            Seen::TakenIn(native, node) => every(node, &|node| {
                any(native, &|native| {
                    native.view(now).responsible.contains(&node.peer)
                })
            }),
            Seen::NobodyTakenIn(native) => {
                every(native, &|native| native.view(now).responsible.is_empty())
            }
            Seen::Lists(server, peer) => every(peer, &|peer| {
                every(server, &|server| lists(server, peer, now))
            }),
            Seen::Omits(server, peer) => every(peer, &|peer| {
                every(server, &|server| !lists(server, peer, now))
            }),
            Seen::Grants(server, peer) => every(peer, &|peer| {
                every(server, &|server| server.view(now).has_record(&peer.peer))
            }),
            Seen::LetGo(server, peer) => every(peer, &|peer| {
                every(server, &|server| !server.view(now).has_record(&peer.peer))
            }),
            Seen::Hears(server, peer) => every(peer, &|peer| {
                every(server, &|server| {
                    let just = |record: &StreamRecord| {
                        record.peer == peer.peer
                            && server.instant(now) - record.last_seen <= Duration::from_secs(1)
                    };
                    server.view(now).records.iter().any(just)
                })
            }),
            Seen::Found(names) => world.desk.is_complete() && found(names),
            Seen::Told(names) => world.desk.is_over() && found(names),
            Seen::FirstOf(name, nodes) => {
                every(name, &|device| world.desk.is_first(device.peer, nodes))
            }
            Seen::FoundInPart(names) => world.desk.is_cut() && found(names),
            Seen::Contested(server, peer) => every(peer, &|peer| {
                any(server, &|server| {
                    server.view(now).contested.contains(&peer.peer)
                })
            }),
            Seen::Rows(lister, nodes) => every(lister, &|Device { listed, .. }| {
                listed.is_complete() && listed.nodes(Presence::Alive) == peers(nodes)
            }),
            Seen::RowsWithout(lister, servers) => every(lister, &|lister| {
                lister.listed.silent() == Some(&peers(servers))
            }),
            Seen::RowOfVanished(lister, node) => every(node, &|node| {
                every(lister, &|Device { listed, .. }| {
                    let vanished = [Presence::Left, Presence::Lost];
                    vanished
                        .iter()
                        .any(|how| listed.nodes(*how).contains(&node.peer))
                })
            }),
            Seen::Tells(watcher, node) => every(node, &|node| {
                every(watcher, &|watcher| watcher.watching.tells(&node.peer))
            }),
            Seen::TellsNot(watcher, node) => every(node, &|node| {
                every(watcher, &|watcher| !watcher.watching.tells(&node.peer))
            }),
            Seen::TellsLeft(watcher, node) => every(node, &|node| {
                every(watcher, &|watcher| watcher.watching.tells_left(&node.peer))
            }),
            Seen::HasCaughtUp(watcher) => every(watcher, &|device| device.watching.has_caught_up()),
            Seen::Runs(name) => every(name, &Device::is_up),
            Seen::Ended(name) => every(name, &|device| !device.is_up()),
            Seen::RightTime(name) => every(name, &|device| {
                let right = now.saturating_add_signed(REAL);
                device.own_ms(now).abs_diff(right) <= 2_000
            }),
            Seen::Tries(name, most) => self
                .all(name)
                .iter()
                .all(|no| world.ledger.tries.get(no).map_or(0, |tries| tries.len()) <= most),
        }
    }
}

fn lists(server: &Device, peer: &Device, now: u64) -> bool {
    match (server.role, peer.role) {
        (Role::Native, Role::Indexer) => server.view(now).is_live(&peer.peer),
        _ => server
            .machine()
            .listed(Instant::from_millis(now), &peer.peer)
            .is_some(),
    }
}
