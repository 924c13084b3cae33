//! Metrics for Prometheus, made of the status: in OpenMetrics, or in its older text format.
//!
//! Invariants: what a label can be is known when the program is built, except the names of what
//! this build has (tables, codes of problems), so peers add no series; a metric that does not apply
//! to a role is left out; [`METRICS`] names all of them, and the README's table is made of it.
//!
//! Every sample has the label `role`, because the files of several daemons of one host may be read
//! by one collector, which takes no series twice. The set of states and the version are gauges,
//! because that collector does not know the types of OpenMetrics for them.

use std::fmt::Write as _;

use super::status::{
    CheckState, ReachableState, ServiceCheck, Severity, Status, Table, VerdictState,
};
use crate::config::Role;

/// The beginning of every name.
const PREFIX: &str = "oc_discovery_";

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, version 0.0.4.
    #[cfg(feature = "http")]
    Text,
}

impl Format {
    /// The format that a client of HTTP prefers, by its field `Accept` in lower case.
    #[cfg(feature = "http")]
    pub(super) fn accepted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    /// Its media type.
    #[cfg(feature = "http")]
    pub(super) fn content(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What a metric does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It only grows; its samples end in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A metric.
struct Metric {
    /// Its name, without [`PREFIX`] and `_total`.
    name: &'static str,
    kind: Kind,
    /// What it says, for people.
    help: &'static str,
    /// Its samples.
    of: fn(&Status, &mut Samples<'_>),
}

use Kind::{Counter, Gauge};

const fn metric(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    of: fn(&Status, &mut Samples<'_>),
) -> Metric {
    Metric {
        name,
        kind,
        help,
        of,
    }
}

/// Loops whose runs wait for answers of peers.
const WAITING_LOOPS: [&str; 2] = ["offload", "refresh"];

/// All metrics.
#[rustfmt::skip]
const METRICS: &[Metric] = &[
    metric("build_info", Gauge, "The version of the program, always 1.", |s, to| {
        to.labelled(&[("version", &s.version)], 1);
    }),
    metric("uptime_seconds", Gauge, "Time since the process started.", |s, to| to.seconds(&[], s.uptime_ms)),
    metric("verdict", Gauge, "Whether it does its work: 1 for the state it is in, 0 for the others.", |s, to| {
        for state in VerdictState::ALL {
            to.labelled(&[("state", &state.word().to_ascii_lowercase())], (s.verdict.state == state).into());
        }
    }),
    metric("problems", Gauge, "What is wrong, by code and severity, as doctor says it; no sample: nothing of the kind.", |s, to| {
        for severity in Severity::ALL {
            let of = s.problems.iter().filter(|problem| problem.severity == severity);
            by_name(of.map(|problem| problem.code.as_str()), |code, count| {
                to.labelled(&[("code", code), ("severity", severity.name())], count);
            });
        }
    }),
    metric("reachable", Gauge, "Whether a server could connect to this process: 1 or 0; no sample: not known.", |s, to| {
        match s.reachable.as_ref().map(|it| it.state) {
            Some(ReachableState::Yes) => to.value(1),
            Some(ReachableState::No) => to.value(0),
            Some(ReachableState::Unknown) | None => {}
        }
    }),
    metric("leases_held", Gauge, "Leases that this process holds with servers, by their role.", |s, to| {
        by_role(&s.leases, |lease| lease.role, &[Role::Native, Role::Indexer], to);
    }),
    metric("leases_wanted", Gauge, "Leases that it wants to hold.", |s, to| to.value(s.wanted_leases)),
    metric("leases_granted", Gauge, "Leases that this process grants, by the role of the peer.", |s, to| {
        let roles: &[Role] = match s.role {
            Role::Native => &[Role::Native, Role::Indexer, Role::Node],
            Role::Indexer => &[Role::Node],
            Role::Node => &[],
        };
        by_role(&s.stream_records, |record| record.role, roles, to);
    }),
    metric("live_indexers", Gauge, "Indexers that a native can hand out.", |s, to| {
        to.of(Role::Native, s, s.live_indexers.len());
    }),
    metric("known_indexers", Gauge, "Indexers that a native knows of, also those that are not there.", |s, to| {
        to.of(Role::Native, s, s.known_peer_ids.len());
    }),
    metric("responsible_nodes", Gauge, "Nodes that a native has taken in itself, because no indexer had a place.", |s, to| {
        to.of(Role::Native, s, s.responsible_peers.len());
    }),
    metric("checks_failing", Gauge, "Own services that are not announced because their check fails.", |s, to| {
        let failing = |check: &&ServiceCheck| check.state == CheckState::Failing;
        to.of(Role::Node, s, s.checks.iter().filter(failing).count());
    }),
    metric("loop_runs", Counter, "Runs of a background loop.", |s, to| {
        for (name, run) in &s.loops {
            to.labelled(&[("loop", name)], run.runs);
        }
    }),
    metric("loop_run_seconds", Counter, "How long its runs have taken, from the tick to the decision; those of other loops take no time.", |s, to| {
        for (name, run) in s.loops.iter().filter(|(name, _)| WAITING_LOOPS.contains(&&***name)) {
            to.seconds(&[("loop", name)], run.took_ms);
        }
    }),
    metric("loop_interval_seconds", Gauge, "Time between two runs of the loop.", |s, to| {
        for (name, run) in &s.loops {
            to.seconds(&[("loop", name)], run.interval_ms);
        }
    }),
    metric("loop_last_run_age_seconds", Gauge, "Time since its last run; before the first one, since the start.", |s, to| {
        for (name, run) in &s.loops {
            to.seconds(&[("loop", name)], run.last_ms.unwrap_or(s.uptime_ms));
        }
    }),
    metric("table_entries", Gauge, "Entries of a table of fixed capacity.", |s, to| tables(s, to, |table| table.used)),
    metric("table_capacity", Gauge, "Entries that fit into the table.", |s, to| tables(s, to, |table| table.capacity)),
    metric("table_refused", Counter, "Entries that the table refused for lack of room.", |s, to| {
        tables(s, to, |table| table.refused);
    }),
    metric("table_evicted", Counter, "Entries of the table that made room for others.", |s, to| {
        tables(s, to, |table| table.evicted);
    }),
    metric("joins", Counter, "Peers that were granted a lease: new, back again, or taken in by a native.", |s, to| {
        counters(s, to, "joins_", "kind");
    }),
    metric("lease_ends", Counter, "Leases granted that ended, by cause.", |s, to| counters(s, to, "ends_", "cause")),
    metric("refusals", Counter, "Beats that were refused a lease, by reason.", |s, to| counters(s, to, "refusals_", "reason")),
    metric("own_leases", Counter, "Leases of this process, by what became of them.", |s, to| {
        counters(s, to, "leases_", "event");
    }),
    metric("moves", Counter, "Holders of leases that came from another host.", |s, to| counter(s, to, "moves")),
    metric("contested_identities", Counter, "Times that two devices were found to use one identity.", |s, to| {
        counter(s, to, "contested_identities");
    }),
    metric("dial_failures", Counter, "Dials of this process that failed, by kind.", |s, to| counters(s, to, "dials_", "kind")),
    metric("handshake_failures", Counter, "Handshakes that failed because of another key, peer or protocol.", |s, to| {
        counter(s, to, "handshakes_failed");
    }),
    metric("malformed_frames", Counter, "Frames of peers that could not be read, by kind.", |s, to| {
        counters(s, to, "malformed_", "frame");
    }),
    metric("streams_too_fast", Counter, "Heartbeat streams that were ended, because their beats came too fast.", |s, to| {
        counter(s, to, "streams_too_fast");
    }),
    metric("broken_connections", Counter, "Connections that were closed, because the peer broke the rules of Yamux.", |s, to| {
        counter(s, to, "broken_connections");
    }),
    metric("undialable_addresses", Counter, "Addresses of other peers that were left out, because nobody can dial them.", |s, to| {
        counter(s, to, "undialable_addresses");
    }),
    metric("lost_log_lines", Counter, "Log lines that were not written, because stderr or the journal had no room.", |s, to| {
        counter(s, to, "log_lines_lost");
    }),
    metric("suppressed_log_lines", Counter, "Log lines that were counted and not written, because they repeat others.", |s, to| {
        counter(s, to, "log_lines_suppressed");
    }),
    metric("resident_memory_bytes", Gauge, "Resident memory of the process.", |s, to| {
        s.resident_bytes.into_iter().for_each(|bytes| to.value(bytes));
    }),
    metric("cpu_seconds", Counter, "User and system time of the process.", |s, to| to.seconds(&[], s.cpu_ms)),
];

/// The status as metrics.
pub(crate) fn render(status: &Status, format: Format) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let begin = text.len();
        let suffix = match metric.kind {
            Counter => "_total",
            Gauge => "",
        };
        let family = match format {
            // There a counter is a family whose samples have the suffix.
            Format::OpenMetrics => "",
            #[cfg(feature = "http")]
            Format::Text => suffix,
        };
        let kind = match metric.kind {
            Counter => "counter",
            Gauge => "gauge",
        };
        let (name, help) = (metric.name, metric.help);
        let _ = write!(
            text,
            "# HELP {PREFIX}{name}{family} {help}\n# TYPE {PREFIX}{name}{family} {kind}\n"
        );
        let samples = text.len();
        (metric.of)(
            status,
            &mut Samples {
                text: &mut text,
                name: (name, suffix),
                role: status.role.name(),
            },
        );
        if text.len() == samples {
            text.truncate(begin);
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// Where the samples of one metric go.
struct Samples<'a> {
    text: &'a mut String,
    name: (&'static str, &'static str),
    role: &'static str,
}

impl Samples<'_> {
    fn begin(&mut self, labels: &[(&str, &str)]) {
        let (name, suffix) = self.name;
        let _ = write!(self.text, "{PREFIX}{name}{suffix}{{role=\"{}\"", self.role);
        for (label, value) in labels {
            let _ = write!(self.text, ",{label}=\"");
            for letter in value.chars() {
                match letter {
                    '\n' => self.text.push_str("\\n"),
                    '"' | '\\' => self.text.extend(['\\', letter]),
                    letter => self.text.push(letter),
                }
            }
            self.text.push('"');
        }
        self.text.push_str("} ");
    }

    /// A sample with labels.
    fn labelled(&mut self, labels: &[(&str, &str)], value: u64) {
        self.begin(labels);
        let _ = writeln!(self.text, "{value}");
    }

    /// The only sample.
    fn value(&mut self, value: u64) {
        self.labelled(&[], value);
    }

    /// The only sample of a process with this role.
    fn of(&mut self, role: Role, status: &Status, count: usize) {
        if status.role == role {
            self.value(count as u64);
        }
    }

    /// A time.
    fn seconds(&mut self, labels: &[(&str, &str)], ms: u64) {
        self.begin(labels);
        let _ = writeln!(self.text, "{}.{:03}", ms / 1000, ms % 1000);
    }
}

fn tables(status: &Status, to: &mut Samples<'_>, figure: fn(&Table) -> u64) {
    for table in &status.tables {
        to.labelled(&[("table", &table.name)], figure(table));
    }
}

/// One counter.
fn counter(status: &Status, to: &mut Samples<'_>, name: &str) {
    if let Some(count) = status.counters.get(name) {
        to.value(*count);
    }
}

/// Counters whose names begin alike; the rest of the name is the value of the label.
fn counters(status: &Status, to: &mut Samples<'_>, prefix: &str, label: &str) {
    for (name, count) in &status.counters {
        if let Some(reason) = name.strip_prefix(prefix) {
            to.labelled(&[(label, reason)], *count);
        }
    }
}

fn by_role<T>(all: &[T], role_of: fn(&T) -> Role, roles: &[Role], to: &mut Samples<'_>) {
    for role in roles {
        let count = all.iter().filter(|one| role_of(one) == *role).count();
        to.labelled(&[("peer_role", role.name())], count as u64);
    }
}

/// How often each name comes, each name once.
fn by_name<'a>(names: impl Iterator<Item = &'a str>, mut say: impl FnMut(&str, u64)) {
    let names: Vec<&str> = names.collect();
    for (at, name) in names.iter().enumerate() {
        let is_first = names.iter().position(|other| other == name) == Some(at);
        if is_first {
            let count = names.iter().filter(|other| *other == name).count();
            say(name, count as u64);
        }
    }
}

#[cfg(test)]
mod tests;
