use std::fs;

use super::*;
use crate::daemon::testdir::TestDir;

const NOW: u64 = BUILD_MS + 1_000;

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn wish(roles: &[Role], names: &[&str]) -> Wish {
    Wish {
        roles: roles.to_vec(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        until_ms: None,
    }
}

fn usage<T: fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Usage(sentence)) => sentence,
        other => panic!("{other:?}"),
    }
}

fn failed<T: fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Failed(sentence)) => sentence,
        other => panic!("{other:?}"),
    }
}

#[test]
fn key_is_made_once_and_read_back() {
    let scratch = TestDir::new();
    let dir = scratch.path().join("new");
    let made = NetworkKey::create(&dir).unwrap();
    let before = fs::read(made.file()).unwrap();
    assert!(failed(NetworkKey::create(&dir)).contains("never overwritten"));
    assert_eq!(fs::read(made.file()).unwrap(), before);
    assert_eq!(NetworkKey::load(made.file()).unwrap().id(), made.id());
}

#[test]
fn grant_ends_with_the_day_and_not_before_now() {
    let scratch = TestDir::new();
    let key = NetworkKey::create(scratch.path()).unwrap();
    let until = |until_ms| {
        let until_ms = Some(until_ms);
        let wish = Wish {
            until_ms,
            ..wish(&[Role::Node], &[])
        };
        key.grant(&wish, &[peer(1)], NOW)
    };
    assert!(usage(until(NOW - 1)).contains("has passed"));
    assert!(usage(until(NOW)).contains("has passed"));
    let line = until(NOW + 1).unwrap().remove(0);
    let ended = |now| {
        show(&line, now)
            .unwrap()
            .to_json()
            .contains("\"ended\":true")
    };
    assert!(!ended(NOW + 1) && ended(NOW + 2));
}

#[test]
fn nothing_is_signed_while_the_clock_is_before_the_build() {
    let scratch = TestDir::new();
    let key = NetworkKey::create(scratch.path()).unwrap();
    let node = wish(&[Role::Node], &[]);
    let early = BUILD_MS - 1;
    assert!(failed(key.grant(&node, &[peer(1)], early)).contains("clock"));
    assert!(failed(key.revoke(&[peer(1)], early)).contains("clock"));
    key.grant(&node, &[peer(1)], BUILD_MS).unwrap();
    key.revoke(&[peer(1)], BUILD_MS).unwrap();
}

#[test]
fn names_are_for_nodes_and_at_most_four_that_fit() {
    let scratch = TestDir::new();
    let key = NetworkKey::create(scratch.path()).unwrap();
    let sign = |roles: &[Role], names: &[&str]| key.grant(&wish(roles, names), &[peer(1)], NOW);
    sign(&[Role::Node, Role::Indexer], &["a", "b", "c", "*.d"]).unwrap();
    assert!(usage(sign(&[Role::Indexer], &["a"])).contains("--role node"));
    assert!(usage(sign(&[], &[])).contains("--role is missing"));
    assert!(usage(sign(&[Role::Node], &["a"; 5])).contains("5 names are given, at most 4"));
    assert!(usage(sign(&[Role::Node], &["Pump"])).contains("\"Pump\""));
    let long = "a".repeat(63);
    let too_long = usage(sign(&[Role::Node], &[long.as_str(); 4]));
    assert!(too_long.contains("bytes, at most 384"), "{too_long}");
}

#[test]
fn sequence_of_a_list_grows_even_if_the_clock_goes_back() {
    let scratch = TestDir::new();
    let key = NetworkKey::create(scratch.path()).unwrap();
    let first = key.revoke(&[peer(1)], NOW).unwrap();
    assert_eq!(
        (first.sequence, first.peers.len(), first.known),
        (NOW, 1, 0)
    );
    let second = key.revoke(&[peer(2), peer(1)], NOW - 500).unwrap();
    assert_eq!((second.sequence, second.known), (NOW + 1, 1));
    assert_eq!(second.peers, [text(&peer(1)), text(&peer(2))]);
    let same = key.revoke(&[peer(2)], NOW + 9).unwrap();
    assert_eq!((same.sequence, same.line), (NOW + 1, second.line.clone()));
    assert_eq!(key.revoke(&[], NOW).unwrap().line, second.line);
}

#[test]
fn list_takes_ninety_six_peers_and_stays_as_it_was_for_one_more() {
    let scratch = TestDir::new();
    let key = NetworkKey::create(scratch.path()).unwrap();
    let peers: Vec<PeerId> = (0..97).map(peer).collect();
    let full = key.revoke(&peers[..96], NOW).unwrap();
    assert!(failed(key.revoke(&peers, NOW)).contains("97 peers would be revoked"));
    assert_eq!(key.revoke(&[], NOW).unwrap().line, full.line);
}

#[test]
fn revoked_peer_is_not_granted_again_and_no_other_of_that_line_is() {
    let scratch = TestDir::new();
    let key = NetworkKey::create(scratch.path()).unwrap();
    key.revoke(&[peer(2)], NOW).unwrap();
    let node = wish(&[Role::Node], &[]);
    let both = key.grant(&node, &[peer(1), peer(2)], NOW);
    assert!(failed(both).contains("identity reset"));
    assert_eq!(key.grant(&node, &[peer(1)], NOW).unwrap().len(), 1);
}

#[test]
fn list_that_is_damaged_or_of_another_network_is_an_error_and_stays() {
    let scratch = TestDir::new();
    let key = NetworkKey::create(&scratch.path().join("one")).unwrap();
    let other = NetworkKey::create(&scratch.path().join("two")).unwrap();
    other.revoke(&[peer(1)], NOW).unwrap();
    let list = |key: &NetworkKey| format!("{}.revoked", key.file().display());
    let foreign = fs::read(list(&other)).unwrap();
    for content in [&foreign[..], b"", &foreign[..9], &[0; 4001]] {
        fs::write(list(&key), content).unwrap();
        failed(key.revoke(&[peer(1)], NOW));
        failed(key.grant(&wish(&[Role::Node], &[]), &[peer(2)], NOW));
        assert_eq!(fs::read(list(&key)).unwrap(), content);
    }
}

#[test]
fn first_list_names_a_peer() {
    let scratch = TestDir::new();
    let key = NetworkKey::create(scratch.path()).unwrap();
    assert!(usage(key.revoke(&[], NOW)).contains("name the peer ids"));
}
