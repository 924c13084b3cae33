//! What the process remembers, in the file `state` ([`codec`](super::codec) has its format).
//! [`protocol::restart`](crate::protocol::restart) decides when it is written.
//!
//! The process goes on when a write fails. It is logged when writes begin to fail, when the reason
//! changes, and when they succeed again.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::codec::{MAX_FILE_BYTES, decode, encode};
use super::file;
use crate::config::Role;
use crate::net::file::open;
use crate::protocol::{
    Addrs, Instant, PeerId,
    restart::{Journal, Saved, SavedLost},
};

const STATE: &str = "state";
const BEFORE: &str = "state.old";
const CORRUPT: &str = "state.corrupt";
/// The files in which a peer remembers anything.
#[cfg(feature = "program")]
pub(super) const FILES: [&str; 3] = [STATE, BEFORE, CORRUPT];

/// What survives a restart, besides the identity, the last sequence and the highest time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The port to listen on if none is configured; `None` if there was none yet.
    pub port: Option<u16>,
    /// The role of the process that wrote this; `None` if it is not in the file.
    pub role: Option<Role>,
    /// Natives, sorted by id, at most [`MAX_NATIVES`](crate::protocol::capacities::MAX_NATIVES).
    pub natives: Vec<KnownPeer>,
    /// Indexers, sorted by id, at most
    /// [`MAX_REMEMBERED`](crate::protocol::restart::MAX_REMEMBERED).
    pub indexers: Vec<KnownPeer>,
    /// The peers that left or were lost, sorted by id, at most
    /// [`MAX_LOST`](crate::protocol::capacities::MAX_LOST). The list is shared, so that comparing a
    /// state with the saved one costs little while the list is the same.
    pub lost: Rc<Vec<SavedLost>>,
}

/// A peer and its last addresses.
pub(crate) type KnownPeer = (PeerId, Addrs);

/// The state, and the file in which it is saved.
#[derive(Debug, Default)]
pub(crate) struct StateFile {
    journal: Journal<State>,
    disk: Disk,
}

/// Where the state is saved.
#[derive(Debug, Default)]
struct Disk {
    /// `None`: nothing is saved.
    dir: Option<PathBuf>,
    /// Why the last attempt failed, if it did.
    failed: Option<io::ErrorKind>,
    /// The file that is there cannot be used, so it must not take the place of the one before.
    is_corrupt: bool,
}

impl StateFile {
    /// The state of the last run. A file that cannot be read or decoded is moved aside, and the one
    /// before it is used. If that cannot be used either, the state is empty: its content is useful,
    /// but the daemon can run without it.
    pub(super) fn load(dir: &Path) -> Self {
        let mut is_corrupt = false;
        let journal = match read(&dir.join(STATE)) {
            Ok(Some(saved)) => Journal::new(Some(saved)),
            newest => {
                let before = read(&dir.join(BEFORE)).ok().flatten();
                if let Err(reason) = newest {
                    is_corrupt = !move_aside(dir, &reason, before.is_some());
                }
                before.map_or_else(|| Journal::new(None), Journal::older)
            }
        };
        Self {
            journal,
            disk: Disk {
                dir: Some(dir.to_path_buf()),
                failed: None,
                is_corrupt,
            },
        }
    }

    /// A state that is not saved in a file, so it is lost when the process ends.
    pub(super) fn in_memory() -> Self {
        Self::default()
    }

    /// The present state, with the last sequence and the highest time.
    pub(crate) fn state(&self) -> &Saved<State> {
        self.journal.present()
    }

    /// What is to be saved, when it is due.
    pub(crate) fn state_mut(&mut self) -> &mut State {
        self.journal.state_mut()
    }

    /// The sequence of a record that is about to be signed. It is reserved in the file when this
    /// returns, or a warning is in the log.
    pub(crate) fn next_sequence(&mut self, now: Instant, own_ms: u64) -> u64 {
        let Self { journal, disk } = self;
        journal.next_sequence(now, own_ms, |state| disk.write(state))
    }

    /// Takes note of a trusted time, in milliseconds since the Unix epoch.
    pub(crate) fn note_time(&mut self, wall_ms: u64) {
        self.journal.note_time(wall_ms);
    }

    /// Sets the role of this process, which is saved with the next write. Returns the role of the
    /// last run, if it was another.
    pub(crate) fn set_role(&mut self, role: Role) -> Option<Role> {
        let before = self.state_mut().role.replace(role);
        before.filter(|before| *before != role)
    }

    /// Sets the port for the next start, and writes it at once if the last attempt is a minute ago.
    pub(crate) fn set_port(&mut self, now: Instant, port: u16) {
        self.state_mut().port = Some(port);
        self.save_if_due(now);
    }

    /// Writes the file if that is due.
    pub(crate) fn save_if_due(&mut self, now: Instant) {
        let Self { journal, disk } = self;
        journal.save_if_due(now, |state| disk.write(state));
    }

    /// Writes the present state for an orderly end: no record may be signed after it.
    pub(crate) fn flush(&mut self, now: Instant) {
        let Self { journal, disk } = self;
        journal.flush(now, |state| disk.write(state));
    }
}

/// What is in a file; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<Saved<State>>, String> {
    let file = match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| error.to_string())?,
    };
    match file::read_at_most(&file, MAX_FILE_BYTES) {
        Ok(Some(bytes)) => match decode(&bytes) {
            Ok(saved) => Ok(Some(saved)),
            Err(error) => Err(error.to_string()),
        },
        Ok(None) => Err(format!("longer than {MAX_FILE_BYTES} bytes")),
        Err(error) => Err(error.to_string()),
    }
}

impl Disk {
    /// Writes the file. Returns whether it has succeeded.
    fn write(&mut self, state: &Saved<State>) -> bool {
        let Some(dir) = &self.dir else {
            return true;
        };
        let written =
            encode(state)
                .map_err(io::Error::other)
                .and_then(|bytes| match self.is_corrupt {
                    true => file::replace(dir, STATE, &bytes),
                    false => file::replace_and_keep(dir, STATE, BEFORE, &bytes),
                });
        self.is_corrupt &= written.is_err();
        let path = dir.join(STATE);
        let failed = written.as_ref().err().map(io::Error::kind);
        match written {
            Ok(()) if self.failed.is_some() => log::info!("{} is written again", path.display()),
            Err(error) if self.failed != failed => log::warn!(
                "cannot write {}: {error}; it is tried again each minute, and until then nothing is saved",
                path.display()
            ),
            Ok(()) | Err(_) => {}
        }
        self.failed = failed;
        failed.is_none()
    }
}

/// Moves a file that cannot be used aside, so that the operator can inspect it. Returns whether it
/// has succeeded.
fn move_aside(dir: &Path, reason: &str, has_older: bool) -> bool {
    let (from, to) = (dir.join(STATE), dir.join(CORRUPT));
    let renamed = std::fs::rename(&from, &to);
    let moved = match &renamed {
        Ok(()) => format!("it is now {}", to.display()),
        Err(error) => format!("cannot be moved aside ({error}): move it away"),
    };
    let from = from.display();
    match has_older {
        true => log::warn!(
            "{from} cannot be used ({reason}) and {moved}. The one before it is used instead: {}",
            dir.join(BEFORE).display()
        ),
        false => log::warn!(
            "{from} cannot be used ({reason}) and {moved}. The last run's port, natives, indexers, lost peers, time \
             and record sequence are lost: give --native, and see that the clock is right"
        ),
    }
    renamed.is_ok()
}

#[cfg(test)]
pub(super) mod tests;
