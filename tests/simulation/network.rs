//! What lies between the devices: heartbeat streams that keep their order, requests and pings that may get lost, links that
//! are cut for a while, connections that break with or without a word.

use oc_discovery::protocol::{
    Ack, IndexersAnswer, OutBeat, PeerId, RecordInfo, Rng, StreamId, Want,
};

use crate::device::DeviceNo;

/// The number of a heartbeat stream in the world.
pub type StreamKey = usize;

/// Something that reaches a process.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A beat on a stream that somebody opened here.
    Beat {
        stream: StreamKey,
        sequence: u64,
        beat: OutBeat,
        record: Option<RecordInfo>,
    },
    /// A stream's other side is gone.
    End { stream: StreamKey },
    /// A word of the server on a stream that this process opened.
    Ack {
        stream: StreamKey,
        sequence: u64,
        ack: Ack,
        wall_ms: u64,
        synchronised: bool,
    },
    /// A request for indexers.
    Ask {
        from: DeviceNo,
        life: u64,
        number: u64,
        want: Want,
    },
    /// Its answer.
    Answer {
        native: PeerId,
        number: u64,
        answer: Option<IndexersAnswer>,
    },
    /// A ping.
    Ping {
        from: DeviceNo,
        life: u64,
        number: u64,
    },
    /// What came of it.
    Pong {
        peer: PeerId,
        number: u64,
        alive: bool,
    },
    /// A value from the DHT.
    Value { record: RecordInfo, number: u64 },
    /// The end of a search.
    SearchEnd { peer: PeerId, number: u64 },
}

/// One heartbeat stream.
#[derive(Debug)]
pub struct Stream {
    /// Who opened it, and which of its processes.
    pub client: (DeviceNo, u64),
    /// To whom.
    pub server: (DeviceNo, u64),
    /// What the server calls it, since its first beat arrived.
    pub id: Option<StreamId>,
    /// Beats sent.
    pub sent: u64,
    /// Sequence of the last beat received.
    pub received: u64,
    /// Nothing passes any more, and nobody is told.
    pub dead: bool,
    /// When the last message to the client and to the server arrives: none overtakes another.
    pub last: [u64; 2],
}

/// The links.
pub struct Network {
    /// All heartbeat streams there ever were.
    pub streams: Vec<Stream>,
    /// Whether faults happen.
    pub faulty: bool,
    cuts: Vec<((DeviceNo, DeviceNo), u64)>,
}

impl Network {
    /// A network with no stream yet.
    pub fn new() -> Self {
        Self {
            streams: Vec::new(),
            faulty: true,
            cuts: Vec::new(),
        }
    }

    /// Cuts the link between two devices until then.
    pub fn cut(&mut self, devices: (DeviceNo, DeviceNo), until: u64) {
        self.cuts.push((devices, until));
    }

    /// Until when the link is cut, if it is.
    fn cut_until(&self, now: u64, a: DeviceNo, b: DeviceNo) -> Option<u64> {
        self.cuts
            .iter()
            .filter(|(cut, until)| (*cut == (a, b) || *cut == (b, a)) && now < *until)
            .map(|(_, until)| *until)
            .max()
    }

    fn delay(&self, rng: &mut Rng) -> u64 {
        let slow = self.faulty && rng.below(20) == 0;
        1 + rng.below(if slow { 3_000 } else { 80 })
    }

    /// When a datagram, request or answer arrives; `None`: never.
    pub fn pass(&self, now: u64, from: DeviceNo, to: DeviceNo, rng: &mut Rng) -> Option<u64> {
        let lost = self.faulty && rng.below(50) == 0;
        let cut = self.cut_until(now, from, to).is_some();
        (!lost && !cut).then(|| now + self.delay(rng))
    }

    /// When a message on a stream arrives; `None`: never. A cut link delays it, as TCP sends it again; a lost connection
    /// loses all that follows.
    pub fn pass_on(
        &mut self,
        now: u64,
        key: StreamKey,
        to_server: bool,
        rng: &mut Rng,
    ) -> Option<u64> {
        let delay = self.delay(rng);
        let breaks = self.faulty && rng.below(100) == 0;
        let (client, server) = {
            let stream = self.streams.get(key)?;
            (stream.client.0, stream.server.0)
        };
        let free = self.cut_until(now, client, server).unwrap_or(now);
        let stream = self.streams.get_mut(key)?;
        stream.dead |= breaks;
        if stream.dead {
            return None;
        }
        let last = &mut stream.last[usize::from(to_server)];
        *last = (*last + 1).max(free + delay);
        Some(*last)
    }
}
