//! Dates as an operator types and reads them, in UTC.

use super::Error;
use crate::daemon::logging::{date, utc as utc_of_seconds};

const DAY_S: u64 = 86_400;

/// The time in ms since the Unix epoch, as RFC 3339 has it, in whole seconds.
pub(in crate::daemon) fn utc(ms: u64) -> String {
    utc_of_seconds(ms / 1000)
}

/// The last ms of a day `YYYY-MM-DD`, in ms since the Unix epoch, in UTC.
///
/// # Errors
/// [`Error::Usage`]: there is no such day between 1970 and 9999.
pub(crate) fn end_of(text: &str) -> Result<u64, Error> {
    let days = days_of(text).ok_or_else(|| {
        let text: String = text.chars().take(40).collect();
        Error::Usage(format!(
            "--until: {text:?} is not a day: write YYYY-MM-DD, such as 2030-12-31; the grant counts to the end of \
             that day, UTC"
        ))
    })?;
    Ok((days + 1) * DAY_S * 1000 - 1)
}

/// Days from 1970-01-01 to a day.
fn days_of(text: &str) -> Option<u64> {
    let is_form = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    if text.len() != 10 || !text.bytes().enumerate().all(is_form) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let day = (number(0..4)?, number(5..7)?, number(8..10)?);
    let year = day.0.checked_sub(1970)?;
    // No year before has less than 365 days or more than 366, so that the day is among these.
    let first = year * 365 + day.1.saturating_sub(1) * 28;
    (first..=first + year / 4 + 70).find(|days| date(*days) == day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_with_its_last_ms_in_utc() {
        assert_eq!(end_of("1970-01-01"), Ok(86_399_999));
        for day in [
            "2024-02-29",
            "2026-11-29",
            "2030-12-31",
            "2100-03-01",
            "9999-12-31",
        ] {
            let end = end_of(day).unwrap();
            assert_eq!(utc(end), format!("{day}T23:59:59Z"));
            assert!(utc(end + 1).ends_with("T00:00:00Z"), "{day}");
        }
    }

    #[test]
    fn what_is_no_day_is_refused_with_the_form_of_one() {
        for text in [
            "",
            "2026",
            "2026-13-01",
            "2026-00-01",
            "2026-02-29",
            "2026-04-31",
            "2026-01-00",
            "2026-1-01",
            "1969-12-31",
            "2026/01/01",
            "2026-01-01T00:00:00Z",
            "tomorrow",
            "+026-01-01",
            "2100-02-29",
        ] {
            let Err(Error::Usage(sentence)) = end_of(text) else {
                panic!("{text} is a day");
            };
            assert!(sentence.contains("--until") && sentence.contains("YYYY-MM-DD"));
        }
    }
}
