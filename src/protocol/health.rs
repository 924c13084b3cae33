//! Decides when the checks of the own services run, and which services are left out of the own
//! record because their check fails.
//!
//! ```text
//!              CHECK_FAILURES failures in a row
//!   offered ─────────────────────────────────────▶ failing: not in the record
//!      ▲                                               │
//!      └──────────────── one success ──────────────────┘
//! ```
//!
//! Invariants: a service is offered until its check has failed [`CHECK_FAILURES`] times in a row,
//! so a start does not withdraw it for a moment; a check runs at most once at a time, and again an
//! interval (and up to a tenth more) after it began, but not before it has ended; a service without
//! a check is always offered.

use core::time::Duration;

use heapless::Vec;

use super::{
    codec::service::MAX_SERVICES,
    time::{Instant, Rng},
};

/// Failures in a row after which a service is left out of the record.
pub const CHECK_FAILURES: u8 = 3;
/// A run of a check that takes longer than this has failed.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Which of the own services it is of, counted from 0.
    pub service: u8,
    /// Failures since the last success; it counts up to 255.
    pub failures: u8,
    /// Since when the service is offered, or failing; `None` before the first run has ended.
    pub since: Option<Instant>,
    next: Instant,
    is_running: bool,
}

impl Checked {
    /// Whether the service is left out of the record.
    pub fn is_failing(&self) -> bool {
        self.failures >= CHECK_FAILURES
    }
}

/// What the end of a run has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The service is left out of the record from now on.
    Withdrawn,
    /// The service is in the record again.
    Restored,
}

/// The checks of the own services.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    checks: Vec<Checked, MAX_SERVICES>,
    interval: Duration,
    rng: Rng,
}

impl Health {
    /// Checks of these services, each counted from 0, at most [`MAX_SERVICES`]. All of them run at
    /// `now` for the first time.
    pub fn new(
        now: Instant,
        seed: u64,
        interval: Duration,
        services: impl Iterator<Item = u8>,
    ) -> Self {
        let begin = |service| Checked {
            service,
            failures: 0,
            since: None,
            next: now,
            is_running: false,
        };
        Self {
            checks: services.take(MAX_SERVICES).map(begin).collect(),
            interval,
            rng: Rng::new(seed),
        }
    }

    /// A service whose check must run now. Its end is told by [`Health::ended`].
    pub fn poll(&mut self, now: Instant) -> Option<u8> {
        let mut due = self.checks.iter_mut();
        let check = due.find(|check| !check.is_running && check.next <= now)?;
        check.is_running = true;
        check.next = now + self.interval + self.rng.up_to(self.interval / 10);
        Some(check.service)
    }

    /// When [`Health::poll`] has a check without an event.
    pub fn timeout(&self) -> Option<Instant> {
        let idle = self.checks.iter().filter(|check| !check.is_running);
        idle.map(|check| check.next).min()
    }

    /// Takes note that a run has ended. A run that was not begun is ignored.
    pub fn ended(&mut self, now: Instant, service: u8, has_passed: bool) -> Option<Change> {
        let mut running = self.checks.iter_mut().filter(|check| check.is_running);
        let check = running.find(|check| check.service == service)?;
        check.is_running = false;
        let was_failing = check.is_failing();
        check.failures = match has_passed {
            true => 0,
            false => check.failures.saturating_add(1),
        };
        let change = match (was_failing, check.is_failing()) {
            (false, true) => Some(Change::Withdrawn),
            (true, false) => Some(Change::Restored),
            _ => None,
        };
        if change.is_some() || check.since.is_none() {
            check.since = Some(now);
        }
        change
    }

    /// The services that are offered, one bit each: bit 0 is the first one.
    pub fn offered(&self) -> u8 {
        let failing = self.checks.iter().filter(|check| check.is_failing());
        failing.fold(u8::MAX, |offered, check| offered & !(1 << check.service))
    }

    /// The check of a service.
    pub fn of(&self, service: u8) -> Option<&Checked> {
        self.checks.iter().find(|check| check.service == service)
    }
}

const _: () = assert!(MAX_SERVICES <= u8::BITS as usize);

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn health(services: &[u8]) -> Health {
        Health::new(at(0), 1, INTERVAL, services.iter().copied())
    }

    /// Runs the check of service 0 at its next time. Returns the change, and when that was.
    fn run(health: &mut Health, has_passed: bool) -> (Option<Change>, Instant) {
        let now = health.timeout().unwrap();
        assert_eq!(health.poll(now), Some(0));
        (health.ended(now, 0, has_passed), now)
    }

    #[test]
    fn third_failure_in_a_row_withdraws_a_service_and_one_success_restores_it() {
        let mut health = health(&[0]);
        for has_passed in [true, false, false, true, false, false] {
            assert_eq!(run(&mut health, has_passed).0, None);
            assert_eq!(health.offered(), u8::MAX);
        }
        let (change, failed) = run(&mut health, false);
        assert_eq!(change, Some(Change::Withdrawn));
        assert_eq!(health.offered(), u8::MAX - 1);
        assert_eq!(run(&mut health, false).0, None, "it is withdrawn once");
        assert_eq!(health.of(0).unwrap().since, Some(failed));
        let (change, passed) = run(&mut health, true);
        assert_eq!(change, Some(Change::Restored));
        assert_eq!(health.offered(), u8::MAX);
        assert_eq!(health.of(0).unwrap().since, Some(passed));
    }

    #[test]
    fn check_runs_at_the_start_and_an_interval_and_up_to_a_tenth_later() {
        let mut health = health(&[0]);
        let (_, begun) = run(&mut health, true);
        assert_eq!(begun, at(0));
        let next = health.timeout().unwrap();
        assert!(next >= at(10_000) && next <= at(11_000), "{next:?}");
        assert_eq!(health.poll(at(next.as_millis() - 1)), None);
        assert_eq!(health.poll(next), Some(0));
    }

    #[test]
    fn check_that_runs_is_not_begun_again_and_is_overdue_when_it_ends() {
        let mut health = health(&[0]);
        assert_eq!(health.poll(at(0)), Some(0));
        assert_eq!(health.timeout(), None);
        assert_eq!(health.poll(at(60_000)), None);
        health.ended(at(60_000), 0, true);
        assert_eq!(health.poll(at(60_000)), Some(0));
    }

    #[test]
    fn end_of_a_run_that_was_not_begun_changes_nothing() {
        let mut health = health(&[0]);
        for _ in 0..u32::from(CHECK_FAILURES) {
            assert_eq!(health.ended(at(1), 0, false), None);
            assert_eq!(health.ended(at(1), 7, false), None);
        }
        assert_eq!(health.of(0).unwrap().failures, 0);
    }

    #[test]
    fn each_service_has_a_bit_and_one_without_a_check_is_always_offered() {
        let mut health = health(&[1, 7]);
        for minute in 1..=u64::from(CHECK_FAILURES) {
            let now = at(minute * 60_000);
            while let Some(service) = health.poll(now) {
                health.ended(now, service, service == 1);
            }
        }
        assert_eq!(health.offered(), 0b0111_1111);
        assert_eq!(health.of(0), None);
    }
}
