//! Slips at the command line are said as what they are, nothing that is named blocks a command, and
//! no command outlives its terminal, its reader or its demo.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use super::home::{Ended, Home, answering};
use super::processes_that_mention;
use super::terminal;

/// An answer to `find` without a node.
const NOBODY: &str = concat!(
    r#"{"schema":1,"query":"x","complete":true,"asked":1,"answered":1,"silent":[],"refused":[],"#,
    r#""partial":[],"more":false,"claimants":0,"all_counted":true,"records":[]}"#
);

#[test]
fn version_is_a_command_too() {
    let version = concat!("oc-discovery ", env!("CARGO_PKG_VERSION"), "\n");
    let home = Home::new();
    for asked in ["version", "--version", "-V", "-v"] {
        assert_eq!(home.run(&[asked]).done(), version, "{asked}");
    }
    home.run(&["verison"])
        .usage(&["unknown command \"verison\": did you mean version?"]);
    home.run(&["native", "--lsiten", "x"])
        .usage(&["\"--lsiten\": did you mean --listen?"]);
}

#[test]
fn command_without_the_one_below_it_is_told_which_there_are() {
    let home = Home::new();
    home.run(&["config"])
        .usage(&["no command of config is given; give one of check, show"]);
    home.run(&["identity"])
        .usage(&["no command of identity is given; give one of export, import, reset"]);
}

#[test]
fn address_is_not_looked_for_as_a_name() {
    let home = Home::new();
    for address in ["192.0.2.1:80", "[::1]:80", "host:80"] {
        home.run(&["find", "--addr", address, "cam"]).usage(&[
            "is an address",
            "--addr takes no value",
            "find --addr NAME",
        ]);
    }
}

#[test]
fn level_of_the_log_is_taken_in_any_case_and_v_raises_it() {
    let home = Home::new();
    for (option, level) in [
        ("--log=INFO", "info"),
        ("--log=Warn", "warn"),
        ("-v", "debug"),
        ("-vv", "trace"),
    ] {
        let shown = home.run(&["config", "show", "--json", "node", option]);
        let part = format!(r#""key":"log","values":["{level}"],"from":"--log""#);
        assert!(shown.done().contains(&part), "{}", shown.stdout);
    }
    home.run(&["node", "--log", "LOUD"])
        .usage(&["--log", "LOUD", "trace"]);
}

#[test]
fn data_directory_that_is_none_is_said_as_what_it_is() {
    let home = Home::new();
    let (none, file) = (home.path("none"), home.path("file"));
    fs::write(&file, "").unwrap();
    let there_is_none = format!("there is no directory {none}");
    let no_directory = format!("{file} is no directory");
    for command in [
        &["status"][..],
        &["indexers"],
        &["find", "cam"],
        &["nodes"],
        &["id"],
        &["reload"],
        &["drain"],
    ] {
        let on = |dir: &str| home.run(&[command, &["--data-dir", dir]].concat());
        on(&none).failed(1, &[&there_is_none]);
        on(&file).failed(1, &[&no_directory]);
    }
    let key = home.path("key");
    home.run(&["identity", "export", &none, &key])
        .failed(1, &[&there_is_none]);
    home.run(&["identity", "reset", &none])
        .failed(1, &[&there_is_none]);
    home.run(&["status", &none]).failed(1, &[&there_is_none]);
    let checked = home.run(&["status", "--check", &none]);
    assert_eq!(checked.code, Some(2));
    assert!(checked.stdout.starts_with("CRITICAL there is no directory"));
}

#[test]
fn last_word_of_a_daemon_is_an_object_if_its_log_is_one_of_json() {
    let home = Home::new();
    let ended = home.run(&["native", "--log-format", "json", "--lease", "1"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    for part in ["{\"time\":", "\"level\":\"error\"", "--lease", "\"}\n"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    assert_eq!(ended.stderr.lines().count(), 1);
}

#[test]
fn pipe_or_device_in_the_place_of_a_key_blocks_nothing() {
    let home = Home::new();
    let pipe = home.path("pipe");
    make_pipe(Path::new(&pipe));
    let with = |role: &str, dir: &str, options: &[&str]| {
        let listen = ["--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns"];
        let first = [role, "--log", "off", "--data-dir", dir];
        home.run(&[&first[..], &listen, options].concat())
    };
    let dir = home.path("data");
    for file in [&*pipe, "/dev/zero"] {
        with("native", &dir, &["--psk", file]).failed(1, &["key file", file]);
        with("node", &dir, &["--config", file]).failed(1, &[file]);
        with("node", &dir, &["--http=127.0.0.1:0", "--http-token", file])
            .failed(1, &["--http-token", file, "a file with one line"]);
    }
    let other = home.path("other");
    fs::create_dir(&other).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o700)).unwrap();
    make_pipe(&Path::new(&other).join("identity"));
    let identity = format!("{other}/identity is no usable private key (not a regular file)");
    with("node", &other, &[]).failed(1, &[&identity]);
    home.run(&["id", "--data-dir", &other])
        .failed(1, &[&identity]);
}

fn make_pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

#[test]
fn name_that_looks_like_an_option_is_refused() {
    let home = Home::new();
    for name in ["-", "-x", "--listen", ".", ".x"] {
        home.run(&["node", "--name", name]).usage(&[
            "--name",
            name,
            "begins with a letter or a digit",
        ]);
    }
}

#[test]
fn every_command_that_asks_a_daemon_takes_its_directory_as_a_word_once() {
    let home = Home::new();
    let none = home.path("none");
    let file = home.path("file");
    for command in [
        &["status"][..],
        &["nodes"],
        &["watch"],
        &["indexers"],
        &["drain"],
        &["reload"],
        &["id"],
        &["config", "show"],
    ] {
        let run = |more: &[&str]| home.run(&[command, more].concat());
        let missing = format!("there is no directory {none}");
        run(&[&none]).failed(1, &[&missing]);
        run(&["--data-dir", &none]).failed(1, &[&missing]);
        run(&["--data-dir", &none, &none]).usage(&["once"]);
    }
    let doctor = home.run(&["doctor", &none]);
    assert!(doctor.stdout.contains(&none), "{}", doctor.stdout);
    home.run(&["support", &file, &none]).failed(1, &[&none]);
    for line in [&["doctor"][..], &["support", "x"]] {
        home.run(&[line, &["--data-dir", &none, &none]].concat())
            .usage(&["once"]);
    }
    home.run(&["config", "show", "lamp"])
        .usage(&["unknown command \"lamp\""]);
    home.run(&["config", "show", &none, "--lease", "9s"])
        .usage(&["or a role and its options"]);
}

#[test]
fn end_of_a_peer_id_is_no_name() {
    let home = Home::new();
    answering(&home.data_dir("node"), NOBODY);
    for id in ["FdH7QweQ", "…FdH7QweQ"] {
        home.run(&["find", id])
            .failed(1, &[id, "the end of a peer id", "no node"]);
    }
    home.run(&["find", "12D3KooWFdH7QweQ"])
        .usage(&["has 16 characters, and a peer id has 52"]);
    for name in ["fdh7qweq", "camera-3"] {
        let unknown = home.run(&["find", name]);
        unknown.failed(1, &[&format!("no node is known as {name}\n")]);
    }
}

/// A demo that has told its first two steps' begin, so that it has processes.
fn demo(home: &Home) -> (Child, BufReader<ChildStdout>) {
    let mut child = home.command(&["demo", "--speed", "1"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut told = String::new();
    while !told.contains("2. ") && stdout.read_line(&mut told).unwrap() > 0 {}
    assert_ne!(processes_that_mention(&home.path("tmp")), 0, "{told}");
    (child, stdout)
}

/// Waits until no process of the demo is left.
fn until_none_is_left(home: &Home) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while processes_that_mention(&home.path("tmp")) > 0 {
        assert!(Instant::now() < deadline, "a process is left");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn killed_demo_leaves_no_process_and_no_file() {
    let home = Home::new();
    let (mut child, _stdout) = demo(&home);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    // The one that removes the files is the last.
    until_none_is_left(&home);
    assert_eq!(fs::read_dir(home.path("tmp")).unwrap().count(), 0);
}

#[test]
fn process_of_a_demo_that_has_ended_does_not_start() {
    let home = Home::new();
    let args = ["node", "--log", "off", "--data-dir", &home.path("data")];
    let mut command = home.command(&args);
    command.env("OC_DISCOVERY_DEMO", "1");
    Ended::wait(command.spawn().unwrap()).failed(1, &["has ended"]);
}

#[test]
fn demo_whose_reader_goes_ends_in_silence() {
    let home = Home::new();
    let mut child = home.command(&["demo"]).spawn().unwrap();
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    drop(stdout);
    Ended::wait(child).done();
    until_none_is_left(&home);
    assert_eq!(fs::read_dir(home.path("tmp")).unwrap().count(), 0);
}

#[test]
fn demo_on_a_terminal_has_colour_and_a_clock() {
    let home = Home::new();
    let (mut reader, terminal) = terminal::pair(80);
    let mut command = home.command(&["demo", "--speed", "1"]);
    command.env("TERM", "xterm").stdout(terminal);
    let child = command.spawn().unwrap();
    drop(command);
    let (mut told, mut bytes) = (String::new(), [0; 1024]);
    while !told.contains("2. nodes") {
        let read = reader.read(&mut bytes).unwrap();
        told.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    Ended::wait(child).failed(1, &["interrupted"]);
    let told = told.replace("\r\n", "\n");
    assert!(told.contains("\x1b[1m1. native up\x1b[0m\n"), "{told:?}");
    let clock = "\r\x1b[K   0.";
    assert!(told.contains(clock), "{told:?}");
    let seen = "\r\x1b[K\x1b[32m   saw it, listening on 127.0.0.1:";
    assert!(told.contains(seen), "{told:?}");
    for line in told.lines().filter(|line| !line.contains('\x1b')) {
        assert!(line.chars().count() <= 80, "{line:?}");
    }
}
