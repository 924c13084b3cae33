//! What the devices of the links announce of services that are asked for: it becomes part of the
//! own record. When the links are asked, and how long what was heard is held, is decided by
//! [`protocol::dns_sd::browsing`](crate::protocol::dns_sd::browsing).
//!
//! Invariants: what a bridge announces is not listed again; the loop is notified of a change at
//! most every [`TELL_PAUSE`], because each is signed and sent to all servers.

use std::{net::IpAddr, time::Duration};

use crate::{
    net::{
        envelope::DeviceService,
        mdns::{
            links::Links,
            service::{Data, Packet, ask_for_instance, ask_for_kind, kind, same, split_service},
        },
    },
    protocol::{
        Instant, TableStats,
        codec::{
            link_service::MAX_DEVICE_LEN,
            service::{Service, ServiceName, Transport},
        },
        dns_sd::{
            LinkSet,
            browsing::{Browsing, MAX_HEARD, Part, Question, Step},
            is_of_network,
        },
        order::sort,
    },
};

/// The least time between two words to the loop.
const TELL_PAUSE: Duration = Duration::from_secs(3);
/// Addresses that are held of one device.
const MAX_ADDRS: usize = 8;

/// A kind of service that is asked for.
struct Kind {
    service: ServiceName,
    transport: Transport,
    name: Vec<u8>,
}

/// An instance that was heard. Names are in the form that they have on the wire.
struct Instance {
    name: Vec<u8>,
    /// Its place in the list of kinds.
    kind: usize,
    port: u16,
    host: Vec<u8>,
    /// A bridge tells of it.
    is_bridged: bool,
    /// With the links on which they were heard.
    addrs: Vec<(IpAddr, LinkSet)>,
}

/// What was heard of the kinds that are asked for.
pub(super) struct Browse {
    kinds: Vec<Kind>,
    core: Box<Browsing>,
    /// By slots of `core`.
    heard: Vec<Option<Instance>>,
    told: Vec<DeviceService>,
    tell_from: Instant,
}

impl Browse {
    /// Asks for these services, over TCP and UDP; `None` if there are none.
    pub(super) fn new(now: Instant, services: &[ServiceName]) -> Option<Self> {
        let kinds = services.iter().flat_map(|service| {
            [Transport::Tcp, Transport::Udp].map(|transport| Kind {
                service: service.clone(),
                transport,
                name: kind(service, transport),
            })
        });
        let kinds: Vec<_> = kinds.collect();
        let seed = getrandom::u64().unwrap_or_default();
        (!kinds.is_empty()).then(|| Self {
            core: Box::new(Browsing::new(now, seed, kinds.len())),
            kinds,
            heard: (0..MAX_HEARD).map(|_| None).collect(),
            told: Vec::new(),
            tell_from: now,
        })
    }

    /// The host's links are others.
    pub(super) fn restart(&mut self, now: Instant) {
        self.core.restart(now);
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self) -> TableStats {
        self.core.stats()
    }

    /// Takes what was told on one of these links.
    pub(super) fn hear(&mut self, now: Instant, packet: &Packet, links: LinkSet) {
        for record in &packet.records {
            if let Data::Pointer(to) = &record.data {
                self.hear_pointer(now, &record.owner, to, record.ttl);
            }
        }
        for (slot, instance) in self.heard.iter_mut().enumerate() {
            if let Some(instance) = instance {
                instance.hear(packet, links, &mut |part, ttl| {
                    self.core
                        .heard(now, slot, part, Duration::from_secs(ttl.into()));
                });
            }
        }
    }

    fn hear_pointer(&mut self, now: Instant, owner: &[u8], to: &[u8], ttl: u32) {
        let mut kinds = self.kinds.iter();
        let Some(kind) = kinds.position(|kind| same(&kind.name, owner)) else {
            return;
        };
        let is_it = |heard: &Instance| heard.kind == kind && same(&heard.name, to);
        let known = |heard: &Option<Instance>| heard.as_ref().is_some_and(is_it);
        let slot = match self.heard.iter().position(known) {
            Some(slot) => slot,
            None => {
                // A name of one label and its kind.
                let is_one = to
                    .get(1 + label(to).len()..)
                    .is_some_and(|of| same(of, owner));
                let Some(slot) = (ttl > 0 && is_one).then(|| self.core.add(now)).flatten() else {
                    return;
                };
                if let Some(place) = self.heard.get_mut(slot) {
                    *place = Some(Instance {
                        name: to.into(),
                        kind,
                        port: 0,
                        host: Vec::new(),
                        is_bridged: false,
                        addrs: Vec::new(),
                    });
                }
                slot
            }
        };
        let ttl = Duration::from_secs(ttl.into());
        self.core.heard(now, slot, Part::Pointer, ttl);
    }

    /// Asks what is due on all links. Returns when to come again.
    pub(super) fn speak(&mut self, now: Instant, links: &Links) -> Option<Instant> {
        while let Some(step) = self.core.poll(now) {
            let message = match step {
                Step::Gone(slot) => {
                    if let Some(place) = self.heard.get_mut(slot) {
                        *place = None;
                    }
                    continue;
                }
                Step::Ask(Question::Kind(at)) => self.kinds.get(at).and_then(|kind| {
                    let heard = self.heard.iter().enumerate();
                    let known = heard.filter_map(|(slot, heard)| {
                        let heard = heard.as_ref().filter(|heard| heard.kind == at)?;
                        let rest = self.core.rest(now, slot);
                        Some((heard.name.as_slice(), rest.as_secs() as u32))
                    });
                    ask_for_kind(&kind.name, known)
                }),
                Step::Ask(Question::Instance(slot)) => {
                    let heard = self.heard.get(slot).and_then(Option::as_ref);
                    heard.and_then(|heard| ask_for_instance(&heard.name, &heard.host))
                }
            };
            if let Some(message) = message {
                links.send(u16::MAX, message.as_ref());
            }
        }
        let tell = (self.found() != self.told).then_some(self.tell_from);
        self.core.timeout().into_iter().chain(tell).min()
    }

    /// What the devices offer now, if it is to be told.
    pub(super) fn news(&mut self, now: Instant) -> Option<Vec<DeviceService>> {
        let found = self.found();
        if found == self.told || now < self.tell_from {
            return None;
        }
        self.tell_from = now + TELL_PAUSE;
        self.told.clone_from(&found);
        Some(found)
    }

    fn found(&self) -> Vec<DeviceService> {
        let heard = self.heard.iter().enumerate();
        let known = heard.filter(|(slot, _)| self.core.is_known(*slot));
        let found = known.filter_map(|(_, heard)| {
            let heard = heard.as_ref().filter(|heard| !heard.is_bridged)?;
            let kind = self.kinds.get(heard.kind)?;
            let addrs = heard.addrs.iter().map(|(ip, _)| *ip);
            let addrs: Vec<_> = addrs.filter(|ip| is_of_network(*ip)).collect();
            let mut device = String::from_utf8_lossy(label(&heard.name)).into_owned();
            while device.len() > MAX_DEVICE_LEN {
                device.pop();
            }
            let service = Service {
                name: kind.service.clone(),
                transport: kind.transport,
                port: heard.port,
            };
            (!addrs.is_empty() && heard.port > 0).then_some(DeviceService {
                device,
                service,
                addrs,
            })
        });
        let mut found: Vec<_> = found.collect();
        sort(&mut found, |one, other| one.device < other.device);
        found
    }
}

impl Instance {
    /// Takes what a packet tells of it.
    fn hear(&mut self, packet: &Packet, links: LinkSet, heard: &mut dyn FnMut(Part, u32)) {
        for record in packet.records.iter() {
            if !same(&record.owner, &self.name) {
                continue;
            }
            match &record.data {
                Data::Service(data) => {
                    let (port, host) = split_service(data);
                    if !same(host, &self.host) {
                        self.addrs.clear();
                    }
                    (self.port, self.host) = (port, host.into());
                    heard(Part::Service, record.ttl);
                }
                Data::Text { is_bridged } => {
                    self.is_bridged = *is_bridged;
                    heard(Part::Text, record.ttl);
                }
                Data::Pointer(_) | Data::Address(_) => {}
            }
        }
        self.flush(packet, links);
        for record in packet.records.iter() {
            let Data::Address(ip) = record.data else {
                continue;
            };
            if !same(&record.owner, &self.host) {
                continue;
            }
            self.addrs.retain(|(known, _)| *known != ip);
            if record.ttl > 0 {
                self.addrs.insert(0, (ip, links));
                self.addrs.truncate(MAX_ADDRS);
                sort(&mut self.addrs, |one, other| one < other);
            }
            if record.ttl > 0 || self.addrs.is_empty() {
                heard(Part::Address, record.ttl);
            }
        }
    }

    /// Forgets the addresses that its host does not have any more. The packet has all addresses of
    /// a family on this link.
    fn flush(&mut self, packet: &Packet, links: LinkSet) {
        let told = || {
            let of_host = packet.records.iter();
            let of_host = of_host.filter(|it| it.ttl > 0 && same(&it.owner, &self.host));
            of_host.filter_map(|record| match record.data {
                Data::Address(ip) => Some((ip, record.flushes)),
                _ => None,
            })
        };
        self.addrs.retain(|(known, of)| {
            let is_all = |(ip, flushes): (IpAddr, bool)| flushes && ip.is_ipv4() == known.is_ipv4();
            of & links == 0 || !told().any(is_all) || told().any(|(ip, _)| ip == *known)
        });
    }
}

/// The first label of a name.
fn label(name: &[u8]) -> &[u8] {
    let len = name.first().copied().unwrap_or_default();
    name.get(1..1 + usize::from(len)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
