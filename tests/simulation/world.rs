//! The world: virtual time, a queue of events, the devices and the network between them.
//!
//! Nothing here reads a clock or a random source, so the seed determines every event of a run.

use std::collections::BTreeMap;

use oc_discovery::protocol::{Instant, PeerId, Rng, Role, Verdict};

use crate::{
    device::{Device, DeviceNo, State},
    dht::Dht,
    ledger::Ledger,
    lookup::Desk,
    network::{ConnectionKey, End, Input, Network, StreamKey},
    providers::Providers,
    scenario::{FAULTS_END, Fault, Loss, Plan, Size},
    trace::Trace,
    view::View,
};

/// The right wall-clock time at zero of the world's time, ms.
pub const REAL: i64 = 1_000_000_000;

/// The longest pause of a node before it retries a server or an address that has failed, ms.
const LONGEST_REST: u64 = 256_000;

/// An event of the world.
#[derive(Debug)]
pub enum Event {
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
    /// The system notices that a connection is silent.
    Noticed(ConnectionKey),
}

/// A run.
pub struct World {
    /// Virtual time, ms.
    pub now: u64,
    /// The plan of the run.
    pub plan: Plan,
    /// Natives, then indexers, then nodes, then indexers that never run.
    pub devices: Vec<Device>,
    /// The network between them.
    pub network: Network,
    /// The shared store.
    pub dht: Dht,
    /// The announcements in it.
    pub providers: Providers,
    /// The only random source of the run.
    pub rng: Rng,
    /// The state of the checks.
    pub ledger: Ledger,
    /// The queries between lookups and their servers.
    pub desk: Desk,
    /// The events so far.
    pub trace: Trace,
    /// Events so far.
    pub steps: u64,
    /// Since when there are no faults, if there are none now.
    pub calm_since: Option<u64>,
    /// Whether a process that overslept reads what has arrived meanwhile.
    pub catching_up: bool,
    /// Whether it promised meanwhile to take a node in.
    pub hasty: bool,
    /// The probability that an overstating indexer was first as often in a row as it was.
    pub boaster_luck: f64,
    /// The view that a check uses; kept to reuse its memory.
    pub scratch: View,
    /// The longest time in which a node was without a lease in the calm, ms.
    pub longest_bare: u64,
    /// The most requests and attempts of a node within a minute.
    pub most_tries: usize,
    /// The coming events, by time and order.
    pub queue: BTreeMap<(u64, u64), Event>,
    numbers: BTreeMap<PeerId, DeviceNo>,
    twins: Vec<(DeviceNo, DeviceNo)>,
    queued: u64,
}

impl World {
    /// The world of a seed, before its first event.
    pub fn new(seed: u64, trace: Trace) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let mut world = Self::of_plan(plan, rng, trace);
        for no in 0..world.plan.living() {
            let at = world.rng.below(20_000);
            world.push(at, Event::Fault(Fault::Restart { device: no }));
        }
        for (at, fault) in world.plan.faults.clone() {
            world.push(at, Event::Fault(fault));
        }
        world
    }

    /// A world without any events yet.
    pub fn of_plan(plan: Plan, mut rng: Rng, trace: Trace) -> Self {
        let mut world = Self {
            now: 0,
            devices: (0..plan.devices())
                .map(|no| new_device(no, &plan, &mut rng))
                .collect(),
            plan,
            network: Network::new(),
            dht: Dht::default(),
            providers: Providers::default(),
            rng,
            ledger: Ledger::default(),
            desk: Desk::default(),
            trace,
            steps: 0,
            calm_since: None,
            catching_up: false,
            hasty: false,
            boaster_luck: 1.0,
            scratch: View::default(),
            longest_bare: 0,
            most_tries: 0,
            queue: BTreeMap::new(),
            numbers: BTreeMap::new(),
            twins: Vec::new(),
            queued: 0,
        };
        world.dht.fruitless = world.plan.fruitless;
        for no in 0..world.devices.len() {
            let Device { peer, role, .. } = world.devices[no];
            world.trace.note(0, &(no, role, peer));
            world.numbers.insert(peer, no);
        }
        world.bury();
        world
    }

    /// Lets the natives know of the indexers that never run.
    fn bury(&mut self) {
        let dead: Vec<_> = self.devices[self.plan.living()..]
            .iter()
            .map(|device| (device.peer, Default::default()))
            .collect();
        for native in &mut self.devices[..self.plan.natives] {
            native.flash.preset_indexers(dead.clone());
        }
    }

    /// The whole run: faults, then calm, after which all devices must hold a lease and keep it.
    pub fn run(&mut self) -> Result<(), String> {
        self.run_until(FAULTS_END + self.plan.recovery())?;
        self.settled()?;
        if self.plan.long {
            self.run_until(self.now + 75 * 60_000)?;
            self.forgotten()?;
        }
        Ok(())
    }

    /// Checks that all devices hold a lease and keep it.
    pub fn settled(&mut self) -> Result<(), String> {
        let mut lasting = self.complaints();
        if !lasting.is_empty() {
            // A server that failed during network faults is not tried for this long.
            self.run_until(self.now + LONGEST_REST)?;
            lasting = self.complaints();
        }
        for _ in 0..4 {
            self.run_until(self.now + self.plan.interval().as_millis() as u64 / 2)?;
            let complaints = self.complaints();
            // A device that competes for too few places may lose its lease for a moment, but no
            // other may.
            if self.plan.size == Size::Tight {
                lasting.retain(|complaint| complaints.contains(complaint));
            } else {
                lasting.extend(complaints);
            }
        }
        lasting.into_iter().next().map_or(Ok(()), Err)
    }

    /// Runs all events up to `end`.
    pub fn run_until(&mut self, end: u64) -> Result<(), String> {
        while self.run_one(end)? {}
        Ok(())
    }

    /// Runs the next event up to `end`, if there is one.
    pub fn run_one(&mut self, end: u64) -> Result<bool, String> {
        let next = self.queue.first_entry().filter(|next| next.key().0 <= end);
        let Some(((at, _), event)) = next.map(|next| next.remove_entry()) else {
            self.now = end.max(self.now);
            return Ok(false);
        };
        self.now = at;
        self.happen(event)?;
        Ok(true)
    }

    /// The device with this identity; of several, the one that is not a twin of another.
    pub fn number_of(&self, peer: &PeerId) -> DeviceNo {
        self.numbers[peer]
    }

    /// Makes a device the twin of another: it has its identity, as with a copied card.
    pub fn make_twin(&mut self, no: DeviceNo, of: DeviceNo) {
        self.devices[no].peer = self.devices[of].peer;
        self.twins.push((no, of));
    }

    /// The other devices with the same identity.
    pub fn twins_of(&self, no: DeviceNo) -> Vec<DeviceNo> {
        let pairs = self.twins.iter();
        let other = |&(a, b): &(DeviceNo, DeviceNo)| match no {
            _ if no == a => Some(b),
            _ if no == b => Some(a),
            _ => None,
        };
        pairs.filter_map(other).collect()
    }

    /// Lets the input reach a process at `at`. If the process is gone by then, the sender is told.
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

    /// Polls the process when it wants to be polled. Timers are sometimes a little late.
    pub fn set_timer(&mut self, no: DeviceNo) -> Result<(), String> {
        let late = self.rng.below(15);
        let device = &mut self.devices[no];
        let timeout = device
            .next_timeout()
            .unwrap_or(Instant::from_millis(u64::MAX));
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

    /// Tells the other end of a stream that this one is gone, unless the connection is dead.
    pub fn end_stream(&mut self, stream: StreamKey, gone: End) {
        let ends = &self.network.streams[stream];
        let (end, other) = match gone {
            End::Client => (End::Server, ends.server),
            End::Server => (End::Client, ends.client),
        };
        if let Some(at) = self.network.pass_on(self.now, stream, end, &mut self.rng) {
            self.send(at, other, Input::End { stream });
        }
    }

    /// Lets the event happen at `at`.
    pub fn push(&mut self, at: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((at, self.queued), event);
    }

    /// One step.
    pub fn happen(&mut self, event: Event) -> Result<(), String> {
        self.steps += 1;
        self.trace.note(self.now, &event);
        let outcome = match event {
            Event::Input { to, life, input } => self.arrive(to, life, *input),
            Event::Wake { device, life } => self.wake(device, life),
            Event::Fault(fault) => self.fault(fault),
            Event::Noticed(connection) => {
                self.notice(connection);
                Ok(())
            }
        };
        while let Some((at, connection)) = self.network.doomed.pop() {
            self.push(at, Event::Noticed(connection));
        }
        outcome
    }

    fn arrive(&mut self, to: DeviceNo, life: u64, input: Input) -> Result<(), String> {
        let device = &mut self.devices[to];
        let is_refused = match &input {
            Input::End { .. } => false,
            input => input
                .on_stream()
                .is_some_and(|stream| self.network.is_over(stream)),
        };
        let here = device.life == life && !is_refused;
        match &mut device.state {
            State::Running if here => self.step(to, vec![input]),
            State::Stopped(pending) if here => {
                pending.push(input);
                Ok(())
            }
            State::Down(Loss::Silent) => Ok(()),
            _ => {
                self.bounce(to, input);
                Ok(())
            }
        }
    }

    /// No process listens at the destination of the input, so its sender is told.
    fn bounce(&mut self, from: DeviceNo, input: Input) {
        let (to, answer) = match input {
            Input::Beat { stream, .. } | Input::Watch { stream, .. } => {
                (self.network.streams[stream].client, Input::End { stream })
            }
            // A process that ends waits for its last acks.
            Input::Ack { stream, .. } if self.network.is_over(stream) => {
                (self.network.streams[stream].server, Input::End { stream })
            }
            Input::Request { from, number, .. } => {
                let frame = None;
                (from, Input::Response { number, frame })
            }
            Input::Ping { from, life, number } => {
                let verdict = Verdict::Silent;
                ((from, life), Input::Pong { number, verdict })
            }
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
            State::Running => match device.next_timeout() {
                Some(at) if at <= device.instant(self.now) => self.step(no, Vec::new()),
                _ => self.set_timer(no),
            },
            _ => Ok(()),
        }
    }
}

fn new_device(no: DeviceNo, plan: &Plan, rng: &mut Rng) -> Device {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&rng.bits().to_le_bytes());
    id[1] = no as u8;
    let role = match no {
        _ if no < plan.natives => Role::Native,
        _ if no < plan.natives + plan.indexers || no >= plan.living() => Role::Indexer,
        _ => Role::Node,
    };
    let natives = match role {
        // A chain, or each with all others.
        Role::Native if plan.sparse => (0..plan.natives)
            .filter(|other| other.abs_diff(no) == 1)
            .collect(),
        Role::Native => (0..plan.natives).filter(|other| *other != no).collect(),
        Role::Indexer if !plan.sparse => (0..plan.natives).collect(),
        Role::Node if rng.below(2) == 0 => (0..plan.natives).collect(),
        _ => vec![rng.below(plan.natives as u64) as usize],
    };
    let mut device = Device::new(PeerId::from_bytes(id), role, natives);
    device.host = no;
    // Natives and most others keep the time; some never knew it, some are wrong by hours.
    let wrong = if role == Role::Native {
        0
    } else {
        rng.below(4)
    };
    // One in eight that is wrong says that it is right.
    device.synchronised = wrong < 2 || rng.below(8) == 0;
    device.wall_ahead = match wrong {
        2 => 0,
        3 => REAL + rng.below(20_000_000) as i64 - 10_000_000,
        _ => REAL + rng.below(2_000) as i64 - 1_000,
    };
    device
}
