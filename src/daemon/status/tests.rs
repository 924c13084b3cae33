//! The field names of the interface, and the text for people.

use miniserde::json;

use super::*;

/// The JSON object of the interface, byte for byte.
const EXAMPLE: &str = include_str!("example.json");

fn example() -> Status {
    json::from_str(EXAMPLE).unwrap()
}

#[test]
fn status_keeps_every_field_of_the_interface() {
    assert_eq!(json::to_string(&example()), EXAMPLE.trim_end());
}

#[test]
fn peer_is_silent_after_two_fifths_of_its_lease() {
    for (last_seen_ms, state) in [
        (0, PeerState::Alive),
        (36_000, PeerState::Alive),
        (36_001, PeerState::Silent),
        (90_000, PeerState::Silent),
    ] {
        let left_ms = 90_000 - last_seen_ms;
        assert_eq!(PeerState::of(true, last_seen_ms, left_ms), state);
        assert_eq!(
            PeerState::of(false, last_seen_ms, left_ms),
            PeerState::Silent
        );
    }
}

#[test]
fn role_without_loops_has_an_empty_object() {
    let status = Status {
        loops: BTreeMap::new(),
        ..example()
    };
    assert!(json::to_string(&status).contains(r#""loops":{},"#));
}

#[test]
fn unknown_free_leases_are_null() {
    let text = r#"{"complete":true,"asked":1,"answered":1,"silent":[],"refused":[],"partial":[],"indexers":[{"peer_id":"a","addrs":[],"expires_in_ms":1,"free_leases":null,"source":"native"},{"peer_id":"b","addrs":["x"],"expires_in_ms":1,"free_leases":3,"source":"native"},{"peer_id":"c","addrs":["x"],"expires_in_ms":1,"free_leases":null,"source":"lease"}]}"#;
    let list: IndexerList = json::from_str(text).unwrap();
    assert_eq!(json::to_string(&list), text);
    let shown = list.to_string();
    assert!(shown.contains("free leases unknown"), "{shown}");
    assert!(shown.contains("3 leases free"), "{shown}");
    assert!(shown.contains("grants our lease"), "{shown}");
}

#[test]
fn empty_tables_are_said_in_words() {
    let none_known = IndexerList {
        complete: true,
        asked: 1,
        answered: 1,
        silent: vec![],
        refused: vec![],
        partial: vec![],
        indexers: vec![],
    };
    assert_eq!(none_known.to_string(), "indexers: none is known\n");
}

#[test]
fn answer_of_servers_that_have_all_answered_says_whether_it_lacks_room_or_the_dht() {
    let found = r#"{"schema":1,"query":"cam","complete":false,"asked":1,"answered":1,"silent":[],"refused":[],"partial":[],"more":MORE,"claimants":0,"all_counted":false,"records":[]}"#;
    for (more, said) in [
        ("true", "no room"),
        ("false", "the DHT could not be searched"),
    ] {
        let found: Found = json::from_str(&found.replace("MORE", more)).unwrap();
        let told = found.shortfall().unwrap();
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn answer_says_how_far_it_goes() {
    let list = |complete, asked, lacks: [usize; 3]| {
        let [silent, refused, partial] = lacks.map(|count| vec!["12D3KooWwxyz1234".into(); count]);
        let list = IndexerList {
            complete,
            asked,
            answered: asked - (silent.len() + refused.len()) as u64,
            silent,
            refused,
            partial,
            indexers: vec![],
        };
        list.shortfall().unwrap_or_default()
    };
    for (seen, said) in [
        (list(true, 2, [0; 3]), ""),
        (list(false, 0, [0; 3]), "no server could be asked"),
        (
            list(false, 3, [1, 0, 0]),
            "1 of 3 servers asked did not answer (…wxyz1234)",
        ),
        (
            list(false, 6, [1, 2, 0]),
            "1 of 6 servers asked did not answer (…wxyz1234), 2 of 6 servers asked answered with \
             an error (…wxyz1234, …wxyz1234)",
        ),
        (
            list(false, 6, [0, 0, 6]),
            "6 of 6 servers asked answered in part, because servers behind them did not answer (…wxyz1234, …wxyz1234, …wxyz1234, \
             …wxyz1234, 2 more)",
        ),
        (
            list(false, 2, [0; 3]),
            "one answer has no room for all of them",
        ),
    ] {
        assert_eq!(seen, said);
    }
}

fn service(name: &str, protocol: Protocol, port: u16) -> Service {
    Service {
        name: name.into(),
        protocol,
        port,
        device: None,
        addresses: None,
    }
}

#[test]
fn a_service_is_reached_at_each_host_once() {
    let record = FoundRecord {
        peer_id: "12D3A".into(),
        name: "cam".into(),
        addresses: [
            "/ip4/192.0.2.1/tcp/5",
            "/ip6/2001:db8::1/tcp/5",
            "/ip4/192.0.2.1/tcp/6",
            "/dns4/cam.example.com/tcp/5",
            "/dns/a\u{1b}[2J/tcp/5",
            "/dns/a b/tcp/5",
            "/dns/-o/tcp/5",
            "/unix/x",
        ]
        .map(Into::into)
        .to_vec(),
        addrs: vec![],
        state: "alive".into(),
        last_beat_ms: None,
        version: String::new(),
        tags: BTreeMap::new(),
        services: vec![],
        expires_in_ms: 1_000,
        source: "dht".into(),
    };
    let addresses = record.addresses_of(&service("http", Protocol::Tcp, 80));
    assert_eq!(
        addresses,
        ["192.0.2.1:80", "[2001:db8::1]:80", "cam.example.com:80"]
    );
}

#[test]
fn every_claimant_is_shown_and_cannot_drive_the_terminal() {
    let record = |peer: &str| FoundRecord {
        peer_id: peer.into(),
        name: "cam".into(),
        addrs: vec![],
        addresses: vec!["/ip4/1.2.3.4/tcp/5".into(), "/ip4/1.2.3.4/tcp/6".into()],
        state: "alive".into(),
        last_beat_ms: Some(3_000),
        version: "1.2.3".into(),
        tags: BTreeMap::from([("room".into(), "\u{1b}[2Jhall".into())]),
        services: vec![service("http", Protocol::Tcp, 80)],
        expires_in_ms: 1_000,
        source: "indexer".into(),
    };
    let found = Found {
        schema: 1,
        more: true,
        claimants: 50,
        all_counted: true,
        query: "cam".into(),
        complete: true,
        asked: 2,
        answered: 2,
        silent: vec![],
        refused: vec![],
        partial: vec![],
        records: vec![record("12D3A"), record("12D3B")],
    };
    let shown = found.to_string();
    assert!(
        shown.contains("12D3A") && shown.contains("12D3B"),
        "{shown}"
    );
    assert!(shown.contains("/ip4/1.2.3.4/tcp/6"), "{shown}");
    assert!(
        shown.contains("\n  services: http at 1.2.3.4:80\n"),
        "{shown}"
    );
    assert!(shown.contains(r"room=\u{1b}[2Jhall"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");
    assert!(shown.contains("\n  last beat 3.0 s ago\n"), "{shown}");
    let more = "\n50 nodes claim this name; 2 are shown, oldest claim first\n";
    assert!(shown.ends_with(more), "{shown}");
    let claims = |claimants, all_counted, answered| {
        let found = Found {
            claimants,
            all_counted,
            answered,
            ..found.clone()
        };
        found.claims()
    };
    assert_eq!(claims(1, true, 2), "1 node claims");
    assert_eq!(claims(256, false, 2), "more than 256 nodes claim");
    assert_eq!(claims(3, false, 1), "at least 3 nodes claim");
    let text = json::to_string(&found);
    assert_eq!(json::from_str::<Found>(&text).unwrap(), found);
}
