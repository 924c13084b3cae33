//! One TCP connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Async;
use futures_util::{AsyncRead, AsyncWrite};
use rustix::net::sockopt;

use crate::net::executor::{Left, ReadySet, Watched, Way, within};

/// A connect that has not succeeded by then has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The first and the further keepalive probes: a peer that vanished is noticed after 90 s of silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

/// Connects to `addr`, within [`CONNECT_TIMEOUT`].
pub(super) async fn connect(addr: SocketAddr, ready: &ReadySet) -> io::Result<TcpConnection> {
    match within(CONNECT_TIMEOUT, Async::<TcpStream>::connect(addr)).await {
        Some(stream) => {
            let stream = stream?.into_inner()?;
            tune(&stream)?;
            TcpConnection::new(stream, ready)
        }
        None => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        )),
    }
}

/// A connection. It never asks the socket for data that it knows is not there: the swarm and Yamux poll several
/// times for each wake-up, and each of these polls would be one more system call.
#[derive(Debug)]
pub(crate) struct TcpConnection {
    pub(super) socket: Watched<TcpStream>,
}

impl TcpConnection {
    /// A connection over a socket that does not block and has its [`tune`]d options.
    pub(super) fn new(socket: TcpStream, ready: &ReadySet) -> io::Result<Self> {
        Ok(Self {
            socket: ready.watch(socket)?,
        })
    }

    /// Our own end.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.socket.socket().local_addr().ok()
    }
}

/// Sets what every connection has: no delay for small frames, and keepalive. On a listener it is for those that it accepts: Linux
/// hands these options on.
pub(super) fn tune(socket: impl AsFd) -> io::Result<()> {
    // Frames are small and each is answered: waiting to fill a segment only adds delay.
    sockopt::set_tcp_nodelay(&socket, true)?;
    // A read stops short at urgent data, and not because there is no more: there is to be none.
    sockopt::set_socket_oobinline(&socket, true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&socket, KEEPALIVE_COUNT)?;
    Ok(())
}

impl AsyncRead for TcpConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = |mut stream: &TcpStream| {
            let n = stream.read(buf)?;
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
        let write = |mut stream: &TcpStream| Ok((stream.write(buf)?, Left::Maybe));
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
