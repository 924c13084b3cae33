//! One process of the protocol, as its host drives it: the machine of its role, its lookups, and
//! around them what decides when the record is signed, what time it is, and how the process ends.
//!
//! ```text
//!            what happened, with `now`                     actions
//!  net ───▶ handle(Input) · beat · serve   ───▶ Endpoint ───▶ poll() ───▶ net, disk, log
//!                                                   │
//!                                                   └── next_timeout(): when to poll again
//!                                                       without an input
//! ```
//!
//! The order of work is here and nowhere else. A host has one loop: it gives what has happened in
//! the order in which it happened, carries out actions until [`Endpoint::poll`] has none left, and
//! polls again when [`Endpoint::next_timeout`] has come. It keeps bytes, streams and files, and
//! decides nothing.
//!
//! Invariants:
//! - The machine's actions come first. Then the record is signed, lookups go on, the end is begun or
//!   over, and every [`HOUSEKEEPING`] the host looks at what has changed.
//! - Requests and searches are named by a [`Query`] alone: a host knows nothing of what waits.
//! - What an action makes of a connection's slot follows it as [`Action::Slot`].
//! - A record that could not be signed is due again at the next housekeeping, not before.
//! - A process that ends signs nothing, and keeps no house: its leases are given up, so the host
//!   would forget its servers. [`Action::End`] comes once, when all last beats are answered
//!   or their time is over, and nothing comes after it.

use core::ops::DerefMut;

use super::{
    Action, Addrs, Beat, BeatOutcome, Coverage, Entries, Input, Instant, Machine, PeerId, Reader,
    RequestId, Role, SignedRecord, StreamId, TableStats, address,
    clock::WallClock,
    codec::{
        directory::{Request, Response},
        record::Verifier,
    },
    farewell::Farewells,
    lookup::{LookupAction, LookupId, Lookups, Outcome, Query, Question, RecordCopy, Served},
    restart::HOUSEKEEPING,
    rivals::FirstBeat,
    signing::{Signing, Urgency},
};

/// The place of a beat on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first beat of a stream that was opened from this address.
    First {
        /// Where the stream comes from.
        source: address::Endpoint,
        /// What its sender can dial.
        reader: Reader,
    },
    /// The first beat that was held until [`Action::Judge`].
    Held {
        /// What its sender can dial.
        reader: Reader,
    },
    /// A later one.
    Next,
}

/// How far the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Runs,
    /// The last beats are being sent.
    Leaves,
    /// It waits for their answers.
    Waits,
    Over,
}

/// One process: `M` is its machine, owned (`Box<dyn Machine>`) or borrowed (`&mut Node`), and `L`
/// its [`Lookups`]. They are large, so they can be placed where they never move.
pub struct Endpoint<M, L> {
    machine: M,
    lookups: L,
    clock: WallClock,
    signing: Signing,
    farewells: Farewells,
    stage: Stage,
    /// The peer of the last action, if the slot of its connection is to be looked at.
    slot: Option<PeerId>,
    housekeeping: Instant,
}

impl<M, L, const F: usize, const G: usize, const P: usize, const D: usize> Endpoint<M, L>
where
    M: DerefMut<Target: Machine>,
    L: DerefMut<Target = Lookups<F, G, P, D>>,
{
    /// A process that starts at `now` with a machine and lookups that have started, and with what
    /// the clock remembers of earlier runs.
    pub fn new(now: Instant, machine: M, lookups: L, clock: WallClock) -> Self {
        Self {
            signing: Signing::new(machine.role()),
            machine,
            lookups,
            clock,
            farewells: Farewells::default(),
            stage: Stage::Runs,
            slot: None,
            housekeeping: now + HOUSEKEEPING,
        }
    }

    /// Takes what has happened. After it, poll until there is no action left, then read the next
    /// time-out. After [`Endpoint::overslept`] all that is pending is given first, then
    /// [`Input::Overslept`].
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Acked {
                server,
                cause,
                clock: Some(theirs),
                ..
            } => self.clock.heard(now, &*self.machine, server, cause, theirs),
            Input::GaveUp { server } => self.farewells.ended(server),
            Input::ShutDown => {
                self.signing.end();
                self.stage = Stage::Leaves;
            }
            _ => {}
        }
        self.machine.handle(now, input);
    }

    /// The next action at `now`, if there is one. `system_ms`: what the system clock shows, ms since
    /// the Unix epoch.
    pub fn poll(&mut self, now: Instant, system_ms: u64) -> Option<Action> {
        if let Some(peer) = self.slot.take() {
            let is_reserved = self.machine.reserves_slot(&peer);
            return Some(Action::Slot { peer, is_reserved });
        }
        let own_ms = self.clock.own_ms(now, system_ms);
        while let Some(action) = self.machine.poll(now, own_ms) {
            match &action {
                // Signed at once, so that the next beats carry the record.
                Action::Sign if !self.signs(system_ms) => continue,
                Action::GiveUp { server, .. } => {
                    self.farewells.sent(*server);
                    self.slot = Some(*server);
                }
                Action::Beat { server: peer, .. } | Action::Close { peer, .. } => {
                    self.slot = Some(*peer);
                }
                _ => {}
            }
            return Some(action);
        }
        if self.signing.begin(&self.clock, system_ms) {
            return Some(Action::Sign);
        }
        if let Some(action) = self.lookups.poll(now, &mut *self.machine) {
            return Some(self.carried_out(action));
        }
        self.poll_end(now).or_else(|| self.poll_house(now))
    }

    /// What the host does for a lookup.
    fn carried_out(&mut self, action: LookupAction) -> Action {
        match action {
            LookupAction::Ask {
                lookup,
                query,
                server,
                addrs,
                ask,
            } => Action::Ask {
                query: Query::Lookup(query),
                lookup: Some(lookup),
                server,
                addrs,
                ask,
            },
            LookupAction::Providers { query, key } => {
                let query = Query::Lookup(query);
                Action::Providers { query, key }
            }
            LookupAction::Search { query, role, peer } => {
                let query = Query::Lookup(query);
                Action::Search { query, role, peer }
            }
            LookupAction::EndSearch { query } => {
                let query = Query::Lookup(query);
                Action::EndSearch { query }
            }
            LookupAction::Done { lookup } => match self.lookups.take_asker(lookup) {
                Some(request) => Action::Respond { request, lookup },
                None => Action::Done { lookup },
            },
        }
    }

    fn signs(&mut self, system_ms: u64) -> bool {
        self.signing.want();
        self.signing.begin(&self.clock, system_ms)
    }

    fn poll_end(&mut self, now: Instant) -> Option<Action> {
        if self.stage == Stage::Leaves {
            self.farewells.begin_end(now);
            self.stage = Stage::Waits;
        }
        let end = self.farewells.timeout();
        if self.stage != Stage::Waits || end.is_none_or(|end| now < end) {
            return None;
        }
        self.stage = Stage::Over;
        let answered = self.farewells.is_answered();
        Some(Action::End { answered })
    }

    fn poll_house(&mut self, now: Instant) -> Option<Action> {
        if now < self.housekeeping || self.stage != Stage::Runs {
            return None;
        }
        self.housekeeping = now + HOUSEKEEPING;
        self.signing.retry();
        Some(Action::KeepHouse)
    }

    /// When to poll without an input; `None`: the process is over.
    pub fn next_timeout(&self) -> Option<Instant> {
        let house = (self.stage == Stage::Runs).then_some(self.housekeeping);
        let timeouts = [
            self.machine.next_timeout(),
            self.lookups.timeout(),
            self.farewells.timeout(),
            house,
        ];
        let next = timeouts.into_iter().flatten().min();
        next.filter(|_| self.stage != Stage::Over)
    }

    /// A beat of a peer has arrived, decoded and with its record verified. `None`: it is held, so
    /// keep its frame until [`Action::Judge`], and give it again.
    pub fn beat(
        &mut self,
        now: Instant,
        (from, stream): (&PeerId, StreamId),
        place: Place,
        beat: &Beat<SignedRecord<'_>>,
    ) -> Option<BeatOutcome<'_>> {
        let opened = match place {
            Place::Next => None,
            Place::Held { reader } => Some(reader),
            Place::First { source, reader } => {
                match self.machine.stream_opened(now, from, stream, source) {
                    FirstBeat::Held => return None,
                    FirstBeat::Now => Some(reader),
                }
            }
        };
        if let Some(reader) = opened {
            self.machine.handle(now, Input::Seen { peer: from, reader });
        }
        Some(self.machine.beat(now, from, stream, beat))
    }

    /// Serves the directory request of a peer that can dial what `reader` says. The entries of a list
    /// are put into `entries`, which the response borrows. `None`: the answer comes as
    /// [`Action::Answer`] or [`Action::Respond`].
    pub fn serve<'a: 'r, 'r>(
        &'a mut self,
        now: Instant,
        (from, id, reader): (&PeerId, RequestId, Reader),
        request: Request,
        entries: &'r mut Entries<'a>,
    ) -> Option<Response<'r>> {
        let Self {
            machine, lookups, ..
        } = self;
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

    /// Takes a server's response to a request ([`Action::Ask`]), or its failure. Records that do not
    /// verify are ignored.
    pub fn responded(
        &mut self,
        now: Instant,
        query: Query,
        response: Option<&Response<'_>>,
        verifier: &impl Verifier,
    ) {
        match query {
            Query::Lookup(query) => self.lookups.responded(now, query, response, verifier),
            Query::Machine(ref native) => {
                let answer = match response {
                    Some(Response::Indexers(answer)) => Some(*answer),
                    _ => None,
                };
                self.machine.handle(now, Input::Answered { native, answer });
            }
        }
    }

    /// Takes a record that a search found ([`Action::Search`]), verified and decoded; its validity is
    /// checked here.
    pub fn found(&mut self, (now, system_ms): (Instant, u64), query: Query, copy: RecordCopy<'_>) {
        let own_ms = self.own_ms(now, system_ms);
        match query {
            Query::Lookup(query) => _ = self.lookups.found(now, own_ms, query, copy),
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
            Query::Machine(ref peer) => {
                self.machine
                    .handle(now, Input::SearchEnded { peer, own_ms });
            }
        }
    }

    /// Sets the addresses that this process announces, best first. Given before a poll; it costs
    /// nothing if they are the same.
    pub fn announce<'a>(&mut self, addrs: impl Iterator<Item = &'a [u8]> + Clone) {
        self.signing.announce(addrs);
    }

    /// Sets which of the own services are offered, one bit each
    /// ([`Health::offered`](super::health::Health::offered)).
    pub fn offer(&mut self, services: u8) {
        self.signing.offer(services);
    }

    /// Takes note that what the record says of devices of the link has changed.
    pub fn record_changed(&mut self) {
        self.signing.changed();
    }

    /// Takes note that the record was signed ([`Action::Sign`]) with the addresses announced and the
    /// services offered.
    pub fn record_signed(&mut self, now: Instant) -> Urgency {
        let urgency = self.signing.signed();
        self.machine.handle(now, Input::RecordSigned { urgency });
        urgency
    }

    /// The own services to be in the record, one bit each.
    pub fn offered(&self) -> u8 {
        self.signing.offered()
    }

    /// The time to sign and judge records with, ms since the Unix epoch.
    pub fn own_ms(&self, now: Instant, system_ms: u64) -> u64 {
        self.clock.own_ms(now, system_ms)
    }

    /// The same, if it may be persisted; see [`WallClock::settled_ms`].
    pub fn settled_ms(&self, now: Instant, system_ms: u64) -> Option<u64> {
        self.clock.settled_ms(now, system_ms)
    }

    /// By how much the process has overslept; see [`Machine::overslept`].
    pub fn overslept(&self, now: Instant) -> core::time::Duration {
        self.machine.overslept(now)
    }

    /// Whether the process was told to end.
    pub fn is_ending(&self) -> bool {
        self.stage != Stage::Runs
    }

    /// The role of a server of this process. Indexers and natives hold leases with natives alone.
    pub fn role_of(&self, server: &PeerId) -> Role {
        match self.machine.role() {
            Role::Node if !self.machine.is_native(server) => Role::Indexer,
            _ => Role::Native,
        }
    }

    /// The machine, for queries.
    pub fn machine(&self) -> &M::Target {
        &self.machine
    }

    /// The machine, for what answers with borrowed lists.
    pub fn machine_mut(&mut self) -> &mut M::Target {
        &mut self.machine
    }
}

#[cfg(test)]
mod tests;
