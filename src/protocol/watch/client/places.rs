//! The nodes that are known: which of them get a place in their table, and what is said of them.

use super::{NEVER, Said, Sighting, Watch, slots::Entry};
use crate::protocol::Presence;

impl<const K: usize> Watch<K> {
    /// The server in this slot lists a node. Returns what is to be said of it.
    pub(super) fn seen(&mut self, at: usize, seen: &Sighting<'_>) -> Option<Said> {
        let bit = 1 << at;
        let Some(entry) = self.known.find_mut(seen.peer) else {
            if seen.is_meant {
                self.make_room(at);
                let is_placed = self.known.insert(Entry {
                    peer: *seen.peer,
                    name: seen.name.clone(),
                    holders: bit,
                    confirmed: bit,
                    sequence: seen.sequence,
                    contents: seen.contents,
                    unheld: NEVER,
                    how: Presence::Alive,
                    is_meant: true,
                    by: at as u8,
                    told_by: at as u8,
                });
                // If there is no room, the node is reported all the same, and the table counts it.
                if let (Ok(()), Some(placed)) = (is_placed, self.placed.get_mut(at)) {
                    *placed += 1;
                }
            }
            return seen.is_meant.then_some(Said::Present);
        };
        entry.holders |= bit;
        entry.confirmed |= bit;
        // A server takes a record back where it finds out that a copy of the identity signed it.
        // Then what it tells now counts, although it was signed earlier.
        let is_taken_back = usize::from(entry.told_by) == at && seen.contents != entry.contents;
        if seen.sequence <= entry.sequence && !is_taken_back {
            return None;
        }
        (entry.sequence, entry.told_by) = (seen.sequence, at as u8);
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

    /// In a full table, a server that has placed less than its share there gets the place of a node
    /// that only the server holds that has placed most. So no server fills the table for the
    /// others.
    fn make_room(&mut self, at: usize) {
        let share = K / self.servers().max(1);
        let most = self.placed.iter().enumerate().max_by_key(|(_, n)| **n);
        let Some((richest, most)) = most.map(|(richest, n)| (richest, usize::from(*n))) else {
            return;
        };
        let has_share = |n: &u16| usize::from(*n) >= share;
        if !self.known.is_full() || most <= share || self.placed.get(at).is_none_or(has_share) {
            return;
        }
        let is_theirs = |entry: &&Entry| {
            usize::from(entry.by) == richest && entry.holders & !(1 << richest) == 0
        };
        let given_up = self.known.iter().find(is_theirs).map(|entry| entry.peer);
        if let Some(peer) = given_up {
            self.known.evict(&peer);
            self.left_table(richest);
        }
    }

    /// A node that the server in this slot had placed has given its place up.
    pub(super) fn left_table(&mut self, by: usize) {
        if let Some(placed) = self.placed.get_mut(by) {
            *placed = placed.saturating_sub(1);
        }
    }
}
