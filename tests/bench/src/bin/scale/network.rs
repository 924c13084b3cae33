//! What is on its way between peers, and when it arrives.

use std::{cmp::Ordering, collections::BinaryHeap};

use oc_discovery::protocol::{
    AckBuf, IndexersAnswer, OutBeat, PeerId, PeerList, RecordInfo, Rng, Want,
};

/// The number of a peer in the world.
pub type PeerNo = usize;
/// The number of a heartbeat stream in the world.
pub type StreamNo = usize;

/// The shortest and the longest time that a message takes, ms.
const LATENCY: (u64, u64) = (5, 15);
/// How many such times pass before the first message on a new connection arrives: TCP, Noise, the
/// protocol, the message.
const DIAL: u64 = 5;

/// Something that reaches a peer.
pub enum Input {
    /// A beat on a stream, the ids that go with it, and the sequence of the sender's record if it
    /// came with one.
    Beat(StreamNo, Box<(OutBeat, PeerList)>, Option<u64>),
    /// An answer to a beat.
    Ack(StreamNo, Box<AckBuf>),
    /// `released`, unasked.
    Told(StreamNo, Box<AckBuf>),
    /// The stream has ended, or could not be opened.
    End(StreamNo),
    /// A request for indexers: who asks, and the number of the request there.
    Ask(PeerNo, u64, Want),
    /// Its answer; `None`: no connection.
    Answer(PeerNo, u64, Option<Box<IndexersAnswer>>),
    /// A ping.
    Ping(PeerNo),
    /// Its answer; `false`: no connection.
    Pong(PeerNo, bool),
    /// A record from the DHT.
    Value(Box<RecordInfo>),
    /// The search of this record has ended.
    SearchEnd(PeerId),
    /// The process starts.
    Start,
    /// The timer of the process.
    Wake,
}

impl Input {
    /// Whether it is a message of another peer that this one has to deal with.
    pub fn is_message(&self) -> bool {
        match self {
            Self::Beat(..) | Self::Ack(..) | Self::Told(..) | Self::Ask(..) | Self::Ping(..) => {
                true
            }
            Self::Answer(_, _, answer) => answer.is_some(),
            Self::Pong(_, alive) => *alive,
            Self::End(_) | Self::Value(_) | Self::SearchEnd(_) | Self::Start | Self::Wake => false,
        }
    }
}

/// An input on its way.
pub struct Event {
    /// When it arrives, ms.
    pub at: u64,
    number: u64,
    /// Whom it reaches.
    pub to: PeerNo,
    /// What it is.
    pub input: Input,
}

impl Ord for Event {
    /// The earliest is the greatest: the heap gives it first. At one time, in the order of sending.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Event {}

/// A heartbeat stream.
pub struct Stream {
    /// Which peer opened it.
    pub client: PeerNo,
    /// Which peer grants the lease.
    pub server: PeerNo,
    /// Whether both ends have it.
    pub open: bool,
    /// When the last message each way arrives: to the server, to the client. A later one does not
    /// overtake it.
    last: [u64; 2],
}

/// All that is on its way.
pub struct Network {
    events: BinaryHeap<Event>,
    streams: Vec<Stream>,
    numbers: u64,
    rng: Rng,
}

impl Network {
    pub fn new(seed: u64) -> Self {
        Self {
            events: BinaryHeap::new(),
            streams: Vec::new(),
            numbers: 0,
            rng: Rng::new(seed),
        }
    }

    /// The next event up to `end`.
    pub fn next(&mut self, end: u64) -> Option<Event> {
        self.events
            .peek()
            .is_some_and(|event| event.at <= end)
            .then(|| self.events.pop())?
    }

    /// Something happens to a peer at a time.
    pub fn at(&mut self, at: u64, to: PeerNo, input: Input) {
        self.numbers += 1;
        let number = self.numbers;
        self.events.push(Event {
            at,
            number,
            to,
            input,
        });
    }

    /// A message outside of streams; it takes a connection of its own if `dials`.
    pub fn send(&mut self, now: u64, to: PeerNo, input: Input, dials: bool) {
        let at = now + self.latency() * if dials { DIAL } else { 1 };
        self.at(at, to, input);
    }

    /// A new stream; what is sent on it first has to wait for the connection.
    pub fn open(&mut self, now: u64, client: PeerNo, server: PeerNo) -> StreamNo {
        let ready = now + self.latency() * DIAL;
        self.streams.push(Stream {
            client,
            server,
            open: true,
            last: [ready; 2],
        });
        self.streams.len() - 1
    }

    pub fn stream(&self, stream: StreamNo) -> &Stream {
        &self.streams[stream]
    }

    /// One end is gone; what is still on its way to the server is not heard.
    pub fn close(&mut self, stream: StreamNo) {
        self.streams[stream].open = false;
    }

    /// The open streams that a peer has opened or accepted.
    pub fn streams_of(&self, peer: PeerNo) -> Vec<StreamNo> {
        let all = self.streams.iter().enumerate();
        all.filter(|(_, stream)| stream.open && (stream.client == peer || stream.server == peer))
            .map(|(number, _)| number)
            .collect()
    }

    /// A message on a stream.
    pub fn pass(&mut self, now: u64, stream: StreamNo, to_server: bool, input: Input) {
        let latency = self.latency();
        let there = &mut self.streams[stream];
        let (to, last) = if to_server {
            (there.server, &mut there.last[0])
        } else {
            (there.client, &mut there.last[1])
        };
        *last = (*last).max(now + latency);
        let at = *last;
        self.at(at, to, input);
    }

    fn latency(&mut self) -> u64 {
        LATENCY.0 + self.rng.below(LATENCY.1 - LATENCY.0 + 1)
    }
}
