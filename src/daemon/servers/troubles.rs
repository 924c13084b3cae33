//! Servers that give this process no lease or no answer: each failure is told once, then counted.
//!
//! A server that is away is tried every few seconds without end. The first failure is told at once,
//! then rarely how many there were, and at last that it answers again.
//!
//! Invariants: at most [`MOST`] servers are remembered, the most recent ones; of one server at most
//! one line a minute is told, whatever it answers, and of the same failure fewer: the next after
//! [`FIRST_PAUSE`], then after twice as long, up to [`LONGEST_PAUSE`].

use std::time::Duration;

use crate::{
    daemon::status::Span,
    protocol::{Instant, PeerId},
};

/// Servers that are remembered: more than there are leases held or sought.
const MOST: usize = 64;
/// What is in the words for a server that may have another pre-shared key, and for one that has
/// ended a handshake.
const OTHER_KEY: &str = "is the key the same?";
const HANDSHAKE_ENDED: &str = "ended during the handshake";
/// After the first line about a failure, the time until the next about the same.
const FIRST_PAUSE: Duration = Duration::from_secs(600);
/// The longest time between two lines about the same failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// The shortest time between two lines about one server.
const SHORTEST_PAUSE: Duration = Duration::from_secs(60);

/// How a server fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// It answers, but gives no lease.
    Denied,
    /// It does not answer beats.
    Silent,
    /// It does not answer requests; no lease is asked for.
    Unasked,
}

/// What failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) struct Trouble {
    pub(super) server: PeerId,
    called: String,
    /// What the server does or does not do, after its name.
    pub(in crate::daemon) what: String,
    pub(super) manner: Manner,
    /// When the first of these failures was.
    pub(in crate::daemon) since: Instant,
    last: Instant,
    tries: u64,
    /// The line that is to be told.
    line: Option<Line>,
    /// When the last line was told, and how long the same failure is only counted after it.
    told: Instant,
    pause: Duration,
    /// The failure differs from the one of the last line.
    changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    First,
    Other,
    Still,
}

/// A failure that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) lasted: Duration,
    pub(super) tries: u64,
}

/// The failures of servers, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Troubles(Vec<Trouble>);

impl Troubles {
    /// A try failed at `now`.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        server: PeerId,
        called: String,
        what: String,
        manner: Manner,
    ) {
        log::debug!("{called} {what}");
        let known = self.0.iter().position(|known| known.server == server);
        let trouble = match known.map(|at| self.0.remove(at)) {
            Some(before) => before.again(now, called, what, manner),
            None => Trouble::new(now, server, called, what, manner),
        };
        if self.0.len() == MOST {
            self.0.remove(0);
        }
        self.0.push(trouble);
    }

    /// The server answers a request, or a beat with a lease. Returns what is over by that.
    pub(super) fn answers(
        &mut self,
        now: Instant,
        server: &PeerId,
        by_lease: bool,
    ) -> Option<Over> {
        let is_over = |known: &Trouble| match known.manner {
            Manner::Denied => false,
            Manner::Silent => by_lease,
            Manner::Unasked => true,
        };
        let mut all = self.0.iter();
        let at = all.position(|known| known.server == *server && is_over(known))?;
        let Trouble { since, tries, .. } = self.0.remove(at);
        let lasted = now - since;
        Some(Over { lasted, tries })
    }

    /// The server grants a lease, so nothing fails there.
    pub(super) fn forget(&mut self, server: &PeerId) {
        self.0.retain(|known| known.server != *server);
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Trouble> {
        self.0.iter()
    }

    /// The lines to be told at `now`. `next_try`: when this server is tried next, if that is known.
    pub(super) fn lines(
        &mut self,
        now: Instant,
        next_try: impl Fn(&PeerId) -> Option<Instant>,
    ) -> Vec<(PeerId, String)> {
        let all = self.0.iter_mut();
        let told = all.filter_map(|trouble| Some((trouble.server, trouble.tell(now, &next_try)?)));
        told.collect()
    }
}

impl Trouble {
    fn new(now: Instant, server: PeerId, called: String, what: String, manner: Manner) -> Self {
        Self {
            server,
            called,
            what,
            manner,
            since: now,
            last: now,
            tries: 1,
            line: Some(Line::First),
            told: now,
            pause: FIRST_PAUSE,
            changed: false,
        }
    }

    /// The same server has failed again.
    fn again(self, now: Instant, called: String, what: String, manner: Manner) -> Self {
        // With another key it is chance which side ends the handshake first.
        let what = match self.what.contains(OTHER_KEY) && what.contains(HANDSHAKE_ENDED) {
            true => self.what.clone(),
            false => what,
        };
        let changed = self.changed || self.what != what;
        let due = match changed {
            true => self.told + SHORTEST_PAUSE,
            false => self.told + self.pause,
        };
        let line = match changed {
            true => Line::Other,
            false => Line::Still,
        };
        let manner = match (self.manner, manner) {
            (Manner::Unasked, manner) => manner,
            (_, Manner::Unasked) => Manner::Silent,
            (_, manner) => manner,
        };
        Self {
            called,
            what,
            manner,
            last: now,
            tries: self.tries.saturating_add(1),
            line: self.line.or((now >= due).then_some(line)),
            changed,
            ..self
        }
    }

    fn tell(
        &mut self,
        now: Instant,
        next_try: impl Fn(&PeerId) -> Option<Instant>,
    ) -> Option<String> {
        let line = self.line.take()?;
        let Self { called, what, .. } = &*self;
        let counted = format!(
            "{} in {}",
            tries(self.tries),
            Span::of(self.last - self.since)
        );
        let text = match line {
            Line::First => format!("{called} {what}"),
            Line::Other => format!("{called} {what}; {counted}, before for another reason"),
            Line::Still => format!("{called} still {what}; {counted}"),
        };
        self.pause = match line {
            Line::First | Line::Other => FIRST_PAUSE,
            Line::Still => (self.pause * 2).min(LONGEST_PAUSE),
        };
        (self.told, self.changed) = (now, false);
        Some(match next_try(&self.server).map(|at| at - now) {
            None => text,
            Some(Duration::ZERO) => format!("{text}; tries again at once"),
            Some(left) => format!("{text}; next try in {} s", left.as_millis().div_ceil(1000)),
        })
    }
}

/// The number of tries, in words.
pub(in crate::daemon) fn tries(number: u64) -> String {
    match number {
        1 => "1 try".to_owned(),
        more => format!("{more} tries"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    /// The lines of a failure of this server.
    fn told(troubles: &mut Troubles, seconds: u64, n: u8, what: &str) -> Vec<String> {
        let manner = match what.starts_with("gives no") {
            true => Manner::Denied,
            false => Manner::Silent,
        };
        let called = format!("native {n}");
        troubles.failed(at(seconds), peer(n), called, what.into(), manner);
        let lines = troubles.lines(at(seconds), |_| None);
        lines.into_iter().map(|(_, line)| line).collect()
    }

    #[test]
    fn another_key_is_one_outage_whichever_side_ends_the_handshake() {
        let mut troubles = Troubles::default();
        let mut lines = Vec::new();
        let whys = [
            "cannot be reached: the connection ended during the handshake (reset)",
            "cannot be reached: handshake refused: is the key the same? it ended",
        ];
        for (second, why) in (0..540).step_by(60).zip(whys.iter().cycle()) {
            lines.extend(told(&mut troubles, second, 1, why));
        }
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    #[test]
    fn an_outage_of_25_minutes_is_told_once_and_then_counted() {
        let mut troubles = Troubles::default();
        let mut lines = Vec::new();
        for second in (0..1_500).step_by(14) {
            lines.extend(told(&mut troubles, second, 1, "cannot be reached"));
        }
        assert_eq!(
            lines,
            [
                "native 1 cannot be reached",
                "native 1 still cannot be reached; 44 tries in 10 min 2 s"
            ]
        );
        let over = troubles.answers(at(1_500), &peer(1), true).unwrap();
        assert_eq!((over.lasted.as_secs(), over.tries), (1_500, 108));
        assert_eq!(troubles.answers(at(1_501), &peer(1), true), None);
    }

    #[test]
    fn the_same_failure_is_told_again_after_a_pause_that_doubles_up_to_an_hour() {
        let mut troubles = Troubles::default();
        let mut when = Vec::new();
        for second in 0..=20_000 {
            if !told(&mut troubles, second, 1, "is away").is_empty() {
                when.push(second);
            }
        }
        assert_eq!(when, [0, 600, 1_800, 4_200, 7_800, 11_400, 15_000, 18_600]);
    }

    #[test]
    fn another_failure_is_told_a_minute_after_the_last_line_and_not_before() {
        let mut troubles = Troubles::default();
        assert_eq!(told(&mut troubles, 0, 1, "is away"), ["native 1 is away"]);
        assert!(told(&mut troubles, 59, 1, "is full").is_empty());
        assert_eq!(
            told(&mut troubles, 60, 1, "is full"),
            ["native 1 is full; 3 tries in 1 min 0 s, before for another reason"]
        );
        assert!(told(&mut troubles, 61, 1, "is full").is_empty());
        assert_eq!(told(&mut troubles, 61, 2, "is full"), ["native 2 is full"]);
    }

    #[test]
    fn a_line_says_when_the_server_is_tried_next() {
        for (next, said) in [
            (None, "native 1 is away"),
            (Some(at(100)), "native 1 is away; tries again at once"),
            (
                Some(Instant::from_millis(107_001)),
                "native 1 is away; next try in 8 s",
            ),
            (Some(at(108)), "native 1 is away; next try in 8 s"),
        ] {
            let mut troubles = Troubles::default();
            let called = "native 1".to_owned();
            troubles.failed(at(100), peer(1), called, "is away".into(), Manner::Silent);
            let lines = troubles.lines(at(100), |_| next);
            assert_eq!(lines, [(peer(1), said.to_owned())]);
        }
    }

    #[test]
    fn a_server_that_answers_without_a_lease_is_still_a_trouble() {
        let mut troubles = Troubles::default();
        told(&mut troubles, 0, 1, "gives no lease: full");
        assert_eq!(troubles.answers(at(1), &peer(1), true), None);
        assert_eq!(troubles.iter().count(), 1);
        troubles.forget(&peer(1));
        assert_eq!(troubles.iter().count(), 0);
    }

    #[test]
    fn an_answer_to_a_request_ends_the_failure_of_requests_alone() {
        let mut troubles = Troubles::default();
        let mut fails = |second, manner| {
            troubles.failed(
                at(second),
                peer(1),
                "native".into(),
                "is away".into(),
                manner,
            );
            let over = troubles.answers(at(second), &peer(1), false);
            over.map(|over| over.tries)
        };
        assert_eq!(fails(0, Manner::Unasked), Some(1));
        assert_eq!(fails(1, Manner::Silent), None);
        assert_eq!(fails(2, Manner::Unasked), None);
        assert_eq!(troubles.iter().next().unwrap().since, at(1));
        let over = troubles.answers(at(3), &peer(1), true);
        assert_eq!(over.map(|over| over.tries), Some(2));
    }

    #[test]
    fn the_server_whose_trouble_is_oldest_is_forgotten_first() {
        let mut troubles = Troubles::default();
        for n in 0..=MOST as u8 {
            assert_eq!(told(&mut troubles, 0, n, "is away").len(), 1);
        }
        assert_eq!(troubles.iter().count(), MOST);
        assert!(told(&mut troubles, 1, 1, "is away").is_empty());
        assert_eq!(told(&mut troubles, 1, 0, "is away").len(), 1);
    }
}
