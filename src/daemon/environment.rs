//! The network side, the core and the time, which the answers of the daemon need.

use super::clock;
use crate::{
    net::Net,
    protocol::{Instant, Machine, PeerId, clock::WallClock, restart},
};

/// The network side, the core and the time.
pub(super) struct Environment<'m> {
    pub(super) net: Net,
    pub(super) machine: &'m mut dyn Machine,
    pub(super) own: PeerId,
    pub(super) wall: WallClock,
}

impl Environment<'_> {
    /// The time of all leases and timers.
    pub(super) fn now(&self) -> Instant {
        Instant::from_millis(clock::boottime())
    }

    /// The time to sign and judge records with, ms since the Unix epoch.
    pub(super) fn own_ms(&self) -> u64 {
        self.wall.own_ms(self.now(), clock::wall())
    }

    /// The same time, if it may be persisted; see [`WallClock::settled_ms`].
    pub(super) fn settled_ms(&self) -> Option<u64> {
        self.wall.settled_ms(self.now(), clock::wall())
    }

    /// The natives that this process is configured with.
    pub(super) fn natives(&self) -> impl IntoIterator<Item = PeerId> + use<> {
        restart::natives(self.machine, self.now())
    }

    /// Reserves a slot for the peer's connection if the core wants one, and releases it otherwise.
    /// Returns whether it is reserved.
    pub(super) fn reserve_slot(&mut self, peer: PeerId) -> bool {
        let is_kept = self.machine.reserves_slot(&peer);
        self.net.set_slot(peer, is_kept);
        is_kept
    }
}
