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
//! No request for a service travels: servers are asked for the nodes of their own directory that
//! offer it, and one page of each counts. A node takes no part in the DHT, so it asks all indexers
//! that its natives list. Others ask the providers of the service and their natives, and the
//! indexers that a native lists if that may not be all, or if nothing is found.
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
//!   found something, it waits for each server [`OPERATOR_PATIENCE`] or [`PEER_PATIENCE`] at most.
//! - A lookup asks at most [`MAX_SERVERS`] servers, for a peer [`MAX_HOLDERS`], and at most
//!   [`MAX_HOLDERS`] that the DHT names. At most [`MAX_OPEN`] are waited for at a time: a server
//!   that has not answered in its patience gives its turn away.
//! - An outcome is complete only if every server asked has answered and reported that all servers
//!   it asked have answered, a search of the DHT has reached a server if there is any, and nothing
//!   was left out for lack of room.

mod exchange;
mod here;
mod records;
mod remembered;
mod run;
pub(super) mod servers;
mod slots;
#[cfg(test)]
mod tests;

use core::time::Duration;

use super::{
    Addrs, Cursor, Instant, Key, MAX_LIST, Name, Offer, PeerId, Reach, RecordInfo, Role,
    TableStats, Tally, capacities::MAX_NATIVES, codec::service::ServiceName, machine::MAX_MOVED,
};
pub use exchange::{FULL, Served};
pub use here::{Here, Home, KnownServer};
pub use records::{FoundRecord, Place};
use remembered::Remembered;
use servers::Server;
use slots::Slots;

/// Servers that one lookup of the operator asks at most.
pub const MAX_SERVERS: usize = 512;
/// Servers that one lookup for a peer asks at most, and those that one lookup asks because the DHT
/// names them (PROTOCOL.md, section 4).
pub const MAX_HOLDERS: usize = 16;
/// Servers of the DHT that must name providers, without a new one among them, to end the search: as
/// many as Kademlia asks at once, because one more costs three requests. A search that is ended
/// because of its time is complete if so many have answered.
pub const ENOUGH: u8 = 3;
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

/// Servers that wait for their turn in one lookup: enough for some pages of indexers.
const MAX_QUEUE: usize = 4 * MAX_LIST;

/// The subject of a lookup.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// The indexers.
    #[default]
    Indexers,
    /// All nodes that claim a name.
    Name(Name),
    /// All nodes that offer a service.
    Service(ServiceName),
    /// A peer.
    Peer(PeerId),
}

impl Question {
    /// The key under which holders of the answer announce themselves in the DHT.
    fn key(&self) -> Option<Key> {
        match self {
            Self::Name(name) => Some(Key::Name(name.clone())),
            Self::Service(service) => Some(Key::Service(service.clone())),
            Self::Indexers | Self::Peer(_) => None,
        }
    }
}

/// Names a lookup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(pub u64);

/// Names one query of a lookup, to a server or to the DHT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// A query to one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A page of indexers.
    Indexers(Cursor),
    /// The nodes that claim a name.
    Name {
        /// The name.
        name: Name,
        /// How far the server goes.
        reach: Reach,
    },
    /// The first page of the nodes that offer a service, from the server's own directory.
    Service(ServiceName),
    /// The record of a node.
    Peer {
        /// The node.
        peer: PeerId,
        /// How far the server goes.
        reach: Reach,
    },
}

/// What the host must do.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a step is done at once, and four addresses fit in 512 bytes"
)]
pub enum LookupAction {
    /// Ask a server, and dial if needed; then call [`Lookups::responded`] once.
    Ask {
        /// The lookup that asks.
        lookup: LookupId,
        /// Names the query.
        query: QueryId,
        /// The server.
        server: PeerId,
        /// Where it listens; empty if this is not known.
        addrs: Addrs,
        /// The query.
        ask: Ask,
    },
    /// Search the DHT for the providers of a key. Call [`Lookups::provided`] for each server that
    /// answers, then [`Lookups::searched`].
    Providers {
        /// Names the search.
        query: QueryId,
        /// The key.
        key: Key,
    },
    /// Search the DHT. Call [`Lookups::found`] for each record, then [`Lookups::searched`].
    Search {
        /// Names the search.
        query: QueryId,
        /// The kind of record: that of a node or that of an indexer.
        role: Role,
        /// The record's subject.
        peer: PeerId,
    },
    /// End a search of the DHT. Its further results are ignored.
    EndSearch {
        /// The search.
        query: QueryId,
    },
    /// The lookup is over: [`Lookups::outcome`] can be read until the next poll.
    Done {
        /// The lookup.
        lookup: LookupId,
    },
}

const _: () = assert!(size_of::<LookupAction>() <= MAX_MOVED);

/// A verified copy of a signed record.
#[derive(Clone, Copy, Debug)]
pub struct RecordCopy<'a> {
    /// The content of the record.
    pub info: &'a RecordInfo,
    /// The signed envelope, opaque here. If it has more than
    /// [`MAX_ENVELOPE_LEN`](super::MAX_ENVELOPE_LEN) bytes, it is ignored.
    pub envelope: &'a [u8],
    /// Time since the last heartbeat of its subject, if it is told.
    pub age: Option<Duration>,
}

/// The answer of a server to a query.
#[derive(Clone, Copy, Debug)]
enum Answer<'a> {
    /// Verified records.
    Records {
        /// The records.
        records: &'a [RecordCopy<'a>],
        /// The server has more than these.
        more: bool,
        /// The servers that it asked, if it reports them.
        tally: Option<Tally>,
    },
    /// Verified records of a page of its own directory.
    Listed {
        /// The records.
        records: &'a [RecordCopy<'a>],
        /// There is another page.
        more: bool,
    },
    /// A page of indexers.
    Indexers {
        /// The indexers.
        offers: &'a [Offer],
        /// The next page begins after this id; `None` if this is the last one.
        next: Option<PeerId>,
    },
    /// It answered with an error.
    Error,
    /// No connection, or no answer in time.
    Failed,
}

/// How a lookup of another peer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    /// No other server is asked. The answer is the own directory, and is ready.
    Here,
    /// The answer comes with [`LookupAction::Done`].
    Lookup(LookupId),
    /// No slot is free. The peer should try again later.
    Full,
}

/// The outcome of a lookup.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// The question of the lookup.
    pub question: &'a Question,
    /// The records found, one for each peer, best first.
    pub records: &'a [FoundRecord],
    /// For [`Question::Indexers`]: the indexers. For [`Question::Peer`]: the peer as natives list
    /// it.
    pub indexers: &'a [Offer],
    /// Whether there are more records or indexers than these.
    pub more: bool,
    /// Servers that this lookup asked, and those that answered, each once. Each server asked has
    /// answered, is silent or has refused.
    pub tally: Tally,
    /// Whether nothing is missing: all servers asked have answered, and nothing was left out.
    pub is_complete: bool,
    servers: &'a [Server],
}

impl<'a> Outcome<'a> {
    /// The servers that were asked and have not answered.
    pub fn silent(&self) -> impl Iterator<Item = &'a PeerId> + use<'a> {
        self.servers_that(Server::is_silent)
    }

    /// The servers that answered with an error, or with something that is not an answer.
    pub fn refused(&self) -> impl Iterator<Item = &'a PeerId> + use<'a> {
        self.servers_that(Server::is_refused)
    }

    /// The servers that answered, but not for all servers that they asked themselves.
    pub fn partial(&self) -> impl Iterator<Item = &'a PeerId> + use<'a> {
        self.servers_that(Server::is_partial)
    }

    fn servers_that(
        &self,
        are_meant: fn(&Server) -> bool,
    ) -> impl Iterator<Item = &'a PeerId> + use<'a> {
        let servers = self.servers.iter().filter(move |server| are_meant(server));
        servers.map(|server| &server.peer)
    }
}

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

    /// Begins a lookup of another peer for a name or a peer. If it needs no other server, it needs
    /// no slot.
    fn begin_for_peer<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        question: Question,
        reach: Reach,
        here: &H,
    ) -> Begun {
        if reach == Reach::Directory || !asks_others(&question, here) {
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

    /// Takes the providers that one server of the DHT names, and where they listen. `more`: it may
    /// know of more than these. Returns whether the search is one of these lookups.
    pub fn provided(
        &mut self,
        now: Instant,
        query: QueryId,
        providers: &[(PeerId, Addrs)],
        more: bool,
    ) -> bool {
        self.finds.provided(now, query, providers, more)
            || self.peers.provided(now, query, providers, more)
            || self.programs.provided(now, query, providers, more)
    }

    /// Takes note that a search of the DHT has ended, in which so many servers have answered.
    /// Returns whether it was open.
    pub fn searched(&mut self, now: Instant, query: QueryId, reached: u16) -> bool {
        self.finds.searched(now, query, reached)
            || self.peers.searched(now, query, reached)
            || self.programs.searched(now, query, reached)
    }

    /// The next step at `now`, if there is one.
    pub fn poll<H: Here + ?Sized>(&mut self, now: Instant, here: &mut H) -> Option<LookupAction> {
        let next = &mut self.next;
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
fn asks_others<H: Here + ?Sized>(question: &Question, here: &H) -> bool {
    match (here.role(), question) {
        // A node serves no lookups, and another request lists indexers.
        (Role::Node, _) | (_, Question::Indexers) => false,
        // The record of a lease holder here is newer than any elsewhere.
        (Role::Indexer | Role::Native, Question::Peer(peer)) => here.listed(peer).is_none(),
        (Role::Indexer | Role::Native, Question::Name(_) | Question::Service(_)) => true,
    }
}
