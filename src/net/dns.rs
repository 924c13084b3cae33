//! Names in multiaddresses: `/dns`, `/dns4`, `/dns6` and `/dnsaddr` (libp2p addressing
//! specification).
//!
//! A stub resolver on the one executor. It needs no thread, and not the C library's resolver, which
//! a static binary does not have. It asks the recursive servers of `/etc/resolv.conf` and caches
//! nothing, because those servers do. Invariants: one resolution takes at most 5 s, follows at most
//! 4 TXT records one after another, does at most 32 lookups and yields at most 16 addresses, each
//! of the form `/ip4|ip6/…/tcp/…[/p2p/…]`; at most 8 are under way at a time. An error in
//! `/etc/resolv.conf` or `/etc/hosts` only makes lookups fail.

pub(super) mod message;
#[cfg(feature = "dns")]
pub(crate) mod serve;
mod stub;
mod system;
mod transport;

use std::cell::OnceCell;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::base::Rtype;
use futures_util::stream::{FuturesUnordered, StreamExt};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use smol::lock::Semaphore;

use super::executor::within;
use super::tcp::socket_addr;
use crate::protocol::{dns_name, order::sort_few};
use message::Value;
use system::Files;

pub(crate) use transport::DnsTransport;

/// The time limit of one resolution.
const LIMIT: Duration = Duration::from_secs(5);

/// `/dnsaddr` records followed one after another.
const MAX_DEPTH: usize = 4;

/// Lookups of one resolution.
const MAX_LOOKUPS: usize = 32;

/// Addresses that one resolution yields at most, and TXT values used of one name.
const MAX_ADDRS: usize = 16;

/// Resolutions under way at a time. The others wait, and their time limit runs meanwhile.
const MAX_AT_ONCE: usize = 8;

/// How long addresses of one family wait for those of the other: some servers never answer queries
/// for one of the families.
const PATIENCE: Duration = Duration::from_millis(500);

/// Why a name gave no address.
#[derive(Debug)]
pub(crate) struct ResolveError {
    name: String,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    /// The address is neither a name with a TCP port nor a `/dnsaddr`.
    Unsupported,
    /// It is not a valid DNS name.
    BadName,
    /// This file names no server, and the hosts file does not have the name.
    NoServers(PathBuf),
    /// The name that was asked for does not exist.
    NoName(String),
    /// The name exists, but has no usable record.
    NotFound,
    /// Too many `/dnsaddr` records lead from one to the next.
    TooDeep,
    /// No server answered.
    Timeout,
    /// All servers failed; this is the first.
    Failed(SocketAddr, io::Error),
}

impl ResolveError {
    /// What is wrong, without the name.
    pub(crate) fn problem(&self) -> String {
        self.problem.to_string()
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot resolve {}: {}", self.name, self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported => f.write_str("expected /dns4/NAME/tcp/PORT or /dnsaddr/NAME"),
            Self::BadName => {
                f.write_str("a name is ASCII, at most 63 bytes between two dots and 253 in all")
            }
            Self::NoServers(file) => write!(f, "{} names no name server", file.display()),
            Self::NoName(name) => write!(f, "the name {name} does not exist"),
            Self::NotFound => f.write_str("it has no address that can be used"),
            Self::TooDeep => {
                write!(
                    f,
                    "more than {MAX_DEPTH} dnsaddr records lead to one another"
                )
            }
            Self::Timeout => f.write_str("no name server answered in time"),
            Self::Failed(server, error) => write!(f, "name server {server}: {error}"),
        }
    }
}

impl Error for ResolveError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.problem {
            Problem::Failed(_, source) => Some(source),
            _ => None,
        }
    }
}

/// True if `addr` begins with a name.
pub(crate) fn is_name(addr: &Multiaddr) -> bool {
    dns_name(addr.as_ref()).is_some()
}

thread_local! {
    static OF_THIS_THREAD: OnceCell<Resolver> = const { OnceCell::new() };
}

/// Resolves names. Clones share the bounds. Its futures must run inside the executor's `block_on`.
#[derive(Clone)]
pub(crate) struct Resolver(Arc<Shared>);

struct Shared {
    files: Files,
    limit: Duration,
    free: Semaphore,
}

impl Resolver {
    /// The resolver, with its bounds, that all code on this thread shares. It takes the servers
    /// from `/etc/resolv.conf`, and looks in `/etc/hosts` before it asks them.
    pub(crate) fn of_this_thread() -> Self {
        let new = || Self::with(Files::default(), LIMIT);
        OF_THIS_THREAD.with(|resolver| resolver.get_or_init(new).clone())
    }

    fn with(files: Files, limit: Duration) -> Self {
        Self(Arc::new(Shared {
            files,
            limit,
            free: Semaphore::new(MAX_AT_ONCE),
        }))
    }

    /// The addresses that `addr` stands for, in the order of the records; `addr` itself if it is no
    /// name. If it is a `/dnsaddr` that ends in `/p2p/ID`, only records with that id count. When
    /// the time runs out, the result is what was found until then; it is an error only if nothing
    /// was found.
    pub(crate) async fn resolve(&self, addr: &Multiaddr) -> Result<Vec<Multiaddr>, ResolveError> {
        if !is_name(addr) {
            return Ok(vec![addr.clone()]);
        }
        let mut search = Search {
            found: Vec::new(),
            error: None,
        };
        let walk = async {
            let _permit = self.0.free.acquire().await;
            self.walk(addr, &mut search).await;
        };
        let walk = within(self.0.limit, walk).await;
        if search.found.is_empty() {
            return Err(match (walk, search.error) {
                (Some(()), Some(error)) => error,
                (Some(()), None) => error(addr, Problem::NotFound),
                (None, _) => error(addr, Problem::Timeout),
            });
        }
        Ok(search.found)
    }

    /// The search domains of this host (resolv.conf(5)).
    pub(crate) fn search_domains(&self) -> Vec<String> {
        self.0.files.system(self.0.limit).search
    }

    async fn walk(&self, addr: &Multiaddr, search: &mut Search) {
        // The last element is taken next, so that the addresses that a record leads to come before
        // the record's neighbours.
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
                Err(problem) => {
                    search.error.get_or_insert_with(|| error(&addr, problem));
                }
            }
            if search.found.len() >= MAX_ADDRS {
                return;
            }
        }
    }

    /// Replaces the name at the beginning of `addr` by the results of one lookup.
    async fn step(&self, addr: &Multiaddr, depth: usize) -> Result<Vec<Multiaddr>, Problem> {
        let mut parts = addr.iter();
        let first = parts.next();
        let rest: Multiaddr = parts.collect();
        let rtypes: &[Rtype] = match first {
            Some(Protocol::Dnsaddr(_)) if depth >= MAX_DEPTH => return Err(Problem::TooDeep),
            Some(Protocol::Dnsaddr(name)) if is_p2p_or_empty(&rest) => {
                let name = format!("_dnsaddr.{}.", name.trim_end_matches('.'));
                return Ok(dnsaddrs(self.lookup(&name, &[Rtype::TXT]).await?, &rest));
            }
            _ if !has_port(&rest) => return Err(Problem::Unsupported),
            Some(Protocol::Dns(_)) => &[Rtype::A, Rtype::AAAA],
            Some(Protocol::Dns4(_)) => &[Rtype::A],
            Some(Protocol::Dns6(_)) => &[Rtype::AAAA],
            _ => return Err(Problem::Unsupported),
        };
        Ok(with_ips(self.ips(&name_of(addr), rtypes).await?, &rest))
    }

    /// The addresses of `name` from the hosts file, or else from the servers; IPv4 first.
    async fn ips(&self, name: &str, rtypes: &[Rtype]) -> Result<Vec<IpAddr>, Problem> {
        let (four, six) = (rtypes.contains(&Rtype::A), rtypes.contains(&Rtype::AAAA));
        let wanted = |ip: &IpAddr| if ip.is_ipv4() { four } else { six };
        let mut ips = self.0.files.hosts(name, wanted);
        if ips.is_empty() {
            let values = self.lookup(name, rtypes).await?;
            ips.extend(values.iter().filter_map(Value::ip));
        }
        sort_few(&mut ips, IpAddr::is_ipv6);
        Ok(ips)
    }

    /// The records of `rtypes`, queried at the same time. Of the names that `name` can stand for,
    /// the first that has such records is used.
    async fn lookup(&self, name: &str, rtypes: &[Rtype]) -> Result<Vec<Value>, Problem> {
        let system = self.0.files.system(self.0.limit);
        if system.servers.is_empty() {
            return Err(Problem::NoServers(self.0.files.resolv_conf.clone()));
        }
        let candidates = message::candidates(name, &system.search, system.ndots);
        if candidates.is_empty() {
            return Err(Problem::BadName);
        }
        let (mut values, mut exists, mut failed) = (Vec::new(), false, None);
        for candidate in candidates {
            let asked = (rtypes.iter()).map(|rtype| stub::ask(&system, &candidate, *rtype));
            let mut asked: FuturesUnordered<_> = asked.collect();
            while let Some(answer) = match values.is_empty() {
                true => asked.next().await,
                false => within(PATIENCE, asked.next()).await.flatten(),
            } {
                match answer {
                    Ok(Some(found)) => {
                        exists = true;
                        values.extend(found);
                    }
                    Ok(None) => {}
                    Err(problem) => failed = failed.or(Some(problem)),
                }
            }
            // Servers that did not answer for one name will not answer for the next.
            if !values.is_empty() || matches!(failed, Some(Problem::Timeout)) {
                break;
            }
        }
        match failed {
            _ if !values.is_empty() => Ok(values),
            Some(problem) => Err(problem),
            None if exists => Err(Problem::NotFound),
            None => Err(Problem::NoName(name.trim_end_matches('.').to_owned())),
        }
    }
}

/// The addresses of `name` that the server at `at` has. Blocks, for `limit` at most.
///
/// # Errors
/// If there is no answer, or one without addresses.
#[cfg(feature = "dns")]
pub(crate) fn ask_at(at: SocketAddr, name: &str, limit: Duration) -> io::Result<Vec<IpAddr>> {
    let name = message::parse_name(name).ok_or(io::ErrorKind::InvalidInput)?;
    let edns = message::Edns::With;
    let query = message::query(&name, Rtype::A, 1, edns).map_err(io::Error::other)?;
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(limit))?;
    socket.send_to(query.as_ref(), at)?;
    let mut answer = [0; message::MAX_UDP as usize];
    let len = socket.recv(&mut answer)?;
    match message::judge(query.as_ref(), answer.get(..len).unwrap_or_default()) {
        message::Verdict::Values(values) => Ok(values.iter().filter_map(Value::ip).collect()),
        _ => Err(io::Error::other("it is no list of addresses")),
    }
}

fn error(addr: &Multiaddr, problem: Problem) -> ResolveError {
    let name = match problem {
        Problem::Unsupported => addr.to_string(),
        _ => name_of(addr),
    };
    ResolveError { name, problem }
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
    dns_name(addr.as_ref()).map_or_else(|| addr.to_string(), str::to_owned)
}

fn is_p2p_or_empty(rest: &Multiaddr) -> bool {
    let mut parts = rest.iter();
    matches!(
        (parts.next(), parts.next()),
        (None | Some(Protocol::P2p(_)), None)
    )
}

/// Whether `rest` may follow a name: it is `/tcp/…` or `/tcp/…/p2p/…`.
fn has_port(rest: &Multiaddr) -> bool {
    let mut parts = rest.iter();
    matches!(parts.next(), Some(Protocol::Tcp(_))) && is_p2p_or_empty(&parts.collect())
}

fn with_ips(ips: Vec<IpAddr>, rest: &Multiaddr) -> Vec<Multiaddr> {
    ips.into_iter()
        .take(MAX_ADDRS)
        .map(|ip| Multiaddr::from(ip).iter().chain(rest.iter()).collect())
        .collect()
}

/// The `dnsaddr=` values that are usable and end in `suffix`.
fn dnsaddrs(values: Vec<Value>, suffix: &Multiaddr) -> Vec<Multiaddr> {
    let texts = values.iter().filter_map(Value::text);
    texts
        .filter_map(|text| text.strip_prefix("dnsaddr=")?.parse::<Multiaddr>().ok())
        .filter(|addr| is_name(addr) || socket_addr(addr).is_some())
        .filter(|addr| addr.ends_with(suffix))
        .take(MAX_ADDRS)
        .collect()
}

/// No code panics while it holds one of these locks, and there is only one thread.
/// For `crate::fuzzing`: as a query to a server for `oc.internal`, and as the answer to a query of
/// each kind.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    use crate::protocol::zone::Zone;

    let (Some(zone), Some(name)) = (
        Zone::new("oc.internal"),
        message::parse_name("pump.example"),
    ) else {
        return;
    };
    let ip = [192, 0, 2, 1].into();
    let server = serve::Server { zone, ip };
    if let Ok(query) = serve::read(bytes)
        && let Ok(asked) = server.asked(&query)
    {
        let hosts = serve::Hosts::default();
        let sections = server.answer((&asked, query.rtype), &hosts, 60, &|_| 0);
        for limit in [512, 65_535] {
            let answer = serve::write(bytes, &sections, limit);
            assert!(answer.is_none_or(|answer| answer.len() <= limit));
        }
    }
    for rtype in [Rtype::A, Rtype::AAAA, Rtype::TXT] {
        let id = bytes.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
        if let Ok(query) = message::query(&name, rtype, id, message::Edns::With) {
            message::judge(query.as_ref(), bytes);
        }
    }
}

#[cfg(test)]
mod tests;
