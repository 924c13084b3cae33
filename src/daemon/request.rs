//! Requests to the loop, of the operator or of the embedding program, and the way back to the
//! caller: one answer, or an answer in parts.
//!
//! Invariant: the loop never waits for a reader. An answer in parts has room for [`MAX_PARTS`] that
//! were not read; the source looks at [`Parts::room`] before it makes more, and is called again
//! with
//! [`CallEvent::Room`] when half of them have been read.

use smol::channel::{Receiver, Sender, bounded};

use super::status::{
    CaughtUp, Found, IndexerList, ListTally, NodeQuery, NodeRow, Refusal, Status, WatchRow,
};
use crate::protocol::TableStats;

/// The requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Whether the loop turns.
    #[cfg(feature = "http")]
    Turn,
    /// `status`: the tables of this process. With it come the tables of the part that passes the
    /// call on.
    Status(Vec<TableStats>),
    /// `doctor`: the same without those tables, after a new look at what is wrong.
    #[cfg(feature = "program")]
    Doctor,
    /// `indexers`: the indexers that it, or one of its natives, knows.
    Indexers,
    /// `find X`: the claimants of a name, or the node with a peer id.
    Find(String),
    /// `drain`: an indexer hands its nodes over.
    #[cfg(feature = "program")]
    Drain(super::drain::DrainCall),
    /// `revoke LIST`: the revocation list of the closed network.
    #[cfg(feature = "program")]
    Revoke(String),
    /// `config`: the settings and where they come from. Only a process of its own has them.
    #[cfg(feature = "program")]
    Config,
    /// `log`: the last lines of its log.
    #[cfg(feature = "program")]
    Log,
    /// `reload`: the same process takes its configuration over anew.
    #[cfg(feature = "program")]
    Reload,
}

/// The requests that are answered in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PartsCall {
    /// `nodes`: a [`Part::Row`] for each node, then [`Part::Tally`].
    Nodes(NodeQuery),
    /// `watch`: a [`Part::Change`] for each node and change, and sometimes [`Part::CaughtUp`]. It
    /// has no end.
    Watch(NodeQuery),
}

/// The events that clients cause.
#[derive(Debug)]
pub(crate) enum CallEvent {
    /// A call was made.
    Made(PendingCall),
    /// A call that is answered in parts.
    MadeInParts(PartsCall, Parts),
    /// A program asks by DNS.
    #[cfg(feature = "dns")]
    Resolve(super::dns::Resolve),
    /// These services are what the devices of the link announce now.
    #[cfg(feature = "mdns")]
    Devices(Vec<crate::net::envelope::DeviceService>),
    /// A client has left before its answer, or its last part: [`Reply::is_abandoned`] or
    /// [`Parts::is_abandoned`] is true.
    Left,
    /// A reader that was behind has read half of the parts that waited for it.
    Room,
}

/// Parts of one answer that may wait for their reader: the rows of eight pages, and some.
pub(crate) const MAX_PARTS: usize = 320;

/// One part of an answer.
#[derive(Debug)]
pub(crate) enum Part {
    /// A node.
    Row(Box<NodeRow>),
    /// How far a listing is; the last part of a listing that is done.
    Tally(Box<ListTally>),
    /// A change.
    Change(Box<WatchRow>),
    /// All servers that can be heard have listed their nodes.
    CaughtUp(Box<CaughtUp>),
}

impl Part {
    /// Whether no part follows this one.
    #[cfg(feature = "program")]
    pub(crate) fn is_last(&self) -> bool {
        matches!(self, Self::Tally(tally) if tally.done)
    }

    /// The part as one JSON value, without a line break in it.
    #[cfg(feature = "program")]
    pub(crate) fn to_json(&self) -> String {
        match self {
            Self::Row(row) => miniserde::json::to_string(&**row),
            Self::Tally(tally) => miniserde::json::to_string(&**tally),
            Self::Change(row) => miniserde::json::to_string(&**row),
            Self::CaughtUp(word) => miniserde::json::to_string(&**word),
        }
    }
}

/// The way back of an answer in parts. Dropping it ends the answer.
#[derive(Debug)]
pub(crate) struct Parts(Sender<Result<Part, Refusal>>);

impl Parts {
    /// The way back, and the channel on which the parts come.
    pub(crate) fn new() -> (Self, Receiver<Result<Part, Refusal>>) {
        let (sender, parts) = bounded(MAX_PARTS);
        (Self(sender), parts)
    }

    /// Sends a part. False: there is no room for it, or the reader has left.
    pub(crate) fn send(&self, part: Part) -> bool {
        self.0.try_send(Ok(part)).is_ok()
    }

    /// Parts that fit now.
    pub(crate) fn room(&self) -> usize {
        MAX_PARTS.saturating_sub(self.0.len())
    }

    /// Ends the answer and says in one sentence why there is no more.
    pub(crate) fn refuse(self, why: &str) {
        let _ = self.0.try_send(Err(Refusal::new(why)));
    }

    /// The same, and says that it may be asked again.
    pub(crate) fn refuse_for_now(self, why: &str) {
        let _ = self.0.try_send(Err(Refusal::for_now(why)));
    }

    /// Whether the reader has left.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
}

/// An answer in parts that is being read by a task of this process, or by the program around it.
/// When this is dropped, the answer ends.
#[derive(Debug)]
pub(crate) struct Reading {
    events: Sender<CallEvent>,
    parts: Receiver<Result<Part, Refusal>>,
}

/// Lists nodes: a [`Part::Row`] for each, then [`Part::Tally`]. `None`: the loop has ended.
pub(crate) async fn nodes(events: &Sender<CallEvent>, query: NodeQuery) -> Option<Reading> {
    Reading::begin(events, PartsCall::Nodes(query)).await
}

/// Watches nodes: a [`Part::Change`] for each node and change, and sometimes [`Part::CaughtUp`].
/// `None`: the loop has ended.
pub(crate) async fn watch(events: &Sender<CallEvent>, query: NodeQuery) -> Option<Reading> {
    Reading::begin(events, PartsCall::Watch(query)).await
}

impl Reading {
    async fn begin(events: &Sender<CallEvent>, call: PartsCall) -> Option<Self> {
        let (way_back, parts) = Parts::new();
        let asked = CallEvent::MadeInParts(call, way_back);
        events.send(asked).await.ok()?;
        let events = events.clone();
        Some(Self { events, parts })
    }

    /// The next part, or why there is none. `None`: the loop has dropped its end. Cancel-safe.
    pub(crate) async fn next(&self) -> Option<Result<Part, Refusal>> {
        let part = self.parts.recv().await.ok()?;
        let left = self.parts.len();
        if has_room_again(left + 1, left) {
            // If there is no room, the loop goes on with everything after the next event.
            let _ = self.events.try_send(CallEvent::Room);
        }
        Some(part)
    }

    /// Whether the loop takes no more calls.
    pub(crate) fn is_ending(&self) -> bool {
        self.events.is_closed()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // This is false if the answer is over.
        if self.parts.close() {
            // If there is no room, the loop notices it with the next event.
            let _ = self.events.try_send(CallEvent::Left);
        }
    }
}

/// Whether the source must be called: `before` parts were waiting, and now `after` are.
pub(crate) fn has_room_again(before: usize, after: usize) -> bool {
    before > MAX_PARTS / 2 && after <= MAX_PARTS / 2
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

/// The answer to each kind of call.
#[derive(Debug)]
pub(crate) enum CallAnswer {
    #[cfg(feature = "http")]
    Turned,
    Status(Box<Status>),
    Indexers(IndexerList),
    Found(Found),
    #[cfg(feature = "program")]
    Drained(super::drain::Drained),
    #[cfg(feature = "program")]
    Revoked(super::members::Revoked),
    #[cfg(feature = "program")]
    Config(crate::config::ConfigReport),
    #[cfg(feature = "program")]
    Log(super::logging::LogLines),
    #[cfg(feature = "program")]
    Reloaded(super::reload::Reloaded),
}

impl CallAnswer {
    /// The answer as one JSON value, without a line break in it.
    #[cfg(feature = "program")]
    pub(crate) fn to_json(&self) -> String {
        match self {
            #[cfg(feature = "http")]
            Self::Turned => "null".into(),
            Self::Status(status) => miniserde::json::to_string(&**status),
            Self::Indexers(list) => miniserde::json::to_string(list),
            Self::Found(found) => miniserde::json::to_string(found),
            Self::Drained(drained) => miniserde::json::to_string(drained),
            Self::Revoked(revoked) => miniserde::json::to_string(revoked),
            Self::Config(report) => miniserde::json::to_string(report),
            Self::Log(lines) => miniserde::json::to_string(lines),
            Self::Reloaded(reloaded) => miniserde::json::to_string(reloaded),
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
        let _ = self.0.try_send(Err(Refusal::new(why)));
    }

    /// The same, and says that it may be asked again.
    pub(crate) fn refuse_for_now(self, why: &str) {
        let _ = self.0.try_send(Err(Refusal::for_now(why)));
    }

    /// Whether the caller has left.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_is_called_when_half_of_the_parts_are_read_and_only_then() {
        let half = MAX_PARTS / 2;
        assert!(has_room_again(half + 1, half));
        assert!(has_room_again(MAX_PARTS, 0));
        assert!(!has_room_again(half, half - 1));
        assert!(!has_room_again(MAX_PARTS, half + 1));
    }
}
