//! The driver of a process: gives events in order, polls until there is nothing left, does what it
//! is told.
//!
//! It is what `src/daemon` is to the real network, and knows as little: no decision is made here.

use oc_discovery::protocol::{
    self, Ack, AckBuf, AckCode, Action, Addrs, Beat, IndexersAnswer, Load, MAX_LIST, Offer,
    OutBeat, PeerId, PeerList, Publisher, RequestId, Role, StreamId, Want,
    address::Endpoint,
    clock::{ClockOf, MAX_TRIP},
    codec::heartbeat::WallReading,
    signing::Urgency,
};

use crate::{
    device::{DeviceNo, HOUSEKEEPING},
    dht,
    network::{Input, Stream, StreamKey},
    world::World,
};

/// What an indexer reports that boasts.
const BOAST: Load = Load {
    held: 0,
    possible: u32::MAX,
};
/// Actions in a row at one instant that no machine may exceed.
const MOST_ACTIONS: usize = 1000;

impl World {
    /// One turn of a process's loop: what has arrived, then everything that follows.
    pub fn step(&mut self, no: DeviceNo, inputs: Vec<Input>) -> Result<(), String> {
        let now = self.devices[no].instant(self.now);
        let gap = self.devices[no].machine.overslept(now);
        self.catching_up = !gap.is_zero();
        for input in inputs {
            self.take(no, input)?;
            if gap.is_zero() {
                self.drain(no)?;
            }
        }
        if !gap.is_zero() {
            let overslept = protocol::Input::Overslept { gap };
            self.devices[no].machine.handle(now, overslept);
            self.check_caught_up(no)?;
        }
        self.drain(no)?;
        if self.keep_house(no) {
            self.ask_around(no)?;
            self.drain_lookups(no)?;
        }
        self.ledger.polled(self.now, no);
        self.check(no)?;
        self.set_timer(no)
    }

    /// Polls until there is no action left.
    pub fn drain(&mut self, no: DeviceNo) -> Result<(), String> {
        for _ in 0..MOST_ACTIONS {
            let device = &mut self.devices[no];
            let (now, own_ms) = (device.instant(self.now), device.own_ms(self.now));
            let Some(action) = device.machine.poll(now, own_ms) else {
                if self.sign_if_due(no) {
                    continue;
                }
                return self.drain_lookups(no);
            };
            self.trace.note(self.now, &(no, &action));
            self.ledger.polled(self.now, no);
            self.act(no, action)?;
        }
        Err(format!(
            "device {no} had {MOST_ACTIONS} actions at one instant"
        ))
    }

    fn take(&mut self, no: DeviceNo, input: Input) -> Result<(), String> {
        let now = self.devices[no].instant(self.now);
        let own_ms = self.devices[no].own_ms(self.now);
        match input {
            Input::Beat { .. } => return self.take_beat(no, input),
            Input::Ack { .. } => return self.take_ack(no, input),
            Input::End { stream } => self.take_end(no, stream),
            Input::Ask {
                from,
                life,
                number,
                want,
            } => return self.take_ask(no, (from, life), number, want),
            Input::Answer {
                native,
                number,
                answer,
            } => {
                let device = &mut self.devices[no];
                if device.asks.get(&native) == Some(&number) {
                    device.asks.remove(&native);
                    let ended = protocol::Input::Answered {
                        native: &native,
                        answer: answer.as_ref(),
                    };
                    device.machine.handle(now, ended);
                    let offers = answer.iter().flat_map(|answer| &answer.offers);
                    self.note_offers(no, offers);
                }
            }
            Input::Ping { from, life, number } => {
                let peer = self.devices[no].peer;
                let pong = Input::Pong {
                    peer,
                    number,
                    alive: true,
                };
                self.reply(no, (from, life), pong);
            }
            Input::Pong {
                peer,
                number,
                alive,
            } => {
                let device = &mut self.devices[no];
                if device.pings.get(&peer) == Some(&number) {
                    device.pings.remove(&peer);
                    let ended = protocol::Input::Probed { peer: &peer, alive };
                    device.machine.handle(now, ended);
                    let indexer = self.number_of(&peer);
                    self.ledger.probe_ended(self.now, no, indexer, alive);
                }
            }
            Input::Value { record, number } => {
                let device = &mut self.devices[no];
                if device.searches.get(&record.peer) == Some(&number) {
                    let found = protocol::Input::SearchValue {
                        peer: &record.peer,
                        record: &record,
                        own_ms,
                    };
                    device.machine.handle(now, found);
                }
            }
            Input::Find { from, query, ask } => self.take_find(no, from, query, ask),
            Input::Found { query, reply } => self.take_found(no, query, reply),
            Input::Copy { query, record } => self.take_copy(no, query, &record),
            Input::Searched { query } => self.take_searched(no, query),
            Input::SearchEnd { peer, number } => {
                let device = &mut self.devices[no];
                if device.searches.get(&peer) == Some(&number) {
                    device.searches.remove(&peer);
                    let ended = protocol::Input::SearchEnded {
                        peer: &peer,
                        own_ms,
                    };
                    device.machine.handle(now, ended);
                }
            }
        }
        Ok(())
    }

    fn take_beat(&mut self, no: DeviceNo, input: Input) -> Result<(), String> {
        let Input::Beat {
            stream,
            sequence,
            beat,
            known,
            record,
        } = input
        else {
            return Ok(());
        };
        let client = self.network.streams[stream].client;
        let from = self.devices[client.0].peer;
        let Some(id) = self.server_stream(no, stream) else {
            return Ok(());
        };
        self.network.streams[stream].received = sequence;
        let envelope = record.as_ref().map(|record| record.sequence.to_be_bytes());
        let before = self.before_beat(no, client.0, &beat);
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        let incoming = Beat {
            role: beat.role,
            lease: beat.lease,
            record: record
                .as_ref()
                .zip(envelope.as_ref())
                .map(|(record, envelope)| (record, envelope.as_slice())),
            publisher: beat.publisher,
            load: beat.load,
            known: &known,
        };
        let outcome = device.machine.beat(now, &from, id, &incoming);
        let (is_native, publish) = (device.role == Role::Native, outcome.publish);
        let ack = AckBuf::from(outcome.ack);
        self.check_answer(no, client.0, &beat, &ack.as_ack(), &before)?;
        self.ledger.beat_answered(
            self.now,
            (client.0, no),
            stream,
            &from,
            &beat,
            &ack.as_ack(),
        );
        // A lookup finds nodes there, too.
        let puts = is_native || self.plan.asks;
        if let (true, true, Some(record)) = (publish, puts, record) {
            let late = self.rng.below(2_000);
            self.dht.put(self.now + late, record);
        }
        let denied = matches!(ack.code, AckCode::Full | AckCode::Refused);
        self.send_ack(no, stream, ack);
        if denied || beat.lease.is_zero() {
            // The daemon closes the stream behind such an ack.
            self.devices[no].inbound.remove(&stream);
            self.end_stream(stream, false);
        }
        Ok(())
    }

    /// What the process calls the stream; `None` if it has closed it.
    fn server_stream(&mut self, no: DeviceNo, key: StreamKey) -> Option<StreamId> {
        let stream = &mut self.network.streams[key];
        let device = &mut self.devices[no];
        if stream.id.is_none() {
            let id = StreamId(device.number());
            stream.id = Some(id);
            device.inbound.insert(key, id);
        }
        device.inbound.get(&key).copied()
    }

    fn take_ack(&mut self, no: DeviceNo, input: Input) -> Result<(), String> {
        let Input::Ack {
            stream,
            sequence,
            ack,
            wall_ms,
            synchronised,
        } = input
        else {
            return Ok(());
        };
        let answers = self.network.streams[stream].sent == sequence + 1;
        let server_no = self.network.streams[stream].server.0;
        let (server, is_native) = (
            self.devices[server_no].peer,
            self.devices[no].natives.contains(&server_no),
        );
        let over = Endpoint::of(&self.devices[server_no].addr(server_no));
        let device = &mut self.devices[no];
        if device.out.get(&server) != Some(&stream) {
            return Ok(());
        }
        let now = device.instant(self.now);
        let asked = device.machine.asked_at(&server).filter(|_| answers);
        let clock_of = match is_native {
            true => ClockOf::Native(server),
            false => ClockOf::Other(server),
        };
        let theirs = WallReading {
            ms: wall_ms,
            synchronised,
        };
        device.clock.heard(now, asked, clock_of, theirs);
        if is_native && asked.is_some_and(|asked| now - asked <= MAX_TRIP) {
            device.natives_clocks.insert(server);
        }
        let (server, said) = (&server, &ack.as_ack());
        if answers {
            let carried = protocol::Input::Carried { server, over };
            device.machine.handle(now, carried);
        }
        let said = match (answers, ack.code) {
            (true, _) => protocol::Input::Acked { server, ack: said },
            (false, AckCode::Released) => protocol::Input::Notified { server, ack: said },
            _ => return Err(format!("device {no} had two beats in flight")),
        };
        device.machine.handle(now, said);
        self.note_offers(no, ack.offers.iter());
        self.check_lease(no, server_no)
    }

    fn take_end(&mut self, no: DeviceNo, key: StreamKey) {
        let stream = &self.network.streams[key];
        let now = self.devices[no].instant(self.now);
        let (client, server) = (
            self.devices[stream.client.0].peer,
            self.devices[stream.server.0].peer,
        );
        let device = &mut self.devices[no];
        if device.out.get(&server) == Some(&key) {
            device.out.remove(&server);
            let closed = protocol::Input::LeaseClosed { server: &server };
            device.machine.handle(now, closed);
        } else if let Some(id) = device.inbound.remove(&key) {
            let closed = protocol::Input::StreamClosed {
                peer: &client,
                stream: id,
            };
            device.machine.handle(now, closed);
            let client = stream.client.0;
            self.ledger.stream_ended(no, client, key);
        }
    }

    fn take_ask(
        &mut self,
        no: DeviceNo,
        from: (DeviceNo, u64),
        number: u64,
        want: Want,
    ) -> Result<(), String> {
        let asking = self.devices[from.0].peer;
        let known = self.known_alive(no);
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        let request = RequestId(device.number());
        let answer = device.machine.ask(now, &asking, request, MAX_LIST, want);
        device.requests.insert(request, (from.0, from.1, number));
        self.ledger.waiting.insert((no, request.0), (known, want));
        match answer {
            Some(answer) => self.answer(no, request, answer),
            None => Ok(()),
        }
    }

    fn answer(
        &mut self,
        no: DeviceNo,
        request: RequestId,
        answer: IndexersAnswer,
    ) -> Result<(), String> {
        self.check_offer(no, request, &answer)?;
        let device = &mut self.devices[no];
        let native = device.peer;
        let Some((from, life, number)) = device.requests.remove(&request) else {
            return Ok(());
        };
        let answer = Input::Answer {
            native,
            number,
            answer: Some(answer),
        };
        self.reply(no, (from, life), answer);
        Ok(())
    }

    /// What the client may try, and until when.
    fn note_offers<'a>(&mut self, no: DeviceNo, offers: impl Iterator<Item = &'a Offer>) {
        for offer in offers {
            let until = self.now + offer.ttl.as_millis() as u64;
            let indexer = self.number_of(&offer.peer);
            let known = self.ledger.offered.entry((no, indexer)).or_default();
            *known = until.max(*known);
        }
    }

    fn act(&mut self, no: DeviceNo, action: Action) -> Result<(), String> {
        match action {
            Action::Beat {
                server,
                addrs,
                beat,
            } => {
                let known =
                    PeerList::from_iter(self.devices[no].machine.beat_known().iter().copied());
                self.check_beat(no, &server, &beat, &known)?;
                self.send_beat(no, server, &addrs, beat, known);
            }
            Action::Drop { server } => self.drop_stream(no, &server),
            Action::GiveUp { server } => {
                if self.devices[no].out.contains_key(&server) {
                    let last = OutBeat {
                        role: self.devices[no].role,
                        lease: Default::default(),
                        with_record: false,
                        fresh: false,
                        publisher: Publisher::Receiver,
                        load: None,
                    };
                    // The stream is open.
                    self.send_beat(no, server, &Addrs::new(), last, PeerList::new());
                    self.drop_stream(no, &server);
                }
            }
            Action::Sign => {
                self.devices[no].signing.want();
                self.sign_if_due(no);
            }
            Action::Close { peer, stream } => return self.close_stream(no, &peer, stream),
            Action::Release {
                peer,
                stream,
                left,
                offer,
            } => {
                let ack = Ack::released(left, offer.as_slice());
                self.check_release(no, &ack)?;
                let inbound = &self.devices[no].inbound;
                let key = inbound.iter().find(|(_, id)| **id == stream);
                if let Some((&key, _)) = key {
                    debug_assert_eq!(self.devices[self.network.streams[key].client.0].peer, peer);
                    self.send_ack(no, key, ack.into());
                }
            }
            Action::Probe { peer, addrs } => self.probe(no, peer, &addrs),
            Action::Search { peer } => self.search(no, peer),
            Action::EndSearch { peer } => {
                self.devices[no].searches.remove(&peer);
            }
            Action::Answer { request, takes_in } => {
                let offers = self.devices[no].machine.answer_offers();
                let offers = offers.iter().cloned().collect();
                return self.answer(no, request, IndexersAnswer { offers, takes_in });
            }
            Action::Ask { native, want, .. } => {
                self.check_pace(no)?;
                self.ask(no, native, want);
            }
            // No device has the identity of another here.
            Action::ProbeStream { .. } | Action::Judge { .. } => {}
            Action::Refreshed { .. }
            | Action::Denied { .. }
            | Action::Contested(_)
            | Action::Uncontested { .. } => {}
        }
        Ok(())
    }

    fn send_beat(
        &mut self,
        no: DeviceNo,
        server: PeerId,
        addrs: &Addrs,
        mut beat: OutBeat,
        known: PeerList,
    ) {
        if self.plan.boasts(no) {
            beat.load = beat.load.map(|_| BOAST);
        }
        let open = self.devices[no].out.get(&server).copied();
        let to = self.number_of(&server);
        let stream = match open {
            Some(open) if !beat.fresh => open,
            // The dial comes to nothing: the old connection stays, the beat is lost.
            Some(_) if self.network.is_cut(self.now, no, to) || !self.is_dialable(addrs, to) => {
                return;
            }
            Some(_) => {
                self.drop_stream(no, &server);
                self.open_stream(no, server, addrs, true)
            }
            None => self.open_stream(no, server, addrs, beat.fresh),
        };
        let record = self.devices[no].record.clone();
        let record = record.filter(|_| beat.with_record);
        let to = self.network.streams[stream].server;
        let sequence = self.network.streams[stream].sent;
        self.network.streams[stream].sent += 1;
        if let Some(at) = self.network.pass_on(self.now, stream, true, &mut self.rng) {
            self.send(
                at,
                to,
                Input::Beat {
                    stream,
                    sequence,
                    beat,
                    known,
                    record,
                },
            );
        }
    }

    /// Dials. A device that is not at the address we know gets nothing; what is sent there comes
    /// back.
    fn open_stream(
        &mut self,
        no: DeviceNo,
        server: PeerId,
        addrs: &Addrs,
        fresh: bool,
    ) -> StreamKey {
        let to = self.number_of(&server);
        let key = self.network.streams.len();
        let life = if self.is_dialable(addrs, to) {
            self.devices[to].life
        } else {
            0
        };
        let connection = self.network.connection(no, to, fresh);
        self.network.connections[connection].streams.push(key);
        self.network.streams.push(Stream {
            client: (no, self.devices[no].life),
            server: (to, life),
            id: None,
            sent: 0,
            received: 0,
            connection,
            last: [0; 2],
        });
        self.devices[no].out.insert(server, key);
        key
    }

    /// Whether the peer's present process listens at one of these.
    fn is_dialable(&self, addrs: &Addrs, to: DeviceNo) -> bool {
        addrs.contains(&self.devices[to].addr(to))
    }

    fn drop_stream(&mut self, no: DeviceNo, server: &PeerId) {
        if let Some(stream) = self.devices[no].out.remove(server) {
            self.end_stream(stream, true);
        }
    }

    fn close_stream(&mut self, no: DeviceNo, peer: &PeerId, id: StreamId) -> Result<(), String> {
        let key = {
            let mut inbound = self.devices[no].inbound.iter();
            inbound.find(|(_, open)| **open == id).map(|(&key, _)| key)
        };
        self.check_close(no, peer, key)?;
        if let Some(key) = key {
            self.devices[no].inbound.remove(&key);
            self.end_stream(key, false);
        }
        Ok(())
    }

    fn send_ack(&mut self, no: DeviceNo, stream: StreamKey, ack: AckBuf) {
        let device = &self.devices[no];
        let (wall_ms, synchronised) = (device.own_ms(self.now), device.synchronised);
        let client = self.network.streams[stream].client;
        let sequence = self.network.streams[stream].received;
        if let Some(at) = self.network.pass_on(self.now, stream, false, &mut self.rng) {
            let ack = Input::Ack {
                stream,
                sequence,
                ack,
                wall_ms,
                synchronised,
            };
            self.send(at, client, ack);
        }
    }

    pub fn reply(&mut self, no: DeviceNo, to: (DeviceNo, u64), input: Input) {
        if let Some(at) = self.network.pass(self.now, no, to.0, &mut self.rng) {
            self.send(at, to, input);
        }
    }

    fn ask(&mut self, no: DeviceNo, native: PeerId, want: Want) {
        let to = self.number_of(&native);
        let number = self.devices[no].number();
        self.devices[no].asks.insert(native, number);
        let input = Input::Ask {
            from: no,
            life: self.devices[no].life,
            number,
            want,
        };
        self.reply(no, (to, self.devices[to].life), input);
    }

    fn probe(&mut self, no: DeviceNo, peer: PeerId, addrs: &Addrs) {
        let to = self.number_of(&peer);
        self.ledger.probe_began(self.now, no, to);
        let number = self.devices[no].number();
        self.devices[no].pings.insert(peer, number);
        let life = if self.is_dialable(addrs, to) {
            self.devices[to].life
        } else {
            0
        };
        let input = Input::Ping {
            from: no,
            life: self.devices[no].life,
            number,
        };
        self.reply(no, (to, life), input);
    }

    fn search(&mut self, no: DeviceNo, peer: PeerId) {
        let (found, end) = self
            .dht
            .search(self.now, &peer, self.network.faulty, &mut self.rng);
        let device = &mut self.devices[no];
        let number = device.number();
        device.searches.insert(peer, number);
        let to = (no, device.life);
        for (late, record) in found {
            self.send(self.now + late, to, Input::Value { record, number });
        }
        self.send(self.now + end, to, Input::SearchEnd { peer, number });
    }

    /// What the daemon does every 20 s: notes the time and what is worth trying after a restart.
    /// Whether it was due.
    fn keep_house(&mut self, no: DeviceNo) -> bool {
        let now = self.devices[no].instant(self.now).as_millis();
        if now < self.devices[no].housekeeping {
            return false;
        }
        let view = self.devices[no].view(self.now);
        let device = &mut self.devices[no];
        device.housekeeping = now + HOUSEKEEPING;
        let indexers: Vec<_> = match device.role {
            Role::Native => view
                .live
                .iter()
                .map(|entry| (entry.peer, entry.addrs.clone()))
                .collect(),
            Role::Indexer | Role::Node => view
                .leases
                .iter()
                .filter(|lease| lease.role() == Role::Indexer)
                .map(|lease| (*lease.server(), lease.addrs().clone()))
                .collect(),
        };
        // None at the moment is no reason to forget those of before.
        if !indexers.is_empty() {
            device.flash.state.indexers = indexers;
        }
        device.note_time(self.now);
        device.flash.save_if_due(now);
        true
    }

    /// Signs the own record, if the core says so. Returns whether it did.
    fn sign_if_due(&mut self, no: DeviceNo) -> bool {
        let lease = self.plan.terms.lease;
        let device = &mut self.devices[no];
        let addr = device.addr(no);
        let announced = || [addr.as_slice()].into_iter();
        let has_time = device.clock.is_trusted(device.system_ms(self.now));
        if !device.signing.is_due(announced(), has_time) {
            return false;
        }
        let urgency = device.signing.signed(announced());
        let now = device.instant(self.now);
        let own_ms = device.own_ms(self.now);
        let sequence = device.flash.next_sequence(own_ms, now.as_millis());
        let name = device.name(no);
        let record = dht::record(device.peer, sequence, own_ms, lease, addr, name);
        self.desk.signed(&record);
        device.note_time(self.now);
        self.ledger
            .signed
            .insert((no, sequence), record.expires_at_ms());
        device.record = Some(record);
        let urgent = urgency == Urgency::AtOnce;
        device
            .machine
            .handle(now, protocol::Input::RecordSigned { urgent });
        true
    }
}
