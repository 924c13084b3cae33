//! Our own streams as a libp2p behaviour: heartbeat, directory, ping, and the answer to who asks who we are.
//!
//! It knows who is connected, dials who is not, and numbers beats; everything else happens in the connections' [`handler`]s and
//! above. Frames pass through as bytes.
//!
//! Invariants: every beat begun ends in acks or in one [`Event::LeaseClosed`], every lease given up in one [`Event::GaveUp`]; every
//! request in one [`Event::Response`]; every probe in one [`Event::Probed`]. A lease has a number of its own, so that the late end of
//! an older stream touches nothing. At most [`MAX_WAITING`] commands wait for a connection.

mod behaviour;
mod card;
mod exchange;
mod handler;
mod heartbeat;
mod post;
mod protocols;

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    io,
    task::{Context, Poll, Waker, ready},
};

use libp2p::{
    Multiaddr, StreamProtocol,
    identity::PublicKey,
    swarm::{
        ConnectionId, NotifyHandler, ToSwarm,
        dial_opts::{DialOpts, PeerCondition},
    },
};

pub(crate) use self::card::{AGENT_VERSION, PROTOCOL_VERSION};
use self::{
    card::{Card, IDENTIFY},
    handler::Command,
    post::{Arrivals, Arrived, Outbox},
    protocols::{DIRECTORY, HEARTBEAT, PING},
};
use crate::protocol::{PeerId, RequestId, StreamId};

/// Commands that may wait for connections that are being made.
const MAX_WAITING: usize = 128;

/// A beat that came.
#[derive(Debug)]
pub(crate) struct ReadBeat {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    pub(crate) stream: StreamId,
    /// What the beat's sequence must be.
    pub(crate) sequence: u64,
    pub(crate) body: Vec<u8>,
}

/// What else happened on our streams.
#[derive(Debug)]
pub(crate) enum Event {
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
    /// Our heartbeat stream is over, or could not be opened, and `why`.
    LeaseClosed { server: PeerId, why: Option<String> },
    /// A lease that we gave up is over, with or without the server's last word.
    GaveUp { server: PeerId },
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
    lease: u64,
    connection: Option<ConnectionId>,
    next: u64,
    awaited: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owed {
    Response(RequestId),
    Pong,
}

/// What the handlers of all connections need.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Natives and indexers take beats and requests; nodes do not.
    serves: bool,
    arrivals: Arrivals,
    card: Card,
}

/// A connected peer.
#[derive(Default)]
struct Contact {
    /// The oldest first.
    connections: Vec<ConnectionId>,
    /// Its newest heartbeat stream.
    lease: Option<Inbound>,
}

struct Inbound {
    stream: StreamId,
    connection: ConnectionId,
    /// Of the last beat.
    sequence: u64,
    outbox: Outbox,
}

/// The behaviour.
pub(crate) struct Streams {
    shared: Shared,
    contacts: HashMap<PeerId, Contact>,
    outbound: HashMap<PeerId, Outbound>,
    /// Leases so far; names the next.
    leases: u64,
    /// Leases given up whose last ack is waited for.
    leaving: Vec<(PeerId, ConnectionId, u64)>,
    /// On which connection a request came.
    asked_on: HashMap<RequestId, (PeerId, ConnectionId)>,
    /// Requests and probes of ours that a connection owes an answer to.
    owed: Vec<(PeerId, ConnectionId, Owed)>,
    waiting: Vec<(PeerId, Command)>,
    dials: HashMap<PeerId, ConnectionId>,
    queue: VecDeque<ToSwarm<Event, Command>>,
    waker: Option<Waker>,
}

impl Streams {
    /// `serves`: beats and requests of others are taken, and Kademlia's streams with this name, elsewhere.
    pub(crate) fn new(key: &PublicKey, serves: bool, kademlia: StreamProtocol) -> Self {
        let protocols = [PING, IDENTIFY, HEARTBEAT, DIRECTORY, kademlia];
        let spoken = if serves { protocols.len() } else { 2 };
        Self {
            shared: Shared {
                serves,
                arrivals: Arrivals::default(),
                card: Card::new(key, protocols.get(..spoken).unwrap_or_default()),
            },
            contacts: HashMap::new(),
            outbound: HashMap::new(),
            leases: 0,
            leaving: Vec::new(),
            asked_on: HashMap::new(),
            owed: Vec::new(),
            waiting: Vec::new(),
            dials: HashMap::new(),
            queue: VecDeque::new(),
            waker: None,
        }
    }

    /// From now on we say that we are reached at these addresses.
    pub(crate) fn announce(&self, addrs: &[Multiaddr]) {
        self.shared.card.announce(addrs);
    }

    /// The next beat. Beats are to be taken before the swarm is polled: it may know already that the connection has ended.
    pub(crate) fn poll_beat(&mut self, cx: &mut Context<'_>) -> Poll<ReadBeat> {
        loop {
            let Arrived {
                peer,
                connection,
                stream,
                sequence,
                body,
                outbox,
            } = ready!(self.shared.arrivals.poll(cx));
            let Some(contact) = self.contacts.get_mut(&peer) else {
                continue;
            };
            let newest = contact.lease.as_ref().map(|lease| lease.stream);
            if newest <= Some(stream) {
                contact.lease = Some(Inbound {
                    stream,
                    connection,
                    sequence,
                    outbox,
                });
            }
            return Poll::Ready(ReadBeat {
                peer,
                connection,
                stream,
                sequence,
                body,
            });
        }
    }

    /// Sends a beat, made by `encode` from its sequence; on a new stream, dialling `addrs`, if none is open.
    pub(crate) fn beat(
        &mut self,
        server: PeerId,
        addrs: Vec<Multiaddr>,
        encode: impl FnOnce(u64) -> Vec<u8>,
    ) {
        let outbound = self.outbound.entry(server).or_insert_with(|| {
            self.leases += 1;
            Outbound {
                lease: self.leases,
                connection: None,
                next: 0,
                awaited: false,
            }
        });
        let sequence = outbound.next;
        outbound.next += 1;
        outbound.awaited = true;
        let command = Command::Beat {
            lease: outbound.lease,
            body: encode(sequence),
            first: sequence == 0,
            last: false,
        };
        match outbound.connection {
            Some(connection) => self.notify(server, connection, command),
            None => self.reach(server, addrs, command),
        }
    }

    /// Sends the last beat of a stream, which ends with its ack: [`Event::GaveUp`]. Without a stream there is nothing to say.
    pub(crate) fn give_up(&mut self, server: PeerId, encode: impl FnOnce(u64) -> Vec<u8>) {
        self.waiting
            .retain(|(peer, command)| *peer != server || !matches!(command, Command::Beat { .. }));
        match self.outbound.remove(&server) {
            Some(Outbound {
                lease,
                connection: Some(connection),
                next,
                ..
            }) => {
                self.leaving.push((server, connection, lease));
                self.notify(
                    server,
                    connection,
                    Command::Beat {
                        lease,
                        body: encode(next),
                        first: false,
                        last: true,
                    },
                );
            }
            _ => self.happened(Event::GaveUp { server }),
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

    /// Answers the last beat of a stream; `close` ends the stream after it.
    pub(crate) fn ack(&self, peer: &PeerId, stream: StreamId, body: &[u8], close: bool) {
        if let Some(lease) = self.lease(peer, stream) {
            lease.outbox.put(body, true, close);
        }
    }

    /// Says something unasked on a stream, made by `encode` from the sequence of the last beat.
    pub(crate) fn tell(
        &self,
        peer: &PeerId,
        stream: StreamId,
        encode: impl FnOnce(u64) -> Vec<u8>,
    ) {
        if let Some(lease) = self.lease(peer, stream) {
            lease.outbox.put(&encode(lease.sequence), false, false);
        }
    }

    fn lease(&self, peer: &PeerId, stream: StreamId) -> Option<&Inbound> {
        let lease = self.contacts.get(peer)?.lease.as_ref()?;
        (lease.stream == stream).then_some(lease)
    }

    /// Closes a heartbeat stream of the peer, after what was sent before.
    pub(crate) fn close(&mut self, peer: PeerId, stream: StreamId) {
        let Some(contact) = self.contacts.get(&peer) else {
            return;
        };
        for connection in contact.connections.clone() {
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

    /// Gives memory back that more connections have needed.
    pub(crate) fn shrink(&mut self) {
        self.contacts.shrink_to_fit();
        self.queue.shrink_to_fit();
        self.shared.arrivals.shrink();
    }

    fn reach(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, command: Command) {
        // The newest: an older one may be dead without anybody knowing.
        let contact = self.contacts.get(&peer);
        if let Some(&connection) = contact.and_then(|contact| contact.connections.last()) {
            return self.send(peer, connection, command);
        }
        if self.waiting.len() == MAX_WAITING {
            return self.failed(peer, command, "too many connections are being made");
        }
        self.waiting.push((peer, command));
        if let Entry::Vacant(dial) = self.dials.entry(peer) {
            // Kademlia may be dialling the peer already, by addresses that are worse: `Always` does not wait for that.
            let opts = DialOpts::peer_id(peer.into())
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
            Command::DropLease | Command::Close { .. } | Command::Respond { .. } => {}
        }
        self.notify(peer, connection, command);
    }

    fn notify(&mut self, peer: PeerId, connection: ConnectionId, event: Command) {
        self.push(ToSwarm::NotifyHandler {
            peer_id: peer.into(),
            handler: NotifyHandler::One(connection),
            event,
        });
    }

    fn failed(&mut self, peer: PeerId, command: Command, why: &str) {
        match command {
            Command::Beat { .. } => {
                self.outbound.remove(&peer);
                let why = Some(why.to_owned());
                self.happened(Event::LeaseClosed { server: peer, why });
            }
            Command::Request { id, .. } => self.will_not_come(peer, Owed::Response(id), why),
            Command::Probe => self.will_not_come(peer, Owed::Pong, why),
            Command::DropLease | Command::Close { .. } | Command::Respond { .. } => {}
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
}

#[cfg(test)]
mod tests;
