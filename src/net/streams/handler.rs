//! One small handler for everything that is ours on a connection: heartbeat, directory, ping.
//!
//! One handler instead of three, because a connection pays for each: libp2p-swarm asks every handler for its protocols at each poll
//! and holds its bytes several times. What a connection does not use takes a pointer.
//!
//! Bounds for each connection: one heartbeat stream in each direction (a newer inbound one replaces the older), [`MAX_EXCHANGES`]
//! exchanges begun by the peer, [`MAX_REQUESTS`] begun by us, [`MAX_PONGS`] streams of pings. Whoever opens more streams than
//! Yamux allows loses the connection, and with it the lease: that is why our own requests wait for each other.

use std::{
    array,
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
};

use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};

use super::{
    exchange,
    heartbeat::{Inbound, Outbound},
};
use crate::protocol::{RequestId, StreamId};

const HEARTBEAT: StreamProtocol = StreamProtocol::new("/oc/heartbeat/1.0.0");
const DIRECTORY: StreamProtocol = StreamProtocol::new("/oc/directory/1.0.0");
const PING: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

/// Requests that a peer may have open at once; one more is reset.
const MAX_EXCHANGES: usize = 8;
/// Requests of ours that are open at once; the others wait. Fewer than a peer takes, so that one that is just ending does no harm.
const MAX_REQUESTS: usize = 4;
/// Streams of pings that a peer may have open at once (libp2p ping specification); the oldest gives way.
const MAX_PONGS: usize = 2;

/// What the behaviour asks of a connection.
#[derive(Debug)]
pub(crate) enum Command {
    /// Send a beat; on a new stream if it is the `first`. After the `last` the stream ends.
    Beat {
        lease: u64,
        body: Vec<u8>,
        first: bool,
        last: bool,
    },
    /// Drop our heartbeat stream without a word.
    DropLease,
    /// Send an ack on the peer's heartbeat stream, and maybe close it then.
    Ack {
        stream: StreamId,
        body: Vec<u8>,
        asked: bool,
        close: bool,
    },
    /// Close the peer's heartbeat stream once everything is written.
    Close { stream: StreamId },
    /// Make a directory request.
    Request { id: RequestId, body: Vec<u8> },
    /// Answer one.
    Respond { id: RequestId, body: Vec<u8> },
    /// Ping once.
    Probe,
}

/// What a connection tells the behaviour.
#[derive(Debug)]
pub(crate) enum Happened {
    /// A beat; its sequence must be `sequence`.
    Beat {
        stream: StreamId,
        sequence: u64,
        body: Vec<u8>,
    },
    /// The peer's heartbeat stream is over.
    StreamClosed { stream: StreamId },
    /// An ack of our beat.
    Ack { lease: u64, body: Vec<u8> },
    /// Our heartbeat stream is over.
    LeaseClosed { lease: u64 },
    /// The peer asks something.
    Request { id: RequestId, body: Vec<u8> },
    /// The peer answered our request, or will not.
    Response {
        id: RequestId,
        body: io::Result<Vec<u8>>,
    },
    /// Our ping came to its end.
    Probed { alive: bool },
}

enum Done {
    Asked(Stream, Vec<u8>),
    Answered,
    Response(RequestId, io::Result<Vec<u8>>),
    Probed(bool),
}

type Task = Pin<Box<dyn Future<Output = io::Result<Done>> + Send>>;

/// What an outbound stream is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    Lease,
    Request(RequestId, Vec<u8>),
    Probe,
}

/// Our streams on one connection.
pub(crate) struct Handler {
    /// Natives and indexers take beats and requests; nodes only pings.
    serves: bool,
    inbound: Option<Box<Inbound>>,
    outbound: Option<Box<Outbound>>,
    /// A heartbeat stream is being opened.
    opening: bool,
    /// Its lease and first beat; `None` if it is no longer wanted.
    first_beat: Option<(u64, Vec<u8>)>,
    pongs: Vec<Task>,
    tasks: Vec<Task>,
    unanswered: Vec<(RequestId, Stream)>,
    /// Exchanges of the peer, from its stream to our response.
    theirs: usize,
    /// Requests of ours, from the opening of the stream to the response.
    ours: usize,
    to_open: VecDeque<Purpose>,
    closed: Vec<StreamId>,
    leases_closed: Vec<u64>,
}

impl Handler {
    pub(crate) fn new(serves: bool) -> Self {
        Self {
            serves,
            inbound: None,
            outbound: None,
            opening: false,
            first_beat: None,
            pongs: Vec::new(),
            tasks: Vec::new(),
            unanswered: Vec::new(),
            theirs: 0,
            ours: 0,
            to_open: VecDeque::new(),
            closed: Vec::new(),
            leases_closed: Vec::new(),
        }
    }

    fn on_beat(&mut self, lease: u64, body: Vec<u8>, first: bool, last: bool) {
        if first {
            self.end_lease();
            self.first_beat = Some((lease, body));
            if !std::mem::replace(&mut self.opening, true) {
                self.to_open.push_back(Purpose::Lease);
            }
        } else if self.first_beat.is_some() {
            // Given up before the stream was open: nothing was held, nothing is to be said.
            self.end_lease();
        } else if let Some(outbound) = &mut self.outbound
            && outbound.beat(&body, last).is_err()
        {
            self.end_lease();
        }
    }

    /// Ends our heartbeat stream, open or not, and says so.
    fn end_lease(&mut self) {
        let open = self.outbound.take().map(|outbound| outbound.lease);
        let opening = self.first_beat.take().map(|(lease, _)| lease);
        self.leases_closed.extend(open.into_iter().chain(opening));
    }

    fn on_ack(&mut self, stream: StreamId, body: &[u8], asked: bool, close: bool) {
        let Some(inbound) = self
            .inbound
            .as_mut()
            .filter(|inbound| inbound.stream == stream)
        else {
            return;
        };
        if inbound.ack(body, asked).is_err() {
            self.inbound = None;
            self.closed.push(stream);
        } else if close {
            inbound.close();
        }
    }

    fn accept(&mut self, protocol: &StreamProtocol, mut io: Stream) {
        if *protocol == PING {
            // Who only pings holds no connection.
            io.ignore_for_keep_alive();
            if self.pongs.len() == MAX_PONGS {
                drop(self.pongs.remove(0));
            }
            self.pongs.push(Box::pin(async {
                exchange::pong(io).await.map(|()| Done::Answered)
            }));
        } else if *protocol == HEARTBEAT {
            let newer = Box::new(Inbound::new(io, StreamId(next_number())));
            if let Some(older) = self.inbound.replace(newer) {
                self.closed.push(older.stream);
            }
        } else if self.theirs < MAX_EXCHANGES {
            self.theirs += 1;
            self.tasks.push(Box::pin(async {
                let (io, body) = exchange::read_request(io).await?;
                Ok(Done::Asked(io, body))
            }));
        }
    }

    fn opened(&mut self, io: Stream, purpose: Purpose) {
        match purpose {
            Purpose::Lease => {
                self.opening = false;
                let Some((lease, body)) = self.first_beat.take() else {
                    return;
                };
                let mut outbound = Box::new(Outbound::new(io, lease));
                if outbound.beat(&body, false).is_ok() {
                    self.outbound = Some(outbound);
                } else {
                    self.leases_closed.push(lease);
                }
            }
            Purpose::Request(id, body) => self.tasks.push(Box::pin(async move {
                Ok(Done::Response(id, exchange::request(io, body).await))
            })),
            Purpose::Probe => self.tasks.push(Box::pin(async {
                Ok(Done::Probed(exchange::ping(io).await))
            })),
        }
    }

    fn not_opened(&mut self, purpose: Purpose, error: io::Error) {
        match purpose {
            Purpose::Lease => {
                self.opening = false;
                self.end_lease();
            }
            Purpose::Request(id, _) => self
                .tasks
                .push(Box::pin(ready(Ok(Done::Response(id, Err(error)))))),
            Purpose::Probe => self.tasks.push(Box::pin(ready(Ok(Done::Probed(false))))),
        }
    }

    fn next_to_open(&mut self) -> Option<Purpose> {
        let room = self.ours < MAX_REQUESTS;
        let at = self
            .to_open
            .iter()
            .position(|purpose| room || !matches!(purpose, Purpose::Request(..)))?;
        let purpose = self.to_open.remove(at)?;
        self.ours += usize::from(matches!(purpose, Purpose::Request(..)));
        Some(purpose)
    }

    fn poll_heartbeats(&mut self, cx: &mut Context<'_>) -> Option<Happened> {
        if let Some(stream) = self.closed.pop() {
            return Some(Happened::StreamClosed { stream });
        }
        if let Some(lease) = self.leases_closed.pop() {
            return Some(Happened::LeaseClosed { lease });
        }
        if let Some(inbound) = &mut self.inbound
            && let Poll::Ready(beat) = inbound.poll(cx)
        {
            let stream = inbound.stream;
            return Some(match beat {
                Ok((sequence, body)) => Happened::Beat {
                    stream,
                    sequence,
                    body,
                },
                Err(_) => {
                    self.inbound = None;
                    Happened::StreamClosed { stream }
                }
            });
        }
        if let Some(outbound) = &mut self.outbound
            && let Poll::Ready(ack) = outbound.poll(cx)
        {
            let lease = outbound.lease;
            return Some(match ack {
                Ok(body) => Happened::Ack { lease, body },
                Err(_) => {
                    self.outbound = None;
                    Happened::LeaseClosed { lease }
                }
            });
        }
        None
    }

    fn poll_tasks(&mut self, cx: &mut Context<'_>) -> Option<Happened> {
        self.pongs
            .retain_mut(|task| task.as_mut().poll(cx).is_pending());
        let mut at = 0;
        while let Some(task) = self.tasks.get_mut(at) {
            let Poll::Ready(done) = task.as_mut().poll(cx) else {
                at += 1;
                continue;
            };
            drop(self.tasks.swap_remove(at));
            match done {
                Ok(Done::Asked(io, body)) => {
                    let id = RequestId(next_number());
                    self.unanswered.push((id, io));
                    return Some(Happened::Request { id, body });
                }
                Ok(Done::Response(id, body)) => {
                    self.ours -= 1;
                    return Some(Happened::Response { id, body });
                }
                Ok(Done::Probed(alive)) => return Some(Happened::Probed { alive }),
                // A peer that breaks off its own request harms only itself.
                Ok(Done::Answered) | Err(_) => self.theirs -= 1,
            }
        }
        if self.tasks.is_empty() && self.tasks.capacity() > 0 {
            self.tasks = Vec::new();
        }
        None
    }
}

/// Streams and requests are numbered in the order in which they come, over all connections.
fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// The protocols that we take streams of.
pub(crate) struct Ours {
    serves: bool,
}

impl UpgradeInfo for Ours {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Take<array::IntoIter<StreamProtocol, 3>>;

    fn protocol_info(&self) -> Self::InfoIter {
        [PING, HEARTBEAT, DIRECTORY]
            .into_iter()
            .take(if self.serves { 3 } else { 1 })
    }
}

impl InboundUpgrade<Stream> for Ours {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, io: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, io)))
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Happened;
    type InboundProtocol = Ours;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Purpose;

    fn listen_protocol(&self) -> SubstreamProtocol<Ours> {
        SubstreamProtocol::new(
            Ours {
                serves: self.serves,
            },
            (),
        )
    }

    fn connection_keep_alive(&self) -> bool {
        self.inbound.is_some()
            || self.outbound.is_some()
            || self.first_beat.is_some()
            || !self.tasks.is_empty()
            || !self.unanswered.is_empty()
            || !self.to_open.is_empty()
    }

    fn on_behaviour_event(&mut self, command: Command) {
        match command {
            Command::Beat {
                lease,
                body,
                first,
                last,
            } => self.on_beat(lease, body, first, last),
            Command::DropLease => {
                self.outbound = None;
                self.first_beat = None;
            }
            Command::Ack {
                stream,
                body,
                asked,
                close,
            } => self.on_ack(stream, &body, asked, close),
            Command::Close { stream } => {
                if let Some(inbound) = &mut self.inbound
                    && inbound.stream == stream
                {
                    inbound.close();
                }
            }
            Command::Request { id, body } => {
                self.to_open.push_back(Purpose::Request(id, body));
            }
            Command::Respond { id, body } => {
                if let Some(at) = self
                    .unanswered
                    .iter()
                    .position(|(waiting, _)| *waiting == id)
                {
                    let (_, io) = self.unanswered.swap_remove(at);
                    self.tasks.push(Box::pin(async move {
                        exchange::respond(io, body).await.map(|()| Done::Answered)
                    }));
                }
            }
            Command::Probe => self.to_open.push_back(Purpose::Probe),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Purpose, Happened>> {
        if let Some(purpose) = self.next_to_open() {
            let protocol = match purpose {
                Purpose::Lease => HEARTBEAT,
                Purpose::Request(..) => DIRECTORY,
                Purpose::Probe => PING,
            };
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(ReadyUpgrade::new(protocol), purpose),
            });
        }
        match self.poll_heartbeats(cx).or_else(|| self.poll_tasks(cx)) {
            Some(happened) => Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(happened)),
            None => Poll::Pending,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Purpose>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol, ..
            }) => {
                let (protocol, io) = protocol;
                self.accept(&protocol, io);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
            }) => {
                self.opened(protocol, info);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.not_opened(info, io::Error::other(error.to_string()));
            }
            _ => {}
        }
    }
}
