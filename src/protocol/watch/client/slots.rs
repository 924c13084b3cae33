//! The places of a watch: servers, and nodes with a bit for each server that holds them.
//!
//! Invariant: a server keeps its slot while it is watched, because the number of the slot is its
//! bit in each node.

use core::time::Duration;

use super::{Extent, LINGER, LONGEST_PAUSE, MAX_WATCHED_SERVERS, MOVES};
use crate::protocol::{Addrs, Instant, Name, PeerId, Presence, table::Keyed};

/// How long a server that is heard again may take to confirm what it held: as long as a node
/// pauses at most before it beats to a server that has restarted.
pub(crate) const CONFIRM: Duration = Duration::from_secs(10);
/// How long a server that is not listed holds nodes while it is not reached: a lease. A list may
/// lack it because a native is not reached, either.
pub(crate) const HOLD: Duration = Duration::from_secs(90);
/// How long a server may say nothing before it has caught up, until it counts as silent. After
/// [`LONGEST_PAUSE`] its stream is opened anew.
pub(crate) const QUIET: Duration = Duration::from_secs(3);
/// How long a stream must be live to prove that pauses between attempts can be short again.
pub(crate) const HEARD_FOR: Duration = Duration::from_secs(30);

/// A server, in its slot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WatchedServer {
    pub(super) peer: PeerId,
    pub(super) addrs: Addrs,
    pub(super) state: State,
    /// When this state began; while a stream is open, the time of the last word.
    pub(super) since: Instant,
    /// Attempts that failed, and streams that broke early, since it was last heard for a while.
    pub(super) failures: u8,
    pub(super) is_listed: bool,
    pub(super) was_listed: bool,
    /// An attempt failed, or nothing was heard for [`QUIET`]. If its live stream broke, a list is
    /// read first, because it may have ended.
    pub(super) is_silent: bool,
    /// Since when it is not heard.
    pub(super) blind: Option<Instant>,
    /// Its live stream broke then, and no list was read since.
    pub(super) broke: Option<Instant>,
    /// Every native has answered, and lists it no longer: it has ended in order.
    pub(super) is_over: bool,
    /// When the nodes are forgotten that it has not confirmed since it was last silent.
    pub(super) forget_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The slot is free.
    Free,
    /// A stream is to be opened then.
    Due(Instant),
    /// A stream is being opened.
    Opening,
    /// It tells what is listed.
    Open,
    /// It has caught up.
    Live,
}

impl WatchedServer {
    /// A server that is listed, to which a stream is to be opened.
    pub(super) fn new(now: Instant, peer: PeerId, addrs: &Addrs) -> Self {
        Self {
            peer,
            addrs: addrs.clone(),
            state: State::Due(now),
            since: now,
            failures: 0,
            is_listed: true,
            was_listed: true,
            is_silent: false,
            blind: None,
            broke: None,
            is_over: false,
            forget_at: None,
        }
    }

    pub(super) fn is(&self, peer: &PeerId) -> bool {
        self.peer == *peer && self.state != State::Free
    }

    /// Whether it is decided that the server is heard, or that it is silent.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.state, State::Free | State::Live) || self.is_silent || self.is_over
    }

    /// Whether there is a stream that is not live yet.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Opening | State::Open)
    }

    /// It has said something.
    pub(super) fn spoke(&mut self, now: Instant) {
        if self.is_open() {
            (self.state, self.since) = (State::Open, now);
        }
    }

    /// A list was read that began at `began`. It tells whether a server whose stream broke before
    /// has ended.
    pub(super) fn note_list(&mut self, began: Instant, extent: Extent) {
        self.broke = self.broke.filter(|broke| *broke > began);
        self.is_over = match extent {
            Extent::Whole => !self.is_listed,
            _ => self.is_over && !self.is_listed,
        };
        self.is_silent &= !self.is_over;
    }

    /// Whether it is neither listed nor was it reached for so long that it no longer holds nodes.
    pub(super) fn is_given_up(&self, now: Instant) -> bool {
        let patience = if self.is_over { CONFIRM } else { HOLD };
        !self.is_listed && self.blind.is_some_and(|since| now - since >= patience)
    }

    /// Frees the slot. Returns since when it was not heard.
    pub(super) fn free(&mut self) -> Option<Instant> {
        (self.state, self.is_silent) = (State::Free, false);
        self.blind.take()
    }

    /// It is not heard. It is tried again at once, unless a pause follows.
    pub(super) fn lose_sight(&mut self, now: Instant, blind_since: Instant) {
        let was_steady = self.state == State::Live && now - self.since >= HEARD_FOR;
        self.failures = match was_steady {
            true => 0,
            false => self.failures.saturating_add(1),
        };
        if self.state == State::Live {
            self.broke = Some(now);
        }
        let may_be_over = self.broke.is_some_and(|broke| now - broke < QUIET);
        self.is_silent |= self.is_open() && !may_be_over && !self.is_over;
        self.blind.get_or_insert(blind_since);
        (self.state, self.since) = (State::Due(now), now);
        self.forget_at = None;
    }

    /// It has said all that it lists. Returns since when it was not heard.
    pub(super) fn catch_up(&mut self, now: Instant) -> Option<Instant> {
        (self.state, self.since, self.is_silent) = (State::Live, now, false);
        (self.broke, self.is_over) = (None, false);
        let blind = self.blind.take();
        self.forget_at = blind.map(|_| now + CONFIRM);
        blind
    }

    /// When the next thing happens to it without an event, but that a stream is opened.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let quiet = (!self.is_settled()).then_some(self.since + QUIET);
        let next = match self.state {
            State::Free | State::Due(_) => None,
            State::Opening | State::Open => Some(self.since + LONGEST_PAUSE),
            State::Live => self.forget_at,
        };
        next.into_iter().chain(quiet).min()
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) peer: PeerId,
    pub(super) name: Name,
    /// The servers that hold it, by their slots.
    pub(super) holders: u64,
    /// The servers that have said so since their streams were opened.
    pub(super) confirmed: u64,
    pub(super) sequence: u64,
    pub(super) contents: u64,
    /// The slot of the server that told this record, as long as that server has it.
    pub(super) listed_by: Option<u8>,
    /// If no server holds it: since when, and whether it left or was lost.
    pub(super) unheld: Instant,
    pub(super) how: Presence,
    /// Servers that were not heard when another one said that it has left. None has said since that
    /// it is there.
    pub(super) doubted: u64,
    /// The filter selects it.
    pub(super) is_meant: bool,
    /// The servers against which its place counts: its holders, or else the last one.
    pub(super) charged: u64,
}

impl Keyed for Entry {
    fn peer(&self) -> &PeerId {
        &self.peer
    }
}

impl Entry {
    /// Takes note that the server in this slot holds it.
    pub(super) fn take_hold(&mut self, at: usize, charged: &mut [u16; MAX_WATCHED_SERVERS]) {
        self.holders |= 1 << at;
        self.confirmed |= 1 << at;
        self.doubted = 0;
        self.charge(self.holders, charged);
    }

    /// Takes note that the servers of these bits do not hold it. Returns whether no server holds it
    /// now, and one did.
    pub(super) fn let_go(
        &mut self,
        now: Instant,
        servers: u64,
        how: Presence,
        charged: &mut [u16; MAX_WATCHED_SERVERS],
    ) -> bool {
        let was_held = self.holders != 0;
        self.holders &= !servers;
        self.confirmed &= !servers;
        let is_unheld = was_held && self.holders == 0;
        if is_unheld {
            (self.unheld, self.how) = (now, how);
        } else if was_held {
            self.charge(self.holders, charged);
        }
        is_unheld
    }

    /// Its place counts against the servers of these bits, and no other.
    pub(super) fn charge(&mut self, servers: u64, charged: &mut [u16; MAX_WATCHED_SERVERS]) {
        let before = core::mem::replace(&mut self.charged, servers);
        if before == servers {
            return;
        }
        for (at, count) in charged.iter_mut().enumerate() {
            match (before >> at & 1, servers >> at & 1) {
                (0, 1) => *count = count.saturating_add(1),
                (1, 0) => *count = count.saturating_sub(1),
                _ => {}
            }
        }
    }

    /// When it is gone, if no server holds it until then. All servers that were listed at
    /// `known_from` were heard, or are silent.
    pub(super) fn gone_at(&self, known_from: Option<Instant>) -> Instant {
        let is_known = known_from.is_some_and(|from| from >= self.unheld);
        match self.how == Presence::Alive && !is_known {
            true => self.unheld + MOVES,
            false => self.unheld + LINGER,
        }
    }
}
