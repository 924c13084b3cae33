use std::{boxed::Box, vec::Vec};

use super::*;
use crate::protocol::{
    Addr, Beat, Entry, Indexer, SignedRecord, StreamId, Subject,
    codec::{
        frame::{MAX_FRAME, header},
        record::{Purpose, RecordError},
        watch::{Notice, encode_notice},
    },
    watch::server::tests::{LEASE, indexer, signed},
};

const SERVER: PeerId = PeerId::from_bytes([200; 32]);

/// Opens records, or none. No signature is checked here.
struct Opens(bool);

impl Verifier for Opens {
    fn open(&self, purpose: Purpose, envelope: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), Flaw> {
        let record = purpose
            .kind()
            .and_then(|kind| contents(kind, envelope))
            .filter(|_| self.0);
        let record = record.ok_or(Flaw::BadSignature)?;
        // The payload is the second of two fields.
        let payload = &envelope[2 + purpose.payload_type().len() + 1..];
        let length = header(payload, MAX_FRAME).unwrap().unwrap().length;
        Ok((record.peer, &payload[length..]))
    }
}

/// An indexer whose own directory and one server are watched.
struct World {
    indexer: Box<Indexer<200>>,
    watches: Box<Watches<2, 200, 7>>,
    now: u64,
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn addrs() -> Addrs {
    Addr::from_slice(&[4, 192, 0, 2, 1, 6, 0, 80])
        .into_iter()
        .collect()
}

impl World {
    /// With so many nodes in the own directory.
    fn with(nodes: u8) -> Self {
        let mut indexer = indexer(0);
        for n in 1..=nodes {
            let (info, envelope) = signed(n, 1, "");
            let envelope = &envelope;
            let beat = Beat {
                record: Some(SignedRecord { info, envelope }),
                ..Beat::new(Role::Node, LEASE)
            };
            indexer.beat(at(0), &peer(n), StreamId(n.into()), &beat);
        }
        let mut watches = Box::new(Watches::new());
        watches.start(peer(0));
        Self {
            indexer,
            watches,
            now: 1_000,
        }
    }

    fn read(&mut self) -> ReaderId {
        self.watches
            .read(at(self.now), 7, Filter::default())
            .unwrap()
    }

    fn poll(&mut self) -> Option<WatchAction> {
        self.watches.poll(at(self.now), &*self.indexer)
    }

    /// The servers are looked up: the indexer that was found is the server.
    fn list(&mut self) {
        assert_eq!(self.poll(), None);
        assert!(self.watches.wants_list());
        self.watches.list_begun(Some(LookupId(1)));
        assert!(!self.watches.wants_list());
        let found = Offer {
            peer: SERVER,
            addrs: addrs(),
            ttl: LEASE,
            free: None,
        };
        let now = at(self.now);
        let found = [found];
        self.watches
            .listed(now, &*self.indexer, &found, Extent::Whole);
    }

    /// What the server says of this node. Returns how often the reader is told of it.
    fn told(&mut self, reader: ReaderId, n: u8, verifier: Opens) -> Result<usize, NoticeError> {
        let (_, envelope) = signed(n, 1, "");
        let notice = Notice::Present(Entry {
            subject: Subject::Signed(&envelope),
            age: Duration::ZERO,
            presence: Presence::Alive,
        });
        let mut buffer = [0; MAX_FRAME];
        let body = encode_notice(&notice, &mut buffer).unwrap();
        let (mut said, now) = (0, at(self.now));
        let of = (reader, &SERVER);
        let told = self
            .watches
            .told(now, of, body, &verifier, &mut |_| said += 1);
        told.map(|()| said)
    }

    /// What the own directory says now: the nodes.
    fn hear(&mut self, reader: ReaderId) -> Vec<PeerId> {
        let mut said = Vec::new();
        self.watches.hear_own(at(self.now), reader, &mut |node| {
            said.push(node.record.peer)
        });
        said
    }
}

fn opens(reader: ReaderId) -> Option<WatchAction> {
    Some(WatchAction::Open {
        reader,
        server: SERVER,
        addrs: addrs(),
    })
}

#[test]
fn own_directory_is_heard_without_a_stream_and_others_by_one() {
    let mut world = World::with(3);
    let reader = world.read();
    world.list();
    assert_eq!(world.poll(), opens(reader));
    assert_eq!(world.poll(), Some(WatchAction::Hear { reader }));
    assert_eq!(world.hear(reader), [peer(1), peer(2), peer(3)]);
    assert_eq!(world.told(reader, 3, Opens(true)), Ok(0), "it is known");
    assert_eq!(world.told(reader, 4, Opens(true)), Ok(1));
}

#[test]
fn own_directory_is_heard_a_batch_at_a_time_with_a_pause() {
    let mut world = World::with(150);
    let reader = world.read();
    world.list();
    assert_eq!(world.poll(), opens(reader));
    let mut heard = 0;
    while heard < 150 {
        assert_eq!(world.poll(), Some(WatchAction::Hear { reader }));
        let batch = world.hear(reader).len();
        assert!((1..100).contains(&batch));
        heard += batch;
        assert_eq!(world.poll(), None);
        assert_eq!(world.watches.timeout(), Some(at(world.now) + OWN_PAUSE));
        world.now += OWN_PAUSE.as_millis() as u64;
    }
    assert_eq!(heard, 150);
}

#[test]
fn record_of_a_server_is_verified_and_its_stream_is_over_if_it_is_false() {
    let mut world = World::with(0);
    let reader = world.read();
    world.list();
    assert_eq!(world.poll(), opens(reader));
    let told = world.told(reader, 4, Opens(false));
    assert_eq!(
        told,
        Err(NoticeError::Record(RecordError::Envelope(
            Flaw::BadSignature
        )))
    );
    // It is opened anew after a pause.
    world.now += 10_000;
    let mut actions = core::iter::from_fn(|| world.poll());
    assert!(actions.any(|action| Some(action) == opens(reader)));
}

#[test]
fn next_frame_is_read_when_there_is_room_and_a_reader_without_room_loses_its_watch() {
    let mut world = World::with(0);
    let reader = world.read();
    world.list();
    assert_eq!(world.poll(), opens(reader));
    while world.poll().is_some() {}
    assert_eq!(world.told(reader, 4, Opens(true)), Ok(1));
    let patience = READER_PATIENCE.as_millis() as u64;
    let mut since = world.now;
    world.watches.has_no_room(at(since), reader);
    assert_eq!(world.poll(), None);
    world.now = since + patience - 1;
    // A second word of it changes nothing.
    world.watches.has_no_room(at(world.now), reader);
    assert_eq!(world.watches.timeout(), Some(at(since + patience)));
    assert_eq!(world.poll(), None);
    world.watches.has_room(reader);
    let server = SERVER;
    assert_eq!(world.poll(), Some(WatchAction::ReadOn { reader, server }));
    since = world.now;
    world.watches.has_no_room(at(since), reader);
    world.now = since + patience - 1;
    assert_eq!(world.poll(), None);
    world.now = since + patience;
    assert_eq!(world.poll(), Some(WatchAction::Behind { reader }));
    assert_eq!(world.poll(), None);
    assert!(world.watches.of(reader).is_none());
    assert_eq!(world.told(reader, 5, Opens(true)), Ok(0), "it is over");
}

#[test]
fn one_lookup_is_for_all_readers_that_wait_and_another_for_those_that_come_meanwhile() {
    let mut world = World::with(0);
    let first = world.read();
    assert_eq!(world.poll(), None);
    world.watches.list_begun(Some(LookupId(1)));
    let second = world.read();
    assert_eq!(world.poll(), None);
    assert!(!world.watches.wants_list(), "one is under way");
    assert!(world.watches.is_looking(LookupId(1)));
    let now = at(world.now);
    world
        .watches
        .listed(now, &*world.indexer, &[], Extent::Whole);
    assert!(world.watches.wants_list());
    assert_eq!(world.poll(), Some(WatchAction::Hear { reader: first }));
    world.hear(first);
    world.watches.list_begun(None);
    world
        .watches
        .listed(now, &*world.indexer, &[], Extent::Part);
    assert!(!world.watches.wants_list());
    let mut actions = core::iter::from_fn(|| world.poll());
    assert!(actions.any(|action| action == WatchAction::Hear { reader: second }));
}

#[test]
fn reader_without_a_place_is_refused_and_one_that_leaves_gives_its_place_back() {
    let mut world = World::with(0);
    let (first, _) = (world.read(), world.read());
    let now = at(world.now);
    assert_eq!(world.watches.read(now, 7, Filter::default()), None);
    world.watches.leave(now, first);
    let third = world.read();
    assert!(third > first, "its number is new");
    let [readers, ..] = world.watches.stats();
    assert_eq!((readers.used, readers.capacity, readers.refused), (2, 2, 1));
}
