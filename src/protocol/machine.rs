//! What the three roles have in common towards their driver.
//!
//! ```text
//!            inputs, each with `now`                    actions
//!  net ───▶ handle(Input) · beat · ask · page ───▶ Machine ───▶ poll() ───▶ net
//!                                                     │
//!                                                     └── next_timeout(): when to poll again without an input
//! ```
//!
//! The driver's duties: it gives inputs in the order in which they happened; after each it polls
//! until there is no action left; and it polls when [`Machine::next_timeout`] has come. It does no
//! deciding of its own.
//!
//! Nothing is answered by a default: what a role does not take part in is said in that role.

use core::time::Duration;

use super::{
    Addrs, Beat, BeatOutcome, Cursor, IndexersAnswer, IndexersPage, Input, Instant, Offer, OutBeat,
    PeerId, Reason, RequestId, Role, StreamId, Want,
    address::Source,
    directory::{Claimants, Found},
    lease::Lease,
    lease_table::StreamRecord,
    lookup::KnownServer,
    native::{LiveIndexer, Responsible},
    rivals::{Contested, FirstBeat},
    table::{TableStats, Vacant},
};

/// Something the driver has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a beat; on a new stream, dialling if need be, if none is open. It goes with
    /// [`Machine::beat_known`].
    Beat {
        /// Who grants the lease.
        server: PeerId,
        /// Where it listens.
        addrs: Addrs,
        /// What to send.
        beat: OutBeat,
    },
    /// Drop our heartbeat stream to the server, if one is open. [`Input::LeaseClosed`] need not be
    /// given for it.
    Drop {
        /// Who granted the lease.
        server: PeerId,
    },
    /// Send a last beat that asks for 0 ms, then close the stream.
    GiveUp {
        /// Who granted the lease.
        server: PeerId,
    },
    /// Sign the own record anew and give [`Input::RecordSigned`].
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
    /// Ping the peer, dialling if need be; then give [`Input::Probed`].
    Probe {
        /// Whom.
        peer: PeerId,
        /// Where it listens.
        addrs: Addrs,
    },
    /// Search the DHT for the indexer's record: [`Input::SearchValue`] for each value, then
    /// [`Input::SearchEnded`].
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
    /// Ask a native for indexers; then give [`Input::Answered`].
    Ask {
        /// Which native.
        native: PeerId,
        /// Where it listens.
        addrs: Addrs,
        /// Why.
        want: Want,
    },
    /// For the log: a server gave no lease. [`Action::Drop`] or [`Action::GiveUp`] sees to the
    /// stream.
    Denied {
        /// Which server.
        server: PeerId,
        /// Why, as it says.
        reason: Reason,
    },
    /// Ping over the connection that carries this heartbeat stream of the peer, and no other; then
    /// give [`Input::StreamProbed`].
    ProbeStream {
        /// Whose stream.
        peer: PeerId,
        /// Which.
        stream: StreamId,
    },
    /// Give the first beat of this stream to the machine, which was to be kept
    /// ([`FirstBeat::Held`]).
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

/// What an input or an action may take, in bytes: they are moved, and long lists are borrowed or
/// asked for.
pub(super) const MAX_MOVED: usize = 512;
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
    fn contested(&mut self, contested: &Contested);
}

/// One role as a pure state machine.
pub trait Machine {
    /// What this machine is.
    fn role(&self) -> Role;

    /// Takes an event in. Poll until there is no action left, then read the next time-out.
    fn handle(&mut self, now: Instant, input: Input<'_>);

    /// The next action at `now`, if there is one. `own_ms` is wall-clock time, for judging DHT
    /// copies only.
    fn poll(&mut self, now: Instant, own_ms: u64) -> Option<Action>;

    /// The ids that go with the [`Action::Beat`] that was polled last.
    fn beat_known(&self) -> &[PeerId];

    /// The offers that go with the [`Action::Answer`] that was polled last.
    fn answer_offers(&self) -> &[Offer];

    /// When to poll although nothing has happened; `None`: not before the next input.
    fn next_timeout(&self) -> Option<Instant>;

    /// A heartbeat stream that `peer` has opened comes from this address, and its first beat is
    /// here and valid. Said immediately before that beat is given, or kept as the answer says.
    fn stream_opened(
        &mut self,
        now: Instant,
        peer: &PeerId,
        stream: StreamId,
        source: Source,
    ) -> FirstBeat;

    /// A beat came in on a heartbeat stream that `from` opened.
    fn beat(
        &mut self,
        now: Instant,
        from: &PeerId,
        stream: StreamId,
        beat: &Beat<'_>,
    ) -> BeatOutcome<'_>;

    /// A node asks for indexers. `None`: the answer comes as [`Action::Answer`].
    fn ask(
        &mut self,
        now: Instant,
        from: &PeerId,
        request: RequestId,
        most: usize,
        want: Want,
    ) -> Option<IndexersAnswer>;

    /// A peer that only asks wants one page of the live indexers, of at most `most`, in the order
    /// of their ids; `None`: this process does.
    fn page(
        &mut self,
        now: Instant,
        asker: Option<&PeerId>,
        from: Cursor,
        most: usize,
    ) -> IndexersPage;

    /// A link, a route or an address of this host came: what waits for a server starts at once.
    /// Returns how much that is.
    fn network_changed(&mut self, now: Instant) -> usize;

    /// The node's entry in `responsible_peers`.
    fn taken_in(&self, node: &PeerId) -> Option<&Responsible>;

    /// When the beat went that the server has still to answer; `None` if it has answered all.
    fn asked_at(&self, server: &PeerId) -> Option<Instant>;

    /// How much more than a whole interval the most belated loop is behind; zero if none is. If not
    /// zero, the driver gives all pending events first, then [`Input::Overslept`], and only then
    /// polls.
    fn overslept(&self, now: Instant) -> Duration;

    /// Where the peer listens, if this machine deals with it.
    fn addrs_of(&self, peer: &PeerId) -> Option<&Addrs>;

    /// Tells each server of this process: the natives that it is configured with, and those that it
    /// holds or seeks leases with.
    fn servers(&self, now: Instant, tell: &mut dyn FnMut(KnownServer));

    /// Whether the peer is a native that this process is configured with: its clock counts, and
    /// what it observes.
    fn is_native(&self, peer: &PeerId) -> bool {
        let mut is_one = false;
        self.servers(Instant::default(), &mut |server| {
            is_one |= server.role == Role::Native && server.peer == *peer;
        });
        is_one
    }

    /// The nodes listed here that claim the name.
    fn claimants(&self, name: &str) -> Claimants<'_>;

    /// The node's entry in the directory.
    fn listed(&self, peer: &PeerId) -> Option<Found<'_>>;

    /// Whether the peer's connection is worth a slot kept: it holds a lease here, grants one, or is
    /// a native we know.
    fn reserves_slot(&self, peer: &PeerId) -> bool;

    /// The large parts of tables in which nothing is now. They may be given back to the system.
    fn spare(&mut self) -> [Vacant<'_>; 3];

    /// Tells what the operator can see.
    fn report(&self, now: Instant, to: &mut dyn Report);
}
