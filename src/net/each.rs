//! Log lines that a peer can cause and that name the peer.
//!
//! The program's log bounds them (`daemon::logging`). A node that is embedded gives its lines to
//! the log of the program that embeds it, which has no such bound, so they are bounded here.
//!
//! Invariants: of an embedded node, the same line is logged once and then counted, each place in
//! the sources logs at most [`PLACE_MAX`] lines a minute, and what was suppressed is counted.

use std::cell::RefCell;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::Instant;

use log::Level;

use super::joiner::{Joiner, LeftOut};

/// Lines a minute of one place in the sources.
const PLACE_MAX: u32 = 256;

thread_local! {
    /// The bound of the node on this thread; `None` in the program.
    static BOUND: RefCell<Option<Bound>> = const { RefCell::new(None) };
}

/// A file of the sources, and the line in it.
type Place<'a> = (&'a str, u32);

struct Bound {
    since: Instant,
    places: Joiner,
    lines: Joiner,
}

impl Bound {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            places: Joiner::default(),
            lines: Joiner::of_lines(),
        }
    }

    /// Whether this line of the place may be logged at `now` (ms). What was suppressed until then
    /// is added to `ended`.
    fn admits(
        &mut self,
        place: Place<'_>,
        (level, text): (Level, &str),
        now: u64,
        ended: &mut Vec<LeftOut>,
    ) -> bool {
        let (line, sample) = (hash((place, text)), (level, || text.to_owned()));
        self.lines.admit(line, 1, now, sample, ended)
            && self
                .places
                .admit(hash(place), PLACE_MAX, now, sample, ended)
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Bounds these lines on this thread from now on.
pub(crate) fn bound_lines() {
    BOUND.set(Some(Bound::new()));
}

/// Whether this line may be logged. Logs what was suppressed until then.
pub(crate) fn admits(file: &str, line: u32, level: Level, text: fmt::Arguments<'_>) -> bool {
    let mut suppressed = Vec::new();
    let is_admitted = BOUND.with_borrow_mut(|bound| {
        let Some(bound) = bound.as_mut() else {
            return true;
        };
        let now = u64::try_from(bound.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let text = text.to_string();
        bound.admits((file, line), (level, &text), now, &mut suppressed)
    });
    // The log of the embedding program is called after the borrow.
    for lines in suppressed {
        log::log!(lines.level, "{lines}");
    }
    is_admitted
}

/// Logs a line that names a peer, at the level of the first word.
macro_rules! each {
    (info, $($text:tt)+) => {
        $crate::net::each::each!(@ log::Level::Info, $($text)+)
    };
    (warn, $($text:tt)+) => {
        $crate::net::each::each!(@ log::Level::Warn, $($text)+)
    };
    (@ $level:expr, $($text:tt)+) => {
        if log::log_enabled!(target: $crate::net::EACH, $level)
            && $crate::net::each::admits(file!(), line!(), $level, format_args!($($text)+))
        {
            log::log!(target: $crate::net::EACH, $level, $($text)+)
        }
    };
}
pub(crate) use each;

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = ("beats.rs", 1);

    /// Whether a line of this place is logged at `now`, and what before it.
    fn logs(bound: &mut Bound, text: &str, now: u64) -> (bool, Vec<String>) {
        let mut ended = Vec::new();
        let is_admitted = bound.admits(PLACE, (Level::Info, text), now, &mut ended);
        (is_admitted, ended.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_same_line_is_logged_once_and_the_others_are_counted() {
        let mut bound = Bound::new();
        assert_eq!(logs(&mut bound, "peer 1", 0), (true, vec![]));
        for now in [1, 59_999] {
            assert_eq!(logs(&mut bound, "peer 1", now), (false, vec![]));
        }
        assert_eq!(logs(&mut bound, "peer 2", 59_999), (true, vec![]));
        let (is_admitted, said) = logs(&mut bound, "peer 1", 60_000);
        assert!(!is_admitted);
        assert_eq!(said, ["suppressed 2 lines like: peer 1"]);
    }

    #[test]
    fn lines_of_one_place_are_bounded_whatever_they_name() {
        let mut bound = Bound::new();
        let is_logged = |n: &u32| logs(&mut bound, &format!("peer {n}"), 0).0;
        assert_eq!((0..1000).filter(is_logged).count(), PLACE_MAX as usize);
        let other = ("beats.rs", 2);
        assert!(bound.admits(other, (Level::Info, "peer 1000"), 0, &mut Vec::new()));
    }
}
