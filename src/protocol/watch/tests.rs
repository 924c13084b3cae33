//! A watch of several servers in virtual time, with seeds: whatever breaks, no change is reported
//! twice and none is missed.

use core::time::Duration;
use std::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};

use super::{
    WatcherId,
    client::{Extent, Said, Sighting, Statement, Watch, WatchStep},
    fingerprint_of,
    server::{Batch, ServeStep, Watchers, tests::*},
};
use crate::protocol::{
    Addrs, Beat, Cursor, Filter, Indexer, Instant, Machine, Name, PeerId, Presence, Rng, Role,
    Selection, SignedRecord, StreamId, Subject,
    codec::{
        frame::{MAX_FRAME, header},
        watch::{Notice, decode_notice},
    },
};

const SERVERS: usize = 4;
const NODES: u64 = 40;

/// One server, and the stream on which it is watched.
struct Server {
    indexer: Box<Indexer<200>>,
    watchers: Watchers<8>,
    is_up: bool,
    stream: Option<WatcherId>,
    /// Frames on their way, and when they arrive.
    sent: VecDeque<(u64, Vec<u8>)>,
}

struct World {
    now: u64,
    rng: Rng,
    servers: Vec<Server>,
    watch: Box<Watch<256>>,
    next: u64,
    /// The last sequence of each node, and what its record says.
    nodes: BTreeMap<u8, (u64, u8)>,
    /// What was said of each node that is there.
    said: BTreeMap<PeerId, u64>,
    /// How often anything was said.
    statements: usize,
}

fn id(server: usize) -> PeerId {
    PeerId::from_bytes([200 + server as u8; 32])
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

impl World {
    fn new(seed: u64) -> Self {
        let server = |_| Server {
            indexer: indexer(0),
            watchers: Watchers::new(),
            is_up: true,
            stream: None,
            sent: VecDeque::new(),
        };
        let mut watch = Box::new(Watch::new());
        watch.start(Instant::from_millis(0), seed, Presence::Lost);
        Self {
            now: 0,
            rng: Rng::new(seed),
            servers: (0..SERVERS).map(server).collect(),
            watch,
            next: 0,
            nodes: BTreeMap::new(),
            said: BTreeMap::new(),
            statements: 0,
        }
    }

    fn at(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    /// A node beats to a server, sometimes with another record; or it leaves.
    fn beat(&mut self, n: u8, server: usize, leaves: bool) {
        let is_changed = self.rng.below(4) == 0;
        let (sequence, says) = self.nodes.entry(n).or_default();
        *sequence += 1;
        *says += u8::from(is_changed);
        let (info, envelope) = signed(n, *sequence, &std::format!("{says}"));
        let record = SignedRecord {
            info,
            envelope: &envelope,
        };
        let lease = match leaves {
            true => Duration::ZERO,
            false => LEASE,
        };
        let beat = Beat {
            record: Some(record),
            ..Beat::new(Role::Node, lease)
        };
        let (now, stream) = (self.at(), StreamId(n.into()));
        let server = &mut self.servers[server];
        if server.is_up {
            server.indexer.beat(now, &peer(n), stream, &beat);
        }
    }

    fn breaks(&mut self, server: usize) {
        let now = self.at();
        let broken = &mut self.servers[server];
        broken.sent.clear();
        if let Some(stream) = broken.stream.take() {
            broken.watchers.leave(stream);
            self.watch.ended(now, &id(server));
        }
    }

    /// A server starts anew, and knows no node.
    fn restarts(&mut self, server: usize) {
        self.breaks(server);
        self.servers[server].indexer = indexer(self.now);
    }

    fn happens(&mut self) {
        let server = self.rng.below(SERVERS as u64) as usize;
        let node = 1 + self.rng.below(NODES) as u8;
        match self.rng.below(100) {
            0..=59 => self.beat(node, server, false),
            60..=79 => self.beat(node, server, true),
            80..=87 => self.breaks(server),
            88..=89 => self.restarts(server),
            90..=92 => {
                self.breaks(server);
                self.servers[server].is_up = false;
            }
            93..=97 => self.servers[server].is_up = true,
            98 => self.now += self.rng.below(100_000),
            _ => (0..70).for_each(|n| self.beat(1 + n % NODES as u8, server, n % 3 == 0)),
        }
    }

    /// All that is due.
    fn pump(&mut self) {
        for server in 0..SERVERS {
            let now = self.at();
            while self.servers[server].indexer.poll(now, self.now).is_some() {}
            self.send(server);
            self.deliver(server);
        }
        while let Some(step) = self.watch.poll(self.at()) {
            self.does(step);
        }
    }

    fn does(&mut self, step: WatchStep) {
        let now = self.at();
        match step {
            WatchStep::List => {
                let none = Addrs::new();
                let all = (0..SERVERS).map(|server| (id(server), &none));
                self.watch.listed(now, all, Extent::Whole);
            }
            WatchStep::Open { server, .. } => {
                let at = usize::from(server.as_bytes()[0] - 200);
                self.next += 1;
                let stream = WatcherId(self.next);
                let opened = &mut self.servers[at];
                let changes = opened.indexer.changes();
                if opened.is_up
                    && opened
                        .watchers
                        .join(now, stream, None, Filter::default(), changes)
                {
                    opened.stream = Some(stream);
                } else {
                    self.watch.ended(now, &server);
                }
            }
            WatchStep::Gone { peer, .. } => {
                assert!(self.said.remove(&peer).is_some(), "gone twice");
                self.statements += 1;
            }
            WatchStep::CaughtUp { .. } => {}
        }
    }

    fn send(&mut self, server: usize) {
        let (now, mut batch) = (self.at(), Batch::new());
        loop {
            let Server {
                indexer, watchers, ..
            } = &mut self.servers[server];
            match watchers.poll(now, &**indexer, &mut batch) {
                Some(ServeStep::Tell(_)) => {
                    let arrives = self.now + self.rng.below(300);
                    let sent = &mut self.servers[server].sent;
                    sent.push_back((arrives, batch.to_vec()));
                }
                Some(ServeStep::Close(_)) => self.breaks(server),
                None => return,
            }
        }
    }

    fn deliver(&mut self, server: usize) {
        let now = self.now;
        let sent = &mut self.servers[server].sent;
        let Some((_, frames)) = sent.pop_front_if(|(arrives, _)| *arrives <= now) else {
            return;
        };
        let mut rest = &frames[..];
        while let Some(header) = header(rest, MAX_FRAME).unwrap() {
            let (frame, after) = rest.split_at(header.frame());
            self.told(
                server,
                &decode_notice(&frame[header.length..]).unwrap().unwrap(),
            );
            rest = after;
        }
        if let Some(stream) = self.servers[server].stream {
            self.servers[server].watchers.written(stream);
        }
    }

    fn told(&mut self, server: usize, notice: &Notice<'_>) {
        let (now, server) = (self.at(), id(server));
        let entry = match notice {
            Notice::CaughtUp => {
                self.watch.hear(now, &server, Statement::CaughtUp);
                return;
            }
            Notice::Present(entry) | Notice::Changed(entry) | Notice::Gone(entry) => entry,
        };
        match entry.subject {
            Subject::Named { peer, .. } => {
                let how = entry.presence;
                let statement = Statement::Gone { peer: &peer, how };
                assert_eq!(self.watch.hear(now, &server, statement), None);
            }
            Subject::Signed(envelope) => {
                let record = read_record(envelope);
                let name = Name::try_from(record.name).unwrap();
                let contents = fingerprint_of(envelope).unwrap();
                let statement = Statement::Here(Sighting {
                    peer: &record.peer,
                    name: &name,
                    sequence: record.sequence,
                    contents,
                    is_meant: true,
                });
                let said = self.watch.hear(now, &server, statement);
                self.statements += usize::from(said.is_some());
                match said {
                    None => {}
                    Some(Said::Present) => {
                        let before = self.said.insert(record.peer, contents);
                        assert_eq!(before, None, "present twice");
                    }
                    Some(Said::Changed) => {
                        let before = self.said.insert(record.peer, contents);
                        assert!(before.is_some_and(|before| before != contents));
                    }
                    Some(Said::Excluded) => panic!("everybody is meant"),
                }
            }
        }
    }

    /// Nothing happens for a while, and every server is up.
    fn calms_down(&mut self) {
        self.servers
            .iter_mut()
            .for_each(|server| server.is_up = true);
        for _ in 0..400 {
            self.now += 100;
            self.pump();
        }
        assert_eq!(self.watch.silent().count(), 0);
    }

    /// The nodes that the servers list.
    fn listed(&self) -> BTreeSet<PeerId> {
        let mut listed = BTreeSet::new();
        for server in &self.servers {
            let filter = Filter::default();
            let which = Selection::alive(&filter, Cursor::Start);
            server.indexer.entries(self.at(), which, &mut |entry| {
                if let Subject::Signed(envelope) = entry.subject {
                    listed.insert(read_record(envelope).peer);
                }
                true
            });
        }
        listed
    }
}

#[test]
fn after_any_trouble_a_watch_knows_who_is_listed_and_has_said_nothing_twice() {
    let mut statements = 0;
    for seed in 0..20 {
        let mut world = World::new(seed);
        for _ in 0..3 {
            for _ in 0..400 {
                world.happens();
                world.now += world.rng.below(200);
                world.pump();
            }
            world.calms_down();
            let said: BTreeSet<_> = world.said.keys().copied().collect();
            assert_eq!(said, world.listed(), "seed {seed}");
        }
        statements += world.statements;
    }
    assert!(statements > 3_000, "{statements}: nothing happened");
}
