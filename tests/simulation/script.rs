//! A small language for stories: operations that run one after another, in a world without other
//! faults.
//!
//! A device is named. A name that ends in `*` stands for all devices with this beginning of their
//! names. Times are in seconds. Each story is played with several seeds, which determine ids,
//! delays of up to 80 ms, and jitter. The rules in [`crate::invariants`] are checked after each
//! event here too.

mod plan;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
    time::Duration,
};

use oc_discovery::protocol::{Input, Presence, Rng, Role, StreamRecord, lookup::Question};

use crate::{
    device::{Device, DeviceNo},
    scenario::{Fault, Loss},
    trace::Trace,
    world::{REAL, World},
};

/// One operation.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a> {
    /// The lease of all devices, with a beat every third of it. It is 90 s unless a story begins
    /// with this.
    Lease(u64),
    /// How many leases a node wants. It is 1 unless a story begins with this.
    Wants(usize),
    /// A native starts that is configured with these others.
    Native(&'a str, &'a [&'a str]),
    /// An indexer starts that is configured with these natives.
    Indexer(&'a str, &'a [&'a str]),
    /// This many indexers start. Their names are this name and a number.
    Indexers(&'a str, usize, &'a [&'a str]),
    /// A node starts that is configured with these natives.
    Node(&'a str, &'a [&'a str]),
    /// This many nodes start. Their names are this name and a number.
    Nodes(&'a str, usize, &'a [&'a str]),
    /// This many indexers start that report more room than any can have, and answer no beat of a
    /// node.
    Liars(&'a str, usize, &'a [&'a str]),
    /// The same, all of them on one host.
    LiarsOnOneHost(&'a str, usize, &'a [&'a str]),
    /// A node starts on another host with the identity of this one.
    Twin(&'a str, &'a str),
    /// Time passes.
    Wait(u64),
    /// The link between the two is cut in both directions for this long.
    Cut(&'a str, &'a str, u64),
    /// The link from the first to the second is cut for this long.
    CutOneWay(&'a str, &'a str, u64),
    /// The power fails, so no peer is notified.
    PowerOff(&'a str),
    /// The process is killed: its connections end.
    Kill(&'a str),
    /// The process is told to end (SIGTERM).
    End(&'a str),
    /// It starts again with its saved state.
    Restart(&'a str),
    /// The process is stopped, or the machine suspended.
    Stop(&'a str),
    /// It continues.
    GoOn(&'a str),
    /// It gets another address.
    Move(&'a str),
    /// Its clock is set this many seconds ahead of the right time, or behind it, and is not
    /// synchronised.
    StepClock(&'a str, i64),
    /// Its connections become silent: nothing passes, and no side is notified.
    Silence(&'a str),
    /// A link or a route of it is added. Its address and its connections stay.
    Plug(&'a str),
    /// The operator of the indexer drains it.
    Drain(&'a str),
    /// The drain is undone.
    EndDrain(&'a str),
    /// The operator of the first looks the other up by its id.
    LookUp(&'a str, &'a str),
    /// The operator of the first looks the other up by its name.
    LookUpName(&'a str, &'a str),
    /// Its operator asks for the indexers.
    ListIndexers(&'a str),
    /// Its operator lists all nodes.
    ListNodes(&'a str),
    /// Its operator begins to watch all nodes.
    Watches(&'a str),
    /// This becomes true within this many seconds.
    Within(u64, Seen<'a>),
    /// This is true now and for this many seconds.
    For(u64, Seen<'a>),
}

/// What can be observed.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// The node holds a lease.
    Leased(&'a str),
    /// The first holds a lease with the second, and both know it.
    Under(&'a str, &'a str),
    /// The native has taken the node in.
    TakenIn(&'a str, &'a str),
    /// The native has taken no node in.
    NobodyTakenIn(&'a str),
    /// The native has the indexer in `live_indexers`; any other server lists the node.
    Lists(&'a str, &'a str),
    /// The reverse of `Lists`.
    Omits(&'a str, &'a str),
    /// The server has granted the peer a lease, and keeps it.
    Grants(&'a str, &'a str),
    /// The reverse of `Grants`.
    LetGo(&'a str, &'a str),
    /// The server has had a beat of the peer within the last second.
    Hears(&'a str, &'a str),
    /// The last lookup found these and no others. Each server that it asked has answered.
    Found(&'a [&'a str]),
    /// The same, and a server has not answered.
    FoundInPart(&'a [&'a str]),
    /// One of these two.
    Told(&'a [&'a str]),
    /// The last lookup is over. The first that it found is this one, and it has counted this many
    /// claimants, which are all.
    FirstOf(&'a str, u32),
    /// The server reports that two devices use this identity.
    Contested(&'a str, &'a str),
    /// The listing of the first is over and complete. These are the nodes that are there; no other
    /// is.
    Rows(&'a str, &'a [&'a str]),
    /// The listing of the first has ended without these servers, and only without them.
    RowsWithout(&'a str, &'a [&'a str]),
    /// The listing of the first says that the node has left or was lost.
    RowOfVanished(&'a str, &'a str),
    /// The watch of the first says that the node is there.
    Tells(&'a str, &'a str),
    /// The reverse of `Tells`.
    TellsNot(&'a str, &'a str),
    /// The watch of the first says that the node has left.
    TellsLeft(&'a str, &'a str),
    /// The watch of the first reports no server as silent, and has reported that since this
    /// changed.
    HasCaughtUp(&'a str),
    /// Its process runs, although it may have been told to end.
    Runs(&'a str),
    /// It has no process.
    Ended(&'a str),
    /// Own time is right.
    RightTime(&'a str),
    /// The node has made at most this many requests and attempts within a minute.
    Tries(&'a str, usize),
}

/// Seeds that a story is played with.
const SEEDS: u64 = 4;
/// Stack for a native of hundreds of indexers in a debug build.
const ROOM: usize = 64 << 20;

/// Plays a story with several seeds. Panics with the operation that failed, and the last events.
pub fn play(story: &[Op<'_>]) {
    play_with(SEEDS, story);
}

/// Plays a story with this many seeds.
pub fn play_with(seeds: u64, story: &[Op<'_>]) {
    let ended = thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(ROOM);
        let playing = thread.spawn_scoped(scope, || play_all(seeds, story));
        playing.expect("there is a thread").join()
    });
    ended.unwrap_or_else(|panic| resume_unwind(panic));
}

fn play_all(seeds: u64, story: &[Op<'_>]) {
    for seed in 0..seeds {
        let play = |trace| {
            let mut stage = Stage::new(story, seed, trace);
            let outcome = stage.play(story);
            (outcome, stage.world.trace)
        };
        let quiet = catch_unwind(AssertUnwindSafe(|| play(Trace::Off).0));
        if matches!(quiet, Ok(Ok(()))) {
            continue;
        }
        let (outcome, trace) = play(Trace::trail());
        if let Trace::Trail(lines) = trace {
            lines.iter().for_each(|line| eprintln!("{line}"));
        }
        panic!("seed {seed}: {}", outcome.unwrap_err());
    }
}

/// A world and the names of its devices.
struct Stage {
    world: World,
    names: Vec<(String, DeviceNo)>,
}

impl Stage {
    fn new(story: &[Op<'_>], seed: u64, trace: Trace) -> Self {
        let of_role = |role| story.iter().flat_map(move |op| op.names(role));
        let (mut names, mut counts) = (Vec::new(), [0; 3]);
        for (role, count) in [Role::Native, Role::Indexer, Role::Node]
            .into_iter()
            .zip(&mut counts)
        {
            for name in of_role(role) {
                names.push((name, names.len()));
                *count += 1;
            }
        }
        let plan = plan::plan(story, counts);
        let mut world = World::of_plan(plan, Rng::new(seed), trace);
        world.network.faulty = false;
        world.desk.close();
        for device in &mut world.devices {
            (device.wall_ahead, device.synchronised) = (REAL, true);
        }
        Self { world, names }
    }

    fn play(&mut self, story: &[Op<'_>]) -> Result<(), String> {
        for (index, op) in story.iter().enumerate() {
            self.perform(*op).map_err(|why| {
                let now = self.world.now;
                format!("operation {index}, {op:?}, at {now} ms: {why}")
            })?;
        }
        Ok(())
    }

    fn perform(&mut self, op: Op<'_>) -> Result<(), String> {
        match op {
            Op::Lease(_) | Op::Wants(_) => Ok(()),
            Op::Native(name, natives) | Op::Indexer(name, natives) | Op::Node(name, natives) => {
                self.start(name, natives)
            }
            Op::Indexers(name, _, natives) | Op::Nodes(name, _, natives) => {
                self.start(&format!("{name}*"), natives)
            }
            Op::Liars(name, _, natives) => {
                let all = format!("{name}*");
                self.each(&all, |device| device.is_mute = true);
                self.start(&all, natives)
            }
            Op::LiarsOnOneHost(name, count, natives) => {
                let all = self.all(&format!("{name}*"));
                for &no in &all {
                    let liar = &mut self.world.devices[no];
                    (liar.host, liar.port) = (all[0], no as u16 * 100);
                }
                self.perform(Op::Liars(name, count, natives))
            }
            Op::Twin(name, of) => {
                let (no, of) = (self.number(name), self.number(of));
                self.world.make_twin(no, of);
                self.world.devices[no].natives = self.world.devices[of].natives.clone();
                self.fault(name, |device| Fault::Restart { device })
            }
            Op::Wait(seconds) => self.world.run_until(self.after(seconds)),
            Op::Cut(one, other, seconds) => {
                self.cut(one, other, seconds)?;
                self.cut(other, one, seconds)
            }
            Op::CutOneWay(from, to, seconds) => self.cut(from, to, seconds),
            Op::PowerOff(name) => self.crash(name, Loss::Silent),
            Op::Kill(name) => self.crash(name, Loss::Noticed),
            Op::End(name) => self.fault(name, |device| Fault::Leave { device }),
            Op::Restart(name) => self.fault(name, |device| Fault::Restart { device }),
            Op::Stop(name) => self.fault(name, |device| Fault::Stop { device }),
            Op::GoOn(name) => self.fault(name, |device| Fault::Resume { device }),
            Op::Move(name) => self.fault(name, |device| Fault::Move { device }),
            Op::StepClock(name, seconds) => self.fault(name, |device| Fault::StepClock {
                device,
                ahead: REAL + seconds * 1_000,
                synchronised: false,
            }),
            Op::Silence(name) => self.fault(name, |device| Fault::Break {
                device,
                loss: Loss::Silent,
            }),
            Op::Plug(name) => {
                let no = self.number(name);
                self.world.network_changed(no)
            }
            Op::Drain(name) => self.world.operate(self.number(name), Input::Drain),
            Op::EndDrain(name) => self.world.operate(self.number(name), Input::EndDrain),
            Op::LookUpName(name, what) => {
                let (no, what) = (self.number(name), self.number(what));
                let question = Question::Name(self.world.devices[what].name(what));
                self.world.look_up(no, question)?;
                self.world.step(no, Vec::new())
            }
            Op::LookUp(name, what) => {
                let what = self.number(what);
                self.ask(name, Question::Peer(self.world.devices[what].peer))
            }
            Op::ListIndexers(name) => self.ask(name, Question::Indexers),
            Op::ListNodes(name) => {
                let no = self.number(name);
                self.world.list_nodes(no)?;
                self.world.step(no, Vec::new())
            }
            Op::Watches(name) => self.world.watch(self.number(name)),
            Op::Within(seconds, seen) => {
                let end = self.after(seconds);
                while !self.is_so(seen) {
                    if !self.world.run_one(end)? {
                        return Err("it is not so by then".into());
                    }
                }
                Ok(())
            }
            Op::For(seconds, seen) => {
                let end = self.after(seconds);
                loop {
                    if !self.is_so(seen) {
                        return Err("it is so no longer".into());
                    }
                    if !self.world.run_one(end)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn after(&self, seconds: u64) -> u64 {
        self.world.now + seconds * 1_000
    }

    fn start(&mut self, name: &str, natives: &[&str]) -> Result<(), String> {
        let natives: Vec<_> = natives.iter().map(|native| self.number(native)).collect();
        self.each(name, |device| device.natives.clone_from(&natives));
        self.fault(name, |device| Fault::Restart { device })
    }

    fn ask(&mut self, name: &str, question: Question) -> Result<(), String> {
        let no = self.number(name);
        self.world.look_up(no, question)?;
        self.world.step(no, Vec::new())
    }

    fn crash(&mut self, name: &str, loss: Loss) -> Result<(), String> {
        self.fault(name, |device| Fault::Crash {
            device,
            loss,
            forgetful: false,
        })
    }

    fn cut(&mut self, from: &str, to: &str, seconds: u64) -> Result<(), String> {
        let until = self.after(seconds);
        for to in self.all(to) {
            self.fault(from, |from| Fault::Cut { from, to, until })?;
        }
        Ok(())
    }

    fn fault(&mut self, name: &str, fault: impl Fn(DeviceNo) -> Fault) -> Result<(), String> {
        for no in self.all(name) {
            self.world.fault(fault(no))?;
        }
        Ok(())
    }

    fn each(&mut self, name: &str, change: impl Fn(&mut Device)) {
        for no in self.all(name) {
            change(&mut self.world.devices[no]);
        }
    }

    /// The devices of this name.
    fn all(&self, name: &str) -> Vec<DeviceNo> {
        let is_it = |(of, _): &&(String, DeviceNo)| match name.strip_suffix('*') {
            Some(start) => of.starts_with(start),
            None => of == name,
        };
        let found: Vec<_> = self.names.iter().filter(is_it).map(|(_, no)| *no).collect();
        assert!(!found.is_empty(), "the story has no {name}");
        found
    }

    fn number(&self, name: &str) -> DeviceNo {
        self.all(name)[0]
    }

    fn is_so(&self, seen: Seen<'_>) -> bool {
        let world = &self.world;
        let now = world.now;
        let every = |name: &str, is_so: &dyn Fn(&Device) -> bool| {
            let mut all = self.all(name).into_iter();
            all.all(|no| is_so(&world.devices[no]))
        };
        let any = |name: &str, is_so: &dyn Fn(&Device) -> bool| {
            let mut all = self.all(name).into_iter();
            all.any(|no| is_so(&world.devices[no]))
        };
        let found = |names: &[&str]| {
            let mut found = world.desk.found().to_vec();
            let mut wanted: Vec<_> = names
                .iter()
                .map(|name| world.devices[self.number(name)].peer)
                .collect();
            found.sort();
            wanted.sort();
            found == wanted
        };
        let peers = |names: &[&str]| {
            let all = names.iter().flat_map(|name| self.all(name));
            all.map(|no| world.devices[no].peer)
                .collect::<BTreeSet<_>>()
        };
        match seen {
            Seen::Leased(node) => every(node, &|node| node.holds_with(now, |_| true)),
            Seen::Under(client, server) => every(client, &|client| {
                any(server, &|server| {
                    client.holds_with(now, |peer| *peer == server.peer)
                        && server.view(now).has_record(&client.peer)
                })
            }),
            Seen::TakenIn(native, node) => every(node, &|node| {
                any(native, &|native| {
                    native.view(now).responsible.contains(&node.peer)
                })
            }),
            Seen::NobodyTakenIn(native) => {
                every(native, &|native| native.view(now).responsible.is_empty())
            }
            Seen::Lists(server, peer) => every(peer, &|peer| {
                every(server, &|server| lists(server, peer, now))
            }),
            Seen::Omits(server, peer) => every(peer, &|peer| {
                every(server, &|server| !lists(server, peer, now))
            }),
            Seen::Grants(server, peer) => every(peer, &|peer| {
                every(server, &|server| server.view(now).has_record(&peer.peer))
            }),
            Seen::LetGo(server, peer) => every(peer, &|peer| {
                every(server, &|server| !server.view(now).has_record(&peer.peer))
            }),
            Seen::Hears(server, peer) => every(peer, &|peer| {
                every(server, &|server| {
                    let just = |record: &StreamRecord| {
                        record.peer == peer.peer
                            && server.instant(now) - record.last_seen <= Duration::from_secs(1)
                    };
                    server.view(now).records.iter().any(just)
                })
            }),
            Seen::Found(names) => world.desk.is_complete() && found(names),
            Seen::Told(names) => world.desk.is_over() && found(names),
            Seen::FirstOf(name, nodes) => {
                every(name, &|device| world.desk.is_first(device.peer, nodes))
            }
            Seen::FoundInPart(names) => world.desk.is_cut() && found(names),
            Seen::Contested(server, peer) => every(peer, &|peer| {
                any(server, &|server| {
                    server.view(now).contested.contains(&peer.peer)
                })
            }),
            Seen::Rows(lister, nodes) => every(lister, &|Device { listed, .. }| {
                listed.is_complete() && listed.nodes(Presence::Alive) == peers(nodes)
            }),
            Seen::RowsWithout(lister, servers) => every(lister, &|lister| {
                lister.listed.silent() == Some(&peers(servers))
            }),
            Seen::RowOfVanished(lister, node) => every(node, &|node| {
                every(lister, &|Device { listed, .. }| {
                    let vanished = [Presence::Left, Presence::Lost];
                    vanished
                        .iter()
                        .any(|how| listed.nodes(*how).contains(&node.peer))
                })
            }),
            Seen::Tells(watcher, node) => every(node, &|node| {
                every(watcher, &|watcher| watcher.watching.tells(&node.peer))
            }),
            Seen::TellsNot(watcher, node) => every(node, &|node| {
                every(watcher, &|watcher| !watcher.watching.tells(&node.peer))
            }),
            Seen::TellsLeft(watcher, node) => every(node, &|node| {
                every(watcher, &|watcher| watcher.watching.tells_left(&node.peer))
            }),
            Seen::HasCaughtUp(watcher) => every(watcher, &|device| device.watching.has_caught_up()),
            Seen::Runs(name) => every(name, &Device::is_up),
            Seen::Ended(name) => every(name, &|device| !device.is_up()),
            Seen::RightTime(name) => every(name, &|device| {
                let right = now.saturating_add_signed(REAL);
                device.own_ms(now).abs_diff(right) <= 2_000
            }),
            Seen::Tries(name, most) => self
                .all(name)
                .iter()
                .all(|no| world.ledger.tries.get(no).map_or(0, |tries| tries.len()) <= most),
        }
    }
}

fn lists(server: &Device, peer: &Device, now: u64) -> bool {
    match (server.role, peer.role) {
        (Role::Native, Role::Indexer) => server.view(now).is_live(&peer.peer),
        _ => server.machine().listed(&peer.peer).is_some(),
    }
}
