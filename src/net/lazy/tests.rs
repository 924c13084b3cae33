use std::task::Waker;

use libp2p::{identity::Keypair, swarm::dummy};

use super::*;

fn peer() -> PeerId {
    Keypair::generate_ed25519().public().to_peer_id()
}

fn lazy() -> Lazy<dummy::Behaviour> {
    Lazy::new(dummy::Behaviour, Some(StreamProtocol::new("/test")))
}

fn addr() -> Multiaddr {
    "/ip4/192.0.2.1/tcp/1".parse().unwrap()
}

fn id(n: usize) -> ConnectionId {
    ConnectionId::new_unchecked(n)
}

fn inbound(lazy: &mut Lazy<dummy::Behaviour>, n: usize) -> Handler<dummy::ConnectionHandler> {
    lazy.handle_established_inbound_connection(id(n), peer(), &addr(), &addr())
        .unwrap()
}

fn poll(
    handler: &mut Handler<dummy::ConnectionHandler>,
) -> Option<Happened<std::convert::Infallible>> {
    match handler.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(happened)) => Some(happened),
        _ => None,
    }
}

/// What the behaviour tells a connection next.
fn told(
    lazy: &mut Lazy<dummy::Behaviour>,
) -> Option<(NotifyHandler, Told<dummy::ConnectionHandler>)> {
    match lazy.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ToSwarm::NotifyHandler { handler, event, .. }) => Some((handler, event)),
        _ => None,
    }
}

#[test]
fn a_connection_of_a_peer_gets_its_handler_when_wanted_and_once() {
    let mut lazy = lazy();
    let (peer, mut handler) = (peer(), inbound(&mut lazy, 1));
    assert!(poll(&mut handler).is_none() && !handler.connection_keep_alive());
    lazy.want(peer, id(1));
    let (_, want) = told(&mut lazy).unwrap();
    handler.on_behaviour_event(want);
    let wanted = poll(&mut handler).unwrap();
    assert!(poll(&mut handler).is_none(), "it asks once");
    lazy.on_connection_handler_event(peer, id(1), wanted);
    assert!(lazy.carried.contains_key(&id(1)));
    let (to, attach) = told(&mut lazy).unwrap();
    assert!(matches!(to, NotifyHandler::One(one) if one == id(1)));
    handler.on_behaviour_event(attach);
    assert!(matches!(handler, Handler::Present(_)));
    lazy.want(peer, id(1));
    assert!(told(&mut lazy).is_none());
}

#[test]
fn the_behaviour_knows_connections_with_a_handler_only() {
    let mut lazy = lazy();
    let (listener, dialer) = (
        ConnectedPoint::Listener {
            local_addr: addr(),
            send_back_addr: addr(),
        },
        ConnectedPoint::Dialer {
            address: addr(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::New,
        },
    );
    let peer = peer();
    for (n, endpoint) in [(1, &listener), (2, &dialer)] {
        lazy.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: id(n),
            endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
    }
    assert_eq!(lazy.carried.keys().collect::<Vec<_>>(), [&id(2)]);
    let any = lazy.aim(&peer, NotifyHandler::Any);
    assert!(matches!(any, NotifyHandler::One(one) if one == id(2)));
    lazy.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
        peer_id: peer,
        connection_id: id(2),
        endpoint: &dialer,
        cause: None,
        remaining_established: 1,
    }));
    assert!(lazy.carried.is_empty());
}
