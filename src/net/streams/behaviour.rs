//! The behaviour's side towards the swarm: connections, dials, and events of the handlers.
//!
//! Invariant: what depended on a connection ends with it, and each part of it is reported: leases
//! granted and held, farewells, watches, and answers that were awaited.

use std::{
    io,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr,
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour,
        THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure},
    },
};

use super::{
    Dial, Event, Owed, Streams,
    contact::Health,
    handler::{Command, Handler, Happened},
    traced,
};
use crate::{
    net::{Failure, each::short},
    protocol::{PeerId, Verdict},
};

impl Streams {
    fn take_waiting(&mut self, peer: &PeerId) -> Vec<Command> {
        let (mine, others) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(waiting, _)| waiting == peer);
        self.waiting = others;
        mine.into_iter().map(|(_, command)| command).collect()
    }

    fn connected(&mut self, peer: PeerId, connection: ConnectionId) {
        log::debug!("connected with {}", short(&peer));
        self.contacts.entry(peer).or_default().connected(connection);
        self.dials.retain(|dial| dial.peer != peer);
        for command in self.take_waiting(&peer) {
            self.send(peer, connection, command);
        }
    }

    fn disconnected(&mut self, peer: PeerId, connection: ConnectionId) {
        log::debug!("a connection with {} has ended", short(&peer));
        if let Some(contact) = self.contacts.get_mut(&peer) {
            let lost = contact.take_leases(connection);
            if contact.disconnected(connection) {
                self.contacts.remove(&peer);
            }
            for stream in lost {
                let why = None;
                self.happened(Event::StreamClosed { peer, stream, why });
            }
        }
        let outbound = self.outbound.get_mut(&peer);
        if outbound.is_some_and(|outbound| outbound.lost(connection)) {
            self.outbound.remove(&peer);
            self.happened(Event::LeaseClosed {
                server: peer,
                why: None,
            });
        }
        while let Some(at) = self.leaving.iter().position(|(_, on, _)| *on == connection) {
            let (server, ..) = self.leaving.swap_remove(at);
            self.happened(Event::GaveUp { server });
        }
        self.watches_lost(connection);
        self.asked_on.retain(|_, (_, on)| *on != connection);
        while let Some(at) = self.owed.iter().position(|(_, on, _)| *on == connection) {
            let (peer, _, owed) = self.owed.swap_remove(at);
            let why = Failure::of_stream("the connection was closed");
            self.will_not_come(peer, owed, &why);
        }
    }

    fn dial_failed(&mut self, peer: PeerId, connection: ConnectionId, why: &DialError) {
        let is_it = |dial: &Dial| dial.peer == peer && dial.connection == connection;
        let Some(at) = self.dials.iter().position(is_it) else {
            return;
        };
        self.dials.remove(at);
        // The waiting commands belong to the newest dial, which began when the older ones seemed
        // lost.
        if self.dials.iter().skip(at).any(|later| later.peer == peer) {
            return;
        }
        let why = Failure::of_dial(why, &self.own);
        log::debug!("dial of {} failed: {why}", short(&peer));
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
        connection: ConnectionId,
        peer: libp2p::PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let peer = PeerId::try_from(peer).map_err(ConnectionDenied::new)?;
        Ok(Handler::new(&self.shared, peer, connection, Some(remote)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: libp2p::PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let peer = PeerId::try_from(peer).map_err(ConnectionDenied::new)?;
        Ok(Handler::new(&self.shared, peer, connection, None))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                ..
            }) => {
                if let Ok(peer) = PeerId::try_from(peer_id) {
                    self.connected(peer, connection_id);
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                if let Ok(peer) = PeerId::try_from(peer_id) {
                    self.disconnected(peer, connection_id);
                }
            }
            FromSwarm::DialFailure(DialFailure {
                peer_id: Some(peer),
                error,
                connection_id,
            }) => {
                if let Ok(peer) = PeerId::try_from(peer) {
                    self.dial_failed(peer, connection_id, error);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: libp2p::PeerId,
        connection: ConnectionId,
        happened: THandlerOutEvent<Self>,
    ) {
        let Ok(peer) = PeerId::try_from(peer) else {
            return;
        };
        let event = match happened {
            Happened::StreamClosed { stream, why } => {
                if let Some(contact) = self.contacts.get_mut(&peer) {
                    contact.forget_lease(stream);
                }
                Event::StreamClosed { peer, stream, why }
            }
            Happened::Ack { lease, body } => {
                let outbound = self.outbound.get(&peer);
                let Some(last) = outbound.and_then(|outbound| outbound.last_beat(lease)) else {
                    return;
                };
                traced("got ack", last.sequence, &peer, &body);
                Event::Ack {
                    server: peer,
                    connection,
                    lease,
                    last,
                    body,
                }
            }
            Happened::LeaseClosed { lease, why } => {
                if let Some(at) = self.leaving.iter().position(|(.., left)| *left == lease) {
                    self.leaving.swap_remove(at);
                    Event::GaveUp { server: peer }
                } else if self
                    .outbound
                    .get_mut(&peer)
                    .is_some_and(|outbound| outbound.ended(lease))
                {
                    self.outbound.remove(&peer);
                    Event::LeaseClosed {
                        server: peer,
                        why: why.map(|why| *why),
                    }
                } else {
                    return;
                }
            }
            Happened::Request { id, body } => {
                traced("got request", id.0, &peer, &body);
                self.asked_on.insert(id, (peer, connection));
                Event::Request { peer, id, body }
            }
            Happened::Response { id, body } if self.settle(connection, Owed::Response(id)) => {
                match &body {
                    Ok(body) => {
                        traced("got response", id.0, &peer, body);
                        self.trust(&peer, connection);
                    }
                    Err(why) if why.kind() == io::ErrorKind::TimedOut => {
                        self.suspect(&peer, connection, Health::Doubtful);
                    }
                    Err(_) => {}
                }
                let body = body.map_err(|why| match why.kind() {
                    // It is no text for people.
                    io::ErrorKind::UnexpectedEof => Failure::of_stream("it ended the stream"),
                    io::ErrorKind::TimedOut => Failure::of_stream("it does not answer"),
                    io::ErrorKind::InvalidData => Failure::malformed(why),
                    _ => Failure::of_stream(why),
                });
                Event::Response {
                    server: peer,
                    id,
                    body,
                }
            }
            Happened::Probed { verdict } => {
                let Some(owed) = self.settle_pong(connection) else {
                    return;
                };
                match verdict {
                    Verdict::Reachable => self.trust(&peer, connection),
                    Verdict::Silent => self.suspect(&peer, connection, Health::Doubtful),
                }
                match owed {
                    Owed::PongFor(stream) => Event::StreamProbed {
                        peer,
                        stream,
                        verdict,
                    },
                    Owed::Pong | Owed::Response(_) => Event::Probed { peer, verdict },
                }
            }
            Happened::Response { .. } => return,
            Happened::Unused => {
                log::debug!("closes a connection with {}: it is of no use", short(&peer));
                return self.push(ToSwarm::CloseConnection {
                    peer_id: peer.into(),
                    connection: CloseConnection::One(connection),
                });
            }
            Happened::Malformed { frame, why } => Event::Malformed { peer, frame, why },
            Happened::Watch(event) => match self.watch_happened(peer, connection, *event) {
                Some(event) => event,
                None => return,
            },
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
