//! Natives that deal with each other: fellows and guests (PROTOCOL.md, "Which peer may say what").
//!
//! A fellow is a native that is configured here: this native beats to it, and the ids that it
//! reports count. Any other native is a guest: it is accepted, but the ids that it reports count
//! least.
//!
//! Invariants: guests hold at most half of the leases that are reserved for natives, so that every
//! fellow finds room; all ids with a live entry are reported in turn to each native, in beats if it
//! grants a lease to this one and in acks if this one grants it a lease; each native has its own
//! turn.

use super::*;

/// Natives with a turn that is remembered: those that this native beats to, and those that beat to
/// it.
const MAX_NOTIFIED: usize = 2 * MAX_LEASES;

/// For each native, the last id that was reported to it. The native with the least recent report is
/// first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notified(Vec<(PeerId, PeerId), MAX_NOTIFIED>);

impl Notified {
    /// Nothing has been reported to any native.
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    fn up_to(&self, native: &PeerId) -> PeerId {
        let mut all = self.0.iter();
        all.find(|(peer, _)| peer == native)
            .map_or(PeerId::from_bytes([0; 32]), |(_, up_to)| *up_to)
    }

    fn note(&mut self, native: &PeerId, up_to: PeerId) {
        if let Some(at) = self.0.iter().position(|(peer, _)| peer == native) {
            self.0.remove(at);
        } else if self.0.is_full() {
            self.0.remove(0);
        }
        // There is room now.
        let _ = self.0.push((*native, up_to));
    }
}

impl<const I: usize, const K: usize, const R: usize, const S: usize> Native<I, K, R, S> {
    /// Leases for natives: the rest after the indexers, the nodes taken in, and as many released
    /// nodes.
    pub const ROOM_FOR_NATIVES: usize = {
        // With fewer leases, an entry of `live_indexers` or `responsible_peers` would have none.
        assert!(S >= I + 2 * R, "fewer leases than entries that need one");
        S - (I + 2 * R)
    };
    /// Leases that guests may hold: half of those for natives.
    pub const MAX_GUESTS: usize = Self::ROOM_FOR_NATIVES / 2;

    /// A beat of another native.
    pub(super) fn native_beat(
        &mut self,
        now: Instant,
        sender: &Sender<'_>,
        beat: &Beat<SignedRecord<'_>>,
    ) -> BeatOutcome<'_> {
        let from = sender.peer;
        self.make_room(now, from);
        let is_fellow = self.is_fellow(from);
        let is_new_guest = !is_fellow && sender.role != Some(Role::Native);
        if is_new_guest && self.guests().count() >= Self::MAX_GUESTS {
            self.guests_refused += 1;
            // A node or an indexer that wants to be a guest has given its former role up.
            self.stream_records.remove(now, from, EndCause::NewRole);
            return Ack::full(
                "no room for a guest: start this native with yours as --native to make it a fellow",
            )
            .into();
        }
        let memory = || match is_fellow {
            true => Memory::Configured,
            false => self.directory.memory_of(from),
        };
        if let Some(ack) = self.stream_records.no_room_for(now, sender, memory) {
            return ack.into();
        }
        let lease = clamp_lease(beat.lease, self.config.terms.lease);
        let arrival = self.renew(now, sender, Role::Native, lease);
        for peer in beat.known.iter().filter(|peer| **peer != self.own) {
            if is_fellow {
                self.known_peer_ids.heard_of(now, peer);
            } else {
                self.known_peer_ids.heard_of_by_guest(now, from, peer);
            }
        }
        self.named = self.window(now, from);
        let known = &self.named;
        let ack = Ack {
            known,
            ..Ack::accepted(lease)
        };
        BeatOutcome {
            arrival,
            ..ack.into()
        }
    }

    /// Takes the ids that a fellow native reports in an ack.
    pub(super) fn heed_fellow(&mut self, now: Instant, server: &PeerId, ack: &Ack<'_>) {
        if ack.code == AckCode::Accepted && self.is_fellow(server) {
            for peer in ack.known.iter().filter(|peer| **peer != self.own) {
                self.known_peer_ids.heard_of(now, peer);
            }
        }
    }

    /// Whether the native is configured here.
    pub(super) fn is_fellow(&self, native: &PeerId) -> bool {
        self.fellows.contains(native)
    }

    /// Begins a lease with a native that is configured here, or updates its addresses. The first
    /// [`MAX_NATIVES`] are kept.
    pub(super) fn learn_fellow(&mut self, now: Instant, native: &PeerId, addrs: &Addrs) {
        if *native != self.own && (self.is_fellow(native) || self.fellows.push(*native).is_ok()) {
            self.leases.add(now, *native, Role::Native, addrs);
        }
    }

    /// The native is not configured here any more: its lease is given up, and what it reports
    /// counts as that of a guest.
    pub(super) fn forget_fellow(&mut self, native: &PeerId) {
        self.fellows.retain(|fellow| fellow != native);
        self.leases.give_up(native);
    }

    /// The leases of guests.
    pub(super) fn guests(&self) -> impl Iterator<Item = &StreamRecord> {
        self.stream_records
            .iter()
            .filter(|record| record.role == Role::Native && !self.is_fellow(&record.peer))
    }

    /// The statistics of the guests for `status`.
    pub(super) fn guests_stats(&self) -> TableStats {
        TableStats {
            name: "guests",
            used: self.guests().count(),
            capacity: Self::MAX_GUESTS,
            refused: self.guests_refused,
            evicted: 0,
        }
    }

    /// The next ids to report to this native, at most 16. All ids with a live entry take turns,
    /// separately for each native.
    pub(super) fn window(&mut self, now: Instant, native: &PeerId) -> PeerList {
        let window: PeerList = self
            .known_peer_ids
            .iter_after(&self.notified.up_to(native))
            .filter(|peer| self.live_indexers.find(now, peer).is_some())
            .take(MAX_LIST)
            .copied()
            .collect();
        if let Some(last) = window.last() {
            self.notified.note(native, *last);
        }
        window
    }
}
