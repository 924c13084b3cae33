//! The listings of one process, for its readers: commands, tasks and programs that list nodes.
//!
//! ```text
//!  list ──▶ Listing, one of a reader ──▶ ListingAction::Ask, Progress, Done
//!               │
//!               ├─▶ ListingAction::Rows: rows of the own directory, and of the vanished
//!  responses ───┴─▶ rows, at once
//! ```
//!
//! Invariants: there are at most `N` listings, each in a place that its host gives, because it is
//! large and seldom needed. A place is dropped when its listing is over, or its reader has left.
//! The reader is never given more rows than it has said to have room for.

use core::ops::DerefMut;

use heapless::Vec;

use super::{ListAsk, Listing, ListingStep, Row, States};
use crate::protocol::{
    Addrs, Filter, Instant, Machine, PeerId, TableStats,
    codec::{
        directory::{Request, Response},
        record::Verifier,
    },
    lookup::{Query, QueryId},
};

/// Names a listing. No number is used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListingId(pub u64);

/// Something that the driver must do for a listing.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is part of an `Action`, which is larger"
)]
pub enum ListingAction {
    /// Ask a server, with [`Listings::request`], and dial if needed; then call
    /// [`Endpoint::responded`](crate::protocol::endpoint::Endpoint::responded) once.
    Ask {
        /// Names the listing and its query.
        query: Query,
        /// The server.
        server: PeerId,
        /// Where it listens; empty if this is not known.
        addrs: Addrs,
        /// The query.
        ask: ListAsk,
    },
    /// Call [`Endpoint::rows`](crate::protocol::endpoint::Endpoint::rows).
    Rows {
        /// The listing.
        listing: ListingId,
    },
    /// Tell the reader how far the listing is ([`Listings::of`]). It takes the room of one row.
    Progress {
        /// The listing.
        listing: ListingId,
    },
    /// The listing is over. How far it came can be read until the next poll.
    Done {
        /// The listing.
        listing: ListingId,
    },
}

/// At most `N` listings, each in a `P`: `Box<Listing<Vec<u64>>>`, or `&mut Listing<[u64; 64]>`.
#[derive(Clone, Debug)]
pub struct Listings<P, const N: usize> {
    own: PeerId,
    running: Vec<Running<P>, N, u8>,
    last: u64,
    refused: u64,
}

/// Of a host that lists nothing.
pub type NoListings = Listings<&'static mut Listing<[u64; 0]>, 0>;

#[derive(Clone, Debug)]
struct Running<P> {
    id: ListingId,
    listing: P,
}

impl<P, B, const N: usize> Listings<P, N>
where
    P: DerefMut<Target = Listing<B>>,
    B: AsRef<[u64]> + AsMut<[u64]>,
{
    /// No listing, in the process with this peer id.
    pub const fn new(own: PeerId) -> Self {
        Self {
            own,
            running: Vec::new(),
            last: 0,
            refused: 0,
        }
    }

    /// Begins a listing in the place that is given. `None`, and counted: there are too many, and no
    /// place is asked for.
    pub(in crate::protocol) fn begin<M: Machine + ?Sized>(
        &mut self,
        now: Instant,
        seed: u64,
        which: (Filter, States),
        machine: &M,
        place: impl FnOnce() -> P,
    ) -> Option<ListingId> {
        if self.running.is_full() {
            self.refused += 1;
            return None;
        }
        self.last += 1;
        let (id, mut listing) = (ListingId(self.last), place());
        listing.begin(now, (self.own, seed), which, machine);
        self.running.push(Running { id, listing }).ok()?;
        Some(id)
    }

    /// The reader has left. What its servers answer is ignored.
    pub fn leave(&mut self, listing: ListingId) {
        self.running.retain(|running| running.id != listing);
    }

    /// The reader has room for this many rows, and for the end of its listing besides. It is to be
    /// said anew after [`Endpoint::list`], and before a poll if the reader has read.
    ///
    /// [`Endpoint::list`]: crate::protocol::endpoint::Endpoint::list
    pub fn has_room(&mut self, listing: ListingId, rows: usize) {
        if let Some(listing) = self.find(listing) {
            listing.has_room(rows);
        }
    }

    /// How far the listing is. It can be read until the poll after [`ListingAction::Done`].
    pub fn of(&self, listing: ListingId) -> Option<&Listing<B>> {
        let mut running = self.running.iter();
        let running = running.find(|running| running.id == listing)?;
        Some(&running.listing)
    }

    /// The request of [`ListingAction::Ask`].
    pub fn request(&self, query: Query, ask: ListAsk) -> Option<Request> {
        match query {
            Query::Listing { listing, .. } => Some(self.of(listing)?.request(ask)),
            Query::Machine(_) | Query::Lookup(_) | Query::Network(_) => None,
        }
    }

    /// The statistics for `status`.
    pub fn stats(&self) -> TableStats {
        TableStats {
            name: "listings",
            used: self.running.len(),
            capacity: N,
            refused: self.refused,
            evicted: 0,
        }
    }

    /// Takes a server's response to a query, or its failure. Its rows are given to `say`.
    pub(in crate::protocol) fn responded(
        &mut self,
        (id, query): (ListingId, QueryId),
        response: Option<&Response<'_>>,
        verifier: &impl Verifier,
        say: &mut dyn FnMut(ListingId, &Row<'_>),
    ) {
        if let Some(listing) = self.find(id) {
            listing.responded(query, response, verifier, &mut |row| say(id, row));
        }
    }

    /// Gives the rows that no server is asked for to `say`, while there is room.
    pub(in crate::protocol) fn rows<M: Machine + ?Sized>(
        &mut self,
        now: Instant,
        listing: ListingId,
        machine: &M,
        say: &mut dyn FnMut(&Row<'_>),
    ) {
        if let Some(listing) = self.find(listing) {
            listing.rows(now, machine, say);
        }
    }

    /// The next action at `now`, if there is one.
    pub(in crate::protocol) fn poll<M: Machine + ?Sized>(
        &mut self,
        now: Instant,
        machine: &mut M,
    ) -> Option<ListingAction> {
        self.running.retain(|running| !running.listing.is_over());
        let mut running = self.running.iter_mut();
        running.find_map(|Running { id, listing }| {
            let step = listing.poll(now, machine)?;
            Some(action(*id, step))
        })
    }

    /// When [`Listings::poll`] has an action without an event.
    pub(in crate::protocol) fn timeout(&self) -> Option<Instant> {
        let running = self.running.iter();
        let timeouts = running.filter_map(|running| running.listing.timeout());
        timeouts.min()
    }

    fn find(&mut self, id: ListingId) -> Option<&mut Listing<B>> {
        let mut running = self.running.iter_mut();
        let running = running.find(|running| running.id == id)?;
        Some(&mut running.listing)
    }
}

/// What the host does for a listing.
fn action(listing: ListingId, step: ListingStep) -> ListingAction {
    match step {
        ListingStep::Ask {
            query,
            server,
            addrs,
            ask,
        } => ListingAction::Ask {
            query: Query::Listing { listing, query },
            server,
            addrs,
            ask,
        },
        ListingStep::Rows => ListingAction::Rows { listing },
        ListingStep::Progress => ListingAction::Progress { listing },
        ListingStep::Done => ListingAction::Done { listing },
    }
}
