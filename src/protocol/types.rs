//! The types of the protocol: peers, addresses, offers, beats, acknowledgements, requests.
//!
//! Invariants: all types are bounded; records are verified before they reach the core, which keeps
//! their envelopes as opaque bytes. `codec` converts the types from and to bytes.

mod ack;
mod listing;

use core::{cmp::Ordering, fmt, time::Duration};

use heapless::{String, Vec};

use super::life::Arrival;

pub use ack::{Ack, AckBuf, AckCode, LeaseAnswer};
pub use listing::{
    Entries, EntriesPage, Entry, Filter, MAX_ENTRIES, Presence, Selection, Subject, TooManyTags,
};

/// Addresses an offer carries at most (PROTOCOL.md).
pub const MAX_ADDRS: usize = 4;
/// Bytes of one multiaddress at most (PROTOCOL.md).
pub const MAX_ADDR_LEN: usize = 64;
/// Bytes of one signed record at most (PROTOCOL.md).
pub const MAX_ENVELOPE_LEN: usize = 1024;
/// Offers, known ids or records in one message at most (PROTOCOL.md).
pub const MAX_LIST: usize = 16;
/// Bytes of a reason for a person at most (PROTOCOL.md).
pub const MAX_REASON_LEN: usize = 128;
/// Bytes of a node's name at most (PROTOCOL.md).
pub const MAX_NAME_LEN: usize = 63;

/// A peer: its Ed25519 public key. The libp2p peer id is this key in an identity multihash, so the
/// two convert without loss.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// The peer with this Ed25519 public key.
    pub const fn from_bytes(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The Ed25519 public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight bytes as one number, which is ordered as they are.
    #[inline]
    pub(crate) const fn head(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// The order of the bytes. Two keys nearly always differ in the first eight, which are compared as
/// one number.
impl Ord for PeerId {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match self.head().cmp(&other.head()) {
            Ordering::Equal => self.0.cmp(&other.0),
            decided => decided,
        }
    }
}

impl PartialOrd for PeerId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}…")
    }
}

/// A multiaddress in binary form, without `/p2p`; opaque here.
pub type Addr = Vec<u8, MAX_ADDR_LEN, u8>;
/// The addresses of one peer, best first.
pub type Addrs = Vec<Addr, MAX_ADDRS, u8>;
/// A node's name.
pub type Name = String<MAX_NAME_LEN, u8>;
/// A sentence for people.
pub type Reason = String<MAX_REASON_LEN, u8>;

/// The beginning of the text, of whole characters and at most this many bytes.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most))
        .unwrap_or_default()
}

/// As much of the text as a reason holds.
pub fn reason_of(text: &str) -> Reason {
    Reason::try_from(cut(text, MAX_REASON_LEN)).unwrap_or_default()
}

/// The peers that a native reports to another native.
pub type PeerList = Vec<PeerId, MAX_LIST, u8>;
/// Where to go, best first.
pub type Offers = Vec<Offer, MAX_LIST, u8>;

/// The role of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Can be found, and finds others.
    Node,
    /// Grants leases to nodes, holds leases with natives, and answers lookups.
    Indexer,
    /// The well-known entry point: hands indexers out, and takes nodes in while there is none.
    Native,
}

impl Role {
    /// All roles, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Native, Self::Indexer, Self::Node];

    /// The name of the role, which is also that of its command, of its directory, and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Indexer => "indexer",
            Self::Node => "node",
        }
    }

    /// The role with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How full an indexer or native is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Leases held now.
    pub held: u32,
    /// Leases possible.
    pub possible: u32,
}

/// The greatest number of leases that a server may report (PROTOCOL.md).
const MAX_LOAD: u32 = 65_535;

impl Load {
    /// Limits both counts to the protocol's bound.
    pub fn clamped(self) -> Self {
        Self {
            held: self.held.min(MAX_LOAD),
            possible: self.possible.min(MAX_LOAD),
        }
    }
}

/// An indexer that a native hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The indexer.
    pub peer: PeerId,
    /// Where it listens, best first; never empty.
    pub addrs: Addrs,
    /// The remaining time to live of the native's entry.
    pub ttl: Duration,
    /// Free leases, if the native knows.
    pub free: Option<u32>,
}

/// The content of a verified signed record that the core needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordInfo {
    /// Its subject, which is also its signer.
    pub peer: PeerId,
    /// Grows with every signature, across restarts.
    pub sequence: u64,
    /// Wall-clock time of the signature, ms since the Unix epoch.
    pub issued_at_ms: u64,
    /// Time to live from `issued_at_ms`, at most an hour.
    pub ttl: Duration,
    /// Where the subject listens, best first; the first [`MAX_ADDRS`] of the record.
    pub addrs: Addrs,
    /// A node's name; empty for an indexer.
    pub name: Name,
}

/// The order of records: the latest ExpiresAt, then the higher sequence (PROTOCOL.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordRank {
    /// [`RecordInfo::expires_at_ms`]. It is compared first.
    pub expires_at_ms: u64,
    /// [`RecordInfo::sequence`].
    pub sequence: u64,
}

/// How far ahead of the own time a DHT copy may have been issued (PROTOCOL.md): 2 minutes.
const MAX_AHEAD_MS: u64 = 120_000;

impl RecordInfo {
    /// ExpiresAt: the wall-clock time at which the record expires, ms since the Unix epoch.
    pub fn expires_at_ms(&self) -> u64 {
        self.issued_at_ms
            .saturating_add(u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX))
    }

    /// Wall-clock time before which a copy from the DHT does not count because it is from the
    /// future, ms since the Unix epoch.
    pub fn counts_from_ms(&self) -> u64 {
        self.issued_at_ms.saturating_sub(MAX_AHEAD_MS)
    }

    /// Whether a copy from the DHT counts at wall-clock time `own_ms`: it has not expired, and is
    /// not from the future.
    pub fn is_valid_copy(&self, own_ms: u64) -> bool {
        (self.counts_from_ms()..=self.expires_at_ms()).contains(&own_ms)
    }

    /// Its rank among the records of its subject.
    pub fn rank(&self) -> RecordRank {
        RecordRank {
            expires_at_ms: self.expires_at_ms(),
            sequence: self.sequence,
        }
    }
}

/// Which server publishes the sender's record in the DHT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Publisher {
    /// The server that the beat goes to.
    #[default]
    Receiver,
    /// Another server, with which the sender holds a lease. The lease requested here is spare.
    Another,
}

/// A record with a verified signature, and the envelope that it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRecord<'a> {
    /// Its content.
    pub info: RecordInfo,
    /// At most [`MAX_ENVELOPE_LEN`] bytes.
    pub envelope: &'a [u8],
}

#[cfg(test)]
impl SignedRecord<'static> {
    /// The record with an empty envelope, for tests.
    pub(crate) fn of(info: &RecordInfo) -> Self {
        Self {
            info: info.clone(),
            envelope: b"signed",
        }
    }
}

/// A beat as its receiver sees it. After decoding, its record `R` is an envelope, `&[u8]`; after
/// opening, it is a [`SignedRecord`]. Only an opened beat is given to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat<R> {
    /// 0, 1, 2 … on each stream.
    pub sequence: u64,
    /// The role that the sender states.
    pub role: Role,
    /// The requested lease; zero gives the lease up. Not clamped.
    pub lease: Duration,
    /// The sender's own record.
    pub record: Option<R>,
    /// Where the sender's record is published.
    pub publisher: Publisher,
    /// How full the sender is. Not clamped.
    pub load: Option<Load>,
    /// Indexers that the sender, a native, knows.
    pub known: PeerList,
}

impl<R> Beat<R> {
    /// The first beat of a stream, which requests this lease and has no other content.
    pub fn new(role: Role, lease: Duration) -> Self {
        Self {
            sequence: 0,
            role,
            lease,
            record: None,
            publisher: Publisher::Receiver,
            load: None,
            known: PeerList::new(),
        }
    }
}

/// A beat to be sent. The driver adds the sequence and, if `with_record`, the own record. For a
/// native it also adds [`Machine::beat_known`](super::Machine::beat_known).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutBeat {
    /// The role of this process.
    pub role: Role,
    /// Lease asked for; zero gives the lease up.
    pub lease: Duration,
    /// Whether the own signed record goes with it.
    pub with_record: bool,
    /// Whether it goes on a new stream over a new connection, beside the present one. The present
    /// one may be silent and is used for nothing else. It is closed when the new one is made. If it
    /// brings its ack before that, it stays, and the new one is not used for the beat.
    pub fresh: bool,
    /// Where the own record is published.
    pub publisher: Publisher,
    /// How full this process is.
    pub load: Option<Load>,
}

impl OutBeat {
    /// The last beat of a lease, which gives it up.
    pub const fn last(role: Role) -> Self {
        Self {
            role,
            lease: Duration::ZERO,
            with_record: false,
            fresh: false,
            publisher: Publisher::Receiver,
            load: None,
        }
    }
}

/// The result of a beat: its answer, and more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeatOutcome<'a> {
    /// The answer to send.
    pub ack: Ack<'a>,
    /// The beat brought a record that the DHT does not have yet: PUT it once.
    pub publish: bool,
    /// What it has changed for the sender.
    pub arrival: Arrival,
}

impl<'a> From<Ack<'a>> for BeatOutcome<'a> {
    fn from(ack: Ack<'a>) -> Self {
        Self {
            ack,
            publish: false,
            arrival: Arrival::Known,
        }
    }
}

/// Whether a peer can be reached, according to its last beat or a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A beat or a pong came.
    Reachable,
    /// No pong came in time.
    Silent,
}

/// Why a node asks for indexers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// Only asking.
    #[default]
    Nothing,
    /// Wants a lease.
    Lease,
    /// Wants one, and every offer failed.
    OffersFailed,
}

/// A native's answer to a request for indexers. The offers are its sender's, or those of the buffer
/// into which it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexersAnswer<'a> {
    /// Indexers, best first; at most [`MAX_LIST`].
    pub offers: &'a [Offer],
    /// The native will take the node in. The node's first beat makes the entry.
    pub takes_in: bool,
}

/// Where a page of indexers begins. Pages are in the order of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// At the first id.
    Start,
    /// At the first id after this one.
    After(PeerId),
}

impl Cursor {
    /// Whether a page that begins after `next` follows the one that begins here. The ids must grow,
    /// so that the pages of a server come to an end.
    pub(crate) fn is_before(&self, next: &PeerId) -> bool {
        match self {
            Self::Start => true,
            Self::After(before) => next > before,
        }
    }
}

/// One page of the live indexers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexersPage<'a> {
    /// Indexers, in the order of their ids; at most [`MAX_LIST`].
    pub offers: &'a [Offer],
    /// The next page begins after this id; `None`: there is none.
    pub next: Option<PeerId>,
}

/// How far a server goes to answer a lookup (PROTOCOL.md, section 4, key 2 of a request).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// It answers from its own directory and asks other holders.
    #[default]
    Network,
    /// It answers from its own directory only, because a request travels one hop.
    Directory,
}

/// Servers asked for an answer, and those of them that answered (PROTOCOL.md, section 4, key 3 of a
/// response).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Servers asked.
    pub asked: u32,
    /// Servers that answered.
    pub answered: u32,
}

/// Whether a list or an answer has everything that there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coverage {
    /// Nothing is missing.
    Complete,
    /// There may be more.
    #[default]
    Partial,
}

/// How many different nodes claim a name (PROTOCOL.md, section 4, key 5 of a response).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Nodes that were counted.
    pub nodes: u32,
    /// Whether there are no others.
    pub are_all: bool,
}

/// Names one heartbeat stream of this process; a later stream has a greater number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Names a peer's directory request that waits for an answer of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

#[cfg(test)]
mod tests;
