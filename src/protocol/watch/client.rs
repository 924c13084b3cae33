//! The watcher: it keeps a stream to every server that may list nodes, and makes one story of what
//! all of them tell.
//!
//! ```text
//!  the list of servers, each 30 s                 statements of the servers
//!         │                                              │
//!         ▼               broken: pause, full jitter     ▼
//!   Due ─▶ Opening ─▶ Open ─▶ Live                  present · changed · gone
//!    ▲           │ present …  │ caught up                │
//!    └───────────┴────────────┘                 a node is gone when no server holds it
//! ```
//!
//! A node may hold leases with several servers, and moves between them. So it is known once, with a
//! bit for each server that holds it:
//! - `present` is said once, and `changed` once, by the record with the highest sequence.
//! - `left` or `lost` is said [`LINGER`] after the last bit has gone, because a node that
//!   moves is gone from one server before the next one's word of it arrives.
//! - A node that was handed over may be with a server that is not watched yet. So the servers are
//!   listed at once, and until the new ones were heard, or for `MOVES`, it is not gone.
//! - The servers are also listed at once when a native says that there is a new one, and when this
//!   process knows others than before; more and more rarely, while no new one is listed.
//! - A stream that breaks leaves its bits, and nothing is said. When the server has caught up
//!   again, the bits go that it does not confirm within `CONFIRM`: one that has restarted learns
//!   of its nodes by their next beats.
//! - When a node says good-bye, the bits of servers that are not heard go too (`leaving`).
//! - The bits also go when a server is not listed, and was not reached for `HOLD`; for
//!   `CONFIRM`, if every native has answered and lists it no longer: then it has ended in order,
//!   and is not silent.
//!
//! Silence of servers is reported: [`WatchStep::CaughtUp`] comes again whenever the set of silent
//! servers has changed, with the time during which one of them was not heard. A server is silent if
//! it cannot be reached, or if nothing comes for `QUIET`, so that no server delays the report of
//! the others.
//!
//! Invariants: at most [`MAX_WATCHED_SERVERS`] servers are watched, and at most `K` nodes are
//! known, each of them once. A node for which there is no room is still reported as `present`,
//! perhaps more than once, and not otherwise; and so is one that only servers with more than their
//! share of the places hold, when others need them ([`Watch::untracked`]).

use core::time::Duration;

use heapless::Vec;

use crate::protocol::{
    Instant, PeerId, Presence, Rng, TableStats,
    table::{Table, Vacant},
    time::backoff,
};
use report::Missing;
use slots::{CONFIRM, Entry, QUIET, State, WatchedServer};
#[cfg(test)]
use slots::{HEARD_FOR, HOLD};
pub use statements::{Extent, Said, Sighting, Statement, WatchStep};

mod leaving;
mod list;
mod places;
mod report;
mod slots;
mod statements;

/// Servers that are watched at most: as many as an entry has bits.
pub const MAX_WATCHED_SERVERS: usize = 64;
/// How often the list of the servers is read.
const RELIST: Duration = Duration::from_secs(30);
/// The longest pause before a stream or the list of servers is tried again.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a node that no server holds may be on its way to another one, before it is gone. A
/// change must be said within a second (PROTOCOL.md, section 5).
pub const LINGER: Duration = Duration::from_millis(300);
/// The same of a node that was handed over, until new servers were listed and heard.
const MOVES: Duration = Duration::from_secs(3);
/// How often the servers are listed at most because there may be others. Each such list that brings
/// no new server doubles the pause before the next one, up to `RELIST`; while a node has no
/// holder, up to half of `MOVES`.
const RELIST_SOONEST: Duration = Duration::from_millis(500);
/// Streams that are opened at once, and on which nothing was heard yet: one that is not connected
/// may take the place of a lease among the dials that wait.
const MAX_OPENING: usize = 8;

/// A watch of at most `K` nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch<const K: usize> {
    rng: Rng,
    /// Slots that are never moved: a server's slot is its bit.
    servers: Vec<WatchedServer, MAX_WATCHED_SERVERS, u8>,
    known: Table<Entry, K>,
    /// How many of their places count against the server in each slot.
    charged: [u16; MAX_WATCHED_SERVERS],
    /// No node is gone before this.
    gone_from: Instant,
    /// How nodes that a server no longer confirms are reported as gone.
    unconfirmed_are: Presence,
    /// When the servers are listed again; while they are being listed, whether they had been listed
    /// before.
    list_at: Instant,
    lists: bool,
    was_listed: bool,
    /// There may be other servers than those that are listed, or were; the servers are being listed
    /// because of that; and how many such lists in turn have brought no new server.
    has_others: bool,
    seeks_others: bool,
    vain_lists: u8,
    /// The servers that this process knows, as a number.
    own_servers: u64,
    /// The servers that were not heard when that was last looked at.
    unheard: u64,
    /// When the latest listing of servers began, and when the latest one began that listed all of
    /// them.
    list_began: Instant,
    all_listed: Option<Instant>,
    list_failures: u8,
    /// Servers that were listed and found no place.
    unwatched: u16,
    /// The end of silence that must be reported, not before `report_from`.
    report_from: Instant,
    blind: Duration,
    was_blind: bool,
    /// What was reported last, if anything was.
    reported_once: bool,
    reported_silent: u64,
    reported_missing: Missing,
}

/// A time that does not come.
const NEVER: Instant = Instant::from_millis(u64::MAX);

impl<const K: usize> Watch<K> {
    /// A watch that has not begun. It is all zeroes and uninitialised memory, so that it can be
    /// placed in `.bss`.
    pub const fn new() -> Self {
        Self {
            rng: Rng::new(0),
            servers: Vec::new(),
            known: Table::new(),
            charged: [0; MAX_WATCHED_SERVERS],
            gone_from: Instant::from_millis(0),
            unconfirmed_are: Presence::Alive,
            list_at: Instant::from_millis(0),
            lists: false,
            was_listed: false,
            has_others: false,
            seeks_others: false,
            vain_lists: 0,
            own_servers: 0,
            unheard: 0,
            list_began: Instant::from_millis(0),
            all_listed: None,
            list_failures: 0,
            unwatched: 0,
            report_from: Instant::from_millis(0),
            blind: Duration::ZERO,
            was_blind: false,
            reported_once: false,
            reported_silent: 0,
            reported_missing: Missing::NONE,
        }
    }

    /// Begins anew. `seed` determines the jitter. `unconfirmed_are`: how nodes that a server no
    /// longer lists after a break are reported: lost; with a filter left, because they may only
    /// have changed.
    pub fn start(&mut self, now: Instant, seed: u64, unconfirmed_are: Presence) {
        self.rng = Rng::new(seed);
        self.servers.clear();
        self.known.clear();
        self.gone_from = NEVER;
        self.unconfirmed_are = unconfirmed_are;
        (self.list_began, self.all_listed) = (now, None);
        (self.list_at, self.lists, self.was_listed) = (now, false, false);
        (self.list_failures, self.unwatched) = (0, 0);
        (self.has_others, self.seeks_others, self.vain_lists) = (false, false, 0);
        (self.own_servers, self.unheard) = (0, 0);
        (self.report_from, self.blind) = (now, Duration::ZERO);
        (self.was_blind, self.reported_once, self.reported_silent) = (false, false, 0);
        (self.reported_missing, self.charged) = (Missing::NONE, [0; MAX_WATCHED_SERVERS]);
    }

    /// Servers were listed, or one is settled: nodes that were handed over may be gone now.
    fn reconsider(&mut self, now: Instant) {
        if self.gone_from != NEVER {
            self.gone_from = now;
        }
    }

    /// The process did not run for this time, so what servers said meanwhile may be lost.
    pub fn overslept(&mut self, now: Instant, gap: Duration) {
        let since = Instant::from_millis(0) + ((now - Instant::from_millis(0)).saturating_sub(gap));
        for at in 0..self.servers.len() {
            self.open_anew(now, since, at);
        }
    }

    /// The live stream of this slot may be dead: another is opened.
    fn open_anew(&mut self, now: Instant, blind_since: Instant, at: usize) {
        let live = self.servers.get_mut(at);
        if let Some(server) = live.filter(|server| server.state == State::Live) {
            server.lose_sight(now, blind_since);
            self.known
                .iter_mut()
                .for_each(|e| e.confirmed &= !(1 << at));
        }
    }

    /// Takes a statement of a server. Returns what is to be said of its node, with the record at
    /// hand.
    pub fn hear(
        &mut self,
        now: Instant,
        server: &PeerId,
        statement: Statement<'_>,
    ) -> Option<Said> {
        let at = self.servers.iter().position(|s| s.is(server))?;
        self.servers.get_mut(at)?.spoke(now);
        match statement {
            Statement::Here(sighting) => self.seen(at, &sighting),
            Statement::Gone { peer, how } => {
                let (bits, doubted) = (1 << at | self.not_told(how), self.in_doubt(how));
                let entry = self.known.find_mut(peer);
                let is_known = entry.is_some();
                let is_unheld = entry.is_some_and(|entry| {
                    entry.doubted = doubted;
                    entry.let_go(now, bits, how, &mut self.charged)
                });
                if is_unheld {
                    self.gone_from = self.gone_from.min(now + LINGER);
                }
                if how == Presence::Alive && (is_unheld || !is_known) {
                    self.list_soon();
                }
                None
            }
            Statement::CaughtUp => {
                self.caught_up(now, at);
                None
            }
        }
    }

    fn caught_up(&mut self, now: Instant, at: usize) {
        let Some(server) = self.servers.get_mut(at) else {
            return;
        };
        if server.state != State::Open {
            return;
        }
        let blind = server.catch_up(now);
        self.saw_again(now, blind);
        self.reconsider(now);
        let bit = 1 << at;
        let mut held = self.known.iter().filter(|entry| entry.holders == bit);
        if blind.is_some() && held.any(|entry| entry.confirmed == 0) {
            // Lost nodes are reported before the step that says that all servers have caught up.
            self.report_from = self.report_from.max(now + CONFIRM + LINGER);
        }
    }

    /// A server that was not heard since then is heard again, or dropped.
    fn saw_again(&mut self, now: Instant, blind: Option<Instant>) {
        if let Some(since) = blind {
            self.was_blind = true;
            self.blind = self.blind.max(now - since);
        }
    }

    /// The server in this slot does not hold the nodes for which `is_meant` is true.
    fn forget(&mut self, now: Instant, at: usize, is_meant: impl Fn(&Entry) -> bool) {
        let how = self.unconfirmed_are;
        for entry in self.known.iter_mut() {
            let is_held = entry.holders & (1 << at) != 0;
            if is_held && is_meant(entry) && entry.let_go(now, 1 << at, how, &mut self.charged) {
                self.gone_from = self.gone_from.min(now + LINGER);
                // They are reported before the step that says that all servers have caught up.
                self.report_from = self.report_from.max(now + LINGER);
            }
        }
    }

    /// Takes note that the stream to a server is over, or could not be opened.
    pub fn ended(&mut self, now: Instant, server: &PeerId) {
        let Some(at) = self.servers.iter().position(|s| s.is(server)) else {
            return;
        };
        let Some(server) = self.servers.get_mut(at) else {
            return;
        };
        if matches!(server.state, State::Free | State::Due(_)) {
            return;
        }
        let was_live = server.state == State::Live;
        server.lose_sight(now, now);
        let pause = backoff(&mut self.rng, server.failures, LONGEST_PAUSE);
        server.state = State::Due(now + pause);
        let bit = 1u64 << at;
        self.known.iter_mut().for_each(|e| e.confirmed &= !bit);
        if was_live {
            // If it has ended in order, it is listed no longer.
            self.list_soon();
        }
        self.reconsider(now);
    }

    /// The next step at `now`, if there is one.
    pub fn poll(&mut self, now: Instant) -> Option<WatchStep> {
        if !self.lists && now >= self.list_at {
            (self.lists, self.list_began) = (true, now);
            self.seeks_others = core::mem::take(&mut self.has_others);
            return Some(WatchStep::List);
        }
        self.pop_server(now)
            .or_else(|| self.pop_gone(now))
            .or_else(|| self.pop_caught_up(now))
    }

    fn pop_server(&mut self, now: Instant) -> Option<WatchStep> {
        for at in 0..self.servers.len() {
            let server = self.servers.get_mut(at)?;
            if server.is_open() && now - server.since >= LONGEST_PAUSE {
                let peer = server.peer;
                self.ended(now, &peer);
            } else if !server.is_settled() && now - server.since >= QUIET {
                server.is_silent = true;
                server.blind.get_or_insert(server.since);
                self.reconsider(now);
            }
            let server = self.servers.get_mut(at)?;
            match server.state {
                State::Due(_) if server.is_given_up(now) => {
                    let is_over = server.is_over;
                    let blind = server.free().filter(|_| !is_over);
                    self.saw_again(now, blind);
                    self.forget(now, at, |_| true);
                }
                State::Live if server.forget_at.is_some_and(|at| at <= now) => {
                    server.forget_at = None;
                    self.forget(now, at, |entry| entry.confirmed & (1 << at) == 0);
                }
                _ => {}
            }
        }
        let (_, at) = self.next_due().filter(|(due, _)| *due <= now)?;
        let server = self.servers.get_mut(at)?;
        (server.state, server.since) = (State::Opening, now);
        Some(WatchStep::Open {
            server: server.peer,
            addrs: server.addrs.clone(),
        })
    }

    /// When the next stream may be opened, and the slot: the one that has waited longest, so that
    /// servers that cannot be reached do not keep others waiting.
    fn next_due(&self) -> Option<(Instant, usize)> {
        let opening = self.servers.iter().filter(|s| s.state == State::Opening);
        let due = |(at, server): (usize, &WatchedServer)| match server.state {
            State::Due(due) => Some((due, at)),
            _ => None,
        };
        let due = self.servers.iter().enumerate().filter_map(due);
        due.min().filter(|_| opening.count() < MAX_OPENING)
    }

    fn pop_gone(&mut self, now: Instant) -> Option<WatchStep> {
        self.let_leave(now);
        let are_heard = self.servers.iter().all(WatchedServer::is_settled);
        let known_from = self.all_listed.filter(|_| are_heard);
        while self.gone_from <= now {
            let unheld = || self.known.iter().filter(|entry| entry.holders == 0);
            let gone = unheld().find(|entry| entry.gone_at(known_from) <= now);
            let Some(peer) = gone.map(|entry| entry.peer) else {
                let next = unheld().map(|entry| entry.gone_at(known_from)).min();
                self.gone_from = next.unwrap_or(NEVER);
                break;
            };
            let mut entry = self.known.remove(&peer)?;
            entry.charge(0, &mut self.charged);
            if entry.is_meant {
                return Some(WatchStep::Gone {
                    peer,
                    name: entry.name,
                    how: entry.how,
                    ago: now - entry.unheld,
                });
            }
        }
        None
    }

    fn bits_of(&self, is_meant: impl Fn(&WatchedServer) -> bool) -> u64 {
        let bits = self.servers.iter().enumerate();
        bits.filter(|(_, server)| is_meant(server))
            .fold(0, |all, (at, _)| all | 1 << at)
    }

    /// The bit of a server's slot; none if it is not watched.
    pub(super) fn bit(&self, server: &PeerId) -> u64 {
        let at = self.servers.iter().position(|s| s.is(server));
        at.map_or(0, |at| 1 << at)
    }

    /// The server in this slot.
    pub(super) fn server_of(&self, slot: u32) -> Option<PeerId> {
        Some(self.servers.get(slot as usize)?.peer)
    }

    /// The servers that are not heard, although they were tried.
    pub fn silent(&self) -> impl Iterator<Item = &PeerId> {
        let silent = self.servers.iter().filter(|server| server.is_silent);
        silent.map(|server| &server.peer)
    }

    /// Servers that are listed, but for which there was no place.
    pub fn unwatched(&self) -> u16 {
        self.unwatched
    }

    /// How often there was no room for a node, or its place was given to another.
    pub fn untracked(&self) -> u64 {
        let TableStats {
            refused, evicted, ..
        } = self.known.stats("watched");
        refused + evicted
    }

    /// When [`Watch::poll`] has a step without an event.
    pub fn timeout(&self) -> Option<Instant> {
        let list = (!self.lists).then_some(self.list_at);
        let servers = self.servers.iter().filter_map(WatchedServer::timeout);
        let due = self.next_due().map(|(due, _)| due);
        let news = self.is_news().then_some(self.report_from);
        let gone = Some(self.gone_from).filter(|at| *at != NEVER);
        let times = servers.chain(due).chain(list);
        times.chain(news).chain(gone).min()
    }

    /// How many servers are heard or tried.
    pub fn servers(&self) -> usize {
        let used = self.servers.iter().filter(|s| s.state != State::Free);
        used.count()
    }

    /// The statistics of the nodes for `status`.
    pub fn stats(&self) -> TableStats {
        self.known.stats("watched")
    }

    /// The unused memory of the nodes.
    pub fn spare(&mut self) -> Vacant<'_> {
        self.known.spare()
    }
}

impl<const K: usize> Default for Watch<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
