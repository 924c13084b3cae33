//! `oc-discovery nodes`: shows rows as they come, and at the end whether the answer is complete.
//!
//! Invariant: the daemon does not wait for the reader of stdout, which may be a pager: a thread
//! reads what it sends, as far as there is room.

use std::io::{self, IsTerminal as _, Stdout, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use miniserde::json;
use smol::channel::{Receiver, Sender, TryRecvError, bounded};

use super::columns::Columns;
use super::{Failure, INCOMPLETE, USAGE, env, note, one_dir};
use crate::cli;
use crate::daemon::client::{self, Lines, OperatorRequest};
use crate::daemon::status::{ListTally, NodeQuery, NodeRow, counted};

/// Lines of the daemon that wait until stdout takes them.
const MAX_WAITING: usize = 16_384;
/// Rows that are written together at most.
const MAX_TOGETHER: usize = 256;
/// How long rows are collected after the first one: the columns are made as wide as these rows
/// need.
const FIRST_ROWS: Duration = Duration::from_millis(30);

/// Runs the command.
pub(super) fn run(args: &cli::Nodes) -> Result<(), Failure> {
    let request = OperatorRequest::Nodes(asked(args)?);
    let dir = one_dir(&args.data_dir, &args.dir)?;
    let dir = client::locate(dir.map(Path::new), &env)?;
    let lines = Lines::ask(&dir, &request, client::PATIENCE)?;
    let (sender, read) = bounded(MAX_WAITING);
    thread::spawn(move || forward(lines, &sender));
    let mut list = List::new(args.json);
    match list.show(&read) {
        Ok(tally) => list.end(&tally),
        Err(stop) => stop.outcome(),
    }
}

fn asked(args: &cli::Nodes) -> Result<NodeQuery, Failure> {
    let (service, name) = (args.service.as_deref(), args.name.as_deref());
    query(service, &args.tag, name, &args.state)
}

/// What the options ask for.
pub(super) fn query(
    service: Option<&str>,
    tag: &[String],
    name: Option<&str>,
    state: &[String],
) -> Result<NodeQuery, Failure> {
    NodeQuery::of(service, tag, name, state).map_err(|why| Failure::new(USAGE, why))
}

/// Passes the lines on, until the answer is over or no reader takes them.
fn forward(mut lines: Lines, to: &Sender<Result<String, client::Error>>) {
    loop {
        let next = lines.next(Some(client::PATIENCE)).transpose();
        let is_over = !matches!(next, Some(Ok(_)));
        if next.is_none_or(|line| to.send_blocking(line).is_err()) || is_over {
            return;
        }
    }
}

/// Why a list ends before its end, or a watch.
pub(super) enum Stop {
    Output(io::Error),
    Daemon(client::Error),
}

impl Stop {
    /// The outcome of the command.
    pub(super) fn outcome(self) -> Result<(), Failure> {
        match self {
            // The reader of stdout has closed it.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Self::Output(error) => {
                let sentence = format!("stdout cannot be written: {error}");
                Err(Failure::new(1, sentence))
            }
            Self::Daemon(error) => Err(error.into()),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<client::Error> for Stop {
    fn from(error: client::Error) -> Self {
        Self::Daemon(error)
    }
}

/// A list that is being shown.
struct List {
    json: bool,
    out: Stdout,
    /// Made for the first rows.
    columns: Option<Columns>,
    /// Rows that are not written yet, and their lines.
    fresh: Vec<(NodeRow, String)>,
    /// Nodes that are alive, that left and that were lost.
    counts: [u64; 3],
    /// A line on stderr that shows how far the list is.
    has_progress: bool,
}

impl List {
    fn new(json: bool) -> Self {
        Self {
            json,
            out: io::stdout(),
            columns: None,
            fresh: Vec::new(),
            counts: [0; 3],
            has_progress: false,
        }
    }

    /// Shows the rows until the last one.
    fn show(&mut self, read: &Receiver<Result<String, client::Error>>) -> Result<ListTally, Stop> {
        let mut has_paused = self.json;
        loop {
            let line = match read.try_recv() {
                Err(TryRecvError::Empty) if !has_paused && !self.fresh.is_empty() => {
                    has_paused = true;
                    thread::sleep(FIRST_ROWS);
                    continue;
                }
                Err(TryRecvError::Empty) => {
                    self.write()?;
                    read.recv_blocking().unwrap_or(Err(client::Error::CutShort))
                }
                Ok(line) => line,
                Err(TryRecvError::Closed) => Err(client::Error::CutShort),
            };
            let line = line.inspect_err(|_| drop(self.write()))?;
            if let Ok(row) = json::from_str::<NodeRow>(&line) {
                if let Some(count) = self.counts.get_mut(row.state as usize) {
                    *count += 1;
                }
                self.fresh.push((row, line));
                if self.fresh.len() >= MAX_TOGETHER {
                    self.write()?;
                }
                continue;
            }
            let tally: ListTally =
                json::from_str(&line).map_err(|_| client::Error::Nonsense("its socket".into()))?;
            self.write()?;
            if tally.done {
                return Ok(tally);
            }
            self.progress(&tally);
        }
    }

    /// Writes the rows that have come.
    fn write(&mut self) -> io::Result<()> {
        self.end_progress();
        let rows = std::mem::take(&mut self.fresh);
        if rows.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        if self.json {
            for (_, line) in rows {
                text.push_str(&line);
                text.push('\n');
            }
        } else {
            let all = || rows.iter().map(|(row, _)| row);
            let columns = self.columns.get_or_insert_with(|| {
                let columns = Columns::for_rows(all(), super::width::of_stdout());
                columns.head(&mut text);
                columns
            });
            all().for_each(|row| columns.row(&mut text, row));
        }
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Shows on a terminal how far the list is.
    fn progress(&mut self, tally: &ListTally) {
        if io::stderr().is_terminal() {
            self.has_progress = true;
            let nodes = counted(&self.counts.iter().sum::<u64>(), "node");
            let servers = servers_of(tally);
            let _ = write!(io::stderr(), "\r{nodes} so far; {servers}\x1b[K");
        }
    }

    fn end_progress(&mut self) {
        if std::mem::take(&mut self.has_progress) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    /// Prints how many nodes there are, and what the list lacks.
    fn end(&self, tally: &ListTally) -> Result<(), Failure> {
        let nodes = counted(&self.counts.iter().sum::<u64>(), "node");
        let [alive, left, lost] = self.counts;
        let servers = servers_of(tally);
        let sentence = format!("{nodes}: {alive} alive, {left} left, {lost} lost; {servers}");
        match tally.shortfall() {
            None => {
                note(sentence);
                Ok(())
            }
            Some(lacks) => {
                let sentence = format!("{sentence}; incomplete: {lacks}");
                Err(Failure::new(INCOMPLETE, sentence))
            }
        }
    }
}

/// How many servers were asked and have answered.
fn servers_of(tally: &ListTally) -> String {
    let asked = counted(&tally.asked, "server");
    format!("{asked} asked, {} answered", tally.answered)
}
