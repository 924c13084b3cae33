//! The watches of one process, for its readers: operators, tasks and programs that follow changes;
//! and the watchers of its own directory.
//!
//! ```text
//!  servers ── frames ──▶ told ─┐                           ┌─▶ ChangedNode, at once
//!                              ├─▶ Watch, one of a reader ─┤
//!  own directory ──▶ hear_own ─┘                           └─▶ WatchAction::Gone, CaughtUp
//!       │
//!       └─▶ Watchers ──▶ WatchAction::Notify: frames for the watchers of other peers
//! ```
//!
//! Which servers are watched: this process if it lists nodes, those that it knows, and the indexers
//! that its natives list. They are looked up once for all readers that wait, so that a place is
//! left to the operator.
//!
//! Invariants: there are at most `W` readers, each with one stream at most to each server. After
//! each frame of a server the next is read when the reader has room; a reader without room for
//! [`READER_PATIENCE`] loses its watch. The own directory is read a batch at a time, with a pause
//! of [`OWN_PAUSE`], so that the host's loop gets on with other work. Its records were verified
//! when they were listed.

use core::time::Duration;

use heapless::Vec;

use super::{
    WatchAction, WatcherId,
    client::{Extent, MAX_WATCHED_SERVERS, Watch, WatchStep},
    hearing::{ChangedNode, NoticeError, Open, bodies, hear, open_of_member},
    server::{Batch, READER_PATIENCE, ServeStep, Watchers},
};
use crate::protocol::{
    Addrs, Filter, Instant, Machine, Offer, PeerId, Presence, Role, TableStats,
    codec::record::{Flaw, Kind, Verifier, contents},
    lookup::LookupId,
    table::Vacant,
};

/// The pause between two batches of the own directory.
pub const OWN_PAUSE: Duration = Duration::from_millis(1);

/// The number with which a reader watches the own directory is this and its own number.
const OWN: u64 = 1 << 63;

/// Names a reader. No number is used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderId(pub u64);

impl ReaderId {
    /// The reader, as a watcher of the own directory.
    fn own(self) -> WatcherId {
        WatcherId(OWN | self.0)
    }
}

/// At most `W` readers, each with a watch of at most `K` nodes, and at most `P` watchers, of which
/// some are these readers.
#[derive(Clone, Debug, PartialEq)]
pub struct Watches<const W: usize, const K: usize, const P: usize> {
    own: PeerId,
    watches: [Watch<K>; W],
    readers: Vec<WatchReader, W, u8>,
    /// The lookup of the servers that is under way.
    lookup: Option<LookupId>,
    watchers: Watchers<P>,
    batch: Batch,
    last: u64,
    refused: u64,
    /// Nodes that found no place in watches that are over.
    unplaced: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct WatchReader {
    id: ReaderId,
    /// The place of its watch.
    slot: u8,
    filter: Filter,
    list: List,
    /// The servers with a next frame that is left unread, as bits.
    unread: u64,
    /// When the next batch of the own directory is read, if one was read.
    own_from: Option<Instant>,
    /// Since when it has no room.
    behind: Option<Instant>,
}

/// Whether the servers are to be listed for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Known,
    Wanted,
    /// The lookup that is under way is for it, too.
    LookedUp,
}

impl<const W: usize, const K: usize, const P: usize> Watches<W, K, P> {
    /// No reader and no watcher. It is all zeroes and uninitialised memory, so that it can be
    /// placed in `.bss`.
    pub const fn new() -> Self {
        Self {
            own: PeerId::from_bytes([0; 32]),
            watches: [const { Watch::new() }; W],
            readers: Vec::new(),
            lookup: None,
            watchers: Watchers::new(),
            batch: Batch::new(),
            last: 0,
            refused: 0,
            unplaced: 0,
        }
    }

    /// Sets the peer id of this process.
    pub fn start(&mut self, own: PeerId) {
        self.own = own;
    }

    /// A reader watches what the filter selects. `seed` determines the jitter. `None`, and counted:
    /// there is no place for it.
    pub fn read(&mut self, now: Instant, seed: u64, filter: Filter) -> Option<ReaderId> {
        let is_used = |at: usize| self.readers.iter().any(|r| usize::from(r.slot) == at);
        let slot = (0..W).find(|at| !is_used(*at));
        let Some((slot, watch)) = slot.and_then(|at| Some((at, self.watches.get_mut(at)?))) else {
            self.refused += 1;
            return None;
        };
        // With a filter, a node that is no longer listed may only have changed.
        let unconfirmed_are = match filter == Filter::default() {
            true => Presence::Lost,
            false => Presence::Left,
        };
        watch.start(now, seed, unconfirmed_are);
        self.last += 1;
        let reader = WatchReader {
            id: ReaderId(self.last),
            slot: slot as u8,
            filter,
            list: List::Known,
            unread: 0,
            own_from: None,
            behind: None,
        };
        self.readers.push(reader).ok()?;
        Some(ReaderId(self.last))
    }

    /// The reader has left. The host ends its streams.
    pub fn leave(&mut self, now: Instant, reader: ReaderId) {
        self.watchers.leave(reader.own());
        if let Some((_, watch)) = self.reader(reader) {
            let refused = watch.stats().refused;
            watch.start(now, 0, Presence::Lost);
            self.unplaced += refused;
        }
        self.readers.retain(|other| other.id != reader);
    }

    /// The reader has room for what is said: its watch goes on.
    pub fn has_room(&mut self, reader: ReaderId) {
        if let Some((reader, _)) = self.reader(reader) {
            reader.behind = None;
        }
    }

    /// The reader has no room now. Nothing is said to it, except what its servers have sent
    /// already.
    pub fn has_no_room(&mut self, now: Instant, reader: ReaderId) {
        if let Some((reader, _)) = self.reader(reader) {
            reader.behind.get_or_insert(now);
        }
    }

    /// What the reader asks for, and its watch, which tells the servers that are silent.
    pub fn of(&self, reader: ReaderId) -> Option<(&Filter, &Watch<K>)> {
        let reader = self.readers.iter().find(|other| other.id == reader)?;
        let watch = self.watches.get(usize::from(reader.slot))?;
        Some((&reader.filter, watch))
    }

    /// Takes the body of a server's frame ([`WatchAction::Open`]). What is new of a node that is
    /// there is given to `say`. The next frame is read at [`WatchAction::ReadOn`].
    ///
    /// # Errors
    /// It cannot be read, so the stream must be ended.
    pub fn told(
        &mut self,
        now: Instant,
        (reader, server): (ReaderId, &PeerId),
        body: &[u8],
        verifier: &impl Verifier,
        say: &mut dyn FnMut(&ChangedNode<'_>),
    ) -> Result<(), NoticeError> {
        let Some((reader, watch)) = self.reader(reader) else {
            return Ok(());
        };
        let open: Open<'_> = &|envelope, read| open_of_member(verifier, envelope, read);
        let heard = hear(watch, (now, server), &reader.filter, body, open, say);
        match heard {
            Ok(()) => reader.unread |= watch.bit(server),
            Err(_) => watch.ended(now, server),
        }
        heard
    }

    /// Takes what the own directory says ([`WatchAction::Hear`]). What is new of a node that is
    /// there is given to `say`.
    pub fn hear_own(
        &mut self,
        now: Instant,
        reader: ReaderId,
        say: &mut dyn FnMut(&ChangedNode<'_>),
    ) {
        let Self {
            own,
            readers,
            watches,
            batch,
            ..
        } = self;
        let open: Open<'_> = &|envelope, read| {
            let record = contents(Kind::Node, envelope).ok_or(Flaw::NotAnEnvelope)?;
            read(&record);
            Ok(())
        };
        if let Some((reader, watch)) = find(readers, watches, reader) {
            reader.own_from = Some(now + OWN_PAUSE);
            for body in bodies(batch) {
                // Frames of this process can be read.
                let _ = hear(watch, (now, own), &reader.filter, body, open, say);
            }
        }
    }

    /// The stream to a server is over, or could not be opened.
    pub fn ended(&mut self, now: Instant, (reader, server): (ReaderId, &PeerId)) {
        if let Some((reader, watch)) = self.reader(reader) {
            reader.unread &= !watch.bit(server);
            watch.ended(now, server);
        }
    }

    /// The watchers of the own directory.
    pub fn watchers(&mut self) -> &mut Watchers<P> {
        &mut self.watchers
    }

    /// Whole frames for the watcher of the last [`WatchAction::Notify`]. They can be read until the
    /// next poll.
    pub fn frames(&self) -> &[u8] {
        &self.batch
    }

    fn reader(&mut self, id: ReaderId) -> Option<(&mut WatchReader, &mut Watch<K>)> {
        find(&mut self.readers, &mut self.watches, id)
    }

    /// The process did not run for this time.
    pub(in crate::protocol) fn overslept(&mut self, now: Instant, gap: Duration) {
        let watches = self.watches.iter_mut();
        watches.for_each(|watch| watch.overslept(now, gap));
    }

    /// Whether a lookup of the servers is to begin.
    pub(in crate::protocol) fn wants_list(&self) -> bool {
        let mut readers = self.readers.iter();
        self.lookup.is_none() && readers.any(|reader| reader.list == List::Wanted)
    }

    /// A lookup of the servers has begun, for all that wait. `None`: there is no place for one, so
    /// [`Watches::listed`] follows at once.
    pub(in crate::protocol) fn list_begun(&mut self, lookup: Option<LookupId>) {
        self.lookup = lookup;
        let waiting = self.readers.iter_mut();
        let waiting = waiting.filter(|reader| reader.list == List::Wanted);
        waiting.for_each(|reader| reader.list = List::LookedUp);
    }

    /// Whether this is the lookup of the servers.
    pub(in crate::protocol) fn is_looking(&self, lookup: LookupId) -> bool {
        self.lookup == Some(lookup)
    }

    /// Takes the indexers that were found, and how far their list goes.
    pub(in crate::protocol) fn listed<M: Machine + ?Sized>(
        &mut self,
        now: Instant,
        machine: &M,
        found: &[Offer],
        extent: Extent,
    ) {
        self.lookup = None;
        let own = self.own;
        let mut known = Vec::<PeerId, MAX_WATCHED_SERVERS>::new();
        let mut know = |peer: PeerId| {
            if !known.contains(&peer) {
                // They are few: this process, its natives, and those with leases.
                let _ = known.push(peer);
            }
        };
        if machine.role() != Role::Node {
            know(own);
        }
        machine.servers(now, &mut |server| know(server.peer));
        let nowhere = Addrs::new();
        let addrs_of = |peer: &PeerId| match *peer == own {
            true => &nowhere,
            false => machine.addrs_of(peer).unwrap_or(&nowhere),
        };
        let others = found.iter().filter(|offer| !known.contains(&offer.peer));
        let others = others.map(|offer| (offer.peer, &offer.addrs));
        let servers = known.iter().map(|peer| (*peer, addrs_of(peer)));
        let servers = servers.chain(others);
        for reader in &mut self.readers {
            if reader.list == List::LookedUp
                && let Some(watch) = self.watches.get_mut(usize::from(reader.slot))
            {
                reader.list = List::Known;
                watch.listed(now, servers.clone(), extent);
            }
        }
    }

    /// The next action at `now`, if there is one.
    pub(in crate::protocol) fn poll<M: Machine + ?Sized>(
        &mut self,
        now: Instant,
        machine: &M,
    ) -> Option<WatchAction> {
        if !self.readers.is_empty() {
            self.note_servers(now, machine);
        }
        for at in 0..self.readers.len() {
            let action = self.advance(now, at, machine);
            if action.is_some() {
                return action;
            }
        }
        self.serve(now, machine)
    }

    /// Notes the servers that this process knows.
    fn note_servers<M: Machine + ?Sized>(&mut self, now: Instant, machine: &M) {
        let mut number = 0;
        machine.servers(now, &mut |server| {
            let [a, b, c, d, e, f, g, h, ..] = *server.peer.as_bytes();
            number ^= u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        });
        for reader in &self.readers {
            let watch = self.watches.get_mut(usize::from(reader.slot));
            watch
                .into_iter()
                .for_each(|watch| watch.knows_servers(number));
        }
    }

    /// The next step of a reader's watch, while there is room for what is said.
    fn advance<M: Machine + ?Sized>(
        &mut self,
        now: Instant,
        at: usize,
        machine: &M,
    ) -> Option<WatchAction> {
        let reader = self.readers.get_mut(at)?;
        let watch = self.watches.get_mut(usize::from(reader.slot))?;
        let id = reader.id;
        if let Some(since) = reader.behind {
            if now - since < READER_PATIENCE {
                return None;
            }
            self.leave(now, id);
            return Some(WatchAction::Behind { reader: id });
        }
        if reader.own_from.is_some_and(|from| from <= now) {
            reader.own_from = None;
            self.watchers.written(id.own());
        }
        while reader.unread != 0 {
            let slot = reader.unread.trailing_zeros();
            reader.unread &= reader.unread - 1;
            if let Some(server) = watch.server_of(slot) {
                return Some(WatchAction::ReadOn { reader: id, server });
            }
        }
        loop {
            return Some(match watch.poll(now)? {
                WatchStep::List => {
                    reader.list = List::Wanted;
                    continue;
                }
                WatchStep::Open { server, .. } if server == self.own => {
                    let (watcher, filter) = (id.own(), reader.filter.clone());
                    self.watchers.leave(watcher);
                    let changes = machine.changes();
                    if !self.watchers.join(now, watcher, None, filter, changes) {
                        watch.ended(now, &server);
                    }
                    continue;
                }
                WatchStep::Open { server, addrs } => WatchAction::Open {
                    reader: id,
                    server,
                    addrs,
                },
                WatchStep::Gone {
                    peer,
                    name,
                    how,
                    ago,
                } => WatchAction::Gone {
                    reader: id,
                    peer,
                    name,
                    how,
                    ago,
                },
                WatchStep::CaughtUp { blind } => WatchAction::CaughtUp { reader: id, blind },
            });
        }
    }

    /// The next frames for a watcher of the own directory.
    fn serve<M: Machine + ?Sized>(&mut self, now: Instant, machine: &M) -> Option<WatchAction> {
        loop {
            let step = self.watchers.poll(now, machine, &mut self.batch)?;
            let (ServeStep::Tell(watcher) | ServeStep::Close(watcher)) = step;
            let mut readers = self.readers.iter();
            let reader = readers.find(|reader| reader.id.own() == watcher);
            let reader = reader.map(|reader| reader.id);
            match (step, reader) {
                (ServeStep::Tell(_), Some(reader)) => return Some(WatchAction::Hear { reader }),
                (ServeStep::Tell(_), None) => return Some(WatchAction::Notify { watcher }),
                (ServeStep::Close(_), None) => return Some(WatchAction::Dismiss { watcher }),
                (ServeStep::Close(_), Some(reader)) => {
                    let own = self.own;
                    self.ended(now, (reader, &own));
                }
            }
        }
    }

    /// When [`Watches::poll`] has an action without an event.
    pub(in crate::protocol) fn timeout(&self) -> Option<Instant> {
        let due = self.readers.iter().filter_map(|reader| {
            if let Some(since) = reader.behind {
                return Some(since + READER_PATIENCE);
            }
            if reader.unread != 0 {
                return Some(Instant::default());
            }
            let watch = self.watches.get(usize::from(reader.slot))?.timeout();
            watch.into_iter().chain(reader.own_from).min()
        });
        due.chain(self.watchers.timeout()).min()
    }

    /// The unused memory of the watches.
    pub fn spare(&mut self) -> impl Iterator<Item = Vacant<'_>> {
        self.watches.iter_mut().map(Watch::spare)
    }

    /// The statistics for `status`: of the readers; of the nodes of all watches, where of several
    /// the one is meant that knows most; of the watchers.
    pub fn stats(&self) -> [TableStats; 3] {
        let readers = TableStats {
            name: "watches",
            used: self.readers.len(),
            capacity: W,
            refused: self.refused,
            evicted: 0,
        };
        let each = || self.watches.iter().map(Watch::stats);
        let most = each().max_by_key(|stats| stats.used);
        let mut watched = most.unwrap_or(readers);
        watched.refused = self.unplaced + each().map(|stats| stats.refused).sum::<u64>();
        [readers, watched, self.watchers.stats()]
    }
}

/// The reader with this number, and its watch.
fn find<'a, const K: usize>(
    readers: &'a mut [WatchReader],
    watches: &'a mut [Watch<K>],
    id: ReaderId,
) -> Option<(&'a mut WatchReader, &'a mut Watch<K>)> {
    let reader = readers.iter_mut().find(|reader| reader.id == id)?;
    let watch = watches.get_mut(usize::from(reader.slot))?;
    Some((reader, watch))
}

impl<const W: usize, const K: usize, const P: usize> Default for Watches<W, K, P> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
