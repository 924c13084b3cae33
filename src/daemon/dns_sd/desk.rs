//! The desk of the bridge: rows of a watch become offers, packets become answers, and what is due
//! becomes messages.

use std::net::{IpAddr, SocketAddr};

use super::browse::Browse;
use crate::{
    daemon::{
        request::Part,
        status::{NodeQuery, NodeState, Protocol, WatchEventName, WatchRow},
    },
    net::mdns::{
        links::{Links, PORT},
        service::{
            Data, Gone, Instance, Meaning, Packet, Question, Record, Told as Heard, answers, probe,
            same, text, unicast,
        },
    },
    protocol::{
        Instant,
        codec::service::{ServiceName, Transport},
        dns_sd::{Asked, Asker, MAX_LABEL_LEN, MAX_TOLD, Offers, Telling, reachable},
    },
};

/// Letters of the peer id in the name of a host.
const ID_LETTERS: usize = 8;
/// Bytes of the numbers in an SRV record, before the name.
const SRV_NUMBERS: usize = 6;

/// A service that links are told of.
struct Told {
    peer: String,
    /// The name that is asked for.
    base: String,
    /// A device of another link offers it.
    is_of_device: bool,
    instance: Instance,
    addrs: Vec<IpAddr>,
    /// The present watch has named it.
    is_confirmed: bool,
}

/// What links are told, and what they tell.
pub(super) struct Desk {
    /// The services that links are told of.
    pub(super) services: Vec<ServiceName>,
    links: Links,
    /// When and under which names they are told.
    pub(super) offers: Box<Offers>,
    /// By slots of `offers`.
    told: Vec<Option<Told>>,
    /// What is heard there, if anything is listed.
    pub(super) browse: Option<Browse>,
}

impl Desk {
    /// Links are told of the services `to` them, and those `from` them are listed.
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
            offers: Box::new(Offers::new(seed)),
            told: (0..MAX_TOLD).map(|_| None).collect(),
            browse: Browse::new(now, from),
        }
    }

    /// The host's links are others.
    pub(super) fn join(&mut self, now: Instant) {
        self.links.join();
        self.offers.restart(now);
        self.browse
            .iter_mut()
            .for_each(|browse| browse.restart(now));
    }

    /// Begins to watch: what is told must be named again. Returns what to watch.
    pub(super) fn watch(&mut self) -> NodeQuery {
        for told in self.told.iter_mut().flatten() {
            told.is_confirmed = false;
        }
        let service = match self.services.as_slice() {
            [only] => Some(only.as_str().to_owned()),
            _ => None,
        };
        NodeQuery {
            service,
            ..NodeQuery::default()
        }
    }

    /// Takes a part of what the watch says.
    pub(super) fn take(&mut self, now: Instant, part: Part) {
        match part {
            Part::Change(row) => self.on_row(now, &row),
            Part::CaughtUp(_) => self.withdraw(|told| !told.is_confirmed),
            Part::Row(_) | Part::Tally(_) => {}
        }
    }

    fn on_row(&mut self, now: Instant, row: &WatchRow) {
        let mut wanted = self.wanted(row);
        for slot in 0..self.told.len() {
            let Some(told) = self.told.get_mut(slot).and_then(Option::as_mut) else {
                continue;
            };
            if told.peer != row.peer_id {
                continue;
            }
            let is_it = |new: &Told| {
                new.base == told.base
                    && new.is_of_device == told.is_of_device
                    && new.kind() == told.kind()
            };
            match wanted.iter().position(is_it) {
                Some(at) => {
                    let mut new = wanted.swap_remove(at);
                    // Its name may have a number.
                    new.instance.label.clone_from(&told.instance.label);
                    let is_changed = new.instance != told.instance || new.addrs != told.addrs;
                    *told = new;
                    if is_changed {
                        self.offers.changed(now, slot);
                    }
                }
                None => self.withdraw_slot(slot),
            }
        }
        for mut new in wanted {
            let (service, transport) = new.kind();
            if let Some(slot) = self.offers.offer(now, &new.base, service, transport)
                && let Some(place) = self.told.get_mut(slot)
            {
                let label = self.offers.label(slot).unwrap_or_default();
                new.instance.label = label.as_str().into();
                *place = Some(new);
            }
        }
    }

    /// What the links are to be told of a node.
    fn wanted(&self, row: &WatchRow) -> Vec<Told> {
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
            Some(Told {
                peer: row.peer_id.clone(),
                base,
                is_of_device: service.device.is_some(),
                instance,
                addrs,
                is_confirmed: true,
            })
        });
        services.collect()
    }

    /// Tells the links that all services are gone.
    pub(super) fn leave(&mut self) {
        self.withdraw(|_| true);
    }

    /// Withdraws those that are meant, and tells the links of it.
    fn withdraw(&mut self, is_meant: impl Fn(&Told) -> bool) {
        for slot in 0..self.told.len() {
            let told = self.told.get(slot).and_then(Option::as_ref);
            if told.is_some_and(&is_meant) {
                self.withdraw_slot(slot);
            }
        }
    }

    fn withdraw_slot(&mut self, slot: usize) {
        let Some(told) = self.told.get_mut(slot).and_then(Option::take) else {
            return;
        };
        if !self.offers.withdraw(slot) {
            return;
        }
        let others = || self.told.iter().flatten();
        let gone = Gone {
            kind: !others().any(|other| other.kind() == told.kind()),
            host: !others().any(|other| other.instance.host == told.instance.host),
        };
        self.tell(u16::MAX, |desk, bit| {
            let addrs = desk.addrs_on(&told, bit);
            vec![told.instance.goodbye(&addrs, gone)]
        });
    }

    /// Says what is due. Returns when to come again.
    pub(super) fn speak(&mut self, now: Instant) -> Option<Instant> {
        let mut due = Vec::new();
        while let Some((slot, telling)) = self.offers.poll(now) {
            match telling {
                Telling::Records(links) => due.push((slot, links)),
                Telling::Probe => {
                    let told = self.told.get(slot).and_then(Option::as_ref);
                    if let Some(message) = told.and_then(|told| probe(&told.instance)) {
                        self.links.send(u16::MAX, message.as_ref());
                    }
                }
            }
        }
        let links = due.iter().fold(0, |all, (_, links)| all | links);
        self.tell(links, |desk, bit| {
            let slots = due.iter().filter(|(_, links)| links & bit != 0);
            slots.map(|(slot, _)| desk.records(*slot, bit)).collect()
        });
        let browse = self.browse.as_mut();
        let ask = browse.and_then(|browse| browse.speak(now, &self.links));
        self.offers.timeout().into_iter().chain(ask).min()
    }

    /// Multicasts records on each of these links.
    fn tell(&self, links: u16, records: impl Fn(&Self, u16) -> Vec<Vec<Record>>) {
        for bit in (0..self.links.subnets().len()).map(|at| 1 << at) {
            if links & bit != 0 {
                for message in answers(&records(self, bit)) {
                    self.links.send(bit, message.as_ref());
                }
            }
        }
    }

    /// The records of an offer on a link: none without an address.
    fn records(&self, slot: usize, bit: u16) -> Vec<Record> {
        let told = self.told.get(slot).and_then(Option::as_ref);
        let records = told.and_then(|told| {
            let addrs = self.addrs_on(told, bit);
            (!addrs.is_empty()).then(|| told.instance.records(&addrs))
        });
        records.unwrap_or_default()
    }

    /// The addresses that devices of the first of these links can reach.
    fn addrs_on(&self, told: &Told, links: u16) -> Vec<IpAddr> {
        let subnets = self.links.subnets();
        let on_link = subnets.get(links.trailing_zeros() as usize);
        let on_link = on_link.map(Vec::as_slice).unwrap_or_default();
        reachable(&told.addrs, on_link, &self.links.bridges, told.is_of_device).collect()
    }

    /// Takes a packet.
    pub(super) fn hear(&mut self, now: Instant, packet: &Packet, from: SocketAddr, links: u16) {
        if packet.is_answer {
            if from.port() == PORT {
                self.hear_records(now, packet);
                self.browse
                    .iter_mut()
                    .for_each(|browse| browse.hear(now, packet));
            }
            return;
        }
        self.hear_claims(now, packet);
        for question in &packet.questions {
            let asker = Asker {
                ip: from.ip(),
                links,
                wants_unicast: question.wants_unicast,
            };
            let id = (from.port() != PORT).then_some(packet.id);
            let records = self.asked(now, packet, question, (&asker, id.is_some()));
            if !records.is_empty()
                && let Some(message) = unicast(question, records, id)
            {
                self.links.reply(from, message.as_ref());
            }
        }
        if packet.questions.is_empty() {
            self.hear_known(packet, from, links);
        }
    }

    /// Takes a question. Returns the records to answer by unicast.
    fn asked(
        &mut self,
        now: Instant,
        packet: &Packet,
        question: &Question,
        (asker, is_legacy): (&Asker, bool),
    ) -> Vec<Record> {
        let mut kinds = Vec::new();
        let mut records = Vec::new();
        for slot in 0..self.told.len() {
            let Some(told) = self.told.get(slot).and_then(Option::as_ref) else {
                continue;
            };
            let instance = &told.instance;
            let Some(meaning) = question
                .meaning(instance)
                .filter(|_| self.offers.is_told(slot))
            else {
                continue;
            };
            // One of each kind says that there is this kind.
            let is_said = meaning == Meaning::Kinds && kinds.contains(&instance.kind());
            let is_known = |record: &Heard| record.is_known(meaning, instance);
            if is_said || packet.records.iter().any(is_known) {
                continue;
            }
            kinds.push(instance.kind());
            let is_probe = || {
                packet
                    .claims
                    .iter()
                    .any(|it| same(&it.owner, &instance.name()))
            };
            let how = match meaning {
                Meaning::Name if is_probe() => Asked::Probe,
                Meaning::Name => Asked::ByName,
                Meaning::Kind | Meaning::Kinds => Asked::ByKind {
                    more: packet.has_more,
                },
            };
            if is_legacy || self.offers.asked(now, slot, how, asker) {
                records.extend(self.records(slot, asker.links));
            }
        }
        records
    }

    /// Takes what an asker knows beside what it said before.
    fn hear_known(&mut self, packet: &Packet, from: SocketAddr, links: u16) {
        let asker = Asker {
            ip: from.ip(),
            links,
            wants_unicast: false,
        };
        for (slot, told) in self.told.iter().enumerate() {
            let Some(Told { instance, .. }) = told else {
                continue;
            };
            let is_known = |record: &Heard| record.is_known(Meaning::Kind, instance);
            if packet.records.iter().any(is_known) {
                self.offers.known(slot, &asker);
            }
        }
    }

    /// Takes what another would tell if it had a name: the later data wins.
    fn hear_claims(&mut self, now: Instant, packet: &Packet) {
        for (slot, told) in self.told.iter().enumerate() {
            let Some(Told { instance, .. }) = told else {
                continue;
            };
            let wins = |claim: &Heard| match &claim.data {
                Data::Service(data) => *data > instance.srv(),
                _ => false,
            };
            let mut claims = packet.claims.iter();
            if claims.any(|claim| same(&claim.owner, &instance.name()) && wins(claim)) {
                self.offers.lost_tie(now, slot);
            }
        }
    }

    /// Takes what another tells of a name that is told here, too.
    fn hear_records(&mut self, now: Instant, packet: &Packet) {
        for record in &packet.records {
            let Data::Service(data) = &record.data else {
                continue;
            };
            for slot in 0..self.told.len() {
                let Some(told) = self.told.get_mut(slot).and_then(Option::as_mut) else {
                    continue;
                };
                let instance = &mut told.instance;
                if !same(&record.owner, &instance.name()) {
                    continue;
                }
                match (is_same_service(data, &instance.srv()), record.ttl) {
                    // Another bridge knows the node, too, and tells that it is gone.
                    (true, 0) => self.offers.changed(now, slot),
                    (true, _) | (false, 0) => {}
                    (false, _) => {
                        self.offers.conflict(now, slot);
                        let label = self.offers.label(slot).unwrap_or_default();
                        instance.label = label.as_str().into();
                        log::debug!("its name is taken on the link: {label:?} is tried");
                    }
                }
            }
        }
    }
}

impl Told {
    fn kind(&self) -> (&ServiceName, Transport) {
        (&self.instance.service, self.instance.transport)
    }
}

/// Whether these are the data of the same SRV record: the name in it may have letters of another
/// case.
fn is_same_service(one: &[u8], other: &[u8]) -> bool {
    one.get(..SRV_NUMBERS) == other.get(..SRV_NUMBERS) && same(one, other)
}

/// The name of a node's host before `.local`. It has letters of the peer id, so that no two nodes
/// share one, and is the same whatever bridge tells of it.
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
