//! A daemon with output that is not read: its work goes on, and lost lines are counted.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::channel;
use std::thread;

use oc_discovery::embed::Status;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::harness::{Look, SLACK, World, answer, eventually, ms};

/// A full pipe, in which each write waits for a reader.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(b"-").is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// A process that ends with its test.
struct Started(Child);

impl Started {
    fn new(command: &mut Command) -> Started {
        Started(command.spawn().unwrap())
    }

    fn end(&mut self) -> ExitStatus {
        eventually("the process ended", SLACK, || self.0.try_wait().unwrap())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn native_whose_stderr_nobody_reads_serves_on_and_says_what_was_lost_once_it_is_read() {
    let world = World::new();
    let (mut reader, writer) = full_pipe();
    let shared = fcntl_getfl(&writer).unwrap();
    let held = writer.try_clone().unwrap();
    let native = world.start_into("native", "native", &["--log", "debug"], writer);
    let indexer = world.indexer("indexer", &[&native], &[]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    let node = world.node("node", &[&native], &[]);
    node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
    native.until_runs("gc", 10);
    assert_eq!(
        fcntl_getfl(&held).unwrap(),
        shared,
        "the parent's own flags"
    );

    let (send, read) = channel();
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(length) = reader.read(&mut chunk) {
            if length == 0 || send.send(chunk[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut said = Vec::new();
    eventually("how many lines were lost", SLACK, || {
        said.extend(read.recv_timeout(ms(100)).unwrap_or_default());
        let text = String::from_utf8_lossy(&said);
        text.contains(" lost: stderr had no room for more\n")
            .then_some(())
    });
    assert!(indexer.status().holds_lease_of(&native));
}

#[test]
fn native_whose_stdout_nobody_reads_serves() {
    let world = World::new();
    let (_reader, writer) = full_pipe();
    let dir = world.path("native");
    let _native = Started::new(world.command("native", &dir, &[]).stdout(writer));
    eventually("its status", SLACK, || answer::<Status>(&dir, "status"));
}

#[test]
fn daemon_that_cannot_start_ends_although_nobody_reads_why() {
    let world = World::new();
    let native = world.native("native", &[]);
    let (_reader, writer) = full_pipe();
    let dir = native.dir();
    let mut second = Started::new(world.command("native", dir, &[]).stderr(writer));
    assert_eq!(second.end().code(), Some(1));
    let (_reader, writer) = full_pipe();
    let wrong = ["--lease", "soon"];
    let mut third = Started::new(world.command("native", dir, &wrong).stderr(writer));
    assert_eq!(third.end().code(), Some(2));
}
