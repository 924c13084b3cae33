//! One lookup, from its question to its outcome.
//!
//! Invariants: a stage begins when the one before has nothing left to do, and none is repeated;
//! each server is asked in turn and in bounds ([`super`]); a free slot is not written to.

mod answers;
mod holders;
mod stages;
mod turns;

use core::time::Duration;

use heapless::Vec;

use super::{
    Answer, FoundRecord, Here, LookupAction, LookupId, MAX_HOLDERS, MAX_OPEN, OPERATOR_LIMIT,
    OPERATOR_PATIENCE, Outcome, PEER_LIMIT, PEER_PATIENCE, Place, QueryId, Question, RecordCopy,
    records::{Records, Tier},
    servers::{Server, Servers},
};
use crate::protocol::{
    Addrs, Cursor, Filter, Instant, Name, Offer, PeerId, Reach, Role, capacities::MAX_NATIVES,
    directory::Claimants, leases::MAX_HELD,
};

/// Searches of the DHT in one lookup: for a node's record and for an indexer's.
const MAX_SEARCHES: usize = 2;
/// Queries of one lookup that have no answer yet: also those that are no longer waited for.
const MAX_QUERIES: usize = MAX_HOLDERS + MAX_OPEN + MAX_SEARCHES;

/// A lookup that asks at most `S` servers, of which `Q` may wait for their turn, and that keeps at
/// most `R` records and `O` indexers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lookup<const S: usize, const Q: usize, const R: usize, const O: usize> {
    phase: Phase,
    stage: Stage,
    id: LookupId,
    question: Question,
    is_for_peer: bool,
    /// The time of the latest poll.
    polled: Instant,
    deadline: Instant,
    /// How long a server is waited for, if there is something else to do or to tell.
    patience: Duration,
    own: PeerId,
    servers: Servers<S>,
    /// Servers that this process holds leases with, and configured natives.
    vouchers: Vec<PeerId, { MAX_HELD + MAX_NATIVES }>,
    /// Indexers that grant leases to this process and were not asked yet.
    own_indexers: Vec<PeerId, MAX_HELD>,
    /// Natives that were not asked yet.
    natives: Vec<PeerId, MAX_NATIVES>,
    /// No server has to ask others for this process: one has done so, or this process does it
    /// itself.
    has_asked_around: bool,
    /// When the next server is asked to ask others even if the last one has not answered.
    next_at: Instant,
    /// A native that has answered. Like the next list it has one element at most, because `None`
    /// would not be all zeroes.
    lister: Vec<PeerId, 1>,
    /// Natives that have pages of indexers left.
    pages: Vec<Pages, MAX_NATIVES>,
    /// The next page of the own `live_indexers`.
    own_page: Vec<Cursor, 1>,
    queue: Vec<Waiting, Q>,
    /// Searches of the DHT that must begin.
    searches: Vec<Search, MAX_SEARCHES>,
    open: Vec<Open, MAX_QUERIES>,
    progress: Progress,
    /// A search of the DHT has reached no server, although there is one.
    is_unreached: bool,
    /// A peer that an earlier find of the name has returned.
    remembered: Vec<PeerId, 1>,
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

/// What a lookup has done so far. Each stage begins when the one before has nothing left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It asks its first servers, and the DHT.
    First,
    /// It asks the natives for what they list themselves.
    Natives,
    /// It asks for a page of indexers, and then those.
    Pages,
}

/// How far a search for providers is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// Servers of the DHT that have answered.
    reached: u16,
    /// Providers that were asked because of it.
    holders: u8,
    /// Servers that named providers, since the last new one was named.
    agreed: u8,
    /// There are more providers than were named or asked.
    more: bool,
}

/// A native, and the progress in its pages of indexers.
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
    since: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Server(PeerId, Errand),
    Dht(Search),
}

/// A search of the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// For the providers of the name or service.
    Providers,
    /// For the peer's record in this role.
    Record(Role),
}

/// The purpose of a query to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    /// An indexer that grants a lease to this process: it also asks others.
    OwnIndexer,
    /// An indexer, or a provider that the DHT has named: its own directory.
    Indexer,
    /// A native of this process: it also asks others.
    Native,
    /// A native, or a fellow of this native: its own directory.
    Fellow,
    /// A native: a page of indexers.
    Page,
}

impl<const S: usize, const Q: usize, const R: usize, const O: usize> Lookup<S, Q, R, O> {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Free,
            stage: Stage::First,
            id: LookupId(0),
            question: Question::Indexers,
            is_for_peer: false,
            polled: Instant::from_millis(0),
            deadline: Instant::from_millis(0),
            patience: Duration::ZERO,
            own: PeerId::from_bytes([0; 32]),
            servers: Servers::new(),
            vouchers: Vec::new(),
            own_indexers: Vec::new(),
            natives: Vec::new(),
            has_asked_around: false,
            next_at: Instant::from_millis(0),
            lister: Vec::new(),
            pages: Vec::new(),
            own_page: Vec::new(),
            queue: Vec::new(),
            searches: Vec::new(),
            open: Vec::new(),
            progress: Progress {
                reached: 0,
                holders: 0,
                agreed: 0,
                more: false,
            },
            is_unreached: false,
            remembered: Vec::new(),
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
        (self.phase, self.stage) = (Phase::Running, Stage::First);
        self.id = id;
        self.servers.clear();
        self.vouchers.clear();
        self.own_indexers.clear();
        self.natives.clear();
        self.has_asked_around = false;
        self.lister.clear();
        self.pages.clear();
        self.own_page.clear();
        self.queue.clear();
        self.searches.clear();
        self.open.clear();
        self.progress = Progress::default();
        self.is_unreached = false;
        self.remembered.clear();
        self.records.clear();
        self.indexers.clear();
        self.is_cut = false;
    }

    /// Gives the peer that an earlier find has returned, before the lookup begins.
    pub(super) fn remember(&mut self, peer: Option<PeerId>) {
        self.remembered.extend(peer);
    }

    /// Begins a lookup of the operator.
    pub(super) fn begin_for_operator<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        own: PeerId,
        question: Question,
        here: &H,
    ) {
        (self.is_for_peer, self.patience) = (false, OPERATOR_PATIENCE);
        self.deadline = now + OPERATOR_LIMIT;
        self.begin(now, own, question, here);
        let (role, lists) = (here.role(), self.question == Question::Indexers);
        // A node asks another server to ask around, unless it has to ask all itself.
        let asks_all = matches!(self.question, Question::Service(_));
        self.has_asked_around = role != Role::Node || asks_all;
        here.servers(now, &mut |server| match (role, server.role) {
            (Role::Native, Role::Native) if lists => {}
            (Role::Native, Role::Native) => self.ask(server.peer, Errand::Fellow),
            (_, Role::Native) if lists => self.read_pages(server.peer),
            (Role::Node, Role::Native) if asks_all => {
                self.ask(server.peer, Errand::Fellow);
                self.read_pages(server.peer);
            }
            (_, Role::Native) => self.is_cut |= self.natives.push(server.peer).is_err(),
            (Role::Node, Role::Indexer) if server.is_held && asks_all => {
                self.ask(server.peer, Errand::Indexer);
            }
            (Role::Node, Role::Indexer) if server.is_held && !lists => {
                self.is_cut |= self.own_indexers.push(server.peer).is_err();
            }
            _ => {}
        });
        match role {
            // There is room, because the slot is new.
            Role::Native if lists => _ = self.own_page.push(Cursor::Start),
            Role::Native => {}
            // An answer is not complete while known servers are left out.
            Role::Indexer | Role::Node => self.is_cut |= self.knows_none(),
        }
        if role != Role::Node {
            self.search([Search::Record(Role::Indexer), Search::Record(Role::Node)]);
        }
    }

    /// Begins a lookup of a peer that this process cannot answer without other holders
    /// (PROTOCOL.md, section 4).
    pub(super) fn begin_for_peer<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        own: PeerId,
        question: Question,
        here: &H,
    ) {
        (self.is_for_peer, self.patience) = (true, PEER_PATIENCE);
        self.deadline = now + PEER_LIMIT;
        self.begin(now, own, question, here);
        self.has_asked_around = true;
        let role = here.role();
        here.servers(now, &mut |server| match (role, server.role) {
            (Role::Native, Role::Native) if server.is_held => self.ask(server.peer, Errand::Fellow),
            // It does not answer heartbeats, so the lookup does not wait for it.
            (Role::Native, Role::Native) => self.count_as_silent(server.peer),
            (Role::Indexer, Role::Native) if server.is_held => {
                self.is_cut |= self.natives.push(server.peer).is_err();
            }
            _ => {}
        });
        // Only node records can be passed to another peer.
        self.search([Search::Record(Role::Node)]);
    }

    /// Ends the time of the lookup, because its outcome is no longer awaited.
    pub(super) fn give_up(&mut self, now: Instant, id: LookupId) {
        if self.id == id {
            self.deadline = now;
        }
    }

    /// Takes a server's answer. Returns whether the query is an open one of this lookup.
    pub(super) fn answered(&mut self, now: Instant, query: QueryId, answer: Answer<'_>) -> bool {
        let is_it = |open: &Open| open.query == query && !open.is_search();
        let Some(at) = self.position(is_it) else {
            return false;
        };
        if now > self.deadline {
            return true;
        }
        let Target::Server(server, errand) = self.open.swap_remove(at).target else {
            return true;
        };
        match (errand, self.own_kind_of(answer)) {
            (Errand::Page, Answer::Indexers { offers, next }) => {
                self.servers.answered(&server);
                self.take_page(&server, offers, next);
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
                let tier = self.tier(&server, errand);
                for (position, copy) in (0..).zip(records) {
                    self.add(*copy, errand.place(), (tier, position));
                }
                if more {
                    self.records.there_are_more();
                }
                let is_whole = tally.is_none_or(|tally| tally.answered >= tally.asked);
                self.heard_of(&server, errand, is_whole);
            }
            (_, answer) => {
                if !matches!(answer, Answer::Failed) {
                    self.servers.refused(&server);
                }
                if errand == Errand::Page {
                    self.pages.retain(|pages| pages.native != server);
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
            self.add(copy, Place::Dht, (Tier::Nobody, 0));
        }
        is_ours
    }

    /// The next step at `now`.
    pub(super) fn poll<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        here: &mut H,
        next: &mut u64,
    ) -> Option<LookupAction> {
        // A free slot is not written to, so that its memory is not touched.
        if self.phase == Phase::Running {
            self.polled = now;
        }
        match self.phase {
            Phase::Free => return None,
            Phase::Done => {
                self.phase = Phase::Free;
                return None;
            }
            Phase::Running if now >= self.deadline => {
                return Some(self.cut_off());
            }
            Phase::Running => {}
        }
        loop {
            self.read_own_pages(now, here);
            if let Some(step) = self.next_end(now).or_else(|| self.next_search(now, next)) {
                return Some(step);
            }
            if let Some(turn) = self.next_turn(now) {
                return Some(self.put(now, turn, here, next));
            }
            if !self.is_quiet(now) {
                return None;
            }
            if self.next_stage(here.role()) {
                continue;
            }
            if !self.open.is_empty() && !self.has_found() {
                return None;
            }
            self.phase = Phase::Done;
            return Some(LookupAction::Done { lookup: self.id });
        }
    }

    /// The outcome, if this is the lookup `id` and it is over.
    pub(super) fn outcome(&self, id: LookupId) -> Option<Outcome<'_>> {
        if self.phase != Phase::Done || self.id != id {
            return None;
        }
        let more = self.records.more();
        Some(Outcome {
            question: &self.question,
            records: self.records.as_slice(),
            indexers: &self.indexers,
            more,
            tally: self.servers.tally(),
            is_complete: self.is_whole() && !more,
            servers: self.servers.as_slice(),
        })
    }

    fn begin<H: Here + ?Sized>(&mut self, now: Instant, own: PeerId, question: Question, here: &H) {
        (self.own, self.question) = (own, question);
        here.servers(now, &mut |server| {
            if server.is_held || server.role == Role::Native {
                // There is room for all of these.
                let _ = self.vouchers.push(server.peer);
            }
        });
        match &self.question {
            Question::Indexers => {}
            Question::Service(service) => {
                let filter = Filter::new(Some(service.clone()), Name::default());
                let mut from = Some(Cursor::Start);
                while let Some(page) = from
                    && !self.records.more()
                {
                    let next = here.entries(now, (&filter, page, false), &mut |entry| {
                        let record = FoundRecord::entry(&entry);
                        record
                            .into_iter()
                            .for_each(|record| self.records.add(record));
                        !self.records.more()
                    });
                    from = next.map(Cursor::After);
                }
            }
            Question::Name(name) => {
                let Claimants { nodes, more, .. } = here.claimants(name);
                for (position, found) in (0..).zip(&nodes) {
                    let record = FoundRecord::here(now, position, found);
                    record
                        .into_iter()
                        .for_each(|record| self.records.add(record));
                }
                if more {
                    self.records.there_are_more();
                }
            }
            Question::Peer(peer) => {
                // The server searches the DHT for a record, which may take its whole time.
                self.patience = OPERATOR_LIMIT;
                let listed = here.listed(peer);
                if let Some(record) = listed.and_then(|found| FoundRecord::here(now, 0, &found)) {
                    self.records.add(record);
                }
            }
        }
    }

    /// Whether no server is known that can be asked.
    fn knows_none(&self) -> bool {
        self.queue.is_empty()
            && self.pages.is_empty()
            && self.own_indexers.is_empty()
            && self.natives.is_empty()
    }

    /// Whether something is found that can be told.
    fn has_found(&self) -> bool {
        !self.records.as_slice().is_empty() || !self.indexers.is_empty()
    }

    /// Whether all servers that were asked have answered for all that they have to ask.
    fn is_whole(&self) -> bool {
        let tally = self.servers.tally();
        let is_partial = self.servers.as_slice().iter().any(Server::is_partial);
        !self.is_cut && !is_partial && tally.answered == tally.asked
    }

    /// Ends the searches and then the lookup, because its time is over.
    fn cut_off(&mut self) -> LookupAction {
        self.is_cut |= !(self.open.is_empty() && self.is_quiet(self.deadline));
        if let Some(at) = self.position(Open::is_search) {
            let query = self.open.swap_remove(at).query;
            return LookupAction::EndSearch { query };
        }
        self.phase = Phase::Done;
        LookupAction::Done { lookup: self.id }
    }

    fn position(&self, is_it: impl Fn(&Open) -> bool) -> Option<usize> {
        match self.phase {
            Phase::Running => self.open.iter().position(is_it),
            Phase::Free | Phase::Done => None,
        }
    }
}

impl Open {
    fn is_search(&self) -> bool {
        matches!(self.target, Target::Dht(_))
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
