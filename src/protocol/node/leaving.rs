//! Which leases a node gives up, and when.
//!
//! Invariant: a lease that is held is given up only after another server has accepted the node, or
//! when servers that released it hold more leases than it wants.

use super::*;

impl Node {
    /// Gives up each lease that was lost, and each attempt that failed.
    pub(super) fn drop_lost_leases(&mut self, now: Instant) {
        // A lease that was granted is retried once at once, also if it ran out while this host
        // slept. Any other failure is final for the lease. What is not held begins again only while
        // its offer is valid.
        let has_failed = |lease: &Lease| lease.failures() > u8::from(!lease.is_attempt());
        let is_lost = |lease: &&Lease| {
            let may_begin = lease.expiry(now).is_some()
                || lease.role() == Role::Native
                || self.candidates.offers(now, lease.server());
            lease.is_resting() && (has_failed(lease) || !may_begin)
        };
        loop {
            let Some(lost) = self.leases.iter().find(is_lost).cloned() else {
                return;
            };
            self.leases.give_up(lost.server());
            match lost.role() {
                Role::Native if self.leases.iter().next().is_none() => {
                    self.rounds.hurry_a_little(now, &mut self.rng);
                }
                Role::Native => {}
                Role::Indexer | Role::Node => {
                    match lost.refused() {
                        Some(until) => self.failures.refused(now, lost.server(), until),
                        None if !has_failed(&lost) => {}
                        None => self.failures.note(now, lost.server(), &mut self.rng),
                    }
                    if self.wants_more(now) && !self.has_candidate(now) {
                        self.rounds.hurry(now);
                    }
                }
            }
        }
    }

    /// Gives up what is not needed any more, because another server has accepted us.
    pub(super) fn break_after_make(&mut self, now: Instant) {
        let accepted = |lease: &&Lease| lease.is_secure(now) && !lease.is_released();
        let Some(keep) = self
            .leases
            .iter()
            .filter(accepted)
            .max_by_key(|lease| lease.role() == Role::Indexer)
            .map(|lease| *lease.server())
        else {
            return;
        };
        let has_an_indexer = self.holds_an_indexer(now);
        if has_an_indexer {
            self.without_since = None;
        }
        // The last beat tells an indexer that released us that another one has accepted us. Until
        // that is so, its lease runs on, beside that of a native that took us in.
        let superseded = |lease: &&Lease| {
            let gives_way = match lease.role() {
                Role::Native => true,
                Role::Indexer | Role::Node => lease.is_released() && has_an_indexer,
            };
            *lease.server() != keep && lease.is_secure(now) && gives_way
        };
        while let Some(server) = self.find_server(superseded) {
            let lease = self.leases.find(&server);
            if lease.is_some_and(|lease| lease.role() == Role::Indexer) {
                // It has sent this node away, so it is not asked for a spare lease at once.
                let until = now + REFUSED_PAUSE;
                self.failures.refused(now, &server, until);
            }
            self.leases.give_up(&server);
        }
        // Attempts that are no longer needed.
        while self.holds_an_indexer(now) && self.seeking() > self.config.min_indexers {
            let indexer = |lease: &&Lease| lease.role() == Role::Indexer && !lease.is_released();
            let surplus = self
                .find_server(|lease| indexer(lease) && lease.is_attempt())
                .or_else(|| self.find_server(|lease| indexer(lease) && !lease.is_secure(now)))
                .or_else(|| self.find_server(|lease| indexer(lease) && *lease.server() != keep));
            let Some(server) = surplus else { return };
            self.leases.give_up(&server);
        }
    }

    /// A released lease runs on until an indexer has accepted us. But at most as many are kept as
    /// leases are wanted, so that servers that release us cannot fill the table.
    pub(super) fn shed_released(&mut self) {
        let released = |lease: &&Lease| lease.is_released();
        while self.leases.iter().filter(released).count() > self.config.min_indexers.max(1) {
            let Some(oldest) = self.find_server(released) else {
                return;
            };
            self.leases.give_up(&oldest);
        }
    }

    /// The server of the first such lease.
    pub(super) fn find_server(&self, is_meant: impl Fn(&&Lease) -> bool) -> Option<PeerId> {
        let found = self.leases.iter().find(is_meant);
        found.map(|lease| *lease.server())
    }
}
