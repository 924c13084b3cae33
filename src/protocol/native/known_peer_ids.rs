//! `known_peer_ids`: every indexer that this native knows of, by the indexer's own beat or from
//! another native. The refresh loop searches for these.
//!
//! Invariants:
//! - A report about another peer ranks below that peer's own beat, and a report of a guest ranks
//!   below one of a fellow native. An id has the rank of its best source, and no report displaces
//!   an id of a higher rank.
//! - A full table first evicts ids that guests reported, then the least recently heard ones. At
//!   most [`MAX_OF_GUEST`] ids of one guest are kept.
//! - An id without news for [`SILENCE_MAX`] is removed.
//! - After each failed search the next one comes later: at random within 1, 2, 4, and at most 8
//!   runs, so that ids which were learned together spread out.
//! - An indexer that gave its lease up is removed, and no report of another peer adds it again
//!   while a copy of its record may still be in the DHT.

use core::time::Duration;

use heapless::Deque;

use crate::protocol::{
    Instant, PeerId, Rng,
    table::{Keyed, Table, TableStats},
};

/// Departed indexers remembered at most.
const MAX_DEPARTED: usize = 64;
/// At most 2 to the power of this many runs between two searches.
const MAX_BACKOFF_SHIFT: u8 = 3;
/// Ids kept of those that one guest reported (PROTOCOL.md).
pub(super) const MAX_OF_GUEST: usize = 32;
/// How long an id is kept without news of it (ARCHITECTURE.md, "Refresh"): 1 h.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(60 * 60);

/// The source of an id, the lowest rank first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ReportedBy {
    /// A guest reported it. The number stands for that guest.
    Guest(u32),
    /// A fellow native reported it, or an earlier run of this native knew it.
    Fellow,
    /// The indexer beat, or its record was found.
    Own,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    peer: PeerId,
    last_heard: Instant,
    source: ReportedBy,
    failures: u8,
    skip: u8,
    /// When its last search ended; zero if it was never searched for.
    searched: Instant,
}

impl Keyed for Known {
    fn peer(&self) -> &PeerId {
        &self.peer
    }
}

/// The known ids of indexers, at most `K`.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownPeerIds<const K: usize> {
    ids: Table<Known, K>,
    departed: Deque<(PeerId, Instant), MAX_DEPARTED>,
    departures_lost: u64,
}

/// How a search in the DHT has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SearchEnd {
    /// With a valid record.
    Found,
    /// Without.
    Failed,
}

impl<const K: usize> KnownPeerIds<K> {
    /// No indexer is known.
    pub(super) const fn new() -> Self {
        Self {
            ids: Table::new(),
            departed: Deque::new(),
            departures_lost: 0,
        }
    }

    /// Takes note of a beat of the indexer itself.
    pub(super) fn heard_by_beat(&mut self, now: Instant, peer: &PeerId) {
        self.departed.retain(|(gone, _)| gone != peer);
        self.hear(now, peer, ReportedBy::Own);
    }

    /// Takes note that a fellow native, or an earlier run of this native, knows the indexer.
    pub(super) fn heard_of(&mut self, now: Instant, peer: &PeerId) {
        if !self.has_departed(now, peer) {
            self.hear(now, peer, ReportedBy::Fellow);
        }
    }

    /// Takes note that a guest reports the indexer. This resets no backoff, and confirms only ids
    /// that guests reported.
    pub(super) fn heard_of_by_guest(&mut self, now: Instant, guest: &PeerId, peer: &PeerId) {
        if self.has_departed(now, peer) {
            return;
        }
        let source = ReportedBy::Guest(Rng::for_peer(guest).bits() as u32);
        if !self.contains(peer) && self.of_source(source).count() >= MAX_OF_GUEST {
            let oldest = self.of_source(source).min_by_key(|known| known.last_heard);
            if let Some(oldest) = oldest.map(|known| known.peer) {
                self.ids.evict(&oldest);
            }
        }
        self.hear(now, peer, source);
    }

    /// Removes an indexer that gave its lease up, or is no longer an indexer. Copies of its record
    /// may be in the DHT for `copies`.
    pub(super) fn forget(&mut self, now: Instant, peer: &PeerId, copies: Duration) {
        self.ids.remove(peer);
        self.departed
            .retain(|(gone, until)| gone != peer && now <= *until);
        if self.departed.is_full() {
            self.departed.pop_front();
            self.departures_lost += 1;
        }
        // There is room after the removal.
        let _ = self.departed.push_back((*peer, now + copies));
    }

    /// Removes the ids without news for an hour.
    pub(super) fn drop_silent(&mut self, now: Instant) {
        self.ids
            .retain(|known| now - known.last_heard < SILENCE_MAX);
    }

    /// Whether the id is known.
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.ids.contains(peer)
    }

    /// Calls `due` for the ids that this run may search for, with the time of the last search of
    /// each (zero: never), and returns its results. Ids with failed searches may be left out; the
    /// run is counted for these.
    pub(super) fn take_turns<T>(
        &mut self,
        mut due: impl FnMut(&PeerId, Instant) -> Option<T>,
    ) -> impl Iterator<Item = T> {
        self.ids.iter_mut().filter_map(move |known| {
            let due = due(&known.peer, known.searched)?;
            let rests = known.skip > 0;
            known.skip = known.skip.saturating_sub(1);
            (!rests).then_some(due)
        })
    }

    /// Takes note that a search for the id has ended.
    pub(super) fn searched(&mut self, now: Instant, peer: &PeerId, end: SearchEnd, rng: &mut Rng) {
        let Some(known) = self.ids.find_mut(peer) else {
            return;
        };
        known.searched = now;
        known.skip = 0;
        if end == SearchEnd::Found {
            known.last_heard = now;
            known.failures = 0;
        } else {
            known.failures = known.failures.saturating_add(1);
            let runs = 1 << known.failures.saturating_sub(1).min(MAX_BACKOFF_SHIFT);
            known.skip = rng.below(runs) as u8;
        }
    }

    /// All known ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = &PeerId> {
        self.ids.iter().map(|known| &known.peer)
    }

    /// The ids in their order, beginning after `after` and wrapping around once.
    pub(super) fn iter_after(&self, after: &PeerId) -> impl Iterator<Item = &PeerId> {
        self.ids.iter_after(after, K).map(|known| &known.peer)
    }

    /// The statistics of the ids for `status`.
    pub(super) fn stats(&self) -> TableStats {
        self.ids.stats("known_peer_ids")
    }

    /// The statistics of the departed indexers for `status`. When the list is full, the oldest is
    /// removed.
    pub(super) fn departed_stats(&self) -> TableStats {
        TableStats {
            name: "departed",
            used: self.departed.len(),
            capacity: MAX_DEPARTED,
            refused: 0,
            evicted: self.departures_lost,
        }
    }

    fn has_departed(&self, now: Instant, peer: &PeerId) -> bool {
        self.departed
            .iter()
            .any(|(gone, until)| gone == peer && now <= *until)
    }

    fn of_source(&self, source: ReportedBy) -> impl Iterator<Item = &Known> {
        self.ids.iter().filter(move |known| known.source == source)
    }

    fn hear(&mut self, now: Instant, peer: &PeerId, source: ReportedBy) {
        let by_guest = matches!(source, ReportedBy::Guest(_));
        if let Some(known) = self.ids.find_mut(peer) {
            if by_guest && !matches!(known.source, ReportedBy::Guest(_)) {
                return;
            }
            known.last_heard = now;
            known.source = known.source.max(source);
            if !by_guest {
                known.failures = 0;
                known.skip = 0;
            }
            return;
        }
        if self.ids.is_full() {
            self.displace(source);
        }
        // A table full of ids of higher rank refuses the id, and counts the refusal.
        let _ = self.ids.insert(Known {
            peer: *peer,
            last_heard: now,
            source,
            failures: 0,
            skip: 0,
            searched: Instant::default(),
        });
    }

    fn displace(&mut self, source: ReportedBy) {
        let rank = |source| match source {
            ReportedBy::Guest(_) => 0,
            ReportedBy::Fellow => 1,
            ReportedBy::Own => 2,
        };
        let first_to_go = self
            .ids
            .iter()
            .filter(|known| rank(known.source) <= rank(source))
            .min_by_key(|known| (rank(known.source) > 0, known.last_heard))
            .map(|known| known.peer);
        if let Some(peer) = first_to_go {
            self.ids.evict(&peer);
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

    /// Whether this run searches for any id.
    fn takes_turn(known: &mut KnownPeerIds<2>) -> bool {
        known.take_turns(|_, _| Some(())).count() > 0
    }

    /// Runs from one failed search to the next, for each of the first `searches`.
    fn gaps(seed: u64, searches: usize) -> std::vec::Vec<u32> {
        let mut known = KnownPeerIds::<2>::new();
        known.heard_of(at(0), &peer(1));
        let mut rng = Rng::new(seed);
        let (mut gaps, mut gap) = (std::vec::Vec::new(), 0);
        while gaps.len() < searches {
            gap += 1;
            if takes_turn(&mut known) {
                known.searched(at(0), &peer(1), SearchEnd::Failed, &mut rng);
                gaps.push(gap);
                gap = 0;
            }
        }
        gaps
    }

    #[test]
    fn failing_searches_back_off_at_random_within_1_2_4_and_at_most_8_runs() {
        let mut longest = [0; 8];
        for seed in 0..200 {
            for (longest, gap) in longest.iter_mut().zip(gaps(seed, 8)) {
                *longest = gap.max(*longest);
            }
        }
        assert_eq!(longest, [1, 1, 2, 4, 8, 8, 8, 8]);
        let fifth: std::collections::BTreeSet<_> = (0..200).map(|seed| gaps(seed, 5)[4]).collect();
        assert_eq!(fifth, (1..=8).collect(), "at random within that");
    }

    /// An id with so many failed searches that the next run skips it.
    fn backed_off() -> (KnownPeerIds<2>, Rng) {
        let (mut known, mut rng) = (KnownPeerIds::<2>::new(), Rng::new(3));
        known.heard_of(at(0), &peer(1));
        while takes_turn(&mut known) {
            known.searched(at(0), &peer(1), SearchEnd::Failed, &mut rng);
        }
        (known, rng)
    }

    #[test]
    fn a_beat_a_found_record_or_a_fellow_natives_word_resets_the_backoff_and_a_guests_does_not() {
        for hear in [KnownPeerIds::heard_by_beat, KnownPeerIds::heard_of] {
            let (mut known, _) = backed_off();
            hear(&mut known, at(1), &peer(1));
            assert!(takes_turn(&mut known));
        }
        let (mut known, mut rng) = backed_off();
        known.searched(at(1), &peer(1), SearchEnd::Found, &mut rng);
        assert!(takes_turn(&mut known));
        let before = backed_off().0;
        let mut known = before.clone();
        known.heard_of_by_guest(at(1), &peer(9), &peer(1));
        assert_eq!(known, before);
    }

    #[test]
    fn an_id_of_which_nothing_was_heard_for_an_hour_is_dropped() {
        let hear: [fn(&mut KnownPeerIds<2>); 5] = [
            |known| known.heard_by_beat(at(5), &peer(1)),
            |known| known.heard_of(at(5), &peer(1)),
            |known| known.heard_of_by_guest(at(5), &peer(9), &peer(1)),
            |known| {
                known.heard_of(at(0), &peer(1));
                known.searched(at(5), &peer(1), SearchEnd::Found, &mut Rng::new(1));
            },
            |known| {
                known.heard_of(at(5), &peer(1));
                known.searched(at(2_000_000), &peer(1), SearchEnd::Failed, &mut Rng::new(1));
            },
        ];
        for hear in hear {
            let mut known = KnownPeerIds::<2>::new();
            hear(&mut known);
            known.drop_silent(at(3_600_004));
            assert!(known.contains(&peer(1)));
            known.drop_silent(at(3_600_005));
            assert!(!known.contains(&peer(1)));
        }
    }

    #[test]
    fn of_one_guest_32_ids_are_kept_and_the_oldest_goes() {
        let mut known = KnownPeerIds::<80>::new();
        for n in 0..33 {
            known.heard_of_by_guest(at(u64::from(n)), &peer(200), &peer(n));
        }
        assert_eq!((known.stats().used, known.stats().evicted), (32, 1));
        assert!(!known.contains(&peer(0)) && known.contains(&peer(1)));
        known.heard_of_by_guest(at(99), &peer(200), &peer(32));
        assert_eq!(known.stats().evicted, 1, "it is there already");
        known.heard_of_by_guest(at(99), &peer(201), &peer(0));
        assert_eq!(
            (known.stats().used, known.stats().evicted),
            (33, 1),
            "of another"
        );
    }

    #[test]
    fn what_a_guest_said_goes_first_and_displaces_nothing_else() {
        let mut known = KnownPeerIds::<2>::new();
        known.heard_by_beat(at(1), &peer(1));
        known.heard_of_by_guest(at(9), &peer(200), &peer(2));
        known.heard_of(at(10), &peer(3));
        assert!(known.contains(&peer(1)) && known.contains(&peer(3)));
        known.heard_of_by_guest(at(11), &peer(200), &peer(4));
        assert!(!known.contains(&peer(4)));
        assert_eq!((known.stats().refused, known.stats().evicted), (1, 1));
        known.heard_of(at(12), &peer(3));
        let mut raised = KnownPeerIds::<1>::new();
        raised.heard_of_by_guest(at(1), &peer(200), &peer(1));
        raised.heard_of(at(2), &peer(1));
        raised.heard_of_by_guest(at(3), &peer(200), &peer(2));
        assert!(raised.contains(&peer(1)), "a fellow confirmed it");
    }

    #[test]
    fn departures_that_no_longer_matter_make_room_and_others_are_counted_when_they_go() {
        let mut known = KnownPeerIds::<2>::new();
        for n in 0..MAX_DEPARTED as u8 {
            known.forget(at(0), &peer(n), Duration::from_secs(1));
        }
        known.forget(at(1_000), &peer(200), Duration::from_secs(1));
        assert_eq!(known.departed_stats().evicted, 1);
        known.forget(at(1_001), &peer(201), Duration::from_secs(1));
        let stats = known.departed_stats();
        assert_eq!((stats.used, stats.evicted), (2, 1), "their time is over");
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
