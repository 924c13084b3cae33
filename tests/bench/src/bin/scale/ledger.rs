//! What is measured: which node is under a lease, and how much each peer has to do.

use crate::network::PeerNo;

/// A lease that a node holds: with which server, until when.
#[derive(Clone, Copy)]
struct Held {
    server: PeerNo,
    until: u64,
}

/// What a node holds at one moment.
#[derive(Clone, Copy, Default)]
pub struct Holding {
    /// Leases with live indexers.
    pub indexers: usize,
    /// Whether one with a live native.
    pub native: bool,
}

/// All leases of nodes, as their acks tell.
pub struct Ledger {
    held: Vec<Vec<Held>>,
}

impl Ledger {
    pub fn new(peers: usize) -> Self {
        Self {
            held: vec![Vec::new(); peers],
        }
    }

    /// A server has granted or renewed the node's lease.
    pub fn granted(&mut self, node: PeerNo, server: PeerNo, until: u64) {
        self.ended(node, server);
        self.held[node].push(Held { server, until });
    }

    /// The node has it no longer.
    pub fn ended(&mut self, node: PeerNo, server: PeerNo) {
        self.held[node].retain(|held| held.server != server);
    }

    /// The servers of a node's leases that have not run out.
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
