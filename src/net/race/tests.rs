//! Races with scripted attempts.

use std::{cell::RefCell, future::pending, rc::Rc};

use super::*;
use crate::net::executor::{waits::block_on, within};

/// The deadline of each test.
const DEADLINE: Duration = Duration::from_secs(20);

fn nowhere() -> Vec<Subnet> {
    Vec::new()
}

fn at_home() -> Vec<Subnet> {
    let subnet = |ip: &str, prefix| Subnet {
        ip: ip.parse().unwrap(),
        prefix,
    };
    vec![subnet("192.168.77.9", 24), subnet("2001:db8::9", 64)]
}

fn addr(n: u8) -> Multiaddr {
    format!("/ip4/10.0.0.{n}/tcp/1").parse().unwrap()
}

#[derive(Clone, Copy)]
enum Does {
    Answers,
    Fails,
    Nothing,
}

/// When each attempt started, in the order of starting.
type Started = Rc<RefCell<Vec<(usize, Instant)>>>;

/// Runs a race of attempts. Returns how it ended, and when each attempt started.
fn run(
    subnets: Subnets,
    attempts: &[(Multiaddr, Does)],
) -> (Option<Result<usize, usize>>, Started) {
    let started = Started::default();
    let all = attempts.iter().enumerate().map(|(number, (addr, does))| {
        let (started, does) = (started.clone(), *does);
        let attempt = async move {
            started.borrow_mut().push((number, Instant::now()));
            match does {
                Does::Answers => Ok(number),
                Does::Fails => Err(number),
                Does::Nothing => pending().await,
            }
        };
        (addr.clone(), attempt)
    });
    let outcome = block_on(within(DEADLINE, race(subnets, all)));
    (outcome.expect("it does not end"), started)
}

fn order(started: &Started) -> Vec<usize> {
    started.borrow().iter().map(|(number, _)| *number).collect()
}

#[test]
fn the_next_attempt_starts_after_250_ms_of_silence_and_the_first_answer_wins() {
    let (outcome, started) = run(
        nowhere,
        &[
            (addr(1), Does::Nothing),
            (addr(2), Does::Nothing),
            (addr(3), Does::Answers),
            (addr(4), Does::Answers),
        ],
    );
    assert_eq!(outcome, Some(Ok(2)));
    assert_eq!(order(&started), [0, 1, 2], "the last is not needed");
    let started = started.borrow();
    for pair in started.windows(2) {
        assert!(pair[1].1 - pair[0].1 >= STAGGER);
    }
}

#[test]
fn a_failed_attempt_starts_the_next_at_once() {
    let begun = Instant::now();
    let mut attempts: Vec<_> = (0..60).map(|n| (addr(n), Does::Fails)).collect();
    attempts.push((addr(60), Does::Answers));
    let (outcome, started) = run(nowhere, &attempts);
    assert_eq!(outcome, Some(Ok(60)));
    assert!(started.borrow().iter().map(|(n, _)| *n).eq(0..=60));
    // With pauses it would be 15 s.
    assert!(begun.elapsed() < 10 * STAGGER);
}

#[test]
fn a_failure_shortens_the_pause_of_the_one_that_waits() {
    let (outcome, started) = run(
        nowhere,
        &[
            (addr(1), Does::Nothing),
            (addr(2), Does::Fails),
            (addr(3), Does::Answers),
        ],
    );
    assert_eq!(outcome, Some(Ok(2)));
    let started = started.borrow();
    assert!(started[1].1 - started[0].1 >= STAGGER);
    assert!(started[2].1 - started[1].1 < STAGGER);
}

#[test]
fn when_all_fail_the_last_error_is_told_and_without_an_attempt_nothing() {
    let both = [(addr(1), Does::Fails), (addr(2), Does::Fails)];
    assert_eq!(run(nowhere, &both).0, Some(Err(1)));
    assert_eq!(run(nowhere, &[]).0, None);
}

#[test]
fn addresses_in_an_own_subnet_come_first_and_the_others_as_given() {
    let text = [
        "/ip4/172.17.0.1/tcp/1",
        "/ip4/192.168.78.1/tcp/1",
        "/dns4/example.com/tcp/1",
        "/ip6/2001:db8::1/tcp/1",
        "/ip6/2001:db8:0:1::1/tcp/1",
        "/ip4/192.168.77.1/tcp/1",
    ];
    let attempts: Vec<_> = text
        .iter()
        .map(|text| (text.parse().unwrap(), Does::Fails))
        .collect();
    let (_, started) = run(at_home, &attempts);
    assert_eq!(order(&started), [3, 5, 0, 1, 2, 4]);
}

#[test]
fn a_bridge_of_software_is_an_own_subnet_only_if_there_is_no_other() {
    let address = |ip: &str, is_virtual| Address {
        ip: ip.parse().unwrap(),
        prefix: 24,
        link: Default::default(),
        is_virtual,
        passing: false,
    };
    let own = |addresses: &[Address]| -> Vec<String> {
        let own = subnets(addresses);
        own.iter().map(|own| own.ip.to_string()).collect()
    };
    let (lo, docker) = (address("127.0.0.1", false), address("172.17.0.1", true));
    let eth = address("192.168.77.9", false);
    let all = [lo.clone(), docker.clone(), eth];
    assert_eq!(own(&all), ["127.0.0.1", "192.168.77.9"]);
    assert_eq!(own(&[lo, docker]), ["127.0.0.1", "172.17.0.1"]);
}

fn starts(entry: &Entry) -> bool {
    // As if the stagger were over.
    entry.race.state().next = None;
    let mut cx = Context::from_waker(Waker::noop());
    entry.poll_turn(&mut None, &mut cx).is_ready()
}

#[test]
fn the_attempts_under_way_are_bounded() {
    let race = Race::new(nowhere);
    let mut entries: Vec<_> = (0..MAX_AT_ONCE as u8 + 1)
        .map(|n| race.enter(&addr(n)).unwrap())
        .collect();
    assert!(!starts(&entries[1]), "it is not its turn");
    for entry in &entries[..MAX_AT_ONCE] {
        assert!(starts(entry));
    }
    assert!(!starts(&entries[MAX_AT_ONCE]));
    entries.remove(0);
    assert!(starts(&entries[MAX_AT_ONCE - 1]));
}

#[test]
fn a_race_that_has_begun_takes_no_more_and_no_address_twice() {
    let race = Race::new(nowhere);
    let first = race.enter(&addr(1)).unwrap();
    assert!(race.enter(&addr(1)).is_none());
    let second = race.enter(&addr(2)).unwrap();
    assert!(starts(&first));
    assert!(race.enter(&addr(3)).is_none());
    assert!(starts(&second));
}

#[test]
fn a_second_dial_to_a_peer_goes_on_when_the_first_has_ended() {
    let mut racing = Racing::new((), nowhere, Refusals::default());
    let peer = PeerId::random();
    let mut enter = |n| racing.enter(peer, &addr(n)).unwrap();
    // One dial has more addresses than may be under way, and starts as many as may.
    let first: Vec<_> = (0..20).map(&mut enter).collect();
    let second: Vec<_> = (20..22).map(&mut enter).collect();
    for entry in &first[..MAX_AT_ONCE] {
        assert!(starts(entry));
    }
    assert!(!starts(&second[0]));
    drop(first);
    assert!(!starts(&second[1]), "it is not its turn");
    assert!(starts(&second[0]) && starts(&second[1]));
}

#[test]
fn an_attempt_that_is_dropped_before_it_was_polled_has_left() {
    let race = Race::new(nowhere);
    let entries = [1, 2].map(|n| race.enter(&addr(n)).unwrap());
    let [first, second] = entries.map(|entry| entry.run(pending::<Result<(), ()>>()));
    drop(first);
    let mut second = std::pin::pin!(second);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(second.as_mut().poll(&mut cx).is_pending());
    assert_eq!(race.state().running, 1);
}

#[test]
fn an_attempt_that_waits_is_woken_when_the_one_before_it_leaves() {
    let race = Race::new(nowhere);
    let [first, second] = [1, 2].map(|n| race.enter(&addr(n)).unwrap());
    let leaves = async move {
        drop(first);
        pending::<()>().await;
    };
    let second = second.run(async { Ok::<_, ()>(()) });
    let both = futures_util::future::select(Box::pin(second), Box::pin(leaves));
    assert!(block_on(within(DEADLINE, both)).is_some());
}
