//! The slots of connections that are to be looked at: whether one is reserved for a peer may change
//! with each lease that begins or ends here or elsewhere, and with each native.
//!
//! Invariant: no change is lost. If more peers wait than there is room for, the slots of all
//! connected peers are looked at.

use heapless::Deque;

use crate::protocol::{PeerId, capacities::MAX_NATIVES};

/// Peers that wait: two sets of natives, because a reload gives others before the next poll. They
/// may not be connected yet.
pub(super) const MAX_WAITING: usize = 2 * MAX_NATIVES;

/// Which slot is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangedSlot {
    Of(PeerId),
    OfAll,
}

/// The slots that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct ChangedSlots {
    peers: Deque<PeerId, MAX_WAITING>,
    are_all: bool,
}

impl ChangedSlots {
    /// The peer's slot may have to be reserved, or released.
    pub(super) fn changed(&mut self, peer: PeerId) {
        let is_known = self.peers.iter().any(|waiting| *waiting == peer);
        if !is_known && self.peers.push_back(peer).is_err() {
            self.are_all = true;
        }
    }

    /// Those of all connected peers may.
    pub(super) fn all_changed(&mut self) {
        self.are_all = true;
    }

    /// The next one.
    pub(super) fn next(&mut self) -> Option<ChangedSlot> {
        let peer = self.peers.pop_front().map(ChangedSlot::Of);
        peer.or_else(|| core::mem::take(&mut self.are_all).then_some(ChangedSlot::OfAll))
    }
}
