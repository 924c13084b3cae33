//! Limits on connections, as a libp2p behaviour. It comes first in the derived behaviour, so that
//! it refuses a connection before the others allocate memory for it.
//!
//! Invariants: at most `max` connections in all; the last `reserved` of them only for peers with a
//! reserved slot; at most `max_per_peer` for one peer, of which the newest stay. Outbound
//! connections count too, but they are refused only at `max`, because this peer wants them itself.
//! A peer is refused if its id is not an inlined Ed25519 key. Until their handshake is done,
//! inbound connections are limited by [`admission`](super::admission). This module tells it at
//! which addresses peers with a reserved slot are.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::mem;
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
use super::each::each;
use super::handshakes::SourceIp;
use super::tcp::socket_addr;
use crate::protocol::{self, TableStats};

/// Name of the table of connections.
pub(crate) const CONNECTIONS: &str = "connections";
/// Name of the table of inbound connections during their handshake.
const HANDSHAKES: &str = "handshakes";

/// The numbers of [`Limits`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimitsConfig {
    /// Established connections, both directions together.
    pub(crate) max: usize,
    /// Of these, the number kept for peers with a reserved slot.
    pub(crate) reserved: usize,
    /// Connections of one peer, both directions together. If there are more, the oldest is closed.
    pub(crate) max_per_peer: usize,
    /// Inbound connections during their handshake.
    pub(crate) max_pending: usize,
}

/// Handshakes under way at once. Each takes up to 30 KiB while it lasts, so all take 8 MiB at most.
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

/// The behaviour. It exchanges nothing with peers: its handler is a dummy.
pub(crate) struct Limits {
    config: LimitsConfig,
    /// Peers with a reserved slot, each with the source from which it last connected.
    slots: HashMap<protocol::PeerId, Option<SourceIp>>,
    established: usize,
    /// The most that were established at once since [`Limits::take_peaks`].
    most: usize,
    /// The connections of each peer and where they lead, the oldest first.
    per_peer: HashMap<protocol::PeerId, Vec<(ConnectionId, SourceIp)>>,
    /// Connections to close, because a newer one of the same peer has replaced them.
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

    /// Lets `peer` use the reserved slots: a configured native, or one that holds a lease. Returns
    /// false if every connection slot is reserved.
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

    /// Whether the peer has a reserved slot.
    pub(crate) fn has_slot(&self, peer: &protocol::PeerId) -> bool {
        self.slots.contains_key(peer)
    }

    /// Releases the slot of the peer. The peer's connections stay.
    pub(crate) fn release_slot(&mut self, peer: &protocol::PeerId) {
        if let Some(Some(source)) = self.slots.remove(peer) {
            self.places.lock().release(source);
        }
    }

    /// Releases the slots of all peers for which none is to be reserved, and reserves one for each
    /// other peer that is connected.
    pub(crate) fn set_slots(&mut self, reserves: impl Fn(&protocol::PeerId) -> bool) {
        let mut places = self.places.lock();
        for (_, seen) in self.slots.extract_if(|peer, _| !reserves(peer)) {
            if let Some(source) = seen {
                places.release(source);
            }
        }
        drop(places);
        let connected = self.per_peer.keys();
        let lacking = connected.filter(|peer| !self.slots.contains_key(peer) && reserves(peer));
        for peer in lacking.copied().collect::<Vec<_>>() {
            self.reserve_slot(peer);
        }
    }

    /// Counts peers with these addresses as known.
    pub(crate) fn remember<'a>(&mut self, peers: impl Iterator<Item = &'a protocol::Addrs>) {
        let sources = peers.map(|addrs| {
            super::multiaddrs(addrs)
                .into_iter()
                .map(|addr| source(&addr))
        });
        self.places.lock().remember(sources);
    }

    /// The table of inbound connections during their handshake.
    pub(crate) fn handshakes(&self) -> TableStats {
        let places = self.places.lock();
        TableStats {
            name: HANDSHAKES,
            used: places.used(),
            capacity: places.capacity(),
            refused: places.refused(),
            evicted: places.gave_way(),
        }
    }

    /// Takes note that a peer with a reserved slot is at this source now: its next connection may
    /// come from there.
    fn see(&mut self, peer: &protocol::PeerId, source: SourceIp) {
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

    /// The most that each of the two tables held at once since the last call.
    pub(crate) fn take_peaks(&mut self) -> [(&'static str, usize); 2] {
        let connections = mem::replace(&mut self.most, self.established);
        let handshakes = self.places.lock().take_most();
        [(CONNECTIONS, connections), (HANDSHAKES, handshakes)]
    }

    /// Gives back memory that is no longer needed.
    pub(crate) fn shrink(&mut self) {
        self.slots.shrink_to_fit();
        self.per_peer.shrink_to_fit();
        self.places.lock().shrink();
    }

    /// Connections that can be established at once.
    pub(crate) fn capacity(&self) -> usize {
        self.config.max
    }

    /// Connections refused since the start, for any reason.
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
                // After a power cut the old connections are dead, but this is not known yet. So the
                // newest is kept.
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

/// Logs one line a minute for each reason, with the number of refusals.
fn turned_away(refused: &Refused) {
    each!(warn, "refused a connection: {refused}");
}

fn ed25519(peer: PeerId) -> Result<protocol::PeerId, Refused> {
    peer.try_into().map_err(|_| Refused::Identity)
}

/// The source for which a connection is counted that is not yet authenticated. One host has a whole
/// IPv6 /64.
pub(super) fn source(remote: &Multiaddr) -> SourceIp {
    socket_addr(remote).map(|addr| match addr.ip().to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
    })
}

#[cfg(test)]
mod tests;
