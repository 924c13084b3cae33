//! Connections to peers that asked to be dialled back: made beside the swarm, so that no table of
//! it knows them, and by an identity of their own, so that the peer does not take one for a
//! connection of this process.
//!
//! Invariants: a connection is closed as soon as it has proved the peer's id; a dial ends within
//! [`DIAL_LIMIT`]; how many there are at a time is the caller's limit.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr,
    core::{
        Endpoint,
        muxing::StreamMuxerBox,
        transport::{Boxed, DialOpts, PortUse, Transport},
    },
    identity::Keypair,
    multiaddr::Protocol,
    pnet::PreSharedKey,
};

use super::{
    FailureKind, Net, dns, executor::within, failure, refusals::Refusals, scope, tcp, transport,
};
use crate::protocol::{
    self, Host, RequestId, TransportAddr,
    dial_back::{Asked, DIAL_LIMIT, Means},
};

/// A dial that has ended.
#[derive(Debug)]
pub(crate) struct DialEnd {
    /// The request of the peer.
    pub(crate) id: RequestId,
    /// The peer.
    pub(crate) peer: protocol::PeerId,
    /// The address that was dialled, without the peer id.
    pub(crate) addr: Multiaddr,
    /// If the peer was not reached.
    pub(crate) why: Option<Miss>,
}

/// Why a peer was not reached.
#[derive(Debug)]
pub(crate) struct Miss {
    /// In a person's words.
    pub(crate) text: String,
    /// The fault may be at this host: nothing is known of the peer.
    pub(crate) may_be_here: bool,
}

type Dial = Pin<Box<dyn Future<Output = DialEnd>>>;

/// The dials under way.
pub(super) struct DialBacks {
    psk: Option<PreSharedKey>,
    /// Made for the first dial.
    stack: Option<Boxed<(libp2p::PeerId, StreamMuxerBox)>>,
    dials: Vec<Dial>,
}

impl DialBacks {
    /// No dial is under way. The key is that of the network.
    pub(super) fn new(psk: Option<PreSharedKey>) -> Self {
        Self {
            psk,
            stack: None,
            dials: Vec::new(),
        }
    }

    /// The next dial that has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<DialEnd> {
        for at in 0..self.dials.len() {
            let dial = self.dials.get_mut(at).map(|dial| dial.as_mut().poll(cx));
            if let Some(Poll::Ready(end)) = dial {
                drop(self.dials.swap_remove(at));
                return Poll::Ready(end);
            }
        }
        Poll::Pending
    }

    /// Begins to connect to the peer at this address, which is without its id.
    pub(super) fn begin(&mut self, peer: libp2p::PeerId, addr: &Multiaddr) -> io::Result<Attempt> {
        let stack = match &mut self.stack {
            Some(stack) => stack,
            none => {
                let key = Keypair::generate_ed25519();
                let resolver = dns::Resolver::of_this_thread();
                let stack = transport::build(&key, self.psk, resolver, Refusals::default())?;
                none.insert(stack)
            }
        };
        let opts = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let addr = addr.clone().with(Protocol::P2p(peer));
        stack.dial(addr, opts).map_err(io::Error::other)
    }
}

pub(super) type Attempt = <Boxed<(libp2p::PeerId, StreamMuxerBox)> as Transport>::Dial;

impl Net {
    /// What is to be known of this request to dial the peer back.
    pub(crate) fn asks_back(&self, peer: protocol::PeerId, id: RequestId, port: u16) -> Asked {
        let host = self.swarm.behaviour().streams.connection_of(id);
        let host = host.and_then(|connection| self.sources.get(&connection));
        let host = host.map(|source| source.host);
        let addr = host.and_then(|host| multiaddr(TransportAddr { host, port }));
        let is_own_host =
            addr.is_some_and(|addr| scope::is_loopback(&addr) || scope::is_of_this_host(&addr));
        Asked {
            peer,
            host,
            port,
            is_own_host,
        }
    }

    /// What may be spent on it.
    pub(crate) fn means(&self) -> Means {
        let limits = &self.swarm.behaviour().limits;
        Means {
            is_local: self.is_local(),
            // They are no connections of the swarm, but each takes a descriptor as one does.
            has_slot: limits.used() + self.back.dials.len() < limits.capacity(),
        }
    }

    /// Connects to the peer at this endpoint, for its request. Ends in a
    /// [`NetEvent::DialedBack`](super::NetEvent::DialedBack).
    pub(crate) fn dial_back(&mut self, peer: protocol::PeerId, at: TransportAddr, id: RequestId) {
        let own = *self.swarm.local_peer_id();
        let addr = multiaddr(at).unwrap_or_else(Multiaddr::empty);
        let dial = self.back.begin(peer.into(), &addr);
        self.back.dials.push(Box::pin(async move {
            let miss = |may_be_here, text: String| Some(Miss { text, may_be_here });
            let why = match dial {
                Err(error) => miss(true, error.to_string()),
                Ok(dial) => match within(DIAL_LIMIT, dial).await {
                    Some(Ok(_)) => None,
                    Some(Err(error)) => {
                        let (kind, text) = failure::cause_of(error, &own);
                        let text = match kind {
                            FailureKind::OwnIdentity => {
                                "the server itself answers there".to_owned()
                            }
                            _ => text,
                        };
                        miss(kind == FailureKind::Other, text)
                    }
                    None => miss(false, "no answer within 3 s".to_owned()),
                },
            };
            DialEnd {
                id,
                peer,
                addr,
                why,
            }
        }));
    }
}

/// The address of a host that is not a name.
fn multiaddr(at: TransportAddr) -> Option<Multiaddr> {
    let ip = match at.host {
        Host::V4(ip) => IpAddr::V4(ip),
        Host::V6(ip) => IpAddr::V6(ip),
        Host::Name(_) => return None,
    };
    Some(tcp::multiaddr(SocketAddr::new(ip, at.port)))
}
