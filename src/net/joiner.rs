//! Limits the log, so that no peer can fill it: of many lines of one kind, some are logged and the
//! others are counted.
//!
//! A place in the sources has a window of a minute, which begins with its first line. In this
//! window, the caller's limit of lines is logged and the others are suppressed. When the window
//! ends, one line reports how many there were, with the first of them as an example, and at its
//! level. A line that is repeated for long ([`Joiner::of_lines`]) gets a new window then, twice as
//! long as the last one and up to an hour, in which all are suppressed; it is logged again only
//! after a window without it.
//!
//! Invariants: at most [`PLACES`] places are remembered; suppressed lines are always reported in
//! the end, even when a place is evicted; a clock that goes back does not end a window.

use std::fmt;

use log::Level;

use super::counted;

/// Places remembered. The sources have more, but peers can cause lines at few of them.
const PLACES: usize = 64;
/// How long the first window of a place lasts, and the longest window of a line, in milliseconds.
const WINDOW_MS: u64 = 60_000;
const LONGEST_MS: u64 = 60 * WINDOW_MS;

/// The places that have logged something in the last minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Joiner {
    windows: Vec<Window>,
    /// A window with suppressed lines is followed by a longer one.
    grows: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    place: u64,
    began: u64,
    lasts: u64,
    said: u32,
    level: Level,
    left_out: u64,
    sample: String,
}

/// Lines of one place that were suppressed in its window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// The level of the lines.
    pub(crate) level: Level,
    lines: u64,
    /// In how many minutes they were suppressed.
    minutes: u64,
    sample: String,
}

impl Joiner {
    /// A joiner in which a place is a line, so that all lines of a window are the same.
    pub(crate) fn of_lines() -> Self {
        Self {
            windows: Vec::new(),
            grows: true,
        }
    }

    /// Whether the line of a place may be logged at `now` (ms), where `most` are allowed in a
    /// minute. What is to be logged before it, of windows that have ended, is added to `ended`.
    /// `sample` makes the example.
    pub(crate) fn admit(
        &mut self,
        place: u64,
        most: u32,
        now: u64,
        (level, sample): (Level, impl FnOnce() -> String),
        ended: &mut Vec<LeftOut>,
    ) -> bool {
        ended.extend(self.ended(now));
        let known = self.windows.iter_mut().find(|window| window.place == place);
        if let Some(window) = known {
            if window.said < most {
                window.said += 1;
                return true;
            }
            if window.left_out == 0 {
                (window.level, window.sample) = (level, sample());
            }
            window.left_out = window.left_out.saturating_add(1);
            return false;
        }
        if self.windows.len() >= PLACES {
            // The windows are in the order in which they began.
            ended.extend(self.windows.remove(0).take_left_out());
        }
        self.windows.push(Window {
            place,
            began: now,
            lasts: WINDOW_MS,
            said: 1,
            level,
            left_out: 0,
            sample: String::new(),
        });
        true
    }

    /// Ends the windows that are over at `now` (ms). Returns the lines that were suppressed in
    /// them.
    pub(crate) fn ended(&mut self, now: u64) -> Vec<LeftOut> {
        let mut ended = Vec::new();
        self.windows.retain_mut(|window| {
            let is_over = now.saturating_sub(window.began) >= window.lasts;
            let left_out = is_over.then(|| window.take_left_out()).flatten();
            let goes_on = self.grows && left_out.is_some();
            if goes_on {
                window.began = now;
                window.lasts = (window.lasts * 2).min(LONGEST_MS);
            }
            ended.extend(left_out);
            !is_over || goes_on
        });
        ended
    }

    /// The time (ms) at which suppressed lines are to be reported next, if there are any.
    #[cfg(any(feature = "program", test))]
    pub(crate) fn due(&self) -> Option<u64> {
        let waiting = self.windows.iter().filter(|window| window.left_out > 0);
        waiting.map(|window| window.began + window.lasts).min()
    }
}

impl Window {
    fn take_left_out(&mut self) -> Option<LeftOut> {
        let lines = std::mem::take(&mut self.left_out);
        (lines > 0).then(|| LeftOut {
            level: self.level,
            lines,
            minutes: self.lasts / WINDOW_MS,
            sample: std::mem::take(&mut self.sample),
        })
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "suppressed {} ", counted(&self.lines, "line"))?;
        if self.minutes > 1 {
            write!(f, "in {} min ", self.minutes)?;
        }
        write!(f, "like: {}", self.sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> String {
        "such a one".to_owned()
    }

    /// Whether the line is logged, and what before it.
    fn admit(joiner: &mut Joiner, place: u64, most: u32, now: u64) -> (bool, Vec<LeftOut>) {
        let mut ended = Vec::new();
        let may_log = joiner.admit(place, most, now, (Level::Info, sample), &mut ended);
        (may_log, ended)
    }

    fn left_out(lines: u64) -> LeftOut {
        LeftOut {
            level: Level::Info,
            lines,
            minutes: 1,
            sample: sample(),
        }
    }

    #[test]
    fn a_place_says_as_many_lines_a_minute_as_it_may_and_the_others_are_counted() {
        let mut joiner = Joiner::default();
        for time in [5, 6, 7] {
            assert_eq!(admit(&mut joiner, 1, 3, time), (true, vec![]));
        }
        assert_eq!(joiner.due(), None);
        for _ in 0..40 {
            let last = 5 + WINDOW_MS - 1;
            assert_eq!(admit(&mut joiner, 1, 3, last), (false, vec![]));
        }
        assert_eq!(joiner.due(), Some(5 + WINDOW_MS));
        assert_eq!(joiner.ended(5 + WINDOW_MS - 1), []);
        assert_eq!(joiner.ended(5 + WINDOW_MS), [left_out(40)]);
        assert_eq!(joiner.due(), None);
        assert_eq!(joiner, Joiner::default());
    }

    #[test]
    fn line_after_the_window_says_first_what_was_left_out_in_it() {
        let mut joiner = Joiner::default();
        admit(&mut joiner, 1, 1, 0);
        admit(&mut joiner, 1, 1, 1);
        let (said, ended) = admit(&mut joiner, 1, 1, WINDOW_MS);
        assert_eq!((said, ended), (true, vec![left_out(1)]));
    }

    #[test]
    fn one_place_does_not_silence_another() {
        let mut joiner = Joiner::default();
        for _ in 0..1000 {
            admit(&mut joiner, 1, 1, 0);
        }
        assert!(admit(&mut joiner, 2, 1, 0).0);
    }

    #[test]
    fn of_too_many_places_the_oldest_gives_way_and_its_count_is_said() {
        let mut joiner = Joiner::default();
        for place in 0..PLACES as u64 {
            admit(&mut joiner, place, 1, place);
        }
        admit(&mut joiner, 0, 1, 100);
        let (said, ended) = admit(&mut joiner, 1000, 1, 100);
        assert_eq!((said, ended), (true, vec![left_out(1)]));
        assert_eq!(joiner.windows.len(), PLACES);
    }

    #[test]
    fn a_line_that_goes_on_is_counted_in_windows_that_double_up_to_an_hour() {
        let mut joiner = Joiner::of_lines();
        let mut told = Vec::new();
        // Every 14 s for 5 hours: 107 times in the first 25 minutes.
        for second in (0..5 * 3_600).step_by(14) {
            let (is_logged, ended) = admit(&mut joiner, 1, 1, second * 1_000);
            assert_eq!(is_logged, second == 0, "{second}");
            told.extend(ended.iter().map(|left_out| (second / 60, left_out.minutes)));
        }
        let minutes: Vec<u64> = told.iter().map(|(_, minutes)| *minutes).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let in_25_minutes = told.iter().filter(|(minute, _)| *minute < 25).count();
        assert_eq!(in_25_minutes, 4);
    }

    #[test]
    fn a_line_that_was_away_for_a_window_is_logged_again() {
        let mut joiner = Joiner::of_lines();
        for (now, is_logged, counted) in [
            (0, true, None),
            (1, false, None),
            (WINDOW_MS, false, Some(1)),
            (WINDOW_MS + 1, false, None),
            // The window of two minutes ends, then one of four passes without the line.
            (3 * WINDOW_MS, false, Some(2)),
        ] {
            let (logged, ended) = admit(&mut joiner, 1, 1, now);
            let lines = ended.first().map(|left_out| left_out.lines);
            assert_eq!((logged, lines), (is_logged, counted), "{now}");
        }
        assert_eq!(joiner.ended(7 * WINDOW_MS - 1), []);
        assert_eq!(joiner.ended(7 * WINDOW_MS).len(), 1);
        assert_eq!(joiner.ended(15 * WINDOW_MS), []);
        assert_eq!(admit(&mut joiner, 1, 1, 15 * WINDOW_MS), (true, vec![]));
    }

    #[test]
    fn what_was_left_out_is_a_sentence() {
        let long = LeftOut {
            minutes: 16,
            ..left_out(37)
        };
        assert_eq!(
            long.to_string(),
            "suppressed 37 lines in 16 min like: such a one"
        );
        assert_eq!(
            left_out(1).to_string(),
            "suppressed 1 line like: such a one"
        );
        assert_eq!(
            left_out(1_154_999).to_string(),
            "suppressed 1154999 lines like: such a one"
        );
    }
}
