//! What a daemon answers on its control socket, and what tests check in a status.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use miniserde::{Deserialize, json};
use oc_discovery::embed::{LiveIndexer, Role, Status, StreamRecord, Table};

use super::Peer;

/// How long one read of an answer waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// The answer to a line on the control socket of a data directory; `None` if it cannot be read, for
/// example because too many clients ask, or if there is none in time.
pub(crate) fn answer<T: Deserialize>(dir: &Path, line: &str) -> Option<T> {
    let mut client = UnixStream::connect(dir.join("control.sock")).ok()?;
    client.set_read_timeout(Some(PATIENCE)).ok()?;
    // It fails if the daemon has refused already. Then the answer says this.
    let _ = writeln!(client, "{line}");
    let mut answer = String::new();
    client.read_to_string(&mut answer).ok()?;
    json::from_str(&answer).ok()
}

/// Questions about a status.
pub(crate) trait Look {
    fn live(&self, peer: &Peer) -> Option<&LiveIndexer>;
    fn knows(&self, peer: &Peer) -> bool;
    fn is_responsible_for(&self, peer: &Peer) -> bool;
    fn stream_record(&self, peer: &Peer) -> Option<&StreamRecord>;
    fn holds_lease_of(&self, peer: &Peer) -> bool;
    fn runs(&self, name: &str) -> u64;
    fn used(&self, table: &str) -> u64;
    fn table(&self, name: &str) -> &Table;
    /// Whether its only lease is one that a native granted.
    fn is_under_native(&self, peer: &Peer) -> bool;
}

impl Look for Status {
    fn live(&self, peer: &Peer) -> Option<&LiveIndexer> {
        let mut entries = self.live_indexers.iter();
        entries.find(|entry| entry.peer_id == peer.id)
    }

    fn knows(&self, peer: &Peer) -> bool {
        self.known_peer_ids.contains(&peer.id)
    }

    fn is_responsible_for(&self, peer: &Peer) -> bool {
        let mut nodes = self.responsible_peers.iter();
        nodes.any(|node| node.peer_id == peer.id)
    }

    fn stream_record(&self, peer: &Peer) -> Option<&StreamRecord> {
        let mut records = self.stream_records.iter();
        records.find(|record| record.peer_id == peer.id)
    }

    fn holds_lease_of(&self, peer: &Peer) -> bool {
        self.leases.iter().any(|lease| lease.peer_id == peer.id)
    }

    fn runs(&self, name: &str) -> u64 {
        self.loops[name].runs
    }

    fn used(&self, table: &str) -> u64 {
        self.table(table).used
    }

    fn table(&self, name: &str) -> &Table {
        let mut tables = self.tables.iter();
        tables.find(|table| table.name == name).unwrap()
    }

    fn is_under_native(&self, peer: &Peer) -> bool {
        matches!(&self.leases[..], [lease] if lease.peer_id == peer.id && lease.role == Role::Native)
    }
}
