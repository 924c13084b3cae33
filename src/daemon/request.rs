//! What is asked of the loop, by the operator or by the program that it is embedded in, and the way
//! back to whoever asks.

use smol::channel::{Receiver, Sender, bounded};

use super::status::{Found, IndexerList, Refusal, Status};
use crate::protocol::TableStats;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// `status`: the tables of this process. With it that of the clients that ask, if there is one.
    Status(Option<TableStats>),
    /// `indexers`: the indexers that it, or one of its natives, knows.
    Indexers,
    /// `find X`: the claimants of a name, or the node with a peer id.
    Find(String),
}

/// What the clients cause.
#[derive(Debug)]
pub(crate) enum CallEvent {
    /// A call was made.
    Made(PendingCall),
    /// A client has left before its answer: [`Reply::is_abandoned`] is true for its reply.
    Left,
}

/// A call that waits for its answer.
#[derive(Debug)]
pub(crate) struct PendingCall {
    /// What is asked.
    pub(crate) call: Call,
    /// Where the answer goes. Dropping it says that there will be none.
    pub(crate) reply: Reply,
}

impl PendingCall {
    /// The request, and where its answer comes.
    pub(crate) fn new(call: Call) -> (Self, Receiver<Result<CallAnswer, Refusal>>) {
        let (sender, answer) = bounded(1);
        let reply = Reply(sender);
        (Self { call, reply }, answer)
    }
}

/// What is answered: each call has its own.
#[derive(Debug)]
pub(crate) enum CallAnswer {
    Status(Box<Status>),
    Indexers(IndexerList),
    Found(Found),
}

impl CallAnswer {
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
pub(crate) struct Reply(Sender<Result<CallAnswer, Refusal>>);

impl Reply {
    /// Answers.
    pub(crate) fn answer(self, answer: CallAnswer) {
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
