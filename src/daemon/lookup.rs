//! Lookups between the core, which decides about them, and the network: the core's questions become
//! directory requests and searches of the DHT, and outcomes become answers or responses.
//!
//! Invariant: each request and search under way has one entry here, until it has ended. The core's
//! bounds are the bounds of these tables; but a request outlives its lookup if the operator leaves,
//! so that requests have a bound of their own.

mod answers;

use std::{collections::HashMap, mem};

use self::answers::{add_granting, answer_of};
use super::{
    environment::Environment,
    life::short,
    machines::{MAX_LOOKUPS, ProgramLookups},
    nodes::{ListingId, Listings, MAX_LISTINGS},
    request::{CallAnswer, Reply},
};
use crate::{
    net::{
        Failure, OwnRequestId,
        dht::SearchId,
        envelope::{Libp2p, OpenRecord},
    },
    protocol::{
        Addrs, Coverage, Entries, Instant, MAX_LIST, Name, PeerId, RequestId, Role, TableStats,
        Want,
        codec::{
            directory::{Request, Response},
            record::Kind,
        },
        lookup::{FULL, LookupAction, LookupId, MAX_OPEN, QueryId, Question, RecordCopy, Served},
        watch::client::Extent,
    },
};

/// Requests that wait for a response at most: as many as all lookups and listings have open at
/// once, and the same number for those that were given up.
const MAX_REQUESTS: usize = 2 * (MAX_LOOKUPS + MAX_LISTINGS) * MAX_OPEN;

/// Name of the table of requests that wait for a response.
const REQUESTS: &str = "requests";

/// What waits for a lookup's outcome.
enum Asker {
    Operator(Reply),
    Peer(RequestId),
    #[cfg(feature = "dns")]
    Program(smol::channel::Sender<super::dns::Known>),
    /// The watches with these numbers.
    Watches(Vec<u64>),
}

/// The indexers that were found for the watch with this number, and how far the list goes.
pub(super) type Servers = (u64, Vec<(PeerId, Addrs)>, Extent);

/// What waits for a server's response.
pub(super) enum Requester {
    /// A request of connect-to-natives, to this native.
    Machine(PeerId),
    Lookup(QueryId),
    Listing(ListingId, QueryId),
}

/// The lookups under way, by their names in the core and on the network.
pub(super) struct Lookups<'m> {
    core: &'m mut ProgramLookups,
    askers: HashMap<LookupId, Asker>,
    /// Indexers that were found for watches.
    servers: Vec<Servers>,
    /// Watches that wait until the lookup for the others is over.
    watches: Vec<u64>,
    requests: HashMap<OwnRequestId, Requester>,
    /// The most requests that waited at once since [`Lookups::take_peak`].
    most: usize,
    searches: HashMap<SearchId, QueryId>,
    pub(super) listings: Listings,
    next: u64,
    /// Requests for which there was no room.
    refused: u64,
}

impl<'m> Lookups<'m> {
    /// No lookup is under way.
    pub(super) fn new(core: &'m mut ProgramLookups) -> Self {
        Self {
            core,
            askers: HashMap::new(),
            servers: Vec::new(),
            watches: Vec::new(),
            requests: HashMap::new(),
            most: 0,
            searches: HashMap::new(),
            listings: Listings::default(),
            next: 0,
            refused: 0,
        }
    }

    /// Begins the operator's lookup of the indexers.
    pub(super) fn indexers(&mut self, env: &mut Environment, reply: Reply) {
        self.begin(env, reply, Question::Indexers);
    }

    /// Begins the operator's lookup of a name or a peer id.
    pub(super) fn find(&mut self, env: &mut Environment, what: &str, reply: Reply) {
        let peer = what
            .parse()
            .ok()
            .and_then(|peer: libp2p::PeerId| PeerId::try_from(peer).ok());
        // Names are in lower case.
        let question = match (peer, Name::try_from(what.to_ascii_lowercase().as_str())) {
            (Some(peer), _) => Question::Peer(peer),
            (None, Ok(name)) => Question::Name(name),
            (None, Err(_)) => {
                return reply.refuse("a name has at most 63 bytes, and this is no peer id");
            }
        };
        self.begin(env, reply, question);
    }

    /// Begins the lookup of a program that asks by DNS.
    #[cfg(feature = "dns")]
    pub(super) fn resolve(&mut self, env: &mut Environment, lookup: super::dns::Resolve) {
        let super::dns::Resolve { question, reply } = lookup;
        if !self.has_room() {
            return;
        }
        let begun = self
            .core
            .begin_for_program(env.now(), question, env.machine());
        if let Some(lookup) = begun {
            self.askers.insert(lookup, Asker::Program(reply));
        }
    }

    /// Finds the servers of a watch. There is one lookup for all of them at a time, so that they
    /// leave a place to the operator. False: there is no room for it.
    pub(super) fn servers_for_watch(&mut self, env: &Environment, number: u64) -> bool {
        self.watches.push(number);
        let is_of_watches = |asker: &Asker| matches!(asker, Asker::Watches(_));
        self.askers.values().any(is_of_watches) || self.look_for_watches(env)
    }

    /// Begins the lookup for the watches that wait.
    fn look_for_watches(&mut self, env: &Environment) -> bool {
        let lookup = match self.has_room() {
            true => self
                .core
                .begin(env.now(), Question::Indexers, env.machine()),
            false => None,
        };
        let asker = Asker::Watches(mem::take(&mut self.watches));
        lookup.is_some_and(|lookup| self.askers.insert(lookup, asker).is_none())
    }

    /// The servers that were found for watches.
    pub(super) fn take_servers(&mut self) -> Vec<Servers> {
        mem::take(&mut self.servers)
    }

    /// Gives up the lookups of operators that closed the connection before the answer.
    pub(super) fn give_up(&mut self, env: &Environment) {
        let now = env.now();
        for (lookup, asker) in &self.askers {
            if matches!(asker, Asker::Operator(reply) if reply.is_abandoned()) {
                self.core.give_up(now, *lookup);
            }
        }
    }

    /// Serves the request of another peer.
    pub(super) fn serve(
        &mut self,
        env: &mut Environment,
        now: Instant,
        (from, id): (&PeerId, RequestId),
        request: Request,
    ) {
        let mut entries = Entries::new();
        let machine = env.endpoint.machine_mut();
        match self
            .core
            .serve(now, from, id, request, machine, &mut entries)
        {
            Served::Now(response) => env.net.respond(id, &response),
            Served::Lookup(lookup) => {
                self.askers.insert(lookup, Asker::Peer(id));
            }
            Served::Later => {}
        }
    }

    /// The core's machine asks a native for indexers.
    pub(super) fn ask_native(
        &mut self,
        env: &mut Environment,
        native: PeerId,
        addrs: &Addrs,
        want: Want,
    ) {
        let request = Request::Indexers {
            most: MAX_LIST as u8,
            want,
            from: None,
        };
        let id = self.name(Requester::Machine(native));
        env.net.request(native, addrs, id, &request);
    }

    /// Takes the answer to a request, or its failure. It is returned together with the native if
    /// the core's machine asked.
    pub(super) fn answered<'a>(
        &mut self,
        env: &mut Environment,
        id: OwnRequestId,
        response: Result<Response<'a>, Failure>,
    ) -> Option<(PeerId, Result<Response<'a>, Failure>)> {
        let query = match self.requests.remove(&id)? {
            Requester::Machine(native) => return Some((native, response)),
            Requester::Lookup(query) => query,
            Requester::Listing(listing, query) => {
                let response = response.ok();
                self.listings.responded((listing, query), response.as_ref());
                return None;
            }
        };
        let response = response.ok();
        self.core
            .responded(env.now(), query, response.as_ref(), &Libp2p);
        None
    }

    /// A search of the DHT found a record.
    pub(super) fn found(
        &mut self,
        env: &Environment,
        search: SearchId,
        record: &OpenRecord,
        envelope: &[u8],
    ) {
        if let Some(query) = self.searches.get(&search) {
            let info = &record.info;
            let copy = RecordCopy {
                info,
                envelope,
                age: None,
                claimed: None,
            };
            self.core.found(env.now(), env.own_ms(), *query, copy);
        }
    }

    /// A server of the DHT has named providers for a search.
    pub(super) fn provided(
        &mut self,
        env: &Environment,
        search: SearchId,
        providers: &[(PeerId, Addrs)],
        coverage: Coverage,
    ) {
        if let Some(query) = self.searches.get(&search) {
            self.core.provided(env.now(), *query, providers, coverage);
        }
    }

    /// A search of the DHT has ended, in which so many servers have answered.
    pub(super) fn search_ended(&mut self, env: &Environment, search: SearchId, reached: u16) {
        if let Some(query) = self.searches.remove(&search) {
            self.core.searched(env.now(), query, reached);
        }
    }

    /// Carries out the steps of the core's lookups.
    pub(super) fn pump(&mut self, env: &mut Environment) {
        let now = env.now();
        while let Some(step) = self.core.poll(now, env.endpoint.machine_mut()) {
            match step {
                LookupAction::Ask {
                    lookup,
                    query,
                    server,
                    addrs,
                    ask,
                } => {
                    if !self.has_room() {
                        self.core.responded(now, query, None, &Libp2p);
                        continue;
                    }
                    log::debug!("lookup {} asks {}", lookup.0, short(&server));
                    let id = self.name(Requester::Lookup(query));
                    env.net.request(server, &addrs, id, &ask.into());
                }
                LookupAction::Providers { query, key } => {
                    let search = env.net.providers(&key);
                    self.search_begun(now, query, search);
                }
                LookupAction::Search { query, role, peer } => {
                    let search = env.net.search(Kind::of(role), peer);
                    self.search_begun(now, query, search);
                }
                LookupAction::EndSearch { query } => {
                    for (search, _) in self.searches.extract_if(|_, of| *of == query) {
                        env.net.end_search(search);
                    }
                }
                LookupAction::Done { lookup } => self.tell(env, lookup),
            }
        }
    }

    /// `None`: this process takes no part in the DHT.
    fn search_begun(&mut self, now: Instant, query: QueryId, search: Option<SearchId>) {
        match search {
            Some(search) => _ = self.searches.insert(search, query),
            None => _ = self.core.searched(now, query, 0),
        }
    }

    /// When [`Lookups::pump`] has a step without an event.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let timeouts = [self.core.timeout(), self.listings.timeout()];
        timeouts.into_iter().flatten().min()
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self) -> impl Iterator<Item = TableStats> {
        let requests = TableStats {
            name: REQUESTS,
            used: self.requests.len(),
            capacity: MAX_REQUESTS,
            refused: self.refused,
            evicted: 0,
        };
        let classes = self.core.stats().into_iter();
        let classes = classes.filter(|class| class.capacity > 0);
        classes.chain([self.listings.stats(), requests])
    }

    /// The most requests that waited at once since the last call, with the name of their table.
    pub(super) fn take_peak(&mut self) -> (&'static str, usize) {
        let most = mem::replace(&mut self.most, self.requests.len());
        (REQUESTS, most)
    }

    /// Whether there is room for another request. If not, this is counted.
    fn has_room(&mut self) -> bool {
        let has_room = self.requests.len() < MAX_REQUESTS;
        self.refused += u64::from(!has_room);
        has_room
    }

    /// Names a request that is about to be sent, if there is room for it. If not, this is counted.
    pub(super) fn name_if_there_is_room(&mut self, requester: Requester) -> Option<OwnRequestId> {
        self.has_room().then(|| self.name(requester))
    }

    fn begin(&mut self, env: &mut Environment, reply: Reply, question: Question) {
        if reply.is_abandoned() {
            return;
        }
        if !self.has_room() {
            return reply.refuse_for_now(FULL);
        }
        match self.core.begin(env.now(), question, env.machine()) {
            Some(lookup) => {
                self.askers.insert(lookup, Asker::Operator(reply));
            }
            None => reply.refuse_for_now(FULL),
        }
    }

    fn name(&mut self, requester: Requester) -> OwnRequestId {
        self.next += 1;
        let id = OwnRequestId(self.next);
        self.requests.insert(id, requester);
        self.most = self.most.max(self.requests.len());
        id
    }

    fn tell(&mut self, env: &mut Environment, lookup: LookupId) {
        let Some((outcome, asker)) = self.core.outcome(lookup).zip(self.askers.remove(&lookup))
        else {
            return;
        };
        match asker {
            Asker::Peer(request) => env.net.respond(request, &outcome.response()),
            Asker::Watches(numbers) => {
                let indexers = outcome.indexers.iter();
                let indexers = indexers.map(|offer| (offer.peer, offer.addrs.clone()));
                let indexers: Vec<_> = indexers.collect();
                // A native knows all of them, and those that cannot be asked are silent anyway.
                let is_known = outcome.tally.answered > 0 || env.machine().role() == Role::Native;
                let extent = match is_known && !outcome.more {
                    false => Extent::Part,
                    true if outcome.is_complete => Extent::Whole,
                    true => Extent::Known,
                };
                let found = numbers.into_iter();
                let found = found.map(|number| (number, indexers.clone(), extent));
                self.servers.extend(found);
                let waiting = self.watches.clone();
                if !waiting.is_empty() && !self.look_for_watches(env) {
                    let none = waiting.into_iter();
                    let none = none.map(|number| (number, Vec::new(), Extent::Part));
                    self.servers.extend(none);
                }
            }
            Asker::Operator(reply) => {
                let mut answer = answer_of(&outcome, env.own_ms());
                if let CallAnswer::Indexers(list) = &mut answer {
                    add_granting(env, list);
                }
                reply.answer(answer);
            }
            #[cfg(feature = "dns")]
            Asker::Program(reply) => {
                // This fails only if no caller waits any more.
                let _ = reply.try_send(super::dns::known(&outcome, env.now(), env.own_ms()));
            }
        }
    }
}
