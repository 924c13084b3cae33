//! Runs the checks of the own services when the core says so, each as a task of its own, and keeps
//! their results for `status`.
//!
//! Invariants: a run ends within [`CHECK_TIMEOUT`], whatever the service does; a command that still
//! runs then, or when the loop ends, is killed with all processes that it has started; one that the
//! system cannot end is not started a second time; only addresses of this host are connected to;
//! nothing that a service says is kept or logged except the number of an HTTP status.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    rc::Rc,
    time::Duration,
};

use async_io::{Async, Timer};
use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::{Multiaddr, multiaddr::Protocol};
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process_group},
};
use smol::channel::{Receiver, Sender, bounded};

use super::{
    driver::Driver,
    report::protocol,
    status::{CheckState, ServiceCheck},
};
use crate::{
    config::{Check, Config, Probe},
    net::{executor, netlink::Host, tcp::plain},
    protocol::{
        Instant,
        codec::service::{MAX_SERVICES, Service},
        health::{self, CHECK_TIMEOUT, Ending, Health, OfferChange},
    },
};

/// The first and the longest pause between two looks at whether a command has ended.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_LONGEST: Duration = Duration::from_millis(200);
/// Bytes of an HTTP response that are read to find its status.
const STATUS_LINE: usize = 64;

/// How long a killed command may take to end.
const KILLED: Duration = Duration::from_secs(1);

/// How a run ended.
pub(super) struct Ended {
    check: u64,
    what: What,
}

enum What {
    Result(Result<(), Failure>),
    /// A command that could not be killed in time has ended.
    Over,
}

/// Why a run did not pass.
struct Failure {
    ending: Ending,
    why: String,
}

/// The numbers of the checks whose commands run, and the process groups of these.
type Groups = Rc<RefCell<Vec<(u64, Pid)>>>;

/// The checks of this process.
pub(super) struct Checks {
    pub(super) health: Health,
    checks: Vec<Checked>,
    /// Checks that there were so far.
    #[cfg(feature = "program")]
    made: u64,
    ended: (Sender<Ended>, Receiver<Ended>),
    groups: Groups,
}

/// A check, and why its last run failed.
struct Checked {
    /// Its own number: that of its service changes when services are added and removed.
    number: u64,
    check: Check,
    of: Service,
    error: Option<String>,
}

impl Checks {
    /// The configured checks. All run for the first time at `now`.
    pub(super) fn new(config: &Config, now: Instant, seed: u64) -> Self {
        let of = config.checks.iter().map(|check| check.service);
        let checks: Vec<Checked> = checked(config, 0).collect();
        Self {
            health: Health::new(now, seed, config.check_interval, of),
            #[cfg(feature = "program")]
            made: checks.len() as u64,
            checks,
            // One run for each service at a time, with two messages at most: there is always room.
            ended: bounded(2 * MAX_SERVICES),
            groups: Groups::default(),
        }
    }

    /// Replaces the checks by those of another configuration. A check that is in both goes on.
    #[cfg(feature = "program")]
    pub(super) fn replace(&mut self, config: &Config, now: Instant) {
        let mut fresh: Vec<Checked> = checked(config, self.made).collect();
        self.made += fresh.len() as u64;
        let mut numbers = Vec::new();
        for checked in &mut fresh {
            let is_same =
                |old: &&Checked| (&old.of, &old.check.probe) == (&checked.of, &checked.check.probe);
            let old = self.checks.iter().find(is_same);
            numbers.push((checked.check.service, old.map(|old| old.check.service)));
            if let Some(old) = old {
                checked.number = old.number;
                checked.error.clone_from(&old.error);
            }
        }
        self.health
            .replace(now, config.check_interval, numbers.into_iter());
        // What is not wanted any more must not run beside what takes its place.
        let is_gone = |(number, _): &mut (u64, Pid)| fresh.iter().all(|it| it.number != *number);
        let mut groups = self.groups.borrow_mut();
        groups
            .extract_if(.., is_gone)
            .for_each(|(_, group)| kill(group));
        drop(groups);
        self.checks = fresh;
    }

    /// Kills the commands that run. The loop begins no other one.
    pub(super) fn stop(&mut self) {
        self.groups
            .borrow_mut()
            .drain(..)
            .for_each(|(_, group)| kill(group));
        self.checks.clear();
    }

    /// The channel on which runs report their end.
    pub(super) fn ended(&self) -> Receiver<Ended> {
        self.ended.1.clone()
    }

    /// When a check is due without an event.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.health.timeout()
    }

    /// The state of each check for `status`.
    pub(super) fn report(&self, now: Instant) -> Vec<ServiceCheck> {
        let shown = |checked: &Checked| {
            let state = self.health.of(checked.check.service)?;
            Some(ServiceCheck {
                service: checked.of.name.as_str().into(),
                protocol: protocol(checked.of.transport),
                port: checked.of.port,
                check: checked.check.probe.to_string(),
                state: match (state.since, state.is_failing()) {
                    (None, _) => CheckState::Starting,
                    (Some(_), false) => CheckState::Ok,
                    (Some(_), true) => CheckState::Failing,
                },
                failures: failures(state),
                since_ms: state
                    .since
                    .map(|since| now.as_millis().saturating_sub(since.as_millis())),
                error: checked.error.clone(),
            })
        };
        self.checks.iter().filter_map(shown).collect()
    }
}

/// The failures in a row. Before its first run a check counts as failing, so that its service is
/// not offered.
fn failures(check: &health::Checked) -> u64 {
    check.since.map_or(0, |_| check.failures.into())
}

/// The checks of a configuration, numbered from `first` on.
fn checked(config: &Config, first: u64) -> impl Iterator<Item = Checked> {
    (first..).zip(&config.checks).filter_map(|(number, check)| {
        Some(Checked {
            number,
            check: check.clone(),
            of: config.services.get(usize::from(check.service))?.clone(),
            error: None,
        })
    })
}

impl Driver<'_> {
    /// Begins the checks that are due.
    pub(super) fn check_if_due(&mut self, now: Instant) {
        while let Some(service) = self.checks.health.poll(now) {
            let mut checks = self.checks.checks.iter();
            let Some(checked) = checks.find(|checked| checked.check.service == service) else {
                continue;
            };
            let hosts = hosts(self.env.net.record_addrs());
            let (probe, port) = (checked.check.probe.clone(), checked.of.port);
            let check = checked.number;
            let (ended, groups) = (self.checks.ended.0.clone(), Rc::clone(&self.checks.groups));
            executor::spawn(async move {
                // The loop may have ended.
                let tell = |what| drop(ended.try_send(Ended { check, what }));
                match probe {
                    Probe::Exec(command) => execute(&command, (check, &groups), tell).await,
                    Probe::Tcp => tell(What::Result(connects(&hosts, port).await)),
                    Probe::Http(path) => tell(What::Result(gets(&hosts, port, &path).await)),
                }
            });
        }
    }

    /// A run of a check has ended.
    pub(super) fn on_checked(&mut self, Ended { check, what }: Ended) {
        let now = self.env.now();
        let mut checks = self.checks.checks.iter_mut();
        // It may have been removed meanwhile.
        let Some(checked) = checks.find(|checked| checked.number == check) else {
            return;
        };
        let service = checked.check.service;
        let (ending, error) = match what {
            What::Over => return self.checks.health.over(service),
            What::Result(Ok(())) => (Ending::Passed, None),
            What::Result(Err(failure)) => (failure.ending, Some(failure.why)),
        };
        let since = self.checks.health.of(service).and_then(|state| state.since);
        let change = self.checks.health.ended(now, service, ending);
        checked.error = error;
        let name = &checked.of.name;
        match change {
            Some(OfferChange::Withdrawn) => log::warn!(
                "service {name} fails its check ({}): it is not in the record until it passes",
                checked.error.as_deref().unwrap_or_default()
            ),
            Some(OfferChange::Offered) => {
                log::info!("service {name} passes its check: it is in the record");
            }
            Some(OfferChange::OfferedAgain) => log::info!(
                "service {name} passes its check again after {} s: it is in the record again",
                since.map_or(0, |since| (now - since).as_secs())
            ),
            None => {}
        }
        self.env.endpoint.offer(self.checks.health.offered());
    }
}

/// Where the services of this host may listen: on loopback, or only at an announced address. A
/// router's address that leads here may also lead to another host, so it is not asked.
fn hosts(announced: &[Multiaddr]) -> Vec<IpAddr> {
    let mut hosts = vec![
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ];
    for addr in announced {
        let host = match addr.iter().next() {
            Some(Protocol::Ip4(ip)) => IpAddr::from(ip),
            Some(Protocol::Ip6(ip)) => ip.into(),
            _ => continue,
        };
        if !hosts.contains(&host) && Host::of_this_thread().has(host) {
            hosts.push(host);
        }
    }
    hosts
}

async fn connects(hosts: &[IpAddr], port: u16) -> Result<(), Failure> {
    let connected = executor::within(CHECK_TIMEOUT, connect(hosts, port)).await;
    connected.unwrap_or_else(|| Err(late())).map(drop)
}

async fn gets(hosts: &[IpAddr], port: u16, path: &str) -> Result<(), Failure> {
    let got = executor::within(CHECK_TIMEOUT, status_of(hosts, port, path)).await;
    match got.unwrap_or_else(|| Err(late()))? {
        200..=399 => Ok(()),
        status => Err(failed(format!("GET {path}: HTTP status {status}"))),
    }
}

fn late() -> Failure {
    failed(format!("no answer within {} s", CHECK_TIMEOUT.as_secs()))
}

fn failed(why: String) -> Failure {
    Failure {
        ending: Ending::Failed,
        why,
    }
}

/// The failure of a system call. Its cause may be this host and not the service.
fn system_failed(what: &str, why: &io::Error) -> Failure {
    let lacks = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::AGAIN,
    ];
    let is_ours = Errno::from_io_error(why).is_some_and(|errno| lacks.contains(&errno));
    Failure {
        ending: if is_ours {
            Ending::NotMade
        } else {
            Ending::Failed
        },
        why: format!("{what}: {}", plain(why)),
    }
}

/// Connects to the first of the hosts that takes the connection.
async fn connect(hosts: &[IpAddr], port: u16) -> Result<Async<TcpStream>, Failure> {
    let mut first = None;
    for host in hosts {
        let addr = SocketAddr::new(*host, port);
        match Async::<TcpStream>::connect(addr).await {
            Ok(stream) => return Ok(stream),
            Err(why) => first = first.or_else(|| Some(system_failed(&addr.to_string(), &why))),
        }
    }
    Err(first.unwrap_or_else(late))
}

async fn status_of(hosts: &[IpAddr], port: u16, path: &str) -> Result<u16, Failure> {
    let mut stream = connect(hosts, port).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: oc-discovery\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    let broken = |why: io::Error| system_failed(&format!("GET {path}"), &why);
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut line = Vec::new();
    let mut reader = stream.take(STATUS_LINE as u64);
    let mut part = [0; STATUS_LINE];
    while !line.contains(&b'\n') {
        match reader.read(&mut part).await.map_err(broken)? {
            0 => break,
            read => line.extend_from_slice(part.get(..read).unwrap_or_default()),
        }
    }
    http_status(&line).ok_or_else(|| failed(format!("GET {path}: what it answers is not HTTP")))
}

/// The status in the first line of a response (RFC 9112, section 4).
fn http_status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let mut words = rest.split(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
    words.next()?;
    let status = std::str::from_utf8(words.next()?).ok()?;
    status
        .parse()
        .ok()
        .filter(|status| (100..600).contains(status))
}

/// Runs a command in a process group of its own.
async fn execute(command: &str, (check, groups): (u64, &Groups), tell: impl Fn(What)) {
    let started = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(why) => {
            return tell(What::Result(Err(system_failed(
                "/bin/sh cannot be started",
                &why,
            ))));
        }
    };
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    groups
        .borrow_mut()
        .extend(group.map(|group| (check, group)));
    let result = match executor::within(CHECK_TIMEOUT, end_of(&mut child)).await {
        Some(ended) => told(ended),
        None => {
            group.into_iter().for_each(kill);
            let hung = format!(
                "the command did not end within {} s",
                CHECK_TIMEOUT.as_secs()
            );
            match executor::within(KILLED, end_of(&mut child)).await {
                Some(_) => Err(failed(hung)),
                None => {
                    let (ending, why) = (Ending::Stuck, format!("{hung}, and cannot be killed"));
                    tell(What::Result(Err(Failure { ending, why })));
                    let _ = end_of(&mut child).await;
                    groups
                        .borrow_mut()
                        .retain(|(_, other)| Some(*other) != group);
                    return tell(What::Over);
                }
            }
        }
    };
    groups
        .borrow_mut()
        .retain(|(_, other)| Some(*other) != group);
    tell(What::Result(result));
}

/// Kills all processes of the group.
fn kill(group: Pid) {
    // It fails only if all of them have ended.
    let _ = kill_process_group(group, Signal::KILL);
}

/// Waits until the process has ended. A thread or a handler of SIGCHLD for it would cost more than
/// a few looks.
async fn end_of(child: &mut Child) -> io::Result<ExitStatus> {
    let mut pause = LOOK_FIRST;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        Timer::after(pause).await;
        pause = (pause * 2).min(LOOK_LONGEST);
    }
}

fn told(ended: io::Result<ExitStatus>) -> Result<(), Failure> {
    let status = ended.map_err(|why| system_failed("the command cannot be waited for", &why))?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(failed(format!("the command ended with exit code {code}"))),
        (None, Some(signal)) => Err(failed(format!("the command was ended by signal {signal}"))),
        (None, None) => Err(failed("the command failed".to_owned())),
    }
}

#[cfg(test)]
mod tests;
