//! A node that says good-bye while one of its servers is not heard.

use super::*;

/// A node that both servers hold. Then the stream to A breaks, and no other can be opened to it.
fn held_by_both() -> World {
    let mut world = World::live();
    world.sees(A, 1, 5, 1);
    world.sees(B, 1, 5, 1);
    world.now = 40_000;
    world.breaks(A);
    world
}

/// The same when A is silent.
fn silent() -> World {
    let mut world = held_by_both();
    world.fails_until(50_000, &[A, B]);
    assert_eq!(world.silent(), [A]);
    world
}

/// What is said until then of nodes that are gone.
fn gone_until(world: &mut World, end: u64) -> Vec<WatchStep> {
    let mut told = world.fails_until(end, &[A, B]);
    told.retain(|step| matches!(step, WatchStep::Gone { .. }));
    told
}

#[test]
fn it_is_gone_at_once_although_a_silent_server_was_not_told() {
    let mut world = silent();
    world.loses(B, 1, Presence::Left);
    let end = 50_000 + millis(LINGER);
    assert_eq!(gone_until(&mut world, end - 1), []);
    assert_eq!(gone_until(&mut world, end), [gone(1, Presence::Left)]);
}

#[test]
fn it_is_gone_when_it_turns_out_that_the_other_server_is_silent() {
    let mut world = held_by_both();
    world.loses(B, 1, Presence::Left);
    while world.silent().is_empty() {
        let next = world.watch.timeout().unwrap().as_millis();
        assert_eq!(gone_until(&mut world, next), []);
    }
    assert!(world.now <= 40_000 + millis(QUIET), "{}", world.now);
    let end = world.now + millis(LINGER);
    assert_eq!(gone_until(&mut world, end - 1), []);
    assert_eq!(gone_until(&mut world, end), [gone(1, Presence::Left)]);
}

#[test]
fn one_that_was_lost_or_is_back_is_held_by_a_silent_server() {
    let mut world = silent();
    world.loses(B, 1, Presence::Lost);
    assert_eq!(gone_until(&mut world, 60_000), []);
    let mut world = held_by_both();
    world.loses(B, 1, Presence::Left);
    world.sees(B, 1, 6, 1);
    world.loses(B, 1, Presence::Lost);
    assert_eq!(gone_until(&mut world, 60_000), []);
    assert_eq!(world.silent(), [A]);
}

#[test]
fn one_that_gave_one_lease_up_is_held_by_its_other_server_that_becomes_silent_later() {
    let mut world = World::live();
    world.sees(A, 1, 5, 1);
    world.sees(B, 1, 5, 1);
    world.loses(B, 1, Presence::Left);
    world.breaks(A);
    assert_eq!(gone_until(&mut world, 60_000), []);
    assert_eq!(world.silent(), [A]);
    // The good-bye that came when A was not heard counts.
    let mut world = held_by_both();
    world.loses(B, 1, Presence::Left);
    world.sees(B, 1, 6, 1);
    world.loses(B, 1, Presence::Left);
    let silent_by = 40_000 + millis(QUIET) + millis(LINGER);
    assert_eq!(gone_until(&mut world, silent_by), [gone(1, Presence::Left)]);
}
