//! The nodes that are known: which of them get a place in their table, and what is said of them.

use super::{NEVER, Said, Sighting, Watch, slots::Entry};
use crate::protocol::Presence;

impl<const K: usize> Watch<K> {
    /// The server in this slot lists a node. Returns what is to be said of it.
    pub(super) fn seen(&mut self, at: usize, seen: &Sighting<'_>) -> Option<Said> {
        let Some(entry) = self.known.find_mut(seen.peer) else {
            if seen.is_meant {
                self.make_room(at);
                let placed = self.known.insert(Entry {
                    peer: *seen.peer,
                    name: seen.name.clone(),
                    holders: 0,
                    confirmed: 0,
                    sequence: seen.sequence,
                    contents: seen.contents,
                    unheld: NEVER,
                    how: Presence::Alive,
                    doubted: 0,
                    is_meant: true,
                    listed_by: Some(at as u8),
                    charged: 0,
                });
                // If there is no room, the node is reported all the same, and the table counts it.
                if let (Ok(()), Some(entry)) = (placed, self.known.find_mut(seen.peer)) {
                    entry.take_hold(at, &mut self.charged);
                }
            }
            return seen.is_meant.then_some(Said::Present);
        };
        entry.take_hold(at, &mut self.charged);
        // A server takes a record back where it finds out that a copy of the identity signed it.
        // Then what it tells now counts, although it was signed earlier.
        let is_taken_back = entry.listed_by == Some(at as u8) && seen.contents != entry.contents;
        if seen.sequence <= entry.sequence && !is_taken_back {
            return None;
        }
        (entry.sequence, entry.listed_by) = (seen.sequence, Some(at as u8));
        let is_changed = core::mem::replace(&mut entry.contents, seen.contents) != seen.contents;
        if is_changed {
            entry.name = seen.name.clone();
        }
        match (
            core::mem::replace(&mut entry.is_meant, seen.is_meant),
            seen.is_meant,
        ) {
            (true, true) => is_changed.then_some(Said::Changed),
            (false, true) => Some(Said::Present),
            (true, false) => Some(Said::Excluded),
            (false, false) => None,
        }
    }

    /// In a full table, a server with less than its share of the places gets that of a node which
    /// the server with most of them holds, and none holds that has not more than its share. So
    /// neither one server nor several fill the table for the others.
    fn make_room(&mut self, at: usize) {
        let share = K / self.servers().max(1);
        let has_share = |count: &u16| usize::from(*count) >= share;
        if !self.known.is_full() || self.charged.get(at).is_none_or(has_share) {
            return;
        }
        let slots = self.charged.iter().map(|n| usize::from(*n)).enumerate();
        let rich = slots.clone().filter(|(_, n)| *n > share);
        let rich = rich.fold(0, |all, (at, _)| all | 1u64 << at);
        let richest = slots.max_by_key(|(_, n)| *n).map_or(0, |(at, _)| 1 << at) & rich;
        if richest == 0 {
            return;
        }
        let gives_way = |entry: &&Entry| entry.charged & richest != 0 && entry.charged & !rich == 0;
        let given_up = self.known.iter().find(gives_way).map(|entry| entry.peer);
        if let Some(peer) = given_up {
            let entry = self.known.find_mut(&peer).into_iter();
            entry.for_each(|entry| entry.charge(0, &mut self.charged));
            self.known.evict(&peer);
        }
    }
}
