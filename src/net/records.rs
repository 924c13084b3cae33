//! What the core has done in the DHT: searches, announcements and records.
//!
//! Invariant: a role that takes no part in the DHT does nothing here.

use std::time::{Duration, Instant};

use libp2p::{
    Multiaddr,
    kad::{self, InboundRequest},
};

use super::{
    Net,
    dht::{self, SearchId},
};
use crate::protocol::{
    Key, PeerId, RecordInfo, TransportAddr, address::Prefix, codec::record::Kind,
};

impl Net {
    /// Searches the DHT. `None`: this role takes no part in it.
    pub(crate) fn search(&mut self, kind: Kind, peer: PeerId) -> Option<SearchId> {
        let kademlia = self.swarm.behaviour_mut().kademlia()?;
        Some(self.dht.search(kademlia, kind, peer))
    }

    /// Searches the DHT for the peers that announced the key. `None`: this role takes no part in
    /// it.
    pub(crate) fn providers(&mut self, key: &Key) -> Option<SearchId> {
        let kademlia = self.swarm.behaviour_mut().kademlia()?;
        Some(self.dht.providers(kademlia, key))
    }

    /// Announces in the DHT that this peer knows which node has the key. Returns whether that
    /// began: it cannot begin before this peer has an address to announce. Then it ends in
    /// [`dht::DhtEvent::Announced`].
    pub(crate) fn provide(&mut self, key: &Key) -> bool {
        if self.announced.is_empty() {
            return false;
        }
        let kademlia = self.swarm.behaviour_mut().kademlia();
        kademlia.is_some_and(|kademlia| self.dht.provide(kademlia, key))
    }

    /// The kind of record that is searched for; `None` if it is none.
    pub(crate) fn kind_of(&self, search: SearchId) -> Option<Kind> {
        self.dht.kind_of(search)
    }

    /// Ends a search.
    pub(crate) fn end_search(&mut self, search: SearchId) {
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia() {
            self.dht.end_search(kademlia, search);
        }
    }

    /// PUTs a verified record that its subject, a lease holder, sent to this peer.
    pub(crate) fn publish(
        &mut self,
        kind: Kind,
        info: &RecordInfo,
        envelope: Vec<u8>,
        own_ms: u64,
    ) {
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia() {
            self.dht.publish(kademlia, kind, info, envelope, own_ms);
        }
    }

    /// The network of the peer that asks to store something, if it is known.
    pub(super) fn network_of(&self, event: &kad::Event) -> Option<Prefix> {
        let kad::Event::InboundRequest { request } = event else {
            return None;
        };
        let source = match request {
            InboundRequest::PutRecord { connection, .. } => self.sources.get(connection).copied(),
            InboundRequest::AddProvider {
                record: Some(record),
            } => self.source(&PeerId::try_from(record.provider).ok()?),
            _ => None,
        };
        source.map(TransportAddr::prefix)
    }

    /// Stores a verified record that another peer offered, if it is valid and better than the
    /// stored one.
    pub(crate) fn keep(
        &mut self,
        kind: Kind,
        info: &RecordInfo,
        (envelope, from): (Vec<u8>, Option<Prefix>),
        own_ms: u64,
    ) {
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia() {
            dht::keep(kademlia, kind, info, envelope, from, own_ms);
        }
    }

    /// The peer's lease is over: its records may be evicted from now on.
    pub(crate) fn unprotect(&mut self, peer: &PeerId) {
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia() {
            for kind in [Kind::Indexer, Kind::Node] {
                kademlia.store_mut().unprotect(&dht::key(kind, peer));
            }
        }
    }

    /// The peer has left: its records are removed.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.unprotect(peer);
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia() {
            for kind in [Kind::Indexer, Kind::Node] {
                dht::forget(kademlia, kind, peer);
            }
        }
    }

    /// An address at which the peer says that others dial it, with its id; `None`: it takes no part
    /// in the DHT.
    pub(crate) fn dialled_at(&mut self, peer: &PeerId) -> Option<Multiaddr> {
        let kademlia = self.swarm.behaviour_mut().kademlia()?;
        dht::routing::addresses(kademlia, &(*peer).into())
            .into_iter()
            .next()
    }

    /// Removes what has expired in the DHT store.
    pub(crate) fn expire_records(&mut self) {
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia() {
            kademlia.store_mut().expire(Instant::now());
        }
    }

    /// The time before which nothing expires in it.
    pub(crate) fn record_expires_in(&mut self) -> Option<Duration> {
        let store = self.swarm.behaviour_mut().kademlia()?.store_mut();
        Some(store.soonest()?.saturating_duration_since(Instant::now()))
    }
}
