//! Processes the answers of servers: records that answer the question, and indexers to ask or to
//! list.
//!
//! Invariant: a record counts only if it answers the question, because servers may send any record.

use core::cmp::Reverse;

use super::{BEHIND, ClaimRank, Errand, Lookup, Open, Target, Tier, Waiting, What};
use crate::protocol::{
    Coverage, Cursor, Instant, Offer, PeerId, Reach,
    codec::record::{Kind, contents},
    directory::Found,
    lookup::{
        Answer, AnswerRecords, FoundRecord, MAX_HOLDERS, MAX_PAGES, MAX_READ_ON, Place, QueryId,
        Question, RecordCopy, exchange::LEFT,
    },
};

/// A server that has answered.
#[derive(Clone, Copy)]
struct Responder {
    peer: PeerId,
    /// What it was asked for, and when it was first asked for it.
    errand: Errand,
    since: Instant,
}

impl<const S: usize, const Q: usize, const R: usize, const O: usize> Lookup<S, Q, R, O> {
    /// Takes a server's answer. Returns whether the query is an open one of this lookup.
    pub(in crate::protocol::lookup) fn answered(
        &mut self,
        now: Instant,
        query: QueryId,
        answer: Answer<'_>,
    ) -> bool {
        let is_it = |open: &Open| open.query == query && !open.is_search();
        let Some(at) = self.position(is_it) else {
            return false;
        };
        if now > self.deadline {
            return true;
        }
        let Open { target, since, .. } = self.open.swap_remove(at);
        let Target::Server(server, errand, what) = target else {
            return true;
        };
        let responder = Responder {
            peer: server,
            errand,
            since,
        };
        match (errand, what, answer) {
            (Errand::Page, _, Answer::Indexers { offers, next }) => {
                self.servers.answered(&server);
                self.take_page(&server, offers, next);
            }
            (Errand::Page, ..)
            | (_, _, Answer::Indexers { .. } | Answer::Error | Answer::Failed) => {
                self.fail(&server, errand, &answer);
            }
            (_, What::Rest(from), Answer::Listed { records, next }) => {
                self.take_list(responder, from, records, next);
            }
            (_, What::Question, Answer::Records(answer)) => self.take_records(responder, answer),
            (_, What::Remembered, Answer::Records(answer)) => {
                self.servers.answered(&server);
                self.add_all(responder, 0, answer.records);
            }
            (_, What::Leave(peer), Answer::Records(answer)) => {
                self.servers.answered(&server);
                if answer.tally == Some(LEFT) {
                    self.has_left(&peer);
                }
            }
            (_, What::Rest(_), Answer::Records(_))
            | (_, What::Question | What::Remembered | What::Leave(_), Answer::Listed { .. }) => {
                self.fail(&server, errand, &answer);
            }
        }
        true
    }

    /// A server has answered with an error, with something that is not an answer, or not at all.
    fn fail(&mut self, server: &PeerId, errand: Errand, answer: &Answer<'_>) {
        if !matches!(answer, Answer::Failed) {
            self.servers.refused(server);
        }
        if errand == Errand::Page {
            self.pages.retain(|pages| pages.native != *server);
        }
    }

    fn take_records(&mut self, from: Responder, answer: AnswerRecords<'_>) {
        let AnswerRecords {
            records,
            more,
            tally,
            claimants,
        } = answer;
        let Responder { peer, errand, .. } = from;
        self.servers.answered(&peer);
        self.add_all(from, 0, records);
        let coverage = match tally {
            Some(tally) if tally.answered < tally.asked => Coverage::Partial,
            _ => Coverage::Complete,
        };
        self.heard_of(&peer, errand, coverage);
        let is_name = matches!(self.question, Question::Name(_));
        let asks_others = errand.reach() == Reach::Network;
        if is_name && asks_others {
            match claimants {
                Some(count) => self.claims.reported(count),
                None if more => self.claims.cut(),
                None => {}
            }
            if more {
                self.ask_for_remembered(peer, errand);
            }
        }
        if more && is_name && !asks_others {
            self.read_on(from, Cursor::Start);
        } else if more {
            self.records.there_are_more();
        }
    }

    /// Takes a page of the list of all nodes that a server has.
    fn take_list(
        &mut self,
        from: Responder,
        page: Cursor,
        records: &[RecordCopy<'_>],
        next: Option<PeerId>,
    ) {
        self.servers.answered(&from.peer);
        let is_name = matches!(self.question, Question::Name(_));
        let first = if is_name { BEHIND } else { 0 };
        self.add_all(from, first, records);
        self.heard_of(&from.peer, from.errand, Coverage::Complete);
        match next {
            // The ids must grow, so that the pages come to an end.
            Some(next) if page.is_before(&next) => self.read_on(from, Cursor::After(next)),
            Some(_) => self.leave_rest(),
            None => {}
        }
    }

    /// Queues a query for a page of the server's list, before others wait for their turn. All its
    /// pages must come in the patience with its first answer.
    fn read_on(&mut self, from: Responder, page: Cursor) {
        let most = match self.question {
            Question::Name(_) => usize::from(MAX_READ_ON) * MAX_HOLDERS,
            _ => usize::from(MAX_READ_ON) * S,
        };
        let left = most.saturating_sub(self.read_on);
        let waiting = Waiting {
            since: Some(from.since),
            ..Waiting::new(from.peer, from.errand, What::Rest(page))
        };
        if self.wants_more()
            && self.servers.reads_on(&from.peer, MAX_READ_ON, left)
            && self.queue.insert(0, waiting).is_ok()
        {
            self.read_on += 1;
        } else {
            self.leave_rest();
        }
    }

    /// Whether it matters which other nodes are listed: as long as they can be counted, or kept.
    pub(super) fn wants_more(&self) -> bool {
        match self.question {
            Question::Name(_) => !self.claims.is_full(),
            _ => !self.records.more(),
        }
    }

    /// A list is not read to its end.
    pub(super) fn leave_rest(&mut self) {
        self.claims.cut();
        self.records.there_are_more();
    }

    /// Queues a query for the peer that an earlier find has returned, if it may be among those that
    /// the claimants that the server did not name.
    fn ask_for_remembered(&mut self, server: PeerId, errand: Errand) {
        let is_found = |peer: &PeerId| self.records.has(peer);
        if self.remembered.first().is_some_and(|peer| !is_found(peer)) {
            let waiting = Waiting::new(server, errand, What::Remembered);
            self.is_cut |= self.queue.insert(0, waiting).is_err();
        }
    }

    /// A server has answered, for all servers that it had to ask or for some of them.
    pub(super) fn heard_of(&mut self, server: &PeerId, errand: Errand, coverage: Coverage) {
        let is_whole = coverage == Coverage::Complete;
        if !is_whole {
            self.servers.lacks(server);
        }
        if let Errand::Native | Errand::Fellow = errand {
            // One that has answered is enough.
            let _ = self.lister.push(*server);
        }
        match errand {
            // The other indexers know no more than this one, but the natives may.
            Errand::OwnIndexer => {
                self.own_indexers.clear();
                self.has_asked_around |= is_whole;
            }
            Errand::Native => self.has_asked_around = true,
            Errand::Indexer | Errand::Fellow | Errand::Page => return,
        }
        if is_whole && self.has_found() {
            self.take_back();
        }
    }

    /// The server does not answer because it has taken leave: it is not waited for.
    pub(super) fn has_left(&mut self, server: &PeerId) {
        self.servers.left(server);
        self.open
            .retain(|open| !matches!(open.target, Target::Server(of, ..) if of == *server));
    }

    /// Takes back the queries to servers that were asked to ask others because another was slow.
    fn take_back(&mut self) {
        let servers = &mut self.servers;
        self.open.retain(|open| match open.target {
            Target::Server(server, ..) if open.asks_around() => {
                servers.taken_back(&server);
                false
            }
            _ => true,
        });
    }

    /// Takes a page of a native's indexers.
    pub(super) fn take_page(&mut self, native: &PeerId, offers: &[Offer], next: Option<PeerId>) {
        let from = self.page_of(native);
        self.learn(offers, coverage_of_page(from, next));
        let next = self.next_page(next);
        self.turn_page(native, next);
    }

    /// The id after which the next page begins that is of interest: of all indexers, each; for a
    /// peer, only the one that lists it if any does. `next` is the one after the last page.
    pub(super) fn next_page(&self, next: Option<PeerId>) -> Option<PeerId> {
        match &self.question {
            Question::Indexers | Question::Service(_) => next,
            Question::Name(_) => None,
            Question::Peer(peer) => next.filter(|next| next < peer).map(|_| before(peer)),
        }
    }

    /// Requests the native's next page. The ids must grow, so that the pages come to an end.
    fn turn_page(&mut self, native: &PeerId, next: Option<PeerId>) {
        let Some(at) = self.pages.iter().position(|pages| pages.native == *native) else {
            return;
        };
        let Some(next) = next else {
            self.pages.remove(at);
            return;
        };
        if let Some(pages) = self.pages.get_mut(at) {
            pages.count += 1;
            if pages.from.is_before(&next) && pages.count < MAX_PAGES {
                (pages.from, pages.is_open) = (Cursor::After(next), false);
                return;
            }
        }
        self.pages.remove(at);
        self.is_cut = true;
    }

    /// Takes the indexers of a page. `coverage`: whether the native lists others.
    pub(super) fn learn(&mut self, offers: &[Offer], coverage: Coverage) {
        for offer in offers {
            let asks = match &self.question {
                Question::Indexers => {
                    self.list(offer);
                    false
                }
                Question::Peer(peer) if *peer == offer.peer => {
                    self.list(offer);
                    true
                }
                Question::Name(_) | Question::Peer(_) => coverage == Coverage::Complete,
                Question::Service(_) => true,
            };
            if asks {
                self.ask_at(offer.peer, offer.addrs.clone(), Errand::Indexer);
            }
        }
    }

    /// Lists an indexer. If several natives name it, the offer with the longest time to live
    /// counts.
    fn list(&mut self, offer: &Offer) {
        let mut known = self.indexers.iter_mut();
        match known.find(|known| known.peer == offer.peer) {
            Some(known) if known.ttl < offer.ttl => *known = offer.clone(),
            Some(_) => {}
            None => self.is_cut |= self.indexers.push(offer.clone()).is_err(),
        }
    }

    /// The party that vouches for the claims of a server's answer.
    pub(super) fn tier(&self, server: &PeerId, errand: Errand) -> Tier {
        match errand {
            Errand::OwnIndexer | Errand::Native | Errand::Fellow => Tier::Own,
            Errand::Indexer | Errand::Page if self.vouchers.contains(server) => Tier::Own,
            Errand::Indexer | Errand::Page => Tier::Other,
        }
    }

    /// Adds records of a server, the first at this place.
    fn add_all(&mut self, from: Responder, first: u16, records: &[RecordCopy<'_>]) {
        let tier = self.tier(&from.peer, from.errand);
        for (position, copy) in (first..).zip(records) {
            self.add(*copy, from.errand.place(), tier, position);
        }
    }

    /// Adds a record if it answers the question, because servers may send any record.
    pub(super) fn add(&mut self, copy: RecordCopy<'_>, place: Place, tier: Tier, position: u16) {
        let answers = match &self.question {
            Question::Indexers => false,
            Question::Name(name) => copy.info.name == *name,
            Question::Service(service) => {
                contents(Kind::Node, copy.envelope).is_some_and(|record| record.offers(service))
            }
            Question::Peer(peer) => copy.info.peer == *peer,
        };
        let tier = self.tier_of(&copy.info.peer, tier);
        let rank = ClaimRank {
            tier,
            claimed: Reverse(copy.claimed),
            position,
        };
        let record = FoundRecord::new(copy, place, rank);
        self.keep(record.filter(|_| answers));
    }

    /// Adds an entry of the own directory, before which so many older claims are.
    pub(super) fn add_here(&mut self, now: Instant, position: u16, found: &Found<'_>) {
        let tier = self.tier_of(found.peer(), Tier::Own);
        let rank = ClaimRank {
            tier,
            claimed: Reverse(Some(now - found.since())),
            position,
        };
        self.keep(FoundRecord::here(now, rank, found));
    }

    fn tier_of(&self, peer: &PeerId, tier: Tier) -> Tier {
        match self.remembered.contains(peer) {
            true => Tier::Remembered,
            false => tier,
        }
    }

    fn keep(&mut self, record: Option<FoundRecord>) {
        let Some(record) = record else { return };
        if matches!(self.question, Question::Name(_)) {
            self.claims.note(record.peer());
        }
        self.records.add(record);
    }
}

/// Whether a page of a native's indexers has all of them.
pub(super) fn coverage_of_page(from: Cursor, next: Option<PeerId>) -> Coverage {
    match (from, next) {
        (Cursor::Start, None) => Coverage::Complete,
        _ => Coverage::Partial,
    }
}

/// The id before this one, which is not the first.
fn before(peer: &PeerId) -> PeerId {
    let mut id = *peer.as_bytes();
    for byte in id.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != u8::MAX {
            break;
        }
    }
    PeerId::from_bytes(id)
}
