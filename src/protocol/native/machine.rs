//! The native's interface to its driver: where each event goes, and in which order actions come
//! out.

use core::time::Duration;

use super::*;
use crate::protocol::{
    address::TransportAddr,
    codec::heartbeat::AckCause,
    lookup::KnownServer,
    lost::{Lost, LostPeer},
    rivals::FirstBeat,
    table::Vacant,
    watch::Changes,
};

impl<const I: usize, const K: usize, const R: usize, const S: usize> Machine
    for Native<I, K, R, S>
{
    fn role(&self) -> Role {
        Role::Native
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Seen { peer, reader } => self.see(peer, reader),
            Input::StreamClosed { peer, stream } => {
                if self.stream_records.disconnected(peer, stream) {
                    self.live_indexers.disconnected(peer);
                }
            }
            Input::StreamProbed {
                peer,
                stream,
                verdict,
            } => self.stream_records.rivals.probed(peer, stream, verdict),
            Input::Probed { peer, verdict } => {
                if let Some(began) = self.prober.ended(peer) {
                    self.live_indexers.probe_ended(now, began, peer, verdict);
                }
            }
            Input::SearchValue {
                peer,
                record,
                own_ms,
            } => self
                .refresh
                .value(now, own_ms, peer, record, &self.live_indexers),
            Input::SearchEnded { peer, own_ms } => self.conclude(now, own_ms, peer),
            Input::Acked {
                server,
                cause: AckCause::Beat,
                ack,
                ..
            } => {
                self.heed_fellow(now, server, ack);
                self.leases.acked(now, server, ack, &mut self.rng);
            }
            Input::LeaseClosed { server } => {
                self.leases.closed(now, server, &mut self.rng);
            }
            Input::Expelled { peer } => {
                self.expel(now, peer);
                self.leases.expelled(now, peer, &mut self.rng);
            }
            Input::NativeLearned { native, addrs } => self.learn_fellow(now, native, addrs),
            Input::NativeForgotten { native } => self.forget_fellow(native),
            Input::Paced(pace) => {
                self.leases.set_beat_interval(now, pace.beat);
                self.offload.ticker.set_interval(now, pace.offload);
                self.refresh.ticker.set_interval(now, pace.refresh);
                self.gc.set_interval(now, pace.gc);
            }
            Input::Announced { key, end } => self.announcing.announced(now, key, end),
            Input::NetworkChanged => {
                self.leases.network_changed(now);
                // A native has no own record: only this event says that its addresses changed.
                self.announcing.addrs_changed(now);
            }
            Input::Overslept { gap } => {
                self.live_indexers
                    .shift(|peer| self.stream_records.silence(now, peer).min(gap));
                self.stream_records.shift(now, gap);
            }
            Input::ShutDown => self.leases.give_up_all(),
            // A native is never released, asks for no indexers and has no record of its own. It
            // uses only the configured addresses of its fellows. Only an indexer is drained.
            Input::Drain
            | Input::EndDrain
            | Input::Acked { .. }
            | Input::GaveUp { .. }
            | Input::Answered { .. }
            | Input::RecordSigned { .. } => {}
        }
    }

    fn poll(&mut self, now: Instant, own_ms: u64) -> Option<Action> {
        self.run_loops(now);
        if let Some((peer, stream, ended)) = self.stream_records.pop_closed() {
            return Some(Action::Close {
                peer,
                stream,
                ended,
            });
        }
        if let Some(action) = self.stream_records.rivals.poll(now) {
            return Some(action);
        }
        self.pop_release(now)
            .or_else(|| self.pop_answer(now))
            .or_else(|| self.pop_probe(now))
            .or_else(|| self.pop_search(now, own_ms))
            .or_else(|| self.pop_lease_step(now))
            .or_else(|| {
                let key = self.announcing.poll(now, |key| self.directory.has(key))?;
                Some(Action::Announce { key })
            })
    }

    fn beat_known(&self) -> &[PeerId] {
        &self.named
    }

    fn answer_offers(&self) -> &[Offer] {
        &self.offered
    }

    fn next_timeout(&self) -> Option<Instant> {
        let requests = self.pending_requests.iter();
        let others = [
            self.prober.timeout(),
            self.refresh.timeout(),
            self.offload.timeout(),
            requests.map(PendingRequest::deadline).min(),
            self.leases.timeout(),
            self.announcing.timeout(),
            self.stream_records.rivals.timeout(),
        ];
        let loops = self.offload.ticker.next().min(self.refresh.ticker.next());
        let loops = loops.min(self.gc.next());
        Some(others.into_iter().flatten().fold(loops, Instant::min))
    }

    fn beat(
        &mut self,
        now: Instant,
        from: &PeerId,
        stream: StreamId,
        beat: &Beat<SignedRecord<'_>>,
    ) -> BeatOutcome<'_> {
        let mut sender = match self.stream_records.admit(from, stream, beat) {
            Ok(sender) => sender,
            Err(refused) => return refused,
        };
        if beat.lease.is_zero() {
            return self.end_of_lease(now, &sender, beat.role);
        }
        if sender.is_newcomer() {
            sender.reader = self.reader_of(from);
        }
        if let Some(record) = &beat.record {
            sender.reader = sender.reader.with_record(&record.info.addrs);
        }
        self.take_role(now, &sender, beat.role);
        match beat.role {
            Role::Indexer => self.indexer_beat(now, &sender, beat),
            Role::Native => self.native_beat(now, &sender, beat),
            Role::Node => self.node_beat(now, &sender, beat),
        }
    }

    fn stream_opened(
        &mut self,
        now: Instant,
        peer: &PeerId,
        stream: StreamId,
        source: TransportAddr,
    ) -> FirstBeat {
        self.stream_records.stream_opened(now, peer, stream, source)
    }

    fn ask(
        &mut self,
        now: Instant,
        from: &PeerId,
        request: RequestId,
        most: usize,
        want: Want,
    ) -> Option<IndexersAnswer<'_>> {
        let request = PendingRequest {
            id: request,
            node: *from,
            reader: self.reader_of(from),
            want,
            most,
            candidates: None,
        };
        self.take_request(now, request)
    }

    fn page(
        &mut self,
        now: Instant,
        asker: Option<&PeerId>,
        from: Cursor,
        most: usize,
    ) -> IndexersPage<'_> {
        let reader = asker.map(|asker| self.reader_of(asker));
        self.page_of(now, from, most, &reader.unwrap_or_default())
    }

    fn asked_at(&self, server: &PeerId) -> Option<Instant> {
        self.leases.find(server)?.asked_at()
    }

    fn overslept(&self, now: Instant) -> Duration {
        let loops = [&self.offload.ticker, &self.refresh.ticker, &self.gc];
        loops
            .iter()
            .map(|ticker| ticker.overslept(now))
            .max()
            .unwrap_or_default()
    }

    fn addrs_of(&self, peer: &PeerId) -> Option<&Addrs> {
        self.live_indexers
            .find_any(peer)
            .map(|entry| &entry.addrs)
            .or_else(|| self.leases.find(peer).map(|lease| lease.addrs()))
    }

    fn servers(&self, now: Instant, tell: &mut dyn FnMut(KnownServer)) {
        self.leases.servers(now, tell);
    }

    fn role_of(&self, peer: &PeerId) -> Option<Role> {
        let holder = || Some(self.stream_records.find(peer)?.role);
        let indexer = || self.live_indexers.find_any(peer).map(|_| Role::Indexer);
        self.leases.role_of(peer).or_else(holder).or_else(indexer)
    }

    fn has_cut_off(&self, peer: &PeerId) -> bool {
        let record = self.stream_records.find(peer);
        record.is_some_and(|record| !record.connected)
            && self.live_indexers.find_any(peer).is_some()
    }

    fn claimants(&self, now: Instant, name: &str) -> Claimants<'_> {
        self.directory
            .claimants_heard(now, name, &self.stream_records)
    }

    fn listed(&self, now: Instant, peer: &PeerId) -> Option<Found<'_>> {
        self.directory.heard(now, peer, &self.stream_records)
    }

    fn entries<'s>(
        &'s self,
        now: Instant,
        which: Selection<'_>,
        visit: &mut dyn FnMut(Entry<'s>) -> bool,
    ) -> Option<PeerId> {
        let lease = |peer: &PeerId| self.stream_records.find(peer);
        self.directory.entries(now, which, lease, visit)
    }

    fn entry(&self, now: Instant, peer: &PeerId) -> Option<Entry<'_>> {
        self.directory.entry(now, peer, &self.stream_records)
    }

    fn lost(&self) -> Option<&Lost> {
        Some(self.directory.lost())
    }

    fn remember_lost(&mut self, now: Instant, lost: LostPeer) {
        self.directory.lost_mut().add(now, lost);
    }

    fn changes(&self) -> &Changes {
        self.directory.changes()
    }

    fn newest_indexer(&self) -> Option<NewestIndexer> {
        self.live_indexers.newest()
    }

    fn spare(&mut self) -> [Vacant<'_>; 4] {
        let [short, long] = self.directory.spare();
        let names = self.announcing.spare();
        [short, long, self.stream_records.spare(), names]
    }

    fn reserves_slot(&self, peer: &PeerId) -> bool {
        self.stream_records.find(peer).is_some() || self.leases.find(peer).is_some()
    }

    fn report(&self, now: Instant, to: &mut dyn Report) {
        let holds_lease = |peer| {
            self.stream_records
                .find(peer)
                .is_some_and(|record| now <= record.expiry)
        };
        self.live_indexers
            .iter(now)
            .for_each(|entry| to.live_indexer(entry));
        self.known_peer_ids
            .iter()
            .for_each(|peer| to.known_peer_id(peer));
        self.delegation
            .iter()
            .filter(|node| holds_lease(&node.peer))
            .for_each(|node| to.responsible_peer(node));
        self.stream_records
            .iter()
            .filter(|record| now <= record.expiry)
            .for_each(|record| to.stream_record(record));
        self.stream_records
            .rivals
            .contested()
            .for_each(|contested| to.contested(contested));
        self.leases.iter().for_each(|lease| to.lease(lease));
        for (name, ticker) in [
            ("offload", &self.offload.ticker),
            ("refresh", &self.refresh.ticker),
            ("gc", &self.gc),
        ] {
            to.background_loop(name, ticker.stats());
        }
        for stats in [
            self.live_indexers.stats(now),
            self.known_peer_ids.stats(),
            self.known_peer_ids.departed_stats(),
            self.delegation.stats(),
            self.stream_records.stats(),
            self.guests_stats(),
            self.stream_records.rivals.stats(),
            self.stream_records.flaps.stats(),
            self.directory.stats(),
            self.announcing.stats(),
            self.directory.lost().stats(),
        ] {
            to.table(stats);
        }
    }
}
