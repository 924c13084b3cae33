//! How offers become leases with indexers.

use super::*;

#[test]
fn leases_are_held_with_min_indexers_different_indexers() {
    let mut rig = Rig::new(2, [1]);
    rig.drain();
    let did = sorted(rig.answer(1, &offering([10, 11, 12])));
    assert_eq!(did.len(), 2, "{did:?}");
    assert_ne!(did[0], did[1]);
    for did in did {
        let Beat(server) = did else { panic!("{did:?}") };
        rig.accepted(server);
    }
    assert_eq!(rig.held().len(), 2);
    assert_eq!(rig.drain(), [], "two are enough");
}

#[test]
fn leases_are_fewer_if_there_are_fewer_indexers_and_one_more_is_taken_by_the_next_round() {
    let mut rig = holding(2, [10]);
    let asked = rig.run_held(66_000);
    let [(when, Asked(1, Want::Lease))] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert!((60_000..=66_000).contains(when), "{when}");
    assert_eq!(rig.answer(1, &offering([10, 11])), [Beat(11)]);
    rig.accepted(11);
    assert_eq!(rig.held(), [10, 11]);
}

#[test]
fn the_choice_follows_free_leases_and_is_the_same_for_the_same_node() {
    let choice = |own: u8| {
        let mut rig = Rig::of(own, 1, [251]);
        rig.drain();
        let mut answer = offering([240, 241]);
        answer.offers[0].free = Some(30);
        answer.offers[1].free = Some(10);
        let did = rig.answer(251, &answer);
        let [Beat(server)] = did.as_slice() else {
            panic!("{did:?}");
        };
        *server
    };
    let first = (0..200).filter(|&own| choice(own) == 240).count();
    assert!(
        (120..=180).contains(&first),
        "{first} of 200, not about 150"
    );
    assert!((0..200).all(|own| choice(own) == choice(own)));
}

#[test]
fn an_indexer_without_free_leases_is_chosen_last() {
    for own in 100..120 {
        let mut rig = Rig::of(own, 1, [1]);
        rig.drain();
        let mut answer = offering([10, 11]);
        answer.offers[0].free = Some(0);
        assert_eq!(rig.answer(1, &answer), [Beat(11)]);
    }
}

#[test]
fn a_full_indexer_is_left_for_the_next_candidate() {
    let mut rig = Rig::new(1, [1]);
    rig.drain();
    let did = rig.answer(1, &offering([10, 11]));
    let [Beat(first)] = did.as_slice() else {
        panic!("{did:?}");
    };
    let other = 21 - first;
    let did = rig.ack(*first, &Ack::full("no room"));
    assert_eq!(sorted(did), [Beat(other), Dropped(*first)]);
}

#[test]
fn lease_that_ran_out_while_the_host_slept_is_retried_once_at_once() {
    for slept in [0, 59_000, 89_999, 90_000, 90_001, 3_600_000] {
        let mut rig = holding(1, [10]);
        rig.now += slept;
        let did = rig.closed(10);
        // After the offer's time to live, a native has to name the indexer again.
        let did = match did.as_slice() {
            [Asked(1, Want::Lease)] => rig.answer(1, &offering([10])),
            _ => did,
        };
        assert_eq!(did, [Beat(10)], "after {slept} ms");
        assert!(!rig.closed(10).contains(&Beat(10)), "after {slept} ms");
    }
}

#[test]
fn when_every_offer_failed_the_next_request_says_so_and_the_node_is_taken_in() {
    let mut rig = Rig::new(1, [1]);
    rig.drain();
    assert_eq!(rig.answer(1, &offering([10])), [Beat(10)]);
    assert_eq!(rig.closed(10), [Asked(1, Want::OffersFailed)]);
    assert_eq!(
        rig.answer(1, &taking_in([10])),
        [Beat(1)],
        "the same offer is no better at once"
    );
    rig.accepted(1);
    assert_eq!(rig.held(), [1]);
}

#[test]
fn an_offer_that_failed_is_tried_again_after_ten_seconds() {
    for (now, tried) in [(9_999, false), (10_000, true)] {
        let mut rig = Rig::new(1, [1]);
        rig.drain();
        rig.answer(1, &offering([10]));
        rig.closed(10);
        rig.answer(1, &taking_in([]));
        rig.accepted(1);
        rig.now = now;
        let did = rig.released(1, [10]);
        assert_eq!(did.contains(&Beat(10)), tried, "{did:?} at {now}");
    }
}

#[test]
fn a_lost_indexer_is_tried_once_more_at_once_and_then_replaced_within_the_same_second() {
    let mut rig = holding(1, [10]);
    rig.now = 5_000;
    assert_eq!(rig.closed(10), [Beat(10)]);
    assert_eq!(rig.closed(10), [Asked(1, Want::OffersFailed)]);
    assert_eq!(rig.answer(1, &offering([10, 11])), [Beat(11)]);
}

#[test]
fn with_one_lease_left_the_other_is_sought_at_once_but_offers_have_not_all_failed() {
    let mut rig = holding(2, [10, 11]);
    rig.now = 5_000;
    assert_eq!(rig.closed(10), [Beat(10)]);
    assert_eq!(rig.closed(10), [Asked(1, Want::Lease)]);
    assert_eq!(rig.answer(1, &offering([11, 12])), [Beat(12)]);
}

#[test]
fn a_silent_indexer_is_tried_over_a_new_connection_at_once_and_then_dropped() {
    let mut rig = holding(1, [10]);
    let out = rig.run(30_000);
    let [(beat, Beat(10))] = out.as_slice() else {
        panic!("{out:?}");
    };
    let beat = *beat;
    assert!((24_000..=28_500).contains(&beat));
    assert_eq!(rig.run(beat + 9_999), []);
    let out = rig.run(beat + 10_000);
    assert_eq!(
        out,
        [
            (beat + 10_000, Beat(10)),
            (beat + 10_000, Asked(1, Want::Lease))
        ]
    );
    assert_eq!(rig.answer(1, &offering([])), []);
    assert_eq!(rig.run(beat + 14_999), []);
    let out = rig.run(beat + 15_000);
    assert_eq!(out.first(), Some(&(beat + 15_000, Dropped(10))));
    assert!(out.contains(&(beat + 15_000, Asked(1, Want::OffersFailed))));
}

#[test]
fn a_silent_indexer_that_has_moved_is_tried_at_once_where_the_native_says_it_is() {
    let mut rig = holding(1, [10]);
    let out = rig.run(30_000);
    let [(beat, Beat(10))] = out.as_slice() else {
        panic!("{out:?}");
    };
    let beat = *beat;
    let mut moved = offering([10]);
    moved.offers[0].addrs = addrs(77);
    // Reports of others do not affect a healthy lease.
    let mut healthy = rig.node.clone();
    healthy.answered(at(beat), &peer(1), moved.as_answer());
    assert_eq!(healthy.addrs_of(&peer(10)), Some(&addrs(10)));
    rig.run(beat + 10_000);
    rig.now = beat + 10_020;
    assert_eq!(rig.answer(1, &moved), [Beat(10)]);
    assert_eq!(rig.node.addrs_of(&peer(10)), Some(&addrs(77)));
    assert_eq!(rig.accepted(10), []);
    assert_eq!(rig.held(), [10]);
    // It counts from the beat with the late ack, because that beat may be the answered one.
    let expiry = rig.node.leases.find(&peer(10)).unwrap().expiry(at(beat));
    assert_eq!(expiry, Some(at(beat) + LEASE));
}

#[test]
fn it_never_takes_a_lease_with_itself() {
    let mut rig = Rig::new(1, [1]);
    rig.drain();
    assert_eq!(rig.answer(1, &offering([OWN])), []);
}

#[test]
fn what_was_remembered_is_tried_when_no_native_answers_and_not_before() {
    let mut rig = Rig::new(1, [1, 2]);
    rig.node.remember(peer(10), addrs(10));
    assert_eq!(rig.drain(), [Asked(1, Want::Lease)]);
    assert_eq!(rig.no_answer(1), [Asked(2, Want::Lease)]);
    assert_eq!(rig.no_answer(2), [Beat(10)]);
    assert_eq!(rig.node.addrs_of(&peer(10)), Some(&addrs(10)));
}

#[test]
fn what_was_remembered_is_of_no_interest_when_a_native_has_offers() {
    let mut rig = Rig::new(1, [1]);
    rig.node.remember(peer(10), addrs(10));
    rig.drain();
    assert_eq!(rig.answer(1, &offering([11])), [Beat(11)]);
}

#[test]
fn an_offer_is_tried_until_its_time_to_live_and_not_a_millisecond_longer() {
    for (now, tried) in [(59_999, true), (60_000, true), (60_001, false)] {
        let mut rig = Rig::new(1, [1]);
        rig.drain();
        let mut answer = offering([10, 11]);
        answer.offers[1].ttl = Duration::from_secs(60);
        answer.offers[1].free = Some(0);
        assert_eq!(rig.answer(1, &answer), [Beat(10)]);
        rig.accepted(10);
        rig.now = now;
        assert_eq!(rig.closed(10), [Beat(10)], "once more");
        assert_eq!(rig.closed(10).contains(&Beat(11)), tried, "at {now}");
    }
}

#[test]
fn without_a_lease_for_two_seconds_it_asks_to_be_taken_in_and_tries_twice_as_many() {
    let mut rig = Rig::new(2, [1]);
    rig.drain();
    assert_eq!(rig.answer(1, &offering(10..26)).len(), 2);
    assert_eq!(rig.run(1_999), []);
    let out = rig.run(2_000);
    let did = |what: fn(&Did) -> bool| out.iter().filter(|(_, did)| what(did)).count();
    assert!(out.contains(&(2_000, Asked(1, Want::OffersFailed))));
    assert_eq!(did(|did| matches!(did, Dropped(_))), 2);
    assert_eq!(did(|did| matches!(did, Beat(_))), 4);
    assert_eq!(rig.answer(1, &taking_in([])), [Beat(1)]);
    rig.accepted(1);
    assert_eq!(rig.held(), [1]);
    let beats = |out: &[(u64, Did)]| out.iter().filter(|(_, d)| matches!(d, Beat(_))).count();
    let out = rig.run(4_000);
    assert!(beats(&out) >= 4, "it goes on trying meanwhile: {out:?}");
    let Some((_, Beat(honest))) = out.iter().rfind(|(_, did)| matches!(did, Beat(_))) else {
        panic!("{out:?}");
    };
    let did = rig.accepted(*honest);
    assert!(did.contains(&GaveUp(1)), "{did:?}");
    assert!(rig.node.seeking() <= 2, "no more tries than are wanted");
}

#[test]
fn a_server_that_failed_has_two_seconds_more_for_its_first_ack() {
    let mut rig = Rig::new(1, [1]);
    rig.drain();
    rig.answer(1, &offering([10]));
    let mut opened = 0;
    for patience in [2_000, 4_000, 5_000] {
        assert!(
            !rig.run(opened + patience - 1)
                .contains(&(rig.now, Dropped(10)))
        );
        assert!(
            rig.run(opened + patience)
                .contains(&(opened + patience, Dropped(10)))
        );
        // It is offered repeatedly while it pauses.
        let out = loop {
            rig.node
                .propose(at(rig.now), &offers([10])[0], OfferSource::Native);
            let out = rig.run(rig.now + 100);
            if out.iter().any(|(_, did)| *did == Beat(10)) {
                break out;
            }
        };
        opened = out.iter().find(|(_, did)| *did == Beat(10)).unwrap().0;
    }
}

#[test]
fn after_the_first_two_seconds_those_that_natives_name_most_often_are_tried_first() {
    let mut rig = Rig::new(1, [1]);
    rig.drain();
    rig.answer(1, &offering(10..26));
    rig.run(2_000);
    let tried = rig.node.leases.iter().map(|lease| *lease.server());
    let tried: Vec<_> = tried.collect();
    let again = (10..26).rev().find(|n| !tried.contains(&peer(*n))).unwrap();
    rig.answer(1, &offering((30..40).chain([again])));
    let out = rig.run(4_000);
    assert!(out.contains(&(4_000, Beat(again))), "{again}: {out:?}");
}

#[test]
fn two_ids_at_one_address_are_not_tried_at_once() {
    let mut rig = Rig::new(2, [1]);
    rig.drain();
    let mut answer = offering([10, 11, 12]);
    answer.offers[1].addrs = addrs(10);
    let mut did = rig.answer(1, &answer);
    did.retain(|did| matches!(did, Beat(10 | 11)));
    assert_eq!(did.len(), 1, "{did:?}");
}

#[test]
fn attempt_begins_again_in_a_changed_network_until_its_offer_expires() {
    for (now, begins) in [(999, true), (1_000, true), (1_001, false)] {
        let mut rig = Rig::new(1, [1]);
        rig.drain();
        let mut answer = offering([10]);
        answer.offers[0].ttl = Duration::from_secs(1);
        assert_eq!(rig.answer(1, &answer), [Beat(10)]);
        rig.now = now;
        rig.node.network_changed(at(now));
        let did = rig.drain();
        assert!(did.contains(&Dropped(10)), "{did:?} at {now}");
        assert_eq!(did.contains(&Beat(10)), begins, "{did:?} at {now}");
        // The indexer has not failed, so a new offer is tried at once.
        if !begins {
            assert_eq!(rig.answer(1, &answer), [Beat(10)]);
        }
    }
}
