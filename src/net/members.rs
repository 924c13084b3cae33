//! The closed network on the side of libp2p: what this process shows of its own membership, and which
//! peers take part in the DHT.
//!
//! Invariants: in a closed network only members are in the routing table, and only what they PUT or
//! announce is stored; at most [`MAX_UNPROVEN`] others are remembered, and each is looked up once
//! in [`VERDICT`]; beside them, once, those that were in the routing table when the network was
//! closed.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use super::{Net, NetEvent};
use crate::protocol::{self, codec::grant::Membership};

/// Servers of the DHT that have shown no grant, which are remembered.
const MAX_UNPROVEN: usize = 64;
/// How long it counts that a peer's record proved nothing (PROTOCOL.md).
const VERDICT: Duration = Duration::from_secs(10 * 60);

/// What a server shows in an ack of its membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    grant: Option<Vec<u8>>,
    revocations: Option<u64>,
}

impl Shown {
    /// The same, of its own.
    pub(super) fn of(membership: Membership<'_>) -> Self {
        Self {
            grant: membership.grant.map(<[u8]>::to_vec),
            revocations: membership.revocations,
        }
    }

    /// The same, borrowed.
    pub(crate) fn membership(&self) -> Membership<'_> {
        Membership {
            grant: self.grant.as_deref(),
            revocations: self.revocations,
        }
    }
}

/// A server of the DHT that has shown no grant.
struct Unproven {
    connection: ConnectionId,
    addrs: Vec<Multiaddr>,
    /// When its record was looked up.
    asked: Option<Instant>,
}

/// The members that are known here.
#[derive(Default)]
pub(super) struct Members {
    own: Shown,
    /// Others take no part in the DHT.
    is_closed: bool,
    known: HashSet<PeerId>,
    /// Servers that the closing of the network took out of the routing table, with the addresses at
    /// which they were found there: most are members that have not shown their grant yet.
    set_aside: HashMap<PeerId, Vec<Multiaddr>>,
    unproven: HashMap<PeerId, Unproven>,
    /// Peers whose records are to be looked up.
    to_prove: Vec<PeerId>,
}

impl Members {
    /// What this process shows.
    pub(super) fn own(&self) -> Membership<'_> {
        self.own.membership()
    }

    /// Whether what the peer PUTs or announces is stored.
    pub(super) fn may_store(&self, peer: &PeerId) -> bool {
        !self.is_closed || self.known.contains(peer)
    }

    /// The addresses of a server of the DHT that may be in the routing table. Those of a peer that
    /// is not known as a member wait for its proof.
    pub(super) fn routed(
        &mut self,
        peer: &PeerId,
        connection: ConnectionId,
        addrs: Vec<Multiaddr>,
    ) -> Vec<Multiaddr> {
        if self.may_store(peer) {
            return addrs;
        }
        if self.unproven.len() >= MAX_UNPROVEN && !self.unproven.contains_key(peer) {
            let is_old = |other: &Unproven| other.asked.is_some_and(|at| at.elapsed() > VERDICT);
            self.unproven.retain(|_, other| !is_old(other));
            if self.unproven.len() >= MAX_UNPROVEN {
                return Vec::new();
            }
        }
        let waits = self.unproven.entry(*peer).or_insert(Unproven {
            connection,
            addrs: Vec::new(),
            asked: None,
        });
        (waits.connection, waits.addrs) = (connection, addrs);
        if waits.asked.is_none_or(|at| at.elapsed() > VERDICT) {
            waits.asked = Some(Instant::now());
            self.to_prove.push(*peer);
        }
        Vec::new()
    }

    /// A peer whose record is to be looked up, because it may have a grant.
    pub(super) fn next_to_prove(&mut self) -> Option<NetEvent> {
        let peer = protocol::PeerId::try_from(self.to_prove.pop()?).ok()?;
        Some(NetEvent::Unproven { peer })
    }
}

impl Net {
    /// Shows this of the own membership from now on.
    #[cfg(feature = "program")]
    pub(crate) fn show(&mut self, membership: Membership<'_>) {
        self.members.own = Shown::of(membership);
    }

    /// From now on only members take part in the DHT.
    #[cfg(feature = "program")]
    pub(crate) fn close_dht(&mut self) {
        self.members.is_closed = true;
        let Self { swarm, members, .. } = self;
        let Some(kademlia) = swarm.behaviour_mut().kademlia() else {
            return;
        };
        for bucket in kademlia.kbuckets() {
            for entry in bucket.iter() {
                let peer = *entry.node.key.preimage();
                if !members.known.contains(&peer) {
                    let addrs = entry.node.value.iter().cloned().collect();
                    members.set_aside.insert(peer, addrs);
                }
            }
        }
        for peer in members.set_aside.keys() {
            kademlia.remove_peer(peer);
        }
    }

    /// The peer is a member: it may take part in the DHT.
    pub(crate) fn admit(&mut self, peer: protocol::PeerId) {
        let peer = PeerId::from(peer);
        self.members.known.insert(peer);
        if let Some(waits) = self.members.unproven.remove(&peer) {
            self.claimed(peer, waits.connection, waits.addrs.into_iter());
        }
        let found_at = self.members.set_aside.remove(&peer);
        if let (Some(addrs), Some(kademlia)) = (found_at, self.swarm.behaviour_mut().kademlia()) {
            for addr in addrs {
                kademlia.add_address(&peer, addr);
            }
        }
    }

    /// The peer is no member any more: its connections end, and nothing of it is left in the DHT.
    #[cfg(feature = "program")]
    pub(crate) fn expel(&mut self, expelled: protocol::PeerId) {
        self.forget(&expelled);
        let peer = PeerId::from(expelled);
        self.members.known.remove(&peer);
        self.members.set_aside.remove(&peer);
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia() {
            kademlia.remove_peer(&peer);
            kademlia.store_mut().providers.forget(&expelled);
        }
        // It may not be connected.
        let _ = self.swarm.disconnect_peer_id(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> ConnectionId {
        ConnectionId::new_unchecked(1)
    }

    fn addrs() -> Vec<Multiaddr> {
        vec!["/ip4/192.0.2.1/tcp/1".parse().unwrap()]
    }

    #[test]
    fn in_an_open_network_every_peer_takes_part_in_the_dht() {
        let mut members = Members::default();
        let peer = PeerId::random();
        assert!(members.may_store(&peer));
        assert_eq!(members.routed(&peer, connection(), addrs()), addrs());
        assert!(members.next_to_prove().is_none());
    }

    #[test]
    fn a_stranger_is_in_no_routing_table_and_its_record_is_looked_up_once() {
        let mut members = Members {
            is_closed: true,
            ..Members::default()
        };
        let key = libp2p::identity::Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        assert!(!members.may_store(&peer));
        for _ in 0..2 {
            assert_eq!(members.routed(&peer, connection(), addrs()), []);
        }
        let event = members.next_to_prove();
        assert!(
            matches!(event, Some(NetEvent::Unproven { .. })),
            "{event:?}"
        );
        assert!(members.next_to_prove().is_none());
        members.known.insert(peer);
        assert_eq!(members.routed(&peer, connection(), addrs()), addrs());
    }

    #[test]
    fn strangers_beyond_the_bound_are_not_remembered() {
        let mut members = Members {
            is_closed: true,
            ..Members::default()
        };
        for _ in 0..=MAX_UNPROVEN {
            members.routed(&PeerId::random(), connection(), addrs());
        }
        assert_eq!(members.unproven.len(), MAX_UNPROVEN);
    }
}
