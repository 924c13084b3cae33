//! Whether others can reach this process at what it announces: it asks a server to connect to it,
//! and serves the same to others.
//!
//! ```text
//!  Client ── request 5: my port ──▶ Server ── a connection of its own ──▶ client's listener
//!  Client ◀─ reached, not, cannot tell ── Server
//! ```
//!
//! Invariants of the [`Server`], whatever is asked: it dials only the IP address that the request
//! comes from; at most [`MAX_DIALS`] at a time, 1 a second and 8 at once, one of a peer and
//! [`OF_ONE_HOST`] of a host (of IPv6: of its network of 64 bits) within [`PAUSE`]. A port below
//! 1024 is never dialled, not even one of the requester's record, which the requester signs itself:
//! behind one address there may be other hosts, and their mail and web servers are no business of
//! the requester. A connection that comes from the server's own host is not dialled back either,
//! unless the server serves that host alone: through a proxy a stranger would look at the host's
//! closed ports. Behind a proxy or a gateway that hides the source of connections, each stranger
//! seems to be that gateway: so a host that was not reached [`MISSES`] times within
//! [`MISSES_WITHIN`] is not dialled for the rest of it, and only a requester that announces the
//! address is told why it was not reached ([`told`]).
//!
//! Invariants of the [`Client`]: it asks one server at a time; an answer is valid until the
//! addresses change, and one that says nothing never replaces one that says something; in a round
//! it asks each server once.

mod client;
mod misses;
mod servers;

use core::{net::Ipv6Addr, time::Duration};

use heapless::Vec;

pub use client::{Answer, Client, Heard, Silent};
use misses::Misses;

use super::{
    Addr, Families, Host, Instant, PeerId, Reason, TableStats, TransportAddr, Verdict, time::Bucket,
};

/// Dials under way at once.
pub const MAX_DIALS: u8 = 4;
/// How long one may take.
pub const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// Within this time one peer is dialled once, and one host [`OF_ONE_HOST`] times.
pub const PAUSE: Duration = Duration::from_secs(10);
/// Dials to one host within [`PAUSE`]: one host may take no more than half of all.
pub const OF_ONE_HOST: usize = 4;
/// After this number of dials that have not reached their peer, the host is not dialled for the
/// rest of [`MISSES_WITHIN`]: what looks like the requester may be a gateway, whose ports are
/// looked for.
pub const MISSES: u8 = 4;
/// Counted from the first of them.
pub const MISSES_WITHIN: Duration = Duration::from_secs(10 * 60);
/// Dials a second, and at once after a quiet time.
const RATE: u32 = 1;
const BURST: u32 = 8;
/// No more dials than these can begin within [`PAUSE`].
const RECENT: usize = 10 * RATE as usize + BURST as usize;
/// The least port that is dialled.
const LEAST_PORT: u16 = 1024;

/// What a server found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It has connected to the peer that asked.
    Reached = 0,
    /// It has tried, and could not.
    Not = 1,
    /// It has not tried.
    Cannot = 2,
}

impl Finding {
    /// The finding with this code on the wire.
    pub fn of(code: u64) -> Option<Self> {
        let all = [Self::Reached, Self::Not, Self::Cannot];
        all.into_iter().find(|finding| *finding as u64 == code)
    }
}

/// The answer of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialedBack {
    /// What it found.
    pub finding: Finding,
    /// Why it did not reach the peer, or has not tried; for people.
    pub reason: Reason,
    /// The address that it dialled; empty if it has not tried.
    pub addr: Addr,
}

/// Why a server does not dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The port is below 1024.
    Port,
    /// The requester's IP address is not known, or has no meaning here.
    Host,
    /// The requester is on the server's own host.
    OwnHost,
    /// The same peer, or its host, was dialled a moment ago.
    TooSoon,
    /// The host was not reached [`MISSES`] times.
    Missed,
    /// Too many dials at once.
    Busy,
    /// No connection is free.
    NoSlot,
    /// It never dials back.
    Never,
}

impl Refusal {
    /// The reason for people.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Port => "it dials no port below 1024",
            Self::Host => "it does not know the address of this process",
            Self::OwnHost => "it is on the same host, and dials only others",
            Self::TooSoon => "it has dialled this process or its host a moment ago",
            Self::Missed => "it has not reached this host four times, and waits ten minutes",
            Self::Busy => "it dials too many others now",
            Self::NoSlot => "it has no connection to spare",
            Self::Never => "it dials no other process",
        }
    }
}

impl From<Refusal> for DialedBack {
    fn from(refusal: Refusal) -> Self {
        Self {
            finding: Finding::Cannot,
            reason: Reason::try_from(refusal.reason()).unwrap_or_default(),
            addr: Addr::new(),
        }
    }
}

/// A request to be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The peer that asks.
    pub peer: PeerId,
    /// The host that the request comes from; `None`: it is not known.
    pub host: Option<Host>,
    /// The port that it asks for.
    pub port: u16,
    /// It is this host.
    pub is_own_host: bool,
}

/// What the server itself is like at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Means {
    /// All peers are on this host, and all addresses announced are loopback ones.
    pub is_local: bool,
    /// A connection is free.
    pub has_slot: bool,
}

/// Admits the requests of others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Server {
    bucket: Bucket<RATE, BURST>,
    running: u8,
    refused: u64,
    /// The dials that began within [`PAUSE`].
    recent: Vec<(PeerId, Host, Instant), RECENT, u8>,
    misses: Misses,
}

impl Server {
    /// Whether a dial may begin at `now`, and where it goes. If so, [`Server::ended`] follows it.
    ///
    /// # Errors
    /// Why it may not. It takes nothing of the limits then.
    pub fn admit(
        &mut self,
        now: Instant,
        asked: &Asked,
        means: Means,
    ) -> Result<TransportAddr, Refusal> {
        let admitted = self.judge(now, asked, means);
        self.refused += u64::from(admitted.is_err());
        admitted
    }

    fn judge(
        &mut self,
        now: Instant,
        asked: &Asked,
        means: Means,
    ) -> Result<TransportAddr, Refusal> {
        let port = asked.port;
        if port < LEAST_PORT {
            return Err(Refusal::Port);
        }
        let host = asked.host.filter(|host| !matches!(host, Host::Name(_)));
        let host = host.ok_or(Refusal::Host)?;
        match (asked.is_own_host, means.is_local) {
            (true, false) => return Err(Refusal::OwnHost),
            // A link-local address leads nowhere without its interface.
            (false, _) if host.is_of_its_own_host() => return Err(Refusal::Host),
            _ => {}
        }
        self.recent.retain(|(.., at)| now - *at < PAUSE);
        let of_peer = self.recent.iter().any(|(peer, ..)| *peer == asked.peer);
        let of_host = self.recent.iter();
        let of_host = of_host.filter(|(_, at, _)| source(*at) == source(host));
        let of_host = of_host.count();
        if of_peer || of_host >= OF_ONE_HOST {
            return Err(Refusal::TooSoon);
        }
        if self.misses.are_too_many(now, source(host)) {
            return Err(Refusal::Missed);
        }
        if self.running >= MAX_DIALS || self.recent.is_full() {
            return Err(Refusal::Busy);
        }
        if !means.has_slot {
            return Err(Refusal::NoSlot);
        }
        if !self.bucket.take(now) {
            return Err(Refusal::Busy);
        }
        // There is room.
        let _ = self.recent.push((asked.peer, host, now));
        self.running += 1;
        Ok(TransportAddr { host, port })
    }

    /// A dial of this host has ended: its peer was reached, or was not.
    pub fn ended(&mut self, now: Instant, host: Host, verdict: Verdict) {
        self.running = self.running.saturating_sub(1);
        if verdict == Verdict::Silent {
            self.misses.add(now, source(host));
        }
    }

    /// For `status`: the dials under way, and the hosts that were not reached.
    pub fn stats(&self, now: Instant) -> [TableStats; 2] {
        let dials = TableStats {
            name: "dial_backs",
            used: self.running.into(),
            capacity: MAX_DIALS.into(),
            refused: self.refused,
            evicted: 0,
        };
        [dials, self.misses.stats(now)]
    }
}

/// What a requester is told of a dial that has not reached it: `why`, if it announces the address
/// that was dialled. To others it would tell closed ports of a gateway from open ones.
pub fn told(why: &str, is_announced: bool) -> &str {
    match is_announced {
        true => why,
        false => "it could not connect",
    }
}

/// Whether a failure to reach the address `dialled` says something of a process that asked for
/// `port` and announces these addresses: it has that port, and is of a family of one of them. If
/// the operator gives addresses (`are_given`), it must be at the host of one: connections may leave
/// at another address than they arrive at. A server may name no address at all.
pub fn is_meant<'a>(
    dialled: &Addr,
    port: Option<u16>,
    announced: impl IntoIterator<Item = &'a [u8]>,
    are_given: bool,
) -> bool {
    let (at, family) = (TransportAddr::of(dialled), Families::of(dialled));
    let is_one = |addr: &[u8]| match are_given {
        true => TransportAddr::of(addr).host == at.host,
        false => Families::of(addr).meets(family),
    };
    !dialled.is_empty() && port == Some(at.port) && announced.into_iter().any(is_one)
}

/// What has the limits of one host: with IPv6 a network of 64 bits, because one host may take any
/// number of addresses in it.
fn source(host: Host) -> Host {
    match host {
        Host::V6(ip) => Host::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        host => host,
    }
}

#[cfg(test)]
mod tests;
