//! A table of fixed capacity, keyed by peer id. All tables of the protocol use it.
//!
//! Invariants: `order` holds each slot's number exactly once, sorted by the slot's peer; so a
//! lookup takes O(log n) comparisons, whatever keys an attacker generates, and an insert or removal
//! moves only two bytes for each entry. `const fn new()` is all zeroes and uninitialised memory, so
//! a table can be placed in `.bss` and takes no memory before it is used.

use core::{marker::PhantomData, mem::MaybeUninit, ops::Range};

use heapless::Vec;

use super::{Cursor, PeerId};

/// An entry that belongs to one peer.
pub(crate) trait Keyed {
    /// The peer. It never changes while the entry is in a table.
    fn peer(&self) -> &PeerId;
}

/// A table of at most `N` entries, one for each peer.
#[derive(Clone, Debug)]
pub(crate) struct Table<T, const N: usize> {
    slots: Vec<T, N>,
    order: Vec<u16, N>,
    refused: u64,
    evicted: u64,
}

/// Where an entry was found. The removal of another entry may move it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u16);

/// The statistics of a table for `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableStats {
    /// The table's name, as in the diagram.
    pub name: &'static str,
    /// Entries now.
    pub used: usize,
    /// Entries at most.
    pub capacity: usize,
    /// Entries that were refused for lack of room since the start.
    pub refused: u64,
    /// Entries that were evicted to make room for others since the start.
    pub evicted: u64,
}

/// Unused memory of any origin. Any bytes may be written there.
///
/// Invariant: the memory is borrowed for the lifetime of this value, and comes from
/// [`MaybeUninit`], which may hold any bytes. So safe code can put no other memory here.
#[derive(Debug)]
pub struct Vacant<'a> {
    bytes: Range<*mut u8>,
    borrowed: PhantomData<&'a mut [MaybeUninit<u8>]>,
}

impl<'a> Vacant<'a> {
    /// No memory.
    pub const fn none() -> Self {
        Self {
            bytes: core::ptr::null_mut()..core::ptr::null_mut(),
            borrowed: PhantomData,
        }
    }

    /// This memory.
    pub(crate) fn of<T>(slots: &'a mut [MaybeUninit<T>]) -> Self {
        let Range { start, end } = slots.as_mut_ptr_range();
        Self {
            bytes: start.cast()..end.cast(),
            borrowed: PhantomData,
        }
    }

    /// The first address of the memory, and the one after its last byte.
    ///
    /// It is a range, and not a `&mut [MaybeUninit<u8>]`, because only unsafe code could make that
    /// of slots of another type, and the core has none. The caller may write to the range for as
    /// long as this value lives; what it writes is never read as an entry.
    pub fn bytes(&self) -> Range<*mut u8> {
        self.bytes.clone()
    }
}

impl<T: Keyed, const N: usize> Table<T, N> {
    /// An empty table.
    pub(crate) const fn new() -> Self {
        const {
            assert!(
                N > 0 && N <= u16::MAX as usize,
                "a table holds 1 to 65535 entries"
            )
        };
        Self {
            slots: Vec::new(),
            order: Vec::new(),
            refused: 0,
            evicted: 0,
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether there is no room for a new peer.
    pub(crate) fn is_full(&self) -> bool {
        self.slots.is_full()
    }

    /// Whether the peer has an entry.
    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        self.position(peer).is_ok()
    }

    /// The peer's entry.
    pub(crate) fn find(&self, peer: &PeerId) -> Option<&T> {
        let slot = *self.order.get(self.position(peer).ok()?)?;
        self.slots.get(usize::from(slot))
    }

    /// The peer's entry, mutable.
    pub(crate) fn find_mut(&mut self, peer: &PeerId) -> Option<&mut T> {
        let slot = *self.order.get(self.position(peer).ok()?)?;
        self.slots.get_mut(usize::from(slot))
    }

    /// Where the peer's entry is, so that [`Table::at_mut`] needs no second lookup.
    pub(crate) fn locate(&self, peer: &PeerId) -> Option<Slot> {
        self.order.get(self.position(peer).ok()?).copied().map(Slot)
    }

    /// The entry in this slot, whichever peer's it is now.
    pub(crate) fn at(&self, Slot(slot): Slot) -> Option<&T> {
        self.slots.get(usize::from(slot))
    }

    /// The peer's entry, mutable, which was in this slot. If it has moved since, it is looked up.
    pub(crate) fn at_mut(&mut self, slot: Slot, peer: &PeerId) -> Option<&mut T> {
        if self.at(slot).is_some_and(|entry| entry.peer() == peer) {
            self.slots.get_mut(usize::from(slot.0))
        } else {
            self.find_mut(peer)
        }
    }

    /// Puts an entry in place of the peer's old one, or adds it. A full table gives it back and
    /// counts a refusal.
    pub(crate) fn insert(&mut self, entry: T) -> Result<(), T> {
        match self.position(entry.peer()) {
            Ok(_) => {
                if let Some(old) = self.find_mut(&{ *entry.peer() }) {
                    *old = entry;
                }
                Ok(())
            }
            Err(at) => {
                let slot = self.slots.len() as u16;
                self.slots.push(entry).inspect_err(|_| self.refused += 1)?;
                // `order` has the length and the capacity of `slots`, so there is room.
                let _ = self.order.insert(at, slot);
                Ok(())
            }
        }
    }

    /// Removes the peer's entry.
    pub(crate) fn remove(&mut self, peer: &PeerId) -> Option<T> {
        let at = self.position(peer).ok()?;
        let last = self
            .slots
            .last()
            .and_then(|entry| self.position(entry.peer()).ok())?;
        let slot = *self.order.get(at)?;
        // The last slot moves into the hole, so its number changes.
        *self.order.get_mut(last)? = slot;
        self.order.remove(at);
        Some(self.slots.swap_remove(usize::from(slot)))
    }

    /// Removes the peer's entry because another needs its place, and counts the eviction.
    pub(crate) fn evict(&mut self, peer: &PeerId) {
        self.evicted += u64::from(self.remove(peer).is_some());
    }

    /// Keeps the entries for which `keep` returns true. `keep` may change them.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        let mut slot = 0;
        while let Some(entry) = self.slots.get_mut(slot) {
            if keep(entry) {
                slot += 1;
            } else {
                let peer = *entry.peer();
                self.remove(&peer);
            }
        }
    }

    /// Empties the table.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.order.clear();
        (self.refused, self.evicted) = (0, 0);
    }

    /// The unused memory of the table.
    pub(crate) fn spare(&mut self) -> Vacant<'_> {
        Vacant::of(self.slots.spare_capacity_mut())
    }

    /// The entries, in arbitrary order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter()
    }

    /// The entries, mutable, in arbitrary order.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut()
    }

    /// Up to `most` entries in the order of their peers, beginning after `after` and wrapping
    /// around at most once.
    pub(crate) fn iter_after<'t>(
        &'t self,
        after: &PeerId,
        most: usize,
    ) -> impl Iterator<Item = &'t T> + use<'t, T, N> {
        let start = self.position(after).map_or_else(|at| at, |at| at + 1);
        let (before, behind) = self.order.split_at(start.min(self.order.len()));
        behind
            .iter()
            .chain(before)
            .filter_map(|&slot| self.slots.get(usize::from(slot)))
            .take(most)
    }

    /// The entries in the order of their peers, beginning at the cursor.
    pub(crate) fn iter_from<'t>(
        &'t self,
        from: Cursor,
    ) -> impl Iterator<Item = &'t T> + use<'t, T, N> {
        let start = match from {
            Cursor::Start => 0,
            Cursor::After(peer) => self.position(&peer).map_or_else(|at| at, |at| at + 1),
        };
        let slots = self.order.get(start..).unwrap_or_default().iter();
        slots.filter_map(|&slot| self.slots.get(usize::from(slot)))
    }

    /// Counts an entry that was refused before [`Table::insert`].
    pub(crate) fn count_refusal(&mut self) {
        self.refused += 1;
    }

    /// The statistics for `status`.
    pub(crate) fn stats(&self, name: &'static str) -> TableStats {
        TableStats {
            name,
            used: self.len(),
            capacity: N,
            refused: self.refused,
            evicted: self.evicted,
        }
    }

    /// Where the peer's slot is in `order`, or would be. Two keys nearly always differ in their
    /// heads, so these are compared first: every beat makes such a search.
    fn position(&self, peer: &PeerId) -> Result<usize, usize> {
        let head = peer.head();
        let peer_in = |slot: u16| self.slots.get(usize::from(slot)).map(Keyed::peer);
        let at = self
            .order
            .partition_point(|&slot| peer_in(slot).is_some_and(|it| it.head() < head));
        let found = self.order.get(at).and_then(|&slot| peer_in(slot));
        match found {
            Some(found) if found == peer => Ok(at),
            Some(found) if found.head() == head => self
                .order
                .binary_search_by_key(&Some(peer), |&slot| peer_in(slot)),
            _ => Err(at),
        }
    }
}

impl<T: Keyed, const N: usize> Default for Table<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Two tables are equal if they hold the same entries, in whatever slots.
impl<T: Keyed + PartialEq, const N: usize> PartialEq for Table<T, N> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self
                .iter()
                .all(|entry| other.find(entry.peer()) == Some(entry))
    }
}

/// Adds `item` to a list of the greatest items, greatest first. A full list drops the least.
pub(crate) fn keep_best<T: Ord, const N: usize>(best: &mut Vec<T, N, u8>, item: T) {
    let at = best.partition_point(|better| *better >= item);
    if best.is_full() {
        if at == best.len() {
            return;
        }
        best.pop();
    }
    // There is room after the removal.
    let _ = best.insert(at, item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Rng;

    #[derive(Clone, Debug, PartialEq)]
    struct Entry(PeerId, u32);

    impl Keyed for Entry {
        fn peer(&self) -> &PeerId {
            &self.0
        }
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    #[test]
    fn a_full_table_gives_the_entry_back_and_counts_it() {
        let mut table = Table::<Entry, 2>::new();
        table.insert(Entry(peer(1), 1)).unwrap();
        table.insert(Entry(peer(2), 2)).unwrap();
        assert_eq!(table.insert(Entry(peer(3), 3)), Err(Entry(peer(3), 3)));
        assert_eq!(
            table.insert(Entry(peer(2), 9)),
            Ok(()),
            "an own entry is replaced"
        );
        assert_eq!(
            table.stats("t"),
            TableStats {
                name: "t",
                used: 2,
                capacity: 2,
                refused: 1,
                evicted: 0
            }
        );
    }

    #[test]
    fn an_entry_that_has_moved_since_it_was_located_is_found_all_the_same() {
        let mut table = Table::<Entry, 4>::new();
        for n in 1..=3 {
            table.insert(Entry(peer(n), n.into())).unwrap();
        }
        let [first, last] = [1, 3].map(|n| table.locate(&peer(n)).unwrap());
        assert_eq!(table.at(last), Some(&Entry(peer(3), 3)));
        table.remove(&peer(1));
        assert_eq!(table.at_mut(last, &peer(3)), Some(&mut Entry(peer(3), 3)));
        assert_eq!(table.at_mut(first, &peer(1)), None);
        assert_eq!(table.locate(&peer(1)), None);
    }

    #[test]
    fn a_table_behaves_like_a_map_whatever_the_order_of_changes() {
        use std::collections::BTreeMap;
        let mut rng = Rng::new(42);
        let mut table = Table::<Entry, 64>::new();
        let mut map = BTreeMap::new();
        for step in 0..20_000u32 {
            let p = peer(rng.below(64) as u8);
            match rng.below(3) {
                0 => assert_eq!(table.remove(&p).map(|e| e.1), map.remove(&p)),
                _ => {
                    table.insert(Entry(p, step)).unwrap();
                    map.insert(p, step);
                }
            }
            let probe = peer(rng.below(64) as u8);
            assert_eq!(table.find(&probe).map(|e| e.1), map.get(&probe).copied());
            assert_eq!(table.len(), map.len());
        }
        table.retain(|e| e.1 % 2 == 0);
        map.retain(|_, v| *v % 2 == 0);
        let in_order: std::vec::Vec<_> = table
            .iter_after(&peer(255), 64)
            .map(|e| (e.0, e.1))
            .collect();
        assert_eq!(in_order, map.into_iter().collect::<std::vec::Vec<_>>());
    }

    #[test]
    fn peers_whose_ids_begin_alike_have_their_own_entries() {
        let alike = |n: u8| {
            let mut id = [7; 32];
            id[31] = n;
            PeerId::from_bytes(id)
        };
        let mut table = Table::<Entry, 8>::new();
        for n in [5, 1, 7, 3] {
            assert_eq!(table.insert(Entry(alike(n), n.into())), Ok(()));
        }
        for n in 0..=8 {
            let found = table.find(&alike(n)).map(|entry| entry.1);
            let entry = [1, 3, 5, 7].contains(&n).then_some(n.into());
            assert_eq!(found, entry, "{n}");
        }
        let order: std::vec::Vec<u32> = table.iter_from(Cursor::Start).map(|e| e.1).collect();
        assert_eq!(order, [1, 3, 5, 7]);
    }

    #[test]
    fn the_best_are_kept_in_order() {
        let mut best: Vec<u32, 3, u8> = Vec::new();
        for item in [4, 9, 1, 7, 2, 9] {
            keep_best(&mut best, item);
        }
        assert_eq!(best, [9, 9, 7]);
    }

    #[test]
    fn a_walk_begins_after_the_given_peer_and_goes_round_once() {
        let mut table = Table::<Entry, 8>::new();
        for n in [5, 1, 3] {
            table.insert(Entry(peer(n), 0)).unwrap();
        }
        let from = |n, most| {
            table
                .iter_after(&peer(n), most)
                .map(|e| e.0)
                .collect::<std::vec::Vec<_>>()
        };
        assert_eq!(from(1, 9), [peer(3), peer(5), peer(1)]);
        assert_eq!(from(4, 2), [peer(5), peer(1)]);
    }
}
