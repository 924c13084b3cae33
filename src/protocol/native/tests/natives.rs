//! Natives that deal with each other.

use super::*;
use crate::protocol::capacities::MAX_NATIVES;

/// The ids in the next beat to the other native, which accepts it.
fn told(rig: &mut Rig) -> Vec<PeerId> {
    loop {
        let until = rig.native.timeout().as_millis().max(rig.now);
        let out = rig.run(until);
        for (_, action) in out {
            if let Action::Beat { server, beat, .. } = action {
                rig.native
                    .acked(at(rig.now), &server, &Ack::accepted(LEASE));
                assert_eq!((beat.role, beat.lease), (Role::Native, LEASE));
                return rig.native.beat_known().to_vec();
            }
        }
    }
}

#[test]
fn what_a_fellow_reports_counts_in_its_beats_and_in_its_acks() {
    let mut rig = Rig::new();
    rig.learn_native(9);
    let known = [peer(1), OWN];
    let outcome = rig.beat_with(Role::Native, 9, 9, LEASE, None, None, &known);
    assert_eq!(outcome.ack, Ack::accepted(LEASE));
    assert_eq!(rig.view().known, [peer(1)], "the own id is no news");
    rig.drain();
    let mut ack = Ack::accepted(LEASE);
    let known = [peer(2), OWN];
    ack.known = &known;
    rig.native.acked(at(0), &peer(9), &ack);
    assert_eq!(rig.view().known, [peer(1), peer(2)]);
    let known = [peer(3)];
    ack.known = &known;
    rig.native.acked(at(0), &peer(8), &ack);
    assert_eq!(rig.view().known.len(), 2, "it is no fellow");
}

#[test]
fn natives_beyond_those_that_the_build_says_get_no_beat() {
    let mut rig = Rig::new();
    for n in 1..=MAX_NATIVES as u8 + 1 {
        rig.learn_native(n);
    }
    let mut held = Vec::new();
    rig.native
        .servers(at(0), &mut |server| held.push(server.peer));
    assert_eq!(held, (1..=MAX_NATIVES as u8).map(peer).collect::<Vec<_>>());
}

#[test]
fn a_peer_has_the_role_of_its_lease_and_one_that_the_dht_knows_is_an_indexer() {
    let mut rig = Rig::new();
    rig.learn_native(9);
    rig.beat(Role::Node, 5, 5, None);
    rig.indexer(1);
    rig.beat(Role::Native, 109, 109, None);
    rig.native
        .live_indexers
        .found_in_dht(at(0), 0, &record(2, 1));
    for (n, role) in [
        (9, Some(Role::Native)),
        (5, Some(Role::Node)),
        (1, Some(Role::Indexer)),
        (109, Some(Role::Native)),
        (2, Some(Role::Indexer)),
        (3, None),
    ] {
        assert_eq!(rig.native.role_of(&peer(n)), role, "{n}");
    }
}

#[test]
fn slots_are_kept_for_fellows_and_for_guests_that_hold_a_lease() {
    let mut rig = Rig::new();
    rig.learn_native(9);
    assert!(rig.native.is_native(&peer(9)) && rig.native.reserves_slot(&peer(9)));
    assert!(!rig.native.reserves_slot(&peer(109)));
    rig.beat_with(Role::Native, 109, 109, LEASE, None, None, &[]);
    assert!(rig.native.reserves_slot(&peer(109)) && !rig.native.is_native(&peer(109)));
    rig.beat_with(Role::Native, 109, 109, Duration::ZERO, None, None, &[]);
    assert!(
        !rig.native.reserves_slot(&peer(109)),
        "it gave its lease up"
    );
}

#[test]
fn a_guest_is_accepted_told_the_live_ids_and_learned_from() {
    let mut rig = Rig::new();
    (1..=20).for_each(|n| rig.indexer(n));
    let mut told = Vec::new();
    for _ in 0..2 {
        let outcome = rig.beat_with(Role::Native, 109, 109, LEASE, None, None, &[peer(50)]);
        assert_eq!(outcome.ack.code, AckCode::Accepted);
        told.extend_from_slice(outcome.ack.known);
    }
    told.truncate(20);
    assert_eq!(told, (1..=20).map(peer).collect::<Vec<_>>());
    assert!(rig.view().known.contains(&peer(50)));
    assert!(
        !rig.drain()
            .iter()
            .any(|action| matches!(action, Action::Beat { .. })),
        "we beat to fellows only"
    );
}

#[test]
fn guests_take_at_most_half_of_the_room_for_natives() {
    // 40 leases, less 32 of indexers and 6 of nodes: one guest.
    let mut rig = Rig::new();
    assert_eq!(
        rig.beat(Role::Native, 9, 9, None).ack.code,
        AckCode::Accepted
    );
    let ack = rig.beat(Role::Native, 8, 8, None).ack;
    assert_eq!(ack.code, AckCode::Full);
    assert!(ack.reason.contains("--native"));
    assert_eq!(rig.view().refused("guests"), 1);
    rig.learn_native(8);
    assert_eq!(
        rig.beat(Role::Native, 8, 8, None).ack.code,
        AckCode::Accepted
    );
    assert_eq!(
        rig.beat(Role::Native, 9, 9, None).ack.code,
        AckCode::Accepted
    );
    rig.give_up(Role::Native, 9, 9);
    assert_eq!(
        rig.beat(Role::Native, 7, 7, None).ack.code,
        AckCode::Accepted
    );
}

#[test]
fn fellows_are_no_guests_after_their_leases_were_given_up() {
    let mut rig = Rig::new();
    for n in [8, 9] {
        rig.learn_native(n);
        let ack = rig.beat(Role::Native, n, n.into(), None).ack;
        assert_eq!(ack.code, AckCode::Accepted);
    }
    assert_eq!(rig.view().used("guests"), 0);
    rig.native.shut_down();
    assert_eq!(rig.view().used("guests"), 0);
    for (n, code) in [(7, AckCode::Accepted), (6, AckCode::Full)] {
        assert_eq!(rig.beat(Role::Native, n, n.into(), None).ack.code, code);
    }
    assert_eq!(rig.view().used("guests"), 1);
}

#[test]
fn node_or_indexer_that_becomes_a_guest_finds_no_more_room_than_a_newcomer() {
    for guests in [0, 1] {
        for role in [Role::Node, Role::Indexer] {
            let mut rig = Rig::new();
            let own = record(1, 1);
            let own = (role == Role::Indexer).then_some(&own);
            assert_eq!(rig.beat(role, 1, 1, own).ack.code, AckCode::Accepted);
            if guests == 1 {
                rig.beat(Role::Native, 9, 9, None);
            }
            let code = rig.beat(Role::Native, 1, 2, None).ack.code;
            let expected = [AckCode::Accepted, AckCode::Full][guests];
            assert_eq!(code, expected, "{role:?}, {guests} guests");
            assert_eq!(rig.view().used("guests"), 1);
            assert_eq!(rig.view().records.len(), 1, "its old lease is over");
        }
    }
}

#[test]
fn of_one_guest_at_most_32_ids_are_kept_and_a_fellows_take_their_room() {
    let mut rig = Rig::new();
    rig.learn_native(8);
    let ids: Vec<_> = (101..=140).map(peer).collect();
    for ids in ids.chunks(8) {
        rig.now += 1;
        rig.beat_with(Role::Native, 9, 9, LEASE, None, None, ids);
    }
    let mut known = rig.view().known;
    known.sort();
    assert_eq!(known, ids[8..], "the oldest went");
    rig.beat_with(Role::Native, 8, 8, LEASE, None, None, &[peer(1)]);
    assert!(rig.view().known.contains(&peer(1)));
    assert_eq!(rig.view().known.len(), 32);
}

#[test]
fn each_native_hears_all_ids_in_its_own_turn() {
    // There are two windows of 16. If both natives shared one turn, each would always get the same
    // window.
    let mut rig = Rig::new();
    (1..=32).for_each(|n| rig.indexer(n));
    rig.learn_native(108);
    rig.learn_native(109);
    let mut heard = [Vec::new(), Vec::new()];
    for _ in 0..2 {
        for (n, heard) in [108, 109].into_iter().zip(&mut heard) {
            let outcome = rig.beat(Role::Native, n, n.into(), None);
            heard.extend_from_slice(outcome.ack.known);
        }
    }
    for mut heard in heard {
        heard.sort();
        heard.dedup();
        assert_eq!(heard.len(), 32);
    }
}

#[test]
fn known_ids_in_the_beat_of_anybody_else_count_for_nothing() {
    let mut rig = Rig::new();
    let info = record(1, 1);
    for (role, n) in [(Role::Node, 100), (Role::Indexer, 1)] {
        let own = (role == Role::Indexer).then_some(&info);
        rig.beat_with(role, n, u64::from(n), LEASE, own, None, &[peer(50)]);
    }
    assert_eq!(rig.view().known, [peer(1)]);
}

#[test]
fn only_ids_with_a_live_entry_are_passed_on() {
    let mut rig = Rig::new();
    rig.native.remember(at(0), &peer(1));
    rig.indexer(2);
    rig.learn_native(9);
    assert_eq!(told(&mut rig), [peer(2)]);
    rig.now = 90_001;
    rig.drain();
    assert_eq!(told(&mut rig), [], "its entry has run out");
}

#[test]
fn the_window_holds_sixteen_ids_and_goes_round_all() {
    let mut rig = Rig::new();
    for n in 1..=20 {
        rig.indexer(n);
    }
    rig.learn_native(9);
    let first = told(&mut rig);
    assert_eq!(first, (1..=16).map(peer).collect::<Vec<_>>());
    let second = told(&mut rig);
    let expected: Vec<_> = (17..=20).chain(1..=12).map(peer).collect();
    assert_eq!(second, expected, "it goes on where it ended");
}

#[test]
fn what_was_heard_of_one_native_is_told_to_the_next() {
    let mut rig = Rig::new();
    rig.learn_native(9);
    rig.native.acked(at(0), &peer(9), &Ack::accepted(LEASE));
    rig.beat_with(Role::Native, 9, 9, LEASE, None, None, &[peer(1)]);
    rig.run(20_000);
    rig.native
        .search_value(at(20_000), 20_000, &peer(1), &record(1, 19_000));
    rig.native.search_ended(at(20_000), 20_000, &peer(1));
    rig.learn_native(8);
    assert_eq!(told(&mut rig), [peer(1)]);
}

#[test]
fn it_makes_no_lease_with_itself() {
    let mut rig = Rig::new();
    rig.native.learn_native(at(0), OWN, addrs(0));
    assert_eq!(rig.drain(), []);
}

#[test]
fn shutting_down_gives_the_leases_with_other_natives_up() {
    let mut rig = Rig::new();
    rig.learn_native(9);
    assert!(matches!(rig.drain().as_slice(), [Action::Beat { .. }]));
    rig.native.shut_down();
    assert_eq!(
        rig.drain(),
        [Action::GiveUp {
            server: peer(9),
            role: Role::Native
        }]
    );
}

#[test]
fn fellow_that_is_no_longer_configured_is_a_guest_and_its_lease_is_given_up() {
    let mut rig = Rig::new();
    rig.native.learn_native(at(0), peer(9), addrs(9));
    rig.drain();
    assert!(rig.native.is_native(&peer(9)));
    let native = &peer(9);
    rig.native.handle(at(0), Input::NativeForgotten { native });
    assert!(!rig.native.is_fellow(&peer(9)) && !rig.native.is_native(&peer(9)));
    let ends = |action: &Action| matches!(action, Action::Drop { .. } | Action::GiveUp { .. });
    assert!(rig.drain().iter().any(ends));
}

#[test]
fn server_that_was_lost_is_back_with_the_time_that_it_was_gone() {
    for role in [Role::Native, Role::Indexer] {
        let mut rig = Rig::new();
        rig.learn_native(9);
        let gone_for = |rig: &mut Rig| match rig.beat(role, 9, 9, None).arrival {
            Arrival::Joined(joined) => joined.gone_for.map(|gone| !gone.is_zero()),
            other => panic!("{other:?}"),
        };
        assert_eq!(gone_for(&mut rig), None);
        rig.run(rig.now + 200_000);
        assert!(rig.view().records.is_empty());
        rig.now += 1_000;
        assert_eq!(gone_for(&mut rig), Some(true), "{role}");
    }
}
