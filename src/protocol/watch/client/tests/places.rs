//! The places of nodes, and which of them give way.

use super::*;

#[test]
fn a_node_for_which_there_is_no_room_is_told_of_and_counted() {
    let mut world = World::live();
    for n in 1..=9 {
        assert_eq!(world.sees(A, n, 1, 1), Some(Said::Present));
    }
    let TableStats { used, refused, .. } = world.watch.stats();
    assert_eq!((used, refused), (8, 1));
}

#[test]
fn no_server_fills_the_table_for_the_others() {
    let mut world = World::live();
    for n in 1..=8 {
        world.sees(A, n, 1, 1);
    }
    assert_eq!(world.steps(), [], "there is room for these");
    for n in 11..=15 {
        assert_eq!(world.sees(B, n, 1, 1), Some(Said::Present));
    }
    let TableStats {
        used,
        refused,
        evicted,
        ..
    } = world.watch.stats();
    assert_eq!((used, refused, evicted), (8, 1, 4), "B has half of it");
    assert_eq!(world.steps(), [told_up(0)], "this is told");
    assert_eq!(world.watch.untracked(), 5);
    world.sees(A, 16, 1, 1);
    world.now += 100;
    assert_eq!(world.steps(), [], "once");
    world.loses(B, 11, Presence::Left);
    world.now += millis(LINGER);
    assert_eq!(world.steps(), [gone(11, Presence::Left)]);
}

#[test]
fn a_node_that_others_hold_too_does_not_give_way() {
    let mut world = World::live();
    for n in 1..=8 {
        world.sees(A, n, 1, 1);
        world.sees(B, n, 1, 1);
    }
    world.sees(B, 11, 1, 1);
    let TableStats {
        refused, evicted, ..
    } = world.watch.stats();
    assert_eq!((refused, evicted), (1, 0));
}

#[test]
fn a_node_gives_way_only_if_each_server_that_holds_it_has_more_than_its_share() {
    // The shares are 2 of 8 places. B holds so many of what A holds.
    for (of_b, given_up) in [(0, 2), (2, 2), (3, 2), (8, 2)] {
        let mut world = World::live();
        world.list(&[A, B, C, 204], Extent::Known);
        (1..=8).for_each(|n| _ = world.sees(A, n, 1, 1));
        (1..=of_b).for_each(|n| _ = world.sees(B, n, 1, 1));
        (11..=13).for_each(|n| _ = world.sees(C, n, 1, 1));
        let TableStats {
            refused, evicted, ..
        } = world.watch.stats();
        assert_eq!((refused, evicted), (1, given_up), "B holds {of_b}");
        world.loses(B, 1, Presence::Left);
        world.loses(A, 1, Presence::Left);
        world.now += millis(LINGER);
        let is_gone = world.steps().contains(&gone(1, Presence::Left));
        assert_eq!(is_gone, of_b == 2, "the first one is still known");
    }
}

#[test]
fn a_node_that_no_server_holds_counts_against_the_last_one() {
    let mut world = World::live();
    for n in 1..=8 {
        world.sees(A, n, 1, 1);
        world.loses(A, n, Presence::Alive);
    }
    (11..=15).for_each(|n| _ = world.sees(B, n, 1, 1));
    let TableStats {
        refused, evicted, ..
    } = world.watch.stats();
    assert_eq!((refused, evicted), (1, 4));
}
