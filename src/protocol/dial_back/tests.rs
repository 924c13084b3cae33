mod asking;
mod servers;

use core::net::{Ipv4Addr, Ipv6Addr};

use super::*;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

/// Different hosts for different numbers.
fn host(n: u8) -> Host {
    Host::V4(Ipv4Addr::new(203, 0, 113, n))
}

fn asked(peer_no: u8, host_no: u8) -> Asked {
    Asked {
        peer: peer(peer_no),
        host: Some(host(host_no)),
        port: 4821,
        is_own_host: false,
    }
}

const MEANS: Means = Means {
    is_local: false,
    has_slot: true,
};

/// Asks, and has the dial end at once.
fn admit(server: &mut Server, now: u64, asked: &Asked) -> Result<TransportAddr, Refusal> {
    let admitted = server.admit(at(now), asked, MEANS);
    if let Ok(TransportAddr { host, .. }) = admitted {
        server.ended(at(now), host, Verdict::Reachable);
    }
    admitted
}

/// The same with a dial that does not reach the peer.
fn miss(server: &mut Server, now: u64, asked: &Asked) -> Result<(), Refusal> {
    let TransportAddr { host, .. } = server.admit(at(now), asked, MEANS)?;
    server.ended(at(now), host, Verdict::Silent);
    Ok(())
}

#[test]
fn a_peer_is_dialled_at_the_host_it_asks_from_and_the_port_it_asks_for() {
    let mut server = Server::default();
    let (host, port) = (host(7), 4821);
    assert_eq!(
        admit(&mut server, 0, &asked(1, 7)),
        Ok(TransportAddr { host, port })
    );
}

#[test]
fn one_peer_is_dialled_every_ten_seconds_and_no_sooner_from_wherever_it_asks() {
    let mut server = Server::default();
    assert!(admit(&mut server, 1_000, &asked(1, 1)).is_ok());
    for now in [1_000, 10_999] {
        let again = admit(&mut server, now, &asked(1, 2));
        assert_eq!(again, Err(Refusal::TooSoon), "{now}");
    }
    assert!(admit(&mut server, 11_000, &asked(1, 1)).is_ok());
}

#[test]
fn one_host_has_four_dials_within_ten_seconds_and_others_have_theirs() {
    let mut server = Server::default();
    for n in 0..4 {
        assert!(admit(&mut server, u64::from(n), &asked(n, 1)).is_ok());
    }
    let fifth = |server: &mut Server, now| admit(server, now, &asked(9, 1));
    assert_eq!(fifth(&mut server, 4), Err(Refusal::TooSoon));
    assert!(admit(&mut server, 4, &asked(10, 2)).is_ok());
    assert_eq!(fifth(&mut server, 9_999), Err(Refusal::TooSoon));
    assert!(fifth(&mut server, 10_000).is_ok());
}

#[test]
fn a_network_of_64_bits_has_the_dials_of_one_host() {
    let mut server = Server::default();
    let asked = |n: u8, net: u128| Asked {
        host: Some(Host::V6(Ipv6Addr::from_bits(net << 64 | u128::from(n)))),
        ..asked(n, 1)
    };
    for n in 0..4 {
        assert!(admit(&mut server, 0, &asked(n, 0x2001_0db8_0000_0001)).is_ok());
    }
    let fifth = admit(&mut server, 0, &asked(4, 0x2001_0db8_0000_0001));
    assert_eq!(fifth, Err(Refusal::TooSoon));
    assert!(admit(&mut server, 0, &asked(4, 0x2001_0db8_0000_0002)).is_ok());
}

#[test]
fn a_host_that_was_not_reached_four_times_is_not_dialled_until_ten_minutes_after_the_first() {
    let mut server = Server::default();
    for n in 0..4 {
        let now = 1_000 + 20_000 * u64::from(n);
        assert_eq!(miss(&mut server, now, &asked(n, 1)), Ok(()), "{n}");
    }
    let fifth = |server: &mut Server, now| admit(server, now, &asked(9, 1));
    for now in [100_000, 600_999] {
        assert_eq!(fifth(&mut server, now), Err(Refusal::Missed), "{now}");
        assert!(admit(&mut server, now, &asked(10, 2)).is_ok());
    }
    assert!(fifth(&mut server, 601_000).is_ok());
}

#[test]
fn hosts_that_were_not_reached_are_counted_for_ten_minutes_and_those_that_gave_way() {
    let mut server = Server::default();
    let state = |server: &Server, now| {
        let [_, misses] = server.stats(at(now));
        assert_eq!((misses.name, misses.capacity), ("missed_hosts", 32));
        (misses.used, misses.evicted)
    };
    for n in 0..32 {
        assert_eq!(
            miss(&mut server, 2_000 * u64::from(n), &asked(n, n)),
            Ok(())
        );
    }
    assert_eq!(state(&server, 62_000), (32, 0));
    assert_eq!(miss(&mut server, 64_000, &asked(32, 32)), Ok(()));
    assert_eq!(state(&server, 64_000), (32, 1));
    // The host of the first miss has given way.
    assert_eq!(state(&server, 601_999), (32, 1));
    assert_eq!(state(&server, 602_000), (31, 1));
}

#[test]
fn a_host_that_is_reached_in_between_has_no_more_misses() {
    let mut server = Server::default();
    for n in 0..8 {
        let now = 20_000 * u64::from(n);
        let done = match n % 2 {
            0 => admit(&mut server, now, &asked(n, 1)).map(|_| ()),
            _ => miss(&mut server, now, &asked(n, 1)),
        };
        assert_eq!(done, Ok(()), "{n}");
    }
    assert_eq!(
        miss(&mut server, 200_000, &asked(9, 1)),
        Err(Refusal::Missed)
    );
}

#[test]
fn misses_of_other_hosts_do_not_displace_those_of_one_that_has_too_many() {
    let mut server = Server::default();
    for n in 0..4 {
        assert_eq!(miss(&mut server, 10_000, &asked(n, 1)), Ok(()));
    }
    for n in 0..60 {
        let now = 20_000 + 1_000 * u64::from(n);
        assert_eq!(
            miss(&mut server, now, &asked(n + 10, n + 10)),
            Ok(()),
            "{n}"
        );
    }
    assert_eq!(
        miss(&mut server, 100_000, &asked(9, 1)),
        Err(Refusal::Missed)
    );
}

#[test]
fn only_a_requester_that_announces_the_address_is_told_why() {
    assert_eq!(told("connection refused", true), "connection refused");
    let others = ["connection refused", "no answer within 3 s"].map(|why| told(why, false));
    assert_eq!(others[0], others[1]);
}

#[test]
fn four_dials_are_under_way_at_a_time() {
    let mut server = Server::default();
    for n in 0..4 {
        assert!(server.admit(at(0), &asked(n, n), MEANS).is_ok());
    }
    assert_eq!(server.stats(at(0))[0].used, 4);
    let fifth = asked(4, 4);
    assert_eq!(server.admit(at(0), &fifth, MEANS), Err(Refusal::Busy));
    assert_eq!(server.stats(at(0))[0].refused, 1);
    server.ended(at(0), host(0), Verdict::Reachable);
    assert!(server.admit(at(0), &fifth, MEANS).is_ok());
}

#[test]
fn eight_dials_begin_at_once_and_then_one_a_second() {
    let mut server = Server::default();
    for n in 0..8 {
        assert!(admit(&mut server, 1_000, &asked(n, n)).is_ok(), "{n}");
    }
    let ninth = asked(8, 8);
    assert_eq!(admit(&mut server, 1_999, &ninth), Err(Refusal::Busy));
    assert!(admit(&mut server, 2_000, &ninth).is_ok());
    assert_eq!(admit(&mut server, 2_000, &asked(9, 9)), Err(Refusal::Busy));
}

/// With a new identity and a new host for each request, as often as there is a millisecond.
#[test]
fn whatever_is_asked_no_more_dials_begin_than_the_bucket_allows() {
    let mut server = Server::default();
    let mut begun = 0;
    for now in 0..60_000u32 {
        let [a, b, ..] = now.to_le_bytes();
        let asked = Asked {
            peer: PeerId::from_bytes([a.wrapping_add(b.wrapping_mul(7)); 32]),
            host: Some(Host::V4(now.into())).filter(|host| !host.is_of_its_own_host()),
            ..asked(0, 0)
        };
        begun += usize::from(admit(&mut server, now.into(), &asked).is_ok());
    }
    // 8 at once, and one a second.
    assert_eq!(begun, 8 + 59);
}

#[test]
fn a_port_is_dialled_from_1024_on() {
    let mut server = Server::default();
    for (port, allowed) in [(1, false), (1023, false), (1024, true), (65535, true)] {
        let asked = Asked {
            port,
            ..asked((port % 251) as u8, 1)
        };
        let admitted = admit(&mut server, 0, &asked);
        assert_eq!(admitted.is_ok(), allowed, "{port}");
        assert!(allowed || admitted == Err(Refusal::Port));
    }
}

#[test]
fn no_name_no_link_and_no_unknown_host_is_dialled() {
    let mut server = Server::default();
    let link_local = Host::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
    for host in [
        None,
        Some(Host::Name(7)),
        Some(link_local),
        Some(Host::V4(Ipv4Addr::UNSPECIFIED)),
        Some(Host::V4(Ipv4Addr::new(224, 0, 0, 1))),
    ] {
        let asked = Asked {
            host,
            ..asked(1, 1)
        };
        assert_eq!(
            admit(&mut server, 0, &asked),
            Err(Refusal::Host),
            "{host:?}"
        );
    }
}

#[test]
fn own_host_is_dialled_only_by_a_server_that_serves_this_host_alone() {
    let local = Asked {
        host: Some(Host::V4(Ipv4Addr::LOCALHOST)),
        is_own_host: true,
        ..asked(1, 1)
    };
    let mut server = Server::default();
    assert_eq!(admit(&mut server, 0, &local), Err(Refusal::OwnHost));
    let means = Means {
        is_local: true,
        ..MEANS
    };
    assert!(server.admit(at(0), &local, means).is_ok());
}

#[test]
fn no_dial_begins_without_a_free_connection_and_the_peer_may_ask_again_at_once() {
    let mut server = Server::default();
    let means = Means {
        has_slot: false,
        ..MEANS
    };
    let refused = server.admit(at(0), &asked(1, 1), means);
    assert_eq!(refused, Err(Refusal::NoSlot));
    assert!(admit(&mut server, 0, &asked(1, 1)).is_ok());
}

#[test]
fn each_reason_fits_the_answer() {
    for refusal in [
        Refusal::Port,
        Refusal::Host,
        Refusal::OwnHost,
        Refusal::TooSoon,
        Refusal::Missed,
        Refusal::Busy,
        Refusal::NoSlot,
        Refusal::Never,
    ] {
        let answer = DialedBack::from(refusal);
        assert_eq!(answer.reason, refusal.reason());
        assert_eq!(answer.finding, Finding::Cannot);
    }
}

#[test]
fn no_counts_only_about_the_port_asked_for_and_an_address_that_may_be_meant() {
    let addr = |last: u8, port: u8| Addr::from_slice(&[4, 203, 0, 113, last, 6, 16, port]).unwrap();
    let mine = addr(1, 1);
    let is_meant =
        |dialled: &Addr, are_given| is_meant(dialled, Some(4097), [mine.as_slice()], are_given);
    for (dialled, found, given) in [
        (addr(1, 1), true, true),
        (addr(2, 1), true, false),
        (addr(1, 2), false, false),
        (Addr::new(), false, false),
    ] {
        assert_eq!(is_meant(&dialled, false), found, "{dialled:?}");
        assert_eq!(is_meant(&dialled, true), given, "{dialled:?}");
    }
    let v6 = [
        41, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 6, 16, 1,
    ];
    assert!(!is_meant(&Addr::from_slice(&v6).unwrap(), false));
}
