//! What waits for the core's lookups and what they wait for: operators and programs on one side,
//! requests and searches of the network on the other. Those of listings are here, too.
//!
//! Invariant: each request and search under way has one entry here, until it has ended. The core's
//! bounds are the bounds of these tables; but a request outlives its lookup if the operator leaves,
//! so that requests have a bound of their own.

mod answers;

use std::{collections::HashMap, mem};

use self::answers::{add_granting, answer_of};
use super::{
    decisions,
    environment::Environment,
    machines::{MAX_LISTINGS, MAX_LOOKUPS},
    request::{CallAnswer, Reply},
};
use crate::{
    net::{OwnRequestId, dht::SearchId, envelope::Libp2p},
    protocol::{
        Addrs, Name, PeerId, TableStats,
        codec::directory::Request,
        listing::Row,
        lookup::{FULL, LookupId, MAX_OPEN, Query, Question},
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
    #[cfg(feature = "dns")]
    Program(smol::channel::Sender<super::dns::Known>),
}

/// What waits for a server's response.
pub(super) enum Requester {
    Core(Query),
    /// Whether a server reaches this process: the driver has read the answer.
    DialBack,
}

/// The lookups under way, by their names in the core and on the network.
#[derive(Default)]
pub(super) struct Lookups {
    askers: HashMap<LookupId, Asker>,
    requests: HashMap<OwnRequestId, Requester>,
    /// The most requests that waited at once since [`Lookups::take_peak`].
    most: usize,
    searches: HashMap<SearchId, Query>,
    next: u64,
    /// Requests for which there was no room.
    refused: u64,
}

impl Lookups {
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
        if let Some(lookup) = env.endpoint.find_for_program(env.now(), question) {
            self.askers.insert(lookup, Asker::Program(reply));
        }
    }

    /// Gives up the lookups of operators that closed the connection before the answer.
    pub(super) fn give_up(&self, env: &mut Environment) {
        let now = env.now();
        for (lookup, asker) in &self.askers {
            if matches!(asker, Asker::Operator(reply) if reply.is_abandoned()) {
                env.endpoint.give_up(now, *lookup);
            }
        }
    }

    /// Sends a request of the core. If there is no room for it, it has failed.
    pub(super) fn ask(
        &mut self,
        env: &mut Environment,
        query: Query,
        (server, addrs): (PeerId, &Addrs),
        request: &Request,
    ) {
        // The few requests of the machine always have room.
        if !matches!(query, Query::Machine(_) | Query::Network(_)) && !self.has_room() {
            let (now, no_rows) = (env.now(), &mut |_, _: &Row<'_>| {});
            return env.endpoint.responded(now, query, None, &Libp2p, no_rows);
        }
        let id = self.name(Requester::Core(query));
        env.net.request(server, addrs, id, request);
    }

    /// Takes note that a request is answered, or has failed. Returns the core's name of it, if the
    /// core has asked.
    pub(super) fn answered(&mut self, id: OwnRequestId) -> Option<Query> {
        match self.requests.remove(&id)? {
            Requester::Core(query) => Some(query),
            Requester::DialBack => None,
        }
    }

    /// The core's name of a search that is under way.
    pub(super) fn search(&self, search: SearchId) -> Option<Query> {
        self.searches.get(&search).copied()
    }

    /// Takes note that a search has begun. `None`: this process takes no part in the DHT.
    pub(super) fn search_begun(
        &mut self,
        env: &mut Environment,
        query: Query,
        search: Option<SearchId>,
    ) {
        match search {
            Some(search) => _ = self.searches.insert(search, query),
            None => env.endpoint.searched(env.times(), query, 0),
        }
    }

    /// Ends a search of the core.
    pub(super) fn end_search(&mut self, env: &mut Environment, query: Query) {
        for (search, _) in self.searches.extract_if(|_, of| *of == query) {
            env.net.end_search(search);
        }
    }

    /// A search of the DHT has ended, in which so many servers have answered.
    pub(super) fn search_ended(&mut self, env: &mut Environment, search: SearchId, reached: u16) {
        if let Some(query) = self.searches.remove(&search) {
            decisions::told_of(&query, "the search has ended for");
            env.endpoint.searched(env.times(), query, reached);
        }
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self, env: &Environment) -> impl Iterator<Item = TableStats> + use<> {
        let requests = TableStats {
            name: REQUESTS,
            used: self.requests.len(),
            capacity: MAX_REQUESTS,
            refused: self.refused,
            evicted: 0,
        };
        let classes = env.endpoint.lookup_stats().into_iter();
        let classes = classes.filter(|class| class.capacity > 0);
        classes.chain([env.endpoint.listings().stats(), requests])
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
        match env.endpoint.find(env.now(), question) {
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

    /// Tells the outcome of a lookup to what waits for it.
    pub(super) fn tell(&mut self, env: &mut Environment, lookup: LookupId) {
        let outcome = env.endpoint.outcome(lookup);
        let Some((outcome, asker)) = outcome.zip(self.askers.remove(&lookup)) else {
            return;
        };
        match asker {
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
