//! What is heard becomes a list of services of devices.

use super::*;
use crate::net::mdns::service::{self, Gone, answers, read, text};

fn at(millis: u64) -> Instant {
    Instant::from_millis(100_000 + millis)
}

fn browse() -> Browse {
    Browse::new(at(0), &["ipp".try_into().unwrap()]).unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A device's service as a bridge tells it, with a text of the same length that no bridge has.
fn printer(name: &str, port: u16) -> service::Instance {
    let mut text = text([].into_iter());
    text[1] = b'x';
    service::Instance {
        label: name.into(),
        service: "ipp".try_into().unwrap(),
        transport: Transport::Tcp,
        port,
        host: format!("host-of-{name}"),
        text,
    }
}

fn told(instance: &service::Instance, addrs: &[&str]) -> Packet {
    read(answers(&[instance.records(&ips(addrs))])[0].as_ref()).unwrap()
}

fn gone(instance: &service::Instance) -> Packet {
    let gone = Gone {
        kind: true,
        host: true,
    };
    read(answers(&[instance.goodbye(&[], gone)])[0].as_ref()).unwrap()
}

/// The devices, ports and addresses.
fn found(browse: &Browse) -> Vec<(String, u16, Vec<IpAddr>)> {
    let found = browse.found().into_iter();
    found
        .map(|it| (it.device, it.service.port, it.addrs))
        .collect()
}

fn links() -> Links {
    Links::new(std::rc::Rc::new(|_, _, _| {}))
}

#[test]
fn device_is_found_with_the_addresses_that_others_can_use() {
    let mut browse = browse();
    let addrs = ["192.0.2.50", "fe80::1", "169.254.1.1"];
    browse.hear(at(0), &told(&printer("Printer 7", 631), &addrs), 1);
    let expected = [("Printer 7".into(), 631, ips(&["192.0.2.50"]))];
    assert_eq!(found(&browse), expected);
    // Other kinds of services are not asked for.
    let mut other = printer("Web", 80);
    other.service = "http".try_into().unwrap();
    browse.hear(at(0), &told(&other, &["192.0.2.51"]), 1);
    assert_eq!(found(&browse), expected);
    assert_eq!(browse.stats().used, 1);
}

#[test]
fn what_a_bridge_tells_is_not_listed() {
    let mut browse = browse();
    let mut bridged = printer("Printer 7", 631);
    bridged.text = text([].into_iter());
    browse.hear(at(0), &told(&bridged, &["192.0.2.50"]), 1);
    assert!(found(&browse).is_empty());
}

#[test]
fn device_that_says_goodbye_is_gone_after_a_second() {
    let mut browse = browse();
    let printer = printer("Printer 7", 631);
    browse.hear(at(0), &told(&printer, &["192.0.2.50"]), 1);
    browse.hear(at(5_000), &gone(&printer), 1);
    browse.speak(at(5_999), &links());
    assert_eq!(found(&browse).len(), 1);
    browse.speak(at(6_000), &links());
    assert!(found(&browse).is_empty());
    assert_eq!(browse.stats().used, 0);
}

#[test]
fn pointer_that_leads_elsewhere_than_to_its_kind_is_nothing() {
    let mut browse = browse();
    let kind = b"\x04_ipp\x04_tcp\x05local\0";
    for to in [
        &b"\x01a\x05_http\x04_tcp\x05local\0"[..],
        b"\x01a",
        b"\0",
        b"",
    ] {
        browse.hear_pointer(at(0), kind, to, 120);
    }
    assert_eq!(browse.stats().used, 0);
    browse.hear_pointer(
        at(0),
        b"\x04_IPP\x04_tcp\x05local\0",
        b"\x01a\x04_ipp\x04_TCP\x05local\0",
        0,
    );
    assert_eq!(browse.stats().used, 0, "a goodbye");
    browse.hear_pointer(at(0), kind, b"\x01a\x04_ipp\x04_TCP\x05local\0", 120);
    browse.hear_pointer(at(0), kind, b"\x01A\x04_ipp\x04_tcp\x05local\0", 120);
    assert_eq!(browse.stats().used, 1, "one in another case");
}

#[test]
fn loop_is_told_of_changes_three_seconds_apart_and_of_nothing_else() {
    let mut browse = browse();
    assert_eq!(browse.news(at(0)), None);
    browse.hear(at(0), &told(&printer("A", 631), &["192.0.2.50"]), 1);
    assert_eq!(browse.news(at(0)).map(|news| news.len()), Some(1));
    assert_eq!(browse.news(at(60_000)), None);
    browse.hear(at(60_000), &told(&printer("B", 631), &["192.0.2.51"]), 1);
    assert_eq!(browse.news(at(60_000)).map(|news| news.len()), Some(2));
    browse.hear(at(60_001), &told(&printer("B", 632), &["192.0.2.51"]), 1);
    assert_eq!(browse.news(at(62_999)), None);
    assert!(
        browse
            .speak(at(62_999), &links())
            .is_some_and(|due| due <= at(63_000))
    );
    assert_eq!(browse.news(at(63_000)).map(|news| news.len()), Some(2));
}

#[test]
fn packet_with_all_addresses_of_a_host_drops_the_others_of_its_family_and_link() {
    let mut browse = browse();
    let printer = printer("A", 631);
    let addrs = |browse: &Browse| found(browse)[0].2.clone();
    browse.hear(at(0), &told(&printer, &["192.0.2.50", "2001:db8::1"]), 1);
    browse.hear(at(0), &told(&printer, &["198.51.100.50"]), 2);
    let mut packet = told(&printer, &["192.0.2.51", "192.0.2.52"]);
    packet.records.iter_mut().for_each(|it| it.flushes = false);
    browse.hear(at(0), &packet, 1);
    assert_eq!(addrs(&browse).len(), 5, "not all are told");
    browse.hear(at(0), &told(&printer, &["192.0.2.51", "192.0.2.53"]), 1);
    let left = ["192.0.2.51", "192.0.2.53", "198.51.100.50", "2001:db8::1"];
    assert_eq!(addrs(&browse), ips(&left));
    let mut goodbye = told(&printer, &["192.0.2.53"]);
    goodbye.records.iter_mut().for_each(|it| it.ttl = 0);
    browse.hear(at(0), &goodbye, 1);
    assert_eq!(addrs(&browse).len(), 3, "that one alone is gone");
}
