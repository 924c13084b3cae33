//! Who may hear of which address: loopback addresses are of use to peers on this host only.
//!
//! Invariants: one entry for each connected peer, and none for others; `far` counts those that are not near. A peer is near if it
//! came over loopback or from an address of this host.

use std::{collections::HashMap, net::IpAddr};

use libp2p::{Multiaddr, multiaddr::Protocol};

use super::netlink::Host;
use crate::{
    protocol::{Addrs, Offers, PeerId},
    wire,
};

/// The connected peers, and whether each is near.
#[derive(Debug, Default)]
pub(super) struct Scope {
    near: HashMap<PeerId, bool>,
    /// How many are not.
    far: usize,
}

impl Scope {
    /// A connection with the peer was made; `remote` is its end. Returns whether the peer is near.
    pub(super) fn connected(&mut self, peer: PeerId, remote: &Multiaddr) -> bool {
        let known = self.near.get(&peer).copied();
        let near = known == Some(true) || is_loopback(remote) || is_of_this_host(remote);
        self.far -= usize::from(known == Some(false));
        self.far += usize::from(!near);
        self.near.insert(peer, near);
        near
    }

    /// The last connection with the peer is gone.
    pub(super) fn disconnected(&mut self, peer: &PeerId) {
        self.far -= usize::from(self.near.remove(peer) == Some(false));
    }

    /// The peer is on this host.
    pub(super) fn is_near(&self, peer: &PeerId) -> bool {
        self.near.get(peer).copied().unwrap_or_default()
    }

    /// All connected peers are on this host.
    pub(super) fn is_local(&self) -> bool {
        self.far == 0
    }

    /// Gives memory back that more peers have needed.
    pub(super) fn shrink(&mut self) {
        self.near.shrink_to_fit();
    }
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

fn is_of_this_host(addr: &Multiaddr) -> bool {
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
    use crate::protocol::Offer;

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
        assert!(scope.connected(near, &addr("/ip4/127.0.0.1/tcp/1")));
        assert!(scope.connected(near, &addr("/ip4/192.0.2.1/tcp/1")));
        assert!(scope.is_near(&near) && scope.is_local());
        assert!(!scope.connected(far, &addr("/ip4/203.0.113.77/tcp/1")));
        assert!(!scope.is_near(&far) && !scope.is_local());
        assert!(!scope.connected(far, &addr("/ip4/203.0.113.77/tcp/2")));
        scope.disconnected(&far);
        assert!(scope.is_local());
        assert!(!scope.connected(far, &addr("/ip4/203.0.113.77/tcp/1")));
        assert!(scope.connected(far, &addr("/ip4/127.0.0.1/tcp/1")));
        assert!(scope.is_local(), "it is on this host after all");
        scope.disconnected(&far);
        scope.disconnected(&near);
        assert!(scope.is_local() && !scope.is_near(&near));
        assert!(scope.near.is_empty());
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
