//! `known_peer_ids`: every indexer this native has heard of, by its own beat or from another native; what the refresh
//! loop goes through.
//!
//! A full table lets the least recently heard go, and an id from hearsay never displaces one that was heard by beat.
//! Searches that keep failing are made less often: every run, every 2nd, 4th, at most every 8th.
//! An indexer that gave its lease up is forgotten, and hearsay does not bring it back while a copy of its record may
//! still be in the DHT.

use core::time::Duration;

use heapless::Deque;

use crate::protocol::{
    Instant, PeerId,
    table::{Keyed, Table, TableStats},
};

/// How many departures are remembered.
const MAX_DEPARTED: usize = 64;
/// Runs between two searches at most: 2 to the power of this.
const MAX_BACKOFF_SHIFT: u8 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    peer: PeerId,
    last_heard: Instant,
    by_beat: bool,
    failures: u8,
    skip: u8,
}

impl Keyed for Known {
    fn peer(&self) -> &PeerId {
        &self.peer
    }
}

/// At most `K` ids of indexers.
#[derive(Clone, Debug, Default)]
pub struct KnownPeerIds<const K: usize> {
    ids: Table<Known, K>,
    departed: Deque<(PeerId, Instant), MAX_DEPARTED>,
}

impl<const K: usize> KnownPeerIds<K> {
    /// No indexer was ever heard of.
    pub const fn new() -> Self {
        Self {
            ids: Table::new(),
            departed: Deque::new(),
        }
    }

    /// The indexer itself beat.
    pub fn heard_by_beat(&mut self, now: Instant, peer: &PeerId) {
        self.departed.retain(|(gone, _)| gone != peer);
        self.hear(now, peer, true);
    }

    /// Another native, or an earlier run of this one, knows the indexer.
    pub fn heard_of(&mut self, now: Instant, peer: &PeerId) {
        self.departed.retain(|(_, until)| now <= *until);
        if !self.departed.iter().any(|(gone, _)| gone == peer) {
            self.hear(now, peer, false);
        }
    }

    /// The indexer gave its lease up; copies of its record may be in the DHT for `copies`.
    pub fn forget(&mut self, now: Instant, peer: &PeerId, copies: Duration) {
        self.ids.remove(peer);
        if self.departed.is_full() {
            self.departed.pop_front();
        }
        // There is room now.
        let _ = self.departed.push_back((*peer, now + copies));
    }

    /// Whether the id is known.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.ids.contains(peer)
    }

    /// Whether this run is to search for the id, whose last searches may have failed; counts the run.
    pub fn take_turn(&mut self, peer: &PeerId) -> bool {
        match self.ids.find_mut(peer) {
            Some(known) if known.skip > 0 => {
                known.skip -= 1;
                false
            }
            known => known.is_some(),
        }
    }

    /// A search for the id found something valid, or nothing.
    pub fn searched(&mut self, peer: &PeerId, found: bool) {
        if let Some(known) = self.ids.find_mut(peer) {
            known.failures = if found {
                0
            } else {
                known.failures.saturating_add(1)
            };
            known.skip = (1 << known.failures.saturating_sub(1).min(MAX_BACKOFF_SHIFT)) - 1;
        }
    }

    /// All known ids.
    pub fn iter(&self) -> impl Iterator<Item = &PeerId> {
        self.ids.iter().map(|known| &known.peer)
    }

    /// Ids in their order, beginning after `after`, once round.
    pub fn iter_after(&self, after: &PeerId) -> impl Iterator<Item = &PeerId> {
        self.ids.iter_after(after, K).map(|known| &known.peer)
    }

    /// What the operator sees.
    pub fn stats(&self) -> TableStats {
        self.ids.stats("known_peer_ids")
    }

    fn hear(&mut self, now: Instant, peer: &PeerId, by_beat: bool) {
        if let Some(known) = self.ids.find_mut(peer) {
            known.last_heard = now;
            known.by_beat |= by_beat;
            known.failures = 0;
            known.skip = 0;
            return;
        }
        if self.ids.is_full() {
            self.displace(by_beat);
        }
        // A table full of ids heard by beat refuses hearsay, and counts it.
        let _ = self.ids.insert(Known {
            peer: *peer,
            last_heard: now,
            by_beat,
            failures: 0,
            skip: 0,
        });
    }

    fn displace(&mut self, for_beat: bool) {
        let least_recent = self
            .ids
            .iter()
            .filter(|known| for_beat || !known.by_beat)
            .min_by_key(|known| known.last_heard)
            .map(|known| known.peer);
        if let Some(peer) = least_recent {
            self.ids.remove(&peer);
        }
    }
}

impl<const K: usize> PartialEq for KnownPeerIds<K> {
    fn eq(&self, other: &Self) -> bool {
        self.ids == other.ids && self.departed.iter().eq(other.departed.iter())
    }
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

    #[test]
    fn a_full_table_lets_the_least_recently_heard_go() {
        let mut known = KnownPeerIds::<2>::new();
        known.heard_by_beat(at(1), &peer(1));
        known.heard_of(at(2), &peer(2));
        known.heard_by_beat(at(3), &peer(1));
        known.heard_by_beat(at(4), &peer(3));
        assert!(!known.contains(&peer(2)));
        assert!(known.contains(&peer(1)) && known.contains(&peer(3)));
    }

    #[test]
    fn hearsay_never_displaces_an_id_heard_by_beat() {
        let mut known = KnownPeerIds::<2>::new();
        known.heard_by_beat(at(1), &peer(1));
        known.heard_of(at(2), &peer(2));
        known.heard_of(at(3), &peer(3));
        assert!(known.contains(&peer(1)) && known.contains(&peer(3)));
        known.heard_by_beat(at(4), &peer(3));
        known.heard_of(at(5), &peer(4));
        assert!(!known.contains(&peer(4)));
        assert_eq!(known.stats().refused, 1);
    }

    #[test]
    fn failing_searches_back_off_to_every_eighth_run() {
        let mut known = KnownPeerIds::<2>::new();
        known.heard_of(at(0), &peer(1));
        let mut gaps = std::vec::Vec::new();
        let mut gap = 0;
        for _ in 0..40 {
            gap += 1;
            if known.take_turn(&peer(1)) {
                known.searched(&peer(1), false);
                gaps.push(gap);
                gap = 0;
            }
        }
        assert_eq!(gaps, [1, 1, 2, 4, 8, 8, 8, 8]);
    }

    #[test]
    fn a_beat_or_another_natives_word_resets_the_backoff() {
        let mut known = KnownPeerIds::<2>::new();
        known.heard_of(at(0), &peer(1));
        for hear in [KnownPeerIds::heard_by_beat, KnownPeerIds::heard_of] {
            for _ in 0..5 {
                known.searched(&peer(1), false);
            }
            assert!(!known.take_turn(&peer(1)));
            hear(&mut known, at(1), &peer(1));
            assert!(known.take_turn(&peer(1)));
        }
    }

    #[test]
    fn hearsay_does_not_bring_back_who_gave_its_lease_up() {
        let mut known = KnownPeerIds::<2>::new();
        known.heard_by_beat(at(0), &peer(1));
        known.forget(at(0), &peer(1), Duration::from_secs(270));
        known.heard_of(at(270_000), &peer(1));
        assert!(!known.contains(&peer(1)));
        known.heard_of(at(270_001), &peer(1));
        assert!(
            known.contains(&peer(1)),
            "no copy is left that could mislead"
        );
        known.forget(at(300_000), &peer(1), Duration::from_secs(270));
        known.heard_by_beat(at(300_001), &peer(1));
        known.heard_of(at(300_002), &peer(1));
        assert!(known.contains(&peer(1)), "it is back itself");
    }
}
