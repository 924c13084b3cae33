//! The nodes of the network, as `nodes` and similar commands show them: the filter, and a row.

use std::collections::BTreeMap;

use miniserde::{Deserialize, Serialize};

use super::Service;
#[cfg(feature = "program")]
use crate::config;

/// Which nodes are asked for. What is absent or empty admits all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeQuery {
    /// Those that offer this service.
    pub service: Option<String>,
    /// Those with all of these tags.
    pub tags: Option<BTreeMap<String, String>>,
    /// Those with a name that begins so.
    pub name: Option<String>,
    /// Those in one of these states.
    pub states: Option<Vec<NodeState>>,
}

#[cfg(feature = "program")]
impl NodeQuery {
    /// What these options ask for.
    ///
    /// # Errors
    /// A sentence that names the option and its value.
    pub(crate) fn of(
        service: Option<&str>,
        tags: &[String],
        name: Option<&str>,
        states: &[String],
    ) -> Result<Self, String> {
        let wrong = |error: config::Error| error.to_string();
        let states = states.iter().map(|state| {
            NodeState::named(state)
                .ok_or_else(|| format!("--state {state:?}: give alive, left or lost"))
        });
        Ok(Self {
            service: service
                .map(config::service_name)
                .transpose()
                .map_err(wrong)?,
            tags: Some(config::tags(tags).map_err(wrong)?),
            name: name.map(config::name).transpose().map_err(wrong)?,
            states: Some(states.collect::<Result<_, _>>()?),
        })
    }
}

/// Whether a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NodeState {
    /// It holds a lease.
    #[serde(rename = "alive")]
    Alive,
    /// It has given its lease up.
    #[serde(rename = "left")]
    Left,
    /// Its lease ran out.
    #[serde(rename = "lost")]
    Lost,
}

#[cfg(feature = "program")]
impl NodeState {
    const ALL: [Self; 3] = [Self::Alive, Self::Left, Self::Lost];

    /// Its name, as in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Left => "left",
            Self::Lost => "lost",
        }
    }

    /// The state with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A node: one line of `nodes --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeRow {
    /// The name that it claims.
    pub name: String,
    /// Its peer id, in base58: the signature of its record proves it, the name does not.
    pub peer_id: String,
    /// Whether it is there.
    pub state: NodeState,
    /// Time since its last heartbeat, ms; of one that has left or was lost, since then.
    pub last_beat_ms: u64,
    /// Its multiaddresses, without `/p2p`; none if its record is no longer kept.
    pub addresses: Vec<String>,
    /// Its services, each at all of its addresses.
    pub services: Vec<Service>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// The version of its program; empty if the record does not have it.
    pub version: String,
    /// The peer id of the server with which it holds a lease: of several, the one that told of it
    /// first. `None` if it is not there, or if a watch tells of it.
    pub server: Option<String>,
}

impl NodeRow {
    /// The addresses of the service, `HOST:PORT`, as [`super::FoundRecord::addresses_of`] has them.
    pub fn addresses_of(&self, service: &Service) -> Vec<String> {
        super::found::addresses_of(&self.addresses, service)
    }
}

/// How far a listing is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListTally {
    /// The listing is over, and no row follows.
    pub done: bool,
    /// It is over, every server asked has answered, and nothing was left out.
    pub complete: bool,
    /// Servers that were asked.
    pub asked: u64,
    /// Servers that have answered.
    pub answered: u64,
    /// The peer ids of those that have not answered (yet).
    pub silent: Vec<String>,
    /// The peer ids of those that answered with an error.
    pub refused: Vec<String>,
    /// The peer ids of those with an answer that was cut short.
    pub partial: Vec<String>,
}

#[cfg(feature = "program")]
impl ListTally {
    /// What the list lacks, and the servers that are the cause; `None`: nothing.
    pub(crate) fn shortfall(&self) -> Option<String> {
        let lacks = [&self.silent, &self.refused, &self.partial];
        super::shortfall(self.complete, self.asked, lacks)
    }
}
