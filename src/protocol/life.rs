//! What a server says of the leases that it grants: how each began, and how it ended.
//!
//! The reasons are those by which the core decided, so that a log can name them without a guess.
//!
//! Invariant: for each lease there is one beginning and one end. The end comes with
//! [`Action::Close`](super::Action::Close), the beginning with the outcome of the beat.

use core::time::Duration;

use super::{Role, address::TransportAddr};

/// What a beat has changed for its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrival {
    /// Nothing: its lease was renewed, or it has none.
    #[default]
    Known,
    /// It holds a lease now.
    Joined(Joined),
    /// Its stream had ended, or its lease had run out, but not been removed: it beats again.
    Back {
        /// Where its heartbeat stream comes from now, if the driver reported it.
        source: Option<TransportAddr>,
        /// Time since the beat before.
        away: Duration,
    },
    /// It beats from another host than before.
    Moved {
        /// Where it was.
        from: TransportAddr,
        /// Where it is.
        to: TransportAddr,
    },
    /// It was refused, because a device that has the same identity was kept;
    /// [`Action::Contested`](super::Action::Contested) names both.
    Rival,
}

/// The beginning of a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Where the peer's heartbeat stream comes from, if the driver reported it.
    pub source: Option<TransportAddr>,
    /// How long it was gone, if it left or was lost within a day.
    pub gone_for: Option<Duration>,
    /// Why a native took the node in; `None` for every other lease.
    pub shortage: Option<Shortage>,
}

/// Why a node has no indexer to go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shortage {
    /// `live_indexers` is empty.
    #[default]
    NoneLive,
    /// Of this many live indexers none answers a ping.
    Silent(u16),
    /// Of this many live indexers none that answers has a place and an address that the node can
    /// use.
    Unsuitable(u16),
    /// The node reported that each indexer that it was offered failed.
    OffersFailed,
}

/// What a lease is to its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The server is where its holder belongs: an indexer of a node, a native of the others.
    Registered,
    /// A native took the node in, until an indexer has a place for it.
    TakenIn,
}

impl Placement {
    /// The standing of a holder of this role with a server of that role.
    pub const fn of(holder: Role, server: Role) -> Self {
        match (holder, server) {
            (Role::Node, Role::Native) => Self::TakenIn,
            _ => Self::Registered,
        }
    }
}

/// The end of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseEnd {
    /// How it ended.
    pub how: EndCause,
    /// The role of its holder.
    pub role: Role,
    /// How long the peer had held it, in whole seconds.
    pub held_s: u32,
    /// Time since the holder's last beat, in whole seconds.
    pub silent_s: u32,
}

/// How a lease has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// The holder gave it up.
    Left,
    /// The holder was released, and gave it up.
    HandedOver,
    /// No beat came in time.
    Lost,
    /// It was released, and its lease ran out, whether it still beat or not.
    Released,
    /// Peers without any lease need its place, and the holder has another lease.
    Yielded,
    /// The holder has another role now.
    NewRole,
    /// The holder does not belong to the closed network, or not any more.
    Expelled,
}

/// A time in whole seconds.
pub(super) fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_at_a_native_is_taken_in() {
        for holder in [Role::Node, Role::Indexer, Role::Native] {
            for server in [Role::Indexer, Role::Native] {
                let is_taken_in = (holder, server) == (Role::Node, Role::Native);
                assert_eq!(
                    Placement::of(holder, server) == Placement::TakenIn,
                    is_taken_in
                );
            }
        }
    }
}
