//! A lease held elsewhere: the client's side of `/oc/heartbeat/1.0.0`.
//!
//! ```text
//!            beat 0            ack accepted           time to beat
//!  Resting ─────────▶ Opening ─────────────▶ Idle ◀────────────────▶ Waiting
//!     ▲                  │                     │      ack accepted       │
//!     └──────────────────┴─────────────────────┴─────────────────────────┘
//!        stream ended, ack late, full or refused (then the stream is dropped): backoff with full jitter
//! ```
//!
//! Invariants: at most one beat is in flight; a lease held is never extended by anything but an ack, and it is counted
//! from when its beat was *sent*, so the client never believes in a lease longer than its server does.

use core::time::Duration;

use super::{
    Ack, AckCode, Addrs, Instant, PeerId, Rng, Role,
    time::{MAX_LEASE, MIN_LEASE, backoff},
};

/// How long dialling, handshake and the first ack may take together.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// First step of the backoff.
const BACKOFF_BASE: Duration = Duration::from_millis(500);
/// Longest step of the backoff.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// No ack within this time, or a sixth of the lease: the stream is dropped (PROTOCOL.md).
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Lease asked for, 1 s to 20 min.
    pub lease: Duration,
    /// Time between beats at most.
    pub beat_interval: Duration,
}

/// What the lease wants done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send a beat; on a new stream if none is open.
    Beat,
    /// The ack is overdue, or it ended the lease: drop the stream. The lease rests and will try again.
    Drop,
}

/// One lease with one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    server: PeerId,
    role: Role,
    addrs: Addrs,
    phase: Phase,
    granted: Duration,
    expiry: Option<Instant>,
    failures: u8,
    acks: u32,
    released: bool,
    record_sent: u64,
    hurried: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Resting {
        until: Instant,
    },
    /// The server ended the lease; the stream is still to be dropped.
    Denied {
        until: Instant,
    },
    Opening {
        sent: Instant,
    },
    Idle {
        next: Instant,
    },
    Waiting {
        sent: Instant,
    },
}

impl Lease {
    /// A lease to be taken at once with the server, which is an indexer or a native.
    pub fn new(now: Instant, server: PeerId, role: Role, addrs: Addrs) -> Self {
        Self {
            server,
            role,
            addrs,
            phase: Phase::Resting { until: now },
            granted: Duration::ZERO,
            expiry: None,
            failures: 0,
            acks: 0,
            released: false,
            record_sent: 0,
            hurried: false,
        }
    }

    /// Whom the lease is with.
    pub fn server(&self) -> &PeerId {
        &self.server
    }

    /// What the server is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where the server listens.
    pub fn addrs(&self) -> &Addrs {
        &self.addrs
    }

    /// When the lease runs out; `None` while it is not held.
    pub fn expiry(&self, now: Instant) -> Option<Instant> {
        self.expiry.filter(|&expiry| now <= expiry)
    }

    /// Whether the lease is held, over a stream that is open as far as we know.
    pub fn is_secure(&self, now: Instant) -> bool {
        self.expiry(now).is_some()
            && matches!(self.phase, Phase::Idle { .. } | Phase::Waiting { .. })
    }

    /// Whether the server said to go elsewhere.
    pub fn is_released(&self) -> bool {
        self.released
    }

    /// Attempts in a row that came to nothing.
    pub fn failures(&self) -> u8 {
        self.failures
    }

    /// Whether the last attempt came to nothing and the next has not begun.
    pub fn is_resting(&self) -> bool {
        matches!(self.phase, Phase::Resting { .. } | Phase::Denied { .. })
    }

    /// Whether a stream is open or being opened; if so, whether the server may think that it grants a lease on it.
    pub fn stream(&self) -> Option<bool> {
        match self.phase {
            Phase::Resting { .. } => None,
            Phase::Denied { .. } => Some(false),
            Phase::Opening { .. } | Phase::Idle { .. } | Phase::Waiting { .. } => Some(true),
        }
    }

    /// What is to be done at `now`, if anything.
    pub fn poll(&mut self, now: Instant, rng: &mut Rng) -> Option<Step> {
        if now < self.timeout() {
            return None;
        }
        match self.phase {
            Phase::Resting { .. } => {
                self.acks = 0;
                self.record_sent = 0;
                self.hurried = false;
                self.phase = Phase::Opening { sent: now };
                Some(Step::Beat)
            }
            Phase::Denied { until } => {
                self.phase = Phase::Resting { until };
                Some(Step::Drop)
            }
            Phase::Idle { .. } => {
                self.phase = Phase::Waiting { sent: now };
                Some(Step::Beat)
            }
            Phase::Opening { .. } | Phase::Waiting { .. } => {
                self.closed(now, rng);
                Some(Step::Drop)
            }
        }
    }

    /// When [`Lease::poll`] has something to do.
    pub fn timeout(&self) -> Instant {
        match self.phase {
            Phase::Resting { until } => until,
            Phase::Denied { .. } => Instant::from_millis(0),
            Phase::Opening { sent } => sent + OPEN_TIMEOUT,
            Phase::Idle { next } => next,
            Phase::Waiting { sent } => sent + ACK_TIMEOUT.min(self.granted / 6),
        }
    }

    /// Takes in the answer to the beat in flight. `full` and `refused` end the lease; `released` lets it run on.
    pub fn acked(&mut self, now: Instant, ack: &Ack, terms: &Terms, rng: &mut Rng) {
        let sent = match self.phase {
            Phase::Opening { sent } | Phase::Waiting { sent } => sent,
            Phase::Idle { .. } | Phase::Resting { .. } | Phase::Denied { .. } => return,
        };
        match ack.code {
            AckCode::Accepted => {
                self.granted = ack.lease.clamp(MIN_LEASE, MAX_LEASE);
                self.expiry = Some(sent + self.granted);
                self.released = false;
                self.acks = self.acks.saturating_add(1);
                // Only a lease that was renewed once counts as a success: a server that accepts and hangs up, over
                // and over, is met with backoff.
                if self.acks > 1 {
                    self.failures = 0;
                }
                let pause = beat_after(self.granted, terms.beat_interval, rng);
                self.idle(now, pause);
            }
            AckCode::Released if self.expiry(now).is_some() => {
                self.released = true;
                let pause = beat_after(self.granted.max(terms.lease), terms.beat_interval, rng);
                self.idle(now, pause);
            }
            // `released` where nothing was held is as good as `full`.
            AckCode::Released | AckCode::Full | AckCode::Refused => {
                self.expiry = None;
                let until = self.pause(now, rng);
                self.phase = Phase::Denied { until };
            }
        }
    }

    /// Takes in what the server said unasked: only `released` is (PROTOCOL.md). A beat in flight still waits for its answer.
    pub fn told(&mut self, ack: &Ack) {
        let is_open = matches!(self.phase, Phase::Idle { .. } | Phase::Waiting { .. });
        self.released |= is_open && ack.code == AckCode::Released;
    }

    /// The stream ended or could not be opened. The first time, the next try is at once.
    pub fn closed(&mut self, now: Instant, rng: &mut Rng) {
        let until = match self.phase {
            // Its failure is counted already.
            Phase::Resting { until } | Phase::Denied { until } => until,
            _ if self.failures == 0 && self.expiry(now).is_some() => {
                self.failures = 1;
                now
            }
            _ => self.pause(now, rng),
        };
        self.phase = Phase::Resting { until };
    }

    /// Whether the beat being sent now is to carry the own record of this generation; marks it as sent.
    pub fn wants_record(&mut self, generation: u64) -> bool {
        let wants = self.record_sent != generation;
        self.record_sent = generation;
        wants
    }

    /// The next beat is to go out at once, or as soon as the one in flight is answered: the own record changed, say.
    pub fn hurry(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Idle { next } => *next = (*next).min(now),
            Phase::Opening { .. } | Phase::Waiting { .. } => self.hurried = true,
            Phase::Resting { .. } | Phase::Denied { .. } => {}
        }
    }

    /// Better addresses of the server became known.
    pub fn learn_addrs(&mut self, addrs: &Addrs) {
        self.addrs.clone_from(addrs);
    }

    /// The next beat comes after the pause, or at once if it was hurried while another was in flight.
    fn idle(&mut self, now: Instant, pause: Duration) {
        let next = if core::mem::take(&mut self.hurried) {
            now
        } else {
            now + pause
        };
        self.phase = Phase::Idle { next };
    }

    /// Counts a failure; returns when to try again.
    fn pause(&mut self, now: Instant, rng: &mut Rng) -> Instant {
        let pause = backoff(rng, BACKOFF_BASE, self.failures, BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        now + pause
    }
}

/// Time to the next beat: min(beat interval, granted / 3), times 0.8 to 0.95. With it one lost beat survives the
/// second condition of the GC (PROTOCOL.md).
fn beat_after(granted: Duration, beat_interval: Duration, rng: &mut Rng) -> Duration {
    let longest = beat_interval.min(granted / 3);
    longest * 4 / 5 + rng.up_to(longest * 3 / 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const TERMS: Terms = Terms {
        lease: Duration::from_secs(90),
        beat_interval: Duration::from_secs(30),
    };

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn opening() -> (Lease, Rng) {
        let mut rng = Rng::new(11);
        let mut lease = Lease::new(
            at(0),
            PeerId::from_bytes([1; 32]),
            Role::Indexer,
            Addrs::new(),
        );
        assert_eq!(lease.poll(at(0), &mut rng), Some(Step::Beat));
        (lease, rng)
    }

    fn held() -> (Lease, Rng) {
        let (mut lease, mut rng) = opening();
        lease.acked(at(100), &Ack::accepted(90 * S), &TERMS, &mut rng);
        (lease, rng)
    }

    #[test]
    fn a_lease_is_counted_from_when_its_beat_was_sent() {
        let (lease, _) = held();
        assert_eq!(lease.expiry(at(90_000)), Some(at(90_000)));
        assert_eq!(lease.expiry(at(90_001)), None);
    }

    #[test]
    fn beats_come_at_80_to_95_percent_of_a_third_of_the_lease() {
        let mut rng = Rng::new(5);
        for _ in 0..1000 {
            let pause = beat_after(90 * S, 30 * S, &mut rng);
            assert!(pause >= 24 * S && pause <= ms(28_500), "{pause:?}");
            assert!(beat_after(6 * S, 30 * S, &mut rng) <= ms(1_900));
        }
    }

    #[test]
    fn a_lost_beat_survives_the_second_condition_of_the_gc() {
        // The longest gap with one beat lost is twice the longest pause; the GC looks at two thirds of the lease.
        assert!(2 * ms(28_500) < 60 * S);
    }

    #[test]
    fn a_late_ack_drops_the_stream_after_10_s_or_a_sixth_of_the_lease() {
        let (mut lease, mut rng) = held();
        let beat = lease.timeout();
        assert_eq!(lease.poll(beat, &mut rng), Some(Step::Beat));
        assert_eq!(lease.poll(beat + ms(9_999), &mut rng), None);
        assert_eq!(lease.poll(beat + ms(10_000), &mut rng), Some(Step::Drop));

        let (mut short, mut rng) = opening();
        short.acked(at(0), &Ack::accepted(6 * S), &TERMS, &mut rng);
        let beat = short.timeout();
        short.poll(beat, &mut rng);
        assert_eq!(short.timeout(), beat + S);
    }

    #[test]
    fn a_lost_stream_is_reopened_at_once_and_then_with_backoff() {
        let (mut lease, mut rng) = held();
        lease.closed(at(1_000), &mut rng);
        assert_eq!(lease.timeout(), at(1_000));
        assert!(!lease.is_secure(at(1_000)));
        assert_eq!(lease.poll(at(1_000), &mut rng), Some(Step::Beat));
        lease.closed(at(1_001), &mut rng);
        assert!(lease.timeout() <= at(2_001));
        assert_eq!(lease.failures(), 2);
    }

    #[test]
    fn a_server_that_accepts_and_hangs_up_is_met_with_backoff() {
        let (mut lease, mut rng) = held();
        for round in 1..=8u8 {
            lease.closed(lease.timeout(), &mut rng);
            assert_eq!(lease.failures(), round);
            let now = lease.timeout();
            lease.poll(now, &mut rng);
            lease.acked(now, &Ack::accepted(90 * S), &TERMS, &mut rng);
        }
    }

    #[test]
    fn a_release_lets_the_lease_run_on_and_renews_nothing() {
        let (mut lease, mut rng) = held();
        let expiry = lease.expiry(at(200));
        lease.told(&Ack::released(80 * S, Default::default()));
        assert!(lease.is_released() && lease.is_secure(at(200)));
        assert_eq!(lease.expiry(at(200)), expiry);
        let beat = lease.timeout();
        lease.poll(beat, &mut rng);
        lease.acked(
            beat,
            &Ack::released(50 * S, Default::default()),
            &TERMS,
            &mut rng,
        );
        assert_eq!(lease.expiry(beat), expiry);
    }

    #[test]
    fn a_release_that_crosses_a_beat_does_not_answer_it() {
        let (mut lease, mut rng) = held();
        let beat = lease.timeout();
        lease.poll(beat, &mut rng);
        let due = lease.timeout();
        lease.told(&Ack::released(60 * S, Default::default()));
        assert!(lease.is_released());
        assert_eq!(lease.timeout(), due, "the beat in flight still waits");
        lease.acked(beat + ms(100), &Ack::accepted(90 * S), &TERMS, &mut rng);
        assert!(!lease.is_released(), "taken in again");
        assert_eq!(lease.expiry(beat), Some(beat + 90 * S));
    }

    #[test]
    fn only_a_release_comes_unasked() {
        let (lease, _) = held();
        for ack in [Ack::accepted(1200 * S), Ack::full("no"), Ack::refused("no")] {
            let mut told = lease.clone();
            told.told(&ack);
            assert_eq!(told, lease);
        }
    }

    #[test]
    fn an_ack_that_nobody_waits_for_changes_nothing() {
        let (mut lease, mut rng) = held();
        let before = lease.clone();
        lease.acked(at(300), &Ack::accepted(1200 * S), &TERMS, &mut rng);
        lease.acked(at(300), &Ack::refused("no"), &TERMS, &mut rng);
        assert_eq!(lease, before);
    }

    #[test]
    fn a_lease_that_the_server_ended_drops_its_stream_once_and_counts_one_failure() {
        let (mut lease, mut rng) = opening();
        lease.acked(at(10), &Ack::full("no room"), &TERMS, &mut rng);
        assert_eq!((lease.stream(), lease.failures()), (Some(false), 1));
        assert_eq!(lease.poll(at(10), &mut rng), Some(Step::Drop));
        assert_eq!(lease.poll(at(10), &mut rng), None);
        lease.closed(at(11), &mut rng);
        assert_eq!((lease.stream(), lease.failures()), (None, 1));
    }

    #[test]
    fn full_and_refused_end_the_lease() {
        for ack in [Ack::full("no room"), Ack::refused("no")] {
            let (mut lease, mut rng) = held();
            let beat = lease.timeout();
            lease.poll(beat, &mut rng);
            lease.acked(beat, &ack, &TERMS, &mut rng);
            assert_eq!(lease.expiry(beat), None);
            assert!(lease.is_resting());
        }
    }

    #[test]
    fn the_record_goes_with_the_first_beat_and_again_when_it_changed() {
        let (mut lease, mut rng) = opening();
        assert!(lease.wants_record(1));
        assert!(!lease.wants_record(1));
        assert!(lease.wants_record(2));
        lease.closed(at(1), &mut rng);
        let now = lease.timeout();
        lease.poll(now, &mut rng);
        assert!(lease.wants_record(2), "a new stream begins anew");
    }

    #[test]
    fn a_hurried_beat_goes_at_once_or_as_soon_as_the_one_in_flight_is_answered() {
        let (mut lease, mut rng) = held();
        lease.hurry(at(200));
        assert_eq!(lease.poll(at(200), &mut rng), Some(Step::Beat));
        lease.hurry(at(250));
        assert_eq!(lease.poll(at(250), &mut rng), None, "one beat is in flight");
        lease.acked(at(300), &Ack::accepted(90 * S), &TERMS, &mut rng);
        assert_eq!(lease.poll(at(300), &mut rng), Some(Step::Beat));
        lease.acked(at(400), &Ack::accepted(90 * S), &TERMS, &mut rng);
        assert!(lease.timeout() >= at(24_400), "and only once");
    }

    #[test]
    fn a_lease_held_is_never_extended_by_waiting() {
        let (mut lease, mut rng) = held();
        lease.closed(at(89_000), &mut rng);
        assert_eq!(lease.expiry(at(90_001)), None);
    }
}
