//! Signed records: a libp2p signed envelope (RFC 0002) whose key is the subject's own.
//!
//! A record that opens here is proven: its signature verifies for its kind's domain and type, and its subject is the signer.
//! Whether it is still valid is a question of time, and whose it should be a question of place: both are the caller's
//! (`RecordInfo::is_valid_copy`, `RecordInfo::peer`).

use std::{fmt, time::Duration};

use libp2p::{
    Multiaddr,
    core::{SignedEnvelope, signed_envelope::ReadPayloadError},
    identity::Keypair,
};

use super::{
    DecodeError, Kind,
    cbor::{Reader, millis, required, written},
    peer_to_bytes, to_addr, to_multiaddr, to_name,
};
use crate::protocol::{Addrs, MAX_ADDRS, MAX_ENVELOPE_LEN, MAX_NAME_LEN, Name, PeerId, RecordInfo};

/// Addresses in one record at most.
pub const MAX_RECORD_ADDRS: usize = 8;
/// Longest time to live of a record: one hour.
pub const MAX_TTL: Duration = Duration::from_millis(3_600_000);
/// Tags of a node at most.
pub const MAX_TAGS: usize = 8;
/// Bytes of all tags, keys and values, at most.
pub const MAX_TAG_BYTES: usize = 256;

/// A record whose signature and bounds were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRecord {
    /// What the core needs of it; its addresses are the first [`MAX_ADDRS`].
    pub info: RecordInfo,
    /// All its addresses, best first; 1 to [`MAX_RECORD_ADDRS`].
    pub addrs: Vec<Multiaddr>,
    /// A node's tags; none for an indexer. Any text: escape it before it reaches a terminal.
    pub tags: Vec<(String, String)>,
}

/// Why an envelope does not open.
#[derive(Debug, PartialEq, Eq)]
pub enum RecordError {
    /// More than [`MAX_ENVELOPE_LEN`] bytes.
    TooLong {
        /// Bytes found.
        length: usize,
    },
    /// Not a signed envelope.
    NotAnEnvelope,
    /// An envelope of another payload type.
    WrongType,
    /// The signature does not verify for the record's domain.
    BadSignature,
    /// The key is not an Ed25519 key.
    NotEd25519,
    /// The subject is not the signer.
    WrongSubject,
    /// The payload is not a record.
    Payload(DecodeError),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length } => {
                write!(
                    f,
                    "signed record: has {length} bytes, at most {MAX_ENVELOPE_LEN} are allowed"
                )
            }
            Self::NotAnEnvelope => f.write_str("signed record: is not a signed envelope"),
            Self::WrongType => f.write_str("signed record: has another payload type"),
            Self::BadSignature => f.write_str("signed record: its signature does not verify"),
            Self::NotEd25519 => f.write_str("signed record: its key is not an Ed25519 key"),
            Self::WrongSubject => f.write_str("signed record: its subject is not its signer"),
            Self::Payload(error) => write!(f, "signed record: {error}"),
        }
    }
}

impl std::error::Error for RecordError {}

impl From<DecodeError> for RecordError {
    fn from(error: DecodeError) -> Self {
        Self::Payload(error)
    }
}

/// Why a record cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignError {
    /// The key is not an Ed25519 key, or cannot sign.
    Key,
    /// None of the addresses can be in a record.
    NoAddress,
    /// The time to live is over [`MAX_TTL`].
    TimeToLive(Duration),
    /// The name is not one.
    Name(String),
    /// Too many tags.
    TooManyTags(usize),
    /// Too many bytes in the tags.
    TagsTooLong(usize),
    /// A tag twice.
    TagTwice(String),
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("the identity is not an Ed25519 key that can sign"),
            Self::NoAddress => {
                f.write_str("no address can be announced: none has 1 to 64 bytes without /p2p")
            }
            Self::TimeToLive(ttl) => {
                write!(
                    f,
                    "the time to live of {ttl:?} is over the {MAX_TTL:?} allowed"
                )
            }
            Self::Name(name) => {
                write!(
                    f,
                    "the name {name:?} must have 1 to {MAX_NAME_LEN} of a-z 0-9 - ."
                )
            }
            Self::TooManyTags(count) => {
                write!(f, "{count} tags were given, at most {MAX_TAGS} are allowed")
            }
            Self::TagsTooLong(length) => {
                write!(
                    f,
                    "the tags have {length} bytes in all, at most {MAX_TAG_BYTES} are allowed"
                )
            }
            Self::TagTwice(key) => write!(f, "the tag {key:?} is given twice"),
        }
    }
}

impl std::error::Error for SignError {}

/// Signs an indexer's record. `issued_at_ms` is in ms since the Unix epoch. Addresses that cannot be in a record are left
/// out; of the others the last are dropped until the envelope has at most [`MAX_ENVELOPE_LEN`] bytes.
///
/// # Errors
/// See [`SignError`].
pub fn sign_indexer(
    key: &Keypair,
    sequence: u64,
    issued_at_ms: u64,
    ttl: Duration,
    addrs: &[Multiaddr],
) -> Result<Vec<u8>, SignError> {
    let payload = Payload::new(key, sequence, issued_at_ms, ttl)?;
    sign(Kind::Indexer, key, &payload, addrs)
}

/// Signs a node's record, as [`sign_indexer`] does an indexer's.
///
/// # Errors
/// See [`SignError`].
pub fn sign_node(
    key: &Keypair,
    sequence: u64,
    issued_at_ms: u64,
    ttl: Duration,
    addrs: &[Multiaddr],
    name: &str,
    tags: &[(String, String)],
) -> Result<Vec<u8>, SignError> {
    let mut payload = Payload::new(key, sequence, issued_at_ms, ttl)?;
    payload.name = to_name(name).ok_or_else(|| SignError::Name(name.into()))?;
    check_tags(tags)?;
    payload.tags = tags.to_vec();
    sign(Kind::Node, key, &payload, addrs)
}

/// Checks tags against the bounds of a node's record.
///
/// # Errors
/// More than [`MAX_TAGS`], more than [`MAX_TAG_BYTES`] in all, or one twice.
pub fn check_tags(tags: &[(String, String)]) -> Result<(), SignError> {
    if tags.len() > MAX_TAGS {
        return Err(SignError::TooManyTags(tags.len()));
    }
    let length = tags
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if length > MAX_TAG_BYTES {
        return Err(SignError::TagsTooLong(length));
    }
    for (index, (key, _)) in tags.iter().enumerate() {
        if tags.iter().skip(index + 1).any(|(other, _)| other == key) {
            return Err(SignError::TagTwice(key.clone()));
        }
    }
    Ok(())
}

/// Opens an indexer's record.
///
/// # Errors
/// See [`RecordError`].
pub fn open_indexer(envelope: &[u8]) -> Result<OpenRecord, RecordError> {
    open(Kind::Indexer, envelope)
}

/// Opens a node's record.
///
/// # Errors
/// See [`RecordError`].
pub fn open_node(envelope: &[u8]) -> Result<OpenRecord, RecordError> {
    open(Kind::Node, envelope)
}

impl Kind {
    fn domain(self) -> String {
        match self {
            Self::Indexer => "oc-discovery-indexer".into(),
            Self::Node => "oc-discovery-node".into(),
        }
    }

    fn payload_type(self) -> &'static [u8] {
        match self {
            Self::Indexer => b"/oc/indexer-record/1",
            Self::Node => b"/oc/node-record/1",
        }
    }
}

/// A record without its addresses.
struct Payload {
    subject: PeerId,
    sequence: u64,
    issued_at_ms: u64,
    ttl: Duration,
    name: Name,
    tags: Vec<(String, String)>,
}

impl Payload {
    fn new(
        key: &Keypair,
        sequence: u64,
        issued_at_ms: u64,
        ttl: Duration,
    ) -> Result<Self, SignError> {
        if ttl > MAX_TTL {
            return Err(SignError::TimeToLive(ttl));
        }
        Ok(Self {
            subject: PeerId::try_from(key.public().to_peer_id()).map_err(|_| SignError::Key)?,
            sequence,
            issued_at_ms,
            ttl,
            name: Name::new(),
            tags: Vec::new(),
        })
    }

    fn encode(&self, addrs: &[&Multiaddr]) -> Vec<u8> {
        written(|w| {
            w.map(5 + u64::from(!self.name.is_empty()) + u64::from(!self.tags.is_empty()))?;
            w.u8(0)?.bytes(&peer_to_bytes(&self.subject))?;
            w.u8(1)?.u64(self.sequence)?;
            w.u8(2)?.u64(self.issued_at_ms)?;
            w.u8(3)?.u64(millis(self.ttl))?;
            w.u8(4)?.array(addrs.len() as u64)?;
            for addr in addrs {
                w.bytes(addr.as_ref())?;
            }
            if !self.name.is_empty() {
                w.u8(5)?.str(&self.name)?;
            }
            if !self.tags.is_empty() {
                w.u8(6)?.map(self.tags.len() as u64)?;
                for (key, value) in &self.tags {
                    w.str(key)?.str(value)?;
                }
            }
            w.ok()
        })
    }
}

fn sign(
    kind: Kind,
    key: &Keypair,
    payload: &Payload,
    addrs: &[Multiaddr],
) -> Result<Vec<u8>, SignError> {
    let usable = addrs.iter().filter(|addr| to_addr(addr).is_ok());
    let mut addrs: Vec<&Multiaddr> = usable.take(MAX_RECORD_ADDRS).collect();
    while !addrs.is_empty() {
        let payload = payload.encode(&addrs);
        let envelope =
            SignedEnvelope::new(key, kind.domain(), kind.payload_type().to_vec(), payload)
                .map_err(|_| SignError::Key)?
                .into_protobuf_encoding();
        if envelope.len() <= MAX_ENVELOPE_LEN {
            return Ok(envelope);
        }
        addrs.pop();
    }
    Err(SignError::NoAddress)
}

fn open(kind: Kind, bytes: &[u8]) -> Result<OpenRecord, RecordError> {
    if bytes.len() > MAX_ENVELOPE_LEN {
        return Err(RecordError::TooLong {
            length: bytes.len(),
        });
    }
    let envelope =
        SignedEnvelope::from_protobuf_encoding(bytes).map_err(|_| RecordError::NotAnEnvelope)?;
    let (payload, signer) = envelope
        .payload_and_signing_key(kind.domain(), kind.payload_type())
        .map_err(|error| match error {
            ReadPayloadError::InvalidSignature => RecordError::BadSignature,
            ReadPayloadError::UnexpectedPayloadType { .. } => RecordError::WrongType,
        })?;
    let signer = PeerId::try_from(signer.to_peer_id()).map_err(|_| RecordError::NotEd25519)?;
    let record = decode(kind, payload)?;
    if record.info.peer != signer {
        return Err(RecordError::WrongSubject);
    }
    Ok(record)
}

fn decode(kind: Kind, bytes: &[u8]) -> Result<OpenRecord, DecodeError> {
    const FIELD: &str = "record";
    let node = kind == Kind::Node;
    let (mut subject, mut sequence, mut issued, mut ttl) = (None, None, None, None);
    let (mut addrs, mut name, mut tags) = (None, None, Vec::new());
    Reader::whole(bytes, |r| {
        r.map(FIELD, |r, key| {
            match key {
                0 => subject = Some(r.peer("record's peer id")?),
                1 => sequence = Some(r.uint("record's sequence")?),
                2 => issued = Some(r.uint("record's time of issue")?),
                3 => ttl = Some(read_ttl(r)?),
                4 => addrs = Some(read_addrs(r)?),
                5 if node => name = Some(read_name(r)?),
                6 if node => tags = r.text_map("tags", MAX_TAGS, MAX_TAG_BYTES)?,
                _ => r.skip(FIELD)?,
            }
            Ok(())
        })
    })?;
    if node {
        required(name.as_ref(), FIELD, 5)?;
    }
    let addrs = required(addrs, FIELD, 4)?;
    Ok(OpenRecord {
        info: RecordInfo {
            peer: required(subject, FIELD, 0)?,
            sequence: required(sequence, FIELD, 1)?,
            issued_at_ms: required(issued, FIELD, 2)?,
            ttl: required(ttl, FIELD, 3)?,
            addrs: first_addrs(&addrs)?,
            name: name.unwrap_or_default(),
        },
        addrs,
        tags,
    })
}

fn first_addrs(addrs: &[Multiaddr]) -> Result<Addrs, DecodeError> {
    let first = addrs.iter().take(MAX_ADDRS);
    Ok(first.map(to_addr).collect::<Result<Addrs, _>>()?)
}

fn read_ttl(r: &mut Reader<'_>) -> Result<Duration, DecodeError> {
    const FIELD: &str = "record's time to live";
    let ttl = r.millis(FIELD)?;
    if ttl > MAX_TTL {
        return Err(DecodeError::OutOfBounds {
            field: FIELD,
            bound: "at most 3600000 ms",
        });
    }
    Ok(ttl)
}

fn read_addrs(r: &mut Reader<'_>) -> Result<Vec<Multiaddr>, DecodeError> {
    const FIELD: &str = "record's addresses";
    let addrs = r.list::<Multiaddr, MAX_RECORD_ADDRS>(FIELD, |r| {
        Ok(to_multiaddr(r.bytes(FIELD, usize::MAX)?)?)
    })?;
    if addrs.is_empty() {
        return Err(DecodeError::OutOfBounds {
            field: FIELD,
            bound: "1 to 8 addresses",
        });
    }
    Ok(addrs.into_iter().collect())
}

fn read_name(r: &mut Reader<'_>) -> Result<Name, DecodeError> {
    const FIELD: &str = "name";
    let text = r.text(FIELD, MAX_NAME_LEN)?;
    to_name(text).ok_or(DecodeError::OutOfBounds {
        field: FIELD,
        bound: "1 to 63 of a-z 0-9 - .",
    })
}

#[cfg(test)]
mod tests;
