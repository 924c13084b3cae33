use std::{boxed::Box, vec, vec::Vec};

use super::*;
use crate::protocol::{
    Addrs, Beat, Indexer, IndexerConfig, Name, Native, NativeConfig, RecordInfo, Role,
    SignedRecord, StreamId, Terms,
    codec::{
        frame::header,
        record::{Record, Tags, encode_record},
        watch::decode_notice,
    },
    signing::record_ttl,
};

mod joins;

pub(in crate::protocol::watch) const LEASE: Duration = Duration::from_secs(90);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

/// An indexer with room for 200 nodes, and its watchers.
struct World {
    indexer: Box<Indexer<200>>,
    watchers: Watchers<7>,
    now: u64,
    sequence: u64,
}

/// What a watcher reads.
#[derive(Debug, PartialEq)]
enum Read {
    Present(u8),
    Changed(u8),
    Gone(u8, Presence),
    CaughtUp,
}

impl World {
    fn new() -> Self {
        Self {
            indexer: indexer(0),
            watchers: Watchers::new(),
            now: 0,
            sequence: 0,
        }
    }

    fn with(nodes: impl IntoIterator<Item = u8>) -> Self {
        let mut world = Self::new();
        nodes.into_iter().for_each(|n| world.beat(n, ""));
        world
    }

    /// A node beats with a new record, which has this tag.
    fn beat(&mut self, n: u8, tag: &str) {
        self.sequence += 1;
        let (info, envelope) = signed(n, self.sequence, tag);
        let record = SignedRecord {
            info,
            envelope: &envelope,
        };
        let beat = Beat {
            record: Some(record),
            ..Beat::new(Role::Node, LEASE)
        };
        let outcome = self
            .indexer
            .beat(at(self.now), &peer(n), StreamId(n.into()), &beat);
        assert!(outcome.publish);
    }

    fn leave(&mut self, n: u8) {
        let farewell = Beat::new(Role::Node, Duration::ZERO);
        self.indexer
            .beat(at(self.now), &peer(n), StreamId(n.into()), &farewell);
    }

    fn join(&mut self, id: u64, filter: Filter) -> bool {
        let changes = self.indexer.changes();
        let peer = Some(peer(id as u8));
        self.watchers
            .join(at(self.now), WatcherId(id), peer, filter, changes)
    }

    fn join_of(&mut self, id: u64, peer: Option<PeerId>) -> bool {
        let changes = self.indexer.changes();
        self.watchers.join(
            at(self.now),
            WatcherId(id),
            peer,
            Filter::default(),
            changes,
        )
    }

    /// All steps now. Batches are not read.
    fn steps(&mut self) -> Vec<(ServeStep, Vec<Read>)> {
        let mut steps = Vec::new();
        let mut batch = Batch::new();
        let (now, indexer) = (at(self.now), &*self.indexer);
        while let Some(step) = self.watchers.poll(now, indexer, &mut batch) {
            let read = match step {
                ServeStep::Tell(_) => read(&batch),
                ServeStep::Close(_) => Vec::new(),
            };
            steps.push((step, read));
            assert!(steps.len() < 1000, "poll does not come to an end");
        }
        steps
    }

    /// What a watcher that reads everything is told now.
    fn told(&mut self, id: u64) -> Vec<Read> {
        let mut all = Vec::new();
        loop {
            let steps = self.steps();
            if steps.is_empty() {
                return all;
            }
            for (step, read) in steps {
                assert_eq!(step, ServeStep::Tell(WatcherId(id)));
                self.watchers.written(WatcherId(id));
                all.extend(read);
            }
        }
    }
}

/// An indexer that starts now.
pub(in crate::protocol::watch) fn indexer<const N: usize>(now: u64) -> Box<Indexer<N>> {
    let mut indexer = Box::new(Indexer::new());
    let terms = Terms {
        lease: LEASE,
        beat_interval: LEASE / 3,
    };
    let config = IndexerConfig {
        terms,
        gc_interval: Duration::from_secs(30),
    };
    indexer.start(at(now), peer(0), 1, config);
    indexer
}

/// A record of a node, which has this tag, in an envelope without a valid signature.
pub(in crate::protocol::watch) fn signed(n: u8, sequence: u64, tag: &str) -> (RecordInfo, Vec<u8>) {
    signed_by(peer(n), &std::format!("node-{n}"), sequence, tag)
}

fn signed_by(peer: PeerId, name: &str, sequence: u64, tag: &str) -> (RecordInfo, Vec<u8>) {
    let name = Name::try_from(name).unwrap();
    let info = RecordInfo {
        peer,
        sequence,
        issued_at_ms: sequence,
        ttl: record_ttl(LEASE),
        addrs: Addrs::new(),
        name: name.clone(),
    };
    let tags: Tags<'_> = [("tag", tag)].into_iter().collect();
    let record = Record {
        peer,
        sequence,
        issued_at_ms: sequence,
        ttl: record_ttl(LEASE),
        addrs: [&[4, 127, 0, 0, 1, 6, 0, 80][..]].into_iter().collect(),
        name: &name,
        tags,
        services: Default::default(),
        version: "",
        link_services: Default::default(),
        grant: &[],
    };
    (info, envelope(&record))
}

/// The record in such an envelope.
pub(in crate::protocol::watch) fn read_record(envelope: &[u8]) -> Record<'_> {
    contents(Kind::Node, envelope).unwrap()
}

fn envelope(record: &Record<'_>) -> Vec<u8> {
    let mut buffer = [0; 1024];
    let payload = encode_record(record, &mut buffer).unwrap();
    let mut envelope = Vec::new();
    for (tag, bytes) in [(0x12, Kind::Node.payload_type()), (0x1a, payload)] {
        let mut header = [0; MAX_HEADER];
        envelope.push(tag);
        envelope.extend_from_slice(write_header(bytes.len(), &mut header));
        envelope.extend_from_slice(bytes);
    }
    envelope
}

fn read(batch: &[u8]) -> Vec<Read> {
    let (mut rest, mut all) = (batch, Vec::new());
    while let Some(header) = header(rest, MAX_FRAME).unwrap() {
        let (frame, after) = rest.split_at(header.frame());
        let of = |entry: Entry<'_>| match entry.subject {
            Subject::Signed(envelope) => read_record(envelope).peer.as_bytes()[0],
            Subject::Named { peer, .. } => peer.as_bytes()[0],
        };
        all.push(
            match decode_notice(&frame[header.length..]).unwrap().unwrap() {
                Notice::Present(entry) => Read::Present(of(entry)),
                Notice::Changed(entry) => Read::Changed(of(entry)),
                Notice::Gone(entry) => Read::Gone(of(entry), entry.presence),
                Notice::CaughtUp => Read::CaughtUp,
            },
        );
        rest = after;
    }
    assert!(rest.is_empty());
    all
}

#[test]
fn a_watcher_is_told_who_is_there_in_the_order_of_ids_then_of_each_change() {
    let mut world = World::with([9, 3, 7]);
    assert!(world.join(1, Filter::default()));
    let listed = [
        Read::Present(3),
        Read::Present(7),
        Read::Present(9),
        Read::CaughtUp,
    ];
    assert_eq!(world.told(1), listed);
    world.beat(5, "");
    assert_eq!(world.told(1), [Read::Present(5)]);
    world.beat(5, "");
    assert_eq!(world.told(1), [], "signed anew, and no change");
    world.beat(5, "other");
    assert_eq!(world.told(1), [Read::Changed(5)]);
    world.leave(5);
    assert_eq!(world.told(1), [Read::Gone(5, Presence::Left)]);
    assert_eq!(world.watchers.timeout(), None);
}

#[test]
fn a_long_list_comes_in_batches_and_changes_of_those_told_come_between() {
    let mut world = World::with(1..=150);
    world.join(1, Filter::default());
    let [(_, first)] = &world.steps()[..] else {
        panic!("one batch at a time")
    };
    let told = first.len() as u8;
    assert!(told > 1 && told < 100, "{told}");
    assert_eq!(world.steps().len(), 0, "the first batch is not read yet");
    world.beat(1, "other");
    world.beat(140, "other");
    world.leave(2);
    world.watchers.written(WatcherId(1));
    let all = world.told(1);
    let changes = [Read::Changed(1), Read::Gone(2, Presence::Left)];
    assert_eq!(all[..2], changes);
    let rest = (told + 1..=150).map(Read::Present);
    let rest: Vec<_> = rest.chain([Read::CaughtUp]).collect();
    assert_eq!(all[2..], rest, "140 is told of once, as it is");
}

#[test]
fn of_several_changes_of_one_node_the_last_is_told() {
    let mut world = World::with([1]);
    world.join(1, Filter::default());
    world.told(1);
    world.beat(2, "");
    world.beat(2, "other");
    world.leave(1);
    assert_eq!(
        world.told(1),
        [Read::Changed(2), Read::Gone(1, Presence::Left)]
    );
}

#[test]
fn who_does_not_read_for_ten_seconds_is_closed() {
    let mut world = World::with([1]);
    world.join(1, Filter::default());
    world.now = 100;
    assert_eq!(world.steps().len(), 1);
    assert_eq!(world.watchers.timeout(), Some(at(10_100)));
    world.now = 10_099;
    assert_eq!(world.steps(), []);
    world.now = 10_100;
    let closed = ServeStep::Close(WatcherId(1));
    assert_eq!(world.steps(), [(closed, vec![])]);
    let TableStats { used, evicted, .. } = world.watchers.stats();
    assert_eq!((used, evicted), (0, 1));
}

#[test]
fn sixty_four_changes_while_a_batch_is_unread_are_told_and_one_more_closes() {
    for (changes, is_closed) in [(64, false), (65, true)] {
        let mut world = World::with([]);
        world.join(1, Filter::default());
        assert_eq!(world.steps().len(), 1);
        (1..=changes).for_each(|n| world.beat(n, ""));
        if is_closed {
            let closed = ServeStep::Close(WatcherId(1));
            assert_eq!(world.steps(), [(closed, vec![])]);
        } else {
            world.watchers.written(WatcherId(1));
            assert_eq!(world.told(1).len(), 64);
        }
    }
}

#[test]
fn who_has_read_all_is_told_of_as_many_changes_as_happen_in_one_step() {
    let mut world = World::with([]);
    world.join(1, Filter::default());
    assert_eq!(world.told(1), [Read::CaughtUp]);
    (1..=200).for_each(|n| world.beat(n, ""));
    assert_eq!(world.told(1).len(), 200);
}

#[test]
fn a_slow_watcher_does_not_keep_another_waiting() {
    let mut world = World::with([]);
    world.join(1, Filter::default());
    world.join(2, Filter::default());
    assert_eq!(world.steps().len(), 2);
    world.watchers.written(WatcherId(2));
    world.beat(1, "");
    let told = ServeStep::Tell(WatcherId(2));
    assert_eq!(world.steps(), [(told, vec![Read::Present(1)])]);
}

#[test]
fn a_filter_holds_back_who_it_never_meant() {
    let mut world = World::with([1, 2]);
    world.beat(2, "red");
    let red = Filter::default().with_tag("tag", "red").unwrap();
    world.join(1, red);
    assert_eq!(world.told(1), [Read::Present(2), Read::CaughtUp]);
    world.beat(3, "blue");
    assert_eq!(world.told(1), []);
    world.beat(4, "red");
    assert_eq!(world.told(1), [Read::Present(4)]);
    world.beat(2, "blue");
    assert_eq!(
        world.told(1),
        [Read::Changed(2)],
        "so that it can be left out"
    );
}

#[test]
fn a_filter_that_means_nobody_does_not_hold_up_the_end_of_the_list() {
    let mut world = World::with(1..=200);
    let none = Filter::default().with_tag("tag", "none").unwrap();
    world.join(1, none);
    assert_eq!(world.told(1), [Read::CaughtUp]);
}

#[test]
fn one_watcher_in_each_turn_looks_at_a_long_list_in_vain_and_all_have_their_turn() {
    // Without optimisation it is moved over the stack.
    let in_box = std::thread::Builder::new().stack_size(64 << 20);
    let mut indexer = in_box.spawn(|| indexer::<520>(0)).unwrap().join().unwrap();
    for n in 0..520_u64 {
        let mut id = [1; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let id = PeerId::from_bytes(id);
        let (info, envelope) = signed_by(id, "", n + 1, "");
        let record = SignedRecord {
            info,
            envelope: &envelope,
        };
        let beat = Beat {
            record: Some(record),
            ..Beat::new(Role::Node, LEASE)
        };
        // Slowly enough for each newcomer to be admitted.
        indexer.beat(at(5 * n), &id, StreamId(n), &beat);
    }
    let mut watchers = Watchers::<7>::new();
    let none = Filter::default().with_tag("tag", "none").unwrap();
    for (id, filter) in [(1, none.clone()), (2, none), (3, Filter::default())] {
        assert!(watchers.join(at(0), WatcherId(id), None, filter, indexer.changes()));
    }
    let steps = [(); 5].map(|()| {
        assert_eq!(watchers.timeout(), Some(Instant::default()));
        watchers.poll(at(3_000), &*indexer, &mut Batch::new())
    });
    let tell = |id| Some(ServeStep::Tell(WatcherId(id)));
    assert_eq!(steps, [None, None, tell(3), tell(1), tell(2)]);
}

#[test]
fn a_watcher_of_a_native_looks_for_servers_when_it_joins_and_when_there_is_a_new_one() {
    let mut native = Box::new(Native::<4, 4, 4, 16>::new());
    let terms = Terms {
        lease: LEASE,
        beat_interval: LEASE / 3,
    };
    let interval = Duration::from_secs(30);
    let config = NativeConfig {
        terms,
        offload_interval: interval,
        refresh_interval: interval,
        gc_interval: interval,
    };
    native.start(at(0), peer(0), 1, config);
    let mut watchers = Watchers::<7>::new();
    let told = |watchers: &mut Watchers<7>, native: &Native<4, 4, 4, 16>| {
        let mut batch = Batch::new();
        watchers.poll(at(0), native, &mut batch)?;
        watchers.written(WatcherId(1));
        Some(read(&batch))
    };
    let is_new = |native: &mut Native<4, 4, 4, 16>, n: u8, sequence| {
        let (info, envelope) = signed(n, sequence, "");
        let record = SignedRecord {
            info,
            envelope: &envelope,
        };
        let beat = Beat {
            record: Some(record),
            ..Beat::new(Role::Indexer, LEASE)
        };
        native.beat(at(0), &peer(n), StreamId(n.into()), &beat);
    };
    let look = |n| Read::Gone(n, Presence::Left);
    is_new(&mut native, 1, 1);
    watchers.join(
        at(0),
        WatcherId(1),
        None,
        Filter::default(),
        native.changes(),
    );
    let first = told(&mut watchers, &native);
    assert_eq!(first, Some(vec![look(1), Read::CaughtUp]));
    is_new(&mut native, 1, 2);
    assert_eq!(told(&mut watchers, &native), None, "it is the same one");
    is_new(&mut native, 2, 1);
    is_new(&mut native, 3, 1);
    assert_eq!(told(&mut watchers, &native), Some(vec![look(3)]));
    assert_eq!(told(&mut watchers, &native), None);
}

#[test]
fn who_joins_is_told_of_those_that_went_in_the_last_five_minutes() {
    let mut world = World::with([3]);
    world.leave(3);
    world.now = TELLS_GONE.as_millis() as u64;
    world.join(1, Filter::default());
    let gone = Read::Gone(3, Presence::Left);
    assert_eq!(world.told(1), [gone, Read::CaughtUp]);
    world.watchers.leave(WatcherId(1));
    world.now += 1;
    world.join(1, Filter::default());
    assert_eq!(world.told(1), [Read::CaughtUp]);
}
