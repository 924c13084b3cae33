//! What happens in a run: who takes part, and which faults come when. All of it follows from the seed.

use std::time::Duration;

use oc_discovery::protocol::{Rng, Terms};

use crate::device::DeviceNo;

/// How long faults last: 5 minutes.
pub const FAULTS_END: u64 = 300_000;

/// What a run is made of.
pub struct Plan {
    /// Natives: the devices from 0.
    pub natives: usize,
    /// Indexers: the devices after the natives.
    pub indexers: usize,
    /// Nodes: the devices after the indexers.
    pub nodes: usize,
    /// Leases a node wants.
    pub min_indexers: usize,
    /// Lease and beat interval of everybody.
    pub terms: Terms,
    /// Whether tables are too small for everybody.
    pub tight: bool,
    /// Whether each indexer knows one native only.
    pub sparse: bool,
    /// No device's time is before it.
    pub build_date: u64,
    /// What goes wrong, and when.
    pub faults: Vec<(u64, Fault)>,
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// A process is gone. `silent`: its peers are not told. `forgetful`: what it wrote to flash is gone, too.
    Crash {
        device: DeviceNo,
        silent: bool,
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
    /// Nothing gets from one device to the other, either way, until then.
    Cut {
        devices: (DeviceNo, DeviceNo),
        until: u64,
    },
    /// The device's streams end; for both sides, or for one only.
    Break { device: DeviceNo, told: bool },
    /// The faults are over.
    Calm,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(rng: &mut Rng) -> Self {
        let lease = Duration::from_secs([90, 90, 30, 12][rng.below(4) as usize]);
        let mut plan = Self {
            natives: 1 + rng.below(3) as usize,
            indexers: rng.below(5) as usize,
            nodes: 1 + rng.below(6) as usize,
            min_indexers: 1 + rng.below(3) as usize,
            terms: Terms {
                lease,
                beat_interval: lease / 3,
            },
            tight: rng.below(4) == 0,
            sparse: rng.below(2) == 0,
            build_date: 500_000_000,
            faults: Vec::new(),
        };
        plan.fault(rng);
        plan
    }

    /// How often each of the three loops runs.
    pub fn interval(&self) -> Duration {
        self.terms.lease / 3
    }

    /// How often a node asks its natives.
    pub fn connect_interval(&self) -> Duration {
        self.terms.lease * 2 / 3
    }

    /// How many devices there are.
    pub fn devices(&self) -> usize {
        self.natives + self.indexers + self.nodes
    }

    /// Time in which everybody must be under a lease again when the faults are over: a lease, so that what is dead is known to be;
    /// then a record's way through the DHT to a native that was not told, hop by hop; then the rounds of the nodes.
    pub fn recovery(&self) -> u64 {
        (self.terms.lease * 3 + Duration::from_secs(60)).as_millis() as u64
    }

    fn fault(&mut self, rng: &mut Rng) {
        for _ in 0..rng.below(15) {
            let at = rng.below(FAULTS_END - 1_000);
            let end = (at + 500 + rng.below(FAULTS_END / 2)).min(FAULTS_END - 1);
            let device = rng.below(self.devices() as u64) as usize;
            match rng.below(6) {
                0 | 1 => {
                    let silent = rng.below(2) == 0;
                    let forgetful = rng.below(2) == 0;
                    self.faults.push((
                        at,
                        Fault::Crash {
                            device,
                            silent,
                            forgetful,
                        },
                    ));
                    self.come_back(device, end, rng);
                }
                2 => {
                    self.faults.push((at, Fault::Leave { device }));
                    self.come_back(device, end, rng);
                }
                3 => {
                    self.faults.push((at, Fault::Stop { device }));
                    self.faults.push((end, Fault::Resume { device }));
                }
                4 => self.partition(at, end, rng),
                _ => {
                    let told = rng.below(2) == 0;
                    self.faults.push((at, Fault::Break { device, told }));
                }
            }
        }
        for device in 0..self.devices() {
            self.faults.push((FAULTS_END - 1, Fault::Resume { device }));
            if device < self.natives {
                self.faults
                    .push((FAULTS_END - 1, Fault::Restart { device }));
            }
        }
        self.faults.push((FAULTS_END, Fault::Calm));
    }

    /// Most that went come back; natives all do, at the end.
    fn come_back(&mut self, device: DeviceNo, end: u64, rng: &mut Rng) {
        if rng.below(4) > 0 {
            self.faults.push((end, Fault::Restart { device }));
        }
    }

    /// Each device falls on one side; between the sides nothing passes.
    fn partition(&mut self, at: u64, until: u64, rng: &mut Rng) {
        let sides = rng.bits();
        let side = |device: usize| (sides >> device) & 1;
        for a in 0..self.devices() {
            for b in (0..a).filter(|&b| side(a) != side(b)) {
                let devices = (a, b);
                self.faults.push((at, Fault::Cut { devices, until }));
            }
        }
    }
}
