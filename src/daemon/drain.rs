//! `drain`: what the operator is told of an indexer that hands its nodes over. The decisions are
//! the core's ([`Input::Drain`]).

use miniserde::{Deserialize, Serialize};

use super::{
    driver::Driver,
    report::text,
    request::{CallAnswer, Reply},
};
use crate::{
    config::Role,
    protocol::{self, Input, Report},
};

/// Nodes that are listed by name, at most.
const MAX_LISTED: usize = 1000;

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DrainCall {
    /// Hand the nodes over, and say how far this is.
    Begin,
    /// Say how far this is.
    Look,
    /// Take nodes again.
    Undo,
}

/// The answer to `drain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Drained {
    /// The version of this object's form.
    pub(crate) schema: u32,
    /// Whether it is being drained: it takes no new nodes.
    pub(crate) draining: bool,
    /// Nodes that hold a lease here.
    pub(crate) nodes: usize,
    /// Nodes of them that were sent to another indexer, and are on their way.
    pub(crate) moving: usize,
    /// Free leases of the other indexers.
    pub(crate) places: u32,
    /// Nodes that gave their lease here up after they were sent to another indexer, since the drain
    /// began. A node does so when an indexer has accepted it (PROTOCOL.md, section 3).
    pub(crate) handed_over: u64,
    /// The nodes that are still here: not more than a thousand.
    pub(crate) left: Vec<DrainedNode>,
}

/// A node that is still here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DrainedNode {
    /// Its name; null if its record is unknown.
    pub(crate) name: Option<String>,
    /// Its peer id, in base58.
    pub(crate) peer_id: String,
}

impl Driver<'_> {
    /// Begins or ends the drain of this indexer.
    pub(super) fn drain(&mut self, call: DrainCall, reply: Reply) {
        let role = self.env.machine().role();
        if role != Role::Indexer {
            let why = format!("only an indexer can be drained, and this is a {role}");
            return reply.refuse(&why);
        }
        let was_draining = self.seen().draining.is_some();
        let now = self.env.now();
        match call {
            DrainCall::Begin => self.handle(now, Input::Drain),
            DrainCall::Undo => self.handle(now, Input::EndDrain),
            DrainCall::Look => {}
        }
        let after = self.drained();
        match (was_draining, after.draining) {
            (false, true) => log::info!(
                "drains: hands its nodes ({}) over to other indexers and takes no new ones (undo it with `oc-discovery drain --undo`)",
                after.nodes
            ),
            (true, false) => log::info!(
                "takes nodes again: the drain is undone, nodes still here: {}",
                after.nodes
            ),
            _ => {}
        }
        self.is_emptied = after.draining && (self.is_emptied || !was_draining);
        self.tell_if_empty();
        if was_draining != after.draining {
            self.look_for_mistakes(now);
        }
        reply.answer(CallAnswer::Drained(after));
    }

    /// Logs that an indexer that is drained has handed over its last node.
    pub(super) fn tell_if_empty(&mut self) {
        if self.is_emptied && self.seen().count == 0 {
            self.is_emptied = false;
            log::info!("is drained and empty: it can be stopped now");
            self.look_for_mistakes(self.env.now());
        }
    }

    fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        self.env.machine().report(self.env.now(), &mut seen);
        seen
    }

    fn drained(&self) -> Drained {
        let seen = self.seen();
        let progress = seen.draining;
        let left = seen.nodes.iter().map(|peer| DrainedNode {
            name: self.env.name_of(peer),
            peer_id: text(peer),
        });
        Drained {
            schema: 1,
            draining: progress.is_some(),
            nodes: seen.count,
            moving: progress.map_or(0, |it| it.moving),
            places: progress.map_or(0, |it| it.places),
            handed_over: progress.map_or(0, |it| it.handed_over),
            left: left.collect(),
        }
    }
}

#[derive(Default)]
struct Seen {
    count: usize,
    nodes: Vec<protocol::PeerId>,
    draining: Option<protocol::Draining>,
}

impl Report for Seen {
    fn stream_record(&mut self, record: &protocol::StreamRecord) {
        self.count += 1;
        if self.nodes.len() < MAX_LISTED {
            self.nodes.push(record.peer);
        }
    }

    fn draining(&mut self, draining: protocol::Draining) {
        self.draining = Some(draining);
    }
}
