//! A daemon takes over a changed file while it runs: at the command `reload`, and at SIGHUP.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use miniserde::json;
use oc_discovery::embed::Found;
use rustix::process::Signal;

use super::harness::{Answer, Look as _, Peer, SLACK, World, eventually};

/// The file of a process under test.
struct Settings(PathBuf);

impl Settings {
    fn new(world: &World) -> Self {
        Self(world.path("settings.toml"))
    }

    fn write(&self, lines: &[&str]) {
        fs::write(&self.0, lines.join("\n")).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

fn natives(of: &[&Peer]) -> String {
    let addrs: Vec<_> = of
        .iter()
        .map(|native| format!("{:?}", native.addr))
        .collect();
    format!("native = [{}]", addrs.join(", "))
}

/// `service name:port` of each service, and each tag, as another node finds them.
fn found(world: &World, asked: &Peer) -> Vec<String> {
    let answer = world.ask(asked, "find", &["--json", "cam"]);
    let found: Found = json::from_str(&answer.stdout).unwrap();
    let Some(record) = found.records.into_iter().next() else {
        return Vec::new();
    };
    let services = record.services.into_iter();
    let services = services.map(|service| format!("{}={}", service.name, service.port));
    let tags = record
        .tags
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"));
    services.chain(tags).collect()
}

fn reload(world: &World, peer: &Peer) -> Answer {
    world.ask::<&str>(peer, "reload", &[])
}

/// What `status` says of a problem with this code.
fn problem(peer: &Peer, code: &str) -> Option<String> {
    let mut problems = peer.status().problems.into_iter();
    let found = problems.find(|problem| problem.code == code)?;
    Some(found.what)
}

#[test]
fn what_can_change_is_applied_and_what_needs_a_restart_is_said() {
    let world = World::new();
    let (one, other) = (world.native("one", &[]), world.native("other", &[]));
    let indexer = world.indexer("indexer", &[&one, &other], &[]);
    let asker = world.node("asker", &[&one], &["--name", "asker"]);
    let file = Settings::new(&world);
    let describe = |natives: &str, more: &[&str]| {
        file.write(&[&[natives, "name = \"cam\""], more].concat());
    };
    let http = ["[[service]]", "name = \"http\"", "port = 80"];
    let before = [
        &["min-indexers = 1", "log = \"error\"", "tag.room = \"hall\""],
        &http[..],
    ]
    .concat();
    describe(&natives(&[&one]), &before);
    let cam = world.node("cam", &[], &["--config", file.path()]);
    cam.until("a lease", SLACK, |status| status.holds_lease_of(&indexer));
    let is_found = |what: &[&str]| {
        eventually("the record", SLACK, || {
            (found(&world, &asker) == what).then_some(())
        });
    };
    is_found(&["http=80", "room=hall"]);

    let ssh = ["[[service]]", "name = \"ssh\"", "port = 22"];
    let changed = ["min-indexers = 2", "log = \"info\"", "tag.room = \"roof\""];
    describe(
        &natives(&[&one, &other]),
        &[&changed, &http[..], &ssh].concat(),
    );
    let answer = reload(&world, &cam);
    let (a, b) = (&one.addr, &other.addr);
    let told = format!(
        "native: {a} -> {a}, {b}\nlog: error -> info\ntag: room=hall -> room=roof\n\
         service: http=80 -> http=80, ssh=22\n\
         min-indexers: 1 -> 2: needs a restart, unchanged until then\n"
    );
    assert_eq!(
        (answer.code, &*answer.stdout),
        (Some(0), &*told),
        "{}",
        answer.stderr
    );
    is_found(&["http=80", "ssh=22", "room=roof"]);
    cam.until("both natives", SLACK, |status| status.natives.len() == 2);
    cam.logs("reloaded the configuration: applied native, log, tag, service");
    let waits = problem(&cam, "restart-needed").unwrap();
    assert!(
        waits.ends_with("only by a restart: min-indexers"),
        "{waits}"
    );
    cam.logs(&waits);
    assert!(
        world
            .ask::<&str>(&cam, "doctor", &[])
            .stdout
            .contains(&waits)
    );
    assert_eq!(reload(&world, &cam).code, Some(0));
    assert_eq!(problem(&cam, "restart-needed"), Some(waits));

    // The lease of the indexer goes on while a native goes.
    describe(&natives(&[&other]), &before);
    cam.signal(Signal::HUP);
    let only = [other.addr.clone()];
    cam.until("the other native alone", SLACK, |status| {
        status.natives == only
    });
    is_found(&["http=80", "room=hall"]);
    assert!(cam.status().holds_lease_of(&indexer));
    assert_eq!(problem(&cam, "restart-needed"), None);
    let applied = "reloaded the configuration: applied native, log, tag, service";
    eventually("the second line", SLACK, || {
        (cam.log().matches(applied).count() == 2).then_some(())
    });
    assert_eq!(reload(&world, &cam).stdout, "nothing has changed\n");
    assert_eq!(
        cam.log().matches("nothing to apply").count(),
        1,
        "errors alone are logged again"
    );
}

#[test]
fn native_forgets_a_fellow_and_an_indexer_a_native() {
    let world = World::new();
    let one = world.native("one", &[]);
    let file = Settings::new(&world);
    file.write(&[&natives(&[&one])]);
    for role in ["native", "indexer"] {
        let name = if role == "native" {
            "fellow"
        } else {
            "indexer"
        };
        let peer = world.start(role, name, &["--config", file.path()]);
        peer.until("its lease", SLACK, |status| status.holds_lease_of(&one));
        file.write(&[&natives(&[&peer])]);
        assert_eq!(reload(&world, &peer).code, Some(0));
        peer.until("none", SLACK, |status| !status.holds_lease_of(&one));
        one.until("it to leave", SLACK, |status| {
            status.stream_record(&peer).is_none()
        });
        file.write(&[&natives(&[&one])]);
        peer.signal(Signal::HUP);
        peer.until("it again", SLACK, |status| status.holds_lease_of(&one));
    }
}

#[test]
fn bad_file_changes_nothing_and_its_errors_reach_the_caller() {
    let world = World::new();
    let native = world.native("native", &[]);
    let file = Settings::new(&world);
    let good = [
        &*natives(&[&native]),
        "name = \"cam\"",
        "tag.room = \"hall\"",
    ];
    file.write(&good);
    let cam = world.node("cam", &[], &["--config", file.path()]);
    cam.until("a lease", SLACK, |status| status.holds_lease_of(&native));
    file.write(&["log = \"loud\"", "name = \"cam\"", "tags.room = \"roof\""]);
    let answer = reload(&world, &cam);
    let path = file.path();
    let said = format!(
        "oc-discovery: {path}:1:7: log = \"loud\": give one of off, error, warn, info, debug, trace\n\
         oc-discovery: {path}:3:1: unknown key \"tags\": did you mean \"tag\"?\n"
    );
    assert_eq!((answer.code, &*answer.stderr), (Some(2), &*said));
    assert_eq!(answer.stdout, "");
    let answer = world.ask(&cam, "reload", &["--json"]);
    assert_eq!((answer.code, &*answer.stderr), (Some(2), ""));
    assert!(answer.stdout.contains(":1:7: log = "), "{answer:?}");
    cam.signal(Signal::HUP);
    let wrong = format!("the configuration is wrong, nothing has changed: {path}:1:7");
    eventually("all errors", SLACK, || {
        (cam.log().matches(&wrong).count() == 3).then_some(())
    });
    let failed = problem(&cam, "reload-failed").unwrap();
    let first = format!("{path}:1:7: log = \"loud\": give one of ");
    assert!(
        failed.contains(&first) && failed.ends_with("trace (and 1 more)"),
        "{failed}"
    );
    assert_eq!(cam.status().tags["room"], "hall");
    assert_eq!(cam.status().natives, std::slice::from_ref(&native.addr));
    fs::remove_file(path).unwrap();
    assert_eq!(
        reload(&world, &cam).code,
        Some(2),
        "it was given and is gone"
    );
    assert_eq!(cam.status().tags["room"], "hall");
    assert!(
        problem(&cam, "reload-failed")
            .unwrap()
            .contains("No such file")
    );
    assert!(!cam.log().contains("over after"), "the trouble goes on");
    file.write(&good);
    assert_eq!(reload(&world, &cam).stdout, "nothing has changed\n");
    assert_eq!(problem(&cam, "reload-failed"), None);
    assert_eq!(cam.log().matches("over after").count(), 1);
}

#[test]
fn hangup_usr1_and_usr2_end_no_daemon() {
    let world = World::new();
    for role in ["native", "indexer", "node"] {
        let peer = world.start(role, "peer", &[]);
        let dir = peer.dir().to_owned();
        for times in 1..=2 {
            peer.signal(Signal::USR1);
            peer.signal(Signal::USR2);
            peer.signal(Signal::HUP);
            eventually("the reload", SLACK, || {
                let done = "reloaded the configuration: nothing to apply";
                (peer.log().matches(done).count() >= times).then_some(())
            });
        }
        peer.status();
        drop(peer);
        fs::remove_dir_all(dir).unwrap();
        fs::remove_file(world.path("peer.log")).unwrap();
    }
}

#[test]
fn settings_of_a_running_daemon_are_shown_with_their_places() {
    let world = World::new();
    let file = Settings::new(&world);
    file.write(&["# a native", "log = \"warn\"", "beat-interval = \"900ms\""]);
    let native = world.native("native", &["--config", file.path()]);
    let show = || {
        let mut show = Command::new(env!("CARGO_BIN_EXE_oc-discovery"));
        show.env_clear().args(["config", "show", "--data-dir"]);
        let shown = show.arg(native.dir()).output().unwrap();
        String::from_utf8(shown.stdout).unwrap()
    };
    let has = |shown: &str, words: &[&str]| {
        let is_it = |line: &str| line.split_whitespace().eq(words.iter().copied());
        assert!(shown.lines().any(is_it), "{words:?} is not in\n{shown}");
    };
    let at = |line: u32| format!("{}:{line}", file.path());
    has(&show(), &["log", "warn", &at(2)]);
    has(&show(), &["lease", "3s", "--lease"]);
    has(&show(), &["trust-lan", "false", "default"]);
    // The lease is too short for this one, and the listen address is that of the command line.
    file.write(&[
        "log = \"info\"",
        "beat-interval = \"100ms\"",
        "psk = \"/none\"",
    ]);
    assert_eq!(reload(&world, &native).code, Some(0));
    has(&show(), &["log", "info", &at(1)]);
    has(&show(), &["beat-interval", "100ms", &at(2)]);
    has(&show(), &["psk", "-", "default"]);
}
