//! Self-delegation: `responsible_peers`, the nodes that this native has taken in because no indexer
//! was alive.
//!
//! A node is taken in by its first beat. A node that was told so in answer to a request holds a
//! ticket: it is taken in even if an indexer became reachable in the meantime, or is reachable for
//! us but not for the node.
//!
//! Invariant: a ticket is a place. Nodes taken in and tickets that are still good are `R` together
//! at most, so that no node is told that it will be taken in and then finds the table full. The
//! exception is a node that lately let a ticket go: it holds a lease elsewhere, as far as can be
//! seen from here, and its next ticket keeps no place from a node that holds none.

use core::time::Duration;

use heapless::{Deque, Vec};

use crate::protocol::{
    Addrs, Instant, PeerId, Reader,
    table::{Keyed, Table, TableStats},
};

/// How long a ticket is good: dialling, handshake and the first beat have 5 s.
const TICKET_TTL: Duration = Duration::from_secs(10);
/// How long a node leaves alone what failed at it, and is left alone.
const REST: Duration = Duration::from_secs(10);
/// Tickets at most; past it no more nodes are told that they will be taken in.
const MAX_TICKETS: usize = 256;
/// How long a ticket that was let go is remembered, if there is room: two rounds of a node that
/// looks for a second lease.
const UNCLAIMED_TTL: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ticket {
    holder: PeerId,
    /// Until when it is good.
    until: Instant,
    /// Until when a place is kept for it.
    kept_until: Instant,
    /// The holder said that every offer failed.
    stranded: bool,
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
    /// Why: it said that every offer failed; else no indexer was reachable.
    pub stranded: bool,
    /// Which addresses are of use to it, as far as is known.
    pub reader: Reader,
}

impl Responsible {
    /// Whether the node may be sent to an indexer at these addresses. One at which every offer
    /// failed was told, as far as it goes, of those that it may be able to dial: it is sent only
    /// where it surely can.
    pub fn may_go_to(&self, addrs: &Addrs) -> bool {
        match self.stranded {
            true => self.reader.fits(addrs),
            false => self.reader.may_use_one_of(addrs),
        }
    }

    /// Whether the node may be sent away: one at which every offer failed rests for 10 s, like what
    /// failed at it (ARCHITECTURE.md, "Offload").
    pub fn may_go(&self, now: Instant) -> bool {
        !self.stranded || now - self.since >= REST
    }
}

impl Keyed for Responsible {
    fn peer(&self) -> &PeerId {
        &self.peer
    }
}

/// A node that is to be told to go, and the indexer that has a place for it.
pub type Release = (PeerId, PeerId);

/// At most `R` nodes taken in.
#[derive(Clone, Debug, Default)]
pub struct Delegation<const R: usize> {
    responsible: Table<Responsible, R>,
    tickets: Deque<Ticket, MAX_TICKETS>,
    releases: Vec<Release, R>,
}

impl<const R: usize> Delegation<R> {
    /// Nobody was taken in.
    pub const fn new() -> Self {
        Self {
            responsible: Table::new(),
            tickets: Deque::new(),
            releases: Vec::new(),
        }
    }

    /// Whether the node was taken in.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.responsible.contains(peer)
    }

    /// The node's entry.
    pub fn find(&self, peer: &PeerId) -> Option<&Responsible> {
        self.responsible.find(peer)
    }

    /// Whether there is nobody to hand over.
    pub fn is_empty(&self) -> bool {
        self.responsible.is_empty()
    }

    /// Whether the node can be taken in, or be told so: it is in, a place is kept for it, or there
    /// is one that is kept for no other.
    pub fn has_room(&self, now: Instant, peer: &PeerId) -> bool {
        let good = self.tickets.iter().filter(|ticket| ticket.is_good(now));
        let (all, kept) = good.fold((0, 0), |(all, kept), ticket| {
            (all + 1, kept + usize::from(ticket.is_kept(now)))
        });
        self.contains(peer)
            || self.ticket(peer).is_some_and(|ticket| ticket.is_kept(now))
            || (self.responsible.len() + kept < R && all < MAX_TICKETS)
    }

    /// Counts a node that found no room.
    pub fn count_refusal(&mut self) {
        self.responsible.count_refusal();
    }

    /// Takes the node in; its ticket is used up.
    pub fn take_in(&mut self, now: Instant, peer: &PeerId) {
        let stranded = self.ticket(peer);
        let stranded = stranded.is_some_and(|ticket| ticket.stranded && ticket.is_good(now));
        self.tickets.retain(|ticket| ticket.holder != *peer);
        self.releases.retain(|(released, _)| released != peer);
        if !self.contains(peer) {
            // The caller asked `has_room`.
            let _ = self.responsible.insert(Responsible {
                peer: *peer,
                since: now,
                stranded,
                reader: Reader::default(),
            });
        }
    }

    /// More is known of the addresses that are of use to the node, if it was taken in.
    pub fn note_reader(&mut self, peer: &PeerId, reader: Reader) {
        if let Some(node) = self.responsible.find_mut(peer) {
            node.reader = reader;
        }
    }

    /// The node was told that it will be taken in; the caller asked [`Delegation::has_room`].
    /// `stranded`: it said that every offer failed, so it holds no lease.
    pub fn give_ticket(&mut self, now: Instant, peer: &PeerId, stranded: bool) {
        if self.contains(peer) {
            return;
        }
        self.tickets
            .retain(|ticket| now <= ticket.until + UNCLAIMED_TTL);
        let until = now + TICKET_TTL;
        let kept_until = match self.ticket(peer) {
            Some(unclaimed) if !stranded => unclaimed.kept_until,
            _ => until,
        };
        self.tickets.retain(|ticket| ticket.holder != *peer);
        if self.tickets.is_full() {
            // The oldest is first: it is not good any more, or the caller did not ask.
            self.tickets.pop_front();
        }
        // There is room now.
        let _ = self.tickets.push_back(Ticket {
            holder: *peer,
            until,
            kept_until,
            stranded,
        });
    }

    /// Whether the node was told so, and lately.
    pub fn has_ticket(&self, now: Instant, peer: &PeerId) -> bool {
        self.ticket(peer).is_some_and(|ticket| ticket.is_good(now))
    }

    fn ticket(&self, peer: &PeerId) -> Option<&Ticket> {
        self.tickets.iter().find(|ticket| ticket.holder == *peer)
    }

    /// Empties `responsible_peers`; the nodes for which `place` names no indexer are taken in again
    /// in the same step.
    pub fn hand_over(&mut self, mut place: impl FnMut(&Responsible) -> Option<PeerId>) {
        self.responsible.retain(|node| match place(node) {
            // A node is in `releases` only when it is not in `responsible_peers`: there is room.
            Some(indexer) => self.releases.push((node.peer, indexer)).is_err(),
            None => true,
        });
    }

    /// The next node to be told, and where it goes.
    pub fn pop_release(&mut self) -> Option<Release> {
        self.releases.pop()
    }

    /// One node of each kind, as far as it matters where they may go.
    pub fn kinds(&self) -> Vec<&Responsible, { 2 * Reader::KINDS }> {
        let mut kinds: Vec<&Responsible, { 2 * Reader::KINDS }> = Vec::new();
        for node in self.responsible.iter() {
            let kind = |other: &Responsible| (other.reader, other.stranded);
            if !kinds.iter().any(|other| kind(other) == kind(node)) {
                // There is room for each kind.
                let _ = kinds.push(node);
            }
        }
        kinds
    }

    /// How many nodes are taken in.
    pub fn len(&self) -> usize {
        self.responsible.len()
    }

    /// The node's lease is over. A ticket that it holds is for a lease to come and stays.
    pub fn forget(&mut self, peer: &PeerId) {
        self.responsible.remove(peer);
        self.releases.retain(|(released, _)| released != peer);
    }

    /// The nodes taken in.
    pub fn iter(&self) -> impl Iterator<Item = &Responsible> {
        self.responsible.iter()
    }

    /// What the operator sees.
    pub fn stats(&self) -> TableStats {
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

    #[test]
    fn a_ticket_is_good_for_ten_seconds_and_for_one_entry() {
        let mut delegation = Delegation::<2>::new();
        delegation.give_ticket(at(0), &peer(1), false);
        assert!(delegation.has_ticket(at(10_000), &peer(1)));
        assert!(!delegation.has_ticket(at(10_001), &peer(1)));
        assert!(!delegation.has_ticket(at(0), &peer(2)));
        delegation.take_in(at(5), &peer(1));
        assert!(!delegation.has_ticket(at(6), &peer(1)));
    }

    #[test]
    fn nodes_without_a_place_stay_with_the_time_they_came() {
        let mut delegation = Delegation::<4>::new();
        for n in 1..=3 {
            delegation.take_in(at(u64::from(n)), &peer(n));
        }
        delegation.hand_over(|node| (node.peer != peer(2)).then_some(peer(9)));
        let left: std::vec::Vec<_> = delegation.iter().cloned().collect();
        assert_eq!(
            left,
            [Responsible {
                peer: peer(2),
                since: at(2),
                stranded: false,
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
            delegation.give_ticket(at(0), &peer(1), stranded);
            delegation.take_in(at(0), &peer(1));
            assert_eq!(delegation.find(&peer(1)).unwrap().may_go(at(now)), may_go);
        }
    }

    #[test]
    fn capacity_is_the_bound_and_an_entry_counts_once() {
        let mut delegation = Delegation::<1>::new();
        delegation.take_in(at(0), &peer(1));
        assert!(delegation.has_room(at(0), &peer(1)));
        assert!(!delegation.has_room(at(0), &peer(2)));
        delegation.take_in(at(9), &peer(1));
        assert_eq!(delegation.iter().next().unwrap().since, at(0));
    }

    #[test]
    fn a_ticket_reserves_its_place_for_as_long_as_it_is_good() {
        let mut delegation = Delegation::<2>::new();
        delegation.take_in(at(0), &peer(1));
        delegation.give_ticket(at(0), &peer(2), false);
        assert!(delegation.has_room(at(0), &peer(2)), "it is its own");
        assert!(!delegation.has_room(at(10_000), &peer(3)));
        assert!(delegation.has_room(at(10_001), &peer(3)));
        delegation.give_ticket(at(5_000), &peer(2), false);
        assert!(delegation.has_ticket(at(15_000), &peer(2)), "renewed");
        assert!(
            delegation.has_room(at(10_001), &peer(3)),
            "but a place is kept once"
        );
        delegation.take_in(at(6_000), &peer(2));
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
                delegation.give_ticket(at(0), &id(*n), false);
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
            delegation.give_ticket(at(0), &peer(1), false);
            // Another comes by, so that what is too old is forgotten.
            delegation.give_ticket(at(again), &peer(9), false);
            delegation.give_ticket(at(again), &peer(1), stranded);
            delegation.tickets.retain(|ticket| ticket.holder != peer(9));
            assert!(delegation.has_ticket(at(again), &peer(1)));
            let kept = !delegation.has_room(at(again + 9_000), &peer(2));
            assert_eq!(kept, keeps, "again at {again}, stranded: {stranded}");
        }
    }
}
