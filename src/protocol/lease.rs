//! A lease held elsewhere: the client's side of `/oc/heartbeat/1.0.0`.
//!
//! ```text
//!            beat 0            ack accepted           time to beat
//!  Resting ─────────▶ Opening ─────────────▶ Idle ◀────────────────▶ Waiting
//!     ▲                  │                     ▲      ack accepted     │  │
//!     │                  │                     │                       │  │ ack late: beat 0 over
//!     │                  │                     └────── Replacing ◀─────┼──┘ a new connection
//!     │                  │                                 │           │
//!     └──────────────────┴─────────────────────────────────┴───────────┘
//!        stream ended, new one late too, full or refused (then the stream is dropped):
//!        backoff with full jitter
//! ```
//!
//! A connection can become silent: it delivers nothing and does not end, for example after a pulled
//! cable, a changed address or a dead route. TCP reports this only after minutes. It retransmits at
//! ever longer intervals, so the connection may stay silent after the link works again. Therefore:
//!
//! - As soon as an ack is late, a *fresh* beat ([`OutBeat::fresh`]) is sent at once over a new
//!   connection beside the silent one. The connection that answers first is kept. From then on
//!   every new stream is fresh until an ack has come.
//! - A new stream has a third of the lease for its first ack, and a pause is at most a sixth of the
//!   lease.
//! - When the network has changed ([`Lease::network_changed`]), a lease that rests or waits retries
//!   at once.
//!
//! A server that *refuses* has a reason that lasts: for instance, another device has our identity.
//! It is not tried again for [`REFUSED_PAUSE`], whatever else happens.
//!
//! This rule is tested at its bound: a connection becomes silent, and from time t on new
//! connections to the server are possible. Then a beat over a new connection is answered within
//! [`Terms::longest_outage`] of t, or of the time at which the first ack is late, if that is later.
//!
//! Invariants: at most one beat is in flight, and while a silent connection is replaced also the
//! beat before it; only an ack extends a lease; the lease runs from when its beat was *sent*, and
//! never longer than was granted, so it ends at the client no later than at the server.
//!
//! [`OutBeat::fresh`]: super::OutBeat::fresh

mod expelled;
mod pace;

use core::time::Duration;

use super::{
    Ack, AckCode, Addrs, Instant, PeerId, Rng, Role,
    address::TransportAddr,
    rivals::WINDOW,
    time::{MAX_LEASE, backoff},
};
pub(crate) use pace::OPEN_TIMEOUT;
pub use pace::Terms;
use pace::{ack_timeout, beat_after, longest_pause, open_timeout};

/// How long a server that refused us is not tried again. A server refuses one of two devices with
/// one identity for the same time (PROTOCOL.md).
pub(crate) const REFUSED_PAUSE: Duration = WINDOW;
/// A beat that was sent less than this before the network changed is not sent again, because one
/// event causes several changes in a row.
const NETWORK_SETTLES: Duration = Duration::from_millis(250);

/// What the lease needs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send a beat, on a new stream if none is open.
    Beat {
        /// On a new stream over a new connection, beside the one that may be silent.
        fresh: bool,
    },
    /// Drop the stream, because the ack is overdue or ended the lease. The lease pauses and will be
    /// tried again.
    Drop,
}

/// One lease with one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    server: PeerId,
    role: Role,
    addrs: Addrs,
    /// Where the connection leads to that brought the last ack.
    carried: Option<TransportAddr>,
    phase: Phase,
    /// The lease that is requested.
    asked: Duration,
    granted: Duration,
    expiry: Option<Instant>,
    failures: u8,
    /// The last ack was `refused`: the server is not tried again before this time.
    refused: Option<Instant>,
    acks: u32,
    released: bool,
    record_sent: u64,
    hurried: bool,
    /// The present connection may be silent, so the next stream is opened over a new one.
    fresh: bool,
    /// The longest wait for the first ack of a new stream, until there has been one.
    patience: Duration,
}

/// What ends the stream of a lease that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// A last beat, because the server may have granted the lease.
    LastBeat,
    /// No beat, because the server has no lease of ours.
    Drop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Resting {
        until: Instant,
    },
    /// The same, but the stream must still be dropped, because the server ended the lease or the
    /// network has changed.
    Dropping {
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
    /// A beat that was sent at `first` must be sent again over a new connection.
    Late {
        first: Instant,
    },
    /// It was sent again, at `sent`. The silent connection may still answer.
    Replacing {
        first: Instant,
        sent: Instant,
    },
}

impl Lease {
    /// A lease that is sought at once with the server, which is an indexer or a native. `asked` is
    /// the requested length.
    pub(crate) fn new(
        now: Instant,
        server: PeerId,
        role: Role,
        addrs: Addrs,
        asked: Duration,
    ) -> Self {
        Self {
            server,
            role,
            addrs,
            carried: None,
            phase: Phase::Resting { until: now },
            asked,
            granted: Duration::ZERO,
            expiry: None,
            failures: 0,
            refused: None,
            acks: 0,
            released: false,
            record_sent: 0,
            hurried: false,
            fresh: false,
            patience: OPEN_TIMEOUT,
        }
    }

    /// The same, with at most `patience` for the very first ack, dialling included.
    pub(crate) fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The server of the lease.
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

    /// Where the connection leads to that carried the last ack, as dialled; `None` if there was
    /// none or it is unknown.
    pub fn carried(&self) -> Option<TransportAddr> {
        self.carried
    }

    /// Takes note that the next ack comes over a connection to this address.
    pub(crate) fn carry(&mut self, by: TransportAddr) {
        self.carried = Some(by);
    }

    /// When the lease expires; `None` while it is not held.
    pub fn expiry(&self, now: Instant) -> Option<Instant> {
        self.expiry.filter(|&expiry| now <= expiry)
    }

    /// Whether the lease is held, and its stream is open as far as is known.
    pub fn is_secure(&self, now: Instant) -> bool {
        self.expiry(now).is_some()
            && matches!(self.phase, Phase::Idle { .. } | Phase::Waiting { .. })
    }

    /// Whether the server released us.
    pub fn is_released(&self) -> bool {
        self.released
    }

    /// When the beat was sent that waits for its answer; of two, the earlier one.
    pub(crate) fn asked_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Opening { sent } | Phase::Waiting { sent } => Some(sent),
            // Either beat may be the answered one. The earlier one gives the shorter lease.
            Phase::Late { first } | Phase::Replacing { first, .. } => Some(first),
            Phase::Idle { .. } | Phase::Resting { .. } | Phase::Dropping { .. } => None,
        }
    }

    /// Failed attempts in a row.
    pub(crate) fn failures(&self) -> u8 {
        self.failures
    }

    /// Until when the server is not tried again because it refused us, if it did.
    pub(crate) fn refused(&self) -> Option<Instant> {
        self.refused
    }

    /// Whether the lease was renewed on the open stream. A server that grants a lease and never
    /// renews it is no better than one that grants none.
    pub(crate) fn is_proven(&self) -> bool {
        self.acks > 1
    }

    /// Whether nothing was granted yet.
    pub(crate) fn is_attempt(&self) -> bool {
        self.expiry.is_none()
    }

    /// Whether the next step is to open a stream.
    pub(crate) fn opens_next(&self) -> bool {
        matches!(
            self.phase,
            Phase::Resting { .. } | Phase::Waiting { .. } | Phase::Late { .. }
        )
    }

    /// Whether the last attempt failed and the next has not begun.
    pub(crate) fn is_resting(&self) -> bool {
        matches!(self.phase, Phase::Resting { .. } | Phase::Dropping { .. })
    }

    /// What ends its stream if it is given up; `None`: no stream is open or being opened.
    pub(crate) fn farewell(&self) -> Option<Farewell> {
        match self.phase {
            Phase::Resting { .. } => None,
            Phase::Dropping { .. } => Some(Farewell::Drop),
            Phase::Opening { .. }
            | Phase::Idle { .. }
            | Phase::Waiting { .. }
            | Phase::Late { .. }
            | Phase::Replacing { .. } => Some(Farewell::LastBeat),
        }
    }

    /// The next step at `now`, if there is one.
    pub(crate) fn poll(&mut self, now: Instant, rng: &mut Rng) -> Option<Step> {
        if now < self.timeout() {
            return None;
        }
        match self.phase {
            Phase::Resting { .. } => Some(self.begin_stream(Phase::Opening { sent: now })),
            Phase::Dropping { until } => {
                self.phase = Phase::Resting { until };
                Some(Step::Drop)
            }
            Phase::Idle { .. } => {
                self.phase = Phase::Waiting { sent: now };
                Some(Step::Beat { fresh: false })
            }
            Phase::Waiting { sent: first } | Phase::Late { first } => {
                self.fresh = true;
                self.failures = self.failures.max(1);
                Some(self.begin_stream(Phase::Replacing { first, sent: now }))
            }
            Phase::Opening { .. } | Phase::Replacing { .. } => {
                self.fresh = true;
                self.closed(now, rng);
                Some(Step::Drop)
            }
        }
    }

    /// When [`Lease::poll`] has a step.
    pub(crate) fn timeout(&self) -> Instant {
        match self.phase {
            Phase::Resting { until } => until,
            Phase::Dropping { .. } | Phase::Late { .. } => Instant::from_millis(0),
            Phase::Opening { sent } | Phase::Replacing { sent, .. } => {
                sent + open_timeout(self.length()).min(self.patience)
            }
            Phase::Idle { next } => next,
            Phase::Waiting { sent } => sent + ack_timeout(self.granted),
        }
    }

    /// Processes the answer to the beat in flight. `full` and `refused` end the lease; with
    /// `released` the rest of it runs on.
    pub(crate) fn acked(&mut self, now: Instant, ack: &Ack<'_>, terms: &Terms, rng: &mut Rng) {
        let Some(sent) = self.asked_at() else { return };
        self.fresh = false;
        self.refused = None;
        match ack.code {
            // A lease of 0 ms is not a lease.
            AckCode::Accepted if !ack.lease.is_zero() => {
                self.granted = ack.lease.min(MAX_LEASE);
                self.expiry = Some(sent + self.granted);
                self.released = false;
                self.patience = OPEN_TIMEOUT;
                self.acks = self.acks.saturating_add(1);
                // Only a lease that was renewed counts as a success. So a server that repeatedly
                // accepts and closes the stream is retried with backoff.
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
            // Without a lease, `released` means the same as `full`.
            AckCode::Accepted | AckCode::Released | AckCode::Full | AckCode::Refused => {
                self.expiry = None;
                let pause = self.pause(now, rng);
                if ack.code == AckCode::Refused {
                    self.refused = Some(now + REFUSED_PAUSE);
                }
                let until = self.not_before(pause);
                self.phase = Phase::Dropping { until };
            }
        }
    }

    /// Processes an unsolicited ack. Only `released` may be unsolicited (PROTOCOL.md). A beat in
    /// flight still waits for its answer.
    pub(crate) fn notified(&mut self, ack: &Ack<'_>) {
        let is_open = match self.phase {
            Phase::Idle { .. } | Phase::Waiting { .. } => true,
            Phase::Late { .. } | Phase::Replacing { .. } => self.expiry.is_some(),
            Phase::Resting { .. } | Phase::Dropping { .. } | Phase::Opening { .. } => false,
        };
        self.released |= is_open && ack.code == AckCode::Released;
    }

    /// The stream has ended or could not be opened. After the first such failure, a lease that was
    /// granted retries at once, even if it ran out meanwhile: its host may have slept.
    pub(crate) fn closed(&mut self, now: Instant, rng: &mut Rng) {
        let until = match self.phase {
            // This failure is counted already.
            Phase::Resting { until } | Phase::Dropping { until } => until,
            _ if self.failures == 0 && !self.is_attempt() => {
                self.failures = 1;
                now
            }
            _ => self.pause(now, rng),
        };
        self.phase = Phase::Resting { until };
    }

    /// Whether the beat that is being sent must carry the own record of this generation. Marks it
    /// as sent.
    pub(crate) fn wants_record(&mut self, generation: u64) -> bool {
        let wants = self.record_sent != generation;
        self.record_sent = generation;
        wants
    }

    /// Makes the next beat due at once, or as soon as the one in flight is answered; for example
    /// because the own record has changed.
    pub(crate) fn hurry(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Idle { next } => *next = (*next).min(now),
            Phase::Opening { .. }
            | Phase::Waiting { .. }
            | Phase::Late { .. }
            | Phase::Replacing { .. } => self.hurried = true,
            Phase::Resting { .. } | Phase::Dropping { .. } => {}
        }
    }

    /// A link, a route or an address of this host was added. A lease that pauses after a failure
    /// retries at once, and an unanswered beat is sent again over a new connection. Returns whether
    /// one of them applies.
    pub(crate) fn network_changed(&mut self, now: Instant) -> bool {
        match self.phase {
            Phase::Resting { .. } => {
                self.fresh = true;
                let until = self.not_before(now);
                self.phase = Phase::Resting { until };
                return until == now;
            }
            Phase::Waiting { sent } if now - sent >= NETWORK_SETTLES => {
                self.phase = Phase::Late { first: sent };
            }
            Phase::Opening { sent } | Phase::Replacing { sent, .. }
                if now - sent >= NETWORK_SETTLES =>
            {
                self.fresh = true;
                self.phase = Phase::Dropping { until: now };
            }
            _ => return false,
        }
        true
    }

    /// Whether the ack is late, so that the server or the path to it may be gone.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self.phase, Phase::Late { .. } | Phase::Replacing { .. })
    }

    /// Takes the present addresses of the server. If it did not answer at the old ones, it is tried
    /// at these at once.
    pub(crate) fn learn_addrs(&mut self, now: Instant, addrs: &Addrs) {
        if self.addrs == *addrs {
            return;
        }
        self.addrs.clone_from(addrs);
        match self.phase {
            Phase::Resting { .. } => {
                let until = self.not_before(now);
                self.phase = Phase::Resting { until };
            }
            Phase::Replacing { first, .. } => self.phase = Phase::Late { first },
            Phase::Opening { .. } => {
                self.fresh = true;
                self.phase = Phase::Dropping { until: now };
            }
            Phase::Dropping { .. }
            | Phase::Idle { .. }
            | Phase::Waiting { .. }
            | Phase::Late { .. } => {}
        }
    }

    fn begin_stream(&mut self, phase: Phase) -> Step {
        self.acks = 0;
        self.record_sent = 0;
        self.hurried = false;
        self.phase = phase;
        Step::Beat { fresh: self.fresh }
    }

    /// The length of the lease, granted or requested.
    fn length(&self) -> Duration {
        match self.granted.is_zero() {
            true => self.asked,
            false => self.asked.min(self.granted),
        }
    }

    /// Schedules the next beat after the pause, or at once if it was hurried while another was in
    /// flight.
    fn idle(&mut self, now: Instant, pause: Duration) {
        let next = if core::mem::take(&mut self.hurried) {
            now
        } else {
            now + pause
        };
        self.phase = Phase::Idle { next };
    }

    /// The time `then`, or later if a server that refused us may not be tried before.
    fn not_before(&self, then: Instant) -> Instant {
        self.refused.map_or(then, |refused| then.max(refused))
    }

    /// Counts a failure. Returns when to retry.
    fn pause(&mut self, now: Instant, rng: &mut Rng) -> Instant {
        let longest = longest_pause(self.length());
        let pause = backoff(rng, self.failures, longest);
        self.failures = self.failures.saturating_add(1);
        now + pause
    }
}

#[cfg(test)]
mod tests;
