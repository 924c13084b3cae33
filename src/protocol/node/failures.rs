//! What a node remembers of tries that came to nothing: by peer id, by the address dialled, and by
//! its prefix.
//!
//! Ids cost nothing, so an attacker may name ever new ones at the port of a third party. Therefore
//! each try counts three times, and a candidate is tried only when none of the three rests:
//!
//! | what was tried | rests for | after |
//! |---|---|---|
//! | a peer id | 10 s, doubled with each failure up to 160 s | the first failure |
//! | a host and port | 1 s, doubled with each failure up to 256 s | the first failure |
//! | a prefix | 1 s | the sixteenth try |
//!
//! What one node does to one host and port, however many ids are said to be there, is therefore at
//! most 5 tries in the first 20 s, 7 in the first minute, and one every 256 s for long; to one
//! prefix, 16 tries and then one a second.
//!
//! Invariants: a failure of a peer id is never forgotten before its first 10 s are over, unless
//! [`MAX_FAILURES`] others are younger; only a lease that was renewed clears a failure; a place
//! that was reserved for this node shortens the pause of an id to 10 s, never to less.

use core::time::Duration;

use heapless::Vec;

use crate::protocol::{
    Addr, Addrs, Instant, MAX_ADDRS, PeerId, Rng, TableStats,
    address::{Endpoint, Host, Prefix},
};

/// Ids, addresses and prefixes that are remembered at most. The one that rests least long gives
/// way.
pub(super) const MAX_FAILURES: usize = 256;
/// First pause of a peer id (DESIGN.md, section 2), and how often it doubles.
const PEER: (Duration, u8) = (Duration::from_secs(10), 4);
/// The same of a host and port.
const ENDPOINT: (Duration, u8) = (Duration::from_secs(1), 8);
/// Pause of a prefix. Many honest peers may share one, so that it never rests for long.
const PREFIX_PAUSE: Duration = Duration::from_secs(1);
/// The try in a prefix from which on it rests.
const PREFIX_SPARED: u8 = 16;
/// After so long a quiet time failures begin anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// A hash of an id, a host and port, or a prefix: the memory is looked through often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key(u64);

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

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    key: Key,
    count: u8,
    last: Instant,
    until: Instant,
}

/// The failures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failures {
    all: Vec<Failure, MAX_FAILURES>,
    evicted: u64,
}

impl Failures {
    pub(super) const fn new() -> Self {
        Self {
            all: Vec::new(),
            evicted: 0,
        }
    }

    /// A try at these addresses begins.
    pub(super) fn begin(&mut self, now: Instant, addrs: &Addrs) {
        for prefix in once(addrs.iter().map(|addr| Endpoint::of(addr).prefix())) {
            let rest = |tries: u8| match tries {
                0..PREFIX_SPARED => Duration::ZERO,
                _ => PREFIX_PAUSE,
            };
            self.count(now, prefix.into(), rest);
        }
    }

    /// A try of the peer at these addresses came to nothing.
    pub(super) fn note(&mut self, now: Instant, peer: &PeerId, addrs: &Addrs, rng: &mut Rng) {
        self.count(now, peer.into(), |count| pause(PEER, count, rng));
        for endpoint in once(addrs.iter().map(|addr| Endpoint::of(addr))) {
            self.count(now, endpoint.into(), |count| pause(ENDPOINT, count, rng));
        }
    }

    /// A lease with the peer was renewed.
    pub(super) fn forget(&mut self, peer: &PeerId, addrs: &Addrs) {
        self.remove(peer.into());
        for endpoint in addrs.iter().map(|addr| Endpoint::of(addr)) {
            self.remove(endpoint.into());
            self.remove(endpoint.prefix().into());
        }
    }

    /// A server keeps a place at the peer for us: it counts as if it had failed once.
    pub(super) fn forgive(&mut self, peer: &PeerId) {
        if let Some(failure) = self.find(peer.into()) {
            failure.count = 1;
            failure.until = failure.until.min(failure.last + PEER.0);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.all.clear();
    }

    /// How often the peer has failed.
    pub(super) fn of(&self, peer: &PeerId) -> u8 {
        let key = Key::from(peer);
        let found = self.all.iter().find(|failure| failure.key == key);
        found.map_or(0, |failure| failure.count)
    }

    /// From when on the peer may be tried. Only its addresses from [`Failures::rested`] are dialled
    /// then.
    pub(super) fn ready_at(&self, peer: &PeerId, addrs: &Addrs) -> Instant {
        if self.all.is_empty() {
            return Instant::default();
        }
        let addr = addrs.iter().map(|addr| self.addr_ready_at(addr)).min();
        self.rests_until(peer.into()).max(addr.unwrap_or_default())
    }

    /// Whether that is so at `now`: most that rest do so by their id, and their addresses need no look.
    pub(super) fn is_ready(&self, now: Instant, peer: &PeerId, addrs: &Addrs) -> bool {
        self.rests_until(peer.into()) <= now && self.ready_at(peer, addrs) <= now
    }

    /// Those of the addresses that do not rest.
    pub(super) fn rested(&self, now: Instant, addrs: &Addrs) -> Addrs {
        let rested = |addr: &&Addr| self.addr_ready_at(addr) <= now;
        addrs.iter().filter(rested).cloned().collect()
    }

    /// What the operator sees.
    pub(super) fn stats(&self) -> TableStats {
        TableStats {
            name: "failures",
            used: self.all.len(),
            capacity: MAX_FAILURES,
            refused: 0,
            evicted: self.evicted,
        }
    }

    fn addr_ready_at(&self, addr: &[u8]) -> Instant {
        let endpoint = Endpoint::of(addr);
        self.rests_until(endpoint.into())
            .max(self.rests_until(endpoint.prefix().into()))
    }

    fn rests_until(&self, key: Key) -> Instant {
        let found = self.all.iter().find(|failure| failure.key == key);
        found.map_or(Instant::default(), |failure| failure.until)
    }

    fn find(&mut self, key: Key) -> Option<&mut Failure> {
        self.all.iter_mut().find(|failure| failure.key == key)
    }

    fn remove(&mut self, key: Key) {
        self.all.retain(|failure| failure.key != key);
    }

    fn count(&mut self, now: Instant, key: Key, rest: impl FnOnce(u8) -> Duration) {
        let old = self
            .find(key)
            .filter(|failure| now - failure.last < FORGOTTEN_AFTER);
        let count = old.map_or(0, |failure| failure.count).saturating_add(1);
        let failure = Failure {
            key,
            count,
            last: now,
            until: now + rest(count),
        };
        if let Some(old) = self.find(key) {
            *old = failure;
            return;
        }
        if self.all.is_full() {
            let rest = self.all.iter().enumerate();
            if let Some((at, _)) = rest.min_by_key(|(_, failure)| failure.until) {
                self.all.swap_remove(at);
                self.evicted += 1;
            }
        }
        // There is room now.
        let _ = self.all.push(failure);
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

    fn noted(failures: &mut Failures, now: u64, n: u8, addrs: &Addrs) {
        failures.note(at(now), &peer(n), addrs, &mut Rng::new(now));
    }

    #[test]
    fn an_id_rests_for_10_s_and_then_for_ever_longer_up_to_160_s() {
        let mut failures = Failures::new();
        let mut now = 0;
        for longest in [10_000, 20_000, 40_000, 80_000, 160_000, 160_000] {
            // At ever new addresses.
            let new = addr(1, (now / 1000 % 250) as u8, 1);
            noted(&mut failures, now, 1, &new);
            let ready = failures.rests_until((&peer(1)).into()).as_millis();
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
            failures.begin(at(0), &addr(1, n, 1));
        }
        let fresh = addr(1, 200, 1);
        assert_eq!(failures.ready_at(&peer(200), &fresh), at(0));
        failures.begin(at(0), &addr(1, 16, 1));
        assert_eq!(failures.ready_at(&peer(200), &fresh), at(1_000));
        assert_eq!(failures.ready_at(&peer(200), &addr(2, 200, 1)), at(0));
        failures.begin(at(5_000), &addr(1, 17, 1));
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
    fn when_the_memory_is_full_the_one_that_rests_least_long_gives_way() {
        let mut failures = Failures::new();
        let one = addr(1, 1, 1);
        for n in 0..=255u8 {
            noted(&mut failures, u64::from(n), n, &one);
        }
        assert_eq!(failures.all.len(), MAX_FAILURES);
        assert!(failures.rested(at(255), &one).is_empty());
        let resting = (0..=255).filter(|&n| failures.of(&peer(n)) > 0);
        let resting: std::vec::Vec<u8> = resting.collect();
        assert_eq!(resting, (1..=255).collect::<std::vec::Vec<u8>>());
        assert!(failures.stats().evicted > 0);
    }
}
