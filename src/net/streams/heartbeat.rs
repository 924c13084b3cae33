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
/// How long written bytes may wait for the peer to read them, and an opened stream for its first beat.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
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
    deadline: Option<Box<Delay>>,
}

impl Frames {
    fn new(io: Stream, deadline: Option<Duration>) -> Self {
        Self {
            io,
            part: Vec::new(),
            out: Vec::new(),
            written: 0,
            unflushed: false,
            deadline: deadline.map(|limit| Box::new(Delay::new(limit))),
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

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.io).poll_write(cx, rest)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(n) => self.written += n,
                Poll::Pending => {
                    self.deadline
                        .get_or_insert_with(|| Box::new(Delay::new(WRITE_TIMEOUT)));
                    return Poll::Pending;
                }
            }
            self.unflushed = true;
        }
        if self.written > 0 {
            (self.out, self.written) = (Vec::new(), 0);
            self.deadline = None;
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

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let over = self
            .deadline
            .as_mut()
            .is_some_and(|deadline| Pin::new(deadline).poll(cx).is_ready());
        if over {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            Ok(())
        }
    }
}

/// The end that grants the lease: one beat, one ack, then the next beat.
pub(crate) struct Inbound {
    frames: Frames,
    /// Names the stream.
    pub(crate) stream: StreamId,
    beats: u64,
    answering: bool,
    closing: bool,
}

impl Inbound {
    pub(crate) fn new(io: Stream, stream: StreamId) -> Self {
        Self {
            frames: Frames::new(io, Some(WRITE_TIMEOUT)),
            stream,
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
        if self.frames.poll_write(cx)?.is_pending() {
            self.frames.poll_deadline(cx)?;
            return Poll::Pending;
        }
        if self.closing {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if !self.answering
            && let Poll::Ready(body) = self.frames.poll_frame(cx)
        {
            let sequence = self.beats;
            self.beats = self.beats.wrapping_add(1);
            self.answering = true;
            self.frames.deadline = None;
            return Poll::Ready(Ok((sequence, body?)));
        }
        self.frames.poll_deadline(cx)?;
        Poll::Pending
    }
}

/// The end that holds the lease.
pub(crate) struct Outbound {
    frames: Frames,
    leaving: bool,
}

impl Outbound {
    pub(crate) fn new(io: Stream) -> Self {
        Self {
            frames: Frames::new(io, None),
            leaving: false,
        }
    }

    /// Writes a beat; after the `last` the stream ends with its ack.
    pub(crate) fn beat(&mut self, body: &[u8], last: bool) -> io::Result<()> {
        if last {
            self.leaving = true;
            self.frames.deadline = Some(Box::new(Delay::new(FAREWELL_TIMEOUT)));
        }
        self.frames.send(body)
    }

    /// The next ack; an error when the stream is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let blocked = self.frames.poll_write(cx)?.is_pending();
        if !blocked && let Poll::Ready(body) = self.frames.poll_frame(cx) {
            return match body {
                Ok(_) if self.leaving => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                body => Poll::Ready(body),
            };
        }
        self.frames.poll_deadline(cx)?;
        Poll::Pending
    }
}
