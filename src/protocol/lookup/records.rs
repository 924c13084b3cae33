//! The records that one lookup has found: one for each peer, the best first.
//!
//! Invariant: at most `N` records, one for each peer; if there are more, the worst is dropped, and
//! this is noted.

use core::{
    cmp::{Ordering, Reverse},
    time::Duration,
};

use heapless::Vec;

use super::RecordCopy;
use crate::protocol::{
    Instant, MAX_ENVELOPE_LEN, PeerId, RecordRank,
    codec::record::{Kind, contents, has_by_grant},
    directory::Found,
};

/// Where a record was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the own directory.
    Here,
    /// In the directory of an indexer.
    Indexer,
    /// In the directory of a native.
    Native,
    /// In the DHT.
    Dht,
}

/// The party that vouches for a claim to a name: the first is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    /// An earlier find of this name, which returned the same peer.
    Remembered,
    /// This process, a server that it holds a lease with, or a configured native.
    Own,
    /// Another server.
    Other,
    /// No server: its record is only in the DHT.
    DhtOnly,
}

/// The rank of a claim: the least is the best, and an earlier field counts more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClaimRank {
    /// The party that vouches for it.
    pub(super) tier: Tier,
    /// For how long it has been made there. A claim whose age is not told comes after the youngest,
    /// because nothing speaks for it.
    pub(super) claimed: Reverse<Option<Duration>>,
    /// How many older claims the same server tells of. Servers tell of the oldest claim first.
    pub(super) position: u16,
}

/// A record that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRecord {
    peer: PeerId,
    rank: RecordRank,
    claim: ClaimRank,
    place: Place,
    /// Whether the server that has it lists it under a lease of its subject.
    is_leased: bool,
    /// Time since the last heartbeat, when the server told it.
    age: Option<Duration>,
    envelope: Vec<u8, MAX_ENVELOPE_LEN, u16>,
}

impl FoundRecord {
    /// Makes it from a copy; `None` if that has more bytes than a record may have.
    pub(super) fn new(copy: RecordCopy<'_>, place: Place, claim: ClaimRank) -> Option<Self> {
        Some(Self {
            peer: copy.info.peer,
            rank: copy.info.rank(),
            claim,
            place,
            is_leased: place == Place::Here || copy.age.is_some(),
            age: copy.age,
            envelope: Vec::from_slice(copy.envelope).ok()?,
        })
    }

    /// Makes it from an entry of the own directory.
    pub(super) fn here(now: Instant, claim: ClaimRank, found: &Found<'_>) -> Option<Self> {
        Some(Self {
            peer: *found.peer(),
            rank: found.rank(),
            claim,
            place: Place::Here,
            is_leased: true,
            age: found.last_seen().map(|seen| now - seen),
            envelope: Vec::from_slice(found.envelope()).ok()?,
        })
    }

    /// Its subject.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// Where it was found.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Time since the last heartbeat of its subject, when the server that has it answered; `None`
    /// if it did not tell.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// For how long it has claimed the name, when the server that has it answered; `None` if it did
    /// not tell.
    pub(super) fn claimed(&self) -> Option<Duration> {
        self.claim.claimed.0
    }

    /// The signed record, as it was received.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// The claim of the better rank comes first. Of two that are equal, it is the better
    /// record: the latest ExpiresAt, then the higher sequence (PROTOCOL.md, section 6), then the
    /// greater id.
    fn order(&self, other: &Self) -> Ordering {
        let record = (other.rank, other.peer).cmp(&(self.rank, self.peer));
        self.claim.cmp(&other.claim).then(record)
    }
}

/// At most `N` records, best first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Records<const N: usize> {
    best_first: Vec<FoundRecord, N>,
    more: bool,
}

impl<const N: usize> Records<N> {
    pub(super) const fn new() -> Self {
        Self {
            best_first: Vec::new(),
            more: false,
        }
    }

    pub(super) fn clear(&mut self) {
        self.best_first.clear();
        self.more = false;
    }

    /// Adds a record. Of two of the same peer the one that was signed later stays, however long it
    /// lives, with the better claim and the shorter age of both. If there are too many, the worst
    /// is dropped.
    pub(super) fn add(&mut self, mut record: FoundRecord) {
        let known = |other: &FoundRecord| other.peer == record.peer;
        if let Some(at) = self.best_first.iter().position(known) {
            let mut known = self.best_first.remove(at);
            let claim = known.claim.min(record.claim);
            let age = known.age.into_iter().chain(record.age).min();
            let signed = |record: &FoundRecord| (record.rank.sequence, record.rank);
            if signed(&known) >= signed(&record) {
                core::mem::swap(&mut known, &mut record);
            }
            (record.claim, record.age) = (claim, age);
        }
        let at = self
            .best_first
            .partition_point(|other| other.order(&record).is_lt());
        if self.best_first.is_full() {
            self.more = true;
            if at == self.best_first.len() {
                return;
            }
            self.best_first.pop();
        }
        // There is room now.
        let _ = self.best_first.insert(at, record);
    }

    /// Lets go what has ended at wall-clock time `own_ms`. What a server lists under a lease is
    /// judged there, and by no clock. Returns whether there was such a record.
    pub(super) fn end(&mut self, own_ms: u64) -> bool {
        let before = self.best_first.len();
        self.best_first
            .retain(|record| record.is_leased || own_ms <= record.rank.expires_at_ms);
        self.best_first.len() < before
    }

    /// If some have the name by their grants, the others are left out. Returns whether there were
    /// such.
    pub(super) fn keep_owners(&mut self, name: &str) -> bool {
        let owns = |record: &FoundRecord| {
            let record = contents(Kind::Node, record.envelope());
            record.is_some_and(|record| has_by_grant(record.grant, name))
        };
        let known = self.best_first.len();
        if self.best_first.iter().any(owns) {
            self.best_first.retain(owns);
        }
        self.best_first.len() < known
    }

    /// Whether a record of the peer is among them.
    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.best_first.iter().any(|record| record.peer == *peer)
    }

    /// Takes note that a server has more records than it sent.
    pub(super) fn there_are_more(&mut self) {
        self.more = true;
    }

    /// Whether there are more records than these.
    pub(super) fn more(&self) -> bool {
        self.more
    }

    pub(super) fn as_slice(&self) -> &[FoundRecord] {
        &self.best_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::RecordInfo;

    fn record(n: u8, expires_at_ms: u64, sequence: u64, place: Place) -> FoundRecord {
        let info = RecordInfo {
            peer: PeerId::from_bytes([n; 32]),
            sequence,
            issued_at_ms: expires_at_ms,
            ttl: Duration::ZERO,
            addrs: Default::default(),
            name: Default::default(),
        };
        let envelope = &[n];
        FoundRecord::new(
            RecordCopy {
                info: &info,
                envelope,
                age: None,
                claimed: None,
            },
            place,
            ClaimRank {
                tier: Tier::Other,
                claimed: Reverse(None),
                position: 0,
            },
        )
        .unwrap()
    }

    fn seen<const N: usize>(records: &Records<N>) -> std::vec::Vec<(u8, Place)> {
        let all = records.as_slice().iter();
        all.map(|r| (r.peer.as_bytes()[0], r.place)).collect()
    }

    #[test]
    fn later_expiry_comes_first_then_the_higher_sequence_then_the_greater_id() {
        let mut records = Records::<8>::new();
        for (n, expires, sequence) in [(1, 10, 5), (2, 11, 1), (3, 10, 6), (4, 10, 5)] {
            records.add(record(n, expires, sequence, Place::Indexer));
        }
        let order: std::vec::Vec<_> = seen(&records).iter().map(|(n, _)| *n).collect();
        assert_eq!(order, [2, 3, 4, 1]);
    }

    #[test]
    fn claim_of_the_better_rank_comes_first_and_a_peer_has_the_best_of_its_own() {
        use Tier::{DhtOnly, Other, Own, Remembered};
        let mut records = Records::<8>::new();
        let claims = [
            (1, (Other, Some(0), 0)),
            (2, (Own, Some(0), 1)),
            (3, (DhtOnly, None, 0)),
            (4, (Own, Some(0), 0)),
            (5, (Remembered, None, 9)),
            (6, (Own, Some(7), 8)),
            (1, (Other, None, 3)),
            (7, (Own, None, 0)),
        ];
        for (at, (n, (tier, claimed, position))) in (1..).zip(claims) {
            let claim = ClaimRank {
                tier,
                claimed: Reverse(claimed.map(Duration::from_secs)),
                position,
            };
            let age = Some(Duration::from_secs(at));
            let record = record(n, 10 * at, 1, Place::Indexer);
            records.add(FoundRecord {
                claim,
                age,
                ..record
            });
        }
        let order: std::vec::Vec<_> = seen(&records).iter().map(|(n, _)| *n).collect();
        assert_eq!(order, [5, 6, 4, 2, 7, 1, 3]);
        let twice = &records.as_slice()[5];
        assert_eq!(
            (twice.age, twice.rank.sequence),
            (Some(Duration::from_secs(1)), 1)
        );
        assert_eq!(twice.rank, record(1, 70, 1, Place::Indexer).rank);
    }

    #[test]
    fn better_record_of_a_peer_replaces_and_an_equal_one_does_not() {
        let mut records = Records::<8>::new();
        records.add(record(1, 10, 5, Place::Indexer));
        records.add(record(1, 10, 5, Place::Native));
        records.add(record(1, 10, 4, Place::Native));
        assert_eq!(seen(&records), [(1, Place::Indexer)]);
        records.add(record(1, 10, 6, Place::Dht));
        assert_eq!(seen(&records), [(1, Place::Dht)]);
        assert!(!records.more());
    }

    #[test]
    fn record_that_was_signed_later_counts_although_an_earlier_one_lives_longer() {
        let mut records = Records::<8>::new();
        for (sequence, expires) in [(5, 90), (6, 10), (4, 99)] {
            records.add(record(1, expires, sequence, Place::Indexer));
        }
        assert_eq!(records.as_slice()[0].rank.sequence, 6);
    }

    #[test]
    fn worst_of_too_many_is_let_go_and_told_of() {
        let mut records = Records::<2>::new();
        records.add(record(1, 10, 1, Place::Indexer));
        records.add(record(2, 20, 1, Place::Indexer));
        assert!(!records.more());
        records.add(record(3, 5, 1, Place::Indexer));
        assert_eq!((seen(&records).len(), records.more()), (2, true));
        records.add(record(4, 15, 1, Place::Indexer));
        let order: std::vec::Vec<_> = seen(&records).iter().map(|(n, _)| *n).collect();
        assert_eq!(order, [2, 4]);
    }

    #[test]
    fn better_record_of_a_peer_is_no_more_although_there_is_no_room() {
        let mut records = Records::<1>::new();
        records.add(record(1, 10, 1, Place::Indexer));
        records.add(record(1, 10, 2, Place::Indexer));
        assert!(!records.more());
    }
}
