//! The answers of a server of the DNS, made of what a lookup found.
//!
//! The zone decides what a question asks and what its answer says
//! ([`zone`](crate::protocol::zone)); here it becomes records.
//!
//! Invariants: the nodes keep the order in which they were found, and the addresses of each are
//! sorted for the asker; a node with a name that is no host name of the DNS is left out; no record
//! is there twice.

mod message;

use std::net::IpAddr;

use domain::base::{Rtype, iana::OptRcode};

use self::message::Record;
pub(crate) use self::message::{DnsQuery, MAX_QUERY, MAX_TCP, PLAIN_UDP, Sections, read, write};
use crate::protocol::{
    Coverage,
    codec::service::{Service, ServiceName, Transport},
    order::sort_few,
    zone::{Matched, NEGATIVE_TTL, QueryName, Reply, Zone, reply},
};

/// Bytes of one string of a TXT record at most.
const MAX_STRING: usize = 255;

/// A node that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    /// Its name.
    pub(crate) name: String,
    /// Its addresses, best first.
    pub(crate) addrs: Vec<IpAddr>,
    /// It is a device that the node of this name lists: the name of its own host in the zone.
    pub(crate) device: Option<String>,
    /// Its services.
    pub(crate) services: Vec<Service>,
    /// Its tags.
    pub(crate) tags: Vec<(String, String)>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hosts {
    /// The nodes, best first.
    pub(crate) hosts: Vec<Host>,
    /// There are no others.
    pub(crate) coverage: Coverage,
}

/// A server and its zone.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// The zone that it answers for.
    pub(crate) zone: Zone,
    /// Where it listens, which is the address of the zone itself.
    pub(crate) ip: IpAddr,
}

impl Server {
    /// What is asked.
    ///
    /// # Errors
    /// The code of the answer, if the query can only be answered with an error.
    pub(crate) fn asked(&self, query: &DnsQuery<'_>) -> Result<QueryName, OptRcode> {
        if matches!(query.rtype, Rtype::ANY | Rtype::AXFR | Rtype::IXFR) {
            return Err(OptRcode::REFUSED);
        }
        match self.zone.query_name(&query.labels) {
            QueryName::Outside | QueryName::Services => Err(OptRcode::REFUSED),
            asked => Ok(asked),
        }
    }

    /// The answer to the question, made of what was found. It is valid for `ttl` seconds. An
    /// address with a lower `distance` comes first.
    pub(crate) fn answer(
        &self,
        (asked, rtype): (&QueryName, Rtype),
        found: &Hosts,
        ttl: u32,
        distance: &dyn Fn(IpAddr) -> u8,
    ) -> Sections {
        let mut records = Records {
            server: self,
            distance,
            answer: Vec::new(),
            additional: Vec::new(),
        };
        let hosts = found.hosts.iter().filter(|host| is_host(&host.name));
        let reply = match asked {
            QueryName::Apex => records.apex(rtype),
            QueryName::Parent => Reply::NoData,
            QueryName::Outside | QueryName::Services | QueryName::Nothing => Reply::NoName,
            QueryName::Address(ip) if type_of(*ip) == rtype => {
                add(&mut records.answer, None, rtype, data_of(*ip));
                Reply::Records
            }
            QueryName::Address(_) => Reply::NoData,
            QueryName::Name(_) => {
                let hosts = hosts.filter(|host| host.device.is_none());
                let exists = hosts.clone().count() > 0;
                hosts.for_each(|host| records.node(host, rtype));
                records.reply(exists, found)
            }
            QueryName::Service(name, transport) => {
                let offered = offers(hosts, name, *transport);
                let exists = offered.clone().count() > 0;
                offered.for_each(|(host, service)| records.service(host, service, rtype));
                records.reply(exists, found)
            }
            QueryName::Instance(_, name, transport) => {
                let offered = offers(hosts, name, *transport);
                let exists = offered.clone().count() > 0;
                offered.for_each(|(host, service)| records.instance(host, service, rtype));
                records.reply(exists, found)
            }
        };
        let Records {
            answer, additional, ..
        } = records;
        let (rcode, ttl, authority) = match reply {
            Reply::Records => (OptRcode::NOERROR, ttl, Vec::new()),
            Reply::NoData => (OptRcode::NOERROR, negative(ttl), vec![self.soa()]),
            Reply::NoName => (OptRcode::NXDOMAIN, negative(ttl), vec![self.soa()]),
            Reply::Failed => (OptRcode::SERVFAIL, 0, Vec::new()),
        };
        Sections {
            rcode,
            ttl,
            answer,
            authority,
            additional,
        }
    }

    fn soa(&self) -> Record {
        let zone = self.name(&[]);
        let mut data = zone.clone();
        // There is no mailbox for the zone (RFC 7535, section 3.3).
        data.extend(b"\x06nobody\x07invalid\0");
        // Serial, refresh, retry, expire: no server copies the zone. The last number is how long a
        // negative answer is valid.
        for number in [1, 3600, 600, 86400, NEGATIVE_TTL.as_secs() as u32] {
            data.extend(number.to_be_bytes());
        }
        Record {
            owner: Some(zone),
            rtype: Rtype::SOA,
            data,
        }
    }

    /// The wire form of a name in the zone.
    fn name(&self, labels: &[&str]) -> Vec<u8> {
        let mut wire = Vec::with_capacity(64);
        let labels = labels.iter().copied().chain(self.zone.name().split('.'));
        for label in labels {
            // All labels were bounded when they became names.
            wire.push(label.len() as u8);
            wire.extend(label.as_bytes());
        }
        wire.push(0);
        wire
    }

    fn host_name(&self, host: &Host) -> Vec<u8> {
        let name = host.device.as_ref().unwrap_or(&host.name);
        self.name(&name.split('.').collect::<Vec<_>>())
    }

    /// The name of the node's service. The node's name is one label of it, whatever dots it has
    /// (RFC 6763, section 4.3).
    fn instance_name(&self, host: &Host, service: &Service) -> Vec<u8> {
        let kind = format!("_{}", service.name);
        let transport = match service.transport {
            Transport::Tcp => "_tcp",
            Transport::Udp => "_udp",
        };
        self.name(&[&host.name, &kind, transport])
    }
}

fn negative(ttl: u32) -> u32 {
    ttl.min(NEGATIVE_TTL.as_secs() as u32)
}

/// Whether a node's name can be one of the DNS: each dot is between other characters.
fn is_host(name: &str) -> bool {
    name.split('.').all(|label| !label.is_empty())
}

fn offers<'a>(
    hosts: impl Iterator<Item = &'a Host> + Clone,
    name: &ServiceName,
    transport: Transport,
) -> impl Iterator<Item = (&'a Host, &'a Service)> + Clone {
    hosts.flat_map(move |host| {
        let services = host.services.iter();
        let meant = services.filter(move |it| it.name == *name && it.transport == transport);
        meant.map(move |service| (host, service))
    })
}

/// The records of one answer.
struct Records<'a> {
    server: &'a Server,
    distance: &'a dyn Fn(IpAddr) -> u8,
    answer: Vec<Record>,
    additional: Vec<Record>,
}

impl Records<'_> {
    fn reply(&self, exists: bool, found: &Hosts) -> Reply {
        let matching = match exists {
            _ if !self.answer.is_empty() => Matched::Records,
            true => Matched::Name,
            false => Matched::Nothing,
        };
        reply(matching, found.coverage)
    }

    fn apex(&mut self, rtype: Rtype) -> Reply {
        let ip = self.server.ip;
        match rtype {
            Rtype::SOA => self.answer.push(self.server.soa()),
            Rtype::NS => add(&mut self.answer, None, rtype, self.server.name(&[])),
            _ if rtype == type_of(ip) => add(&mut self.answer, None, rtype, data_of(ip)),
            _ => return Reply::NoData,
        }
        Reply::Records
    }

    /// The records of a node's name.
    fn node(&mut self, host: &Host, rtype: Rtype) {
        match rtype {
            Rtype::A | Rtype::AAAA => {
                for ip in sorted(host, self.distance) {
                    if type_of(ip) == rtype {
                        add(&mut self.answer, None, rtype, data_of(ip));
                    }
                }
            }
            Rtype::TXT if !host.tags.is_empty() => add(&mut self.answer, None, rtype, text(host)),
            _ => {}
        }
    }

    /// The records of a service's name for one node that offers it.
    fn service(&mut self, host: &Host, service: &Service, rtype: Rtype) {
        match rtype {
            // The same record as under the name of the node's own service.
            Rtype::SRV => self.instance(host, service, rtype),
            Rtype::PTR => {
                let instance = self.server.instance_name(host, service);
                add(&mut self.answer, None, rtype, instance.clone());
                let target = srv(self.server.host_name(host), service);
                add(
                    &mut self.additional,
                    Some(instance.clone()),
                    Rtype::SRV,
                    target,
                );
                add(&mut self.additional, Some(instance), Rtype::TXT, text(host));
                self.addresses(host);
            }
            _ => {}
        }
    }

    /// The records of the name of one node's service.
    fn instance(&mut self, host: &Host, service: &Service, rtype: Rtype) {
        match rtype {
            Rtype::SRV => {
                add(
                    &mut self.answer,
                    None,
                    rtype,
                    srv(self.server.host_name(host), service),
                );
                self.addresses(host);
            }
            Rtype::TXT => add(&mut self.answer, None, rtype, text(host)),
            _ => {}
        }
    }

    /// The addresses, which the client asks for next.
    fn addresses(&mut self, host: &Host) {
        for ip in sorted(host, self.distance) {
            let owner = Some(self.server.host_name(host));
            add(&mut self.additional, owner, type_of(ip), data_of(ip));
        }
    }
}

fn add(to: &mut Vec<Record>, owner: Option<Vec<u8>>, rtype: Rtype, data: Vec<u8>) {
    let record = Record { owner, rtype, data };
    if !to.contains(&record) {
        to.push(record);
    }
}

fn sorted(host: &Host, distance: &dyn Fn(IpAddr) -> u8) -> Vec<IpAddr> {
    let mut addrs = host.addrs.clone();
    sort_few(&mut addrs, |ip| distance(*ip));
    addrs
}

fn type_of(ip: IpAddr) -> Rtype {
    match ip {
        IpAddr::V4(_) => Rtype::A,
        IpAddr::V6(_) => Rtype::AAAA,
    }
}

fn data_of(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Priority and weight are 0: the order of the records says nothing, and resolvers change it.
fn srv(target: Vec<u8>, service: &Service) -> Vec<u8> {
    let mut data = vec![0; 4];
    data.extend(service.port.to_be_bytes());
    data.extend(target);
    data
}

/// The tags, `KEY=VALUE`; one empty string if there is none (RFC 6763, section 6.1).
fn text(host: &Host) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in &host.tags {
        let tag = format!("{key}={value}");
        for string in tag.as_bytes().chunks(MAX_STRING) {
            data.push(string.len() as u8);
            data.extend(string);
        }
    }
    if data.is_empty() {
        data.push(0);
    }
    data
}

#[cfg(test)]
mod tests;
