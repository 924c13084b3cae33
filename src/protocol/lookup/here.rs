//! What lookups and listings need to know of the process that they run in.

use core::time::Duration;

use crate::protocol::{
    Addrs, Cursor, Entry, IndexersPage, Instant, Machine, PeerId, Presence, Role, Selection,
    directory::{Claimants, Found},
};

/// How long after a server has taken leave its nodes are with others, or at least known to be away.
pub const MOVED: Duration = Duration::from_secs(10);

/// The process, as listings know it.
pub trait Home {
    /// The role of this process.
    fn role(&self) -> Role;
    /// One page of the indexers that are alive, if this is a native.
    fn page(&mut self, now: Instant, from: Cursor, most: usize) -> IndexersPage<'_>;
    /// Where the peer listens, if this is known.
    fn addrs_of(&self, peer: &PeerId) -> Option<&Addrs>;
    /// Calls `tell` for each server of this process: its natives, and those with which it holds
    /// leases.
    fn servers(&self, now: Instant, tell: &mut dyn FnMut(KnownServer));
    /// See [`Machine::entries`].
    fn entries<'s>(
        &'s self,
        now: Instant,
        which: Selection<'_>,
        visit: &mut dyn FnMut(Entry<'s>) -> bool,
    ) -> Option<PeerId>;
}

/// The process, as lookups know it.
pub trait Here: Home {
    /// See [`Machine::claimants`].
    fn claimants(&self, now: Instant, name: &str) -> Claimants<'_>;
    /// See [`Machine::listed`].
    fn listed(&self, now: Instant, peer: &PeerId) -> Option<Found<'_>>;
    /// Whether this server has given up its lease here in order, [`MOVED`] ago at least, and was
    /// not heard of since.
    fn has_left(&self, now: Instant, server: &PeerId) -> bool;
}

/// A server of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownServer {
    /// The server.
    pub peer: PeerId,
    /// Its role: an indexer, or a configured native.
    pub role: Role,
    /// Whether a lease is held with it over an open stream.
    pub is_held: bool,
}

impl<M: Machine + ?Sized> Home for M {
    fn role(&self) -> Role {
        Machine::role(self)
    }

    fn page(&mut self, now: Instant, from: Cursor, most: usize) -> IndexersPage<'_> {
        Machine::page(self, now, None, from, most)
    }

    fn addrs_of(&self, peer: &PeerId) -> Option<&Addrs> {
        Machine::addrs_of(self, peer)
    }

    fn servers(&self, now: Instant, tell: &mut dyn FnMut(KnownServer)) {
        Machine::servers(self, now, tell);
    }

    fn entries<'s>(
        &'s self,
        now: Instant,
        which: Selection<'_>,
        visit: &mut dyn FnMut(Entry<'s>) -> bool,
    ) -> Option<PeerId> {
        Machine::entries(self, now, which, visit)
    }
}

impl<M: Machine + ?Sized> Here for M {
    fn claimants(&self, now: Instant, name: &str) -> Claimants<'_> {
        Machine::claimants(self, now, name)
    }

    fn listed(&self, now: Instant, peer: &PeerId) -> Option<Found<'_>> {
        Machine::listed(self, now, peer)
    }

    fn has_left(&self, now: Instant, server: &PeerId) -> bool {
        let gone = Machine::lost(self).and_then(|lost| lost.find(server));
        let has_left = gone.is_some_and(|gone| {
            gone.role != Role::Node && gone.presence == Presence::Left && gone.age(now) >= MOVED
        });
        has_left && Machine::role_of(self, server).is_none()
    }
}
