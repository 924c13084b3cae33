//! Listings: the nodes that all servers list, one row for each, as they come.
//!
//! ```text
//!  own directory ─▶ rows
//!  natives, page by page ─▶ indexers
//!    └─ each native and each indexer, page by page (PROTOCOL.md, section 4) ─▶ rows
//!  at the end: the nodes that left or were lost and are not alive anywhere ─▶ rows, latest first
//! ```
//!
//! The endpoint polls them ([`Listings`]); the host gives a place for each, says how many rows its
//! reader has room for, and passes the rows on. It decides nothing.
//!
//! Invariants:
//! - A row leaves at once; nothing is kept of it but a fingerprint of its id, so that a node with
//!   two leases has one row. A node that is alive anywhere has no other row, whatever other servers
//!   say.
//! - A server is asked only if the reader has room for all rows of its answer, and that room is
//!   used for nothing else.
//! - A listing asks at most [`MAX_SERVERS`] servers, [`MAX_OPEN`] at a time. A server that has not
//!   answered within [`LIST_PATIENCE`] counts as silent and gives its turn to the next. The listing
//!   ends [`LIMIT`] after it began, except for the rows of the vanished, which wait for the reader.
//! - It is complete only if every server asked has answered with all its pages, and nothing was
//!   left out for lack of room or said twice.

mod listings;
mod rows;
mod seen;
#[cfg(test)]
mod tests;
mod turns;
mod vanished;

use core::time::Duration;

use super::{
    Addrs, Cursor, Filter, Instant, PeerId, Presence, Role, Tally,
    codec::{
        directory::{Request, Response},
        record::{Record, Verifier},
    },
    lookup::{
        Ask, Home, KnownServer, MAX_SERVERS, QueryId,
        servers::{AskedServer, Servers},
    },
    machine::MAX_MOVED,
};
use seen::Seen;
use turns::Turns;
use vanished::Vanished;

pub use listings::{ListingAction, ListingId, Listings, NoListings};
pub use seen::{MAX_SEEN, SEEN_WORDS};
pub use vanished::MAX_VANISHED;

/// Queries that wait for an answer at a time.
pub const MAX_OPEN: usize = 8;
/// How long a listing asks servers at most.
pub const LIMIT: Duration = Duration::from_secs(10);
/// How long it waits for one answer.
pub const LIST_PATIENCE: Duration = Duration::from_secs(3);
/// When the reader is first told how far the listing is, and how often from then on.
pub const PROGRESS: Duration = Duration::from_secs(1);

/// Which states of a node have rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States([bool; Presence::ALL.len()]);

impl States {
    /// All of them.
    pub const ALL: Self = Self([true; Presence::ALL.len()]);

    /// Only these.
    pub fn of(states: impl IntoIterator<Item = Presence>) -> Self {
        let mut of = Self([false; Presence::ALL.len()]);
        for state in states {
            if let Some(shown) = of.0.get_mut(state as usize) {
                *shown = true;
            }
        }
        of
    }

    fn shows(&self, state: Presence) -> bool {
        self.0.get(state as usize).is_some_and(|shown| *shown)
    }

    /// Whether servers must tell of nodes that are no longer there.
    fn has_vanished(&self) -> bool {
        self.shows(Presence::Left) || self.shows(Presence::Lost)
    }
}

/// A node.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The node.
    pub peer: PeerId,
    /// The name that it claims. If there is no record, it may be any text.
    pub name: &'a str,
    /// Whether it is there.
    pub presence: Presence,
    /// Time since its last heartbeat, since it left, or since it was lost.
    pub age: Duration,
    /// Its verified record, if a server still has it.
    pub record: Option<&'a Record<'a>>,
    /// The server with which it holds a lease: of several, the one that told of it first.
    pub server: Option<PeerId>,
}

/// The next step of a listing.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a step is done at once, and four addresses fit in 512 bytes"
)]
pub(super) enum ListingStep {
    /// Ask a server, and dial if needed; then call [`Listing::responded`] once.
    Ask {
        /// Names the query.
        query: QueryId,
        /// The server.
        server: PeerId,
        /// Where it listens; empty if this is not known.
        addrs: Addrs,
        /// What it is asked for.
        ask: ListAsk,
    },
    /// Call [`Listing::rows`].
    Rows,
    /// Tell the reader how far the listing is.
    Progress,
    /// The listing is over.
    Done,
}

const _: () = assert!(size_of::<ListingStep>() <= MAX_MOVED);

/// What a server is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListAsk {
    /// A page of indexers.
    Indexers(Cursor),
    /// A page of nodes: of those that the request describes.
    Nodes(Cursor),
}

/// One listing. `B` holds [`SEEN_WORDS`] numbers, or fewer if there is less memory.
#[derive(Clone, Debug)]
pub struct Listing<B> {
    own: PeerId,
    filter: Filter,
    states: States,
    deadline: Instant,
    progress: Instant,
    servers: Servers<MAX_SERVERS>,
    turns: Turns,
    /// The next page of the own directory.
    own_nodes: Option<Cursor>,
    /// The next page of the own `live_indexers`.
    own_indexers: Option<Cursor>,
    seen: Seen<B>,
    vanished: Vanished,
    /// Rows that the reader has room for.
    room: usize,
    /// Something was left out.
    is_cut: bool,
    is_over: bool,
}

impl<B: AsRef<[u64]> + AsMut<[u64]>> Listing<B> {
    /// The place of a listing that has not begun. The numbers in `buffer` must be 0.
    pub fn new(buffer: B) -> Self {
        Self {
            own: PeerId::from_bytes([0; 32]),
            filter: Filter::default(),
            states: States::ALL,
            deadline: Instant::default(),
            progress: Instant::default(),
            servers: Servers::new(),
            turns: Turns::default(),
            own_nodes: None,
            own_indexers: None,
            seen: Seen::new(buffer),
            vanished: Vanished::default(),
            room: 0,
            is_cut: false,
            is_over: true,
        }
    }

    /// Begins at `now` in the process with the id `own`, to ask all servers that `home` knows.
    /// `seed` keeps others from choosing ids with colliding fingerprints. There is no room for a
    /// row yet.
    pub(super) fn begin<H: Home + ?Sized>(
        &mut self,
        now: Instant,
        (own, seed): (PeerId, u64),
        (filter, states): (Filter, States),
        home: &H,
    ) {
        (self.own, self.filter, self.states) = (own, filter, states);
        (self.deadline, self.progress) = (now + LIMIT, now + PROGRESS);
        self.seen.seed(seed);
        self.own_nodes = Some(Cursor::Start);
        self.is_over = false;
        home.servers(now, &mut |KnownServer {
                                    peer,
                                    role,
                                    is_held,
                                }| match role {
            Role::Native => self.ask_native(peer),
            Role::Indexer if is_held => self.ask(peer, Addrs::new()),
            Role::Indexer | Role::Node => {}
        });
        match home.role() {
            Role::Native => self.own_indexers = Some(Cursor::Start),
            // A process that knows no server knows few nodes.
            Role::Indexer | Role::Node => self.is_cut |= self.turns.is_settled(),
        }
    }

    /// The reader has room for this many rows.
    pub(super) fn has_room(&mut self, rows: usize) {
        self.room = rows;
    }

    /// The request that asks a server.
    pub(super) fn request(&self, ask: ListAsk) -> Request {
        match ask {
            ListAsk::Indexers(from) => Ask::Indexers(from).into(),
            ListAsk::Nodes(from) => Request::List {
                filter: self.filter.clone(),
                from,
                gone: self.states.has_vanished(),
            },
        }
    }

    /// Takes a server's response to a query, or its failure. Its rows are given to `say`.
    pub(super) fn responded(
        &mut self,
        query: QueryId,
        response: Option<&Response<'_>>,
        verifier: &impl Verifier,
        say: &mut dyn FnMut(&Row<'_>),
    ) {
        let Some((server, ask)) = self.turns.close(query) else {
            return;
        };
        match (ask, response) {
            (ListAsk::Indexers(from), Some(Response::Page(page))) => {
                self.servers.answered(&server);
                self.learn(page.offers);
                self.is_cut |= !self.turns.turn_page(&server, from, page.next);
            }
            (ListAsk::Indexers(from), Some(Response::Indexers(answer))) => {
                self.servers.answered(&server);
                self.learn(answer.offers);
                self.turns.turn_page(&server, from, None);
            }
            (ListAsk::Nodes(from), Some(Response::Entries(page))) => {
                self.servers.answered(&server);
                for entry in page.entries {
                    self.take((entry, server), verifier, say);
                }
                if !self.turns.go_on(server, from, page.next) {
                    self.servers.lacks(&server);
                }
            }
            (_, Some(_)) => {
                self.servers.refused(&server);
                self.turns.give_up_pages(&server, ask);
            }
            (_, None) => self.turns.give_up_pages(&server, ask),
        }
    }

    /// The next step at `now`, if there is one.
    pub(super) fn poll<H: Home + ?Sized>(
        &mut self,
        now: Instant,
        home: &mut H,
    ) -> Option<ListingStep> {
        if self.is_over {
            return None;
        }
        self.turns.expire(now);
        if now >= self.deadline {
            let had_more = self.own_nodes.take().is_some() | self.own_indexers.take().is_some();
            self.is_cut |= self.turns.end() | had_more;
        }
        self.read_own_indexers(now, home);
        if self.has_rows() {
            return Some(ListingStep::Rows);
        }
        if let Some(ask) = self.next_ask(now, home) {
            return Some(ask);
        }
        if self.has_asked_all() {
            self.is_over = self.vanished.is_empty();
            return self.is_over.then_some(ListingStep::Done);
        }
        self.poll_progress(now)
    }

    /// The reader is told how far the listing is, if there is room for that and for all rows to
    /// come.
    fn poll_progress(&mut self, now: Instant) -> Option<ListingStep> {
        if now < self.progress {
            return None;
        }
        self.progress = now + PROGRESS;
        (self.room > self.turns.rows_to_come()).then(|| {
            self.room -= 1;
            ListingStep::Progress
        })
    }

    /// Whether there is nothing to be read any more, here or at a server.
    fn has_asked_all(&self) -> bool {
        self.turns.is_settled() && self.own_nodes.is_none() && self.own_indexers.is_none()
    }

    /// When [`Listing::poll`] has a step without an event.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let waits_for_the_reader = self.turns.is_settled() && self.own_nodes.is_none();
        if self.is_over || waits_for_the_reader {
            return None;
        }
        let first = self.deadline.min(self.progress);
        Some(self.turns.timeout().map_or(first, |open| open.min(first)))
    }

    /// Whether the listing is over.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Servers that were asked, and those that have answered everything, each once.
    pub fn tally(&self) -> Tally {
        self.servers.tally()
    }

    /// Whether the listing is over and nothing is missing.
    pub fn is_complete(&self) -> bool {
        let Tally { asked, answered } = self.tally();
        let is_partial = self.servers.as_slice().iter().any(AskedServer::is_partial);
        let is_whole = !self.is_cut && !self.seen.is_full() && !is_partial;
        self.is_over && asked == answered && is_whole
    }

    /// The servers that were asked and have not answered.
    pub fn silent(&self) -> impl Iterator<Item = &PeerId> {
        self.servers_that(AskedServer::is_silent)
    }

    /// The servers that answered with an error, or with something that is not an answer.
    pub fn refused(&self) -> impl Iterator<Item = &PeerId> {
        self.servers_that(AskedServer::is_refused)
    }

    /// The servers with pages that do not come to an end.
    pub fn partial(&self) -> impl Iterator<Item = &PeerId> {
        self.servers_that(AskedServer::is_partial)
    }

    fn servers_that(&self, are_meant: fn(&AskedServer) -> bool) -> impl Iterator<Item = &PeerId> {
        let servers = self.servers.as_slice().iter();
        let servers = servers.filter(move |server| are_meant(server));
        servers.map(|server| &server.peer)
    }
}
