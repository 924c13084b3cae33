//! Hosts as they are: containers, file systems that take nothing, few descriptors.

use super::harness::{SLACK, World};

/// In a namespace of its own, as a container has it.
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
