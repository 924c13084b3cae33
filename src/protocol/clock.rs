//! What time it is on the wall, when clocks disagree: for signing and judging records only.
//!
//! Own time = max(system clock, build date, highest time persisted). Who is more than 30 s away from the median of its configured
//! natives' clocks signs with the median (PROTOCOL.md). A device without a clock takes the time from whoever grants it a lease.

use heapless::Vec;

use super::PeerId;

/// Servers whose clocks are remembered at most.
const MAX_SAMPLES: usize = 16;
/// How far away from the median counts as wrong.
const TOLERANCE_MS: u64 = 30_000;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    peer: PeerId,
    ahead_ms: i64,
    native: bool,
    synchronised: bool,
}

/// Judges the system clock by the clocks of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WallClock {
    floor_ms: u64,
    samples: Vec<Sample, MAX_SAMPLES>,
}

impl WallClock {
    /// A clock that is never before `floor_ms`: the build date or the highest time persisted, ms since the Unix epoch.
    pub const fn new(floor_ms: u64) -> Self {
        Self {
            floor_ms,
            samples: Vec::new(),
        }
    }

    /// A server's ack told its wall clock when the system clock showed `system_ms`.
    pub fn heard(
        &mut self,
        peer: PeerId,
        native: bool,
        theirs_ms: u64,
        synchronised: bool,
        system_ms: u64,
    ) {
        self.samples.retain(|sample| sample.peer != peer);
        if self.samples.is_full() {
            self.samples.remove(0);
        }
        // There is room now.
        let _ = self.samples.push(Sample {
            peer,
            ahead_ms: i64::try_from(i128::from(theirs_ms) - i128::from(system_ms))
                .unwrap_or(i64::MAX),
            native,
            synchronised,
        });
    }

    /// Whether the time is known: by the system clock, if it is past the floor, or by others.
    pub fn is_trusted(&self, system_ms: u64) -> bool {
        system_ms >= self.floor_ms || !self.samples.is_empty()
    }

    /// The time to sign and judge with, ms since the Unix epoch.
    pub fn own_ms(&self, system_ms: u64) -> u64 {
        let own = system_ms.max(self.floor_ms);
        match self.median_ahead(system_ms >= self.floor_ms) {
            Some(ahead) => {
                let median = system_ms.saturating_add_signed(ahead);
                if median.abs_diff(own) > TOLERANCE_MS {
                    median
                } else {
                    own
                }
            }
            None => own,
        }
    }

    /// The median over the most trustworthy samples: natives before others; against a system clock that may be right, only
    /// those that are synchronised.
    fn median_ahead(&self, system_may_be_right: bool) -> Option<i64> {
        let any_native = self.samples.iter().any(|sample| sample.native);
        let mut ahead: Vec<i64, MAX_SAMPLES> = self
            .samples
            .iter()
            .filter(|sample| {
                sample.native == any_native && (sample.synchronised || !system_may_be_right)
            })
            .map(|sample| sample.ahead_ms)
            .collect();
        ahead.sort_unstable();
        ahead.get(ahead.len().checked_sub(1)? / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT: u64 = 1_000_000_000;
    const NOW: u64 = 2_000_000_000;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    #[test]
    fn own_time_is_never_before_the_floor() {
        let clock = WallClock::new(BUILT);
        assert_eq!(clock.own_ms(0), BUILT);
        assert_eq!(clock.own_ms(BUILT - 1), BUILT);
        assert_eq!(clock.own_ms(BUILT + 1), BUILT + 1);
        assert!(!clock.is_trusted(BUILT - 1));
        assert!(clock.is_trusted(BUILT));
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
            clock.heard(peer(1), true, NOW.saturating_add_signed(ahead), true, NOW);
            assert_eq!(clock.own_ms(NOW), signs_with, "{ahead}");
        }
    }

    #[test]
    fn one_wrong_native_of_three_moves_nobody() {
        let mut clock = WallClock::new(BUILT);
        for (n, theirs) in [(1, NOW), (2, NOW + 9_000_000), (3, NOW + 5)] {
            clock.heard(peer(n), true, theirs, true, NOW);
        }
        assert_eq!(clock.own_ms(NOW), NOW);
    }

    #[test]
    fn a_device_without_a_clock_takes_the_time_from_whoever_grants_it_a_lease() {
        let mut clock = WallClock::new(BUILT);
        clock.heard(peer(1), false, NOW, false, 77);
        assert!(clock.is_trusted(77));
        assert_eq!(clock.own_ms(77 + 500), NOW + 500);
    }

    #[test]
    fn a_clock_that_may_be_right_yields_only_to_synchronised_ones() {
        let mut clock = WallClock::new(BUILT);
        clock.heard(peer(1), true, NOW + 3_600_000, false, NOW);
        assert_eq!(clock.own_ms(NOW), NOW);
    }

    #[test]
    fn absurd_clocks_do_not_wrap() {
        let mut clock = WallClock::new(BUILT);
        clock.heard(peer(1), true, u64::MAX, true, 0);
        clock.own_ms(u64::MAX);
        clock.own_ms(0);
    }
}
