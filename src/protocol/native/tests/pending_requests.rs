//! Nodes ask for indexers and are taken in.

use super::*;

fn offered(offers: &[Offer]) -> Vec<PeerId> {
    offers.iter().map(|offer| offer.peer).collect()
}

fn probes(actions: &[Action]) -> Vec<PeerId> {
    let probed = |action: &Action| match action {
        Action::Probe { peer, .. } => Some(*peer),
        _ => None,
    };
    actions.iter().filter_map(probed).collect()
}

/// A rig with `count` indexers that have been silent for 11 s, so no verdict about them counts any
/// more.
fn with_silent_indexers(count: u8) -> Rig {
    let mut rig = Rig::new();
    (1..=count).for_each(|n| rig.indexer(n));
    rig.run(11_000);
    rig
}

#[test]
fn a_node_is_taken_in_by_its_first_beat_and_not_by_its_request() {
    let mut rig = Rig::new();
    let answer = rig.ask(100, Want::Lease).unwrap();
    assert!(answer.takes_in && answer.offers.is_empty());
    assert!(rig.view().responsible.is_empty());
    assert_eq!(rig.node(100), Ack::accepted(LEASE));
    assert_eq!(rig.view().responsible, [peer(100)]);
    assert_eq!(rig.view().expiry(100), Some(at(90_000)));
}

#[test]
fn who_only_asks_is_neither_taken_in_nor_has_anybody_probed() {
    let mut rig = with_silent_indexers(1);
    let answer = rig.ask(100, Want::Nothing).unwrap();
    assert_eq!(offered(answer.offers), [peer(1)]);
    assert!(!answer.takes_in);
    assert!(probes(&rig.drain()).is_empty());
}

#[test]
fn for_a_second_after_a_node_asked_indexers_that_were_silent_are_pinged_four_at_a_time() {
    for (later, at_once, all) in [(1_000, 4, 20), (1_001, 0, 0)] {
        let mut rig = with_silent_indexers(20);
        (21..=28).for_each(|n| rig.indexer(n));
        let answer = rig
            .ask(100, Want::Lease)
            .expect("enough are known to be reachable");
        assert_eq!(offered(answer.offers).len(), 8);
        rig.now += later;
        let mut pinged = probes(&rig.drain());
        assert_eq!(
            pinged.len(),
            at_once,
            "half of the pings are for what is asked"
        );
        let mut count = 0;
        while let Some(peer) = pinged.pop() {
            count += 1;
            rig.native.probed(at(rig.now), &peer, Verdict::Reachable);
            pinged.extend(probes(&rig.drain()));
        }
        assert_eq!(count, all);
        let answer = rig.ask(101, Want::Lease).expect("the same");
        assert_eq!(offered(answer.offers).len(), (8 + all).min(MAX_LIST));
    }
}

#[test]
fn past_the_capacity_a_node_is_answered_full_with_a_reason() {
    let mut rig = Rig::new();
    for n in 100..103 {
        assert_eq!(rig.node(n).code, AckCode::Accepted);
    }
    assert!(!rig.ask(103, Want::Lease).unwrap().takes_in);
    let ack = rig.node(103);
    assert_eq!(ack.code, AckCode::Full);
    assert!(ack.reason.contains("try another native"));
    assert_eq!(rig.view().refused("responsible_peers"), 2);
    assert_eq!(
        rig.node(102).code,
        AckCode::Accepted,
        "it is in and stays in"
    );
    rig.give_up(Role::Node, 100, 100);
    assert_eq!(rig.node(103).code, AckCode::Accepted, "a place is free");
}

#[test]
fn a_reachable_indexer_is_offered_instead() {
    let mut rig = Rig::new();
    rig.indexer(1);
    let answer = rig.ask(100, Want::Lease).unwrap();
    assert_eq!((offered(answer.offers).len(), answer.takes_in), (1, false));
    let ack = rig.node(100);
    assert_eq!((ack.code, ack.lease), (AckCode::Released, Duration::ZERO));
    assert_eq!(ack.offers.len(), 1);
    assert!(rig.view().responsible.is_empty() && rig.view().expiry(100).is_none());
}

#[test]
fn a_node_that_was_told_so_is_taken_in_for_ten_seconds_whoever_comes_meanwhile() {
    for (now, code) in [
        (9_999, AckCode::Accepted),
        (10_000, AckCode::Accepted),
        (10_001, AckCode::Released),
    ] {
        let mut rig = Rig::new();
        assert!(rig.ask(100, Want::Lease).unwrap().takes_in);
        rig.now = now;
        rig.indexer(1);
        assert_eq!(rig.node(100).code, code, "at {now}");
    }
}

#[test]
fn an_answer_waits_for_the_last_verdict_and_offers_the_living() {
    let mut rig = with_silent_indexers(3);
    assert_eq!(rig.ask(100, Want::Lease), None);
    assert_eq!(probes(&rig.drain()).len(), 3);
    rig.now += 50;
    rig.native.probed(at(rig.now), &peer(1), Verdict::Reachable);
    rig.native.probed(at(rig.now), &peer(2), Verdict::Silent);
    assert_eq!(rig.drain(), []);
    rig.native.probed(at(rig.now), &peer(3), Verdict::Reachable);
    let actions = rig.drain();
    let [Action::Answer { request, takes_in }] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    let mut offers = offered(rig.native.answer_offers());
    offers.sort();
    assert_eq!((*request, *takes_in), (RequestId(100), false));
    assert_eq!(offers, [peer(1), peer(3)]);
}

#[test]
fn an_answer_comes_after_two_seconds_at_the_latest_and_an_overdue_probe_counts_as_dead() {
    let mut rig = with_silent_indexers(1);
    assert_eq!(rig.ask(100, Want::Lease), None);
    rig.drain();
    assert_eq!(rig.run(12_999), []);
    let out = rig.run(13_000);
    let (request, takes_in) = (RequestId(100), true);
    assert_eq!(out, [(13_000, Action::Answer { request, takes_in })]);
    assert_eq!(rig.native.answer_offers(), []);
    rig.native.probed(at(13_000), &peer(1), Verdict::Reachable);
    assert!(
        rig.ask(101, Want::Lease).unwrap().takes_in,
        "a pong after its time is none"
    );
}

#[test]
fn a_verdict_that_was_good_when_the_node_asked_is_good_for_its_answer() {
    let mut rig = with_silent_indexers(1);
    rig.indexer(2);
    rig.now += 10_000;
    assert_eq!(rig.ask(100, Want::Lease), None);
    assert_eq!(probes(&rig.drain()), [peer(1)]);
    rig.now += 1;
    rig.native.probed(at(rig.now), &peer(1), Verdict::Silent);
    let (request, takes_in) = (RequestId(100), false);
    let answer = Action::Answer { request, takes_in };
    assert!(rig.drain().contains(&answer));
    assert_eq!(offered(rig.native.answer_offers()), [peer(2)]);
}

#[test]
fn at_most_eight_candidates_are_probed_for_one_answer() {
    let mut rig = with_silent_indexers(12);
    assert_eq!(rig.ask(100, Want::Lease), None);
    let probed = probes(&rig.drain());
    assert_eq!(probed.len(), 8);
    for peer in &probed {
        rig.native.probed(at(rig.now), peer, Verdict::Silent);
    }
    let actions = rig.drain();
    assert!(
        matches!(actions.as_slice(), [Action::Answer { takes_in: true, .. }]),
        "{actions:?}"
    );
}

#[test]
fn a_verdict_counts_for_ten_seconds_and_saves_the_probe() {
    for (now, answered) in [(9_999, true), (10_000, true), (10_001, false)] {
        let mut rig = Rig::new();
        rig.indexer(1);
        rig.now = now;
        assert_eq!(rig.ask(100, Want::Lease).is_some(), answered, "at {now}");
    }
}

#[test]
fn an_indexer_whose_stream_ended_is_probed_before_it_is_offered() {
    let mut rig = Rig::new();
    rig.indexer(1);
    rig.native.stream_closed(at(0), &peer(1), StreamId(1));
    assert_eq!(rig.ask(100, Want::Lease), None);
    assert_eq!(probes(&rig.drain()), [peer(1)]);
}

#[test]
fn more_requests_than_may_wait_are_answered_from_what_is_known_and_nobody_is_taken_in() {
    let mut rig = with_silent_indexers(1);
    for n in 0..MAX_PENDING_REQUESTS {
        assert_eq!(rig.ask(100 + (n % 100) as u8, Want::Lease), None);
    }
    assert_eq!(rig.ask(99, Want::Lease), Some(IndexersAnswer::default()));
}

#[test]
fn a_node_whose_offers_failed_is_taken_in_although_we_reach_an_indexer() {
    let mut rig = Rig::new();
    rig.indexer(1);
    let answer = rig.ask(100, Want::OffersFailed).unwrap();
    assert_eq!((offered(answer.offers).len(), answer.takes_in), (1, true));
    assert_eq!(rig.node(100), Ack::accepted(LEASE));
    assert_eq!(rig.view().responsible, [peer(100)]);
}

#[test]
fn an_indexer_without_room_is_not_offered_to_who_wants_a_lease() {
    let mut rig = Rig::new();
    for (n, load) in [(1, (8, 8)), (2, (2, 8)), (3, (1, 8))] {
        let info = record(n, 1);
        rig.beat_with(
            Role::Indexer,
            n,
            u64::from(n),
            LEASE,
            Some(&info),
            Some(load),
            &[],
        );
    }
    let answer = rig.ask(100, Want::Lease).unwrap();
    assert_eq!(
        offered(answer.offers),
        [peer(3), peer(2)],
        "the most free first"
    );
    assert_eq!(rig.ask(100, Want::Nothing).unwrap().offers.len(), 3);
    let few = rig
        .native
        .ask(at(0), &peer(100), RequestId(1), 1, Want::Lease);
    assert_eq!(offered(few.unwrap().offers), [peer(3)]);
}

#[test]
fn a_node_taken_in_can_be_found_as_long_as_its_lease() {
    let mut rig = Rig::new();
    let mut info = record(100, 1);
    info.name = Name::try_from("pump").unwrap();
    rig.beat(Role::Node, 100, 1, Some(&info));
    assert_eq!(rig.native.claimants(at(0), "pump").nodes.len(), 1);
    assert!(rig.native.listed(at(0), &peer(100)).is_some() && rig.native.reserves_slot(&peer(100)));
    rig.give_up(Role::Node, 100, 1);
    assert!(
        rig.native.listed(at(0), &peer(100)).is_none() && !rig.native.reserves_slot(&peer(100))
    );
    assert!(rig.view().responsible.is_empty());
}

/// All pages of at most `most`, one after another.
fn pages(rig: &mut Rig, most: usize) -> Vec<Vec<PeerId>> {
    let (mut pages, mut from) = (Vec::new(), Cursor::Start);
    loop {
        let page = rig.native.page(at(rig.now), Some(&peer(100)), from, most);
        pages.push(page.offers.iter().map(|offer| offer.peer).collect());
        assert!(pages.len() < 100, "it does not come to an end");
        match page.next {
            Some(next) => from = Cursor::After(next),
            None => return pages,
        }
    }
}

#[test]
fn pages_name_every_live_indexer_once_in_the_order_of_ids() {
    for (count, lengths) in [
        (0, [0].as_slice()),
        (15, &[15]),
        (16, &[16]),
        (17, &[16, 1]),
        (32, &[16, 16]),
    ] {
        let mut rig = with_silent_indexers(count);
        let pages = pages(&mut rig, MAX_LIST);
        let of_each: Vec<_> = pages.iter().map(Vec::len).collect();
        assert_eq!(of_each, lengths, "{count} indexers");
        assert_eq!(pages.concat(), (1..=count).map(peer).collect::<Vec<_>>());
    }
}

#[test]
fn a_page_asks_for_no_probe_and_goes_on_after_an_id_that_is_gone() {
    let mut rig = with_silent_indexers(3);
    assert_eq!(pages(&mut rig, 1), [[peer(1)], [peer(2)], [peer(3)]]);
    assert!(probes(&rig.drain()).is_empty());
    rig.give_up(Role::Indexer, 2, 2);
    let page = rig
        .native
        .page(at(rig.now), Some(&peer(100)), Cursor::After(peer(2)), 16);
    assert_eq!((page.offers.len(), page.next), (1, None));
    rig.run(90_001);
    assert_eq!(pages(&mut rig, 16), [[]], "they have run out");
}

#[test]
fn of_those_that_only_ask_without_a_cursor_each_is_told_the_next_indexers() {
    let mut rig = with_silent_indexers(20);
    let first = offered(rig.ask(100, Want::Nothing).unwrap().offers);
    let second = offered(rig.ask(101, Want::Nothing).unwrap().offers);
    assert_eq!(first, (1..=16).map(peer).collect::<Vec<_>>());
    assert_eq!(
        second,
        (17..=20).chain(1..=12).map(peer).collect::<Vec<_>>()
    );
}

#[test]
fn a_page_asked_for_while_the_native_catches_up_names_those_whose_lease_will_be_moved_on() {
    let mut rig = with_silent_indexers(2);
    rig.now = 300_000;
    assert_eq!(pages(&mut rig, 16), [[peer(1), peer(2)]]);
}

#[test]
fn what_is_asked_while_the_native_catches_up_is_answered_when_its_leases_are_moved_on() {
    let mut rig = Rig::new();
    rig.indexer(1);
    rig.drain();
    rig.now = 300_000;
    let gap = rig.native.overslept(at(rig.now));
    assert_eq!(rig.ask(100, Want::Lease), None);
    assert_eq!(rig.ask(101, Want::Nothing), None);
    let ack = rig.node(102);
    assert_eq!(ack.code, AckCode::Full, "nor is a node taken in");
    rig.native.shift(at(rig.now), gap);
    let actions = rig.drain();
    assert_eq!(probes(&actions), [peer(1)]);
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Answer { request, .. }
            if *request == RequestId(101)))
    );
    assert_eq!(offered(rig.native.answer_offers()), [peer(1)]);
    rig.native.probed(at(rig.now), &peer(1), Verdict::Reachable);
    let actions = rig.drain();
    assert!(
        matches!(
            actions.as_slice(),
            [Action::Answer {
                takes_in: false,
                ..
            }]
        ),
        "{actions:?}"
    );
}

#[test]
fn why_a_node_was_taken_in_is_what_decided() {
    let mut rig = Rig::new();
    rig.ask(100, Want::Lease);
    rig.ask(102, Want::OffersFailed);
    let none = Shortage::NoneLive;
    for (n, shortage) in [(100, none), (101, none), (102, Shortage::OffersFailed)] {
        let outcome = rig.beat(Role::Node, n, u64::from(n), None);
        assert_eq!(outcome.ack, Ack::accepted(LEASE));
        let joined = Joined {
            shortage: Some(shortage),
            ..Joined::default()
        };
        assert_eq!(outcome.arrival, Arrival::Joined(joined), "{n}");
    }
}
