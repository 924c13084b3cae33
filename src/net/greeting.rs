//! The first bytes of a connection show whether its two ends have the same pre-shared key.
//!
//! Whoever speaks libp2p begins with one line, [`GREETING`]. With a key ([`libp2p::pnet`]), each
//! end first sends 24 random bytes, and all that follows is enciphered:
//!
//! | the reader | reads | so |
//! |---|---|---|
//! | has no key | the greeting | all is well |
//! | has no key | random bytes | the peer has a key |
//! | has a key | the greeting, not enciphered | the peer has no key |
//! | has a key | the greeting, deciphered | all is well |
//! | has a key | other bytes, deciphered | the peer has another key |
//!
//! Without this, the end that was dialled takes random bytes for the length of a message, waits for
//! the rest of it, and both ends are silent until the time limit.
//!
//! Invariants: a mismatch ends the connection at the first byte that shows it; the end that was
//! dialled first sends its greeting, so that the dialler too sees what is wrong. That tells no
//! more than every dialler does. Text, TLS and the like are another protocol, not another key.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::{AsyncRead, AsyncWrite};
use libp2p::core::ConnectedPoint;

use super::refusals::{Refusal, Refusals, Why};

/// The line with which libp2p begins (multistream-select 1.0), after its length.
const GREETING: &[u8; 20] = b"\x13/multistream/1.0.0\n";
/// The random bytes before a ciphered connection.
const NONCE: usize = 24;

/// Which greeting is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// The socket of a process without a key.
    Open,
    /// The socket of a process with a key: no greeting here.
    Sealed,
    /// What is deciphered with the key.
    Deciphered,
}

/// The ends of a connection, and where a mismatch is reported.
pub(super) struct Ends {
    point: ConnectedPoint,
    refusals: Refusals,
}

impl Ends {
    pub(super) fn new(point: ConnectedPoint, refusals: Refusals) -> Arc<Self> {
        Arc::new(Self { point, refusals })
    }

    fn refuse(&self, why: Why) -> io::Error {
        let (addr, is_dialled) = match &self.point {
            ConnectedPoint::Dialer { address, .. } => (address, true),
            ConnectedPoint::Listener { send_back_addr, .. } => (send_back_addr, false),
        };
        let error = io::Error::new(io::ErrorKind::InvalidData, Mismatch(why));
        self.refusals.put(Refusal {
            addr: addr.clone(),
            is_dialled,
            why,
        });
        error
    }
}

/// The reason for which a handshake failed, in one sentence.
#[derive(Debug)]
struct Mismatch(Why);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Mismatch {}

/// A connection whose first bytes are compared with the greeting.
pub(super) struct Greeted<S> {
    inner: S,
    layer: Layer,
    /// `None` when the greeting has been decided.
    ends: Option<Arc<Ends>>,
    /// Bytes that were equal so far; if `refused`, bytes of the own greeting that are written.
    seen: u8,
    /// Boxed, because nearly all connections keep its place for nothing.
    refused: Option<Box<Why>>,
}

impl<S> Greeted<S> {
    pub(super) fn new(inner: S, layer: Layer, ends: Arc<Ends>) -> Self {
        Self {
            inner,
            layer,
            ends: Some(ends),
            seen: 0,
            refused: None,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Greeted<S> {
    /// Compares what was read. Returns why the connection must end, if it must.
    fn compare(&mut self, cx: &mut Context<'_>, read: &[u8]) -> Option<Why> {
        let expected = GREETING.get(usize::from(self.seen)..)?;
        let equal = expected.iter().zip(read).take_while(|(a, b)| a == b);
        let equal = equal.count();
        let is_whole = equal == expected.len();
        let differs = !is_whole && equal < read.len();
        self.count(equal);
        match (self.layer, is_whole, differs) {
            (_, false, false) => None,
            (Layer::Sealed, true, _) => Some(Why::NoKey),
            (Layer::Sealed, false, true) if read.first_chunk().is_some_and(is_other_protocol) => {
                Some(Why::OtherProtocol)
            }
            (Layer::Open | Layer::Deciphered, true, _) | (Layer::Sealed, false, true) => {
                self.ends = None;
                None
            }
            (Layer::Deciphered, false, true) => Some(Why::OtherKey),
            (Layer::Open, false, true) => Some(self.of_open(cx, read)),
        }
    }

    /// What bytes mean that are no greeting, at a socket without a key. Looks what else is there.
    fn of_open(&mut self, cx: &mut Context<'_>, read: &[u8]) -> Why {
        let mut bytes = [0; NONCE + 1];
        let (begin, rest) = bytes.split_at_mut(read.len().min(NONCE + 1));
        begin.copy_from_slice(read.get(..begin.len()).unwrap_or_default());
        let more = match Pin::new(&mut self.inner).poll_read(cx, rest) {
            Poll::Ready(Ok(more)) => more,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        let len = begin.len() + more;
        match bytes.first_chunk() {
            Some(nonce) if len == NONCE && !is_other_protocol(nonce) => Why::HasKey,
            _ => Why::OtherProtocol,
        }
    }

    /// Whether the own greeting is still to be sent, so that the dialler sees what is wrong.
    fn answers(&self) -> bool {
        let point = self.ends.as_ref().map(|ends| &ends.point);
        self.layer != Layer::Sealed && matches!(point, Some(ConnectedPoint::Listener { .. }))
    }

    /// Sends the own greeting if the peer dialled, then fails.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, why: Why) -> Poll<io::Error> {
        if self.answers() {
            while let Some(left @ [_, ..]) = GREETING.get(usize::from(self.seen)..) {
                match ready!(Pin::new(&mut self.inner).poll_write(cx, left)) {
                    Ok(n) if n > 0 => self.count(n),
                    _ => break,
                }
            }
            let _ = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        }
        let again = || io::ErrorKind::ConnectionAborted.into();
        let ends = self.ends.take();
        Poll::Ready(ends.map_or_else(again, |ends| ends.refuse(why)))
    }

    fn count(&mut self, bytes: usize) {
        let bytes = u8::try_from(bytes).unwrap_or(u8::MAX);
        self.seen = self.seen.saturating_add(bytes);
    }
}

/// Whether these bytes are text or the begin of TLS: one random nonce in ten million is.
fn is_other_protocol(nonce: &[u8; NONCE]) -> bool {
    nonce.is_ascii() || matches!(nonce, [0x16, 0x03, _, _, _, 0x01, ..])
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.refused.is_none() {
            let n = ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            if this.ends.is_none() {
                return Poll::Ready(Ok(n));
            }
            let read = buf.get(..n).unwrap_or_default();
            this.refused = this.compare(cx, read).map(Box::new);
            if this.refused.is_none() {
                return Poll::Ready(Ok(n));
            }
            this.seen = 0;
        }
        let why = this
            .refused
            .as_deref()
            .copied()
            .unwrap_or(Why::OtherProtocol);
        this.poll_refuse(cx, why).map(Err)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests;
