//! A small language for stories: operations that run one after another, in a world without other
//! faults.
//!
//! A device is named. A name that ends in `*` stands for all devices with this beginning of their
//! names. Times are in seconds. Each story is played with several seeds, which determine ids,
//! delays of up to 80 ms, and jitter. The rules in [`crate::invariants`] are checked after each
//! event here too.

mod plan;
mod seen;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
};

use oc_discovery::protocol::{Input, Rng, Role, lookup::Question};

use crate::{
    device::{Device, DeviceNo},
    scenario::{Fault, Loss},
    trace::Trace,
    world::{REAL, World},
};
pub use seen::Seen;

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
}
