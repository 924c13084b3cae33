//! The indexer: grants leases to nodes, lists them in its directory, and holds leases with the
//! natives.
//!
//! Invariant: a node is in the directory only while it has a record in `stream_records`. Stale
//! records are collected by the same rule as at a native, and by a loop of the same name.
//!
//! A lease is *spare* if the holder's beats state that another server publishes its record, because
//! it then holds a lease there too. When places are short, spare leases yield to nodes that have no
//! lease: if less than a tenth of all places is free, no spare lease is granted, and if less than a
//! twentieth is free, none is renewed. The two limits differ, so that a lease is not granted and
//! ended in turn.

mod drain;
mod machine;
#[cfg(test)]
mod tests;

pub use drain::Draining;

use core::time::Duration;

use drain::Drain;

use super::{
    Ack, Action, Addrs, Arrival, Beat, BeatOutcome, Cursor, Entry, IndexersAnswer, IndexersPage,
    Input, Instant, Load, Machine, Offer, OutBeat, PeerId, Presence, Publisher, Report, RequestId,
    Rng, Role, Selection, SignedRecord, StreamId, Terms, Want,
    address::TransportAddr,
    announcing::Announcing,
    codec::heartbeat::AckCause,
    directory::{Claimants, Directory, Found},
    lease_table::{LeaseTable, Sender},
    leases::{Leases, SERVER_DIAL},
    life::EndCause,
    lookup::KnownServer,
    lost::{Lost, LostPeer},
    native::NewestIndexer,
    rivals::FirstBeat,
    signing::Urgency,
    table::Vacant,
    time::{Ticker, clamp_lease},
    watch::Changes,
};

/// The reason for which an indexer refuses indexers and natives.
pub(crate) const NODES_ONLY: &str =
    "an indexer grants leases to nodes only: indexers and natives go to a native";

/// The configuration of an indexer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexerConfig {
    /// The longest lease granted, which is also the lease requested from natives, and the time
    /// between beats to them.
    pub terms: Terms,
    /// Time between runs of the stream GC.
    pub gc_interval: Duration,
}

/// No spare lease is granted if less than one place in this many is free (ARCHITECTURE.md, "Short
/// places").
const GRANTS_NO_SPARE: usize = 10;
/// No spare lease is renewed if less than one place in this many is free.
const RENEWS_NO_SPARE: usize = 20;

/// An indexer with room for `N` nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Indexer<const N: usize> {
    own: PeerId,
    config: IndexerConfig,
    rng: Rng,
    stream_records: LeaseTable<N>,
    directory: Directory<N>,
    announcing: Announcing<N>,
    gc: Ticker,
    leases: Leases,
    drain: Drain,
}

impl<const N: usize> Indexer<N> {
    /// An indexer before its start. It is all zeroes and uninitialised memory, so that it can be
    /// placed in `.bss`.
    pub const fn new() -> Self {
        Self {
            own: PeerId::from_bytes([0; 32]),
            config: IndexerConfig {
                terms: Terms {
                    lease: Duration::ZERO,
                    beat_interval: Duration::ZERO,
                },
                gc_interval: Duration::ZERO,
            },
            rng: Rng::new(0),
            stream_records: LeaseTable::new(),
            directory: Directory::new(),
            announcing: Announcing::new(),
            gc: Ticker::new(),
            leases: Leases::new(),
            drain: Drain::new(),
        }
    }

    /// Starts the loop. `seed` determines the jitter.
    pub fn start(&mut self, now: Instant, own: PeerId, seed: u64, config: IndexerConfig) {
        self.own = own;
        self.config = config;
        self.rng = Rng::new(seed);
        self.announcing.start(Rng::new(!seed).bits());
        self.gc.start(now, config.gc_interval, 1);
        self.leases.start(config.terms, SERVER_DIAL);
        self.leases.start_signing(now);
    }

    fn load(&self) -> Load {
        let stats = self.stream_records.stats();
        // While it is drained it has no free place.
        let possible = match self.drain.is_on() {
            true => stats.used,
            false => stats.capacity,
        };
        Load {
            held: u32::try_from(stats.used).unwrap_or(u32::MAX),
            possible: u32::try_from(possible).unwrap_or(u32::MAX),
        }
    }

    /// Whether less than one place in `parts` is free. A table with fewer places than that has room
    /// as long as one is free. A drain makes no place short.
    fn is_short(&self, parts: usize) -> bool {
        let stats = self.stream_records.stats();
        stats.capacity.saturating_sub(stats.used) < stats.capacity / parts
    }

    /// Whether the sender's spare lease must yield.
    fn yields(&self, sender: &Sender<'_>) -> bool {
        if sender.is_newcomer() {
            self.is_short(GRANTS_NO_SPARE)
        } else {
            self.is_short(RENEWS_NO_SPARE)
        }
    }

    /// Answers a beat that was admitted.
    fn admitted_beat(
        &mut self,
        now: Instant,
        sender: &Sender<'_>,
        beat: &Beat<SignedRecord<'_>>,
    ) -> BeatOutcome<'static> {
        if beat.role != Role::Node {
            // A peer has one role at a time, so it is no longer a node.
            self.end_of_lease(now, sender.peer, Presence::Alive, EndCause::NewRole);
            return Ack::refused(NODES_ONLY).into();
        }
        if beat.lease.is_zero() {
            let (now_is, how) = match self.drain.has_left(now, sender.peer) {
                true => (Presence::Alive, EndCause::HandedOver),
                false => (Presence::Left, EndCause::Left),
            };
            self.end_of_lease(now, sender.peer, now_is, how);
            return Ack::accepted(Duration::ZERO).into();
        }
        if self.drain.is_on() && sender.is_newcomer() {
            self.stream_records.turn_away(now, sender.peer);
            return Ack::full("this indexer is being drained: go to another one").into();
        }
        if self.drain.moves(sender.peer) {
            let record = self.stream_records.seen(now, sender);
            let left = record.map_or(Duration::ZERO, |record| record.expiry - now);
            return Ack::released(left, &[]).into();
        }
        if beat.publisher == Publisher::Another && self.yields(sender) {
            self.stream_records.turn_away(now, sender.peer);
            self.directory.unlist(now, sender.peer, Presence::Alive);
            return Ack::full("places are short here, and you hold a lease elsewhere").into();
        }
        self.node_beat(now, sender, beat)
    }

    fn end_of_lease(&mut self, now: Instant, peer: &PeerId, now_is: Presence, how: EndCause) {
        self.stream_records.remove(now, peer, how);
        self.directory.unlist(now, peer, now_is);
    }

    fn node_beat(
        &mut self,
        now: Instant,
        sender: &Sender<'_>,
        beat: &Beat<SignedRecord<'_>>,
    ) -> BeatOutcome<'static> {
        // An expired lease takes no room, even before GC has run. After an oversleep all leases
        // seem expired, so none is removed.
        if self.stream_records.is_full() && self.overslept(now).is_zero() {
            self.stream_records.expire(now, sender.peer, |record| {
                self.directory.unlist(now, &record.peer, Presence::Lost);
            });
        }
        let memory = || self.directory.memory_of(sender.peer);
        if let Some(ack) = self.stream_records.no_room_for(now, sender, memory) {
            return ack.into();
        }
        let lease = clamp_lease(beat.lease, self.config.terms.lease);
        if sender.moved {
            self.directory.unlist(now, sender.peer, Presence::Alive);
        }
        let mut arrival = self.stream_records.renew(now, sender, Role::Node, lease);
        if let Arrival::Joined(joined) = &mut arrival {
            joined.gone_for = self.directory.back(now, sender.peer);
        }
        let is_news = beat
            .record
            .as_ref()
            .is_some_and(|record| self.directory.list(now, &record.info, record.envelope));
        if let Some(record) = beat.record.as_ref().filter(|_| is_news) {
            let Self {
                announcing,
                directory,
                ..
            } = self;
            announcing.record_listed(now, record, |key| directory.has(key));
        }
        BeatOutcome {
            publish: is_news && beat.publisher == Publisher::Receiver,
            arrival,
            ..Ack::accepted(lease).into()
        }
    }
}

impl<const N: usize> Default for Indexer<N> {
    fn default() -> Self {
        Self::new()
    }
}
