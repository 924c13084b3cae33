//! The nodes that have a row already: a set of fingerprints of their ids.
//!
//! Invariants: the memory never grows; without room a node counts as new, so it may have two rows,
//! but never none.

use crate::protocol::{PeerId, Rng};

/// Numbers that the set takes: 512 KiB.
pub const SEEN_WORDS: usize = 65_536;
/// Nodes that it holds then.
pub const MAX_SEEN: usize = room_in(SEEN_WORDS);

/// Seven of eight places are used, so that a free one is found soon.
const fn room_in(places: usize) -> usize {
    places / 8 * 7
}

/// A hash table with open addresses. A place that holds 0 is free.
#[derive(Clone, Debug)]
pub(super) struct Seen<B> {
    seed: u64,
    used: usize,
    /// A node found no room.
    is_full: bool,
    places: B,
}

impl<B: AsRef<[u64]> + AsMut<[u64]>> Seen<B> {
    /// An empty set: all numbers in `places` are 0.
    pub(super) fn new(places: B) -> Self {
        Self {
            seed: 0,
            used: 0,
            is_full: false,
            places,
        }
    }

    /// Sets what fingerprints depend on, while the set is empty.
    pub(super) fn seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Adds the node. Returns true if it was not in the set; also for a node that finds no room.
    pub(super) fn insert(&mut self, peer: &PeerId) -> bool {
        let print = self.print(peer);
        let Err(free) = self.find(print) else {
            return false;
        };
        let has_room = self.used < room_in(self.places.as_ref().len());
        match self.places.as_mut().get_mut(free) {
            Some(place) if has_room => {
                *place = print;
                self.used += 1;
            }
            _ => self.is_full = true,
        }
        true
    }

    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.find(self.print(peer)).is_ok()
    }

    /// Whether a node found no room, so that it may be reported as new more than once.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Where the fingerprint is; otherwise the free place for it.
    fn find(&self, print: u64) -> Result<usize, usize> {
        let places = self.places.as_ref();
        // The high bits: 0 to the number of places.
        let home = ((u128::from(print) * places.len() as u128) >> 64) as usize;
        let (before, from_home) = places.split_at_checked(home).unwrap_or_default();
        let turn = from_home
            .iter()
            .chain(before)
            .zip((home..places.len()).chain(0..));
        for (place, at) in turn {
            match *place {
                0 => return Err(at),
                found if found == print => return Ok(at),
                _ => {}
            }
        }
        Err(places.len())
    }

    /// 64 bits that cannot be foreseen without the seed; never 0.
    fn print(&self, peer: &PeerId) -> u64 {
        let words = peer.as_bytes().chunks(8);
        let print = words.fold(self.seed, |hash, word| {
            let word = word
                .iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte));
            Rng::new(hash ^ word).bits()
        });
        print.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen<const P: usize>(seed: u64) -> Seen<[u64; P]> {
        let mut seen = Seen::new([0; P]);
        seen.seed(seed);
        seen
    }

    fn peer(n: u16) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_le_bytes());
        PeerId::from_bytes(bytes)
    }

    #[test]
    fn node_is_new_once() {
        let mut seen = seen::<1024>(7);
        for n in 0..896 {
            assert!(!seen.contains(&peer(n)));
            assert!(seen.insert(&peer(n)), "{n}");
            assert!(!seen.insert(&peer(n)), "{n}");
        }
        assert!((0..896).all(|n| seen.contains(&peer(n))));
    }

    #[test]
    fn seven_of_eight_places_are_used_and_then_nodes_stay_new() {
        let mut seen = seen::<8>(7);
        for n in 0..7 {
            assert!(seen.insert(&peer(n)));
        }
        assert!(!seen.is_full());
        assert!(!seen.insert(&peer(6)), "it is in it");
        assert!(!seen.is_full());
        assert!(seen.insert(&peer(7)));
        assert!(seen.is_full());
        assert!(seen.insert(&peer(7)), "it was not taken in");
    }

    #[test]
    fn fingerprints_depend_on_the_seed_and_on_all_of_the_id() {
        let of = |seed, peer: &PeerId| seen::<8>(seed).print(peer);
        assert_ne!(of(1, &peer(1)), of(2, &peer(1)));
        let mut last = [0; 32];
        last[31] = 1;
        assert_ne!(of(1, &peer(0)), of(1, &PeerId::from_bytes(last)));
    }

    #[test]
    fn set_without_places_takes_nothing_in() {
        let mut seen = seen::<0>(1);
        assert!(seen.insert(&peer(1)) && seen.insert(&peer(1)));
        assert!(seen.is_full());
    }
}
