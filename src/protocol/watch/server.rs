//! The watchers of this process, and what each of them is notified of next.
//!
//! ```text
//!            entries, in the order of ids            changes
//!  joined ────────────────────────────▶ caught up ───────────▶ …
//! ```
//!
//! While a watcher still receives the list, it is notified of changes of the nodes that it has
//! received already. So no watcher falls behind because the list is long.
//!
//! A watcher of a native is told to look for servers when it has joined, because it listed them
//! before, and whenever an indexer has become known here.
//!
//! Frames are made of the directory when they are sent. The host gives the next ones only when the
//! last ones are written, so a watcher that does not read costs one batch of frames here, and
//! what its stream holds.
//!
//! Invariants (PROTOCOL.md, section 5): there are at most `W` watchers; [`MAX_OF_PEER`] places are
//! kept for this process, and no peer has more than [`MAX_OF_PEER`]. One that has not read what it
//! was sent for [`READER_PATIENCE`], or during more than `MAX_CHANGES` changes, is closed.

use core::time::Duration;

use heapless::{HistoryBuf, Vec};

use super::{Change, Changes, MAX_CHANGES, WatcherId};
use crate::protocol::{
    Cursor, Entry, Filter, Instant, MAX_ENVELOPE_LEN, Machine, PeerId, Presence, Selection,
    Subject, TableStats,
    codec::{
        frame::{MAX_FRAME, MAX_HEADER, write_header},
        record::{Kind, contents},
        watch::{Notice, encode_notice},
    },
    native::NewestIndexer,
    time::Bucket,
};

/// Watchers of other peers that a process serves at most (PROTOCOL.md, section 5).
pub const MAX_WATCHERS: usize = 32;
/// Watchers of one peer at most, and places that are kept for readers of this process.
pub const MAX_OF_PEER: usize = 4;
/// How long a watcher may leave what it was sent unread.
pub const READER_PATIENCE: Duration = Duration::from_secs(10);

/// How many join: so many a second, so many at once. Each may look at 512 nodes in vain.
type Joins = Bucket<32, 64>;
/// The latest joins that count against a peer: as many as are let in within [`A_SECOND`]. Of these,
/// [`MAX_OF_PEER`] within that time are of one peer, so that it leaves the others their share.
const LATEST: usize = 32;
const A_SECOND: Duration = Duration::from_secs(1);
/// For how long a watcher that joins is told of a node that is gone: it may have known it before.
const TELLS_GONE: Duration = Duration::from_secs(300);

/// Bytes of frames that are sent at once: two of the longest.
pub const BATCH: usize = 2 * (MAX_FRAME + MAX_HEADER);
/// Bytes that the frame of an entry takes at most: the longest record, with what is around it.
const MAX_ENTRY_FRAME: usize = MAX_HEADER + MAX_ENVELOPE_LEN + 64;
/// Bytes of the frame that says *caught up*: its header and `{0: 4}`.
const CAUGHT_UP_FRAME: usize = 4;

/// Whole frames for one watcher.
pub type Batch = Vec<u8, BATCH, u16>;

/// What the host must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeStep {
    /// Write the batch on this stream; then call [`Watchers::written`].
    Tell(WatcherId),
    /// End this stream.
    Close(WatcherId),
}

/// At most `W` watchers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Watchers<const W: usize> {
    watchers: Vec<Watcher, W, u8>,
    /// Joins of other peers.
    joins: Joins,
    latest: HistoryBuf<(PeerId, Instant), LATEST>,
    refused: u64,
    closed: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Watcher {
    id: WatcherId,
    /// `None`: a reader of this process.
    peer: Option<PeerId>,
    filter: Filter,
    /// The number of the next change.
    next: u64,
    /// How many indexers were known when it was last told to look for servers.
    indexers: u64,
    /// The list has been sent up to this id; `None`: all of it.
    listed: Option<Cursor>,
    /// When the frames that it has not read were sent, and the number of the next change at that
    /// time.
    unread: Option<(Instant, u64)>,
}

impl<const W: usize> Watchers<W> {
    /// No watcher.
    pub const fn new() -> Self {
        Self {
            watchers: Vec::new(),
            joins: Joins::new(),
            latest: HistoryBuf::new(),
            refused: 0,
            closed: 0,
        }
    }

    /// A peer watches what the filter selects; without a peer, a reader of this process does.
    /// Returns false, and counts a refusal, if there are too many watchers, or too many join: its
    /// stream must be ended.
    pub fn join(
        &mut self,
        now: Instant,
        id: WatcherId,
        peer: Option<PeerId>,
        filter: Filter,
        changes: &Changes,
    ) -> bool {
        let watcher = Watcher {
            id,
            peer,
            filter,
            next: changes.next(),
            indexers: 0,
            listed: Some(Cursor::Start),
            unread: None,
        };
        let count = |is_it: &dyn Fn(&Watcher) -> bool| {
            self.watchers.iter().filter(|other| is_it(other)).count()
        };
        let has_place = count(&|other| other.peer == peer) < MAX_OF_PEER
            && (peer.is_none()
                || count(&|other| other.peer.is_some()) < W.saturating_sub(MAX_OF_PEER));
        let is_in_time = has_place && peer.is_none_or(|peer| self.is_let_in(now, peer));
        let is_served = is_in_time && self.watchers.push(watcher).is_ok();
        self.refused += u64::from(!is_served);
        is_served
    }

    fn is_let_in(&mut self, now: Instant, peer: PeerId) -> bool {
        let latest = self.latest.as_slice().iter();
        let own = latest.filter(|(of, at)| *of == peer && now - *at < A_SECOND);
        let is_let_in = own.count() < MAX_OF_PEER && self.joins.take(now);
        if is_let_in {
            self.latest.write((peer, now));
        }
        is_let_in
    }

    /// The stream is over.
    pub fn leave(&mut self, id: WatcherId) {
        self.watchers.retain(|watcher| watcher.id != id);
    }

    /// The last batch for this watcher is written.
    pub fn written(&mut self, id: WatcherId) {
        let watcher = self.watchers.iter_mut().find(|watcher| watcher.id == id);
        watcher
            .into_iter()
            .for_each(|watcher| watcher.unread = None);
    }

    /// The next step at `now`, if there is one; with [`ServeStep::Tell`] its frames are in `batch`.
    pub fn poll<M: Machine + ?Sized>(
        &mut self,
        now: Instant,
        machine: &M,
        batch: &mut Batch,
    ) -> Option<ServeStep> {
        let changes = machine.changes();
        let mut watchers = self.watchers.iter();
        if let Some(late) = watchers.find(|watcher| watcher.is_late(now, changes)) {
            let id = late.id;
            self.leave(id);
            self.closed += 1;
            return Some(ServeStep::Close(id));
        }
        for at in 0..self.watchers.len() {
            let watcher = self.watchers.get_mut(at)?;
            if watcher.unread.is_some() {
                continue;
            }
            batch.clear();
            watcher.fill(now, machine, batch);
            if !batch.is_empty() {
                watcher.unread = Some((now, changes.next()));
                return Some(ServeStep::Tell(watcher.id));
            }
            if watcher.listed.is_some() {
                // Its filter selected none of the many nodes looked at. The other watchers come
                // first now.
                self.watchers.get_mut(at..)?.rotate_left(1);
                return None;
            }
        }
        None
    }

    /// When [`Watchers::poll`] has a step without an event.
    pub fn timeout(&self) -> Option<Instant> {
        let due = |watcher: &Watcher| match (watcher.unread, watcher.listed) {
            (Some((since, _)), _) => Some(since + READER_PATIENCE),
            // It was notified of no node: there may be more behind these.
            (None, Some(_)) => Some(Instant::default()),
            (None, None) => None,
        };
        self.watchers.iter().filter_map(due).min()
    }

    /// The statistics for `status`: refused were those without a place, evicted those that were
    /// closed.
    pub fn stats(&self) -> TableStats {
        TableStats {
            name: "watchers",
            used: self.watchers.len(),
            capacity: W,
            refused: self.refused,
            evicted: self.closed,
        }
    }
}

impl Watcher {
    fn is_late(&self, now: Instant, changes: &Changes) -> bool {
        let is_slow = self.unread.is_some_and(|(since, next)| {
            now - since >= READER_PATIENCE
                || changes.next().saturating_sub(next) > MAX_CHANGES as u64
        });
        is_slow || changes.has_lost(self.next)
    }

    /// Adds frames to the batch, until it is full or there is nothing to send.
    fn fill<M: Machine + ?Sized>(&mut self, now: Instant, machine: &M, batch: &mut Batch) {
        let changes = machine.changes();
        if let Some(NewestIndexer { count, peer }) = machine.newest_indexer()
            && core::mem::replace(&mut self.indexers, count) != count
        {
            push(batch, &Notice::Gone(elsewhere(&peer)));
        }
        while let Some((peer, change)) = changes.at(self.next) {
            if room(batch) < MAX_ENTRY_FRAME {
                return;
            }
            if self.was_told_of(peer) && !changes.is_outdated(self.next) {
                let notice = notice_of(now, machine, peer, *change);
                // The watcher may know an earlier state of the node, which the filter selects.
                let is_known = *change != Change::Present || changes.is_repeated(self.next);
                if is_known || self.means(&notice) {
                    push(batch, &notice);
                }
            }
            self.next += 1;
        }
        let Some(cursor) = self.listed else {
            return;
        };
        if room(batch) < MAX_ENTRY_FRAME + CAUGHT_UP_FRAME {
            return;
        }
        let which = Selection {
            filter: &self.filter,
            from: cursor,
            gone: true,
        };
        let after = machine.entries(now, which, &mut |entry| {
            let is_gone = entry.presence != Presence::Alive;
            if is_gone && entry.age > TELLS_GONE {
                return true;
            }
            let is_fitting = room(batch) >= MAX_ENTRY_FRAME + CAUGHT_UP_FRAME;
            is_fitting
                && push(
                    batch,
                    &match is_gone {
                        true => Notice::Gone(entry),
                        false => Notice::Present(entry),
                    },
                )
        });
        self.listed = after.map(Cursor::After);
        if after.is_none() {
            push(batch, &Notice::CaughtUp);
        }
    }

    /// Whether the node's place in the list was passed already.
    fn was_told_of(&self, peer: &PeerId) -> bool {
        match &self.listed {
            Some(Cursor::Start) => false,
            Some(Cursor::After(last)) => peer <= last,
            None => true,
        }
    }

    fn means(&self, notice: &Notice<'_>) -> bool {
        match notice {
            Notice::Present(entry) | Notice::Changed(entry) | Notice::Gone(entry) => {
                match entry.subject {
                    Subject::Signed(envelope) => contents(Kind::Node, envelope)
                        .is_some_and(|record| self.filter.admits(&record)),
                    Subject::Named { name, .. } => self.filter.admits_name(name),
                }
            }
            Notice::CaughtUp => true,
        }
    }
}

/// The notice about a node now. If the server no longer knows why a node is gone, the node is with
/// another server: it has left this one.
fn notice_of<'m, M: Machine + ?Sized>(
    now: Instant,
    machine: &'m M,
    peer: &PeerId,
    change: Change,
) -> Notice<'m> {
    match machine.entry(now, peer) {
        Some(entry) if entry.presence != Presence::Alive => Notice::Gone(entry),
        Some(entry) if change == Change::Changed => Notice::Changed(entry),
        Some(entry) => Notice::Present(entry),
        None => Notice::Gone(elsewhere(peer)),
    }
}

/// The entry by which a watcher is told to look for servers that it does not know: this peer is
/// with such a server, or is one.
fn elsewhere<'m>(peer: &PeerId) -> Entry<'m> {
    Entry {
        subject: Subject::Named {
            peer: *peer,
            name: "",
        },
        age: Duration::ZERO,
        presence: Presence::Left,
    }
}

fn room(batch: &Batch) -> usize {
    BATCH - batch.len()
}

/// Adds the frame of a notice. Returns whether there was room.
fn push(batch: &mut Batch, notice: &Notice<'_>) -> bool {
    let mut buffer = [0; MAX_FRAME];
    let Ok(body) = encode_notice(notice, &mut buffer) else {
        return false;
    };
    let mut header = [0; MAX_HEADER];
    let header = write_header(body.len(), &mut header);
    let before = batch.len();
    let is_whole = batch.extend_from_slice(header).is_ok() && batch.extend_from_slice(body).is_ok();
    if !is_whole {
        batch.truncate(before);
    }
    is_whole
}

#[cfg(test)]
pub(super) mod tests;
