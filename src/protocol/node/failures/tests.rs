//! Tests at the bounds: how long each key pauses, and what may be dialled.

use super::*;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

/// 10.0.`net`.`host`, port `port`.
fn addr(net: u8, host: u8, port: u8) -> Addrs {
    let bytes = [4, 10, 0, net, host, 6, 0, port];
    [Addr::from_iter(bytes)].into_iter().collect()
}

/// Where a connection leads to this address, as a lease reports it.
fn carried_by(addrs: &Addrs) -> Option<TransportAddr> {
    addrs.first().map(|addr| TransportAddr::of(addr))
}

fn begun(failures: &mut Failures, now: u64, addrs: &Addrs) {
    failures.begin(at(now), addrs, &mut Rng::new(now));
}

/// An attempt of the peer at this address that fails at once.
fn noted(failures: &mut Failures, now: u64, n: u8, addrs: &Addrs) {
    begun(failures, now, addrs);
    failures.note(at(now), &peer(n), &mut Rng::new(now));
}

#[test]
fn an_id_rests_for_10_s_and_then_for_ever_longer_up_to_160_s() {
    let mut failures = Failures::new();
    let mut now = 0;
    for longest in [10_000, 20_000, 40_000, 80_000, 160_000, 160_000] {
        // At a new address each time.
        let new = addr(1, (now / 1000 % 250) as u8, 1);
        noted(&mut failures, now, 1, &new);
        let ready = failures.peers.rests_until((&peer(1)).into()).as_millis();
        let pause = ready - now;
        assert!((longest..=longest * 5 / 4).contains(&pause), "{pause}");
        assert_eq!(longest == 10_000, pause == 10_000, "the first is exact");
        now = ready;
    }
}

#[test]
fn one_port_is_tried_five_times_in_20_s_however_many_ids_are_said_to_be_there() {
    let (mut failures, mut tried) = (Failures::new(), std::vec::Vec::new());
    let port = addr(1, 1, 80);
    for now in 0..600_000u64 {
        let n = (tried.len() % 250) as u8;
        if failures.rested(at(now), &port).is_empty() {
            continue;
        }
        noted(&mut failures, now, n, &port);
        tried.push(now);
    }
    let within = |end| tried.iter().filter(|&&when| when < end).count();
    assert_eq!(within(20_000), 5, "{tried:?}");
    assert!(within(60_000) <= 7, "{tried:?}");
    assert!(within(600_000) <= 11, "{tried:?}");
}

#[test]
fn a_prefix_rests_for_a_second_from_its_sixteenth_try_on() {
    let mut failures = Failures::new();
    for n in 1..=15 {
        begun(&mut failures, 0, &addr(1, n, 1));
    }
    let fresh = addr(1, 200, 1);
    assert_eq!(failures.ready_at(&peer(200), &fresh), at(0));
    begun(&mut failures, 0, &addr(1, 16, 1));
    assert_eq!(failures.ready_at(&peer(200), &fresh), at(1_000));
    assert_eq!(failures.ready_at(&peer(200), &addr(2, 200, 1)), at(0));
    begun(&mut failures, 5_000, &addr(1, 17, 1));
    assert_eq!(failures.ready_at(&peer(200), &fresh), at(6_000));
    // A server in the prefix that grants leases does not let its neighbours be tried more often.
    failures.forget(&peer(1), carried_by(&addr(1, 1, 1)));
    assert_eq!(failures.ready_at(&peer(200), &fresh), at(6_000));
}

#[test]
fn of_several_addresses_those_that_rest_are_not_dialled() {
    let mut failures = Failures::new();
    noted(&mut failures, 0, 1, &addr(1, 1, 1));
    let mut both = addr(1, 1, 1);
    both.extend(addr(2, 2, 2));
    assert_eq!(failures.ready_at(&peer(9), &both), at(0));
    assert_eq!(failures.rested(at(999), &both), addr(2, 2, 2));
    assert_eq!(failures.rested(at(1_000), &both), both);
}

#[test]
fn a_reserved_place_shortens_the_pause_of_an_id_to_10_s_after_the_last_failure() {
    let mut failures = Failures::new();
    for n in 0..4 {
        noted(&mut failures, 0, 1, &addr(n, 1, 1));
    }
    failures.forgive(&peer(1));
    assert_eq!(failures.ready_at(&peer(1), &addr(9, 1, 1)), at(10_000));
}

#[test]
fn a_lease_that_was_renewed_clears_the_failures() {
    let mut failures = Failures::new();
    noted(&mut failures, 0, 1, &addr(1, 1, 1));
    failures.forget(&peer(1), carried_by(&addr(1, 1, 1)));
    assert_eq!(failures.of(&peer(1)), 0);
    assert_eq!(failures.ready_at(&peer(1), &addr(1, 1, 1)), at(0));
}

#[test]
fn failures_begin_anew_after_ten_quiet_minutes() {
    for (later, count) in [(599_999, 2), (600_000, 1)] {
        let mut failures = Failures::new();
        noted(&mut failures, 0, 1, &addr(1, 1, 1));
        noted(&mut failures, later, 1, &addr(1, 1, 1));
        assert_eq!(failures.of(&peer(1)), count);
    }
}

#[test]
fn a_lease_clears_the_address_that_carried_it_and_no_other() {
    let mut failures = Failures::new();
    let mut both = addr(1, 1, 1);
    both.extend(addr(2, 2, 2));
    noted(&mut failures, 0, 1, &both);
    failures.forget(&peer(1), None);
    assert_eq!(failures.of(&peer(1)), 0);
    assert_eq!(failures.rested(at(999), &both), Addrs::new());
    failures.forget(&peer(1), carried_by(&addr(1, 1, 1)));
    assert_eq!(failures.rested(at(999), &both), addr(1, 1, 1));
}

#[test]
fn a_lease_is_reopened_where_it_was_carried_and_elsewhere_when_the_rest_is_over() {
    let (mut failures, rng) = (Failures::new(), &mut Rng::new(1));
    let own = addr(1, 1, 1);
    let mut both = own.clone();
    both.extend(addr(2, 2, 2));
    let carried = carried_by(&own);
    // The first reopening is at 0. The second pause is 2 s to 2.5 s long.
    for (now, dialled) in [
        (0, &both),
        (0, &own),
        (999, &own),
        (1_000, &both),
        (2_999, &own),
        (3_500, &both),
    ] {
        let at = at(now);
        assert_eq!(failures.reopen(at, &both, carried, rng), *dialled, "{now}");
    }
    assert_eq!(failures.rested(at(3_500), &own), own, "it does not count");
}

#[test]
fn a_lease_whose_carrier_is_not_known_is_reopened_as_tries_are_begun() {
    let (mut failures, rng) = (Failures::new(), &mut Rng::new(1));
    let one = addr(1, 1, 1);
    for carried in [None, carried_by(&addr(1, 1, 2)), carried_by(&addr(1, 2, 1))] {
        failures.clear();
        assert_eq!(failures.reopen(at(0), &one, carried, rng), one);
        assert_eq!(failures.reopen(at(999), &one, carried, rng), Addrs::new());
        assert_eq!(failures.reopen(at(1_000), &one, carried, rng), one);
    }
}

#[test]
fn a_name_that_carried_a_lease_counts_all_the_same() {
    let (mut failures, rng) = (Failures::new(), &mut Rng::new(1));
    let name: Addrs = [Addr::from_iter(*b"\x36\x01a\x06\x00\x50")]
        .into_iter()
        .collect();
    let carried = carried_by(&name);
    assert!(matches!(carried.unwrap().host, Host::Name(_)));
    assert_eq!(failures.reopen(at(0), &name, carried, rng), name);
    failures.forget(&peer(1), carried);
    assert_eq!(failures.reopen(at(999), &name, carried, rng), Addrs::new());
    assert_eq!(failures.reopen(at(1_000), &name, carried, rng), name);
}

#[test]
fn of_too_many_ids_the_one_that_rests_least_long_is_forgotten() {
    let mut failures = Failures::new();
    let id = |n: u16| {
        let [high, low] = n.to_be_bytes();
        PeerId::from_bytes(core::array::from_fn(|at| [high, low][at % 2]))
    };
    for n in 0..=256 {
        failures.note(at(n.into()), &id(n), &mut Rng::new(1));
    }
    let forgotten = (0..=256).filter(|n| failures.of(&id(*n)) == 0);
    assert_eq!(forgotten.collect::<std::vec::Vec<_>>(), [0]);
}

/// Attempts at a new address in a new prefix each time, as fast as the bucket allows.
fn flood(failures: &mut Failures, from: u64, until: u64) {
    for now in (from..until).step_by(500) {
        let four = (0..4u64).map(|n| {
            let bytes = (4 * now + n).to_be_bytes();
            Addr::from_iter([4, 11, bytes[5], bytes[6], bytes[7], 6, 0, 1])
        });
        failures.begin(at(now), &four.collect(), &mut Rng::new(now));
    }
}

#[test]
fn no_flood_of_other_addresses_makes_a_node_try_one_port_more_often() {
    let (mut failures, victim) = (Failures::new(), addr(1, 1, 80));
    let mut tried = std::vec::Vec::new();
    for now in (0..600_000u64).step_by(500) {
        flood(&mut failures, now, now + 500);
        if !failures.rested(at(now), &victim).is_empty() {
            begun(&mut failures, now, &victim);
            tried.push(now);
        }
    }
    let within = |end| tried.iter().filter(|&&when| when < end).count();
    assert!((2..=5).contains(&within(20_000)), "{tried:?}");
    assert!(within(60_000) <= 7, "{tried:?}");
    assert!(within(600_000) <= 11, "{tried:?}");
    assert!(
        failures
            .stats()
            .iter()
            .skip(1)
            .all(|table| table.evicted > 257)
    );
}

#[test]
fn no_flood_of_other_prefixes_gives_a_prefix_16_tries_again() {
    let mut failures = Failures::new();
    let mut tries = 0;
    let mut now = 0;
    while now < 300_000 {
        let fresh = addr(9, (tries % 250) as u8, (tries / 250) as u8);
        if !failures.rested(at(now), &fresh).is_empty() {
            begun(&mut failures, now, &fresh);
            tries += 1;
        }
        flood(&mut failures, now, now + 500);
        now += 500;
    }
    assert!((16..=16 + 300).contains(&tries), "{tries}");
}

#[test]
fn after_a_flood_a_new_address_is_tried_within_the_longest_pause() {
    let mut failures = Failures::new();
    flood(&mut failures, 0, 900_000);
    let ready = failures.ready_at(&peer(1), &addr(1, 1, 80));
    assert!(ready - at(900_000) <= Duration::from_secs(256) * 5 / 4);
    // After a quiet time the count starts again.
    begun(&mut failures, 1_500_000, &addr(1, 1, 80));
    let key = TransportAddr::of(&addr(1, 1, 80)[0]).into();
    assert_eq!(failures.tried_addrs.tries(key), 1);
}
