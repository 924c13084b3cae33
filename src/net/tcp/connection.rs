//! One TCP connection on the reactor.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Async;
use futures_util::{AsyncRead, AsyncWrite, ready};
use rustix::net::sockopt;

use crate::net::executor::within;

/// A connect that has not succeeded by then has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The first and the further keepalive probes: a peer that vanished is noticed after 90 s of silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

/// Connects to `addr`, within [`CONNECT_TIMEOUT`].
pub(super) async fn connect(addr: SocketAddr) -> io::Result<TcpConnection> {
    match within(CONNECT_TIMEOUT, Async::<TcpStream>::connect(addr)).await {
        Some(stream) => TcpConnection::new(stream?),
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
    pub(super) socket: Async<TcpStream>,
    /// The last read emptied the socket: the reactor speaks first.
    pub(super) drained: bool,
}

impl TcpConnection {
    /// Sets what every connection has: no delay for small frames, and keepalive.
    pub(super) fn new(socket: Async<TcpStream>) -> io::Result<Self> {
        let stream = socket.get_ref();
        // Frames are small and each is answered: waiting to fill a segment only adds delay.
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?;
        Ok(Self {
            socket,
            drained: false,
        })
    }
}

impl AsyncRead for TcpConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.drained {
                // Interest lasts for one wake-up and is level-triggered: what has arrived since is reported too.
                ready!(self.socket.poll_readable(cx))?;
            }
            match io::Read::read(&mut self.socket.get_ref(), buf) {
                Ok(n) => {
                    self.drained = n > 0 && n < buf.len();
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.drained = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for TcpConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // `Async` only flushes here; the other side has to learn that nothing more comes.
        match self.socket.get_ref().shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}
