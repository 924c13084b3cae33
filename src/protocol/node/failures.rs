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
//! quiet for ten minutes, because an attacker can name any number of others ([`memory`]). So what
//! one node does to one host and port, however many ids are said to be there and however many other
//! addresses fail meanwhile, is at most 5 tries in the first 20 s, 7 in the first minute, and one
//! every 256 s for long; to one prefix, 16 tries and then one a second.
//!
//! A try counts for all addresses that may be dialled for it, whether a lease comes of it or not: a
//! server that answers may have named another host beside its own. That holds when a lease is
//! opened anew, too ([`Failures::reopen`]): a server could grant one and hang up over and over.
//! Only the address that carried the lease last is dialled at the lease's own pace, and cleared by
//! it. A name is not, whatever it carried: its owner decides each time where it leads.
//!
//! Invariants: a failure of a peer id is never forgotten before its first 10 s are over, unless
//! [`MAX_PEERS`] others are younger; only a lease that was renewed clears a failure, and never that
//! of an address that did not carry it, nor that of a prefix; a place that was reserved for this
//! node shortens the pause of an id to 10 s, never to less.

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
/// Peers that said `refused` and are remembered at most: one more than can be right, if the reason
/// is that another device has our identity.
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
    /// Peers that said `refused`, and until when each rests for it.
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

    /// A stream of a lease is opened anew; returns those of the addresses that may be dialled.
    /// Where the lease was `carried` last is one of them, and does not count; anywhere else it is a
    /// try as any other.
    pub(super) fn reopen(
        &mut self,
        now: Instant,
        addrs: &Addrs,
        carried: Option<Endpoint>,
        rng: &mut Rng,
    ) -> Addrs {
        let carrier = carried.filter(is_address);
        let carries = |addr: &Addr| carrier == Some(Endpoint::of(addr));
        let mut others = self.rested(now, addrs);
        others.retain(|addr| !carries(addr));
        self.begin(now, &others, rng);
        let may = |addr: &&Addr| carries(addr) || others.contains(addr);
        addrs.iter().filter(may).cloned().collect()
    }

    /// A try of the peer came to nothing.
    pub(super) fn note(&mut self, now: Instant, peer: &PeerId, rng: &mut Rng) {
        self.forget_refusal(peer);
        self.peers.forget_for(peer.into());
        let rest = |count| pause(PEER, count, rng);
        self.peers.count(now, peer.into(), rest);
    }

    /// The peer said `refused`: it rests until then, whatever else happens. That is no failure,
    /// until the next try comes to nothing in another way.
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

    /// A lease with the peer was renewed, over a connection to where it is `carried`.
    pub(super) fn forget(&mut self, peer: &PeerId, carried: Option<Endpoint>) {
        self.peers.remove(peer.into());
        self.forget_refusal(peer);
        if let Some(carrier) = carried.filter(is_address) {
            self.endpoints.remove(carrier.into());
        }
    }

    /// A server keeps a place at the peer for us: it counts as if it had failed once.
    pub(super) fn forgive(&mut self, peer: &PeerId) {
        if let Some(failure) = self.peers.find(peer.into()) {
            failure.count = 1;
            failure.until = failure.until.min(failure.last + PEER.0);
        }
    }

    /// Forgets everything but the refusals.
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

    /// Whether that is so at `now`: most that rest do so by their id, and their addresses need no
    /// look.
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

/// Whether it leads to the same host each time.
fn is_address(endpoint: &Endpoint) -> bool {
    matches!(endpoint.host, Host::V4(_) | Host::V6(_))
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
mod tests;
