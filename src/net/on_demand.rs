//! Handlers that a connection carries only where they are used.
//!
//! A thousand nodes hold leases and take no part in the DHT. For each of their connections, the
//! state of Kademlia and identify would be six of the thirty kilobytes that a connection costs.
//!
//! ```text
//!  connection that we dialled ───────────────────────────────────────────▶ present
//!  connection of a peer ─▶ absent ─first stream of it or Want─▶ Wanted, Attach ─▶ present
//! ```
//!
//! Invariants: the wrapped behaviour knows only the connections that have its handler; what it
//! sends to any connection of a peer goes to one of these; at most [`MAX_WAITING`] streams of a
//! connection wait for the handler; streams that the peer opens do not keep a connection
//! ([`Unheld`]).

mod upgrade;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    task::{self, Context, Poll},
};

use futures_util::future::Either as Output;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished},
        derive_prelude::Either,
        handler::{ConnectionEvent, FullyNegotiatedInbound, ListenUpgradeError, SendWrapper},
    },
};

use self::upgrade::{Name, Named, Unheld, give};
use super::muxer::is_negotiating;

/// Streams that wait for their handler at most. Few are enough, because the behaviour answers
/// within one turn of the loop.
const MAX_WAITING: usize = 4;

/// A behaviour with handlers that exist only where they are used.
pub(crate) struct OnDemand<B: NetworkBehaviour> {
    inner: B,
    protocol: Option<StreamProtocol>,
    /// The connections that have a handler of `inner`.
    carried: HashMap<ConnectionId, (PeerId, ConnectedPoint)>,
    /// Messages to the handlers of connections.
    to_handlers: VecDeque<(PeerId, ConnectionId, ToHandler<THandler<B>>)>,
}

impl<B: NetworkBehaviour> OnDemand<B> {
    /// A connection that the peer dialled gets a handler when the peer opens a stream of
    /// `protocol`.
    pub(crate) fn new(inner: B, protocol: Option<StreamProtocol>) -> Self {
        Self {
            inner,
            protocol,
            carried: HashMap::new(),
            to_handlers: VecDeque::new(),
        }
    }

    /// The behaviour itself.
    pub(crate) fn inner(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Gives the connection a handler, if it has none.
    pub(crate) fn want(&mut self, peer: PeerId, connection: ConnectionId) {
        if !self.carried.contains_key(&connection) {
            self.to_handlers
                .push_back((peer, connection, ToHandler::Want));
        }
    }

    fn carried_by(&self, peer: &PeerId) -> usize {
        self.carried
            .values()
            .filter(|(carrier, _)| carrier == peer)
            .count()
    }

    fn make(&mut self, peer: PeerId, connection: ConnectionId, ends: &Ends) {
        let Ends { local, remote } = ends;
        let made = self
            .inner
            .handle_established_inbound_connection(connection, peer, local, remote);
        let Ok(handler) = made else { return };
        let endpoint = ConnectedPoint::Listener {
            local_addr: local.clone(),
            send_back_addr: remote.clone(),
        };
        self.connected(ConnectionEstablished {
            peer_id: peer,
            connection_id: connection,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        });
        let event = ToHandler::Attach(Box::new(handler));
        self.to_handlers.push_back((peer, connection, event));
    }

    fn connected(&mut self, established: ConnectionEstablished<'_>) {
        let other_established = self.carried_by(&established.peer_id);
        let carrier = (established.peer_id, established.endpoint.clone());
        self.carried.insert(established.connection_id, carrier);
        self.inner
            .on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                other_established,
                ..established
            }));
    }

    fn disconnected(&mut self, closed: ConnectionClosed<'_>) {
        if self.carried.remove(&closed.connection_id).is_some() {
            self.inner
                .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                    remaining_established: self.carried_by(&closed.peer_id),
                    ..closed
                }));
        }
    }

    /// The target of an event: for any connection of the peer, one that has a handler; otherwise
    /// `handler` itself.
    fn aim(&self, peer: &PeerId, handler: NotifyHandler) -> NotifyHandler {
        match handler {
            NotifyHandler::Any => self
                .carried
                .iter()
                .find(|(_, (carrier, _))| carrier == peer)
                .map_or(NotifyHandler::Any, |(&connection, _)| {
                    NotifyHandler::One(connection)
                }),
            one => one,
        }
    }
}

/// The two ends of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    local: Multiaddr,
    remote: Multiaddr,
}

/// The handler, or an [`Absent`] one.
pub(crate) enum OnDemandHandler<H> {
    Absent(Box<Absent>),
    Present(Box<H>),
}

/// Stands in for a handler that does not exist yet.
pub(crate) struct Absent {
    protocol: Option<StreamProtocol>,
    ends: Ends,
    /// Streams of the peer that wait for the handler.
    waiting: Vec<Named>,
    wants: Wants,
}

impl Absent {
    fn accept(&mut self, stream: Named) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push(stream);
            self.want();
        }
    }

    fn want(&mut self) {
        if self.wants == Wants::Nothing {
            self.wants = Wants::Handler;
        }
    }
}

/// The steps of a connection to its handler.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Nothing,
    Handler,
    /// The behaviour has been asked for one.
    Asked,
}

/// What the behaviour tells a connection.
pub(crate) enum ToHandler<H: ConnectionHandler> {
    /// It must have a handler.
    Want,
    /// Its handler.
    Attach(Box<H>),
    /// An event for it; boxed, because the type of every event is a part of every connection.
    Inner(Box<H::FromBehaviour>),
}

impl<H: ConnectionHandler> fmt::Debug for ToHandler<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Want => f.write_str("Want"),
            Self::Attach(_) => f.write_str("Attach"),
            Self::Inner(event) => f.debug_tuple("Inner").field(event).finish(),
        }
    }
}

/// What a connection tells its behaviour.
#[derive(Debug)]
pub(crate) enum FromHandler<T> {
    /// A handler is wanted.
    Wanted(Box<Ends>),
    Inner(Box<T>),
}

impl<H: ConnectionHandler> ConnectionHandler for OnDemandHandler<H> {
    type FromBehaviour = ToHandler<H>;
    type ToBehaviour = FromHandler<H::ToBehaviour>;
    type InboundProtocol =
        Either<Unheld<SendWrapper<H::InboundProtocol>>, Unheld<SendWrapper<Name>>>;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = Either<H::InboundOpenInfo, ()>;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        match self {
            Self::Present(inner) => inner
                .listen_protocol()
                .map_upgrade(|upgrade| Either::Left(Unheld(SendWrapper(upgrade))))
                .map_info(Either::Left),
            Self::Absent(absent) => {
                let name = Name(absent.protocol.clone().filter(|_| is_negotiating()));
                SubstreamProtocol::new(Either::Right(Unheld(SendWrapper(name))), Either::Right(()))
            }
        }
    }

    fn connection_keep_alive(&self) -> bool {
        match self {
            Self::Present(inner) => inner.connection_keep_alive(),
            Self::Absent(absent) => absent.wants != Wants::Nothing,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<
        ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>,
    > {
        match self {
            Self::Present(inner) => inner
                .poll(cx)
                .map(|event| event.map_custom(|event| FromHandler::Inner(Box::new(event)))),
            Self::Absent(absent) if absent.wants == Wants::Handler => {
                absent.wants = Wants::Asked;
                let wanted = FromHandler::Wanted(Box::new(absent.ends.clone()));
                Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(wanted))
            }
            Self::Absent(_) => Poll::Pending,
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        match self {
            Self::Present(inner) => {
                let last = task::ready!(inner.poll_close(cx));
                Poll::Ready(last.map(|event| FromHandler::Inner(Box::new(event))))
            }
            Self::Absent(_) => Poll::Ready(None),
        }
    }

    fn on_behaviour_event(&mut self, event: ToHandler<H>) {
        match (event, &mut *self) {
            (ToHandler::Want, Self::Absent(absent)) => absent.want(),
            (ToHandler::Attach(mut handler), Self::Absent(absent)) => {
                for stream in std::mem::take(&mut absent.waiting) {
                    give(&mut *handler, stream);
                }
                *self = Self::Present(handler);
            }
            (ToHandler::Inner(event), Self::Present(inner)) => inner.on_behaviour_event(*event),
            (ToHandler::Want | ToHandler::Attach(_), Self::Present(_))
            | (ToHandler::Inner(_), Self::Absent(_)) => {}
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        let event = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: Output::Right(stream),
                ..
            }) => {
                return match self {
                    // The negotiation of the stream began before the handler existed.
                    Self::Present(inner) => give(&mut **inner, stream),
                    Self::Absent(absent) => absent.accept(stream),
                };
            }
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: Output::Left(protocol),
                info: Either::Left(info),
            }) => {
                ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info })
            }
            ConnectionEvent::ListenUpgradeError(ListenUpgradeError {
                info: Either::Left(info),
                error: Either::Left(error),
            }) => ConnectionEvent::ListenUpgradeError(ListenUpgradeError { info, error }),
            ConnectionEvent::FullyNegotiatedOutbound(event) => {
                ConnectionEvent::FullyNegotiatedOutbound(event)
            }
            ConnectionEvent::DialUpgradeError(event) => ConnectionEvent::DialUpgradeError(event),
            ConnectionEvent::AddressChange(event) => ConnectionEvent::AddressChange(event),
            ConnectionEvent::LocalProtocolsChange(event) => {
                ConnectionEvent::LocalProtocolsChange(event)
            }
            ConnectionEvent::RemoteProtocolsChange(event) => {
                ConnectionEvent::RemoteProtocolsChange(event)
            }
            _ => return,
        };
        if let Self::Present(inner) = self {
            inner.on_connection_event(event);
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for OnDemand<B> {
    type ConnectionHandler = OnDemandHandler<THandler<B>>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner
            .handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(OnDemandHandler::Absent(Box::new(Absent {
            protocol: self.protocol.clone(),
            ends: Ends {
                local: local.clone(),
                remote: remote.clone(),
            },
            waiting: Vec::new(),
            wants: Wants::Nothing,
        })))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addrs: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner
            .handle_pending_outbound_connection(connection, peer, addrs, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let inner = self
            .inner
            .handle_established_outbound_connection(connection, peer, addr, role, port)?;
        Ok(OnDemandHandler::Present(Box::new(inner)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                if established.endpoint.is_dialer() {
                    self.connected(established);
                }
            }
            FromSwarm::ConnectionClosed(closed) => self.disconnected(closed),
            FromSwarm::AddressChange(change)
                if !self.carried.contains_key(&change.connection_id) => {}
            event => self.inner.on_swarm_event(event),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            FromHandler::Wanted(ends) => self.make(peer, connection, &ends),
            FromHandler::Inner(event) => {
                self.inner
                    .on_connection_handler_event(peer, connection, *event);
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<B::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection, event)) = self.to_handlers.pop_front() {
            return Poll::Ready(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event,
            });
        }
        let event = task::ready!(self.inner.poll(cx));
        let event = event.map_in(|event| ToHandler::Inner(Box::new(event)));
        Poll::Ready(match event {
            ToSwarm::NotifyHandler {
                peer_id,
                handler,
                event,
            } => ToSwarm::NotifyHandler {
                peer_id,
                handler: self.aim(&peer_id, handler),
                event,
            },
            event => event,
        })
    }
}

#[cfg(test)]
mod tests;
