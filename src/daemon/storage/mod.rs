//! The data directory, which survives a restart.
//!
//! | file | what | written |
//! |---|---|---|
//! | `lock` | held by the one process that may write here, with its pid | at start |
//! | `identity` | the private key, in libp2p's protobuf encoding, mode 0600 | once, never again |
//! | `state` | record sequence, highest time, known peers: [`State`] | on change, once a minute |
//! | `state.old` | the `state` before the last write, used if `state` cannot be read | with it |
//! | `grant` | the grant of this device in a closed network | by the operator |
//! | `revoked` | the revocation list of that network, if it was told one | when a newer one comes |
//! | `imported` | empty: the package keeps the identity on another device | by import |
//! | `state.corrupt` | a `state` that could not be read, for the operator | when it was found |
//!
//! A file is replaced as a whole (written beside it, synced, renamed, the directory synced), so
//! that a crash or a full disk leaves the old one. An identity that cannot be used is an error and
//! is never overwritten: the key defines the peer, and only the operator may decide to replace it.
//!
//! If the identity can be read, the daemon runs in any case. If the directory cannot be written
//! (read-only, full, no permission), this is logged once and nothing is saved. A `state` that
//! cannot be read is treated like a damaged one.

mod codec;
mod file;
#[cfg(feature = "program")]
mod fresh;
pub(super) mod identity;
#[cfg(feature = "program")]
pub(super) mod network;
mod state;

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

#[cfg(feature = "program")]
use libp2p::PeerId;
use libp2p::identity::Keypair;
use rustix::fs::{FlockOperation, OFlags, flock};

#[cfg(fuzzing)]
pub(crate) use self::codec::fuzz;
#[cfg(feature = "program")]
pub(super) use self::file::replace;
#[cfg(feature = "program")]
pub(crate) use self::fresh::Fresh;
#[cfg(feature = "program")]
pub(crate) use self::identity::{IDENTITY, ImportFrom, MAX_BYTES as IDENTITY_MAX_BYTES};
pub(crate) use self::state::{State, StateFile};

const LOCK: &str = "lock";
/// An identity that was given on purpose. `targets/deb/firstboot` looks at it, and removes it.
#[cfg(feature = "program")]
const IMPORTED: &str = "imported";

/// A data directory that this process alone may write to, for as long as the value lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// The lock lasts while the file is open. The system releases it when the process ends, in any
    /// way.
    _lock: File,
}

impl DataDir {
    /// Creates the directory if needed (mode 0700, parents too) and locks it. Never waits. The
    /// parents that root makes are open, because those of a system's services have to enter them.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if another process has it, [`StorageError::Io`] if it cannot be
    /// made or locked.
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
        let in_dir = |doing| StorageError::io(doing, path);
        make(path).map_err(in_dir("create the data directory"))?;
        let lock_path = path.join(LOCK);
        let (mut lock, refusal) = open_lock(path).map_err(StorageError::io("open", &lock_path))?;
        if !lock
            .metadata()
            .is_ok_and(|lock| lock.is_file() || lock.is_dir())
        {
            let why = io::Error::other("it is no regular file: move it away");
            return Err(StorageError::io("lock", &lock_path)(why));
        }
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StorageError::Locked {
                    dir: path.to_path_buf(),
                    pid: pid_in(&lock),
                });
            }
            Err(error) => return Err(StorageError::io("lock", &lock_path)(error.into())),
        }
        let refusal = match refusal {
            None => write_pid(&mut lock).err(),
            refusal => refusal,
        };
        if let Some(error) = refusal {
            log::warn!(
                "the data directory {} cannot be written, so that nothing is saved: {error}",
                path.display()
            );
        }
        Ok(Self {
            path: path.to_path_buf(),
            _lock: lock,
        })
    }

    /// The path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The key of this peer. It is read, or made if there is none yet.
    ///
    /// # Errors
    /// The file is damaged, accessible to others, or cannot be written.
    pub(crate) fn identity(&self) -> Result<Keypair, StorageError> {
        identity::load_or_create(&self.path)
    }

    /// Gives a directory without an identity one that was exported. Returns its peer id. To import
    /// the identity that it has changes nothing. If root imports it, it belongs to the owner of the
    /// directory, which is the user of a service.
    ///
    /// # Errors
    /// There is another identity, or what is imported is no usable key, or not its owner's alone.
    #[cfg(feature = "program")]
    pub(crate) fn import(&self, from: &ImportFrom<'_>) -> Result<PeerId, StorageError> {
        let peer = identity::import(&self.path, from)?;
        file::replace(&self.path, IMPORTED, b"")
            .map_err(StorageError::io("write into", &self.path))?;
        if rustix::process::geteuid().is_root() {
            file::give_to_owner(&self.path, [identity::IDENTITY, LOCK, IMPORTED])
                .map_err(StorageError::io("give to its owner", &self.path))?;
        }
        Ok(peer)
    }

    /// Removes the identity and the state of its peer, and at last the lock.
    ///
    /// # Errors
    /// A file cannot be removed. The identity is removed first.
    #[cfg(feature = "program")]
    pub(crate) fn reset(self) -> Result<(), StorageError> {
        let files = [identity::IDENTITY].into_iter().chain(state::FILES);
        for name in files.chain([IMPORTED, LOCK]) {
            let path = self.path.join(name);
            file::remove_if_there(&path).map_err(StorageError::io("remove", &path))?;
        }
        let synced = File::open(&self.path).and_then(|dir| dir.sync_all());
        synced.map_err(StorageError::io("sync", &self.path))
    }

    /// The state of the last run, or an empty one if there is none. A file that cannot be read or
    /// decoded is moved aside with a warning.
    pub(crate) fn state(&self) -> StateFile {
        StateFile::load(&self.path)
    }
}

/// Uses no directory: the process is a new peer. Its identity is lost when the process ends.
///
/// # Errors
/// The system gives no random numbers.
pub(crate) fn in_memory() -> io::Result<(Keypair, StateFile)> {
    Ok((identity::create()?, StateFile::in_memory()))
}

/// The peer id of the identity in `dir`. Takes no lock: a daemon may run there.
///
/// # Errors
/// [`StorageError::NoIdentity`] if no daemon ever ran there, others as [`DataDir::identity`].
#[cfg(feature = "program")]
pub(crate) fn peer_id_in(dir: &Path) -> Result<PeerId, StorageError> {
    match identity::load(dir)? {
        Some(keypair) => Ok(keypair.public().to_peer_id()),
        None => Err(StorageError::NoIdentity {
            dir: dir.to_path_buf(),
        }),
    }
}

/// An identity outside of its data directory.
#[cfg(feature = "program")]
pub(crate) struct Exported {
    /// The private key, as it is in the file `identity`.
    pub(crate) key: Vec<u8>,
    /// Its peer id.
    pub(crate) peer: PeerId,
}

/// The identity in `dir`, to be written elsewhere. Takes no lock.
///
/// # Errors
/// As [`peer_id_in`].
#[cfg(feature = "program")]
pub(crate) fn exported(dir: &Path) -> Result<Exported, StorageError> {
    let peer = peer_id_in(dir)?;
    let path = dir.join(identity::IDENTITY);
    let key = std::fs::read(&path).map_err(StorageError::io("read", &path))?;
    Ok(Exported { key, peer })
}

/// Why the data directory cannot be used. Each one is a sentence for people; the exit code is 1.
#[derive(Debug)]
pub(crate) enum StorageError {
    /// Another process holds the directory.
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The other process, if it has written its id yet.
        pid: Option<u32>,
    },
    /// There is no identity in the directory.
    #[cfg(feature = "program")]
    NoIdentity {
        /// The directory.
        dir: PathBuf,
    },
    /// The group or others have access to the identity.
    IdentityOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// An identity would be replaced by another one.
    #[cfg(feature = "program")]
    OtherIdentity {
        /// The directory.
        dir: PathBuf,
        /// The identity that it has.
        has: PeerId,
    },
    /// The identity is not a usable private key.
    IdentityCorrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What was to be imported is no identity.
    #[cfg(feature = "program")]
    NoExport {
        /// The file, or what else it came from.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused.
    Io {
        /// The operation that failed, as a verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
}

impl StorageError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |error| Self::Io { doing, path, error }
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { dir, pid } => {
                write!(f, "another oc-discovery runs on {}", dir.display())?;
                if let Some(pid) = pid {
                    write!(f, " (pid {pid})")?;
                }
                f.write_str(": stop it, or give another --data-dir")
            }
            #[cfg(feature = "program")]
            Self::NoIdentity { dir } if !dir.exists() => {
                write!(f, "there is no directory {}", dir.display())
            }
            #[cfg(feature = "program")]
            Self::NoIdentity { dir } => write!(
                f,
                "there is no identity in {}: no daemon has run on it; give the data directory of a daemon",
                dir.display()
            ),
            #[cfg(feature = "program")]
            Self::OtherIdentity { dir, has } => write!(
                f,
                "{dir} has the identity {has} already: save it with `oc-discovery identity export` if it is still \
                 needed, and remove it with `oc-discovery identity reset {dir}`",
                dir = dir.display()
            ),
            Self::IdentityOpen { path, mode } => write!(
                f,
                "{path} holds the private key, and others than its owner have rights to it (mode {mode:04o}): \
                 run `chmod 600 {path}`",
                path = path.display()
            ),
            #[cfg(feature = "program")]
            Self::NoExport { name, reason } => write!(
                f,
                "{name} is no identity ({reason}): give a file that `oc-discovery identity export` has made"
            ),
            Self::IdentityCorrupt { path, reason } => write!(
                f,
                "{path} is no usable private key ({reason}): restore it, or move it away to become a new peer",
                path = path.display()
            ),
            Self::Io { doing, path, error } if is_link(error) => write!(
                f,
                "cannot {doing} {}: it is a symbolic link, and what it leads to is not touched: \
                 remove the link",
                path.display()
            ),
            Self::Io { doing, path, error } => {
                write!(f, "cannot {doing} {}: ", path.display())?;
                match error.kind() {
                    io::ErrorKind::NotFound => f.write_str("there is no such file or directory"),
                    io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                        f.write_str("a part of this path is a file, and no directory")
                    }
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "{error}; do this as its owner, or as root")
                    }
                    _ => error.fmt(f),
                }
            }
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Whether a file is a symbolic link, and therefore was not opened.
fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// Makes the directory, if it is not there.
fn make(path: &Path) -> io::Result<()> {
    let closed = |path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    if let Some(parent) = path.parent()
        && !parent.exists()
    {
        match rustix::process::geteuid().is_root() {
            true => std::fs::create_dir_all(parent)?,
            false => closed(parent)?,
        }
    }
    closed(path)
}

/// Opens what is locked: the lock file, read-only if it cannot be written, or the directory itself
/// if there is no lock file and none can be made. Also returns why there is no writable lock file.
fn open_lock(dir: &Path) -> io::Result<(File, Option<io::Error>)> {
    let path = dir.join(LOCK);
    // With a symbolic link, a file elsewhere could be emptied, or two directories could share one
    // lock.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options.custom_flags(flags.bits().cast_signed());
    match options.create(true).truncate(false).open(&path) {
        Err(error) if takes_nothing(&error) => {
            options.write(false).create(false);
            let opened = match options.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(dir)?,
                opened => opened?,
            };
            Ok((opened, Some(error)))
        }
        opened => Ok((opened?, None)),
    }
}

/// Whether the error means that the directory cannot be written: its file system is read-only, full
/// or failing, or its mode or attributes forbid it.
pub(super) fn takes_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    // Worn-out flash. There is no `ErrorKind` for it.
    let failed = rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::IO);
    let kind = error.kind();
    failed
        || matches!(
            kind,
            PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull
        )
}

/// The process that holds the lock. The file may still be empty, or have the pid of the process
/// before.
fn pid_in(lock: &File) -> Option<u32> {
    let mut text = String::new();
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

#[cfg(test)]
mod tests;
