use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::daemon::testdir::TestDir;

const HOUR: u64 = 3_600_000;
const WALL: u64 = 1_800_000_000_000;

pub(in super::super) fn known(count: usize) -> Vec<KnownPeer> {
    let addr = |port| format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let one = |_| KnownPeer {
        peer: PeerId::random(),
        addrs: (1..=4).map(addr).collect(),
    };
    bounded((0..count).map(one).collect(), count)
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
        file.save_if_due(0);
    }
}

#[test]
fn state_survives_an_orderly_restart() {
    let scratch = TestDir::new();
    let mut file = load(&scratch);
    file.note_time(WALL + 5);
    file.note_time(WALL);
    file.set_natives(known(8));
    file.set_indexers(known(64));
    assert_eq!(file.next_sequence(WALL, 0), WALL);
    file.flush(1);
    let again = load(&scratch);
    assert_eq!(again.state(), file.state());
    assert_eq!(again.state().record_sequence, WALL);
    assert_eq!(again.state().highest_time_ms, WALL + 5);
    assert_eq!(
        (again.state().natives.len(), again.state().indexers.len()),
        (8, 64)
    );
}

#[test]
fn sequence_is_the_time_or_one_more_than_the_last() {
    let scratch = TestDir::new();
    let mut file = load(&scratch);
    assert_eq!(file.next_sequence(0, 0), 1);
    assert_eq!(file.next_sequence(WALL, 1), WALL);
    assert_eq!(file.next_sequence(WALL, 2), WALL + 1);
    assert_eq!(file.next_sequence(5, 3), WALL + 2);
}

#[test]
fn no_sequence_is_used_twice_after_a_crash() {
    let scratch = TestDir::new();
    let mut last = 0;
    // Each run signs some records and then crashes; the clock stands still or goes back.
    for (life, records) in [1, 3, 0, 2].into_iter().enumerate() {
        let mut file = load(&scratch);
        for _ in 0..records {
            let sequence = file.next_sequence(WALL - life as u64, 0);
            assert!(sequence > last, "{sequence} after {last}");
            last = sequence;
        }
    }
}

#[test]
fn an_hour_of_sequences_is_reserved_with_one_write() {
    let scratch = TestDir::new();
    let mut file = load(&scratch);
    file.next_sequence(WALL, 0);
    let first = inode(&scratch);
    file.next_sequence(WALL + HOUR, HOUR);
    assert_eq!(inode(&scratch), first);
    file.next_sequence(WALL + HOUR + 1, HOUR + 1);
    assert_ne!(inode(&scratch), first);
    assert_eq!(load(&scratch).state().record_sequence, WALL + 2 * HOUR + 1);
}

#[test]
fn change_is_written_once_a_minute_and_no_sooner() {
    let scratch = TestDir::new();
    let mut file = load(&scratch);
    assert_eq!(file.due(), None);
    file.set_indexers(known(1));
    assert_eq!(file.due(), Some(0));
    file.save_if_due(1000);
    assert_eq!(file.due(), None);
    let first = inode(&scratch);
    file.set_indexers(known(2));
    assert_eq!(file.due(), Some(61_000));
    file.save_if_due(60_999);
    assert_eq!(inode(&scratch), first);
    file.save_if_due(61_000);
    assert_ne!(inode(&scratch), first);
    assert_eq!(load(&scratch).state().indexers, file.state().indexers);
}

#[test]
fn an_hour_of_time_is_a_change_and_less_is_none() {
    let scratch = TestDir::new();
    let mut file = load(&scratch);
    file.note_time(WALL);
    file.save_if_due(0);
    file.note_time(WALL + HOUR - 1);
    assert_eq!(file.due(), None);
    file.note_time(WALL + HOUR);
    assert_eq!(file.due(), Some(60_000));
}

#[test]
fn order_of_the_known_peers_is_no_change() {
    let scratch = TestDir::new();
    let mut file = load(&scratch);
    let mut peers = known(5);
    file.set_natives(peers.clone());
    file.save_if_due(0);
    peers.reverse();
    file.set_natives(peers);
    assert_eq!(file.due(), None);
}

#[test]
fn what_exceeds_the_bounds_is_cut() {
    let scratch = TestDir::new();
    let mut file = load(&scratch);
    let mut peers = known(65);
    let long = format!("/dns4/{}/tcp/1", "x".repeat(128)).parse().unwrap();
    for known in &mut peers {
        known.addrs.insert(0, "/ip6/::1/tcp/9".parse().unwrap());
        known.addrs.insert(0, Multiaddr::clone(&long));
    }
    file.set_natives(peers.clone());
    file.set_indexers(peers);
    assert_eq!(file.state().natives.len(), MAX_NATIVES);
    assert_eq!(file.state().indexers.len(), MAX_REMEMBERED);
    for known in &file.state().indexers {
        assert_eq!(known.addrs.len(), MAX_ADDRS);
        assert!(!known.addrs.contains(&long));
    }
}

#[test]
fn damaged_file_is_moved_aside_and_the_process_goes_on() {
    let good = encode(&State::default()).unwrap();
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
        assert_eq!(file.state(), &State::default());
        assert_eq!(std::fs::read(scratch.path().join(CORRUPT)).unwrap(), bytes);
        assert_eq!(inode(&scratch), None);
        file.next_sequence(WALL, 0);
        assert!(inode(&scratch).is_some());
    }
}

#[test]
fn what_cannot_be_read_is_moved_aside_too() {
    let scratch = TestDir::new();
    std::fs::create_dir(scratch.path().join(STATE)).unwrap();
    let mut file = load(&scratch);
    assert_eq!(file.state(), &State::default());
    assert!(scratch.path().join(CORRUPT).is_dir());
    assert_eq!(file.next_sequence(WALL, 0), WALL);
    assert_eq!(load(&scratch).state().record_sequence, WALL + HOUR);
}

#[test]
fn what_can_neither_be_read_nor_moved_aside_stays_and_the_process_goes_on() {
    let scratch = TestDir::new();
    let in_the_way = scratch.path().join(STATE);
    std::fs::create_dir(&in_the_way).unwrap();
    std::fs::write(scratch.path().join(CORRUPT), "an earlier one").unwrap();
    let mut file = load(&scratch);
    assert_eq!(file.next_sequence(WALL, 0), WALL);
    assert_eq!(file.failed, Some(io::ErrorKind::IsADirectory));
    assert!(in_the_way.is_dir());
    std::fs::remove_dir(&in_the_way).unwrap();
    file.save_if_due(60_000);
    assert_eq!(load(&scratch).state().record_sequence, WALL + HOUR);
}

#[test]
fn reason_of_a_failed_write_is_kept_until_one_succeeds() {
    let scratch = TestDir::new();
    let mut file = load(&scratch);
    let in_the_way = scratch.path().join(STATE);
    std::fs::create_dir(&in_the_way).unwrap();
    std::fs::write(in_the_way.join("x"), "").unwrap();
    file.next_sequence(WALL, 0);
    assert_eq!(file.failed, Some(io::ErrorKind::IsADirectory));
    std::fs::remove_dir_all(&in_the_way).unwrap();
    file.save_if_due(60_000);
    assert_eq!(file.failed, None);
}

#[test]
fn failed_write_is_tried_again_after_a_minute() {
    let scratch = TestDir::new();
    let mut file = load(&scratch);
    // A directory that is not empty prevents the write, even for root.
    let in_the_way = scratch.path().join(STATE);
    std::fs::create_dir(&in_the_way).unwrap();
    std::fs::write(in_the_way.join("x"), "").unwrap();
    assert_eq!(file.next_sequence(WALL, 0), WALL);
    assert_eq!(file.due(), Some(60_000));
    std::fs::remove_dir_all(&in_the_way).unwrap();
    assert_eq!(file.next_sequence(WALL, 59_999), WALL + 1);
    assert_eq!(inode(&scratch), None);
    file.save_if_due(60_000);
    assert_eq!(file.due(), None);
    assert_eq!(load(&scratch).state().record_sequence, WALL + 1 + HOUR);
}
