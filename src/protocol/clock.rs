//! The wall-clock time where clocks disagree. It is used only to sign and to judge records.
//!
//! Own time = max(system clock, build date, highest time persisted). A device that is more than 30
//! s away from the median of its configured natives' clocks signs with the median (PROTOCOL.md).
//!
//! Invariants: a clock sample is stored as its distance from the monotonic clock, so that a step of
//! the system clock does not move it; a sample that was read more than [`MAX_TRIP`] after its
//! request is ignored, so that an answer that waited while this device slept has no effect; a
//! sample counts beside others for `MAX_AGE`, and alone for longer, because an old one is better
//! than none; while the system clock may be right, only configured natives can move own time; while
//! the system clock is before the build date or the highest time persisted, and there is no sample
//! of a native, the device borrows the time of other servers, and a borrowed time is never
//! persisted; a clock before the build date, or more than a century after it, is always ignored.

use core::time::Duration;

use heapless::Vec;

use super::{Instant, Machine, PeerId, codec::heartbeat::WallReading, order::sort_few};

/// Clocks of natives, and clocks of other servers, that are stored at most.
const MAX_SAMPLES: usize = 8;
/// A clock that is farther than this from the median is wrong.
const TOLERANCE_MS: u64 = 30_000;
/// How long the answer that carries a clock may take. The error of the sample is at most as large.
pub const MAX_TRIP: Duration = Duration::from_secs(10);
/// How old a sample may be when another one comes. Until then the monotonic clock has drifted by a
/// few seconds.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// How far after the build date a clock may be: a hundred years.
const LONGEST_AGE_MS: u64 = 100 * 365 * 24 * 3_600_000;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    peer: PeerId,
    /// The server's wall clock at zero of our monotonic clock.
    at_zero_ms: i64,
    synchronised: bool,
    taken: Instant,
}

type Samples = Vec<Sample, MAX_SAMPLES>;

/// The server that sent its clock in an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClockOf {
    /// A native that is configured here.
    Native(PeerId),
    /// Any other server.
    Other(PeerId),
}

/// Checks the system clock against the clocks of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WallClock {
    built_ms: u64,
    highest_ms: u64,
    natives: Samples,
    others: Samples,
}

impl WallClock {
    /// A clock that is never before `built_ms`, the build date, in ms since the Unix epoch.
    pub const fn new(built_ms: u64) -> Self {
        Self {
            built_ms,
            highest_ms: 0,
            natives: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Sets the highest time that was persisted, ms since the Unix epoch. The system clock is wrong
    /// if it is before that.
    pub fn remember(&mut self, highest_ms: u64) {
        self.highest_ms = highest_ms;
    }

    /// Takes the wall clock that the server's ack carried at `now`, before the machine gets that
    /// ack. The clock of an ack that does not answer a beat (`answers`) is ignored, because its age
    /// is unknown.
    pub fn heard(
        &mut self,
        now: Instant,
        machine: &dyn Machine,
        server: &PeerId,
        answers: bool,
        theirs: WallReading,
    ) {
        let server_clock = match machine.is_native(server) {
            true => ClockOf::Native(*server),
            false => ClockOf::Other(*server),
        };
        if let Some(asked) = machine.asked_at(server).filter(|_| answers) {
            self.take(now, asked, server_clock, theirs);
        }
    }

    /// Takes a clock that was requested at `asked`.
    fn take(&mut self, now: Instant, asked: Instant, server: ClockOf, theirs: WallReading) {
        let WallReading { ms, synchronised } = theirs;
        if now - asked > MAX_TRIP {
            return;
        }
        let latest = self.built_ms.saturating_add(LONGEST_AGE_MS);
        if !(self.built_ms..=latest).contains(&ms) {
            return;
        }
        let Some(at_zero_ms) = i128::from(ms)
            .checked_sub(i128::from(now.as_millis()))
            .and_then(|at_zero| i64::try_from(at_zero).ok())
        else {
            return;
        };
        let (samples, peer) = match server {
            ClockOf::Native(peer) => (&mut self.natives, peer),
            ClockOf::Other(peer) => (&mut self.others, peer),
        };
        // An old sample of a server gives way to a new one of another, unless that is worth less.
        let is_young = |taken| now - taken <= MAX_AGE;
        samples.retain(|sample| {
            let counts_more = sample.synchronised && !synchronised;
            sample.peer != peer && (counts_more || is_young(sample.taken))
        });
        if samples.is_full() {
            samples.remove(0);
        }
        // There is room after the removal.
        let _ = samples.push(Sample {
            peer,
            at_zero_ms,
            synchronised,
            taken: now,
        });
    }

    /// Whether there is a time to sign with: the system clock may be right, or another's clock is
    /// known.
    pub fn is_trusted(&self, system_ms: u64) -> bool {
        self.may_be_right(system_ms) || !self.natives.is_empty() || !self.others.is_empty()
    }

    /// The time to sign and judge with, ms since the Unix epoch.
    pub fn own_ms(&self, now: Instant, system_ms: u64) -> u64 {
        self.settled_ms(now, system_ms)
            .or_else(|| median(&self.others, now, |_| true))
            .unwrap_or_else(|| self.floor_ms())
    }

    /// The time that may be persisted: [`WallClock::own_ms`], or `None` while that is borrowed or
    /// unknown.
    pub fn settled_ms(&self, now: Instant, system_ms: u64) -> Option<u64> {
        let own = Some(system_ms).filter(|&system| self.may_be_right(system));
        // Against a system clock that may be right, only synchronised clocks count.
        let median = median(&self.natives, now, |sample| {
            sample.synchronised || own.is_none()
        });
        match (own, median) {
            (Some(own), Some(median)) if median.abs_diff(own) <= TOLERANCE_MS => Some(own),
            (own, median) => median.or(own),
        }
    }

    fn floor_ms(&self) -> u64 {
        self.built_ms.max(self.highest_ms)
    }

    fn may_be_right(&self, system_ms: u64) -> bool {
        system_ms >= self.floor_ms()
    }
}

/// The median of the clocks that count, at `now`.
fn median(samples: &Samples, now: Instant, counts: impl Fn(&Sample) -> bool) -> Option<u64> {
    let mut counted: Vec<i64, MAX_SAMPLES> = samples
        .iter()
        .filter(|sample| counts(sample))
        .map(|sample| sample.at_zero_ms)
        .collect();
    sort_few(&mut counted, |at_zero_ms| *at_zero_ms);
    let middle = *counted.get(counted.len().checked_sub(1)? / 2)?;
    Some(now.as_millis().saturating_add_signed(middle))
}

#[cfg(test)]
mod tests {
    use std::boxed::Box;

    use super::*;
    use crate::protocol::{
        Addrs, Indexer, IndexerConfig, IndexersAnswer, Input, Node, NodeConfig, Offer, lease::Terms,
    };

    const BUILT: u64 = 1_700_000_000_000;
    const NOW: u64 = 1_790_000_000_000;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    /// Takes a sample with an answer that came at once.
    fn heard(clock: &mut WallClock, now: Instant, server: ClockOf, ms: u64, synchronised: bool) {
        let theirs = WallReading { ms, synchronised };
        clock.take(now, now, server, theirs);
    }

    #[test]
    fn own_time_is_never_before_the_floor() {
        let mut clock = WallClock::new(BUILT);
        assert_eq!(clock.own_ms(at(0), 0), BUILT);
        assert_eq!(clock.own_ms(at(0), BUILT - 1), BUILT);
        assert_eq!(clock.own_ms(at(0), BUILT + 1), BUILT + 1);
        assert!(!clock.is_trusted(BUILT - 1));
        assert!(clock.is_trusted(BUILT));
        clock.remember(NOW);
        assert_eq!(clock.own_ms(at(0), BUILT + 1), NOW);
        assert!(!clock.is_trusted(NOW - 1));
        assert!(clock.is_trusted(NOW));
    }

    #[test]
    fn more_than_30_s_away_from_the_natives_median_signs_with_the_median() {
        for (ahead, signs_with) in [
            (30_000, NOW),
            (30_001, NOW + 30_001),
            (-30_000, NOW),
            (-30_001, NOW - 30_001),
        ] {
            let mut clock = WallClock::new(BUILT);
            heard(
                &mut clock,
                at(7),
                ClockOf::Native(peer(1)),
                NOW.saturating_add_signed(ahead),
                true,
            );
            assert_eq!(clock.own_ms(at(7), NOW), signs_with, "{ahead}");
        }
    }

    #[test]
    fn one_wrong_native_of_three_moves_no_device() {
        let mut clock = WallClock::new(BUILT);
        for (n, theirs) in [(1, NOW), (2, NOW + 9_000_000), (3, NOW + 5)] {
            heard(&mut clock, at(7), ClockOf::Native(peer(n)), theirs, true);
        }
        assert_eq!(clock.own_ms(at(7), NOW), NOW);
        assert_eq!(clock.settled_ms(at(7), NOW), Some(NOW));
    }

    #[test]
    fn clock_of_a_native_that_is_gone_counts_for_a_day_beside_others_and_alone_for_longer() {
        let day = 24 * 3_600_000;
        let ahead = NOW + 3_600_000;
        for (later, says, signs_with) in [
            (day, true, ahead),
            (day + 1, true, NOW),
            (day + 1, false, ahead),
        ] {
            let mut clock = WallClock::new(BUILT);
            for n in 1..=2 {
                heard(&mut clock, at(0), ClockOf::Native(peer(n)), ahead, true);
            }
            let at_end = (at(later), NOW + later);
            assert_eq!(clock.own_ms(at_end.0, at_end.1), ahead + later, "alone");
            heard(
                &mut clock,
                at_end.0,
                ClockOf::Native(peer(3)),
                at_end.1,
                says,
            );
            assert_eq!(
                clock.own_ms(at_end.0, at_end.1),
                signs_with + later,
                "{later} {says}"
            );
        }
    }

    #[test]
    fn a_step_of_the_system_clock_does_not_move_the_clocks_that_were_heard() {
        let mut clock = WallClock::new(BUILT);
        heard(&mut clock, at(5_000), ClockOf::Native(peer(1)), NOW, true);
        assert_eq!(clock.own_ms(at(6_000), 6_000), NOW + 1_000, "1970");
        assert_eq!(
            clock.own_ms(at(7_000), NOW + 2_000),
            NOW + 2_000,
            "NTP came"
        );
        assert_eq!(
            clock.own_ms(at(8_000), NOW + 3_600_000),
            NOW + 3_000,
            "a step of an hour is not followed"
        );
        assert_eq!(
            clock.settled_ms(at(8_000), NOW + 3_600_000),
            Some(NOW + 3_000)
        );
    }

    #[test]
    fn a_server_that_is_no_configured_native_does_not_move_a_clock_that_may_be_right() {
        let mut clock = WallClock::new(BUILT);
        for n in 1..=3 {
            heard(
                &mut clock,
                at(0),
                ClockOf::Other(peer(n)),
                NOW + 3_600_000,
                true,
            );
        }
        assert_eq!(clock.own_ms(at(0), NOW), NOW);
        assert_eq!(clock.own_ms(at(0), BUILT), BUILT);
        assert_eq!(clock.settled_ms(at(0), NOW), Some(NOW));
    }

    #[test]
    fn a_device_without_a_clock_borrows_the_time_until_a_native_tells_it_and_persists_none_of_it() {
        let mut clock = WallClock::new(BUILT);
        assert_eq!(clock.settled_ms(at(70), 77), None);
        heard(
            &mut clock,
            at(70),
            ClockOf::Other(peer(1)),
            NOW + 9_000_000,
            false,
        );
        assert!(clock.is_trusted(77));
        assert_eq!(clock.own_ms(at(570), 577), NOW + 9_000_500);
        assert_eq!(clock.settled_ms(at(570), 577), None, "borrowed");
        heard(&mut clock, at(600), ClockOf::Native(peer(2)), NOW, false);
        assert_eq!(clock.own_ms(at(700), 707), NOW + 100);
        assert_eq!(clock.settled_ms(at(700), 707), Some(NOW + 100));
    }

    #[test]
    fn a_clock_that_may_be_right_yields_only_to_synchronised_ones() {
        let mut clock = WallClock::new(BUILT);
        heard(
            &mut clock,
            at(0),
            ClockOf::Native(peer(1)),
            NOW + 3_600_000,
            false,
        );
        assert_eq!(clock.own_ms(at(0), NOW), NOW);
    }

    #[test]
    fn a_clock_before_the_build_date_or_a_century_after_it_is_not_heard() {
        let latest = BUILT + LONGEST_AGE_MS;
        for (theirs, is_heard) in [
            (BUILT - 1, false),
            (BUILT, true),
            (latest, true),
            (latest + 1, false),
            (u64::MAX, false),
        ] {
            let mut clock = WallClock::new(BUILT);
            heard(&mut clock, at(0), ClockOf::Native(peer(1)), theirs, true);
            assert_eq!(clock.is_trusted(0), is_heard, "{theirs}");
        }
    }

    #[test]
    fn an_answer_that_was_read_after_a_sleep_moves_nothing() {
        let told = NOW + 100_000;
        // Requested at 100 s, answered at once, and read `late` ms later.
        for (late, own) in [
            (10_000, told),
            (10_001, NOW + 160_001),
            (60_000, NOW + 210_000),
        ] {
            let mut clock = WallClock::new(BUILT);
            heard(
                &mut clock,
                at(50_000),
                ClockOf::Native(peer(1)),
                NOW + 100_000,
                true,
            );
            let now = at(100_000 + late);
            let theirs = WallReading {
                ms: told,
                synchronised: true,
            };
            clock.take(now, at(100_000), ClockOf::Native(peer(1)), theirs);
            assert_eq!(clock.own_ms(now, 0), own, "{late} ms late");
        }
    }

    /// A clock that has taken this server's clock, after all that the machine does at 0.
    fn hears(machine: &mut dyn Machine, server: u8, answers: bool) -> WallClock {
        while machine.poll(at(0), 0).is_some() {}
        let mut clock = WallClock::new(BUILT);
        let theirs = WallReading {
            ms: NOW,
            synchronised: true,
        };
        clock.heard(at(7), machine, &peer(server), answers, theirs);
        clock
    }

    #[test]
    fn only_an_answer_to_a_beat_brings_a_clock_and_that_of_a_native_counts_for_more() {
        let (native, addrs) = (&peer(1), &Addrs::new());
        let mut node = Box::new(Node::new());
        let terms = Terms {
            lease: MAX_TRIP,
            beat_interval: MAX_TRIP,
        };
        let config = NodeConfig {
            terms,
            connect_interval: MAX_TRIP,
            min_indexers: 1,
        };
        node.start(at(0), peer(9), 1, config);
        node.handle(at(0), Input::NativeLearned { native, addrs });
        assert!(!hears(&mut *node, 1, true).is_trusted(0), "only asked");
        let offers = &[Offer {
            peer: peer(2),
            addrs: Addrs::new(),
            ttl: MAX_TRIP,
            free: None,
        }];
        let takes_in = false;
        let answer = Some(IndexersAnswer { offers, takes_in });
        node.handle(at(0), Input::Answered { native, answer });
        assert!(!hears(&mut *node, 2, false).is_trusted(0), "unsolicited");
        let borrowed = hears(&mut *node, 2, true);
        assert!(borrowed.is_trusted(0));
        assert_eq!(borrowed.settled_ms(at(7), 0), None);

        let mut indexer = Box::new(Indexer::<1>::new());
        let gc_interval = MAX_TRIP;
        indexer.start(at(0), peer(9), 1, IndexerConfig { terms, gc_interval });
        indexer.handle(at(0), Input::NativeLearned { native, addrs });
        assert!(!hears(&mut *indexer, 1, false).is_trusted(0), "unsolicited");
        let told = hears(&mut *indexer, 1, true);
        assert_eq!(told.settled_ms(at(7), 0), Some(NOW));
    }

    #[test]
    fn other_servers_do_not_crowd_out_the_natives() {
        let mut clock = WallClock::new(BUILT);
        heard(&mut clock, at(0), ClockOf::Native(peer(1)), NOW, true);
        for n in 2..100 {
            heard(
                &mut clock,
                at(0),
                ClockOf::Other(peer(n)),
                NOW + 3_600_000,
                true,
            );
        }
        assert_eq!(clock.own_ms(at(0), 0), NOW);
    }

    #[test]
    fn absurd_times_do_not_wrap() {
        // A sample is a distance from the monotonic clock, in 63 bits.
        let half = u64::MAX / 2;
        for (now, kept) in [
            (0, false),
            (half, false),
            (half + 1, true),
            (u64::MAX, true),
        ] {
            let mut clock = WallClock::new(u64::MAX);
            heard(
                &mut clock,
                at(now),
                ClockOf::Native(peer(1)),
                u64::MAX,
                true,
            );
            assert_eq!(clock.is_trusted(0), kept, "{now}");
            assert_eq!(clock.own_ms(at(u64::MAX), 0), u64::MAX, "{now}");
            assert_eq!(clock.own_ms(at(u64::MAX), u64::MAX), u64::MAX, "{now}");
        }
    }
}
