//! Providers in the DHT: the peers that announced a name or a service, as each of its servers
//! knows.
//!
//! An announcement is kept by the servers nearest to its key, for half an hour or until their
//! process ends. While there are network faults, it may reach only some of them. A search asks the
//! servers nearest to the key that run, and takes longer if others near it do not.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use oc_discovery::protocol::{
    Addrs, AnnounceEnd, Instant, Key, PeerId, Role,
    lookup::{MAX_HOLDERS, MAX_NAMED, Query},
};

use crate::{
    device::{DeviceNo, State},
    network::Input,
    world::World,
};

/// Servers that keep an announcement, and that a search asks.
const COPIES: usize = 8;
/// How long an announcement is kept, ms.
const KEPT: u64 = 30 * 60_000;
/// How much longer a search takes for each server near the key that does not answer, ms.
const DEAD_PEER: u64 = 700;

/// An announcement as one server keeps it.
#[derive(Debug)]
struct Provided {
    from: u64,
    until: u64,
    addrs: Addrs,
    /// When it was last named.
    named: Cell<u64>,
}

/// What one process of a server keeps, by key and provider.
type Kept = BTreeMap<(Key, DeviceNo), Provided>;

/// All announcements.
#[derive(Debug, Default)]
pub struct Providers(BTreeMap<(DeviceNo, u64), Kept>);

impl World {
    /// A device announces a key. The end of the announcement is reported later.
    pub fn announce(&mut self, no: DeviceNo, key: Key) {
        let faulty = self.network.faulty;
        let until = self.now + KEPT;
        let addrs: Addrs = [self.devices[no].addr()].into_iter().collect();
        let mut reached = 0;
        for server in self.nearest(&key) {
            if !self.answers(server) || (faulty && self.rng.below(3) == 0) {
                continue;
            }
            reached += usize::from(server != no);
            let from = self.now + self.rng.below(if faulty { 5_000 } else { 500 });
            let addrs = addrs.clone();
            let process = (server, self.devices[server].life);
            let kept = self.providers.0.entry(process).or_default();
            let named = Cell::new(0);
            let announcement = Provided {
                from,
                until,
                addrs,
                named,
            };
            kept.insert((key.clone(), no), announcement);
        }
        let end = self.now + self.rng.below(3_000);
        let to = (no, self.devices[no].life);
        let taken_by = match reached {
            0 => AnnounceEnd::Failed,
            _ => AnnounceEnd::Taken,
        };
        self.send(end, to, Input::Announced { key, end: taken_by });
    }

    /// Searches for the providers of a key.
    pub fn search_providers(&mut self, no: DeviceNo, sought: Query, key: &Key) {
        let device = &mut self.devices[no];
        let search = device.number();
        device.searches.insert(search, sought);
        let to = (no, device.life);
        let slowest = if self.network.faulty { 3_000 } else { 150 };
        let (mut end, mut reached) = (0, 0);
        for server in self.nearest(key) {
            if !self.answers(server) || (self.network.faulty && self.rng.below(4) == 0) {
                end += DEAD_PEER;
                continue;
            }
            let late = match server == no {
                true => 0,
                false => 1 + self.rng.below(slowest),
            };
            end = end.max(late);
            reached += u16::from(server != no);
            let providers = self.named(server, no, key);
            self.send(self.now + late, to, Input::Provided { search, providers });
        }
        self.send(self.now + end, to, Input::SearchEnd { search, reached });
    }

    /// Whether the DHT knows all providers of the key: all servers near it answer and name the same
    /// providers, which are all that list it, and these answer at the addresses that they
    /// announced.
    pub fn is_settled(&self, key: &Key) -> bool {
        let Key::Name(name) = key else { return false };
        let nearest = self.nearest(key);
        let lists = |no: &DeviceNo| {
            let device = &self.devices[*no];
            device.is_up()
                && !device
                    .machine()
                    .claimants(Instant::from_millis(self.now), name)
                    .nodes
                    .is_empty()
        };
        let listing = (0..self.devices.len()).filter(lists).collect();
        let is_reachable = |(no, kept): (DeviceNo, &Provided)| {
            self.answers(no) && kept.addrs.contains(&self.devices[no].addr())
        };
        let knows_well = |server: &DeviceNo| {
            let kept: BTreeSet<_> = self.kept(*server, key).map(|(no, _)| no).collect();
            // No more are asked.
            self.answers(*server) && kept.is_superset(&listing) && kept.len() <= MAX_HOLDERS
        };
        nearest.iter().all(knows_well)
            && nearest
                .iter()
                .flat_map(|server| self.kept(*server, key))
                .all(is_reachable)
    }

    /// What a server keeps of the key.
    fn kept(&self, server: DeviceNo, key: &Key) -> impl Iterator<Item = (DeviceNo, &Provided)> {
        let process = (server, self.devices[server].life);
        let all = self.providers.0.get(&process).into_iter().flatten();
        let of_key = all.filter(move |((of, _), kept)| {
            of == key && (kept.from..=kept.until).contains(&self.now)
        });
        of_key.map(|((_, provider), kept)| (*provider, kept))
    }

    /// The providers that a server names to a device: first those that it named the longest ago.
    fn named(&self, server: DeviceNo, to: DeviceNo, key: &Key) -> Vec<(PeerId, Addrs)> {
        let kept = self.kept(server, key);
        let mut kept: Vec<_> = kept.filter(|(provider, _)| *provider != to).collect();
        kept.sort_by_key(|(_, kept)| kept.named.get());
        let last = kept.last().map_or(0, |(_, kept)| kept.named.get());
        let name = |(provider, kept): (DeviceNo, &Provided)| {
            kept.named.set(last + 1);
            (self.devices[provider].peer, kept.addrs.clone())
        };
        kept.into_iter().take(MAX_NAMED).map(name).collect()
    }

    /// The servers nearest to the key, whether they answer or not: as many as are needed for
    /// enough that do.
    fn nearest(&self, key: &Key) -> BTreeSet<DeviceNo> {
        let distance = |no: &DeviceNo| {
            let mut hasher = DefaultHasher::new();
            (key.to_string(), self.devices[*no].peer.as_bytes()).hash(&mut hasher);
            hasher.finish()
        };
        let is_server = |no: &DeviceNo| {
            let device = &self.devices[*no];
            device.role != Role::Node && device.life > 0
        };
        let mut servers: Vec<_> = (0..self.devices.len()).filter(is_server).collect();
        servers.sort_by_key(distance);
        let mut alive = 0;
        let is_near = |no: &DeviceNo| {
            let is_near = alive < COPIES;
            alive += usize::from(self.answers(*no));
            is_near
        };
        servers.into_iter().take_while(is_near).collect()
    }

    /// How many servers of the DHT there are that answer, besides this device.
    pub fn servers_that_answer(&self, no: DeviceNo) -> u16 {
        let is_one = |other: &DeviceNo| {
            *other != no && self.devices[*other].role != Role::Node && self.answers(*other)
        };
        (0..self.devices.len()).filter(is_one).count() as u16
    }

    fn answers(&self, no: DeviceNo) -> bool {
        self.devices[no].state == State::Running
    }
}
