use std::{cell::Cell, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::protocol::{
    Addrs,
    codec::{fixtures::*, service::Transport},
};

const TTL: Duration = Duration::from_secs(270);

fn record<'a>(addrs: &[&'a [u8]], name: &'a str, tags: &[(&'a str, &'a str)]) -> Record<'a> {
    Record {
        peer: PeerId::from_bytes([1; 32]),
        sequence: 1,
        issued_at_ms: 2,
        ttl: TTL,
        addrs: addrs.iter().copied().collect(),
        name,
        tags: tags.iter().copied().collect(),
        services: Services::new(),
        version: "",
        link_services: Default::default(),
        grant: &[],
    }
}

fn payload(record: &Record<'_>) -> Vec<u8> {
    encoded(|buffer| encode_record(record, buffer))
}

/// A verifier and signer that use the payload as the envelope, with `more` additional bytes.
struct Bare {
    more: usize,
}

impl Verifier for Bare {
    fn open(&self, _: Purpose, bytes: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), Flaw> {
        let payload = bytes.get(self.more..).ok_or(Flaw::NotAnEnvelope)?;
        Ok((self.peer(), payload.to_vec()))
    }
}

impl Signer for Bare {
    fn peer(&self) -> PeerId {
        PeerId::from_bytes([1; 32])
    }

    fn seal(&self, _: Kind, payload: &[u8], buffer: &mut [u8]) -> Result<Option<usize>, SignError> {
        let length = self.more + payload.len();
        Ok(buffer.get_mut(self.more..length).map(|room| {
            room.copy_from_slice(payload);
            length
        }))
    }
}

#[test]
fn a_signer_drops_the_last_addresses_until_the_envelope_has_1024_bytes() {
    let addrs: [[u8; 64]; 8] = core::array::from_fn(|i| [i as u8; 64]);
    let addrs: Vec<_> = addrs.iter().map(|addr| &addr[..]).collect();
    let all = payload(&record(&addrs, "a", &[])).len();
    let kept = |more| {
        let (bare, mut buffer) = (Bare { more }, [0; MAX_ENVELOPE_LEN]);
        let signed = sign(&bare, Kind::Node, record(&addrs, "a", &[]), &mut buffer)?;
        Ok(open(&bare, Kind::Node, signed, |record| record.addrs.len()).unwrap())
    };
    assert_eq!(kept(1024 - all), Ok(8));
    assert_eq!(kept(1024 - all + 1), Ok(7));
    assert_eq!(kept(1024), Err(SignError::NoAddress));
}

#[test]
fn a_grant_in_a_record_has_at_most_384_bytes_and_takes_the_place_of_addresses() {
    let grant = [7; 385];
    let with = |length: usize| Record {
        grant: &grant[..length],
        ..record(&[&[9; 64][..]; 8], "a", &[])
    };
    let read = |length| {
        let bytes = payload(&with(length));
        [Kind::Indexer, Kind::Node]
            .map(|kind| decode_record(kind, &bytes).map(|record| record.grant.len()))
    };
    for length in [0, 1, 384] {
        assert_eq!(read(length), [Ok(length), Ok(length)]);
    }
    let error = DecodeError::TooLong {
        field: "grant",
        length: 385,
        limit: 384,
    };
    assert_eq!(read(385), [Err(error.clone()), Err(error)]);
    let (bare, mut buffer) = (Bare { more: 110 }, [0; MAX_ENVELOPE_LEN]);
    let signed = sign(&bare, Kind::Node, with(384), &mut buffer).unwrap();
    let kept = |record: &Record<'_>| (record.addrs.len(), record.grant.len());
    let kept = open(&bare, Kind::Node, signed, kept).unwrap();
    assert_eq!(kept, (7, 384));
}

#[test]
fn the_rules_see_the_first_four_addresses() {
    let addrs: [&[u8]; 5] = [&[1], &[2], &[3], &[4], &[5]];
    let first: Addrs = addrs
        .iter()
        .take(4)
        .map(|addr| Addr::from_slice(addr).unwrap())
        .collect();
    assert_eq!(record(&addrs, "a", &[]).info().addrs, first);
}

const MULTICAST: &[u8] = &[4, 224, 0, 0, 1, 6, 1, 0];
const PORT_0: &[u8] = &[4, 192, 0, 2, 1, 6, 0, 0];
const DIALABLE: &[u8] = &[4, 192, 0, 2, 1, 6, 0, 1];

/// Counts what was left out.
#[derive(Default)]
struct Counting(Cell<usize>);

impl Verifier for Counting {
    fn open(&self, kind: Purpose, bytes: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), Flaw> {
        Bare { more: 0 }
            .open(kind, bytes)
            .map(|(peer, payload)| (peer, payload.as_ref().to_vec()))
    }

    fn left_out(&self, addresses: usize) {
        self.0.set(self.0.get() + addresses);
    }
}

#[test]
fn addresses_that_nobody_can_dial_are_left_out_of_a_record_and_counted() {
    let counting = Counting::default();
    let payload = payload(&record(&[MULTICAST, DIALABLE, PORT_0], "a", &[]));
    let read = open(&counting, Kind::Node, &payload, |record| {
        assert_eq!(record.addrs.as_slice(), [DIALABLE]);
        record.info().addrs.len()
    });
    assert_eq!((read, counting.0.get()), (Ok(1), 2));
    let whole = self::payload(&record(&[DIALABLE], "a", &[]));
    assert!(open(&counting, Kind::Node, &whole, |_| ()).is_ok());
    assert_eq!(counting.0.get(), 2);
}

#[test]
fn a_record_with_no_address_that_can_be_dialled_is_refused() {
    let error = DecodeError::OutOfBounds {
        field: "record's addresses",
        bound: "1 to 8 addresses, of which one can be dialled",
    };
    let payload = payload(&record(&[MULTICAST, PORT_0], "a", &[]));
    assert_eq!(decode_record(Kind::Node, &payload), Err(error));
}

#[test]
fn a_payload_is_refused_for_what_is_out_of_bounds() {
    let refused = |kind, payload: &[u8]| decode_record(kind, payload).unwrap_err();
    // The encoder cannot write too many items, so nine copies of an item are spliced in.
    let nine = |record: &Record<'_>, one: &[u8], many: &[u8]| {
        let bytes = payload(record);
        let at = bytes
            .windows(one.len())
            .position(|window| window == one)
            .unwrap();
        [&bytes[..at], many, &bytes[at + one.len()..]].concat()
    };
    let one = record(&[&[9]], "a", &[("k", "v")]);
    let many = [&[4, 0x89][..], &[0x41, 9].repeat(9)].concat();
    let error = DecodeError::TooMany {
        field: "record's addresses",
        count: 9,
        limit: 8,
    };
    assert_eq!(
        refused(Kind::Node, &nine(&one, &[4, 0x81, 0x41, 9], &many)),
        error
    );
    let error = DecodeError::OutOfBounds {
        field: "record's addresses",
        bound: "1 to 8 addresses",
    };
    assert_eq!(
        refused(Kind::Indexer, &payload(&record(&[], "", &[]))),
        error
    );
    let error = DecodeError::TooLong {
        field: "address",
        length: 65,
        limit: 64,
    };
    assert_eq!(
        refused(Kind::Indexer, &payload(&record(&[&[1; 65]], "", &[]))),
        error
    );
    let error = DecodeError::OutOfBounds {
        field: "address",
        bound: "1 to 64 bytes",
    };
    assert_eq!(
        refused(Kind::Indexer, &payload(&record(&[&[]], "", &[]))),
        error
    );

    fn node(name: &str, tags: &[(&str, &str)]) -> Vec<u8> {
        payload(&record(&[&[9]], name, tags))
    }
    let error = DecodeError::Missing {
        field: "record",
        key: 5,
    };
    assert_eq!(refused(Kind::Node, &node("", &[])), error);
    let error = DecodeError::OutOfBounds {
        field: "name",
        bound: "1 to 63 of a-z 0-9 - .",
    };
    assert_eq!(refused(Kind::Node, &node("A", &[])), error);
    let many = [&[6, 0xa9][..], &[0x61, b'k', 0x61, b'v'].repeat(9)].concat();
    let error = DecodeError::TooMany {
        field: "tags",
        count: 9,
        limit: 8,
    };
    let tag = [6, 0xa1, 0x61, b'k', 0x61, b'v'];
    assert_eq!(refused(Kind::Node, &nine(&one, &tag, &many)), error);
    let error = DecodeError::TooLong {
        field: "tags",
        length: 257,
        limit: 256,
    };
    let (long, short) = ("v".repeat(128), "v".repeat(127));
    assert_eq!(
        refused(Kind::Node, &node("a", &[("k", &long), ("l", &short)])),
        error
    );
    let twice = [("k", "1"), ("k", "2")];
    let error = DecodeError::Duplicate { field: "tags" };
    assert_eq!(refused(Kind::Node, &node("a", &twice)), error);
}

/// A node's record with these bytes at key 7.
fn with_services(services: &[u8]) -> Result<Services, DecodeError> {
    let bytes = payload(&record(&[&[9]], "a", &[]));
    let (map, entries) = bytes.split_first().unwrap();
    let bytes = [&[map + 1][..], entries, &[7], services].concat();
    decode_record(Kind::Node, &bytes).map(|record| record.services)
}

#[test]
fn services_are_read_up_to_their_bounds() {
    let service = |name: &str, transport: u8, port: &[u8]| {
        let length = [0x83, 0x60 + name.len() as u8];
        [&length, name.as_bytes(), &[transport], port].concat()
    };
    let listed = |count: u8, service: &[u8]| {
        let items = service.repeat(count.into());
        with_services(&[&[0x80 + count][..], &items].concat())
    };
    let last = [0x19, 0xff, 0xff];
    let read = listed(8, &service("abcdefghijklmno", 1, &last)).unwrap();
    assert_eq!(read.len(), 8);
    assert_eq!((read[7].transport, read[7].port), (Transport::Udp, 65535));
    let field = "services";
    let (count, limit) = (9, 8);
    let error = DecodeError::TooMany {
        field,
        count,
        limit,
    };
    assert_eq!(listed(9, &service("a", 0, &[1])), Err(error));
    let bound = "1 to 8 services";
    assert_eq!(
        listed(0, &[]),
        Err(DecodeError::OutOfBounds { field, bound })
    );

    let one = |name, transport, port: &[u8]| listed(1, &service(name, transport, port));
    assert!(one("a", 0, &[1]).is_ok());
    let (field, bound) = ("service's port", "1 to 65535");
    let no_port = Err(DecodeError::OutOfBounds { field, bound });
    assert_eq!(one("a", 0, &[0]), no_port);
    assert_eq!(one("a", 0, &[0x1a, 0, 1, 0, 0]), no_port);
    let (field, code) = ("service's transport", 2);
    assert_eq!(
        one("a", 2, &[1]),
        Err(DecodeError::UnknownCode { field, code })
    );
    let too_long = DecodeError::TooLong {
        field: "service's name",
        length: 16,
        limit: 15,
    };
    assert_eq!(one("abcdefghijklmnop", 0, &[1]), Err(too_long));
    assert!(matches!(
        one("A", 0, &[1]),
        Err(DecodeError::OutOfBounds { .. })
    ));
    let bound = "3 items";
    let two = [0x82, 0x61, b'a', 0];
    let field = "service";
    assert_eq!(
        listed(1, &two),
        Err(DecodeError::OutOfBounds { field, bound })
    );
}

#[test]
fn a_later_key_of_an_indexer_is_skipped() {
    let bytes = payload(&record(&[&[9]], "A", &[]));
    assert_eq!(decode_record(Kind::Indexer, &bytes).unwrap().name, "");
}

proptest! {
    #[test]
    fn payloads_are_read_back(
        sequence: u64, issued_at_ms: u64, ttl in 0..=3_600_000u64, addrs in any_addrs(8),
        name in "[a-z0-9.-]{1,63}", values in prop::collection::vec("[ -~]{0,20}", 0..=8),
        services in prop::collection::vec(any_service(), 0..=8), version in "[ -~]{0,16}")
    {
        let keys: Vec<_> = (0..8).map(|i| format!("{i}")).collect();
        let tags = keys.iter().zip(&values).map(|(key, value)| (key.as_str(), value.as_str()));
        let record = Record {
            peer: PeerId::from_bytes([9; 32]),
            sequence,
            issued_at_ms,
            ttl: Duration::from_millis(ttl),
            addrs: addrs.iter().map(|addr| addr.as_slice()).collect(),
            name: &name,
            tags: tags.collect(),
            services: services.into_iter().collect(),
            version: &version,
            link_services: Default::default(),
            grant: &[],
        };
        let bytes = payload(&record);
        prop_assert_eq!(decode_record(Kind::Node, &bytes), Ok(record));
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_record(Kind::Node, &bytes);
        let _ = decode_record(Kind::Indexer, &bytes);
    }
}
