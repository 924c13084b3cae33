//! The desk of the bridge: rows of a watch become offers, packets become answers, and what is due
//! becomes messages.

use std::net::IpAddr;

use super::browse::Browse;
use crate::{
    daemon::{
        request::Part,
        status::{NodeQuery, NodeState, Protocol, WatchEventName, WatchRow},
    },
    net::mdns::{
        links::Links,
        service::{Gone, Instance, Names, Record, answers, probe, text},
    },
    protocol::{
        Instant,
        codec::service::{ServiceName, Transport},
        dns_sd::{Adverts, LinkSet, MAX_ADVERTS, MAX_LABEL_LEN, Transmission, reachable},
    },
};

mod hear;

/// Letters of the peer id in the name of a host.
const ID_LETTERS: usize = 8;

/// A service that is announced on links.
struct Advertised {
    peer: String,
    /// The name that is asked for.
    base: String,
    /// A device of another link offers it.
    is_of_device: bool,
    instance: Instance,
    /// Those of the instance: each packet is compared with them.
    names: Names,
    addrs: Vec<IpAddr>,
    /// The present watch has named it.
    is_confirmed: bool,
}

/// What is announced on links, and what is heard there.
pub(super) struct Desk {
    /// The services that are announced on links.
    pub(super) services: Vec<ServiceName>,
    links: Links,
    /// When and under which names they are announced.
    pub(super) adverts: Box<Adverts>,
    /// By slots of `offers`.
    advertised: Vec<Option<Advertised>>,
    /// The present watch has named a service for which there was no room.
    was_refused: bool,
    /// What is heard there, if anything is listed.
    pub(super) browse: Option<Browse>,
}

impl Desk {
    /// Announces the services `to` links, and lists those `from` them.
    pub(super) fn new(
        now: Instant,
        to: &[ServiceName],
        from: &[ServiceName],
        links: Links,
    ) -> Self {
        let seed = getrandom::u64().unwrap_or_default();
        Self {
            services: to.to_vec(),
            links,
            adverts: Box::new(Adverts::new(seed)),
            advertised: (0..MAX_ADVERTS).map(|_| None).collect(),
            was_refused: false,
            browse: Browse::new(now, from),
        }
    }

    /// The host's links are others.
    pub(super) fn join(&mut self, now: Instant) {
        self.links.join();
        self.adverts.restart(now);
        self.browse
            .iter_mut()
            .for_each(|browse| browse.restart(now));
    }

    /// Begins to watch: what is announced must be named again. Returns what to watch.
    pub(super) fn watch(&mut self) -> NodeQuery {
        for advertised in self.advertised.iter_mut().flatten() {
            advertised.is_confirmed = false;
        }
        self.was_refused = false;
        let service = match self.services.as_slice() {
            [only] => Some(only.as_str().to_owned()),
            _ => None,
        };
        NodeQuery {
            service,
            ..NodeQuery::default()
        }
    }

    /// Takes a part of what the watch says. Returns whether to begin it again: there is room for
    /// what was refused, and a watch names again only what has changed.
    pub(super) fn take(&mut self, now: Instant, part: Part) -> bool {
        match part {
            Part::Change(row) => self.on_row(now, &row),
            Part::CaughtUp(_) => self.withdraw(|advertised| !advertised.is_confirmed),
            Part::Row(_) | Part::Tally(_) => {}
        }
        self.was_refused && self.advertised.iter().any(Option::is_none)
    }

    fn on_row(&mut self, now: Instant, row: &WatchRow) {
        let mut wanted = self.wanted(row);
        for slot in 0..self.advertised.len() {
            let Some(advertised) = self.advertised.get_mut(slot).and_then(Option::as_mut) else {
                continue;
            };
            if advertised.peer != row.peer_id {
                continue;
            }
            let is_it = |new: &Advertised| {
                new.base == advertised.base
                    && new.is_of_device == advertised.is_of_device
                    && new.kind() == advertised.kind()
            };
            match wanted.iter().position(is_it) {
                Some(at) => {
                    let mut new = wanted.swap_remove(at);
                    // Its name may have a number.
                    new.rename(&advertised.instance.label);
                    let is_changed =
                        new.instance != advertised.instance || new.addrs != advertised.addrs;
                    *advertised = new;
                    if is_changed {
                        self.adverts.changed(now, slot);
                    }
                }
                None => self.withdraw_slot(slot),
            }
        }
        for mut new in wanted {
            let (service, transport) = new.kind();
            let Some(slot) = self.adverts.advertise(now, &new.base, service, transport) else {
                self.was_refused = true;
                continue;
            };
            if let Some(place) = self.advertised.get_mut(slot) {
                let label = self.adverts.label(slot).unwrap_or_default();
                new.rename(&label);
                *place = Some(new);
            }
        }
    }

    /// What is to be announced of a node.
    fn wanted(&self, row: &WatchRow) -> Vec<Advertised> {
        if row.state != NodeState::Alive || row.event == WatchEventName::Left {
            return Vec::new();
        }
        let own: Vec<_> = row
            .addresses
            .iter()
            .filter_map(|addr| ip_of(addr))
            .collect();
        let services = row.services.iter().filter_map(|service| {
            let name = self
                .services
                .iter()
                .find(|name| **name == service.name.as_str())?;
            let tags = || row.tags.iter().map(|(k, v)| (k.as_str(), v.as_str()));
            let (base, host, text, addrs) = match &service.device {
                None => (
                    row.name.clone(),
                    host_label(&row.name, &row.peer_id),
                    text(tags()),
                    own.clone(),
                ),
                // The tags are those of the node that lists it.
                Some(device) => (
                    device.clone(),
                    device_label(device, &row.peer_id),
                    text([].into_iter()),
                    service
                        .addresses
                        .iter()
                        .flatten()
                        .flat_map(|ip| ip.parse())
                        .collect(),
                ),
            };
            let instance = Instance {
                label: base.clone(),
                service: name.clone(),
                transport: match service.protocol {
                    Protocol::Tcp => Transport::Tcp,
                    Protocol::Udp => Transport::Udp,
                },
                port: service.port,
                host,
                text,
            };
            Some(Advertised {
                peer: row.peer_id.clone(),
                base,
                is_of_device: service.device.is_some(),
                names: instance.names(),
                instance,
                addrs,
                is_confirmed: true,
            })
        });
        services.collect()
    }

    /// Sends a goodbye for all services.
    pub(super) fn leave(&mut self) {
        self.withdraw(|_| true);
    }

    /// Withdraws those that are meant, and sends a goodbye for each.
    fn withdraw(&mut self, is_meant: impl Fn(&Advertised) -> bool) {
        for slot in 0..self.advertised.len() {
            let advertised = self.advertised.get(slot).and_then(Option::as_ref);
            if advertised.is_some_and(&is_meant) {
                self.withdraw_slot(slot);
            }
        }
    }

    fn withdraw_slot(&mut self, slot: usize) {
        let Some(advertised) = self.advertised.get_mut(slot).and_then(Option::take) else {
            return;
        };
        if !self.adverts.withdraw(slot) {
            return;
        }
        let others = || self.advertised.iter().flatten();
        let gone = Gone {
            kind: !others().any(|other| other.kind() == advertised.kind()),
            host: !others().any(|other| other.instance.host == advertised.instance.host),
        };
        self.multicast(self.links_of(&advertised), |desk, bit| {
            let addrs = desk.addrs_on(&advertised, bit);
            vec![advertised.instance.goodbye(&addrs, gone)]
        });
    }

    /// Says what is due. Returns when to come again.
    pub(super) fn speak(&mut self, now: Instant) -> Option<Instant> {
        let mut due = Vec::new();
        while let Some((slot, transmission)) = self.adverts.poll(now) {
            match transmission {
                Transmission::Records(links) => due.push((slot, links)),
                Transmission::Probe => {
                    let advertised = self.advertised.get(slot).and_then(Option::as_ref);
                    if let Some((advertised, message)) =
                        advertised.and_then(|it| Some((it, probe(&it.instance)?)))
                    {
                        self.links.send(self.links_of(advertised), message.as_ref());
                    }
                }
            }
        }
        let links = due.iter().fold(0, |all, (_, links)| all | links);
        self.multicast(links, |desk, bit| {
            let slots = due.iter().filter(|(_, links)| links & bit != 0);
            slots.map(|(slot, _)| desk.records(*slot, bit)).collect()
        });
        let browse = self.browse.as_mut();
        let ask = browse.and_then(|browse| browse.speak(now, &self.links));
        self.adverts.timeout().into_iter().chain(ask).min()
    }

    /// The links on which it is announced.
    fn links_of(&self, advertised: &Advertised) -> LinkSet {
        let bits = (0..self.links.count()).map(|at| 1 << at);
        let meant = bits.filter(|bit| !self.addrs_on(advertised, *bit).is_empty());
        meant.fold(0, |all, bit| all | bit)
    }

    /// Multicasts records on each of these links.
    fn multicast(&self, links: u16, records: impl Fn(&Self, u16) -> Vec<Vec<Record>>) {
        for bit in (0..self.links.count()).map(|at| 1 << at) {
            if links & bit != 0 {
                for message in answers(&records(self, bit)) {
                    self.links.send(bit, message.as_ref());
                }
            }
        }
    }

    /// The records of an offer on a link: none without an address.
    fn records(&self, slot: usize, bit: u16) -> Vec<Record> {
        let advertised = self.advertised.get(slot).and_then(Option::as_ref);
        let records = advertised.and_then(|advertised| {
            let addrs = self.addrs_on(advertised, bit);
            (!addrs.is_empty()).then(|| advertised.instance.records(&addrs))
        });
        records.unwrap_or_default()
    }

    /// The addresses that devices of the first of these links can reach.
    fn addrs_on(&self, advertised: &Advertised, links: u16) -> Vec<IpAddr> {
        let on_link = self.links.subnets(links.trailing_zeros() as usize);
        reachable(
            &advertised.addrs,
            &on_link,
            &self.links.bridges,
            advertised.is_of_device,
        )
        .collect()
    }
}

impl Advertised {
    fn kind(&self) -> (&ServiceName, Transport) {
        (&self.instance.service, self.instance.transport)
    }

    fn rename(&mut self, label: &str) {
        self.instance.label = label.into();
        self.names = self.instance.names();
    }
}

/// The name of a node's host before `.local`. It has letters of the peer id, so that no two nodes
/// share one, and is the same whatever bridge announces it.
fn host_label(name: &str, peer: &str) -> String {
    let letters = peer
        .get(peer.len().saturating_sub(ID_LETTERS)..)
        .unwrap_or(peer);
    let room = MAX_LABEL_LEN - 1 - ID_LETTERS;
    let name = name.get(..name.len().min(room)).unwrap_or(name);
    format!("{name}-{letters}")
        .replace('.', "-")
        .to_ascii_lowercase()
}

/// The same for a device that a node lists: no two devices of one node share one.
fn device_label(device: &str, peer: &str) -> String {
    let plain = |letter: char| match letter.is_ascii_alphanumeric() {
        true => letter,
        false => '-',
    };
    let name: String = device.chars().map(plain).collect();
    // FNV-1a, 32 bits.
    let hash = device.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let name = name
        .trim_matches('-')
        .get(..16)
        .unwrap_or(name.trim_matches('-'));
    let name = match name {
        "" => "device",
        name => name,
    };
    host_label(&format!("{name}-{hash:08x}"), peer)
}

/// The IP address of a multiaddress.
fn ip_of(addr: &str) -> Option<IpAddr> {
    let mut parts = addr.split('/').skip(1);
    match (parts.next()?, parts.next()?) {
        ("ip4" | "ip6", ip) => ip.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
