//! Addresses of other peers that cannot be dialled: an unspecified, multicast or broadcast address,
//! or port 0.
//!
//! Invariant: whoever takes in addresses of others leaves these out and counts them here, so that
//! none of them is dialled, stored or handed out. The codec leaves them out of records and offers,
//! this module out of what identify and the DHT bring.

use std::cell::Cell;

use libp2p::Multiaddr;

use crate::protocol::address::can_be_dialled;

thread_local! {
    static LEFT_OUT: Cell<u64> = const { Cell::new(0) };
}

/// Whether the address can be kept. If not, it is counted.
pub(super) fn is_kept(addr: &Multiaddr) -> bool {
    let can = can_be_dialled(addr.as_ref());
    leave_out(usize::from(!can));
    can
}

/// Counts so many addresses of others that were left out.
pub(crate) fn leave_out(addresses: usize) {
    LEFT_OUT.set(LEFT_OUT.get().saturating_add(addresses as u64));
}

/// How many this thread has left out.
pub(crate) fn left_out() -> u64 {
    LEFT_OUT.get()
}
