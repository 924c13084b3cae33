//! Sockets that listen, and what they accept.

use std::collections::VecDeque;
use std::future::{Future, ready};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Timer;
use futures_util::ready;
use libp2p::core::transport::{ListenerId, TransportEvent};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::connection::{TcpConnection, tune};
use super::{Event, TcpError, multiaddr};
use crate::net::executor::{Left, ReadySet, Watched, Way};

/// How many ports that the system chose are tried until one is free in both families.
const PORT_TRIES: usize = 16;

/// Interface addresses reported for one listener at most.
const MAX_INTERFACES: usize = 64;

/// How long a listener pauses after a failed accept, for instance when no file descriptor is free.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 1024;

/// Whether the error means that no interface has the address.
pub(super) fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Whether the error means that the system does not have the address family.
fn is_unknown_family(error: &io::Error) -> bool {
    is_absent(error) || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

/// The unspecified address of each family that the system has, with one port that is free in both.
/// For port 0 the system chooses the port.
///
/// # Errors
///
/// `AddrInUse` if another process has the port, or another error of the system.
pub(crate) fn everywhere(port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut tried = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..if port == 0 { PORT_TRIES } else { 1 } {
        tried = on_one_port(port);
        match &tried {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            _ => break,
        }
    }
    tried
}

fn on_one_port(mut port: u16) -> io::Result<Vec<SocketAddr>> {
    let (mut held, mut addrs) = (Vec::new(), Vec::new());
    let mut missing = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for ip in [
        Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ] {
        match bound(SocketAddr::new(ip, port)) {
            Ok(socket) => {
                port = socket.local_addr()?.port();
                held.push(socket);
                addrs.push(SocketAddr::new(ip, port));
            }
            Err(error) if is_unknown_family(&error) => missing = error,
            Err(error) => return Err(error),
        }
    }
    match addrs.is_empty() {
        true => Err(missing),
        false => Ok(addrs),
    }
}

/// A socket that listens on `addr`.
pub(super) fn bound(addr: SocketAddr) -> io::Result<TcpListener> {
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // With this option a restarted daemon gets its port back while old connections are in
    // TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    tune(&socket)?;
    rustix::net::bind(&socket, &addr)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

pub(super) struct Listener {
    pub(super) id: ListenerId,
    socket: Watched<TcpListener>,
    /// The address that it is bound to.
    pub(super) addr: SocketAddr,
    /// The addresses that have been reported for it.
    reported: Vec<IpAddr>,
    pause: Option<Timer>,
}

impl Listener {
    pub(super) fn bind(id: ListenerId, addr: SocketAddr, ready: &ReadySet) -> io::Result<Self> {
        Self::new(id, bound(addr)?, ready)
    }

    pub(super) fn new(id: ListenerId, socket: TcpListener, ready: &ReadySet) -> io::Result<Self> {
        Ok(Self {
            id,
            addr: socket.local_addr()?,
            socket: ready.watch(socket)?,
            reported: Vec::new(),
            pause: None,
        })
    }

    /// Reports the difference between the `ips` at which this listener is reachable and those that
    /// it reported before.
    pub(super) fn announce(&mut self, ips: &[IpAddr], events: &mut VecDeque<Event>) {
        let listener_id = self.id;
        let mut now = Vec::new();
        for ip in ips.iter().filter(|ip| ip.is_ipv4() == self.addr.is_ipv4()) {
            if now.len() < MAX_INTERFACES && !now.contains(ip) {
                now.push(*ip);
            }
        }
        for ip in self.reported.iter().filter(|ip| !now.contains(ip)) {
            events.push_back(TransportEvent::AddressExpired {
                listener_id,
                listen_addr: multiaddr(SocketAddr::new(*ip, self.addr.port())),
            });
        }
        for ip in now.iter().filter(|ip| !self.reported.contains(ip)) {
            events.push_back(TransportEvent::NewAddress {
                listener_id,
                listen_addr: multiaddr(SocketAddr::new(*ip, self.addr.port())),
            });
        }
        self.reported = now;
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(pause) = &mut self.pause {
            ready!(Pin::new(pause).poll(cx));
            self.pause = None;
        }
        Poll::Ready(match ready!(self.socket.poll(Way::Read, cx, accept)) {
            Ok((stream, peer)) => self.incoming(stream, peer),
            Err(error) => self.failed(error),
        })
    }

    fn incoming(&self, stream: TcpStream, peer: SocketAddr) -> Event {
        let local = stream.local_addr().unwrap_or(self.addr);
        let connection = TcpConnection::new(stream, self.socket.set());
        TransportEvent::Incoming {
            listener_id: self.id,
            upgrade: ready(connection.map_err(|source| TcpError::Accept { source })),
            local_addr: multiaddr(local),
            send_back_addr: multiaddr(peer),
        }
    }

    fn failed(&mut self, source: io::Error) -> Event {
        self.pause = Some(Timer::after(ACCEPT_PAUSE));
        TransportEvent::ListenerError {
            listener_id: self.id,
            error: TcpError::Accept { source },
        }
    }
}

/// Accepts a connection without blocking.
fn accept(listener: &TcpListener) -> io::Result<((TcpStream, SocketAddr), Left)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (stream, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    let peer = peer.ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(((stream.into(), peer), Left::Maybe))
}
