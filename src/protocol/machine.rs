//! What the three roles have in common towards their driver.
//!
//! ```text
//!            events, each with `now`                    actions
//!  net ───▶ beat · ack · probed · search_value ───▶ Machine ───▶ poll() ───▶ net
//!                                                      │
//!                                                      └── timeout(): when to poll again without an event
//! ```
//!
//! The driver's duties: it gives events in the order in which they happened; after each it polls until there is no action left;
//! and it polls when [`Machine::timeout`] has come. It does no deciding of its own.

use core::time::Duration;

use super::{
    Ack, Addrs, Beat, BeatOutcome, Cursor, IndexersAnswer, IndexersPage, Instant, Offer, OutBeat,
    PeerId, Reason, RecordInfo, RequestId, Role, StreamId, Want,
    address::Source,
    directory::{Claimants, Found},
    lease::Lease,
    lease_table::StreamRecord,
    lookup::KnownServer,
    native::{LiveIndexer, Responsible},
    reader::Reader,
    rivals::{Contested, FirstBeat},
    table::{TableStats, Vacant},
};

/// Something the driver has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a beat; on a new stream, dialling if need be, if none is open. It goes with [`Machine::beat_known`].
    Beat {
        /// Who grants the lease.
        server: PeerId,
        /// Where it listens.
        addrs: Addrs,
        /// What to send.
        beat: OutBeat,
    },
    /// Drop our heartbeat stream to the server, if one is open. [`Machine::lease_closed`] need not be called for it.
    Drop {
        /// Who granted the lease.
        server: PeerId,
    },
    /// Send a last beat that asks for 0 ms, then close the stream.
    GiveUp {
        /// Who granted the lease.
        server: PeerId,
    },
    /// Sign the own record anew and call [`Machine::record_signed`].
    Sign,
    /// Close a heartbeat stream of a peer; its lease is over or it has a newer one.
    Close {
        /// Whose stream.
        peer: PeerId,
        /// Which.
        stream: StreamId,
    },
    /// Say `released` on the peer's heartbeat stream, unasked.
    Release {
        /// The node to be told.
        peer: PeerId,
        /// Its stream.
        stream: StreamId,
        /// What its lease has left.
        left: Duration,
        /// Where to go; nowhere, if that indexer did not say where it listens.
        offer: Option<Offer>,
    },
    /// Ping the peer, dialling if need be; then call [`Machine::probed`].
    Probe {
        /// Whom.
        peer: PeerId,
        /// Where it listens.
        addrs: Addrs,
    },
    /// Search the DHT for the indexer's record: [`Machine::search_value`] for each value, then [`Machine::search_ended`].
    Search {
        /// Whose record.
        peer: PeerId,
    },
    /// The search's time is over.
    EndSearch {
        /// Whose record was searched for.
        peer: PeerId,
    },
    /// For the log: the refresh loop stored an indexer that it found in the DHT.
    Refreshed {
        /// The indexer.
        peer: PeerId,
    },
    /// Answer a directory request, with [`Machine::answer_offers`].
    Answer {
        /// Which.
        request: RequestId,
        /// The native will take the node in.
        takes_in: bool,
    },
    /// Ask a native for indexers; then call [`Machine::answered`].
    Ask {
        /// Which native.
        native: PeerId,
        /// Where it listens.
        addrs: Addrs,
        /// Why.
        want: Want,
    },
    /// For the log: a server gave no lease. [`Action::Drop`] or [`Action::GiveUp`] sees to the stream.
    Denied {
        /// Which server.
        server: PeerId,
        /// Why, as it says.
        reason: Reason,
    },
    /// Ping over the connection that carries this heartbeat stream of the peer, and no other; then
    /// call [`Machine::stream_probed`].
    ProbeStream {
        /// Whose stream.
        peer: PeerId,
        /// Which.
        stream: StreamId,
    },
    /// Give the first beat of this stream to the machine, which was to be kept ([`FirstBeat::Held`]).
    Judge {
        /// Whose stream.
        peer: PeerId,
        /// Which.
        stream: StreamId,
    },
    /// For the log: two devices use one identity, and one of them is refused.
    Contested(Contested),
    /// For the log: one device alone uses the identity again.
    Uncontested {
        /// The identity.
        peer: PeerId,
    },
}

/// What an event or an action may take, in bytes: they are moved, and long lists are borrowed or asked for.
const MAX_MOVED: usize = 512;
const _: () = assert!(size_of::<Action>() <= MAX_MOVED);
const _: () = assert!(size_of::<Beat<'_>>() <= MAX_MOVED);
const _: () = assert!(size_of::<BeatOutcome<'_>>() <= MAX_MOVED);

/// Receives what the operator can see of a machine.
pub trait Report {
    /// An entry of `live_indexers`.
    fn live_indexer(&mut self, entry: &LiveIndexer);
    /// An entry of `known_peer_ids`.
    fn known_peer_id(&mut self, peer: &PeerId);
    /// An entry of `responsible_peers`.
    fn responsible_peer(&mut self, entry: &Responsible);
    /// An entry of `stream_records`.
    fn stream_record(&mut self, record: &StreamRecord);
    /// A lease held elsewhere.
    fn lease(&mut self, lease: &Lease);
    /// A loop: its name, how often it ran, when last.
    fn background_loop(&mut self, name: &'static str, runs: u64, last: Option<Instant>);
    /// A table.
    fn table(&mut self, stats: TableStats);
    /// An identity that two devices used lately.
    fn contested(&mut self, _contested: &Contested) {}
}

/// One role as a pure state machine. What a role does not take part in does nothing.
pub trait Machine {
    /// What this machine is.
    fn role(&self) -> Role;

    /// The next action at `now`, if there is one. `own_ms` is wall-clock time, for judging DHT copies only.
    fn poll(&mut self, now: Instant, own_ms: u64) -> Option<Action>;

    /// The ids that go with the [`Action::Beat`] that was polled last.
    fn beat_known(&self) -> &[PeerId] {
        &[]
    }

    /// The offers that go with the [`Action::Answer`] that was polled last.
    fn answer_offers(&self) -> &[Offer] {
        &[]
    }

    /// When to poll although nothing has happened.
    fn timeout(&self) -> Instant;

    /// A beat came in on a heartbeat stream that `from` opened.
    fn beat(
        &mut self,
        _now: Instant,
        _from: &PeerId,
        _stream: StreamId,
        _beat: &Beat<'_>,
    ) -> BeatOutcome<'_> {
        Ack::refused("a node grants no leases: hold yours with an indexer or a native").into()
    }

    /// The same, but the beat says that another server publishes the sender's record: the lease asked for here is spare.
    fn spare_beat(
        &mut self,
        now: Instant,
        from: &PeerId,
        stream: StreamId,
        beat: &Beat<'_>,
    ) -> BeatOutcome<'_> {
        self.beat(now, from, stream, beat)
    }

    /// The node's entry in `responsible_peers`.
    fn taken_in(&self, _node: &PeerId) -> Option<&Responsible> {
        None
    }

    /// A heartbeat stream that `peer` has opened comes from this address, and its first beat is here
    /// and valid. Said immediately before that beat is given, or kept as the answer says.
    fn stream_opened(
        &mut self,
        _now: Instant,
        _peer: &PeerId,
        _stream: StreamId,
        _source: Source,
    ) -> FirstBeat {
        FirstBeat::Now
    }

    /// The ping of [`Action::ProbeStream`] has ended.
    fn stream_probed(&mut self, _now: Instant, _peer: &PeerId, _stream: StreamId, _alive: bool) {}

    /// What the connections of `peer` show of the addresses that it could dial. Said before the first beat of each of its streams, and
    /// before each of its requests; of a peer of which it is not said nothing is known, and it is told everything.
    fn seen(&mut self, _peer: &PeerId, _reader: Reader) {}

    /// A heartbeat stream that `peer` had opened has ended.
    fn stream_closed(&mut self, _now: Instant, _peer: &PeerId, _stream: StreamId) {}

    /// A node asks for indexers. `None`: the answer comes as [`Action::Answer`].
    fn ask(
        &mut self,
        _now: Instant,
        _from: &PeerId,
        _request: RequestId,
        _most: usize,
        _want: Want,
    ) -> Option<IndexersAnswer> {
        Some(IndexersAnswer::default())
    }

    /// A peer that only asks wants one page of the live indexers, of at most `most`, in the order of their ids; `None`: this process does.
    fn page(
        &mut self,
        _now: Instant,
        _asker: Option<&PeerId>,
        _from: Cursor,
        _most: usize,
    ) -> IndexersPage {
        IndexersPage::default()
    }

    /// A probe has ended.
    fn probed(&mut self, _now: Instant, _peer: &PeerId, _alive: bool) {}

    /// A search has found a record; verified and decoded, not judged.
    fn search_value(&mut self, _now: Instant, _own_ms: u64, _peer: &PeerId, _record: &RecordInfo) {}

    /// A search has ended.
    fn search_ended(&mut self, _now: Instant, _own_ms: u64, _peer: &PeerId) {}

    /// When the beat went that the server has still to answer; `None` if it has answered all.
    fn asked_at(&self, server: &PeerId) -> Option<Instant>;

    /// A server answered our last beat: the ack's sequence is that beat's.
    fn acked(&mut self, now: Instant, server: &PeerId, ack: &Ack<'_>);

    /// A server said `released` unasked. It may cross a beat of ours: then the ack's sequence is an earlier one.
    fn notified(&mut self, _now: Instant, _server: &PeerId, _ack: &Ack<'_>) {}

    /// Our heartbeat stream to the server has ended or could not be opened.
    fn lease_closed(&mut self, now: Instant, server: &PeerId);

    /// A link, a route or an address of this host came: what waits for a server starts at once.
    /// Returns how much that is.
    fn network_changed(&mut self, _now: Instant) -> usize {
        0
    }

    /// A native answered our request for indexers; `None`: it did not.
    fn answered(&mut self, _now: Instant, _native: &PeerId, _answer: Option<&IndexersAnswer>) {}

    /// The own record was signed anew. `urgent`: it does not wait for the next beat (an address or the time changed).
    fn record_signed(&mut self, now: Instant, urgent: bool);

    /// A native became known, or its addresses changed.
    fn learn_native(&mut self, now: Instant, peer: PeerId, addrs: Addrs);

    /// How much more than a whole interval the most belated loop is behind; zero if none is. If not zero, the driver gives all
    /// pending events first, then calls [`Machine::shift`], and only then polls.
    fn overslept(&self, now: Instant) -> Duration;

    /// Moves every lease granted on by `gap`, less what its holder was heard since. Leases held are never extended.
    fn shift(&mut self, now: Instant, gap: Duration);

    /// Gives all leases held elsewhere up.
    fn shut_down(&mut self);

    /// Where the peer listens, if this machine deals with it.
    fn addrs_of(&self, peer: &PeerId) -> Option<&Addrs>;

    /// Tells each server of this process: the natives that it is configured with, and those that it holds or seeks leases with.
    fn servers(&self, now: Instant, tell: &mut dyn FnMut(KnownServer));

    /// Whether the peer is a native that this process is configured with: its clock counts, and what it observes.
    fn is_native(&self, peer: &PeerId) -> bool {
        let mut is_one = false;
        self.servers(Instant::default(), &mut |server| {
            is_one |= server.role == Role::Native && server.peer == *peer;
        });
        is_one
    }

    /// Who of the nodes listed here claims the name.
    fn claimants(&self, _name: &str) -> Claimants<'_> {
        Claimants::default()
    }

    /// The node's entry in the directory.
    fn listed(&self, _peer: &PeerId) -> Option<Found<'_>> {
        None
    }

    /// Whether the peer's connection is worth a slot kept: it holds a lease here, grants one, or is a native we know.
    fn reserves_slot(&self, peer: &PeerId) -> bool;

    /// The large parts of tables in which nothing is now. They may be given back to the system.
    fn spare(&mut self) -> [Vacant<'_>; 3] {
        [const { Vacant::none() }; 3]
    }

    /// Tells what the operator can see.
    fn report(&self, now: Instant, to: &mut dyn Report);
}
