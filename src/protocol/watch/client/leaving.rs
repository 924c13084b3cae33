//! A node that leaves says good-bye to each of its servers, but not to one that has died.
//!
//! So when a server says that a node has left, servers that are silent or have ended do not hold it
//! any longer: their word is older. Without this such a node would be gone only when these servers
//! are given up, and then as lost. If it has given up this one lease and is alive, it is present
//! again as soon as one of them is heard.
//!
//! A server that was heard at that moment, and becomes silent later, still holds it: a node often
//! gives one lease up and keeps another, and that server would have been told of a good-bye.

use super::{Entry, LINGER, Watch};
use crate::protocol::{Instant, Presence};

impl<const K: usize> Watch<K> {
    /// The servers that do not hold a node which is gone like this from another one.
    pub(super) fn not_told(&self, how: Presence) -> u64 {
        match how {
            Presence::Left => self.unheard_bits(),
            Presence::Alive | Presence::Lost => 0,
        }
    }

    /// The servers that may hold such a node: they are not heard now.
    pub(super) fn in_doubt(&self, how: Presence) -> u64 {
        match how {
            Presence::Left => self.bits_of(|server| server.blind.is_some()),
            Presence::Alive | Presence::Lost => 0,
        }
    }

    /// Looks whether servers that hold nodes which have left are not heard any more.
    pub(super) fn let_leave(&mut self, now: Instant) {
        let unheard = self.unheard_bits();
        if core::mem::replace(&mut self.unheard, unheard) & unheard == unheard {
            return;
        }
        let is_meant = |entry: &&mut Entry| entry.holders & entry.doubted & unheard != 0;
        for entry in self.known.iter_mut().filter(is_meant) {
            let servers = entry.doubted & unheard;
            if entry.let_go(now, servers, Presence::Left, &mut self.charged) {
                self.gone_from = self.gone_from.min(now + LINGER);
            }
        }
    }

    /// The servers that are silent, or have ended.
    fn unheard_bits(&self) -> u64 {
        self.bits_of(|server| server.is_silent || server.is_over)
    }
}
