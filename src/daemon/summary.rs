//! One line for the operator, which `systemctl status` shows for a daemon.
//!
//! Invariant: the line is made of counts alone, so no text of a peer is in it.

use std::fmt;

use super::driver::Driver;
use crate::protocol::{
    Instant, Machine, Report, Role,
    lease::Lease,
    lease_table::StreamRecord,
    native::{LiveIndexer, Responsible},
};

impl Driver<'_> {
    /// One line about the machine.
    pub(super) fn summary(&self) -> String {
        Summary::of(self.env.machine, self.env.now()).to_string()
    }
}

/// Counts what a machine reports.
#[derive(Debug)]
pub(super) struct Summary {
    now: Instant,
    role: Role,
    live: usize,
    taken_in: usize,
    granted: usize,
    with_indexers: usize,
    with_natives: usize,
}

impl Summary {
    /// The numbers of `machine` at `now`.
    pub(super) fn of(machine: &dyn Machine, now: Instant) -> Self {
        let mut summary = Self::empty(machine.role(), now);
        machine.report(now, &mut summary);
        summary
    }

    fn empty(role: Role, now: Instant) -> Self {
        Self {
            now,
            role,
            live: 0,
            taken_in: 0,
            granted: 0,
            with_indexers: 0,
            with_natives: 0,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: usize, what| Count { number, what };
        match self.role {
            Role::Native => {
                let live = count(self.live, "live indexer");
                write!(
                    f,
                    "native: {live}, {} taken in",
                    count(self.taken_in, "node")
                )
            }
            Role::Indexer => {
                let granted = count(self.granted, "lease");
                let held = count(self.with_natives, "native");
                write!(f, "indexer: {granted} granted, under {held}")
            }
            Role::Node if self.with_indexers > 0 => {
                write!(f, "node: under {}", count(self.with_indexers, "indexer"))
            }
            Role::Node if self.with_natives > 0 => {
                f.write_str("node: taken in by a native, no indexer is reachable")
            }
            Role::Node => f.write_str("node: no lease"),
        }
    }
}

/// A number and its noun.
struct Count {
    number: usize,
    what: &'static str,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.number == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", self.number, self.what)
    }
}

impl Report for Summary {
    fn live_indexer(&mut self, _: &LiveIndexer) {
        self.live += 1;
    }

    fn responsible_peer(&mut self, _: &Responsible) {
        self.taken_in += 1;
    }

    fn stream_record(&mut self, _: &StreamRecord) {
        self.granted += 1;
    }

    fn lease(&mut self, lease: &Lease) {
        if lease.expiry(self.now).is_some() {
            match lease.role() {
                Role::Native => self.with_natives += 1,
                Role::Indexer | Role::Node => self.with_indexers += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(role: Role, fill: impl Fn(&mut Summary)) -> String {
        let mut summary = Summary::empty(role, Instant::from_millis(0));
        fill(&mut summary);
        summary.to_string()
    }

    #[test]
    fn line_says_what_matters_to_each_role() {
        let native = |s: &mut Summary| (s.live, s.taken_in) = (2, 1);
        let none = |_: &mut Summary| {};
        for (got, expected) in [
            (
                text(Role::Native, native),
                "native: 2 live indexers, 1 node taken in",
            ),
            (
                text(Role::Native, none),
                "native: 0 live indexers, 0 nodes taken in",
            ),
            (
                text(Role::Indexer, |s| (s.granted, s.with_natives) = (1, 3)),
                "indexer: 1 lease granted, under 3 natives",
            ),
            (
                text(Role::Node, |s| (s.with_indexers, s.with_natives) = (2, 1)),
                "node: under 2 indexers",
            ),
            (
                text(Role::Node, |s| s.with_natives = 1),
                "node: taken in by a native, no indexer is reachable",
            ),
            (text(Role::Node, none), "node: no lease"),
        ] {
            assert_eq!(got, expected);
        }
    }
}
