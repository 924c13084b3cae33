//! Lookups: which servers are asked, in which order, how their answers are merged, and when the
//! outcome is given.
//!
//! ```text
//!  a node's operator                   an indexer or a native, for a peer or its operator
//!
//!  own indexers, and then natives,     own directory ── a peer that is listed ──▶ answer
//!  one after another until one has       ├─▶ providers of the name or service in the DHT
//!  answered ── key 2 absent ────────▶    │     └─▶ these holders ── key 2 = true
//!    │                                   ├─▶ fellow natives (a native) ── key 2 = true
//!    │                                   └─▶ the peer's record in the DHT
//!    │                                   │
//!    └── empty or incomplete ──┬─────────┘  natives: for an indexer's peer only if
//!                              ▼            the search has reached no server
//!          the other natives ── key 2 = true
//!                              │ nothing is found (operators only)
//!                              ▼
//!          a page of a native's indexers; if these are all: each of them ── key 2 = true
//! ```
//!
//! A server that is asked with key 2 = true answers from its own directory only, so that a request
//! travels one hop. What a lookup costs does not depend on the number of indexers. The last step is
//! for small networks with indexers of version 1.0, which announce nothing.
//!
//! A server of the DHT names [`MAX_NAMED`] providers in an answer, others in the next. Where it may
//! know of more, there are [`MAX_ROUNDS`] searches, unless [`MAX_HOLDERS`] are exceeded before. The
//! outcome is not complete if the last one still names a new provider.
//!
//! A holder tells [`MAX_LIST`] claimants of a name, the oldest first. Where it has more, the list
//! of its nodes is read, so that all are counted. A node is told the count. If the peer that it
//! found before is not among those that it is told, it asks for that peer's record.
//!
//! No request for a service travels: servers are asked for the list of the nodes of their own
//! directory that offer it. A node takes no part in the DHT, so it asks all indexers
//! that its natives list. Others ask the providers of the service and their natives, and the
//! indexers that a native lists if that may not be all, or if nothing is found.
//!
//! The DHT names a provider for half an hour after it has ended. Of one that does not answer the
//! natives are asked at last: if it gave up its lease with one of them in order, ten seconds ago at
//! least, its nodes have moved, and nothing is missing. One that was lost, or that left a moment
//! ago, is named as silent.
//!
//! The host polls after each event, does what [`LookupAction`] says, and reads
//! [`Lookups::outcome`] when a lookup is [`LookupAction::Done`]. It translates frames and decides
//! nothing.
//!
//! Invariants:
//! - Each class of lookups has slots of its own: the operator's finds, the operator's lists of
//!   indexers, the lookups of peers, and those of programs that ask by DNS. None can starve
//!   another.
//! - A lookup ends [`OPERATOR_LIMIT`], [`PEER_LIMIT`] or [`PROGRAM_LIMIT`] after it began, whatever
//!   servers do, and at once when its operator leaves. Later answers have no effect. If it has
//!   found something, it waits for each server [`OPERATOR_PATIENCE`] or [`PEER_PATIENCE`] at most,
//!   for all pages of its list together.
//! - A lookup asks at most [`MAX_SERVERS`] servers, for a peer [`MAX_HOLDERS`], and at most
//!   [`MAX_HOLDERS`] that the DHT names. At most [`MAX_OPEN`] are waited for at a time: a server
//!   that has not answered in its patience gives its turn away.
//! - A lookup for a name reads [`MAX_READ_ON`] × [`MAX_HOLDERS`] pages of lists and counts
//!   [`MAX_COUNTED`] claimants at most. A count is said to be open if there may be more.
//! - An outcome is complete only if every server asked has answered or taken leave, and reported that all servers
//!   it asked have answered, a search of the DHT has reached a server if there is any, and nothing
//!   was left out for lack of room.

mod claims;
mod exchange;
mod here;
mod outcome;
mod records;
mod remembered;
mod run;
pub(super) mod servers;
mod slots;
mod step;
#[cfg(test)]
mod tests;

use core::time::Duration;

use heapless::Vec;

use super::{
    Addrs, Coverage, Instant, MAX_LIST, PeerId, Reach, RequestId, Role, TableStats,
    capacities::MAX_NATIVES,
};
pub use exchange::{FULL, NO_NATIVE, Served};
pub use here::{Here, Home, KnownServer, MOVED};
pub use outcome::Outcome;
pub use records::{FoundRecord, Place};
use remembered::Remembered;
use slots::Slots;
use step::{Answer, AnswerRecords, Begun};
pub use step::{Ask, LookupAction, LookupId, Query, QueryId, Question, RecordCopy};

/// Servers that one lookup of the operator asks at most.
pub const MAX_SERVERS: usize = 512;
/// Servers that one lookup for a peer asks at most, and those that one lookup asks because the DHT
/// names them (PROTOCOL.md, section 4).
pub const MAX_HOLDERS: usize = 16;
/// Servers of the DHT that must name providers, without a new one among them, to end the search: as
/// many as Kademlia asks at once, because one more costs three requests. A search that is ended
/// because of its time is complete if so many have answered.
pub const ENOUGH: u8 = 3;
/// Providers that an answer of a server of the DHT names at most. One that knows of more names
/// others when it is asked again (PROTOCOL.md, section 7).
pub const MAX_NAMED: usize = 8;
/// How often one lookup searches for providers at most: often enough for a server to name more than
/// it keeps of one key (PROTOCOL.md, section 7).
pub const MAX_ROUNDS: u8 = 3;
/// Pages of lists that one lookup reads besides each server's first answer at most, for each of
/// [`MAX_HOLDERS`] (claimants of a name) or of the servers that it may ask (a service). One server
/// is read further only as far as each other server keeps as many.
pub const MAX_READ_ON: u8 = 2;
/// Different claimants of a name that one lookup counts at most.
pub const MAX_COUNTED: usize = 256;
/// Indexers that a native may list for each of them to be asked, if nothing is found otherwise.
pub const MAX_LISTED: usize = MAX_LIST;
/// Queries of one lookup that wait for an answer at a time (PROTOCOL.md, section 4).
pub const MAX_OPEN: usize = 8;
/// Records in the outcome of an operator's lookup at most. If there are more, the best are kept.
pub const MAX_FOUND: usize = 32;
/// Pages of indexers that one native is asked for at most.
pub const MAX_PAGES: usize = MAX_SERVERS / MAX_LIST;
/// How long a lookup of the operator takes at most.
pub const OPERATOR_LIMIT: Duration = Duration::from_secs(5);
/// How long a lookup of a program that asks by DNS takes at most: less than the 5 s after which
/// resolvers give up, so that they hear of the failure.
pub const PROGRAM_LIMIT: Duration = Duration::from_secs(3);
/// How long a lookup for a peer takes at most (PROTOCOL.md, section 4).
pub const PEER_LIMIT: Duration = Duration::from_secs(3);
/// How long a search for providers takes at most.
pub const PROVIDERS_LIMIT: Duration = Duration::from_millis(1_500);
/// How long a node's lookup waits for a server that also asks others, before it asks the next one,
/// too. Of these, the first complete answer that finds something counts.
pub const NEXT_PATIENCE: Duration = Duration::from_millis(500);
/// How long a lookup of the operator waits for a server if it has found something or has others to
/// ask. It is longer than [`PEER_PATIENCE`], so that the server can tell what it has found.
pub const OPERATOR_PATIENCE: Duration = Duration::from_secs(1);
/// The same of a lookup for a peer.
pub const PEER_PATIENCE: Duration = Duration::from_millis(750);

/// Servers that wait for their turn in one lookup or listing: enough for some pages of indexers.
pub(super) const MAX_QUEUE: usize = 4 * MAX_LIST;

/// All lookups under way: at most `F` finds and `L` lists of the operator, `P` lookups of peers,
/// and `D` of programs that ask by DNS.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookups<const F: usize, const L: usize, const P: usize, const D: usize = 0> {
    own: PeerId,
    next: u64,
    remembered: Remembered,
    finds: Slots<F, MAX_SERVERS, MAX_QUEUE, MAX_FOUND, 1>,
    lists: Slots<L, MAX_NATIVES, 1, 1, MAX_SERVERS>,
    peers: Slots<P, MAX_HOLDERS, MAX_HOLDERS, MAX_LIST, 1>,
    programs: Slots<D, MAX_SERVERS, MAX_QUEUE, MAX_FOUND, 1>,
    /// The requests of peers that wait for a lookup.
    asked: Vec<(LookupId, RequestId), P>,
}

impl<const F: usize, const L: usize, const P: usize, const D: usize> Lookups<F, L, P, D> {
    /// Without lookups. It is all zeroes and uninitialised memory, so that it can be placed in
    /// `.bss`.
    pub const fn new() -> Self {
        Self {
            own: PeerId::from_bytes([0; 32]),
            next: 0,
            remembered: Remembered::new(),
            finds: Slots::new(),
            lists: Slots::new(),
            peers: Slots::new(),
            programs: Slots::new(),
            asked: Vec::new(),
        }
    }

    /// Sets the peer id of this process, which is never asked.
    pub fn start(&mut self, own: PeerId) {
        self.own = own;
    }

    /// Begins a lookup of the operator. `None` if no slot of this class is free.
    pub fn begin<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        question: Question,
        here: &H,
    ) -> Option<LookupId> {
        self.next += 1;
        let id = LookupId(self.next);
        let begun = match question {
            Question::Indexers => self.lists.begin(id).map(|lookup| {
                lookup.begin_for_operator(now, self.own, question, here);
            }),
            Question::Name(_) | Question::Service(_) | Question::Peer(_) => {
                self.finds.begin(id).map(|lookup| {
                    lookup.remember(self.remembered.of(&question));
                    lookup.begin_for_operator(now, self.own, question, here);
                })
            }
        };
        begun.map(|()| id)
    }

    /// Begins a lookup of a program that asks by DNS, as one of the operator that takes
    /// [`PROGRAM_LIMIT`] at most. `None` if no slot of this class is free.
    pub fn begin_for_program<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        question: Question,
        here: &H,
    ) -> Option<LookupId> {
        self.next += 1;
        let id = LookupId(self.next);
        let lookup = self.programs.begin(id)?;
        lookup.begin_for_operator(now, self.own, question, here);
        lookup.give_up(now + PROGRAM_LIMIT, id);
        Some(id)
    }

    /// Gives up a lookup because its operator has left. It ends, and its slot is free, after the
    /// next poll.
    pub fn give_up(&mut self, now: Instant, lookup: LookupId) {
        self.finds.give_up(now, lookup);
        self.lists.give_up(now, lookup);
    }

    /// In a closed network: if a node that was found has the name by its grant, the others have
    /// not.
    pub(super) fn heed_grants(&mut self, lookup: LookupId) {
        self.finds.heed_grants(lookup);
        self.peers.heed_grants(lookup);
        self.programs.heed_grants(lookup);
    }

    /// Begins a lookup of another peer for a name or a peer. If it needs no other server, it needs
    /// no slot.
    fn begin_for_peer<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        question: Question,
        reach: Reach,
        here: &H,
    ) -> Begun {
        if reach == Reach::Directory || !asks_others(now, &question, here) {
            return Begun::Here;
        }
        self.next += 1;
        let id = LookupId(self.next);
        let Some(lookup) = self.peers.begin(id) else {
            return Begun::Full;
        };
        lookup.begin_for_peer(now, self.own, question, here);
        Begun::Lookup(id)
    }

    /// Takes a server's answer to a query, or its failure. Returns whether the query was open.
    fn answered(&mut self, now: Instant, query: QueryId, answer: Answer<'_>) -> bool {
        self.finds.answered(now, query, answer)
            || self.lists.answered(now, query, answer)
            || self.peers.answered(now, query, answer)
            || self.programs.answered(now, query, answer)
    }

    /// Takes a record that a search of the DHT found, and checks its validity at wall-clock time
    /// `own_ms`. Returns whether the search is one of these lookups.
    pub fn found(
        &mut self,
        now: Instant,
        own_ms: u64,
        query: QueryId,
        copy: RecordCopy<'_>,
    ) -> bool {
        self.finds.found(now, own_ms, query, copy)
            || self.peers.found(now, own_ms, query, copy)
            || self.programs.found(now, own_ms, query, copy)
    }

    /// Takes the providers that one server of the DHT names, and where they listen. `coverage`:
    /// whether it may know of others. Returns whether the search is one of these lookups.
    pub fn provided(
        &mut self,
        now: Instant,
        query: QueryId,
        providers: &[(PeerId, Addrs)],
        coverage: Coverage,
    ) -> bool {
        self.finds.provided(now, query, providers, coverage)
            || self.peers.provided(now, query, providers, coverage)
            || self.programs.provided(now, query, providers, coverage)
    }

    /// Takes note that a search of the DHT has ended, in which so many servers have answered.
    /// Returns whether it was open.
    pub fn searched(&mut self, now: Instant, query: QueryId, reached: u16) -> bool {
        self.finds.searched(now, query, reached)
            || self.peers.searched(now, query, reached)
            || self.programs.searched(now, query, reached)
    }

    /// The next step at `now`, if there is one.
    /// `own_ms`: the wall-clock time, by which the copies end that no server lists under a lease.
    pub fn poll<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        own_ms: u64,
        here: &mut H,
    ) -> Option<LookupAction> {
        let next = &mut self.next;
        let now = (now, own_ms);
        let found = self.finds.poll(now, here, next);
        if let Some(LookupAction::Done { lookup }) = found
            && let Some(outcome) = self.finds.outcome(lookup)
        {
            self.remembered.note(&outcome);
        }
        found
            .or_else(|| self.lists.poll(now, here, next))
            .or_else(|| self.peers.poll(now, here, next))
            .or_else(|| self.programs.poll(now, here, next))
    }

    /// When [`Lookups::poll`] has a step without an event.
    pub fn timeout(&self) -> Option<Instant> {
        let timeouts = [
            self.finds.timeout(),
            self.lists.timeout(),
            self.peers.timeout(),
            self.programs.timeout(),
        ];
        timeouts.into_iter().flatten().min()
    }

    /// The outcome of the lookup, between its [`LookupAction::Done`] and the next poll.
    pub fn outcome(&self, lookup: LookupId) -> Option<Outcome<'_>> {
        self.finds
            .outcome(lookup)
            .or_else(|| self.lists.outcome(lookup))
            .or_else(|| self.peers.outcome(lookup))
            .or_else(|| self.programs.outcome(lookup))
    }

    /// Takes note that this request of a peer waits for the lookup.
    pub(super) fn asked_by(&mut self, lookup: LookupId, request: RequestId) {
        // There is room: each lookup of a peer has its slot.
        let _ = self.asked.push((lookup, request));
    }

    /// The request of a peer that waited for this lookup, which is over.
    pub(super) fn take_asker(&mut self, lookup: LookupId) -> Option<RequestId> {
        let at = self.asked.iter().position(|(of, _)| *of == lookup)?;
        Some(self.asked.swap_remove(at).1)
    }

    /// The statistics of the four classes for `status`.
    pub fn stats(&self) -> [TableStats; 4] {
        [
            self.finds.stats("lookups"),
            self.lists.stats("list_lookups"),
            self.peers.stats("peer_lookups"),
            self.programs.stats("dns_lookups"),
        ]
    }
}

impl<const F: usize, const L: usize, const P: usize, const D: usize> Default
    for Lookups<F, L, P, D>
{
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the answer to a peer's question needs another server or the DHT.
fn asks_others<H: Here + ?Sized>(now: Instant, question: &Question, here: &H) -> bool {
    match (here.role(), question) {
        // A node serves no lookups, and another request lists indexers.
        (Role::Node, _) | (_, Question::Indexers) => false,
        // The record of a node that beats here is newer than any elsewhere. One whose stream has
        // ended may be with another server.
        (Role::Indexer | Role::Native, Question::Peer(peer)) => !here
            .listed(now, peer)
            .is_some_and(|found| found.is_connected()),
        (Role::Indexer | Role::Native, Question::Name(_) | Question::Service(_)) => true,
    }
}
