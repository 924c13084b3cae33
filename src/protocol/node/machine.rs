//! The node's interface to its driver: where each event goes, and in which order actions come out.
//!
//! Invariants: a node grants no lease and hands out no indexers, so it refuses each beat, and has
//! no indexer to name; a request to a native that is due comes out before any step of a lease.

use super::*;
use crate::protocol::{
    Beat, BeatOutcome, Cursor, Entry, IndexersPage, Publisher, RequestId, Selection, SignedRecord,
    StreamId, TransportAddr,
    codec::heartbeat::AckCause,
    directory::{Claimants, Found},
    leases::Manner,
    lookup::KnownServer,
    lost::{Lost, LostPeer},
    native::NewestIndexer,
    rivals::FirstBeat,
    table::Vacant,
    watch::Changes,
};

impl Machine for Node {
    fn role(&self) -> Role {
        Role::Node
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Acked {
                server,
                over,
                cause,
                ack,
                ..
            } => {
                if let Some(over) = over {
                    self.leases.carried(server, over);
                }
                match cause {
                    AckCause::Beat => self.acked(now, server, ack),
                    AckCause::Unsolicited => self.notified(now, server, ack),
                }
            }
            Input::LeaseClosed { server } => {
                self.wake = Some(now);
                self.leases.closed(now, server, &mut self.rng);
            }
            Input::Expelled { peer } => {
                self.wake = Some(now);
                self.failures.refused(now, peer, now + REFUSED_PAUSE);
                self.leases.expelled(now, peer, &mut self.rng);
            }
            Input::Answered { native, answer } => self.answered(now, native, answer),
            Input::RecordSigned { urgency } => {
                self.wake = Some(now);
                self.leases.signed(now, urgency);
            }
            Input::NativeLearned { native, addrs } => self.learn_native(now, native, addrs),
            Input::NativeForgotten { native } => {
                self.wake = Some(now);
                self.rounds.forget(native);
                // That of an indexer with the same id is not meant.
                let lease = self.leases.find(native);
                if lease.is_some_and(|lease| lease.role() == Role::Native) {
                    self.leases.give_up(native);
                    self.rounds.hurry(now);
                }
            }
            Input::Paced(pace) => {
                self.wake = Some(now);
                self.config.connect_interval = pace.connect;
                self.rounds.hurry(now + pace.connect);
                self.leases.set_beat_interval(now, pace.beat);
            }
            Input::NetworkChanged => self.network_changed(now),
            Input::ShutDown => {
                self.stopped = true;
                self.wake = Some(Instant::default());
                self.rounds.stop();
                self.leases.give_up_all();
            }
            // A node grants no leases and hands out no addresses. It sends no pings or searches.
            Input::Seen { .. }
            | Input::StreamClosed { .. }
            | Input::StreamProbed { .. }
            | Input::Probed { .. }
            | Input::SearchValue { .. }
            | Input::SearchEnded { .. }
            | Input::Announced { .. }
            | Input::GaveUp { .. }
            | Input::Overslept { .. }
            | Input::Drain
            | Input::EndDrain => {}
        }
    }

    fn poll(&mut self, now: Instant, _own_ms: u64) -> Option<Action> {
        self.settle(now);
        if let Some(ask) = self.pop_ask(now) {
            return Some(ask);
        }
        let publisher = self.publisher(now);
        let late = self.late();
        let Some(mut step) = self.leases.poll(now, &mut self.rng) else {
            self.wake = self.next_decision(now);
            return None;
        };
        if let LeaseStep::Beat(server, addrs, Manner { again: true, .. }) = &mut step {
            self.spare_others(now, server, addrs);
        }
        if self.late() > late {
            // An indexer that no longer answers may have new addresses.
            self.rounds.hurry(now);
        }
        let publisher = match (&step, publisher) {
            (LeaseStep::Beat(server, ..), Some(publisher)) if *server != publisher => {
                Publisher::Another
            }
            _ => Publisher::Receiver,
        };
        Some(step.into_action(|manner| OutBeat {
            role: Role::Node,
            lease: self.config.terms.lease,
            with_record: manner.with_record,
            fresh: manner.fresh,
            publisher,
            load: None,
        }))
    }

    /// A node reports no ids.
    fn beat_known(&self) -> &[PeerId] {
        &[]
    }

    /// A node has no answers to send later.
    fn answer_offers(&self) -> &[Offer] {
        &[]
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.leases.timeout().into_iter().chain(self.wake).min()
    }

    /// A node grants no leases, so no identity can be contested.
    fn stream_opened(
        &mut self,
        _: Instant,
        _: &PeerId,
        _: StreamId,
        _: TransportAddr,
    ) -> FirstBeat {
        FirstBeat::Now
    }

    fn beat(
        &mut self,
        _: Instant,
        _: &PeerId,
        _: StreamId,
        _: &Beat<SignedRecord<'_>>,
    ) -> BeatOutcome<'_> {
        Ack::refused("a node grants no leases: hold yours with an indexer or a native").into()
    }

    /// A node does not hand out indexers: natives do.
    fn ask(
        &mut self,
        _: Instant,
        _: &PeerId,
        _: RequestId,
        _: usize,
        _: Want,
    ) -> Option<IndexersAnswer<'_>> {
        Some(IndexersAnswer::default())
    }

    /// A node has no page of indexers either.
    fn page(&mut self, _: Instant, _: Option<&PeerId>, _: Cursor, _: usize) -> IndexersPage<'_> {
        IndexersPage::default()
    }

    fn asked_at(&self, server: &PeerId) -> Option<Instant> {
        self.leases.find(server)?.asked_at()
    }

    fn overslept(&self, _now: Instant) -> Duration {
        Duration::ZERO
    }

    fn addrs_of(&self, peer: &PeerId) -> Option<&Addrs> {
        let lease = self.leases.find(peer).map(|lease| lease.addrs());
        lease.or_else(|| self.rounds.addrs_of(peer))
    }

    fn servers(&self, now: Instant, tell: &mut dyn FnMut(KnownServer)) {
        for native in self.rounds.natives() {
            let lease = self.leases.find(native);
            tell(KnownServer {
                peer: *native,
                role: Role::Native,
                is_held: lease.is_some_and(|lease| lease.is_secure(now)),
            });
        }
        self.leases.servers(now, &mut |server| {
            if server.role != Role::Native {
                tell(server);
            }
        });
    }

    /// No peer holds a lease with a node.
    fn role_of(&self, peer: &PeerId) -> Option<Role> {
        let native = self.rounds.addrs_of(peer).map(|_| Role::Native);
        native.or_else(|| self.leases.role_of(peer))
    }

    /// A node hands out no indexers: natives do.
    fn has_cut_off(&self, _: &PeerId) -> bool {
        false
    }

    /// A node lists no other.
    fn claimants(&self, _: Instant, _: &str) -> Claimants<'_> {
        Claimants::default()
    }

    /// A node lists no other.
    fn listed(&self, _: Instant, _: &PeerId) -> Option<Found<'_>> {
        None
    }

    /// A node lists no other.
    fn entries<'s>(
        &'s self,
        _: Instant,
        _: Selection<'_>,
        _: &mut dyn FnMut(Entry<'s>) -> bool,
    ) -> Option<PeerId> {
        None
    }

    /// A node lists no other.
    fn entry(&self, _: Instant, _: &PeerId) -> Option<Entry<'_>> {
        None
    }

    /// A node lists no other.
    fn changes(&self) -> &Changes {
        Changes::NONE
    }

    fn newest_indexer(&self) -> Option<NewestIndexer> {
        None
    }

    /// A node loses no other.
    fn lost(&self) -> Option<&Lost> {
        None
    }

    /// A node loses no other.
    fn remember_lost(&mut self, _: Instant, _: LostPeer) {}

    /// Its tables are small.
    fn spare(&mut self) -> [Vacant<'_>; 4] {
        [const { Vacant::none() }; 4]
    }

    fn reserves_slot(&self, peer: &PeerId) -> bool {
        self.leases.find(peer).is_some() || self.rounds.addrs_of(peer).is_some()
    }

    fn report(&self, now: Instant, to: &mut dyn Report) {
        self.leases.iter().for_each(|lease| to.lease(lease));
        if !self.rounds.is_under_way() {
            to.next_round(self.rounds.next());
        }
        to.wanted_leases(self.config.min_indexers);
        to.table(self.candidates.stats());
        for stats in self.failures.stats() {
            to.table(stats);
        }
        to.table(self.leases.dials(now));
    }
}

impl Node {
    fn acked(&mut self, now: Instant, server: &PeerId, ack: &Ack<'_>) {
        self.wake = Some(now);
        let Some(lease) = self.leases.find(server) else {
            return;
        };
        let (role, was_released) = (lease.role(), lease.is_released());
        if role == Role::Indexer {
            self.note_spare(now, server, ack);
        }
        match ack.code {
            AckCode::Accepted => {}
            AckCode::Released if !was_released => self.sent_away(now, ack),
            AckCode::Released => self.propose_all(now, ack.offers, OfferSource::Other),
            AckCode::Full | AckCode::Refused => {
                self.propose_all(now, ack.offers, OfferSource::Other);
                if role == Role::Native {
                    // The server answers, so its address works. But it is not useful for a while.
                    match ack.code {
                        AckCode::Refused => {
                            let until = now + REFUSED_PAUSE;
                            self.failures.refused(now, server, until);
                        }
                        _ => self.failures.note(now, server, &mut self.rng),
                    }
                }
            }
        }
        let lease = self.leases.acked(now, server, ack, &mut self.rng);
        if let Some(lease) = lease.filter(|lease| lease.is_proven()) {
            self.failures.forget(server, lease.carried());
            // A lease that is renewed and then released again is not a success.
            if !was_released {
                self.rounds.succeeded();
            }
        }
    }

    fn notified(&mut self, now: Instant, server: &PeerId, ack: &Ack<'_>) {
        let is_released =
            |leases: &Leases| leases.find(server).is_none_or(|lease| lease.is_released());
        if is_released(&self.leases) {
            return;
        }
        self.leases.notified(server, ack);
        if is_released(&self.leases) {
            self.wake = Some(now);
            self.sent_away(now, ack);
        }
    }

    fn answered(&mut self, now: Instant, native: &PeerId, answer: Option<IndexersAnswer<'_>>) {
        self.wake = Some(now);
        let Some(answer) = answer else {
            self.rounds.failed(native);
            return;
        };
        let Some(want) = self.rounds.answered(native) else {
            return;
        };
        for offer in answer.offers {
            self.leases.learn_addrs(now, &offer.peer, &offer.addrs);
        }
        self.propose_all(now, answer.offers, OfferSource::Native);
        let stranded = match want {
            Want::OffersFailed => self.offers_failed(now),
            Want::Lease | Want::Nothing => !self.has_candidate(now) && self.seeking() == 0,
        };
        if answer.takes_in && stranded {
            self.be_taken_in(now, native);
        }
    }

    fn network_changed(&mut self, now: Instant) {
        self.leases.network_changed(now);
        if !self.stopped && !self.leases.iter().any(|lease| lease.is_secure(now)) {
            // A request that waits for its answer was sent over the old network.
            self.rounds.restart(now);
            self.wake = Some(now);
            self.leases.retries = true;
        }
        if self.leases.retries {
            // Attempts that failed over the old network may succeed over the new one.
            self.failures.clear();
        }
    }

    fn learn_native(&mut self, now: Instant, peer: &PeerId, addrs: &Addrs) {
        self.wake = Some(now);
        let is_new = *peer != self.own && self.rounds.learn(*peer, addrs.clone());
        if is_new && self.leases.iter().next().is_none() && !self.rounds.is_under_way() {
            self.rounds.restart(now);
        }
    }

    /// A server releases us. The first time, this begins a round, and the offered places are
    /// reserved for us.
    fn sent_away(&mut self, now: Instant, ack: &Ack<'_>) {
        for offer in ack.offers {
            self.failures.forgive(&offer.peer);
        }
        self.propose_all(now, ack.offers, OfferSource::Other);
        self.rounds.hurry(now);
    }

    /// Begins a lease with the native that takes us in, unless another does already.
    fn be_taken_in(&mut self, now: Instant, native: &PeerId) {
        let sought = |lease: &Lease| lease.role() == Role::Native && !lease.is_released();
        let is_full = self.failures.ready_at(native, &Addrs::new()) > now;
        if is_full || self.leases.iter().any(sought) {
            return;
        }
        let Some(addrs) = self.rounds.addrs_of(native).cloned() else {
            return;
        };
        if self.leases.add(now, *native, Role::Native, &addrs) {
            self.leases.hurry(now, native);
        }
        self.rounds.helped_by(native);
    }
}
