//! The program as a service on a device: the notifications to the service manager, and a clock that
//! starts in 1970.

use std::ffi::OsString;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use miniserde::json;
use oc_discovery::embed::Found;
use rustix::process::Signal;

use super::harness::{Look, Peer, SLACK, World, eventually};

/// A service manager: its socket, bound in a test's directory.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(world: &World) -> Manager {
        let path = world.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(SLACK)).unwrap();
        Manager { socket, path }
    }

    fn env(&self) -> (&'static str, OsString) {
        ("NOTIFY_SOCKET", self.path.clone().into())
    }

    /// The next message.
    fn hears(&self) -> String {
        let mut buffer = [0; 512];
        let length = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }
}

#[test]
fn service_manager_hears_ready_then_signs_of_life_then_the_end() {
    let world = World::new();
    let manager = Manager::new(&world);
    let env = [manager.env(), ("WATCHDOG_USEC", "200000".into())];
    let mut native = world.start_with("native", "native", &[], &env);
    let ready = "READY=1\nSTATUS=STARTING native: no indexer is alive, 0 nodes taken in";
    assert_eq!(manager.hears(), ready);
    for _ in 0..3 {
        assert_eq!(manager.hears(), "WATCHDOG=1");
    }
    let _indexer = world.indexer("indexer", &[&native], &[]);
    let alive = "WATCHDOG=1\nSTATUS=OK native: 1 indexer alive, 0 nodes taken in";
    while manager.hears() != alive {}
    assert_eq!(native.end(Signal::TERM).0.code(), Some(0));
    let last = "STOPPING=1\nSTATUS=gives up its leases";
    while manager.hears() != last {}
}

#[test]
fn without_a_watchdog_only_the_start_and_the_end_are_told() {
    let world = World::new();
    let manager = Manager::new(&world);
    let mut node = world.start_with("node", "node", &[], &[manager.env()]);
    assert_eq!(
        manager.hears(),
        "READY=1\nSTATUS=STARTING node: 0 of 2 leases"
    );
    node.end(Signal::TERM);
    assert!(manager.hears().starts_with("STOPPING=1\n"));
    manager.socket.set_nonblocking(true).unwrap();
    assert!(manager.socket.recv(&mut [0; 8]).is_err());
}

#[test]
fn service_manager_hears_when_a_reload_begins_and_when_it_is_done() {
    let world = World::new();
    let manager = Manager::new(&world);
    let node = world.start_with("node", "node", &[], &[manager.env()]);
    assert!(manager.hears().starts_with("READY=1\nSTATUS="));
    node.signal(Signal::HUP);
    let begins = manager.hears();
    let time = begins.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    let (time, status) = time.split_once('\n').unwrap();
    // The machine has been up for longer than a second.
    assert!(time.parse::<u64>().unwrap() > 1_000_000, "{time}");
    assert_eq!(status, "STATUS=reloads its configuration");
    assert!(manager.hears().starts_with("READY=1\nSTATUS="));
}

/// Runs a process with a clock that began at zero an hour ago. `cc` is installed, because building
/// the cryptography needs it.
fn in_1970(world: &World) -> [(&'static str, OsString); 1] {
    let library = world.path("in_1970.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_to_end/in_1970.c");
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .status()
        .unwrap();
    assert!(made.success());
    [("LD_PRELOAD", library.into())]
}

fn says_so(peer: &Peer) {
    eventually("the warning", SLACK, || {
        peer.log()
            .contains("the system clock is before the build date")
            .then_some(())
    });
}

#[test]
fn device_without_a_clock_takes_the_time_from_its_server_and_is_found() {
    let world = World::new();
    let native = world.native("native", &[]);
    let args = ["--native", &native.addr];
    let indexer = world.start_with("indexer", "indexer", &args, &in_1970(&world));
    says_so(&indexer);
    native.until("its record", SLACK, |s| s.live(&indexer).is_some());
    let args = ["--native", &native.addr, "--name", "cam"];
    let mut node = world.start_with("node", "node", &args, &in_1970(&world));
    says_so(&node);
    node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));

    // The asking node has a right clock. By this clock the record has not expired; a record signed
    // at the build date would have expired long ago.
    let asking = world.node("asking", &[&native], &[]);
    asking.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
    eventually("the node, by its name, with time to live", SLACK, || {
        let answer = world.ask(&asking, "find", &["--json", "cam"]);
        let found: Found = json::from_str(&answer.stdout).unwrap();
        let of_node = found.records.iter().find(|r| r.peer_id == node.id)?;
        (of_node.expires_in_ms > 0).then_some(())
    });

    // The learned time is a lower bound at the next start, whatever the system clock shows.
    node.end(Signal::TERM);
    let node = world.start_with("node", "node", &["--name", "cam"], &in_1970(&world));
    node.until("its lease again", SLACK, |s| s.holds_lease_of(&indexer));
}

#[test]
fn native_without_a_clock_misleads_nobody() {
    let world = World::new();
    let native = world.start_with("native", "native", &[], &in_1970(&world));
    says_so(&native);
    let indexer = world.indexer("indexer", &[&native], &[]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    let node = world.node("node", &[&native], &["--name", "cam"]);
    node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
    eventually("the node, by its name", SLACK, || {
        let answer = world.ask(&native, "find", &["cam"]);
        (answer.code == Some(0) && answer.stdout.contains(&node.id)).then_some(())
    });
}
