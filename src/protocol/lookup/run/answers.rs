//! Processes the answers of servers: records that answer the question, and indexers to ask or to
//! list.
//!
//! Invariant: a record counts only if it answers the question, because servers may send any record.

use super::{Errand, Lookup, Target, Tier};
use crate::protocol::{
    Cursor, Offer, PeerId,
    codec::record::{Kind, contents},
    lookup::{Answer, FoundRecord, MAX_PAGES, Place, Question, RecordCopy, records::Standing},
};

impl<const S: usize, const Q: usize, const R: usize, const O: usize> Lookup<S, Q, R, O> {
    /// The answer, with the records of a list as records, if it fits this kind of question.
    pub(super) fn own_kind_of<'a>(&self, answer: Answer<'a>) -> Answer<'a> {
        match (&self.question, answer) {
            (Question::Service(_), Answer::Listed { records, more }) => Answer::Records {
                records,
                more,
                tally: None,
            },
            (Question::Service(_), Answer::Records { .. }) | (_, Answer::Listed { .. }) => {
                Answer::Error
            }
            (_, answer) => answer,
        }
    }

    /// A server has answered, for all servers that it had to ask or for some of them.
    pub(super) fn heard_of(&mut self, server: &PeerId, errand: Errand, is_whole: bool) {
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

    /// Takes back the queries to servers that were asked to ask others because another was slow.
    fn take_back(&mut self) {
        let servers = &mut self.servers;
        self.open.retain(|open| match open.target {
            Target::Server(server, Errand::OwnIndexer | Errand::Native) => {
                servers.taken_back(&server);
                false
            }
            _ => true,
        });
    }

    /// Takes a page of a native's indexers.
    pub(super) fn take_page(&mut self, native: &PeerId, offers: &[Offer], next: Option<PeerId>) {
        let from = self.page_of(native);
        self.learn(offers, from == Cursor::Start && next.is_none());
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
            let goes_on = match pages.from {
                Cursor::Start => true,
                Cursor::After(before) => next > before,
            };
            if goes_on && pages.count < MAX_PAGES {
                (pages.from, pages.is_open) = (Cursor::After(next), false);
                return;
            }
        }
        self.pages.remove(at);
        self.is_cut = true;
    }

    /// Takes the indexers of a page. `are_all`: the native lists no others.
    pub(super) fn learn(&mut self, offers: &[Offer], are_all: bool) {
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
                Question::Name(_) | Question::Peer(_) => are_all,
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

    /// Adds a record if it answers the question, because servers may send any record.
    pub(super) fn add(&mut self, copy: RecordCopy<'_>, place: Place, (tier, position): Standing) {
        let answers = match &self.question {
            Question::Indexers => false,
            Question::Name(name) => copy.info.name == *name,
            Question::Service(service) => contents(Kind::Node, copy.envelope)
                .is_some_and(|record| record.services.iter().any(|it| it.name == *service)),
            Question::Peer(peer) => copy.info.peer == *peer,
        };
        let tier = match self.remembered.contains(&copy.info.peer) {
            true => tier.min(Tier::Remembered),
            false => tier,
        };
        let standing = (tier, position);
        if answers && let Some(record) = FoundRecord::new(copy, place, standing) {
            self.records.add(record);
        }
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
