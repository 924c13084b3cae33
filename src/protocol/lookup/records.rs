//! The records that one lookup has found: one for each peer, the best first.

use core::cmp::Ordering;

use heapless::Vec;

use super::RecordCopy;
use crate::protocol::{MAX_ENVELOPE_LEN, PeerId, RecordRank, directory::Found};

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

/// A record that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRecord {
    peer: PeerId,
    rank: RecordRank,
    place: Place,
    envelope: Vec<u8, MAX_ENVELOPE_LEN, u16>,
}

impl FoundRecord {
    /// Makes it from a copy; `None` if that has more bytes than a record may have.
    pub(super) fn new(copy: RecordCopy<'_>, place: Place) -> Option<Self> {
        Some(Self {
            peer: copy.info.peer,
            rank: copy.info.rank(),
            place,
            envelope: Vec::from_slice(copy.envelope).ok()?,
        })
    }

    /// Makes it from an entry of the own directory.
    pub(super) fn here(found: &Found<'_>) -> Option<Self> {
        Some(Self {
            peer: *found.peer(),
            rank: found.rank(),
            place: Place::Here,
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

    /// The signed record, as it was received.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// The better record comes first: the latest ExpiresAt, then the higher sequence (PROTOCOL.md,
    /// section 6), then the greater id, as in a directory.
    fn order(&self, other: &Self) -> Ordering {
        (other.rank, other.peer).cmp(&(self.rank, self.peer))
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

    /// Adds a record, unless there is one of the same peer that is as good. If there are too many,
    /// the worst is dropped.
    pub(super) fn add(&mut self, record: FoundRecord) {
        let known = |other: &FoundRecord| other.peer == record.peer;
        if let Some(at) = self.best_first.iter().position(known) {
            if self
                .best_first
                .get(at)
                .is_some_and(|known| known.rank >= record.rank)
            {
                return;
            }
            self.best_first.remove(at);
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
    use core::time::Duration;

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
            },
            place,
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
