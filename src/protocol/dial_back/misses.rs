//! Hosts that were not reached.
//!
//! Invariant: a host is in it once, until [`MISSES_WITHIN`] after its first miss. When it is full,
//! a host with the fewest misses gives way: one that has too many stays longest.

use heapless::Vec;

use super::{MISSES, MISSES_WITHIN};
use crate::protocol::{Host, Instant};

/// Hosts at a time.
const HOSTS: usize = 32;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Misses(Vec<Missed, HOSTS, u8>);

#[derive(Clone, Debug, PartialEq)]
struct Missed {
    host: Host,
    count: u8,
    since: Instant,
}

impl Misses {
    /// Whether the host must not be dialled now.
    pub(super) fn are_too_many(&mut self, now: Instant, host: Host) -> bool {
        self.0.retain(|missed| now - missed.since < MISSES_WITHIN);
        let mut all = self.0.iter();
        all.any(|missed| missed.host == host && missed.count >= MISSES)
    }

    /// The host was not reached.
    pub(super) fn add(&mut self, now: Instant, host: Host) {
        self.0.retain(|missed| now - missed.since < MISSES_WITHIN);
        if let Some(missed) = self.0.iter_mut().find(|missed| missed.host == host) {
            missed.count = missed.count.saturating_add(1);
            return;
        }
        if self.0.is_full() {
            let all = self.0.iter().enumerate();
            let least = all.min_by_key(|(_, missed)| (missed.count, missed.since));
            if let Some(at) = least.map(|(at, _)| at) {
                self.0.swap_remove(at);
            }
        }
        // There is room.
        let _ = self.0.push(Missed {
            host,
            count: 1,
            since: now,
        });
    }
}
