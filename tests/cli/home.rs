//! A home directory with the program in it, and the end of a command.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The time limit of every command here.
const DEADLINE: Duration = Duration::from_secs(30);

/// A home directory of its own for the program, which is removed at the end of the test.
pub(crate) struct Home(pub(crate) PathBuf);

impl Home {
    pub(crate) fn new() -> Home {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("oc-discovery-cli-{}-{count}", std::process::id());
        let home = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(home.join("tmp")).unwrap();
        Home(home)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oc-discovery"));
        command
            .args(args)
            .env_clear()
            .env("HOME", &self.0)
            .env("TMPDIR", self.0.join("tmp"))
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        Ended::wait(self.command(args).spawn().unwrap())
    }

    /// The default data directory of a role.
    pub(crate) fn data_dir(&self, role: &str) -> PathBuf {
        let dir = self.0.join(".local/state/oc-discovery").join(role);
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn wait(child: Child) -> Ended {
        let pid = Pid::from_child(&child);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
        let output: Output = receiver.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            kill_process(pid, Signal::KILL).unwrap();
            panic!("the command has not ended within {DEADLINE:?}");
        });
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts that it failed with this code and one sentence that contains all of these words.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &[&str]) {
        let stderr = &self.stderr;
        assert_eq!(self.code, Some(code), "{stderr}");
        assert!(stderr.starts_with("oc-discovery: "), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{word:?} is not in {stderr}");
        }
        for word in ["panicked", "backtrace", "Error {", "Err(", "\u{1b}"] {
            assert!(!stderr.contains(word), "{stderr}");
        }
        assert!(!self.stdout.contains("ready"), "{}", self.stdout);
    }

    #[track_caller]
    pub(crate) fn usage(&self, words: &[&str]) {
        self.failed(2, words);
        assert_eq!(self.stdout, "");
    }

    #[track_caller]
    pub(crate) fn done(&self) -> &str {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        assert_eq!(self.stderr, "");
        &self.stdout
    }
}

/// A control socket that gives the same answer to every question.
pub(crate) fn answering(dir: &Path, answer: &'static str) {
    answering_with(dir, |_| answer.to_owned());
}

/// A control socket that answers each question so.
pub(crate) fn answering_with(dir: &Path, answer: impl Fn(&str) -> String + Send + 'static) {
    let listener = UnixListener::bind(dir.join("control.sock")).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut question = String::new();
            // A client that only checks whether a daemon is there asks nothing and closes the
            // connection.
            let _ = BufReader::new(&stream).read_line(&mut question);
            let _ = writeln!(stream, "{}", answer(&question));
        }
    });
}
