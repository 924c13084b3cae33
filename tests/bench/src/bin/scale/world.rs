//! The driver of all processes: it gives each machine its events in order, polls until no action is
//! left, and carries the actions out.

use std::{collections::BTreeMap, time::Duration};

use oc_discovery::protocol::{
    self, Ack, AckCode, Action, Addr, Addrs, Beat, Endpoint, Indexer, IndexerConfig,
    IndexersAnswer, Instant, Key, MAX_LIST, Machine, Name, Native, NativeConfig, Node, NodeConfig,
    OutBeat, PeerId, PeerList, RecordInfo, RequestId, Rng, Role, SignedRecord, StreamId, Terms,
    Verdict, codec::record::Record, signing::Urgency,
};

use crate::{
    ledger::{Holding, Ledger, Work},
    lookups,
    network::{Event, Input, Network, PeerNo, StreamNo},
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

    /// Ends processes. With `told` their machines close all connections; otherwise the machines are
    /// off.
    pub fn kill(&mut self, peers: impl Iterator<Item = PeerNo>, told: bool) {
        for number in peers {
            self.peers[number].state = if told { State::None } else { State::Silent };
            for stream in self.network.streams_of(number) {
                self.network.close(stream);
                let to_server = self.network.stream(stream).client == number;
                if told {
                    let end = Input::End(stream);
                    self.network.pass(self.now, stream, to_server, end);
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
        self.network.send(self.now, to, answer, false);
    }

    fn take(&mut self, to: PeerNo, input: Input) {
        let (now, own_ms) = (self.instant(), self.own_ms());
        match input {
            Input::Beat(stream, beat, signed_at) => self.take_beat(to, stream, &beat, signed_at),
            Input::Ack(stream, ack) => self.take_ack(to, stream, &ack.as_ack(), true),
            Input::Told(stream, ack) => self.take_ack(to, stream, &ack.as_ack(), false),
            Input::End(stream) => self.take_end(to, stream),
            Input::Ask(from, number, want) => {
                let asking = self.peers[from].id;
                let (peer, request) = (&mut self.peers[to], RequestId(number));
                match peer.machine.ask(now, &asking, request, MAX_LIST, want) {
                    Some(answer) => {
                        let answer = (answer.offers.into(), answer.takes_in);
                        let answer = Input::Answer(to, number, Some(answer));
                        self.network.send(self.now, from, answer, false);
                    }
                    None => {
                        peer.requests.insert(request, from);
                    }
                }
            }
            Input::Answer(native, number, answer) => {
                let native = self.peers[native].id;
                let peer = &mut self.peers[to];
                if peer.asked == number {
                    let answer = answer.as_ref();
                    let answered = protocol::Input::Answered {
                        native: &native,
                        answer: answer.map(|(offers, takes_in)| IndexersAnswer {
                            offers,
                            takes_in: *takes_in,
                        }),
                    };
                    peer.machine.handle(now, answered);
                }
            }
            Input::Ping(from) => {
                let pong = Input::Pong(to, Verdict::Reachable);
                self.network.send(self.now, from, pong, false);
            }
            Input::Pong(from, verdict) => {
                let from = self.peers[from].id;
                let probed = protocol::Input::Probed {
                    peer: &from,
                    verdict,
                };
                self.peers[to].machine.handle(now, probed);
            }
            Input::Value(record) => {
                let found = protocol::Input::SearchValue {
                    peer: &record.peer,
                    record: &record,
                    own_ms,
                };
                self.peers[to].machine.handle(now, found);
            }
            Input::SearchEnd(peer) => {
                let ended = protocol::Input::SearchEnded {
                    peer: &peer,
                    own_ms,
                };
                self.peers[to].machine.handle(now, ended);
            }
            Input::Announced(key) => {
                let (key, ok) = (&*key, true);
                let ended = protocol::Input::Announced { key, ok };
                self.peers[to].machine.handle(now, ended);
            }
            Input::Start | Input::Wake => {}
        }
    }

    fn take_beat(
        &mut self,
        to: PeerNo,
        stream: StreamNo,
        (beat, known): &(OutBeat, PeerList),
        signed_at: Option<u64>,
    ) {
        if !self.network.stream(stream).open {
            return;
        }
        let from = self.network.stream(stream).client;
        let (id, now) = (self.peers[from].id, self.instant());
        let record = signed_at.map(|signed_at| record(from, id, signed_at));
        let envelope = record.as_ref().map(enveloped).unwrap_or_default();
        let incoming = Beat {
            record: record.clone().map(|info| SignedRecord {
                info,
                envelope: &envelope,
            }),
            publisher: beat.publisher,
            load: beat.load,
            known: known.clone(),
            ..Beat::new(beat.role, beat.lease)
        };
        let server = &mut self.peers[to];
        let (machine, stream_id) = (&mut server.machine, StreamId(stream as u64));
        let outcome = machine.beat(now, &id, stream_id, &incoming);
        if let (Role::Native, true, Some(record)) = (server.role, outcome.publish, record) {
            self.dht.insert(id, record);
        }
        let ack = Input::Ack(stream, Box::new(outcome.ack.into()));
        self.network.pass(self.now, stream, false, ack);
    }

    fn take_ack(&mut self, to: PeerNo, stream: StreamNo, ack: &Ack<'_>, answers: bool) {
        let (server, now) = (self.network.stream(stream).server, self.instant());
        let id = self.peers[server].id;
        let peer = &mut self.peers[to];
        if !peer.out.contains(&(server, stream)) {
            return;
        }
        if answers {
            let over = Endpoint::of(&addrs(server)[0]);
            let server = &id;
            let carried = protocol::Input::Carried { server, over };
            peer.machine.handle(now, carried);
        }
        let said = match answers {
            true => protocol::Input::Acked { server: &id, ack },
            false => protocol::Input::Notified { server: &id, ack },
        };
        peer.machine.handle(now, said);
        match ack.code {
            AckCode::Accepted if peer.role == Role::Node => {
                let until = self.now + ack.lease.as_millis() as u64;
                self.ledger.granted(to, server, until);
            }
            AckCode::Full | AckCode::Refused => self.ledger.ended(to, server),
            AckCode::Accepted | AckCode::Released => {}
        }
    }

    fn take_end(&mut self, to: PeerNo, stream: StreamNo) {
        let now = self.instant();
        let there = self.network.stream(stream);
        let (client, server) = (there.client, there.server);
        let (client_id, server_id) = (self.peers[client].id, self.peers[server].id);
        let peer = &mut self.peers[to];
        if to == server {
            self.network.close(stream);
            let closed = protocol::Input::StreamClosed {
                peer: &client_id,
                stream: StreamId(stream as u64),
            };
            return peer.machine.handle(now, closed);
        }
        if peer.out.contains(&(server, stream)) {
            peer.out.retain(|(_, open)| *open != stream);
            let closed = protocol::Input::LeaseClosed { server: &server_id };
            peer.machine.handle(now, closed);
            self.ledger.ended(to, server);
        }
    }

    fn drain(&mut self, number: PeerNo) {
        let (now, own_ms) = (self.instant(), self.own_ms());
        while let Some(action) = self.peers[number].machine.poll(now, own_ms) {
            self.act(number, action);
        }
        let peer = &mut self.peers[number];
        let next = peer.machine.next_timeout();
        let wake_at = next.map_or(u64::MAX, |at| at.as_millis().max(self.now + 1));
        if wake_at != peer.wake_at {
            peer.wake_at = wake_at;
            self.network.at(wake_at, number, Input::Wake);
        }
    }

    fn act(&mut self, number: PeerNo, action: Action) {
        match action {
            Action::Beat { server, beat, .. } => {
                let known = self.peers[number].machine.beat_known();
                let known = known.iter().copied().collect();
                self.send_beat(number, number_of(&server), beat, known);
            }
            Action::Drop { server } => self.drop_stream(number, number_of(&server)),
            Action::GiveUp { server } => {
                let (role, server) = (self.peers[number].role, number_of(&server));
                if self.stream_to(number, server).is_some() {
                    self.send_beat(number, server, OutBeat::last(role), PeerList::new());
                    self.drop_stream(number, server);
                }
            }
            Action::Sign => {
                let now = self.instant();
                let peer = &mut self.peers[number];
                peer.signed_at = self.now;
                let signed = protocol::Input::RecordSigned {
                    urgency: Urgency::NextBeat,
                };
                peer.machine.handle(now, signed);
            }
            Action::Close { stream, .. } => {
                let stream = stream.0 as StreamNo;
                if self.network.stream(stream).open {
                    self.network.close(stream);
                    let end = Input::End(stream);
                    self.network.pass(self.now, stream, false, end);
                }
            }
            Action::Release {
                stream,
                left,
                offer,
                ..
            } => {
                let stream = stream.0 as StreamNo;
                let ack = Ack::released(left, offer.as_slice());
                let told = Input::Told(stream, Box::new(ack.into()));
                self.network.pass(self.now, stream, false, told);
            }
            Action::Probe { peer, .. } => {
                let ping = Input::Ping(number);
                self.network.send(self.now, number_of(&peer), ping, true);
            }
            Action::Search { peer } => {
                let at = self.now + SEARCH;
                if let Some(record) = self.dht.get(&peer) {
                    let value = Input::Value(Box::new(record.clone()));
                    self.network.at(at, number, value);
                }
                self.network.at(at, number, Input::SearchEnd(peer));
            }
            Action::Answer { request, takes_in } => {
                if let Some(from) = self.peers[number].requests.remove(&request) {
                    let offers = self.peers[number].machine.answer_offers();
                    let answer = Some((offers.into(), takes_in));
                    let answer = Input::Answer(number, request.0, answer);
                    self.network.send(self.now, from, answer, false);
                }
            }
            Action::Ask { native, want, .. } => {
                self.requests += 1;
                self.peers[number].asked = self.requests;
                let ask = Input::Ask(number, self.requests, want);
                self.network.send(self.now, number_of(&native), ask, true);
            }
            Action::Announce { key } => {
                let providers = self.providers.entry(key.clone()).or_default();
                if !providers.contains(&number) {
                    providers.push(number);
                }
                let announced = Input::Announced(Box::new(key));
                self.network.at(self.now + SEARCH, number, announced);
            }
            Action::EndSearch { .. }
            | Action::Refreshed { .. }
            | Action::Retry
            | Action::Denied { .. }
            | Action::ProbeStream { .. }
            | Action::Judge { .. }
            | Action::Contested(_)
            | Action::Uncontested { .. } => {}
        }
    }

    fn stream_to(&self, number: PeerNo, server: PeerNo) -> Option<StreamNo> {
        let mut out = self.peers[number].out.iter();
        out.find(|(to, _)| *to == server).map(|(_, stream)| *stream)
    }

    fn send_beat(&mut self, number: PeerNo, server: PeerNo, beat: OutBeat, known: PeerList) {
        // Here a stream is silent only if its server is, so nothing is lost with the old one.
        if beat.fresh {
            self.drop_stream(number, server);
        }
        let stream = self.stream_to(number, server).unwrap_or_else(|| {
            let stream = self.network.open(self.now, number, server);
            self.peers[number].out.push((server, stream));
            stream
        });
        let signed_at = beat.with_record.then_some(self.peers[number].signed_at);
        let beat = Input::Beat(stream, Box::new((beat, known)), signed_at);
        self.network.pass(self.now, stream, true, beat);
    }

    fn drop_stream(&mut self, number: PeerNo, server: PeerNo) {
        if let Some(stream) = self.stream_to(number, server) {
            let out = &mut self.peers[number].out;
            out.retain(|(_, open)| *open != stream);
            self.ledger.ended(number, server);
            let end = Input::End(stream);
            self.network.pass(self.now, stream, true, end);
        }
    }

    fn instant(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    fn own_ms(&self) -> u64 {
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

fn record(number: PeerNo, peer: PeerId, signed_at: u64) -> RecordInfo {
    let issued_at_ms = EPOCH + signed_at;
    RecordInfo {
        peer,
        sequence: issued_at_ms,
        issued_at_ms,
        ttl: TERMS.lease * 3,
        addrs: addrs(number),
        name: name_of(number),
    }
}

/// The name of a node. Other peers have one, too, but no peer learns it.
pub fn name_of(number: PeerNo) -> Name {
    format!("n{number}").chars().collect()
}

fn enveloped(info: &RecordInfo) -> Vec<u8> {
    lookups::envelope(Record {
        peer: info.peer,
        sequence: info.sequence,
        issued_at_ms: info.issued_at_ms,
        ttl: info.ttl,
        addrs: info.addrs.iter().map(|addr| addr.as_slice()).collect(),
        name: &info.name,
        tags: Default::default(),
        services: Default::default(),
        version: Default::default(),
    })
}
