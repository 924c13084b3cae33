//! Signed records: the payload of a libp2p signed envelope (RFC 0002), signed with the subject's
//! own key.
//!
//! The host provides the envelope and its cryptography: a [`Verifier`] opens envelopes, and a
//! [`Signer`] makes them.
//!
//! Invariant: a record that opens here is authentic. Its signature verifies for its kind's domain
//! and type, and its subject is the signer. The caller must check whether the record is still valid
//! ([`RecordInfo::is_valid_copy`]), and whether it is the expected peer's ([`RecordInfo::peer`]).

mod contents;
mod errors;

use core::time::Duration;

use heapless::Vec;
use minicbor::{Encode, bytes::ByteSlice};

pub use super::envelope::{Flaw, Purpose, Verifier};
pub use contents::{contents, has_by_grant};
pub use errors::{RecordError, SignError};

use super::{
    DecodeError, NoRoom,
    cbor::{CborReader, List, TextMap, byte_strings, millis, required, write},
    grant::MAX_GRANT_LEN,
    link_service::LinkServices,
    service::{ServiceName, Services, read_services},
    to_name,
};
use crate::protocol::{
    Addr, MAX_ENVELOPE_LEN, MAX_NAME_LEN, PeerId, RecordInfo, Role, SignedRecord,
};

/// The two kinds of signed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An indexer's, `/indexer/<peer id>` in the DHT.
    Indexer,
    /// A node's, `/node/<peer id>` in the DHT.
    Node,
}

impl Kind {
    /// The kind of the records that a role signs; a native signs none.
    pub const fn of(role: Role) -> Self {
        match role {
            Role::Node => Self::Node,
            Role::Indexer | Role::Native => Self::Indexer,
        }
    }

    /// The domain that the signature is for (RFC 0002 of libp2p).
    pub const fn domain(self) -> &'static str {
        match self {
            Self::Indexer => "oc-discovery-indexer",
            Self::Node => "oc-discovery-node",
        }
    }

    /// The payload type in the envelope.
    pub const fn payload_type(self) -> &'static [u8] {
        match self {
            Self::Indexer => b"/oc/indexer-record/1",
            Self::Node => b"/oc/node-record/1",
        }
    }
}

/// Addresses in one record at most.
pub const MAX_RECORD_ADDRS: usize = 8;
/// Longest time to live of a record: one hour.
pub const MAX_TTL: Duration = Duration::from_millis(3_600_000);
/// Tags of a node at most.
pub const MAX_TAGS: usize = 8;
/// Bytes of a program's version at most.
pub const MAX_VERSION_LEN: usize = 16;
/// Bytes of all tags, keys and values, at most.
pub const MAX_TAG_BYTES: usize = 256;

/// The content of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its subject.
    pub peer: PeerId,
    /// Grows with every signature, across restarts.
    pub sequence: u64,
    /// Wall-clock time of the signature, ms since the Unix epoch.
    pub issued_at_ms: u64,
    /// Time to live from `issued_at_ms`, at most [`MAX_TTL`].
    pub ttl: Duration,
    /// Where the subject listens, best first; opaque.
    pub addrs: RecordAddrs<'a>,
    /// A node's name; empty for an indexer.
    pub name: &'a str,
    /// A node's tags; none for an indexer. They may be any text, so they must be escaped before
    /// they reach a terminal.
    pub tags: Tags<'a>,
    /// The services of a node; none for an indexer.
    pub services: Services,
    /// The version of the program that signed it; empty if the record has none. It may be any text,
    /// so it must be escaped before it reaches a terminal.
    pub version: &'a str,
    /// Services of devices of the local link, which a node lists; none for an indexer.
    pub link_services: LinkServices<'a>,
    /// The envelope of the subject's grant in a closed network, at most [`MAX_GRANT_LEN`] bytes;
    /// empty in an open one. It is not verified with the record.
    pub grant: &'a [u8],
}

/// The addresses of a record, each of 1 to 64 bytes.
pub type RecordAddrs<'a> = Vec<&'a [u8], MAX_RECORD_ADDRS, u8>;
/// The tags of a record, keys and values.
pub type Tags<'a> = Vec<(&'a str, &'a str), MAX_TAGS, u8>;

impl Record<'_> {
    /// Whether the node offers this service, or lists a device that does.
    pub fn offers(&self, service: &ServiceName) -> bool {
        let mut own = self.services.iter();
        own.any(|offered| offered.name == *service) || self.link_services.offer(service)
    }

    /// The parts that the rules need, with the first [`MAX_ADDRS`](crate::protocol::MAX_ADDRS)
    /// addresses.
    pub fn info(&self) -> RecordInfo {
        let mut info = RecordInfo {
            peer: self.peer,
            sequence: self.sequence,
            issued_at_ms: self.issued_at_ms,
            ttl: self.ttl,
            addrs: Default::default(),
            name: to_name(self.name).unwrap_or_default(),
        };
        for addr in self
            .addrs
            .iter()
            .filter_map(|addr| Addr::from_slice(addr).ok())
        {
            if info.addrs.push(addr).is_err() {
                break;
            }
        }
        info
    }
}

/// Makes envelopes, with the host's key.
pub trait Signer {
    /// The peer that signs.
    fn peer(&self) -> PeerId;

    /// Writes the signed envelope of the payload to the front of `buffer`, for the kind's domain
    /// and payload type. Returns its length, or `None` if there is no room.
    ///
    /// # Errors
    /// [`SignError::Key`].
    fn seal(
        &self,
        kind: Kind,
        payload: &[u8],
        buffer: &mut [u8],
    ) -> Result<Option<usize>, SignError>;
}

/// Opens a record and gives it to `read`.
///
/// # Errors
/// See [`RecordError`].
pub fn open<T>(
    verifier: &impl Verifier,
    kind: Kind,
    envelope: &[u8],
    read: impl FnOnce(&Record<'_>) -> T,
) -> Result<T, RecordError> {
    let length = envelope.len();
    if length > MAX_ENVELOPE_LEN {
        return Err(RecordError::TooLong { length });
    }
    let (signer, payload) = verifier.open(Purpose::Record(kind), envelope)?;
    let (record, left_out) = read_record(kind, payload.as_ref())?;
    if left_out > 0 {
        verifier.left_out(left_out);
    }
    if record.peer != signer {
        return Err(RecordError::WrongSubject);
    }
    verifier.admit(kind, &record).map_err(RecordError::Denied)?;
    Ok(read(&record))
}

impl<'a> SignedRecord<'a> {
    /// Opens a record and keeps its envelope.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn open(
        verifier: &impl Verifier,
        kind: Kind,
        envelope: &'a [u8],
    ) -> Result<Self, RecordError> {
        let info = open(verifier, kind, envelope, |record| record.info())?;
        Ok(Self { info, envelope })
    }
}

/// Signs a record of the signer itself. Returns the envelope, at the front of `buffer`. The last
/// services of the link and then the last addresses are dropped until it has at most
/// [`MAX_ENVELOPE_LEN`] bytes.
///
/// # Errors
/// See [`SignError`].
pub fn sign<'b>(
    signer: &impl Signer,
    kind: Kind,
    mut record: Record<'_>,
    buffer: &'b mut [u8; MAX_ENVELOPE_LEN],
) -> Result<&'b [u8], SignError> {
    if record.ttl > MAX_TTL {
        return Err(SignError::TimeToLive(record.ttl));
    }
    if kind == Kind::Node && to_name(record.name).is_none() {
        return Err(SignError::Name);
    }
    check_tags(&record.tags)?;
    record.peer = signer.peer();
    while !record.addrs.is_empty() {
        let mut payload = [0; MAX_ENVELOPE_LEN];
        if let Ok(payload) = encode_record(&record, &mut payload)
            && let Some(length) = signer.seal(kind, payload, buffer)?
        {
            return Ok(buffer.get(..length).unwrap_or_default());
        }
        match record.link_services.is_empty() {
            true => drop(record.addrs.pop()),
            false => record.link_services.pop(),
        }
    }
    Err(SignError::NoAddress)
}

fn check_tags(tags: &[(&str, &str)]) -> Result<(), SignError> {
    let lengths = tags.iter().map(|(key, value)| key.len() + value.len());
    let length = lengths.sum();
    if length > MAX_TAG_BYTES {
        return Err(SignError::TagsTooLong(length));
    }
    for (index, (key, _)) in tags.iter().enumerate() {
        if tags.iter().skip(index + 1).any(|(other, _)| other == key) {
            return Err(SignError::TagTwice);
        }
    }
    Ok(())
}

#[derive(Encode)]
#[cbor(map)]
struct RecordMap<'a, A, T, S, L> {
    #[n(0)]
    peer: &'a PeerId,
    #[n(1)]
    sequence: u64,
    #[n(2)]
    issued_at_ms: u64,
    #[n(3)]
    ttl: u64,
    #[n(4)]
    addrs: A,
    #[n(5)]
    name: Option<&'a str>,
    #[n(6)]
    tags: Option<T>,
    #[n(7)]
    services: Option<S>,
    #[n(8)]
    grant: Option<&'a ByteSlice>,
    #[n(9)]
    version: Option<&'a str>,
    #[n(10)]
    link_services: Option<L>,
}

/// Writes the payload of a record to `buffer`.
///
/// # Errors
/// See [`NoRoom`].
pub fn encode_record<'b>(record: &Record<'_>, buffer: &'b mut [u8]) -> Result<&'b [u8], NoRoom> {
    let map = RecordMap {
        peer: &record.peer,
        sequence: record.sequence,
        issued_at_ms: record.issued_at_ms,
        ttl: millis(record.ttl),
        addrs: byte_strings(&record.addrs),
        name: (!record.name.is_empty()).then_some(record.name),
        tags: (!record.tags.is_empty()).then_some(TextMap(&record.tags)),
        services: (!record.services.is_empty()).then_some(List(record.services.iter())),
        grant: (!record.grant.is_empty()).then(|| record.grant.into()),
        version: (!record.version.is_empty()).then_some(record.version),
        link_services: (!record.link_services.is_empty()).then_some(record.link_services),
    };
    write(&map, buffer)
}

/// Decodes the payload of a record, without addresses that cannot be dialled. The subject is not
/// verified here; [`open`] compares it with the signer.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_record(kind: Kind, payload: &[u8]) -> Result<Record<'_>, DecodeError> {
    read_record(kind, payload).map(|(record, _)| record)
}

/// The record, and how many of its addresses were left out.
fn read_record(kind: Kind, payload: &[u8]) -> Result<(Record<'_>, usize), DecodeError> {
    const FIELD: &str = "record";
    let node = kind == Kind::Node;
    let (mut peer, mut sequence, mut issued, mut ttl) = (None, None, None, None);
    let (mut addrs, mut name) = (None, None);
    let (mut tags, mut services, mut version) = (Tags::new(), Services::new(), "");
    let (mut link_services, mut grant, mut left_out) = (LinkServices::default(), &[][..], 0);
    CborReader::whole(payload, |r| {
        r.map(FIELD, |r, key| {
            match key {
                0 => peer = Some(r.peer("record's peer id")?),
                1 => sequence = Some(r.uint("record's sequence")?),
                2 => issued = Some(r.uint("record's time of issue")?),
                3 => ttl = Some(read_ttl(r)?),
                4 => addrs = Some(read_addrs(r)?),
                5 if node => name = Some(read_name(r)?),
                6 if node => tags = r.text_map("tags", MAX_TAG_BYTES)?,
                7 if node => services = read_services(r)?,
                8 => grant = r.bytes("grant", MAX_GRANT_LEN)?,
                9 => version = r.text("program's version", MAX_VERSION_LEN)?,
                10 if node => link_services = LinkServices::read(r)?,
                _ => r.skip(FIELD)?,
            }
            Ok(())
        })?;
        left_out = r.left_out();
        Ok(())
    })?;
    if node {
        required(name, FIELD, 5)?;
    }
    let record = Record {
        addrs: required(addrs, FIELD, 4)?,
        peer: required(peer, FIELD, 0)?,
        sequence: required(sequence, FIELD, 1)?,
        issued_at_ms: required(issued, FIELD, 2)?,
        ttl: required(ttl, FIELD, 3)?,
        name: name.unwrap_or_default(),
        tags,
        services,
        version,
        link_services,
        grant,
    };
    Ok((record, left_out))
}

fn read_ttl(r: &mut CborReader<'_>) -> Result<Duration, DecodeError> {
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

fn read_addrs<'b>(r: &mut CborReader<'b>) -> Result<RecordAddrs<'b>, DecodeError> {
    const FIELD: &str = "record's addresses";
    let addrs = r.dialable(FIELD, "1 to 8 addresses")?;
    if addrs.is_empty() {
        return Err(DecodeError::OutOfBounds {
            field: FIELD,
            bound: "1 to 8 addresses, of which one can be dialled",
        });
    }
    Ok(addrs)
}

fn read_name<'b>(r: &mut CborReader<'b>) -> Result<&'b str, DecodeError> {
    const FIELD: &str = "name";
    let text = r.text(FIELD, MAX_NAME_LEN)?;
    to_name(text).map(|_| text).ok_or(DecodeError::OutOfBounds {
        field: FIELD,
        bound: "1 to 63 of a-z 0-9 - .",
    })
}

#[cfg(test)]
mod tests;
