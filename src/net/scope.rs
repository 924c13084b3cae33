//! Which connected peers are on this host, because only these can use loopback addresses, and in
//! which address families the other peers can dial.
//!
//! Invariants: one entry for each connected peer, and none for others; `far` counts those that are
//! not near. A peer is near if it connected over loopback or from an address of this host.

use std::{collections::HashMap, net::IpAddr};

use libp2p::{Multiaddr, multiaddr::Protocol};

use super::netlink::Host;
use crate::{
    net::convert,
    protocol::{
        Addrs, PeerId, Reader,
        address::{Families, TransportAddr},
    },
};

/// The connected peers, and where each is.
#[derive(Debug, Default)]
pub(super) struct Scope {
    peers: HashMap<PeerId, Seen>,
    /// How many peers are not near.
    far: usize,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    near: bool,
    /// The address families of the connections with it.
    families: Families,
    /// The local address of the last connection with it.
    end: Option<IpAddr>,
}

impl Scope {
    /// Takes note of a new connection with the peer; `remote` is its address, `end` the local one.
    /// Returns whether the peer is near.
    pub(super) fn connected(
        &mut self,
        peer: PeerId,
        remote: &Multiaddr,
        end: Option<IpAddr>,
    ) -> bool {
        let known = self.peers.get(&peer).copied();
        let was_near = known.map(|seen| seen.near);
        let near = was_near == Some(true) || is_loopback(remote) || is_of_this_host(remote);
        self.far -= usize::from(was_near == Some(false));
        self.far += usize::from(!near);
        let end = end.or(known.and_then(|seen| seen.end));
        let before = known.map_or(Families::NONE, |seen| seen.families);
        let families = before.and(TransportAddr::of(remote.as_ref()).host.family());
        let seen = Seen {
            near,
            families,
            end,
        };
        self.peers.insert(peer, seen);
        near
    }

    /// Takes note that the last connection with the peer has ended.
    pub(super) fn disconnected(&mut self, peer: &PeerId) {
        let gone = self.peers.remove(peer);
        self.far -= usize::from(gone.is_some_and(|seen| !seen.near));
    }

    /// Whether the peer is on this host.
    pub(super) fn is_near(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|seen| seen.near)
    }

    /// What the connections with the peer show of the addresses that it could dial.
    pub(super) fn reader(&self, peer: &PeerId) -> Reader {
        match self.peers.get(peer) {
            Some(seen) if seen.near => Reader::near(),
            Some(seen) => Reader::far(seen.families),
            None => Reader::far(Families::NONE),
        }
    }

    /// The local address of the last connection with the peer, if it is on another host.
    pub(super) fn end(&self, peer: &PeerId) -> Option<IpAddr> {
        let seen = self.peers.get(peer).filter(|seen| !seen.near)?;
        seen.end
    }

    /// Whether all connected peers are on this host.
    pub(super) fn is_local(&self) -> bool {
        self.far == 0
    }

    /// Gives back memory that is no longer needed.
    pub(super) fn shrink(&mut self) {
        self.peers.shrink_to_fit();
    }
}

/// The addresses as libp2p's type; those that cannot be read are left out.
pub(crate) fn multiaddrs(addrs: &Addrs) -> Vec<Multiaddr> {
    addrs
        .iter()
        .filter_map(|addr| convert::to_multiaddr(addr).ok())
        .collect()
}

/// Whether only this host can dial the address.
pub(super) fn is_loopback(addr: &Multiaddr) -> bool {
    ip(addr).is_some_and(|ip| ip.is_loopback())
}

/// The same for an address of the configuration, which may be a name.
pub(crate) fn is_for_this_host(addr: &Multiaddr) -> bool {
    match addr.iter().next() {
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
        _ => is_loopback(addr),
    }
}

/// Whether an interface of this host has the address.
pub(super) fn is_of_this_host(addr: &Multiaddr) -> bool {
    ip(addr).is_some_and(|ip| Host::of_this_thread().has(ip))
}

fn ip(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(IpAddr::from(ip).to_canonical()),
        _ => None,
    }
}

#[cfg(all(test, feature = "program"))]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn loopback_is_seen_in_every_form() {
        for local in [
            "/ip4/127.9.9.9/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/::ffff:127.0.0.1/tcp/1",
        ] {
            assert!(is_loopback(&addr(local)), "{local}");
        }
        for other in [
            "/ip4/192.0.2.1/tcp/1",
            "/ip6/::ffff:192.0.2.1/tcp/1",
            "/dns/localhost/tcp/1",
        ] {
            assert!(!is_loopback(&addr(other)), "{other}");
        }
    }

    #[test]
    fn names_of_loopback_are_for_this_host_too() {
        for (text, so) in [
            ("/dns/localhost/tcp/1", true),
            ("/dns4/gate.LocalHost./tcp/1", true),
            ("/dns/notlocalhost/tcp/1", false),
            ("/dns/localhost.example/tcp/1", false),
            ("/ip6/::1/tcp/1", true),
            ("/ip4/192.0.2.1/tcp/1", false),
        ] {
            assert_eq!(is_for_this_host(&addr(text)), so, "{text}");
        }
    }

    #[test]
    fn who_came_over_loopback_once_is_near_until_its_last_connection_is_gone() {
        let mut scope = Scope::default();
        let [near, far] = [1, 2].map(|n| PeerId::from_bytes([n; 32]));
        assert!(scope.connected(near, &addr("/ip4/127.0.0.1/tcp/1"), None));
        assert!(scope.connected(near, &addr("/ip4/192.0.2.1/tcp/1"), None));
        assert!(scope.is_near(&near) && scope.is_local());
        assert!(!scope.connected(far, &addr("/ip4/203.0.113.77/tcp/1"), None));
        assert!(!scope.is_near(&far) && !scope.is_local());
        assert!(!scope.connected(far, &addr("/ip4/203.0.113.77/tcp/2"), None));
        scope.disconnected(&far);
        assert!(scope.is_local());
        assert!(!scope.connected(far, &addr("/ip4/203.0.113.77/tcp/1"), None));
        assert!(scope.connected(far, &addr("/ip4/127.0.0.1/tcp/1"), None));
        assert!(scope.is_local(), "it is on this host after all");
        scope.disconnected(&far);
        scope.disconnected(&near);
        assert!(scope.is_local() && !scope.is_near(&near));
        assert!(scope.peers.is_empty());
    }

    #[test]
    fn the_families_of_all_connections_with_a_far_peer_show_what_it_can_dial() {
        let mut scope = Scope::default();
        let peer = PeerId::from_bytes([1; 32]);
        let unknown = Reader::far(Families::NONE);
        assert_eq!(scope.reader(&peer), unknown);
        scope.connected(peer, &addr("/ip4/203.0.113.77/tcp/1"), None);
        assert_eq!(scope.reader(&peer), Reader::far(Families::V4));
        scope.connected(peer, &addr("/ip6/2001:db8::1/tcp/1"), None);
        assert_eq!(scope.reader(&peer), Reader::far(Families::BOTH));
        scope.connected(peer, &addr("/ip6/::1/tcp/1"), None);
        assert_eq!(scope.reader(&peer), Reader::near());
        scope.disconnected(&peer);
        assert_eq!(scope.reader(&peer), unknown);
        scope.connected(peer, &addr("/dns/peer.example/tcp/1"), None);
        assert_eq!(scope.reader(&peer), unknown, "a name may be any");
    }
}
