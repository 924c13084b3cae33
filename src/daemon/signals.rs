//! The signals of a daemon.
//!
//! - The first SIGTERM or SIGINT asks the loop to end gracefully.
//! - The second one ends the process at once, inside the signal handler, so that a loop that is
//!   stuck cannot prevent it. The exit code is then 128 + the signal's number, as shells count: 143
//!   or 130.
//! - SIGHUP asks for the configuration to be reloaded, also where it was ignored (`nohup`), and
//!   where the terminal has gone: a daemon outlives its terminal. One that comes before the daemon
//!   is ready is kept.
//! - SIGUSR1 and SIGUSR2 do nothing, because what sends them to a daemon that has no use for them
//!   does not want it to end.
//! - Rust's runtime ignores SIGPIPE before `main`. So when a reader goes away, there is a write
//!   error, and the process does not die.

use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Poll, ready};

use rustix::net::{RecvFlags, recv};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level};

use crate::net::executor::{Left, ReadySet, Watched, Way};

/// Set by SIGHUP. It is that of the process, so that none is lost before there are [`Signals`].
static RELOAD: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on SIGHUP, SIGUSR1 and SIGUSR2 do not end the process. For the first line of a daemon,
/// which reads its files before it can wait for signals.
pub(crate) fn survive() -> io::Result<()> {
    flag::register(SIGHUP, Arc::clone(&RELOAD))?;
    flag::register(SIGUSR1, Arc::default())?;
    flag::register(SIGUSR2, Arc::default())?;
    Ok(())
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To end gracefully.
    End,
    /// To reload the configuration.
    Reload,
}

/// The handlers, for the life of the process. It must be created once, before anything that a
/// signal should end gracefully.
#[derive(Debug)]
pub(crate) struct Signals {
    /// A byte for each signal; which one it was is in the flags.
    came: Watched<UnixStream>,
    ending: Arc<AtomicBool>,
}

impl Signals {
    /// Installs the handlers. Fails if the system has no file descriptors left.
    pub(crate) fn new() -> io::Result<Self> {
        let (came, write) = UnixStream::pair()?;
        let ending = Arc::<AtomicBool>::default();
        for signal in [SIGTERM, SIGINT] {
            // Handlers run in this order, so that the first signal finds the flag unset and sets
            // it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&ending))?;
            flag::register(signal, Arc::clone(&ending))?;
            low_level::pipe::register(signal, write.try_clone()?)?;
        }
        survive()?;
        low_level::pipe::register(SIGHUP, write)?;
        came.set_nonblocking(true)?;
        Ok(Self {
            came: ReadySet::of_this_thread()?.watch(came)?,
            ending,
        })
    }

    /// Waits for a signal. Once one has asked the process to end, it returns that at once; several
    /// wishes for a reload that were not taken yet are one.
    ///
    /// For one task at a time. Cancel-safe. Fails only if the system cannot read the descriptor;
    /// the process should end then too.
    pub(crate) async fn next(&self) -> io::Result<Wish> {
        let read =
            |came: &UnixStream| Ok((recv(came, &mut [0; 16], RecvFlags::empty())?, Left::Maybe));
        poll_fn(|cx| {
            loop {
                // The flags are set before the byte is written, so none is overlooked.
                if self.ending.load(Ordering::SeqCst) {
                    return Poll::Ready(Ok(Wish::End));
                }
                if RELOAD.swap(false, Ordering::SeqCst) {
                    return Poll::Ready(Ok(Wish::Reload));
                }
                ready!(self.came.poll(Way::Read, cx, read))?;
            }
        })
        .await
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
        if role == "early" {
            survive().unwrap();
            println!("handlers stand");
            // Here a daemon reads its files.
            io::stdin().read_line(&mut String::new()).unwrap();
        }
        let signals = Signals::new().unwrap();
        println!("handlers stand");
        while block_on(signals.next()).unwrap() == Wish::Reload {
            println!("asked to reload");
        }
        assert_eq!(block_on(signals.next()).unwrap(), Wish::End);
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
                .stdin(Stdio::piped())
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
        for signal in [Signal::TERM, Signal::INT] {
            let mut process = Process::start("graceful");
            process.signal(signal);
            process.wait_for("asked to end");
            assert_eq!(process.child.wait().unwrap().code(), Some(42), "{signal:?}");
        }
    }

    #[test]
    fn hangup_asks_for_a_reload_each_time_and_usr1_and_usr2_for_nothing() {
        let mut process = Process::start("graceful");
        for _ in 0..3 {
            process.signal(Signal::USR1);
            process.signal(Signal::USR2);
            process.signal(Signal::HUP);
            process.wait_for("asked to reload");
        }
        process.signal(Signal::TERM);
        process.wait_for("asked to end");
        assert_eq!(process.child.wait().unwrap().code(), Some(42));
    }

    #[test]
    fn hangup_before_the_daemon_is_ready_is_kept_and_ends_nothing() {
        let mut process = Process::start("early");
        process.signal(Signal::USR1);
        process.signal(Signal::USR2);
        process.signal(Signal::HUP);
        drop(process.child.stdin.take());
        process.wait_for("asked to reload");
        process.signal(Signal::TERM);
        assert_eq!(process.child.wait().unwrap().code(), Some(42));
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
}
