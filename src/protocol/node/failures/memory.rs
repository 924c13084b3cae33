//! A bounded memory of how often keys were tried, and how long each of them pauses.
//!
//! An eviction does not clear the count: a key that is not found has the highest count and the
//! longest pause of all evicted keys ([`Memory::unknown`]). So a flood of other keys cannot lower
//! the count or the pause of a key below those that it would have with room for all. The key with
//! the lowest count is evicted, so that under a flood unknown keys start low.
//!
//! Invariants: a key's count is never below the number of its attempts since it was last quiet for
//! [`FORGOTTEN_AFTER`], and its pause is never shorter than for that number, unless it was
//! [removed](Memory::remove) or everything was [cleared](Memory::clear).

use core::time::Duration;

use heapless::Vec;

use crate::protocol::{Instant, TableStats};

/// After a quiet time of this length the count of a key starts again.
pub(super) const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// A hash of what was tried. It is short, because the memory is searched often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) u64);

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) count: u8,
    pub(super) last: Instant,
    pub(super) until: Instant,
}

impl Entry {
    const NEVER: Self = Self {
        key: Key(0),
        count: 0,
        last: Instant::from_millis(0),
        until: Instant::from_millis(0),
    };

    fn is_quiet(&self, now: Instant) -> bool {
        now - self.last >= FORGOTTEN_AFTER
    }
}

/// A memory of at most `N` keys.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Memory<const N: usize> {
    all: Vec<Entry, N>,
    unknown: Entry,
    evicted: u64,
}

impl<const N: usize> Memory<N> {
    pub(super) const fn new() -> Self {
        Self {
            all: Vec::new(),
            unknown: Entry::NEVER,
            evicted: 0,
        }
    }

    /// Counts an attempt of the key. `rest` returns the pause after this many attempts.
    pub(super) fn count(&mut self, now: Instant, key: Key, rest: impl FnOnce(u8) -> Duration) {
        let old = self.entry(key);
        let before = if old.is_quiet(now) { 0 } else { old.count };
        let count = before.saturating_add(1);
        let until = now + rest(count);
        let entry = Entry {
            key,
            count,
            last: now,
            until: until.max(old.until),
        };
        match self.find(key) {
            Some(known) => *known = entry,
            None => {
                if self.all.is_full() {
                    self.evict(now);
                }
                // There is room now.
                let _ = self.all.push(entry);
            }
        }
    }

    /// Makes room for the key, if needed, by removing the one with the shortest remaining pause,
    /// without any trace. This is for keys that cost an attacker nothing, if their removal harms no
    /// other host.
    pub(super) fn forget_for(&mut self, key: Key) {
        if !self.all.is_full() || self.find(key).is_some() {
            return;
        }
        let all = self.all.iter().enumerate();
        if let Some((at, _)) = all.min_by_key(|(_, entry)| entry.until) {
            self.all.swap_remove(at);
            self.evicted += 1;
        }
    }

    /// How often the key was tried.
    pub(super) fn tries(&self, key: Key) -> u8 {
        self.entry(key).count
    }

    /// Until when the key pauses.
    pub(super) fn rests_until(&self, key: Key) -> Instant {
        self.entry(key).until
    }

    /// The entry of the key, mutable.
    pub(super) fn find(&mut self, key: Key) -> Option<&mut Entry> {
        self.all.iter_mut().find(|entry| entry.key == key)
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.all.retain(|entry| entry.key != key);
    }

    /// Removes all entries, and resets the state of unknown keys.
    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.unknown = Entry::NEVER;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.unknown == Entry::NEVER
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self, name: &'static str) -> TableStats {
        TableStats {
            name,
            used: self.all.len(),
            capacity: N,
            refused: 0,
            evicted: self.evicted,
        }
    }

    fn entry(&self, key: Key) -> &Entry {
        let found = self.all.iter().find(|entry| entry.key == key);
        found.unwrap_or(&self.unknown)
    }

    /// Removes the keys that were quiet for long. If there are none, evicts the one with the lowest
    /// count; of several, the one with the shortest remaining pause.
    fn evict(&mut self, now: Instant) {
        let order = |entry: &Entry| (!entry.is_quiet(now), entry.count, entry.until);
        let all = self.all.iter().enumerate();
        let Some((at, _)) = all.min_by_key(|(_, entry)| order(entry)) else {
            return;
        };
        let entry = self.all.swap_remove(at);
        self.evicted += 1;
        if entry.is_quiet(now) {
            return;
        }
        if self.unknown.is_quiet(now) {
            self.unknown = Entry::NEVER;
        }
        self.unknown = Entry {
            key: Entry::NEVER.key,
            count: self.unknown.count.max(entry.count),
            last: self.unknown.last.max(entry.last),
            until: self.unknown.until.max(entry.until),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn tried(memory: &mut Memory<4>, now: u64, keys: impl IntoIterator<Item = u64>) {
        for key in keys {
            memory.count(at(now), Key(key), |count| REST * count.into());
        }
    }

    #[test]
    fn what_counts_least_gives_way_and_of_these_what_rests_least_long() {
        let mut memory = Memory::new();
        tried(&mut memory, 0, [1, 1, 2]);
        tried(&mut memory, 5, [3, 4]);
        tried(&mut memory, 9, [5]);
        let kept = [1, 2, 3, 4, 5].map(|key| memory.find(Key(key)).is_some());
        assert_eq!(kept, [true, false, true, true, true]);
        assert_eq!(memory.stats("").evicted, 1);
    }

    #[test]
    fn what_gave_way_counts_and_rests_as_if_there_had_been_room() {
        let mut memory = Memory::new();
        tried(&mut memory, 0, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4]);
        tried(&mut memory, 500, [5, 5]);
        assert_eq!(memory.tries(Key(4)), 2);
        assert_eq!(memory.rests_until(Key(4)), at(2_000));
        tried(&mut memory, 2_000, [4]);
        assert_eq!(memory.tries(Key(4)), 3);
        assert_eq!(memory.rests_until(Key(4)), at(5_000));
    }

    #[test]
    fn a_key_counts_for_all_its_tries_whatever_else_is_tried() {
        let mut memory = Memory::new();
        for round in 1..=10u8 {
            let now = u64::from(round) * 10_000;
            tried(&mut memory, now, [7]);
            assert!(memory.tries(Key(7)) >= round, "{round}");
            tried(&mut memory, now, (0..9).map(|key| 100 * now + key));
        }
    }

    #[test]
    fn what_gave_way_is_forgotten_ten_minutes_after_its_last_try() {
        for (later, count) in [(599_999, 2), (600_000, 1)] {
            let mut memory = Memory::new();
            tried(&mut memory, 0, 0..5);
            tried(&mut memory, later, [9]);
            assert_eq!(memory.tries(Key(9)), count);
        }
    }

    #[test]
    fn a_key_that_was_quiet_for_ten_minutes_gives_way_first_and_leaves_nothing() {
        let mut memory = Memory::new();
        tried(&mut memory, 0, [1, 1, 1]);
        tried(&mut memory, 600_000, [2, 3, 4, 5]);
        assert!(memory.find(Key(1)).is_none());
        assert_eq!(memory.tries(Key(1)), 0);
        assert_eq!(memory.rests_until(Key(1)), at(0));
    }

    #[test]
    fn keys_that_cost_nothing_are_forgotten_by_how_long_they_rest() {
        let mut memory = Memory::new();
        for key in 1..=5 {
            memory.forget_for(Key(key));
            tried(&mut memory, key, [key, key]);
        }
        assert_eq!(memory.tries(Key(1)), 0);
        memory.forget_for(Key(5));
        assert_eq!([2, 3, 4, 5].map(|key| memory.tries(Key(key))), [2; 4]);
    }
}
