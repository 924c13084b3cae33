//! The log on stderr.
//!
//! Under systemd a line begins with its syslog priority (`<6>`, see sd-daemon(3)) and the journal
//! adds the time; anywhere else it begins with the UTC time. Text that comes from a peer cannot
//! forge a line or drive the terminal: control characters are escaped.
//!
//! Invariants: writing never waits for a reader (`Outlet`), and lost lines are counted and
//! reported; whatever peers do, each place in our sources logs at most `OURS_MAX` lines a minute,
//! each place in a library at most one, and the same line that names a peer (`EACH`) at most one
//! (`Joiner`); a line is at most 4096 bytes long.
//!
//! This is own code because `env_logger` waits for its reader.

use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::io::{self, Stderr};
use std::os::unix::ffi::OsStrExt as _;
use std::panic;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_io::Timer;
use log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};

use super::clock;
use super::outlet::{LINE_MAX, Outlet};
use crate::net::{
    EACH,
    joiner::{Joiner, LeftOut},
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

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts the log: our own lines from `level` on, those of libraries from warnings on (or less, if
/// `level` is less). A panic is logged as a line too. Fails if a logger was installed before.
pub(crate) fn init(level: LevelFilter) -> Result<(), SetLoggerError> {
    let logger = LOGGER.get_or_init(|| Logger::new(level));
    log::set_logger(logger)?;
    log::set_max_level(level);
    // The standard hook would wait for the reader of stderr, instead of ending the process.
    panic::set_hook(Box::new(|info| {
        log::error!("this is a fault of oc-discovery: {info}")
    }));
    Ok(())
}

/// Writes waiting lines as soon as stderr takes them. It must run as a task for as long as the log
/// is used.
pub(super) async fn attend() {
    let Some(logger) = LOGGER.get() else {
        return;
    };
    loop {
        std::future::poll_fn(|cx| logger.poll_waiting(cx)).await;
        Timer::after(RETRY).await;
        logger.settle();
    }
}

/// Lines that were lost because stderr had no room, and lines that were suppressed, since the start;
/// `None`: this is another program's log.
pub(super) fn left_out() -> Option<(u64, u64)> {
    let shared = LOGGER.get()?.lock();
    Some((shared.out.lost_ever, shared.suppressed))
}

/// Writes to stderr, as the last line of a daemon, why it ends. Does not wait for a reader.
pub(crate) fn last_word(sentence: &str) {
    let line = format!("oc-discovery: {sentence}\n");
    match LOGGER.get() {
        Some(logger) => logger.lock().out.line(&line, |lost| logger.lost_line(lost)),
        None => Outlet::new(io::stderr()).line(&line, |_| String::new()),
    }
}

struct Logger {
    level: LevelFilter,
    format: Format,
    shared: Mutex<Shared>,
}

struct Shared {
    out: Outlet<Stderr>,
    places: Joiner,
    /// Lines that name a peer.
    lines: Joiner,
    attending: Option<Waker>,
    /// Lines that were counted and not written, since the start.
    suppressed: u64,
}

impl Logger {
    fn new(level: LevelFilter) -> Self {
        Self {
            level,
            format: match stderr_is_journal() {
                true => Format::Journal,
                false => Format::Terminal,
            },
            shared: Mutex::new(Shared {
                out: Outlet::new(io::stderr()),
                places: Joiner::default(),
                lines: Joiner::default(),
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
            let line = self.own_line(Level::Warn, format_args!("{left_out}"));
            shared.out.line(&line, |lost| self.lost_line(lost));
        }
    }

    fn lost_line(&self, lost: u64) -> String {
        let (s, was) = if lost == 1 {
            ("", "was")
        } else {
            ("s", "were")
        };
        let text = format_args!("{lost} line{s} {was} lost: stderr had no room for more");
        self.own_line(Level::Warn, text)
    }

    fn own_line(&self, level: Level, args: fmt::Arguments<'_>) -> String {
        let mut text = String::new();
        let record = Record::builder()
            .target(OURS)
            .level(level)
            .args(args)
            .build();
        // Writing to a String fails only if the formatting of a value fails. The text until then is
        // kept.
        let _ = line(&mut text, self.format, clock::wall() / 1000, &record);
        text
    }
}

impl Shared {
    /// Whether this line may be logged at `now` (ms). What was suppressed until then is added to
    /// `ended`.
    fn admit(&mut self, record: &Record<'_>, now: u64, ended: &mut Vec<LeftOut>) -> bool {
        if record.level() > Level::Info {
            return true;
        }
        let sample = || sample(record);
        if record.target() == EACH {
            let line = hash((place(record), record.args().to_string()));
            if !self.lines.admit(line, 1, now, sample, ended) {
                return false;
            }
        }
        let most = match is_ours(record.target()) {
            true => OURS_MAX,
            false => THEIRS_MAX,
        };
        self.places.admit(place(record), most, now, sample, ended)
    }

    fn waits(&self) -> bool {
        self.out.owes() || self.places.waits() || self.lines.waits()
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let most = match is_ours(metadata.target()) {
            true => self.level,
            false => self.level.min(LevelFilter::Warn),
        };
        metadata.level() <= most
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut text = String::new();
        let _ = line(&mut text, self.format, clock::wall() / 1000, record);
        let mut shared = self.lock();
        let mut ended = Vec::new();
        let is_admitted = shared.admit(record, clock::boottime(), &mut ended);
        self.say_left_out(&mut shared, &ended);
        match is_admitted {
            true => shared.out.line(&text, |lost| self.lost_line(lost)),
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Journal,
    Terminal,
}

/// `JOURNAL_STREAM` names the device and inode of the stream that leads to the journal. Child
/// processes inherit it, so it must be compared with stderr (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Some(variable) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stat) = rustix::fs::fstat(std::io::stderr()) else {
        return false;
    };
    variable.as_bytes() == format!("{}:{}", stat.st_dev, stat.st_ino).as_bytes()
}

fn line(out: &mut String, format: Format, seconds: u64, record: &Record<'_>) -> fmt::Result {
    match format {
        Format::Journal => write!(out, "<{}>", priority(record.level()))?,
        Format::Terminal => {
            write_utc(out, seconds)?;
            write!(out, " {:5} ", record.level())?;
        }
    }
    let target = record.target();
    if !is_ours(target) {
        write!(out, "{target}: ")?;
    }
    let written = write!(Escaped(out), "{}", record.args());
    shorten(out, LINE_MAX - 1);
    out.push('\n');
    written
}

/// Cuts `text` to at most `max` bytes.
fn shorten(text: &mut String, max: usize) {
    const END: &str = "…";
    if text.len() > max {
        let mut end = max.saturating_sub(END.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(END);
    }
}

/// Syslog priorities (RFC 5424, section 6.2.1).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Writes the time as in RFC 3339, in whole seconds.
fn write_utc(out: &mut String, seconds: u64) -> fmt::Result {
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
    )
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01. Years are counted from
/// March, so that the leap day is the last one (Howard Hinnant, `civil_from_days`).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Passes text on with its control characters escaped.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() {
                self.0.extend(c.escape_default());
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(format: Format, target: &str, level: Level, text: &str) -> String {
        let mut out = String::new();
        let args = format_args!("{text}");
        let record = Record::builder()
            .target(target)
            .level(level)
            .args(args)
            .build();
        line(&mut out, format, 951_827_696, &record).unwrap();
        out
    }

    #[test]
    fn journal_line_has_a_priority_and_no_time() {
        let line = logged(
            Format::Journal,
            "oc_discovery::daemon",
            Level::Info,
            "ready",
        );
        assert_eq!(line, "<6>ready\n");
        let line = logged(Format::Journal, "oc_discovery", Level::Error, "no");
        assert_eq!(line, "<3>no\n");
    }

    #[test]
    fn terminal_line_has_the_time_and_a_foreign_target() {
        let line = logged(
            Format::Terminal,
            "libp2p_kad::behaviour",
            Level::Warn,
            "late",
        );
        assert_eq!(
            line,
            "2000-02-29T12:34:56Z WARN  libp2p_kad::behaviour: late\n"
        );
    }

    #[test]
    fn a_crate_that_only_begins_like_ours_is_foreign() {
        let line = logged(Format::Journal, "oc_discovery_tools", Level::Debug, "x");
        assert_eq!(line, "<7>oc_discovery_tools: x\n");
    }

    #[test]
    fn peer_cannot_forge_a_line_or_drive_the_terminal() {
        let line = logged(
            Format::Journal,
            "oc_discovery",
            Level::Warn,
            "full: é\n<3>x\u{1b}[2J",
        );
        assert_eq!(line, "<4>full: é\\n<3>x\\u{1b}[2J\n");
    }

    /// How many of these lines are logged within a minute.
    fn said(target: &str, level: Level, lines: impl Iterator<Item = String>) -> usize {
        let mut shared = Shared {
            out: Outlet::new(io::stderr()),
            places: Joiner::default(),
            lines: Joiner::default(),
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

    #[test]
    fn long_line_is_cut_at_its_bound_between_characters() {
        let start = "<4>".len();
        for (length, cut) in [(LINE_MAX - start - 1, false), (LINE_MAX - start, true)] {
            let text = "x".repeat(length);
            let line = logged(Format::Journal, "oc_discovery", Level::Warn, &text);
            assert_eq!((line.len(), line.ends_with("…\n")), (LINE_MAX, cut));
        }
        let line = logged(
            Format::Journal,
            "oc_discovery",
            Level::Warn,
            &"é".repeat(5000),
        );
        assert!(line.len() <= LINE_MAX && line.ends_with("é…\n"));
    }

    #[test]
    fn dates_hold_at_the_edges_of_years_and_leap_days() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (364, (1970, 12, 31)),
            (365, (1971, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }
}
