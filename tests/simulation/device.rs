//! One device: a machine, and the state of its driver.
//!
//! A device outlives its processes: identity, record sequence, clocks and the content of flash
//! stay, and everything else is lost.

use std::collections::{BTreeMap, BTreeSet};

use oc_discovery::protocol::{
    self, Addr, Addrs, Indexer, IndexerConfig, Instant, Machine, Name, Native, NativeConfig, Node,
    NodeConfig, PeerId, RequestId, Role, StreamId, clock::WallClock, endpoint::Endpoint,
    listing::Listings, lookup::Query,
};

use crate::{
    dht::Envelope,
    flash::Flash,
    frames::Frame,
    listing::{Listed, Place},
    lookup::{NO_LOOKUPS, Slots},
    network::{Input, StreamKey},
    scenario::{Loss, Plan, Size},
    view::{Seen, View},
    watching::{NO_WATCHES, Table, Watching},
};

/// The number of a device in the world.
pub type DeviceNo = usize;

/// The state of a device.
#[derive(Debug, PartialEq)]
pub enum State {
    /// Its process runs.
    Running,
    /// Its process is stopped (SIGSTOP). Arriving messages wait.
    Stopped(Vec<Input>),
    /// It has no process.
    Down(Loss),
}

/// A process.
pub type Process = Endpoint<Box<dyn Machine>, Box<Slots>, Box<Table>, Place, 1>;

/// Before the first process.
fn no_process() -> Process {
    let machine = Box::new(Node::new());
    let (lookups, watches) = (Box::new(NO_LOOKUPS), Box::new(NO_WATCHES));
    let listings = Listings::new(PeerId::from_bytes([0; 32]));
    let (now, clock) = (Instant::default(), WallClock::new(0));
    Endpoint::new(now, machine, lookups, watches, listings, clock)
}

/// One device.
pub struct Device {
    /// Its identity.
    pub peer: PeerId,
    /// Its role.
    pub role: Role,
    /// Its state.
    pub state: State,
    /// How many processes it has had. Messages for an earlier process do not reach a later one.
    pub life: u64,
    /// The process.
    pub endpoint: Process,
    /// The time of the timer of the process.
    pub wake_at: u64,
    /// How far the device's monotonic clock is ahead of the world's time.
    pub skew: u64,
    /// How far its wall clock is ahead of the world's.
    pub wall_ahead: i64,
    /// Whether its wall clock is synchronised.
    pub synchronised: bool,
    /// What survives its processes.
    pub flash: Flash,
    /// The own record.
    pub record: Option<Envelope>,
    /// Its host: mostly one of its own.
    pub host: DeviceNo,
    /// Its port. Natives always have the same one, others a new one in each process and after each
    /// change of address.
    pub port: u16,
    /// When it last started, or continued after being stopped, in the world's time.
    pub resumed_at: u64,
    /// Whether its wall clock was ever stepped.
    pub stepped: bool,
    /// The lower bound of own time: the build date, or the highest time that was on flash when the
    /// process started, ms.
    pub floor: u64,
    /// The natives that gave this process their clock, in answers that came in time.
    pub natives_clocks: BTreeSet<PeerId>,
    /// The state at the last check.
    pub seen: Seen,
    /// Heartbeat streams that this process opened.
    pub out: BTreeMap<PeerId, StreamKey>,
    /// Streams with last beats that wait for their acks, on which nothing else is sent.
    pub left: BTreeMap<StreamKey, PeerId>,
    /// Heartbeat streams that others opened here.
    pub inbound: BTreeMap<StreamKey, StreamId>,
    /// Its watch, and its watchers.
    pub watching: Watching,
    /// Peers for which slots of connections are reserved.
    pub slots: BTreeSet<PeerId>,
    /// Its listing.
    pub listed: Listed,
    /// Number of the next stream, request, search.
    pub next: u64,
    /// Own requests that wait for their responses.
    pub asked: BTreeMap<u64, Query>,
    /// Requests of others that wait here: the process that asks, and its number of the request.
    pub requests: BTreeMap<RequestId, ((DeviceNo, u64), u64)>,
    /// Searches under way.
    pub searches: BTreeMap<u64, Query>,
    /// Pings under way. A ping over the connection of a stream has that stream with it.
    pub pings: BTreeMap<u64, (PeerId, Option<StreamId>)>,
    /// First beats that are held for the machine.
    pub held: Vec<(StreamId, StreamKey, Frame)>,
    /// Whether it overstates its room and answers no beat of a node.
    pub is_mute: bool,
    /// Natives it is configured with.
    pub natives: Vec<DeviceNo>,
}

impl Device {
    /// A device that has no process yet.
    pub fn new(peer: PeerId, role: Role, natives: Vec<DeviceNo>) -> Self {
        Self {
            peer,
            role,
            state: State::Down(Loss::Noticed),
            life: 0,
            endpoint: no_process(),
            wake_at: u64::MAX,
            skew: 0,
            wall_ahead: 0,
            synchronised: true,
            flash: Flash::default(),
            record: None,
            host: 0,
            port: 0,
            resumed_at: 0,
            stepped: false,
            floor: 0,
            natives_clocks: BTreeSet::new(),
            seen: Seen::default(),
            out: BTreeMap::new(),
            left: BTreeMap::new(),
            inbound: BTreeMap::new(),
            watching: Watching::default(),
            slots: BTreeSet::new(),
            listed: Listed::default(),
            next: 0,
            asked: BTreeMap::new(),
            requests: BTreeMap::new(),
            searches: BTreeMap::new(),
            pings: BTreeMap::new(),
            held: Vec::new(),
            is_mute: false,
            natives,
        }
    }

    /// Whether a process runs, stopped or not.
    pub fn is_up(&self) -> bool {
        !matches!(self.state, State::Down(_))
    }

    /// When the process must be polled.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.endpoint.next_timeout()
    }

    /// Its machine, for queries.
    pub fn machine(&self) -> &dyn Machine {
        self.endpoint.machine()
    }

    /// Gives the process what has happened at this time of the world.
    pub fn handle(&mut self, now: u64, input: protocol::Input<'_>) {
        self.endpoint.handle(self.instant(now), input);
    }

    /// The name that it claims, which several nodes share; an indexer and a native have none.
    pub fn name(&self, no: DeviceNo) -> Name {
        let mut name = Name::new();
        if self.role == Role::Node {
            // There is room for two letters.
            let _ = name.push('n');
            let _ = name.push(char::from(b'0' + (no % 4) as u8));
        }
        name
    }

    /// Takes note that the stream with a last beat has ended, or that the beat is answered.
    pub fn left(&mut self, now: u64, stream: StreamKey) {
        if let Some(ref server) = self.left.remove(&stream) {
            self.handle(now, protocol::Input::GaveUp { server });
        }
    }

    /// The world's time on this device's monotonic clock.
    pub fn instant(&self, now: u64) -> Instant {
        Instant::from_millis(now + self.skew)
    }

    /// What the system clock shows.
    pub fn system_ms(&self, now: u64) -> u64 {
        now.saturating_add_signed(self.wall_ahead)
    }

    /// The time to sign and judge with.
    pub fn own_ms(&self, now: u64) -> u64 {
        let system_ms = self.system_ms(now);
        self.endpoint.own_ms(self.instant(now), system_ms)
    }

    /// Takes note of the time, if it may be persisted.
    pub fn note_time(&mut self, now: u64) {
        let system_ms = self.system_ms(now);
        let settled = self.endpoint.settled_ms(self.instant(now), system_ms);
        if let Some(settled) = settled {
            self.flash.note_time(settled);
        }
    }

    /// A new number.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether it holds a lease with such a server.
    pub fn holds_with(&self, now: u64, is_one: impl Fn(&PeerId) -> bool) -> bool {
        let at = self.instant(now);
        let view = self.view(now);
        let mut leases = view.leases.iter();
        leases.any(|lease| lease.expiry(at).is_some() && is_one(lease.server()))
    }

    /// The state that `status` shows.
    pub fn view(&self, now: u64) -> View {
        let mut view = View::default();
        self.machine().report(self.instant(now), &mut view);
        view
    }

    /// The address of the present process, as a binary multiaddress.
    pub fn addr(&self) -> Addr {
        let [high, low] = self.port.to_be_bytes();
        let [_, .., second] = self.host.to_be_bytes();
        [4, 10, second, 0, 1, 6, high, low].into_iter().collect()
    }

    /// The streams that it opened, and those that others opened here.
    pub fn streams(&self) -> (Vec<StreamKey>, Vec<StreamKey>) {
        let (out, inbound) = (self.watching.out.keys(), self.watching.inbound.keys());
        let opened = self.out.values().chain(out);
        let accepted = self.inbound.keys().chain(inbound);
        (opened.copied().collect(), accepted.copied().collect())
    }

    /// Clears everything that a process has in memory.
    pub fn lose_memory(&mut self) {
        self.out.clear();
        self.left.clear();
        self.inbound.clear();
        self.watching = Watching::default();
        self.slots.clear();
        self.listed = Listed::default();
        self.asked.clear();
        self.requests.clear();
        self.searches.clear();
        self.pings.clear();
        self.held.clear();
        self.record = None;
        self.natives_clocks.clear();
        self.seen = Seen::default();
        self.wake_at = u64::MAX;
    }

    /// Starts a process.
    pub fn boot(&mut self, now: u64, seed: u64, plan: &Plan, natives: &[(PeerId, Addrs)]) {
        self.lose_memory();
        self.life += 1;
        self.move_port();
        self.skew = seed % 1_000_000;
        self.flash.reload();
        self.resumed_at = now;
        self.floor = plan.build_date.max(self.flash.state().highest_time_ms);
        let mut clock = WallClock::new(plan.build_date);
        clock.remember(self.flash.state().highest_time_ms);
        self.state = State::Running;
        let machine = self.start(now, seed, plan);
        let mut lookups = Box::new(NO_LOOKUPS);
        lookups.start(self.peer);
        let mut watches = Box::new(NO_WATCHES);
        watches.start(self.peer);
        let listings = Listings::new(self.peer);
        let now_here = self.instant(now);
        self.endpoint = Endpoint::new(now_here, machine, lookups, watches, listings, clock);
        for (peer, addrs) in natives {
            let learned = protocol::Input::NativeLearned {
                native: peer,
                addrs,
            };
            self.handle(now, learned);
        }
    }

    /// Changes the port, except for a native.
    pub fn move_port(&mut self) {
        if self.role != Role::Native {
            self.port += 1;
        }
    }

    fn start(&self, now: u64, seed: u64, plan: &Plan) -> Box<dyn Machine> {
        let at = self.instant(now);
        match (self.role, plan.size) {
            (Role::Native, Size::Roomy | Size::Ample) => {
                self.native::<16, 32, 32, 96>(at, seed, plan)
            }
            (Role::Native, Size::Vast) => self.native::<208, 208, 32, 300>(at, seed, plan),
            (Role::Native, Size::Tight) => self.native::<2, 3, 2, 8>(at, seed, plan),
            (Role::Native, Size::Crowd) => self.native::<40, 128, 8, 64>(at, seed, plan),
            (Role::Indexer, Size::Roomy | Size::Vast) => self.indexer::<32>(at, seed, plan),
            (Role::Indexer, Size::Tight) => self.indexer::<2>(at, seed, plan),
            (Role::Indexer, Size::Ample) => self.indexer::<96>(at, seed, plan),
            (Role::Indexer, Size::Crowd) => self.indexer::<8>(at, seed, plan),
            (Role::Node, _) => {
                let mut node = Node::new();
                let config = NodeConfig {
                    terms: plan.terms,
                    connect_interval: plan.connect_interval(),
                    min_indexers: plan.min_indexers,
                };
                for (indexer, addrs) in &self.flash.state().state {
                    node.remember(*indexer, addrs.clone());
                }
                node.start(at, self.peer, seed, config);
                Box::new(node)
            }
        }
    }

    fn native<const I: usize, const K: usize, const R: usize, const S: usize>(
        &self,
        at: Instant,
        seed: u64,
        plan: &Plan,
    ) -> Box<dyn Machine> {
        // Made at compile time, because it is large for the stack of a test.
        let mut native = Box::new(const { Native::<I, K, R, S>::new() });
        let config = NativeConfig {
            terms: plan.terms,
            offload_interval: plan.interval(),
            refresh_interval: plan.interval(),
            gc_interval: plan.interval(),
        };
        native.start(at, self.peer, seed, config);
        for (indexer, _) in &self.flash.state().state {
            native.remember(at, indexer);
        }
        native
    }

    fn indexer<const N: usize>(&self, at: Instant, seed: u64, plan: &Plan) -> Box<dyn Machine> {
        let mut indexer = Box::new(const { Indexer::<N>::new() });
        let config = IndexerConfig {
            terms: plan.terms,
            gc_interval: plan.interval(),
        };
        indexer.start(at, self.peer, seed, config);
        indexer
    }
}
