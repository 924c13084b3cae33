//! Servers that are slow, old, silent or flooded, or for which another host answers.

use std::net::UdpSocket;

use futures_util::future::join_all;
use smol::future::or;

use super::*;
use crate::net::executor::waits::eventually;

#[test]
fn truncated_answer_is_asked_for_again_over_tcp() {
    let zone = (1..=12).fold(Zone::default(), |zone, n| {
        zone.txt(
            "large.test",
            &format!("dnsaddr=/ip4/192.0.2.{n}/tcp/1/p2p/{A_PEER}"),
        )
    });
    let (host, zone) = Host::serving(zone);
    let found = block_on(resolve(&host.resolver(), "/dnsaddr/large.test")).unwrap();
    assert_eq!(found.len(), 12);
    assert_eq!(zone.tcp_queries.get(), 1);
}

#[test]
fn host_without_udp_asks_over_tcp() {
    let (host, zone) = Host::serving(Zone::default().ip("one.test", "192.0.2.1"));
    host.resolv_conf("nameserver 127.0.0.1\noptions use-vc\n");
    let found = block_on(resolve(&host.resolver(), "/dns4/one.test/tcp/1")).unwrap();
    assert_eq!(found, ["/ip4/192.0.2.1/tcp/1"]);
    assert_eq!((zone.queries.get(), zone.tcp_queries.get()), (1, 1));
}

#[test]
fn answer_over_tcp_has_a_bound() {
    let value = format!("dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/{A_PEER}");
    let zone = (0..160).fold(Zone::default(), |zone, _| zone.txt("huge.test", &value));
    let error = resolved(zone, "/dnsaddr/huge.test")
        .unwrap_err()
        .to_string();
    assert!(error.contains("is longer than 16384"), "{error}");
}

#[test]
fn wrong_answers_are_passed_over_but_not_without_end() {
    for (forged, known) in [(7, true), (20, false)] {
        let zone = Zone {
            forged,
            ..Zone::default()
        };
        let found = resolved(zone.ip("one.test", "192.0.2.1"), "/dns4/one.test/tcp/1");
        match found {
            Ok(found) => assert!(known, "{found:?}"),
            Err(error) => assert!(!known && error.to_string().contains("something else")),
        }
    }
}

#[test]
fn server_that_does_not_know_edns_is_asked_without() {
    let zone = Zone {
        old: true,
        ..Zone::default()
    };
    let (host, zone) = Host::serving(zone.ip("one.test", "192.0.2.1"));
    let found = block_on(resolve(&host.resolver(), "/dns4/one.test/tcp/1")).unwrap();
    assert_eq!((found.len(), zone.queries.get()), (1, 2));
}

#[test]
fn one_family_does_not_wait_long_for_the_other() {
    for silent_type in [Rtype::A, Rtype::AAAA] {
        let zone = Zone {
            silent_type: Some(silent_type),
            ..Zone::default()
        };
        let zone = zone
            .ip("both.test", "192.0.2.1")
            .ip("both.test", "2001:db8::1");
        let (host, _) = Host::serving(zone);
        let before = Instant::now();
        // Each server has half a minute.
        let resolver = host.resolver_within(Duration::from_secs(60));
        host.resolv_conf("nameserver 127.0.0.1\noptions timeout:30");
        let found = block_on(resolve(&resolver, "/dns/both.test/tcp/1")).unwrap();
        assert_eq!(found.len(), 1);
        assert!(before.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn dead_and_silent_servers_are_passed_over_for_the_next() {
    let (host, _) = Host::serving(Zone::default().ip("one.test", "192.0.2.1"));
    let silent = UdpSocket::bind(("127.0.0.3", host.port)).unwrap();
    for others in ["nameserver 127.0.0.2\n", "nameserver 127.0.0.3\n"] {
        host.resolv_conf(&format!("{others}nameserver 127.0.0.1\n"));
        let resolver = host.resolver_within(Duration::from_secs(2));
        let found = block_on(resolve(&resolver, "/dns4/one.test/tcp/1")).unwrap();
        assert_eq!(found, ["/ip4/192.0.2.1/tcp/1"]);
    }
    silent.set_nonblocking(true).unwrap();
    assert!(silent.recv(&mut [0; 512]).is_ok());
}

#[test]
fn resolutions_at_once_are_bounded() {
    let zone = Zone {
        silent: vec!["deaf.test"],
        ..Zone::default()
    };
    let (host, zone) = Host::serving(zone.ip("one.test", "192.0.2.1"));
    let resolver = host.resolver_within(Duration::from_secs(60));
    host.resolv_conf("nameserver 127.0.0.1\noptions timeout:30");
    let all = (0..20).map(|_| resolve(&resolver, "/dns4/deaf.test/tcp/1"));
    let seen = async {
        eventually("the server is asked", || zone.queries.get() >= MAX_AT_ONCE).await;
        // The query of a ninth resolution would arrive before that of a resolver with a bound of
        // its own, which begins only now.
        let found = resolve(&host.resolver(), "/dns4/one.test/tcp/1").await;
        assert_eq!(found.unwrap(), ["/ip4/192.0.2.1/tcp/1"]);
    };
    block_on(or(async { drop(join_all(all).await) }, seen));
    assert_eq!(zone.queries.get(), MAX_AT_ONCE + 1);
}
