//! Whether a process does its work: one word and one sentence, for people, for `status --check` and
//! for the service manager.
//!
//! The verdict follows from [`Facts`] alone, which are numbers and lists of the status. The worst
//! reason gives the word:
//!
//! | role | critical | degraded |
//! |---|---|---|
//! | native | a loop has not run for three intervals | no indexer is alive; no lease with one of the other natives |
//! | indexer | a loop, as above; no lease with any native | no lease with one of its natives |
//! | node | no lease at all | fewer leases than it wants, or only with a native; a check of a service fails |
//! | all | a critical problem | a problem that is a warning; not a notice |
//!
//! The verdict states what was observed of indexers: *alive* is one that beats, *silent* one that
//! does not beat, or whose stream has ended, while its lease lasts. A native does not know how
//! many nodes there are, because indexers report leases, and a node holds [`LEASES_OF_A_NODE`] by
//! default.
//!
//! In its first [`GRACE_MS`] a process that lacks leases, or a native that lacks indexers, is
//! `starting`: that is not yet a fault.

#[cfg(test)]
mod tests;

use std::fmt;

use miniserde::{Deserialize, Serialize};

use super::{
    Problem, Severity, counted,
    text::{Coarse, Plain},
};
use crate::config::Role;

/// How long a process that has just started may be without leases, or without indexers, ms: two
/// beats with the default interval.
pub(crate) const GRACE_MS: u64 = 60_000;
/// A loop that has not run for so many intervals does not run.
const INTERVALS: u64 = 3;
/// Reasons that a summary tells; it counts the others.
const MOST_TOLD: usize = 2;
/// Leases that a node holds with indexers by default.
const LEASES_OF_A_NODE: u32 = 2;
/// Codes of problems that say why a server grants no lease.
const EXPLAIN: [&str; 7] = [
    "handshake-refused",
    "itself-as-native",
    "native-is-none",
    "native-unresolved",
    "no-native-known",
    "same-identity",
    "wrong-peer-id",
];

/// Whether a process does its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Verdict {
    /// The word.
    pub state: VerdictState,
    /// The role and the reasons, the worst first, or what it does: one line for people.
    pub summary: String,
    /// What keeps it from its work, whatever else is wrong; `None`: it is ready, as `/readyz` says.
    pub obstacle: Option<String>,
}

/// Whether a process does its work, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum VerdictState {
    /// It does, and nothing is wrong.
    #[serde(rename = "ok")]
    Ok,
    /// It has started less than a minute ago, and lacks what it works with.
    #[serde(rename = "starting")]
    Starting,
    /// It does, but lacks what protects it from the next fault.
    #[serde(rename = "degraded")]
    Degraded,
    /// It does not, or soon cannot.
    #[serde(rename = "critical")]
    Critical,
}

/// What a verdict is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) struct Facts {
    pub(in crate::daemon) role: Role,
    pub(in crate::daemon) uptime_ms: u64,
    /// Native: the indexers.
    pub(in crate::daemon) indexers: Indexers,
    /// Nodes with a lease here.
    pub(in crate::daemon) nodes: usize,
    /// Leases that this process holds with natives.
    pub(in crate::daemon) with_natives: usize,
    /// Leases that it holds with indexers.
    pub(in crate::daemon) with_indexers: usize,
    /// Leases that it wants: a node with indexers, the others with natives.
    pub(in crate::daemon) wanted: usize,
    /// Its loops: the name, the interval, and the time since the last run or the start, ms.
    pub(in crate::daemon) loops: Vec<(&'static str, u64, u64)>,
    /// Services with a check that fails.
    pub(in crate::daemon) failing_services: Vec<String>,
    /// Its servers that fail.
    pub(in crate::daemon) failing_servers: Vec<FailingServer>,
    /// When it tries next to get a lease that it lacks, in ms; 0: it does so now.
    pub(in crate::daemon) next_try_ms: Option<u64>,
}

/// The indexers that a native knows, as it has observed them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Indexers {
    /// Their beats come.
    pub(in crate::daemon) alive: usize,
    /// No beat comes, or the stream has ended, and the lease still lasts.
    pub(in crate::daemon) silent: usize,
    /// Time since the last beat of the one that is silent for the longest time, ms.
    pub(in crate::daemon) silent_ms: u64,
    /// Known by their record of the DHT only.
    pub(in crate::daemon) dht_only: usize,
    /// Leases that they reported with their last beats: all, and the most of one.
    pub(in crate::daemon) leases: u32,
    pub(in crate::daemon) most_leases: u32,
}

/// A server that grants no lease, or does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) struct FailingServer {
    pub(in crate::daemon) role: Role,
    /// `HOST:PORT`, or the end of its id.
    pub(in crate::daemon) at: String,
    /// Since when, ms.
    pub(in crate::daemon) for_ms: u64,
    /// How it fails, in one word.
    pub(in crate::daemon) how: &'static str,
    /// Why.
    pub(in crate::daemon) why: String,
}

impl Verdict {
    /// The verdict on these facts and problems.
    pub(in crate::daemon) fn of(facts: &Facts, problems: &[Problem]) -> Self {
        let mut reasons = Vec::new();
        reasons.extend(facts.stuck_loops());
        let lack = facts.lack();
        let stuck = reasons.first().map(|(_, what): &Reason| what.clone());
        let obstacle = stuck.or_else(|| facts.lacks_all(lack.as_ref()));
        if let Some((state, what)) = lack {
            let in_grace = facts.uptime_ms < GRACE_MS;
            let state = if in_grace {
                VerdictState::Starting
            } else {
                state
            };
            let next = match in_grace {
                true => String::new(),
                false => facts.next_try(),
            };
            // What a problem says is not said twice.
            match problems.iter().any(explains) {
                true if facts.role == Role::Indexer && facts.wanted == 0 => {}
                true => reasons.push((state, what + &next)),
                false => reasons.push((state, what + &facts.failing() + &next)),
            }
        }
        reasons.extend(problems.iter().filter_map(judged));
        let failing = facts.failing_services.iter();
        reasons.extend(failing.map(|service| {
            let what = format!("service {} fails its check", Plain(service));
            (VerdictState::Degraded, what)
        }));
        let worst = reasons.iter().map(|(state, _)| *state).max();
        let state = worst.unwrap_or(VerdictState::Ok);
        Self {
            state,
            summary: format!("{}: {}", facts.role, facts.told(state, reasons)),
            obstacle,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.state.word(), Plain(&self.summary))
    }
}

impl VerdictState {
    /// All of them.
    #[cfg(feature = "program")]
    pub(crate) const ALL: [Self; 4] = [Self::Ok, Self::Starting, Self::Degraded, Self::Critical];

    /// The word, as people see it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Starting => "STARTING",
            Self::Degraded => "DEGRADED",
            Self::Critical => "CRITICAL",
        }
    }
}

type Reason = (VerdictState, String);

/// Whether the problem says why a server grants no lease to this process.
pub(in crate::daemon) fn explains(problem: &Problem) -> bool {
    judged(problem).is_some() && EXPLAIN.contains(&&*problem.code)
}

/// Whether the text has this address, and not one that it begins or ends.
#[cfg(feature = "program")]
pub(crate) fn is_named(at: &str, text: &str) -> bool {
    let is_part = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
    text.match_indices(at).any(|(begin, _)| {
        let (before, after) = text.split_at(begin);
        let after = after.strip_prefix(at).unwrap_or_default();
        !is_part(before.chars().last()) && !is_part(after.chars().next())
    })
}

/// No reason is what a stranger can cause.
fn judged(problem: &Problem) -> Option<Reason> {
    let state = match problem.severity {
        Severity::Notice => return None,
        Severity::Warning => VerdictState::Degraded,
        Severity::Critical => VerdictState::Critical,
    };
    Some((state, problem.what.clone()))
}

impl Facts {
    /// A process of this role that has just started.
    pub(in crate::daemon) fn of(role: Role) -> Self {
        Self {
            role,
            uptime_ms: 0,
            indexers: Indexers::default(),
            nodes: 0,
            with_natives: 0,
            with_indexers: 0,
            wanted: 0,
            loops: Vec::new(),
            failing_services: Vec::new(),
            failing_servers: Vec::new(),
            next_try_ms: None,
        }
    }

    fn stuck_loops(&self) -> impl Iterator<Item = Reason> {
        let stuck =
            |&&(_, interval, age): &&(_, u64, u64)| age > interval.saturating_mul(INTERVALS);
        self.loops.iter().filter(stuck).map(|(name, _, age)| {
            let what = format!("the {name} loop has not run for {}", Coarse(*age));
            (VerdictState::Critical, what)
        })
    }

    /// What the process works with and does not have.
    fn lack(&self) -> Option<Reason> {
        use VerdictState::{Critical, Degraded};
        let Self {
            with_natives,
            with_indexers,
            wanted,
            ..
        } = *self;
        match self.role {
            Role::Native if self.indexers.alive == 0 => Some((Degraded, self.of_indexers())),
            Role::Native if with_natives < wanted => {
                let what = format!("{with_natives} of {} with other natives", leases(wanted));
                Some((Degraded, what))
            }
            Role::Indexer if wanted == 0 => Some((Critical, "no native is known".into())),
            Role::Indexer if with_natives == 0 => {
                Some((Critical, format!("0 of {}", leases(wanted))))
            }
            Role::Indexer if with_natives < wanted => {
                Some((Degraded, format!("{with_natives} of {}", leases(wanted))))
            }
            Role::Node if with_indexers + with_natives == 0 => {
                Some((Critical, format!("0 of {}", leases(wanted))))
            }
            Role::Node if with_indexers == 0 => {
                let what = "no lease with an indexer: a native has taken it in";
                Some((Degraded, what.into()))
            }
            Role::Node if with_indexers < wanted => {
                Some((Degraded, format!("{with_indexers} of {}", leases(wanted))))
            }
            Role::Native | Role::Indexer | Role::Node => None,
        }
    }

    /// What lacks altogether for its work, if this lack is such a one.
    fn lacks_all(&self, lack: Option<&Reason>) -> Option<String> {
        let (state, _) = lack?;
        let what = match self.role {
            Role::Indexer => "no native grants a lease",
            Role::Native | Role::Node => "no server grants a lease",
        };
        (*state == VerdictState::Critical).then(|| what.to_owned())
    }

    /// What a native has observed of indexers and nodes.
    fn of_indexers(&self) -> String {
        let Indexers {
            alive,
            silent,
            silent_ms,
            dht_only,
            leases: held,
            most_leases,
        } = self.indexers;
        let is_elsewhere = alive == 0 && silent == 0 && dht_only > 0;
        let mut text = match alive {
            // Whether they are alive it cannot know.
            0 if is_elsewhere => "no indexer holds a lease here".to_owned(),
            0 => "no indexer is alive".to_owned(),
            alive => format!("{} alive", counted(&alive, "indexer")),
        };
        if silent > 0 {
            text += &format!(", {silent} silent for {}", Coarse(silent_ms));
        }
        if dht_only > 0 {
            text += &format!(", {dht_only} known by the DHT only");
        }
        if is_elsewhere {
            text += " (give them this native, too)";
        }
        if held > 0 {
            let nodes = (held / LEASES_OF_A_NODE).max(most_leases);
            // A node has one lease with an indexer.
            let about = if nodes == held { "" } else { "about " };
            let nodes = counted(&nodes, "node");
            text += &format!(", {about}{nodes} ({} at indexers)", leases(held as usize));
        }
        format!("{text}, {} taken in", counted(&self.nodes, "node"))
    }

    /// The server that fails for the longest time, after a semicolon: a native, if one does.
    fn failing(&self) -> String {
        let rank = |server: &&FailingServer| (server.role == Role::Native, server.for_ms);
        let Some(server) = self.failing_servers.iter().max_by_key(rank) else {
            return String::new();
        };
        let FailingServer {
            role,
            at,
            for_ms,
            how,
            why,
        } = server;
        let more = match self.failing_servers.len() {
            1 => String::new(),
            all => format!(", and {} more", all - 1),
        };
        let span = Coarse(*for_ms);
        format!("; {role} {at} {how} for {span} ({why}){more}")
    }

    /// When it tries next, after a semicolon.
    fn next_try(&self) -> String {
        // What a native lacks first is an indexer, which comes to it.
        let waits = self.role == Role::Native && self.indexers.alive == 0;
        match self.next_try_ms.filter(|_| !waits) {
            None => String::new(),
            Some(0) => "; tries again now".to_owned(),
            Some(ms) => format!("; next try in {} s", ms.div_ceil(1_000)),
        }
    }

    /// The reasons, the worst first, or what the process does if there are none.
    fn told(&self, state: VerdictState, reasons: Vec<Reason>) -> String {
        let (worst, others): (Vec<_>, Vec<_>) =
            reasons.into_iter().partition(|(of, _)| *of == state);
        let mut all = worst.into_iter().chain(others).map(|(_, what)| what);
        let told: Vec<String> = all.by_ref().take(MOST_TOLD).collect();
        match (told.is_empty(), all.count()) {
            (true, _) => self.work(),
            (false, 0) => told.join("; "),
            (false, more) => format!("{}; and {more} more", told.join("; ")),
        }
    }

    /// What it does.
    fn work(&self) -> String {
        let nodes = counted(&self.nodes, "node");
        match self.role {
            Role::Native => self.of_indexers(),
            Role::Indexer => format!("{} of {}, {nodes}", self.with_natives, leases(self.wanted)),
            // An indexer that is left is given up after another grants a lease.
            Role::Node => {
                let held = self.with_indexers.min(self.wanted);
                format!("{held} of {}", leases(self.wanted))
            }
        }
    }
}

fn leases(number: usize) -> String {
    counted(&number, "lease")
}
