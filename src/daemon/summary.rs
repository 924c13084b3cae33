//! The facts for the verdict, collected from the core and from what this process does: for `status`
//! and for the line that `systemctl status` shows.
//!
//! Invariant: nothing is listed that the verdict does not name, because the line is made often.

use super::{
    driver::Driver,
    life::short,
    report::first_endpoint,
    status::{CheckState, Facts, FailingServer, Verdict},
};
use crate::protocol::{
    Instant, LoopStats, PeerId, Report, Role, lease::Lease, lease_table::StreamRecord,
    native::LiveIndexer,
};

impl Driver<'_> {
    /// One line about this process.
    #[cfg(feature = "program")]
    pub(super) fn summary(&self) -> String {
        self.verdict(self.env.now()).to_string()
    }

    /// Whether this process does its work at `now`.
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        let mut counts = Counts {
            now,
            started: self.started,
            facts: Facts::of(self.env.machine.role()),
        };
        self.env.machine.report(now, &mut counts);
        let mut facts = counts.facts;
        facts.uptime_ms = millis(now, self.started);
        let failing = self.checks.report(now).into_iter();
        facts.failing_services = failing
            .filter(|check| check.state == CheckState::Failing)
            .map(|check| check.service)
            .collect();
        let mut failing = |peer, role| facts.failing_servers.extend(self.failing(now, peer, role));
        self.env
            .machine
            .servers(now, &mut |server| failing(server.peer, server.role));
        Verdict::of(&facts, &self.problems.report(now))
    }

    fn failing(&self, now: Instant, peer: PeerId, role: Role) -> Option<FailingServer> {
        let failure = self.servers.failure_of(&peer)?;
        let addrs = self.env.machine.addrs_of(&peer);
        let at = addrs.and_then(first_endpoint);
        Some(FailingServer {
            role,
            at: at.unwrap_or_else(|| short(&peer)),
            for_ms: millis(now, failure.since),
            why: failure.what.clone(),
        })
    }
}

fn millis(now: Instant, then: Instant) -> u64 {
    now.as_millis().saturating_sub(then.as_millis())
}

/// Counts what a machine reports.
struct Counts {
    now: Instant,
    started: Instant,
    facts: Facts,
}

impl Report for Counts {
    fn live_indexer(&mut self, _: &LiveIndexer) {
        self.facts.live_indexers += 1;
    }

    fn stream_record(&mut self, record: &StreamRecord) {
        self.facts.nodes += usize::from(record.role == Role::Node);
    }

    fn lease(&mut self, lease: &Lease) {
        let (is_held, of_native) = (
            lease.expiry(self.now).is_some(),
            lease.role() == Role::Native,
        );
        self.facts.with_natives += usize::from(is_held && of_native);
        self.facts.with_indexers += usize::from(is_held && !of_native);
        self.facts.wanted += usize::from(self.facts.role != Role::Node);
    }

    fn wanted_leases(&mut self, wanted: usize) {
        self.facts.wanted = wanted;
    }

    fn background_loop(&mut self, name: &'static str, stats: LoopStats) {
        let interval = u64::try_from(stats.interval.as_millis()).unwrap_or(u64::MAX);
        let last = stats.last.unwrap_or(self.started);
        let age = millis(self.now, last);
        self.facts.loops.push((name, interval, age));
    }
}
