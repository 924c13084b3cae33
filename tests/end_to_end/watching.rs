//! `oc-discovery watch`: each change is reported once, within a second after a server knows it,
//! whatever breaks; and the handlers of the README.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use miniserde::{Deserialize, json};
use rustix::process::{Pid, Signal, kill_process};

use super::harness::{Peer, SLACK, World, eventually, lines_of};

/// How long after a server knows of a change its line may come (PROTOCOL.md, section 5).
const IN_TIME: Duration = Duration::from_secs(1);

/// A line of `watch --json`.
#[derive(Clone, Debug, Deserialize)]
struct Line {
    event: String,
    name: Option<String>,
    state: Option<String>,
    blind_ms: Option<u64>,
    silent: Option<Vec<String>>,
}

/// A command that watches, which is ended with the test.
struct Watch {
    child: Child,
    lines: Receiver<(Instant, String)>,
}

impl Watch {
    fn new(world: &World, peer: &Peer, args: &[&str]) -> Self {
        let mut command = world.asking(peer, "watch", args);
        Self::of(command.arg("--json"))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn next(&self) -> (Instant, Line) {
        let (at, line) = self.lines.recv_timeout(SLACK).expect("no line comes");
        let parsed = json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        (at, parsed)
    }

    /// The next line, which must tell this of this node. Returns when it came.
    fn tells(&self, event: &str, name: &str) -> Instant {
        let (at, line) = self.next();
        assert_eq!(
            (line.event.as_str(), line.name.as_deref()),
            (event, Some(name))
        );
        let state = match event {
            "left" | "lost" => event,
            _ => "alive",
        };
        assert_eq!(line.state.as_deref(), Some(state));
        at
    }

    /// Waits until all servers have caught up. Returns the events before, with their names.
    fn catches_up(&self) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let (_, line) = self.next();
            if line.event == "caught_up" {
                if line.silent.unwrap().is_empty() {
                    told.sort();
                    return told;
                }
                continue;
            }
            told.push(format!("{} {}", line.event, line.name.unwrap()));
        }
    }

    fn is_quiet(&self, during: Duration) {
        let line = self.lines.recv_timeout(during);
        assert!(line.is_err(), "{line:?}");
    }

    /// Waits until it ends by itself. Returns its exit code.
    fn ends(&mut self) -> Option<i32> {
        let status = eventually("the watch ended", SLACK, || self.child.try_wait().unwrap());
        status.code()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the server lists the node, or no longer does. Returns when that was seen.
fn knows(server: &Peer, node: &Peer, whether: bool) -> Instant {
    server.until("the node", SLACK, |status| {
        let mut leases = status.stream_records.iter();
        leases.any(|lease| lease.peer_id == node.id) == whether
    });
    Instant::now()
}

fn in_time(seen: Instant, known: Instant) {
    let late = seen.saturating_duration_since(known);
    assert!(late <= IN_TIME, "{late:?} after the server knew of it");
}

#[test]
fn each_change_is_told_within_a_second_of_a_servers_knowing_it() {
    let world = World::new();
    let native = world.native("native", &[]);
    let indexer = world.indexer("indexer", &[&native], &[]);
    let early = world.node("early", &[&native], &["--name", "early"]);
    knows(&indexer, &early, true);
    // One watch runs far from the servers, one on a server itself.
    let far = Watch::new(&world, &early, &[]);
    let near = Watch::new(&world, &indexer, &[]);
    for watch in [&far, &near] {
        assert_eq!(watch.catches_up(), ["present early"]);
    }

    let args = ["--name", "pump"];
    let mut pump = world.node("pump", &[&native], &args);
    let known = knows(&indexer, &pump, true);
    for watch in [&far, &near] {
        in_time(watch.tells("present", "pump"), known);
    }

    let begin = Instant::now();
    pump.kill();
    let pump_again = world.node("pump", &[&native], &["--name", "pump", "--tag", "floor=2"]);
    assert_eq!(pump_again.id, pump.id);
    for watch in [&far, &near] {
        let changed = watch.tells("changed", "pump");
        assert!(changed > begin);
    }

    let mut pump = pump_again;
    pump.end(Signal::TERM);
    let left = knows(&indexer, &pump, false);
    for watch in [&far, &near] {
        in_time(watch.tells("left", "pump"), left);
    }

    let mut pump = world.node("pump", &[&native], &args);
    for watch in [&far, &near] {
        watch.tells("present", "pump");
    }
    pump.kill();
    let lost = knows(&indexer, &pump, false);
    for watch in [&far, &near] {
        in_time(watch.tells("lost", "pump"), lost);
    }
}

#[test]
fn nodes_of_an_indexer_that_comes_later_are_told_of_within_a_second() {
    let world = World::new();
    let native = world.native("native", &[]);
    let node = world.node("node", &[&native], &["--name", "node"]);
    knows(&native, &node, true);
    // One watch of a server that learns of the indexer itself, one of a node.
    let watches = [&native, &node].map(|peer| Watch::new(&world, peer, &[]));
    for watch in &watches {
        assert_eq!(watch.catches_up(), ["present node"]);
    }
    let indexer = world.indexer("indexer", &[&native], &[]);
    knows(&indexer, &node, true);
    let mut pump = world.node("pump", &[&native], &["--name", "pump"]);
    let known = knows(&indexer, &pump, true);
    for watch in &watches {
        in_time(watch.tells("present", "pump"), known);
    }
    pump.end(Signal::TERM);
    let left = knows(&indexer, &pump, false);
    for watch in &watches {
        in_time(watch.tells("left", "pump"), left);
    }
}

#[test]
fn a_watch_goes_on_when_an_indexer_dies_and_says_nothing_twice() {
    let world = World::new();
    let native = world.native("native", &[]);
    let mut first = world.indexer("first", &[&native], &[]);
    let second = world.indexer("second", &[&native], &[]);
    let node = world.node("node", &[&native], &["--name", "node"]);
    knows(&first, &node, true);
    knows(&second, &node, true);
    let watch = Watch::new(&world, &node, &[]);
    assert_eq!(watch.catches_up(), ["present node"]);
    first.kill();
    let late = world.node("late", &[&native], &["--name", "late"]);
    knows(&second, &late, true);
    let (mut told, mut is_blind) = (Vec::new(), false);
    while told.is_empty() || !is_blind {
        let (_, line) = watch.next();
        match line.name {
            Some(name) => told.push(format!("{} {name}", line.event)),
            None => {
                assert_eq!(line.silent.unwrap(), [first.id.clone()]);
                is_blind = line.blind_ms.unwrap() > 0;
            }
        }
    }
    assert_eq!(told, ["present late"]);
    let again = world.indexer("first", &[&native], &[]);
    assert_eq!(again.id, first.id);
    assert_eq!(watch.catches_up(), Vec::<String>::new());
    knows(&again, &node, true);
    knows(&again, &late, true);
    watch.is_quiet(IN_TIME);
}

#[test]
fn a_filter_admits_who_is_asked_for_and_says_who_no_longer_is() {
    let world = World::new();
    let native = world.native("native", &[]);
    let indexer = world.indexer("indexer", &[&native], &[]);
    let web = ["--name", "web", "--service", "http=80"];
    let mut node = world.node("web", &[&native], &web);
    let other = world.node("other", &[&native], &["--name", "other"]);
    knows(&indexer, &node, true);
    knows(&indexer, &other, true);
    let watch = Watch::new(&world, &native, &["--service", "http"]);
    assert_eq!(watch.catches_up(), ["present web"]);
    node.kill();
    let _node = world.node("web", &[&native], &["--name", "web"]);
    let (_, line) = watch.next();
    assert_eq!(
        (line.event.as_str(), line.state.as_deref()),
        ("left", Some("alive"))
    );
}

#[test]
fn ctrl_c_ends_a_watch_with_exit_code_0() {
    let world = World::new();
    let native = world.native("native", &[]);
    let mut watch = Watch::new(&world, &native, &[]);
    assert_eq!(watch.catches_up(), Vec::<String>::new());
    kill_process(Pid::from_child(&watch.child), Signal::INT).unwrap();
    assert_eq!(watch.ends(), Some(0));
}

#[test]
fn a_watch_whose_output_is_no_longer_read_ends_though_nothing_happens() {
    let world = World::new();
    let native = world.start("native", "n", &[]);
    let mut command = world.asking(&native, "watch", &["--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let (send, lines) = channel();
    // Closes the output after its first line.
    thread::spawn(move || {
        let mut output = BufReader::new(stdout).lines();
        let line = output.next().unwrap().unwrap();
        drop(output);
        send.send((Instant::now(), line))
    });
    let mut watch = Watch { child, lines };
    assert_eq!(watch.next().1.event, "caught_up");
    assert_eq!(watch.ends(), Some(0));
}

#[test]
fn a_daemon_that_ends_ends_its_watch_with_exit_code_1() {
    let world = World::new();
    let mut native = world.native("native", &[]);
    let mut watch = Watch::new(&world, &native, &[]);
    watch.catches_up();
    native.end(Signal::TERM);
    assert_eq!(watch.ends(), Some(1));
}

#[test]
fn places_of_watches_are_bounded_and_a_watch_that_ends_frees_its_place() {
    let world = World::new();
    let native = world.native("native", &[]);
    let watches: Vec<Watch> = (0..4)
        .map(|_| {
            let watch = Watch::new(&world, &native, &[]);
            watch.catches_up();
            watch
        })
        .collect();
    let answer = world.ask(&native, "watch", &["--json"]);
    assert_eq!(answer.code, Some(1));
    assert!(
        answer.stderr.contains("4 watches are open"),
        "{}",
        answer.stderr
    );
    drop(watches);
    Watch::new(&world, &native, &[]).catches_up();
}

/// The code of the README with a first line that begins so, without its indentation.
fn of_readme(first: &str) -> String {
    let readme = include_str!("../../README.md");
    let lines = readme.lines().skip_while(|line| !line.starts_with(first));
    let code = lines.map_while(|line| line.strip_prefix("    "));
    code.map(|line| format!("{line}\n")).collect()
}

/// The lines that a handler of the README prints while a node comes and goes.
fn handled(interpreter: &str, code: &str) -> [String; 2] {
    let world = World::new();
    let native = world.native("native", &[]);
    let _indexer = world.indexer("indexer", &[&native], &[]);
    // The program as the README calls it, for this data directory.
    let asking = world.asking(&native, "watch", &[] as &[&str]);
    let (program, dir) = (asking.get_program(), native.dir());
    let script = format!("#!/bin/sh\nexec {program:?} \"$@\" --data-dir {dir:?}\n");
    let bin = world.path("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::write(bin.join("oc-discovery"), script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bin.join("oc-discovery"), executable).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut handler = Command::new(interpreter);
    let watch = Watch::of(handler.args(["-c", code]).env("PATH", path));
    let mut node = world.node(
        "node",
        &[&native],
        &["--name", "pump", "--service", "http=80"],
    );
    let line = || watch.lines.recv_timeout(SLACK).expect("no line comes").1;
    let mut came = line();
    // A handler may say that there is no node yet.
    while came.is_empty() {
        came = line();
    }
    node.end(Signal::TERM);
    let mut went = line();
    while went == came {
        went = line();
    }
    native_ends(native);
    [came, went]
}

/// Ends the daemon first, so that the handler ends by itself.
fn native_ends(mut native: Peer) {
    native.end(Signal::TERM);
}

#[test]
fn the_handler_of_the_readme_in_shell_hears_who_comes_and_goes() {
    let code = of_readme("    oc-discovery watch --json --service http |");
    assert_eq!(handled("sh", &code), ["up pump", "down pump"]);
}

#[test]
fn the_handler_of_the_readme_in_python_has_a_list_that_is_whole() {
    let code = of_readme("    import json, subprocess");
    assert_eq!(handled("python3", &code), ["pump", ""]);
}
