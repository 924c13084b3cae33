//! What a watch does not believe at once, and the servers that it does not wait for.

use super::*;

#[test]
fn a_server_that_is_not_listed_holds_its_nodes_for_a_lease_while_it_is_not_reached() {
    let mut world = World::live();
    world.sees(B, 1, 5, 1);
    world.now = 30_000;
    assert_eq!(world.steps(), [WatchStep::List]);
    world.list(&[A], Extent::Known);
    world.opens_anew(B);
    world.breaks(B);
    let end = 30_000 + millis(HOLD);
    let lost = |step: &WatchStep| matches!(step, WatchStep::Gone { .. });
    assert!(!world.fails_until(end - 1, &[A]).iter().any(lost));
    assert_eq!(world.watch.servers(), 2);
    assert_eq!(world.fails_until(end, &[A]), []);
    assert_eq!((world.watch.servers(), world.silent()), (1, vec![]));
    let told = world.fails_until(end + millis(LINGER), &[A]);
    assert_eq!(
        told,
        [gone(1, Presence::Lost), told_up(millis(HOLD))],
        "lost nodes are reported before the report that all have caught up"
    );
}

#[test]
fn a_node_that_was_handed_over_is_not_gone_before_the_new_server_was_heard() {
    let mut world = World::live();
    world.sees(A, 1, 5, 1);
    world.sees(A, 2, 5, 1);
    world.now = 10_000;
    world.loses(A, 1, Presence::Alive);
    world.loses(A, 2, Presence::Alive);
    assert_eq!(world.steps(), [WatchStep::List], "it is with a new server");
    world.now += millis(LINGER);
    assert_eq!(world.steps(), []);
    world.list(&[A, B, 203], Extent::Known);
    assert_eq!(world.opened(), [203]);
    world.now += 500;
    assert_eq!(world.steps(), []);
    assert_eq!(world.sees(203, 1, 5, 1), None);
    world.caught_up(203);
    let WatchStep::Gone { peer: id, how, .. } = world.steps().remove(0) else {
        panic!("2 is nowhere");
    };
    assert_eq!((id, how), (peer(2), Presence::Alive));
    world.now += millis(MOVES);
    assert_eq!(world.steps(), []);
}

#[test]
fn a_node_that_was_handed_over_waits_three_seconds_for_a_list_at_most() {
    let mut world = World::live();
    world.sees(A, 1, 5, 1);
    world.now = 100;
    world.loses(A, 1, Presence::Alive);
    world.now = millis(RELIST_SOONEST) - 1;
    assert_eq!(world.steps(), [], "they were listed a moment ago");
    world.now += 1;
    assert_eq!(world.steps(), [WatchStep::List]);
    world.now = 100 + millis(MOVES) - 1;
    assert_eq!(world.steps(), []);
    world.now += 1;
    assert_eq!(world.steps().len(), 1);
}

#[test]
fn the_servers_are_listed_at_once_when_one_says_that_there_is_a_new_one() {
    let mut world = World::live();
    world.now = 10_000;
    world.loses(A, 203, Presence::Left);
    assert_eq!(world.steps(), [], "a node of which nothing was said");
    world.loses(A, 203, Presence::Alive);
    assert_eq!(world.steps(), [WatchStep::List]);
    // It is not known whether this one is in the list that is being made.
    world.loses(B, 204, Presence::Alive);
    world.list(&[A, B, 203], Extent::Known);
    assert_eq!(world.opened(), [203]);
    world.caught_up(203);
    world.now += millis(RELIST_SOONEST) - 1;
    assert_eq!(world.steps(), []);
    world.now += 1;
    assert_eq!(world.steps(), [WatchStep::List]);
    world.list(&[A, B, 203, 204], Extent::Known);
    assert_eq!(world.opened(), [204]);
    world.caught_up(204);
    world.now += millis(RELIST) - 1;
    assert_eq!(world.steps(), []);
}

#[test]
fn the_servers_are_listed_at_once_when_this_process_knows_others() {
    let mut world = World::live();
    world.now = 10_000;
    world.watch.knows_servers(5);
    assert_eq!(world.steps(), [WatchStep::List]);
    world.list(&[A, B], Extent::Known);
    world.now += 2 * millis(RELIST_SOONEST);
    world.watch.knows_servers(5);
    assert_eq!(world.steps(), [], "they are the same");
    world.watch.knows_servers(6);
    assert_eq!(world.steps(), [WatchStep::List]);
}

/// A server says that there is a new one, whenever the servers were listed. Returns the times of
/// the lists until then.
fn lists_until(world: &mut World, end: u64) -> Vec<u64> {
    let (begin, mut times) = (world.now, Vec::new());
    while world.now < end {
        for step in world.steps() {
            assert_eq!(step, WatchStep::List);
            times.push(world.now - begin);
            world.list(&world.listed.clone(), Extent::Known);
        }
        world.loses(A, 203, Presence::Alive);
        world.now = world.watch.timeout().unwrap().as_millis();
    }
    times
}

#[test]
fn the_pause_between_lists_doubles_while_they_bring_no_new_server() {
    let mut world = World::live();
    world.now = 10_000;
    world.loses(A, 203, Presence::Alive);
    let doubled = [0, 1_000, 3_000, 7_000, 15_000, 31_000, 61_000, 91_000];
    assert_eq!(lists_until(&mut world, 120_000), doubled);

    world.listed.push(203);
    world.now = world.watch.timeout().unwrap().as_millis();
    assert_eq!(world.steps(), [WatchStep::List]);
    world.list(&world.listed.clone(), Extent::Known);
    assert_eq!(world.opened(), [203]);
    world.caught_up(203);
    world.loses(A, 204, Presence::Alive);
    world.now += millis(RELIST_SOONEST) - 1;
    assert_eq!(world.steps(), []);
    world.now += 1;
    assert_eq!(world.steps(), [WatchStep::List], "there was a new one");
}

#[test]
fn after_thirty_seconds_without_a_word_of_others_the_pause_is_short_again() {
    let mut world = World::live();
    world.now = 10_000;
    world.loses(A, 203, Presence::Alive);
    assert_eq!(lists_until(&mut world, 18_000).len(), 4);
    // The last word of others is not followed by another one.
    for now in [25_000, 55_000] {
        world.now = now;
        assert_eq!(world.steps(), [WatchStep::List]);
        world.list(&[A, B], Extent::Known);
    }
    world.loses(A, 203, Presence::Alive);
    world.now += millis(RELIST_SOONEST);
    assert_eq!(world.steps(), [WatchStep::List]);
}

#[test]
fn a_node_that_was_handed_over_does_not_wait_for_a_doubled_pause() {
    let mut world = World::live();
    world.sees(A, 1, 5, 1);
    world.now = 10_000;
    world.loses(A, 203, Presence::Alive);
    assert_eq!(lists_until(&mut world, 40_000).last(), Some(&15_000));
    world.now = 25_100;
    world.loses(A, 1, Presence::Alive);
    world.now = 25_000 + millis(MOVES) / 2 - 1;
    assert_eq!(world.steps(), []);
    world.now += 1;
    assert_eq!(world.steps(), [WatchStep::List]);
}

#[test]
fn servers_for_which_there_is_no_place_are_not_looked_for() {
    let mut world = World::new();
    let servers: Vec<u8> = (1..=65).collect();
    world.list(&servers, Extent::Known);
    world.opens_all();
    (57..=64).for_each(|n| world.caught_up(n));
    assert_eq!(world.steps(), [told_up(0)]);
    world.now = 10_000;
    world.loses(1, 203, Presence::Alive);
    world.watch.knows_servers(5);
    assert_eq!(world.steps(), []);
    world.now = millis(RELIST);
    assert_eq!(world.steps(), [WatchStep::List]);
    world.list(&servers[..64], Extent::Known);
    assert_eq!(world.steps(), [told_up(0)], "all have a place now");
}

#[test]
fn a_server_that_has_ended_in_order_is_not_silent_and_its_nodes_have_ten_seconds() {
    let mut world = World::live();
    world.sees(B, 1, 5, 1);
    world.now = 10_000;
    world.breaks(B);
    assert_eq!(world.steps(), [WatchStep::List]);
    world.reopens(B);
    world.breaks(B);
    assert_eq!(
        world.steps(),
        [],
        "it is not known yet whether it has ended"
    );
    world.list(&[A], Extent::Whole);
    let end = 10_000 + millis(CONFIRM);
    assert_eq!(world.fails_until(end - 1, &[A]), []);
    assert_eq!(world.watch.servers(), 2);
    assert_eq!(world.fails_until(end, &[A]), []);
    assert_eq!(world.watch.servers(), 1);
    let told = world.fails_until(end + millis(LINGER), &[A]);
    assert_eq!(told, [gone(1, Presence::Lost)]);
}

#[test]
fn a_server_that_is_still_listed_or_may_be_is_silent_when_it_is_not_reached() {
    for (servers, extent) in [(&[A, B][..], Extent::Whole), (&[A], Extent::Known)] {
        let mut world = World::live();
        world.now = 10_000;
        world.breaks(B);
        assert_eq!(world.steps(), [WatchStep::List]);
        world.list(servers, extent);
        assert_eq!(world.silent(), []);
        world.reopens(B);
        world.breaks(B);
        assert_eq!(world.silent(), [B]);
    }
}

#[test]
fn a_server_that_is_not_reached_is_silent_after_three_seconds_without_a_list() {
    let mut world = World::live();
    world.now = 10_000;
    world.breaks(B);
    assert_eq!(world.steps(), [WatchStep::List]);
    while world.silent().is_empty() {
        world.now = world.watch.timeout().unwrap().as_millis();
        for step in world.steps() {
            if let WatchStep::Open { .. } = step {
                world.breaks(B);
            }
        }
    }
    assert!((13_000..17_000).contains(&world.now), "{}", world.now);
}

#[test]
fn nodes_of_a_server_that_restarts_are_not_lost_if_they_beat_in_time() {
    let mut world = World::live();
    world.answers = true;
    world.sees(A, 1, 5, 1);
    world.breaks(A);
    world.reopens(A);
    world.caught_up(A);
    world.now += millis(CONFIRM) - 1;
    assert_eq!(world.sees(A, 1, 6, 1), None);
    world.now += 1 + millis(LINGER);
    let steps = world.steps();
    assert!(
        matches!(steps[..], [WatchStep::CaughtUp { .. }]),
        "{steps:?}"
    );
}

#[test]
fn with_a_filter_a_node_that_is_missing_after_a_break_has_left() {
    let mut world = World::new();
    world.watch.start(at(0), 7, Presence::Left);
    assert_eq!(world.steps(), [WatchStep::List]);
    world.list(&[A], Extent::Known);
    world.answers = true;
    assert_eq!(world.opened(), [A]);
    world.sees(A, 1, 5, 1);
    world.caught_up(A);
    assert_eq!(world.steps(), [told_up(0)]);
    world.breaks(A);
    world.reopens(A);
    world.caught_up(A);
    world.now += millis(CONFIRM);
    assert_eq!(world.steps(), []);
    world.now += millis(LINGER);
    assert_eq!(world.steps()[0], gone(1, Presence::Left));
}

#[test]
fn a_server_that_says_nothing_for_three_seconds_keeps_nobody_waiting() {
    let mut world = World::new();
    world.list(&[A, B], Extent::Known);
    assert_eq!(world.opened(), [A, B]);
    world.caught_up(A);
    world.now = 1_000;
    world.sees(B, 1, 5, 1);
    world.now += millis(QUIET) - 1;
    assert_eq!(world.steps(), []);
    world.now += 1;
    assert_eq!(world.steps(), [told_up(millis(QUIET))]);
    assert_eq!(world.silent(), [B]);
}

#[test]
fn a_stream_that_says_nothing_for_ten_seconds_is_opened_anew() {
    let mut world = World::new();
    world.list(&[A], Extent::Known);
    assert_eq!(world.opened(), [A]);
    world.now = millis(LONGEST_PAUSE) - 1;
    assert_eq!(world.steps().len(), 1, "it is silent");
    world.now += 1;
    assert_eq!(world.steps(), []);
    world.reopens(A);
    world.caught_up(A);
    assert_eq!(world.silent(), []);
}

#[test]
fn after_an_oversleep_all_streams_are_opened_anew_and_the_time_was_blind() {
    let mut world = World::live();
    world.now = 20_000;
    let gap = Duration::from_millis(15_000);
    world.watch.overslept(at(world.now), gap);
    assert_eq!(world.opened(), [A, B]);
    world.caught_up(A);
    world.caught_up(B);
    assert_eq!(world.steps(), [told_up(15_000)]);
}

#[test]
fn a_live_server_that_is_listed_no_longer_is_opened_anew_once() {
    let mut world = World::live();
    world.list(&[A], Extent::Part);
    assert_eq!(world.steps(), [], "this list is not whole");
    world.list(&[A], Extent::Known);
    world.opens_anew(B);
    world.caught_up(B);
    world.steps();
    world.list(&[A], Extent::Known);
    assert_eq!(world.steps(), []);
}

/// The longest of many pauses after a stream that was live for so long.
fn longest_pause_of_a_stream_that_lives(for_ms: u64) -> u64 {
    let mut world = World::live();
    let mut longest = 0;
    for _ in 0..40 {
        world.now += for_ms;
        if world.steps().contains(&WatchStep::List) {
            world.list(&[A, B], Extent::Known);
        }
        let begin = world.now;
        world.breaks(B);
        while !world
            .steps()
            .iter()
            .any(|s| matches!(s, WatchStep::Open { .. }))
        {
            world.now = world.watch.timeout().unwrap().as_millis();
        }
        longest = longest.max(world.now - begin);
        world.caught_up(B);
    }
    longest
}

#[test]
fn pauses_are_short_again_when_a_stream_was_live_for_thirty_seconds() {
    let steady = millis(HEARD_FOR);
    assert!(longest_pause_of_a_stream_that_lives(steady - 1) > 5_000);
    assert!(longest_pause_of_a_stream_that_lives(steady) <= 500);
}

#[test]
fn the_server_that_has_waited_longest_is_opened_first() {
    let mut world = World::new();
    // All but the last two cannot be reached. They were listed first, and are tried again soon.
    let servers: Vec<u8> = (1..=26).collect();
    world.list(&servers, Extent::Known);
    let (mut opened, all_tried) = (Vec::new(), 3 * millis(LONGEST_PAUSE));
    while world.now <= all_tried {
        for step in world.steps() {
            match step {
                WatchStep::List => world.list(&servers, Extent::Known),
                WatchStep::Open { server, .. } => opened.push(server.as_bytes()[0]),
                _ => {}
            }
        }
        world.now = world.watch.timeout().unwrap().as_millis();
    }
    assert_eq!(opened[..26], servers);
}
