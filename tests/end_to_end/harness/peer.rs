//! A process under test.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use libp2p::identity::Keypair;
use miniserde::json;
use oc_discovery::embed::Status;
use rustix::process::{Pid, Signal, kill_process};

use super::{Look as _, SLACK, answer, eventually, lines_of};

/// A running process.
pub(crate) struct Peer {
    name: &'static str,
    dir: PathBuf,
    log: PathBuf,
    child: Child,
    stdout: Receiver<(Instant, String)>,
    /// Its peer id.
    pub(crate) id: String,
    /// The first address that it listens on, with `/p2p`.
    pub(crate) addr: String,
    /// The lines about its addresses that it printed.
    pub(crate) greeting: Vec<String>,
    /// When it printed `ready`.
    pub(crate) ready: Instant,
    /// The lines of its stdout are objects of JSON.
    pub(crate) is_json: Cell<bool>,
}

impl Peer {
    pub(super) fn greeted(
        name: &'static str,
        dir: PathBuf,
        log: PathBuf,
        mut child: Child,
    ) -> Peer {
        let stdout = lines_of(child.stdout.take().unwrap());
        let mut peer = Peer {
            name,
            dir,
            log,
            child,
            stdout,
            id: String::new(),
            addr: String::new(),
            greeting: Vec::new(),
            ready: Instant::now(),
            is_json: Cell::new(false),
        };
        peer.greet();
        peer
    }

    /// Reads what a daemon prints at its start, in the order that is part of the interface.
    fn greet(&mut self) {
        self.id = self.line().1.strip_prefix("peer id ").unwrap().to_owned();
        loop {
            match self.line() {
                (at, line) if line == "ready" => {
                    self.ready = at;
                    return;
                }
                (_, line) if line.starts_with("answers ") => self.greeting.push(line),
                (_, line) => {
                    let words = ["announces ", "listening on ", "--native "];
                    let addr = words.iter().find_map(|word| line.strip_prefix(word));
                    let addr = addr.unwrap_or_else(|| panic!("{line}"));
                    assert!(addr.ends_with(&format!("/p2p/{}", self.id)), "{line}");
                    if self.addr.is_empty() {
                        self.addr = addr.to_owned();
                    }
                    self.greeting.push(line);
                }
            }
        }
    }

    /// The next line of its stdout. One of JSON has it as its message.
    fn line(&self) -> (Instant, String) {
        let (at, line) = self
            .stdout
            .recv_timeout(SLACK)
            .unwrap_or_else(|_| panic!("{} ended or is silent at its start", self.name));
        match json::from_str::<BTreeMap<String, String>>(&line) {
            Ok(mut object) => {
                self.is_json.set(true);
                (at, object.remove("message").expect(&line))
            }
            Err(_) => {
                assert!(!self.is_json.get(), "{line}");
                (at, line)
            }
        }
    }

    /// Its present status.
    pub(crate) fn status(&self) -> Status {
        let what = format!("{}: its status", self.name);
        eventually(&what, SLACK, || answer(&self.dir, "status"))
    }

    /// Polls its status until `look` returns something.
    pub(crate) fn eventually<T>(
        &self,
        what: &str,
        within: Duration,
        look: impl Fn(&Status) -> Option<T>,
    ) -> T {
        let what = format!("{}: {what}", self.name);
        eventually(&what, within, || {
            look(&answer::<Status>(&self.dir, "status")?)
        })
    }

    /// Waits until its status satisfies `look`.
    pub(crate) fn until(&self, what: &str, within: Duration, look: impl Fn(&Status) -> bool) {
        self.eventually(what, within, |status| look(status).then_some(()));
    }

    /// Waits until a loop has begun this many further runs.
    pub(crate) fn until_runs(&self, name: &str, more: u64) {
        let first = self.status().runs(name);
        self.until(name, SLACK, |status| status.runs(name) >= first + more);
    }

    /// The end of its id, as people read it in logs and tables.
    pub(crate) fn short_id(&self) -> &str {
        &self.id[self.id.len() - 8..]
    }

    /// Waits until its log has this text.
    pub(crate) fn logs(&self, text: &str) {
        eventually(text, SLACK, || self.log().contains(text).then_some(()));
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// How many indexers it logged as refreshed.
    pub(crate) fn refreshed(&self) -> usize {
        self.log()
            .matches("native: refreshed indexer from DHT")
            .count()
    }

    /// Its key.
    pub(crate) fn key(&self) -> Keypair {
        let bytes = fs::read(self.dir.join("identity")).unwrap();
        Keypair::from_protobuf_encoding(&bytes).unwrap()
    }

    /// Its data directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The processor time that it has used, in ticks of the system (proc_pid_stat(5)).
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        let number = |index: usize| fields[index].parse::<u64>().unwrap();
        number(11) + number(12)
    }

    /// The number of its open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        open.count()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it (SIGSTOP): its connections stay open, but it sends nothing any more.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.pid());
        eventually("the process stopped", SLACK, || {
            // The state follows the name (proc_pid_stat(5)).
            let stat = fs::read_to_string(&stat).unwrap();
            stat.rsplit(") ").next()?.starts_with('T').then_some(())
        });
    }

    /// Kills it, so that it gives no lease up.
    pub(crate) fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Ends it with a signal. Returns its exit status, and how long the end took.
    pub(crate) fn end(&mut self, signal: Signal) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        self.signal(signal);
        let status = self.wait();
        (status, begin.elapsed())
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the process ended", SLACK, || {
            self.child.try_wait().unwrap()
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("--- {} {}\n{log}", self.name, self.id);
        }
    }
}
