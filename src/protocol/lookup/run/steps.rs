//! What a lookup has to do and has under way: searches of the DHT, servers that wait for their
//! turn, queries that wait for their answers.

use crate::protocol::{
    Addrs, Cursor, Instant, PeerId, Reach, Role,
    lookup::{Place, QueryId},
};

/// How far the searches for providers are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Servers of the DHT that have answered in this round.
    pub(super) reached: u16,
    /// Searches that are over.
    pub(super) rounds: u8,
    /// Providers that were asked because of it.
    pub(super) holders: u8,
    /// Servers that named providers, since the last new one was named.
    pub(super) agreed: u8,
    /// A provider was named in this round that was not asked before.
    pub(super) is_new: bool,
    /// A server has named as many as it may, in one of the rounds.
    pub(super) is_full: bool,
    /// There may be more providers than were named or asked.
    pub(super) more: bool,
}

/// A native, and the progress in its pages of indexers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    pub(super) native: PeerId,
    pub(super) from: Cursor,
    pub(super) count: usize,
    pub(super) is_open: bool,
}

/// A server that waits for its turn.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waiting {
    pub(super) server: PeerId,
    pub(super) addrs: Addrs,
    pub(super) errand: Errand,
    pub(super) what: What,
    /// When the server was first asked, if this goes on with its answer.
    pub(super) since: Option<Instant>,
}

/// A query that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) query: QueryId,
    pub(super) target: Target,
    /// When it began; of a page that goes on with a list, when the server was first asked for it.
    pub(super) since: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Server(PeerId, Errand, What),
    Dht(DhtSearch),
}

/// A search of the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DhtSearch {
    /// For the providers of the name or service.
    Providers,
    /// For the peer's record in this role.
    Record(Role),
}

/// The purpose of a query to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// An indexer that grants a lease to this process: it also asks others.
    OwnIndexer,
    /// An indexer, or a provider that the DHT has named: its own directory.
    Indexer,
    /// A native of this process: it also asks others.
    Native,
    /// A native, or a fellow of this native: its own directory.
    Fellow,
    /// A native: a page of indexers.
    Page,
}

/// What a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The question of the lookup.
    Question,
    /// The rest of its list, because it has more than it has told.
    Rest(Cursor),
    /// The record of the peer that an earlier find has returned.
    Remembered,
    /// Whether this server, which does not answer, has taken leave.
    Leave(PeerId),
}

impl Open {
    pub(super) fn is_search(&self) -> bool {
        matches!(self.target, Target::Dht(_))
    }

    /// Whether it is a query to a server that asks others, too.
    pub(super) fn asks_around(&self) -> bool {
        matches!(
            self.target,
            Target::Server(_, Errand::OwnIndexer | Errand::Native, What::Question)
        )
    }
}

impl Waiting {
    /// A query to a server, at the addresses that the host knows.
    pub(super) fn new(server: PeerId, errand: Errand, what: What) -> Self {
        Self {
            server,
            addrs: Addrs::new(),
            errand,
            what,
            since: None,
        }
    }
}

impl Errand {
    pub(super) fn reach(self) -> Reach {
        match self {
            Self::OwnIndexer | Self::Native => Reach::Network,
            Self::Indexer | Self::Fellow | Self::Page => Reach::Directory,
        }
    }

    pub(super) fn place(self) -> Place {
        match self {
            Self::OwnIndexer | Self::Indexer => Place::Indexer,
            Self::Native | Self::Fellow | Self::Page => Place::Native,
        }
    }
}
