//! The log on stderr.
//!
//! Under systemd a line goes to the journal with its fields (`journal`), or, if that takes none, to
//! stderr after its syslog priority (`<6>`, see sd-daemon(3)), and the journal adds the time;
//! anywhere else it begins with the UTC time. With `--log-format json` it is an object. Text that
//! comes from a peer cannot forge a line or drive the terminal: control characters are escaped.
//!
//! Invariants: writing never waits for a reader (`Outlet`), and lost lines are counted and
//! reported; whatever peers do, each place in our sources logs at most `OURS_MAX` lines a minute,
//! each place in a library at most one, and the same line that names a peer (`EACH`) one, and then
//! rarely how often it was repeated (`Joiner`); a line is at most 4096 bytes long.
//!
//! This is own code because `env_logger` waits for its reader.

mod journal;
mod line;
mod recent;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::io::{self, Stderr};
use std::panic;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_io::Timer;
use log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};
use miniserde::{Deserialize, Serialize};

use self::journal::Journal;
use self::line::{Format, line, shorten};
pub(super) use self::line::{date, utc};
use self::recent::Recent;
use super::clock;
use super::outlet::Outlet;
use crate::{
    config::LogFormat,
    net::{
        EACH,
        goaway::{heard, is_yamuxs},
        joiner::{Joiner, LeftOut},
    },
};

/// The target of our own log lines, up to the first `::`.
const OURS: &str = "oc_discovery";
/// Lines a minute of one place in our sources. The levels debug and trace have no such bound.
const OURS_MAX: u32 = 256;
/// Lines a minute of one place in a library.
const THEIRS_MAX: u32 = 1;
/// Bytes of a line that is shown as an example of the suppressed ones.
const SAMPLE_MAX: usize = 120;
/// How often a write is retried.
const RETRY: Duration = Duration::from_millis(500);
/// The longest time between two looks for suppressed lines that are to be reported.
const LOOK: Duration = Duration::from_secs(60);

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts the log: our own lines from `level` on, those of libraries from warnings on (or less, if
/// `level` is less). A panic is logged as a line too. Fails if a logger was installed before.
pub(crate) fn init(level: LevelFilter, format: LogFormat) -> Result<(), SetLoggerError> {
    let logger = LOGGER.get_or_init(|| Logger::new(format));
    log::set_logger(logger)?;
    set_level(level);
    // The standard hook would wait for the reader of stderr, instead of ending the process.
    panic::set_hook(Box::new(|info| {
        log::error!("this is a fault of oc-discovery: {info}")
    }));
    Ok(())
}

/// Sets the form of the last word of a daemon that ends before [`init`].
pub(crate) fn set_format(format: LogFormat) {
    LOGGER.get_or_init(|| Logger::new(format));
}

/// Logs our own lines from `level` on, from now on.
pub(crate) fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Writes waiting lines as soon as stderr takes them. It must run as a task for as long as the log
/// is used.
pub(super) async fn attend() {
    let Some(logger) = LOGGER.get() else {
        return;
    };
    loop {
        std::future::poll_fn(|cx| logger.poll_waiting(cx)).await;
        Timer::after(logger.patience()).await;
        logger.settle();
    }
}

/// Lines that were lost because stderr had no room, and lines that were suppressed, since the
/// start; `None`: this is another program's log.
pub(super) fn left_out() -> Option<(u64, u64)> {
    let shared = LOGGER.get()?.lock();
    Some((shared.out.lost_ever, shared.suppressed))
}

/// The answer to the control socket's `log`: the last lines of the log, the oldest first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogLines {
    /// The lines, each with its time.
    pub(crate) lines: Vec<String>,
}

/// The last lines of this process's log, at most [`recent::MAX_LINES`].
pub(super) fn recent() -> LogLines {
    let lines = LOGGER.get().map(|logger| logger.lock().recent.lines());
    LogLines {
        lines: lines.unwrap_or_default(),
    }
}

/// Writes to stderr, as the last line of a daemon, why it ends. Does not wait for a reader.
pub(crate) fn last_word(sentence: &str) {
    let plain = || format!("oc-discovery: {sentence}\n");
    match LOGGER.get() {
        Some(logger) => {
            let line = match logger.format.json {
                true => logger.line_of(&own_record(Level::Error, format_args!("{sentence}"))),
                false => plain(),
            };
            logger.lock().out.line(&line, |lost| logger.lost_line(lost));
        }
        None => Outlet::new(io::stderr()).line(&plain(), |_| String::new()),
    }
}

/// A line of a daemon's stdout, without its end: an object if the log is one of JSON, because both
/// often go to one place.
pub(super) fn on_stdout(text: String) -> String {
    match LOGGER.get() {
        Some(logger) if logger.format.json => object(&text),
        _ => text,
    }
}

fn object(text: &str) -> String {
    let mut out = String::new();
    let form = Format {
        json: true,
        ..Format::PLAIN
    };
    let args = format_args!("{text}");
    let _ = line(
        &mut out,
        form,
        clock::wall() / 1000,
        &own_record(Level::Info, args),
    );
    out.truncate(out.trim_end().len());
    out
}

struct Logger {
    format: Format,
    shared: Mutex<Shared>,
}

struct Shared {
    /// The journal, if stderr leads to it.
    journal: Option<Journal>,
    out: Outlet<Stderr>,
    places: Joiner,
    /// Lines that name a peer.
    lines: Joiner,
    recent: Recent,
    attending: Option<Waker>,
    /// Lines that were counted and not written, since the start.
    suppressed: u64,
}

impl Logger {
    fn new(format: LogFormat) -> Self {
        let format = Format::of_stderr(format);
        Self {
            format,
            shared: Mutex::new(Shared {
                journal: format.journal.then(Journal::of_system).flatten(),
                out: Outlet::new(io::stderr()),
                places: Joiner::default(),
                lines: Joiner::of_lines(),
                recent: Recent::default(),
                attending: None,
                suppressed: 0,
            }),
        }
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when a line waits to be written.
    fn poll_waiting(&self, cx: &Context<'_>) -> Poll<()> {
        let mut shared = self.lock();
        if shared.waits() {
            return Poll::Ready(());
        }
        shared.attending = Some(cx.waker().clone());
        Poll::Pending
    }

    /// How long a line that waits is left alone.
    fn patience(&self) -> Duration {
        let shared = self.lock();
        match shared.due().filter(|_| !shared.out.owes()) {
            None => RETRY,
            Some(due) => {
                let left = Duration::from_millis(due.saturating_sub(clock::boottime()));
                left.clamp(RETRY, LOOK)
            }
        }
    }

    fn settle(&self) {
        let mut shared = self.lock();
        shared.out.settle(|lost| self.lost_line(lost));
        let now = clock::boottime();
        let mut ended = shared.places.ended(now);
        ended.extend(shared.lines.ended(now));
        self.say_left_out(&mut shared, &ended);
    }

    fn say_left_out(&self, shared: &mut Shared, all: &[LeftOut]) {
        for left_out in all {
            let args = format_args!("{left_out}");
            let record = own_record(left_out.level, args);
            let line = self.line_of(&record);
            self.write(shared, &record, &line);
            self.keep(shared, &record, line);
        }
    }

    /// Keeps the line of a record for `support`, as people read it.
    fn keep(&self, shared: &mut Shared, record: &Record<'_>, mut text: String) {
        if self.format != Format::PLAIN {
            text.clear();
            let _ = line(&mut text, Format::PLAIN, clock::wall() / 1000, record);
        }
        shared.recent.keep(&text);
    }

    fn lost_line(&self, lost: u64) -> String {
        let (s, was) = if lost == 1 {
            ("", "was")
        } else {
            ("s", "were")
        };
        let text = format_args!("{lost} line{s} {was} lost: stderr had no room for more");
        self.line_of(&own_record(Level::Warn, text))
    }

    fn line_of(&self, record: &Record<'_>) -> String {
        let mut text = String::new();
        // Writing to a String fails only if the formatting of a value fails. The text until then is
        // kept.
        let _ = line(&mut text, self.format, clock::wall() / 1000, record);
        text
    }

    /// Writes the line of a record: to the journal, or else to stderr.
    fn write(&self, shared: &mut Shared, record: &Record<'_>, text: &str) {
        let taken = shared.journal.as_ref().is_some_and(|journal| {
            let prefix = "<0>".len();
            journal.send(record, text.get(prefix..).unwrap_or(text))
        });
        if !taken {
            shared.out.line(text, |lost| self.lost_line(lost));
        }
    }
}

impl Shared {
    /// Whether this line may be logged at `now` (ms). What was suppressed until then is added to
    /// `ended`.
    fn admit(&mut self, record: &Record<'_>, now: u64, ended: &mut Vec<LeftOut>) -> bool {
        if record.level() > Level::Info {
            return true;
        }
        let (level, sample) = (record.level(), || sample(record));
        if record.target() == EACH {
            let line = hash((place(record), record.args().to_string()));
            if !self.lines.admit(line, 1, now, (level, sample), ended) {
                return false;
            }
        }
        let most = match is_ours(record.target()) {
            true => OURS_MAX,
            false => THEIRS_MAX,
        };
        self.places
            .admit(place(record), most, now, (level, sample), ended)
    }

    fn waits(&self) -> bool {
        self.out.owes() || self.due().is_some()
    }

    /// When suppressed lines are to be reported.
    fn due(&self) -> Option<u64> {
        let both = [self.places.due(), self.lines.due()];
        both.into_iter().flatten().min()
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let most = match is_ours(metadata.target()) {
            true => log::max_level(),
            false => log::max_level().min(LevelFilter::Warn),
        };
        metadata.level() <= most
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if is_yamuxs(record.target()) {
            return heard(record.args());
        }
        let text = self.line_of(record);
        let mut shared = self.lock();
        let mut ended = Vec::new();
        let is_admitted = shared.admit(record, clock::boottime(), &mut ended);
        self.say_left_out(&mut shared, &ended);
        match is_admitted {
            true => {
                self.write(&mut shared, record, &text);
                self.keep(&mut shared, record, text);
            }
            false => shared.suppressed = shared.suppressed.saturating_add(1),
        }
        let attending = match shared.waits() {
            true => shared.attending.take(),
            false => None,
        };
        drop(shared);
        if let Some(attending) = attending {
            attending.wake();
        }
    }

    fn flush(&self) {
        self.settle();
    }
}

/// A record of the log about itself.
fn own_record(level: Level, args: fmt::Arguments<'_>) -> Record<'_> {
    let mut record = Record::builder();
    record.target(OURS).level(level).args(args).build()
}

fn is_ours(target: &str) -> bool {
    let rest = target.strip_prefix(OURS);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// An example of the lines of a place.
fn sample(record: &Record<'_>) -> String {
    let mut text = record.args().to_string();
    shorten(&mut text, SAMPLE_MAX);
    match is_ours(record.target()) {
        true => text,
        false => format!("{}: {text}", record.target()),
    }
}

/// A place in the sources that logs.
fn place(record: &Record<'_>) -> u64 {
    hash((record.target(), record.file(), record.line()))
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of these lines are logged within a minute.
    fn said(target: &str, level: Level, lines: impl Iterator<Item = String>) -> usize {
        let mut shared = Shared {
            journal: None,
            out: Outlet::new(io::stderr()),
            places: Joiner::default(),
            lines: Joiner::of_lines(),
            recent: Recent::default(),
            attending: None,
            suppressed: 0,
        };
        let mut said = 0;
        for text in lines {
            let args = format_args!("{text}");
            let record = Record::builder()
                .target(target)
                .level(level)
                .args(args)
                .build();
            said += usize::from(shared.admit(&record, 0, &mut Vec::new()));
        }
        said
    }

    #[test]
    fn lines_a_minute_are_bounded_by_place_and_those_that_name_a_peer_by_their_text() {
        let same = || (0..1000).map(|_| "the same".to_owned());
        let each = || (0..1000).map(|number| format!("peer {number}"));
        let own = "oc_discovery::daemon";
        let most = 256;
        assert_eq!(said("yamux::connection", Level::Error, each()), 1);
        assert_eq!(said(own, Level::Info, each()), most);
        assert_eq!(said(own, Level::Warn, same()), most);
        assert_eq!(said(EACH, Level::Warn, same()), 1);
        assert_eq!(said(EACH, Level::Warn, each()), most);
        let twice = (0..6).map(|number| format!("peer {}", number % 3));
        assert_eq!(said(EACH, Level::Info, twice), 3);
        assert_eq!(said(own, Level::Debug, each()), 1000, "debugging wants all");
    }
}
