//! Multicast DNS (RFC 6762): asks the local links for natives, and answers there for this one.
//!
//! It multicasts only, because a unicast answer would reach only one of the responders of a host.
//!
//! Invariant: a packet counts only if it comes from port 5353, and from the link ([`links`]).

pub(crate) mod links;
mod message;
pub(crate) mod service;

use std::cell::Cell;
use std::rc::Rc;

use libp2p::{Multiaddr, PeerId};
use smol::channel::{Receiver, Sender, bounded};

use self::{
    links::{Hear, Links, PORT},
    message::{Heard, TTL},
};
use crate::protocol::{self, TableStats};

/// What was heard and the loop has not taken yet; more is dropped.
const MAX_HEARD: usize = 8;
/// What is said on the link.
#[derive(Debug)]
pub(crate) enum Said {
    /// A host asks for peers.
    Question,
    /// Natives are at these addresses, each with `/p2p` at its end.
    Natives(Vec<Multiaddr>),
}

/// What this process says and hears.
pub(crate) struct Mdns {
    own: PeerId,
    links: Links,
    said: Receiver<Said>,
    /// Messages that were dropped.
    dropped: Rc<Cell<u64>>,
}

impl Mdns {
    /// For the process `own`, without a link so far; see [`Mdns::join`].
    pub(crate) fn new(own: protocol::PeerId) -> Self {
        let own = own.into();
        let (sender, said) = bounded(MAX_HEARD);
        let dropped = Rc::new(Cell::new(0_u64));
        let links = Links::new(hearing(own, sender, Rc::clone(&dropped)));
        Self {
            own,
            links,
            said,
            dropped,
        }
    }

    /// The statistics of the messages that the loop has not taken yet.
    pub(crate) fn stats(&self) -> TableStats {
        TableStats {
            name: "mdns_messages",
            used: self.said.len(),
            capacity: MAX_HEARD,
            refused: self.dropped.get(),
            evicted: 0,
        }
    }

    /// What is said on the links comes here.
    pub(crate) fn said(&self) -> Receiver<Said> {
        self.said.clone()
    }

    /// Joins the group on all links that the host has now. To be called again after a change.
    pub(crate) fn join(&mut self) {
        self.links.join();
    }

    /// Leaves all links, so that messages of others there do not wake this process.
    pub(crate) fn close(&mut self) {
        self.links.close();
    }

    /// Asks all links for natives.
    pub(crate) fn ask(&self) {
        if let Ok(question) = message::question() {
            self.links.send(u16::MAX, question.as_ref());
        }
    }

    /// Tells all links that this native is at these addresses.
    pub(crate) fn answer(&self, addrs: &[Multiaddr]) {
        if let Ok(answer) = message::answer(&self.own, addrs, TTL) {
            self.links.send(u16::MAX, answer.as_ref());
        }
    }

    /// Tells all links that this native is leaving.
    pub(crate) fn leave(&self) {
        if let Ok(goodbye) = message::answer(&self.own, &[], 0) {
            self.links.send(u16::MAX, goodbye.as_ref());
        }
    }
}

/// Passes on what concerns natives, and counts what finds no room.
fn hearing(own: PeerId, to: Sender<Said>, dropped: Rc<Cell<u64>>) -> Hear {
    Rc::new(move |packet, from, _| {
        if from.port() != PORT {
            return;
        }
        let said = match message::read(packet, &own) {
            Some(Heard::Question) => Said::Question,
            Some(Heard::Natives(addrs)) => Said::Natives(addrs),
            None => return,
        };
        // A loop that has much else to do asks again later.
        if to.try_send(said).is_err() {
            dropped.set(dropped.get().saturating_add(1));
        }
    })
}

/// For `crate::fuzzing`.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = message::read(bytes, &protocol::PeerId::from_bytes([1; 32]).into());
    let _ = service::read(bytes);
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn message_without_room_is_dropped_and_counted() {
        let own = Keypair::generate_ed25519().public().to_peer_id();
        let (sender, said) = bounded(MAX_HEARD);
        let dropped = Rc::default();
        let hear = hearing(own, sender, Rc::clone(&dropped));
        let question = message::question().unwrap();
        for (port, heard, lost) in [(PORT, 8, 0), (PORT + 1, 8, 0), (PORT, 8, 8)] {
            for _ in 0..MAX_HEARD {
                hear(question.as_ref(), ([192, 0, 2, 1], port).into(), 1);
            }
            assert_eq!((said.len(), dropped.get()), (heard, lost), "{port}");
        }
    }
}
