//! A private directory for a test, which is removed when the test ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Exists from [`TestDir::new`] until it is dropped.
pub(crate) struct TestDir(PathBuf);

impl TestDir {
    /// Makes an empty directory that no other test uses.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("oc-discovery-test-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // A killed test with the same process id may have left one.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        TestDir(path)
    }

    /// The path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
