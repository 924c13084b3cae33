//! `runOffloadLoop`: hands the nodes that this native took in over to indexers, as soon as some are
//! reachable.
//!
//! ```text
//!  tick · an indexer registers · a node comes that was promised a place before one registered
//!            │
//!            ▼
//!          len(responsible_peers) > 0 ? ─no─▶ nothing
//!            │ yes
//!            ▼
//!          reachable_live_indexers(): live_indexers that have not expired, each pinged
//!            │                        (8 at a time, 2 s each, the most recently heard first)
//!            │
//!            ├─ some have a place ─▶ responsible_peers = {}; each node is sent `released`, with
//!            │                        the indexer that has a place for it; a node without a
//!            │                        place at an address that it can use is taken in again, and
//!            │                        gets no message
//!            └─ none ─▶ the nodes stay
//! ```
//!
//! Invariants:
//! - A run decides by the state at the time of its decision: an indexer that went away while others
//!   were pinged gets no node.
//! - A run waits for the last verdict, but at most 2 s if some node has a place to go to, so that
//!   silent indexers do not delay the others. A run that an indexer's registration began does not
//!   wait if there is a place for every node.
//! - A node is sent only to an indexer with an address that it can use
//!   ([`Responsible::may_go_to`]). An indexer with addresses for its own host alone, or of a family
//!   that the node lacks, does not count. Among the others, one that surely fits the node comes
//!   first.
//! - For 10 s after every offer failed, a tick does not release the node, because the node would
//!   not retry those indexers yet. An indexer that registers may get the node at once.
//! - Places are given one after another, each to the indexer of the greatest weight. So after a
//!   run, no indexer with a place left has a weight greater by more than one than an indexer that
//!   got a node, unless more nodes failed at it. An indexer that overstates its room gets only its
//!   share.
//! - A run that is still pinging at the next tick goes on, and that tick is skipped. A run that a
//!   registration begins starts at least a second after the run before.

#[cfg(test)]
mod tests;

use core::{cmp::Reverse, time::Duration};

use heapless::Vec;

use crate::protocol::{Instant, PeerId, Rng, Verdict, time::Ticker};

use super::{
    delegation::{Delegation, Responsible},
    live_indexers::{LiveIndexer, LiveIndexers},
    probe::PROBE_TIMEOUT,
};

/// The shortest time between the beginnings of two runs, if a registration begins the second
/// (ARCHITECTURE.md, "Offload").
const RUN_GAP: Duration = Duration::from_secs(1);

/// The rank of an indexer for a node. The greatest is the best, and an earlier field counts more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    fits: bool,
    failures: Reverse<u8>,
    weight: i64,
}

/// The offload loop over at most `I` live indexers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Offload<const I: usize> {
    /// Its timer.
    pub ticker: Ticker,
    phase: Phase,
    /// When the last run began. It has no meaning before the first run.
    began: Instant,
    ran: bool,
    /// Whether an indexer that registered began the run. Then every node may be released.
    for_newcomer: bool,
    /// Another run must begin as soon as it may.
    wanted: bool,
    /// Because an indexer has registered.
    has_newcomer: bool,
    candidates: Vec<PeerId, I>,
    reachable: Vec<PeerId, I>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// No run.
    #[default]
    Idle,
    /// Waits for all verdicts.
    Pinging,
    /// The same, but decides as soon as every node has a place.
    Hurrying,
    /// Has waited for 2 s, and decides as soon as some node has a place.
    Late,
}

impl<const I: usize> Offload<I> {
    /// The loop before its first run.
    pub(super) const fn new() -> Self {
        Self {
            ticker: Ticker::new(),
            phase: Phase::Idle,
            began: Instant::from_millis(0),
            ran: false,
            for_newcomer: false,
            wanted: false,
            has_newcomer: false,
            candidates: Vec::new(),
            reachable: Vec::new(),
        }
    }

    /// One tick: begins a run if there is a node to hand over.
    pub(super) fn tick<const R: usize>(
        &mut self,
        now: Instant,
        delegation: &Delegation<R>,
        live: &mut LiveIndexers<I>,
    ) {
        if self.phase != Phase::Idle || delegation.is_empty() {
            return;
        }
        live.forget_silent_promises();
        self.begin(now, Phase::Pinging, live);
    }

    /// An indexer registered while nodes are taken in: a run begins now, or a second after the last
    /// one began.
    pub(super) fn indexer_registered(&mut self) {
        (self.wanted, self.has_newcomer) = (true, true);
    }

    /// A node came that was promised a place, and an indexer that it can use has registered
    /// meanwhile: a run begins as above.
    pub(super) fn node_came_late(&mut self) {
        self.wanted = true;
    }

    /// The candidates without a verdict so far.
    pub(super) fn undecided(&self) -> impl Iterator<Item = PeerId> {
        self.candidates.iter().copied()
    }

    /// When the loop has something to do besides its ticks and events.
    pub(super) fn timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle if self.wanted => Some(self.next_run()),
            Phase::Pinging | Phase::Hurrying => Some(self.began + PROBE_TIMEOUT),
            Phase::Idle | Phase::Late => None,
        }
    }

    /// Collects the verdicts, and decides when there are enough.
    pub(super) fn advance<const R: usize>(
        &mut self,
        now: Instant,
        own: &PeerId,
        delegation: &mut Delegation<R>,
        live: &mut LiveIndexers<I>,
    ) {
        self.begin_if_wanted(now, delegation, live);
        if self.phase == Phase::Idle {
            return;
        }
        if now >= self.began + PROBE_TIMEOUT {
            self.phase = Phase::Late;
        }
        let since = self.began;
        self.candidates.retain(|peer| {
            live.find(now, peer)
                .is_some_and(|entry| entry.verdict(since).is_none())
        });
        let enough = self.is_enough(now, delegation, live);
        if enough || self.candidates.is_empty() {
            self.phase = Phase::Idle;
            self.ticker.decided(since, now);
            self.candidates.clear();
            self.reachable.clear();
            let reachable = |entry: &&LiveIndexer| entry.verdict(since) == Some(Verdict::Reachable);
            // The list has room for all entries of `live`.
            self.reachable
                .extend(live.iter(now).filter(reachable).map(|entry| entry.peer));
            let released = self.decide(now, own, delegation, live);
            self.ticker.did(released);
            self.begin_if_wanted(now, delegation, live);
            if self.phase != Phase::Idle {
                // This recurses at most once, because the next run may begin only a second later.
                self.advance(now, own, delegation, live);
            }
        }
    }

    /// Whether there is no reason to wait for further verdicts.
    fn is_enough<const R: usize>(
        &self,
        now: Instant,
        delegation: &Delegation<R>,
        live: &LiveIndexers<I>,
    ) -> bool {
        let places_for = |node: &Responsible| {
            let entries = live.iter(now).filter(|entry| {
                entry.verdict(self.began) == Some(Verdict::Reachable)
                    && node.may_go_to(&entry.addrs)
            });
            let places = entries.map(LiveIndexer::places);
            places.fold(0, u32::saturating_add) as usize
        };
        let kinds = || delegation.kinds().into_iter();
        match self.phase {
            Phase::Idle | Phase::Pinging => false,
            Phase::Hurrying => kinds().all(|node| places_for(node) >= delegation.len()),
            Phase::Late => kinds().any(|node| places_for(node) > 0),
        }
    }

    fn begin_if_wanted<const R: usize>(
        &mut self,
        now: Instant,
        delegation: &Delegation<R>,
        live: &LiveIndexers<I>,
    ) {
        if delegation.is_empty() {
            (self.wanted, self.has_newcomer) = (false, false);
        }
        if self.phase == Phase::Idle && self.wanted && now >= self.next_run() {
            self.begin(now, Phase::Hurrying, live);
        }
    }

    fn next_run(&self) -> Instant {
        if self.ran {
            self.began + RUN_GAP
        } else {
            Instant::default()
        }
    }

    fn begin(&mut self, now: Instant, phase: Phase, live: &LiveIndexers<I>) {
        self.phase = phase;
        self.for_newcomer = core::mem::take(&mut self.has_newcomer);
        self.began = now;
        self.ran = true;
        self.wanted = false;
        self.candidates.clear();
        // The list has room for all entries of `live`.
        self.candidates
            .extend(live.iter(now).map(|entry| entry.peer));
        let last_beat = |peer: &PeerId| live.find(now, peer).and_then(LiveIndexer::last_beat);
        self.candidates
            .sort_unstable_by_key(|peer| Reverse((last_beat(peer), *peer)));
    }

    /// Releases the nodes that have a place to go to. Returns how many they are.
    fn decide<const R: usize>(
        &self,
        now: Instant,
        own: &PeerId,
        delegation: &mut Delegation<R>,
        live: &mut LiveIndexers<I>,
    ) -> usize {
        // Each native has its own order of equal indexers, so that not all natives fill the same
        // one.
        let mut rng = Rng::for_peer(own);
        let (mut turn, mut released) = (0, 0);
        delegation.hand_over(|node| {
            if !self.for_newcomer && !node.may_go(now) {
                return None;
            }
            let mut best: Option<(Rank, PeerId)> = None;
            for offset in 0..self.reachable.len() {
                let peer = self.reachable.get((turn + offset) % self.reachable.len())?;
                let is_place =
                    |entry: &&LiveIndexer| entry.places() > 0 && node.may_go_to(&entry.addrs);
                let Some(entry) = live.find(now, peer).filter(is_place) else {
                    continue;
                };
                let rank = Rank {
                    fits: node.reader.fits(&entry.addrs),
                    failures: Reverse(entry.failures(now)),
                    weight: entry.weight(),
                };
                if best.is_none_or(|(best, _)| rank > best) {
                    best = Some((rank, *peer));
                }
            }
            turn = turn.wrapping_add(1 + rng.below(2) as usize) % self.reachable.len().max(1);
            let (_, peer) = best?;
            live.find_mut(&peer)?.reserve();
            released += 1;
            Some(peer)
        });
        released
    }
}
