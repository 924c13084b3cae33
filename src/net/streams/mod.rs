//! Our own streams as a libp2p behaviour: heartbeat, directory, ping.
//!
//! It knows who is connected, dials who is not, and numbers beats; everything else happens in the connections' [`handler`]s and
//! above. Frames pass through as bytes.
//!
//! Invariants: every beat begun ends in acks or in one [`Event::LeaseClosed`]; every request in one [`Event::Response`]; every probe in
//! one [`Event::Probed`]. At most [`MAX_WAITING`] commands wait for a connection.

mod exchange;
mod handler;
mod heartbeat;

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    io,
    task::{Context, Poll, Waker},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, NotifyHandler,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure},
        dial_opts::{DialOpts, PeerCondition},
    },
};

use self::handler::{Command, Handler, Happened};
use crate::protocol::{RequestId, StreamId};

/// Commands that may wait for connections that are being made.
const MAX_WAITING: usize = 128;

/// What happened on our streams.
#[derive(Debug)]
pub(crate) enum Event {
    /// The peer beat; the beat's sequence must be `sequence`.
    Beat {
        peer: PeerId,
        stream: StreamId,
        sequence: u64,
        body: Vec<u8>,
    },
    /// The peer's heartbeat stream is over.
    StreamClosed { peer: PeerId, stream: StreamId },
    /// The server said something on our heartbeat stream, on which `sequence` was the last beat sent; `awaited` if that beat was not
    /// answered before.
    Ack {
        server: PeerId,
        sequence: u64,
        awaited: bool,
        body: Vec<u8>,
    },
    /// Our heartbeat stream is over, or could not be opened.
    LeaseClosed { server: PeerId },
    /// The peer asks something.
    Request {
        peer: PeerId,
        id: RequestId,
        body: Vec<u8>,
    },
    /// Our request was answered, or will not be.
    Response {
        id: RequestId,
        body: io::Result<Vec<u8>>,
    },
    /// Our ping was answered, or not.
    Probed { peer: PeerId, alive: bool },
}

/// Our heartbeat stream with one server.
struct Outbound {
    connection: Option<ConnectionId>,
    next: u64,
    awaited: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owed {
    Response(RequestId),
    Pong,
}

/// The behaviour.
pub(crate) struct Streams {
    serves: bool,
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    outbound: HashMap<PeerId, Outbound>,
    /// On which connection a peer's heartbeat stream or request came.
    inbound: HashMap<PeerId, (StreamId, ConnectionId)>,
    asked_on: HashMap<RequestId, (PeerId, ConnectionId)>,
    /// Requests and probes of ours that a connection owes an answer to.
    owed: Vec<(PeerId, ConnectionId, Owed)>,
    waiting: Vec<(PeerId, Command)>,
    dials: HashMap<PeerId, ConnectionId>,
    queue: VecDeque<ToSwarm<Event, Command>>,
    waker: Option<Waker>,
}

impl Streams {
    /// `serves`: beats and requests of others are taken.
    pub(crate) fn new(serves: bool) -> Self {
        Self {
            serves,
            connections: HashMap::new(),
            outbound: HashMap::new(),
            inbound: HashMap::new(),
            asked_on: HashMap::new(),
            owed: Vec::new(),
            waiting: Vec::new(),
            dials: HashMap::new(),
            queue: VecDeque::new(),
            waker: None,
        }
    }

    /// Sends a beat, made by `encode` from its sequence; on a new stream, dialling `addrs`, if none is open.
    pub(crate) fn beat(
        &mut self,
        server: PeerId,
        addrs: Vec<Multiaddr>,
        encode: impl FnOnce(u64) -> Vec<u8>,
    ) {
        let outbound = self.outbound.entry(server).or_insert(Outbound {
            connection: None,
            next: 0,
            awaited: false,
        });
        let sequence = outbound.next;
        outbound.next += 1;
        outbound.awaited = true;
        let command = Command::Beat {
            body: encode(sequence),
            first: sequence == 0,
            last: false,
        };
        match outbound.connection {
            Some(connection) => self.notify(server, connection, command),
            None => self.reach(server, addrs, command),
        }
    }

    /// Sends the last beat of a stream; the stream ends with its ack. Without a stream there is nothing to say.
    pub(crate) fn give_up(&mut self, server: PeerId, encode: impl FnOnce(u64) -> Vec<u8>) {
        self.waiting
            .retain(|(peer, command)| *peer != server || !matches!(command, Command::Beat { .. }));
        match self.outbound.remove(&server) {
            Some(Outbound {
                connection: Some(connection),
                next,
                ..
            }) => self.notify(
                server,
                connection,
                Command::Beat {
                    body: encode(next),
                    first: false,
                    last: true,
                },
            ),
            _ => self.happened(Event::LeaseClosed { server }),
        }
    }

    /// The last beat to the server was answered.
    pub(crate) fn answered(&mut self, server: &PeerId) {
        if let Some(outbound) = self.outbound.get_mut(server) {
            outbound.awaited = false;
        }
    }

    /// Drops our heartbeat stream with the server; no event follows.
    pub(crate) fn drop_lease(&mut self, server: PeerId) {
        self.waiting
            .retain(|(peer, command)| *peer != server || !matches!(command, Command::Beat { .. }));
        if let Some(Outbound {
            connection: Some(connection),
            ..
        }) = self.outbound.remove(&server)
        {
            self.notify(server, connection, Command::DropLease);
        }
    }

    /// Answers a beat, or says something unasked; `close` ends the stream after it.
    pub(crate) fn ack(
        &mut self,
        peer: PeerId,
        stream: StreamId,
        body: Vec<u8>,
        asked: bool,
        close: bool,
    ) {
        if let Some(&(newest, connection)) = self.inbound.get(&peer)
            && newest == stream
        {
            let command = Command::Ack {
                stream,
                body,
                asked,
                close,
            };
            self.notify(peer, connection, command);
        }
    }

    /// Closes a heartbeat stream of the peer. Commands keep their order, so an ack that was sent before still goes out.
    pub(crate) fn close(&mut self, peer: PeerId, stream: StreamId) {
        let Some(connections) = self.connections.get(&peer) else {
            return;
        };
        for connection in connections.clone() {
            self.notify(peer, connection, Command::Close { stream });
        }
    }

    /// Makes a directory request; the answer is [`Event::Response`].
    pub(crate) fn request(
        &mut self,
        peer: PeerId,
        addrs: Vec<Multiaddr>,
        id: RequestId,
        body: Vec<u8>,
    ) {
        self.reach(peer, addrs, Command::Request { id, body });
    }

    /// Answers a directory request.
    pub(crate) fn respond(&mut self, id: RequestId, body: Vec<u8>) {
        if let Some((peer, connection)) = self.asked_on.remove(&id) {
            self.notify(peer, connection, Command::Respond { id, body });
        }
    }

    /// Who made a request that waits for its answer.
    pub(crate) fn asker(&self, id: RequestId) -> Option<PeerId> {
        self.asked_on.get(&id).map(|(peer, _)| *peer)
    }

    /// Pings the peer once; the answer is [`Event::Probed`].
    pub(crate) fn probe(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) {
        self.reach(peer, addrs, Command::Probe);
    }

    fn reach(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, command: Command) {
        if let Some(&connection) = self.connections.get(&peer).and_then(|all| all.first()) {
            return self.send(peer, connection, command);
        }
        if self.waiting.len() == MAX_WAITING {
            return self.failed(peer, command, "too many connections are being made");
        }
        self.waiting.push((peer, command));
        if let Entry::Vacant(dial) = self.dials.entry(peer) {
            // Kademlia may be dialling the peer already, by addresses that are worse: `Always` does not wait for that.
            let opts = DialOpts::peer_id(peer)
                .condition(PeerCondition::Always)
                .addresses(addresses)
                .build();
            dial.insert(opts.connection_id());
            self.push(ToSwarm::Dial { opts });
        }
    }

    fn send(&mut self, peer: PeerId, connection: ConnectionId, command: Command) {
        match &command {
            Command::Beat { .. } => {
                if let Some(outbound) = self.outbound.get_mut(&peer) {
                    outbound.connection = Some(connection);
                }
            }
            Command::Request { id, .. } => self.owed.push((peer, connection, Owed::Response(*id))),
            Command::Probe => self.owed.push((peer, connection, Owed::Pong)),
            Command::DropLease
            | Command::Ack { .. }
            | Command::Close { .. }
            | Command::Respond { .. } => {}
        }
        self.notify(peer, connection, command);
    }

    fn notify(&mut self, peer_id: PeerId, connection: ConnectionId, event: Command) {
        self.push(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event,
        });
    }

    fn failed(&mut self, peer: PeerId, command: Command, why: &str) {
        match command {
            Command::Beat { .. } => {
                self.outbound.remove(&peer);
                self.happened(Event::LeaseClosed { server: peer });
            }
            Command::Request { id, .. } => self.will_not_come(peer, Owed::Response(id), why),
            Command::Probe => self.will_not_come(peer, Owed::Pong, why),
            Command::DropLease
            | Command::Ack { .. }
            | Command::Close { .. }
            | Command::Respond { .. } => {}
        }
    }

    fn will_not_come(&mut self, peer: PeerId, owed: Owed, why: &str) {
        self.happened(match owed {
            Owed::Response(id) => Event::Response {
                id,
                body: Err(io::Error::other(why.to_owned())),
            },
            Owed::Pong => Event::Probed { peer, alive: false },
        });
    }

    /// Whether the connection owed it; it does no longer.
    fn settle(&mut self, connection: ConnectionId, owed: Owed) -> bool {
        let at = self
            .owed
            .iter()
            .position(|(_, on, what)| *on == connection && *what == owed);
        at.map(|at| self.owed.swap_remove(at)).is_some()
    }

    fn happened(&mut self, event: Event) {
        self.push(ToSwarm::GenerateEvent(event));
    }

    fn push(&mut self, event: ToSwarm<Event, Command>) {
        self.queue.push_back(event);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn take_waiting(&mut self, peer: &PeerId) -> Vec<Command> {
        let (mine, others) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(waiting, _)| waiting == peer);
        self.waiting = others;
        mine.into_iter().map(|(_, command)| command).collect()
    }

    fn connected(&mut self, peer: PeerId, connection: ConnectionId) {
        self.connections.entry(peer).or_default().push(connection);
        self.dials.remove(&peer);
        for command in self.take_waiting(&peer) {
            self.send(peer, connection, command);
        }
    }

    fn disconnected(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(all) = self.connections.get_mut(&peer) {
            all.retain(|open| *open != connection);
            if all.is_empty() {
                self.connections.remove(&peer);
            }
        }
        if self
            .outbound
            .get(&peer)
            .is_some_and(|outbound| outbound.connection == Some(connection))
        {
            self.outbound.remove(&peer);
            self.happened(Event::LeaseClosed { server: peer });
        }
        if let Some(&(stream, on)) = self.inbound.get(&peer)
            && on == connection
        {
            self.inbound.remove(&peer);
            self.happened(Event::StreamClosed { peer, stream });
        }
        self.asked_on.retain(|_, (_, on)| *on != connection);
        while let Some(at) = self.owed.iter().position(|(_, on, _)| *on == connection) {
            let (peer, _, owed) = self.owed.swap_remove(at);
            self.will_not_come(peer, owed, "the connection was closed");
        }
    }

    fn dial_failed(&mut self, peer: PeerId, connection: ConnectionId, why: &DialError) {
        if self.dials.get(&peer) != Some(&connection) {
            return;
        }
        self.dials.remove(&peer);
        let why = why.to_string();
        for command in self.take_waiting(&peer) {
            self.failed(peer, command, &why);
        }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.serves))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.serves))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                ..
            }) => self.connected(peer_id, connection_id),
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => self.disconnected(peer_id, connection_id),
            FromSwarm::DialFailure(DialFailure {
                peer_id: Some(peer),
                error,
                connection_id,
            }) => self.dial_failed(peer, connection_id, error),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        happened: THandlerOutEvent<Self>,
    ) {
        let event = match happened {
            Happened::Beat {
                stream,
                sequence,
                body,
            } => {
                let newest = self.inbound.entry(peer).or_insert((stream, connection));
                if newest.0 <= stream {
                    *newest = (stream, connection);
                }
                Event::Beat {
                    peer,
                    stream,
                    sequence,
                    body,
                }
            }
            Happened::StreamClosed { stream } => {
                if self
                    .inbound
                    .get(&peer)
                    .is_some_and(|(newest, _)| *newest == stream)
                {
                    self.inbound.remove(&peer);
                }
                Event::StreamClosed { peer, stream }
            }
            Happened::Ack { body } => match self.outbound.get(&peer) {
                Some(outbound) if outbound.connection == Some(connection) => Event::Ack {
                    server: peer,
                    sequence: outbound.next.saturating_sub(1),
                    awaited: outbound.awaited,
                    body,
                },
                _ => return,
            },
            Happened::LeaseClosed => match self.outbound.get(&peer) {
                Some(outbound) if outbound.connection != Some(connection) => return,
                _ => {
                    self.outbound.remove(&peer);
                    Event::LeaseClosed { server: peer }
                }
            },
            Happened::Request { id, body } => {
                self.asked_on.insert(id, (peer, connection));
                Event::Request { peer, id, body }
            }
            Happened::Response { id, body } if self.settle(connection, Owed::Response(id)) => {
                Event::Response { id, body }
            }
            Happened::Probed { alive } if self.settle(connection, Owed::Pong) => {
                Event::Probed { peer, alive }
            }
            Happened::Response { .. } | Happened::Probed { .. } => return,
        };
        self.happened(event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        if let Some(event) = self.queue.pop_front() {
            return Poll::Ready(event);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
