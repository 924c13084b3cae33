use std::{boxed::Box, string::ToString, vec::Vec};

use super::*;
use crate::protocol::{
    Action, Beat, Indexer, IndexerConfig, Input, Machine, PeerId, RecordInfo, Role, StreamId,
    Terms,
    codec::{
        record::{Record, encode_record},
        service::{Service, Transport},
    },
    signing::Urgency,
};

const MINUTE: u64 = 60_000;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn name(n: usize) -> Key {
    Key::Name(std::format!("pump-{n:04}").as_str().try_into().unwrap())
}

fn service(n: usize) -> Key {
    Key::Service(std::format!("s{n}").as_str().try_into().unwrap())
}

fn all(_: &Key) -> bool {
    true
}

fn none(_: &Key) -> bool {
    false
}

fn announcing<const N: usize>(keys: impl IntoIterator<Item = Key>) -> Announcing<N> {
    let mut announcing = Announcing::new();
    announcing.start(7);
    for key in keys {
        announcing.listed(at(0), key, all);
    }
    announcing
}

/// All that begin at this time.
fn begun<const N: usize>(announcing: &mut Announcing<N>, now: u64) -> Vec<Key> {
    core::iter::from_fn(|| announcing.poll(at(now), all)).collect()
}

#[test]
fn a_new_key_is_announced_at_once_and_once_however_many_have_it() {
    let mut announcing = announcing::<1024>([]);
    assert_eq!(announcing.timeout(), None);
    for _ in 0..1000 {
        announcing.listed(at(5), service(1), all);
    }
    assert_eq!(announcing.timeout(), Some(at(5)));
    assert_eq!(begun(&mut announcing, 4), []);
    assert_eq!(begun(&mut announcing, 5), [service(1)]);
    assert_eq!(announcing.stats().used, 1);
}

#[test]
fn all_are_announced_again_ten_to_fifteen_minutes_later_at_random() {
    let mut times = Vec::new();
    let mut announcing = announcing::<64>([name(1)]);
    let mut now = 0;
    for _ in 0..200 {
        assert_eq!(begun(&mut announcing, now), [name(1)]);
        announcing.announced(at(now), &name(1), AnnounceEnd::Taken);
        let next = announcing.timeout().unwrap().as_millis();
        assert_eq!(begun(&mut announcing, next - 1), []);
        times.push(next - now);
        now = next;
    }
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!((10 * MINUTE..11 * MINUTE).contains(least), "{least}");
    assert!((14 * MINUTE..=15 * MINUTE).contains(most), "{most}");
}

#[test]
fn eight_are_under_way_and_the_ninth_waits_for_one_to_end() {
    let mut announcing = announcing::<64>((0..9).map(name));
    let first = begun(&mut announcing, 0);
    assert_eq!(first.len(), MAX_UNDER_WAY);
    assert_eq!(begun(&mut announcing, 1_000), []);
    announcing.announced(at(1_000), &first[0], AnnounceEnd::Taken);
    assert_eq!(begun(&mut announcing, 1_000), [name(8)]);
}

#[test]
fn fifty_begin_in_a_second() {
    let mut announcing = announcing::<2048>((0..1000).map(name));
    let mut count = 0;
    for now in 0..1_000 {
        for key in begun(&mut announcing, now) {
            announcing.announced(at(now), &key, AnnounceEnd::Taken);
            count += 1;
        }
    }
    assert_eq!(count, MAX_UNDER_WAY + 49, "a burst, then one each 20 ms");
}

#[test]
fn a_failed_one_is_tried_again_within_a_pause_that_doubles_up_to_a_minute() {
    let mut longest = [0; 10];
    for seed in 0..200 {
        let mut announcing = announcing::<4>([name(1)]);
        announcing.start(seed);
        let mut now = 0;
        for longest in &mut longest {
            assert_eq!(begun(&mut announcing, now), [name(1)]);
            announcing.announced(at(now), &name(1), AnnounceEnd::Failed);
            let next = announcing.timeout().unwrap().as_millis();
            assert!(next > now, "not at the instant at which it failed");
            *longest = next.wrapping_sub(now).max(*longest);
            now = next;
        }
        announcing.poll(at(now), all);
        announcing.announced(at(now), &name(1), AnnounceEnd::Taken);
        let then = announcing.timeout().unwrap();
        announcing.poll(then, all);
        announcing.announced(then, &name(1), AnnounceEnd::Failed);
        let pause = announcing.next - then;
        assert!(pause <= Duration::from_millis(500), "a success ends it");
    }
    let bounds = [
        500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000,
    ];
    for (longest, bound) in longest.into_iter().zip(bounds) {
        assert!(
            longest <= bound && longest > bound * 3 / 4,
            "{longest} of {bound}"
        );
    }
}

#[test]
fn all_are_announced_again_2_s_after_the_own_addresses_have_changed() {
    let mut announcing = announcing::<4>([name(1), service(1)]);
    for key in begun(&mut announcing, 0) {
        announcing.announced(at(0), &key, AnnounceEnd::Taken);
    }
    announcing.addrs_changed(at(MINUTE));
    assert_eq!(announcing.timeout(), Some(at(MINUTE + 2_000)));
    assert_eq!(begun(&mut announcing, MINUTE + 1_999), []);
    // Further changes put nothing off.
    announcing.addrs_changed(at(MINUTE + 1_999));
    let keys = begun(&mut announcing, MINUTE + 2_000);
    assert_eq!(keys, [name(1), service(1)]);
    for key in keys {
        announcing.announced(at(MINUTE + 2_000), &key, AnnounceEnd::Taken);
    }
    let next = announcing.timeout().unwrap();
    assert!(next >= at(11 * MINUTE + 2_000), "once a change: {next:?}");
}

#[test]
fn one_under_way_when_the_own_addresses_change_is_announced_again_and_one_begun_later_is_not() {
    for (changed, is_again) in [(999, false), (1_000, true), (1_001, true)] {
        let mut announcing = announcing::<4>([]);
        announcing.listed(at(1_000), name(1), all);
        let begins_first = changed >= 1_000;
        if begins_first {
            assert_eq!(begun(&mut announcing, 1_000), [name(1)]);
        }
        announcing.addrs_changed(at(changed));
        if !begins_first {
            assert_eq!(begun(&mut announcing, 1_000), [name(1)]);
        }
        announcing.announced(at(4_000), &name(1), AnnounceEnd::Taken);
        let again = announcing.timeout() == Some(at(6_000));
        assert_eq!(again, is_again, "changed at {changed}");
    }
}

#[test]
fn those_due_again_at_once_keep_to_the_limits() {
    let mut announcing = announcing::<512>((0..200).map(name));
    for now in (0..10_000).step_by(20) {
        for key in begun(&mut announcing, now) {
            announcing.announced(at(now), &key, AnnounceEnd::Taken);
        }
    }
    announcing.addrs_changed(at(MINUTE));
    let first = begun(&mut announcing, MINUTE + 2_000);
    assert_eq!(first.len(), MAX_UNDER_WAY);
    assert_eq!(begun(&mut announcing, MINUTE + 3_000), []);
    let mut count = 0;
    for key in first {
        announcing.announced(at(MINUTE + 3_000), &key, AnnounceEnd::Taken);
    }
    for now in MINUTE + 3_000..MINUTE + 4_000 {
        for key in begun(&mut announcing, now) {
            announcing.announced(at(now), &key, AnnounceEnd::Taken);
            count += 1;
        }
    }
    assert_eq!(count, MAX_UNDER_WAY + 49);
}

#[test]
fn an_announcement_whose_end_is_not_told_has_failed_after_half_a_minute() {
    let mut announcing = announcing::<4>([name(1)]);
    assert_eq!(begun(&mut announcing, 0), [name(1)]);
    assert_eq!(announcing.timeout(), Some(at(30_000)));
    assert_eq!(begun(&mut announcing, 29_999), []);
    assert_eq!(begun(&mut announcing, 30_000), []);
    let again = announcing.timeout().unwrap();
    assert!(again > at(30_000) && again <= at(30_500));
    assert_eq!(announcing.poll(again, all), Some(name(1)));
    announcing.announced(at(40_000), &name(2), AnnounceEnd::Taken);
    assert_eq!(announcing.under_way, 1, "the end of another is none of its");
}

#[test]
fn one_that_is_no_longer_listed_is_not_announced_again() {
    let mut announcing = announcing::<4>([name(1), service(1)]);
    for key in begun(&mut announcing, 0) {
        announcing.announced(at(0), &key, AnnounceEnd::Taken);
    }
    while let Some(then) = announcing.timeout() {
        assert_eq!(announcing.poll(then, none), None);
    }
    assert_eq!(announcing.stats().used, 0);
    let room = announcing.spare().bytes();
    assert_eq!(
        room.end as usize - room.start as usize,
        4 * size_of::<Announced>(),
        "all room of names may be given back"
    );
    announcing.listed(at(20 * MINUTE), name(1), all);
    assert_eq!(begun(&mut announcing, 20 * MINUTE), [name(1)]);
}

#[test]
fn a_full_table_gives_up_what_is_no_longer_listed_or_refuses_and_counts() {
    let mut announcing = announcing::<8>((0..8).map(name));
    announcing.listed(at(0), name(8), all);
    let TableStats {
        used,
        capacity,
        refused,
        ..
    } = announcing.stats();
    assert_eq!(
        (used, capacity, refused),
        (8, 8 + MAX_ANNOUNCED_SERVICES, 1)
    );

    for key in begun(&mut announcing, 10_000) {
        announcing.announced(at(10_000), &key, AnnounceEnd::Taken);
    }
    announcing.listed(at(10_000), name(8), |key| *key != name(3));
    assert_eq!(begun(&mut announcing, 11_000), [name(8)]);
    let mut names: Vec<Key> = announcing.names.iter().map(|a| a.key.clone()).collect();
    let sorted = names.clone();
    names.sort();
    assert_eq!(names, sorted);
    assert!(!names.contains(&name(3)));
    assert_eq!(announcing.stats().refused, 1);
}

#[test]
fn a_name_finds_room_where_services_have_taken_theirs() {
    let mut announcing = announcing::<1>((0..MAX_ANNOUNCED_SERVICES).map(service));
    announcing.listed(at(0), service(9_999), all);
    announcing.listed(at(0), name(1), all);
    let TableStats { used, refused, .. } = announcing.stats();
    assert_eq!((used, refused), (MAX_ANNOUNCED_SERVICES + 1, 1));
}

#[test]
fn looks_for_room_are_bounded_in_time() {
    let looks = core::cell::Cell::new(0);
    let mut announcing = announcing::<64>((0..64).map(name));
    for n in 64..1064 {
        announcing.listed(at(0), name(n), |_| {
            looks.set(looks.get() + 1);
            true
        });
    }
    assert_eq!((looks.get(), announcing.stats().refused), (8, 1000));
}

/// An envelope around a record, without a signature.
fn envelope(name: &str, services: &[&str]) -> Vec<u8> {
    let services = services.iter().map(|name| Service {
        name: (*name).try_into().unwrap(),
        transport: Transport::Tcp,
        port: 80,
    });
    let record = Record {
        peer: PeerId::from_bytes([1; 32]),
        sequence: 1,
        issued_at_ms: 1,
        ttl: Duration::from_secs(1),
        addrs: [&b"address"[..]].into_iter().collect(),
        name,
        tags: Default::default(),
        services: services.collect(),
        version: "",
        link_services: Default::default(),
        grant: &[],
    };
    let mut buffer = [0; 127];
    let payload = encode_record(&record, &mut buffer).unwrap();
    let fields = [(0x12, Kind::Node.payload_type()), (0x1a, payload)];
    let fields = fields.map(|(tag, bytes)| [&[tag, bytes.len() as u8], bytes].concat());
    fields.concat()
}

#[test]
fn a_record_is_announced_by_its_name_and_by_each_of_its_services() {
    let mut announcing = announcing::<4>([]);
    for (n, name) in (1..).zip(["pump-1", "pump-2"]) {
        let envelope = envelope(name, &["http", "dns"]);
        let info = RecordInfo {
            peer: PeerId::from_bytes([n; 32]),
            sequence: 1,
            issued_at_ms: 1,
            ttl: Duration::from_secs(1),
            addrs: Default::default(),
            name: name.try_into().unwrap(),
        };
        let envelope = &envelope;
        announcing.record_listed(at(0), &SignedRecord { info, envelope }, all);
    }
    let texts: Vec<_> = begun(&mut announcing, 0)
        .iter()
        .map(Key::to_string)
        .collect();
    let expected = [
        "/oc/name/pump-1",
        "/oc/name/pump-2",
        "/oc/service/dns",
        "/oc/service/http",
    ];
    assert_eq!(texts, expected);
}

#[test]
fn an_indexer_announces_what_it_lists_until_it_lists_it_no_more() {
    let mut indexer = Box::new(Indexer::<4>::new());
    indexer.start(
        at(0),
        PeerId::from_bytes([9; 32]),
        1,
        IndexerConfig {
            gc_interval: Duration::from_secs(30),
            terms: Terms {
                lease: Duration::from_secs(90),
                beat_interval: Duration::from_secs(30),
            },
        },
    );
    let node = PeerId::from_bytes([1; 32]);
    let mut beat = Beat::new(Role::Node, Duration::from_secs(90));
    let envelope = envelope("pump-1", &["http"]);
    let info = contents(Kind::Node, &envelope).unwrap().info();
    beat.record = Some(SignedRecord {
        info,
        envelope: &envelope,
    });
    indexer.beat(at(0), &node, StreamId(1), &beat);
    let announced = |indexer: &mut Indexer<4>, now| {
        let actions = core::iter::from_fn(|| indexer.poll(at(now), 0)).take(100);
        let keys = actions.filter_map(|action| match action {
            Action::Announce { key } => Some(key.to_string()),
            _ => None,
        });
        keys.collect::<Vec<_>>()
    };
    assert_eq!(
        announced(&mut indexer, 0),
        ["/oc/name/pump-1", "/oc/service/http"]
    );
    let keys = [
        Key::Name("pump-1".try_into().unwrap()),
        Key::Service("http".try_into().unwrap()),
    ];
    for key in &keys {
        indexer.handle(
            at(10),
            Input::Announced {
                key,
                end: AnnounceEnd::Taken,
            },
        );
    }
    beat = Beat {
        sequence: 1,
        record: None,
        ..beat
    };
    indexer.beat(at(15 * MINUTE), &node, StreamId(1), &beat);
    assert_eq!(announced(&mut indexer, 15 * MINUTE + 10).len(), 2);
    let signed = [(20, Urgency::NextBeat, 0), (5_000, Urgency::AtOnce, 2)];
    for (later, urgency, count) in signed {
        let now = 15 * MINUTE + later;
        for key in &keys {
            indexer.handle(
                at(now),
                Input::Announced {
                    key,
                    end: AnnounceEnd::Taken,
                },
            );
        }
        indexer.handle(at(now), Input::RecordSigned { urgency });
        let again = announced(&mut indexer, now + 2_000);
        assert_eq!(again.len(), count, "{urgency:?}");
    }
    beat = Beat {
        sequence: 2,
        lease: Duration::ZERO,
        ..beat
    };
    indexer.beat(at(16 * MINUTE), &node, StreamId(1), &beat);
    for minute in 16..60 {
        assert_eq!(announced(&mut indexer, minute * MINUTE).len(), 0);
    }
}
