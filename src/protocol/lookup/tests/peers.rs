//! Lookups of other peers: a request travels one hop.

use super::*;
use crate::protocol::codec::directory::Response;

fn by_id() -> Question {
    Question::Peer(peer(5))
}

#[test]
fn question_for_the_own_directory_asks_no_other() {
    for role in [Role::Indexer, Role::Native] {
        for question in [pump(), by_id()] {
            let mut desk = Desk::new(role).native(NATIVE);
            assert_eq!(desk.begin_for_peer(question, Reach::Directory), Begun::Here);
            assert!(desk.asked.is_empty() && desk.searches.is_empty());
        }
    }
}

#[test]
fn name_is_answered_by_the_providers_that_the_dht_names_and_by_the_fellows_of_a_native() {
    for (role, asks) in [(Role::Indexer, false), (Role::Native, true)] {
        let mut desk = Desk::new(role).native(NATIVE).lists(7, "pump");
        let begun = desk.begin_for_peer(pump(), Reach::Network);
        assert!(matches!(begun, Begun::Lookup(_)));
        assert_eq!(desk.wanted[0].0, Key::Name(name("pump")));
        assert_eq!(desk.reach(NATIVE), asks.then_some(Reach::Directory));
        desk.names(10, &[1], Coverage::Complete);
        assert_eq!(desk.reach(1), Some(Reach::Directory));
        if asks {
            desk.answers(20, NATIVE, &[]);
        }
        desk.answers(20, 1, &[8]);
        desk.search_ends(30, 1);
        assert_eq!(desk.found().len(), 2);
        assert_eq!(desk.tally().0, if asks { 2 } else { 1 });
        assert!(desk.outcome().is_complete);
    }
}

#[test]
fn indexer_that_reaches_nobody_in_the_dht_asks_its_natives_and_says_that_it_is_incomplete() {
    for reached in [0, 1] {
        let mut desk = Desk::new(Role::Indexer).native(NATIVE);
        desk.begin_for_peer(pump(), Reach::Network);
        desk.search_ends(10, reached);
        assert_eq!(
            desk.reach(NATIVE),
            (reached == 0).then_some(Reach::Directory)
        );
        if reached == 0 {
            desk.answers(20, NATIVE, &[7]);
            assert_eq!(desk.found(), [7]);
        }
        assert_eq!(desk.outcome().is_complete, reached > 0);
        assert_eq!(is_said_to_be_complete(&desk), reached > 0);
    }
}

#[test]
fn holder_that_denies_is_left_out_and_has_answered() {
    let mut desk = Desk::new(Role::Indexer);
    desk.begin_for_peer(pump(), Reach::Network);
    desk.names(10, &[1, 2], Coverage::Complete);
    desk.answers(20, 1, &[]);
    desk.answers(20, 2, &[7]);
    desk.search_ends(30, 1);
    assert_eq!((desk.found(), desk.tally()), (vec![7], (2, 2)));
    assert!(desk.outcome().is_complete);
}

#[test]
fn search_is_ended_when_three_servers_have_named_providers_and_no_new_one() {
    let mut desk = Desk::new(Role::Indexer);
    desk.begin_for_peer(pump(), Reach::Network);
    let query = desk.wanted[0].1;
    for named in [&[1][..], &[], &[1], &[2], &[1, 2]] {
        desk.names(10, named, Coverage::Complete);
        assert!(desk.ended.is_empty(), "{named:?}");
    }
    desk.names(20, &[2, 1], Coverage::Complete);
    assert_eq!(desk.ended, [query]);
    desk.answers(30, 1, &[7]);
    desk.answers(30, 2, &[7]);
    assert!(desk.outcome().is_complete);
}

#[test]
fn search_for_providers_is_ended_after_1500_ms_and_after_750_if_something_is_found() {
    for (listed, limit) in [("fan", 1_500), ("pump", 750)] {
        let mut desk = Desk::new(Role::Indexer).lists(5, listed);
        desk.begin_for_peer(pump(), Reach::Network);
        assert_eq!(desk.lookups.timeout(), Some(at(limit)));
        desk.poll(limit - 1);
        assert!(desk.ended.is_empty());
        desk.poll(limit);
        assert_eq!(desk.ended.len(), 1);
        assert!(!desk.outcome().is_complete);
    }
}

#[test]
fn sixteen_holders_are_asked_and_what_others_may_have_makes_the_answer_incomplete() {
    let ids: Vec<u8> = (1..=17).collect();
    for (named, complete) in [(16, true), (17, false)] {
        let mut desk = Desk::new(Role::Indexer);
        desk.begin_for_peer(pump(), Reach::Network);
        desk.names(10, &ids[..named], Coverage::Complete);
        while let Some(&n) = desk.waiting().first() {
            desk.answers(20, n, &[7]);
        }
        desk.search_ends(30, 1);
        assert_eq!(desk.tally(), (16, 16));
        assert_eq!(desk.outcome().is_complete, complete, "{named}");
        assert_eq!(is_said_to_be_complete(&desk), complete);
    }
}

/// An answer names eight, and others when it is asked for again; but another lookup may have been
/// given those in between.
#[test]
fn search_is_repeated_if_a_server_may_know_of_more_until_the_last_one_names_no_new_provider() {
    let ids: Vec<u8> = (1..=17).collect();
    let (some, first, second) = (&ids[..7], &ids[..8], &ids[8..16]);
    for (rounds, holders, complete) in [
        (&[some][..], 7, true),
        (&[first, first, first], 8, true),
        (&[first, second, first], 16, true),
        (&[first, first, second], 16, false),
        (&[first, second, &ids[9..]], 16, false),
    ] {
        let mut desk = Desk::new(Role::Indexer);
        desk.begin_for_peer(pump(), Reach::Network);
        let mut searches = 0;
        while !desk.wanted.is_empty() {
            let named = rounds[searches];
            searches += 1;
            let coverage = match named.len() < MAX_NAMED {
                true => Coverage::Complete,
                false => Coverage::Partial,
            };
            desk.names(10, named, coverage);
            desk.search_ends(10, 4);
            while let Some(&n) = desk.waiting().first() {
                desk.answers(20, n, &[7]);
            }
        }
        assert_eq!((searches, desk.tally().0), (rounds.len(), holders));
        assert_eq!(desk.outcome().is_complete, complete, "{rounds:?}");
        assert_eq!(is_said_to_be_complete(&desk), complete);
    }
}

#[test]
fn search_that_is_ended_because_of_its_time_is_not_repeated() {
    let mut desk = Desk::new(Role::Indexer);
    desk.begin_for_peer(pump(), Reach::Network);
    let ids: Vec<u8> = (1..=8).collect();
    for _ in 0..ENOUGH {
        desk.names(10, &ids, Coverage::Partial);
    }
    assert_eq!((desk.ended.len(), desk.wanted.len()), (1, 1), "the second");
    desk.names(20, &ids, Coverage::Partial);
    while let Some(&n) = desk.waiting().first() {
        desk.answers(20, n, &[7]);
    }
    desk.poll(760);
    assert_eq!((desk.ended.len(), desk.wanted.len()), (2, 0));
    assert!(!desk.outcome().is_complete);
}

#[test]
fn silent_holder_gives_its_turn_away_and_is_not_waited_for_if_something_is_found() {
    for found in [&[7][..], &[]] {
        let mut desk = Desk::new(Role::Indexer);
        desk.begin_for_peer(pump(), Reach::Network);
        desk.names(10, &[1, 2, 3, 4, 5, 6, 7, 8, 9], Coverage::Complete);
        desk.search_ends(10, 1);
        desk.poll(759);
        assert_eq!(desk.waiting().len(), MAX_OPEN);
        desk.poll(760);
        assert_eq!(desk.waiting().len(), MAX_OPEN + 1);
        desk.answers(760, 9, found);
        if found.is_empty() {
            assert_eq!(desk.done, None);
            desk.poll(2_999);
            assert_eq!(desk.done, None);
            desk.poll(3_000);
        }
        assert_eq!(desk.silent(), [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}

#[test]
fn peer_that_is_listed_here_is_the_answer_and_another_is_searched_in_the_dht() {
    let mut desk = Desk::new(Role::Indexer).lists(5, "pump");
    assert_eq!(desk.begin_for_peer(by_id(), Reach::Network), Begun::Here);

    let mut desk = Desk::new(Role::Indexer);
    desk.begin_for_peer(by_id(), Reach::Network);
    let [(Role::Node, query)] = desk.searches[..] else {
        panic!("only node records are told to peers: {:?}", desk.searches);
    };
    assert!(desk.finds(10, 1_000, query, &info(5, "pump", 1)));
    assert!(desk.lookups.searched(at(10), query, 1));
    desk.poll(10);
    assert_eq!(desk.found(), [5]);
}

#[test]
fn peer_whose_stream_to_here_has_ended_is_looked_for_elsewhere_too_and_the_newest_record_counts() {
    for (sequence, is_newer) in [(0, false), (2, true)] {
        let mut desk = Desk::new(Role::Native).native(NATIVE).lists(5, "pump");
        desk.here.leases.disconnected(&peer(5), StreamId(5));
        let begun = desk.begin_for_peer(by_id(), Reach::Network);
        assert!(matches!(begun, Begun::Lookup(_)));
        assert_eq!(desk.reach(NATIVE), Some(Reach::Directory));
        let query = desk.searches[0].1;
        desk.answers_with(10, NATIVE, &[info(5, "pump", sequence)], false, None);
        assert!(desk.lookups.searched(at(10), query, 1));
        desk.poll(10);
        let [found] = desk.outcome().records else {
            panic!("one record of the peer");
        };
        assert_eq!(found.place() == Place::Native, is_newer);
    }
}

#[test]
fn copy_of_the_dht_that_ends_before_the_answer_is_none_and_one_under_a_lease_knows_no_clock() {
    let record = info(5, "pump", 1);
    let ends_ms = record.expires_at_ms();
    for (own_ms, found) in [(ends_ms, &[5][..]), (ends_ms + 1, &[])] {
        let mut desk = Desk::new(Role::Indexer);
        desk.begin_for_peer(by_id(), Reach::Network);
        let query = desk.searches[0].1;
        assert!(desk.finds(10, ends_ms, query, &record));
        assert!(desk.lookups.searched(at(10), query, 1));
        desk.own_ms = own_ms;
        desk.poll(10);
        assert_eq!(desk.found(), found, "{own_ms}");
        assert_eq!(desk.outcome().is_complete, !found.is_empty());

        // An indexer passes on what it has found in the DHT, and has no lease to tell of.
        let mut desk = Desk::new(Role::Node).indexer(1);
        desk.begin(by_id());
        desk.own_ms = own_ms;
        desk.answers_with(10, 1, std::slice::from_ref(&record), false, None);
        assert_eq!(desk.found(), found, "{own_ms}");
    }
    let mut desk = Desk::new(Role::Indexer).lists(5, "pump");
    desk.begin(pump());
    desk.own_ms = ends_ms + 1;
    desk.search_ends(10, 1);
    assert_eq!(desk.found(), [5]);
}

#[test]
fn silent_holder_that_a_native_knows_to_have_left_is_no_reason_for_an_incomplete_answer() {
    let left = Tally {
        asked: 1,
        answered: 1,
    };
    for (tally, is_complete) in [
        (Some(left), true),
        (Some(Tally::default()), false),
        (None, false),
    ] {
        let mut desk = Desk::new(Role::Indexer).native(NATIVE);
        desk.begin_for_peer(pump(), Reach::Network);
        desk.names(10, &[1, 2], Coverage::Complete);
        desk.search_ends(10, 1);
        desk.answers(20, 2, &[7]);
        assert_eq!(desk.waiting(), [1], "the natives are asked at last");
        desk.fails(30, 1, false);
        assert_eq!(desk.waiting(), [NATIVE]);
        let about = Ask::Peer {
            peer: peer(1),
            reach: Reach::Directory,
        };
        assert_eq!(desk.asked[0].1, about);
        desk.answers_with(40, NATIVE, &[], false, tally);
        assert_eq!(desk.found(), [7]);
        assert_eq!(desk.outcome().is_complete, is_complete);
        assert_eq!(is_said_to_be_complete(&desk), is_complete);
        let (silent, gone): (&[u8], &[u8]) = match is_complete {
            true => (&[], &[1]),
            false => (&[1], &[]),
        };
        assert_eq!((desk.silent(), desk.left()), (silent.into(), gone.into()));
        assert_eq!(desk.tally(), if is_complete { (1, 1) } else { (2, 1) });
    }
}

#[test]
fn native_that_knows_itself_who_has_left_asks_no_other_and_waits_no_longer() {
    let mut desk = Desk::new(Role::Native);
    desk.here.left.push(peer(1));
    desk.begin_for_peer(pump(), Reach::Network);
    desk.names(10, &[1], Coverage::Complete);
    desk.search_ends(10, 1);
    desk.poll(759);
    assert!(desk.done.is_none());
    desk.poll(760);
    assert_eq!((desk.left(), desk.tally()), (vec![1], (0, 0)));
    assert!(desk.outcome().is_complete);
}

#[test]
fn silent_own_server_has_not_left_as_long_as_it_is_one() {
    let mut desk = Desk::new(Role::Native).native(NATIVE);
    desk.here.left.push(peer(NATIVE));
    desk.begin_for_peer(pump(), Reach::Network);
    desk.search_ends(10, 1);
    desk.fails(20, NATIVE, false);
    assert_eq!(desk.silent(), [NATIVE]);
    assert!(!desk.outcome().is_complete);
}

#[test]
fn node_serves_no_lookup() {
    let mut desk = Desk::new(Role::Node).native(NATIVE);
    for question in [pump(), by_id()] {
        assert_eq!(desk.begin_for_peer(question, Reach::Network), Begun::Here);
    }
}

#[test]
fn lookup_for_a_peer_ends_after_3_s() {
    let mut desk = Desk::new(Role::Native).native(NATIVE);
    desk.begin_for_peer(pump(), Reach::Network);
    desk.poll(2_999);
    assert_eq!(desk.done, None);
    desk.poll(3_000);
    assert_eq!((desk.tally(), desk.silent()), ((1, 0), [NATIVE].to_vec()));
}

#[test]
fn fellow_that_answers_no_heartbeat_is_silent_and_not_waited_for() {
    let mut desk = Desk::new(Role::Native)
        .native(201)
        .server(202, Role::Native, false);
    desk.begin_for_peer(pump(), Reach::Network);
    desk.search_ends(5, 1);
    assert_eq!(desk.waiting(), [201]);
    desk.answers(10, 201, &[]);
    assert_eq!((desk.tally(), desk.silent()), ((2, 1), [202].to_vec()));
    assert!(!desk.outcome().is_complete);
}

#[test]
fn sixteen_fellows_are_asked_and_a_seventeenth_makes_the_answer_incomplete() {
    for (fellows, complete) in [(16, true), (17, false)] {
        let mut desk = Desk::new(Role::Native);
        for n in 1..=fellows {
            desk = desk.native(n);
        }
        desk.begin_for_peer(pump(), Reach::Network);
        desk.search_ends(5, 1);
        while let Some(&n) = desk.waiting().first() {
            desk.answers(10, n, &[]);
        }
        assert_eq!(desk.tally(), (16, 16));
        assert_eq!(desk.outcome().is_complete, complete, "{fellows}");
        assert_eq!(is_said_to_be_complete(&desk), complete, "{fellows}");
    }
}

#[test]
fn search_that_is_cut_off_makes_the_answer_to_the_peer_incomplete() {
    let mut desk = Desk::new(Role::Indexer);
    desk.begin_for_peer(by_id(), Reach::Network);
    desk.poll(PEER_LIMIT.as_millis() as u64);
    assert_eq!(desk.tally(), (0, 0), "the DHT is no server");
    assert!(!desk.outcome().is_complete);
    assert!(!is_said_to_be_complete(&desk));
}

/// Whether the peer that asked takes the answer for a complete one.
fn is_said_to_be_complete(desk: &Desk) -> bool {
    match desk.outcome().response() {
        Response::Records { more, tally, .. } => {
            !more && tally.is_some_and(|tally| tally.answered == tally.asked)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn own_id_among_the_providers_is_not_asked() {
    let mut desk = Desk::new(Role::Native);
    desk.begin(pump());
    desk.names(10, &[0, 1], Coverage::Complete);
    assert_eq!(desk.waiting(), [1]);
}
