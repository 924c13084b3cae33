//! The messages between peers, and when they arrive.

use std::{cmp::Ordering, collections::BinaryHeap};

use oc_discovery::protocol::{
    AckBuf, Key, Offer, OutBeat, PeerId, PeerList, RecordInfo, Rng, Verdict, Want,
};

/// The number of a peer in the world.
pub type PeerNo = usize;
/// The number of a heartbeat stream in the world.
pub type StreamNo = usize;

/// The shortest and the longest time that a message takes, ms.
const LATENCY: (u64, u64) = (5, 15);
/// The number of such times before the first message on a new connection arrives: TCP, Noise, the
/// protocol, the message.
const DIAL: u64 = 5;

/// An event that reaches a peer.
pub enum Input {
    /// A beat on a stream, with its ids, and with the sequence of the sender's record if it has
    /// one.
    Beat(StreamNo, Box<(OutBeat, PeerList)>, Option<u64>),
    /// An answer to a beat.
    Ack(StreamNo, Box<AckBuf>),
    /// An unsolicited `released`.
    Told(StreamNo, Box<AckBuf>),
    /// The stream has ended, or could not be opened.
    End(StreamNo),
    /// A request for indexers: the peer that asks, and its number of the request.
    Ask(PeerNo, u64, Want),
    /// The answer to it, and whether the node is taken in; `None` without a connection.
    Answer(PeerNo, u64, Option<(Box<[Offer]>, bool)>),
    /// A ping.
    Ping(PeerNo),
    /// The answer to it; `false` without a connection.
    Pong(PeerNo, Verdict),
    /// A record from the DHT.
    Value(Box<RecordInfo>),
    /// The search of this record has ended.
    SearchEnd(PeerId),
    /// The announcement of this key has ended.
    Announced(Box<Key>),
    /// The process starts.
    Start,
    /// The timer of the process.
    Wake,
}

impl Input {
    /// Whether it is a message of another peer that this one must process.
    pub fn is_message(&self) -> bool {
        match self {
            Self::Beat(..) | Self::Ack(..) | Self::Told(..) | Self::Ask(..) | Self::Ping(..) => {
                true
            }
            Self::Answer(_, _, answer) => answer.is_some(),
            Self::Pong(_, verdict) => *verdict == Verdict::Reachable,
            Self::End(_)
            | Self::Value(_)
            | Self::SearchEnd(_)
            | Self::Announced(_)
            | Self::Start
            | Self::Wake => false,
        }
    }
}

/// An input that is under way.
pub struct Event {
    /// When it arrives, ms.
    pub at: u64,
    number: u64,
    /// The peer that it reaches.
    pub to: PeerNo,
    /// The input itself.
    pub input: Input,
}

impl Ord for Event {
    /// The earliest event is the greatest, so that the heap returns it first. Events of one time
    /// are in the order of sending.
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

/// One end of a stream.
#[derive(Clone, Copy, PartialEq)]
pub enum End {
    /// The peer that opened it.
    Client,
    /// The other one.
    Server,
}

/// A heartbeat stream.
pub struct Stream {
    /// The peer that opened it.
    pub client: PeerNo,
    /// The peer that grants the lease.
    pub server: PeerNo,
    /// Whether it is open at both ends.
    pub open: bool,
    /// When the last message in each direction arrives: to the server, to the client. A later one
    /// does not overtake it.
    last: [u64; 2],
}

/// All events that are under way.
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

    /// Schedules an input of a peer.
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

    /// Sends a message over a connection that is open.
    pub fn send(&mut self, now: u64, to: PeerNo, input: Input) {
        let at = now + self.latency();
        self.at(at, to, input);
    }

    /// Sends a message over a connection of its own, which is dialled for it.
    pub fn dial(&mut self, now: u64, to: PeerNo, input: Input) {
        let at = now + self.latency() * DIAL;
        self.at(at, to, input);
    }

    /// Opens a stream. Its first message waits for the connection.
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

    /// Closes a stream at one end. Messages that are still under way to the server are lost.
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

    /// Sends a message on a stream, to this end of it.
    pub fn pass(&mut self, now: u64, stream: StreamNo, to: End, input: Input) {
        let latency = self.latency();
        let there = &mut self.streams[stream];
        let (to, last) = match to {
            End::Server => (there.server, &mut there.last[0]),
            End::Client => (there.client, &mut there.last[1]),
        };
        *last = (*last).max(now + latency);
        let at = *last;
        self.at(at, to, input);
    }

    fn latency(&mut self) -> u64 {
        LATENCY.0 + self.rng.below(LATENCY.1 - LATENCY.0 + 1)
    }
}
