//! The private key of this peer. It is an Ed25519 key in the protobuf encoding of the libp2p peer
//! id specification, in a file that only its owner may read.
//!
//! Invariants: a key is never overwritten; a file that the group or others can access, or that is
//! no Ed25519 key, is an error.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

#[cfg(feature = "program")]
use libp2p::PeerId;
use libp2p::identity::{KeyType, Keypair};

use super::{StorageError, file};
use crate::daemon::entropy;

/// Name of the file in the data directory.
pub(crate) const IDENTITY: &str = "identity";

/// An encoded Ed25519 key has 68 bytes.
pub(crate) const MAX_BYTES: u64 = 1024;

/// The key in `dir`, if there is one.
pub(super) fn load(dir: &Path) -> Result<Option<Keypair>, StorageError> {
    load_file(&dir.join(IDENTITY))
}

/// The key in a file, if there is that file.
pub(super) fn load_file(path: &Path) -> Result<Option<Keypair>, StorageError> {
    let corrupt = |reason: String| StorageError::IdentityCorrupt {
        path: path.to_path_buf(),
        reason,
    };
    let Some(file) = open(path)? else {
        return Ok(None);
    };
    let metadata = file.metadata().map_err(StorageError::io("look at", path))?;
    if !metadata.is_file() {
        return Err(corrupt("not a regular file".to_owned()));
    }
    let bytes = file::read_at_most(&file, MAX_BYTES)
        .map_err(StorageError::io("read", path))?
        .ok_or_else(|| corrupt(format!("longer than {MAX_BYTES} bytes")))?;
    let keypair = keypair_of(&bytes).map_err(corrupt)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StorageError::IdentityOpen {
            path: path.to_path_buf(),
            mode,
        });
    }
    Ok(Some(keypair))
}

fn keypair_of(bytes: &[u8]) -> Result<Keypair, String> {
    if bytes.is_empty() {
        return Err("it is empty".to_owned());
    }
    let keypair = Keypair::from_protobuf_encoding(bytes)
        .map_err(|_| "it is no private key as libp2p writes one".to_owned())?;
    match keypair.key_type() {
        KeyType::Ed25519 => Ok(keypair),
        _ => Err("not an Ed25519 key".to_owned()),
    }
}

/// The key in `dir`. It is made if there is none. The caller holds the lock of `dir`.
pub(super) fn load_or_create(dir: &Path) -> Result<Keypair, StorageError> {
    if let Some(keypair) = load(dir)? {
        return Ok(keypair);
    }
    let made = create().and_then(|keypair| save(dir, &keypair).map(|()| keypair));
    let keypair =
        made.map_err(|error| StorageError::io("create the identity", &dir.join(IDENTITY))(error))?;
    // A mistyped directory shows in nothing else: it is made, too.
    let others = match beside(dir) {
        others if others.is_empty() => String::new(),
        others => format!("; beside it, there is one in {}", others.join(", ")),
    };
    log::info!(
        "made a new identity in {}, which had none: to others this is a new peer. If the device had \
         one before, this is not its data directory{others}",
        dir.display()
    );
    Ok(keypair)
}

/// Directories with an identity that are named, and those that are looked at.
const MOST_NAMED: usize = 4;
const MOST_LOOKED_AT: usize = 256;

/// The directories beside this one that have an identity.
pub(crate) fn beside(dir: &Path) -> Vec<String> {
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Vec::new(),
    };
    let all = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .take(MOST_LOOKED_AT);
    let all = all.filter_map(|entry| Some(entry.ok()?.path()));
    let others = all.filter(|path| path.file_name() != dir.file_name());
    let with_identity = others.filter(|path| path.join(IDENTITY).is_file());
    let named = with_identity.take(MOST_NAMED);
    named.map(|path| path.display().to_string()).collect()
}

/// Where an imported identity comes from.
#[cfg(feature = "program")]
pub(crate) enum ImportFrom<'a> {
    /// A file, which only its owner may read.
    File(&'a Path),
    /// The key itself.
    Bytes(&'a [u8]),
}

/// Takes the key, if `dir` has no other one. The caller holds the lock of `dir`.
#[cfg(feature = "program")]
pub(super) fn import(dir: &Path, from: &ImportFrom<'_>) -> Result<PeerId, StorageError> {
    let no_export = |name: String, reason| StorageError::NoExport { name, reason };
    let keypair = match from {
        ImportFrom::File(path) => match load_file(path) {
            Ok(Some(keypair)) => keypair,
            Ok(None) => {
                return Err(StorageError::io("open", path)(
                    io::ErrorKind::NotFound.into(),
                ));
            }
            Err(StorageError::IdentityCorrupt { path, reason }) => {
                return Err(no_export(path.display().to_string(), reason));
            }
            Err(error) => return Err(error),
        },
        ImportFrom::Bytes(bytes) => {
            keypair_of(bytes).map_err(|reason| no_export("what stdin gave".into(), reason))?
        }
    };
    let peer = keypair.public().to_peer_id();
    match load(dir)? {
        Some(has) if has.public() == keypair.public() => {}
        Some(has) => {
            return Err(StorageError::OtherIdentity {
                dir: dir.to_path_buf(),
                has: has.public().to_peer_id(),
            });
        }
        None => save(dir, &keypair)
            .map_err(|error| StorageError::io("write the identity", &dir.join(IDENTITY))(error))?,
    }
    Ok(peer)
}

fn save(dir: &Path, keypair: &Keypair) -> io::Result<()> {
    let bytes = keypair.to_protobuf_encoding().map_err(io::Error::other)?;
    file::replace(dir, IDENTITY, &bytes)
}

/// A new key.
pub(super) fn create() -> io::Result<Keypair> {
    Keypair::ed25519_from_bytes(entropy::key()?).map_err(io::Error::other)
}

fn open(path: &Path) -> Result<Option<File>, StorageError> {
    match crate::net::file::open(path) {
        Ok(file) => Ok(Some(file)),
        // A link that leads nowhere may lead somewhere when its disk is there.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() =>
        {
            Ok(None)
        }
        Err(error) => Err(StorageError::io("open", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;
    use crate::daemon::testdir::TestDir;

    #[test]
    fn identity_is_made_once_and_kept_private() {
        let scratch = TestDir::new();
        assert!(load(scratch.path()).unwrap().is_none());
        let made = load_or_create(scratch.path()).unwrap();
        let path = scratch.path().join(IDENTITY);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let again = load_or_create(scratch.path()).unwrap();
        assert_eq!(made.public(), again.public());
        let other = TestDir::new();
        let others = load_or_create(other.path()).unwrap();
        assert_ne!(made.public(), others.public());
    }

    #[test]
    fn file_is_the_standard_encoding() {
        let scratch = TestDir::new();
        let made = load_or_create(scratch.path()).unwrap();
        let bytes = std::fs::read(scratch.path().join(IDENTITY)).unwrap();
        // Key type Ed25519, then 64 bytes: the secret and the public half.
        assert_eq!(bytes.get(..4).unwrap(), [0x08, 0x01, 0x12, 0x40]);
        let public = made.public().try_into_ed25519().unwrap().to_bytes();
        assert_eq!(bytes.get(36..).unwrap(), public);
    }

    #[test]
    fn identity_open_to_others_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o610] {
            let scratch = TestDir::new();
            load_or_create(scratch.path()).unwrap();
            let path = scratch.path().join(IDENTITY);
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = load_or_create(scratch.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("(mode {mode:04o})")), "{error}");
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn owner_may_make_it_read_only() {
        let scratch = TestDir::new();
        load_or_create(scratch.path()).unwrap();
        let path = scratch.path().join(IDENTITY);
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        load_or_create(scratch.path()).unwrap();
    }

    #[test]
    fn damaged_identity_is_an_error_and_never_overwritten() {
        let scratch = TestDir::new();
        load_or_create(scratch.path()).unwrap();
        let path = scratch.path().join(IDENTITY);
        let mut flipped = std::fs::read(&path).unwrap();
        *flipped.last_mut().unwrap() ^= 1;
        let long = vec![0; 1025];
        for damaged in [&b""[..], b"not a key", &flipped, &long] {
            std::fs::write(&path, damaged).unwrap();
            let error = load_or_create(scratch.path()).unwrap_err();
            assert!(
                matches!(error, StorageError::IdentityCorrupt { .. }),
                "{error}"
            );
            // The library takes no bytes at all for a key of another kind.
            assert_eq!(
                error.to_string().contains("it is empty"),
                damaged.is_empty()
            );
            assert_eq!(std::fs::read(&path).unwrap(), damaged);
        }
    }

    #[test]
    fn link_that_leads_nowhere_is_an_error_and_stays() {
        let scratch = TestDir::new();
        let link = scratch.path().join(IDENTITY);
        std::os::unix::fs::symlink(scratch.path().join("nowhere"), &link).unwrap();
        load_or_create(scratch.path()).unwrap_err();
        assert!(link.is_symlink());
    }

    #[test]
    fn directory_in_its_place_is_an_error() {
        let scratch = TestDir::new();
        std::fs::create_dir(scratch.path().join(IDENTITY)).unwrap();
        let error = load_or_create(scratch.path()).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn what_cannot_be_written_is_a_clear_error() {
        let scratch = TestDir::new();
        // A directory that is not empty is where the new file would be written. So writing fails
        // for root too.
        let in_the_way = scratch.path().join("identity.new");
        std::fs::create_dir(&in_the_way).unwrap();
        std::fs::write(in_the_way.join("x"), "").unwrap();
        let error = load_or_create(scratch.path()).unwrap_err().to_string();
        let start = format!(
            "cannot create the identity {}: ",
            scratch.path().join(IDENTITY).display()
        );
        assert!(error.starts_with(&start), "{error}");
    }
}
