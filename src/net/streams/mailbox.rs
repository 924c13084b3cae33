//! Passes beats and acks between heartbeat streams and the loop directly, without the swarm.
//!
//! This is the most frequent work of a server. Through the swarm each beat would pass two channels,
//! and each ack would need a search among all connections (libp2p-swarm 0.48 looks for a connection
//! peer by peer). With 1000 leases that took a third of the time.
//!
//! ```text
//!  the stream's task                     the loop
//!    Inbound ────beat────▶ Arrivals ────▶ Streams::poll_beat
//!            ◀───ack────── Outbox ◀────── Streams::ack
//! ```
//!
//! Invariants: a stream has at most one beat here, because the next is read only after this one is
//! answered; all streams together have at most [`MAX_ARRIVED`]; an outbox holds at most
//! [`MAX_QUEUED`] bytes. A beat or ack that does not fit ends its stream.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use libp2p::swarm::ConnectionId;

use super::heartbeat::MAX_QUEUED;
use crate::{
    net::{executor::remember, frames},
    protocol::{PeerId, StreamId, codec::frame},
};

/// Beats that wait at most. The loop takes them after a few steps of connections, so only an attack
/// can produce more.
const MAX_ARRIVED: usize = 4096;

/// The frame of a beat, and its source. It is not decoded.
#[derive(Debug)]
pub(crate) struct BeatFrame {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) stream: StreamId,
    /// What the beat's sequence must be.
    pub(crate) sequence: u64,
    pub(crate) body: Vec<u8>,
}

/// A beat that was received.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) frame: BeatFrame,
    /// Takes its ack.
    pub(crate) outbox: Outbox,
}

/// Beats of all connections, in the order in which they were read. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    beats: VecDeque<Arrived>,
    reader: Option<Waker>,
}

impl Arrivals {
    /// Adds a beat. Returns false if there are too many.
    pub(super) fn push(&self, beat: Arrived) -> bool {
        let mut waiting = lock(&self.0);
        let room = waiting.beats.len() < MAX_ARRIVED;
        if room {
            waiting.beats.push_back(beat);
            if let Some(reader) = waiting.reader.take() {
                reader.wake();
            }
        }
        room
    }

    /// Gives back memory that is no longer needed.
    pub(super) fn shrink(&self) {
        lock(&self.0).beats.shrink_to_fit();
    }

    /// The oldest beat.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Arrived> {
        let _before;
        let mut waiting = lock(&self.0);
        if let Some(beat) = waiting.beats.pop_front() {
            return Poll::Ready(beat);
        }
        _before = remember(&mut waiting.reader, cx);
        Poll::Pending
    }
}

/// The acks to be sent on one heartbeat stream. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox(Arc<Mutex<Letters>>);

#[derive(Debug, Default)]
struct Letters {
    mail: Mail,
    carrier: Option<Waker>,
    /// A beat has come.
    has_begun: bool,
}

impl Letters {
    fn call(&mut self) {
        if let Some(carrier) = self.carrier.take() {
            carrier.wake();
        }
    }
}

/// The content of an outbox, for its stream.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// Whole frames.
    pub(super) bytes: Vec<u8>,
    /// The beat is answered, so the next may be read.
    pub(super) answers: bool,
    /// The stream ends after this.
    pub(super) closes: bool,
    /// More was put than fits, because the peer does not read.
    pub(super) overflows: bool,
}

/// What an ack means for its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckKind {
    /// It answers no beat.
    Unsolicited,
    /// It answers the last beat.
    Answer,
    /// The same, and the stream ends after it.
    LastAnswer,
}

impl Outbox {
    /// Adds an ack.
    pub(super) fn put(&self, body: &[u8], kind: AckKind) {
        let mut letters = lock(&self.0);
        let mail = &mut letters.mail;
        if mail.bytes.len() + body.len() + frame::MAX_HEADER > MAX_QUEUED {
            mail.overflows = true;
        } else {
            frames::append(&mut mail.bytes, body);
        }
        mail.answers |= kind != AckKind::Unsolicited;
        mail.closes |= kind == AckKind::LastAnswer;
        letters.call();
    }

    /// The first beat has come.
    pub(super) fn begin(&self) {
        lock(&self.0).has_begun = true;
    }

    /// Whether a beat has come.
    pub(super) fn has_begun(&self) -> bool {
        lock(&self.0).has_begun
    }

    /// Ends the stream after what was put.
    pub(super) fn close(&self) {
        let mut letters = lock(&self.0);
        letters.mail.closes = true;
        letters.call();
    }

    /// Takes what was put since the last call.
    pub(super) fn take(&self, cx: &mut Context<'_>) -> Mail {
        let _before;
        let mut letters = lock(&self.0);
        _before = remember(&mut letters.carrier, cx);
        std::mem::take(&mut letters.mail)
    }
}

/// No code here panics while it holds a lock.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn beat(sequence: u64) -> Arrived {
        let frame = BeatFrame {
            peer: PeerId::from_bytes([1; 32]),
            connection: ConnectionId::new_unchecked(1),
            stream: StreamId(1),
            sequence,
            body: Vec::new(),
        };
        let outbox = Outbox::default();
        Arrived { frame, outbox }
    }

    #[test]
    fn beats_come_out_in_order_and_no_more_than_fit_wait() {
        let arrivals = Arrivals::default();
        assert!(arrivals.poll(&mut cx()).is_pending());
        for sequence in 0..MAX_ARRIVED as u64 {
            assert!(arrivals.push(beat(sequence)));
        }
        assert!(!arrivals.push(beat(0)));
        for sequence in 0..MAX_ARRIVED as u64 {
            match arrivals.poll(&mut cx()) {
                Poll::Ready(beat) => assert_eq!(beat.frame.sequence, sequence),
                Poll::Pending => panic!("beat {sequence} is lost"),
            }
        }
        assert!(arrivals.poll(&mut cx()).is_pending());
    }

    #[test]
    fn an_outbox_keeps_what_was_said_until_it_is_taken() {
        let outbox = Outbox::default();
        outbox.put(b"ab", AckKind::Unsolicited);
        outbox.put(b"c", AckKind::LastAnswer);
        let mail = outbox.take(&mut cx());
        assert_eq!(mail.bytes, b"\x02ab\x01c");
        assert!(mail.answers && mail.closes && !mail.overflows);
        let mail = outbox.take(&mut cx());
        assert!(mail.bytes.is_empty() && !mail.answers && !mail.closes);
    }

    #[test]
    fn an_outbox_that_is_full_says_so_and_keeps_what_it_has() {
        let outbox = Outbox::default();
        let body = [0; MAX_QUEUED - frame::MAX_HEADER];
        outbox.put(&body, AckKind::Answer);
        assert!(!outbox.take(&mut cx()).overflows);
        outbox.put(&body, AckKind::Answer);
        outbox.put(&[0], AckKind::Answer);
        let mail = outbox.take(&mut cx());
        assert!(mail.overflows);
        assert!(mail.bytes.len() > body.len());
    }
}
