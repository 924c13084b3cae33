//! Rounds of requests: when which native is asked, and for what.
//!
//! A round asks the natives one after another. Each node has its own order, which depends only on
//! the ids, so that a fleet with one list of natives spreads over them. The native that took the
//! node in comes first.
//!
//! A round for an additional lease ends when one native has answered, because where places are
//! short the requests to the others would be useless. Each such round begins with the next native,
//! so that the node also learns what only one of them knows.
//!
//! Invariants: one native is asked at a time; between the end of a round and the next there is a
//! pause with full jitter, up to min(lease / 6, 10 s), which doubles until a lease was renewed;
//! once in each such pause, a round that reports that every offer failed may begin at once.

use core::time::Duration;

use heapless::Vec;

use crate::protocol::{Addrs, Instant, PeerId, Rng, Want, capacities::MAX_NATIVES, time::backoff};

/// How long a native has for its answer, which includes dialling and 2 s for probing its
/// candidates.
const ROUND_TIMEOUT: Duration = Duration::from_secs(8);

/// The lease that a round is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoundFor {
    /// The one that the node needs.
    FirstLease,
    /// An additional one.
    SpareLease,
}

/// A round under way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Round {
    want: Want,
    asked: Vec<PeerId, MAX_NATIVES>,
    /// Until when the round waits for the last native asked.
    waiting: Option<Instant>,
    remembered: bool,
    lease: RoundFor,
    /// A native has answered.
    answered: bool,
}

/// The natives and the rounds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rounds {
    /// A hash of the own id.
    own: u64,
    natives: Vec<(PeerId, Addrs), MAX_NATIVES>,
    // Lists of one element, because `None` would not be all zeroes.
    first: Vec<PeerId, 1>,
    /// The rank of the native that was asked last.
    last_rank: u64,
    round: Vec<Round, 1>,
    next: Instant,
    not_before: Instant,
    longest_pause: Duration,
    fruitless: u8,
    may_complain: bool,
}

impl Rounds {
    pub(super) const fn new() -> Self {
        Self {
            own: 0,
            natives: Vec::new(),
            first: Vec::new(),
            last_rank: 0,
            round: Vec::new(),
            next: Instant::from_millis(0),
            not_before: Instant::from_millis(0),
            longest_pause: Duration::ZERO,
            fruitless: 0,
            may_complain: false,
        }
    }

    /// Makes the first round due at `now`.
    pub(super) fn start(&mut self, now: Instant, own: &PeerId, longest_pause: Duration) {
        self.own = Rng::for_peer(own).bits();
        self.longest_pause = longest_pause;
        self.restart(now);
    }

    /// Resets the pauses, because something has changed that no peer can cause.
    pub(super) fn restart(&mut self, now: Instant) {
        self.round.clear();
        (self.next, self.not_before) = (now, now);
    }

    /// Adds a native or updates its addresses. Returns whether it is new.
    pub(super) fn learn(&mut self, peer: PeerId, addrs: Addrs) -> bool {
        match self.natives.iter_mut().find(|(native, _)| *native == peer) {
            Some((_, old)) => {
                *old = addrs;
                false
            }
            None => self.natives.push((peer, addrs)).is_ok(),
        }
    }

    /// Removes a native. An answer of it is no longer waited for.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.natives.retain(|(native, _)| native != peer);
        self.first.retain(|native| native != peer);
        if let Some(round) = self.round.first_mut() {
            if round.asked.last() == Some(peer) {
                round.waiting = None;
            }
            // It may come back in the same round.
            round.asked.retain(|native| native != peer);
        }
    }

    /// Where the native listens, if it is one.
    pub(super) fn addrs_of(&self, peer: &PeerId) -> Option<&Addrs> {
        let found = self.natives.iter().find(|(native, _)| native == peer);
        found.map(|(_, addrs)| addrs)
    }

    /// All natives.
    pub(super) fn natives(&self) -> impl Iterator<Item = &PeerId> {
        self.natives.iter().map(|(native, _)| native)
    }

    /// Makes the next round due as soon as the pause is over, because a lease is missing.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next = self.next.min(now.max(self.not_before));
    }

    /// The same, up to half a second later, because all nodes of a native lose it at the same time.
    pub(super) fn hurry_a_little(&mut self, now: Instant, rng: &mut Rng) {
        self.hurry(now + backoff(rng, 0, self.longest_pause));
    }

    /// Makes the next pause short again, because a lease was renewed.
    pub(super) fn succeeded(&mut self) {
        self.fruitless = 0;
    }

    /// Whether a round that reports that every offer failed may begin at once.
    pub(super) fn may_complain(&self) -> bool {
        self.may_complain
    }

    /// Begins the round that is due, if none is under way.
    pub(super) fn begin_if_due(&mut self, now: Instant, want: Want, lease: RoundFor) {
        if self.round.is_empty() && now >= self.next {
            self.begin(want, lease);
        }
    }

    /// Begins a round, which replaces one that is under way.
    pub(super) fn begin(&mut self, want: Want, lease: RoundFor) {
        self.may_complain = want != Want::OffersFailed;
        self.round.clear();
        // There is room now.
        let _ = self.round.push(Round {
            want,
            asked: Vec::new(),
            waiting: None,
            remembered: false,
            lease,
            answered: false,
        });
    }

    /// Whether a round is under way.
    pub(super) fn is_under_way(&self) -> bool {
        !self.round.is_empty()
    }

    /// Whether a native must be asked now: a round is under way, it does not wait for an answer,
    /// and a native is left. An answer that is late is no longer waited for.
    pub(super) fn is_asking(&mut self, now: Instant) -> bool {
        let next = self.next_native();
        let Some(round) = self.round.first_mut() else {
            return false;
        };
        round.waiting = round.waiting.filter(|until| now < *until);
        round.waiting.is_none() && next.is_some()
    }

    /// Whether the round waits for an answer.
    pub(super) fn is_waiting(&self) -> bool {
        self.waits_until().is_some()
    }

    /// Until when the round waits for an answer.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.round.first().and_then(|round| round.waiting)
    }

    /// Asks the next native of the round.
    pub(super) fn ask(&mut self, now: Instant) -> Option<(PeerId, Want)> {
        let native = self.next_native()?;
        self.last_rank = self.rank(&native);
        let round = self.round.first_mut()?;
        round.waiting = Some(now + ROUND_TIMEOUT);
        // The list has room for all natives.
        let _ = round.asked.push(native);
        Some((native, round.want))
    }

    /// Takes note of an answer. Returns what was requested, if the round waited for it.
    pub(super) fn answered(&mut self, native: &PeerId) -> Option<Want> {
        let want = self.failed(native)?;
        self.round.first_mut()?.answered = true;
        Some(want)
    }

    /// The same where no answer came.
    pub(super) fn failed(&mut self, native: &PeerId) -> Option<Want> {
        let round = self.round.first_mut()?;
        if round.waiting.is_none() || round.asked.last() != Some(native) {
            return None;
        }
        round.waiting = None;
        Some(round.want)
    }

    /// Whether a native has answered in this round.
    pub(super) fn has_answer(&self) -> bool {
        self.round.first().is_some_and(|round| round.answered)
    }

    /// Whether natives were asked in this round, and none has answered.
    pub(super) fn is_in_vain(&self) -> bool {
        let mut round = self.round.iter();
        round.any(|round| !round.asked.is_empty() && !round.answered)
    }

    /// What the round requests.
    pub(super) fn want(&self) -> Option<Want> {
        self.round.first().map(|round| round.want)
    }

    /// Whether the indexers of an earlier run have not been tried in this round. They count as
    /// tried from now on.
    pub(super) fn try_remembered(&mut self) -> bool {
        let round = self.round.first_mut();
        round.is_some_and(|round| !core::mem::replace(&mut round.remembered, true))
    }

    /// The native helps, so it comes first from now on, and the round needs no other.
    pub(super) fn helped_by(&mut self, native: &PeerId) {
        self.first.clear();
        // There is room now.
        let _ = self.first.push(*native);
        let all = self.natives.iter().map(|(native, _)| *native).collect();
        if let Some(round) = self.round.first_mut() {
            round.asked = all;
        }
    }

    /// Ends the round. The next one is due after `interval`, or as soon as the pause is over if
    /// there is none.
    pub(super) fn end(&mut self, now: Instant, interval: Option<Duration>, rng: &mut Rng) {
        self.round.clear();
        let pause = backoff(rng, self.fruitless, self.longest_pause);
        self.fruitless = self.fruitless.saturating_add(1);
        self.not_before = now + pause;
        self.next = match interval {
            Some(interval) => now + interval + rng.up_to(interval / 10),
            None => self.not_before,
        };
    }

    /// Ends all rounds.
    pub(super) fn stop(&mut self) {
        self.round.clear();
        self.next = Instant::from_millis(u64::MAX);
    }

    /// When the next round is due, if none is under way.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// The native that helped, then the others in the order of a hash of both ids. In a round for
    /// an additional lease, this order begins after the native that was asked last.
    fn next_native(&self) -> Option<PeerId> {
        let round = self.round.first()?;
        let left = self.natives.iter().map(|(native, _)| native);
        let key = |native: &&PeerId| {
            let rank = self.rank(native);
            let comes_first = match round.lease {
                RoundFor::SpareLease => rank < self.last_rank,
                RoundFor::FirstLease => self.first.contains(native),
            };
            (comes_first, rank)
        };
        left.filter(|native| !round.asked.contains(native))
            .max_by_key(key)
            .copied()
    }

    fn rank(&self, native: &PeerId) -> u64 {
        Rng::new(self.own ^ Rng::for_peer(native).bits()).bits()
    }
}
