//! The heartbeat streams of a process: sending and receiving, one frame at a time.

use oc_discovery::protocol::{
    self, AckBuf, Addrs, Families, Load, OutBeat, PeerId, Reader, Role, StreamId, TransportAddr,
    clock::MAX_TRIP,
    codec::{
        heartbeat::{AckCause, LastBeat, WallReading},
        record::Kind,
    },
    endpoint::Place,
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
        let Some(id) = self.server_stream(no, stream) else {
            return Ok(());
        };
        let place = match self.network.streams[stream].received {
            0 => Place::First {
                source: TransportAddr::of(&self.devices[client.0].addr()),
                reader: READER,
            },
            _ => Place::Next,
        };
        self.judge_beat(no, (stream, id), place, frame)
    }

    /// Gives the machine a held first beat. If there is none, its stream has ended.
    pub fn judge(&mut self, no: DeviceNo, id: StreamId) -> Result<(), String> {
        let held = &mut self.devices[no].held;
        let Some(at) = held.iter().position(|(held, ..)| *held == id) else {
            return Ok(());
        };
        let (id, stream, frame) = held.swap_remove(at);
        let reader = READER;
        self.judge_beat(no, (stream, id), Place::Held { reader }, &frame)
    }

    fn judge_beat(
        &mut self,
        no: DeviceNo,
        (stream, id): (StreamKey, StreamId),
        place: Place,
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
        let beat = received.open(&Seals).map_err(|why| why.to_string())?;
        let before = self.before_beat(no, client.0, &beat);
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        let clock = WallReading {
            ms: device.own_ms(self.now),
            synchronised: device.synchronised,
        };
        let Some(outcome) = device.endpoint.beat(now, (&from, id), place, &beat) else {
            device.held.push((id, stream, frame.clone()));
            return Ok(());
        };
        self.network.streams[stream].received += 1;
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
            self.devices[no].left(self.now, key);
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
        let over = TransportAddr::of(&self.devices[server_no].addr());
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        let asked = device.machine().asked_at(&server);
        let is_timely = asked.is_some_and(|asked| now - asked <= MAX_TRIP);
        if ack.clock.is_some() && cause == AckCause::Beat && is_timely {
            let is_native = device.machine().is_native(&server);
            device.natives_clocks.extend(is_native.then_some(server));
        }
        let said = protocol::Input::Acked {
            server: &server,
            over: Some(over),
            cause,
            ack: &ack.ack.as_ack(),
            clock: ack.clock,
        };
        device.handle(self.now, said);
        self.note_offers(no, ack.ack.offers.iter());
        self.check_lease(no, server_no)
    }

    /// Processes the end of a stream.
    pub fn take_end(&mut self, no: DeviceNo, key: StreamKey) {
        let stream = &self.network.streams[key];
        let (client, server) = (
            self.devices[stream.client.0].peer,
            self.devices[stream.server.0].peer,
        );
        let device = &mut self.devices[no];
        device.left(self.now, key);
        if device.out.get(&server) == Some(&key) {
            device.out.remove(&server);
            let closed = protocol::Input::LeaseClosed { server: &server };
            device.handle(self.now, closed);
        } else if let Some(id) = device.inbound.remove(&key) {
            device.held.retain(|(held, ..)| *held != id);
            let closed = protocol::Input::StreamClosed {
                peer: &client,
                stream: id,
            };
            device.handle(self.now, closed);
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

    /// Opens a heartbeat stream.
    fn open_stream(
        &mut self,
        no: DeviceNo,
        server: PeerId,
        addrs: &Addrs,
        fresh: bool,
    ) -> StreamKey {
        let key = self.open(no, server, addrs, fresh);
        self.devices[no].out.insert(server, key);
        key
    }

    /// Dials. A device that is not at the known address gets nothing, and the sender gets an error.
    pub fn open(&mut self, no: DeviceNo, server: PeerId, addrs: &Addrs, fresh: bool) -> StreamKey {
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
pub const READER: Reader = Reader::far(Families::V4);
