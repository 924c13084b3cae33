//! What a lookup has found, and how far it went.

use super::{FoundRecord, Question, servers::AskedServer};
use crate::protocol::{Count, Offer, PeerId, Role, Tally, watch::client::Extent};

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

    /// The servers that were asked, do not answer, and have taken leave in order, so that nothing
    /// is missing.
    pub fn left(&self) -> impl Iterator<Item = &'a PeerId> + use<'a> {
        self.servers_that(AskedServer::has_left)
    }

    /// The servers that answered with an error, or with something that is not an answer.
    pub fn refused(&self) -> impl Iterator<Item = &'a PeerId> + use<'a> {
        self.servers_that(AskedServer::is_refused)
    }

    /// The servers that answered, but not for all servers that they asked themselves.
    pub fn partial(&self) -> impl Iterator<Item = &'a PeerId> + use<'a> {
        self.servers_that(AskedServer::is_partial)
    }

    /// How far the list of indexers goes, for a watch of a process with this role.
    pub fn extent(&self, role: Role) -> Extent {
        // A native knows all of them, and those that cannot be asked are silent anyway.
        let is_known = self.tally.answered > 0 || role == Role::Native;
        match is_known && !self.more {
            false => Extent::Part,
            true if self.is_complete => Extent::Whole,
            true => Extent::Known,
        }
    }

    fn servers_that(
        &self,
        are_meant: fn(&AskedServer) -> bool,
    ) -> impl Iterator<Item = &'a PeerId> + use<'a> {
        let servers = self.servers.iter().filter(move |server| are_meant(server));
        servers.map(|server| &server.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(role: Role, answered: u32, more: bool, is_complete: bool) -> Extent {
        let outcome = Outcome {
            question: &Question::Indexers,
            records: &[],
            indexers: &[],
            more,
            claimants: Count::default(),
            tally: Tally { asked: 2, answered },
            is_complete,
            servers: &[],
        };
        outcome.extent(role)
    }

    #[test]
    fn list_is_whole_if_every_native_has_answered_and_partial_if_none_has() {
        assert_eq!(extent(Role::Node, 0, false, false), Extent::Part);
        assert_eq!(extent(Role::Node, 1, false, false), Extent::Known);
        assert_eq!(extent(Role::Node, 2, false, true), Extent::Whole);
        assert_eq!(extent(Role::Node, 2, true, true), Extent::Part, "it is cut");
    }

    #[test]
    fn native_knows_its_indexers_without_an_answer() {
        assert_eq!(extent(Role::Native, 0, false, false), Extent::Known);
        assert_eq!(extent(Role::Native, 0, false, true), Extent::Whole);
    }
}
