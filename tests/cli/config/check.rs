//! `config check`: which role a file is for, what is read with it, and the files that it names.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::home::{Ended, Home};

#[test]
fn role_of_a_file_is_that_of_its_name_or_all_that_it_suits() {
    let home = Home::new();
    let file = home.path("site.toml");
    let check = |more: &[&str]| home.run(&[&["config", "check", &*file], more].concat());
    fs::write(&file, "lease = \"60s\"\n").unwrap();
    let all = format!("{file}: in order, for the roles native, indexer, node\n");
    assert_eq!(check(&[]).done(), all);
    fs::write(&file, "min-indexers = 2\n").unwrap();
    let node = format!("{file}: in order, for the role node\n");
    assert_eq!(check(&[]).done(), node);
    check(&["--role", "lamp"]).usage(&["lamp", "native, indexer or node"]);
    assert_eq!(check(&["--role", "node"]).done(), node);
    check(&["--role", "native"]).usage(&["only a node"]);
    symlink(&file, home.path("native.toml")).unwrap();
    home.run(&["config", "check", &home.path("native.toml")])
        .usage(&["only a node"]);
    fs::write(&file, "min-indexers = 2\nlog = 1\n").unwrap();
    check(&[]).usage(&["site.toml:2:7: log = 1"]);
}

#[test]
fn file_is_checked_with_those_that_a_daemon_reads_with_it() {
    let home = Home::new();
    let (main, first, second) = (
        home.path("node.toml"),
        home.path("node.d/10-a.toml"),
        home.path("node.d/20-b.toml"),
    );
    fs::create_dir(home.path("node.d")).unwrap();
    let read = format!("read together, the last one wins: {main}, {first}, {second}\n");
    for (main_text, first_text, second_text, sentence) in [
        ("lease = \"9s\"", "", "beat-interval = \"2s\"", None),
        (
            "lease = \"9s\"",
            "",
            "\nbeat-interval = \"4s\"",
            Some((&second, ":2:17: beat-interval")),
        ),
        ("lease = 1", "", "", Some((&main, ":1:9: lease"))),
        // The last one wins, whatever those before have.
        (
            "min-indexers = 9",
            "min-indexers = 9",
            "min-indexers = 2",
            None,
        ),
        (
            "",
            "min-indexers = 9",
            "",
            Some((&first, ":1:16: min-indexers")),
        ),
    ] {
        for (file, text) in [
            (&main, main_text),
            (&first, first_text),
            (&second, second_text),
        ] {
            fs::write(file, text).unwrap();
        }
        for file in [&main, &first, &second] {
            let checked = home.run(&["config", "check", file]);
            match sentence {
                None => assert_eq!(
                    checked.done(),
                    format!("{file}: in order, for the role node\n{read}")
                ),
                Some((at, place)) => checked.usage(&[&format!("{at}{place}")]),
            }
        }
    }
    // In the directory itself, and without the file before it.
    fs::remove_file(&main).unwrap();
    fs::write(&first, "").unwrap();
    let mut command = home.command(&["config", "check", "10-a.toml"]);
    let checked = Ended::wait(command.current_dir(home.path("node.d")).spawn().unwrap());
    let told = format!(
        "10-a.toml: in order, for the role node\nread together, the last one wins: {first}, {second}\n"
    );
    assert_eq!(checked.done(), told);
    for none in ["node.d/30-c.toml", "node.d/10-a.conf"] {
        let none = home.path(none);
        home.run(&["config", "check", &none])
            .failed(1, &[&none, "are there and end in .toml"]);
    }
}

#[test]
fn files_that_a_file_names_are_looked_at() {
    let home = Home::new();
    let (file, secret) = (home.path("node.toml"), home.path("secret"));
    let check = |text: &str, mode: u32, content: &str| {
        fs::write(&file, text.replace("SECRET", &secret)).unwrap();
        fs::write(&secret, content).unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(mode)).unwrap();
        home.run(&["config", "check", &file])
    };
    let key = |digits: &str| format!("/key/swarm/psk/1.0.0/\n/base16/\n{digits}\n");
    let random = key("6f3a91d2c07be85514a9fe0672cd38b1904e7dd35ac81f26eb6b0947f2a1583c");
    let (psk, token) = (
        "psk = \"SECRET\"",
        "http = \"127.0.0.1:1\"\nhttp-token = \"SECRET\"",
    );
    let hex = "0123456789abcdef";
    for (text, mode, content, warning) in [
        (psk, 0o600, &*random, ""),
        (psk, 0o640, &random, ""),
        (
            psk,
            0o644,
            &random,
            "node.toml:1:7: others can read or change the key file",
        ),
        (
            psk,
            0o600,
            &key(&"ab".repeat(32)),
            "node.toml:1:7: key file",
        ),
        (token, 0o600, hex, ""),
        (token, 0o604, hex, "node.toml:2:14: http-token"),
    ] {
        let checked = check(text, mode, content);
        assert_eq!(checked.code, Some(0), "{}", checked.stderr);
        assert_eq!(
            checked.stderr.is_empty(),
            warning.is_empty(),
            "{}",
            checked.stderr
        );
        assert!(checked.stderr.contains(warning), "{}", checked.stderr);
    }
    check(psk, 0o600, "x").usage(&[":1:7: key file", "line 1 is not"]);
    check(token, 0o600, "x").usage(&[":2:14: http-token", "16 to 256"]);
    fs::remove_file(&secret).unwrap();
    let check = || home.run(&["config", "check", &file]);
    check().usage(&[":2:14: http-token", "No such file"]);
    fs::write(&file, format!("\npsk = {secret:?}")).unwrap();
    check().usage(&[":2:7: key file", "No such file"]);
    // In the same run as what else is wrong.
    fs::write(&file, format!("lease = 9\npsk = {secret:?}\nleese = 1")).unwrap();
    let checked = check();
    assert_eq!(checked.code, Some(2), "{}", checked.stderr);
    for part in [":1:9: lease", ":3:1: unknown key", ":2:7: key file"] {
        assert!(checked.stderr.contains(part), "{}", checked.stderr);
    }
    fs::write(&file, "psk = \"here\"").unwrap();
    let checked = check();
    assert!(
        checked.stderr.contains("give the whole path"),
        "{}",
        checked.stderr
    );
}
