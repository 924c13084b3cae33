//! One lookup, from its question to its outcome.
//!
//! Invariants: a stage begins when the one before has nothing left to do, and none is repeated;
//! each server is asked in turn and in bounds ([`super`]); a free slot is not written to.

mod answers;
mod begin;
mod holders;
mod stages;
mod steps;
mod turns;

use core::time::Duration;

use heapless::Vec;

use super::{
    Here, LookupAction, LookupId, MAX_HOLDERS, MAX_LIST, MAX_OPEN, Outcome, Place, QueryId,
    Question, RecordCopy,
    claims::Claims,
    records::{ClaimRank, Records, Tier},
    servers::{AskedServer, Servers},
};
use crate::protocol::{
    Cursor, Instant, Offer, PeerId, capacities::MAX_NATIVES, leases::MAX_LEASES,
};
use steps::{DhtSearch, Errand, Open, Pages, Progress, Target, Waiting, What};

/// Searches of the DHT in one lookup: for a node's record and for an indexer's.
const MAX_SEARCHES: usize = 2;
/// Queries of one lookup that have no answer yet: also those that are no longer waited for.
const MAX_QUERIES: usize = MAX_HOLDERS + MAX_OPEN + MAX_SEARCHES;
/// The place of a claim that is not among the oldest at its server, which tells it only in a list.
const BEHIND: u16 = MAX_LIST as u16;

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
    vouchers: Vec<PeerId, { MAX_LEASES + MAX_NATIVES }>,
    /// Indexers that grant leases to this process and were not asked yet.
    own_indexers: Vec<PeerId, MAX_LEASES>,
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
    searches: Vec<DhtSearch, MAX_SEARCHES>,
    open: Vec<Open, MAX_QUERIES>,
    progress: Progress,
    /// A search of the DHT has reached no server, although there is one.
    is_unreached: bool,
    /// A peer that an earlier find of the name has returned.
    remembered: Vec<PeerId, 1>,
    /// Pages of lists that were read besides the servers' first answers.
    read_on: usize,
    claims: Claims,
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
    /// It asks the natives which of the silent servers have taken leave.
    Leaves,
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
                rounds: 0,
                holders: 0,
                agreed: 0,
                is_new: false,
                is_full: false,
                more: false,
            },
            is_unreached: false,
            remembered: Vec::new(),
            read_on: 0,
            claims: Claims::new(),
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
        self.read_on = 0;
        self.claims.clear();
        self.records.clear();
        self.indexers.clear();
        self.is_cut = false;
    }

    /// Gives the peer that an earlier find has returned, before the lookup begins.
    pub(super) fn remember(&mut self, peer: Option<PeerId>) {
        self.remembered.extend(peer);
    }

    /// Ends the time of the lookup, because its outcome is no longer awaited.
    pub(super) fn give_up(&mut self, now: Instant, id: LookupId) {
        if self.id == id {
            self.deadline = now;
        }
    }

    /// If a record has the name by its grant, those that have it without one are left out. The
    /// grants were verified when the records were opened.
    pub(super) fn heed_grants(&mut self, id: LookupId) {
        let Question::Name(name) = &self.question else {
            return;
        };
        if self.id == id && self.records.keep_owners(name) {
            self.claims.clear();
            for record in self.records.as_slice() {
                self.claims.note(record.peer());
            }
        }
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
            self.add(copy, Place::Dht, Tier::DhtOnly, 0);
        }
        is_ours
    }

    /// The next step at `now`, when the wall-clock time is `own_ms`.
    pub(super) fn poll<H: Here + ?Sized>(
        &mut self,
        (now, own_ms): (Instant, u64),
        here: &mut H,
        next: &mut u64,
    ) -> Option<LookupAction> {
        // A free slot is not written to, so that its memory is not touched.
        if self.phase == Phase::Running {
            self.polled = now;
            // Others may not have been asked because of what has ended now.
            self.is_cut |= self.records.end(own_ms) && !self.has_found();
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
            if self.next_stage(now, here) {
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
        let is_whole = self.is_whole();
        let mut claimants = self.claims.count();
        claimants.are_all &= is_whole;
        let more = self.records.more();
        Some(Outcome {
            question: &self.question,
            records: self.records.as_slice(),
            indexers: &self.indexers,
            more,
            claimants,
            tally: self.servers.tally(),
            is_complete: is_whole && !more,
            servers: self.servers.as_slice(),
        })
    }

    /// Whether something is found that can be told.
    fn has_found(&self) -> bool {
        !self.records.as_slice().is_empty() || !self.indexers.is_empty()
    }

    /// Whether all servers that were asked have answered for all that they have to ask.
    fn is_whole(&self) -> bool {
        let tally = self.servers.tally();
        let is_partial = self.servers.as_slice().iter().any(AskedServer::is_partial);
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
