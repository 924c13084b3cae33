//! Lookups: `find` and `indexers` of the operator, and finds by peer id of other peers.
//!
//! ```text
//!  by name      own directory ─▶ who we hold leases with, the natives ─▶ every indexer that the natives know
//!  by peer id   own directory ─▶ the same ─▶ the DHT, where we take part in it
//!  indexers     own live_indexers, or those of the natives
//! ```
//!
//! Names are not owned and not in the DHT: every indexer is asked, and every claimant is found.
//!
//! Natives are asked page after page for all the indexers that are alive, in the order of their ids.
//!
//! Bounds: [`MAX_LOOKUPS`] at once, [`MAX_TARGETS`] peers asked for each, [`MAX_PAGES`] pages of each native, [`MAX_OPEN`] of them at a time, [`LOOKUP_TIMEOUT`] in all.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use libp2p::Multiaddr;

use super::{
    context::Context,
    control::Reply,
    report::{addr_texts, text},
    status::{Found, FoundRecord, IndexerList, KnownIndexer},
};
use crate::{
    net::dht::SearchId,
    protocol::{
        Addrs, Cursor, Instant, MAX_LIST, Name, Offer, PeerId, Reach, Reason, RequestId, Role,
        TableStats, Want,
    },
    wire::{
        Kind,
        directory::{Request, Response},
        record::{OpenRecord, open_node},
    },
};

/// Lookups under way at once; one more is told to come back.
const MAX_LOOKUPS: usize = 32;
/// Of these, for other peers: the operator's always find room.
const MAX_FOR_PEERS: usize = 24;
/// Peers asked for one lookup; twice the live indexers of a native, by default.
const MAX_TARGETS: usize = 512;
/// Pages of indexers that one native is asked for, of 16 each.
const MAX_PAGES: usize = MAX_TARGETS / MAX_LIST;
/// Answers waited for at a time in one lookup.
const MAX_OPEN: usize = 8;
/// Time for one lookup; what was found by then is the answer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for one that another peer asked for: less, or its answer would come when nobody waits for it any more.
const PEER_LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// Whose directory request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The core's.
    ByCore,
    /// A lookup's.
    ByLookup(u64),
}

enum Asker {
    Operator(Reply),
    Peer(RequestId),
}

enum Question {
    Indexers,
    Name(String, Name),
    Peer(PeerId),
}

struct Hit {
    record: OpenRecord,
    envelope: Vec<u8>,
    source: &'static str,
}

struct Lookup {
    id: u64,
    asker: Asker,
    question: Question,
    deadline: Instant,
    open: usize,
    asked: Vec<PeerId>,
    to_ask: VecDeque<(PeerId, Addrs, Role)>,
    /// For each native that has more pages: after which id it goes on, and how many it was asked for.
    pages: HashMap<PeerId, (PeerId, usize)>,
    hits: Vec<Hit>,
    indexers: Vec<Offer>,
}

/// All lookups under way.
#[derive(Default)]
pub(super) struct Lookups {
    all: Vec<Lookup>,
    requests: HashMap<RequestId, (PeerId, Role, Asked)>,
    searches: HashMap<SearchId, u64>,
    next: u64,
    refused: u64,
}

impl Lookups {
    /// The operator asks which indexers there are.
    pub(super) fn indexers(&mut self, cx: &mut Context, reply: Reply) {
        self.begin(cx, Asker::Operator(reply), Question::Indexers);
    }

    /// The operator looks for a name or a peer id.
    pub(super) fn find(&mut self, cx: &mut Context, what: &str, reply: Reply) {
        let peer = what
            .parse()
            .ok()
            .and_then(|peer: libp2p::PeerId| PeerId::try_from(peer).ok());
        // Names are in lower case.
        let lower = what.to_ascii_lowercase();
        let question = match (peer, Name::try_from(lower.as_str())) {
            (Some(peer), _) => Question::Peer(peer),
            (None, Ok(name)) => Question::Name(lower, name),
            (None, Err(_)) => {
                return reply.refuse("a name has at most 63 bytes, and this is no peer id");
            }
        };
        self.begin(cx, Asker::Operator(reply), question);
    }

    /// Another peer looks for a node by its id.
    pub(super) fn find_for(&mut self, cx: &mut Context, request: RequestId, peer: PeerId) {
        self.begin(cx, Asker::Peer(request), Question::Peer(peer));
    }

    /// Makes a directory request; `addrs` if the core does not know where the server listens.
    pub(super) fn request(
        &mut self,
        cx: &mut Context,
        server: PeerId,
        addrs: Option<&Addrs>,
        request: &Request,
        asked: Asked,
    ) {
        self.next += 1;
        let id = RequestId(self.next);
        let role = if cx.net.is_native(&server) {
            Role::Native
        } else {
            Role::Indexer
        };
        self.requests.insert(id, (server, role, asked));
        let known = cx
            .machine
            .addrs_of(&server)
            .or(addrs)
            .cloned()
            .unwrap_or_default();
        cx.net.request(server, &known, id, request);
    }

    /// A request was answered, or not. Given back with its server if it is the core's.
    pub(super) fn answered(
        &mut self,
        cx: &mut Context,
        id: RequestId,
        response: Result<Response, String>,
    ) -> Option<(PeerId, Result<Response, String>)> {
        let (server, role, asked) = self.requests.remove(&id)?;
        let Asked::ByLookup(lookup) = asked else {
            return Some((server, response));
        };
        if let Some(lookup) = self.all.iter_mut().find(|open| open.id == lookup) {
            lookup.open -= 1;
            match response {
                Ok(Response::Records { records, .. }) => {
                    let source = if role == Role::Native {
                        "native"
                    } else {
                        "indexer"
                    };
                    records
                        .into_iter()
                        .for_each(|envelope| lookup.hit(envelope, source));
                }
                Ok(Response::Indexers(answer)) => lookup.learn(&answer.offers),
                Ok(Response::Page(page)) => {
                    lookup.learn(&page.offers);
                    lookup.turn_page(server, page.next);
                }
                Ok(Response::Error(_)) | Err(_) => {}
            }
        }
        self.advance(cx);
        None
    }

    /// A search of the DHT found a record.
    pub(super) fn found(
        &mut self,
        cx: &Context,
        search: SearchId,
        record: OpenRecord,
        envelope: Vec<u8>,
    ) {
        if let Some(id) = self.searches.get(&search)
            && let Some(lookup) = self.all.iter_mut().find(|open| open.id == *id)
            && record.info.is_valid_copy(cx.own_ms())
        {
            lookup.add(Hit {
                record,
                envelope,
                source: "dht",
            });
        }
    }

    /// A search of the DHT has ended.
    pub(super) fn search_ended(&mut self, cx: &mut Context, search: SearchId) {
        if let Some(id) = self.searches.remove(&search)
            && let Some(lookup) = self.all.iter_mut().find(|open| open.id == id)
        {
            lookup.open -= 1;
        }
        self.advance(cx);
    }

    /// Answers the lookups whose time is over with what was found.
    pub(super) fn expire(&mut self, cx: &mut Context) {
        if self.timeout().is_some_and(|at| at <= cx.now()) {
            self.advance(cx);
        }
    }

    /// When the next lookup's time is over.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.all.iter().map(|lookup| lookup.deadline).min()
    }

    /// What the operator sees.
    pub(super) fn stats(&self) -> TableStats {
        TableStats {
            name: "lookups",
            used: self.all.len(),
            capacity: MAX_LOOKUPS,
            refused: self.refused,
            evicted: 0,
        }
    }

    fn begin(&mut self, cx: &mut Context, asker: Asker, question: Question) {
        let for_peers = self
            .all
            .iter()
            .filter(|open| matches!(open.asker, Asker::Peer(_)));
        let full = match asker {
            Asker::Operator(_) => self.all.len() >= MAX_LOOKUPS,
            Asker::Peer(_) => for_peers.count() >= MAX_FOR_PEERS,
        };
        if full {
            self.refused += 1;
            return match asker {
                Asker::Operator(reply) => {
                    reply.refuse("too many lookups at once: try again in a moment")
                }
                Asker::Peer(request) => {
                    let why = Reason::try_from("too many lookups at once: try again in a moment")
                        .unwrap_or_default();
                    cx.net.respond(request, Response::Error(why));
                }
            };
        }
        let limit = match asker {
            Asker::Operator(_) => LOOKUP_TIMEOUT,
            Asker::Peer(_) => PEER_LOOKUP_TIMEOUT,
        };
        self.next += 1;
        let mut lookup = Lookup {
            id: self.next,
            asker,
            question,
            deadline: cx.now() + limit,
            open: 0,
            asked: vec![cx.own],
            to_ask: VecDeque::new(),
            pages: HashMap::new(),
            hits: Vec::new(),
            indexers: Vec::new(),
        };
        lookup.look_here(cx);
        // Whom a peer looks for and who holds a lease here is found: nothing in the DHT is newer.
        let found = matches!(lookup.asker, Asker::Peer(_)) && !lookup.hits.is_empty();
        if let Question::Peer(peer) = lookup.question
            && !found
        {
            for kind in [Kind::Node, Kind::Indexer] {
                // Only node records can be told to another peer.
                if kind == Kind::Indexer && matches!(lookup.asker, Asker::Peer(_)) {
                    continue;
                }
                if let Some(search) = cx.net.search(kind, peer) {
                    self.searches.insert(search, lookup.id);
                    lookup.open += 1;
                }
            }
        }
        self.all.push(lookup);
        self.advance(cx);
    }

    /// Asks on where there is room, and answers what has come to its end.
    fn advance(&mut self, cx: &mut Context) {
        let now = cx.now();
        let mut at = 0;
        while let Some(lookup) = self.all.get_mut(at) {
            if lookup.open < MAX_OPEN
                && let Some((server, addrs, role)) = lookup.to_ask.pop_front()
            {
                lookup.open += 1;
                let (request, asked) = (lookup.request(&server, role), Asked::ByLookup(lookup.id));
                self.request(cx, server, Some(&addrs), &request, asked);
            } else if lookup.open == 0 || lookup.deadline <= now {
                let lookup = self.all.swap_remove(at);
                for (search, _) in self.searches.extract_if(|_, of| *of == lookup.id) {
                    cx.net.end_search(search);
                }
                lookup.answer(cx);
            } else {
                at += 1;
            }
        }
    }
}

impl Lookup {
    /// What is known here, and whom to ask.
    fn look_here(&mut self, cx: &mut Context) {
        let peers = cx.peers();
        match &self.question {
            Question::Indexers => {}
            Question::Name(_, name) => {
                let envelopes: Vec<_> = cx
                    .machine
                    .claimants(name)
                    .0
                    .iter()
                    .map(|e| e.envelope().to_vec())
                    .collect();
                envelopes
                    .into_iter()
                    .for_each(|envelope| self.hit(envelope, "local"));
            }
            Question::Peer(peer) => {
                if let Some(entry) = cx.machine.listed(peer) {
                    self.hit(entry.envelope().to_vec(), "local");
                }
            }
        }
        self.learn(&peers.live);
        // Who is asked by a peer asks nobody but the DHT: questions do not travel on.
        if matches!(self.asker, Asker::Peer(_)) {
            self.to_ask.clear();
            return;
        }
        let is_native = cx.machine.role() == Role::Native;
        for native in cx.net.natives().into_iter().filter(|_| !is_native) {
            self.ask_also(native, Addrs::new(), Role::Native);
            if !matches!(self.question, Question::Indexers) {
                // Once for what it knows itself, once for the indexers that it knows.
                self.to_ask.push_back((native, Addrs::new(), Role::Indexer));
            }
        }
        if !matches!(self.question, Question::Indexers) {
            for (server, addrs, role) in peers.servers {
                if role == Role::Indexer {
                    self.ask_also(server, addrs, role);
                }
            }
        }
    }

    /// The question as this server can answer it: natives are asked for indexers, indexers for what is looked for.
    fn request(&self, server: &PeerId, role: Role) -> Request {
        match (&self.question, role) {
            (Question::Indexers, _) | (_, Role::Native) => Request::Indexers {
                most: MAX_LIST as u8,
                want: Want::Nothing,
                from: Some(
                    self.pages
                        .get(server)
                        .map_or(Cursor::Start, |(after, _)| Cursor::After(*after)),
                ),
            },
            (Question::Name(_, name), _) => Request::FindName {
                name: name.clone(),
                reach: Reach::Network,
            },
            (Question::Peer(peer), _) => Request::FindPeer {
                peer: *peer,
                reach: Reach::Network,
            },
        }
    }

    /// The native is asked for its next page, before anybody else is asked. Ids only grow, so that its pages come to an end.
    fn turn_page(&mut self, native: PeerId, next: Option<PeerId>) {
        let (before, count) = match self.pages.get(&native) {
            Some((after, count)) => (Some(*after), *count),
            None => (None, 1),
        };
        if let Some(next) = next
            && Some(next) > before
            && count < MAX_PAGES
        {
            self.pages.insert(native, (next, count + 1));
            self.to_ask.push_front((native, Addrs::new(), Role::Native));
        }
    }

    fn ask_also(&mut self, server: PeerId, addrs: Addrs, role: Role) {
        if self.asked.len() < MAX_TARGETS && !self.asked.contains(&server) {
            self.asked.push(server);
            self.to_ask.push_back((server, addrs, role));
        }
    }

    fn learn<'a>(&mut self, offers: impl IntoIterator<Item = &'a Offer>) {
        for offer in offers {
            if !matches!(self.question, Question::Indexers) {
                self.ask_also(offer.peer, offer.addrs.clone(), Role::Indexer);
            }
            match self
                .indexers
                .iter_mut()
                .find(|known| known.peer == offer.peer)
            {
                Some(known) if known.ttl < offer.ttl => *known = offer.clone(),
                Some(_) => {}
                None => self.indexers.push(offer.clone()),
            }
        }
    }

    fn hit(&mut self, envelope: Vec<u8>, source: &'static str) {
        if let Ok(record) = open_node(&envelope) {
            self.add(Hit {
                record,
                envelope,
                source,
            });
        }
    }

    fn add(&mut self, hit: Hit) {
        let answers = match &self.question {
            Question::Indexers => false,
            Question::Name(_, name) => hit.record.info.name == *name,
            Question::Peer(peer) => hit.record.info.peer == *peer,
        };
        let known = self
            .hits
            .iter_mut()
            .find(|known| known.record.info.peer == hit.record.info.peer);
        match known {
            _ if !answers => {}
            Some(known) if known.record.info.rank() < hit.record.info.rank() => *known = hit,
            Some(_) => {}
            None => self.hits.push(hit),
        }
    }

    fn answer(mut self, cx: &mut Context) {
        self.hits
            .sort_by_key(|hit| std::cmp::Reverse(hit.record.info.rank()));
        match self.asker {
            Asker::Peer(request) => {
                let more = self.hits.len() > MAX_LIST;
                let records = self
                    .hits
                    .into_iter()
                    .take(MAX_LIST)
                    .map(|hit| hit.envelope)
                    .collect();
                cx.net.respond(
                    request,
                    Response::Records {
                        records,
                        more,
                        tally: None,
                    },
                );
            }
            Asker::Operator(reply) => reply.answer(match &self.question {
                Question::Indexers => miniserde::json::to_string(&IndexerList {
                    indexers: self.indexers.iter().map(known_indexer).collect(),
                }),
                Question::Name(name, _) => miniserde::json::to_string(&Found {
                    query: name.clone(),
                    records: found_records(&self.hits, cx.own_ms()),
                }),
                Question::Peer(peer) => {
                    let mut records = found_records(&self.hits, cx.own_ms());
                    if records.is_empty() {
                        let offers = self.indexers.iter().filter(|offer| offer.peer == *peer);
                        records.extend(offers.map(found_offer));
                    }
                    miniserde::json::to_string(&Found {
                        query: text(peer),
                        records,
                    })
                }
            }),
        }
    }
}

fn found_records(hits: &[Hit], own_ms: u64) -> Vec<FoundRecord> {
    let found = |hit: &Hit| FoundRecord {
        peer_id: text(&hit.record.info.peer),
        name: hit.record.info.name.as_str().into(),
        addrs: hit.record.addrs.iter().map(Multiaddr::to_string).collect(),
        tags: hit.record.tags.iter().cloned().collect(),
        expires_in_ms: hit.record.info.expires_at_ms().saturating_sub(own_ms),
        source: hit.source.into(),
    };
    hits.iter().map(found).collect()
}

/// An indexer has no record that travels in the directory; what the natives say of it is the answer.
fn found_offer(offer: &Offer) -> FoundRecord {
    FoundRecord {
        peer_id: text(&offer.peer),
        name: String::new(),
        addrs: addr_texts(&offer.addrs),
        tags: Default::default(),
        expires_in_ms: offer.ttl.as_millis() as u64,
        source: "native".into(),
    }
}

fn known_indexer(offer: &Offer) -> KnownIndexer {
    KnownIndexer {
        peer_id: text(&offer.peer),
        addrs: addr_texts(&offer.addrs),
        expires_in_ms: offer.ttl.as_millis() as u64,
        free_leases: offer.free.map(u64::from),
    }
}
