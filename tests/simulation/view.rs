//! The state of a machine that `status` shows, kept for the checks.

use oc_discovery::protocol::{
    Contested, Draining, Instant, Lease, LiveIndexer, PeerId, Report, Responsible, StreamRecord,
    TableStats,
};

/// A report.
#[derive(Default)]
pub struct View {
    /// `live_indexers`.
    pub live: Vec<LiveIndexer>,
    /// `known_peer_ids`.
    pub known: Vec<PeerId>,
    /// `responsible_peers`.
    pub responsible: Vec<PeerId>,
    /// `stream_records`.
    pub records: Vec<StreamRecord>,
    /// Leases held elsewhere.
    pub leases: Vec<Lease>,
    /// All tables.
    pub tables: Vec<TableStats>,
    /// Identities that two devices use.
    pub contested: Vec<PeerId>,
    /// Whether it is being drained.
    pub is_drained: bool,
}

/// What a check remembers of a native's tables until the next check.
#[derive(Default)]
pub struct Seen {
    /// `live_indexers`: each one, the sequence of its record, and when its entry runs out.
    pub live: Vec<(PeerId, u64, Instant)>,
    /// `known_peer_ids`.
    pub known: Vec<PeerId>,
    /// Since when each id is in `known_peer_ids` without a break.
    pub known_since: Vec<(PeerId, u64)>,
    /// Indexers that were there and are known, and since when they are missing.
    pub missing: Vec<(PeerId, u64)>,
    /// How many entries of each table were evicted or found no room.
    pub turned_away: [u64; 2],
}

impl View {
    /// Empties it, to be filled again.
    pub fn clear(&mut self) {
        self.is_drained = false;
        self.live.clear();
        self.known.clear();
        self.responsible.clear();
        self.records.clear();
        self.leases.clear();
        self.tables.clear();
        self.contested.clear();
    }

    /// The peer's entry in `live_indexers`.
    pub fn live(&self, peer: &PeerId) -> Option<&LiveIndexer> {
        self.live.iter().find(|entry| entry.peer == *peer)
    }

    /// Whether the peer has a record in `stream_records`.
    pub fn has_record(&self, peer: &PeerId) -> bool {
        self.records.iter().any(|record| record.peer == *peer)
    }

    /// Whether the peer is in `live_indexers`.
    pub fn is_live(&self, peer: &PeerId) -> bool {
        self.live.iter().any(|entry| entry.peer == *peer)
    }

    /// Entries of a table, including expired ones that are not shown.
    pub fn used(&self, name: &str) -> usize {
        let mut tables = self.tables.iter();
        tables
            .find(|table| table.name == name)
            .map_or(0, |table| table.used)
    }

    /// Entries that a table has room for.
    pub fn capacity(&self, name: &str) -> usize {
        let mut tables = self.tables.iter();
        tables
            .find(|table| table.name == name)
            .map_or(0, |table| table.capacity)
    }

    /// Whether less than a tenth of the leases that a server can grant is free.
    pub fn is_short(&self) -> bool {
        let (used, all) = (self.used("stream_records"), self.capacity("stream_records"));
        (all - used) * 10 < all
    }

    /// Whether a table has no room.
    pub fn is_full(&self, name: &str) -> bool {
        self.tables
            .iter()
            .any(|table| table.name == name && table.used >= table.capacity)
    }
}

impl Report for View {
    fn draining(&mut self, _: Draining) {
        self.is_drained = true;
    }

    fn live_indexer(&mut self, entry: &LiveIndexer) {
        self.live.push(entry.clone());
    }

    fn known_peer_id(&mut self, peer: &PeerId) {
        self.known.push(*peer);
    }

    fn responsible_peer(&mut self, entry: &Responsible) {
        self.responsible.push(entry.peer);
    }

    fn stream_record(&mut self, record: &StreamRecord) {
        self.records.push(record.clone());
    }

    fn lease(&mut self, lease: &Lease) {
        self.leases.push(lease.clone());
    }

    fn table(&mut self, stats: TableStats) {
        self.tables.push(stats);
    }

    fn contested(&mut self, contested: &Contested) {
        self.contested.push(contested.peer);
    }
}
