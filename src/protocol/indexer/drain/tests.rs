use std::{boxed::Box, vec::Vec};

use super::*;
use crate::protocol::{
    Ack, AckCode, Addr, Addrs, Beat, Input, Machine, Publisher, Report, SignedRecord, StreamId,
    Terms,
    indexer::{Indexer, IndexerConfig},
    input::tests::Events,
    lease_table::StreamRecord,
    life::EndCause,
};

const LEASE: Duration = Duration::from_secs(90);
const CONFIG: IndexerConfig = IndexerConfig {
    terms: Terms {
        lease: LEASE,
        beat_interval: Duration::from_secs(30),
    },
    gc_interval: Duration::from_secs(3600),
};
const OWN: u8 = 0;
const NATIVE: u8 = 200;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

/// What an indexer does that is drained.
struct Run(Box<Indexer<64>>);

impl Run {
    /// An indexer that holds a lease with a native, and grants leases to nodes 1 to `nodes`.
    fn new(nodes: u8) -> Self {
        let mut indexer = Box::new(Indexer::new());
        indexer.start(at(0), peer(OWN), 1, CONFIG);
        let addrs = &Addrs::new();
        let (native, server) = (&peer(NATIVE), &peer(NATIVE));
        indexer.handle(at(0), Input::NativeLearned { native, addrs });
        let mut run = Self(indexer);
        run.actions(0);
        let ack = &Ack::accepted(LEASE);
        run.0.acked(at(0), server, ack);
        for n in 1..=nodes {
            assert_eq!(run.beat(0, n, LEASE), (AckCode::Accepted, LEASE));
        }
        run
    }

    fn beat(&mut self, now: u64, n: u8, lease: Duration) -> (AckCode, Duration) {
        let beat = Beat::<SignedRecord<'_>>::new(Role::Node, lease);
        let outcome = self.0.beat(at(now), &peer(n), StreamId(n.into()), &beat);
        (outcome.ack.code, outcome.ack.lease)
    }

    fn drain(&mut self, now: u64) {
        self.0.handle(at(now), Input::Drain);
    }

    fn actions(&mut self, now: u64) -> Vec<Action> {
        let polled = core::iter::from_fn(|| self.0.poll(at(now), 0));
        polled.take(1000).collect()
    }

    /// The nodes that are released now, and the indexers that they are sent to.
    fn releases(&mut self, now: u64) -> Vec<(u8, u8)> {
        let number = |peer: &PeerId| peer.as_bytes()[0];
        let release = |action: Action| match action {
            Action::Release { peer, offer, .. } => Some((number(&peer), number(&offer?.peer))),
            _ => None,
        };
        let mut releases: Vec<_> = self.actions(now).into_iter().filter_map(release).collect();
        releases.sort_unstable();
        releases
    }

    fn answer(&mut self, now: u64, offers: &[Offer]) {
        let answer = IndexersAnswer {
            offers,
            takes_in: false,
        };
        let (native, answer) = (&peer(NATIVE), Some(answer));
        self.0.handle(at(now), Input::Answered { native, answer });
    }

    fn progress(&self, now: u64) -> Option<Draining> {
        struct Found(Option<Draining>);
        impl Report for Found {
            fn draining(&mut self, draining: Draining) {
                self.0 = Some(draining);
            }
            fn stream_record(&mut self, _: &StreamRecord) {}
        }
        let mut found = Found(None);
        self.0.report(at(now), &mut found);
        found.0
    }
}

fn offer(n: u8, free: u32) -> Offer {
    let addr = Addr::try_from(&[4, 192, 0, 2, n, 6, 0x12, 0xd4][..]).unwrap();
    Offer {
        peer: peer(n),
        addrs: Addrs::from_iter([addr]),
        ttl: Duration::from_secs(60),
        free: Some(free),
    }
}

fn asks(actions: &[Action]) -> usize {
    let is_ask = |action: &&Action| matches!(action, Action::Ask { .. });
    actions.iter().filter(is_ask).count()
}

/// How the lease of the node ends with its last beat.
fn end_of(run: &mut Run, now: u64, node: u8) -> EndCause {
    run.beat(now, node, Duration::ZERO);
    let closed = run.actions(now);
    let mut ends = closed.iter().filter_map(|action| match action {
        Action::Close { ended, .. } => *ended,
        _ => None,
    });
    ends.next().unwrap().how
}

#[test]
fn each_node_goes_to_an_indexer_with_the_most_places_and_none_to_itself() {
    let mut run = Run::new(3);
    run.drain(0);
    assert_eq!(asks(&run.actions(0)), 1);
    run.answer(5, &[offer(OWN, 60), offer(101, 2), offer(102, 1)]);
    let sent: Vec<u8> = run.releases(5).into_iter().map(|(_, to)| to).collect();
    assert_eq!(sent.iter().filter(|to| **to == 101).count(), 2);
    assert_eq!(sent.iter().filter(|to| **to == 102).count(), 1);
}

#[test]
fn node_without_a_place_elsewhere_keeps_its_lease() {
    let mut run = Run::new(3);
    run.drain(0);
    assert_eq!(run.releases(0), []);
    run.answer(5, &[offer(101, 1)]);
    let moved = run.releases(5);
    assert_eq!(moved.len(), 1, "one place was offered: {moved:?}");
    for n in 1..=3 {
        let is_moving = moved.iter().any(|(node, _)| *node == n);
        let expected = match is_moving {
            true => (AckCode::Released, LEASE - Duration::from_secs(1)),
            false => (AckCode::Accepted, LEASE),
        };
        assert_eq!(run.beat(1000, n, LEASE), expected, "node {n}");
    }
}

#[test]
fn newcomer_is_sent_on_and_no_place_is_reported() {
    let mut run = Run::new(1);
    run.drain(0);
    let beats = run.actions(0);
    let load = beats.iter().find_map(|action| match action {
        Action::Beat { beat, .. } => beat.load,
        _ => None,
    });
    let load = load.expect("the native is notified at once");
    assert_eq!((load.held, load.possible), (1, 1));
    assert_eq!(run.beat(0, 2, LEASE).0, AckCode::Full);
    run.0.handle(at(0), Input::EndDrain);
    assert_eq!(run.beat(0, 2, LEASE).0, AckCode::Accepted);
}

#[test]
fn last_beat_of_a_released_node_is_a_hand_over() {
    let mut run = Run::new(2);
    run.drain(0);
    run.actions(0);
    run.answer(0, &[offer(101, 1)]);
    let moved = run.releases(0);
    let (node, _) = moved.first().copied().unwrap();
    let other = 3 - node;
    for (n, how) in [(node, EndCause::HandedOver), (other, EndCause::Left)] {
        assert_eq!(end_of(&mut run, 10, n), how, "node {n}");
    }
    let progress = run.progress(10).unwrap();
    assert_eq!((progress.nodes, progress.handed_over), (0, 1));
}

#[test]
fn node_that_has_not_moved_in_time_is_renewed_again_and_released_after_a_pause() {
    let mut run = Run::new(1);
    run.drain(0);
    run.actions(0);
    run.answer(0, &[offer(101, 9)]);
    assert_eq!(run.releases(0), [(1, 101)]);
    let until = u64::try_from(MOVE_TIMEOUT.as_millis()).unwrap();
    let pause = u64::try_from(MOVE_PAUSE.as_millis()).unwrap();
    assert_eq!(run.releases(until - 1), []);
    assert_eq!(run.beat(until - 1, 1, LEASE).0, AckCode::Released);
    assert_eq!(run.releases(until), []);
    assert_eq!(run.beat(until, 1, LEASE).0, AckCode::Accepted);
    run.answer(until, &[offer(101, 9)]);
    assert_eq!(run.releases(until + pause - 1), []);
    assert_eq!(run.releases(until + pause), [(1, 101)]);
}

#[test]
fn node_whose_lease_ends_soon_is_renewed_again_after_half_of_it() {
    let mut run = Run::new(0);
    let lease = Duration::from_secs(9);
    assert_eq!(run.beat(0, 1, lease).0, AckCode::Accepted);
    run.drain(3000);
    run.actions(3000);
    run.answer(3000, &[offer(101, 9)]);
    assert_eq!(run.releases(3000), [(1, 101)]);
    assert_eq!(run.releases(5999), []);
    assert_eq!(run.beat(5999, 1, lease).0, AckCode::Released);
    assert_eq!(run.releases(6000), []);
    assert_eq!(run.beat(6000, 1, lease), (AckCode::Accepted, lease));
}

#[test]
fn natives_are_notified_of_a_drain_once() {
    let mut run = Run::new(1);
    let beats = |actions: Vec<Action>| {
        let is_beat = |action: &&Action| matches!(action, Action::Beat { .. });
        actions.iter().filter(is_beat).count()
    };
    run.drain(1);
    assert_eq!(beats(run.actions(1)), 1);
    run.0.acked(at(2), &peer(NATIVE), &Ack::accepted(LEASE));
    run.drain(500);
    assert_eq!(beats(run.actions(500)), 0);
}

#[test]
fn spare_lease_is_renewed_during_a_drain() {
    let mut run = Run::new(40);
    run.drain(0);
    let beat = Beat {
        publisher: Publisher::Another,
        ..Beat::<SignedRecord<'_>>::new(Role::Node, LEASE)
    };
    let outcome = run.0.beat(at(1), &peer(1), StreamId(1), &beat);
    assert_eq!(outcome.ack.code, AckCode::Accepted);
}

#[test]
fn at_most_sixteen_nodes_move_at_a_time() {
    let mut run = Run::new(40);
    run.drain(0);
    run.actions(0);
    run.answer(0, &[offer(101, 100)]);
    let moving = run.releases(0);
    assert_eq!(moving.len(), MAX_MOVING);
    assert_eq!(run.progress(0).unwrap().moving, MAX_MOVING);
    let (first, _) = moving.first().copied().unwrap();
    run.beat(1, first, Duration::ZERO);
    assert_eq!(run.releases(1).len(), 1);
}

#[test]
fn native_is_asked_again_every_ten_seconds_and_an_offer_is_not_used_after_its_time() {
    let mut run = Run::new(1);
    run.drain(0);
    assert_eq!(asks(&run.actions(0)), 1);
    let next = u64::try_from(ASK_INTERVAL.as_millis()).unwrap();
    assert_eq!(asks(&run.actions(next - 1)), 0);
    assert_eq!(asks(&run.actions(next)), 1);
    let brief = Offer {
        ttl: Duration::from_millis(5),
        ..offer(101, 9)
    };
    run.answer(next, core::slice::from_ref(&brief));
    assert_eq!(run.releases(next + 6), []);
    run.answer(next + 6, &[brief]);
    assert_eq!(run.releases(next + 11), [(1, 101)]);
}

#[test]
fn nothing_moves_after_the_end_of_the_drain() {
    let mut run = Run::new(20);
    run.drain(0);
    run.actions(0);
    run.answer(0, &[offer(101, 100)]);
    run.0.handle(at(0), Input::EndDrain);
    assert_eq!(run.releases(0), []);
    assert_eq!(run.beat(1, 1, LEASE).0, AckCode::Accepted);
    assert_eq!(run.progress(1), None);
}

#[test]
fn node_on_its_way_when_the_drain_is_undone_is_handed_over() {
    let mut run = Run::new(1);
    run.drain(0);
    run.actions(0);
    run.answer(0, &[offer(101, 9)]);
    assert_eq!(run.releases(0), [(1, 101)]);
    run.0.handle(at(1), Input::EndDrain);
    assert_eq!(end_of(&mut run, 2, 1), EndCause::HandedOver);
}

#[test]
fn node_that_could_not_move_and_leaves_later_has_left() {
    let mut run = Run::new(1);
    run.drain(0);
    run.actions(0);
    run.answer(0, &[offer(101, 9)]);
    assert_eq!(run.releases(0), [(1, 101)]);
    let until = u64::try_from(MOVE_TIMEOUT.as_millis()).unwrap();
    assert_eq!(run.releases(until), []);
    assert_eq!(end_of(&mut run, until, 1), EndCause::Left);
}
