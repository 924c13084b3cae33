//! What is wrong with the files of a daemon: its data directory, the file of the pre-shared key,
//! and its configuration.
//!
//! A directory or a key that others can read is a problem, but the daemon runs: otherwise a device
//! could not be reached after an update, and a key is often given to a group on purpose. The
//! identity is different: the program makes that file itself, so other permissions are never meant,
//! and they are refused ([`storage`](super::super::storage)).

use std::{
    fs::Metadata,
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::super::{problems::Mistake, status::Severity, storage::identity::IDENTITY};

/// Permissions on the data directory beyond those of the owner, which are always a mistake. Without
/// them the group may enter it, to reach the control socket.
const DIR_OPEN: u32 = 0o067;
/// The same for the file of the key, which a group may read.
const KEY_OPEN: u32 = 0o027;

/// The files that a daemon watches.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Files {
    /// The data directory; `None`: nothing is kept.
    dir: Option<PathBuf>,
    /// The device and inode that it had at the start.
    id: Option<(u64, u64)>,
    key: Option<PathBuf>,
    /// The configuration is wrong, so that the last reload changed nothing.
    pub(in crate::daemon) bad_settings: Option<Mistake>,
    /// The last good reload found values that only a restart takes over.
    pub(in crate::daemon) waits_for_restart: Option<Mistake>,
}

impl Files {
    pub(in crate::daemon) fn new(dir: Option<&Path>, key: Option<&Path>) -> Self {
        let metadata = dir.and_then(|dir| std::fs::metadata(dir).ok());
        Self {
            dir: dir.map(Path::to_path_buf),
            id: metadata.as_ref().map(id_of),
            key: key.map(Path::to_path_buf),
            bad_settings: None,
            waits_for_restart: None,
        }
    }

    /// The data directory; `None`: nothing is kept.
    pub(in crate::daemon) fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// What is wrong with them.
    pub(super) fn mistakes(&self) -> impl Iterator<Item = Mistake> {
        let dir = self.dir();
        let gone = dir.and_then(|dir| gone(dir, self.id));
        let dir = gone.or_else(|| dir.and_then(open_dir));
        let key = self.key.as_deref().and_then(open_key);
        let settings = [&self.bad_settings, &self.waits_for_restart];
        dir.into_iter()
            .chain(key)
            .chain(settings.into_iter().flatten().cloned())
    }
}

fn id_of(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The directory is not there any more, or another one is in its place, or the identity is missing.
fn gone(dir: &Path, id: Option<(u64, u64)>) -> Option<Mistake> {
    let why = match (std::fs::metadata(dir), id) {
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => "has gone",
        // What cannot be looked at may be there.
        (Err(_), _) => return None,
        (Ok(now), Some(id)) if id_of(&now) != id => "was replaced by another one",
        (Ok(_), _) if !dir.join(IDENTITY).exists() => "has lost the file `identity`",
        _ => return None,
    };
    let dir = dir.display();
    Some(Mistake {
        code: "data-dir-gone",
        severity: Severity::Critical,
        about: String::new(),
        what: format!(
            "the data directory {dir} {why}: after a restart this process would be a new peer"
        ),
        hint: format!(
            "put {dir} back as it was, or start the process again on a directory that stays"
        ),
    })
}

/// Others have access to the directory.
pub(in crate::daemon) fn open_dir(dir: &Path) -> Option<Mistake> {
    let mode = std::fs::metadata(dir).ok()?.permissions().mode() & 0o7777;
    let dir = dir.display();
    (mode & DIR_OPEN != 0).then(|| Mistake {
        code: "data-dir-open",
        severity: Severity::Warning,
        about: String::new(),
        what: format!(
            "others than its owner have access to the data directory {dir} (mode {mode:04o})"
        ),
        hint: format!("chmod 700 {dir}"),
    })
}

/// Others can read the key of the network.
pub(in crate::daemon) fn open_key(key: &Path) -> Option<Mistake> {
    let metadata = std::fs::metadata(key).ok().filter(Metadata::is_file)?;
    let mode = metadata.permissions().mode() & 0o7777;
    let key = key.display();
    (mode & KEY_OPEN != 0).then(|| Mistake {
        code: "key-file-open",
        severity: Severity::Warning,
        about: String::new(),
        what: format!("others can read or change the key file {key} (mode {mode:04o}), and so join the network"),
        hint: format!("chmod 600 {key}, or 640 if a group needs it"),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;
    use crate::daemon::testdir::TestDir;

    fn codes(files: &Files) -> Vec<&'static str> {
        files.mistakes().map(|mistake| mistake.code).collect()
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn directory_that_goes_or_is_replaced_is_a_problem_until_it_is_back() {
        let scratch = TestDir::new();
        let (dir, away) = (scratch.path().join("dir"), scratch.path().join("away"));
        let make = || {
            fs::create_dir(&dir).unwrap();
            chmod(&dir, 0o700);
            fs::write(dir.join(IDENTITY), "").unwrap();
        };
        make();
        let files = Files::new(Some(&dir), None);
        assert_eq!(codes(&files), [""; 0]);
        fs::rename(&dir, &away).unwrap();
        assert_eq!(codes(&files), ["data-dir-gone"]);
        make();
        assert_eq!(codes(&files), ["data-dir-gone"], "it is another one");
        fs::remove_dir_all(&dir).unwrap();
        fs::rename(&away, &dir).unwrap();
        assert_eq!(codes(&files), [""; 0]);
        fs::remove_file(dir.join(IDENTITY)).unwrap();
        assert_eq!(codes(&files), ["data-dir-gone"]);
    }

    #[test]
    fn only_permissions_that_are_meant_by_nobody_are_a_problem() {
        let scratch = TestDir::new();
        let (dir, key) = (scratch.path().join("dir"), scratch.path().join("key"));
        fs::create_dir(&dir).unwrap();
        fs::write(&key, "").unwrap();
        for (mode, is_open) in [(0o700, false), (0o710, false), (0o740, true), (0o701, true)] {
            chmod(&dir, mode);
            assert_eq!(open_dir(&dir).is_some(), is_open, "{mode:o}");
        }
        for (mode, is_open) in [(0o400, false), (0o640, false), (0o660, true), (0o644, true)] {
            chmod(&key, mode);
            assert_eq!(open_key(&key).is_some(), is_open, "{mode:o}");
        }
    }

    #[test]
    fn process_without_files_has_no_problem_with_them() {
        assert_eq!(codes(&Files::default()), [""; 0]);
        assert!(open_key(Path::new("/nowhere/key")).is_none());
    }
}
