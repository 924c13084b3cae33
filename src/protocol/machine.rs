//! The interface of the three roles to their driver.
//!
//! ```text
//!            inputs, each with `now`                    actions
//!  net ───▶ handle(Input) · beat · ask · page ───▶ Machine ───▶ poll() ───▶ net
//!                                                     │
//!                                                     └── next_timeout(): when to poll
//!                                                         again without an input
//! ```
//!
//! The driver's duties: it gives inputs in the order in which they happened; after each it polls
//! until there is no action left; and it polls when [`Machine::next_timeout`] has come. It decides
//! nothing itself.
//!
//! Invariant: a role does nothing by itself. What it wants done is an action of `poll`, or the
//! answer that a call returns.
//!
//! Each role states what it does not do: the only default implementation, [`Machine::is_native`],
//! follows from what the role answers.

use core::time::Duration;

use super::{
    Addrs, Beat, BeatOutcome, Cursor, Entry, IndexersAnswer, IndexersPage, Input, Instant, Key,
    Offer, OutBeat, PeerId, Reason, RequestId, Role, Selection, SignedRecord, StreamId, Want,
    address::TransportAddr,
    directory::{Claimants, Found},
    grants::Denial,
    indexer::Draining,
    lease::Lease,
    lease_table::StreamRecord,
    life::LeaseEnd,
    listing::ListingAction,
    lookup::{Ask, KnownServer, LookupId, Query},
    lost::{Lost, LostPeer},
    native::{LiveIndexer, NewestIndexer, Responsible},
    rivals::{Contested, FirstBeat},
    table::{TableStats, Vacant},
    time::LoopStats,
    watch::{Changes, WatchAction},
};

/// Something that the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a beat together with [`Machine::beat_known`]. If no stream is open, open a new one, and
    /// dial if needed.
    Beat {
        /// The server that grants the lease.
        server: PeerId,
        /// Where it listens.
        addrs: Addrs,
        /// The beat.
        beat: OutBeat,
    },
    /// Drop the own heartbeat stream to the server, if one is open. No [`Input::LeaseClosed`] is
    /// needed for it.
    Drop {
        /// The server that granted the lease.
        server: PeerId,
    },
    /// Send a last beat that requests 0 ms ([`OutBeat::last`]) if a stream is open, then close the
    /// stream. Give [`Input::GaveUp`] when that is answered or will not be, within
    /// [`ANSWER_LIMIT`](super::farewell::ANSWER_LIMIT).
    GiveUp {
        /// The server that granted the lease.
        server: PeerId,
        /// For the log: its role, which the machine does not know any more.
        role: Role,
    },
    /// Sign the own record again, then give [`Input::RecordSigned`]; with an endpoint, call
    /// [`Endpoint::record_signed`](super::endpoint::Endpoint::record_signed).
    Sign,
    /// Close a heartbeat stream of a peer, because its lease is over or it has a newer stream.
    Close {
        /// The peer of the stream.
        peer: PeerId,
        /// The stream.
        stream: StreamId,
        /// For the log: the lease that has ended.
        ended: Option<LeaseEnd>,
    },
    /// Send `released` on the peer's heartbeat stream, unsolicited.
    Release {
        /// The node that is released.
        peer: PeerId,
        /// Its stream.
        stream: StreamId,
        /// The rest of its lease.
        left: Duration,
        /// The indexer to go to; `None` if its addresses are unknown.
        offer: Option<Offer>,
    },
    /// Ping the peer, and dial if needed; then give [`Input::Probed`].
    Probe {
        /// The peer.
        peer: PeerId,
        /// Where it listens.
        addrs: Addrs,
    },
    /// Search the DHT for a record. Give each record to [`Endpoint::found`], then call
    /// [`Endpoint::searched`].
    ///
    /// [`Endpoint::found`]: super::endpoint::Endpoint::found
    /// [`Endpoint::searched`]: super::endpoint::Endpoint::searched
    Search {
        /// Names the search.
        query: Query,
        /// The kind of record: that of a node or that of an indexer.
        role: Role,
        /// The record's subject.
        peer: PeerId,
    },
    /// Of an endpoint only: search the DHT for the providers of a key. Give those that each server
    /// names to [`Endpoint::provided`](super::endpoint::Endpoint::provided), then call
    /// [`Endpoint::searched`](super::endpoint::Endpoint::searched).
    Providers {
        /// Names the search.
        query: Query,
        /// The key.
        key: Key,
    },
    /// End a search of the DHT. Its further results are ignored.
    EndSearch {
        /// The search.
        query: Query,
    },
    /// Announce in the DHT that this process knows which node has the key; then give
    /// [`Input::Announced`].
    Announce {
        /// A name or a service that is listed here.
        key: Key,
    },
    /// For the log: the refresh loop stored an indexer that it found in the DHT.
    Refreshed {
        /// The indexer.
        peer: PeerId,
    },
    /// Answer a directory request, with [`Machine::answer_offers`].
    Answer {
        /// Names the request.
        request: RequestId,
        /// The native will take the node in.
        takes_in: bool,
    },
    /// Ask a server, and dial if needed; then call
    /// [`Endpoint::responded`](super::endpoint::Endpoint::responded) once.
    Ask {
        /// Names the query.
        query: Query,
        /// For the log: the lookup that asks.
        lookup: Option<LookupId>,
        /// The server.
        server: PeerId,
        /// Where it listens; empty if this is not known.
        addrs: Addrs,
        /// The query.
        ask: Ask,
    },
    /// Of an endpoint only: answer a directory request with the outcome of this lookup
    /// ([`Outcome::response`](super::lookup::Outcome::response)), which can be read until the next
    /// poll.
    Respond {
        /// Names the request.
        request: RequestId,
        /// The lookup.
        lookup: LookupId,
    },
    /// Of an endpoint only: this lookup of the operator or of a program is over. Its outcome can be
    /// read until the next poll.
    Done {
        /// The lookup.
        lookup: LookupId,
    },
    /// Of an endpoint only: carry on a listing.
    Listing(ListingAction),
    /// Of an endpoint only: carry on a watch, or serve a watcher.
    Watch(WatchAction),
    /// For the log: the network has changed ([`Input::NetworkChanged`]), so what has no answer is
    /// tried again at once.
    Retry,
    /// For the log: a server gave no lease. [`Action::Drop`] or [`Action::GiveUp`] ends the stream.
    Denied {
        /// The server.
        server: PeerId,
        /// The reason, in the server's words.
        reason: Reason,
    },
    /// Ping the peer over the connection that carries this heartbeat stream, and over no other;
    /// then give [`Input::StreamProbed`].
    ProbeStream {
        /// The peer of the stream.
        peer: PeerId,
        /// The stream.
        stream: StreamId,
    },
    /// Give the machine the first beat of this stream, which was held back ([`FirstBeat::Held`]).
    Judge {
        /// The peer of the stream.
        peer: PeerId,
        /// The stream.
        stream: StreamId,
    },
    /// For the log: two devices use one identity, and one of them is refused.
    Contested(Contested),
    /// For the log: only one device uses the identity again, as far as is known.
    Uncontested {
        /// The identity.
        peer: PeerId,
        /// It was evicted for others, so nothing is known of it any more.
        evicted: bool,
    },
    /// Of an endpoint only: reserve a slot for the peer's connection, or release it.
    Slot {
        /// The peer.
        peer: PeerId,
        /// Whether one is reserved ([`Machine::reserves_slot`]).
        is_reserved: bool,
    },
    /// Of an endpoint only: reserve a slot for each connected peer, and release each slot, as
    /// [`Machine::reserves_slot`] says.
    Slots,
    /// Of an endpoint only: this peer does not belong to the closed network any more. Drop its
    /// connections, and what the DHT store has of it.
    Expel {
        /// The peer.
        peer: PeerId,
        /// Why.
        denial: Denial,
        /// Whether it had a lease here, or granted one.
        had_lease: bool,
    },
    /// Of an endpoint only: a peer is a member of the closed network, which was not known before.
    Admit {
        /// The peer.
        peer: PeerId,
    },
    /// Of an endpoint only: a newer revocation list counts. Keep it for the next start
    /// ([`Closed::list`](super::closed::Closed::list)).
    KeepRevocations,
    /// Of an endpoint only: look at what is kept for a restart
    /// ([`restart`](super::restart)), and at memory that is unused.
    KeepHouse,
    /// Of an endpoint only: the process has given up its leases and ends now.
    End {
        /// Whether each server has answered its last beat.
        answered: bool,
    },
}

/// The largest size of an input or an action, in bytes. They are moved, so long lists are borrowed
/// or read from the machine.
pub(super) const MAX_MOVED: usize = 512;
const _: () = assert!(size_of::<Action>() <= MAX_MOVED);
const _: () = assert!(size_of::<BeatOutcome<'_>>() <= MAX_MOVED);
const _: () = assert!(size_of::<IndexersAnswer<'_>>() <= MAX_MOVED);
const _: () = assert!(size_of::<IndexersPage<'_>>() <= MAX_MOVED);

/// Receives the state of a machine: what it does not implement, it does not read.
pub trait Report {
    /// An entry of `live_indexers`.
    fn live_indexer(&mut self, _entry: &LiveIndexer) {}
    /// An entry of `known_peer_ids`.
    fn known_peer_id(&mut self, _peer: &PeerId) {}
    /// An entry of `responsible_peers`.
    fn responsible_peer(&mut self, _entry: &Responsible) {}
    /// An entry of `stream_records`.
    fn stream_record(&mut self, _record: &StreamRecord) {}
    /// A lease held elsewhere, or sought.
    fn lease(&mut self, _lease: &Lease) {}
    /// A node asks its natives next at this time.
    fn next_round(&mut self, _at: Instant) {}
    /// A node: the leases that it wants to hold with indexers.
    fn wanted_leases(&mut self, _wanted: usize) {}
    /// A loop, by its name.
    fn background_loop(&mut self, _name: &'static str, _stats: LoopStats) {}
    /// A table.
    fn table(&mut self, _stats: TableStats) {}
    /// An identity that two devices have used recently.
    fn contested(&mut self, _contested: &Contested) {}
    /// It is being drained.
    fn draining(&mut self, _draining: Draining) {}
}

/// One role as a pure state machine.
///
/// An event without an answer is an [`Input`]. [`Machine::beat`], [`Machine::ask`] and
/// [`Machine::page`] answer directly, because their answers borrow from the machine. So does
/// [`Machine::stream_opened`]: as an input it would add to the outcome of every beat a case that
/// only the first beat of a stream can have. What has to be done later comes from
/// [`Machine::poll`]. All other calls are queries.
pub trait Machine {
    /// The role of this machine.
    fn role(&self) -> Role;

    /// Processes an event. After it, poll until there is no action left, then read the next
    /// time-out.
    fn handle(&mut self, now: Instant, input: Input<'_>);

    /// The next action at `now`, if there is one. `own_ms` is wall-clock time, for judging DHT
    /// copies only.
    fn poll(&mut self, now: Instant, own_ms: u64) -> Option<Action>;

    /// The ids that go with the [`Action::Beat`] that was polled last.
    fn beat_known(&self) -> &[PeerId];

    /// The offers that go with the [`Action::Answer`] that was polled last, until the next beat or
    /// request.
    fn answer_offers(&self) -> &[Offer];

    /// When to poll without an input; `None`: not before the next input.
    fn next_timeout(&self) -> Option<Instant>;

    /// The first beat of a heartbeat stream that `peer` opened from this address has arrived and is
    /// valid. Called immediately before the driver gives that beat or holds it back, according to
    /// the result. While it is held, the machine refuses every beat of this stream, so that none
    /// can count before [`Action::Judge`].
    fn stream_opened(
        &mut self,
        now: Instant,
        peer: &PeerId,
        stream: StreamId,
        source: TransportAddr,
    ) -> FirstBeat;

    /// A beat arrived on a heartbeat stream that `from` opened.
    fn beat(
        &mut self,
        now: Instant,
        from: &PeerId,
        stream: StreamId,
        beat: &Beat<SignedRecord<'_>>,
    ) -> BeatOutcome<'_>;

    /// A node asks for indexers. `None`: the answer comes as [`Action::Answer`].
    fn ask(
        &mut self,
        now: Instant,
        from: &PeerId,
        request: RequestId,
        most: usize,
        want: Want,
    ) -> Option<IndexersAnswer<'_>>;

    /// A peer that only asks requests one page of at most `most` live indexers, in the order of
    /// their ids. `None` stands for this process.
    fn page(
        &mut self,
        now: Instant,
        asker: Option<&PeerId>,
        from: Cursor,
        most: usize,
    ) -> IndexersPage<'_>;

    /// When the beat was sent that the server has not answered yet; `None` if it has answered all.
    fn asked_at(&self, server: &PeerId) -> Option<Instant>;

    /// By how much more than a whole interval the latest loop is late; zero if none is. If it is
    /// not zero, the driver first gives all pending events, then [`Input::Overslept`], and only
    /// then polls.
    fn overslept(&self, now: Instant) -> Duration;

    /// Where the peer listens, if this machine knows it.
    fn addrs_of(&self, peer: &PeerId) -> Option<&Addrs>;

    /// Calls `tell` for each server of this process: the configured natives, and the servers with
    /// which it holds or seeks leases.
    fn servers(&self, now: Instant, tell: &mut dyn FnMut(KnownServer));

    /// Whether the peer is a configured native. Its clock counts, and so do the addresses that it
    /// observes.
    fn is_native(&self, peer: &PeerId) -> bool {
        let mut is_one = false;
        self.servers(Instant::default(), &mut |server| {
            is_one |= server.role == Role::Native && server.peer == *peer;
        });
        is_one
    }

    /// The role of a server of this process, or of a peer that holds a lease here; `None` for
    /// others.
    fn role_of(&self, peer: &PeerId) -> Option<Role>;

    /// Whether the peer is a live indexer of this native whose heartbeat stream has ended: its
    /// lease ends unless it beats again in time.
    fn has_cut_off(&self, peer: &PeerId) -> bool;

    /// The nodes listed here that claim the name, each with a record that has not ended.
    fn claimants(&self, now: Instant, name: &str) -> Claimants<'_>;

    /// The node's entry in the directory, if its record has not ended.
    fn listed(&self, now: Instant, peer: &PeerId) -> Option<Found<'_>>;

    /// Gives the nodes that the filter selects to `visit`, in the order of their ids from the
    /// cursor on, and those that left or were lost too if `which` says so. `visit` returns
    /// false for a node that it has no room for, but takes the first one. Returns the id after
    /// which to go on; `None`: there are no more. Some 512 nodes are looked at, so less than a page
    /// may come with an id to go on after.
    fn entries<'s>(
        &'s self,
        now: Instant,
        which: Selection<'_>,
        visit: &mut dyn FnMut(Entry<'s>) -> bool,
    ) -> Option<PeerId>;

    /// The peer's entry in such a list; `None` if it neither is nor was here.
    fn entry(&self, now: Instant, peer: &PeerId) -> Option<Entry<'_>>;

    /// The nodes of the directory that have changed lately.
    fn changes(&self) -> &Changes;

    /// The indexer that became known to this native last, which watchers may not know; `None` if
    /// there is none, and for the other roles.
    fn newest_indexer(&self) -> Option<NewestIndexer>;

    /// The peers that left or were lost; `None` for a node, which grants no leases.
    fn lost(&self) -> Option<&Lost>;

    /// Adds a peer that an earlier run of this server lost, at the start. It is removed when it is
    /// back.
    fn remember_lost(&mut self, now: Instant, lost: LostPeer);

    /// Whether a slot is reserved for the peer's connection, because it holds a lease here, grants
    /// one, or is a known native.
    fn reserves_slot(&self, peer: &PeerId) -> bool;

    /// The large unused parts of the tables. They may be given back to the system.
    fn spare(&mut self) -> [Vacant<'_>; 4];

    /// Reports the state for `status`.
    fn report(&self, now: Instant, to: &mut dyn Report);
}
