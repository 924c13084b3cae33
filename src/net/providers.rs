//! The providers that this peer stores for the DHT: which peers announced that they know the nodes
//! with a name or a service.
//!
//! Invariants: at most `capacity` entries, and at most [`MAX_PER_KEY`] of one key; each is one that
//! a peer announced about itself, and is over [`LIFETIME`] after it was last announced. When the
//! store is full, the entry with the key farthest from the own id is evicted, because others keep
//! it, too (of those of the newcomer's network if that has its [`SHARE`]); own entries never are.
//! Neither a key nor an address takes more memory than it needs: 40 bytes an entry, and each peer's
//! addresses once.

use std::{
    cell::Cell,
    ops::Range,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr,
    kad::{
        KBucketDistance, KBucketKey, ProviderRecord, RecordKey,
        store::{Error, Result},
    },
};
use slab::Slab;

use super::store::SHARE;
use crate::protocol::{MAX_ADDR_LEN, PeerId, TableStats, address::Prefix, lookup::MAX_NAMED};

/// Providers of one key at most (PROTOCOL.md).
pub(crate) const MAX_PER_KEY: usize = 20;
/// How long an announcement counts (PROTOCOL.md).
pub(crate) const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// Addresses of a provider at most: an answer with 20 of them has to fit into one message.
const MAX_ADDRS: usize = 2;

/// A store of providers of fixed capacity.
pub(super) struct Providers {
    own: KBucketKey<libp2p::PeerId>,
    /// Where others reach this peer.
    own_addrs: Vec<Multiaddr>,
    capacity: usize,
    /// Times are counted from here.
    began: Instant,
    /// Sorted by key, the nearest to our own id first.
    entries: Vec<Entry>,
    peers: Slab<Peer>,
    /// No entry is over before this time.
    soonest: Option<u32>,
    refused: u64,
    evicted: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    /// How far the key is from our own id, which tells the key.
    distance: KBucketDistance,
    /// Seconds since the store began.
    over: u32,
    /// Its place in `peers`.
    peer: u16,
    /// In how many answers about its key some provider was named, when it last was itself.
    named: Cell<u16>,
}

struct Peer {
    id: PeerId,
    /// Each after its length.
    addrs: Box<[u8]>,
    /// The network from which it last announced something.
    from: Option<Prefix>,
    entries: u16,
}

impl Entry {
    /// Until it is over, since the store began.
    fn life(&self) -> Duration {
        Duration::from_secs(self.over.into())
    }
}

impl Providers {
    /// An empty store of at most `capacity` entries, 65,535 at most.
    pub(super) fn new(own: libp2p::PeerId, capacity: usize, now: Instant) -> Self {
        Self {
            own: own.into(),
            own_addrs: Vec::new(),
            capacity: capacity.min(usize::from(u16::MAX)),
            began: now,
            entries: Vec::new(),
            peers: Slab::new(),
            soonest: None,
            refused: 0,
            evicted: 0,
        }
    }

    /// The addresses to be named with our own announcements.
    pub(super) fn set_own_addrs(&mut self, addrs: &[Multiaddr]) {
        self.own_addrs = addrs.iter().take(MAX_ADDRS).cloned().collect();
    }

    /// Stores what a peer in the network `from` announced about itself, or what we announce.
    ///
    /// # Errors
    /// There is no room, or the peer's id is none of this system.
    pub(super) fn add(
        &mut self,
        record: &ProviderRecord,
        from: Option<Prefix>,
        now: Instant,
    ) -> Result<()> {
        let added = self.try_add(record, from, now);
        self.refused += u64::from(added.is_none());
        added.ok_or(Error::MaxProvidedKeys)
    }

    fn try_add(
        &mut self,
        record: &ProviderRecord,
        from: Option<Prefix>,
        now: Instant,
    ) -> Option<()> {
        let peer = PeerId::try_from(record.provider).ok()?;
        let is_own = self.is_own(&peer);
        let distance = self.distance(&record.key);
        let key = self.of_key(distance);
        let over = self.seconds(now + LIFETIME);
        let known = key.clone().find(|at| self.owner(*at) == Some(&peer));
        let at = match known {
            Some(at) => at,
            None => self.make_room(key, is_own, from)?,
        };
        let addrs = if is_own { &[] } else { &*record.addresses };
        let owner = self.note(peer, packed(addrs, &peer), from);
        match self.entries.get_mut(at).filter(|_| known.is_some()) {
            Some(entry) => entry.over = over,
            None => {
                self.peers.get_mut(owner)?.entries += 1;
                let entry = Entry {
                    distance,
                    over,
                    // There are no more peers than entries.
                    peer: u16::try_from(owner).ok()?,
                    named: Cell::new(0),
                };
                self.entries.insert(at, entry);
            }
        }
        self.soonest = Some(self.soonest.map_or(over, |soonest| soonest.min(over)));
        Some(())
    }

    /// The providers of a key, each with its addresses; first those that were named the longest
    /// ago. An answer has room for [`MAX_NAMED`], which are named now.
    pub(super) fn of(&self, key: &RecordKey, now: Instant) -> Vec<ProviderRecord> {
        let entries = self.of_key(self.distance(key));
        let entries = self.entries.get(entries).unwrap_or_default();
        let valid = entries
            .iter()
            .filter(|entry| now < self.began + entry.life());
        let mut found: Vec<_> = valid.filter_map(|entry| self.named(key, entry)).collect();
        // Kademlia does not name a provider without an address.
        found.sort_by_key(|(entry, record)| (record.addresses.is_empty(), entry.named.get()));
        let last = entries.iter().map(|entry| entry.named.get()).max();
        let mark = last.unwrap_or(0).checked_add(1).unwrap_or_else(|| {
            entries.iter().for_each(|entry| entry.named.set(0));
            1
        });
        let addressed = found
            .iter()
            .filter(|(_, record)| !record.addresses.is_empty());
        addressed
            .take(MAX_NAMED)
            .for_each(|(entry, _)| entry.named.set(mark));
        found.into_iter().map(|(_, record)| record).collect()
    }

    fn named<'e>(&self, key: &RecordKey, entry: &'e Entry) -> Option<(&'e Entry, ProviderRecord)> {
        let peer = self.peers.get(entry.peer.into())?;
        let provider = peer.id.into();
        let addresses = match provider == *self.own.preimage() {
            true => self.own_addrs.clone(),
            false => unpacked(&peer.addrs),
        };
        Some((entry, ProviderRecord::new(key.clone(), provider, addresses)))
    }

    /// The addresses that the peer announced here.
    pub(super) fn addrs(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let mut peers = self.peers.iter();
        let found = peers.find(|(_, known)| known.id == *peer);
        found.map_or_else(Vec::new, |(_, known)| unpacked(&known.addrs))
    }

    /// Whether this is our own id.
    pub(super) fn is_own(&self, peer: &PeerId) -> bool {
        *self.own.preimage() == (*peer).into()
    }

    /// Removes what the peer announced.
    #[cfg(feature = "program")]
    pub(super) fn forget(&mut self, peer: &PeerId) {
        let Self { entries, peers, .. } = self;
        let at = peers.iter().find(|(_, known)| known.id == *peer);
        if let Some(at) = at.and_then(|(at, _)| u16::try_from(at).ok()) {
            entries.retain(|entry| {
                let is_of_it = entry.peer == at;
                if is_of_it {
                    release(peers, at);
                }
                !is_of_it
            });
        }
    }

    /// Removes what is over at `now`, and returns how many entries that were.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let before = self.entries.len();
        if self.soonest().is_some_and(|soonest| soonest <= now) {
            let began = self.began;
            let Self { entries, peers, .. } = self;
            entries.retain(|entry| {
                let lives = now < began + entry.life();
                if !lives {
                    release(peers, entry.peer);
                }
                lives
            });
            self.soonest = entries.iter().map(|entry| entry.over).min();
        }
        before - self.entries.len()
    }

    /// The time before which nothing is over.
    pub(super) fn soonest(&self) -> Option<Instant> {
        self.soonest
            .map(|soonest| self.began + Duration::from_secs(soonest.into()))
    }

    /// Gives back memory that is no longer needed.
    pub(super) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
        self.peers.shrink_to_fit();
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self) -> TableStats {
        TableStats {
            name: "dht_providers",
            used: self.entries.len(),
            capacity: self.capacity,
            refused: self.refused,
            evicted: self.evicted,
        }
    }

    fn distance(&self, key: &RecordKey) -> KBucketDistance {
        self.own.distance(&KBucketKey::new(key.clone()))
    }

    /// Seconds from the beginning of the store to this time, rounded up.
    fn seconds(&self, time: Instant) -> u32 {
        let passed = time.saturating_duration_since(self.began);
        let seconds = passed.as_secs() + u64::from(passed.subsec_nanos() > 0);
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }

    fn of_key(&self, distance: KBucketDistance) -> Range<usize> {
        let start = self
            .entries
            .partition_point(|entry| entry.distance < distance);
        let rest = self.entries.get(start..).unwrap_or_default();
        start..start + rest.partition_point(|entry| entry.distance == distance)
    }

    fn owner(&self, at: usize) -> Option<&PeerId> {
        let peer = self.entries.get(at)?.peer;
        self.peers.get(peer.into()).map(|peer| &peer.id)
    }

    /// Where a new entry of the key may be inserted, after another has given way for it.
    fn make_room(
        &mut self,
        key: Range<usize>,
        is_own: bool,
        from: Option<Prefix>,
    ) -> Option<usize> {
        let gives_way = |at: &usize| self.owner(*at).is_some_and(|owner| !self.is_own(owner));
        let loser = if key.len() >= MAX_PER_KEY {
            // The first come keep their places. Otherwise a peer with many ids could take them all.
            key.clone().rfind(|at| is_own && gives_way(at))
        } else if self.entries.len() < self.capacity {
            return Some(key.end);
        } else {
            let has_share = self.of_network(from) >= (self.capacity / SHARE).max(1);
            let is_its = |at: &usize| !has_share || self.network(*at) == from;
            let farthest = (0..self.entries.len()).rfind(|at| gives_way(at) && is_its(at));
            farthest.filter(|at| is_own || *at >= key.end)
        };
        let loser = loser?;
        let entry = self.entries.remove(loser);
        release(&mut self.peers, entry.peer);
        self.evicted += 1;
        Some(key.end - usize::from(loser < key.end))
    }

    /// The network from which an entry was announced, if it is known.
    fn network(&self, at: usize) -> Option<Prefix> {
        let peer = self.entries.get(at)?.peer;
        self.peers.get(peer.into())?.from
    }

    /// How many entries were announced from a network; none from one that is not known.
    fn of_network(&self, from: Option<Prefix>) -> usize {
        let peers = self.peers.iter().map(|(_, peer)| peer);
        let its = peers.filter(|peer| from.is_some() && peer.from == from);
        its.map(|peer| usize::from(peer.entries)).sum()
    }

    /// The place of the peer, which has these addresses now.
    fn note(&mut self, id: PeerId, addrs: Box<[u8]>, from: Option<Prefix>) -> usize {
        match self.peers.iter_mut().find(|(_, peer)| peer.id == id) {
            Some((at, peer)) => {
                peer.addrs = addrs;
                peer.from = from;
                at
            }
            None => self.peers.insert(Peer {
                id,
                addrs,
                from,
                entries: 0,
            }),
        }
    }
}

/// One entry of the peer is gone.
fn release(peers: &mut Slab<Peer>, at: u16) {
    let at = usize::from(at);
    if let Some(peer) = peers.get_mut(at) {
        peer.entries -= 1;
        if peer.entries == 0 {
            peers.remove(at);
        }
    }
}

/// The first addresses that can be kept, each after its length.
fn packed(addrs: &[Multiaddr], peer: &PeerId) -> Box<[u8]> {
    let plain = addrs.iter().cloned().map(|addr| without_peer(addr, peer));
    let bytes = plain.filter_map(|addr| {
        let length = u8::try_from(addr.len()).ok()?;
        let fits = (1..=MAX_ADDR_LEN).contains(&addr.len());
        fits.then(|| [&[length], addr.as_ref()].concat())
    });
    bytes.take(MAX_ADDRS).flatten().collect()
}

fn unpacked(mut bytes: &[u8]) -> Vec<Multiaddr> {
    let next = || {
        let (length, rest) = bytes.split_first()?;
        let (addr, rest) = rest.split_at_checked((*length).into())?;
        bytes = rest;
        Multiaddr::try_from(addr.to_vec()).ok()
    };
    std::iter::from_fn(next).collect()
}

/// The address without the id of the peer at its end.
pub(super) fn without_peer(mut addr: Multiaddr, peer: &PeerId) -> Multiaddr {
    let end = libp2p::multiaddr::Protocol::P2p((*peer).into());
    if addr.iter().last() == Some(end) {
        addr.pop();
    }
    addr
}

#[cfg(test)]
mod tests;
