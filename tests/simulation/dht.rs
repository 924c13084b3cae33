//! The DHT as everybody sees it: a shared store that is late and forgets nothing at once.
//!
//! The last few versions of each record are kept. A search finds those that are visible by now, in
//! any order; while the network is at fault it may find only some, or none.

use std::{collections::BTreeMap, time::Duration};

use oc_discovery::protocol::{Addr, Addrs, Name, PeerId, RecordInfo, Rng};

/// Versions of one record that are still around.
const VERSIONS: usize = 3;

/// The store.
#[derive(Default)]
pub struct Dht {
    records: BTreeMap<PeerId, Vec<(u64, RecordInfo)>>,
    /// How long a search that finds nothing takes, ms: peers that do not answer hold it up.
    pub fruitless: u64,
}

impl Dht {
    /// Puts a record that is to be seen from `visible` on.
    pub fn put(&mut self, visible: u64, record: RecordInfo) {
        let versions = self.records.entry(record.peer).or_default();
        versions.push((visible, record));
        if versions.len() > VERSIONS {
            versions.remove(0);
        }
    }

    /// Whether a copy that is valid at wall-clock time `own_ms` has been visible since `before`.
    pub fn has_valid(&self, before: u64, own_ms: u64, peer: &PeerId) -> bool {
        let mut versions = self.records.get(peer).into_iter().flatten();
        versions.any(|(visible, record)| *visible <= before && record.is_valid_copy(own_ms))
    }

    /// What a search begun at `now` finds, each with the time it takes, and how long the search
    /// takes.
    pub fn search(
        &self,
        now: u64,
        peer: &PeerId,
        faulty: bool,
        rng: &mut Rng,
    ) -> (Vec<(u64, RecordInfo)>, u64) {
        let slowest = if faulty { 6_000 } else { 2_000 };
        let lost = if faulty { rng.below(60) } else { 0 };
        let found: Vec<_> = self
            .records
            .get(peer)
            .into_iter()
            .flatten()
            .filter(|(visible, _)| *visible <= now)
            .filter_map(|(_, record)| {
                let late = rng.below(slowest);
                (rng.below(100) >= lost).then(|| (late, record.clone()))
            })
            .collect();
        let last = found.iter().map(|(late, _)| *late).max();
        let end = last.unwrap_or(self.fruitless) + rng.below(1_000);
        (found, end)
    }
}

/// A record that its subject signs at wall-clock time `own_ms`, under this name. Behind the address stands one that
/// leads nowhere and says which record this is, so that a check can tell from a table's entry.
pub fn record(
    peer: PeerId,
    sequence: u64,
    own_ms: u64,
    lease: Duration,
    addr: Addr,
    name: Name,
) -> RecordInfo {
    let marker = IP6_ULA
        .into_iter()
        .chain(sequence.to_be_bytes())
        .chain(TCP_1);
    RecordInfo {
        peer,
        sequence,
        issued_at_ms: own_ms,
        ttl: 3 * lease,
        addrs: [addr, marker.collect()].into_iter().collect(),
        name,
    }
}

/// The sequence of the record that these addresses come from.
pub fn sequence_of(addrs: &Addrs) -> Option<u64> {
    let marker = addrs.iter().find(|addr| addr.starts_with(&IP6_ULA))?;
    let sequence = marker.get(IP6_ULA.len()..)?.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*sequence))
}

/// The code of an IPv6 multiaddress and the first half of a unique local address.
const IP6_ULA: [u8; 9] = [0x29, 0xfd, 0, 0, 0, 0, 0, 0, 0];
/// A TCP port on which nothing listens.
const TCP_1: [u8; 3] = [6, 0, 1];
