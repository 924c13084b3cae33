//! The standing of indexers with nodes, so that an indexer which does not keep its promises is
//! handed out after those that do.
//!
//! A native cannot see the leases that indexers grant. It can see these things:
//!
//! - a node that it sent to one indexer gives its lease here up, so that indexer has accepted it
//!   (make before break) and has *proved* itself;
//! - a node that was offered indexers reports that every offer failed, so all of them failed at it.
//!   If it had been sent to one and had left for it, that one did not keep it;
//! - how long the indexer has been here without a gap.
//!
//! Invariants: failures count until ten minutes after the last one, and a proof removes half of
//! them; no number of failures removes an indexer: it is only handed out after others. While
//! failures count, a quarter of an answer's places is reserved for indexers that proved themselves
//! and for the oldest, whatever was reported about them, so that neither many new lying indexers
//! nor lying nodes can exclude them; while no failure counts, nothing is reserved, so that the
//! oldest get no more nodes than others. The report of a node counts only for indexers that it was
//! offered here within the last minute (5 min for one that it was sent to), and only once for each
//! indexer while it counts, however often it is repeated (unless `MAX_BLAMING` other nodes have
//! reported the indexer since, or the indexer has accepted that node meanwhile). A report under an
//! identity that two devices use does not count.

use core::{cmp::Reverse, time::Duration};

use heapless::Vec;

use crate::protocol::{Instant, MAX_LIST, PeerId};

/// One place of an answer in this many is reserved for indexers that proved themselves and for the
/// oldest.
pub(super) const KEPT_SHARE: usize = 4;
/// How long failures count after the last one.
const FAILURE_TTL: Duration = Duration::from_secs(10 * 60);
/// How long a node's report about an offered indexer counts.
const TOLD_TTL: Duration = Duration::from_secs(60);
/// The same for the indexer that it was sent to.
const SENT_TTL: Duration = Duration::from_secs(5 * 60);
/// Nodes with offers that are remembered. For a further node, the one with the least recent offers
/// is removed.
const MAX_OFFERED: usize = 256;

/// Nodes with reports about one indexer that are remembered: the last ones.
const MAX_BLAMING: usize = 8;

/// Those that proved themselves are greater, then the oldest. The greatest comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seniority {
    has_proved: bool,
    since: Reverse<Instant>,
}

/// The standing of one indexer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    since: Instant,
    failures: u8,
    last_failure: Instant,
    proofs: u8,
    /// The nodes that it failed at recently, in the order of their reports.
    blaming: Vec<Tag, MAX_BLAMING, u8>,
}

impl Standing {
    /// The standing of an indexer that came at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            failures: 0,
            last_failure: Instant::default(),
            proofs: 0,
            blaming: Vec::new(),
        }
    }

    /// How many nodes it failed at recently.
    pub(super) fn failures(&self, now: Instant) -> u8 {
        if now - self.last_failure < FAILURE_TTL {
            self.failures
        } else {
            0
        }
    }

    /// Its place in the order in which indexers get reserved places.
    pub(super) fn seniority(&self) -> Seniority {
        Seniority {
            has_proved: self.has_proved(),
            since: Reverse(self.since),
        }
    }

    /// Whether it accepted a node that was sent to it.
    pub(super) fn has_proved(&self) -> bool {
        self.proofs > 0
    }

    /// Counts a failure at this node.
    pub(super) fn failed(&mut self, now: Instant, node: Tag) {
        if self.failures(now) == 0 {
            self.failures = 0;
            self.blaming.clear();
        }
        if self.blaming.contains(&node) {
            return;
        }
        if self.blaming.is_full() {
            self.blaming.remove(0);
        }
        // There is room now.
        let _ = self.blaming.push(node);
        self.failures = self.failures.saturating_add(1);
        self.last_failure = now;
    }

    /// Takes note that it accepted this node.
    pub(super) fn proved(&mut self, node: Tag) {
        self.proofs = self.proofs.saturating_add(1);
        self.failures /= 2;
        self.blaming.retain(|blaming| *blaming != node);
    }
}

/// A short hash of the id of an indexer or node. It is salted, so that no peer can choose an id
/// with the hash of another.
pub(super) type Tag = u32;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Offered {
    node: PeerId,
    until: Instant,
    sent: bool,
    tags: Vec<Tag, MAX_LIST, u8>,
}

/// The indexers that nodes were offered recently. The node with the least recent offers is first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OfferedIndexers {
    salt: u64,
    all: Vec<Offered, MAX_OFFERED>,
}

impl OfferedIndexers {
    /// No node was offered an indexer.
    pub(super) const fn new() -> Self {
        Self {
            salt: 0,
            all: Vec::new(),
        }
    }

    /// Sets the salt, which no indexer may know.
    pub(super) fn start(&mut self, salt: u64) {
        self.salt = salt;
    }

    /// The short hash of a peer's id.
    pub(super) fn tag(&self, peer: &PeerId) -> Tag {
        tag_of(self.salt, peer)
    }

    /// Remembers that the node was offered these indexers.
    pub(super) fn offered<'a>(
        &mut self,
        now: Instant,
        node: &PeerId,
        indexers: impl Iterator<Item = &'a PeerId>,
    ) {
        let (until, sent) = (now + TOLD_TTL, false);
        self.note(node, until, sent, indexers);
    }

    /// Remembers that the node was sent to this indexer.
    pub(super) fn sent(&mut self, now: Instant, node: &PeerId, indexer: &PeerId) {
        let (until, sent) = (now + SENT_TTL, true);
        self.note(node, until, sent, core::iter::once(indexer));
    }

    /// Returns a test for the indexer that the node was sent to recently. The entry stays.
    pub(super) fn where_sent(
        &self,
        now: Instant,
        node: &PeerId,
    ) -> Option<impl Fn(&PeerId) -> bool + use<>> {
        let offered = self.all.iter().find(|offered| offered.node == *node)?;
        let tag = *offered
            .tags
            .first()
            .filter(|_| offered.sent && now <= offered.until)?;
        let salt = self.salt;
        Some(move |indexer: &PeerId| tag_of(salt, indexer) == tag)
    }

    /// Returns a test for the indexers that the node was offered, because it reports that all of
    /// them failed. The report counts once, so the entry is removed.
    pub(super) fn all_failed(
        &mut self,
        now: Instant,
        node: &PeerId,
    ) -> Option<impl Fn(&PeerId) -> bool + use<>> {
        let at = self.all.iter().position(|offered| offered.node == *node)?;
        let offered = self.all.remove(at);
        let salt = self.salt;
        (now <= offered.until)
            .then_some(move |indexer: &PeerId| offered.tags.contains(&tag_of(salt, indexer)))
    }

    fn note<'a>(
        &mut self,
        node: &PeerId,
        until: Instant,
        sent: bool,
        indexers: impl Iterator<Item = &'a PeerId>,
    ) {
        if let Some(at) = self.all.iter().position(|offered| offered.node == *node) {
            self.all.remove(at);
        } else if self.all.is_full() {
            self.all.remove(0);
        }
        let tags = indexers.take(MAX_LIST);
        let tags: Vec<Tag, MAX_LIST, u8> = tags.map(|peer| tag_of(self.salt, peer)).collect();
        if !tags.is_empty() {
            // There is room now.
            let _ = self.all.push(Offered {
                node: *node,
                until,
                sent,
                tags,
            });
        }
    }
}

fn tag_of(salt: u64, peer: &PeerId) -> Tag {
    let mixed = peer.as_bytes().chunks(8).fold(salt, |mixed, chunk| {
        let word = chunk
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
        let mixed = (mixed ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    });
    (mixed >> 16) as Tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn peer(n: u16) -> PeerId {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        PeerId::from_bytes(key)
    }

    #[test]
    fn failures_count_for_ten_minutes_after_the_last_and_a_proof_takes_half_away() {
        let mut standing = Standing::new(at(0));
        for now in [0, 1, 2] {
            standing.failed(at(now), now as Tag);
        }
        assert_eq!(standing.failures(at(600_001)), 3);
        assert_eq!(standing.failures(at(600_002)), 0);
        standing.failed(at(600_001), 3);
        assert_eq!(standing.failures(at(600_001)), 4);
        standing.proved(9);
        assert_eq!(standing.failures(at(600_001)), 2);
        standing.failed(at(2_000_000), 4);
        assert_eq!(standing.failures(at(2_000_000)), 1, "the old ones are over");
    }

    #[test]
    fn what_one_node_says_counts_once_while_it_counts() {
        let mut standing = Standing::new(at(0));
        for now in [0, 1, 599_999] {
            standing.failed(at(now), 1);
            assert_eq!(standing.failures(at(now)), 1, "at {now}");
        }
        assert_eq!(standing.failures(at(600_000)), 0, "after the first word");
        standing.failed(at(600_000), 1);
        assert_eq!(standing.failures(at(600_000)), 1);
    }

    #[test]
    fn a_node_may_blame_again_what_has_accepted_it_meanwhile() {
        let mut standing = Standing::new(at(0));
        standing.failed(at(0), 1);
        standing.proved(1);
        assert_eq!(standing.failures(at(0)), 0);
        standing.failed(at(0), 1);
        assert_eq!(standing.failures(at(0)), 1);
    }

    #[test]
    fn a_word_counts_again_only_after_as_many_other_nodes_as_are_remembered() {
        for (others, counts) in [(MAX_BLAMING - 1, 0), (MAX_BLAMING, 1)] {
            let mut standing = Standing::new(at(0));
            standing.failed(at(0), 0);
            (1..=others as Tag).for_each(|node| standing.failed(at(0), node));
            standing.failed(at(0), 0);
            assert_eq!(usize::from(standing.failures(at(0))), 1 + others + counts);
        }
    }

    #[test]
    fn proved_goes_before_old_and_old_before_young() {
        let old = Standing::new(at(1));
        let young = Standing::new(at(2));
        let mut proved = Standing::new(at(3));
        proved.proved(1);
        assert!(old.seniority() > young.seniority());
        assert!(proved.seniority() > old.seniority());
    }

    #[test]
    fn a_node_may_blame_what_it_was_told_within_a_minute_and_once() {
        for (now, counts) in [(60_000, true), (60_001, false)] {
            let mut offers = OfferedIndexers::new();
            offers.offered(at(0), &peer(100), [peer(1), peer(2)].iter());
            let failed = offers.all_failed(at(now), &peer(100));
            let failed = failed.map(|failed| [1, 2, 3].map(|n| failed(&peer(n))));
            assert_eq!(failed, counts.then_some([true, true, false]), "at {now}");
            assert!(offers.all_failed(at(now), &peer(100)).is_none());
        }
        assert!(OfferedIndexers::new().all_failed(at(0), &peer(9)).is_none());
    }

    #[test]
    fn a_node_that_was_sent_may_blame_that_indexer_for_five_minutes() {
        let mut offers = OfferedIndexers::new();
        offers.sent(at(0), &peer(100), &peer(1));
        assert!(offers.where_sent(at(300_000), &peer(100)).unwrap()(&peer(
            1
        )));
        assert!(!offers.where_sent(at(300_000), &peer(100)).unwrap()(&peer(
            2
        )));
        assert!(offers.where_sent(at(300_001), &peer(100)).is_none());
        assert!(offers.all_failed(at(300_000), &peer(100)).unwrap()(&peer(
            1
        )));
        offers.offered(at(0), &peer(100), [peer(1)].iter());
        assert!(
            offers.where_sent(at(0), &peer(100)).is_none(),
            "told, not sent"
        );
    }

    #[test]
    fn the_node_told_least_recently_is_forgotten_first() {
        let mut offers = OfferedIndexers::new();
        for n in 0..MAX_OFFERED as u16 {
            offers.offered(at(0), &peer(n), [peer(1)].iter());
        }
        offers.offered(at(0), &peer(0), [peer(1)].iter());
        offers.offered(at(0), &peer(999), [peer(1)].iter());
        assert!(offers.all_failed(at(0), &peer(1)).is_none());
        for n in [0, 2, 999] {
            assert!(offers.all_failed(at(0), &peer(n)).is_some(), "{n}");
        }
    }

    #[test]
    fn tags_depend_on_the_salt() {
        let same = (0..1000).filter(|&n| tag_of(1, &peer(n)) == tag_of(2, &peer(n)));
        assert_eq!(same.count(), 0);
        let tags: std::collections::BTreeSet<_> = (0..1000).map(|n| tag_of(1, &peer(n))).collect();
        assert_eq!(tags.len(), 1000);
    }
}
