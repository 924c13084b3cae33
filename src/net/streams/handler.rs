//! One small handler for all our streams on a connection: heartbeat, directory, watch, ping and
//! identify.
//!
//! One handler instead of five, because each handler has a cost for each connection: libp2p-swarm
//! asks every handler for its protocols at each poll, and holds its bytes several times. For the
//! same reason the handler itself is a pointer. What a connection does not use takes little memory.
//!
//! Bounds for each connection: one heartbeat stream in each direction (a newer inbound one replaces
//! the older), [`MAX_EXCHANGES`] exchanges begun by the peer, [`MAX_REQUESTS`] begun by us,
//! [`MAX_ANSWERING`] streams for pings and identify, and those of [`watch`](super::watch). A side
//! that opens more streams than Yamux allows loses the connection, and with it the lease. That is
//! why our own requests wait for each other.

mod messages;
mod unused;

use std::{
    collections::VecDeque,
    future::ready,
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Instant,
};

use libp2p::{
    Multiaddr, Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, ConnectionId, StreamUpgradeError,
        SubstreamProtocol,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};

use super::{
    OwnRequestId, Shared,
    exchange::{self, PING_TIMEOUT, REQUEST_TIMEOUT},
    heartbeat::{Granted, Origin, Outbound},
    identify::{self, IDENTIFY},
    protocols::{HEARTBEAT, Ours, PING, Purpose, WATCH},
    watch::Watches,
};
use crate::{
    net::{Failure, Frame, muxer::is_negotiating},
    protocol::{PeerId, RequestId, StreamId, Verdict, watch::WatcherId},
};

use unused::Unused;

pub(crate) use messages::{BeatPlace, Command, Happened};

/// Requests that a peer may have open at once; one more is reset.
const MAX_EXCHANGES: usize = 8;
/// Requests of ours that are open at once; the others wait. This is fewer than a peer accepts, so
/// that a request that is just ending does no harm.
const MAX_REQUESTS: usize = 4;
/// Streams that a peer may have open at once for pings (libp2p's ping specification allows two) and
/// identify. If it opens more, the oldest is dropped.
const MAX_ANSWERING: usize = 3;

enum Done {
    Request(Stream, Vec<u8>),
    Answered,
    Response(OwnRequestId, io::Result<Vec<u8>>),
    Probed(Verdict),
}

type Task = Pin<Box<dyn Future<Output = io::Result<Done>> + Send>>;

/// Our streams on one connection.
pub(crate) struct Handler(Box<State>);

impl Handler {
    /// A connection with `peer`, which dialled us from `remote`; `None` if we dialled it.
    pub(crate) fn new(
        shared: &Shared,
        peer: PeerId,
        connection: ConnectionId,
        remote: Option<&Multiaddr>,
    ) -> Self {
        Self(Box::new(State {
            shared: shared.clone(),
            peer,
            connection,
            remote: remote.cloned(),
            inbound: None,
            outbound: None,
            opening: false,
            first_beat: None,
            answering: Vec::new(),
            tasks: Vec::new(),
            unanswered: Vec::new(),
            theirs: 0,
            ours: 0,
            to_open: VecDeque::new(),
            closed: Vec::new(),
            leases_closed: Vec::new(),
            watches: None,
            unused: Unused::default(),
        }))
    }
}

struct State {
    shared: Shared,
    peer: PeerId,
    connection: ConnectionId,
    remote: Option<Multiaddr>,
    inbound: Option<Granted>,
    outbound: Option<Box<Outbound>>,
    /// A heartbeat stream is being opened.
    opening: bool,
    /// The lease and first beat of the stream that is being opened; `None` if it is no longer
    /// wanted.
    first_beat: Option<(u64, Vec<u8>)>,
    answering: Vec<Task>,
    tasks: Vec<Task>,
    unanswered: Vec<(RequestId, Stream)>,
    /// Exchanges begun by the peer, from the opening of the stream to our response.
    theirs: usize,
    /// Requests of ours, from the opening of the stream to the response.
    ours: usize,
    to_open: VecDeque<Purpose>,
    closed: Vec<StreamId>,
    leases_closed: Vec<(u64, Option<Failure>)>,
    /// `None` unless the connection carries one.
    watches: Option<Box<Watches>>,
    unused: Unused,
}

impl State {
    fn on_command(&mut self, command: Command) {
        match command {
            Command::Beat { lease, body, place } => self.on_beat(lease, body, place),
            Command::DropLease => {
                self.outbound = None;
                self.first_beat = None;
            }
            Command::Close { stream } => {
                if let Some(inbound) = &self.inbound
                    && inbound.stream == stream
                {
                    inbound.close();
                }
            }
            Command::Ask { id, body } => {
                let until = Instant::now() + REQUEST_TIMEOUT;
                self.to_open.push_back(Purpose::Ask(id, body, until));
            }
            Command::Respond { id, body } => self.respond(id, body),
            Command::Probe => {
                let until = Instant::now() + PING_TIMEOUT;
                self.to_open.push_back(Purpose::Probe(until));
            }
            Command::Watch(command) => {
                let watch = self.watches.get_or_insert_default().on_command(command);
                self.to_open.extend(watch.map(Purpose::Watch));
            }
        }
    }

    fn respond(&mut self, id: RequestId, body: Vec<u8>) {
        let waiting = self.unanswered.iter().position(|(asked, _)| *asked == id);
        if let Some(at) = waiting {
            let (_, io) = self.unanswered.swap_remove(at);
            self.tasks.push(Box::pin(async move {
                exchange::respond(io, body).await.map(|()| Done::Answered)
            }));
        }
    }

    fn on_beat(&mut self, lease: u64, body: Vec<u8>, place: BeatPlace) {
        if place == BeatPlace::First {
            self.end_lease(None);
            self.first_beat = Some((lease, body));
            if !std::mem::replace(&mut self.opening, true) {
                self.to_open.push_back(Purpose::Lease);
            }
        } else if self.first_beat.is_some() {
            // The lease was given up before the stream was open. So there was no lease, and no beat
            // has to be sent.
            self.end_lease(None);
        } else if let Some(outbound) = &mut self.outbound
            && outbound.beat(&body, place).is_err()
        {
            self.end_lease(None);
        }
    }

    /// Ends our heartbeat stream, open or not, and reports this, with `why` it could not be opened.
    fn end_lease(&mut self, why: Option<Failure>) {
        let open = self.outbound.take().map(|outbound| (outbound.lease, None));
        let opening = self.first_beat.take().map(|(lease, _)| (lease, why));
        self.leases_closed.extend(open.into_iter().chain(opening));
    }

    fn accept(&mut self, protocol: &StreamProtocol, mut io: Stream) {
        if *protocol == PING {
            // Pings alone do not keep a connection open.
            io.ignore_for_keep_alive();
            self.tell(Box::pin(async {
                exchange::pong(io).await.map(|()| Done::Answered)
            }));
        } else if *protocol == IDENTIFY {
            io.ignore_for_keep_alive();
            let local_info = self.shared.local_info.clone();
            let remote = self.remote.clone().unwrap_or_else(Multiaddr::empty);
            self.tell(Box::pin(async {
                identify::answer(io, local_info, remote)
                    .await
                    .map(|()| Done::Answered)
            }));
        } else if *protocol == HEARTBEAT {
            let origin = Origin {
                peer: self.peer,
                connection: self.connection,
                stream: StreamId(next_number()),
            };
            let arrivals = self.shared.arrivals.clone();
            let newer = Granted::new(io, origin, arrivals, self.shared.first_beat);
            if let Some(older) = self.inbound.replace(newer) {
                self.closed.push(older.stream);
            }
        } else if *protocol == WATCH {
            let watches = self.watches.get_or_insert_default();
            watches.accept(io, WatcherId(next_number()), self.peer);
        } else if self.theirs < MAX_EXCHANGES {
            self.theirs += 1;
            self.tasks.push(Box::pin(async {
                let (io, body) = exchange::read_request(io).await?;
                Ok(Done::Request(io, body))
            }));
        }
    }

    fn tell(&mut self, task: Task) {
        if self.answering.len() == MAX_ANSWERING {
            drop(self.answering.remove(0));
        }
        self.answering.push(task);
    }

    fn opened(&mut self, io: Stream, purpose: Purpose) {
        let left = purpose.patience();
        match purpose {
            Purpose::Lease => {
                self.opening = false;
                let Some((lease, body)) = self.first_beat.take() else {
                    return;
                };
                let mut outbound = Box::new(Outbound::new(io, lease));
                if outbound.beat(&body, BeatPlace::First).is_ok() {
                    self.outbound = Some(outbound);
                } else {
                    self.leases_closed.push((lease, None));
                }
            }
            Purpose::Ask(id, body, _) => self.tasks.push(Box::pin(async move {
                Ok(Done::Response(id, exchange::request(io, body, left).await))
            })),
            Purpose::Probe(_) => self.tasks.push(Box::pin(async move {
                Ok(Done::Probed(exchange::ping(io, left).await))
            })),
            Purpose::Watch(watch) => {
                if let Some(watches) = &mut self.watches {
                    watches.opened(io, watch);
                }
            }
        }
    }

    fn not_opened(&mut self, purpose: Purpose, error: io::Error) {
        match purpose {
            Purpose::Lease => {
                self.opening = false;
                self.end_lease(Some(Failure::of_stream(error)));
            }
            Purpose::Ask(id, ..) => self
                .tasks
                .push(Box::pin(ready(Ok(Done::Response(id, Err(error)))))),
            Purpose::Probe(_) => self
                .tasks
                .push(Box::pin(ready(Ok(Done::Probed(Verdict::Silent))))),
            Purpose::Watch(watch) => {
                let watches = self.watches.get_or_insert_default();
                watches.not_opened(watch, error.to_string());
            }
        }
    }

    fn next_to_open(&mut self) -> Option<Purpose> {
        let room = self.ours < MAX_REQUESTS;
        let at = self
            .to_open
            .iter()
            .position(|purpose| room || !matches!(purpose, Purpose::Ask(..)))?;
        let purpose = self.to_open.remove(at)?;
        self.ours += usize::from(matches!(purpose, Purpose::Ask(..)));
        Some(purpose)
    }

    fn poll_heartbeats(&mut self, cx: &mut Context<'_>) -> Option<Happened> {
        if let Some(stream) = self.closed.pop() {
            return Some(Happened::StreamClosed { stream, why: None });
        }
        if let Some((lease, why)) = self.leases_closed.pop() {
            let why = why.map(Box::new);
            return Some(Happened::LeaseClosed { lease, why });
        }
        if let Some(inbound) = &mut self.inbound
            && let Poll::Ready(error) = inbound.poll_end(cx)
        {
            let stream = inbound.stream;
            self.inbound = None;
            let why = is_malformed(&error).then(|| error.to_string());
            return Some(Happened::StreamClosed { stream, why });
        }
        if let Some(outbound) = &mut self.outbound
            && let Poll::Ready(ack) = outbound.poll(cx)
        {
            let lease = outbound.lease;
            return Some(match ack {
                Ok(body) => Happened::Ack { lease, body },
                Err(error) => {
                    self.outbound = None;
                    let why = is_malformed(&error).then(|| Box::new(Failure::malformed(&error)));
                    Happened::LeaseClosed { lease, why }
                }
            });
        }
        None
    }

    fn poll_watches(&mut self, cx: &mut Context<'_>) -> Option<Happened> {
        let watches = self.watches.as_mut()?;
        let event = watches.poll(cx);
        if watches.is_idle() {
            self.watches = None;
        }
        event.map(|event| Happened::Watch(Box::new(event)))
    }

    fn poll_tasks(&mut self, cx: &mut Context<'_>) -> Option<Happened> {
        self.answering
            .retain_mut(|task| task.as_mut().poll(cx).is_pending());
        let mut at = 0;
        while let Some(task) = self.tasks.get_mut(at) {
            let Poll::Ready(done) = task.as_mut().poll(cx) else {
                at += 1;
                continue;
            };
            drop(self.tasks.swap_remove(at));
            match done {
                Ok(Done::Request(io, body)) => {
                    let id = RequestId(next_number());
                    self.unanswered.push((id, io));
                    return Some(Happened::Request { id, body });
                }
                Ok(Done::Response(id, body)) => {
                    self.ours -= 1;
                    return Some(Happened::Response { id, body });
                }
                Ok(Done::Probed(verdict)) => return Some(Happened::Probed { verdict }),
                // A peer that aborts its own request harms only itself.
                Ok(Done::Answered) => self.theirs -= 1,
                Err(error) => {
                    self.theirs -= 1;
                    if is_malformed(&error) {
                        let (frame, why) = (Frame::Request, error.to_string());
                        return Some(Happened::Malformed { frame, why });
                    }
                }
            }
        }
        for tasks in [&mut self.tasks, &mut self.answering] {
            if tasks.is_empty() && tasks.capacity() > 0 {
                *tasks = Vec::new();
            }
        }
        None
    }
}

/// Whether the peer sent what is no frame.
pub(super) fn is_malformed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

/// Streams and requests are numbered in the order in which they come, over all connections.
fn next_number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Command;
    type ToBehaviour = Happened;
    type InboundProtocol = Ours;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Purpose;

    /// On a connection of the peer, only for a stream that has come: what the swarm would keep of
    /// it is not read. On one that we dialled, libp2p's identify tells the peer what it keeps.
    fn listen_protocol(&self) -> SubstreamProtocol<Ours> {
        let is_dialled = self.0.remote.is_none();
        let ours = match is_dialled || is_negotiating() {
            true => Ours {
                pongs: true,
                serves: self.0.shared.serves,
                identifies: !is_dialled,
            },
            false => Ours::NONE,
        };
        SubstreamProtocol::new(ours, ())
    }

    fn connection_keep_alive(&self) -> bool {
        let state = &self.0;
        state.inbound.is_some()
            || state.outbound.is_some()
            || state.first_beat.is_some()
            || state.watches.is_some()
            || !state.tasks.is_empty()
            || !state.unanswered.is_empty()
            || !state.to_open.is_empty()
    }

    fn on_behaviour_event(&mut self, command: Command) {
        self.0.on_command(command);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Purpose, Happened>> {
        if let Some(purpose) = self.0.next_to_open() {
            let (upgrade, patience) = (ReadyUpgrade::new(purpose.protocol()), purpose.patience());
            let protocol = SubstreamProtocol::new(upgrade, purpose).with_timeout(patience);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        let state = &mut *self.0;
        let happened = state.poll_heartbeats(cx);
        let happened = happened.or_else(|| state.poll_tasks(cx));
        let happened = happened.or_else(|| state.poll_watches(cx));
        match happened.or_else(|| state.poll_unused(cx)) {
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
                self.0.accept(&protocol, io);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
            }) => {
                self.0.opened(protocol, info);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let why = match error {
                    StreamUpgradeError::NegotiationFailed => {
                        io::Error::other(format!("it does not speak {}", info.protocol()))
                    }
                    StreamUpgradeError::Timeout => {
                        io::Error::new(io::ErrorKind::TimedOut, "it does not answer")
                    }
                    error => io::Error::other(error.to_string()),
                };
                self.0.not_opened(info, why);
            }
            _ => {}
        }
    }
}
