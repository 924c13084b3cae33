//! How a lookup begins: what is known here, and the servers to ask first.

use super::{BEHIND, DhtSearch, Errand, Lookup, Tier};
use crate::protocol::{
    Cursor, Filter, Instant, Name, PeerId, Role, Selection, Subject,
    codec::record::{Kind, contents},
    directory::Claimants,
    lookup::{
        Here, OPERATOR_LIMIT, OPERATOR_PATIENCE, PEER_LIMIT, PEER_PATIENCE, Place, Question,
        RecordCopy,
    },
};

impl<const S: usize, const Q: usize, const R: usize, const O: usize> Lookup<S, Q, R, O> {
    /// Begins a lookup of the operator.
    pub(in crate::protocol::lookup) fn begin_for_operator<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        own: PeerId,
        question: Question,
        here: &H,
    ) {
        (self.is_for_peer, self.patience) = (false, OPERATOR_PATIENCE);
        self.deadline = now + OPERATOR_LIMIT;
        self.begin(now, own, question, here);
        let (role, lists) = (here.role(), self.question == Question::Indexers);
        // A node asks another server to ask around, unless it has to ask all itself.
        let asks_all = matches!(self.question, Question::Service(_));
        self.has_asked_around = role != Role::Node || asks_all;
        here.servers(now, &mut |server| match (role, server.role) {
            (Role::Native, Role::Native) if lists => {}
            (Role::Native, Role::Native) => self.ask(server.peer, Errand::Fellow),
            (_, Role::Native) if lists => self.read_pages(server.peer),
            (Role::Node, Role::Native) if asks_all => {
                self.ask(server.peer, Errand::Fellow);
                self.read_pages(server.peer);
            }
            (_, Role::Native) => self.is_cut |= self.natives.push(server.peer).is_err(),
            (Role::Node, Role::Indexer) if server.is_held && asks_all => {
                self.ask(server.peer, Errand::Indexer);
            }
            (Role::Node, Role::Indexer) if server.is_held && !lists => {
                self.is_cut |= self.own_indexers.push(server.peer).is_err();
            }
            _ => {}
        });
        match role {
            // There is room, because the slot is new.
            Role::Native if lists => _ = self.own_page.push(Cursor::Start),
            Role::Native => {}
            // An answer is not complete while known servers are left out.
            Role::Indexer | Role::Node => self.is_cut |= self.knows_none(),
        }
        if role != Role::Node {
            self.search([
                DhtSearch::Record(Role::Indexer),
                DhtSearch::Record(Role::Node),
            ]);
        }
    }

    /// Begins a lookup of a peer that this process cannot answer without other holders
    /// (PROTOCOL.md, section 4).
    pub(in crate::protocol::lookup) fn begin_for_peer<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        own: PeerId,
        question: Question,
        here: &H,
    ) {
        (self.is_for_peer, self.patience) = (true, PEER_PATIENCE);
        self.deadline = now + PEER_LIMIT;
        self.begin(now, own, question, here);
        self.has_asked_around = true;
        let role = here.role();
        here.servers(now, &mut |server| match (role, server.role) {
            (Role::Native, Role::Native) if server.is_held => self.ask(server.peer, Errand::Fellow),
            // It does not answer heartbeats, so the lookup does not wait for it.
            (Role::Native, Role::Native) => self.count_as_silent(server.peer),
            (Role::Indexer, Role::Native) if server.is_held => {
                self.is_cut |= self.natives.push(server.peer).is_err();
            }
            _ => {}
        });
        // Only node records can be passed to another peer.
        self.search([DhtSearch::Record(Role::Node)]);
    }

    fn begin<H: Here + ?Sized>(&mut self, now: Instant, own: PeerId, question: Question, here: &H) {
        (self.own, self.question) = (own, question);
        here.servers(now, &mut |server| {
            if server.is_held || server.role == Role::Native {
                // There is room for all of these.
                let _ = self.vouchers.push(server.peer);
            }
        });
        match self.question.clone() {
            Question::Indexers => {}
            Question::Service(service) => {
                self.read_here(now, here, &Filter::new(Some(service), Name::default()), 0);
            }
            Question::Name(name) => {
                let Claimants { nodes, more, .. } = here.claimants(now, &name);
                for (position, found) in (0..).zip(&nodes) {
                    self.add_here(now, position, found);
                }
                if more {
                    self.read_here(now, here, &Filter::new(None, name), BEHIND);
                }
            }
            Question::Peer(peer) => {
                // The server searches the DHT for a record, which may take its whole time.
                self.patience = OPERATOR_LIMIT;
                if let Some(found) = here.listed(now, &peer) {
                    self.add_here(now, 0, &found);
                }
            }
        }
    }

    /// Adds what the own directory lists, the whole of it, as far as that may matter. The records
    /// are placed from `first` on.
    fn read_here<H: Here + ?Sized>(&mut self, now: Instant, here: &H, filter: &Filter, first: u16) {
        let (mut from, mut position) = (Some(Cursor::Start), first);
        while let Some(page) = from
            && self.wants_more()
        {
            let next = here.entries(now, Selection::alive(filter, page), &mut |entry| {
                let Subject::Signed(envelope) = entry.subject else {
                    return true;
                };
                if let Some(record) = contents(Kind::Node, envelope) {
                    let copy = RecordCopy {
                        info: &record.info(),
                        envelope,
                        age: Some(entry.age),
                        claimed: None,
                    };
                    self.add(copy, Place::Here, Tier::Own, position);
                    position = position.saturating_add(1);
                }
                self.wants_more()
            });
            from = next.map(Cursor::After);
        }
        // The page may have been left at its first entry, after which no id is known to go on.
        if from.is_some() || !self.wants_more() {
            self.leave_rest();
        }
    }

    /// Whether no server is known that can be asked.
    fn knows_none(&self) -> bool {
        self.queue.is_empty()
            && self.pages.is_empty()
            && self.own_indexers.is_empty()
            && self.natives.is_empty()
    }
}
