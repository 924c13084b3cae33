//! `runOffloadLoop`: hands the nodes that this native took in over to indexers, as soon as some are reachable.
//!
//! ```text
//!  tick ─▶ len(responsible_peers) > 0 ? ─no─▶ nothing
//!            │ yes
//!            ▼
//!          reachable_live_indexers(): live_indexers whose lease has not run out, each pinged (8 at a time, 2 s each)
//!            │
//!            ├─ some have a place ─▶ responsible_peers = {}; each node is told `released`, with the indexer whose
//!            │                        place is reserved for it; who gets no place is taken in again, untold
//!            └─ none ─▶ the nodes stay
//! ```
//!
//! A run that is still pinging when the next tick comes goes on; that tick is skipped.

use heapless::Vec;

use crate::protocol::{Instant, PeerId, Rng, time::Ticker};

use super::{delegation::Delegation, live_indexers::LiveIndexers};

/// The offload loop over at most `I` live indexers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offload<const I: usize> {
    /// Its timer.
    pub ticker: Ticker,
    running: bool,
    candidates: Vec<PeerId, I>,
    reachable: Vec<PeerId, I>,
}

impl<const I: usize> Offload<I> {
    /// The loop before its first run.
    pub const fn new() -> Self {
        Self {
            ticker: Ticker::new(),
            running: false,
            candidates: Vec::new(),
            reachable: Vec::new(),
        }
    }

    /// One tick: begins a run if there is somebody to hand over.
    pub fn tick<const R: usize>(
        &mut self,
        now: Instant,
        delegation: &Delegation<R>,
        live: &mut LiveIndexers<I>,
    ) {
        if self.running || delegation.is_empty() {
            return;
        }
        live.forget_silent_promises();
        self.candidates.clear();
        self.reachable.clear();
        // As many entries as `live` holds at most: there is room.
        self.candidates
            .extend(live.iter(now).map(|entry| entry.peer));
        self.running = true;
    }

    /// The candidates whose verdict is not known yet.
    pub fn undecided(&self) -> impl Iterator<Item = PeerId> {
        self.candidates.iter().copied()
    }

    /// Takes the verdicts in; when the last is there, decides.
    pub fn advance<const R: usize>(
        &mut self,
        now: Instant,
        own: &PeerId,
        delegation: &mut Delegation<R>,
        live: &mut LiveIndexers<I>,
    ) {
        if !self.running {
            return;
        }
        self.candidates.retain(
            |peer| match live.find(now, peer).map(|entry| entry.verdict(now)) {
                Some(None) => true,
                Some(Some(true)) => self.reachable.push(*peer).is_err(),
                Some(Some(false)) | None => false,
            },
        );
        if self.candidates.is_empty() {
            self.running = false;
            self.decide(own, delegation, live);
        }
    }

    fn decide<const R: usize>(
        &self,
        own: &PeerId,
        delegation: &mut Delegation<R>,
        live: &mut LiveIndexers<I>,
    ) {
        // Equal indexers are taken in an order of this native's own, so that natives do not all fill the same one.
        let mut rng = Rng::for_peer(own);
        let mut turn = 0;
        delegation.hand_over(|_| {
            let mut best: Option<(u32, PeerId)> = None;
            for offset in 0..self.reachable.len() {
                let peer = self.reachable.get((turn + offset) % self.reachable.len())?;
                let places = live.find_mut(peer).map_or(0, |entry| entry.places());
                if places > best.map_or(0, |(most, _)| most) {
                    best = Some((places, *peer));
                }
            }
            turn = turn.wrapping_add(1 + rng.below(2) as usize) % self.reachable.len().max(1);
            let (_, peer) = best?;
            live.find_mut(&peer)?.reserve();
            Some(peer)
        });
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::protocol::{Addrs, Load, Name, RecordInfo};

    const OWN: PeerId = PeerId::from_bytes([0; 32]);
    const LEASE: Duration = Duration::from_secs(90);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn beat(live: &mut LiveIndexers<4>, now: u64, n: u8, load: Option<(u32, u32)>) {
        let record = RecordInfo {
            peer: peer(n),
            sequence: 1,
            issued_at_ms: 0,
            ttl: LEASE * 3,
            addrs: Addrs::new(),
            name: Name::new(),
        };
        let load = load.map(|(held, possible)| Load { held, possible });
        live.beat(at(now), &peer(n), LEASE, load, Some(&record))
            .unwrap();
    }

    fn taken_in(nodes: u8) -> Delegation<8> {
        let mut delegation = Delegation::new();
        for n in 0..nodes {
            delegation.take_in(at(0), &peer(100 + n));
        }
        delegation
    }

    fn releases(delegation: &mut Delegation<8>) -> std::vec::Vec<(PeerId, PeerId)> {
        std::iter::from_fn(|| delegation.pop_release()).collect()
    }

    #[test]
    fn with_nobody_taken_in_no_candidate_is_pinged() {
        let (mut offload, mut live) = (Offload::<4>::new(), LiveIndexers::new());
        beat(&mut live, 0, 1, None);
        offload.tick(at(20_000), &Delegation::<8>::new(), &mut live);
        assert_eq!(offload.undecided().count(), 0);
        assert!(!offload.running);
    }

    #[test]
    fn candidates_are_the_live_indexers_whose_lease_has_not_run_out() {
        for (now, expected) in [(89_999, 1), (90_000, 1), (90_001, 0)] {
            let (mut offload, mut live) = (Offload::<4>::new(), LiveIndexers::new());
            beat(&mut live, 0, 1, None);
            offload.tick(at(now), &taken_in(1), &mut live);
            assert_eq!(offload.undecided().count(), expected, "at {now}");
        }
    }

    #[test]
    fn with_reachable_indexers_everybody_is_released_and_load_spreads() {
        let (mut offload, mut live, mut delegation) =
            (Offload::<4>::new(), LiveIndexers::new(), taken_in(4));
        beat(&mut live, 0, 1, Some((0, 100)));
        beat(&mut live, 0, 2, Some((0, 100)));
        offload.tick(at(5_000), &delegation, &mut live);
        offload.advance(at(5_000), &OWN, &mut delegation, &mut live);
        assert!(delegation.is_empty());
        let told = releases(&mut delegation);
        let to_first = told
            .iter()
            .filter(|(_, indexer)| *indexer == peer(1))
            .count();
        assert_eq!((told.len(), to_first), (4, 2));
    }

    #[test]
    fn a_run_waits_for_the_last_verdict_and_decides_once() {
        let (mut offload, mut live, mut delegation) =
            (Offload::<4>::new(), LiveIndexers::new(), taken_in(1));
        beat(&mut live, 0, 1, None);
        beat(&mut live, 0, 2, None);
        offload.tick(at(20_000), &delegation, &mut live);
        live.judge(at(20_100), &peer(1), false);
        offload.advance(at(20_100), &OWN, &mut delegation, &mut live);
        assert_eq!(offload.undecided().collect::<std::vec::Vec<_>>(), [peer(2)]);
        live.judge(at(22_000), &peer(2), true);
        offload.advance(at(22_000), &OWN, &mut delegation, &mut live);
        assert_eq!(releases(&mut delegation), [(peer(100), peer(2))]);
    }

    #[test]
    fn with_no_reachable_indexer_the_nodes_stay() {
        let (mut offload, mut live, mut delegation) =
            (Offload::<4>::new(), LiveIndexers::new(), taken_in(3));
        beat(&mut live, 0, 1, None);
        offload.tick(at(20_000), &delegation, &mut live);
        live.judge(at(22_000), &peer(1), false);
        offload.advance(at(22_000), &OWN, &mut delegation, &mut live);
        assert_eq!(delegation.iter().count(), 3);
        assert!(releases(&mut delegation).is_empty());
        assert!(!offload.running, "the next tick begins anew");
    }

    #[test]
    fn reachable_indexers_that_are_all_full_are_as_none() {
        let (mut offload, mut live, mut delegation) =
            (Offload::<4>::new(), LiveIndexers::new(), taken_in(3));
        beat(&mut live, 0, 1, Some((8, 8)));
        offload.tick(at(1_000), &delegation, &mut live);
        offload.advance(at(1_000), &OWN, &mut delegation, &mut live);
        assert_eq!(delegation.iter().count(), 3);
    }

    #[test]
    fn with_too_few_places_the_rest_is_taken_in_again_untold() {
        let (mut offload, mut live, mut delegation) =
            (Offload::<4>::new(), LiveIndexers::new(), taken_in(5));
        beat(&mut live, 0, 1, Some((6, 8)));
        beat(&mut live, 0, 2, None);
        offload.tick(at(1_000), &delegation, &mut live);
        offload.advance(at(1_000), &OWN, &mut delegation, &mut live);
        assert_eq!(
            delegation.iter().count(),
            2,
            "two places known, one for the unknown"
        );
        assert_eq!(releases(&mut delegation).len(), 3);
    }
}
