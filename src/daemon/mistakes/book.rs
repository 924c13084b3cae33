//! All mistakes with what each side is told of them: the table in `targets/OPERATING.md`, and the
//! problems in the answers that `tests/cli/answers` keeps. Both have the words of this program.

use std::{
    fmt::Write as _,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use miniserde::json;

use super::{
    files::{Files, open_dir, open_key},
    handshakes::{other_key, other_peer, other_protocol, refused_peer},
    pace::{own_flapping, own_too_fast, peer_flapping, peer_too_fast},
    sentences::*,
};
use crate::{
    daemon::{
        clock,
        dial_back::not_reached,
        problems::{Mistake, Problems},
        reload::{Change, failed, needs_restart},
        status::{Problem, Severity, Status},
        storage::identity::IDENTITY,
        testdir::TestDir,
    },
    net::{Why, limits::CONNECTIONS},
    protocol::{Host, Instant, PeerId, Role, TableStats, rivals::Contested},
};

const BEGIN: &str = "<!-- Made by the test of src/daemon/mistakes/book.rs. -->\n";
const END: &str = "<!-- The end of what is made. -->\n";

/// The peers of the examples.
const NATIVE: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
const OTHER: &str = "12D3KooWLq7L496aGpFw3pudszFphQbJnakyLgG9G2AdXLJCrFwk";
const INDEXER: &str = "12D3KooWFLLVeWVwZKyuUpN7i6LXWog5Nk3QQrn3UUZnU89Ty4Hd";
const COPIED: &str = "12D3KooWGjpbnjaVbwNVcNAq7ppw35ATEXtXSXFSzQbgHySjTyGA";
const AT: &str = "203.0.113.7:4820";
const CALLED: &str = "native …UE5UWLE8 at 203.0.113.7:4820";
const CALLED_INDEXER: &str = "indexer …U89Ty4Hd at 192.168.1.9:4821";
const KEY: &str = "5e0c3d8a91b7f24466d1a0c2b9e8f713";
const FOUND: &str =
    "/ip4/192.168.1.2/tcp/4820/p2p/12D3KooWewDbPW4jZEfFKYmsENV5HDB6VrbQDXsMGhsSUE5UWLE8";

/// A mistake, and what one side is told of it.
struct Told {
    mistake: &'static str,
    side: &'static str,
    what: Mistake,
}

fn told(mistake: &'static str, side: &'static str, what: Mistake) -> Told {
    Told {
        mistake,
        side,
        what,
    }
}

fn libp2p_id(id: &str) -> libp2p::PeerId {
    id.parse().unwrap()
}

fn peer(id: &str) -> PeerId {
    PeerId::try_from(libp2p_id(id)).unwrap()
}

fn host(last: u8) -> Host {
    Host::V4([192, 0, 2, last].into())
}

fn keys() -> Vec<Told> {
    let native = |why, own| other_key(why, CALLED, AT.into(), own);
    let here = |why, own| refused_peer(why, &host(30), own);
    let key = Some(KEY);
    let mut all = Vec::new();
    for (mistake, of_client, of_server, client_key, server_key) in [
        (
            "two keys for one network",
            Why::OtherKey,
            Why::OtherKey,
            key,
            key,
        ),
        (
            "a device without the key",
            Why::HasKey,
            Why::NoKey,
            None,
            key,
        ),
        (
            "a server without the key",
            Why::NoKey,
            Why::HasKey,
            key,
            None,
        ),
    ] {
        all.push(told(mistake, "the client", native(of_client, client_key)));
        all.push(told(mistake, "the server", here(of_server, server_key)));
    }
    all
}

fn identities() -> Vec<Told> {
    let contested = |refused| Contested {
        peer: peer(COPIED),
        kept: host(1),
        refused: host(refused),
        at: Instant::from_millis(0),
    };
    let elsewhere = |leases| own_identity_elsewhere((&peer(INDEXER), CALLED_INDEXER), leases);
    let copy = "one identity on two devices";
    let (meant, found) = (libp2p_id(NATIVE), libp2p_id(OTHER));
    vec![
        told(copy, "the server", same_identity(&contested(2))),
        told(
            "the same, behind one address",
            "the server",
            same_identity(&contested(1)),
        ),
        told(copy, "the copy, without another lease", elsewhere(0)),
        told(copy, "the copy, with another lease", elsewhere(1)),
        told(
            "a wrong peer id at an address",
            "the client",
            other_peer(AT, &meant, &found, false),
        ),
        told(
            "its own address with another id",
            "the process",
            other_peer(AT, &meant, &found, true),
        ),
        told("itself as a native", "the process", itself_as_native()),
        told(
            "an indexer or a node as a native",
            "the client",
            no_native_there(CALLED, String::new()),
        ),
        told(
            "another program at an address",
            "the client",
            other_protocol(CALLED, AT.into()),
        ),
    ]
}

fn ways() -> Vec<Told> {
    let names = ["/dnsaddr/natives.example.com".to_owned()];
    let none = |names, found| no_native(Role::Node, 0, false, names, found).unwrap();
    let address = |only_here| no_address(Role::Indexer, only_here, only_here).unwrap();
    let why = "no answer within 3 s";
    vec![
        told(
            "no native is known",
            "an indexer or a node",
            none(&[], None),
        ),
        told(
            "a native of the link is not trusted",
            "an indexer or a node",
            none(&[], Some(FOUND)),
        ),
        told(
            "a name of natives that is not resolved",
            "an indexer or a node",
            none(&names, None),
        ),
        told(
            "an address that others cannot reach",
            "an indexer or a native",
            not_reached(Role::Indexer, CALLED, "198.51.100.9:4821", why),
        ),
        told("no address to announce", "the process", address(false)),
        told("loopback addresses alone", "the process", address(true)),
        told(
            "a native that is not configured here",
            "the native",
            guest(&peer(OTHER), None),
        ),
    ]
}

fn tables() -> Vec<Told> {
    let full = |name, used, granted| {
        let stats = TableStats {
            name,
            used,
            capacity: 512,
            refused: 0,
            evicted: 0,
        };
        nearly_full(&stats, false, granted).unwrap()
    };
    vec![
        told(
            "a table is 90 % full",
            "a server",
            full("directory", 461, 461),
        ),
        told("a table is full", "a server", full("directory", 512, 512)),
        told(
            "many connections, few leases",
            "a server",
            full(CONNECTIONS, 500, 12),
        ),
        told(
            "many connections, many leases",
            "a server",
            full(CONNECTIONS, 500, 490),
        ),
        told("many records", "a server", full("dht_records", 512, 12)),
    ]
}

/// What is said of files, whose directory is called `/DIR` here.
fn files() -> Vec<Told> {
    let scratch = TestDir::new();
    let (dir, key) = (
        scratch.path().join("node"),
        scratch.path().join("swarm.key"),
    );
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    fs::create_dir(&dir).unwrap();
    set(&dir, 0o755);
    fs::write(&key, "").unwrap();
    set(&key, 0o644);
    let (dir_is_open, key_is_open) = (open_dir(&dir).unwrap(), open_key(&key).unwrap());
    set(&dir, 0o700);
    let watched = Files::new(Some(&dir), None);
    let seen = || watched.mistakes().next().unwrap();
    let lost = seen();
    fs::write(dir.join(IDENTITY), "").unwrap();
    let away = scratch.path().join("away");
    fs::rename(&dir, &away).unwrap();
    let gone = seen();
    fs::create_dir(&dir).unwrap();
    let replaced = seen();
    let all = [
        ("a data directory that goes", gone),
        ("another one in its place", replaced),
        ("an identity that goes", lost),
        ("a data directory for others", dir_is_open),
        ("a key file for others", key_is_open),
    ];
    let root = scratch.path().display().to_string();
    let named = |text: String| text.replace(&root, "/DIR");
    let row = |(mistake, what): (_, Mistake)| {
        let what = Mistake {
            what: named(what.what),
            hint: named(what.hint),
            ..what
        };
        told(mistake, "the process", what)
    };
    all.map(row).into()
}

fn settings() -> Vec<Told> {
    let behind = late_time(
        clock::BUILD_MS,
        clock::BUILD_MS + 3 * 24 * 3_600_000,
        Some(Path::new("/DIR/node")),
    );
    let sentence = "/etc/oc-discovery/node.toml:3:9: lease = 90: it is an integer; give a duration in quotes, 1s to \
                    20m, such as \"90s\"";
    let change = Change {
        key: "lease".into(),
        before: vec!["90s".into()],
        after: vec!["60s".into()],
    };
    vec![
        told(
            "a reload of a wrong file",
            "the process",
            failed(&[sentence.into(), String::new()]).unwrap(),
        ),
        told(
            "a reload of what needs a restart",
            "the process",
            needs_restart(&[change], Role::Node).unwrap(),
        ),
        told("a drain that goes on", "the indexer", drained(7)),
        told("a drain that was forgotten", "the indexer", drained(0)),
        told(
            "a clock before the build date",
            "the process",
            early_clock(0).unwrap(),
        ),
        told(
            "a clock that is days behind",
            "the process",
            behind.unwrap(),
        ),
    ]
}

fn paces() -> Vec<Told> {
    let called = format!("…{} at 203.0.113.30", &OTHER[44..]);
    let mistake = "beats that come too fast";
    vec![
        told(mistake, "the server", peer_too_fast(&peer(OTHER), &called)),
        told(mistake, "the client", own_too_fast(&peer(NATIVE), CALLED)),
        told(
            "a device that comes and goes",
            "the server",
            peer_flapping(&peer(OTHER), &called),
        ),
        told(
            "a device that comes and goes",
            "the client",
            own_flapping(
                &peer(NATIVE),
                CALLED,
                "came and went 6 times in ten minutes: rests for 10 s",
            ),
        ),
    ]
}

/// All of them, in the order of the table.
fn book() -> Vec<Told> {
    let parts = [
        keys(),
        identities(),
        ways(),
        tables(),
        paces(),
        files(),
        settings(),
    ];
    parts.into_iter().flatten().collect()
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Notice => "notice",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

fn table() -> String {
    let mut text =
        "| mistake | told to | code | what it says | what to do |\n|---|---|---|---|---|\n"
            .to_owned();
    for Told {
        mistake,
        side,
        what,
    } in book()
    {
        let (code, how, hint) = (what.code, word(what.severity), &what.hint);
        let what = &what.what;
        writeln!(
            text,
            "| {mistake} | {side} | `{code}`, {how} | {what} | {hint} |"
        )
        .unwrap();
    }
    text
}

/// Not included when it is compiled: the sources of a package are without it.
fn operating() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("targets/OPERATING.md")
}

#[test]
fn operators_read_the_sentences_that_are_said() {
    let kept = fs::read_to_string(operating()).unwrap();
    let (before, rest) = kept.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let fresh = format!("{before}{BEGIN}\n{}\n{END}{after}", table());
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(operating(), &fresh).unwrap();
    } else {
        assert_eq!(fresh, kept, "UPDATE_SNAPSHOTS=1 writes it again");
    }
}

/// Every code that a problem can have is in the table of symptoms.
#[test]
fn each_code_has_its_symptom_and_what_to_do() {
    let text = fs::read_to_string(operating()).unwrap();
    let (_, symptoms) = text.split_once("\n## Symptoms\n").unwrap();
    let (symptoms, _) = symptoms.split_once(BEGIN).unwrap();
    for Told { what, .. } in book() {
        let code = format!("`{}`", what.code);
        assert!(symptoms.contains(&code), "{code}");
    }
}

#[test]
fn problems_of_the_answers_for_snapshots_are_those_of_this_program() {
    let said: Vec<Problem> = book()
        .into_iter()
        .flat_map(|told| {
            let mut problems = Problems::default();
            problems.happened(Instant::from_millis(0), told.what);
            problems.report(Instant::from_millis(0))
        })
        .collect();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/answers");
    let mut looked_at = 0;
    for file in fs::read_dir(dir).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let Ok(status) = json::from_str::<Status>(&text) else {
            continue;
        };
        for problem in status.problems {
            looked_at += 1;
            let is_same = |one: &Problem| {
                let sentence = |it: &Problem| {
                    (
                        it.code.clone(),
                        it.severity,
                        it.what.clone(),
                        it.hint.clone(),
                    )
                };
                sentence(one) == sentence(&problem)
            };
            assert!(said.iter().any(is_same), "{problem:#?}");
        }
    }
    assert!(looked_at >= 3, "{looked_at}");
}
