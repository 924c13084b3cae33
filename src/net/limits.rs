//! Who may be connected: limits on connections, as a behaviour that stands first in the derived one, so that it
//! refuses before any other allocates.
//!
//! Invariants: at most `max` connections in all; the last `reserved` of them only for favoured peers; at most
//! `max_per_peer` for one peer, of which the newest stay; inbound at most `max_pending` before their handshake is done and
//! `max_pending_per_source` of these for one source (an IPv4 address, or the /64 of an IPv6 one). Outbound connections count,
//! but are refused only at `max`: they are our own wish. A peer whose id is no inlined Ed25519 key is refused.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, ListenFailure};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::tcp::socket_addr;
use crate::protocol;

/// The numbers of [`Limits`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimitsConfig {
    /// Established connections, both directions together.
    pub(crate) max: usize,
    /// Of these, kept for favoured peers.
    pub(crate) reserved: usize,
    /// Connections of one peer, both directions together; past this the oldest is closed.
    pub(crate) max_per_peer: usize,
    /// Inbound connections whose handshake is not done.
    pub(crate) max_pending: usize,
    /// Of these, from one source.
    pub(crate) max_pending_per_source: usize,
}

/// Handshakes that may go on at once. Each takes up to 30 KiB while it lasts: 8 MiB at most.
const MAX_PENDING: usize = 256;

impl LimitsConfig {
    /// `max` connections in all, `reserved` of them for favoured peers, two for one peer; [`MAX_PENDING`] handshakes at once, and
    /// never more than connections, seven eighths of them with one source.
    pub(crate) fn new(max: usize, reserved: usize) -> Self {
        let max_pending = max.min(MAX_PENDING);
        Self {
            max,
            reserved,
            max_per_peer: 2,
            max_pending,
            // When an indexer dies, or a native hands its nodes over, a whole site comes at once, and all of it may stand behind
            // one address. An eighth is left to others.
            max_pending_per_source: (max_pending * 7 / 8).max(1),
        }
    }
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Every slot is taken.
    Full { max: usize },
    /// Only slots for favoured peers are left.
    Reserved { reserved: usize },
    /// Too many handshakes are going on.
    Pending { max: usize },
    /// Too many handshakes are going on with this source.
    PendingPerSource { max: usize },
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
            Self::Pending { max } => write!(f, "{max} handshakes are going on already"),
            Self::PendingPerSource { max } => {
                write!(f, "{max} handshakes with this source are going on already")
            }
            Self::Identity => write!(f, "the peer id is not an Ed25519 identity"),
        }
    }
}

impl Error for Refused {}

/// The behaviour. It talks to nobody: its handler is a dummy.
pub(crate) struct Limits {
    config: LimitsConfig,
    favoured: HashSet<protocol::PeerId>,
    established: usize,
    /// Most that were established at once since [`Limits::forget_most`].
    most: usize,
    /// The connections of each peer, the oldest first.
    per_peer: HashMap<protocol::PeerId, Vec<ConnectionId>>,
    /// Those that a newer one of the same peer displaces.
    displaced: VecDeque<(PeerId, ConnectionId)>,
    pending: HashMap<ConnectionId, Option<IpAddr>>,
    refused: u64,
}

impl Limits {
    /// No connections yet, and nobody favoured.
    pub(crate) fn new(config: LimitsConfig) -> Self {
        Self {
            config,
            favoured: HashSet::new(),
            established: 0,
            most: 0,
            per_peer: HashMap::new(),
            displaced: VecDeque::new(),
            pending: HashMap::new(),
            refused: 0,
        }
    }

    /// Lets `peer` use the reserved slots: a configured native, or one that holds a lease. False if as many
    /// peers as there are connections are favoured already.
    pub(crate) fn favour(&mut self, peer: protocol::PeerId) -> bool {
        if self.favoured.contains(&peer) {
            return true;
        }
        self.favoured.len() < self.config.max && self.favoured.insert(peer)
    }

    /// Takes the favour back. The peer's connections stay.
    pub(crate) fn unfavour(&mut self, peer: &protocol::PeerId) {
        self.favoured.remove(peer);
    }

    /// Takes the favour back from all peers that are not to be kept.
    pub(crate) fn retain_favoured(&mut self, keep: impl FnMut(&protocol::PeerId) -> bool) {
        self.favoured.retain(keep);
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
        self.favoured.shrink_to_fit();
        self.per_peer.shrink_to_fit();
        self.pending.shrink_to_fit();
    }

    /// Connections there may be.
    pub(crate) fn capacity(&self) -> usize {
        self.config.max
    }

    /// Connections refused since the start, for whatever reason.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    fn check_pending(&self, source: Option<IpAddr>) -> Result<(), Refused> {
        let LimitsConfig {
            max_pending,
            max_pending_per_source,
            ..
        } = self.config;
        if self.pending.len() >= max_pending {
            return Err(Refused::Pending { max: max_pending });
        }
        let same = self.pending.values().filter(|known| **known == source);
        if same.count() >= max_pending_per_source {
            return Err(Refused::PendingPerSource {
                max: max_pending_per_source,
            });
        }
        Ok(())
    }

    fn check_inbound(&self, peer: PeerId) -> Result<(), Refused> {
        let peer = ed25519(peer)?;
        self.check_full()?;
        let LimitsConfig { max, reserved, .. } = self.config;
        if self.established + reserved >= max && !self.favoured.contains(&peer) {
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
        connection_id: ConnectionId,
        _: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let source = source(remote_addr);
        let verdict = self.check_full().and_then(|()| self.check_pending(source));
        self.judge(verdict, ())?;
        self.pending.insert(connection_id, source);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection_id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending.remove(&connection_id);
        self.judge(self.check_inbound(peer), dummy::ConnectionHandler)
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
                ..
            }) => {
                self.established += 1;
                self.most = self.most.max(self.established);
                let Ok(peer) = ed25519(peer_id) else { return };
                let connections = self.per_peer.entry(peer).or_default();
                connections.reserve_exact(1);
                connections.push(connection_id);
                // After a power cut the old ones are dead and nobody has noticed: the newest counts.
                if connections.len() > self.config.max_per_peer {
                    self.displaced.push_back((peer_id, connections.remove(0)));
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                self.established = self.established.saturating_sub(1);
                let Ok(peer) = ed25519(peer_id) else { return };
                if let Some(connections) = self.per_peer.get_mut(&peer) {
                    connections.retain(|open| *open != connection_id);
                    if connections.is_empty() {
                        self.per_peer.remove(&peer);
                    }
                }
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.pending.remove(&connection_id);
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

fn ed25519(peer: PeerId) -> Result<protocol::PeerId, Refused> {
    peer.try_into().map_err(|_| Refused::Identity)
}

/// Whom a connection that is not yet authenticated is counted for. One host has a whole IPv6 /64 to itself.
fn source(remote: &Multiaddr) -> Option<IpAddr> {
    socket_addr(remote).map(|addr| match addr.ip().to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
    })
}

#[cfg(test)]
mod tests;
