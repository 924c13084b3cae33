//! Rounds of connect-to-natives; nodes are taken in and released.

use super::*;

#[test]
fn at_start_the_natives_are_asked_in_turn_until_the_offers_suffice() {
    let mut rig = Rig::new(2, [1, 2, 3]);
    assert_eq!(rig.drain(), [Asked(1, Want::Lease)]);
    assert_eq!(rig.no_answer(1), [Asked(2, Want::Lease)]);
    let did = rig.answer(2, &offering([10]));
    assert_eq!(sorted(did), [Asked(3, Want::Lease), Beat(10)]);
    assert_eq!(rig.answer(3, &offering([10, 11])), [Beat(11)]);
    let mut rig = Rig::new(2, [1, 2, 3]);
    rig.drain();
    let did = sorted(rig.answer(1, &offering([10, 11])));
    assert_eq!(did, [Beat(10), Beat(11)], "no other server is asked");
}

#[test]
fn a_native_that_is_silent_for_eight_seconds_is_passed_over() {
    let mut rig = Rig::new(1, [1, 2]);
    assert_eq!(rig.run(7_999), [(0, Asked(1, Want::Lease))]);
    assert_eq!(rig.run(8_000), [(8_000, Asked(2, Want::Lease))]);
    assert_eq!(
        rig.answer(1, &offering([10])),
        [],
        "no request waits for its late answer"
    );
}

#[test]
fn an_answer_counts_although_a_native_became_known_in_between() {
    let mut rig = Rig::new(1, [1, 2]);
    rig.drain();
    rig.no_answer(1);
    rig.node.learn_native(at(0), peer(3), addrs(3));
    assert_eq!(rig.answer(2, &offering([10])), [Beat(10)]);
}

#[test]
fn a_native_that_becomes_known_while_there_is_no_lease_is_asked_at_once() {
    let mut rig = Rig::new(1, []);
    assert_eq!(rig.drain(), []);
    rig.now = 10;
    rig.node.learn_native(at(10), peer(1), addrs(1));
    assert_eq!(rig.drain(), [Asked(1, Want::Lease)]);
    rig.node.learn_native(at(10), peer(OWN), addrs(OWN));
    assert!(
        !rig.node.reserves_slot(&peer(OWN)),
        "it is no native of its own"
    );
}

#[test]
fn slots_are_kept_for_natives_and_for_indexers_while_they_grant_or_are_asked_for_a_lease() {
    let mut rig = Rig::new(1, [1]);
    rig.drain();
    assert!(rig.node.is_native(&peer(1)) && rig.node.reserves_slot(&peer(1)));
    assert!(!rig.node.reserves_slot(&peer(10)), "it is a stranger");
    rig.answer(1, &offering([10]));
    assert!(rig.node.reserves_slot(&peer(10)) && !rig.node.is_native(&peer(10)));
    let role_of = |n| rig.node.role_of(&peer(n));
    assert_eq!(role_of(1), Some(Role::Native));
    assert_eq!(role_of(10), Some(Role::Indexer));
    assert_eq!(role_of(11), None);
    rig.node.shut_down();
    assert!(!rig.node.reserves_slot(&peer(10)) && rig.node.reserves_slot(&peer(1)));
}

#[test]
fn a_round_comes_every_connect_interval_and_asks_only_when_leases_are_missing() {
    let mut rig = holding(2, [10, 11]);
    assert_eq!(rig.run_held(300_000), [], "two leases: nothing to ask");
    let mut rig = holding(2, [10]);
    let mut last = 0;
    for _ in 0..5 {
        let asked = loop {
            let until = rig.node.timeout().as_millis();
            if let Some((when, _)) = rig.run_held(until).first() {
                break *when;
            }
        };
        let pause = asked - last;
        assert!((60_000..=66_000).contains(&pause), "{pause}");
        last = asked;
        rig.answer(1, &offering([10]));
    }
}

#[test]
fn where_places_are_short_a_node_with_a_lease_asks_one_native_a_round_and_each_in_turn() {
    let mut rig = Rig::new(2, [1, 2, 3]);
    rig.drain();
    rig.answer(1, &offering([10]));
    rig.answer(2, &offering([]));
    rig.answer(3, &offering([]));
    rig.accepted(10);
    let mut asked = Vec::new();
    for round in 1..=6 {
        for (_, did) in rig.run_held(66_000 * round) {
            let Asked(native, _) = did else {
                panic!("{did:?}");
            };
            asked.push(native);
            assert_eq!(rig.answer(native, &offering([])), [], "no other is asked");
        }
    }
    assert_eq!(asked.get(..3), Some(&[1, 2, 3][..]), "{asked:?}");
    assert_eq!(asked.get(3..5), Some(&[1, 2][..]), "{asked:?}");
    // A native that does not answer does not count.
    let mut rig = Rig::new(2, [1, 2]);
    rig.drain();
    rig.answer(1, &offering([10]));
    rig.answer(2, &offering([]));
    rig.accepted(10);
    let (_, first) = rig.run_held(66_000)[0];
    let Asked(first, _) = first else {
        panic!("{first:?}");
    };
    assert_eq!(rig.no_answer(first), [Asked(3 - first, Want::Lease)]);
    assert_eq!(rig.answer(3 - first, &offering([10, 11])), [Beat(11)]);
}

#[test]
fn rounds_that_come_to_nothing_back_off_up_to_ten_seconds() {
    let mut rig = Rig::new(1, [1]);
    let mut ceiling = 500;
    for _ in 0..12 {
        let started = rig.now;
        assert_eq!(rig.drain(), [Asked(1, Want::Lease)]);
        rig.no_answer(1);
        let next = rig.node.rounds.next().as_millis();
        let pause = next - started;
        assert!((1..=ceiling).contains(&pause), "{pause} of {ceiling}");
        ceiling = (ceiling * 2).min(10_000);
        rig.now = next;
    }
}

#[test]
fn with_no_indexer_the_native_that_takes_it_in_gets_its_beat_and_is_asked_first_from_then_on() {
    let mut rig = Rig::new(2, [1, 2, 3]);
    rig.drain();
    rig.answer(1, &offering([]));
    assert_eq!(rig.answer(2, &taking_in([])), [Beat(2)]);
    rig.accepted(2);
    assert_eq!(rig.held(), [2]);
    let asked = rig.run_held(66_000);
    assert_eq!(
        asked.first().map(|(_, did)| *did),
        Some(Asked(2, Want::Lease))
    );
}

#[test]
fn a_native_that_is_full_is_left_for_the_other_natives() {
    let mut rig = Rig::new(1, [1, 2]);
    rig.drain();
    rig.answer(1, &taking_in([]));
    let did = rig.ack(1, &Ack::full("no room"));
    assert!(did.contains(&Dropped(1)), "{did:?}");
    let asked = rig.run(1_000);
    let asked: Vec<_> = asked.into_iter().map(|(_, did)| did).collect();
    assert_eq!(asked, [Asked(1, Want::Lease)], "within the first backoff");
    assert_eq!(rig.answer(1, &offering([])), [Asked(2, Want::Lease)]);
    assert_eq!(rig.answer(2, &taking_in([])), [Beat(2)]);
}

#[test]
fn there_is_at_most_one_lease_with_a_native() {
    let mut rig = taken_in([1, 2]);
    let asked = rig.run_held(66_000);
    assert!(matches!(asked.as_slice(), [(_, Asked(1, Want::Lease))]));
    assert_eq!(rig.answer(1, &offering([])), [Asked(2, Want::Lease)]);
    assert_eq!(rig.answer(2, &taking_in([])), []);
    assert_eq!(rig.held(), [1]);
}

#[test]
fn when_its_native_is_lost_it_asks_again_within_the_first_backoff() {
    let mut rig = taken_in([1]);
    rig.now = 5_000;
    assert_eq!(rig.closed(1), [Beat(1)]);
    assert_eq!(rig.closed(1), []);
    let out = rig.run(6_000);
    assert!(
        matches!(out.as_slice(), [(_, Asked(1, Want::Lease))]),
        "{out:?}"
    );
}

#[test]
fn a_node_grants_no_leases() {
    let mut rig = Rig::new(1, [1]);
    let beat = crate::protocol::Beat::new(Role::Node, LEASE);
    let stream = crate::protocol::StreamId(1);
    let outcome = rig.node.beat(at(0), &peer(5), stream, &beat);
    assert_eq!(outcome.ack.code, AckCode::Refused);
}

#[test]
fn shutting_down_gives_everything_up_and_seeks_nothing_any_more() {
    let mut rig = holding(2, [10, 11]);
    rig.node.shut_down();
    assert_eq!(sorted(rig.drain()), [GaveUp(10), GaveUp(11)]);
    assert_eq!(rig.node.next_timeout(), None);
    rig.now = 1_000_000;
    assert_eq!(rig.node.poll(at(rig.now), 0), None);
}

#[test]
fn without_a_lease_a_changed_network_begins_a_round_at_once_and_with_one_it_does_not() {
    let mut rig = Rig::new(1, [1]);
    assert_eq!(rig.drain(), [Asked(1, Want::Lease)]);
    rig.now = 100;
    rig.node.network_changed(at(100));
    let mut actions = std::iter::from_fn(|| rig.node.poll(at(100), 0));
    let asks = matches!(actions.next(), Some(Action::Ask { .. }));
    assert!(asks, "the answer may be lost");
    assert_eq!(actions.next(), Some(Action::Retry));
    assert_eq!(actions.next(), None);
    assert_eq!(rig.no_answer(1), []);
    rig.now += 1;
    rig.node.network_changed(at(rig.now));
    assert_eq!(rig.drain(), [Asked(1, Want::Lease)]);

    let mut rig = holding(1, [10]);
    rig.now += 1_000;
    let before = rig.node.clone();
    rig.node.network_changed(at(rig.now));
    assert_eq!(rig.node, before);
}

#[test]
fn a_native_that_is_full_is_not_taken_at_its_word_for_ten_seconds() {
    for (now, beats) in [(9_999, false), (10_000, true)] {
        let mut rig = Rig::new(1, [1]);
        rig.drain();
        rig.answer(1, &taking_in([]));
        rig.ack(1, &Ack::full("no room"));
        while rig.run(now).is_empty() || rig.now < now {
            rig.no_answer(1);
        }
        assert!(rig.node.rounds.is_waiting());
        assert_eq!(rig.answer(1, &taking_in([])).contains(&Beat(1)), beats);
    }
}

#[test]
fn each_node_begins_at_a_native_of_its_own_and_a_fleet_spreads() {
    let mut first = [0; 10];
    for own in 100..=249 {
        let mut rig = Rig::of(own, 1, [1, 2, 3, 4]);
        let [Asked(native, Want::Lease)] = rig.drain()[..] else {
            panic!("one native is asked");
        };
        first[usize::from(native)] += 1;
        let mut other_order = Rig::of(own, 1, [4, 2, 1, 3]);
        assert_eq!(other_order.drain(), [Asked(native, Want::Lease)]);
    }
    let [_, counts @ .., _, _, _, _, _] = first;
    assert!(counts.iter().all(|n| (20..=60).contains(n)), "{counts:?}");
}

#[test]
fn a_missing_lease_does_not_shorten_the_pause_after_a_round() {
    let after_a_round = |interval| {
        let mut rounds = Rounds::new();
        rounds.start(at(0), &peer(OWN), Duration::from_secs(10));
        rounds.learn(peer(1), addrs(1));
        rounds.begin_if_due(at(0), Want::Lease, RoundFor::FirstLease);
        // The same random source gives the same pause.
        rounds.end(at(0), interval, &mut Rng::new(1));
        rounds
    };
    let pause = after_a_round(None).next().as_millis();
    assert!(pause > 1);
    assert!(after_a_round(Some(CONNECT)).next() >= at(0) + CONNECT);
    for (now, asks) in [(pause - 1, false), (pause, true)] {
        let mut rounds = after_a_round(Some(CONNECT));
        rounds.hurry(at(now));
        rounds.begin_if_due(at(now), Want::Lease, RoundFor::FirstLease);
        assert_eq!(rounds.is_asking(at(now)), asks, "{now} of {pause} ms");
    }
}

#[test]
fn native_that_is_no_longer_configured_is_not_asked_and_not_waited_for() {
    let mut rig = Rig::new(1, [1, 2]);
    assert_eq!(rig.drain(), [Asked(1, Want::Lease)]);
    let native = &peer(1);
    rig.node.handle(at(0), Input::NativeForgotten { native });
    assert_eq!(rig.drain(), [Asked(2, Want::Lease)], "at once");
    assert!(!rig.node.is_native(&peer(1)) && !rig.node.reserves_slot(&peer(1)));
    assert_eq!(rig.answer(1, &offering([10])), [], "its answer is late");
    // In the same round it can be asked again if it is configured again.
    rig.node.learn_native(at(0), peer(1), addrs(1));
    assert_eq!(rig.no_answer(2), [Asked(1, Want::Lease)]);
}

#[test]
fn lease_with_a_native_that_is_no_longer_configured_is_given_up() {
    let mut rig = taken_in([1, 2]);
    assert_eq!(rig.held(), [1]);
    let native = &peer(1);
    rig.node
        .handle(at(rig.now), Input::NativeForgotten { native });
    let (server, role) = (peer(1), Role::Native);
    let ends = Action::GiveUp { server, role };
    assert_eq!(rig.node.poll(at(rig.now), 0), Some(ends));
    assert!(!rig.node.reserves_slot(&peer(1)));
    let until = rig.now + 10_000;
    let asked = rig.run(until);
    assert!(
        asked.iter().any(|(_, did)| *did == Asked(2, Want::Lease)),
        "{asked:?}"
    );
}

#[test]
fn natives_that_did_not_answer_are_asked_again_by_backoff_while_a_lease_is_missing() {
    let asked_at = |answers: bool| {
        let mut rig = Rig::new(2, [1]);
        rig.drain();
        rig.answer(1, &offering([10]));
        rig.accepted(10);
        // The next rounds come by the interval.
        let is_ask = |did: &(u64, Did)| matches!(did.1, Asked(..));
        let mut until = rig.now;
        while !rig.run_held(until).iter().any(is_ask) {
            until += 100;
        }
        let begun = rig.now;
        match answers {
            true => rig.answer(1, &offering([10])),
            false => rig.no_answer(1),
        };
        let mut until = rig.now;
        while !rig.run_held(until).iter().any(is_ask) {
            until += 100;
        }
        rig.now - begun
    };
    assert!(asked_at(true) >= CONNECT.as_millis() as u64);
    let soon = asked_at(false);
    assert!(soon <= 10_000, "{soon}");
}
