//! Limits the log, so that no peer can fill it: of many lines of one kind, some are logged and the
//! others are counted.
//!
//! A place in the sources has a window of a minute, which begins with its first line. In this
//! window, the caller's limit of lines is logged and the others are suppressed. When the window
//! ends, one line reports how many there were, with the first of them as an example.
//!
//! Invariants: at most [`PLACES`] places are remembered; suppressed lines are always reported in
//! the end, even when a place is evicted; a clock that goes back does not end a window.

use std::fmt;

/// Places remembered. The sources have more, but peers can cause lines at few of them.
const PLACES: usize = 64;
/// How long a window lasts, in milliseconds.
const WINDOW_MS: u64 = 60_000;

/// The places that have logged something in the last minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Joiner {
    windows: Vec<Window>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    place: u64,
    began: u64,
    said: u32,
    left_out: u64,
    sample: String,
}

/// Lines of one place that were suppressed in its window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    lines: u64,
    sample: String,
}

impl Joiner {
    /// Whether the line of a place may be logged at `now` (ms), where `most` are allowed in a
    /// minute. What is to be logged before it, of windows that have ended, is added to `ended`.
    /// `sample` makes the example.
    pub(crate) fn admit(
        &mut self,
        place: u64,
        most: u32,
        now: u64,
        sample: impl FnOnce() -> String,
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
                window.sample = sample();
            }
            window.left_out = window.left_out.saturating_add(1);
            return false;
        }
        if self.windows.len() >= PLACES {
            // The windows are in the order in which they began.
            ended.extend(self.windows.remove(0).into_left_out());
        }
        self.windows.push(Window {
            place,
            began: now,
            said: 1,
            left_out: 0,
            sample: String::new(),
        });
        true
    }

    /// Ends the windows that are over at `now` (ms). Returns the lines that were suppressed in
    /// them.
    pub(crate) fn ended(&mut self, now: u64) -> Vec<LeftOut> {
        let over = |window: &mut Window| now.saturating_sub(window.began) >= WINDOW_MS;
        let ended = self.windows.extract_if(.., over);
        ended.filter_map(Window::into_left_out).collect()
    }

    /// Whether there are suppressed lines that are not reported yet.
    #[cfg(any(feature = "program", test))]
    pub(crate) fn waits(&self) -> bool {
        self.windows.iter().any(|window| window.left_out > 0)
    }
}

impl Window {
    fn into_left_out(self) -> Option<LeftOut> {
        (self.left_out > 0).then_some(LeftOut {
            lines: self.left_out,
            sample: self.sample,
        })
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.lines == 1 { "" } else { "s" };
        write!(f, "suppressed {} line{s} like: {}", self.lines, self.sample)
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
        let may_log = joiner.admit(place, most, now, sample, &mut ended);
        (may_log, ended)
    }

    fn left_out(lines: u64) -> LeftOut {
        let sample = sample();
        LeftOut { lines, sample }
    }

    #[test]
    fn a_place_says_as_many_lines_a_minute_as_it_may_and_the_others_are_counted() {
        let mut joiner = Joiner::default();
        for time in [5, 6, 7] {
            assert_eq!(admit(&mut joiner, 1, 3, time), (true, vec![]));
        }
        assert!(!joiner.waits());
        for _ in 0..40 {
            let last = 5 + WINDOW_MS - 1;
            assert_eq!(admit(&mut joiner, 1, 3, last), (false, vec![]));
        }
        assert!(joiner.waits());
        assert_eq!(joiner.ended(5 + WINDOW_MS - 1), []);
        assert_eq!(joiner.ended(5 + WINDOW_MS), [left_out(40)]);
        assert!(!joiner.waits());
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
    fn what_was_left_out_is_a_sentence() {
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
