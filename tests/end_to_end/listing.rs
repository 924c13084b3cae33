//! `nodes`: the nodes of the whole network, from any of its machines.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use miniserde::json;
use oc_discovery::embed::IndexerList;
use rustix::process::Signal;

use super::harness::{Answer, Look, Peer, SLACK, World, eventually};

/// The first fields of a row of `nodes --json`.
fn begins(name: &str, node: &Peer, state: &str) -> String {
    let id = &node.id;
    format!(r#"{{"name":"{name}","peer_id":"{id}","state":"{state}","last_beat_ms":"#)
}

/// A native, two indexers, and two nodes.
struct Town {
    world: World,
    native: Peer,
    indexers: [Peer; 2],
    pump: Peer,
    lamp: Peer,
}

impl Town {
    fn new() -> Town {
        let world = World::new();
        let native = world.native("native", &[]);
        let indexers = ["east", "west"].map(|name| {
            // A native lists it for as long, even if it is frozen.
            world.indexer(name, &[&native], &["--lease", "1m"])
        });
        for indexer in &indexers {
            native.until("an indexer", SLACK, |s| s.live(indexer).is_some());
        }
        let offers = [
            "--name",
            "pump-1",
            "--service",
            "http=80",
            "--tag",
            "room=hall",
        ];
        let pump = world.node("pump", &[&native], &offers);
        let lamp = world.node("lamp", &[&native], &["--name", "lamp-1"]);
        for node in [&pump, &lamp] {
            for indexer in &indexers {
                node.until("two leases", SLACK, |s| s.holds_lease_of(indexer));
            }
        }
        Town {
            world,
            native,
            indexers,
            pump,
            lamp,
        }
    }

    fn nodes(&self, asked: &Peer, args: &[&str]) -> Answer {
        self.world.ask(asked, "nodes", args)
    }
}

#[test]
fn every_role_lists_each_node_once_with_all_that_is_known_of_it() {
    let town = Town::new();
    let [east, _] = &town.indexers;
    for asked in [&town.native, east, &town.lamp] {
        let answer = town.nodes(asked, &["--json"]);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        assert!(
            answer
                .stderr
                .contains(": 2 nodes: 2 alive, 0 left, 0 lost; "),
            "{answer:?}"
        );
        let mut rows: Vec<_> = answer.stdout.lines().collect();
        rows.sort_unstable();
        let [lamp, pump] = rows.as_slice() else {
            panic!("{answer:?}");
        };
        assert!(
            lamp.starts_with(&begins("lamp-1", &town.lamp, "alive")),
            "{lamp}"
        );
        assert!(
            pump.starts_with(&begins("pump-1", &town.pump, "alive")),
            "{pump}"
        );
        let addrs = town.pump.status().listen;
        let rest = format!(
            r#","addresses":["{}"],"services":[{{"name":"http","protocol":"tcp","port":80}}],"tags":{{"room":"hall"}},"version":"{}","server":"#,
            addrs[0],
            env!("CARGO_PKG_VERSION"),
        );
        assert!(pump.contains(&rest), "{pump}");
        let holders = town.indexers.each_ref().map(|indexer| {
            let end = format!(r#""server":"{}"}}"#, indexer.id);
            pump.ends_with(&end)
        });
        assert!(holders.contains(&true), "{pump}");
        let table = town.nodes(asked, &[]).stdout;
        let id = &town.pump.id[town.pump.id.len() - 8..];
        let pump = table
            .lines()
            .find(|line| line.starts_with("pump-1 "))
            .unwrap();
        assert!(pump.contains(" alive ") && pump.ends_with(id), "{table}");
    }
}

#[test]
fn nodes_are_selected_by_service_tag_name_and_state() {
    let town = Town::new();
    for (args, shown) in [
        (&["--service", "http"][..], &["pump-1"][..]),
        (&["--service", "https"], &[]),
        (&["--tag", "room=hall", "--name", "pu"], &["pump-1"]),
        (&["--tag", "room=yard"], &[]),
        (&["--name", "lamp"], &["lamp-1"]),
        (&["--state", "left", "--state", "lost"], &[]),
        (&["--state", "alive"], &["lamp-1", "pump-1"]),
    ] {
        let answer = town.nodes(&town.native, args);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        let rows = answer.stdout.lines().skip(1);
        let mut names: Vec<_> = rows.map(|row| row.split(' ').next().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, shown, "{args:?}");
    }
    for args in [
        ["--state", "dead"],
        ["--service", "h_p"],
        ["--tag", "room"],
        ["--name", "A"],
    ] {
        let answer = town.nodes(&town.native, &args);
        assert_eq!(
            (answer.code, answer.stdout.as_str()),
            (Some(2), ""),
            "{answer:?}"
        );
    }
}

#[test]
fn killed_node_becomes_lost_and_a_stopped_one_has_left_and_both_come_last() {
    let mut town = Town::new();
    town.pump.kill();
    town.lamp.end(Signal::TERM);
    let third = town
        .world
        .node("door", &[&town.native], &["--name", "door"]);
    for indexer in &town.indexers {
        third.until("two leases", SLACK, |s| s.holds_lease_of(indexer));
    }
    let expected = [
        begins("door", &third, "alive"),
        begins("pump-1", &town.pump, "lost"),
        begins("lamp-1", &town.lamp, "left"),
    ];
    let [east, _] = &town.indexers;
    for asked in [&town.native, east, &third] {
        let list = eventually("the vanished nodes, and how", SLACK, || {
            let answer = town.nodes(asked, &["--json"]);
            let rows: Vec<_> = answer.stdout.lines().map(String::from).collect();
            let all = rows.len() == 3
                && rows
                    .iter()
                    .zip(&expected)
                    .all(|(row, begin)| row.starts_with(begin));
            all.then_some(answer)
        });
        let lost = list.stdout.lines().nth(1).unwrap();
        let nothing = r#","addresses":[],"services":[],"tags":{},"version":"","server":null}"#;
        assert!(lost.ends_with(nothing), "{lost}");
        assert!(
            list.stderr.contains(": 3 nodes: 1 alive, 1 left, 1 lost; "),
            "{list:?}"
        );
        let lost = town.nodes(asked, &["--state", "lost", "--name", "pump"]);
        assert!(
            lost.stdout
                .lines()
                .nth(1)
                .unwrap()
                .starts_with("pump-1  lost "),
            "{lost:?}"
        );
    }
}

#[test]
fn list_without_a_frozen_server_is_incomplete_and_holds_up_nothing() {
    let town = Town::new();
    let [east, west] = &town.indexers;
    west.freeze();
    let ask = || {
        let mut client = UnixStream::connect(town.native.dir().join("control.sock")).unwrap();
        client.set_read_timeout(Some(SLACK)).unwrap();
        client.write_all(b"nodes {}\n").unwrap();
        BufReader::new(client)
    };
    // Rows come while the listing waits for the frozen server.
    let mut waiting = [ask(), ask()];
    for client in &mut waiting {
        let mut row = String::new();
        client.read_line(&mut row).unwrap();
        assert!(row.contains("\"state\":\"alive\""), "{row}");
    }
    let begin = Instant::now();
    let status = town.native.status();
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    for (table, used) in [("listings", 2), ("control_streams", 2)] {
        assert_eq!(status.used(table), used, "{table}");
    }
    let mut third = String::new();
    ask().read_line(&mut third).unwrap();
    assert!(third.contains("try again in a moment"), "{third}");
    drop(waiting);

    // The command comes back until there is a place.
    let answer = town.nodes(&town.native, &[]);
    assert_eq!(answer.code, Some(3), "{answer:?}");
    assert_eq!(answer.stdout.lines().count(), 3, "{answer:?}");
    let lacks = format!(
        "2 servers asked, 1 answered; incomplete: 1 of 2 servers asked did not answer (…{})\n",
        west.short_id()
    );
    assert!(answer.stderr.ends_with(&lacks), "{answer:?}");
    assert!(!answer.stderr.contains(east.short_id()), "{answer:?}");
    west.signal(Signal::CONT);
    eventually("no listing is left", SLACK, || {
        let status = town.native.status();
        (status.used("listings") == 0 && status.used("control_streams") == 0).then_some(())
    });
}

#[test]
fn reader_that_has_left_ends_the_command_quietly() {
    let town = Town::new();
    let mut command = town.world.asking(&town.native, "nodes", &["--json"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    eventually("the command ended", SLACK, || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn node_whose_native_is_down_shows_the_indexers_that_grant_its_leases() {
    let mut town = Town::new();
    town.native.kill();
    let answer = town.world.ask(&town.lamp, "indexers", &["--json"]);
    let list: IndexerList = json::from_str(&answer.stdout).unwrap();
    let mut ids: Vec<_> = list
        .indexers
        .iter()
        .map(|i| (&i.peer_id, i.source.as_str()))
        .collect();
    ids.sort_unstable();
    let mut both = town
        .indexers
        .each_ref()
        .map(|indexer| (&indexer.id, "lease"));
    both.sort_unstable();
    assert_eq!(ids, both, "{answer:?}");
    assert!(
        list.indexers
            .iter()
            .all(|i| !i.addrs.is_empty() && i.expires_in_ms > 0)
    );
    assert_eq!(
        (list.complete, list.silent),
        (false, vec![town.native.id.clone()])
    );
    let shown = town.world.ask(&town.lamp, "indexers", &[""; 0]);
    assert_eq!(shown.code, Some(3));
    assert!(shown.stdout.contains("grants our lease"), "{shown:?}");
    assert!(!shown.stdout.contains("incomplete"), "{shown:?}");
    assert!(shown.stderr.contains("incomplete: "), "{shown:?}");
}
