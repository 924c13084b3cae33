//! The host's own configuration of names: `/etc/resolv.conf` and `/etc/hosts`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, Resolver};

use super::runtime::Runtime;

/// Of a longer file the rest is ignored.
const MAX_FILE: u64 = 1 << 20;

/// Name servers asked, as in the C library.
const MAX_SERVERS: usize = 3;

/// One round over the servers takes at most this long; a second one follows.
const ROUND: Duration = Duration::from_secs(2);

/// Answers kept.
const CACHE_SIZE: u64 = 64;

/// A name that did not exist is asked for again after this at the latest.
const NEGATIVE_TTL: Duration = Duration::from_secs(30);

/// Where the configuration is, and where the servers listen.
pub(super) struct Files {
    pub(super) resolv_conf: PathBuf,
    pub(super) hosts: PathBuf,
    pub(super) port: u16,
}

/// What tells one state of the files from the next: time of modification, size and inode of each.
pub(super) type Stamp = [Option<(SystemTime, u64, u64)>; 2];

/// The files as they were read.
#[derive(Clone)]
pub(super) struct System {
    pub(super) resolver: Resolver<Runtime>,
    /// How many name servers there are to ask.
    pub(super) servers: usize,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
            port: 53,
        }
    }
}

impl Files {
    pub(super) fn stamp(&self) -> Stamp {
        [&self.resolv_conf, &self.hosts].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
        })
    }

    /// Reads both files. One that is missing or wrong is as an empty one.
    pub(super) fn load(&self) -> Result<System, NetError> {
        let (mut config, options) = self.resolv_conf().unwrap_or_else(|error| {
            log::warn!("names: {}: {error}", self.resolv_conf.display());
            (
                ResolverConfig::from_parts(None, Vec::new(), Vec::new()),
                ResolverOpts::default(),
            )
        });
        config.name_servers.truncate(MAX_SERVERS);
        for server in &mut config.name_servers {
            for connection in &mut server.connections {
                connection.port = self.port;
            }
        }
        let servers = config.name_servers.len();
        let mut builder = Resolver::builder_with_config(config, Runtime);
        *builder.options_mut() = bounded(options);
        let mut resolver = builder.build()?;
        resolver.set_hosts(Arc::new(self.hosts()));
        Ok(System { resolver, servers })
    }

    fn resolv_conf(&self) -> Result<(ResolverConfig, ResolverOpts), NetError> {
        parse_resolv_conf(read(&self.resolv_conf)?)
    }

    fn hosts(&self) -> Hosts {
        let mut hosts = Hosts::default();
        let result = read(&self.hosts).and_then(|text| hosts.read_hosts_conf(&text[..]));
        if let Err(error) = result {
            log::debug!("names: {}: {error}", self.hosts.display());
        }
        hosts
    }
}

fn bounded(mut options: ResolverOpts) -> ResolverOpts {
    options.timeout = options.timeout.min(ROUND);
    options.attempts = 1;
    options.cache_size = CACHE_SIZE;
    options.negative_max_ttl = Some(NEGATIVE_TTL);
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // The hosts file is read here, from where it is said to be.
    options.use_hosts_file = ResolveHosts::Never;
    options
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}
