//! Where a lease is opened anew.
//!
//! A server may grant a lease, name a third party's address beside its own, and hang up over and
//! over, or leave beats unanswered so that its connection is replaced. So what is dialled for a
//! lease that was there before counts as any other try, address by address; only where the lease
//! was carried last does it go on at its own pace.
//!
//! Invariant: to an address that did not carry it a lease leads no more often than [`Failures`]
//! allows. Leases with natives are left alone: a native's addresses are those that the operator
//! gave, and no peer can change them.
//!
//! [`Failures`]: super::failures::Failures

use super::Node;
use crate::protocol::{Addrs, Instant, PeerId, Role};

impl Node {
    /// Takes those of the addresses out that are not to be dialled now. If none is left, the stream
    /// can be opened over a connection that is there, or not at all.
    pub(super) fn spare_others(&mut self, now: Instant, server: &PeerId, addrs: &mut Addrs) {
        let Some(lease) = self.leases.find(server) else {
            return;
        };
        if lease.role() != Role::Native {
            let carried = lease.carried();
            *addrs = self.failures.reopen(now, addrs, carried, &mut self.rng);
        }
    }
}
