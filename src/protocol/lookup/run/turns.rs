//! The servers that a lookup asks, and their turns.
//!
//! Invariants: at most [`MAX_OPEN`] servers are waited for at a time; pages are requested only
//! while the queue has room for their indexers.

use super::{Errand, Lookup, Open, Pages, Target, Waiting, What, answers::coverage_of_page};
use crate::protocol::{
    Addrs, Cursor, Instant, MAX_LIST, PeerId,
    lookup::{
        Ask, Here, LookupAction, MAX_OPEN, NEXT_PATIENCE, QueryId, Question, servers::Insert,
    },
};

impl<const S: usize, const Q: usize, const R: usize, const O: usize> Lookup<S, Q, R, O> {
    /// Queues a query to a server, at the addresses that the host knows.
    pub(super) fn ask(&mut self, server: PeerId, errand: Errand) {
        self.ask_at(server, Addrs::new(), errand);
    }

    pub(super) fn ask_at(&mut self, server: PeerId, addrs: Addrs, errand: Errand) {
        if server == self.own {
            return;
        }
        let waiting = Waiting {
            addrs,
            ..Waiting::new(server, errand, What::Question)
        };
        match self.servers.insert(server) {
            Insert::Known => {}
            Insert::New if self.queue.push(waiting).is_ok() => {}
            Insert::New | Insert::NoRoom => self.is_cut = true,
        }
    }

    /// Queues queries to a native for its indexers.
    pub(super) fn read_pages(&mut self, native: PeerId) {
        let pages = Pages {
            native,
            from: Cursor::Start,
            count: 0,
            is_open: false,
        };
        self.is_cut |= self.pages.push(pages).is_err();
        self.is_cut |= self.servers.insert(native) == Insert::NoRoom;
    }

    pub(super) fn count_as_silent(&mut self, server: PeerId) {
        match self.servers.insert(server) {
            Insert::Known => {}
            Insert::New => self.servers.asked(&server),
            Insert::NoRoom => self.is_cut = true,
        }
    }

    /// Reads pages of the own `live_indexers` while there is room for their indexers.
    pub(super) fn read_own_pages<H: Here + ?Sized>(&mut self, now: Instant, here: &mut H) {
        while self.has_room_for_pages(1)
            && let Some(from) = self.own_page.pop()
        {
            let page = here.page(now, from, MAX_LIST);
            self.learn(page.offers, coverage_of_page(from, page.next));
            if let Some(next) = self.next_page(page.next) {
                // There is room, because the list was emptied above.
                let _ = self.own_page.push(Cursor::After(next));
            }
        }
    }

    /// Whether the queue has room for the indexers of this many pages.
    fn has_room_for_pages(&self, count: usize) -> bool {
        self.question == Question::Indexers || self.queue.len() + count * MAX_LIST <= Q
    }

    /// Whether one more server may be asked now.
    fn has_a_turn(&self, now: Instant) -> bool {
        let waits = |open: &&Open| !open.is_search() && !self.is_late(open, now);
        self.open.iter().filter(waits).count() < MAX_OPEN && !self.open.is_full()
    }

    /// The next server to ask. Pages come first, so that the indexers on them are asked soon.
    pub(super) fn next_turn(&mut self, now: Instant) -> Option<Waiting> {
        if !self.has_a_turn(now) {
            return None;
        }
        let open = self.pages.iter().filter(|pages| pages.is_open).count();
        if self.has_room_for_pages(open + 1)
            && let Some(pages) = self.pages.iter_mut().find(|pages| !pages.is_open)
        {
            pages.is_open = true;
            return Some(Waiting::new(pages.native, Errand::Page, What::Question));
        }
        let turn = self.next_to_ask_around(now);
        turn.or_else(|| (!self.queue.is_empty()).then(|| self.queue.remove(0)))
    }

    /// The next server that is asked to ask others, too: the indexers of this process, and after
    /// them its natives.
    fn next_to_ask_around(&mut self, now: Instant) -> Option<Waiting> {
        let waits = now < self.next_at && self.open.iter().any(Open::asks_around);
        if self.has_asked_around || waits {
            return None;
        }
        let (server, errand) = if !self.own_indexers.is_empty() {
            (self.own_indexers.remove(0), Errand::OwnIndexer)
        } else if !self.natives.is_empty() {
            (self.natives.remove(0), Errand::Native)
        } else {
            return None;
        };
        let turn = Waiting::new(server, errand, What::Question);
        self.is_cut |= self.servers.insert(turn.server) == Insert::NoRoom;
        self.next_at = now + NEXT_PATIENCE;
        Some(turn)
    }

    pub(super) fn put<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        turn: Waiting,
        here: &H,
        next: &mut u64,
    ) -> LookupAction {
        let Waiting {
            server,
            addrs,
            errand,
            mut what,
            since,
        } = turn;
        let reach = errand.reach();
        let ask = match (&self.question, errand) {
            _ if let What::Leave(peer) = what => Ask::Peer { peer, reach },
            (Question::Indexers, _) | (_, Errand::Page) => Ask::Indexers(self.page_of(&server)),
            (Question::Name(name), _) => {
                let name = name.clone();
                match (what, self.remembered.first()) {
                    (What::Rest(from), _) => Ask::Claimants { name, from },
                    (What::Remembered, Some(&peer)) => Ask::Peer { peer, reach },
                    _ => Ask::Name { name, reach },
                }
            }
            (Question::Service(service), _) => {
                let service = service.clone();
                let from = match what {
                    What::Rest(from) => from,
                    What::Question | What::Remembered | What::Leave(_) => Cursor::Start,
                };
                what = What::Rest(from);
                Ask::Service { service, from }
            }
            (Question::Peer(peer), _) => Ask::Peer { peer: *peer, reach },
        };
        self.servers.asked(&server);
        LookupAction::Ask {
            lookup: self.id,
            query: self.open(
                since.unwrap_or(now),
                Target::Server(server, errand, what),
                next,
            ),
            server,
            addrs: here.addrs_of(&server).cloned().unwrap_or(addrs),
            ask,
        }
    }

    pub(super) fn page_of(&self, native: &PeerId) -> Cursor {
        let mut all = self.pages.iter();
        all.find(|pages| pages.native == *native)
            .map_or(Cursor::Start, |pages| pages.from)
    }

    pub(super) fn open(&mut self, since: Instant, target: Target, next: &mut u64) -> QueryId {
        *next += 1;
        let query = QueryId(*next);
        // There is room: searches begin first, and `has_a_turn` limits the other queries.
        let _ = self.open.push(Open {
            query,
            target,
            since,
        });
        query
    }
}
