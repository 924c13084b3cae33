//! Natives among each other.

use super::*;

/// The ids in the next beat to the other native, which accepts it.
fn told(rig: &mut Rig) -> Vec<PeerId> {
    loop {
        let until = rig.native.timeout().as_millis().max(rig.now);
        let out = rig.run(until);
        for (_, action) in out {
            if let Action::Beat { server, beat } = action {
                rig.native
                    .acked(at(rig.now), &server, &Ack::accepted(LEASE));
                assert_eq!((beat.role, beat.lease), (Role::Native, LEASE));
                return beat.known.to_vec();
            }
        }
    }
}

#[test]
fn only_natives_that_are_configured_count() {
    let mut rig = Rig::new();
    let ack = rig
        .beat_with(Role::Native, 9, 9, LEASE, None, None, &[peer(1)])
        .ack;
    assert_eq!(ack.code, AckCode::Refused);
    assert!(ack.reason.contains("--native"));
    assert!(rig.view().known.is_empty() && rig.view().records.is_empty());
    rig.learn_native(9);
    let known = [peer(1), OWN];
    let outcome = rig.beat_with(Role::Native, 9, 9, LEASE, None, None, &known);
    assert_eq!(outcome.ack, Ack::accepted(LEASE));
    assert_eq!(rig.view().known, [peer(1)], "our own id is nobody's news");
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
    assert_eq!(rig.drain(), [Action::GiveUp { server: peer(9) }]);
}
