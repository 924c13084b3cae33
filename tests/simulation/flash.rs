//! What a device has on flash, and when it is written: the rules of the daemon's state file.
//!
//! A write reserves an hour of sequences; the highest time is worth a write when it grew by an
//! hour; other changes are written at most once a minute. A crash goes back to what was written.

use oc_discovery::protocol::{Addrs, PeerId};

/// Sequences that one write reserves.
const SEQUENCE_RESERVE: u64 = 3_600_000;
/// The highest time has to grow by this much to be worth a write, ms.
const TIME_STEP_MS: u64 = 3_600_000;
/// At most one write in this time, ms.
const WRITE_INTERVAL_MS: u64 = 60_000;

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Last sequence of the own record.
    pub sequence: u64,
    /// The highest time that could be trusted, ms.
    pub highest_ms: u64,
    /// Indexers worth trying.
    pub indexers: Vec<(PeerId, Addrs)>,
}

/// The state, and what of it is written.
#[derive(Default)]
pub struct Flash {
    /// The state as the process has it.
    pub state: State,
    saved: State,
    last_write: Option<u64>,
}

impl Flash {
    /// A new process reads what the last one wrote.
    pub fn reload(&mut self) {
        self.state = self.saved.clone();
        self.last_write = None;
    }

    /// Indexers that an earlier process knew are forgotten, as after a reinstallation.
    pub fn lose_indexers(&mut self) {
        self.saved.indexers.clear();
    }

    /// Puts indexers there, as if an earlier process had known them.
    pub fn preset_indexers(&mut self, indexers: Vec<(PeerId, Addrs)>) {
        self.saved.indexers = indexers;
    }

    /// The sequence of a record that is signed at `own_ms`.
    pub fn next_sequence(&mut self, own_ms: u64, now: u64) -> u64 {
        let sequence = self.state.sequence.saturating_add(1).max(own_ms);
        self.state.sequence = sequence;
        if sequence > self.saved.sequence {
            self.write(now, sequence.saturating_add(SEQUENCE_RESERVE));
        }
        sequence
    }

    /// Takes note of a time that can be trusted.
    pub fn note_time(&mut self, own_ms: u64) {
        self.state.highest_ms = self.state.highest_ms.max(own_ms);
    }

    /// Writes if there is a change worth it and the last write is a minute ago.
    pub fn save_if_due(&mut self, now: u64) {
        let changed = self.state.sequence > self.saved.sequence
            || self.state.highest_ms >= self.saved.highest_ms.saturating_add(TIME_STEP_MS)
            || self.state.indexers != self.saved.indexers;
        let pausing = self
            .last_write
            .is_some_and(|last| now < last + WRITE_INTERVAL_MS);
        if changed && !pausing {
            self.write(now, self.state.sequence.saturating_add(SEQUENCE_RESERVE));
        }
    }

    /// Writes the state as it is: an orderly end.
    pub fn flush(&mut self) {
        self.saved = self.state.clone();
    }

    fn write(&mut self, now: u64, sequence: u64) {
        self.last_write = Some(now);
        self.saved = State {
            sequence,
            ..self.state.clone()
        };
    }
}
