//! What is told of an offer, and when.

use super::*;

fn at(millis: u64) -> Instant {
    Instant::from_millis(100_000 + millis)
}

fn http() -> ServiceName {
    ServiceName::try_from("http").unwrap()
}

fn offer(offers: &mut Offers, base: &str) -> usize {
    offers.offer(at(0), base, &http(), Transport::Tcp).unwrap()
}

/// Everything that is said from the next due time on, until `end`.
fn said(offers: &mut Offers, end: Instant) -> std::vec::Vec<(Instant, Telling)> {
    let mut said = std::vec::Vec::new();
    while let Some(due) = offers.timeout().filter(|due| *due <= end) {
        while let Some((_, telling)) = offers.poll(due) {
            said.push((due, telling));
        }
    }
    said
}

/// One offer, which links were told of, and the time of its last announcement.
fn told() -> (Offers, Instant) {
    let mut offers = Offers::new(1);
    offer(&mut offers, "pump");
    let last = said(&mut offers, at(10_000)).last().unwrap().0;
    (offers, last)
}

fn asker(last: u8, links: LinkSet) -> Asker {
    Asker {
        ip: core::net::Ipv4Addr::new(192, 0, 2, last).into(),
        links,
        wants_unicast: false,
    }
}

const KIND: Asked = Asked::ByKind { more: false };

#[test]
fn name_is_probed_three_times_and_announced_twice_a_second_apart() {
    let mut offers = Offers::new(1);
    let slot = offer(&mut offers, "pump");
    let first = offers.timeout().unwrap();
    assert!(first <= at(250));
    for probe in 0..3 {
        let due = first + PROBE_PAUSE * probe;
        assert_eq!(offers.poll(Instant::from_millis(due.as_millis() - 1)), None);
        assert_eq!(offers.poll(due), Some((slot, Telling::Probe)));
        assert!(!offers.is_told(slot));
    }
    let announced = first + PROBE_PAUSE * 3;
    assert_eq!(offers.timeout(), Some(announced));
    let all = Some((slot, Telling::Records(LinkSet::MAX)));
    assert_eq!(offers.poll(announced), all);
    assert!(offers.is_told(slot));
    assert_eq!(offers.poll(announced + Duration::from_millis(999)), None);
    assert_eq!(offers.poll(announced + PAUSE), all);
    assert_eq!(offers.timeout(), None);
}

#[test]
fn offers_of_one_kind_have_names_of_their_own_and_others_may_share_one() {
    let mut offers = Offers::new(1);
    for expected in ["pump", "pump (2)", "pump (3)"] {
        let slot = offer(&mut offers, "pump");
        assert_eq!(offers.label(slot).unwrap(), expected);
    }
    let slot = offer(&mut offers, "PUMP");
    assert_eq!(offers.label(slot).unwrap(), "PUMP (4)");
    let slot = offers
        .offer(at(0), "pump", &http(), Transport::Udp)
        .unwrap();
    assert_eq!(offers.label(slot).unwrap(), "pump");
    offers.withdraw(1);
    let slot = offer(&mut offers, "pump");
    assert_eq!(offers.label(slot).unwrap(), "pump (2)");
}

#[test]
fn long_name_is_cut_between_letters_so_that_its_number_fits() {
    let long: std::string::String = "\u{e9}".repeat(32);
    let mut offers = Offers::new(1);
    let slot = offer(&mut offers, &long);
    assert_eq!(offers.label(slot).unwrap().len(), 62);
    let slot = offer(&mut offers, &long);
    let label = offers.label(slot).unwrap();
    assert!(
        label.len() <= 63 && label.ends_with("\u{e9} (2)"),
        "{label}"
    );
}

#[test]
fn conflict_while_probing_takes_the_next_name_and_later_probes_for_the_same_first() {
    let (mut offers, last) = told();
    let now = last + Duration::from_secs(60);
    offers.conflict(now, 0);
    assert_eq!(offers.label(0).unwrap(), "pump");
    assert!(!offers.is_told(0));
    offers.conflict(now, 0);
    assert_eq!(offers.label(0).unwrap(), "pump (2)");
    let said = said(&mut offers, now + Duration::from_secs(10));
    let probes = said.iter().filter(|(_, it)| *it == Telling::Probe).count();
    assert_eq!((probes, said.len()), (3, 5));
}

#[test]
fn fifteenth_conflict_in_ten_seconds_makes_the_next_probe_wait_five() {
    let mut offers = Offers::new(1);
    offer(&mut offers, "pump");
    for _ in 0..14 {
        offers.conflict(at(0), 0);
        assert!(offers.timeout().unwrap() <= at(250));
    }
    offers.conflict(at(10_000), 0);
    assert_eq!(offers.timeout(), Some(at(15_000)));
    offers.conflict(at(10_001), 0);
    assert!(offers.timeout().unwrap() <= at(10_251));
}

#[test]
fn loser_of_a_tie_probes_again_after_a_second_under_the_same_name() {
    let mut offers = Offers::new(1);
    offer(&mut offers, "pump");
    let first = offers.timeout().unwrap();
    offers.poll(first);
    offers.lost_tie(first, 0);
    assert_eq!(offers.timeout(), Some(first + TIE_PAUSE));
    assert_eq!(offers.label(0).unwrap(), "pump");
    let (mut told, last) = told();
    told.lost_tie(last, 0);
    assert!(told.is_told(0), "it has the name");
}

#[test]
fn question_for_all_is_answered_after_a_moment_and_one_by_name_at_once_on_its_link_alone() {
    let (mut offers, last) = told();
    let now = last + PAUSE;
    assert!(!offers.asked(now, 0, KIND, &asker(1, 0b100)));
    let due = offers.timeout().unwrap();
    assert!(due >= now + SHARED_DELAY.0 && due <= now + SHARED_DELAY.1);
    assert_eq!(offers.poll(due), Some((0, Telling::Records(0b100))));
    assert_eq!(offers.timeout(), None);
    offers.asked(due, 0, Asked::ByName, &asker(1, 0b1));
    assert_eq!(offers.poll(due), Some((0, Telling::Records(0b1))));
}

#[test]
fn link_hears_an_offer_once_a_second_and_a_probe_is_answered_after_a_quarter() {
    let (mut offers, last) = told();
    offers.asked(last, 0, Asked::ByName, &asker(1, 1));
    assert_eq!(offers.timeout(), Some(last + PAUSE));
    offers.asked(last, 0, Asked::Probe, &asker(1, 1));
    assert_eq!(offers.timeout(), Some(last + DEFENCE_PAUSE));
    let (mut offers, last) = told();
    let mut answers = std::vec::Vec::new();
    for passed in 0..10_000 {
        let now = last + Duration::from_millis(passed);
        offers.asked(now, 0, KIND, &asker(1, 1));
        if offers.poll(now).is_some() {
            answers.push(passed);
        }
    }
    assert!((8..=9).contains(&answers.len()), "{answers:?}");
    assert!(answers.windows(2).all(|two| two[1] - two[0] >= 1_000));
}

#[test]
fn what_the_one_asker_knows_is_not_answered_and_what_a_second_wants_is() {
    let (mut offers, last) = told();
    let now = last + PAUSE;
    offers.asked(now, 0, Asked::ByKind { more: true }, &asker(1, 1));
    let due = offers.timeout().unwrap();
    assert!(due >= now + MORE_DELAY.0 && due <= now + MORE_DELAY.1);
    offers.known(0, &asker(2, 1));
    assert_eq!(offers.timeout(), Some(due), "another device knows it");
    offers.known(0, &asker(1, 1));
    assert_eq!(offers.timeout(), None);
    for who in [1, 2] {
        offers.asked(now, 0, KIND, &asker(who, 1));
    }
    for who in [1, 2] {
        offers.known(0, &asker(who, 1));
    }
    assert!(offers.timeout().is_some());
}

#[test]
fn unicast_is_enough_only_while_the_link_heard_the_offer_within_half_a_minute() {
    let (mut offers, last) = told();
    let wants = Asker {
        wants_unicast: true,
        ..asker(1, 1)
    };
    let before = last + (RECENT - Duration::from_millis(1));
    assert!(offers.asked(before, 0, KIND, &wants));
    assert_eq!(offers.timeout(), None);
    assert!(!offers.asked(last + RECENT, 0, KIND, &wants));
    assert!(offers.timeout().is_some());
}

#[test]
fn offer_that_is_still_probed_for_is_not_answered_and_needs_no_goodbye() {
    let mut offers = Offers::new(1);
    let slot = offer(&mut offers, "pump");
    let due = offers.timeout();
    assert!(!offers.asked(at(0), slot, Asked::ByName, &asker(1, 1)));
    offers.changed(at(0), slot);
    assert_eq!(offers.timeout(), due);
    assert!(!offers.withdraw(slot));
    let (mut told, _) = told();
    assert!(told.withdraw(0));
    assert!(!told.withdraw(0));
    assert_eq!(told.stats().used, 0);
}

#[test]
fn offer_that_is_probed_for_again_needs_a_goodbye_until_its_name_is_another() {
    let (mut restarted, last) = told();
    restarted.restart(last);
    assert!(!restarted.is_told(0));
    assert!(restarted.withdraw(0));
    let (mut offers, last) = told();
    offers.conflict(last, 0);
    assert!(offers.clone().withdraw(0));
    offers.conflict(last, 0);
    assert_eq!(offers.label(0).unwrap(), "pump (2)");
    assert!(!offers.withdraw(0));
}

#[test]
fn change_is_announced_twice_but_not_within_a_second_of_the_last_word() {
    let (mut offers, last) = told();
    offers.changed(last, 0);
    assert_eq!(offers.timeout(), Some(last + PAUSE));
    assert_eq!(said(&mut offers, last + PAUSE * 10).len(), 2);
    let later = last + PAUSE * 20;
    offers.changed(later, 0);
    assert_eq!(offers.timeout(), Some(later));
}

#[test]
fn other_links_have_all_names_probed_for_again() {
    let (mut offers, last) = told();
    offers.restart(last);
    let said = said(&mut offers, last + PAUSE * 10);
    assert_eq!(said.len(), 5);
    assert_eq!(said[0].1, Telling::Probe);
}

#[test]
fn there_are_64_places_and_what_finds_none_is_counted() {
    let mut offers = Offers::new(1);
    for _ in 0..64 {
        offer(&mut offers, "pump");
    }
    assert_eq!(offers.label(63).unwrap(), "pump (64)");
    assert_eq!(offers.offer(at(0), "fan", &http(), Transport::Tcp), None);
    let stats = offers.stats();
    assert_eq!((stats.used, stats.capacity, stats.refused), (64, 64, 1));
}

#[test]
fn addresses_are_those_on_the_link_or_else_those_that_may_be_routed() {
    let ips = |texts: &[&str]| -> std::vec::Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    let net = |ip: &str, prefix| Subnet {
        ip: ip.parse().unwrap(),
        prefix,
    };
    let link = [net("192.168.1.1", 24)];
    let bridges = [net("172.17.0.1", 16)];
    let on = |addrs: &[&str], link: &[Subnet]| -> std::vec::Vec<IpAddr> {
        reachable(&ips(addrs), link, &bridges, false).collect()
    };
    let far = [
        "10.0.0.7",
        "172.17.0.2",
        "127.0.0.1",
        "169.254.1.1",
        "fe80::1",
        "::1",
        "0.0.0.0",
        "2001:db8::1",
    ];
    assert_eq!(on(&far, &link), ips(&["10.0.0.7"]));
    let both = [net("192.168.1.1", 24), net("2001:db8:1::1", 64)];
    assert_eq!(on(&far, &both), ips(&["10.0.0.7", "2001:db8::1"]));
    assert_eq!(
        on(&["10.0.0.7", "192.168.1.9"], &link),
        ips(&["192.168.1.9"])
    );
    assert!(on(&far, &[]).is_empty());
    let of_device = |addrs: &[&str]| reachable(&ips(addrs), &link, &bridges, true).count();
    assert_eq!(of_device(&["10.0.0.7"]), 1);
    assert_eq!(
        of_device(&["10.0.0.7", "192.168.1.9"]),
        0,
        "the link has it"
    );
}
