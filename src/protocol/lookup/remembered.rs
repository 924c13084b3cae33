//! The peers that earlier finds of the operator have returned, so that a name that suddenly has
//! many claimants still leads to the same peer.
//!
//! Invariants: at most [`MAX_REMEMBERED`] names, each with the peer that came first; the one that
//! was found least recently is evicted. A name that is remembered keeps its peer until a complete
//! find does not return it.

use heapless::Vec;

use super::{Outcome, Question};
use crate::protocol::{Name, PeerId};

/// Names that are remembered at most.
const MAX_REMEMBERED: usize = 64;

/// The names, in the order in which they were last found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Remembered(Vec<(Name, PeerId), MAX_REMEMBERED>);

impl Remembered {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// The peer that an earlier find of this name has returned.
    pub(super) fn of(&self, question: &Question) -> Option<PeerId> {
        let Question::Name(name) = question else {
            return None;
        };
        let mut all = self.0.iter();
        all.find(|(known, _)| known == name).map(|(_, peer)| *peer)
    }

    /// Takes note of what a find has returned.
    pub(super) fn note(&mut self, outcome: &Outcome<'_>) {
        let (Question::Name(name), Some(first)) = (outcome.question, outcome.records.first())
        else {
            return;
        };
        let known = self.of(outcome.question);
        let is_back = |peer: &PeerId| outcome.records.iter().any(|found| found.peer() == peer);
        let stays = |peer: &PeerId| is_back(peer) || !outcome.is_complete;
        let peer = known.filter(stays).unwrap_or(*first.peer());
        self.0.retain(|(known, _)| known != name);
        if self.0.is_full() {
            self.0.remove(0);
        }
        // There is room now.
        let _ = self.0.push((name.clone(), peer));
    }
}
