//! The indexers that a node may try, and the choice of the next one.
//!
//! Invariants: an offer is not tried after its time to live; a candidate that pauses ([`Failures`])
//! is not tried; no host and port is tried under two ids at once; of several offers, the worst is
//! left out if not all fit, and a full table removes expired and pausing candidates before it
//! refuses new ones.

use core::time::Duration;

use heapless::Vec;

use super::{MAX_MIN_INDEXERS, failures::Failures};
use crate::protocol::{
    Addrs, Instant, Offer, PeerId, Rng, TableStats, address::TransportAddr, leases::Leases,
    order::sort,
};

/// Indexers that may be tried, at most.
pub(super) const MAX_CANDIDATES: usize = 32;
/// The longest time to live of an offer that counts: that of a record (PROTOCOL.md).
const LONGEST_TTL: Duration = Duration::from_secs(3600);
/// Free leases that count at most when a candidate is chosen, so that an indexer that overstates
/// its room is not chosen before all others.
const MOST_FREE: u32 = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    peer: PeerId,
    addrs: Addrs,
    free: Option<u32>,
    /// The end of the offer's time to live. The offer is still valid at this time.
    until: Instant,
    /// How often natives have named it in an answer.
    named: u8,
}

/// The candidates.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Candidates {
    all: Vec<Candidate, MAX_CANDIDATES>,
    refused: u64,
    evicted: u64,
}

/// Where an offer is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OfferSource {
    /// The answer of a native.
    Native,
    /// An ack, or an earlier run of this node.
    Other,
}

/// How the next candidate is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Weighted by free leases.
    ByRoom,
    /// Those that natives named most often first, because the reported room has not helped, and
    /// natives always name indexers that proved themselves.
    ByNatives,
}

impl Candidates {
    pub(super) const fn new() -> Self {
        Self {
            all: Vec::new(),
            refused: 0,
            evicted: 0,
        }
    }

    /// Adds an offer.
    pub(super) fn propose(
        &mut self,
        now: Instant,
        offer: &Offer,
        source: OfferSource,
        failures: &Failures,
    ) {
        let mut candidate = Candidate {
            peer: offer.peer,
            addrs: offer.addrs.clone(),
            free: offer.free,
            until: now + offer.ttl.min(LONGEST_TTL),
            named: u8::from(source == OfferSource::Native),
        };
        if let Some(known) = self.all.iter_mut().find(|known| known.peer == offer.peer) {
            candidate.named = candidate.named.saturating_add(known.named);
            *known = candidate;
            return;
        }
        if self.all.is_full() {
            self.make_room(now, failures);
        }
        if self.all.push(candidate).is_err() {
            self.refused += 1;
        }
    }

    /// The next candidate, with its addresses that do not pause. Those that never failed come
    /// before the others. The choice depends only on the node (`own`) and the candidates.
    pub(super) fn choose(
        &self,
        now: Instant,
        own: &PeerId,
        choice: Choice,
        failures: &Failures,
        leases: &Leases,
    ) -> Option<(PeerId, Addrs)> {
        let ready = |candidate: &&Candidate| is_ready(now, candidate, failures, leases);
        let mut ready: Vec<&Candidate, MAX_CANDIDATES> = self.all.iter().filter(ready).collect();
        let fewest = ready.iter().map(|known| failures.of(&known.peer)).min()?;
        ready.retain(|candidate| failures.of(&candidate.peer) == fewest);
        let chosen = match choice {
            Choice::ByRoom => by_room(&mut ready, own),
            Choice::ByNatives => {
                let lot = Rng::for_peer(own).bits();
                let lot = |peer: &PeerId| Rng::new(lot ^ Rng::for_peer(peer).bits()).bits();
                let ready = ready.iter().copied();
                ready.max_by_key(|candidate| (candidate.named, lot(&candidate.peer)))
            }
        };
        chosen.map(|known| (known.peer, failures.rested(now, &known.addrs)))
    }

    /// How many can be tried now.
    pub(super) fn ready(&self, now: Instant, failures: &Failures, leases: &Leases) -> usize {
        let all = self.all.iter();
        all.filter(|candidate| is_ready(now, candidate, failures, leases))
            .count()
    }

    /// Whether this peer is one with time to live left.
    pub(super) fn offers(&self, now: Instant, peer: &PeerId) -> bool {
        let mut all = self.all.iter();
        all.any(|candidate| candidate.peer == *peer && now <= candidate.until)
    }

    /// Whether there is one with time to live left, even if it pauses.
    pub(super) fn any(&self, now: Instant) -> bool {
        self.all.iter().any(|candidate| now <= candidate.until)
    }

    /// Whether there are candidates and all of them answered `refused`. They work well and have a
    /// reason against us, for instance another device with our identity. This is not reported as a
    /// failure, and the node need not be taken in elsewhere. It counts for at most as many peers as
    /// a device with our identity can hold leases with.
    pub(super) fn are_all_refused(&self, now: Instant, failures: &Failures) -> bool {
        let mut live = self.all.iter().filter(|candidate| now <= candidate.until);
        (1..=MAX_MIN_INDEXERS).contains(&failures.refusals(now))
            && self.any(now)
            && live.all(|candidate| failures.is_refused(now, &candidate.peer))
    }

    /// When the first candidate can be tried that is not being tried already and does not expire
    /// before; `now` if one can be tried now.
    pub(super) fn ready_at(
        &self,
        now: Instant,
        failures: &Failures,
        leases: &Leases,
    ) -> Option<Instant> {
        let in_question =
            |candidate: &&Candidate| now <= candidate.until && is_free(candidate, leases);
        let ready = |candidate: &Candidate| {
            let at = failures.ready_at(&candidate.peer, &candidate.addrs);
            (at.max(now) <= candidate.until).then_some(at.max(now))
        };
        self.all.iter().filter(in_question).filter_map(ready).min()
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self) -> TableStats {
        TableStats {
            name: "candidates",
            used: self.all.len(),
            capacity: MAX_CANDIDATES,
            refused: self.refused,
            evicted: self.evicted,
        }
    }

    /// Removes the expired candidates, or else one that pauses.
    fn make_room(&mut self, now: Instant, failures: &Failures) {
        let before = self.all.len();
        self.all.retain(|candidate| now <= candidate.until);
        if self.all.is_full() {
            let rests =
                |candidate: &Candidate| failures.ready_at(&candidate.peer, &candidate.addrs);
            let all = self.all.iter().enumerate();
            let longest = all.max_by_key(|(_, candidate)| rests(candidate));
            if let Some((at, _)) = longest.filter(|(_, candidate)| rests(candidate) > now) {
                self.all.swap_remove(at);
            }
        }
        self.evicted += (before - self.all.len()) as u64;
    }
}

/// Chooses at random, weighted by free leases.
fn by_room<'a>(ready: &mut [&'a Candidate], own: &PeerId) -> Option<&'a Candidate> {
    let weight = |candidate: &Candidate| u64::from(candidate.free.unwrap_or(1).min(MOST_FREE));
    sort(ready, |one, other| one.peer < other.peer);
    let total = ready.iter().map(|candidate| weight(candidate)).sum();
    let mut at = Rng::for_peer(own).below(total);
    let chosen = ready.iter().find(|candidate| {
        let here = at < weight(candidate);
        at = at.saturating_sub(weight(candidate));
        here
    });
    chosen.or(ready.first()).copied()
}

fn is_ready(now: Instant, candidate: &Candidate, failures: &Failures, leases: &Leases) -> bool {
    // The failures are checked last, because this takes longest.
    now <= candidate.until
        && is_free(candidate, leases)
        && failures.is_ready(now, &candidate.peer, &candidate.addrs)
}

/// Whether no lease is held with the candidate, and none is being sought at an address of it.
fn is_free(candidate: &Candidate, leases: &Leases) -> bool {
    let is_there = |addrs: &Addrs| {
        addrs.iter().any(|addr| {
            let at = TransportAddr::of(addr);
            let mut own = candidate.addrs.iter();
            own.any(|own| TransportAddr::of(own) == at)
        })
    };
    leases.find(&candidate.peer).is_none()
        && !leases
            .iter()
            .any(|lease| lease.is_attempt() && is_there(lease.addrs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(n: u8, free: Option<u32>) -> Candidate {
        Candidate {
            peer: PeerId::from_bytes([n; 32]),
            addrs: Addrs::new(),
            free,
            until: Instant::default(),
            named: 0,
        }
    }

    /// Which of two candidates each of many nodes chooses, if the second has this many free leases.
    fn choices(free: Option<u32>) -> std::vec::Vec<u8> {
        let two = [candidate(1, Some(MOST_FREE)), candidate(2, free)];
        let chosen = |own: u16| {
            let [high, low] = own.to_be_bytes();
            let own = PeerId::from_bytes(core::array::from_fn(|at| [high, low][at % 2]));
            let mut ready = [&two[0], &two[1]];
            by_room(&mut ready, &own).unwrap().peer.as_bytes()[0]
        };
        (0..20_000).map(chosen).collect()
    }

    #[test]
    fn room_counts_up_to_1024_free_leases_and_more_is_not_believed() {
        assert_eq!(MOST_FREE, 1024);
        let most = choices(Some(MOST_FREE));
        let second = most.iter().filter(|chosen| **chosen == 2).count();
        assert!((9_500..10_500).contains(&second), "{second}");
        assert_ne!(choices(Some(MOST_FREE - 1)), most);
        for boasts in [MOST_FREE + 1, 65_535, u32::MAX] {
            assert_eq!(choices(Some(boasts)), most, "{boasts}");
        }
        // An unknown number of free leases counts as one.
        assert_eq!(choices(None), choices(Some(1)));
        assert_ne!(choices(Some(2)), choices(Some(1)));
    }
}
