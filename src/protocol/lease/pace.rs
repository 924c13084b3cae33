//! The time limits of each step of a lease, which depend on the requested and the granted length.
//!
//! Invariant: every wait is bounded by a share of the length of the lease, so that a short lease is
//! not lost while its holder waits.

use core::time::Duration;

use crate::protocol::{Rng, time::MIN_LEASE};

/// How long dialling, handshake and the first ack may take together, if a third of the lease is
/// longer.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// The least time for these, however short the lease is, because TCP repeats its first packet after
/// 1 s.
pub(super) const MIN_OPEN_TIMEOUT: Duration = Duration::from_millis(1_200);
/// The longest step of the backoff, if a sixth of the lease is longer (ARCHITECTURE.md, "Retries").
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// When an ack is late, if a sixth of the lease is longer (PROTOCOL.md).
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// The terms that a client requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The requested lease, 1 s to 20 min.
    pub lease: Duration,
    /// The longest time between beats.
    pub beat_interval: Duration,
}

impl Terms {
    /// The longest time until a server that can be reached again is reached. It consists of the
    /// rest of an earlier attempt, the pause after it, and the attempt that succeeds. The first two
    /// are 2 s and 1 s for a lease of 6 s.
    pub fn longest_outage(&self) -> Duration {
        open_timeout(self.lease) + longest_pause(self.lease) + MIN_OPEN_TIMEOUT
    }
}

/// Time to the next beat: min(beat interval, granted / 3), times 0.8 to 0.95. With it one lost beat
/// survives the second condition of the GC (PROTOCOL.md).
pub(super) fn beat_after(granted: Duration, beat_interval: Duration, rng: &mut Rng) -> Duration {
    let longest = beat_interval.min(granted.max(MIN_LEASE) / 3);
    longest * 4 / 5 + rng.up_to(longest * 3 / 20)
}

/// How long a new stream of a lease of this length has for its first ack.
pub(super) fn open_timeout(lease: Duration) -> Duration {
    OPEN_TIMEOUT.min((lease / 3).max(MIN_OPEN_TIMEOUT))
}

/// The longest pause after a failed attempt.
pub(super) fn longest_pause(lease: Duration) -> Duration {
    BACKOFF_MAX.min(lease / 6)
}

/// How long the ack of a beat on an open stream may take before it is late.
pub(super) fn ack_timeout(granted: Duration) -> Duration {
    ACK_TIMEOUT.min(granted.max(MIN_LEASE) / 6)
}
