//! `runOffloadLoop`: hands the nodes that this native took in over to indexers, as soon as some are
//! reachable.
//!
//! ```text
//!  tick · an indexer registers ─▶ len(responsible_peers) > 0 ? ─no─▶ nothing
//!            │ yes
//!            ▼
//!          reachable_live_indexers(): live_indexers whose lease has not run out, each pinged (8 at a time, 2 s each, those that
//!            │                        were heard last first)
//!            │
//!            ├─ some have a place ─▶ responsible_peers = {}; each node is told `released`, with the indexer whose
//!            │                        place is reserved for it; a node without a place, or for which no place is
//!            │                        at an address that is of use to it, is taken in again, untold
//!            └─ none ─▶ the nodes stay
//! ```
//!
//! Invariants:
//! - A run decides by what is true when it decides: an indexer that went away while others were
//!   pinged gets no node.
//! - A run waits for the last verdict, but not longer than 2 s if some node has a place to go to:
//!   silent indexers keep no node from the others. A run that an indexer's registration began waits
//!   for nothing if there is a place for every node.
//! - A node is sent only where an address is of use to it ([`Responsible::may_go_to`]): an indexer
//!   for its own host alone, or in a family that the node lacks, is as none. Among those, one that
//!   fits what the node has shown goes first.
//! - A tick leaves a node alone for 10 s after every offer failed at it: it would not try again
//!   what failed. An indexer that registers may have it at once.
//! - Places go to the indexer of the greatest weight, one after another: when a run has decided, no
//!   indexer with a place left is better by more than one place than one that got a node, unless
//!   more nodes failed at it. One that boasts gets its share.
//! - A run that is still pinging when the next tick comes goes on; that tick is skipped. Runs that
//!   registrations begin are at least a second after the run before.

#[cfg(test)]
mod tests;

use core::{cmp::Reverse, time::Duration};

use heapless::Vec;

use crate::protocol::{Instant, PeerId, Rng, time::Ticker};

use super::{
    delegation::{Delegation, Responsible},
    live_indexers::{LiveIndexer, LiveIndexers, Verdict},
    probe::PROBE_TIMEOUT,
};

/// Time between the beginnings of two runs at least, if a registration begins the second
/// (ARCHITECTURE.md, "Offload").
const RUN_GAP: Duration = Duration::from_secs(1);

/// How good an indexer is for a node: whether it fits it, at how few nodes it failed, its weight.
/// The greatest is the best.
type Rank = (bool, Reverse<u8>, i64);

/// The offload loop over at most `I` live indexers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offload<const I: usize> {
    /// Its timer.
    pub ticker: Ticker,
    phase: Phase,
    /// When the last run began; meaningless before the first.
    began: Instant,
    ran: bool,
    /// Whether an indexer that registered began the run: then no node is left alone.
    for_newcomer: bool,
    /// An indexer registered: another run is wanted as soon as it may be.
    wanted: bool,
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
    /// Has waited for 2 s: decides as soon as some node has a place.
    Late,
}

impl<const I: usize> Offload<I> {
    /// The loop before its first run.
    pub const fn new() -> Self {
        Self {
            ticker: Ticker::new(),
            phase: Phase::Idle,
            began: Instant::from_millis(0),
            ran: false,
            for_newcomer: false,
            wanted: false,
            candidates: Vec::new(),
            reachable: Vec::new(),
        }
    }

    /// One tick: begins a run if there is somebody to hand over.
    pub fn tick<const R: usize>(
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
    pub fn indexer_registered(&mut self) {
        self.wanted = true;
    }

    /// The candidates whose verdict is not known yet.
    pub fn undecided(&self) -> impl Iterator<Item = PeerId> {
        self.candidates.iter().copied()
    }

    /// When the loop has something to do besides its ticks and what events bring.
    pub fn timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle if self.wanted => Some(self.next_run()),
            Phase::Pinging | Phase::Hurrying => Some(self.began + PROBE_TIMEOUT),
            Phase::Idle | Phase::Late => None,
        }
    }

    /// Takes the verdicts in; when there are enough, decides.
    pub fn advance<const R: usize>(
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
            self.candidates.clear();
            self.reachable.clear();
            let reachable = |entry: &&LiveIndexer| entry.verdict(since) == Some(Verdict::Reachable);
            // As many entries as `live` holds at most: there is room.
            self.reachable
                .extend(live.iter(now).filter(reachable).map(|entry| entry.peer));
            self.decide(now, own, delegation, live);
            self.begin_if_wanted(now, delegation, live);
            if self.phase != Phase::Idle {
                // Once at most: the next run may begin a second later.
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
            self.wanted = false;
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
        self.for_newcomer = phase == Phase::Hurrying;
        self.began = now;
        self.ran = true;
        self.wanted = false;
        self.candidates.clear();
        // As many entries as `live` holds at most: there is room.
        self.candidates
            .extend(live.iter(now).map(|entry| entry.peer));
        let last_beat = |peer: &PeerId| live.find(now, peer).and_then(LiveIndexer::last_beat);
        self.candidates
            .sort_unstable_by_key(|peer| Reverse((last_beat(peer), *peer)));
    }

    fn decide<const R: usize>(
        &self,
        now: Instant,
        own: &PeerId,
        delegation: &mut Delegation<R>,
        live: &mut LiveIndexers<I>,
    ) {
        // Equal indexers are taken in an order of this native's own, so that natives do not all
        // fill the same one.
        let mut rng = Rng::for_peer(own);
        let mut turn = 0;
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
                let fits = node.reader.fits(&entry.addrs);
                let rank = (fits, Reverse(entry.failures(now)), entry.weight());
                if best.is_none_or(|(best, _)| rank > best) {
                    best = Some((rank, *peer));
                }
            }
            turn = turn.wrapping_add(1 + rng.below(2) as usize) % self.reachable.len().max(1);
            let (_, peer) = best?;
            live.find_mut(&peer)?.reserve();
            Some(peer)
        });
    }
}
