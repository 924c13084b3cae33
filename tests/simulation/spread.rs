//! How nodes spread over indexers, of which one may overstate its room. A report cannot be checked,
//! so the answers and releases of natives must not depend on how far it exceeds the room that
//! counts.
//!
//! The ledger has the last report of each indexer. Only the remaining room, and the number of nodes
//! that an indexer failed at, come from the native's own view.

use oc_discovery::protocol::{IndexersAnswer, LiveIndexer, PeerId, Verdict};

use crate::{device::DeviceNo, invariants::ensure, view::View, world::World};

/// More free leases than this do not make an indexer better (`native::live_indexers`).
const ENOUGH: u32 = 64;
/// The most free leases that can be reported (PROTOCOL.md).
const MOST_FREE: u32 = 65_535;
/// The probability below which a row of answers led by an overstating indexer counts as a failure.
const UNLIKELY: f64 = 1e-12;

/// The greater rank comes first: fewer failures, then more of the free leases that count.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Rank {
    failures: std::cmp::Reverse<u8>,
    weight: i64,
}

impl World {
    /// Checks that an answer begins with an indexer of the greatest rank, and with each of equal
    /// ones equally often, so that an overstating one is not first more often than at random.
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

    /// Checks that a run of the offload loop levels the indexers: after it, no other is better by
    /// more than one place than the one that a node is sent to.
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
