//! What a process does: it gives its machine what arrives, polls until no action is left, and
//! carries the actions out.

use oc_discovery::protocol::lookup::Ask;

use super::*;

impl World {
    pub(super) fn take(&mut self, to: PeerNo, input: Input) {
        let (now, own_ms) = (self.instant(), self.own_ms());
        match input {
            Input::Beat(stream, beat, signed_at) => self.take_beat(to, stream, &beat, signed_at),
            Input::Ack(stream, ack) => self.take_ack(to, stream, &ack.as_ack(), AckCause::Beat),
            Input::Told(stream, ack) => {
                self.take_ack(to, stream, &ack.as_ack(), AckCause::Unsolicited)
            }
            Input::End(stream) => self.take_end(to, stream),
            Input::Ask(from, number, want) => {
                let asking = self.peers[from].id;
                let (peer, request) = (&mut self.peers[to], RequestId(number));
                match peer.machine.ask(now, &asking, request, MAX_LIST, want) {
                    Some(answer) => {
                        let answer = (answer.offers.into(), answer.takes_in);
                        let answer = Input::Answer(to, number, Some(answer));
                        self.network.send(self.now, from, answer);
                    }
                    None => {
                        peer.requests.insert(request, from);
                    }
                }
            }
            Input::Answer(native, number, answer) => {
                let native = self.peers[native].id;
                let peer = &mut self.peers[to];
                if peer.asked == number {
                    let answer = answer.as_ref();
                    let answered = protocol::Input::Answered {
                        native: &native,
                        answer: answer.map(|(offers, takes_in)| IndexersAnswer {
                            offers,
                            takes_in: *takes_in,
                        }),
                    };
                    peer.machine.handle(now, answered);
                }
            }
            Input::Ping(from) => {
                let pong = Input::Pong(to, Verdict::Reachable);
                self.network.send(self.now, from, pong);
            }
            Input::Pong(from, verdict) => {
                let from = self.peers[from].id;
                let probed = protocol::Input::Probed {
                    peer: &from,
                    verdict,
                };
                self.peers[to].machine.handle(now, probed);
            }
            Input::Value(record) => {
                let found = protocol::Input::SearchValue {
                    peer: &record.peer,
                    record: &record,
                    own_ms,
                };
                self.peers[to].machine.handle(now, found);
            }
            Input::SearchEnd(peer) => {
                let ended = protocol::Input::SearchEnded {
                    peer: &peer,
                    own_ms,
                };
                self.peers[to].machine.handle(now, ended);
            }
            Input::Announced(key) => {
                let (key, end) = (&*key, protocol::AnnounceEnd::Taken);
                let ended = protocol::Input::Announced { key, end };
                self.peers[to].machine.handle(now, ended);
            }
            Input::Start | Input::Wake => {}
        }
    }

    fn take_beat(
        &mut self,
        to: PeerNo,
        stream: StreamNo,
        (beat, known): &(OutBeat, PeerList),
        signed_at: Option<u64>,
    ) {
        if !self.network.stream(stream).open {
            return;
        }
        let from = self.network.stream(stream).client;
        let (id, now) = (self.peers[from].id, self.instant());
        let record = signed_at.map(|signed_at| record(from, id, signed_at));
        let envelope = record.as_ref().map(enveloped).unwrap_or_default();
        let incoming = Beat {
            record: record.clone().map(|info| SignedRecord {
                info,
                envelope: &envelope,
            }),
            publisher: beat.publisher,
            load: beat.load,
            known: known.clone(),
            ..Beat::new(beat.role, beat.lease)
        };
        let server = &mut self.peers[to];
        let (machine, stream_id) = (&mut server.machine, StreamId(stream as u64));
        let outcome = machine.beat(now, &id, stream_id, &incoming);
        if let (Role::Native, true, Some(record)) = (server.role, outcome.publish, record) {
            self.dht.insert(id, record);
        }
        let ack = Input::Ack(stream, Box::new(outcome.ack.into()));
        self.network.pass(self.now, stream, End::Client, ack);
    }

    fn take_ack(&mut self, to: PeerNo, stream: StreamNo, ack: &Ack<'_>, cause: AckCause) {
        let (server, now) = (self.network.stream(stream).server, self.instant());
        let id = self.peers[server].id;
        let peer = &mut self.peers[to];
        if !peer.out.contains(&(server, stream)) {
            return;
        }
        let said = protocol::Input::Acked {
            server: &id,
            over: Some(TransportAddr::of(&addrs(server)[0])),
            cause,
            ack,
            clock: None,
        };
        peer.machine.handle(now, said);
        match ack.code {
            AckCode::Accepted if peer.role == Role::Node => {
                let until = self.now + ack.lease.as_millis() as u64;
                self.ledger.granted(to, server, until);
            }
            AckCode::Full | AckCode::Refused => self.ledger.ended(to, server),
            AckCode::Accepted | AckCode::Released => {}
        }
    }

    fn take_end(&mut self, to: PeerNo, stream: StreamNo) {
        let now = self.instant();
        let there = self.network.stream(stream);
        let (client, server) = (there.client, there.server);
        let (client_id, server_id) = (self.peers[client].id, self.peers[server].id);
        let peer = &mut self.peers[to];
        if to == server {
            self.network.close(stream);
            let closed = protocol::Input::StreamClosed {
                peer: &client_id,
                stream: StreamId(stream as u64),
            };
            return peer.machine.handle(now, closed);
        }
        if peer.out.contains(&(server, stream)) {
            peer.out.retain(|(_, open)| *open != stream);
            let closed = protocol::Input::LeaseClosed { server: &server_id };
            peer.machine.handle(now, closed);
            self.ledger.ended(to, server);
        }
    }

    pub(super) fn drain(&mut self, number: PeerNo) {
        let (now, own_ms) = (self.instant(), self.own_ms());
        while let Some(action) = self.peers[number].machine.poll(now, own_ms) {
            self.act(number, action);
        }
        let peer = &mut self.peers[number];
        let next = peer.machine.next_timeout();
        let wake_at = next.map_or(u64::MAX, |at| at.as_millis().max(self.now + 1));
        if wake_at != peer.wake_at {
            peer.wake_at = wake_at;
            self.network.at(wake_at, number, Input::Wake);
        }
    }

    fn act(&mut self, number: PeerNo, action: Action) {
        match action {
            Action::Beat { server, beat, .. } => {
                let known = self.peers[number].machine.beat_known();
                let known = known.iter().copied().collect();
                self.send_beat(number, number_of(&server), beat, known);
            }
            Action::Drop { server } => self.drop_stream(number, number_of(&server)),
            Action::GiveUp { server, .. } => {
                let (role, server) = (self.peers[number].role, number_of(&server));
                if self.stream_to(number, server).is_some() {
                    self.send_beat(number, server, OutBeat::last(role), PeerList::new());
                    self.drop_stream(number, server);
                }
            }
            Action::Sign => {
                let now = self.instant();
                let peer = &mut self.peers[number];
                peer.signed_at = self.now;
                let signed = protocol::Input::RecordSigned {
                    urgency: Urgency::NextBeat,
                };
                peer.machine.handle(now, signed);
            }
            Action::Close { stream, .. } => {
                let stream = stream.0 as StreamNo;
                if self.network.stream(stream).open {
                    self.network.close(stream);
                    let end = Input::End(stream);
                    self.network.pass(self.now, stream, End::Client, end);
                }
            }
            Action::Release {
                stream,
                left,
                offer,
                ..
            } => {
                let stream = stream.0 as StreamNo;
                let ack = Ack::released(left, offer.as_slice());
                let told = Input::Told(stream, Box::new(ack.into()));
                self.network.pass(self.now, stream, End::Client, told);
            }
            Action::Probe { peer, .. } => {
                let ping = Input::Ping(number);
                self.network.dial(self.now, number_of(&peer), ping);
            }
            Action::Search { peer, .. } => {
                let at = self.now + SEARCH;
                if let Some(record) = self.dht.get(&peer) {
                    let value = Input::Value(Box::new(record.clone()));
                    self.network.at(at, number, value);
                }
                self.network.at(at, number, Input::SearchEnd(peer));
            }
            Action::Answer { request, takes_in } => {
                if let Some(from) = self.peers[number].requests.remove(&request) {
                    let offers = self.peers[number].machine.answer_offers();
                    let answer = Some((offers.into(), takes_in));
                    let answer = Input::Answer(number, request.0, answer);
                    self.network.send(self.now, from, answer);
                }
            }
            Action::Ask {
                server,
                ask: Ask::Offers(want),
                ..
            } => {
                self.requests += 1;
                self.peers[number].asked = self.requests;
                let ask = Input::Ask(number, self.requests, want);
                self.network.dial(self.now, number_of(&server), ask);
            }
            Action::Announce { key } => {
                let providers = self.providers.entry(key.clone()).or_default();
                if !providers.contains(&number) {
                    providers.push(number);
                }
                let announced = Input::Announced(Box::new(key));
                self.network.at(self.now + SEARCH, number, announced);
            }
            Action::EndSearch { .. }
            | Action::Refreshed { .. }
            | Action::Retry
            | Action::Denied { .. }
            | Action::ProbeStream { .. }
            | Action::Judge { .. }
            | Action::Contested(_)
            | Action::Uncontested { .. }
            // The machine is driven without an endpoint.
            | Action::Admit { .. }
            | Action::Expel { .. }
            | Action::KeepRevocations
            | Action::Ask { .. }
            | Action::Providers { .. }
            | Action::Respond { .. }
            | Action::Done { .. }
            | Action::Listing(_)
            | Action::Watch(_)
            | Action::Slot { .. }
            | Action::Slots
            | Action::KeepHouse
            | Action::End { .. } => {}
        }
    }

    fn stream_to(&self, number: PeerNo, server: PeerNo) -> Option<StreamNo> {
        let mut out = self.peers[number].out.iter();
        out.find(|(to, _)| *to == server).map(|(_, stream)| *stream)
    }

    fn send_beat(&mut self, number: PeerNo, server: PeerNo, beat: OutBeat, known: PeerList) {
        // Here a stream is silent only if its server is, so nothing is lost with the old one.
        if beat.fresh {
            self.drop_stream(number, server);
        }
        let stream = self.stream_to(number, server).unwrap_or_else(|| {
            let stream = self.network.open(self.now, number, server);
            self.peers[number].out.push((server, stream));
            stream
        });
        let signed_at = beat.with_record.then_some(self.peers[number].signed_at);
        let beat = Input::Beat(stream, Box::new((beat, known)), signed_at);
        self.network.pass(self.now, stream, End::Server, beat);
    }

    fn drop_stream(&mut self, number: PeerNo, server: PeerNo) {
        if let Some(stream) = self.stream_to(number, server) {
            let out = &mut self.peers[number].out;
            out.retain(|(_, open)| *open != stream);
            self.ledger.ended(number, server);
            let end = Input::End(stream);
            self.network.pass(self.now, stream, End::Server, end);
        }
    }
}

fn record(number: PeerNo, peer: PeerId, signed_at: u64) -> RecordInfo {
    let issued_at_ms = EPOCH + signed_at;
    RecordInfo {
        peer,
        sequence: issued_at_ms,
        issued_at_ms,
        ttl: record_ttl(TERMS.lease),
        addrs: addrs(number),
        name: name_of(number),
    }
}

fn enveloped(info: &RecordInfo) -> Vec<u8> {
    lookups::envelope(Record {
        peer: info.peer,
        sequence: info.sequence,
        issued_at_ms: info.issued_at_ms,
        ttl: info.ttl,
        addrs: info.addrs.iter().map(|addr| addr.as_slice()).collect(),
        name: &info.name,
        tags: Default::default(),
        services: Default::default(),
        version: Default::default(),
        link_services: Default::default(),
        grant: &[],
    })
}
