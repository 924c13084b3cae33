//! What is answered, byte by byte where it matters, else as a resolver reads it.

use domain::base::{
    Message, MessageBuilder, ParsedRecord,
    iana::{Class, Rcode},
};
use domain::dep::octseq::Array;
use proptest::prelude::*;

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
fn answer_that_does_not_fit_says_so_and_has_no_records() {
    let bytes = asks("pump.oc.internal", Rtype::A);
    let whole = answered(&bytes, &pump(), UDP);
    for limit in [whole.len() - 1, whole.len()] {
        let answer = answered(&bytes, &pump(), limit);
        let is_cut = limit < whole.len();
        assert_eq!(Message::from_slice(&answer).unwrap().header().tc(), is_cut);
        let (code, [records, ..]) = seen(&answer);
        assert_eq!((code, records.is_empty()), (Rcode::NOERROR, is_cut));
        assert!(Message::from_slice(&answer).unwrap().opt().is_some());
    }
    // Additional records are left out if there is no room for them.
    let bytes = asks("_http._tcp.oc.internal", Rtype::SRV);
    let whole = answered(&bytes, &pump(), UDP);
    let answer = answered(&bytes, &pump(), whole.len() - 1);
    assert!(!Message::from_slice(&answer).unwrap().header().tc());
    assert_eq!(seen(&answer).1[2].len(), 2);
}

#[test]
fn datagram_is_as_long_as_the_asker_takes_it_and_never_longer_than_passes_everywhere() {
    let with = |size: Option<u16>| {
        let mut bytes = asks("pump.oc.internal", Rtype::A);
        match size {
            Some(size) => {
                let at = bytes.len() - 8;
                bytes[at..at + 2].copy_from_slice(&size.to_be_bytes());
            }
            None => {
                bytes.truncate(bytes.len() - 11);
                bytes[11] = 0;
            }
        }
        let udp = read(&bytes).unwrap().udp;
        let answer = answered(&bytes, &pump(), udp);
        assert_eq!(
            Message::from_slice(&answer).unwrap().opt().is_some(),
            size.is_some()
        );
        udp
    };
    assert_eq!(with(None), 512);
    for (size, udp) in [(0, 512), (511, 512), (513, 513), (1232, 1232), (4096, 1232)] {
        assert_eq!(with(Some(size)), udp);
    }
}

#[test]
fn what_is_no_query_is_refused_by_its_code_or_not_answered() {
    let right = asks("pump.oc.internal", Rtype::A);
    let with = |at: usize, byte: u8| {
        let mut bytes = right.clone();
        bytes[at] = byte;
        read(&bytes)
            .map(|_| ())
            .map_err(|code| code.map(|code| code.to_int()))
    };
    assert_eq!(
        with(2, 0x81),
        Err(None),
        "an answer: two servers would answer one another for ever"
    );
    assert_eq!(with(2, 0x29), Err(Some(4)), "an update");
    assert_eq!(with(5, 2), Err(Some(1)), "two questions");
    assert_eq!(with(5, 0), Err(Some(1)), "no question");
    assert_eq!(with(12, 0xc0), Err(Some(1)), "a compressed question");
    assert_eq!(with(33, 3), Err(Some(5)), "class CH");
    let version = right.len() - 5;
    assert_eq!(with(version, 1), Err(Some(16)), "another EDNS");
    assert_eq!(read(&right[..11]).err(), Some(None));
    let mut bytes = right.clone();
    bytes[version] = 1;
    let answer = answered(&bytes, &pump(), UDP);
    let message = Message::from_slice(&answer).unwrap();
    assert_eq!(message.opt().unwrap().rcode(message.header()).to_int(), 16);
}

#[test]
fn only_one_question_as_it_was_written_is_repeated() {
    let answer = |bytes: &[u8]| answered(bytes, &pump(), 512);
    let longest = [&[1, b'a'].repeat(127)[..], &[0, 0, 1, 0, 1]].concat();
    let with = |questions: u16, tail: &[u8]| {
        let [high, low] = questions.to_be_bytes();
        let header = [0x12, 0x34, 0, 0, high, low, 0, 0, 0, 0, 0, 0];
        [&header[..], tail].concat()
    };
    let mut one = with(1, &longest);
    assert_eq!(answer(&one)[12..], longest);
    // An update. Its only zone is repeated.
    one[2] = 0x28;
    assert_eq!(answer(&one)[12..], longest);
    let bare = |opcode: u8, code: u8| [0x12, 0x34, 0x80 | opcode, code, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(answer(&with(0, &[])), bare(0, 1));
    assert_eq!(answer(&with(2, &longest.repeat(2))), bare(0, 1));
    // Two names in full, and then 150 that point to the second.
    let pointer = [0xc0, 12 + 53, 0, 1, 0, 1];
    let first = [&[1, b'b'].repeat(24)[..], &[0, 0, 1, 0, 1]].concat();
    let tail = [&first[..], &longest, &pointer.repeat(150)].concat();
    let mut many = with(152, &tail);
    assert!(many.len() <= MAX_QUERY);
    assert_eq!(answer(&many), bare(0, 1));
    many[2] = 0x28;
    assert_eq!(answer(&many), bare(0x28, 4));
}

proptest! {
    #[test]
    fn hostile_bytes_are_answered_within_their_bounds_or_not_at_all(
        tail in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xc0), 0..30_u8], 0..600),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        limit in 512..1232_usize,
        rtype in prop::sample::select(vec![Rtype::A, Rtype::SRV, Rtype::PTR, Rtype::TXT, Rtype::ANY]),
        name in prop::sample::select(vec!["pump.oc.internal", "_http._tcp.oc.internal", "oc.internal"]),
    ) {
        let mut right = asks(name, rtype);
        let head = [&right[..12], &tail].concat();
        for (at, byte) in changes {
            *at.get_mut(&mut right) = byte;
        }
        for bytes in [tail, head, right] {
            let sections = match read(&bytes).map(|query| (server().asked(&query), query.rtype)) {
                Ok((Ok(asked), rtype)) => server().answer((&asked, rtype), &pump(), 20, &|_| 0),
                Ok((Err(code), _)) | Err(Some(code)) => Sections::bare(code),
                Err(None) => continue,
            };
            let answer = write(&bytes, &sections, limit).unwrap();
            prop_assert!(answer.len() <= limit);
            prop_assert_eq!(&answer[..2], &bytes[..2]);
            let message = Message::from_slice(&answer).unwrap();
            prop_assert!(message.header().qr());
            for record in message.answer().unwrap() {
                prop_assert_eq!(record.unwrap().class(), Class::IN);
            }
        }
    }

    #[test]
    fn any_text_of_a_record_becomes_an_answer_that_can_be_read(
        name in "[a-z0-9.-]{1,63}",
        tags in prop::collection::vec((".{1,128}", ".{0,128}"), 0..3),
        count in 1..32_usize,
    ) {
        let tags: Vec<_> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let hosts = vec![host(&name, &["192.0.2.1"; 8], &[("http", 80)], &tags); count];
        let found = Hosts { hosts, coverage: Coverage::Complete };
        for (at, rtype) in [("_http._tcp", Rtype::PTR), ("_http._tcp", Rtype::SRV), ("x", Rtype::TXT)] {
            let bytes = asks(&format!("{at}.oc.internal"), rtype);
            let answer = answered(&bytes, &found, MAX_TCP);
            prop_assert!(answer.len() <= MAX_TCP);
            let (code, sections) = seen(&answer);
            let is_there = matches!(code, Rcode::NOERROR) && !sections[0].is_empty();
            let is_usable = is_host(&name) && (rtype != Rtype::TXT || !tags.is_empty());
            prop_assert_eq!(is_there, is_usable);
        }
    }
}

#[test]
fn longest_outcome_fits_in_one_answer_over_tcp() {
    // 32 records are the most of a lookup, with 256 bytes of tags each.
    let name = |n: usize| format!("{n:02}{}", "a".repeat(61));
    let value = "v".repeat(255);
    let hosts = (0..32).map(|n| {
        host(
            &name(n),
            &["192.0.2.1"; 1],
            &[("http", 80)],
            &[("k", &value)],
        )
    });
    let mut found = Hosts {
        hosts: hosts.collect(),
        coverage: Coverage::Complete,
    };
    for (n, host) in found.hosts.iter_mut().enumerate() {
        host.tags[0].0 = format!("{n}");
        host.addrs = (0..8).map(|k| IpAddr::from([10, 0, n as u8, k])).collect();
    }
    for rtype in [Rtype::PTR, Rtype::SRV] {
        let (_, [answer, ..]) = seen(&answered(
            &asks("_http._tcp.oc.internal", rtype),
            &found,
            MAX_TCP,
        ));
        assert_eq!(answer.len(), 32);
    }
    for rtype in [Rtype::A, Rtype::TXT] {
        let (_, [answer, ..]) = seen(&answered(&asks("x.oc.internal", rtype), &found, MAX_TCP));
        assert_eq!(answer.len(), if rtype == Rtype::A { 256 } else { 32 });
    }
    // Without compression of names, without EDNS: a question alone is answered too.
    let plain = MessageBuilder::from_target(Array::<512>::new())
        .unwrap()
        .question();
    assert!(write(plain.as_slice(), &Sections::bare(OptRcode::FORMERR), 512).is_some());
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
