//! `oc-discovery watch`: shows the nodes that are there, then each change, until it is ended.
//!
//! Invariant: a reader that does not read stdout ends its watch, and nothing else. A thread reads
//! what the daemon sends as far as there is room; if more comes, the daemon gives the watch up.

use std::io::{self, Stdout, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use miniserde::json;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::columns::Columns;
use super::nodes::{self, Stop};
use super::{Failure, env, note, one_dir};
use crate::cli;
use crate::daemon::client::{self, Lines, OperatorRequest};
use crate::daemon::signals;
use crate::daemon::status::{CaughtUp, NodeRow, WatchRow, counted};

/// Lines of the daemon that wait until stdout takes them.
const MAX_WAITING: usize = 256;
/// How long rows are collected after the first one: the columns are made as wide as these rows
/// need.
const FIRST_ROWS: Duration = Duration::from_millis(200);
/// How often it looks whether stdout is still read, when nothing happens.
const LOOK: Duration = Duration::from_secs(1);
/// The network may have no node, so the first line may take any time: ten years.
const NO_LIMIT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The width of an event's name, with the spaces after it.
const EVENT: usize = 9;
/// The same of the time before it.
const TIME: usize = 11;

/// Runs the command. Ctrl-C ends the process with exit code 0.
pub(super) fn run(args: &cli::Watch) -> Result<(), Failure> {
    let (service, name) = (args.service.as_deref(), args.name.as_deref());
    let query = nodes::query(service, &args.tag, name, &args.state)?;
    let dir = one_dir(&args.data_dir, &args.dir)?;
    let dir = client::locate(dir.map(Path::new), &env)?;
    signals::end_in_peace().map_err(|error| Failure::new(1, error))?;
    let lines = Lines::ask(&dir, &OperatorRequest::Watch(query), NO_LIMIT)?;
    let (sender, read) = sync_channel(MAX_WAITING);
    thread::spawn(move || forward(lines, &sender));
    Changes::new(args.json).show(&read).outcome()
}

/// Passes the lines on, until the daemon or the reader ends.
fn forward(mut lines: Lines, to: &SyncSender<Result<String, client::Error>>) {
    while let Some(line) = lines.next(None).transpose() {
        let is_over = line.is_err();
        if to.send(line).is_err() || is_over {
            return;
        }
    }
}

/// Changes that are being shown.
struct Changes {
    json: bool,
    out: Stdout,
    /// Made for the first rows.
    columns: Option<Columns>,
    /// Rows that came before there are columns.
    first: Vec<(&'static str, NodeRow)>,
}

impl Changes {
    fn new(json: bool) -> Self {
        Self {
            json,
            out: io::stdout(),
            columns: None,
            first: Vec::new(),
        }
    }

    /// Shows changes until there can be no more.
    fn show(&mut self, read: &Receiver<Result<String, client::Error>>) -> Stop {
        loop {
            let patience = match self.first.is_empty() {
                true => LOOK,
                false => FIRST_ROWS,
            };
            let shown = match read.recv_timeout(patience) {
                Ok(Ok(line)) => self.line(&line),
                Err(RecvTimeoutError::Timeout) => {
                    self.begin().and_then(|()| must_be_read(&self.out))
                }
                Ok(Err(error)) => return Stop::Daemon(error),
                Err(RecvTimeoutError::Disconnected) => {
                    return Stop::Daemon(client::Error::CutShort);
                }
            };
            if let Err(error) = shown {
                return Stop::Output(error);
            }
        }
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        if self.json {
            writeln!(self.out, "{line}")?;
        }
        if let Ok(word) = json::from_str::<CaughtUp>(line) {
            say(&word);
            return self.begin();
        }
        match json::from_str::<WatchRow>(line) {
            Ok(row) if !self.json => {
                let (event, row) = row.split();
                let event = event.name();
                if self.columns.is_some() {
                    return self.row(event, &row);
                }
                self.first.push((event, row));
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes the columns for the rows that have come, and writes those.
    fn begin(&mut self) -> io::Result<()> {
        let first = std::mem::take(&mut self.first);
        if !first.is_empty() {
            let width = super::width::of_stdout().map(|width| width.saturating_sub(TIME + EVENT));
            let columns = Columns::for_rows(first.iter().map(|(_, row)| row), width);
            let mut head = format!("{:TIME$}{:EVENT$}", "TIME", "EVENT");
            columns.head(&mut head);
            self.columns = Some(columns);
            self.out.write_all(head.as_bytes())?;
        }
        let mut rows = first.iter();
        rows.try_for_each(|(event, row)| self.row(event, row))
    }

    fn row(&mut self, event: &str, row: &NodeRow) -> io::Result<()> {
        let mut text = format!("{:TIME$}{event:EVENT$}", time_of_day());
        if let Some(columns) = &self.columns {
            columns.row(&mut text, row);
        }
        self.out.write_all(text.as_bytes())
    }
}

/// The time of day in UTC, as in the log.
fn time_of_day() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.unwrap_or_default().as_secs();
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02}Z")
}

/// Fails if no reader is left, as a write would.
fn must_be_read(out: &Stdout) -> io::Result<()> {
    // poll(2) reports an error even if no event is requested.
    let mut stdout = [PollFd::new(out, PollFlags::empty())];
    poll(&mut stdout, Some(&Timespec::default()))?;
    let [stdout] = stdout;
    match stdout.revents().contains(PollFlags::ERR) {
        true => Err(io::ErrorKind::BrokenPipe.into()),
        false => Ok(()),
    }
}

/// Says on stderr what was missed so far, and what is missing now.
fn say(word: &CaughtUp) {
    if word.blind_ms > 0 {
        let seconds = Duration::from_millis(word.blind_ms).as_secs_f32();
        note(format_args!(
            "not every server was heard for {seconds:.1} s: what came and went in that time was not seen"
        ));
    }
    if !word.silent.is_empty() {
        let silent = word.silent.join(", ");
        note(format_args!("these servers are silent: {silent}"));
    }
    if word.unwatched > 0 {
        let unwatched = counted(&word.unwatched, "server");
        note(format_args!(
            "cannot watch all servers that are known, {unwatched} too many: their nodes are not shown"
        ));
    }
    if word.untracked > 0 {
        note(format_args!(
            "there are more nodes than fit: that one is gone is not said of all; build with a larger \
             OC_DISCOVERY_MAX_WATCHED, or watch with a filter"
        ));
    }
}
