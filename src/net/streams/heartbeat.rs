//! The two ends of a heartbeat stream, as poll machines of a connection's own task.
//!
//! Invariants: an idle end holds no read buffer (frames are read into a scratch buffer that all connections of the thread
//! share, and only a torn frame is kept); at most [`MAX_QUEUED`] bytes wait to be written, and none waits longer than
//! [`WRITE_TIMEOUT`]: a peer that does not read loses its stream.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_timer::Delay;
use futures_util::{AsyncRead, AsyncWrite};
use libp2p::Stream;

use crate::{protocol::StreamId, wire::frame};

/// Bytes that may wait for a peer to read them: two of the largest frames.
pub(crate) const MAX_QUEUED: usize = 2 * (frame::MAX_FRAME + frame::MAX_HEADER);
/// How long written bytes may wait for the peer to read them.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an opened stream may wait for its first beat.
const FIRST_BEAT_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// How long the last ack may take after the lease was given up.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(1000);

thread_local! {
    static SCRATCH: RefCell<[u8; frame::MAX_FRAME + frame::MAX_HEADER]> =
        const { RefCell::new([0; frame::MAX_FRAME + frame::MAX_HEADER]) };
}

/// Frames in both directions over one stream.
struct Frames {
    io: Stream,
    /// The beginning of a frame whose rest has not come, or whole frames that were not asked for yet.
    part: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    unflushed: bool,
    /// Until when the peer has to take what waits to be written.
    deadline: Option<Box<Delay>>,
}

impl Frames {
    fn new(io: Stream) -> Self {
        Self {
            io,
            part: Vec::new(),
            out: Vec::new(),
            written: 0,
            unflushed: false,
            deadline: None,
        }
    }

    fn send(&mut self, body: &[u8]) -> io::Result<()> {
        if self.out.len() + body.len() + frame::MAX_HEADER > MAX_QUEUED {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the peer does not read",
            ));
        }
        self.out.extend(frame::frame(body));
        Ok(())
    }

    /// Writes what waits. An error if the peer has not taken it in time.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        loop {
            if let Some(body) = self.take_frame()? {
                return Poll::Ready(Ok(body));
            }
            ready!(self.poll_read(cx))?;
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let n = ready!(Pin::new(&mut self.io).poll_read(cx, scratch))?;
            match scratch.get(..n) {
                Some(got) if n > 0 => self.part.extend_from_slice(got),
                _ => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
            Poll::Ready(Ok(()))
        })
    }

    fn take_frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let Some((header, body)) = frame::header(&self.part, frame::MAX_FRAME).map_err(invalid)?
        else {
            return Ok(None);
        };
        let Some(whole) = self.part.get(header..header + body).map(<[u8]>::to_vec) else {
            return Ok(None);
        };
        self.part.drain(..header + body);
        self.part.shrink_to_fit();
        Ok(Some(whole))
    }
}

/// The end that grants the lease: one beat, one ack, then the next beat.
pub(crate) struct Inbound {
    frames: Frames,
    /// Names the stream.
    pub(crate) stream: StreamId,
    /// Until when the first beat has to come.
    first: Option<Box<Delay>>,
    beats: u64,
    answering: bool,
    closing: bool,
}

impl Inbound {
    pub(crate) fn new(io: Stream, stream: StreamId) -> Self {
        Self {
            frames: Frames::new(io),
            stream,
            first: Some(Box::new(Delay::new(FIRST_BEAT_TIMEOUT))),
            beats: 0,
            answering: false,
            closing: false,
        }
    }

    /// Writes an ack, asked for or not; the next beat is read once the asked one is out.
    pub(crate) fn ack(&mut self, body: &[u8], asked: bool) -> io::Result<()> {
        self.answering &= !asked;
        self.frames.send(body)
    }

    /// Ends the stream once everything is written.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    /// The next beat and the sequence that it must have; an error when the stream is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(u64, Vec<u8>)>> {
        ready!(self.frames.poll_write(cx))?;
        if self.closing {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if !self.answering
            && let Poll::Ready(body) = self.frames.poll_frame(cx)
        {
            let sequence = self.beats;
            self.beats = self.beats.wrapping_add(1);
            self.answering = true;
            self.first = None;
            return Poll::Ready(Ok((sequence, body?)));
        }
        ready!(poll_limit(&mut self.first, cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The end that holds the lease.
pub(crate) struct Outbound {
    frames: Frames,
    /// Names the lease.
    pub(crate) lease: u64,
    /// The lease was given up: until when the last ack has to come.
    leaving: Option<Box<Delay>>,
}

impl Outbound {
    pub(crate) fn new(io: Stream, lease: u64) -> Self {
        Self {
            frames: Frames::new(io),
            lease,
            leaving: None,
        }
    }

    /// Writes a beat; after the `last` the stream ends with its ack.
    pub(crate) fn beat(&mut self, body: &[u8], last: bool) -> io::Result<()> {
        if last {
            self.leaving = Some(Box::new(Delay::new(FAREWELL_TIMEOUT)));
        }
        self.frames.send(body)
    }

    /// The next ack; an error when the stream is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let blocked = self.frames.poll_write(cx)?.is_pending();
        if !blocked && let Poll::Ready(body) = self.frames.poll_frame(cx) {
            return match body {
                Ok(_) if self.leaving.is_some() => {
                    Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
                }
                body => Poll::Ready(body),
            };
        }
        ready!(poll_limit(&mut self.leaving, cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Ready when the time is over; never without a limit.
fn poll_limit(limit: &mut Option<Box<Delay>>, cx: &mut Context<'_>) -> Poll<()> {
    match limit {
        Some(limit) => Pin::new(limit).poll(cx),
        None => Poll::Pending,
    }
}
