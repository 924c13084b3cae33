//! The directory: which nodes can be found here, by name and by peer id.
//!
//! Indexers keep one for the nodes that hold leases with them, natives one for the nodes they have
//! taken in. An entry exists exactly as long as its node's lease: the code that removes the lease
//! also removes the entry. While the lease outlives the record, as when this process was suspended,
//! the entry waits for the next record and is no answer.
//!
//! Invariants: at most `N` nodes, each with its newest record; a record is no answer after its time
//! to live, which counts from when it was received, and by no clock. Nearly all records are short,
//! so there is one table for those and another for the rest, each with room for all nodes. Memory
//! is touched only when it is used, so a short record does not take the memory of a long one.

use core::{
    cmp::{Ordering, Reverse},
    time::Duration,
};

use heapless::Vec;

use super::{
    Entry, Filter, Instant, Key, MAX_ENVELOPE_LEN, MAX_LIST, Name, PeerId, Presence, RecordInfo,
    RecordRank, Role, Selection, Subject,
    codec::record::{Kind, contents},
    lease_table::{LeaseTable, Memory, StreamRecord},
    lost::{Lost, LostPeer},
    table::{Keyed, Table, TableStats, Vacant, keep_best},
    watch::{Change, Changes, Ring, fingerprint_of},
};

/// Envelopes of at most this many bytes are short: enough for a name of 40 bytes and three
/// addresses.
const SHORT: usize = 384;
/// Nodes that are looked at for one page of a list at most, so that a request which selects few
/// takes no longer than one that selects many.
const MAX_LOOKED_AT: usize = 512;

/// One node that can be found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    peer: &'a PeerId,
    name: &'a Name,
    rank: RecordRank,
    since: Instant,
    envelope: &'a [u8],
    ends: Instant,
    last_seen: Option<Instant>,
    is_connected: bool,
}

impl<'a> Found<'a> {
    /// The node.
    pub fn peer(&self) -> &'a PeerId {
        self.peer
    }

    /// Its signed record, as it was received.
    pub fn envelope(&self) -> &'a [u8] {
        self.envelope
    }

    /// When it was first listed here under its name. A new signature does not change it.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Receipt of its last heartbeat; `None` if it is not known.
    pub fn last_seen(&self) -> Option<Instant> {
        self.last_seen
    }

    /// Whether its heartbeat stream is open. Else it may be with another server.
    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// The same, as last heard under its lease.
    #[must_use]
    fn heard(self, lease: Option<&StreamRecord>) -> Self {
        Self {
            last_seen: lease.map(|lease| lease.last_seen),
            is_connected: lease.is_some_and(|lease| lease.connected),
            ..self
        }
    }

    fn is_meant(&self, filter: &Filter) -> bool {
        let record = || contents(Kind::Node, self.envelope);
        filter.admits_name(self.name)
            && (filter.is_of_names() || record().is_some_and(|record| filter.admits(&record)))
    }

    /// Its entry in a list at `now`.
    pub(super) fn entry(&self, now: Instant) -> Entry<'a> {
        Entry {
            subject: Subject::Signed(self.envelope),
            age: self.last_seen.map_or(Duration::ZERO, |seen| now - seen),
            presence: Presence::Alive,
        }
    }

    /// The rank of the record; see [`RecordInfo::rank`].
    pub(super) fn rank(&self) -> RecordRank {
        self.rank
    }
}

/// The older claim is the greater. A newcomer can outdo the rank of a record, but not the time for
/// which another has been here.
impl Ord for Found<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |found: &Self| (Reverse(found.since), found.rank, *found.peer);
        order(self).cmp(&order(other))
    }
}

impl PartialOrd for Found<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Found<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Found<'_> {}

/// The answer to a lookup by name.
#[derive(Clone, Debug, Default)]
pub struct Claimants<'a> {
    /// The nodes that claim it, the oldest claim first.
    pub nodes: Vec<Found<'a>, MAX_LIST, u8>,
    /// There are more than fit.
    pub more: bool,
    /// How many there are.
    pub count: usize,
}

/// A directory of at most `N` nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Directory<const N: usize> {
    short: Table<Listed<SHORT>, N>,
    long: Table<Listed<MAX_ENVELOPE_LEN>, N>,
    changes: Changes<Ring>,
    lost: Lost,
}

impl<const N: usize> Directory<N> {
    /// An empty directory.
    pub(crate) const fn new() -> Self {
        Self {
            short: Table::new(),
            long: Table::new(),
            changes: Changes::new(),
            lost: Lost::new(),
        }
    }

    /// Lists the subject of a record that it sent itself. Returns whether the record is new here. A
    /// record is never replaced by one that was signed earlier, whatever their times.
    pub(crate) fn list(&mut self, now: Instant, info: &RecordInfo, envelope: &[u8]) -> bool {
        let mut since = now;
        match self.find(&info.peer) {
            Some(old) if old.rank.sequence >= info.sequence => return false,
            Some(old) if *old.name == info.name => since = old.since,
            None if self.len() == N => {
                self.short.count_refusal();
                return false;
            }
            None => {
                self.back(now, &info.peer);
            }
            Some(_) => {}
        }
        let change = match self.find(&info.peer) {
            Some(old) if fingerprint_of(old.envelope) == fingerprint_of(envelope) => None,
            Some(_) => Some(Change::Changed),
            None => Some(Change::Present),
        };
        let ends = now + info.ttl;
        let is_listed = self.put(Times { since, ends }, info, envelope);
        if let Some(change) = change.filter(|_| is_listed) {
            self.changes.happened(&info.peer, change);
        }
        is_listed
    }

    fn put(&mut self, times: Times, info: &RecordInfo, envelope: &[u8]) -> bool {
        if let Some(entry) = Listed::<SHORT>::new(times, info, envelope) {
            self.long.remove(&info.peer);
            self.short.insert(entry).is_ok()
        } else if let Some(entry) = Listed::<MAX_ENVELOPE_LEN>::new(times, info, envelope) {
            self.short.remove(&info.peer);
            self.long.insert(entry).is_ok()
        } else {
            false
        }
    }

    /// Removes the node.
    ///
    /// `now_is` is its state from now on: it left, it was lost, or it is alive, because it is with
    /// another server, or is no node any more, or another device uses its id.
    pub(crate) fn unlist(&mut self, now: Instant, peer: &PeerId, now_is: Presence) {
        let name = self.find(peer).map(|found| found.name.clone());
        self.short.remove(peer);
        self.long.remove(peer);
        if name.is_some() {
            self.changes.happened(peer, Change::Gone);
        }
        match name {
            _ if now_is == Presence::Alive => {
                self.back(now, peer);
            }
            Some(name) => self.lose(now, peer, name, Role::Node, now_is),
            None => {}
        }
    }

    /// The nodes that have changed lately.
    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Takes note of a peer that is not listed here, or not any more, because it left or was lost.
    pub(crate) fn lose(
        &mut self,
        now: Instant,
        peer: &PeerId,
        name: Name,
        role: Role,
        now_is: Presence,
    ) {
        let lost = LostPeer {
            peer: *peer,
            name,
            role,
            presence: now_is,
            since: now,
            before: 0,
        };
        self.lost.add(now, lost);
    }

    /// The peer holds a lease here again. Returns how long it was gone, if it left or was lost
    /// within a day.
    pub(crate) fn back(&mut self, now: Instant, peer: &PeerId) -> Option<Duration> {
        self.lost.back(now, peer)
    }

    /// Whether the peer left or was lost within a day.
    pub(crate) fn memory_of(&self, peer: &PeerId) -> Memory {
        match self.lost.find(peer) {
            Some(_) => Memory::Remembered,
            None => Memory::None,
        }
    }

    /// The nodes that left or were lost.
    pub(crate) fn lost(&self) -> &Lost {
        &self.lost
    }

    /// The same, to be changed.
    pub(crate) fn lost_mut(&mut self) -> &mut Lost {
        &mut self.lost
    }

    /// The nodes that claim `name` at `now`. Names are not owned, so there may be several.
    pub(crate) fn claimants(&self, now: Instant, name: &str) -> Claimants<'_> {
        let mut claimants = Claimants::default();
        let short = self.short.iter().map(Listed::found);
        let all = short.chain(self.long.iter().map(Listed::found));
        for entry in all.filter(|entry| entry.name == name && now <= entry.ends) {
            claimants.count += 1;
            claimants.more |= claimants.nodes.is_full();
            keep_best(&mut claimants.nodes, entry);
        }
        claimants
    }

    /// Whether a node with this key is listed.
    pub(super) fn has(&self, key: &Key) -> bool {
        let short = self.short.iter().map(Listed::found);
        let mut all = short.chain(self.long.iter().map(Listed::found));
        all.any(|found| match key {
            Key::Name(name) => found.name == name,
            Key::Service(service) => {
                let record = contents(Kind::Node, found.envelope);
                record.is_some_and(|record| record.offers(service))
            }
        })
    }

    /// The node's entry, also if its record has ended.
    pub(crate) fn find(&self, peer: &PeerId) -> Option<Found<'_>> {
        let short = self.short.find(peer).map(Listed::found);
        short.or_else(|| self.long.find(peer).map(Listed::found))
    }

    /// As [`Directory::claimants`], with when each was last heard under its lease.
    pub(crate) fn claimants_heard<const S: usize>(
        &self,
        now: Instant,
        name: &str,
        leases: &LeaseTable<S>,
    ) -> Claimants<'_> {
        let mut claimants = self.claimants(now, name);
        for node in &mut claimants.nodes {
            *node = node.heard(leases.find(node.peer));
        }
        claimants
    }

    /// The node's entry at `now`, with when it was last heard under its lease.
    pub(crate) fn heard<const S: usize>(
        &self,
        now: Instant,
        peer: &PeerId,
        leases: &LeaseTable<S>,
    ) -> Option<Found<'_>> {
        let found = self.find(peer).filter(|found| now <= found.ends)?;
        Some(found.heard(leases.find(peer)))
    }

    /// The entry of a node in a list at `now`, also if it left or was lost.
    pub(crate) fn entry<const S: usize>(
        &self,
        now: Instant,
        peer: &PeerId,
        leases: &LeaseTable<S>,
    ) -> Option<Entry<'_>> {
        match self.heard(now, peer, leases) {
            Some(found) => Some(found.entry(now)),
            None => self.lost.find(peer).map(|lost| lost.entry(now)),
        }
    }

    /// Gives the selected nodes to `visit` in the order of their ids, until it has no room for one
    /// and returns false. With `gone`, those that left or were lost are among them; nothing is
    /// known of their services and tags any more. `lease` is that of a node.
    /// Returns the id after which to go on; `None` if all have been visited.
    pub(crate) fn entries<'s, 'l>(
        &'s self,
        now: Instant,
        Selection { filter, from, gone }: Selection<'_>,
        lease: impl Fn(&PeerId) -> Option<&'l StreamRecord>,
        visit: &mut dyn FnMut(Entry<'s>) -> bool,
    ) -> Option<PeerId> {
        let mut short = self.short.iter_from(from).map(Listed::found).peekable();
        let mut long = self.long.iter_from(from).map(Listed::found).peekable();
        let lost = gone.then(|| self.lost.nodes_from(from));
        let mut lost = lost.into_iter().flatten().peekable();
        let mut last = None;
        for looked_at in 0.. {
            let heads = [
                short.peek().map(|found| found.peer),
                long.peek().map(|found| found.peer),
                lost.peek().map(|lost| &lost.peer),
            ];
            let first = *heads.into_iter().flatten().min()?;
            let entry = if heads[2] == Some(&first) {
                let lost = lost.next()?;
                let is_meant = filter.admits_name(&lost.name) && filter.is_of_names();
                is_meant.then(|| lost.entry(now))
            } else {
                let is_short = heads[0] == Some(&first);
                let found = if is_short { short.next() } else { long.next() }?;
                let found = found.heard(lease(found.peer));
                (now <= found.ends && found.is_meant(filter)).then(|| found.entry(now))
            };
            if looked_at == MAX_LOOKED_AT || entry.is_some_and(|entry| !visit(entry)) {
                break;
            }
            last = Some(first);
        }
        last
    }

    /// The unused memory of the tables. Its content has no meaning.
    pub(crate) fn spare(&mut self) -> [Vacant<'_>; 2] {
        [self.short.spare(), self.long.spare()]
    }

    /// The statistics for `status`.
    pub(crate) fn stats(&self) -> TableStats {
        TableStats {
            used: self.len(),
            ..self.short.stats("directory")
        }
    }

    fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }
}

/// A node with an envelope of at most `E` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed<const E: usize> {
    peer: PeerId,
    name: Name,
    rank: RecordRank,
    times: Times,
    envelope: Vec<u8, E, u16>,
}

/// The times of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    /// Since when the node is listed under its name.
    since: Instant,
    /// When its record ends.
    ends: Instant,
}

impl<const E: usize> Listed<E> {
    fn new(times: Times, info: &RecordInfo, envelope: &[u8]) -> Option<Self> {
        Some(Self {
            peer: info.peer,
            name: info.name.clone(),
            rank: info.rank(),
            times,
            envelope: Vec::from_slice(envelope).ok()?,
        })
    }

    fn found(&self) -> Found<'_> {
        Found {
            peer: &self.peer,
            name: &self.name,
            rank: self.rank,
            since: self.times.since,
            ends: self.times.ends,
            envelope: &self.envelope,
            last_seen: None,
            is_connected: false,
        }
    }
}

impl<const E: usize> Keyed for Listed<E> {
    fn peer(&self) -> &PeerId {
        &self.peer
    }
}

#[cfg(test)]
mod tests;
