//! Changes, as `watch` and similar commands show them.

use std::collections::BTreeMap;

use miniserde::{Deserialize, Serialize};

use super::{NodeState, Service};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WatchEventName {
    /// The node is there: it was when the watch began, or has come since.
    #[serde(rename = "present")]
    Present,
    /// Its name, addresses, services, tags or version have changed.
    #[serde(rename = "changed")]
    Changed,
    /// It gave its leases up, or the filter no longer selects it.
    #[serde(rename = "left")]
    Left,
    /// Its leases ran out.
    #[serde(rename = "lost")]
    Lost,
    /// All servers have listed their nodes, except those that are silent.
    #[serde(rename = "caught_up")]
    CaughtUp,
}

/// A change of a node: one line of `watch --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WatchRow {
    /// What happened.
    pub event: WatchEventName,
    /// As in [`super::NodeRow`], and so are the others.
    pub name: String,
    pub peer_id: String,
    pub state: NodeState,
    pub last_beat_ms: u64,
    pub addresses: Vec<String>,
    pub services: Vec<Service>,
    pub tags: BTreeMap<String, String>,
    pub version: String,
}

#[cfg(feature = "program")]
impl WatchEventName {
    /// The name as in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Changed => "changed",
            Self::Left => "left",
            Self::Lost => "lost",
            Self::CaughtUp => "caught_up",
        }
    }
}

impl WatchRow {
    /// The event, and the node.
    pub(crate) fn split(self) -> (WatchEventName, super::NodeRow) {
        let row = super::NodeRow {
            name: self.name,
            peer_id: self.peer_id,
            state: self.state,
            last_beat_ms: self.last_beat_ms,
            addresses: self.addresses,
            services: self.services,
            tags: self.tags,
            version: self.version,
            server: None,
        };
        (self.event, row)
    }
}

/// All servers have caught up, except the silent ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CaughtUp {
    /// `caught_up`.
    pub event: WatchEventName,
    /// For how long one of them was not heard, ms. Changes of that time have been reported by now,
    /// except those that were undone meanwhile.
    pub blind_ms: u64,
    /// The peer ids of the servers that are not heard.
    pub silent: Vec<String>,
    /// Servers for which there was no place: their nodes are not told of.
    pub unwatched: u16,
    /// Number of nodes that found no room. The watch does not report when such a node leaves.
    pub untracked: u64,
}

#[cfg(test)]
impl CaughtUp {
    /// All servers are heard, and nothing is left out.
    pub(crate) fn whole() -> Self {
        Self {
            event: WatchEventName::CaughtUp,
            blind_ms: 0,
            silent: Vec::new(),
            unwatched: 0,
            untracked: 0,
        }
    }
}
