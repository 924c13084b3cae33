//! What is right and what is wrong with a daemon and its host, each wrong thing with what to type.
//!
//! The daemon is asked for what it knows, and the system is looked at from outside: files, clock,
//! sockets, names. If no daemon runs, what can be looked at without one is.

mod servers;

use std::{
    fmt,
    fs::File,
    io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use libp2p::Multiaddr;
use miniserde::{Serialize, json};

use super::{
    client::{self, OperatorRequest},
    clock,
    mistakes::{early_clock, open_dir},
    problems::Mistake,
    report::host_and_port,
    status::{
        CheckState, IndexerList, Plain, ReachableState, Severity, Span, Status, VerdictState,
        counted,
    },
    storage,
};
use crate::config::{EnvVars, default_data_dirs, service_socket_dirs};
use crate::net::tcp::plain;

/// What a new state takes beside the one before, with all that a process can know.
const NEEDED_BYTES: u64 = 64 * 1024;
/// How long a connection to an own address may take.
const CONNECT: Duration = Duration::from_secs(2);

/// An identity is new for so long.
const FRESH: Duration = Duration::from_secs(60 * 60);

/// Columns before what is said of a finding.
pub(crate) const INDENT: usize = 10;

/// What was looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Diagnosis {
    /// The version of this form: 1.
    schema: u64,
    /// Nothing is wrong.
    ok: bool,
    /// The data directory of the daemon, if there is one.
    data_dir: Option<String>,
    findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    /// What it is about, one word; for a problem of the daemon, its code.
    about: String,
    /// `ok`, `note`, `notice`, `warning` or `critical`.
    state: &'static str,
    what: String,
    /// What to do or to type; `None` if nothing is wrong.
    hint: Option<String>,
}

impl Diagnosis {
    /// Whether nothing is wrong.
    pub(crate) fn is_ok(&self) -> bool {
        self.ok
    }

    /// The report as one JSON object.
    pub(crate) fn to_json(&self) -> String {
        json::to_string(self)
    }

    fn say(&mut self, about: &str, state: &'static str, what: impl Into<String>) {
        self.findings.push(Finding {
            about: about.into(),
            state,
            what: what.into(),
            hint: None,
        });
    }

    fn good(&mut self, about: &str, what: impl Into<String>) {
        self.say(about, "ok", what);
    }

    fn wrong(&mut self, about: &str, severity: Severity, what: impl Into<String>, hint: &str) {
        self.ok &= severity == Severity::Notice;
        self.findings.push(Finding {
            about: about.into(),
            state: severity.name(),
            what: what.into(),
            hint: Some(hint.into()),
        });
    }

    /// A mistake, or that there is none.
    fn either(&mut self, about: &str, mistake: Option<Mistake>, right: impl Into<String>) {
        match mistake {
            Some(it) => self.wrong(it.code, it.severity, it.what, &it.hint),
            None => self.good(about, right),
        }
    }
}

/// Looks at the daemon of the given data directory, or of the only default one on which a daemon
/// runs, and at its host.
///
/// # Errors
/// There are several daemons, so that one must be chosen.
pub(crate) fn examine(given: Option<&Path>, env: EnvVars<'_>) -> Result<Diagnosis, client::Error> {
    let mut report = Diagnosis {
        schema: 1,
        ok: true,
        data_dir: None,
        findings: Vec::new(),
    };
    let (dir, status) = match client::locate(given, env) {
        Err(error @ client::Error::Several(_)) => return Err(error),
        Err(error) => {
            no_daemon(&mut report, &error);
            (known_dir(env), None)
        }
        Ok(dir) => {
            let ask = |what| client::ask::<Status>(&dir, what, client::PATIENCE);
            let asked = match ask(&OperatorRequest::Doctor) {
                // A daemon of an earlier version does not know the question.
                Err(client::Error::Refused(_)) => ask(&OperatorRequest::Status),
                asked => asked,
            };
            let status = asked.map_err(|error| no_daemon(&mut report, &error)).ok();
            // That there is no directory is said once.
            let dir = Some(dir).filter(|dir| status.is_some() || dir.is_dir());
            (dir, status.map(|answer| answer.value))
        }
    };
    if let Some(dir) = &dir {
        report.data_dir = Some(dir.display().to_string());
        let identity = File::open(dir.join(storage::identity::IDENTITY));
        look_at_files(&mut report, dir, identity.map(drop));
    }
    look_at_clock(&mut report);
    if let Some(status) = &status {
        look_at_daemon(
            &mut report,
            status,
            dir.as_deref().and_then(|dir| indexers(dir, status)),
        );
    }
    Ok(report)
}

/// How many indexers the natives know, if it matters.
fn indexers(dir: &Path, status: &Status) -> Option<usize> {
    let ask = || client::ask::<IndexerList>(dir, &OperatorRequest::Indexers, client::PATIENCE).ok();
    let list = servers::lacks_indexers(status).then(ask)??;
    Some(list.value.indexers.len())
}

fn no_daemon(report: &mut Diagnosis, error: &client::Error) {
    use client::Error::{Deaf, DirectoryGone, NoDirectory, NotOurs};
    let hint = match error {
        DirectoryGone(_) => {
            "put the directory back as it was, or else it starts as a new peer, then restart the daemon: `systemctl \
             restart oc-discovery@ROLE`, or stop it and start it as before"
        }
        NotOurs(_) => "ask as root: `sudo oc-discovery doctor`",
        Deaf(..) => "is it stopped or overloaded? `systemctl status oc-discovery@ROLE`, and `top`",
        NoDirectory(_) => "is --data-dir right? the daemon makes the directory when it starts",
        _ => {
            "start it, for example `systemctl start oc-discovery@node`, and ask again; as root if it is a service of \
             the system, with --data-dir if it has another directory"
        }
    };
    report.wrong("daemon", Severity::Critical, error.what().to_string(), hint);
}

/// The default data directory in which a daemon has run, if there is only one.
fn known_dir(env: EnvVars<'_>) -> Option<PathBuf> {
    let mut dirs = default_data_dirs(env).into_iter();
    dirs.find(|dir| dir.join(storage::identity::IDENTITY).exists())
}

/// `identity`: whether this user can open that file.
fn look_at_files(report: &mut Diagnosis, dir: &Path, identity: io::Result<()>) {
    let shown = dir.display();
    // That it is closed to others is right, and no fault of the identity in it.
    let is_closed = identity.is_err_and(|why| why.kind() == io::ErrorKind::PermissionDenied);
    if is_closed || service_socket_dirs().iter().any(|it| it == dir) {
        let what = "its files are not for this user; root's doctor looks at them, too";
        return report.say("data-dir", "note", what);
    }
    let right = format!("{shown} is for its owner alone");
    report.either("data-dir", open_dir(dir), right);
    if let Ok(there) = rustix::fs::statvfs(dir)
        && is_full(
            there.f_bavail.saturating_mul(there.f_frsize),
            there.f_files,
            there.f_favail,
        )
    {
        let what = format!("the file system of {shown} is full: the next save of the state fails");
        let hint =
            format!("`df -h {shown}` and `df -i {shown}` show it: remove what is not needed");
        report.wrong("data-dir", Severity::Warning, what, &hint);
    }
    match storage::peer_id_in(dir) {
        Ok(peer) => {
            report.good("identity", peer.to_base58());
            look_at_age(report, dir);
        }
        Err(error) => {
            let hint = "look at the file `identity` in the data directory, as the user of the daemon or as root";
            report.wrong("identity", Severity::Critical, error.to_string(), hint);
        }
    }
}

/// An identity that was made a moment ago may be that of a mistyped directory, which a daemon
/// makes.
fn look_at_age(report: &mut Diagnosis, dir: &Path) {
    let identity = dir.join(storage::identity::IDENTITY).metadata();
    let made = identity.and_then(|identity| identity.modified()).ok();
    let Some(age) = made
        .and_then(|made| made.elapsed().ok())
        .filter(|age| *age < FRESH)
    else {
        return;
    };
    let others = storage::identity::beside(dir);
    let others = match others.is_empty() {
        true => String::new(),
        false => format!("; beside it are identities in {}", others.join(", ")),
    };
    let what = format!(
        "it was made {} ago in {}: if this device had another one before, --data-dir was mistyped{others}",
        Span::of(age),
        dir.display()
    );
    report.say("identity", "note", what);
}

/// Whether a file system takes no new state: of so many bytes and files that are free for this
/// user. One without a limit of files says that it has none at all.
fn is_full(free_bytes: u64, files: u64, free_files: u64) -> bool {
    free_bytes < NEEDED_BYTES || (files > 0 && free_files == 0)
}

fn look_at_clock(report: &mut Diagnosis) {
    match early_clock(clock::wall()) {
        Some(it) => report.wrong(it.code, it.severity, it.what, &it.hint),
        None if clock::synchronised() => report.good("clock", "the system clock can be right"),
        // The time of servers that grant a lease is used, so this is no fault of the daemon.
        None => report.wrong(
            "clock",
            Severity::Notice,
            "the system clock has not been synchronised since the start",
            "timedatectl timesync-status",
        ),
    }
}

/// `indexers`: see [`indexers`].
fn look_at_daemon(report: &mut Diagnosis, status: &Status, indexers: Option<usize>) {
    let name = status.name.as_deref().unwrap_or_default();
    let up = Span::of(Duration::from_millis(status.uptime_ms));
    let (role, version) = (status.role, &status.version);
    report.good(
        "daemon",
        format!("{role} {name}, version {version}, up {up}").replace(" ,", ","),
    );
    match &status.key {
        Some(key) => report.good(
            "key",
            format!("the fingerprint of the pre-shared key is {key}"),
        ),
        None if status.network.as_ref().is_some_and(|it| it.closed) => report.say(
            "key",
            "note",
            "there is no pre-shared key: who has no grant is refused, and can see who is there",
        ),
        None => report.say(
            "key",
            "note",
            "there is no pre-shared key: the network is open",
        ),
    }
    look_at_sockets(report, status);
    servers::look_at_servers(report, status, indexers);
    look_at_reach(report, status);
    for check in &status.checks {
        if check.state == CheckState::Failing {
            let error = check.error.as_deref().unwrap_or("it never passed");
            let what = format!("the service {} fails its check: {error}", check.service);
            let hint = format!(
                "start the service, or correct --check {}={}",
                check.service, check.check
            );
            report.wrong("check", Severity::Warning, what, &hint);
        }
    }
    // What was looked at from outside is said already.
    let said: Vec<String> = report.findings.iter().map(|it| it.about.clone()).collect();
    for problem in status.problems.iter().filter(|it| !said.contains(&it.code)) {
        let since = Span::of(Duration::from_millis(problem.since_ms));
        let times = match problem.count {
            0 | 1 => String::new(),
            more => format!(", {more} times"),
        };
        let what = format!("{} (for {since}{times})", problem.what);
        report.wrong(&problem.code, problem.severity, what, &problem.hint);
    }
    look_at_verdict(report, status);
}

/// What `status` calls degraded is never right here, whatever the reason.
fn look_at_verdict(report: &mut Diagnosis, status: &Status) {
    let severity = match status.verdict.state {
        VerdictState::Ok | VerdictState::Starting => return,
        VerdictState::Degraded => Severity::Warning,
        VerdictState::Critical => Severity::Critical,
    };
    if report.ok {
        let hint = "`oc-discovery status --all`, and the log, say more";
        report.wrong("verdict", severity, &*status.verdict.summary, hint);
    }
}

/// Whether the daemon accepts connections where it says that it listens.
fn look_at_sockets(report: &mut Diagnosis, status: &Status) {
    let mut fails = None;
    for addr in &status.listen {
        let socket = addr
            .parse::<Multiaddr>()
            .ok()
            .map(|addr| host_and_port(&addr));
        let socket = socket.and_then(|socket| socket.parse::<SocketAddr>().ok());
        if let Some(Err(error)) = socket.map(|at| TcpStream::connect_timeout(&at, CONNECT)) {
            fails = Some(format!(
                "{addr} takes no connection from this host: {}",
                plain(&error)
            ));
        }
    }
    match (fails, status.listen.len()) {
        (_, 0) => report.wrong(
            "listen",
            Severity::Critical,
            "it listens on no address",
            "ip address: has this host an address yet?",
        ),
        (Some(what), _) => report.wrong(
            "listen",
            Severity::Warning,
            what,
            "nft list ruleset: does a firewall of this host drop it?",
        ),
        (None, addresses) => report.good(
            "listen",
            format!("it takes connections on {}", counted(&addresses, "address")),
        ),
    }
}

/// Whether others reach it, and how old the answer is: a server dials a process once in ten seconds
/// at most. That they do not is a problem of its own, but not of a node.
fn look_at_reach(report: &mut Diagnosis, status: &Status) {
    let Some(reachable) = &status.reachable else {
        return;
    };
    let state = match reachable.state {
        ReachableState::Yes => "ok",
        ReachableState::No | ReachableState::Unknown => "note",
    };
    report.say("reachable", state, reachable.sentence(status));
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let Finding {
                about, state, what, ..
            } = finding;
            writeln!(f, "{state:INDENT$}{about}: {}", Plain(what))?;
            if let Some(hint) = &finding.hint {
                writeln!(f, "{:INDENT$}→ {}", "", Plain(hint))?;
            }
        }
        match self
            .findings
            .iter()
            .filter(|one| one.hint.is_some() && one.state != "notice")
            .count()
        {
            0 => f.write_str("nothing is wrong"),
            1 => f.write_str("1 thing is wrong"),
            more => write!(f, "{more} things are wrong"),
        }
    }
}

#[cfg(test)]
mod tests;
