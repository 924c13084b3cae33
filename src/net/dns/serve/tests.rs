//! What is answered, byte by byte where it matters, else as a resolver reads it.

mod bounds;

use domain::base::{Message, ParsedRecord, iana::Rcode};

use super::{
    super::message::{Edns, parse_name, query},
    *,
};

const UDP: usize = 1232;
const ID: u16 = 0x1234;

fn server() -> Server {
    Server {
        zone: Zone::new("oc.internal").unwrap(),
        ip: "127.0.0.1".parse().unwrap(),
    }
}

fn host(name: &str, addrs: &[&str], services: &[(&str, u16)], tags: &[(&str, &str)]) -> Host {
    let service = |(name, port): &(&str, u16)| Service {
        name: (*name).try_into().unwrap(),
        transport: Transport::Tcp,
        port: *port,
    };
    Host {
        device: None,
        name: name.into(),
        addrs: addrs.iter().map(|ip| ip.parse().unwrap()).collect(),
        services: services.iter().map(service).collect(),
        tags: tags
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect(),
    }
}

fn pump() -> Hosts {
    let addrs = ["192.0.2.7", "2001:db8::7", "192.0.2.8"];
    let tags = [("site", "roof"), ("v", "2")];
    Hosts {
        hosts: vec![host("pump", &addrs, &[("http", 8080)], &tags)],
        coverage: Coverage::Complete,
    }
}

fn no_hosts(coverage: Coverage) -> Hosts {
    Hosts {
        hosts: Vec::new(),
        coverage,
    }
}

fn asks(name: &str, rtype: Rtype) -> Vec<u8> {
    query(&parse_name(name).unwrap(), rtype, ID, Edns::With)
        .unwrap()
        .as_ref()
        .to_vec()
}

/// The answer to the query of what was found, valid for 20 s.
fn answered(bytes: &[u8], found: &Hosts, limit: usize) -> Vec<u8> {
    let sections = match read(bytes).map(|query| (server().asked(&query), query.rtype)) {
        Ok((Ok(asked), rtype)) => server().answer((&asked, rtype), found, 20, &|_| 0),
        Ok((Err(code), _)) | Err(Some(code)) => Sections::bare(code),
        Err(None) => panic!("not answered"),
    };
    write(bytes, &sections, limit).unwrap()
}

/// Code, TTLs, and the records of the three sections: owner, type and data as text.
fn seen(answer: &[u8]) -> (Rcode, [Vec<String>; 3]) {
    let message = Message::from_slice(answer).unwrap();
    assert_eq!(message.header().id(), ID);
    assert!(message.header().qr() && !message.header().ra());
    let show = |record: ParsedRecord<'_, [u8]>| {
        let data: domain::base::rdata::UnknownRecordData<&[u8]> =
            record.to_record().unwrap().unwrap().into_data();
        let ttl = record.ttl().as_secs();
        format!(
            "{} {ttl} {} {}",
            record.owner(),
            record.rtype(),
            shown(record.rtype(), data.data())
        )
    };
    let sections = [message.answer(), message.authority(), message.additional()];
    let sections = sections.map(|section| {
        let records = section.unwrap().map(Result::unwrap);
        records
            .filter(|record| record.rtype() != Rtype::OPT)
            .map(show)
            .collect()
    });
    (message.header().rcode(), sections)
}

fn shown(rtype: Rtype, data: &[u8]) -> String {
    let ip = |ip: IpAddr| ip.to_string();
    match rtype {
        Rtype::A => ip(<[u8; 4]>::try_from(data).unwrap().into()),
        Rtype::AAAA => ip(<[u8; 16]>::try_from(data).unwrap().into()),
        Rtype::SRV => format!("{:?} {}", &data[..6], name_of(&data[6..])),
        Rtype::PTR | Rtype::NS => name_of(data),
        Rtype::SOA => name_of(data),
        _ => String::from_utf8_lossy(data).into_owned(),
    }
}

fn name_of(wire: &[u8]) -> String {
    let end = wire.iter().position(|byte| *byte == 0).unwrap();
    domain::base::Name::from_slice(&wire[..=end])
        .unwrap()
        .to_string()
}

fn asked(name: &str, rtype: Rtype, found: &Hosts) -> (Rcode, [Vec<String>; 3]) {
    seen(&answered(&asks(name, rtype), found, UDP))
}

const SOA: &str = "oc.internal 5 SOA oc.internal";

#[test]
fn name_has_its_addresses_and_tags_and_no_others() {
    let of = |rtype| asked("pump.oc.internal", rtype, &pump());
    let (code, [answer, authority, additional]) = of(Rtype::A);
    assert_eq!(code, Rcode::NOERROR);
    assert_eq!(
        answer,
        [
            "pump.oc.internal 20 A 192.0.2.7",
            "pump.oc.internal 20 A 192.0.2.8"
        ]
    );
    assert!(authority.is_empty() && additional.is_empty());
    let (_, [answer, ..]) = of(Rtype::AAAA);
    assert_eq!(answer, ["pump.oc.internal 20 AAAA 2001:db8::7"]);
    let (_, [answer, ..]) = of(Rtype::TXT);
    assert_eq!(answer, ["pump.oc.internal 20 TXT \tsite=roof\u{3}v=2"]);
    let (code, [answer, authority, _]) = of(Rtype::MX);
    assert_eq!((code, answer.len()), (Rcode::NOERROR, 0));
    assert_eq!(authority, [SOA]);
}

#[test]
fn service_leads_to_its_instances_ports_and_addresses() {
    let (_, [answer, _, additional]) = asked("_http._tcp.oc.internal", Rtype::SRV, &pump());
    let srv = "[0, 0, 0, 0, 31, 144] pump.oc.internal";
    let addresses = [
        "pump.oc.internal 20 A 192.0.2.7",
        "pump.oc.internal 20 AAAA 2001:db8::7",
        "pump.oc.internal 20 A 192.0.2.8",
    ];
    assert_eq!(answer, [format!("_http._tcp.oc.internal 20 SRV {srv}")]);
    assert_eq!(additional, addresses);
    let (_, [answer, _, additional]) = asked("_http._tcp.oc.internal", Rtype::PTR, &pump());
    let instance = "pump._http._tcp.oc.internal";
    assert_eq!(
        answer,
        [format!("_http._tcp.oc.internal 20 PTR {instance}")]
    );
    assert_eq!(additional[0], format!("{instance} 20 SRV {srv}"));
    assert_eq!(
        additional[1],
        format!("{instance} 20 TXT \tsite=roof\u{3}v=2")
    );
    assert_eq!(additional[2..], addresses);
    let (_, [answer, ..]) = asked(instance, Rtype::SRV, &pump());
    assert_eq!(answer, [format!("{instance} 20 SRV {srv}")]);
    // RFC 6763, section 6.1: an instance has a TXT record, even if it is empty.
    let untagged = Hosts {
        hosts: vec![host("pump", &[], &[("http", 80)], &[])],
        coverage: Coverage::Complete,
    };
    let (_, [answer, ..]) = asked(instance, Rtype::TXT, &untagged);
    assert_eq!(answer, [format!("{instance} 20 TXT \0")]);
}

#[test]
fn name_with_dots_is_one_label_of_its_instance() {
    let found = Hosts {
        hosts: vec![host("pump.roof", &["192.0.2.7"], &[("http", 80)], &[])],
        coverage: Coverage::Complete,
    };
    let bytes = answered(&asks("_http._tcp.oc.internal", Rtype::PTR), &found, UDP);
    assert!(
        bytes
            .windows(16)
            .any(|part| part == b"\x09pump.roof\x05_http"),
        "{bytes:?}"
    );
    assert!(bytes.windows(10).any(|part| part == b"\x04pump\x04roof"));
    for bad in ["a..b", ".a", "a."] {
        let found = Hosts {
            hosts: vec![host(bad, &["192.0.2.7"], &[("http", 80)], &[])],
            coverage: Coverage::Complete,
        };
        let (code, _) = asked("_http._tcp.oc.internal", Rtype::PTR, &found);
        assert_eq!(code, Rcode::NXDOMAIN, "{bad}");
    }
}

#[test]
fn other_transport_or_service_is_not_there() {
    for name in [
        "_http._udp.oc.internal",
        "_ssh._tcp.oc.internal",
        "pump._ssh._tcp.oc.internal",
        "pu_mp.oc.internal",
    ] {
        let (code, [answer, authority, _]) = asked(name, Rtype::SRV, &pump());
        assert_eq!((code, answer.len()), (Rcode::NXDOMAIN, 0), "{name}");
        assert_eq!(authority, [SOA]);
    }
}

#[test]
fn what_could_not_be_found_out_is_a_failure_and_no_denial() {
    let of = |coverage| asked("pump.oc.internal", Rtype::A, &no_hosts(coverage));
    let (code, [_, authority, _]) = of(Coverage::Complete);
    assert_eq!(code, Rcode::NXDOMAIN);
    assert_eq!(authority, [SOA]);
    let (code, [answer, authority, additional]) = of(Coverage::Partial);
    assert_eq!(code, Rcode::SERVFAIL);
    assert!(answer.is_empty() && authority.is_empty() && additional.is_empty());
}

#[test]
fn zone_itself_is_there_and_what_is_outside_is_refused() {
    let of = |name, rtype| asked(name, rtype, &no_hosts(Coverage::Complete));
    let (_, [answer, ..]) = of("oc.internal", Rtype::SOA);
    assert_eq!(answer, ["oc.internal 20 SOA oc.internal"]);
    let (_, [answer, ..]) = of("oc.internal", Rtype::NS);
    assert_eq!(answer, ["oc.internal 20 NS oc.internal"]);
    let (_, [answer, ..]) = of("oc.internal", Rtype::A);
    assert_eq!(answer, ["oc.internal 20 A 127.0.0.1"]);
    for name in ["oc.internal", "_tcp.oc.internal"] {
        let (code, [answer, authority, _]) = of(name, Rtype::AAAA);
        assert_eq!((code, answer.len()), (Rcode::NOERROR, 0));
        assert_eq!(authority, [SOA]);
    }
    for (name, rtype) in [
        ("example.com", Rtype::A),
        ("internal", Rtype::SOA),
        ("_services._dns-sd._udp.oc.internal", Rtype::PTR),
        ("oc.internal", Rtype::AXFR),
        ("pump.oc.internal", Rtype::ANY),
        ("oc.internal", Rtype::IXFR),
    ] {
        let (code, [answer, authority, _]) = of(name, rtype);
        assert_eq!(code, Rcode::REFUSED, "{name}");
        assert!(answer.is_empty() && authority.is_empty());
    }
}

#[test]
fn addresses_of_a_node_are_sorted_for_the_asker_and_nodes_keep_their_order() {
    let hosts = vec![
        host("pump", &["192.0.2.1", "10.0.0.1"], &[], &[]),
        host("pump", &["10.0.0.2", "10.0.0.1"], &[], &[]),
    ];
    let found = Hosts {
        hosts,
        coverage: Coverage::Partial,
    };
    let bytes = asks("pump.oc.internal", Rtype::A);
    let near = |ip: IpAddr| u8::from(!ip.to_string().starts_with("10."));
    let asked = server().asked(&read(&bytes).unwrap()).unwrap();
    let sections = server().answer((&asked, Rtype::A), &found, 20, &near);
    let seen: Vec<_> = sections.answer.iter().map(|it| it.data[3]).collect();
    assert_eq!(seen, [1, 1, 2], "10.0.0.1, 192.0.2.1, 10.0.0.2; none twice");
    assert_eq!(sections.answer[0].data, [10, 0, 0, 1]);
}

#[test]
fn question_is_repeated_as_it_was_written() {
    let answer = answered(&asks("pUMp.Oc.InterNAL", Rtype::A), &pump(), UDP);
    assert_eq!(&answer[12..30], b"\x04pUMp\x02Oc\x08InterNAL\0");
    assert_eq!(
        &answer[34..36],
        [0xc0, 12],
        "its owner is the question's name"
    );
    assert_eq!(
        answer[2] & 0b101,
        0b101,
        "authoritative, and wants recursion as the query did"
    );
}

#[test]
fn service_of_a_device_is_at_a_name_that_has_its_address_and_not_at_its_nodes() {
    let mut found = pump();
    found.hosts[0].services.clear();
    let mut printer = host("pump", &["192.0.2.50"], &[("ipp", 631)], &[]);
    printer.device = Some("ip4-192-0-2-50".into());
    found.hosts.push(printer);
    let server = server();
    let answer = |asked: &QueryName, rtype| {
        let sections = server.answer((asked, rtype), &found, 30, &|_| 0);
        (sections.answer.len(), sections)
    };
    let ipp = QueryName::Service("ipp".try_into().unwrap(), Transport::Tcp);
    let (count, sections) = answer(&ipp, Rtype::SRV);
    assert_eq!(count, 1);
    let target = b"\x0eip4-192-0-2-50\x02oc\x08internal\0";
    assert!(sections.answer[0].data.ends_with(target));
    assert_eq!(sections.additional[0].data, [192, 0, 2, 50]);
    let name = QueryName::Name("pump".try_into().unwrap());
    assert_eq!(answer(&name, Rtype::A).0, 2, "those of the node alone");
    let (count, sections) = answer(&QueryName::Address("192.0.2.50".parse().unwrap()), Rtype::A);
    assert_eq!(
        (count, sections.answer[0].data.as_slice()),
        (1, &[192, 0, 2, 50][..])
    );
    let (count, sections) = answer(
        &QueryName::Address("192.0.2.50".parse().unwrap()),
        Rtype::AAAA,
    );
    assert_eq!((count, sections.rcode), (0, OptRcode::NOERROR));
}
