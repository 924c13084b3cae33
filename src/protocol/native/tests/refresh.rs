//! Indexers are found again in the DHT.

use super::*;

fn searches(out: &[(u64, Action)]) -> Vec<(u64, PeerId)> {
    let search = |(at, action): &(u64, Action)| match action {
        Action::Search { peer, .. } => Some((*at, *peer)),
        _ => None,
    };
    out.iter().filter_map(search).collect()
}

fn ended(n: u8) -> Action {
    let query = Query::Machine(peer(n));
    Action::EndSearch { query }
}

#[test]
fn from_hearsay_to_an_offer() {
    let mut rig = Rig::new();
    rig.learn_native(9);
    rig.drain();
    rig.beat_with(Role::Native, 9, 9, LEASE, None, None, &[peer(1)]);
    assert_eq!(rig.view().known, [peer(1)]);
    assert!(searches(&rig.run(19_999)).is_empty());
    assert_eq!(searches(&rig.run(20_000)), [(20_000, peer(1))]);

    rig.native
        .search_value(at(20_000), 20_000, &peer(1), &record(1, 15_000));
    rig.native
        .search_value(at(20_000), 20_000, &peer(1), &record(1, 10_000));
    assert!(
        rig.view().live.is_empty(),
        "stored when the search has ended"
    );
    rig.native.search_ended(at(20_000), 20_000, &peer(1));
    assert_eq!(rig.drain(), [Action::Refreshed { peer: peer(1) }]);
    assert_eq!(rig.view().live, [(peer(1), Source::Dht)]);

    assert_eq!(rig.ask(100, Want::Lease), None, "probed first");
    rig.drain();
    rig.native.probed(at(20_000), &peer(1), Verdict::Reachable);
    let actions = rig.drain();
    let [Action::Answer { .. }] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    let offer = rig.native.answer_offers().first().unwrap();
    assert_eq!((offer.peer, &offer.addrs), (peer(1), &addrs(1)));
    assert_eq!(offer.ttl, Duration::from_secs(265), "the best record's end");
    rig.now = 285_000;
    assert_eq!(rig.view().live.len(), 1);
    rig.now = 285_001;
    assert!(
        rig.view().live.is_empty(),
        "it leaves when its record has run out"
    );
}

#[test]
fn a_search_is_ended_after_five_seconds_with_what_it_found_by_then() {
    let mut rig = Rig::new();
    rig.native.remember(at(0), &peer(1));
    rig.run(24_500);
    rig.native
        .search_value(at(24_500), 24_500, &peer(1), &record(1, 15_000));
    assert_eq!(rig.run(24_999), []);
    assert!(rig.view().live.is_empty());
    let out = rig.run(25_000);
    assert_eq!(
        out,
        [
            (25_000, ended(1)),
            (25_000, Action::Refreshed { peer: peer(1) })
        ]
    );
    rig.native
        .search_value(at(25_000), 25_000, &peer(1), &record(1, 24_000));
    rig.native.search_ended(at(25_000), 25_000, &peer(1));
    assert_eq!(rig.drain(), [], "no search takes what comes later");
}

#[test]
fn with_nothing_valid_nothing_is_stored_and_nothing_logged() {
    let mut rig = Rig::new();
    rig.native.remember(at(0), &peer(1));
    rig.run(20_000);
    let mut expired = record(1, 1);
    expired.ttl = Duration::from_millis(19_998);
    rig.native
        .search_value(at(20_000), 20_000, &peer(1), &expired);
    rig.native.search_ended(at(20_000), 20_000, &peer(1));
    assert_eq!(rig.drain(), []);
    assert!(rig.view().live.is_empty());
}

#[test]
fn a_fresh_entry_is_not_searched_for_and_one_that_would_not_outlive_the_next_run_is() {
    // After the run at 20 s, the next one comes within 33 s.
    for (lease, searched) in [(53_000, 0), (52_999, 1)] {
        let mut rig = Rig::new();
        let lease = Duration::from_millis(lease);
        rig.beat_with(Role::Indexer, 1, 1, lease, Some(&record(1, 1)), None, &[]);
        assert_eq!(searches(&rig.run(20_000)).len(), searched, "{lease:?}");
    }
}

#[test]
fn at_most_four_searches_of_ids_without_an_entry_run_at_once_and_the_others_follow() {
    let mut rig = Rig::new();
    for n in 1..=7 {
        rig.native.remember(at(0), &peer(n));
    }
    let first = searches(&rig.run(20_000));
    assert_eq!(first.len(), 4);
    rig.native.search_ended(at(20_000), 20_000, &first[0].1);
    assert_eq!(searches(&rig.run(24_999)).len(), 1);
    assert_eq!(
        searches(&rig.run(25_000)).len(),
        2,
        "when the time of the first is over"
    );
}

#[test]
fn a_collected_indexer_is_refreshed_from_the_dht_and_then_runs_out() {
    let mut rig = Rig::new();
    rig.indexer(1);
    let out = rig.run(90_000);
    let (when, _) = *searches(&out).first().unwrap();
    assert!(
        when > 90_000 - 33_000,
        "only when its entry would not last: {when}"
    );
    assert!(rig.view().records.is_empty(), "collected at two thirds");
    rig.run(90_001);
    assert!(rig.view().live.is_empty(), "no peer answered that search");
    let mut found = false;
    while !found {
        let until = rig.native.timeout().as_millis();
        let out = rig.run(until);
        found = !searches(&out).is_empty();
    }
    let now = rig.now;
    rig.native
        .search_value(at(now), now, &peer(1), &record(1, 1));
    rig.native.search_ended(at(now), now, &peer(1));
    rig.drain();
    assert_eq!(rig.view().live, [(peer(1), Source::Dht)]);
    rig.now = 270_001;
    assert_eq!(rig.view().live.len(), 1);
    rig.now = 270_002;
    assert!(rig.view().live.is_empty());
}
