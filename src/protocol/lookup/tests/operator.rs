//! Lookups of the operator: which servers are asked, in which order, and how answers are merged.

use super::*;

#[test]
fn own_indexers_are_asked_one_after_another_until_one_has_answered() {
    let mut desk = Desk::new(Role::Node).indexer(1).indexer(2).indexer(3);
    desk.begin(pump());
    assert_eq!(desk.waiting(), [1]);
    assert_eq!(desk.reach(1), Some(Reach::Network));
    desk.answers(10, 1, &[]);
    assert_eq!(desk.waiting(), [2, 3]);
    assert_eq!(
        [desk.reach(2), desk.reach(3)],
        [Some(Reach::Directory); 2],
        "their own directories are all that is missing"
    );
}

#[test]
fn silent_own_indexer_is_waited_for_a_second_before_the_next_is_asked() {
    let mut desk = Desk::new(Role::Node).indexer(1).indexer(2);
    desk.begin(pump());
    assert_eq!(desk.lookups.timeout(), Some(at(1_000)));
    desk.poll(999);
    assert_eq!(desk.waiting(), [1]);
    desk.poll(1_000);
    assert_eq!(desk.waiting(), [1, 2]);
    assert_eq!(desk.reach(2), Some(Reach::Network));
    assert_eq!(desk.lookups.timeout(), Some(at(5_000)));
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
fn indexer_that_grants_no_lease_is_not_an_own_one() {
    let mut desk = Desk::new(Role::Node)
        .native(NATIVE)
        .server(1, Role::Indexer, false);
    desk.begin(pump());
    assert!(!desk.waiting().contains(&1));
}

#[test]
fn natives_are_asked_for_the_name_and_for_indexers_which_are_asked_for_what_they_list() {
    let mut desk = Desk::new(Role::Node).native(NATIVE).indexer(1);
    desk.begin(pump());
    assert_eq!(desk.reach(NATIVE), Some(Reach::Network));
    desk.lists_indexers(10, NATIVE, &[1, 2, 3], None);
    assert_eq!(desk.waiting(), [1, NATIVE, 2, 3], "1 was asked before");
    assert_eq!(desk.reach(2), Some(Reach::Directory));
    desk.answers(20, NATIVE, &[7]);
    desk.answers(20, 1, &[]);
    desk.answers(20, 2, &[8]);
    desk.answers(20, 3, &[7, 8]);
    assert_eq!(desk.found(), [8, 7], "every claimant, once");
    assert_eq!(desk.tally(), (4, 4));
    assert!(desk.outcome().is_complete);
}

#[test]
fn own_directory_is_part_of_the_answer() {
    let mut desk = Desk::new(Role::Indexer)
        .native(NATIVE)
        .lists(5, "pump")
        .lists(6, "fan");
    desk.begin(pump());
    desk.lists_indexers(10, NATIVE, &[], None);
    desk.answers(10, NATIVE, &[]);
    assert_eq!(desk.found(), [5]);
    assert_eq!(desk.outcome().records[0].place(), Place::Here);
}

#[test]
fn pages_are_turned_while_ids_grow_and_the_last_has_no_next() {
    let mut desk = Desk::new(Role::Node).native(NATIVE);
    desk.begin(pump());
    desk.lists_indexers(10, NATIVE, &[1, 2], Some(2));
    let after = desk.question(NATIVE, true).unwrap();
    assert_eq!(after.0, Ask::Indexers(Cursor::After(peer(2))));
    desk.asked.push((peer(NATIVE), after.0, after.1));
    desk.lists_indexers(20, NATIVE, &[3], None);
    assert_eq!(desk.question(NATIVE, true), None);
    for n in [NATIVE, 1, 2, 3] {
        desk.answers(30, n, &[]);
    }
    assert_eq!(desk.tally(), (4, 4));
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
fn native_answers_from_its_own_pages_and_asks_fellows_and_indexers_for_what_they_list() {
    let mut desk = Desk::new(Role::Native).native(NATIVE).lists(9, "pump");
    desk.here.live = (1..=20).map(|n| offer(n, 1)).collect();
    desk.begin(pump());
    assert_eq!(desk.waiting().len(), MAX_OPEN);
    for n in std::iter::once(NATIVE).chain(1..=20) {
        assert_eq!(desk.reach(n), Some(Reach::Directory), "{n}");
        desk.answers(10, n, &[]);
    }
    assert_eq!(desk.found(), [9]);
    assert_eq!(desk.tally(), (21, 21));
    assert!(desk.outcome().is_complete);
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
            assert!(desk.lookups.searched(at(20), query));
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
        desk.lookups.searched(at(20), query);
    }
    desk.poll(20);
    assert!(desk.found().is_empty());
    desk.searches.clear();
    desk.begin(Question::Peer(peer(5)));
    let (_, query) = desk.searches[0];
    assert!(desk.finds(10, expires, query, &copy));
    for (_, query) in desk.searches.clone() {
        desk.lookups.searched(at(20), query);
    }
    desk.poll(20);
    assert_eq!(desk.found(), [5]);
}

#[test]
fn indexer_that_is_looked_for_is_told_as_natives_list_it_and_asked() {
    let mut desk = Desk::new(Role::Node).native(NATIVE);
    desk.begin(Question::Peer(peer(5)));
    desk.lists_indexers(10, NATIVE, &[4, 5], None);
    for n in [NATIVE, 4, 5] {
        desk.answers(20, n, &[]);
    }
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
        },
        RecordCopy {
            info: &pump,
            envelope: &[7],
        },
        RecordCopy {
            info: &long,
            envelope: &[8; MAX_ENVELOPE_LEN + 1],
        },
    ];
    let answer = Answer::Records {
        records: &records,
        more: false,
        tally: None,
    };
    assert!(desk.lookups.answered(at(10), query, answer));
    desk.poll(10);
    assert_eq!(desk.found(), [7]);
    assert_eq!(desk.outcome().records[0].envelope(), [7]);
}

#[test]
fn best_record_of_a_peer_wins_whoever_has_it_and_equal_ones_are_one() {
    let mut desk = Desk::new(Role::Node).indexer(1).indexer(2);
    desk.begin(pump());
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
