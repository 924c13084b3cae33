//! `identity`: a key is saved, restored and removed, and never replaced or shown.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::home::{Ended, Home};

/// A data directory with an identity, and its peer id.
fn made(home: &Home, name: &str) -> (String, String) {
    let dir = home.path(name);
    let source = include_bytes!("identity.key");
    let key = home.path("source.key");
    fs::write(&key, source).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let imported = home.run(&["identity", "import", &dir, &key]);
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let id = home
        .run(&["id", "--data-dir", &dir])
        .stdout
        .trim()
        .to_owned();
    assert!(imported.stdout.contains(&id), "{imported:?}");
    (dir, id)
}

fn id(home: &Home, dir: &str) -> Ended {
    home.run(&["id", "--data-dir", dir])
}

#[test]
fn exported_identity_is_the_same_peer_elsewhere() {
    let home = Home::new();
    let (dir, peer) = made(&home, "one");
    let file = home.path("key");
    let exported = home.run(&["identity", "export", &dir, &file]);
    assert_eq!(exported.code, Some(0), "{exported:?}");
    assert!(exported.stdout.contains("keep it secret"), "{exported:?}");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = home.run(&["identity", "export", &dir, &file]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("exists already"), "{again:?}");
    let other = home.path("two");
    assert_eq!(
        home.run(&["identity", "import", &other, &file]).code,
        Some(0)
    );
    assert_eq!(id(&home, &other).stdout.trim(), peer);
}

#[test]
fn identity_is_not_replaced_by_another_one_before_it_is_reset() {
    let home = Home::new();
    let (dir, peer) = made(&home, "one");
    let other = home.path("other.key");
    // Both keys are test keys of RFC 8032, as libp2p encodes a private key.
    fs::write(&other, include_bytes!("other.key")).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    let refused = home.run(&["identity", "import", &dir, &other]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains(&format!("has the identity {peer} already"))
    );
    assert_eq!(id(&home, &dir).stdout.trim(), peer);
    for name in ["state", "state.old"] {
        fs::write(format!("{dir}/{name}"), "x").unwrap();
    }
    let reset = home.run(&["identity", "reset", &dir]);
    assert_eq!(reset.code, Some(0), "{reset:?}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    assert_eq!(
        home.run(&["identity", "import", &dir, &other]).code,
        Some(0)
    );
    assert_ne!(id(&home, &dir).stdout.trim(), peer);
}

#[test]
fn reset_of_a_directory_without_an_identity_does_nothing_and_fails_if_there_is_none() {
    let home = Home::new();
    let dir = home.path("none");
    let reset = home.run(&["identity", "reset", &dir]);
    reset.failed(1, &[&format!("there is no directory {dir}")]);
    assert!(!fs::exists(&dir).unwrap());
    let empty = home.path("tmp");
    let reset = home.run(&["identity", "reset", &empty]);
    assert!(reset.done().contains("has no identity"), "{reset:?}");
    assert_eq!(home.run(&["identity", "reset"]).code, Some(2));
}

#[test]
fn key_that_others_can_read_or_that_is_none_is_refused() {
    let home = Home::new();
    let dir = home.path("one");
    let file = home.path("key");
    fs::write(&file, include_bytes!("identity.key")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let open = home.run(&["identity", "import", &dir, &file]);
    assert_eq!(open.code, Some(1));
    assert!(open.stderr.contains("chmod 600"), "{open:?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, "no key").unwrap();
    let none = home.run(&["identity", "import", &dir, &file]);
    assert_eq!(none.code, Some(1));
    assert_eq!(id(&home, &dir).code, Some(1));
}

#[test]
fn file_that_is_no_key_is_said_to_be_none_whoever_can_read_it() {
    let home = Home::new();
    let (dir, file) = (home.path("dir"), home.path("node.toml"));
    fs::write(&file, "name = \"cam\"\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let import = |dir: &str, file: &str| home.run(&["identity", "import", dir, file]);
    let made = "give a file that `oc-discovery identity export` has made";
    import(&dir, &file).failed(1, &["node.toml is no identity", made]);
    let none = home.path("none");
    import(&dir, &none).failed(1, &["none: there is no such file"]);
    import(&file, &none).failed(1, &["node.toml: ", "is a file, and no directory"]);
}

#[test]
fn reset_of_what_it_cannot_look_at_fails() {
    let home = Home::new();
    let (there, peer) = made(&home, "there");
    // As without the right to look, but root cannot follow this either.
    let dir = home.path("one");
    std::os::unix::fs::symlink("one", &dir).unwrap();
    let reset = home.run(&["identity", "reset", &dir, &there]);
    reset.failed(1, &["cannot look at", &dir, "as root"]);
    fs::remove_file(&dir).unwrap();
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink("identity", format!("{dir}/identity")).unwrap();
    let reset = home.run(&["identity", "reset", &dir, &there]);
    reset.failed(1, &["cannot look at", "one/identity", "as root"]);
    assert_eq!(id(&home, &there).stdout.trim(), peer);
}

#[test]
fn imported_identity_has_its_mark_until_it_is_reset() {
    let home = Home::new();
    let (dir, _) = made(&home, "one");
    let mark = format!("{dir}/imported");
    assert_eq!(fs::read(&mark).unwrap(), b"");
    home.run(&["identity", "reset", &dir]).done();
    assert!(!fs::exists(&mark).unwrap());
}
