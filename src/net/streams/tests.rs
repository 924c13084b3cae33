//! The behaviour without a network: what it asks of the swarm, and which events follow the swarm's
//! answers.

use std::task::{Context, Poll, Waker};

use libp2p::{
    Multiaddr,
    core::{ConnectedPoint, Endpoint, UpgradeInfo, transport::PortUse},
    identity::Keypair,
    swarm::{
        ConnectionHandler, ConnectionId, DialError, FromSwarm, NetworkBehaviour, NotifyHandler,
        ToSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure},
    },
};

use super::{
    handler::{Command, Handler, Happened},
    mailbox::{Arrived, BeatFrame, Outbox},
    *,
};
use crate::net::muxer;

struct World {
    streams: Streams,
    peer: PeerId,
}

/// An output of the behaviour: a dial, a command to a connection, or an event.
type Out = ToSwarm<Event, Command>;

impl World {
    fn new() -> Self {
        Self {
            streams: Streams::new(
                &Keypair::generate_ed25519().public(),
                true,
                StreamProtocol::new("/kad"),
                Duration::from_secs(10),
            ),
            peer: PeerId::from_bytes([1; 32]),
        }
    }

    fn out(&mut self) -> Vec<Out> {
        let mut all = Vec::new();
        while let Poll::Ready(out) = self.streams.poll(&mut cx()) {
            all.push(out);
        }
        all
    }

    fn endpoint() -> ConnectedPoint {
        ConnectedPoint::Dialer {
            address: Multiaddr::empty(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::New,
        }
    }

    fn connect(&mut self, connection: usize) {
        self.streams
            .on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: self.peer.into(),
                connection_id: ConnectionId::new_unchecked(connection),
                endpoint: &Self::endpoint(),
                failed_addresses: &[],
                other_established: 0,
            }));
    }

    fn disconnect(&mut self, connection: usize) {
        self.streams
            .on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id: self.peer.into(),
                connection_id: ConnectionId::new_unchecked(connection),
                endpoint: &Self::endpoint(),
                cause: None,
                remaining_established: 0,
            }));
    }

    fn dial_fails(&mut self, connection: ConnectionId) {
        self.streams
            .on_swarm_event(FromSwarm::DialFailure(DialFailure {
                peer_id: Some(self.peer.into()),
                error: &DialError::NoAddresses,
                connection_id: connection,
            }));
    }

    fn tells(&mut self, connection: usize, happened: Happened) {
        let connection = ConnectionId::new_unchecked(connection);
        self.streams
            .on_connection_handler_event(self.peer.into(), connection, happened);
    }

    /// Delivers the first beat of a stream. Returns the outbox for its acks.
    fn beats(&mut self, connection: usize, stream: StreamId) -> Outbox {
        let frame = BeatFrame {
            peer: self.peer,
            connection: ConnectionId::new_unchecked(connection),
            stream,
            sequence: 0,
            body: Vec::new(),
        };
        let outbox = Outbox::default();
        let arrived = Arrived {
            frame,
            outbox: outbox.clone(),
        };
        self.streams.shared.arrivals.push(arrived);
        outbox
    }

    fn read(&mut self) -> Option<StreamId> {
        match self.streams.poll_beat(&mut cx()) {
            Poll::Ready((frame, _)) => Some(frame.stream),
            Poll::Pending => None,
        }
    }

    fn beat(&mut self) {
        let encode = |_| Vec::new();
        self.streams.beat(self.peer, Vec::new(), false, encode);
    }

    /// Sends a beat that must go over a new connection.
    fn beat_fresh(&mut self) {
        let encode = |_| Vec::new();
        self.streams.beat(self.peer, Vec::new(), true, encode);
    }
}

mod silent;
mod twins;

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn dials(out: &[Out]) -> Vec<ConnectionId> {
    let dial = |out: &Out| match out {
        ToSwarm::Dial { opts } => Some(opts.connection_id()),
        _ => None,
    };
    out.iter().filter_map(dial).collect()
}

fn events(out: Vec<Out>) -> Vec<Event> {
    let event = |out| match out {
        ToSwarm::GenerateEvent(event) => Some(event),
        _ => None,
    };
    out.into_iter().filter_map(event).collect()
}

fn on_connection(out: &[Out]) -> Vec<usize> {
    let connection = |out: &Out| match out {
        ToSwarm::NotifyHandler {
            handler: NotifyHandler::One(connection),
            ..
        } => Some(*connection),
        _ => None,
    };
    let order = |id: ConnectionId| (0..9).find(|n| ConnectionId::new_unchecked(*n) == id);
    out.iter()
        .filter_map(connection)
        .filter_map(order)
        .collect()
}

#[test]
fn everything_for_one_peer_waits_for_one_dial() {
    let mut world = World::new();
    world.beat();
    world.streams.probe(world.peer, Vec::new());
    world
        .streams
        .request(world.peer, Vec::new(), OwnRequestId(1), Vec::new());
    assert_eq!(dials(&world.out()).len(), 1);
    world.connect(3);
    assert_eq!(on_connection(&world.out()), [3, 3, 3]);
}

#[test]
fn a_dial_that_fails_ends_each_thing_that_waited_once() {
    let mut world = World::new();
    world.beat();
    world.streams.probe(world.peer, Vec::new());
    world
        .streams
        .request(world.peer, Vec::new(), OwnRequestId(1), Vec::new());
    let dial = dials(&world.out())[0];
    world.dial_fails(ConnectionId::new_unchecked(usize::MAX));
    assert!(world.out().is_empty(), "that was a dial of Kademlia");
    world.dial_fails(dial);
    world.dial_fails(dial);
    let events = events(world.out());
    assert!(matches!(
        events[..],
        [
            Event::LeaseClosed { .. },
            Event::Probed {
                verdict: Verdict::Silent,
                ..
            },
            Event::Response {
                id: OwnRequestId(1),
                body: Err(_),
                ..
            }
        ]
    ));
    assert!(world.streams.waiting.is_empty() && world.streams.dials.is_empty());
    world.beat();
    assert_eq!(dials(&world.out()).len(), 1, "the next beat dials anew");
}

#[test]
fn a_peer_that_comes_by_itself_is_not_waited_for() {
    let mut world = World::new();
    world.beat();
    let dial = dials(&world.out())[0];
    world.connect(1);
    assert_eq!(on_connection(&world.out()), [1]);
    world.dial_fails(dial);
    assert!(
        world.out().is_empty(),
        "our own dial does not matter any more"
    );
}

#[test]
fn the_newest_connection_is_used_and_a_lease_stays_where_it_is() {
    let mut world = World::new();
    world.connect(1);
    world.beat();
    world.connect(2);
    world.streams.probe(world.peer, Vec::new());
    world.beat();
    assert_eq!(on_connection(&world.out()), [1, 2, 1]);
    world.disconnect(1);
    let closed = events(world.out());
    assert!(matches!(closed[..], [Event::LeaseClosed { .. }]));
    world.beat();
    assert_eq!(on_connection(&world.out()), [2]);
}

#[test]
fn a_connection_that_closes_ends_all_that_was_on_it_and_leaves_nothing() {
    let mut world = World::new();
    world.connect(1);
    world.beat();
    world.streams.probe(world.peer, Vec::new());
    world
        .streams
        .request(world.peer, Vec::new(), OwnRequestId(1), Vec::new());
    world.beats(1, StreamId(1));
    assert_eq!(world.read(), Some(StreamId(1)));
    let (id, body) = (RequestId(9), Vec::new());
    world.tells(1, Happened::Request { id, body });
    world.out();
    world.disconnect(1);
    let events = events(world.out());
    assert_eq!(events.len(), 4, "{events:?}");
    let left = &world.streams;
    assert!(left.contacts.is_empty() && left.outbound.is_empty());
    assert!(left.owed.is_empty() && left.asked_on.is_empty() && left.leaving.is_empty());
}

#[test]
fn a_lease_given_up_ends_even_if_its_connection_closes_first() {
    let mut world = World::new();
    world.connect(1);
    world.beat();
    world.streams.give_up(world.peer, |_| Vec::new());
    world.out();
    world.disconnect(1);
    let ends = events(world.out());
    assert!(matches!(ends[..], [Event::GaveUp { .. }]), "{ends:?}");
    world.streams.give_up(world.peer, |_| Vec::new());
    let ends = events(world.out());
    assert!(
        matches!(ends[..], [Event::GaveUp { .. }]),
        "nothing was held"
    );
}

#[test]
fn late_words_of_an_older_lease_touch_nothing() {
    let mut world = World::new();
    world.connect(1);
    world.beat();
    world.streams.drop_lease(world.peer);
    world.beat();
    world.out();
    let body = Vec::new();
    world.tells(1, Happened::Ack { lease: 1, body });
    world.tells(
        1,
        Happened::LeaseClosed {
            lease: 1,
            why: None,
        },
    );
    assert!(world.out().is_empty());
    let body = Vec::new();
    world.tells(1, Happened::Ack { lease: 2, body });
    let acks = events(world.out());
    assert!(matches!(acks[..], [Event::Ack { last, .. }] if last.is_awaited));
}

#[test]
fn the_end_of_an_older_stream_leaves_the_newer_answerable() {
    let mut world = World::new();
    world.connect(1);
    world.connect(2);
    let [older, newer] = [(1, StreamId(1)), (2, StreamId(2))].map(|(connection, stream)| {
        let outbox = world.beats(connection, stream);
        assert_eq!(world.read(), Some(stream));
        outbox
    });
    let stream = StreamId(1);
    let why = None;
    world.tells(1, Happened::StreamClosed { stream, why });
    world
        .streams
        .ack(&world.peer, StreamId(2), b"2", AckKind::Answer);
    world
        .streams
        .ack(&world.peer, StreamId(1), b"1", AckKind::Answer);
    assert_eq!(newer.take(&mut cx()).bytes, b"\x012");
    assert!(older.take(&mut cx()).bytes.is_empty());
}

#[test]
fn what_is_said_unasked_follows_the_last_beat() {
    let mut world = World::new();
    world.connect(1);
    let outbox = world.beats(1, StreamId(1));
    let encode = |sequence| vec![b'0' + sequence as u8];
    world.streams.tell(&world.peer, StreamId(1), encode);
    assert!(
        outbox.take(&mut cx()).bytes.is_empty(),
        "its beat was not read"
    );
    world.read();
    world.streams.tell(&world.peer, StreamId(1), encode);
    let mail = outbox.take(&mut cx());
    assert_eq!(mail.bytes, b"\x010");
    assert!(!mail.answers, "the next beat waits for its ack still");
}

#[test]
fn beats_of_a_peer_that_is_gone_are_dropped() {
    let mut world = World::new();
    world.connect(1);
    world.beats(1, StreamId(1));
    world.disconnect(1);
    assert_eq!(world.read(), None);
    assert!(world.streams.contacts.is_empty());
}

#[test]
fn who_waits_for_connections_is_bounded() {
    let mut world = World::new();
    for n in 0..MAX_WAITING as u64 + 1 {
        let peer = PeerId::from_bytes([n as u8; 32]);
        world
            .streams
            .request(peer, Vec::new(), OwnRequestId(n), Vec::new());
    }
    let refused = events(world.out());
    assert!(matches!(
        refused[..],
        [Event::Response {
            id: OwnRequestId(128),
            body: Err(_),
            ..
        }]
    ));
}

/// How many protocols the handler of a connection names to the swarm.
fn named(handler: &Handler) -> usize {
    handler.listen_protocol().upgrade().protocol_info().count()
}

#[test]
fn a_connection_of_a_peer_names_its_protocols_only_for_a_stream() {
    let mut world = World::new();
    let (id, addr) = (ConnectionId::new_unchecked, Multiaddr::empty());
    let peer = world.peer.into();
    let theirs = world
        .streams
        .handle_established_inbound_connection(id(1), peer, &addr, &addr)
        .unwrap();
    let (role, port) = (Endpoint::Dialer, PortUse::New);
    let ours = world
        .streams
        .handle_established_outbound_connection(id(2), peer, &addr, role, port)
        .unwrap();
    assert_eq!((named(&theirs), named(&ours)), (5, 4));
    muxer::end_turn();
    assert_eq!((named(&theirs), named(&ours)), (0, 4));
}

/// A connection has room for an event in its task, in a message and in a queue.
#[test]
fn an_event_of_a_connection_is_small() {
    assert!(size_of::<Happened>() <= 40, "{}", size_of::<Happened>());
}
