//! Handshakes that failed for a reason that only the operator can mend.
//!
//! The transport learns it in the task of a connection, below all types of the swarm. So it puts it
//! into this list, which the swarm's loop empties.
//!
//! Invariant: at most [`MOST`] wait; further ones are dropped.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use libp2p::{Multiaddr, PeerId};

/// Refusals that wait for the loop at most.
const MOST: usize = 64;

/// A handshake that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The address that was dialled, or from which the peer came.
    pub(crate) addr: Multiaddr,
    /// This process dialled.
    pub(crate) is_dialled: bool,
    pub(crate) why: Why,
}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The peer has another pre-shared key.
    OtherKey,
    /// The peer has no key, and this process has one.
    NoKey,
    /// The peer has a key, and this process has none.
    HasKey,
    /// It is no libp2p at all: a web browser, a port scanner.
    OtherProtocol,
    /// Another peer than the dialled one answers.
    OtherPeer { meant: PeerId, found: PeerId },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::OtherKey => "the peer has another pre-shared key",
            Self::NoKey => "the peer has no pre-shared key, and this process has one",
            Self::HasKey => "the peer has a pre-shared key, and this process has none",
            Self::OtherProtocol => return f.write_str("the peer speaks another protocol"),
            Self::OtherPeer { found, .. } => return write!(f, "another peer answers: {found}"),
        };
        write!(f, "handshake refused: is the key the same? {what}")
    }
}

/// The list. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals(Arc<Mutex<Vec<Refusal>>>);

impl Refusals {
    /// Adds one, if there is room.
    pub(super) fn put(&self, refusal: Refusal) {
        // No code panics while it holds the lock.
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() < MOST {
            list.push(refusal);
        }
    }

    /// Takes the one that was added last.
    pub(super) fn take(&self) -> Option<Refusal> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = list.pop();
        if list.is_empty() {
            *list = Vec::new();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_beyond_the_bound_are_dropped() {
        let refusals = Refusals::default();
        for _ in 0..=MOST {
            refusals.put(Refusal {
                addr: Multiaddr::empty(),
                is_dialled: false,
                why: Why::OtherKey,
            });
        }
        let taken = std::iter::from_fn(|| refusals.take());
        assert_eq!(taken.count(), MOST);
    }
}
