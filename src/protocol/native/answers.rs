//! The indexers that a native hands out, and its answers to nodes that ask.
//!
//! Each answer is made for its reader ([`Reader`](crate::protocol::Reader)): an indexer or an
//! address that the reader cannot use is left out, and one that surely fits the reader comes before
//! one that may fit.
//!
//! Invariants: an answer never waits longer than its candidates need, and 2 s at most; a verdict
//! that was good when the question arrived is good for its answer; no node is told that it is taken
//! in while an indexer is known to be reachable at an address that the node can use, unless the
//! node reported that every offer failed; each live indexer is handed out sooner or later to some
//! peer that only asks; an answer to a node that wants a lease begins with an indexer that fits it,
//! among these with one at which the fewest nodes failed, and among these with one of the greatest
//! weight (at most 64 free leases count, less the places promised); among equal indexers each is
//! the first equally often, so that an indexer that overstates its room beside `n` others with room
//! for 64 leads one answer in `n + 1`.

use core::cmp::Reverse;

use super::*;
use crate::protocol::table::keep_best;
use pending_requests::Shortlist;
use standing::KEPT_SHARE;

/// For this long after an answer to a node, all other indexers that beat here and have no verdict
/// are pinged. Otherwise, if all nodes start at once, the answers would name only indexers that
/// have beaten within 10 s, and these few would get all nodes.
const SURVEY: Duration = Duration::from_secs(1);

impl<const I: usize, const K: usize, const R: usize, const S: usize> Native<I, K, R, S> {
    /// The answer to a request for indexers; `None`: it comes later.
    pub(super) fn take_request(
        &mut self,
        now: Instant,
        mut request: PendingRequest,
    ) -> Option<IndexersAnswer<'_>> {
        let catches_up = !self.overslept(now).is_zero();
        if request.want == Want::OffersFailed {
            self.note_failures(now, &request.node, &request.reader);
        }
        if !catches_up {
            let candidates = self.candidates(now, request.want, &request.reader);
            if candidates
                .iter()
                .all(|peer| self.live_indexers.is_decided(now, now, peer))
            {
                return Some(self.answer(now, now, &request));
            }
            request.candidates = Some((now, candidates));
        }
        if self.pending_requests.is_full() {
            // No node is taken in while an indexer may be reachable. If the node gets no offer, it
            // asks again.
            self.choose_offers(now, now, request.most, &request.reader);
            return Some(self.answer_of_offered());
        }
        // There is room: this was checked above.
        let _ = self.pending_requests.push(request);
        None
    }

    /// Answers the next request for which all candidates have a verdict. Requests that waited for
    /// the end of an oversleep get their candidates first.
    pub(super) fn pop_answer(&mut self, now: Instant) -> Option<Action> {
        while let Some(at) = self
            .pending_requests
            .iter()
            .position(|request| request.candidates.is_none())
        {
            let request = self.pending_requests.get(at)?;
            let (want, reader) = (request.want, request.reader);
            let candidates = self.candidates(now, want, &reader);
            self.pending_requests.get_mut(at)?.candidates = Some((now, candidates));
        }
        let at = self.pending_requests.iter().position(|request| {
            request.deadline() <= now
                || request.candidates.iter().all(|(since, candidates)| {
                    candidates
                        .iter()
                        .all(|peer| self.live_indexers.is_decided(now, *since, peer))
                })
        })?;
        let request = self.pending_requests.swap_remove(at);
        let since = request.candidates.as_ref().map_or(now, |(since, _)| *since);
        Some(Action::Answer {
            request: request.id,
            takes_in: self.answer(now, since, &request).takes_in,
        })
    }

    /// The offers that were chosen last, as the answer to a node that is not taken in.
    fn answer_of_offered(&self) -> IndexersAnswer<'_> {
        IndexersAnswer {
            offers: &self.offered,
            takes_in: false,
        }
    }

    fn answer(
        &mut self,
        now: Instant,
        since: Instant,
        request: &PendingRequest,
    ) -> IndexersAnswer<'_> {
        if request.want == Want::Nothing {
            self.show_next(now, request.most, &request.reader);
            return self.answer_of_offered();
        }
        self.choose_offers(now, since, request.most, &request.reader);
        if !self.offered.is_empty() {
            self.surveys_until = now + SURVEY;
        }
        let indexers = self.offered.iter().map(|offer| &offer.peer);
        self.offered_indexers.offered(now, &request.node, indexers);
        let shortage = match request.want {
            Want::OffersFailed => Some(Shortage::OffersFailed),
            _ if self.offered.is_empty() => Some(self.shortage(now, since)),
            _ => None,
        };
        if shortage.is_some() {
            self.make_room_for_node(now, &request.node);
        }
        let has_room = self.delegation.has_room(now, &request.node);
        match shortage {
            Some(shortage) if has_room => {
                self.delegation.give_ticket(now, &request.node, shortage);
            }
            Some(_) => self.delegation.count_refusal(),
            None => {}
        }
        let takes_in = shortage.is_some() && has_room;
        IndexersAnswer {
            takes_in,
            ..self.answer_of_offered()
        }
    }

    /// Why no indexer can be offered, by the verdicts after `since`.
    pub(super) fn shortage(&self, now: Instant, since: Instant) -> Shortage {
        let live = self.live_indexers.iter(now).count();
        let is_reachable = |e: &LiveIndexer| e.verdict(since) == Some(Verdict::Reachable);
        let answers = self.live_indexers.iter(now).any(is_reachable);
        let count = u16::try_from(live).unwrap_or(u16::MAX);
        match (live, answers) {
            (0, _) => Shortage::NoneLive,
            (_, false) => Shortage::Silent(count),
            (_, true) => Shortage::Unsuitable(count),
        }
    }

    /// Fills `offered` for a node that wants a lease: reachable indexers that have room and that it
    /// can use, best first. The order is: those that fit it; then fewer nodes at which they failed;
    /// then networks that are named less often so far, because ids are free for an attacker and
    /// networks are not; then more free leases. If not all can be named and nodes failed recently,
    /// the last places are reserved: half of them for indexers that proved themselves, chosen at
    /// random, and half for those that are here the longest, whether they fit or only may fit. So
    /// no number of others can exclude these for good.
    pub(super) fn choose_offers(
        &mut self,
        now: Instant,
        since: Instant,
        most: usize,
        reader: &Reader,
    ) {
        let most = most.min(MAX_LIST);
        let mut listed: Vec<Offerable<'_>, I> = Vec::new();
        // The list has room for all entries.
        listed.extend(
            self.live_indexers
                .iter(now)
                .filter(|entry| {
                    entry.verdict(since) == Some(Verdict::Reachable)
                        && entry.may_be_offered_to(reader)
                })
                .map(|entry| Offerable::new(now, entry, reader, self.rng.bits())),
        );
        let is_troubled = listed.iter().any(|one| one.rank.failures.0 > 0);
        let kept = if is_troubled && listed.len() > most {
            most / KEPT_SHARE
        } else {
            0
        };
        let offers = &mut self.offered;
        offers.clear();
        while offers.len() < most {
            let all = listed.iter().enumerate();
            let next = if offers.len() < most - kept {
                all.max_by_key(|(_, one)| one.rank)
            } else if offers.len() < most - kept / 2 {
                all.max_by_key(|(_, one)| (one.entry.standing.has_proved(), one.rank.lot))
            } else {
                all.max_by_key(|(_, one)| (one.entry.standing.seniority(), one.rank.lot))
            };
            let Some(at) = next.map(|(at, _)| at) else {
                break;
            };
            let Offerable { entry, .. } = listed.swap_remove(at);
            for other in &mut listed {
                other.rank.named.0 += u8::from(other.entry.prefix() == entry.prefix());
            }
            // There is room: this was checked above.
            offers.extend(entry.offer_to(now, reader));
        }
    }

    /// A node gave its lease up. If it had been sent to an indexer, that indexer has accepted it.
    pub(super) fn note_departure(&mut self, now: Instant, node: &PeerId) {
        let tag = self.offered_indexers.tag(node);
        if let Some(is_it) = self.offered_indexers.where_sent(now, node) {
            for entry in self.live_indexers.iter_mut(now) {
                if is_it(&entry.peer) {
                    entry.standing.proved(tag);
                }
            }
        }
    }

    /// A node reports that every offer failed, so the indexers that it was told recently failed at
    /// it. This does not count for an indexer at addresses that the node may be unable to dial. Nor
    /// does it count under a contested identity, because indexers that work well refuse one of the
    /// two devices.
    fn note_failures(&mut self, now: Instant, node: &PeerId, reader: &Reader) {
        if self.stream_records.rivals.is_contested(node) {
            return;
        }
        let tag = self.offered_indexers.tag(node);
        if let Some(has_failed) = self.offered_indexers.all_failed(now, node) {
            for entry in self.live_indexers.iter_mut(now) {
                if has_failed(&entry.peer) && reader.fits(&entry.addrs) {
                    entry.standing.failed(now, tag);
                }
            }
        }
    }

    /// Fills `offered` for a peer that only asks, without a cursor: the live indexers in the order
    /// of their ids, beginning where the last such answer ended and wrapping around once.
    fn show_next(&mut self, now: Instant, most: usize, reader: &Reader) {
        self.offered.clear();
        self.offered.extend(
            self.live_indexers
                .iter_after(now, &self.shown_up_to)
                .filter_map(|entry| entry.offer_to(now, reader))
                .take(most.min(MAX_LIST)),
        );
        if let Some(last) = self.offered.last() {
            self.shown_up_to = last.peer;
        }
    }

    /// The page of live indexers that begins at the cursor. While the native catches up after an
    /// oversleep, entries count that will be live when their leases are extended.
    pub(super) fn page_of(
        &mut self,
        now: Instant,
        from: Cursor,
        most: usize,
        reader: &Reader,
    ) -> IndexersPage<'_> {
        let gap = self.overslept(now);
        let mut next = None;
        self.offered.clear();
        let entries = self.live_indexers.iter_from(from);
        let entries = entries.filter(|entry| now <= entry.expires + gap);
        for offer in entries.filter_map(|entry| entry.offer_to(now, reader)) {
            if self.offered.len() >= most.clamp(1, MAX_LIST) {
                next = self.offered.last().map(|last| last.peer);
                break;
            }
            // There is room: this was checked above.
            let _ = self.offered.push(offer);
        }
        let offers = &self.offered;
        IndexersPage { offers, next }
    }

    /// The indexers to probe for an answer: those with reserved places if nodes failed recently,
    /// then those that fit the node, then those that may fit. In each group the reachable ones come
    /// first, then those without a verdict, in random order.
    fn candidates(&mut self, now: Instant, want: Want, reader: &Reader) -> Shortlist {
        if want == Want::Nothing {
            return Shortlist::new();
        }
        let may_be_offered = |entry: &&LiveIndexer| {
            entry.verdict(now) != Some(Verdict::Silent) && entry.may_be_offered_to(reader)
        };
        let mut kept: Vec<_, { MAX_LIST / KEPT_SHARE }, u8> = Vec::new();
        let mut best: Vec<ProbeCandidate, { pending_requests::MAX_SHORTLIST }, u8> = Vec::new();
        for entry in self.live_indexers.iter(now).filter(may_be_offered) {
            let candidate = ProbeCandidate {
                fits: reader.fits(&entry.addrs),
                is_reachable: entry.verdict(now) == Some(Verdict::Reachable),
                lot: self.rng.bits(),
                peer: entry.peer,
            };
            keep_best(&mut best, candidate);
            keep_best(&mut kept, (entry.standing.seniority(), entry.peer));
        }
        let mut candidates = Shortlist::new();
        let mut entries = self.live_indexers.iter(now);
        if entries.any(|entry| entry.failures(now) > 0) {
            candidates.extend(kept.iter().map(|(_, peer)| *peer));
        }
        for ProbeCandidate { peer, .. } in &best {
            if !candidates.contains(peer) {
                // A candidate that does not fit ranks last.
                let _ = candidates.push(*peer);
            }
        }
        candidates
    }
}

/// An indexer that may be probed for an answer. The greatest is the best, and an earlier field
/// counts more.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct ProbeCandidate {
    fits: bool,
    is_reachable: bool,
    /// A random number that decides between equals.
    lot: u64,
    peer: PeerId,
}

/// An indexer that an answer may name.
struct Offerable<'a> {
    entry: &'a LiveIndexer,
    rank: OfferRank,
}

/// The rank of an indexer in an answer. The greatest is named first, and an earlier field counts
/// more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct OfferRank {
    fits: bool,
    failures: Reverse<u8>,
    /// How many indexers of its network are named already.
    named: Reverse<u8>,
    weight: i64,
    /// A random number that decides between equals.
    lot: u64,
}

impl<'a> Offerable<'a> {
    fn new(now: Instant, entry: &'a LiveIndexer, reader: &Reader, lot: u64) -> Self {
        let rank = OfferRank {
            fits: reader.fits(&entry.addrs),
            failures: Reverse(entry.failures(now)),
            named: Reverse(0),
            weight: entry.weight(),
            lot,
        };
        Self { entry, rank }
    }
}
