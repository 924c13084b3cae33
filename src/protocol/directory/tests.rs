use core::time::Duration;

use super::*;
use crate::protocol::{
    Cursor, Filter, StreamId,
    codec::{
        record::{Record, encode_record},
        service::{Service, Transport, to_service_name},
    },
};

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn info(n: u8, name: &str, sequence: u64) -> RecordInfo {
    RecordInfo {
        peer: peer(n),
        sequence,
        issued_at_ms: sequence,
        ttl: Duration::from_secs(1),
        addrs: Default::default(),
        name: Name::try_from(name).unwrap(),
    }
}

#[test]
fn every_claimant_of_a_name_is_found_the_oldest_claim_first() {
    let mut directory = Directory::<8>::new();
    assert!(directory.list(at(0), &info(2, "pump", 5), b"two"));
    assert!(directory.list(at(1), &info(1, "pump", 9), b"one"));
    assert!(directory.list(at(1), &info(3, "fan", 7), b"three"));
    let Claimants { nodes, more, .. } = directory.claimants(at(0), "pump");
    let found: std::vec::Vec<_> = nodes.iter().map(|e| e.envelope()).collect();
    assert_eq!(found, [b"two", b"one"]);
    assert!(!more);
    assert!(directory.claimants(at(0), "valve").nodes.is_empty());
}

#[test]
fn a_better_record_is_never_replaced_by_a_worse() {
    let mut directory = Directory::<8>::new();
    assert!(directory.list(at(0), &info(1, "pump", 5), b"new"));
    assert!(!directory.list(at(0), &info(1, "pump", 4), b"old"));
    assert!(
        !directory.list(at(0), &info(1, "pump", 5), b"new"),
        "the same is not news"
    );
    assert_eq!(directory.find(&peer(1)).unwrap().envelope(), b"new");
}

#[test]
fn a_record_is_no_answer_after_its_time_to_live_from_receipt_until_a_newer_one_comes() {
    const DAY_MS: u64 = 86_400_000;
    let mut directory = Directory::<8>::new();
    let record = |sequence| RecordInfo {
        // The clock of its subject is wrong, which does not matter here.
        issued_at_ms: DAY_MS,
        ..info(1, "pump", sequence)
    };
    let leases = LeaseTable::<8>::new();
    let counts = |directory: &Directory<8>, now| {
        let is_found = directory.heard(at(now), &peer(1), &leases).is_some();
        let is_claimed = !directory.claimants(at(now), "pump").nodes.is_empty();
        let has_entry = directory.entry(at(now), &peer(1), &leases).is_some();
        let mut is_in_list = false;
        let alive = Filter::default();
        let which = Selection::alive(&alive, Cursor::Start);
        let visit = &mut |_: Entry<'_>| {
            is_in_list = true;
            true
        };
        directory.entries(at(now), which, |_| None, visit);
        let all = [is_claimed, has_entry, is_in_list];
        assert_eq!(all, [is_found; 3], "{now}");
        is_found
    };
    assert!(directory.list(at(500), &record(1), b"1"));
    assert!(!directory.list(at(900), &record(1), b"1"), "it is not new");
    assert!(counts(&directory, 1_500));
    assert!(!counts(&directory, 1_501));
    assert!(directory.list(at(2_000), &record(2), b"2"));
    assert!(counts(&directory, 3_000));
    assert!(!counts(&directory, 3_001));
}

#[test]
fn a_record_that_grows_or_shrinks_past_the_short_ones_stays_the_only_one() {
    let mut directory = Directory::<1>::new();
    let lengths = [1, SHORT, SHORT + 1, MAX_ENVELOPE_LEN, SHORT, SHORT + 1];
    for (sequence, length) in (1..).zip(lengths) {
        let envelope = std::vec![sequence as u8; length];
        assert!(directory.list(at(0), &info(1, "pump", sequence), &envelope));
        let Claimants { nodes, more, .. } = directory.claimants(at(0), "pump");
        assert_eq!(nodes.first().unwrap().envelope(), envelope);
        assert_eq!((nodes.len(), more, directory.stats().used), (1, false, 1));
    }
    assert!(!directory.list(at(0), &info(1, "pump", 99), &[0; MAX_ENVELOPE_LEN + 1]));
    directory.unlist(at(0), &peer(1), Presence::Alive);
    assert_eq!(directory.stats().used, 0);
}

#[test]
fn a_full_directory_refuses_the_next_node_short_or_long_and_counts_it() {
    let mut directory = Directory::<2>::new();
    assert!(directory.list(at(0), &info(1, "pump", 1), b"x"));
    assert!(directory.list(at(0), &info(2, "pump", 1), &[0; SHORT + 1]));
    assert!(!directory.list(at(0), &info(3, "pump", 1), b"x"));
    assert!(!directory.list(at(0), &info(3, "pump", 1), &[0; SHORT + 1]));
    assert!(directory.list(at(0), &info(1, "pump", 2), &[0; SHORT + 1]));
    let TableStats { used, refused, .. } = directory.stats();
    assert_eq!((used, refused), (2, 2));
}

#[test]
fn a_claim_keeps_its_age_over_new_signatures_and_loses_it_with_its_name() {
    let mut directory = Directory::<8>::new();
    directory.list(at(1), &info(1, "pump", 1), b"x");
    directory.list(at(2), &info(2, "pump", 99), b"x");
    directory.list(at(3), &info(1, "pump", 2), &[0; SHORT + 1]);
    let first = |directory: &Directory<8>| {
        let claimants = directory.claimants(at(0), "pump");
        claimants.nodes.first().map(|node| *node.peer())
    };
    assert_eq!(first(&directory), Some(peer(1)));
    directory.list(at(4), &info(1, "fan", 3), b"x");
    directory.list(at(5), &info(1, "pump", 4), b"x");
    assert_eq!(first(&directory), Some(peer(2)));
}

#[test]
fn of_fifty_claimants_the_sixteen_oldest_are_found_and_all_are_counted() {
    let mut directory = Directory::<64>::new();
    for n in 0..16 {
        directory.list(at(n.into()), &info(n, "pump", 1), b"x");
    }
    let told = |claimants: &Claimants<'_>| (claimants.nodes.len(), claimants.more, claimants.count);
    assert_eq!(told(&directory.claimants(at(0), "pump")), (16, false, 16));
    for n in 16..50 {
        directory.list(at(n.into()), &info(n, "pump", 1_000), b"better");
    }
    let claimants = directory.claimants(at(0), "pump");
    assert_eq!(told(&claimants), (16, true, 50));
    let oldest = claimants.nodes.iter().map(|node| *node.peer());
    assert!(oldest.eq((0..16).map(peer)));
}

fn with_gone(filter: &Filter, from: Cursor) -> Selection<'_> {
    let gone = true;
    Selection { filter, from, gone }
}

/// The ids of a page, the id to go on after, and how many nodes a page has room for.
fn page<'d, const N: usize>(
    directory: &'d Directory<N>,
    which: Selection<'_>,
    room: usize,
) -> (std::vec::Vec<Entry<'d>>, Option<PeerId>) {
    let mut entries = std::vec::Vec::new();
    let lease = StreamRecord {
        peer: peer(1),
        role: Role::Node,
        stream: StreamId(1),
        connected: true,
        renewed: true,
        since: at(0),
        last_seen: at(900),
        expiry: at(2_000),
        source: None,
        reader: Default::default(),
    };
    let next = directory.entries(at(1_000), which, |_| Some(&lease), &mut |entry| {
        let has_room = entries.len() < room;
        if has_room {
            entries.push(entry);
        }
        has_room
    });
    (entries, next)
}

fn all() -> (Filter, Cursor) {
    (Filter::default(), Cursor::Start)
}

#[test]
fn pages_have_every_node_once_in_the_order_of_ids_whatever_the_length_of_their_records() {
    let mut directory = Directory::<8>::new();
    for n in [5, 1, 4, 2, 3] {
        let envelope = std::vec![n; if n % 2 == 0 { SHORT + 1 } else { SHORT }];
        directory.list(at(0), &info(n, "pump", 1), &envelope);
    }
    let (filter, mut from) = all();
    let mut seen = std::vec::Vec::new();
    let mut pages = 0;
    loop {
        let (entries, next) = page(&directory, with_gone(&filter, from), 2);
        pages += 1;
        for entry in entries {
            assert_eq!(entry.age, Duration::from_millis(100));
            assert_eq!(entry.presence, Presence::Alive);
            let Subject::Signed(envelope) = entry.subject else {
                panic!("{entry:?}");
            };
            seen.push(*envelope.first().unwrap());
        }
        match next {
            Some(id) => from = Cursor::After(id),
            None => break,
        }
    }
    assert_eq!((seen.as_slice(), pages), (&[1, 2, 3, 4, 5][..], 3));
    // A page that the last node fills is the last one.
    assert_eq!(
        page(&directory, Selection::alive(&filter, Cursor::Start), 5).1,
        None
    );
}

#[test]
fn who_left_or_was_lost_is_in_the_list_only_if_asked_for_and_leaves_it_when_back() {
    let mut directory = Directory::<8>::new();
    for (n, name) in [(1, "pump"), (2, "pump-2"), (3, "fan"), (4, "pump-4")] {
        directory.list(at(0), &info(n, name, 1), b"x");
    }
    directory.unlist(at(400), &peer(2), Presence::Left);
    directory.unlist(at(500), &peer(3), Presence::Lost);
    directory.unlist(at(600), &peer(4), Presence::Alive);
    let (filter, from) = all();
    assert_eq!(
        page(&directory, Selection::alive(&filter, from), 9).0.len(),
        1
    );
    let (entries, next) = page(&directory, with_gone(&filter, from), 9);
    let named = |n, name, age, presence| Entry {
        subject: Subject::Named {
            peer: peer(n),
            name,
        },
        age: Duration::from_millis(age),
        presence,
    };
    assert_eq!(next, None);
    assert_eq!(
        entries.get(1..).unwrap(),
        [
            named(2, "pump-2", 600, Presence::Left),
            named(3, "fan", 500, Presence::Lost)
        ]
    );
    let pumps = Filter::new(None, Name::try_from("pump").unwrap());
    assert_eq!(page(&directory, with_gone(&pumps, from), 9).0.len(), 2);
    let tagged = Filter::default().with_tag("floor", "2").unwrap();
    assert_eq!(page(&directory, with_gone(&tagged, from), 9).0, []);
    directory.list(at(700), &info(2, "pump-2", 2), b"x");
    directory.back(at(0), &peer(3));
    assert_eq!(directory.lost().stats().used, 0);
}

#[test]
fn who_is_known_to_be_elsewhere_is_not_lost_any_more() {
    let mut directory = Directory::<8>::new();
    directory.list(at(0), &info(1, "pump", 1), b"x");
    directory.unlist(at(1), &peer(1), Presence::Lost);
    assert_eq!(directory.lost().stats().used, 1);
    directory.unlist(at(2), &peer(1), Presence::Alive);
    assert_eq!(directory.lost().stats().used, 0);
    directory.unlist(at(3), &peer(2), Presence::Lost);
    assert_eq!(directory.lost().stats().used, 0, "it was not listed");
}

#[test]
fn a_request_that_selects_few_looks_at_512_nodes_and_says_where_to_go_on() {
    // It is too large for the stack of a test.
    static DIRECTORY: std::sync::Mutex<Directory<513>> = std::sync::Mutex::new(Directory::new());
    let mut directory = DIRECTORY.lock().unwrap();
    let fans = Filter::new(None, Name::try_from("fan").unwrap());
    for n in 0..=512u16 {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        let peer = PeerId::from_bytes(key);
        let info = RecordInfo {
            peer,
            ..info(0, "pump", 1)
        };
        if n == 512 {
            let (entries, next) = page(&directory, Selection::alive(&fans, Cursor::Start), 9);
            assert_eq!((entries.len(), next), (0, None), "512 are looked at");
        }
        directory.list(at(0), &info, b"x");
    }
    let (entries, next) = page(&directory, Selection::alive(&fans, Cursor::Start), 9);
    assert_eq!(entries, []);
    let rest = page(
        &directory,
        Selection::alive(&fans, Cursor::After(next.unwrap())),
        9,
    );
    assert_eq!((rest.0.len(), rest.1), (0, None));
}

/// An envelope of RFC 0002 with this record in it, and a signature that is never verified.
fn envelope_of(record: &Record<'_>) -> std::vec::Vec<u8> {
    let mut buffer = [0; MAX_ENVELOPE_LEN];
    let payload = encode_record(record, &mut buffer).unwrap();
    let mut envelope = std::vec::Vec::new();
    let fields = [
        (1, &[8, 1, 0x12, 0][..]),
        (2, Kind::Node.payload_type()),
        (3, payload),
        (5, &[7; 64]),
    ];
    for (number, bytes) in fields {
        envelope.push(number << 3 | 2);
        let length = bytes.len();
        if length > 127 {
            envelope.push(length as u8 | 0x80);
            envelope.push((length >> 7) as u8);
        } else {
            envelope.push(length as u8);
        }
        envelope.extend(bytes);
    }
    envelope
}

#[test]
fn services_and_tags_are_those_of_the_stored_record() {
    let mut directory = Directory::<8>::new();
    for (n, service) in [(1, "http"), (2, "mqtt")] {
        let record = Record {
            peer: peer(n),
            sequence: 1,
            issued_at_ms: 1,
            ttl: Duration::from_secs(1),
            addrs: [&[4; 60][..]; 3].into_iter().collect(),
            name: "pump",
            tags: [("floor", "2")].into_iter().collect(),
            services: [Service {
                name: to_service_name(service).unwrap(),
                transport: Transport::Tcp,
                port: 80,
            }]
            .into_iter()
            .collect(),
            version: "1.2.3",
            link_services: Default::default(),
            grant: &[],
        };
        let envelope = envelope_of(&record);
        assert_eq!(contents(Kind::Node, &envelope), Some(record));
        assert_eq!(contents(Kind::Indexer, &envelope), None);
        for end in 0..envelope.len() {
            let cut = contents(Kind::Node, &envelope[..end]);
            assert!(cut.is_none_or(|record| record.peer == peer(n)), "{end}");
        }
        directory.list(at(0), &info(n, "pump", 1), &envelope);
    }
    let offers = |service| Filter::new(to_service_name(service), Name::new());
    let count = |filter: Filter| {
        page(&directory, Selection::alive(&filter, Cursor::Start), 9)
            .0
            .len()
    };
    assert_eq!(count(offers("http")), 1);
    assert_eq!(count(offers("ssh")), 0);
    assert_eq!(count(Filter::default().with_tag("floor", "2").unwrap()), 2);
    assert_eq!(count(offers("mqtt").with_tag("floor", "3").unwrap()), 0);
}
