//! Collects the status for the operator from the core and the network side.
//!
//! Invariant: nothing here changes the state that it reports.

use std::collections::BTreeMap;

use libp2p::{Multiaddr, multiaddr::Protocol as Part};

use crate::{
    net::{
        convert,
        envelope::{About, DeviceService},
        multiaddrs,
        netlink::Change,
    },
    protocol::{
        Addrs, Instant, LoopStats, PeerId, Report, Role, TableStats, TransportAddr,
        codec::service::{Service as Offered, Transport},
        lease::Lease as HeldLease,
        lease_table::StreamRecord as Granted,
        native::{LiveIndexer as Live, Responsible, Source as LiveSource},
        rivals::Contested as Rivals,
    },
};

use super::{
    environment::Environment,
    nodes::millis,
    status::{
        Contested, Lease, LiveIndexer, LoopStatus, PeerState, Protocol, ResponsiblePeer, Server,
        ServerState, Service, Source, Status, StreamRecord, Table,
    },
};

/// Fills a [`Status`] at `now`.
pub(super) struct StatusReport<'a, 'm> {
    pub(super) env: &'a Environment<'m>,
    pub(super) now: Instant,
    pub(super) status: Status,
}

/// The peer id as text.
pub(crate) fn text(peer: &PeerId) -> String {
    libp2p::PeerId::from(*peer).to_string()
}

/// Log lines about the addresses of the host: one for each change, or the number of changes if
/// there are many at once.
#[derive(Debug, Default)]
pub(super) struct AddressLog {
    came: u64,
    went: u64,
}

impl AddressLog {
    /// The lines for a change.
    pub(super) fn lines(&mut self, change: &Change) -> Vec<String> {
        if !change.joined {
            let gone = change.gone.iter();
            let gone = gone.map(|(at, why)| format!("{}: {} went: {why}", at.link, at.ip));
            let new = change.new.iter();
            let new = new.map(|at| format!("{}: {} came", at.link, at.ip));
            return gone.chain(new).collect();
        }
        let begins = self.came == 0 && self.went == 0;
        self.came = self.came.saturating_add(change.new.len() as u64);
        self.went = self.went.saturating_add(change.gone.len() as u64);
        let line = "the addresses of this host change fast: from now on they are counted";
        begins.then(|| line.to_owned()).into_iter().collect()
    }

    /// The line about the changes counted since the last call.
    pub(super) fn counted(&mut self) -> Option<String> {
        let Self { came, went } = std::mem::take(self);
        (came > 0 || went > 0)
            .then(|| format!("the addresses of this host change fast: {came} came, {went} went"))
    }
}

/// The addresses as text.
pub(super) fn addr_texts(addrs: &Addrs) -> Vec<String> {
    multiaddrs(addrs).iter().map(ToString::to_string).collect()
}

/// The first of the addresses as `HOST:PORT`.
pub(super) fn first_endpoint(addrs: &Addrs) -> Option<String> {
    let first = multiaddrs(addrs).into_iter().next()?;
    Some(host_and_port(&first))
}

/// A multiaddress as `HOST:PORT`, as far as it names them.
pub(super) fn host_and_port(addr: &Multiaddr) -> String {
    let (mut host, mut port) = (String::new(), String::new());
    for part in addr {
        match part {
            Part::Ip4(ip) => host = ip.to_string(),
            Part::Ip6(ip) => host = format!("[{ip}]"),
            Part::Dns(name) | Part::Dns4(name) | Part::Dns6(name) => {
                host = name.into_owned();
            }
            Part::Tcp(number) => port = format!(":{number}"),
            _ => {}
        }
    }
    host + &port
}

/// The same of an address of the core; of one that cannot be read, what it says of its host.
pub(super) fn place_of(addr: &[u8]) -> String {
    match convert::to_multiaddr(addr) {
        Ok(addr) => host_and_port(&addr),
        Err(_) => {
            let TransportAddr { host, port } = TransportAddr::of(addr);
            format!("{host}:{port}")
        }
    }
}

/// A node's tags for `status`.
pub(super) fn tags(about: &About) -> BTreeMap<String, String> {
    // Collecting them would sort them, and bring a sort for them into the program.
    let mut tags = BTreeMap::new();
    tags.extend(about.tags.iter().cloned());
    tags
}

/// A node's services for `status`, and those of devices that it lists.
pub(super) fn services(about: &About) -> Vec<Service> {
    let seen = |service: &Offered| Service {
        name: service.name.as_str().into(),
        protocol: protocol(service.transport),
        port: service.port,
        device: None,
        addresses: None,
    };
    let of_device = |it: &DeviceService| Service {
        device: Some(it.device.clone()),
        addresses: Some(it.addrs.iter().map(ToString::to_string).collect()),
        ..seen(&it.service)
    };
    let own = about.services.iter().map(seen);
    own.chain(about.link_services.iter().map(of_device))
        .collect()
}

/// The transport protocol of a service for `status`.
pub(super) fn protocol(transport: Transport) -> Protocol {
    match transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
    }
}

/// A table for `status`.
pub(super) fn table(stats: TableStats) -> Table {
    Table {
        name: stats.name.into(),
        used: stats.used as u64,
        capacity: stats.capacity as u64,
        refused: stats.refused,
        evicted: stats.evicted,
    }
}

impl StatusReport<'_, '_> {
    fn since(&self, then: Instant) -> u64 {
        self.now.as_millis().saturating_sub(then.as_millis())
    }

    fn until(&self, then: Instant) -> u64 {
        then.as_millis().saturating_sub(self.now.as_millis())
    }
}

impl Report for StatusReport<'_, '_> {
    fn live_indexer(&mut self, entry: &Live) {
        let seen = LiveIndexer {
            peer_id: text(&entry.peer),
            addrs: addr_texts(&entry.addrs),
            expires_in_ms: self.until(entry.expires),
            source: match entry.source {
                LiveSource::Heartbeat => Source::Heartbeat,
                LiveSource::Dht => Source::Dht,
            },
            failures: entry.failures(self.now).into(),
        };
        self.status.live_indexers.push(seen);
    }

    fn known_peer_id(&mut self, peer: &PeerId) {
        self.status.known_peer_ids.push(text(peer));
    }

    fn responsible_peer(&mut self, entry: &Responsible) {
        let seen = ResponsiblePeer {
            peer_id: text(&entry.peer),
            since_ms: self.since(entry.since),
        };
        self.status.responsible_peers.push(seen);
    }

    fn stream_record(&mut self, record: &Granted) {
        let last_seen_ms = self.since(record.last_seen);
        let expires_in_ms = self.until(record.expiry);
        let seen = StreamRecord {
            peer_id: text(&record.peer),
            role: record.role,
            name: self.env.name_of(&record.peer),
            host: record.source.map(|source| source.host.to_string()),
            state: PeerState::of(record.connected, last_seen_ms, expires_in_ms),
            last_seen_ms,
            expires_in_ms,
        };
        self.status.stream_records.push(seen);
    }

    fn lease(&mut self, lease: &HeldLease) {
        let expiry = lease.expiry(self.now);
        let next = lease.is_resting().then(|| self.until(lease.timeout()));
        let server = Server {
            peer_id: text(lease.server()),
            role: lease.role(),
            addr: first_endpoint(lease.addrs()),
            state: match expiry {
                Some(_) if lease.is_secure(self.now) => ServerState::Granted,
                Some(_) => ServerState::Silent,
                None if lease.is_resting() => ServerState::Waiting,
                None => ServerState::Trying,
            },
            expires_in_ms: expiry.map(|expiry| self.until(expiry)),
            last_error: None,
            failing_ms: None,
            next_try_ms: next,
        };
        self.status.servers.push(server);
        let seeks = self.status.role != Role::Node;
        self.status.wanted_leases += u64::from(seeks);
        let Some(expiry) = expiry else {
            return;
        };
        let seen = Lease {
            peer_id: text(lease.server()),
            role: lease.role(),
            expires_in_ms: self.until(expiry),
        };
        self.status.leases.push(seen);
    }

    fn wanted_leases(&mut self, wanted: usize) {
        self.status.wanted_leases = wanted as u64;
    }

    fn background_loop(&mut self, name: &'static str, stats: LoopStats) {
        let seen = LoopStatus {
            runs: stats.runs,
            last_ms: stats.last.map(|last| self.since(last)),
            interval_ms: millis(stats.interval),
            took_ms: millis(stats.took),
            done: stats.done.into(),
        };
        self.status.loops.insert(name.into(), seen);
    }

    fn table(&mut self, stats: TableStats) {
        self.status.tables.push(table(stats));
    }

    fn contested(&mut self, contested: &Rivals) {
        let seen = Contested {
            peer_id: text(&contested.peer),
            kept: contested.kept.to_string(),
            refused: contested.refused.to_string(),
            last_ms: self.since(contested.at),
        };
        self.status.contested.push(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::netlink::Host;

    #[test]
    fn addresses_that_come_and_go_fast_are_counted_in_one_line() {
        let address = |ip| Host::fixed(&[ip]).addresses().remove(0);
        let mut change = Change {
            new: vec![address("192.0.2.1"), address("192.0.2.2")],
            gone: Vec::new(),
            link: false,
            route: false,
            joined: false,
        };
        let mut log = AddressLog::default();
        assert_eq!(log.lines(&change).len(), 2);
        assert_eq!(log.counted(), None);
        change.joined = true;
        assert_eq!(log.lines(&change).len(), 1);
        for _ in 1..100 {
            assert_eq!(log.lines(&change).len(), 0);
        }
        let counted = "the addresses of this host change fast: 200 came, 0 went";
        assert_eq!(log.counted().as_deref(), Some(counted));
        assert_eq!(log.counted(), None);
    }
}
