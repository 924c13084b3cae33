use std::boxed::Box;

use super::*;
use crate::protocol::{
    Addrs, Indexer, IndexerConfig, IndexersAnswer, Input, Node, NodeConfig, Offer, lease::Terms,
};

const BUILT: u64 = 1_700_000_000_000;
const NOW: u64 = 1_790_000_000_000;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

/// Takes a sample with an answer that came at once.
fn heard(clock: &mut WallClock, now: Instant, server: ClockOf, ms: u64, synchronised: bool) {
    let theirs = WallReading { ms, synchronised };
    clock.take(now, now, server, theirs);
}

#[test]
fn own_time_is_never_before_the_floor() {
    let mut clock = WallClock::new(BUILT);
    assert_eq!(clock.own_ms(at(0), 0), BUILT);
    assert_eq!(clock.own_ms(at(0), BUILT - 1), BUILT);
    assert_eq!(clock.own_ms(at(0), BUILT + 1), BUILT + 1);
    assert!(!clock.is_trusted(BUILT - 1));
    assert!(clock.is_trusted(BUILT));
    clock.remember(NOW);
    assert_eq!(clock.own_ms(at(0), BUILT + 1), NOW);
    assert!(!clock.is_trusted(NOW - 1));
    assert!(clock.is_trusted(NOW));
}

#[test]
fn more_than_30_s_away_from_the_natives_median_signs_with_the_median() {
    for (ahead, signs_with) in [
        (30_000, NOW),
        (30_001, NOW + 30_001),
        (-30_000, NOW),
        (-30_001, NOW - 30_001),
    ] {
        let mut clock = WallClock::new(BUILT);
        heard(
            &mut clock,
            at(7),
            ClockOf::Native(peer(1)),
            NOW.saturating_add_signed(ahead),
            true,
        );
        assert_eq!(clock.own_ms(at(7), NOW), signs_with, "{ahead}");
    }
}

#[test]
fn one_wrong_native_of_three_moves_no_device() {
    let mut clock = WallClock::new(BUILT);
    for (n, theirs) in [(1, NOW), (2, NOW + 9_000_000), (3, NOW + 5)] {
        heard(&mut clock, at(7), ClockOf::Native(peer(n)), theirs, true);
    }
    assert_eq!(clock.own_ms(at(7), NOW), NOW);
    assert_eq!(clock.settled_ms(at(7), NOW), Some(NOW));
}

#[test]
fn clock_of_a_native_that_is_gone_counts_for_a_day_beside_others_and_alone_for_longer() {
    let day = 24 * 3_600_000;
    let ahead = NOW + 3_600_000;
    for (later, says, signs_with) in [
        (day, true, ahead),
        (day + 1, true, NOW),
        (day + 1, false, ahead),
    ] {
        let mut clock = WallClock::new(BUILT);
        for n in 1..=2 {
            heard(&mut clock, at(0), ClockOf::Native(peer(n)), ahead, true);
        }
        let at_end = (at(later), NOW + later);
        assert_eq!(clock.own_ms(at_end.0, at_end.1), ahead + later, "alone");
        heard(
            &mut clock,
            at_end.0,
            ClockOf::Native(peer(3)),
            at_end.1,
            says,
        );
        assert_eq!(
            clock.own_ms(at_end.0, at_end.1),
            signs_with + later,
            "{later} {says}"
        );
    }
}

#[test]
fn a_step_of_the_system_clock_does_not_move_the_clocks_that_were_heard() {
    let mut clock = WallClock::new(BUILT);
    heard(&mut clock, at(5_000), ClockOf::Native(peer(1)), NOW, true);
    assert_eq!(clock.own_ms(at(6_000), 6_000), NOW + 1_000, "1970");
    assert_eq!(
        clock.own_ms(at(7_000), NOW + 2_000),
        NOW + 2_000,
        "NTP came"
    );
    assert_eq!(
        clock.own_ms(at(8_000), NOW + 3_600_000),
        NOW + 3_000,
        "a step of an hour is not followed"
    );
    assert_eq!(
        clock.settled_ms(at(8_000), NOW + 3_600_000),
        Some(NOW + 3_000)
    );
}

#[test]
fn a_server_that_is_no_configured_native_does_not_move_a_clock_that_may_be_right() {
    let mut clock = WallClock::new(BUILT);
    for n in 1..=3 {
        heard(
            &mut clock,
            at(0),
            ClockOf::Other(peer(n)),
            NOW + 3_600_000,
            true,
        );
    }
    assert_eq!(clock.own_ms(at(0), NOW), NOW);
    assert_eq!(clock.own_ms(at(0), BUILT), BUILT);
    assert_eq!(clock.settled_ms(at(0), NOW), Some(NOW));
}

#[test]
fn a_device_without_a_clock_borrows_the_time_until_a_native_tells_it_and_persists_none_of_it() {
    let mut clock = WallClock::new(BUILT);
    assert_eq!(clock.settled_ms(at(70), 77), None);
    heard(
        &mut clock,
        at(70),
        ClockOf::Other(peer(1)),
        NOW + 9_000_000,
        false,
    );
    assert!(clock.is_trusted(77));
    assert_eq!(clock.own_ms(at(570), 577), NOW + 9_000_500);
    assert_eq!(clock.settled_ms(at(570), 577), None, "borrowed");
    heard(&mut clock, at(600), ClockOf::Native(peer(2)), NOW, false);
    assert_eq!(clock.own_ms(at(700), 707), NOW + 100);
    assert_eq!(clock.settled_ms(at(700), 707), Some(NOW + 100));
}

#[test]
fn a_clock_that_may_be_right_yields_only_to_synchronised_ones() {
    let mut clock = WallClock::new(BUILT);
    heard(
        &mut clock,
        at(0),
        ClockOf::Native(peer(1)),
        NOW + 3_600_000,
        false,
    );
    assert_eq!(clock.own_ms(at(0), NOW), NOW);
}

#[test]
fn a_clock_before_the_build_date_or_a_century_after_it_is_not_heard() {
    let latest = BUILT + LONGEST_AGE_MS;
    for (theirs, is_heard) in [
        (BUILT - 1, false),
        (BUILT, true),
        (latest, true),
        (latest + 1, false),
        (u64::MAX, false),
    ] {
        let mut clock = WallClock::new(BUILT);
        heard(&mut clock, at(0), ClockOf::Native(peer(1)), theirs, true);
        assert_eq!(clock.is_trusted(0), is_heard, "{theirs}");
    }
}

#[test]
fn an_answer_that_was_read_after_a_sleep_moves_nothing() {
    let told = NOW + 100_000;
    // Requested at 100 s, answered at once, and read `late` ms later.
    for (late, own) in [
        (10_000, told),
        (10_001, NOW + 160_001),
        (60_000, NOW + 210_000),
    ] {
        let mut clock = WallClock::new(BUILT);
        heard(
            &mut clock,
            at(50_000),
            ClockOf::Native(peer(1)),
            NOW + 100_000,
            true,
        );
        let now = at(100_000 + late);
        let theirs = WallReading {
            ms: told,
            synchronised: true,
        };
        clock.take(now, at(100_000), ClockOf::Native(peer(1)), theirs);
        assert_eq!(clock.own_ms(now, 0), own, "{late} ms late");
    }
}

/// A clock that has taken this server's clock, after all that the machine does at 0.
fn hears(machine: &mut dyn Machine, server: u8, cause: AckCause) -> WallClock {
    while machine.poll(at(0), 0).is_some() {}
    let mut clock = WallClock::new(BUILT);
    let theirs = WallReading {
        ms: NOW,
        synchronised: true,
    };
    clock.heard(at(7), machine, &peer(server), cause, theirs);
    clock
}

#[test]
fn only_an_answer_to_a_beat_brings_a_clock_and_that_of_a_native_counts_for_more() {
    let (native, addrs) = (&peer(1), &Addrs::new());
    let mut node = Box::new(Node::new());
    let terms = Terms {
        lease: MAX_TRIP,
        beat_interval: MAX_TRIP,
    };
    let config = NodeConfig {
        terms,
        connect_interval: MAX_TRIP,
        min_indexers: 1,
    };
    node.start(at(0), peer(9), 1, config);
    node.handle(at(0), Input::NativeLearned { native, addrs });
    assert!(
        !hears(&mut *node, 1, AckCause::Beat).is_trusted(0),
        "only asked"
    );
    let offers = &[Offer {
        peer: peer(2),
        addrs: Addrs::new(),
        ttl: MAX_TRIP,
        free: None,
    }];
    let takes_in = false;
    let answer = Some(IndexersAnswer { offers, takes_in });
    node.handle(at(0), Input::Answered { native, answer });
    assert!(
        !hears(&mut *node, 2, AckCause::Unsolicited).is_trusted(0),
        "unsolicited"
    );
    let borrowed = hears(&mut *node, 2, AckCause::Beat);
    assert!(borrowed.is_trusted(0));
    assert_eq!(borrowed.settled_ms(at(7), 0), None);

    let mut indexer = Box::new(Indexer::<1>::new());
    let gc_interval = MAX_TRIP;
    indexer.start(at(0), peer(9), 1, IndexerConfig { terms, gc_interval });
    indexer.handle(at(0), Input::NativeLearned { native, addrs });
    assert!(
        !hears(&mut *indexer, 1, AckCause::Unsolicited).is_trusted(0),
        "unsolicited"
    );
    let told = hears(&mut *indexer, 1, AckCause::Beat);
    assert_eq!(told.settled_ms(at(7), 0), Some(NOW));
}

#[test]
fn other_servers_do_not_crowd_out_the_natives() {
    let mut clock = WallClock::new(BUILT);
    heard(&mut clock, at(0), ClockOf::Native(peer(1)), NOW, true);
    for n in 2..100 {
        heard(
            &mut clock,
            at(0),
            ClockOf::Other(peer(n)),
            NOW + 3_600_000,
            true,
        );
    }
    assert_eq!(clock.own_ms(at(0), 0), NOW);
}

#[test]
fn absurd_times_do_not_wrap() {
    // A sample is a distance from the monotonic clock, in 63 bits.
    let half = u64::MAX / 2;
    for (now, kept) in [
        (0, false),
        (half, false),
        (half + 1, true),
        (u64::MAX, true),
    ] {
        let mut clock = WallClock::new(u64::MAX);
        heard(
            &mut clock,
            at(now),
            ClockOf::Native(peer(1)),
            u64::MAX,
            true,
        );
        assert_eq!(clock.is_trusted(0), kept, "{now}");
        assert_eq!(clock.own_ms(at(u64::MAX), 0), u64::MAX, "{now}");
        assert_eq!(clock.own_ms(at(u64::MAX), u64::MAX), u64::MAX, "{now}");
    }
}
