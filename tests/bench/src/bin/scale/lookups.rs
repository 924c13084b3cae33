//! Lookups by name, one after another, in a world that stands still meanwhile: the lookups of the
//! core in the process that asks and in each server that it asks, and real frames between them.
//!
//! The DHT is a model of Kademlia with [`K`] and [`ALPHA`]. A search asks one server for each
//! halving of the servers down to `K`, and then the `K` that are nearest to the key, `ALPHA` at a
//! time, until the lookup ends it. Those `K` name the providers, as far as their stores have room
//! for all announcements. Each request and each answer is a message.

use std::collections::BTreeMap;

use oc_discovery::protocol::{
    Addrs, Instant, Key, MAX_ENVELOPE_LEN, PeerId, RequestId, Rng, Role,
    codec::{
        directory::{
            Request, Response, Room, decode_request, decode_response, encode_request,
            encode_response,
        },
        frame::{MAX_FRAME, MAX_RESPONSE},
        record::{Kind, Record, RecordError, SignError, Signer, Verifier, sign},
    },
    lookup::{LookupAction, LookupId, Lookups, QueryId, Question, Served},
};

use crate::{
    network::PeerNo,
    world::{World, addrs, name_of, number_of},
};

/// Servers that keep an announcement, and that answer a search.
const K: usize = 8;
/// Requests of a search that wait for their answers at a time.
const ALPHA: usize = 3;
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
    /// Messages of the lookup that needed most, and of all.
    pub most: u64,
    pub messages: u64,
    /// Time that the slowest took, ms.
    pub slowest: u64,
}

impl Tally {
    /// Messages of a lookup on average.
    pub fn mean(&self) -> f64 {
        self.messages as f64 / self.pairs.max(1) as f64
    }
}

/// Random pairs, a third of them for each role of the process that asks.
pub fn of_random_pairs(world: &mut World, pairs: usize, rng: &mut Rng) -> Tally {
    let mut tally = Tally::default();
    let mut dht = Dht::new(world);
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
        tally.most = tally.most.max(messages);
        tally.messages += messages;
        tally.slowest = tally.slowest.max(took);
    }
    tally
}

/// What the servers of the DHT keep.
struct Dht {
    /// Servers between the asker and the `K` nearest, one after another.
    hops: usize,
    /// Servers that still have an announcement, of the `K` that it was made to.
    copies: usize,
}

impl Dht {
    fn new(world: &World) -> Self {
        let servers = world.all(Role::Native).len() + world.all(Role::Indexer).len();
        let announced: usize = world.providers.values().map(Vec::len).sum();
        let kept = MAX_PROVIDERS * servers;
        Self {
            hops: (servers / K).max(1).ilog2() as usize,
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

/// A search of the DHT: its key, and how many servers were asked and have answered.
struct Search {
    key: Key,
    asked: usize,
    answered: usize,
}

enum Input {
    Request(PeerNo, QueryId, Vec<u8>),
    Response(QueryId, Vec<u8>),
    /// The next servers of the DHT are asked.
    Round(QueryId),
    /// One of them has answered.
    Named(QueryId),
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
        let all: Vec<_> = self.processes.keys().copied().collect();
        for no in all {
            while let Some(action) = {
                let process = self.processes.get_mut(&no)?;
                process.slots.poll(now, self.world.machine_mut(no))
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
                let search = Search {
                    key,
                    asked: 0,
                    answered: 0,
                };
                self.process(no).searches.insert(query, search);
                self.push(0, no, Input::Round(query));
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
            Input::Round(query) => {
                let all = self.dht.hops + K;
                let Some(search) = self.process(no).searches.get_mut(&query) else {
                    return;
                };
                let asked = ALPHA.min(all - search.asked);
                search.asked += asked;
                self.messages += asked as u64;
                for _ in 0..asked {
                    self.push(ROUND_TRIP, no, Input::Named(query));
                }
                if asked > 0 {
                    self.push(ROUND_TRIP, no, Input::Round(query));
                }
            }
            Input::Named(query) => self.named(no, query),
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
            match slots.serve(now, (&asking, id), request, machine, &mut entries) {
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

    /// A server of the DHT has answered: one on the way, or one of the nearest.
    fn named(&mut self, no: PeerNo, query: QueryId) {
        let (now, hops, copies) = (self.instant(), self.dht.hops, self.dht.copies);
        let process = self.processes.get_mut(&no).expect("it has asked");
        // An answer after the end of the search counts as a message, too.
        self.messages += 1;
        let Some(search) = process.searches.get_mut(&query) else {
            return;
        };
        search.answered += 1;
        let (answered, knows) = (
            search.answered,
            (hops..hops + copies).contains(&(search.answered - 1)),
        );
        let known = self.world.providers.get(&search.key).filter(|_| knows);
        let named: Vec<(PeerId, Addrs)> = known
            .into_iter()
            .flatten()
            .filter(|provider| **provider != no)
            .take(MAX_NAMED)
            .map(|provider| (self.world.id(*provider), addrs(*provider)))
            .collect();
        let slots = &mut process.slots;
        slots.provided(now, query, &named, named.len() == MAX_NAMED);
        if answered == hops + K {
            process.searches.remove(&query);
            slots.searched(now, query, answered as u16);
        }
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
    fn open(&self, _: Kind, envelope: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), RecordError> {
        let signer = envelope.first_chunk::<32>();
        let payload = envelope.get(HEAD..);
        let parts = signer.zip(payload).ok_or(RecordError::NotAnEnvelope)?;
        Ok((PeerId::from_bytes(*parts.0), parts.1))
    }
}
