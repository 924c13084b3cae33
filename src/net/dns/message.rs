//! Queries and answers (RFC 1035, with EDNS0 of RFC 6891): bytes in, bytes out, no I/O.
//!
//! Invariants: no answer can make this module panic; a record in an answer counts only if its owner
//! is the queried name, or a name that this leads to by at most 20 CNAME records of the same
//! answer.

use std::net::IpAddr;

use domain::base::iana::{Class, Rcode};
use domain::base::message_builder::{PushError, RecordSectionBuilder};
use domain::base::rdata::{ParseRecordData, UnknownRecordData};
use domain::base::wire::{Composer, ParseError};
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::dep::octseq::Array;
use domain::rdata::{A, Aaaa, Txt};

/// The UDP payload size that EDNS0 announces: such datagrams pass everywhere without fragmentation
/// (DNS flag day 2020).
pub(in crate::net) const MAX_UDP: u16 = 1232;
/// Bytes of an answer over TCP at most. An answer with 16 addresses, or with all records of a
/// lookup, needs less.
pub(super) const MAX_TCP: usize = 16 * 1024;

/// A name as it goes into a query.
pub(super) type QueryName = Name<Array<255>>;

/// Room for the longest query: header, name, type and class, EDNS0.
pub(super) type Buffer = Array<{ 12 + 255 + 4 + 11 }>;

/// One record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Ip(IpAddr),
    /// All strings of a TXT record as one.
    Text(Vec<u8>),
}

impl Value {
    pub(super) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Text(_) => None,
        }
    }

    /// The text, if this is a text.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => str::from_utf8(text).ok(),
            Self::Ip(_) => None,
        }
    }
}

/// What a message means as the answer to a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not an answer to this query: it is late, forged or broken. The right answer may still
    /// come.
    Foreign,
    /// The answer did not fit. It has to be asked for over TCP.
    Truncated,
    /// The name exists, perhaps without a record of this type.
    Values(Vec<Value>),
    /// The name does not exist.
    NoName,
    /// The server could not answer, for this reason.
    Failed(String),
}

/// The names to query one after another, as resolv.conf(5) defines. A name with fewer than `ndots`
/// dots is tried with each of the `search` domains first; any other name is tried without them
/// first. A name that ends in a dot is tried only as it is. Yields nothing if `name` is not a
/// domain name.
pub(super) fn candidates(name: &str, search: &[String], ndots: usize) -> Vec<QueryName> {
    let mut names = vec![name.to_owned()];
    if !name.ends_with('.') {
        names.extend(search.iter().map(|domain| format!("{name}.{domain}")));
        if name.matches('.').count() < ndots {
            names.rotate_left(1);
        }
    }
    names.iter().filter_map(|name| parse_name(name)).collect()
}

/// `name` as it goes into a query; `None` if it is not a domain name.
pub(super) fn parse_name(name: &str) -> Option<QueryName> {
    name.parse().ok()
}

/// Whether a query says that answers of [`MAX_UDP`] bytes are accepted, by EDNS (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edns {
    With,
    /// For servers that do not understand it.
    Without,
}

/// The message that asks a recursive server for `name`.
pub(super) fn query(
    name: &QueryName,
    rtype: Rtype,
    id: u16,
    edns: Edns,
) -> Result<Buffer, PushError> {
    let mut message = MessageBuilder::from_target(Buffer::new())?.question();
    message.header_mut().set_id(id);
    message.header_mut().set_rd(true);
    message.push((name, rtype))?;
    let mut message = message.additional();
    if edns == Edns::With {
        message.opt(|opt| {
            opt.set_udp_payload_size(MAX_UDP);
            Ok(())
        })?;
    }
    Ok(message.finish())
}

/// What `answer` means as the answer to `query`.
pub(super) fn judge(query: &[u8], answer: &[u8]) -> Verdict {
    let (Ok(query), Ok(answer)) = (Message::from_slice(query), Message::from_slice(answer)) else {
        return Verdict::Foreign;
    };
    if !answer.is_answer(query) {
        return Verdict::Foreign;
    }
    if answer.header().tc() {
        return Verdict::Truncated;
    }
    match answer.header().rcode() {
        Rcode::NOERROR => values(answer).map_or_else(
            |_| Verdict::Failed("its answer is malformed".to_owned()),
            Verdict::Values,
        ),
        Rcode::NXDOMAIN => Verdict::NoName,
        other => Verdict::Failed(format!("it answers {other}")),
    }
}

fn values(answer: &Message<[u8]>) -> Result<Vec<Value>, ParseError> {
    match answer.qtype() {
        Some(Rtype::A) => records(answer, |a: &A| Value::Ip(a.addr().into())),
        Some(Rtype::AAAA) => records(answer, |aaaa: &Aaaa| Value::Ip(aaaa.addr().into())),
        _ => records(answer, |txt: &Txt<&[u8]>| {
            Value::Text(txt.iter().flatten().copied().collect())
        }),
    }
}

fn records<'a, D: ParseRecordData<'a, [u8]>>(
    answer: &'a Message<[u8]>,
    value: impl Fn(&D) -> Value,
) -> Result<Vec<Value>, ParseError> {
    let name = answer.canonical_name().ok_or(ParseError::ShortInput)?;
    let mut values = Vec::new();
    for record in answer.answer()?.limit_to_in() {
        let record = record?;
        if *record.owner() == name {
            values.push(value(record.data()));
        }
    }
    Ok(values)
}

/// Adds a record. Its owner and data are given as they are on the wire.
///
/// # Errors
/// One of them is not valid, or there is no room.
#[cfg_attr(
    not(any(feature = "dns", feature = "mdns")),
    expect(dead_code, reason = "only these two write records")
)]
pub(in crate::net) fn push<T: Composer>(
    message: &mut impl RecordSectionBuilder<T>,
    owner: &[u8],
    (rtype, class, ttl): (Rtype, Class, u32),
    data: &[u8],
) -> Result<(), PushError> {
    let owner = Name::from_slice(owner).map_err(|_| PushError::ShortBuf)?;
    let data = UnknownRecordData::from_octets(rtype, data).map_err(|_| PushError::ShortBuf)?;
    message.push((owner, class, ttl, data))
}

#[cfg(test)]
mod tests {
    use domain::base::iana::Class;
    use domain::base::rdata::UnknownRecordData;
    use domain::rdata::Cname;
    use proptest::prelude::*;

    use super::*;

    const ID: u16 = 0x1234;

    fn asked(rtype: Rtype) -> Buffer {
        query(&parse_name("one.test").unwrap(), rtype, ID, Edns::With).unwrap()
    }

    /// An answer with `aliases`, and one record of each of `data`, which belong to `owner`.
    fn reply(rtype: Rtype, aliases: &[(&str, &str)], owner: &str, data: &[&[u8]]) -> Vec<u8> {
        let (name, query) = (|text| parse_name(text).unwrap(), asked(rtype));
        let reply = MessageBuilder::from_target(Array::<8192>::new()).unwrap();
        let query = Message::from_slice(query.as_ref()).unwrap();
        let mut reply = reply.start_answer(query, Rcode::NOERROR).unwrap();
        for (alias, target) in aliases {
            let target = Cname::new(name(target));
            reply.push((name(alias), Class::IN, 60, target)).unwrap();
        }
        for data in data {
            let data = UnknownRecordData::from_octets(rtype, data).unwrap();
            reply.push((name(owner), Class::IN, 60, data)).unwrap();
        }
        reply.as_slice().to_vec()
    }

    fn judged(rtype: Rtype, reply: &[u8]) -> Verdict {
        judge(asked(rtype).as_ref(), reply)
    }

    fn malformed(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Failed(why) if why.contains("malformed"))
    }

    #[test]
    fn query_says_what_an_observer_of_the_wire_expects() {
        let question = b"\x03one\x04test\0\0\x10\0\x01";
        let edns = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";
        let header = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01";
        let all = [&header[..], question, edns].concat();
        assert_eq!(asked(Rtype::TXT).as_ref(), all);
        let longest = vec!["a".repeat(63); 3].join(".") + "." + &"a".repeat(61);
        let longest = parse_name(&longest).unwrap();
        assert_eq!(
            query(&longest, Rtype::A, ID, Edns::With).unwrap().len(),
            282
        );
        for wrong in [
            "",
            "..",
            "a..b",
            "\u{e4}.test",
            &"a".repeat(64),
            &"a.".repeat(128),
        ] {
            assert!(parse_name(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn names_are_completed_by_their_dots() {
        let search = ["lan".to_owned(), "corp.test".to_owned()];
        let asked = |name, ndots| {
            let names = candidates(name, &search, ndots);
            names
                .iter()
                .map(QueryName::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(asked("a", 1), "a.lan a.corp.test a");
        assert_eq!(asked("a.b", 1), "a.b a.b.lan a.b.corp.test");
        assert_eq!(asked("a.b", 2), "a.b.lan a.b.corp.test a.b");
        assert_eq!(asked("a.", 1), "a");
        assert_eq!(asked("a..b", 1), "");
        let long = "a.".repeat(126) + "a";
        assert_eq!(asked(&long, 1), long);
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let right = reply(Rtype::A, &[], "ONE.test", &[&[192, 0, 2, 1]]);
        let ip = Value::Ip("192.0.2.1".parse().unwrap());
        assert_eq!(judged(Rtype::A, &right), Verdict::Values(vec![ip]));
        // In turn: another id, a question instead of an answer, no question, another name, another
        // type.
        for (at, byte) in [(1, 0), (2, 0), (5, 0), (13, b'O' ^ 0x40), (23, 28)] {
            let mut wrong = right.clone();
            wrong[at] = byte;
            assert_eq!(judged(Rtype::A, &wrong), Verdict::Foreign, "byte {at}");
        }
        let other = reply(Rtype::A, &[], "two.test", &[&[192, 0, 2, 1]]);
        assert_eq!(judged(Rtype::A, &other), Verdict::Values(vec![]));
    }

    #[test]
    fn flags_and_codes_are_told_apart() {
        let answer = reply(Rtype::A, &[], "one.test", &[]);
        let with = |at: usize, bits: u8| {
            let mut answer = answer.clone();
            answer[at] |= bits;
            judged(Rtype::A, &answer)
        };
        assert_eq!(with(2, 0b10), Verdict::Truncated);
        assert_eq!(with(3, 3), Verdict::NoName);
        assert_eq!(with(3, 5), Verdict::Failed("it answers REFUSED".to_owned()));
    }

    #[test]
    fn strings_of_a_text_are_one() {
        let texts: [&[u8]; 2] = [b"\x03dns\x00\x05addr=", b"\x01\xff"];
        let reply = reply(Rtype::TXT, &[], "one.test", &texts);
        let [one, two] = [&b"dnsaddr="[..], b"\xff"].map(|text| Value::Text(text.to_vec()));
        assert_eq!(judged(Rtype::TXT, &reply), Verdict::Values(vec![one, two]));
    }

    #[test]
    fn alias_leads_to_its_records_and_a_circle_nowhere() {
        let ip: &[u8] = &[192, 0, 2, 1];
        // In the wrong order, as some servers send them.
        let aliases = [("two.test", "three.test"), ("one.test", "TWO.test")];
        let found = judged(Rtype::A, &reply(Rtype::A, &aliases, "three.test", &[ip]));
        assert!(matches!(found, Verdict::Values(values) if values.len() == 1));
        let circle = [("one.test", "two.test"), ("two.test", "one.test")];
        let found = judged(Rtype::A, &reply(Rtype::A, &circle, "one.test", &[ip]));
        assert!(malformed(&found), "{found:?}");
    }

    #[test]
    fn records_that_are_cut_short_are_malformed() {
        for data in [&[192, 0, 2][..], &[]] {
            let found = judged(Rtype::A, &reply(Rtype::A, &[], "one.test", &[data]));
            assert!(malformed(&found), "{found:?}");
        }
        let found = judged(
            Rtype::TXT,
            &reply(Rtype::TXT, &[], "one.test", &[b"\x05abc"]),
        );
        assert!(malformed(&found), "{found:?}");
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_judged_without_panic(
            rtype in prop::sample::select(vec![Rtype::A, Rtype::AAAA, Rtype::TXT]),
            counts in any::<[u8; 6]>(),
            tail in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xc0), 0..30_u8], 0..600),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            judged(rtype, &tail);
            // The right question, and anything after it.
            let mut head = reply(rtype, &[], "one.test", &[]);
            head[6..12].copy_from_slice(&counts);
            judged(rtype, &[&head[..], &tail].concat());
            let aliases = [("one.test", "two.test")];
            let mut right = reply(rtype, &aliases, "two.test", &[&[3; 4], &[15; 16]]);
            for (at, byte) in changes {
                *at.get_mut(&mut right) = byte;
            }
            judged(rtype, &right);
        }
    }
}
