//! What the process remembers, in the file `state` ([`codec`](super::codec) has its format).
//!
//! Flash wears out, so the file is written only on change and at most once a minute. These rules
//! hold even after a crash:
//!
//! - *No sequence is used twice.* A record's sequence is max(last + 1, now in ms), so it grows with
//!   time, and writing each one would mean a write for each record. Instead each write reserves an
//!   hour of sequences: the file has one that is not used yet, and a record above it waits for the
//!   next reservation. After a crash the process continues above the whole reservation, and after
//!   an orderly end above the last one used. Only this write does not wait for its minute. It comes
//!   once an hour, or when the wall clock jumps. If it fails, the record is signed anyway: its
//!   sequence could repeat only after a crash *and* a clock that went back.
//! - *Time does not go back far.* The highest time is a lower bound, so only an hour of progress
//!   counts as a change. A crash loses less than that.
//! - *The known peers are hints* that are tried at the next start. Their order has no meaning. They
//!   are sorted, so that another order is not a change.
//!
//! A failed write is retried after a minute, and the process goes on. It is logged when writes
//! begin to fail, when the reason changes, and when they succeed again.

use std::io;
use std::path::{Path, PathBuf};

use super::codec::{MAX_FILE_BYTES, decode, encode};
use super::file;
use crate::config::Role;
use crate::net::file::open;
use crate::protocol::{MAX_ADDR_LEN, MAX_ADDRS, capacities::MAX_NATIVES};
use libp2p::{Multiaddr, PeerId};

/// Indexers remembered at most.
pub(crate) const MAX_REMEMBERED: usize = 64;

const STATE: &str = "state";
const CORRUPT: &str = "state.corrupt";

/// At most one write in this time, in milliseconds.
const WRITE_INTERVAL_MS: u64 = 60_000;
/// Sequences that one write reserves. They grow by one a millisecond.
const SEQUENCE_RESERVE: u64 = 3_600_000;
/// How much the highest time must grow before it is written again, in milliseconds.
const TIME_STEP_MS: u64 = 3_600_000;

/// What survives a restart, besides the identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The last sequence that a signed record of ours had; 0 if there was none.
    pub record_sequence: u64,
    /// The highest trusted time, in milliseconds since the Unix epoch; 0 if there was none.
    pub highest_time_ms: u64,
    /// The port to listen on if none is configured; `None` if there was none yet.
    pub port: Option<u16>,
    /// The role of the process that wrote this; `None` if it is not in the file.
    pub role: Option<Role>,
    /// Natives, sorted by id, at most [`MAX_NATIVES`].
    pub natives: Vec<KnownPeer>,
    /// Indexers, sorted by id, at most [`MAX_REMEMBERED`].
    pub indexers: Vec<KnownPeer>,
}

/// A peer and its last addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownPeer {
    /// Its id.
    pub peer: PeerId,
    /// Its addresses, best first, without `/p2p`, at most [`MAX_ADDRS`].
    pub addrs: Vec<Multiaddr>,
}

/// The state, and the file in which it is saved. `now` is the boot time in milliseconds
/// ([`boottime`](crate::daemon::clock::boottime)).
#[derive(Debug, Default)]
pub(crate) struct StateFile {
    /// `None`: nothing is saved.
    dir: Option<PathBuf>,
    state: State,
    /// The content of the file; `None` if there is none.
    saved: Option<State>,
    last_attempt: Option<u64>,
    /// Why the last attempt failed, if it did.
    failed: Option<io::ErrorKind>,
}

impl StateFile {
    /// The state of the last run. A file that cannot be read or decoded is moved aside, and the
    /// state is empty: its content is useful, but the daemon can run without it.
    pub(super) fn load(dir: &Path) -> Self {
        let saved = match open(&dir.join(STATE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => {
                let read = opened.and_then(|file| file::read_at_most(&file, MAX_FILE_BYTES));
                let decoded = match read {
                    Ok(Some(bytes)) => decode(&bytes).map_err(|error| error.to_string()),
                    Ok(None) => Err(format!("longer than {MAX_FILE_BYTES} bytes")),
                    Err(error) => Err(error.to_string()),
                };
                decoded.map_err(|reason| move_aside(dir, &reason)).ok()
            }
        };
        Self {
            dir: Some(dir.to_path_buf()),
            state: saved.clone().unwrap_or_default(),
            saved,
            ..Self::default()
        }
    }

    /// A state that is not saved in a file, so it is lost when the process ends.
    pub(super) fn in_memory() -> Self {
        Self::default()
    }

    /// The present state.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The sequence of a record that is about to be signed: max(last + 1, `wall_ms`). It is
    /// reserved in the file when this returns, or a warning is in the log.
    pub(crate) fn next_sequence(&mut self, wall_ms: u64, now: u64) -> u64 {
        let sequence = self.state.record_sequence.saturating_add(1).max(wall_ms);
        self.state.record_sequence = sequence;
        let reserved = self.saved.as_ref().map_or(0, |saved| saved.record_sequence);
        let pausing = self.failed.is_some() && now < self.soonest();
        if sequence > reserved && !pausing {
            self.write(now, sequence.saturating_add(SEQUENCE_RESERVE));
        }
        sequence
    }

    /// Takes note of a trusted time, in milliseconds since the Unix epoch.
    pub(crate) fn note_time(&mut self, wall_ms: u64) {
        self.state.highest_time_ms = self.state.highest_time_ms.max(wall_ms);
    }

    /// Sets the role of this process, which is saved with the next write. Returns the role of the
    /// last run, if it was another.
    pub(crate) fn set_role(&mut self, role: Role) -> Option<Role> {
        let before = self.state.role.replace(role);
        before.filter(|before| *before != role)
    }

    /// Sets the port for the next start, and writes it at once if the last attempt is a minute ago.
    pub(crate) fn set_port(&mut self, port: u16, now: u64) {
        self.state.port = Some(port);
        self.save_if_due(now);
    }

    /// Sets the natives to remember. If there are too many, the first are kept.
    pub(crate) fn set_natives(&mut self, natives: Vec<KnownPeer>) {
        self.state.natives = bounded(natives, MAX_NATIVES);
    }

    /// Sets the indexers to remember. If there are too many, the first are kept.
    pub(crate) fn set_indexers(&mut self, indexers: Vec<KnownPeer>) {
        self.state.indexers = bounded(indexers, MAX_REMEMBERED);
    }

    /// When the file must be written next by [`save_if_due`](Self::save_if_due), as boot time.
    /// `None` if nothing has changed.
    pub(crate) fn due(&self) -> Option<u64> {
        self.changed().then(|| self.soonest())
    }

    /// Writes the file if something has changed and the last attempt is a minute ago.
    pub(crate) fn save_if_due(&mut self, now: u64) {
        if self.due().is_some_and(|due| now >= due) {
            let reserved = self.state.record_sequence.saturating_add(SEQUENCE_RESERVE);
            self.write(now, reserved);
        }
    }

    /// Writes the present state without a reservation. It is for an orderly end: no record may be
    /// signed after it.
    pub(crate) fn flush(&mut self, now: u64) {
        if self.saved.as_ref() != Some(&self.state) {
            self.write(now, self.state.record_sequence);
        }
    }

    /// When the next attempt may be made.
    fn soonest(&self) -> u64 {
        self.last_attempt
            .map_or(0, |last| last.saturating_add(WRITE_INTERVAL_MS))
    }

    /// Whether something has changed that must be written.
    fn changed(&self) -> bool {
        let State {
            record_sequence,
            highest_time_ms,
            port,
            role,
            natives,
            indexers,
        } = &self.state;
        let none = State::default();
        let saved = self.saved.as_ref().unwrap_or(&none);
        *record_sequence > saved.record_sequence
            || *highest_time_ms >= saved.highest_time_ms.saturating_add(TIME_STEP_MS)
            || *port != saved.port
            || *role != saved.role
            || *natives != saved.natives
            || *indexers != saved.indexers
    }

    fn write(&mut self, now: u64, record_sequence: u64) {
        self.last_attempt = Some(now);
        let state = State {
            record_sequence,
            ..self.state.clone()
        };
        let Some(dir) = &self.dir else {
            self.saved = Some(state);
            return;
        };
        let written = encode(&state)
            .map_err(io::Error::other)
            .and_then(|bytes| file::replace(dir, STATE, &bytes));
        let path = dir.join(STATE);
        let failed = written.as_ref().err().map(io::Error::kind);
        match written {
            Ok(()) => {
                self.saved = Some(state);
                if self.failed.is_some() {
                    log::info!("{} is written again", path.display());
                }
            }
            Err(error) if self.failed != failed => log::warn!(
                "cannot write {}: {error}; it is tried again each minute, and until then nothing is saved",
                path.display()
            ),
            Err(_) => {}
        }
        self.failed = failed;
    }
}

/// Moves a file that cannot be used aside, so that the operator can inspect it.
fn move_aside(dir: &Path, reason: &str) {
    let (from, to) = (dir.join(STATE), dir.join(CORRUPT));
    let moved = match std::fs::rename(&from, &to) {
        Ok(()) => format!("it is now {}", to.display()),
        Err(error) => format!("cannot be moved aside ({error}): move it away"),
    };
    log::warn!(
        "{} cannot be used ({reason}) and {moved}. The last run's port, natives, indexers, time and \
         record sequence are lost: give --native, and see that the clock is right",
        from.display()
    );
}

/// Limits the peers to the bounds, and sorts them by id.
pub(super) fn bounded(mut peers: Vec<KnownPeer>, max: usize) -> Vec<KnownPeer> {
    peers.truncate(max);
    for known in &mut peers {
        known.addrs.retain(|addr| addr.len() <= MAX_ADDR_LEN);
        known.addrs.truncate(MAX_ADDRS);
    }
    peers.sort_by_key(|known| known.peer.to_bytes());
    peers
}

#[cfg(test)]
pub(super) mod tests;
