//! One TCP connection.
//!
//! Invariants: a connect takes at most [`CONNECT_TIMEOUT`]; a connection with data that the peer's
//! kernel does not acknowledge ends after [`USER_TIMEOUT`].

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{AsyncRead, AsyncWrite};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::net::executor::{Left, ReadySet, Watched, Way, within};

/// A connect that takes longer than this has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long sent data may stay unacknowledged by the peer's kernel (`TCP_USER_TIMEOUT`; without it
/// Linux retries for 15 min). A client replaces a silent connection much earlier, when an ack is
/// late. This limit serves the other cases: a server that has lost its client, a ping, a request.
/// It is a third of the default lease, so that a server frees a dead connection and its place well
/// before the lease expires. It is longer than any of our time limits for an answer, so that it
/// never ends an exchange that may still be answered.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// After this time without data in either direction, TCP sends a keepalive probe. With
/// [`USER_TIMEOUT`], a probe that is not answered within [`KEEPALIVE_INTERVAL`] ends the
/// connection, so the loss of a peer is noticed after 70 s. By default beats are more frequent than
/// that. Where they are not, one lost packet costs a new connection, but no lease.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

thread_local! {
    /// The connections of this thread. Some of them may have ended.
    static OPEN: RefCell<Vec<Weak<TcpStream>>> = const { RefCell::new(Vec::new()) };
}

/// Ends every connection from the local address `ip`, which this host no longer has. On such a
/// connection, data of the peer does not arrive, and data of ours is dropped on the way. Returns
/// the number of connections.
pub(crate) fn close_connections_from(ip: IpAddr) -> usize {
    let is_from = |socket: &TcpStream| {
        let local = socket.local_addr();
        local.is_ok_and(|local| local.ip().to_canonical() == ip.to_canonical())
    };
    OPEN.with_borrow(|open| {
        let open = open.iter().filter_map(Weak::upgrade);
        // The task of the connection reads the end, and the swarm does the rest. A connection that
        // has ended already cannot be shut down.
        open.filter(|socket| is_from(socket) && socket.shutdown(Shutdown::Both).is_ok())
            .count()
    })
}

/// Gives back memory that is no longer needed.
pub(crate) fn shrink() {
    OPEN.with_borrow_mut(|open| {
        open.retain(is_open);
        open.shrink_to_fit();
    });
}

fn is_open(socket: &Weak<TcpStream>) -> bool {
    socket.strong_count() > 0
}

/// Connects to `addr`, within [`CONNECT_TIMEOUT`].
pub(super) async fn connect(addr: SocketAddr, ready: &ReadySet) -> io::Result<TcpConnection> {
    let connection = TcpConnection::new(begin(addr)?, ready)?;
    let connected = poll_fn(|cx| connection.socket.poll(Way::Write, cx, is_connected));
    match within(CONNECT_TIMEOUT, connected).await {
        Some(connected) => connected.map(|()| connection),
        None => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        )),
    }
}

/// Begins to connect. The local address of the socket is fixed from here on.
fn begin(addr: SocketAddr) -> io::Result<TcpStream> {
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    tune(&socket)?;
    match rustix::net::connect(&socket, &addr) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// `WouldBlock` until the other side has answered.
fn is_connected(socket: &Arc<TcpStream>) -> io::Result<((), Left)> {
    match (socket.take_error()?, socket.peer_addr()) {
        (Some(error), _) => Err(error),
        (None, Ok(_)) => Ok(((), Left::Maybe)),
        (None, Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        (None, Err(error)) => Err(error),
    }
}

/// A connection. It does not read the socket when it knows that there is no data: the swarm and
/// Yamux poll several times for each wake-up, and each of these polls would be one more system
/// call.
#[derive(Debug)]
pub(crate) struct TcpConnection {
    pub(super) socket: Watched<Arc<TcpStream>>,
}

impl TcpConnection {
    /// A connection over a socket that does not block and has the options of [`tune`].
    pub(super) fn new(socket: TcpStream, ready: &ReadySet) -> io::Result<Self> {
        let socket = Arc::new(socket);
        OPEN.with_borrow_mut(|open| {
            // Ended connections are removed before the list grows.
            if open.len() == open.capacity() {
                open.retain(is_open);
            }
            open.push(Arc::downgrade(&socket));
        });
        Ok(Self {
            socket: ready.watch(socket)?,
        })
    }

    /// The local address.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.socket.socket().local_addr().ok()
    }
}

/// Sets the options of every connection: no delay for small frames, and time limits for a silent
/// peer. When set on a listener, they apply to the connections that it accepts, because Linux
/// inherits these options.
pub(super) fn tune(socket: impl AsFd) -> io::Result<()> {
    // Frames are small and each is answered, so waiting to fill a segment would only add delay.
    sockopt::set_tcp_nodelay(&socket, true)?;
    // A read stops early at urgent data although more data follows. With this option there is no
    // urgent data.
    sockopt::set_socket_oobinline(&socket, true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
    let timeout = u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(&socket, timeout)?;
    Ok(())
}

impl AsyncRead for TcpConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = |stream: &Arc<TcpStream>| {
            let n = (&**stream).read(buf)?;
            let left = match n > 0 && n < buf.len() {
                true => Left::Nothing,
                false => Left::Maybe,
            };
            Ok((n, left))
        };
        self.socket.poll(Way::Read, cx, read)
    }
}

impl AsyncWrite for TcpConnection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = |stream: &Arc<TcpStream>| Ok(((&**stream).write(buf)?, Left::Maybe));
        self.socket.poll(Way::Write, cx, write)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.socket().shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}
