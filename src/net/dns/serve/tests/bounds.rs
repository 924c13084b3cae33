//! How long answers are, and what is answered to messages that are no proper queries.

use domain::base::{MessageBuilder, iana::Class};
use domain::dep::octseq::Array;
use proptest::prelude::*;

use super::*;

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
