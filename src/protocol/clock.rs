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

use super::{
    Instant, Machine, PeerId,
    codec::heartbeat::{AckCause, WallReading},
    order::sort_few,
};

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
    /// ack. The clock of an unsolicited ack is ignored, because its age is unknown.
    pub fn heard<M: Machine + ?Sized>(
        &mut self,
        now: Instant,
        machine: &M,
        server: &PeerId,
        cause: AckCause,
        theirs: WallReading,
    ) {
        let server_clock = match machine.is_native(server) {
            true => ClockOf::Native(*server),
            false => ClockOf::Other(*server),
        };
        if cause == AckCause::Unsolicited {
            return;
        }
        if let Some(asked) = machine.asked_at(server) {
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
        // An old sample is replaced by a new one of another server, unless that is worth less.
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
mod tests;
