//! The servers that a listing asks, and their turns.
//!
//! Invariants: at most [`MAX_OPEN`] queries are open; a query for nodes is made only if there is
//! room for all rows of its answer.

use heapless::Vec;

use super::{Home, LIST_PATIENCE, ListAsk, Listing, ListingStep, MAX_OPEN};
use crate::protocol::{
    Addrs, Cursor, Instant, MAX_ENTRIES, MAX_LIST, Offer, PeerId,
    capacities::MAX_NATIVES,
    lookup::{MAX_QUEUE, QueryId, servers::Insert},
};

/// A native, and the progress in its pages of indexers.
#[derive(Clone, Debug)]
struct Pages {
    native: PeerId,
    from: Cursor,
    is_open: bool,
}

/// A query that waits for its answer.
#[derive(Clone, Debug)]
struct Open {
    query: QueryId,
    server: PeerId,
    ask: ListAsk,
    until: Instant,
}

/// What is to be asked, and what is asked now.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    next: u64,
    natives: Vec<Pages, MAX_NATIVES>,
    queue: Vec<(PeerId, Addrs), MAX_QUEUE>,
    /// Servers that have another page. They come before others, so that there are few of them.
    going_on: Vec<(PeerId, Cursor), MAX_OPEN>,
    open: Vec<Open, MAX_OPEN>,
}

impl Turns {
    /// Queues a server. False: there is no room for it.
    fn push(&mut self, server: PeerId, addrs: Addrs) -> bool {
        self.queue.push((server, addrs)).is_ok()
    }

    /// Adds a native, to read its pages of indexers. False: there is no room for it.
    fn read_pages(&mut self, native: PeerId) -> bool {
        let pages = Pages {
            native,
            from: Cursor::Start,
            is_open: false,
        };
        self.natives.push(pages).is_ok()
    }

    /// Whether the queue has room for the indexers of one more page.
    fn has_room_for_a_page(&self) -> bool {
        let open = self.natives.iter().filter(|pages| pages.is_open).count();
        self.queue.len() + (open + 1) * MAX_LIST <= MAX_QUEUE
    }

    /// Rows that the open queries may bring.
    pub(super) fn rows_to_come(&self) -> usize {
        let open = self.open.iter();
        let of_nodes = open.filter(|open| matches!(open.ask, ListAsk::Nodes(_)));
        of_nodes.count() * MAX_ENTRIES
    }

    /// Which server to ask next, and for what. `may_list`: whether there is room for the rows of a
    /// page.
    fn take(&mut self, may_list: bool) -> Option<(PeerId, Addrs, ListAsk)> {
        if self.open.is_full() {
            return None;
        }
        // Pages of indexers come first, so that the indexers on them are asked soon.
        if self.has_room_for_a_page()
            && let Some(pages) = self.natives.iter_mut().find(|pages| !pages.is_open)
        {
            pages.is_open = true;
            return Some((pages.native, Addrs::new(), ListAsk::Indexers(pages.from)));
        }
        if !may_list {
            return None;
        }
        if let Some((server, from)) = self.going_on.pop() {
            return Some((server, Addrs::new(), ListAsk::Nodes(from)));
        }
        let (server, addrs) = (!self.queue.is_empty()).then(|| self.queue.remove(0))?;
        Some((server, addrs, ListAsk::Nodes(Cursor::Start)))
    }

    fn open(&mut self, now: Instant, server: PeerId, ask: ListAsk) -> QueryId {
        self.next += 1;
        let query = QueryId(self.next);
        // There is room: `take` has looked.
        let _ = self.open.push(Open {
            query,
            server,
            ask,
            until: now + LIST_PATIENCE,
        });
        query
    }

    /// Ends an open query. Returns which server was asked, and for what.
    pub(super) fn close(&mut self, query: QueryId) -> Option<(PeerId, ListAsk)> {
        let at = self.open.iter().position(|open| open.query == query)?;
        let Open { server, ask, .. } = self.open.swap_remove(at);
        Some((server, ask))
    }

    /// Gives up the queries that have waited for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(at) = self.open.iter().position(|open| open.until <= now) {
            let Open { server, ask, .. } = self.open.swap_remove(at);
            self.give_up_pages(&server, ask);
        }
    }

    /// Asks the native for no more pages of indexers, if that was asked for.
    pub(super) fn give_up_pages(&mut self, native: &PeerId, ask: ListAsk) {
        if matches!(ask, ListAsk::Indexers(_)) {
            self.natives.retain(|pages| pages.native != *native);
        }
    }

    /// Turns to the native's next page of indexers, if there is one. False: its ids do not grow, so
    /// its pages would never end.
    pub(super) fn turn_page(
        &mut self,
        native: &PeerId,
        from: Cursor,
        next: Option<PeerId>,
    ) -> bool {
        let grows = next.is_none_or(|next| from.is_before(&next));
        match next.filter(|_| grows) {
            Some(next) => {
                let mut natives = self.natives.iter_mut();
                if let Some(pages) = natives.find(|pages| pages.native == *native) {
                    (pages.from, pages.is_open) = (Cursor::After(next), false);
                }
            }
            None => self.natives.retain(|pages| pages.native != *native),
        }
        grows
    }

    /// The same for a server's pages of nodes.
    pub(super) fn go_on(&mut self, server: PeerId, from: Cursor, next: Option<PeerId>) -> bool {
        match next {
            Some(next) if from.is_before(&next) => {
                // There is room: each of them was an open query before.
                self.going_on.push((server, Cursor::After(next))).is_ok()
            }
            next => next.is_none(),
        }
    }

    /// Ends everything. Returns whether a server would have been asked more.
    pub(super) fn end(&mut self) -> bool {
        let had_more = !self.queue.is_empty() || !self.going_on.is_empty();
        let unread = self.natives.iter().any(|pages| !pages.is_open);
        self.natives.clear();
        self.queue.clear();
        self.going_on.clear();
        self.open.clear();
        had_more || unread
    }

    pub(super) fn is_settled(&self) -> bool {
        self.natives.is_empty()
            && self.queue.is_empty()
            && self.going_on.is_empty()
            && self.open.is_empty()
    }

    /// When the next open query has waited for too long.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.open.iter().map(|open| open.until).min()
    }
}

impl<B: AsRef<[u64]> + AsMut<[u64]>> Listing<B> {
    /// Asks a native for its indexers and for its nodes.
    pub(super) fn ask_native(&mut self, native: PeerId) {
        self.is_cut |= !self.turns.read_pages(native);
        self.ask(native, Addrs::new());
    }

    /// Queues a server that is not queued yet.
    pub(super) fn ask(&mut self, server: PeerId, addrs: Addrs) {
        if server == self.own {
            return;
        }
        match self.servers.insert(server) {
            Insert::Known => {}
            Insert::New => self.is_cut |= !self.turns.push(server, addrs),
            Insert::NoRoom => self.is_cut = true,
        }
    }

    pub(super) fn learn(&mut self, offers: &[Offer]) {
        for offer in offers {
            self.ask(offer.peer, offer.addrs.clone());
        }
    }

    /// Reads pages of the own `live_indexers` while there is room for their indexers.
    pub(super) fn read_own_indexers<H: Home + ?Sized>(&mut self, now: Instant, home: &mut H) {
        while let Some(from) = self.own_indexers
            && self.turns.has_room_for_a_page()
        {
            let page = home.page(now, from, MAX_LIST);
            self.own_indexers = page.next.map(Cursor::After);
            self.learn(page.offers);
        }
    }

    /// The next query, if there is room for the rows of its answer.
    pub(super) fn next_ask<H: Home + ?Sized>(
        &mut self,
        now: Instant,
        home: &H,
    ) -> Option<ListingStep> {
        let may_list = self.has_room_for_a_page();
        let (server, addrs, ask) = self.turns.take(may_list)?;
        self.servers.asked(&server);
        Some(ListingStep::Ask {
            query: self.turns.open(now, server, ask),
            server,
            addrs: home.addrs_of(&server).cloned().unwrap_or(addrs),
            ask,
        })
    }
}
