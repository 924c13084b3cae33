//! The content of a device's flash. It has no faults: each write succeeds at once.
//!
//! After a crash the state is that of the last write.

use oc_discovery::protocol::{
    Addrs, Instant, PeerId,
    restart::{Journal, Saved},
};

/// Indexers to try after a restart.
pub type Known = Vec<(PeerId, Addrs)>;

/// The state of a process, and the content of flash.
#[derive(Default)]
pub struct Flash {
    journal: Journal<Known>,
    content: Option<Saved<Known>>,
}

impl Flash {
    /// A new process reads what the last one wrote.
    pub fn reload(&mut self) {
        self.journal = Journal::new(self.content.clone());
    }

    /// The present state of the process.
    pub fn state(&self) -> &Saved<Known> {
        self.journal.present()
    }

    /// Sets the indexers to try after a restart.
    pub fn set_indexers(&mut self, indexers: Known) {
        *self.journal.state_mut() = indexers;
    }

    /// Puts indexers there, as if an earlier process had known them. Without any, it is as after a
    /// reinstallation.
    pub fn preset_indexers(&mut self, indexers: Known) {
        self.content.get_or_insert_default().state = indexers;
    }

    /// The sequence of a record that is signed at `own_ms`.
    pub fn next_sequence(&mut self, now: Instant, own_ms: u64) -> u64 {
        let Self { journal, content } = self;
        journal.next_sequence(now, own_ms, |saved| write(content, saved))
    }

    /// Takes note of a trusted time.
    pub fn note_time(&mut self, own_ms: u64) {
        self.journal.note_time(own_ms);
    }

    /// Writes if that is due.
    pub fn save_if_due(&mut self, now: Instant) {
        let Self { journal, content } = self;
        journal.save_if_due(now, |saved| write(content, saved));
    }

    /// Writes the present state, for an orderly end.
    pub fn flush(&mut self, now: Instant) {
        let Self { journal, content } = self;
        journal.flush(now, |saved| write(content, saved));
    }
}

fn write(content: &mut Option<Saved<Known>>, saved: &Saved<Known>) -> bool {
    *content = Some(saved.clone());
    true
}
