//! The servers that a lookup asks, and their turns.

use super::{Errand, Lookup, Open, Pages, Target, Waiting};
use crate::protocol::{
    Addrs, Cursor, Instant, MAX_LIST, PeerId,
    lookup::{
        Ask, Here, INDEXER_PATIENCE, LookupAction, MAX_OPEN, QueryId, Question, servers::Insert,
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
            server,
            addrs,
            errand,
        };
        match self.servers.insert(server) {
            Insert::Known => {}
            Insert::New if self.queue.push(waiting).is_ok() => {}
            Insert::New | Insert::NoRoom => self.is_cut = true,
        }
    }

    pub(super) fn ask_own_indexer(&mut self, server: PeerId) {
        match self.servers.insert(server) {
            Insert::Known => {}
            Insert::New if self.own_indexers.push(server).is_ok() => {}
            Insert::New | Insert::NoRoom => self.is_cut = true,
        }
    }

    /// Queues queries to a native for its indexers, and with `finds` also for the subject of the
    /// lookup.
    pub(super) fn read_pages(&mut self, native: PeerId, finds: bool) {
        let pages = Pages {
            native,
            from: Cursor::Start,
            count: 0,
            is_open: false,
        };
        self.is_cut |= self.natives.push(pages).is_err();
        if finds {
            self.ask(native, Errand::Native);
        } else {
            self.is_cut |= self.servers.insert(native) == Insert::NoRoom;
        }
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
            self.learn(page.offers);
            if let Some(next) = page.next {
                // There is room, because the list was emptied above.
                let _ = self.own_page.push(Cursor::After(next));
            }
        }
    }

    /// Whether the queue has room for the indexers of this many pages.
    fn has_room_for_pages(&self, count: usize) -> bool {
        self.question == Question::Indexers || self.queue.len() + count * MAX_LIST <= Q
    }

    pub(super) fn next_search(&mut self, next: &mut u64) -> Option<LookupAction> {
        let Question::Peer(peer) = self.question else {
            return None;
        };
        let role = self.searches.pop()?;
        let query = self.open(Target::Dht, next);
        Some(LookupAction::Search { query, role, peer })
    }

    /// Whether one more server may be asked now.
    pub(super) fn has_a_turn(&self) -> bool {
        let searches = self.open.iter().filter(|open| open.target == Target::Dht);
        self.open.len() - searches.count() < MAX_OPEN
    }

    /// The next server to ask. Pages come first, so that the indexers on them are asked soon.
    pub(super) fn next_turn(&mut self, now: Instant) -> Option<Waiting> {
        if !self.has_a_turn() {
            return None;
        }
        let turn = |server, errand| Waiting {
            server,
            addrs: Addrs::new(),
            errand,
        };
        let open = self.natives.iter().filter(|pages| pages.is_open).count();
        if self.has_room_for_pages(open + 1)
            && let Some(pages) = self.natives.iter_mut().find(|pages| !pages.is_open)
        {
            pages.is_open = true;
            return Some(turn(pages.native, Errand::Page));
        }
        if self.has_own_answer {
            if !self.own_indexers.is_empty() {
                return Some(turn(self.own_indexers.remove(0), Errand::Indexer));
            }
        } else if !self.own_indexers.is_empty()
            && (now >= self.patience_until || !self.waits_for_own_indexer())
        {
            self.patience_until = now + INDEXER_PATIENCE;
            return Some(turn(self.own_indexers.remove(0), Errand::OwnIndexer));
        }
        (!self.queue.is_empty()).then(|| self.queue.remove(0))
    }

    fn waits_for_own_indexer(&self) -> bool {
        let is_own = |open: &Open| matches!(open.target, Target::Server(_, Errand::OwnIndexer));
        self.open.iter().any(is_own)
    }

    pub(super) fn put<H: Here + ?Sized>(
        &mut self,
        turn: Waiting,
        here: &H,
        next: &mut u64,
    ) -> LookupAction {
        let Waiting {
            server,
            addrs,
            errand,
        } = turn;
        let ask = match (&self.question, errand) {
            (Question::Indexers, _) | (_, Errand::Page) => Ask::Indexers(self.page_of(&server)),
            (Question::Name(name), _) => Ask::Name {
                name: name.clone(),
                reach: errand.reach(),
            },
            (Question::Peer(peer), _) => Ask::Peer {
                peer: *peer,
                reach: errand.reach(),
            },
        };
        self.servers.asked(&server);
        LookupAction::Ask {
            lookup: self.id,
            query: self.open(Target::Server(server, errand), next),
            server,
            addrs: here.addrs_of(&server).cloned().unwrap_or(addrs),
            ask,
        }
    }

    fn page_of(&self, native: &PeerId) -> Cursor {
        let mut natives = self.natives.iter();
        natives
            .find(|pages| pages.native == *native)
            .map_or(Cursor::Start, |pages| pages.from)
    }

    fn open(&mut self, target: Target, next: &mut u64) -> QueryId {
        *next += 1;
        let query = QueryId(*next);
        // There is room: `has_a_turn` limits the queries to MAX_OPEN, and there are at most
        // MAX_SEARCHES searches.
        let _ = self.open.push(Open { query, target });
        query
    }
}
