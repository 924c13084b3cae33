//! Hosts that were not reached.
//!
//! Invariant: a host is in it once, until [`MISSES_WITHIN`] after its first miss. When it is full,
//! a host with the fewest misses gives way, and is counted: one that has too many stays longest.

use heapless::Vec;

use super::{MISSES, MISSES_WITHIN};
use crate::protocol::{Host, Instant, TableStats};

/// Hosts at a time.
const HOSTS: usize = 32;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Misses {
    hosts: Vec<Missed, HOSTS, u8>,
    evicted: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Missed {
    host: Host,
    count: u8,
    since: Instant,
}

impl Missed {
    fn counts(&self, now: Instant) -> bool {
        now - self.since < MISSES_WITHIN
    }
}

impl Misses {
    /// Whether the host must not be dialled now.
    pub(super) fn are_too_many(&mut self, now: Instant, host: Host) -> bool {
        self.hosts.retain(|missed| missed.counts(now));
        let mut all = self.hosts.iter();
        all.any(|missed| missed.host == host && missed.count >= MISSES)
    }

    /// The host was not reached.
    pub(super) fn add(&mut self, now: Instant, host: Host) {
        self.hosts.retain(|missed| missed.counts(now));
        if let Some(missed) = self.hosts.iter_mut().find(|missed| missed.host == host) {
            missed.count = missed.count.saturating_add(1);
            return;
        }
        if self.hosts.is_full() {
            let all = self.hosts.iter().enumerate();
            let least = all.min_by_key(|(_, missed)| (missed.count, missed.since));
            if let Some(at) = least.map(|(at, _)| at) {
                self.hosts.swap_remove(at);
                self.evicted += 1;
            }
        }
        // There is room.
        let _ = self.hosts.push(Missed {
            host,
            count: 1,
            since: now,
        });
    }

    /// For `status`.
    pub(super) fn stats(&self, now: Instant) -> TableStats {
        TableStats {
            name: "missed_hosts",
            used: self.hosts.iter().filter(|it| it.counts(now)).count(),
            capacity: HOSTS,
            refused: 0,
            evicted: self.evicted,
        }
    }
}
