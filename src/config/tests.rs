use std::ffi::OsString;

use super::*;
use crate::protocol::codec::service::Transport;
#[cfg(feature = "dns")]
use crate::protocol::zone::Zone;

mod about;
mod addresses;

const ID: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
/// The id of an RSA key, which is a hash and not a key.
const RSA: &str = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";

fn home(variable: &str) -> Option<OsString> {
    (variable == "HOME").then(|| "/home/mia".into())
}

fn parse(role: Role, change: impl FnOnce(&mut Flags)) -> Result<Config, String> {
    let mut flags = Flags::default();
    change(&mut flags);
    Config::parse(role, &flags, &home).map_err(|error| error.to_string())
}

fn native(value: &str) -> Result<NativeAddr, String> {
    parse(Role::Node, |flags| flags.native.push(value.into()))
        .map(|mut config| config.natives.remove(0))
}

fn lease_and_beat(lease: &str, beat: Option<&str>) -> Result<Config, String> {
    parse(Role::Indexer, |flags| {
        flags.lease = Some(lease.into());
        flags.beat_interval = beat.map(Into::into);
    })
}

fn tagged(tags: &[&str]) -> Result<Config, String> {
    parse(Role::Node, |flags| {
        flags.node.tag = tags.iter().map(|&tag| tag.into()).collect();
    })
}

#[test]
fn defaults_need_no_flag_in_any_role() {
    for role in Role::ALL {
        let config = parse(role, |_| {}).unwrap();
        assert_eq!(
            config,
            Config {
                role,
                data_dir: Some(format!("/home/mia/.local/state/oc-discovery/{role}").into()),
                listen: vec![],
                announce: vec![],
                announce_only: false,
                natives: vec![],
                psk: None,
                network: None,
                grant: None,
                #[cfg(feature = "mdns")]
                mdns: false,
                trust_lan: false,
                log: LevelFilter::Info,
                log_format: LogFormat::Text,
                lease: Duration::from_secs(90),
                beat_interval: Duration::from_secs(30),
                offload_interval: Duration::from_secs(30),
                refresh_interval: Duration::from_secs(30),
                gc_interval: Duration::from_secs(30),
                connect_interval: Duration::from_secs(60),
                name: None,
                tags: BTreeMap::new(),
                services: vec![],
                checks: vec![],
                check_interval: Duration::from_secs(10),
                #[cfg(feature = "dns")]
                dns: None,
                #[cfg(feature = "dns")]
                dns_zone: Zone::new("oc.internal").unwrap(),
                #[cfg(feature = "http")]
                http: None,
                #[cfg(feature = "http")]
                http_token: None,
                #[cfg(feature = "mdns")]
                dns_sd: vec![],
                #[cfg(feature = "mdns")]
                from_dns_sd: vec![],
                min_indexers: 2,
                connections: MAX_CONNECTIONS,
            }
        );
    }
}

#[cfg(feature = "dns")]
#[test]
fn dns_is_answered_at_one_address_for_a_zone_that_leaves_room() {
    let given = |at: Option<&str>, zone: Option<&str>| {
        parse(Role::Native, |flags| {
            flags.dns = at.map(Into::into);
            flags.dns_zone = zone.map(Into::into);
        })
    };
    let config = given(Some("[::1]:53"), Some("LAN.")).unwrap();
    assert_eq!(config.dns, Some("[::1]:53".parse().unwrap()));
    assert_eq!(config.dns_zone.name(), "lan");
    assert!(given(Some("127.0.0.1:0"), None).is_ok());
    for bad in ["", "127.0.0.1", "5320", "localhost:53", "127.0.0.1:65536"] {
        let error = given(Some(bad), None).unwrap_err();
        assert!(
            error.starts_with("--dns \"") && error.contains("ADDRESS:PORT"),
            "{error}"
        );
    }
    for (bad, advice) in [("0.0.0.0:53", "one address"), ("[ff02::1]:53", "multicast")] {
        let error = given(Some(bad), None).unwrap_err();
        assert!(error.contains(advice), "{error}");
    }
    for bad in ["", ".", "a..b", "a b", &"a.".repeat(81)] {
        let error = given(Some("127.0.0.1:53"), Some(bad)).unwrap_err();
        assert!(error.starts_with("--dns-zone \""), "{error}");
    }
    let error = given(None, Some("lan")).unwrap_err();
    assert!(error.contains("without --dns"), "{error}");
}

#[cfg(feature = "http")]
#[test]
fn http_is_answered_without_a_token_only_where_other_hosts_cannot_ask() {
    let given = |at: Option<&str>, token: Option<&str>| {
        parse(Role::Native, |flags| {
            flags.http = at.map(Into::into);
            flags.http_token = token.map(Into::into);
        })
    };
    for loopback in [
        "127.0.0.1:7480",
        "127.8.9.1:0",
        "[::1]:7480",
        "[::ffff:127.0.0.1]:1",
    ] {
        let config = given(Some(loopback), None).unwrap();
        assert_eq!(config.http, Some(loopback.parse().unwrap()));
        assert_eq!(config.http_token, None);
    }
    for reachable in ["0.0.0.0:7480", "[::]:7480", "192.0.2.1:7480", "128.0.0.1:1"] {
        let error = given(Some(reachable), None).unwrap_err();
        assert!(
            error.starts_with("--http-token: other hosts can reach"),
            "{error}"
        );
        let config = given(Some(reachable), Some("/run/token")).unwrap();
        assert_eq!(config.http_token, Some("/run/token".into()));
    }
    for bad in ["", "7480", "localhost:7480", "127.0.0.1:65536"] {
        let error = given(Some(bad), None).unwrap_err();
        assert!(
            error.starts_with("--http \"") && error.contains("ADDRESS:PORT"),
            "{error}"
        );
    }
    assert!(
        given(Some("[ff02::1]:80"), Some("x"))
            .unwrap_err()
            .contains("multicast")
    );
    assert!(
        given(None, Some("x"))
            .unwrap_err()
            .contains("there is no --http")
    );
    assert!(
        given(Some("127.0.0.1:0"), Some(""))
            .unwrap_err()
            .contains("give the file")
    );
}

#[cfg(feature = "mdns")]
#[test]
fn services_for_the_links_are_named_once_and_need_multicast_dns() {
    let given = |names: &[&str], mdns| {
        parse(Role::Native, |flags| {
            flags.dns_sd = names.iter().map(ToString::to_string).collect();
            flags.mdns = mdns;
        })
    };
    assert_eq!(
        given(&["http", "ipp"], true).unwrap().dns_sd,
        ["http", "ipp"]
    );
    assert!(given(&[], false).unwrap().dns_sd.is_empty());
    let bad: [(&[&str], bool, &str); 4] = [
        (&["http"], false, "--no-mdns"),
        (&["_http._tcp"], true, "1 to 15"),
        (&["http", "http"], true, "twice"),
        (&["http"; 9], true, "8 is the most"),
    ];
    for (names, mdns, advice) in bad {
        let error = given(names, mdns).unwrap_err();
        assert!(
            error.contains("--dns-sd") && error.contains(advice),
            "{error}"
        );
    }
}

#[test]
fn data_directory_follows_the_environment_in_order() {
    let dir = |state: &str, xdg: &str| {
        let env = |variable: &str| match variable {
            "STATE_DIRECTORY" => (!state.is_empty()).then(|| state.into()),
            "XDG_STATE_HOME" => (!xdg.is_empty()).then(|| xdg.into()),
            other => home(other),
        };
        let config = Config::parse(Role::Node, &Flags::default(), &env).unwrap();
        let dir = config.data_dir.unwrap();
        assert!(default_data_dirs(&env).contains(&dir));
        dir.to_str().unwrap().to_owned()
    };
    assert_eq!(dir("/var/lib/oc:/var/lib/other", "/x"), "/var/lib/oc");
    assert_eq!(dir("", "/x"), "/x/oc-discovery/node");
    assert_eq!(dir("", "x"), "/home/mia/.local/state/oc-discovery/node");
    assert_eq!(dir("oc", ""), "/home/mia/.local/state/oc-discovery/node");

    let nothing = |_: &str| None;
    let error = Config::parse(Role::Node, &Flags::default(), &nothing).unwrap_err();
    assert!(error.to_string().starts_with("--data-dir: give"), "{error}");
    let services =
        ["native", "indexer", "node"].map(|role| PathBuf::from("/var/lib/oc-discovery").join(role));
    assert_eq!(default_data_dirs(&nothing), services);
}

#[test]
fn durations_are_taken_at_their_bounds_and_refused_past_them() {
    for good in ["1s", "1000ms", "20m", "1200s"] {
        assert!(lease_and_beat(good, None).is_ok(), "{good}");
    }
    for bad in [
        "0s",
        "0ms",
        "999ms",
        "1200001ms",
        "21m",
        "1h",
        "",
        "s",
        "5",
        "-5s",
        "+5s",
        "1.5s",
        "5 s",
        "5S",
        "5d",
        "99999999999999999999s",
        "18446744073709551615m",
        "５s",
    ] {
        let error = lease_and_beat(bad, None).unwrap_err();
        assert_eq!(
            error,
            format!(
                "--lease {bad:?}: give a duration from 1s to 20m: one whole number and its unit, like 500ms, 90s (not 1m30s), 5m or 1h"
            )
        );
    }
    let gc = |value: &str| parse(Role::Native, |flags| flags.gc_interval = Some(value.into()));
    assert_eq!(gc("100ms").unwrap().gc_interval.as_millis(), 100);
    assert_eq!(gc("1h").unwrap().gc_interval.as_secs(), 3600);
    assert!(gc("99ms").unwrap_err().contains("from 100ms to 1h"));
    assert!(gc("61m").unwrap_err().contains("from 100ms to 1h"));
}

#[test]
fn beats_come_at_least_three_times_a_lease() {
    assert!(lease_and_beat("3s", Some("1s")).is_ok());
    let error = lease_and_beat("3s", Some("1001ms")).unwrap_err();
    assert!(
        error.starts_with("--beat-interval \"1001ms\": it is at most a third"),
        "{error}"
    );
    assert!(error.contains("3s"), "{error}");
    let short = lease_and_beat("3s", None).unwrap();
    assert_eq!(short.beat_interval, Duration::from_secs(1));
    let long = lease_and_beat("20m", None).unwrap();
    assert_eq!(long.beat_interval, Duration::from_secs(30));
}

#[test]
fn lists_are_bounded() {
    let eight = |value: &str| vec![value.to_owned(); 8];
    let with = |native: Vec<String>, listen: Vec<String>| {
        parse(Role::Node, |flags| {
            flags.native = native;
            flags.listen = listen;
        })
    };
    let natives = eight(&format!("/ip4/192.0.2.1/tcp/1/p2p/{ID}"));
    let listen = eight("/ip4/127.0.0.1/tcp/0");
    assert!(with(natives.clone(), listen.clone()).is_ok());
    let nine = |mut list: Vec<String>| {
        list.push(list[0].clone());
        list
    };
    assert_eq!(
        with(nine(natives), vec![]).unwrap_err(),
        "--native: given 9 times, and 8 is the most; leave some out"
    );
    assert!(with(vec![], nine(listen)).unwrap_err().contains("8 is"));
}

#[test]
fn remaining_values_name_their_bound() {
    let node = |change: fn(&mut Flags)| parse(Role::Node, change);
    for bad in ["0", "9", "-1", "256", "two", ""] {
        let error = parse(Role::Node, |flags| {
            flags.node.min_indexers = Some(bad.into());
        });
        assert!(error.unwrap_err().contains("from 1 to 8"), "{bad}");
    }
    assert_eq!(
        node(|flags| flags.node.min_indexers = Some("8".into()))
            .unwrap()
            .min_indexers,
        8
    );
    let error = node(|flags| flags.log = Some("loud".into())).unwrap_err();
    assert!(error.contains("off, error, warn, info, debug, trace"));
    for word in ["off", "error", "warn", "info", "debug", "trace"] {
        assert!(parse(Role::Node, |flags| flags.log = Some(word.into())).is_ok());
    }
    let error = node(|flags| flags.log_format = Some("JSON".into())).unwrap_err();
    assert!(error.contains("give text or json"));
    assert!(node(|flags| flags.psk = Some(String::new())).is_err());
    assert!(node(|flags| flags.data_dir = Some(String::new())).is_err());
}

#[test]
fn endless_value_is_cut_in_the_message() {
    let error = native(&"x".repeat(100_000)).unwrap_err();
    assert!(error.len() < 300, "{}", error.len());
}

#[test]
fn host_name_becomes_a_node_name_by_one_rule() {
    let long = format!("{}.x", "a".repeat(62));
    let many = "é".repeat(100);
    for (host, name) in [
        ("phost01", "phost01"),
        ("PHost01", "phost01"),
        ("büro", "b-ro"),
        ("BÜRO", "b-ro"),
        ("l490vp026_pub", "l490vp026-pub"),
        ("my host!", "my-host"),
        ("-a.b-.", "a.b"),
        ("_", "node"),
        (".", "node"),
        ("", "node"),
        ("\u{fffd}x\u{fffd}", "x"),
        (&*long, &*"a".repeat(62)),
        (&*"a".repeat(64), &*"a".repeat(63)),
        (&*many, "node"),
        (&*format!("{many}x"), "x"),
    ] {
        assert_eq!(name_of_host(host), name, "{host}");
        assert!(to_name(&name_of_host(host)).is_some());
    }
}
