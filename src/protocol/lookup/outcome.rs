//! What a lookup has found, and how far it went.

use super::{FoundRecord, Question, servers::AskedServer};
use crate::protocol::{Count, Offer, PeerId, Tally};

/// The outcome of a lookup.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// The question of the lookup.
    pub question: &'a Question,
    /// The records found, one for each peer, best first.
    pub records: &'a [FoundRecord],
    /// For [`Question::Indexers`]: the indexers. For [`Question::Peer`]: the peer as natives list
    /// it.
    pub indexers: &'a [Offer],
    /// Whether there are more records or indexers than these.
    pub more: bool,
    /// For [`Question::Name`]: how many different nodes claim it.
    pub claimants: Count,
    /// Servers that this lookup asked, and those that answered, each once. Each server asked has
    /// answered, is silent or has refused.
    pub tally: Tally,
    /// Whether nothing is missing: all servers asked have answered, and nothing was left out.
    pub is_complete: bool,
    pub(super) servers: &'a [AskedServer],
}

impl<'a> Outcome<'a> {
    /// The servers that were asked and have not answered.
    pub fn silent(&self) -> impl Iterator<Item = &'a PeerId> + use<'a> {
        self.servers_that(AskedServer::is_silent)
    }

    /// The servers that answered with an error, or with something that is not an answer.
    pub fn refused(&self) -> impl Iterator<Item = &'a PeerId> + use<'a> {
        self.servers_that(AskedServer::is_refused)
    }

    /// The servers that answered, but not for all servers that they asked themselves.
    pub fn partial(&self) -> impl Iterator<Item = &'a PeerId> + use<'a> {
        self.servers_that(AskedServer::is_partial)
    }

    fn servers_that(
        &self,
        are_meant: fn(&AskedServer) -> bool,
    ) -> impl Iterator<Item = &'a PeerId> + use<'a> {
        let servers = self.servers.iter().filter(move |server| are_meant(server));
        servers.map(|server| &server.peer)
    }
}
