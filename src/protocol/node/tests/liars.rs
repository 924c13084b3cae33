//! A new node among servers that do not keep their promises, with the real native between them.
//! Both machines run in one virtual time, 10 ms apart.

use std::{boxed::Box, collections::BTreeMap, vec};

use super::*;
use crate::protocol::{
    AckBuf, Beat as InBeat, Load, Name, Native, NativeConfig, RecordInfo, RequestId, SignedRecord,
    StreamId,
};

const NATIVE: u16 = 1000;
const HONEST: [u16; 2] = [900, 901];
const LIARS: u16 = 200;
const DELAY: u64 = 10;
/// Time between two beats of the lying servers, ms.
const BEATS: u64 = 25_000;

type TheNative = Native<208, 208, 8, 224>;

fn id(n: u16) -> PeerId {
    let [high, low] = n.to_be_bytes();
    let mut key = [high ^ low; 32];
    (key[0], key[1]) = (high, low);
    PeerId::from_bytes(key)
}

fn number(peer: &PeerId) -> u16 {
    u16::from_be_bytes([peer.as_bytes()[0], peer.as_bytes()[1]])
}

/// Where a server listens: all in one prefix, or each in one of its own.
fn addr(n: u16, one_prefix: bool) -> Addrs {
    let [high, low] = n.to_be_bytes();
    let ip = match one_prefix {
        true => [4, 127, 0, 0, 1, 6, high, low],
        false => [4, 10, high, low, 1, 6, 18, 212],
    };
    [Addr::from_iter(ip)].into_iter().collect()
}

enum Event {
    ToNative(Action),
    Ack(u16, AckBuf),
    Notified(AckBuf),
    Answer(IndexersAnswer),
    Pong(PeerId),
}

struct World {
    now: u64,
    node: Box<Node>,
    native: Box<TheNative>,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    one_prefix: bool,
    /// When the node got its first lease, and its first with an honest indexer.
    leases: [Option<u64>; 2],
    asks: Vec<(u64, Want)>,
    /// Beats that the node sent.
    opened: Vec<u64>,
    /// The beats of these that went to indexers. Lying servers renew no lease, so each such beat is
    /// an attempt.
    tries: Vec<u64>,
    /// The honest indexers have disappeared silently.
    honest_are_gone: bool,
    /// How long the node was without a lease after its first one, and since when it has none now.
    bare: u64,
    bare_since: Option<u64>,
}

impl World {
    fn new(seed: u64, one_prefix: bool) -> Self {
        let mut native = Box::new(TheNative::new());
        let (terms, loops) = (
            Terms {
                lease: LEASE,
                beat_interval: LEASE / 3,
            },
            Duration::from_secs(30),
        );
        let config = NativeConfig {
            terms,
            offload_interval: loops,
            refresh_interval: loops,
            gc_interval: loops,
        };
        native.start(at(0), id(NATIVE), seed, config);
        let mut world = Self {
            now: 0,
            node: Box::new(Node::new()),
            native,
            queue: BTreeMap::new(),
            queued: 0,
            one_prefix,
            leases: [None; 2],
            asks: Vec::new(),
            opened: Vec::new(),
            tries: Vec::new(),
            honest_are_gone: false,
            bare: 0,
            bare_since: None,
        };
        // The honest indexers were there before; the lying ones came all at once. All of them beat
        // in time.
        for now in [1_000, 25_000, 50_000, 74_000] {
            world.drain_native(now);
            for n in HONEST {
                world.indexer_beats(now, n, 1024);
            }
            if now > 30_000 {
                (0..LIARS).for_each(|n| world.indexer_beats(now, n, 65_535));
            }
        }
        let now = 80_000 + seed * 7 % 15_000;
        world.drain_native(now);
        let config = NodeConfig {
            terms,
            connect_interval: CONNECT,
            min_indexers: 2,
        };
        let own = id(2000 + seed as u16);
        world.node.start(at(now), own, seed, config);
        let addrs = addr(NATIVE, one_prefix);
        world.node.learn_native(at(now), id(NATIVE), addrs);
        world.now = now;
        world
    }

    fn indexer_beats(&mut self, now: u64, n: u16, possible: u32) {
        let record = RecordInfo {
            peer: id(n),
            sequence: now,
            issued_at_ms: 1_000_000 + now,
            ttl: LEASE * 3,
            addrs: addr(n, self.one_prefix),
            name: Name::new(),
        };
        let beat = InBeat {
            record: Some(SignedRecord::of(&record)),
            load: Some(Load { held: 0, possible }),
            ..InBeat::new(Role::Indexer, LEASE)
        };
        let stream = StreamId(u64::from(n) + 1);
        self.native.beat(at(now), &id(n), stream, &beat);
    }

    /// Runs the native up to `now` without a node, and answers every ping.
    fn drain_native(&mut self, now: u64) {
        while let Some(action) = self.native.poll(at(now), 1_000_000 + now) {
            if let Action::Probe { peer, .. } = action {
                self.native.probed(at(now), &peer, true);
            }
        }
    }

    fn later(&mut self, after: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now + after, self.queued), event);
    }

    /// Runs for this long after the node's start, or until it holds a lease with an honest indexer.
    fn run(&mut self, longest: u64) {
        let start = self.now;
        while self.now <= start + longest && self.leases[1].is_none() {
            self.poll_both(start);
            let next = self.queue.keys().next().map_or(u64::MAX, |(when, _)| *when);
            let timers = self.node.timeout().min(self.native.timeout()).as_millis();
            let timers = timers.min((self.now / BEATS + 1) * BEATS);
            if timers.is_multiple_of(BEATS) && timers <= next {
                (0..LIARS).for_each(|n| self.indexer_beats(timers, n, 65_535));
            }
            self.now = next.min(timers).max(self.now + u64::from(next > self.now));
            while let Some(entry) = self.queue.first_entry().filter(|e| e.key().0 <= self.now) {
                let event = entry.remove();
                self.take(event);
            }
        }
    }

    fn poll_both(&mut self, start: u64) {
        let now = at(self.now);
        while let Some(action) = self.node.poll(now, 0) {
            match action {
                Action::Beat { server, .. } => {
                    self.opened.push(self.now - start);
                    if number(&server) != NATIVE {
                        self.tries.push(self.now - start);
                    }
                    match number(&server) {
                        NATIVE => self.later(DELAY, Event::ToNative(action)),
                        n if HONEST.contains(&n) && !self.honest_are_gone => {
                            self.later(2 * DELAY, Event::Ack(n, Ack::accepted(LEASE).into()));
                        }
                        _ => {}
                    }
                }
                Action::GiveUp { server } if number(&server) == NATIVE => {
                    self.later(DELAY, Event::ToNative(action));
                }
                Action::Ask { want, .. } => {
                    self.asks.push((self.now - start, want));
                    self.later(DELAY, Event::ToNative(action));
                }
                _ => {}
            }
        }
        let is_bare = !self.node.leases.iter().any(|lease| lease.is_secure(now));
        match self.bare_since {
            None if is_bare && self.leases[0].is_some() => self.bare_since = Some(self.now),
            Some(since) if !is_bare => {
                self.bare += self.now - since;
                self.bare_since = None;
            }
            _ => {}
        }
        let held = self.node.leases.iter().filter(|lease| lease.is_secure(now));
        for lease in held {
            let honest = HONEST.contains(&number(lease.server()));
            self.leases[0].get_or_insert(self.now - start);
            if honest {
                self.leases[1].get_or_insert(self.now - start);
            }
        }
        while let Some(action) = self.native.poll(now, 1_000_000 + self.now) {
            match action {
                Action::Probe { peer, .. } => self.later(DELAY, Event::Pong(peer)),
                Action::Answer { takes_in, .. } => {
                    let offers = self.native.answer_offers().iter().cloned().collect();
                    let answer = IndexersAnswer { offers, takes_in };
                    self.later(DELAY, Event::Answer(answer));
                }
                Action::Release { left, offer, .. } => {
                    let ack = Ack::released(left, offer.as_slice());
                    self.later(DELAY, Event::Notified(ack.into()));
                }
                _ => {}
            }
        }
    }

    fn take(&mut self, event: Event) {
        let (now, own) = (at(self.now), self.node.own);
        match event {
            Event::ToNative(Action::Ask { want, .. }) => {
                self.queued += 1;
                let request = RequestId(self.queued);
                if let Some(answer) = self.native.ask(now, &own, request, 16, want) {
                    self.later(DELAY, Event::Answer(answer));
                }
            }
            Event::ToNative(Action::GiveUp { .. }) => {
                let beat = InBeat::new(Role::Node, Duration::ZERO);
                self.native.beat(now, &own, StreamId(5000), &beat);
            }
            Event::ToNative(_) => {
                let beat = InBeat::new(Role::Node, LEASE);
                let outcome = self.native.beat(now, &own, StreamId(5000), &beat);
                let ack = outcome.ack.into();
                self.later(DELAY, Event::Ack(NATIVE, ack));
            }
            Event::Ack(server, ack) => self.node.acked(now, &id(server), &ack.as_ack()),
            Event::Notified(ack) => self.node.notified(now, &id(NATIVE), &ack.as_ack()),
            Event::Answer(answer) => self.node.answered(now, &id(NATIVE), Some(&answer)),
            Event::Pong(peer) => self.native.probed(now, &peer, true),
        }
    }
}

/// Runs the test on a thread whose stack has room for two machines of a debug build.
fn with_room(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    let ended = thread.spawn(test).unwrap().join();
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn beside_200_liars_a_new_node_has_a_lease_within_3_s_and_an_honest_one_within_15_s() {
    with_room(|| {
        for one_prefix in [true, false] {
            let (mut first, mut honest) = (vec![], vec![]);
            for seed in 0..16 {
                let mut world = World::new(seed, one_prefix);
                world.run(60_000);
                first.push(world.leases[0].unwrap_or(u64::MAX));
                honest.push(world.leases[1].unwrap_or(u64::MAX));
                let opened = |from: u64, to| {
                    let all = world.opened.iter();
                    all.filter(|at| (from..to).contains(*at)).count()
                };
                assert!(opened(0, 10_000) <= 16 + 20, "{:?}", world.opened);
            }
            first.sort_unstable();
            honest.sort_unstable();
            assert!(first[15] <= 3_000, "first leases: {first:?}");
            assert!(honest[15] <= 15_000, "honest ones: {honest:?}");
        }
    });
}

#[test]
fn where_all_indexers_lie_a_node_stays_under_the_lease_of_its_native() {
    with_room(|| {
        for seed in 0..2 {
            let mut world = World::new(seed, seed % 2 == 0);
            world.honest_are_gone = true;
            world.run(150_000);
            let first = world.leases[0].unwrap_or(u64::MAX);
            assert!(first <= 3_000, "seed {seed}: {first}");
            assert_eq!((world.bare, world.bare_since), (0, None), "seed {seed}");
            // All attempts and requests take from one bucket: a burst of 16, then two a second. The
            // beats that renew the native's lease do not take from it.
            let mut drawn = world.tries.clone();
            drawn.extend(world.asks.iter().map(|(at, _)| *at));
            for from in &drawn {
                let minute = drawn
                    .iter()
                    .filter(|at| (*from..from + 60_000).contains(*at));
                assert!(minute.count() <= 16 + 120, "seed {seed}, from {from} ms");
            }
        }
    });
}
