//! All processes and their time: each machine gets its events in order ([`driver`]).

mod driver;

use std::{collections::BTreeMap, time::Duration};

use oc_discovery::protocol::{
    self, Ack, AckCode, Action, Addr, Addrs, Beat, Indexer, IndexerConfig, IndexersAnswer, Instant,
    Key, MAX_LIST, Machine, Name, Native, NativeConfig, Node, NodeConfig, OutBeat, PeerId,
    PeerList, RecordInfo, RequestId, Rng, Role, SignedRecord, StreamId, Terms, TransportAddr,
    Verdict,
    codec::{heartbeat::AckCause, record::Record},
    signing::{Urgency, record_ttl},
};

use crate::{
    ledger::{Holding, Ledger, Work},
    lookups,
    network::{End, Event, Input, Network, PeerNo, StreamNo},
};

/// The default settings of the program.
const TERMS: Terms = Terms {
    lease: Duration::from_secs(90),
    beat_interval: Duration::from_secs(30),
};
const LOOP: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(60);
const MIN_INDEXERS: usize = 2;
/// Natives that a device can be given.
const MOST_NATIVES: usize = 8;
/// Wall-clock time at the start of the world, ms.
const EPOCH: u64 = 1_700_000_000_000;
/// Time that a search in the DHT takes, ms.
const SEARCH: u64 = 100;
/// A run is stopped after this many events for each peer, because the machines then keep each other
/// busy without progress.
const MOST_EVENTS: usize = 500;

/// The number of peers of each role.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub natives: usize,
    pub indexers: usize,
    pub nodes: usize,
}

impl Size {
    /// Checks that the tables of the machines have room for this many.
    pub fn check(&self) -> Result<(), String> {
        let bounds = [
            ("--natives", self.natives, 1, 16),
            ("--indexers", self.indexers, 1, 1_024),
            ("--nodes", self.nodes, 100, 250_000),
        ];
        for (option, value, least, most) in bounds {
            if value < least || value > most {
                return Err(format!("{option} {value}: give {least} to {most}"));
            }
        }
        Ok(())
    }
}

/// Makes and starts an indexer.
pub type MakeIndexer = fn(Instant, PeerId, u64) -> Box<dyn Machine>;

/// An indexer with room for `N` nodes.
pub fn indexer<const N: usize>(now: Instant, own: PeerId, seed: u64) -> Box<dyn Machine> {
    let mut indexer = Box::new(Indexer::<N>::new());
    let config = IndexerConfig {
        terms: TERMS,
        gc_interval: LOOP,
    };
    indexer.start(now, own, seed, config);
    indexer
}

/// A native with room for its share of all nodes.
fn native(now: Instant, own: PeerId, seed: u64) -> Box<dyn Machine> {
    let mut native = Box::new(Native::<1024, 2048, 4096, 9232>::new());
    let config = NativeConfig {
        terms: TERMS,
        offload_interval: LOOP,
        refresh_interval: LOOP,
        gc_interval: LOOP,
    };
    native.start(now, own, seed, config);
    native
}

fn node(now: Instant, own: PeerId, seed: u64) -> Box<dyn Machine> {
    let mut node = Box::new(Node::new());
    let config = NodeConfig {
        terms: TERMS,
        connect_interval: CONNECT,
        min_indexers: MIN_INDEXERS,
    };
    node.start(now, own, seed, config);
    node
}

/// What the peers of a process notice when it ends.
#[derive(Clone, Copy, PartialEq)]
pub enum Loss {
    /// Its machine closes all connections.
    Noticed,
    /// Nothing: its machine is off.
    Silent,
}

/// The state of a process.
#[derive(Clone, Copy, PartialEq)]
enum State {
    /// It does not run: connections are refused.
    None,
    Runs,
    /// Its machine is off: connections get no answer.
    Silent,
}

struct Peer {
    id: PeerId,
    role: Role,
    machine: Box<dyn Machine>,
    state: State,
    /// The time of the timer of the process.
    wake_at: u64,
    /// When the own record was signed.
    signed_at: u64,
    /// Heartbeat streams that this process opened.
    out: Vec<(PeerNo, StreamNo)>,
    /// The last request to a native.
    asked: u64,
    /// Requests that wait here for their answer, with the peer that asks.
    requests: BTreeMap<RequestId, PeerNo>,
    work: Work,
}

/// All peers (natives first, then indexers, then nodes), and the network between them.
pub struct World {
    size: Size,
    now: u64,
    peers: Vec<Peer>,
    network: Network,
    dht: BTreeMap<PeerId, RecordInfo>,
    /// The peers that have announced a name in the DHT. None of them goes away.
    pub providers: BTreeMap<Key, Vec<PeerNo>>,
    ledger: Ledger,
    rng: Rng,
    requests: u64,
    events: u64,
}

impl World {
    /// Makes a world in which nothing runs yet.
    pub fn new(size: Size, make_indexer: MakeIndexer, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let all = size.natives + size.indexers + size.nodes;
        let mut world = Self {
            size,
            now: 0,
            peers: Vec::with_capacity(all),
            network: Network::new(rng.bits()),
            dht: BTreeMap::new(),
            providers: BTreeMap::new(),
            ledger: Ledger::new(all),
            rng,
            requests: 0,
            events: 0,
        };
        for number in 0..all {
            let id = new_id(number, &mut world.rng);
            let role = match number {
                _ if number < size.natives => Role::Native,
                _ if number < size.natives + size.indexers => Role::Indexer,
                _ => Role::Node,
            };
            let make: MakeIndexer = match role {
                Role::Native => native,
                Role::Indexer => make_indexer,
                Role::Node => node,
            };
            world.peers.push(Peer {
                id,
                role,
                machine: make(Instant::default(), id, world.rng.bits()),
                state: State::None,
                wake_at: u64::MAX,
                signed_at: 0,
                out: Vec::new(),
                asked: 0,
                requests: BTreeMap::new(),
                work: Work::default(),
            });
        }
        world
    }

    /// The numbers of all natives, indexers or nodes.
    pub fn all(&self, role: Role) -> std::ops::Range<PeerNo> {
        let Size {
            natives, indexers, ..
        } = self.size;
        match role {
            Role::Native => 0..natives,
            Role::Indexer => natives..natives + indexers,
            Role::Node => natives + indexers..self.peers.len(),
        }
    }

    /// The peer's id.
    pub fn id(&self, number: PeerNo) -> PeerId {
        self.peers[number].id
    }

    /// The peer's machine.
    pub fn machine(&self, number: PeerNo) -> &dyn Machine {
        &*self.peers[number].machine
    }

    /// The same, mutable.
    pub fn machine_mut(&mut self, number: PeerNo) -> &mut dyn Machine {
        &mut *self.peers[number].machine
    }

    /// Present time, ms.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Starts the peers at random times, evenly spread over this many milliseconds from now.
    pub fn start(&mut self, peers: impl Iterator<Item = PeerNo>, within: u64) {
        for peer in peers {
            let at = self.now + self.rng.below(within + 1);
            self.network.at(at, peer, Input::Start);
        }
    }

    /// Ends processes.
    pub fn kill(&mut self, peers: impl Iterator<Item = PeerNo>, loss: Loss) {
        for number in peers {
            self.peers[number].state = match loss {
                Loss::Noticed => State::None,
                Loss::Silent => State::Silent,
            };
            for stream in self.network.streams_of(number) {
                self.network.close(stream);
                let other = match self.network.stream(stream).client == number {
                    true => End::Server,
                    false => End::Client,
                };
                if loss == Loss::Noticed {
                    let end = Input::End(stream);
                    self.network.pass(self.now, stream, other, end);
                }
            }
        }
    }

    /// Runs all events up to a time. Returns `false` if there are too many.
    pub fn run(&mut self, until: u64) -> bool {
        while let Some(event) = self.network.next(until) {
            self.now = event.at;
            self.happen(event);
            self.events += 1;
            if self.events > (MOST_EVENTS * self.peers.len()) as u64 {
                return false;
            }
        }
        self.now = until;
        true
    }

    /// Begins to count work.
    pub fn reset_work(&mut self) {
        for peer in &mut self.peers {
            peer.work = Work::default();
        }
    }

    /// The most messages in one second, for each running peer of the role.
    pub fn peaks(&self, role: Role) -> Vec<u64> {
        let peers = self.peers[self.all(role)].iter();
        let run = peers.filter(|peer| peer.state == State::Runs);
        run.map(|peer| peer.work.peak()).collect()
    }

    /// The leases of a node with servers that run.
    pub fn holding(&self, node: PeerNo) -> Holding {
        let mut holding = Holding::default();
        for server in self.ledger.servers(node, self.now) {
            let server = &self.peers[server];
            if server.state == State::Runs {
                match server.role {
                    Role::Native => holding.native = true,
                    _ => holding.indexers += 1,
                }
            }
        }
        holding
    }

    /// How many leases each running indexer has granted.
    pub fn loads(&self) -> Vec<u64> {
        let mut loads = vec![0; self.peers.len()];
        for node in self.all(Role::Node) {
            for server in self.ledger.servers(node, self.now) {
                loads[server] += 1;
            }
        }
        let runs = |&indexer: &PeerNo| self.peers[indexer].state == State::Runs;
        let indexers = self.all(Role::Indexer).filter(runs);
        indexers.map(|indexer| loads[indexer]).collect()
    }

    fn happen(&mut self, event: Event) {
        let Event { to, input, .. } = event;
        let peer = &mut self.peers[to];
        match (peer.state, input) {
            (State::None, Input::Start) => return self.boot(to),
            (State::None, input) => return self.refuse(to, input),
            (State::Silent, _) => return,
            (State::Runs, Input::Wake) if peer.wake_at != self.now => return,
            (State::Runs, input) => {
                if input.is_message() {
                    peer.work.count(self.now);
                }
                self.take(to, input);
            }
        }
        self.drain(to);
    }

    fn boot(&mut self, number: PeerNo) {
        let now = self.instant();
        let all = self.size.natives;
        // A fleet has one list of natives in one order. If there are more than fit, devices have
        // different parts of it.
        let spare = all.saturating_sub(MOST_NATIVES);
        let left_out = |native: PeerNo| (native + all - number % all) % all < spare;
        let natives = (0..all).filter(|&native| native != number && !left_out(native));
        for native in natives {
            let (id, addrs) = (self.peers[native].id, addrs(native));
            let machine = &mut self.peers[number].machine;
            let (native, addrs) = (&id, &addrs);
            machine.handle(now, protocol::Input::NativeLearned { native, addrs });
        }
        self.peers[number].state = State::Runs;
        self.drain(number);
    }

    /// What the sender learns about a peer that does not run.
    fn refuse(&mut self, number: PeerNo, input: Input) {
        let (to, answer) = match input {
            Input::Beat(stream, ..) => {
                self.network.close(stream);
                (self.network.stream(stream).client, Input::End(stream))
            }
            Input::Ask(from, request, _) => (from, Input::Answer(number, request, None)),
            Input::Ping(from) => (from, Input::Pong(number, Verdict::Silent)),
            _ => return,
        };
        self.network.send(self.now, to, answer);
    }

    fn instant(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    pub fn own_ms(&self) -> u64 {
        EPOCH + self.now
    }
}

/// A random id that ends in the peer's number.
fn new_id(number: PeerNo, rng: &mut Rng) -> PeerId {
    let mut id = [0; 32];
    for part in id.chunks_exact_mut(8) {
        part.copy_from_slice(&rng.bits().to_le_bytes());
    }
    id[28..].copy_from_slice(&(number as u32).to_le_bytes());
    PeerId::from_bytes(id)
}

/// The number at the end of an id.
pub fn number_of(peer: &PeerId) -> PeerNo {
    let [.., a, b, c, d] = *peer.as_bytes();
    u32::from_le_bytes([a, b, c, d]) as PeerNo
}

/// `/ip4/10.x.y.1/tcp/4820`, from 65,536 on `/ip4/11.…`: every peer has a network of its own.
pub fn addrs(number: PeerNo) -> Addrs {
    let [_, block, high, low] = (number as u32).to_be_bytes();
    let [port_high, port_low] = 4820_u16.to_be_bytes();
    let addr = Addr::from_iter([4, 10 + block, high, low, 1, 6, port_high, port_low]);
    Addrs::from_iter([addr])
}

/// The name of a node. Other peers have one, too, but no peer learns it.
pub fn name_of(number: PeerNo) -> Name {
    format!("n{number}").chars().collect()
}
