//! Lookups of the operator: which servers are asked, in which order, and how answers are merged.

use super::*;

#[test]
fn own_indexers_are_asked_one_after_another_until_one_has_answered() {
    let mut desk = Desk::new(Role::Node).indexer(1).indexer(2).native(NATIVE);
    desk.begin(pump());
    assert_eq!(desk.waiting(), [1]);
    assert_eq!(desk.reach(1), Some(Reach::Network));
    desk.answers(10, 1, &[7]);
    assert_eq!((desk.found(), desk.tally()), (vec![7], (1, 1)));
    assert!(desk.outcome().is_complete);
}

#[test]
fn silent_server_is_waited_for_half_a_second_before_the_next_is_asked() {
    let mut desk = Desk::new(Role::Node).indexer(1).indexer(2).native(NATIVE);
    desk.begin(pump());
    for (asked_at, servers) in [(500, [1, 2].as_slice()), (1_000, &[1, 2, NATIVE])] {
        assert_eq!(desk.lookups.timeout(), Some(at(asked_at)));
        desk.poll(asked_at - 1);
        assert_eq!(desk.waiting(), servers[..servers.len() - 1]);
        desk.poll(asked_at);
        assert_eq!(desk.waiting(), servers);
        let last = servers.last().unwrap();
        assert_eq!(desk.reach(*last), Some(Reach::Network));
    }
}

#[test]
fn failed_own_indexer_is_followed_by_the_next_at_once() {
    let mut desk = Desk::new(Role::Node).indexer(1).indexer(2);
    desk.begin(pump());
    desk.fails(10, 1, false);
    assert_eq!(desk.waiting(), [2]);
    assert_eq!(desk.reach(2), Some(Reach::Network));
}

#[test]
fn answer_that_is_whole_and_empty_is_followed_by_what_all_natives_list() {
    let mut desk = Desk::new(Role::Node).indexer(1).indexer(2);
    desk = desk.native(201).native(202);
    desk.begin(pump());
    desk.answers(10, 1, &[]);
    assert_eq!(desk.waiting(), [201, 202]);
    for native in [201, 202] {
        assert_eq!(desk.reach(native), Some(Reach::Directory));
    }
    desk.answers(20, 201, &[]);
    desk.answers(20, 202, &[7]);
    assert_eq!((desk.found(), desk.tally()), (vec![7], (3, 3)));
}

#[test]
fn answer_that_lacks_something_is_followed_by_a_native_that_also_asks_others() {
    let lacking = Some(Tally {
        asked: 2,
        answered: 1,
    });
    let mut desk = Desk::new(Role::Node).indexer(1).indexer(2);
    desk = desk.native(201).native(202);
    desk.begin(pump());
    desk.answers_with(10, 1, &[info(7, "pump", 1)], false, lacking);
    assert_eq!(desk.waiting(), [201], "the other indexer knows no more");
    assert_eq!(desk.reach(201), Some(Reach::Network));
    desk.answers(20, 201, &[7]);
    assert_eq!(desk.reach(202), Some(Reach::Directory));
    desk.answers(30, 202, &[]);
    assert_eq!((desk.found(), desk.tally()), (vec![7], (3, 3)));
    assert!(!desk.outcome().is_complete);
}

#[test]
fn node_without_an_indexer_asks_one_native_to_ask_others() {
    let mut desk = Desk::new(Role::Node).native(201).native(202);
    desk.begin(pump());
    assert_eq!(desk.waiting(), [201]);
    assert_eq!(desk.reach(201), Some(Reach::Network));
    desk.answers(10, 201, &[7]);
    assert_eq!((desk.found(), desk.tally()), (vec![7], (1, 1)));
}

#[test]
fn indexer_that_grants_no_lease_is_not_an_own_one() {
    let mut desk = Desk::new(Role::Node)
        .native(NATIVE)
        .server(1, Role::Indexer, false);
    desk.begin(pump());
    assert!(!desk.waiting().contains(&1));
}

#[test]
fn indexers_of_a_small_network_are_asked_if_nothing_is_found_otherwise() {
    let ids: Vec<u8> = (1..=16).collect();
    for (next, asks) in [(None, true), (Some(16), false)] {
        let mut desk = Desk::new(Role::Node).native(201).native(202).indexer(1);
        desk.begin(pump());
        for server in [1, 201, 202] {
            desk.answers(10, server, &[]);
        }
        assert_eq!(desk.waiting().len(), 1, "one native is enough");
        let native = desk.waiting()[0];
        desk.lists_indexers(20, native, &ids, next);
        let mut found = Vec::new();
        while let Some(&n) = desk.waiting().first() {
            assert_eq!(desk.reach(n), Some(Reach::Directory));
            found.push(n);
            desk.answers(30, n, if n == 16 { &[7] } else { &[] });
        }
        assert_eq!(found == ids[1..], asks, "1 was asked before: {found:?}");
        assert_eq!(desk.found().is_empty(), !asks);
        assert!(desk.outcome().is_complete);
    }
}

#[test]
fn own_directory_is_part_of_the_answer_and_natives_are_asked_if_nothing_is_in_it() {
    for (listed, asks) in [("pump", false), ("fan", true)] {
        let mut desk = Desk::new(Role::Indexer).native(NATIVE).lists(5, listed);
        desk.begin(pump());
        desk.search_ends(10, 1);
        assert_eq!(desk.reach(NATIVE), asks.then_some(Reach::Directory));
        if !asks {
            assert_eq!(desk.found(), [5]);
            assert_eq!(desk.outcome().records[0].place(), Place::Here);
        }
    }
}

#[test]
fn pages_are_turned_while_ids_grow_and_the_last_has_no_next() {
    let mut desk = Desk::new(Role::Node).native(NATIVE);
    desk.begin(Question::Indexers);
    desk.lists_indexers(10, NATIVE, &[1, 2], Some(2));
    let after = desk.question(NATIVE, true).unwrap();
    assert_eq!(after.0, Ask::Indexers(Cursor::After(peer(2))));
    desk.asked.push((peer(NATIVE), after.0, after.1));
    desk.lists_indexers(20, NATIVE, &[3], None);
    assert_eq!(desk.question(NATIVE, true), None);
    assert_eq!((desk.outcome().indexers.len(), desk.tally()), (3, (1, 1)));
    assert!(desk.outcome().is_complete);
}

#[test]
fn native_that_goes_back_in_its_pages_is_left_and_the_answer_is_incomplete() {
    let mut desk = Desk::new(Role::Node).native(NATIVE);
    desk.begin(Question::Indexers);
    desk.lists_indexers(10, NATIVE, &[1, 2], Some(2));
    desk.lists_indexers(20, NATIVE, &[1], Some(2));
    assert_eq!(desk.outcome().indexers.len(), 2);
    assert!(!desk.outcome().is_complete);
}

#[test]
fn native_asks_its_fellows_and_then_the_few_indexers_that_it_lists() {
    for (live, asks) in [(16, true), (17, false)] {
        let mut desk = Desk::new(Role::Native).native(NATIVE);
        desk.here.live = (1..=live).map(|n| offer(n, 1)).collect();
        desk.begin(pump());
        assert_eq!(desk.waiting(), [NATIVE]);
        desk.answers(10, NATIVE, &[]);
        desk.search_ends(20, 1);
        assert_eq!(desk.waiting().is_empty(), !asks, "{live}");
        while let Some(&n) = desk.waiting().first() {
            assert_eq!(desk.reach(n), Some(Reach::Directory));
            desk.answers(30, n, &[]);
        }
        assert_eq!(desk.tally().0, if asks { 17 } else { 1 });
        assert!(desk.outcome().is_complete);
    }
}

#[test]
fn indexers_of_several_natives_are_listed_once_with_the_longest_time_to_live() {
    let mut desk = Desk::new(Role::Node).native(201).native(202);
    desk.begin(Question::Indexers);
    for (native, ttl) in [(201, 5), (202, 9)] {
        let (_, query) = desk.question(native, true).unwrap();
        let answer = Answer::Indexers {
            offers: &[offer(1, ttl)],
            next: None,
        };
        assert!(desk.lookups.answered(at(10), query, answer));
    }
    desk.poll(10);
    let indexers = desk.outcome().indexers;
    assert_eq!((indexers.len(), indexers[0].ttl.as_millis()), (1, 9));
}

#[test]
fn peer_is_searched_in_the_dht_by_who_takes_part_in_it() {
    for (role, searches) in [(Role::Node, 0), (Role::Indexer, 2), (Role::Native, 2)] {
        let mut desk = Desk::new(role);
        desk.begin(Question::Peer(peer(5)));
        assert_eq!(desk.searches.len(), searches, "{role:?}");
        for (_, query) in desk.searches.clone() {
            desk.finds(10, 1_000, query, &info(5, "pump", query.0));
            assert!(desk.lookups.searched(at(20), query, 1));
        }
        desk.poll(20);
        if searches > 0 {
            assert_eq!(desk.found(), [5]);
            assert_eq!(desk.outcome().records[0].place(), Place::Dht);
        }
    }
}

#[test]
fn copy_from_the_dht_that_has_expired_does_not_count() {
    let mut desk = Desk::new(Role::Native);
    desk.begin(Question::Peer(peer(5)));
    let (_, query) = desk.searches[0];
    let copy = info(5, "pump", 1);
    let expires = copy.expires_at_ms();
    assert!(desk.finds(10, expires + 1, query, &copy));
    for (_, query) in desk.searches.clone() {
        desk.lookups.searched(at(20), query, 1);
    }
    desk.poll(20);
    assert!(desk.found().is_empty());
    desk.searches.clear();
    desk.begin(Question::Peer(peer(5)));
    let (_, query) = desk.searches[0];
    assert!(desk.finds(10, expires, query, &copy));
    for (_, query) in desk.searches.clone() {
        desk.lookups.searched(at(20), query, 1);
    }
    desk.poll(20);
    assert_eq!(desk.found(), [5]);
}

#[test]
fn indexer_that_is_looked_for_is_told_as_natives_list_it_and_asked() {
    let mut desk = Desk::new(Role::Node).native(NATIVE);
    desk.begin(Question::Peer(peer(5)));
    desk.answers(10, NATIVE, &[]);
    desk.lists_indexers(15, NATIVE, &[3, 4], Some(4));
    let (ask, query) = desk.question(NATIVE, true).unwrap();
    let mut before = [5; 32];
    before[31] = 4;
    assert_eq!(
        ask,
        Ask::Indexers(Cursor::After(PeerId::from_bytes(before)))
    );
    desk.asked.push((peer(NATIVE), ask, query));
    desk.lists_indexers(20, NATIVE, &[5, 6], Some(6));
    assert_eq!(desk.waiting(), [5], "this page lists it if any does");
    desk.answers(30, 5, &[]);
    let indexers = desk.outcome().indexers;
    assert_eq!((indexers.len(), indexers[0].peer), (1, peer(5)));
}

#[test]
fn records_that_answer_another_question_are_left_out() {
    let mut desk = Desk::new(Role::Node).indexer(1);
    desk.begin(pump());
    let long = info(8, "pump", 1);
    let (_, query) = desk.question(1, false).unwrap();
    let (fan, pump) = (info(6, "fan", 1), info(7, "pump", 1));
    let records = [
        RecordCopy {
            info: &fan,
            envelope: &[6],
            age: None,
            claimed: None,
        },
        RecordCopy {
            info: &pump,
            envelope: &[7],
            age: None,
            claimed: None,
        },
        RecordCopy {
            info: &long,
            envelope: &[8; MAX_ENVELOPE_LEN + 1],
            age: None,
            claimed: None,
        },
    ];
    let answer = Answer::Records(AnswerRecords {
        records: &records,
        more: false,
        tally: None,
        claimants: None,
    });
    assert!(desk.lookups.answered(at(10), query, answer));
    desk.poll(10);
    assert_eq!(desk.found(), [7]);
    assert_eq!(desk.outcome().records[0].envelope(), [7]);
}

#[test]
fn best_record_of_a_peer_wins_whoever_has_it_and_equal_ones_are_one() {
    let mut desk = Desk::new(Role::Native).native(1).native(2);
    desk.begin(pump());
    desk.search_ends(10, 1);
    desk.answers_with(
        10,
        1,
        &[info(7, "pump", 5), info(8, "pump", 1)],
        false,
        None,
    );
    desk.answers_with(
        10,
        2,
        &[info(7, "pump", 6), info(8, "pump", 1)],
        false,
        None,
    );
    let records: Vec<_> = desk
        .outcome()
        .records
        .iter()
        .map(|record| (record.peer().as_bytes()[0], record.envelope()[0]))
        .collect();
    assert_eq!(records, [(7, 2), (8, 1)], "(record, the server it is from)");
}
