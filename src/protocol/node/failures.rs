//! What a node remembers of tries that came to nothing: by peer id, by the address dialled, and by
//! its prefix.
//!
//! Ids cost nothing, so an attacker may name ever new ones at the port of a third party. Therefore
//! each try counts three times, and a candidate is tried only when none of the three rests:
//!
//! | what was tried | rests for | after |
//! |---|---|---|
//! | a peer id | 10 s, doubled with each failure up to 160 s | the first failure |
//! | a host and port | 1 s, doubled with each try up to 256 s | the first try |
//! | a prefix | 1 s | the sixteenth try |
//!
//! Ids are forgotten when there are too many; addresses and prefixes never are before they were
//! quiet for ten minutes, because an attacker can name any number of others ([`memory`]). So what one
//! node does to one host and port, however many ids are said to be there and however many other
//! addresses fail meanwhile, is at most 5 tries in the first 20 s, 7 in the first minute, and one
//! every 256 s for long; to one prefix, 16 tries and then one a second.
//!
//! A try counts for all addresses that may be dialled for it, whether a lease comes of it or not: a
//! server that answers may have named another host beside its own. Only where all of them are on
//! one host, that host is cleared by a lease.
//!
//! Invariants: a failure of a peer id is never forgotten before its first 10 s are over, unless
//! [`MAX_PEERS`] others are younger; only a lease that was renewed clears a failure; a place that
//! was reserved for this node shortens the pause of an id to 10 s, never to less.

mod memory;

use core::time::Duration;

use heapless::Vec;

use super::MAX_MIN_INDEXERS;
use crate::protocol::{
    Addr, Addrs, Instant, MAX_ADDRS, PeerId, Rng, TableStats,
    address::{Endpoint, Host, Prefix},
};
use memory::{FORGOTTEN_AFTER, Key, Memory};

/// Ids that are remembered at most. The one that rests least long gives way.
const MAX_PEERS: usize = 256;
/// Hosts with their ports that are remembered at most: two minutes of tries.
const MAX_ENDPOINTS: usize = 256;
/// Prefixes that are remembered at most.
const MAX_PREFIXES: usize = 128;
/// Peers that said `refused` and are remembered at most: one more than can be right, if the reason is
/// that another device has our identity.
const MAX_REFUSALS: usize = MAX_MIN_INDEXERS + 1;
/// First pause of a peer id (ARCHITECTURE.md, "Retries"), and how often it doubles.
const PEER: (Duration, u8) = (Duration::from_secs(10), 4);
/// The same of a host and port.
const ENDPOINT: (Duration, u8) = (Duration::from_secs(1), 8);
/// Pause of a prefix. Many honest peers may share one, so that it never rests for long.
const PREFIX_PAUSE: Duration = Duration::from_secs(1);
/// The try in a prefix from which on it rests.
const PREFIX_SPARED: u8 = 16;
impl From<&PeerId> for Key {
    fn from(peer: &PeerId) -> Self {
        Self(Rng::for_peer(peer).bits())
    }
}

impl From<Endpoint> for Key {
    fn from(endpoint: Endpoint) -> Self {
        let port = u64::from(endpoint.port) + 1;
        let host = match endpoint.host {
            Host::V4(ip) => u64::from(u32::from(ip)),
            Host::V6(ip) => {
                let bits = u128::from(ip);
                Rng::new(bits as u64).bits() ^ (bits >> 64) as u64
            }
            Host::Name(hash) => !hash,
        };
        Self(Rng::new(host ^ Rng::new(port).bits()).bits())
    }
}

impl From<Prefix> for Key {
    fn from(prefix: Prefix) -> Self {
        Self(Rng::new(prefix.bits()).bits())
    }
}

/// The failures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failures {
    peers: Memory<MAX_PEERS>,
    endpoints: Memory<MAX_ENDPOINTS>,
    prefixes: Memory<MAX_PREFIXES>,
    /// Who said `refused`, and until when it rests for it.
    refusals: Vec<(Key, Instant), MAX_REFUSALS>,
}

impl Failures {
    pub(super) const fn new() -> Self {
        Self {
            peers: Memory::new(),
            endpoints: Memory::new(),
            prefixes: Memory::new(),
            refusals: Vec::new(),
        }
    }

    /// A try at these addresses begins.
    pub(super) fn begin(&mut self, now: Instant, addrs: &Addrs, rng: &mut Rng) {
        for endpoint in once(addrs.iter().map(|addr| Endpoint::of(addr))) {
            let rest = |tries| pause(ENDPOINT, tries, rng);
            self.endpoints.count(now, endpoint.into(), rest);
        }
        for prefix in once(addrs.iter().map(|addr| Endpoint::of(addr).prefix())) {
            let rest = |tries: u8| match tries {
                0..PREFIX_SPARED => Duration::ZERO,
                _ => PREFIX_PAUSE,
            };
            self.prefixes.count(now, prefix.into(), rest);
        }
    }

    /// A try of the peer came to nothing.
    pub(super) fn note(&mut self, now: Instant, peer: &PeerId, rng: &mut Rng) {
        self.forget_refusal(peer);
        self.peers.forget_for(peer.into());
        let rest = |count| pause(PEER, count, rng);
        self.peers.count(now, peer.into(), rest);
    }

    /// The peer said `refused`: it rests until then, whatever else happens. That is no failure, until
    /// the next try comes to nothing in another way.
    pub(super) fn refused(&mut self, now: Instant, peer: &PeerId, until: Instant) {
        self.forget_refusal(peer);
        self.refusals
            .retain(|(_, until)| now < *until + FORGOTTEN_AFTER);
        if self.refusals.is_full() {
            self.refusals.remove(0);
        }
        // There is room now.
        let _ = self.refusals.push((peer.into(), until));
    }

    /// Whether the last thing heard of the peer is that it refused.
    pub(super) fn is_refused(&self, now: Instant, peer: &PeerId) -> bool {
        let refused = self.refusal(peer);
        refused.is_some_and(|until| now < until + FORGOTTEN_AFTER)
    }

    /// Of how many peers that is so, [`MAX_REFUSALS`] at most.
    pub(super) fn refusals(&self, now: Instant) -> usize {
        let refusals = self.refusals.iter();
        refusals
            .filter(|(_, until)| now < *until + FORGOTTEN_AFTER)
            .count()
    }

    /// A lease with the peer was renewed.
    pub(super) fn forget(&mut self, peer: &PeerId, addrs: &Addrs) {
        self.peers.remove(peer.into());
        self.forget_refusal(peer);
        let mut endpoints = addrs.iter().map(|addr| Endpoint::of(addr));
        let Some(first) = endpoints.next() else {
            return;
        };
        if endpoints.all(|other| other == first) {
            self.endpoints.remove(first.into());
            self.prefixes.remove(first.prefix().into());
        }
    }

    /// A server keeps a place at the peer for us: it counts as if it had failed once.
    pub(super) fn forgive(&mut self, peer: &PeerId) {
        if let Some(failure) = self.peers.find(peer.into()) {
            failure.count = 1;
            failure.until = failure.until.min(failure.last + PEER.0);
        }
    }

    /// Forgets everything but who said `refused`.
    pub(super) fn clear(&mut self) {
        self.peers.clear();
        self.endpoints.clear();
        self.prefixes.clear();
    }

    /// How often the peer has failed, or refused.
    pub(super) fn of(&self, peer: &PeerId) -> u8 {
        let refused = u8::from(self.refusal(peer).is_some());
        self.peers.tries(peer.into()).saturating_add(refused)
    }

    /// From when on the peer may be tried. Only its addresses from [`Failures::rested`] are dialled
    /// then.
    pub(super) fn ready_at(&self, peer: &PeerId, addrs: &Addrs) -> Instant {
        let is_empty =
            self.peers.is_empty() && self.endpoints.is_empty() && self.prefixes.is_empty();
        if is_empty && self.refusals.is_empty() {
            return Instant::default();
        }
        let addr = addrs.iter().map(|addr| self.addr_ready_at(addr)).min();
        self.peer_ready_at(peer).max(addr.unwrap_or_default())
    }

    /// Whether that is so at `now`: most that rest do so by their id, and their addresses need no look.
    pub(super) fn is_ready(&self, now: Instant, peer: &PeerId, addrs: &Addrs) -> bool {
        self.peer_ready_at(peer) <= now && self.ready_at(peer, addrs) <= now
    }

    /// Those of the addresses that do not rest.
    pub(super) fn rested(&self, now: Instant, addrs: &Addrs) -> Addrs {
        let rested = |addr: &&Addr| self.addr_ready_at(addr) <= now;
        addrs.iter().filter(rested).cloned().collect()
    }

    /// What the operator sees.
    pub(super) fn stats(&self) -> [TableStats; 3] {
        [
            self.peers.stats("failures"),
            self.endpoints.stats("tried_addrs"),
            self.prefixes.stats("tried_prefixes"),
        ]
    }

    /// Until when the peer rests because it refused.
    fn refusal(&self, peer: &PeerId) -> Option<Instant> {
        if self.refusals.is_empty() {
            return None;
        }
        let key = Key::from(peer);
        let mut refusals = self.refusals.iter();
        let found = refusals.find(|(refused, _)| *refused == key);
        found.map(|(_, until)| *until)
    }

    fn forget_refusal(&mut self, peer: &PeerId) {
        let key = Key::from(peer);
        self.refusals.retain(|(refused, _)| *refused != key);
    }

    fn peer_ready_at(&self, peer: &PeerId) -> Instant {
        let rests = self.peers.rests_until(peer.into());
        rests.max(self.refusal(peer).unwrap_or_default())
    }

    fn addr_ready_at(&self, addr: &[u8]) -> Instant {
        let endpoint = Endpoint::of(addr);
        let prefix = endpoint.prefix();
        let endpoint = self.endpoints.rests_until(endpoint.into());
        endpoint.max(self.prefixes.rests_until(prefix.into()))
    }
}

/// The pause after so many failures. Those after the first are up to a quarter longer, so that the
/// nodes of a fleet drift apart.
fn pause((first, doublings): (Duration, u8), count: u8, rng: &mut Rng) -> Duration {
    let more = count.saturating_sub(1);
    let pause = first * (1 << more.min(doublings));
    match more {
        0 => pause,
        _ => pause + rng.up_to(pause / 4),
    }
}

/// Each of the items once. There are as many as a peer has addresses.
fn once<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T, MAX_ADDRS> {
    let mut once = Vec::new();
    for item in items {
        if !once.contains(&item) {
            // There is room: see above.
            let _ = once.push(item);
        }
    }
    once
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    /// 10.0.`net`.`host`, port `port`.
    fn addr(net: u8, host: u8, port: u8) -> Addrs {
        let bytes = [4, 10, 0, net, host, 6, 0, port];
        [Addr::from_iter(bytes)].into_iter().collect()
    }

    fn begun(failures: &mut Failures, now: u64, addrs: &Addrs) {
        failures.begin(at(now), addrs, &mut Rng::new(now));
    }

    /// A try of the peer there that fails at once.
    fn noted(failures: &mut Failures, now: u64, n: u8, addrs: &Addrs) {
        begun(failures, now, addrs);
        failures.note(at(now), &peer(n), &mut Rng::new(now));
    }

    #[test]
    fn an_id_rests_for_10_s_and_then_for_ever_longer_up_to_160_s() {
        let mut failures = Failures::new();
        let mut now = 0;
        for longest in [10_000, 20_000, 40_000, 80_000, 160_000, 160_000] {
            // At ever new addresses.
            let new = addr(1, (now / 1000 % 250) as u8, 1);
            noted(&mut failures, now, 1, &new);
            let ready = failures.peers.rests_until((&peer(1)).into()).as_millis();
            let pause = ready - now;
            assert!((longest..=longest * 5 / 4).contains(&pause), "{pause}");
            assert_eq!(longest == 10_000, pause == 10_000, "the first is exact");
            now = ready;
        }
    }

    #[test]
    fn one_port_is_tried_five_times_in_20_s_however_many_ids_are_said_to_be_there() {
        let (mut failures, mut tried) = (Failures::new(), std::vec::Vec::new());
        let port = addr(1, 1, 80);
        for now in 0..600_000u64 {
            let n = (tried.len() % 250) as u8;
            if failures.rested(at(now), &port).is_empty() {
                continue;
            }
            noted(&mut failures, now, n, &port);
            tried.push(now);
        }
        let within = |end| tried.iter().filter(|&&when| when < end).count();
        assert_eq!(within(20_000), 5, "{tried:?}");
        assert!(within(60_000) <= 7, "{tried:?}");
        assert!(within(600_000) <= 11, "{tried:?}");
    }

    #[test]
    fn a_prefix_rests_for_a_second_from_its_sixteenth_try_on() {
        let mut failures = Failures::new();
        for n in 1..=15 {
            begun(&mut failures, 0, &addr(1, n, 1));
        }
        let fresh = addr(1, 200, 1);
        assert_eq!(failures.ready_at(&peer(200), &fresh), at(0));
        begun(&mut failures, 0, &addr(1, 16, 1));
        assert_eq!(failures.ready_at(&peer(200), &fresh), at(1_000));
        assert_eq!(failures.ready_at(&peer(200), &addr(2, 200, 1)), at(0));
        begun(&mut failures, 5_000, &addr(1, 17, 1));
        assert_eq!(failures.ready_at(&peer(200), &fresh), at(6_000));
        failures.forget(&peer(1), &addr(1, 1, 1));
        assert_eq!(failures.ready_at(&peer(200), &fresh), at(0));
    }

    #[test]
    fn of_several_addresses_those_that_rest_are_not_dialled() {
        let mut failures = Failures::new();
        noted(&mut failures, 0, 1, &addr(1, 1, 1));
        let mut both = addr(1, 1, 1);
        both.extend(addr(2, 2, 2));
        assert_eq!(failures.ready_at(&peer(9), &both), at(0));
        assert_eq!(failures.rested(at(999), &both), addr(2, 2, 2));
        assert_eq!(failures.rested(at(1_000), &both), both);
    }

    #[test]
    fn a_reserved_place_shortens_the_pause_of_an_id_to_10_s_after_the_last_failure() {
        let mut failures = Failures::new();
        for n in 0..4 {
            noted(&mut failures, 0, 1, &addr(n, 1, 1));
        }
        failures.forgive(&peer(1));
        assert_eq!(failures.ready_at(&peer(1), &addr(9, 1, 1)), at(10_000));
    }

    #[test]
    fn a_lease_that_was_renewed_clears_the_failures() {
        let mut failures = Failures::new();
        noted(&mut failures, 0, 1, &addr(1, 1, 1));
        failures.forget(&peer(1), &addr(1, 1, 1));
        assert_eq!(failures, Failures::new());
    }

    #[test]
    fn failures_begin_anew_after_ten_quiet_minutes() {
        for (later, count) in [(599_999, 2), (600_000, 1)] {
            let mut failures = Failures::new();
            noted(&mut failures, 0, 1, &addr(1, 1, 1));
            noted(&mut failures, later, 1, &addr(1, 1, 1));
            assert_eq!(failures.of(&peer(1)), count);
        }
    }

    #[test]
    fn a_lease_with_a_peer_that_names_another_host_too_clears_neither() {
        let mut failures = Failures::new();
        let mut both = addr(1, 1, 1);
        both.extend(addr(2, 2, 2));
        noted(&mut failures, 0, 1, &both);
        failures.forget(&peer(1), &both);
        assert_eq!(failures.of(&peer(1)), 0);
        assert_eq!(failures.rested(at(999), &both), Addrs::new());
        failures.forget(&peer(1), &addr(1, 1, 1));
        assert_eq!(failures.rested(at(999), &both), addr(1, 1, 1));
    }

    #[test]
    fn of_too_many_ids_the_one_that_rests_least_long_is_forgotten() {
        let mut failures = Failures::new();
        let id = |n: u16| {
            let [high, low] = n.to_be_bytes();
            PeerId::from_bytes(core::array::from_fn(|at| [high, low][at % 2]))
        };
        for n in 0..=256 {
            failures.note(at(n.into()), &id(n), &mut Rng::new(1));
        }
        let forgotten = (0..=256).filter(|n| failures.of(&id(*n)) == 0);
        assert_eq!(forgotten.collect::<std::vec::Vec<_>>(), [0]);
    }

    /// Tries of ever new addresses in ever new prefixes, as fast as the bucket lets a node.
    fn flood(failures: &mut Failures, from: u64, until: u64) {
        for now in (from..until).step_by(500) {
            let four = (0..4u64).map(|n| {
                let bytes = (4 * now + n).to_be_bytes();
                Addr::from_iter([4, 11, bytes[5], bytes[6], bytes[7], 6, 0, 1])
            });
            failures.begin(at(now), &four.collect(), &mut Rng::new(now));
        }
    }

    #[test]
    fn no_flood_of_other_addresses_makes_a_node_try_one_port_more_often() {
        let (mut failures, victim) = (Failures::new(), addr(1, 1, 80));
        let mut tried = std::vec::Vec::new();
        for now in (0..600_000u64).step_by(500) {
            flood(&mut failures, now, now + 500);
            if !failures.rested(at(now), &victim).is_empty() {
                begun(&mut failures, now, &victim);
                tried.push(now);
            }
        }
        let within = |end| tried.iter().filter(|&&when| when < end).count();
        assert!((2..=5).contains(&within(20_000)), "{tried:?}");
        assert!(within(60_000) <= 7, "{tried:?}");
        assert!(within(600_000) <= 11, "{tried:?}");
        assert!(
            failures
                .stats()
                .iter()
                .skip(1)
                .all(|table| table.evicted > 257)
        );
    }

    #[test]
    fn no_flood_of_other_prefixes_gives_a_prefix_16_tries_again() {
        let mut failures = Failures::new();
        let mut tries = 0;
        let mut now = 0;
        while now < 300_000 {
            let fresh = addr(9, (tries % 250) as u8, (tries / 250) as u8);
            if !failures.rested(at(now), &fresh).is_empty() {
                begun(&mut failures, now, &fresh);
                tries += 1;
            }
            flood(&mut failures, now, now + 500);
            now += 500;
        }
        assert!((16..=16 + 300).contains(&tries), "{tries}");
    }

    #[test]
    fn after_a_flood_a_new_address_is_tried_within_the_longest_pause() {
        let mut failures = Failures::new();
        flood(&mut failures, 0, 900_000);
        let ready = failures.ready_at(&peer(1), &addr(1, 1, 80));
        assert!(ready - at(900_000) <= Duration::from_secs(256) * 5 / 4);
        // A quiet time later nothing is held against it.
        begun(&mut failures, 1_500_000, &addr(1, 1, 80));
        let key = Endpoint::of(&addr(1, 1, 80)[0]).into();
        assert_eq!(failures.endpoints.tries(key), 1);
    }
}
