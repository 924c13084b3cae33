//! Tests against a name server on loopback, which answers from a zone written in the test.

mod server;
mod servers;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

use domain::base::iana::Rcode;
use libp2p::core::Endpoint;
use libp2p::core::transport::{DialOpts, PortUse, Transport as _};

use super::transport::DnsError;
use super::*;
use crate::net::executor::waits::block_on;
use crate::net::tcp::TcpTransport;
use server::{Host, Zone};

const A_PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
const OTHER_PEER: &str = "12D3KooWRBhwfeP2Y4TCx1SM6s9rUoHhR5STiGwxBhgFRcw3UERE";

async fn resolve(resolver: &Resolver, addr: &str) -> Result<Vec<String>, ResolveError> {
    let addrs = resolver.resolve(&addr.parse().unwrap()).await?;
    Ok(addrs.iter().map(Multiaddr::to_string).collect())
}

fn resolved(zone: Zone, addr: &str) -> Result<Vec<String>, ResolveError> {
    let (host, _) = Host::serving(zone);
    block_on(resolve(&host.resolver(), addr))
}

#[test]
fn names_give_the_addresses_of_the_family_asked_for() {
    let zone = || {
        let zone = Zone::default().ip("both.test", "192.0.2.1");
        zone.ip("both.test", "2001:db8::1")
    };
    let four = "/ip4/192.0.2.1/tcp/4820".to_owned();
    let six = "/ip6/2001:db8::1/tcp/4820".to_owned();
    for (kind, expected) in [
        ("dns", vec![four.clone(), six.clone()]),
        ("dns4", vec![four]),
        ("dns6", vec![six]),
    ] {
        let addr = format!("/{kind}/both.test/tcp/4820");
        assert_eq!(resolved(zone(), &addr).unwrap(), expected);
        let addr = format!("{addr}/p2p/{A_PEER}");
        let with_id: Vec<_> = expected
            .iter()
            .map(|a| format!("{a}/p2p/{A_PEER}"))
            .collect();
        assert_eq!(resolved(zone(), &addr).unwrap(), with_id);
    }
}

#[test]
fn dnsaddr_gives_its_usable_values_in_order_and_names_among_them_are_resolved() {
    let zone = Zone::default()
        .txt(
            "boot.test",
            &format!("dnsaddr=/dns4/one.test/tcp/1/p2p/{A_PEER}"),
        )
        .txt(
            "boot.test",
            &format!("dnsaddr=/ip4/192.0.2.9/udp/1/quic-v1/p2p/{A_PEER}"),
        )
        .txt("boot.test", "dnsaddr=/no/multiaddr")
        .txt("boot.test", "v=spf1 -all")
        .txt(
            "boot.test",
            &format!("dnsaddr=/dnsaddr/more.test/p2p/{OTHER_PEER}"),
        )
        .txt(
            "boot.test",
            &format!("dnsaddr=/ip4/192.0.2.3/tcp/3/p2p/{A_PEER}"),
        )
        .txt(
            "more.test",
            &format!("dnsaddr=/ip4/192.0.2.2/tcp/2/p2p/{OTHER_PEER}"),
        )
        .ip("one.test", "192.0.2.1");
    assert_eq!(
        resolved(zone, "/dnsaddr/boot.test").unwrap(),
        [
            format!("/ip4/192.0.2.1/tcp/1/p2p/{A_PEER}"),
            format!("/ip4/192.0.2.2/tcp/2/p2p/{OTHER_PEER}"),
            format!("/ip4/192.0.2.3/tcp/3/p2p/{A_PEER}"),
        ]
    );
}

#[test]
fn dnsaddr_with_an_id_takes_the_values_of_that_id_only() {
    let zone = || {
        Zone::default()
            .txt(
                "boot.test",
                &format!("dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/{OTHER_PEER}"),
            )
            .txt("boot.test", "dnsaddr=/ip4/192.0.2.2/tcp/2")
            .txt(
                "boot.test",
                &format!("dnsaddr=/ip4/192.0.2.3/tcp/3/p2p/{A_PEER}"),
            )
    };
    let found = resolved(zone(), &format!("/dnsaddr/boot.test/p2p/{A_PEER}")).unwrap();
    assert_eq!(found, [format!("/ip4/192.0.2.3/tcp/3/p2p/{A_PEER}")]);
    assert_eq!(resolved(zone(), "/dnsaddr/boot.test").unwrap().len(), 3);
}

fn chain(length: usize) -> Zone {
    let last = Zone::default().txt(&format!("d{length}.test"), "dnsaddr=/ip4/192.0.2.1/tcp/1");
    (1..length).fold(last, |zone, at| {
        zone.txt(
            &format!("d{at}.test"),
            &format!("dnsaddr=/dnsaddr/d{}.test", at + 1),
        )
    })
}

#[test]
fn dnsaddr_records_lead_on_four_times_and_no_further() {
    assert_eq!(
        resolved(chain(4), "/dnsaddr/d1.test").unwrap(),
        ["/ip4/192.0.2.1/tcp/1"]
    );
    let error = resolved(chain(5), "/dnsaddr/d1.test").unwrap_err();
    assert!(matches!(error.problem, Problem::TooDeep) && error.name == "d5.test");

    let circle = Zone::default().txt("me.test", "dnsaddr=/dnsaddr/me.test");
    let error = resolved(circle, "/dnsaddr/me.test").unwrap_err();
    assert!(matches!(error.problem, Problem::TooDeep));
}

#[test]
fn addresses_are_bounded() {
    let zone = (0..40).fold(Zone::default(), |zone, n| {
        zone.txt("many.test", &format!("dnsaddr=/ip4/192.0.2.{n}/tcp/1"))
            .ip("ips.test", &format!("192.0.2.{n}"))
    });
    // Eleven records, the last of which leads to forty more.
    let zone = (0..10).fold(zone, |zone, n| {
        zone.txt("some.test", &format!("dnsaddr=/ip4/192.0.2.{n}/tcp/2"))
    });
    let zone = zone.txt("some.test", "dnsaddr=/dnsaddr/many.test");
    let (host, _) = Host::serving(zone);
    let resolver = host.resolver();
    for addr in [
        "/dnsaddr/many.test",
        "/dns4/ips.test/tcp/1",
        "/dnsaddr/some.test",
    ] {
        let found = block_on(resolve(&resolver, addr)).unwrap();
        assert_eq!(found.len(), 16, "{addr}");
    }
}

#[test]
fn lookups_are_bounded() {
    // Sixteen names that lead to sixteen names each, and none to an address.
    let zone = (0..16).fold(Zone::default(), |zone, n| {
        let zone = zone.txt("maze.test", &format!("dnsaddr=/dnsaddr/m{n}.test"));
        (0..16).fold(zone, |zone, m| {
            zone.txt(
                &format!("m{n}.test"),
                &format!("dnsaddr=/dnsaddr/m{n}-{m}.test"),
            )
        })
    });
    let (host, zone) = Host::serving(zone);
    let error = block_on(resolve(&host.resolver(), "/dnsaddr/maze.test")).unwrap_err();
    assert!(matches!(error.problem, Problem::NoName(_)), "{error:?}");
    // Each long answer is asked for over UDP, then over TCP.
    assert_eq!(zone.queries.get() - zone.tcp_queries.get(), 32);
}

#[test]
fn what_is_missing_is_told_apart() {
    let failing = Zone {
        code: Some(Rcode::SERVFAIL),
        ..Zone::default()
    };
    let six = Zone::default().ip("six.test", "2001:db8::1");
    let [(failing, _), (six, _)] = [failing, six].map(Host::serving);
    let bad = "a".repeat(64);
    for (host, addr, expected) in [
        (
            &six,
            "/dns/none.test/tcp/1",
            "none.test: the name none.test does not exist".to_owned(),
        ),
        (
            &six,
            "/dnsaddr/none.test",
            "none.test: the name _dnsaddr.none.test does not exist".to_owned(),
        ),
        (
            &six,
            "/dns4/six.test/tcp/1",
            "six.test: it has no address that can be used".to_owned(),
        ),
        (
            &failing,
            "/dns/six.test/tcp/1",
            format!(
                "six.test: name server 127.0.0.1:{}: it answers SERVFAIL",
                failing.port
            ),
        ),
        (
            &six,
            &format!("/dns4/{bad}/tcp/1"),
            format!("{bad}: a name is ASCII, at most 63 bytes between two dots and 253 in all"),
        ),
    ] {
        let error = block_on(resolve(&host.resolver(), addr)).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot resolve {expected}"));
    }
}

#[test]
fn aliases_are_followed() {
    let zone = Zone::default()
        .cname("www.test", "Web.test")
        .cname("web.test", "host.test")
        .ip("host.test", "192.0.2.1")
        .cname("_dnsaddr.alias.test", "_dnsaddr.boot.test")
        .txt("boot.test", "dnsaddr=/ip4/192.0.2.2/tcp/2");
    let (host, _) = Host::serving(zone);
    let resolver = host.resolver();
    for (addr, found) in [
        ("/dns/www.test/tcp/1", "/ip4/192.0.2.1/tcp/1"),
        ("/dnsaddr/alias.test", "/ip4/192.0.2.2/tcp/2"),
    ] {
        assert_eq!(block_on(resolve(&resolver, addr)).unwrap(), [found]);
    }
}

#[test]
fn search_domains_complete_short_names() {
    let zone = Zone::default().ip("native.lan.test", "192.0.2.1");
    let (host, _) = Host::serving(zone.ip("a.native", "192.0.2.2"));
    let resolver = host.resolver();
    host.resolv_conf("nameserver 127.0.0.1\nsearch none.test lan.test\n");
    for (name, ip) in [("native", 1), ("a.native", 2), ("a.native.", 2)] {
        let found = block_on(resolve(&resolver, &format!("/dns4/{name}/tcp/1")));
        assert_eq!(found.unwrap(), [format!("/ip4/192.0.2.{ip}/tcp/1")]);
    }
    let error = block_on(resolve(&resolver, "/dns4/native./tcp/1")).unwrap_err();
    assert!(matches!(error.problem, Problem::NoName(name) if name == "native"));
}

#[test]
fn silent_server_costs_no_more_than_the_limit() {
    let zone = Zone {
        silent: vec!["deaf.test"],
        ..Zone::default()
    };
    let (host, zone) = Host::serving(zone);
    let resolver = host.resolver_within(Duration::from_millis(50));
    let before = Instant::now();
    let error = block_on(resolve(&resolver, "/dns4/deaf.test/tcp/1")).unwrap_err();
    assert!(matches!(error.problem, Problem::Timeout), "{error:?}");
    assert!(before.elapsed() < Duration::from_secs(2));
    assert!(zone.queries.get() > 0);
}

#[test]
fn what_was_found_before_the_limit_is_given() {
    let zone = Zone {
        silent: vec!["deaf.test"],
        ..Zone::default()
    };
    let zone = zone
        .txt("boot.test", "dnsaddr=/ip4/192.0.2.1/tcp/1")
        .txt("boot.test", "dnsaddr=/dns4/deaf.test/tcp/2");
    let (host, _) = Host::serving(zone);
    let resolver = host.resolver_within(Duration::from_millis(300));
    let found = block_on(resolve(&resolver, "/dnsaddr/boot.test")).unwrap();
    assert_eq!(found, ["/ip4/192.0.2.1/tcp/1"]);
}

#[test]
fn localhost_needs_neither_file_nor_server() {
    let host = Host::new(1, "");
    let resolver = host.resolver();
    for (addr, expected) in [
        ("/dns4/localhost/tcp/1", &["/ip4/127.0.0.1/tcp/1"][..]),
        ("/dns6/a.LocalHost./tcp/1", &["/ip6/::1/tcp/1"]),
        (
            "/dns/localhost/tcp/1",
            &["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"],
        ),
    ] {
        assert_eq!(block_on(resolve(&resolver, addr)).unwrap(), expected);
    }
    host.hosts("127.0.0.9 LOCALHOST\n");
    for (kind, ip) in [("dns", "ip4/127.0.0.9"), ("dns6", "ip6/::1")] {
        let found = block_on(resolve(&resolver, &format!("/{kind}/localhost/tcp/1")));
        assert_eq!(found.unwrap(), [format!("/{ip}/tcp/1")]);
    }
}

#[test]
fn without_servers_only_the_hosts_file_is_known_until_a_lease_comes() {
    let (serving, _) = Host::serving(Zone::default().ip("one.test", "192.0.2.1"));
    let host = Host::new(serving.port, "# no lease yet\n");
    host.hosts("192.0.2.7 gateway # the router\n2001:db8::7 gateway\n");
    let resolver = host.resolver();
    block_on(async {
        assert_eq!(
            resolve(&resolver, "/dns4/gateway/tcp/1").await.unwrap(),
            ["/ip4/192.0.2.7/tcp/1"]
        );
        let error = resolve(&resolver, "/dns4/one.test/tcp/1")
            .await
            .unwrap_err();
        let file = host.dir.join("resolv.conf");
        assert_eq!(
            error.to_string(),
            format!(
                "cannot resolve one.test: {} names no name server",
                file.display()
            )
        );

        host.resolv_conf("nameserver 127.0.0.1\n");
        let found = resolve(&resolver, "/dns4/one.test/tcp/1").await.unwrap();
        assert_eq!(found, ["/ip4/192.0.2.1/tcp/1"]);

        // Without the file, the server of this host is asked.
        fs::remove_file(&file).unwrap();
        let found = resolve(&resolver, "/dns4/one.test/tcp/1").await.unwrap();
        assert_eq!(found, ["/ip4/192.0.2.1/tcp/1"]);
    });
}

#[test]
fn addresses_that_are_no_names_pass_and_odd_ones_are_refused() {
    let host = Host::new(1, "");
    let resolver = host.resolver();
    block_on(async {
        let plain = "/ip4/192.0.2.1/tcp/1";
        assert_eq!(resolve(&resolver, plain).await.unwrap(), [plain]);
        for odd in [
            "/dns4/one.test",
            "/dns4/one.test/udp/1",
            "/dnsaddr/one.test/tcp/1",
        ] {
            let error = resolve(&resolver, odd).await.unwrap_err();
            assert!(
                matches!(error.problem, Problem::Unsupported),
                "{odd}: {error:?}"
            );
        }
    });
}

#[test]
fn dial_to_a_name_tries_its_addresses_in_order() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead: SocketAddr = silent.local_addr().unwrap();
    drop(silent);
    let live = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = live.local_addr().unwrap();
    let zone = Zone::default()
        .txt(
            "boot.test",
            &format!("dnsaddr=/ip4/127.0.0.1/tcp/{}", dead.port()),
        )
        .txt(
            "boot.test",
            &format!("dnsaddr=/ip4/127.0.0.1/tcp/{}", addr.port()),
        )
        .txt(
            "dead.test",
            &format!("dnsaddr=/ip4/127.0.0.1/tcp/{}", dead.port()),
        );
    let (host, _) = Host::serving(zone);
    let mut transport = DnsTransport::new(TcpTransport::new().unwrap(), host.resolver());
    let opts = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    block_on(async {
        let dial = transport.dial("/dnsaddr/boot.test".parse().unwrap(), opts);
        dial.unwrap().await.unwrap();
        live.accept().unwrap();

        let dial = transport.dial("/dnsaddr/dead.test".parse().unwrap(), opts);
        let error = dial.unwrap().await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot connect to {dead}: ")),
            "{error}"
        );

        let dial = transport.dial("/dnsaddr/none.test".parse().unwrap(), opts);
        let error = dial.unwrap().await.unwrap_err();
        let DnsError::Resolve(error) = error else {
            panic!("{error:?}");
        };
        assert!(matches!(error.problem, Problem::NoName(_)), "{error:?}");
    });
}

#[test]
fn all_resolutions_of_a_thread_share_their_bound() {
    let [dials, natives] = [(); 2].map(|()| Resolver::of_this_thread());
    let taken = |_| dials.0.free.try_acquire();
    let taken: Vec<_> = (0..MAX_AT_ONCE).map_while(taken).collect();
    assert_eq!(taken.len(), MAX_AT_ONCE);
    assert!(natives.0.free.try_acquire().is_none());
    drop(taken);
    assert!(natives.0.free.try_acquire().is_some());
}
