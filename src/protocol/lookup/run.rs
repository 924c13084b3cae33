//! One lookup, from its question to its outcome.

mod answers;
mod turns;

use heapless::Vec;

use super::{
    Answer, FoundRecord, Here, KnownServer, LookupAction, LookupId, MAX_OPEN, OPERATOR_LIMIT,
    Outcome, PEER_LIMIT, Place, QueryId, Question, RecordCopy,
    records::Records,
    servers::{Server, Servers},
};
use crate::protocol::{
    Addrs, Cursor, Instant, Offer, PeerId, Reach, Role, Tally, capacities::MAX_NATIVES,
    directory::Claimants, leases::MAX_HELD,
};

/// Searches of the DHT in one lookup: for a node's record and for an indexer's.
const MAX_SEARCHES: usize = 2;

/// A lookup that asks at most `S` servers, of which `Q` may wait for their turn, and that keeps at
/// most `R` records and `O` indexers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lookup<const S: usize, const Q: usize, const R: usize, const O: usize> {
    phase: Phase,
    id: LookupId,
    question: Question,
    deadline: Instant,
    own: PeerId,
    servers: Servers<S>,
    /// Indexers that grant our leases and were not asked yet.
    own_indexers: Vec<PeerId, MAX_HELD>,
    /// One of them has answered, so the others are asked only for their own directories.
    has_own_answer: bool,
    /// When the next of them is asked even if the last one has not answered.
    patience_until: Instant,
    /// Natives that have pages of indexers left.
    natives: Vec<Pages, MAX_NATIVES>,
    /// The next page of the own `live_indexers`. A list of one element, because `None` would not be
    /// all zeroes.
    own_page: Vec<Cursor, 1>,
    queue: Vec<Waiting, Q>,
    /// Searches of the DHT that must begin, by the role of the record's subject.
    searches: Vec<Role, MAX_SEARCHES>,
    open: Vec<Open, { MAX_OPEN + MAX_SEARCHES }>,
    records: Records<R>,
    indexers: Vec<Offer, O>,
    /// Something was left out.
    is_cut: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Free,
    Running,
    /// The outcome can be read until the next poll.
    Done,
}

/// A native whose pages of indexers are read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pages {
    native: PeerId,
    from: Cursor,
    count: usize,
    is_open: bool,
}

/// A server that waits for its turn.
#[derive(Clone, Debug, PartialEq)]
struct Waiting {
    server: PeerId,
    addrs: Addrs,
    errand: Errand,
}

/// A query that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    query: QueryId,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Server(PeerId, Errand),
    Dht,
}

/// The purpose of a query to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    /// An indexer that grants our lease: it also asks others.
    OwnIndexer,
    /// An indexer: its own directory.
    Indexer,
    /// A native of ours: it also asks others.
    Native,
    /// A fellow of this native: its own directory.
    Fellow,
    /// A native: a page of indexers.
    Page,
}

impl<const S: usize, const Q: usize, const R: usize, const O: usize> Lookup<S, Q, R, O> {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Free,
            id: LookupId(0),
            question: Question::Indexers,
            deadline: Instant::from_millis(0),
            own: PeerId::from_bytes([0; 32]),
            servers: Servers::new(),
            own_indexers: Vec::new(),
            has_own_answer: false,
            patience_until: Instant::from_millis(0),
            natives: Vec::new(),
            own_page: Vec::new(),
            queue: Vec::new(),
            searches: Vec::new(),
            open: Vec::new(),
            records: Records::new(),
            indexers: Vec::new(),
            is_cut: false,
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.phase == Phase::Free
    }

    /// Takes the slot for a new lookup. Its parts are emptied in place, because they are large.
    pub(super) fn take(&mut self, id: LookupId) {
        self.phase = Phase::Running;
        self.id = id;
        self.servers.clear();
        self.own_indexers.clear();
        self.has_own_answer = false;
        self.natives.clear();
        self.own_page.clear();
        self.queue.clear();
        self.searches.clear();
        self.open.clear();
        self.records.clear();
        self.indexers.clear();
        self.is_cut = false;
    }

    /// Begins a lookup of the operator, in which all known servers are asked.
    pub(super) fn begin_for_operator<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        own: PeerId,
        question: Question,
        here: &H,
    ) {
        self.begin(now + OPERATOR_LIMIT, own, question, here);
        let (role, lists) = (here.role(), self.question == Question::Indexers);
        here.servers(now, &mut |server| match (role, server.role) {
            (Role::Native, Role::Native) if lists => {}
            (Role::Native, Role::Native) => self.ask(server.peer, Errand::Fellow),
            (_, Role::Native) => self.read_pages(server.peer, !lists),
            (_, Role::Indexer) if server.is_held && !lists => self.ask_own_indexer(server.peer),
            _ => {}
        });
        if role == Role::Native {
            // There is room, because the slot is new.
            let _ = self.own_page.push(Cursor::Start);
        } else {
            // Servers that are known but not asked are no answer.
            self.is_cut |= self.is_settled();
        }
        if let (Question::Peer(_), Role::Native | Role::Indexer) = (&self.question, role) {
            self.searches.extend([Role::Indexer, Role::Node]);
        }
    }

    /// Begins a lookup of a peer, whose answer needs other holders (PROTOCOL.md, section 4).
    pub(super) fn begin_for_peer<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        own: PeerId,
        question: Question,
        here: &H,
    ) {
        self.begin(now + PEER_LIMIT, own, question, here);
        if here.role() == Role::Native {
            here.servers(now, &mut |KnownServer {
                                        peer,
                                        role,
                                        is_held,
                                    }| {
                match role {
                    Role::Native if is_held => self.ask(peer, Errand::Fellow),
                    // It does not answer heartbeats, so the lookup does not wait for it.
                    Role::Native => self.count_as_silent(peer),
                    Role::Indexer | Role::Node => {}
                }
            });
        }
        if let Question::Peer(_) = self.question {
            // Only node records can be passed to another peer.
            self.searches.extend([Role::Node]);
        }
    }

    /// Ends the time of the lookup, because its outcome is no longer awaited.
    pub(super) fn give_up(&mut self, now: Instant, id: LookupId) {
        if self.id == id {
            self.deadline = now;
        }
    }

    /// Takes a server's answer. Returns whether the query is an open one of this lookup.
    pub(super) fn answered(&mut self, now: Instant, query: QueryId, answer: Answer<'_>) -> bool {
        let is_it = |open: &Open| open.query == query && open.target != Target::Dht;
        let Some(at) = self.position(is_it) else {
            return false;
        };
        if now > self.deadline {
            return true;
        }
        let Target::Server(server, errand) = self.open.swap_remove(at).target else {
            return true;
        };
        match (errand, answer) {
            (Errand::Page, Answer::Indexers { offers, next }) => {
                self.servers.answered(&server);
                self.learn(offers);
                self.turn_page(&server, next);
            }
            (
                Errand::OwnIndexer | Errand::Indexer | Errand::Native | Errand::Fellow,
                Answer::Records {
                    records,
                    more,
                    tally,
                },
            ) => {
                self.servers.answered(&server);
                self.has_own_answer |= errand == Errand::OwnIndexer;
                if tally.is_some_and(|Tally { asked, answered }| answered < asked) {
                    self.servers.lacks(&server);
                }
                for copy in records {
                    self.add(*copy, errand.place());
                }
                if more {
                    self.records.there_are_more();
                }
            }
            (_, answer) => {
                if !matches!(answer, Answer::Failed) {
                    self.servers.refused(&server);
                }
                if errand == Errand::Page {
                    self.natives.retain(|pages| pages.native != server);
                }
            }
        }
        true
    }

    /// Takes a record from the DHT. Returns whether the search is one of this lookup.
    pub(super) fn found(
        &mut self,
        now: Instant,
        own_ms: u64,
        query: QueryId,
        copy: RecordCopy<'_>,
    ) -> bool {
        let is_ours = self.open_search(query).is_some();
        if is_ours && now <= self.deadline && copy.info.is_valid_copy(own_ms) {
            self.add(copy, Place::Dht);
        }
        is_ours
    }

    /// Takes note that a search is over. Returns whether it was an open one of this lookup.
    pub(super) fn searched(&mut self, now: Instant, query: QueryId) -> bool {
        let Some(at) = self.open_search(query) else {
            return false;
        };
        if now <= self.deadline {
            self.open.swap_remove(at);
        }
        true
    }

    /// The next step at `now`.
    pub(super) fn poll<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        here: &mut H,
        next: &mut u64,
    ) -> Option<LookupAction> {
        match self.phase {
            Phase::Free => return None,
            Phase::Done => {
                self.phase = Phase::Free;
                return None;
            }
            Phase::Running if now >= self.deadline => return Some(self.cut_off()),
            Phase::Running => {}
        }
        self.read_own_pages(now, here);
        if let Some(step) = self.next_search(next) {
            return Some(step);
        }
        if let Some(turn) = self.next_turn(now) {
            return Some(self.put(turn, here, next));
        }
        if self.is_settled() {
            self.phase = Phase::Done;
            return Some(LookupAction::Done { lookup: self.id });
        }
        None
    }

    /// When there is a step without an event.
    pub(super) fn timeout(&self) -> Option<Instant> {
        if self.phase != Phase::Running {
            return None;
        }
        let waits = !self.own_indexers.is_empty() && !self.has_own_answer;
        match waits && self.has_a_turn() {
            true => Some(self.deadline.min(self.patience_until)),
            false => Some(self.deadline),
        }
    }

    /// The outcome, if this is the lookup `id` and it is over.
    pub(super) fn outcome(&self, id: LookupId) -> Option<Outcome<'_>> {
        if self.phase != Phase::Done || self.id != id {
            return None;
        }
        let (tally, more) = (self.servers.tally(), self.records.more());
        let servers = self.servers.as_slice();
        let is_partial = servers.iter().any(Server::is_partial);
        Some(Outcome {
            question: &self.question,
            records: self.records.as_slice(),
            indexers: &self.indexers,
            more,
            tally,
            is_complete: !self.is_cut && !more && !is_partial && tally.answered == tally.asked,
            servers,
        })
    }

    fn begin<H: Here + ?Sized>(
        &mut self,
        deadline: Instant,
        own: PeerId,
        question: Question,
        here: &H,
    ) {
        (self.deadline, self.own, self.question) = (deadline, own, question);
        match &self.question {
            Question::Indexers => {}
            Question::Name(name) => {
                let Claimants { nodes, more, .. } = here.claimants(name);
                nodes
                    .iter()
                    .filter_map(FoundRecord::here)
                    .for_each(|record| self.records.add(record));
                if more {
                    self.records.there_are_more();
                }
            }
            Question::Peer(peer) => {
                let listed = here.listed(peer);
                if let Some(record) = listed.as_ref().and_then(FoundRecord::here) {
                    self.records.add(record);
                }
            }
        }
    }

    /// Whether every server has been asked, and the lookup waits for nothing.
    fn is_settled(&self) -> bool {
        self.open.is_empty()
            && self.queue.is_empty()
            && self.own_indexers.is_empty()
            && self.natives.is_empty()
            && self.own_page.is_empty()
            && self.searches.is_empty()
    }

    /// Ends the searches and then the lookup, because its time is over.
    fn cut_off(&mut self) -> LookupAction {
        self.is_cut |= !self.is_settled();
        if let Some(at) = self.position(|open| open.target == Target::Dht) {
            let query = self.open.swap_remove(at).query;
            return LookupAction::EndSearch { query };
        }
        self.phase = Phase::Done;
        LookupAction::Done { lookup: self.id }
    }

    /// The search of the DHT with this name, if it is under way.
    fn open_search(&self, query: QueryId) -> Option<usize> {
        self.position(|open| open.query == query && open.target == Target::Dht)
    }

    fn position(&self, is_it: impl Fn(&Open) -> bool) -> Option<usize> {
        match self.phase {
            Phase::Running => self.open.iter().position(is_it),
            Phase::Free | Phase::Done => None,
        }
    }
}

impl Errand {
    fn reach(self) -> Reach {
        match self {
            Self::OwnIndexer | Self::Native => Reach::Network,
            Self::Indexer | Self::Fellow | Self::Page => Reach::Directory,
        }
    }

    fn place(self) -> Place {
        match self {
            Self::OwnIndexer | Self::Indexer => Place::Indexer,
            Self::Native | Self::Fellow | Self::Page => Place::Native,
        }
    }
}
