//! A status as a person reads it: the verdict, what this process is, its servers, its problems, and
//! the peers that it serves.
//!
//! Invariants: text from a peer is printed only through [`Plain`]; no line is longer than the
//! terminal is wide, except those that are there to be copied: the option that others are started
//! with, and without a space a word.

use std::fmt;

use super::super::width::{cut, padded, width, wrapped};
use crate::config::Role;
use crate::daemon::status::{
    CheckState, LiveIndexer, PeerState, Plain, Problem, Protocol, Server, ServerState, Service,
    ServiceCheck, Severity, Source, Span, Status, StreamRecord, VerdictState, counted,
    host_and_port, is_named, short_id, sort, sort_few,
};

/// Peers that are shown without `--all`.
const MOST_PEERS: usize = 20;
/// The width of the titles on the left.
const TITLE: usize = 11;
/// The width to which a column may be cut.
const SHORTEST: usize = 8;
/// Spaces between two columns.
const GAP: usize = 2;

/// What is shown of a status, and how.
pub(super) struct Sheet<'a> {
    pub(super) status: &'a Status,
    /// Columns of the terminal.
    pub(super) width: usize,
    pub(super) colour: bool,
    /// Also all peers, the loops, the tables and the counters.
    pub(super) all: bool,
}

/// How bad a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    Plain,
    Good,
    Bad,
    Worst,
}

struct Row {
    tone: Tone,
    cells: Vec<String>,
    /// What does not fit a column: it stands below, indented.
    note: Option<String>,
}

impl Row {
    fn new<const COLUMNS: usize>(tone: Tone, cells: [String; COLUMNS]) -> Self {
        let cells = cells.into_iter().map(|cell| match cell.as_str() {
            "" => "-".to_owned(),
            cell => Plain(cell).to_string(),
        });
        Self {
            tone,
            cells: cells.collect(),
            note: None,
        }
    }
}

impl fmt::Display for Sheet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.verdict(f)?;
        self.identity(f)?;
        self.problems(f)?;
        self.servers(f)?;
        self.peers(f)?;
        if self.all {
            self.known_ids(f)?;
            self.loops(f)?;
            self.tables(f)?;
            self.counters(f)?;
        }
        Ok(())
    }
}

impl Sheet<'_> {
    fn verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.status.verdict;
        let tone = match verdict.state {
            VerdictState::Ok => Tone::Good,
            VerdictState::Starting => Tone::Plain,
            VerdictState::Degraded => Tone::Bad,
            VerdictState::Critical => Tone::Worst,
        };
        let whole = verdict.to_string();
        let mut lines = wrapped(&whole, self.width).into_iter();
        let first = lines.next().unwrap_or_default();
        let rest = first.strip_prefix(verdict.state.word()).unwrap_or_default();
        writeln!(f, "{}{rest}", self.toned(tone, verdict.state.word()))?;
        lines.try_for_each(|line| writeln!(f, "{line}"))
    }

    /// The process itself.
    fn identity(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status;
        let name = status.name.as_ref().map(|name| format!(" {name}"));
        let name = name.unwrap_or_default();
        let id = short_id(&status.peer_id);
        let up = Span::ms(status.uptime_ms);
        let line = format!(
            "{}{name} ({id}), version {}, up {up}",
            status.role, status.version
        );
        writeln!(f, "\n{}", cut(&Plain(&line).to_string(), self.width))?;
        if status.role == Role::Node {
            let tags = status.tags.iter();
            let tags = tags.map(|(key, value)| format!("{key}={value}"));
            self.field(f, "tags", "none", tags)?;
            let services = status.services.iter();
            let services = services.map(|service| self.service(service));
            self.field(f, "services", "none", services)?;
        }
        let addresses = |all: &[String]| {
            let mut hosts: Vec<String> = all.iter().map(|addr| host_and_port(addr)).collect();
            hosts.dedup();
            hosts.into_iter()
        };
        self.field(f, "listens", "at no address", addresses(&status.listen))?;
        self.field(f, "announces", "no address", addresses(&status.announced))?;
        if let Some(reachable) = &status.reachable {
            let line = format!("reachable {}", reachable.sentence(status));
            let line = Plain(&line).to_string();
            let mut lines = wrapped(&line, self.width).into_iter();
            lines.try_for_each(|line| writeln!(f, "{line}"))?;
        }
        if status.role == Role::Native {
            match &status.native_option {
                Some(option) => writeln!(f, "others start with {}", Plain(option))?,
                None => writeln!(
                    f,
                    "give --announce: no address is known to start others with"
                )?,
            }
        }
        if !status.found_natives.is_empty() {
            writeln!(f, "natives found on the link, not trusted:")?;
            let mut found = status.found_natives.iter();
            found.try_for_each(|native| writeln!(f, "  {}", Plain(native)))?;
        }
        Ok(())
    }

    fn service(&self, service: &Service) -> String {
        let at = at_port(&service.name, service.protocol, service.port);
        let mut checks = self.status.checks.iter();
        let check = checks.find(|check| is_checked_by(service, check));
        match (&service.device, check) {
            (Some(device), _) => format!("{at}, of the device {device}"),
            (None, Some(check)) => {
                let withdrawn = match check.state {
                    CheckState::Ok => "",
                    CheckState::Starting | CheckState::Failing => ", not announced",
                };
                format!("{at}{withdrawn}: {}", checked(check))
            }
            (None, None) => at,
        }
    }

    fn problems(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems = &self.status.problems;
        if problems.is_empty() {
            return Ok(());
        }
        let notices = problems.iter();
        let notices = notices.filter(|it| it.severity == Severity::Notice).count();
        let of_others = match notices {
            0 => String::new(),
            some => format!(", notices: {some}"),
        };
        writeln!(f, "\nproblems: {}{of_others}", problems.len() - notices)?;
        for problem in problems {
            let (tone, word) = match problem.severity {
                Severity::Notice => (Tone::Plain, "notice"),
                Severity::Warning => (Tone::Bad, "warning"),
                Severity::Critical => (Tone::Worst, "critical"),
            };
            let times = match problem.count {
                0 | 1 => String::new(),
                more => format!(", {more} times"),
            };
            let head = format!("{} for {}{times}", problem.code, Span::ms(problem.since_ms));
            writeln!(f, "  {}: {}", self.toned(tone, word), Plain(&head))?;
            for text in [&problem.what, &problem.hint] {
                let text = Plain(text).to_string();
                for line in wrapped(&text, self.width.saturating_sub(4)) {
                    writeln!(f, "    {line}")?;
                }
            }
        }
        Ok(())
    }

    /// The servers of this process, natives first.
    fn servers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut servers: Vec<&Server> = self.status.servers.iter().collect();
        sort_few(&mut servers, |server| server.role != Role::Native);
        let rows = servers.iter().map(|server| {
            let tone = match server.state {
                ServerState::Granted => Tone::Plain,
                _ if server.last_error.is_some() => Tone::Bad,
                _ => Tone::Plain,
            };
            let addr = server.addr.clone().unwrap_or_default();
            let (role, id) = (server.role.to_string(), short_id(&server.peer_id));
            Row {
                note: error_of(server, &self.status.problems),
                ..Row::new(tone, [role, addr, id, state_of(server)])
            }
        });
        let none = match self.status.role {
            Role::Native => "this native is given no other one, and needs none",
            Role::Indexer | Role::Node => "no native is known",
        };
        let titles = ["SERVER", "ADDRESS", "ID", "STATE"];
        self.table(f, none, titles, rows.collect())
    }

    /// The peers that hold leases here, the silent ones first, and indexers that are known from the
    /// DHT alone.
    fn peers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status;
        if status.role == Role::Node {
            return Ok(());
        }
        let mut served: Vec<&StreamRecord> = status.stream_records.iter().collect();
        let rank = |peer: &StreamRecord| (peer.state == PeerState::Alive, peer.role == Role::Node);
        sort(&mut served, |one, other| {
            let named = |peer| (rank(peer), &peer.name, &peer.peer_id);
            named(one) < named(other)
        });
        let mut rows: Vec<Row> = served.into_iter().map(|peer| self.served(peer)).collect();
        let from_dht = status.live_indexers.iter();
        let from_dht = from_dht.filter(|entry| entry.source == Source::Dht);
        rows.extend(from_dht.map(Self::known_from_dht));
        let all = rows.len();
        if !self.all {
            rows.truncate(MOST_PEERS);
        }
        let more = all - rows.len();
        let titles = ["NAME", "STATE", "ROLE", "HOST", "LEASE ENDS IN", "ID"];
        self.table(f, "no peer holds a lease here", titles, rows)?;
        match more {
            0 => Ok(()),
            more => writeln!(f, "… {more} more: status --all shows them"),
        }
    }

    fn served(&self, peer: &StreamRecord) -> Row {
        let (tone, state) = match peer.state {
            PeerState::Alive => (Tone::Plain, "alive".to_owned()),
            PeerState::Silent => {
                let silent = format!("silent {}", Span::ms(peer.last_seen_ms));
                (Tone::Bad, silent)
            }
        };
        let entry = self.status.live_indexers.iter();
        let failures = entry
            .filter(|entry| entry.peer_id == peer.peer_id)
            .map(|entry| entry.failures)
            .find(|failures| *failures > 0);
        let failed = failures.map(|failures| format!(", failed at {}", counted(&failures, "node")));
        let cells = [
            peer.name.clone().unwrap_or_default(),
            state + &failed.unwrap_or_default(),
            peer.role.to_string(),
            peer.host.clone().unwrap_or_default(),
            Span::ms(peer.expires_in_ms).to_string(),
            short_id(&peer.peer_id),
        ];
        Row::new(tone, cells)
    }

    fn known_from_dht(entry: &LiveIndexer) -> Row {
        let host = entry.addrs.first().and_then(|addr| addr.split('/').nth(2));
        let cells = [
            String::new(),
            "DHT only".to_owned(),
            Role::Indexer.to_string(),
            host.unwrap_or_default().to_owned(),
            Span::ms(entry.expires_in_ms).to_string(),
            short_id(&entry.peer_id),
        ];
        Row::new(Tone::Plain, cells)
    }

    fn known_ids(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.status.role != Role::Native {
            return Ok(());
        }
        let known = &self.status.known_peer_ids;
        writeln!(f, "\nknown indexer ids: {}", known.len())?;
        let mut known = known.iter();
        known.try_for_each(|id| writeln!(f, "  {}", Plain(id)))
    }

    fn loops(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.status.loops.iter().map(|(name, state)| {
            let last = state.last_ms.map(|last| format!("{} ago", Span::ms(last)));
            let did = match (state.done, name.as_str()) {
                (0, _) => "nothing".to_owned(),
                (done, "offload") => format!("{done} released"),
                (done, "refresh") => format!("{done} found"),
                (done, _) => format!("{done} removed"),
            };
            let cells = [
                name.clone(),
                state.runs.to_string(),
                last.unwrap_or_else(|| "not yet".to_owned()),
                did,
                Span::ms(state.interval_ms).to_string(),
            ];
            Row::new(Tone::Plain, cells)
        });
        let titles = ["LOOP", "RUNS", "LAST", "DID", "EVERY"];
        self.table(f, "loops: none", titles, rows.collect())
    }

    fn tables(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.status.tables.iter().map(|table| {
            let is_full = table.used >= table.capacity && table.capacity > 0;
            let numbers = [table.used, table.capacity, table.refused, table.evicted];
            let [used, capacity, refused, evicted] = numbers.map(|number| number.to_string());
            let tone = if is_full { Tone::Bad } else { Tone::Plain };
            Row::new(tone, [table.name.clone(), used, capacity, refused, evicted])
        });
        let titles = ["TABLE", "USED", "CAPACITY", "REFUSED", "EVICTED"];
        self.table(f, "tables: none", titles, rows.collect())
    }

    /// What has happened since the start, and how often.
    fn counters(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counters = self.status.counters.iter().filter(|(_, times)| **times > 0);
        let rows =
            counters.map(|(name, times)| Row::new(Tone::Plain, [name.clone(), times.to_string()]));
        let titles = ["SINCE THE START", "TIMES"];
        self.table(f, "nothing since the start", titles, rows.collect())
    }

    /// A title on the left, and the items beside it, each on a line.
    fn field(
        &self,
        f: &mut fmt::Formatter<'_>,
        title: &str,
        none: &str,
        items: impl Iterator<Item = String>,
    ) -> fmt::Result {
        let mut title = Some(title);
        for item in items {
            let item = Plain(&item).to_string();
            for line in wrapped(&item, self.width.saturating_sub(TITLE)) {
                let line = cut(&line, self.width.saturating_sub(TITLE));
                writeln!(f, "{:TITLE$}{line}", title.take().unwrap_or_default())?;
            }
        }
        match title {
            Some(title) => writeln!(f, "{title:TITLE$}{none}"),
            None => Ok(()),
        }
    }

    /// A table with titles, after an empty line. Its widest columns are cut until it fits.
    fn table<const COLUMNS: usize>(
        &self,
        f: &mut fmt::Formatter<'_>,
        none: &str,
        titles: [&str; COLUMNS],
        rows: Vec<Row>,
    ) -> fmt::Result {
        writeln!(f)?;
        if rows.is_empty() {
            return writeln!(f, "{none}");
        }
        let mut widths = titles.map(width);
        for row in &rows {
            for (widest, cell) in widths.iter_mut().zip(&row.cells) {
                *widest = width(cell).max(*widest);
            }
        }
        self.fit(&mut widths);
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let cells = cells.zip(widths);
            let cells = cells.map(|(cell, width)| padded(&cut(cell, width), width + GAP));
            cells.collect::<String>().trim_end().to_owned()
        };
        writeln!(f, "{}", line(&mut titles.into_iter()))?;
        for row in &rows {
            let shown = line(&mut row.cells.iter().map(String::as_str));
            writeln!(f, "{}", self.toned(row.tone, &shown))?;
            let note = row.note.as_ref().map(|note| Plain(note).to_string());
            for line in note
                .iter()
                .flat_map(|note| wrapped(note, self.width.saturating_sub(4)))
            {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }

    fn fit(&self, widths: &mut [usize]) {
        let gaps = GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > self.width {
            match widths.iter_mut().max() {
                Some(widest) if *widest > SHORTEST => *widest -= 1,
                _ => return,
            }
        }
    }

    /// The text in the colour of the tone, if there is colour.
    fn toned(&self, tone: Tone, text: &str) -> String {
        let colour = match tone {
            Tone::Plain => return text.to_owned(),
            _ if !self.colour => return text.to_owned(),
            Tone::Good => "32",
            Tone::Bad => "33",
            Tone::Worst => "1;31",
        };
        format!("\x1b[{colour}m{text}\x1b[0m")
    }
}

fn at_port(name: &str, protocol: Protocol, port: u16) -> String {
    match protocol {
        Protocol::Tcp => format!("{name} at port {port}"),
        Protocol::Udp => format!("{name} at port {port} (UDP)"),
    }
}

fn is_checked_by(service: &Service, check: &ServiceCheck) -> bool {
    let of = (&service.name, service.protocol, service.port);
    service.device.is_none() && of == (&check.service, check.protocol, check.port)
}

/// The state of a check in words.
fn checked(check: &ServiceCheck) -> String {
    let Some(since) = check.since_ms else {
        return format!("{} has not run yet", check.check);
    };
    let state = match check.state {
        CheckState::Starting => "has not ended yet",
        CheckState::Ok => "passes",
        CheckState::Failing => "fails",
    };
    let error = check.error.as_ref().map(|error| format!(": {error}"));
    let error = error.unwrap_or_default();
    format!("{} {state} for {}{error}", check.check, Span::ms(since))
}

/// The state of a server in words.
fn state_of(server: &Server) -> String {
    let end = server.expires_in_ms.map(Span::ms);
    let end = end.map_or_else(String::new, |end| format!("ends in {end}"));
    match (server.state, server.failing_ms) {
        (ServerState::Granted, _) => format!("lease {end}"),
        (ServerState::Silent, _) => format!("silent, lease {end}"),
        (ServerState::NoNative, _) => "is no native".to_owned(),
        (_, Some(since)) => format!("fails for {}", Span::ms(since)),
        (ServerState::Trying, None) => "is tried".to_owned(),
        (ServerState::Waiting, None) => "is tried again later".to_owned(),
        (ServerState::Idle, None) => "no lease is needed".to_owned(),
    }
}

/// Why a server fails, and when it is tried again.
/// Why it grants no lease. What a problem says of its address is not said again.
fn error_of(server: &Server, problems: &[Problem]) -> Option<String> {
    let error = server.last_error.as_deref()?;
    let is_of = |problem: &&Problem| {
        let at = server.addr.as_deref();
        at.is_some_and(|at| is_named(at, &problem.what)) && problem.severity != Severity::Notice
    };
    let said = problems.iter().find(is_of);
    let said = said.map(|problem| format!("see the problem {}", problem.code));
    let error = said.as_deref().unwrap_or(error);
    let next = server.next_try_ms.map(Span::ms);
    let next = next.map_or_else(String::new, |next| format!("; next try in {next}"));
    Some(format!("{error}{next}"))
}
