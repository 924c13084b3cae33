//! The parts that a device provides, for the example `runtime` and for `tests/no_std`: ids, an
//! address, a record, and a substitute for cryptography. It uses neither std nor an allocator.

use core::time::Duration;

use oc_discovery::protocol::{
    Addr, Addrs, Offer, PeerId, Terms,
    codec::record::{Flaw, Kind, Purpose, Record, SignError, Signer, Verifier},
    signing::record_ttl,
};

pub const NODE: PeerId = PeerId::from_bytes([1; 32]);
pub const NATIVE: PeerId = PeerId::from_bytes([2; 32]);
pub const INDEXER: PeerId = PeerId::from_bytes([3; 32]);
pub const TERMS: Terms = Terms {
    lease: Duration::from_secs(90),
    beat_interval: Duration::from_secs(30),
};
/// `/ip4/192.0.2.1/tcp/4820`, binary.
const ADDR: [u8; 8] = [4, 192, 0, 2, 1, 6, 0x12, 0xd4];

pub fn addrs() -> Addrs {
    Addr::from_slice(&ADDR).into_iter().collect()
}

/// The indexer, which the native offers.
pub fn offer() -> Offer {
    Offer {
        peer: INDEXER,
        addrs: addrs(),
        ttl: TERMS.lease,
        free: Some(8),
    }
}

/// The record that is signed for this time: a later one counts, and the same one ends.
pub fn own_record(sequence: u64) -> Record<'static> {
    Record {
        peer: NODE,
        sequence,
        issued_at_ms: 1,
        ttl: record_ttl(TERMS.lease),
        addrs: [&ADDR[..]].into_iter().collect(),
        name: "pump-3",
        tags: Default::default(),
        services: Default::default(),
        version: "",
        link_services: Default::default(),
        grant: &[],
    }
}

/// A substitute for cryptography, which a device provides: here an envelope is its payload, and
/// only the node signs.
pub struct Unsigned;

impl Verifier for Unsigned {
    fn open(&self, _: Purpose, envelope: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), Flaw> {
        Ok((NODE, envelope))
    }
}

impl Signer for Unsigned {
    fn peer(&self) -> PeerId {
        NODE
    }

    fn seal(&self, _: Kind, payload: &[u8], buffer: &mut [u8]) -> Result<Option<usize>, SignError> {
        Ok(buffer.get_mut(..payload.len()).map(|room| {
            room.copy_from_slice(payload);
            payload.len()
        }))
    }
}
