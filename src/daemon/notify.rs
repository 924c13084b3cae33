//! Notifications to the service manager, in the protocol of sd_notify(3): ready, alive, stopping,
//! and a status line for the operator.
//!
//! The loop itself notifies the manager that it is alive, so that the watchdog detects a loop that
//! is stuck. It does this on a turn that it makes anyway, if that is late enough. It wakes up for
//! it only when half of the manager's limit has passed.
//!
//! Invariants: once the daemon is ready, nothing here waits; nothing here fails; without
//! `NOTIFY_SOCKET` there is no socket, and without `WATCHDOG_USEC` there is no time to wake up.
//!
//! This is own code, because the `sd-notify` crate does not support abstract sockets, opens a
//! socket for each message, and waits while the manager's queue is full, which would block the
//! loop.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::config::EnvVars;
use crate::protocol::Instant;

/// The shortest watchdog limit that is supported. A shorter one would keep the processor awake.
const LIMIT_MIN: Duration = Duration::from_millis(100);
/// How long the daemon waits, before it is ready, while the manager's queue is full. Without that
/// notification the manager would end it.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// The connection to the service manager, if there is one.
#[derive(Debug)]
pub(super) struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Watchdog>,
    notified: String,
}

/// The manager's limit, and when the loop last notified it.
#[derive(Debug)]
struct Watchdog {
    limit: Duration,
    last: Instant,
}

impl Notifier {
    /// Connects to the socket in `NOTIFY_SOCKET`, with the limit of `WATCHDOG_USEC` if
    /// `WATCHDOG_PID` is absent or `pid`.
    ///
    /// If the manager cannot be reached, this is only a warning, because the daemon's work does not
    /// depend on it.
    pub(super) fn new(env: EnvVars<'_>, pid: u32, now: Instant) -> Self {
        let socket = env("NOTIFY_SOCKET")
            .filter(|name| !name.is_empty())
            .and_then(|name| {
                connect(&name)
                    .inspect_err(|error| {
                        log::warn!(
                            "NOTIFY_SOCKET {name:?}: cannot tell the service manager: {error}"
                        );
                    })
                    .ok()
            });
        let watchdog = socket
            .as_ref()
            .and_then(|_| limit(env, pid))
            .map(|limit| Watchdog { limit, last: now });
        Self {
            socket,
            watchdog,
            notified: String::new(),
        }
    }

    /// The latest time of the next notification: half of the limit after the last one.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let watchdog = self.watchdog.as_ref()?;
        Some(watchdog.last + watchdog.limit / 2)
    }

    /// Notifies the manager that the daemon serves. `status` is a line for the operator.
    pub(super) fn ready(&mut self, status: impl FnOnce() -> String) {
        self.tell("READY=1", status);
        if let Some(socket) = &self.socket
            && socket.set_nonblocking(true).is_err()
        {
            // This socket could block the loop.
            self.socket = None;
            self.watchdog = None;
        }
    }

    /// Notifies the manager that the configuration is being reloaded; [`Notifier::ready`] says that
    /// this is done. With the time, `Type=notify-reload` knows which request is answered.
    pub(super) fn reloading(&mut self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        let assignment = format!("RELOADING=1\nMONOTONIC_USEC={micros}");
        self.tell(&assignment, || "reloads its configuration".to_owned());
    }

    /// The loop has made a turn at `now`. Notifies the manager if a quarter of the limit has passed
    /// since the last time.
    pub(super) fn turned(&mut self, now: Instant, status: impl FnOnce() -> String) {
        let Some(watchdog) = &mut self.watchdog else {
            return;
        };
        if now - watchdog.last >= watchdog.limit / 4 {
            watchdog.last = now;
            self.tell("WATCHDOG=1", status);
        }
    }

    /// Notifies the manager that the daemon begins to end.
    pub(super) fn stopping(&mut self) {
        self.tell("STOPPING=1", || "gives up its leases".to_owned());
    }

    /// Sends an assignment, and the status if it has changed. If the manager has no room, the
    /// message is dropped; it gets the next one within its limit.
    fn tell(&mut self, assignment: &str, status: impl FnOnce() -> String) {
        let Some(socket) = &self.socket else {
            return;
        };
        let mut message = assignment.to_owned();
        let status = status();
        if status != self.notified {
            // Writing to a String cannot fail.
            let _ = write!(message, "\nSTATUS={}", status.replace('\n', " "));
        }
        if socket.send(message.as_bytes()).is_ok() {
            self.notified = status;
        }
    }
}

/// Connects to a path, or to a name in the abstract namespace if it begins with `@` (sd_notify(3)).
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(READY_TIMEOUT))?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// The limit after which the manager ends a process without notifications (sd_watchdog_enabled(3)).
fn limit(env: EnvVars<'_>, pid: u32) -> Option<Duration> {
    let number = |variable| env(variable).map(|text| text.to_str()?.parse::<u64>().ok());
    if number("WATCHDOG_PID").is_some_and(|meant| meant != Some(pid.into())) {
        return None;
    }
    let Some(micros) = number("WATCHDOG_USEC")? else {
        log::warn!("WATCHDOG_USEC is not a number of microseconds: there is no watchdog");
        return None;
    };
    let limit = Duration::from_micros(micros);
    if limit < LIMIT_MIN {
        log::warn!("WATCHDOG_USEC is {micros}, less than 100000: there is no watchdog");
        return None;
    }
    Some(limit)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::PathBuf;

    use super::*;
    use crate::daemon::testdir::TestDir;

    const PID: u32 = 77;

    /// A manager that listens on a socket in a directory of its own.
    struct Manager {
        dir: TestDir,
        socket: UnixDatagram,
    }

    impl Manager {
        fn new() -> Self {
            let dir = TestDir::new();
            let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self { dir, socket }
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("notify")
        }

        fn notifier(&self, variables: &[(&str, &str)]) -> Notifier {
            let env = |asked: &str| match asked {
                "NOTIFY_SOCKET" => Some(self.path().into_os_string()),
                _ => variable(variables, asked),
            };
            Notifier::new(&env, PID, at(0))
        }

        fn heard(&self) -> Option<String> {
            heard(&self.socket)
        }
    }

    fn variable(variables: &[(&str, &str)], asked: &str) -> Option<OsString> {
        let mut all = variables.iter();
        Some(all.find(|(name, _)| *name == asked)?.1.into())
    }

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn said(text: &str) -> impl FnOnce() -> String {
        let text = text.to_owned();
        || text
    }

    #[test]
    fn manager_hears_that_the_daemon_is_ready_and_that_it_ends() {
        let manager = Manager::new();
        let mut notifier = manager.notifier(&[]);
        assert_eq!(manager.heard(), None);
        notifier.ready(said("one\ntwo"));
        assert_eq!(manager.heard().unwrap(), "READY=1\nSTATUS=one two");
        notifier.stopping();
        let last = manager.heard().unwrap();
        assert_eq!(last, "STOPPING=1\nSTATUS=gives up its leases");
    }

    #[test]
    fn without_a_socket_nothing_is_asked_for_and_nothing_is_due() {
        for socket in [None, Some("")] {
            let env = |asked: &str| match asked {
                "NOTIFY_SOCKET" => socket.map(OsString::from),
                _ => variable(&[("WATCHDOG_USEC", "1000000")], asked),
            };
            let mut notifier = Notifier::new(&env, PID, at(0));
            assert_eq!(notifier.timeout(), None);
            notifier.ready(|| panic!("no manager reads it"));
            notifier.turned(at(1_000_000), || panic!("no manager reads it"));
            assert!(notifier.socket.is_none());
        }
    }

    #[test]
    fn loop_says_that_it_is_alive_within_half_of_the_limit() {
        let manager = Manager::new();
        let mut notifier = manager.notifier(&[("WATCHDOG_USEC", "4000000")]);
        assert_eq!(notifier.timeout(), Some(at(2_000)));
        notifier.turned(at(2_000), said("a"));
        assert_eq!(manager.heard().unwrap(), "WATCHDOG=1\nSTATUS=a");
        assert_eq!(notifier.timeout(), Some(at(4_000)));
    }

    #[test]
    fn a_turn_after_a_quarter_of_the_limit_saves_a_wakeup_and_an_earlier_one_says_nothing() {
        let manager = Manager::new();
        let mut notifier = manager.notifier(&[("WATCHDOG_USEC", "4000000")]);
        notifier.turned(at(999), || panic!("too early"));
        assert_eq!(manager.heard(), None);
        notifier.turned(at(1_000), said("a"));
        assert!(manager.heard().is_some());
        assert_eq!(notifier.timeout(), Some(at(3_000)));
        notifier.turned(at(1_999), || panic!("too early"));
        notifier.turned(at(2_000), said("a"));
        assert_eq!(
            manager.heard().unwrap(),
            "WATCHDOG=1",
            "the status is the same"
        );
    }

    #[test]
    fn watchdog_of_another_process_and_nonsense_are_none() {
        let manager = Manager::new();
        let limit = ("WATCHDOG_USEC", "2000000");
        let due = |variables: &[(&str, &str)]| manager.notifier(variables).timeout();
        assert_eq!(due(&[limit, ("WATCHDOG_PID", "77")]), Some(at(1_000)));
        for wrong in ["78", "", "x", "-77"] {
            assert_eq!(due(&[limit, ("WATCHDOG_PID", wrong)]), None, "{wrong}");
        }
        for wrong in ["", "x", "-1", "99999", "0", "18446744073709551616"] {
            assert_eq!(due(&[("WATCHDOG_USEC", wrong)]), None, "{wrong}");
        }
        assert_eq!(due(&[("WATCHDOG_USEC", "100000")]), Some(at(50)));
        assert!(due(&[("WATCHDOG_USEC", "18446744073709551615")]).is_some());
    }

    #[test]
    fn abstract_socket_is_reached() {
        let name = format!("oc-discovery-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let env = |asked: &str| (asked == "NOTIFY_SOCKET").then(|| format!("@{name}").into());
        Notifier::new(&env, PID, at(0)).ready(said("x"));
        assert_eq!(heard(&socket).unwrap(), "READY=1\nSTATUS=x");
    }

    #[test]
    fn manager_that_is_gone_or_full_holds_nobody_up() {
        let unreachable = |asked: &str| (asked == "NOTIFY_SOCKET").then(|| "/nonexistent/x".into());
        Notifier::new(&unreachable, PID, at(0)).ready(said("x"));
        let long = |asked: &str| (asked == "NOTIFY_SOCKET").then(|| "x".repeat(200).into());
        Notifier::new(&long, PID, at(0)).ready(said("x"));

        let manager = Manager::new();
        let mut notifier = manager.notifier(&[("WATCHDOG_USEC", "1000000")]);
        notifier.ready(said("x"));
        // The system's queue holds a few hundred datagrams at most.
        for second in 1..=5_000 {
            notifier.turned(at(second * 1_000), said("x"));
        }
        let queued = std::iter::from_fn(|| manager.heard()).count();
        assert!((1..5_000).contains(&queued), "{queued}");
        notifier.turned(at(6_000_000), said("y"));
        assert_eq!(manager.heard().unwrap(), "WATCHDOG=1\nSTATUS=y");
    }
}
