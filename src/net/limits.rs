//! Who may be connected: limits on connections, as a behaviour that stands first in the derived
//! one, so that it refuses before any other allocates.
//!
//! Invariants: at most `max` connections in all; the last `reserved` of them only for peers that
//! have one reserved; at most `max_per_peer` for one peer, of which the newest stay. Outbound
//! connections count, but are refused only at `max`: they are our own wish. A peer whose id is no
//! inlined Ed25519 key is refused. Before their handshake is done inbound connections are the
//! affair of [`admission`](super::admission), which hears from here at which addresses peers with a
//! reserved slot are.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::admission::Places;
use super::handshakes::Source;
use super::tcp::socket_addr;
use crate::protocol::{self, TableStats};

/// The numbers of [`Limits`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimitsConfig {
    /// Established connections, both directions together.
    pub(crate) max: usize,
    /// Of these, kept for peers with a reserved slot.
    pub(crate) reserved: usize,
    /// Connections of one peer, both directions together; past this the oldest is closed.
    pub(crate) max_per_peer: usize,
    /// Inbound connections whose handshake is not done.
    pub(crate) max_pending: usize,
}

/// Handshakes that may go on at once. Each takes up to 30 KiB while it lasts: 8 MiB at most.
pub(crate) const MAX_HANDSHAKES: usize = 256;

impl LimitsConfig {
    /// `max` connections in all, `reserved` of them for peers with a reserved slot, two for one
    /// peer; `max_pending` handshakes at once.
    pub(crate) fn new(max: usize, reserved: usize, max_pending: usize) -> Self {
        Self {
            max,
            reserved,
            max_per_peer: 2,
            max_pending,
        }
    }
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Every slot is taken.
    Full { max: usize },
    /// Only reserved slots are left.
    Reserved { reserved: usize },
    /// The peer id is not an inlined Ed25519 key.
    Identity,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { max } => write!(f, "all {max} connections are in use"),
            Self::Reserved { reserved } => write!(
                f,
                "the last {reserved} connections are kept for natives and lease holders"
            ),
            Self::Identity => write!(f, "the peer id is not an Ed25519 identity"),
        }
    }
}

impl Error for Refused {}

/// The behaviour. It talks to nobody: its handler is a dummy.
pub(crate) struct Limits {
    config: LimitsConfig,
    /// Peers with a reserved slot, each with the source at which it was seen last.
    slots: HashMap<protocol::PeerId, Option<Source>>,
    established: usize,
    /// Most that were established at once since [`Limits::forget_most`].
    most: usize,
    /// The connections of each peer and where they lead, the oldest first.
    per_peer: HashMap<protocol::PeerId, Vec<(ConnectionId, Source)>>,
    /// Those that a newer one of the same peer displaces.
    displaced: VecDeque<(PeerId, ConnectionId)>,
    places: Places,
    refused: u64,
}

impl Limits {
    /// No connections yet, and no slot reserved.
    pub(super) fn new(config: LimitsConfig, places: Places) -> Self {
        Self {
            config,
            slots: HashMap::new(),
            established: 0,
            most: 0,
            per_peer: HashMap::new(),
            displaced: VecDeque::new(),
            places,
            refused: 0,
        }
    }

    /// Lets `peer` use the reserved slots: a configured native, or one that holds a lease. False if
    /// as many peers as there are connections have one already.
    pub(crate) fn reserve_slot(&mut self, peer: protocol::PeerId) -> bool {
        if self.slots.contains_key(&peer) {
            return true;
        }
        if self.slots.len() >= self.config.max {
            return false;
        }
        let connections = self.per_peer.get(&peer);
        let seen = connections.and_then(|connections| Some(connections.last()?.1));
        self.slots.insert(peer, None);
        if let Some(source) = seen {
            self.see(&peer, source);
        }
        true
    }

    /// Releases the slot of the peer. The peer's connections stay.
    pub(crate) fn release_slot(&mut self, peer: &protocol::PeerId) {
        if let Some(Some(source)) = self.slots.remove(peer) {
            self.places.lock().release(source);
        }
    }

    /// Releases the slots of all peers that are not to be kept.
    pub(crate) fn retain_slots(&mut self, mut keep: impl FnMut(&protocol::PeerId) -> bool) {
        let mut places = self.places.lock();
        for (_, seen) in self.slots.extract_if(|peer, _| !keep(peer)) {
            if let Some(source) = seen {
                places.release(source);
            }
        }
    }

    /// Peers with these addresses are remembered.
    pub(crate) fn remember<'a>(&mut self, peers: impl Iterator<Item = &'a [Multiaddr]>) {
        let sources = peers.map(|addrs| addrs.iter().map(source));
        self.places.lock().remember(sources);
    }

    /// Inbound connections whose handshake goes on.
    pub(crate) fn handshakes(&self) -> TableStats {
        let places = self.places.lock();
        TableStats {
            name: "handshakes",
            used: places.used(),
            capacity: places.capacity(),
            refused: 0,
            evicted: places.gave_way(),
        }
    }

    /// A peer with a reserved slot is at this source now: its next connection may come from there.
    fn see(&mut self, peer: &protocol::PeerId, source: Source) {
        if let Some(seen) = self.slots.get_mut(peer) {
            let mut places = self.places.lock();
            places.hold(source);
            if let Some(before) = seen.replace(source) {
                places.release(before);
            }
        }
    }

    /// Established connections.
    pub(crate) fn used(&self) -> usize {
        self.established
    }

    /// The most connections that were established at once since [`Limits::forget_most`].
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Counts the most connections from now on.
    pub(crate) fn forget_most(&mut self) {
        self.most = self.established;
    }

    /// Gives memory back that more connections have needed.
    pub(crate) fn shrink(&mut self) {
        self.slots.shrink_to_fit();
        self.per_peer.shrink_to_fit();
        self.places.lock().shrink();
    }

    /// Connections there may be.
    pub(crate) fn capacity(&self) -> usize {
        self.config.max
    }

    /// Connections refused since the start, for whatever reason.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    fn check_inbound(&self, peer: PeerId) -> Result<(), Refused> {
        let peer = ed25519(peer)?;
        self.check_full()?;
        let LimitsConfig { max, reserved, .. } = self.config;
        if self.established + reserved >= max && !self.slots.contains_key(&peer) {
            return Err(Refused::Reserved { reserved });
        }
        Ok(())
    }

    fn check_outbound(&self, peer: PeerId) -> Result<(), Refused> {
        ed25519(peer)?;
        self.check_full()
    }

    fn check_full(&self) -> Result<(), Refused> {
        let max = self.config.max;
        match self.established < max {
            true => Ok(()),
            false => Err(Refused::Full { max }),
        }
    }

    fn judge<T>(
        &mut self,
        verdict: Result<(), Refused>,
        granted: T,
    ) -> Result<T, ConnectionDenied> {
        verdict.map_err(|refused| {
            self.refused += 1;
            ConnectionDenied::new(refused)
        })?;
        Ok(granted)
    }
}

impl NetworkBehaviour for Limits {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let verdict = self.check_full().inspect_err(turned_away);
        self.judge(verdict, ())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let verdict = self.check_inbound(peer).inspect_err(turned_away);
        self.judge(verdict, dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let verdict = match peer {
            Some(peer) => self.check_outbound(peer),
            None => self.check_full(),
        };
        self.judge(verdict, Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.judge(self.check_outbound(peer), dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                self.established += 1;
                self.most = self.most.max(self.established);
                let Ok(peer) = ed25519(peer_id) else { return };
                let source = source(endpoint.get_remote_address());
                let connections = self.per_peer.entry(peer).or_default();
                connections.reserve_exact(1);
                connections.push((connection_id, source));
                // After a power cut the old ones are dead and nobody has noticed: the newest
                // counts.
                if connections.len() > self.config.max_per_peer {
                    let (oldest, _) = connections.remove(0);
                    self.displaced.push_back((peer_id, oldest));
                }
                self.see(&peer, source);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                self.established = self.established.saturating_sub(1);
                let Ok(peer) = ed25519(peer_id) else { return };
                if let Some(connections) = self.per_peer.get_mut(&peer) {
                    connections.retain(|(open, _)| *open != connection_id);
                    if connections.is_empty() {
                        self.per_peer.remove(&peer);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.displaced.pop_front() {
            Some((peer_id, oldest)) => Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(oldest),
            }),
            None => Poll::Pending,
        }
    }
}

/// One line a minute for each reason, which tells how many there were.
fn turned_away(refused: &Refused) {
    log::warn!(target: super::EACH, "turned a connection away: {refused}");
}

fn ed25519(peer: PeerId) -> Result<protocol::PeerId, Refused> {
    peer.try_into().map_err(|_| Refused::Identity)
}

/// Whom a connection that is not yet authenticated is counted for. One host has a whole IPv6 /64 to
/// itself.
pub(super) fn source(remote: &Multiaddr) -> Source {
    socket_addr(remote).map(|addr| match addr.ip().to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
    })
}

#[cfg(test)]
mod tests;
