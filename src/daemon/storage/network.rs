//! The key of a closed network, and the revocation list beside it. Both are with the operator, in
//! no data directory of a daemon.
//!
//! Invariants: a key is never overwritten, and only its owner may read it; a list is replaced as a
//! whole, by the one process that holds the key's lock.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use libp2p::identity::Keypair;
use rustix::fs::{FlockOperation, flock};

use super::{StorageError, file, identity, make};

/// Name of the key in the directory where it was made.
pub(crate) const NETWORK_KEY: &str = "network.key";
/// What is added to the key's name for the list beside it, so that it is never the key itself.
const REVOKED: &str = ".revoked";

/// Makes a key in `dir`, which is made if needed (mode 0700). Returns it and its file.
///
/// # Errors
/// The directory has one, or cannot be written.
pub(crate) fn create(dir: &Path) -> Result<(Keypair, PathBuf), StorageError> {
    make(dir).map_err(StorageError::io("create the directory", dir))?;
    let path = dir.join(NETWORK_KEY);
    let made = identity::create().and_then(|key| {
        let bytes = key.to_protobuf_encoding().map_err(io::Error::other)?;
        write(dir, &path, &bytes).map(|()| key)
    });
    match made {
        Ok(key) => Ok((key, path)),
        Err(error) => Err(StorageError::io("create the network's key", &path)(error)),
    }
}

fn write(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = file::create(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // A part of a key would be taken for one.
        let _ = std::fs::remove_file(path);
    }
    written.and_then(|()| File::open(dir)?.sync_all())
}

/// The key in a file.
///
/// # Errors
/// There is no such file, others have access to it, or it is no usable key.
pub(crate) fn load(path: &Path) -> Result<Keypair, StorageError> {
    identity::load_file(path)?.ok_or_else(|| {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        StorageError::io("open", path)(missing)
    })
}

/// The list beside a key, for as long as the value lives of this process alone.
#[derive(Debug)]
pub(crate) struct ListFile {
    path: PathBuf,
    /// That of the key's file: the system releases it when the process ends, in any way.
    _lock: File,
}

impl ListFile {
    /// The list beside this key. Waits while another process has it.
    ///
    /// # Errors
    /// The key's file cannot be locked.
    pub(crate) fn beside(key: &Path) -> Result<Self, StorageError> {
        let lock = crate::net::file::open(key).map_err(StorageError::io("open", key))?;
        let locked = flock(&lock, FlockOperation::LockExclusive);
        locked.map_err(|error| StorageError::io("lock", key)(error.into()))?;
        let mut path = key.as_os_str().to_owned();
        path.push(REVOKED);
        Ok(Self {
            path: path.into(),
            _lock: lock,
        })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its content, at most `max` bytes, if there is one.
    ///
    /// # Errors
    /// It cannot be read, or is longer.
    pub(crate) fn read(&self, max: u64) -> Result<Option<Vec<u8>>, StorageError> {
        let failed = |error| StorageError::io("read", &self.path)(error);
        let file = match crate::net::file::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let too_long = || io::Error::other(format!("it is longer than {max} bytes"));
        let read = file::read_at_most(&file, max).and_then(|read| read.ok_or_else(too_long));
        read.map(Some).map_err(failed)
    }

    /// Replaces it.
    ///
    /// # Errors
    /// It cannot be written. The old one is unchanged then.
    pub(crate) fn replace(&self, bytes: &[u8]) -> Result<(), StorageError> {
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let name = self.path.file_name().map(OsString::from);
        let name = name.unwrap_or_default();
        file::replace(
            dir.unwrap_or(Path::new(".")),
            &name.to_string_lossy(),
            bytes,
        )
        .map_err(StorageError::io("write", &self.path))
    }
}
