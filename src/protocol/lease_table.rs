//! The leases that this process has granted, with one record for each peer: `stream_records`.
//!
//! Invariants:
//! - a peer has at most one record, and the record names the newest heartbeat stream of that peer;
//!   the late end of an older stream has no effect;
//! - a record is removed for two reasons only: its peer gave the lease up, or it is stale;
//! - whenever a record is removed, its stream is closed ([`LeaseTable::pop_closed`]);
//! - no newcomer is refused because of an expired record; and when expired records are removed to
//!   make room, the newcomer's own record stays, because its late beat renews it.
//!
//! The queue of streams to close has room for every record. The driver empties it after each input,
//! except after an oversleep. If more streams were replaced meanwhile than fit, the oldest are not
//! closed here, because their clients have abandoned them already.

mod closed;
pub(crate) mod flaps;
mod shares;
#[cfg(test)]
mod tests;

use core::time::Duration;

use super::{
    Ack, Beat, BeatOutcome, Instant, PeerId, Role, SignedRecord, StreamId, Verdict,
    address::TransportAddr,
    life::{Arrival, EndCause, Joined, LeaseEnd, seconds},
    reader::Reader,
    rivals::{Displaced, FirstBeat, Holder, Rivals, is_soon},
    table::{Keyed, Slot, Table, TableStats, Vacant},
    time::TokenBucket,
};

pub(crate) use closed::Closed;
use closed::ClosedStreams;
use flaps::Flaps;
pub(crate) use shares::Memory;

/// One lease granted: its holder, its stream and its expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRecord {
    /// The holder of the lease.
    pub peer: PeerId,
    /// The role that the holder stated.
    pub role: Role,
    /// Its newest heartbeat stream.
    pub stream: StreamId,
    /// Whether that stream is open.
    pub connected: bool,
    /// Whether its last beat renewed the lease.
    pub renewed: bool,
    /// When the lease was first granted.
    pub since: Instant,
    /// Receipt of the last valid beat.
    pub last_seen: Instant,
    /// Receipt of the last renewing beat, plus the lease granted.
    pub expiry: Instant,
    /// Where that stream comes from, if the driver reported it.
    pub source: Option<TransportAddr>,
    /// The addresses that the holder can use, as far as is known.
    pub reader: Reader,
}

impl StreamRecord {
    fn end(&self, now: Instant, how: EndCause) -> LeaseEnd {
        LeaseEnd {
            how,
            role: self.role,
            held_s: seconds(now - self.since),
            silent_s: seconds(now - self.last_seen),
        }
    }
}

impl Keyed for StreamRecord {
    fn peer(&self) -> &PeerId {
        &self.peer
    }
}

/// The diagram's staleness rule: `now > expiry`, or more time since the last beat than twice what
/// remains of the lease.
pub(crate) fn is_stale(now: Instant, last_seen: Instant, expiry: Instant) -> bool {
    now > expiry || now - last_seen > (expiry - now).saturating_mul(2)
}

/// The sender of an admitted beat and the place of its lease, which is looked up once for the whole
/// beat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    /// The peer.
    pub peer: &'a PeerId,
    /// The stream of its beat.
    pub stream: StreamId,
    /// Its role when its lease was last renewed; `None` if it holds no lease here.
    pub role: Option<Role>,
    /// The addresses that it can use, according to its record. The caller adds what else it knows.
    pub reader: Reader,
    /// It comes from another host than before. It may be another device, and then the earlier
    /// device's record is no longer valid.
    pub moved: bool,
    slot: Option<Slot>,
}

impl Sender<'_> {
    /// Whether it holds no lease here.
    pub(crate) fn is_newcomer(&self) -> bool {
        self.slot.is_none()
    }
}

/// A table of at most `S` leases.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LeaseTable<const S: usize> {
    records: Table<StreamRecord, S>,
    closed: ClosedStreams<S>,
    joins: TokenBucket,
    /// Identities that are used by two devices.
    pub rivals: Rivals,
    /// Peers that come and go.
    pub flaps: Flaps,
}

impl<const S: usize> LeaseTable<S> {
    /// No lease granted.
    pub(crate) const fn new() -> Self {
        Self {
            records: Table::new(),
            closed: ClosedStreams::new(),
            joins: TokenBucket::new(),
            rivals: Rivals::new(),
            flaps: Flaps::new(),
        }
    }

    /// Decides about the first beat of a peer's stream that comes from `source`.
    pub(crate) fn stream_opened(
        &mut self,
        now: Instant,
        peer: &PeerId,
        stream: StreamId,
        source: TransportAddr,
    ) -> FirstBeat {
        self.rivals.opened(peer, stream, source);
        self.rivals.beat_from(peer, source.host);
        let holder = self.records.find(peer).and_then(|record| {
            let holder = Holder {
                stream: record.stream,
                host: record.source?.host,
            };
            let is_at_home = holder.host == source.host;
            let counts =
                record.connected || (!is_at_home && self.rivals.refuses(peer, source.host));
            let (quiet, lease) = (now - record.last_seen, record.expiry - record.last_seen);
            let is_replaced = record.stream < stream && counts;
            is_replaced.then_some((holder, is_soon(quiet, lease)))
        });
        let (first_beat, displaced) = match holder {
            Some((holder, _)) if holder.host != source.host => {
                self.rivals.newcomer(now, peer, holder, stream, source)
            }
            Some((holder, true)) => {
                let displaced = self.rivals.replaced_at_home(now, peer, holder.host);
                (FirstBeat::Now, displaced)
            }
            _ => return FirstBeat::Now,
        };
        if let Some(Displaced { peer, stream }) = displaced {
            self.closed.push(peer, stream, None);
        }
        first_beat
    }

    /// Admits a beat, or returns the answer to one that is refused.
    #[expect(clippy::result_large_err, reason = "of a refusal alone")]
    pub(crate) fn admit<'a>(
        &mut self,
        from: &'a PeerId,
        stream: StreamId,
        beat: &Beat<SignedRecord<'_>>,
    ) -> Result<Sender<'a>, BeatOutcome<'static>> {
        let slot = self.records.locate(from);
        let record = slot.and_then(|slot| self.records.at(slot));
        let mut moved = false;
        let is_newest = record.is_some_and(|record| record.stream == stream);
        if !is_newest && self.rivals.is_held(from, stream) {
            return Err(Ack::refused(
                "the first beat of this stream is not decided yet: send no second one before its ack",
            )
            .into());
        }
        if let Some(record) = record {
            let host = record.source.map(|source| source.host);
            if is_newest {
                if let Some(host) = host {
                    self.rivals.beat_from(from, host);
                }
            } else if let (Some(host), Some(newcomer)) = (host, self.rivals.source(from, stream))
                && host != newcomer.host
            {
                moved = true;
                if let Some(refusal) = self.rivals.refusal(from, stream) {
                    return Err(BeatOutcome {
                        arrival: Arrival::Rival,
                        ..refusal.into()
                    });
                }
            }
            if stream < record.stream {
                return Err(Ack::refused("a newer heartbeat stream of yours is open").into());
            }
        }
        let is_foreign = |record: &SignedRecord<'_>| record.info.peer != *from;
        if beat.record.as_ref().is_some_and(is_foreign) {
            return Err(Ack::refused(
                "the record's subject is not you: only your own record counts",
            )
            .into());
        }
        Ok(Sender {
            peer: from,
            stream,
            role: record.map(|record| record.role),
            reader: record.map(|record| record.reader).unwrap_or_default(),
            moved,
            slot,
        })
    }

    /// The answer to a sender for which [`LeaseTable::renew`] would have no room. Takes a
    /// newcomer's token.
    pub(crate) fn no_room_for(
        &mut self,
        now: Instant,
        sender: &Sender<'_>,
        memory: impl FnOnce() -> Memory,
    ) -> Option<Ack<'static>> {
        if !sender.is_newcomer() {
            return None;
        }
        let memory = memory();
        if memory != Memory::Configured
            && let Some(reason) = self.flaps.refusal(now, sender.peer)
        {
            return Some(Ack::refused(&reason));
        }
        let why = if self.records.is_full() {
            "stream_records is full, no more leases can be held here: try another server"
        } else if self.keeps_from(sender, memory) {
            "the last places are kept for other addresses: many peers at yours hold leases here"
        } else if !self.joins.take(now) {
            "too many peers join at once: try again in a moment"
        } else {
            return None;
        };
        self.records.count_refusal();
        Some(Ack::full(why))
    }

    /// Counts a beat: the lease runs for `lease` from `now`. A newer stream of the peer replaces
    /// its older one.
    pub(crate) fn renew(
        &mut self,
        now: Instant,
        sender: &Sender<'_>,
        role: Role,
        lease: Duration,
    ) -> Arrival {
        let before = self.find_at(sender).map(|record| {
            let was_gone = !record.connected || now > record.expiry;
            let away = was_gone.then(|| now - record.last_seen);
            (record.source.filter(|_| sender.moved), away)
        });
        if let Some((from, away)) = before
            && let Some(record) = self.touch(now, sender)
        {
            record.role = role;
            record.expiry = now + lease;
            record.renewed = true;
            let source = record.source;
            return match (from.zip(source), away) {
                (Some((from, to)), _) => Arrival::Moved { from, to },
                (None, Some(away)) => Arrival::Back { source, away },
                (None, None) => Arrival::Known,
            };
        }
        let Sender { peer, stream, .. } = *sender;
        let source = self.rivals.source(peer, stream);
        let record = StreamRecord {
            peer: *peer,
            role,
            stream,
            connected: true,
            renewed: true,
            since: now,
            last_seen: now,
            expiry: now + lease,
            source,
            reader: sender.reader,
        };
        // There is no room only if the caller did not ask `no_room_for`. Then the beat makes no
        // lease.
        let _ = self.records.insert(record);
        Arrival::Joined(Joined {
            source,
            ..Joined::default()
        })
    }

    fn find_at(&self, sender: &Sender<'_>) -> Option<&StreamRecord> {
        self.records.at(sender.slot?)
    }

    /// Counts a beat that does not renew the lease, and returns its record.
    pub(crate) fn seen(&mut self, now: Instant, sender: &Sender<'_>) -> Option<&StreamRecord> {
        let record = self.touch(now, sender)?;
        record.renewed = false;
        Some(record)
    }

    fn touch(&mut self, now: Instant, sender: &Sender<'_>) -> Option<&mut StreamRecord> {
        let record = self.records.at_mut(sender.slot?, sender.peer)?;
        if record.stream != sender.stream {
            self.closed.push(*sender.peer, record.stream, None);
            record.stream = sender.stream;
            record.source = None;
        }
        if record.source.is_none()
            && let Some(source) = self.rivals.source(sender.peer, sender.stream)
        {
            record.source = Some(source);
            self.rivals.holds(sender.peer, source.host);
        }
        record.connected = true;
        record.last_seen = now;
        record.reader = sender.reader;
        Some(record)
    }

    /// Adds knowledge of the addresses that the peer can use, if it holds a lease.
    pub(crate) fn note_reader(&mut self, peer: &PeerId, reader: Reader) {
        if let Some(record) = self.records.find_mut(peer) {
            record.reader = reader;
        }
    }

    /// The end of a stream is not the end of its lease. Returns whether it was the peer's newest
    /// stream.
    pub(crate) fn disconnected(&mut self, peer: &PeerId, stream: StreamId) -> bool {
        match self.records.find_mut(peer) {
            Some(record) if record.stream == stream => {
                record.connected = false;
                self.rivals.probed(peer, stream, Verdict::Silent);
                true
            }
            _ => false,
        }
    }

    /// Ends the peer's lease and closes its stream.
    pub(crate) fn remove(
        &mut self,
        now: Instant,
        peer: &PeerId,
        how: EndCause,
    ) -> Option<StreamRecord> {
        let record = self.records.remove(peer)?;
        let end = record.end(now, how);
        self.closed.push(record.peer, record.stream, Some(end));
        self.rivals.forget(peer);
        if how == EndCause::Left {
            self.flaps.left(now, peer);
        }
        Some(record)
    }

    /// Ends or denies a lease because other peers need its place. It is counted as a refusal for
    /// lack of room.
    pub(crate) fn turn_away(&mut self, now: Instant, peer: &PeerId) {
        self.remove(now, peer, EndCause::Yielded);
        self.records.count_refusal();
    }

    /// Removes every stale record, closes its stream, and gives each record to `gone`: the
    /// diagram's stream GC. Returns how many they are.
    pub(crate) fn collect(&mut self, now: Instant, mut gone: impl FnMut(&StreamRecord)) -> usize {
        let mut count = 0;
        self.remove_all(
            now,
            |record| is_stale(now, record.last_seen, record.expiry),
            |record| {
                count += 1;
                gone(record);
            },
        );
        count
    }

    /// Removes every record with an expired lease, in the same way.
    ///
    /// The lease of `newcomer`, for which room is made, stays: its late beat renews it, and the
    /// stream of that beat stays open.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        newcomer: &PeerId,
        gone: impl FnMut(&StreamRecord),
    ) {
        self.remove_all(
            now,
            |record| now > record.expiry && record.peer != *newcomer,
            gone,
        );
    }

    fn remove_all(
        &mut self,
        now: Instant,
        is_over: impl Fn(&StreamRecord) -> bool,
        mut gone: impl FnMut(&StreamRecord),
    ) {
        self.records.retain(|record| {
            let is_over = is_over(record);
            if is_over {
                let how = match record.renewed {
                    true => EndCause::Lost,
                    false => EndCause::Released,
                };
                let end = record.end(now, how);
                self.closed.push(record.peer, record.stream, Some(end));
                self.rivals.forget(&record.peer);
                gone(record);
            }
            !is_over
        });
    }

    /// Extends every lease by `gap`, because this process could not receive beats in that time. The
    /// lease of a peer that has beaten meanwhile is extended by less.
    pub(crate) fn shift(&mut self, now: Instant, gap: Duration) {
        for record in self.records.iter_mut() {
            let gap = gap.min(now - record.last_seen);
            record.last_seen = record.last_seen + gap;
            record.expiry = record.expiry + gap;
        }
    }

    /// Time since the peer's last beat; endless for a peer without a lease.
    pub(crate) fn silence(&self, now: Instant, peer: &PeerId) -> Duration {
        self.find(peer)
            .map_or(Duration::MAX, |record| now - record.last_seen)
    }

    /// The peer's lease.
    pub(crate) fn find(&self, peer: &PeerId) -> Option<&StreamRecord> {
        self.records.find(peer)
    }

    /// All leases.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &StreamRecord> {
        self.records.iter()
    }

    /// Whether there is no room for a newcomer.
    pub(crate) fn is_full(&self) -> bool {
        self.records.is_full()
    }

    /// The next stream to close, its peer, and the end of the lease if that is why.
    pub(crate) fn pop_closed(&mut self) -> Option<Closed> {
        self.closed.pop()
    }

    /// The unused memory of the table. Its content has no meaning.
    pub(crate) fn spare(&mut self) -> Vacant<'_> {
        self.records.spare()
    }

    /// The statistics of `stream_records` for `status`.
    pub(crate) fn stats(&self) -> TableStats {
        self.records.stats("stream_records")
    }
}
