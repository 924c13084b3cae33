//! Yamux that ends a connection once it has sent a GoAway.
//!
//! When a frame breaks the rules, the library logs an error, sends a GoAway, and reads on. So the
//! peer could send a million such frames. By the specification a GoAway ends the session, so
//! nothing is read after one: the library finds the connection closed, and the swarm drops it.
//!
//! The error is the peer's, and the library does not name the peer. So the program's log does not
//! show the line, but gives it to [`heard`]; here it becomes the reason in a line of our own, and
//! is counted.
//!
//! ```text
//!  Yamux ──frames──▶ Watched ──▶ Noise ──▶ TCP
//!        ◀──(the end, once a GoAway was written)──
//! ```
//!
//! Invariants: whatever Yamux has logged since a connection's muxer was last polled is about that
//! connection, because both happen in one thread and in one call; once Yamux writes a GoAway, it
//! reads nothing more; bytes pass through unchanged; the body of a frame is never taken for a
//! header.

use std::cell::{Cell, RefCell};
#[cfg(feature = "program")]
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures_util::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::{PeerId, yamux};

use super::each::{About, each, short_id};

/// Bytes of a frame's header: version, type, flags (2), stream (4), length (4).
const HEADER: usize = 12;
/// The frame type with a body (its length field counts the bytes of that body), and the frame type
/// that ends the connection.
const DATA: u8 = 0;
const GO_AWAY: u8 = 3;

thread_local! {
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
    static BROKEN: Cell<u64> = const { Cell::new(0) };
}

/// Bytes of a reason at most.
#[cfg(feature = "program")]
const MAX_REASON: usize = 120;

/// Whether the log's lines with this target are Yamux's.
#[cfg(feature = "program")]
pub(crate) fn is_yamuxs(target: &str) -> bool {
    target == "yamux" || target.starts_with("yamux::")
}

/// Takes an error that Yamux has logged, which begins with its own name of the connection or
/// stream.
#[cfg(feature = "program")]
pub(crate) fn heard(line: &fmt::Arguments<'_>) {
    let line = line.to_string();
    let reason = line.split_once(": ").map_or(&*line, |(_, reason)| reason);
    let reason = crate::protocol::cut(reason, MAX_REASON).to_owned();
    HEARD.set(Some(reason));
}

/// How many connections this thread has closed because a peer broke the rules of Yamux.
pub(crate) fn broken() -> u64 {
    BROKEN.get()
}

/// Yamux, as an upgrade.
#[derive(Clone)]
pub(super) struct Config(pub(super) yamux::Config);

/// A muxer, and whether it has ended the connection.
pub(super) struct Muxer<M> {
    inner: M,
    broken: Arc<AtomicBool>,
    peer: Option<PeerId>,
    /// What Yamux has logged of this connection.
    why: Option<String>,
}

impl<M> Muxer<M> {
    /// The same muxer with the peer's id, for the log.
    pub(super) fn of(self, peer: PeerId) -> Self {
        let peer = Some(peer);
        Self { peer, ..self }
    }

    /// Logs once why the connection ends, if Yamux ended it.
    fn note<T, E>(&mut self, polled: Poll<Result<T, E>>) -> Poll<Result<T, E>> {
        if let Some(why) = HEARD.take() {
            self.why = Some(why);
        }
        if let Poll::Ready(Err(_)) = polled
            && self.broken.load(Relaxed)
            && let Some(peer) = self.peer.take()
        {
            BROKEN.set(BROKEN.get().saturating_add(1));
            let about = About::peer(&peer);
            let why = self.why.take();
            each!(
                warn,
                &about;
                "closed a connection of peer {}: it broke the rules of Yamux{}{}",
                short_id(&about.peer),
                if why.is_some() { ": " } else { "" },
                why.unwrap_or_default()
            );
        }
        polled
    }
}

impl UpgradeInfo for Config {
    type Info = <yamux::Config as UpgradeInfo>::Info;
    type InfoIter = <yamux::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C> InboundConnectionUpgrade<C> for Config
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Muxer<yamux::Muxer<Watched<C>>>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Output>>;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        let (socket, broken) = Watched::new(socket);
        std::future::ready(at_once(self.0.upgrade_inbound(socket, info), broken))
    }
}

impl<C> OutboundConnectionUpgrade<C> for Config
where
    C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Output = Muxer<yamux::Muxer<Watched<C>>>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Output>>;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        let (socket, broken) = Watched::new(socket);
        std::future::ready(at_once(self.0.upgrade_outbound(socket, info), broken))
    }
}

/// Yamux is negotiated by its name alone, so its upgrade is done at once.
fn at_once<M>(
    upgrade: futures_util::future::Ready<io::Result<M>>,
    broken: Arc<AtomicBool>,
) -> io::Result<Muxer<M>> {
    Ok(Muxer {
        inner: upgrade.into_inner()?,
        broken,
        peer: None,
        why: None,
    })
}

impl<M: StreamMuxer + Unpin> StreamMuxer for Muxer<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let polled = Pin::new(&mut self.inner).poll_inbound(cx);
        self.note(polled)
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        Pin::new(&mut self.inner).poll_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        let polled = Pin::new(&mut self.inner).poll(cx);
        self.note(polled)
    }
}

/// What Yamux reads from and writes to.
pub(super) struct Watched<C> {
    inner: C,
    frames: Frames,
    broken: Arc<AtomicBool>,
}

impl<C> Watched<C> {
    fn new(inner: C) -> (Self, Arc<AtomicBool>) {
        let broken = Arc::new(AtomicBool::new(false));
        let watched = Self {
            inner,
            frames: Frames::default(),
            broken: broken.clone(),
        };
        (watched, broken)
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Watched<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.broken.load(Relaxed) {
            true => Poll::Ready(Ok(0)),
            false => Pin::new(&mut self.inner).poll_read(cx, room),
        }
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Watched<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Checked before the write: a peer that reads nothing would delay the write.
        if self.frames.clone().pass(bytes) {
            self.broken.store(true, Relaxed);
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.frames.pass(bytes.get(..*count).unwrap_or(bytes));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// The position in the frames that are being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Frames {
    /// The number of header bytes that have passed, and the type and the length in them.
    passed: usize,
    kind: u8,
    length: [u8; 4],
    /// Bytes of the body that are still to come.
    body: usize,
}

impl Frames {
    /// Takes the next bytes. Returns whether a GoAway begins in them.
    fn pass(&mut self, bytes: &[u8]) -> bool {
        let mut ends = false;
        let mut left = bytes;
        while let Some((byte, rest)) = left.split_first() {
            if self.body > 0 {
                let of_body = self.body.min(left.len());
                self.body -= of_body;
                left = left.get(of_body..).unwrap_or_default();
                continue;
            }
            match self.passed {
                1 => {
                    self.kind = *byte;
                    ends |= *byte == GO_AWAY;
                }
                8..HEADER => {
                    if let Some(place) = self.length.get_mut(self.passed - 8) {
                        *place = *byte;
                    }
                }
                _ => {}
            }
            self.passed = (self.passed + 1) % HEADER;
            if self.passed == 0 && self.kind == DATA {
                self.body = usize::try_from(u32::from_be_bytes(self.length)).unwrap_or(usize::MAX);
            }
            left = rest;
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use smol::io::Cursor;

    use super::*;

    fn frame(kind: u8, length: u32, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, kind, 0, 0, 0, 0, 0, 1];
        frame.extend(length.to_be_bytes());
        frame.extend(body);
        frame
    }

    #[test]
    fn only_a_header_ends_it_wherever_the_writes_are_cut() {
        // A window update (its length field is not a length); a body that looks like a GoAway; a
        // ping.
        let before = [
            frame(1, 300, &[]),
            frame(DATA, 12, &frame(GO_AWAY, 0, &[])),
            frame(DATA, 0, &[]),
            frame(2, 7, &[]),
        ]
        .concat();
        let all = [before.clone(), frame(GO_AWAY, 1, &[])].concat();
        for piece in 1..=all.len() {
            let mut frames = Frames::default();
            let mut passed = 0;
            for bytes in all.chunks(piece) {
                let ends = frames.pass(bytes);
                let has_type =
                    passed < before.len() + 2 && passed + bytes.len() >= before.len() + 2;
                assert_eq!(ends, has_type, "{passed} in pieces of {piece}");
                passed += bytes.len();
            }
        }
    }

    #[test]
    fn nothing_is_read_once_a_goaway_is_about_to_be_written() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut read = |socket: &mut Watched<_>| {
            let polled = Pin::new(socket).poll_read(&mut cx, &mut [0; 4]);
            assert!(matches!(polled, Poll::Ready(Ok(_))));
            match polled {
                Poll::Ready(Ok(count)) => count,
                _ => 0,
            }
        };
        let (mut socket, broken) = Watched::new(Cursor::new(vec![7; 100]));
        assert_eq!(read(&mut socket), 4);
        let mut cx = Context::from_waker(Waker::noop());
        let ping = frame(2, 0, &[]);
        let _ = Pin::new(&mut socket).poll_write(&mut cx, &ping);
        assert!(!broken.load(Relaxed));
        assert_eq!(read(&mut socket), 4);
        let goaway = frame(GO_AWAY, 1, &[]);
        let _ = Pin::new(&mut socket).poll_write(&mut cx, &goaway);
        assert!(broken.load(Relaxed));
        assert_eq!(read(&mut socket), 0);
    }
}
