//! The answers to `find` and `indexers`, and how far they go.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use miniserde::{Deserialize, Serialize};

use super::{Service, counted, short_id};
use crate::config::is_host_name;

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

pub(super) fn addresses_of(multiaddrs: &[String], service: &Service) -> Vec<String> {
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
        let verb = if self.claimants == 1 {
            "claims"
        } else {
            "claim"
        };
        format!("{open}{} {verb}", counted(&self.claimants, "node"))
    }

    /// Names the servers that did not answer, refused, or answered in part. `None` if there are
    /// none.
    pub fn shortfall(&self) -> Option<String> {
        let lacks = [&self.silent, &self.refused, &self.partial];
        let all_named = lacks.iter().all(|servers| servers.is_empty());
        match !self.complete && self.asked > 0 && all_named && !self.more {
            true => Some(UNSEARCHED.to_owned()),
            false => shortfall(self.complete, self.asked, lacks),
        }
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

/// What an answer lacks if all servers that were asked have answered, and there was room.
const UNSEARCHED: &str =
    "the DHT could not be searched to its end, so that servers that it names were not asked";

/// Servers of one kind that are named in one line.
const MOST_NAMED: usize = 4;

/// What an answer lacks, because these servers did not answer, refused or were partial, with the
/// ends of their ids; `None`: nothing.
pub(crate) fn shortfall(complete: bool, asked: u64, lacks: [&Vec<String>; 3]) -> Option<String> {
    let what = [
        "did not answer",
        "answered with an error",
        "answered in part, because servers behind them did not answer",
    ];
    let lacks = lacks.into_iter().zip(what).filter(|(of, _)| !of.is_empty());
    let lacks: Vec<_> = lacks
        .map(|(of, what)| {
            let asked = counted(&asked, "server");
            format!("{} of {asked} asked {what} ({})", of.len(), ends(of))
        })
        .collect();
    match (complete, asked, lacks.is_empty()) {
        (true, ..) => None,
        (false, 0, _) => Some("no server could be asked".into()),
        (false, _, true) => Some("one answer has no room for all of them".into()),
        (false, _, false) => Some(lacks.join(", ")),
    }
}

/// The ends of some ids, and how many more there are.
fn ends(ids: &[String]) -> String {
    let mut named: Vec<String> = ids.iter().take(MOST_NAMED).map(|id| short_id(id)).collect();
    if let more @ 1.. = ids.len().saturating_sub(MOST_NAMED) {
        named.push(format!("{more} more"));
    }
    named.join(", ")
}
