//! Addresses at which peers say that they are servers of the DHT, until a dial shows whether they
//! are there.
//!
//! A peer can say anything about itself, and ids cost nothing. What is in the routing table is
//! dialled by each search, and told to whoever asks. So a claim is dialled once, by the rules
//! below, before it gets there.
//!
//! Invariants: at most [`MAX_WAITING`] claims wait, of which those of peers with a reserved slot
//! are dialled first and give way to no other; at most [`MAX_UNDER_WAY`] are dialled at a time. A
//! peer that names the host that it connects from is dialled there. Of all other claims, one at a
//! time is dialled in each network (IPv4 /24, IPv6 /48, or name); after one that was wrong, none
//! for [`REST`], whichever peer makes it. So no host is dialled often because strangers name its
//! address.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

use crate::protocol::{Host, TableStats, TransportAddr, address::Prefix};

/// Claims that wait at most.
const MAX_WAITING: usize = 64;
/// Claims that are dialled at a time.
const MAX_UNDER_WAY: usize = 4;
/// How long no claim in a network is dialled after a wrong one.
const REST: Duration = Duration::from_secs(600);
/// Networks that are remembered for this. If there are more, the first is forgotten.
const MAX_RESTING: usize = 64;

/// An address at which a peer says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::net) struct Claim {
    pub(in crate::net) peer: PeerId,
    /// Without the id.
    pub(in crate::net) addr: Multiaddr,
    pub(in crate::net) standing: Standing,
    /// The host that it connects from is the one that it names.
    pub(in crate::net) names_itself: bool,
}

/// What is known of a peer that makes a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum Standing {
    /// It has a reserved slot: it holds a lease here, or is a configured native.
    Known,
    Stranger,
}

/// The claims.
#[derive(Debug, Default)]
pub(in crate::net) struct Claims {
    waiting: VecDeque<Claim>,
    under_way: Vec<Claim>,
    /// Where claims were wrong, the oldest first, and until when they are not dialled.
    resting: VecDeque<(Prefix, Instant)>,
    refused: u64,
    evicted: u64,
}

impl Claim {
    fn network(&self) -> Prefix {
        TransportAddr::of(self.addr.as_ref()).prefix()
    }

    fn is(&self, other: &Self) -> bool {
        self.peer == other.peer && self.addr == other.addr
    }
}

impl Claims {
    /// A peer makes a claim at `now`.
    pub(in crate::net) fn add(&mut self, now: Instant, claim: Claim) {
        let mut known = self.waiting.iter().chain(&self.under_way);
        if known.any(|known| known.is(&claim)) {
            return;
        }
        if self.rests(now, &claim) || !self.make_room(&claim) {
            self.refused = self.refused.saturating_add(1);
            return;
        }
        match claim.standing {
            Standing::Known => {
                let strangers = |other: &Claim| other.standing == Standing::Stranger;
                let first = self.waiting.iter().position(strangers);
                let at = first.unwrap_or(self.waiting.len());
                self.waiting.insert(at, claim);
            }
            Standing::Stranger => self.waiting.push_back(claim),
        }
    }

    /// The claim that is to be dialled at `now`. It counts as under way until it has
    /// [ended](Self::ended).
    pub(in crate::net) fn next(&mut self, now: Instant) -> Option<Claim> {
        if self.under_way.len() >= MAX_UNDER_WAY {
            return None;
        }
        while let Some(at) = self.waiting.iter().position(|claim| self.is_free(claim)) {
            let claim = self.waiting.remove(at)?;
            if self.rests(now, &claim) {
                self.refused = self.refused.saturating_add(1);
                continue;
            }
            self.under_way.push(claim.clone());
            return Some(claim);
        }
        None
    }

    /// Whether nothing waits and nothing is under way.
    pub(in crate::net) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// The dial of a claim has ended at `now`: the peer is there, or not.
    pub(in crate::net) fn ended(&mut self, now: Instant, claim: &Claim, is_there: bool) {
        self.under_way.retain(|dialled| !dialled.is(claim));
        if is_there || claim.names_itself {
            return;
        }
        let network = claim.network();
        self.resting.retain(|(resting, _)| *resting != network);
        if self.resting.len() >= MAX_RESTING {
            self.resting.pop_front();
        }
        self.resting.push_back((network, now + REST));
    }

    /// The statistics for `status`.
    pub(in crate::net) fn stats(&self) -> TableStats {
        TableStats {
            name: "dht_claims",
            used: self.waiting.len(),
            capacity: MAX_WAITING,
            refused: self.refused,
            evicted: self.evicted,
        }
    }

    fn rests(&self, now: Instant, claim: &Claim) -> bool {
        let network = claim.network();
        let mut resting = self.resting.iter();
        !claim.names_itself && resting.any(|(resting, until)| *resting == network && now < *until)
    }

    /// Whether no other claim in its network is dialled now that could be wrong as this one.
    fn is_free(&self, claim: &Claim) -> bool {
        let network = claim.network();
        let mut dialled = self.under_way.iter().filter(|other| !other.names_itself);
        claim.names_itself || !dialled.any(|other| other.network() == network)
    }

    fn make_room(&mut self, claim: &Claim) -> bool {
        if self.waiting.len() < MAX_WAITING {
            return true;
        }
        // Strangers are behind all others.
        let last = self.waiting.back().map(|last| last.standing);
        let gives_way = claim.standing == Standing::Known && last == Some(Standing::Stranger);
        if gives_way {
            self.waiting.pop_back();
            self.evicted = self.evicted.saturating_add(1);
        }
        gives_way
    }
}

/// Whether a claim of a peer that connects from `source` names its own host.
pub(in crate::net) fn names_itself(addr: &Multiaddr, source: Option<Host>) -> bool {
    source == Some(TransportAddr::of(addr.as_ref()).host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(peer: u8, addr: &str) -> Claim {
        Claim {
            peer: crate::protocol::PeerId::from_bytes([peer; 32]).into(),
            addr: addr.parse().unwrap(),
            standing: Standing::Stranger,
            names_itself: false,
        }
    }

    fn itself(peer: u8, addr: &str) -> Claim {
        Claim {
            names_itself: true,
            ..claim(peer, addr)
        }
    }

    #[test]
    fn three_hundred_ids_that_name_another_host_have_it_dialled_once_in_ten_minutes() {
        let (mut claims, begin) = (Claims::default(), Instant::now());
        let mut dials = Vec::new();
        for second in 0..1200u64 {
            let now = begin + Duration::from_secs(second);
            for peer in 0..=255 {
                // Each other port and each other host of the network.
                let addr = format!("/ip4/192.0.2.{peer}/tcp/{}", 1000 + second);
                claims.add(now, claim(peer, &addr));
            }
            while let Some(claim) = claims.next(now) {
                dials.push(second);
                claims.ended(now, &claim, false);
            }
        }
        assert_eq!(dials, [0, 600]);
        assert!(claims.stats().refused > 0);
    }

    #[test]
    fn one_claim_at_a_time_is_dialled_in_a_network_and_four_in_all() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        for (peer, host) in [(1, "192.0.2.1"), (2, "192.0.2.2"), (3, "198.51.100.1")] {
            claims.add(now, claim(peer, &format!("/ip4/{host}/tcp/1")));
        }
        let first = claims.next(now).unwrap();
        assert_eq!(first, claim(1, "/ip4/192.0.2.1/tcp/1"));
        assert_eq!(claims.next(now), Some(claim(3, "/ip4/198.51.100.1/tcp/1")));
        assert_eq!(claims.next(now), None);
        claims.ended(now, &first, true);
        assert_eq!(claims.next(now), Some(claim(2, "/ip4/192.0.2.2/tcp/1")));
        for peer in 10..20 {
            claims.add(now, itself(peer, "/ip4/203.0.113.1/tcp/1"));
        }
        let more = std::iter::from_fn(|| claims.next(now)).count();
        assert_eq!(more, MAX_UNDER_WAY - 2);
    }

    #[test]
    fn who_names_its_own_host_is_dialled_even_if_others_named_it_wrongly() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        let wrong = claim(1, "/ip4/192.0.2.1/tcp/1");
        claims.add(now, wrong.clone());
        assert_eq!(claims.next(now), Some(wrong.clone()));
        claims.ended(now, &wrong, false);
        claims.add(now, claim(2, "/ip4/192.0.2.1/tcp/2"));
        assert_eq!(claims.next(now), None);
        let own = itself(3, "/ip4/192.0.2.1/tcp/2");
        claims.add(now, own.clone());
        assert_eq!(claims.next(now), Some(own.clone()));
        claims.ended(now, &own, false);
        claims.add(now, own.clone());
        assert_eq!(
            claims.next(now),
            Some(own),
            "its own fault is nobody else's"
        );
    }

    #[test]
    fn a_claim_waits_once_and_known_peers_come_first_and_displace_strangers() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        for _ in 0..2 {
            for peer in 0..70 {
                claims.add(now, itself(peer, "/ip4/192.0.2.1/tcp/1"));
            }
        }
        let stats = claims.stats();
        assert_eq!((stats.used, stats.refused), (MAX_WAITING, 12));
        let known = Claim {
            standing: Standing::Known,
            ..itself(200, "/ip4/192.0.2.1/tcp/1")
        };
        claims.add(now, known.clone());
        let stats = claims.stats();
        assert_eq!((stats.used, stats.evicted), (MAX_WAITING, 1));
        assert_eq!(claims.next(now), Some(known));
    }

    #[test]
    fn the_host_of_the_source_is_the_one_that_is_named() {
        let source = |ip: [u8; 4]| Some(Host::V4(ip.into()));
        let addr: Multiaddr = "/ip4/192.0.2.1/tcp/4820".parse().unwrap();
        assert!(names_itself(&addr, source([192, 0, 2, 1])));
        assert!(!names_itself(&addr, source([192, 0, 2, 2])));
        assert!(!names_itself(&addr, None));
    }
}
