//! What `status` answers: collected from the core, the network side and the daemon.

use super::Driver;
use crate::{
    daemon::{
        mistakes::NO_NATIVE_THERE,
        report::{self, StatusReport, table, text},
        status::{SCHEMA, Server, ServerState, Status},
        usage,
    },
    net::multiaddrs,
    protocol::{Instant, PeerId, Role, order::sort},
};

impl Driver<'_> {
    /// The natives that are known, each with its first address as `--native` takes it.
    fn natives(&self) -> Vec<String> {
        let shown = |native: PeerId| {
            let addrs = self.env.machine().addrs_of(&native).map(multiaddrs);
            let first = addrs.and_then(|addrs| addrs.into_iter().next());
            let first = first.map(|addr| addr.to_string()).unwrap_or_default();
            format!("{first}/p2p/{}", text(&native))
        };
        let mut natives: Vec<String> = self.env.natives().into_iter().map(shown).collect();
        sort(&mut natives, |one, other| one < other);
        natives
    }

    /// Adds the natives with which no lease is sought, and the failures of all.
    fn complete_servers(&self, now: Instant, servers: &mut Vec<Server>) {
        for native in self.env.natives() {
            let peer_id = text(&native);
            if servers.iter().all(|server| server.peer_id != peer_id) {
                let addrs = self.env.machine().addrs_of(&native);
                let addr = addrs.and_then(report::first_endpoint);
                servers.push(Server {
                    peer_id,
                    role: Role::Native,
                    addr,
                    state: ServerState::Idle,
                    expires_in_ms: None,
                    last_error: None,
                    failing_ms: None,
                    next_try_ms: None,
                });
            }
        }
        let natives = servers.iter_mut();
        for server in natives.filter(|server| self.problems.has(NO_NATIVE_THERE, &server.peer_id)) {
            server.state = ServerState::NoNative;
        }
        for (server, failure) in servers.iter_mut().filter_map(|server| {
            let peer = server.peer_id.parse::<libp2p::PeerId>().ok()?;
            let peer = PeerId::try_from(peer).ok()?;
            Some((server, self.servers.failure_of(&peer)?))
        }) {
            server.last_error = Some(failure.what.clone());
            let since = now - failure.since;
            server.failing_ms = u64::try_from(since.as_millis()).ok();
        }
        sort(servers, |one, other| one.peer_id < other.peer_id);
    }

    pub(in crate::daemon) fn status(&mut self) -> Status {
        let now = self.env.now();
        let announced = self.env.net.record_addrs();
        let announced = announced.iter().map(ToString::to_string).collect();
        let about = self.record.about();
        let mut report = StatusReport {
            now,
            env: &self.env,
            status: Status {
                schema: SCHEMA,
                verdict: self.verdict(now),
                role: self.env.machine().role(),
                peer_id: self.own_id(),
                name: about.map(|about| about.name.clone()),
                tags: about.map_or_else(Default::default, report::tags),
                services: about.map_or_else(Vec::new, report::services),
                checks: self.checks.report(now),
                version: env!("CARGO_PKG_VERSION").into(),
                uptime_ms: now.as_millis().saturating_sub(self.started.as_millis()),
                listen: self
                    .env
                    .net
                    .listening()
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                announced,
                reachable: Some(self.reachable(now)),
                natives: self.natives(),
                found_natives: self.link.found(now),
                native_option: self.native_option(),
                live_indexers: Vec::new(),
                known_peer_ids: Vec::new(),
                responsible_peers: Vec::new(),
                stream_records: Vec::new(),
                leases: Vec::new(),
                wanted_leases: 0,
                loops: Default::default(),
                tables: Vec::new(),
                contested: Vec::new(),
                troubles: self.servers.troubles(),
                problems: self.problems.report(now),
                servers: Vec::new(),
                counters: self.counters.by_name(),
                resident_bytes: usage::resident_bytes(),
                cpu_ms: usage::cpu_ms(),
                #[cfg(feature = "program")]
                network: self.network_status(),
                #[cfg(not(feature = "program"))]
                network: None,
                key: self.key.clone(),
            },
        };
        self.env.machine().report(now, &mut report);
        let mut status = report.status;
        self.complete_servers(now, &mut status.servers);
        status
            .tables
            .extend(self.env.net.tables().into_iter().map(table));
        status
            .tables
            .extend(self.lookups.stats(&self.env).map(table));
        status
            .tables
            .extend(self.watches.stats(&self.env).map(table));
        status.tables.extend(self.link.stats().map(table));
        if status.role != Role::Node {
            let stats = self.dial_back.stats(now);
            status.tables.extend(stats.map(table));
        }
        status.tables.push(table(self.problems.stats()));
        status
    }
}
