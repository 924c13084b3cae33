//! The endpoint on another network stack: a node asks its native for indexers and holds a
//! lease with the one that it is offered, all in real frames.
//!
//! `Runtime` is what a stack has to offer, and `run` drives the endpoint with it. Neither they
//! nor the network in memory use std or an allocator. Run it:
//!
//! ```text
//! cargo run --no-default-features --example runtime
//! ```

use core::time::Duration;

use oc_discovery::protocol::{
    Action, Indexer, IndexerConfig, IndexersAnswer, Input, Instant, Machine, Node, NodeConfig,
    PeerId, StreamId,
    clock::WallClock,
    codec::{
        directory::{
            Response, Room, decode_request, decode_response, encode_request, encode_response,
        },
        frame::MAX_FRAME,
        grant::Membership,
        heartbeat::{AckCause, decode_ack, decode_beat, encode_ack, encode_beat},
        record::{Kind, sign},
    },
    endpoint::Endpoint,
    listing::{Listing, NoListings},
    lookup::Lookups,
    watch::Watches,
};

mod device;
use device::{INDEXER, NATIVE, NODE, TERMS, Unsigned, addrs, offer, own_record};

/// The protocol of a stream.
enum Stream {
    /// `/oc/heartbeat/1.0.0`: stays open, one beat after another.
    Heartbeat,
    /// `/oc/directory/1.0.0`: one request, one response.
    Directory,
}

/// What the endpoint needs of a network stack. A stack that waits for several peers at once gives
/// its inputs as they come; this one waits for each answer, which is enough for a sensor.
trait Runtime {
    /// The time since some moment; it never goes back.
    fn now(&self) -> Instant;

    /// What the system clock shows, ms since the Unix epoch.
    fn today_ms(&self) -> u64;

    /// Returns when it is `then`.
    fn sleep_until(&mut self, then: Instant);

    /// Sends a message to a peer and writes its answer to the front of `answer`. `None`: there was
    /// none. The stack puts the length before each message (`codec::frame`).
    fn exchange(
        &mut self,
        peer: &PeerId,
        stream: Stream,
        message: &[u8],
        answer: &mut [u8; MAX_FRAME],
    ) -> Option<usize>;
}

fn main() {
    let mut network = Memory::new();
    let mut node = Node::new();
    let config = NodeConfig {
        terms: TERMS,
        connect_interval: Duration::from_secs(60),
        min_indexers: 1,
    };
    node.start(network.now(), NODE, 1, config);
    // A sensor looks nothing up, and lists and watches nothing.
    let (mut lookups, mut watches) = (Lookups::new(), Watches::new());
    let (now, clock) = (network.now(), WallClock::new(0));
    let listings = NoListings::new(NODE);
    let mut node = Endpoint::new(now, &mut node, &mut lookups, &mut watches, listings, clock);
    let (native, addrs) = (&NATIVE, &addrs());
    node.handle(network.now(), Input::NativeLearned { native, addrs });
    node.announce(addrs.iter().map(|addr| addr.as_slice()));

    let end = Instant::from_millis(300_000);
    let beats = run(&mut network, &mut node, end);
    assert!(
        network.indexer.listed(end, &NODE).is_some(),
        "it can be found"
    );
    println!("{beats} beats in five minutes, and pump-3 is listed");
}

/// A node that grants no leases and looks nothing up.
type Sensor<'m> = Endpoint<
    &'m mut Node,
    &'m mut Lookups<0, 0, 0>,
    &'m mut Watches<0, 1, 0>,
    &'static mut Listing<[u64; 0]>,
    0,
>;

/// Carries out the actions of the node until it is `end`. Returns how many beats were answered.
fn run(runtime: &mut impl Runtime, node: &mut Sensor, end: Instant) -> u64 {
    let (mut beats, mut signed) = (0, 0);
    loop {
        let now = runtime.now();
        while let Some(action) = node.poll(now, runtime.today_ms()) {
            let mut message = [0; MAX_FRAME];
            let mut answer = [0; MAX_FRAME];
            match action {
                Action::Ask {
                    query, server, ask, ..
                } => {
                    let request = encode_request(&ask.into(), &mut message).unwrap_or_default();
                    let length = runtime.exchange(&server, Stream::Directory, request, &mut answer);
                    let response = length.and_then(|length| answer.get(..length));
                    let mut room = Room::default();
                    let response = response.and_then(|body| decode_response(body, &mut room).ok());
                    let response = response.as_ref();
                    node.responded(now, query, response, &Unsigned, &mut |_, _| {});
                }
                Action::Beat { server, beat, .. } => {
                    let mut envelope = [0; 1024];
                    let record =
                        sign(&Unsigned, Kind::Node, own_record(signed), &mut envelope).ok();
                    // There is one server here. With several, each has a sequence of its own.
                    let beat =
                        encode_beat(beats, &beat, record, &[], Membership::OPEN, &mut message);
                    let beat = beat.unwrap_or_default();
                    let length = runtime.exchange(&server, Stream::Heartbeat, beat, &mut answer);
                    let ack = length.and_then(|length| answer.get(..length));
                    let server = &server;
                    match ack.map(decode_ack) {
                        Some(Ok(ack)) => {
                            let acked = Input::Acked {
                                server,
                                over: None,
                                cause: AckCause::Beat,
                                ack: &ack.ack.as_ack(),
                                clock: ack.clock,
                            };
                            node.handle(now, acked);
                            beats += 1;
                        }
                        _ => node.handle(now, Input::LeaseClosed { server }),
                    }
                }
                Action::Sign => {
                    signed += 1;
                    let _ = node.record_signed(now);
                }
                // A complete host closes streams, too. A first version may leave out the rest.
                _ => {}
            }
        }
        match node.next_timeout() {
            Some(then) if then < end => runtime.sleep_until(then),
            _ => return beats,
        }
    }
}

/// A native that offers one indexer, that indexer, and a clock that jumps forward.
struct Memory {
    now: Instant,
    indexer: Indexer<8>,
}

impl Memory {
    fn new() -> Self {
        let now = Instant::from_millis(0);
        let mut indexer = Indexer::new();
        let gc_interval = Duration::from_secs(30);
        let terms = TERMS;
        indexer.start(now, INDEXER, 2, IndexerConfig { terms, gc_interval });
        Self { now, indexer }
    }
}

impl Runtime for Memory {
    fn now(&self) -> Instant {
        self.now
    }

    fn today_ms(&self) -> u64 {
        self.now.as_millis()
    }

    fn sleep_until(&mut self, then: Instant) {
        self.now = self.now.max(then);
    }

    fn exchange(
        &mut self,
        peer: &PeerId,
        stream: Stream,
        message: &[u8],
        answer: &mut [u8; MAX_FRAME],
    ) -> Option<usize> {
        let written = match (*peer, stream) {
            (NATIVE, Stream::Directory) => {
                decode_request(message).ok()?;
                let answered = IndexersAnswer {
                    offers: &[offer()],
                    takes_in: false,
                };
                encode_response(&Response::Indexers(answered), answer).ok()?
            }
            (INDEXER, Stream::Heartbeat) => {
                let beat = decode_beat(message).ok()?.beat.open(&Unsigned).ok()?;
                let outcome = self.indexer.beat(self.now, &NODE, StreamId(1), &beat);
                encode_ack(beat.sequence, &outcome.ack, None, Membership::OPEN, answer).ok()?
            }
            _ => return None,
        };
        Some(written.len())
    }
}
