//! The DHT as all peers see it: a shared store with delays, which keeps old versions for a while.
//!
//! The last few versions of each record are kept. A search finds those that are visible at the
//! time, in any order. While there are network faults, it may find only some, or none.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use oc_discovery::protocol::{
    Addrs, PeerId, RecordInfo, Rng,
    codec::record::{Kind, Record, Tags},
    signing::record_ttl,
};

use crate::frames::{signed, verified};

/// Versions kept of one record.
const VERSIONS: usize = 3;

/// A signed record.
pub type Envelope = Rc<[u8]>;

struct Version {
    visible: u64,
    kind: Kind,
    info: RecordInfo,
    envelope: Envelope,
}

/// The store.
#[derive(Default)]
pub struct Dht {
    records: BTreeMap<PeerId, Vec<Version>>,
    /// How long a search that finds nothing takes, ms, because peers that do not answer delay it.
    pub fruitless: u64,
}

impl Dht {
    /// Puts a record that is visible from `visible` on.
    pub fn put(&mut self, visible: u64, kind: Kind, envelope: &[u8]) -> Result<(), String> {
        let info = verified(kind, envelope)?;
        let versions = self.records.entry(info.peer).or_default();
        versions.push(Version {
            visible,
            kind,
            info,
            envelope: envelope.into(),
        });
        if versions.len() > VERSIONS {
            versions.remove(0);
        }
        Ok(())
    }

    /// Whether a copy that is valid at wall-clock time `own_ms` has been visible since `before`.
    pub fn has_valid(&self, before: u64, own_ms: u64, peer: &PeerId) -> bool {
        let mut versions = self.records.get(peer).into_iter().flatten();
        versions.any(|version| version.visible <= before && version.info.is_valid_copy(own_ms))
    }

    /// The results of a search that begins at `now`, each with the time that it takes, and how long
    /// the search takes.
    pub fn search(
        &self,
        now: u64,
        (kind, peer): (Kind, &PeerId),
        faulty: bool,
        rng: &mut Rng,
    ) -> (Vec<(u64, Envelope)>, u64) {
        let slowest = if faulty { 6_000 } else { 2_000 };
        let lost = if faulty { rng.below(60) } else { 0 };
        let found: Vec<_> = self
            .records
            .get(peer)
            .into_iter()
            .flatten()
            .filter(|version| version.visible <= now && version.kind == kind)
            .filter_map(|version| {
                let late = rng.below(slowest);
                (rng.below(100) >= lost).then(|| (late, version.envelope.clone()))
            })
            .collect();
        let last = found.iter().map(|(late, _)| *late).max();
        let end = last.unwrap_or(self.fruitless) + rng.below(1_000);
        (found, end)
    }
}

/// A record that its subject signs at wall-clock time `own_ms`, under this name. After the real
/// address it has one that leads nowhere and identifies the record, so that a check can recognise
/// it in a table's entry.
pub fn record(
    kind: Kind,
    peer: PeerId,
    (sequence, own_ms): (u64, u64),
    lease: Duration,
    addr: &[u8],
    name: &str,
) -> Result<Envelope, String> {
    let marker = [&IP6_ULA[..], &sequence.to_be_bytes(), &TCP_1].concat();
    let record = Record {
        peer,
        sequence,
        issued_at_ms: own_ms,
        ttl: record_ttl(lease),
        addrs: [addr, &marker].into_iter().collect(),
        name,
        tags: Tags::new(),
        services: Default::default(),
        version: "",
        link_services: Default::default(),
        grant: &[],
    };
    signed(kind, record).map(Into::into)
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
