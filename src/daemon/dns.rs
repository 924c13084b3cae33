//! Answers by DNS, for programs that know nothing of this system: over UDP and TCP, on the one
//! loop.
//!
//! ```text
//!  a resolver ──query──▶ sockets ──▶ Desk ── known, and still valid ──────────────▶ answer
//!                                     │
//!                                     └─ not known: one lookup for equal queries
//!                                          │  8 at a time, the others wait
//!                                          ▼
//!                                        the loop ── outcome ──▶ cache ──▶ answers
//! ```
//!
//! Invariants: at most [`MAX_QUERIES`] queries wait for lookups, and one more is answered with a
//! failure; each is answered within [`PATIENCE`].

mod cache;
mod sockets;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, OnceCell, RefCell},
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    rc::Rc,
    time::Duration,
};

use async_io::Async;
use smol::{
    channel::{Receiver, Sender, bounded},
    lock::Semaphore,
};

pub(super) use self::cache::Known;
use self::{
    cache::Cache,
    sockets::{serve_tcp, serve_udp},
};
use super::{
    Error, clock,
    connections::{Connections, Place, cannot_answer, count},
    machines::MAX_PROGRAM_LOOKUPS,
};
use crate::{
    net::{
        dns::serve::{Host, Hosts, MAX_TCP, PLAIN_UDP, Sections, Server, read, write},
        envelope::open_node,
        executor::{ReadySet, spawn, within},
        own_subnets,
    },
    protocol::{
        Coverage, Instant, TableStats,
        address::{self, distance},
        codec::service::Transport,
        lookup::{self, Outcome, Question},
        zone::{FAILURE_TTL, MAX_TTL, Zone, lifetime, name_of_address, rest_of_lease},
    },
};

/// Queries that wait for lookups at most.
const MAX_QUERIES: usize = 64;
/// How long a query waits at most for a slot and its lookup, and how long a lookup waits for a
/// slot.
const PATIENCE: Duration = Duration::from_millis(4_500);
/// Attempts to find a port that is free for both UDP and TCP.
const ATTEMPTS: usize = 8;

/// A lookup that the loop must make. Dropping it says that it failed.
#[derive(Debug)]
pub(crate) struct Resolve {
    /// What is looked up.
    pub(super) question: Question,
    /// Where the outcome goes.
    pub(super) reply: Sender<Known>,
}

/// A server that answers.
pub(super) struct Dns {
    desk: Rc<Desk>,
    lookups: Receiver<Resolve>,
    at: SocketAddr,
}

impl Dns {
    /// Binds the sockets and answers from now on, if the loop makes the lookups.
    ///
    /// # Errors
    /// If the system refuses one of the sockets.
    pub(super) fn start(at: SocketAddr, zone: &Zone) -> Result<Self, Error> {
        let failed = |error: io::Error| cannot_answer("DNS at --dns", at, &error);
        let (udp, tcp) = bind(at).map_err(failed)?;
        let at = udp.local_addr().map_err(failed)?;
        let sockets = ReadySet::of_this_thread().map_err(failed)?;
        let udp = Rc::new(sockets.watch(udp).map_err(failed)?);
        let tcp = Async::new(tcp).map_err(failed)?;
        // Each lookup has a slot before it is sent.
        let (sender, lookups) = bounded(MAX_PROGRAM_LOOKUPS);
        let server = Server {
            zone: zone.clone(),
            ip: at.ip(),
        };
        let desk = Rc::new(Desk::new(server, sender, PATIENCE));
        spawn(serve_udp(desk.clone(), udp));
        spawn(serve_tcp(desk.clone(), tcp));
        Ok(Self { desk, lookups, at })
    }

    /// The line for stdout.
    pub(super) fn line(&self) -> String {
        format!(
            "answers DNS for {} on {}",
            self.desk.server.zone.name(),
            self.at
        )
    }

    /// The next lookup to make. Cancel-safe.
    pub(super) async fn next(&self) -> Resolve {
        match self.lookups.recv().await {
            Ok(lookup) => lookup,
            // The desk lasts as long as this value.
            Err(_) => std::future::pending().await,
        }
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self) -> [TableStats; 3] {
        self.desk.stats()
    }
}

/// Two sockets with the same port, also if the system chooses it.
fn bind(at: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let tcp = TcpListener::bind(at)?;
        match UdpSocket::bind(SocketAddr::new(at.ip(), tcp.local_addr()?.port())) {
            Ok(udp) => {
                udp.set_nonblocking(true)?;
                return Ok((udp, tcp));
            }
            Err(error) if at.port() != 0 || attempts == ATTEMPTS => return Err(error),
            Err(_) => {}
        }
    }
}

/// The outcome of a lookup as the DNS answers it.
pub(super) fn known(outcome: &Outcome<'_>, now: Instant, own_ms: u64) -> Known {
    let mut shortest = None;
    let hosts = outcome.records.iter().filter_map(|found| {
        let (host, rest) = host(found, own_ms)?;
        shortest = Some(shortest.map_or(rest, |shortest: Duration| shortest.min(rest)));
        Some(host)
    });
    let hosts = Hosts {
        hosts: hosts.flatten().collect(),
        coverage: match outcome.is_complete {
            true => Coverage::Complete,
            false => Coverage::Partial,
        },
    };
    Known {
        until: now + lifetime(shortest, hosts.coverage),
        hosts,
    }
}

/// The node and the devices that it lists, and the rest of its lease; `None` if that is over.
fn host(found: &lookup::FoundRecord, own_ms: u64) -> Option<(Vec<Host>, Duration)> {
    let record = open_node(found.envelope()).ok()?;
    let addrs = record.addrs.iter().filter_map(|addr| {
        // A link-local address would need the name of an interface.
        match address::TransportAddr::of(addr.as_ref()).host {
            address::Host::V4(ip) => Some(IpAddr::from(ip)),
            address::Host::V6(ip) if !ip.is_unicast_link_local() => Some(ip.into()),
            _ => None,
        }
    });
    let mut hosts = vec![Host {
        name: record.info.name.as_str().into(),
        addrs: addrs.collect(),
        device: None,
        services: record.about.services,
        tags: record.about.tags,
    }];
    for listed in record.about.link_services {
        if let Some(first) = listed.addrs.first() {
            hosts.push(Host {
                name: record.info.name.as_str().into(),
                device: Some(name_of_address(*first).as_str().into()),
                addrs: vec![*first],
                services: vec![listed.service],
                tags: Vec::new(),
            });
        }
    }
    let expires_in = record.info.expires_at_ms().saturating_sub(own_ms);
    let expires_in = Duration::from_millis(expires_in);
    let rest = rest_of_lease(record.info.ttl, expires_in, found.age())?;
    Some((hosts, rest))
}

/// What all queries share.
struct Desk {
    server: Server,
    cache: RefCell<Cache>,
    /// Lookups that have begun, or wait for a slot.
    pending: RefCell<Vec<Pending>>,
    slots: Semaphore,
    patience: Duration,
    lookups: Sender<Resolve>,
    /// Queries that wait for a lookup.
    queries: Rc<Cell<usize>>,
    /// Queries for which there was no place.
    refused: Cell<u64>,
    connections: Connections,
}

/// A lookup, and what the queries that wait for it share.
struct Pending {
    question: Question,
    outcome: Rc<OnceCell<Rc<Known>>>,
    /// It is closed when there is an outcome.
    over: Receiver<()>,
}

/// A query that was read.
enum Received {
    /// The answer needs no lookup; `None`: there is no answer either.
    Answer(Option<Vec<u8>>),
    /// This must be looked up.
    Wait(Question),
}

impl Desk {
    fn new(server: Server, lookups: Sender<Resolve>, patience: Duration) -> Self {
        Self {
            server,
            cache: RefCell::default(),
            pending: RefCell::default(),
            slots: Semaphore::new(MAX_PROGRAM_LOOKUPS),
            patience,
            lookups,
            queries: Rc::default(),
            refused: Cell::new(0),
            connections: Connections::new("dns_connections"),
        }
    }

    /// The answer to a message that came `over` this transport, if it needs no lookup.
    fn receive(&self, bytes: &[u8], asker: IpAddr, over: Transport) -> Received {
        let now = now();
        let asked = match read(bytes).map(|query| self.server.asked(&query)) {
            Ok(Ok(asked)) => asked,
            Ok(Err(code)) | Err(Some(code)) => {
                return Received::Answer(write(bytes, &Sections::bare(code), PLAIN_UDP));
            }
            Err(None) => return Received::Answer(None),
        };
        let known = match asked.question() {
            // Without a lookup it is known that nothing can be found.
            None => Rc::new(Known {
                hosts: Hosts {
                    hosts: Vec::new(),
                    coverage: Coverage::Complete,
                },
                until: now + MAX_TTL,
            }),
            Some(question) => match self.cache.borrow_mut().find(now, &question) {
                Some(known) => known,
                None => return Received::Wait(question),
            },
        };
        Received::Answer(self.answer(bytes, &known, now, (asker, over)))
    }

    /// The answer to a message, made of what is known.
    fn answer(
        &self,
        bytes: &[u8],
        known: &Known,
        now: Instant,
        (asker, over): (IpAddr, Transport),
    ) -> Option<Vec<u8>> {
        let query = read(bytes).ok()?;
        let asked = self.server.asked(&query).ok()?;
        let ttl = Duration::from_millis(known.until.as_millis().saturating_sub(now.as_millis()));
        let own = own_subnets();
        // A client on this host is in all networks of the host.
        let asker = Some(asker).filter(|ip| !own.iter().any(|subnet| subnet.ip == *ip));
        let near = |ip| distance(ip, &own, asker);
        let what = (&asked, query.rtype);
        let sections = self
            .server
            .answer(what, &known.hosts, ttl.as_secs() as u32, &near);
        let room = match over {
            Transport::Tcp => MAX_TCP,
            Transport::Udp => query.udp,
        };
        write(bytes, &sections, room)
    }

    /// The answer to a message for which this must be looked up.
    async fn look_up(
        self: Rc<Self>,
        bytes: &[u8],
        question: Question,
        way: (IpAddr, Transport),
    ) -> Option<Vec<u8>> {
        let known = match Place::take(&self.queries, MAX_QUERIES) {
            Some(_place) => self.outcome(question).await,
            None => {
                count(&self.refused);
                None
            }
        };
        let known = known.unwrap_or_else(|| Rc::new(failure()));
        self.answer(bytes, &known, now(), way)
    }

    /// The outcome of the lookup, which is made once for all queries that wait for it; `None` if it
    /// is late.
    async fn outcome(self: &Rc<Self>, question: Question) -> Option<Rc<Known>> {
        let (outcome, over) = self.join(question);
        // Nothing is ever sent: it is closed.
        let _ = within(self.patience, over.recv()).await;
        outcome.get().cloned()
    }

    fn join(self: &Rc<Self>, question: Question) -> (Rc<OnceCell<Rc<Known>>>, Receiver<()>) {
        let mut pending = self.pending.borrow_mut();
        if let Some(same) = pending.iter().find(|pending| pending.question == question) {
            return (same.outcome.clone(), same.over.clone());
        }
        let (running, over) = bounded(1);
        let outcome = Rc::new(OnceCell::new());
        pending.push(Pending {
            question: question.clone(),
            outcome: outcome.clone(),
            over: over.clone(),
        });
        let (desk, told) = (self.clone(), outcome.clone());
        spawn(async move {
            let known = desk.make(question.clone()).await;
            let known = Rc::new(known.unwrap_or_else(failure));
            desk.pending
                .borrow_mut()
                .retain(|pending| pending.question != question);
            desk.cache.borrow_mut().keep(now(), question, known.clone());
            let _ = told.set(known);
            drop(running);
        });
        (outcome, over)
    }

    /// Has the loop make a lookup, when there is a slot. It has the slot until the loop is done
    /// with it, even if no query waits any more: the next equal query finds its outcome.
    async fn make(&self, question: Question) -> Option<Known> {
        let _slot = within(self.patience, self.slots.acquire()).await?;
        let (reply, outcome) = bounded(1);
        self.lookups.send(Resolve { question, reply }).await.ok()?;
        outcome.recv().await.ok()
    }

    fn stats(&self) -> [TableStats; 3] {
        let queries = TableStats {
            name: "dns_queries",
            used: self.queries.get(),
            capacity: MAX_QUERIES,
            refused: self.refused.get(),
            evicted: 0,
        };
        let cache = self.cache.borrow().stats(now());
        [queries, cache, self.connections.stats()]
    }
}

fn failure() -> Known {
    Known {
        hosts: Hosts::default(),
        until: now() + FAILURE_TTL,
    }
}

fn now() -> Instant {
    Instant::from_millis(clock::boottime())
}
