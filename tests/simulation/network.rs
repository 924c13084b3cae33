//! What lies between the devices: connections, heartbeat streams on them that keep their order,
//! requests and pings that may get lost, links that are cut in one or both directions, connections
//! that break with a notice or become silent.
//!
//! Two devices share one connection. A silent connection delivers nothing and does not end until
//! the system notices it. Streams that are opened meanwhile are opened on it and lost with it,
//! unless a fresh connection is requested.

use std::collections::BTreeMap;

use oc_discovery::protocol::{Addrs, AnnounceEnd, Key, PeerId, Rng, StreamId, Verdict};

use crate::{device::DeviceNo, dht::Envelope, frames::Frame};

/// The number of a heartbeat stream in the world.
pub type StreamKey = usize;
/// The number of a connection in the world.
pub type ConnectionKey = usize;

/// A message to a process.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A beat on a stream that another device opened here.
    Beat { stream: StreamKey, frame: Frame },
    /// The other side of a stream is gone.
    End { stream: StreamKey },
    /// A message of the server on a stream that this process opened.
    Ack { stream: StreamKey, frame: Frame },
    /// A directory request.
    Request {
        from: (DeviceNo, u64),
        number: u64,
        frame: Frame,
    },
    /// Its response, if there is one.
    Response { number: u64, frame: Option<Frame> },
    /// A ping.
    Ping {
        from: DeviceNo,
        life: u64,
        number: u64,
    },
    /// The result of the ping.
    Pong { number: u64, verdict: Verdict },
    /// A value from the DHT.
    Value { search: u64, envelope: Envelope },
    /// The providers that one server of the DHT names.
    Provided {
        search: u64,
        providers: Vec<(PeerId, Addrs)>,
    },
    /// The end of a search, in which so many servers have answered.
    SearchEnd { search: u64, reached: u16 },
    /// A peer asks to be told of changes, on a stream that it opened here.
    Watch { stream: StreamKey, frame: Frame },
    /// Frames of a server, on a stream on which this process is told of changes.
    Notices { stream: StreamKey, frames: Vec<u8> },
    /// The peer on this stream has read what it was sent.
    Written { stream: StreamKey },
    /// The end of an announcement.
    Announced { key: Key, end: AnnounceEnd },
}

impl Input {
    /// The stream of the message, if it is on one; such messages keep their order.
    pub fn on_stream(&self) -> Option<StreamKey> {
        match self {
            Self::Beat { stream, .. }
            | Self::Ack { stream, .. }
            | Self::End { stream }
            | Self::Watch { stream, .. }
            | Self::Notices { stream, .. }
            | Self::Written { stream } => Some(*stream),
            _ => None,
        }
    }
}

/// One end of a heartbeat stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The device that opened it.
    Client,
    /// The other one.
    Server,
}

/// One heartbeat stream.
#[derive(Debug)]
pub struct Stream {
    /// Its client, and the number of the client's process.
    pub client: (DeviceNo, u64),
    /// Its server, likewise.
    pub server: (DeviceNo, u64),
    /// The server's id of the stream, once its first beat has arrived.
    pub id: Option<StreamId>,
    /// Beats sent.
    pub sent: u64,
    /// Whether the last of them was not answered yet.
    pub is_awaited: bool,
    /// Beats received.
    pub received: u64,
    /// Its connection.
    pub connection: ConnectionKey,
    /// When the last message to the client and to the server arrives. No message overtakes another.
    pub last: [u64; 2],
}

/// One connection.
#[derive(Debug, Default)]
pub struct Connection {
    /// Nothing passes any more, and neither side is notified.
    pub silent: bool,
    /// One side is gone, so what the other still sends is refused.
    pub over: bool,
    /// The streams that were opened on it.
    pub streams: Vec<StreamKey>,
}

/// The links.
pub struct Network {
    /// All heartbeat streams there ever were.
    pub streams: Vec<Stream>,
    /// All connections there ever were.
    pub connections: Vec<Connection>,
    /// Silent connections, and when the system will notice.
    pub doomed: Vec<(u64, ConnectionKey)>,
    /// Whether faults happen.
    pub faulty: bool,
    /// One message in this many is slow while faults happen.
    pub slow: u64,
    present: BTreeMap<(DeviceNo, DeviceNo), ConnectionKey>,
    cuts: Vec<((DeviceNo, DeviceNo), u64)>,
}

/// The longest time until the system notices a silent connection, ms.
pub const NOTICED: u64 = 30_000;
/// How long a request waits for its response, ms (`net::streams::exchange`).
pub const PATIENCE: u64 = 5_000;
/// Times that a slow message may take, at most, ms: around what the protocol waits for.
const SLOW: [u64; 6] = [3_000, 3_000, 2_100, 5_100, 8_100, 12_000];

impl Network {
    /// Whether the stream is on a connection of which one side is gone.
    pub fn is_over(&self, stream: StreamKey) -> bool {
        let connection = self.streams[stream].connection;
        self.connections[connection].over
    }

    /// A network with no connection yet.
    pub fn new() -> Self {
        Self {
            streams: Vec::new(),
            connections: Vec::new(),
            doomed: Vec::new(),
            faulty: true,
            slow: 20,
            present: BTreeMap::new(),
            cuts: Vec::new(),
        }
    }

    /// Cuts the link from the first to the second device until `until`.
    pub fn cut(&mut self, now: u64, devices: (DeviceNo, DeviceNo), until: u64) {
        self.cuts.retain(|(_, until)| now < *until);
        self.cuts.push((devices, until));
    }

    /// Ends all cuts.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Until when the link from the one to the other is cut, if it is.
    fn cut_until(&self, now: u64, from: DeviceNo, to: DeviceNo) -> Option<u64> {
        self.cuts
            .iter()
            .filter(|(cut, until)| *cut == (from, to) && now < *until)
            .map(|(_, until)| *until)
            .max()
    }

    /// Whether a new connection between the two would fail.
    pub fn is_cut(&self, now: u64, a: DeviceNo, b: DeviceNo) -> bool {
        self.cut_until(now, a, b).is_some() || self.cut_until(now, b, a).is_some()
    }

    fn delay(&self, rng: &mut Rng) -> u64 {
        let slow = self.faulty && rng.below(self.slow) == 0;
        let longest = match slow {
            true => SLOW[rng.below(SLOW.len() as u64) as usize],
            false => 80,
        };
        1 + rng.below(longest)
    }

    /// The present connection of the two, or a new one if there is none.
    pub fn connection(&mut self, a: DeviceNo, b: DeviceNo) -> ConnectionKey {
        match self.present.get(&(a.min(b), a.max(b))) {
            Some(&there) => there,
            None => self.new_connection(a, b),
        }
    }

    /// A new connection of the two, which is the present one from now on.
    pub fn new_connection(&mut self, a: DeviceNo, b: DeviceNo) -> ConnectionKey {
        let key = self.connections.len();
        self.connections.push(Connection::default());
        self.present.insert((a.min(b), a.max(b)), key);
        key
    }

    /// Makes the connection silent. The system notices this after 15 to 30 s (`TCP_USER_TIMEOUT`).
    pub fn silence(&mut self, now: u64, key: ConnectionKey, rng: &mut Rng) {
        if !std::mem::replace(&mut self.connections[key].silent, true) {
            self.doomed
                .push((now + NOTICED / 2 + rng.below(NOTICED / 2), key));
        }
    }

    /// Makes all present connections of the device silent.
    pub fn silence_all(&mut self, now: u64, no: DeviceNo, rng: &mut Rng) {
        let of_device: Vec<_> = self.present_of(no).map(|(_, key)| key).collect();
        for key in of_device {
            self.silence(now, key, rng);
        }
    }

    /// The device starts again. Messages on its old connections are refused from now on, and not
    /// lost.
    pub fn restarted(&mut self, no: DeviceNo) {
        let of_device: Vec<_> = self.present_of(no).collect();
        for (pair, key) in of_device {
            let connection = &mut self.connections[key];
            (connection.silent, connection.over) = (false, true);
            self.present.remove(&pair);
        }
    }

    /// Makes the device abandon all of its connections.
    pub fn leave(&mut self, no: DeviceNo) {
        self.present.retain(|(a, b), _| *a != no && *b != no);
    }

    /// Ends the connection for both sides.
    pub fn end(&mut self, key: ConnectionKey) {
        self.present.retain(|_, present| *present != key);
    }

    fn present_of(
        &self,
        no: DeviceNo,
    ) -> impl Iterator<Item = ((DeviceNo, DeviceNo), ConnectionKey)> {
        self.present
            .iter()
            .filter(move |((a, b), _)| *a == no || *b == no)
            .map(|(pair, key)| (*pair, *key))
    }

    /// When a request, a ping or an answer arrives; `None` if it never does. If its link is cut, it
    /// is sent again after pauses that double, as long as its sender waits.
    pub fn pass(&mut self, now: u64, from: DeviceNo, to: DeviceNo, rng: &mut Rng) -> Option<u64> {
        let lost = self.faulty && rng.below(50) == 0;
        let cut = match self.cut_until(now, from, to) {
            Some(free) => free - now + rng.below(free - now + 1),
            None => 0,
        };
        let connection = self.connection(from, to);
        let silent = self.connections[connection].silent;
        (!lost && cut < PATIENCE && !silent).then(|| now + cut + self.delay(rng))
    }

    /// When a message on a stream arrives; `None` if it never does. A link that is cut for a short
    /// time delays it, because TCP sends it again.
    pub fn pass_on(&mut self, now: u64, key: StreamKey, to: End, rng: &mut Rng) -> Option<u64> {
        let delay = self.delay(rng);
        let breaks = self.faulty && rng.below(200) == 0;
        let stream = self.streams.get(key)?;
        let connection = stream.connection;
        let (from, to_device) = match to {
            End::Server => (stream.client.0, stream.server.0),
            End::Client => (stream.server.0, stream.client.0),
        };
        let free = self.cut_until(now, from, to_device).unwrap_or(now);
        if breaks || free > now + NOTICED {
            self.silence(now, connection, rng);
        }
        if self.connections[connection].silent {
            return None;
        }
        let last = &mut self.streams.get_mut(key)?.last[usize::from(to == End::Server)];
        *last = (*last + 1).max(free + delay);
        Some(*last)
    }
}
