//! What a daemon reports about itself: the objects of its control socket, as JSON for programs and
//! as text for people.
//!
//! The field names are the interface: they are never renamed. All times are relative and in
//! milliseconds, and what has expired is never listed. Fields that do not apply to a role are
//! empty. Text from other peers is printed without its control characters.

mod found;
mod nodes;
mod problem;
mod reachable;
mod service;
mod text;
mod verdict;
mod watch;

use std::collections::BTreeMap;

use miniserde::{Deserialize, Serialize, de::Visitor, make_place, ser::Fragment};

use crate::config::Role;
pub(crate) use crate::net::counted;
pub(crate) use crate::net::each::short_id;
#[cfg(feature = "program")]
pub(crate) use crate::protocol::order::{sort, sort_few};
pub(crate) use found::shortfall;
pub use found::{Found, FoundRecord, IndexerList, KnownIndexer};
pub(crate) use nodes::{ListTally, NodeQuery};
pub use nodes::{NodeRow, NodeState};
pub use problem::{Problem, Server, ServerState, Severity};
pub use reachable::{Reachable, ReachableState};
pub use service::{CheckState, Protocol, Service, ServiceCheck};
#[cfg(feature = "program")]
pub(crate) use text::Plain;
pub(crate) use text::Span;
#[cfg(feature = "program")]
pub(super) use text::table;
#[cfg(feature = "program")]
pub(crate) use text::{host_and_port, is_obeyed};
#[cfg(feature = "program")]
pub(super) use verdict::explains;
#[cfg(feature = "program")]
pub(crate) use verdict::is_named;
pub(super) use verdict::{Facts, FailingServer, Indexers};
pub use verdict::{Verdict, VerdictState};
pub(crate) use watch::{CaughtUp, WatchEventName, WatchRow};

/// The version of the form of [`Status`].
pub(super) const SCHEMA: u64 = 1;
/// The JSON Schema of [`Status`].
#[cfg(feature = "program")]
pub(crate) const SCHEMA_TEXT: &str = include_str!("status/schema.json");

/// The answer to `status`: everything that a process knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The version of this form: 1.
    pub schema: u64,
    /// Whether it does its work.
    pub verdict: Verdict,
    /// The role of the process.
    pub role: Role,
    /// Its peer id, in base58.
    pub peer_id: String,
    /// Node: the name that it is found by.
    pub name: Option<String>,
    /// Node: its tags.
    pub tags: BTreeMap<String, String>,
    /// Node: its services.
    pub services: Vec<Service>,
    /// Node: the checks of its services.
    pub checks: Vec<ServiceCheck>,
    /// Version of the program.
    pub version: String,
    /// Time since the process started, ms.
    pub uptime_ms: u64,
    /// The multiaddresses that it listens on, without `/p2p`.
    pub listen: Vec<String>,
    /// The multiaddresses that it tells others, best first, without `/p2p`.
    pub announced: Vec<String>,
    /// Whether others reach it at what it announces; `None` of a version that does not know it.
    pub reachable: Option<Reachable>,
    /// The natives that it knows, in the form of `--native`: configured, of an earlier run, or
    /// named by DNS.
    pub natives: Vec<String>,
    /// Natives that were found on the network and are not trusted, in the form of `--native`.
    pub found_natives: Vec<String>,
    /// Native: the option with which others are started, `--native MULTIADDR`; `None` if it is not
    /// known at which address they reach it.
    pub native_option: Option<String>,
    /// Native: the indexers that it can hand out.
    pub live_indexers: Vec<LiveIndexer>,
    /// Native: ids of the indexers that it knows of, in base58.
    pub known_peer_ids: Vec<String>,
    /// Native: the nodes that it has taken in itself.
    pub responsible_peers: Vec<ResponsiblePeer>,
    /// Native, indexer: the peers with heartbeat streams that it serves.
    pub stream_records: Vec<StreamRecord>,
    /// The leases that this process holds elsewhere.
    pub leases: Vec<Lease>,
    /// Leases that it wants to hold: a node with indexers, the others with natives.
    pub wanted_leases: u64,
    /// Native, indexer: its background loops by name.
    pub loops: BTreeMap<String, LoopStatus>,
    /// How full every table is.
    pub tables: Vec<Table>,
    /// Identities that two devices have used in the last ten minutes.
    pub contested: Vec<Contested>,
    /// Servers that grant no lease to this process, and why.
    pub troubles: Vec<Trouble>,
    /// What is wrong, the oldest problem first.
    pub problems: Vec<Problem>,
    /// The servers of this process, in the order of their ids.
    pub servers: Vec<Server>,
    /// How often each of these has happened since the start: joins, ends, refusals, failures.
    pub counters: BTreeMap<String, u64>,
    /// Resident memory of the process, bytes.
    pub resident_bytes: Option<u64>,
    /// Processor time that the process has used, ms.
    pub cpu_ms: u64,
    /// The closed network; `None`: there is none, or the version does not know it.
    pub network: Option<Network>,
    /// The fingerprint of the pre-shared key, which is no secret; `None`: the network is open.
    pub key: Option<String>,
}

/// The closed network of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Whether peers without a grant are refused. If not, the own grant is only shown.
    pub closed: bool,
    /// The roles that the own grant allows.
    pub roles: Vec<String>,
    /// The names in it; none: any name that no grant names.
    pub names: Vec<String>,
    /// Its end, ms since the Unix epoch; `None`: it has none.
    pub until_ms: Option<u64>,
    /// The network's key has revoked this device.
    pub is_revoked: bool,
    /// The sequence of the revocation list; 0 if there is none.
    pub list_sequence: u64,
    /// Peers that it revokes.
    pub revoked: u64,
    /// Members that have shown a grant here.
    pub members: u64,
}

/// An indexer that a native can hand out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LiveIndexer {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// Its multiaddresses, without `/p2p`.
    pub addrs: Vec<String>,
    /// Time until the entry runs out, ms.
    pub expires_in_ms: u64,
    /// The source of the entry.
    pub source: Source,
    /// Nodes that found recently that it grants no lease, or does not keep it.
    pub failures: u64,
}

/// The source of an entry of `live_indexers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Source {
    /// A beat of the indexer itself.
    #[serde(rename = "heartbeat")]
    Heartbeat,
    /// A signed record that the refresh loop found.
    #[serde(rename = "dht")]
    Dht,
}

/// An identity that two devices use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Contested {
    /// The identity, in base58.
    pub peer_id: String,
    /// The address of the device that was kept.
    pub kept: String,
    /// The address of the device that was refused.
    pub refused: String,
    /// Time since it was last refused, ms.
    pub last_ms: u64,
}

/// A server that grants no lease to this process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trouble {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// The reason, for people.
    pub what: String,
}

/// A node that a native has taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResponsiblePeer {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// Time since it was taken in, ms.
    pub since_ms: u64,
}

/// A peer with a heartbeat stream that is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StreamRecord {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// The role that it states in its beats.
    pub role: Role,
    /// Its name; `None` if it has none, as indexers and natives.
    pub name: Option<String>,
    /// The IP address that its stream comes from; `None` if that is not known.
    pub host: Option<String>,
    /// Whether its beats come.
    pub state: PeerState,
    /// Time since its last beat, ms.
    pub last_seen_ms: u64,
    /// Time until its lease expires, ms.
    pub expires_in_ms: u64,
}

/// Whether the beats of a peer come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PeerState {
    /// They do.
    #[serde(rename = "alive")]
    Alive,
    /// More than two fifths of its lease have gone since the last beat, or its stream has ended. A
    /// beat is due after a third of the lease at the latest.
    #[serde(rename = "silent")]
    Silent,
}

impl PeerState {
    /// The state of a peer whose last beat was `last_seen_ms` ago, with the rest of its lease.
    pub(super) fn of(connected: bool, last_seen_ms: u64, expires_in_ms: u64) -> Self {
        let lease_ms = last_seen_ms.saturating_add(expires_in_ms);
        match !connected || last_seen_ms > lease_ms / 5 * 2 {
            true => Self::Silent,
            false => Self::Alive,
        }
    }
}

/// A lease that this process holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lease {
    /// The server that granted it, in base58.
    pub peer_id: String,
    /// The role of that server.
    pub role: Role,
    /// Time until it expires, ms.
    pub expires_in_ms: u64,
}

/// A background loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LoopStatus {
    /// How often it has run.
    pub runs: u64,
    /// Time since it last ran, ms; `None` if it never did.
    pub last_ms: Option<u64>,
    /// Time from one run to the next, ms, without jitter.
    pub interval_ms: u64,
    /// Time that all runs took together, each from its tick to its decision, ms.
    pub took_ms: u64,
    /// What was done since its last run began: nodes released (offload), indexers found (refresh),
    /// stale streams removed (gc).
    pub done: u64,
}

/// A table of fixed capacity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Entries in it.
    pub used: u64,
    /// Entries that fit.
    pub capacity: u64,
    /// Entries that were refused for lack of room.
    pub refused: u64,
    /// Entries that were evicted to make room for others.
    pub evicted: u64,
}

/// The answer to a request that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// One sentence for people.
    pub error: String,
    /// Too many others ask, so the request may be repeated in a moment.
    pub again: Option<bool>,
}

impl Refusal {
    pub(super) fn new(why: &str) -> Self {
        Self {
            error: why.to_owned(),
            again: None,
        }
    }

    /// The request may be repeated in a moment.
    pub(super) fn for_now(why: &str) -> Self {
        Self {
            again: Some(true),
            ..Self::new(why)
        }
    }
}

make_place!(Place);

impl Serialize for Role {
    fn begin(&self) -> Fragment<'_> {
        Fragment::Str(self.name().into())
    }
}

impl Deserialize for Role {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }
}

impl Visitor for Place<Role> {
    fn string(&mut self, name: &str) -> miniserde::Result<()> {
        self.out = Some(Role::named(name).ok_or(miniserde::Error)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
