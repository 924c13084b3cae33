//! The diagram's second loop: known indexers without a fresh entry are found again in the DHT.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libp2p::identity::Keypair;
use libp2p::kad::RecordKey;
use oc_discovery::embed::Source;
use oc_discovery::protocol::codec::record::Kind;
use rustix::process::Signal;

use super::dht_server::DhtServers;
use super::harness::{Look, SLACK, World};
use super::wire::signed;

#[test]
fn known_indexers_without_an_entry_are_found_in_the_dht_and_fresh_ones_are_not_searched_for() {
    let world = World::new();
    let settled = [world.settle_native("n1"), world.settle_native("n2")];
    let near = world.settled(&settled[0], &[&settled[1]], &[]);
    let far = world.settled(&settled[1], &[&settled[0]], &[]);
    let indexers = ["a", "b"].map(|name| world.indexer(name, &[&near], &[]));
    for indexer in &indexers {
        let entry = far.eventually("the indexer", SLACK, |s| s.live(indexer).cloned());
        assert_eq!(entry.source, Source::Dht);
        assert_eq!(entry.addrs, indexer.status().listen);
        assert!(far.status().knows(indexer));
        let line = format!(
            "native: refreshed indexer from DHT: …{}",
            indexer.short_id()
        );
        far.until("the line logged", SLACK, |_| far.log().contains(&line));
    }
    near.until_runs("refresh", 6);
    // They beat to this native, so at every run their entries outlive the next run.
    assert_eq!(near.refreshed(), 0);
    let status = near.status();
    for indexer in &indexers {
        assert_eq!(status.live(indexer).unwrap().source, Source::Heartbeat);
    }
}

#[test]
fn entry_about_to_run_out_is_refreshed_until_the_record_has_run_out_and_then_nothing_is_stored() {
    let world = World::new();
    let native = world.native("native", &[]);
    let mut indexer = world.indexer("indexer", &[&native], &["--lease", "2s"]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    indexer.kill();
    let left = native.eventually("its entry refreshed", SLACK, |s| {
        let entry = s.live(&indexer).expect("an entry, without a gap");
        (entry.source == Source::Dht).then_some(entry.expires_in_ms)
    });
    assert!(left > 2_000, "{left}: longer than the lease, as its record");
    native.until("the line logged", SLACK, |_| native.refreshed() > 0);
    native.until("its record run out", SLACK, |s| s.live(&indexer).is_none());
    let refreshed = native.refreshed();
    native.until_runs("refresh", 4);
    let status = native.status();
    assert!(status.knows(&indexer), "it is still searched for");
    assert!(status.live_indexers.is_empty());
    assert_eq!(native.refreshed(), refreshed);
}

#[test]
fn newer_record_replaces_the_older_in_natives_that_have_it_from_the_dht() {
    let world = World::new();
    let settled = [world.settle_native("n1"), world.settle_native("n2")];
    let near = world.settled(&settled[0], &[&settled[1]], &[]);
    let far = world.settled(&settled[1], &[&settled[0]], &[]);
    let indexer = world.indexer("indexer", &[&near], &[]);
    far.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    // Records live 9 s here and are signed again every 3 s, so an entry that lasts longer comes
    // from a newer record.
    let first = far.status();
    let end = first.uptime_ms + first.live(&indexer).unwrap().expires_in_ms;
    far.until("an entry that ends later", SLACK, |s| {
        let entry = s.live(&indexer).expect("an entry, without a gap");
        s.uptime_ms + entry.expires_in_ms > end + 1_000
    });
    far.until("more than one record's life", SLACK, |s| {
        let entry = s.live(&indexer).expect("an entry, without a gap");
        assert_eq!(entry.source, Source::Dht);
        s.uptime_ms > end
    });
}

#[test]
fn of_many_values_the_valid_one_with_the_latest_expiry_is_stored() {
    let world = World::new();
    let native = world.native("native", &[]);
    // This indexer is started only to get a key.
    let mut indexer = world.indexer("indexer", &[], &[]);
    indexer.end(Signal::TERM);
    let key = indexer.key();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = u64::try_from(now.as_millis()).unwrap();
    // The lower its sequence, the later a value expires, because the sequence decides only between
    // equals.
    let values = vec![
        value(&key, 5, now - 120_000, 119, 1),
        value(&key, 4, now, 60, 2),
        value(&key, 2, now, 90, 3),
        value(&key, 3, now, 80, 4),
        value(&key, 1, now + 600_000, 600, 5),
        value(&Keypair::generate_ed25519(), 1, now, 100, 6),
        b"no envelope".to_vec(),
    ];
    let count = values.len() as u64;
    let subject = RecordKey::new(&format!("/indexer/{}", indexer.id));
    let servers = DhtServers::connect(&native.addr, &subject, values);
    native.until("all connected", SLACK, |s| s.used("connections") == count);
    let mut indexer = world.indexer("indexer", &[&native], &["--lease", "1s"]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    indexer.kill();
    // An entry that is about to expire does not wait for a late server: a better value replaces it.
    let best = ["/ip4/127.0.0.1/tcp/3"];
    let entry = native.eventually("its entry refreshed", SLACK, |s| {
        let entry = s.live(&indexer).cloned();
        entry.filter(|entry| entry.source == Source::Dht && entry.addrs == best)
    });
    assert!(entry.expires_in_ms <= 90_000 && entry.expires_in_ms > 60_000);
    native.until("the line logged", SLACK, |_| native.refreshed() > 0);
    native.until("all asked", SLACK, |_| servers.asked() >= count as usize);
    // The entry is fresh now: no peer is asked any more, and nothing replaces it.
    let (asked, refreshed) = (servers.asked(), native.refreshed());
    native.until_runs("refresh", 4);
    assert_eq!((servers.asked(), native.refreshed()), (asked, refreshed));
    assert_eq!(native.status().live(&indexer).unwrap().addrs, best);
}

fn value(key: &Keypair, sequence: u64, issued_at_ms: u64, ttl: u64, port: u16) -> Vec<u8> {
    let addr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let ttl = Duration::from_secs(ttl);
    signed(
        key,
        (Kind::Indexer, ""),
        (sequence, issued_at_ms, ttl),
        &addr,
    )
    .unwrap()
}
