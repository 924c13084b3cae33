//! The world: virtual time, a queue of events, devices and what lies between them.
//!
//! Nothing here reads a clock or a random source: a run is determined by its seed, event for event.

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _};

use oc_discovery::protocol::{Addrs, PeerId, Rng, Role};

use crate::{
    checks::Ledger,
    device::{Device, DeviceNo, State},
    dht::Dht,
    network::{Input, Network, StreamKey},
    scenario::{FAULTS_END, Fault, Plan},
};

/// Something that happens at a certain time.
#[derive(Debug)]
enum Event {
    Input {
        to: DeviceNo,
        life: u64,
        input: Box<Input>,
    },
    Wake {
        device: DeviceNo,
        life: u64,
    },
    Fault(Fault),
}

/// A run.
pub struct World {
    /// Virtual time, ms.
    pub now: u64,
    /// What the run is made of.
    pub plan: Plan,
    /// Natives, then indexers, then nodes.
    pub devices: Vec<Device>,
    /// What lies between them.
    pub network: Network,
    /// The shared store.
    pub dht: Dht,
    /// The run's only source of chance.
    pub rng: Rng,
    /// What the checks remember.
    pub ledger: Ledger,
    /// What has happened so far.
    pub trace: Trace,
    numbers: BTreeMap<PeerId, DeviceNo>,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
}

impl World {
    /// The world of a seed, before its first event. `log`: every event is printed.
    pub fn new(seed: u64, log: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let mut world = Self {
            now: 0,
            devices: (0..plan.devices())
                .map(|no| new_device(no, &plan, &mut rng))
                .collect(),
            plan,
            network: Network::new(),
            dht: Dht::default(),
            rng,
            ledger: Ledger::default(),
            trace: Trace::new(log),
            numbers: BTreeMap::new(),
            queue: BTreeMap::new(),
            queued: 0,
        };
        for no in 0..world.devices.len() {
            let Device { peer, role, .. } = world.devices[no];
            world.trace.note(0, &(no, role, peer));
            world.numbers.insert(peer, no);
            let at = world.rng.below(20_000);
            world.push(at, Event::Fault(Fault::Restart { device: no }));
        }
        for (at, fault) in world.plan.faults.clone() {
            world.push(at, Event::Fault(fault));
        }
        world
    }

    /// The whole run: faults, then calm, then everybody must be under a lease, and stay so.
    pub fn run(&mut self) -> Result<(), String> {
        let end = FAULTS_END + self.plan.recovery();
        self.run_until(end)?;
        let mut lasting = self.complaints();
        for _ in 0..4 {
            self.run_until(self.now + self.plan.interval().as_millis() as u64 / 2)?;
            let complaints = self.complaints();
            // Who competes for too few places may lose one for a moment; nobody else may.
            if self.plan.tight {
                lasting.retain(|complaint| complaints.contains(complaint));
            } else {
                lasting.extend(complaints);
            }
        }
        lasting.into_iter().next().map_or(Ok(()), Err)
    }

    /// Runs all events up to then.
    pub fn run_until(&mut self, end: u64) -> Result<(), String> {
        while let Some(next) = self.queue.first_entry() {
            if next.key().0 > end {
                break;
            }
            let ((at, _), event) = next.remove_entry();
            self.now = at;
            self.happen(event)?;
        }
        self.now = end;
        Ok(())
    }

    /// The device with this identity.
    pub fn number_of(&self, peer: &PeerId) -> DeviceNo {
        self.numbers[peer]
    }

    /// Has the input reach a process at `at`; if it is gone by then, its sender learns so.
    pub fn send(&mut self, at: u64, to: (DeviceNo, u64), input: Input) {
        self.push(
            at,
            Event::Input {
                to: to.0,
                life: to.1,
                input: Box::new(input),
            },
        );
    }

    /// Has the process polled when it wants to be; timers are a little late now and then.
    pub fn set_timer(&mut self, no: DeviceNo) -> Result<(), String> {
        let late = self.rng.below(15);
        let device = &mut self.devices[no];
        let timeout = device.machine.timeout();
        if timeout <= device.instant(self.now) {
            return Err(format!("device {no} would spin: nothing to do, no pause"));
        }
        let at = timeout
            .as_millis()
            .saturating_sub(device.skew)
            .saturating_add(late);
        if at < device.wake_at && at < u64::MAX / 2 {
            device.wake_at = at;
            let life = device.life;
            self.push(at, Event::Wake { device: no, life });
        }
        Ok(())
    }

    /// Tells the other side of a stream that this side is gone; unless the connection is dead.
    pub fn end_stream(&mut self, stream: StreamKey, from_client: bool) {
        let (client, server) = {
            let stream = &self.network.streams[stream];
            (stream.client, stream.server)
        };
        if let Some(at) = self
            .network
            .pass_on(self.now, stream, from_client, &mut self.rng)
        {
            let to = if from_client { server } else { client };
            self.send(at, to, Input::End { stream });
        }
    }

    fn push(&mut self, at: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((at, self.queued), event);
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        self.trace.note(self.now, &event);
        match event {
            Event::Input { to, life, input } => self.arrive(to, life, *input),
            Event::Wake { device, life } => self.wake(device, life),
            Event::Fault(fault) => self.fault(fault),
        }
    }

    fn arrive(&mut self, to: DeviceNo, life: u64, input: Input) -> Result<(), String> {
        let device = &mut self.devices[to];
        let here = device.life == life;
        match &mut device.state {
            State::Running if here => self.step(to, vec![input]),
            State::Stopped(pending) if here => {
                pending.push(input);
                Ok(())
            }
            State::Down { silent: true } => Ok(()),
            _ => {
                self.bounce(to, input);
                Ok(())
            }
        }
    }

    /// Nobody listens where the input was meant to go: its sender is told.
    fn bounce(&mut self, from: DeviceNo, input: Input) {
        let peer = self.devices[from].peer;
        let (to, answer) = match input {
            Input::Beat { stream, .. } => {
                (self.network.streams[stream].client, Input::End { stream })
            }
            Input::Ask {
                from, life, number, ..
            } => (
                (from, life),
                Input::Answer {
                    native: peer,
                    number,
                    answer: None,
                },
            ),
            Input::Ping { from, life, number } => (
                (from, life),
                Input::Pong {
                    peer,
                    number,
                    alive: false,
                },
            ),
            _ => return,
        };
        if let Some(at) = self.network.pass(self.now, from, to.0, &mut self.rng) {
            self.send(at, to, answer);
        }
    }

    fn wake(&mut self, no: DeviceNo, life: u64) -> Result<(), String> {
        let device = &mut self.devices[no];
        if device.life != life || device.wake_at != self.now {
            return Ok(());
        }
        device.wake_at = u64::MAX;
        match device.state {
            State::Running if device.machine.timeout() > device.instant(self.now) => {
                self.set_timer(no)
            }
            State::Running => self.step(no, Vec::new()),
            _ => Ok(()),
        }
    }

    fn fault(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Crash {
                device,
                silent,
                forgetful,
            } => {
                self.crash(device, silent, forgetful);
                Ok(())
            }
            Fault::Leave { device } => self.leave(device),
            Fault::Restart { device } => self.restart(device),
            Fault::Stop { device } => {
                let device = &mut self.devices[device];
                if device.state == State::Running {
                    device.state = State::Stopped(Vec::new());
                }
                Ok(())
            }
            Fault::Resume { device } => {
                let state = &mut self.devices[device].state;
                match std::mem::replace(state, State::Running) {
                    State::Stopped(pending) => self.step(device, pending),
                    other => {
                        *state = other;
                        Ok(())
                    }
                }
            }
            Fault::Cut { devices, until } => {
                self.network.cut(devices, until);
                Ok(())
            }
            Fault::Break { device, told } => {
                self.break_streams(device, told);
                Ok(())
            }
            Fault::Calm => {
                self.network.faulty = false;
                Ok(())
            }
        }
    }

    fn crash(&mut self, no: DeviceNo, silent: bool, forgetful: bool) {
        if !self.devices[no].is_up() {
            return;
        }
        let view = self.devices[no].view(self.now);
        let device = &mut self.devices[no];
        device.remembered = match device.role {
            _ if forgetful => Vec::new(),
            Role::Native => view.known.iter().map(|id| (*id, Addrs::new())).collect(),
            _ => view
                .leases
                .iter()
                .filter(|lease| lease.role() == Role::Indexer)
                .map(|lease| (*lease.server(), lease.addrs().clone()))
                .collect(),
        };
        device.state = State::Down { silent };
        let opened: Vec<_> = device.out.values().copied().collect();
        let accepted: Vec<_> = device.inbound.keys().copied().collect();
        device.lose_memory();
        self.ledger.forget(no);
        for (stream, from_client) in opened
            .into_iter()
            .map(|stream| (stream, true))
            .chain(accepted.into_iter().map(|stream| (stream, false)))
        {
            if silent {
                self.network.streams[stream].dead = true;
            } else {
                self.end_stream(stream, from_client);
            }
        }
    }

    fn leave(&mut self, no: DeviceNo) -> Result<(), String> {
        if self.devices[no].state == State::Running {
            self.devices[no].machine.shut_down();
            self.drain(no)?;
            self.crash(no, false, false);
        }
        Ok(())
    }

    fn restart(&mut self, no: DeviceNo) -> Result<(), String> {
        if self.devices[no].is_up() {
            return Ok(());
        }
        let natives: Vec<_> = self.devices[no]
            .natives
            .iter()
            .map(|&native| {
                let addr = Device::addr(native, Role::Native, 0);
                (self.devices[native].peer, Addrs::from_iter([addr]))
            })
            .collect();
        let seed = self.rng.bits();
        self.devices[no].boot(self.now, seed, &self.plan, &natives);
        self.step(no, Vec::new())
    }

    fn break_streams(&mut self, no: DeviceNo, told: bool) {
        let device = &self.devices[no];
        let opened: Vec<_> = device.out.values().copied().collect();
        let accepted: Vec<_> = device.inbound.keys().copied().collect();
        for stream in opened.into_iter().chain(accepted) {
            if told {
                self.end_stream(stream, true);
                self.end_stream(stream, false);
            }
            self.network.streams[stream].dead = true;
        }
    }
}

fn new_device(no: DeviceNo, plan: &Plan, rng: &mut Rng) -> Device {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&rng.bits().to_le_bytes());
    id[1] = no as u8;
    let role = match no {
        _ if no < plan.natives => Role::Native,
        _ if no < plan.natives + plan.indexers => Role::Indexer,
        _ => Role::Node,
    };
    let natives = match role {
        // A chain, or everybody with everybody.
        Role::Native if plan.sparse => (0..plan.natives)
            .filter(|other| other.abs_diff(no) == 1)
            .collect(),
        Role::Native => (0..plan.natives).filter(|other| *other != no).collect(),
        Role::Indexer if !plan.sparse => (0..plan.natives).collect(),
        _ => vec![rng.below(plan.natives as u64) as usize],
    };
    let mut device = Device::new(PeerId::from_bytes(id), role, natives);
    // Natives and most others keep the time; some never knew it, some are wrong by hours.
    let real = 1_000_000_000;
    let wrong = if role == Role::Native {
        0
    } else {
        rng.below(4)
    };
    device.synchronised = wrong < 2;
    device.wall_ahead = match wrong {
        2 => 0,
        3 => real + rng.below(20_000_000) as i64 - 10_000_000,
        _ => real + rng.below(2_000) as i64 - 1_000,
    };
    device
}

/// A hash of all events so far; on demand a log of them.
pub struct Trace {
    hash: u64,
    log: bool,
}

impl Trace {
    fn new(log: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            log,
        }
    }

    /// Takes one more event in.
    pub fn note(&mut self, now: u64, event: &dyn std::fmt::Debug) {
        if self.log {
            // Not `eprintln`, which a test that passes keeps to itself. A log that cannot be written is none.
            let _ = writeln!(std::io::stderr(), "{now:>7} {event:?}");
        }
        // Writing to a hash cannot fail.
        let _ = write!(self, "{now}{event:?}");
    }

    /// The hash.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

impl std::fmt::Write for Trace {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
