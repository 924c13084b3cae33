//! What is sent of an advert, and when.

use super::*;

fn at(millis: u64) -> Instant {
    Instant::from_millis(100_000 + millis)
}

fn http() -> ServiceName {
    ServiceName::try_from("http").unwrap()
}

fn advertise(adverts: &mut Adverts, base: &str) -> usize {
    adverts
        .advertise(at(0), base, &http(), Transport::Tcp)
        .unwrap()
}

/// Everything that is sent from the next due time on, until `end`.
fn said(adverts: &mut Adverts, end: Instant) -> std::vec::Vec<(Instant, Transmission)> {
    let mut said = std::vec::Vec::new();
    while let Some(due) = adverts.timeout().filter(|due| *due <= end) {
        while let Some((_, transmission)) = adverts.poll(due) {
            said.push((due, transmission));
        }
    }
    said
}

/// One advert that was announced, and the time of its last announcement.
fn announced() -> (Adverts, Instant) {
    let mut adverts = Adverts::new(1);
    advertise(&mut adverts, "pump");
    let last = said(&mut adverts, at(10_000)).last().unwrap().0;
    (adverts, last)
}

fn asker(last: u8, links: LinkSet) -> Asker {
    Asker {
        ip: core::net::Ipv4Addr::new(192, 0, 2, last).into(),
        links,
        wants_unicast: false,
    }
}

const KIND: QuestionKind = QuestionKind::Shared { truncated: false };

#[test]
fn name_is_probed_three_times_and_announced_twice_a_second_apart() {
    let mut adverts = Adverts::new(1);
    let slot = advertise(&mut adverts, "pump");
    let first = adverts.timeout().unwrap();
    assert!(first <= at(250));
    for probe in 0..3 {
        let due = first + PROBE_PAUSE * probe;
        assert_eq!(
            adverts.poll(Instant::from_millis(due.as_millis() - 1)),
            None
        );
        assert_eq!(adverts.poll(due), Some((slot, Transmission::Probe)));
        assert!(!adverts.is_announced(slot));
    }
    let announced = first + PROBE_PAUSE * 3;
    assert_eq!(adverts.timeout(), Some(announced));
    let all = Some((slot, Transmission::Records(LinkSet::MAX)));
    assert_eq!(adverts.poll(announced), all);
    assert!(adverts.is_announced(slot));
    assert_eq!(adverts.poll(announced + Duration::from_millis(999)), None);
    assert_eq!(adverts.poll(announced + PAUSE), all);
    assert_eq!(adverts.timeout(), None);
}

#[test]
fn offers_of_one_kind_have_names_of_their_own_and_others_may_share_one() {
    let mut adverts = Adverts::new(1);
    for expected in ["pump", "pump (2)", "pump (3)"] {
        let slot = advertise(&mut adverts, "pump");
        assert_eq!(adverts.label(slot).unwrap(), expected);
    }
    let slot = advertise(&mut adverts, "PUMP");
    assert_eq!(adverts.label(slot).unwrap(), "PUMP (4)");
    let slot = adverts
        .advertise(at(0), "pump", &http(), Transport::Udp)
        .unwrap();
    assert_eq!(adverts.label(slot).unwrap(), "pump");
    adverts.withdraw(1);
    let slot = advertise(&mut adverts, "pump");
    assert_eq!(adverts.label(slot).unwrap(), "pump (2)");
}

#[test]
fn long_name_is_cut_between_letters_so_that_its_number_fits() {
    let long: std::string::String = "\u{e9}".repeat(32);
    let mut adverts = Adverts::new(1);
    let slot = advertise(&mut adverts, &long);
    assert_eq!(adverts.label(slot).unwrap().len(), 62);
    let slot = advertise(&mut adverts, &long);
    let label = adverts.label(slot).unwrap();
    assert!(
        label.len() <= 63 && label.ends_with("\u{e9} (2)"),
        "{label}"
    );
}

#[test]
fn conflict_while_probing_takes_the_next_name_and_later_probes_for_the_same_first() {
    let (mut adverts, last) = announced();
    let now = last + Duration::from_secs(60);
    adverts.conflict(now, 0);
    assert_eq!(adverts.label(0).unwrap(), "pump");
    assert!(!adverts.is_announced(0));
    adverts.conflict(now, 0);
    assert_eq!(adverts.label(0).unwrap(), "pump (2)");
    let said = said(&mut adverts, now + Duration::from_secs(10));
    let probes = said
        .iter()
        .filter(|(_, it)| *it == Transmission::Probe)
        .count();
    assert_eq!((probes, said.len()), (3, 5));
}

#[test]
fn fifteenth_conflict_in_ten_seconds_makes_the_next_probe_wait_five() {
    let mut adverts = Adverts::new(1);
    advertise(&mut adverts, "pump");
    for _ in 0..14 {
        adverts.conflict(at(0), 0);
        assert!(adverts.timeout().unwrap() <= at(250));
    }
    adverts.conflict(at(10_000), 0);
    assert_eq!(adverts.timeout(), Some(at(15_000)));
    adverts.conflict(at(10_001), 0);
    assert!(adverts.timeout().unwrap() <= at(10_251));
}

#[test]
fn loser_of_a_tie_probes_again_after_a_second_under_the_same_name() {
    let mut adverts = Adverts::new(1);
    advertise(&mut adverts, "pump");
    let first = adverts.timeout().unwrap();
    adverts.poll(first);
    adverts.lost_tie(first, 0);
    assert_eq!(adverts.timeout(), Some(first + TIE_PAUSE));
    assert_eq!(adverts.label(0).unwrap(), "pump");
    let (mut adverts, last) = announced();
    adverts.lost_tie(last, 0);
    assert!(adverts.is_announced(0), "it has the name");
}

#[test]
fn question_for_all_is_answered_after_a_moment_and_one_by_name_at_once_on_its_link_alone() {
    let (mut adverts, last) = announced();
    let now = last + PAUSE;
    assert!(!adverts.asked(now, 0, KIND, &asker(1, 0b100)));
    let due = adverts.timeout().unwrap();
    assert!(due >= now + SHARED_DELAY.0 && due <= now + SHARED_DELAY.1);
    assert_eq!(adverts.poll(due), Some((0, Transmission::Records(0b100))));
    assert_eq!(adverts.timeout(), None);
    adverts.asked(due, 0, QuestionKind::Unique, &asker(1, 0b1));
    assert_eq!(adverts.poll(due), Some((0, Transmission::Records(0b1))));
}

#[test]
fn link_hears_an_offer_once_a_second_and_a_probe_is_answered_after_a_quarter() {
    let (mut adverts, last) = announced();
    adverts.asked(last, 0, QuestionKind::Unique, &asker(1, 1));
    assert_eq!(adverts.timeout(), Some(last + PAUSE));
    adverts.asked(last, 0, QuestionKind::Probe, &asker(1, 1));
    assert_eq!(adverts.timeout(), Some(last + DEFENCE_PAUSE));
    let (mut adverts, last) = announced();
    let mut answers = std::vec::Vec::new();
    for passed in 0..10_000 {
        let now = last + Duration::from_millis(passed);
        adverts.asked(now, 0, KIND, &asker(1, 1));
        if adverts.poll(now).is_some() {
            answers.push(passed);
        }
    }
    assert!((8..=9).contains(&answers.len()), "{answers:?}");
    assert!(answers.windows(2).all(|two| two[1] - two[0] >= 1_000));
}

#[test]
fn what_the_one_asker_knows_is_not_answered_and_what_a_second_wants_is() {
    let (mut adverts, last) = announced();
    let now = last + PAUSE;
    adverts.asked(
        now,
        0,
        QuestionKind::Shared { truncated: true },
        &asker(1, 1),
    );
    let due = adverts.timeout().unwrap();
    assert!(due >= now + MORE_DELAY.0 && due <= now + MORE_DELAY.1);
    adverts.known(0, &asker(2, 1));
    assert_eq!(adverts.timeout(), Some(due), "another device knows it");
    adverts.known(0, &asker(1, 1));
    assert_eq!(adverts.timeout(), None);
    for who in [1, 2] {
        adverts.asked(now, 0, KIND, &asker(who, 1));
    }
    for who in [1, 2] {
        adverts.known(0, &asker(who, 1));
    }
    assert!(adverts.timeout().is_some());
}

#[test]
fn unicast_is_enough_only_while_the_link_heard_the_offer_within_half_a_minute() {
    let (mut adverts, last) = announced();
    let wants = Asker {
        wants_unicast: true,
        ..asker(1, 1)
    };
    let before = last + (RECENT - Duration::from_millis(1));
    assert!(adverts.asked(before, 0, KIND, &wants));
    assert_eq!(adverts.timeout(), None);
    assert!(!adverts.asked(last + RECENT, 0, KIND, &wants));
    assert!(adverts.timeout().is_some());
}

#[test]
fn offer_that_is_still_probed_for_is_not_answered_and_needs_no_goodbye() {
    let mut adverts = Adverts::new(1);
    let slot = advertise(&mut adverts, "pump");
    let due = adverts.timeout();
    assert!(!adverts.asked(at(0), slot, QuestionKind::Unique, &asker(1, 1)));
    adverts.changed(at(0), slot);
    assert_eq!(adverts.timeout(), due);
    assert!(!adverts.withdraw(slot));
    let (mut adverts, _) = announced();
    assert!(adverts.withdraw(0));
    assert!(!adverts.withdraw(0));
    assert_eq!(adverts.stats().used, 0);
}

#[test]
fn offer_that_is_probed_for_again_needs_a_goodbye_until_its_name_is_another() {
    let (mut restarted, last) = announced();
    restarted.restart(last);
    assert!(!restarted.is_announced(0));
    assert!(restarted.withdraw(0));
    let (mut adverts, last) = announced();
    adverts.conflict(last, 0);
    assert!(adverts.clone().withdraw(0));
    adverts.conflict(last, 0);
    assert_eq!(adverts.label(0).unwrap(), "pump (2)");
    assert!(!adverts.withdraw(0));
}

#[test]
fn change_is_announced_twice_but_not_within_a_second_of_the_last_word() {
    let (mut adverts, last) = announced();
    adverts.changed(last, 0);
    assert_eq!(adverts.timeout(), Some(last + PAUSE));
    assert_eq!(said(&mut adverts, last + PAUSE * 10).len(), 2);
    let later = last + PAUSE * 20;
    adverts.changed(later, 0);
    assert_eq!(adverts.timeout(), Some(later));
}

#[test]
fn other_links_have_all_names_probed_for_again() {
    let (mut adverts, last) = announced();
    adverts.restart(last);
    let said = said(&mut adverts, last + PAUSE * 10);
    assert_eq!(said.len(), 5);
    assert_eq!(said[0].1, Transmission::Probe);
}

#[test]
fn there_are_64_places_and_what_finds_none_is_counted() {
    let mut adverts = Adverts::new(1);
    for _ in 0..64 {
        advertise(&mut adverts, "pump");
    }
    assert_eq!(adverts.label(63).unwrap(), "pump (64)");
    assert_eq!(
        adverts.advertise(at(0), "fan", &http(), Transport::Tcp),
        None
    );
    let stats = adverts.stats();
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
