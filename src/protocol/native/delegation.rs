//! Self-delegation: `responsible_peers`, the nodes that this native has taken in because no indexer
//! was alive.
//!
//! A node is taken in by its first beat. A node that was promised this in the answer to a request
//! holds a ticket: it is taken in even if an indexer has become reachable meanwhile, or is
//! reachable for this native but not for the node.
//!
//! Invariant: a ticket reserves a place. Nodes taken in and valid tickets are at most `R` together,
//! so that no node is promised a place and then finds the table full. The exception is a node that
//! recently let a ticket expire: it probably holds a lease elsewhere, so its next ticket reserves
//! no place that a node without a lease could need.

use core::time::Duration;

use heapless::{Deque, Vec};

use crate::protocol::{
    Addrs, Instant, PeerId, Reader, Shortage,
    table::{Keyed, Table, TableStats},
};

/// How long a ticket is valid: dialling, handshake and the first beat have 5 s.
const TICKET_TTL: Duration = Duration::from_secs(10);
/// How long a node does not retry an indexer that failed, and is not sent to one.
const REST: Duration = Duration::from_secs(10);
/// Tickets at most. If there are as many, no further node is promised a place.
const MAX_TICKETS: usize = 256;
/// How long an expired ticket is remembered, if there is room: two rounds of a node that looks for
/// a second lease.
const UNCLAIMED_TTL: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ticket {
    holder: PeerId,
    /// Until when the ticket is valid.
    until: Instant,
    /// Until when a place is reserved for it.
    kept_until: Instant,
    shortage: Shortage,
}

impl Ticket {
    fn is_good(&self, now: Instant) -> bool {
        now <= self.until
    }

    fn is_kept(&self, now: Instant) -> bool {
        now <= self.kept_until
    }
}

/// One node that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Responsible {
    /// The node.
    pub peer: PeerId,
    /// When it was taken in.
    pub since: Instant,
    /// Why it was taken in.
    pub shortage: Shortage,
    /// The addresses that it can use, as far as is known.
    pub reader: Reader,
}

impl Responsible {
    /// Whether the node may be sent to an indexer at these addresses. A stranded node has already
    /// failed with addresses that it may be able to dial, so it is sent only to addresses that
    /// surely fit it.
    pub(crate) fn may_go_to(&self, addrs: &Addrs) -> bool {
        match self.is_stranded() {
            true => self.reader.fits(addrs),
            false => self.reader.may_use_one_of(addrs),
        }
    }

    /// Whether the node may be released: after every offer failed it is kept for 10 s, because it
    /// does not retry those indexers before (ARCHITECTURE.md, "Offload").
    pub(crate) fn may_go(&self, now: Instant) -> bool {
        !self.is_stranded() || now - self.since >= REST
    }

    /// Whether it reported that every offer failed.
    pub(crate) fn is_stranded(&self) -> bool {
        self.shortage == Shortage::OffersFailed
    }
}

impl Keyed for Responsible {
    fn peer(&self) -> &PeerId {
        &self.peer
    }
}

/// A node to release, and the indexer that has a place for it.
pub(super) type Release = (PeerId, PeerId);

/// The nodes taken in, at most `R`.
#[derive(Clone, Debug, Default)]
pub(super) struct Delegation<const R: usize> {
    responsible: Table<Responsible, R>,
    tickets: Deque<Ticket, MAX_TICKETS>,
    releases: Vec<Release, R>,
}

impl<const R: usize> Delegation<R> {
    /// No node is taken in.
    pub(super) const fn new() -> Self {
        Self {
            responsible: Table::new(),
            tickets: Deque::new(),
            releases: Vec::new(),
        }
    }

    /// Whether the node was taken in.
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.responsible.contains(peer)
    }

    /// Whether there is no node to hand over.
    pub(super) fn is_empty(&self) -> bool {
        self.responsible.is_empty()
    }

    /// Whether the node can be taken in or be promised this: it is in already, a place is reserved
    /// for it, or there is a place that is not reserved.
    pub(super) fn has_room(&self, now: Instant, peer: &PeerId) -> bool {
        let good = self.tickets.iter().filter(|ticket| ticket.is_good(now));
        let (all, kept) = good.fold((0, 0), |(all, kept), ticket| {
            (all + 1, kept + usize::from(ticket.is_kept(now)))
        });
        self.contains(peer)
            || self.ticket(peer).is_some_and(|ticket| ticket.is_kept(now))
            || (self.responsible.len() + kept < R && all < MAX_TICKETS)
    }

    /// Counts a node that was refused for lack of room.
    pub(super) fn count_refusal(&mut self) {
        self.responsible.count_refusal();
    }

    /// Takes in a node that is not in, for the reason of its ticket, which is used up, or for
    /// `shortage` if it has none. Returns the reason.
    pub(super) fn take_in(&mut self, now: Instant, peer: &PeerId, shortage: Shortage) -> Shortage {
        let ticket = self.ticket(peer).filter(|ticket| ticket.is_good(now));
        let shortage = ticket.map_or(shortage, |ticket| ticket.shortage);
        self.tickets.retain(|ticket| ticket.holder != *peer);
        self.releases.retain(|(released, _)| released != peer);
        // The caller asked `has_room`.
        let _ = self.responsible.insert(Responsible {
            peer: *peer,
            since: now,
            shortage,
            reader: Reader::default(),
        });
        shortage
    }

    /// Adds knowledge of the addresses that the node can use, if it was taken in.
    pub(super) fn note_reader(&mut self, peer: &PeerId, reader: Reader) {
        if let Some(node) = self.responsible.find_mut(peer) {
            node.reader = reader;
        }
    }

    /// Gives the node a ticket, because it was promised that it will be taken in. The caller has
    /// asked [`Delegation::has_room`]. A node that reported that every offer failed holds no lease.
    pub(super) fn give_ticket(&mut self, now: Instant, peer: &PeerId, shortage: Shortage) {
        if self.contains(peer) {
            return;
        }
        self.tickets
            .retain(|ticket| now <= ticket.until + UNCLAIMED_TTL);
        let until = now + TICKET_TTL;
        let kept_until = match self.ticket(peer) {
            Some(unclaimed) if shortage != Shortage::OffersFailed => unclaimed.kept_until,
            _ => until,
        };
        self.tickets.retain(|ticket| ticket.holder != *peer);
        if self.tickets.is_full() {
            // The first ticket is the oldest. It has expired, unless the caller did not ask
            // `has_room`.
            self.tickets.pop_front();
        }
        // There is room now.
        let _ = self.tickets.push_back(Ticket {
            holder: *peer,
            until,
            kept_until,
            shortage,
        });
    }

    /// Whether the node holds a valid ticket.
    pub(super) fn has_ticket(&self, now: Instant, peer: &PeerId) -> bool {
        self.ticket(peer).is_some_and(|ticket| ticket.is_good(now))
    }

    fn ticket(&self, peer: &PeerId) -> Option<&Ticket> {
        self.tickets.iter().find(|ticket| ticket.holder == *peer)
    }

    /// Empties `responsible_peers`. Nodes for which `place` returns no indexer are taken in again
    /// in the same step.
    pub(super) fn hand_over(&mut self, mut place: impl FnMut(&Responsible) -> Option<PeerId>) {
        self.responsible.retain(|node| match place(node) {
            // A node is never both in `releases` and in `responsible_peers`, so there is room.
            Some(indexer) => self.releases.push((node.peer, indexer)).is_err(),
            None => true,
        });
    }

    /// The next node to release, and its indexer.
    pub(super) fn pop_release(&mut self) -> Option<Release> {
        self.releases.pop()
    }

    /// One node of each kind; nodes of a kind may be sent to the same indexers.
    pub(super) fn kinds(&self) -> Vec<&Responsible, { 2 * Reader::KINDS }> {
        let mut kinds: Vec<&Responsible, { 2 * Reader::KINDS }> = Vec::new();
        for node in self.responsible.iter() {
            let kind = |other: &Responsible| (other.reader, other.is_stranded());
            if !kinds.iter().any(|other| kind(other) == kind(node)) {
                // The list has room for each kind.
                let _ = kinds.push(node);
            }
        }
        kinds
    }

    /// How many nodes are taken in.
    pub(super) fn len(&self) -> usize {
        self.responsible.len()
    }

    /// Removes a node because its lease is over. A ticket of the node stays, because it is for a
    /// future lease.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.responsible.remove(peer);
        self.releases.retain(|(released, _)| released != peer);
    }

    /// The nodes taken in.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Responsible> {
        self.responsible.iter()
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self) -> TableStats {
        self.responsible.stats("responsible_peers")
    }
}

impl<const R: usize> PartialEq for Delegation<R> {
    fn eq(&self, other: &Self) -> bool {
        self.responsible == other.responsible
            && self.tickets.iter().eq(other.tickets.iter())
            && self.releases == other.releases
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

    fn why(stranded: bool) -> Shortage {
        match stranded {
            true => Shortage::OffersFailed,
            false => Shortage::NoneLive,
        }
    }

    #[test]
    fn a_ticket_is_good_for_ten_seconds_and_for_one_entry() {
        let mut delegation = Delegation::<2>::new();
        delegation.give_ticket(at(0), &peer(1), Shortage::NoneLive);
        assert!(delegation.has_ticket(at(10_000), &peer(1)));
        assert!(!delegation.has_ticket(at(10_001), &peer(1)));
        assert!(!delegation.has_ticket(at(0), &peer(2)));
        delegation.take_in(at(5), &peer(1), Shortage::NoneLive);
        assert!(!delegation.has_ticket(at(6), &peer(1)));
    }

    #[test]
    fn nodes_without_a_place_stay_with_the_time_they_came() {
        let mut delegation = Delegation::<4>::new();
        for n in 1..=3 {
            delegation.take_in(at(u64::from(n)), &peer(n), Shortage::NoneLive);
        }
        delegation.hand_over(|node| (node.peer != peer(2)).then_some(peer(9)));
        let left: std::vec::Vec<_> = delegation.iter().cloned().collect();
        assert_eq!(
            left,
            [Responsible {
                peer: peer(2),
                since: at(2),
                shortage: Shortage::NoneLive,
                reader: Reader::default(),
            }]
        );
        let mut told: std::vec::Vec<_> = std::iter::from_fn(|| delegation.pop_release()).collect();
        told.sort();
        assert_eq!(told, [(peer(1), peer(9)), (peer(3), peer(9))]);
    }

    #[test]
    fn a_node_at_which_every_offer_failed_is_left_alone_for_ten_seconds() {
        for (stranded, now, may_go) in
            [(true, 9_999, false), (true, 10_000, true), (false, 0, true)]
        {
            let mut delegation = Delegation::<2>::new();
            delegation.give_ticket(at(0), &peer(1), why(stranded));
            delegation.take_in(at(0), &peer(1), Shortage::NoneLive);
            let node = delegation.iter().next().unwrap();
            assert_eq!(node.may_go(at(now)), may_go);
        }
    }

    #[test]
    fn capacity_is_the_bound_and_an_entry_counts_once() {
        let mut delegation = Delegation::<1>::new();
        delegation.take_in(at(0), &peer(1), Shortage::NoneLive);
        assert!(delegation.has_room(at(0), &peer(1)));
        assert!(!delegation.has_room(at(0), &peer(2)));
        assert_eq!(delegation.iter().next().unwrap().since, at(0));
    }

    #[test]
    fn a_ticket_reserves_its_place_for_as_long_as_it_is_good() {
        let mut delegation = Delegation::<2>::new();
        delegation.take_in(at(0), &peer(1), Shortage::NoneLive);
        delegation.give_ticket(at(0), &peer(2), Shortage::NoneLive);
        assert!(delegation.has_room(at(0), &peer(2)), "it is its own");
        assert!(!delegation.has_room(at(10_000), &peer(3)));
        assert!(delegation.has_room(at(10_001), &peer(3)));
        delegation.give_ticket(at(5_000), &peer(2), Shortage::NoneLive);
        assert!(delegation.has_ticket(at(15_000), &peer(2)), "renewed");
        assert!(
            delegation.has_room(at(10_001), &peer(3)),
            "but a place is kept once"
        );
        delegation.take_in(at(6_000), &peer(2), Shortage::NoneLive);
        assert!(!delegation.has_room(at(6_000), &peer(3)), "taken in");
        delegation.forget(&peer(2));
        assert!(delegation.has_room(at(6_000), &peer(3)));
    }

    #[test]
    fn no_more_tickets_are_given_than_are_remembered() {
        let id = |n: u16| {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&n.to_be_bytes());
            PeerId::from_bytes(key)
        };
        let mut delegation = Delegation::<1000>::new();
        let told = (0..1000).take_while(|n| {
            let has_room = delegation.has_room(at(0), &id(*n));
            if has_room {
                delegation.give_ticket(at(0), &id(*n), Shortage::NoneLive);
            }
            has_room
        });
        assert_eq!(told.count(), MAX_TICKETS);
        assert!((0..256).all(|n| delegation.has_ticket(at(0), &id(n))));
    }

    #[test]
    fn a_node_that_let_a_ticket_go_keeps_no_place_from_others_unless_it_is_stranded() {
        for (again, stranded, keeps) in [
            (5_000, false, false),
            (10_001, false, false),
            (10_001, true, true),
            (130_000, false, false),
            (130_001, false, true),
        ] {
            let mut delegation = Delegation::<1>::new();
            delegation.give_ticket(at(0), &peer(1), Shortage::NoneLive);
            // A ticket for another node, so that expired ones are removed.
            delegation.give_ticket(at(again), &peer(9), Shortage::NoneLive);
            delegation.give_ticket(at(again), &peer(1), why(stranded));
            delegation.tickets.retain(|ticket| ticket.holder != peer(9));
            assert!(delegation.has_ticket(at(again), &peer(1)));
            let kept = !delegation.has_room(at(again + 9_000), &peer(2));
            assert_eq!(kept, keeps, "again at {again}, stranded: {stranded}");
        }
    }
}
