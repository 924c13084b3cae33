//! The last places of a table of leases are not for one source alone.
//!
//! Peer ids cost nothing, so one host could take all places with as many ids. But a whole site may
//! be behind one address, so a source has no fixed number. It may take seven eighths of all places
//! by itself. Of the last eighth, a newcomer gets none if its host (IPv6: its /64) holds an eighth
//! of all places, or its routed network (IPv4 /24, IPv6 /48) a quarter: so others, and those that
//! held a lease within a day, get in while one source comes with ever new ids. No lease ends by
//! this.
//!
//! Invariant: peers on this host, and peers whose source is not known, are not counted.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::{LeaseTable, Sender};
use crate::protocol::address::Host;

/// One in so many places are the last ones, and as many may a host hold of all.
const LAST: usize = 8;
/// One in so many places may a network hold of all.
const NETWORK: usize = 4;

/// What is known of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// It is a native that is configured here.
    Configured,
    /// It held a lease here within a day.
    Remembered,
    /// Nothing.
    None,
}

impl<const S: usize> LeaseTable<S> {
    /// Whether the places that are left are kept from this newcomer.
    pub(super) fn keeps_from(&self, sender: &Sender<'_>, memory: Memory) -> bool {
        let source = self.rivals.source(sender.peer, sender.stream);
        let Some(host) = source.map(|source| source.host) else {
            return false;
        };
        let is_last = S - self.records.len() <= S / LAST;
        if !is_last || memory != Memory::None || host.is_of_its_own_host() {
            return false;
        }
        let sources = || self.iter().filter_map(|record| Some(record.source?.host));
        let of_host = sources().filter(|other| is_one_host(*other, host)).count();
        let of_network = match is_routed(host) {
            true => sources()
                .filter(|other| other.prefix() == host.prefix())
                .count(),
            false => 0,
        };
        of_host >= S / LAST || of_network >= S / NETWORK
    }
}

/// Whether the two are one host, which may have a whole IPv6 /64.
fn is_one_host(one: Host, other: Host) -> bool {
    match (one, other) {
        (Host::V6(one), Host::V6(other)) => u128::from(one) >> 64 == u128::from(other) >> 64,
        _ => one == other,
    }
}

/// Whether the host is in a network that is routed globally, and not in that of a site.
fn is_routed(host: Host) -> bool {
    match host {
        Host::V4(ip) => is_routed_v4(ip),
        Host::V6(ip) => is_routed_v6(ip),
        Host::Name(_) => false,
    }
}

fn is_routed_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let is_carriers = a == 100 && b & 0xc0 == 64;
    !(ip.is_private() || ip.is_link_local() || is_carriers)
}

fn is_routed_v6(ip: Ipv6Addr) -> bool {
    ip.octets()[0] & 0xe0 == 0x20
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;
    use crate::protocol::{Instant, PeerId, Role, StreamId, address::TransportAddr};
    use core::time::Duration;

    const S: usize = 64;
    const NOW: Instant = Instant::from_millis(1_000_000);

    struct Peers {
        table: LeaseTable<S>,
        next: u64,
    }

    impl Peers {
        fn new() -> Self {
            let table = LeaseTable::new();
            Self { table, next: 0 }
        }

        /// A newcomer of this host asks; returns whether it holds a lease now.
        fn joins(&mut self, host: &str, memory: Memory) -> bool {
            self.next += 1;
            let mut id = [0; 32];
            id[..8].copy_from_slice(&self.next.to_le_bytes());
            let (peer, stream) = (PeerId::from_bytes(id), StreamId(self.next));
            let ip: IpAddr = host.parse().unwrap();
            let source = TransportAddr {
                host: ip.into(),
                port: 1,
            };
            self.table.stream_opened(NOW, &peer, stream, source);
            let sender = Sender {
                peer: &peer,
                stream,
                role: None,
                reader: Default::default(),
                moved: false,
                slot: None,
            };
            let ack = self.table.no_room_for(NOW, &sender, || memory);
            if ack.is_none() {
                self.table
                    .renew(NOW, &sender, Role::Node, Duration::from_secs(90));
            }
            self.table.rivals.forget(&peer);
            ack.is_none()
        }

        /// How many of so many newcomers join.
        fn join(&mut self, count: usize, host: impl Fn(usize) -> std::string::String) -> usize {
            let joins = |at: &usize| self.joins(&host(*at), Memory::None);
            (0..count).filter(joins).count()
        }
    }

    fn one(host: &str) -> impl Fn(usize) -> std::string::String + '_ {
        move |_| host.into()
    }

    #[test]
    fn one_host_takes_seven_eighths_and_others_the_rest() {
        let mut peers = Peers::new();
        assert_eq!(peers.join(100, one("203.0.113.1")), 56);
        assert!(peers.joins("203.0.113.1", Memory::Remembered));
        assert!(!peers.joins("203.0.113.1", Memory::None));
        // Seven are left. The network has more than a quarter already.
        assert!(!peers.joins("203.0.113.2", Memory::None));
        assert_eq!(peers.join(100, one("198.51.100.1")), 7);
        assert!(peers.table.is_full());
    }

    #[test]
    fn of_the_last_places_a_host_gets_none_beyond_an_eighth_of_all() {
        let mut peers = Peers::new();
        assert_eq!(peers.join(49, |at| std::format!("10.1.1.{at}")), 49);
        assert_eq!(peers.join(7, one("10.2.2.2")), 7);
        // Eight places are left: from now on they are the last ones.
        assert!(peers.joins("10.2.2.2", Memory::None));
        assert!(!peers.joins("10.2.2.2", Memory::None));
        assert_eq!(peers.join(7, |at| std::format!("10.1.1.{at}")), 7);
        assert!(peers.table.is_full());
    }

    #[test]
    fn a_routed_network_is_one_source_and_that_of_a_site_is_not() {
        for (network, joined) in [
            ("203.0.113.", 56),
            ("192.168.1.", 64),
            ("10.9.9.", 64),
            ("100.64.1.", 64),
        ] {
            let mut peers = Peers::new();
            let all = peers.join(100, |at| std::format!("{network}{}", at + 1));
            assert_eq!(all, joined, "{network}");
        }
        let of_v6 = |host: fn(usize) -> std::string::String| Peers::new().join(100, host);
        assert_eq!(of_v6(|at| std::format!("2001:db8:1:{at}::1")), 56);
        assert_eq!(of_v6(|at| std::format!("fd77::1:0:0:{at}")), 56, "one /64");
        assert_eq!(of_v6(|at| std::format!("fd77:0:0:{at}::1")), 64);
    }

    #[test]
    fn peers_on_this_host_are_not_counted() {
        assert_eq!(Peers::new().join(100, one("127.0.0.1")), 64);
        assert_eq!(Peers::new().join(100, one("::1")), 64);
    }
}
