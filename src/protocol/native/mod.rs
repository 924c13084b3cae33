//! The native indexer: the well-known entry point.
//!
//! It knows which indexers are alive, hands them out to nodes, publishes them in the DHT, and takes
//! nodes in while no indexer is reachable. It has three background loops, one file each:
//!
//! | loop | file | works on |
//! |---|---|---|
//! | offload | [`offload`] | `responsible_peers` → indexers |
//! | DHT refresh | [`refresh`] | `known_peer_ids` → DHT → `live_indexers` |
//! | stream GC | [`gc`] | `stream_records` → all tables |
//!
//! Invariants: a node is in `responsible_peers` only while it has a record in `stream_records`; an
//! indexer that gave its lease up is in no table; only ids with a live entry are reported to other
//! natives, so that the id of a dead indexer disappears everywhere.

mod answers;
mod beats;
mod delegation;
mod fellows;
mod gc;
mod known_peer_ids;
mod live_indexers;
mod machine;
mod offload;
mod pending_requests;
pub(crate) mod probe;
mod refresh;
mod standing;
#[cfg(test)]
mod tests;

use core::time::Duration;

use heapless::Vec;

use super::{
    Ack, AckCode, Action, Addrs, Arrival, Beat, BeatOutcome, Cursor, EndCause, Entry,
    IndexersAnswer, IndexersPage, Input, Instant, Joined, MAX_LIST, Machine, Name, Offer, Offers,
    OutBeat, PeerId, PeerList, Presence, Publisher, Reader, Report, RequestId, Rng, Role,
    Selection, Shortage, SignedRecord, StreamId, Terms, Verdict, Want,
    announcing::Announcing,
    capacities::MAX_NATIVES,
    directory::{Claimants, Directory, Found},
    lease_table::{LeaseTable, Memory, Sender, StreamRecord},
    leases::{LeaseStep, Leases, MAX_LEASES, SERVER_DIAL},
    lookup::Query,
    signing::record_ttl,
    table::TableStats,
    time::{Ticker, clamp_lease},
};
use delegation::Delegation;
use fellows::Notified;
use known_peer_ids::KnownPeerIds;
use live_indexers::LiveIndexers;
use offload::Offload;
use pending_requests::{MAX_PENDING_REQUESTS, PendingRequest};
use probe::Prober;
use refresh::{MAX_SEARCHES, Refresh, SearchOutcome};
use standing::OfferedIndexers;

pub use delegation::Responsible;
pub use live_indexers::{LiveIndexer, NewestIndexer, Source};

/// The configuration of a native.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NativeConfig {
    /// The longest lease granted, which is also the lease requested from other natives, and the
    /// time between beats to them.
    pub terms: Terms,
    /// Time between runs of the offload loop.
    pub offload_interval: Duration,
    /// Time between runs of the DHT refresh.
    pub refresh_interval: Duration,
    /// Time between runs of the stream GC.
    pub gc_interval: Duration,
}

/// A native with room for `I` live indexers, `K` known ids, `R` nodes taken in and `S` leases
/// granted. `S` must have room for all of the others: indexers, nodes taken in, nodes released,
/// natives.
#[derive(Clone, Debug, PartialEq)]
pub struct Native<const I: usize, const K: usize, const R: usize, const S: usize> {
    own: PeerId,
    config: NativeConfig,
    rng: Rng,
    live_indexers: LiveIndexers<I>,
    known_peer_ids: KnownPeerIds<K>,
    stream_records: LeaseTable<S>,
    delegation: Delegation<R>,
    directory: Directory<S>,
    announcing: Announcing<R>,
    offload: Offload<I>,
    refresh: Refresh<K>,
    refreshed: Vec<PeerId, MAX_SEARCHES>,
    gc: Ticker,
    prober: Prober,
    pending_requests: Vec<PendingRequest, MAX_PENDING_REQUESTS>,
    leases: Leases,
    /// The natives that are configured here. They are fellows also after their leases were given
    /// up.
    fellows: Vec<PeerId, MAX_NATIVES>,
    notified: Notified,
    offered_indexers: OfferedIndexers,
    guests_refused: u64,
    /// The peer of the last [`Input::Seen`], if it holds no lease. Its beat or request comes next.
    // It is a list of one element, because `None` would not be all zeroes.
    met: Vec<(PeerId, Reader), 1>,
    /// Until when indexers without a verdict are pinged, so that the next answers can name them.
    surveys_until: Instant,
    /// The offers of the last ack, answer or page, which borrow them.
    offered: Offers,
    /// The ids of the last ack or beat.
    named: PeerList,
    /// The last indexer that was named in an answer to a peer that only asks.
    shown_up_to: PeerId,
}

impl<const I: usize, const K: usize, const R: usize, const S: usize> Native<I, K, R, S> {
    /// A native before its start. It is all zeroes and uninitialised memory, so that it can be
    /// placed in `.bss`.
    pub const fn new() -> Self {
        Self {
            own: PeerId::from_bytes([0; 32]),
            config: NativeConfig {
                terms: Terms {
                    lease: Duration::ZERO,
                    beat_interval: Duration::ZERO,
                },
                offload_interval: Duration::ZERO,
                refresh_interval: Duration::ZERO,
                gc_interval: Duration::ZERO,
            },
            rng: Rng::new(0),
            live_indexers: LiveIndexers::new(),
            known_peer_ids: KnownPeerIds::new(),
            stream_records: LeaseTable::new(),
            delegation: Delegation::new(),
            directory: Directory::new(),
            announcing: Announcing::new(),
            offload: Offload::new(),
            refresh: Refresh::new(),
            refreshed: Vec::new(),
            gc: Ticker::new(),
            prober: Prober::new(),
            pending_requests: Vec::new(),
            leases: Leases::new(),
            fellows: Vec::new(),
            notified: Notified::new(),
            offered_indexers: OfferedIndexers::new(),
            guests_refused: 0,
            met: Vec::new(),
            surveys_until: Instant::from_millis(0),
            offered: Offers::new(),
            named: PeerList::new(),
            shown_up_to: PeerId::from_bytes([0; 32]),
        }
    }

    /// Starts the loops. `seed` determines the jitter.
    pub fn start(&mut self, now: Instant, own: PeerId, seed: u64, config: NativeConfig) {
        self.own = own;
        self.config = config;
        self.rng = Rng::new(seed);
        self.offered_indexers.start(Rng::new(!seed).bits());
        self.announcing.start(Rng::new(seed.rotate_left(32)).bits());
        self.offload.ticker.start(now, config.offload_interval, 3);
        self.refresh.ticker.start(now, config.refresh_interval, 2);
        self.gc.start(now, config.gc_interval, 1);
        self.leases.start(config.terms, SERVER_DIAL);
    }

    /// Adds an indexer that an earlier run of this native knew. The refresh loop will search for
    /// it.
    pub fn remember(&mut self, now: Instant, indexer: &PeerId) {
        self.known_peer_ids.heard_of(now, indexer);
    }

    /// `reachable_live_indexers` as known now: live, with room, with a good verdict of the last 10
    /// s, and with an address that the reader can use.
    fn reachable_live_indexers(
        &self,
        now: Instant,
        reader: &Reader,
    ) -> impl Iterator<Item = &LiveIndexer> {
        self.live_indexers.iter(now).filter(move |entry| {
            entry.verdict(now) == Some(Verdict::Reachable) && entry.may_be_offered_to(reader)
        })
    }

    /// What is known of the peer as a reader of offers.
    fn reader_of(&self, peer: &PeerId) -> Reader {
        let met = self.met.iter().find(|(met, _)| met == peer).copied();
        self.stream_records
            .find(peer)
            .map(|record| record.reader)
            .or(met.map(|(_, reader)| reader))
            .unwrap_or_default()
    }

    fn see(&mut self, peer: &PeerId, reader: Reader) {
        match self.stream_records.find(peer).map(|record| record.reader) {
            Some(known) => {
                let reader = known.seen_as(reader);
                self.stream_records.note_reader(peer, reader);
                self.delegation.note_reader(peer, reader);
            }
            None => {
                self.met.clear();
                // The list is empty here.
                let _ = self.met.push((*peer, reader));
            }
        }
    }

    fn run_loops(&mut self, now: Instant) {
        if self.gc.due(now, &mut self.rng).is_some() {
            let removed = gc::gc(
                now,
                &mut self.stream_records,
                &mut self.delegation,
                &mut self.directory,
                &mut self.live_indexers,
            );
            self.gc.did(removed);
        }
        if self.refresh.ticker.due(now, &mut self.rng).is_some() {
            self.refresh
                .tick(now, &mut self.known_peer_ids, &self.live_indexers);
        }
        if self.offload.ticker.due(now, &mut self.rng).is_some() {
            self.offload
                .tick(now, &self.delegation, &mut self.live_indexers);
        }
        while let Some((peer, began)) = self.prober.pop_overdue(now) {
            self.live_indexers
                .probe_ended(now, began, &peer, Verdict::Silent);
        }
        self.offload.advance(
            now,
            &self.own,
            &mut self.delegation,
            &mut self.live_indexers,
        );
    }

    /// Frees the places of expired leases when one is needed before GC runs. While the native
    /// catches up after an oversleep it frees none, because then all leases seem to have expired.
    fn make_room(&mut self, now: Instant, peer: &PeerId) {
        if self.stream_records.is_full() {
            self.expire(now, peer);
        }
    }

    /// The same for a node, which also needs a place in `responsible_peers`.
    fn make_room_for_node(&mut self, now: Instant, node: &PeerId) {
        if self.stream_records.is_full() || !self.delegation.has_room(now, node) {
            self.expire(now, node);
        }
    }

    fn expire(&mut self, now: Instant, peer: &PeerId) {
        if self.overslept(now).is_zero() {
            gc::expire(
                now,
                peer,
                &mut self.stream_records,
                &mut self.delegation,
                &mut self.directory,
                &mut self.live_indexers,
            );
        }
    }

    fn pop_release(&mut self, now: Instant) -> Option<Action> {
        while let Some((peer, indexer)) = self.delegation.pop_release() {
            let (Some(record), Some(entry)) = (
                self.stream_records.find(&peer),
                self.live_indexers.find(now, &indexer),
            ) else {
                continue;
            };
            // A node without a stream learns this at its next connect-to-natives.
            if record.connected {
                self.offered_indexers.sent(now, &peer, &indexer);
                return Some(Action::Release {
                    peer,
                    stream: record.stream,
                    left: record.expiry - now,
                    offer: entry.offer_to(now, &record.reader),
                });
            }
        }
        None
    }

    fn pop_probe(&mut self, now: Instant) -> Option<Action> {
        let asked = self
            .pending_requests
            .iter()
            .filter_map(|request| request.candidates.as_ref())
            .flat_map(|(since, candidates)| candidates.iter().map(|peer| (*since, *peer)))
            .filter(|(since, peer)| !self.live_indexers.is_decided(now, *since, peer))
            .map(|(_, peer)| peer);
        let wanted = asked.chain(self.offload.undecided());
        let is_survey_due = now <= self.surveys_until && self.prober.is_half_free();
        // Otherwise all indexers would be looked at after each beat.
        let surveyed = is_survey_due.then(|| self.live_indexers.iter(now));
        let surveyed = surveyed
            .into_iter()
            .flatten()
            .filter(|entry| entry.source == Source::Heartbeat && entry.verdict(now).is_none())
            .map(|entry| entry.peer);
        let wanted = wanted.chain(surveyed);
        // Every undecided indexer has an entry.
        let mut wanted = wanted.filter(|peer| self.live_indexers.find_any(peer).is_some());
        let peer = self.prober.start(now, &mut wanted)?;
        let addrs = self.live_indexers.find_any(&peer)?.addrs.clone();
        Some(Action::Probe { peer, addrs })
    }

    fn pop_search(&mut self, now: Instant, own_ms: u64) -> Option<Action> {
        self.refresh
            .serve(now, own_ms, &self.known_peer_ids, &mut self.live_indexers);
        if let Some(peer) = self.refresh.overdue(now) {
            self.conclude(now, own_ms, &peer);
            let query = Query::Machine(peer);
            return Some(Action::EndSearch { query });
        }
        if let Some(peer) = self.refreshed.pop() {
            return Some(Action::Refreshed { peer });
        }
        self.refresh.next_search(now).map(|peer| Action::Search {
            query: Query::Machine(peer),
            role: Role::Indexer,
            peer,
        })
    }

    fn conclude(&mut self, now: Instant, own_ms: u64, peer: &PeerId) {
        let outcome = self.refresh.conclude(
            now,
            own_ms,
            peer,
            &mut self.known_peer_ids,
            &mut self.live_indexers,
            &mut self.rng,
        );
        if outcome == SearchOutcome::Refreshed {
            // If the driver does not poll, only a line of the log is lost.
            let _ = self.refreshed.push(*peer);
            self.refresh.ticker.did(1);
        }
    }

    fn pop_lease_step(&mut self, now: Instant) -> Option<Action> {
        let step = self.leases.poll(now, &mut self.rng)?;
        if let LeaseStep::Beat(server, ..) = &step {
            self.named = self.window(now, server);
        }
        Some(step.into_action(|manner| OutBeat {
            role: Role::Native,
            lease: self.config.terms.lease,
            with_record: false,
            fresh: manner.fresh,
            publisher: Publisher::Receiver,
            load: None,
        }))
    }
}

impl<const I: usize, const K: usize, const R: usize, const S: usize> Default
    for Native<I, K, R, S>
{
    fn default() -> Self {
        Self::new()
    }
}
