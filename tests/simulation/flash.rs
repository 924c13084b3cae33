//! The content of a device's flash, and when it is written, by the rules of the daemon's state
//! file.
//!
//! A write reserves an hour of sequences. The highest time is written when it has grown by an hour.
//! Other changes are written at most once a minute. After a crash the state is that of the last
//! write.

use oc_discovery::protocol::{Addrs, PeerId};

/// Sequences that one write reserves.
const SEQUENCE_RESERVE: u64 = 3_600_000;
/// How much the highest time must grow before it is written again, ms.
const TIME_STEP_MS: u64 = 3_600_000;
/// At most one write in this time, ms.
const WRITE_INTERVAL_MS: u64 = 60_000;

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Last sequence of the own record.
    pub sequence: u64,
    /// The highest trusted time, ms.
    pub highest_ms: u64,
    /// Indexers to try after a restart.
    pub indexers: Vec<(PeerId, Addrs)>,
}

/// The state, and its written part.
#[derive(Default)]
pub struct Flash {
    /// The present state of the process.
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

    /// Removes the indexers that an earlier process knew, as after a reinstallation.
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

    /// Takes note of a trusted time.
    pub fn note_time(&mut self, own_ms: u64) {
        self.state.highest_ms = self.state.highest_ms.max(own_ms);
    }

    /// Writes if there is a change that must be written and the last write is a minute ago.
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

    /// Writes the present state, for an orderly end.
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
