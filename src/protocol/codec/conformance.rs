//! Checks the codec against `oc-discovery.cddl`, with a validator that shares no code with it.
//!
//! Every message that the encoders write is valid, and so is every damaged message that the
//! decoders accept. Decoder and definition also agree about every value of a long list at every key
//! of every map. They may differ only where CDDL cannot express what the decoder requires.

use cddl_cat::{cbor::validate_cbor, context::BasicContext, flatten::flatten_from_str};
use proptest::prelude::*;

use super::{
    DecodeError,
    directory::{Room, decode_request, decode_response, encode_request, encode_response},
    fixtures::*,
    grant::{decode_grant, encode_grant},
    heartbeat::{decode_ack, decode_beat, encode_ack, encode_beat},
    link_service::{LinkService, LinkServices},
    record::{Kind, Record, decode_record, encode_record},
    revocation::{decode_revocation, encode_revocation},
    watch::{Notice, decode_ask, decode_notice, encode_ask, encode_notice},
};
use crate::protocol::PeerId;

const DEFINITIONS: &str = include_str!("oc-discovery.cddl");

std::thread_local! {
    /// The definitions, read once for each test.
    static RULES: BasicContext = BasicContext::new(flatten_from_str(DEFINITIONS).unwrap());
}

fn validate(rule: &str, bytes: &[u8]) -> Result<(), String> {
    let value = ciborium::from_reader(bytes).map_err(|error| format!("{error}"))?;
    RULES.with(|rules| {
        let rule = rules.rules.get(rule).unwrap();
        validate_cbor(rule, &value, rules).map_err(|error| error.to_string())
    })
}

/// The result of the rule's decoder for the bytes.
fn decode(rule: &str, bytes: &[u8]) -> Result<(), DecodeError> {
    match rule {
        "beat" => decode_beat(bytes).map(drop),
        "ack" => decode_ack(bytes).map(drop),
        "request" => decode_request(bytes).map(drop),
        "response" => decode_response(bytes, &mut Room::default()).map(drop),
        "indexer-record" => decode_record(Kind::Indexer, bytes).map(drop),
        "node-record" => decode_record(Kind::Node, bytes).map(drop),
        "watch" => decode_ask(bytes).map(drop),
        "change" => decode_notice(bytes).map(drop),
        "grant" => decode_grant(bytes).map(drop),
        "revocation" => decode_revocation(bytes).map(drop),
        _ => panic!("no decoder for {rule}"),
    }
}

/// Whether the error is about something that CDDL, or the validator, cannot express.
fn is_beyond_cddl(error: &DecodeError) -> bool {
    match error {
        DecodeError::NotEd25519 { .. } | DecodeError::Duplicate { .. } => true,
        // The bytes of all tags together.
        DecodeError::TooLong {
            field: "tags" | "tags asked for",
            ..
        } => true,
        // The definition's regular expression must match the whole name (RFC 8610, 3.8.3); this
        // validator accepts a match of a part.
        DecodeError::TooLong {
            field: "name" | "service's name" | "service asked for" | "grant's name",
            ..
        } => true,
        // The places of letters and hyphens in the name of a service.
        DecodeError::OutOfBounds {
            field: "service's name" | "service asked for",
            ..
        } => true,
        _ => false,
    }
}

fn check_agreement(rule: &str, bytes: &[u8]) {
    let (decoded, validated) = (decode(rule, bytes), validate(rule, bytes));
    match (&decoded, &validated) {
        (Ok(()), Ok(())) | (Err(_), Err(_)) => {}
        (Err(error), Ok(())) if is_beyond_cddl(error) => {}
        _ => panic!("{rule} {bytes:02x?}: decoder {decoded:?}, definition {validated:?}"),
    }
}

fn uint(value: u64) -> Vec<u8> {
    written(|w| w.u64(value)?.ok())
}

fn bytes(length: usize) -> Vec<u8> {
    written(|w| w.bytes(&vec![0; length])?.ok())
}

fn text(length: usize) -> Vec<u8> {
    written(|w| w.str(&"a".repeat(length))?.ok())
}

fn peer() -> Vec<u8> {
    item(PeerId::from_bytes([1; 32]))
}

fn list(count: usize, item: &[u8]) -> Vec<u8> {
    let mut list = written(|w| w.array(count as u64)?.ok());
    (0..count).for_each(|_| list.extend_from_slice(item));
    list
}

fn tags(count: usize) -> Vec<u8> {
    written(|w| {
        w.map(count as u64)?;
        for i in 0..count {
            w.str(&i.to_string())?.str("v")?;
        }
        w.ok()
    })
}

fn service(port: u64) -> Vec<u8> {
    written(|w| w.array(3)?.str("http")?.u8(0)?.u64(port)?.ok())
}

/// A service of a device: bytes of its name, and of its addresses.
fn link_service(name: usize, addrs: &[usize]) -> Vec<u8> {
    let mut list = written(|w| w.array(3)?.str(&"\u{e9}".repeat(name / 2))?.ok());
    list.extend(service(631));
    list.extend(written(|w| w.array(addrs.len() as u64)?.ok()));
    addrs.iter().for_each(|length| list.extend(bytes(*length)));
    list
}

type Entry = (u64, Vec<u8>);

fn map(entries: &[Entry]) -> Vec<u8> {
    let mut map = written(|w| w.map(entries.len() as u64)?.ok());
    for (key, value) in entries {
        map.extend(uint(*key));
        map.extend(value);
    }
    map
}

/// Values of every type, and at every bound that a field has.
fn samples() -> Vec<Vec<u8>> {
    let numbers = [
        0,
        1,
        2,
        3,
        4,
        7,
        8,
        255,
        256,
        65_535,
        65_536,
        3_600_000,
        3_600_001,
        u64::MAX,
    ]
    .map(uint);
    let byte_strings = [0, 3, 37, 38, 39, 384, 385, 1024, 1025, 4000, 4001].map(bytes);
    let texts = [0, 1, 15, 16, 17, 63, 64, 128, 129].map(text);
    let others = [
        vec![0x20], // -1
        written(|w| w.str("A")?.ok()),
        vec![0xf4],
        vec![0xf5],
        vec![0xf6],
        vec![0xf9, 0x3c, 0x00], // 1.0
        vec![0xa0],
        vec![0xa1, 0x01, 0x01],
        vec![0xa1, 0x61, b'a', 0x01],
        vec![0x82, 0x01, 0x20],
        peer(),
        tags(1),
        tags(8),
        tags(9),
    ];
    let lists = [0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 96, 97]
        .into_iter()
        .flat_map(|count| {
            let items = [
                uint(7),
                bytes(0),
                bytes(1024),
                bytes(1025),
                peer(),
                bytes(64),
                bytes(65),
                text(1),
                item(long_offer(1)),
                service(65_535),
                service(65_536),
                link_service(62, &[4]),
                link_service(64, &[4]),
                link_service(0, &[4]),
                link_service(2, &[]),
                link_service(2, &[16, 4, 4]),
                link_service(2, &[5]),
            ];
            items.map(|item| list(count, &item))
        });
    let mut samples = Vec::new();
    samples.extend(numbers);
    samples.extend(byte_strings);
    samples.extend(texts);
    samples.extend(others);
    samples.extend(lists);
    samples
}

/// An entry of a list of nodes that has all of its keys.
fn entry() -> Vec<Entry> {
    vec![
        (0, bytes(9)),
        (1, uint(5)),
        (2, uint(2)),
        (3, peer()),
        (4, text(4)),
    ]
}

/// Each rule, with a message that has all of its keys.
fn full_messages() -> Vec<(&'static str, Vec<Entry>)> {
    let addrs = || list(2, &bytes(20));
    let record = || {
        vec![
            (0, peer()),
            (1, uint(1)),
            (2, uint(2)),
            (3, uint(3)),
            (4, addrs()),
            (8, bytes(9)),
            (9, text(5)),
        ]
    };
    let node = [
        record(),
        vec![(5, text(3)), (6, tags(2)), (7, list(2, &service(80)))],
        vec![(10, list(2, &link_service(6, &[4, 16])))],
    ]
    .concat();
    vec![
        (
            "beat",
            vec![
                (0, uint(0)),
                (1, uint(2)),
                (2, uint(90_000)),
                (3, bytes(9)),
                (4, list(2, &uint(5))),
                (5, list(2, &peer())),
                (6, bytes(9)),
                (7, uint(3)),
                (8, vec![0xf4]),
            ],
        ),
        (
            "ack",
            vec![
                (0, uint(0)),
                (1, uint(3)),
                (2, uint(90_000)),
                (3, list(1, &item(long_offer(1)))),
                (4, text(9)),
                (5, uint(5)),
                (6, vec![0xf5]),
                (7, list(2, &peer())),
                (8, bytes(9)),
                (9, uint(3)),
            ],
        ),
        (
            "request",
            vec![(0, uint(0)), (1, uint(4)), (2, uint(2)), (3, peer())],
        ),
        ("request", vec![(0, uint(1)), (1, text(4)), (2, vec![0xf5])]),
        ("request", vec![(0, uint(2)), (1, peer()), (2, vec![0xf5])]),
        (
            "response",
            vec![
                (0, uint(0)),
                (1, list(1, &item(long_offer(1)))),
                (2, vec![0xf4]),
                (3, peer()),
            ],
        ),
        (
            "request",
            vec![
                (0, uint(3)),
                (1, text(4)),
                (2, text(4)),
                (3, tags(2)),
                (4, peer()),
                (5, vec![0xf5]),
            ],
        ),
        (
            "response",
            vec![(0, uint(3)), (1, list(2, &map(&entry()))), (2, peer())],
        ),
        (
            "response",
            vec![
                (0, uint(1)),
                (1, list(1, &bytes(9))),
                (2, vec![0xf4]),
                (3, list(2, &uint(7))),
                (4, list(1, &uint(7))),
                (5, list(2, &uint(7))),
                (6, list(1, &uint(7))),
            ],
        ),
        ("request", vec![(0, uint(4))]),
        ("response", vec![(0, uint(4)), (1, bytes(9))]),
        ("request", vec![(0, uint(5)), (1, uint(4820))]),
        (
            "response",
            vec![(0, uint(5)), (1, uint(2)), (2, text(9)), (3, bytes(9))],
        ),
        ("response", vec![(0, uint(255)), (1, text(9))]),
        ("watch", vec![(1, text(4)), (2, text(4)), (3, tags(2))]),
        ("change", vec![(0, uint(3)), (1, map(&entry()))]),
        ("indexer-record", record()),
        ("node-record", node),
        (
            "grant",
            vec![
                (0, peer()),
                (1, uint(7)),
                (2, list(2, &text(4))),
                (3, uint(5)),
                (4, uint(6)),
            ],
        ),
        (
            "revocation",
            vec![(0, uint(1)), (1, uint(2)), (2, list(2, &peer()))],
        ),
    ]
}

/// Calls `check` with the message, without each of its keys, with each sample at each of its keys,
/// and with each sample at an unknown key.
fn variants(entries: &[Entry], mut check: impl FnMut(&[Entry])) {
    check(entries);
    for index in 0..entries.len() {
        let mut without = entries.to_vec();
        without.remove(index);
        check(&without);
        for sample in samples() {
            let mut with = entries.to_vec();
            with[index].1 = sample;
            check(&with);
        }
    }
    for sample in samples() {
        let mut more = entries.to_vec();
        more.insert(1, (100, sample));
        check(&more);
    }
}

#[test]
fn decoder_and_definition_agree_on_every_value_at_every_key() {
    for (rule, entries) in full_messages() {
        let whole = map(&entries);
        assert_eq!(
            (decode(rule, &whole), validate(rule, &whole)),
            (Ok(()), Ok(())),
            "{rule}"
        );
        variants(&entries, |entries| check_agreement(rule, &map(entries)));
    }
}

#[test]
fn decoder_and_definition_agree_on_offers() {
    let offer = [
        (0, peer()),
        (1, list(4, &bytes(20))),
        (2, uint(5)),
        (3, uint(6)),
    ];
    variants(&offer, |offer| {
        let ack = [
            (0, uint(0)),
            (1, uint(1)),
            (2, uint(5)),
            (3, list(1, &map(offer))),
        ];
        check_agreement("ack", &map(&ack));
    });
}

#[test]
fn decoder_and_definition_agree_on_entries() {
    variants(&entry(), |entry| {
        let page = [(0, uint(3)), (1, list(1, &map(entry)))];
        check_agreement("response", &map(&page));
        // The entry of "caught up" has no meaning, and the validator takes any value for it.
        for code in [0, 1, 2, 3, 5] {
            let change = [(0, uint(code)), (1, map(entry))];
            check_agreement("change", &map(&change));
        }
    });
}

#[test]
fn decoder_and_definition_refuse_other_keys_than_unsigned_integers() {
    for (rule, entries) in full_messages() {
        for key in [[0x61, b'a'].as_slice(), &[0x20], &[0x41, 0], &[0xf5]] {
            let mut bytes = map(&entries);
            bytes[0] += 1;
            bytes.extend_from_slice(key);
            bytes.push(0);
            assert!(
                decode(rule, &bytes).is_err() && validate(rule, &bytes).is_err(),
                "{rule}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_the_encoders_write_validates(
        sequence: u64, beat in any_out_beat(), record in any_record(), ack in any_ack(),
        clock in any_clock(), known in any_known(), request in any_request(),
        response in any_response(), membership in any_membership(), grant in any_grant(), filter in any_filter(), entry in any_entry(), addrs in any_addrs(8), name in "[a-z0-9.-]{1,63}",
        services in prop::collection::vec(any_service(), 0..=8), version in "[ -~]{0,16}")
    {
        let devices = services.iter().map(|service| LinkService {
            device: &version,
            service: service.clone(),
            addrs: [[192, 0, 2, 1].into(), [7; 16].into()].into_iter().collect(),
        });
        let devices: Vec<_> = devices.collect();
        let mut room = [0; 1024];
        let node = Record {
            peer: PeerId::from_bytes([1; 32]),
            sequence,
            issued_at_ms: 1,
            ttl: std::time::Duration::from_secs(270),
            addrs: addrs.iter().map(|addr| addr.as_slice()).collect(),
            name: &name,
            tags: [("room", "12")].into_iter().collect(),
            services: services.iter().cloned().collect(),
            version: &version,
            link_services: LinkServices::new(devices.iter(), &mut room),
            grant: membership.grant.unwrap_or_default(),
        };
        let indexer = Record {
            name: "",
            tags: Default::default(),
            services: Default::default(),
            link_services: Default::default(),
            grant: &[],
            ..node.clone()
        };
        let written = [
            ("beat", encoded(|buffer| encode_beat(sequence, &beat, record.as_deref(), &known, membership, buffer))),
            ("ack", encoded(|buffer| encode_ack(sequence, &ack.as_ack(), clock, membership, buffer))),
            ("request", encoded(|buffer| encode_request(&request, buffer))),
            ("response", encoded(|buffer| encode_response(&response, buffer))),
            ("watch", encoded(|buffer| encode_ask(&filter, buffer))),
            ("change", encoded(|buffer| encode_notice(&Notice::Present(entry), buffer))),
            ("change", encoded(|buffer| encode_notice(&Notice::Gone(entry), buffer))),
            ("change", encoded(|buffer| encode_notice(&Notice::CaughtUp, buffer))),
            ("indexer-record", encoded(|buffer| encode_record(&indexer, buffer))),
            ("node-record", encoded(|buffer| encode_record(&node, buffer))),
            ("grant", encoded(|buffer| encode_grant(&grant, buffer))),
            ("revocation", encoded(|buffer| encode_revocation(sequence, 1, &known, buffer))),
        ];
        for (rule, bytes) in written {
            prop_assert_eq!(validate(rule, &bytes), Ok(()), "{} {:02x?}", rule, bytes);
        }
    }
}

#[test]
fn what_the_decoders_accept_of_damaged_messages_validates() {
    for (rule, entries) in full_messages() {
        let mut accepted = 0;
        mutations(&map(&entries), |bytes| {
            if decode(rule, bytes).is_ok() {
                accepted += 1;
                assert_eq!(validate(rule, bytes), Ok(()), "{rule} {bytes:02x?}");
            }
        });
        assert!(accepted > 0, "{rule}");
    }
}
