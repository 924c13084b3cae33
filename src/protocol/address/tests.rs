use std::vec::Vec;

use super::*;

fn tcp(port: u16) -> Vec<u8> {
    [&[6][..], &port.to_be_bytes()].concat()
}

fn ip4(ip: [u8; 4], port: u16) -> Vec<u8> {
    [&[4][..], &ip, &tcp(port)].concat()
}

fn ip6(text: &str, port: u16) -> Vec<u8> {
    let ip: Ipv6Addr = text.parse().unwrap();
    [&[41][..], &ip.octets(), &tcp(port)].concat()
}

fn dns(code: u8, name: &str, port: u16) -> Vec<u8> {
    [&[code, name.len() as u8], name.as_bytes(), &tcp(port)].concat()
}

#[test]
fn host_and_port_of_an_address_are_read() {
    let end = TransportAddr::of(&ip4([192, 0, 2, 7], 4820));
    assert_eq!(end.host, Host::V4([192, 0, 2, 7].into()));
    assert_eq!(end.port, 4820);
    let end = TransportAddr::of(&ip6("2001:db8::1", 4821));
    assert_eq!(end.host, Host::V6("2001:db8::1".parse().unwrap()));
    assert_eq!(end.port, 4821);
}

fn subnet(ip: &str, prefix: u8) -> Subnet {
    let ip = ip.parse().unwrap();
    Subnet { ip, prefix }
}

#[test]
fn a_subnet_ends_at_its_last_bit() {
    let holds = |subnet: Subnet, ip: &str| subnet.contains(ip.parse().unwrap());
    assert!(holds(subnet("10.1.2.3", 23), "10.1.3.255"));
    assert!(!holds(subnet("10.1.2.3", 23), "10.1.4.0"));
    assert!(holds(subnet("10.1.2.3", 32), "10.1.2.3"));
    assert!(!holds(subnet("10.1.2.3", 32), "10.1.2.2"));
    assert!(holds(subnet("10.1.2.3", 0), "192.0.2.1"));
    assert!(!holds(subnet("10.1.2.3", 0), "::1"));
    assert!(holds(subnet("::1", 128), "::1") && !holds(subnet("::1", 128), "::2"));
    assert!(holds(subnet("::1", 0), "ffff::"));
}

#[test]
fn nearest_is_a_network_that_the_asker_is_in_too() {
    let own = [subnet("192.168.7.9", 24), subnet("10.0.0.9", 8)];
    let far = |ip: &str, asker: Option<&str>| {
        let asker = asker.map(|asker| asker.parse().unwrap());
        distance(ip.parse().unwrap(), &own, asker)
    };
    assert_eq!(far("192.168.7.2", None), 0);
    assert_eq!(far("192.168.8.2", None), 2);
    assert_eq!(far("192.168.7.2", Some("192.168.7.3")), 0);
    assert_eq!(far("192.168.7.2", Some("10.1.1.1")), 1);
    assert_eq!(far("10.2.2.2", Some("10.1.1.1")), 0);
    assert_eq!(far("203.0.113.1", Some("10.1.1.1")), 2);
    assert_eq!(far("192.168.7.2", Some("203.0.113.7")), 1);
}

#[test]
fn only_what_stands_first_counts() {
    let direct = ip4([192, 0, 2, 7], 4820);
    let relayed = [&direct[..], &[0xa5, 3, 2, 1, 2, 0xa2, 2]].concat();
    assert_eq!(TransportAddr::of(&direct), TransportAddr::of(&relayed));
}

#[test]
fn prefixes_are_24_bits_of_ipv4_and_48_of_ipv6() {
    let prefix = |addr: &[u8]| TransportAddr::of(addr).prefix();
    let v4 = prefix(&ip4([192, 0, 2, 0], 1));
    assert_eq!(v4, prefix(&ip4([192, 0, 2, 255], 2)));
    assert_ne!(v4, prefix(&ip4([192, 0, 3, 0], 1)));
    let v6 = prefix(&ip6("2001:db8:7::1", 1));
    assert_eq!(v6, prefix(&ip6("2001:db8:7:ffff::", 2)));
    assert_ne!(v6, prefix(&ip6("2001:db8:8::1", 1)));
    assert_ne!(v4, v6);
}

#[test]
fn a_mapped_ipv4_address_is_that_ipv4_address() {
    assert_eq!(
        TransportAddr::of(&ip6("::ffff:192.0.2.7", 9)),
        TransportAddr::of(&ip4([192, 0, 2, 7], 9))
    );
    let socket: SocketAddr = "[::ffff:192.0.2.7]:9".parse().unwrap();
    assert_eq!(
        TransportAddr::from(socket),
        TransportAddr::of(&ip4([192, 0, 2, 7], 9))
    );
}

#[test]
fn a_name_is_the_same_host_however_it_is_written() {
    let name = TransportAddr::of(&dns(53, "gate.example", 1));
    assert_eq!(name, TransportAddr::of(&dns(54, "GATE.example.", 1)));
    assert_ne!(name, TransportAddr::of(&dns(53, "gate.example", 2)));
    assert_ne!(
        name.host,
        TransportAddr::of(&dns(53, "gate2.example", 1)).host
    );
    assert_ne!(
        name.prefix(),
        TransportAddr::of(&dns(53, "gate2.example", 1)).prefix()
    );
}

#[test]
fn the_family_of_an_address_is_that_of_its_ip_or_of_its_kind_of_name() {
    let name = |code| dns(code, "gate.example", 1);
    let zoned = [&[42, 4][..], b"eth0", &ip6("fe80::1", 5)].concat();
    for (addr, families) in [
        (ip4([192, 0, 2, 7], 1), Families::V4),
        (ip6("2001:db8::1", 1), Families::V6),
        (ip6("::ffff:192.0.2.7", 1), Families::V4),
        (zoned, Families::V6),
        (name(53), Families::BOTH),
        (name(54), Families::V4),
        (name(55), Families::V6),
        (name(56), Families::BOTH),
        (std::vec![4, 1], Families::BOTH),
        (std::vec![], Families::BOTH),
    ] {
        assert_eq!(Families::of(&addr), families, "{addr:?}");
    }
}

#[test]
fn addresses_that_mean_something_on_their_own_host_alone_are_known() {
    let host = |text: &str| Host::from(text.parse::<IpAddr>().unwrap());
    for own in [
        "127.9.9.9",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "::",
        "ff02::1",
        "fe80::1",
        "::ffff:127.0.0.1",
    ] {
        assert!(host(own).is_of_its_own_host(), "{own}");
    }
    for other in [
        "192.168.1.1",
        "169.254.1.1",
        "100.64.0.1",
        "fd77::1",
        "2001:db8::1",
    ] {
        assert!(!host(other).is_of_its_own_host(), "{other}");
    }
    assert!(!Host::Name(1).is_of_its_own_host());
}

#[test]
fn a_zone_does_not_hide_the_address() {
    let plain = ip6("fe80::1", 5);
    let zoned = [&[42, 4][..], b"eth0", &plain].concat();
    assert_eq!(TransportAddr::of(&zoned), TransportAddr::of(&plain));
}

#[test]
fn what_cannot_be_read_is_a_host_of_its_own() {
    let whole = ip4([192, 0, 2, 7], 4820);
    let mut seen = std::collections::BTreeSet::new();
    for cut in 0..5 {
        seen.insert(TransportAddr::of(&whole[..cut]));
    }
    assert_eq!(seen.len(), 5);
    for bytes in [&[0x80; 64][..], &[53, 200, b'a'], &[0xff; 9], &[]] {
        assert!(matches!(TransportAddr::of(bytes).host, Host::Name(_)));
    }
    assert_eq!(TransportAddr::of(&whole[..5]).port, 0, "no port is named");
}

#[test]
fn what_no_host_has_and_port_0_cannot_be_dialled() {
    let udp = |ip: [u8; 4], port: u16| [&[4][..], &ip, &[0x91, 2], &port.to_be_bytes()].concat();
    for (addr, can) in [
        (ip4([0, 0, 0, 0], 1), false),
        (ip4([0, 255, 255, 255], 1), false),
        (ip4([1, 0, 0, 0], 1), true),
        (ip4([223, 255, 255, 255], 1), true),
        (ip4([224, 0, 0, 0], 1), false),
        (ip4([239, 255, 255, 255], 1), false),
        (ip4([240, 0, 0, 0], 1), true),
        (ip4([255, 255, 255, 254], 1), true),
        (ip4([255, 255, 255, 255], 1), false),
        (ip4([192, 0, 2, 1], 0), false),
        (ip4([127, 0, 0, 1], 1), true),
        (ip6("::", 1), false),
        (ip6("::1", 1), true),
        (ip6("fe80::1", 1), true),
        (ip6("feff::1", 1), true),
        (ip6("ff00::", 1), false),
        (ip6("2001:db8::1", 0), false),
        (ip6("::ffff:224.0.0.1", 1), false),
        (ip6("::ffff:0.0.0.0", 1), false),
        (dns(53, "gate.example", 1), true),
        (dns(53, "gate.example", 0), false),
        (udp([192, 0, 2, 1], 0), false),
        (udp([192, 0, 2, 1], 1), true),
        // Without a port, as a relay may be named.
        (ip4([192, 0, 2, 1], 1)[..5].to_vec(), true),
        (std::vec![4, 0, 0], true),
        (std::vec![], true),
    ] {
        assert_eq!(can_be_dialled(&addr), can, "{addr:?}");
    }
}
