//! `oc-discovery status`: for people, for programs (`--json`, `--schema`), and for Nagios and cron
//! (`--check`).
//!
//! A check prints one line and ends with a code, as the guidelines for Nagios plug-ins say: 0 ok or
//! starting, 1 degraded, 2 critical or no daemon answers, 3 the daemon could not be asked because
//! of the command or of its user.

mod text;

use std::path::Path;

use super::{Failure, USAGE, env, one_dir, print, width};
use crate::cli;
use crate::config::Role;
use crate::daemon::client::{self, Answer, Error, OperatorRequest};
use crate::daemon::metrics::{Format, render};
use crate::daemon::status::{PeerState, SCHEMA_TEXT, Severity, Status, VerdictState};
use text::Sheet;

/// Exit codes of a check.
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

/// Runs the command.
pub(super) fn run(args: &cli::Status) -> Result<(), Failure> {
    let (json, metrics) = match args.format.as_deref() {
        None | Some("text") => (args.json, false),
        Some("json") => (true, false),
        Some("openmetrics") => (args.json, true),
        Some(other) => {
            let sentence = format!("--format {other:?}: give text, json or openmetrics");
            return Err(Failure::new(USAGE, sentence));
        }
    };
    let modes = [json, args.check, args.all, args.schema, metrics];
    if modes.into_iter().filter(|given| *given).count() > 1 {
        let sentence = "give one of --json, --format, --check, --all and --schema";
        return Err(Failure::new(USAGE, sentence));
    }
    if args.schema {
        return print(SCHEMA_TEXT.trim_end());
    }
    let dir = one_dir(&args.data_dir, &args.dir)?;
    let answer = ask(dir);
    if args.check {
        return check(answer);
    }
    let answer = answer?;
    if json {
        return print(answer.json);
    }
    if metrics {
        return print(render(&answer.value, Format::OpenMetrics).trim_end());
    }
    let sheet = Sheet {
        status: &answer.value,
        // What goes to another program or to a file is never cut.
        width: width::of_stdout().unwrap_or(usize::MAX),
        colour: width::takes_colour(),
        all: args.all,
    };
    print(sheet.to_string().trim_end())
}

fn ask(dir: Option<&str>) -> Result<Answer<Status>, Error> {
    let dir = client::locate(dir.map(Path::new), &env)?;
    client::ask(&dir, &OperatorRequest::Status, client::PATIENCE)
}

/// Prints the line of a check. The code is in a failure without a sentence.
fn check(answer: Result<Answer<Status>, Error>) -> Result<(), Failure> {
    let (code, line) = match answer {
        Ok(answer) => {
            let status = &answer.value;
            let code = match status.verdict.state {
                VerdictState::Ok | VerdictState::Starting => 0,
                VerdictState::Degraded => WARNING,
                VerdictState::Critical => CRITICAL,
            };
            // What stands after a bar is data for Nagios.
            let verdict = status.verdict.to_string().replace('|', "/");
            (code, format!("{verdict} | {}", performance(status)))
        }
        Err(
            why @ (Error::NotRunning(_)
            | Error::NoDirectory(_)
            | Error::NoneRunning
            | Error::Deaf(..)
            | Error::Io(..)
            | Error::CutShort),
        ) => (CRITICAL, format!("CRITICAL {why}")),
        Err(why) => (UNKNOWN, format!("UNKNOWN {why}")),
    };
    print(line)?;
    match code {
        0 => Ok(()),
        code => Err(Failure::silent(code)),
    }
}

/// The numbers of a status as Nagios reads them: `label=value;warning;critical;minimum;maximum`.
/// Below `N:` is a warning, or critical.
fn performance(status: &Status) -> String {
    let nodes = status.stream_records.iter();
    let nodes = nodes.filter(|record| record.role == Role::Node).count();
    let held = status.leases.iter();
    let held = match status.role {
        Role::Node => held.filter(|lease| lease.role == Role::Indexer).count(),
        Role::Native | Role::Indexer => held.count(),
    };
    let wanted = status.wanted_leases;
    let leases = match status.role {
        Role::Native => format!("leases={held};{wanted}:;;0;{wanted}"),
        Role::Indexer | Role::Node => format!("leases={held};{wanted}:;1:;0;{wanted}"),
    };
    // A notice is none: the verdict may be OK beside it.
    let problems = status.problems.iter();
    let problems = problems
        .filter(|it| it.severity != Severity::Notice)
        .count();
    let problems = format!("problems={problems};0;;0");
    let uptime = format!("uptime={}s;;;0", status.uptime_ms / 1_000);
    match status.role {
        Role::Native => {
            let live = status.stream_records.iter();
            let live = live.filter(|it| it.role == Role::Indexer && it.state == PeerState::Alive);
            let live = live.count();
            format!("indexers={live};1:;;0 nodes={nodes};;;0 {leases} {problems} {uptime}")
        }
        Role::Indexer => format!("{leases} nodes={nodes};;;0 {problems} {uptime}"),
        Role::Node => format!("{leases} {problems} {uptime}"),
    }
}
