//! Real hosts: containers, file systems that cannot be written, few descriptors.

use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Instant;

use rustix::process::Signal;

use super::harness::{Look, Peer, SLACK, World, ended, ms};
use super::stranger::socket;

/// Starts a command in a namespace of its own, like a container.
const CONTAINER: [&str; 5] = [
    "unshare",
    "--user",
    "--map-root-user",
    "--pid",
    "--kill-child",
];

#[test]
fn daemon_in_another_pid_namespace_is_asked_by_its_user() {
    let world = World::new();
    let wrapper = [&CONTAINER[..], &["--fork"]].concat();
    let native = world.start_by(&wrapper, "native", "native", &[]);
    let answer = world.ask(&native, "status", &["--json"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(answer.stdout.contains(&native.id), "{answer:?}");
    native.until("its own client", SLACK, |status| status.uptime_ms > 0);
}

/// Starts a command with at most this many descriptors.
pub(super) fn with_descriptors(limit: u32) -> [String; 4] {
    let script = format!("ulimit -n {limit} && exec \"$@\"");
    ["sh", "-c", &script, "sh"].map(str::to_owned)
}

#[test]
fn with_forty_descriptors_strangers_take_none_that_the_operator_or_a_node_needs() {
    let world = World::new();
    let wrapper = with_descriptors(40);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let native = world.start_by(&wrapper, "native", "native", &[]);
    let mut strangers = Vec::new();
    for _ in 0..100 {
        strangers.extend(TcpStream::connect_timeout(&socket(&native), SLACK));
        let begin = Instant::now();
        native.status();
        assert!(begin.elapsed() < ms(2000), "{:?}", begin.elapsed());
    }
    assert!(native.descriptors() <= 40);
    let node = world.node("node", &[&native], &[]);
    node.until("its lease", SLACK, |s| s.is_under_native(&native));
    let log = native.log();
    let enough = "the limit of 40 file descriptors is enough for ";
    assert_eq!(log.matches(enough).count(), 1, "{log}");
    assert!(!log.contains("could not take"), "{log}");
    assert!(!log.contains("cannot take"), "{log}");
}

#[test]
fn too_few_descriptors_are_a_sentence_with_the_number_that_is_needed() {
    let world = World::new();
    for limit in [8, 10, 12, 20, 25] {
        let wrapper = with_descriptors(limit);
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let dir = world.path("native");
        let output = ended(&mut world.command_by(&wrapper, "native", &dir, &[]));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{limit}: {stderr}");
        let sentence =
            format!("oc-discovery: the limit of {limit} file descriptors is too low: at least ");
        assert!(stderr.starts_with(&sentence), "{stderr}");
    }
}

#[test]
fn soft_limit_is_raised_to_what_is_needed() {
    let world = World::new();
    let script = ["sh", "-c", "ulimit -S -n 64 && exec \"$@\"", "sh"];
    let native = world.start_by(&script, "native", "native", &[]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", native.pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let soft: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft > 64, "{line}");
}

/// Starts a command in namespaces in which a line of shell has prepared the file system.
fn with_mounts(prepare: &str) -> [String; 8] {
    let script = format!("{prepare} && exec \"$@\"");
    let unshare = ["unshare", "--user", "--map-root-user", "--mount"];
    let [a, b, c, d] = unshare.map(str::to_owned);
    let [e, f, g, h] = ["sh", "-e", "-c", &script].map(str::to_owned);
    [a, b, c, d, e, f, g, h]
}

/// Makes an identity and a state in the directory of `name`. Returns its path.
fn lived_in(world: &World, name: &'static str) -> (PathBuf, String) {
    let mut first = world.native(name, &[]);
    assert_eq!(first.end(Signal::TERM).0.code(), Some(0));
    (world.path(name), first.id.clone())
}

/// Starts a native with a directory that cannot be written, and checks that it serves.
fn serves_without_saving(world: &World, prepare: &str, id: &str) -> Peer {
    let wrapper = with_mounts(prepare);
    let mut wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    wrapper.push("sh");
    let native = world.start_by(&wrapper, "native", "native", &[]);
    assert_eq!(native.id, id);
    let indexer = world.indexer("indexer", &[&native], &[]);
    indexer.until("its lease", SLACK, |s| s.holds_lease_of(&native));
    let log = native.log();
    let said = "cannot be written, so that nothing is saved: ";
    assert_eq!(log.matches(said).count(), 1, "{log}");
    native
}

#[test]
fn native_on_a_read_only_file_system_serves_warns_and_saves_nothing() {
    let world = World::new();
    let (dir, id) = lived_in(&world, "native");
    let dir = dir.display();
    let prepare = format!("mount --bind {dir} {dir} && mount -o remount,bind,ro {dir}");
    let native = serves_without_saving(&world, &prepare, &id);
    assert!(!native.dir().join("control.sock").exists());
    let answer = world.ask(&native, "status", &["--json"]);
    assert!(answer.stdout.contains(&id), "{answer:?}");
}

#[test]
fn native_on_a_file_system_without_inodes_serves_warns_and_saves_nothing() {
    let world = World::new();
    let (dir, id) = lived_in(&world, "native");
    let dir = dir.display();
    // Room for the root, the identity and the state, but not for a lock.
    let prepare = format!(
        "cp -a {dir} {dir}.kept && mount -t tmpfs -o nr_inodes=3,mode=700 none {dir} && \
         cp -p {dir}.kept/identity {dir}.kept/state {dir}/"
    );
    serves_without_saving(&world, &prepare, &id);
}

/// Starts a command without root's right to ignore the modes of files.
const BOUND_BY_MODES: [&str; 5] = [
    "unshare",
    "--user",
    "--map-root-user",
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
];

#[test]
fn native_without_the_right_to_write_its_directory_serves_warns_and_saves_nothing() {
    let world = World::new();
    let (dir, id) = lived_in(&world, "native");
    let state = fs::read(dir.join("state")).unwrap();
    // A lock file of an earlier run can be written, but a missing one cannot be made.
    for lock in [true, false] {
        if !lock {
            fs::remove_file(dir.join("lock")).unwrap();
        }
        fs::set_permissions(&dir, Permissions::from_mode(0o500)).unwrap();
        let mut native = world.start_by(&BOUND_BY_MODES, "native", "native", &[]);
        assert_eq!(native.id, id);
        // Its control socket has a name, as there is no place for it in the directory.
        let answer = world.ask(&native, "status", &["--json"]);
        assert!(answer.stdout.contains(&id), "{answer:?}");
        assert_eq!(native.end(Signal::TERM).0.code(), Some(0));
        let log = native.log();
        let said = "until then nothing is saved";
        assert_eq!(log.matches(said).count(), 1, "{log}");
        assert!(log.contains("Permission denied"), "{log}");
        assert_eq!(fs::read(dir.join("state")).unwrap(), state);
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn state_that_may_not_be_read_costs_what_it_holds_and_not_the_start() {
    let world = World::new();
    let (dir, id) = lived_in(&world, "native");
    let state = dir.join("state");
    let kept = fs::read(&state).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o000)).unwrap();
    let mut native = world.start_by(&BOUND_BY_MODES, "native", "native", &[]);
    assert_eq!(native.id, id);
    assert_eq!(native.end(Signal::TERM).0.code(), Some(0));
    let log = native.log();
    let said = "state cannot be used (Permission denied (os error 13)) and it is now ";
    assert_eq!(log.matches(said).count(), 1, "{log}");
    let aside = dir.join("state.corrupt");
    fs::set_permissions(&aside, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fs::read(aside).unwrap(), kept);
    assert!(!fs::read(state).unwrap().is_empty());
}

#[test]
fn native_without_an_identity_does_not_start_where_none_can_be_saved() {
    let world = World::new();
    let dir = world.path("native");
    fs::create_dir(&dir).unwrap();
    let mount = format!(
        "mount -t tmpfs -o nr_inodes=1,mode=700 none {}",
        dir.display()
    );
    let wrapper = with_mounts(&mount);
    let mut wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    wrapper.push("sh");
    let output = ended(&mut world.command_by(&wrapper, "native", &dir, &[]));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let sentence = "oc-discovery: cannot create the identity ";
    let last = stderr.lines().last().unwrap();
    assert!(
        last.starts_with(sentence) && last.contains("No space left"),
        "{stderr}"
    );
}

#[test]
fn node_is_named_after_its_host_says_so_and_is_found_in_upper_case_too() {
    let world = World::new();
    let native = world.native("native", &[]);
    let wrapper = ["unshare", "--user", "--map-root-user", "--uts"];
    let script = [
        "sh",
        "-c",
        "echo PHost_01 >/proc/sys/kernel/hostname && exec \"$@\"",
        "sh",
    ];
    let wrapper = [&wrapper[..], &script[..]].concat();
    let node = world.start_by(&wrapper, "node", "node", &["--native", &native.addr]);
    native.until("its record", SLACK, |s| s.used("directory") > 0);
    let said = "is named phost-01, after the host name \"PHost_01\"";
    assert_eq!(node.log().matches(said).count(), 1, "{}", node.log());
    for query in ["phost-01", "PHost-01", "PHost_01"] {
        let answer = world.ask(&native, "find", &[query]);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        assert!(answer.stdout.contains(&node.id), "{answer:?}");
    }
}
