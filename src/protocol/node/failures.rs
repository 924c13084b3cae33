//! The failed attempts that a node remembers: by peer id, by the address dialled, and by its
//! prefix.
//!
//! Ids cost an attacker nothing, so it could name ever new ids at the port of a third party.
//! Therefore each attempt counts three times, and a candidate is tried only when none of the three
//! pauses:
//!
//! | what was tried | rests for | after |
//! |---|---|---|
//! | a peer id | 10 s, doubled with each failure up to 160 s | the first failure |
//! | a host and port | 1 s, doubled with each try up to 256 s | the first try |
//! | a prefix | 1 s | the sixteenth try |
//!
//! Ids are removed when there are too many. Addresses and prefixes are never removed before they
//! were quiet for ten minutes, because an attacker can name any number of others ([`memory`]). So
//! one node makes at one host and port at most 5 attempts in the first 20 s, 7 in the first minute,
//! and one every 256 s in the long run, however many ids are claimed there and however many other
//! addresses fail meanwhile. At one prefix it makes at most 16 attempts and then one a second.
//!
//! An attempt counts for all addresses that may be dialled for it, even if it leads to a lease,
//! because a server that answers may have named another host beside its own. The same holds when
//! the stream of a lease is opened again ([`Failures::reopen`]), because a server could repeatedly
//! grant a lease and close the stream. Only the address that last carried the lease is dialled as
//! often as the lease needs, and only its failures are cleared by the lease. This never holds for a
//! name, because its owner can change where it leads.
//!
//! Invariants: a failure of a peer id is kept for at least 10 s, unless [`MAX_PEERS`] others are
//! younger; only a renewed lease clears a failure, and never that of an address that did not carry
//! it, nor that of a prefix; a place that is reserved for this node shortens the pause of an id to
//! 10 s, never to less. The figures above hold while the host's network stays the same: a change of
//! it, which is seen when it happens, clears all failures ([`Failures::clear`]), and then only the
//! bucket of a node bounds what it dials.

mod memory;

use core::time::Duration;

use heapless::Vec;

use super::MAX_MIN_INDEXERS;
use crate::protocol::{
    Addr, Addrs, Instant, MAX_ADDRS, PeerId, Rng, TableStats,
    address::{Host, Prefix, TransportAddr},
};
use memory::{FORGOTTEN_AFTER, Key, Memory};

/// Ids remembered at most. The one with the shortest remaining pause is evicted.
const MAX_PEERS: usize = 256;
/// Hosts with their ports remembered at most: two minutes of attempts.
const MAX_TRIED_ADDRS: usize = 256;
/// Prefixes remembered at most.
const MAX_PREFIXES: usize = 128;
/// Peers that answered `refused` remembered at most. This is one more than there can be if the
/// reason is another device with our identity.
const MAX_REFUSALS: usize = MAX_MIN_INDEXERS + 1;
/// The first pause of a peer id (ARCHITECTURE.md, "Retries"), and how often it doubles.
const PEER: (Duration, u8) = (Duration::from_secs(10), 4);
/// The same for a host and port.
const TRIED_ADDR: (Duration, u8) = (Duration::from_secs(1), 8);
/// The pause of a prefix. It is short, because many honest peers may share one prefix.
const PREFIX_PAUSE: Duration = Duration::from_secs(1);
/// The attempt in a prefix from which on it pauses.
const PREFIX_SPARED: u8 = 16;

impl From<&PeerId> for Key {
    fn from(peer: &PeerId) -> Self {
        Self(Rng::for_peer(peer).bits())
    }
}

impl From<TransportAddr> for Key {
    fn from(at: TransportAddr) -> Self {
        let port = u64::from(at.port) + 1;
        let host = match at.host {
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
    tried_addrs: Memory<MAX_TRIED_ADDRS>,
    prefixes: Memory<MAX_PREFIXES>,
    /// Peers that answered `refused`, and until when each pauses for it.
    refusals: Vec<(Key, Instant), MAX_REFUSALS>,
}

impl Failures {
    pub(super) const fn new() -> Self {
        Self {
            peers: Memory::new(),
            tried_addrs: Memory::new(),
            prefixes: Memory::new(),
            refusals: Vec::new(),
        }
    }

    /// Counts an attempt that begins at these addresses.
    pub(super) fn begin(&mut self, now: Instant, addrs: &Addrs, rng: &mut Rng) {
        for at in once(addrs.iter().map(|addr| TransportAddr::of(addr))) {
            let rest = |tries| pause(TRIED_ADDR, tries, rng);
            self.tried_addrs.count(now, at.into(), rest);
        }
        for prefix in once(addrs.iter().map(|addr| TransportAddr::of(addr).prefix())) {
            let rest = |tries: u8| match tries {
                0..PREFIX_SPARED => Duration::ZERO,
                _ => PREFIX_PAUSE,
            };
            self.prefixes.count(now, prefix.into(), rest);
        }
    }

    /// A stream of a lease is opened again. Returns the addresses that may be dialled. The one that
    /// last `carried` the lease is among them and is not counted. Any other counts as a normal
    /// attempt.
    pub(super) fn reopen(
        &mut self,
        now: Instant,
        addrs: &Addrs,
        carried: Option<TransportAddr>,
        rng: &mut Rng,
    ) -> Addrs {
        let carrier = carried.filter(is_address);
        let carries = |addr: &Addr| carrier == Some(TransportAddr::of(addr));
        let mut others = self.rested(now, addrs);
        others.retain(|addr| !carries(addr));
        self.begin(now, &others, rng);
        let may = |addr: &&Addr| carries(addr) || others.contains(addr);
        addrs.iter().filter(may).cloned().collect()
    }

    /// Counts a failed attempt of the peer.
    pub(super) fn note(&mut self, now: Instant, peer: &PeerId, rng: &mut Rng) {
        self.forget_refusal(peer);
        self.peers.forget_for(peer.into());
        let rest = |count| pause(PEER, count, rng);
        self.peers.count(now, peer.into(), rest);
    }

    /// The peer answered `refused`, so it pauses until this time, whatever else happens. This is
    /// not a failure, until the next attempt fails for another reason.
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

    /// Whether the peer's last answer was `refused`.
    pub(super) fn is_refused(&self, now: Instant, peer: &PeerId) -> bool {
        let refused = self.refusal(peer);
        refused.is_some_and(|until| now < until + FORGOTTEN_AFTER)
    }

    /// The number of such peers, at most [`MAX_REFUSALS`].
    pub(super) fn refusals(&self, now: Instant) -> usize {
        let refusals = self.refusals.iter();
        refusals
            .filter(|(_, until)| now < *until + FORGOTTEN_AFTER)
            .count()
    }

    /// Clears the failures of the peer, because a lease with it was renewed, and those of the
    /// address that `carried` it.
    pub(super) fn forget(&mut self, peer: &PeerId, carried: Option<TransportAddr>) {
        self.peers.remove(peer.into());
        self.forget_refusal(peer);
        if let Some(carrier) = carried.filter(is_address) {
            self.tried_addrs.remove(carrier.into());
        }
    }

    /// A server has reserved a place for us at the peer, so the peer counts as if it had failed
    /// once.
    pub(super) fn forgive(&mut self, peer: &PeerId) {
        if let Some(failure) = self.peers.find(peer.into()) {
            failure.count = 1;
            failure.until = failure.until.min(failure.last + PEER.0);
        }
    }

    /// Clears everything except the refusals.
    pub(super) fn clear(&mut self) {
        self.peers.clear();
        self.tried_addrs.clear();
        self.prefixes.clear();
    }

    /// How often the peer has failed, or refused.
    pub(super) fn of(&self, peer: &PeerId) -> u8 {
        let refused = u8::from(self.refusal(peer).is_some());
        self.peers.tries(peer.into()).saturating_add(refused)
    }

    /// When the peer may be tried. Only its addresses from [`Failures::rested`] are dialled then.
    pub(super) fn ready_at(&self, peer: &PeerId, addrs: &Addrs) -> Instant {
        let is_empty =
            self.peers.is_empty() && self.tried_addrs.is_empty() && self.prefixes.is_empty();
        if is_empty && self.refusals.is_empty() {
            return Instant::default();
        }
        let addr = addrs.iter().map(|addr| self.addr_ready_at(addr)).min();
        self.peer_ready_at(peer).max(addr.unwrap_or_default())
    }

    /// Whether the peer may be tried at `now`. The id is checked first, because most peers that
    /// pause do so by their id.
    pub(super) fn is_ready(&self, now: Instant, peer: &PeerId, addrs: &Addrs) -> bool {
        self.peer_ready_at(peer) <= now && self.ready_at(peer, addrs) <= now
    }

    /// The addresses that do not pause.
    pub(super) fn rested(&self, now: Instant, addrs: &Addrs) -> Addrs {
        let rested = |addr: &&Addr| self.addr_ready_at(addr) <= now;
        addrs.iter().filter(rested).cloned().collect()
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self) -> [TableStats; 3] {
        [
            self.peers.stats("failures"),
            self.tried_addrs.stats("tried_addrs"),
            self.prefixes.stats("tried_prefixes"),
        ]
    }

    /// Until when the peer pauses because it refused.
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
        let at = TransportAddr::of(addr);
        let prefix = at.prefix();
        let at = self.tried_addrs.rests_until(at.into());
        at.max(self.prefixes.rests_until(prefix.into()))
    }
}

/// Whether it always leads to the same host.
fn is_address(at: &TransportAddr) -> bool {
    matches!(at.host, Host::V4(_) | Host::V6(_))
}

/// The pause after this many failures. Those after the first are up to a quarter longer at random,
/// so that the nodes of a fleet drift apart.
fn pause((first, doublings): (Duration, u8), count: u8, rng: &mut Rng) -> Duration {
    let more = count.saturating_sub(1);
    let pause = first * (1 << more.min(doublings));
    match more {
        0 => pause,
        _ => pause + rng.up_to(pause / 4),
    }
}

/// Each item once. There are at most as many as a peer has addresses.
fn once<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T, MAX_ADDRS> {
    let mut once = Vec::new();
    for item in items {
        if !once.contains(&item) {
            // There is room for as many items as a peer has addresses.
            let _ = once.push(item);
        }
    }
    once
}

#[cfg(test)]
mod tests;
