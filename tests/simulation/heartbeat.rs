//! The heartbeat streams of a process: sending and receiving, one frame at a time.

use oc_discovery::protocol::{
    self, AckBuf, Addrs, Endpoint, Families, FirstBeat, Load, OutBeat, PeerId, Reader, Role,
    StreamId,
    clock::MAX_TRIP,
    codec::{
        heartbeat::{AckCause, LastBeat, WallReading},
        record::Kind,
    },
};

use crate::{
    device::DeviceNo,
    frames::{Frame, Seals},
    network::{End, Input, Stream, StreamKey},
    world::World,
};

/// The load that an overstating indexer reports.
const BOAST: Load = Load {
    held: 0,
    possible: u32::MAX,
};

impl World {
    /// Processes a beat.
    pub fn take_beat(
        &mut self,
        no: DeviceNo,
        stream: StreamKey,
        frame: &Frame,
    ) -> Result<(), String> {
        let client = self.network.streams[stream].client;
        let from = self.devices[client.0].peer;
        let Some(id) = self.server_stream(no, stream) else {
            return Ok(());
        };
        if self.network.streams[stream].received == 0 {
            let source = Endpoint::of(&self.devices[client.0].addr());
            let device = &mut self.devices[no];
            let now = device.instant(self.now);
            // The frame is checked before the machine gets the beat.
            frame.read_beat()?;
            match device.machine.stream_opened(now, &from, id, source) {
                FirstBeat::Now => device.machine.handle(now, seen(&from)),
                FirstBeat::Held => {
                    device.held.push((id, stream, frame.clone()));
                    return Ok(());
                }
            }
        }
        self.judge_beat(no, (stream, id), frame)
    }

    /// Gives the machine a held first beat. If there is none, its stream has ended.
    pub fn judge(&mut self, no: DeviceNo, id: StreamId) -> Result<(), String> {
        let device = &mut self.devices[no];
        let Some(at) = device.held.iter().position(|(held, ..)| *held == id) else {
            return Ok(());
        };
        let (id, stream, frame) = device.held.swap_remove(at);
        let from = self.network.streams[stream].client.0;
        let now = self.devices[no].instant(self.now);
        let from = self.devices[from].peer;
        self.devices[no].machine.handle(now, seen(&from));
        self.judge_beat(no, (stream, id), &frame)
    }

    fn judge_beat(
        &mut self,
        no: DeviceNo,
        (stream, id): (StreamKey, StreamId),
        frame: &Frame,
    ) -> Result<(), String> {
        let client = self.network.streams[stream].client;
        let from = self.devices[client.0].peer;
        let received = frame.read_beat()?;
        if self.devices[no].is_mute && received.role == Role::Node {
            return Ok(());
        }
        let sequence = self.network.streams[stream].received;
        let received = received.in_order(sequence);
        let received = received.map_err(|why| format!("device {no}: {why}"))?;
        self.network.streams[stream].received += 1;
        let beat = received.open(&Seals).map_err(|why| why.to_string())?;
        let before = self.before_beat(no, client.0, &beat);
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        let clock = WallReading {
            ms: device.own_ms(self.now),
            synchronised: device.synchronised,
        };
        let outcome = device.machine.beat(now, &from, id, &beat);
        let publish = outcome.publish;
        let frame = Frame::ack(sequence, &outcome.ack, Some(clock))?;
        let ack = AckBuf::from(outcome.ack);
        let said = &ack.as_ack();
        self.check_answer(no, client.0, &beat, said, &before)?;
        self.ledger
            .beat_answered(self.now, (client.0, no), stream, &from, &beat, said);
        for other in self.twins_of(client.0) {
            self.ledger.heard.remove(&(no, other));
        }
        if let (true, Some(record)) = (publish, &beat.record) {
            let (late, kind) = (self.rng.below(2_000), Kind::of(beat.role));
            self.dht.put(self.now + late, kind, record.envelope)?;
        }
        let ends = said.ends_stream();
        self.send_ack(no, stream, frame);
        if ends {
            self.devices[no].inbound.remove(&stream);
            self.end_stream(stream, End::Server);
        }
        Ok(())
    }

    /// The process's id of the stream; `None` if it has closed the stream.
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

    /// Processes an ack of a server.
    pub fn take_ack(&mut self, no: DeviceNo, key: StreamKey, frame: &Frame) -> Result<(), String> {
        let server_no = self.network.streams[key].server.0;
        let server = self.devices[server_no].peer;
        if self.devices[no].out.get(&server) != Some(&key) {
            // After the last beat, any ack ends the stream.
            self.devices[no].left(key);
            return Ok(());
        }
        let ack = frame.read_ack()?;
        let stream = &mut self.network.streams[key];
        let last = LastBeat {
            sequence: stream.sent - 1,
            is_awaited: stream.is_awaited,
        };
        let cause = ack.cause(last);
        let cause = cause.map_err(|why| format!("device {no}: {why}"))?;
        stream.is_awaited &= cause != AckCause::Beat;
        let over = Endpoint::of(&self.devices[server_no].addr());
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        if let Some(theirs) = ack.clock {
            let is_native = device.machine.is_native(&server);
            let asked = device.machine.asked_at(&server);
            let asked = asked.filter(|_| cause == AckCause::Beat);
            let machine = &*device.machine;
            device.clock.heard(now, machine, &server, cause, theirs);
            if is_native && asked.is_some_and(|asked| now - asked <= MAX_TRIP) {
                device.natives_clocks.insert(server);
            }
        }
        let (server, said) = (&server, &ack.ack.as_ack());
        let carried = protocol::Input::Carried { server, over };
        device.machine.handle(now, carried);
        let said = match cause {
            AckCause::Beat => protocol::Input::Acked { server, ack: said },
            AckCause::Unsolicited => protocol::Input::Notified { server, ack: said },
        };
        device.machine.handle(now, said);
        self.note_offers(no, ack.ack.offers.iter());
        self.check_lease(no, server_no)
    }

    /// Processes the end of a stream.
    pub fn take_end(&mut self, no: DeviceNo, key: StreamKey) {
        let stream = &self.network.streams[key];
        let now = self.devices[no].instant(self.now);
        let (client, server) = (
            self.devices[stream.client.0].peer,
            self.devices[stream.server.0].peer,
        );
        let device = &mut self.devices[no];
        device.left(key);
        if device.out.get(&server) == Some(&key) {
            device.out.remove(&server);
            let closed = protocol::Input::LeaseClosed { server: &server };
            device.machine.handle(now, closed);
        } else if let Some(id) = device.inbound.remove(&key) {
            device.held.retain(|(held, ..)| *held != id);
            let closed = protocol::Input::StreamClosed {
                peer: &client,
                stream: id,
            };
            device.machine.handle(now, closed);
            let client = stream.client.0;
            self.ledger.stream_ended(no, client, key);
        }
    }

    /// Sends a beat.
    pub fn send_beat(
        &mut self,
        no: DeviceNo,
        server: PeerId,
        addrs: &Addrs,
        mut beat: OutBeat,
        known: &[PeerId],
    ) -> Result<(), String> {
        if self.plan.boasts(no) || self.devices[no].is_mute {
            beat.load = beat.load.map(|_| BOAST);
        }
        let open = self.devices[no].out.get(&server).copied();
        let to = self.number_of(&server);
        let stream = match open {
            Some(open) if !beat.fresh => open,
            // The dial fails: the old connection stays, and the beat is lost.
            Some(_) if self.network.is_cut(self.now, no, to) || !self.is_dialable(addrs, to) => {
                return Ok(());
            }
            Some(_) => {
                self.drop_stream(no, &server);
                self.open_stream(no, server, addrs, true)
            }
            None => self.open_stream(no, server, addrs, beat.fresh),
        };
        let record = self.devices[no].record.as_deref();
        let ends = &mut self.network.streams[stream];
        let to = ends.server;
        let frame = Frame::beat(ends.sent, &beat, record, known)?;
        ends.sent += 1;
        ends.is_awaited = true;
        if let Some(at) = self
            .network
            .pass_on(self.now, stream, End::Server, &mut self.rng)
        {
            self.send(at, to, Input::Beat { stream, frame });
        }
        Ok(())
    }

    /// Dials. A device that is not at the known address gets nothing, and the sender gets an error.
    fn open_stream(
        &mut self,
        no: DeviceNo,
        server: PeerId,
        addrs: &Addrs,
        fresh: bool,
    ) -> StreamKey {
        let to = self.number_of(&server);
        let key = self.network.streams.len();
        let server_end = self.dialled(addrs, to);
        let connection = match fresh {
            true => self.network.new_connection(no, to),
            false => self.network.connection(no, to),
        };
        self.network.connections[connection].streams.push(key);
        self.network.streams.push(Stream {
            client: (no, self.devices[no].life),
            server: server_end,
            id: None,
            sent: 0,
            is_awaited: false,
            received: 0,
            connection,
            last: [0; 2],
        });
        self.devices[no].out.insert(server, key);
        key
    }

    /// Whether the peer's present process listens at one of these.
    pub fn is_dialable(&self, addrs: &Addrs, to: DeviceNo) -> bool {
        addrs.contains(&self.devices[to].addr())
    }

    /// The process that a dial of these addresses reaches. No process has the number 0.
    pub fn dialled(&self, addrs: &Addrs, to: DeviceNo) -> (DeviceNo, u64) {
        let is_there = self.is_dialable(addrs, to);
        (to, if is_there { self.devices[to].life } else { 0 })
    }

    /// Drops the own stream with the server.
    pub fn drop_stream(&mut self, no: DeviceNo, server: &PeerId) {
        if let Some(stream) = self.devices[no].out.remove(server) {
            self.end_stream(stream, End::Client);
        }
    }

    /// Sends nothing more on the own stream with the server after its last beat, and waits for the
    /// answer.
    pub fn leave_stream(&mut self, no: DeviceNo, server: &PeerId) {
        let device = &mut self.devices[no];
        if let Some(&stream) = device.out.get(server) {
            device.left.insert(stream, *server);
            device.farewells.sent(*server);
        }
        self.drop_stream(no, server);
    }

    /// Closes a stream that another opened here.
    pub fn close_stream(
        &mut self,
        no: DeviceNo,
        peer: &PeerId,
        id: StreamId,
    ) -> Result<(), String> {
        let key = {
            let mut inbound = self.devices[no].inbound.iter();
            inbound.find(|(_, open)| **open == id).map(|(&key, _)| key)
        };
        self.check_close(no, peer, key)?;
        self.devices[no].held.retain(|(held, ..)| *held != id);
        if let Some(key) = key {
            self.devices[no].inbound.remove(&key);
            self.end_stream(key, End::Server);
        }
        Ok(())
    }

    /// Sends an ack on a stream that another device opened here.
    pub fn send_ack(&mut self, no: DeviceNo, stream: StreamKey, frame: Frame) {
        debug_assert_eq!(self.network.streams[stream].server.0, no);
        let client = self.network.streams[stream].client;
        if let Some(at) = self
            .network
            .pass_on(self.now, stream, End::Client, &mut self.rng)
        {
            self.send(at, client, Input::Ack { stream, frame });
        }
    }
}

/// What a connection shows of its peer. Here each device is a host of its own with IPv4.
pub fn seen(peer: &PeerId) -> protocol::Input<'_> {
    let reader = Reader::far(Families::V4);
    protocol::Input::Seen { peer, reader }
}
