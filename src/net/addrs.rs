//! Which addresses this peer tells others to dial.
//!
//! Inputs are the addresses the transport listens on and the addresses that other peers say they see us at.
//! Invariants of every list that goes out: no unspecified address, no multicast, no link-local IPv6, no port 0;
//! loopback only to peers on loopback; each address at most 64 bytes (an IP address and a TCP port take at most 20);
//! global addresses before private ones before loopback. Everything is bounded, nothing does I/O.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use libp2p::{Multiaddr, PeerId};

use super::tcp::{multiaddr, socket_addr};

/// Listen addresses remembered. A host with more has the later ones not announced.
const MAX_LISTEN: usize = 64;

/// Observed IP addresses remembered.
const MAX_OBSERVED: usize = 8;

/// Witnesses it takes to believe an observed IP address.
const MIN_WITNESSES: usize = 2;

/// Witnesses remembered for one observed IP address, so that one may change its word.
const MAX_WITNESSES: usize = 4;

/// The addresses this peer knows of itself.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    listen: Vec<SocketAddr>,
    /// The least recently told first.
    observed: Vec<Observed>,
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
    /// The transport listens on `addr`.
    pub(crate) fn listening(&mut self, addr: &Multiaddr) {
        let Some(addr) = socket_addr(addr).filter(may_be_dialled) else {
            return;
        };
        if !self.listen.contains(&addr) && self.listen.len() < MAX_LISTEN {
            self.listen.push(addr);
        }
    }

    /// The transport no longer listens on `addr`. The host has moved to another network then, so what
    /// others observed in that address family is forgotten.
    pub(crate) fn expired(&mut self, addr: &Multiaddr) {
        let Some(addr) = socket_addr(addr) else {
            return;
        };
        self.listen.retain(|known| *known != addr);
        self.observed
            .retain(|seen| seen.ip.is_ipv4() != addr.is_ipv4());
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
        let mut addrs = self.known();
        addrs.retain(|addr| to_loopback || !addr.ip().is_loopback());
        addrs.sort_by_key(|addr| rank(addr.ip()));
        addrs.into_iter().take(max).map(multiaddr).collect()
    }

    /// At most `max` addresses for a signed record, which travels on: loopback ones only if there are no others.
    pub(crate) fn record(&self, max: usize) -> Vec<Multiaddr> {
        let addrs = self.announce(false, max);
        if addrs.is_empty() {
            return self.announce(true, max);
        }
        addrs
    }

    /// Listen addresses, then the confirmed observed ones, each once.
    fn known(&self) -> Vec<SocketAddr> {
        let mut addrs = self.listen.clone();
        for seen in self.observed.iter().filter(|seen| seen.confirmed()) {
            let port = self
                .listen
                .iter()
                .find(|addr| addr.is_ipv4() == seen.ip.is_ipv4() && !addr.ip().is_loopback())
                .map(SocketAddr::port);
            let known = self.listen.iter().any(|addr| addr.ip() == seen.ip);
            if let Some(port) = port.filter(|_| !known) {
                addrs.push(SocketAddr::new(seen.ip, port));
            }
        }
        addrs
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

/// 0 for a global address, 1 for one of a local network, 2 for loopback.
fn rank(ip: IpAddr) -> u8 {
    let local = match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || is_carrier_nat(ip),
        IpAddr::V6(ip) => ip.is_unique_local(),
    };
    match (ip.is_loopback(), local) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
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
        let mut known = Addresses::default();
        for addr in addrs {
            known.listening(&addr.parse().unwrap());
        }
        known
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
            let mut known = Addresses::default();
            for (ip, port) in ips {
                let addr = multiaddr(SocketAddr::new(ip, port));
                known.listening(&addr);
                known.observed(&addr, PeerId::random(), true);
            }
            for addr in known.announce(false, 16) {
                let socket = socket_addr(&addr).unwrap();
                prop_assert!(may_be_dialled(&socket) && !socket.ip().is_loopback());
                prop_assert!(addr.len() <= 64);
            }
        }
    }
}
