//! What is wrong with this process or with what it needs, each problem by its name and with what to
//! do about it: for the log, for `status` and for `doctor`.
//!
//! ```text
//!           begins: one line of the log               is over: one line of the log
//!  (none) ─────────────────────────────▶ listed ─────────────────────────────▶ (none)
//!                                         │  ▲
//!                                         └──┘ happens again: counted
//! ```
//!
//! A *state* lasts until a look does not find it any more ([`Problems::found`]). An *event*
//! ([`Problems::happened`]) is over [`LINGER`] after the last time, or when its cause is known to
//! be ([`Problems::over`]).
//!
//! Invariants: at most [`MOST`] problems, and [`OF_ONE_CODE`] of one code, so that no peer can
//! displace a problem of another kind, or fill the log with them; what finds no room is counted. A
//! notice gives way to what is worse at once, and to another notice after [`TURN`], so that
//! strangers hide neither.

use std::time::Duration;

use super::status::{self, Severity, Span};
use crate::net::each::{About, each, tell};
use crate::protocol::{Instant, TableStats};

/// Problems at a time.
pub(super) const MOST: usize = 64;
/// Problems of one code at a time.
pub(super) const OF_ONE_CODE: usize = 8;
/// A notice that was listed for so long gives way to another one, because strangers cause them.
const TURN: Duration = Duration::from_secs(60);
/// An event is over this long after it last happened.
pub(super) const LINGER: Duration = Duration::from_secs(600);

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Its name, in kebab-case, for programs.
    pub(super) code: &'static str,
    pub(super) severity: Severity,
    /// What distinguishes it from others of this code: an address, an id, a table; or nothing.
    pub(super) about: String,
    /// One sentence that names the peer or the address, without control characters.
    pub(super) what: String,
    /// What to do about it, or to type.
    pub(super) hint: String,
}

/// A mistake that is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) mistake: Mistake,
    since: Instant,
    last: Instant,
    count: u64,
    /// Lasts until a look does not find it.
    is_state: bool,
}

/// The problems, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Problems {
    all: Vec<Problem>,
    refused: u64,
    evicted: u64,
    /// States of the last look that found no room.
    unlisted: u64,
}

impl Problems {
    /// An event happened at `now`.
    pub(super) fn happened(&mut self, now: Instant, mistake: Mistake) {
        if !self.add(now, mistake, false) {
            self.refused = self.refused.saturating_add(1);
        }
    }

    /// A look at `now` found these states, and no others.
    pub(super) fn found(&mut self, now: Instant, states: Vec<Mistake>) {
        let is_there = |listed: &Mistake| states.iter().any(|state| is_same(state, listed));
        self.end(now, |problem| match problem.is_state {
            true => !is_there(&problem.mistake),
            false => now - problem.last >= LINGER,
        });
        let listed = states.into_iter().map(|state| self.add(now, state, true));
        let unlisted: u64 = listed.map(|is_listed| u64::from(!is_listed)).sum();
        // A look finds a state again and again: it is refused once.
        let fresh = unlisted.saturating_sub(self.unlisted);
        self.refused = self.refused.saturating_add(fresh);
        self.unlisted = unlisted;
    }

    /// The cause of the problem is over.
    pub(super) fn over(&mut self, now: Instant, code: &str, about: &str) {
        self.over_if(now, |mistake| {
            mistake.code == code && mistake.about == about
        });
    }

    /// The cause of each such problem is over.
    pub(super) fn over_if(&mut self, now: Instant, is_over: impl Fn(&Mistake) -> bool) {
        self.end(now, |problem| is_over(&problem.mistake));
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether the problem is listed.
    pub(super) fn has(&self, code: &str, about: &str) -> bool {
        let mut all = self.all.iter().map(|problem| &problem.mistake);
        all.any(|mistake| mistake.code == code && mistake.about == about)
    }

    /// The first that is listed of those that are meant.
    pub(super) fn first(&self, is_meant: impl Fn(&Mistake) -> bool) -> Option<&Mistake> {
        let mut all = self.all.iter().map(|problem| &problem.mistake);
        all.find(|mistake| is_meant(mistake))
    }

    /// The problems for `status`.
    pub(super) fn report(&self, now: Instant) -> Vec<status::Problem> {
        let shown = |problem: &Problem| status::Problem {
            code: problem.mistake.code.to_owned(),
            severity: problem.mistake.severity,
            what: problem.mistake.what.clone(),
            hint: problem.mistake.hint.clone(),
            since_ms: now.as_millis().saturating_sub(problem.since.as_millis()),
            count: problem.count,
        };
        self.all.iter().map(shown).collect()
    }

    /// How full the list is.
    pub(super) fn stats(&self) -> TableStats {
        TableStats {
            name: "problems",
            used: self.all.len(),
            capacity: MOST,
            refused: self.refused,
            evicted: self.evicted,
        }
    }

    /// Lists it, or counts it if it is listed. Returns whether there is room for it.
    fn add(&mut self, now: Instant, mistake: Mistake, is_state: bool) -> bool {
        let mut known = self.all.iter_mut();
        if let Some(known) = known.find(|known| is_same(&known.mistake, &mistake)) {
            known.last = now;
            // A look finds a state again and again; that is no repetition.
            known.count = known.count.saturating_add(u64::from(!is_state));
            if mistake.severity > known.mistake.severity {
                say(&mistake);
            }
            known.mistake = mistake;
            return true;
        }
        if !self.make_room(now, &mistake) {
            return false;
        }
        say(&mistake);
        self.all.push(Problem {
            mistake,
            since: now,
            last: now,
            count: 1,
            is_state,
        });
        true
    }

    /// Makes room for the mistake if there is none: the oldest notice gives way. Returns whether
    /// there is room now.
    fn make_room(&mut self, now: Instant, mistake: &Mistake) -> bool {
        let of_code = |known: &&Problem| known.mistake.code == mistake.code;
        let is_full = self.all.iter().filter(of_code).count() >= OF_ONE_CODE;
        if !is_full && self.all.len() < MOST {
            return true;
        }
        let is_notice = |one: &Mistake| one.severity == Severity::Notice;
        // The oldest is the first.
        let at = self.all.iter().position(|known| {
            let may_go = !is_notice(mistake) || now - known.since >= TURN;
            is_notice(&known.mistake) && may_go && (!is_full || of_code(&known))
        });
        if let Some(at) = at {
            self.all.remove(at);
            self.evicted = self.evicted.saturating_add(1);
        }
        at.is_some()
    }

    fn end(&mut self, now: Instant, is_over: impl Fn(&Problem) -> bool) {
        for Problem {
            mistake,
            since,
            count,
            ..
        } in self.all.extract_if(.., |problem| is_over(problem))
        {
            let times = match count {
                1 => String::new(),
                more => format!(" ({more} times)"),
            };
            let what = &mistake.what;
            tell!(info, &about(mistake.code); "over after {}{times}: {what}", Span::of(now - since));
        }
    }
}

fn is_same(one: &Mistake, other: &Mistake) -> bool {
    one.code == other.code && one.about == other.about
}

/// Logs a problem that begins, or that has become worse.
fn say(mistake: &Mistake) {
    let Mistake { what, hint, .. } = mistake;
    match mistake.severity {
        Severity::Critical => tell!(error, &about(mistake.code); "{what}; {hint}"),
        Severity::Warning => tell!(warn, &about(mistake.code); "{what}; {hint}"),
        // Strangers cause them, and they take turns: the same one is logged once and counted.
        Severity::Notice => each!(warn, &about(mistake.code); "{what}; {hint}"),
    }
}

fn about(code: &'static str) -> About {
    About {
        code,
        ..About::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn mistake(code: &'static str, about: impl ToString) -> Mistake {
        Mistake {
            code,
            severity: Severity::Warning,
            about: about.to_string(),
            what: "it is broken".into(),
            hint: "mend it".into(),
        }
    }

    /// The count and the age of each problem.
    fn seen(problems: &Problems, now: u64) -> Vec<(u64, u64)> {
        let all = problems.report(at(now)).into_iter();
        all.map(|problem| (problem.count, problem.since_ms))
            .collect()
    }

    #[test]
    fn event_is_over_ten_minutes_after_the_last_time() {
        let mut problems = Problems::default();
        problems.happened(at(0), mistake("a", 1));
        problems.happened(at(1_000), mistake("a", 1));
        problems.found(at(600_999), vec![]);
        assert_eq!(seen(&problems, 600_999), [(2, 600_999)]);
        problems.found(at(601_000), vec![]);
        assert_eq!(seen(&problems, 601_000), []);
        problems.happened(at(601_001), mistake("a", 1));
        assert_eq!(seen(&problems, 601_001), [(1, 0)], "it is another one");
    }

    #[test]
    fn event_is_over_when_its_cause_is() {
        let mut problems = Problems::default();
        problems.happened(at(0), mistake("a", 1));
        problems.happened(at(0), mistake("a", 2));
        problems.over(at(1), "a", "1");
        assert!(!problems.has("a", "1"));
        assert!(problems.has("a", "2"));
    }

    #[test]
    fn state_lasts_as_long_as_looks_find_it_and_is_not_counted_again() {
        let mut problems = Problems::default();
        for now in [0, 20_000, 900_000] {
            problems.found(at(now), vec![mistake("a", ""), mistake("b", now)]);
        }
        assert_eq!(seen(&problems, 900_000), [(1, 900_000), (1, 0)]);
        problems.found(at(900_001), vec![]);
        assert_eq!(seen(&problems, 900_001), []);
    }

    #[test]
    fn text_of_a_problem_is_that_of_the_last_time() {
        let mut problems = Problems::default();
        problems.happened(at(0), mistake("a", ""));
        let later = Mistake {
            what: "it is worse".into(),
            ..mistake("a", "")
        };
        problems.happened(at(1), later);
        let all = problems.report(at(1));
        assert_eq!(all.first().unwrap().what, "it is worse");
    }

    #[test]
    fn one_code_cannot_take_the_room_of_others() {
        let mut problems = Problems::default();
        for n in 0..=OF_ONE_CODE {
            problems.happened(at(0), mistake("a", n));
        }
        let stats = problems.stats();
        assert_eq!((stats.used, stats.refused), (OF_ONE_CODE, 1));
        problems.happened(at(0), mistake("b", ""));
        assert!(problems.has("b", ""));
    }

    #[test]
    fn state_without_room_is_refused_once_however_often_a_look_finds_it() {
        let mut problems = Problems::default();
        let states = |most| (0..most).map(|n| mistake("a", n)).collect();
        for (now, most, refused) in [(0, 9, 1), (20, 9, 1), (40, 10, 2), (60, 9, 2), (80, 10, 3)] {
            problems.found(at(now), states(most));
            let stats = problems.stats();
            assert_eq!((stats.used, stats.refused), (OF_ONE_CODE, refused), "{now}");
        }
    }

    #[test]
    fn strangers_take_turns_and_hide_nothing_that_is_worse() {
        let notice = |about: usize| Mistake {
            severity: Severity::Notice,
            ..mistake("a", about)
        };
        let mut problems = Problems::default();
        for n in 0..OF_ONE_CODE {
            problems.happened(at(0), notice(n));
        }
        let another = OF_ONE_CODE.to_string();
        problems.happened(at(59_999), notice(OF_ONE_CODE));
        assert!(!problems.has("a", &another));
        problems.happened(at(60_000), notice(OF_ONE_CODE));
        assert!(problems.has("a", &another) && !problems.has("a", "0"));
        problems.happened(at(60_001), mistake("a", "own"));
        assert!(problems.has("a", "own") && !problems.has("a", "1"));
        let stats = problems.stats();
        assert_eq!(
            (stats.used, stats.refused, stats.evicted),
            (OF_ONE_CODE, 1, 2)
        );
    }

    #[test]
    fn list_is_bounded_whatever_the_codes() {
        const CODES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let mut problems = Problems::default();
        for code in CODES {
            for n in 0..OF_ONE_CODE {
                problems.happened(at(0), mistake(code, n));
            }
        }
        let stats = problems.stats();
        assert_eq!((stats.used, stats.refused), (MOST, OF_ONE_CODE as u64));
        problems.over(at(1), "a", "0");
        problems.happened(at(1), mistake("i", 0));
        assert!(problems.has("i", "0"));
    }
}
