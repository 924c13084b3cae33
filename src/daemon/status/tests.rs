//! The field names of the interface, and the text for people.

use miniserde::json;

use super::*;

/// The JSON object of the interface, byte for byte.
const EXAMPLE: &str = concat!(
    r#"{"role":"native","peer_id":"12D3A","name":null,"tags":{},"services":[],"checks":[],"#,
    r#""version":"0.1.0","#,
    r#""uptime_ms":61000,"listen":["/ip4/127.0.0.1/tcp/4820"],"#,
    r#""natives":["/ip4/192.0.2.9/tcp/4820/p2p/12D3F"],"#,
    r#""found_natives":[],"#,
    r#""native_option":"--native /ip4/127.0.0.1/tcp/4820/p2p/12D3A","#,
    r#""live_indexers":[{"peer_id":"12D3B","addrs":["/ip4/127.0.0.1/tcp/1"],"#,
    r#""expires_in_ms":1500,"source":"heartbeat","failures":0},"#,
    r#"{"peer_id":"12D3LONGER","addrs":[],"expires_in_ms":90000,"source":"dht","failures":2}],"#,
    r#""known_peer_ids":["12D3B","12D3LONGER"],"#,
    r#""responsible_peers":[{"peer_id":"12D3N","since_ms":0}],"#,
    r#""stream_records":[{"peer_id":"12D3B","role":"indexer","last_seen_ms":7,"expires_in_ms":8}],"#,
    r#""leases":[{"peer_id":"12D3C","role":"native","expires_in_ms":0}],"#,
    r#""loops":{"gc":{"runs":0,"last_ms":0},"offload":{"runs":3,"last_ms":4}},"#,
    r#""tables":[{"name":"live_indexers","used":2,"capacity":256,"refused":0,"evicted":0}],"#,
    r#""contested":[{"peer_id":"12D3D","kept":"192.0.2.1","refused":"192.0.2.2","last_ms":5}],"#,
    r#""troubles":[{"peer_id":"12D3E","what":"does not answer"}],"#,
    r#""problems":[{"code":"handshake-refused","severity":"warning","what":"refused","#,
    r#""hint":"compare the keys","since_ms":9,"count":3}],"#,
    r#""servers":[{"peer_id":"12D3E","role":"native","addr":"192.0.2.9:4820","state":"waiting","#,
    r#""expires_in_ms":null,"last_error":"does not answer","failing_ms":9,"next_try_ms":1}]}"#
);

fn example() -> Status {
    json::from_str(EXAMPLE).unwrap()
}

#[test]
fn status_keeps_every_field_of_the_interface() {
    assert_eq!(json::to_string(&example()), EXAMPLE);
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
fn status_is_aligned_for_a_person() {
    let shown = example().to_string();
    let column = |row: &str| {
        let line = shown.lines().find(|line| line.contains(row)).unwrap();
        line.find("ends in").unwrap()
    };
    assert_eq!(column("by beat"), column("from the DHT"));
    assert!(shown.contains("up 1 min 1 s"), "{shown}");
    assert!(shown.contains("0 runs"), "{shown}");
    assert!(shown.contains("not yet"), "{shown}");
    assert!(shown.lines().all(|line| line == line.trim_end()));
}

#[test]
fn what_others_are_started_with_is_shown_whole_or_said_to_be_unknown() {
    let whole = "others are started with: --native /ip4/127.0.0.1/tcp/4820/p2p/12D3A\n";
    assert!(example().to_string().contains(whole));
    let native_option = None;
    let unknown = Status {
        native_option,
        ..example()
    };
    let shown = unknown.to_string();
    assert!(
        shown.contains("others are started with: not known yet"),
        "{shown}"
    );
    assert!(json::to_string(&unknown).contains(r#""native_option":null,"#));
    let node = Status {
        role: Role::Node,
        ..unknown
    };
    assert!(!node.to_string().contains("others are started"));
}

#[test]
fn empty_tables_are_said_in_words() {
    let status = Status {
        role: Role::Node,
        leases: vec![],
        listen: vec![],
        ..example()
    };
    let shown = status.to_string();
    assert!(shown.contains("leases held: none: no server"), "{shown}");
    assert!(shown.contains("listening on: no address"), "{shown}");
    assert!(!shown.contains("live indexers"), "{shown}");
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
fn answer_says_how_far_it_goes() {
    let list = |complete, asked, lacks: [usize; 3]| {
        let [silent, refused, partial] = lacks.map(|count| vec!["12D3A".into(); count]);
        let list = IndexerList {
            complete,
            asked,
            answered: asked - (silent.len() + refused.len()) as u64,
            silent,
            refused,
            partial,
            indexers: vec![],
        };
        list.to_string()
    };
    let none = "indexers: none is known\n";
    for (seen, said) in [
        (list(true, 2, [0; 3]), ""),
        (
            list(false, 0, [0; 3]),
            "incomplete: no server could be asked\n",
        ),
        (
            list(false, 3, [1, 0, 0]),
            "incomplete: 1 of 3 servers asked did not answer\n",
        ),
        (
            list(false, 6, [1, 2, 3]),
            "incomplete: 1 of 6 servers asked did not answer, 2 of 6 servers asked answered with an error, \
             3 of 6 servers asked could not ask all others\n",
        ),
        (
            list(false, 2, [0; 3]),
            "incomplete: one answer has no room for all of them\n",
        ),
    ] {
        assert_eq!(seen, format!("{none}{said}"));
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
fn node_says_what_it_is_found_by_and_which_natives_it_knows() {
    let node = Status {
        role: Role::Node,
        name: Some("cam-3".into()),
        tags: BTreeMap::from([("room".into(), "hall".into()), ("floor".into(), "2".into())]),
        services: vec![service("dns", Protocol::Udp, 53)],
        checks: vec![ServiceCheck {
            service: "dns".into(),
            protocol: Protocol::Udp,
            port: 53,
            check: "exec:dig".into(),
            state: CheckState::Failing,
            failures: 4,
            since_ms: Some(1_500),
            error: Some("the command ended with exit code 9".into()),
        }],
        ..example()
    };
    let shown = node.to_string();
    let expected = "node 12D3A\nname: cam-3\ntags:\n  floor=2\n  room=hall\nservices: dns (UDP) at port 53\n\
         checks of services: 1\n  dns  exec:dig  fails, not in the record  for 1.5 s  the command ended with exit code 9\n";
    assert!(shown.starts_with(expected), "{shown}");
    let natives = "\nnatives: /ip4/192.0.2.9/tcp/4820/p2p/12D3F\n";
    assert!(shown.contains(natives), "{shown}");
    let bare = Status {
        tags: BTreeMap::new(),
        services: vec![],
        natives: vec![],
        ..node
    };
    let shown = bare.to_string();
    assert!(shown.contains("\ntags: none\nservices: none\n"), "{shown}");
    assert!(shown.contains("\nnatives: none is known\n"), "{shown}");
    let first = Status {
        natives: vec![],
        leases: vec![],
        ..example()
    };
    let shown = first.to_string();
    let none = "\nnatives: no other is known, and this one needs none\n";
    assert!(shown.contains(none), "{shown}");
    let none = "\nleases held: none: there is no other native\n";
    assert!(shown.contains(none), "{shown}");
    let native = example().to_string();
    assert!(
        !native.contains("name:") && !native.contains("tags:"),
        "{native}"
    );
    let json = json::to_string(&bare);
    assert!(
        json.contains(r#""name":"cam-3","tags":{},"services":[],"checks":[{"service":"dns","#),
        "{json}"
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
