//! Processes the answers of servers: records that answer the question, and indexers to ask or to
//! list.

use super::{Errand, Lookup};
use crate::protocol::{
    Cursor, Offer, PeerId,
    lookup::{FoundRecord, MAX_PAGES, Place, Question, RecordCopy},
};

impl<const S: usize, const Q: usize, const R: usize, const O: usize> Lookup<S, Q, R, O> {
    /// Requests the native's next page. The ids must grow, so that the pages come to an end.
    pub(super) fn turn_page(&mut self, native: &PeerId, next: Option<PeerId>) {
        let Some(at) = self
            .natives
            .iter()
            .position(|pages| pages.native == *native)
        else {
            return;
        };
        let Some(next) = next else {
            self.natives.remove(at);
            return;
        };
        if let Some(pages) = self.natives.get_mut(at) {
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
        self.natives.remove(at);
        self.is_cut = true;
    }

    pub(super) fn learn(&mut self, offers: &[Offer]) {
        for offer in offers {
            match &self.question {
                Question::Indexers => self.list(offer),
                Question::Peer(peer) if *peer == offer.peer => {
                    self.list(offer);
                    self.ask_at(offer.peer, offer.addrs.clone(), Errand::Indexer);
                }
                Question::Name(_) | Question::Peer(_) => {
                    self.ask_at(offer.peer, offer.addrs.clone(), Errand::Indexer);
                }
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

    /// Adds a record if it answers the question, because servers may send any record.
    pub(super) fn add(&mut self, copy: RecordCopy<'_>, place: Place) {
        let answers = match &self.question {
            Question::Indexers => false,
            Question::Name(name) => copy.info.name == *name,
            Question::Peer(peer) => copy.info.peer == *peer,
        };
        if answers && let Some(record) = FoundRecord::new(copy, place) {
            self.records.add(record);
        }
    }
}
