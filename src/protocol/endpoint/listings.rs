//! The listings of an endpoint, and the responses to all requests. Listings make rows of them.

use core::ops::DerefMut;

use super::Endpoint;
#[cfg(doc)]
use crate::protocol::{Action, listing::ListingAction};
use crate::protocol::{
    Filter, Input, Instant, Machine,
    closed::{Closed, ForMember},
    codec::{directory::Response, record::Verifier},
    listing::{Listing, ListingId, Listings, Row, States},
    lookup::{Lookups, Query},
};

impl<
    M,
    L,
    W,
    P,
    B,
    const F: usize,
    const G: usize,
    const O: usize,
    const D: usize,
    const N: usize,
    C,
> Endpoint<M, L, W, P, N, C>
where
    M: DerefMut<Target: Machine>,
    L: DerefMut<Target = Lookups<F, G, O, D>>,
    P: DerefMut<Target = Listing<B>>,
    B: AsRef<[u64]> + AsMut<[u64]>,
    C: DerefMut<Target = Closed>,
{
    /// Begins a listing of the nodes that the filter selects and that are in one of these states,
    /// in a place that has not been used. `seed` keeps others from choosing ids that are taken for
    /// one. `None`: there are too many listings, and no place is asked for.
    ///
    /// Say next how many rows its reader has room for ([`Listings::has_room`]).
    pub fn list(
        &mut self,
        now: Instant,
        seed: u64,
        which: (Filter, States),
        place: impl FnOnce() -> P,
    ) -> Option<ListingId> {
        self.listings.begin(now, seed, which, &*self.machine, place)
    }

    /// Gives rows of the listing that no server is asked for to `say` ([`ListingAction::Rows`]).
    pub fn rows(&mut self, now: Instant, listing: ListingId, say: &mut dyn FnMut(&Row<'_>)) {
        self.listings.rows(now, listing, &*self.machine, say);
    }

    /// The listings, for their readers.
    pub fn listings(&self) -> &Listings<P, N> {
        &self.listings
    }

    /// The same.
    pub fn listings_mut(&mut self) -> &mut Listings<P, N> {
        &mut self.listings
    }

    /// Takes a server's response to a request ([`Action::Ask`], [`ListingAction::Ask`]), or its
    /// failure. Records that do not verify are ignored. If a listing has asked, its rows are given
    /// to `say`.
    pub fn responded(
        &mut self,
        now: Instant,
        query: Query,
        response: Option<&Response<'_>>,
        verifier: &impl Verifier,
        say: &mut dyn FnMut(ListingId, &Row<'_>),
    ) {
        if let (Query::Network(_), Some(Response::Revocations(envelope))) = (query, response) {
            // One that does not count is ignored.
            let _ = self.take_revocations(envelope, verifier);
            return;
        }
        let closed = self.closed.as_deref();
        let verifier = &ForMember { closed, verifier };
        match query {
            Query::Lookup(query) => self.lookups.responded(now, query, response, verifier),
            Query::Listing { listing, query } => {
                let of = (listing, query);
                self.listings.responded(of, response, verifier, say);
            }
            Query::Network(_) => {}
            Query::Machine(ref native) => {
                let answer = match response {
                    Some(Response::Indexers(answer)) => Some(*answer),
                    _ => None,
                };
                self.machine.handle(now, Input::Answered { native, answer });
            }
        }
    }
}
