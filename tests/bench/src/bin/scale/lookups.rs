//! Lookups by name, one after another, in a world that stands still meanwhile: the lookups of the
//! core in the process that asks and in each server that it asks, and real frames between them.
//!
//! The DHT is a model ([`kademlia`](crate::kademlia)). A search walks to the servers nearest to the
//! key until the lookup ends it. Those name the providers, as far as their stores have room for all
//! announcements. Each request and each answer is a message.

use std::collections::BTreeMap;

use oc_discovery::protocol::{
    Addrs, Coverage, Instant, Key, MAX_ENVELOPE_LEN, PeerId, RequestId, Rng, Role,
    codec::{
        directory::{
            Request, Response, Room, decode_request, decode_response, encode_request,
            encode_response,
        },
        frame::{MAX_FRAME, MAX_RESPONSE},
        record::{Flaw, Kind, Purpose, Record, SignError, Signer, Verifier, sign},
    },
    lookup::{LookupAction, LookupId, Lookups, QueryId, Question, Served},
};

use crate::{
    kademlia::{K, Servers, Walk},
    network::PeerNo,
    world::{World, addrs, name_of, number_of},
};

/// Announcements that a server keeps (`OC_DISCOVERY_MAX_PROVIDERS`), and those of one key.
const MAX_PROVIDERS: usize = 4_096;
const MAX_NAMED: usize = 20;
/// Time until the answer to a request over a new connection, ms.
const ROUND_TRIP: u64 = 60;

/// The result of many lookups.
#[derive(Default)]
pub struct Tally {
    pub pairs: usize,
    /// Those that found the node.
    pub found: usize,
    /// Those that were complete.
    pub complete: usize,
    /// Messages of each lookup, the fewest first.
    pub messages: Vec<u64>,
    /// Time that the slowest took, ms.
    pub slowest: u64,
}

impl Tally {
    /// Messages of a lookup on average.
    pub fn mean(&self) -> f64 {
        self.messages.iter().sum::<u64>() as f64 / self.pairs.max(1) as f64
    }

    /// Messages that this percentage of the lookups does not exceed.
    pub fn messages(&self, percent: usize) -> u64 {
        let at = (self.messages.len() * percent / 100).min(self.messages.len().saturating_sub(1));
        self.messages.get(at).copied().unwrap_or_default()
    }
}

/// Random pairs, a third of them for each role of the process that asks.
pub fn of_random_pairs(world: &mut World, pairs: usize, rng: &mut Rng) -> Tally {
    let mut tally = Tally::default();
    let mut dht = Dht::new(world, rng);
    for (pair, role) in (0..pairs).zip([Role::Native, Role::Indexer, Role::Node].iter().cycle()) {
        let mut one_of = |role| {
            let all = world.all(role);
            all.start + rng.below(all.len() as u64) as usize
        };
        let (asker, sought) = (one_of(*role), one_of(Role::Node));
        let mut lookup = Lookup::new(world, &mut dht);
        let end = lookup.run(asker, sought);
        let (messages, took) = (lookup.messages, lookup.now - lookup.began);
        if !end.found {
            eprintln!("scale: pair {pair}: {role:?} {asker} does not find {sought}");
        }
        tally.pairs += 1;
        tally.found += usize::from(end.found);
        tally.complete += usize::from(end.is_complete);
        tally.messages.push(messages);
        tally.slowest = tally.slowest.max(took);
    }
    tally.messages.sort_unstable();
    tally
}

/// The servers of the DHT, and what they keep.
struct Dht {
    servers: Servers,
    /// Servers that still have an announcement, of the `K` that it was made to.
    copies: usize,
}

impl Dht {
    fn new(world: &World, rng: &mut Rng) -> Self {
        let servers = world.all(Role::Native).len() + world.all(Role::Indexer).len();
        let announced: usize = world.providers.values().map(Vec::len).sum();
        let kept = MAX_PROVIDERS * servers;
        Self {
            servers: Servers::new(servers, rng),
            copies: (kept / announced.max(1)).clamp(1, K),
        }
    }
}

/// The result of a lookup: whether it found what it sought, and whether it is complete.
#[derive(Clone, Copy, Default)]
struct End {
    found: bool,
    is_complete: bool,
}

type Slots = Lookups<1, 0, 2>;

/// One lookup, with the processes that take part.
struct Lookup<'w> {
    world: &'w mut World,
    dht: &'w mut Dht,
    began: u64,
    now: u64,
    messages: u64,
    processes: BTreeMap<PeerNo, Process>,
    /// What arrives, by time and order.
    queue: BTreeMap<(u64, u64), (PeerNo, Input)>,
    queued: u64,
}

struct Process {
    slots: Box<Slots>,
    /// Requests that wait for a lookup here: the peer that asks, and its query.
    askers: BTreeMap<LookupId, (PeerNo, QueryId)>,
    searches: BTreeMap<QueryId, Search>,
}

/// A search of the DHT.
struct Search {
    key: Key,
    walk: Walk,
}

enum Input {
    Request(PeerNo, QueryId, Vec<u8>),
    Response(QueryId, Vec<u8>),
    /// A search goes on.
    Walk(QueryId),
    /// A server of the DHT has answered a search.
    Named(QueryId, PeerNo),
}

impl<'w> Lookup<'w> {
    fn new(world: &'w mut World, dht: &'w mut Dht) -> Self {
        let now = world.now();
        Self {
            world,
            dht,
            began: now,
            now,
            messages: 0,
            processes: BTreeMap::new(),
            queue: BTreeMap::new(),
            queued: 0,
        }
    }

    fn run(&mut self, asker: PeerNo, sought: PeerNo) -> End {
        let (now, question) = (self.instant(), Question::Name(name_of(sought)));
        self.process(asker);
        let (process, world) = (self.processes.get_mut(&asker), &*self.world);
        let process = process.expect("it was made above");
        let lookup = process.slots.begin(now, question, world.machine(asker));
        let lookup = lookup.expect("there is a free slot");
        loop {
            if let Some(end) = self.drain((asker, lookup), sought) {
                return end;
            }
            let slots = self.processes.values().map(|process| &process.slots);
            let timeout = slots.filter_map(|slots| slots.timeout()).min();
            let timeout = timeout.map_or(u64::MAX, |at| at.as_millis().max(self.now));
            match self.queue.first_entry() {
                Some(next) if next.key().0 <= timeout => {
                    let ((at, _), (to, input)) = next.remove_entry();
                    self.now = at.max(self.now);
                    self.take(to, input);
                }
                _ => self.now = timeout,
            }
        }
    }

    fn instant(&self) -> Instant {
        Instant::from_millis(self.now)
    }

    fn process(&mut self, no: PeerNo) -> &mut Process {
        let own = self.world.id(no);
        self.processes.entry(no).or_insert_with(|| {
            let mut slots = Box::new(Slots::new());
            slots.start(own);
            Process {
                slots,
                askers: BTreeMap::new(),
                searches: BTreeMap::new(),
            }
        })
    }

    fn push(&mut self, late: u64, to: PeerNo, input: Input) {
        self.queued += 1;
        self.queue
            .insert((self.now + late, self.queued), (to, input));
    }

    /// Carries all actions out. Returns the end of the lookup when it is over.
    fn drain(&mut self, of: (PeerNo, LookupId), sought: PeerNo) -> Option<End> {
        let (now, sought) = (self.instant(), self.world.id(sought));
        let own_ms = self.world.own_ms();
        let all: Vec<_> = self.processes.keys().copied().collect();
        for no in all {
            while let Some(action) = {
                let process = self.processes.get_mut(&no)?;
                process.slots.poll(now, own_ms, self.world.machine_mut(no))
            } {
                let LookupAction::Done { lookup } = action else {
                    self.act(no, action);
                    continue;
                };
                let process = self.processes.get_mut(&no)?;
                let outcome = process.slots.outcome(lookup)?;
                if (no, lookup) == of {
                    return Some(End {
                        found: outcome.records.iter().any(|found| *found.peer() == sought),
                        is_complete: outcome.is_complete,
                    });
                }
                if let Some((to, query)) = process.askers.remove(&lookup) {
                    let body = response(&outcome.response());
                    self.respond(to, query, body);
                }
            }
        }
        None
    }

    fn act(&mut self, no: PeerNo, action: LookupAction) {
        match action {
            LookupAction::Ask {
                query, server, ask, ..
            } => {
                let mut buffer = [0; MAX_FRAME];
                let body = encode_request(&ask.into(), &mut buffer);
                let body = body.expect("a request fits").to_vec();
                self.messages += 1;
                let request = Input::Request(no, query, body);
                self.push(ROUND_TRIP / 2, number_of(&server), request);
            }
            LookupAction::Providers { query, key } => {
                let walk = Walk::new(&self.dht.servers, no, &key);
                let search = Search { key, walk };
                self.process(no).searches.insert(query, search);
                self.walk(no, query);
            }
            LookupAction::EndSearch { query } => _ = self.process(no).searches.remove(&query),
            LookupAction::Search { .. } | LookupAction::Done { .. } => {}
        }
    }

    fn respond(&mut self, to: PeerNo, query: QueryId, body: Vec<u8>) {
        self.messages += 1;
        self.push(ROUND_TRIP / 2, to, Input::Response(query, body));
    }

    fn take(&mut self, no: PeerNo, input: Input) {
        let now = self.instant();
        match input {
            Input::Request(from, query, body) => self.serve(no, (from, query), &body),
            Input::Response(query, body) => {
                let mut room = Room::default();
                let response = decode_response(&body, &mut room).expect("it was just encoded");
                let slots = &mut self.process(no).slots;
                slots.responded(now, query, Some(&response), &Unsealed);
            }
            Input::Walk(query) => self.walk(no, query),
            Input::Named(query, server) => self.named(no, query, server),
        }
    }

    /// Asks as many servers of the DHT as a search may now, and ends it if there are no more.
    fn walk(&mut self, no: PeerNo, query: QueryId) {
        let now = self.instant();
        while let Some(search) = self.process(no).searches.get_mut(&query) {
            if let Some(server) = search.walk.ask() {
                self.messages += 1;
                self.push(ROUND_TRIP, no, Input::Named(query, server));
            } else if let Some(reached) = search.walk.end() {
                let process = self.process(no);
                process.searches.remove(&query);
                process.slots.searched(now, query, reached as u16);
            } else {
                return;
            }
        }
    }

    fn serve(&mut self, no: PeerNo, (from, query): (PeerNo, QueryId), body: &[u8]) {
        let (now, asking) = (self.instant(), self.world.id(from));
        let request: Request = decode_request(body).expect("it was just encoded");
        self.process(no);
        let process = self.processes.get_mut(&no).expect("it was made above");
        let machine = self.world.machine_mut(no);
        let id = RequestId(query.0);
        let body = {
            let mut entries = Default::default();
            let slots = &mut process.slots;
            match slots.serve(now, &asking, id, request, machine, &mut entries) {
                Served::Now(answer) => response(&answer),
                Served::Lookup(lookup) => {
                    process.askers.insert(lookup, (from, query));
                    return;
                }
                Served::Later => return,
            }
        };
        self.respond(from, query, body);
    }

    /// A server of the DHT has answered: one on the way, or one that keeps the announcement.
    fn named(&mut self, no: PeerNo, query: QueryId, server: PeerNo) {
        // An answer after the end of the search counts as a message, too.
        self.messages += 1;
        let (now, dht) = (self.instant(), &*self.dht);
        let process = self.processes.get_mut(&no).expect("it has asked");
        let Some(search) = process.searches.get_mut(&query) else {
            return;
        };
        search.walk.answered(&dht.servers, server);
        let knows = dht.servers.keeps(server, &search.key, dht.copies);
        let known = self.world.providers.get(&search.key).filter(|_| knows);
        let named: Vec<(PeerId, Addrs)> = known
            .into_iter()
            .flatten()
            .filter(|provider| **provider != no)
            .take(MAX_NAMED)
            .map(|provider| (self.world.id(*provider), addrs(*provider)))
            .collect();
        let slots = &mut process.slots;
        let coverage = match named.len() < MAX_NAMED {
            true => Coverage::Complete,
            false => Coverage::Partial,
        };
        slots.provided(now, query, &named, coverage);
        // The lookup may end it before.
        self.push(0, no, Input::Walk(query));
    }
}

fn response(response: &Response<'_>) -> Vec<u8> {
    let mut buffer = [0; MAX_RESPONSE];
    let body = encode_response(response, &mut buffer);
    body.expect("a response fits").to_vec()
}

/// The record of a node in an envelope.
pub fn envelope(record: Record<'_>) -> Vec<u8> {
    let mut buffer = [0; MAX_ENVELOPE_LEN];
    let envelope = sign(&Unsigned(record.peer), Kind::Node, record, &mut buffer);
    envelope.expect("the record fits").to_vec()
}

/// Bytes of an envelope besides its payload: about as many as in libp2p's. It begins with the
/// signer's id. No peer forges signatures here, so there is none.
const HEAD: usize = 128;

struct Unsigned(PeerId);

struct Unsealed;

impl Signer for Unsigned {
    fn peer(&self) -> PeerId {
        self.0
    }

    fn seal(&self, _: Kind, payload: &[u8], buffer: &mut [u8]) -> Result<Option<usize>, SignError> {
        let length = HEAD + payload.len();
        let Some(envelope) = buffer.get_mut(..length) else {
            return Ok(None);
        };
        envelope.fill(0);
        envelope[..32].copy_from_slice(self.0.as_bytes());
        envelope[HEAD..].copy_from_slice(payload);
        Ok(Some(length))
    }
}

impl Verifier for Unsealed {
    fn open(&self, _: Purpose, envelope: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), Flaw> {
        let signer = envelope.first_chunk::<32>();
        let payload = envelope.get(HEAD..);
        let parts = signer.zip(payload).ok_or(Flaw::NotAnEnvelope)?;
        Ok((PeerId::from_bytes(*parts.0), parts.1))
    }
}
