//! The addresses at which the stream of a lease is opened again.
//!
//! A server may grant a lease, name the address of a third party beside its own, and then
//! repeatedly close the stream, or leave beats unanswered so that its connection is replaced. So
//! each address that is dialled for an existing lease counts as a normal attempt. Only the address
//! that last carried the lease is dialled as often as the lease needs.
//!
//! Invariant: an address that did not carry the lease is dialled for it no more often than
//! [`Failures`] allows. Leases with natives are exempt, because the operator gave the addresses of
//! a native, and no peer can change them.
//!
//! [`Failures`]: super::failures::Failures

use super::Node;
use crate::protocol::{Addrs, Instant, PeerId, Role};

impl Node {
    /// Removes the addresses that must not be dialled now. If none is left, the stream can only be
    /// opened over an existing connection.
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
