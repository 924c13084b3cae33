//! A connected peer, and the state of each connection with it.
//!
//! ```text
//!            a ping or a response did not come          an ack did not come
//!  Good ─────────────────────────▶ Doubtful ─────────────────────────▶ Silent
//!    ▲                                │                                   │
//!    └── any answer, or a beat of the peer ◀┴────────── any answer ◀──────┘
//! ```
//!
//! Invariant: we open new streams only on a good connection. A silent connection is closed as soon
//! as a beat is sent over another one; a doubtful one ends when no stream is left on it.

use libp2p::swarm::ConnectionId;

use std::time::Duration;

use super::mailbox::Outbox;
use crate::protocol::{Instant, StreamId, time::Bucket};

/// Beats a second that a peer may send, over all its streams. The shortest interval that can be
/// configured needs 13.
pub(crate) const BEATS_A_SECOND: u32 = 16;
/// Beats at once: the first ones of several streams, those with a new record, and those that a host
/// sends when it wakes up.
const BEATS_AT_ONCE: u32 = 64;

/// How fast a beat came after those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As fast as a peer may beat.
    Kept,
    /// Faster: its stream ends.
    TooFast,
    /// Faster, and so was the peer since its last pause.
    AgainTooFast,
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
    /// No fault is known.
    Good,
    /// An exchange on it was not answered in time.
    Doubtful,
    /// The ack of a beat was late.
    Silent,
}

/// A connected peer.
#[derive(Default)]
pub(super) struct Contact {
    /// The connections, oldest first.
    connections: Vec<(ConnectionId, Health)>,
    /// Its heartbeat streams on which an ack may still be sent. The newest is last; before it are
    /// those that it replaces or is to replace.
    leases: Vec<GrantedLease>,
    beats: Bucket<BEATS_A_SECOND, BEATS_AT_ONCE>,
    /// A beat was too fast, and there was no pause since.
    was_too_fast: bool,
}

/// A heartbeat stream of the peer.
pub(super) struct GrantedLease {
    pub(super) stream: StreamId,
    pub(super) connection: ConnectionId,
    /// The sequence of the last beat.
    pub(super) sequence: u64,
    pub(super) outbox: Outbox,
}

impl Contact {
    /// Adds a new connection.
    pub(super) fn connected(&mut self, connection: ConnectionId) {
        self.connections.reserve_exact(1);
        self.connections.push((connection, Health::Good));
    }

    /// Removes a connection that has ended. Returns whether it was the last.
    pub(super) fn disconnected(&mut self, connection: ConnectionId) -> bool {
        self.connections.retain(|(open, _)| *open != connection);
        self.connections.is_empty()
    }

    /// Takes note that a beat came, so long after any fixed time.
    pub(super) fn paced(&mut self, after: Duration) -> Pace {
        let now = Instant::from_millis(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        if self.was_too_fast && self.beats.spent(now) == 0 {
            self.was_too_fast = false;
        }
        match (self.beats.take(now), self.was_too_fast) {
            (true, _) => Pace::Kept,
            (false, true) => Pace::AgainTooFast,
            (false, false) => {
                self.was_too_fast = true;
                Pace::TooFast
            }
        }
    }

    /// Takes note of a beat on a heartbeat stream. The first beat of a stream is ignored if there
    /// is a newer stream, and so is any beat of a stream that is being closed.
    pub(super) fn beats(&mut self, beat: GrantedLease) {
        let newest = self.leases.last().map(|lease| lease.stream);
        if let Some(known) = self.lease_mut(beat.stream) {
            *known = beat;
        } else if beat.sequence == 0 && newest < Some(beat.stream) {
            self.leases.reserve_exact(1);
            self.leases.push(beat);
        }
    }

    /// The heartbeat stream, if an ack may be sent on it.
    pub(super) fn lease(&self, stream: StreamId) -> Option<&GrantedLease> {
        self.leases.iter().find(|lease| lease.stream == stream)
    }

    /// Removes a heartbeat stream that has ended, or on which no further ack is to be sent.
    pub(super) fn forget_lease(&mut self, stream: StreamId) {
        self.leases.retain(|lease| lease.stream != stream);
    }

    /// Removes and returns the heartbeat streams on this connection.
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

    /// The connection for a new stream: the newest good one, because an older one may be dead
    /// without a sign of it yet.
    pub(super) fn usable(&self) -> Option<ConnectionId> {
        let mut newest_first = self.connections.iter().rev();
        newest_first
            .find(|(_, health)| *health == Health::Good)
            .map(|(open, _)| *open)
    }

    /// The connections on which an ack was late.
    pub(super) fn silent(&self) -> Vec<ConnectionId> {
        let silent =
            |(open, health): &(ConnectionId, Health)| (*health == Health::Silent).then_some(*open);
        self.connections.iter().filter_map(silent).collect()
    }

    /// Lowers the state of this connection, on which an answer was late. The older connections are
    /// treated alike.
    pub(super) fn suspect(&mut self, connection: ConnectionId, health: Health) {
        let Some(at) = self.position(connection) else {
            return;
        };
        for (_, known) in self.connections.iter_mut().take(at + 1) {
            *known = health.max(*known);
        }
    }

    /// Takes note that an answer came on this connection.
    pub(super) fn trust(&mut self, connection: ConnectionId) {
        if let Some((_, known)) = self
            .position(connection)
            .and_then(|at| self.connections.get_mut(at))
        {
            *known = Health::Good;
        }
    }

    /// Takes note that a beat of the peer came on this connection. The beat proves only one
    /// direction, but a peer that gets no ack makes a new connection by itself.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(1_000_000 + ms)
    }

    /// A peer that has sent as many beats at once as it may.
    fn spent() -> Contact {
        let mut contact = Contact::default();
        send_burst(&mut contact, 0);
        contact
    }

    fn send_burst(contact: &mut Contact, at: u64) {
        (0..BEATS_AT_ONCE).for_each(|_| assert_eq!(contact.paced(ms(at)), Pace::Kept));
    }

    #[test]
    fn a_burst_of_beats_is_kept_and_the_next_one_is_too_fast() {
        assert_eq!(spent().paced(ms(0)), Pace::TooFast);
        // 16 a second: one each 62.5 ms.
        assert_eq!(spent().paced(ms(62)), Pace::TooFast);
        assert_eq!(spent().paced(ms(63)), Pace::Kept);
    }

    #[test]
    fn the_fastest_beats_that_can_be_configured_are_never_too_fast() {
        let mut contact = spent();
        for beat in 1..10_000 {
            // 100 ms, and the least factor of 0.8.
            assert_eq!(contact.paced(ms(beat * 80)), Pace::Kept, "{beat}");
        }
    }

    #[test]
    fn who_is_too_fast_again_without_a_pause_is_known() {
        let too_fast = || {
            let mut contact = spent();
            assert_eq!(contact.paced(ms(0)), Pace::TooFast);
            contact
        };
        let mut at_once = too_fast();
        assert_eq!(at_once.paced(ms(63)), Pace::Kept);
        assert_eq!(at_once.paced(ms(63)), Pace::AgainTooFast);
        // After 4 s all tokens are there again.
        for (pause, pace) in [(3_999, Pace::AgainTooFast), (4_000, Pace::TooFast)] {
            let mut contact = too_fast();
            let there = if pause < 4_000 {
                BEATS_AT_ONCE - 1
            } else {
                BEATS_AT_ONCE
            };
            (0..there).for_each(|_| assert_eq!(contact.paced(ms(pause)), Pace::Kept));
            assert_eq!(contact.paced(ms(pause)), pace, "{pause}");
        }
    }
}
