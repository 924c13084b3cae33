//! The table of settings: one entry for each option of a daemon. The same name is its option, with
//! `--` before it, and its key in a file.
//!
//! What a file may have, what `config show` shows, what a reload applies and what is suggested for
//! a wrong key follows from this table; tests compare it with the options, the parsers' bounds, the
//! README and the manual.

use std::time::Duration;

use super::{
    Config, Flags, INTERVAL_MAX, INTERVAL_MIN, LISTEN_MAX, Role, services::show as show_service,
    values::Human,
};
use crate::protocol::{
    capacities::MAX_NATIVES,
    codec::{
        record::{MAX_RECORD_ADDRS, MAX_TAGS},
        service::MAX_SERVICES,
    },
    node::MAX_MIN_INDEXERS,
    time::{MAX_LEASE, MIN_LEASE},
};

/// A setting.
pub(crate) struct Setting {
    /// Its key, and with `--` before it its option.
    pub(crate) name: &'static str,
    /// What its values are.
    pub(crate) kind: Kind,
    /// The roles that have it.
    pub(crate) roles: &'static [Role],
    /// Whether a daemon that runs can take a new value.
    pub(crate) reloads: bool,
    /// What it is, in a few words.
    pub(crate) help: &'static str,
    pub(super) slot: fn(&mut Flags) -> Slot<'_>,
    pub(super) show: fn(&Config) -> Vec<String>,
}

/// The type of a setting, with its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One text.
    Text,
    /// A text such as `90s`, from the first to the second.
    Duration(Duration, Duration),
    /// A whole number, from the first to the second.
    Number(usize, usize),
    /// True or false; the option alone is true.
    Switch,
    /// Texts, so many at most.
    List(usize),
    /// A table of texts, so many at most.
    Tags(usize),
    /// Tables with a name and a port, so many at most.
    Services(usize),
    /// A part of each of these tables, so many at most.
    OfService(usize),
}

/// The place of a setting in [`Flags`].
pub(super) enum Slot<'f> {
    One(&'f mut Option<String>),
    Many(&'f mut Vec<String>),
    /// The option sets it.
    On(&'f mut bool),
    /// The option clears it.
    #[cfg(feature = "mdns")]
    Off(&'f mut bool),
}

impl Setting {
    /// The setting with this name, or with this option.
    pub(super) fn of(name: &str) -> Option<&'static Self> {
        let name = name.strip_prefix("--").unwrap_or(name);
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Whether the flags have it.
    pub(super) fn is_in(&self, flags: &Flags) -> bool {
        match (self.slot)(&mut flags.clone()) {
            Slot::One(value) => value.is_some(),
            Slot::Many(values) => !values.is_empty(),
            Slot::On(is_set) => *is_set,
            #[cfg(feature = "mdns")]
            Slot::Off(is_set) => !*is_set,
        }
    }

    /// Gives it these values in the flags.
    pub(super) fn set(&self, flags: &mut Flags, values: Vec<String>) {
        let is_true = values.iter().any(|value| value == "true");
        match (self.slot)(flags) {
            Slot::One(value) => *value = values.into_iter().next(),
            Slot::Many(all) => *all = values,
            Slot::On(is_set) => *is_set = is_true,
            #[cfg(feature = "mdns")]
            Slot::Off(is_set) => *is_set = !is_true,
        }
    }
}

const ALL: &[Role] = &Role::ALL;
const NODE: &[Role] = &[Role::Node];
const INTERVAL: Kind = Kind::Duration(INTERVAL_MIN, INTERVAL_MAX);

fn texts(values: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

fn time(value: Duration) -> Vec<String> {
    texts([Human(value)])
}

/// All settings.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        name: "native",
        kind: Kind::List(MAX_NATIVES),
        roles: ALL,
        reloads: true,
        help: "natives: multiaddresses with /p2p/ID, or /dnsaddr/NAME",
        slot: |flags| Slot::Many(&mut flags.native),
        show: |config| texts(&config.natives),
    },
    Setting {
        name: "listen",
        kind: Kind::List(LISTEN_MAX),
        roles: ALL,
        reloads: false,
        help: "addresses to listen on, /ip4 or /ip6 with /tcp",
        slot: |flags| Slot::Many(&mut flags.listen),
        show: |config| texts(&config.listen),
    },
    Setting {
        name: "announce",
        kind: Kind::List(MAX_RECORD_ADDRS),
        roles: ALL,
        reloads: true,
        help: "addresses to be announced before all others",
        slot: |flags| Slot::Many(&mut flags.announce),
        show: |config| texts(&config.announce),
    },
    Setting {
        name: "announce-only",
        kind: Kind::Switch,
        roles: ALL,
        reloads: true,
        help: "no others are announced",
        slot: |flags| Slot::On(&mut flags.announce_only),
        show: |config| texts([config.announce_only]),
    },
    Setting {
        name: "data-dir",
        kind: Kind::Text,
        roles: ALL,
        reloads: false,
        help: "directory of the identity, the saved state and the control socket",
        slot: |flags| Slot::One(&mut flags.data_dir),
        show: |config| texts(config.data_dir.iter().map(|dir| dir.display())),
    },
    Setting {
        name: "psk",
        kind: Kind::Text,
        roles: ALL,
        reloads: false,
        help: "swarm.key file of a private network",
        slot: |flags| Slot::One(&mut flags.psk),
        show: |config| texts(config.psk.iter().map(|file| file.display())),
    },
    Setting {
        name: "network",
        kind: Kind::Text,
        roles: ALL,
        reloads: true,
        help: "id of the closed network: peers without a grant are refused",
        slot: |flags| Slot::One(&mut flags.network),
        show: |config| texts(config.network),
    },
    Setting {
        name: "grant",
        kind: Kind::Text,
        roles: ALL,
        reloads: true,
        help: "file with the grant of this device",
        slot: |flags| Slot::One(&mut flags.grant),
        show: |config| texts(config.grant.iter().map(|file| file.display())),
    },
    #[cfg(feature = "mdns")]
    Setting {
        name: "no-mdns",
        kind: Kind::Switch,
        roles: ALL,
        reloads: false,
        help: "multicast DNS is not used",
        slot: |flags| Slot::Off(&mut flags.mdns),
        show: |config| texts([!config.mdns]),
    },
    Setting {
        name: "trust-lan",
        kind: Kind::Switch,
        roles: ALL,
        reloads: true,
        help: "without a native: every native that is found is used",
        slot: |flags| Slot::On(&mut flags.trust_lan),
        show: |config| texts([config.trust_lan]),
    },
    Setting {
        name: "log",
        kind: Kind::Text,
        roles: ALL,
        reloads: true,
        help: "log level: off, error, warn, info, debug or trace",
        slot: |flags| Slot::One(&mut flags.log),
        show: |config| vec![config.log.as_str().to_ascii_lowercase()],
    },
    Setting {
        name: "log-format",
        kind: Kind::Text,
        roles: ALL,
        reloads: false,
        help: "form of the log's lines: text or json",
        slot: |flags| Slot::One(&mut flags.log_format),
        show: |config| texts([config.log_format.name()]),
    },
    Setting {
        name: "lease",
        kind: Kind::Duration(MIN_LEASE, MAX_LEASE),
        roles: ALL,
        reloads: false,
        help: "lease granted or asked for",
        slot: |flags| Slot::One(&mut flags.lease),
        show: |config| time(config.lease),
    },
    Setting {
        name: "beat-interval",
        kind: INTERVAL,
        roles: ALL,
        reloads: true,
        help: "time between beats, at most a third of the lease",
        slot: |flags| Slot::One(&mut flags.beat_interval),
        show: |config| time(config.beat_interval),
    },
    Setting {
        name: "offload-interval",
        kind: INTERVAL,
        roles: ALL,
        reloads: true,
        help: "time between runs of a native's offload loop",
        slot: |flags| Slot::One(&mut flags.offload_interval),
        show: |config| time(config.offload_interval),
    },
    Setting {
        name: "refresh-interval",
        kind: INTERVAL,
        roles: ALL,
        reloads: true,
        help: "time between runs of a native's refresh loop",
        slot: |flags| Slot::One(&mut flags.refresh_interval),
        show: |config| time(config.refresh_interval),
    },
    Setting {
        name: "gc-interval",
        kind: INTERVAL,
        roles: ALL,
        reloads: true,
        help: "time between runs of the stream GC",
        slot: |flags| Slot::One(&mut flags.gc_interval),
        show: |config| time(config.gc_interval),
    },
    Setting {
        name: "connect-interval",
        kind: INTERVAL,
        roles: ALL,
        reloads: true,
        help: "time between rounds of a node's connect-to-natives",
        slot: |flags| Slot::One(&mut flags.connect_interval),
        show: |config| time(config.connect_interval),
    },
    #[cfg(feature = "dns")]
    Setting {
        name: "dns",
        kind: Kind::Text,
        roles: ALL,
        reloads: false,
        help: "ADDRESS:PORT at which programs are answered by DNS",
        slot: |flags| Slot::One(&mut flags.dns),
        show: |config| texts(config.dns),
    },
    #[cfg(feature = "dns")]
    Setting {
        name: "dns-zone",
        kind: Kind::Text,
        roles: ALL,
        reloads: false,
        help: "zone of the names that are answered",
        slot: |flags| Slot::One(&mut flags.dns_zone),
        show: |config| texts([config.dns_zone.name()]),
    },
    #[cfg(feature = "http")]
    Setting {
        name: "http",
        kind: Kind::Text,
        roles: ALL,
        reloads: false,
        help: "ADDRESS:PORT at which HTTP is answered",
        slot: |flags| Slot::One(&mut flags.http),
        show: |config| texts(config.http),
    },
    #[cfg(feature = "http")]
    Setting {
        name: "http-token",
        kind: Kind::Text,
        roles: ALL,
        reloads: false,
        help: "file with the token that HTTP clients must show",
        slot: |flags| Slot::One(&mut flags.http_token),
        show: |config| texts(config.http_token.iter().map(|file| file.display())),
    },
    #[cfg(feature = "mdns")]
    Setting {
        name: "dns-sd",
        kind: Kind::List(MAX_SERVICES),
        roles: ALL,
        reloads: false,
        help: "services of the network that the local links are told of",
        slot: |flags| Slot::Many(&mut flags.dns_sd),
        show: |config| texts(config.dns_sd.iter().map(|service| service.as_str())),
    },
    Setting {
        name: "name",
        kind: Kind::Text,
        roles: NODE,
        reloads: false,
        help: "name to be found by",
        slot: |flags| Slot::One(&mut flags.node.name),
        show: |config| texts(&config.name),
    },
    Setting {
        name: "tag",
        kind: Kind::Tags(MAX_TAGS),
        roles: NODE,
        reloads: true,
        help: "what the node says about itself",
        slot: |flags| Slot::Many(&mut flags.node.tag),
        show: |config| {
            let tags = config.tags.iter();
            tags.map(|(key, value)| format!("{key}={value}")).collect()
        },
    },
    Setting {
        name: "service",
        kind: Kind::Services(MAX_SERVICES),
        roles: NODE,
        reloads: true,
        help: "what the node offers: name, port, proto (tcp or udp) and check",
        slot: |flags| Slot::Many(&mut flags.node.service),
        show: |config| config.services.iter().map(show_service).collect(),
    },
    Setting {
        name: "check",
        kind: Kind::OfService(MAX_SERVICES),
        roles: NODE,
        reloads: true,
        help: "how a service is checked: tcp, http:/PATH or exec:COMMAND",
        slot: |flags| Slot::Many(&mut flags.node.check),
        show: Config::shown_checks,
    },
    Setting {
        name: "check-interval",
        kind: INTERVAL,
        roles: NODE,
        reloads: true,
        help: "time between two runs of a check",
        slot: |flags| Slot::One(&mut flags.node.check_interval),
        show: |config| time(config.check_interval),
    },
    Setting {
        name: "allow-exec",
        kind: Kind::Switch,
        roles: NODE,
        reloads: true,
        help: "checks may run commands",
        slot: |flags| Slot::On(&mut flags.node.allow_exec),
        show: |config| texts([config.runs_commands()]),
    },
    #[cfg(feature = "mdns")]
    Setting {
        name: "from-dns-sd",
        kind: Kind::List(MAX_SERVICES),
        roles: NODE,
        reloads: false,
        help: "services of the local links' devices that the node lists",
        slot: |flags| Slot::Many(&mut flags.node.from_dns_sd),
        show: |config| texts(config.from_dns_sd.iter().map(|service| service.as_str())),
    },
    Setting {
        name: "min-indexers",
        kind: Kind::Number(1, MAX_MIN_INDEXERS),
        roles: NODE,
        reloads: false,
        help: "leases to hold on different indexers",
        slot: |flags| Slot::One(&mut flags.node.min_indexers),
        show: |config| texts([config.min_indexers]),
    },
];

#[cfg(test)]
mod tests;
