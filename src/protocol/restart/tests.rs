use std::boxed::Box;

use super::*;
use crate::protocol::{
    Addr, Addrs, Beat, Indexer, IndexerConfig, IndexersAnswer, Input, Name, Native, NativeConfig,
    Node, NodeConfig, Offer, RecordInfo, SignedRecord, StreamId, Terms,
};

const HOUR: u64 = 3_600_000;
const WALL: u64 = 1_800_000_000_000;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

/// A process and its flash. What the host keeps is a number here.
#[derive(Default)]
struct Process {
    journal: Journal<u8>,
    flash: Option<Saved<u8>>,
    writes: usize,
    is_broken: bool,
}

impl Process {
    fn write(&mut self, by: impl FnOnce(&mut Journal<u8>, &mut dyn FnMut(&Saved<u8>) -> bool)) {
        let Self {
            journal,
            flash,
            writes,
            is_broken,
        } = self;
        by(journal, &mut |saved| {
            *writes += 1;
            if !*is_broken {
                *flash = Some(*saved);
            }
            !*is_broken
        });
    }

    fn sign(&mut self, now: u64, own_ms: u64) -> u64 {
        let mut sequence = 0;
        self.write(|journal, write| sequence = journal.next_sequence(at(now), own_ms, write));
        sequence
    }

    fn save_if_due(&mut self, now: u64) -> usize {
        self.write(|journal, write| journal.save_if_due(at(now), write));
        self.writes
    }

    fn end(&mut self, now: u64) {
        self.write(|journal, write| journal.flush(at(now), write));
    }

    /// What a crash, or an orderly end before, leaves.
    fn restart(&mut self) {
        self.journal = Journal::new(self.flash);
    }
}

#[test]
fn sequence_is_the_time_or_one_more_than_the_last() {
    let mut process = Process::default();
    assert_eq!(process.sign(0, 0), 1);
    assert_eq!(process.sign(1, WALL), WALL);
    assert_eq!(process.sign(2, WALL), WALL + 1);
    assert_eq!(process.sign(3, 5), WALL + 2);
}

#[test]
fn no_sequence_is_used_twice_after_a_crash() {
    let (mut process, mut last) = (Process::default(), 0);
    // Each run signs some records and then crashes; the clock stands still or goes back.
    for (life, records) in [1, 3, 0, 2].into_iter().enumerate() {
        process.restart();
        for _ in 0..records {
            let sequence = process.sign(0, WALL - life as u64);
            assert!(sequence > last, "{sequence} after {last}");
            last = sequence;
        }
    }
}

#[test]
fn an_orderly_end_gives_the_reservation_back() {
    let mut process = Process::default();
    assert_eq!(process.sign(0, WALL), WALL);
    process.end(1);
    process.restart();
    assert_eq!(process.sign(0, WALL), WALL + 1);
    process.end(1);
    let writes = process.writes;
    process.end(2);
    assert_eq!(process.writes, writes, "nothing has changed");
}

#[test]
fn an_hour_of_sequences_is_reserved_with_one_write() {
    let mut process = Process::default();
    process.sign(0, WALL);
    process.sign(HOUR, WALL + HOUR);
    assert_eq!(process.writes, 1);
    process.sign(HOUR + 1, WALL + HOUR + 1);
    assert_eq!(process.writes, 2);
    assert_eq!(process.flash.unwrap().record_sequence, WALL + 2 * HOUR + 1);
}

#[test]
fn change_is_written_once_a_minute_and_a_reservation_at_once() {
    let mut process = Process::default();
    assert_eq!(process.save_if_due(0), 0, "nothing has changed");
    *process.journal.state_mut() = 1;
    assert_eq!(process.save_if_due(1_000), 1);
    assert_eq!(process.journal.due(), None);
    *process.journal.state_mut() = 2;
    assert_eq!(process.journal.due(), Some(at(61_000)));
    assert_eq!(process.save_if_due(60_999), 1);
    assert_eq!(process.save_if_due(61_000), 2);
    process.sign(61_001, WALL);
    assert_eq!(process.writes, 3);
}

#[test]
fn an_hour_of_time_is_a_change_and_less_is_none() {
    for first in [0, WALL] {
        let mut process = Process::default();
        process.journal.note_time(first);
        process.save_if_due(0);
        process.journal.note_time(first + HOUR - 1);
        assert_eq!(process.journal.due(), None, "{first}");
        process.journal.note_time(first + HOUR);
        process.journal.note_time(5);
        assert!(process.journal.due().is_some(), "{first}");
        assert_eq!(process.journal.present().highest_time_ms, first + HOUR);
    }
}

#[test]
fn failed_write_is_tried_again_after_a_minute_and_the_process_goes_on() {
    let mut process = Process {
        is_broken: true,
        ..Process::default()
    };
    assert_eq!(process.sign(0, WALL), WALL);
    assert_eq!(process.sign(59_999, WALL), WALL + 1);
    assert_eq!(process.writes, 1);
    assert_eq!(process.journal.due(), Some(at(60_000)));
    process.is_broken = false;
    assert_eq!(process.sign(60_000, WALL), WALL + 2);
    assert_eq!(process.flash.unwrap().record_sequence, WALL + 2 + HOUR);
    assert_eq!(process.journal.due(), None);
}

const TERMS: Terms = Terms {
    lease: Duration::from_secs(90),
    beat_interval: Duration::from_secs(30),
};
const INTERVAL: Duration = Duration::from_secs(30);

/// A native that has learned of native 9, and then heard an indexer of each of these numbers.
fn native(indexers: &[u8]) -> Box<Native<80, 80, 4, 96>> {
    let mut native = Box::new(Native::new());
    let config = NativeConfig {
        terms: TERMS,
        offload_interval: INTERVAL,
        refresh_interval: INTERVAL,
        gc_interval: INTERVAL,
    };
    native.start(at(0), peer(200), 1, config);
    let (learned, addrs) = (&peer(9), &Addrs::new());
    native.handle(
        at(0),
        Input::NativeLearned {
            native: learned,
            addrs,
        },
    );
    for &n in indexers {
        let info = RecordInfo {
            peer: peer(n),
            sequence: 1,
            issued_at_ms: 0,
            ttl: TERMS.lease,
            addrs: [Addr::from_iter([n])].into_iter().collect(),
            name: Name::new(),
        };
        let beat = Beat {
            record: Some(SignedRecord::of(&info)),
            ..Beat::new(Role::Indexer, TERMS.lease)
        };
        native.beat(at(0), &peer(n), StreamId(n.into()), &beat);
    }
    native
}

#[test]
fn native_remembers_64_of_the_indexers_that_it_lists_in_the_order_of_their_ids() {
    let numbers: Vec<u8, 80> = (10..75).rev().collect();
    assert_eq!(indexers(&*native(&[]), at(0)), None);
    let two = indexers(&*native(&[12, 11]), at(0)).unwrap();
    assert_eq!(two, [peer(11), peer(12)]);
    assert_eq!(indexers(&*native(&numbers[1..]), at(0)).unwrap().len(), 64);
    let most = indexers(&*native(&numbers), at(0)).unwrap();
    assert!(most.len() == MAX_REMEMBERED && most.is_sorted());
    assert_eq!(natives(&*native(&numbers), at(0)), [peer(9)]);
}

#[test]
fn node_remembers_the_indexers_that_it_has_leases_with_and_not_its_natives() {
    let mut node = Node::new();
    let config = NodeConfig {
        terms: TERMS,
        connect_interval: INTERVAL,
        min_indexers: 1,
    };
    node.start(at(0), peer(200), 1, config);
    let (native, addrs) = (&peer(9), &Addrs::new());
    for native in [&peer(9), &peer(8)] {
        node.handle(at(0), Input::NativeLearned { native, addrs });
    }
    while node.poll(at(0), 0).is_some() {}
    assert_eq!(indexers(&node, at(0)), None);
    let offers = &[Offer {
        peer: peer(10),
        addrs: Addrs::new(),
        ttl: INTERVAL,
        free: None,
    }];
    let takes_in = false;
    let answer = Some(IndexersAnswer { offers, takes_in });
    node.handle(at(0), Input::Answered { native, answer });
    while node.poll(at(0), 0).is_some() {}
    assert_eq!(indexers(&node, at(0)).unwrap(), [peer(10)]);
    assert_eq!(natives(&node, at(0)), [peer(8), peer(9)]);
}

#[test]
fn indexer_remembers_no_indexer() {
    let mut indexer = Box::new(Indexer::<1>::new());
    let config = IndexerConfig {
        terms: TERMS,
        gc_interval: INTERVAL,
    };
    indexer.start(at(0), peer(200), 1, config);
    let (native, addrs) = (&peer(9), &Addrs::new());
    indexer.handle(at(0), Input::NativeLearned { native, addrs });
    assert_eq!(indexers(&*indexer, at(0)), None);
    assert_eq!(natives(&*indexer, at(0)), [peer(9)]);
}

/// An indexer that lost these nodes, each at its own time.
fn lost_at(nodes: &[(u8, u64)]) -> Box<Indexer<4>> {
    let mut indexer = Box::new(Indexer::new());
    for &(n, since) in nodes {
        let lost = LostPeer {
            peer: peer(n),
            name: Name::try_from("pump").unwrap(),
            role: Role::Node,
            presence: Presence::Lost,
            since: at(since),
            before: 0,
        };
        indexer.remember_lost(at(since), lost);
    }
    indexer
}

#[test]
fn the_age_of_a_lost_node_goes_on_over_a_restart() {
    let saved = |now, own: Option<u64>, before: &[SavedLost]| {
        let indexer = lost_at(&[(2, 10_000), (1, 20_000)]);
        lost(&*indexer, at(now), own, before).collect::<std::vec::Vec<_>>()
    };
    let first = saved(30_000, Some(WALL), &[]);
    let ended: std::vec::Vec<_> = first
        .iter()
        .map(|lost| (lost.peer, lost.ended_ms))
        .collect();
    assert_eq!(ended, [(peer(1), WALL - 10_000), (peer(2), WALL - 20_000)]);
    let restored = first[1].restored(at(5), WALL + HOUR);
    assert_eq!(restored.age(at(5)), Duration::from_secs(3_620));
    assert_eq!(restored.age(at(1_005)), Duration::from_secs(3_621));
    // A clock that went back makes no entry older.
    assert_eq!(first[0].restored(at(5), 7).age(at(5)), Duration::ZERO);
}

#[test]
fn an_end_without_a_trusted_time_begins_its_day_anew() {
    let indexer = lost_at(&[(1, 0)]);
    let saved = lost(&*indexer, at(30_000), None, &[]).next().unwrap();
    assert_eq!(saved.ended_ms, 0);
    assert_eq!(saved.restored(at(5), WALL).age(at(5)), Duration::ZERO);
}

#[test]
fn an_end_that_is_saved_moves_only_when_the_clock_does_by_more_than_a_minute() {
    let indexer = lost_at(&[(1, 0)]);
    let ended = |own, before: &[SavedLost]| {
        let saved = lost(&*indexer, at(0), own, before).next();
        saved.unwrap().ended_ms
    };
    let first: std::vec::Vec<_> = lost(&*indexer, at(0), Some(WALL), &[]).collect();
    for by in [0, SAME_END_MS] {
        assert_eq!(ended(Some(WALL + by), &first), WALL);
        assert_eq!(ended(Some(WALL - by), &first), WALL);
    }
    let by = SAME_END_MS + 1;
    assert_eq!(ended(Some(WALL + by), &first), WALL + by);
    assert_eq!(ended(None, &first), WALL, "no time is no news");
}

#[test]
fn a_node_that_was_lost_for_more_than_a_day_is_not_restored() {
    for (age, used) in [(86_400, 1), (86_401, 0)] {
        let saved = SavedLost {
            peer: peer(1),
            name: Name::new(),
            role: Role::Node,
            presence: Presence::Left,
            ended_ms: WALL,
        };
        let mut indexer = Indexer::<4>::new();
        let restored = saved.restored(at(0), WALL + age * 1000);
        indexer.remember_lost(at(0), restored);
        assert_eq!(indexer.lost().unwrap().stats().used, used, "{age} s");
    }
}
