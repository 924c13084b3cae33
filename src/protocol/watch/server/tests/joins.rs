//! Which watchers may join, and how often.

use super::*;

#[test]
fn there_are_places_for_so_many_and_the_next_is_refused_and_counted() {
    let mut world = World::new();
    for id in 1..=3 {
        assert!(world.join(id, Filter::default()));
    }
    assert!(!world.join(4, Filter::default()));
    assert_eq!(world.watchers.stats().refused, 1);
    world.watchers.leave(WatcherId(2));
    assert!(world.join(5, Filter::default()));
}

#[test]
fn four_places_are_kept_for_readers_of_this_process_and_there_is_no_fifth() {
    let mut world = World::new();
    (1..=3).for_each(|id| assert!(world.join(id, Filter::default())));
    assert!(!world.join(4, Filter::default()));
    (5..=8).for_each(|id| assert!(world.join_of(id, None)));
    assert!(!world.join_of(9, None));
}

#[test]
fn a_peer_has_four_watchers_at_most() {
    let mut watchers = Watchers::<9>::new();
    let changes = Changes::new();
    let mut joins = |id, n| {
        watchers.join(
            at(0),
            WatcherId(id),
            Some(peer(n)),
            Filter::default(),
            &changes,
        )
    };
    (1..=4).for_each(|id| assert!(joins(id, 1)));
    assert!(!joins(5, 1));
    assert!(joins(6, 2));
}

#[test]
fn sixty_four_may_join_at_once_and_then_thirty_two_a_second() {
    let mut world = World::new();
    let joins = |world: &mut World, id| {
        let is_served = world.join(id, Filter::default());
        world.watchers.leave(WatcherId(id));
        is_served
    };
    for id in 0..64 {
        assert!(joins(&mut world, id));
    }
    assert!(!joins(&mut world, 64));
    assert!(world.join_of(65, None), "a reader of this process");
    world.now = 31;
    assert!(!joins(&mut world, 66));
    world.now = 32;
    assert!(joins(&mut world, 67));
    assert!(!joins(&mut world, 68));
    assert_eq!(world.watchers.stats().refused, 3);
}

#[test]
fn a_peer_that_joins_again_and_again_joins_four_times_a_second_and_leaves_others_their_share() {
    let mut world = World::new();
    let joins = |world: &mut World, n| {
        let is_served = world.join_of(n, Some(peer(n as u8)));
        world.watchers.leave(WatcherId(n));
        is_served
    };
    for _ in 0..MAX_OF_PEER {
        assert!(joins(&mut world, 1));
    }
    for now in 0..1_000 {
        world.now = now;
        assert!(!joins(&mut world, 1), "at {now} ms");
    }
    assert!(joins(&mut world, 2), "another one");
    world.now = 1_000;
    assert!(joins(&mut world, 1));
    assert_eq!(world.watchers.stats().refused, 1_000);
}
