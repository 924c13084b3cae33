//! What a process keeps for its next start, and when it is written.
//!
//! Flash wears out, so a change is written at most once in `WRITE_INTERVAL`. These invariants
//! hold even after a crash:
//!
//! - *No sequence is used twice.* A record's sequence is max(last + 1, now in ms), so it grows with
//!   time, and writing each one would mean a write for each record. Instead each write reserves an
//!   hour of sequences: what is saved has one that is not used yet, and a record above it waits for
//!   the next reservation. After a crash the process continues above the whole reservation, and
//!   after an orderly end above the last one used. Only this write does not wait for its minute. It
//!   comes once an hour, or when the wall clock jumps. If it fails, the record is signed anyway:
//!   its sequence could repeat only after a crash *and* a clock that went back.
//! - *Time does not go back far.* The highest time is a lower bound, so only an hour of progress
//!   counts as a change. A crash loses less than that.
//! - *The known peers are hints* that are tried at the next start. They are in the order of their
//!   ids, so that another order is not a change.
//!
//! - *Peers that left or were lost* are kept with the time of their end, if that was known. An
//!   entry without a known time begins its day anew. So a wrong clock can keep an entry for
//!   longer than a day, but ends none early.
//!
//! A failed write is tried again after `WRITE_INTERVAL`.

use core::time::Duration;

use heapless::Vec;

use super::{
    Instant, Machine, Name, PeerId, Presence, Report, Role,
    capacities::MAX_NATIVES,
    lease::Lease,
    lost::{Lost, LostPeer},
    native::LiveIndexer,
    order::sort,
};

/// How often a process looks at what has changed.
pub const HOUSEKEEPING: Duration = Duration::from_secs(20);
/// At most one write in this time.
const WRITE_INTERVAL: Duration = Duration::from_secs(60);
/// Indexers remembered at most.
pub const MAX_REMEMBERED: usize = 64;

/// Sequences that one write reserves. They grow by one a millisecond.
const SEQUENCE_RESERVE: u64 = 3_600_000;
/// How much the highest time must grow before it is written again, ms.
const TIME_STEP_MS: u64 = 3_600_000;

/// By how much two readings of the time of one end may differ.
const SAME_END_MS: u64 = 60_000;

/// What survives a restart: two numbers, and the state that the host keeps beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved<T> {
    /// No record with a sequence above this one was signed; 0 if none was.
    pub record_sequence: u64,
    /// The highest trusted time, ms since the Unix epoch; 0 if there was none.
    pub highest_time_ms: u64,
    /// Whatever else is saved.
    pub state: T,
}

/// The present state, and what of it is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal<T> {
    present: Saved<T>,
    /// `None`: nothing was ever saved.
    saved: Option<Saved<T>>,
    last_write: Option<Instant>,
    is_failing: bool,
}

impl<T: Clone + Default + PartialEq> Journal<T> {
    /// Continues from what the last process saved.
    pub fn new(saved: Option<Saved<T>>) -> Self {
        Self {
            present: saved.clone().unwrap_or_default(),
            saved,
            last_write: None,
            is_failing: false,
        }
    }

    /// Continues from an older file, because the last one is lost. Sequences that were reserved in
    /// the last one are not used again: it reserved at most one reservation more.
    pub fn older(mut saved: Saved<T>) -> Self {
        let sequence = &mut saved.record_sequence;
        *sequence = sequence.saturating_add(2 * SEQUENCE_RESERVE);
        Self {
            saved: None,
            ..Self::new(Some(saved))
        }
    }

    /// The present state.
    pub fn present(&self) -> &Saved<T> {
        &self.present
    }

    /// What the host keeps. A change is written when it is due.
    pub fn state_mut(&mut self) -> &mut T {
        &mut self.present.state
    }

    /// Takes note of a trusted time, ms since the Unix epoch.
    pub fn note_time(&mut self, own_ms: u64) {
        self.present.highest_time_ms = self.present.highest_time_ms.max(own_ms);
    }

    /// The sequence of a record that is signed at wall-clock time `own_ms`. When this returns it is
    /// reserved, unless `write` has failed within `WRITE_INTERVAL`.
    pub fn next_sequence(
        &mut self,
        now: Instant,
        own_ms: u64,
        write: impl FnOnce(&Saved<T>) -> bool,
    ) -> u64 {
        let sequence = self.present.record_sequence.saturating_add(1).max(own_ms);
        self.present.record_sequence = sequence;
        self.save_if_due(now, write);
        sequence
    }

    /// When [`Journal::save_if_due`] writes next; `None` if nothing has changed.
    pub fn due(&self) -> Option<Instant> {
        let soonest = match self.last_write {
            Some(last) if self.is_failing || self.is_reserved() => last + WRITE_INTERVAL,
            _ => Instant::default(),
        };
        (!self.is_reserved() || self.has_changed()).then_some(soonest)
    }

    /// Saves what has changed, if that is due. `write` returns whether it has succeeded.
    pub fn save_if_due(&mut self, now: Instant, write: impl FnOnce(&Saved<T>) -> bool) {
        if self.due().is_some_and(|due| now >= due) {
            self.save(now, SEQUENCE_RESERVE, write);
        }
    }

    /// Saves the present state without a reservation. It is for an orderly end: no record may be
    /// signed after it.
    pub fn flush(&mut self, now: Instant, write: impl FnOnce(&Saved<T>) -> bool) {
        if self.saved.as_ref() != Some(&self.present) {
            self.save(now, 0, write);
        }
    }

    fn save(&mut self, now: Instant, reserve: u64, write: impl FnOnce(&Saved<T>) -> bool) {
        self.last_write = Some(now);
        let mut saved = self.present.clone();
        saved.record_sequence = saved.record_sequence.saturating_add(reserve);
        self.is_failing = !write(&saved);
        if !self.is_failing {
            self.saved = Some(saved);
        }
    }

    /// Whether the last sequence used is reserved.
    fn is_reserved(&self) -> bool {
        let reserved = self.saved.as_ref().map_or(0, |saved| saved.record_sequence);
        self.present.record_sequence <= reserved
    }

    /// Whether something else has changed that must be written.
    fn has_changed(&self) -> bool {
        let Saved {
            highest_time_ms,
            ref state,
            ..
        } = self.present;
        match &self.saved {
            Some(saved) => {
                highest_time_ms >= saved.highest_time_ms.saturating_add(TIME_STEP_MS)
                    || *state != saved.state
            }
            None => highest_time_ms >= TIME_STEP_MS || *state != T::default(),
        }
    }
}

/// The natives to try after a restart, in the order of their ids: those of this process.
pub fn natives(machine: &dyn Machine, now: Instant) -> Vec<PeerId, MAX_NATIVES> {
    let mut natives = Vec::new();
    machine.servers(now, &mut |server| {
        if server.role == Role::Native {
            // There is room: a machine has no more natives.
            let _ = natives.push(server.peer);
        }
    });
    sort(&mut natives, |one, other| one < other);
    natives
}

/// The indexers to try after a restart, in the order of their ids: those that a native lists, and
/// those with which another process holds or seeks leases. `None`: there are none now, so the
/// earlier ones are kept.
pub fn indexers(machine: &dyn Machine, now: Instant) -> Option<Vec<PeerId, MAX_REMEMBERED>> {
    let mut indexers = Indexers(Vec::new());
    machine.report(now, &mut indexers);
    let Indexers(mut indexers) = indexers;
    sort(&mut indexers, |one, other| one < other);
    (!indexers.is_empty()).then_some(indexers)
}

/// A peer that left or was lost, as it is kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedLost {
    /// The peer.
    pub peer: PeerId,
    /// The name that it had; empty for an indexer.
    pub name: Name,
    /// Its role.
    pub role: Role,
    /// [`Presence::Left`] or [`Presence::Lost`].
    pub presence: Presence,
    /// When its lease ended, ms since the Unix epoch; 0 if there was no trusted time.
    pub ended_ms: u64,
}

/// The peers that left or were lost, in the order of their ids. `settled_ms` is the time that may
/// be persisted, if there is one. `saved` is what this returned before: the time of an end stays as
/// it was, so that no change is written for a clock that is corrected a little.
pub fn lost<'m>(
    machine: &'m dyn Machine,
    now: Instant,
    settled_ms: Option<u64>,
    saved: &'m [SavedLost],
) -> impl Iterator<Item = SavedLost> + 'm {
    let all = machine.lost().into_iter().flat_map(Lost::iter);
    all.map(move |entry| {
        let age = u64::try_from(entry.age(now).as_millis()).unwrap_or(u64::MAX);
        let ended = settled_ms.map(|own| own.saturating_sub(age));
        let at = saved.binary_search_by_key(&entry.peer, |saved| saved.peer);
        let known = at.ok().and_then(|at| saved.get(at));
        let known = known.filter(|known| known.presence == entry.presence);
        let known = known.map(|known| known.ended_ms);
        let is_same = |known: &u64| ended.is_none_or(|now| now.abs_diff(*known) <= SAME_END_MS);
        SavedLost {
            peer: entry.peer,
            name: entry.name.clone(),
            role: entry.role,
            presence: entry.presence,
            ended_ms: known.filter(is_same).or(ended).unwrap_or_default(),
        }
    })
}

impl SavedLost {
    /// The entry in a process that starts at `now`. `own_ms` is a time that is surely not in the
    /// future: the trusted one, or the highest that was saved.
    pub fn restored(&self, now: Instant, own_ms: u64) -> LostPeer {
        let age = match self.ended_ms {
            0 => 0,
            ended => own_ms.saturating_sub(ended),
        };
        LostPeer {
            peer: self.peer,
            name: self.name.clone(),
            role: self.role,
            presence: self.presence,
            since: now,
            before: u32::try_from(age / 1000).unwrap_or(u32::MAX),
        }
    }
}

/// Collects indexers. If there are too many, the first are kept.
struct Indexers(Vec<PeerId, MAX_REMEMBERED>);

impl Report for Indexers {
    fn live_indexer(&mut self, entry: &LiveIndexer) {
        let _ = self.0.push(entry.peer);
    }

    fn lease(&mut self, lease: &Lease) {
        if lease.role() == Role::Indexer {
            let _ = self.0.push(*lease.server());
        }
    }
}

#[cfg(test)]
mod tests;
