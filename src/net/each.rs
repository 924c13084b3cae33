//! Log lines that name a peer, with fields for programs that read the log.
//!
//! `each!` is for lines that a peer can cause, `tell!` for those that it cannot.
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

use libp2p::PeerId;
use log::{
    Level, Metadata, Record,
    kv::{self, Key, Source, Value, VisitSource},
};

use super::{
    EACH,
    joiner::{Joiner, LeftOut},
};

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

/// What a line is about, for programs. What is empty is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// What has happened, in kebab-case; of a problem, its code.
    pub(crate) code: &'static str,
    /// The role of the peer.
    pub(crate) role: &'static str,
    /// The peer, in base58.
    pub(crate) peer: String,
    /// Its name.
    pub(crate) name: String,
    /// Where it is: `HOST`, or `HOST:PORT` if it is a server.
    pub(crate) addr: String,
}

impl About {
    /// This peer, whose role and name are not known.
    pub(crate) fn peer(peer: &PeerId) -> Self {
        Self {
            peer: peer.to_base58(),
            ..Self::default()
        }
    }
}

/// Characters of an id that people read: its last ones, because the first are the same for all.
const SHORT: usize = 8;

/// A peer, for people.
pub(crate) fn short(peer: &crate::protocol::PeerId) -> String {
    short_id(&PeerId::from(*peer).to_base58())
}

/// A peer id, in base58, for people.
pub(crate) fn short_id(id: &str) -> String {
    let from = id.len().saturating_sub(SHORT);
    format!("…{}", id.get(from..).unwrap_or(id))
}

impl Source for About {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), kv::Error> {
        let fields: [(&'static str, &'kvs str); 5] = [
            ("code", self.code),
            ("role", self.role),
            ("peer", &self.peer),
            ("name", &self.name),
            ("addr", &self.addr),
        ];
        let there = fields.into_iter().filter(|(_, value)| !value.is_empty());
        there
            .map(|(key, value)| (Key::from_str(key), Value::from(value)))
            .try_for_each(|(key, value)| visitor.visit_pair(key, value))
    }
}

/// Where in the sources a line is, and its level.
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) target: &'static str,
    pub(crate) module: &'static str,
    pub(crate) file: &'static str,
    pub(crate) line: u32,
}

/// Whether a line of this level and target is logged.
pub(crate) fn is_logged(level: Level, target: &'static str) -> bool {
    let metadata = Metadata::builder().level(level).target(target).build();
    level <= log::max_level() && log::logger().enabled(&metadata)
}

/// Logs a line, if it is admitted.
pub(crate) fn say(line: &Line, about: &About, text: fmt::Arguments<'_>) {
    if line.target == EACH && !admits(line.file, line.line, line.level, text) {
        return;
    }
    log::logger().log(
        &Record::builder()
            .level(line.level)
            .target(line.target)
            .module_path_static(Some(line.module))
            .file_static(Some(line.file))
            .line(Some(line.line))
            .key_values(about)
            .args(text)
            .build(),
    );
}

/// Whether this line may be logged. Logs what was suppressed until then.
fn admits(file: &str, line: u32, level: Level, text: fmt::Arguments<'_>) -> bool {
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

/// Logs a line that a peer can cause, at the level of the first word; before a semicolon, what it
/// is about.
macro_rules! each {
    ($level:ident, $about:expr; $($text:tt)+) => {
        $crate::net::each::logged!($crate::net::EACH, $level, $about, $($text)+)
    };
    ($level:ident, $($text:tt)+) => {
        $crate::net::each::each!($level, &$crate::net::each::About::default(); $($text)+)
    };
}
pub(crate) use each;

/// Logs a line that no peer can cause at will.
macro_rules! tell {
    ($level:ident, $about:expr; $($text:tt)+) => {
        $crate::net::each::logged!(module_path!(), $level, $about, $($text)+)
    };
}
pub(crate) use tell;

macro_rules! logged {
    ($target:expr, $level:ident, $about:expr, $($text:tt)+) => {{
        const LINE: $crate::net::each::Line = $crate::net::each::Line {
            level: $crate::net::each::level_of!($level),
            target: $target,
            module: module_path!(),
            file: file!(),
            line: line!(),
        };
        if $crate::net::each::is_logged(LINE.level, LINE.target) {
            $crate::net::each::say(&LINE, $about, format_args!($($text)+));
        }
    }};
}
pub(crate) use logged;

macro_rules! level_of {
    (info) => {
        log::Level::Info
    };
    (warn) => {
        log::Level::Warn
    };
    (error) => {
        log::Level::Error
    };
}
pub(crate) use level_of;

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
