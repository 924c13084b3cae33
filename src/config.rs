//! Makes one checked [`Config`] of the flags.
//!
//! Everything that the daemon needs to know from its operator is parsed here, once, into types that
//! cannot hold a wrong value. So no code that has a [`Config`] checks anything again. Every error
//! names the option, the value, the bound and what to do.

use std::collections::BTreeMap;
use std::fmt;
#[cfg(any(feature = "dns", feature = "http"))]
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
#[cfg(feature = "program")]
use log::LevelFilter;

pub use crate::protocol::Role;
#[cfg(feature = "mdns")]
use crate::protocol::codec::service::ServiceName;
#[cfg(feature = "dns")]
use crate::protocol::zone::Zone;
use crate::protocol::{
    MAX_NAME_LEN,
    capacities::MAX_CONNECTIONS,
    codec::{service::Service, to_name},
    time::{MAX_LEASE, MIN_LEASE},
};

mod addresses;
#[cfg(feature = "program")]
mod dirs;
mod error;
#[cfg(feature = "program")]
mod file;
mod flags;
#[cfg(feature = "program")]
mod load;
#[cfg(feature = "program")]
mod near;
mod peer_id;
mod services;
#[cfg(feature = "program")]
mod settings;
#[cfg(feature = "program")]
mod shown;
mod values;

pub(crate) use addresses::is_host_name;
use addresses::{announce, listen, natives};
#[cfg(feature = "program")]
use dirs::data_dir;
#[cfg(feature = "program")]
pub(crate) use dirs::{
    EnvVars, default_data_dirs, group_socket_dir, service_socket_dirs, socket_dir_of,
};
pub(crate) use error::Error;
pub(crate) use flags::Flags;
#[cfg(feature = "program")]
pub(crate) use flags::NodeFlags;
#[cfg(feature = "program")]
pub(crate) use load::{Checked, Faults, Loaded, check, is_of_parts, load};
#[cfg(feature = "program")]
pub(crate) use near::nearest;
pub(crate) use peer_id::peer_id_fault;
#[cfg(feature = "program")]
pub(crate) use peer_id::{begins_a_peer_id, ends_a_peer_id};
pub(crate) use services::service_name;
#[cfg(feature = "program")]
pub(crate) use settings::Setting;
#[cfg(feature = "program")]
pub(crate) use shown::ConfigReport;
#[cfg(feature = "program")]
pub(crate) use values::LogFormat;
use values::{
    beat_interval, connections, duration_or, grant, interval, min_indexers, network, psk,
};
#[cfg(feature = "dns")]
use values::{dns, dns_zone};
#[cfg(feature = "http")]
use values::{http, http_token};
#[cfg(feature = "program")]
use values::{level, log_format};
pub(crate) use values::{name, tags};

/// Shortest interval of a loop or of the beats.
pub(crate) const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longest interval of a loop or of the beats.
pub(crate) const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
/// Most addresses that a process listens on.
pub(crate) const LISTEN_MAX: usize = 8;
/// Fewest connections with which a role can work.
pub(crate) const MIN_CONNECTIONS: usize = 4;
/// TCP port of a native that is given no other one.
pub(crate) const NATIVE_PORT: u16 = 4820;
/// TCP port that an indexer takes at its first start, if the port is free and no other one is
/// given.
pub(crate) const INDEXER_PORT: u16 = 4821;

/// Where a native can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NativeAddr {
    /// The peer that must answer there. `None` only after `/dnsaddr`: its TXT records name the
    /// peer.
    pub peer: Option<PeerId>,
    /// The address without its trailing `/p2p`, at most
    /// [`MAX_ADDR_LEN`](crate::protocol::MAX_ADDR_LEN) bytes.
    pub addr: Multiaddr,
}

impl fmt::Display for NativeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{}/p2p/{peer}", self.addr),
            None => self.addr.fmt(f),
        }
    }
}

/// What a check of a service does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// It connects to the service's port.
    Tcp,
    /// It GETs this path, and passes with a status from 200 to 399.
    Http(String),
    /// It runs this command of the shell, and passes with exit code 0.
    Exec(String),
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Http(path) => write!(f, "http:{path}"),
            Self::Exec(command) => write!(f, "exec:{command}"),
        }
    }
}

/// A check of one of the own services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// The index of the service in [`Config::services`].
    pub service: u8,
    /// What it does.
    pub probe: Probe,
}

/// The checked configuration of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The role of this process.
    pub role: Role,
    /// Directory of the identity, the saved state and the control socket. `None`: nothing is kept.
    pub data_dir: Option<PathBuf>,
    /// Addresses to listen on: at most [`LISTEN_MAX`], each `/ip4` or `/ip6` and `/tcp`. If it is
    /// empty: all addresses of both families, on one port, which is [`NATIVE_PORT`], that of the
    /// last run, [`INDEXER_PORT`] or any.
    pub listen: Vec<Multiaddr>,
    /// Addresses to be announced before all others, at most
    /// [`MAX_RECORD_ADDRS`](crate::protocol::codec::record::MAX_RECORD_ADDRS), without `/p2p`.
    pub announce: Vec<Multiaddr>,
    /// Only the addresses of `announce` are announced.
    pub announce_only: bool,
    /// The natives, at most [`MAX_NATIVES`](crate::protocol::capacities::MAX_NATIVES). May be
    /// empty: a first native has no others, and the other roles can know natives from an earlier
    /// run.
    pub natives: Vec<NativeAddr>,
    /// `swarm.key` file of a private network. `None`: any peer may join.
    pub psk: Option<PathBuf>,
    /// The closed network that this process deals with. `None`: with every peer.
    pub network: Option<PeerId>,
    /// The file of its grant there. `None`: the file `grant` in its data directory, if it is there.
    pub grant: Option<PathBuf>,
    /// Natives are found, and one is announced, by multicast DNS.
    #[cfg(feature = "mdns")]
    pub mdns: bool,
    /// Every native that is found is used, also an unknown one.
    pub trust_lan: bool,
    /// The least severe level that is logged.
    #[cfg(feature = "program")]
    pub log: LevelFilter,
    /// The form of a line of the log.
    #[cfg(feature = "program")]
    pub log_format: LogFormat,
    /// Lease that is granted or asked for, [`MIN_LEASE`] to [`MAX_LEASE`].
    pub lease: Duration,
    /// Time between two beats, at most a third of the lease.
    pub beat_interval: Duration,
    /// Time between two runs of the native's offload loop.
    pub offload_interval: Duration,
    /// Time between two runs of the native's refresh loop.
    pub refresh_interval: Duration,
    /// Time between two runs of the native's stream GC.
    pub gc_interval: Duration,
    /// Time between two rounds of a node's connect-to-natives.
    pub connect_interval: Duration,
    /// Name under which a node is found: 1 to [`MAX_NAME_LEN`] of `a-z 0-9 - .`.
    pub name: Option<String>,
    /// What a node announces about itself: at most
    /// [`MAX_TAGS`](crate::protocol::codec::record::MAX_TAGS) with
    /// [`MAX_TAG_BYTES`](crate::protocol::codec::record::MAX_TAG_BYTES) bytes in all.
    pub tags: BTreeMap<String, String>,
    /// What a node offers: at most
    /// [`MAX_SERVICES`](crate::protocol::codec::service::MAX_SERVICES).
    pub services: Vec<Service>,
    /// Checks of services, one for each at most.
    pub checks: Vec<Check>,
    /// Time between two runs of a check.
    pub check_interval: Duration,
    /// The address at which programs are answered by DNS; its port may be 0. `None`: nowhere.
    #[cfg(feature = "dns")]
    pub dns: Option<SocketAddr>,
    /// The zone that they ask in.
    #[cfg(feature = "dns")]
    pub dns_zone: Zone,
    /// The address at which HTTP is answered; its port may be 0. `None`: nowhere.
    #[cfg(feature = "http")]
    pub http: Option<SocketAddr>,
    /// File with the token that clients must show. `None` only on a loopback address.
    #[cfg(feature = "http")]
    pub http_token: Option<PathBuf>,
    /// Services of the network that the local links are told of.
    #[cfg(feature = "mdns")]
    pub dns_sd: Vec<ServiceName>,
    /// Services that a node lists as the devices of its links announce them.
    #[cfg(feature = "mdns")]
    pub from_dns_sd: Vec<ServiceName>,
    /// Leases on different indexers that a node holds, 1 to
    /// [`MAX_MIN_INDEXERS`](crate::protocol::node::MAX_MIN_INDEXERS).
    pub min_indexers: u8,
    /// Connections at most, [`MIN_CONNECTIONS`] to
    /// [`MAX_CONNECTIONS`](crate::protocol::capacities::MAX_CONNECTIONS).
    pub connections: usize,
}

impl Config {
    /// Parses the options of a daemon of this role, which always has a data directory.
    ///
    /// # Errors
    /// The first option with a value that cannot be used.
    #[cfg(feature = "program")]
    pub(crate) fn parse(role: Role, flags: &Flags, env: EnvVars<'_>) -> Result<Config, Error> {
        let data_dir = data_dir(role, flags.data_dir.as_deref(), env)?;
        Self::with_data_dir(role, flags, Some(data_dir))
    }

    /// Parses the other options.
    ///
    /// # Errors
    /// The first option with a value that cannot be used.
    pub(crate) fn with_data_dir(
        role: Role,
        flags: &Flags,
        data_dir: Option<PathBuf>,
    ) -> Result<Config, Error> {
        if data_dir
            .as_ref()
            .is_some_and(|dir| dir.as_os_str().is_empty())
        {
            return Err(Error::new("--data-dir", "", "give a directory"));
        }
        flags.node.check(role)?;
        let lease = duration_or(
            "--lease",
            flags.lease.as_deref(),
            (MIN_LEASE, MAX_LEASE),
            Duration::from_secs(90),
        )?;
        let services = services::services(&flags.node.service)?;
        let node = &flags.node;
        if let (Some(value), []) = (&node.check_interval, node.check.as_slice()) {
            let problem = "there is no --check; give one, or leave this out";
            return Err(Error::new("--check-interval", value, problem));
        }
        Ok(Config {
            role,
            data_dir,
            listen: listen(&flags.listen)?,
            announce: announce(&flags.announce, flags.announce_only)?,
            announce_only: flags.announce_only,
            natives: natives(&flags.native)?,
            psk: flags.psk.as_deref().map(psk).transpose()?,
            network: flags.network.as_deref().map(network).transpose()?,
            grant: flags.grant.as_deref().map(grant).transpose()?,
            #[cfg(feature = "mdns")]
            mdns: flags.mdns,
            trust_lan: trust_lan(role, flags)?,
            #[cfg(feature = "program")]
            log: flags.log.as_deref().map_or(Ok(LevelFilter::Info), level)?,
            #[cfg(feature = "program")]
            log_format: flags
                .log_format
                .as_deref()
                .map_or(Ok(LogFormat::Text), log_format)?,
            lease,
            beat_interval: beat_interval(flags.beat_interval.as_deref(), lease)?,
            offload_interval: interval("--offload-interval", &flags.offload_interval, 30)?,
            refresh_interval: interval("--refresh-interval", &flags.refresh_interval, 30)?,
            gc_interval: interval("--gc-interval", &flags.gc_interval, 30)?,
            connect_interval: interval("--connect-interval", &flags.connect_interval, 60)?,
            #[cfg(feature = "dns")]
            dns: flags.dns.as_deref().map(dns).transpose()?,
            #[cfg(feature = "dns")]
            dns_zone: dns_zone(flags.dns_zone.as_deref(), flags.dns.is_some())?,
            #[cfg(feature = "http")]
            http: flags.http.as_deref().map(http).transpose()?,
            #[cfg(feature = "http")]
            http_token: http_token(flags.http.as_deref(), flags.http_token.as_deref())?,
            #[cfg(feature = "mdns")]
            dns_sd: services::bridged("--dns-sd", &flags.dns_sd, flags.mdns)?,
            #[cfg(feature = "mdns")]
            from_dns_sd: services::bridged("--from-dns-sd", &flags.node.from_dns_sd, flags.mdns)?,
            name: flags.node.name.as_deref().map(name).transpose()?,
            tags: tags(&flags.node.tag)?,
            checks: services::checks(&flags.node.check, &services, flags.node.allow_exec)?,
            services,
            check_interval: interval("--check-interval", &flags.node.check_interval, 10)?,
            min_indexers: flags
                .node
                .min_indexers
                .as_deref()
                .map_or(Ok(2), min_indexers)?,
            connections: flags.connections.map_or(Ok(MAX_CONNECTIONS), connections)?,
        })
    }
}

#[cfg(feature = "program")]
impl Config {
    /// The checks as their option has them, each once.
    fn shown_checks(&self) -> Vec<String> {
        let mut shown = Vec::new();
        for check in &self.checks {
            let service = self.services.get(usize::from(check.service));
            let name = service.map_or("", |service| service.name.as_str());
            let line = format!("{name}={}", check.probe);
            if !shown.contains(&line) {
                shown.push(line);
            }
        }
        shown
    }

    /// Whether a check runs a command, which only `--allow-exec` allows.
    fn runs_commands(&self) -> bool {
        let runs = |check: &Check| matches!(check.probe, Probe::Exec(_));
        self.checks.iter().any(runs)
    }
}

#[cfg(feature = "mdns")]
impl Config {
    /// Whether services pass between the network and the local links.
    pub(crate) fn has_bridge(&self) -> bool {
        !(self.dns_sd.is_empty() && self.from_dns_sd.is_empty())
    }
}

/// A native needs no other one, and a process that is given natives looks for none.
fn trust_lan(role: Role, flags: &Flags) -> Result<bool, Error> {
    let why = match role {
        Role::Native => "a native looks for no natives; leave this out",
        _ if !flags.native.is_empty() => {
            "natives are given, so none are looked for; leave this out"
        }
        _ => return Ok(flags.trust_lan),
    };
    match flags.trust_lan {
        true => Err(Error::bare("--trust-lan", why)),
        false => Ok(false),
    }
}

/// The default name of a node: [`folded_name`] of its host's name, or `node` if nothing is left of
/// that.
pub(crate) fn name_of_host(host: &str) -> String {
    folded_name(host).unwrap_or_else(|| "node".to_owned())
}

/// The name that a text stands for: in lower case, with `-` for each character that a name cannot
/// have, without `-` or `.` at either end, at most [`MAX_NAME_LEN`] bytes. `None` if nothing is
/// left.
pub(crate) fn folded_name(text: &str) -> Option<String> {
    let ends = ['-', '.'];
    let mapped: String = text
        .to_lowercase()
        .chars()
        .map(|c| match to_name(c.encode_utf8(&mut [0; 4])) {
            Some(_) => c,
            None => '-',
        })
        .collect();
    let begin = mapped.trim_start_matches(ends);
    // The name has only ASCII characters here.
    let name = begin
        .get(..MAX_NAME_LEN)
        .unwrap_or(begin)
        .trim_end_matches(ends);
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(all(test, feature = "program"))]
mod tests;
