//! The driver of a process: gives events in order, polls until there is nothing left, does what it is told.
//!
//! It is what `src/daemon` is to the real network, and knows as little: no decision is made here.

use oc_discovery::protocol::{
    Ack, AckCode, Action, Beat, MAX_LIST, OutBeat, PeerId, RequestId, Role, StreamId, Want,
};

use crate::{
    device::{Device, DeviceNo},
    dht,
    network::{Input, Stream, StreamKey},
    world::World,
};

/// Actions in a row at one instant that no machine may exceed.
const MOST_ACTIONS: usize = 1000;

impl World {
    /// One turn of a process's loop: what has arrived, then everything that follows.
    pub fn step(&mut self, no: DeviceNo, inputs: Vec<Input>) -> Result<(), String> {
        let now = self.devices[no].instant(self.now);
        let gap = self.devices[no].machine.overslept(now);
        for input in inputs {
            self.take(no, input)?;
            if gap.is_zero() {
                self.drain(no)?;
            }
        }
        if !gap.is_zero() {
            self.devices[no].machine.shift(now, gap);
        }
        self.drain(no)?;
        self.check(no)?;
        self.set_timer(no)
    }

    /// Polls until there is no action left.
    pub fn drain(&mut self, no: DeviceNo) -> Result<(), String> {
        for _ in 0..MOST_ACTIONS {
            let device = &mut self.devices[no];
            let (now, own_ms) = (device.instant(self.now), device.own_ms(self.now));
            let Some(action) = device.machine.poll(now, own_ms) else {
                return Ok(());
            };
            self.trace.note(self.now, &(no, &action));
            self.act(no, action);
        }
        Err(format!(
            "device {no} had {MOST_ACTIONS} actions at one instant"
        ))
    }

    fn take(&mut self, no: DeviceNo, input: Input) -> Result<(), String> {
        let now = self.devices[no].instant(self.now);
        let own_ms = self.devices[no].own_ms(self.now);
        match input {
            Input::Beat { .. } => self.take_beat(no, input),
            Input::Ack { .. } => return self.take_ack(no, input),
            Input::End { stream } => self.take_end(no, stream),
            Input::Ask {
                from,
                life,
                number,
                want,
            } => self.take_ask(no, (from, life), number, want),
            Input::Answer {
                native,
                number,
                answer,
            } => {
                let device = &mut self.devices[no];
                if device.asks.get(&native) == Some(&number) {
                    device.asks.remove(&native);
                    device.machine.answered(now, &native, answer.as_ref());
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
                    device.machine.probed(now, &peer, alive);
                }
            }
            Input::Value { record, number } => {
                let device = &mut self.devices[no];
                if device.searches.get(&record.peer) == Some(&number) {
                    device
                        .machine
                        .search_value(now, own_ms, &record.peer, &record);
                }
            }
            Input::SearchEnd { peer, number } => {
                let device = &mut self.devices[no];
                if device.searches.get(&peer) == Some(&number) {
                    device.searches.remove(&peer);
                    device.machine.search_ended(now, own_ms, &peer);
                }
            }
        }
        Ok(())
    }

    fn take_beat(&mut self, no: DeviceNo, input: Input) {
        let Input::Beat {
            stream,
            sequence,
            beat,
            record,
        } = input
        else {
            return;
        };
        let client = self.network.streams[stream].client;
        let from = self.devices[client.0].peer;
        let Some(id) = self.server_stream(no, stream) else {
            return;
        };
        self.network.streams[stream].received = sequence;
        let envelope = record.as_ref().map(|record| record.sequence.to_le_bytes());
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        let outcome = device.machine.beat(
            now,
            &from,
            id,
            &Beat {
                role: beat.role,
                lease: beat.lease,
                record: record
                    .as_ref()
                    .zip(envelope.as_ref())
                    .map(|(record, envelope)| (record, envelope.as_slice())),
                load: beat.load,
                known: &beat.known,
            },
        );
        let is_native = device.role == Role::Native;
        self.ledger
            .beat_answered(self.now, (client.0, no), &from, &beat, &outcome.ack);
        if let (true, true, Some(record)) = (outcome.publish, is_native, record) {
            let late = self.rng.below(2_000);
            self.dht.put(self.now + late, record);
        }
        self.send_ack(no, stream, outcome.ack);
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
            self.devices[server_no].role == Role::Native,
        );
        let device = &mut self.devices[no];
        if device.out.get(&server) != Some(&stream) {
            return Ok(());
        }
        let now = device.instant(self.now);
        device
            .clock
            .heard(now, server, is_native, wall_ms, synchronised);
        match (answers, ack.code) {
            (true, _) => device.machine.acked(now, &server, &ack),
            (false, AckCode::Released) => device.machine.told(now, &server, &ack),
            _ => return Err(format!("device {no} had two beats in flight")),
        }
        self.sign_if_due(no);
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
            device.machine.lease_closed(now, &server);
        } else if let Some(id) = device.inbound.remove(&key) {
            device.machine.stream_closed(now, &client, id);
        }
    }

    fn take_ask(&mut self, no: DeviceNo, from: (DeviceNo, u64), number: u64, want: Want) {
        let asking = self.devices[from.0].peer;
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        let request = RequestId(device.number());
        let answer = device.machine.ask(now, &asking, request, MAX_LIST, want);
        match answer {
            Some(_) => {
                let answer = Input::Answer {
                    native: device.peer,
                    number,
                    answer,
                };
                self.reply(no, from, answer);
            }
            None => {
                device.requests.insert(request, (from.0, from.1, number));
            }
        }
    }

    fn act(&mut self, no: DeviceNo, action: Action) {
        match action {
            Action::Beat { server, beat } => self.send_beat(no, server, beat),
            Action::Drop { server } => self.drop_stream(no, &server),
            Action::GiveUp { server } => {
                if self.devices[no].out.contains_key(&server) {
                    let last = OutBeat {
                        role: self.devices[no].role,
                        lease: Default::default(),
                        with_record: false,
                        fresh: false,
                        load: None,
                        known: Default::default(),
                    };
                    self.send_beat(no, server, last);
                    self.drop_stream(no, &server);
                }
            }
            Action::Sign => {
                self.devices[no].sign_later = true;
                self.sign_if_due(no);
            }
            Action::Close { peer, stream } => self.close_stream(no, &peer, stream),
            Action::Release { peer, stream, ack } => {
                let inbound = &self.devices[no].inbound;
                let key = inbound.iter().find(|(_, id)| **id == stream);
                if let Some((&key, _)) = key {
                    debug_assert_eq!(self.devices[self.network.streams[key].client.0].peer, peer);
                    self.send_ack(no, key, ack);
                }
            }
            Action::Probe { peer } => self.probe(no, peer),
            Action::Search { peer } => self.search(no, peer),
            Action::EndSearch { peer } => {
                self.devices[no].searches.remove(&peer);
            }
            Action::Answer { request, answer } => {
                let device = &mut self.devices[no];
                if let Some((from, life, number)) = device.requests.remove(&request) {
                    let answer = Input::Answer {
                        native: device.peer,
                        number,
                        answer: Some(answer),
                    };
                    self.reply(no, (from, life), answer);
                }
            }
            Action::Ask { native, want } => self.ask(no, native, want),
            Action::Refreshed { .. } | Action::Denied { .. } => {}
        }
    }

    fn send_beat(&mut self, no: DeviceNo, server: PeerId, beat: OutBeat) {
        if beat.fresh {
            self.drop_stream(no, &server);
        }
        let stream = match self.devices[no].out.get(&server) {
            Some(&open) => open,
            None => self.open_stream(no, server),
        };
        let record = self.devices[no]
            .record
            .as_ref()
            .filter(|_| beat.with_record)
            .map(|(record, _)| record.clone());
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
                    record,
                },
            );
        }
    }

    /// Dials. Who is not at the address we know gets nothing; what is sent there comes back.
    fn open_stream(&mut self, no: DeviceNo, server: PeerId) -> StreamKey {
        let to = self.number_of(&server);
        let key = self.network.streams.len();
        let life = if self.is_dialable(no, to) {
            self.devices[to].life
        } else {
            0
        };
        self.network.streams.push(Stream {
            client: (no, self.devices[no].life),
            server: (to, life),
            id: None,
            sent: 0,
            received: 0,
            dead: false,
            last: [0; 2],
        });
        self.devices[no].out.insert(server, key);
        key
    }

    /// Whether we know where the peer's present process listens.
    fn is_dialable(&self, no: DeviceNo, to: DeviceNo) -> bool {
        let there = &self.devices[to];
        let addr = Device::addr(to, there.role, there.life);
        self.devices[no]
            .machine
            .addrs_of(&there.peer)
            .is_some_and(|addrs| addrs.contains(&addr))
    }

    fn drop_stream(&mut self, no: DeviceNo, server: &PeerId) {
        if let Some(stream) = self.devices[no].out.remove(server) {
            self.end_stream(stream, true);
        }
    }

    fn close_stream(&mut self, no: DeviceNo, peer: &PeerId, id: StreamId) {
        let key = {
            let mut inbound = self.devices[no].inbound.iter();
            inbound.find(|(_, open)| **open == id).map(|(&key, _)| key)
        };
        if let Some(key) = key {
            debug_assert_eq!(self.devices[self.network.streams[key].client.0].peer, *peer);
            self.devices[no].inbound.remove(&key);
            self.end_stream(key, false);
        }
    }

    fn send_ack(&mut self, no: DeviceNo, stream: StreamKey, ack: Ack) {
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

    fn reply(&mut self, no: DeviceNo, to: (DeviceNo, u64), input: Input) {
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

    fn probe(&mut self, no: DeviceNo, peer: PeerId) {
        let to = self.number_of(&peer);
        let number = self.devices[no].number();
        self.devices[no].pings.insert(peer, number);
        let life = if self.is_dialable(no, to) {
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

    /// Signs the own record if that is wanted and the time is known, or if the time turned out to be another.
    fn sign_if_due(&mut self, no: DeviceNo) {
        let lease = self.plan.terms.lease;
        let device = &mut self.devices[no];
        let (system_ms, own_ms) = (device.system_ms(self.now), device.own_ms(self.now));
        let ahead = i128::from(own_ms) - i128::from(system_ms);
        let signed = device.record.as_ref().map(|(_, ahead)| *ahead);
        let wrong = signed.is_some_and(|signed| signed.abs_diff(ahead) > 30_000);
        let late = device.sign_later && signed.is_none();
        if !device.clock.is_trusted(system_ms) || !(device.sign_later || wrong) {
            return;
        }
        device.sign_later = false;
        device.sequence = (device.sequence + 1).max(own_ms);
        let addr = Device::addr(no, device.role, device.life);
        let record = dht::record(device.peer, device.sequence, own_ms, lease, &addr);
        device.record = Some((record, ahead));
        let now = device.instant(self.now);
        device
            .machine
            .record_signed(now, wrong || (late && !device.out.is_empty()));
    }
}
