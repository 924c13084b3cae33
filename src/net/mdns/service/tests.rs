//! What is sent and read.

use domain::base::Message;
use proptest::prelude::*;

use super::*;

fn pump() -> Instance {
    Instance {
        label: "Pump (2)".into(),
        service: "http".try_into().unwrap(),
        transport: Transport::Tcp,
        port: 8080,
        host: "pump-s34unarq".into(),
        text: text([("site", "roof")].into_iter()),
    }
}

fn ips() -> [IpAddr; 2] {
    ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()]
}

/// A question as a device sends it.
fn question(name: &[u8], rtype: Rtype, known: &[Record]) -> Packet {
    let mut message = MessageBuilder::from_target(Buffer::new())
        .unwrap()
        .question();
    message.push((to_name(name), rtype)).unwrap();
    let mut message = message.answer();
    for record in known {
        let class = (record.rtype, Class::IN, record.ttl);
        push(&mut message, &record.owner, class, &record.data).unwrap();
    }
    read(message.finish().as_ref()).unwrap()
}

fn meaning(name: &[u8], rtype: Rtype) -> Option<Meaning> {
    question(name, rtype, &[]).questions[0].meaning(&pump().names())
}

#[test]
fn records_are_those_of_rfc_6763_with_the_times_of_rfc_6762() {
    let records = pump().records(&ips());
    let seen: Vec<_> = records
        .iter()
        .map(|it| (it.owner.as_slice(), it.rtype, it.ttl, it.data.as_slice()))
        .collect();
    let instance = b"\x08Pump (2)\x05_http\x04_tcp\x05local\0";
    let host = b"\x0dpump-s34unarq\x05local\0";
    assert_eq!(
        seen,
        [
            (
                &b"\x05_http\x04_tcp\x05local\0"[..],
                Rtype::PTR,
                4500,
                &instance[..]
            ),
            (
                instance,
                Rtype::SRV,
                120,
                b"\0\0\0\0\x1f\x90\x0dpump-s34unarq\x05local\0"
            ),
            (instance, Rtype::TXT, 4500, b"\x09oc=bridge\x09site=roof"),
            (KINDS, Rtype::PTR, 4500, b"\x05_http\x04_tcp\x05local\0"),
            (host, Rtype::A, 120, &[192, 0, 2, 7]),
            (
                host,
                Rtype::AAAA,
                120,
                &"2001:db8::7"
                    .parse::<std::net::Ipv6Addr>()
                    .unwrap()
                    .octets()
            ),
        ]
    );
}

#[test]
fn answer_has_no_question_and_only_unique_records_flush_the_caches() {
    let messages = answers(&[pump().records(&ips())]);
    let [message] = messages.as_slice() else {
        panic!("{} messages", messages.len());
    };
    let message = Message::from_slice(message.as_ref()).unwrap();
    let (header, counts) = (message.header(), message.header_counts());
    assert!(header.qr() && header.aa() && header.id() == 0);
    assert_eq!(
        (counts.qdcount(), counts.ancount(), counts.arcount()),
        (0, 6, 0)
    );
    for record in message.answer().unwrap().map(Result::unwrap) {
        let flushes = record.class().to_int() & ONLY_ONE != 0;
        assert_eq!(
            flushes,
            record.rtype() != Rtype::PTR,
            "{:?}",
            record.rtype()
        );
    }
}

#[test]
fn goodbye_says_of_what_is_gone_alone_that_it_is() {
    let count = |kind, host| {
        let records = pump().goodbye(&ips(), Gone { kind, host });
        assert!(records.iter().all(|record| record.ttl == 0));
        records.len()
    };
    assert_eq!(count(false, false), 3);
    assert_eq!(count(true, false), 4);
    assert_eq!(count(true, true), 6);
}

#[test]
fn many_services_are_told_in_messages_that_fit_and_each_is_whole() {
    let longest = |n: usize| Instance {
        label: format!("{n:063}"),
        host: format!("{n:063}"),
        service: "abcdefghijklmno".try_into().unwrap(),
        text: text([("k", "v".repeat(255).as_str())].into_iter()),
        ..pump()
    };
    let addrs = vec!["2001:db8::7".parse().unwrap(); 9];
    let all: Vec<_> = (0..64).map(|n| longest(n).records(&addrs)).collect();
    assert!(all.iter().all(|records| records.len() == 8));
    let messages = answers(&all);
    let read: usize = messages
        .iter()
        .map(|message| {
            let message = Message::from_slice(message.as_ref()).unwrap();
            message.answer().unwrap().map(Result::unwrap).count()
        })
        .sum();
    assert_eq!((messages.len(), read), (64, 64 * 8));
    let small: Vec<_> = (0..4).map(|_| pump().records(&ips())).collect();
    assert_eq!(answers(&small).len(), 1);
    assert!(answers(&[]).is_empty());
    assert!(answers(&[Vec::new()]).is_empty());
}

#[test]
fn question_means_a_kind_all_kinds_or_a_name_in_any_case() {
    let kind = b"\x05_HTTP\x04_tcp\x05local\0";
    let name = b"\x08pUMP (2)\x05_http\x04_tcp\x05local\0";
    let host = b"\x0dPUMP-s34unarq\x05local\0";
    for rtype in [Rtype::PTR, Rtype::ANY] {
        assert_eq!(meaning(kind, rtype), Some(Meaning::Kind));
        assert_eq!(meaning(KINDS, rtype), Some(Meaning::Kinds));
    }
    for rtype in [Rtype::SRV, Rtype::TXT, Rtype::ANY] {
        assert_eq!(meaning(name, rtype), Some(Meaning::Name));
    }
    for rtype in [Rtype::A, Rtype::AAAA, Rtype::ANY] {
        assert_eq!(meaning(host, rtype), Some(Meaning::Name));
    }
    assert_eq!(meaning(kind, Rtype::SRV), None);
    assert_eq!(meaning(name, Rtype::PTR), None);
    assert_eq!(meaning(host, Rtype::TXT), None);
    assert_eq!(meaning(b"\x05_http\x04_udp\x05local\0", Rtype::PTR), None);
}

#[test]
fn pointer_that_the_asker_knows_for_half_of_its_time_is_known() {
    let is_known = |meaning, ttl| {
        let mut known = pump().records(&[]);
        known.iter_mut().for_each(|record| record.ttl = ttl);
        let packet = question(&pump().kind(), Rtype::PTR, &known);
        packet
            .records
            .iter()
            .any(|it| it.is_known(meaning, &pump().names()))
    };
    for meaning in [Meaning::Kind, Meaning::Kinds] {
        assert!(is_known(meaning, 2250));
        assert!(!is_known(meaning, 2249));
    }
    assert!(!is_known(Meaning::Name, 4500));
}

#[test]
fn probe_asks_for_the_name_and_claims_its_service() {
    let packet = read(probe(&pump()).unwrap().as_ref()).unwrap();
    assert!(!packet.is_answer && packet.records.is_empty());
    let question = &packet.questions[0];
    assert_eq!(question.meaning(&pump().names()), Some(Meaning::Name));
    let [claim] = packet.claims.as_slice() else {
        panic!("{packet:?}");
    };
    assert_eq!(claim.owner, pump().name());
    assert_eq!(claim.data, Data::Service(pump().srv()));
}

#[test]
fn plain_resolver_gets_its_question_back_and_short_lived_records_that_match_first() {
    let packet = question(&pump().name(), Rtype::SRV, &[]);
    let records = pump().records(&ips());
    let message = unicast(&packet.questions, records.clone(), Some(7)).unwrap();
    let message = Message::from_slice(message.as_ref()).unwrap();
    let counts = message.header_counts();
    assert_eq!(message.header().id(), 7);
    assert_eq!(
        (counts.qdcount(), counts.ancount(), counts.arcount()),
        (1, 1, 5)
    );
    for record in message.answer().unwrap().map(Result::unwrap) {
        assert_eq!(record.class(), Class::IN);
        assert!(record.ttl().as_secs() <= 10);
    }
    let message = unicast(&packet.questions, records, None).unwrap();
    let message = Message::from_slice(message.as_ref()).unwrap();
    assert_eq!(message.header_counts().qdcount(), 0);
    let first = message.answer().unwrap().next().unwrap().unwrap();
    assert_eq!((first.rtype(), first.ttl().as_secs()), (Rtype::SRV, 120));
}

#[test]
fn packet_that_asks_is_read_up_to_16_questions_and_64_records() {
    let read_of = |questions: u16, records: u16, is_answer: bool| {
        let mut message = vec![0, 0, u8::from(is_answer) << 7, 0];
        for count in [questions, records, 0, 0] {
            message.extend(count.to_be_bytes());
        }
        for _ in 0..questions {
            message.extend([0, 0, 12, 0, 1]);
        }
        for _ in 0..records {
            message.extend([0, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
        }
        let packet = read(&message).unwrap();
        (packet.questions.len(), packet.records.len())
    };
    assert_eq!(read_of(16, 64, false), (16, 64));
    assert_eq!(read_of(17, 65, false), (16, 64));
    assert_eq!(read_of(0, 513, true), (0, 512));
}

proptest! {
    #[test]
    fn no_packet_panics(message in proptest::collection::vec(any::<u8>(), 0..600)) {
        read(&message);
    }

    #[test]
    fn no_answer_that_was_changed_panics(at in 0usize..400, to: u8, cut in 0usize..400) {
        let mut message = answers(&[pump().records(&ips())])[0].as_ref().to_vec();
        let len = message.len();
        message[at % len] = to;
        read(&message[..cut.min(len)]);
        read(&message);
    }
}
