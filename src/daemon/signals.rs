//! The signals that end the process.
//!
//! - The first SIGTERM, SIGINT or SIGHUP asks the loop to end gracefully:
//!   [`Signals::end_requested`].
//! - The second one ends the process at once, inside the signal handler, so that a loop that is
//!   stuck cannot prevent it. The exit code is then 128 + the signal's number, as shells count:
//!   143, 130 or 129.
//! - SIGHUP means that the terminal is gone; there is no configuration to read again. If it is
//!   ignored already (`nohup`), it stays so.
//! - Rust's runtime ignores SIGPIPE before `main`. So when a reader goes away, there is a write
//!   error, and the process does not die.

use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::net::{RecvFlags, recv};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::net::executor::{Left, ReadySet, Watched, Way};

/// The handlers, for the life of the process. It must be created once, before anything that a
/// signal should end gracefully.
#[derive(Debug)]
pub(crate) struct Signals {
    asked: Watched<UnixStream>,
}

impl Signals {
    /// Installs the handlers. Fails if the system has no file descriptors left.
    pub(crate) fn new() -> io::Result<Self> {
        let (asked, write) = UnixStream::pair()?;
        let ending = Arc::new(AtomicBool::new(false));
        let hangup = (!hangup_is_ignored()).then_some(SIGHUP);
        for signal in [SIGTERM, SIGINT].into_iter().chain(hangup) {
            // Handlers run in this order, so that the first signal finds the flag unset and sets
            // it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&ending))?;
            flag::register(signal, Arc::clone(&ending))?;
            low_level::pipe::register(signal, write.try_clone()?)?;
        }
        asked.set_nonblocking(true)?;
        Ok(Self {
            asked: ReadySet::of_this_thread()?.watch(asked)?,
        })
    }

    /// Waits until a signal has asked the process to end. From then on it returns at once.
    ///
    /// For one task at a time. Cancel-safe. Fails only if the system cannot read the descriptor;
    /// the process should end then too.
    pub(crate) async fn end_requested(&self) -> io::Result<()> {
        // The byte is left unread, so that the next call finds it.
        let peek =
            |asked: &UnixStream| Ok((recv(asked, &mut [0; 1], RecvFlags::PEEK)?, Left::Maybe));
        poll_fn(|cx| self.asked.poll(Way::Read, cx, peek))
            .await
            .map(drop)
    }
}

/// From now on SIGINT and SIGTERM end the process at once, with exit code 0: for a command that
/// only these end.
pub(crate) fn end_in_peace() -> io::Result<()> {
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, 0, Arc::new(AtomicBool::new(true)))?;
    }
    Ok(())
}

/// Whether this process was started with SIGHUP ignored, as `nohup` does.
fn hangup_is_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status))
}

/// `status`: the text of `/proc/PID/status` (proc(5)); bit 0 of `SigIgn` is signal 1, SIGHUP.
fn ignores_hangup(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, ChildStdout, Command, Stdio};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::net::executor::waits::{LONGEST, block_on};

    /// Set for the process that receives the signals, which is this test binary, started again.
    const ROLE: &str = "OC_DISCOVERY_TEST_SIGNALS";

    /// Not a test by itself: with `ROLE` set it is the process under test.
    #[test]
    fn process_under_test() {
        let Some(role) = std::env::var_os(ROLE) else {
            return;
        };
        let signals = Signals::new().unwrap();
        println!("handlers stand");
        block_on(signals.end_requested()).unwrap();
        block_on(signals.end_requested()).unwrap();
        println!("asked to end");
        if role == "stuck" {
            // It ends after all, so that no test waits for it without end.
            std::thread::sleep(LONGEST);
        }
        std::process::exit(42);
    }

    struct Process {
        child: Child,
        stdout: BufReader<ChildStdout>,
    }

    impl Process {
        fn start(role: &str) -> Self {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "daemon::signals::tests::process_under_test",
                    "--nocapture",
                ])
                .env(ROLE, role)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let stdout = BufReader::new(child.stdout.take().unwrap());
            let mut process = Self { child, stdout };
            process.wait_for("handlers stand");
            process
        }

        fn wait_for(&mut self, text: &str) {
            let mut line = String::new();
            while !line.contains(text) {
                line.clear();
                let read = self.stdout.read_line(&mut line).unwrap();
                assert_ne!(read, 0, "ended before `{text}`");
            }
        }

        fn signal(&self, signal: Signal) {
            let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
            kill_process(pid, signal).unwrap();
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            // This fails if the process has ended already, which is fine.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn first_signal_asks_for_a_graceful_end() {
        // The tests themselves may have been started by `nohup`.
        let hangup = (!hangup_is_ignored()).then_some(Signal::HUP);
        for signal in [Signal::TERM, Signal::INT].into_iter().chain(hangup) {
            let mut process = Process::start("graceful");
            process.signal(signal);
            process.wait_for("asked to end");
            assert_eq!(process.child.wait().unwrap().code(), Some(42), "{signal:?}");
        }
    }

    #[test]
    fn second_signal_ends_a_stuck_process_with_its_own_code() {
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
            let mut process = Process::start("stuck");
            process.signal(Signal::TERM);
            process.wait_for("asked to end");
            process.signal(signal);
            let status = process.child.wait().unwrap();
            assert_eq!((status.code(), status.signal()), (Some(code), None));
        }
    }

    #[test]
    fn hangup_is_left_ignored_where_it_was() {
        assert!(ignores_hangup(
            "Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"
        ));
        assert!(!ignores_hangup(
            "Name:\tx\nSigIgn:\t0000000000001000\nSigCgt:\t1\n"
        ));
        assert!(!ignores_hangup(""));
    }
}
