//! The leases that this process has granted, one record for each peer: `stream_records`.
//!
//! Invariants:
//! - a peer has at most one record, and the record names the newest heartbeat stream of that peer; the late end of
//!   an older stream touches nothing;
//! - a record leaves in two ways only: its peer gave the lease up, or it is stale;
//! - whatever removes a record, its stream is closed ([`LeaseTable::pop_closed`]);
//! - no newcomer is refused for the room of a record that has run out, and making that room leaves the
//!   newcomer's own record, which its late beat renews.
//!
//! The queue of streams to close has room for every record. The driver empties it after each input, except when it has overslept:
//! if more streams were replaced in the meantime than fit, the oldest are left to their clients, who have left them.

use core::{ops::Range, time::Duration};

use heapless::Deque;

use super::{
    Ack, Beat, Instant, PeerId, Role, StreamId,
    address::Source,
    rivals::Rivals,
    table::{Keyed, Table, TableStats},
    time::TokenBucket,
};

/// One lease granted: who holds it, on which stream, until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRecord {
    /// Who holds the lease.
    pub peer: PeerId,
    /// What the holder said it is.
    pub role: Role,
    /// Its newest heartbeat stream.
    pub stream: StreamId,
    /// Whether that stream is open.
    pub connected: bool,
    /// Receipt of the last valid beat.
    pub last_seen: Instant,
    /// Receipt of the last renewing beat, plus the lease granted.
    pub expiry: Instant,
    /// Where that stream comes from, if the driver said so.
    pub source: Option<Source>,
}

impl Keyed for StreamRecord {
    fn peer(&self) -> &PeerId {
        &self.peer
    }
}

/// The diagram's staleness rule: `now > expiry`, or more time since the last beat than twice what remains of the lease.
pub fn is_stale(now: Instant, last_seen: Instant, expiry: Instant) -> bool {
    now > expiry || now - last_seen > (expiry - now).saturating_mul(2)
}

/// At most `S` leases granted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeaseTable<const S: usize> {
    records: Table<StreamRecord, S>,
    closed: ClosedStreams<S>,
    joins: TokenBucket,
    /// Identities that two devices use.
    pub rivals: Rivals,
}

impl<const S: usize> LeaseTable<S> {
    /// No lease granted.
    pub const fn new() -> Self {
        Self {
            records: Table::new(),
            closed: ClosedStreams(Deque::new()),
            joins: TokenBucket::new(),
            rivals: Rivals::new(),
        }
    }

    /// What to answer to a beat that may not be heard at all.
    pub fn refusal(
        &mut self,
        now: Instant,
        from: &PeerId,
        stream: StreamId,
        beat: &Beat<'_>,
    ) -> Option<Ack> {
        let record = self.records.find(from);
        if record.is_some_and(|record| stream < record.stream) {
            return Some(Ack::refused("a newer heartbeat stream of yours is open"));
        }
        if beat.record.is_some_and(|(info, _)| info.peer != *from) {
            return Some(Ack::refused(
                "the record's subject is not you: only your own record counts",
            ));
        }
        let record = record.filter(|record| record.connected && record.stream != stream)?;
        let kept = record.source?.host;
        let newcomer = self.rivals.source(from, stream)?.host;
        if kept == newcomer {
            return None;
        }
        self.rivals.takeover(now, from, kept, stream, newcomer)
    }

    /// What to answer to a peer that [`LeaseTable::renew`] would not take. Takes a newcomer's token.
    pub fn no_room_for(&mut self, now: Instant, peer: &PeerId) -> Option<Ack> {
        let why = if self.records.contains(peer) {
            return None;
        } else if self.records.is_full() {
            "stream_records is full, no more leases can be held here: try another server"
        } else if !self.joins.take(now) {
            "too many peers join at once: try again in a moment"
        } else {
            return None;
        };
        self.records.count_refusal();
        Some(Ack::full(why))
    }

    /// Counts a beat: the lease runs `lease` from `now`. A newer stream of the peer replaces its older one.
    pub fn renew(
        &mut self,
        now: Instant,
        peer: PeerId,
        role: Role,
        stream: StreamId,
        lease: Duration,
    ) {
        if let Some(record) = self.touch(now, &peer, stream) {
            record.role = role;
            record.expiry = now + lease;
            return;
        }
        let record = StreamRecord {
            peer,
            role,
            stream,
            connected: true,
            last_seen: now,
            expiry: now + lease,
            source: self.rivals.source(&peer, stream),
        };
        // Without room the caller did not ask `no_room_for`; the beat then makes no lease.
        let _ = self.records.insert(record);
    }

    /// Counts a beat that renews nothing, and returns its record.
    pub fn seen(&mut self, now: Instant, peer: &PeerId, stream: StreamId) -> Option<&StreamRecord> {
        self.touch(now, peer, stream).map(|record| &*record)
    }

    fn touch(
        &mut self,
        now: Instant,
        peer: &PeerId,
        stream: StreamId,
    ) -> Option<&mut StreamRecord> {
        let record = self.records.find_mut(peer)?;
        if record.stream != stream {
            self.closed.push(*peer, record.stream);
            record.stream = stream;
            record.source = None;
        }
        if record.source.is_none() {
            record.source = self.rivals.source(peer, stream);
        }
        record.connected = true;
        record.last_seen = now;
        Some(record)
    }

    /// The end of a stream is not the end of its lease. Returns whether it was the peer's newest stream.
    pub fn disconnected(&mut self, peer: &PeerId, stream: StreamId) -> bool {
        match self.records.find_mut(peer) {
            Some(record) if record.stream == stream => {
                record.connected = false;
                true
            }
            _ => false,
        }
    }

    /// Ends the peer's lease and closes its stream.
    pub fn remove(&mut self, peer: &PeerId) -> Option<StreamRecord> {
        let record = self.records.remove(peer)?;
        self.closed.push(record.peer, record.stream);
        self.rivals.forget(peer);
        Some(record)
    }

    /// Turns a peer away that held or wants a place which others need; counted as one that found no room.
    pub fn turn_away(&mut self, peer: &PeerId) {
        self.remove(peer);
        self.records.count_refusal();
    }

    /// Removes every stale record, closes its stream, and names each peer to `gone`: the diagram's stream GC.
    pub fn collect(&mut self, now: Instant, gone: impl FnMut(&PeerId)) {
        self.remove_all(
            |record| is_stale(now, record.last_seen, record.expiry),
            gone,
        );
    }

    /// Removes every record whose lease has run out, likewise.
    ///
    /// The lease of `newcomer`, for whom room is made, stays: its late beat renews it, and the stream that it came on stays open.
    pub fn expire(&mut self, now: Instant, newcomer: &PeerId, gone: impl FnMut(&PeerId)) {
        self.remove_all(
            |record| now > record.expiry && record.peer != *newcomer,
            gone,
        );
    }

    fn remove_all(
        &mut self,
        is_over: impl Fn(&StreamRecord) -> bool,
        mut gone: impl FnMut(&PeerId),
    ) {
        self.records.retain(|record| {
            let is_over = is_over(record);
            if is_over {
                self.closed.push(record.peer, record.stream);
                gone(&record.peer);
            }
            !is_over
        });
    }

    /// Moves every lease on by `gap`: time in which this process could not hear beats is not held against their senders. Who was
    /// heard in the meantime moves on by less.
    pub fn shift(&mut self, now: Instant, gap: Duration) {
        for record in self.records.iter_mut() {
            let gap = gap.min(now - record.last_seen);
            record.last_seen = record.last_seen + gap;
            record.expiry = record.expiry + gap;
        }
    }

    /// Time since the peer's last beat; endless for who holds no lease.
    pub fn silence(&self, now: Instant, peer: &PeerId) -> Duration {
        self.find(peer)
            .map_or(Duration::MAX, |record| now - record.last_seen)
    }

    /// The peer's lease.
    pub fn find(&self, peer: &PeerId) -> Option<&StreamRecord> {
        self.records.find(peer)
    }

    /// All leases.
    pub fn iter(&self) -> impl Iterator<Item = &StreamRecord> {
        self.records.iter()
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether a newcomer would find no room.
    pub fn is_full(&self) -> bool {
        self.records.is_full()
    }

    /// Whether there is no lease.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The next stream to close, and whose it is.
    pub fn pop_closed(&mut self) -> Option<(PeerId, StreamId)> {
        self.closed.0.pop_front()
    }

    /// Where no record is; what is written there means nothing.
    pub fn spare(&mut self) -> Range<*mut u8> {
        self.records.spare()
    }

    /// What the operator sees of `stream_records`.
    pub fn stats(&self) -> TableStats {
        self.records.stats("stream_records")
    }
}

#[derive(Clone, Debug, Default)]
struct ClosedStreams<const S: usize>(Deque<(PeerId, StreamId), S>);

impl<const S: usize> ClosedStreams<S> {
    fn push(&mut self, peer: PeerId, stream: StreamId) {
        if self.0.is_full() {
            self.0.pop_front();
        }
        // There is room now.
        let _ = self.0.push_back((peer, stream));
    }
}

impl<const S: usize> PartialEq for ClosedStreams<S> {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().eq(other.0.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::AckCode;

    const LEASE: Duration = Duration::from_secs(90);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn table_with(peers: &[u8], now: Instant) -> LeaseTable<4> {
        let mut table = LeaseTable::new();
        for &n in peers {
            table.renew(now, peer(n), Role::Indexer, StreamId(u64::from(n)), LEASE);
        }
        table
    }

    #[test]
    fn a_silent_lease_is_stale_just_after_two_thirds_of_it() {
        let (seen, expiry) = (at(0), at(90_000));
        assert!(!is_stale(at(59_999), seen, expiry));
        assert!(!is_stale(at(60_000), seen, expiry), "equal is not more");
        assert!(is_stale(at(60_001), seen, expiry));
    }

    #[test]
    fn a_lease_is_stale_after_its_expiry_even_if_just_seen() {
        assert!(!is_stale(at(90_000), at(90_000), at(90_000)));
        assert!(is_stale(at(90_001), at(90_001), at(90_000)));
    }

    #[test]
    fn what_remains_of_a_lease_saturates_at_zero() {
        assert!(is_stale(at(u64::MAX), at(0), at(1)));
        assert!(
            !is_stale(at(0), at(5), at(10)),
            "a clock that stood still makes nothing stale"
        );
    }

    #[test]
    fn late_beat_renews_before_gc() {
        let mut table = table_with(&[1], at(0));
        table.renew(at(60_001), peer(1), Role::Indexer, StreamId(1), LEASE);
        table.collect(at(60_001), |_| panic!("it was renewed"));
        assert_eq!(table.find(&peer(1)).unwrap().expiry, at(150_001));
    }

    #[test]
    fn gc_takes_the_stale_and_leaves_the_others_undisturbed() {
        let mut table = table_with(&[1, 2, 3], at(0));
        table.renew(at(30_000), peer(2), Role::Indexer, StreamId(2), LEASE);
        let before = table.find(&peer(2)).cloned();
        let mut gone = std::vec::Vec::new();
        table.collect(at(60_001), |p| gone.push(*p));
        gone.sort();
        assert_eq!(gone, [peer(1), peer(3)]);
        assert_eq!(table.find(&peer(2)).cloned(), before);
        let closed: std::vec::Vec<_> = std::iter::from_fn(|| table.pop_closed()).collect();
        assert_eq!(closed.len(), 2);
        assert!(!closed.contains(&(peer(2), StreamId(2))));
    }

    #[test]
    fn a_newer_stream_replaces_the_older_whose_late_end_touches_nothing() {
        let mut table = table_with(&[1], at(0));
        table.renew(at(1_000), peer(1), Role::Indexer, StreamId(9), LEASE);
        assert_eq!(table.pop_closed(), Some((peer(1), StreamId(1))));
        assert!(!table.disconnected(&peer(1), StreamId(1)));
        assert!(table.find(&peer(1)).unwrap().connected);
        assert!(table.disconnected(&peer(1), StreamId(9)));
        assert!(!table.find(&peer(1)).unwrap().connected);
    }

    /// What a beat on a new stream from this address is told; without a refusal it renews.
    fn beat_from(table: &mut LeaseTable<4>, now: u64, stream: u64, host: u8) -> Option<Ack> {
        let ip = core::net::IpAddr::from([192, 0, 2, host]);
        let source = core::net::SocketAddr::new(ip, 1000 + stream as u16).into();
        table.rivals.opened(&peer(1), StreamId(stream), source);
        let beat = Beat {
            role: Role::Node,
            lease: LEASE,
            record: None,
            load: None,
            known: &[],
        };
        let refused = table.refusal(at(now), &peer(1), StreamId(stream), &beat);
        if refused.is_none() {
            table.renew(at(now), peer(1), Role::Node, StreamId(stream), LEASE);
        }
        refused
    }

    #[test]
    fn two_devices_with_one_identity_end_with_the_newcomer_refused() {
        let mut table = LeaseTable::new();
        for (stream, host) in [(1, 1), (2, 2), (3, 1)] {
            assert_eq!(beat_from(&mut table, stream * 100, stream, host), None);
        }
        let refused = beat_from(&mut table, 400, 4, 2).unwrap();
        assert_eq!(refused.code, AckCode::Refused);
        assert!(refused.reason.contains("192.0.2.1"), "{}", refused.reason);
        assert_eq!(table.find(&peer(1)).unwrap().stream, StreamId(3));
        assert_eq!(
            beat_from(&mut table, 500, 5, 1),
            None,
            "the one that is kept comes again"
        );
        table.remove(&peer(1));
        assert_eq!(beat_from(&mut table, 600, 6, 2), None, "the other has left");
    }

    #[test]
    fn one_device_is_never_refused_however_often_it_comes() {
        let mut table = LeaseTable::new();
        for stream in 1..20 {
            assert_eq!(beat_from(&mut table, stream, stream, 1), None);
        }
        // With another address, too, when its old stream has ended before.
        for stream in 20..40 {
            table.disconnected(&peer(1), StreamId(stream - 1));
            assert_eq!(beat_from(&mut table, stream, stream, stream as u8), None);
        }
    }

    #[test]
    fn a_full_table_refuses_newcomers_and_still_renews() {
        let mut table = table_with(&[1, 2, 3, 4], at(0));
        let ack = table.no_room_for(at(1), &peer(5)).unwrap();
        assert_eq!(ack.code, AckCode::Full);
        assert!(ack.reason.contains("stream_records is full"));
        assert_eq!(table.no_room_for(at(1), &peer(4)), None);
        assert_eq!(table.stats().refused, 1);
    }

    #[test]
    fn a_late_beat_into_a_full_table_keeps_its_lease_and_its_stream() {
        let mut table = table_with(&[1, 2, 3, 4], at(0));
        let mut gone = std::vec::Vec::new();
        table.expire(at(90_001), &peer(1), |p| gone.push(*p));
        gone.sort();
        assert_eq!(gone, [peer(2), peer(3), peer(4)]);
        table.renew(at(90_001), peer(1), Role::Indexer, StreamId(1), LEASE);
        let closed: std::vec::Vec<_> = std::iter::from_fn(|| table.pop_closed()).collect();
        assert!(!closed.contains(&(peer(1), StreamId(1))));
        assert_eq!(table.find(&peer(1)).unwrap().expiry, at(180_001));
    }

    #[test]
    fn sleeping_moves_leases_on_by_the_gap() {
        let mut table = table_with(&[1], at(0));
        table.shift(at(3_600_000), Duration::from_secs(3600));
        table.collect(at(3_660_000), |_| panic!("slept, not silent"));
        assert_eq!(table.len(), 1);
        table.collect(at(3_660_001), |_| ());
        assert!(table.is_empty());
    }

    #[test]
    fn who_was_heard_while_catching_up_moves_on_by_no_more_than_its_silence() {
        let mut table = table_with(&[1, 2], at(0));
        table.renew(at(3_600_000), peer(1), Role::Indexer, StreamId(1), LEASE);
        table.shift(at(3_600_010), Duration::from_secs(3600));
        assert_eq!(table.find(&peer(1)).unwrap().expiry, at(3_690_010));
        assert_eq!(table.find(&peer(2)).unwrap().expiry, at(3_690_000));
    }
}
