//! A data directory that is made for a start which may fail.
//!
//! Invariant: only a directory that was not there before is removed, with the files of this program
//! alone; whatever else is in it keeps it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{LOCK, identity::IDENTITY, state::FILES};

/// A directory that this start makes, if it does: it is removed again unless it is kept, so that a
/// mistyped one leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Fresh(Option<PathBuf>);

impl Fresh {
    /// To be made before the directory is.
    pub(crate) fn of(dir: &Path) -> Self {
        let is_there = dir.symlink_metadata().is_ok();
        Self((!is_there).then(|| dir.to_path_buf()))
    }

    /// The start has succeeded.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let Some(dir) = self.0.take() else { return };
        for name in [IDENTITY, LOCK].iter().chain(&FILES) {
            // Most of them were not made.
            let _ = fs::remove_file(dir.join(name));
        }
        let _ = fs::remove_dir(dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{storage::DataDir, testdir::TestDir};

    #[test]
    fn a_directory_that_a_failed_start_has_made_is_removed_and_no_other() {
        let scratch = TestDir::new();
        let dir = scratch.path().join("mistyped");
        let start = |succeeds| {
            let fresh = Fresh::of(&dir);
            let data = DataDir::open(&dir).unwrap();
            data.identity().unwrap();
            if succeeds {
                fresh.keep();
            }
        };
        start(false);
        assert!(!dir.exists());
        start(true);
        assert!(dir.join(IDENTITY).exists());
        start(false);
        assert!(dir.join(IDENTITY).exists(), "it was there before");
        fs::remove_dir_all(&dir).unwrap();
        let fresh = Fresh::of(&dir);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("notes"), "of somebody").unwrap();
        drop(fresh);
        assert!(dir.join("notes").exists());
    }
}
