//! Nodes that left or were lost, until it is known that they are alive nowhere.
//!
//! Invariant: at most [`MAX_VANISHED`] nodes; if there are more, the latest are kept and the
//! listing is incomplete.

use core::{cmp::Reverse, time::Duration};

use heapless::Vec;

use super::Row;
use crate::protocol::{Name, PeerId, Presence, order::sort};

/// Nodes that are kept at most. If there are more, the latest are kept.
pub const MAX_VANISHED: usize = 1024;

#[derive(Clone, Debug)]
struct Gone {
    peer: PeerId,
    name: Name,
    presence: Presence,
    age: Duration,
}

/// A list of them. Each entry holds the latest that any server knows of its node.
#[derive(Clone, Debug, Default)]
pub(super) struct Vanished {
    nodes: Vec<Gone, MAX_VANISHED>,
    is_sorted: bool,
}

impl Vanished {
    /// Whether all are told.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Takes note of what a server tells of a node. False: there was no room for one of the nodes.
    pub(super) fn tell(
        &mut self,
        peer: PeerId,
        name: Name,
        presence: Presence,
        age: Duration,
    ) -> bool {
        let told = Gone {
            peer,
            name,
            presence,
            age,
        };
        let known = self.nodes.iter_mut().find(|gone| gone.peer == told.peer);
        if let Some(known) = known {
            if told.age < known.age {
                *known = told;
            }
            return true;
        }
        let Err(told) = self.nodes.push(told) else {
            return true;
        };
        let oldest = self.nodes.iter_mut().max_by_key(|gone| gone.age);
        if let Some(oldest) = oldest.filter(|oldest| told.age < oldest.age) {
            *oldest = told;
        }
        false
    }

    /// Removes the one that vanished last, and shows it.
    pub(super) fn take_latest<T>(&mut self, show: impl FnOnce(&Row<'_>) -> T) -> Option<T> {
        if !self.is_sorted {
            let key = |gone: &Gone| (Reverse(gone.age), gone.peer);
            sort(&mut self.nodes, |one, other| key(one) < key(other));
            self.is_sorted = true;
        }
        let gone = self.nodes.pop()?;
        Some(show(&Row {
            peer: gone.peer,
            name: gone.name.as_str(),
            presence: gone.presence,
            age: gone.age,
            record: None,
            server: None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u16) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    fn tell(vanished: &mut Vanished, n: u16, presence: Presence, secs: u64) -> bool {
        vanished.tell(peer(n), Name::new(), presence, Duration::from_secs(secs))
    }

    fn all(mut vanished: Vanished) -> std::vec::Vec<(PeerId, Presence)> {
        core::iter::from_fn(|| vanished.take_latest(|row| (row.peer, row.presence))).collect()
    }

    #[test]
    fn the_last_that_any_server_knows_counts() {
        let mut vanished = Vanished::default();
        tell(&mut vanished, 1, Presence::Left, 5);
        tell(&mut vanished, 1, Presence::Lost, 4);
        tell(&mut vanished, 1, Presence::Left, 4);
        assert_eq!(all(vanished), [(peer(1), Presence::Lost)]);
    }

    #[test]
    fn latest_come_first() {
        let mut vanished = Vanished::default();
        for (n, secs) in [(1, 9), (2, 3), (3, 5)] {
            tell(&mut vanished, n, Presence::Lost, secs);
        }
        let order: std::vec::Vec<_> = all(vanished).into_iter().map(|(peer, _)| peer).collect();
        assert_eq!(order, [2, 3, 1].map(peer));
    }

    #[test]
    fn full_list_keeps_the_latest_and_says_so() {
        let mut vanished = Vanished::default();
        let most = MAX_VANISHED as u16;
        for n in 0..most {
            assert!(tell(&mut vanished, n, Presence::Lost, 100 + u64::from(n)));
        }
        assert!(!tell(&mut vanished, most, Presence::Lost, 5000));
        assert!(tell(&mut vanished, 3, Presence::Lost, 1), "it is known");
        assert!(!tell(&mut vanished, most + 1, Presence::Lost, 2));
        let all = all(vanished);
        assert_eq!(all.len(), MAX_VANISHED);
        assert_eq!(all[..2], [3, most + 1].map(|n| (peer(n), Presence::Lost)));
        assert!(all.iter().all(|(gone, _)| *gone != peer(most - 1)));
    }
}
