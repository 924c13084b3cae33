//! The facts for the verdict, collected from the core and from what this process does: for `status`
//! and for the line that `systemctl status` shows.
//!
//! Invariant: nothing is listed that the verdict does not name, because the line is made often.

use super::{
    driver::Driver,
    life::short,
    report::first_endpoint,
    status::{CheckState, Facts, FailingServer, Indexers, PeerState, Verdict},
};
use crate::net::UNREACHABLE;
use crate::protocol::{
    Instant, LoopStats, PeerId, Report, Role,
    lease::Lease,
    lease_table::StreamRecord,
    native::{LiveIndexer, Source},
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
            paced: self.paced,
            facts: Facts::of(self.env.machine().role()),
        };
        self.env.machine().report(now, &mut counts);
        let mut facts = counts.facts;
        facts.uptime_ms = millis(now, self.started);
        let failing = self.checks.report(now).into_iter();
        facts.failing_services = failing
            .filter(|check| check.state == CheckState::Failing)
            .map(|check| check.service)
            .collect();
        let mut failing = |peer, role| facts.failing_servers.extend(self.failing(now, peer, role));
        self.env
            .machine()
            .servers(now, &mut |server| failing(server.peer, server.role));
        Verdict::of(&facts, &self.problems.report(now))
    }

    fn failing(&self, now: Instant, peer: PeerId, role: Role) -> Option<FailingServer> {
        let failure = self.servers.failure_of(&peer)?;
        let addrs = self.env.machine().addrs_of(&peer);
        let at = addrs.and_then(first_endpoint);
        let at = at.unwrap_or_else(|| short(&peer));
        let (how, why) = parted(&failure.what, &at);
        Some(FailingServer {
            role,
            how,
            why: why.to_owned(),
            for_ms: millis(now, failure.since),
            at,
        })
    }
}

/// How the server `at` fails in one word, and the rest of what is said of it.
fn parted<'a>(what: &'a str, at: &str) -> (&'static str, &'a str) {
    let Some(why) = what.strip_prefix(UNREACHABLE) else {
        return ("fails", what);
    };
    let of_this = why.strip_prefix(&format!(" at {at}"));
    let why = of_this.unwrap_or(why).trim_start_matches([':', ' ']);
    ("unreachable", why)
}

fn millis(now: Instant, then: Instant) -> u64 {
    now.as_millis().saturating_sub(then.as_millis())
}

impl Indexers {
    fn saw(&mut self, now: Instant, record: &StreamRecord) {
        let silent_ms = millis(now, record.last_seen);
        match PeerState::of(record.connected, silent_ms, millis(record.expiry, now)) {
            PeerState::Alive => self.alive += 1,
            PeerState::Silent => {
                self.silent += 1;
                self.silent_ms = self.silent_ms.max(silent_ms);
            }
        }
    }
}

/// Counts what a machine reports.
struct Counts {
    now: Instant,
    paced: Instant,
    facts: Facts,
}

impl Counts {
    /// A server is tried at this time. After the end of a process, none is.
    fn tries_at(&mut self, at: Instant) {
        let in_ms = (at != Instant::from_millis(u64::MAX)).then(|| millis(at, self.now));
        let all = self.facts.next_try_ms.into_iter().chain(in_ms);
        self.facts.next_try_ms = all.min();
    }
}

impl Report for Counts {
    fn live_indexer(&mut self, entry: &LiveIndexer) {
        let of = &mut self.facts.indexers;
        of.dht_only += usize::from(entry.source == Source::Dht);
        let held = entry.held().unwrap_or_default();
        of.leases = of.leases.saturating_add(held);
        of.most_leases = of.most_leases.max(held);
    }

    fn stream_record(&mut self, record: &StreamRecord) {
        self.facts.nodes += usize::from(record.role == Role::Node);
        if record.role == Role::Indexer {
            self.facts.indexers.saw(self.now, record);
        }
    }

    fn lease(&mut self, lease: &Lease) {
        // One whose stream has ended runs out, unless it is opened again.
        let (is_held, of_native) = (lease.is_secure(self.now), lease.role() == Role::Native);
        self.facts.with_natives += usize::from(is_held && of_native);
        self.facts.with_indexers += usize::from(is_held && !of_native);
        self.facts.wanted += usize::from(self.facts.role != Role::Node);
        if self.facts.role != Role::Node && lease.is_resting() {
            self.tries_at(lease.timeout());
        }
    }

    fn next_round(&mut self, at: Instant) {
        self.tries_at(at);
    }

    fn wanted_leases(&mut self, wanted: usize) {
        self.facts.wanted = wanted;
    }

    fn background_loop(&mut self, name: &'static str, stats: LoopStats) {
        let interval = u64::try_from(stats.interval.as_millis()).unwrap_or(u64::MAX);
        // The run before a shorter interval was set was in time.
        let last = stats.last.unwrap_or(self.paced).max(self.paced);
        let age = millis(self.now, last);
        self.facts.loops.push((name, interval, age));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::status::{LiveIndexer, Server, Source, Status};

    #[test]
    fn failure_is_told_without_the_address_that_stands_before_it() {
        let at = "203.0.113.7:4820";
        for (what, parts) in [
            (
                "cannot be reached at 203.0.113.7:4820: connection refused",
                ("unreachable", "connection refused"),
            ),
            (
                "cannot be reached at 10.0.0.1:4820: no route to host",
                ("unreachable", "at 10.0.0.1:4820: no route to host"),
            ),
            (
                "cannot be reached: no address is known",
                ("unreachable", "no address is known"),
            ),
            ("does not answer", ("fails", "does not answer")),
        ] {
            assert_eq!(parted(what, at), parts);
        }
    }

    /// The facts that a status was made of, as far as it says them.
    fn facts_of(status: &Status) -> Facts {
        let records = |role| {
            status
                .stream_records
                .iter()
                .filter(move |it| it.role == role)
        };
        let leases = |role| status.leases.iter().filter(|it| it.role == role).count();
        let in_state = |state| records(Role::Indexer).filter(move |it| it.state == state);
        let silent = in_state(PeerState::Silent).map(|it| it.last_seen_ms);
        let alive = in_state(PeerState::Alive).count();
        let dht = |it: &&LiveIndexer| it.source == Source::Dht;
        // A status does not say what the indexers report: in the answers, it is 12 leases.
        let held = if alive > 0 { 12 } else { 0 };
        let loops = [("gc", "gc"), ("offload", "offload"), ("refresh", "refresh")];
        let loops = loops.iter().filter_map(|(key, name)| {
            let state = status.loops.get(*key)?;
            Some((
                *name,
                state.interval_ms,
                state.last_ms.unwrap_or(status.uptime_ms),
            ))
        });
        let failing = |server: &Server| {
            let at = server.addr.clone()?;
            let (how, why) = parted(server.last_error.as_deref()?, &at);
            Some(FailingServer {
                role: server.role,
                how,
                why: why.to_owned(),
                for_ms: server.failing_ms?,
                at,
            })
        };
        let checks = status.checks.iter();
        Facts {
            role: status.role,
            uptime_ms: status.uptime_ms,
            indexers: Indexers {
                alive,
                silent: silent.clone().count(),
                silent_ms: silent.max().unwrap_or_default(),
                dht_only: status.live_indexers.iter().filter(dht).count(),
                leases: held,
                most_leases: held,
            },
            nodes: records(Role::Node).count(),
            with_natives: leases(Role::Native),
            with_indexers: leases(Role::Indexer),
            wanted: usize::try_from(status.wanted_leases).unwrap(),
            loops: loops.collect(),
            failing_services: checks
                .filter(|check| check.state == CheckState::Failing)
                .map(|check| check.service.clone())
                .collect(),
            failing_servers: status.servers.iter().filter_map(failing).collect(),
            next_try_ms: None,
        }
    }

    #[test]
    fn verdicts_of_the_answers_for_snapshots_are_those_of_this_program() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/answers");
        let mut judged = 0;
        for file in std::fs::read_dir(dir).unwrap() {
            let file = file.unwrap().path();
            let text = std::fs::read_to_string(&file).unwrap();
            if let Ok(status) = miniserde::json::from_str::<Status>(&text) {
                let verdict = Verdict::of(&facts_of(&status), &status.problems);
                assert_eq!(status.verdict, verdict, "{}", file.display());
                judged += 1;
            }
        }
        assert!(judged >= 11, "{judged}");
    }
}
