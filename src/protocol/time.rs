//! Time, random numbers, and the timers of the loops.
//!
//! Invariants: the core never reads a clock, because every input carries `now`; the same seed gives
//! the same random numbers; all arithmetic with points in time saturates, so no peer can cause an
//! overflow of a time.

use core::{
    ops::{Add, Sub},
    time::Duration,
};

use super::PeerId;

/// Shortest lease (PROTOCOL.md): 1 s.
pub(crate) const MIN_LEASE: Duration = Duration::from_secs(1);
/// Longest lease (PROTOCOL.md): 20 min.
pub(crate) const MAX_LEASE: Duration = Duration::from_secs(20 * 60);

/// The times between the regular actions of all roles; each role uses its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// The longest time between beats, at most a third of the lease.
    pub beat: Duration,
    /// Time between runs of a native's offload loop.
    pub offload: Duration,
    /// Time between runs of a native's refresh loop.
    pub refresh: Duration,
    /// Time between runs of the stream GC.
    pub gc: Duration,
    /// Time between rounds of a node's connect-to-natives.
    pub connect: Duration,
}

/// A point in time, in milliseconds of a clock that also counts suspend (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// The point `millis` milliseconds after the clock's zero.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the clock's zero.
    pub const fn as_millis(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of time.
    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// Time from `rhs` to `self`; zero if `rhs` is later.
    fn sub(self, rhs: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(rhs.0))
    }
}

/// The lease that a server grants for a request of `asked`: within the protocol's bounds and at
/// most `longest`.
pub(crate) fn clamp_lease(asked: Duration, longest: Duration) -> Duration {
    asked.min(longest).clamp(MIN_LEASE, MAX_LEASE)
}

/// A small seeded generator (SplitMix64): the same seed gives the same run, so that the simulation
/// can replay it. It is used for jitter and order, never for secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng(u64);

impl Rng {
    /// A generator that is fully determined by `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator that depends only on the peer, so it is the same everywhere.
    pub(crate) fn for_peer(peer: &PeerId) -> Self {
        let seed = peer
            .as_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Multiply-shift: the bias is below 2^-32 for the small bounds used here.
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A duration from zero to `longest`, both included.
    pub(crate) fn up_to(&mut self, longest: Duration) -> Duration {
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX - 1);
        Duration::from_millis(self.below(millis.saturating_add(1)))
    }
}

/// The first step of the backoff.
const BACKOFF_BASE: Duration = Duration::from_millis(500);

/// Exponential backoff with full jitter: a random time up to 500 ms · 2^`failures`, at most
/// `longest`. Never zero, so that nothing is retried at the instant at which it failed.
pub(crate) fn backoff(rng: &mut Rng, failures: u8, longest: Duration) -> Duration {
    let ceiling = BACKOFF_BASE
        .saturating_mul(1 << failures.min(16))
        .min(longest);
    rng.up_to(ceiling).max(Duration::from_millis(1))
}

/// The timer of one loop. A missed tick is skipped and not caught up. Each tick has a jitter of up
/// to a tenth of the interval, so that natives that were started together drift apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticker {
    interval: Duration,
    next: Instant,
    runs: u64,
    last: Instant,
    took: Duration,
    /// Things done since the last tick.
    done: u32,
}

impl Ticker {
    /// A timer that does not fire before [`Ticker::start`].
    pub(crate) const fn new() -> Self {
        Self {
            interval: Duration::ZERO,
            next: Instant(0),
            runs: 0,
            last: Instant(0),
            took: Duration::ZERO,
            done: 0,
        }
    }

    /// Starts the timer. It first fires after `phase` thirds of an interval, so that the loops of
    /// one process do not run at the same time.
    pub(crate) fn start(&mut self, now: Instant, interval: Duration, phase: u32) {
        self.interval = interval;
        self.next = now + interval * phase / 3;
    }

    /// Sets another interval. The next tick is not later than one interval from `now`.
    pub(crate) fn set_interval(&mut self, now: Instant, interval: Duration) {
        self.interval = interval;
        self.next = self.next.min(now + interval);
    }

    /// If the tick is due at `now`, schedules the next one and returns how late this one is.
    pub(crate) fn due(&mut self, now: Instant, rng: &mut Rng) -> Option<Duration> {
        if now < self.next {
            return None;
        }
        let late = now - self.next;
        self.next = now + self.interval + rng.up_to(self.interval / 10);
        self.runs += 1;
        self.last = now;
        self.done = 0;
        Some(late)
    }

    /// When the next tick is due.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// The longest time from a tick at this moment to the next one, jitter included.
    pub(crate) fn longest_gap(&self) -> Duration {
        self.interval + self.interval / 10
    }

    /// By how much more than a whole interval the tick would be late at `now`. So much delay means
    /// a suspend, and not a busy moment. Zero if the tick is in time.
    pub(crate) fn overslept(&self, now: Instant) -> Duration {
        let late = now - self.next;
        if late > self.interval {
            late
        } else {
            Duration::ZERO
        }
    }

    /// A run that has begun at this time has decided at `now`.
    pub(crate) fn decided(&mut self, began: Instant, now: Instant) {
        self.took = self.took.saturating_add(now - began);
    }

    /// The run has done this many things.
    pub(crate) fn did(&mut self, things: usize) {
        let things = u32::try_from(things).unwrap_or(u32::MAX);
        self.done = self.done.saturating_add(things);
    }

    /// When it last ran. It has no meaning before the first run.
    pub(crate) fn last(&self) -> Instant {
        self.last
    }

    /// How the loop runs.
    pub(crate) fn stats(&self) -> LoopStats {
        LoopStats {
            interval: self.interval,
            runs: self.runs,
            last: (self.runs > 0).then_some(self.last),
            took: self.took,
            done: self.done,
        }
    }
}

/// How a loop runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopStats {
    /// The time from one run to the next, without jitter.
    pub interval: Duration,
    /// How often it has run.
    pub runs: u64,
    /// When it last ran; `None`: never.
    pub last: Option<Instant>,
    /// How long all runs took together, each until it decided.
    pub took: Duration,
    /// What was done since the last tick: nodes released, indexers found in the DHT, or stale
    /// streams removed.
    pub done: u32,
}

impl Default for Ticker {
    fn default() -> Self {
        Self::new()
    }
}

/// A token bucket: it allows something `RATE` times a second on average, and `BURST` times at once
/// after a quiet time.
///
/// It counts in thousandths of a token, so that no fraction of a millisecond is lost: over any time
/// it gives exactly its rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket<const RATE: u32, const BURST: u32> {
    /// Thousandths of tokens that are taken and not refilled yet.
    spent: u64,
    counted_to: Instant,
}

/// Limits how many newcomers a server admits. Each one takes 1 to 5 ms of a gateway's CPU.
pub(crate) type TokenBucket = Bucket<200, 400>;

impl<const RATE: u32, const BURST: u32> Bucket<RATE, BURST> {
    /// Tokens at once after a quiet time.
    pub(crate) const BURST: u32 = BURST;

    /// A full bucket.
    pub(crate) const fn new() -> Self {
        Self {
            spent: 0,
            counted_to: Instant(0),
        }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.take_many(now, 1)
    }

    /// Takes `tokens`, all or none of them.
    pub(crate) fn take_many(&mut self, now: Instant, tokens: u32) -> bool {
        let there = now >= self.next(tokens);
        if there {
            self.refill(now);
            self.spent += u64::from(tokens) * TOKEN;
        }
        there
    }

    /// When this number of `tokens` can be taken, if none is taken before. More than the burst can
    /// never be taken.
    pub(crate) fn next(&self, tokens: u32) -> Instant {
        let Some(most) = BURST.checked_sub(tokens) else {
            return Instant(u64::MAX);
        };
        let short = self.spent.saturating_sub(u64::from(most) * TOKEN);
        self.counted_to + Duration::from_millis(short.div_ceil(u64::from(RATE)))
    }

    /// Tokens that are taken and not refilled yet, at `now`.
    pub(crate) fn spent(&self, now: Instant) -> u32 {
        let mut bucket = self.clone();
        bucket.refill(now);
        u32::try_from(bucket.spent.div_ceil(TOKEN)).unwrap_or(u32::MAX)
    }

    fn refill(&mut self, now: Instant) {
        let millis = now.0.saturating_sub(self.counted_to.0);
        // Tokens a second are the same number as thousandths of a token a millisecond.
        self.spent = self
            .spent
            .saturating_sub(millis.saturating_mul(u64::from(RATE)));
        self.counted_to = self.counted_to.max(now);
    }
}

/// Thousandths of a token.
const TOKEN: u64 = 1000;

impl<const RATE: u32, const BURST: u32> Default for Bucket<RATE, BURST> {
    fn default() -> Self {
        Self::new()
    }
}

/// A host that wakes up later than this did not run: no work of it takes as long.
const STALL: Duration = Duration::from_secs(5);

/// For how long the process did not run; zero if it did. `overslept`: a loop of the machine is late
/// by so much. `late`: so long ago the host was to wake up.
pub fn not_running(overslept: Duration, late: Duration) -> Duration {
    match late > STALL {
        true => overslept.max(late),
        false => overslept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn a_tick_is_due_at_its_time_and_not_a_millisecond_before() {
        let mut rng = Rng::new(1);
        let mut ticker = Ticker::new();
        ticker.start(at(0), 30 * S, 3);
        assert_eq!(ticker.due(at(29_999), &mut rng), None);
        assert_eq!(ticker.due(at(30_000), &mut rng), Some(Duration::ZERO));
        let stats = ticker.stats();
        assert_eq!((stats.runs, stats.last), (1, Some(at(30_000))));
    }

    #[test]
    fn missed_ticks_are_skipped_not_made_up_for() {
        let mut rng = Rng::new(1);
        let mut ticker = Ticker::new();
        ticker.start(at(0), 30 * S, 3);
        assert_eq!(ticker.due(at(100_000), &mut rng), Some(70 * S));
        assert_eq!(ticker.due(at(100_000), &mut rng), None);
        assert!(ticker.next() >= at(130_000) && ticker.next() <= at(133_000));
        assert_eq!(ticker.stats().runs, 1);
    }

    #[test]
    fn host_that_wakes_up_more_than_five_seconds_late_did_not_run() {
        let ms = Duration::from_millis;
        assert_eq!(not_running(ms(0), ms(5_000)), ms(0), "it was busy");
        assert_eq!(not_running(ms(0), ms(5_001)), ms(5_001));
        assert_eq!(not_running(ms(40_000), ms(60_000)), ms(60_000));
        assert_eq!(not_running(ms(700), ms(600)), ms(700));
    }

    #[test]
    fn a_tick_oversleeps_when_it_is_late_by_more_than_its_interval() {
        let mut ticker = Ticker::new();
        ticker.start(at(0), 30 * S, 3);
        assert_eq!(ticker.overslept(at(60_000)), Duration::ZERO);
        assert_eq!(ticker.overslept(at(60_001)), Duration::from_millis(30_001));
    }

    #[test]
    fn jitter_is_at_most_a_tenth_and_never_shortens_the_interval() {
        let mut rng = Rng::new(7);
        let mut ticker = Ticker::new();
        ticker.start(at(0), 30 * S, 0);
        let mut seen = (u64::MAX, 0);
        for _ in 0..500 {
            let now = ticker.next();
            ticker.due(now, &mut rng);
            let gap = (ticker.next() - now).as_millis() as u64;
            seen = (seen.0.min(gap), seen.1.max(gap));
        }
        assert!(seen.0 >= 30_000 && seen.0 < 30_100, "{seen:?}");
        assert!(seen.1 <= 33_000 && seen.1 > 32_900, "{seen:?}");
    }

    #[test]
    fn leases_are_clamped_to_the_protocols_bounds() {
        assert_eq!(clamp_lease(Duration::from_millis(999), 90 * S), S);
        assert_eq!(clamp_lease(91 * S, 90 * S), 90 * S);
        assert_eq!(clamp_lease(Duration::MAX, Duration::MAX), MAX_LEASE);
    }

    #[test]
    fn times_saturate_instead_of_wrapping() {
        assert_eq!(at(5) - at(6), Duration::ZERO);
        assert_eq!(at(5) + Duration::MAX, at(u64::MAX));
    }

    #[test]
    fn a_bucket_lets_a_burst_in_and_then_its_rate() {
        let mut bucket = TokenBucket::new();
        let now = at(1_000_000);
        let let_in = (0..1000).filter(|_| bucket.take(now)).count();
        assert_eq!(let_in, TokenBucket::BURST as usize);
        assert!(!bucket.take(now + Duration::from_millis(4)));
        assert!(bucket.take(now + Duration::from_millis(5)));
        assert!(!bucket.take(now + Duration::from_millis(5)));
    }

    #[test]
    fn a_bucket_loses_no_remainder_however_often_it_is_asked() {
        for step in [1, 3, 7, 8, 9, 11] {
            let mut bucket = TokenBucket::new();
            let start = 1_000_000;
            while bucket.take(at(start)) {}
            let asked = (1..=10_000).filter(|now| now % step == 0);
            let let_in = asked.filter(|now| bucket.take(at(start + now))).count();
            let last = 10_000 / step * step;
            let most = (10_000 / step).min(last * 200 / 1000);
            assert_eq!(let_in as u64, most, "asked every {step} ms for 10 s");
        }
    }

    #[test]
    fn a_bucket_says_when_its_next_token_comes() {
        let mut bucket = Bucket::<2, 3>::new();
        let now = at(1_000_000);
        assert!(bucket.next(3) <= now);
        assert_eq!(bucket.next(4), at(u64::MAX));
        assert!(!bucket.take_many(now, 4));
        assert!(bucket.take_many(now, 2));
        assert!(bucket.next(1) <= now);
        assert!(bucket.take(now));
        assert_eq!(bucket.spent(now), 3);
        assert_eq!(bucket.next(1), now + Duration::from_millis(500));
        assert_eq!(bucket.next(2), now + Duration::from_secs(1));
        assert!(!bucket.take(now + Duration::from_millis(499)));
        assert!(bucket.take(now + Duration::from_millis(500)));
    }

    #[test]
    fn backoff_doubles_up_to_its_ceiling() {
        let mut rng = Rng::new(3);
        for failures in 0..40 {
            let pauses = (0..200).map(|_| backoff(&mut rng, failures, 60 * S));
            let longest = pauses.max().unwrap();
            let ceiling = (S / 2 * (1 << failures.min(7))).min(60 * S);
            assert!(longest <= ceiling && longest > ceiling / 2, "{failures}");
        }
    }
}
