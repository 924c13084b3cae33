//! Reads a small file with a bound, and replaces a file as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Replaces `dir/name` with `bytes`, mode 0600. After an error, or a crash at any point, the old
/// file is unchanged. After success, the new one survives a loss of power.
pub(in crate::daemon) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    replace_after(dir, name, bytes, || Ok(()))
}

/// As [`replace`]. The file that was there before stays, as `dir/before`.
pub(super) fn replace_and_keep(
    dir: &Path,
    name: &str,
    before: &str,
    bytes: &[u8],
) -> io::Result<()> {
    let (old, kept) = (dir.join(name), dir.join(before));
    replace_after(dir, name, bytes, || {
        if !std::fs::symlink_metadata(&old).is_ok_and(|old| old.is_file()) {
            return Ok(());
        }
        remove_if_there(&kept)?;
        // With a second link there is a file of this name at every moment. Some file systems have
        // no links: then there is one of the two names.
        std::fs::hard_link(&old, &kept).or_else(|_| std::fs::rename(&old, &kept))
    })
}

/// Writes the new file, then does `last`, then puts it in the place of the old one.
fn replace_after(
    dir: &Path,
    name: &str,
    bytes: &[u8],
    last: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let fresh = dir.join(format!("{name}.new"));
    let done = write_new(&fresh, bytes)
        .and_then(|()| last())
        .and_then(|()| std::fs::rename(&fresh, dir.join(name)))
        .and_then(|()| File::open(dir)?.sync_all());
    if done.is_err() {
        // On a full disk the part that was written takes room.
        let _ = std::fs::remove_file(&fresh);
    }
    done
}

/// Removes a file, if there is one.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A file that a crash left behind may have any mode and content.
    remove_if_there(path)?;
    let mut file = create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Creates a file, mode 0600, where there is none.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// Gives files of the directory to its owner. It is done by descriptor, and neither a link nor a
/// file that has a second name is given away: the owner may have put it there.
#[cfg(feature = "program")]
pub(super) fn give_to_owner<const FILES: usize>(
    dir: &Path,
    names: [&str; FILES],
) -> io::Result<()> {
    use rustix::{
        fs::{FileType, Gid, Mode, OFlags, Uid, fchown, fstat, open, openat},
        io::Errno,
    };
    let of_dir = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = open(dir, of_dir, Mode::empty())?;
    let owner = fstat(&dir)?;
    let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
    for name in names {
        let of_file = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&dir, name, of_file, Mode::empty()) {
            Err(Errno::NOENT | Errno::LOOP) => continue,
            opened => opened?,
        };
        let found = fstat(&file)?;
        let is_ours = FileType::from_raw_mode(found.st_mode).is_file() && found.st_nlink == 1;
        if is_ours && found.st_uid != owner.st_uid {
            fchown(&file, Some(uid), Some(gid))?;
        }
    }
    Ok(())
}

/// The whole of `file`; `None` if it has more than `max` bytes.
pub(super) fn read_at_most(file: &File, max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((u64::try_from(read).is_ok_and(|read| read <= max)).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::daemon::testdir::TestDir;

    #[test]
    fn replaced_file_is_private_and_nothing_is_left_beside_it() {
        let scratch = TestDir::new();
        let path = scratch.path().join("x");
        std::fs::write(&path, "old and longer").unwrap();
        std::fs::write(scratch.path().join("x.new"), "left by a crash").unwrap();
        replace(scratch.path(), "x", b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn failed_replacement_leaves_the_old_file_alone() {
        let scratch = TestDir::new();
        // A directory cannot be replaced by a file, so the rename fails after a successful write.
        std::fs::create_dir(scratch.path().join("x")).unwrap();
        std::fs::write(scratch.path().join("x/inside"), "old").unwrap();
        replace(scratch.path(), "x", b"new").unwrap_err();
        let inside = scratch.path().join("x/inside");
        assert_eq!(std::fs::read(inside).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn file_before_the_last_replacement_is_kept() {
        let scratch = TestDir::new();
        let read = |name: &str| std::fs::read(scratch.path().join(name)).ok();
        let files = || (read("x"), read("x.old"));
        let bytes = |text: &str| Some(text.as_bytes().to_vec());
        for (content, before) in [("1", None), ("2", Some("1")), ("3", Some("2"))] {
            replace_and_keep(scratch.path(), "x", "x.old", content.as_bytes()).unwrap();
            assert_eq!(files(), (bytes(content), before.and_then(bytes)));
        }
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 2);
    }

    #[test]
    fn reading_stops_at_the_bound() {
        let scratch = TestDir::new();
        let path = scratch.path().join("x");
        std::fs::write(&path, "12345").unwrap();
        let read = |max| read_at_most(&File::open(&path).unwrap(), max).unwrap();
        assert_eq!(read(5).unwrap(), b"12345");
        assert_eq!(read(4), None);
    }

    /// Only root can give a file away.
    #[cfg(feature = "program")]
    #[test]
    fn owner_of_the_directory_gets_its_files_and_nothing_that_a_name_leads_to() {
        use std::os::unix::fs::{MetadataExt as _, chown, symlink};
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (ours, elsewhere) = (TestDir::new(), TestDir::new());
        let owner = |path: &Path| std::fs::metadata(path).unwrap().uid();
        let [key, linked, named] = ["key", "linked", "named"].map(|name| ours.path().join(name));
        let [first, second] = ["first", "second"].map(|name| elsewhere.path().join(name));
        for file in [&key, &first, &second] {
            std::fs::write(file, "").unwrap();
        }
        symlink(&first, &linked).unwrap();
        std::fs::hard_link(&second, &named).unwrap();
        chown(ours.path(), Some(1000), Some(1000)).unwrap();
        give_to_owner(ours.path(), ["key", "linked", "named", "none"]).unwrap();
        assert_eq!([&key, &first, &second].map(|it| owner(it)), [1000, 0, 0]);
    }
}
