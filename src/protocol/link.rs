//! Finding natives without configuration: when the local link is asked for them (multicast DNS),
//! when a native answers there, and which of those found are trusted.
//!
//! Invariants: a process asks only while it holds no lease, after 1, 2, 4 … 60 s; a native
//! multicasts its answer at most once a second, however many hosts ask and however often (RFC 6762,
//! section 6); what is heard on the link is trusted only if [`trust`] says so, and a native that
//! was found is known only once it has answered ([`FoundNatives`]): names alone cannot fill the
//! table of natives.

use core::time::Duration;

use heapless::Vec;

use super::{
    Addrs, PeerId, TableStats, Verdict,
    time::{Instant, Rng},
};

/// The first and the longest pause between two questions (RFC 6762, section 5.2).
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The least time between two multicasts of one answer (RFC 6762, section 6).
const ANSWER_PAUSE: Duration = Duration::from_secs(1);
/// A question or an answer waits for a random time between these, so that not all hosts send at
/// once.
const DELAY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(120));
/// Unsolicited answers at the start and after a change (RFC 6762, section 8.3).
const ANNOUNCEMENTS: u8 = 2;

/// What a process needs of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It holds no lease, and looks for natives.
    Natives,
    /// It holds a lease.
    Nothing,
}

/// When the link is asked for natives.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    next: Instant,
    pause: Duration,
    rng: Rng,
}

impl Asking {
    /// The first question is due a moment after `now`.
    pub fn new(now: Instant, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            next: now + delay(&mut rng),
            pause: FIRST_PAUSE,
            rng,
        }
    }

    /// Whether to ask now.
    pub fn poll(&mut self, now: Instant, need: Need) -> bool {
        if now < self.next {
            return false;
        }
        if need == Need::Nothing {
            // Ready to ask within moments of the loss of the last lease.
            self.pause = FIRST_PAUSE;
        }
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        need == Need::Natives
    }

    /// The host has another network: it asks again soon.
    pub fn restart(&mut self, now: Instant) {
        self.next = now + delay(&mut self.rng);
        self.pause = FIRST_PAUSE;
    }

    /// When [`Asking::poll`] may return true without an event.
    pub fn timeout(&self, need: Need) -> Option<Instant> {
        (need == Need::Natives).then_some(self.next)
    }
}

/// When a native answers on the link.
#[derive(Clone, Debug, PartialEq)]
pub struct Answering {
    due: Option<Instant>,
    last: Option<Instant>,
    announcements: u8,
    rng: Rng,
}

impl Answering {
    /// It announces itself as soon as it has addresses ([`Answering::changed`]).
    pub fn new(seed: u64) -> Self {
        Self {
            due: None,
            last: None,
            announcements: 0,
            rng: Rng::new(seed),
        }
    }

    /// Takes note that the own addresses have changed, and announces them.
    pub fn changed(&mut self, now: Instant) {
        self.announcements = ANNOUNCEMENTS;
        self.schedule(now);
    }

    /// Takes note of a question.
    pub fn asked(&mut self, now: Instant) {
        if self.due.is_none() {
            self.schedule(now);
        }
    }

    /// Whether to answer now.
    pub fn poll(&mut self, now: Instant) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        self.last = Some(now);
        self.announcements = self.announcements.saturating_sub(1);
        self.due = (self.announcements > 0).then_some(now + ANSWER_PAUSE);
        true
    }

    /// When [`Answering::poll`] may return true without an event.
    pub fn timeout(&self) -> Option<Instant> {
        self.due
    }

    fn schedule(&mut self, now: Instant) {
        let soon = now + delay(&mut self.rng);
        let earliest = self.last.map_or(soon, |last| last + ANSWER_PAUSE);
        self.due = Some(soon.max(earliest));
    }
}

fn delay(rng: &mut Rng) -> Duration {
    let (shortest, longest) = DELAY;
    shortest + rng.up_to(longest - shortest)
}

/// Natives that are not known to be there yet, at most.
const MAX_FOUND_NATIVES: usize = 8;
/// The least time between two probes of candidates: any host on the link can name addresses.
const PROBE_PAUSE: Duration = Duration::from_millis(500);

/// Trusted natives that were found, and must answer before they count as known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoundNatives {
    waiting: Vec<FoundNative, MAX_FOUND_NATIVES>,
    next: Instant,
    refused: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct FoundNative {
    peer: PeerId,
    addrs: Addrs,
    origin: Origin,
    is_probed: bool,
}

impl FoundNatives {
    /// Forgets all; what was counted stays.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }

    /// A native says that it is at these addresses. While all places are taken, it must say so
    /// again later.
    pub fn heard(&mut self, peer: PeerId, addrs: &Addrs, origin: Origin) {
        let mut known = self.waiting.iter_mut();
        let added = match known.find(|known| known.peer == peer) {
            Some(known) => {
                known.addrs.clone_from(addrs);
                known.origin = origin;
                Ok(())
            }
            None => self.waiting.push(FoundNative {
                peer,
                addrs: addrs.clone(),
                origin,
                is_probed: false,
            }),
        };
        self.refused += u64::from(added.is_err());
    }

    /// A native to ping now. [`FoundNatives::probed`] must be told of the result.
    pub fn poll(&mut self, now: Instant) -> Option<(PeerId, Addrs)> {
        let mut waiting = self.waiting.iter_mut();
        let first = waiting.find(|candidate| now >= self.next && !candidate.is_probed)?;
        first.is_probed = true;
        self.next = now + PROBE_PAUSE;
        Some((first.peer, first.addrs.clone()))
    }

    /// When [`FoundNatives::poll`] has a native without an event.
    pub fn timeout(&self) -> Option<Instant> {
        let mut waiting = self.waiting.iter();
        waiting.any(|one| !one.is_probed).then_some(self.next)
    }

    /// A ping has ended. Returns the addresses of the native, and how it was found, if it was
    /// probed here and answered.
    pub fn probed(&mut self, peer: &PeerId, verdict: Verdict) -> Option<(Addrs, Origin)> {
        let mut waiting = self.waiting.iter();
        let at = waiting.position(|one| one.is_probed && one.peer == *peer)?;
        let candidate = self.waiting.remove(at);
        let is_there = verdict == Verdict::Reachable;
        is_there.then_some((candidate.addrs, candidate.origin))
    }

    /// The statistics for `status`.
    pub fn stats(&self) -> TableStats {
        TableStats {
            name: "found_natives",
            used: self.waiting.len(),
            capacity: MAX_FOUND_NATIVES,
            refused: self.refused,
            evicted: 0,
        }
    }
}

/// Why a native that was found on the link or by its search domain may be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grounds {
    /// It was a native of this process in an earlier run.
    pub is_remembered: bool,
    /// The network has a key, so no connection to a native without it can be made.
    pub has_key: bool,
    /// The operator trusts every host on the link.
    pub trusts_link: bool,
}

/// Why a native that was found is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// [`Grounds::is_remembered`].
    Remembered,
    /// [`Grounds::has_key`].
    Key,
    /// [`Grounds::trusts_link`].
    Link,
}

/// Why a native that was found, and not given by the operator, is used. `None`: it is not. Any host
/// on the link can say that it is one.
pub fn trust(grounds: Grounds) -> Option<Trust> {
    match grounds {
        _ if grounds.is_remembered => Some(Trust::Remembered),
        _ if grounds.has_key => Some(Trust::Key),
        _ if grounds.trusts_link => Some(Trust::Link),
        _ => None,
    }
}

/// Where a native was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// On the link.
    Link,
    /// In the DNS, under a search domain of this host.
    Domain,
}

/// How a native was found, and why it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where it was found.
    pub via: Via,
    /// Why it is used.
    pub trust: Trust,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn link_is_asked_after_a_moment_and_then_after_1_2_4_and_at_most_60_seconds() {
        let mut asking = Asking::new(at(0), 7);
        let mut now = asking.timeout(Need::Natives).unwrap();
        assert!(now >= at(20) && now <= at(120), "{now:?}");
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(!asking.poll(at(now.as_millis() - 1), Need::Natives));
            assert!(asking.poll(now, Need::Natives));
            assert_eq!(
                asking.timeout(Need::Natives),
                Some(now + Duration::from_secs(pause))
            );
            now = now + Duration::from_secs(pause);
        }
    }

    #[test]
    fn with_a_lease_the_link_is_not_asked_and_without_it_within_a_second() {
        let mut asking = Asking::new(at(0), 7);
        for _ in 0..5 {
            assert!(asking.poll(asking.timeout(Need::Natives).unwrap(), Need::Natives));
        }
        let now = asking.timeout(Need::Natives).unwrap();
        assert_eq!(asking.timeout(Need::Nothing), None);
        assert!(!asking.poll(now, Need::Nothing));
        assert!(!asking.poll(now + Duration::from_millis(999), Need::Natives));
        assert!(asking.poll(now + Duration::from_secs(1), Need::Natives));
    }

    #[test]
    fn another_network_is_asked_at_once() {
        let mut asking = Asking::new(at(0), 7);
        while asking.poll(asking.timeout(Need::Natives).unwrap(), Need::Natives) {
            if asking.pause == LONGEST_PAUSE {
                break;
            }
        }
        let now = asking.timeout(Need::Natives).unwrap() + Duration::from_millis(1);
        asking.restart(now);
        assert!(asking.timeout(Need::Natives).unwrap() <= now + DELAY.1);
    }

    #[test]
    fn native_announces_itself_twice_a_second_apart() {
        let mut answering = Answering::new(7);
        assert_eq!(answering.timeout(), None);
        answering.changed(at(0));
        let first = answering.timeout().unwrap();
        assert!(!answering.poll(at(first.as_millis() - 1)));
        assert!(answering.poll(first));
        assert_eq!(answering.timeout(), Some(first + ANSWER_PAUSE));
        assert!(answering.poll(first + ANSWER_PAUSE));
        assert_eq!(answering.timeout(), None);
    }

    #[test]
    fn many_questions_have_one_answer_a_second() {
        let mut answering = Answering::new(7);
        let mut answers = std::vec::Vec::new();
        for now in 0..10_000 {
            answering.asked(at(now));
            if answering.poll(at(now)) {
                answers.push(now);
            }
        }
        assert!((9..=10).contains(&answers.len()), "{answers:?}");
        assert!(
            answers.windows(2).all(|two| two[1] - two[0] >= 1_000),
            "{answers:?}"
        );
    }

    const ORIGIN: Origin = Origin {
        via: Via::Domain,
        trust: Trust::Key,
    };

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    #[test]
    fn named_natives_are_pinged_half_a_second_apart_and_known_only_if_they_answer() {
        let mut candidates = FoundNatives::default();
        for n in 0..20 {
            candidates.heard(peer(n), &Addrs::new(), ORIGIN);
        }
        assert_eq!(candidates.stats().refused, 12);
        let mut cleared = candidates.clone();
        cleared.clear();
        let after = cleared.stats();
        assert_eq!(
            (after.used, after.refused),
            (0, 12),
            "a counter never goes back"
        );
        let mut now = at(1_000);
        for n in 0..8 {
            assert_eq!(candidates.poll(now).unwrap().0, peer(n));
            assert_eq!(candidates.poll(now + Duration::from_millis(499)), None);
            let verdict = match n {
                7 => Verdict::Reachable,
                _ => Verdict::Silent,
            };
            let used = candidates.probed(&peer(n), verdict);
            assert_eq!(used, (n == 7).then_some((Addrs::new(), ORIGIN)));
            now = now + Duration::from_millis(500);
        }
        assert_eq!(candidates.timeout(), None);
        assert_eq!(candidates.stats().used, 0);
        candidates.heard(peer(30), &Addrs::new(), ORIGIN);
        assert_eq!(
            candidates.probed(&peer(30), Verdict::Reachable),
            None,
            "it was not pinged here"
        );
    }

    #[test]
    fn only_a_reason_makes_a_found_native_trusted() {
        let nothing = Grounds::default();
        assert_eq!(trust(nothing), None);
        let remembered = Grounds {
            is_remembered: true,
            ..nothing
        };
        assert_eq!(trust(remembered), Some(Trust::Remembered));
        let keyed = Grounds {
            has_key: true,
            ..nothing
        };
        assert_eq!(trust(keyed), Some(Trust::Key));
        let trusting = Grounds {
            trusts_link: true,
            ..nothing
        };
        assert_eq!(trust(trusting), Some(Trust::Link));
    }
}
