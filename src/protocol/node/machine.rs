//! The node towards its driver: which event goes where, and in which order actions come out.

use super::*;

impl Machine for Node {
    fn role(&self) -> Role {
        Role::Node
    }

    fn poll(&mut self, now: Instant, _own_ms: u64) -> Option<Action> {
        self.settle(now);
        if let Some(ask) = self.pop_ask(now) {
            return Some(ask);
        }
        let publisher = self.publisher(now);
        let late = self.late();
        let step = self.leases.poll(now, &mut self.rng)?;
        if self.late() > late {
            // An indexer that does not answer any more may be somewhere else.
            self.next_round = now;
        }
        let publish = match (&step, publisher) {
            (LeaseStep::Beat(server, _), Some(publisher)) => *server == publisher,
            _ => true,
        };
        Some(step.into_action(|manner| OutBeat {
            role: Role::Node,
            lease: self.config.terms.lease,
            with_record: manner.with_record,
            fresh: manner.fresh,
            publish,
            load: None,
            known: PeerList::new(),
        }))
    }

    fn timeout(&self) -> Instant {
        let round = match self.round.first() {
            Some(round) => round.waiting.map(|(_, until)| until),
            None => (!self.stopped).then_some(self.next_round),
        };
        self.leases
            .timeout()
            .into_iter()
            .chain(round)
            .min()
            .unwrap_or(Instant::from_millis(u64::MAX))
    }

    fn acked(&mut self, now: Instant, server: &PeerId, ack: &Ack) {
        self.heed(now, server, ack);
        self.leases.acked(now, server, ack, &mut self.rng);
    }

    fn told(&mut self, now: Instant, server: &PeerId, ack: &Ack) {
        self.heed(now, server, ack);
        self.leases.told(server, ack);
    }

    fn lease_closed(&mut self, now: Instant, server: &PeerId) {
        self.leases.closed(now, server, &mut self.rng);
    }

    fn answered(&mut self, now: Instant, native: &PeerId, answer: Option<&IndexersAnswer>) {
        let Some(round) = self.round.first_mut() else {
            return;
        };
        if round.waiting.is_none_or(|(asked, _)| asked != *native) {
            return;
        }
        round.waiting = None;
        round.asked += 1;
        let Some(answer) = answer else { return };
        for offer in &answer.offers {
            self.leases.learn_addrs(now, &offer.peer, &offer.addrs);
        }
        self.propose_all(now, &answer.offers);
        if answer.takes_in && self.untried().next().is_none() && self.seeking() == 0 {
            self.be_taken_in(now, native);
        }
    }

    fn network_changed(&mut self, now: Instant) -> usize {
        let started = self.leases.network_changed(now);
        if !self.stopped && !self.leases.iter().any(|lease| lease.is_secure(now)) {
            // An answer that is still waited for was asked for over the network as it was.
            self.round.clear();
            self.next_round = now;
            return started + 1;
        }
        started
    }

    fn record_signed(&mut self, now: Instant, urgent: bool) {
        self.leases.signed(now, urgent);
    }

    fn learn_native(&mut self, now: Instant, peer: PeerId, addrs: Addrs) {
        if peer == self.own {
            return;
        }
        match self.natives.iter_mut().find(|(native, _)| *native == peer) {
            Some((_, old)) => *old = addrs,
            None => {
                if self.natives.push((peer, addrs)).is_ok() && self.leases.iter().next().is_none() {
                    self.next_round = now;
                }
            }
        }
    }

    fn overslept(&self, _now: Instant) -> Duration {
        Duration::ZERO
    }

    fn shift(&mut self, _now: Instant, _gap: Duration) {}

    fn shut_down(&mut self) {
        self.stopped = true;
        self.round.clear();
        self.leases.give_up_all();
    }

    fn addrs_of(&self, peer: &PeerId) -> Option<&Addrs> {
        self.leases
            .find(peer)
            .map(|lease| lease.addrs())
            .or_else(|| {
                self.natives
                    .iter()
                    .find(|(native, _)| native == peer)
                    .map(|(_, addrs)| addrs)
            })
    }

    fn favours(&self, peer: &PeerId) -> bool {
        self.leases.find(peer).is_some() || self.natives.iter().any(|(native, _)| native == peer)
    }

    fn report(&self, _now: Instant, to: &mut dyn Report) {
        self.leases.iter().for_each(|lease| to.lease(lease));
    }
}
