//! Which rows are shown.

use super::*;

#[test]
fn who_is_alive_anywhere_is_not_shown_as_lost() {
    let gone = |presence| (10, presence, 7);
    for presence in [Presence::Left, Presence::Lost] {
        for lost_first in [true, false] {
            let mut desk = Desk::new(Role::Node).indexers([1, 2]).begin();
            let (first, second) = match lost_first {
                true => (gone(presence), alive(10)),
                false => (alive(10), gone(presence)),
            };
            desk.lists(1, 1, &[first], None);
            desk.lists(2, 2, &[second], None);
            assert_eq!(desk.shown.rows, [alive(10)]);
            assert!(desk.listing().is_complete());
        }
    }
}

#[test]
fn row_names_the_server_that_told_of_the_node_first() {
    let mut desk = Desk::new(Role::Native).indexers([1, 2]).begin();
    desk.lists(2, 2, &[alive(10)], None);
    desk.lists(1, 1, &[alive(10), alive(11), (12, Presence::Lost, 1)], None);
    assert_eq!(desk.rows(), [10, 11, 12]);
    assert_eq!(desk.shown.servers, [Some(2), Some(1), None]);
}

#[test]
fn vanished_come_last_the_latest_first_and_wait_for_room() {
    let mut desk = Desk::new(Role::Node).indexers([1, 2]).begin();
    let lost = |n, age| (n, Presence::Lost, age);
    desk.lists(
        1,
        1,
        &[lost(10, 9), lost(11, 3), (12, Presence::Left, 5)],
        None,
    );
    assert!(desk.rows().is_empty());
    desk.shown.room = 3;
    desk.lists(2, 2, &[alive(13)], None);
    assert_eq!(desk.rows(), [13, 11, 12]);
    assert!(!desk.is_done);
    assert_eq!(desk.listing().timeout(), None, "it waits for its reader");
    desk.shown.room = 32;
    desk.poll(after(LIMIT) * 2);
    assert_eq!(desk.shown.rows[3], lost(10, 9));
    assert!(desk.is_done && desk.listing().is_complete());
}

#[test]
fn states_that_are_not_asked_for_are_not_shown() {
    let said = [alive(10), (11, Presence::Lost, 1), (12, Presence::Left, 1)];
    for (states, shown) in [
        (&[Presence::Alive][..], &[10][..]),
        (&[Presence::Lost], &[11]),
        (&[Presence::Left, Presence::Lost], &[12, 11]),
    ] {
        let states = States::of(states.iter().copied());
        let mut desk = Desk::new(Role::Node).indexers([1, 2]);
        desk = desk.begin_with(Filter::default(), states);
        let Request::List { gone, .. } = desk.listing().request(desk.asked[0].1) else {
            panic!("it is a list");
        };
        assert_eq!(gone, !shown.contains(&10));
        desk.lists(1, 1, &said, None);
        desk.lists(2, 2, &[(10, Presence::Lost, 1)], None);
        assert_eq!(desk.rows(), shown);
    }
}

#[test]
fn record_that_does_not_verify_is_no_row_and_hides_none() {
    let forged = [envelope(10), FORGED.to_vec()].concat();
    let mut desk = Desk::new(Role::Node).indexers([1, 2]).begin();
    desk.page(1, 1, &[entry(&alive(10), &forged)], None);
    assert!(desk.rows().is_empty());
    desk.lists(2, 2, &[alive(10)], None);
    assert_eq!(desk.rows(), [10]);
}

#[test]
fn what_was_not_asked_for_is_left_out() {
    let prefix = |text: &str| Filter::new(None, text.try_into().unwrap());
    let service = |text: &str| Filter::new(to_service_name(text), Default::default());
    let said = [alive(10), (11, Presence::Lost, 1)];
    for (filter, shown) in [
        (prefix("pu"), &[10, 11][..]),
        (prefix("lamp"), &[]),
        // It is not known whether the lost nodes had offered it.
        (service("http"), &[10]),
        (service("ssh"), &[]),
    ] {
        let mut desk = Desk::new(Role::Node).indexers([1]);
        desk = desk.begin_with(filter, States::ALL);
        desk.lists(1, 1, &said, None);
        assert_eq!(desk.rows(), shown);
    }
}

#[test]
fn word_of_a_server_alone_makes_nobody_alive() {
    let mut desk = Desk::new(Role::Node).indexers([1]).begin();
    let entry = Entry {
        presence: Presence::Alive,
        ..entry(&(10, Presence::Lost, 1), &[])
    };
    desk.page(1, 1, &[entry], None);
    assert!(desk.is_done && desk.rows().is_empty());
}

#[test]
fn nodes_that_may_be_shown_twice_make_the_listing_incomplete() {
    let desk = Desk::new(Role::Node).indexers([1]);
    // Seven fit the smaller set.
    let mut desk = desk.begin_in(8, (Filter::default(), States::ALL));
    let all: Vec<_> = (10..18).map(alive).collect();
    desk.lists(1, 1, &all, None);
    assert_eq!(desk.rows().len(), 8);
    assert!(desk.is_done && !desk.listing().is_complete());
}
