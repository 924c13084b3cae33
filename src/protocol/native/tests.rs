//! The native as a whole, in virtual time. What a single table or loop decides is tested beside it.

mod gc;
mod natives;
mod offload;
mod pending_requests;
mod readers;
mod refresh;
mod registration;
mod standing;

use std::{boxed::Box, vec::Vec};

use super::*;
use crate::protocol::input::tests::Events;
use crate::protocol::{
    Addr, Filter, Key, Load, LoopStats, Name, RecordInfo, Selection, lease::Lease,
    rivals::Contested,
};

const OWN: PeerId = PeerId::from_bytes([0; 32]);
const LEASE: Duration = Duration::from_secs(90);
const INTERVAL: Duration = Duration::from_secs(30);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn addrs(n: u8) -> Addrs {
    [Addr::from_iter([n])].into_iter().collect()
}

fn record(n: u8, sequence: u64) -> RecordInfo {
    RecordInfo {
        peer: peer(n),
        sequence,
        issued_at_ms: sequence,
        ttl: record_ttl(LEASE),
        addrs: addrs(n),
        name: Name::new(),
    }
}

/// A native with room for 32 indexers, 32 ids, 3 nodes and 40 leases, and its actions so far.
struct Rig {
    native: Box<Native<32, 32, 3, 40>>,
    now: u64,
}

impl Rig {
    /// Started at 0: GC runs first at 10 s, refresh at 20 s, offload at 30 s.
    fn new() -> Self {
        let mut native = Box::new(Native::new());
        let config = NativeConfig {
            terms: Terms {
                lease: LEASE,
                beat_interval: INTERVAL,
            },
            offload_interval: INTERVAL,
            refresh_interval: INTERVAL,
            gc_interval: INTERVAL,
        };
        native.start(at(0), OWN, 1, config);
        Self { native, now: 0 }
    }

    /// Lets time pass up to and including `until`. Returns the actions and their times.
    fn run(&mut self, until: u64) -> Vec<(u64, Action)> {
        let mut out = Vec::new();
        loop {
            out.extend(self.drain().into_iter().map(|action| (self.now, action)));
            let next = self.native.timeout().as_millis().max(self.now);
            if next > until {
                self.now = until;
                return out;
            }
            self.now = next;
        }
    }

    /// All actions of this instant.
    fn drain(&mut self) -> Vec<Action> {
        let mut out = Vec::new();
        while let Some(action) = self.native.poll(at(self.now), self.now) {
            out.push(action);
            assert!(out.len() < 1000, "poll does not come to an end");
        }
        assert!(self.native.timeout() > at(self.now), "it would spin");
        out
    }

    fn beat(
        &mut self,
        role: Role,
        n: u8,
        stream: u64,
        record: Option<&RecordInfo>,
    ) -> BeatOutcome<'_> {
        self.beat_with(role, n, stream, LEASE, record, None, &[])
    }

    #[expect(clippy::too_many_arguments, reason = "a beat is what it carries")]
    fn beat_with(
        &mut self,
        role: Role,
        n: u8,
        stream: u64,
        lease: Duration,
        record: Option<&RecordInfo>,
        load: Option<(u32, u32)>,
        known: &[PeerId],
    ) -> BeatOutcome<'_> {
        let beat = Beat {
            record: record.map(SignedRecord::of),
            load: load.map(|(held, possible)| Load { held, possible }),
            known: known.iter().copied().collect(),
            ..Beat::new(role, lease)
        };
        self.native
            .beat(at(self.now), &peer(n), StreamId(stream), &beat)
    }

    /// An indexer's beat with its record.
    fn indexer(&mut self, n: u8) {
        let outcome = self.beat(Role::Indexer, n, u64::from(n), Some(&record(n, 1)));
        assert_eq!(outcome.ack.code, AckCode::Accepted);
    }

    /// A node's beat.
    fn node(&mut self, n: u8) -> Ack<'_> {
        self.beat(Role::Node, n, u64::from(n), None).ack
    }

    fn give_up(&mut self, role: Role, n: u8, stream: u64) -> Ack<'_> {
        self.beat_with(role, n, stream, Duration::ZERO, None, None, &[])
            .ack
    }

    fn ask(&mut self, n: u8, want: Want) -> Option<IndexersAnswer<'_>> {
        let request = RequestId(u64::from(n));
        self.native
            .ask(at(self.now), &peer(n), request, MAX_LIST, want)
    }

    fn view(&self) -> View {
        let mut view = View::default();
        self.native.report(at(self.now), &mut view);
        view
    }

    /// Makes the native know another one, and drops its actions for that one.
    fn learn_native(&mut self, n: u8) {
        self.native.learn_native(at(self.now), peer(n), addrs(n));
    }
}

/// The state that `status` shows.
#[derive(Default)]
struct View {
    live: Vec<(PeerId, Source)>,
    known: Vec<PeerId>,
    responsible: Vec<PeerId>,
    records: Vec<StreamRecord>,
    runs: Vec<(&'static str, u64, Option<Instant>)>,
    tables: Vec<TableStats>,
    /// What each loop did at its last run.
    did: Vec<(&'static str, u32)>,
}

impl View {
    fn expiry(&self, n: u8) -> Option<Instant> {
        let mut records = self.records.iter();
        let record = records.find(|record| record.peer == peer(n))?;
        Some(record.expiry)
    }

    fn refused(&self, name: &str) -> u64 {
        self.stats(name).refused
    }

    fn used(&self, name: &str) -> usize {
        self.stats(name).used
    }

    /// What the loop did at its last run.
    fn did(&self, name: &str) -> u32 {
        let mut loops = self.did.iter();
        loops.find(|(of, _)| *of == name).unwrap().1
    }

    fn stats(&self, name: &str) -> &TableStats {
        let mut tables = self.tables.iter();
        tables.find(|table| table.name == name).unwrap()
    }
}

impl Report for View {
    fn live_indexer(&mut self, entry: &LiveIndexer) {
        self.live.push((entry.peer, entry.source));
    }

    fn known_peer_id(&mut self, peer: &PeerId) {
        self.known.push(*peer);
    }

    fn responsible_peer(&mut self, entry: &Responsible) {
        self.responsible.push(entry.peer);
    }

    fn stream_record(&mut self, record: &StreamRecord) {
        self.records.push(record.clone());
    }

    fn lease(&mut self, _lease: &Lease) {}

    fn background_loop(&mut self, name: &'static str, stats: LoopStats) {
        self.runs.push((name, stats.runs, stats.last));
        self.did.push((name, stats.done));
    }

    fn table(&mut self, stats: TableStats) {
        self.tables.push(stats);
    }

    fn contested(&mut self, _: &Contested) {}
}
