//! How many different nodes claim a name, as far as one lookup has counted.
//!
//! Invariant: each node is counted once, however many servers tell of it, and at most
//! [`MAX_COUNTED`] are.

use heapless::Vec;

use super::MAX_COUNTED;
use crate::protocol::{Count, PeerId};

/// The nodes counted here, and what servers have counted that asked others.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Claims {
    /// The first bytes of their ids, sorted.
    counted: Vec<u64, MAX_COUNTED>,
    reported: u32,
    is_cut: bool,
}

impl Claims {
    pub(super) const fn new() -> Self {
        Self {
            counted: Vec::new(),
            reported: 0,
            is_cut: false,
        }
    }

    pub(super) fn clear(&mut self) {
        self.counted.clear();
        (self.reported, self.is_cut) = (0, false);
    }

    /// Counts a node that claims the name.
    pub(super) fn note(&mut self, peer: &PeerId) {
        let bytes = peer.as_bytes().first_chunk().copied();
        let mark = u64::from_be_bytes(bytes.unwrap_or_default());
        if let Err(at) = self.counted.binary_search(&mark) {
            self.is_cut |= self.counted.insert(at, mark).is_err();
        }
    }

    /// A server that asked others has counted so many.
    pub(super) fn reported(&mut self, count: Count) {
        self.reported = self.reported.max(count.nodes);
        self.is_cut |= !count.are_all;
    }

    /// Some may not have been counted.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Whether no other can be counted.
    pub(super) fn is_full(&self) -> bool {
        self.counted.is_full()
    }

    /// The number, if all servers have answered.
    pub(super) fn count(&self) -> Count {
        let counted = u32::try_from(self.counted.len()).unwrap_or(u32::MAX);
        Count {
            nodes: counted.max(self.reported),
            are_all: !self.is_cut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: usize) -> PeerId {
        let mut id = [0; 32];
        // The test runs where `usize` has 32 bits too.
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        PeerId::from_bytes(id)
    }

    fn count(nodes: u32, are_all: bool) -> Count {
        Count { nodes, are_all }
    }

    #[test]
    fn node_is_counted_once_and_one_more_than_fit_makes_the_count_open() {
        let mut claims = Claims::new();
        for n in (0..MAX_COUNTED).rev().chain([0, 7]) {
            claims.note(&peer(n));
        }
        assert_eq!(claims.count(), count(256, true));
        claims.note(&peer(MAX_COUNTED));
        assert_eq!(claims.count(), count(256, false));
    }

    #[test]
    fn server_that_has_counted_more_is_believed_and_one_that_counts_no_further_leaves_it_open() {
        let mut claims = Claims::new();
        claims.note(&peer(1));
        claims.reported(count(50, true));
        claims.reported(count(20, true));
        assert_eq!(claims.count(), count(50, true));
        claims.reported(count(5, false));
        assert_eq!(claims.count(), count(50, false));
    }
}
