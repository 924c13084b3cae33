use libp2p::{Multiaddr, identity::Keypair, kad::store::RecordStore};

use super::{routing::addresses, *};
use crate::net::{
    envelope::{About, sign_indexer, sign_node},
    undialable,
};

const NOW: u64 = 1_700_000_000_000;
const TTL: Duration = Duration::from_secs(270);
const TTL_MS: u64 = 270_000;

fn keypair(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn behaviour() -> Kademlia {
    kademlia(keypair(1).public().to_peer_id(), 2000, 64)
}

fn signed(seed: u8, sequence: u64, issued_at_ms: u64) -> (RecordInfo, Vec<u8>) {
    let addrs = [addr("/ip4/192.0.2.1/tcp/1")];
    let envelope = sign_indexer(&keypair(seed), sequence, issued_at_ms, TTL, &addrs).unwrap();
    (open_indexer(&envelope).unwrap().info, envelope)
}

fn keep_at(kademlia: &mut Kademlia, record: &(RecordInfo, Vec<u8>), own_ms: u64) -> bool {
    keep(
        kademlia,
        Kind::Indexer,
        &record.0,
        record.1.clone(),
        None,
        own_ms,
    )
}

fn stored(kademlia: &mut Kademlia, seed: u8) -> Option<Vec<u8>> {
    let (info, _) = signed(seed, 0, 0);
    let key = key(Kind::Indexer, &info.peer);
    let found = kademlia.store_mut().get(&key)?;
    Some(found.value.clone())
}

#[test]
fn an_expired_record_is_not_kept() {
    let (mut kad, record) = (behaviour(), signed(2, 1, NOW));
    assert!(!keep_at(&mut kad, &record, NOW + TTL_MS + 1));
    assert!(keep_at(&mut kad, &record, NOW + TTL_MS));
}

#[test]
fn a_record_from_the_future_is_not_kept() {
    let (mut kad, record) = (behaviour(), signed(2, 1, NOW + 120_001));
    assert!(!keep_at(&mut kad, &record, NOW));
    assert!(keep_at(&mut kad, &record, NOW + 1));
}

#[test]
fn the_best_record_is_kept_whatever_the_order() {
    let (old, new) = (signed(2, 1, NOW), signed(2, 2, NOW + 1));
    for order in [[&old, &new], [&new, &old]] {
        let mut kad = behaviour();
        for record in order {
            keep_at(&mut kad, record, NOW);
        }
        assert_eq!(stored(&mut kad, 2).as_ref(), Some(&new.1));
    }
}

#[test]
fn a_copy_lives_as_long_as_its_record_has_left() {
    let (mut kad, record) = (behaviour(), signed(2, 1, NOW));
    keep_at(&mut kad, &record, NOW + TTL_MS - 1000);
    assert_eq!(kad.store_mut().expire(Instant::now()), 0);
    let later = Instant::now() + Duration::from_millis(1001);
    assert_eq!(kad.store_mut().expire(later), 1);
}

#[test]
fn what_is_published_does_not_replace_a_better_copy_but_one_that_is_not_valid() {
    let (mut kad, mut dht) = (behaviour(), Dht::default());
    let (good, worse) = (signed(2, 2, NOW + 1000), signed(2, 3, NOW));
    keep_at(&mut kad, &good, NOW);
    dht.publish(&mut kad, Kind::Indexer, &worse.0, worse.1, NOW);
    assert_eq!(stored(&mut kad, 2), Some(good.1));
    assert!(dht.puts.is_empty());

    // The subject's clock was far ahead when it signed `future`.
    let (future, right) = (signed(3, 1, NOW + 86_400_000), signed(3, 2, NOW));
    dht.publish(&mut kad, Kind::Indexer, &future.0, future.1, NOW);
    dht.publish(&mut kad, Kind::Indexer, &right.0, right.1.clone(), NOW);
    assert_eq!(stored(&mut kad, 3), Some(right.1));
}

#[test]
fn a_stored_record_is_judged_without_opening_it_again() {
    let (mut kad, mut dht) = (behaviour(), Dht::default());
    let (good, worse) = (signed(2, 2, NOW + 1000), signed(2, 3, NOW));
    // These bytes would not open.
    let sealed = b"sealed".to_vec();
    dht.publish(&mut kad, Kind::Indexer, &good.0, sealed.clone(), NOW);
    assert_eq!(dht.puts.len(), 1, "Kademlia has stored it anew");
    dht.publish(&mut kad, Kind::Indexer, &worse.0, worse.1.clone(), NOW);
    assert!(!keep_at(&mut kad, &worse, NOW));
    assert_eq!(stored(&mut kad, 2), Some(sealed));
}

#[test]
fn what_kademlia_stores_unverified_is_worse_than_any_record() {
    let (mut kad, record) = (behaviour(), signed(2, 0, NOW));
    let key = key(Kind::Indexer, &record.0.peer);
    let other = Record::new(key, b"other".to_vec());
    kad.store_mut().put(other).unwrap();
    assert!(keep_at(&mut kad, &record, NOW));
    assert_eq!(stored(&mut kad, 2), Some(record.1));
}

#[test]
fn puts_are_bounded_and_one_key_waits_once() {
    let (mut kad, mut dht) = (behaviour(), Dht::default());
    for sequence in [1, 2] {
        for seed in 10..40 {
            let (info, envelope) = signed(seed, sequence, NOW + sequence);
            dht.publish(&mut kad, Kind::Indexer, &info, envelope, NOW);
        }
    }
    assert_eq!(dht.puts.len(), MAX_PUTS);
    // The first few are sent again together with the newer ones.
    assert_eq!(dht.to_put.len(), 30);
}

#[test]
fn put_that_waits_too_long_is_dropped_and_counted() {
    let (mut kad, mut dht) = (behaviour(), Dht::default());
    dht.puts.extend(signed_puts(&mut kad));
    let other = |n: usize| RecordKey::new(&n.to_be_bytes());
    dht.to_put.extend((0..MAX_WAITING_PUTS - 1).map(other));
    for (seed, dropped) in [(10, 0), (11, 1)] {
        let (info, envelope) = signed(seed, 1, NOW);
        dht.publish(&mut kad, Kind::Indexer, &info, envelope, NOW);
        let seen = dht.waiting_puts();
        assert_eq!((seen.used, seen.evicted), (MAX_WAITING_PUTS, dropped));
    }
    assert_eq!(dht.to_put.front(), Some(&other(1)));
}

/// As many PUTs as may be under way.
fn signed_puts(kad: &mut Kademlia) -> HashSet<QueryId> {
    let mut dht = Dht::default();
    for seed in 40..48 {
        let (info, envelope) = signed(seed, 1, NOW);
        dht.publish(kad, Kind::Indexer, &info, envelope, NOW);
    }
    assert_eq!(dht.puts.len(), MAX_PUTS);
    dht.puts
}

#[test]
fn a_waiting_put_of_who_left_is_forgotten() {
    let (mut kad, mut dht) = (behaviour(), Dht::default());
    for seed in 10..19 {
        let (info, envelope) = signed(seed, 1, NOW);
        dht.publish(&mut kad, Kind::Indexer, &info, envelope, NOW);
    }
    let last = signed(18, 1, NOW).0.peer;
    forget(&mut kad, Kind::Indexer, &last);
    dht.puts.clear();
    dht.put_next(&mut kad);
    assert!(dht.puts.is_empty() && dht.to_put.is_empty());
}

#[test]
fn a_copy_that_another_peer_put_goes_too_when_its_subject_leaves() {
    let (mut kad, record) = (behaviour(), signed(2, 1, NOW));
    assert!(keep_at(&mut kad, &record, NOW));
    forget(&mut kad, Kind::Indexer, &record.0.peer);
    assert_eq!(stored(&mut kad, 2), None);
}

#[test]
fn a_node_record_is_none_of_an_indexer() {
    let (peer, _) = signed(2, 1, NOW);
    let addrs = [addr("/ip4/192.0.2.1/tcp/1")];
    let about = About {
        name: "pump".into(),
        ..About::default()
    };
    let node = sign_node(&keypair(2), 1, NOW, TTL, &addrs, &about).unwrap();
    let record = |kind| Record::new(key(kind, &peer.peer), node.clone());
    assert!(offered(record(Kind::Indexer), None).is_none());
    assert!(offered(record(Kind::Node), None).is_some());
}

#[test]
fn a_provider_is_stored_without_addresses_that_nobody_can_dial() {
    let (mut kad, mut dht) = (behaviour(), Dht::default());
    let (provider, key) = (keypair(2).public().to_peer_id(), RecordKey::new(b"key"));
    let told = [
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/192.0.2.1/tcp/0",
        "/ip4/192.0.2.1/tcp/1",
    ]
    .map(addr);
    let record = kad::ProviderRecord::new(key.clone(), provider, told.to_vec());
    let before = undialable::left_out();
    let event = kad::Event::InboundRequest {
        request: kad::InboundRequest::AddProvider {
            record: Some(record),
        },
    };
    let event = dht.translate(&mut kad, event, true, None, &|_| true);
    assert!(event.is_none());
    let stored = kad.store_mut().providers(&key);
    assert_eq!(stored[0].addresses, [addr("/ip4/192.0.2.1/tcp/1")]);
    assert_eq!(undialable::left_out() - before, 2);
}

fn own() -> libp2p::PeerId {
    keypair(1).public().to_peer_id()
}

#[test]
fn a_peer_that_is_new_in_the_routing_table_is_asked_for_our_neighbours_once() {
    let (mut kad, peer) = (behaviour(), keypair(2).public().to_peer_id());
    let listens = [addr("/ip4/192.0.2.1/tcp/1")];
    for _ in 0..3 {
        route(&mut kad, own(), &peer, listens.clone().into_iter());
        assert_eq!(kad.iter_queries().count(), 1);
    }
}

#[test]
fn a_peer_has_its_latest_addresses_and_four_at_most() {
    let (mut kad, peer) = (behaviour(), keypair(2).public().to_peer_id());
    for round in 0..50 {
        let told = (1..=6).map(|n| addr(&format!("/ip4/192.0.2.{n}/tcp/{}", 1000 + round)));
        route(&mut kad, own(), &peer, told);
    }
    let known = addresses(&mut kad, &peer);
    assert_eq!(known.len(), MAX_PEER_ADDRS);
    assert!(
        known
            .iter()
            .all(|addr| addr.to_string().contains("/tcp/1049/"))
    );
    route(&mut kad, own(), &peer, std::iter::empty());
    assert_eq!(
        addresses(&mut kad, &peer).len(),
        MAX_PEER_ADDRS,
        "silence changes nothing"
    );
}

#[test]
fn loopback_is_taken_out_and_the_rest_stays() {
    let mut kad = behaviour();
    let [both, only] = [2, 3].map(|seed| keypair(seed).public().to_peer_id());
    let local = addr("/ip4/127.0.0.1/tcp/1");
    route(
        &mut kad,
        own(),
        &both,
        [local.clone(), addr("/ip4/192.0.2.1/tcp/1")].into_iter(),
    );
    route(&mut kad, own(), &only, [local].into_iter());
    forget_loopback(&mut kad);
    assert_eq!(addresses(&mut kad, &both).len(), 1);
    assert!(addresses(&mut kad, &only).is_empty());
}
