//! The servers of one lookup: each is asked once, and its progress is remembered.
//!
//! Invariant: at most `N` servers; one more finds no room, and the caller is told.

use heapless::Vec;

use crate::protocol::{PeerId, Tally};

/// A server, and its progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AskedServer {
    pub(crate) peer: PeerId,
    /// Queries that were sent to it.
    asked: u16,
    /// Queries that it has answered, or answered with an error.
    replied: u16,
    /// Pages of its list that are read besides its first answer.
    read_on: u8,
    /// It answered with an error, or with another kind of answer.
    is_refused: bool,
    /// Some of the servers that it asked have not answered it.
    is_partial: bool,
    /// It has taken leave in order, and its nodes have moved: it has nothing to answer.
    has_left: bool,
}

impl AskedServer {
    /// Whether it was asked and has not answered.
    pub(crate) fn is_silent(&self) -> bool {
        self.replied < self.asked && !self.has_left
    }

    /// Whether it was asked, and has taken leave.
    pub(super) fn has_left(&self) -> bool {
        self.has_left
    }

    /// Whether it has replied to every query, at least once with an error.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused && !self.is_silent()
    }

    /// Whether it has answered, but not for all servers that it asked itself.
    pub(crate) fn is_partial(&self) -> bool {
        self.is_partial && self.has_answered()
    }

    fn has_answered(&self) -> bool {
        self.asked > 0 && !self.is_silent() && !self.is_refused && !self.has_left
    }
}

/// What [`Servers::insert`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insert {
    New,
    Known,
    /// It is new, and there is no room for it.
    NoRoom,
}

/// A list of at most `N` servers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Servers<const N: usize>(Vec<AskedServer, N>);

impl<const N: usize> Servers<N> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a server that must be asked.
    pub(crate) fn insert(&mut self, peer: PeerId) -> Insert {
        if self.has(&peer) {
            return Insert::Known;
        }
        let server = AskedServer {
            peer,
            asked: 0,
            replied: 0,
            read_on: 0,
            is_refused: false,
            is_partial: false,
            has_left: false,
        };
        match self.0.push(server) {
            Ok(()) => Insert::New,
            Err(_) => Insert::NoRoom,
        }
    }

    /// Whether the server is in the list.
    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.0.iter().any(|server| server.peer == *peer)
    }

    /// Takes note that a query was sent to the server.
    pub(crate) fn asked(&mut self, peer: &PeerId) {
        if let Some(server) = self.find_mut(peer) {
            server.asked = server.asked.saturating_add(1);
        }
    }

    /// Takes note that a query to the server is of no interest any more.
    pub(super) fn taken_back(&mut self, peer: &PeerId) {
        if let Some(server) = self.find_mut(peer) {
            server.asked = server.asked.saturating_sub(1);
        }
    }

    /// Takes note that the server has answered a query.
    pub(crate) fn answered(&mut self, peer: &PeerId) {
        if let Some(server) = self.find_mut(peer) {
            server.replied = server.replied.saturating_add(1);
        }
    }

    /// Takes note that the server has replied to a query with an error.
    pub(crate) fn refused(&mut self, peer: &PeerId) {
        if let Some(server) = self.find_mut(peer) {
            server.replied = server.replied.saturating_add(1);
            server.is_refused = true;
        }
    }

    /// Whether one more page of the server's list may be read, of `left` in all; takes note of it.
    /// What exceeds its share of `share` pages must leave the other servers theirs.
    pub(super) fn reads_on(&mut self, peer: &PeerId, share: u8, left: usize) -> bool {
        let others = self.0.iter().filter(|server| server.peer != *peer);
        let unused = others.map(|server| usize::from(share.saturating_sub(server.read_on)));
        let reserved: usize = unused.sum();
        let Some(server) = self.find_mut(peer) else {
            return false;
        };
        let may = left > 0 && (server.read_on < share || left > reserved);
        server.read_on = server.read_on.saturating_add(may.into());
        may
    }

    /// Takes note that some of the servers that this server asked have not answered.
    pub(crate) fn lacks(&mut self, peer: &PeerId) {
        if let Some(server) = self.find_mut(peer) {
            server.is_partial = true;
        }
    }

    /// Takes note that a server which does not answer has taken leave.
    pub(super) fn left(&mut self, peer: &PeerId) {
        if let Some(server) = self.find_mut(peer).filter(|server| server.is_silent()) {
            server.has_left = true;
        }
    }

    /// Whether the server was asked and has not answered.
    pub(super) fn is_silent(&self, peer: &PeerId) -> bool {
        let mut all = self.0.iter();
        all.any(|server| server.peer == *peer && server.is_silent())
    }

    /// How many were asked, and how many of them have answered everything. One that has taken leave
    /// is none of them.
    pub(crate) fn tally(&self) -> Tally {
        let count = |is_meant: fn(&AskedServer) -> bool| {
            let servers = self.0.iter().filter(|server| is_meant(server)).count();
            u32::try_from(servers).unwrap_or(u32::MAX)
        };
        Tally {
            asked: count(|server| server.asked > 0 && !server.has_left),
            answered: count(AskedServer::has_answered),
        }
    }

    pub(crate) fn as_slice(&self) -> &[AskedServer] {
        &self.0
    }

    fn find_mut(&mut self, peer: &PeerId) -> Option<&mut AskedServer> {
        self.0.iter_mut().find(|server| server.peer == *peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    #[test]
    fn sixteenth_server_is_taken_in_and_the_seventeenth_is_not() {
        let mut servers = Servers::<16>::new();
        for n in 1..=15 {
            servers.insert(peer(n));
        }
        assert_eq!(servers.insert(peer(16)), Insert::New);
        assert_eq!(servers.insert(peer(17)), Insert::NoRoom);
        assert_eq!(servers.insert(peer(16)), Insert::Known);
    }

    #[test]
    fn server_counts_as_answered_when_it_owes_no_answer() {
        let mut servers = Servers::<2>::new();
        servers.insert(peer(1));
        servers.insert(peer(2));
        let tally = |asked, answered| Tally { asked, answered };
        assert_eq!(servers.tally(), tally(0, 0), "it only waits for its turn");
        servers.asked(&peer(1));
        servers.asked(&peer(1));
        servers.answered(&peer(1));
        assert_eq!(servers.tally(), tally(1, 0), "one of its two answers");
        servers.answered(&peer(1));
        assert_eq!(servers.tally(), tally(1, 1));
    }
}
