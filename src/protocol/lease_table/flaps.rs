//! Peers that come and go again and again: each of them rests, so that its records, its name and
//! the changes that watchers are told do not keep the whole network busy.
//!
//! ```text
//!            six leases given up within ten minutes        given up again within ten minutes
//!  counted ────────────────────────────────────────▶ rests ─────────────────────────────────▶ rests
//!     ▲                                               10 s           twice as long, 10 min at most
//!     └───────────────── ten minutes without giving a lease up ◀──────────────────────────────┘
//! ```
//!
//! Only leases count that their holder gave up. A peer on a bad link gives none up: it comes back
//! before its lease is over, or its lease is lost, and then it may be there again at once.
//!
//! Invariants: at most [`MAX_FLAPPING`] peers are counted; one that rests gives way to no other; a
//! peer that rests holds no lease because of that, and loses none.

use core::{fmt::Write as _, time::Duration};

use heapless::{Deque, Vec};

use super::{Instant, PeerId, TableStats};
use crate::protocol::Reason;

/// Peers that are counted.
const MAX_FLAPPING: usize = 32;
/// So many leases given up within [`WITHIN`] are too many.
const TIMES: usize = 6;
const WITHIN: Duration = Duration::from_secs(600);
/// The first rest, and the longest.
const FIRST_REST: Duration = Duration::from_secs(10);
const LONGEST_REST: Duration = Duration::from_secs(600);

/// How the reason begins that a peer is given which rests.
pub(crate) const COMES_AND_GOES: &str = "came and went";

/// A peer that has given up leases.
#[derive(Clone, Debug)]
struct Flapping {
    peer: PeerId,
    /// When it gave its last ones up, within [`WITHIN`].
    given_up: Deque<Instant, TIMES>,
    /// Rests without a pause.
    rests: u32,
    rests_until: Instant,
}

/// The peers that have given up leases of late.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flaps {
    peers: Vec<Flapping, MAX_FLAPPING>,
    refused: u64,
    evicted: u64,
}

impl Flaps {
    pub(super) const fn new() -> Self {
        Self {
            peers: Vec::new(),
            refused: 0,
            evicted: 0,
        }
    }

    /// The peer gave its lease up.
    pub(super) fn left(&mut self, now: Instant, peer: &PeerId) {
        self.peers.retain(|known| !known.is_over(now));
        if !self.peers.iter().any(|known| known.peer == *peer) && !self.add(now, peer) {
            return;
        }
        if let Some(known) = self.peers.iter_mut().find(|known| known.peer == *peer) {
            known.left(now);
        }
    }

    /// What a newcomer is told that rests. It is counted.
    pub(super) fn refusal(&mut self, now: Instant, peer: &PeerId) -> Option<Reason> {
        let known = self.peers.iter().find(|known| known.peer == *peer)?;
        let left = known.rests_until - now;
        if left.is_zero() {
            return None;
        }
        self.refused = self.refused.saturating_add(1);
        let seconds = left.as_millis().div_ceil(1000);
        let mut reason = Reason::new();
        // It fits.
        let _ = write!(
            reason,
            "{COMES_AND_GOES} {TIMES} times in ten minutes: rests for {seconds} s"
        );
        Some(reason)
    }

    /// The statistics for `status`. Refused are newcomers that rest.
    pub(crate) fn stats(&self) -> TableStats {
        TableStats {
            name: "flapping",
            used: self.peers.len(),
            capacity: MAX_FLAPPING,
            refused: self.refused,
            evicted: self.evicted,
        }
    }

    /// Makes an entry for the peer. If there is no room, that of the peer which gave a lease up the
    /// longest ago goes, unless it rests.
    fn add(&mut self, now: Instant, peer: &PeerId) -> bool {
        if self.peers.is_full() {
            let may_go = self.peers.iter().enumerate();
            let may_go = may_go.filter(|(_, known)| known.rests_until <= now);
            let oldest = may_go.min_by_key(|(_, known)| known.given_up.back().copied());
            let Some((at, _)) = oldest else { return false };
            self.peers.swap_remove(at);
            self.evicted = self.evicted.saturating_add(1);
        }
        let added = self.peers.push(Flapping {
            peer: *peer,
            given_up: Deque::new(),
            rests: 0,
            rests_until: Instant::from_millis(0),
        });
        added.is_ok()
    }
}

impl PartialEq for Flaps {
    fn eq(&self, other: &Self) -> bool {
        let content = |flapping: &Flapping| {
            (
                flapping.peer,
                flapping.rests,
                flapping.rests_until,
                flapping.given_up.back().copied(),
                flapping.given_up.len(),
            )
        };
        let same = self
            .peers
            .iter()
            .map(content)
            .eq(other.peers.iter().map(content));
        same && (self.refused, self.evicted) == (other.refused, other.evicted)
    }
}

impl Flapping {
    /// Whether it gave no lease up for so long that it counts as any other peer.
    fn is_over(&self, now: Instant) -> bool {
        let last = self.given_up.back();
        now >= self.rests_until && last.is_none_or(|last| now - *last > WITHIN)
    }

    fn left(&mut self, now: Instant) {
        while self
            .given_up
            .front()
            .is_some_and(|first| now - *first > WITHIN)
            || self.given_up.is_full()
        {
            self.given_up.pop_front();
        }
        // There is room after the removal.
        let _ = self.given_up.push_back(now);
        if self.given_up.len() >= TIMES {
            let rest = FIRST_REST.saturating_mul(2u32.saturating_pow(self.rests));
            self.rests_until = now + rest.min(LONGEST_REST);
            self.rests = self.rests.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(10_000_000 + ms)
    }

    fn peer(n: u16) -> PeerId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_le_bytes());
        PeerId::from_bytes(id)
    }

    fn rests(flaps: &mut Flaps, ms: u64) -> bool {
        flaps.refusal(at(ms), &peer(1)).is_some()
    }

    fn leaves(flaps: &mut Flaps, times: impl IntoIterator<Item = u64>) {
        times
            .into_iter()
            .for_each(|ms| flaps.left(at(ms), &peer(1)));
    }

    #[test]
    fn who_gives_up_six_leases_in_ten_minutes_rests_for_ten_seconds() {
        let mut flaps = Flaps::new();
        leaves(&mut flaps, [0, 1, 2, 3, 4]);
        assert!(!rests(&mut flaps, 4));
        leaves(&mut flaps, [600_000]);
        assert!(rests(&mut flaps, 600_000) && rests(&mut flaps, 609_999));
        assert!(!rests(&mut flaps, 610_000));
        let told = flaps.refusal(at(600_001), &peer(1)).unwrap();
        assert_eq!(told, "came and went 6 times in ten minutes: rests for 10 s");
        assert_eq!(flaps.refusal(at(600_001), &peer(2)), None);
        assert_eq!(flaps.stats().refused, 3);
    }

    #[test]
    fn a_lease_that_was_given_up_more_than_ten_minutes_ago_does_not_count() {
        let mut flaps = Flaps::new();
        leaves(&mut flaps, [0, 1, 2, 3, 4, 600_001]);
        assert!(!rests(&mut flaps, 600_001));
        leaves(&mut flaps, [600_002]);
        assert!(!rests(&mut flaps, 600_002));
    }

    #[test]
    fn each_rest_is_twice_as_long_up_to_ten_minutes() {
        let mut flaps = Flaps::new();
        leaves(&mut flaps, [0; 6]);
        let mut now = 0;
        for seconds in [10, 20, 40, 80, 160, 320, 600, 600] {
            assert!(rests(&mut flaps, now + seconds * 1000 - 1), "{seconds}");
            assert!(!rests(&mut flaps, now + seconds * 1000), "{seconds}");
            now += 1000;
            leaves(&mut flaps, [now]);
        }
    }

    #[test]
    fn who_pauses_for_ten_minutes_after_a_rest_begins_anew() {
        let mut flaps = Flaps::new();
        leaves(&mut flaps, [0; 6]);
        leaves(&mut flaps, [600_000]);
        assert!(rests(&mut flaps, 619_999), "the second rest");
        let mut flaps = Flaps::new();
        leaves(&mut flaps, [0; 6]);
        leaves(&mut flaps, [600_001; 5]);
        assert!(!rests(&mut flaps, 600_001));
        leaves(&mut flaps, [600_001]);
        assert!(rests(&mut flaps, 610_000) && !rests(&mut flaps, 610_001));
    }

    #[test]
    fn a_full_table_gives_up_the_oldest_that_does_not_rest() {
        let mut flaps = Flaps::new();
        leaves(&mut flaps, [0; 6]);
        for other in 2..=MAX_FLAPPING as u16 {
            flaps.left(at(other.into()), &peer(other));
        }
        flaps.left(at(100), &peer(100));
        let stats = flaps.stats();
        assert_eq!((stats.used, stats.evicted), (MAX_FLAPPING, 1));
        assert!(rests(&mut flaps, 100), "it is the oldest, and rests");
        assert!(!flaps.peers.iter().any(|known| known.peer == peer(2)));
    }

    #[test]
    fn who_gave_none_up_for_ten_minutes_is_forgotten() {
        let mut flaps = Flaps::new();
        leaves(&mut flaps, [0]);
        flaps.left(at(600_000), &peer(2));
        assert_eq!(flaps.stats().used, 2);
        flaps.left(at(600_001), &peer(2));
        assert_eq!(flaps.stats().used, 1);
    }
}
