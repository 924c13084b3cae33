use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::identity::Keypair;
use libp2p::swarm::{self, Swarm, SwarmEvent};
use smol::channel::{Sender, bounded};
use smol::future::or;

use std::task::Waker;

use super::*;
use crate::net::admission::{Slot, with_door};
use crate::net::dns::Resolver;
use crate::net::executor::{spawn, waits::block_on, within};
use crate::net::handshakes::Entered;
use crate::net::transport;

const CONFIG: LimitsConfig = LimitsConfig {
    max: 4,
    reserved: 2,
    max_per_peer: 2,
    max_pending: 3,
};

fn limits() -> Limits {
    Limits::new(CONFIG, Places::new(CONFIG.max_pending))
}

fn peer() -> PeerId {
    Keypair::generate_ed25519().public().to_peer_id()
}

fn reserve_slot(limits: &mut Limits, peer: PeerId) -> bool {
    limits.reserve_slot(peer.try_into().unwrap())
}

fn release_slot(limits: &mut Limits, peer: PeerId) {
    limits.release_slot(&peer.try_into().unwrap());
}

fn addr() -> Multiaddr {
    "/ip4/192.0.2.1/tcp/1".parse().unwrap()
}

fn fresh_id() -> ConnectionId {
    thread_local!(static LAST: Cell<usize> = const { Cell::new(0) });
    LAST.set(LAST.get() + 1);
    ConnectionId::new_unchecked(LAST.get())
}

fn cause(denied: ConnectionDenied) -> Refused {
    denied.downcast().unwrap()
}

fn inbound(limits: &mut Limits, peer: PeerId) -> Result<ConnectionId, Refused> {
    let id = fresh_id();
    limits
        .handle_established_inbound_connection(id, peer, &addr(), &addr())
        .map_err(cause)?;
    established(limits, id, peer);
    Ok(id)
}

fn outbound(limits: &mut Limits, peer: PeerId) -> Result<ConnectionId, Refused> {
    let id = fresh_id();
    limits
        .handle_pending_outbound_connection(id, Some(peer), &[], Endpoint::Dialer)
        .map_err(cause)?;
    limits
        .handle_established_outbound_connection(id, peer, &addr(), Endpoint::Dialer, PortUse::New)
        .map_err(cause)?;
    established(limits, id, peer);
    Ok(id)
}

fn endpoint() -> ConnectedPoint {
    ConnectedPoint::Listener {
        local_addr: addr(),
        send_back_addr: addr(),
    }
}

fn established(limits: &mut Limits, connection_id: ConnectionId, peer_id: PeerId) {
    limits.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
        peer_id,
        connection_id,
        endpoint: &endpoint(),
        failed_addresses: &[],
        other_established: 0,
    }));
}

fn close(limits: &mut Limits, connection_id: ConnectionId, peer_id: PeerId, left: usize) {
    limits.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
        peer_id,
        connection_id,
        endpoint: &endpoint(),
        cause: None,
        remaining_established: left,
    }));
}

#[test]
fn last_slots_are_for_peers_with_a_reserved_slot_only() {
    let mut limits = limits();
    let (early, later) = (peer(), peer());
    for _ in 0..2 {
        inbound(&mut limits, peer()).unwrap();
    }
    let refused = Refused::Reserved { reserved: 2 };
    assert_eq!(inbound(&mut limits, early), Err(refused));
    assert!(reserve_slot(&mut limits, early) && reserve_slot(&mut limits, later));
    inbound(&mut limits, early).unwrap();
    release_slot(&mut limits, later);
    assert_eq!(inbound(&mut limits, later), Err(refused));
    reserve_slot(&mut limits, later);
    inbound(&mut limits, later).unwrap();
    let full = Refused::Full { max: 4 };
    assert_eq!(inbound(&mut limits, early), Err(full));
    let begun = limits.handle_pending_inbound_connection(fresh_id(), &addr(), &addr());
    assert_eq!(begun.map_err(cause), Err(full));
    assert_eq!(
        (limits.used(), limits.capacity(), limits.refused()),
        (4, 4, 4)
    );
}

#[test]
fn closed_connections_free_their_slots() {
    let mut limits = limits();
    let peer = peer();
    let first = inbound(&mut limits, peer).unwrap();
    let second = inbound(&mut limits, peer).unwrap();
    close(&mut limits, first, peer, 1);
    let third = inbound(&mut limits, peer).unwrap();
    close(&mut limits, second, peer, 1);
    close(&mut limits, third, peer, 0);
    assert_eq!(limits.used(), 0);
    assert!(limits.per_peer.is_empty());
}

#[test]
fn a_peak_is_remembered_until_it_is_taken() {
    let mut limits = limits();
    let peer = peer();
    let first = inbound(&mut limits, peer).unwrap();
    let second = inbound(&mut limits, peer).unwrap();
    close(&mut limits, first, peer, 1);
    let peak = |limits: &mut Limits| limits.take_peaks()[0];
    assert_eq!(peak(&mut limits), (CONNECTIONS, 2));
    close(&mut limits, second, peer, 0);
    assert_eq!(peak(&mut limits), (CONNECTIONS, 1));
    assert_eq!(peak(&mut limits), (CONNECTIONS, 0));
}

#[test]
fn newest_connections_of_a_peer_displace_its_oldest() {
    let mut limits = limits();
    let (peer, other) = (self::peer(), self::peer());
    reserve_slot(&mut limits, peer);
    let oldest = inbound(&mut limits, peer).unwrap();
    inbound(&mut limits, other).unwrap();
    inbound(&mut limits, peer).unwrap();
    assert!(closing(&mut limits).is_none());
    inbound(&mut limits, peer).unwrap();
    assert_eq!(closing(&mut limits), Some((peer, oldest)));
    assert!(closing(&mut limits).is_none());
    close(&mut limits, oldest, peer, 2);
    assert_eq!(limits.used(), 3);
}

fn closing(limits: &mut Limits) -> Option<(PeerId, ConnectionId)> {
    match limits.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(ToSwarm::CloseConnection {
            peer_id,
            connection: CloseConnection::One(connection),
        }) => Some((peer_id, connection)),
        _ => None,
    }
}

#[test]
fn outbound_connections_count_and_are_refused_at_the_maximum_only() {
    let mut limits = limits();
    let peer = peer();
    for _ in 0..4 {
        outbound(&mut limits, peer).unwrap();
    }
    assert_eq!(outbound(&mut limits, peer), Err(Refused::Full { max: 4 }));
    assert_eq!(limits.used(), 4);
}

/// Takes all places from one source after the other. Returns which sources still have one.
fn crowd(limits: &Limits, sources: &[&str]) -> Vec<bool> {
    let mut places = limits.places.lock();
    let slots: Vec<Slot> = sources.iter().map(|_| Slot::default()).collect();
    let mut stays = vec![true; sources.len()];
    for (index, source) in sources.iter().enumerate() {
        let source = Some(source.parse().unwrap());
        match places.enter(source, slots[index].clone(), Instant::now()) {
            Entered::Waits(_) => {}
            Entered::Displaced(_, slot) => {
                let gone = slots.iter().position(|known| known.is(&slot)).unwrap();
                stays[gone] = false;
            }
        }
    }
    stays
}

#[test]
fn source_of_a_peer_with_a_slot_does_not_give_way_to_strangers() {
    // The peers of these tests are at 192.0.2.1.
    let sources = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
    let mut limits = limits();
    let peer = peer();
    assert_eq!(crowd(&limits, &sources), [false, true, true, true]);

    let mut known = Limits::new(CONFIG, Places::new(3));
    let connection = inbound(&mut known, peer).unwrap();
    reserve_slot(&mut known, peer);
    // The peer is known by its slot, even without a connection.
    close(&mut known, connection, peer, 0);
    assert_eq!(crowd(&known, &sources), [true, false, true, true]);

    for forget in [
        |limits: &mut Limits, peer| release_slot(limits, peer),
        |limits: &mut Limits, _| limits.set_slots(|_| false),
    ] {
        limits = Limits::new(CONFIG, Places::new(3));
        reserve_slot(&mut limits, peer);
        inbound(&mut limits, peer).unwrap();
        forget(&mut limits, peer);
        assert_eq!(crowd(&limits, &sources), [false, true, true, true]);
    }
}

#[test]
fn a_look_at_all_slots_reserves_one_for_each_connected_peer_that_lacks_it() {
    let mut limits = limits();
    let (early, later, stranger) = (peer(), peer(), peer());
    inbound(&mut limits, early).unwrap();
    inbound(&mut limits, stranger).unwrap();
    let reserved = [early, later].map(|peer| protocol::PeerId::try_from(peer).unwrap());
    limits.set_slots(|peer| reserved.contains(peer));
    let slots: Vec<_> = limits.slots.keys().copied().collect();
    assert_eq!(slots, [reserved[0]], "the other one is not connected");
}

#[test]
fn an_ipv6_source_is_a_whole_64() {
    let same = ["/ip6/2001:db8::1/tcp/1", "/ip6/2001:db8::ffff:2/tcp/2"];
    let other = "/ip6/2001:db8:0:1::1/tcp/1";
    let [first, second] = same.map(|addr| source(&addr.parse().unwrap()));
    assert!(first.is_some() && first == second);
    assert_ne!(first, source(&other.parse().unwrap()));
}

#[test]
fn only_inlined_ed25519_ids_connect() {
    let ecdsa_like = PeerId::random();
    let mut limits = limits();
    assert_eq!(inbound(&mut limits, ecdsa_like), Err(Refused::Identity));
    assert_eq!(outbound(&mut limits, ecdsa_like), Err(Refused::Identity));
    assert_eq!((limits.used(), limits.refused()), (0, 2));
}

#[test]
fn reserved_slots_are_bounded() {
    let mut limits = limits();
    let first = peer();
    assert!((0..3).all(|_| reserve_slot(&mut limits, peer())) && reserve_slot(&mut limits, first));
    assert!(!reserve_slot(&mut limits, peer()) && reserve_slot(&mut limits, first));
    release_slot(&mut limits, first);
    assert!(reserve_slot(&mut limits, peer()));
}

fn swarm(config: LimitsConfig) -> Swarm<Limits> {
    let keypair = Keypair::generate_ed25519();
    let stack = transport::build(
        &keypair,
        None,
        Resolver::of_this_thread(),
        Default::default(),
    )
    .unwrap();
    let places = Places::new(config.max_pending);
    let transport = with_door(stack, places.clone());
    let config_of_swarm =
        swarm::Config::with_executor(spawn).with_idle_connection_timeout(Duration::from_secs(60));
    let peer = keypair.public().to_peer_id();
    Swarm::new(
        transport,
        Limits::new(config, places),
        peer,
        config_of_swarm,
    )
}

/// A peer that dials `addr` and stays until what is returned is dropped.
fn client(addr: &Multiaddr) -> Sender<()> {
    let mut swarm = swarm(LimitsConfig::new(4, 0, 4));
    swarm.dial(addr.clone()).unwrap();
    let (stay, gone) = bounded(1);
    spawn(or(
        async move { while swarm.next().await.is_some() {} },
        async move { _ = gone.recv().await },
    ));
    stay
}

/// Runs the swarm until this is so.
async fn eventually(swarm: &mut Swarm<Limits>, what: &str, is_so: impl Fn(&Limits) -> bool) {
    let running = async {
        while !is_so(swarm.behaviour()) {
            swarm.next().await;
        }
    };
    let seen = within(Duration::from_secs(20), running).await;
    assert!(seen.is_some(), "not seen within 20 s: {what}");
}

#[test]
fn swarm_refuses_past_the_maximum_and_takes_the_next_when_one_leaves() {
    block_on(async {
        let mut server = swarm(LimitsConfig::new(1, 0, 1));
        let any = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        server.listen_on(any).unwrap();
        let Some(SwarmEvent::NewListenAddr { address, .. }) = server.next().await else {
            panic!("no address");
        };
        let first = client(&address);
        eventually(&mut server, "the first is connected", |limits| {
            limits.used() == 1
        })
        .await;
        let _second = client(&address);
        eventually(&mut server, "the second is refused", |limits| {
            limits.refused() == 1
        })
        .await;

        drop(first);
        eventually(&mut server, "the first has left", |limits| {
            limits.used() == 0
        })
        .await;
        let _third = client(&address);
        eventually(&mut server, "the third is connected", |limits| {
            limits.used() == 1
        })
        .await;
        let limits = server.behaviour();
        assert_eq!(limits.handshakes().used, 0);
        assert_eq!((limits.per_peer.len(), limits.refused()), (1, 1));
    });
}
