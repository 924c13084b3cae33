//! Decides when a node seeks more leases than the one that it needs.
//!
//! An indexer that is short of places refuses a node that holds a lease elsewhere (ARCHITECTURE.md,
//! "Short places"). If one is short of places, others are too, and nodes without a lease need them.
//! Invariant: after [`MAX_REFUSALS`] refusals with no lease granted between them, no spare lease is
//! sought for a connect interval, up to a tenth more at random.

use core::time::Duration;

use super::Node;
use crate::protocol::{Ack, AckCode, Instant, PeerId, Rng, Role, lease::Lease};

/// Refusals after which the node stops: one or two may be chance, or based on old data.
const MAX_REFUSALS: u8 = 3;

impl Node {
    /// Takes note of an indexer's answer, while a lease with another indexer is held.
    pub(super) fn note_spare(&mut self, now: Instant, server: &PeerId, ack: &Ack) {
        let is_other = |lease: &Lease| {
            lease.role() == Role::Indexer && lease.is_secure(now) && lease.server() != server
        };
        if !self.leases.iter().any(is_other) {
            return;
        }
        match ack.code {
            AckCode::Accepted => self.spare.granted(),
            AckCode::Full => {
                let interval = self.config.connect_interval;
                self.spare.refused(now, interval, &mut self.rng);
            }
            AckCode::Released | AckCode::Refused => {}
        }
    }
}

/// The refusals while a lease is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spare {
    refusals: u8,
    not_before: Instant,
}

impl Spare {
    pub(super) const fn new() -> Self {
        Self {
            refusals: 0,
            not_before: Instant::from_millis(0),
        }
    }

    /// Counts a refusal of an indexer, while a lease with another is held.
    pub(super) fn refused(&mut self, now: Instant, interval: Duration, rng: &mut Rng) {
        self.refusals += 1;
        if self.refusals >= MAX_REFUSALS {
            self.refusals = 0;
            self.not_before = now + interval + rng.up_to(interval / 10);
        }
    }

    /// Resets the refusals, because an indexer granted a lease.
    pub(super) fn granted(&mut self) {
        self.refusals = 0;
    }

    /// Whether a spare lease is sought at `now`.
    pub(super) fn is_sought(&self, now: Instant) -> bool {
        now >= self.not_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn three_refusals_in_a_row_are_enough_for_a_connect_interval() {
        let (mut spare, mut rng) = (Spare::new(), Rng::new(1));
        for _ in 0..2 {
            spare.refused(at(0), INTERVAL, &mut rng);
            assert!(spare.is_sought(at(0)));
        }
        spare.refused(at(0), INTERVAL, &mut rng);
        assert!(!spare.is_sought(at(59_999)));
        assert!(spare.is_sought(at(66_000)), "a tenth of jitter at most");
    }

    #[test]
    fn a_lease_granted_between_them_begins_anew() {
        let (mut spare, mut rng) = (Spare::new(), Rng::new(1));
        for _ in 0..5 {
            spare.refused(at(0), INTERVAL, &mut rng);
            spare.refused(at(0), INTERVAL, &mut rng);
            spare.granted();
            assert!(spare.is_sought(at(0)));
        }
    }
}
