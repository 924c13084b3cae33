//! The words between a lookup and its host: questions, steps, answers.

use core::time::Duration;

#[cfg(doc)]
use super::Lookups;
use crate::protocol::{
    Addrs, Count, Cursor, Key, Name, Offer, PeerId, Reach, RecordInfo, Role, Tally, Want,
    codec::service::ServiceName, listing::ListingId, machine::MAX_MOVED,
};

/// The subject of a lookup.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// The indexers.
    #[default]
    Indexers,
    /// All nodes that claim a name.
    Name(Name),
    /// All nodes that offer a service.
    Service(ServiceName),
    /// A peer.
    Peer(PeerId),
}

impl Question {
    /// The key under which holders of the answer announce themselves in the DHT.
    pub(super) fn key(&self) -> Option<Key> {
        match self {
            Self::Name(name) => Some(Key::Name(name.clone())),
            Self::Service(service) => Some(Key::Service(service.clone())),
            Self::Indexers | Self::Peer(_) => None,
        }
    }
}

/// Names a lookup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(pub u64);

/// Names one query of a lookup or a listing, to a server or to the DHT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// Names a request or a search of a process, with what waits for it. A host keeps it until the
/// request or the search has ended, and gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// Of the machine, about this peer: the native that is asked, or the record's subject.
    Machine(PeerId),
    /// Of a lookup.
    Lookup(QueryId),
    /// Of a listing.
    Listing {
        /// The listing.
        listing: ListingId,
        /// Its query.
        query: QueryId,
    },
    /// Of the closed network: this peer is asked for its revocation list.
    Network(PeerId),
}

/// A query to one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The indexers that the server would offer, and why it is asked.
    Offers(Want),
    /// A page of indexers.
    Indexers(Cursor),
    /// The nodes that claim a name.
    Name {
        /// The name.
        name: Name,
        /// How far the server goes.
        reach: Reach,
    },
    /// A page of the nodes that offer a service, from the server's own directory.
    Service {
        /// The service.
        service: ServiceName,
        /// Which page.
        from: Cursor,
    },
    /// A page of the nodes whose names begin with a name, from the server's own directory: its
    /// claimants are among them.
    Claimants {
        /// The name.
        name: Name,
        /// Which page.
        from: Cursor,
    },
    /// The record of a node.
    Peer {
        /// The node.
        peer: PeerId,
        /// How far the server goes.
        reach: Reach,
    },
    /// The revocation list of the closed network.
    Revocations,
}

/// What the host must do.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a step is done at once, and four addresses fit in 512 bytes"
)]
pub enum LookupAction {
    /// Ask a server, and dial if needed; then call [`Lookups::responded`] once.
    Ask {
        /// The lookup that asks.
        lookup: LookupId,
        /// Names the query.
        query: QueryId,
        /// The server.
        server: PeerId,
        /// Where it listens; empty if this is not known.
        addrs: Addrs,
        /// The query.
        ask: Ask,
    },
    /// Search the DHT for the providers of a key. Call [`Lookups::provided`] for each server that
    /// answers, then [`Lookups::searched`].
    Providers {
        /// Names the search.
        query: QueryId,
        /// The key.
        key: Key,
    },
    /// Search the DHT. Call [`Lookups::found`] for each record, then [`Lookups::searched`].
    Search {
        /// Names the search.
        query: QueryId,
        /// The kind of record: that of a node or that of an indexer.
        role: Role,
        /// The record's subject.
        peer: PeerId,
    },
    /// End a search of the DHT. Its further results are ignored.
    EndSearch {
        /// The search.
        query: QueryId,
    },
    /// The lookup is over: [`Lookups::outcome`] can be read until the next poll.
    Done {
        /// The lookup.
        lookup: LookupId,
    },
}

const _: () = assert!(size_of::<LookupAction>() <= MAX_MOVED);

/// A verified copy of a signed record.
#[derive(Clone, Copy, Debug)]
pub struct RecordCopy<'a> {
    /// The content of the record.
    pub info: &'a RecordInfo,
    /// The signed envelope, opaque here. If it has more than
    /// [`MAX_ENVELOPE_LEN`](crate::protocol::MAX_ENVELOPE_LEN) bytes, it is ignored.
    pub envelope: &'a [u8],
    /// Time since the last heartbeat of its subject, if it is told.
    pub age: Option<Duration>,
    /// For how long its subject has claimed the name, if it is told.
    pub claimed: Option<Duration>,
}

/// Verified records that a server has answered with.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerRecords<'a> {
    pub(super) records: &'a [RecordCopy<'a>],
    /// The server has more than these.
    pub(super) more: bool,
    /// The servers that it asked, if it reports them.
    pub(super) tally: Option<Tally>,
    /// How many nodes claim the name, if it reports that.
    pub(super) claimants: Option<Count>,
}

/// The answer of a server to a query.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer<'a> {
    /// Verified records.
    Records(AnswerRecords<'a>),
    /// Verified records of a page of its own directory.
    Listed {
        /// The records.
        records: &'a [RecordCopy<'a>],
        /// The next page begins after this id; `None` if this is the last one.
        next: Option<PeerId>,
    },
    /// A page of indexers.
    Indexers {
        /// The indexers.
        offers: &'a [Offer],
        /// The next page begins after this id; `None` if this is the last one.
        next: Option<PeerId>,
    },
    /// It answered with an error.
    Error,
    /// No connection, or no answer in time.
    Failed,
}

/// How a lookup of another peer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// No other server is asked. The answer is the own directory, and is ready.
    Here,
    /// The answer comes with [`LookupAction::Done`].
    Lookup(LookupId),
    /// No slot is free. The peer should try again later.
    Full,
}
