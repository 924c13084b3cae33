//! The end of a process: it gives each lease up with a last beat
//! ([`Action::GiveUp`](super::Action::GiveUp)) and waits a moment for the answers, because a beat
//! that is not answered may not have left the machine.
//!
//! Invariant: the process ends when all last beats are answered, and after `FAREWELL_LIMIT` in
//! any case.

use core::time::Duration;

use heapless::Vec;

use super::{Instant, PeerId, leases::MAX_LEASES};

/// How long a server may take to answer a last beat.
pub const ANSWER_LIMIT: Duration = Duration::from_millis(1000);
/// How long a process that ends waits for the answers. Before that, the network side reports a
/// server that has not answered.
const FAREWELL_LIMIT: Duration = Duration::from_millis(1200);
const _: () = assert!(ANSWER_LIMIT.as_millis() < FAREWELL_LIMIT.as_millis());

/// The last beats that are not answered yet, and the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Farewells {
    unanswered: Vec<PeerId, MAX_LEASES>,
    /// When the process ends at the latest.
    end: Option<Instant>,
}

impl Farewells {
    /// Takes note that a last beat is sent. If there are too many, the end does not wait for this
    /// one.
    pub fn sent(&mut self, server: PeerId) {
        if !self.unanswered.contains(&server) {
            let _ = self.unanswered.push(server);
        }
    }

    /// Takes note that the server has answered its last beat, or will not answer it any more.
    pub fn ended(&mut self, server: &PeerId) {
        self.unanswered.retain(|peer| peer != server);
    }

    /// Takes note that the process ends: all last beats are sent at `now`.
    pub fn begin_end(&mut self, now: Instant) {
        self.end = Some(now + FAREWELL_LIMIT);
    }

    /// When the process that ends must do so; `None` if it goes on.
    pub fn timeout(&self) -> Option<Instant> {
        match self.is_answered() {
            true => self.end.map(|_| Instant::default()),
            false => self.end,
        }
    }

    /// Whether no last beat waits for its answer.
    pub fn is_answered(&self) -> bool {
        self.unanswered.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn ends(farewells: &Farewells, now: u64) -> bool {
        farewells.timeout().is_some_and(|end| at(now) >= end)
    }

    #[test]
    fn process_ends_with_the_last_answer_and_at_the_latest_after_1200_ms() {
        let mut farewells = Farewells::default();
        farewells.sent(peer(1));
        farewells.sent(peer(2));
        farewells.begin_end(at(5_000));
        farewells.ended(&peer(2));
        farewells.ended(&peer(3));
        assert!(!ends(&farewells, 6_199));
        assert!(ends(&farewells, 6_200));
        farewells.ended(&peer(1));
        assert!(ends(&farewells, 5_000));
    }

    #[test]
    fn process_without_a_lease_ends_at_once() {
        let mut farewells = Farewells::default();
        farewells.begin_end(at(5_000));
        assert!(ends(&farewells, 5_000));
    }

    #[test]
    fn process_that_gives_up_a_lease_and_all_are_answered_goes_on() {
        let mut farewells = Farewells::default();
        assert!(!ends(&farewells, u64::MAX));
        farewells.sent(peer(1));
        assert!(!ends(&farewells, u64::MAX));
    }

    #[test]
    fn one_answer_ends_the_wait_for_a_server_that_was_given_up_twice() {
        let mut farewells = Farewells::default();
        farewells.sent(peer(1));
        farewells.sent(peer(1));
        farewells.ended(&peer(1));
        assert!(farewells.is_answered());
    }

    #[test]
    fn more_last_beats_than_leases_are_not_waited_for() {
        let mut farewells = Farewells::default();
        for n in 0..=MAX_LEASES as u8 {
            farewells.sent(peer(n));
        }
        for n in 0..MAX_LEASES as u8 {
            farewells.ended(&peer(n));
        }
        assert!(farewells.is_answered());
    }
}
