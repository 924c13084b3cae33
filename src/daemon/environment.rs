//! The network side, the core and the time, which the answers of the daemon need.

use super::clock;
use crate::{
    net::Net,
    protocol::{
        Addrs, Instant, Machine, Offer, PeerId, Report, Role, TableStats,
        clock::WallClock,
        lease::Lease,
        lease_table::StreamRecord,
        native::{LiveIndexer, Responsible},
        rivals::Contested,
    },
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
}

/// The peers that the core knows.
pub(super) struct Peers {
    now: Instant,
    /// The servers that grant us leases.
    pub(super) servers: Vec<(PeerId, Addrs, Role)>,
    /// The native's `live_indexers`.
    pub(super) live: Vec<Offer>,
    /// How many entries each of the core's tables has.
    pub(super) tables: Vec<(&'static str, usize)>,
}

impl Environment<'_> {
    /// The natives that this process is configured with.
    pub(super) fn natives(&self) -> Vec<PeerId> {
        let mut natives = Vec::new();
        self.machine.servers(self.now(), &mut |server| {
            if server.role == Role::Native {
                natives.push(server.peer);
            }
        });
        natives
    }

    /// Reserves a slot for the peer's connection if the core wants one, and releases it otherwise.
    /// Returns whether it is reserved.
    pub(super) fn reserve_slot(&mut self, peer: PeerId) -> bool {
        let is_kept = self.machine.reserves_slot(&peer);
        self.net.set_slot(peer, is_kept);
        is_kept
    }

    /// The peers that the core knows now.
    pub(super) fn peers(&self) -> Peers {
        let mut peers = Peers::new(self.now());
        self.machine.report(peers.now, &mut peers);
        peers
    }
}

impl Peers {
    /// Makes an empty set of peers.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            now,
            servers: Vec::new(),
            live: Vec::new(),
            tables: Vec::new(),
        }
    }
}

impl Report for Peers {
    fn live_indexer(&mut self, entry: &LiveIndexer) {
        self.live.push(entry.offer(self.now));
    }

    fn known_peer_id(&mut self, _: &PeerId) {}

    fn responsible_peer(&mut self, _: &Responsible) {}

    fn stream_record(&mut self, _: &StreamRecord) {}

    fn lease(&mut self, lease: &Lease) {
        self.servers
            .push((*lease.server(), lease.addrs().clone(), lease.role()));
    }

    fn background_loop(&mut self, _: &'static str, _: u64, _: Option<Instant>) {}

    fn table(&mut self, table: TableStats) {
        self.tables.push((table.name, table.used));
    }

    fn contested(&mut self, _: &Contested) {}
}
