use proptest::{collection::vec, prelude::*};

use super::*;
use crate::protocol::{
    Addrs,
    codec::{
        DecodeError,
        fixtures::mutations,
        record::{MAX_TTL, encode_record},
        service::{Transport, to_service_name},
    },
};

const TTL: Duration = Duration::from_secs(270);

fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn peer(seed: u8) -> PeerId {
    PeerId::try_from(key(seed).public().to_peer_id()).unwrap()
}

fn addr(number: u16) -> Multiaddr {
    format!("/ip4/10.0.0.1/tcp/{number}").parse().unwrap()
}

fn long_addr(length: usize) -> Multiaddr {
    let addr: Multiaddr = format!("/dns4/{}/tcp/1", "a".repeat(length - 5))
        .parse()
        .unwrap();
    assert_eq!(addr.len(), length);
    addr
}

fn tags(count: usize, bytes: usize) -> Vec<(String, String)> {
    let tag = |i: usize| (format!("{i}"), "v".repeat(bytes / count - 1));
    (0..count).map(tag).collect()
}

fn about(name: &str, tags: &[(String, String)]) -> About {
    About {
        name: name.into(),
        tags: tags.to_vec(),
        services: vec![],
        link_services: vec![],
    }
}

fn service(name: &str, port: u16) -> Service {
    Service {
        name: to_service_name(name).unwrap(),
        transport: Transport::Tcp,
        port,
    }
}

fn any_multiaddrs() -> impl Strategy<Value = Vec<Multiaddr>> {
    let text = prop_oneof![
        any::<(std::net::Ipv4Addr, u16)>().prop_map(|(ip, port)| format!("/ip4/{ip}/tcp/{port}")),
        any::<(std::net::Ipv6Addr, u16)>().prop_map(|(ip, port)| format!("/ip6/{ip}/tcp/{port}")),
        ("[a-z]{1,50}", any::<u16>()).prop_map(|(name, port)| format!("/dns4/{name}/tcp/{port}")),
    ];
    let addr = text.prop_map(|text| text.parse().unwrap());
    let addr = addr.prop_filter("nobody can dial it", |addr: &Multiaddr| {
        crate::protocol::address::can_be_dialled(addr.as_ref())
    });
    vec(addr, 1..=8)
}

/// An envelope with any payload, signed as the kind's own.
fn envelope(kind: Kind, seed: u8, payload: Vec<u8>) -> Vec<u8> {
    let payload_type = kind.payload_type().to_vec();
    let envelope = SignedEnvelope::new(&key(seed), kind.domain().into(), payload_type, payload);
    envelope.unwrap().into_protobuf_encoding()
}

fn record(subject: u8, ttl: Duration, addrs: &[Multiaddr]) -> Record<'_> {
    Record {
        peer: peer(subject),
        sequence: 1,
        issued_at_ms: 2,
        ttl,
        addrs: addrs.iter().map(AsRef::as_ref).collect(),
        name: "",
        tags: Tags::new(),
        services: Default::default(),
        version: "",
        link_services: Default::default(),
        grant: &[],
    }
}

fn payload(record: &Record<'_>) -> Vec<u8> {
    encode_record(record, &mut [0; 2048]).unwrap().to_vec()
}

fn refused(kind: Kind, payload: Vec<u8>) -> DecodeError {
    match open(&Libp2p, kind, &envelope(kind, 1, payload), opened) {
        Err(RecordError::Payload(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_indexers_record_says_what_was_signed() {
    let addrs: Vec<_> = (1..=8).map(addr).collect();
    let bytes = sign_indexer(&key(1), 7, 1_000, TTL, &addrs).unwrap();
    let record = open_indexer(&bytes).unwrap();
    let info = &record.info;
    assert_eq!(
        (info.peer, info.sequence, info.issued_at_ms, info.ttl),
        (peer(1), 7, 1_000, TTL)
    );
    assert_eq!((info.name.as_str(), record.about.tags.len()), ("", 0));
    assert_eq!(record.addrs, addrs);
    let first: Addrs = addrs[..4]
        .iter()
        .map(|addr| to_addr(addr).unwrap())
        .collect();
    assert_eq!(info.addrs, first);
}

#[test]
fn a_nodes_record_carries_name_tags_and_services() {
    let mut about = about("pump-3", &[]);
    about.tags = vec![("room".into(), "12".into()), ("zone".into(), "ä".into())];
    about.services = vec![service("http", 80)];
    let bytes = sign_node(&key(1), 1, 2, TTL, &[addr(1)], &about).unwrap();
    let record = open_node(&bytes).unwrap();
    assert_eq!(record.info.name, "pump-3");
    assert_eq!(record.about, about);
}

#[test]
fn a_record_does_not_pass_as_the_other_kind() {
    let indexer = sign_indexer(&key(1), 1, 2, TTL, &[addr(1)]).unwrap();
    let node = sign_node(&key(1), 1, 2, TTL, &[addr(1)], &about("a", &[])).unwrap();
    assert_eq!(
        open_node(&indexer),
        Err(RecordError::Envelope(Flaw::WrongType))
    );
    assert_eq!(
        open_indexer(&node),
        Err(RecordError::Envelope(Flaw::WrongType))
    );
}

#[test]
fn the_domain_is_part_of_the_signature() {
    let payload_type = Kind::Indexer.payload_type().to_vec();
    let payload = payload(&record(1, TTL, &[addr(1)]));
    let domain = Kind::Node.domain().into();
    let wrong = SignedEnvelope::new(&key(1), domain, payload_type, payload).unwrap();
    assert_eq!(
        open_indexer(&wrong.into_protobuf_encoding()),
        Err(RecordError::Envelope(Flaw::BadSignature))
    );
}

#[test]
fn a_forged_record_is_refused() {
    let good = sign_indexer(&key(1), 1, 2, TTL, &[addr(1)]).unwrap();
    assert!(open_indexer(&good).is_ok());
    mutations(&good, |forged| {
        // A mutation of the protobuf may keep its meaning. What opens must be the record that was
        // signed.
        if let Ok(record) = open_indexer(forged) {
            assert!(
                forged == good || record == open_indexer(&good).unwrap(),
                "{forged:02x?}"
            );
        }
    });
}

#[test]
fn a_record_about_someone_else_is_refused() {
    let moved = payload(&record(2, TTL, &[addr(1)]));
    assert_eq!(
        open_indexer(&envelope(Kind::Indexer, 1, moved)),
        Err(RecordError::WrongSubject)
    );
}

#[test]
fn every_cut_is_refused() {
    let good = sign_node(&key(1), 1, 2, TTL, &[addr(1)], &about("a", &tags(2, 20))).unwrap();
    for end in 0..good.len() {
        assert!(open_node(&good[..end]).is_err());
    }
}

#[test]
fn an_envelope_has_at_most_1024_bytes() {
    // An unknown protobuf field of any length pads an envelope without touching its signature.
    let padded = |length: usize| {
        let mut bytes = sign_indexer(&key(1), 1, 2, TTL, &[addr(1)]).unwrap();
        let rest = length - bytes.len() - 3;
        bytes.extend([0x7a, (rest & 0x7f) as u8 | 0x80, (rest >> 7) as u8]);
        bytes.resize(length, 0);
        bytes
    };
    assert!(open_indexer(&padded(1024)).is_ok());
    assert_eq!(
        open_indexer(&padded(1025)),
        Err(RecordError::TooLong { length: 1025 })
    );
}

#[test]
fn a_signer_drops_its_last_addresses_until_the_record_fits() {
    let addrs: Vec<_> = (0..8).map(|i| long_addr(64 - i)).collect();
    let mut about = about(&"n".repeat(63), &tags(8, 256));
    about.services = vec![service(&"s".repeat(15), u16::MAX); 8];
    let bytes = sign_node(&key(1), u64::MAX, u64::MAX, MAX_TTL, &addrs, &about).unwrap();
    assert!(bytes.len() <= MAX_ENVELOPE_LEN);
    let OpenRecord {
        addrs: kept,
        about: read,
        ..
    } = open_node(&bytes).unwrap();
    assert_eq!(read, about, "only addresses are left out");
    assert!(kept.len() < 8 && kept.len() > 3, "{}", kept.len());
    assert_eq!(kept, addrs[..kept.len()]);
}

#[test]
fn services_of_the_link_come_back_and_the_last_give_way_before_any_address() {
    let device = |n: u8| DeviceService {
        device: format!("{n:04} Drucker im B\u{fc}ro"),
        service: service("ipp", 631),
        addrs: vec![[192, 0, 2, n].into()],
    };
    let mut about = about("office", &[]);
    about.link_services = (1..=3).map(device).collect();
    let addrs: Vec<_> = (0..8).map(|i| long_addr(64 - i)).collect();
    let sign = |about: &About| {
        let bytes = sign_node(&key(1), 1, 1, MAX_TTL, &addrs, about).unwrap();
        assert!(bytes.len() <= MAX_ENVELOPE_LEN);
        open_node(&bytes).unwrap()
    };
    assert_eq!(sign(&about).about, about);
    about.link_services = (1..=64).map(device).collect();
    let read = sign(&about);
    let kept = read.about.link_services.len();
    assert!((4..16).contains(&kept), "{kept}");
    assert_eq!(read.about.link_services, about.link_services[..kept]);
    assert_eq!(read.addrs, addrs);
}

#[test]
fn a_signer_leaves_out_what_cannot_be_announced() {
    let named: Multiaddr = format!("/ip4/10.0.0.1/tcp/1/p2p/{}", key(1).public().to_peer_id())
        .parse()
        .unwrap();
    let addrs = [
        long_addr(65),
        named.clone(),
        addr(1),
        Multiaddr::empty(),
        long_addr(64),
    ];
    let bytes = sign_indexer(&key(1), 1, 2, TTL, &addrs).unwrap();
    assert_eq!(
        open_indexer(&bytes).unwrap().addrs,
        [addr(1), long_addr(64)]
    );
    let none = sign_indexer(&key(1), 1, 2, TTL, &[named, long_addr(65)]);
    assert_eq!(none, Err(SignError::NoAddress));
    let ten: Vec<_> = (1..=10).map(addr).collect();
    let bytes = sign_indexer(&key(1), 1, 2, TTL, &ten).unwrap();
    assert_eq!(open_indexer(&bytes).unwrap().addrs, ten[..8]);
}

#[test]
fn a_signer_refuses_what_no_reader_would_take() {
    let sign = |ttl, name: &str, tags: &[(String, String)]| {
        sign_node(&key(1), 1, 2, ttl, &[addr(1)], &about(name, tags))
            .map(|bytes| open_node(&bytes).unwrap())
    };
    assert!(sign(MAX_TTL, "a", &tags(8, 256)).is_ok());
    let over = MAX_TTL + Duration::from_millis(1);
    assert_eq!(sign(over, "a", &[]), Err(SignError::TimeToLive(over)));
    assert_eq!(sign(TTL, "A", &[]), Err(SignError::Name));
    assert_eq!(sign(TTL, "", &[]), Err(SignError::Name));
    assert_eq!(sign(TTL, "a", &tags(9, 90)), Err(SignError::TooManyTags(9)));
    assert_eq!(
        sign(TTL, "a", &tags(1, 257)),
        Err(SignError::TagsTooLong(257))
    );
    let twice = [("k".into(), "1".into()), ("k".into(), "2".into())];
    assert_eq!(sign(TTL, "a", &twice), Err(SignError::TagTwice));
}

#[test]
fn a_reader_leaves_out_addresses_that_it_cannot_dial() {
    let named: Multiaddr = format!("/ip4/10.0.0.1/tcp/1/p2p/{}", key(1).public().to_peer_id())
        .parse()
        .unwrap();
    let good = addr(1);
    let mut odd = record(1, TTL, &[]);
    odd.addrs
        .extend([&[0xff, 0xff][..], named.as_ref(), good.as_ref()]);
    let bytes = envelope(Kind::Indexer, 1, payload(&odd));
    assert_eq!(
        open_indexer(&bytes).unwrap().addrs,
        std::slice::from_ref(&good)
    );
}

#[test]
fn a_readers_bounds_hold_even_for_signed_payloads() {
    let one = [addr(1)];
    let ttl = |ms| payload(&record(1, Duration::from_millis(ms), &one));
    assert!(open_indexer(&envelope(Kind::Indexer, 1, ttl(3_600_000))).is_ok());
    let error = DecodeError::OutOfBounds {
        field: "record's time to live",
        bound: "at most 3600000 ms",
    };
    assert_eq!(refused(Kind::Indexer, ttl(3_600_001)), error);
}

proptest! {
    #[test]
    fn records_are_read_back(
        sequence: u64, issued: u64, ttl in 0..=3_600_000u64, addrs in any_multiaddrs(), name in "[a-z0-9.-]{1,63}")
    {
        let ttl = Duration::from_millis(ttl);
        let bytes = sign_node(&key(9), sequence, issued, ttl, &addrs, &about(&name, &[])).unwrap();
        let record = open_node(&bytes).unwrap();
        prop_assert_eq!(record.info.sequence, sequence);
        prop_assert_eq!(record.info.issued_at_ms, issued);
        prop_assert_eq!(record.info.ttl, ttl);
        prop_assert_eq!(record.info.name.as_str(), name);
        prop_assert_eq!(record.addrs, addrs);
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(open_indexer(&bytes).is_err());
        let _ = open_node(&envelope(Kind::Node, 1, bytes));
    }
}
