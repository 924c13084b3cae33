//! hickory's view of sockets, timers and tasks: `async-io` and the one executor.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::{Async, Timer};
use futures_util::{AsyncRead, AsyncWrite, ready};
use hickory_net::runtime::{DnsTcpStream, DnsUdpSocket, RuntimeProvider, Spawn, Time};

use crate::net::executor::{spawn, within};
use crate::net::tcp::CONNECT_TIMEOUT;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes hickory's sockets and tasks.
#[derive(Clone, Copy)]
pub(super) struct Runtime;

impl RuntimeProvider for Runtime {
    type Handle = Self;
    type Timer = Clock;
    type Udp = Udp;
    type Tcp = Tcp;

    fn create_handle(&self) -> Self {
        *self
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        _: Option<SocketAddr>,
        limit: Option<Duration>,
    ) -> BoxFuture<'static, io::Result<Tcp>> {
        Box::pin(async move {
            let limit = limit.unwrap_or(CONNECT_TIMEOUT);
            match within(limit, Async::<TcpStream>::connect(server)).await {
                Some(connected) => connected.map(Tcp),
                None => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }

    fn bind_udp(&self, local: SocketAddr, _: SocketAddr) -> BoxFuture<'static, io::Result<Udp>> {
        Box::pin(async move { Async::<UdpSocket>::bind(local).map(Udp) })
    }
}

impl Spawn for Runtime {
    fn spawn_bg(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        spawn(future);
    }
}

/// Timers of `async-io`.
pub(super) struct Clock;

// The shape that `async_trait` gives these functions in the trait.
impl Time for Clock {
    fn delay_for<'a>(duration: Duration) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            Timer::after(duration).await;
        })
    }

    fn timeout<'a, F>(duration: Duration, future: F) -> BoxFuture<'a, io::Result<F::Output>>
    where
        F: Future + Send + 'static + 'a,
    {
        Box::pin(async move {
            let output = within(duration, future).await;
            output.ok_or_else(|| io::ErrorKind::TimedOut.into())
        })
    }
}

/// A UDP socket on the reactor.
pub(super) struct Udp(Async<UdpSocket>);

impl DnsUdpSocket for Udp {
    type Time = Clock;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        loop {
            match self.0.get_ref().recv_from(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.0.poll_readable(cx))?;
                }
                received => return Poll::Ready(received),
            }
        }
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.0.get_ref().send_to(buf, target) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.0.poll_writable(cx))?;
                }
                sent => return Poll::Ready(sent),
            }
        }
    }
}

/// A TCP connection to a name server.
pub(super) struct Tcp(Async<TcpStream>);

impl DnsTcpStream for Tcp {
    type Time = Clock;
}

impl AsyncRead for Tcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}
