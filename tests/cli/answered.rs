//! What commands show that ask more than once, that look at the host, or that fail: snapshots as in
//! [`super::snapshots`], with the errors and the exit code where there is no terminal.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::home::{Home, answering, answering_with};
use super::snapshots::{answer, differs, masked};
use super::terminal;

/// Those with a status.
const STATES: [&str; 11] = [
    "native-ok",
    "native-degraded",
    "native-critical",
    "native-unannounced",
    "indexer-ok",
    "indexer-degraded",
    "indexer-critical",
    "node-starting",
    "node-ok",
    "node-degraded",
    "node-critical",
];

#[test]
fn check_of_each_state_is_one_line_with_its_code() {
    let mut shown = String::new();
    for state in STATES {
        let home = Home::new();
        let dir = home.data_dir("node");
        answering(&dir, answer(state).trim_end().to_owned().leak());
        transcript(&mut shown, &home, &["status", "--check"]);
    }
    transcript(&mut shown, &Home::new(), &["status", "--check"]);
    assert_eq!(differs("status-check.txt", &shown), None);
}

#[test]
fn metrics_of_a_status_are_as_in_their_snapshot() {
    let home = Home::new();
    answering(
        &home.data_dir("node"),
        answer("node-ok").trim_end().to_owned().leak(),
    );
    let mut shown = String::new();
    transcript(&mut shown, &home, &["status", "--format", "openmetrics"]);
    assert_eq!(differs("status-openmetrics.txt", &masked(&shown)), None);
}

/// Adds a command line, what it writes, and how it ends.
fn transcript(to: &mut String, home: &Home, args: &[&str]) {
    let ended = home.run(args);
    let said = |text: &str| text.replace(&home.path(""), "HOME/");
    let code = ended.code.unwrap();
    writeln!(to, "$ oc-discovery {}", args.join(" ")).unwrap();
    writeln!(
        to,
        "{}{}exit code {code}\n",
        said(&ended.stdout),
        said(&ended.stderr)
    )
    .unwrap();
}

/// A data directory of a daemon that is in order, but for what it answers: `node`, below the home.
fn settled(home: &Home) -> PathBuf {
    let dir = home.0.join("node");
    fs::create_dir(&dir).unwrap();
    let identity = dir.join("identity");
    fs::write(&identity, include_bytes!("identity.key")).unwrap();
    // A new one would be noted, with its age.
    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    let file = fs::File::options().write(true).open(&identity).unwrap();
    file.set_modified(yesterday).unwrap();
    for (path, mode) in [(&identity, 0o600), (&dir, 0o700)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    dir
}

/// The status of this name, of a daemon that listens at this port of the loopback alone.
fn listening(state: &str, port: u16) -> String {
    let status = answer(state);
    let (before, rest) = status.split_once("\"listen\":[").unwrap();
    let (_, after) = rest.split_once(']').unwrap();
    let listen = format!("\"listen\":[\"/ip4/127.0.0.1/tcp/{port}\"");
    format!("{before}{listen}]{}", after.trim_end())
}

/// Without what differs from host to host: whether the clock is synchronised, and directories.
fn of_any_host(shown: &str, home: &Home) -> String {
    let mut text = String::new();
    for line in masked(&shown.replace(&home.path(""), "HOME/")).lines() {
        if line.contains("clock: the system clock") {
            text.push_str("…  clock: (of this host)\n");
        } else if !line.contains("timedatectl timesync-status") {
            writeln!(text, "{line}").unwrap();
        }
    }
    text
}

#[test]
fn doctor_of_each_state_is_shown_as_in_its_snapshot() {
    let mut changed = Vec::new();
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = open.local_addr().unwrap().port();
    for (state, port, name) in [
        ("native-ok", port, "doctor-native-ok"),
        // Nothing listens at the first port.
        ("native-unannounced", 1, "doctor-native-critical"),
        ("indexer-degraded", port, "doctor-indexer-degraded"),
        ("indexer-critical", port, "doctor-indexer-critical"),
        ("node-degraded", port, "doctor-node-degraded"),
        ("node-critical", port, "doctor-node-critical"),
    ] {
        let home = Home::new();
        answering(&settled(&home), listening(state, port).leak());
        changed.extend(on_terminals(&home, &["doctor", "node"], name));
    }
    let home = Home::new();
    settled(&home);
    changed.extend(on_terminals(&home, &["doctor", "node"], "doctor-none"));
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

/// Compares what is shown on terminals of both widths.
fn on_terminals(home: &Home, args: &[&str], name: &str) -> Vec<String> {
    let shown = |columns| {
        let mut command = home.command(args);
        command.current_dir(&home.0);
        command.env("TERM", "xterm").env("NO_COLOR", "1");
        let shown = terminal::shown_with_errors(command, columns);
        differs(&format!("{name}.{columns}.txt"), &of_any_host(&shown, home))
    };
    [80, 120].into_iter().filter_map(shown).collect()
}

#[test]
fn answers_that_lack_something_are_shown_as_in_their_snapshots() {
    let mut changed = Vec::new();
    for (of, args, name) in [
        ("find-none", &["find", "cam"][..], "find-none"),
        ("find-incomplete", &["find", "cam"], "find-incomplete"),
        ("nodes-incomplete", &["nodes"], "nodes-incomplete"),
        ("nodes-none", &["nodes"], "nodes-none"),
        ("indexers-incomplete", &["indexers"], "indexers-incomplete"),
        ("reload-failed", &["reload"], "reload-failed"),
        ("reload-nothing", &["reload"], "reload-nothing"),
        ("refused", &["drain"], "drain-refused"),
    ] {
        let home = Home::new();
        let dir = home.data_dir("node");
        answering(&dir, answer(of).trim_end().to_owned().leak());
        changed.extend(on_terminals(&home, args, name));
    }
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

#[test]
fn drain_tells_of_each_node_that_moves() {
    let home = Home::new();
    let steps = [
        r#"{"schema":1,"draining":true,"nodes":2,"moving":0,"places":12,"handed_over":0,"left":[{"name":"cam-3","peer_id":"12D3A"},{"name":null,"peer_id":"12D3B"}]}"#,
        r#"{"schema":1,"draining":true,"nodes":1,"moving":1,"places":11,"handed_over":1,"left":[{"name":null,"peer_id":"12D3B"}]}"#,
        r#"{"schema":1,"draining":true,"nodes":0,"moving":0,"places":11,"handed_over":1,"left":[]}"#,
    ];
    // The first question of each run begins the drain.
    let looks = AtomicUsize::new(0);
    answering_with(&home.data_dir("node"), move |question| {
        let step = match question.trim() {
            "drain" => {
                looks.store(1, Ordering::Relaxed);
                0
            }
            "drain look" => looks.fetch_add(1, Ordering::Relaxed),
            // A command looks first whether a daemon is there.
            _ => 0,
        };
        steps[step.min(steps.len() - 1)].to_owned()
    });
    let changed = on_terminals(&home, &["drain"], "drain-moves");
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

#[test]
fn support_of_a_directory_that_is_missing_fails_and_writes_nothing() {
    let home = Home::new();
    let (file, dir) = (home.path("support.txt"), home.path("mistyped"));
    home.run(&["support", &file, &dir])
        .failed(1, &["there is no directory", &dir]);
    assert!(!std::path::Path::new(&file).exists());
}

#[test]
fn support_has_all_sections_in_their_order() {
    let home = Home::new();
    let dir = settled(&home);
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = open.local_addr().unwrap().port();
    answering_with(&dir, move |question| match question.trim() {
        "config" => answer("config").trim_end().to_owned(),
        "log" => {
            let line = "2026-01-01T00:00:00.000Z info  native …jr5Bqe3L starts";
            format!(r#"{{"lines":["{line}"]}}"#)
        }
        _ => listening("native-ok", port),
    });
    let dir = dir.to_str().unwrap();
    let written = home.run(&["support", "-", dir]);
    let text = of_any_host(written.done(), &home).replace(&port.to_string(), "PORT");
    let mut shown = String::new();
    for section in text.split("== ").skip(1) {
        let (name, content) = section.split_once('\n').unwrap();
        let content = match name {
            "system" => "(of this host)\n\n".to_owned(),
            "capacity" => content.replace(|c: char| c.is_ascii_digit(), "#"),
            _ => content.to_owned(),
        };
        write!(shown, "== {name}\n{content}").unwrap();
    }
    assert_eq!(differs("support.txt", &shown), None);
}

#[test]
fn mistakes_on_the_command_line_are_answered_as_in_their_snapshot() {
    let home = Home::new();
    let mut shown = String::new();
    let none = home.path("none");
    for args in [
        &[][..],
        &["version"],
        &["statsu"],
        &["status", "--jsno"],
        &["status", "--json", "--check"],
        &["status"],
        &["status", &none],
        &["find"],
        &["find", "cam", "ssh"],
        &["node", "--native", "native.example:4820"],
        &["node", "--lease", "90"],
        &["node", "--log", "loud"],
        &["native", "--name", "x"],
        &["config", "check", &none],
        &["identity", "export", &none, "x.key"],
        &["demo", "--speed", "0"],
    ] {
        let mut one = String::new();
        transcript(&mut one, &home, args);
        shown.push_str(&one.replace(&none, "HOME/none"));
    }
    home.data_dir("native");
    for role in ["native", "node"] {
        answering(&home.data_dir(role), "{}");
    }
    transcript(&mut shown, &home, &["status"]);
    assert_eq!(differs("mistakes.txt", &masked(&shown)), None);
}
