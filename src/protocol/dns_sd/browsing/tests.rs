//! When the link is asked, and how long what it told is held.

use super::*;

fn at(millis: u64) -> Instant {
    Instant::from_millis(100_000 + millis)
}

const TTL: Duration = Duration::from_secs(120);
const ALL: [Part; 4] = [Part::Pointer, Part::Service, Part::Text, Part::Address];

fn browsing() -> Browsing {
    Browsing::new(at(0), 1, 1)
}

/// All steps that are due until `end`, with their times.
fn steps(browsing: &mut Browsing, end: Instant) -> std::vec::Vec<(Instant, Step)> {
    let mut steps = std::vec::Vec::new();
    while let Some(due) = browsing.timeout().filter(|due| *due <= end) {
        while let Some(step) = browsing.poll(due) {
            steps.push((due, step));
        }
    }
    steps
}

/// The steps that are about the instance in slot 0.
fn of_instance(browsing: &mut Browsing, end: Instant) -> std::vec::Vec<(Instant, Step)> {
    let mut steps = steps(browsing, end);
    steps.retain(|(_, step)| !matches!(step, Step::Ask(Question::Kind(_))));
    steps
}

fn known() -> Browsing {
    let mut browsing = browsing();
    assert_eq!(browsing.add(at(0)), Some(0));
    for part in ALL {
        browsing.heard(at(0), 0, part, TTL);
    }
    browsing
}

#[test]
fn kind_is_asked_for_after_a_moment_and_then_after_1_2_4_seconds_and_at_most_an_hour() {
    let mut browsing = browsing();
    let first = browsing.timeout().unwrap();
    assert!(first >= at(20) && first <= at(120), "{first:?}");
    let steps = steps(&mut browsing, at(30_000_000));
    let pauses: std::vec::Vec<_> = steps
        .windows(2)
        .map(|two| (two[1].0 - two[0].0).as_secs())
        .collect();
    assert_eq!(pauses[..5], [1, 2, 4, 8, 16]);
    assert_eq!(pauses[11..15], [2048, 3600, 3600, 3600]);
    browsing.restart(at(40_000_000));
    assert!(browsing.timeout().unwrap() <= at(40_000_120));
}

#[test]
fn instance_is_asked_for_until_all_is_known_of_it_three_times_at_most() {
    let mut browsing = browsing();
    browsing.add(at(0));
    browsing.heard(at(0), 0, Part::Pointer, Duration::from_secs(4500));
    let asked = of_instance(&mut browsing, at(100_000));
    assert_eq!(asked.len(), 3);
    assert!(
        asked
            .windows(2)
            .all(|two| two[1].0 - two[0].0 == FIRST_PAUSE)
    );
    // Its next pointer begins anew.
    browsing.heard(at(100_000), 0, Part::Pointer, Duration::from_secs(4500));
    assert_eq!(of_instance(&mut browsing, at(110_000)).len(), 3);
    for part in [Part::Service, Part::Text] {
        browsing.heard(at(110_000), 0, part, TTL);
        assert!(!browsing.is_known(0));
    }
    browsing.heard(at(110_000), 0, Part::Address, TTL);
    assert!(browsing.is_known(0));
    assert!(of_instance(&mut browsing, at(120_000)).is_empty());
}

#[test]
fn what_is_held_is_asked_for_again_four_times_and_is_gone_at_the_end_of_its_time() {
    let mut browsing = known();
    let seen = of_instance(&mut browsing, at(200_000));
    let ask = Step::Ask(Question::Instance(0));
    let expected = [
        (at(96_000), ask),
        (at(102_000), ask),
        (at(108_000), ask),
        (at(114_000), ask),
        (at(120_000), Step::Gone(0)),
    ];
    assert_eq!(seen, expected);
    assert!(!browsing.is_known(0));
    assert_eq!(browsing.stats().used, 0);
}

#[test]
fn what_is_told_again_is_held_for_its_whole_time_again() {
    let mut browsing = known();
    for part in ALL {
        browsing.heard(at(119_999), 0, part, TTL);
    }
    assert!(browsing.is_known(0));
    let seen = of_instance(&mut browsing, at(239_998));
    assert!(
        seen.iter().all(|(_, step)| *step != Step::Gone(0)),
        "{seen:?}"
    );
    assert_eq!(
        of_instance(&mut browsing, at(239_999)),
        [(at(239_999), Step::Gone(0))]
    );
}

#[test]
fn goodbye_of_any_part_ends_it_a_second_later_unless_it_is_told_again() {
    for part in ALL {
        let mut browsing = known();
        browsing.heard(at(50_000), 0, part, Duration::ZERO);
        assert!(of_instance(&mut browsing, at(50_999)).is_empty());
        assert_eq!(
            of_instance(&mut browsing, at(51_000)),
            [(at(51_000), Step::Gone(0))]
        );
        let mut browsing = known();
        browsing.heard(at(50_000), 0, part, Duration::ZERO);
        browsing.heard(at(50_999), 0, part, TTL);
        assert!(of_instance(&mut browsing, at(60_000)).is_empty());
        assert!(browsing.is_known(0));
    }
}

#[test]
fn what_the_asker_need_not_be_told_is_the_rest_of_the_pointers_time() {
    let browsing = known();
    assert_eq!(browsing.rest(at(20_000), 0), Duration::from_secs(100));
    assert_eq!(browsing.rest(at(130_000), 0), Duration::ZERO);
    assert_eq!(browsing.rest(at(0), 1), Duration::ZERO);
}

#[test]
fn sixty_four_instances_are_held_and_the_next_is_counted() {
    let mut browsing = browsing();
    for slot in 0..64 {
        assert_eq!(browsing.add(at(0)), Some(slot));
    }
    assert_eq!(browsing.add(at(0)), None);
    let stats = browsing.stats();
    assert_eq!((stats.used, stats.capacity, stats.refused), (64, 64, 1));
}
