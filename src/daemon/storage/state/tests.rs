use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::daemon::testdir::TestDir;
use crate::net::convert::to_addrs;

const HOUR: u64 = 3_600_000;
const WALL: u64 = 1_800_000_000_000;

pub(in super::super) fn known(count: usize) -> Vec<KnownPeer> {
    let addr = |port| format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let addrs: Vec<_> = (1..=4).map(addr).collect();
    let one = |n| (PeerId::from_bytes([n as u8; 32]), to_addrs(&addrs));
    (0..count).map(one).collect()
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn load(scratch: &TestDir) -> StateFile {
    StateFile::load(scratch.path())
}

/// The inode of the file. It changes whenever the file is written, because each write makes a
/// new file.
fn inode(scratch: &TestDir) -> Option<u64> {
    Some(std::fs::metadata(scratch.path().join(STATE)).ok()?.ino())
}

#[test]
fn role_of_the_last_run_is_known_if_it_is_another() {
    let scratch = TestDir::new();
    for (role, before) in [
        (Role::Indexer, None),
        (Role::Indexer, None),
        (Role::Node, Some(Role::Indexer)),
        (Role::Native, Some(Role::Node)),
    ] {
        let mut file = load(&scratch);
        assert_eq!(file.set_role(role), before);
        file.save_if_due(at(0));
    }
}

#[test]
fn state_survives_an_orderly_restart() {
    let scratch = TestDir::new();
    let mut file = load(&scratch);
    file.note_time(WALL + 5);
    file.note_time(WALL);
    file.state_mut().natives = known(8);
    file.state_mut().indexers = known(64);
    assert_eq!(file.next_sequence(at(0), WALL), WALL);
    file.flush(at(1));
    let again = load(&scratch);
    assert_eq!(again.state(), file.state());
    assert_eq!(again.state().record_sequence, WALL);
    assert_eq!(again.state().highest_time_ms, WALL + 5);
    assert_eq!(
        (
            again.state().state.natives.len(),
            again.state().state.indexers.len()
        ),
        (8, 64)
    );
}

#[test]
fn change_is_written_once_a_minute_and_no_sooner() {
    let scratch = TestDir::new();
    let mut file = load(&scratch);
    assert_eq!(file.journal.due(), None);
    file.state_mut().indexers = known(1);
    assert_eq!(file.journal.due(), Some(at(0)));
    file.save_if_due(at(1000));
    assert_eq!(file.journal.due(), None);
    let first = inode(&scratch);
    file.state_mut().indexers = known(2);
    assert_eq!(file.journal.due(), Some(at(61_000)));
    file.save_if_due(at(60_999));
    assert_eq!(inode(&scratch), first);
    file.save_if_due(at(61_000));
    assert_ne!(inode(&scratch), first);
    assert_eq!(load(&scratch).state().state, file.state().state);
}

#[test]
fn damaged_file_is_moved_aside_and_the_process_goes_on() {
    let good = encode(&Saved::default()).unwrap();
    let trailing = [&good[..], &[0]].concat();
    let long = vec![0; 64 * 1024 + 1];
    let next_version = [0xa1, 0x00, 0x02];
    let damaged = [
        &b""[..],
        b"x",
        &good[..good.len() - 1],
        &trailing,
        &long,
        &next_version,
    ];
    for bytes in damaged {
        let scratch = TestDir::new();
        std::fs::write(scratch.path().join(STATE), bytes).unwrap();
        let mut file = load(&scratch);
        assert_eq!(file.state(), &Saved::default());
        assert_eq!(std::fs::read(scratch.path().join(CORRUPT)).unwrap(), bytes);
        assert_eq!(inode(&scratch), None);
        file.next_sequence(at(0), WALL);
        assert!(inode(&scratch).is_some());
    }
}

#[test]
fn what_cannot_be_read_is_moved_aside_too() {
    let scratch = TestDir::new();
    std::fs::create_dir(scratch.path().join(STATE)).unwrap();
    let mut file = load(&scratch);
    assert_eq!(file.state(), &Saved::default());
    assert!(scratch.path().join(CORRUPT).is_dir());
    assert_eq!(file.next_sequence(at(0), WALL), WALL);
    assert_eq!(load(&scratch).state().record_sequence, WALL + HOUR);
}

#[test]
fn what_can_neither_be_read_nor_moved_aside_stays_and_the_process_goes_on() {
    let scratch = TestDir::new();
    let in_the_way = scratch.path().join(STATE);
    std::fs::create_dir(&in_the_way).unwrap();
    std::fs::write(scratch.path().join(CORRUPT), "an earlier one").unwrap();
    let mut file = load(&scratch);
    assert_eq!(file.next_sequence(at(0), WALL), WALL);
    assert_eq!(file.disk.failed, Some(io::ErrorKind::IsADirectory));
    assert!(in_the_way.is_dir());
    std::fs::remove_dir(&in_the_way).unwrap();
    file.save_if_due(at(60_000));
    assert_eq!(load(&scratch).state().record_sequence, WALL + HOUR);
}

#[test]
fn reason_of_a_failed_write_is_kept_until_one_succeeds() {
    let scratch = TestDir::new();
    let mut file = load(&scratch);
    let in_the_way = scratch.path().join(STATE);
    std::fs::create_dir(&in_the_way).unwrap();
    std::fs::write(in_the_way.join("x"), "").unwrap();
    file.next_sequence(at(0), WALL);
    assert_eq!(file.disk.failed, Some(io::ErrorKind::IsADirectory));
    std::fs::remove_dir_all(&in_the_way).unwrap();
    file.save_if_due(at(60_000));
    assert_eq!(file.disk.failed, None);
}

#[test]
fn failed_write_is_tried_again_after_a_minute() {
    let scratch = TestDir::new();
    let mut file = load(&scratch);
    // A directory that is not empty prevents the write, even for root.
    let in_the_way = scratch.path().join(STATE);
    std::fs::create_dir(&in_the_way).unwrap();
    std::fs::write(in_the_way.join("x"), "").unwrap();
    assert_eq!(file.next_sequence(at(0), WALL), WALL);
    assert_eq!(file.journal.due(), Some(at(60_000)));
    std::fs::remove_dir_all(&in_the_way).unwrap();
    assert_eq!(file.next_sequence(at(59_999), WALL), WALL + 1);
    assert_eq!(inode(&scratch), None);
    file.save_if_due(at(60_000));
    assert_eq!(file.journal.due(), None);
    assert_eq!(load(&scratch).state().record_sequence, WALL + 1 + HOUR);
}

/// A file with this state, and the one before it.
fn two_generations(scratch: &TestDir) -> StateFile {
    let mut file = load(scratch);
    file.state_mut().natives = known(1);
    file.next_sequence(at(0), WALL);
    file.state_mut().natives = known(2);
    file.next_sequence(at(60_000), WALL + 60_000);
    file
}

#[test]
fn file_before_the_damaged_one_is_used() {
    let scratch = TestDir::new();
    let last = two_generations(&scratch).state().record_sequence;
    std::fs::write(scratch.path().join(STATE), "half").unwrap();
    let mut again = load(&scratch);
    assert_eq!(again.state().state.natives, known(1));
    assert!(scratch.path().join(CORRUPT).exists());
    let next = again.next_sequence(at(0), 0);
    assert!(next > last + HOUR, "{next} was reserved: after {last}");
    assert!(inode(&scratch).is_some(), "it is saved again at once");
}

#[test]
fn file_before_the_last_one_is_used_if_that_is_gone() {
    let scratch = TestDir::new();
    two_generations(&scratch);
    std::fs::remove_file(scratch.path().join(STATE)).unwrap();
    assert_eq!(load(&scratch).state().state.natives, known(1));
}

#[test]
fn without_a_usable_generation_the_state_is_empty() {
    let scratch = TestDir::new();
    two_generations(&scratch);
    for name in [STATE, BEFORE] {
        std::fs::write(scratch.path().join(name), "half").unwrap();
    }
    assert_eq!(load(&scratch).state(), &Saved::default());
}

#[test]
fn corrupt_file_that_stays_where_it_is_does_not_take_the_place_of_the_good_one() {
    let scratch = TestDir::new();
    let path = |name: &str| scratch.path().join(name);
    let mut file = load(&scratch);
    file.set_port(at(0), 4820);
    file.flush(at(HOUR));
    std::fs::copy(path(STATE), path(BEFORE)).unwrap();
    std::fs::write(path(STATE), "damaged").unwrap();
    // A file cannot take the place of a directory.
    std::fs::create_dir(path(CORRUPT)).unwrap();
    std::fs::write(path(CORRUPT).join("x"), "").unwrap();
    let mut file = load(&scratch);
    assert_eq!(file.state().state.port, Some(4820));
    file.flush(at(2 * HOUR));
    for name in [STATE, BEFORE] {
        let saved = read(&path(name)).unwrap().unwrap();
        assert_eq!(saved.state.port, Some(4820), "{name}");
    }
    file.set_port(at(3 * HOUR), 4821);
    let before = read(&path(BEFORE)).unwrap().unwrap();
    assert_eq!(before.state.port, Some(4820), "it is kept again");
}
