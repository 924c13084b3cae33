//! Why a command has no answer.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::locate::is_bound_in;
use crate::config::peer_id_fault;
use crate::daemon::{
    status::{Refusal, Span},
    storage,
};
use crate::protocol::MAX_NAME_LEN;

/// Why there is no answer. Its text is one sentence.
#[derive(Debug)]
pub(crate) enum Error {
    /// The argument of `find` is neither a name nor a peer id.
    Query(String),
    /// This is the peer id of a key that no peer of this system has.
    OtherKey(String),
    /// This begins as a peer id, and is none.
    NoPeerId(String),
    /// No daemon runs on this data directory.
    NotRunning(PathBuf),
    /// A daemon runs on this data directory, and it was removed or replaced.
    DirectoryGone(PathBuf),
    /// There is no such directory, or it is something else.
    NoDirectory(PathBuf),
    /// No daemon runs on any of the default data directories.
    NoneRunning,
    /// Daemons run in several of them: the directories.
    Several(Vec<PathBuf>),
    /// No daemon runs, and several of them have an identity: the directories.
    SeveralStopped(Vec<PathBuf>),
    /// The daemon of this directory belongs to another user.
    NotOurs(PathBuf),
    /// The daemon of this directory did not answer within this time.
    Deaf(PathBuf, Duration),
    /// The connection to the daemon of this directory failed.
    Io(PathBuf, io::Error),
    /// The daemon of this directory answered something else.
    Nonsense(PathBuf),
    /// The daemon of this directory has this version, and its answer lacks fields that this command
    /// needs.
    OtherVersion(PathBuf, String),
    /// The daemon ended before its answer did.
    CutShort,
    /// The daemon's own error message.
    Refused(String),
    /// The same, because too many others ask. The request may be repeated in a moment.
    Busy(String),
    /// No daemon runs, and the identity in the directory cannot be read.
    Identity(storage::StorageError),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal.again {
            Some(true) => Error::Busy(refusal.error),
            _ => Error::Refused(refusal.error),
        }
    }
}

impl Error {
    /// The exit code of a command that ends with this error: 2 for a usage error, otherwise 1.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Error::Query(_)
            | Error::OtherKey(_)
            | Error::NoPeerId(_)
            | Error::Several(_)
            | Error::SeveralStopped(_) => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::OtherKey(peer) => write!(
                f,
                "{peer} is not the peer id of an Ed25519 key (12D3…): no peer here has another one"
            ),
            Error::NoPeerId(text) => {
                write!(f, "{text:?} {}", peer_id_fault(text))
            }
            Error::Query(query) => write!(
                f,
                "{query:?} is neither a name, which is 1 to {} of a-z 0-9 - ., nor \
                 a peer id; give one of the two",
                MAX_NAME_LEN
            ),
            Error::NotRunning(dir) => write!(
                f,
                "no daemon runs on {}; start one with `oc-discovery native`, `indexer` or `node` \
                 and this --data-dir",
                dir.display()
            ),
            Error::DirectoryGone(dir) => write!(
                f,
                "a daemon runs on {}, and that directory was removed or replaced, so that the daemon cannot be asked",
                dir.display()
            ),
            Error::NoDirectory(dir) if dir.symlink_metadata().is_ok() => write!(
                f,
                "{} is no directory; give the data directory of a daemon",
                dir.display()
            ),
            Error::NoDirectory(dir) => write!(
                f,
                "there is no directory {}; give the data directory of a daemon",
                dir.display()
            ),
            Error::NoneRunning => write!(
                f,
                "no daemon runs on a default data directory; start one with `oc-discovery \
                 native`, `indexer` or `node`, name its directory with --data-dir, or ask as root \
                 if it is a service of the system"
            ),
            Error::Several(dirs) | Error::SeveralStopped(dirs) => {
                match self {
                    Error::Several(_) => f.write_str("there are several daemons")?,
                    _ => f.write_str("no daemon runs, and several have run here")?,
                }
                f.write_str("; choose one with --data-dir:")?;
                dirs.iter().enumerate().try_for_each(|(index, dir)| {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma} {}", dir.display())
                })
            }
            Error::NotOurs(dir) => write!(
                f,
                "the daemon on {} belongs to another user; ask as that user or as root, or, if it is a \
                 service of the system, become a member of the group oc-discovery: `usermod -aG oc-discovery USER`",
                dir.display()
            ),
            Error::Deaf(dir, patience) => write!(
                f,
                "the daemon on {} did not answer within {}; it may be stopped or \
                 overloaded",
                dir.display(),
                Span::of(*patience)
            ),
            Error::Io(dir, error) => {
                write!(f, "asking the daemon on {} failed: {error}", dir.display())
            }
            Error::Nonsense(dir) => write!(
                f,
                "the answer of the daemon on {} makes no sense; it may be of another version",
                dir.display()
            ),
            Error::OtherVersion(dir, version) => write!(
                f,
                "the daemon on {} is another oc-discovery (version {}, and this program has {}): its \
                 answer lacks what this one shows; restart the daemon with this program",
                dir.display(),
                version.escape_debug(),
                env!("CARGO_PKG_VERSION")
            ),
            Error::CutShort => f.write_str(
                "the daemon closed before the end of its answer: it has ended, or its answer was not read",
            ),
            Error::Refused(sentence) | Error::Busy(sentence) => f.write_str(sentence),
            Error::Identity(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// The error that this failure of the connection to the daemon of the directory means.
pub(super) fn explain(dir: &Path, patience: Duration, error: io::Error) -> Error {
    use io::ErrorKind::{
        ConnectionRefused, NotADirectory, NotFound, PermissionDenied, TimedOut, WouldBlock,
    };
    match error.kind() {
        NotFound | ConnectionRefused | NotADirectory if is_bound_in(dir) => {
            Error::DirectoryGone(dir.into())
        }
        NotFound | ConnectionRefused | NotADirectory if dir.is_dir() => {
            Error::NotRunning(dir.into())
        }
        NotFound | ConnectionRefused | NotADirectory => Error::NoDirectory(dir.into()),
        PermissionDenied => Error::NotOurs(dir.into()),
        TimedOut | WouldBlock => Error::Deaf(dir.into(), patience),
        _ => Error::Io(dir.into(), error),
    }
}
