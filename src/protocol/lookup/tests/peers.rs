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
fn name_is_answered_by_an_indexer_alone_and_by_a_native_with_its_fellows() {
    let mut desk = Desk::new(Role::Indexer).native(NATIVE);
    assert_eq!(desk.begin_for_peer(pump(), Reach::Network), Begun::Here);
    let mut desk = Desk::new(Role::Native);
    assert_eq!(desk.begin_for_peer(pump(), Reach::Network), Begun::Here);

    let mut desk = Desk::new(Role::Native).native(NATIVE).lists(7, "pump");
    let begun = desk.begin_for_peer(pump(), Reach::Network);
    assert!(matches!(begun, Begun::Lookup(_)));
    assert_eq!(desk.reach(NATIVE), Some(Reach::Directory));
    desk.answers(10, NATIVE, &[8]);
    assert_eq!(desk.found(), [8, 7]);
    assert_eq!(desk.tally(), (1, 1));
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
    assert!(desk.lookups.searched(at(10), query));
    desk.poll(10);
    assert_eq!(desk.found(), [5]);
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
fn own_id_among_the_servers_is_not_asked() {
    let mut desk = Desk::new(Role::Native);
    desk.here.live = [offer(0, 1), offer(1, 1)].to_vec();
    desk.begin(pump());
    assert_eq!(desk.waiting(), [1]);
}
