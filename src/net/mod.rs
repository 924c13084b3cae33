//! libp2p. No module above this one uses it.
//!
//! `Net` is the swarm with its behaviours. It passes events up, with their content decoded and
//! verified (beats and responses are passed as frames), and carries out the actions of the core. It
//! decides only what to drop: invalid frames, and records with an invalid signature.
//!
//! | file | what it is for |
//! |---|---|
//! | `tcp`, `dns`, `race`, `transport`, `muxer`, `goaway` | connections |
//! | `greeting`, `refusals` | what is wrong with a handshake |
//! | `limits`, `admission`, `handshakes` | how many of them, and which give way |
//! | `streams` | heartbeat, directory and ping streams |
//! | `on_demand` | handlers only where they are used |
//! | `dht`, `records`, `store`, `providers` | Kademlia |
//! | `netlink`, `changes` | which addresses the host has, and what ends with one |
//! | `addrs` | which of them are announced |
//! | `scope`, `announce` | where a peer is, and which addresses it is told |
//! | `grants`, `members` | what a closed network's key signs, and which peers take part in its DHT |
//! | [`envelope`], [`frames`] | the keys of libp2p and its streams under the core's codec |
//! | [`convert`], `events` | the core's words for libp2p's types, and for what happened |
//! | `dial_back` | connections to peers that want to know whether they can be reached |
//! | `failure` | why a server was not reached, in words |
//! | `file` | files that may be pipes |
//! | `executor` | the one executor, and the sockets that it waits for |

pub(crate) mod addrs;
mod admission;
mod announce;
mod changes;
mod claims;
pub(crate) mod convert;
mod counted;
pub(crate) mod dht;
mod dial_back;
pub(crate) mod dns;
pub(crate) mod each;
pub(crate) mod envelope;
mod events;
pub(crate) mod executor;
mod failure;
pub(crate) mod file;
pub(crate) mod frames;
pub(crate) mod goaway;
#[cfg(feature = "program")]
pub(crate) mod grants;
mod greeting;
mod handshakes;
pub(crate) mod joiner;
pub(crate) mod limits;
#[cfg(feature = "mdns")]
pub(crate) mod mdns;
mod members;
mod muxer;
pub(crate) mod netlink;
mod on_demand;
pub(crate) mod pace;
mod providers;
mod race;
mod records;
mod refusals;
mod scope;
pub(crate) mod store;
mod streams;
pub(crate) mod tcp;
pub(crate) mod transport;
pub(crate) mod undialable;
mod watching;

use std::{
    collections::HashMap,
    future::poll_fn,
    io,
    num::{NonZeroU8, NonZeroUsize},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::StreamExt;
use libp2p::{
    Multiaddr, Swarm, TransportError, identify,
    identity::Keypair,
    pnet::PreSharedKey,
    swarm::{self, ConnectionId, NetworkBehaviour, behaviour::toggle::Toggle},
};

pub(crate) use self::counted::counted;
pub(crate) use self::members::Shown;
pub(crate) use self::race::own_subnets;
pub(crate) use self::refusals::{Refusal, Why};
pub(crate) use self::scope::is_for_this_host;
use self::{
    addrs::{Addresses, Announce},
    admission::{Places, with_door},
    changes::Changes,
    dht::{Dht, Kademlia},
    dial_back::DialBacks,
    frames::encoded,
    limits::{CONNECTIONS, Limits, LimitsConfig},
    members::Members,
    netlink::Host,
    on_demand::OnDemand,
    refusals::Refusals,
    scope::Scope,
    streams::Streams,
};
pub(crate) use self::{
    dial_back::DialEnd,
    events::{Frame, NetEvent},
    failure::{Failure, FailureKind, UNREACHABLE},
    scope::multiaddrs,
};
use crate::protocol::{
    self, Ack, Addrs, OutBeat, RequestId, Role, StreamId, TableStats,
    address::TransportAddr,
    codec::{
        directory::{Request, Response, encode_request, encode_response},
        frame::MAX_FRAME,
        heartbeat::{WallReading, encode_ack, encode_beat},
    },
};

pub(crate) use streams::{BEATS_A_SECOND, BeatFrame, OwnRequestId, WatchEvent};

/// The target of log lines that a peer can cause and that name the peer. The same line is logged at
/// most once a minute (`daemon::logging`, and [`each!`] of an embedded node).
pub(crate) const EACH: &str = "oc_discovery::each";

/// How long an opened heartbeat stream may wait for its first beat.
pub(crate) const FIRST_BEAT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an unused connection stays open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// One in this many connections is kept for natives and for peers that hold a lease.
const RESERVED_SHARE: usize = 8;
/// How often identify asks again. Changes in between are pushed.
const IDENTIFY_INTERVAL: Duration = Duration::from_secs(3600);

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Behaviour {
    // It comes first, so that it refuses a connection before the others allocate memory for it.
    limits: Limits,
    streams: Streams,
    peering: OnDemand<Peering>,
}

/// Carried by connections with peers that take part in the DHT, and with peers that we dial.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Peering {
    identify: identify::Behaviour,
    kademlia: Toggle<Kademlia>,
}

impl Behaviour {
    /// Kademlia, if this role takes part in the DHT.
    fn kademlia(&mut self) -> Option<&mut Kademlia> {
        self.peering.inner().kademlia.as_mut()
    }
}

/// The sizes of the tables of the network side, and its time limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetBounds {
    /// Connections at most.
    pub(crate) connections: usize,
    /// Inbound connections during their handshake, at most.
    pub(crate) handshakes: usize,
    /// Records in the DHT store at most.
    pub(crate) dht_records: usize,
    /// Providers in it at most.
    pub(crate) dht_providers: usize,
    /// How long an opened heartbeat stream may wait for its first beat.
    pub(crate) first_beat: Duration,
}

/// The swarm.
pub(crate) struct Net {
    swarm: Swarm<Behaviour>,
    dht: Dht,
    addresses: Addresses,
    announced: Vec<Multiaddr>,
    /// The known native, if there is only one. The address that it observes needs no second
    /// witness.
    only_native: Option<protocol::PeerId>,
    scope: Scope,
    /// Where each connection leads or comes from.
    sources: HashMap<ConnectionId, TransportAddr>,
    changes: Changes,
    /// Handshakes that failed, not reported yet.
    refusals: Refusals,
    back: DialBacks,
    /// The dials that show where servers of the DHT are.
    checks: Vec<claims::Check>,
    members: Members,
}

impl Net {
    /// Makes a swarm that does not listen yet. Nodes serve no other peers and take no part in the
    /// DHT.
    pub(crate) fn new(
        key: &Keypair,
        role: Role,
        psk: Option<PreSharedKey>,
        bounds: NetBounds,
        announce: Announce,
    ) -> io::Result<Self> {
        let host = Host::of_this_thread();
        let own = key.public().to_peer_id();
        let serves = role != Role::Node;
        let connections = bounds.connections;
        let identify = identify::Config::new(streams::PROTOCOL_VERSION.into(), key.public())
            .with_agent_version(streams::AGENT_VERSION.into())
            .with_interval(IDENTIFY_INTERVAL)
            .with_cache_size(0)
            .with_hide_listen_addrs(true)
            .with_push_listen_addr_updates(true);
        let back = DialBacks::new(psk);
        let limits =
            LimitsConfig::new(connections, connections / RESERVED_SHARE, bounds.handshakes);
        let places = Places::new(limits.max_pending);
        let refusals = Refusals::default();
        let resolver = dns::Resolver::of_this_thread();
        let stack = transport::build(key, psk, resolver, refusals.clone())?;
        let behaviour = Behaviour {
            limits: Limits::new(limits, places.clone()),
            streams: Streams::new(&key.public(), serves, dht::PROTOCOL, bounds.first_beat),
            peering: OnDemand::new(
                Peering {
                    identify: identify::Behaviour::new(identify),
                    kademlia: serves
                        .then(|| dht::kademlia(own, bounds.dht_records, bounds.dht_providers))
                        .into(),
                },
                serves.then_some(dht::PROTOCOL),
            ),
        };
        let config = swarm::Config::with_executor(executor::spawn)
            .with_idle_connection_timeout(IDLE_TIMEOUT)
            // The race limits how many are under way.
            .with_dial_concurrency_factor(NonZeroU8::MAX)
            .with_notify_handler_buffer_size(NonZeroUsize::MIN.saturating_add(3))
            .with_per_connection_event_buffer_size(4)
            .with_max_negotiating_inbound_streams(16);
        Ok(Self {
            swarm: Swarm::new(with_door(stack, places), behaviour, own, config),
            dht: Dht::default(),
            addresses: Addresses::new(host.clone(), announce),
            announced: Vec::new(),
            only_native: None,
            scope: Scope::default(),
            sources: HashMap::new(),
            changes: Changes::new(host),
            refusals,
            back,
            checks: Vec::new(),
            members: Members::default(),
        })
    }

    /// Listens; the addresses come as [`NetEvent::Addresses`].
    pub(crate) fn listen(&mut self, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.addresses.asked(&addr);
        self.swarm.listen_on(addr).map(drop)
    }

    /// Sets the native that is known, if there is exactly one.
    pub(crate) fn set_only_native(&mut self, native: Option<protocol::PeerId>) {
        self.only_native = native;
    }

    /// Reserves a slot for the peer's connection, or releases it.
    pub(crate) fn set_slot(&mut self, peer: protocol::PeerId, reserved: bool) {
        let limits = &mut self.swarm.behaviour_mut().limits;
        if reserved {
            limits.reserve_slot(peer);
        } else {
            limits.release_slot(&peer);
        }
    }

    /// Sends a beat.
    pub(crate) fn beat(
        &mut self,
        server: protocol::PeerId,
        addrs: &Addrs,
        beat: &OutBeat,
        record: Option<&[u8]>,
        known: &[protocol::PeerId],
    ) {
        let addrs = multiaddrs(addrs);
        let record = record.filter(|_| self.may_show_record(&server, &addrs));
        let Self { swarm, members, .. } = self;
        let streams = &mut swarm.behaviour_mut().streams;
        streams.beat(server, addrs, beat.fresh, |sequence| {
            encoded(|buffer| encode_beat(sequence, beat, record, known, members.own(), buffer))
        });
    }

    /// Sends a last beat that gives the lease up.
    pub(crate) fn give_up(&mut self, server: protocol::PeerId, role: Role) {
        let last = OutBeat::last(role);
        let Self { swarm, members, .. } = self;
        let streams = &mut swarm.behaviour_mut().streams;
        streams.give_up(server, |sequence| {
            encoded(|buffer| encode_beat(sequence, &last, None, &[], members.own(), buffer))
        });
    }

    /// Drops our heartbeat stream.
    pub(crate) fn drop_lease(&mut self, server: protocol::PeerId) {
        self.streams().drop_lease(server);
    }

    /// Answers this beat, and closes the stream after it if the answer requires it.
    pub(crate) fn ack(&mut self, beat: &BeatFrame, ack: &Ack<'_>, clock: WallReading) {
        let mut buffer = [0; MAX_FRAME];
        let own = self.members.own();
        let body = encode_ack(beat.sequence, ack, Some(clock), own, &mut buffer);
        let body = body.unwrap_or_default();
        let kind = match ack.ends_stream() {
            true => streams::AckKind::LastAnswer,
            false => streams::AckKind::Answer,
        };
        self.streams().ack(&beat.peer, beat.stream, body, kind);
    }

    /// Sends an unsolicited ack on a peer's heartbeat stream.
    pub(crate) fn tell(&mut self, peer: protocol::PeerId, stream: StreamId, ack: &Ack<'_>) {
        let Self { swarm, members, .. } = self;
        let streams = &mut swarm.behaviour_mut().streams;
        streams.tell(&peer, stream, |sequence| {
            encoded(|buffer| encode_ack(sequence, ack, None, members.own(), buffer))
        });
    }

    /// Closes a peer's heartbeat stream, after everything is written.
    pub(crate) fn close(&mut self, peer: protocol::PeerId, stream: StreamId) {
        self.streams().close(peer, stream);
    }

    /// Makes a directory request. It ends in a [`NetEvent::Response`] with this id.
    pub(crate) fn request(
        &mut self,
        peer: protocol::PeerId,
        addrs: &Addrs,
        id: OwnRequestId,
        request: &Request,
    ) {
        let addrs = multiaddrs(addrs);
        let body = encoded(|buffer| encode_request(request, buffer));
        self.streams().request(peer, addrs, id, body);
    }

    /// Answers a directory request.
    pub(crate) fn respond(&mut self, id: RequestId, response: &Response<'_>) {
        let body = encoded(|buffer| encode_response(response, buffer));
        self.streams().respond(id, body);
    }

    /// Pings a peer. The probe ends in a [`NetEvent::Probed`].
    pub(crate) fn probe(&mut self, peer: protocol::PeerId, addrs: &Addrs) {
        let addrs = multiaddrs(addrs);
        self.streams().probe(peer, addrs);
    }

    /// Pings a peer over the connection that carries its heartbeat stream. The probe ends in a
    /// [`NetEvent::StreamProbed`].
    pub(crate) fn probe_stream(&mut self, peer: protocol::PeerId, stream: StreamId) {
        self.streams().probe_stream(peer, stream);
    }

    /// Reserves a slot for each connected peer for which `reserves` is true, and releases those of
    /// all others.
    pub(crate) fn set_slots(&mut self, reserves: impl Fn(&protocol::PeerId) -> bool) {
        self.swarm.behaviour_mut().limits.set_slots(reserves);
    }

    /// Counts peers with these addresses as known: their handshakes do not give way to those of
    /// unknown peers.
    pub(crate) fn remember<'a>(&mut self, peers: impl Iterator<Item = &'a Addrs>) {
        self.swarm.behaviour_mut().limits.remember(peers);
    }

    /// The most that the tables of connections held at once since the last call.
    pub(crate) fn take_peaks(&mut self) -> [(&'static str, usize); 2] {
        self.swarm.behaviour_mut().limits.take_peaks()
    }

    /// Gives back memory that is no longer needed.
    pub(crate) fn shrink(&mut self) {
        executor::shrink();
        tcp::shrink();
        self.scope.shrink();
        let behaviour = self.swarm.behaviour_mut();
        behaviour.limits.shrink();
        behaviour.streams.shrink();
        if let Some(kademlia) = behaviour.kademlia() {
            kademlia.store_mut().shrink();
        }
    }

    /// What the operator sees of the network side's tables.
    pub(crate) fn tables(&mut self) -> Vec<TableStats> {
        let behaviour = self.swarm.behaviour_mut();
        let limits = &behaviour.limits;
        let mut tables = vec![TableStats {
            name: CONNECTIONS,
            used: limits.used(),
            capacity: limits.capacity(),
            refused: limits.refused(),
            evicted: 0,
        }];
        tables.push(limits.handshakes());
        if let Some(kademlia) = behaviour.kademlia() {
            let store = kademlia.store_mut();
            tables.push(TableStats {
                name: "dht_records",
                used: store.used(),
                capacity: store.capacity(),
                refused: store.refused(),
                evicted: 0,
            });
            tables.push(store.providers.stats());
            tables.push(self.dht.waiting_puts());
            tables.push(self.dht.claims.stats());
        }
        tables
    }

    /// Where the newest connection with this peer leads or comes from.
    pub(crate) fn source(&self, peer: &protocol::PeerId) -> Option<TransportAddr> {
        let connection = self.swarm.behaviour().streams.connection_with(peer)?;
        self.sources.get(&connection).copied()
    }

    /// The next event. Cancel-safe.
    pub(crate) async fn next_event(&mut self) -> NetEvent {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<NetEvent> {
        if let Poll::Ready(change) = self.changes.poll(cx) {
            if change.came() {
                self.streams().network_changed();
            }
            return Poll::Ready(NetEvent::Host(change));
        }
        loop {
            if let Some(refusal) = self.refusals.take() {
                return Poll::Ready(NetEvent::Refused(refusal));
            }
            if let Some(event) = self.members.next_to_prove() {
                return Poll::Ready(event);
            }
            if let Poll::Ready((frame, pace)) = self.streams().poll_beat(cx) {
                return Poll::Ready(self.beaten(frame, pace));
            }
            if let Some(kademlia) = self.swarm.behaviour_mut().kademlia() {
                let _ = self.dht.dials.poll(kademlia, cx);
            }
            self.check_claims(cx);
            if let Poll::Ready(end) = self.back.poll(cx) {
                return Poll::Ready(NetEvent::DialedBack(end));
            }
            let event = ready!(self.swarm.poll_next_unpin(cx));
            if let Some(event) = event.and_then(|event| self.translate(event)) {
                return Poll::Ready(event);
            }
        }
    }

    fn streams(&mut self) -> &mut Streams {
        &mut self.swarm.behaviour_mut().streams
    }
}

#[cfg(test)]
mod tests;
