//! The measurements: which nodes hold a lease, and how many messages each peer receives.

use crate::network::PeerNo;

/// A lease that a node holds: its server and its expiry.
#[derive(Clone, Copy)]
struct Held {
    server: PeerNo,
    until: u64,
}

/// The leases of a node at one moment.
#[derive(Clone, Copy, Default)]
pub struct Holding {
    /// Leases with live indexers.
    pub indexers: usize,
    /// Whether it holds a lease with a live native.
    pub native: bool,
}

/// All leases of nodes, according to their acks.
pub struct Ledger {
    held: Vec<Vec<Held>>,
}

impl Ledger {
    pub fn new(peers: usize) -> Self {
        Self {
            held: vec![Vec::new(); peers],
        }
    }

    /// Takes note that a server has granted or renewed the node's lease.
    pub fn granted(&mut self, node: PeerNo, server: PeerNo, until: u64) {
        self.ended(node, server);
        self.held[node].push(Held { server, until });
    }

    /// Takes note that the node no longer has the lease.
    pub fn ended(&mut self, node: PeerNo, server: PeerNo) {
        self.held[node].retain(|held| held.server != server);
    }

    /// The servers of a node's leases that have not expired.
    pub fn servers(&self, node: PeerNo, now: u64) -> impl Iterator<Item = PeerNo> {
        let held = self.held[node].iter();
        held.filter(move |held| now <= held.until)
            .map(|held| held.server)
    }
}

/// Messages that a peer has received, by the second.
#[derive(Clone, Copy, Default)]
pub struct Work {
    second: u64,
    count: u64,
    peak: u64,
}

impl Work {
    pub fn count(&mut self, now: u64) {
        if now / 1000 != self.second {
            self.second = now / 1000;
            self.count = 0;
        }
        self.count += 1;
        self.peak = self.peak.max(self.count);
    }

    /// The most in one second.
    pub fn peak(&self) -> u64 {
        self.peak
    }
}
