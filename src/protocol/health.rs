//! Decides when the checks of the own services run, and which services are left out of the own
//! record because their check fails.
//!
//! ```text
//!                      CHECK_FAILURES failures in a row
//!  start ─▶ not offered ◀─────────────────────────────── offered: in the record
//!               │                                           ▲
//!               └─────────────── one success ───────────────┘
//! ```
//!
//! Invariants: a service with a check is offered from its first success until it has failed
//! `CHECK_FAILURES` times in a row; a check runs at most once at a time, and again an
//! interval (and up to a tenth more) after it began, but not before it is over, however long the
//! system takes to end it; a run that this host has no resources for is no failure of the service;
//! a service without a check is always offered.

use core::time::Duration;

use heapless::Vec;

use super::{
    codec::service::MAX_SERVICES,
    time::{Instant, Rng},
};

/// Failures in a row after which a service is left out of the record.
const CHECK_FAILURES: u8 = 3;
/// A run of a check that takes longer than this has failed.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The number of the service that it checks, counted from 0.
    pub service: u8,
    /// Failures since the last success, up to 255. At the start there was none, which counts as
    /// `CHECK_FAILURES`.
    pub failures: u8,
    /// Since when the service is offered, or failing; `None` before the first run has ended.
    pub since: Option<Instant>,
    was_offered: bool,
    next: Instant,
    is_running: bool,
}

impl Checked {
    /// Whether the service is left out of the record.
    pub fn is_failing(&self) -> bool {
        self.failures >= CHECK_FAILURES
    }
}

/// The result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The service works.
    Passed,
    /// The service does not work.
    Failed,
    /// The run failed, and the system has not ended it yet: [`Health::over`] says when it has.
    Stuck,
    /// The run could not begin, because this host has no descriptor or no memory for it.
    NotMade,
}

/// What the end of a run has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferChange {
    /// The service is left out of the record from now on, or was not in it yet and has failed.
    Withdrawn,
    /// The service is in the record from now on, for the first time.
    Offered,
    /// The same, after it had failed.
    OfferedAgain,
}

/// The checks of the own services.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    checks: Vec<Checked, MAX_SERVICES>,
    interval: Duration,
    rng: Rng,
}

impl Health {
    /// Checks of these services, given by their numbers, counted from 0; at most [`MAX_SERVICES`].
    /// They run for the first time one after another, within a tenth of the interval from `now`.
    pub fn new(
        now: Instant,
        seed: u64,
        interval: Duration,
        services: impl Iterator<Item = u8> + Clone,
    ) -> Self {
        let all = u32::try_from(services.clone().count()).unwrap_or(u32::MAX);
        let begin = |(at, service)| Checked {
            service,
            failures: CHECK_FAILURES,
            since: None,
            was_offered: false,
            next: now + interval / 10 * at / all.max(1),
            is_running: false,
        };
        Self {
            checks: (0..).zip(services).take(MAX_SERVICES).map(begin).collect(),
            interval,
            rng: Rng::new(seed),
        }
    }

    /// Checks other services at `now`. Each is given with its number, and with the number that it
    /// had so far if its check is the same one: that goes on, with its result.
    pub fn replace(
        &mut self,
        now: Instant,
        interval: Duration,
        services: impl Iterator<Item = (u8, Option<u8>)> + Clone,
    ) {
        let numbers = services.clone().map(|(service, _)| service);
        let mut fresh = Self::new(now, self.rng.bits(), interval, numbers);
        for (service, before) in services {
            let old = before.and_then(|before| self.of(before));
            let mut of_it = fresh.checks.iter_mut();
            if let (Some(old), Some(check)) = (old, of_it.find(|check| check.service == service)) {
                *check = Checked {
                    service,
                    next: old.next.min(now + interval),
                    ..old.clone()
                };
            }
        }
        *self = fresh;
    }

    /// The service to check now. [`Health::ended`] must be told of the end of the run.
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
    pub fn ended(&mut self, now: Instant, service: u8, ending: Ending) -> Option<OfferChange> {
        let mut running = self.checks.iter_mut().filter(|check| check.is_running);
        let check = running.find(|check| check.service == service)?;
        check.is_running = ending == Ending::Stuck;
        let was_failing = check.is_failing();
        check.failures = match ending {
            Ending::Passed => 0,
            Ending::Failed => check.failures.saturating_add(1),
            // It does not run again before it is over, so this one counts for all.
            Ending::Stuck => check.failures.max(CHECK_FAILURES),
            Ending::NotMade => return None,
        };
        let is_first = check.since.is_none();
        let change = match (was_failing, check.is_failing()) {
            (false, true) => Some(OfferChange::Withdrawn),
            (true, false) if check.was_offered => Some(OfferChange::OfferedAgain),
            (true, false) => Some(OfferChange::Offered),
            (true, true) if is_first => Some(OfferChange::Withdrawn),
            _ => None,
        };
        check.was_offered |= change == Some(OfferChange::Offered);
        if change.is_some() {
            check.since = Some(now);
        }
        change
    }

    /// A run that was [`Ending::Stuck`] is over: the check runs again when it is due.
    pub fn over(&mut self, service: u8) {
        let mut checks = self.checks.iter_mut();
        if let Some(check) = checks.find(|check| check.service == service) {
            check.is_running = false;
        }
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
    fn run(health: &mut Health, has_passed: bool) -> (Option<OfferChange>, Instant) {
        let now = health.timeout().unwrap();
        assert_eq!(health.poll(now), Some(0));
        (health.ended(now, 0, ending(has_passed)), now)
    }

    fn ending(has_passed: bool) -> Ending {
        match has_passed {
            true => Ending::Passed,
            false => Ending::Failed,
        }
    }

    #[test]
    fn third_failure_in_a_row_withdraws_a_service_and_one_success_restores_it() {
        let mut health = health(&[0]);
        assert_eq!(run(&mut health, true).0, Some(OfferChange::Offered));
        for has_passed in [true, false, false, true, false, false] {
            assert_eq!(run(&mut health, has_passed).0, None);
            assert_eq!(health.offered(), u8::MAX);
        }
        let (change, failed) = run(&mut health, false);
        assert_eq!(change, Some(OfferChange::Withdrawn));
        assert_eq!(health.offered(), u8::MAX - 1);
        assert_eq!(run(&mut health, false).0, None, "it is withdrawn once");
        assert_eq!(health.of(0).unwrap().since, Some(failed));
        let (change, passed) = run(&mut health, true);
        assert_eq!(change, Some(OfferChange::OfferedAgain));
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
        health.ended(at(60_000), 0, Ending::Passed);
        assert_eq!(health.poll(at(60_000)), Some(0));
    }

    #[test]
    fn end_of_a_run_that_was_not_begun_changes_nothing() {
        let mut health = health(&[0]);
        for _ in 0..u32::from(CHECK_FAILURES) {
            assert_eq!(health.ended(at(1), 0, Ending::Failed), None);
            assert_eq!(health.ended(at(1), 7, Ending::Failed), None);
        }
        assert_eq!(health.of(0).unwrap().since, None);
    }

    #[test]
    fn service_is_not_offered_before_its_first_success() {
        let mut health = health(&[0]);
        assert_eq!(health.offered(), u8::MAX - 1);
        assert_eq!(run(&mut health, false).0, Some(OfferChange::Withdrawn));
        assert_eq!(run(&mut health, false).0, None, "it was told once");
        assert_eq!(run(&mut health, true).0, Some(OfferChange::Offered));
        assert_eq!(health.offered(), u8::MAX);
    }

    #[test]
    fn stuck_run_withdraws_at_once_and_none_follows_before_it_is_over() {
        let mut health = health(&[0]);
        assert_eq!(run(&mut health, true).0, Some(OfferChange::Offered));
        assert_eq!(health.poll(at(20_000)), Some(0));
        assert_eq!(
            health.ended(at(25_000), 0, Ending::Stuck),
            Some(OfferChange::Withdrawn)
        );
        assert_eq!(health.poll(at(600_000)), None);
        health.over(0);
        assert_eq!(health.poll(at(600_000)), Some(0));
        assert_eq!(
            health.ended(at(600_001), 0, Ending::Passed),
            Some(OfferChange::OfferedAgain)
        );
    }

    #[test]
    fn run_that_this_host_could_not_make_is_no_failure() {
        let mut health = health(&[0]);
        for _ in 0..5 {
            let now = health.timeout().unwrap();
            assert_eq!(health.poll(now), Some(0));
            assert_eq!(health.ended(now, 0, Ending::NotMade), None);
        }
        assert_eq!(run(&mut health, true).0, Some(OfferChange::Offered));
        for _ in 0..5 {
            let now = health.timeout().unwrap();
            assert_eq!(health.poll(now), Some(0));
            assert_eq!(health.ended(now, 0, Ending::NotMade), None);
        }
        assert_eq!(health.offered(), u8::MAX);
    }

    #[test]
    fn first_runs_are_spread_over_a_tenth_of_the_interval() {
        let mut health = health(&[0, 1]);
        assert_eq!(health.poll(at(0)), Some(0));
        assert_eq!(health.poll(at(499)), None);
        assert_eq!(health.poll(at(500)), Some(1));
    }

    #[test]
    fn each_service_has_a_bit_and_one_without_a_check_is_always_offered() {
        let mut health = health(&[1, 7]);
        for minute in 1..=u64::from(CHECK_FAILURES) {
            let now = at(minute * 60_000);
            while let Some(service) = health.poll(now) {
                health.ended(now, service, ending(service == 1));
            }
        }
        assert_eq!(health.offered(), 0b0111_1111);
        assert_eq!(health.of(0), None);
    }

    #[test]
    fn check_that_is_in_both_configurations_goes_on_under_its_new_number() {
        let mut health = health(&[0, 1]);
        assert_eq!(run(&mut health, true).0, Some(OfferChange::Offered));
        let before = health.of(0).cloned().unwrap();
        // Service 0 is number 1 now, service 1 is gone, and number 0 is new.
        let now = at(5_000);
        health.replace(now, INTERVAL, [(0, None), (1, Some(0))].into_iter());
        let after = health.of(1).unwrap();
        let told = |check: &Checked| (check.failures, check.since, check.next);
        assert_eq!(told(after), told(&before));
        assert_eq!(
            health.offered(),
            0b1111_1110,
            "the new one has not passed yet"
        );
        assert_eq!(health.poll(now), Some(0), "and runs at once");
        // A shorter interval counts at once.
        health.replace(now, INTERVAL / 10, [(0, Some(1))].into_iter());
        assert_eq!(health.timeout(), Some(at(6_000)));
    }
}
