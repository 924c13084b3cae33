mod desk;
mod rows;

use std::vec::Vec;

use super::*;
use crate::protocol::{Entry, Reason, codec::service::to_service_name};
use desk::*;

#[test]
fn own_directory_comes_first_and_a_native_alone_is_complete() {
    let mut desk = Desk::new(Role::Native);
    desk.home.nodes = (1..=70).map(|n| (n, envelope(n))).collect();
    let desk = desk.begin();
    assert_eq!(desk.rows(), (1..=70).collect::<Vec<_>>());
    assert!(desk.is_done && desk.listing().is_complete());
}

#[test]
fn who_knows_no_server_is_not_complete() {
    for role in [Role::Node, Role::Indexer] {
        let desk = Desk::new(role).begin();
        assert!(desk.is_done && !desk.listing().is_complete());
    }
}

#[test]
fn node_with_two_leases_has_one_row() {
    let mut desk = Desk::new(Role::Node).indexers([1, 2]).begin();
    desk.lists(5, 1, &[alive(10), alive(11)], None);
    assert_eq!(desk.rows(), [10, 11], "rows leave at once");
    desk.lists(6, 2, &[alive(10), alive(12)], None);
    assert_eq!(desk.rows(), [10, 11, 12]);
    assert!(desk.is_done && desk.listing().is_complete());
    assert_eq!(desk.tally(), (2, 2));
}

#[test]
fn natives_are_asked_for_their_nodes_and_for_indexers_which_are_asked_too() {
    let mut desk = Desk::new(Role::Node).server(NATIVE, Role::Native).begin();
    assert_eq!(desk.waiting(), [NATIVE, NATIVE]);
    desk.lists_indexers(1, NATIVE, &[1, 2]);
    assert_eq!(desk.waiting(), [NATIVE, 1, 2]);
    desk.lists(2, NATIVE, &[alive(20)], None);
    desk.lists(2, 1, &[alive(21)], None);
    desk.lists(2, 2, &[], None);
    assert_eq!(desk.rows(), [20, 21]);
    assert_eq!(desk.tally(), (3, 3));
    assert!(desk.listing().is_complete());
}

#[test]
fn native_asks_its_own_live_indexers_and_the_fellows() {
    let mut desk = Desk::new(Role::Native).server(NATIVE, Role::Native);
    desk.home.live = (1..=17).map(offer).collect();
    let mut desk = desk.begin();
    let mut asked = Vec::new();
    while let Some((n, ask, _)) = desk.asked.first().cloned() {
        match ask {
            ListAsk::Indexers(_) => desk.lists_indexers(1, n, &[]),
            ListAsk::Nodes(_) => {
                asked.push(n);
                desk.lists(1, n, &[], None);
            }
        }
    }
    asked.sort_unstable();
    let all: Vec<_> = (1..=17).chain([NATIVE]).collect();
    assert_eq!(asked, all);
    assert!(desk.is_done && desk.listing().is_complete());
}

#[test]
fn eight_are_asked_at_a_time() {
    let mut desk = Desk::new(Role::Node).indexers(1..=10).begin();
    assert_eq!(desk.waiting(), (1..=8).collect::<Vec<_>>());
    desk.lists(1, 3, &[], None);
    assert_eq!(desk.waiting(), [1, 2, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn pages_are_read_until_the_last() {
    let mut desk = Desk::new(Role::Node).indexers([1]).begin();
    desk.lists(1, 1, &[alive(30)], Some(30));
    let (_, ask, _) = desk.asked[0];
    assert_eq!(ask, ListAsk::Nodes(Cursor::After(peer(30))));
    // A page may be empty and have a next one.
    desk.lists(2, 1, &[], Some(40));
    desk.lists(3, 1, &[alive(41)], None);
    assert_eq!(desk.rows(), [30, 41]);
    assert!(desk.is_done && desk.listing().is_complete());
}

#[test]
fn pages_whose_ids_do_not_grow_are_not_read_for_ever() {
    let mut desk = Desk::new(Role::Node).indexers([1]).begin();
    desk.lists(1, 1, &[alive(30)], Some(30));
    desk.lists(2, 1, &[alive(31)], Some(30));
    assert!(desk.is_done && !desk.listing().is_complete());
    assert_eq!(numbers(desk.listing().partial()), [1]);
    assert_eq!(desk.rows(), [30, 31]);
}

#[test]
fn silent_server_gives_its_turn_away_after_its_time() {
    let mut desk = Desk::new(Role::Node).indexers(1..=9).begin();
    let patience = after(LIST_PATIENCE);
    desk.poll(patience - 1);
    assert_eq!(desk.waiting(), (1..=8).collect::<Vec<_>>());
    desk.poll(patience);
    assert_eq!(desk.waiting().last(), Some(&9));
    desk.lists(patience + 1, 9, &[alive(50)], None);
    assert!(desk.is_done && !desk.listing().is_complete());
    let silent = numbers(desk.listing().silent());
    assert_eq!(silent, (1..=8).collect::<Vec<_>>());
    assert_eq!(desk.tally(), (9, 1));
    // No query waits for a late answer.
    desk.lists(patience + 2, 1, &[alive(51)], None);
    assert_eq!(desk.rows(), [50]);
}

#[test]
fn listing_ends_at_its_limit_with_what_it_has() {
    let mut desk = Desk::new(Role::Node).indexers([1]).begin();
    let limit = after(LIMIT);
    for (page, now) in (100..).zip((0..limit).step_by(1000)) {
        desk.lists(now, 1, &[alive(page)], Some(page));
    }
    desk.poll(limit - 1);
    assert!(!desk.is_done);
    assert_eq!(desk.listing().timeout(), Some(at(limit)));
    desk.poll(limit);
    assert!(desk.is_done && !desk.listing().is_complete());
    assert_eq!((desk.rows().len(), desk.tally()), (10, (1, 0)));
    assert_eq!(desk.listing().timeout(), None);
}

#[test]
fn reader_is_told_each_second_how_far_it_is() {
    let mut desk = Desk::new(Role::Node).indexers([1]).begin();
    let second = after(PROGRESS);
    desk.poll(second - 1);
    assert!(desk.progress.is_empty());
    for now in [second, second + 1, 2 * second] {
        desk.poll(now);
    }
    assert_eq!(desk.progress, [second, 2 * second]);
    desk.lists(2 * second, 1, &[], None);
    desk.poll(3 * second);
    assert_eq!(desk.progress.len(), 2, "it is over");
}

#[test]
fn server_is_asked_when_all_of_its_rows_have_room() {
    let mut desk = Desk::new(Role::Node).indexers([1, 2]);
    desk.shown.room = 31;
    let mut desk = desk.begin();
    assert!(desk.asked.is_empty());
    desk.shown.room = 32;
    desk.poll(1);
    assert_eq!(desk.waiting(), [1]);
    desk.shown.room = 63;
    desk.poll(2);
    assert_eq!(desk.waiting(), [1]);
    desk.shown.room = 64;
    desk.poll(3);
    assert_eq!(desk.waiting(), [1, 2]);
}

#[test]
fn word_of_progress_takes_no_room_of_rows_that_may_come() {
    let second = after(PROGRESS);
    for (room, progress) in [(32, &[][..]), (33, &[second])] {
        let mut desk = Desk::new(Role::Node).indexers([1]);
        desk.shown.room = room;
        let mut desk = desk.begin();
        assert_eq!(desk.waiting(), [1]);
        desk.poll(second);
        assert_eq!(desk.progress, progress);
        assert_eq!(desk.listing().timeout(), Some(at(2 * second)));
        let page: Vec<_> = (10..42).map(alive).collect();
        desk.lists(second, 1, &page, None);
        assert_eq!(desk.rows().len(), 32);
        assert!(desk.is_done && desk.listing().is_complete());
    }
}

#[test]
fn end_needs_no_room_of_a_row() {
    let mut desk = Desk::new(Role::Native);
    desk.home.nodes = (1..=32).map(|n| (n, envelope(n))).collect();
    desk.shown.room = 32;
    let desk = desk.begin();
    assert_eq!(desk.shown.room, 0);
    assert!(desk.is_done && desk.listing().is_complete());
}

#[test]
fn own_directory_is_read_when_a_page_of_it_has_room() {
    let mut desk = Desk::new(Role::Native);
    desk.home.nodes = (1..=33).map(|n| (n, envelope(n))).collect();
    desk.shown.room = 31;
    let mut desk = desk.begin();
    assert!(desk.rows().is_empty());
    desk.shown.room = 32;
    desk.poll(1);
    assert_eq!(desk.rows().len(), 32);
    desk.shown.room = 32;
    desk.poll(2);
    assert_eq!(desk.rows().len(), 33);
    assert!(desk.is_done && desk.listing().is_complete());
}

#[test]
fn server_that_answers_with_an_error_is_refused() {
    let mut desk = Desk::new(Role::Node)
        .indexers([1])
        .server(NATIVE, Role::Native);
    desk = desk.begin();
    let error = Response::Error(Reason::try_from("unknown code").unwrap());
    desk.responds(1, 1, true, Some(&error));
    desk.responds(1, NATIVE, false, Some(&error));
    desk.lists(1, NATIVE, &[], None);
    assert!(desk.is_done && !desk.listing().is_complete());
    assert_eq!(numbers(desk.listing().refused()), [1, NATIVE]);
    assert_eq!(desk.tally(), (2, 0));
}

#[test]
fn five_hundred_and_twelve_servers_are_asked_and_not_one_more() {
    for (count, is_complete) in [(512, true), (513, false)] {
        let mut desk = Desk::new(Role::Native);
        desk.home.live = (1..=count).map(offer).collect();
        let mut desk = desk.begin();
        while let Some((n, ..)) = desk.asked.first().cloned() {
            desk.lists(1, n, &[], None);
        }
        assert!(desk.is_done);
        assert_eq!(desk.listing().is_complete(), is_complete);
        assert_eq!(desk.tally(), (512, 512));
    }
}
