//! What the network side tells of its own addresses.
//!
//! Invariants: identify and the record have the same addresses, in the same order; loopback
//! addresses are told to peers on this host alone.

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

    /// The address by which peers on other hosts reach us best; one of loopback if there is no
    /// other. `None`: none is known.
    pub(crate) fn best_addr(&self) -> Option<Multiaddr> {
        self.addresses.best()
    }

    /// Addresses for the own record, and for identify.
    pub(crate) fn record_addrs(&self) -> &[Multiaddr] {
        &self.announced
    }

    /// What the connections with the peer show of the addresses that it could dial.
    pub(crate) fn reader(&self, peer: &protocol::PeerId) -> Reader {
        self.scope.reader(peer)
    }

    /// Tells libp2p what identify is to announce: what the record says. Returns whether it changed.
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
        self.swarm.behaviour().streams.announce(&self.announced);
        self.confine();
        true
    }

    /// Whether the own record is of use to a server with these addresses: loopback alone would lead
    /// one on another host to itself.
    pub(super) fn may_show_record(&self, server: &protocol::PeerId, addrs: &[Multiaddr]) -> bool {
        let elsewhere =
            |addr: &Multiaddr| !(is_loopback(addr) || dns::is_name(addr) || is_of_this_host(addr));
        let only_loopback = self.announced.iter().all(is_loopback);
        !only_loopback
            || !self.announced.is_empty()
                && (self.scope.is_near(server) || !addrs.iter().all(elsewhere))
    }

    /// Whether loopback addresses may be told to everybody we know: all of us are on this host.
    pub(super) fn is_local(&self) -> bool {
        self.scope.is_local() && self.announced.iter().all(is_loopback)
    }

    /// Takes loopback addresses out of what is told to everybody, if not everybody is on this host.
    pub(super) fn confine(&mut self) {
        if !self.is_local()
            && let Some(kademlia) = self.swarm.behaviour_mut().kademlia()
        {
            dht::forget_loopback(kademlia);
        }
    }
}
