//! The node: holds leases with indexers, or with the native that took it in.
//!
//! Connect-to-natives is one round after another:
//!
//! ```text
//!  start · connect_interval · fewer than min_indexers leases · told `released`
//!        │
//!        ▼
//!  ask the natives one after another ──offers──▶ candidates ──weighted by free leases──▶ leases with indexers
//!        │                                                                                  │
//!        │ none has an offer, one takes us in                        one accepted: what a native holds is given up
//!        ▼                                                                                  │
//!  lease with that native ◀──every offer failed: the next round says so───────────────────────┘
//! ```
//!
//! Invariants: at most one lease is being sought with a native at a time; a lease is given up only after another was accepted
//! (make before break); rounds that come to nothing back off up to `connect_interval`.

mod machine;
#[cfg(test)]
mod tests;

use core::time::Duration;

use heapless::Vec;

use super::{
    Ack, AckCode, Action, Addrs, IndexersAnswer, Instant, Machine, Offers, OutBeat, PeerId,
    PeerList, Report, Rng, Role, Terms, Want,
    lease::Lease,
    leases::{LeaseStep, Leases},
    time::backoff,
};

/// Natives known at most.
pub const MAX_NATIVES: usize = 8;
/// Indexers that may be tried, at most.
const MAX_CANDIDATES: usize = 32;
/// How long a native has for its answer: dialling, and 2 s for probing its candidates.
const ASK_TIMEOUT: Duration = Duration::from_secs(8);
/// How long an indexer that gave no lease is left alone.
const FAILED_TTL: Duration = Duration::from_secs(10);
/// First step of the backoff between rounds.
const BACKOFF_BASE: Duration = Duration::from_millis(500);

/// What a node is told at its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// Lease asked for, and time between beats.
    pub terms: Terms,
    /// Time between rounds of connect-to-natives.
    pub connect_interval: Duration,
    /// Leases with different indexers to be held, 1 to 8.
    pub min_indexers: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    peer: PeerId,
    addrs: Addrs,
    free: Option<u32>,
    failed: Option<Instant>,
}

/// A round of connect-to-natives under way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Round {
    asked: usize,
    /// Whose answer is waited for, and until when.
    waiting: Option<(PeerId, Instant)>,
    remembered_tried: bool,
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    own: PeerId,
    config: NodeConfig,
    rng: Rng,
    leases: Leases,
    natives: Vec<(PeerId, Addrs), MAX_NATIVES>,
    first_native: usize,
    remembered: Vec<(PeerId, Addrs), MAX_CANDIDATES>,
    candidates: Vec<Candidate, MAX_CANDIDATES>,
    round: Vec<Round, 1>,
    next_round: Instant,
    failed_rounds: u8,
    offers_failed: bool,
    stopped: bool,
}

impl Node {
    /// A node before its start.
    pub const fn new() -> Self {
        Self {
            own: PeerId::from_bytes([0; 32]),
            config: NodeConfig {
                terms: Terms {
                    lease: Duration::ZERO,
                    beat_interval: Duration::ZERO,
                },
                connect_interval: Duration::ZERO,
                min_indexers: 0,
            },
            rng: Rng::new(0),
            leases: Leases::new(),
            natives: Vec::new(),
            first_native: 0,
            remembered: Vec::new(),
            candidates: Vec::new(),
            round: Vec::new(),
            next_round: Instant::from_millis(0),
            failed_rounds: 0,
            offers_failed: false,
            stopped: false,
        }
    }

    /// Starts the first round. `seed` decides about jitter.
    pub fn start(&mut self, now: Instant, own: PeerId, seed: u64, config: NodeConfig) {
        self.own = own;
        self.config = config;
        self.rng = Rng::new(seed);
        self.next_round = now;
        self.leases.start(now, config.terms, true);
    }

    /// An indexer that an earlier run of this node knew: it is tried when no native can be reached.
    pub fn remember(&mut self, indexer: PeerId, addrs: Addrs) {
        // What does not fit would be the least recent.
        let _ = self.remembered.push((indexer, addrs));
    }

    /// Brings leases, candidates and the round to rest: whatever follows from what is known now.
    fn settle(&mut self, now: Instant) {
        if self.stopped {
            return;
        }
        self.drop_lost_leases(now);
        self.break_after_make(now);
        self.seek_leases(now);
        if self.round.is_empty() && now >= self.next_round {
            let _ = self.round.push(Round {
                asked: 0,
                waiting: None,
                remembered_tried: false,
            });
        }
        self.advance_round(now);
    }

    fn drop_lost_leases(&mut self, now: Instant) {
        // A lease that was held has one more try at once; every other failure is final for it.
        let is_lost = |lease: &&Lease| {
            lease.is_resting() && lease.failures() > u8::from(lease.expiry(now).is_some())
        };
        loop {
            let lost = self.leases.iter().find(is_lost);
            let Some((server, role)) = lost.map(|lease| (*lease.server(), lease.role())) else {
                return;
            };
            self.leases.give_up(&server);
            if let Some(candidate) = self
                .candidates
                .iter_mut()
                .find(|candidate| candidate.peer == server)
            {
                candidate.failed = Some(now);
            }
            if role == Role::Indexer && self.wants_more() && self.untried().next().is_none() {
                self.offers_failed = !self.holds_an_indexer(now);
                self.next_round = now;
            } else if role == Role::Native
                && self.round.is_empty()
                && self.leases.iter().next().is_none()
            {
                self.next_round = now
                    + backoff(
                        &mut self.rng,
                        BACKOFF_BASE,
                        self.failed_rounds,
                        self.config.connect_interval,
                    );
                self.failed_rounds = self.failed_rounds.saturating_add(1);
            }
        }
    }

    fn break_after_make(&mut self, now: Instant) {
        let accepted = |lease: &&Lease| lease.is_secure(now) && !lease.is_released();
        let Some(keep) = self
            .leases
            .iter()
            .filter(accepted)
            .max_by_key(|lease| lease.role() == Role::Indexer)
            .map(|lease| (*lease.server(), lease.role()))
        else {
            return;
        };
        self.failed_rounds = 0;
        if keep.1 == Role::Indexer {
            self.offers_failed = false;
        }
        let superseded = |lease: &&Lease| {
            *lease.server() != keep.0
                && lease.is_secure(now)
                && (lease.role() == Role::Native || lease.is_released())
        };
        loop {
            let found = self
                .leases
                .iter()
                .find(superseded)
                .map(|lease| *lease.server());
            let Some(server) = found else { return };
            self.leases.give_up(&server);
        }
    }

    fn seek_leases(&mut self, now: Instant) {
        while self.wants_more() {
            let Some((peer, addrs)) = self.choose() else {
                return;
            };
            if !self.leases.add(now, peer, Role::Indexer, &addrs) {
                return;
            }
        }
    }

    /// The next candidate: weighted by free leases, and the same for the same node and the same offers.
    fn choose(&self) -> Option<(PeerId, Addrs)> {
        let weight = |candidate: &Candidate| u64::from(candidate.free.unwrap_or(1));
        let mut untried: Vec<&Candidate, MAX_CANDIDATES> = self.untried().collect();
        untried.sort_unstable_by_key(|candidate| candidate.peer);
        let mut rng = Rng::for_peer(&self.own);
        let total: u64 = untried.iter().map(|candidate| weight(candidate)).sum();
        let mut at = rng.below(total);
        let chosen = untried.iter().find(|candidate| {
            let here = at < weight(candidate);
            at = at.saturating_sub(weight(candidate));
            here
        });
        chosen
            .or(untried.first())
            .map(|candidate| (candidate.peer, candidate.addrs.clone()))
    }

    fn advance_round(&mut self, now: Instant) {
        let covered = self.seeking() - self.late() + self.untried().count();
        let Some(round) = self.round.first_mut() else {
            return;
        };
        if round.waiting.is_some_and(|(_, until)| until <= now) {
            round.waiting = None;
            round.asked += 1;
        }
        if round.waiting.is_some() {
            return;
        }
        if covered < self.config.min_indexers && round.asked < self.natives.len() {
            return;
        }
        if self.leases.iter().next().is_none() && covered == 0 && !round.remembered_tried {
            round.remembered_tried = true;
            for (peer, addrs) in self.remembered.clone() {
                self.propose(now, peer, addrs, None);
            }
            self.seek_leases(now);
            return self.advance_round(now);
        }
        self.end_round(now);
    }

    fn end_round(&mut self, now: Instant) {
        self.round.clear();
        // A lease that only runs out is none.
        let pause = if self.leases.iter().any(|lease| !lease.is_released()) {
            self.config.connect_interval + self.rng.up_to(self.config.connect_interval / 10)
        } else {
            let failures = self.failed_rounds;
            self.failed_rounds = failures.saturating_add(1);
            backoff(
                &mut self.rng,
                BACKOFF_BASE,
                failures,
                self.config.connect_interval,
            )
        };
        self.next_round = now + pause;
    }

    /// Asks the round's next native, if it is its turn.
    fn pop_ask(&mut self, now: Instant) -> Option<Action> {
        let holds_an_indexer = self.holds_an_indexer(now);
        let round = self.round.first_mut()?;
        if round.waiting.is_some() {
            return None;
        }
        let at = (self.first_native + round.asked) % self.natives.len().max(1);
        let (native, _) = self.natives.get(at)?;
        round.waiting = Some((*native, now + ASK_TIMEOUT));
        Some(Action::Ask {
            native: *native,
            want: if self.offers_failed && !holds_an_indexer {
                Want::OffersFailed
            } else {
                Want::Lease
            },
        })
    }

    fn propose(&mut self, now: Instant, peer: PeerId, addrs: Addrs, free: Option<u32>) {
        if peer == self.own
            || self
                .leases
                .find(&peer)
                .is_some_and(|lease| lease.role() == Role::Indexer)
        {
            return;
        }
        if let Some(known) = self
            .candidates
            .iter_mut()
            .find(|candidate| candidate.peer == peer)
        {
            known.addrs = addrs;
            known.free = free;
            known.failed = known.failed.filter(|failed| now - *failed < FAILED_TTL);
            return;
        }
        if self.candidates.is_full() {
            self.candidates
                .retain(|candidate| candidate.failed.is_none());
        }
        // What does not fit is the least of the offers: they come best first.
        let _ = self.candidates.push(Candidate {
            peer,
            addrs,
            free,
            failed: None,
        });
    }

    /// A server names offers, and may send us away: the first time, that begins a round.
    fn heed(&mut self, now: Instant, server: &PeerId, ack: &Ack) {
        self.propose_all(now, &ack.offers);
        let was_released = self.leases.find(server).is_none_or(Lease::is_released);
        if ack.code == AckCode::Released && !was_released {
            self.next_round = now;
        }
    }

    fn propose_all(&mut self, now: Instant, offers: &Offers) {
        for offer in offers {
            self.propose(now, offer.peer, offer.addrs.clone(), offer.free);
        }
    }

    fn untried(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter().filter(|candidate| {
            candidate.failed.is_none() && self.leases.find(&candidate.peer).is_none()
        })
    }

    /// Leases with indexers that are held, or on their way.
    fn seeking(&self) -> usize {
        self.leases
            .iter()
            .filter(|lease| lease.role() == Role::Indexer && !lease.is_released())
            .count()
    }

    /// Leases with indexers whose ack is late. Others are asked for meanwhile, or where the indexer is now.
    fn late(&self) -> usize {
        let late = |lease: &&Lease| {
            lease.role() == Role::Indexer && !lease.is_released() && lease.is_late()
        };
        self.leases.iter().filter(late).count()
    }

    fn wants_more(&self) -> bool {
        self.seeking() < self.config.min_indexers
    }

    fn holds_an_indexer(&self, now: Instant) -> bool {
        self.leases.iter().any(|lease| {
            lease.role() == Role::Indexer && lease.is_secure(now) && !lease.is_released()
        })
    }

    /// The indexer that publishes our record, so that the others need not: of those whose lease is held the first.
    fn publisher(&self, now: Instant) -> Option<PeerId> {
        let held = |lease: &&Lease| {
            lease.role() == Role::Indexer && lease.is_secure(now) && !lease.is_released()
        };
        self.leases.iter().find(held).map(|lease| *lease.server())
    }

    /// The native takes us in, unless another does already.
    fn be_taken_in(&mut self, now: Instant, native: &PeerId) {
        let sought = |lease: &Lease| lease.role() == Role::Native && !lease.is_released();
        if self.leases.iter().any(sought) {
            return;
        }
        let Some(at) = self.natives.iter().position(|(peer, _)| peer == native) else {
            return;
        };
        let addrs = self.natives.get(at).map(|(_, addrs)| addrs.clone());
        if self
            .leases
            .add(now, *native, Role::Native, &addrs.unwrap_or_default())
        {
            self.leases.hurry(now, native);
        }
        // The native that helped is asked first the next time.
        self.first_native = at;
        let all = self.natives.len();
        if let Some(round) = self.round.first_mut() {
            round.asked = all;
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}
