//! Which addresses this peer tells others to dial, and in which order: by evidence (PROTOCOL.md section 6).
//!
//! | class | addresses |
//! |---|---|
//! | announced | what the operator says with `--announce`, in that order, names too |
//! | evidence | what own connections to servers use, and what servers observe; IPv6 ones of the same /64, too |
//! | global | others that are routable everywhere |
//! | private | others of a local network |
//! | virtual | those of bridges, containers and tunnels |
//! | loopback | for peers on this host |
//!
//! Within a class those come first that stay (IPv6 gives addresses up for privacy), then global ones.
//!
//! Inputs are the addresses the transport listens on, what the kernel says of them, the own ends of connections to servers and the
//! addresses at which other peers say they see us. Invariants of every list that goes out: no unspecified address, no multicast, no
//! link-local IPv6, no port 0; loopback only to peers on loopback; each address at most 64 bytes (an IP address and a TCP port take
//! at most 20, and the configuration bounds names). Everything is bounded, nothing does I/O.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use libp2p::{Multiaddr, PeerId};

use super::{
    netlink::{Address, Host},
    scope::is_loopback,
    tcp::{multiaddr, socket_addr},
};

/// Listen addresses remembered. A host with more has the later ones not announced.
const MAX_LISTEN: usize = 64;

/// Observed IP addresses remembered.
const MAX_OBSERVED: usize = 8;

/// Witnesses it takes to believe an observed IP address.
const MIN_WITNESSES: usize = 2;

/// Witnesses remembered for one observed IP address, so that one may change its word.
const MAX_WITNESSES: usize = 4;

/// Own ends of connections to servers remembered: one of each server and family.
const MAX_USED: usize = 16;

/// What the operator wants to be announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announce {
    /// Before all others, in this order.
    pub(crate) first: Vec<Multiaddr>,
    /// And no others.
    pub(crate) only: bool,
}

/// The addresses this peer knows of itself.
#[derive(Debug)]
pub(crate) struct Addresses {
    host: Host,
    announce: Announce,
    /// IP families (IPv4, IPv6) in which it listens on all addresses.
    everywhere: [bool; 2],
    listen: Vec<SocketAddr>,
    /// The least recently told first.
    observed: Vec<Observed>,
    /// Own ends of connections with servers, the first that was used first.
    used: Vec<(PeerId, IpAddr)>,
    /// A server on another host has granted a lease: loopback is of no use to it.
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
    /// None yet but what the operator announces.
    pub(crate) fn new(host: Host, announce: Announce) -> Self {
        Self {
            host,
            announce,
            everywhere: [false; 2],
            listen: Vec::new(),
            observed: Vec::new(),
            used: Vec::new(),
            served_from_elsewhere: false,
        }
    }

    /// The transport was asked to listen on `addr`.
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

    /// The transport no longer listens on `addr`. If own connections used it, or none is known to have used another, the host
    /// has moved to another network then: what others observed in that address family is forgotten.
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

    /// A server granted a lease. `end` is our own end of the connection with it, if it is on another host.
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

    /// `witness` says it sees us at `addr`. The IP address counts when two different peers told it, or one that
    /// `suffices` alone: the only configured native. The port is not ours, but that of one outbound connection.
    /// A peer has one word for each address family; a new one takes the old one back.
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

    /// At most `max` addresses for one peer, best first. Loopback addresses only if that peer is on loopback.
    pub(crate) fn announce(&self, to_loopback: bool, max: usize) -> Vec<Multiaddr> {
        let mut addrs = self.announce.first.clone();
        if !self.announce.only {
            for addr in self.known().into_iter().map(multiaddr) {
                if !addrs.contains(&addr) {
                    addrs.push(addr);
                }
            }
        }
        addrs.retain(|addr| to_loopback || !is_loopback(addr));
        addrs.truncate(max);
        addrs
    }

    /// At most `max` addresses for a signed record, which travels on: loopback ones only if there are no others, and no server is
    /// on another host, where they would lead to itself.
    pub(crate) fn record(&self, max: usize) -> Vec<Multiaddr> {
        let addrs = self.announce(false, max);
        if addrs.is_empty() && !self.served_from_elsewhere {
            return self.announce(true, max);
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
        // An own address that we do not listen on is of no use; one that the kernel does not tell of may be any.
        let seen = seen.map(|seen| seen.ip).filter(|ip| !self.host.has(*ip));
        let used = self.used.iter().map(|(_, ip)| *ip);
        let used = used.filter(|ip| !self.host.is_known() && self.is_everywhere(*ip));
        for ip in used.chain(seen) {
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
        addrs.sort_by_key(|addr| self.rank(addr.ip(), &host));
    }

    /// The port that others may dial at an address that we listen on unknowingly.
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

    /// What orders addresses: the least is the best.
    fn rank(&self, ip: IpAddr, host: &[Address]) -> (Class, bool, Reach) {
        let interface = host.iter().find(|address| address.ip == ip);
        let reach = reach(ip);
        let class = if reach == Reach::Loopback {
            Class::Loopback
        } else if self.has_evidence(ip) {
            Class::Evidence
        } else if interface.is_some_and(|interface| interface.is_virtual) {
            Class::Virtual
        } else if reach == Reach::Global {
            Class::Global
        } else {
            Class::Private
        };
        let passing = interface.is_some_and(|interface| interface.passing);
        (class, passing, reach)
    }

    /// Whether an own connection to a server uses the address, or one of the same IPv6 network, or servers observe it.
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

    /// Takes back what `peer` said before about the family of `ip`. An entry for `ip` itself keeps its place.
    fn withdraw(&mut self, peer: &PeerId, ip: IpAddr) {
        for seen in &mut self.observed {
            if seen.ip.is_ipv4() == ip.is_ipv4() {
                seen.withdraw(peer);
            }
        }
        self.observed
            .retain(|seen| seen.ip == ip || !seen.witnesses.is_empty());
    }

    /// Lets one entry go: the least recently told, an unconfirmed one first.
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

/// From where an address can be reached, the widest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Global,
    Local,
    Loopback,
}

fn reach(ip: IpAddr) -> Reach {
    let local = match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || is_carrier_nat(ip),
        IpAddr::V6(ip) => ip.is_unique_local(),
    };
    match (ip.is_loopback(), local) {
        (true, _) => Reach::Loopback,
        (false, true) => Reach::Local,
        (false, false) => Reach::Global,
    }
}

/// The same address, or two of one interface: IPv6 gives it several in one /64, and uses one that it will give up.
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listening(addrs: &[&str]) -> Addresses {
        on(Host::fixed(&[]), addrs)
    }

    fn on(host: Host, addrs: &[&str]) -> Addresses {
        let mut known = Addresses::new(host, Announce::default());
        for addr in addrs {
            known.listening(&addr.parse().unwrap());
        }
        known
    }

    /// A host with two networks, ten bridges that came first, and a tunnel; it listens everywhere.
    fn gateway() -> Addresses {
        let bridges: Vec<_> = (17..27)
            .map(|n| (format!("172.{n}.0.1"), "bridge"))
            .collect();
        let mut links: Vec<_> = bridges
            .iter()
            .map(|(ip, kind)| (ip.as_str(), *kind))
            .collect();
        links.extend([
            ("127.0.0.1", ""),
            ("10.8.0.1", "wireguard"),
            ("192.168.5.1", ""),
            ("192.168.77.1", ""),
            ("203.0.113.7", ""),
            ("2001:db8:7::1", ""),
            ("2001:db8:9::1", "wireguard"),
        ]);
        let addrs: Vec<_> = links
            .iter()
            .map(|(ip, _)| multiaddr(SocketAddr::new(ip.parse().unwrap(), 4821)).to_string())
            .collect();
        let addrs: Vec<_> = addrs.iter().map(String::as_str).collect();
        on(Host::with_links(&links), &addrs)
    }

    fn ips(addrs: Vec<Multiaddr>) -> Vec<String> {
        let ips = addrs.iter().map(|addr| socket_addr(addr).unwrap().ip());
        ips.map(|ip| ip.to_string()).collect()
    }

    fn observe(known: &mut Addresses, ip: &str, witness: PeerId) {
        known.observed(
            &format!("/ip4/{ip}/tcp/50000").parse().unwrap(),
            witness,
            false,
        );
    }

    fn texts(addrs: Vec<Multiaddr>) -> Vec<String> {
        addrs.iter().map(Multiaddr::to_string).collect()
    }

    #[test]
    fn global_before_private_before_loopback_and_cut_at_max() {
        let known = listening(&[
            "/ip4/127.0.0.1/tcp/4820",
            "/ip4/192.168.1.2/tcp/4820",
            "/ip6/fd00::2/tcp/4820",
            "/ip4/100.64.0.1/tcp/4820",
            "/ip4/203.0.113.7/tcp/4820",
            "/ip6/2001:db8::7/tcp/4820",
        ]);
        let all = [
            "/ip4/203.0.113.7/tcp/4820",
            "/ip6/2001:db8::7/tcp/4820",
            "/ip4/192.168.1.2/tcp/4820",
            "/ip6/fd00::2/tcp/4820",
            "/ip4/100.64.0.1/tcp/4820",
            "/ip4/127.0.0.1/tcp/4820",
        ];
        assert_eq!(texts(known.announce(true, 9)), all);
        assert_eq!(texts(known.announce(false, 9)), all[..5]);
        assert_eq!(texts(known.announce(false, 2)), all[..2]);
    }

    #[test]
    fn addresses_are_ordered_by_evidence() {
        let other = PeerId::random();
        let used = |known: &mut Addresses, ip: &str| known.used(other, Some(ip.parse().unwrap()));
        // Without evidence: global, private, those of virtual interfaces, loopback.
        let by_kind = [
            "203.0.113.7",
            "2001:db8:7::1",
            "192.168.5.1",
            "192.168.77.1",
            "2001:db8:9::1",
            "172.17.0.1",
        ];
        let table: [(&[&str], &[&str], &[&str]); 5] = [
            (&[], &[], &by_kind),
            (&["192.168.77.1"], &[], &["192.168.77.1", "203.0.113.7"]),
            // A bridge that own connections use is no longer one among many.
            (&["172.19.0.1"], &[], &["172.19.0.1", "203.0.113.7"]),
            (&[], &["198.51.100.4"], &["198.51.100.4", "203.0.113.7"]),
            (
                &["192.168.77.1"],
                &["198.51.100.4"],
                &["198.51.100.4", "192.168.77.1", "203.0.113.7"],
            ),
        ];
        for (ends, seen, expected) in table {
            let mut known = gateway();
            ends.iter().for_each(|ip| used(&mut known, ip));
            for ip in seen {
                observe(&mut known, ip, PeerId::random());
                observe(&mut known, ip, PeerId::random());
            }
            let all = ips(known.announce(true, 99));
            assert_eq!(all[..expected.len()], *expected, "{ends:?} {seen:?}");
            assert_eq!(all.last().unwrap(), "127.0.0.1");
        }
    }

    #[test]
    fn what_the_operator_announces_is_first_and_alone_if_so_said() {
        let first: Vec<Multiaddr> = ["/dns/gate.example/tcp/4821", "/ip4/203.0.113.7/tcp/4821"]
            .map(|addr| addr.parse().unwrap())
            .into();
        let mut known = gateway();
        known.announce.first = first.clone();
        let all = known.record(8);
        assert_eq!(all[..2], first);
        assert_eq!(all.iter().filter(|addr| **addr == first[1]).count(), 1);
        assert_eq!(all.len(), 8);
        known.announce.only = true;
        assert_eq!(known.record(8), first);
    }

    #[test]
    fn an_address_that_ipv6_gives_up_speaks_for_the_one_that_stays() {
        let host = Host::with_links(&[("2001:db8:1::2", ""), ("2001:db8:7::1", "passing")]);
        let mut known = on(
            host,
            &[
                "/ip6/2001:db8:1::2/tcp/1",
                "/ip6/2001:db8:7::1/tcp/1",
                "/ip6/2001:db8:7::2/tcp/1",
            ],
        );
        known.used(PeerId::random(), Some("2001:db8:7::1".parse().unwrap()));
        let order = ["2001:db8:7::2", "2001:db8:7::1", "2001:db8:1::2"];
        assert_eq!(ips(known.announce(false, 9)), order);
    }

    #[test]
    fn a_server_has_one_word_and_it_goes_with_the_address() {
        let mut known = gateway();
        let server = PeerId::random();
        for ip in ["192.168.77.1", "192.168.5.1"] {
            known.used(server, Some(ip.parse().unwrap()));
        }
        let first = |known: &Addresses| ips(known.announce(false, 2));
        assert_eq!(first(&known), ["192.168.5.1", "203.0.113.7"]);
        known.expired(&"/ip4/192.168.5.1/tcp/4821".parse().unwrap());
        assert_eq!(first(&known), ["203.0.113.7", "2001:db8:7::1"]);
    }

    #[test]
    fn a_bridge_that_goes_takes_no_observation_along_if_connections_use_another() {
        let mut known = gateway();
        known.used(PeerId::random(), Some([192, 168, 77, 1].into()));
        for _ in 0..2 {
            observe(&mut known, "198.51.100.4", PeerId::random());
        }
        known.expired(&"/ip4/172.17.0.1/tcp/4821".parse().unwrap());
        assert_eq!(ips(known.announce(false, 1)), ["198.51.100.4"]);
    }

    #[test]
    fn of_an_unknown_host_only_what_connections_use_and_peers_observe_is_announced() {
        let mut known = on(Host::unknown(), &["/ip4/127.0.0.1/tcp/4821"]);
        known.used(PeerId::random(), Some([192, 168, 77, 1].into()));
        assert!(
            known.announce(false, 9).is_empty(),
            "it listens on loopback"
        );
        known.asked(&"/ip4/0.0.0.0/tcp/4821".parse().unwrap());
        for _ in 0..2 {
            observe(&mut known, "203.0.113.7", PeerId::random());
        }
        let both = ["/ip4/203.0.113.7/tcp/4821", "/ip4/192.168.77.1/tcp/4821"];
        assert_eq!(texts(known.announce(false, 9)), both);
    }

    #[test]
    fn loopback_alone_is_not_for_a_server_on_another_host() {
        let mut known = listening(&["/ip6/::1/tcp/4820"]);
        known.used(PeerId::random(), None);
        assert_eq!(known.record(4).len(), 1);
        known.used(PeerId::random(), Some("2001:db8::7".parse().unwrap()));
        assert!(known.record(4).is_empty());
    }

    #[test]
    fn an_own_address_that_is_not_listened_on_is_not_announced_because_peers_see_it() {
        let host = Host::fixed(&["10.0.0.2", "203.0.113.7"]);
        let mut known = on(host, &["/ip4/10.0.0.2/tcp/4820"]);
        for _ in 0..2 {
            observe(&mut known, "203.0.113.7", PeerId::random());
        }
        assert_eq!(ips(known.announce(false, 9)), ["10.0.0.2"]);
    }

    #[test]
    fn useless_addresses_are_never_announced() {
        let known = listening(&[
            "/ip4/0.0.0.0/tcp/4820",
            "/ip6/::/tcp/4820",
            "/ip4/192.168.1.2/tcp/0",
            "/ip6/fe80::1/tcp/4820",
            "/ip4/224.0.0.1/tcp/4820",
            "/ip4/192.168.1.2/udp/4820/quic-v1",
            "/dns4/example.org/tcp/4820",
        ]);
        assert_eq!(texts(known.announce(true, 99)), Vec::<String>::new());
        assert_eq!(texts(known.record(99)), Vec::<String>::new());
    }

    #[test]
    fn loopback_alone_is_for_loopback_and_for_the_record() {
        let known = listening(&["/ip4/127.0.0.1/tcp/4820"]);
        assert!(known.announce(false, 4).is_empty());
        assert_eq!(known.announce(true, 4).len(), 1);
        assert_eq!(known.record(4).len(), 1);

        let known = listening(&["/ip4/127.0.0.1/tcp/4820", "/ip4/10.0.0.2/tcp/4820"]);
        assert_eq!(texts(known.record(4)), ["/ip4/10.0.0.2/tcp/4820"]);
    }

    #[test]
    fn observed_address_takes_two_witnesses_and_the_listening_port() {
        let mut known = listening(&["/ip4/10.0.0.2/tcp/4820"]);
        let (a, b) = (PeerId::random(), PeerId::random());
        observe(&mut known, "203.0.113.7", a);
        observe(&mut known, "203.0.113.7", a);
        assert_eq!(known.announce(false, 9).len(), 1);
        observe(&mut known, "203.0.113.7", b);
        assert_eq!(
            texts(known.announce(false, 9)),
            ["/ip4/203.0.113.7/tcp/4820", "/ip4/10.0.0.2/tcp/4820"]
        );
    }

    #[test]
    fn one_witness_suffices_if_told_so_until_it_says_otherwise() {
        let mut known = listening(&["/ip4/10.0.0.2/tcp/4820"]);
        let (native, other) = (PeerId::random(), PeerId::random());
        for ip in ["203.0.113.7", "203.0.113.8"] {
            let addr = format!("/ip4/{ip}/tcp/50000").parse().unwrap();
            known.observed(&addr, native, true);
            assert_eq!(
                texts(known.announce(false, 1)),
                [format!("/ip4/{ip}/tcp/4820")]
            );
        }
        observe(&mut known, "203.0.113.8", other);
        observe(&mut known, "203.0.113.9", other);
        assert_eq!(texts(known.announce(false, 9)).len(), 2);
    }

    #[test]
    fn witness_that_changes_its_word_takes_the_old_one_back() {
        let mut known = listening(&["/ip4/10.0.0.2/tcp/4820"]);
        let (a, b) = (PeerId::random(), PeerId::random());
        observe(&mut known, "203.0.113.7", a);
        observe(&mut known, "203.0.113.7", b);
        observe(&mut known, "203.0.113.8", b);
        assert_eq!(texts(known.announce(false, 9)), ["/ip4/10.0.0.2/tcp/4820"]);
    }

    #[test]
    fn observed_address_without_a_listening_port_of_its_family_is_useless() {
        let mut known = listening(&["/ip6/2001:db8::7/tcp/4820", "/ip4/127.0.0.1/tcp/4820"]);
        for _ in 0..2 {
            observe(&mut known, "203.0.113.7", PeerId::random());
        }
        assert_eq!(
            texts(known.announce(false, 9)),
            ["/ip6/2001:db8::7/tcp/4820"]
        );
    }

    #[test]
    fn expired_address_goes_and_takes_the_observations_of_its_family_along() {
        let mut known = listening(&["/ip4/10.0.0.2/tcp/4820", "/ip4/10.9.0.2/tcp/4820"]);
        for _ in 0..2 {
            observe(&mut known, "203.0.113.7", PeerId::random());
        }
        assert_eq!(known.announce(false, 9).len(), 3);
        known.expired(&"/ip4/10.9.0.2/tcp/4820".parse().unwrap());
        assert_eq!(texts(known.announce(false, 9)), ["/ip4/10.0.0.2/tcp/4820"]);
    }

    #[test]
    fn observations_are_bounded_and_single_words_displace_no_confirmed_one() {
        let mut known = listening(&["/ip4/10.0.0.2/tcp/4820"]);
        for _ in 0..2 {
            observe(&mut known, "203.0.113.7", PeerId::random());
        }
        for last in 0..100 {
            observe(&mut known, &format!("198.51.100.{last}"), PeerId::random());
            assert!(known.observed.len() <= MAX_OBSERVED);
        }
        assert_eq!(
            texts(known.announce(false, 1)),
            ["/ip4/203.0.113.7/tcp/4820"]
        );
    }

    proptest! {
        #[test]
        fn every_announced_address_can_be_dialled(
            ips in prop::collection::vec((any::<std::net::IpAddr>(), any::<u16>()), 0..80),
        ) {
            let mut known = Addresses::new(Host::unknown(), Announce::default());
            for (ip, port) in ips {
                let addr = multiaddr(SocketAddr::new(ip, port));
                known.listening(&addr);
                known.observed(&addr, PeerId::random(), true);
                known.used(PeerId::random(), Some(ip));
                prop_assert!(known.used.len() <= MAX_USED);
            }
            for addr in known.announce(false, 16) {
                let socket = socket_addr(&addr).unwrap();
                prop_assert!(may_be_dialled(&socket) && !socket.ip().is_loopback());
                prop_assert!(addr.len() <= 64);
            }
        }
    }
}
