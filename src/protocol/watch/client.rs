//! The watcher: it keeps a stream to every server that may list nodes, and makes one story of what
//! they all tell.
//!
//! ```text
//!  the list of servers, each 30 s                 words of the servers
//!         │                                              │
//!         ▼               broken: pause, full jitter     ▼
//!   Due ──────▶ Open ──────▶ Live                  present · changed · gone
//!    ▲           │ present …  │ caught up                │
//!    └───────────┴────────────┘                    a node is gone when nobody holds it
//! ```
//!
//! A node may hold leases with several servers, and moves between them. So it is known once, with a
//! bit for each server that holds it:
//! - `present` is said once, and `changed` once, by the record with the highest sequence.
//! - `left` or `lost` is said when the last bit goes, and [`LINGER`] after that, because a node that
//!   moves is gone from one server before the next one's word of it arrives.
//! - A stream that breaks leaves its bits, and nothing is said. When the server has caught up again,
//!   the bits that it did not confirm go. They also go when it is neither reached nor listed.
//!
//! Being blind is said: [`WatchStep::CaughtUp`] comes again whenever the set of silent servers has
//! changed, with the time during which one was not heard.
//!
//! Bounds: [`MAX_SERVERS`] servers, `K` nodes. Of a node for which there is no room `present` is
//! still said, perhaps more than once, and nothing else.

use core::time::Duration;

use heapless::Vec;

use crate::protocol::{
    Addrs, Instant, Name, PeerId, Presence, Rng, TableStats,
    machine::MAX_MOVED,
    table::{Keyed, Table, Vacant},
    time::backoff,
};

/// Servers that are watched at most: as many as an entry has bits.
pub const MAX_SERVERS: usize = 64;
/// How often the list of the servers is read.
pub const RELIST: Duration = Duration::from_secs(30);
/// The longest pause before a stream or the list of servers is tried again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a node that no server holds may be on its way to another one, before it is gone. A
/// change must be said within a second (PROTOCOL.md, section 5).
pub const LINGER: Duration = Duration::from_millis(300);

/// A node as a server lists it. Its record was verified.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// The node.
    pub peer: &'a PeerId,
    /// Its name.
    pub name: &'a Name,
    /// The sequence of its record.
    pub sequence: u64,
    /// A hash of all that makes a change: name, tags, services and addresses.
    pub contents: u64,
    /// The filter of this watch means it.
    pub is_meant: bool,
}

/// What a server says.
#[derive(Clone, Copy, Debug)]
pub enum Word<'a> {
    /// It lists this node.
    Here(Sighting<'a>),
    /// It lists this node no longer.
    Gone {
        /// The node.
        peer: &'a PeerId,
        /// It gave its lease up, or the lease ran out.
        how: Presence,
    },
    /// It has said all that it lists.
    CaughtUp,
}

/// What is said of a node at once, when a server speaks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is there.
    Present,
    /// Its name, tags, services or addresses are others.
    Changed,
    /// It is still there, but the filter no longer means it.
    Excluded,
}

/// What the host must do.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchStep {
    /// Find the servers that may list nodes, then call [`Watch::listed`].
    List,
    /// Open a stream to this server; then call [`Watch::told`] for each word, and [`Watch::ended`].
    Open {
        /// The server.
        server: PeerId,
        /// Where it listens; empty if this is not known, or if the server is this process.
        addrs: Addrs,
    },
    /// Say that a node is gone.
    Gone {
        /// The node.
        peer: PeerId,
        /// The name that it had.
        name: Name,
        /// It left, or it was lost.
        how: Presence,
        /// The time since its last server said so.
        ago: Duration,
    },
    /// Say that all servers have caught up, except [`Watch::silent`].
    CaughtUp {
        /// For how long one of them was not heard; zero if all were.
        blind: Duration,
    },
}

const _: () = assert!(size_of::<WatchStep>() <= MAX_MOVED);

/// A watch of at most `K` nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch<const K: usize> {
    rng: Rng,
    /// Slots that are never moved: a server's slot is its bit.
    servers: Vec<Server, MAX_SERVERS, u8>,
    known: Table<Entry, K>,
    /// No node is gone before this.
    gone_from: Instant,
    /// When the servers are listed again; while they are being listed, whether they were before.
    list_at: Instant,
    lists: bool,
    was_listed: bool,
    list_failures: u8,
    /// Servers that were listed and found no place.
    unwatched: u16,
    /// What is told of the end of silence, not before `tell_from`.
    tell_from: Instant,
    blind: Duration,
    was_blind: bool,
    told_once: bool,
    told_silent: u64,
}

/// A server, in its slot.
#[derive(Clone, Debug, PartialEq)]
struct Server {
    peer: PeerId,
    addrs: Addrs,
    state: State,
    /// Attempts that failed since it was last live.
    failures: u8,
    is_listed: bool,
    /// Since when it is not heard.
    blind: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The slot is free.
    Free,
    /// A stream is to be opened then.
    Due(Instant),
    /// A stream is being opened, or tells what is listed.
    Open,
    /// It has caught up.
    Live,
}

impl Server {
    fn is_silent(&self) -> bool {
        self.failures > 0 && self.state != State::Free
    }

    /// Whether it is known whether it can be heard.
    fn is_settled(&self) -> bool {
        matches!(self.state, State::Free | State::Live) || self.failures > 0
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    peer: PeerId,
    name: Name,
    /// The servers that hold it, by their slots.
    holders: u64,
    /// Those that have said so since their streams were opened.
    confirmed: u64,
    sequence: u64,
    contents: u64,
    /// Without holders: when it is gone, and how it went.
    gone_at: Instant,
    how: Presence,
    /// The filter means it.
    is_meant: bool,
}

impl Keyed for Entry {
    fn peer(&self) -> &PeerId {
        &self.peer
    }
}

impl Entry {
    /// Takes note that the servers of these bits do not hold it.
    fn let_go(&mut self, now: Instant, bits: u64, how: Presence) -> bool {
        let was_held = self.holders != 0;
        self.holders &= !bits;
        self.confirmed &= !bits;
        let is_gone = was_held && self.holders == 0;
        if is_gone {
            self.gone_at = now + LINGER;
            self.how = how;
        }
        is_gone
    }
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
            gone_from: Instant::from_millis(0),
            list_at: Instant::from_millis(0),
            lists: false,
            was_listed: false,
            list_failures: 0,
            unwatched: 0,
            tell_from: Instant::from_millis(0),
            blind: Duration::ZERO,
            was_blind: false,
            told_once: false,
            told_silent: 0,
        }
    }

    /// Begins anew. `seed` determines the jitter.
    pub fn start(&mut self, now: Instant, seed: u64) {
        self.rng = Rng::new(seed);
        self.servers.clear();
        self.known.clear();
        self.gone_from = NEVER;
        (self.list_at, self.lists, self.was_listed) = (now, false, false);
        (self.list_failures, self.unwatched) = (0, 0);
        (self.tell_from, self.blind) = (now, Duration::ZERO);
        (self.was_blind, self.told_once, self.told_silent) = (false, false, 0);
    }

    /// Takes the servers that may list nodes. If they are not all, nobody is dropped, and they are
    /// listed again soon.
    pub fn listed<'a>(
        &mut self,
        now: Instant,
        servers: impl Iterator<Item = (PeerId, &'a Addrs)>,
        are_all: bool,
    ) {
        self.lists = false;
        self.was_listed = true;
        self.unwatched = 0;
        if are_all {
            self.servers.iter_mut().for_each(|s| s.is_listed = false);
        }
        for (peer, addrs) in servers {
            let is_placed = self.place(now, peer, addrs);
            self.unwatched = self.unwatched.saturating_add(u16::from(!is_placed));
        }
        self.list_failures = match are_all {
            true => 0,
            false => self.list_failures.saturating_add(1),
        };
        self.list_at = now
            + match are_all {
                true => RELIST,
                false => backoff(&mut self.rng, self.list_failures, LONGEST_PAUSE),
            };
    }

    /// Gives a server that is listed its slot. Returns whether there is one.
    fn place(&mut self, now: Instant, peer: PeerId, addrs: &Addrs) -> bool {
        let known = self.servers.iter().position(|s| s.is(&peer));
        let free = || self.servers.iter().position(|s| s.state == State::Free);
        let newcomer = Server {
            peer,
            addrs: addrs.clone(),
            state: State::Due(now),
            failures: 0,
            is_listed: true,
            blind: None,
        };
        match known.or_else(free) {
            None => self.servers.push(newcomer).is_ok(),
            Some(at) => {
                let Some(slot) = self.servers.get_mut(at) else {
                    return false;
                };
                match slot.state {
                    State::Free => *slot = newcomer,
                    _ => {
                        slot.is_listed = true;
                        slot.addrs = newcomer.addrs;
                    }
                }
                true
            }
        }
    }

    /// Takes a word of a server. Returns what is to be said of its node, with the record at hand.
    pub fn told(&mut self, now: Instant, server: &PeerId, word: Word<'_>) -> Option<Said> {
        let at = self.servers.iter().position(|s| s.is(server))?;
        let bit = 1 << at;
        match word {
            Word::Here(sighting) => self.seen(bit, &sighting),
            Word::Gone { peer, how } => {
                let entry = self.known.find_mut(peer)?;
                if entry.let_go(now, bit, how) {
                    self.gone_from = self.gone_from.min(entry.gone_at);
                }
                None
            }
            Word::CaughtUp => {
                self.caught_up(now, at);
                None
            }
        }
    }

    fn seen(&mut self, bit: u64, seen: &Sighting<'_>) -> Option<Said> {
        let Some(entry) = self.known.find_mut(seen.peer) else {
            if seen.is_meant {
                // Without room it is said all the same, and the table counts it.
                let _ = self.known.insert(Entry {
                    peer: *seen.peer,
                    name: seen.name.clone(),
                    holders: bit,
                    confirmed: bit,
                    sequence: seen.sequence,
                    contents: seen.contents,
                    gone_at: NEVER,
                    how: Presence::Alive,
                    is_meant: true,
                });
            }
            return seen.is_meant.then_some(Said::Present);
        };
        entry.holders |= bit;
        entry.confirmed |= bit;
        if seen.sequence <= entry.sequence {
            return None;
        }
        entry.sequence = seen.sequence;
        let is_changed = core::mem::replace(&mut entry.contents, seen.contents) != seen.contents;
        if is_changed {
            entry.name = seen.name.clone();
        }
        match (
            core::mem::replace(&mut entry.is_meant, seen.is_meant),
            seen.is_meant,
        ) {
            (true, true) => is_changed.then_some(Said::Changed),
            (false, true) => Some(Said::Present),
            (true, false) => Some(Said::Excluded),
            (false, false) => None,
        }
    }

    fn caught_up(&mut self, now: Instant, at: usize) {
        let Some(server) = self.servers.get_mut(at) else {
            return;
        };
        if server.state != State::Open {
            return;
        }
        (server.state, server.failures) = (State::Live, 0);
        let blind = server.blind.take();
        self.saw_again(now, blind);
        self.forget(now, 1 << at, |entry, bit| entry.confirmed & bit == 0);
    }

    /// A server is heard again, or dropped, that was not heard since then.
    fn saw_again(&mut self, now: Instant, blind: Option<Instant>) {
        if let Some(since) = blind {
            self.was_blind = true;
            self.blind = self.blind.max(now - since);
        }
    }

    /// The server of this bit does not hold the nodes for which `is_meant` is true.
    fn forget(&mut self, now: Instant, bit: u64, is_meant: impl Fn(&Entry, u64) -> bool) {
        for entry in self.known.iter_mut() {
            let is_held = entry.holders & bit != 0;
            if is_held && is_meant(entry, bit) && entry.let_go(now, bit, Presence::Lost) {
                self.gone_from = self.gone_from.min(entry.gone_at);
                // These come before the word that all have caught up.
                self.tell_from = self.tell_from.max(entry.gone_at);
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
        match server.state {
            State::Free | State::Due(_) => return,
            State::Live => server.failures = 0,
            State::Open => server.failures = server.failures.saturating_add(1),
        }
        server.blind.get_or_insert(now);
        let pause = backoff(&mut self.rng, server.failures, LONGEST_PAUSE);
        server.state = State::Due(now + pause);
        let bit = 1u64 << at;
        self.known.iter_mut().for_each(|e| e.confirmed &= !bit);
    }

    /// The next step at `now`, if there is one.
    pub fn poll(&mut self, now: Instant) -> Option<WatchStep> {
        if !self.lists && now >= self.list_at {
            self.lists = true;
            return Some(WatchStep::List);
        }
        self.pop_server(now)
            .or_else(|| self.pop_gone(now))
            .or_else(|| self.pop_caught_up(now))
    }

    fn pop_server(&mut self, now: Instant) -> Option<WatchStep> {
        for at in 0..self.servers.len() {
            let server = self.servers.get_mut(at)?;
            match server.state {
                // Neither reached nor listed.
                State::Due(_) if !server.is_listed && server.failures > 0 => {
                    server.state = State::Free;
                    let blind = server.blind.take();
                    self.saw_again(now, blind);
                    self.forget(now, 1 << at, |_, _| true);
                }
                State::Due(due) if due <= now => {
                    server.state = State::Open;
                    return Some(WatchStep::Open {
                        server: server.peer,
                        addrs: server.addrs.clone(),
                    });
                }
                _ => {}
            }
        }
        None
    }

    fn pop_gone(&mut self, now: Instant) -> Option<WatchStep> {
        while self.gone_from <= now {
            let unheld = || self.known.iter().filter(|entry| entry.holders == 0);
            let Some(peer) = unheld().find(|e| e.gone_at <= now).map(|e| e.peer) else {
                self.gone_from = unheld().map(|e| e.gone_at).min().unwrap_or(NEVER);
                break;
            };
            let entry = self.known.remove(&peer).filter(|entry| entry.is_meant);
            if let Some(entry) = entry {
                return Some(WatchStep::Gone {
                    peer,
                    name: entry.name,
                    how: entry.how,
                    ago: LINGER + (now - entry.gone_at),
                });
            }
        }
        None
    }

    fn pop_caught_up(&mut self, now: Instant) -> Option<WatchStep> {
        if now < self.tell_from || !self.is_news() {
            return None;
        }
        let silent = self.servers.iter().filter(|server| server.is_silent());
        let since = silent.filter_map(|server| server.blind).min();
        let blind = since.map_or(Duration::ZERO, |since| now - since);
        let blind = self.blind.max(blind);
        (self.blind, self.was_blind, self.told_once) = (Duration::ZERO, false, true);
        self.told_silent = self.silent_bits();
        Some(WatchStep::CaughtUp { blind })
    }

    /// Whether there is something to be said of who has caught up.
    fn is_news(&self) -> bool {
        let is_news = !self.told_once || self.was_blind || self.silent_bits() != self.told_silent;
        let mut used = self.servers.iter().filter(|s| s.state != State::Free);
        is_news
            && self.was_listed
            && (self.told_once || used.next().is_some())
            && self.servers.iter().all(Server::is_settled)
    }

    fn silent_bits(&self) -> u64 {
        let bits = self.servers.iter().enumerate();
        bits.filter(|(_, server)| server.is_silent())
            .fold(0, |all, (at, _)| all | 1 << at)
    }

    /// The servers that are not heard, although they were tried.
    pub fn silent(&self) -> impl Iterator<Item = &PeerId> {
        let silent = self.servers.iter().filter(|server| server.is_silent());
        silent.map(|server| &server.peer)
    }

    /// Servers that are listed, but for which there was no place.
    pub fn unwatched(&self) -> u16 {
        self.unwatched
    }

    /// When [`Watch::poll`] has a step without an event.
    pub fn timeout(&self) -> Option<Instant> {
        let list = (!self.lists).then_some(self.list_at);
        let servers = self.servers.iter().filter_map(|server| match server.state {
            State::Due(due) => Some(due),
            _ => None,
        });
        let news = self.is_news().then_some(self.tell_from);
        let gone = Some(self.gone_from).filter(|at| *at != NEVER);
        servers.chain(list).chain(news).chain(gone).min()
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

impl Server {
    fn is(&self, peer: &PeerId) -> bool {
        self.peer == *peer && self.state != State::Free
    }
}

impl<const K: usize> Default for Watch<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
