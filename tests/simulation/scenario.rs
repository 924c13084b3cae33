//! The plan of a run: which devices take part, and which faults come when. All of it follows from
//! the seed.

use std::time::Duration;

use oc_discovery::protocol::{Rng, Terms};

use crate::{device::DeviceNo, world::REAL};

/// How long faults last: 5 minutes.
pub const FAULTS_END: u64 = 300_000;

/// How large the tables are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// There is room for all.
    Roomy,
    /// They are too small for all.
    Tight,
    /// Natives have room for many indexers.
    Crowd,
    /// Indexers have more room than a native distinguishes.
    Ample,
    /// Natives have room for hundreds of indexers.
    Vast,
}

/// The plan of a run.
pub struct Plan {
    /// Natives: the devices from 0.
    pub natives: usize,
    /// Indexers: the devices after the natives.
    pub indexers: usize,
    /// Indexers (the last ones) that report more room than any can have.
    pub boasters: usize,
    /// Nodes: the devices after the indexers.
    pub nodes: usize,
    /// Indexers that never run, but that natives know of: the last devices.
    pub dead: usize,
    /// Leases a node wants.
    pub min_indexers: usize,
    /// Lease and beat interval of all.
    pub terms: Terms,
    /// How large tables are.
    pub size: Size,
    /// Whether each indexer knows only one native.
    pub sparse: bool,
    /// Whether the calm lasts until dead indexers are removed.
    pub long: bool,
    /// Whether operators look others up.
    pub asks: bool,
    /// The lower bound of every device's own time.
    pub build_date: u64,
    /// How long a search takes that finds nothing, ms.
    pub fruitless: u64,
    /// The faults and their times.
    pub faults: Vec<(u64, Fault)>,
}

/// What the peers of a device notice when it loses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its system ends them, and refuses new ones.
    Noticed,
    /// Nothing: nothing answers any more.
    Silent,
}

impl Loss {
    /// One of them, at random.
    pub fn any(rng: &mut Rng) -> Self {
        match rng.below(2) {
            0 => Self::Silent,
            _ => Self::Noticed,
        }
    }
}

/// A fault.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// A process crashes. `forgetful`: the content of its flash is lost too.
    Crash {
        device: DeviceNo,
        loss: Loss,
        forgetful: bool,
    },
    /// A process is ended by SIGTERM.
    Leave { device: DeviceNo },
    /// A process starts again, if it is down.
    Restart { device: DeviceNo },
    /// A process is stopped.
    Stop { device: DeviceNo },
    /// A stopped process goes on.
    Resume { device: DeviceNo },
    /// The link from one device to the other is cut until then, but not the reverse link.
    Cut {
        from: DeviceNo,
        to: DeviceNo,
        until: u64,
    },
    /// The device loses its connections.
    Break { device: DeviceNo, loss: Loss },
    /// The device's system clock is set.
    StepClock {
        device: DeviceNo,
        ahead: i64,
        synchronised: bool,
    },
    /// The device's address changes.
    Move { device: DeviceNo },
    /// The faults are over.
    Calm,
}

impl Plan {
    /// A world with leases of this length, in which nothing is and nothing fails.
    pub fn of(lease: Duration) -> Self {
        Self {
            natives: 0,
            indexers: 0,
            boasters: 0,
            nodes: 0,
            dead: 0,
            min_indexers: 1,
            terms: Terms {
                lease,
                beat_interval: lease / 3,
            },
            size: Size::Roomy,
            sparse: false,
            long: false,
            asks: false,
            build_date: 500_000_000,
            fruitless: 0,
            faults: Vec::new(),
        }
    }

    /// The plan of a seed.
    pub fn new(rng: &mut Rng) -> Self {
        let kind = rng.below(40);
        let lease = Duration::from_secs([90, 90, 30, 12][rng.below(4) as usize]);
        let mut plan = Self {
            natives: 1 + rng.below(3) as usize,
            indexers: rng.below(5) as usize,
            nodes: 1 + rng.below(6) as usize,
            min_indexers: 1 + rng.below(3) as usize,
            size: if rng.below(4) == 0 {
                Size::Tight
            } else {
                Size::Roomy
            },
            sparse: rng.below(2) == 0,
            ..Self::of(lease)
        };
        plan.specialise(kind);
        plan.fault(rng);
        plan
    }

    /// A small world for a walk.
    pub fn small(rng: &mut Rng) -> Self {
        let lease = Duration::from_secs([12, 30, 60, 90][rng.below(4) as usize]);
        let mut plan = Self {
            natives: 1 + rng.below(2) as usize,
            indexers: 2 + rng.below(2) as usize,
            nodes: 2 + rng.below(2) as usize,
            min_indexers: 1 + rng.below(2) as usize,
            size: match rng.below(6) {
                0 | 1 => Size::Tight,
                2 => Size::Ample,
                _ => Size::Roomy,
            },
            sparse: rng.below(2) == 0,
            ..Self::of(lease)
        };
        plan.boasters = usize::from(plan.size == Size::Ample);
        plan
    }

    /// Makes some worlds of a kind that would be too rare at random.
    fn specialise(&mut self, kind: u64) {
        match kind {
            // More indexers than fit into one beat between natives, and many that die together.
            0 => {
                self.size = Size::Crowd;
                (self.natives, self.indexers, self.nodes) = (3, 30, 4);
                self.sparse = false;
            }
            // Natives that remember many dead indexers, and live ones that only the DHT knows.
            1 => {
                self.size = Size::Crowd;
                (self.natives, self.indexers, self.nodes) = (2, 3, 2);
                (self.sparse, self.dead, self.fruitless) = (true, 80, 5_500);
            }
            2 | 3 => {
                self.size = Size::Roomy;
                (self.natives, self.indexers, self.nodes) = (5, 12, 30);
            }
            4 => self.long = true,
            // One of the indexers overstates its room.
            5 => {
                self.size = Size::Ample;
                (self.natives, self.indexers, self.nodes) = (3, 4, 30);
                self.boasters = 1;
            }
            _ => {}
        }
    }

    /// How often each of the three loops runs.
    pub fn interval(&self) -> Duration {
        self.terms.lease / 3
    }

    /// How often a node asks its natives.
    pub fn connect_interval(&self) -> Duration {
        self.terms.lease * 2 / 3
    }

    /// Whether the device is an indexer that overstates its room.
    pub fn boasts(&self, no: DeviceNo) -> bool {
        let end = self.natives + self.indexers;
        (end - self.boasters..end).contains(&no)
    }

    /// How many devices may run.
    pub fn living(&self) -> usize {
        self.natives + self.indexers + self.nodes
    }

    /// How many devices there are.
    pub fn devices(&self) -> usize {
        self.living() + self.dead
    }

    /// The time within which all devices must hold a lease again after the faults: a lease, until
    /// dead peers are known to be dead; then the way of a record through the DHT to a native
    /// without the id, hop by hop; then the rounds of the nodes.
    pub fn recovery(&self) -> u64 {
        (self.terms.lease * 3 + Duration::from_secs(60)).as_millis() as u64
    }

    fn fault(&mut self, rng: &mut Rng) {
        for _ in 0..rng.below(15) {
            let at = rng.below(FAULTS_END - 1_000);
            let end = (at + 500 + rng.below(FAULTS_END / 2)).min(FAULTS_END - 1);
            let (kind, devices) = (rng.below(9), self.group(rng));
            match kind {
                5 => self.partition(at, end, rng),
                6 => self.one_way(at, end, rng),
                _ => {
                    for device in devices {
                        self.strike(kind, device, at, end, rng);
                    }
                }
            }
        }
        for device in 0..self.living() {
            self.faults.push((FAULTS_END - 1, Fault::Resume { device }));
            if device < self.natives {
                self.faults
                    .push((FAULTS_END - 1, Fault::Restart { device }));
            }
        }
        self.faults.push((FAULTS_END, Fault::Calm));
    }

    /// Chooses mostly one device, and sometimes all of a role or about half of all.
    fn group(&self, rng: &mut Rng) -> Vec<DeviceNo> {
        let all = 0..self.living();
        match rng.below(12) {
            0 => (0..self.natives).collect(),
            1 => (self.natives..self.natives + self.indexers).collect(),
            2 => all.filter(|_| rng.below(2) == 0).collect(),
            _ => vec![rng.below(self.living() as u64) as usize],
        }
    }

    fn strike(&mut self, kind: u64, device: DeviceNo, at: u64, end: u64, rng: &mut Rng) {
        let fault = match kind {
            0 | 1 => Fault::Crash {
                device,
                loss: Loss::any(rng),
                forgetful: rng.below(2) == 0,
            },
            2 => Fault::Leave { device },
            3 | 4 => Fault::Stop { device },
            7 => self.any_break(device, rng),
            _ => self.any_step(device, rng),
        };
        self.faults.push((at, fault));
        match kind {
            0..=2 => self.come_back(device, end, rng),
            3 | 4 => self.faults.push((end, Fault::Resume { device })),
            _ => {}
        }
    }

    /// A fault in which the device loses its connections, or also its address.
    pub fn any_break(&self, device: DeviceNo, rng: &mut Rng) -> Fault {
        match rng.below(3) {
            0 => Fault::Move { device },
            1 => Fault::Break {
                device,
                loss: Loss::Noticed,
            },
            _ => Fault::Break {
                device,
                loss: Loss::Silent,
            },
        }
    }

    /// A fault in which the device's clock is set: right as by NTP, wrong as by a user, or back to
    /// its start. The clock of a native is not changed.
    pub fn any_step(&self, device: DeviceNo, rng: &mut Rng) -> Fault {
        if device < self.natives {
            return self.any_break(device, rng);
        }
        let (ahead, synchronised) = match rng.below(4) {
            0 => (0, false),
            1 => (REAL + rng.below(20_000_000) as i64 - 10_000_000, false),
            _ => (REAL + rng.below(2_000) as i64 - 1_000, true),
        };
        Fault::StepClock {
            device,
            ahead,
            synchronised,
        }
    }

    /// Lets most devices that went down come back, and all natives at the end.
    fn come_back(&mut self, device: DeviceNo, end: u64, rng: &mut Rng) {
        if rng.below(4) > 0 {
            self.faults.push((end, Fault::Restart { device }));
        }
    }

    /// Puts each device on one of two sides, between which all links are cut.
    fn partition(&mut self, at: u64, until: u64, rng: &mut Rng) {
        let sides = rng.bits();
        let side = |device: usize| (sides >> (device % 64)) & 1;
        for from in 0..self.living() {
            for to in (0..self.living()).filter(|&to| side(to) != side(from)) {
                self.faults.push((at, Fault::Cut { from, to, until }));
            }
        }
    }

    /// Cuts the links from one device to some of the others.
    fn one_way(&mut self, at: u64, until: u64, rng: &mut Rng) {
        let from = rng.below(self.living() as u64) as usize;
        for to in (0..self.living()).filter(|&to| to != from) {
            if rng.below(2) == 0 {
                self.faults.push((at, Fault::Cut { from, to, until }));
            }
        }
    }
}
