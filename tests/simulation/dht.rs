//! The DHT as everybody sees it: a shared store that is late and forgets nothing at once.
//!
//! The last few versions of each record are kept. A search finds those that are visible by now, in any order; while the
//! network is at fault it may find only some, or none.

use std::{collections::BTreeMap, time::Duration};

use oc_discovery::protocol::{PeerId, RecordInfo, Rng};

/// Versions of one record that are still around.
const VERSIONS: usize = 3;

/// The store.
#[derive(Default)]
pub struct Dht(BTreeMap<PeerId, Vec<(u64, RecordInfo)>>);

impl Dht {
    /// Puts a record that is to be seen from `visible` on.
    pub fn put(&mut self, visible: u64, record: RecordInfo) {
        let versions = self.0.entry(record.peer).or_default();
        versions.push((visible, record));
        if versions.len() > VERSIONS {
            versions.remove(0);
        }
    }

    /// What a search begun at `now` finds, each with the time it takes, and how long the search takes.
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
            .0
            .get(peer)
            .into_iter()
            .flatten()
            .filter(|(visible, _)| *visible <= now)
            .filter_map(|(_, record)| {
                let late = rng.below(slowest);
                (rng.below(100) >= lost).then(|| (late, record.clone()))
            })
            .collect();
        let end = found.iter().map(|(late, _)| *late).max().unwrap_or(0) + rng.below(1_000);
        (found, end)
    }
}

/// A record that its subject signs at wall-clock time `own_ms`.
pub fn record(
    peer: PeerId,
    sequence: u64,
    own_ms: u64,
    lease: Duration,
    addr: &[u8],
) -> RecordInfo {
    let mut addrs = oc_discovery::protocol::Addrs::new();
    addrs
        .push(addr.iter().copied().collect())
        .expect("room for one address");
    RecordInfo {
        peer,
        sequence,
        issued_at_ms: own_ms,
        ttl: 3 * lease,
        addrs,
        name: Default::default(),
    }
}
