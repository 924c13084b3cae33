//! The client commands with a daemon of every role.

use miniserde::json;
use oc_discovery::embed::{Found, IndexerList, Status};

use super::harness::{Look, Peer, SLACK, World, eventually, with_natives};
use super::validator::refused;

/// One of each role, and three nodes: two of them claim the same name.
struct Town {
    world: World,
    native: Peer,
    indexer: Peer,
    cams: [Peer; 2],
    door: Peer,
}

impl Town {
    fn new() -> Town {
        let world = World::new();
        let native = world.native("native", &[]);
        let indexer = world.indexer("indexer", &[&native], &[]);
        native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
        let hall = [
            "--name",
            "cam",
            "--tag",
            "room=hall",
            "--tag",
            "floor=1",
            "--service",
            "http=80",
        ];
        let yard = ["--name", "cam", "--tag", "room=yard"];
        let cams = [
            world.node("hall", &[&native], &hall),
            world.node("yard", &[&native], &yard),
        ];
        let door = world.node("door", &[&native], &["--name", "door"]);
        for node in cams.iter().chain([&door]) {
            node.until("a lease", SLACK, |s| s.holds_lease_of(&indexer));
        }
        Town {
            world,
            native,
            indexer,
            cams,
            door,
        }
    }

    fn roles(&self) -> [&Peer; 3] {
        [&self.native, &self.indexer, &self.door]
    }

    fn found(&self, asked: &Peer, query: &str) -> Found {
        let answer = self.world.ask(asked, "find", &["--json", query]);
        assert_eq!(answer.stderr, "", "{query}: {answer:?}");
        let found: Found = json::from_str(&answer.stdout).unwrap();
        assert_eq!(answer.code, Some(if found.complete { 0 } else { 3 }));
        found
    }
}

#[test]
fn find_by_name_gives_every_claimant_with_addresses_tags_and_services_on_every_role() {
    let town = Town::new();
    for asked in town.roles() {
        let found = town.found(asked, "cam");
        assert_eq!(found.query, "cam");
        assert_eq!(found.records.len(), 2, "{found:?}");
        for (cam, room) in town.cams.iter().zip(["hall", "yard"]) {
            let record = found.records.iter().find(|r| r.peer_id == cam.id).unwrap();
            assert_eq!(record.name, "cam");
            assert_eq!(record.tags["room"], room);
            assert_eq!(record.addrs, cam.status().listen);
            assert!(record.expires_in_ms > 0);
        }
        let at = town.world.ask(asked, "find", &["--addr", "cam", "http"]);
        assert_eq!(at.stdout, "127.0.0.1:80\n", "{at:?}");
        let hall = found.records.iter().find(|r| r.tags["room"] == "hall");
        assert_eq!(hall.unwrap().tags["floor"], "1");
        let shown = town.world.ask(asked, "find", &["cam"]);
        assert_eq!(shown.code, Some(0));
        for cam in &town.cams {
            assert!(shown.stdout.contains(&cam.id), "{shown:?}");
            assert!(shown.stdout.contains(&cam.status().listen[0]), "{shown:?}");
        }
    }
}

#[test]
fn find_by_peer_id_gives_that_peer_on_every_role() {
    let town = Town::new();
    for asked in town.roles() {
        let [hall, _] = &town.cams;
        let found = town.found(asked, &hall.id);
        let ids: Vec<_> = found.records.iter().map(|r| r.peer_id.as_str()).collect();
        assert_eq!(ids, [hall.id.as_str()]);
        assert_eq!(found.records[0].addrs, hall.status().listen);
        assert_eq!(found.records[0].tags["room"], "hall");
        let found = town.found(asked, &town.indexer.id);
        assert_eq!(found.records.len(), 1, "{found:?}");
        assert_eq!(found.records[0].addrs, town.indexer.status().listen);
    }
}

#[test]
fn who_is_unknown_ends_with_a_sentence_and_1_on_every_role() {
    let town = Town::new();
    let unknown = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    for asked in town.roles() {
        for query in ["window", unknown] {
            let answer = town.world.ask(asked, "find", &[query]);
            assert_eq!(answer.code, Some(1), "{answer:?}");
            assert_eq!(answer.stdout, "");
            let sentence = format!("oc-discovery: no node is known as {query}\n");
            assert_eq!(answer.stderr, sentence);
        }
    }
}

#[test]
fn server_that_is_looked_for_as_a_node_is_said_to_be_one() {
    let town = Town::new();
    let (native, indexer) = (&town.native, &town.indexer);
    let ids = [native, indexer].map(|peer| peer.status().peer_id);
    let [of_native, of_indexer] = ids.each_ref().map(|id| (&**id, &id[id.len() - 8..]));
    let here = "that is the native on this host".to_owned();
    let there = format!(
        "that is the native {}, and natives have no record",
        of_native.0
    );
    let end = format!("that is the indexer {}", of_indexer.0);
    for (asked, query, said) in [
        (native, of_native.0, &here),
        (native, of_native.1, &here),
        (indexer, of_native.0, &there),
        (indexer, of_native.1, &there),
        // An indexer has a record, which is found by its whole id.
        (native, of_indexer.1, &end),
    ] {
        let answer = town.world.ask(asked, "find", &[query]);
        assert_eq!(answer.code, Some(1), "{answer:?}");
        assert!(answer.stderr.contains(said), "{query}: {answer:?}");
    }
}

#[test]
fn name_with_a_slip_is_known_again_among_those_that_are_there() {
    let town = Town::new();
    let said = |more: &[&str]| {
        let find = [more, &["cma"]].concat();
        let answer = town.world.ask(&town.door, "find", &find);
        assert_eq!(answer.code, Some(1), "{answer:?}");
        answer.stderr
    };
    let unknown = "oc-discovery: no node is known as cma";
    eventually("the name that is near", SLACK, || {
        (said(&[]) == format!("{unknown}: did you mean cam?\n")).then_some(())
    });
    assert_eq!(said(&["--json"]), format!("{unknown}\n"));
}

#[test]
fn indexers_lists_the_indexer_on_every_role() {
    let town = Town::new();
    for asked in town.roles() {
        let ask = |args: &[&str]| town.world.ask(asked, "indexers", args);
        let list: IndexerList = json::from_str(&ask(&["--json"]).stdout).unwrap();
        let ids: Vec<_> = list.indexers.iter().map(|i| i.peer_id.as_str()).collect();
        assert_eq!(ids, [town.indexer.id.as_str()], "{}", asked.log());
        assert!(ask(&[]).stdout.contains(&town.indexer.id));
    }
}

#[test]
fn status_of_every_role_is_as_its_schema_says_and_id_is_that_of_the_status() {
    let town = Town::new();
    for (asked, role) in town.roles().into_iter().zip(["native", "indexer", "node"]) {
        let answer = town.world.ask(asked, "status", &["--json"]);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        assert_eq!(refused(&answer.stdout), None, "{answer:?}");
        assert!(answer.stdout.contains(&format!(r#""role":"{role}""#)));
        let status: Status = json::from_str(&answer.stdout).unwrap();
        assert_eq!(status.peer_id, asked.id);
        let id = town.world.ask::<&str>(asked, "id", &[]);
        assert_eq!(id.stdout.trim_end(), asked.id);
        let shown = town.world.ask::<&str>(asked, "status", &[]);
        let end = &asked.id[asked.id.len() - 8..];
        assert!(shown.stdout.contains(end), "{shown:?}");
        let verdict = shown.stdout.lines().next().unwrap();
        assert_eq!(verdict, status.verdict.to_string());
    }
    let loops: Vec<_> = town.native.status().loops.into_keys().collect();
    assert_eq!(loops, ["gc", "offload", "refresh"]);
    let hall = town.cams[0].status();
    assert_eq!(hall.name.as_deref(), Some("cam"));
    assert_eq!(hall.tags["room"], "hall");
    assert_eq!(hall.natives.len(), 1);
    assert!(hall.natives[0].ends_with(&format!("/p2p/{}", town.native.id)));
    assert!(hall.natives[0].starts_with("/ip4/127.0.0.1/tcp/"));
    assert_eq!(town.native.status().name, None);
    let leases = town.door.status().leases;
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].peer_id, town.indexer.id);
}

#[test]
fn node_taken_in_by_the_native_is_found_on_the_native_and_by_others() {
    let world = World::new();
    let native = world.native("native", &[]);
    let cam = world.node("cam", &[&native], &["--name", "cam"]);
    let other = world.node("other", &[&native], &[]);
    native.until("both taken in", SLACK, |s| {
        s.is_responsible_for(&cam) && s.is_responsible_for(&other) && s.used("directory") > 0
    });
    for asked in [&native, &other] {
        for query in ["cam", &cam.id] {
            eventually("the node found", SLACK, || {
                let answer = world.ask(asked, "find", &[query]);
                (answer.code == Some(0) && answer.stdout.contains(&cam.id)).then_some(())
            });
        }
    }
}

#[test]
fn node_taken_in_by_one_native_is_found_through_another() {
    let world = World::new();
    let first = world.native("first", &[]);
    let second = world.start("native", "second", &with_natives(&[&first], &[]));
    let cam = world.node("cam", &[&first], &["--name", "cam"]);
    let other = world.node("other", &[&second], &[]);
    second.until("a lease with its fellow", SLACK, |s| {
        s.holds_lease_of(&first)
    });
    second.until("the other", SLACK, |s| s.is_responsible_for(&other));
    first.until("the cam", SLACK, |s| {
        s.is_responsible_for(&cam) && s.used("directory") > 0
    });
    for asked in [&second, &other] {
        for query in ["cam", &cam.id] {
            let answer = world.ask(asked, "find", &["--json", query]);
            let found: Found = json::from_str(&answer.stdout).unwrap();
            assert_eq!(found.records.len(), 1, "{answer:?}");
            assert_eq!(found.records[0].peer_id, cam.id);
        }
    }
}

#[test]
fn answer_names_the_server_that_was_silent_and_says_that_it_is_incomplete() {
    let town = Town::new();
    let found = town.found(&town.door, "cam");
    assert!(found.complete && found.silent.is_empty(), "{found:?}");
    // The indexer's answer is complete, so the native is not asked.
    assert_eq!((found.asked, found.answered), (1, 1), "{found:?}");
    assert!(found.records.iter().all(|r| r.last_beat_ms.is_some()));

    let id = &town.cams[0].id;
    let answer = town.world.ask(&town.door, "find", &[&id[44..]]);
    let meant = format!("did you mean {id}?\n");
    assert_eq!(answer.code, Some(1));
    assert!(answer.stderr.ends_with(&meant), "{answer:?}");

    town.native.freeze();
    let found = town.found(&town.door, "cam");
    assert_eq!(
        found.records.len(),
        2,
        "the indexer still answers: {found:?}"
    );
    assert!(!found.complete);
    assert_eq!((found.asked, found.answered), (2, 1), "{found:?}");
    assert_eq!(found.silent, [town.native.id.as_str()]);
    // What is known is the result; that it may not be all is said beside it, once.
    let answer = town.world.ask(&town.door, "find", &["cam"]);
    let (native, indexer) = (town.native.short_id(), town.indexer.short_id());
    let incomplete =
        &format!("oc-discovery: incomplete: 1 of 2 servers asked did not answer (…{native})");
    assert_eq!(answer.code, Some(3));
    assert!(answer.stderr.starts_with(incomplete.as_str()), "{answer:?}");
    assert_eq!(answer.stderr.lines().count(), 1);
    assert!(!answer.stdout.contains("incomplete"), "{answer:?}");
    assert_eq!(answer.stdout.matches("last beat").count(), 2, "{answer:?}");
    let answer = town.world.ask(&town.door, "find", &["window"]);
    // The indexer cannot reach the native either, which is the only other server of the DHT.
    let lacks = format!(
        "1 of 2 servers asked did not answer (…{native}), 1 of 2 servers asked answered in part, because servers behind them did not answer (…{indexer})"
    );
    let sentence = &format!("oc-discovery: no node is known as window; incomplete: {lacks}\n");
    assert_eq!((answer.code, &answer.stderr), (Some(3), sentence));
    assert_eq!(answer.stdout, "");
    let answer = town.world.ask(&town.door, "indexers", &["--json"]);
    let list: IndexerList = json::from_str(&answer.stdout).unwrap();
    assert_eq!((answer.code, list.complete), (Some(3), false), "{answer:?}");
    let known = &list.indexers[0];
    let expected = (town.indexer.id.as_str(), "lease");
    assert_eq!((known.peer_id.as_str(), known.source.as_str()), expected);
}

#[test]
fn more_indexers_than_one_answer_holds_are_all_listed() {
    let world = World::new();
    let native = world.native("native", &[]);
    let names = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r",
    ];
    let indexers = names.map(|name| world.indexer(name, &[&native], &[]));
    native.until("all indexers", SLACK, |s| {
        s.live_indexers.len() == indexers.len()
    });
    let node = world.node("node", &[&native], &[]);
    // While the machine is busy, an answer may be incomplete, and it states this.
    eventually("all of them in one answer", SLACK, || {
        let answer = world.ask(&node, "indexers", &["--json"]);
        let list: IndexerList = json::from_str(&answer.stdout).unwrap();
        let is_listed = |peer: &Peer| list.indexers.iter().any(|l| l.peer_id == peer.id);
        indexers.iter().all(is_listed).then_some(())
    });
}
