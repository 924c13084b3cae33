//! Log lines that a peer can cause and that name the peer.
//!
//! The program's log bounds them (`daemon::logging`). A node that is embedded gives its lines to
//! the log of the program that embeds it, which has no such bound, so they are bounded here.
//!
//! Invariants: of an embedded node, the same line is logged at most once a minute, each place in
//! the sources logs at most [`PLACE_MAX`] lines a minute, and what was suppressed is counted.

use std::cell::RefCell;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::Instant;

use super::joiner::Joiner;

/// Lines a minute of one place in the sources.
const PLACE_MAX: u32 = 256;

thread_local! {
    /// The bound of the node on this thread; `None` in the program.
    static BOUND: RefCell<Option<Bound>> = const { RefCell::new(None) };
}

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
            lines: Joiner::default(),
        }
    }

    /// Whether this line of the place may be logged at `now` (ms), after what was suppressed until
    /// then.
    fn admits(&mut self, place: (&str, u32), text: &str, now: u64) -> (bool, Vec<String>) {
        let line = hash((place, text));
        let (is_new, mut ended) = self.lines.admit(line, 1, now, || text.to_owned());
        let mut is_admitted = is_new;
        if is_new {
            let (is_within, others) = self
                .places
                .admit(hash(place), PLACE_MAX, now, || text.to_owned());
            is_admitted = is_within;
            ended.extend(others);
        }
        let ended = ended.into_iter().map(|lines| lines.to_string());
        (is_admitted, ended.collect())
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
pub(crate) fn admits(file: &str, line: u32, text: fmt::Arguments<'_>) -> bool {
    let admitted = BOUND.with_borrow_mut(|bound| {
        let bound = bound.as_mut()?;
        let now = u64::try_from(bound.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(bound.admits((file, line), &text.to_string(), now))
    });
    // The log of the embedding program is called after the borrow.
    let (is_admitted, suppressed) = admitted.unwrap_or((true, Vec::new()));
    for lines in suppressed {
        log::warn!("{lines}");
    }
    is_admitted
}

/// Logs a line that names a peer, at the level of the first word.
macro_rules! each {
    ($level:ident, $($text:tt)+) => {
        if $crate::net::each::admits(file!(), line!(), format_args!($($text)+)) {
            log::$level!(target: $crate::net::EACH, $($text)+)
        }
    };
}
pub(crate) use each;

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: (&str, u32) = ("beats.rs", 1);

    #[test]
    fn the_same_line_is_logged_once_a_minute_and_the_others_are_counted() {
        let mut bound = Bound::new();
        assert_eq!(bound.admits(PLACE, "peer 1", 0), (true, vec![]));
        for now in [1, 59_999] {
            assert_eq!(bound.admits(PLACE, "peer 1", now), (false, vec![]));
        }
        assert_eq!(bound.admits(PLACE, "peer 2", 59_999), (true, vec![]));
        let (is_admitted, said) = bound.admits(PLACE, "peer 1", 60_000);
        assert!(is_admitted);
        assert_eq!(said, ["suppressed 2 lines like: peer 1"]);
    }

    #[test]
    fn lines_of_one_place_are_bounded_whatever_they_name() {
        let mut bound = Bound::new();
        let logs = |bound: &mut Bound, n: u32| bound.admits(PLACE, &format!("peer {n}"), 0).0;
        let logged = (0..1000).filter(|n| logs(&mut bound, *n)).count();
        assert_eq!(logged, PLACE_MAX as usize);
        assert!(bound.admits(("beats.rs", 2), "peer 1000", 0).0, "another");
    }
}
