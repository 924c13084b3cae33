//! One process of the protocol, as its host drives it: the machine of its role, its lookups,
//! listings and watches, and around them what decides when the record is signed, what time it is,
//! and how the process ends.
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
//! - The machine's actions come first. Then the record is signed, lookups, watches and listings go
//!   on, the end is begun or over, and every [`HOUSEKEEPING`] the host looks at what has changed,
//!   and at the slots of all connections.
//! - Requests and searches are named by a [`Query`] alone: a host knows nothing of what waits.
//! - What an action or a beat makes of a connection's slot follows it as [`Action::Slot`].
//! - A record that could not be signed is due again at the next housekeeping, not before.
//! - A process that ends signs nothing, and keeps no house: its leases are given up, so the host
//!   would forget its servers. [`Action::End`] comes once, when all last beats are answered
//!   or their time is over, and nothing comes after it.

mod listings;
mod lookups;
mod members;
mod slots;

use core::ops::DerefMut;

use super::{
    Action, Arrival, Beat, BeatOutcome, Filter, Input, Instant, LeaseAnswer, Machine, PeerId,
    Reader, Role, SignedRecord, StreamId, address,
    clock::WallClock,
    closed::Closed,
    farewell::Farewells,
    listing::{Listing, Listings},
    lookup::{LookupAction, Lookups, Query, Question},
    restart::HOUSEKEEPING,
    rivals::FirstBeat,
    signing::{Signing, Urgency},
    table::Vacant,
    watch::{WatcherId, Watches, client::Extent},
};
use slots::{ChangedSlot, ChangedSlots};

/// The place of a beat on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first beat of a stream that was opened from this address.
    First {
        /// Where the stream comes from.
        source: address::TransportAddr,
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

/// One process: `M` is its machine, owned (`Box<dyn Machine>`) or borrowed (`&mut Node`), `L` its
/// [`Lookups`], `W` its [`Watches`], `P` the place of a [`Listing`], of which there are `N`, and
/// `C` that of a [`Closed`] network. They are large, so they can be placed where they never move.
pub struct Endpoint<M, L, W, P, const N: usize, C = &'static mut Closed> {
    machine: M,
    lookups: L,
    watches: W,
    listings: Listings<P, N>,
    clock: WallClock,
    signing: Signing,
    farewells: Farewells,
    stage: Stage,
    slots: ChangedSlots,
    housekeeping: Instant,
    closed: Option<C>,
}

impl<M: DerefMut<Target: Machine>, L, W, P, const N: usize> Endpoint<M, L, W, P, N> {
    /// A process that starts at `now` with a machine, lookups and watches that have started, with
    /// its listings, and with what the clock remembers of earlier runs. Its network is an open one
    /// ([`Endpoint::member_of`]).
    pub fn new(
        now: Instant,
        machine: M,
        lookups: L,
        watches: W,
        listings: Listings<P, N>,
        clock: WallClock,
    ) -> Self {
        Self {
            signing: Signing::new(machine.role()),
            machine,
            lookups,
            watches,
            listings,
            clock,
            farewells: Farewells::default(),
            stage: Stage::Runs,
            slots: ChangedSlots::default(),
            housekeeping: now + HOUSEKEEPING,
            closed: None,
        }
    }
}

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
    const R: usize,
    const K: usize,
    const V: usize,
    const N: usize,
    C,
> Endpoint<M, L, W, P, N, C>
where
    M: DerefMut<Target: Machine>,
    L: DerefMut<Target = Lookups<F, G, O, D>>,
    W: DerefMut<Target = Watches<R, K, V>>,
    P: DerefMut<Target = Listing<B>>,
    B: AsRef<[u64]> + AsMut<[u64]>,
    C: DerefMut<Target = Closed>,
{
    /// Takes what has happened. After it, poll until there is no action left, then read the next
    /// time-out. After [`Endpoint::overslept`] all that is pending is given first, then
    /// [`Input::Overslept`].
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        if self.closed.is_some() && self.denies(now, &input) {
            return;
        }
        match input {
            Input::Acked {
                server,
                cause,
                clock: Some(theirs),
                ..
            } => self.clock.heard(now, &*self.machine, server, cause, theirs),
            Input::GaveUp { server } => self.farewells.ended(server),
            Input::NativeLearned { native, .. } | Input::NativeForgotten { native } => {
                self.slots.changed(*native);
            }
            Input::Overslept { gap } => self.watches.overslept(now, gap),
            Input::ShutDown => {
                self.signing.end();
                self.stage = Stage::Leaves;
            }
            _ => {}
        }
        self.machine.handle(now, input);
    }

    /// The next action at `now`, if there is one. `system_ms`: what the system clock shows, ms
    /// since the Unix epoch.
    pub fn poll(&mut self, now: Instant, system_ms: u64) -> Option<Action> {
        if let Some(slot) = self.slots.next() {
            return Some(match slot {
                ChangedSlot::Of(peer) => {
                    let is_reserved = self.machine.reserves_slot(&peer);
                    Action::Slot { peer, is_reserved }
                }
                ChangedSlot::OfAll => Action::Slots,
            });
        }
        if let Some(action) = self.poll_members(now, system_ms) {
            return Some(action);
        }
        let own_ms = self.clock.own_ms(now, system_ms);
        while let Some(action) = self.machine.poll(now, own_ms) {
            match &action {
                // Signed at once, so that the next beats carry the record.
                Action::Sign if !self.signs(system_ms) => continue,
                Action::GiveUp { server, .. } => {
                    self.farewells.sent(*server);
                    self.slots.changed(*server);
                }
                Action::Beat { server: peer, .. } | Action::Close { peer, .. } => {
                    self.slots.changed(*peer);
                }
                _ => {}
            }
            return Some(action);
        }
        if self.signing.begin(&self.clock, system_ms) {
            return Some(Action::Sign);
        }
        self.poll_lookups(now, own_ms)
            .or_else(|| {
                let step = self.listings.poll(now, &mut *self.machine)?;
                Some(Action::Listing(step))
            })
            .or_else(|| self.poll_end(now))
            .or_else(|| self.poll_house(now))
    }

    /// Lookups and watches, which wait for each other.
    fn poll_lookups(&mut self, now: Instant, own_ms: u64) -> Option<Action> {
        loop {
            while let Some(step) = self.lookups.poll(now, own_ms, &mut *self.machine) {
                let action = self.carried_out(now, step);
                if action.is_some() {
                    return action;
                }
            }
            if let Some(step) = self.watches.poll(now, &*self.machine) {
                return Some(Action::Watch(step));
            }
            if !self.watches.wants_list() {
                return None;
            }
            let question = Question::Indexers;
            let lookup = self.lookups.begin(now, question, &*self.machine);
            self.watches.list_begun(lookup);
            if lookup.is_none() {
                self.watches.listed(now, &*self.machine, &[], Extent::Part);
            }
        }
    }

    /// What the host does for a lookup.
    fn carried_out(&mut self, now: Instant, action: LookupAction) -> Option<Action> {
        Some(match action {
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
            LookupAction::Done { lookup } if self.watches.is_looking(lookup) => {
                let outcome = self.lookups.outcome(lookup)?;
                let extent = outcome.extent(self.machine.role());
                let machine = &*self.machine;
                self.watches.listed(now, machine, outcome.indexers, extent);
                return None;
            }
            LookupAction::Done { lookup } => {
                if self.is_closed() {
                    self.lookups.heed_grants(lookup);
                }
                match self.lookups.take_asker(lookup) {
                    Some(request) => Action::Respond { request, lookup },
                    None => Action::Done { lookup },
                }
            }
        })
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
        // A lease that was never granted needs no last beat, so nothing has said that it is over.
        self.slots.all_changed();
        Some(Action::KeepHouse)
    }

    /// When to poll without an input; `None`: the process is over.
    pub fn next_timeout(&self) -> Option<Instant> {
        let house = (self.stage == Stage::Runs).then_some(self.housekeeping);
        let timeouts = [
            self.machine.next_timeout(),
            self.lookups.timeout(),
            self.watches.timeout(),
            self.listings.timeout(),
            self.farewells.timeout(),
            self.closed.as_deref().and_then(Closed::timeout),
            house,
        ];
        let next = timeouts.into_iter().flatten().min();
        next.filter(|_| self.stage != Stage::Over)
    }

    /// A beat of a peer has arrived, decoded and with its record verified. `None`: it is held, so
    /// keep its frame until [`Action::Judge`], and give it again. What it shows of its sender's
    /// membership is given before ([`Endpoint::shown`]).
    pub fn beat(
        &mut self,
        now: Instant,
        (from, stream): (&PeerId, StreamId),
        place: Place,
        beat: &Beat<SignedRecord<'_>>,
    ) -> Option<BeatOutcome<'_>> {
        if self.closed.is_some()
            && let Some(refused) = self.refuse(now, (from, stream), place, beat)
        {
            return Some(refused);
        }
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
        let outcome = self.machine.beat(now, from, stream, beat);
        // A lease may begin with any beat of a stream: the one before may have been released.
        let begins = matches!(outcome.arrival, Arrival::Joined(_));
        if begins || outcome.ack.lease_answer() == LeaseAnswer::Ended {
            self.slots.changed(*from);
        }
        Some(outcome)
    }

    /// The watches, for what happens on their streams and for their readers.
    pub fn watches(&self) -> &W::Target {
        &self.watches
    }

    /// The same.
    pub fn watches_mut(&mut self) -> &mut W::Target {
        &mut self.watches
    }

    /// A peer watches the own directory. Returns false if there are too many: its stream must be
    /// ended.
    pub fn watched_by(
        &mut self,
        now: Instant,
        (peer, watcher): (PeerId, WatcherId),
        filter: Filter,
    ) -> bool {
        let changes = self.machine.changes();
        let watchers = self.watches.watchers();
        watchers.join(now, watcher, Some(peer), filter, changes)
    }

    /// The large unused parts of the tables. They may be given back to the system.
    pub fn spare(&mut self) -> impl Iterator<Item = Vacant<'_>> {
        let machine = self.machine.spare().into_iter();
        machine.chain(self.watches.spare())
    }
}

impl<M: DerefMut<Target: Machine>, L, W, P, const N: usize, C> Endpoint<M, L, W, P, N, C> {
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

    /// Takes note that the record was signed ([`Action::Sign`]) with the addresses announced and
    /// the services offered.
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

    /// The role of a peer that this process asks: that of the lease between them. Without one it is
    /// an indexer for a node, and a native for others.
    pub fn role_of(&self, server: &PeerId) -> Role {
        let otherwise = match self.machine.role() {
            Role::Node => Role::Indexer,
            Role::Indexer | Role::Native => Role::Native,
        };
        self.machine.role_of(server).unwrap_or(otherwise)
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
