//! Mistakes of operators: what each side says of them, in the log, in `status` and by `doctor`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use oc_discovery::embed::{ServerState, Status};
use rustix::process::Signal;

use super::harness::{Look as _, Peer, SLACK, World, eventually, ms};

pub(crate) fn key_file(world: &World, name: &str, digit: char) -> String {
    let path = world.path(name);
    let key = digit.to_string().repeat(64);
    fs::write(&path, format!("/key/swarm/psk/1.0.0/\n/base16/\n{key}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The sentence of the problem with this code, if there is one.
fn problem(status: &Status, code: &str) -> Option<String> {
    let mut problems = status.problems.iter();
    let found = problems.find(|problem| problem.code == code)?;
    assert!(!found.hint.is_empty(), "{found:?}");
    Some(found.what.clone())
}

/// Waits for the problem. Returns its sentence, which is in the log once.
fn named(peer: &Peer, code: &str) -> String {
    let what = peer.eventually(code, SLACK, |status| problem(status, code));
    assert_eq!(peer.log().matches(&what).count(), 1, "{}", peer.log());
    what
}

#[test]
fn another_key_and_none_is_said_on_both_sides_long_before_the_time_limit() {
    let world = World::new();
    let ours = key_file(&world, "ours", 'a');
    let theirs = key_file(&world, "theirs", 'b');
    let refused = "handshake refused: is the key the same? ";
    for (server, client, at_server, at_client) in [
        (
            Some(&ours),
            Some(&theirs),
            "has another pre-shared key",
            "has another pre-shared key",
        ),
        (
            Some(&ours),
            None,
            "has no pre-shared key, and this process has one",
            "has a pre-shared key, and this process has none",
        ),
        (
            None,
            Some(&theirs),
            "has a pre-shared key, and this process has none",
            "has no pre-shared key, and this process has one",
        ),
    ] {
        let flags = |key: Option<&String>| key.map(|key| vec!["--psk".to_owned(), key.clone()]);
        let [server, client] = [server, client].map(|key| flags(key).unwrap_or_default());
        fn words(flags: &[String]) -> Vec<&str> {
            flags.iter().map(String::as_str).collect()
        }
        let native = world.native("native", &words(&server));
        let node = world.node("node", &[&native], &words(&client));
        let at_node = named(&node, "handshake-refused");
        // The time limit of a handshake is 10 s, and this is seen within moments.
        assert!(node.status().uptime_ms < 8_000 + SLACK.as_millis() as u64);
        assert!(
            at_node.starts_with(&format!("{refused}native …")),
            "{at_node}"
        );
        assert!(at_node.contains(at_client), "{at_node}");
        let at_native = named(&native, "peer-refused");
        let begin = format!("{refused}a peer at 127.0.0.1 {at_server}");
        assert!(at_native.starts_with(&begin), "{at_native}");
        native.until("it is counted", SLACK, |status| {
            status.problems.iter().any(|problem| problem.count > 1)
        });
        drop((native, node));
        for name in ["native", "node"] {
            fs::remove_dir_all(world.path(name)).unwrap();
            fs::remove_file(world.path(&format!("{name}.log"))).unwrap();
        }
    }
}

#[test]
fn doctor_shows_the_same_fingerprint_on_devices_with_the_same_key() {
    let world = World::new();
    let key = key_file(&world, "key", 'a');
    let native = world.native("native", &["--psk", &key]);
    let indexer = world.indexer("indexer", &[&native], &["--psk", &key]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    let fingerprint = native.status().key.unwrap();
    assert_eq!(fingerprint.len(), 32, "{fingerprint}");
    for peer in [&native, &indexer] {
        let told = world.ask(peer, "doctor", &[""; 0]);
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(told.stdout.contains(&fingerprint), "{told:?}");
        assert!(
            told.stdout.trim_end().ends_with("nothing is wrong"),
            "{told:?}"
        );
    }
}

#[test]
fn indexer_or_node_in_the_place_of_a_native_is_said_to_be_none() {
    let world = World::new();
    let native = world.native("native", &[]);
    let indexer = world.indexer("indexer", &[&native], &[]);
    let node = world.node("node", &[&native], &[]);
    for (name, wrong) in [("of-indexer", &indexer), ("of-node", &node)] {
        let peer = world.node(name, &[wrong], &[]);
        let what = named(&peer, "native-is-none");
        assert!(what.contains("is configured as a native"), "{what}");
        peer.until("its state", SLACK, |status| {
            let mut servers = status.servers.iter();
            servers.any(|server| server.state == ServerState::NoNative)
        });
    }
    let second = world.indexer("second", &[&indexer], &[]);
    named(&second, "native-is-none");
}

#[test]
fn another_peer_and_oneself_at_the_address_of_a_native_are_told_apart() {
    let world = World::new();
    let native = world.native("native", &[]);
    let other = world.native("other", &[]);
    let (addr, _) = native.addr.rsplit_once('/').unwrap();
    let wrong = format!("{addr}/{}", other.id);
    let node = world.node("node", &[], &["--native", &wrong]);
    let what = named(&node, "wrong-peer-id");
    assert!(what.contains("answers the peer …"), "{what}");
    let told = world.ask(&node, "doctor", &["--json"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(
        told.stdout.contains(r#""about":"wrong-peer-id""#),
        "{told:?}"
    );
    assert!(
        told.stdout.contains(&format!("/p2p/{}", native.id)),
        "{told:?}"
    );

    let settled = world.settle_native("alone");
    let alone = world.settled(&settled, &[&settled], &[]);
    let what = named(&alone, "itself-as-native");
    assert!(what.contains("with itself as a native"), "{what}");
}

#[test]
fn another_peer_in_the_place_of_a_native_is_over_when_the_native_is_back() {
    let world = World::new();
    let settled = world.settle_native("native");
    let mut native = world.settled(&settled, &[], &[]);
    // The clients wait for seconds between their attempts, so that the native comes first: its
    // refresh dials the indexer that it knows, and the lease goes over that connection.
    let patient = ["--lease", "60s"];
    let indexer = world.indexer("indexer", &[&native], &patient);
    let node = world.node(
        "node",
        &[&native],
        &["--lease", "60s", "--min-indexers", "1"],
    );
    let clients = [&indexer, &node];
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    native.end(Signal::TERM);
    let stranger = world.native("stranger", &["--listen", settled.listen()]);
    let said = clients.map(|client| named(client, "wrong-peer-id"));
    for client in clients {
        assert_eq!(world.ask(client, "doctor", &[""; 0]).code, Some(1));
    }
    drop(stranger);

    let _native = world.settled(&settled, &[], &[]);
    for (client, what) in clients.iter().zip(said) {
        client.until("the problem is over", SLACK, |status| {
            problem(status, "wrong-peer-id").is_none()
        });
        let log = client.log();
        let mut lines = log.lines();
        let over = |line: &str| line.contains("over after ") && line.ends_with(&what);
        assert!(lines.any(over), "{log}");
        client.until("it is well", SLACK, |status| {
            status.verdict.state.word() == "OK"
        });
        let told = world.ask(client, "doctor", &[""; 0]);
        assert_eq!(told.code, Some(0), "{told:?}");
    }
}

#[test]
fn files_that_others_can_read_are_named_with_what_to_type() {
    let world = World::new();
    let key = key_file(&world, "key", 'a');
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let dir = world.path("native");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    let native = world.native("native", &["--psk", &key]);
    named(&native, "data-dir-open");
    named(&native, "key-file-open");
    let told = world.ask(&native, "doctor", &[""; 0]);
    assert_eq!(told.code, Some(1), "{told:?}");
    for what in [
        format!("chmod 700 {}", dir.display()),
        format!("chmod 600 {key}"),
    ] {
        assert!(told.stdout.contains(&what), "{told:?}");
    }
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let told = world.ask(&native, "doctor", &[""; 0]);
    assert_eq!(told.code, Some(0), "{told:?}");
}

#[test]
fn data_directory_that_goes_is_noticed_long_before_the_end() {
    let world = World::new();
    let mut native = world.native("native", &[]);
    let (dir, away) = (world.path("native"), world.path("away"));
    // Once it has answered, the look at the start is done.
    native.status();
    fs::rename(&dir, &away).unwrap();
    // The housekeeping comes each 20 s.
    let within = ms(20_000) + SLACK;
    eventually("the loss", within, || {
        native.log().contains("has gone").then_some(())
    });
    let told = world.ask(&native, "doctor", &[""; 0]);
    assert_eq!(told.code, Some(1), "{told:?}");
    let said = "that directory was removed or replaced, so that the daemon cannot be asked";
    assert!(told.stdout.contains(said), "{told:?}");
    assert!(told.stdout.contains("systemctl restart"), "{told:?}");
    assert!(
        told.stdout.trim_end().ends_with("1 thing is wrong"),
        "{told:?}"
    );
    fs::rename(&away, &dir).unwrap();
    let told = world.ask(&native, "doctor", &[""; 0]);
    assert_eq!(told.code, Some(0), "{told:?}");
    native.end(Signal::TERM);
}

#[test]
fn doctor_without_a_daemon_says_so_and_looks_at_what_it_can() {
    let world = World::new();
    let mut native = world.native("native", &[]);
    native.end(Signal::TERM);
    let told = world.ask(&native, "doctor", &[""; 0]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stdout.contains("no daemon runs on"), "{told:?}");
    assert!(told.stdout.contains(&native.id), "{told:?}");
    assert!(told.stderr.is_empty(), "{told:?}");
}
