//! One parser for each kind of option. Each takes text and returns a checked value, or an error of
//! one sentence.
//!
//! Invariant: nothing here reads a file, a clock or the environment, so equal text always gives an
//! equal result.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
#[cfg(any(feature = "dns", feature = "http"))]
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
#[cfg(feature = "program")]
use log::LevelFilter;

use super::{
    Error, INTERVAL_MAX, INTERVAL_MIN, LISTEN_MAX, MIN_CONNECTIONS, NativeAddr, peer_id_fault,
};
#[cfg(feature = "dns")]
use crate::protocol::zone::{MAX_ZONE_LEN, Zone};
use crate::protocol::{
    MAX_ADDR_LEN, MAX_NAME_LEN,
    capacities::{MAX_CONNECTIONS, MAX_NATIVES},
    codec::{
        record::{MAX_RECORD_ADDRS, MAX_TAG_BYTES, MAX_TAGS},
        to_name,
    },
    dns_sd::MAX_LABEL_LEN,
    node::MAX_MIN_INDEXERS,
};

pub(super) fn psk(value: &str) -> Result<PathBuf, Error> {
    if value.is_empty() {
        return Err(Error::new("--psk", value, "give the swarm.key file"));
    }
    Ok(PathBuf::from(value))
}

#[cfg(feature = "program")]
pub(super) fn level(value: &str) -> Result<LevelFilter, Error> {
    value.parse().map_err(|_| {
        let problem = "give one of off, error, warn, info, debug, trace";
        Error::new("--log", value, problem)
    })
}

/// The form of a line of the log.
#[cfg(feature = "program")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people, and for the journal.
    Text,
    /// An object of JSON.
    Json,
}

#[cfg(feature = "program")]
pub(super) fn log_format(value: &str) -> Result<LogFormat, Error> {
    match value {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(Error::new("--log-format", value, "give text or json")),
    }
}

pub(super) fn listen(values: &[String]) -> Result<Vec<Multiaddr>, Error> {
    const OPTION: &str = "--listen";
    const MULTICAST: &str =
        "TCP cannot listen on a multicast address; give one of this host, or /ip4/0.0.0.0";
    at_most(OPTION, values, LISTEN_MAX)?;
    let addrs = values
        .iter()
        .map(|value| {
            let addr = multiaddr(OPTION, value)?;
            let wrong = |problem: &str| Err(Error::new(OPTION, value, problem));
            match addr.iter().collect::<Vec<_>>().as_slice() {
                [Protocol::Ip4(ip), Protocol::Tcp(_)] if ip.is_multicast() => wrong(MULTICAST),
                [Protocol::Ip6(ip), Protocol::Tcp(_)] if ip.is_multicast() => wrong(MULTICAST),
                [Protocol::Ip6(ip), Protocol::Tcp(_)] if ip.is_unicast_link_local() => {
                    wrong("a link-local address is one of each interface; give another, or /ip6/::")
                }
                [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)] => Ok(addr),
                _ => {
                    wrong("only /ip4/ADDRESS/tcp/PORT and /ip6/ADDRESS/tcp/PORT can be listened on")
                }
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    for (at, (addr, value)) in addrs.iter().zip(values).enumerate() {
        let mut before = addrs.iter().take(at);
        if let Some(other) = before.find(|other| is_one_socket(other, addr)) {
            let problem = format!(
                "{other} is also given, and listens on the same port; leave one of the \
                 two out, or give it another port"
            );
            return Err(Error::new(OPTION, value, problem));
        }
    }
    Ok(addrs)
}

/// Whether only one of the two can be listened on, because they have the same port, and the same
/// address or the unspecified address of its family.
fn is_one_socket(one: &Multiaddr, other: &Multiaddr) -> bool {
    let parts = |addr: &Multiaddr| match addr.iter().collect::<Vec<_>>().as_slice() {
        [Protocol::Ip4(ip), Protocol::Tcp(port)] => Some((IpAddr::from(*ip), *port)),
        [Protocol::Ip6(ip), Protocol::Tcp(port)] => Some((IpAddr::from(*ip), *port)),
        _ => None,
    };
    let (Some((one, port)), Some((other, other_port))) = (parts(one), parts(other)) else {
        return false;
    };
    let meets = one == other || one.is_unspecified() || other.is_unspecified();
    port == other_port && port != 0 && one.is_ipv4() == other.is_ipv4() && meets
}

pub(super) fn announce(values: &[String], only: bool) -> Result<Vec<Multiaddr>, Error> {
    const OPTION: &str = "--announce";
    if only && values.is_empty() {
        return Err(Error::bare(
            "--announce-only",
            "nothing would be announced; give at least one address to announce with it",
        ));
    }
    at_most(OPTION, values, MAX_RECORD_ADDRS)?;
    let mut addrs = Vec::new();
    for value in values {
        let addr = announced(value)?;
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    Ok(addrs)
}

fn announced(value: &str) -> Result<Multiaddr, Error> {
    const OPTION: &str = "--announce";
    let wrong = |problem: &str| Err(Error::new(OPTION, value, problem));
    let addr = multiaddr(OPTION, value)?;
    let port = match addr.iter().collect::<Vec<_>>().as_slice() {
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(port)] => *port,
        [
            Protocol::Dns(host) | Protocol::Dns4(host) | Protocol::Dns6(host),
            Protocol::Tcp(port),
        ] if !host.is_empty() => *port,
        [.., Protocol::P2p(_)] => {
            return wrong("leave /p2p/ID out: a record has the peer's own id already");
        }
        _ => {
            return wrong("only /ip4, /ip6, /dns, /dns4 or /dns6 with /tcp/PORT can be announced");
        }
    };
    if port == 0 {
        return wrong("port 0 cannot be dialled; give the port that leads here");
    }
    if !leads_to_a_host(&addr) {
        return wrong("this address cannot be dialled; give one that leads here from other hosts");
    }
    check_name(OPTION, value, &addr)?;
    Ok(addr)
}

pub(super) fn natives(values: &[String]) -> Result<Vec<NativeAddr>, Error> {
    at_most("--native", values, MAX_NATIVES)?;
    values.iter().map(|value| native(value)).collect()
}

fn native(value: &str) -> Result<NativeAddr, Error> {
    const OPTION: &str = "--native";
    let mut addr = multiaddr(OPTION, value)?;
    let wrong = |problem: &str| Err(Error::new(OPTION, value, problem));
    let peer = match addr.iter().last() {
        Some(Protocol::P2p(peer)) => {
            addr.pop();
            Some(peer)
        }
        _ => None,
    };
    let (by_txt, port) = match addr.iter().collect::<Vec<_>>().as_slice() {
        [Protocol::Dnsaddr(host)] if !host.is_empty() => (true, None),
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(port)] => (false, Some(*port)),
        [
            Protocol::Dns(host) | Protocol::Dns4(host) | Protocol::Dns6(host),
            Protocol::Tcp(port),
        ] if !host.is_empty() => (false, Some(*port)),
        _ => {
            return wrong(
                "only /ip4, /ip6, /dns, /dns4 or /dns6 with /tcp/PORT/p2p/ID, and \
                 /dnsaddr/NAME, can be dialled",
            );
        }
    };
    if port == Some(0) {
        return wrong("port 0 cannot be dialled; give the port that the native listens on");
    }
    if !leads_to_a_host(&addr) {
        return wrong("this address cannot be dialled; give one at which the native is reached");
    }
    check_name(OPTION, value, &addr)?;
    if !by_txt && peer.is_none() {
        return wrong("it must end in /p2p/ID; `oc-discovery id` on the native prints its ID");
    }
    if peer.is_some_and(|peer| crate::protocol::PeerId::try_from(peer).is_err()) {
        return wrong("the ID after /p2p must be that of an Ed25519 key, which starts 12D3KooW");
    }
    Ok(NativeAddr { peer, addr })
}

/// Whether an address can be dialled from another host. An IP address cannot if it is unspecified,
/// multicast or link-local (IPv6).
fn leads_to_a_host(addr: &Multiaddr) -> bool {
    match addr.iter().next() {
        Some(Protocol::Ip4(ip)) => !ip.is_unspecified() && !ip.is_multicast(),
        Some(Protocol::Ip6(ip)) => {
            !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local()
        }
        _ => true,
    }
}

/// Checks that a name in the address can be looked up: it has letters, digits, `-` and `_` between
/// dots, and is not an IP address.
fn check_name(option: &'static str, value: &str, addr: &Multiaddr) -> Result<(), Error> {
    let name = match addr.iter().next() {
        Some(
            Protocol::Dns(name)
            | Protocol::Dns4(name)
            | Protocol::Dns6(name)
            | Protocol::Dnsaddr(name),
        ) => name.into_owned(),
        _ => return Ok(()),
    };
    let bare = name.strip_suffix('.').unwrap_or(&name);
    let wrong = |problem: String| Err(Error::new(option, value, problem));
    match bare.parse() {
        Ok(IpAddr::V4(ip)) => return wrong(format!("{ip} is not a name; write it /ip4/{ip}")),
        Ok(IpAddr::V6(ip)) => return wrong(format!("{ip} is not a name; write it /ip6/{ip}")),
        Err(_) => {}
    }
    if !bare.is_ascii() {
        return wrong(
            "a name that is looked up is in ASCII; give the form of it that begins with xn--"
                .to_owned(),
        );
    }
    if !is_host_name(bare) {
        return wrong(format!(
            "{bare:?} is not a host name; use letters, digits, - and _, at most {MAX_LABEL_LEN} \
             between dots, and no - after a dot or at the beginning"
        ));
    }
    Ok(())
}

/// Whether the text is a host name in ASCII. Such a name has no character that a terminal or a
/// shell could take for something else, and is no option of a command.
pub(crate) fn is_host_name(name: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    name.split('.').all(|label| {
        (1..=MAX_LABEL_LEN).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(is_letter)
    })
}

fn multiaddr(option: &'static str, value: &str) -> Result<Multiaddr, Error> {
    let addr: Multiaddr = value.parse().map_err(|_| {
        let id = value.split_once("/p2p/");
        if let Some((_, id)) = id.filter(|(addr, _)| addr.parse::<Multiaddr>().is_ok()) {
            let problem = format!("the ID after /p2p {}", peer_id_fault(id));
            return Error::new(option, value, problem);
        }
        let example = match option {
            "--listen" => "/ip4/0.0.0.0/tcp/4820",
            "--announce" => "/dns/gate.example.com/tcp/4821",
            _ => "/ip4/192.0.2.1/tcp/4820/p2p/ID",
        };
        Error::new(
            option,
            value,
            format!("it is not a multiaddress; write it like {example}"),
        )
    })?;
    let ids: usize = addr
        .iter()
        .filter(|part| matches!(part, Protocol::P2p(_)))
        .map(|part| Multiaddr::from(part).len())
        .sum();
    let bytes = addr.len() - ids;
    if bytes > MAX_ADDR_LEN {
        return Err(Error::new(
            option,
            value,
            format!(
                "it has {bytes} bytes in binary form, and {MAX_ADDR_LEN} is the most; use a \
                 shorter name"
            ),
        ));
    }
    Ok(addr)
}

pub(super) fn at_most(option: &'static str, values: &[String], max: usize) -> Result<(), Error> {
    if values.len() > max {
        let count = values.len();
        return Err(Error::bare(
            option,
            format!("given {count} times, and {max} is the most; leave some out"),
        ));
    }
    Ok(())
}

/// One address of this host. With all addresses, an answer could leave from another address than
/// the query came to, and resolvers ignore such answers.
#[cfg(feature = "dns")]
pub(super) fn dns(value: &str) -> Result<SocketAddr, Error> {
    const FORM: &str = "write it as ADDRESS:PORT, like 127.0.0.1:5320 or [::1]:5320";
    let wrong = |problem: &str| Error::new("--dns", value, problem);
    let at: SocketAddr = value.parse().map_err(|_| wrong(FORM))?;
    match at.ip() {
        ip if ip.is_unspecified() => Err(wrong(
            "give one address of this host: resolvers take no answer from another than they asked",
        )),
        ip if ip.is_multicast() => Err(wrong(
            "give an address of this host, which is not multicast",
        )),
        _ => Ok(at),
    }
}

#[cfg(feature = "http")]
pub(super) fn http(value: &str) -> Result<SocketAddr, Error> {
    const OPTION: &str = "--http";
    const FORM: &str = "write it as ADDRESS:PORT, like 127.0.0.1:7480 or [::1]:7480";
    let wrong = |problem: &str| Error::new(OPTION, value, problem);
    let at: SocketAddr = value.parse().map_err(|_| wrong(FORM))?;
    match at.ip().is_multicast() {
        true => Err(wrong(
            "give an address of this host, which is not multicast",
        )),
        false => Ok(at),
    }
}

/// The file of the token. Only programs of this host reach a loopback address; at any other one,
/// clients have to show a token.
#[cfg(feature = "http")]
pub(super) fn http_token(at: Option<&str>, file: Option<&str>) -> Result<Option<PathBuf>, Error> {
    const OPTION: &str = "--http-token";
    let at = at.map(http).transpose()?;
    match (file, at) {
        (None, Some(at)) if !at.ip().to_canonical().is_loopback() => Err(Error::bare(
            OPTION,
            format!(
                "other hosts can reach --http {at}: give a file with a token, made with `openssl rand -hex 32`, \
                 or listen on a loopback address, like 127.0.0.1:7480"
            ),
        )),
        (Some(file), None) => {
            let problem = "there is no --http; give one, or leave this out";
            Err(Error::new(OPTION, file, problem))
        }
        (Some(""), Some(_)) => Err(Error::new(OPTION, "", "give the file of the token")),
        (file, _) => Ok(file.map(PathBuf::from)),
    }
}

#[cfg(feature = "dns")]
pub(super) fn dns_zone(value: Option<&str>, is_used: bool) -> Result<Zone, Error> {
    const OPTION: &str = "--dns-zone";
    let given = value.unwrap_or("oc.internal");
    let name = given.strip_suffix('.').unwrap_or(given);
    match Zone::new(name) {
        None => Err(Error::new(
            OPTION,
            given,
            format!(
                "give a name of a-z 0-9 - _ . with at most {MAX_ZONE_LEN} bytes, like oc.internal"
            ),
        )),
        Some(_) if value.is_some() && !is_used => Err(Error::new(
            OPTION,
            given,
            "no query is answered without --dns; give that too",
        )),
        Some(zone) => Ok(zone),
    }
}

pub(super) fn beat_interval(value: Option<&str>, lease: Duration) -> Result<Duration, Error> {
    const OPTION: &str = "--beat-interval";
    let third = lease / 3;
    let default = third.min(Duration::from_secs(30));
    let interval = duration_or(OPTION, value, (INTERVAL_MIN, INTERVAL_MAX), default)?;
    if interval > third {
        return Err(Error::new(
            OPTION,
            value.unwrap_or_default(),
            format!(
                "it is at most a third of the lease, which is {}; beat more often or give a \
                 longer --lease",
                Human(lease)
            ),
        ));
    }
    Ok(interval)
}

pub(super) fn interval(
    option: &'static str,
    value: &Option<String>,
    default_secs: u64,
) -> Result<Duration, Error> {
    let default = Duration::from_secs(default_secs);
    duration_or(
        option,
        value.as_deref(),
        (INTERVAL_MIN, INTERVAL_MAX),
        default,
    )
}

pub(super) fn duration_or(
    option: &'static str,
    value: Option<&str>,
    (min, max): (Duration, Duration),
    default: Duration,
) -> Result<Duration, Error> {
    let Some(value) = value else {
        return Ok(default);
    };
    parse_duration(value)
        .filter(|duration| (min..=max).contains(duration))
        .ok_or_else(|| {
            Error::new(
                option,
                value,
                format!(
                    "give a duration from {} to {}: one whole number and its unit, like 500ms, 90s \
                     (not 1m30s), 5m or 1h",
                    Human(min),
                    Human(max)
                ),
            )
        })
}

/// Parses `500ms`, `30s`, `5m` or `1h`: a whole number and its unit. `None` for anything else, and
/// for more milliseconds than fit in 64 bits.
fn parse_duration(value: &str) -> Option<Duration> {
    let unit = value.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = value.split_at(unit);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_millis(number.checked_mul(millis)?))
}

/// A duration, shown in the form that the options accept.
pub(super) struct Human(pub(super) Duration);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            ms if ms % 1_000 != 0 => write!(f, "{ms}ms"),
            ms if ms % 60_000 != 0 => write!(f, "{}s", ms / 1_000),
            ms if ms % 3_600_000 != 0 => write!(f, "{}m", ms / 60_000),
            ms => write!(f, "{}h", ms / 3_600_000),
        }
    }
}

pub(crate) fn name(value: &str) -> Result<String, Error> {
    // One that begins with `-` is an option whose value was forgotten.
    if to_name(value).is_none() || value.starts_with(['-', '.']) {
        return Err(Error::new(
            "--name",
            value,
            format!(
                "a name is 1 to {MAX_NAME_LEN} of a-z 0-9 - . in lower case, and begins with a \
                 letter or a digit"
            ),
        ));
    }
    Ok(value.to_owned())
}

pub(crate) fn tags(values: &[String]) -> Result<BTreeMap<String, String>, Error> {
    const OPTION: &str = "--tag";
    at_most(OPTION, values, MAX_TAGS)?;
    let mut tags = BTreeMap::new();
    let mut bytes = 0;
    for value in values {
        let wrong = |problem: String| Err(Error::new(OPTION, value, problem));
        let Some((key, content)) = value.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return wrong("write it as KEY=VALUE".to_owned());
        };
        if value.chars().any(char::is_control) {
            return wrong("leave the control characters out".to_owned());
        }
        bytes += key.len() + content.len();
        if bytes > MAX_TAG_BYTES {
            return wrong(format!(
                "keys and values of all tags may have {MAX_TAG_BYTES} bytes, and this makes it \
                 {bytes}; shorten them"
            ));
        }
        if tags.insert(key.to_owned(), content.to_owned()).is_some() {
            return wrong(format!("the key {key:?} is given twice; give it once"));
        }
    }
    Ok(tags)
}

pub(super) fn connections(value: usize) -> Result<usize, Error> {
    match (MIN_CONNECTIONS..=MAX_CONNECTIONS).contains(&value) {
        true => Ok(value),
        false => Err(Error::new(
            "--connections",
            &value.to_string(),
            format!(
                "give a number from {MIN_CONNECTIONS} to {MAX_CONNECTIONS}, or build with a larger \
                 OC_DISCOVERY_MAX_CONNECTIONS"
            ),
        )),
    }
}

pub(super) fn min_indexers(value: &str) -> Result<u8, Error> {
    value
        .parse()
        .ok()
        .filter(|number| (1..=MAX_MIN_INDEXERS).contains(&usize::from(*number)))
        .ok_or_else(|| {
            Error::new(
                "--min-indexers",
                value,
                format!("give a number from 1 to {MAX_MIN_INDEXERS}"),
            )
        })
}
