//! Our heartbeat streams: one with each server, and while it is replaced the one before it.
//!
//! A fresh beat ([`OutBeat::fresh`]) sets the stream that is there aside. It is dropped when the
//! beat goes out over another connection; if it brings its ack before that, it is the stream again
//! and the beat is not sent.
//!
//! [`OutBeat::fresh`]: crate::protocol::OutBeat::fresh

use libp2p::{Multiaddr, swarm::ConnectionId};

use super::{Command, Event, Streams, contact::Health};
use crate::protocol::PeerId;

/// Our heartbeat stream with one server.
pub(super) struct HeldLease {
    pub(super) lease: u64,
    pub(super) connection: Option<ConnectionId>,
    /// Sequence of the next beat.
    pub(super) next: u64,
    pub(super) awaited: bool,
    /// It goes over a new connection.
    fresh: bool,
    /// The stream that it is to replace.
    older: Option<Older>,
}

/// A stream whose ack is late.
#[derive(Clone, Copy)]
struct Older {
    lease: u64,
    connection: ConnectionId,
    next: u64,
}

/// What an ack on one of our streams answers.
pub(super) struct Answers {
    /// The last beat of the stream.
    pub(super) sequence: u64,
    /// It was not answered before.
    pub(super) awaited: bool,
}

impl HeldLease {
    /// Whether it waits for a connection of its own.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Its first beat is sent.
    pub(super) fn goes_over(&mut self, connection: ConnectionId) {
        self.connection = Some(connection);
        self.older = None;
    }

    /// Whether the lease is on this connection; the stream that is being replaced is forgotten if
    /// that one is.
    pub(super) fn lost(&mut self, connection: ConnectionId) -> bool {
        self.older.take_if(|older| older.connection == connection);
        self.connection == Some(connection)
    }

    /// The stream has ended: whether it was the one that counts.
    pub(super) fn ended(&mut self, lease: u64) -> bool {
        self.older.take_if(|older| older.lease == lease);
        self.lease == lease
    }

    /// What an ack of this lease answers, if it is one of ours.
    pub(super) fn answers(&self, lease: u64) -> Option<Answers> {
        let (next, awaited) = match &self.older {
            _ if self.lease == lease => (self.next, self.awaited),
            Some(older) if older.lease == lease => (older.next, true),
            _ => return None,
        };
        Some(Answers {
            sequence: next.saturating_sub(1),
            awaited,
        })
    }
}

impl Streams {
    /// Sends a beat, made by `encode` from its sequence; on a new stream, dialling `addrs`, if none
    /// is open. A `fresh` one goes over a new connection, beside the stream that is open.
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
        let command = Command::Beat {
            lease: outbound.lease,
            body: encode(sequence),
            first: sequence == 0,
            last: false,
        };
        match outbound.connection {
            Some(connection) => self.notify(server, connection, command),
            None => self.reach(server, addrs, command),
        }
    }

    /// Sends the last beat of a stream, which ends with its ack: [`Event::GaveUp`]. Without a
    /// stream there is nothing to say.
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
        self.leaving.push((server, connection, lease));
        self.notify(
            server,
            connection,
            Command::Beat {
                lease,
                body: encode(next),
                first: false,
                last: true,
            },
        );
    }

    /// The last beat of this lease was answered. If its stream was to be replaced, it is not.
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

    /// Drops our heartbeat stream with the server; no event follows. If its last beat was not
    /// answered, its connection is not used for anything else.
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

    /// Makes room for a fresh stream; the one that is there is kept for a while, if it is on a
    /// connection.
    fn set_aside(&mut self, server: PeerId) -> Option<Older> {
        self.forget_waiting_beat(&server);
        let outbound = self.outbound.remove(&server)?;
        // One that is set aside already stays so while the one that is to replace it has no
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
