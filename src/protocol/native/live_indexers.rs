//! `live_indexers`: the indexers that this native can hand out.
//!
//! Invariants:
//! - An entry that a beat made expires at receipt + lease granted, and one from the DHT when its
//!   record does. It is removed earlier only if its indexer gives the lease up or takes another
//!   role, or if a full table needs its place.
//! - An expired entry takes no room. In a full table without expired entries, a beat evicts the DHT
//!   entry that would expire first; an entry from the DHT evicts nothing. Each eviction is counted.
//! - A better record is never replaced by a worse one. A copy from the DHT replaces a record that a
//!   beat brought only if the copy has a higher rank and was not signed earlier, because the
//!   indexer's own record is not judged by a clock.
//! - An entry keeps the standing of its indexer with nodes ([`standing`](super::standing)) as long
//!   as it exists without a gap.
//! - No indexer is offered with more free leases than it last reported, less the places promised
//!   since.
//! - When indexers are compared, at most 64 reported free leases count, less the places promised
//!   since. So however many an indexer reports, it does not come before one that has room for 64
//!   and no more promises.

#[cfg(test)]
mod tests;

use core::time::Duration;

use crate::protocol::{
    Addrs, Cursor, Instant, Load, Offer, PeerId, Reader, RecordInfo, RecordRank, Verdict,
    address::{Prefix, TransportAddr},
    table::{Keyed, Table, TableStats},
};

use super::standing::Standing;

/// How long the verdict of a beat, a pong or a failed probe counts: 10 s (PROTOCOL.md).
pub(super) const VERDICT_TTL: Duration = Duration::from_secs(10);

/// More free leases than this do not make an indexer better. The reported number cannot be checked,
/// so it counts only up to the room for all nodes that come until the next beat.
const ENOUGH: u32 = 64;

/// The source of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The indexer beats to this native.
    Heartbeat,
    /// The refresh loop found its record.
    Dht,
}

/// One entry of `live_indexers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveIndexer {
    /// The indexer.
    pub peer: PeerId,
    /// Where it listens, best first.
    pub addrs: Addrs,
    /// The last moment at which the entry counts.
    pub expires: Instant,
    /// The source of the entry.
    pub source: Source,
    /// Rank and time to live of the record behind it.
    rank: RecordRank,
    record_ttl: Duration,
    /// Receipt of its last beat; `None` if it is known from the DHT only.
    heard: Option<Instant>,
    load: Option<Load>,
    /// Places promised to released nodes since the indexer last reported its load.
    reserved: u32,
    verdict: Option<(Instant, Verdict)>,
    /// Its standing with nodes.
    pub(super) standing: Standing,
    /// Where its best address leads.
    prefix: Prefix,
}

impl Keyed for LiveIndexer {
    fn peer(&self) -> &PeerId {
        &self.peer
    }
}

impl LiveIndexer {
    fn new(now: Instant, record: &RecordInfo, expires: Instant, source: Source) -> Self {
        Self {
            peer: record.peer,
            addrs: record.addrs.clone(),
            expires,
            source,
            rank: record.rank(),
            record_ttl: record.ttl,
            heard: None,
            load: None,
            reserved: 0,
            verdict: None,
            standing: Standing::new(now),
            prefix: prefix_of(&record.addrs),
        }
    }

    fn take_record(&mut self, record: &RecordInfo) {
        self.addrs.clone_from(&record.addrs);
        self.prefix = prefix_of(&record.addrs);
        self.rank = record.rank();
        self.record_ttl = record.ttl;
    }

    /// Whether the indexer is reachable, according to a beat, pong or failed probe that came at
    /// most 10 s before `since`, or later. `since` is now, or the arrival of the question, because
    /// a verdict that was good then is good for the answer.
    pub fn verdict(&self, since: Instant) -> Option<Verdict> {
        self.verdict
            .filter(|(at, _)| since - *at <= VERDICT_TTL)
            .map(|(_, verdict)| verdict)
    }

    /// Receipt of its last beat; `None` if it is known from the DHT only.
    pub fn last_beat(&self) -> Option<Instant> {
        self.heard
    }

    /// The leases that it reported; `None` if it never did.
    pub fn held(&self) -> Option<u32> {
        self.load.map(|load| load.held)
    }

    /// Its free leases, less those promised; `None` if it never reported them.
    pub fn free(&self) -> Option<u32> {
        self.load.map(|load| {
            load.possible
                .saturating_sub(load.held)
                .saturating_sub(self.reserved)
        })
    }

    /// Whether a node may be sent there.
    pub fn has_room(&self) -> bool {
        self.free() != Some(0)
    }

    /// How many nodes the offload loop may send there. An unknown number of free leases counts as
    /// one.
    pub(crate) fn places(&self) -> u32 {
        self.free().unwrap_or(1_u32.saturating_sub(self.reserved))
    }

    /// Its weight among others: the free leases that it reports, at most 64, less those promised.
    /// So an indexer that overstates its room gets no more nodes than one that has room.
    pub(crate) fn weight(&self) -> i64 {
        let reported = self
            .load
            .map_or(1, |load| load.possible.saturating_sub(load.held));
        i64::from(reported.min(ENOUGH)) - i64::from(self.reserved)
    }

    /// How many nodes found recently that it grants no lease, or does not keep it.
    pub fn failures(&self, now: Instant) -> u8 {
        self.standing.failures(now)
    }

    /// The network that its best address is in.
    pub(crate) fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// Promises a place until the indexer's next beat.
    pub(crate) fn reserve(&mut self) {
        self.reserved = self.reserved.saturating_add(1);
    }

    /// Whether the reader may be sent there: there is room, and an address that it can use.
    pub(crate) fn may_be_offered_to(&self, reader: &Reader) -> bool {
        self.has_room() && reader.may_use_one_of(&self.addrs)
    }

    /// The offer for the operator, with all addresses.
    pub(crate) fn offer(&self, now: Instant) -> Offer {
        Offer {
            peer: self.peer,
            addrs: self.addrs.clone(),
            ttl: self.expires - now,
            free: self.free(),
        }
    }

    /// The offer for a reader, with the addresses that it can use; `None` if there are none.
    pub(crate) fn offer_to(&self, now: Instant, reader: &Reader) -> Option<Offer> {
        let mut offer = self.offer(now);
        offer.addrs.retain(|addr| reader.may_use(addr));
        (!offer.addrs.is_empty()).then_some(offer)
    }
}

fn prefix_of(addrs: &Addrs) -> Prefix {
    TransportAddr::of(addrs.first().map_or(&[], |addr| addr.as_slice())).prefix()
}

/// The indexer that became known last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewestIndexer {
    /// How many have become known since the start.
    pub count: u64,
    /// The last of them.
    pub peer: PeerId,
}

impl NewestIndexer {
    fn add(&mut self, peer: PeerId) {
        self.count += 1;
        self.peer = peer;
    }
}

/// The live indexers, at most `I`, and the last newcomer; before the first one its count is zero.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LiveIndexers<const I: usize>(Table<LiveIndexer, I>, NewestIndexer);

impl<const I: usize> LiveIndexers<I> {
    /// No indexer is live.
    pub(super) const fn new() -> Self {
        let none = NewestIndexer {
            count: 0,
            peer: PeerId::from_bytes([0; 32]),
        };
        Self(Table::new(), none)
    }

    /// A beat of `peer`; its lease now runs `lease`. Without a record, only an existing entry is
    /// renewed. Returns whether the beat brought a record that is new here, or an error if the
    /// table is full.
    pub(super) fn beat(
        &mut self,
        now: Instant,
        peer: &PeerId,
        lease: Duration,
        load: Option<Load>,
        record: Option<&RecordInfo>,
    ) -> Result<bool, Full> {
        if let Some(entry) = self.0.find_mut(peer) {
            if entry.expires < now {
                entry.standing = Standing::new(now);
                self.1.add(*peer);
            }
            entry.source = Source::Heartbeat;
            entry.expires = now + lease;
            entry.verdict = Some((now, Verdict::Reachable));
            entry.heard = Some(now);
            // A beat without a load does not cancel promises that were made on a known load.
            if load.is_some() || entry.load.is_none() {
                entry.load = load.map(Load::clamped);
                entry.reserved = 0;
            }
            // The indexer's own record is not judged by a clock: the later it was signed, the
            // better it is.
            let news = record.filter(|record| record.sequence > entry.rank.sequence);
            if let Some(record) = news {
                entry.take_record(record);
            }
            return Ok(news.is_some());
        }
        let Some(record) = record else {
            return Ok(false);
        };
        self.make_room(now, Source::Heartbeat);
        let entry = LiveIndexer {
            heard: Some(now),
            load: load.map(Load::clamped),
            verdict: Some((now, Verdict::Reachable)),
            ..LiveIndexer::new(now, record, now + lease, Source::Heartbeat)
        };
        self.insert(entry).map(|()| true)
    }

    fn insert(&mut self, entry: LiveIndexer) -> Result<(), Full> {
        let peer = entry.peer;
        self.0.insert(entry).map_err(|_| Full)?;
        self.1.add(peer);
        Ok(())
    }

    /// The last newcomer; `None` before the first one.
    pub(super) fn newest(&self) -> Option<NewestIndexer> {
        (self.1.count > 0).then_some(self.1)
    }

    /// Makes the next record of the peer count, whatever its rank, because it may come from another
    /// device with the same identity.
    pub(super) fn forget_record(&mut self, peer: &PeerId) {
        if let Some(entry) = self.0.find_mut(peer) {
            entry.rank = RecordRank::default();
        }
    }

    /// Stores the best record that a search found, valid at wall-clock time `own_ms`, if the peer's
    /// entry is missing or worse. Returns whether it was stored.
    pub(super) fn found_in_dht(&mut self, now: Instant, own_ms: u64, record: &RecordInfo) -> bool {
        let expires = now + Duration::from_millis(record.expires_at_ms().saturating_sub(own_ms));
        if let Some(entry) = self.0.find_mut(&record.peer) {
            let is_worse = record.rank() < entry.rank
                || (entry.source == Source::Heartbeat && record.sequence < entry.rank.sequence);
            let is_news = record.rank() > entry.rank || expires > entry.expires;
            if is_worse || !is_news {
                return false;
            }
            entry.take_record(record);
            if expires > entry.expires {
                if entry.expires < now {
                    self.1.add(record.peer);
                }
                entry.expires = expires;
                entry.source = Source::Dht;
            }
            return true;
        }
        self.make_room(now, Source::Dht);
        let entry = LiveIndexer::new(now, record, expires, Source::Dht);
        self.insert(entry).is_ok()
    }

    /// When the peer's entry expires, if it has a live one.
    pub(super) fn expiry(&self, now: Instant, peer: &PeerId) -> Option<Instant> {
        self.find(now, peer).map(|entry| entry.expires)
    }

    /// Takes the result of a probe.
    pub(super) fn judge(&mut self, now: Instant, peer: &PeerId, verdict: Verdict) {
        if let Some(entry) = self.0.find_mut(peer) {
            entry.verdict = Some((now, verdict));
        }
    }

    /// Takes the result of a probe that began at `began`. A failed probe does not outweigh a beat
    /// that came since.
    pub(super) fn probe_ended(
        &mut self,
        now: Instant,
        began: Instant,
        peer: &PeerId,
        verdict: Verdict,
    ) {
        let beat_since = self
            .0
            .find(peer)
            .and_then(|entry| entry.heard)
            .is_some_and(|heard| heard >= began);
        if verdict == Verdict::Reachable || !beat_since {
            self.judge(now, peer, verdict);
        }
    }

    /// The peer's heartbeat stream has ended. It counts as unreachable until it reconnects or
    /// answers a probe.
    pub(super) fn disconnected(&mut self, peer: &PeerId) {
        if let Some(entry) = self.0.find_mut(peer) {
            entry.verdict = None;
        }
    }

    /// The peer's lease is over, so its load is no longer known. The entry expires by itself.
    pub(super) fn lease_ended(&mut self, peer: &PeerId) {
        if let Some(entry) = self.0.find_mut(peer) {
            entry.verdict = None;
            entry.load = None;
        }
    }

    /// The live entries, mutable.
    pub(super) fn iter_mut(&mut self, now: Instant) -> impl Iterator<Item = &mut LiveIndexer> {
        self.0.iter_mut().filter(move |entry| now <= entry.expires)
    }

    /// Cancels the promises of indexers that never reported their load, because no beat will cancel
    /// them.
    pub(super) fn forget_silent_promises(&mut self) {
        for entry in self.0.iter_mut().filter(|entry| entry.load.is_none()) {
            entry.reserved = 0;
        }
    }

    /// Removes a peer that gave its lease up. Returns how long a copy of its record may still be
    /// found in the DHT.
    pub(super) fn remove(&mut self, peer: &PeerId) -> Option<Duration> {
        self.0.remove(peer).map(|entry| entry.record_ttl)
    }

    /// Removes expired entries.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|entry| now <= entry.expires);
    }

    /// Extends the entries that beats made, like the leases behind them: each by its own `gap`.
    pub(super) fn shift(&mut self, gap: impl Fn(&PeerId) -> Duration) {
        for entry in self
            .0
            .iter_mut()
            .filter(|entry| entry.source == Source::Heartbeat)
        {
            entry.expires = entry.expires + gap(&entry.peer);
        }
    }

    /// The peer's entry, if it is live.
    pub(super) fn find(&self, now: Instant, peer: &PeerId) -> Option<&LiveIndexer> {
        self.0.find(peer).filter(|entry| now <= entry.expires)
    }

    /// Whether a question that arrived at `since` needs no probe of the peer, because there is a
    /// verdict or no live entry.
    pub(super) fn is_decided(&self, now: Instant, since: Instant, peer: &PeerId) -> bool {
        self.find(now, peer)
            .is_none_or(|entry| entry.verdict(since).is_some())
    }

    /// The peer's entry, even if it has expired and is not removed yet.
    pub(super) fn find_any(&self, peer: &PeerId) -> Option<&LiveIndexer> {
        self.0.find(peer)
    }

    /// The peer's entry, mutable.
    pub(super) fn find_mut(&mut self, peer: &PeerId) -> Option<&mut LiveIndexer> {
        self.0.find_mut(peer)
    }

    /// The entries that count.
    pub(super) fn iter(&self, now: Instant) -> impl Iterator<Item = &LiveIndexer> {
        self.0.iter().filter(move |entry| now <= entry.expires)
    }

    /// The live entries in the order of their ids, beginning after `after` and wrapping around
    /// once.
    pub(super) fn iter_after(
        &self,
        now: Instant,
        after: &PeerId,
    ) -> impl Iterator<Item = &LiveIndexer> {
        self.0
            .iter_after(after, I)
            .filter(move |entry| now <= entry.expires)
    }

    /// All entries in the order of their ids, from the cursor to the end, expired ones included.
    pub(super) fn iter_from(&self, from: Cursor) -> impl Iterator<Item = &LiveIndexer> {
        let (after, first) = match from {
            Cursor::Start => (PeerId::from_bytes([u8::MAX; 32]), None),
            Cursor::After(peer) => (peer, Some(peer)),
        };
        self.0
            .iter_after(&after, I)
            .take_while(move |entry| first.is_none_or(|first| entry.peer > first))
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self, now: Instant) -> TableStats {
        TableStats {
            used: self.iter(now).count(),
            ..self.0.stats("live_indexers")
        }
    }

    /// Makes room for one entry in a full table. It removes the entry that expired first. If none
    /// has expired, and the entry is made by a beat, it evicts the DHT entry that would expire
    /// first.
    fn make_room(&mut self, now: Instant, made_by: Source) {
        if !self.0.is_full() {
            return;
        }
        let is_beat = made_by == Source::Heartbeat;
        let first_to_go = self
            .0
            .iter()
            .filter(|entry| entry.expires < now || (is_beat && entry.source == Source::Dht))
            .min_by_key(|entry| (entry.expires >= now, entry.expires))
            .map(|entry| entry.peer);
        if let Some(peer) = first_to_go {
            self.0.evict(&peer);
        }
    }
}

/// The table has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;
