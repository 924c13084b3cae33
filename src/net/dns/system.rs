//! The host's own configuration of names: `/etc/resolv.conf` and `/etc/hosts`. Both are read again
//! for each lookup, because a device may get its DHCP lease late. What cannot be read or understood
//! is left out.
//!
//! Invariants: at most [`MAX_FILE`] bytes of a file are read; the servers, search domains and times
//! have upper limits.

use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::time::Duration;

use resolv_conf::{Config, ScopedIp};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

use crate::net::file;

/// Bytes read of a file. The rest of a longer file is ignored.
const MAX_FILE: u64 = 1 << 20;

/// Name servers asked, as in the C library.
const MAX_SERVERS: usize = 3;

/// Search domains tried.
const MAX_SEARCH: usize = 6;

/// Upper limits: rounds over the servers, seconds for one server's answer, and dots of `ndots`.
const MAX_ATTEMPTS: u32 = 3;
const MAX_TIMEOUT: u32 = 30;
const MAX_NDOTS: u32 = 15;

/// Addresses of one name in the hosts file.
const MAX_HOST_IPS: usize = 16;

/// The paths of the configuration files, and the port on which the servers listen.
pub(super) struct Files {
    pub(super) resolv_conf: PathBuf,
    pub(super) hosts: PathBuf,
    pub(super) port: u16,
}

/// Which servers to ask, and how.
#[derive(Debug)]
pub(super) struct System {
    /// In the order in which they are asked.
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<String>,
    pub(super) ndots: usize,
    /// How long one server may take to answer.
    pub(super) timeout: Duration,
    /// Rounds over the servers.
    pub(super) attempts: u32,
    pub(super) tcp_only: bool,
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
    /// The settings of resolv.conf, within our bounds: all rounds over all servers take at most
    /// `limit`. Without the file the server is 127.0.0.1, as resolv.conf(5) defines.
    pub(super) fn system(&self, limit: Duration) -> System {
        let mut text = Vec::new();
        let read = file::open(&self.resolv_conf)
            .and_then(|file| file.take(MAX_FILE).read_to_end(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                text = b"nameserver 127.0.0.1".to_vec();
            }
            Err(error) => log::warn!("names: {}: {error}", self.resolv_conf.display()),
            Ok(_) => {}
        }
        let (config, errors) = Config::parse_with_errors(&text);
        for error in errors {
            log::debug!("names: {}: {error}", self.resolv_conf.display());
        }
        system(&config, self.port, limit)
    }

    /// The `wanted` addresses of `name` in the hosts file. `localhost` and names under it always
    /// have theirs (RFC 6761).
    pub(super) fn hosts(&self, name: &str, wanted: impl Fn(&IpAddr) -> bool) -> Vec<IpAddr> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let mut ips = self.hosts_file(&name).unwrap_or_else(|error| {
            log::debug!("names: {}: {error}", self.hosts.display());
            Vec::new()
        });
        ips.retain(&wanted);
        if ips.is_empty() && (name == "localhost" || name.ends_with(".localhost")) {
            ips = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            ips.retain(&wanted);
        }
        ips
    }

    fn hosts_file(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let file = file::open(&self.hosts)?.take(MAX_FILE);
        let mut ips = Vec::new();
        for line in BufReader::new(file).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            let mut words = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace();
            let ip: Option<IpAddr> = words.next().and_then(|ip| ip.parse().ok());
            if words.any(|known| known.eq_ignore_ascii_case(name)) {
                ips.extend(ip);
            }
            if ips.len() == MAX_HOST_IPS {
                break;
            }
        }
        Ok(ips)
    }
}

fn system(config: &Config, port: u16, limit: Duration) -> System {
    let known = config.nameservers.iter();
    let mut servers: Vec<_> = known
        .filter_map(|ip| server(ip, port))
        .take(MAX_SERVERS)
        .collect();
    if config.rotate && !servers.is_empty() {
        let first = getrandom::u32().unwrap_or_default() as usize % servers.len();
        servers.rotate_left(first);
    }
    let attempts = config.attempts.clamp(1, MAX_ATTEMPTS);
    let tries = (servers.len().max(1) as u32) * attempts;
    let search = config.get_last_search_or_domain();
    System {
        servers,
        search: search
            .map(|domain| domain.trim_matches('.').to_owned())
            .filter(|domain| !domain.is_empty())
            .take(MAX_SEARCH)
            .collect(),
        ndots: config.ndots.min(MAX_NDOTS) as usize,
        timeout: Duration::from_secs(config.timeout.clamp(1, MAX_TIMEOUT).into())
            .min(limit / tries),
        attempts,
        tcp_only: config.use_vc,
    }
}

/// A link-local address has its interface after it, by name or number: `fe80::1%eth0`.
fn server(ip: &ScopedIp, port: u16) -> Option<SocketAddr> {
    let ScopedIp::V6(ip, Some(scope)) = ip else {
        return Some(SocketAddr::new(ip.into(), port));
    };
    let index = scope.parse().ok().or_else(|| {
        let any = socket(AddressFamily::INET6, SocketType::DGRAM, None).ok()?;
        name_to_index(any, scope).ok()
    })?;
    Some(SocketAddrV6::new(*ip, port, 0, index).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> System {
        let config = Config::parse_with_errors(text.as_bytes()).0;
        system(&config, 53, Duration::from_secs(60))
    }

    #[test]
    fn servers_are_three_in_order_and_may_be_link_local() {
        let system = parsed(
            "nameserver fe80::1%lo\nnameserver fe80::2%7\nnameserver fe80::3%absent0\n\
             nameserver name\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n",
        );
        let lo = SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, 1);
        let seventh = SocketAddrV6::new("fe80::2".parse().unwrap(), 53, 0, 7);
        let last = "192.0.2.1:53".parse().unwrap();
        assert_eq!(system.servers, [lo.into(), seventh.into(), last]);
    }

    #[test]
    fn options_are_clamped_and_rounds_end_within_the_limit() {
        let usual = parsed("nameserver 192.0.2.1");
        assert_eq!((usual.ndots, usual.attempts, usual.tcp_only), (1, 2, false));
        assert_eq!(usual.timeout, Duration::from_secs(5));
        let most = u32::MAX;
        let text = format!("options ndots:{most} timeout:{most} attempts:{most} use-vc unknown:1");
        let system = parsed(&text);
        assert_eq!(
            (system.ndots, system.attempts, system.tcp_only),
            (15, 3, true)
        );
        assert_eq!(system.timeout, Duration::from_secs(20));
        let three = "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let system = parsed(&format!("{three}options timeout:0 attempts:0"));
        assert_eq!(
            (system.timeout, system.attempts),
            (Duration::from_secs(1), 1)
        );
        assert_eq!(
            parsed(&format!("{three}options timeout:20")).timeout,
            Duration::from_secs(10)
        );
    }

    #[test]
    fn rotation_lets_each_server_be_the_first() {
        let text = "nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions rotate\n";
        let firsts: std::collections::HashSet<_> =
            (0..200).map(|_| parsed(text).servers[0]).collect();
        assert_eq!(firsts.len(), 2);
    }

    #[test]
    fn search_domains_are_those_of_the_last_line() {
        let search = |text| parsed(text).search;
        assert_eq!(search("search old\ndomain lan.\n"), ["lan"]);
        assert_eq!(
            search("domain old\nsearch a.test . b.test"),
            ["a.test", "b.test"]
        );
        assert_eq!(search("search a b c d e f g h").len(), 6);
    }
}
