use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::daemon::testdir::TestDir;

#[test]
fn new_directory_is_for_its_owner_alone() {
    let scratch = TestDir::new();
    let path = scratch.path().join("a/b");
    DataDir::open(&path).unwrap();
    let mode = |dir| std::fs::metadata(dir).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    // The parents of a system's directories, which root makes, are entered by their services.
    let is_open = mode(&scratch.path().join("a")) & 0o077 != 0;
    assert_eq!(is_open, rustix::process::geteuid().is_root());
}

#[test]
fn second_opener_is_told_who_has_it() {
    let scratch = TestDir::new();
    let first = DataDir::open(scratch.path()).unwrap();
    // A lock belongs to an open file, so the same process is refused like any other.
    let error = DataDir::open(scratch.path()).unwrap_err();
    let own = std::process::id();
    assert!(matches!(error, StorageError::Locked { pid: Some(pid), .. } if pid == own));
    let expected = format!(
        "another oc-discovery runs on {} (pid {own}): stop it, or give another --data-dir",
        scratch.path().display()
    );
    assert_eq!(error.to_string(), expected);
    drop(first);
    DataDir::open(scratch.path()).unwrap();
}

#[test]
fn longer_pid_of_an_earlier_process_leaves_nothing_behind() {
    let scratch = TestDir::new();
    std::fs::write(scratch.path().join(LOCK), "999999999999\n").unwrap();
    DataDir::open(scratch.path()).unwrap();
    let text = std::fs::read_to_string(scratch.path().join(LOCK)).unwrap();
    assert_eq!(text, format!("{}\n", std::process::id()));
}

#[test]
fn symbolic_link_in_the_place_of_the_lock_is_refused_and_what_it_leads_to_is_left_alone() {
    let scratch = TestDir::new();
    let theirs = scratch.path().join("theirs");
    std::fs::write(&theirs, "precious").unwrap();
    let dir = scratch.path().join("dir");
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink(&theirs, dir.join(LOCK)).unwrap();
    let error = DataDir::open(&dir).unwrap_err().to_string();
    let said = format!("open {}: it is a symbolic link", dir.join(LOCK).display());
    assert!(error.contains(&said), "{error}");
    assert_eq!(std::fs::read(&theirs).unwrap(), b"precious");
}

#[test]
fn files_that_are_replaced_are_read_through_links_and_never_written_through_them() {
    let (scratch, elsewhere) = (TestDir::new(), TestDir::new());
    let kept = DataDir::open(elsewhere.path()).unwrap().identity().unwrap();
    for (name, content) in [("identity", None), ("state.new", Some("theirs"))] {
        let theirs = elsewhere.path().join(name);
        if let Some(content) = content {
            std::fs::write(&theirs, content).unwrap();
        }
        std::os::unix::fs::symlink(&theirs, scratch.path().join(name)).unwrap();
    }
    let dir = DataDir::open(scratch.path()).unwrap();
    assert_eq!(dir.identity().unwrap().public(), kept.public());
    dir.state().set_port(Default::default(), 1);
    let theirs = elsewhere.path().join("state.new");
    assert_eq!(std::fs::read(theirs).unwrap(), b"theirs");
    assert!(scratch.path().join("state").is_file());
}

#[test]
fn lock_that_leads_nowhere_makes_no_file_there() {
    let scratch = TestDir::new();
    let nowhere = scratch.path().join("nowhere");
    std::os::unix::fs::symlink(&nowhere, scratch.path().join(LOCK)).unwrap();
    DataDir::open(scratch.path()).unwrap_err();
    assert!(!nowhere.exists());
}

#[test]
fn data_directory_may_be_a_link_itself() {
    let scratch = TestDir::new();
    let (real, link) = (scratch.path().join("real"), scratch.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    DataDir::open(&link).unwrap().identity().unwrap();
    assert!(real.join("identity").exists());
}

#[test]
fn directory_that_takes_nothing_is_told_from_a_file_in_the_way_and_a_lack_of_descriptors() {
    use rustix::io::Errno;
    let takes = |errno: Errno| takes_nothing(&errno.into());
    for errno in [
        Errno::ROFS,
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::ACCESS,
        Errno::PERM,
        Errno::IO,
    ] {
        assert!(takes(errno), "{errno}");
    }
    for errno in [
        Errno::LOOP,
        Errno::ISDIR,
        Errno::NOTDIR,
        Errno::NOENT,
        Errno::MFILE,
    ] {
        assert!(!takes(errno), "{errno}");
    }
}

#[test]
fn pipe_in_the_place_of_the_lock_is_refused() {
    let scratch = TestDir::new();
    let path = scratch.path().join(LOCK);
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let error = DataDir::open(scratch.path()).unwrap_err().to_string();
    assert!(error.contains("no regular file"), "{error}");
}

#[test]
fn file_in_the_place_of_the_directory_is_a_clear_error() {
    let scratch = TestDir::new();
    let path = scratch.path().join("file");
    std::fs::write(&path, "").unwrap();
    let error = DataDir::open(&path).unwrap_err().to_string();
    let start = format!("cannot create the data directory {}: ", path.display());
    assert!(error.starts_with(&start), "{error}");
}

#[cfg(feature = "program")]
#[test]
fn peer_id_is_read_while_the_daemon_runs() {
    let scratch = TestDir::new();
    assert!(matches!(
        peer_id_in(scratch.path()),
        Err(StorageError::NoIdentity { .. })
    ));
    let dir = DataDir::open(scratch.path()).unwrap();
    let keypair = dir.identity().unwrap();
    let id = peer_id_in(scratch.path()).unwrap();
    assert_eq!(id, keypair.public().to_peer_id());
}
