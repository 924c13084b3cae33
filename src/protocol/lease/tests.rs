//! Leases at the bounds of their times.

use super::{pace::MIN_OPEN_TIMEOUT, *};
use crate::protocol::{Addr, lease_table::is_stale};

const S: Duration = Duration::from_secs(1);
const TERMS: Terms = Terms {
    lease: Duration::from_secs(90),
    beat_interval: Duration::from_secs(30),
};

const BEAT: Step = Step::Beat { fresh: false };
const FRESH: Step = Step::Beat { fresh: true };

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn opening() -> (Lease, Rng) {
    let mut rng = Rng::new(11);
    let mut lease = Lease::new(
        at(0),
        PeerId::from_bytes([1; 32]),
        Role::Indexer,
        Addrs::new(),
        90 * S,
    );
    assert_eq!(lease.poll(at(0), &mut rng), Some(BEAT));
    (lease, rng)
}

fn held() -> (Lease, Rng) {
    let (mut lease, mut rng) = opening();
    lease.acked(at(100), &Ack::accepted(90 * S), &TERMS, &mut rng);
    (lease, rng)
}

#[test]
fn a_lease_is_counted_from_when_its_beat_was_sent() {
    let (lease, _) = held();
    assert_eq!(lease.expiry(at(90_000)), Some(at(90_000)));
    assert_eq!(lease.expiry(at(90_001)), None);
}

#[test]
fn beats_come_at_80_to_95_percent_of_a_third_of_the_lease() {
    let mut rng = Rng::new(5);
    for _ in 0..1000 {
        let pause = beat_after(90 * S, 30 * S, &mut rng);
        assert!(pause >= 24 * S && pause <= ms(28_500), "{pause:?}");
        assert!(beat_after(6 * S, 30 * S, &mut rng) <= ms(1_900));
    }
}

#[test]
fn a_lost_beat_survives_the_second_condition_of_the_gc() {
    let mut rng = Rng::new(6);
    for _ in 0..1000 {
        let last = at(0);
        let lost = last + beat_after(90 * S, 30 * S, &mut rng);
        let next = lost + beat_after(90 * S, 30 * S, &mut rng);
        assert!(!is_stale(next, last, last + 90 * S), "{next:?}");
    }
}

/// A lease of this length with a beat that waits for its ack. Returns when the beat was sent, and
/// the lease.
fn waiting(granted: Duration) -> (Instant, Lease, Rng) {
    let (mut lease, mut rng) = opening();
    lease.acked(at(0), &Ack::accepted(granted), &TERMS, &mut rng);
    let beat = lease.timeout();
    assert_eq!(lease.poll(beat, &mut rng), Some(BEAT));
    (beat, lease, rng)
}

#[test]
fn a_late_ack_makes_the_next_beat_fresh_at_once_after_10_s_or_a_sixth_of_the_lease() {
    for (granted, late) in [
        (90 * S, 10_000),
        (60 * S, 10_000),
        (54 * S, 9_000),
        (6 * S, 1_000),
    ] {
        let (beat, mut lease, mut rng) = waiting(granted);
        assert_eq!(lease.poll(beat + ms(late - 1), &mut rng), None);
        assert_eq!(lease.poll(beat + ms(late), &mut rng), Some(FRESH));
        assert_eq!(lease.poll(beat + ms(late), &mut rng), None);
        assert_eq!(
            lease.farewell(),
            Some(Farewell::LastBeat),
            "the silent stream stays meanwhile"
        );
        assert!(!lease.is_secure(beat + ms(late)));
    }
}

#[test]
fn a_new_stream_has_a_third_of_the_lease_or_5_s_and_never_less_than_1200_ms() {
    for (granted, most) in [
        (90 * S, 5_000),
        (15 * S, 5_000),
        (12 * S, 4_000),
        (6 * S, 2_000),
        (S, 1_200),
    ] {
        let (beat, mut lease, mut rng) = waiting(granted);
        let late = lease.timeout();
        assert_eq!(lease.poll(late, &mut rng), Some(FRESH));
        assert_eq!(lease.poll(late + ms(most - 1), &mut rng), None);
        assert_eq!(lease.poll(late + ms(most), &mut rng), Some(Step::Drop));
        let pause = lease.timeout() - (late + ms(most));
        assert!(pause <= granted / 6 && pause <= 10 * S, "{pause:?}");
        assert!(beat < late);
    }
}

#[test]
fn every_new_stream_is_fresh_until_an_ack_has_come() {
    let (_, mut lease, mut rng) = waiting(90 * S);
    for _ in 0..4 {
        assert_eq!(lease.poll(lease.timeout(), &mut rng), Some(FRESH));
        lease.closed(lease.timeout(), &mut rng);
    }
    let now = lease.timeout();
    assert_eq!(lease.poll(now, &mut rng), Some(FRESH));
    lease.acked(now, &Ack::accepted(90 * S), &TERMS, &mut rng);
    lease.closed(now, &mut rng);
    assert_eq!(lease.poll(lease.timeout(), &mut rng), Some(BEAT));
}

#[test]
fn a_first_stream_that_is_silent_is_followed_by_a_fresh_one() {
    let (mut lease, mut rng) = opening();
    assert_eq!(lease.poll(at(4_999), &mut rng), None);
    assert_eq!(lease.poll(at(5_000), &mut rng), Some(Step::Drop));
    assert_eq!(lease.poll(lease.timeout(), &mut rng), Some(FRESH));
}

#[test]
fn an_ack_while_the_connection_is_replaced_counts_from_the_earlier_of_both_beats() {
    let (beat, mut lease, mut rng) = waiting(90 * S);
    let late = lease.timeout();
    lease.poll(late, &mut rng);
    lease.acked(late + ms(1), &Ack::accepted(90 * S), &TERMS, &mut rng);
    assert_eq!(lease.expiry(late), Some(beat + 90 * S));
    assert!(lease.is_secure(late));
}

#[test]
fn pauses_grow_up_to_a_sixth_of_the_lease_or_10_s() {
    for (granted, longest) in [
        (90 * S, 10 * S),
        (60 * S, 10 * S),
        (30 * S, 5 * S),
        (6 * S, S),
    ] {
        let (_, mut lease, mut rng) = waiting(granted);
        let mut seen = Duration::ZERO;
        for _ in 0..500 {
            lease.poll(lease.timeout(), &mut rng);
            let now = lease.timeout();
            lease.closed(now, &mut rng);
            seen = seen.max(lease.timeout() - now);
        }
        assert!(seen <= longest && seen > longest * 9 / 10, "{seen:?}");
    }
}

#[test]
fn what_rests_starts_at_once_and_fresh_when_the_network_changes() {
    let (mut lease, mut rng) = opening();
    lease.closed(at(100), &mut rng);
    let before = lease.timeout();
    assert!(before > at(100));
    lease.network_changed(at(100));
    assert_eq!(lease.poll(at(100), &mut rng), Some(FRESH));
}

#[test]
fn a_beat_in_flight_is_sent_again_when_the_network_changes_unless_it_is_younger_than_250_ms() {
    let (beat, lease, mut rng) = waiting(90 * S);
    let mut young = lease.clone();
    young.network_changed(beat + ms(249));
    assert_eq!(young, lease);
    let mut older = lease.clone();
    older.network_changed(beat + ms(250));
    assert_eq!(older.poll(beat + ms(250), &mut rng), Some(FRESH));
    older.network_changed(beat + ms(499));
    assert_eq!(older.poll(beat + ms(499), &mut rng), None);
    older.network_changed(beat + ms(500));
    assert_eq!(older.poll(beat + ms(500), &mut rng), Some(Step::Drop));
    assert_eq!(older.poll(beat + ms(500), &mut rng), Some(FRESH));
    older.acked(beat + ms(510), &Ack::accepted(90 * S), &TERMS, &mut rng);
    assert_eq!(
        older.expiry(beat),
        Some(beat + ms(90_500)),
        "the first beat is gone"
    );
}

#[test]
fn a_quiet_lease_is_left_alone_when_the_network_changes() {
    let (lease, _) = held();
    let mut changed = lease.clone();
    changed.network_changed(at(10_000));
    assert_eq!(changed, lease);
}

#[test]
fn a_server_that_has_moved_is_tried_at_once_where_it_is_now() {
    let moved = Addrs::from_slice(&[Addr::from_slice(b"b").unwrap()]).unwrap();
    let (_, mut lease, mut rng) = waiting(90 * S);
    let late = lease.timeout();
    lease.learn_addrs(late, &Addrs::new());
    assert_eq!(lease.poll(late, &mut rng), Some(FRESH));
    lease.learn_addrs(late + ms(5), &Addrs::new());
    assert_eq!(lease.poll(late + ms(5), &mut rng), None, "it has not moved");
    lease.learn_addrs(late + ms(5), &moved);
    assert_eq!(lease.poll(late + ms(5), &mut rng), Some(FRESH));
    assert_eq!(lease.addrs(), &moved);

    let (mut opening, mut rng) = opening();
    opening.learn_addrs(at(5), &moved);
    assert_eq!(opening.poll(at(5), &mut rng), Some(Step::Drop));
    assert_eq!(opening.poll(at(5), &mut rng), Some(FRESH));
    opening.closed(at(6), &mut rng);
    opening.learn_addrs(at(6), &Addrs::new());
    assert_eq!(opening.poll(at(6), &mut rng), Some(FRESH));
}

#[test]
fn what_was_granted_is_believed_and_no_longer() {
    for millis in [1, 999, 1_000, 1_001] {
        let (mut lease, mut rng) = opening();
        lease.acked(at(1), &Ack::accepted(ms(millis)), &TERMS, &mut rng);
        assert_eq!(lease.expiry(at(millis)), Some(at(millis)));
        assert_eq!(lease.expiry(at(millis + 1)), None);
        assert!(lease.timeout() >= at(1 + 266), "{:?}", lease.timeout());
    }
}

#[test]
fn a_lease_of_0_ms_is_none() {
    let (mut lease, mut rng) = opening();
    lease.acked(at(1), &Ack::accepted(Duration::ZERO), &TERMS, &mut rng);
    assert_eq!(lease.expiry(at(1)), None);
    assert!(lease.is_resting() && lease.failures() == 1);
    assert_eq!(lease.poll(at(1), &mut rng), Some(Step::Drop));
    assert_eq!(lease.poll(at(1), &mut rng), None);
}

#[test]
fn a_lost_stream_is_reopened_at_once_and_then_with_backoff() {
    let (mut lease, mut rng) = held();
    lease.closed(at(1_000), &mut rng);
    assert_eq!(lease.timeout(), at(1_000));
    assert!(!lease.is_secure(at(1_000)));
    assert_eq!(lease.poll(at(1_000), &mut rng), Some(BEAT));
    lease.closed(at(1_001), &mut rng);
    assert!(lease.timeout() <= at(2_001));
    assert_eq!(lease.failures(), 2);
}

#[test]
fn a_server_that_accepts_and_hangs_up_is_met_with_backoff() {
    let (mut lease, mut rng) = held();
    for round in 1..=8u8 {
        lease.closed(lease.timeout(), &mut rng);
        assert_eq!(lease.failures(), round);
        let now = lease.timeout();
        lease.poll(now, &mut rng);
        lease.acked(now, &Ack::accepted(90 * S), &TERMS, &mut rng);
    }
}

#[test]
fn a_release_lets_the_lease_run_on_and_renews_nothing() {
    let (mut lease, mut rng) = held();
    let expiry = lease.expiry(at(200));
    lease.notified(&Ack::released(80 * S, Default::default()));
    assert!(lease.is_released() && lease.is_secure(at(200)));
    assert_eq!(lease.expiry(at(200)), expiry);
    let beat = lease.timeout();
    lease.poll(beat, &mut rng);
    lease.acked(
        beat,
        &Ack::released(50 * S, Default::default()),
        &TERMS,
        &mut rng,
    );
    assert_eq!(lease.expiry(beat), expiry);
}

#[test]
fn a_release_that_crosses_a_beat_does_not_answer_it() {
    let (mut lease, mut rng) = held();
    let beat = lease.timeout();
    lease.poll(beat, &mut rng);
    let due = lease.timeout();
    lease.notified(&Ack::released(60 * S, Default::default()));
    assert!(lease.is_released());
    assert_eq!(lease.timeout(), due, "the beat in flight still waits");
    lease.acked(beat + ms(100), &Ack::accepted(90 * S), &TERMS, &mut rng);
    assert!(!lease.is_released(), "taken in again");
    assert_eq!(lease.expiry(beat), Some(beat + 90 * S));
}

#[test]
fn only_a_release_comes_unasked() {
    let (lease, _) = held();
    for ack in [Ack::accepted(1200 * S), Ack::full("no"), Ack::refused("no")] {
        let mut notified = lease.clone();
        notified.notified(&ack);
        assert_eq!(notified, lease);
    }
}

#[test]
fn an_ack_that_nobody_waits_for_changes_nothing() {
    let (mut lease, mut rng) = held();
    let before = lease.clone();
    lease.acked(at(300), &Ack::accepted(1200 * S), &TERMS, &mut rng);
    lease.acked(at(300), &Ack::refused("no"), &TERMS, &mut rng);
    assert_eq!(lease, before);
}

#[test]
fn a_lease_that_the_server_ended_drops_its_stream_once_and_counts_one_failure() {
    let (mut lease, mut rng) = opening();
    lease.acked(at(10), &Ack::full("no room"), &TERMS, &mut rng);
    assert_eq!(
        (lease.farewell(), lease.failures()),
        (Some(Farewell::Drop), 1)
    );
    assert_eq!(lease.poll(at(10), &mut rng), Some(Step::Drop));
    assert_eq!(lease.poll(at(10), &mut rng), None);
    lease.closed(at(11), &mut rng);
    assert_eq!((lease.farewell(), lease.failures()), (None, 1));
}

#[test]
fn full_and_refused_end_the_lease() {
    for ack in [Ack::full("no room"), Ack::refused("no")] {
        let (mut lease, mut rng) = held();
        let beat = lease.timeout();
        lease.poll(beat, &mut rng);
        lease.acked(beat, &ack, &TERMS, &mut rng);
        assert_eq!(lease.expiry(beat), None);
        assert!(lease.is_resting());
    }
}

#[test]
fn the_record_goes_with_the_first_beat_and_again_when_it_changed() {
    let (mut lease, mut rng) = opening();
    assert!(lease.wants_record(1));
    assert!(!lease.wants_record(1));
    assert!(lease.wants_record(2));
    lease.closed(at(1), &mut rng);
    let now = lease.timeout();
    lease.poll(now, &mut rng);
    assert!(lease.wants_record(2), "a new stream begins anew");
}

#[test]
fn a_hurried_beat_goes_at_once_or_as_soon_as_the_one_in_flight_is_answered() {
    let (mut lease, mut rng) = held();
    lease.hurry(at(200));
    assert_eq!(lease.poll(at(200), &mut rng), Some(BEAT));
    lease.hurry(at(250));
    assert_eq!(lease.poll(at(250), &mut rng), None, "one beat is in flight");
    lease.acked(at(300), &Ack::accepted(90 * S), &TERMS, &mut rng);
    assert_eq!(lease.poll(at(300), &mut rng), Some(BEAT));
    lease.acked(at(400), &Ack::accepted(90 * S), &TERMS, &mut rng);
    assert!(lease.timeout() >= at(24_400), "and only once");
}

#[test]
fn a_lease_held_is_never_extended_by_waiting() {
    let (mut lease, mut rng) = held();
    lease.closed(at(89_000), &mut rng);
    assert_eq!(lease.expiry(at(90_001)), None);
}

/// A lease with a connection that becomes silent. New connections are possible from `healed` on.
/// Returns when the first ack came after that, and when the first missing ack was late.
fn outage(lease: Duration, healed: Instant, seed: u64) -> (Instant, Instant) {
    let terms = Terms {
        lease,
        beat_interval: lease / 3,
    };
    let mut rng = Rng::new(seed);
    let server = PeerId::from_bytes([1; 32]);
    let mut held = Lease::new(at(0), server, Role::Native, Addrs::new(), lease);
    held.poll(at(0), &mut rng);
    held.acked(at(5), &Ack::accepted(lease), &terms, &mut rng);
    let (mut first_late, mut answer) = (None, None);
    loop {
        let due = held.timeout();
        match answer.filter(|answer| *answer <= due) {
            Some(now) => {
                held.acked(now, &Ack::accepted(lease), &terms, &mut rng);
                return (now, first_late.unwrap_or(now));
            }
            None => match held.poll(due, &mut rng) {
                Some(Step::Beat { fresh }) => {
                    if fresh {
                        first_late.get_or_insert(due);
                    }
                    // Its dialling takes as long as is allowed; earlier attempts are lost.
                    let takes = MIN_OPEN_TIMEOUT - ms(1);
                    answer = (fresh && due >= healed).then(|| due + takes);
                }
                Some(Step::Drop) => answer = None,
                None => {}
            },
        }
    }
}

#[test]
fn a_beat_is_answered_within_the_longest_outage_after_the_network_has_healed() {
    for lease in [S, 3 * S, 6 * S, 30 * S, 90 * S, 1200 * S] {
        let terms = Terms {
            lease,
            beat_interval: lease / 3,
        };
        let mut longest = Duration::ZERO;
        for seed in 0..2_000 {
            let healed = at(seed * lease.as_millis() as u64 / 200);
            let (answered, late) = outage(lease, healed, seed);
            let took = answered - healed.max(late);
            assert!(
                took <= terms.longest_outage(),
                "{lease:?}, {seed}: {took:?}"
            );
            longest = longest.max(took);
        }
        // The bound is not too loose.
        assert!(
            longest > terms.longest_outage() / 2,
            "{lease:?}: {longest:?}"
        );
    }
}

#[test]
fn a_server_of_which_nothing_is_known_has_its_patience_until_it_has_granted_a_lease() {
    let mut rng = Rng::new(11);
    let server = PeerId::from_bytes([1; 32]);
    let lease = Lease::new(at(0), server, Role::Indexer, Addrs::new(), 90 * S);
    let mut lease = lease.with_patience(2 * S);
    lease.poll(at(0), &mut rng);
    assert_eq!(lease.timeout(), at(2_000));
    let mut granted = lease.clone();
    granted.acked(at(100), &Ack::accepted(90 * S), &TERMS, &mut rng);
    granted.closed(at(200), &mut rng);
    granted.poll(at(200), &mut rng);
    assert_eq!(granted.timeout(), at(200) + OPEN_TIMEOUT);
    assert!(!lease.is_proven() && !granted.is_proven());
}

#[test]
fn a_server_that_refused_is_left_alone_for_a_minute_whatever_changes() {
    let (mut lease, mut rng) = opening();
    lease.acked(at(10), &Ack::refused("no"), &TERMS, &mut rng);
    assert_eq!(lease.poll(at(10), &mut rng), Some(Step::Drop));
    assert!(!lease.network_changed(at(20)), "nothing starts");
    let elsewhere: Addrs = [Addr::from_slice(b"new").unwrap()].into_iter().collect();
    lease.learn_addrs(at(30), &elsewhere);
    lease.closed(at(40), &mut rng);
    assert_eq!(lease.timeout(), at(60_010));
    assert_eq!(lease.poll(at(60_009), &mut rng), None);
    assert!(matches!(
        lease.poll(at(60_010), &mut rng),
        Some(Step::Beat { .. })
    ));
    lease.acked(at(60_020), &Ack::accepted(90 * S), &TERMS, &mut rng);
    assert_eq!(lease.refused(), None);
}

#[test]
fn a_server_that_is_full_is_tried_again_within_the_backoff() {
    let (mut lease, mut rng) = opening();
    lease.acked(at(10), &Ack::full("no room"), &TERMS, &mut rng);
    lease.poll(at(10), &mut rng);
    assert!(lease.timeout() < at(1_000));
    assert!(lease.network_changed(at(20)));
    assert_eq!(lease.timeout(), at(20));
}
