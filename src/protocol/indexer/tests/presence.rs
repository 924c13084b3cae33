//! What an indexer says of its nodes: that they are there, have left or are lost.

use super::*;

fn presence(indexer: &Indexer<2>, now: u64, n: u8) -> Option<Presence> {
    indexer.entry(at(now), &peer(n)).map(|entry| entry.presence)
}

#[test]
fn who_gives_its_lease_up_has_left_and_who_is_back_is_alive() {
    let mut indexer = indexer();
    let pump = record(1, 5, "pump");
    node_beat(&mut indexer, 0, 1, 1, LEASE, Some(&pump));
    assert_eq!(presence(&indexer, 0, 1), Some(Presence::Alive));
    node_beat(&mut indexer, 1, 1, 1, Duration::ZERO, None);
    assert_eq!(presence(&indexer, 1, 1), Some(Presence::Left));
    assert_eq!(presence(&indexer, 1, 2), None);
    // A lease alone counts: the record may come later.
    node_beat(&mut indexer, 2, 1, 2, LEASE, None);
    assert_eq!(indexer.lost().unwrap().stats().used, 0);
}

#[test]
fn who_is_collected_is_lost_and_not_a_tick_before() {
    let mut indexer = indexer();
    let pump = record(1, 5, "pump");
    node_beat(&mut indexer, 0, 1, 1, LEASE, Some(&pump));
    let mut now = 0;
    while presence(&indexer, now, 1) == Some(Presence::Alive) {
        assert!(now < 100_000, "it was never collected");
        now = indexer.gc.next().as_millis();
        drain(&mut indexer, now - 1);
        assert_eq!(presence(&indexer, now - 1, 1), Some(Presence::Alive));
        drain(&mut indexer, now);
    }
    assert_eq!(presence(&indexer, now, 1), Some(Presence::Lost));
    let age = |now| indexer.entry(at(now), &peer(1)).map(|entry| entry.age);
    assert_eq!(age(now + 7), Some(Duration::from_millis(7)));
}

#[test]
fn whose_expired_lease_yields_to_a_newcomer_is_lost() {
    let mut indexer = indexer();
    for n in [1, 2] {
        let (second, pump) = (Duration::from_secs(1), record(n, 5, "pump"));
        node_beat(&mut indexer, 0, n, n.into(), second, Some(&pump));
    }
    assert_eq!(join(&mut indexer, 1_000, 3).code, AckCode::Full);
    assert_eq!(presence(&indexer, 1_000, 1), Some(Presence::Alive));
    assert_eq!(join(&mut indexer, 1_001, 3).code, AckCode::Accepted);
    assert_eq!(presence(&indexer, 1_001, 1), Some(Presence::Lost));
}

#[test]
fn who_takes_another_role_is_not_lost() {
    let mut indexer = indexer();
    node_beat(&mut indexer, 0, 1, 1, LEASE, Some(&record(1, 5, "pump")));
    let beat = Beat::new(Role::Indexer, LEASE);
    indexer.beat(at(1), &peer(1), StreamId(1), &beat);
    assert!(indexer.listed(at(0), &peer(1)).is_none());
    assert_eq!(presence(&indexer, 1, 1), None);
}

#[test]
fn the_device_whose_identity_another_uses_is_not_lost() {
    let mut indexer = indexer();
    comes(&mut indexer, 1, 1, &record(1, 5, "original")).unwrap();
    comes(&mut indexer, 2, 2, &record(1, 9, "copy")).unwrap();
    assert_eq!(presence(&indexer, 0, 1), Some(Presence::Alive));
    assert_eq!(indexer.lost().unwrap().stats().used, 0);
}

#[test]
fn an_answer_says_when_the_node_was_last_heard() {
    let mut indexer = indexer();
    node_beat(&mut indexer, 5, 1, 1, LEASE, Some(&record(1, 5, "pump")));
    node_beat(&mut indexer, 9, 1, 1, LEASE, None);
    let claimants = indexer.claimants(at(0), "pump");
    let node = claimants.nodes.first().unwrap();
    assert_eq!((node.since(), node.last_seen()), (at(5), Some(at(9))));
    assert_eq!(
        indexer.listed(at(0), &peer(1)).unwrap().last_seen(),
        Some(at(9))
    );
}
