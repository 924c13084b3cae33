//! Sequences of inputs into the endpoint of each role, with tables of a few entries.
//!
//! Whatever comes, in whatever order: nothing panics, the endpoint has an end of actions after each
//! input, it never wants to be woken in the past, no table has more entries than its capacity, and
//! at each housekeeping every peer that is to have a connection slot has one.

#![no_main]

mod input;

use std::{collections::BTreeSet, time::Duration};

use libfuzzer_sys::fuzz_target;
use oc_discovery::protocol::{
    AckBuf, AckCode, Action, Addrs, Beat, Coverage, Entries, Filter, Indexer, IndexerConfig, Input,
    Instant, Machine, Native, NativeConfig, Node, NodeConfig, PeerId, RecordInfo, Report,
    RequestId, Role, SignedRecord, StreamId, TableStats, Verdict,
    clock::WallClock,
    codec::{
        directory::{Room, decode_request, decode_response},
        heartbeat::{AckCause, WallReading},
    },
    endpoint::{Endpoint, Place},
    listing::{Listing, ListingAction, Listings, States},
    lookup::{Lookups, Query, RecordCopy},
    watch::{WatcherId, Watches},
};

use input::{Bytes, Known, TERMS};

/// Actions for one input at most.
const MAX_ACTIONS: usize = 2_000;
/// What the system clock shows at the start, ms since the Unix epoch.
const TODAY: u64 = 1_800_000_000_000;
/// Peers of the process.
const PEERS: u8 = 6;

type Process = Endpoint<
    Box<dyn Machine>,
    Box<Lookups<4, 4, 4, 4>>,
    Box<Watches<2, 4, 4>>,
    Box<Listing<Vec<u64>>>,
    2,
>;

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::new(data);
    let mut world = World::new(match bytes.below(3) {
        0 => Role::Node,
        1 => Role::Indexer,
        _ => Role::Native,
    });
    world.settle();
    while !bytes.is_empty() {
        world.step(&mut bytes);
        world.settle();
    }
});

/// The process, and what its host knows.
struct World {
    now: u64,
    process: Process,
    slots: BTreeSet<PeerId>,
    /// What was asked and is not answered.
    asked: Vec<Query>,
    searched: Vec<Query>,
    /// First beats that are held, with their streams.
    held: Vec<(PeerId, StreamId, Beat<SignedRecord<'static>>)>,
    requests: u64,
    watchers: u64,
}

impl World {
    fn new(role: Role) -> Self {
        let (now, own) = (Instant::from_millis(0), input::peer(0));
        let mut lookups = Box::new(Lookups::new());
        lookups.start(own);
        let process = Endpoint::new(
            now,
            machine(role, now, own),
            lookups,
            Box::new(Watches::new()),
            Listings::new(own),
            WallClock::new(TODAY),
        );
        let mut world = Self {
            now: 0,
            process,
            slots: BTreeSet::new(),
            asked: Vec::new(),
            searched: Vec::new(),
            held: Vec::new(),
            requests: 0,
            watchers: 0,
        };
        world.process.announce([input::ADDR].into_iter());
        world
    }

    fn at(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    fn system_ms(&self) -> u64 {
        TODAY + self.now
    }

    /// One thing happens.
    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.below(20) {
            0 => self.now += u64::from(bytes.byte()),
            1 => self.now += 1_000 * u64::from(bytes.byte()),
            2 => self.wait_for_the_next_timeout(),
            3..=5 => self.beat(bytes),
            6 => self.ack(bytes),
            7 => self.stream(bytes),
            8 => self.probed(bytes),
            9 => self.natives(bytes),
            10 => self.respond(bytes),
            11 => self.search(bytes),
            12 => self.serve(bytes),
            13 => _ = self.process.find(self.at(), bytes.question(PEERS)),
            14 => self.list(),
            15 => self.watch(bytes),
            16 => self.time_jumps(bytes),
            17 => self.drain(bytes),
            18 => self.process.handle(self.at(), Input::NetworkChanged),
            _ => self.announced(bytes),
        }
    }

    /// Carries all actions out, and checks what must hold after it.
    fn settle(&mut self) {
        for _ in 0..MAX_ACTIONS {
            let Some(action) = self.process.poll(self.at(), self.system_ms()) else {
                return self.check();
            };
            self.carry_out(action);
        }
        panic!("no end of actions");
    }

    fn check(&self) {
        let next = self.process.next_timeout();
        assert!(
            next.is_none_or(|next| next > self.at()),
            "it wants to be woken at {next:?}, and it is {:?}",
            self.at()
        );
        self.process.machine().report(self.at(), &mut Tables);
        for stats in self.process.lookup_stats() {
            Tables.table(stats);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Sign => _ = self.process.record_signed(self.at()),
            Action::Slot { peer, is_reserved } => match is_reserved {
                true => _ = self.slots.insert(peer),
                false => _ = self.slots.remove(&peer),
            },
            Action::Slots => self.slots = self.to_reserve(),
            Action::KeepHouse => assert!(self.to_reserve().is_subset(&self.slots), "no slot"),
            Action::Ask { query, .. } | Action::Listing(ListingAction::Ask { query, .. }) => {
                self.asked.push(query);
            }
            Action::Search { query, .. } | Action::Providers { query, .. } => {
                self.searched.push(query);
            }
            Action::EndSearch { query } => self.searched.retain(|other| *other != query),
            Action::Judge { peer, stream } => self.judge(&peer, stream),
            Action::Listing(ListingAction::Rows { listing }) => {
                self.process.rows(self.at(), listing, &mut |_| {});
            }
            _ => {}
        }
    }

    fn to_reserve(&self) -> BTreeSet<PeerId> {
        let peers = (0..PEERS).map(input::peer);
        let machine = self.process.machine();
        peers.filter(|peer| machine.reserves_slot(peer)).collect()
    }

    fn wait_for_the_next_timeout(&mut self) {
        if let Some(next) = self.process.next_timeout() {
            self.now = self.now.max(next.as_millis());
        }
    }

    fn beat(&mut self, bytes: &mut Bytes<'_>) {
        let (peer, stream) = (bytes.peer(PEERS), StreamId(bytes.below(4).into()));
        let beat = bytes.beat(peer, self.system_ms());
        let place = match bytes.below(3) {
            0 => Place::Next,
            _ => Place::First {
                source: bytes.source(),
                reader: bytes.reader(),
            },
        };
        let at = (&peer, stream);
        if self.process.beat(self.at(), at, place, &beat).is_none() {
            self.held.push((peer, stream, beat));
        }
    }

    fn judge(&mut self, peer: &PeerId, stream: StreamId) {
        let is_it = |held: &(PeerId, StreamId, _)| held.0 == *peer && held.1 == stream;
        if let Some(at) = self.held.iter().position(is_it) {
            let (peer, stream, beat) = self.held.swap_remove(at);
            let place = Place::Held {
                reader: Default::default(),
            };
            let outcome = self.process.beat(self.at(), (&peer, stream), place, &beat);
            assert!(outcome.is_some(), "a beat is held once");
        }
    }

    fn ack(&mut self, bytes: &mut Bytes<'_>) {
        let server = &bytes.peer(PEERS);
        let ack = AckBuf {
            code: match bytes.below(4) {
                0 => AckCode::Released,
                1 => AckCode::Full,
                2 => AckCode::Refused,
                _ => AckCode::Accepted,
            },
            lease: bytes.duration(),
            offers: bytes.offers(PEERS),
            reason: Default::default(),
            known: Default::default(),
        };
        let clock = WallReading {
            ms: self.system_ms() + 1_000 * u64::from(bytes.byte()),
            synchronised: bytes.flag(),
        };
        let acked = Input::Acked {
            server,
            over: bytes.flag().then(|| bytes.source()),
            cause: match bytes.flag() {
                true => AckCause::Beat,
                false => AckCause::Unsolicited,
            },
            ack: &ack.as_ack(),
            clock: bytes.flag().then_some(clock),
        };
        self.process.handle(self.at(), acked);
    }

    fn stream(&mut self, bytes: &mut Bytes<'_>) {
        let (peer, stream) = (&bytes.peer(PEERS), StreamId(bytes.below(4).into()));
        let ended = match bytes.below(3) {
            0 => Input::StreamClosed { peer, stream },
            1 => Input::LeaseClosed { server: peer },
            _ => Input::GaveUp { server: peer },
        };
        self.process.handle(self.at(), ended);
        self.held.retain(|held| held.0 != *peer || held.1 != stream);
    }

    fn probed(&mut self, bytes: &mut Bytes<'_>) {
        let (peer, stream) = (&bytes.peer(PEERS), StreamId(bytes.below(4).into()));
        let verdict = match bytes.flag() {
            true => Verdict::Reachable,
            false => Verdict::Silent,
        };
        let probed = match bytes.flag() {
            true => Input::Probed { peer, verdict },
            false => Input::StreamProbed {
                peer,
                stream,
                verdict,
            },
        };
        self.process.handle(self.at(), probed);
    }

    fn natives(&mut self, bytes: &mut Bytes<'_>) {
        let (native, addrs) = (&bytes.peer(PEERS), &input::addrs());
        let input = match bytes.below(4) {
            0 => Input::NativeForgotten { native },
            _ => Input::NativeLearned { native, addrs },
        };
        self.process.handle(self.at(), input);
    }

    /// A server answers with the rest of the bytes, or with indexers, or not at all.
    fn respond(&mut self, bytes: &mut Bytes<'_>) {
        if self.asked.is_empty() {
            return;
        }
        let query = self.asked.swap_remove(bytes.at(self.asked.len()));
        let (mut room, mut offers, frame) = (Room::default(), Default::default(), bytes.frame());
        let response = match bytes.below(3) {
            0 => None,
            1 => decode_response(frame, &mut room).ok(),
            _ => Some(bytes.indexers(PEERS, &mut offers)),
        };
        let at = Instant::from_millis(self.now);
        self.process
            .responded(at, query, response.as_ref(), &Known, &mut |_, _| {});
    }

    fn search(&mut self, bytes: &mut Bytes<'_>) {
        if self.searched.is_empty() {
            return;
        }
        let (times, at) = ((self.at(), self.system_ms()), bytes.at(self.searched.len()));
        let Some(query) = self.searched.get(at).copied() else {
            return;
        };
        let peer = bytes.peer(PEERS);
        match bytes.below(3) {
            0 => {
                self.searched.swap_remove(at);
                self.process.searched(times, query, bytes.byte().into());
            }
            1 => {
                let info: RecordInfo = bytes.record(peer, self.system_ms());
                let copy = RecordCopy {
                    info: &info,
                    envelope: b"signed",
                    age: bytes.flag().then(|| bytes.duration()),
                    claimed: bytes.flag().then(|| bytes.duration()),
                };
                self.process.found(times, query, copy);
            }
            _ => {
                let coverage = match bytes.flag() {
                    true => Coverage::Complete,
                    false => Coverage::Partial,
                };
                let providers: [(PeerId, Addrs); 1] = [(peer, input::addrs())];
                self.process
                    .provided(self.at(), query, &providers, coverage);
            }
        }
    }

    fn serve(&mut self, bytes: &mut Bytes<'_>) {
        self.requests += 1;
        let (peer, id) = (bytes.peer(PEERS), RequestId(self.requests));
        let request = match bytes.flag() {
            true => bytes.request(PEERS),
            false => match decode_request(bytes.frame()) {
                Ok(request) => request,
                Err(_) => return,
            },
        };
        let mut entries = Entries::default();
        let at = Instant::from_millis(self.now);
        let _ = self
            .process
            .serve(at, (&peer, id, bytes.reader()), request, &mut entries);
    }

    fn list(&mut self) {
        let which = (Filter::default(), States::ALL);
        let place = || Box::new(Listing::new(vec![0; 64]));
        if let Some(listing) = self.process.list(self.at(), 7, which, place) {
            self.process.listings_mut().has_room(listing, 100);
        }
    }

    fn watch(&mut self, bytes: &mut Bytes<'_>) {
        self.watchers += 1;
        let (peer, watcher) = (bytes.peer(PEERS), WatcherId(self.watchers));
        let at = self.at();
        self.process
            .watched_by(at, (peer, watcher), Filter::default());
    }

    fn time_jumps(&mut self, bytes: &mut Bytes<'_>) {
        self.now += 1_000 * u64::from(bytes.byte());
        let gap = self.process.overslept(self.at());
        if gap > Duration::ZERO {
            self.settle();
            self.process.handle(self.at(), Input::Overslept { gap });
        }
    }

    fn drain(&mut self, bytes: &mut Bytes<'_>) {
        let input = match bytes.below(8) {
            0..=3 => Input::Drain,
            4..=6 => Input::EndDrain,
            _ => Input::ShutDown,
        };
        self.process.handle(self.at(), input);
    }

    fn announced(&mut self, bytes: &mut Bytes<'_>) {
        let key = &bytes.key();
        let end = bytes.announce_end();
        self.process
            .handle(self.at(), Input::Announced { key, end });
    }
}

/// A machine with room for few.
fn machine(role: Role, now: Instant, own: PeerId) -> Box<dyn Machine> {
    let interval = Duration::from_secs(30);
    match role {
        Role::Node => {
            let mut node = Box::new(Node::new());
            let config = NodeConfig {
                terms: TERMS,
                connect_interval: Duration::from_secs(60),
                min_indexers: 2,
            };
            node.start(now, own, 7, config);
            node
        }
        Role::Indexer => {
            let mut indexer = Box::new(Indexer::<3>::new());
            let config = IndexerConfig {
                terms: TERMS,
                gc_interval: interval,
            };
            indexer.start(now, own, 7, config);
            indexer
        }
        Role::Native => {
            let mut native = Box::new(Native::<2, 4, 2, 16>::new());
            let config = NativeConfig {
                terms: TERMS,
                offload_interval: interval,
                refresh_interval: interval,
                gc_interval: interval,
            };
            native.start(now, own, 7, config);
            native
        }
    }
}

/// Checks each table.
struct Tables;

impl Report for Tables {
    fn table(&mut self, stats: TableStats) {
        assert!(stats.used <= stats.capacity, "{stats:?}");
    }
}
