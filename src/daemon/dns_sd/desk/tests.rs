//! Rows of a watch become offers, and packets what is said of them.

use std::{collections::BTreeMap, net::SocketAddr};

use super::*;
use crate::{
    daemon::status::{CaughtUp, Service},
    net::mdns::service::{Packet, read},
};

const ID: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
const OTHER: &str = "12D3KooWR1TEMhjjjtec2R7Y3EirMTVG3oXm2PYutz5sT84ppfRY";

fn at(millis: u64) -> Instant {
    Instant::from_millis(100_000 + millis)
}

fn desk(services: &[&str]) -> Desk {
    let services = services.iter().map(|name| (*name).try_into().unwrap());
    Desk::new(
        at(0),
        &services.collect::<Vec<_>>(),
        &[],
        Links::on(&[("192.0.2.1", "")]),
    )
}

fn row(peer: &str, name: &str, services: &[(&str, u16)]) -> Part {
    let service = |&(name, port): &(&str, u16)| Service {
        name: name.into(),
        protocol: Protocol::Tcp,
        port,
        device: None,
        addresses: None,
    };
    Part::Change(Box::new(WatchRow {
        event: WatchEventName::Present,
        name: name.into(),
        peer_id: peer.into(),
        state: NodeState::Alive,
        last_beat_ms: 0,
        addresses: vec![
            "/ip4/192.0.2.7/tcp/4820".into(),
            "/dns/a.example/tcp/1".into(),
        ],
        services: services.iter().map(service).collect(),
        tags: BTreeMap::from([("site".into(), "roof".into())]),
        version: String::new(),
    }))
}

fn gone(peer: &str) -> Part {
    match row(peer, "", &[]) {
        Part::Change(mut row) => {
            (row.event, row.state) = (WatchEventName::Lost, NodeState::Lost);
            Part::Change(row)
        }
        other => other,
    }
}

fn caught_up() -> Part {
    Part::CaughtUp(Box::new(CaughtUp::whole()))
}

/// The labels and ports that are announced, in order.
fn advertised(desk: &Desk) -> Vec<(String, u16)> {
    let advertised = desk.advertised.iter().flatten();
    let advertised =
        advertised.map(|advertised| (advertised.instance.label.clone(), advertised.instance.port));
    let mut advertised: Vec<_> = advertised.collect();
    advertised.sort();
    advertised
}

/// Sends all that is due, so that all adverts are announced.
fn settle(desk: &mut Desk) -> Instant {
    let mut now = at(0);
    while let Some(due) = desk.speak(now) {
        now = due;
    }
    now
}

/// A packet that announces this instance, with another port if there is one.
fn packet(instance: &Instance, port: Option<u16>, is_goodbye: bool) -> Packet {
    let mut other = instance.clone();
    other.port = port.unwrap_or(other.port);
    let records = match is_goodbye {
        false => other.records(&[]),
        true => other.goodbye(
            &[],
            Gone {
                kind: true,
                host: true,
            },
        ),
    };
    read(answers(&[records])[0].as_ref()).unwrap()
}

fn at_another_host(instance: &Instance) -> Instance {
    Instance {
        host: "another".into(),
        ..instance.clone()
    }
}

fn from(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 9], port))
}

#[test]
fn only_services_that_are_asked_for_are_told_with_the_addresses_of_their_node() {
    let mut desk = desk(&["http", "ssh"]);
    let services = [("http", 80), ("ipp", 631), ("ssh", 22)];
    desk.take(at(0), row(ID, "pump", &services));
    assert_eq!(
        advertised(&desk),
        [("pump".into(), 22), ("pump".into(), 80)]
    );
    let first = desk.advertised[0].as_ref().unwrap();
    assert_eq!(first.addrs, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    assert_eq!(first.instance.host, "pump-vnc6idep");
    assert_eq!(first.instance.text, b"\x09oc=bridge\x09site=roof");
}

#[test]
fn one_service_is_watched_by_its_name_and_several_among_all() {
    assert_eq!(desk(&["http"]).watch().service.as_deref(), Some("http"));
    assert_eq!(desk(&["http", "ssh"]).watch().service, None);
}

#[test]
fn two_nodes_of_one_name_have_two_names_on_the_link_and_two_hosts() {
    let mut desk = desk(&["http"]);
    desk.take(at(0), row(ID, "pump", &[("http", 80)]));
    desk.take(at(0), row(OTHER, "pump", &[("http", 81)]));
    assert_eq!(
        advertised(&desk),
        [("pump".into(), 80), ("pump (2)".into(), 81)]
    );
    let mut hosts = desk
        .advertised
        .iter()
        .flatten()
        .map(|advertised| &advertised.instance.host);
    assert_ne!(hosts.next(), hosts.next());
    // The name stays the same when its node says the same again, or another port.
    desk.take(at(0), row(OTHER, "pump", &[("http", 82)]));
    assert_eq!(
        advertised(&desk),
        [("pump".into(), 80), ("pump (2)".into(), 82)]
    );
}

#[test]
fn change_is_announced_and_the_same_again_is_not() {
    let mut desk = desk(&["http"]);
    desk.take(at(0), row(ID, "pump", &[("http", 80)]));
    let now = settle(&mut desk);
    desk.take(now, row(ID, "pump", &[("http", 80)]));
    assert_eq!(desk.speak(now), None);
    desk.take(now, row(ID, "pump", &[("http", 81)]));
    assert!(desk.speak(now).is_some());
    assert_eq!(advertised(&desk), [("pump".into(), 81)]);
}

#[test]
fn node_that_is_gone_or_offers_it_no_longer_is_withdrawn() {
    let mut desk = desk(&["http"]);
    desk.take(at(0), row(ID, "pump", &[("http", 80)]));
    desk.take(at(0), row(OTHER, "fan", &[("http", 80)]));
    desk.take(at(0), row(OTHER, "fan", &[]));
    assert_eq!(advertised(&desk), [("pump".into(), 80)]);
    desk.take(at(0), gone(ID));
    assert!(advertised(&desk).is_empty());
}

#[test]
fn node_that_a_new_watch_does_not_name_is_withdrawn_when_all_have_caught_up() {
    let mut desk = desk(&["http"]);
    desk.take(at(0), row(ID, "pump", &[("http", 80)]));
    desk.take(at(0), row(OTHER, "fan", &[("http", 80)]));
    desk.take(at(0), caught_up());
    assert_eq!(advertised(&desk).len(), 2);
    desk.watch();
    desk.take(at(0), row(ID, "pump", &[("http", 80)]));
    assert_eq!(advertised(&desk).len(), 2);
    desk.take(at(0), caught_up());
    assert_eq!(advertised(&desk), [("pump".into(), 80)]);
}

#[test]
fn name_that_another_has_on_the_link_is_left_to_it_also_later() {
    let mut desk = desk(&["http"]);
    desk.take(at(0), row(ID, "pump", &[("http", 80)]));
    let first = desk.advertised[0].as_ref().unwrap().instance.clone();
    // Its own words come back, and another bridge says the same.
    desk.hear(at(0), &packet(&first, None, false), from(5353), 1);
    assert_eq!(advertised(&desk), [("pump".into(), 80)]);
    let other = packet(&at_another_host(&first), None, false);
    desk.hear(at(0), &other, from(5354), 1);
    assert_eq!(advertised(&desk)[0].0, "pump", "not from port 5353");
    desk.hear(at(0), &other, from(5353), 1);
    desk.hear(at(0), &other, from(5353), 1);
    assert_eq!(advertised(&desk)[0].0, "pump (2)");
    settle(&mut desk);
    let second = desk.advertised[0].as_ref().unwrap().instance.clone();
    let now = at(60_000);
    desk.hear(
        now,
        &packet(&at_another_host(&second), None, false),
        from(5353),
        1,
    );
    assert!(!desk.adverts.is_announced(0));
    assert_eq!(advertised(&desk)[0].0, "pump (2)", "it is probed for first");
    desk.hear(
        now,
        &packet(&at_another_host(&second), None, false),
        from(5353),
        1,
    );
    assert_eq!(advertised(&desk)[0].0, "pump (3)");
}

#[test]
fn goodbye_of_another_bridge_for_a_node_that_is_known_here_is_answered_by_an_announcement() {
    let mut desk = desk(&["http"]);
    desk.take(at(0), row(ID, "pump", &[("http", 80)]));
    settle(&mut desk);
    let instance = desk.advertised[0].as_ref().unwrap().instance.clone();
    let now = at(60_000);
    desk.hear(now, &packet(&instance, Some(9), true), from(5353), 1);
    assert_eq!(desk.speak(now), None, "another's service");
    desk.hear(now, &packet(&instance, None, true), from(5353), 1);
    assert!(desk.speak(now).is_some());
}

#[test]
fn probe_of_another_with_later_data_wins_and_its_own_does_not() {
    let mut desk = desk(&["http"]);
    desk.take(at(0), row(ID, "pump", &[("http", 80)]));
    let instance = desk.advertised[0].as_ref().unwrap().instance.clone();
    let due = desk.speak(at(0)).unwrap();
    for (port, wins) in [(80, false), (79, false), (81, true)] {
        let other = Instance {
            port,
            ..instance.clone()
        };
        let packet = read(probe(&other).unwrap().as_ref()).unwrap();
        desk.hear(at(0), &packet, from(5353), 1);
        assert_eq!(desk.speak(at(0)) != Some(due), wins, "{port}");
    }
    assert_eq!(advertised(&desk)[0].0, "pump");
}

#[test]
fn host_has_a_name_that_is_one_label_of_the_dns() {
    assert_eq!(host_label("pump.roof", ID), "pump-roof-vnc6idep");
    assert_eq!(host_label(&"a".repeat(63), ID).len(), 63);
}

/// A node that lists a printer at this address.
fn lister(address: &str) -> Part {
    match row(ID, "office", &[("ipp", 631)]) {
        Part::Change(mut row) => {
            let service = &mut row.services[0];
            service.device = Some("Printer 7".into());
            service.addresses = Some(vec![address.into()]);
            Part::Change(row)
        }
        other => other,
    }
}

#[test]
fn device_that_a_node_lists_is_announced_under_its_own_name_at_its_own_address() {
    let mut desk = desk(&["ipp"]);
    desk.take(at(0), lister("198.51.100.7"));
    assert_eq!(advertised(&desk), [("Printer 7".into(), 631)]);
    let first = desk.advertised[0].as_ref().unwrap();
    assert_eq!(first.addrs, ["198.51.100.7".parse::<IpAddr>().unwrap()]);
    assert_eq!(first.instance.text, b"\x09oc=bridge");
    assert!(first.instance.host.starts_with("printer-7-"));
    desk.take(at(0), row(ID, "office", &[]));
    assert!(advertised(&desk).is_empty());
}

#[test]
fn names_of_devices_are_labels_of_the_dns_and_differ() {
    let one = device_label("B\u{fc}ro: Drucker & Kopierer", ID);
    let other = device_label("B\u{fc}ro: Drucker & Kopierer 2", ID);
    assert_ne!(one, other);
    for label in [one, other, device_label("\u{fc}", ID)] {
        assert!(label.len() <= 63 && !label.starts_with('-'), "{label}");
        assert!(
            label
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'-')
        );
    }
}

/// A packet that asks these questions for the kind, the name and the host of the first offer.
fn questions(desk: &Desk, of: &[u16], wants_unicast: bool) -> Packet {
    let Names { kind, name, host } = desk.advertised[0].as_ref().unwrap().names.clone();
    let class = [u8::from(wants_unicast) << 7, 1];
    let mut message = vec![0; 12];
    message[5] = of.len() as u8;
    for rtype in of {
        let asked = match rtype {
            12 => &kind,
            33 => &name,
            _ => &host,
        };
        message.extend(asked);
        message.extend(rtype.to_be_bytes());
        message.extend(class);
    }
    read(&message).unwrap()
}

/// How many messages were sent to one peer, and to links, since the last time.
fn sent(desk: &Desk) -> (usize, usize) {
    let sent = desk.links.sent.take();
    let alone = sent.iter().filter(|(links, _)| *links == 0).count();
    (alone, sent.len() - alone)
}

#[test]
fn packet_with_many_questions_gets_one_unicast_message() {
    let mut desk = desk(&["http"]);
    desk.take(at(0), row(ID, "pump", &[("http", 80)]));
    let now = settle(&mut desk);
    sent(&desk);
    let packet = questions(&desk, &[12, 33, 1, 33, 12], true);
    desk.hear(now, &packet, from(5353), 1);
    assert_eq!(sent(&desk), (1, 0));
    desk.hear(now, &packet, from(5354), 1);
    assert_eq!(sent(&desk), (1, 0));
}

#[test]
fn unicast_replies_are_20_a_second_and_beyond_them_links_hear_the_answer() {
    let mut desk = desk(&["http"]);
    desk.take(at(0), row(ID, "pump", &[("http", 80)]));
    let now = settle(&mut desk);
    sent(&desk);
    let packet = questions(&desk, &[33], true);
    for _ in 0..20 {
        desk.hear(now, &packet, from(5354), 1);
    }
    assert_eq!(sent(&desk), (20, 0));
    let later = |millis| now + std::time::Duration::from_millis(millis);
    for source in [5353, 5354] {
        desk.hear(later(49), &packet, from(source), 1);
    }
    assert_eq!(sent(&desk), (0, 0));
    desk.hear(later(50), &packet, from(5354), 1);
    assert_eq!(sent(&desk), (1, 0));
    desk.speak(later(1_000));
    assert_eq!(sent(&desk), (0, 1));
}

#[test]
fn another_port_at_the_same_host_is_no_conflict() {
    let mut desk = desk(&["http"]);
    desk.take(at(0), row(ID, "pump", &[("http", 80)]));
    let now = settle(&mut desk);
    let instance = desk.advertised[0].as_ref().unwrap().instance.clone();
    desk.hear(now, &packet(&instance, Some(81), false), from(5353), 1);
    assert!(desk.adverts.is_announced(0));
    let other = packet(&at_another_host(&instance), None, false);
    desk.hear(now, &other, from(5353), 1);
    assert!(!desk.adverts.is_announced(0));
}

#[test]
fn only_links_that_are_told_of_a_service_hear_probe_and_goodbye_and_can_have_its_name() {
    let mut desk = desk(&["http"]);
    // The second link has the device itself, in its own network.
    desk.links = Links::on(&[("192.0.2.1", ""), ("198.51.100.1", "")]);
    desk.services = vec!["ipp".try_into().unwrap()];
    desk.take(at(0), lister("198.51.100.7"));
    let instance = desk.advertised[0].as_ref().unwrap().instance.clone();
    let claim = at_another_host(&instance);
    let claim = Instance {
        port: 9999,
        ..claim
    };
    let claim = read(probe(&claim).unwrap().as_ref()).unwrap();
    let due = desk.adverts.timeout();
    desk.hear(at(0), &claim, from(5353), 0b10);
    assert_eq!(desk.adverts.timeout(), due);
    let now = settle(&mut desk);
    let other = packet(&at_another_host(&instance), None, false);
    desk.hear(now, &other, from(5353), 0b10);
    assert!(desk.adverts.is_announced(0));
    desk.leave();
    let links: Vec<_> = desk.links.sent.take().iter().map(|(to, _)| *to).collect();
    // Three probes, two announcements and the goodbye.
    assert_eq!(links, [1; 6]);
}

#[test]
fn watch_begins_again_when_there_is_room_for_a_service_that_was_refused() {
    let mut desk = desk(&["http"]);
    let take = |desk: &mut Desk, number: usize| {
        let peer = format!("peer-{number}");
        desk.take(at(0), row(&peer, &peer, &[("http", 80)]))
    };
    assert!((0..64).all(|count| !take(&mut desk, count)));
    assert!(!desk.take(at(0), gone("peer-0")), "none was refused");
    assert!(!take(&mut desk, 0) && !take(&mut desk, 64));
    assert!(desk.take(at(0), gone("peer-1")));
    desk.watch();
    assert!(!take(&mut desk, 64));
    assert_eq!(advertised(&desk).len(), 64);
}
