//! The lookups of an endpoint, and the results of searches, which its host gives back.

use core::ops::DerefMut;

use super::Endpoint;
#[cfg(doc)]
use crate::protocol::Action;
use crate::protocol::{
    Addrs, Coverage, Entries, Input, Instant, Machine, PeerId, Reader, RequestId, TableStats,
    closed::Closed,
    codec::directory::{Request, Response},
    lookup::{LookupId, Lookups, Outcome, Query, Question, RecordCopy, Served},
};

impl<M, L, W, P, const F: usize, const G: usize, const O: usize, const D: usize, const N: usize, C>
    Endpoint<M, L, W, P, N, C>
where
    M: DerefMut<Target: Machine>,
    L: DerefMut<Target = Lookups<F, G, O, D>>,
    C: DerefMut<Target = Closed>,
{
    /// Serves the directory request of a peer that can dial what `reader` says. The entries of a
    /// list are put into `entries`, which the response borrows. `None`: the answer comes as
    /// [`Action::Answer`] or [`Action::Respond`].
    pub fn serve<'a: 'r, 'r>(
        &'a mut self,
        now: Instant,
        (from, id, reader): (&PeerId, RequestId, Reader),
        request: Request,
        entries: &'r mut Entries<'a>,
    ) -> Option<Response<'r>> {
        let Self {
            machine,
            lookups,
            closed,
            ..
        } = self;
        if let (Request::Revocations, Some(closed)) = (&request, closed) {
            return Some(Response::Revocations(closed.list()));
        }
        machine.handle(now, Input::Seen { peer: from, reader });
        match lookups.serve(now, from, id, request, &mut **machine, entries) {
            Served::Now(response) => Some(response),
            Served::Later => None,
            Served::Lookup(lookup) => {
                lookups.asked_by(lookup, id);
                None
            }
        }
    }

    /// Begins a lookup of the operator. `None` if no slot of its class is free.
    pub fn find(&mut self, now: Instant, question: Question) -> Option<LookupId> {
        self.lookups.begin(now, question, &*self.machine)
    }

    /// Begins a lookup of a program that asks by DNS. `None` if no slot is free.
    pub fn find_for_program(&mut self, now: Instant, question: Question) -> Option<LookupId> {
        self.lookups
            .begin_for_program(now, question, &*self.machine)
    }

    /// Gives up a lookup because its operator has left.
    pub fn give_up(&mut self, now: Instant, lookup: LookupId) {
        self.lookups.give_up(now, lookup);
    }

    /// The outcome of a lookup, between its [`Action::Done`] or [`Action::Respond`] and the next
    /// poll.
    pub fn outcome(&self, lookup: LookupId) -> Option<Outcome<'_>> {
        self.lookups.outcome(lookup)
    }

    /// The statistics of the lookups.
    pub fn lookup_stats(&self) -> [TableStats; 4] {
        self.lookups.stats()
    }

    /// Takes a record that a search found ([`Action::Search`]), verified and decoded; its validity
    /// is checked here.
    pub fn found(&mut self, (now, system_ms): (Instant, u64), query: Query, copy: RecordCopy<'_>) {
        let own_ms = self.own_ms(now, system_ms);
        match query {
            Query::Lookup(query) => _ = self.lookups.found(now, own_ms, query, copy),
            // Neither searches for anything.
            Query::Listing { .. } | Query::Network(_) => {}
            Query::Machine(ref peer) => self.machine.handle(
                now,
                Input::SearchValue {
                    peer,
                    record: copy.info,
                    own_ms,
                },
            ),
        }
    }

    /// Takes the providers that one server of the DHT names ([`Action::Providers`]), and where they
    /// listen. `coverage`: whether it may know of
    /// others.
    pub fn provided(
        &mut self,
        now: Instant,
        query: Query,
        providers: &[(PeerId, Addrs)],
        coverage: Coverage,
    ) {
        if let Query::Lookup(query) = query {
            self.lookups.provided(now, query, providers, coverage);
        }
    }

    /// Takes note that a search has ended, in which so many servers of the DHT have answered.
    pub fn searched(&mut self, (now, system_ms): (Instant, u64), query: Query, reached: u16) {
        let own_ms = self.own_ms(now, system_ms);
        match query {
            Query::Lookup(query) => _ = self.lookups.searched(now, query, reached),
            Query::Listing { .. } | Query::Network(_) => {}
            Query::Machine(ref peer) => {
                self.machine
                    .handle(now, Input::SearchEnded { peer, own_ms });
            }
        }
    }
}
