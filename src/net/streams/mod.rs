//! Our own streams as a libp2p behaviour: heartbeat, directory, ping, and the answers to identify.
//!
//! It knows which peers are connected, dials the others, and numbers beats. Everything else happens
//! in the connections' [`handler`]s and in the modules above. Frames pass through as bytes.
//!
//! Invariants: every beat ends in acks or in one [`Event::LeaseClosed`], every lease given up in
//! one [`Event::GaveUp`], every request in one [`Event::Response`], and every probe in one
//! [`Event::Probed`]. Each lease has a number, so that the late end of an older stream has no
//! effect. At most [`MAX_WAITING`] commands wait for a connection, and [`MAX_DIALS`] dials of ours
//! to one peer are under way. After an answer failed to come on a connection, we open no further
//! streams on it ([`contact`]). No peer has more beats answered than its [`Pace`] allows.

mod behaviour;
mod contact;
mod exchange;
mod granted;
mod handler;
mod heartbeat;
mod held;
mod identify;
mod mailbox;
mod protocols;
mod watch;

use std::{
    collections::{HashMap, VecDeque},
    task::Waker,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, StreamProtocol,
    identity::PublicKey,
    swarm::{
        CloseConnection, ConnectionId, NotifyHandler, ToSwarm,
        dial_opts::{DialOpts, PeerCondition},
    },
};

pub(crate) use self::{
    contact::{BEATS_A_SECOND, Pace},
    identify::{AGENT_VERSION, PROTOCOL_VERSION},
    mailbox::{AckKind, BeatFrame},
    watch::WatchEvent,
};
use self::{
    contact::{Contact, Health},
    handler::{BeatPlace, Command},
    held::HeldLease,
    identify::{IDENTIFY, LocalInfo},
    mailbox::Arrivals,
    protocols::{DIRECTORY, HEARTBEAT, PING, WATCH},
    watch::Routes,
};
use crate::{
    net::{Failure, Frame, each::short},
    protocol::{PeerId, RequestId, StreamId, Verdict, codec::heartbeat::LastBeat},
};

/// Commands that may wait for connections that are being made.
const MAX_WAITING: usize = 128;
/// Dials of ours to one peer at once. A fresh beat does not wait for an earlier dial, because that
/// may be lost too. Each dial ends within 10 s.
const MAX_DIALS: usize = 3;

/// The other events of our streams.
#[derive(Debug)]
pub(crate) enum Event {
    /// The peer's heartbeat stream is over. `why` is given if it sent what cannot be read.
    StreamClosed {
        peer: PeerId,
        stream: StreamId,
        why: Option<String>,
    },
    /// The server sent an ack on our heartbeat stream.
    Ack {
        server: PeerId,
        connection: ConnectionId,
        /// Names the lease for [`Streams::answered`].
        lease: u64,
        last: LastBeat,
        body: Vec<u8>,
    },
    /// Our heartbeat stream is over, or could not be opened, and `why`.
    LeaseClosed {
        server: PeerId,
        why: Option<Failure>,
    },
    /// A lease that we gave up is over, with or without the server's last ack.
    GaveUp { server: PeerId },
    /// The peer sent a directory request.
    Request {
        peer: PeerId,
        id: RequestId,
        body: Vec<u8>,
    },
    /// Our request was answered, or it failed.
    Response {
        server: PeerId,
        id: OwnRequestId,
        body: Result<Vec<u8>, Failure>,
    },
    /// Our ping was answered, or it failed.
    Probed { peer: PeerId, verdict: Verdict },
    /// The same, for a ping over the connection that carries this heartbeat stream of the peer.
    StreamProbed {
        peer: PeerId,
        stream: StreamId,
        verdict: Verdict,
    },
    /// Something happened on a watch stream.
    Watch(WatchEvent),
    /// The peer sent what cannot be read, and why.
    Malformed {
        peer: PeerId,
        frame: Frame,
        why: String,
    },
}

/// Names a directory request of our own. A request of a peer has a [`RequestId`], which is numbered
/// separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OwnRequestId(pub(crate) u64);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owed {
    Response(OwnRequestId),
    Pong,
    /// The pong of a ping over the connection of this heartbeat stream.
    PongFor(StreamId),
}

/// What the handlers of all connections need.
#[derive(Clone)]
pub(crate) struct Shared {
    /// Natives and indexers take beats and requests; nodes do not.
    serves: bool,
    /// How long an opened heartbeat stream may wait for its first beat.
    first_beat: Duration,
    /// How long a connection of a peer may be of no use.
    unused: Duration,
    arrivals: Arrivals,
    local_info: LocalInfo,
}

/// A dial of ours that is under way.
struct Dial {
    peer: PeerId,
    connection: ConnectionId,
    /// The dial began before the network changed, so it may be lost. Further commands do not wait
    /// for it.
    stale: bool,
}

/// The behaviour.
pub(crate) struct Streams {
    own: libp2p::PeerId,
    shared: Shared,
    contacts: HashMap<PeerId, Contact>,
    outbound: HashMap<PeerId, HeldLease>,
    /// The number of leases so far, which is the number of the next.
    leases: u64,
    /// Leases that were given up and wait for their last ack.
    leaving: Vec<(PeerId, ConnectionId, u64)>,
    /// The connection on which each request came.
    asked_on: HashMap<RequestId, (PeerId, ConnectionId)>,
    /// Requests and probes of ours that wait for an answer, with their connection.
    owed: Vec<(PeerId, ConnectionId, Owed)>,
    waiting: Vec<(PeerId, Command)>,
    watches: Routes,
    /// The oldest first.
    dials: Vec<Dial>,
    queue: VecDeque<ToSwarm<Event, Command>>,
    waker: Option<Waker>,
    /// The pace of beats is counted from here.
    began: Instant,
}

impl Streams {
    /// With `serves`, beats and requests of other peers are accepted, and identify also announces
    /// the protocol `kademlia`; another behaviour handles its streams. A heartbeat stream of
    /// another peer ends if its first beat does not come within `first_beat`; a connection of
    /// another peer ends if it is of no use for three times as long.
    pub(crate) fn new(
        key: &PublicKey,
        serves: bool,
        kademlia: StreamProtocol,
        first_beat: Duration,
    ) -> Self {
        let protocols = [PING, IDENTIFY, HEARTBEAT, DIRECTORY, WATCH, kademlia];
        let spoken = if serves { protocols.len() } else { 2 };
        Self {
            own: key.to_peer_id(),
            shared: Shared {
                serves,
                first_beat,
                unused: first_beat * 3,
                arrivals: Arrivals::default(),
                local_info: LocalInfo::new(key, protocols.get(..spoken).unwrap_or_default()),
            },
            contacts: HashMap::new(),
            outbound: HashMap::new(),
            leases: 0,
            leaving: Vec::new(),
            asked_on: HashMap::new(),
            owed: Vec::new(),
            waiting: Vec::new(),
            watches: Routes::default(),
            dials: Vec::new(),
            queue: VecDeque::new(),
            waker: None,
            began: Instant::now(),
        }
    }

    /// Announces these addresses by identify from now on.
    pub(crate) fn announce(&self, addrs: &[Multiaddr]) {
        self.shared.local_info.announce(addrs);
    }

    /// Makes a directory request. It ends in [`Event::Response`].
    pub(crate) fn request(
        &mut self,
        peer: PeerId,
        addrs: Vec<Multiaddr>,
        id: OwnRequestId,
        body: Vec<u8>,
    ) {
        traced("sends request", id.0, &peer, &body);
        self.reach(peer, addrs, Command::Ask { id, body });
    }

    /// Answers a directory request.
    pub(crate) fn respond(&mut self, id: RequestId, body: Vec<u8>) {
        if let Some((peer, connection)) = self.asked_on.remove(&id) {
            traced("sends response", id.0, &peer, &body);
            self.notify(peer, connection, Command::Respond { id, body });
        }
    }

    /// The connection on which the request came, while it is not answered.
    pub(crate) fn connection_of(&self, id: RequestId) -> Option<ConnectionId> {
        Some(self.asked_on.get(&id)?.1)
    }

    /// Pings the peer once. The probe ends in [`Event::Probed`].
    pub(crate) fn probe(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) {
        self.reach(peer, addrs, Command::Probe);
    }

    /// Pings the peer once, over the connection that carries its heartbeat stream. The probe ends
    /// in [`Event::StreamProbed`].
    pub(crate) fn probe_stream(&mut self, peer: PeerId, stream: StreamId) {
        let owed = Owed::PongFor(stream);
        match self.lease(&peer, stream).map(|lease| lease.connection) {
            Some(connection) => {
                self.owed.push((peer, connection, owed));
                self.notify(peer, connection, Command::Probe);
            }
            None => {
                let why = Failure::of_stream("the stream has ended");
                self.will_not_come(peer, owed, &why);
            }
        }
    }

    /// The newest connection with this peer.
    pub(crate) fn connection_with(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.contacts.get(peer)?.all().last().copied()
    }

    /// A link, a route or an address of this host was added, so the dials under way may be lost.
    pub(crate) fn network_changed(&mut self) {
        self.dials.iter_mut().for_each(|dial| dial.stale = true);
    }

    /// Gives back memory that is no longer needed.
    pub(crate) fn shrink(&mut self) {
        self.contacts.shrink_to_fit();
        self.queue.shrink_to_fit();
        self.shared.arrivals.shrink();
    }

    /// Sends the command on the newest good connection, or on one that is dialled for it.
    fn reach(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, command: Command) {
        if let Some(connection) = self.contacts.get(&peer).and_then(Contact::usable) {
            return self.send(peer, connection, command);
        }
        if self.waiting.len() == MAX_WAITING {
            let why = Failure::of_stream("too many connections are being made");
            return self.failed(peer, command, &why);
        }
        let is_fresh = matches!(&command, Command::Beat { .. })
            && self.outbound.get(&peer).is_some_and(HeldLease::is_fresh);
        self.waiting.push((peer, command));
        let dials = || self.dials.iter().filter(|dial| dial.peer == peer);
        let (all, is_lost) = (dials().count(), dials().all(|dial| dial.stale));
        if all == 0 || ((is_fresh || is_lost) && all < MAX_DIALS) {
            // Kademlia may already be dialling the peer at worse addresses. `Always` does not wait
            // for that dial.
            log::debug!("dials {}: {addresses:?}", short(&peer));
            let opts = DialOpts::peer_id(peer.into())
                .condition(PeerCondition::Always)
                .addresses(addresses)
                .build();
            self.dials.push(Dial {
                peer,
                connection: opts.connection_id(),
                stale: false,
            });
            self.push(ToSwarm::Dial { opts });
        }
    }

    fn send(&mut self, peer: PeerId, connection: ConnectionId, command: Command) {
        match &command {
            Command::Beat { .. } => {
                if let Some(outbound) = self.outbound.get_mut(&peer) {
                    outbound.goes_over(connection);
                    self.close_silent(peer);
                }
            }
            Command::Ask { id, .. } => self.owed.push((peer, connection, Owed::Response(*id))),
            Command::Probe => self.owed.push((peer, connection, Owed::Pong)),
            Command::Watch(watch) => self.watch_goes_over(watch, connection),
            Command::DropLease | Command::Close { .. } | Command::Respond { .. } => {}
        }
        self.notify(peer, connection, command);
    }

    /// Closes the silent connections, because another takes their place.
    fn close_silent(&mut self, peer: PeerId) {
        let silent = self.contacts.get(&peer).map(Contact::silent);
        for connection in silent.unwrap_or_default() {
            self.push(ToSwarm::CloseConnection {
                peer_id: peer.into(),
                connection: CloseConnection::One(connection),
            });
        }
    }

    /// Takes note that an answer on the connection did not come in time.
    fn suspect(&mut self, peer: &PeerId, connection: ConnectionId, health: Health) {
        if let Some(contact) = self.contacts.get_mut(peer) {
            contact.suspect(connection, health);
        }
    }

    /// Takes note that an answer came on the connection.
    fn trust(&mut self, peer: &PeerId, connection: ConnectionId) {
        if let Some(contact) = self.contacts.get_mut(peer) {
            contact.trust(connection);
        }
    }

    fn notify(&mut self, peer: PeerId, connection: ConnectionId, event: Command) {
        self.push(ToSwarm::NotifyHandler {
            peer_id: peer.into(),
            handler: NotifyHandler::One(connection),
            event,
        });
    }

    fn failed(&mut self, peer: PeerId, command: Command, why: &Failure) {
        match command {
            Command::Beat { .. } => {
                if let Some(lost) = self.outbound.remove(&peer) {
                    self.drop_older(peer, lost);
                }
                let why = Some(why.clone());
                self.happened(Event::LeaseClosed { server: peer, why });
            }
            Command::Ask { id, .. } => self.will_not_come(peer, Owed::Response(id), why),
            Command::Probe => self.will_not_come(peer, Owed::Pong, why),
            Command::Watch(watch) => self.watch_failed(watch, &why.to_string()),
            Command::DropLease | Command::Close { .. } | Command::Respond { .. } => {}
        }
    }

    fn will_not_come(&mut self, peer: PeerId, owed: Owed, why: &Failure) {
        self.happened(match owed {
            Owed::Response(id) => Event::Response {
                server: peer,
                id,
                body: Err(why.clone()),
            },
            Owed::Pong => Event::Probed {
                peer,
                verdict: Verdict::Silent,
            },
            Owed::PongFor(stream) => Event::StreamProbed {
                peer,
                stream,
                verdict: Verdict::Silent,
            },
        });
    }

    /// Removes this open request or probe of the connection. Returns whether there was one.
    fn settle(&mut self, connection: ConnectionId, owed: Owed) -> bool {
        let at = self
            .owed
            .iter()
            .position(|(_, on, what)| *on == connection && *what == owed);
        at.map(|at| self.owed.swap_remove(at)).is_some()
    }

    /// Removes and returns the oldest open ping of this connection, if there is one.
    fn settle_pong(&mut self, connection: ConnectionId) -> Option<Owed> {
        let at = self
            .owed
            .iter()
            .position(|(_, on, what)| *on == connection && !matches!(what, Owed::Response(_)))?;
        Some(self.owed.remove(at).2)
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

/// Logs a frame, without its content.
fn traced(what: &str, number: u64, peer_id: &PeerId, body: &[u8]) {
    let length = body.len();
    log::trace!("{what} {number} of {length} bytes, peer {}", short(peer_id));
}

#[cfg(test)]
mod tests;
