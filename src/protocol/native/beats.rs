//! Processes the beats that are admitted: which lease they renew or end, and in which tables their
//! senders are listed.
//!
//! Invariants: a peer has one role at a time; a beat that is answered `full` changes no table; a
//! node is taken in only if it is expected, or if no indexer can be offered to it.

use super::*;

impl<const I: usize, const K: usize, const R: usize, const S: usize> Native<I, K, R, S> {
    pub(super) fn end_of_lease(
        &mut self,
        now: Instant,
        sender: &Sender<'_>,
        role: Role,
    ) -> BeatOutcome<'static> {
        let from = sender.peer;
        if role == Role::Node && !sender.is_newcomer() {
            self.note_departure(now, from);
        }
        // A node that was handed over has left for its indexer.
        let (now_is, how) = match self.delegation.contains(from) {
            false if role == Role::Node => (Presence::Alive, EndCause::HandedOver),
            false => (Presence::Alive, EndCause::Left),
            true => (Presence::Left, EndCause::Left),
        };
        self.stream_records.remove(now, from, how);
        self.delegation.forget(from);
        self.directory.unlist(now, from, now_is);
        if role != Role::Node && sender.role == Some(role) {
            let name = Name::new();
            self.directory.lose(now, from, name, role, Presence::Left);
        }
        self.end_of_indexer(now, from, role);
        Ack::accepted(Duration::ZERO).into()
    }

    /// The peer does not belong to the network: it is removed from every table.
    pub(super) fn expel(&mut self, now: Instant, peer: &PeerId) {
        self.stream_records.remove(now, peer, EndCause::Expelled);
        self.delegation.forget(peer);
        self.directory.unlist(now, peer, Presence::Alive);
        self.end_of_indexer(now, peer, Role::Node);
    }

    /// The peer is no longer an indexer: it is removed from `live_indexers` and `known_peer_ids`,
    /// and no report of another peer adds it again while copies of its record may be in the DHT.
    /// If its last beat had the `role` of an indexer, it was one, even if it is in no table now.
    fn end_of_indexer(&mut self, now: Instant, peer: &PeerId, role: Role) {
        let copies = self.live_indexers.remove(peer);
        if role == Role::Indexer || copies.is_some() || self.known_peer_ids.contains(peer) {
            // The leases of an unknown subject are assumed to be as long as those of this native.
            let copies = copies.unwrap_or_else(|| record_ttl(self.config.terms.lease));
            self.known_peer_ids.forget(now, peer, copies);
        }
    }

    /// A peer has one role at a time, so its entries for another role are removed.
    pub(super) fn take_role(&mut self, now: Instant, sender: &Sender<'_>, role: Role) {
        if role != Role::Indexer {
            self.end_of_indexer(now, sender.peer, role);
        }
        // Only nodes can be in these tables.
        if role != Role::Node && sender.role != Some(role) {
            self.delegation.forget(sender.peer);
            // A newcomer is not listed, and how long it was gone is asked when its lease begins.
            if !sender.is_newcomer() {
                self.directory.unlist(now, sender.peer, Presence::Alive);
            }
        }
    }

    pub(super) fn renew(
        &mut self,
        now: Instant,
        sender: &Sender<'_>,
        role: Role,
        lease: Duration,
    ) -> Arrival {
        let mut arrival = self.stream_records.renew(now, sender, role, lease);
        if let Arrival::Joined(joined) = &mut arrival {
            joined.gone_for = self.directory.back(now, sender.peer);
        }
        arrival
    }

    pub(super) fn indexer_beat(
        &mut self,
        now: Instant,
        sender: &Sender<'_>,
        beat: &Beat<SignedRecord<'_>>,
    ) -> BeatOutcome<'static> {
        let from = sender.peer;
        self.make_room(now, from);
        let memory = || self.directory.memory_of(sender.peer);
        if let Some(ack) = self.stream_records.no_room_for(now, sender, memory) {
            return ack.into();
        }
        let lease = clamp_lease(beat.lease, self.config.terms.lease);
        let record = beat.record.as_ref().map(|record| &record.info);
        // Whether the indexer is new matters only while nodes are taken in.
        let was_here = self.delegation.is_empty() || self.is_registered(now, from);
        if sender.moved {
            self.live_indexers.forget_record(from);
        }
        let Ok(publish) = self.live_indexers.beat(now, from, lease, beat.load, record) else {
            return Ack::full(
                "live_indexers is full: build with a larger OC_DISCOVERY_MAX_INDEXERS",
            )
            .into();
        };
        let arrival = self.renew(now, sender, Role::Indexer, lease);
        self.known_peer_ids.heard_by_beat(now, from);
        if !was_here && self.is_registered(now, from) {
            self.offload.indexer_registered();
        }
        BeatOutcome {
            publish,
            arrival,
            ..Ack::accepted(lease).into()
        }
    }

    /// Whether the indexer is live by its own beats, on an open stream.
    fn is_registered(&self, now: Instant, indexer: &PeerId) -> bool {
        let beats = |entry: &LiveIndexer| entry.source == Source::Heartbeat;
        self.live_indexers.find(now, indexer).is_some_and(beats)
            && self
                .stream_records
                .find(indexer)
                .is_some_and(|record| record.connected)
    }

    pub(super) fn node_beat(
        &mut self,
        now: Instant,
        sender: &Sender<'_>,
        beat: &Beat<SignedRecord<'_>>,
    ) -> BeatOutcome<'_> {
        let from = sender.peer;
        let is_expected = self.delegation.contains(from) || self.delegation.has_ticket(now, from);
        if !is_expected && !self.overslept(now).is_zero() {
            // Every entry seems to have expired. Whether an indexer is alive is known a moment
            // later.
            return Ack::full("this native catches up after a sleep: ask it again").into();
        }
        let welcome = is_expected
            || (sender.is_newcomer()
                && self
                    .reachable_live_indexers(now, &sender.reader)
                    .next()
                    .is_none());
        if !welcome {
            let left = self
                .stream_records
                .seen(now, sender)
                .map_or(Duration::ZERO, |record| record.expiry - now);
            self.choose_offers(now, now, MAX_LIST, &sender.reader);
            let indexers = self.offered.iter().map(|offer| &offer.peer);
            self.offered_indexers.offered(now, from, indexers);
            return Ack::released(left, &self.offered).into();
        }
        self.make_room_for_node(now, from);
        if !self.delegation.has_room(now, from) {
            self.delegation.count_refusal();
            return Ack::full(
                "this native has taken in as many nodes as it can: try another native",
            )
            .into();
        }
        let memory = || self.directory.memory_of(sender.peer);
        if let Some(ack) = self.stream_records.no_room_for(now, sender, memory) {
            return ack.into();
        }
        let lease = clamp_lease(beat.lease, self.config.terms.lease);
        if sender.moved {
            self.directory.unlist(now, from, Presence::Alive);
        }
        let arrival = self.renew(now, sender, Role::Node, lease);
        let taken_in = match self.delegation.contains(from) {
            true => None,
            false => {
                let shortage = self.shortage(now, now);
                let shortage = self.delegation.take_in(now, from, shortage);
                let mut usable = self.reachable_live_indexers(now, &sender.reader);
                if shortage != Shortage::OffersFailed && usable.next().is_some() {
                    drop(usable);
                    self.offload.node_came_late();
                }
                Some(shortage)
            }
        };
        self.delegation.note_reader(from, sender.reader);
        if let Some(record) = &beat.record
            && self.directory.list(now, &record.info, record.envelope)
        {
            let Self {
                announcing,
                directory,
                ..
            } = self;
            announcing.record_listed(now, record, |key| directory.has(key));
        }
        BeatOutcome {
            arrival: self.taken_in(from, arrival, taken_in),
            ..Ack::accepted(lease).into()
        }
    }

    /// Adds why the node was taken in. It may still hold the lease from which it was released.
    fn taken_in(&self, node: &PeerId, arrival: Arrival, shortage: Option<Shortage>) -> Arrival {
        let joined = match arrival {
            Arrival::Joined(joined) => joined,
            _ if shortage.is_none() => return arrival,
            _ => Joined {
                source: self.stream_records.find(node).and_then(|r| r.source),
                gone_for: None,
                shortage: None,
            },
        };
        Arrival::Joined(Joined { shortage, ..joined })
    }
}
