//! The routing table of the DHT: the peers in it, and the addresses at which they are dialled.
//!
//! Invariant: each peer has its latest addresses, at most [`MAX_PEER_ADDRS`].

use libp2p::{
    Multiaddr, PeerId,
    core::Endpoint,
    kad::NodeStatus,
    swarm::{ConnectionId, NetworkBehaviour},
};

use super::{BUCKET_SIZE, Kademlia, MAX_PEER_ADDRS};
use crate::{
    net::{convert, providers::without_peer, scope::is_loopback},
    protocol::{self, Addrs},
};

/// A peer that announced by identify that it is a DHT server was found at these addresses. The
/// routing table takes them instead of those that it had. A peer that is new in the table is asked
/// for the peers near us: we learn of them, it learns of us, and both ends see that Kademlia uses
/// the connection.
pub(crate) fn route(
    kademlia: &mut Kademlia,
    own: PeerId,
    peer: &PeerId,
    addrs: impl Iterator<Item = Multiaddr>,
) {
    let addrs: Vec<_> = addrs
        .take(MAX_PEER_ADDRS)
        .filter_map(|addr| addr.with_p2p(*peer).ok())
        .collect();
    if addrs.is_empty() {
        return;
    }
    let known = addresses(kademlia, peer);
    for old in known.iter().filter(|old| !addrs.contains(old)) {
        kademlia.remove_address(peer, old);
    }
    for new in addrs {
        kademlia.add_address(peer, new);
    }
    if known.is_empty() {
        kademlia.get_closest_peers(own);
    }
}

/// Whether the routing table has a place for the peer: it is in it, its bucket is not full, or a
/// peer in it is not connected and gives way.
pub(crate) fn has_place(kademlia: &mut Kademlia, peer: &PeerId) -> bool {
    let Some(bucket) = kademlia.kbucket(*peer) else {
        return true;
    };
    bucket.num_entries() < BUCKET_SIZE.get()
        || bucket.iter().any(|entry| {
            entry.node.key.preimage() == peer || entry.status == NodeStatus::Disconnected
        })
}

/// The addresses of the peer in the routing table.
pub(crate) fn addresses(kademlia: &mut Kademlia, peer: &PeerId) -> Vec<Multiaddr> {
    kademlia
        .kbucket(*peer)
        .iter()
        .flat_map(|bucket| bucket.iter())
        .filter(|entry| entry.node.key.preimage() == peer)
        .flat_map(|entry| entry.node.value.iter().cloned())
        .collect()
}

/// Where Kademlia would dial the peer, by its routing table and by the answers to queries under
/// way; or else what the peer announced here.
pub(super) fn reachable_at(
    kademlia: &mut Kademlia,
    peer: &protocol::PeerId,
    loopback: bool,
) -> Addrs {
    let mut known = kademlia
        .handle_pending_outbound_connection(
            // The answer depends on the peer alone.
            ConnectionId::new_unchecked(0),
            Some((*peer).into()),
            &[],
            Endpoint::Dialer,
        )
        .unwrap_or_default();
    if known.is_empty() {
        known = kademlia.store_mut().providers.addrs(peer);
    }
    let mut usable = Vec::new();
    for addr in known.into_iter().map(|addr| without_peer(addr, peer)) {
        if (loopback || !is_loopback(&addr)) && !usable.contains(&addr) {
            usable.push(addr);
        }
    }
    convert::to_addrs(&usable)
}

/// Removes loopback addresses from the routing table, because any peer can ask for it.
pub(crate) fn forget_loopback(kademlia: &mut Kademlia) {
    let mut gone = Vec::new();
    for bucket in kademlia.kbuckets() {
        for entry in bucket.iter() {
            let local = entry.node.value.iter().filter(|addr| is_loopback(addr));
            gone.extend(local.map(|addr| (*entry.node.key.preimage(), addr.clone())));
        }
    }
    for (peer, addr) in gone {
        kademlia.remove_address(&peer, &addr);
    }
}
