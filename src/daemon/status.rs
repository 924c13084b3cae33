//! What a daemon reports about itself: the objects of its control socket, as JSON for programs and
//! as text for people.
//!
//! The field names are the interface: they are never renamed. All times are relative and in
//! milliseconds, and what has expired is never listed. Fields that do not apply to a role are
//! empty. Text from other peers is printed without its control characters.

mod nodes;
mod problem;
mod text;
mod watch;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use miniserde::{
    Deserialize, Serialize,
    de::Visitor,
    make_place,
    ser::{self, Fragment},
};

use crate::config::{Role, is_host_name};
pub(crate) use nodes::{ListTally, NodeQuery};
pub use nodes::{NodeRow, NodeState};
pub(crate) use problem::{Problem, Server, ServerState, Severity};
#[cfg(feature = "program")]
pub(crate) use text::Plain;
pub(crate) use text::Span;
#[cfg(feature = "program")]
pub(super) use text::table;
pub(crate) use watch::{CaughtUp, WatchEventName, WatchRow};

/// The answer to `status`: everything that a process knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
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
    /// Native: its background loops by name.
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
    /// Time since its last beat, ms.
    pub last_seen_ms: u64,
    /// Time until its lease expires, ms.
    pub expires_in_ms: u64,
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
    /// Time since it last ran, ms; 0 if it never did.
    pub last_ms: u64,
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

/// The answer to `indexers`: the indexers that a node could use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IndexerList {
    /// Every server asked has answered, and nothing was left out.
    pub complete: bool,
    /// Servers that were asked.
    pub asked: u64,
    /// Servers that answered.
    pub answered: u64,
    /// The peer ids of those that did not answer.
    pub silent: Vec<String>,
    /// The peer ids of those that answered with an error.
    pub refused: Vec<String>,
    /// The peer ids of those that answered, but not for all servers that they asked themselves.
    pub partial: Vec<String>,
    /// The indexers, in the order in which they were reported.
    pub indexers: Vec<KnownIndexer>,
}

/// An indexer that a node could go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KnownIndexer {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// Its multiaddresses, without `/p2p`.
    pub addrs: Vec<String>,
    /// Time until the native's entry or the lease runs out, ms.
    pub expires_in_ms: u64,
    /// Leases that it can still grant; `None` if it has not reported them.
    pub free_leases: Option<u64>,
    /// The source: `native`, or `lease` if it grants a lease to this process and no native that
    /// answered has listed it.
    pub source: String,
}

/// The answer to `find`: every claimant of a name, or one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Found {
    /// The version of this form: 1.
    pub schema: u64,
    /// The name or the peer id that was looked up.
    pub query: String,
    /// Every server asked has answered, and nothing was left out.
    pub complete: bool,
    /// Servers that this daemon asked, each once: those that answered, were silent or refused.
    pub asked: u64,
    /// Servers that answered.
    pub answered: u64,
    /// The peer ids of those that did not answer.
    pub silent: Vec<String>,
    /// The peer ids of those that answered with an error.
    pub refused: Vec<String>,
    /// The peer ids of those that answered, but not for all servers that they asked themselves.
    pub partial: Vec<String>,
    /// More nodes claim the name than `records` holds.
    pub more: bool,
    /// Different nodes that claim the name, as far as they were counted; 0 for a peer id.
    pub claimants: u64,
    /// No node claims the name that was not counted.
    pub all_counted: bool,
    /// The signed records found; empty if no server that answered has one. First comes the peer
    /// that an earlier find has returned, then those that servers of this daemon vouch for, and of
    /// what one server tells, the oldest claim.
    pub records: Vec<FoundRecord>,
}

/// A node as its own signed record describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FoundRecord {
    /// Its peer id, in base58: the signature proves it, the name does not.
    pub peer_id: String,
    /// The name that it claims.
    pub name: String,
    /// Its multiaddresses, without `/p2p`, in the order of its record.
    pub addrs: Vec<String>,
    /// The same, those in networks of this host first.
    pub addresses: Vec<String>,
    /// `alive`: the node holds a lease, or did when its record was signed.
    pub state: String,
    /// Time since its last heartbeat, ms; `None` if the server did not tell it.
    pub last_beat_ms: Option<u64>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its services, each at all of its addresses, and those of devices that it lists.
    pub services: Vec<Service>,
    /// The version of its program; empty if the record does not have it.
    pub version: String,
    /// Time until the record expires, ms.
    pub expires_in_ms: u64,
    /// Where the record was found: `local`, `indexer`, `native` or `dht`.
    pub source: String,
}

/// A service that a node offers, or a device of its link.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Service {
    /// Its name (RFC 6335), in lower case.
    pub name: String,
    /// Its transport protocol.
    pub protocol: Protocol,
    /// Its port, never 0.
    pub port: u16,
    /// The name of the device that offers it; `None`: the node itself. It may be any text.
    pub device: Option<String>,
    /// The IP addresses of that device; `None`: those of the node.
    pub addresses: Option<Vec<String>>,
}

/// The last two fields are left out where there is no device.
impl Serialize for Service {
    fn begin(&self) -> Fragment<'_> {
        Fragment::Map(Box::new(ServiceFields(self, 0)))
    }
}

struct ServiceFields<'a>(&'a Service, usize);

impl ser::Map for ServiceFields<'_> {
    fn next(&mut self) -> Option<(Cow<'_, str>, &dyn Serialize)> {
        let Self(service, at) = self;
        *at += 1;
        let (name, value): (_, &dyn Serialize) = match *at {
            1 => ("name", &service.name),
            2 => ("protocol", &service.protocol),
            3 => ("port", &service.port),
            4 => ("device", service.device.as_ref()?),
            5 => ("addresses", service.addresses.as_ref()?),
            _ => return None,
        };
        Some((Cow::Borrowed(name), value))
    }
}

/// The transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Protocol {
    /// TCP.
    #[serde(rename = "tcp")]
    Tcp,
    /// UDP.
    #[serde(rename = "udp")]
    Udp,
}

/// The check of one of the own services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceCheck {
    /// The name of the service.
    pub service: String,
    /// Its transport protocol.
    pub protocol: Protocol,
    /// Its port.
    pub port: u16,
    /// The check as it was given: `tcp`, `http:PATH` or `exec:COMMAND`.
    pub check: String,
    /// Whether the service is in the record.
    pub state: CheckState,
    /// Failures since the check last passed, 255 at most; 3 before it was ever run.
    pub failures: u64,
    /// Time since the service was withdrawn, restored, or first checked, ms; `None` before that.
    pub since_ms: Option<u64>,
    /// Why the last run failed; `None` if it passed.
    pub error: Option<String>,
}

/// The state of a service with a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CheckState {
    /// No run has ended yet, so the service is not in the record.
    #[serde(rename = "starting")]
    Starting,
    /// The service is in the record.
    #[serde(rename = "ok")]
    Ok,
    /// It never passed, or failed three times in a row, so the service is not in the record.
    #[serde(rename = "failing")]
    Failing,
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

impl Found {
    /// The address of the service, `HOST:PORT`: the best address of the best record that offers it;
    /// without a name, that of the first service.
    pub fn service_addr(&self, name: Option<&str>) -> Option<String> {
        self.service_at(name).map(|(_, addr)| addr)
    }

    /// The same, with the record that offers it.
    pub(crate) fn service_at(&self, name: Option<&str>) -> Option<(&FoundRecord, String)> {
        self.records.iter().find_map(|record| {
            let mut services = record.services.iter();
            let service = services.find(|s| name.is_none_or(|name| s.name == name))?;
            let addr = record.addresses_of(service).into_iter().next()?;
            Some((record, addr))
        })
    }
}

impl FoundRecord {
    /// The addresses of the service, `HOST:PORT`, best first. The record is another peer's, so a
    /// text that is not a host name is left out: a script may hand the address on to a command.
    pub fn addresses_of(&self, service: &Service) -> Vec<String> {
        addresses_of(&self.addresses, service)
    }
}

fn addresses_of(multiaddrs: &[String], service: &Service) -> Vec<String> {
    if let Some(of_device) = &service.addresses {
        let ips = of_device.iter().filter_map(|ip| ip.parse().ok());
        let at = ips.map(|ip: IpAddr| SocketAddr::new(ip, service.port).to_string());
        return at.collect();
    }
    let mut addresses: Vec<String> = Vec::new();
    for addr in multiaddrs {
        let mut parts = addr.split('/').skip(1);
        let address = match (parts.next(), parts.next()) {
            (Some("ip6"), Some(ip)) => format!("[{ip}]:{}", service.port),
            (Some("ip4"), Some(ip)) => format!("{ip}:{}", service.port),
            (Some("dns" | "dns4" | "dns6"), Some(host))
                if is_host_name(host.strip_suffix('.').unwrap_or(host)) =>
            {
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

impl Found {
    /// How many nodes claim the name, in words.
    pub fn claims(&self) -> String {
        let lacks_servers = self.answered < self.asked || !self.partial.is_empty();
        let open = match (self.all_counted, lacks_servers) {
            (true, _) => "",
            (false, true) => "at least ",
            (false, false) => "more than ",
        };
        match self.claimants {
            1 => format!("{open}1 node claims"),
            count => format!("{open}{count} nodes claim"),
        }
    }

    /// Names the servers that did not answer, refused, or answered in part. `None` if there are
    /// none.
    pub fn shortfall(&self) -> Option<String> {
        let lacks = [&self.silent, &self.refused, &self.partial];
        shortfall(self.complete, self.asked, lacks)
    }
}

impl IndexerList {
    /// Names the servers that did not answer, refused, or answered in part. `None` if there are
    /// none.
    pub fn shortfall(&self) -> Option<String> {
        let lacks = [&self.silent, &self.refused, &self.partial];
        shortfall(self.complete, self.asked, lacks)
    }
}

/// What an answer lacks of which servers did not answer, refused or were partial; `None`: nothing.
pub(crate) fn shortfall(complete: bool, asked: u64, lacks: [&Vec<String>; 3]) -> Option<String> {
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
        (false, _, true) => Some("one answer has no room for all of them".into()),
        (false, _, false) => Some(lacks.join(", ")),
    }
}

#[cfg(test)]
mod tests;
