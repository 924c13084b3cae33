//! When which server is asked, and what its answer is worth.

use super::*;
use crate::protocol::Role;

/// A client of an indexer, which is due at 3 s.
fn client() -> Client {
    Client::new(at(0), Role::Indexer, 1)
}

fn poll(client: &mut Client, now: u64, servers: &[PeerId]) -> Option<PeerId> {
    client.poll_of(at(now), |tell| servers.iter().copied().for_each(tell))
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
    assert_eq!(poll(&mut client, 2_999, &[peer(1)]), None);
    client.changed(at(2_999));
    assert_eq!(poll(&mut client, 5_998, &[peer(1)]), None);
    assert_eq!(client.timeout(), at(5_999));
    assert_eq!(poll(&mut client, 5_999, &[peer(1)]), Some(peer(1)));
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
    assert_eq!(poll(&mut client, 3_000, &servers), Some(peer(1)));
    assert!(client.is_asking());
    assert_eq!(poll(&mut client, 3_001, &servers), None);
    assert!(!hears(&mut client, 3_002, Heard::Cannot));
    assert_eq!(client.silent().unwrap().by, peer(1));
    assert_eq!(poll(&mut client, 3_002, &servers), Some(peer(2)));
    assert!(hears(&mut client, 3_003, Heard::Reached));
    let answer = client.answer().unwrap();
    assert_eq!((answer.by, answer.is_reached), (peer(2), true));
    assert_eq!(client.silent(), None);
}

#[test]
fn a_server_that_never_answers_is_given_up_after_twelve_seconds() {
    let mut client = client();
    let servers = [peer(1), peer(2)];
    poll(&mut client, 3_000, &servers);
    assert_eq!(poll(&mut client, 14_999, &servers), None);
    assert_eq!(poll(&mut client, 15_000, &servers), Some(peer(2)));
}

#[test]
fn no_is_asked_about_at_another_server_at_once_and_again_after_five_minutes() {
    let mut client = client();
    let servers = [peer(1), peer(2)];
    poll(&mut client, 3_000, &servers);
    assert!(hears(&mut client, 4_000, Heard::Not));
    assert_eq!(poll(&mut client, 4_000, &servers), Some(peer(2)));
    assert!(!hears(&mut client, 4_001, Heard::Not), "it is no news");
    assert_eq!(poll(&mut client, 304_000, &servers), None);
    assert_eq!(poll(&mut client, 304_001, &servers), Some(peer(1)));
    assert!(hears(&mut client, 304_002, Heard::Reached));
    assert_eq!(client.answer().unwrap().by, peer(1));
}

#[test]
fn no_of_the_only_server_is_asked_about_again_after_five_minutes() {
    let mut client = client();
    for now in [3_000, 303_000] {
        assert_eq!(poll(&mut client, now - 1, &[peer(1)]), None);
        assert_eq!(poll(&mut client, now, &[peer(1)]), Some(peer(1)));
        hears(&mut client, now, Heard::Not);
        assert_eq!(poll(&mut client, now, &[peer(1)]), None);
        assert_eq!(left(&client, now), 300_000);
        let answer = client.answer().unwrap();
        assert_eq!(answer.also_by, None, "it is the same server");
    }
}

#[test]
fn it_is_a_fault_when_two_servers_say_no_and_one_of_them_is_an_own_native() {
    let is_fault = |said: &[(u8, Heard)], natives: &[u8]| {
        let mut client = client();
        let servers: std::vec::Vec<PeerId> = said.iter().map(|(n, _)| peer(*n)).collect();
        for (n, heard) in said {
            assert_eq!(poll(&mut client, 3_000, &servers), Some(peer(*n)));
            hears(&mut client, 3_000, *heard);
        }
        let is_native = |server: &PeerId| natives.iter().any(|n| peer(*n) == *server);
        client.answer().unwrap().is_fault(is_native)
    };
    use Heard::{Cannot, Not, Reached};
    assert!(is_fault(&[(1, Not), (2, Not)], &[1]));
    assert!(is_fault(&[(1, Not), (2, Cannot), (3, Not)], &[3]));
    assert!(!is_fault(&[(1, Not), (2, Not)], &[]), "two strangers");
    assert!(
        !is_fault(&[(1, Not), (2, Cannot)], &[1, 2]),
        "only one says so"
    );
    assert!(!is_fault(&[(1, Not), (2, Reached)], &[1, 2]));
}

#[test]
fn yes_is_asked_about_again_within_the_hour_at_the_same_server() {
    let mut client = client();
    let servers = [peer(1), peer(2)];
    poll(&mut client, 3_000, &servers);
    hears(&mut client, 3_000, Heard::Cannot);
    poll(&mut client, 3_000, &servers);
    hears(&mut client, 4_000, Heard::Reached);
    let wait = left(&client, 4_000);
    assert!((54 * 60_000..=60 * 60_000).contains(&wait), "{wait}");
    let due = 4_000 + wait;
    assert_eq!(poll(&mut client, due - 1, &servers), None);
    assert_eq!(poll(&mut client, due, &servers), Some(peer(2)));
}

#[test]
fn a_node_asks_hourly_whatever_the_answer() {
    let mut client = Client::new(at(0), Role::Node, 1);
    poll(&mut client, 100_000, &[peer(1)]);
    assert!(hears(&mut client, 100_000, Heard::Not));
    let wait = left(&client, 100_000);
    assert!((54 * 60_000..=60 * 60_000).contains(&wait), "{wait}");
}

#[test]
fn servers_that_cannot_tell_are_asked_again_in_ten_seconds_and_then_in_five_minutes() {
    let mut client = client();
    let mut now = 3_000;
    for wait in [10_000, 300_000, 300_000] {
        assert_eq!(poll(&mut client, now - 1, &[peer(1)]), None);
        assert_eq!(poll(&mut client, now, &[peer(1)]), Some(peer(1)));
        hears(&mut client, now, Heard::Cannot);
        assert_eq!(poll(&mut client, now, &[peer(1)]), None);
        assert_eq!(client.answer(), None, "it is unknown, and never no");
        assert_eq!(left(&client, now), wait);
        now += wait;
    }
}

#[test]
fn servers_of_an_earlier_version_are_asked_again_within_the_hour() {
    let mut client = client();
    poll(&mut client, 3_000, &[peer(1)]);
    hears(&mut client, 3_000, Heard::Unsupported);
    assert_eq!(poll(&mut client, 3_000, &[peer(1)]), None);
    let wait = left(&client, 3_000);
    assert!((54 * 60_000..=60 * 60_000).contains(&wait), "{wait}");
    assert_eq!(client.answer(), None, "it is unknown, and never no");
    assert_eq!(poll(&mut client, 3_000 + wait, &[peer(1)]), Some(peer(1)));
}

#[test]
fn change_within_ten_seconds_of_a_question_waits_until_servers_dial_again() {
    let mut client = client();
    poll(&mut client, 3_000, &[peer(1)]);
    hears(&mut client, 3_000, Heard::Reached);
    for (now, due) in [
        (4_000, 13_000),
        (9_999, 13_000),
        (10_000, 13_000),
        (10_001, 13_001),
    ] {
        let mut client = client.clone();
        client.changed(at(now));
        assert_eq!(poll(&mut client, due - 1, &[peer(1)]), None);
        assert_eq!(poll(&mut client, due, &[peer(1)]), Some(peer(1)), "{now}");
    }
}

#[test]
fn busy_servers_are_asked_again_by_nodes_at_different_times() {
    let wait = |seed| {
        let mut client = Client::new(at(0), Role::Node, seed);
        poll(&mut client, 100_000, &[peer(1)]);
        hears(&mut client, 100_000, Heard::Cannot);
        poll(&mut client, 100_000, &[peer(1)]);
        let first = left(&client, 100_000);
        poll(&mut client, 200_000, &[peer(1)]);
        hears(&mut client, 200_000, Heard::Cannot);
        poll(&mut client, 200_000, &[peer(1)]);
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
    assert_eq!(poll(&mut client, 3_000, &[]), None);
    assert_eq!(left(&client, 3_000), 10_000);
    assert_eq!(poll(&mut client, 13_000, &[peer(1)]), Some(peer(1)));
}

#[test]
fn what_says_nothing_does_not_replace_an_answer() {
    let mut client = client();
    poll(&mut client, 3_000, &[peer(1)]);
    hears(&mut client, 3_000, Heard::Reached);
    assert!(client.want(at(13_000)));
    poll(&mut client, 13_000, &[peer(1)]);
    hears(&mut client, 13_000, Heard::Cannot);
    assert_eq!(client.answer().unwrap().at, at(3_000));
    assert_eq!(client.silent(), None);
}

#[test]
fn answer_about_other_addresses_does_not_count() {
    let mut client = client();
    poll(&mut client, 3_000, &[peer(1)]);
    hears(&mut client, 3_000, Heard::Not);
    client.changed(at(10_000));
    assert_eq!(client.answer(), None);
    poll(&mut client, 13_000, &[peer(1)]);
    client.changed(at(13_001));
    assert!(!hears(&mut client, 13_002, Heard::Not), "it came too late");
    assert_eq!(client.answer(), None);
}

#[test]
fn a_known_fault_stays_known_while_the_addresses_change_until_servers_were_asked() {
    let mut client = client();
    poll(&mut client, 3_000, &[peer(1)]);
    hears(&mut client, 3_000, Heard::Not);
    client.changed(at(10_000));
    assert!(!client.last_answer().unwrap().is_reached);
    poll(&mut client, 13_000, &[peer(1)]);
    let mut same = client.clone();
    assert!(!hears(&mut same, 13_001, Heard::Not), "it is no news");
    assert!(same.answer().is_some());
    hears(&mut client, 13_001, Heard::Cannot);
    assert!(client.last_answer().is_some());
    assert_eq!(poll(&mut client, 13_001, &[peer(1)]), None);
    assert_eq!(client.last_answer(), None);
}

#[test]
fn the_operator_is_answered_at_once_but_not_twice_within_ten_seconds() {
    let mut client = client();
    assert!(client.want(at(1)), "it has not asked yet");
    assert_eq!(poll(&mut client, 1, &[peer(1)]), Some(peer(1)));
    assert!(client.want(at(2)), "its answer is waited for");
    hears(&mut client, 3, Heard::Not);
    assert!(!client.want(at(10_000)));
    assert!(client.want(at(10_001)));
    assert_eq!(poll(&mut client, 10_001, &[peer(1)]), Some(peer(1)));
}

#[test]
fn at_most_eight_servers_are_asked_in_a_round() {
    let mut client = client();
    let servers: std::vec::Vec<PeerId> = (0..20).map(peer).collect();
    let mut asked = 0;
    while poll(&mut client, 3_000, &servers).is_some() {
        hears(&mut client, 3_000, Heard::Cannot);
        asked += 1;
    }
    assert_eq!(asked, 8);
    let next = 3_000 + left(&client, 3_000);
    let asked = poll(&mut client, next, &servers);
    assert_eq!(asked, Some(peer(8)), "the next round begins at the others");
}
