//! The directory: which nodes can be found here, by name and by peer id.
//!
//! Indexers keep one for the nodes that hold leases with them, natives one for the nodes they have taken in. An entry
//! lives exactly as long as its node's lease: who removes the lease removes the entry.

use core::cmp::Ordering;

use heapless::Vec;

use super::{
    Envelope, MAX_LIST, Name, PeerId, RecordInfo,
    table::{Keyed, Table, TableStats, keep_best},
};

/// One node that can be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    peer: PeerId,
    name: Name,
    rank: (u64, u64),
    envelope: Envelope,
}

impl Entry {
    /// The node.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// Its signed record, as it came.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }
}

/// The better record is the greater entry.
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.rank, self.peer).cmp(&(other.rank, other.peer))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Keyed for Entry {
    fn peer(&self) -> &PeerId {
        &self.peer
    }
}

/// The answer to a lookup by name: who claims it, best first, and whether there are more than fit.
pub type Claimants<'a> = (Vec<&'a Entry, MAX_LIST, u8>, bool);

/// At most `N` nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Directory<const N: usize>(Table<Entry, N>);

impl<const N: usize> Directory<N> {
    /// Nobody can be found.
    pub const fn new() -> Self {
        Self(Table::new())
    }

    /// Lists the record's subject, who sent it itself. Returns whether the record is new here: one signed later is never replaced by
    /// one signed earlier, whatever the clock showed.
    pub fn list(&mut self, info: &RecordInfo, envelope: &[u8]) -> bool {
        if self
            .0
            .find(&info.peer)
            .is_some_and(|old| old.rank.1 >= info.sequence)
        {
            return false;
        }
        let Ok(envelope) = Envelope::from_slice(envelope) else {
            return false;
        };
        let entry = Entry {
            peer: info.peer,
            name: info.name.clone(),
            rank: info.rank(),
            envelope,
        };
        self.0.insert(entry).is_ok()
    }

    /// The node can be found here no longer.
    pub fn unlist(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// Who claims `name`: names are not owned, so there may be several.
    pub fn claimants(&self, name: &str) -> Claimants<'_> {
        let mut found: Vec<&Entry, MAX_LIST, u8> = Vec::new();
        let mut more = false;
        for entry in self.0.iter().filter(|entry| entry.name == name) {
            more |= found.is_full();
            keep_best(&mut found, entry);
        }
        (found, more)
    }

    /// The node's entry.
    pub fn find(&self, peer: &PeerId) -> Option<&Entry> {
        self.0.find(peer)
    }

    /// What the operator sees.
    pub fn stats(&self) -> TableStats {
        self.0.stats("directory")
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn info(n: u8, name: &str, sequence: u64) -> RecordInfo {
        RecordInfo {
            peer: PeerId::from_bytes([n; 32]),
            sequence,
            issued_at_ms: sequence,
            ttl: Duration::from_secs(1),
            addrs: Default::default(),
            name: Name::try_from(name).unwrap(),
        }
    }

    #[test]
    fn every_claimant_of_a_name_is_found_best_first() {
        let mut directory = Directory::<8>::new();
        assert!(directory.list(&info(1, "pump", 5), b"one"));
        assert!(directory.list(&info(2, "pump", 9), b"two"));
        assert!(directory.list(&info(3, "fan", 7), b"three"));
        let (found, more) = directory.claimants("pump");
        let found: std::vec::Vec<_> = found.iter().map(|e| e.envelope()).collect();
        assert_eq!(found, [b"two", b"one"]);
        assert!(!more);
        assert!(directory.claimants("valve").0.is_empty());
    }

    #[test]
    fn a_better_record_is_never_replaced_by_a_worse() {
        let mut directory = Directory::<8>::new();
        assert!(directory.list(&info(1, "pump", 5), b"new"));
        assert!(!directory.list(&info(1, "pump", 4), b"old"));
        assert!(
            !directory.list(&info(1, "pump", 5), b"new"),
            "the same is not news"
        );
        assert_eq!(
            directory
                .find(&PeerId::from_bytes([1; 32]))
                .unwrap()
                .envelope(),
            b"new"
        );
    }

    #[test]
    fn sixteen_claimants_fit_and_the_seventeenth_is_told_of() {
        let mut directory = Directory::<32>::new();
        for n in 0..16 {
            directory.list(&info(n, "pump", u64::from(n)), b"x");
        }
        assert_eq!(
            (
                directory.claimants("pump").0.len(),
                directory.claimants("pump").1
            ),
            (16, false)
        );
        directory.list(&info(99, "pump", 99), b"best");
        let (found, more) = directory.claimants("pump");
        assert_eq!((found.len(), more), (16, true));
        assert_eq!(found.first().unwrap().envelope(), b"best");
    }
}
