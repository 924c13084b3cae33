//! Periodic work of the driver: it notes what is remembered across restarts, removes expired
//! records, and gives unused memory back to the system.
//!
//! Invariants: an expired record is removed within [`EXPIRY_PAUSE`]; nothing here runs more often
//! than that.

use std::time::Duration;

use super::{clock, driver::Driver, trim};
use crate::protocol::{Instant, PeerId, Report, TableStats, restart};

/// Expired records are removed from the DHT store together, at most this often.
const EXPIRY_PAUSE: Duration = Duration::from_secs(1);

impl Driver<'_> {
    /// Looks at what has changed since the last time.
    pub(super) fn keep_house(&mut self) {
        let now = self.env.now();
        self.trim_if_due();
        self.invite_if_changed(now);
        self.synchronised = clock::synchronised();
        if let Some(line) = self.addresses.counted() {
            log::info!("{line}");
        }
        self.look_at_addresses(now);
        self.remember();
        self.state.save_if_due(now);
        self.look_for_mistakes(now);
    }

    /// Removes records of the DHT store that have expired at `now`.
    pub(super) fn expire_records_if_due(&mut self, now: Instant) {
        let left = self.env.net.record_expires_in();
        if left.is_some_and(|left| now >= expiry_due(now, self.expired, left)) {
            self.env.net.expire_records();
            self.expired = now;
        }
        let left = self.env.net.record_expires_in();
        self.records = left.map(|left| expiry_due(now, self.expired, left));
    }

    /// Gives memory back if much of it is unused.
    fn trim_if_due(&mut self) {
        let mut used = Used(Vec::new());
        self.env.machine().report(self.env.now(), &mut used);
        let others = self.env.net.tables().into_iter();
        others
            .chain(self.lookups.stats(&self.env))
            .chain(self.watches.stats(&self.env))
            .for_each(|stats| used.table(stats));
        let peaks = self.env.net.take_peaks().into_iter();
        for (name, most) in peaks.chain([self.lookups.take_peak()]) {
            self.peaks.saw(name, most);
        }
        if self.peaks.look(&used.0) {
            self.env.net.shrink();
            trim::trim(self.env.endpoint.spare(), self.heap);
        }
    }

    /// Notes which peers are worth trying after a restart, and the time.
    pub(super) fn remember(&mut self) {
        let (now, machine) = (self.env.now(), self.env.machine());
        let known = |peer: &PeerId| Some((*peer, machine.addrs_of(peer)?.clone()));
        let state = self.state.state_mut();
        let natives = restart::natives(machine, now);
        state.natives = natives.iter().filter_map(known).collect();
        if let Some(indexers) = restart::indexers(machine, now) {
            state.indexers = indexers.iter().filter_map(known).collect();
        }
        let settled = self.env.settled_ms();
        let lost = restart::lost(machine, now, settled, &state.lost).collect::<Vec<_>>();
        if lost != *state.lost {
            state.lost = lost.into();
        }
        self.remember_addrs();
        if let Some(settled) = settled {
            self.state.note_time(settled);
        }
    }

    /// Counts the peers with remembered addresses as known, so that they do not give way to unknown
    /// ones.
    pub(super) fn remember_addrs(&mut self) {
        let state = &self.state.state().state;
        let known = state.natives.iter().chain(&state.indexers);
        self.env.net.remember(known.map(|(_, addrs)| addrs));
    }
}

/// How many entries each table has.
struct Used(Vec<(&'static str, usize)>);

impl Report for Used {
    fn table(&mut self, stats: TableStats) {
        self.0.push((stats.name, stats.used));
    }
}

/// When expired records are removed, if the first of them has `left` to live at `now` and the last
/// removal was at `expired`. It is `now` if the record has expired already.
fn expiry_due(now: Instant, expired: Instant, left: Duration) -> Instant {
    let over = match left.is_zero() {
        true => now,
        // The clock of the loop counts whole milliseconds, so one more is added in order not to be
        // early.
        false => now + left + Duration::from_millis(1),
    };
    over.max(expired + EXPIRY_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn expired_record_leaves_at_once_but_not_within_a_second_of_the_last() {
        let is_due = |now| at(now) >= expiry_due(at(now), at(5_000), Duration::ZERO);
        assert!(!is_due(5_999));
        assert!(is_due(6_000));
        assert!(is_due(9_000));
    }

    #[test]
    fn the_loop_does_not_wake_before_an_expired_record_may_leave() {
        let due = expiry_due(at(5_001), at(5_000), Duration::ZERO);
        assert_eq!(due, at(6_000));
    }

    #[test]
    fn record_that_lives_is_due_a_tick_after_its_end() {
        let left = Duration::from_micros(2_500);
        assert_eq!(expiry_due(at(9_000), at(5_000), left), at(9_003));
    }
}
