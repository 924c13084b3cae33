//! libp2p, and nothing of it above this module.
//!
//! [`Net`] is the swarm with its behaviours. Up go events whose content is decoded and verified; down come the core's actions. It
//! decides nothing but what to drop: frames that are no frames, records whose signature does not verify.
//!
//! | file | what it is for |
//! |---|---|
//! | [`tcp`], [`dns`], [`transport`] | connections |
//! | [`limits`] | how many of them |
//! | [`streams`] | heartbeat, directory and ping streams |
//! | [`dht`], [`store`] | Kademlia |
//! | [`addrs`] | which addresses are announced |
//! | [`executor`] | the one executor |

pub(crate) mod addrs;
pub(crate) mod dht;
pub(crate) mod dns;
pub(crate) mod executor;
pub(crate) mod limits;
pub(crate) mod store;
mod streams;
pub(crate) mod tcp;
pub(crate) mod transport;

use std::{
    collections::{HashMap, HashSet},
    io,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, TransportError, identify,
    identity::Keypair,
    multiaddr::Protocol,
    pnet::PreSharedKey,
    swarm::{self, ConnectionId, NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle},
};

use self::{
    addrs::Addresses,
    dht::{Dht, DhtEvent, Kademlia, SearchId},
    limits::{Limits, LimitsConfig},
    streams::Streams,
};
use crate::{
    protocol::{
        self, Ack, Addrs, Load, Offers, OutBeat, PeerList, RecordInfo, RequestId, Role, StreamId,
        TableStats,
    },
    wire::{
        self, Kind,
        directory::{
            Request, Response, decode_request, decode_response, encode_request, encode_response,
        },
        heartbeat::{WallReading, WireAck, decode_ack, decode_beat, encode_ack, encode_beat},
        record::{OpenRecord, open_indexer, open_node},
    },
};

/// How long a connection without a use stays.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections kept for natives and for peers that hold a lease: one in so many.
const RESERVED_SHARE: usize = 8;
/// Records of lease holders go before others; see [`store`].
const IDENTIFY_INTERVAL: Duration = Duration::from_secs(3600);

/// A beat whose record is verified.
#[derive(Debug)]
pub(crate) struct ReceivedBeat {
    pub(crate) role: Role,
    pub(crate) lease: Duration,
    pub(crate) record: Option<(RecordInfo, Vec<u8>)>,
    pub(crate) load: Option<Load>,
    pub(crate) known: PeerList,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum NetEvent {
    /// We listen here now, or no longer; what is announced may have changed.
    Addresses,
    /// A listener ended or could not take a connection.
    ListenerError(String),
    /// A peer beat.
    Beat {
        from: protocol::PeerId,
        stream: StreamId,
        sequence: u64,
        beat: Box<ReceivedBeat>,
    },
    /// A peer's heartbeat stream is over.
    StreamClosed {
        peer: protocol::PeerId,
        stream: StreamId,
    },
    /// A server answered our last beat (`asked`), or said `released` unasked.
    Ack {
        server: protocol::PeerId,
        asked: bool,
        ack: Box<Ack>,
        clock: Option<WallReading>,
    },
    /// Our heartbeat stream with a server is over.
    LeaseClosed { server: protocol::PeerId },
    /// A peer asks something.
    Request {
        from: protocol::PeerId,
        id: RequestId,
        request: Request,
    },
    /// Our request was answered, or why it was not.
    Response {
        id: RequestId,
        response: Result<Response, String>,
    },
    /// A probe came to its end.
    Probed { peer: protocol::PeerId, alive: bool },
    /// The DHT.
    Dht(DhtEvent),
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Behaviour {
    // First: it refuses a connection before the others allocate for it.
    limits: Limits,
    streams: Streams,
    identify: identify::Behaviour,
    kademlia: Toggle<Kademlia>,
}

/// How large the tables of the network side are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetCapacities {
    /// Connections at most.
    pub(crate) connections: usize,
    /// Records in the DHT store at most.
    pub(crate) dht_records: usize,
}

/// The swarm.
pub(crate) struct Net {
    swarm: Swarm<Behaviour>,
    dht: Dht,
    addresses: Addresses,
    announced: Vec<Multiaddr>,
    natives: HashSet<PeerId>,
    on_loopback: HashMap<PeerId, (ConnectionId, bool)>,
    last_sent: HashMap<(protocol::PeerId, StreamId), u64>,
}

impl Net {
    /// A swarm that listens nowhere yet. Nodes serve nobody and take no part in the DHT.
    pub(crate) fn new(
        key: &Keypair,
        role: Role,
        psk: Option<PreSharedKey>,
        capacities: NetCapacities,
    ) -> io::Result<Self> {
        let own = key.public().to_peer_id();
        let serves = role != Role::Node;
        let connections = capacities.connections;
        let identify = identify::Config::new("/oc/1.0.0".into(), key.public())
            .with_agent_version(concat!("oc-discovery/", env!("CARGO_PKG_VERSION")).into())
            .with_interval(IDENTIFY_INTERVAL)
            .with_cache_size(0)
            .with_hide_listen_addrs(true)
            .with_push_listen_addr_updates(true);
        let behaviour = Behaviour {
            limits: Limits::new(LimitsConfig::new(connections, connections / RESERVED_SHARE)),
            streams: Streams::new(serves),
            identify: identify::Behaviour::new(identify),
            kademlia: serves
                .then(|| dht::kademlia(own, capacities.dht_records))
                .into(),
        };
        let config = swarm::Config::with_executor(executor::spawn)
            .with_idle_connection_timeout(IDLE_TIMEOUT)
            .with_notify_handler_buffer_size(NonZeroUsize::MIN.saturating_add(3))
            .with_per_connection_event_buffer_size(4)
            .with_max_negotiating_inbound_streams(16);
        Ok(Self {
            swarm: Swarm::new(
                transport::build(key, psk, dns::Resolver::new()).map_err(io::Error::other)?,
                behaviour,
                own,
                config,
            ),
            dht: Dht::default(),
            addresses: Addresses::default(),
            announced: Vec::new(),
            natives: HashSet::new(),
            on_loopback: HashMap::new(),
            last_sent: HashMap::new(),
        })
    }

    /// Listens; the addresses come as [`NetEvent::Addresses`].
    pub(crate) fn listen(&mut self, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.swarm.listen_on(addr).map(drop)
    }

    /// Addresses that we listen on.
    pub(crate) fn listening(&self) -> impl Iterator<Item = &Multiaddr> {
        self.swarm.listeners()
    }

    /// Addresses for the own record.
    pub(crate) fn record_addrs(&self) -> Vec<Multiaddr> {
        self.addresses.record(wire::record::MAX_RECORD_ADDRS)
    }

    /// A native of the configuration: what it observes counts, and its connections have slots kept.
    pub(crate) fn learn_native(&mut self, peer: protocol::PeerId) {
        self.natives.insert(peer.into());
        self.favour(peer, true);
    }

    /// The natives of the configuration.
    pub(crate) fn natives(&self) -> Vec<protocol::PeerId> {
        self.natives
            .iter()
            .filter_map(|peer| protocol::PeerId::try_from(*peer).ok())
            .collect()
    }

    /// Whether the peer is one of them.
    pub(crate) fn is_native(&self, peer: &protocol::PeerId) -> bool {
        self.natives.contains(&(*peer).into())
    }

    /// Keeps a slot for the peer's connection, or no longer.
    pub(crate) fn favour(&mut self, peer: protocol::PeerId, favoured: bool) {
        let limits = &mut self.swarm.behaviour_mut().limits;
        if favoured {
            limits.favour(peer.into());
        } else if !self.natives.contains(&peer.into()) {
            limits.unfavour(&peer.into());
        }
    }

    /// Sends a beat.
    pub(crate) fn beat(
        &mut self,
        server: protocol::PeerId,
        addrs: &Addrs,
        beat: &OutBeat,
        record: Option<&[u8]>,
    ) {
        let addrs = multiaddrs(addrs);
        self.streams().beat(server.into(), addrs, |sequence| {
            encode_beat(sequence, beat, record)
        });
    }

    /// Sends a last beat that gives the lease up.
    pub(crate) fn give_up(&mut self, server: protocol::PeerId, role: Role) {
        let farewell = OutBeat {
            role,
            lease: Duration::ZERO,
            with_record: false,
            load: None,
            known: PeerList::new(),
        };
        self.streams().give_up(server.into(), |sequence| {
            encode_beat(sequence, &farewell, None)
        });
    }

    /// Drops our heartbeat stream.
    pub(crate) fn drop_lease(&mut self, server: protocol::PeerId) {
        self.streams().drop_lease(server.into());
    }

    /// Answers the beat with this sequence. `close` ends the stream after it.
    pub(crate) fn ack(
        &mut self,
        peer: protocol::PeerId,
        stream: StreamId,
        sequence: u64,
        ack: &Ack,
        clock: WallReading,
        close: bool,
    ) {
        if ack.code == protocol::AckCode::Accepted {
            self.last_sent.insert((peer, stream), sequence);
        }
        let body = encode_ack(sequence, &self.for_peer(peer, ack), Some(clock));
        self.streams().ack(peer.into(), stream, body, true, close);
    }

    /// Says something unasked on a peer's heartbeat stream.
    pub(crate) fn tell(&mut self, peer: protocol::PeerId, stream: StreamId, ack: &Ack) {
        let sequence = self
            .last_sent
            .get(&(peer, stream))
            .copied()
            .unwrap_or_default();
        let body = encode_ack(sequence, &self.for_peer(peer, ack), None);
        self.streams().ack(peer.into(), stream, body, false, false);
    }

    /// Closes a peer's heartbeat stream.
    pub(crate) fn close(&mut self, peer: protocol::PeerId, stream: StreamId) {
        self.last_sent.remove(&(peer, stream));
        self.streams().close(peer.into(), stream);
    }

    /// Makes a directory request; its end is a [`NetEvent::Response`] of this id.
    pub(crate) fn request(
        &mut self,
        peer: protocol::PeerId,
        addrs: &Addrs,
        id: RequestId,
        request: &Request,
    ) {
        let addrs = multiaddrs(addrs);
        self.streams()
            .request(peer.into(), addrs, id, encode_request(request));
    }

    /// Answers a directory request.
    pub(crate) fn respond(&mut self, id: RequestId, mut response: Response) {
        if let Response::Indexers(answer) = &mut response {
            let near = self
                .streams()
                .asker(id)
                .is_some_and(|peer| self.is_on_loopback(&peer));
            answer.offers = offers_for(near, &answer.offers);
        }
        self.streams().respond(id, encode_response(&response));
    }

    /// Pings a peer; its end is a [`NetEvent::Probed`].
    pub(crate) fn probe(&mut self, peer: protocol::PeerId, addrs: &Addrs) {
        let addrs = multiaddrs(addrs);
        self.streams().probe(peer.into(), addrs);
    }

    /// Searches the DHT. `None`: this role takes no part in it.
    pub(crate) fn search(&mut self, kind: Kind, peer: protocol::PeerId) -> Option<SearchId> {
        let kademlia = self.swarm.behaviour_mut().kademlia.as_mut()?;
        Some(self.dht.search(kademlia, kind, peer))
    }

    /// Ends a search.
    pub(crate) fn end_search(&mut self, search: SearchId) {
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() {
            self.dht.end_search(kademlia, search);
        }
    }

    /// PUTs a verified record that lives for `left`.
    pub(crate) fn publish(
        &mut self,
        kind: Kind,
        peer: &protocol::PeerId,
        envelope: Vec<u8>,
        left: Duration,
    ) {
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() {
            kademlia.store_mut().protect(&dht::key(kind, peer));
            dht::publish(kademlia, kind, peer, envelope, left);
        }
    }

    /// Keeps a verified record that another peer offered.
    pub(crate) fn keep(
        &mut self,
        kind: Kind,
        record: &OpenRecord,
        envelope: Vec<u8>,
        left: Duration,
    ) {
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() {
            dht::keep(kademlia, kind, record, envelope, left);
        }
    }

    /// The peer's lease is over: its records are kept like those of others, or not at all if it `left` for good.
    pub(crate) fn unprotect(&mut self, peer: &protocol::PeerId, left: bool) {
        let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() else {
            return;
        };
        for kind in [Kind::Indexer, Kind::Node] {
            let key = dht::key(kind, peer);
            kademlia.store_mut().unprotect(&key);
            if left {
                kademlia.remove_record(&key);
            }
        }
    }

    /// Lets records that have run out go.
    pub(crate) fn expire_records(&mut self) {
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut() {
            kademlia.store_mut().expire(Instant::now());
        }
    }

    /// What the operator sees of the network side's tables.
    pub(crate) fn tables(&mut self) -> Vec<TableStats> {
        let behaviour = self.swarm.behaviour_mut();
        let limits = &behaviour.limits;
        let mut tables = vec![TableStats {
            name: "connections",
            used: limits.used(),
            capacity: limits.capacity(),
            refused: limits.refused(),
        }];
        if let Some(kademlia) = behaviour.kademlia.as_mut() {
            let store = kademlia.store_mut();
            tables.push(TableStats {
                name: "dht_records",
                used: store.used(),
                capacity: store.capacity(),
                refused: store.refused(),
            });
        }
        tables
    }

    /// The next event. Cancel-safe.
    pub(crate) async fn next_event(&mut self) -> NetEvent {
        loop {
            let event = self.swarm.select_next_some().await;
            if let Some(event) = self.translate(event) {
                return event;
            }
        }
    }

    fn streams(&mut self) -> &mut Streams {
        &mut self.swarm.behaviour_mut().streams
    }

    fn translate(&mut self, event: SwarmEvent<BehaviourEvent>) -> Option<NetEvent> {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                self.addresses.listening(&address);
                self.announce();
                Some(NetEvent::Addresses)
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.addresses.expired(&address);
                self.announce();
                Some(NetEvent::Addresses)
            }
            SwarmEvent::ListenerError { error, .. } => {
                Some(NetEvent::ListenerError(error.to_string()))
            }
            SwarmEvent::ListenerClosed {
                reason: Err(error), ..
            } => Some(NetEvent::ListenerError(error.to_string())),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                let near = is_loopback(endpoint.get_remote_address());
                self.on_loopback.insert(peer_id, (connection_id, near));
                None
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                num_established: 0,
                ..
            } => {
                self.on_loopback.remove(&peer_id);
                None
            }
            SwarmEvent::Behaviour(BehaviourEvent::Streams(event)) => self.translate_stream(event),
            SwarmEvent::Behaviour(BehaviourEvent::Kademlia(event)) => {
                self.dht.translate(event).map(NetEvent::Dht)
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => self.identified(event),
            _ => None,
        }
    }

    fn translate_stream(&mut self, event: streams::Event) -> Option<NetEvent> {
        Some(match event {
            streams::Event::Beat {
                peer,
                stream,
                sequence,
                body,
            } => {
                let from = protocol::PeerId::try_from(peer).ok()?;
                match read_beat(&body, sequence) {
                    Ok(beat) => NetEvent::Beat {
                        from,
                        stream,
                        sequence,
                        beat: Box::new(beat),
                    },
                    Err(why) => {
                        log::debug!("dropped the heartbeat stream of {peer}: {why}");
                        self.close(from, stream);
                        NetEvent::StreamClosed { peer: from, stream }
                    }
                }
            }
            streams::Event::StreamClosed { peer, stream } => {
                let peer = protocol::PeerId::try_from(peer).ok()?;
                self.last_sent.remove(&(peer, stream));
                NetEvent::StreamClosed { peer, stream }
            }
            streams::Event::Ack {
                server,
                sequence,
                awaited,
                body,
            } => {
                let peer = protocol::PeerId::try_from(server).ok()?;
                match read_ack(&body, sequence, awaited) {
                    Ok((asked, ack)) => {
                        if asked {
                            self.streams().answered(&server);
                        }
                        NetEvent::Ack {
                            server: peer,
                            asked,
                            ack: Box::new(ack.ack),
                            clock: ack.clock,
                        }
                    }
                    Err(why) => {
                        log::debug!("dropped our heartbeat stream with {server}: {why}");
                        self.drop_lease(peer);
                        NetEvent::LeaseClosed { server: peer }
                    }
                }
            }
            streams::Event::LeaseClosed { server } => NetEvent::LeaseClosed {
                server: protocol::PeerId::try_from(server).ok()?,
            },
            streams::Event::Request { peer, id, body } => match decode_request(&body) {
                Ok(request) => NetEvent::Request {
                    from: protocol::PeerId::try_from(peer).ok()?,
                    id,
                    request,
                },
                Err(why) => {
                    let why =
                        protocol::Reason::try_from(why.to_string().as_str()).unwrap_or_default();
                    self.respond(id, Response::Error(why));
                    return None;
                }
            },
            streams::Event::Response { id, body } => NetEvent::Response {
                id,
                response: match body {
                    Ok(body) => decode_response(&body).map_err(|why| why.to_string()),
                    Err(why) => Err(why.to_string()),
                },
            },
            streams::Event::Probed { peer, alive } => NetEvent::Probed {
                peer: protocol::PeerId::try_from(peer).ok()?,
                alive,
            },
        })
    }

    fn identified(&mut self, event: identify::Event) -> Option<NetEvent> {
        let identify::Event::Received { peer_id, info, .. } = event else {
            return None;
        };
        let near = self.is_on_loopback(&peer_id);
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia.as_mut()
            && info.protocols.contains(&dht::PROTOCOL)
        {
            let usable = info
                .listen_addrs
                .into_iter()
                .filter(|addr| wire::to_addr(addr).is_ok() && (near || !is_loopback(addr)));
            dht::route(kademlia, &peer_id, usable);
        }
        let told = self.addresses.record(wire::record::MAX_RECORD_ADDRS);
        let suffices = self.natives.len() == 1 && self.natives.contains(&peer_id);
        self.addresses
            .observed(&info.observed_addr, peer_id, suffices);
        if self.addresses.record(wire::record::MAX_RECORD_ADDRS) == told {
            return None;
        }
        self.announce();
        Some(NetEvent::Addresses)
    }

    /// Tells libp2p what identify is to announce: what the record says.
    fn announce(&mut self) {
        let now = self.record_addrs();
        for gone in self.announced.iter().filter(|addr| !now.contains(addr)) {
            self.swarm.remove_external_address(gone);
        }
        for new in now.iter().filter(|addr| !self.announced.contains(addr)) {
            self.swarm.add_external_address(new.clone());
        }
        self.announced = now;
    }

    fn is_on_loopback(&self, peer: &PeerId) -> bool {
        self.on_loopback.get(peer).is_some_and(|(_, near)| *near)
    }

    /// The ack as this peer may see it.
    fn for_peer(&self, peer: protocol::PeerId, ack: &Ack) -> Ack {
        Ack {
            offers: offers_for(self.is_on_loopback(&peer.into()), &ack.offers),
            ..ack.clone()
        }
    }
}

/// Loopback addresses are of use only to peers on loopback.
fn offers_for(near: bool, offers: &Offers) -> Offers {
    let mut kept = offers.clone();
    if !near {
        for offer in &mut kept {
            offer
                .addrs
                .retain(|addr| wire::to_multiaddr(addr).is_ok_and(|addr| !is_loopback(&addr)));
        }
        kept.retain(|offer| !offer.addrs.is_empty());
    }
    kept
}

/// The addresses as libp2p wants them; those that cannot be read are left out.
pub(crate) fn multiaddrs(addrs: &Addrs) -> Vec<Multiaddr> {
    addrs
        .iter()
        .filter_map(|addr| wire::to_multiaddr(addr).ok())
        .collect()
}

fn is_loopback(addr: &Multiaddr) -> bool {
    match addr.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

fn read_beat(body: &[u8], sequence: u64) -> Result<ReceivedBeat, String> {
    let beat = decode_beat(body).map_err(|why| why.to_string())?;
    if beat.sequence != sequence {
        return Err(format!(
            "sequence {} where {sequence} was due",
            beat.sequence
        ));
    }
    let record = match (beat.record, beat.role) {
        (None, _) | (_, Role::Native) => None,
        (Some(envelope), Role::Indexer) => Some((open_indexer(envelope), envelope)),
        (Some(envelope), Role::Node) => Some((open_node(envelope), envelope)),
    };
    let record = match record {
        Some((opened, envelope)) => Some((
            opened.map_err(|why| why.to_string())?.info,
            envelope.to_vec(),
        )),
        None => None,
    };
    Ok(ReceivedBeat {
        role: beat.role,
        lease: beat.lease,
        record,
        load: beat.load,
        known: beat.known,
    })
}

/// The ack, and whether it answers our last beat.
fn read_ack(body: &[u8], last_sent: u64, awaited: bool) -> Result<(bool, WireAck), String> {
    let ack = decode_ack(body).map_err(|why| why.to_string())?;
    if awaited && ack.sequence == last_sent {
        return Ok((true, ack));
    }
    if ack.ack.code == protocol::AckCode::Released && ack.sequence <= last_sent {
        return Ok((false, ack));
    }
    Err(format!(
        "ack of beat {} where {last_sent} was sent",
        ack.sequence
    ))
}
