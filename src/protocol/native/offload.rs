//! `runOffloadLoop`: hands the nodes that this native took in over to indexers, as soon as some are reachable.
//!
//! ```text
//!  tick · an indexer registers ─▶ len(responsible_peers) > 0 ? ─no─▶ nothing
//!            │ yes
//!            ▼
//!          reachable_live_indexers(): live_indexers whose lease has not run out, each pinged (8 at a time, 2 s each, those that
//!            │                        were heard last first)
//!            │
//!            ├─ some have a place ─▶ responsible_peers = {}; each node is told `released`, with the indexer whose
//!            │                        place is reserved for it; a node without a place is taken in again, untold
//!            └─ none ─▶ the nodes stay
//! ```
//!
//! Invariants:
//! - A run decides by what is true when it decides: an indexer that went away while others were pinged gets no node.
//! - A run waits for the last verdict, but not longer than 2 s if some are reachable: silent indexers keep no node from the others. A
//!   run that an indexer's registration began waits for nothing if there is a place for every node.
//! - A tick leaves a node alone for 10 s after every offer failed at it: it would not try again what failed. An indexer that registers
//!   may have it at once.
//! - Places go to the indexer of the greatest weight, one after another: when a run has decided, no indexer with a place left is better by
//!   more than one place than one that got a node, unless more nodes failed at it. One that boasts gets its share.
//! - A run that is still pinging when the next tick comes goes on; that tick is skipped. Runs that registrations begin are at least a
//!   second after the run before.

use core::{cmp::Reverse, time::Duration};

use heapless::Vec;

use crate::protocol::{Instant, PeerId, Rng, time::Ticker};

use super::{
    delegation::Delegation,
    live_indexers::{LiveIndexer, LiveIndexers},
    probe::PROBE_TIMEOUT,
};

/// Time between the beginnings of two runs at least, if a registration begins the second (DESIGN.md).
const RUN_GAP: Duration = Duration::from_secs(1);

/// The offload loop over at most `I` live indexers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offload<const I: usize> {
    /// Its timer.
    pub ticker: Ticker,
    phase: Phase,
    /// When the last run began; meaningless before the first.
    began: Instant,
    ran: bool,
    /// Whether an indexer that registered began the run: then no node is left alone.
    for_newcomer: bool,
    /// An indexer registered: another run is wanted as soon as it may be.
    wanted: bool,
    candidates: Vec<PeerId, I>,
    reachable: Vec<PeerId, I>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// No run.
    #[default]
    Idle,
    /// Waits for all verdicts.
    Pinging,
    /// The same, but decides as soon as every node has a place.
    Hurrying,
    /// Has waited for 2 s: decides as soon as an indexer is reachable.
    Late,
}

impl<const I: usize> Offload<I> {
    /// The loop before its first run.
    pub const fn new() -> Self {
        Self {
            ticker: Ticker::new(),
            phase: Phase::Idle,
            began: Instant::from_millis(0),
            ran: false,
            for_newcomer: false,
            wanted: false,
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
        if self.phase != Phase::Idle || delegation.is_empty() {
            return;
        }
        live.forget_silent_promises();
        self.begin(now, Phase::Pinging, live);
    }

    /// An indexer registered while nodes are taken in: a run begins now, or a second after the last one began.
    pub fn indexer_registered(&mut self) {
        self.wanted = true;
    }

    /// The candidates whose verdict is not known yet.
    pub fn undecided(&self) -> impl Iterator<Item = PeerId> {
        self.candidates.iter().copied()
    }

    /// When the loop has something to do besides its ticks and what events bring.
    pub fn timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle if self.wanted => Some(self.next_run()),
            Phase::Pinging | Phase::Hurrying => Some(self.began + PROBE_TIMEOUT),
            Phase::Idle | Phase::Late => None,
        }
    }

    /// Takes the verdicts in; when there are enough, decides.
    pub fn advance<const R: usize>(
        &mut self,
        now: Instant,
        own: &PeerId,
        delegation: &mut Delegation<R>,
        live: &mut LiveIndexers<I>,
    ) {
        self.begin_if_wanted(now, delegation, live);
        if self.phase == Phase::Idle {
            return;
        }
        if now >= self.began + PROBE_TIMEOUT {
            self.phase = Phase::Late;
        }
        let since = self.began;
        self.candidates.retain(|peer| {
            live.find(now, peer)
                .is_some_and(|entry| entry.verdict(since).is_none())
        });
        let reachable = |entry: &&LiveIndexer| entry.verdict(since) == Some(true);
        let places = live.iter(now).filter(reachable).map(LiveIndexer::places);
        let places = places.fold(0, u32::saturating_add) as usize;
        let enough = match self.phase {
            Phase::Idle | Phase::Pinging => false,
            Phase::Hurrying => places >= delegation.len(),
            Phase::Late => places > 0,
        };
        if enough || self.candidates.is_empty() {
            self.phase = Phase::Idle;
            self.candidates.clear();
            self.reachable.clear();
            // As many entries as `live` holds at most: there is room.
            self.reachable
                .extend(live.iter(now).filter(reachable).map(|entry| entry.peer));
            self.decide(now, own, delegation, live);
            self.begin_if_wanted(now, delegation, live);
            if self.phase != Phase::Idle {
                // Once at most: the next run may begin a second later.
                self.advance(now, own, delegation, live);
            }
        }
    }

    fn begin_if_wanted<const R: usize>(
        &mut self,
        now: Instant,
        delegation: &Delegation<R>,
        live: &LiveIndexers<I>,
    ) {
        if delegation.is_empty() {
            self.wanted = false;
        }
        if self.phase == Phase::Idle && self.wanted && now >= self.next_run() {
            self.begin(now, Phase::Hurrying, live);
        }
    }

    fn next_run(&self) -> Instant {
        if self.ran {
            self.began + RUN_GAP
        } else {
            Instant::default()
        }
    }

    fn begin(&mut self, now: Instant, phase: Phase, live: &LiveIndexers<I>) {
        self.phase = phase;
        self.for_newcomer = phase == Phase::Hurrying;
        self.began = now;
        self.ran = true;
        self.wanted = false;
        self.candidates.clear();
        // As many entries as `live` holds at most: there is room.
        self.candidates
            .extend(live.iter(now).map(|entry| entry.peer));
        let last_beat = |peer: &PeerId| live.find(now, peer).and_then(LiveIndexer::last_beat);
        self.candidates
            .sort_unstable_by_key(|peer| Reverse((last_beat(peer), *peer)));
    }

    fn decide<const R: usize>(
        &self,
        now: Instant,
        own: &PeerId,
        delegation: &mut Delegation<R>,
        live: &mut LiveIndexers<I>,
    ) {
        // Equal indexers are taken in an order of this native's own, so that natives do not all fill the same one.
        let mut rng = Rng::for_peer(own);
        let mut turn = 0;
        delegation.hand_over(|node| {
            if !self.for_newcomer && !node.may_go(now) {
                return None;
            }
            let mut best: Option<((Reverse<u8>, i64), PeerId)> = None;
            for offset in 0..self.reachable.len() {
                let peer = self.reachable.get((turn + offset) % self.reachable.len())?;
                let Some(entry) = live.find_mut(peer).filter(|entry| entry.places() > 0) else {
                    continue;
                };
                let rank = (Reverse(entry.failures(now)), entry.weight());
                if best.is_none_or(|(best, _)| rank > best) {
                    best = Some((rank, *peer));
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
        assert_eq!(offload.phase, Phase::Idle);
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
        assert_eq!(offload.phase, Phase::Idle, "the next tick begins anew");
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

    #[test]
    fn an_indexer_that_went_away_during_the_pings_gets_no_node() {
        let (mut offload, mut live, mut delegation) =
            (Offload::<4>::new(), LiveIndexers::new(), taken_in(1));
        beat(&mut live, 0, 1, Some((0, 9)));
        beat(&mut live, 0, 2, Some((0, 9)));
        live.disconnected(&peer(2));
        offload.tick(at(5_000), &delegation, &mut live);
        offload.advance(at(5_000), &OWN, &mut delegation, &mut live);
        live.disconnected(&peer(1));
        live.judge(at(7_000), &peer(2), false);
        offload.advance(at(7_000), &OWN, &mut delegation, &mut live);
        assert!(!delegation.is_empty() && releases(&mut delegation).is_empty());
    }

    #[test]
    fn an_indexer_that_registers_during_the_pings_gets_nodes() {
        let (mut offload, mut live, mut delegation) =
            (Offload::<4>::new(), LiveIndexers::new(), taken_in(1));
        beat(&mut live, 0, 1, None);
        offload.tick(at(20_000), &delegation, &mut live);
        offload.advance(at(20_000), &OWN, &mut delegation, &mut live);
        beat(&mut live, 20_500, 2, Some((0, 9)));
        live.judge(at(21_000), &peer(1), false);
        offload.advance(at(21_000), &OWN, &mut delegation, &mut live);
        assert_eq!(releases(&mut delegation), [(peer(100), peer(2))]);
    }

    #[test]
    fn silent_indexers_hold_a_run_up_for_two_seconds_if_another_is_reachable() {
        for (now, released) in [(6_999, 0), (7_000, 1)] {
            let (mut offload, mut live, mut delegation) =
                (Offload::<4>::new(), LiveIndexers::new(), taken_in(1));
            beat(&mut live, 0, 1, Some((0, 9)));
            beat(&mut live, 0, 2, Some((0, 9)));
            live.disconnected(&peer(2));
            offload.tick(at(5_000), &delegation, &mut live);
            assert_eq!(offload.timeout(), Some(at(7_000)));
            offload.advance(at(now), &OWN, &mut delegation, &mut live);
            assert_eq!(releases(&mut delegation).len(), released, "at {now}");
        }
    }

    #[test]
    fn a_late_run_goes_on_until_one_is_reachable_and_wakes_nobody_meanwhile() {
        let (mut offload, mut live, mut delegation) =
            (Offload::<4>::new(), LiveIndexers::new(), taken_in(1));
        for n in 1..=3 {
            beat(&mut live, 0, n, Some((0, 9)));
            live.disconnected(&peer(n));
        }
        offload.tick(at(5_000), &delegation, &mut live);
        live.judge(at(7_000), &peer(1), false);
        offload.advance(at(7_000), &OWN, &mut delegation, &mut live);
        assert_eq!((offload.undecided().count(), offload.timeout()), (2, None));
        live.judge(at(7_100), &peer(2), true);
        offload.advance(at(7_100), &OWN, &mut delegation, &mut live);
        assert_eq!(releases(&mut delegation), [(peer(100), peer(2))]);
        assert_eq!(
            offload.undecided().count(),
            0,
            "nobody is pinged for nothing"
        );
    }

    #[test]
    fn the_indexers_heard_last_are_pinged_first() {
        let (mut offload, mut live) = (Offload::<4>::new(), LiveIndexers::new());
        for (now, n) in [(0, 1), (7_000, 2), (3_000, 3)] {
            beat(&mut live, now, n, None);
        }
        offload.tick(at(20_000), &taken_in(1), &mut live);
        let order: std::vec::Vec<_> = offload.undecided().collect();
        assert_eq!(order, [peer(2), peer(3), peer(1)]);
    }

    #[test]
    fn a_registration_begins_a_run_at_once_and_the_next_a_second_later() {
        let (mut offload, mut live, mut delegation) =
            (Offload::<4>::new(), LiveIndexers::new(), taken_in(1));
        let advance =
            |offload: &mut Offload<4>, now, delegation: &mut Delegation<8>, live: &mut _| {
                offload.advance(at(now), &OWN, delegation, live);
                releases(delegation).len()
            };
        beat(&mut live, 5_000, 1, Some((0, 9)));
        offload.indexer_registered();
        assert_eq!(advance(&mut offload, 5_000, &mut delegation, &mut live), 1);
        delegation.take_in(at(5_100), &peer(100));
        offload.indexer_registered();
        assert_eq!(offload.timeout(), Some(at(6_000)));
        assert_eq!(advance(&mut offload, 5_999, &mut delegation, &mut live), 0);
        assert_eq!(advance(&mut offload, 6_000, &mut delegation, &mut live), 1);
        assert_eq!(offload.timeout(), None);
    }

    #[test]
    fn a_run_that_a_registration_began_waits_for_pings_only_if_places_are_short() {
        for (free, released) in [(2, 2), (1, 0)] {
            let (mut offload, mut live, mut delegation) =
                (Offload::<4>::new(), LiveIndexers::new(), taken_in(2));
            beat(&mut live, 0, 2, Some((0, 9)));
            live.disconnected(&peer(2));
            beat(&mut live, 5_000, 1, Some((0, free)));
            offload.indexer_registered();
            offload.advance(at(5_000), &OWN, &mut delegation, &mut live);
            assert_eq!(releases(&mut delegation).len(), released, "{free} free");
        }
    }

    #[test]
    fn with_nobody_taken_in_a_registration_begins_nothing() {
        let (mut offload, mut live, mut delegation) =
            (Offload::<4>::new(), LiveIndexers::new(), taken_in(0));
        beat(&mut live, 0, 1, None);
        live.disconnected(&peer(1));
        offload.indexer_registered();
        offload.advance(at(1), &OWN, &mut delegation, &mut live);
        assert_eq!((offload.undecided().count(), offload.timeout()), (0, None));
    }

    #[test]
    fn an_indexer_that_boasts_gets_no_more_nodes_than_another_with_room() {
        let (mut offload, mut live, mut delegation) =
            (Offload::<4>::new(), LiveIndexers::new(), taken_in(8));
        beat(&mut live, 0, 1, Some((0, u32::MAX)));
        beat(&mut live, 0, 2, Some((900, 1024)));
        offload.tick(at(1_000), &delegation, &mut live);
        offload.advance(at(1_000), &OWN, &mut delegation, &mut live);
        let told = releases(&mut delegation);
        let boaster = told.iter().filter(|(_, to)| *to == peer(1)).count();
        assert_eq!((told.len(), boaster), (8, 4));
    }
}
