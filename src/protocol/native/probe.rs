//! The pings in flight (`PeerIsAlive`).
//!
//! Invariants: there are at most [`MAX_PROBES`] at a time, and one at most to each peer; each
//! counts once, as ended or as overdue after [`PROBE_TIMEOUT`].

use core::time::Duration;

use heapless::Vec;

use crate::protocol::{Instant, PeerId};

/// Pings in flight at most (ARCHITECTURE.md, "Verdicts").
pub(crate) const MAX_PROBES: usize = 8;
/// Time for one ping, dialling included (PROTOCOL.md).
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The pings in flight, and when each began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prober(Vec<(PeerId, Instant), MAX_PROBES>);

impl Prober {
    /// No ping in flight.
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether at least half of the pings are free for more urgent uses.
    pub(crate) fn is_half_free(&self) -> bool {
        self.0.len() < MAX_PROBES / 2
    }

    /// Begins to ping the first of `wanted` that is not being pinged, if a ping is free.
    pub(crate) fn start(
        &mut self,
        now: Instant,
        mut wanted: impl Iterator<Item = PeerId>,
    ) -> Option<PeerId> {
        if self.0.is_full() {
            return None;
        }
        let peer = wanted.find(|peer| !self.0.iter().any(|(busy, _)| busy == peer))?;
        // There is room: this was checked above.
        let _ = self.0.push((peer, now));
        Some(peer)
    }

    /// Takes note that a ping has ended. Returns when it began, if it was still in flight.
    pub(crate) fn ended(&mut self, peer: &PeerId) -> Option<Instant> {
        let at = self.0.iter().position(|(busy, _)| busy == peer)?;
        Some(self.0.swap_remove(at).1)
    }

    /// The next ping that has run out of time, and when it began.
    pub(crate) fn pop_overdue(&mut self, now: Instant) -> Option<(PeerId, Instant)> {
        let overdue = |(_, began): &(PeerId, Instant)| *began + PROBE_TIMEOUT <= now;
        let at = self.0.iter().position(overdue)?;
        Some(self.0.swap_remove(at))
    }

    /// When the next ping's time is over.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.0.iter().map(|(_, began)| *began + PROBE_TIMEOUT).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> impl Iterator<Item = PeerId> {
        (0..20).map(|n| PeerId::from_bytes([n; 32]))
    }

    #[test]
    fn at_most_eight_pings_are_in_flight() {
        let mut prober = Prober::new();
        let now = Instant::from_millis(0);
        let started: std::vec::Vec<_> = std::iter::from_fn(|| prober.start(now, peers())).collect();
        assert_eq!(started, peers().take(8).collect::<std::vec::Vec<_>>());
        assert_eq!(prober.ended(&started[3]), Some(now));
        assert_eq!(prober.ended(&started[3]), None, "its end counts once");
        assert_eq!(prober.start(now, peers().skip(8)), peers().nth(8));
    }

    #[test]
    fn a_ping_is_overdue_at_two_seconds_and_not_before() {
        let mut prober = Prober::new();
        let peer = prober.start(Instant::from_millis(0), peers()).unwrap();
        assert_eq!(prober.pop_overdue(Instant::from_millis(1_999)), None);
        assert_eq!(prober.timeout(), Some(Instant::from_millis(2_000)));
        let began = Instant::from_millis(0);
        assert_eq!(
            prober.pop_overdue(Instant::from_millis(2_000)),
            Some((peer, began))
        );
        assert_eq!(prober.pop_overdue(Instant::from_millis(9_000)), None);
    }
}
