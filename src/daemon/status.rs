//! What a daemon says about itself: the objects of its control socket, for programs as JSON and for
//! a person as text.
//!
//! The field names are the interface: they are never renamed. All times are relative and in
//! milliseconds, and what has expired is never listed. What does not apply to a role is empty.
//! Text that comes from other peers is printed without its control characters.

mod text;

use std::collections::BTreeMap;

use miniserde::{Deserialize, Serialize};

use crate::config::Role;
pub(super) use text::table;

/// The answer to `status`: everything a process knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What the process is for.
    pub role: Role,
    /// Its peer id, in base58.
    pub peer_id: String,
    /// Node: the name that it is found by.
    pub name: Option<String>,
    /// Node: what it says about itself.
    pub tags: BTreeMap<String, String>,
    /// Node: what it offers.
    pub services: Vec<Service>,
    /// Version of the program.
    pub version: String,
    /// Time since the process started, ms.
    pub uptime_ms: u64,
    /// Multiaddresses it listens on, without `/p2p`.
    pub listen: Vec<String>,
    /// The natives that it knows, as `--native` takes them: given, of an earlier run, or named by
    /// DNS.
    pub natives: Vec<String>,
    /// Native: the option that others are started with, `--native MULTIADDR`; `None`: it is not
    /// known at which address they reach it.
    pub native_option: Option<String>,
    /// Native: the indexers it can hand out.
    pub live_indexers: Vec<LiveIndexer>,
    /// Native: ids of the indexers it has heard of, in base58.
    pub known_peer_ids: Vec<String>,
    /// Native: the nodes it has taken in itself.
    pub responsible_peers: Vec<ResponsiblePeer>,
    /// Native, indexer: the peers whose heartbeat streams it serves.
    pub stream_records: Vec<StreamRecord>,
    /// The leases that this process holds elsewhere.
    pub leases: Vec<Lease>,
    /// Native: its background loops by name.
    pub loops: BTreeMap<String, LoopStatus>,
    /// How full every table is.
    pub tables: Vec<Table>,
    /// Identities that two devices use, as far as was seen in the last ten minutes.
    pub contested: Vec<Contested>,
    /// Servers that grant us no lease, and why.
    pub troubles: Vec<Trouble>,
}

/// An indexer that a native can hand out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveIndexer {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// Its multiaddresses, without `/p2p`.
    pub addrs: Vec<String>,
    /// Time until the entry runs out, ms.
    pub expires_in_ms: u64,
    /// What made the entry.
    pub source: Source,
    /// Nodes that found lately that it grants no lease, or does not keep it.
    pub failures: u64,
}

/// What made an entry of `live_indexers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct Contested {
    /// The identity, in base58.
    pub peer_id: String,
    /// The address of the device that was kept.
    pub kept: String,
    /// The address of the device that was refused.
    pub refused: String,
    /// Time since it was refused last, ms.
    pub last_ms: u64,
}

/// A server that grants us no lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// What is wrong, for people.
    pub what: String,
}

/// A node that a native has taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponsiblePeer {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// Time since it was taken in, ms.
    pub since_ms: u64,
}

/// A peer whose heartbeat stream is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// The role it beats as.
    pub role: Role,
    /// Time since its last beat, ms.
    pub last_seen_ms: u64,
    /// Time until its lease runs out, ms.
    pub expires_in_ms: u64,
}

/// A lease that this process holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who granted it, in base58.
    pub peer_id: String,
    /// The role of who granted it.
    pub role: Role,
    /// Time until it runs out, ms.
    pub expires_in_ms: u64,
}

/// A background loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopStatus {
    /// How often it has run.
    pub runs: u64,
    /// Time since it last ran, ms; 0 if it never did.
    pub last_ms: u64,
}

/// A table of fixed capacity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Entries in it.
    pub used: u64,
    /// Entries that fit.
    pub capacity: u64,
    /// Entries that it has refused for want of room.
    pub refused: u64,
    /// Entries that had to make room for others.
    pub evicted: u64,
}

/// The answer to `indexers`: where a node could go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexerList {
    /// Every server asked has answered, and nothing was left out.
    pub complete: bool,
    /// Servers that were asked.
    pub asked: u64,
    /// Servers that answered.
    pub answered: u64,
    /// The peer ids of those that did not.
    pub silent: Vec<String>,
    /// The peer ids of those that answered with an error.
    pub refused: Vec<String>,
    /// The peer ids of those that answered without all that they asked themselves.
    pub partial: Vec<String>,
    /// The indexers, in the order in which they were heard of.
    pub indexers: Vec<KnownIndexer>,
}

/// An indexer as the natives offer it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownIndexer {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// Its multiaddresses, without `/p2p`.
    pub addrs: Vec<String>,
    /// Time until the entry runs out, ms.
    pub expires_in_ms: u64,
    /// Leases it can still grant; `None`: it has not said.
    pub free_leases: Option<u64>,
}

/// The answer to `find`: every claimant of a name, or one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The name or the peer id that was asked for.
    pub query: String,
    /// Every server asked has answered, and nothing was left out.
    pub complete: bool,
    /// Servers that this daemon asked, each once: those that answered, were silent or refused.
    pub asked: u64,
    /// Servers that answered.
    pub answered: u64,
    /// The peer ids of those that did not.
    pub silent: Vec<String>,
    /// The peer ids of those that answered with an error.
    pub refused: Vec<String>,
    /// The peer ids of those that answered without all that they asked themselves.
    pub partial: Vec<String>,
    /// The signed records found, best first; empty: no server that answered knows it.
    pub records: Vec<FoundRecord>,
}

/// A node as its own signed record describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRecord {
    /// Its peer id, in base58: the signature proves it, the name does not.
    pub peer_id: String,
    /// The name it claims.
    pub name: String,
    /// Its multiaddresses, without `/p2p`.
    pub addrs: Vec<String>,
    /// What it says about itself.
    pub tags: BTreeMap<String, String>,
    /// What it offers, at each of its addresses.
    pub services: Vec<Service>,
    /// Time until the record runs out, ms.
    pub expires_in_ms: u64,
    /// Who had the record: `local`, `indexer`, `native` or `dht`.
    pub source: String,
}

/// A service that a node offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name (RFC 6335), in lower case.
    pub name: String,
    /// What it is reached with.
    pub protocol: Protocol,
    /// Its port, never 0.
    pub port: u16,
}

/// What a service is reached with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[serde(rename = "tcp")]
    Tcp,
    /// UDP.
    #[serde(rename = "udp")]
    Udp,
}

/// The answer to a request that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// One sentence for a person.
    pub error: String,
    /// The same may be asked again in a moment: too many others ask.
    pub again: Option<bool>,
}

impl Found {
    /// Where the service is reached, `HOST:PORT`: the best address of the best record that offers it;
    /// without a name, of the first service.
    pub fn service_addr(&self, name: Option<&str>) -> Option<String> {
        self.records.iter().find_map(|record| {
            let mut services = record.services.iter();
            let service = services.find(|s| name.is_none_or(|name| s.name == name))?;
            record.addresses_of(service).into_iter().next()
        })
    }
}

impl FoundRecord {
    /// Where the service is reached, `HOST:PORT`, best first.
    pub fn addresses_of(&self, service: &Service) -> Vec<String> {
        let mut addresses: Vec<String> = Vec::new();
        for addr in &self.addrs {
            let mut parts = addr.split('/').skip(1);
            let address = match (parts.next(), parts.next()) {
                (Some("ip6"), Some(ip)) => format!("[{ip}]:{}", service.port),
                (Some("ip4" | "dns" | "dns4" | "dns6"), Some(host)) => {
                    format!("{host}:{}", service.port)
                }
                _ => continue,
            };
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }
}

impl Found {
    /// What the answer lacks; `None`: nothing.
    pub fn shortfall(&self) -> Option<String> {
        let lacks = [&self.silent, &self.refused, &self.partial];
        shortfall(self.complete, self.asked, lacks)
    }
}

impl IndexerList {
    /// What the answer lacks; `None`: nothing.
    pub fn shortfall(&self) -> Option<String> {
        let lacks = [&self.silent, &self.refused, &self.partial];
        shortfall(self.complete, self.asked, lacks)
    }
}

fn shortfall(complete: bool, asked: u64, lacks: [&Vec<String>; 3]) -> Option<String> {
    let what = [
        "did not answer",
        "answered with an error",
        "could not ask all others",
    ];
    let lacks = lacks.into_iter().zip(what).filter(|(of, _)| !of.is_empty());
    let lacks: Vec<_> = lacks
        .map(|(of, what)| format!("{} of {asked} servers asked {what}", of.len()))
        .collect();
    match (complete, asked, lacks.is_empty()) {
        (true, ..) => None,
        (false, 0, _) => Some("no server could be asked".into()),
        (false, _, true) => Some("there is more than one answer holds".into()),
        (false, _, false) => Some(lacks.join(", ")),
    }
}

#[cfg(test)]
mod tests;
