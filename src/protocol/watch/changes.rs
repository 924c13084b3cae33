//! The nodes of a directory that have changed lately.
//!
//! Invariant: the ring holds the last [`MAX_KEPT_CHANGES`] changes, each with its number. A reader
//! that knows the number of the last change it was notified of knows whether it has missed one.

use crate::protocol::{
    PeerId,
    codec::record::{Kind, Record, contents},
};

/// A watcher that leaves what it was sent unread during more changes begins again (PROTOCOL.md,
/// section 5).
pub(crate) const MAX_CHANGES: usize = 64;
/// Changes that are held. Many nodes may go in one step, as when a GC finds that a site was cut
/// off: a watcher that has read everything before is notified of each.
const MAX_KEPT_CHANGES: usize = 512;

/// What happened to a node in a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change {
    /// It is listed now.
    #[default]
    Present,
    /// It is listed with another name, other tags, services or addresses.
    Changed,
    /// It is no longer listed.
    Gone,
}

/// The last changes of a directory, as they are read; a directory has them in a [`Ring`].
#[derive(Clone, Debug, PartialEq)]
pub struct Changes<R: ?Sized = [(PeerId, Change)]> {
    /// The number of the next change.
    next: u64,
    ring: R,
}

/// Room for all that are held.
pub type Ring = [(PeerId, Change); MAX_KEPT_CHANGES];

impl Changes<[(PeerId, Change); 0]> {
    /// The changes where there is no directory.
    pub const NONE: &'static Changes = &Changes { next: 0, ring: [] };
}

impl Changes<Ring> {
    /// No change. All zeroes.
    pub const fn new() -> Self {
        Self {
            next: 0,
            ring: [(PeerId::from_bytes([0; 32]), Change::Present); MAX_KEPT_CHANGES],
        }
    }

    /// Takes note of a change.
    pub fn happened(&mut self, peer: &PeerId, change: Change) {
        if let Some(place) = self.ring.get_mut(place_of(self.next)) {
            *place = (*peer, change);
        }
        self.next += 1;
    }
}

impl<R: AsRef<[(PeerId, Change)]> + ?Sized> Changes<R> {
    /// The number of the next change.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The change with this number. `None` if it has not happened yet, or is forgotten.
    pub fn at(&self, number: u64) -> Option<&(PeerId, Change)> {
        let is_held = number < self.next && !self.has_lost(number);
        let ring = self.ring.as_ref();
        ring.get(place_of(number)).filter(|_| is_held)
    }

    /// Whether the change with this number is forgotten.
    pub(crate) fn has_lost(&self, number: u64) -> bool {
        self.next.saturating_sub(number) > MAX_KEPT_CHANGES as u64
    }

    /// Whether a later change of the same peer makes this one outdated.
    pub(crate) fn is_outdated(&self, number: u64) -> bool {
        let peer = self.peer_of(number);
        (number + 1..self.next).any(|later| self.peer_of(later) == peer)
    }

    /// Whether an earlier change of the same peer is held.
    pub(crate) fn is_repeated(&self, number: u64) -> bool {
        let peer = self.peer_of(number);
        let first = self.next.saturating_sub(MAX_KEPT_CHANGES as u64);
        (first..number).any(|earlier| self.peer_of(earlier) == peer)
    }

    fn peer_of(&self, number: u64) -> Option<&PeerId> {
        self.at(number).map(|(peer, _)| peer)
    }
}

impl Default for Changes<Ring> {
    fn default() -> Self {
        Self::new()
    }
}

/// A fingerprint of the node's name, tags, services, addresses and version: it changes when one of
/// them does. A new signature of the same record does not change it.
pub fn fingerprint(record: &Record<'_>) -> u64 {
    let tags = record.tags.iter().flat_map(|(key, value)| [*key, *value]);
    let texts = [record.name, record.version].into_iter().chain(tags);
    let texts = texts.map(str::as_bytes).fold(SEED, hashed);
    let services = record.services.iter().fold(texts, |hash, service| {
        let hash = hashed(hash, service.name.as_bytes());
        let [high, low] = service.port.to_be_bytes();
        hashed(hash, &[service.transport as u8, high, low])
    });
    let services = hashed(services, record.link_services.bytes());
    record
        .addrs
        .iter()
        .fold(services, |hash, addr| hashed(hash, addr))
}

/// The same of the record in an envelope that was verified before.
pub(crate) fn fingerprint_of(envelope: &[u8]) -> Option<u64> {
    contents(Kind::Node, envelope).map(|record| fingerprint(&record))
}

/// FNV-1a, 64 bits. A node that makes two records with the same fingerprint hides only a change of
/// its own.
const SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// Adds bytes, and their end.
fn hashed(hash: u64, bytes: &[u8]) -> u64 {
    let length = (bytes.len() as u64).to_be_bytes();
    bytes.iter().chain(&length).fold(hash, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn place_of(number: u64) -> usize {
    (number % MAX_KEPT_CHANGES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    #[test]
    fn the_512th_change_back_is_held_and_the_one_before_forgotten() {
        let mut changes = Changes::new();
        assert_eq!(changes.at(0), None);
        changes.happened(&peer(0), Change::Present);
        for _ in 1..512 {
            changes.happened(&peer(1), Change::Present);
        }
        assert!(!changes.has_lost(0));
        assert_eq!(changes.at(0), Some(&(peer(0), Change::Present)));
        changes.happened(&peer(2), Change::Gone);
        assert!(changes.has_lost(0) && !changes.has_lost(1));
        assert_eq!(changes.at(0), None);
        assert_eq!(changes.at(512), Some(&(peer(2), Change::Gone)));
        assert_eq!(changes.at(513), None);
    }

    #[test]
    fn a_change_is_outdated_by_a_later_one_of_the_same_peer_only() {
        let mut changes = Changes::new();
        changes.happened(&peer(1), Change::Present);
        changes.happened(&peer(2), Change::Present);
        changes.happened(&peer(1), Change::Gone);
        let outdated = [0, 1, 2].map(|number| changes.is_outdated(number));
        assert_eq!(outdated, [true, false, false]);
    }
}
