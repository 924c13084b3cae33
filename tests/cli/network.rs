//! `network`: the key of a closed network is made once, and what it signs is read back.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use super::home::{Ended, Home};

/// The peer id of `other.key`.
const ID: &str = "12D3KooWDwTirQce1RRKnasT5fPVFgzXCy6SiRgSwrwPGLC7zE91";
/// The peer id of `identity.key`.
const OTHER: &str = "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV";

/// A network's key and its id.
fn made(home: &Home) -> (String, String) {
    let dir = home.path("net");
    let new = home.run(&["network", "new", &dir]);
    assert_eq!(new.code, Some(0), "{new:?}");
    assert!(new.stderr.contains("keep it off line"), "{new:?}");
    (format!("{dir}/network.key"), new.stdout.trim().to_owned())
}

fn with_stdin(home: &Home, args: &[&str], stdin: &str) -> Ended {
    let mut command = home.command(args);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let given = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    given.unwrap();
    Ended::wait(child)
}

fn line_of(result: &Ended) -> String {
    let line = result.done().trim_end().to_owned();
    assert!(!line.contains(char::is_whitespace), "{line}");
    line
}

#[test]
fn key_is_private_and_never_overwritten() {
    let home = Home::new();
    let (key, id) = made(&home);
    assert!(id.starts_with("12D3KooW") && id.len() == 52, "{id}");
    let mode = fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(&key).unwrap();
    let again = home.run(&["network", "new", &home.path("net")]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(1), ""));
    assert!(again.stderr.contains("exists already"), "{again:?}");
    assert_eq!(fs::read(&key).unwrap(), before);
}

#[test]
fn key_that_others_can_read_or_that_is_none_signs_nothing() {
    let home = Home::new();
    let (key, _) = made(&home);
    let grant = || home.run(&["network", "grant", "--key", &key, "--role", "node", ID]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let open = grant();
    assert_eq!((open.code, open.stdout.as_str()), (Some(1), ""));
    assert!(open.stderr.contains("chmod 600"), "{open:?}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "x").unwrap();
    let wrong = grant();
    assert_eq!(wrong.code, Some(1));
    assert!(
        wrong.stderr.contains("no usable key of a network"),
        "{wrong:?}"
    );
    fs::remove_file(&key).unwrap();
    assert_eq!(grant().code, Some(1));
}

#[test]
fn grant_is_one_line_that_says_what_was_typed() {
    let home = Home::new();
    let (key, network) = made(&home);
    let args = [
        "network", "grant", "--key", &key, "--role", "node", "--role", "indexer",
    ];
    let more = ["--name", "*.roof", "--until", "9999-12-31", ID];
    let line = line_of(&home.run(&[&args[..], &more].concat()));
    let shown = home.run(&["network", "show", &line]);
    for part in [
        ID,
        &network,
        "indexer, node",
        "*.roof",
        "ends       9999-12-31T23:59:59Z",
    ] {
        assert!(shown.done().contains(part), "{part}: {shown:?}");
    }
    let json = home.run(&["network", "show", "--json", &line]);
    let json: serde_json::Value = serde_json::from_str(json.done()).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(
        (&json["kind"], &json["ended"]),
        (&"grant".into(), &false.into())
    );
    assert_eq!(
        (json["network"].as_str(), json["peer_id"].as_str()),
        (Some(&*network), Some(ID))
    );
    assert_eq!(json["roles"], serde_json::json!(["indexer", "node"]));
    let piped = with_stdin(&home, &["network", "show", "-"], &format!("{line}\n"));
    assert_eq!(piped.done(), shown.done());
}

#[test]
fn grant_without_an_end_says_so_and_is_shown_from_a_file_as_the_kept_list_is() {
    let home = Home::new();
    let (key, _) = made(&home);
    let endless = home.run(&["network", "grant", "--key", &key, "--role", "node", ID]);
    assert_eq!(endless.code, Some(0));
    assert_eq!(endless.stderr.lines().count(), 1, "{endless:?}");
    assert!(endless.stderr.contains("without an end"), "{endless:?}");
    let file = home.path("grant");
    fs::write(&file, &endless.stdout).unwrap();
    let of_file = home.run(&["network", "show", &file]);
    assert!(of_file.done().contains("ends       never"), "{of_file:?}");

    let revoked = home.run(&["network", "revoke", "--key", &key, OTHER]);
    let of_line = home.run(&["network", "show", revoked.done().trim_end()]);
    let kept = home.run(&["network", "show", &format!("{key}.revoked")]);
    assert!(kept.done().contains(OTHER), "{kept:?}");
    assert_eq!(kept.done(), of_line.done());
    let no_grant = home.run(&["network", "show", &key]);
    no_grant.failed(1, &["this is no grant", "a file with it"]);
}

#[test]
fn ids_from_stdin_are_granted_line_for_line_or_not_at_all() {
    let home = Home::new();
    let (key, _) = made(&home);
    let args = [
        "network",
        "grant",
        "--key",
        &key,
        "--role",
        "node",
        "--until",
        "9999-12-31",
        "--json",
        "-",
    ];
    let granted = with_stdin(&home, &args, &format!("{ID}\n\n  {OTHER}\n"));
    let lines: Vec<serde_json::Value> = granted
        .done()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ids: Vec<_> = lines.iter().map(|line| line["peer_id"].as_str()).collect();
    assert_eq!(ids, [Some(ID), Some(OTHER)]);
    for line in &lines {
        let shown = home.run(&["network", "show", line["grant"].as_str().unwrap()]);
        assert!(shown.done().contains(line["peer_id"].as_str().unwrap()));
    }
    let wrong = with_stdin(&home, &args, &format!("{ID}\n{}\n", &OTHER[..51]));
    assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(2), ""));
    assert!(wrong.stderr.contains("line 2 of stdin"), "{wrong:?}");
    let none = with_stdin(&home, &args, "\n");
    none.usage(&["no device is named"]);
}

#[test]
fn wrong_grants_are_usage_errors() {
    let home = Home::new();
    let (key, _) = made(&home);
    let grant = |args: &[&str]| {
        let begin = ["network", "grant", "--key", &key];
        home.run(&[&begin[..], args].concat())
    };
    grant(&["--role", "boss", ID]).usage(&["--role", "\"boss\"", "native, indexer or node"]);
    grant(&[ID]).usage(&["--role is missing"]);
    grant(&["--role", "node"]).usage(&["no device is named", "oc-discovery id"]);
    grant(&["--role", "node", &ID[..51]]).usage(&["peer id", "51 characters"]);
    grant(&["--role", "node", "--until", "soon", ID]).usage(&["--until", "YYYY-MM-DD"]);
    grant(&["--role", "node", "--until", "2020-01-01", ID]).usage(&["--until", "has passed"]);
    grant(&["--role", "node", "--name", "Pump", ID]).usage(&["--name", "\"Pump\"", "a-z 0-9"]);
    grant(&["--role", "native", "--name", "a", ID]).usage(&["--name", "only nodes"]);
    home.run(&["network", "grant", "--role", "node", ID])
        .usage(&["--key"]);
    home.run(&["network"])
        .usage(&["give one of new, grant, show, revoke"]);
}

#[test]
fn revoked_device_is_in_the_list_and_gets_no_grant() {
    let home = Home::new();
    let (key, network) = made(&home);
    let revoke = |args: &[&str]| {
        let begin = ["network", "revoke", "--key", &key];
        home.run(&[&begin[..], args].concat())
    };
    revoke(&[]).usage(&["no peer is revoked yet"]);
    let first = line_of(&revoke(&[ID]));
    let both = revoke(&["--json", OTHER, ID]);
    assert!(
        both.stderr
            .contains("1 of these devices was revoked before")
    );
    let both: serde_json::Value = serde_json::from_str(&both.stdout).unwrap();
    assert_eq!(both["peers"], serde_json::json!([ID, OTHER]));
    let sequence = |line: &str| {
        let shown = home.run(&["network", "show", "--json", line]);
        let shown: serde_json::Value = serde_json::from_str(shown.done()).unwrap();
        assert_eq!(
            (&shown["kind"], shown["network"].as_str()),
            (&"revocations".into(), Some(&*network))
        );
        shown["sequence"].as_u64().unwrap()
    };
    let second = both["list"].as_str().unwrap();
    assert!(sequence(second) > sequence(&first));
    assert_eq!(both["sequence"].as_u64(), Some(sequence(second)));
    assert_eq!(line_of(&revoke(&[])), second);
    let mode = fs::metadata(home.path("net/network.key.revoked")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let granted = home.run(&["network", "grant", "--key", &key, "--role", "node", ID]);
    assert_eq!((granted.code, granted.stdout.as_str()), (Some(1), ""));
    assert!(granted.stderr.contains("is revoked in"), "{granted:?}");
}

#[test]
fn line_that_was_changed_or_cut_is_not_shown() {
    let home = Home::new();
    let (key, _) = made(&home);
    let args = ["network", "grant", "--key", &key, "--role", "node"];
    let line = line_of(&home.run(&[&args[..], &["--until", "9999-12-31", ID]].concat()));
    let swapped = match line.split_at(line.len() / 2) {
        (begin, end) if end.starts_with('A') => format!("{begin}B{}", &end[1..]),
        (begin, end) => format!("{begin}A{}", &end[1..]),
    };
    for wrong in [
        &swapped,
        &line[4..],
        &line[..line.len() - 4],
        "hello",
        "",
        "\u{fc}",
    ] {
        let shown = home.run(&["network", "show", wrong]);
        assert_eq!(
            (shown.code, shown.stdout.as_str()),
            (Some(1), ""),
            "{wrong}"
        );
        assert!(
            shown.stderr.contains("oc-discovery network grant"),
            "{shown:?}"
        );
    }
}
