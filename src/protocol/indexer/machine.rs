//! The indexer's interface to its driver: where each event goes, and in which order actions come
//! out.
//!
//! Invariants: an indexer hands out no indexers; its GC runs before any action comes out, so that
//! none is about a lease that is over; and the steps of a drain come before those of its own
//! leases.

use super::*;

impl<const N: usize> Machine for Indexer<N> {
    fn role(&self) -> Role {
        Role::Indexer
    }

    fn handle(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::StreamClosed { peer, stream } => {
                self.stream_records.disconnected(peer, stream);
            }
            Input::StreamProbed {
                peer,
                stream,
                verdict,
            } => self.stream_records.rivals.probed(peer, stream, verdict),
            Input::Acked {
                server,
                cause: AckCause::Beat,
                ack,
                ..
            } => {
                self.leases.acked(now, server, ack, &mut self.rng);
            }
            Input::LeaseClosed { server } => {
                self.leases.closed(now, server, &mut self.rng);
            }
            Input::Expelled { peer } => {
                self.end_of_lease(now, peer, Presence::Alive, EndCause::Expelled);
                self.leases.expelled(now, peer, &mut self.rng);
            }
            Input::RecordSigned { urgency } => {
                self.leases.signed(now, urgency);
                if urgency == Urgency::AtOnce {
                    self.announcing.addrs_changed(now);
                }
            }
            Input::NativeLearned { native, addrs } => {
                if *native != self.own {
                    self.leases.add_native(now, *native, addrs);
                }
            }
            Input::NativeForgotten { native } => self.leases.give_up(native),
            Input::Paced(pace) => {
                self.leases.set_beat_interval(now, pace.beat);
                self.gc.set_interval(now, pace.gc);
            }
            Input::Announced { key, end } => self.announcing.announced(now, key, end),
            Input::NetworkChanged => self.leases.network_changed(now),
            Input::Overslept { gap } => self.stream_records.shift(now, gap),
            Input::ShutDown => self.leases.give_up_all(),
            Input::Drain => {
                // The operator's command asks for it again and again, to see how far it is.
                if self.drain.begin(now) {
                    self.leases.hurry_all(now);
                }
            }
            Input::EndDrain => {
                self.drain.end();
                self.leases.hurry_all(now);
            }
            Input::Answered { native: _, answer } => {
                if let Some(answer) = answer {
                    self.drain.answered(now, &self.own, &answer);
                }
            }
            // An indexer hands out no addresses and sends no pings or searches. No native releases
            // it or offers it other indexers, and it uses only the configured addresses of its
            // natives.
            Input::Seen { .. }
            | Input::Probed { .. }
            | Input::SearchValue { .. }
            | Input::SearchEnded { .. }
            | Input::Acked { .. }
            | Input::GaveUp { .. } => {}
        }
    }

    fn poll(&mut self, now: Instant, _own_ms: u64) -> Option<Action> {
        if self.gc.due(now, &mut self.rng).is_some() {
            let removed = self.stream_records.collect(now, |record| {
                self.directory.unlist(now, &record.peer, Presence::Lost);
            });
            self.gc.did(removed);
            self.directory.lost_mut().expire(now);
        }
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
        let Self {
            drain,
            leases,
            stream_records,
            rng,
            ..
        } = self;
        if drain.is_on()
            && let Some(action) = drain.poll(now, stream_records, leases, rng)
        {
            return Some(action);
        }
        let Some(step) = self.leases.poll(now, &mut self.rng) else {
            let key = self.announcing.poll(now, |key| self.directory.has(key))?;
            return Some(Action::Announce { key });
        };
        Some(step.into_action(|manner| OutBeat {
            role: Role::Indexer,
            lease: self.config.terms.lease,
            with_record: manner.with_record,
            fresh: manner.fresh,
            publisher: Publisher::Receiver,
            load: Some(self.load()),
        }))
    }

    /// An indexer reports no ids to its natives.
    fn beat_known(&self) -> &[PeerId] {
        &[]
    }

    /// An indexer answers directly.
    fn answer_offers(&self) -> &[Offer] {
        &[]
    }

    fn next_timeout(&self) -> Option<Instant> {
        let others = [
            self.leases.timeout(),
            self.stream_records.rivals.timeout(),
            self.announcing.timeout(),
            self.drain.timeout(),
        ];
        Some(
            others
                .into_iter()
                .flatten()
                .fold(self.gc.next(), Instant::min),
        )
    }

    fn beat(
        &mut self,
        now: Instant,
        from: &PeerId,
        stream: StreamId,
        beat: &Beat<SignedRecord<'_>>,
    ) -> BeatOutcome<'_> {
        match self.stream_records.admit(from, stream, beat) {
            Ok(sender) => self.admitted_beat(now, &sender, beat),
            Err(refused) => refused,
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

    /// An indexer does not hand out indexers: natives do.
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

    /// As for [`Machine::ask`].
    fn page(&mut self, _: Instant, _: Option<&PeerId>, _: Cursor, _: usize) -> IndexersPage<'_> {
        IndexersPage::default()
    }

    fn asked_at(&self, server: &PeerId) -> Option<Instant> {
        self.leases.find(server)?.asked_at()
    }

    fn overslept(&self, now: Instant) -> Duration {
        self.gc.overslept(now)
    }

    fn addrs_of(&self, peer: &PeerId) -> Option<&Addrs> {
        self.leases.find(peer).map(|lease| lease.addrs())
    }

    fn servers(&self, now: Instant, tell: &mut dyn FnMut(KnownServer)) {
        self.leases.servers(now, tell);
    }

    fn role_of(&self, peer: &PeerId) -> Option<Role> {
        let holder = || Some(self.stream_records.find(peer)?.role);
        self.leases.role_of(peer).or_else(holder)
    }

    /// An indexer hands out no indexers: natives do.
    fn has_cut_off(&self, _: &PeerId) -> bool {
        false
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
        None
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
        self.stream_records
            .iter()
            .filter(|record| now <= record.expiry)
            .for_each(|record| to.stream_record(record));
        self.leases.iter().for_each(|lease| to.lease(lease));
        to.background_loop("gc", self.gc.stats());
        self.stream_records
            .rivals
            .contested()
            .for_each(|contested| to.contested(contested));
        if let Some(draining) = self.drain.progress(now, self.stream_records.stats().used) {
            to.draining(draining);
        }
        to.table(self.stream_records.stats());
        to.table(self.stream_records.rivals.stats());
        to.table(self.stream_records.flaps.stats());
        to.table(self.directory.stats());
        to.table(self.announcing.stats());
        to.table(self.directory.lost().stats());
    }
}
