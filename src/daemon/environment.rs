//! The network side, the core and the time, which the answers of the daemon need.

use super::{
    clock,
    machines::{MAX_LISTINGS, ProgramListing, ProgramLookups, ProgramWatches},
};
use crate::{
    net::Net,
    protocol::{
        Action, Input, Instant, Machine, PeerId, closed::Closed, endpoint::Endpoint, restart,
    },
};

/// The core of the program.
pub(super) type ProgramEndpoint<'m> = Endpoint<
    &'m mut dyn Machine,
    &'m mut ProgramLookups,
    &'m mut ProgramWatches,
    Box<ProgramListing>,
    MAX_LISTINGS,
    Box<Closed>,
>;

/// The network side, the core and the time.
pub(super) struct Environment<'m> {
    pub(super) net: Net,
    pub(super) endpoint: ProgramEndpoint<'m>,
    pub(super) own: PeerId,
    /// The names of nodes that were released, the latest first.
    pub(super) released: Vec<(PeerId, String)>,
}

impl<'m> Environment<'m> {
    /// The core's machine, for queries.
    pub(super) fn machine(&self) -> &(dyn Machine + 'm) {
        self.endpoint.machine()
    }

    /// Gives the core what happened at `now`.
    pub(super) fn handle(&mut self, now: Instant, input: Input<'_>) {
        self.endpoint.handle(now, input);
    }

    /// The next action of the core at `now`.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Action> {
        let addrs = self.net.record_addrs().iter();
        self.endpoint.announce(addrs.map(AsRef::as_ref));
        self.endpoint.poll(now, clock::wall())
    }

    /// The time of all leases and timers.
    pub(super) fn now(&self) -> Instant {
        Instant::from_millis(clock::boottime())
    }

    /// The time of leases, and what the system clock shows, ms since the Unix epoch.
    pub(super) fn times(&self) -> (Instant, u64) {
        (self.now(), clock::wall())
    }

    /// The time to sign and judge records with, ms since the Unix epoch.
    pub(super) fn own_ms(&self) -> u64 {
        self.endpoint.own_ms(self.now(), clock::wall())
    }

    /// The same time, if it may be persisted; see [`Endpoint::settled_ms`].
    pub(super) fn settled_ms(&self) -> Option<u64> {
        self.endpoint.settled_ms(self.now(), clock::wall())
    }

    /// The natives that this process is configured with.
    pub(super) fn natives(&self) -> impl IntoIterator<Item = PeerId> + use<> {
        restart::natives(self.machine(), self.now())
    }
}
