//! The heartbeat streams of peers, on which this process grants leases: their beats come out, its
//! acks go in.

use std::task::{Context, Poll, ready};

use libp2p::swarm::{CloseConnection, ToSwarm};

use super::{
    Streams,
    contact::{GrantedLease, Pace},
    handler::Command,
    mailbox::{AckKind, Arrived, BeatFrame},
    traced,
};
use crate::protocol::{PeerId, StreamId};

impl Streams {
    /// The next beat, and whether its sender keeps to the pace. Beats must be taken before the
    /// swarm is polled, because the swarm may already report the end of their connection.
    ///
    /// A beat that comes too fast is to be answered with the end of its stream. If the same peer
    /// comes too fast again, its connections are closed, and nobody is told of that beat.
    pub(crate) fn poll_beat(&mut self, cx: &mut Context<'_>) -> Poll<(BeatFrame, Pace)> {
        loop {
            let Arrived { frame, outbox } = ready!(self.shared.arrivals.poll(cx));
            traced("got beat", frame.sequence, &frame.peer, &frame.body);
            let Some(contact) = self.contacts.get_mut(&frame.peer) else {
                continue;
            };
            let pace = contact.paced(self.began.elapsed());
            if pace == Pace::AgainTooFast {
                self.close_all(frame.peer);
                continue;
            }
            contact.heard(frame.connection);
            contact.beats(GrantedLease {
                stream: frame.stream,
                connection: frame.connection,
                sequence: frame.sequence,
                outbox,
            });
            return Poll::Ready((frame, pace));
        }
    }

    /// Answers the last beat of a stream.
    pub(crate) fn ack(&self, peer: &PeerId, stream: StreamId, body: &[u8], kind: AckKind) {
        if let Some(lease) = self.lease(peer, stream) {
            traced("sends ack", lease.sequence, peer, body);
            lease.outbox.put(body, kind);
        }
    }

    /// Sends an unsolicited ack, which `encode` makes from the sequence of the last beat.
    pub(crate) fn tell(
        &self,
        peer: &PeerId,
        stream: StreamId,
        encode: impl FnOnce(u64) -> Vec<u8>,
    ) {
        if let Some(lease) = self.lease(peer, stream) {
            let body = encode(lease.sequence);
            traced("sends unasked ack", lease.sequence, peer, &body);
            lease.outbox.put(&body, AckKind::Unsolicited);
        }
    }

    pub(super) fn lease(&self, peer: &PeerId, stream: StreamId) -> Option<&GrantedLease> {
        self.contacts.get(peer)?.lease(stream)
    }

    /// Closes a heartbeat stream of the peer, after everything that was sent before is written.
    pub(crate) fn close(&mut self, peer: PeerId, stream: StreamId) {
        let Some(contact) = self.contacts.get_mut(&peer) else {
            return;
        };
        contact.forget_lease(stream);
        for connection in contact.all() {
            self.notify(peer, connection, Command::Close { stream });
        }
    }

    /// Closes all connections with the peer.
    fn close_all(&mut self, peer: PeerId) {
        self.push(ToSwarm::CloseConnection {
            peer_id: peer.into(),
            connection: CloseConnection::All,
        });
    }
}
