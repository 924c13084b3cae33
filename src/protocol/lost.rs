//! The peers that left or were lost here: each is kept for a day after its lease has ended.
//!
//! It tells an operator when a device that is gone was last here. Indexers and natives keep such a
//! table.
//!
//! Invariants: a peer that holds a lease here is not in the table; a peer that is known to be
//! elsewhere is not added. A full table gives up the entry of the peer that has been gone for the
//! longest time.

use core::time::Duration;

use super::{
    Cursor, Entry, Instant, Name, PeerId, Presence, Role, Subject,
    capacities::MAX_LOST,
    table::{Keyed, Table, TableStats},
};

/// How long an entry is kept: a day.
pub(crate) const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// One peer that left or was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostPeer {
    /// The peer.
    pub peer: PeerId,
    /// The name that it had; empty for a server.
    pub name: Name,
    /// Its role.
    pub role: Role,
    /// [`Presence::Left`] or [`Presence::Lost`].
    pub presence: Presence,
    /// When its lease ended, or when this process started, if it was lost before.
    pub since: Instant,
    /// How long its lease had been over at `since`, in seconds.
    pub before: u32,
}

/// The greatest size of an entry in bytes, so that the table stays small.
const _: () = assert!(size_of::<LostPeer>() <= 128);

impl LostPeer {
    /// Time since the end of its lease.
    pub fn age(&self, now: Instant) -> Duration {
        Duration::from_secs(self.before.into()) + (now - self.since)
    }

    /// Its entry in a list at `now`.
    pub fn entry(&self, now: Instant) -> Entry<'_> {
        Entry {
            subject: Subject::Named {
                peer: self.peer,
                name: &self.name,
            },
            age: self.age(now),
            presence: self.presence,
        }
    }
}

impl Keyed for LostPeer {
    fn peer(&self) -> &PeerId {
        &self.peer
    }
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lost(Table<LostPeer, MAX_LOST>);

impl Lost {
    /// No peer was lost.
    pub const fn new() -> Self {
        Self(Table::new())
    }

    /// Adds a peer when its lease has ended, or one that an earlier process lost less than a day
    /// ago.
    pub fn add(&mut self, now: Instant, lost: LostPeer) {
        if lost.age(now) > KEPT {
            return;
        }
        if self.0.is_full() && !self.0.contains(&lost.peer) {
            let oldest = self.0.iter().max_by_key(|entry| entry.age(now));
            if let Some(peer) = oldest.map(|entry| entry.peer) {
                self.0.evict(&peer);
            }
        }
        // There is room now.
        let _ = self.0.insert(lost);
    }

    /// The peer is back. Returns how long it was gone, if it was here before.
    pub fn back(&mut self, now: Instant, peer: &PeerId) -> Option<Duration> {
        self.0.remove(peer).map(|entry| entry.age(now))
    }

    /// Removes those that have been gone for more than a day.
    pub fn expire(&mut self, now: Instant) {
        self.0.retain(|entry| entry.age(now) <= KEPT);
    }

    /// The peer's entry.
    pub fn find(&self, peer: &PeerId) -> Option<&LostPeer> {
        self.0.find(peer)
    }

    /// All entries, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &LostPeer> {
        self.0.iter_from(Cursor::Start)
    }

    /// The nodes among them, in the order of their ids.
    pub(crate) fn nodes_from(&self, from: Cursor) -> impl Iterator<Item = &LostPeer> {
        let all = self.0.iter_from(from);
        all.filter(|entry| entry.role == Role::Node)
    }

    /// The statistics for `status`.
    pub fn stats(&self) -> TableStats {
        self.0.stats("lost")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    fn lost(n: u16, since: Instant, before: u32) -> LostPeer {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        LostPeer {
            peer: PeerId::from_bytes(key),
            name: Name::try_from("pump").unwrap(),
            role: Role::Node,
            presence: Presence::Lost,
            since,
            before,
        }
    }

    #[test]
    fn an_entry_is_kept_for_a_day_whatever_part_of_it_was_in_an_earlier_run() {
        let mut table = Lost::new();
        table.add(at(100), lost(1, at(100), 0));
        table.add(at(100), lost(2, at(100), 40_000));
        table.expire(at(100 + 46_400));
        assert_eq!(table.stats().used, 2);
        table.expire(at(100 + 46_401));
        assert_eq!(table.stats().used, 1);
        table.expire(at(100 + 86_400));
        assert_eq!(table.stats().used, 1);
        table.expire(at(100 + 86_401));
        assert_eq!(table.stats().used, 0);
    }

    #[test]
    fn a_full_table_gives_up_who_is_the_longest_gone_and_counts_it() {
        let mut table = Lost::new();
        for n in 0..MAX_LOST as u16 {
            table.add(at(10), lost(n, at(10), u32::from(n != 7)));
        }
        // The last of an earlier run is the oldest, whatever the order of the ids.
        table.add(at(10), lost(3, at(10), 99));
        assert_eq!((table.stats().used, table.stats().evicted), (MAX_LOST, 0));
        table.add(at(11), lost(u16::MAX, at(11), 0));
        assert_eq!((table.stats().used, table.stats().evicted), (MAX_LOST, 1));
        assert!(table.find(&lost(3, at(0), 0).peer).is_none());
        assert!(table.find(&lost(u16::MAX, at(0), 0).peer).is_some());
    }
}
