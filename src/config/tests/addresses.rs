//! Addresses to listen on, to announce, and of natives.

use super::*;

#[test]
fn native_is_split_into_address_and_peer() {
    for addr in [
        "/ip4/192.0.2.1/tcp/4820",
        "/ip6/2001:db8::1/tcp/4820",
        "/dns/native.example/tcp/1",
        "/dns4/native.example/tcp/1",
        "/dns6/native.example/tcp/65535",
        "/dnsaddr/native.example",
    ] {
        let native = native(&format!("{addr}/p2p/{ID}")).unwrap();
        assert_eq!(native.addr, addr.parse().unwrap());
        assert_eq!(native.peer, Some(ID.parse().unwrap()));
    }
    assert_eq!(native("/dnsaddr/native.example").unwrap().peer, None);
}

#[test]
fn native_that_cannot_be_dialled_or_verified_is_refused() {
    let long = "a".repeat(60);
    for (value, problem) in [
        (String::new(), "only /ip4"),
        ("native.example:4820".into(), "it is not a multiaddress"),
        ("/ip4/300.0.0.1/tcp/1".into(), "it is not a multiaddress"),
        ("/ip4/192.0.2.1/tcp/4820".into(), "it must end in /p2p/ID"),
        ("/dns/a.example/tcp/1".into(), "it must end in /p2p/ID"),
        (format!("/ip4/192.0.2.1/tcp/4820/p2p/{RSA}"), "Ed25519"),
        (format!("/dnsaddr/a.example/p2p/{RSA}"), "Ed25519"),
        (format!("/ip4/192.0.2.1/tcp/0/p2p/{ID}"), "port 0"),
        (format!("/ip4/0.0.0.0/tcp/1/p2p/{ID}"), "cannot be dialled"),
        (format!("/ip6/ff02::1/tcp/1/p2p/{ID}"), "cannot be dialled"),
        (format!("/ip6/fe80::1/tcp/1/p2p/{ID}"), "cannot be dialled"),
        (format!("/ip4/192.0.2.1/udp/1/p2p/{ID}"), "only /ip4"),
        (format!("/ip4/192.0.2.1/p2p/{ID}"), "only /ip4"),
        (
            format!("/ip4/192.0.2.1/tcp/1/p2p/{ID}/p2p/{ID}"),
            "only /ip4",
        ),
        (format!("/ip4/192.0.2.1/tcp/1/ws/p2p/{ID}"), "only /ip4"),
        (format!("/p2p/{ID}"), "only /ip4"),
        (format!("/dns//tcp/1/p2p/{ID}"), "only /ip4"),
        ("/dnsaddr/".into(), "only /ip4"),
        (format!("/dns/{long}/tcp/1/p2p/{ID}"), "65 bytes"),
    ] {
        let error = native(&value).unwrap_err();
        assert!(error.starts_with("--native \""), "{error}");
        assert!(error.contains(problem), "{value}: {error}");
    }
    assert!(native(&format!("/dns/{}/tcp/1/p2p/{ID}", &long[1..])).is_ok());
}

#[test]
fn what_leads_here_is_announced() {
    let announce = |values: &[&str], only| {
        parse(Role::Indexer, |flags| {
            flags.announce = values.iter().map(|&value| value.into()).collect();
            flags.announce_only = only;
        })
    };
    let (name, ip) = ("/dns/gate.example.com/tcp/4821", "/ip6/2001:db8::1/tcp/1");
    let config = announce(&[name, ip, name], true).unwrap();
    assert_eq!(
        config.announce,
        [name, ip].map(|addr| addr.parse().unwrap())
    );
    assert!(config.announce_only);
    for good in [
        "/dns/xn--bro-hoa.example/tcp/1",
        "/dns4/GATE_1.example./tcp/1",
        "/dns/localhost/tcp/1",
        "/ip4/127.0.0.1/tcp/1",
    ] {
        assert!(announce(&[good], false).is_ok(), "{good}");
    }
    for (bad, why) in [
        ("gate.example.com", "not a multiaddress"),
        ("/dns/gate.example.com", "/tcp/PORT"),
        ("/dnsaddr/gate.example.com/tcp/1", "/tcp/PORT"),
        ("/ip4/192.0.2.1/udp/1/quic-v1", "/tcp/PORT"),
        ("/ip4/192.0.2.1/tcp/0", "port 0"),
        ("/ip4/0.0.0.0/tcp/1", "cannot be dialled"),
        ("/ip4/224.0.0.1/tcp/1", "cannot be dialled"),
        ("/ip6/fe80::1/tcp/1", "cannot be dialled"),
        (
            &format!("/ip4/192.0.2.1/tcp/1/p2p/{ID}"),
            "leave /p2p/ID out",
        ),
        (&format!("/dns/{}/tcp/1", "x".repeat(60)), "64 is the most"),
        ("/dns/192.0.2.1/tcp/1", "write it /ip4/192.0.2.1"),
        ("/dns4/192.0.2.1./tcp/1", "write it /ip4/192.0.2.1"),
        ("/dns6/2001:db8::1/tcp/1", "write it /ip6/2001:db8::1"),
        ("/dns/b\u{fc}ro.example/tcp/1", "begins with xn--"),
        ("/dns/a..b/tcp/1", "not a host name"),
        ("/dns/a b/tcp/1", "not a host name"),
        ("/dns/./tcp/1", "not a host name"),
        ("/dns/-a.b/tcp/1", "not a host name"),
    ] {
        let error = announce(&[bad], false).unwrap_err();
        assert!(error.starts_with("--announce \""), "{error}");
        assert!(error.contains(why), "{error}");
    }
    assert!(
        announce(&[], true)
            .unwrap_err()
            .starts_with("--announce-only: ")
    );
    assert!(announce(&[ip; 9], false).unwrap_err().contains("8 is"));
}

#[test]
fn one_port_of_one_address_is_listened_on_once() {
    let listen = |values: [&str; 3]| {
        parse(Role::Node, |flags| {
            flags.listen = values.map(Into::into).into();
        })
    };
    let other = "/ip6/::/tcp/4820";
    for (first, second, works) in [
        ("/ip4/0.0.0.0/tcp/4820", "/ip4/127.0.0.1/tcp/4820", false),
        ("/ip4/127.0.0.1/tcp/4820", "/ip4/0.0.0.0/tcp/4820", false),
        ("/ip4/127.0.0.1/tcp/4820", "/ip4/127.0.0.1/tcp/4820", false),
        ("/ip4/127.0.0.1/tcp/4821", "/ip6/::1/tcp/4820", false),
        ("/ip4/127.0.0.1/tcp/4820", "/ip4/127.0.0.2/tcp/4820", true),
        ("/ip4/0.0.0.0/tcp/4820", "/ip4/127.0.0.1/tcp/4821", true),
        ("/ip4/0.0.0.0/tcp/0", "/ip4/127.0.0.1/tcp/0", true),
        ("/ip4/0.0.0.0/tcp/4820", "/ip6/::1/tcp/4821", true),
    ] {
        let parsed = listen([other, first, second]);
        assert_eq!(parsed.is_ok(), works, "{first} {second}");
        if let Err(error) = parsed {
            assert!(
                error.starts_with(&format!("--listen {second:?}: ")),
                "{error}"
            );
            assert!(error.contains("leave one of the two out"), "{error}");
        }
    }
}

#[test]
fn only_tcp_on_an_ip_address_is_listened_on() {
    let listen = |value: &str| parse(Role::Node, |flags| flags.listen.push(value.into()));
    assert!(listen("/ip4/127.0.0.1/tcp/0").is_ok());
    assert!(listen("/ip6/::/tcp/4820").is_ok());
    for bad in [
        "/ip4/224.0.0.1/tcp/4820",
        "/ip6/ff02::1/tcp/4820",
        "/ip6/fe80::1/tcp/4820",
        "/dns/a.example/tcp/1",
        "/ip4/127.0.0.1/udp/1",
        "/ip4/127.0.0.1",
        "/ip4/127.0.0.1/tcp/65536",
        "127.0.0.1:1",
        "",
        &format!("/ip4/127.0.0.1/tcp/1/p2p/{ID}"),
    ] {
        let error = listen(bad).unwrap_err();
        assert!(error.starts_with("--listen \""), "{error}");
    }
}
