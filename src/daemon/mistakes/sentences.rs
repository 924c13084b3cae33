//! What is said of each mistake that a look finds: its code, how bad it is, and what to do.
//!
//! Invariant: what strangers can cause is a notice, so that it changes no verdict. Strangers are
//! peers without a lease.

use std::{path::Path, time::Duration};

use libp2p::Multiaddr;

use super::super::{
    clock,
    life::short,
    problems::Mistake,
    report::text,
    status::{Severity, Span},
};
use crate::{
    net::limits::CONNECTIONS,
    protocol::{
        PeerId, Role, TableStats, indexer::NODES_ONLY, lookup::NO_NATIVE, rivals::Contested,
    },
};

/// Tables that refuse or forget a peer when they are full. Others are caches, or bound a rate.
const TOLD: [&str; 7] = [
    "live_indexers",
    "stream_records",
    "directory",
    "known_peer_ids",
    "dht_records",
    "dht_providers",
    CONNECTIONS,
];
/// Tables without which a peer gets no lease, or is not listed.
const LEASES: [&str; 3] = ["live_indexers", "stream_records", "directory"];
/// Tables that strangers fill with their records: the leases stay.
const RECORDS: [&str; 2] = ["dht_records", "dht_providers"];
/// A table is nearly full from this share of its places on, in percent, until it is below the
/// second one.
const NEARLY_FULL: usize = 90;
const ROOMY: usize = 80;

/// The time that is kept may be this far ahead of the system clock: a device without a
/// battery-backed clock begins where it was stopped, or a little before.
const FAR_AHEAD_MS: u64 = 24 * 3_600_000;

pub(super) const TWO_DEVICES: &str = "same-identity";
/// What to type on a copied device.
pub(in crate::daemon) const RESET: &str = "stop it, type `oc-discovery identity reset DIR` with its data directory, and start it \
                                again: it gets an identity of its own";
/// What such a problem is about if this server says that the other device has the identity of this
/// one.
pub(super) fn own_at(server: &PeerId) -> String {
    format!("{OWN}{}", text(server))
}

const OWN: &str = "own at ";

/// Whether a server has said that another device has the identity of this one.
pub(super) fn is_own_copy(mistake: &Mistake) -> bool {
    mistake.code == TWO_DEVICES && mistake.about.starts_with(OWN)
}

/// What another server says of the same copy, as the listed problem has it: it is one copy.
pub(super) fn joined(elsewhere: Mistake, listed: Option<&Mistake>) -> Mistake {
    match listed {
        Some(known) => Mistake {
            about: known.about.clone(),
            what: known.what.clone(),
            ..elsewhere
        },
        None => elsewhere,
    }
}

/// This indexer is being drained: an operator may have forgotten it.
pub(super) fn drained(nodes: usize) -> Mistake {
    Mistake {
        code: "draining",
        severity: Severity::Warning,
        about: String::new(),
        what: match nodes {
            0 => "this indexer is drained and empty, and takes no nodes".into(),
            left => format!("this indexer is being drained and takes no nodes; still here: {left}"),
        },
        hint: "stop it when it is empty, or let it take nodes again with `oc-discovery drain \
               --undo`"
            .into(),
    }
}

/// Two devices have one identity.
pub(super) fn same_identity(contested: &Contested) -> Mistake {
    let Contested {
        peer,
        kept,
        refused,
        ..
    } = contested;
    Mistake {
        code: TWO_DEVICES,
        severity: Severity::Notice,
        about: text(peer),
        what: match contested.is_at_home() {
            true => format!(
                "two devices at {kept} use the identity {}, or one that starts again and again: its stream was \
                 replaced three times within a minute, moments after it was heard",
                short(peer)
            ),
            false => format!(
                "two devices use the identity {}: keeps the one at {kept}, refuses the one at {refused}",
                short(peer)
            ),
        },
        hint: format!("on the one that is the copy: {RESET}"),
    }
}

/// A server keeps another device that has the identity of this one. While others grant leases, that
/// is the word of one server.
pub(super) fn own_identity_elsewhere((server, called): (&PeerId, &str), leases: usize) -> Mistake {
    Mistake {
        code: TWO_DEVICES,
        severity: match leases {
            0 => Severity::Critical,
            _ => Severity::Warning,
        },
        about: own_at(server),
        what: format!("another device uses the identity of this one, and {called} keeps that one"),
        hint: format!("if this device is the copy: {RESET}"),
    }
}

/// A native holds a lease here that this one is not configured with. `addr`: where it says that it
/// listens, with its id.
pub(super) fn guest(peer: &PeerId, addr: Option<&Multiaddr>) -> Mistake {
    let short = short(peer);
    Mistake {
        code: "guest-native",
        severity: Severity::Notice,
        about: text(peer),
        what: format!(
            "native {short} is connected as a guest: this native is not configured with it, and \
             keeps few of the indexers that it reports"
        ),
        hint: match addr {
            Some(addr) => {
                format!("if it is one of yours, start this native with --native {addr}")
            }
            None => "if it is one of yours, start this native with the option --native that \
                     `oc-discovery status` shows there"
                .into(),
        },
    }
}

pub(super) const TABLE_NEARLY_FULL: &str = "table-nearly-full";

/// The table is nearly full. `was`: it is a problem already. `granted`: leases that this process
/// has granted.
pub(super) fn nearly_full(stats: &TableStats, was: bool, granted: usize) -> Option<Mistake> {
    let TableStats {
        name,
        used,
        capacity,
        ..
    } = *stats;
    let from = if was { ROOMY } else { NEARLY_FULL };
    if !TOLD.contains(&name) || capacity == 0 || !is_full_to(from, used, capacity) {
        return None;
    }
    Some(Mistake {
        code: TABLE_NEARLY_FULL,
        severity: match name {
            // A peer with a lease has one connection.
            CONNECTIONS if !is_full_to(ROOMY, granted, capacity) => Severity::Notice,
            _ if RECORDS.contains(&name) => Severity::Notice,
            _ if used >= capacity && LEASES.contains(&name) => Severity::Critical,
            _ => Severity::Warning,
        },
        about: name.into(),
        what: match used >= capacity {
            true => format!("the table {name} is full: all {capacity} places are taken"),
            false => {
                format!("the table {name} is nearly full: {used} of {capacity} places are taken")
            }
        },
        hint: match name {
            CONNECTIONS => "raise the limit of open files (LimitNOFILE=), or add indexers".into(),
            _ => "add indexers, or build with larger tables (`oc-discovery capacity` lists them)"
                .into(),
        },
    })
}

/// Whether so many percent of the places are taken.
fn is_full_to(percent: usize, used: usize, capacity: usize) -> bool {
    used.saturating_mul(100) >= capacity.saturating_mul(percent)
}

pub(in crate::daemon) const NO_NATIVE_THERE: &str = "native-is-none";

/// Whether a server says so that it is no native.
pub(super) fn tells_of_no_native(why: &str) -> bool {
    // A node speaks none of the protocols of a server.
    why.contains(NO_NATIVE) || why.contains(NODES_ONLY) || why.contains("does not speak /oc/")
}

/// A peer that is configured as a native is an indexer or a node.
pub(super) fn no_native_there(called: &str, about: String) -> Mistake {
    Mistake {
        code: NO_NATIVE_THERE,
        severity: Severity::Warning,
        about,
        what: format!("{called} is configured as a native, and is an indexer or a node"),
        hint: "give the address of a native with --native: the native prints it when it starts"
            .into(),
    }
}

/// The address of this process is in its own list of natives.
pub(super) fn itself_as_native() -> Mistake {
    Mistake {
        code: "itself-as-native",
        severity: Severity::Warning,
        about: String::new(),
        what: "this process is configured with itself as a native".into(),
        hint: "remove its own address from --native; the first native of a network needs none"
            .into(),
    }
}

/// No peer can use the addresses that are announced. `only_here`: peers of other hosts are
/// connected, and the addresses lead to this host alone.
pub(super) fn no_address(role: Role, has_some: bool, only_here: bool) -> Option<Mistake> {
    let what = match (has_some, only_here) {
        (false, _) => "no address is announced: this host has none that others could use",
        (true, true) => "the only addresses that are announced lead to this host alone",
        (true, false) => return None,
    };
    Some(Mistake {
        code: "no-usable-address",
        severity: match role {
            Role::Node => Severity::Warning,
            Role::Indexer | Role::Native => Severity::Critical,
        },
        about: String::new(),
        what: what.into(),
        hint: "listen on another address than a loopback one, or announce one with --announce \
               /ip4/ADDRESS/tcp/PORT"
            .into(),
    })
}

/// Without a native there is no way into the network.
pub(super) fn no_native(
    role: Role,
    leases: usize,
    knows_one: bool,
    by_name: &[String],
    on_link: Option<&str>,
) -> Option<Mistake> {
    if role == Role::Native || knows_one {
        return None;
    }
    let (code, what, hint) = match (by_name, on_link) {
        ([], None) => (
            "no-native-known",
            "no native is known, and none has been found on the network".into(),
            "give one with --native /ip4/ADDRESS/tcp/4820/p2p/ID; `oc-discovery status` on the native shows it".into(),
        ),
        ([], Some(found)) => (
            "no-native-known",
            "no native is known, and one that was found on the network is not trusted".into(),
            format!("to use it, start with --native {found}"),
        ),
        (names, _) => (
            "native-unresolved",
            format!(
                "no native is known yet: {} is not resolved",
                names.join(", ")
            ),
            "the log says why; `dig +short TXT _dnsaddr.NAME` for /dnsaddr/NAME, and /etc/resolv.conf".into(),
        ),
    };
    Some(Mistake {
        code,
        severity: match leases {
            0 => Severity::Critical,
            _ => Severity::Warning,
        },
        about: String::new(),
        what,
        hint,
    })
}

/// The system clock is wrong for certain.
pub(in crate::daemon) fn early_clock(wall_ms: u64) -> Option<Mistake> {
    (wall_ms < clock::BUILD_MS).then(|| Mistake {
        code: "clock-before-build",
        severity: Severity::Warning,
        about: String::new(),
        what: "the system clock is before the build date of this program, so it is wrong: the \
               time of servers that grant a lease is used"
            .into(),
        hint: "set it with `date -s`, and let an NTP service keep it: `timedatectl set-ntp true`"
            .into(),
    })
}

/// The system clock is more than [`FAR_AHEAD_MS`] before the highest time that this process has
/// kept, so that one of them is wrong. `dir`: where that time is kept.
pub(super) fn late_time(wall_ms: u64, highest_ms: u64, dir: Option<&Path>) -> Option<Mistake> {
    let ahead_ms = highest_ms.saturating_sub(wall_ms);
    // A clock before the build date is a problem of its own.
    if ahead_ms <= FAR_AHEAD_MS || wall_ms < clock::BUILD_MS {
        return None;
    }
    let ahead = Span::of(Duration::from_millis(ahead_ms));
    let forget = match dir {
        Some(dir) => format!(
            "stop this process, type `rm {0}/state {0}/state.old`, and start it again: it forgets that time, its port, \
             and the peers that it knew",
            dir.display()
        ),
        None => "start this process again".to_owned(),
    };
    Some(Mistake {
        code: "clock-behind",
        severity: Severity::Warning,
        about: String::new(),
        what: format!(
            "the system clock is {ahead} before the highest time that this process has used, which it keeps: without \
             natives whose clocks it trusts it judges and signs records with that time, and others refuse them"
        ),
        hint: format!(
            "if `date` shows the right time: {forget}. If not, set the clock: `timedatectl set-ntp true`"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{daemon::problems::Problems, protocol::Instant};

    #[test]
    fn time_that_is_kept_is_named_if_it_is_more_than_a_day_ahead_with_what_to_type() {
        let (wall, dir) = (clock::BUILD_MS, Path::new("/var/lib/x"));
        assert_eq!(late_time(wall, wall + FAR_AHEAD_MS, Some(dir)), None);
        let found = late_time(wall, wall + FAR_AHEAD_MS + 1, Some(dir)).unwrap();
        assert_eq!(found.code, "clock-behind");
        assert!(found.what.contains("is 1 d 0 h before"), "{found:?}");
        assert!(
            found
                .hint
                .contains("`rm /var/lib/x/state /var/lib/x/state.old`"),
            "{found:?}"
        );
        assert_eq!(
            late_time(wall - 1, u64::MAX, Some(dir)),
            None,
            "early-clock"
        );
    }

    fn stats(name: &'static str, used: usize) -> TableStats {
        TableStats {
            name,
            used,
            capacity: 200,
            refused: 0,
            evicted: 0,
        }
    }

    #[test]
    fn table_is_nearly_full_from_ninety_percent_until_below_eighty() {
        let severity = |used, was| {
            let found = nearly_full(&stats("directory", used), was, 0);
            found.map(|mistake| mistake.severity)
        };
        assert_eq!(severity(179, false), None);
        assert_eq!(severity(180, false), Some(Severity::Warning));
        assert_eq!(severity(160, true), Some(Severity::Warning));
        assert_eq!(severity(159, true), None);
        assert_eq!(severity(199, false), Some(Severity::Warning));
        assert_eq!(severity(200, false), Some(Severity::Critical));
    }

    #[test]
    fn what_strangers_fill_is_a_notice_and_changes_no_verdict() {
        for (name, granted, severity) in [
            (CONNECTIONS, 0, Severity::Notice),
            (CONNECTIONS, 159, Severity::Notice),
            (CONNECTIONS, 160, Severity::Warning),
            ("dht_records", 200, Severity::Notice),
            ("dht_providers", 200, Severity::Notice),
            ("known_peer_ids", 0, Severity::Warning),
        ] {
            let found = nearly_full(&stats(name, 200), false, granted).unwrap();
            assert_eq!(found.severity, severity, "{name} {granted}");
        }
    }

    #[test]
    fn lease_of_one_server_does_not_end_what_another_one_says_of_a_copy() {
        let (now, [keeps, grants]) = (
            Instant::from_millis(1),
            [1, 2].map(|n| PeerId::from_bytes([n; 32])),
        );
        let mut problems = Problems::default();
        problems.happened(now, own_identity_elsewhere((&keeps, "indexer 1"), 1));
        problems.over(now, TWO_DEVICES, &own_at(&grants));
        assert!(!problems.is_empty());
        problems.over(now, TWO_DEVICES, &own_at(&keeps));
        assert!(problems.is_empty());
    }

    #[test]
    fn copy_is_listed_once_however_many_servers_keep_the_other_one() {
        let servers = [1, 2].map(|n| PeerId::from_bytes([n; 32]));
        let [one, other] = servers.each_ref();
        let first = own_identity_elsewhere((one, "indexer 1"), 1);
        assert_eq!(joined(first.clone(), None), first);
        let second = joined(
            own_identity_elsewhere((other, "indexer 2"), 0),
            Some(&first),
        );
        assert_eq!((&second.about, &second.what), (&first.about, &first.what));
        assert_eq!(second.severity, Severity::Critical, "it has become worse");
    }

    #[test]
    fn cache_may_be_full() {
        assert_eq!(nearly_full(&stats("dns_cache", 200), false, 200), None);
    }

    #[test]
    fn only_a_native_needs_no_native() {
        let severity = |role, leases, knows_one| {
            no_native(role, leases, knows_one, &[], None).map(|mistake| mistake.severity)
        };
        assert_eq!(severity(Role::Native, 0, false), None);
        assert_eq!(severity(Role::Node, 0, true), None);
        assert_eq!(severity(Role::Node, 1, false), Some(Severity::Warning));
        assert_eq!(severity(Role::Indexer, 0, false), Some(Severity::Critical));
    }

    #[test]
    fn native_that_is_given_by_a_name_is_not_resolved_yet() {
        let names = ["/dnsaddr/example.com".to_owned()];
        let found = no_native(Role::Node, 0, false, &names, None).unwrap();
        assert_eq!(found.code, "native-unresolved");
        assert!(found.what.contains("/dnsaddr/example.com"), "{found:?}");
        assert_eq!(
            no_native(Role::Node, 0, false, &[], None).unwrap().code,
            "no-native-known"
        );
    }

    #[test]
    fn native_that_was_found_and_is_not_trusted_is_named_with_what_to_type() {
        let at = "/ip4/192.0.2.1/tcp/4820/p2p/ID";
        let found = no_native(Role::Node, 0, false, &[], Some(at)).unwrap();
        assert_eq!(found.code, "no-native-known");
        assert!(found.what.contains("is not trusted"), "{found:?}");
        assert!(found.hint.ends_with(&format!("--native {at}")), "{found:?}");
    }

    #[test]
    fn address_that_leads_to_this_host_alone_is_none_for_peers_of_others() {
        let severity = |role, has_some, only_here| {
            no_address(role, has_some, only_here).map(|mistake| mistake.severity)
        };
        assert_eq!(severity(Role::Native, true, false), None);
        assert_eq!(severity(Role::Native, true, true), Some(Severity::Critical));
        assert_eq!(severity(Role::Node, false, true), Some(Severity::Warning));
        assert_eq!(severity(Role::Node, false, false), Some(Severity::Warning));
    }

    #[test]
    fn words_of_an_indexer_and_silence_of_a_node_tell_that_it_is_no_native() {
        assert!(tells_of_no_native(&format!("it answers: {NO_NATIVE}")));
        assert!(tells_of_no_native("it does not speak /oc/directory/1.0.0"));
        assert!(!tells_of_no_native("it does not answer"));
    }

    #[test]
    fn clock_is_wrong_until_the_build_date() {
        assert!(early_clock(clock::BUILD_MS - 1).is_some());
        assert!(early_clock(clock::BUILD_MS).is_none());
    }
}
