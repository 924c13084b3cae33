//! The form of a line of the log: for the journal, for a terminal, or as an object of JSON.
//!
//! Invariant: a line is one line of at most [`LINE_MAX`] bytes, and its text cannot drive a
//! terminal.

use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use log::{Level, Record};

use super::{is_ours, journal::fields};
use crate::{
    config::LogFormat,
    daemon::{outlet::LINE_MAX, status::is_obeyed},
};

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    /// The journal reads it: it begins with its priority, and needs no time.
    pub(super) journal: bool,
    pub(super) json: bool,
}

impl Format {
    /// The form for people.
    pub(super) const PLAIN: Self = Self {
        journal: false,
        json: false,
    };

    /// The form for stderr as it is now.
    pub(super) fn of_stderr(format: LogFormat) -> Self {
        Self {
            journal: stderr_is_journal(),
            json: format == LogFormat::Json,
        }
    }
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

/// Writes the line of a record, with its end. `seconds`: the time, since the Unix epoch.
pub(super) fn line(
    out: &mut String,
    format: Format,
    seconds: u64,
    record: &Record<'_>,
) -> fmt::Result {
    if format.journal {
        write!(out, "<{}>", priority(record.level()))?;
    }
    if format.json {
        return json(out, seconds, record);
    }
    if !format.journal {
        write_utc(out, seconds)?;
        write!(out, " {:5} ", record.level())?;
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

/// The end of an object whose text is open.
const JSON_END: &str = "\"}\n";

/// An object with the time, the level, the module, the fields, and the message last, because it may
/// be cut.
fn json(out: &mut String, seconds: u64, record: &Record<'_>) -> fmt::Result {
    out.push_str("{\"time\":\"");
    write_utc(out, seconds)?;
    let level = record.level().as_str().to_ascii_lowercase();
    write!(out, "\",\"level\":\"{level}\",\"module\":\"")?;
    let module = record.module_path().unwrap_or(record.target());
    write!(Quoted(out), "{module}")?;
    fields(record, |key, value| {
        // What is written to a String is there.
        let _ = write!(out, "\",\"{key}\":\"");
        let _ = write!(Quoted(out), "{value}");
    });
    out.push_str("\",\"message\":\"");
    let begin = out.len();
    let written = write!(Quoted(out), "{}", record.args());
    if out.len() > LINE_MAX - JSON_END.len() {
        shorten_quoted(out, begin);
    }
    out.push_str(JSON_END);
    written
}

/// Cuts the JSON text that begins at `begin`, between two of its characters.
fn shorten_quoted(out: &mut String, begin: usize) {
    let max = LINE_MAX - JSON_END.len() - CUT.len();
    let (mut end, mut rest) = (begin, out.get(begin..).unwrap_or_default());
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\\' if rest.starts_with("\\u") => "\\u0000".len(),
            '\\' => "\\n".len(),
            other => other.len_utf8(),
        };
        if end + length > max {
            break;
        }
        end += length;
        rest = rest.get(length..).unwrap_or_default();
    }
    out.truncate(end);
    out.push_str(CUT);
}

/// Stands for the rest of a text that was cut.
const CUT: &str = "…";

/// Cuts `text` to at most `max` bytes.
pub(super) fn shorten(text: &mut String, max: usize) {
    if text.len() > max {
        let mut end = max.saturating_sub(CUT.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(CUT);
    }
}

/// Syslog priorities (RFC 5424, section 6.2.1).
pub(super) fn priority(level: Level) -> u8 {
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

/// The time as in RFC 3339, in whole seconds.
pub(in crate::daemon) fn utc(seconds: u64) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_utc(&mut text, seconds);
    text
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01. Years are counted from
/// March, so that the leap day is the last one (Howard Hinnant, `civil_from_days`).
pub(in crate::daemon) fn date(days: u64) -> (u64, u64, u64) {
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

/// Passes text on with the characters escaped that a terminal would obey.
pub(super) struct Escaped<'a>(pub(super) &'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if is_obeyed(c) {
                self.0.extend(c.escape_default());
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

/// Passes text on as the content of a JSON string.
struct Quoted<'a>(&'a mut String);

impl fmt::Write for Quoted<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '"' | '\\' => self.0.extend(['\\', c]),
                c if c.is_control() => write!(self.0, "\\u{:04x}", u32::from(c))?,
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOURNAL: Format = Format {
        journal: true,
        json: false,
    };
    const TERMINAL: Format = Format {
        journal: false,
        json: false,
    };
    const JSON: Format = Format {
        journal: false,
        json: true,
    };

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
        let line = logged(JOURNAL, "oc_discovery::daemon", Level::Info, "ready");
        assert_eq!(line, "<6>ready\n");
        let line = logged(JOURNAL, "oc_discovery", Level::Error, "no");
        assert_eq!(line, "<3>no\n");
    }

    #[test]
    fn terminal_line_has_the_time_and_a_foreign_target() {
        let line = logged(TERMINAL, "libp2p_kad::behaviour", Level::Warn, "late");
        assert_eq!(
            line,
            "2000-02-29T12:34:56Z WARN  libp2p_kad::behaviour: late\n"
        );
    }

    #[test]
    fn a_crate_that_only_begins_like_ours_is_foreign() {
        let line = logged(JOURNAL, "oc_discovery_tools", Level::Debug, "x");
        assert_eq!(line, "<7>oc_discovery_tools: x\n");
    }

    #[test]
    fn peer_cannot_forge_a_line_or_drive_the_terminal() {
        let line = logged(
            JOURNAL,
            "oc_discovery",
            Level::Warn,
            "full: é\n<3>x\u{1b}[2J",
        );
        assert_eq!(line, "<4>full: é\\n<3>x\\u{1b}[2J\n");
        // Nor turn the direction of what follows.
        let line = logged(JOURNAL, "oc_discovery", Level::Warn, "a\u{202e}b\u{2028}c");
        assert_eq!(line, "<4>a\\u{202e}b\\u{2028}c\n");
    }

    #[test]
    fn long_line_is_cut_at_its_bound_between_characters() {
        let start = "<4>".len();
        for (length, cut) in [(LINE_MAX - start - 1, false), (LINE_MAX - start, true)] {
            let text = "x".repeat(length);
            let line = logged(JOURNAL, "oc_discovery", Level::Warn, &text);
            assert_eq!((line.len(), line.ends_with("…\n")), (LINE_MAX, cut));
        }
        let line = logged(JOURNAL, "oc_discovery", Level::Warn, &"é".repeat(5000));
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

    /// What a reader of JSON makes of the line.
    fn read(line: &str) -> std::collections::BTreeMap<String, String> {
        miniserde::json::from_str(line).unwrap_or_else(|_| panic!("{line}"))
    }

    #[test]
    fn json_line_is_an_object_whatever_a_peer_sends() {
        let text = "full: é \"\\ \n\t\u{1b}[2J \u{85}";
        let line = logged(JSON, "oc_discovery::daemon", Level::Warn, text);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains('\u{1b}'));
        let object = read(&line);
        assert_eq!(object["message"], text);
        assert_eq!(object["level"], "warn");
        assert_eq!(object["time"], "2000-02-29T12:34:56Z");
        assert_eq!(object["module"], "oc_discovery::daemon");
        let journal = Format {
            journal: true,
            ..JSON
        };
        let line = logged(journal, "oc_discovery", Level::Info, "ready");
        assert!(line.starts_with("<6>{\"time\":"), "{line}");
    }

    #[test]
    fn json_line_has_the_fields_of_what_it_is_about() {
        let about = crate::net::each::About {
            code: "lost",
            name: "a\"b".into(),
            ..Default::default()
        };
        let mut out = String::new();
        let mut record = Record::builder();
        let record = record.target("oc_discovery").key_values(&about).build();
        line(&mut out, JSON, 0, &record).unwrap();
        let object = read(&out);
        assert_eq!((&*object["code"], &*object["name"]), ("lost", "a\"b"));
        assert!(!object.contains_key("peer"), "{out}");
        assert!(out.ends_with(",\"message\":\"\"}\n"), "{out}");
    }

    #[test]
    fn long_json_line_is_cut_between_its_characters_and_stays_an_object() {
        for character in ["x", "é", "\n", "\"", "\\", "\u{7f}"] {
            for more in 0..8 {
                let text = "y".repeat(more) + &character.repeat(LINE_MAX);
                let line = logged(JSON, "oc_discovery", Level::Info, &text);
                assert!(line.len() <= LINE_MAX, "{}", line.len());
                assert!(line.len() > LINE_MAX - 8, "{}", line.len());
                let message = read(&line).remove("message").unwrap();
                assert!(text.starts_with(message.strip_suffix('…').unwrap()));
            }
        }
    }
}
