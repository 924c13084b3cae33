//! One connection of a simulated peer: TCP from a loopback address of its own, Noise, Yamux,
//! without a swarm.
//!
//! The muxer is driven in the task of the peer's own work. Streams that the server opens are
//! answered as by any libp2p node: identify and ping.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt,
    channel::{mpsc, oneshot},
    future::{Either, select},
    stream::FuturesUnordered,
};
use libp2p::{
    PeerId,
    core::{
        StreamMuxer,
        upgrade::{OutboundConnectionUpgrade, UpgradeInfo},
    },
    identity::Keypair,
    noise, yamux,
};
use multistream_select::{Negotiated, Version, dialer_select_proto, listener_select_proto};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// The time limit from the first byte to the multiplexed connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Loopback addresses over which connections are spread, because servers limit what one source may
/// do at once.
const SOURCES: u32 = 250;

/// Bytes over all sockets since the start, below the encryption.
pub(crate) static SENT: AtomicU64 = AtomicU64::new(0);
pub(crate) static RECEIVED: AtomicU64 = AtomicU64::new(0);

type Secure = noise::Output<Negotiated<Counted>>;
type Muxer = yamux::Muxer<Negotiated<Secure>>;
type Raw = <Muxer as StreamMuxer>::Substream;
/// A stream with a negotiated protocol.
pub(crate) type Stream = Negotiated<Raw>;

/// Opens streams on a connection that [`run`] drives.
pub(crate) struct Opener(mpsc::UnboundedSender<oneshot::Sender<Raw>>);

impl Opener {
    /// A new stream for this protocol.
    pub(crate) async fn open(&self, protocol: &'static str) -> io::Result<Stream> {
        let (to, stream) = oneshot::channel();
        self.0
            .unbounded_send(to)
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        let stream = stream.await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        let (_, stream) = dialer_select_proto(stream, [protocol], Version::V1)
            .await
            .map_err(io::Error::other)?;
        Ok(stream)
    }
}

/// Connects and runs `work` on the connection until one of the two ends. Then the connection is
/// closed.
pub(crate) async fn run<F>(
    server: SocketAddr,
    number: u32,
    key: &Keypair,
    work: impl FnOnce(Opener) -> F,
) -> io::Result<()>
where
    F: Future<Output = io::Result<()>>,
{
    let muxer = tokio::time::timeout(CONNECT_LIMIT, connect(server, number, key))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    let (opener, opens) = mpsc::unbounded();
    let mut driver = Driver {
        muxer,
        opens,
        opening: None,
        answers: FuturesUnordered::new(),
        identity: identify_message(key),
    };
    let work = std::pin::pin!(work(Opener(opener)));
    let ended = {
        let muxer = std::future::poll_fn(|cx| driver.poll(cx));
        match select(work, std::pin::pin!(muxer)).await {
            Either::Left((done, _)) => done,
            Either::Right((Err(error), _)) => return Err(error),
        }
    };
    let close = std::future::poll_fn(|cx| Pin::new(&mut driver.muxer).poll_close(cx));
    let _ = tokio::time::timeout(Duration::from_secs(1), close).await;
    ended
}

async fn connect(server: SocketAddr, number: u32, key: &Keypair) -> io::Result<Muxer> {
    let tcp = TcpSocket::new_v4()?;
    if server.ip().is_loopback() {
        let [_, _, _, host] = (number % SOURCES + 1).to_be_bytes();
        let source: IpAddr = Ipv4Addr::new(127, 1, 0, host).into();
        tcp.bind((source, 0).into())?;
    }
    let tcp = tcp.connect(server).await?;
    tcp.set_nodelay(true)?;
    let tcp = Counted(tcp.compat());
    let noise = noise::Config::new(key).map_err(io::Error::other)?;
    let (_, tcp) = dialer_select_proto(tcp, noise.protocol_info(), Version::V1)
        .await
        .map_err(io::Error::other)?;
    let (_, secure): (PeerId, _) = noise
        .upgrade_outbound(tcp, "/noise")
        .await
        .map_err(io::Error::other)?;
    let yamux = yamux::Config::default();
    let (info, secure) = dialer_select_proto(secure, yamux.protocol_info(), Version::V1)
        .await
        .map_err(io::Error::other)?;
    yamux
        .upgrade_outbound(secure, info)
        .await
        .map_err(io::Error::other)
}

type Answer = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

struct Driver {
    muxer: Muxer,
    opens: mpsc::UnboundedReceiver<oneshot::Sender<Raw>>,
    opening: Option<oneshot::Sender<Raw>>,
    answers: FuturesUnordered<Answer>,
    identity: Vec<u8>,
}

impl Driver {
    /// Ready only with an error.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<std::convert::Infallible>> {
        loop {
            while let Poll::Ready(Some(_)) = self.answers.poll_next_unpin(cx) {}
            if self.opening.is_none()
                && let Poll::Ready(Some(to)) = self.opens.poll_next_unpin(cx)
            {
                self.opening = Some(to);
            }
            if self.opening.is_some()
                && let Poll::Ready(stream) = Pin::new(&mut self.muxer).poll_outbound(cx)
            {
                let stream = stream.map_err(io::Error::other)?;
                if let Some(to) = self.opening.take() {
                    let _ = to.send(stream);
                }
                continue;
            }
            let stream = ready!(Pin::new(&mut self.muxer).poll_inbound(cx));
            let stream = stream.map_err(io::Error::other)?;
            self.answers
                .push(Box::pin(answer(stream, self.identity.clone())));
        }
    }
}

/// Does what a libp2p node does with a stream of the other side.
async fn answer(stream: Raw, identity: Vec<u8>) -> io::Result<()> {
    const IDENTIFY: &str = "/ipfs/id/1.0.0";
    const PING: &str = "/ipfs/ping/1.0.0";
    let (protocol, mut stream) = listener_select_proto(stream, [IDENTIFY, PING])
        .await
        .map_err(io::Error::other)?;
    if protocol == IDENTIFY {
        stream.write_all(&identity).await?;
        return stream.close().await;
    }
    let mut ping = [0; 32];
    loop {
        stream.read_exact(&mut ping).await?;
        stream.write_all(&ping).await?;
        stream.flush().await?;
    }
}

/// The identify message (libp2p specification, identify) with its length in front.
fn identify_message(key: &Keypair) -> Vec<u8> {
    let mut message = Vec::new();
    field(&mut message, 1, &key.public().encode_protobuf());
    field(&mut message, 3, b"/ipfs/id/1.0.0");
    field(&mut message, 3, b"/ipfs/ping/1.0.0");
    field(&mut message, 5, b"oc-bench/1.0.0");
    field(&mut message, 6, b"oc-bench/1.0.0");
    delimited(&message)
}

/// Appends a protobuf field of bytes.
pub(crate) fn field(to: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    to.push(number << 3 | 2);
    to.extend(delimited(bytes));
}

/// The bytes with their length in front, as a varint.
fn delimited(bytes: &[u8]) -> Vec<u8> {
    crate::wire::frame(bytes)
}

/// A socket that counts.
pub(crate) struct Counted(Compat<TcpStream>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        RECEIVED.fetch_add(n as u64, Ordering::Relaxed);
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.0).poll_write(cx, buf))?;
        SENT.fetch_add(n as u64, Ordering::Relaxed);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}
