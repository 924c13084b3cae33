//! What a node does that a native, or another server, sends away.

use super::*;

#[test]
fn on_release_it_moves_at_once_and_gives_the_native_up_only_after_the_indexer_accepted() {
    let mut rig = taken_in([1]);
    rig.now = 5_000;
    assert!(rig.released(1, [10, 11]).contains(&Beat(10)));
    assert_eq!(rig.held(), [1], "make");
    assert_eq!(rig.accepted(10), [GaveUp(1)], "before break");
    assert_eq!(rig.held(), [10]);
}

#[test]
fn a_release_without_offers_begins_a_round_at_once() {
    let mut rig = taken_in([1]);
    rig.now = 5_000;
    assert_eq!(rig.released(1, []), [Asked(1, Want::Lease)]);
    assert_eq!(rig.answer(1, &offering([10])), [Beat(10)]);
    assert_eq!(rig.accepted(10), [GaveUp(1)]);
}

#[test]
fn a_release_in_answer_to_a_beat_does_the_same() {
    let mut rig = taken_in([1]);
    let out = rig.run(28_500);
    assert!(matches!(out.as_slice(), [(_, Beat(1))]), "{out:?}");
    let did = rig.ack(1, &Ack::released(LEASE, &offers([10])));
    assert!(did.contains(&Beat(10)), "{did:?}");
}

#[test]
fn a_release_is_news_only_once() {
    let mut rig = taken_in([1]);
    rig.now = 5_000;
    assert_eq!(rig.released(1, []), [Asked(1, Want::Lease)]);
    rig.answer(1, &offering([]));
    assert_eq!(rig.released(1, []), []);
}

#[test]
fn whoever_ignores_the_push_moves_at_the_next_connect_to_natives() {
    let mut rig = taken_in([1]);
    let out = rig.run_held(66_000);
    let [(when, Asked(1, Want::Lease))] = out.as_slice() else {
        panic!("{out:?}");
    };
    assert!((60_000..=66_000).contains(when));
    assert_eq!(rig.answer(1, &offering([10, 11])).len(), 2);
    let did = rig.accepted(10);
    assert_eq!(did, [GaveUp(1)]);
}

#[test]
fn a_released_node_whose_offer_fails_says_so_and_is_taken_in_again_by_the_same_native() {
    let mut rig = taken_in([1]);
    rig.now = 5_000;
    let did = rig.released(1, [10]);
    assert!(did.contains(&Beat(10)), "{did:?}");
    rig.answer(1, &offering([10]));
    assert_eq!(rig.closed(10), [Asked(1, Want::OffersFailed)]);
    assert_eq!(rig.answer(1, &taking_in([10])), [Beat(1)]);
    rig.accepted(1);
    let lease = rig.node.leases.find(&peer(1)).unwrap();
    assert!(!lease.is_released());
    assert_eq!(lease.expiry(at(5_000)), Some(at(95_000)));
}

#[test]
fn a_ticket_is_used_at_once_even_if_a_beat_is_in_flight() {
    let mut rig = taken_in([1]);
    rig.run(21_000);
    assert_eq!(rig.released(1, []), [Asked(1, Want::Lease)]);
    let out = rig.run(28_999);
    assert!(matches!(out.as_slice(), [(_, Beat(1))]), "{out:?}");
    assert_eq!(rig.answer(1, &taking_in([])), [], "one beat is in flight");
    assert_eq!(rig.ack(1, &Ack::released(LEASE, &[])), [Beat(1)]);
}

#[test]
fn a_released_node_may_be_taken_in_by_another_native_and_then_leaves_the_first() {
    let mut rig = taken_in([1, 2]);
    rig.now = 5_000;
    rig.released(1, []);
    assert_eq!(rig.answer(1, &offering([])), [Asked(2, Want::Lease)]);
    assert_eq!(rig.answer(2, &taking_in([])), [Beat(2)]);
    assert_eq!(rig.held(), [1]);
    assert_eq!(rig.accepted(2), [GaveUp(1)]);
    assert_eq!(rig.held(), [2]);
}

#[test]
fn servers_that_send_away_what_they_took_in_do_not_fill_the_leases() {
    let mut rig = Rig::new(2, [1]);
    rig.drain();
    rig.answer(1, &offering(10..26));
    for _ in 0..12 {
        let opening = rig.node.leases.iter().find(|lease| lease.is_attempt());
        let Some(server) = opening.map(|lease| lease.server().as_bytes()[0]) else {
            rig.run(rig.now + 500);
            continue;
        };
        rig.accepted(server);
        rig.released(server, []);
        let released = rig.node.leases.iter().filter(|lease| lease.is_released());
        assert!(released.count() <= 2);
    }
}

#[test]
fn questions_do_not_starve_the_tries_where_the_native_releases_over_and_over() {
    let lease = Duration::from_secs(3);
    let mut node = Node::new();
    let config = NodeConfig {
        terms: Terms {
            lease,
            beat_interval: lease / 3,
        },
        connect_interval: Duration::from_secs(1),
        min_indexers: 2,
    };
    node.start(at(0), peer(OWN), 1, config);
    node.learn_native(at(0), peer(1), addrs(1));
    let answer = |takes_in| Answer {
        takes_in,
        ..offering([10])
    };
    let (mut now, mut next_release, mut tried) = (0, 330, Vec::new());
    while now < 16_000 {
        while let Some(action) = node.poll(at(now), 0) {
            match action {
                Action::Ask {
                    ask: Ask::Offers(want),
                    ..
                } => {
                    let answer = answer(want == Want::OffersFailed);
                    node.answered(at(now), &peer(1), answer.as_answer());
                }
                // The indexer is away for a moment.
                Action::Beat { server, .. } if server == peer(10) && now < 100 => {
                    node.lease_closed(at(now), &server);
                }
                Action::Beat { server, .. } => {
                    if server == peer(10) {
                        tried.push(now);
                    }
                    node.acked(at(now), &server, &Ack::accepted(lease));
                }
                _ => {}
            }
        }
        now = node.timeout().as_millis();
        if now >= next_release {
            now = next_release;
            next_release += 330;
            let answer = answer(false);
            let away = Ack::released(lease, &answer.offers);
            node.notified(at(now), &peer(1), &away);
        }
    }
    let first = tried.first().copied().unwrap_or(u64::MAX);
    assert!((10_000..=11_000).contains(&first), "{first}");
}

#[test]
fn a_lease_with_an_indexer_that_released_it_is_not_given_up_for_that_of_a_native() {
    let mut rig = holding(1, [10]);
    rig.now = 5_000;
    assert!(rig.released(10, [11]).contains(&Beat(11)));
    let did = rig.closed(11);
    assert!(!did.contains(&GaveUp(10)), "{did:?}");
    rig.answer(1, &taking_in([]));
    let did = rig.accepted(1);
    assert!(!did.contains(&GaveUp(10)), "{did:?}");
    assert_eq!(rig.held(), [1, 10]);
    // It is renewed there, or another indexer comes: now one of them is enough.
    let mut renewed = rig;
    renewed.node.leases.hurry(at(renewed.now), &peer(10));
    assert_eq!(renewed.drain(), [Beat(10)]);
    assert_eq!(renewed.accepted(10), [GaveUp(1)]);
    assert_eq!(renewed.held(), [10]);
}
