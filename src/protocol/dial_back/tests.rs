use core::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::protocol::Role;

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
fn admit(server: &mut Server, now: u64, asked: &Asked) -> Result<Endpoint, Refusal> {
    let admitted = server.admit(at(now), asked, MEANS);
    if admitted.is_ok() {
        server.ended();
    }
    admitted
}

#[test]
fn a_peer_is_dialled_at_the_host_it_asks_from_and_the_port_it_asks_for() {
    let mut server = Server::default();
    let (host, port) = (host(7), 4821);
    assert_eq!(
        admit(&mut server, 0, &asked(1, 7)),
        Ok(Endpoint { host, port })
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
fn four_dials_are_under_way_at_a_time() {
    let mut server = Server::default();
    for n in 0..4 {
        assert!(server.admit(at(0), &asked(n, n), MEANS).is_ok());
    }
    assert_eq!(server.stats().used, 4);
    let fifth = asked(4, 4);
    assert_eq!(server.admit(at(0), &fifth, MEANS), Err(Refusal::Busy));
    assert_eq!(server.stats().refused, 1);
    server.ended();
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
        Refusal::Busy,
        Refusal::NoSlot,
        Refusal::Never,
    ] {
        let answer = DialedBack::from(refusal);
        assert_eq!(answer.reason, refusal.reason());
        assert_eq!(answer.finding, Finding::Cannot);
    }
}

/// A client of an indexer, which is due at 3 s.
fn client() -> Client {
    Client::new(at(0), Role::Indexer, 1)
}

fn hears(client: &mut Client, now: u64, heard: Heard) -> bool {
    client.heard(at(now), heard, Reason::new(), Addr::new())
}

/// The milliseconds until it polls again.
fn left(client: &Client, now: u64) -> u64 {
    (client.timeout() - at(now)).as_millis() as u64
}

#[test]
fn a_server_is_asked_three_seconds_after_the_last_change() {
    let mut client = client();
    assert_eq!(client.poll(at(2_999), &[peer(1)]), None);
    client.changed(at(2_999));
    assert_eq!(client.poll(at(5_998), &[peer(1)]), None);
    assert_eq!(client.timeout(), at(5_999));
    assert_eq!(client.poll(at(5_999), &[peer(1)]), Some(peer(1)));
}

#[test]
fn nodes_that_start_together_ask_within_a_minute_and_not_together() {
    let due = |seed| left(&Client::new(at(0), Role::Node, seed), 0);
    let mut all: std::vec::Vec<u64> = (0..100).map(due).collect();
    all.sort();
    assert!(all[0] >= 3_000 && all[99] <= 63_000);
    assert!(all[99] - all[0] > 50_000, "{all:?}");
}

#[test]
fn one_server_is_asked_at_a_time_and_the_next_one_if_it_cannot_tell() {
    let mut client = client();
    let servers = [peer(1), peer(2)];
    assert_eq!(client.poll(at(3_000), &servers), Some(peer(1)));
    assert!(client.is_asking());
    assert_eq!(client.poll(at(3_001), &servers), None);
    assert!(!hears(&mut client, 3_002, Heard::Cannot));
    assert_eq!(client.silent().unwrap().0, peer(1));
    assert_eq!(client.poll(at(3_002), &servers), Some(peer(2)));
    assert!(hears(&mut client, 3_003, Heard::Reached));
    let answer = client.answer().unwrap();
    assert_eq!((answer.by, answer.is_reached), (peer(2), true));
    assert_eq!(client.silent(), None);
}

#[test]
fn a_server_that_never_answers_is_given_up_after_twelve_seconds() {
    let mut client = client();
    let servers = [peer(1), peer(2)];
    client.poll(at(3_000), &servers);
    assert_eq!(client.poll(at(14_999), &servers), None);
    assert_eq!(client.poll(at(15_000), &servers), Some(peer(2)));
}

#[test]
fn no_is_asked_about_again_after_five_minutes_at_the_next_server() {
    let mut client = client();
    let servers = [peer(1), peer(2)];
    client.poll(at(3_000), &servers);
    assert!(hears(&mut client, 4_000, Heard::Not));
    assert_eq!(client.poll(at(303_999), &servers), None);
    assert_eq!(client.poll(at(304_000), &servers), Some(peer(2)));
    assert!(!hears(&mut client, 304_001, Heard::Not), "it is no news");
    client.poll(at(604_001), &servers);
    assert!(hears(&mut client, 604_002, Heard::Reached));
    assert_eq!(client.answer().unwrap().by, peer(1));
}

#[test]
fn yes_is_asked_about_again_within_the_hour_at_the_same_server() {
    let mut client = client();
    let servers = [peer(1), peer(2)];
    client.poll(at(3_000), &servers);
    hears(&mut client, 3_000, Heard::Cannot);
    client.poll(at(3_000), &servers);
    hears(&mut client, 4_000, Heard::Reached);
    let wait = left(&client, 4_000);
    assert!((54 * 60_000..=60 * 60_000).contains(&wait), "{wait}");
    let due = 4_000 + wait;
    assert_eq!(client.poll(at(due - 1), &servers), None);
    assert_eq!(client.poll(at(due), &servers), Some(peer(2)));
}

#[test]
fn a_node_asks_hourly_whatever_the_answer() {
    let mut client = Client::new(at(0), Role::Node, 1);
    client.poll(at(100_000), &[peer(1)]);
    assert!(hears(&mut client, 100_000, Heard::Not));
    let wait = left(&client, 100_000);
    assert!((54 * 60_000..=60 * 60_000).contains(&wait), "{wait}");
}

#[test]
fn servers_that_cannot_tell_are_asked_again_in_ten_seconds_and_then_in_five_minutes() {
    let mut client = client();
    let mut now = 3_000;
    for wait in [10_000, 300_000, 300_000] {
        assert_eq!(client.poll(at(now - 1), &[peer(1)]), None);
        assert_eq!(client.poll(at(now), &[peer(1)]), Some(peer(1)));
        hears(&mut client, now, Heard::Cannot);
        assert_eq!(client.poll(at(now), &[peer(1)]), None);
        assert_eq!(client.answer(), None, "it is unknown, and never no");
        assert_eq!(left(&client, now), wait);
        now += wait;
    }
}

#[test]
fn servers_of_an_earlier_version_are_asked_again_within_the_hour() {
    let mut client = client();
    client.poll(at(3_000), &[peer(1)]);
    hears(&mut client, 3_000, Heard::Unsupported);
    assert_eq!(client.poll(at(3_000), &[peer(1)]), None);
    let wait = left(&client, 3_000);
    assert!((54 * 60_000..=60 * 60_000).contains(&wait), "{wait}");
    assert_eq!(client.answer(), None, "it is unknown, and never no");
    assert_eq!(client.poll(at(3_000 + wait), &[peer(1)]), Some(peer(1)));
}

#[test]
fn change_within_ten_seconds_of_a_question_waits_until_servers_dial_again() {
    let mut client = client();
    client.poll(at(3_000), &[peer(1)]);
    hears(&mut client, 3_000, Heard::Reached);
    for (now, due) in [
        (4_000, 13_000),
        (9_999, 13_000),
        (10_000, 13_000),
        (10_001, 13_001),
    ] {
        let mut client = client.clone();
        client.changed(at(now));
        assert_eq!(client.poll(at(due - 1), &[peer(1)]), None);
        assert_eq!(client.poll(at(due), &[peer(1)]), Some(peer(1)), "{now}");
    }
}

#[test]
fn busy_servers_are_asked_again_by_nodes_at_different_times() {
    let wait = |seed| {
        let mut client = Client::new(at(0), Role::Node, seed);
        client.poll(at(100_000), &[peer(1)]);
        hears(&mut client, 100_000, Heard::Cannot);
        client.poll(at(100_000), &[peer(1)]);
        let first = left(&client, 100_000);
        client.poll(at(200_000), &[peer(1)]);
        hears(&mut client, 200_000, Heard::Cannot);
        client.poll(at(200_000), &[peer(1)]);
        (first, left(&client, 200_000))
    };
    let all = (0..100).map(wait);
    let (mut first, mut later): (std::vec::Vec<u64>, std::vec::Vec<u64>) = all.unzip();
    first.sort();
    later.sort();
    assert!(first[0] >= 10_000 && first[99] <= 70_000);
    assert!(first[99] - first[0] > 50_000, "{first:?}");
    assert!(later[0] >= 5 * 60_000 && later[99] <= 65 * 60_000);
    assert!(later[99] - later[0] > 50 * 60_000, "{later:?}");
}

#[test]
fn without_a_server_it_looks_again_after_ten_seconds() {
    let mut client = client();
    assert_eq!(client.poll(at(3_000), &[]), None);
    assert_eq!(left(&client, 3_000), 10_000);
    assert_eq!(client.poll(at(13_000), &[peer(1)]), Some(peer(1)));
}

#[test]
fn what_says_nothing_does_not_replace_an_answer() {
    let mut client = client();
    client.poll(at(3_000), &[peer(1)]);
    hears(&mut client, 3_000, Heard::Reached);
    assert!(client.want(at(13_000)));
    client.poll(at(13_000), &[peer(1)]);
    hears(&mut client, 13_000, Heard::Cannot);
    assert_eq!(client.answer().unwrap().at, at(3_000));
    assert_eq!(client.silent(), None);
}

#[test]
fn answer_about_other_addresses_does_not_count() {
    let mut client = client();
    client.poll(at(3_000), &[peer(1)]);
    hears(&mut client, 3_000, Heard::Not);
    client.changed(at(10_000));
    assert_eq!(client.answer(), None);
    client.poll(at(13_000), &[peer(1)]);
    client.changed(at(13_001));
    assert!(!hears(&mut client, 13_002, Heard::Not), "it came too late");
    assert_eq!(client.answer(), None);
}

#[test]
fn a_known_fault_stays_known_while_the_addresses_change_until_servers_were_asked() {
    let mut client = client();
    client.poll(at(3_000), &[peer(1)]);
    hears(&mut client, 3_000, Heard::Not);
    client.changed(at(10_000));
    assert!(!client.last_answer().unwrap().is_reached);
    client.poll(at(13_000), &[peer(1)]);
    let mut same = client.clone();
    assert!(!hears(&mut same, 13_001, Heard::Not), "it is no news");
    assert!(same.answer().is_some());
    hears(&mut client, 13_001, Heard::Cannot);
    assert!(client.last_answer().is_some());
    assert_eq!(client.poll(at(13_001), &[peer(1)]), None);
    assert_eq!(client.last_answer(), None);
}

#[test]
fn the_operator_is_answered_at_once_but_not_twice_within_ten_seconds() {
    let mut client = client();
    assert!(client.want(at(1)), "it has not asked yet");
    assert_eq!(client.poll(at(1), &[peer(1)]), Some(peer(1)));
    assert!(client.want(at(2)), "its answer is waited for");
    hears(&mut client, 3, Heard::Not);
    assert!(!client.want(at(10_000)));
    assert!(client.want(at(10_001)));
    assert_eq!(client.poll(at(10_001), &[peer(1)]), Some(peer(1)));
}

#[test]
fn at_most_eight_servers_are_asked_in_a_round() {
    let mut client = client();
    let servers: std::vec::Vec<PeerId> = (0..20).map(peer).collect();
    let mut asked = 0;
    while client.poll(at(3_000), &servers).is_some() {
        hears(&mut client, 3_000, Heard::Cannot);
        asked += 1;
    }
    assert_eq!(asked, 8);
}
