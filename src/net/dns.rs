//! Names in multiaddresses: `/dns`, `/dns4`, `/dns6` and `/dnsaddr` (libp2p addressing specification).
//!
//! Names are resolved by `hickory-resolver` on the one executor, without a thread and without the C library's
//! resolver, which a static binary does not have. Invariants: one resolution takes at most 5 s, follows at most 4 TXT
//! records one after another, does at most 32 lookups and yields at most 16 addresses, each of the form
//! `/ip4|ip6/…/tcp/…[/p2p/…]`. `/etc/resolv.conf` and `/etc/hosts` are read again when they change, since a
//! device may get its lease late; if they are missing, only names fail.

mod runtime;
mod system;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::TryFutureExt;
use futures_util::future::MapErr;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::RData;
use libp2p::Multiaddr;
use libp2p::core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;

use super::executor::within;
use super::tcp::socket_addr;
use system::{Files, Stamp, System};

/// One resolution takes no longer.
const LIMIT: Duration = Duration::from_secs(5);

/// `/dnsaddr` records followed one after another.
const MAX_DEPTH: usize = 4;

/// Lookups of one resolution.
const MAX_LOOKUPS: usize = 32;

/// Addresses that one resolution yields, and TXT values used of one name.
const MAX_ADDRS: usize = 16;

/// Why a name gave no address.
#[derive(Debug)]
pub(crate) enum ResolveError {
    /// The address is no name with a TCP port, nor a `/dnsaddr`.
    Unsupported { addr: Multiaddr },
    /// No name server is configured, and the hosts file does not know the name.
    NoServers { name: String, file: String },
    /// The name does not exist or has no usable record.
    NotFound { name: String },
    /// `/dnsaddr` records lead from one to the next without an end.
    TooDeep { name: String },
    /// It took too long.
    Timeout { name: String },
    /// The servers failed.
    Failed { name: String, source: NetError },
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported { addr } => write!(
                f,
                "cannot resolve {addr}: expected /dns4/NAME/tcp/PORT or /dnsaddr/NAME"
            ),
            Self::NoServers { name, file } => {
                write!(f, "cannot resolve {name}: {file} names no name server")
            }
            Self::NotFound { name } => {
                write!(
                    f,
                    "cannot resolve {name}: it has no address that can be used"
                )
            }
            Self::TooDeep { name } => write!(
                f,
                "cannot resolve {name}: more than {MAX_DEPTH} dnsaddr records lead to one another"
            ),
            Self::Timeout { name } => write!(
                f,
                "cannot resolve {name}: no answer within {} s",
                LIMIT.as_secs()
            ),
            Self::Failed { name, source } => write!(f, "cannot resolve {name}: {source}"),
        }
    }
}

impl Error for ResolveError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// True if `addr` begins with a name.
pub(crate) fn is_name(addr: &Multiaddr) -> bool {
    matches!(
        addr.iter().next(),
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_))
    )
}

/// Resolves names. Clones share cache and configuration. Its futures have to run inside the executor's `block_on`.
#[derive(Clone)]
pub(crate) struct Resolver(Arc<Shared>);

struct Shared {
    files: Files,
    loaded: Mutex<Option<(Stamp, System)>>,
    limit: Duration,
}

impl Resolver {
    /// Takes the servers from `/etc/resolv.conf`, and names from `/etc/hosts` before it asks them.
    pub(crate) fn new() -> Self {
        Self::with(Files::default(), LIMIT)
    }

    fn with(files: Files, limit: Duration) -> Self {
        Self(Arc::new(Shared {
            files,
            loaded: Mutex::new(None),
            limit,
        }))
    }

    /// The addresses that `addr` stands for, in the order of the records; `addr` itself if it is no name. If it
    /// is a `/dnsaddr` that ends in `/p2p/ID`, only records with that id count. What was found when the time
    /// ran out is given; an error only if that was nothing.
    pub(crate) async fn resolve(&self, addr: &Multiaddr) -> Result<Vec<Multiaddr>, ResolveError> {
        if !is_name(addr) {
            return Ok(vec![addr.clone()]);
        }
        let mut search = Search {
            found: Vec::new(),
            error: None,
        };
        let walk = within(self.0.limit, self.walk(addr, &mut search)).await;
        if search.found.is_empty() {
            let name = name_of(addr);
            return Err(match (walk, search.error) {
                (Some(()), Some(error)) => error,
                (Some(()), None) => ResolveError::NotFound { name },
                (None, _) => ResolveError::Timeout { name },
            });
        }
        Ok(search.found)
    }

    async fn walk(&self, addr: &Multiaddr, search: &mut Search) {
        // The last one is the next one: what a record leads to comes before the record's neighbours.
        let mut open = vec![(addr.clone(), 0)];
        for _ in 0..MAX_LOOKUPS {
            let next = loop {
                match open.pop() {
                    Some((addr, _)) if !is_name(&addr) => search.add(addr),
                    next => break next,
                }
            };
            let Some((addr, depth)) = next else {
                return;
            };
            match self.step(&addr, depth).await {
                Ok(addrs) => open.extend(addrs.into_iter().rev().map(|addr| (addr, depth + 1))),
                Err(error) => search.error = search.error.take().or(Some(error)),
            }
            if search.found.len() >= MAX_ADDRS {
                return;
            }
        }
    }

    /// Replaces the name at the beginning of `addr` by what one lookup says about it.
    async fn step(&self, addr: &Multiaddr, depth: usize) -> Result<Vec<Multiaddr>, ResolveError> {
        let unsupported = || ResolveError::Unsupported { addr: addr.clone() };
        let mut parts = addr.iter();
        let first = parts.next().ok_or_else(unsupported)?;
        let rest: Multiaddr = parts.collect();
        let name = name_of(addr);
        let system = self.system(&name)?;
        let lookup = &system.resolver;
        let result = match first {
            Protocol::Dnsaddr(_) if depth >= MAX_DEPTH => {
                return Err(ResolveError::TooDeep { name });
            }
            Protocol::Dnsaddr(_) if is_p2p_or_empty(&rest) => lookup
                .txt_lookup(format!("_dnsaddr.{}.", name.trim_end_matches('.')))
                .await
                .map(|answer| dnsaddrs(answer.answers().iter().map(|r| &r.data), &rest)),
            _ if !has_port(&rest) => return Err(unsupported()),
            Protocol::Dns(_) => {
                (lookup.lookup_ip(name.as_str()).await).map(|answer| with_ips(answer.iter(), &rest))
            }
            Protocol::Dns4(_) => (lookup.ipv4_lookup(name.as_str()).await).map(|answer| {
                with_ips(
                    answer.answers().iter().filter_map(|r| r.data.ip_addr()),
                    &rest,
                )
            }),
            Protocol::Dns6(_) => (lookup.ipv6_lookup(name.as_str()).await).map(|answer| {
                with_ips(
                    answer.answers().iter().filter_map(|r| r.data.ip_addr()),
                    &rest,
                )
            }),
            _ => return Err(unsupported()),
        };
        result.map_err(|source| self.error(name, source, system.servers))
    }

    fn error(&self, name: String, source: NetError, servers: usize) -> ResolveError {
        match source {
            _ if servers == 0 => ResolveError::NoServers {
                name,
                file: self.0.files.resolv_conf.display().to_string(),
            },
            NetError::Timeout => ResolveError::Timeout { name },
            source if source.is_no_records_found() => ResolveError::NotFound { name },
            source => ResolveError::Failed { name, source },
        }
    }

    /// The configuration as it is on disk now.
    fn system(&self, name: &str) -> Result<System, ResolveError> {
        let stamp = self.0.files.stamp();
        let mut loaded = lock(&self.0.loaded);
        match &*loaded {
            Some((known, system)) if *known == stamp => Ok(system.clone()),
            _ => {
                let system = self.0.files.load().map_err(|source| ResolveError::Failed {
                    name: name.to_owned(),
                    source,
                })?;
                *loaded = Some((stamp, system.clone()));
                Ok(system)
            }
        }
    }
}

struct Search {
    found: Vec<Multiaddr>,
    error: Option<ResolveError>,
}

impl Search {
    fn add(&mut self, addr: Multiaddr) {
        let dialable = socket_addr(&addr).is_some();
        if dialable && self.found.len() < MAX_ADDRS && !self.found.contains(&addr) {
            self.found.push(addr);
        }
    }
}

fn name_of(addr: &Multiaddr) -> String {
    match addr.iter().next() {
        Some(
            Protocol::Dns(name)
            | Protocol::Dns4(name)
            | Protocol::Dns6(name)
            | Protocol::Dnsaddr(name),
        ) => name.into_owned(),
        _ => addr.to_string(),
    }
}

fn is_p2p_or_empty(rest: &Multiaddr) -> bool {
    let mut parts = rest.iter();
    matches!(
        (parts.next(), parts.next()),
        (None | Some(Protocol::P2p(_)), None)
    )
}

/// `/tcp/…` or `/tcp/…/p2p/…`: what may follow a name.
fn has_port(rest: &Multiaddr) -> bool {
    let mut parts = rest.iter();
    matches!(parts.next(), Some(Protocol::Tcp(_))) && is_p2p_or_empty(&parts.collect())
}

fn with_ips(ips: impl Iterator<Item = IpAddr>, rest: &Multiaddr) -> Vec<Multiaddr> {
    ips.take(MAX_ADDRS)
        .map(|ip| Multiaddr::from(ip).iter().chain(rest.iter()).collect())
        .collect()
}

/// The `dnsaddr=` values that we could use and that end in `suffix`.
fn dnsaddrs<'a>(data: impl Iterator<Item = &'a RData>, suffix: &Multiaddr) -> Vec<Multiaddr> {
    let texts = data.filter_map(|data| match data {
        RData::TXT(txt) => String::from_utf8(txt.txt_data.concat()).ok(),
        _ => None,
    });
    texts
        .filter_map(|text| text.strip_prefix("dnsaddr=")?.parse::<Multiaddr>().ok())
        .filter(|addr| is_name(addr) || socket_addr(addr).is_some())
        .filter(|addr| addr.ends_with(suffix))
        .take(MAX_ADDRS)
        .collect()
}

/// Nothing panics while it holds one of these locks, and there is one thread only.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a dial failed that may have begun with a name.
#[derive(Debug)]
pub(crate) enum DnsError<E> {
    /// The name gave no address.
    Resolve(ResolveError),
    /// The wrapped transport failed; after a name, for the last of its addresses.
    Transport(E),
}

impl<E: fmt::Display> fmt::Display for DnsError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) => error.fmt(f),
            Self::Transport(error) => error.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for DnsError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Resolve(error) => Some(error),
            Self::Transport(error) => Some(error),
        }
    }
}

/// A transport that dials names too: their addresses one after another, until one answers.
pub(crate) struct DnsTransport<T> {
    /// Shared with the dials that still resolve their name.
    inner: Arc<Mutex<T>>,
    resolver: Resolver,
}

impl<T> DnsTransport<T> {
    /// Dials over `inner` what `resolver` finds.
    pub(crate) fn new(inner: T, resolver: Resolver) -> Self {
        Self {
            inner: Arc::new(Mutex::new(inner)),
            resolver,
        }
    }
}

impl<T> Transport for DnsTransport<T>
where
    T: Transport + Send + Unpin + 'static,
    T::Dial: Send + 'static,
    T::Error: Send + 'static,
    T::Output: 'static,
{
    type Output = T::Output;
    type Error = DnsError<T::Error>;
    type ListenerUpgrade = MapErr<T::ListenerUpgrade, fn(T::Error) -> Self::Error>;
    type Dial = Pin<Box<dyn Future<Output = Result<T::Output, Self::Error>> + Send>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        addr: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        let listening = lock(&self.inner).listen_on(id, addr);
        listening.map_err(|error| error.map(DnsError::Transport))
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        lock(&self.inner).remove_listener(id)
    }

    fn dial(
        &mut self,
        addr: Multiaddr,
        opts: DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        if is_name(&addr) {
            let (inner, resolver) = (self.inner.clone(), self.resolver.clone());
            return Ok(Box::pin(dial_name(inner, resolver, addr, opts)));
        }
        let dial = lock(&self.inner).dial(addr, opts);
        let dial = dial.map_err(|error| error.map(DnsError::Transport))?;
        Ok(Box::pin(async { dial.await.map_err(DnsError::Transport) }))
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut *lock(&self.inner)).poll(cx).map(|event| {
            event
                .map_upgrade(|upgrade| upgrade.map_err(DnsError::Transport as fn(_) -> _))
                .map_err(DnsError::Transport)
        })
    }
}

async fn dial_name<T: Transport>(
    inner: Arc<Mutex<T>>,
    resolver: Resolver,
    addr: Multiaddr,
    opts: DialOpts,
) -> Result<T::Output, DnsError<T::Error>> {
    let addrs = resolver.resolve(&addr).await.map_err(DnsError::Resolve)?;
    let mut failed = DnsError::Resolve(ResolveError::NotFound {
        name: name_of(&addr),
    });
    for addr in addrs {
        let dial = lock(&inner).dial(addr, opts);
        match dial {
            Ok(dial) => match dial.await {
                Ok(output) => return Ok(output),
                Err(error) => failed = DnsError::Transport(error),
            },
            Err(TransportError::Other(error)) => failed = DnsError::Transport(error),
            Err(TransportError::MultiaddrNotSupported(_)) => {}
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests;
