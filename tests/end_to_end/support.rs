//! `support`: one file for someone who helps, without a key.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::harness::World;

/// A pre-shared key.
const KEY: &str = "a3f1b60cc4d92e7781f2d7c95b0e4a1366cd98e0f7ab42d1c03e5f8890aabb12";

#[test]
fn support_has_status_settings_and_log_and_no_key() {
    let world = World::new();
    let key = world.path("psk");
    fs::write(&key, format!("/key/swarm/psk/1.0.0/\n/base16/\n{KEY}\n")).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let native = world.native("native", &["--psk", key.to_str().unwrap()]);
    let file = world.path("support.txt");
    let path = file.to_str().unwrap();
    let written = world.ask(&native, "support", &[path]);
    assert_eq!(written.code, Some(0), "{written:?}");
    let text = fs::read_to_string(&file).unwrap();
    for wanted in [
        "== doctor\n",
        "== status\n{\"schema\":1,",
        "== config\n{\"schema\":",
        " starts in the network of the key file",
        &native.id,
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(!text.to_lowercase().contains(KEY), "{text}");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = world.ask(&native, "support", &[path]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("exists already"), "{again:?}");
}
