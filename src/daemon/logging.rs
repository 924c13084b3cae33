//! The log on stderr.
//!
//! Under systemd a line begins with its syslog priority (`<6>`, see sd-daemon(3)) and the journal adds the
//! time; anywhere else it begins with the UTC time. Text that comes from a peer cannot forge a line or drive
//! the terminal: control characters are escaped.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use log::{Level, LevelFilter, Record, SetLoggerError};

use super::clock;

/// The target of our own log lines, up to the first `::`.
const OURS: &str = "oc_discovery";

/// Starts the log: our own lines from `level` on, those of libraries from warnings on (or less, if `level` is
/// less). Fails if a logger was installed before.
pub fn init(level: LevelFilter) -> Result<(), SetLoggerError> {
    let format = if stderr_is_journal() {
        Format::Journal
    } else {
        Format::Terminal
    };
    env_logger::Builder::new()
        .filter_level(level.min(LevelFilter::Warn))
        .filter_module(OURS, level)
        .target(env_logger::Target::Stderr)
        .format(move |out, record| {
            let mut text = String::new();
            // Writing to a String fails only if a value's own formatting does; what was written stays.
            let _ = line(&mut text, format, clock::wall() / 1000, record);
            out.write_all(text.as_bytes())
        })
        .try_init()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Journal,
    Terminal,
}

/// `JOURNAL_STREAM` names the device and inode of the stream that leads to the journal. It is inherited, so
/// that stderr has to be compared with it (systemd.exec(5)).
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
    let ours = target
        .strip_prefix(OURS)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    if !ours {
        write!(out, "{target}: ")?;
    }
    write!(Escaped(out), "{}", record.args())?;
    out.push('\n');
    Ok(())
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

/// Writes the time as RFC 3339 does, in whole seconds.
fn write_utc(out: &mut String, seconds: u64) -> fmt::Result {
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
    )
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01. Years are counted from March, so
/// that the leap day is the last one (Howard Hinnant, `civil_from_days`).
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
