//! The node: holds leases with indexers, or with the native that took it in.
//!
//! Connect-to-natives is one round after another:
//!
//! ```text
//!  start · connect_interval · fewer than min_indexers leases · `released` received
//!        │
//!        ▼
//!  ask the natives one after another ──offers──▶ candidates ──free leases──▶ leases with indexers
//!        │                                                                        │
//!        │ none has an offer, one takes us in    one accepted: the native's lease is given up
//!        ▼                                                                        │
//!  lease with that native ◀──every offer failed, or 2 s without a lease: the round reports it──┘
//! ```
//!
//! | file | what it decides |
//! |---|---|
//! | `rounds` | when which native is asked, and for what |
//! | `candidates` | which indexer is tried next |
//! | `failures` | what pauses after a failure, and for how long |
//! | `reopen` | at which addresses a lease is opened again |
//! | `spare` | when more leases than the first are sought |
//!
//! A node without a lease from an indexer tries several at a time, and more the longer this lasts:
//! [`NodeConfig::min_indexers`], doubled every 2 s up to [`MAX_TRIES`]. After the first 2 s, it
//! first tries those that natives name most often. Each indexer has 2 s for its first ack, and 2 s
//! more for each earlier failure, up to 5 s. Meanwhile a native takes the node in.
//!
//! Invariants:
//! - At most one lease with a native is sought at a time; a lease is given up only after another
//!   was accepted (make before break).
//! - Every stream that is opened and every request takes tokens from one bucket: 16 at once and
//!   then two a second, whatever the peers send ([`Leases`]). So a node opens at most 136
//!   connections in its first minute and 120 in each later one. Its attempts at one host and port
//!   without a lease, or at one prefix, are limited further by `failures`.
//! - While a native can be reached and has a place, a node is without a lease for seconds only,
//!   because its requests do not depend on the indexers that fail.
//! - An offer is not tried after its time to live. For this, a request waits for the streams that
//!   are due.
//! - Only one unsolicited ack counts between two answers, so a server that repeats `released` has
//!   an effect once a beat.

mod candidates;
mod failures;
mod leaving;
mod machine;
mod reopen;
mod rounds;
mod spare;
#[cfg(test)]
mod tests;

use core::time::Duration;

use heapless::Vec;

use super::{
    Ack, AckCode, Action, Addrs, IndexersAnswer, Input, Instant, Machine, Offer, OutBeat, PeerId,
    Report, Rng, Role, Terms, Want,
    lease::{Lease, OPEN_TIMEOUT, REFUSED_PAUSE},
    leases::{LeaseStep, Leases, NODE_DIAL},
    lookup::{Ask, Query},
};
use candidates::{Candidates, Choice, MAX_CANDIDATES, OfferSource};
use failures::Failures;
use rounds::{RoundFor, Rounds};
use spare::Spare;

/// Indexers that a node without a lease tries at once, at most.
pub(crate) const MAX_TRIES: usize = 8;
/// How long an indexer has for its first ack while the node holds no lease. Also how long a node
/// without a lease waits before it asks a native to take it in, and before it tries more indexers
/// at once.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the tries at once double.
const MAX_STEPS: u32 = MAX_TRIES.ilog2();
/// The longest pause between failed rounds, if a sixth of the lease is longer (ARCHITECTURE.md,
/// "Retries").
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Indexers that a node wants leases with at most.
pub const MAX_MIN_INDEXERS: usize = 8;
/// How long an indexer of an earlier run is a candidate.
const REMEMBERED_TTL: Duration = Duration::from_secs(60);

/// The configuration of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// The lease requested, and the time between beats.
    pub terms: Terms,
    /// Time between rounds of connect-to-natives.
    pub connect_interval: Duration,
    /// The number of leases with different indexers to hold, 1 to [`MAX_MIN_INDEXERS`].
    pub min_indexers: usize,
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    own: PeerId,
    config: NodeConfig,
    rng: Rng,
    leases: Leases,
    rounds: Rounds,
    remembered: Vec<(PeerId, Addrs), MAX_CANDIDATES>,
    candidates: Candidates,
    failures: Failures,
    spare: Spare,
    /// Since when indexers are tried while none has granted a lease.
    without_since: Option<Instant>,
    /// The last token was taken by a request, and not by an attempt.
    asked_last: bool,
    /// When a decision is due without an event.
    wake: Option<Instant>,
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
            rounds: Rounds::new(),
            remembered: Vec::new(),
            candidates: Candidates::new(),
            failures: Failures::new(),
            spare: Spare::new(),
            without_since: None,
            asked_last: false,
            wake: None,
            stopped: false,
        }
    }

    /// Starts the first round. `seed` determines the jitter.
    pub fn start(&mut self, now: Instant, own: PeerId, seed: u64, config: NodeConfig) {
        self.own = own;
        self.wake = Some(now);
        self.config = config;
        self.rng = Rng::new(seed);
        let longest_pause = LONGEST_PAUSE.min(config.terms.lease / 6);
        self.rounds.start(now, &own, longest_pause);
        self.leases.start(config.terms, NODE_DIAL);
        self.leases.start_signing(now);
    }

    /// Adds an indexer that an earlier run of this node knew. It is tried when no native can be
    /// reached.
    pub fn remember(&mut self, indexer: PeerId, addrs: Addrs) {
        // If it does not fit, it is the least recent.
        let _ = self.remembered.push((indexer, addrs));
    }

    /// Makes all decisions about leases, candidates and the round that follow from the present
    /// state.
    fn settle(&mut self, now: Instant) {
        if self.stopped {
            return;
        }
        self.drop_lost_leases(now);
        self.break_after_make(now);
        self.shed_released();
        self.seek_leases(now);
        if self.is_refused_everywhere(now) {
            // The time until the next attempts does not count as failure of the indexers.
            self.without_since = None;
        }
        if self.offers_failed(now) && self.rounds.may_complain() {
            self.rounds.begin(Want::OffersFailed, RoundFor::FirstLease);
        }
        let want = match self.offers_failed(now) {
            true => Want::OffersFailed,
            false => Want::Lease,
        };
        let lease = match self.holds_an_indexer(now) {
            true => RoundFor::SpareLease,
            false => RoundFor::FirstLease,
        };
        self.rounds.begin_if_due(now, want, lease);
        self.advance_round(now);
    }

    fn seek_leases(&mut self, now: Instant) {
        while self.seeking() < self.width(now) {
            // When tokens are short, requests and attempts take turns, so that neither starves the
            // other.
            let asks = u32::from(!self.asked_last && self.rounds.is_asking(now));
            if !self.leases.has_dials(now, asks) {
                return;
            }
            let choice = match self.without_since {
                Some(since) if now >= since + TRY_TIMEOUT => Choice::ByNatives,
                _ => Choice::ByRoom,
            };
            let (failures, leases) = (&self.failures, &self.leases);
            let chosen = self
                .candidates
                .choose(now, &self.own, choice, failures, leases);
            let Some((peer, addrs)) = chosen else { return };
            let patience = if self.holds_an_indexer(now) {
                OPEN_TIMEOUT
            } else {
                let failed = u32::from(self.failures.of(&peer));
                (TRY_TIMEOUT * (1 + failed)).min(OPEN_TIMEOUT)
            };
            if !self.leases.attempt(now, peer, &addrs, patience) {
                return;
            }
            self.asked_last = false;
            self.failures.begin(now, &addrs, &mut self.rng);
            if !self.holds_an_indexer(now) {
                self.without_since.get_or_insert(now);
            }
        }
    }

    /// How many indexers may hold a lease or be tried now.
    fn width(&self, now: Instant) -> usize {
        let wanted = self.config.min_indexers;
        match self.without_since {
            Some(since) if !self.holds_an_indexer(now) => {
                let steps = (1..=MAX_STEPS).filter(|steps| now >= since + TRY_TIMEOUT * *steps);
                (wanted << steps.count()).clamp(wanted, MAX_TRIES.max(wanted))
            }
            _ => self.wanted(now),
        }
    }

    /// How many leases with indexers are wanted now.
    fn wanted(&self, now: Instant) -> usize {
        if self.spare.is_sought(now) || !self.holds_an_indexer(now) {
            self.config.min_indexers
        } else {
            1
        }
    }

    /// Whether there is no lease although indexers were offered: all of them are pausing, or it has
    /// taken too long.
    fn offers_failed(&self, now: Instant) -> bool {
        if self.is_refused_everywhere(now) {
            return false;
        }
        let has_a_lease = |lease: &Lease| {
            !lease.is_released() && (lease.is_secure(now) || lease.role() == Role::Native)
        };
        if self.leases.iter().any(has_a_lease) {
            return false;
        }
        let all = self.seeking() == 0 && !self.has_candidate(now) && self.candidates.any(now);
        all || self
            .without_since
            .is_some_and(|since| now >= since + TRY_TIMEOUT)
    }

    /// Whether no offered indexer failed, because all of them refuse this node.
    fn is_refused_everywhere(&self, now: Instant) -> bool {
        self.seeking() == 0 && self.candidates.are_all_refused(now, &self.failures)
    }

    fn advance_round(&mut self, now: Instant) {
        let asking = self.rounds.is_asking(now);
        if !self.rounds.is_under_way() || self.rounds.is_waiting() {
            return;
        }
        let ready = self.candidates.ready(now, &self.failures, &self.leases);
        let covered = self.seeking() - self.late() + ready;
        let suffices = match self.rounds.want() {
            Some(Want::OffersFailed) => !self.offers_failed(now),
            _ => covered >= self.wanted(now),
        };
        let has_offers = self.rounds.has_answer() && self.holds_an_indexer(now);
        if asking && !suffices && !has_offers {
            return;
        }
        if self.leases.iter().next().is_none() && covered == 0 && self.rounds.try_remembered() {
            for (peer, addrs) in self.remembered.clone() {
                let (ttl, free) = (REMEMBERED_TTL, None);
                let offer = Offer {
                    peer,
                    addrs,
                    ttl,
                    free,
                };
                self.propose(now, &offer, OfferSource::Other);
            }
            self.seek_leases(now);
        }
        // A released lease does not count, because it only runs out.
        let has_leases = self.leases.iter().any(|lease| !lease.is_released());
        // A native that did not answer, because a connection was closed or it starts again, is
        // asked again after the usual pause.
        let waits = has_leases && !self.rounds.is_in_vain();
        let interval = waits.then_some(self.config.connect_interval);
        self.rounds.end(now, interval, &mut self.rng);
    }

    /// Asks the next native of the round, if its turn has come.
    fn pop_ask(&mut self, now: Instant) -> Option<Action> {
        if !self.rounds.is_asking(now) || !self.leases.draw(now) {
            return None;
        }
        let (native, want) = self.rounds.ask(now)?;
        self.asked_last = true;
        Some(Action::Ask {
            query: Query::Machine(native),
            lookup: None,
            server: native,
            addrs: self.addrs_of(&native).cloned().unwrap_or_default(),
            ask: Ask::Offers(want),
        })
    }

    /// When the next decision is due, if no event comes before.
    fn next_decision(&self, now: Instant) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let round = match self.rounds.waits_until() {
            Some(until) => until,
            None if self.rounds.is_under_way() => self.leases.next_dial(),
            None => self.rounds.next(),
        };
        // More indexers are tried every 2 s, up to the maximum. After the first 2 s a native is
        // asked.
        let step = self.without_since.and_then(|since| {
            (1..=MAX_STEPS)
                .map(|steps| since + TRY_TIMEOUT * steps)
                .find(|at| now < *at)
        });
        let candidate = (self.seeking() < self.width(now) && !self.leases.is_full())
            .then(|| self.candidates.ready_at(now, &self.failures, &self.leases))
            .flatten()
            .map(|ready| ready.max(self.leases.next_dial()));
        [Some(round), step, candidate]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.max(now + Duration::from_millis(1)))
    }

    /// Adds an offer as a candidate.
    fn propose(&mut self, now: Instant, offer: &Offer, source: OfferSource) {
        let held = self.leases.find(&offer.peer);
        if offer.peer != self.own && held.is_none_or(|lease| lease.role() != Role::Indexer) {
            self.candidates.propose(now, offer, source, &self.failures);
        }
    }

    fn propose_all(&mut self, now: Instant, offers: &[Offer], source: OfferSource) {
        for offer in offers {
            self.propose(now, offer, source);
        }
    }

    fn has_candidate(&self, now: Instant) -> bool {
        self.candidates.ready(now, &self.failures, &self.leases) > 0
    }

    /// Leases with indexers that are held or being sought.
    fn seeking(&self) -> usize {
        self.leases
            .iter()
            .filter(|lease| lease.role() == Role::Indexer && !lease.is_released())
            .count()
    }

    /// Leases with indexers that are late with an ack. Meanwhile others are sought, and the
    /// indexer's present addresses.
    fn late(&self) -> usize {
        let late = |lease: &&Lease| {
            lease.role() == Role::Indexer && !lease.is_released() && lease.is_late()
        };
        self.leases.iter().filter(late).count()
    }

    fn wants_more(&self, now: Instant) -> bool {
        self.seeking() < self.wanted(now)
    }

    fn holds_an_indexer(&self, now: Instant) -> bool {
        self.leases.iter().any(|lease| {
            lease.role() == Role::Indexer && lease.is_secure(now) && !lease.is_released()
        })
    }

    /// The indexer that publishes the own record: the first with which a lease is held.
    fn publisher(&self, now: Instant) -> Option<PeerId> {
        let held = |lease: &&Lease| {
            lease.role() == Role::Indexer && lease.is_secure(now) && !lease.is_released()
        };
        self.find_server(held)
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}
