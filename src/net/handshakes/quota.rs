//! How many connections a source may make, before a handshake spends time on them.
//!
//! A handshake takes about a millisecond of a gateway's CPU. A source has 512 connections at once,
//! so that a site of many devices behind one address comes back after a power cut, and 50 a second
//! on average. A network (IPv4 /24, IPv6 /48) has four times as many; but not a private one, in
//! which a whole site is. Known peers are there to be let in: a source of theirs has the same
//! number once more, and is not counted in its network. Loopback is not limited.
//!
//! Invariant: at most [`MAX_COUNTED`] sources and networks are counted; the one that connected the
//! longest ago is forgotten first.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Instant,
};

use super::SourceIp;
use crate::protocol::{self, time::Bucket};

/// Sources, and as many networks, that are counted.
const MAX_COUNTED: usize = 256;
/// Connections of a source a second, and at once.
const RATE: u32 = 50;
const BURST: u32 = 512;

/// What is known of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There are known peers at it.
    Known,
    Stranger,
}

/// The connections that were made.
#[derive(Debug)]
pub(super) struct Quotas {
    began: Instant,
    strangers: Counted<RATE, BURST>,
    known: Counted<RATE, BURST>,
    networks: Counted<{ 4 * RATE }, { 4 * BURST }>,
    refused: u64,
}

impl Quotas {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            strangers: Counted(Vec::new()),
            known: Counted(Vec::new()),
            networks: Counted(Vec::new()),
            refused: 0,
        }
    }

    /// Whether a connection that comes from this source at `now` may begin a handshake.
    pub(super) fn admits(&mut self, now: Instant, source: SourceIp, standing: Standing) -> bool {
        let Some(ip) = source.filter(|ip| !ip.is_loopback() && !is_loopbacks(*ip)) else {
            return true;
        };
        let passed = now.saturating_duration_since(self.began).as_millis();
        let now = protocol::Instant::from_millis(u64::try_from(passed).unwrap_or(u64::MAX));
        let admitted = match standing {
            Standing::Known => self.known.take(now, ip) || self.stranger(now, ip),
            Standing::Stranger => self.stranger(now, ip),
        };
        self.refused = self.refused.saturating_add(u64::from(!admitted));
        admitted
    }

    fn stranger(&mut self, now: protocol::Instant, ip: IpAddr) -> bool {
        self.strangers.take(now, ip)
            && network(ip).is_none_or(|network| self.networks.take(now, network))
    }

    /// Connections that were refused since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Gives back memory that is no longer needed.
    pub(super) fn shrink(&mut self) {
        self.strangers.0.shrink_to_fit();
        self.known.0.shrink_to_fit();
        self.networks.0.shrink_to_fit();
    }
}

/// A bucket for each source, the one that connected the longest ago first.
#[derive(Debug)]
struct Counted<const RATE: u32, const BURST: u32>(Vec<(IpAddr, Bucket<RATE, BURST>)>);

impl<const RATE: u32, const BURST: u32> Counted<RATE, BURST> {
    fn take(&mut self, now: protocol::Instant, ip: IpAddr) -> bool {
        let at = self.0.iter().position(|(known, _)| *known == ip);
        let (_, mut bucket) = match at {
            Some(at) => self.0.remove(at),
            None => (ip, Bucket::new()),
        };
        let taken = bucket.take(now);
        if self.0.len() >= MAX_COUNTED {
            self.0.remove(0);
        }
        self.0.push((ip, bucket));
        taken
    }
}

/// Whether this is the /64 of IPv6 loopback.
fn is_loopbacks(source: IpAddr) -> bool {
    source == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

/// The network of a source that is globally routed.
fn network(source: IpAddr) -> Option<IpAddr> {
    match source {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let is_carriers = a == 100 && b & 0xc0 == 64;
            let is_sites = ip.is_private() || ip.is_link_local() || is_carriers;
            (!is_sites).then(|| IpAddr::from([a, b, c, 0]))
        }
        IpAddr::V6(ip) => {
            let is_global = ip
                .segments()
                .first()
                .is_some_and(|first| first & 0xe000 == 0x2000);
            is_global.then(|| IpAddr::V6((u128::from(ip) >> 80 << 80).into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(text: &str) -> SourceIp {
        Some(text.parse().unwrap())
    }

    /// How many of `count` connections of this source are admitted.
    fn admitted(quotas: &mut Quotas, now: Instant, source: &str, count: usize) -> usize {
        let admits = |_: &usize| quotas.admits(now, ip(source), Standing::Stranger);
        (0..count).filter(admits).count()
    }

    #[test]
    fn a_source_has_512_connections_at_once_and_50_a_second() {
        let begin = Instant::now();
        let mut quotas = Quotas::new(begin);
        assert_eq!(admitted(&mut quotas, begin, "192.168.1.1", 600), 512);
        assert_eq!(quotas.refused(), 88);
        for (ms, more) in [(19, 0), (20, 1), (1_020, 50)] {
            let now = begin + Duration::from_millis(ms);
            assert_eq!(admitted(&mut quotas, now, "192.168.1.1", 600), more, "{ms}");
        }
        assert_eq!(admitted(&mut quotas, begin, "192.168.1.2", 600), 512);
    }

    #[test]
    fn a_network_that_is_routed_has_as_many_as_four_sources_and_a_site_any() {
        let begin = Instant::now();
        let all = |begins: &str| -> usize {
            let mut quotas = Quotas::new(begin);
            let sources = (1..=5).map(|last| {
                format!(
                    "{begins}{last}{}",
                    if begins.contains(':') { "::" } else { "" }
                )
            });
            sources
                .map(|source| admitted(&mut quotas, begin, &source, 512))
                .sum()
        };
        assert_eq!(all("203.0.113."), 2048);
        assert_eq!(all("2001:db8:7:"), 2048);
        for site in [
            "192.168.1.",
            "10.1.1.",
            "172.16.0.",
            "100.64.0.",
            "169.254.1.",
            "fd77:1:2:",
        ] {
            assert_eq!(all(site), 5 * 512, "{site}");
        }
    }

    #[test]
    fn loopback_and_what_is_no_ip_address_is_not_limited() {
        let begin = Instant::now();
        let mut quotas = Quotas::new(begin);
        assert_eq!(admitted(&mut quotas, begin, "127.0.0.1", 2000), 2000);
        // `source` leaves the /64 of ::1.
        assert_eq!(admitted(&mut quotas, begin, "::", 2000), 2000);
        assert!((0..2000).all(|_| quotas.admits(begin, None, Standing::Stranger)));
    }

    #[test]
    fn known_peers_get_in_while_strangers_of_their_network_use_it_up() {
        let begin = Instant::now();
        let mut quotas = Quotas::new(begin);
        for last in 1..=5 {
            admitted(&mut quotas, begin, &format!("203.0.113.{last}"), 512);
        }
        let known = |quotas: &mut Quotas| quotas.admits(begin, ip("203.0.113.9"), Standing::Known);
        assert!((0..512).all(|_| known(&mut quotas)));
        assert!(!known(&mut quotas));
    }

    #[test]
    fn the_source_that_came_the_longest_ago_is_forgotten() {
        let begin = Instant::now();
        let mut quotas = Quotas::new(begin);
        assert_eq!(admitted(&mut quotas, begin, "10.0.0.1", 600), 512);
        let others = |quotas: &mut Quotas, count: usize| {
            for at in 0..count {
                let source = format!("10.1.{}.{}", at / 250, at % 250);
                assert_eq!(admitted(quotas, begin, &source, 1), 1);
            }
        };
        others(&mut quotas, MAX_COUNTED - 1);
        assert_eq!(admitted(&mut quotas, begin, "10.0.0.1", 1), 0);
        others(&mut quotas, MAX_COUNTED);
        assert_eq!(admitted(&mut quotas, begin, "10.0.0.1", 600), 512);
    }
}
