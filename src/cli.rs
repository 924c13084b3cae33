//! The command line (argh): the commands, their options and their help.
//!
//! Only the structure is parsed here. Values stay text until [`crate::config`] parses them,
//! so that all errors about values have one form.

mod config;
mod identity;
mod network;
mod roles;

use std::ffi::OsString;

use argh::{FromArgs, SubCommands};

use crate::config::nearest;
pub(crate) use config::{Config, ConfigCheck, ConfigCommand, ConfigShow, Reload};
pub(crate) use identity::{Action as IdentityAction, Export, Identity, Import, Reset};
pub(crate) use network::{GiveList, Grant, Network, NetworkAction, New, Revoke, ShowGrant};
pub(crate) use roles::{Indexer, Native, Node};

const PROGRAM: &str = "oc-discovery";

/// Why there is no command to run.
#[derive(Debug)]
pub(crate) enum Exit {
    /// Print this on stdout and exit with 0: help.
    Tell(String),
    /// The command line is wrong: one sentence for the user.
    Usage(String),
}

/// Parses the arguments, the program's name first.
///
/// # Errors
/// [`Exit`] if there is no command to run, or the command line is wrong.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Exit> {
    let args = args
        .into_iter()
        .skip(1)
        .map(|arg| {
            arg.into_string().map_err(|arg| {
                Exit::Usage(format!(
                    "the argument {arg:?} is not valid UTF-8; write it in plain text"
                ))
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(sentence) = needless_value(&args) {
        return Err(Exit::Usage(sentence));
    }
    // As most programs have it. After a role it is the level of the log.
    if args == ["-v"] {
        return Ok(Command::Version(Version {}));
    }
    let args = split(&args);
    let arguments = Arguments::from_args(&[PROGRAM], &args).map_err(|exit| match exit.status {
        Ok(()) => Exit::Tell(exit.output),
        Err(()) => Exit::Usage(sentence(&exit.output, &args)),
    })?;
    if arguments.version {
        return Ok(Command::Version(Version {}));
    }
    arguments
        .command
        .ok_or_else(|| Exit::Usage(format!("no command is given; {}", commands())))
}

/// Splits `--option=value` and `-vv` into two words, as argh needs it. No value of an option begins
/// with `--`.
fn split(args: &[String]) -> Vec<&str> {
    let mut words = Vec::new();
    let first = args.first().map(String::as_str);
    // For these commands it stands for stdin or stdout; argh would take it for an option.
    let is_stream =
        |arg| arg == "-" && matches!(first, Some("identity" | "network" | "revoke" | "support"));
    let mut args = args.iter().map(String::as_str);
    for arg in args.by_ref() {
        match arg.split_once('=') {
            Some((option, value)) if option.len() > 2 && option.starts_with("--") => {
                words.extend([option, value]);
            }
            _ if arg == "-vv" => words.extend(["-v", "-v"]),
            _ if is_stream(arg) => words.extend(["--", "-"]),
            _ => words.push(arg),
        }
        if arg == "--" || is_stream(arg) {
            break;
        }
    }
    words.extend(args);
    words
}

/// How argh's list of the commands below a command begins.
const NO_COMMAND: &str = "One of the following subcommands must be present: ";

/// Makes one sentence that ends in advice of argh's error, which may have several lines.
fn sentence(output: &str, args: &[&str]) -> String {
    const LONGEST: usize = 300;
    let words: Vec<&str> = output.split_whitespace().collect();
    let text: String = words
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST)
        .collect();
    let text = text.trim_end_matches('.');
    let command = args.first().filter(|first| is_command(first));
    if let (Some(list), Some(command)) = (text.strip_prefix(NO_COMMAND), command) {
        let names: Vec<&str> = list.split(' ').filter(|name| *name != "help").collect();
        let names = names.join(", ");
        return format!("no command of {command} is given; give one of {names}");
    }
    let Some(word) = text.strip_prefix("Unrecognized argument: ") else {
        let mut letters = text.chars();
        let first = letters.next().map(|letter| letter.to_ascii_lowercase());
        let text: String = first.into_iter().chain(letters).collect();
        return format!("{text}; {}", advice(command));
    };
    let (help, option) = (help_of(args), word.starts_with('-'));
    let known = listed(&help, option);
    let meant = nearest(word.trim_start_matches('-'), known.iter().copied());
    let kind = match command.is_none() && !option {
        true => "command",
        false => "argument",
    };
    match meant {
        Some(meant) if option => format!("unknown {kind} {word:?}: did you mean --{meant}?"),
        Some(meant) => format!("unknown {kind} {word:?}: did you mean {meant}?"),
        None if kind == "command" => format!("unknown {kind} {word:?}; {}", commands()),
        None => format!("unknown {kind} {word:?}; {}", advice(command)),
    }
}

/// The sentence about the first `--option=value` whose option takes no value.
fn needless_value(args: &[String]) -> Option<String> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let options = words.iter().take_while(|word| **word != "--");
    let mut pairs = options.filter_map(|word| word.split_once('='));
    pairs.find_map(|(option, value)| {
        // A line with arguments shows `[--]`, too.
        let is_switch = option.len() > 2
            && option.starts_with("--")
            && help_of(&words)
                .lines()
                .next()
                .is_some_and(|usage| usage.contains(&format!("[{option}]")));
        is_switch.then(|| {
            format!(
                "{option} takes no value: leave {:?} out",
                format!("={value}")
            )
        })
    })
}

/// The help of the command that these words begin with, or of the program.
fn help_of(args: &[&str]) -> String {
    let words = args
        .iter()
        .copied()
        .take_while(|word| !word.starts_with('-'));
    // A command has at most one more below it.
    let mut line: Vec<&str> = words.take(2).collect();
    loop {
        let asked = [&line[..], &["--help"]].concat();
        match Arguments::from_args(&[PROGRAM], &asked) {
            Err(exit) if exit.status.is_ok() => return exit.output,
            _ if line.pop().is_none() => return String::new(),
            _ => {}
        }
    }
}

/// The options in a help, without `--`, or else the commands.
fn listed(help: &str, options: bool) -> Vec<&str> {
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let commands = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let entries = help.lines().filter_map(|line| {
        let (_, name) = line.split_once("--")?;
        name.split([' ', ',']).next()
    });
    match options {
        true => entries.collect(),
        false => commands.filter(|word| !word.is_empty()).collect(),
    }
}

fn is_command(word: &str) -> bool {
    Command::COMMANDS.iter().any(|command| command.name == word)
}

fn advice(command: Option<&&str>) -> String {
    match command {
        Some(command) => format!("`{PROGRAM} {command} --help` lists what it takes"),
        None => format!("`{PROGRAM} --help` lists what it takes"),
    }
}

fn commands() -> String {
    let names: Vec<&str> = Command::COMMANDS
        .iter()
        .map(|command| command.name)
        .collect();
    format!("give one of {}", names.join(", "))
}

/// Discovery for devices at the edge: nodes hold leases with indexers, indexers with natives, and
/// natives know which indexers are alive.
#[derive(FromArgs)]
#[argh(
    help_triggers("-h", "--help", "help"),
    example = "{command_name} native\n\
        {command_name} node --name cam-3 --native /ip4/192.0.2.1/tcp/4820/p2p/ID\n\
        {command_name} find cam-3",
    note = "`{command_name} COMMAND --help` describes a command.",
    error_code(0, "done"),
    error_code(1, "it could not be done"),
    error_code(2, "the command line is wrong"),
    error_code(3, "the answer is incomplete: not every server has answered")
)]
struct Arguments {
    /// print the version and exit
    #[argh(switch, short = 'V')]
    version: bool,

    #[argh(subcommand)]
    command: Option<Command>,
}

/// The commands.
#[derive(Debug, FromArgs)]
#[argh(subcommand)]
pub(crate) enum Command {
    Native(Native),
    Indexer(Indexer),
    Node(Node),
    Status(Status),
    Find(Find),
    Nodes(Nodes),
    Watch(Watch),
    Indexers(Indexers),
    Drain(Drain),
    Revoke(GiveList),
    Config(Config),
    Reload(Reload),
    Id(Id),
    Identity(Identity),
    Network(Network),
    Doctor(Doctor),
    Support(Support),
    Capacity(Capacity),
    Demo(Demo),
    Version(Version),
}

/// Show whether a running daemon does its work, and what it knows.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "status", help_triggers("-h", "--help", "help"))]
pub(crate) struct Status {
    /// data directory of the daemon (default: that of the only daemon that runs)
    #[argh(option, arg_name = "dir")]
    pub(crate) data_dir: Option<String>,

    /// show also all peers, the loops, how full each table is, and what has happened how often
    #[argh(switch)]
    pub(crate) all: bool,

    /// print one line for Nagios or cron; exit code 0 (ok), 1 (warning), 2 (critical, or no
    /// daemon answers) or 3 (unknown)
    #[argh(switch)]
    pub(crate) check: bool,

    /// print JSON, one object on one line (default: text for a person)
    #[argh(switch)]
    pub(crate) json: bool,

    /// print as text, json or openmetrics, the last for node_exporter's textfile collector
    /// (default: text)
    #[argh(option, arg_name = "format")]
    pub(crate) format: Option<String>,

    /// print the JSON Schema of --json; no daemon is asked
    #[argh(switch)]
    pub(crate) schema: bool,

    /// the same as --data-dir
    #[argh(positional, arg_name = "dir")]
    pub(crate) dir: Option<String>,
}

/// Find nodes by name, or one by its peer id.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "find", help_triggers("-h", "--help", "help"))]
pub(crate) struct Find {
    /// data directory of the daemon to ask (default: that of the only daemon that runs)
    #[argh(option, arg_name = "dir")]
    pub(crate) data_dir: Option<String>,

    /// print JSON, one object on one line (default: text for a person)
    #[argh(switch)]
    pub(crate) json: bool,

    /// print only where the service is reached, HOST:PORT, the best one: for scripts
    #[argh(switch)]
    pub(crate) addr: bool,

    /// a name, 1 to 63 of a-z 0-9 - . (any other text: the default name of a host named so), or a
    /// peer id
    #[argh(positional, arg_name = "name-or-peer-id")]
    pub(crate) query: String,

    /// with --addr alone: the service (default: the first one)
    #[argh(positional, arg_name = "service")]
    pub(crate) service: Option<String>,
}

/// List the nodes of the whole network, and those that left or were lost.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "nodes", help_triggers("-h", "--help", "help"))]
pub(crate) struct Nodes {
    /// data directory of the daemon to ask (default: that of the only daemon that runs)
    #[argh(option, arg_name = "dir")]
    pub(crate) data_dir: Option<String>,

    /// print JSON, one object on a line for each node (default: a table)
    #[argh(switch)]
    pub(crate) json: bool,

    /// only nodes that offer this service (default: all)
    #[argh(option, arg_name = "service")]
    pub(crate) service: Option<String>,

    /// only nodes with this tag, KEY=VALUE; may be given up to 8 times (default: all)
    #[argh(option, arg_name = "tag")]
    pub(crate) tag: Vec<String>,

    /// only nodes with a name that begins so (default: all)
    #[argh(option, arg_name = "prefix")]
    pub(crate) name: Option<String>,

    /// only nodes in this state, alive, left or lost; may be given several times (default: all)
    #[argh(option, arg_name = "state")]
    pub(crate) state: Vec<String>,

    /// the same as --data-dir
    #[argh(positional, arg_name = "dir")]
    pub(crate) dir: Option<String>,
}

/// List the indexers that a node could go to.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "indexers", help_triggers("-h", "--help", "help"))]
pub(crate) struct Indexers {
    /// data directory of the daemon to ask (default: that of the only daemon that runs)
    #[argh(option, arg_name = "dir")]
    pub(crate) data_dir: Option<String>,

    /// print JSON, one object on one line (default: text for a person)
    #[argh(switch)]
    pub(crate) json: bool,

    /// the same as --data-dir
    #[argh(positional, arg_name = "dir")]
    pub(crate) dir: Option<String>,
}

/// Show the nodes that are there, then each change as it happens, until Ctrl-C.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "watch", help_triggers("-h", "--help", "help"))]
pub(crate) struct Watch {
    /// data directory of the daemon to ask (default: that of the only daemon that runs)
    #[argh(option, arg_name = "dir")]
    pub(crate) data_dir: Option<String>,

    /// print JSON, one object on a line for each event (default: a table)
    #[argh(switch)]
    pub(crate) json: bool,

    /// only nodes that offer this service (default: all)
    #[argh(option, arg_name = "service")]
    pub(crate) service: Option<String>,

    /// only nodes with this tag, KEY=VALUE; may be given up to 8 times (default: all)
    #[argh(option, arg_name = "tag")]
    pub(crate) tag: Vec<String>,

    /// only nodes with a name that begins so (default: all)
    #[argh(option, arg_name = "prefix")]
    pub(crate) name: Option<String>,

    /// only nodes in this state, alive, left or lost; may be given several times (default: all)
    #[argh(option, arg_name = "state")]
    pub(crate) state: Vec<String>,

    /// the same as --data-dir
    #[argh(positional, arg_name = "dir")]
    pub(crate) dir: Option<String>,
}

/// Hand the nodes of an indexer over to other indexers, so that it can be stopped or upgraded.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "drain", help_triggers("-h", "--help", "help"))]
pub(crate) struct Drain {
    /// data directory of the indexer (default: that of the only daemon that runs)
    #[argh(option, arg_name = "dir")]
    pub(crate) data_dir: Option<String>,

    /// take nodes again
    #[argh(switch)]
    pub(crate) undo: bool,

    /// print JSON, one object on one line, and do not wait until it is empty
    #[argh(switch)]
    pub(crate) json: bool,

    /// the same as --data-dir
    #[argh(positional, arg_name = "dir")]
    pub(crate) dir: Option<String>,
}

/// Print the peer id of a daemon, running or not.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "id", help_triggers("-h", "--help", "help"))]
pub(crate) struct Id {
    /// data directory of the daemon (default: that of the only daemon that runs)
    #[argh(option, arg_name = "dir")]
    pub(crate) data_dir: Option<String>,

    /// the same as --data-dir
    #[argh(positional, arg_name = "dir")]
    pub(crate) dir: Option<String>,
}

/// Say what is wrong with a daemon and its host, and what to type: exit code 1 if something is.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "doctor", help_triggers("-h", "--help", "help"))]
pub(crate) struct Doctor {
    /// data directory of the daemon (default: that of the only daemon that runs)
    #[argh(option, arg_name = "dir")]
    pub(crate) data_dir: Option<String>,

    /// print JSON, one object on one line (default: text for a person)
    #[argh(switch)]
    pub(crate) json: bool,

    /// the same as --data-dir
    #[argh(positional, arg_name = "dir")]
    pub(crate) dir: Option<String>,
}

/// Write what someone who helps needs to know into one file: doctor, status, settings, the last
/// lines of the log; no key.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "support", help_triggers("-h", "--help", "help"))]
pub(crate) struct Support {
    /// data directory of the daemon (default: that of the only daemon that runs)
    #[argh(option, arg_name = "dir")]
    pub(crate) data_dir: Option<String>,

    /// the file to make, or - for stdout
    #[argh(positional, arg_name = "file")]
    pub(crate) file: String,

    /// the same as --data-dir
    #[argh(positional, arg_name = "dir")]
    pub(crate) dir: Option<String>,
}

/// Show what this build can hold and what each role needs when it is full: read it before flashing.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "capacity", help_triggers("-h", "--help", "help"))]
pub(crate) struct Capacity {
    /// print JSON, one object on one line (default: text for a person)
    #[argh(switch)]
    pub(crate) json: bool,
}

/// Watch the whole system work: a native, two indexers and three nodes on this machine alone.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "demo", help_triggers("-h", "--help", "help"))]
pub(crate) struct Demo {
    /// how many times faster than normal, 1 to 100 (default: 30)
    #[argh(option, arg_name = "n")]
    pub(crate) speed: Option<String>,
}

/// Print the version and exit.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "version", help_triggers("-h", "--help", "help"))]
pub(crate) struct Version {}

#[cfg(test)]
mod tests;
