//! The two ends of a heartbeat stream, as state machines. The end that grants the lease has a task
//! of its own ([`Granted`]); the task of the connection polls the other one.
//!
//! Each beat wakes the end that grants twice: to read it, and to answer it. A turn of a connection
//! costs several thousand instructions (its muxer, all handlers, the protocols of each), so these
//! two are turns of the stream alone. The connection is left with one turn that reads its socket
//! and one that writes.
//!
//! Invariants: an idle end holds no read buffer (frames are read into a scratch buffer that all
//! connections of the thread share, and only an incomplete frame is kept); at most [`MAX_QUEUED`]
//! bytes wait to be written, and none waits longer than [`WRITE_TIMEOUT`]: a peer that does not
//! read loses its stream.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_timer::Delay;
use futures_util::{AsyncRead, AsyncWrite};
use libp2p::{Stream, swarm::ConnectionId};
use smol::Task;

use super::{
    handler::BeatPlace,
    mailbox::{Arrivals, Arrived, BeatFrame, Mail, Outbox},
};
use crate::{
    net::{executor, frames},
    protocol::{
        PeerId, StreamId,
        codec::{frame, heartbeat::decode_ack},
        farewell::ANSWER_LIMIT,
    },
};

/// Bytes that may wait for a peer to read them: two of the largest frames.
pub(crate) const MAX_QUEUED: usize = 2 * (frame::MAX_FRAME + frame::MAX_HEADER);
/// How long written bytes may wait for the peer to read them.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Acks that a server may send for one beat: the answer, and unsolicited ones. The only unsolicited
/// ack is `released`, and after it the server has no reason to send another before the next beat.
pub(crate) const MAX_ACKS: u8 = 4;

thread_local! {
    static SCRATCH: RefCell<[u8; frame::MAX_FRAME + frame::MAX_HEADER]> =
        const { RefCell::new([0; frame::MAX_FRAME + frame::MAX_HEADER]) };
}

/// Frames in both directions over one stream.
pub(super) struct Frames {
    io: Stream,
    /// The beginning of an incomplete frame, or whole frames that have not been taken yet.
    part: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    unflushed: bool,
    /// The time by which the peer must have read what waits to be written.
    deadline: Option<Box<Delay>>,
}

impl Frames {
    pub(super) fn new(io: Stream) -> Self {
        Self {
            io,
            part: Vec::new(),
            out: Vec::new(),
            written: 0,
            unflushed: false,
            deadline: None,
        }
    }

    /// Queues frames to be written.
    pub(super) fn send(&mut self, frames: Vec<u8>) -> io::Result<()> {
        if self.out.len() + frames.len() > MAX_QUEUED {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the peer does not read",
            ));
        }
        if self.out.is_empty() {
            self.out = frames;
        } else {
            self.out.extend_from_slice(&frames);
        }
        Ok(())
    }

    /// Writes the queued frames. An error if the peer has not read them in time.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.poll_out(cx)?.is_ready() {
            self.deadline = None;
            return Poll::Ready(Ok(()));
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::new(Delay::new(WRITE_TIMEOUT)));
        ready!(Pin::new(deadline).poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
            self.unflushed = true;
        }
        if self.written > 0 {
            (self.out, self.written) = (Vec::new(), 0);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The body of the next frame.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                if let Some((body, used)) = first_frame(&self.part)? {
                    self.part.drain(..used);
                    self.part.shrink_to_fit();
                    return Poll::Ready(Ok(body));
                }
                let n = ready!(Pin::new(&mut self.io).poll_read(cx, scratch))?;
                let Some(got) = scratch.get(..n).filter(|got| !got.is_empty()) else {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                };
                // Nearly always one whole frame arrives, which needs no buffer.
                if self.part.is_empty()
                    && let Some((body, used)) = first_frame(got)?
                {
                    self.part
                        .extend_from_slice(got.get(used..).unwrap_or_default());
                    return Poll::Ready(Ok(body));
                }
                self.part.extend_from_slice(got);
            }
        })
    }
}

/// The body of the frame at the start of `bytes`, and the frame's length, if the frame is complete.
fn first_frame(bytes: &[u8]) -> io::Result<Option<(Vec<u8>, usize)>> {
    Ok(frame::header(bytes, frame::MAX_FRAME)?.and_then(|header| {
        let end = header.frame();
        Some((bytes.get(header.length..end)?.to_vec(), end))
    }))
}

/// The end that grants the lease, at work. If it is dropped, its stream is reset.
pub(super) struct Granted {
    pub(super) stream: StreamId,
    outbox: Outbox,
    has_beaten: bool,
    work: Task<io::Error>,
}

impl Granted {
    /// Begins to read beats of a stream that was just opened. It ends if its first beat does not
    /// come within `first_beat`.
    pub(super) fn new(
        io: Stream,
        origin: Origin,
        arrivals: Arrivals,
        first_beat: Duration,
    ) -> Self {
        let mut inbound = Inbound::new(io, origin, arrivals, first_beat);
        Self {
            stream: origin.stream,
            outbox: inbound.outbox.clone(),
            has_beaten: false,
            work: executor::owned(poll_fn(move |cx| inbound.poll(cx))),
        }
    }

    /// Whether a beat has come.
    pub(super) fn has_beaten(&mut self) -> bool {
        self.has_beaten |= self.outbox.has_begun();
        self.has_beaten
    }

    /// Ends the stream once everything is written.
    pub(super) fn close(&self) {
        self.outbox.close();
    }

    /// Ready with the reason when the stream is over.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        Pin::new(&mut self.work).poll(cx)
    }
}

/// What it works on: one beat, one ack, then the next beat.
struct Inbound {
    frames: Frames,
    origin: Origin,
    arrivals: Arrivals,
    outbox: Outbox,
    /// The time by which the first beat must come.
    first: Option<Box<Delay>>,
    beats: u64,
    answering: bool,
    closing: bool,
}

/// The peer and the connection of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) stream: StreamId,
}

impl Inbound {
    fn new(io: Stream, origin: Origin, arrivals: Arrivals, first_beat: Duration) -> Self {
        Self {
            frames: Frames::new(io),
            origin,
            arrivals,
            outbox: Outbox::default(),
            first: Some(Box::new(Delay::new(first_beat))),
            beats: 0,
            answering: false,
            closing: false,
        }
    }

    /// Reads beats and writes acks. Ready with the reason when the stream is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self.poll_both(cx) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(io::ErrorKind::TimedOut.into()),
            Err(error) => Poll::Ready(error),
        }
    }

    /// Ready when the first beat has not come in time.
    fn poll_both(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let Mail {
            bytes,
            answers,
            closes,
            overflows,
        } = self.outbox.take(cx);
        self.answering &= !answers;
        self.closing |= closes;
        if overflows {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.frames.send(bytes)?;
        if self.frames.poll_write(cx)?.is_pending() {
            return Ok(Poll::Pending);
        }
        if self.closing {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if !self.answering
            && let Poll::Ready(body) = self.frames.poll_frame(cx)?
        {
            self.arrived(body)?;
        }
        Ok(poll_limit(&mut self.first, cx))
    }

    fn arrived(&mut self, body: Vec<u8>) -> io::Result<()> {
        let Origin {
            peer,
            connection,
            stream,
        } = self.origin;
        let frame = BeatFrame {
            peer,
            connection,
            stream,
            sequence: self.beats,
            body,
        };
        let outbox = self.outbox.clone();
        self.beats = self.beats.wrapping_add(1);
        self.answering = true;
        if self.first.take().is_some() {
            self.outbox.begin();
        }
        if self.arrivals.push(Arrived { frame, outbox }) {
            Ok(())
        } else {
            Err(io::ErrorKind::ResourceBusy.into())
        }
    }
}

/// The end that holds the lease.
pub(crate) struct Outbound {
    frames: Frames,
    /// Names the lease.
    pub(crate) lease: u64,
    /// The sequence of the next beat.
    next: u64,
    /// Set if the lease was given up: the time by which the last ack must come.
    leaving: Option<Box<Delay>>,
    /// Acks received since the last beat.
    acks: u8,
}

impl Outbound {
    pub(crate) fn new(io: Stream, lease: u64) -> Self {
        Self {
            frames: Frames::new(io),
            lease,
            next: 0,
            leaving: None,
            acks: 0,
        }
    }

    /// Writes a beat. The ack that answers the last one ends the stream.
    pub(crate) fn beat(&mut self, body: &[u8], place: BeatPlace) -> io::Result<()> {
        if place == BeatPlace::Last {
            self.leaving = Some(Box::new(Delay::new(ANSWER_LIMIT)));
        }
        self.next += 1;
        self.acks = 0;
        self.frames.send(frames::frame(body))
    }

    /// The next ack, or an error when the stream is over. The error's kind is `InvalidData` if the
    /// server sent something invalid.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        while self.frames.poll_write(cx)?.is_ready()
            && let Poll::Ready(body) = self.frames.poll_frame(cx)?
        {
            if self.acks == MAX_ACKS {
                let why = format!("it sent more than {MAX_ACKS} acks for one beat");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
            self.acks += 1;
            if self.leaving.is_none() {
                return Poll::Ready(Ok(body));
            }
            // Before its answer to the last beat, the server may send the one to the beat before,
            // and `released`.
            let last = self.next.saturating_sub(1);
            if !decode_ack(&body).is_ok_and(|ack| ack.sequence < last) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
        ready!(poll_limit(&mut self.leaving, cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Ready when the time is over. Never ready without a limit.
fn poll_limit(limit: &mut Option<Box<Delay>>, cx: &mut Context<'_>) -> Poll<()> {
    match limit {
        Some(limit) => Pin::new(limit).poll(cx),
        None => Poll::Pending,
    }
}
