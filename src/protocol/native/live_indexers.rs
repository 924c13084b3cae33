//! `live_indexers`: the indexers that this native can hand out.
//!
//! Invariants:
//! - An entry that a beat made expires at receipt + lease granted, one from the DHT at the end of its record's life. It is removed by
//!   nothing else, except that its indexer gives the lease up or takes another role, or that a full table needs its place.
//! - An entry that has run out takes no room. Besides those, a beat displaces in a full table the DHT entry that would expire first; an
//!   entry from the DHT displaces nothing. Each entry displaced is counted.
//! - A better record is never replaced by a worse one. What a beat brought is replaced by a copy of the DHT only if that is better by
//!   its rank and was not signed before it: an indexer's own word is judged by no clock.
//! - No indexer is said to have more free leases than it last reported, less the places promised since.

use core::time::Duration;

use crate::protocol::{
    Addrs, Cursor, Instant, Load, Offer, PeerId, RecordInfo,
    table::{Keyed, Table, TableStats},
};

/// How long a beat, a pong or a failed probe speaks for an indexer: 10 s (PROTOCOL.md).
pub const VERDICT_TTL: Duration = Duration::from_secs(10);

/// Free leases beyond which one indexer is as good as another. What an indexer reports cannot be checked, so a great number is worth
/// no more than room for all that come until its next beat.
const ENOUGH: u32 = 64;

/// How an entry came to be.
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
    /// How it came to be.
    pub source: Source,
    /// Rank and time to live of the record behind it.
    rank: (u64, u64),
    record_ttl: Duration,
    /// Receipt of its last beat; `None`: known from the DHT only.
    heard: Option<Instant>,
    load: Option<Load>,
    /// Places promised to released nodes since the indexer's last word about its load.
    reserved: u32,
    verdict: Option<(Instant, bool)>,
}

impl Keyed for LiveIndexer {
    fn peer(&self) -> &PeerId {
        &self.peer
    }
}

impl LiveIndexer {
    /// Whether the indexer is reachable, as far as a beat, pong or failed probe tells that came at most 10 s before `since` or any
    /// time after it. `since` is now, or when the question arrived: a verdict that was good then is good for its answer.
    pub fn verdict(&self, since: Instant) -> Option<bool> {
        self.verdict
            .filter(|(at, _)| since - *at <= VERDICT_TTL)
            .map(|(_, alive)| alive)
    }

    /// Receipt of its last beat; `None`: it is known from the DHT only.
    pub fn last_beat(&self) -> Option<Instant> {
        self.heard
    }

    /// Leases it has to give, less those promised; `None` if it never said.
    pub fn free(&self) -> Option<u32> {
        self.load.map(|load| {
            load.possible
                .saturating_sub(load.held)
                .saturating_sub(self.reserved)
        })
    }

    /// Whether it makes sense to send a node there.
    pub fn has_room(&self) -> bool {
        self.free() != Some(0)
    }

    /// How many nodes the offload loop may send there: an unknown number of free leases counts as one.
    pub fn places(&self) -> u32 {
        self.free().unwrap_or(1_u32.saturating_sub(self.reserved))
    }

    /// How it ranks among others: the free leases it reports, of which more than [`ENOUGH`] count for no more, less those promised. An
    /// indexer that boasts gets no more nodes than one that has room.
    pub fn weight(&self) -> i64 {
        let reported = self
            .load
            .map_or(1, |load| load.possible.saturating_sub(load.held));
        i64::from(reported.min(ENOUGH)) - i64::from(self.reserved)
    }

    /// Promises a place until the indexer's next beat.
    pub fn reserve(&mut self) {
        self.reserved = self.reserved.saturating_add(1);
    }

    /// What a node is told.
    pub fn offer(&self, now: Instant) -> Offer {
        Offer {
            peer: self.peer,
            addrs: self.addrs.clone(),
            ttl: self.expires - now,
            free: self.free(),
        }
    }
}

/// At most `I` live indexers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveIndexers<const I: usize>(Table<LiveIndexer, I>);

impl<const I: usize> LiveIndexers<I> {
    /// No indexer is alive.
    pub const fn new() -> Self {
        Self(Table::new())
    }

    /// A beat of `peer`, whose lease now runs `lease`. Without a record only a peer that has an entry is renewed. Returns
    /// whether the beat brought a record that is new here, or that the table is full.
    pub fn beat(
        &mut self,
        now: Instant,
        peer: &PeerId,
        lease: Duration,
        load: Option<Load>,
        record: Option<&RecordInfo>,
    ) -> Result<bool, Full> {
        if let Some(entry) = self.0.find_mut(peer) {
            entry.source = Source::Heartbeat;
            entry.expires = now + lease;
            entry.verdict = Some((now, true));
            entry.heard = Some(now);
            // A beat that does not tell the load takes no promise back that was made on a known one.
            if load.is_some() || entry.load.is_none() {
                entry.load = load.map(Load::clamped);
                entry.reserved = 0;
            }
            // Its own word is judged by no clock: the later it was signed, the better.
            let news = record.filter(|record| record.sequence > entry.rank.1);
            if let Some(record) = news {
                entry.addrs.clone_from(&record.addrs);
                entry.rank = record.rank();
                entry.record_ttl = record.ttl;
            }
            return Ok(news.is_some());
        }
        let Some(record) = record else {
            return Ok(false);
        };
        self.make_room(now, true);
        let entry = LiveIndexer {
            peer: *peer,
            addrs: record.addrs.clone(),
            expires: now + lease,
            source: Source::Heartbeat,
            rank: record.rank(),
            record_ttl: record.ttl,
            heard: Some(now),
            load: load.map(Load::clamped),
            reserved: 0,
            verdict: Some((now, true)),
        };
        self.0.insert(entry).map(|()| true).map_err(|_| Full)
    }

    /// The best record that a search found, valid at wall-clock time `own_ms`. It is stored if the peer's entry is missing
    /// or worse; returns whether it was.
    pub fn found_in_dht(&mut self, now: Instant, own_ms: u64, record: &RecordInfo) -> bool {
        let expires = now + Duration::from_millis(record.expires_at_ms().saturating_sub(own_ms));
        if let Some(entry) = self.0.find_mut(&record.peer) {
            let is_worse = record.rank() < entry.rank
                || (entry.source == Source::Heartbeat && record.sequence < entry.rank.1);
            let is_news = record.rank() > entry.rank || expires > entry.expires;
            if is_worse || !is_news {
                return false;
            }
            entry.addrs.clone_from(&record.addrs);
            entry.rank = record.rank();
            entry.record_ttl = record.ttl;
            if expires > entry.expires {
                entry.expires = expires;
                entry.source = Source::Dht;
            }
            return true;
        }
        self.make_room(now, false);
        let entry = LiveIndexer {
            peer: record.peer,
            addrs: record.addrs.clone(),
            expires,
            source: Source::Dht,
            rank: record.rank(),
            record_ttl: record.ttl,
            heard: None,
            load: None,
            reserved: 0,
            verdict: None,
        };
        self.0.insert(entry).is_ok()
    }

    /// When the peer's entry runs out, if it has one that still counts.
    pub fn expiry(&self, now: Instant, peer: &PeerId) -> Option<Instant> {
        self.find(now, peer).map(|entry| entry.expires)
    }

    /// The peer answered a probe, or did not.
    pub fn judge(&mut self, now: Instant, peer: &PeerId, alive: bool) {
        if let Some(entry) = self.0.find_mut(peer) {
            entry.verdict = Some((now, alive));
        }
    }

    /// A probe that began at `began` has ended. A failed one says nothing against a beat that came since.
    pub fn probe_ended(&mut self, now: Instant, began: Instant, peer: &PeerId, alive: bool) {
        let beat_since = self
            .0
            .find(peer)
            .and_then(|entry| entry.heard)
            .is_some_and(|heard| heard >= began);
        if alive || !beat_since {
            self.judge(now, peer, alive);
        }
    }

    /// The peer's heartbeat stream ended: it counts as not reachable until it is back or answers a probe.
    pub fn disconnected(&mut self, peer: &PeerId) {
        if let Some(entry) = self.0.find_mut(peer) {
            entry.verdict = None;
        }
    }

    /// The peer's lease is over: its load is no longer known. The entry is left to run out by itself.
    pub fn lease_ended(&mut self, peer: &PeerId) {
        if let Some(entry) = self.0.find_mut(peer) {
            entry.verdict = None;
            entry.load = None;
        }
    }

    /// Takes back the promises to nodes made on behalf of indexers that never told their load: no beat will do it.
    pub fn forget_silent_promises(&mut self) {
        for entry in self.0.iter_mut().filter(|entry| entry.load.is_none()) {
            entry.reserved = 0;
        }
    }

    /// The peer gave its lease up. Returns how long a copy of its record may still be found in the DHT.
    pub fn remove(&mut self, peer: &PeerId) -> Option<Duration> {
        self.0.remove(peer).map(|entry| entry.record_ttl)
    }

    /// Removes what has run out.
    pub fn expire(&mut self, now: Instant) {
        self.0.retain(|entry| now <= entry.expires);
    }

    /// Moves entries that beats made on, like the leases behind them: each by its own `gap`.
    pub fn shift(&mut self, gap: impl Fn(&PeerId) -> Duration) {
        for entry in self
            .0
            .iter_mut()
            .filter(|entry| entry.source == Source::Heartbeat)
        {
            entry.expires = entry.expires + gap(&entry.peer);
        }
    }

    /// The peer's entry, if it still counts.
    pub fn find(&self, now: Instant, peer: &PeerId) -> Option<&LiveIndexer> {
        self.0.find(peer).filter(|entry| now <= entry.expires)
    }

    /// Whether no probe of the peer is needed for a question that came at `since`: there is a verdict, or no entry that counts.
    pub fn is_decided(&self, now: Instant, since: Instant, peer: &PeerId) -> bool {
        self.find(now, peer)
            .is_none_or(|entry| entry.verdict(since).is_some())
    }

    /// The peer's entry, even if it has run out and was not removed yet.
    pub fn find_any(&self, peer: &PeerId) -> Option<&LiveIndexer> {
        self.0.find(peer)
    }

    /// The peer's entry, to be changed.
    pub fn find_mut(&mut self, peer: &PeerId) -> Option<&mut LiveIndexer> {
        self.0.find_mut(peer)
    }

    /// The entries that count.
    pub fn iter(&self, now: Instant) -> impl Iterator<Item = &LiveIndexer> {
        self.0.iter().filter(move |entry| now <= entry.expires)
    }

    /// The entries that count, in the order of their ids, beginning after `after`, once round.
    pub fn iter_after(&self, now: Instant, after: &PeerId) -> impl Iterator<Item = &LiveIndexer> {
        self.0
            .iter_after(after, I)
            .filter(move |entry| now <= entry.expires)
    }

    /// All entries in the order of their ids, from the cursor to the end; those that have run out too.
    pub fn iter_from(&self, from: Cursor) -> impl Iterator<Item = &LiveIndexer> {
        let (after, first) = match from {
            Cursor::Start => (PeerId::from_bytes([u8::MAX; 32]), None),
            Cursor::After(peer) => (peer, Some(peer)),
        };
        self.0
            .iter_after(&after, I)
            .take_while(move |entry| first.is_none_or(|first| entry.peer > first))
    }

    /// What the operator sees.
    pub fn stats(&self, now: Instant) -> TableStats {
        TableStats {
            used: self.iter(now).count(),
            ..self.0.stats("live_indexers")
        }
    }

    /// Makes room for one entry in a full table: what has run out goes, the first to run out first; else, `for_beat`, the entry of
    /// the DHT that would expire first.
    fn make_room(&mut self, now: Instant, for_beat: bool) {
        if !self.0.is_full() {
            return;
        }
        let first_to_go = self
            .0
            .iter()
            .filter(|entry| entry.expires < now || (for_beat && entry.source == Source::Dht))
            .min_by_key(|entry| (entry.expires >= now, entry.expires))
            .map(|entry| entry.peer);
        if let Some(peer) = first_to_go {
            self.0.evict(&peer);
        }
    }
}

/// The table has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Name;

    const LEASE: Duration = Duration::from_secs(90);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn record(n: u8, issued_at_ms: u64, ttl_ms: u64) -> RecordInfo {
        RecordInfo {
            peer: peer(n),
            sequence: issued_at_ms,
            issued_at_ms,
            ttl: Duration::from_millis(ttl_ms),
            addrs: Addrs::new(),
            name: Name::new(),
        }
    }

    #[test]
    fn an_entry_made_by_a_beat_counts_until_receipt_plus_lease() {
        let mut live = LiveIndexers::<4>::new();
        assert_eq!(live.beat(at(0), &peer(1), LEASE, None, None), Ok(false));
        assert!(
            live.find(at(0), &peer(1)).is_none(),
            "live only with a record"
        );
        assert_eq!(
            live.beat(at(0), &peer(1), LEASE, None, Some(&record(1, 0, 1))),
            Ok(true)
        );
        assert!(live.find(at(90_000), &peer(1)).is_some());
        assert!(live.find(at(90_001), &peer(1)).is_none());
    }

    #[test]
    fn an_entry_from_the_dht_counts_to_the_end_of_its_records_life() {
        let mut live = LiveIndexers::<4>::new();
        assert!(live.found_in_dht(at(5), 1_000_000, &record(1, 990_000, 30_000)));
        assert_eq!(live.find(at(5), &peer(1)).unwrap().expires, at(20_005));
    }

    #[test]
    fn a_copy_of_the_same_record_lengthens_an_entry_and_never_shortens_it() {
        let mut live = LiveIndexers::<4>::new();
        live.beat(at(0), &peer(1), LEASE, None, Some(&record(1, 0, 270_000)))
            .unwrap();
        assert!(
            !live.found_in_dht(at(0), 180_000, &record(1, 0, 270_000)),
            "as long as the entry"
        );
        assert!(
            live.found_in_dht(at(1), 180_000, &record(1, 0, 270_000)),
            "a millisecond longer"
        );
        assert!(
            !live.found_in_dht(at(2), 180_001, &record(1, 0, 270_000)),
            "the same again"
        );
        assert!(
            live.found_in_dht(at(2), 180_000, &record(1, 1, 270_000)),
            "re-signed"
        );
        assert_eq!(live.find(at(2), &peer(1)).unwrap().source, Source::Dht);
    }

    /// What remains of the record with this sequence and expiry after a copy with that sequence and expiry came from the DHT.
    fn after_copy(by_beat: (u64, u64), copy: (u64, u64)) -> (bool, u64, Instant) {
        let with = |(sequence, expires): (u64, u64)| RecordInfo {
            sequence,
            ..record(1, expires - 270_000, 270_000)
        };
        let mut live = LiveIndexers::<4>::new();
        live.beat(at(0), &peer(1), LEASE, None, Some(&with(by_beat)))
            .unwrap();
        let stored = live.found_in_dht(at(0), 1_000_000, &with(copy));
        let entry = live.find(at(0), &peer(1)).unwrap();
        (stored, entry.rank.1, entry.expires)
    }

    #[test]
    fn what_a_beat_brought_is_replaced_only_by_a_better_record() {
        let ours = (7, 1_270_000);
        for (copy, stored) in [
            ((6, 1_269_999), false),
            ((8, 1_269_999), false),
            ((6, 1_270_000), false),
            ((6, 1_270_001), false),
            ((8, 1_270_000), true),
            ((8, 1_270_001), true),
        ] {
            let kept = if stored { copy.0 } else { 7 };
            let (was_stored, sequence, _) = after_copy(ours, copy);
            assert_eq!((was_stored, sequence), (stored, kept), "{copy:?}");
        }
        // A better record that ends before the lease does: the lease goes on.
        let (stored, sequence, expires) = after_copy((7, 1_010_000), (8, 1_020_000));
        assert_eq!((stored, sequence, expires), (true, 8, at(90_000)));
    }

    #[test]
    fn an_entry_that_has_run_out_takes_no_room() {
        let full_at = |now| {
            let mut live = LiveIndexers::<2>::new();
            for n in [1, 2] {
                let lease = LEASE + Duration::from_secs(n.into());
                live.beat(at(0), &peer(n), lease, None, Some(&record(n, 0, 1)))
                    .unwrap();
            }
            let from_dht = live.clone().found_in_dht(at(now), 0, &record(3, 0, 9_000));
            let by_beat = live.beat(at(now), &peer(3), LEASE, None, Some(&record(3, 0, 1)));
            assert_eq!(live.stats(at(now)).evicted, u64::from(from_dht));
            assert!(live.find(at(now), &peer(2)).is_some());
            (from_dht, by_beat)
        };
        assert_eq!(full_at(91_000), (false, Err(Full)));
        assert_eq!(full_at(91_001), (true, Ok(true)));
    }

    #[test]
    fn a_failed_probe_does_not_outweigh_a_beat_that_came_while_it_ran() {
        for (began, alive) in [(999, true), (1_000, true), (1_001, false)] {
            let mut live = LiveIndexers::<4>::new();
            live.beat(at(1_000), &peer(1), LEASE, None, Some(&record(1, 0, 1)))
                .unwrap();
            live.probe_ended(at(2_999), at(began), &peer(1), false);
            let verdict = live.find(at(2_999), &peer(1)).unwrap().verdict(at(2_999));
            assert_eq!(verdict, Some(alive), "probe of {began}");
        }
    }

    #[test]
    fn after_a_beat_and_the_end_of_its_stream_a_probe_from_before_says_nothing() {
        let mut live = LiveIndexers::<4>::new();
        live.beat(at(1_000), &peer(1), LEASE, None, Some(&record(1, 0, 1)))
            .unwrap();
        live.disconnected(&peer(1));
        live.probe_ended(at(2_000), at(900), &peer(1), false);
        let verdict =
            |live: &LiveIndexers<4>| live.find(at(2_000), &peer(1)).unwrap().verdict(at(2_000));
        assert_eq!(verdict(&live), None);
        live.probe_ended(at(2_000), at(900), &peer(1), true);
        assert_eq!(verdict(&live), Some(true));
    }

    #[test]
    fn a_verdict_that_was_good_when_the_question_arrived_is_good_for_its_answer() {
        let mut live = LiveIndexers::<4>::new();
        live.beat(at(0), &peer(1), LEASE, None, Some(&record(1, 0, 1)))
            .unwrap();
        let entry = live.find(at(11_999), &peer(1)).unwrap();
        assert_eq!(entry.verdict(at(10_000)), Some(true), "asked then");
        assert_eq!(entry.verdict(at(10_001)), None);
    }

    #[test]
    fn loads_are_clamped_to_65535() {
        let mut live = LiveIndexers::<4>::new();
        let load = Some(Load {
            held: 70_000,
            possible: u32::MAX,
        });
        live.beat(at(0), &peer(1), LEASE, load, Some(&record(1, 0, 1)))
            .unwrap();
        assert_eq!(live.find(at(0), &peer(1)).unwrap().free(), Some(0));
        let load = Some(Load {
            held: 0,
            possible: u32::MAX,
        });
        live.beat(at(0), &peer(1), LEASE, load, None).unwrap();
        assert_eq!(live.find(at(0), &peer(1)).unwrap().free(), Some(65_535));
    }

    #[test]
    fn a_beat_displaces_the_dht_entry_that_would_expire_first() {
        let mut live = LiveIndexers::<2>::new();
        live.found_in_dht(at(0), 0, &record(1, 0, 9_000));
        live.found_in_dht(at(0), 0, &record(2, 0, 8_000));
        assert!(
            !live.found_in_dht(at(0), 0, &record(3, 0, 90_000)),
            "the DHT displaces nothing"
        );
        assert_eq!(
            live.beat(at(0), &peer(3), LEASE, None, Some(&record(3, 0, 1))),
            Ok(true)
        );
        assert!(live.find(at(0), &peer(2)).is_none());
        live.beat(at(0), &peer(4), LEASE, None, Some(&record(4, 0, 1)))
            .unwrap();
        assert_eq!(
            live.beat(at(0), &peer(5), LEASE, None, Some(&record(5, 0, 1))),
            Err(Full)
        );
        assert_eq!(live.stats(at(0)).used, 2);
        assert_eq!(
            (live.stats(at(0)).refused, live.stats(at(0)).evicted),
            (2, 2)
        );
    }

    #[test]
    fn a_verdict_speaks_for_ten_seconds() {
        let mut live = LiveIndexers::<4>::new();
        live.beat(at(0), &peer(1), LEASE, None, Some(&record(1, 0, 1)))
            .unwrap();
        let verdict =
            |live: &LiveIndexers<4>, now| live.find(at(now), &peer(1)).unwrap().verdict(at(now));
        assert_eq!(verdict(&live, 10_000), Some(true));
        assert_eq!(verdict(&live, 10_001), None);
        live.judge(at(11_000), &peer(1), false);
        assert_eq!(verdict(&live, 21_000), Some(false));
        assert_eq!(verdict(&live, 21_001), None);
        live.judge(at(22_000), &peer(1), true);
        live.disconnected(&peer(1));
        assert_eq!(
            verdict(&live, 22_000),
            None,
            "the stream it came on is closed"
        );
    }

    #[test]
    fn promises_hold_until_the_next_beat() {
        let mut live = LiveIndexers::<4>::new();
        let load = Some(Load {
            held: 1,
            possible: 3,
        });
        live.beat(at(0), &peer(1), LEASE, load, Some(&record(1, 0, 1)))
            .unwrap();
        let entry = live.find_mut(&peer(1)).unwrap();
        entry.reserve();
        assert_eq!((entry.free(), entry.places()), (Some(1), 1));
        entry.reserve();
        assert!(!entry.has_room());
        live.beat(at(1), &peer(1), LEASE, load, None).unwrap();
        assert_eq!(live.find(at(1), &peer(1)).unwrap().free(), Some(2));
    }

    #[test]
    fn an_unknown_number_of_free_leases_is_one_place() {
        let mut live = LiveIndexers::<4>::new();
        live.found_in_dht(at(0), 0, &record(1, 0, 9_000));
        let entry = live.find_mut(&peer(1)).unwrap();
        assert_eq!((entry.free(), entry.places()), (None, 1));
        entry.reserve();
        assert_eq!((entry.free(), entry.places()), (None, 0));
        live.forget_silent_promises();
        assert_eq!(live.find(at(0), &peer(1)).unwrap().places(), 1);
    }
}
