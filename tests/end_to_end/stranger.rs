//! A peer that speaks libp2p up to a point, and then sends arbitrary bytes.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{AsyncRead, AsyncWrite};
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::transport::{
    DialOpts, ListenerId, PortUse, Transport, TransportError, TransportEvent,
};
use libp2p::core::upgrade::{
    InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo, Version,
};
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, noise};
use smol::io::Cursor;
use smol::{Async, block_on};

use super::harness::Peer;

/// The connection below the frames of Yamux.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Bytes for C {}

/// Where a peer listens.
pub(crate) fn socket(peer: &Peer) -> SocketAddr {
    let parts: Vec<&str> = peer.addr.split('/').collect();
    format!("{}:{}", parts[2], parts[4]).parse().unwrap()
}

/// Connects, proves that it has `key`, and negotiates Yamux. From then on the test sends the
/// frames.
pub(crate) fn connect(to: &Peer, key: &Keypair) -> Pin<Box<dyn Bytes>> {
    let opts = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let mut stack = Dial(socket(to))
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(key).unwrap())
        .multiplex(Yamux);
    let dialled = stack.dial(Multiaddr::empty(), opts).unwrap();
    block_on(dialled).unwrap().1.0
}

/// A transport to one address.
struct Dial(SocketAddr);

impl Transport for Dial {
    type Output = Async<TcpStream>;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<Self::Output>>;
    type Dial = Ready<io::Result<Self::Output>>;

    fn listen_on(
        &mut self,
        _: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(addr))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, _: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        Ok(ready(TcpStream::connect(self.0).and_then(Async::new)))
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Poll::Pending
    }
}

/// Negotiates Yamux, and leaves the frames to the test.
#[derive(Clone)]
struct Yamux;

struct Frames(Pin<Box<dyn Bytes>>);

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C: Bytes + 'static> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Frames;
    type Error = Infallible;
    type Future = Ready<Result<Frames, Infallible>>;

    fn upgrade_outbound(self, socket: C, _: &'static str) -> Self::Future {
        ready(Ok(Frames(Box::pin(socket))))
    }
}

impl<C: Bytes + 'static> InboundConnectionUpgrade<C> for Yamux {
    type Output = Frames;
    type Error = Infallible;
    type Future = Ready<Result<Frames, Infallible>>;

    fn upgrade_inbound(self, socket: C, _: &'static str) -> Self::Future {
        ready(Ok(Frames(Box::pin(socket))))
    }
}

impl StreamMuxer for Frames {
    type Substream = Cursor<Vec<u8>>;
    type Error = Infallible;

    fn poll_inbound(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Infallible>> {
        Poll::Pending
    }

    fn poll_outbound(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Infallible>> {
        Poll::Pending
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Infallible>> {
        Poll::Pending
    }
}
