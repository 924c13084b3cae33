//! The command line as an operator uses it: real processes, and wrong input of every kind.
//!
//! Every error gives one sentence on stderr and the right exit code.

mod answered;
mod completions;
mod config;
mod home;
mod identity;
mod line;
mod network;
mod schema;
mod snapshots;
mod terminal;
#[path = "../schema/mod.rs"]
mod validator;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use miniserde::{Deserialize, json};
use oc_discovery::protocol::capacities::CAPACITIES;
use rustix::process::{Pid, Signal, kill_process};

use home::{Ended, Home, answering, answering_with};

/// Of the status below.
const ID: &str = "12D3KooW9dwtq5H8YqVXiRsE7Y2zvRUfqr1mVJotFe7zM222ib1y";
const STATUS: &str = include_str!("answers/node-ok.json");

/// Two claimants of one name.
const FOUND: &str = concat!(
    r#"{"schema":1,"query":"cam","complete":true,"asked":1,"answered":1,"silent":[],"refused":[],"partial":[],"#,
    r#""more":false,"claimants":2,"all_counted":true,"records":[{"peer_id":"12D3A","name":"cam","addrs":["/ip4/192.0.2.1/tcp/1"],"#,
    r#""addresses":["/ip4/192.0.2.1/tcp/1"],"state":"alive","last_beat_ms":9,"tags":{"room":"hall"},"#,
    r#""services":[{"name":"http","protocol":"tcp","port":80},{"name":"dns","protocol":"udp","port":53}],"#,
    r#""version":"0.1.0","expires_in_ms":1000,"source":"indexer"},{"peer_id":"12D3B","name":"cam","addrs":[],"#,
    r#""addresses":[],"state":"alive","last_beat_ms":null,"tags":{},"services":[],"version":"","#,
    r#""expires_in_ms":1000,"source":"dht"}]}"#
);

#[test]
fn help_and_version_go_to_stdout() {
    let home = Home::new();
    assert!(home.run(&["--help"]).done().contains("Commands:"));
    let node = home.run(&["node", "--help"]);
    assert!(node.done().contains("--min-indexers"));
    let version = concat!("oc-discovery ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(home.run(&["-V"]).done(), version);
    assert_eq!(home.run(&["--version"]).done(), version);
}

#[test]
fn reader_that_has_gone_is_no_panic() {
    let home = Home::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = home.command(&["--help"]).stdout(writer).spawn().unwrap();
    Ended::wait(child).done();
}

#[test]
fn unknown_commands_and_options_are_usage_errors() {
    let home = Home::new();
    home.run(&[])
        .usage(&["no command", "native, indexer, node"]);
    home.run(&["lisp"]).usage(&["unknown command \"lisp\""]);
    home.run(&["--loud"])
        .usage(&["unknown argument \"--loud\"", "--help"]);
    home.run(&["native", "--loud"])
        .usage(&["\"--loud\"", "native --help"]);
    home.run(&["native", "--name", "x"]).usage(&["\"--name\""]);
    home.run(&["indexer", "--min-indexers", "1"])
        .usage(&["\"--min-indexers\""]);
    home.run(&["node", "--lease"])
        .usage(&["no value", "--lease"]);
    home.run(&["find"]).usage(&["name-or-peer-id"]);
    home.run(&["find", "cam", "ssh"]).usage(&["ssh", "--addr"]);
    home.run(&["find", "--addr", "--json", "cam"])
        .usage(&["--addr", "--json"]);
    home.run(&["id", "here", "a\nb\u{1b}[2J"])
        .usage(&["unknown argument"]);
}

#[test]
fn wrong_addresses_are_usage_errors() {
    let home = Home::new();
    let native = |addr: &str| home.run(&["node", "--native", addr]);
    native("native.example:4820").usage(&["--native", "not a multiaddress"]);
    native("/ip4/192.0.2.1/tcp/4820").usage(&["--native", "/p2p/ID"]);
    native(&format!("/ip4/192.0.2.1/tcp/4820/p2p/{}", &ID[..51]))
        .usage(&["the ID after /p2p has 51 characters, and a peer id has 52"]);
    native(&format!("/ip4/192.0.2.1/tcp/4820/p2p/{}0", &ID[..51]))
        .usage(&["the ID after /p2p has '0' as its character 52"]);
    native(&format!("/ip4/192.0.2.1/tpc/4820/p2p/{}", &ID[..51])).usage(&["not a multiaddress"]);
    native(&format!("/ip4/192.0.2.1/udp/1/p2p/{ID}")).usage(&["--native", "/tcp"]);
    native("/ip4/192.0.2.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
        .usage(&["--native", "Ed25519"]);
    let listen = |addr: &str| home.run(&["native", "--listen", addr]);
    listen("4820").usage(&["--listen", "not a multiaddress"]);
    listen("/dns/a.example/tcp/1").usage(&["--listen", "/ip4/ADDRESS/tcp/PORT"]);
    listen("/ip4/127.0.0.1/tcp/65536").usage(&["--listen", "65536"]);
    let announce = |addr: &str| home.run(&["indexer", "--announce", addr]);
    announce("/dns/192.0.2.1/tcp/1").usage(&["--announce", "/ip4/192.0.2.1"]);
    announce("/dns/b\u{fc}ro.example/tcp/1").usage(&["--announce", "xn--"]);
    announce("/ip4/0.0.0.0/tcp/1").usage(&["--announce", "cannot be dialled"]);
}

#[test]
fn one_port_given_twice_is_not_blamed_on_another_process() {
    let home = Home::new();
    let (all, one) = ("/ip4/0.0.0.0/tcp/4820", "/ip4/127.0.0.1/tcp/4820");
    home.run(&["native", "--listen", all, "--listen", one])
        .usage(&["--listen", one, all, "leave one of the two out"]);
}

#[test]
fn zero_and_absurd_durations_are_usage_errors() {
    let home = Home::new();
    for option in [
        "--beat-interval",
        "--offload-interval",
        "--refresh-interval",
        "--gc-interval",
        "--connect-interval",
    ] {
        for value in ["0s", "99ms", "61m", "99999999999999999999m", "-1s", "soon"] {
            home.run(&["native", option, value])
                .usage(&[option, value, "100ms to 1h"]);
        }
    }
    for value in ["0s", "999ms", "21m", "1"] {
        home.run(&["indexer", "--lease", value])
            .usage(&["--lease", value, "1s to 20m"]);
    }
    home.run(&["indexer", "--lease", "9s", "--beat-interval", "3001ms"])
        .usage(&["--beat-interval", "a third", "9s"]);
}

#[test]
fn wrong_descriptions_of_a_node_are_usage_errors() {
    let home = Home::new();
    let node = |option: &str, value: &str| home.run(&["node", option, value]);
    node("--name", "Camera 3").usage(&["--name", "1 to 63"]);
    node("--name", &"a".repeat(64)).usage(&["--name", "1 to 63"]);
    node("--tag", "room").usage(&["--tag", "KEY=VALUE"]);
    node("--tag", &format!("k={}", "v".repeat(256))).usage(&["--tag", "256"]);
    node("--service", "http").usage(&["--service", "NAME=PORT"]);
    node("--service", "http=0").usage(&["--service", "1 to 65535"]);
    node("--min-indexers", "0").usage(&["--min-indexers", "1 to 8"]);
    node("--min-indexers", "9").usage(&["--min-indexers", "1 to 8"]);
    node("--log", "loud").usage(&["--log", "trace"]);
    node("--data-dir", "").usage(&["--data-dir"]);
    home.run(&["demo", "--speed", "0"])
        .usage(&["--speed", "1 to 100"]);
}

#[test]
fn a_host_name_is_looked_for_by_the_rule_that_named_its_node() {
    let home = Home::new();
    answering(&home.data_dir("node"), FOUND);
    let found = home.run(&["find", "Camera 3"]);
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    let said = "asks for camera-3, the name of a node on a host named Camera 3";
    assert!(found.stderr.contains(said), "{}", found.stderr);
}

#[test]
fn without_any_home_the_data_directory_is_asked_for() {
    let home = Home::new();
    let child = home
        .command(&["native"])
        .env_remove("HOME")
        .spawn()
        .unwrap();
    Ended::wait(child).usage(&["--data-dir", "$STATE_DIRECTORY"]);
}

#[test]
fn no_daemon_is_said_with_how_to_start_one() {
    let home = Home::new();
    let empty = home.path("tmp");
    for command in [&["status"][..], &["indexers"], &["find", "cam"], &["id"]] {
        home.run(command)
            .failed(1, &["no daemon runs", "start one"]);
    }
    for command in [&["status"][..], &["indexers"], &["find", "cam"]] {
        let args = [command, &["--data-dir", &empty]].concat();
        home.run(&args).failed(1, &["no daemon runs", &empty]);
    }
    drop(UnixListener::bind(home.0.join("tmp/control.sock")).unwrap());
    home.run(&["status", "--data-dir", &empty])
        .failed(1, &["no daemon runs"]);
}

#[test]
fn several_daemons_are_listed() {
    let home = Home::new();
    let (native, node) = (home.data_dir("native"), home.data_dir("node"));
    answering(&native, STATUS.trim_end());
    answering(&node, STATUS.trim_end());
    let (native, node) = (native.to_str().unwrap(), node.to_str().unwrap());
    for command in [&["status"][..], &["indexers"], &["find", "cam"], &["id"]] {
        home.run(command).usage(&["--data-dir", native, node]);
    }
    home.run(&["status", "--data-dir", node]).done();
}

#[test]
fn only_daemon_is_asked_without_being_named() {
    let home = Home::new();
    answering(&home.data_dir("node"), STATUS.trim_end());
    let json = home.run(&["status", "--json"]);
    assert_eq!(json.done(), STATUS);
    let text = home.run(&["status"]);
    assert!(text.done().starts_with("OK node: 2 of 2 leases\n"));
    assert_eq!(home.run(&["id"]).done(), format!("{ID}\n"));
}

#[test]
fn status_that_no_terminal_shows_is_not_cut() {
    let long =
        "a cause of eighty columns and more, which a person may want to read to its very end: full";
    let answer = include_str!("answers/node-critical.json").trim_end();
    let answer = answer.replace("no route to host", long);
    assert!(answer.contains(long), "the example has another cause");
    let home = Home::new();
    answering_with(&home.data_dir("node"), move |_| answer.clone());
    let text = home.run(&["status"]);
    assert!(
        text.done().lines().any(|line| line.contains(long)),
        "{text:?}"
    );
}

#[test]
fn directory_is_given_once_as_an_option_or_by_itself() {
    let home = Home::new();
    let (native, node) = (home.data_dir("native"), home.data_dir("node"));
    answering(&native, include_str!("answers/native-ok.json").trim_end());
    answering(&node, STATUS.trim_end());
    let node = node.to_str().unwrap();
    let by_itself = home.run(&["status", node]);
    let option = home.run(&["status", "--data-dir", node]);
    assert_eq!(by_itself.done(), option.done());
    home.run(&["status", "--data-dir", node, node])
        .usage(&["data directory once", node]);
    home.run(&["status", "--json", "--check", node])
        .usage(&["--json", "--check"]);
}

#[test]
fn check_is_one_line_and_a_code_for_nagios() {
    for (answer, code, begins) in [
        (STATUS, 0, "OK node: 2 of 2 leases | leases=2;2:;1:;0;2 "),
        (
            include_str!("answers/node-degraded.json"),
            1,
            "DEGRADED node: 1 of 2 leases; ",
        ),
        (
            include_str!("answers/indexer-critical.json"),
            2,
            "CRITICAL indexer: no native is known, and one that was found on the network is not trusted | leases=0;",
        ),
        (
            include_str!("answers/native-ok.json"),
            0,
            "OK native: 1 indexer alive, 1 known by the DHT only, 12 nodes (12 leases at indexers), 1 node taken in | indexers=1;1:;;0 nodes=1;;;0 leases=1;1:",
        ),
    ] {
        let home = Home::new();
        answering(&home.data_dir("node"), answer.trim_end());
        let checked = home.run(&["status", "--check"]);
        let said = (
            checked.code,
            checked.stdout.lines().count(),
            &*checked.stderr,
        );
        assert_eq!(said, (Some(code), 1, ""), "{}", checked.stdout);
        assert!(checked.stdout.starts_with(begins), "{}", checked.stdout);
        assert_eq!(checked.stdout.matches('|').count(), 1);
    }
}

#[test]
fn check_of_a_daemon_that_does_not_answer_is_critical_and_of_none_in_particular_unknown() {
    let home = Home::new();
    let checked = home.run(&["status", "--check"]);
    assert_eq!((checked.code, &*checked.stderr), (Some(2), ""));
    assert!(checked.stdout.starts_with("CRITICAL no daemon runs"));
    answering(&home.data_dir("native"), STATUS.trim_end());
    answering(&home.data_dir("node"), STATUS.trim_end());
    let checked = home.run(&["status", "--check"]);
    assert_eq!((checked.code, &*checked.stderr), (Some(3), ""));
    assert!(
        checked
            .stdout
            .starts_with("UNKNOWN there are several daemons")
    );
}

#[test]
fn schema_is_printed_without_a_daemon() {
    let schema = include_str!("../../src/daemon/status/schema.json");
    assert_eq!(Home::new().run(&["status", "--schema"]).done(), schema);
}

#[test]
fn state_directory_of_a_service_is_looked_at() {
    let home = Home::new();
    answering(&home.0.join("tmp"), STATUS.trim_end());
    let list = format!("{}:/elsewhere", home.path("tmp"));
    let child = home
        .command(&["id"])
        .env("STATE_DIRECTORY", list)
        .spawn()
        .unwrap();
    assert_eq!(Ended::wait(child).done(), format!("{ID}\n"));
}

#[test]
fn find_prints_every_claimant_or_fails() {
    let home = Home::new();
    answering(&home.data_dir("node"), FOUND);
    let text = home.run(&["find", "cam"]);
    for part in ["12D3A", "12D3B", "/ip4/192.0.2.1/tcp/1", "room=hall"] {
        assert!(text.done().contains(part), "{}", text.stdout);
    }
    let json = home.run(&["find", "--json", "cam"]);
    assert_eq!(json.done(), format!("{FOUND}\n"));
    for (service, addr) in [(None, "192.0.2.1:80\n"), (Some("dns"), "192.0.2.1:53\n")] {
        let args: Vec<_> = ["find", "--addr", "cam"]
            .into_iter()
            .chain(service)
            .collect();
        let one = home.run(&args);
        assert_eq!((one.code, &*one.stdout), (Some(0), addr), "{}", one.stderr);
        let warning = "oc-discovery: 2 nodes claim cam: this is 12D3A\n";
        assert_eq!(one.stderr, warning);
    }
    home.run(&["find", "--addr", "cam", "ssh"])
        .failed(1, &["cam does not offer ssh"]);

    let home = Home::new();
    answering(
        &home.data_dir("node"),
        concat!(
            r#"{"schema":1,"query":"cam","complete":true,"asked":1,"answered":1,"silent":[],"refused":[],"#,
            r#""partial":[],"more":false,"claimants":0,"all_counted":true,"records":[]}"#
        ),
    );
    let unknown = home.run(&["find", "cam"]);
    unknown.failed(1, &["cam"]);
    assert_eq!(unknown.stdout, "");
    home.run(&["find", "pump-*"])
        .usage(&["pump-* is a pattern", "nodes --name pump-`"]);
    home.run(&["find", "*"])
        .usage(&["`oc-discovery nodes` lists all"]);
}

#[test]
fn error_and_nonsense_of_a_daemon_are_failures() {
    let home = Home::new();
    answering(&home.data_dir("node"), r#"{"error":"no indexer answered"}"#);
    home.run(&["find", "cam"])
        .failed(1, &["no indexer answered"]);
    let home = Home::new();
    answering(&home.data_dir("node"), "hello");
    home.run(&["status"]).failed(1, &["no sense"]);
}

#[test]
fn id_is_read_from_the_data_directory_when_nobody_runs() {
    let home = Home::new();
    let key = libp2p::identity::Keypair::ed25519_from_bytes([7; 32]).unwrap();
    let identity = key.to_protobuf_encoding().unwrap();
    let id = format!("{}\n", key.public().to_peer_id());
    let keep = |dir: &Path, bytes: &[u8]| {
        let file = dir.join("identity");
        fs::write(&file, bytes).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    };
    let (indexer, node) = (home.data_dir("indexer"), home.data_dir("node"));
    let indexer_arg = indexer.to_str().unwrap();

    keep(&indexer, &identity);
    assert_eq!(home.run(&["id"]).done(), id);
    let named = home.run(&["id", "--data-dir", indexer_arg]);
    assert_eq!(named.done(), id);

    keep(&node, &identity);
    let several = ["no daemon runs, and several", indexer_arg, "--data-dir"];
    home.run(&["id"]).usage(&several);
    keep(&node, b"short");
    home.run(&["id", "--data-dir", node.to_str().unwrap()])
        .failed(1, &["identity"]);
    let empty = home.path("tmp");
    home.run(&["id", "--data-dir", &empty]).failed(1, &[&empty]);
}

/// What `capacity --json` tells, as far as it is checked here.
#[derive(Deserialize)]
struct CapacityReport {
    version: String,
    capacities: Vec<Row>,
    roles: Vec<Need>,
}

#[derive(Deserialize)]
struct Row {
    variable: String,
    capacity: usize,
}

#[derive(Deserialize)]
struct Need {
    role: String,
    needs_mib: u64,
}

#[test]
fn capacity_is_told_without_a_daemon() {
    let home = Home::new();
    let answer = home.run(&["capacity", "--json"]);
    assert_eq!(answer.done().lines().count(), 1, "{}", answer.stdout);
    let report: CapacityReport = json::from_str(&answer.stdout).unwrap();
    assert_eq!(report.version, env!("CARGO_PKG_VERSION"));
    let text = home.run(&["capacity"]);
    assert_eq!(report.capacities.len(), CAPACITIES.len());
    for (row, built) in report.capacities.iter().zip(CAPACITIES) {
        assert_eq!(
            (&*row.variable, row.capacity),
            (built.variable, built.capacity)
        );
        let line = text.done().lines().find(|l| l.contains(&row.variable));
        assert!(line.unwrap().contains(&format!(" {} x ", row.capacity)));
    }
    let roles: Vec<_> = report.roles.iter().map(|need| &*need.role).collect();
    assert_eq!(roles, ["native", "indexer", "node"]);
    for need in &report.roles {
        let line = format!("{} needs at most about {} MiB", need.role, need.needs_mib);
        assert!(text.done().contains(&line), "{}", text.stdout);
    }
    home.run(&["capacity", "native"]).usage(&["\"native\""]);
}

#[test]
fn port_in_use_is_one_sentence() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    let dir = home.path("data");
    for role in ["native", "indexer", "node"] {
        let args = [role, "--log", "off", "--data-dir", &dir];
        home.run(&[&args[..], &["--listen", &listen]].concat())
            .failed(1, &[&port]);
    }
}

#[test]
fn directory_that_cannot_be_written_is_one_sentence() {
    let home = Home::new();
    // Root may write everywhere, but even root cannot make a directory below a file.
    fs::write(home.path("file"), "").unwrap();
    for dir in [home.path("file"), home.path("file/data")] {
        let args = ["node", "--log", "off", "--data-dir", &dir];
        let listen = ["--listen", "/ip4/127.0.0.1/tcp/0"];
        home.run(&[&args[..], &listen].concat()).failed(1, &[&dir]);
    }
}

#[test]
fn private_network_needs_a_key_file_that_can_be_read() {
    let home = Home::new();
    fs::write(home.path("empty.key"), "").unwrap();
    for file in ["missing.key", "empty.key"] {
        let (dir, psk) = (home.path("data"), home.path(file));
        let args = ["native", "--log", "off", "--data-dir", &dir, "--psk", &psk];
        let listen = ["--listen", "/ip4/127.0.0.1/tcp/0"];
        home.run(&[&args[..], &listen].concat()).failed(1, &[&psk]);
    }
}

#[test]
fn interrupted_demo_leaves_no_process_and_no_file() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let home = Home::new();
        let mut child = home.command(&["demo", "--speed", "1"]).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut told = String::new();
        // The second step begins after the native is ready.
        while !told.contains("2. ") && stdout.read_line(&mut told).unwrap() > 0 {}
        assert!(told.contains("2. "), "{told}");
        assert_ne!(processes_that_mention(&home.path("tmp")), 0);

        kill_process(pid, signal).unwrap();
        Ended::wait(child).failed(1, &["demo: interrupted"]);
        stdout.read_to_string(&mut told).unwrap();
        assert_eq!(fs::read_dir(home.path("tmp")).unwrap().count(), 0);
        assert_eq!(processes_that_mention(&home.path("tmp")), 0);
    }
}

/// Running processes with this text among their arguments.
pub(crate) fn processes_that_mention(text: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap();
    let mentions = |process: PathBuf| {
        fs::read(process.join("cmdline"))
            .is_ok_and(|line| line.windows(text.len()).any(|part| part == text.as_bytes()))
    };
    processes
        .filter(|entry| mentions(entry.as_ref().unwrap().path()))
        .count()
}
