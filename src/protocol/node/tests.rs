//! The node as a whole, in virtual time, with scripted servers.

mod attack;
mod natives;
mod offers;
mod refused;
mod released;
mod spare;

use std::vec::Vec;

use super::*;
use crate::protocol::input::tests::Events;
use crate::protocol::{AckCode, Addr, Offer, Offers};

const LEASE: Duration = Duration::from_secs(90);
const CONNECT: Duration = Duration::from_secs(60);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn addrs(n: u8) -> Addrs {
    [Addr::from_iter([n])].into_iter().collect()
}

fn offers(from: impl IntoIterator<Item = u8>) -> Offers {
    let offer = |n| Offer {
        peer: peer(n),
        addrs: addrs(n),
        ttl: LEASE,
        free: Some(8),
    };
    from.into_iter().map(offer).collect()
}

/// A native's answer, with its offers.
#[derive(Clone)]
struct Answer {
    offers: Offers,
    takes_in: bool,
}

impl Answer {
    fn as_answer(&self) -> Option<IndexersAnswer<'_>> {
        Some(IndexersAnswer {
            offers: &self.offers,
            takes_in: self.takes_in,
        })
    }
}

fn offering(from: impl IntoIterator<Item = u8>) -> Answer {
    Answer {
        offers: offers(from),
        takes_in: false,
    }
}

fn taking_in(from: impl IntoIterator<Item = u8>) -> Answer {
    Answer {
        takes_in: true,
        ..offering(from)
    }
}

/// The actions of the node that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    Asked(u8, Want),
    Beat(u8),
    Dropped(u8),
    GaveUp(u8),
}

use Did::{Asked, Beat, Dropped, GaveUp};

/// The node itself. With this id it asks natives 1, 2, 3 in this order.
const OWN: u8 = 250;

/// Natives have the numbers 1 to 9, indexers those from 10 on.
struct Rig {
    node: Node,
    now: u64,
}

impl Rig {
    fn new(min_indexers: usize, natives: impl IntoIterator<Item = u8>) -> Self {
        Self::of(OWN, min_indexers, natives)
    }

    fn of(own: u8, min_indexers: usize, natives: impl IntoIterator<Item = u8>) -> Self {
        let mut node = Node::new();
        let config = NodeConfig {
            terms: Terms {
                lease: LEASE,
                beat_interval: LEASE / 3,
            },
            connect_interval: CONNECT,
            min_indexers,
        };
        node.start(at(0), peer(own), 1, config);
        for n in natives {
            node.learn_native(at(0), peer(n), addrs(n));
        }
        Self { node, now: 0 }
    }

    /// All actions of the node at this instant.
    fn drain(&mut self) -> Vec<Did> {
        let number = |peer: &PeerId| peer.as_bytes()[0];
        let mut out = Vec::new();
        for _ in 0..1000 {
            match self.node.poll(at(self.now), 0) {
                Some(Action::Ask {
                    server,
                    ask: Ask::Offers(want),
                    ..
                }) => out.push(Asked(number(&server), want)),
                Some(Action::Beat { server, .. }) => out.push(Beat(number(&server))),
                Some(Action::Drop { server }) => out.push(Dropped(number(&server))),
                Some(Action::GiveUp { server, .. }) => out.push(GaveUp(number(&server))),
                Some(_) => {}
                None => {
                    assert!(self.node.timeout() > at(self.now), "it would spin");
                    return out;
                }
            }
        }
        panic!("poll does not come to an end");
    }

    /// Lets time pass up to and including `until`.
    fn run(&mut self, until: u64) -> Vec<(u64, Did)> {
        let mut out = Vec::new();
        loop {
            out.extend(self.drain().into_iter().map(|did| (self.now, did)));
            let next = self.node.timeout().as_millis().max(self.now);
            if next > until {
                self.now = until;
                return out;
            }
            self.now = next;
        }
    }

    /// As [`Rig::run`], and every server renews what it granted.
    fn run_held(&mut self, until: u64) -> Vec<(u64, Did)> {
        let mut out = Vec::new();
        loop {
            let next = self.node.timeout().as_millis().max(self.now);
            let did = self.run(next.min(until));
            for (_, did) in &did {
                if let Beat(server) = did {
                    self.accepted(*server);
                }
            }
            out.extend(did.into_iter().filter(|(_, did)| !matches!(did, Beat(_))));
            if next > until {
                return out;
            }
        }
    }

    fn answer(&mut self, native: u8, answer: &Answer) -> Vec<Did> {
        self.node
            .answered(at(self.now), &peer(native), answer.as_answer());
        self.drain()
    }

    fn no_answer(&mut self, native: u8) -> Vec<Did> {
        self.node.answered(at(self.now), &peer(native), None);
        self.drain()
    }

    fn ack(&mut self, server: u8, ack: &Ack) -> Vec<Did> {
        self.node.acked(at(self.now), &peer(server), ack);
        self.drain()
    }

    fn accepted(&mut self, server: u8) -> Vec<Did> {
        self.ack(server, &Ack::accepted(LEASE))
    }

    fn released(&mut self, server: u8, to: impl IntoIterator<Item = u8>) -> Vec<Did> {
        let offers = offers(to);
        let ack = Ack::released(LEASE, &offers);
        self.node.notified(at(self.now), &peer(server), &ack);
        self.drain()
    }

    fn closed(&mut self, server: u8) -> Vec<Did> {
        self.node.lease_closed(at(self.now), &peer(server));
        self.drain()
    }

    /// Servers with which leases are held.
    fn held(&self) -> Vec<u8> {
        let leases = self.node.leases.iter();
        let mut held: Vec<_> = leases
            .filter(|lease| lease.is_secure(at(self.now)))
            .map(|lease| lease.server().as_bytes()[0])
            .collect();
        held.sort_unstable();
        held
    }
}

/// Sorts the actions: asked, beat, dropped, gave up.
fn sorted(mut did: Vec<Did>) -> Vec<Did> {
    did.sort_by_key(|did| std::format!("{did:?}"));
    did
}

/// A node of native 1 that holds leases with these indexers.
fn holding(min_indexers: usize, indexers: impl IntoIterator<Item = u8> + Clone) -> Rig {
    let mut rig = Rig::new(min_indexers, [1]);
    rig.drain();
    rig.answer(1, &offering(indexers.clone()));
    for n in indexers.clone() {
        rig.accepted(n);
    }
    assert_eq!(rig.held(), indexers.into_iter().collect::<Vec<_>>());
    rig
}

/// A node that native 1 has taken in.
fn taken_in(natives: impl IntoIterator<Item = u8>) -> Rig {
    let mut rig = Rig::new(2, natives);
    rig.drain();
    assert_eq!(rig.answer(1, &taking_in([])), [Beat(1)]);
    rig.accepted(1);
    assert_eq!(rig.held(), [1]);
    rig
}
