//! TCP for libp2p on the executor's set of sockets. libp2p's own TCP transport needs tokio.
//!
//! Invariants: an IPv6 listener takes IPv6 only; a listener on an unspecified address reports the
//! addresses of the interfaces that are up and their changes, as the kernel reports them
//! ([`super::netlink`]), or loopback alone if the kernel does not; a listener on an address that no
//! interface has yet waits for it; an address is reported only while its interface is up. An accept
//! that fails pauses its listener instead of spinning; a connect takes at most 5 s.

mod connection;
mod listener;

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, Ready};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_io::Timer;
use libp2p::Multiaddr;
use libp2p::core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;

use super::executor::ReadySet;
use super::netlink::Host;
use crate::protocol::address::can_be_dialled;
use connection::connect;
use listener::{Listener, is_absent};

pub(crate) use connection::{TcpConnection, close_connections_from, shrink};
pub(crate) use listener::everywhere;

/// How often a listener tries an address that no interface had. This matters only if the kernel
/// does not report addresses.
const AWAITED_PERIOD: Duration = Duration::from_secs(10);

/// The socket address of `/ip4/…/tcp/…` or `/ip6/…/tcp/…`, with or without `/p2p/…` at the end.
/// `None` for anything else.
pub(crate) fn socket_addr(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let Protocol::Tcp(port) = parts.next()? else {
        return None;
    };
    match (parts.next(), parts.next()) {
        (None, _) | (Some(Protocol::P2p(_)), None) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// The multiaddress of a TCP socket address.
pub(crate) fn multiaddr(addr: SocketAddr) -> Multiaddr {
    Multiaddr::empty()
        .with(addr.ip().into())
        .with(Protocol::Tcp(addr.port()))
}

/// Why a TCP operation failed, in one sentence.
#[derive(Debug)]
pub(crate) enum TcpError {
    /// The address cannot be listened on.
    Listen { addr: SocketAddr, source: io::Error },
    /// A connection could not be accepted.
    Accept { source: io::Error },
    /// A connection could not be made.
    Connect { addr: SocketAddr, source: io::Error },
}

impl TcpError {
    fn source_error(&self) -> &io::Error {
        match self {
            Self::Listen { source, .. }
            | Self::Accept { source }
            | Self::Connect { source, .. } => source,
        }
    }
}

impl fmt::Display for TcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.source_error().kind();
        match self {
            Self::Listen { addr, .. } if kind == io::ErrorKind::AddrInUse => write!(
                f,
                "cannot listen on {addr}: port {} is in use by another process; end that one, or \
                 give another port",
                addr.port()
            ),
            Self::Listen { addr, .. } if kind == io::ErrorKind::PermissionDenied => write!(
                f,
                "cannot listen on {addr}: ports below 1024 are for root; give another port, or the \
                 capability CAP_NET_BIND_SERVICE"
            ),
            Self::Listen { addr, source } => write!(f, "cannot listen on {addr}: {source}"),
            Self::Accept { source } => write!(f, "cannot accept a connection: {source}"),
            Self::Connect { addr, source } => {
                write!(f, "cannot connect to {addr}: {}", plain(source))
            }
        }
    }
}

/// The system's sentence for the error, without its number.
pub(crate) fn plain(why: &io::Error) -> String {
    let text = why.to_string();
    let bare = text.split(" (os error").next().unwrap_or_default();
    bare.to_lowercase()
}

impl std::error::Error for TcpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.source_error())
    }
}

type Event = TransportEvent<Ready<Result<TcpConnection, TcpError>>, TcpError>;

/// The transport. Listeners are polled in turn.
pub(crate) struct TcpTransport {
    ready: ReadySet,
    listeners: VecDeque<Listener>,
    awaited: Vec<Awaited>,
    /// When the awaited addresses are tried again.
    retry: Option<Timer>,
    events: VecDeque<Event>,
    host: Host,
    /// The generation of the host's addresses that has been reported.
    generation: u64,
    waker: Option<Waker>,
}

impl TcpTransport {
    /// A transport without listeners.
    pub(crate) fn new() -> io::Result<Self> {
        Self::on(Host::of_this_thread())
    }

    fn on(host: Host) -> io::Result<Self> {
        Ok(Self {
            ready: ReadySet::of_this_thread()?,
            listeners: VecDeque::new(),
            awaited: Vec::new(),
            retry: None,
            events: VecDeque::new(),
            generation: host.generation(),
            host,
            waker: None,
        })
    }

    fn add_listener(&mut self, mut listener: Listener) {
        listener.announce(&self.reachable(listener.addr.ip()), &mut self.events);
        self.listeners.push_back(listener);
        self.wake();
    }

    /// The addresses at which a listener on `ip` is reachable.
    fn reachable(&self, ip: IpAddr) -> Vec<IpAddr> {
        if ip.is_loopback() {
            return vec![ip];
        }
        if !self.host.is_known() {
            // Connections show further addresses at which an unspecified one is reachable.
            return match ip.is_unspecified() {
                true => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
                false => vec![ip],
            };
        }
        let addresses = self.host.addresses();
        let ips = addresses.iter().map(|address| address.ip);
        ips.filter(|own| ip.is_unspecified() || *own == ip)
            .collect()
    }

    /// Reports which interface addresses were added and removed.
    fn follow_host(&mut self, cx: &mut Context<'_>) {
        let generation = self.host.generation();
        if generation == self.generation {
            self.retry_awaited(cx);
            return;
        }
        self.bind_awaited();
        self.generation = generation;
        for at in 0..self.listeners.len() {
            let Some(listener) = self.listeners.get(at) else {
                return;
            };
            let ips = self.reachable(listener.addr.ip());
            if let Some(listener) = self.listeners.get_mut(at) {
                listener.announce(&ips, &mut self.events);
            }
        }
    }

    fn retry_awaited(&mut self, cx: &mut Context<'_>) {
        while let Some(retry) = &mut self.retry
            && Pin::new(retry).poll(cx).is_ready()
        {
            self.bind_awaited();
        }
    }

    /// Listens on awaited addresses that now exist.
    fn bind_awaited(&mut self) {
        for mut awaited in std::mem::take(&mut self.awaited) {
            let Awaited { id, addr, .. } = awaited;
            match Listener::bind(id, addr, &self.ready) {
                Ok(listener) => {
                    log::info!("listens on {addr} now: the address has come");
                    self.add_listener(listener);
                    continue;
                }
                Err(source) if is_absent(&source) => awaited.complained = false,
                Err(source) => {
                    if !awaited.complained {
                        self.events.push_back(TransportEvent::ListenerError {
                            listener_id: id,
                            error: TcpError::Listen { addr, source },
                        });
                    }
                    awaited.complained = true;
                }
            }
            self.awaited.push(awaited);
        }
        self.set_retry();
    }

    fn set_retry(&mut self) {
        let waits = !self.awaited.is_empty();
        self.retry = waits.then(|| Timer::after(AWAITED_PERIOD));
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Transport for TcpTransport {
    type Output = TcpConnection;
    type Error = TcpError;
    type ListenerUpgrade = Ready<Result<TcpConnection, TcpError>>;
    type Dial = Pin<Box<dyn Future<Output = Result<TcpConnection, TcpError>> + Send>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<TcpError>> {
        let Some(addr) = socket_addr(&addr) else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        match Listener::bind(id, addr, &self.ready) {
            Ok(listener) => self.add_listener(listener),
            Err(source) if is_absent(&source) => {
                log::warn!("waits for the address {addr}, which no interface has yet");
                self.awaited.push(Awaited {
                    id,
                    addr,
                    complained: false,
                });
                self.set_retry();
                self.wake();
            }
            Err(source) => return Err(TransportError::Other(TcpError::Listen { addr, source })),
        }
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let before = self.listeners.len() + self.awaited.len();
        self.listeners.retain(|listener| listener.id != id);
        self.awaited.retain(|awaited| awaited.id != id);
        let removed = self.listeners.len() + self.awaited.len() < before;
        if removed {
            self.events.push_back(TransportEvent::ListenerClosed {
                listener_id: id,
                reason: Ok(()),
            });
            self.wake();
        }
        removed
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        _: DialOpts,
    ) -> Result<Self::Dial, TransportError<TcpError>> {
        match socket_addr(&addr).filter(|_| can_be_dialled(addr.as_ref())) {
            Some(addr) => {
                let (ready, host) = (self.ready.clone(), self.host.clone());
                Ok(Box::pin(async move {
                    let connected = connect(addr, &ready).await;
                    if let Some(local) = connected.as_ref().ok().and_then(TcpConnection::local) {
                        host.dialled(multiaddr(addr), local.ip());
                    }
                    connected.map_err(|source| TcpError::Connect { addr, source })
                }))
            }
            None => Err(TransportError::MultiaddrNotSupported(addr)),
        }
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Event> {
        let this = self.get_mut();
        this.follow_host(cx);
        if let Some(event) = this.events.pop_front() {
            return Poll::Ready(event);
        }
        for _ in 0..this.listeners.len() {
            // The next call begins with another listener, so that a busy one does not starve the
            // rest.
            this.listeners.rotate_left(1);
            let Some(listener) = this.listeners.back_mut() else {
                break;
            };
            if let Poll::Ready(event) = listener.poll(cx) {
                return Poll::Ready(event);
            }
        }
        this.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// An address to listen on that no interface has yet.
#[derive(Debug)]
struct Awaited {
    id: ListenerId,
    addr: SocketAddr,
    /// The address exists, and the reason why it cannot be listened on has been logged.
    complained: bool,
}

#[cfg(test)]
mod tests;
