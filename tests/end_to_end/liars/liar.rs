//! Indexers that do not keep their promises, any number of them on one thread.
//!
//! A liar holds a lease of the native by a beat with its signed record, listens on a port of its
//! own, and does the whole handshake with any peer that dials it. It answers pings. Its [`Lie`]
//! determines its answer to a beat.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::core::StreamMuxer as _;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox};
use libp2p::core::upgrade::{InboundConnectionUpgrade as _, OutboundConnectionUpgrade as _};
use libp2p::identity::Keypair;
use libp2p::{PeerId, noise, yamux};
use oc_discovery::protocol::codec::directory::{Response, encode_response};
use oc_discovery::protocol::codec::frame::{MAX_FRAME, MAX_RESPONSE};
use oc_discovery::protocol::codec::grant::Membership;
use oc_discovery::protocol::codec::heartbeat::{decode_ack, decode_beat, encode_ack, encode_beat};
use oc_discovery::protocol::codec::record::Kind;
use oc_discovery::protocol::signing::record_ttl;
use oc_discovery::protocol::{Ack, AckCode, Load, OutBeat, Publisher, Reason, Role};
use smol::channel::{Receiver, Sender, bounded};
use smol::{Async, LocalExecutor, block_on};

use crate::wire::{encoded, frame, read_frame, signed, write_frame};

/// How a liar answers a beat.
#[derive(Clone, Copy)]
pub(crate) enum Lie {
    /// It never answers.
    Silent,
    /// It answers that it is full.
    Full,
    /// It grants each lease, and answers each request that it does not know it.
    Old,
}

const NOISE: &str = "/noise";
const YAMUX: &str = "/yamux/1.0.0";
const HEARTBEAT: &str = "/oc/heartbeat/1.0.0";
const DIRECTORY: &str = "/oc/directory/1.0.0";
const PING: &str = "/ipfs/ping/1.0.0";
/// The first line of every negotiation (multistream-select).
const MULTISTREAM: &str = "/multistream/1.0.0";
/// Bytes of a line of a negotiation at most.
const MAX_LINE: usize = 1024;

/// The load that a liar claims: the most that the protocol allows.
const LOAD: Load = Load {
    held: 0,
    possible: 65_535,
};

/// Liars that each hold a lease of a native.
pub(crate) struct Liars {
    pub(crate) ids: Vec<PeerId>,
    /// Closing it ends the liars.
    end: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Liars {
    /// Gives `count` liars a lease of this length with the native at `native`.
    pub(crate) fn new(native: SocketAddr, count: usize, lease: Duration, lie: Lie) -> Liars {
        let keys: Vec<_> = (0..count).map(|_| Keypair::generate_ed25519()).collect();
        let ids = keys.iter().map(|key| key.public().to_peer_id()).collect();
        let (end, ended) = bounded(1);
        let thread = thread::spawn(move || run(native, keys, lease, lie, &ended));
        Liars {
            ids,
            end,
            thread: Some(thread),
        }
    }
}

impl Liars {
    /// A native that grants each lease and knows no request, and its address.
    pub(crate) fn old_native() -> (Liars, String) {
        let key = Keypair::generate_ed25519();
        let id = key.public().to_peer_id();
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
        let port = listener.get_ref().local_addr().unwrap().port();
        let (end, ended) = bounded::<()>(1);
        let thread = thread::spawn(move || {
            let executor = Rc::new(LocalExecutor::new());
            let liar = Liar {
                executor: Rc::clone(&executor),
                key,
                lie: Lie::Old,
            };
            liar.listen(listener);
            block_on(executor.run(async { _ = ended.recv().await }));
        });
        let liars = Liars {
            ids: vec![id],
            end,
            thread: Some(thread),
        };
        (liars, format!("/ip4/127.0.0.1/tcp/{port}/p2p/{id}"))
    }
}

/// Sends these directory requests to a peer, one after another over one connection of the key, and
/// returns its responses.
pub(crate) fn ask(
    to: SocketAddr,
    key: &Keypair,
    requests: Vec<Vec<u8>>,
) -> io::Result<Vec<Vec<u8>>> {
    let executor = Rc::new(LocalExecutor::new());
    let liar = Liar {
        executor: Rc::clone(&executor),
        key: key.clone(),
        lie: Lie::Silent,
    };
    block_on(executor.run(async move {
        let connection = liar.connect(to).await?;
        let mut responses = Vec::new();
        for body in requests {
            let mut stream = connection.open().await?;
            request(&mut stream, DIRECTORY).await?;
            write_frame(&mut stream, &body).await?;
            responses.push(read_frame(&mut stream, MAX_RESPONSE).await?);
        }
        Ok(responses)
    }))
}

impl Drop for Liars {
    fn drop(&mut self) {
        self.end.close();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            panic!("the liars failed");
        }
    }
}

fn run(native: SocketAddr, keys: Vec<Keypair>, lease: Duration, lie: Lie, ended: &Receiver<()>) {
    let executor = Rc::new(LocalExecutor::new());
    let all = async {
        for key in keys {
            let liar = Liar {
                executor: Rc::clone(&executor),
                key,
                lie,
            };
            liar.register(native, lease).await.unwrap();
        }
        let _ = ended.recv().await;
    };
    let end = async {
        let _ = ended.recv().await;
    };
    block_on(executor.run(smol::future::or(end, all)));
}

#[derive(Clone)]
struct Liar {
    executor: Rc<LocalExecutor<'static>>,
    key: Keypair,
    lie: Lie,
}

impl Liar {
    /// Listens, and takes a lease of the native.
    async fn register(self, native: SocketAddr, lease: Duration) -> io::Result<()> {
        let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0))?;
        let port = listener.get_ref().local_addr()?.port();
        let record = self.record(port, lease);
        self.clone().listen(listener);
        let connection = self.connect(native).await?;
        let mut stream = connection.open().await?;
        request(&mut stream, HEARTBEAT).await?;
        let beat = OutBeat {
            role: Role::Indexer,
            lease,
            with_record: true,
            fresh: false,
            publisher: Publisher::Receiver,
            load: Some(LOAD),
        };
        let beat =
            encoded(|buffer| encode_beat(0, &beat, Some(&record), &[], Membership::OPEN, buffer));
        write_frame(&mut stream, &beat).await?;
        let ack = read_frame(&mut stream, MAX_FRAME).await?;
        let ack = decode_ack(&ack).map_err(io::Error::other)?.ack;
        assert_eq!(ack.code, AckCode::Accepted, "{ack:?}");
        // Its lease is as long as the test, so one beat is enough.
        self.executor
            .spawn(async move {
                let _connection = connection;
                let _ = read_frame(&mut stream, MAX_FRAME).await;
            })
            .detach();
        Ok(())
    }

    /// Connects to a peer, and serves the connection.
    async fn connect(&self, to: SocketAddr) -> io::Result<Connection> {
        let mut socket = Async::<TcpStream>::connect(to).await?;
        request(&mut socket, NOISE).await?;
        let noise = noise::Config::new(&self.key).map_err(io::Error::other)?;
        let secure = noise.upgrade_outbound(socket, NOISE).await;
        let (_, mut secure) = secure.map_err(io::Error::other)?;
        request(&mut secure, YAMUX).await?;
        let muxer = yamux::Config::default().upgrade_outbound(secure, YAMUX);
        let connection = Connection::new(muxer.await?);
        self.serve(&connection);
        Ok(connection)
    }

    fn record(&self, port: u16, lease: Duration) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = u64::try_from(now.as_millis()).unwrap();
        let addr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
        signed(
            &self.key,
            (Kind::Indexer, ""),
            (1, now, record_ttl(lease)),
            &addr,
        )
        .unwrap()
    }

    fn listen(self, listener: Async<TcpListener>) {
        let executor = Rc::clone(&self.executor);
        let accepts = async move {
            while let Ok((socket, _)) = listener.accept().await {
                let liar = self.clone();
                let accept = async move {
                    let _ = liar.accept(socket).await;
                };
                self.executor.spawn(accept).detach();
            }
        };
        executor.spawn(accepts).detach();
    }

    async fn accept(self, mut socket: Async<TcpStream>) -> io::Result<()> {
        agree(&mut socket, &[NOISE]).await?;
        let noise = noise::Config::new(&self.key).map_err(io::Error::other)?;
        let secure = noise.upgrade_inbound(socket, NOISE).await;
        let (_, mut secure) = secure.map_err(io::Error::other)?;
        agree(&mut secure, &[YAMUX]).await?;
        let muxer = yamux::Config::default().upgrade_inbound(secure, YAMUX);
        let connection = Connection::new(muxer.await?);
        connection.serve(&self).await;
        Ok(())
    }

    fn serve(&self, connection: &Connection) {
        let (connection, liar) = (connection.clone(), self.clone());
        let serves = async move { connection.serve(&liar).await };
        self.executor.spawn(serves).detach();
    }

    /// Serves a stream that a peer opened.
    async fn answer(self, mut stream: SubstreamBox) -> io::Result<()> {
        let spoken = match self.lie {
            Lie::Old => &[HEARTBEAT, PING, DIRECTORY][..],
            Lie::Silent | Lie::Full => &[HEARTBEAT, PING],
        };
        let protocol = agree(&mut stream, spoken).await?;
        if protocol == DIRECTORY {
            read_frame(&mut stream, MAX_FRAME).await?;
            let error = Reason::try_from("request: unknown code 5").unwrap_or_default();
            let error = encoded(|buffer| encode_response(&Response::Error(error), buffer));
            return write_frame(&mut stream, &error).await;
        }
        if protocol == PING {
            let mut ping = [0; 32];
            loop {
                stream.read_exact(&mut ping).await?;
                stream.write_all(&ping).await?;
                stream.flush().await?;
            }
        }
        loop {
            let beat = read_frame(&mut stream, MAX_FRAME).await?;
            let answer = match self.lie {
                Lie::Silent => continue,
                Lie::Full => Ack::full("come back later"),
                Lie::Old => Ack::accepted(Duration::from_secs(3)),
            };
            let sequence = decode_beat(&beat).map_err(io::Error::other)?.beat.sequence;
            let ack =
                encoded(|buffer| encode_ack(sequence, &answer, None, Membership::OPEN, buffer));
            write_frame(&mut stream, &ack).await?;
        }
    }
}

/// A connection with one task that does its work.
#[derive(Clone)]
struct Connection(Rc<RefCell<Muxer>>);

struct Muxer {
    muxer: StreamMuxerBox,
    /// The waker of the task that does the work, because an opened stream must be driven.
    waker: Option<Waker>,
}

impl Connection {
    fn new<M>(muxer: M) -> Connection
    where
        M: libp2p::core::StreamMuxer + Send + 'static,
        M::Substream: Send + 'static,
        M::Error: Send + Sync + 'static,
    {
        let muxer = StreamMuxerBox::new(muxer);
        Connection(Rc::new(RefCell::new(Muxer { muxer, waker: None })))
    }

    async fn open(&self) -> io::Result<SubstreamBox> {
        let opened = poll_fn(|cx| self.0.borrow_mut().muxer.poll_outbound_unpin(cx)).await;
        if let Some(waker) = self.0.borrow_mut().waker.take() {
            waker.wake();
        }
        opened
    }

    /// Does the work until the connection ends.
    async fn serve(&self, liar: &Liar) {
        poll_fn(|cx| self.poll(cx, liar)).await;
    }

    fn poll(&self, cx: &mut Context<'_>, liar: &Liar) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        state.waker = Some(cx.waker().clone());
        while let Poll::Ready(stream) = state.muxer.poll_inbound_unpin(cx) {
            let Ok(stream) = stream else {
                return Poll::Ready(());
            };
            let answers = liar.clone().answer(stream);
            let answers = async move {
                let _ = answers.await;
            };
            liar.executor.spawn(answers).detach();
        }
        match Pin::new(&mut state.muxer).poll(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Proposes `protocol` to the other side, and waits for its answer.
async fn request(io: &mut (impl AsyncRead + AsyncWrite + Unpin), protocol: &str) -> io::Result<()> {
    for line in [MULTISTREAM, protocol] {
        say(io, line).await?;
    }
    for line in [MULTISTREAM, protocol] {
        if hear(io).await? != line {
            return Err(io::Error::other(format!("it does not speak {protocol}")));
        }
    }
    Ok(())
}

/// Answers such a proposal. Returns the negotiated protocol.
async fn agree(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    spoken: &[&'static str],
) -> io::Result<&'static str> {
    let _ = hear(io).await?;
    say(io, MULTISTREAM).await?;
    loop {
        let wish = hear(io).await?;
        if let Some(protocol) = spoken.iter().find(|protocol| **protocol == wish) {
            say(io, protocol).await?;
            return Ok(protocol);
        }
        say(io, "na").await?;
    }
}

async fn say(io: &mut (impl AsyncWrite + Unpin), line: &str) -> io::Result<()> {
    io.write_all(&frame(format!("{line}\n").as_bytes())).await?;
    io.flush().await
}

async fn hear(io: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let line = read_frame(io, MAX_LINE).await?;
    let line = String::from_utf8_lossy(&line);
    Ok(line.trim_end_matches('\n').to_owned())
}
