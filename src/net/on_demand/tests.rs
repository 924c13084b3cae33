use std::task::Waker;

use libp2p::{core::UpgradeInfo, identity::Keypair, swarm::dummy};

use super::*;
use crate::net::muxer;

fn peer() -> PeerId {
    Keypair::generate_ed25519().public().to_peer_id()
}

fn on_demand() -> OnDemand<dummy::Behaviour> {
    OnDemand::new(dummy::Behaviour, Some(StreamProtocol::new("/test")))
}

fn addr() -> Multiaddr {
    "/ip4/192.0.2.1/tcp/1".parse().unwrap()
}

fn id(n: usize) -> ConnectionId {
    ConnectionId::new_unchecked(n)
}

fn inbound(
    on_demand: &mut OnDemand<dummy::Behaviour>,
    n: usize,
) -> OnDemandHandler<dummy::ConnectionHandler> {
    on_demand
        .handle_established_inbound_connection(id(n), peer(), &addr(), &addr())
        .unwrap()
}

fn poll(
    handler: &mut OnDemandHandler<dummy::ConnectionHandler>,
) -> Option<FromHandler<std::convert::Infallible>> {
    match handler.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(happened)) => Some(happened),
        _ => None,
    }
}

/// The next message of the behaviour to a connection.
fn sent(
    on_demand: &mut OnDemand<dummy::Behaviour>,
) -> Option<(NotifyHandler, ToHandler<dummy::ConnectionHandler>)> {
    match on_demand.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ToSwarm::NotifyHandler { handler, event, .. }) => Some((handler, event)),
        _ => None,
    }
}

#[test]
fn a_connection_of_a_peer_gets_its_handler_when_wanted_and_once() {
    let mut on_demand = on_demand();
    let (peer, mut handler) = (peer(), inbound(&mut on_demand, 1));
    assert!(poll(&mut handler).is_none() && !handler.connection_keep_alive());
    on_demand.want(peer, id(1));
    let (_, want) = sent(&mut on_demand).unwrap();
    handler.on_behaviour_event(want);
    let wanted = poll(&mut handler).unwrap();
    assert!(poll(&mut handler).is_none(), "it asks once");
    on_demand.on_connection_handler_event(peer, id(1), wanted);
    assert!(on_demand.carried.contains_key(&id(1)));
    let (to, attach) = sent(&mut on_demand).unwrap();
    assert!(matches!(to, NotifyHandler::One(one) if one == id(1)));
    handler.on_behaviour_event(attach);
    assert!(matches!(handler, OnDemandHandler::Present(_)));
    on_demand.want(peer, id(1));
    assert!(sent(&mut on_demand).is_none());
}

#[test]
fn the_behaviour_knows_connections_with_a_handler_only() {
    let mut on_demand = on_demand();
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
        on_demand.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: id(n),
            endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
    }
    assert_eq!(on_demand.carried.keys().collect::<Vec<_>>(), [&id(2)]);
    let any = on_demand.aim(&peer, NotifyHandler::Any);
    assert!(matches!(any, NotifyHandler::One(one) if one == id(2)));
    on_demand.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
        peer_id: peer,
        connection_id: id(2),
        endpoint: &dialer,
        cause: None,
        remaining_established: 1,
    }));
    assert!(on_demand.carried.is_empty());
}

#[test]
fn a_connection_without_a_handler_names_its_protocol_only_for_a_stream() {
    let handler = inbound(&mut on_demand(), 1);
    let named = || match handler.listen_protocol().into_upgrade().0 {
        Either::Right(name) => name.0.0.protocol_info().count(),
        Either::Left(_) => unreachable!("it has no handler"),
    };
    assert_eq!(named(), 1);
    muxer::end_turn();
    assert_eq!(named(), 0);
}

/// A connection has room for an event in its task, in a message and in a queue.
#[test]
fn an_event_of_a_connection_is_small() {
    assert!(size_of::<FromHandler<[u8; 1000]>>() <= 2 * size_of::<usize>());
}
