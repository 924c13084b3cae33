//! The native indexer: the well-known entry.
//!
//! It knows which indexers are alive, hands them out to nodes, tells the DHT of them, and takes nodes in while no indexer is
//! reachable. Its heart is three background loops, one file each:
//!
//! | loop | file | works on |
//! |---|---|---|
//! | offload | [`offload`] | `responsible_peers` → indexers |
//! | DHT refresh | [`refresh`] | `known_peer_ids` → DHT → `live_indexers` |
//! | stream GC | [`gc`] | `stream_records` → all tables |
//!
//! Invariants: a node is in `responsible_peers` only while it has a record in `stream_records`; an indexer that gave its
//! lease up is in no table; only ids with a live entry are passed on to other natives, so that a dead id dies out.

pub mod asks;
pub mod delegation;
pub mod gc;
pub mod known_peer_ids;
pub mod live_indexers;
mod machine;
pub mod offload;
pub mod probe;
pub mod refresh;
#[cfg(test)]
mod tests;

use core::time::Duration;

use heapless::Vec;

use super::{
    Ack, Action, Addrs, Beat, BeatOutcome, IndexersAnswer, Instant, MAX_LIST, Machine, Offers,
    OutBeat, PeerId, PeerList, RecordInfo, Report, RequestId, Rng, Role, StreamId, Terms, Want,
    directory::{Claimants, Directory, Found},
    lease_table::LeaseTable,
    leases::Leases,
    table::keep_best,
    time::{MAX_LEASE, Ticker, clamp_lease},
};
use asks::{Ask, Candidates, MAX_ASKS};
use delegation::Delegation;
use known_peer_ids::KnownPeerIds;
use live_indexers::LiveIndexers;
use offload::Offload;
use probe::Prober;
use refresh::{MAX_SEARCHES, Outcome, Refresh};

pub use delegation::Responsible;
pub use live_indexers::{LiveIndexer, Source};

/// What a native is told at its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NativeConfig {
    /// Lease granted at most, and asked of other natives; and the time between beats to them.
    pub terms: Terms,
    /// Time between runs of the offload loop.
    pub offload_interval: Duration,
    /// Time between runs of the DHT refresh.
    pub refresh_interval: Duration,
    /// Time between runs of the stream GC.
    pub gc_interval: Duration,
}

/// A native with room for `I` live indexers, `K` known ids, `R` nodes taken in and `S` leases granted. `S` must leave room
/// for all of the others: indexers, nodes taken in, nodes released, natives.
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
    offload: Offload<I>,
    refresh: Refresh<K>,
    refreshed: Vec<PeerId, MAX_SEARCHES>,
    gc: Ticker,
    prober: Prober,
    asks: Vec<Ask, MAX_ASKS>,
    leases: Leases,
    told_up_to: PeerId,
}

impl<const I: usize, const K: usize, const R: usize, const S: usize> Native<I, K, R, S> {
    /// A native before its start: nothing but zeroes and room, so that it can stand in `.bss`.
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
            offload: Offload::new(),
            refresh: Refresh::new(),
            refreshed: Vec::new(),
            gc: Ticker::new(),
            prober: Prober::new(),
            asks: Vec::new(),
            leases: Leases::new(),
            told_up_to: PeerId::from_bytes([0; 32]),
        }
    }

    /// Starts the loops. `seed` decides about jitter.
    pub fn start(&mut self, now: Instant, own: PeerId, seed: u64, config: NativeConfig) {
        self.own = own;
        self.config = config;
        self.rng = Rng::new(seed);
        self.offload.ticker.start(now, config.offload_interval, 3);
        self.refresh.ticker.start(now, config.refresh_interval, 2);
        self.gc.start(now, config.gc_interval, 1);
        self.leases.start(now, config.terms, false);
    }

    /// An indexer that an earlier run of this native knew: the refresh loop will look for it.
    pub fn remember(&mut self, now: Instant, indexer: &PeerId) {
        self.known_peer_ids.heard_of(now, indexer);
    }

    /// `reachable_live_indexers` as far as it is known now: live, with room, and alive by a verdict of the last 10 s.
    fn reachable_live_indexers(&self, now: Instant) -> impl Iterator<Item = &LiveIndexer> {
        self.live_indexers
            .iter(now)
            .filter(move |entry| entry.verdict(now) == Some(true) && entry.has_room())
    }

    fn run_loops(&mut self, now: Instant) {
        if self.gc.due(now, &mut self.rng).is_some() {
            gc::gc(
                now,
                &mut self.stream_records,
                &mut self.delegation,
                &mut self.directory,
                &mut self.live_indexers,
            );
        }
        if self.refresh.ticker.due(now, &mut self.rng).is_some() {
            self.refresh
                .tick(now, &mut self.known_peer_ids, &self.live_indexers);
        }
        if self.offload.ticker.due(now, &mut self.rng).is_some() {
            self.offload
                .tick(now, &self.delegation, &mut self.live_indexers);
        }
        while let Some(peer) = self.prober.pop_overdue(now) {
            self.live_indexers.judge(now, &peer, false);
        }
        self.offload.advance(
            now,
            &self.own,
            &mut self.delegation,
            &mut self.live_indexers,
        );
    }

    fn end_of_lease(&mut self, now: Instant, from: &PeerId) -> BeatOutcome {
        self.stream_records.remove(from);
        self.delegation.forget(from);
        self.directory.unlist(from);
        let copies = self.live_indexers.remove(from);
        if copies.is_some() || self.known_peer_ids.contains(from) {
            self.known_peer_ids
                .forget(now, from, copies.unwrap_or(3 * MAX_LEASE));
        }
        Ack::accepted(Duration::ZERO).into()
    }

    fn indexer_beat(
        &mut self,
        now: Instant,
        from: &PeerId,
        stream: StreamId,
        beat: &Beat<'_>,
    ) -> BeatOutcome {
        if let Some(ack) = self.stream_records.no_room_for(now, from) {
            return ack.into();
        }
        let lease = clamp_lease(beat.lease, self.config.terms.lease);
        let record = beat.record.map(|(info, _)| info);
        let Ok(publish) = self.live_indexers.beat(now, from, lease, beat.load, record) else {
            return Ack::full(
                "live_indexers is full: build with a larger OC_DISCOVERY_MAX_INDEXERS",
            )
            .into();
        };
        self.stream_records
            .renew(now, *from, Role::Indexer, stream, lease);
        self.known_peer_ids.heard_by_beat(now, from);
        BeatOutcome {
            ack: Ack::accepted(lease),
            publish,
        }
    }

    fn native_beat(
        &mut self,
        now: Instant,
        from: &PeerId,
        stream: StreamId,
        beat: &Beat<'_>,
    ) -> BeatOutcome {
        if self.leases.find(from).is_none() {
            return Ack::refused(
                "this native does not know you: start it with your address as --native",
            )
            .into();
        }
        if let Some(ack) = self.stream_records.no_room_for(now, from) {
            return ack.into();
        }
        let lease = clamp_lease(beat.lease, self.config.terms.lease);
        self.stream_records
            .renew(now, *from, Role::Native, stream, lease);
        for peer in beat.known.iter().filter(|peer| **peer != self.own) {
            self.known_peer_ids.heard_of(now, peer);
        }
        Ack::accepted(lease).into()
    }

    fn node_beat(
        &mut self,
        now: Instant,
        from: &PeerId,
        stream: StreamId,
        beat: &Beat<'_>,
    ) -> BeatOutcome {
        let welcome = self.delegation.contains(from)
            || self.delegation.has_ticket(now, from)
            || (self.stream_records.find(from).is_none()
                && self.reachable_live_indexers(now).next().is_none());
        if !welcome {
            let left = self
                .stream_records
                .seen(now, from, stream)
                .map_or(Duration::ZERO, |record| record.expiry - now);
            return Ack::released(left, self.offers(now, MAX_LIST, Want::Lease)).into();
        }
        if !self.delegation.has_room(from) {
            self.delegation.count_refusal();
            return Ack::full(
                "this native has taken in as many nodes as it can: try another native",
            )
            .into();
        }
        if let Some(ack) = self.stream_records.no_room_for(now, from) {
            return ack.into();
        }
        let lease = clamp_lease(beat.lease, self.config.terms.lease);
        self.stream_records
            .renew(now, *from, Role::Node, stream, lease);
        self.delegation.take_in(now, from);
        if let Some((info, envelope)) = beat.record {
            self.directory.list(info, envelope);
        }
        Ack::accepted(lease).into()
    }

    /// Offers, best first: for who only asks, all that live; for who wants a lease, the reachable.
    fn offers(&mut self, now: Instant, most: usize, want: Want) -> Offers {
        let mut offers = Offers::new();
        let mut best: Vec<(u32, u64, PeerId), MAX_LIST, u8> = Vec::new();
        let listed = self.live_indexers.iter(now).filter(|entry| match want {
            Want::Nothing => true,
            Want::Lease | Want::OffersFailed => {
                entry.verdict(now) == Some(true) && entry.has_room()
            }
        });
        for entry in listed {
            keep_best(
                &mut best,
                (entry.free().unwrap_or(1), self.rng.bits(), entry.peer),
            );
        }
        for (_, _, peer) in best.iter().take(most) {
            let offer = self
                .live_indexers
                .find(now, peer)
                .map(|entry| entry.offer(now));
            offers.extend(offer.filter(|offer| !offer.addrs.is_empty()));
        }
        offers
    }

    /// Whom to probe for an answer: the reachable first, then those of whom nothing is known, in random order.
    fn candidates(&mut self, now: Instant) -> Candidates {
        let mut best: Vec<(bool, u64, PeerId), { asks::MAX_CANDIDATES }, u8> = Vec::new();
        for entry in self.live_indexers.iter(now) {
            let verdict = entry.verdict(now);
            if verdict != Some(false) && entry.has_room() {
                keep_best(
                    &mut best,
                    (verdict == Some(true), self.rng.bits(), entry.peer),
                );
            }
        }
        best.iter().map(|(_, _, peer)| *peer).collect()
    }

    fn answer(&mut self, now: Instant, node: &PeerId, most: usize, want: Want) -> IndexersAnswer {
        let offers = self.offers(now, most, want);
        let stranded = match want {
            Want::Nothing => false,
            Want::Lease => offers.is_empty(),
            Want::OffersFailed => true,
        };
        let takes_in = stranded && self.delegation.has_room(node);
        if takes_in {
            self.delegation.give_ticket(now, node);
        } else if stranded {
            self.delegation.count_refusal();
        }
        IndexersAnswer { offers, takes_in }
    }

    fn is_decided(&self, now: Instant, peer: &PeerId) -> bool {
        self.live_indexers
            .find(now, peer)
            .is_none_or(|entry| entry.verdict(now).is_some())
    }

    fn pop_answer(&mut self, now: Instant) -> Option<Action> {
        let at = self.asks.iter().position(|ask| {
            ask.deadline <= now || ask.candidates.iter().all(|peer| self.is_decided(now, peer))
        })?;
        let ask = self.asks.swap_remove(at);
        Some(Action::Answer {
            request: ask.request,
            answer: self.answer(now, &ask.node, ask.most, ask.want),
        })
    }

    fn pop_release(&mut self, now: Instant) -> Option<Action> {
        while let Some((peer, indexer)) = self.delegation.pop_release() {
            let (Some(record), Some(entry)) = (
                self.stream_records.find(&peer),
                self.live_indexers.find(now, &indexer),
            ) else {
                continue;
            };
            // A node whose stream is gone learns it at its next connect-to-natives.
            if record.connected {
                let mut offers = Offers::new();
                offers.extend(Some(entry.offer(now)).filter(|offer| !offer.addrs.is_empty()));
                return Some(Action::Release {
                    peer,
                    stream: record.stream,
                    ack: Ack::released(record.expiry - now, offers),
                });
            }
        }
        None
    }

    fn pop_probe(&mut self, now: Instant) -> Option<Action> {
        let undecided = |peer: &PeerId| {
            self.live_indexers
                .find(now, peer)
                .is_some_and(|entry| entry.verdict(now).is_none())
        };
        let wanted = self
            .asks
            .iter()
            .flat_map(|ask| ask.candidates.iter().copied())
            .chain(self.offload.undecided())
            .filter(undecided);
        self.prober
            .start(now, wanted)
            .map(|peer| Action::Probe { peer })
    }

    fn pop_search(&mut self, now: Instant, own_ms: u64) -> Option<Action> {
        if let Some(peer) = self.refresh.overdue(now) {
            self.conclude(now, own_ms, &peer);
            return Some(Action::EndSearch { peer });
        }
        if let Some(peer) = self.refreshed.pop() {
            return Some(Action::Refreshed { peer });
        }
        self.refresh
            .next_search(now)
            .map(|peer| Action::Search { peer })
    }

    fn conclude(&mut self, now: Instant, own_ms: u64, peer: &PeerId) {
        let outcome = self.refresh.conclude(
            now,
            own_ms,
            peer,
            &mut self.known_peer_ids,
            &mut self.live_indexers,
        );
        if outcome == Outcome::Refreshed {
            // Only a line of the log is lost if the driver does not poll.
            let _ = self.refreshed.push(*peer);
        }
    }

    fn pop_lease_step(&mut self, now: Instant) -> Option<Action> {
        let step = self.leases.poll(now, &mut self.rng)?;
        Some(step.into_action(|manner| OutBeat {
            role: Role::Native,
            lease: self.config.terms.lease,
            with_record: false,
            fresh: manner.fresh,
            load: None,
            known: self.window(now),
        }))
    }

    /// The next up to 16 ids to tell another native: all that have a live entry take turns.
    fn window(&mut self, now: Instant) -> PeerList {
        let window: PeerList = self
            .known_peer_ids
            .iter_after(&self.told_up_to)
            .filter(|peer| self.live_indexers.find(now, peer).is_some())
            .take(MAX_LIST)
            .copied()
            .collect();
        if let Some(last) = window.last() {
            self.told_up_to = *last;
        }
        window
    }
}

impl<const I: usize, const K: usize, const R: usize, const S: usize> Default
    for Native<I, K, R, S>
{
    fn default() -> Self {
        Self::new()
    }
}
