//! Handlers that a connection carries only as long as its peer uses them.
//!
//! A lease is a connection with one heartbeat stream. It must not pay for Kademlia and identify, whose handlers take several
//! kilobytes each, on every one of a thousand connections whose peers never speak them.
//!
//! ```text
//!  inbound connection ─▶ dormant: not polled, says nothing, answers ─stream of the peer, or our own wish─▶ awake
//!                          │                                                                                │
//!                          │ FADE_AFTER without a use              [`Policy::WhenIdle`]: FADE_AFTER idle    │
//!                          ▼                                                                                │
//!                        faded: the handler is gone, its protocols are refused ◀────────────────────────────┘
//! ```
//!
//! Invariants: connections that we dialled are awake from the start and never fade; the wrapped behaviour sees a faded connection as
//! closed, and hears nothing more of it; what it sends to any connection of a peer goes to one that has its handler.
//! There is no timer: a connection fades at the first poll after its time, which a beat brings.

use std::{
    collections::HashMap,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures_util::future::Either as Output;
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse, upgrade::DeniedUpgrade},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished},
        derive_prelude::Either,
        handler::{ConnectionEvent, FullyNegotiatedInbound, ListenUpgradeError, SendWrapper},
    },
};

/// How long an unused handler stays.
const FADE_AFTER: Duration = Duration::from_secs(10);

/// When a handler that was used fades.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Never: who used it once will again.
    Never,
    /// When its peer has opened no stream for [`FADE_AFTER`]: it is used at the beginning.
    WhenIdle,
}

/// A behaviour whose handlers fade.
pub(crate) struct Fade<B> {
    inner: B,
    policy: Policy,
    /// The connections that have a handler of `inner`.
    carried: HashMap<ConnectionId, (PeerId, ConnectedPoint)>,
}

impl<B: NetworkBehaviour> Fade<B> {
    pub(crate) fn new(inner: B, policy: Policy) -> Self {
        Self {
            inner,
            policy,
            carried: HashMap::new(),
        }
    }

    /// The behaviour itself.
    pub(crate) fn inner(&mut self) -> &mut B {
        &mut self.inner
    }

    fn carried_by(&self, peer: &PeerId) -> usize {
        self.carried
            .values()
            .filter(|(carrier, _)| carrier == peer)
            .count()
    }

    fn faded(&mut self, connection: ConnectionId, cause: Option<&libp2p::swarm::ConnectionError>) {
        if let Some((peer, endpoint)) = self.carried.remove(&connection) {
            self.inner
                .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                    peer_id: peer,
                    connection_id: connection,
                    endpoint: &endpoint,
                    cause,
                    remaining_established: self.carried_by(&peer),
                }));
        }
    }

    /// The peer's connection that has a handler, if the one that any event goes to need not.
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

/// The handler, while the connection carries it.
pub(crate) struct Handler<H> {
    inner: Option<Box<H>>,
    policy: Policy,
    awake: bool,
    fades: Option<Instant>,
}

impl<H> Handler<H> {
    fn dormant(inner: H, policy: Policy) -> Self {
        Self {
            inner: Some(Box::new(inner)),
            policy,
            awake: false,
            fades: Some(Instant::now() + FADE_AFTER),
        }
    }

    fn awake(inner: H, policy: Policy) -> Self {
        Self {
            inner: Some(Box::new(inner)),
            policy,
            awake: true,
            fades: None,
        }
    }

    /// The peer, or the behaviour, uses the handler.
    fn used(&mut self) {
        self.awake = true;
        if self.fades.is_some() {
            self.fades = match self.policy {
                Policy::Never => None,
                Policy::WhenIdle => Some(Instant::now() + FADE_AFTER),
            };
        }
    }
}

/// What a handler tells its behaviour.
#[derive(Debug)]
pub(crate) enum Happened<T> {
    /// It is gone.
    Faded,
    /// Boxed: the type of every event is a part of every connection.
    Inner(Box<T>),
}

impl<H: ConnectionHandler> ConnectionHandler for Handler<H> {
    type FromBehaviour = Box<H::FromBehaviour>;
    type ToBehaviour = Happened<H::ToBehaviour>;
    type InboundProtocol = Either<SendWrapper<H::InboundProtocol>, SendWrapper<DeniedUpgrade>>;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = Either<H::InboundOpenInfo, ()>;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        match &self.inner {
            Some(inner) => inner
                .listen_protocol()
                .map_upgrade(|upgrade| Either::Left(SendWrapper(upgrade)))
                .map_info(Either::Left),
            None => {
                SubstreamProtocol::new(Either::Right(SendWrapper(DeniedUpgrade)), Either::Right(()))
            }
        }
    }

    fn connection_keep_alive(&self) -> bool {
        self.awake
            && self
                .inner
                .as_ref()
                .is_some_and(|inner| inner.connection_keep_alive())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<
        ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>,
    > {
        let Some(inner) = &mut self.inner else {
            return Poll::Pending;
        };
        if self.fades.is_some_and(|at| at <= Instant::now()) {
            self.inner = None;
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Happened::Faded));
        }
        if !self.awake {
            return Poll::Pending;
        }
        inner
            .poll(cx)
            .map(|event| event.map_custom(|event| Happened::Inner(Box::new(event))))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        match &mut self.inner {
            Some(inner) => Poll::Ready(
                ready!(inner.poll_close(cx)).map(|event| Happened::Inner(Box::new(event))),
            ),
            None => Poll::Ready(None),
        }
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        if let Some(inner) = &mut self.inner {
            inner.on_behaviour_event(*event);
            // Identify tells every handler of a changed address: that is no use of it.
            if self.policy == Policy::Never {
                self.used();
            }
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
        if matches!(event, ConnectionEvent::FullyNegotiatedInbound(_)) && self.inner.is_some() {
            self.used();
        }
        let Some(inner) = &mut self.inner else { return };
        inner.on_connection_event(match event {
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
            ConnectionEvent::FullyNegotiatedInbound(_) | ConnectionEvent::ListenUpgradeError(_) => {
                return;
            }
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
        });
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Fade<B> {
    type ConnectionHandler = Handler<THandler<B>>;
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
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let inner = self
            .inner
            .handle_established_inbound_connection(connection, peer, local, remote)?;
        Ok(Handler::dormant(inner, self.policy))
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
        Ok(Handler::awake(inner, self.policy))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let other_established = self.carried_by(&established.peer_id);
                let carrier = (established.peer_id, established.endpoint.clone());
                self.carried.insert(established.connection_id, carrier);
                self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(
                    ConnectionEstablished {
                        other_established,
                        ..established
                    },
                ));
            }
            FromSwarm::ConnectionClosed(closed) => self.faded(closed.connection_id, closed.cause),
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
            Happened::Faded => self.faded(connection, None),
            Happened::Inner(event) => self
                .inner
                .on_connection_handler_event(peer, connection, *event),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<B::ToSwarm, THandlerInEvent<Self>>> {
        let event = ready!(self.inner.poll(cx)).map_in(Box::new);
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
mod tests {
    use std::task::Waker;

    use libp2p::{identity::Keypair, swarm::dummy};

    use super::*;

    fn polled(handler: &mut Handler<dummy::ConnectionHandler>) -> bool {
        let event = handler.poll(&mut Context::from_waker(Waker::noop()));
        matches!(
            event,
            Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Happened::Faded))
        )
    }

    fn long_ago() -> Option<Instant> {
        Some(Instant::now())
    }

    #[test]
    fn an_unused_handler_fades_when_its_time_has_come_and_not_before() {
        let mut handler = Handler::dormant(dummy::ConnectionHandler, Policy::Never);
        assert!(!polled(&mut handler));
        assert!(handler.inner.is_some());
        handler.fades = long_ago();
        assert!(polled(&mut handler));
        assert!(handler.inner.is_none());
        assert!(!polled(&mut handler), "it says so once");
    }

    #[test]
    fn who_used_it_once_keeps_it_or_loses_it_when_idle_as_the_policy_says() {
        for (policy, fades) in [(Policy::Never, false), (Policy::WhenIdle, true)] {
            let mut handler = Handler::dormant(dummy::ConnectionHandler, policy);
            handler.used();
            assert!(handler.awake);
            assert_eq!(handler.fades.is_some(), fades);
            assert!(!polled(&mut handler));
            handler.fades = handler.fades.and(long_ago());
            assert_eq!(polled(&mut handler), fades);
        }
    }

    #[test]
    fn a_handler_of_a_connection_that_we_dialled_never_fades() {
        let mut handler = Handler::awake(dummy::ConnectionHandler, Policy::WhenIdle);
        handler.used();
        assert_eq!(handler.fades, None);
    }

    #[test]
    fn events_for_any_connection_go_to_one_that_has_its_handler() {
        let mut fade = Fade::new(dummy::Behaviour, Policy::Never);
        let peer = Keypair::generate_ed25519().public().to_peer_id();
        let endpoint = ConnectedPoint::Listener {
            local_addr: Multiaddr::empty(),
            send_back_addr: Multiaddr::empty(),
        };
        let [first, second] = [1, 2].map(ConnectionId::new_unchecked);
        for connection_id in [first, second] {
            fade.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer,
                connection_id,
                endpoint: &endpoint,
                failed_addresses: &[],
                other_established: 0,
            }));
        }
        assert_eq!(fade.carried_by(&peer), 2);
        fade.on_connection_handler_event(peer, first, Happened::Faded);
        assert!(
            matches!(fade.aim(&peer, NotifyHandler::Any), NotifyHandler::One(c) if c == second)
        );
        fade.on_connection_handler_event(peer, second, Happened::Faded);
        assert_eq!(fade.carried_by(&peer), 0);
        assert!(matches!(
            fade.aim(&peer, NotifyHandler::Any),
            NotifyHandler::Any
        ));
    }
}
