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

    /// What is wrong, without what to do about it.
    pub(crate) fn what(&self) -> What<'_> {
        What(self)
    }

    fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Error::Query(_) => "give one of the two",
            Error::NotRunning(_) => {
                "start one with `oc-discovery native`, `indexer` or `node` and this --data-dir"
            }
            Error::NoDirectory(_) => "give the data directory of a daemon",
            Error::NoneRunning => {
                "start one with `oc-discovery native`, `indexer` or `node`, name its directory with --data-dir, or ask \
                 as root if it is a service of the system"
            }
            Error::Several(_) | Error::SeveralStopped(_) => "choose one with --data-dir",
            Error::NotOurs(_) => {
                "ask as that user or as root, or, if it is a service of the system, become a member of the group \
                 oc-discovery: `usermod -aG oc-discovery USER`"
            }
            Error::Deaf(..) => "it may be stopped or overloaded",
            Error::Nonsense(_) => "it may be of another version",
            Error::OtherVersion(..) => "restart the daemon with this program",
            Error::OtherKey(_)
            | Error::NoPeerId(_)
            | Error::DirectoryGone(_)
            | Error::Io(..)
            | Error::CutShort
            | Error::Refused(_)
            | Error::Busy(_)
            | Error::Identity(_) => return None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.what().fmt(f)?;
        self.advice()
            .map_or(Ok(()), |advice| write!(f, "; {advice}"))?;
        let (Error::Several(dirs) | Error::SeveralStopped(dirs)) = self else {
            return Ok(());
        };
        dirs.iter().enumerate().try_for_each(|(index, dir)| {
            let before = if index == 0 { ":" } else { "," };
            write!(f, "{before} {}", dir.display())
        })
    }
}

/// What is wrong, without what to do about it.
pub(crate) struct What<'e>(&'e Error);

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::OtherKey(peer) => write!(
                f,
                "{peer} is not the peer id of an Ed25519 key (12D3…): no peer here has another one"
            ),
            Error::NoPeerId(text) => write!(f, "{text:?} {}", peer_id_fault(text)),
            Error::Query(query) => write!(
                f,
                "{query:?} is neither a name, which is 1 to {MAX_NAME_LEN} of a-z 0-9 - ., nor a peer id"
            ),
            Error::NotRunning(dir) => write!(f, "no daemon runs on {}", dir.display()),
            Error::DirectoryGone(dir) => write!(
                f,
                "a daemon runs on {}, and that directory was removed or replaced, so that the daemon cannot be asked",
                dir.display()
            ),
            Error::NoDirectory(dir) if dir.symlink_metadata().is_ok() => {
                write!(f, "{} is no directory", dir.display())
            }
            Error::NoDirectory(dir) => write!(f, "there is no directory {}", dir.display()),
            Error::NoneRunning => f.write_str("no daemon runs on a default data directory"),
            Error::Several(_) => f.write_str("there are several daemons"),
            Error::SeveralStopped(_) => f.write_str("no daemon runs, and several have run here"),
            Error::NotOurs(dir) => {
                write!(f, "the daemon on {} belongs to another user", dir.display())
            }
            Error::Deaf(dir, patience) => write!(
                f,
                "the daemon on {} did not answer within {}",
                dir.display(),
                Span::of(*patience)
            ),
            Error::Io(dir, error) => {
                write!(f, "asking the daemon on {} failed: {error}", dir.display())
            }
            Error::Nonsense(dir) => write!(
                f,
                "the answer of the daemon on {} makes no sense",
                dir.display()
            ),
            Error::OtherVersion(dir, version) => write!(
                f,
                "the daemon on {} is another oc-discovery (version {}, and this program has {}): its answer lacks \
                 what this one shows",
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
