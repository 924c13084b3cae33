//! Translates the events of libp2p into the core's types: decoded, verified and bounded. A beat is
//! passed as its frame and read where it is used, because its content borrows from the frame.

use std::net::IpAddr;

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, identify, swarm::SwarmEvent};

use super::{
    BehaviourEvent, DialEnd, Failure, Net, PeeringEvent, convert,
    dht::{self, DhtEvent},
    envelope::Libp2p,
    members::Shown,
    netlink::Change,
    refusals::Refusal,
    scope::is_loopback,
    streams::{self, BeatFrame, OwnRequestId, WatchEvent},
    tcp::socket_addr,
    undialable::{is_kept, leave_out},
};
use crate::protocol::{
    self, AckBuf, Beat, RequestId, Role, SignedRecord, StreamId, Verdict,
    address::TransportAddr,
    codec::{
        DecodeError,
        directory::{Request, Response, decode_request},
        grant::Membership,
        heartbeat::{AckCause, LastBeat, WallReading, WireAck, decode_ack, decode_beat},
    },
};

/// What a frame of a peer was to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A beat.
    Beat,
    /// An ack of a beat of ours.
    Ack,
    /// A directory request.
    Request,
    /// The response to a request of ours.
    Response,
    /// A frame of a watch stream.
    Watch,
}

impl Frame {
    /// Its name for people, with the article.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Beat => "a beat",
            Self::Ack => "an ack",
            Self::Request => "a request",
            Self::Response => "a response",
            Self::Watch => "a frame of a watch",
        }
    }
}

/// An event of the network side.
#[derive(Debug)]
pub(crate) enum NetEvent {
    /// The listen addresses have changed, so the announced addresses may have changed too.
    Addresses,
    /// Addresses, links or routes of the host changed.
    Host(Change),
    /// A listener has ended or could not accept a connection.
    ListenerError(String),
    /// A handshake failed for a reason that only the operator can mend.
    Refused(Refusal),
    /// A beat of a peer, which [`Net::read_beat`] reads.
    Beat {
        frame: BeatFrame,
        /// Where the stream comes from; only with the first beat of a stream.
        source: Option<TransportAddr>,
    },
    /// A peer beats faster than it may ([`BEATS_A_SECOND`](super::BEATS_A_SECOND)). Its heartbeat
    /// stream is over, and it was told why.
    TooFast {
        peer: protocol::PeerId,
        stream: StreamId,
    },
    /// A peer's heartbeat stream is over. `why` is given if it sent what cannot be read.
    StreamClosed {
        peer: protocol::PeerId,
        stream: StreamId,
        why: Option<String>,
    },
    /// A server answered the last beat of this peer, or sent an unsolicited `released`.
    Ack {
        server: protocol::PeerId,
        /// The endpoint of the connection, as it was dialled.
        over: Option<TransportAddr>,
        cause: AckCause,
        ack: Box<AckBuf>,
        clock: Option<WallReading>,
        /// What it shows of the server's membership in a closed network.
        shown: Shown,
    },
    /// Our heartbeat stream to a server is over, or could not be opened, and `why`.
    LeaseClosed {
        server: protocol::PeerId,
        why: Option<Failure>,
    },
    /// A lease that we gave up has ended.
    GaveUp { server: protocol::PeerId },
    /// A peer sent a directory request.
    Request {
        from: protocol::PeerId,
        id: RequestId,
        request: Box<Request>,
    },
    /// Our request was answered with these bytes, or failed for this reason.
    Response {
        server: protocol::PeerId,
        id: OwnRequestId,
        response: Result<Vec<u8>, Failure>,
    },
    /// A dial for a peer's request has ended.
    DialedBack(DialEnd),
    /// A probe has ended.
    Probed {
        peer: protocol::PeerId,
        verdict: Verdict,
    },
    /// A probe over the connection that carries this heartbeat stream has ended.
    StreamProbed {
        peer: protocol::PeerId,
        stream: StreamId,
        verdict: Verdict,
    },
    /// An event of the DHT.
    Dht(DhtEvent),
    /// A server of the DHT has shown no grant of the closed network: its record may have one.
    Unproven { peer: protocol::PeerId },
    /// Something happened on a watch stream.
    Watch(WatchEvent),
    /// A peer sent what cannot be read, and why.
    Malformed {
        peer: protocol::PeerId,
        frame: Frame,
        why: String,
    },
}

impl Net {
    /// Translates an event of the swarm; `None` if it has no meaning here.
    pub(super) fn translate(&mut self, event: SwarmEvent<BehaviourEvent>) -> Option<NetEvent> {
        self.dht.dials.note(&event);
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
                let peer = protocol::PeerId::try_from(peer_id).ok()?;
                let end = self.own_end(&endpoint);
                let remote = endpoint.get_remote_address();
                let source = TransportAddr::of(remote.as_ref());
                self.sources.insert(connection_id, source);
                if self.scope.connected(peer, remote, end) {
                    return None;
                }
                self.confine();
                if let (true, Some(end)) = (endpoint.is_listener(), end) {
                    self.addresses.accepted(end);
                }
                self.announce().then_some(NetEvent::Addresses)
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                error,
                ..
            } => {
                self.not_dialled(&peer, &error);
                None
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                num_established,
                ..
            } => {
                self.sources.remove(&connection_id);
                let peer = protocol::PeerId::try_from(peer_id).ok()?;
                if num_established == 0 {
                    self.scope.disconnected(&peer);
                }
                None
            }
            SwarmEvent::Behaviour(BehaviourEvent::Streams(event)) => self.translate_stream(event),
            SwarmEvent::Behaviour(BehaviourEvent::Peering(PeeringEvent::Kademlia(event))) => {
                let (loopback, from) = (self.is_local(), self.network_of(&event));
                let kademlia = self.swarm.behaviour_mut().kademlia()?;
                let may_store = |peer: &PeerId| self.members.may_store(peer);
                let event = self
                    .dht
                    .translate(kademlia, event, loopback, from, &may_store);
                event.map(NetEvent::Dht)
            }
            SwarmEvent::Behaviour(BehaviourEvent::Peering(PeeringEvent::Identify(event))) => {
                self.identified(event)
            }
            _ => None,
        }
    }

    /// Reads a beat, and what its sender shows of its membership in a closed network: decodes it,
    /// checks its sequence, verifies its record.
    ///
    /// # Errors
    /// Why it is not valid. Its stream is closed.
    pub(crate) fn read_beat<'f>(
        &mut self,
        frame: &'f BeatFrame,
    ) -> Result<(Beat<SignedRecord<'f>>, Membership<'f>), String> {
        match read_beat(&frame.body, frame.sequence) {
            Ok((beat, membership)) => {
                // Natives and indexers take part in the DHT, so identify asks for their addresses.
                if beat.sequence == 0 && beat.role != Role::Node {
                    let peering = &mut self.swarm.behaviour_mut().peering;
                    peering.want(frame.peer.into(), frame.connection);
                }
                Ok((beat, membership))
            }
            Err(why) => {
                self.close(frame.peer, frame.stream);
                Err(why)
            }
        }
    }

    fn translate_stream(&mut self, event: streams::Event) -> Option<NetEvent> {
        Some(match event {
            streams::Event::StreamClosed { peer, stream, why } => {
                NetEvent::StreamClosed { peer, stream, why }
            }
            streams::Event::Ack {
                server,
                connection,
                lease,
                last,
                body,
            } => match read_ack(&body, last) {
                Ok((cause, ack)) => {
                    leave_out(ack.left_out);
                    if cause == AckCause::Beat {
                        self.streams().answered(&server, lease);
                    }
                    if ack.ack.code == protocol::AckCode::Accepted {
                        self.addresses.used(server.into(), self.scope.end(&server));
                        self.announce();
                    }
                    NetEvent::Ack {
                        server,
                        over: self.sources.get(&connection).copied(),
                        cause,
                        ack: Box::new(ack.ack),
                        clock: ack.clock,
                        shown: Shown::of(ack.membership),
                    }
                }
                Err(why) => {
                    self.drop_lease(server);
                    let why = Some(Failure::malformed(why));
                    NetEvent::LeaseClosed { server, why }
                }
            },
            streams::Event::LeaseClosed { server, why } => NetEvent::LeaseClosed { server, why },
            streams::Event::GaveUp { server } => NetEvent::GaveUp { server },
            streams::Event::Request { peer, id, body } => match decode_request(&body) {
                Ok(request) => NetEvent::Request {
                    from: peer,
                    id,
                    request: Box::new(request),
                },
                Err(why) => {
                    let why = why.to_string();
                    let reason = protocol::Reason::try_from(why.as_str()).unwrap_or_default();
                    self.respond(id, &Response::Error(reason));
                    let frame = Frame::Request;
                    NetEvent::Malformed { peer, frame, why }
                }
            },
            streams::Event::Response { server, id, body } => NetEvent::Response {
                server,
                id,
                response: body,
            },
            streams::Event::Probed { peer, verdict } => NetEvent::Probed { peer, verdict },
            streams::Event::Watch(event) => NetEvent::Watch(event),
            streams::Event::Malformed { peer, frame, why } => {
                NetEvent::Malformed { peer, frame, why }
            }
            streams::Event::StreamProbed {
                peer,
                stream,
                verdict,
            } => NetEvent::StreamProbed {
                peer,
                stream,
                verdict,
            },
        })
    }

    /// The local address of a connection.
    fn own_end(&self, endpoint: &ConnectedPoint) -> Option<IpAddr> {
        match endpoint {
            ConnectedPoint::Dialer { address, .. } => self.changes.host().local_end(address),
            ConnectedPoint::Listener { local_addr, .. } => Some(socket_addr(local_addr)?.ip()),
        }
    }

    fn identified(&mut self, event: identify::Event) -> Option<NetEvent> {
        let identify::Event::Received {
            connection_id,
            peer_id,
            info,
        } = event
        else {
            return None;
        };
        if info.protocols.contains(&dht::PROTOCOL) {
            let loopback = self.is_local();
            let usable = info.listen_addrs.into_iter();
            let usable = usable.filter(|addr| may_be_routed(addr, loopback));
            let usable = self
                .members
                .routed(&peer_id, connection_id, usable.collect());
            self.claimed(peer_id, connection_id, usable.into_iter());
        }
        let peer = protocol::PeerId::try_from(peer_id).ok()?;
        let suffices = self.only_native == Some(peer);
        self.addresses
            .observed(&info.observed_addr, peer_id, suffices);
        self.announce().then_some(NetEvent::Addresses)
    }
}

/// Whether an address that a peer announced for itself may be passed on to all others.
fn may_be_routed(addr: &Multiaddr, loopback: bool) -> bool {
    is_kept(addr) && convert::to_addr(addr).is_ok() && (loopback || !is_loopback(addr))
}

fn read_beat(body: &[u8], due: u64) -> Result<(Beat<SignedRecord<'_>>, Membership<'_>), String> {
    let read = decode_beat(body).map_err(|why| why.to_string())?;
    let beat = read.beat.in_order(due).map_err(|why| why.to_string())?;
    let beat = beat.open(&Libp2p).map_err(|why| why.to_string())?;
    Ok((beat, read.membership))
}

/// Decodes an ack, which must answer the last beat or say `released`.
fn read_ack(body: &[u8], last: LastBeat) -> Result<(AckCause, WireAck<'_>), DecodeError> {
    let ack = decode_ack(body)?;
    Ok((ack.cause(last)?, ack))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::undialable::left_out;

    #[test]
    fn identify_brings_no_address_that_nobody_can_dial_into_the_routing_table() {
        let before = left_out();
        for (addr, may) in [
            ("/ip4/192.0.2.1/tcp/4820", true),
            ("/ip4/127.0.0.1/tcp/4820", false),
            ("/ip4/192.0.2.1/tcp/0", false),
            ("/ip4/224.0.0.1/tcp/4820", false),
            ("/ip6/::/tcp/4820", false),
        ] {
            assert_eq!(may_be_routed(&addr.parse().unwrap(), false), may, "{addr}");
        }
        assert_eq!(left_out() - before, 3, "loopback is not counted");
    }
}
