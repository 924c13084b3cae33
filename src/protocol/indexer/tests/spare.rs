//! Spare leases, which yield when places are short.

use super::*;

/// An indexer with room for 40 nodes that has granted this many leases; node `n` has stream `n`.
fn filled(leases: u8) -> Box<Indexer<40>> {
    let mut indexer = Box::new(Indexer::new());
    indexer.start(at(0), peer(0), 1, CONFIG);
    for n in 1..=leases {
        let beat = Beat::new(Role::Node, LEASE);
        let outcome = indexer.beat(at(0), &peer(n), StreamId(u64::from(n)), &beat);
        assert_eq!(outcome.ack.code, AckCode::Accepted);
    }
    indexer
}

fn spare_beat(lease: Duration) -> Beat<SignedRecord<'static>> {
    Beat {
        publisher: Publisher::Another,
        ..Beat::new(Role::Node, lease)
    }
}

#[test]
fn no_spare_lease_is_granted_with_less_than_a_tenth_of_the_places_free() {
    for (held, code) in [(36, AckCode::Accepted), (37, AckCode::Full)] {
        let mut indexer = filled(held);
        let ack = indexer
            .beat(at(1), &peer(99), StreamId(99), &spare_beat(LEASE))
            .ack;
        assert_eq!(ack.code, code, "{held} of 40 held");
        let own = indexer.beat(
            at(1),
            &peer(98),
            StreamId(98),
            &Beat::new(Role::Node, LEASE),
        );
        assert_eq!(own.ack.code, AckCode::Accepted, "for a node that has none");
    }
}

#[test]
fn a_spare_lease_is_not_renewed_with_less_than_a_twentieth_free() {
    for (held, code) in [(38, AckCode::Accepted), (39, AckCode::Full)] {
        let mut indexer = filled(held);
        drain(&mut indexer, 0);
        let beat = spare_beat(LEASE);
        let ack = indexer.beat(at(1), &peer(7), StreamId(7), &beat).ack;
        assert_eq!(ack.code, code, "{held} of 40 held");
        let turned_away = code == AckCode::Full;
        assert_eq!(indexer.reserves_slot(&peer(7)), !turned_away);
        let close = Action::Close {
            peer: peer(7),
            stream: StreamId(7),
            ended: Some(ended(EndCause::Yielded, 0)),
        };
        assert_eq!(drain(&mut indexer, 1).contains(&close), turned_away);
    }
}

#[test]
fn a_spare_lease_can_be_given_up_and_an_old_stream_of_it_ends_nothing() {
    let mut indexer = filled(39);
    let old = indexer.beat(at(1), &peer(7), StreamId(6), &spare_beat(LEASE));
    assert_eq!(old.ack.code, AckCode::Refused);
    assert!(indexer.reserves_slot(&peer(7)));
    let last = indexer.beat(at(1), &peer(7), StreamId(7), &spare_beat(Duration::ZERO));
    assert_eq!(last.ack, Ack::accepted(Duration::ZERO));
}

#[test]
fn the_record_of_a_spare_lease_is_listed_and_not_published() {
    let mut indexer = filled(1);
    let pump = record(1, 5, "pump");
    let beat = Beat {
        record: Some(SignedRecord::of(&pump)),
        ..spare_beat(LEASE)
    };
    assert!(!indexer.beat(at(1), &peer(1), StreamId(1), &beat).publish);
    assert_eq!(indexer.claimants(at(0), "pump").nodes.len(), 1);
}

#[test]
fn whose_spare_lease_is_not_renewed_is_not_lost() {
    let mut indexer = filled(39);
    let pump = record(1, 5, "pump");
    let mut beat = Beat {
        record: Some(SignedRecord::of(&pump)),
        ..Beat::new(Role::Node, LEASE)
    };
    indexer.beat(at(1), &peer(1), StreamId(1), &beat);
    assert!(indexer.listed(at(0), &peer(1)).is_some());
    beat.publisher = Publisher::Another;
    let ack = indexer.beat(at(1), &peer(1), StreamId(1), &beat).ack;
    assert_eq!(ack.code, AckCode::Full);
    assert!(indexer.entry(at(1), &peer(1)).is_none());
}
