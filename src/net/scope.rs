//! Who may hear of which address: loopback addresses are of use to peers on this host only.
//!
//! Invariants: one entry for each connected peer, and none for others; `far` counts those that are not near. A peer is near if it
//! came over loopback or from an address of this host.

use std::{collections::HashMap, net::IpAddr};

use libp2p::{Multiaddr, multiaddr::Protocol};

use super::netlink::Host;
use crate::{
    protocol::{Addrs, Offer, Offers, PeerId},
    wire,
};

/// The connected peers, and where each is.
#[derive(Debug, Default)]
pub(super) struct Scope {
    peers: HashMap<PeerId, Seen>,
    /// How many are not near.
    far: usize,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    near: bool,
    /// Our own end of the last connection with it.
    end: Option<IpAddr>,
}

impl Scope {
    /// A connection with the peer was made; `remote` is its end, `end` our own. Returns whether the
    /// peer is near.
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
        self.peers.insert(peer, Seen { near, end });
        near
    }

    /// The last connection with the peer is gone.
    pub(super) fn disconnected(&mut self, peer: &PeerId) {
        let gone = self.peers.remove(peer);
        self.far -= usize::from(gone.is_some_and(|seen| !seen.near));
    }

    /// The peer is on this host.
    pub(super) fn is_near(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|seen| seen.near)
    }

    /// Our own end of the last connection with a peer on another host.
    pub(super) fn end(&self, peer: &PeerId) -> Option<IpAddr> {
        let seen = self.peers.get(peer).filter(|seen| !seen.near)?;
        seen.end
    }

    /// All connected peers are on this host.
    pub(super) fn is_local(&self) -> bool {
        self.far == 0
    }

    /// Gives memory back that more peers have needed.
    pub(super) fn shrink(&mut self) {
        self.peers.shrink_to_fit();
    }
}

/// Whether the offer has addresses of loopback alone.
pub(super) fn is_for_near(offer: &Offer) -> bool {
    let far = |addr| wire::to_multiaddr(addr).is_ok_and(|addr| !is_loopback(&addr));
    !offer.addrs.iter().any(|addr| far(addr))
}

/// The offers as a peer may see them.
pub(super) fn offers_for(near: bool, offers: &Offers) -> Offers {
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

/// An address that only this host can dial.
pub(super) fn is_loopback(addr: &Multiaddr) -> bool {
    ip(addr).is_some_and(|ip| ip.is_loopback())
}

/// An address that an interface of this host has.
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

#[cfg(test)]
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
    fn offers_to_a_far_peer_lose_loopback_addresses_and_those_with_no_other() {
        let offer = |addrs: &[&str]| Offer {
            peer: crate::protocol::PeerId::from_bytes([1; 32]),
            addrs: wire::to_addrs(&addrs.iter().map(|a| addr(a)).collect::<Vec<_>>()),
            ttl: std::time::Duration::from_secs(1),
            free: None,
        };
        let mut offers = Offers::new();
        offers.push(offer(&["/ip4/127.0.0.1/tcp/1"])).unwrap();
        offers
            .push(offer(&["/ip4/127.0.0.1/tcp/1", "/ip4/192.0.2.1/tcp/1"]))
            .unwrap();
        assert_eq!(offers_for(true, &offers), offers);
        let far = offers_for(false, &offers);
        assert_eq!(far.len(), 1);
        assert_eq!(multiaddrs(&far[0].addrs), [addr("/ip4/192.0.2.1/tcp/1")]);
    }
}
