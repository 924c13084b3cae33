//! How nodes spread over indexers, of which one may boast: what it reports cannot be checked, so
//! the answers and releases of natives must not depend on how much more than enough it is.
//!
//! What an indexer reported last is the ledger's; from the native's own view comes only how much of
//! it is left, and how many nodes an indexer failed at.

use oc_discovery::protocol::{
    IndexersAnswer, PeerId,
    native::{LiveIndexer, Verdict},
};

use crate::{device::DeviceNo, invariants::ensure, view::View, world::World};

/// Free leases beyond which one indexer is as good as another (`native::live_indexers`).
const ENOUGH: u32 = 64;
/// What is said of free leases is at most this (PROTOCOL.md).
const MOST_FREE: u32 = 65_535;
/// Chance does not name a boaster first so often in a row that it is less likely than this.
const UNLIKELY: f64 = 1e-12;

/// The greater rank goes first: fewer failures, then more of the free leases that count.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Rank {
    failures: std::cmp::Reverse<u8>,
    weight: i64,
}

impl World {
    /// An answer names an indexer of the greatest rank first, and of equal ones each as often as
    /// the others: a boaster comes first no more often than chance has it.
    pub fn check_order(
        &mut self,
        no: DeviceNo,
        answer: &IndexersAnswer,
        view: &View,
    ) -> Result<(), String> {
        let mut offers = answer.offers.iter();
        ensure(
            offers.all(|offer| offer.free.is_none_or(|free| free <= MOST_FREE)),
            no,
            "tells of more free leases than an indexer can have",
        )?;
        let ranked = |peer: &PeerId| Some((self.rank(no, view.live(peer)?)?, self.boasts(peer)));
        let mut peers = answer.offers.iter().map(|offer| &offer.peer);
        let Some((first, is_boaster)) = peers.next().and_then(ranked) else {
            return Ok(());
        };
        let (mut equal, mut boasters) = (1, usize::from(is_boaster));
        for (rank, boasts) in peers.filter_map(ranked) {
            ensure(rank <= first, no, "names a lesser indexer first")?;
            equal += usize::from(rank == first);
            boasters += usize::from(rank == first && boasts);
        }
        if is_boaster {
            self.boaster_luck *= boasters as f64 / equal as f64;
        } else if boasters > 0 {
            self.boaster_luck = 1.0;
        }
        ensure(
            self.boaster_luck > UNLIKELY,
            no,
            "an indexer that boasts is always named first",
        )
    }

    /// A run of the offload loop levels the indexers: when its places are given away, no other is
    /// more than one place better than the one a node is sent to.
    pub fn check_spread(&self, no: DeviceNo, to: &PeerId, view: &View) -> Result<(), String> {
        let now = self.devices[no].instant(self.now);
        let Some(given) = view.live(to).and_then(|entry| self.rank(no, entry)) else {
            return Ok(());
        };
        let before = Rank {
            weight: given.weight + 1,
            ..given
        };
        let mut others = view.live.iter().filter(|other| {
            other.peer != *to && other.verdict(now) == Some(Verdict::Reachable) && other.has_room()
        });
        ensure(
            others.all(|other| self.rank(no, other).is_none_or(|rank| rank <= before)),
            no,
            "releases a node to an indexer while another has been promised fewer",
        )
    }

    /// `None` if the native does not know how full the indexer is.
    fn rank(&self, no: DeviceNo, entry: &LiveIndexer) -> Option<Rank> {
        let known = (no, self.number_of(&entry.peer));
        let reported = self.ledger.evidence.get(&known)?.free?;
        let promised = reported.saturating_sub(entry.free()?);
        let now = self.devices[no].instant(self.now);
        Some(Rank {
            failures: std::cmp::Reverse(entry.failures(now)),
            weight: i64::from(reported.min(ENOUGH)) - i64::from(promised),
        })
    }

    fn boasts(&self, peer: &PeerId) -> bool {
        self.plan.boasts(self.number_of(peer))
    }
}
