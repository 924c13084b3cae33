//! What each command shows, on terminals of 80 and 120 columns, as files in `snapshots/`.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test --test cli snapshots` writes them again; look at the difference
//! before you commit it. The answers of the daemon are files in `answers/`. What varies from
//! machine to machine is masked.

use std::fs;
use std::path::Path;

use super::home::{Home, answering};
use super::terminal;
use crate::validator::refused;

/// An answer of the daemon, the command that shows it, and the name of the snapshot.
const SHOWN: [(&str, &[&str], &str); 23] = [
    ("native-ok", &["status"], "status-native-ok"),
    ("native-degraded", &["status"], "status-native-degraded"),
    ("native-critical", &["status"], "status-native-critical"),
    (
        "native-unannounced",
        &["status"],
        "status-native-unannounced",
    ),
    ("indexer-ok", &["status"], "status-indexer-ok"),
    ("indexer-degraded", &["status"], "status-indexer-degraded"),
    ("indexer-critical", &["status"], "status-indexer-critical"),
    ("node-starting", &["status"], "status-node-starting"),
    ("node-ok", &["status"], "status-node-ok"),
    ("node-degraded", &["status"], "status-node-degraded"),
    ("node-critical", &["status"], "status-node-critical"),
    ("native-ok", &["status", "--all"], "status-all-native"),
    ("indexer-ok", &["status", "--all"], "status-all-indexer"),
    ("node-ok", &["status", "--all"], "status-all-node"),
    ("node-ok", &["id"], "id"),
    ("nodes", &["nodes"], "nodes"),
    ("watch", &["watch"], "watch"),
    ("find", &["find", "cam"], "find"),
    ("indexers", &["indexers"], "indexers"),
    ("config", &["config", "show"], "config-show"),
    ("reload", &["reload"], "reload"),
    ("drained", &["drain"], "drain"),
    ("drained", &["drain", "--undo"], "drain-undo"),
];

pub(crate) fn answer(name: &str) -> String {
    let file = Path::new("tests/cli/answers").join(format!("{name}.json"));
    let text = fs::read_to_string(&file);
    text.unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Compares with the file, or writes it. Returns the name if they differ.
pub(crate) fn differs(name: &str, shown: &str) -> Option<String> {
    let file = Path::new("tests/cli/snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&file, shown).unwrap();
        return None;
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    (kept != shown).then(|| format!("{name} is now:\n{shown}"))
}

/// Times of the clock are not compared.
pub(crate) fn masked(shown: &str) -> String {
    let is_time = |word: &&str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        (word.len(), digits, word.matches(':').count()) == (9, 6, 2)
    };
    let times: Vec<&str> = shown.split_whitespace().filter(is_time).collect();
    let masked = times.into_iter().fold(shown.to_owned(), |text, time| {
        text.replace(time, "hh:mm:ssZ")
    });
    masked.replace(env!("CARGO_PKG_VERSION"), "0.0.0")
}

#[test]
fn every_answer_is_shown_as_in_its_snapshot() {
    let mut changed = Vec::new();
    for (of, args, name) in SHOWN {
        let home = Home::new();
        let dir = home.data_dir("node");
        answering(&dir, answer(of).trim_end().to_owned().leak());
        for columns in [80, 120] {
            let mut command = home.command(args);
            command.env("TERM", "xterm").env("NO_COLOR", "1");
            let shown = masked(&terminal::shown(command, columns));
            assert!(!shown.contains('\x1b'), "{shown:?}");
            changed.extend(differs(&format!("{name}.{columns}.txt"), &shown));
        }
    }
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

/// Commands that ask no daemon, in a home of their own, in which a file of settings has faults.
const LOCAL: [(&[&str], &str); 8] = [
    (&["capacity"], "capacity"),
    (&["config", "check", "node.toml"], "config-check"),
    (&["config", "check", "wrong.toml"], "config-check-wrong"),
    (
        &["identity", "import", "node", "one.key"],
        "identity-import",
    ),
    (
        &["identity", "import", "node", "other.key"],
        "identity-import-other",
    ),
    (
        &["identity", "export", "node", "saved.key"],
        "identity-export",
    ),
    (&["identity", "reset", "node", "none"], "identity-reset"),
    (&["support", "saved.key"], "support-there"),
];

#[test]
fn what_asks_no_daemon_is_shown_as_in_its_snapshot() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut changed = Vec::new();
    for columns in [80, 120] {
        let home = Home::new();
        let write = |name: &str, content: &[u8]| {
            fs::write(home.path(name), content).unwrap();
            let closed = fs::Permissions::from_mode(0o600);
            fs::set_permissions(home.path(name), closed).unwrap();
        };
        write("one.key", include_bytes!("identity.key"));
        write("other.key", include_bytes!("other.key"));
        write(
            "node.toml",
            b"name = \"pump-3\"\ntag = { site = \"roof\" }\n",
        );
        write(
            "wrong.toml",
            b"nam = \"pump-3\"\nmin-indexers = 9\nlog = 3\n",
        );
        for (args, name) in LOCAL {
            let mut command = home.command(args);
            command.current_dir(&home.0);
            command.env("TERM", "xterm").env("NO_COLOR", "1");
            let shown = masked(&terminal::shown_with_errors(command, columns));
            // The sizes of the tables are not what this test is about.
            let shown = match name {
                "capacity" => shown.replace(|c: char| c.is_ascii_digit(), "#"),
                _ => shown.replace(&home.path(""), "HOME/"),
            };
            changed.extend(differs(&format!("{name}.{columns}.txt"), &shown));
        }
    }
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

#[test]
fn help_of_every_command_is_as_in_its_snapshot() {
    let home = Home::new();
    let help = home.run(&["--help"]);
    let commands = help.done().lines().skip_while(|line| *line != "Commands:");
    let commands = commands.skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(commands.len() >= 11, "{commands:?}");
    let mut changed: Vec<String> = differs("help.txt", help.done()).into_iter().collect();
    let below = [
        ["config", "check"],
        ["config", "show"],
        ["identity", "export"],
        ["identity", "import"],
        ["identity", "reset"],
        ["network", "new"],
        ["network", "grant"],
        ["network", "show"],
        ["network", "revoke"],
    ];
    let all = commands.iter().map(std::slice::from_ref);
    for words in all.chain(below.iter().map(<[&str; 2]>::as_slice)) {
        let help = home.run(&[words, &["--help"]].concat());
        let name = format!("help-{}.txt", words.join("-"));
        changed.extend(differs(&name, help.done()));
    }
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

#[test]
fn answers_with_a_status_are_as_the_schema_says() {
    for (of, args, _) in SHOWN.iter().filter(|(_, args, _)| args[0] == "status") {
        assert_eq!(refused(&answer(of)), None, "{of} {args:?}");
    }
}

#[test]
fn no_line_is_wider_than_the_terminal_except_the_option_to_copy() {
    for (of, args, name) in SHOWN.iter().filter(|(_, args, _)| args[0] == "status") {
        let home = Home::new();
        answering(
            &home.data_dir("node"),
            answer(of).trim_end().to_owned().leak(),
        );
        for columns in [60, 80, 120] {
            let mut command = home.command(args);
            command.env("TERM", "xterm").env("NO_COLOR", "1");
            let shown = terminal::shown(command, columns);
            // Letters of East Asia take two columns.
            let width = |line: &str| {
                line.chars().count()
                    + line
                        .matches(|c| ('\u{2e80}'..'\u{a4d0}').contains(&c))
                        .count()
            };
            let wide = shown.lines().filter(|line| !line.contains("/p2p/"));
            let wide: Vec<&str> = wide
                .filter(|line| width(line) > usize::from(columns))
                .collect();
            assert!(wide.is_empty(), "{name} {columns}: {wide:#?}");
        }
    }
}

#[test]
fn colour_is_for_a_terminal_that_takes_it() {
    let home = Home::new();
    let text = answer("node-critical");
    answering(&home.data_dir("node"), text.trim_end().to_owned().leak());
    let on = |set: &[(&str, &str)]| {
        let mut command = home.command(&["status"]);
        command.envs(set.iter().copied());
        terminal::shown(command, 80)
    };
    let coloured = on(&[("TERM", "xterm")]);
    assert!(
        coloured.starts_with("\x1b[1;31mCRITICAL\x1b[0m node:"),
        "{coloured:?}"
    );
    for without in [
        &[("TERM", "dumb")][..],
        &[("TERM", "xterm"), ("NO_COLOR", "1")],
        &[],
    ] {
        let plain = on(without);
        assert!(!plain.contains('\x1b'), "{without:?}: {plain:?}");
    }
    let piped = home.run(&["status"]);
    assert!(!piped.done().contains('\x1b'), "{}", piped.stdout);
}
