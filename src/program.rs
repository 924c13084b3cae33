//! The program `oc-discovery`: parses the command line, runs the command and reports the result.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failure, 2 usage,
//! 3 the answer is incomplete, with or without a result.

mod columns;
mod config;
mod drain;
mod identity;
mod network;
mod nodes;
mod status;
mod support;
mod watch;
mod width;

use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::{Command, Exit, Find};
use crate::config::{Flags, LogFormat, Role, ends_a_peer_id, load, nearest};
pub use crate::daemon::Allocator;
use crate::daemon::capacity::CapacityReport;
use crate::daemon::client::{self, Answer, Lines, NameOrPeerId, OperatorRequest};
use crate::daemon::status::{Found, IndexerList, ListTally, NodeQuery, NodeRow, Status};
use crate::daemon::{self, demo, doctor, logging, signals};
use miniserde::{Deserialize, json};

/// The characters of an id that lists show, of its end.
const SHORT_ID: usize = 8;
/// The command line is wrong.
const USAGE: u8 = 2;
/// Something may be missing, because not every server has answered.
const INCOMPLETE: u8 = 3;

/// Runs the command line of this process. Returns the exit code.
pub fn main() -> ExitCode {
    let done = match crate::cli::parse(std::env::args_os()) {
        Ok(command) => execute(command),
        Err(Exit::Tell(text)) => print(text.trim_end()),
        Err(Exit::Usage(sentence)) => Err(Failure::new(USAGE, sentence)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.say();
            ExitCode::from(failure.code)
        }
    }
}

/// Why a command failed.
struct Failure {
    code: u8,
    /// Several lines if there are several causes.
    sentence: String,
    /// The failure is that of a daemon, which must end even if its stderr is not read.
    of_daemon: bool,
}

impl Failure {
    fn new(code: u8, sentence: impl fmt::Display) -> Self {
        Failure {
            code,
            sentence: without_numbers(&sentence.to_string()),
            of_daemon: false,
        }
    }

    /// A code alone, because a result on stdout says why.
    fn silent(code: u8) -> Self {
        Self::new(code, "")
    }

    fn say(&self) {
        for sentence in self.sentence.lines() {
            match self.of_daemon {
                true => logging::last_word(sentence),
                false => note(sentence),
            }
        }
    }
}

/// The sentences without the numbers of the system's errors, which say nothing to a person.
fn without_numbers(sentences: &str) -> String {
    let mut parts = sentences.split(" (os error ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text += part.split_once(')').map_or("", |(_, rest)| rest);
    }
    text
}

/// The failure if the answer lacks what was looked up. The answer may be incomplete.
fn not_found(sentence: String, shortfall: Option<String>) -> Failure {
    match shortfall {
        None => Failure::new(1, sentence),
        Some(lacks) => Failure::new(INCOMPLETE, format!("{sentence}; incomplete: {lacks}")),
    }
}

/// Shows an answer. It is a failure if the answer lacks something; JSON says itself what.
fn show_found<T: fmt::Display>(
    answer: &Answer<T>,
    json: bool,
    shortfall: Option<String>,
) -> Result<(), Failure> {
    show(answer, json)?;
    match shortfall {
        None => Ok(()),
        Some(_) if json => Err(Failure::silent(INCOMPLETE)),
        Some(lacks) => Err(Failure::new(INCOMPLETE, format!("incomplete: {lacks}"))),
    }
}

/// The role that the option `--role` names.
fn role_given(name: &str) -> Result<Role, Failure> {
    Role::named(name).ok_or_else(|| {
        let sentence = format!("--role {name:?}: give native, indexer or node");
        Failure::new(USAGE, sentence)
    })
}

/// The data directory of the daemon to ask, which is given with its option or as a word.
fn one_dir<'a>(
    option: &'a Option<String>,
    word: &'a Option<String>,
) -> Result<Option<&'a str>, Failure> {
    match (option, word) {
        (Some(_), Some(dir)) => {
            let sentence = format!("give the data directory once: {dir}, or with --data-dir");
            Err(Failure::new(USAGE, sentence))
        }
        (given, None) | (None, given) => Ok(given.as_deref()),
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Failure::new(error.exit_code(), error)
    }
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Native(args) => run(Role::Native, &args.flags()),
        Command::Indexer(args) => run(Role::Indexer, &args.flags()),
        Command::Node(args) => run(Role::Node, &args.flags()),
        Command::Status(args) => status::run(&args),
        Command::Indexers(args) => {
            let dir = one_dir(&args.data_dir, &args.dir)?;
            let answer = ask::<IndexerList>(dir, &OperatorRequest::Indexers)?;
            show_found(&answer, args.json, answer.value.shortfall())
        }
        Command::Find(args) => find(&args),
        Command::Nodes(args) => nodes::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Identity(args) => identity::run(&args),
        Command::Network(args) => network::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Revoke(args) => network::give_list(&args),
        Command::Config(args) => config::run(&args.command),
        Command::Reload(args) => config::reload(&args),
        Command::Id(args) => {
            let dir = one_dir(&args.data_dir, &args.dir)?;
            print(client::peer_id(dir.map(Path::new), &env)?)
        }
        Command::Support(args) => support::run(&args),
        Command::Doctor(args) => {
            let dir = one_dir(&args.data_dir, &args.dir)?;
            let report = doctor::examine(dir.map(Path::new), &env)?;
            match args.json {
                true => print(report.to_json())?,
                false => {
                    let text = report.to_string();
                    let terminal = width::of_stdout();
                    print(width::hanging(&text, doctor::INDENT, terminal))?;
                }
            }
            match report.is_ok() {
                true => Ok(()),
                false => Err(Failure::silent(1)),
            }
        }
        Command::Capacity(args) => {
            let value = CapacityReport::of_this_build();
            let json = json::to_string(&value);
            show(&Answer { value, json }, args.json)
        }
        Command::Demo(args) => {
            let speed = demo::Speed::parse(args.speed.as_deref())
                .map_err(|sentence| Failure::new(USAGE, sentence))?;
            match demo::run(speed, width::takes_colour()) {
                // The reader has seen enough, as in `oc-discovery demo | head -1`.
                Err(demo::Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                    Ok(())
                }
                played => played.map_err(|error| Failure::new(error.exit_code(), error)),
            }
        }
        Command::Version(_) => print(concat!("oc-discovery ", env!("CARGO_PKG_VERSION"))),
    }
}

fn find(args: &Find) -> Result<(), Failure> {
    if args.addr && args.json {
        return Err(Failure::new(USAGE, "give --addr or --json, not both"));
    }
    if let Some(service) = args.service.as_ref().filter(|_| !args.addr) {
        let sentence = format!(
            "find looks for one name; a service after it, here {service}, goes with --addr: find --addr NAME SERVICE"
        );
        return Err(Failure::new(USAGE, sentence));
    }
    if is_host_and_port(&args.query) {
        let sentence = format!(
            "{} is an address, and find looks for a name or a peer id; the daemon of this host is asked. --addr takes no \
             value: it prints where a service of the node is reached, find --addr NAME [SERVICE]",
            args.query
        );
        return Err(Failure::new(USAGE, sentence));
    }
    if let Some((begin, _)) = args.query.split_once(['*', '?']) {
        let list = match begin {
            "" => "`oc-discovery nodes` lists all".to_owned(),
            _ => format!("`oc-discovery nodes --name {begin}` lists those that begin so"),
        };
        let sentence = format!(
            "{} is a pattern, and find looks for one exact name or peer id; {list}",
            args.query
        );
        return Err(Failure::new(USAGE, sentence));
    }
    let query = NameOrPeerId::parse(&args.query)?;
    let name = query.as_str().to_owned();
    let ends_an_id = ends_a_peer_id(&args.query);
    if name != args.query && !ends_an_id {
        let given = &args.query;
        note(format_args!(
            "asks for {name}, the name of a node on a host named {given}"
        ));
    }
    let answer = ask::<Found>(args.data_dir.as_deref(), &OperatorRequest::Find(query))?;
    let found = &answer.value;
    if found.records.is_empty() {
        if args.json {
            show(&answer, true)?;
        }
        let given = &args.query;
        if let Some(server) = server_with(args, given) {
            let sentence = format!("no node is known as {name}: {server}");
            return Err(not_found(sentence, found.shortfall()));
        }
        let sentence = match ends_an_id.then(|| whole_id(args, given)) {
            Some(Some(node)) => format!(
                "no node is known as {name}; {given} is the end of a peer id: did you mean {node}?"
            ),
            Some(None) => format!(
                "no node is known as {name}, and {given} looks like the end of a peer id: no node in the list of all \
                 has such an id"
            ),
            None => match near_name(args, &name) {
                Some(near) => format!("no node is known as {name}: did you mean {near}?"),
                None => format!("no node is known as {name}"),
            },
        };
        return Err(not_found(sentence, found.shortfall()));
    }
    if !args.addr {
        return show_found(&answer, args.json, found.shortfall());
    }
    let service = args.service.as_deref();
    let (record, addr) = found.service_at(service).ok_or_else(|| {
        let sentence = match service {
            Some(service) => format!("{name} does not offer {service}"),
            None => format!("{name} offers no service"),
        };
        not_found(sentence, found.shortfall())
    })?;
    if found.more || found.records.len() > 1 {
        let (claims, peer) = (found.claims(), &record.peer_id);
        note(format_args!("{claims} {name}: this is {peer}"));
    }
    print(addr)
}

/// Whether it is an address with a port, which is no name.
fn is_host_and_port(text: &str) -> bool {
    let is_host = |host: &str| !host.is_empty() && !host.contains(':');
    text.parse::<SocketAddr>().is_ok()
        || text
            .rsplit_once(':')
            .is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok())
}

/// Which server has this id, or one with this end, as the daemon knows it: a sentence for a person.
/// A program that reads JSON may ask again and again: none.
fn server_with(args: &Find, id: &str) -> Option<String> {
    let end = id.trim_start_matches('…');
    if args.json || end.len() < SHORT_ID {
        return None;
    }
    let asked = ask::<Status>(args.data_dir.as_deref(), &OperatorRequest::Status).ok()?;
    let status = asked.value;
    if status.peer_id.ends_with(end) {
        let role = status.role;
        let lack = match role == Role::Node && status.leases.is_empty() {
            true => ", which holds no lease, so that no peer can find it",
            false => "",
        };
        return Some(format!(
            "that is the {role} on this host{lack}; `oc-discovery status` shows it"
        ));
    }
    let servers = status.servers.into_iter().map(|it| (it.role, it.peer_id));
    let clients = status
        .stream_records
        .into_iter()
        .map(|it| (it.role, it.peer_id));
    let mut all = servers
        .chain(clients)
        .filter(|(role, _)| *role != Role::Node);
    let (role, peer) = all.find(|(_, peer)| peer.ends_with(end))?;
    let has_none = if role == Role::Native {
        ", and natives have no record to show"
    } else {
        ""
    };
    Some(format!("that is the {role} {peer}{has_none}"))
}

/// The peer id with this end, in the list of all nodes.
fn whole_id(args: &Find, end: &str) -> Option<String> {
    let end = end.trim_start_matches('…');
    let mut found = None;
    each_node(args, None, |row| {
        found = row.peer_id.ends_with(end).then_some(row.peer_id);
        found.is_none()
    })?;
    found
}

/// Names that are compared with one that no node has.
const MOST_NAMES: usize = 1000;

/// The name of a node that differs from this one in few letters, and not in the first one, so that
/// only a part of the nodes is listed. A program that reads JSON may ask again and again: none.
fn near_name(args: &Find, name: &str) -> Option<String> {
    let begin = name.get(..1).filter(|_| !args.json)?;
    let mut names = Vec::new();
    each_node(args, Some(begin), |row| {
        names.push(row.name);
        names.len() < MOST_NAMES
    })?;
    let names = names.iter().map(String::as_str);
    nearest(name, names)
        .filter(|near| *near != name)
        .map(str::to_owned)
}

/// Calls `take` for each node in the list of those whose names have this begin, until it returns
/// false. `None`: there is no list.
fn each_node(
    args: &Find,
    begin: Option<&str>,
    mut take: impl FnMut(NodeRow) -> bool,
) -> Option<()> {
    let dir = client::locate(args.data_dir.as_deref().map(Path::new), &env).ok()?;
    let query = NodeQuery::of(None, &[], begin, &[]).ok()?;
    let listed = OperatorRequest::Nodes(query);
    let mut lines = Lines::ask(&dir, &listed, client::PATIENCE).ok()?;
    while let Ok(Some(line)) = lines.next(Some(client::PATIENCE)) {
        match json::from_str::<NodeRow>(&line) {
            Ok(row) => {
                if !take(row) {
                    break;
                }
            }
            // How far the list is, or its end.
            Err(_) if json::from_str::<ListTally>(&line).is_ok_and(|tally| !tally.done) => {}
            Err(_) => break,
        }
    }
    Some(())
}

fn run(role: Role, flags: &Flags) -> Result<(), Failure> {
    let of_daemon = |failure| Failure {
        of_daemon: true,
        ..failure
    };
    if flags.log_format.as_deref() == Some(LogFormat::Json.name()) {
        logging::set_format(LogFormat::Json);
    }
    let begun = signals::survive().and_then(|()| demo::end_with_demo(&env));
    begun.map_err(|error| of_daemon(Failure::new(1, error)))?;
    let loaded = load(role, flags, &env).map_err(|faults| of_daemon(faults.into()))?;
    daemon::run(loaded).map_err(|error| of_daemon(Failure::new(error.exit_code(), error)))
}

fn ask<T: Deserialize>(
    data_dir: Option<&str>,
    request: &OperatorRequest,
) -> Result<Answer<T>, client::Error> {
    let dir = client::locate(data_dir.map(Path::new), &env)?;
    client::ask(&dir, request, client::PATIENCE)
}

fn show<T: fmt::Display>(answer: &Answer<T>, json: bool) -> Result<(), Failure> {
    if json {
        print(&answer.json)
    } else {
        print(answer.value.to_string().trim_end())
    }
}

/// Writes a new file for its owner alone. `what`: what it is, for an error, with a word before the
/// name of the file.
fn write_new(name: &str, bytes: &[u8], what: &str) -> Result<(), Failure> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(name)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::AlreadyExists => "it exists already: name a new file".to_owned(),
            _ => error.to_string(),
        };
        Failure::new(1, format!("cannot write {what}{name}: {why}"))
    })
}

/// Writes to stderr what is not a result. If stderr is closed, the text is lost.
fn note(sentence: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "oc-discovery: {sentence}");
}

/// Prints a result. `println!` would panic if the reader is gone, as in `oc-discovery status | head
/// -1`.
fn print(text: impl fmt::Display) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            1,
            format!("stdout cannot be written: {error}"),
        )),
        _ => Ok(()),
    }
}

fn env(variable: &str) -> Option<OsString> {
    std::env::var_os(variable)
}
