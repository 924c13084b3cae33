//! Signed envelopes (RFC 0002 of libp2p) with the keys of libp2p: the core's [`Verifier`] and
//! [`Signer`].

use std::{net::IpAddr, time::Duration};

use libp2p::{
    Multiaddr,
    core::{SignedEnvelope, signed_envelope::ReadPayloadError},
    identity::Keypair,
};

use super::{
    convert::{to_addr, to_multiaddr},
    undialable,
};
use crate::protocol::{
    MAX_ENVELOPE_LEN, PeerId, RecordInfo,
    codec::link_service::{LinkService, LinkServices, MAX_LINK_ADDRS},
    codec::record::{
        Flaw, Kind, MAX_RECORD_ADDRS, Purpose, Record, RecordError, SignError, Signer, Tags,
        Verifier, open, sign,
    },
    codec::service::{MAX_SERVICES, Service},
};

/// What a node announces about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// Its name; empty if it has none.
    pub name: String,
    /// Its tags. They may be any text, so they must be escaped before they reach a terminal.
    pub tags: Vec<(String, String)>,
    /// Its services.
    pub services: Vec<Service>,
    /// Services of devices of its link, which it lists.
    pub link_services: Vec<DeviceService>,
}

/// A service of a device of a node's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceService {
    /// The name under which the device announces it. It may be any text.
    pub(crate) device: String,
    /// The service.
    pub(crate) service: Service,
    /// Where the device is.
    pub(crate) addrs: Vec<IpAddr>,
}

/// A record with verified signature and bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenRecord {
    /// The parts that the core needs.
    pub info: RecordInfo,
    /// All its addresses that libp2p can read, best first; at most [`MAX_RECORD_ADDRS`].
    pub addrs: Vec<Multiaddr>,
    /// What a node announces about itself; empty for an indexer.
    pub about: About,
    /// The version of the program that signed it; empty if it is not told. It may be any text, so
    /// it must be escaped before it reaches a terminal.
    pub version: String,
}

/// When a record is signed, and for how long it counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp<'a> {
    /// Its sequence.
    pub(crate) sequence: u64,
    /// Wall-clock time, ms since the Unix epoch.
    pub(crate) issued_at_ms: u64,
    /// Its time to live.
    pub(crate) ttl: Duration,
    /// The envelope of the signer's grant in a closed network; empty in an open one.
    pub(crate) grant: &'a [u8],
}

/// Signs the own record: that of a node if it says something about itself, otherwise that of an
/// indexer. Addresses that cannot be in a record are left out; of the others the last are dropped
/// until the envelope has at most [`MAX_ENVELOPE_LEN`] bytes.
///
/// # Errors
/// See [`SignError`].
pub(crate) fn sign_own(
    key: &Keypair,
    stamp: Stamp<'_>,
    addrs: &[Multiaddr],
    about: Option<&About>,
) -> Result<Vec<u8>, SignError> {
    match about {
        Some(about) => sign_record(Kind::Node, key, stamp, addrs, about),
        None => sign_record(Kind::Indexer, key, stamp, addrs, &About::default()),
    }
}

/// [`sign_own`] for an indexer of an open network.
///
/// # Errors
/// See [`SignError`].
#[cfg(test)]
pub(crate) fn sign_indexer(
    key: &Keypair,
    sequence: u64,
    issued_at_ms: u64,
    ttl: Duration,
    addrs: &[Multiaddr],
) -> Result<Vec<u8>, SignError> {
    let stamp = Stamp {
        sequence,
        issued_at_ms,
        ttl,
        grant: &[],
    };
    sign_own(key, stamp, addrs, None)
}

/// [`sign_own`] for a node of an open network.
///
/// # Errors
/// See [`SignError`].
#[cfg(test)]
pub(crate) fn sign_node(
    key: &Keypair,
    sequence: u64,
    issued_at_ms: u64,
    ttl: Duration,
    addrs: &[Multiaddr],
    about: &About,
) -> Result<Vec<u8>, SignError> {
    let stamp = Stamp {
        sequence,
        issued_at_ms,
        ttl,
        grant: &[],
    };
    sign_own(key, stamp, addrs, Some(about))
}

/// Opens an indexer's record.
///
/// # Errors
/// See [`RecordError`].
pub(crate) fn open_indexer(envelope: &[u8]) -> Result<OpenRecord, RecordError> {
    open(&Libp2p, Kind::Indexer, envelope, opened)
}

/// Opens a node's record.
///
/// # Errors
/// See [`RecordError`].
pub(crate) fn open_node(envelope: &[u8]) -> Result<OpenRecord, RecordError> {
    open(&Libp2p, Kind::Node, envelope, opened)
}

/// The [`Verifier`] that uses libp2p's keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Libp2p;

impl Verifier for Libp2p {
    fn open(&self, purpose: Purpose, envelope: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), Flaw> {
        let envelope =
            SignedEnvelope::from_protobuf_encoding(envelope).map_err(|_| Flaw::NotAnEnvelope)?;
        let (payload, signer) = envelope
            .payload_and_signing_key(purpose.domain().into(), purpose.payload_type())
            .map_err(|error| match error {
                ReadPayloadError::InvalidSignature => Flaw::BadSignature,
                ReadPayloadError::UnexpectedPayloadType { .. } => Flaw::WrongType,
            })?;
        let signer = PeerId::try_from(signer.to_peer_id()).map_err(|_| Flaw::NotEd25519)?;
        Ok((signer, payload.to_vec()))
    }

    fn left_out(&self, addresses: usize) {
        undialable::leave_out(addresses);
    }
}

/// The envelope of a payload, for this purpose.
///
/// # Errors
/// [`SignError::Key`].
pub(super) fn seal(key: &Keypair, purpose: Purpose, payload: &[u8]) -> Result<Vec<u8>, SignError> {
    let (domain, of_type) = (purpose.domain(), purpose.payload_type());
    SignedEnvelope::new(key, domain.into(), of_type.to_vec(), payload.to_vec())
        .map(SignedEnvelope::into_protobuf_encoding)
        .map_err(|_| SignError::Key)
}

/// Signs with a key pair.
#[derive(Debug)]
pub(crate) struct Keys<'a> {
    key: &'a Keypair,
    peer: PeerId,
}

impl<'a> Keys<'a> {
    /// The signer with this key.
    ///
    /// # Errors
    /// [`SignError::Key`] if it is not an Ed25519 key.
    pub(crate) fn new(key: &'a Keypair) -> Result<Self, SignError> {
        let peer = PeerId::try_from(key.public().to_peer_id()).map_err(|_| SignError::Key)?;
        Ok(Self { key, peer })
    }
}

impl Signer for Keys<'_> {
    fn peer(&self) -> PeerId {
        self.peer
    }

    fn seal(
        &self,
        kind: Kind,
        payload: &[u8],
        buffer: &mut [u8],
    ) -> Result<Option<usize>, SignError> {
        let envelope = seal(self.key, Purpose::Record(kind), payload)?;
        Ok(buffer.get_mut(..envelope.len()).map(|room| {
            room.copy_from_slice(&envelope);
            envelope.len()
        }))
    }
}

fn sign_record(
    kind: Kind,
    key: &Keypair,
    stamp: Stamp<'_>,
    addrs: &[Multiaddr],
    about: &About,
) -> Result<Vec<u8>, SignError> {
    let signer = Keys::new(key)?;
    let mut kept = Tags::new();
    for (key, value) in &about.tags {
        let tag = (key.as_str(), value.as_str());
        kept.push(tag)
            .map_err(|_| SignError::TooManyTags(about.tags.len()))?;
    }
    let devices = about.link_services.iter().map(|it| LinkService {
        device: &it.device,
        service: it.service.clone(),
        addrs: it.addrs.iter().copied().take(MAX_LINK_ADDRS).collect(),
    });
    let devices: Vec<_> = devices.collect();
    let mut room = [0; MAX_ENVELOPE_LEN];
    let usable = addrs.iter().filter(|addr| to_addr(addr).is_ok());
    let record = Record {
        peer: signer.peer(),
        sequence: stamp.sequence,
        issued_at_ms: stamp.issued_at_ms,
        ttl: stamp.ttl,
        addrs: usable.map(AsRef::as_ref).take(MAX_RECORD_ADDRS).collect(),
        name: &about.name,
        tags: kept,
        services: about.services.iter().take(MAX_SERVICES).cloned().collect(),
        version: env!("CARGO_PKG_VERSION"),
        link_services: LinkServices::new(devices.iter(), &mut room),
        grant: stamp.grant,
    };
    sign(&signer, kind, record, &mut [0; MAX_ENVELOPE_LEN]).map(<[u8]>::to_vec)
}

/// The record, with its addresses as multiaddresses. Those that cannot be read are left out.
pub(crate) fn opened(record: &Record<'_>) -> OpenRecord {
    let addrs = record.addrs.iter().map(|addr| to_multiaddr(addr));
    let tags = record.tags.iter();
    OpenRecord {
        info: record.info(),
        addrs: addrs.filter_map(Result::ok).collect(),
        about: About {
            name: record.name.into(),
            tags: tags
                .map(|&(key, value)| (key.into(), value.into()))
                .collect(),
            services: record.services.to_vec(),
            link_services: record.link_services.iter().map(listed).collect(),
        },
        version: record.version.into(),
    }
}

fn listed(it: LinkService<'_>) -> DeviceService {
    DeviceService {
        device: it.device.into(),
        service: it.service,
        addrs: it.addrs.to_vec(),
    }
}

#[cfg(test)]
mod tests;
