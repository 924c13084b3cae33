use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::thread;

use miniserde::json;

use super::*;
use crate::daemon::demo::Speed;
use crate::daemon::demo::Step;
use crate::daemon::demo::tests::Theatre;
use crate::daemon::status::{
    Lease, PeerState, ResponsiblePeer, StreamRecord, Verdict, VerdictState,
};
use crate::net::executor::waits::{block_on, eventually};

/// The processes of the demo, with answers that a test sets. Their peer ids are their names.
#[derive(Clone)]
struct World(Arc<Mutex<BTreeMap<&'static str, Status>>>);

impl World {
    fn new(stage: &Stage) -> World {
        let cast = [(NATIVE, Role::Native)]
            .into_iter()
            .chain(INDEXERS.map(|process| (process, Role::Indexer)))
            .chain(NODES.map(|process| (process, Role::Node)));
        let statuses = cast.map(|(process, role)| (process, blank(process, role)));
        let world = World(Arc::new(Mutex::new(statuses.collect())));
        let processes: Vec<_> = world.0.lock().unwrap().keys().copied().collect();
        for process in processes {
            world.answer(process, &stage.data_dir(process));
        }
        world
    }

    fn answer(&self, process: &'static str, dir: &Path) {
        std::fs::create_dir(dir).unwrap();
        let (path, _handle) = client::socket_path(dir).unwrap();
        let listener = UnixListener::bind(path).unwrap();
        let world = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut question = String::new();
                BufReader::new(&stream).read_line(&mut question).unwrap();
                let answer = json::to_string(&world.0.lock().unwrap()[process]);
                writeln!(stream, "{answer}").unwrap();
            }
        });
    }

    fn change(&self, process: &str, change: impl FnOnce(&mut Status)) {
        change(self.0.lock().unwrap().get_mut(process).unwrap());
    }

    fn native(&self, change_it: impl FnOnce(&mut Status)) {
        self.change(NATIVE, change_it);
    }

    /// Puts a node under these leases and no others.
    fn leases(&self, node: &str, with: &[(&str, Role)]) {
        let leases = with.iter().map(|&(peer_id, role)| Lease {
            peer_id: peer_id.into(),
            role,
            expires_in_ms: 1,
        });
        self.change(node, |status| status.leases = leases.collect());
    }
}

fn blank(process: &str, role: Role) -> Status {
    Status {
        role,
        peer_id: process.into(),
        name: None,
        tags: Default::default(),
        services: vec![],
        checks: vec![],
        version: String::new(),
        uptime_ms: 0,
        listen: vec![],
        announced: vec![],
        schema: 1,
        verdict: Verdict {
            obstacle: None,
            state: VerdictState::Ok,
            summary: String::new(),
        },
        wanted_leases: 0,
        natives: Vec::new(),
        found_natives: Vec::new(),
        live_indexers: vec![],
        known_peer_ids: vec![],
        responsible_peers: vec![],
        stream_records: vec![],
        leases: vec![],
        loops: BTreeMap::new(),
        tables: vec![],
        contested: vec![],
        troubles: vec![],
        problems: vec![],
        servers: vec![],
        counters: Default::default(),
        resident_bytes: None,
        cpu_ms: 0,
        network: None,
        key: None,
        reachable: None,
        native_option: None,
    }
}

fn entry(process: &str, source: Source) -> LiveIndexer {
    LiveIndexer {
        peer_id: process.into(),
        addrs: vec![],
        expires_in_ms: 1,
        source,
        failures: 0,
    }
}

/// A run of the demo in which a test controls each step.
struct Rehearsal<'a> {
    play: Play<'a>,
    steps: std::slice::Iter<'static, Step>,
    step: &'static Step,
}

impl<'a> Rehearsal<'a> {
    fn new(theatre: &'a Theatre, stage: &'a Stage) -> Self {
        Rehearsal {
            play: Play::new(&theatre.program, stage, Tempo::at(Speed(100))),
            steps: STORY.iter(),
            step: &STORY[0],
        }
    }

    fn begin(&mut self, name: &str) {
        self.step = self.steps.next().unwrap();
        assert_eq!(self.step.name, name);
        (self.step.begin)(&mut self.play).unwrap();
    }

    #[track_caller]
    fn not_yet(&mut self, why: &str) {
        match (self.step.look)(&mut self.play) {
            Sight::NotYet(_, saw) => assert!(saw.contains(why), "{saw}"),
            Sight::Seen(saw) => panic!("seen too early: {saw}"),
        }
    }

    /// Polls until the step is seen, because real processes need a moment.
    #[track_caller]
    fn seen(&mut self, what: &str) {
        let deadline = std::time::Instant::now() + SLACK;
        loop {
            match (self.step.look)(&mut self.play) {
                Sight::Seen(saw) => return assert!(saw.contains(what), "{saw}"),
                Sight::NotYet(_, saw) => {
                    assert!(std::time::Instant::now() < deadline, "{saw}");
                    thread::yield_now();
                }
            }
        }
    }
}

/// A script that prints the greeting, with the name of its process as the peer id.
const GREETS: &str = "name=${3##*/}\n\
    echo \"peer id $name\"\n\
    echo \"listening on /ip4/127.0.0.1/tcp/1/p2p/$name\"\n\
    echo ready\n\
    exec sleep 600";

#[test]
fn every_step_is_seen_when_it_happens_and_not_before() {
    let theatre = Theatre::with(GREETS);
    let stage = theatre.stage();
    let world = World::new(&stage);
    let mut story = Rehearsal::new(&theatre, &stage);

    world.native(|status| status.peer_id = "another".into());
    story.begin("native up");
    story.not_yet("");
    world.native(|status| status.peer_id = NATIVE.into());
    story.seen("listening on 127.0.0.1:1");

    story.begin("nodes taken in");
    story.not_yet("node-1 without the native's lease");
    for node in NODES {
        world.leases(node, &[(NATIVE, Role::Native)]);
    }
    story.not_yet("node-1 not in");
    world.native(|status| {
        status.responsible_peers = NODES.map(taken_in).into();
    });
    story.seen("3 nodes");

    story.begin("indexers arrive");
    story.not_yet("");
    world.native(|status| status.live_indexers = vec![entry("indexer-1", Source::Heartbeat)]);
    for process in INDEXERS {
        wait_for_greeting(&story.play, process);
    }
    story.not_yet("indexer-2 not in");
    world.native(|status| {
        status
            .live_indexers
            .push(entry("indexer-2", Source::Heartbeat));
    });
    story.seen("indexer-1 and indexer-2");

    story.begin("offload");
    story.not_yet("3 nodes still");
    world.native(|status| status.responsible_peers.clear());
    story.not_yet("node-1 under no indexer's lease");
    world.leases("node-1", &[("indexer-1", Role::Indexer)]);
    world.leases("node-2", &[("indexer-2", Role::Indexer)]);
    world.leases("node-3", &[(NATIVE, Role::Native)]);
    story.not_yet("node-3 under no");
    world.leases("node-3", &[("indexer-2", Role::Indexer)]);
    story.seen("node-1 on indexer-1, node-2 on indexer-2, node-3 on indexer-2");

    story.begin("indexer silenced");
    story.seen("indexer-2 frozen, the indexer of node-2 and node-3");

    world.native(|status| status.stream_records = vec![stream("indexer-1"), stream("indexer-2")]);
    story.begin("stream collected");
    story.not_yet("indexer-2's stream record");
    world.native(|status| status.stream_records.truncate(1));
    story.seen("no stream record of indexer-2");
    world.native(|status| status.live_indexers.truncate(1));
    story.not_yet("neither");
    world.native(|status| {
        status
            .live_indexers
            .push(entry("indexer-2", Source::Heartbeat));
    });

    story.begin("entry refreshed");
    story.not_yet("as its last beat left it");
    world.native(|status| status.live_indexers[1].source = Source::Dht);
    story.seen("source `dht`");

    story.begin("entry run out");
    story.not_yet("1 ms to live");
    world.native(|status| status.live_indexers.truncate(1));
    story.seen("1 live indexer, indexer-2 not");

    story.begin("nodes back under a lease");
    story.not_yet("node-2 still with indexer-2");
    world.leases("node-2", &[]);
    story.not_yet("node-2 under no lease");
    world.leases("node-2", &[("indexer-1", Role::Indexer)]);
    world.leases(
        "node-3",
        &[("indexer-2", Role::Indexer), ("indexer-1", Role::Indexer)],
    );
    story.not_yet("node-3 still with");
    world.leases("node-3", &[("indexer-1", Role::Indexer)]);
    story.seen("node-2 and node-3 moved");

    // The last steps ask for more than a status, which only real processes answer: CI runs the
    // demo.
    story.begin("found by name");
    story.not_yet("lacks");
    #[cfg(feature = "dns")]
    {
        story.begin("answered by DNS");
        story.not_yet("node-3 not answering DNS");
    }
    assert!(story.steps.next().is_none());
}

#[test]
fn nothing_is_silenced_when_no_node_is_with_an_indexer() {
    let theatre = Theatre::with(GREETS);
    let stage = theatre.stage();
    let _world = World::new(&stage);
    let mut play = Play::new(&theatre.program, &stage, Tempo::at(Speed(100)));
    assert!(play.silence().unwrap_err().contains("peer id"));
    play.start_all(Role::Indexer, &INDEXERS).unwrap();
    for process in INDEXERS {
        wait_for_greeting(&play, process);
    }
    assert!(play.silence().unwrap_err().contains("no node"));
}

fn wait_for_greeting(play: &Play<'_>, process: &'static str) {
    block_on(eventually(process, || play.greeting(process).is_ok()));
}

fn taken_in(node: &str) -> ResponsiblePeer {
    ResponsiblePeer {
        peer_id: node.into(),
        since_ms: 0,
    }
}

fn stream(indexer: &str) -> StreamRecord {
    StreamRecord {
        peer_id: indexer.into(),
        role: Role::Indexer,
        name: None,
        host: None,
        state: PeerState::Alive,
        last_seen_ms: 0,
        expires_in_ms: 1,
    }
}
