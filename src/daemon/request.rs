//! What is asked of the loop, by the operator or by the program that it is embedded in, and the way
//! back to whoever asks.

use smol::channel::{Receiver, Sender, bounded};

use super::status::{Found, IndexerList, Refusal, Status};
use crate::protocol::TableStats;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Query {
    /// `status`: the tables of this process. With it that of the clients that ask, if there is one.
    Status(Option<TableStats>),
    /// `indexers`: the indexers that it, or one of its natives, knows.
    Indexers,
    /// `find X`: the claimants of a name, or the node with a peer id.
    Find(String),
}

/// What the clients cause.
#[derive(Debug)]
pub(crate) enum QueryEvent {
    /// A request.
    Asked(PendingQuery),
    /// A client has left before its answer: [`Reply::is_abandoned`] is true for its reply.
    Left,
}

/// A query that waits for its answer.
#[derive(Debug)]
pub(crate) struct PendingQuery {
    /// What is asked.
    pub(crate) query: Query,
    /// Where the answer goes. Dropping it says that there will be none.
    pub(crate) reply: Reply,
}

impl PendingQuery {
    /// The request, and where its answer comes.
    pub(crate) fn new(query: Query) -> (Self, Receiver<Result<QueryAnswer, Refusal>>) {
        let (sender, answer) = bounded(1);
        let reply = Reply(sender);
        (Self { query, reply }, answer)
    }
}

/// What is answered: each query has its own.
#[derive(Debug)]
pub(crate) enum QueryAnswer {
    Status(Box<Status>),
    Indexers(IndexerList),
    Found(Found),
}

impl QueryAnswer {
    /// The answer as one JSON value, without a line break in it.
    #[cfg(feature = "program")]
    pub(crate) fn to_json(&self) -> String {
        match self {
            Self::Status(status) => miniserde::json::to_string(&**status),
            Self::Indexers(list) => miniserde::json::to_string(list),
            Self::Found(found) => miniserde::json::to_string(found),
        }
    }
}

/// The way back.
#[derive(Debug)]
pub(crate) struct Reply(Sender<Result<QueryAnswer, Refusal>>);

impl Reply {
    /// Answers.
    pub(crate) fn answer(self, answer: QueryAnswer) {
        // There is room for one answer. This fails only if the client has left.
        let _ = self.0.try_send(Ok(answer));
    }

    /// Says in one sentence why there is no answer.
    pub(crate) fn refuse(self, why: &str) {
        let _ = self.0.try_send(Err(Refusal::new(why, false)));
    }

    /// The same, and says that it may be asked again.
    pub(crate) fn refuse_for_now(self, why: &str) {
        let _ = self.0.try_send(Err(Refusal::new(why, true)));
    }

    /// Whether the caller has left.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
}
