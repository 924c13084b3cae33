//! One parser for each kind of option. Each takes text and returns a checked value, or an error of
//! one sentence.
//!
//! Invariant: nothing here reads a file, a clock or the environment, so equal text always gives an
//! equal result.

use std::collections::BTreeMap;
use std::fmt;
#[cfg(any(feature = "dns", feature = "http"))]
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use libp2p::PeerId;
#[cfg(feature = "program")]
use log::LevelFilter;

use super::{Error, INTERVAL_MAX, INTERVAL_MIN, MIN_CONNECTIONS, peer_id_fault};
#[cfg(feature = "dns")]
use crate::protocol::zone::{MAX_ZONE_LEN, Zone};
use crate::protocol::{
    MAX_NAME_LEN,
    capacities::MAX_CONNECTIONS,
    codec::{
        record::{MAX_TAG_BYTES, MAX_TAGS},
        to_name,
    },
    node::MAX_MIN_INDEXERS,
};

/// The id of a closed network.
pub(super) fn network(value: &str) -> Result<PeerId, Error> {
    let id = value.parse::<PeerId>();
    let id = id
        .ok()
        .filter(|id| crate::protocol::PeerId::try_from(*id).is_ok());
    id.ok_or_else(|| Error::new("--network", value, peer_id_fault(value)))
}

/// The file of the own grant.
pub(super) fn grant(value: &str) -> Result<PathBuf, Error> {
    match value {
        "" => Err(Error::new("--grant", value, "give the file with the grant")),
        file => Ok(file.into()),
    }
}

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
impl LogFormat {
    /// Its name, as in the option.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

#[cfg(feature = "program")]
pub(super) fn log_format(value: &str) -> Result<LogFormat, Error> {
    let mut all = [LogFormat::Text, LogFormat::Json].into_iter();
    all.find(|format| format.name() == value)
        .ok_or_else(|| Error::new("--log-format", value, "give text or json"))
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
