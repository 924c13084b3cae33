//! What this peer announces about its own addresses.
//!
//! Invariants: identify and the record have the same addresses, in the same order; loopback
//! addresses are announced only to peers on this host.

use libp2p::Multiaddr;

use super::{
    Net, dht, dns,
    scope::{is_loopback, is_of_this_host},
};
use crate::protocol::{self, Reader, codec::record::MAX_RECORD_ADDRS};

impl Net {
    /// Addresses that we listen on, best first.
    pub(crate) fn listening(&self) -> Vec<Multiaddr> {
        self.addresses.listened()
    }

    /// The best address for peers on other hosts; a loopback address if there is no other; `None`
    /// if no address is known.
    pub(crate) fn best_addr(&self) -> Option<Multiaddr> {
        self.addresses.best()
    }

    /// The addresses for the own record and for identify.
    pub(crate) fn record_addrs(&self) -> &[Multiaddr] {
        &self.announced
    }

    /// What the connections with the peer show of the addresses that it could dial.
    pub(crate) fn reader(&self, peer: &protocol::PeerId) -> Reader {
        self.scope.reader(peer)
    }

    /// The operator announces these addresses from now on.
    #[cfg(feature = "program")]
    pub(crate) fn set_announce(&mut self, announce: super::addrs::Announce) {
        self.addresses.set_announce(announce);
        self.announce();
    }

    /// Gives libp2p the addresses of the record for identify to announce. Returns whether they
    /// changed.
    pub(super) fn announce(&mut self) -> bool {
        let now = self.addresses.record(MAX_RECORD_ADDRS);
        if now == self.announced {
            return false;
        }
        for gone in self.announced.iter().filter(|addr| !now.contains(addr)) {
            self.swarm.remove_external_address(gone);
        }
        for new in now.iter().filter(|addr| !self.announced.contains(addr)) {
            self.swarm.add_external_address(new.clone());
        }
        self.announced = now;
        if let Some(kademlia) = self.swarm.behaviour_mut().kademlia() {
            let providers = &mut kademlia.store_mut().providers;
            providers.set_own_addrs(&self.announced);
        }
        self.swarm.behaviour().streams.announce(&self.announced);
        self.confine();
        true
    }

    /// Whether the own record is useful to a server with these addresses. A record with loopback
    /// addresses only would lead a server on another host to itself.
    pub(super) fn may_show_record(&self, server: &protocol::PeerId, addrs: &[Multiaddr]) -> bool {
        let elsewhere =
            |addr: &Multiaddr| !(is_loopback(addr) || dns::is_name(addr) || is_of_this_host(addr));
        let only_loopback = self.announced.iter().all(is_loopback);
        !only_loopback
            || !self.announced.is_empty()
                && (self.scope.is_near(server) || !addrs.iter().all(elsewhere))
    }

    /// Whether a peer of another host is connected.
    pub(crate) fn has_far_peers(&self) -> bool {
        !self.scope.is_local()
    }

    /// Whether loopback addresses may be announced to every known peer, because all of them are on
    /// this host.
    pub(super) fn is_local(&self) -> bool {
        self.scope.is_local() && self.announced.iter().all(is_loopback)
    }

    /// Removes loopback addresses from what every peer is told, unless all peers are on this host.
    pub(super) fn confine(&mut self) {
        if !self.is_local()
            && let Some(kademlia) = self.swarm.behaviour_mut().kademlia()
        {
            dht::forget_loopback(kademlia);
        }
    }
}
