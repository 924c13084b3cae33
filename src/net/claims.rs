//! Which peers get into the routing table of the DHT, and which are taken out.
//!
//! Invariant: the routing table has only addresses at which the peer was found: this process
//! dialled it there, it connects from there, or a dial showed it ([`Claims`](dht::claims::Claims)).
//! A peer that cannot be dialled is taken out.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId,
    swarm::{ConnectionId, DialError},
};

use super::{
    Net,
    dht::{
        self, MAX_PEER_ADDRS,
        claims::{Claim, Standing, names_itself},
    },
    executor::within,
    providers::without_peer,
};
use crate::protocol::{self, TransportAddr, dial_back::DIAL_LIMIT};

/// The dial of a claim. Ends in whether the peer is there.
pub(super) type Check = Pin<Box<dyn Future<Output = (Claim, bool)>>>;

impl Net {
    /// A server of the DHT says on this connection that it is at these addresses.
    pub(super) fn claimed(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        claimed: impl Iterator<Item = Multiaddr>,
    ) {
        let Ok(id) = protocol::PeerId::try_from(peer) else {
            return;
        };
        let claimed: Vec<_> = claimed
            .take(MAX_PEER_ADDRS)
            .map(|addr| without_peer(addr, &id))
            .collect();
        let known = self.routed(&peer, &id);
        let source = self.sources.get(&connection).copied();
        let is_shown = |addr: &Multiaddr| {
            known.contains(addr) || source == Some(TransportAddr::of(addr.as_ref()))
        };
        let (shown, others): (Vec<_>, Vec<_>) = claimed.into_iter().partition(is_shown);
        self.route(&peer, shown);
        if others.is_empty() || !self.has_place(&peer) {
            return;
        }
        let standing = match self.swarm.behaviour().limits.has_slot(&id) {
            true => Standing::Known,
            false => Standing::Stranger,
        };
        let now = Instant::now();
        for addr in others {
            let claim = Claim {
                peer,
                names_itself: names_itself(&addr, source.map(|source| source.host)),
                addr,
                standing,
            };
            self.dht.claims.add(now, claim);
        }
    }

    /// Dials claims, and takes in what the dials have shown.
    pub(super) fn check_claims(&mut self, cx: &mut Context<'_>) {
        if self.dht.claims.is_idle() {
            return;
        }
        loop {
            let mut at = 0;
            while let Some(check) = self.checks.get_mut(at) {
                match check.as_mut().poll(cx) {
                    Poll::Ready((claim, is_there)) => {
                        drop(self.checks.swap_remove(at));
                        self.checked(&claim, is_there);
                    }
                    Poll::Pending => at += 1,
                }
            }
            let Some(claim) = self.dht.claims.next(Instant::now()) else {
                return;
            };
            let dial = self.back.begin(claim.peer, &claim.addr);
            self.checks.push(Box::pin(async move {
                let is_there = match dial {
                    Ok(dial) => matches!(within(DIAL_LIMIT, dial).await, Some(Ok(_))),
                    Err(_) => false,
                };
                (claim, is_there)
            }));
        }
    }

    fn checked(&mut self, claim: &Claim, is_there: bool) {
        self.dht.claims.ended(Instant::now(), claim, is_there);
        let Ok(id) = protocol::PeerId::try_from(claim.peer) else {
            return;
        };
        if is_there {
            let mut shown = self.routed(&claim.peer, &id);
            shown.push(claim.addr.clone());
            self.route(&claim.peer, shown);
        } else {
            log::debug!("{} is not at {}", claim.peer, claim.addr);
        }
    }

    /// A dial has failed: searches are not to wait for this peer again.
    pub(super) fn not_dialled(&mut self, peer: &PeerId, why: &DialError) {
        let is_gone = matches!(
            why,
            DialError::Transport(_) | DialError::WrongPeerId { .. } | DialError::NoAddresses
        );
        if is_gone
            && !self.swarm.is_connected(peer)
            && let Some(kademlia) = self.swarm.behaviour_mut().kademlia()
        {
            kademlia.remove_peer(peer);
        }
    }

    fn route(&mut self, peer: &PeerId, shown: Vec<Multiaddr>) {
        if !self.members.may_store(peer) {
            return;
        }
        let own = *self.swarm.local_peer_id();
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia() {
            dht::route(kademlia, own, peer, shown.into_iter());
        }
    }

    /// Where the routing table has the peer.
    fn routed(&mut self, peer: &PeerId, id: &protocol::PeerId) -> Vec<Multiaddr> {
        let Some(kademlia) = self.swarm.behaviour_mut().kademlia() else {
            return Vec::new();
        };
        let addrs = dht::routing::addresses(kademlia, peer);
        addrs
            .into_iter()
            .map(|addr| without_peer(addr, id))
            .collect()
    }

    /// Whether the routing table has a place for the peer.
    fn has_place(&mut self, peer: &PeerId) -> bool {
        let kademlia = self.swarm.behaviour_mut().kademlia();
        kademlia.is_some_and(|kademlia| dht::routing::has_place(kademlia, peer))
    }
}
