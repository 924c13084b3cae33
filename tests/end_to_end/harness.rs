//! Processes under test, and ways to observe them.
//!
//! Invariants: every process that a test starts ends with the test, and its directory is removed;
//! every wait has a deadline; the log of a process is shown when its test fails.

#[path = "harness/look.rs"]
mod look;
#[path = "harness/peer.rs"]
mod peer;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) use self::look::{Look, answer};
pub(crate) use self::peer::Peer;

/// Extra time for a machine under load, in addition to what follows from the intervals.
pub(crate) const SLACK: Duration = Duration::from_secs(20);
/// Time between two polls.
const PAUSE: Duration = Duration::from_millis(10);
/// The time limit of a command that ends by itself.
const LONGEST: Duration = Duration::from_secs(60);

/// Flags that every process of a test gets unless its arguments contain them.
const TEMPO: [(&str, &str); 5] = [
    ("--lease", "3s"),
    ("--offload-interval", "500ms"),
    ("--refresh-interval", "500ms"),
    ("--gc-interval", "200ms"),
    ("--connect-interval", "1s"),
];

/// Milliseconds, as a duration.
pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Polls until `look` returns something, and returns it.
pub(crate) fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(
            begin.elapsed() < within,
            "not seen within {within:?}: {what}"
        );
        thread::sleep(PAUSE);
    }
}

/// Runs a command that ends by itself, and waits for that.
pub(crate) fn ended(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (send, end) = mpsc::channel();
    thread::spawn(move || send.send(child.wait_with_output().unwrap()));
    end.recv_timeout(LONGEST).unwrap_or_else(|_| {
        let _ = kill_process(pid, Signal::KILL);
        panic!("not ended within {LONGEST:?}: {command:?}")
    })
}

/// The lines that a process writes, each with its time.
pub(crate) fn lines_of(output: impl Read + Send + 'static) -> Receiver<(Instant, String)> {
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if send.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    });
    lines
}

/// The output of `future`, which must not take longer than `limit`.
pub(crate) fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let late = async {
        smol::Timer::after(limit).await;
        None
    };
    smol::block_on(smol::future::or(async { Some(future.await) }, late))
}

/// A directory of its own for the processes of one test.
pub(crate) struct World {
    dir: PathBuf,
    number: u8,
    addresses: AtomicU8,
}

impl World {
    pub(crate) fn new() -> World {
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("oc-discovery-e2e-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        World {
            dir,
            number,
            addresses: AtomicU8::new(1),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Starts a native and waits until it is ready.
    pub(crate) fn native(&self, name: &'static str, args: &[&str]) -> Peer {
        self.start("native", name, args)
    }

    /// Starts an indexer of these natives and waits until it is ready.
    pub(crate) fn indexer(&self, name: &'static str, natives: &[&Peer], args: &[&str]) -> Peer {
        self.start("indexer", name, &with_natives(natives, args))
    }

    /// Starts a node of these natives and waits until it is ready.
    pub(crate) fn node(&self, name: &'static str, natives: &[&Peer], args: &[&str]) -> Peer {
        self.start("node", name, &with_natives(natives, args))
    }

    /// Starts a process and waits until it is ready.
    pub(crate) fn start(&self, role: &str, name: &'static str, args: &[&str]) -> Peer {
        self.start_with(role, name, args, &[])
    }

    /// Starts a process with these environment variables and waits until it is ready.
    pub(crate) fn start_with(
        &self,
        role: &str,
        name: &'static str,
        args: &[&str],
        env: &[(&str, OsString)],
    ) -> Peer {
        let mut command = self.command(role, &self.path(name), args);
        command.envs(env.iter().map(|(variable, value)| (variable, value)));
        self.greeted(command, name)
    }

    /// Starts a process by a command line that begins with `inside`, and waits until it is ready.
    /// It listens on its default addresses, unless `args` contain others.
    #[allow(dead_code, reason = "the tests with hosts of their own use it")]
    pub(crate) fn start_inside(
        &self,
        inside: &[OsString],
        role: &str,
        name: &'static str,
        args: &[&str],
    ) -> Peer {
        let own = self.line(role, &self.path(name), args);
        let mut words = inside.iter().map(OsString::as_os_str);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg(own.get_program());
        command.args(own.get_args()).stdin(Stdio::null());
        self.greeted(command, name)
    }

    /// Runs the command with its stderr in a file, and waits until the daemon is ready.
    fn greeted(&self, mut command: Command, name: &'static str) -> Peer {
        let log = self.path(&format!("{name}.log"));
        let stderr = File::options().create(true).append(true).open(&log);
        let child = command
            .stdout(Stdio::piped())
            .stderr(stderr.unwrap())
            .spawn()
            .unwrap();
        Peer::greeted(name, self.path(name), log, child)
    }

    /// Starts a process that logs to another place, and waits until it is ready.
    pub(crate) fn start_into(
        &self,
        role: &str,
        name: &'static str,
        args: &[&str],
        stderr: impl Into<Stdio>,
    ) -> Peer {
        let dir = self.path(name);
        let log = self.path(&format!("{name}.log"));
        let mut command = self.command(role, &dir, args);
        let child = command.stdout(Stdio::piped()).stderr(stderr);
        Peer::greeted(name, dir, log, child.spawn().unwrap())
    }

    /// Starts a process that is expected to end by itself, and waits for that.
    pub(crate) fn start_in_vain(&self, role: &str, name: &str, args: &[&str]) -> Output {
        let dir = self.path(name);
        ended(&mut self.command(role, &dir, args))
    }

    /// Makes the identity and chooses the address of a native before it runs, so that natives can
    /// know each other from the start.
    pub(crate) fn settle_native(&self, name: &'static str) -> Settled {
        let mut first = self.native(name, &[]);
        first.end(Signal::TERM);
        let last = self.addresses.fetch_add(1, Ordering::Relaxed);
        let [.., high, low] = std::process::id().to_be_bytes();
        // A loopback address that only this test uses, and a port that is free there.
        let ip = Ipv4Addr::new(127, high | 1, low, self.number.wrapping_mul(8) + last);
        let port = TcpListener::bind((IpAddr::V4(ip), 0))
            .and_then(|free| free.local_addr())
            .unwrap()
            .port();
        Settled {
            name,
            listen: format!("/ip4/{ip}/tcp/{port}"),
            addr: format!("/ip4/{ip}/tcp/{port}/p2p/{}", first.id),
        }
    }

    /// Starts a native with an identity and an address that are settled.
    pub(crate) fn settled(&self, native: &Settled, neighbours: &[&Settled], args: &[&str]) -> Peer {
        let mut all = vec!["--listen", &native.listen];
        for neighbour in neighbours {
            all.extend(["--native", neighbour.addr.as_str()]);
        }
        all.extend(args);
        self.native(native.name, &all)
    }

    /// The command line of a daemon on this directory, which listens on loopback unless `args`
    /// contain an address.
    pub(crate) fn command(&self, role: &str, dir: &Path, args: &[&str]) -> Command {
        self.line(role, dir, &on_loopback(args))
    }

    /// The command line of a daemon on this directory, which listens on its default addresses
    /// unless `args` contain others.
    pub(crate) fn line(&self, role: &str, dir: &Path, args: &[&str]) -> Command {
        let mut command = self.program();
        command.arg(role).arg("--data-dir").arg(dir);
        for (flag, value) in TEMPO {
            if !args.contains(&flag) {
                command.args([flag, value]);
            }
        }
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Starts a daemon through another program, and waits until it is ready.
    pub(crate) fn start_by(
        &self,
        wrapper: &[&str],
        role: &str,
        name: &'static str,
        args: &[&str],
    ) -> Peer {
        let dir = self.path(name);
        let log = self.path(&format!("{name}.log"));
        let mut command = self.command_by(wrapper, role, &dir, args);
        let child = command
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap());
        Peer::greeted(name, dir, log, child.spawn().unwrap())
    }

    /// The command line of a daemon that another program starts.
    pub(crate) fn command_by(
        &self,
        wrapper: &[&str],
        role: &str,
        dir: &Path,
        args: &[&str],
    ) -> Command {
        let daemon = self.command(role, dir, args);
        let mut command = Command::new(wrapper[0]);
        command
            .args(&wrapper[1..])
            .arg(daemon.get_program())
            .args(daemon.get_args())
            .env_clear()
            .env("HOME", &self.dir)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null());
        command
    }

    fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oc-discovery"));
        command.env_clear().env("HOME", &self.dir);
        command
    }

    /// A client command on a process' data directory.
    pub(crate) fn asking<S>(&self, peer: &Peer, command: &str, args: &[S]) -> Command
    where
        S: AsRef<OsStr>,
    {
        let mut asking = self.program();
        asking.arg(command).arg("--data-dir").arg(peer.dir());
        asking.args(args);
        asking
    }

    /// Runs such a command.
    pub(crate) fn ask<S: AsRef<OsStr>>(&self, peer: &Peer, command: &str, args: &[S]) -> Answer {
        let output = ended(&mut self.asking(peer, command, args));
        Answer {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The result of a client command.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A native with an id and address that are known before it runs.
pub(crate) struct Settled {
    name: &'static str,
    listen: String,
    addr: String,
}

impl Settled {
    /// Where it listens.
    pub(crate) fn listen(&self) -> &str {
        &self.listen
    }
}

/// The arguments with a loopback port that the system chooses, unless `args` contain a listen
/// address.
fn on_loopback<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let listens = args.contains(&"--listen");
    let default = ["--listen", "/ip4/127.0.0.1/tcp/0"];
    let default = default.into_iter().filter(|_| !listens);
    default.chain(args.iter().copied()).collect()
}

pub(crate) fn with_natives<'a>(natives: &[&'a Peer], args: &[&'a str]) -> Vec<&'a str> {
    let addrs = natives.iter().flat_map(|n| ["--native", n.addr.as_str()]);
    addrs.chain(args.iter().copied()).collect()
}
