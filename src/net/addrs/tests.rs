use proptest::prelude::*;

use super::*;

fn listening(addrs: &[&str]) -> Addresses {
    on(Host::fixed(&[]), addrs)
}

fn on(host: Host, addrs: &[&str]) -> Addresses {
    let mut known = Addresses::new(host, Announce::default());
    for addr in addrs {
        known.listening(&addr.parse().unwrap());
    }
    known
}

/// A host with two networks, ten bridges that came first, and a tunnel; it listens everywhere.
fn gateway() -> Addresses {
    let bridges: Vec<_> = (17..27)
        .map(|n| (format!("172.{n}.0.1"), "bridge"))
        .collect();
    let mut links: Vec<_> = bridges
        .iter()
        .map(|(ip, kind)| (ip.as_str(), *kind))
        .collect();
    links.extend([
        ("127.0.0.1", ""),
        ("10.8.0.1", "wireguard"),
        ("192.168.5.1", ""),
        ("192.168.77.1", ""),
        ("203.0.113.7", ""),
        ("2001:db8:7::1", ""),
        ("2001:db8:9::1", "wireguard"),
    ]);
    let addrs: Vec<_> = links
        .iter()
        .map(|(ip, _)| multiaddr(SocketAddr::new(ip.parse().unwrap(), 4821)).to_string())
        .collect();
    let addrs: Vec<_> = addrs.iter().map(String::as_str).collect();
    on(Host::with_links(&links), &addrs)
}

fn ips(addrs: Vec<Multiaddr>) -> Vec<String> {
    let ips = addrs.iter().map(|addr| socket_addr(addr).unwrap().ip());
    ips.map(|ip| ip.to_string()).collect()
}

fn observe(known: &mut Addresses, ip: &str, witness: PeerId) {
    known.observed(
        &format!("/ip4/{ip}/tcp/50000").parse().unwrap(),
        witness,
        false,
    );
}

fn texts(addrs: Vec<Multiaddr>) -> Vec<String> {
    addrs.iter().map(Multiaddr::to_string).collect()
}

#[test]
fn global_before_private_before_loopback_and_cut_at_max() {
    let known = listening(&[
        "/ip4/127.0.0.1/tcp/4820",
        "/ip4/192.168.1.2/tcp/4820",
        "/ip6/fd00::2/tcp/4820",
        "/ip4/100.64.0.1/tcp/4820",
        "/ip4/203.0.113.7/tcp/4820",
        "/ip6/2001:db8::7/tcp/4820",
    ]);
    let all = [
        "/ip4/203.0.113.7/tcp/4820",
        "/ip6/2001:db8::7/tcp/4820",
        "/ip4/192.168.1.2/tcp/4820",
        "/ip6/fd00::2/tcp/4820",
        "/ip4/100.64.0.1/tcp/4820",
        "/ip4/127.0.0.1/tcp/4820",
    ];
    assert_eq!(texts(known.for_this_host(9)), all);
    assert_eq!(texts(known.for_other_hosts(9)), all[..5]);
    assert_eq!(texts(known.for_other_hosts(2)), all[..2]);
}

#[test]
fn addresses_are_ordered_by_evidence() {
    let other = PeerId::random();
    let used = |known: &mut Addresses, ip: &str| known.used(other, Some(ip.parse().unwrap()));
    // Without evidence: global, private, those of virtual interfaces, loopback.
    let by_kind = [
        "203.0.113.7",
        "2001:db8:7::1",
        "192.168.5.1",
        "192.168.77.1",
        "2001:db8:9::1",
        "172.17.0.1",
    ];
    let table: [(&[&str], &[&str], &[&str]); 5] = [
        (&[], &[], &by_kind),
        (&["192.168.77.1"], &[], &["192.168.77.1", "203.0.113.7"]),
        // A bridge that own connections use comes before the other bridges.
        (&["172.19.0.1"], &[], &["172.19.0.1", "203.0.113.7"]),
        (&[], &["198.51.100.4"], &["198.51.100.4", "203.0.113.7"]),
        (
            &["192.168.77.1"],
            &["198.51.100.4"],
            &["198.51.100.4", "192.168.77.1", "203.0.113.7"],
        ),
    ];
    for (ends, seen, expected) in table {
        let mut known = gateway();
        ends.iter().for_each(|ip| used(&mut known, ip));
        for ip in seen {
            observe(&mut known, ip, PeerId::random());
            observe(&mut known, ip, PeerId::random());
        }
        let all = ips(known.for_this_host(99));
        assert_eq!(all[..expected.len()], *expected, "{ends:?} {seen:?}");
        assert_eq!(all.last().unwrap(), "127.0.0.1");
    }
}

#[test]
fn what_the_operator_announces_is_first_and_alone_if_so_said() {
    let first: Vec<Multiaddr> = ["/dns/gate.example/tcp/4821", "/ip4/203.0.113.7/tcp/4821"]
        .map(|addr| addr.parse().unwrap())
        .into();
    let mut known = gateway();
    known.announce.first = first.clone();
    let all = known.record(8);
    assert_eq!(all[..2], first);
    assert_eq!(all.iter().filter(|addr| **addr == first[1]).count(), 1);
    assert_eq!(all.len(), 8);
    known.announce.only = true;
    assert_eq!(known.record(8), first);
}

#[test]
fn an_address_that_ipv6_gives_up_speaks_for_the_one_that_stays() {
    let host = Host::with_links(&[("2001:db8:1::2", ""), ("2001:db8:7::1", "passing")]);
    let mut known = on(
        host,
        &[
            "/ip6/2001:db8:1::2/tcp/1",
            "/ip6/2001:db8:7::1/tcp/1",
            "/ip6/2001:db8:7::2/tcp/1",
        ],
    );
    known.used(PeerId::random(), Some("2001:db8:7::1".parse().unwrap()));
    let order = ["2001:db8:7::2", "2001:db8:7::1", "2001:db8:1::2"];
    assert_eq!(ips(known.for_other_hosts(9)), order);
}

#[test]
fn a_server_has_one_word_and_it_goes_with_the_address() {
    let mut known = gateway();
    let server = PeerId::random();
    for ip in ["192.168.77.1", "192.168.5.1"] {
        known.used(server, Some(ip.parse().unwrap()));
    }
    let first = |known: &Addresses| ips(known.for_other_hosts(2));
    assert_eq!(first(&known), ["192.168.5.1", "203.0.113.7"]);
    known.expired(&"/ip4/192.168.5.1/tcp/4821".parse().unwrap());
    assert_eq!(first(&known), ["203.0.113.7", "2001:db8:7::1"]);
}

#[test]
fn a_bridge_that_goes_takes_no_observation_along_if_connections_use_another() {
    let mut known = gateway();
    known.used(PeerId::random(), Some([192, 168, 77, 1].into()));
    for _ in 0..2 {
        observe(&mut known, "198.51.100.4", PeerId::random());
    }
    known.expired(&"/ip4/172.17.0.1/tcp/4821".parse().unwrap());
    assert_eq!(ips(known.for_other_hosts(1)), ["198.51.100.4"]);
}

#[test]
fn of_an_unknown_host_only_what_connections_use_and_peers_observe_is_announced() {
    let mut known = on(Host::unknown(), &["/ip4/127.0.0.1/tcp/4821"]);
    known.used(PeerId::random(), Some([192, 168, 77, 1].into()));
    assert!(
        known.for_other_hosts(9).is_empty(),
        "it listens on loopback"
    );
    known.asked(&"/ip4/0.0.0.0/tcp/4821".parse().unwrap());
    for _ in 0..2 {
        observe(&mut known, "203.0.113.7", PeerId::random());
    }
    let both = ["/ip4/203.0.113.7/tcp/4821", "/ip4/192.168.77.1/tcp/4821"];
    assert_eq!(texts(known.for_other_hosts(9)), both);
}

#[test]
fn loopback_alone_is_not_for_a_server_on_another_host() {
    let mut known = listening(&["/ip6/::1/tcp/4820"]);
    known.used(PeerId::random(), None);
    assert_eq!(known.record(4).len(), 1);
    known.used(PeerId::random(), Some("2001:db8::7".parse().unwrap()));
    assert!(known.record(4).is_empty());
}

#[test]
fn an_own_address_that_is_not_listened_on_is_not_announced_because_peers_see_it() {
    let host = Host::fixed(&["10.0.0.2", "203.0.113.7"]);
    let mut known = on(host, &["/ip4/10.0.0.2/tcp/4820"]);
    for _ in 0..2 {
        observe(&mut known, "203.0.113.7", PeerId::random());
    }
    assert_eq!(ips(known.for_other_hosts(9)), ["10.0.0.2"]);
}

#[test]
fn useless_addresses_are_never_announced() {
    let known = listening(&[
        "/ip4/0.0.0.0/tcp/4820",
        "/ip6/::/tcp/4820",
        "/ip4/192.168.1.2/tcp/0",
        "/ip6/fe80::1/tcp/4820",
        "/ip4/224.0.0.1/tcp/4820",
        "/ip4/192.168.1.2/udp/4820/quic-v1",
        "/dns4/example.org/tcp/4820",
    ]);
    assert_eq!(texts(known.for_this_host(99)), Vec::<String>::new());
    assert_eq!(texts(known.record(99)), Vec::<String>::new());
}

#[test]
fn loopback_alone_is_for_loopback_and_for_the_record() {
    let known = listening(&["/ip4/127.0.0.1/tcp/4820"]);
    assert!(known.for_other_hosts(4).is_empty());
    assert_eq!(known.for_this_host(4).len(), 1);
    assert_eq!(known.record(4).len(), 1);

    let known = listening(&["/ip4/127.0.0.1/tcp/4820", "/ip4/10.0.0.2/tcp/4820"]);
    assert_eq!(texts(known.record(4)), ["/ip4/10.0.0.2/tcp/4820"]);
}

#[test]
fn observed_address_takes_two_witnesses_and_the_listening_port() {
    let mut known = listening(&["/ip4/10.0.0.2/tcp/4820"]);
    let (a, b) = (PeerId::random(), PeerId::random());
    observe(&mut known, "203.0.113.7", a);
    observe(&mut known, "203.0.113.7", a);
    assert_eq!(known.for_other_hosts(9).len(), 1);
    observe(&mut known, "203.0.113.7", b);
    assert_eq!(
        texts(known.for_other_hosts(9)),
        ["/ip4/203.0.113.7/tcp/4820", "/ip4/10.0.0.2/tcp/4820"]
    );
}

#[test]
fn one_witness_suffices_if_told_so_until_it_says_otherwise() {
    let mut known = listening(&["/ip4/10.0.0.2/tcp/4820"]);
    let (native, other) = (PeerId::random(), PeerId::random());
    for ip in ["203.0.113.7", "203.0.113.8"] {
        let addr = format!("/ip4/{ip}/tcp/50000").parse().unwrap();
        known.observed(&addr, native, true);
        assert_eq!(
            texts(known.for_other_hosts(1)),
            [format!("/ip4/{ip}/tcp/4820")]
        );
    }
    observe(&mut known, "203.0.113.8", other);
    observe(&mut known, "203.0.113.9", other);
    assert_eq!(texts(known.for_other_hosts(9)).len(), 2);
}

#[test]
fn witness_that_changes_its_word_takes_the_old_one_back() {
    let mut known = listening(&["/ip4/10.0.0.2/tcp/4820"]);
    let (a, b) = (PeerId::random(), PeerId::random());
    observe(&mut known, "203.0.113.7", a);
    observe(&mut known, "203.0.113.7", b);
    observe(&mut known, "203.0.113.8", b);
    assert_eq!(texts(known.for_other_hosts(9)), ["/ip4/10.0.0.2/tcp/4820"]);
}

#[test]
fn observed_address_without_a_listening_port_of_its_family_is_useless() {
    let mut known = listening(&["/ip6/2001:db8::7/tcp/4820", "/ip4/127.0.0.1/tcp/4820"]);
    for _ in 0..2 {
        observe(&mut known, "203.0.113.7", PeerId::random());
    }
    assert_eq!(
        texts(known.for_other_hosts(9)),
        ["/ip6/2001:db8::7/tcp/4820"]
    );
}

#[test]
fn expired_address_goes_and_takes_the_observations_of_its_family_along() {
    let mut known = listening(&["/ip4/10.0.0.2/tcp/4820", "/ip4/10.9.0.2/tcp/4820"]);
    for _ in 0..2 {
        observe(&mut known, "203.0.113.7", PeerId::random());
    }
    assert_eq!(known.for_other_hosts(9).len(), 3);
    known.expired(&"/ip4/10.9.0.2/tcp/4820".parse().unwrap());
    assert_eq!(texts(known.for_other_hosts(9)), ["/ip4/10.0.0.2/tcp/4820"]);
}

#[test]
fn observations_are_bounded_and_single_words_displace_no_confirmed_one() {
    let mut known = listening(&["/ip4/10.0.0.2/tcp/4820"]);
    for _ in 0..2 {
        observe(&mut known, "203.0.113.7", PeerId::random());
    }
    for last in 0..100 {
        observe(&mut known, &format!("198.51.100.{last}"), PeerId::random());
        assert!(known.observed.len() <= MAX_OBSERVED);
    }
    assert_eq!(
        texts(known.for_other_hosts(1)),
        ["/ip4/203.0.113.7/tcp/4820"]
    );
}

proptest! {
    #[test]
    fn every_announced_address_can_be_dialled(
        ips in prop::collection::vec((any::<std::net::IpAddr>(), any::<u16>()), 0..80),
    ) {
        let mut known = Addresses::new(Host::unknown(), Announce::default());
        for (ip, port) in ips {
            let addr = multiaddr(SocketAddr::new(ip, port));
            known.listening(&addr);
            known.observed(&addr, PeerId::random(), true);
            known.used(PeerId::random(), Some(ip));
            prop_assert!(known.used.len() <= MAX_USED);
        }
        for addr in known.for_other_hosts(16) {
            let socket = socket_addr(&addr).unwrap();
            prop_assert!(may_be_dialled(&socket) && !socket.ip().is_loopback());
            prop_assert!(addr.len() <= 64);
        }
    }
}

#[test]
fn without_netlink_loopback_is_the_best_only_where_nothing_else_is_listened_on() {
    let loopback = "/ip4/127.0.0.1/tcp/4820";
    let mut unknown = on(Host::unknown(), &[loopback]);
    assert_eq!(texts(unknown.best().into_iter().collect()), [loopback]);
    unknown.asked(&"/ip4/0.0.0.0/tcp/4820".parse().unwrap());
    assert_eq!(unknown.best(), None);
    unknown.accepted("192.168.77.9".parse().unwrap());
    assert_eq!(
        texts(unknown.best().into_iter().collect()),
        ["/ip4/192.168.77.9/tcp/4820"]
    );
    let mut known = on(Host::fixed(&["127.0.0.1"]), &[loopback]);
    known.asked(&"/ip4/0.0.0.0/tcp/4820".parse().unwrap());
    assert_eq!(texts(known.best().into_iter().collect()), [loopback]);
}

#[test]
fn own_ends_of_accepted_connections_count_without_netlink_alone_and_are_bounded() {
    let loopback = "/ip4/127.0.0.1/tcp/4820";
    let mut unknown = on(Host::unknown(), &[loopback]);
    let mut known = on(Host::fixed(&["127.0.0.1"]), &[loopback]);
    for own in [&mut unknown, &mut known] {
        own.asked(&"/ip4/0.0.0.0/tcp/4820".parse().unwrap());
        for n in 0..=MAX_ACCEPTED as u8 {
            own.accepted([192, 0, 2, n].into());
        }
        own.accepted([192, 0, 2, 1].into());
        own.accepted([127, 0, 0, 1].into());
        own.accepted("fe80::1".parse().unwrap());
    }
    assert!(known.accepted.is_empty());
    let kept = |n: u8| unknown.accepted.contains(&IpAddr::from([192, 0, 2, n]));
    assert_eq!(unknown.accepted.len(), MAX_ACCEPTED);
    assert!(kept(1) && !kept(0));
}
