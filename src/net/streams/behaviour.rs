//! The behaviour towards the swarm: who connected, what the connections tell.

use std::task::{Context, Poll};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure},
    },
};

use super::{
    Event, Owed, Streams,
    handler::{Command, Handler, Happened},
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
        while let Some(at) = self.leaving.iter().position(|(_, on, _)| *on == connection) {
            let (server, ..) = self.leaving.swap_remove(at);
            self.happened(Event::GaveUp { server });
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
            Happened::Ack { lease, body } => match self.outbound.get(&peer) {
                Some(outbound) if outbound.lease == lease => Event::Ack {
                    server: peer,
                    sequence: outbound.next.saturating_sub(1),
                    awaited: outbound.awaited,
                    body,
                },
                _ => return,
            },
            Happened::LeaseClosed { lease } => {
                if let Some(at) = self.leaving.iter().position(|(.., left)| *left == lease) {
                    self.leaving.swap_remove(at);
                    Event::GaveUp { server: peer }
                } else if self
                    .outbound
                    .get(&peer)
                    .is_some_and(|outbound| outbound.lease == lease)
                {
                    self.outbound.remove(&peer);
                    Event::LeaseClosed { server: peer }
                } else {
                    return;
                }
            }
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
