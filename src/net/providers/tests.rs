use libp2p::identity::Keypair;

use super::*;

fn id(n: u16) -> libp2p::PeerId {
    let mut seed = [0; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    let key = Keypair::ed25519_from_bytes(seed).unwrap();
    key.public().to_peer_id()
}

const OWN: u16 = 0;

fn key(n: usize) -> RecordKey {
    RecordKey::new(&n.to_be_bytes())
}

fn addr(n: usize) -> Multiaddr {
    format!("/ip4/192.0.2.1/tcp/{}", 4000 + n).parse().unwrap()
}

fn record(key_no: usize, peer: u16) -> ProviderRecord {
    ProviderRecord::new(key(key_no), id(peer), vec![addr(1)])
}

/// A store and the time of its beginning.
fn store(capacity: usize) -> (Providers, Instant) {
    let now = Instant::now();
    (Providers::new(id(OWN), capacity, now), now)
}

fn named(store: &Providers, key_no: usize, now: Instant) -> Vec<libp2p::PeerId> {
    let mut named: Vec<_> = store
        .of(&key(key_no), now)
        .into_iter()
        .map(|r| r.provider)
        .collect();
    named.sort();
    named
}

fn sorted(peers: impl IntoIterator<Item = u16>) -> Vec<libp2p::PeerId> {
    let mut ids: Vec<_> = peers.into_iter().map(id).collect();
    ids.sort();
    ids
}

#[test]
fn a_provider_is_named_for_its_key_with_its_latest_addresses_two_at_most() {
    let (mut store, now) = store(8);
    let own_id = format!("/ip4/192.0.2.9/tcp/1/p2p/{}", id(1))
        .parse()
        .unwrap();
    let long = format!("/dns4/{}/tcp/1", "a".repeat(60)).parse().unwrap();
    for addresses in [vec![addr(1)], vec![long, own_id, addr(2), addr(3)]] {
        let record = ProviderRecord::new(key(1), id(1), addresses);
        store.add(&record, None, now).unwrap();
    }
    store.add(&record(2, 2), None, now).unwrap();
    let found = store.of(&key(1), now);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].provider, id(1));
    assert_eq!(
        found[0].addresses,
        ["/ip4/192.0.2.9/tcp/1".parse().unwrap(), addr(2)]
    );
    assert_eq!(store.addrs(&id(1).try_into().unwrap()), found[0].addresses);
    assert_eq!(store.stats().used, 2);
    assert!(store.of(&key(3), now).is_empty());
}

#[test]
fn an_announcement_is_over_half_an_hour_after_it_was_last_made() {
    let (mut store, now) = store(8);
    let (tick, later) = (Duration::from_nanos(1), Duration::from_secs(600));
    store.add(&record(1, 1), None, now).unwrap();
    store.add(&record(1, 2), None, now).unwrap();
    store.add(&record(1, 2), None, now + later).unwrap();
    assert_eq!(store.soonest(), Some(now + LIFETIME));
    let last = now + LIFETIME - tick;
    assert_eq!((named(&store, 1, last).len(), store.expire(last)), (2, 0));
    // Also before the tick that removes it.
    assert_eq!(named(&store, 1, now + LIFETIME), [id(2)]);
    assert_eq!(store.expire(now + LIFETIME), 1);
    assert_eq!(store.soonest(), Some(now + later + LIFETIME));
    assert_eq!(store.expire(now + later + LIFETIME - tick), 0);
    assert_eq!(store.expire(now + later + LIFETIME), 1);
    assert_eq!((store.soonest(), store.peers.len()), (None, 0));
}

#[test]
fn twenty_have_a_key_and_the_next_is_refused_unless_it_is_ourselves() {
    let (mut store, now) = store(64);
    for peer in 1..=20 {
        store.add(&record(1, peer), None, now).unwrap();
    }
    assert!(store.add(&record(1, 21), None, now).is_err());
    store.add(&record(1, 20), None, now).unwrap();
    store.add(&record(2, 21), None, now).unwrap();
    assert_eq!(named(&store, 1, now), sorted(1..=20));
    let TableStats {
        used,
        refused,
        evicted,
        ..
    } = store.stats();
    assert_eq!((used, refused, evicted), (21, 1, 0));

    store.add(&record(1, OWN), None, now).unwrap();
    let named = named(&store, 1, now);
    assert!(named.len() == 20 && named.contains(&id(OWN)));
}

#[test]
fn three_answers_with_room_for_eight_name_all_twenty_whatever_else_is_asked() {
    let (mut store, now) = store(64);
    for peer in 1..=20 {
        store.add(&record(1, peer), None, now).unwrap();
        store.add(&record(2, peer), None, now).unwrap();
    }
    // Whoever is named longest ago comes first, also when the count of answers begins again.
    for _ in 0..2 {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3 {
            let answer = store.of(&key(1), now);
            assert_eq!(answer.len(), 20);
            seen.extend(answer.into_iter().take(8).map(|named| named.provider));
            store.of(&key(2), now);
        }
        assert_eq!(seen.len(), 20);
        store
            .entries
            .iter()
            .for_each(|entry| entry.named.set(u16::MAX));
    }
}

#[test]
fn a_full_store_keeps_what_is_nearest_to_its_own_id() {
    let (mut store, now) = store(50);
    for n in 0..200 {
        let _ = store.add(&record(n, 1 + n as u16 % 7), None, now);
    }
    let mut nearest: Vec<usize> = (0..200).collect();
    nearest.sort_by_key(|n| store.distance(&key(*n)));
    for (place, n) in nearest.into_iter().enumerate() {
        assert_eq!(
            named(&store, n, now).len(),
            usize::from(place < 50),
            "{place}"
        );
    }
    let TableStats {
        used,
        refused,
        evicted,
        ..
    } = store.stats();
    assert_eq!((used as u64, refused + evicted), (50, 150));
    let entries: usize = store
        .peers
        .iter()
        .map(|(_, peer)| usize::from(peer.entries))
        .sum();
    assert_eq!(entries, 50);
}

#[test]
fn our_own_stay_and_find_room_however_far() {
    let (mut store, now) = store(4);
    for n in 0..3 {
        store.add(&record(n, OWN), None, now).unwrap();
    }
    for n in 10..200 {
        let _ = store.add(&record(n, 1), None, now);
    }
    store.add(&record(3, OWN), None, now).unwrap();
    for n in 0..4 {
        assert_eq!(named(&store, n, now), [id(OWN)]);
    }
    assert!(
        store.add(&record(4, OWN), None, now).is_err(),
        "it is full of them"
    );
    assert!(store.add(&record(5, 1), None, now).is_err());
    assert_eq!(store.peers.len(), 1);
}

#[test]
fn our_own_are_named_with_the_addresses_of_the_moment() {
    let (mut store, now) = store(4);
    store.add(&record(1, OWN), None, now).unwrap();
    assert!(store.of(&key(1), now)[0].addresses.is_empty());
    store.set_own_addrs(&[addr(5), addr(6), addr(7)]);
    assert_eq!(store.of(&key(1), now)[0].addresses, [addr(5), addr(6)]);
}

#[test]
fn a_peer_of_another_kind_of_key_is_refused_and_counted() {
    let (mut store, now) = store(4);
    let record = ProviderRecord::new(key(1), libp2p::PeerId::random(), Vec::new());
    assert!(store.add(&record, None, now).is_err());
    assert_eq!((store.stats().used, store.stats().refused), (0, 1));
}

/// Also when each name has a provider of its own, with two addresses of its own.
#[cfg(target_pointer_width = "64")]
#[test]
fn a_name_takes_160_bytes_at_most() {
    assert_eq!(size_of::<Entry>(), 40);
    let (mut store, now) = store(1000);
    for n in 0..1000 {
        let addresses = vec![addr(n), addr(n + 1000)];
        let record = ProviderRecord::new(key(n), id(1 + n as u16), addresses);
        store.add(&record, None, now).unwrap();
    }
    store.shrink();
    let entries = store.entries.capacity() * size_of::<Entry>();
    let peers = store.peers.capacity() * size_of::<(usize, Peer)>().next_multiple_of(8);
    // An allocation takes up to 16 bytes more than was asked for.
    let addrs: usize = store
        .peers
        .iter()
        .map(|(_, peer)| peer.addrs.len() + 16)
        .sum();
    let each = (entries + peers + addrs) / 1000;
    println!("{each} bytes a name");
    assert!(each <= 160, "{each}");
}

#[test]
fn network_that_has_its_share_of_a_full_store_makes_room_by_its_own_entries() {
    let (mut store, now) = store(4);
    let network = |third: u8| {
        let addr = [4, 203, 0, third, 1, 6, 0, 1];
        Some(crate::protocol::TransportAddr::of(&addr).prefix())
    };
    let own = KBucketKey::from(id(OWN));
    let mut keys: Vec<usize> = (0..8).collect();
    keys.sort_by_key(|n| own.distance(&KBucketKey::new(key(*n))));
    let has = |store: &Providers, at: usize| !store.of(&key(keys[at]), now).is_empty();
    // The farthest is of network 2, the next two are of network 1.
    for (at, peer, from) in [(7, 2, 2), (6, 1, 1), (5, 1, 1), (4, 3, 3)] {
        let record = record(keys[at], peer);
        store.add(&record, network(from), now).unwrap();
    }
    store.add(&record(keys[0], 1), network(1), now).unwrap();
    assert!(has(&store, 7), "of another network");
    assert!(!has(&store, 6), "the farthest of its own");
    store.add(&record(keys[1], 4), network(4), now).unwrap();
    assert!(!has(&store, 7), "the farthest of all");
}
