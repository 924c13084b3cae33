//! Our heartbeat streams: one to each server, and while it is being replaced also the older one.
//!
//! A fresh beat ([`OutBeat::fresh`]) sets the present stream aside. That stream is dropped when the
//! beat is sent over another connection. If its own ack comes before that, it is used again and the
//! fresh beat is not sent.
//!
//! [`OutBeat::fresh`]: crate::protocol::OutBeat::fresh

use libp2p::{Multiaddr, swarm::ConnectionId};

use super::{BeatPlace, Command, Event, Streams, contact::Health, traced};
use crate::protocol::{PeerId, codec::heartbeat::LastBeat};

/// Our heartbeat stream to one server.
pub(super) struct HeldLease {
    pub(super) lease: u64,
    pub(super) connection: Option<ConnectionId>,
    /// Sequence of the next beat.
    pub(super) next: u64,
    pub(super) awaited: bool,
    /// The stream needs a new connection.
    fresh: bool,
    /// The stream that this one is to replace.
    older: Option<Older>,
}

/// A stream with a late ack.
#[derive(Clone, Copy)]
struct Older {
    lease: u64,
    connection: ConnectionId,
    next: u64,
}

impl HeldLease {
    /// Whether the stream waits for a connection of its own.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Takes note that the first beat is sent over this connection.
    pub(super) fn goes_over(&mut self, connection: ConnectionId) {
        self.connection = Some(connection);
        self.older = None;
    }

    /// Takes note that this connection has ended. Returns whether the stream was on it. An older
    /// stream on it is forgotten.
    pub(super) fn lost(&mut self, connection: ConnectionId) -> bool {
        self.older.take_if(|older| older.connection == connection);
        self.connection == Some(connection)
    }

    /// Takes note that a stream has ended. Returns whether it was the present one.
    pub(super) fn ended(&mut self, lease: u64) -> bool {
        self.older.take_if(|older| older.lease == lease);
        self.lease == lease
    }

    /// The last beat of this lease, if the lease is one of ours.
    pub(super) fn last_beat(&self, lease: u64) -> Option<LastBeat> {
        let (next, is_awaited) = match &self.older {
            _ if self.lease == lease => (self.next, self.awaited),
            Some(older) if older.lease == lease => (older.next, true),
            _ => return None,
        };
        Some(LastBeat {
            sequence: next.saturating_sub(1),
            is_awaited,
        })
    }
}

impl Streams {
    /// Sends a beat that `encode` makes from its sequence. If no stream is open, a new one is
    /// opened, and `addrs` are dialled if needed. A `fresh` beat is sent over a new connection,
    /// beside the open stream.
    pub(crate) fn beat(
        &mut self,
        server: PeerId,
        addrs: Vec<Multiaddr>,
        fresh: bool,
        encode: impl FnOnce(u64) -> Vec<u8>,
    ) {
        let older = match fresh {
            true => self.set_aside(server),
            false => None,
        };
        let outbound = self.outbound.entry(server).or_insert_with(|| {
            self.leases += 1;
            HeldLease {
                lease: self.leases,
                connection: None,
                next: 0,
                awaited: false,
                fresh,
                older,
            }
        });
        let sequence = outbound.next;
        outbound.next += 1;
        outbound.awaited = true;
        let body = encode(sequence);
        traced("sends beat", sequence, &server, &body);
        let command = Command::Beat {
            lease: outbound.lease,
            body,
            place: match sequence {
                0 => BeatPlace::First,
                _ => BeatPlace::Next,
            },
        };
        match outbound.connection {
            Some(connection) => self.notify(server, connection, command),
            None => self.reach(server, addrs, command),
        }
    }

    /// Sends the last beat of a stream. The stream ends with its ack, in [`Event::GaveUp`]. Without
    /// a stream, nothing is sent.
    pub(crate) fn give_up(&mut self, server: PeerId, encode: impl FnOnce(u64) -> Vec<u8>) {
        self.forget_waiting_beat(&server);
        let open = self
            .outbound
            .remove(&server)
            .and_then(|outbound| match outbound.connection {
                Some(connection) => Some((outbound.lease, connection, outbound.next)),
                None => outbound
                    .older
                    .map(|older| (older.lease, older.connection, older.next)),
            });
        let Some((lease, connection, next)) = open else {
            return self.happened(Event::GaveUp { server });
        };
        let body = encode(next);
        traced("sends last beat", next, &server, &body);
        self.leaving.push((server, connection, lease));
        self.notify(
            server,
            connection,
            Command::Beat {
                lease,
                body,
                place: BeatPlace::Last,
            },
        );
    }

    /// Takes note that the last beat of this lease was answered. If its stream was to be replaced,
    /// it no longer is.
    pub(crate) fn answered(&mut self, server: &PeerId, lease: u64) {
        let Some(outbound) = self.outbound.get_mut(server) else {
            return;
        };
        if outbound.lease == lease {
            outbound.awaited = false;
        } else if let Some(older) = outbound.older.filter(|older| older.lease == lease) {
            *outbound = HeldLease {
                lease,
                connection: Some(older.connection),
                next: older.next,
                awaited: false,
                fresh: false,
                older: None,
            };
            self.forget_waiting_beat(server);
        }
        let connection = self.outbound.get(server).and_then(|held| held.connection);
        if let Some(connection) = connection {
            self.trust(server, connection);
        }
    }

    /// Drops our heartbeat stream to the server. No event follows. If its last beat was not
    /// answered, we open no further streams on its connection.
    pub(crate) fn drop_lease(&mut self, server: PeerId) {
        self.forget_waiting_beat(&server);
        let Some(outbound) = self.outbound.remove(&server) else {
            return;
        };
        if let Some(connection) = outbound.connection {
            if outbound.awaited {
                self.suspect(&server, connection, Health::Silent);
            }
            self.notify(server, connection, Command::DropLease);
        }
        self.drop_older(server, outbound);
    }

    /// Drops the stream that this one was to replace.
    pub(super) fn drop_older(&mut self, server: PeerId, outbound: HeldLease) {
        if let Some(older) = outbound.older {
            self.notify(server, older.connection, Command::DropLease);
        }
    }

    /// Makes room for a fresh stream. The present one is kept for a while, if it has a connection.
    fn set_aside(&mut self, server: PeerId) -> Option<Older> {
        self.forget_waiting_beat(&server);
        let outbound = self.outbound.remove(&server)?;
        // The stream that was set aside before stays so while the one that replaces it has no
        // connection.
        let Some(connection) = outbound.connection else {
            return outbound.older;
        };
        self.suspect(&server, connection, Health::Silent);
        Some(Older {
            lease: outbound.lease,
            connection,
            next: outbound.next,
        })
    }

    fn forget_waiting_beat(&mut self, server: &PeerId) {
        self.waiting
            .retain(|(peer, command)| peer != server || !matches!(command, Command::Beat { .. }));
    }
}
