//! A connected peer, and what is known of each connection with it.
//!
//! ```text
//!            a ping or a response did not come          an ack did not come
//!  Good ─────────────────────────▶ Doubtful ─────────────────────────▶ Silent
//!    ▲                                │                                   │
//!    └── any answer, or a beat of the peer ◀┴────────── any answer ◀──────┘
//! ```
//!
//! Invariant: only a good connection is given a new stream of ours. A silent one is closed as soon
//! as a beat goes over another; a doubtful one ends when nothing is left on it.

use libp2p::swarm::ConnectionId;

use super::mailbox::Outbox;
use crate::protocol::StreamId;

/// What is known of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
    /// Nothing is amiss.
    Good,
    /// An exchange on it was not answered in time.
    Doubtful,
    /// The ack of a beat was late.
    Silent,
}

/// A connected peer.
#[derive(Default)]
pub(super) struct Contact {
    /// The oldest first.
    connections: Vec<(ConnectionId, Health)>,
    /// Its heartbeat streams on which something may still be said: the newest last, and before it
    /// those that it replaces or is to replace.
    leases: Vec<GrantedLease>,
}

/// A heartbeat stream of the peer.
pub(super) struct GrantedLease {
    pub(super) stream: StreamId,
    pub(super) connection: ConnectionId,
    /// Of the last beat.
    pub(super) sequence: u64,
    pub(super) outbox: Outbox,
}

impl Contact {
    /// A connection was made.
    pub(super) fn connected(&mut self, connection: ConnectionId) {
        self.connections.reserve_exact(1);
        self.connections.push((connection, Health::Good));
    }

    /// A connection has ended; whether it was the last.
    pub(super) fn disconnected(&mut self, connection: ConnectionId) -> bool {
        self.connections.retain(|(open, _)| *open != connection);
        self.connections.is_empty()
    }

    /// A beat came on a heartbeat stream. The first one of a stream that is older than another does
    /// not count, nor does one of a stream that is being closed.
    pub(super) fn beats(&mut self, beat: GrantedLease) {
        let newest = self.leases.last().map(|lease| lease.stream);
        if let Some(known) = self.lease_mut(beat.stream) {
            *known = beat;
        } else if beat.sequence == 0 && newest < Some(beat.stream) {
            self.leases.reserve_exact(1);
            self.leases.push(beat);
        }
    }

    /// The heartbeat stream, if something may be said on it.
    pub(super) fn lease(&self, stream: StreamId) -> Option<&GrantedLease> {
        self.leases.iter().find(|lease| lease.stream == stream)
    }

    /// The heartbeat stream has ended, or nothing more is to be said on it.
    pub(super) fn forget_lease(&mut self, stream: StreamId) {
        self.leases.retain(|lease| lease.stream != stream);
    }

    /// The heartbeat streams on this connection end.
    pub(super) fn take_leases(&mut self, connection: ConnectionId) -> Vec<StreamId> {
        let on_it = |lease: &mut GrantedLease| lease.connection == connection;
        let lost = self.leases.extract_if(.., on_it);
        lost.map(|lease| lease.stream).collect()
    }

    fn lease_mut(&mut self, stream: StreamId) -> Option<&mut GrantedLease> {
        self.leases.iter_mut().find(|lease| lease.stream == stream)
    }

    /// Every connection.
    pub(super) fn all(&self) -> Vec<ConnectionId> {
        self.connections.iter().map(|(open, _)| *open).collect()
    }

    /// The connection for a new stream: the newest, because an older one may be dead and nothing
    /// has shown it yet.
    pub(super) fn usable(&self) -> Option<ConnectionId> {
        let mut newest_first = self.connections.iter().rev();
        newest_first
            .find(|(_, health)| *health == Health::Good)
            .map(|(open, _)| *open)
    }

    /// Those on which an ack did not come.
    pub(super) fn silent(&self) -> Vec<ConnectionId> {
        let silent =
            |(open, health): &(ConnectionId, Health)| (*health == Health::Silent).then_some(*open);
        self.connections.iter().filter_map(silent).collect()
    }

    /// An answer did not come on this connection. The older ones are no better.
    pub(super) fn suspect(&mut self, connection: ConnectionId, health: Health) {
        let Some(at) = self.position(connection) else {
            return;
        };
        for (_, known) in self.connections.iter_mut().take(at + 1) {
            *known = health.max(*known);
        }
    }

    /// An answer came on this connection.
    pub(super) fn trust(&mut self, connection: ConnectionId) {
        if let Some((_, known)) = self
            .position(connection)
            .and_then(|at| self.connections.get_mut(at))
        {
            *known = Health::Good;
        }
    }

    /// A beat of the peer came on this connection. It shows one direction only, but a peer that is
    /// not acked makes a new connection by itself.
    pub(super) fn heard(&mut self, connection: ConnectionId) {
        let known = self.connections.iter_mut();
        for (open, health) in known {
            if *open == connection && *health == Health::Doubtful {
                *health = Health::Good;
            }
        }
    }

    fn position(&self, connection: ConnectionId) -> Option<usize> {
        self.connections
            .iter()
            .position(|(open, _)| *open == connection)
    }
}
