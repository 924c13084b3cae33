//! Draining: an indexer that is to be stopped first hands its nodes over to other indexers.
//!
//! ```text
//!  Input::Drain ─▶ asks its natives, one each 10 s ─offers─▶ the places that others have
//!                                                                 │
//!  nodes, 16 at a time ◀─ `released`, with the indexer to go to ──┘
//!     │ last beat: another indexer has accepted the node ─▶ handed over
//!     └ no last beat within 10 s ─▶ its lease is renewed as before; others are released first
//! ```
//!
//! Invariants:
//! - Make before break: a node is released only while another indexer has a place for it, at an
//!   address that the node can use. A node without such a place keeps its lease.
//! - No newcomer is granted a lease, and the indexer reports no free lease, so that no native
//!   offers it.
//! - At most [`MAX_MOVING`] nodes move at a time, so that the other indexers and the natives are
//!   not asked by all nodes at once.

#[cfg(test)]
mod tests;

use core::time::Duration;

use heapless::Vec;

use crate::protocol::{
    Action, IndexersAnswer, Instant, MAX_LIST, Offer, PeerId, Rng, Role, Want,
    lease::Lease,
    lease_table::{LeaseTable, StreamRecord},
    leases::Leases,
    lookup::{Ask, Query},
};

/// Nodes that move at a time.
pub(super) const MAX_MOVING: usize = 16;
/// Time between questions to natives.
pub(super) const ASK_INTERVAL: Duration = Duration::from_secs(10);
/// How long a released node has until its last beat, unless half of its lease is shorter. Its first
/// try alone may take 5 s.
pub(super) const MOVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a node that has not moved is not released again.
pub(super) const MOVE_PAUSE: Duration = Duration::from_secs(30);

/// How far an indexer that is drained has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining {
    /// Nodes that still hold a lease here.
    pub nodes: usize,
    /// Nodes of them that were released and are on their way.
    pub moving: usize,
    /// Free leases of the other indexers that are known.
    pub places: u32,
    /// Nodes that gave their lease up after they were released, since the drain began.
    pub handed_over: u64,
}

/// Whether and how far an indexer is drained.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Drain {
    is_on: bool,
    offers: Vec<Place, MAX_LIST>,
    asks_at: Instant,
    last_asked: Option<PeerId>,
    moves: Vec<Move, MAX_MOVES>,
    handed_over: u64,
}

/// Moves that are remembered: those under way, and those that failed a short time ago.
const MAX_MOVES: usize = 4 * MAX_MOVING;

/// An indexer with free leases.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    offer: Offer,
    until: Instant,
    free: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Move {
    node: PeerId,
    phase: Phase,
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It was released.
    Moving,
    /// It has not moved in time, and keeps its lease.
    Stays,
}

impl Drain {
    pub(super) const fn new() -> Self {
        Self {
            is_on: false,
            offers: Vec::new(),
            asks_at: Instant::from_millis(0),
            last_asked: None,
            moves: Vec::new(),
            handed_over: 0,
        }
    }

    /// Begins. Returns false, without an effect, if it has begun.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        if self.is_on {
            return false;
        }
        *self = Self {
            is_on: true,
            asks_at: now,
            ..Self::new()
        };
        true
    }

    /// Ends: nodes are taken again. Those that move already, move.
    pub(super) fn end(&mut self) {
        self.is_on = false;
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether the node was released: its beats renew nothing.
    pub(super) fn moves(&self, node: &PeerId) -> bool {
        let is_node = |it: &&Move| it.node == *node && it.phase == Phase::Moving;
        self.is_on && self.moves.iter().any(|it| is_node(&it))
    }

    /// Takes note that the node has given its lease up. Returns whether it was on its way to
    /// another indexer; the drain may be over by then.
    pub(super) fn has_left(&mut self, now: Instant, node: &PeerId) -> bool {
        let is_moving = |it: &Move| it.phase == Phase::Moving && now < it.until;
        let mut moves = self.moves.iter();
        let Some(at) = moves.position(|it| it.node == *node && is_moving(it)) else {
            return false;
        };
        self.moves.swap_remove(at);
        self.handed_over += 1;
        true
    }

    /// A native has answered.
    pub(super) fn answered(&mut self, now: Instant, own: &PeerId, answer: &IndexersAnswer<'_>) {
        self.offers.clear();
        let others = answer.offers.iter().filter(|offer| offer.peer != *own);
        self.offers.extend(others.take(MAX_LIST).map(|offer| Place {
            until: now + offer.ttl,
            // Of an unknown number of places one is tried, until the next answer.
            free: offer.free.unwrap_or(1),
            offer: offer.clone(),
        }));
    }

    /// The next action while it is on: a question to a native, or a node to release.
    pub(super) fn poll<const N: usize>(
        &mut self,
        now: Instant,
        nodes: &LeaseTable<N>,
        natives: &Leases,
        rng: &mut Rng,
    ) -> Option<Action> {
        self.end_moves(now);
        if now >= self.asks_at {
            self.asks_at = now + ASK_INTERVAL;
            if let Some(ask) = self.ask(now, natives) {
                return Some(ask);
            }
        }
        self.release(now, nodes, rng)
    }

    /// When something is due without an input.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let moves = self.moves.iter().map(|it| it.until);
        let next = moves.fold(self.asks_at, Instant::min);
        self.is_on.then_some(next)
    }

    /// How far it has come; `None` if it is not on.
    pub(super) fn progress(&self, now: Instant, nodes: usize) -> Option<Draining> {
        let moving = |it: &&Move| it.phase == Phase::Moving;
        let places = self.offers.iter().filter(|place| now <= place.until);
        self.is_on.then(|| Draining {
            nodes,
            moving: self.moves.iter().filter(moving).count(),
            places: places.map(|place| place.free).fold(0, u32::saturating_add),
            handed_over: self.handed_over,
        })
    }

    fn end_moves(&mut self, now: Instant) {
        self.moves
            .retain(|it| now < it.until || it.phase == Phase::Moving);
        for late in self.moves.iter_mut().filter(|it| now >= it.until) {
            late.phase = Phase::Stays;
            late.until = now + MOVE_PAUSE;
        }
    }

    /// Asks the next native that has granted a lease.
    fn ask(&mut self, now: Instant, natives: &Leases) -> Option<Action> {
        let granted = || natives.iter().filter(|lease| lease.is_secure(now));
        let by_id = |lease: &&Lease| *lease.server();
        let later = granted().filter(|lease| Some(*lease.server()) > self.last_asked);
        let native = later
            .min_by_key(by_id)
            .or_else(|| granted().min_by_key(by_id))?;
        self.last_asked = Some(*native.server());
        Some(Action::Ask {
            query: Query::Machine(*native.server()),
            lookup: None,
            server: *native.server(),
            addrs: native.addrs().clone(),
            ask: Ask::Offers(Want::Nothing),
        })
    }

    fn release<const N: usize>(
        &mut self,
        now: Instant,
        nodes: &LeaseTable<N>,
        rng: &mut Rng,
    ) -> Option<Action> {
        let moving = |it: &&Move| it.phase == Phase::Moving;
        if self.moves.iter().filter(moving).count() >= MAX_MOVING {
            return None;
        }
        self.offers
            .retain(|place| now <= place.until && place.free > 0);
        if self.offers.is_empty() {
            return None;
        }
        // It begins anywhere, so that nodes that cannot move do not keep the others back.
        let used = nodes.stats().used.max(1) as u64;
        let first = usize::try_from(rng.below(used)).unwrap_or(0);
        let turn = nodes.iter().skip(first).chain(nodes.iter().take(first));
        let (node, place) = turn
            .filter(|node| self.may_move(now, node))
            .find_map(|node| Some((node, self.best_place(node)?)))?;
        let (peer, stream, left) = (node.peer, node.stream, node.expiry - now);
        let place = self.offers.get_mut(place)?;
        place.free -= 1;
        let offer = Offer {
            ttl: place.until - now,
            free: Some(place.free),
            ..place.offer.clone()
        };
        if self.moves.is_full() {
            // A node that stayed: it may be released again a little earlier.
            let oldest = self.moves.iter().position(|it| it.phase == Phase::Stays)?;
            self.moves.remove(oldest);
        }
        // A node that does not move is renewed again before its lease is over.
        let until = now + MOVE_TIMEOUT.min(left / 2);
        let phase = Phase::Moving;
        // There is room after the removal.
        let _ = self.moves.push(Move {
            node: peer,
            phase,
            until,
        });
        Some(Action::Release {
            peer,
            stream,
            left,
            offer: Some(offer),
        })
    }

    fn may_move(&self, now: Instant, node: &StreamRecord) -> bool {
        let is_known = self.moves.iter().any(|it| it.node == node.peer);
        node.role == Role::Node && node.connected && now < node.expiry && !is_known
    }

    /// The place with the most free leases at an address that the node can use.
    fn best_place(&self, node: &StreamRecord) -> Option<usize> {
        let usable =
            self.offers.iter().enumerate().filter(|(_, place)| {
                place.free > 0 && node.reader.may_use_one_of(&place.offer.addrs)
            });
        let best = usable.max_by_key(|(_, place)| place.free);
        best.map(|(at, _)| at)
    }
}
