//! The addresses that this peer announces, and their order, which goes by evidence (PROTOCOL.md
//! section 6).
//!
//! | class | addresses |
//! |---|---|
//! | announced | those of `--announce`, in that order, names included |
//! | evidence | those that own connections to servers use or servers observe; IPv6: the same /64 |
//! | global | other globally routable ones |
//! | private | others of a local network |
//! | virtual | those of bridges, containers and tunnels |
//! | loopback | for peers on this host |
//!
//! Within a class, addresses that stay come before temporary ones (IPv6 privacy addresses), and
//! global ones before others.
//!
//! The inputs are the addresses that the transport listens on, what the kernel reports about them,
//! the local addresses of connections to servers, and the addresses at which other peers observe
//! this one. Where the kernel reports nothing, the local addresses of connections from other hosts
//! are used too. Invariants of every list that goes out: no unspecified address, no multicast, no
//! link-local IPv6, no port 0; loopback only to peers on loopback; each address at most 64 bytes
//! (an IP address and a TCP port take at most 20, and the configuration bounds names). Everything
//! is bounded, nothing does I/O.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use libp2p::{Multiaddr, PeerId};

use crate::protocol::order::sort_few;

use super::{
    netlink::{Address, Host},
    scope::is_loopback,
    tcp::{multiaddr, socket_addr},
};

/// Listen addresses remembered. If a host has more, the later ones are not announced.
const MAX_LISTEN: usize = 64;

/// Observed IP addresses remembered.
const MAX_OBSERVED: usize = 8;

/// Witnesses needed before an observed IP address counts.
const MIN_WITNESSES: usize = 2;

/// Witnesses remembered for one observed IP address: more than needed, so that it still counts when
/// one of them reports another address.
const MAX_WITNESSES: usize = 4;

/// Local addresses of connections to servers remembered: one for each server and address family.
const MAX_USED: usize = 16;

/// Local addresses of connections from other hosts remembered.
const MAX_ACCEPTED: usize = 8;

/// The addresses that the operator wants to be announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announce {
    /// Announced before all others, in this order.
    pub(crate) first: Vec<Multiaddr>,
    /// Only the addresses of `first` are announced.
    pub(crate) only: bool,
}

/// The addresses that this peer knows of itself.
#[derive(Debug)]
pub(crate) struct Addresses {
    host: Host,
    announce: Announce,
    /// The IP families (IPv4, IPv6) in which the transport listens on all addresses.
    everywhere: [bool; 2],
    listen: Vec<SocketAddr>,
    /// The least recently reported first.
    observed: Vec<Observed>,
    /// Local addresses of connections to servers, in the order of first use.
    used: Vec<(PeerId, IpAddr)>,
    /// Local addresses of connections from other hosts, the least recent first. Used only if the
    /// kernel reports no addresses.
    accepted: Vec<IpAddr>,
    /// A server on another host has granted a lease. It cannot use loopback addresses.
    served_from_elsewhere: bool,
}

#[derive(Debug)]
struct Observed {
    ip: IpAddr,
    witnesses: Vec<Witness>,
}

#[derive(Debug)]
struct Witness {
    peer: PeerId,
    suffices: bool,
}

impl Observed {
    fn confirmed(&self) -> bool {
        self.witnesses.len() >= MIN_WITNESSES || self.witnesses.iter().any(|w| w.suffices)
    }

    fn withdraw(&mut self, peer: &PeerId) {
        self.witnesses.retain(|witness| witness.peer != *peer);
    }
}

impl Addresses {
    /// The operator announces these from now on.
    #[cfg(feature = "program")]
    pub(super) fn set_announce(&mut self, announce: Announce) {
        self.announce = announce;
    }

    /// Knows only the addresses that the operator announces.
    pub(crate) fn new(host: Host, announce: Announce) -> Self {
        Self {
            host,
            announce,
            everywhere: [false; 2],
            listen: Vec::new(),
            observed: Vec::new(),
            used: Vec::new(),
            accepted: Vec::new(),
            served_from_elsewhere: false,
        }
    }

    /// Takes note that the transport was asked to listen on `addr`.
    pub(crate) fn asked(&mut self, addr: &Multiaddr) {
        if let Some(addr) = socket_addr(addr).filter(|addr| addr.ip().is_unspecified()) {
            let [four, six] = &mut self.everywhere;
            *if addr.is_ipv4() { four } else { six } = true;
        }
    }

    /// The transport listens on `addr`.
    pub(crate) fn listening(&mut self, addr: &Multiaddr) {
        let Some(addr) = socket_addr(addr).filter(may_be_dialled) else {
            return;
        };
        if !self.listen.contains(&addr) && self.listen.len() < MAX_LISTEN {
            self.listen.push(addr);
        }
    }

    /// The transport no longer listens on `addr`. If own connections used `addr`, or no connection
    /// is known to have used another address, the host has moved to another network. What others
    /// observed in that address family is then forgotten.
    pub(crate) fn expired(&mut self, addr: &Multiaddr) {
        let Some(addr) = socket_addr(addr) else {
            return;
        };
        self.listen.retain(|known| *known != addr);
        self.used.retain(|(_, ip)| *ip != addr.ip());
        let stays = |(_, ip): &(PeerId, IpAddr)| ip.is_ipv4() == addr.is_ipv4();
        if !self.used.iter().any(stays) {
            self.observed
                .retain(|seen| seen.ip.is_ipv4() != addr.is_ipv4());
        }
    }

    /// A server granted a lease. `end` is the local address of the connection to it, if the server
    /// is on another host.
    pub(crate) fn used(&mut self, server: PeerId, end: Option<IpAddr>) {
        let Some(end) = end.filter(|ip| may_be_dialled(&SocketAddr::new(*ip, 1))) else {
            return;
        };
        if end.is_loopback() || self.used.contains(&(server, end)) {
            return;
        }
        self.served_from_elsewhere = true;
        let same = |(peer, ip): &(PeerId, IpAddr)| *peer == server && ip.is_ipv4() == end.is_ipv4();
        self.used.retain(|known| !same(known));
        if self.used.len() >= MAX_USED {
            self.used.remove(0);
        }
        self.used.push((server, end));
    }

    /// A peer on another host has connected to us at `end`. Where the kernel reports no addresses,
    /// `end` counts as one.
    pub(crate) fn accepted(&mut self, end: IpAddr) {
        let end = end.to_canonical();
        let may = may_be_dialled(&SocketAddr::new(end, 1)) && !end.is_loopback();
        if self.host.is_known() || !may {
            return;
        }
        self.accepted.retain(|known| *known != end);
        if self.accepted.len() >= MAX_ACCEPTED {
            self.accepted.remove(0);
        }
        self.accepted.push(end);
    }

    /// `witness` reports that it observes us at `addr`. The IP address counts when two different
    /// peers have reported it, or one that `suffices` alone, which is the only configured native.
    /// The port is ignored: it belongs to one outbound connection. One report of each peer counts
    /// for each address family; a new report replaces the old one.
    pub(crate) fn observed(&mut self, addr: &Multiaddr, witness: PeerId, suffices: bool) {
        let Some(ip) = socket_addr(addr).map(|addr| addr.ip().to_canonical()) else {
            return;
        };
        if !may_be_dialled(&SocketAddr::new(ip, 1)) || ip.is_loopback() {
            return;
        }
        self.withdraw(&witness, ip);
        let mut entry = self.take(ip);
        if entry.witnesses.len() < MAX_WITNESSES {
            let peer = witness;
            entry.witnesses.push(Witness { peer, suffices });
        }
        if self.observed.len() >= MAX_OBSERVED {
            self.displace();
        }
        self.observed.push(entry);
    }

    /// At most `max` addresses for peers on other hosts, best first; none is a loopback address.
    pub(crate) fn for_other_hosts(&self, max: usize) -> Vec<Multiaddr> {
        let mut addrs = self.for_this_host(usize::MAX);
        addrs.retain(|addr| !is_loopback(addr));
        addrs.truncate(max);
        addrs
    }

    /// At most `max` addresses for peers on this host, best first; loopback addresses too.
    pub(crate) fn for_this_host(&self, max: usize) -> Vec<Multiaddr> {
        let mut addrs = self.announce.first.clone();
        if !self.announce.only {
            for addr in self.known().into_iter().map(multiaddr) {
                if !addrs.contains(&addr) {
                    addrs.push(addr);
                }
            }
        }
        addrs.truncate(max);
        addrs
    }

    /// The best address, loopback included. `None` if there is none: the transport does not listen,
    /// or it listens on all addresses, the kernel does not report them, and no connection has shown
    /// one.
    pub(crate) fn best(&self) -> Option<Multiaddr> {
        let best = self.for_this_host(1).pop()?;
        let is_everywhere = self.everywhere.contains(&true);
        let is_told = self.host.is_known() || !is_everywhere || !is_loopback(&best);
        is_told.then_some(best)
    }

    /// At most `max` addresses for a signed record. Records are passed on to other hosts, where a
    /// loopback address would lead to the reader itself. So loopback addresses are included only if
    /// there are no others and no server is on another host.
    pub(crate) fn record(&self, max: usize) -> Vec<Multiaddr> {
        let addrs = self.for_other_hosts(max);
        if addrs.is_empty() && !self.served_from_elsewhere {
            return self.for_this_host(max);
        }
        addrs
    }

    /// Addresses that the transport listens on, best first.
    pub(crate) fn listened(&self) -> Vec<Multiaddr> {
        let mut addrs = self.listen.clone();
        self.sort(&mut addrs);
        addrs.into_iter().map(multiaddr).collect()
    }

    /// Listen addresses and the confirmed observed ones, each once, best first.
    fn known(&self) -> Vec<SocketAddr> {
        let mut addrs = self.listen.clone();
        let seen = self.observed.iter().filter(|seen| seen.confirmed());
        // An own address without a listener is useless. An address that the kernel does not
        // report may be that of a NAT.
        let seen = seen.map(|seen| seen.ip).filter(|ip| !self.host.has(*ip));
        let used = self.used.iter().map(|(_, ip)| *ip);
        let used = used.filter(|ip| !self.host.is_known() && self.is_everywhere(*ip));
        for ip in used.chain(self.accepted.iter().copied()).chain(seen) {
            let known = addrs.iter().any(|addr| addr.ip() == ip);
            if let Some(port) = self.port(ip).filter(|_| !known) {
                addrs.push(SocketAddr::new(ip, port));
            }
        }
        self.sort(&mut addrs);
        addrs
    }

    fn sort(&self, addrs: &mut [SocketAddr]) {
        let host = self.host.addresses();
        sort_few(addrs, |addr| self.rank(addr.ip(), &host));
    }

    /// The port that others may dial at an address that is not among the listen addresses.
    fn port(&self, ip: IpAddr) -> Option<u16> {
        let mut listen = self.listen.iter();
        let everywhere = self.is_everywhere(ip);
        let addr = listen.find(|addr| {
            addr.is_ipv4() == ip.is_ipv4() && (everywhere || !addr.ip().is_loopback())
        });
        addr.map(SocketAddr::port)
    }

    fn is_everywhere(&self, ip: IpAddr) -> bool {
        let [four, six] = self.everywhere;
        if ip.is_ipv4() { four } else { six }
    }

    /// The key that orders addresses: the least is the best.
    fn rank(&self, ip: IpAddr, host: &[Address]) -> AddrRank {
        let interface = host.iter().find(|address| address.ip == ip);
        let reach = reach(ip);
        let class = if reach == AddrScope::Loopback {
            Class::Loopback
        } else if self.has_evidence(ip) {
            Class::Evidence
        } else if interface.is_some_and(|interface| interface.is_virtual) {
            Class::Virtual
        } else if reach == AddrScope::Global {
            Class::Global
        } else {
            Class::Private
        };
        AddrRank {
            class,
            passing: interface.is_some_and(|interface| interface.passing),
            reach,
        }
    }

    /// Whether an own connection to a server uses the address or one of the same IPv6 network, or
    /// other peers observe it.
    fn has_evidence(&self, ip: IpAddr) -> bool {
        self.used.iter().any(|(_, used)| same_network(*used, ip))
            || self
                .observed
                .iter()
                .any(|seen| seen.ip == ip && seen.confirmed())
    }

    fn take(&mut self, ip: IpAddr) -> Observed {
        match self.observed.iter().position(|seen| seen.ip == ip) {
            Some(at) => self.observed.remove(at),
            None => Observed {
                ip,
                witnesses: Vec::new(),
            },
        }
    }

    /// Removes what `peer` reported before in the address family of `ip`. An entry for `ip` itself
    /// keeps its place.
    fn withdraw(&mut self, peer: &PeerId, ip: IpAddr) {
        for seen in &mut self.observed {
            if seen.ip.is_ipv4() == ip.is_ipv4() {
                seen.withdraw(peer);
            }
        }
        self.observed
            .retain(|seen| seen.ip == ip || !seen.witnesses.is_empty());
    }

    /// Evicts one entry: the least recently reported, unconfirmed ones first.
    fn displace(&mut self) {
        let at = self.observed.iter().position(|seen| !seen.confirmed());
        self.observed.remove(at.unwrap_or(0));
    }
}

fn may_be_dialled(addr: &SocketAddr) -> bool {
    let ip = addr.ip();
    let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !link_local
}

/// The classes of [the order](self), best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Evidence,
    Global,
    Private,
    Virtual,
    Loopback,
}

/// The key of [the order](self): the least is the best, and an earlier field counts more.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct AddrRank {
    class: Class,
    passing: bool,
    reach: AddrScope,
}

/// From where an address can be reached, the widest scope first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AddrScope {
    Global,
    Local,
    Loopback,
}

fn reach(ip: IpAddr) -> AddrScope {
    let local = match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || is_carrier_nat(ip),
        IpAddr::V6(ip) => ip.is_unique_local(),
    };
    match (ip.is_loopback(), local) {
        (true, _) => AddrScope::Loopback,
        (false, true) => AddrScope::Local,
        (false, false) => AddrScope::Global,
    }
}

/// Whether the two addresses are equal, or in one IPv6 /64: an interface has several addresses in
/// it, and connections use a temporary one.
fn same_network(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() >> 64 == other.to_bits() >> 64,
        _ => one == other,
    }
}

/// 100.64.0.0/10, RFC 6598.
fn is_carrier_nat(ip: Ipv4Addr) -> bool {
    u32::from(ip) >> 22 == u32::from(Ipv4Addr::new(100, 64, 0, 0)) >> 22
}

#[cfg(test)]
mod tests;
