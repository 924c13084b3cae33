//! What a watch hears, what it says, and what its host must do.

use core::time::Duration;

#[cfg(doc)]
use super::Watch;
use crate::protocol::{Addrs, Name, PeerId, Presence, machine::MAX_MOVED};

/// A node as a server lists it. Its record was verified.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// The node.
    pub peer: &'a PeerId,
    /// Its name.
    pub name: &'a Name,
    /// The sequence of its record.
    pub sequence: u64,
    /// A hash of all that makes a change: name, tags, services and addresses.
    pub contents: u64,
    /// The filter of this watch selects it.
    pub is_meant: bool,
}

/// What a server says.
#[derive(Clone, Copy, Debug)]
pub enum Statement<'a> {
    /// It lists this node.
    Here(Sighting<'a>),
    /// It lists this node no longer.
    Gone {
        /// The node.
        peer: &'a PeerId,
        /// It gave its lease up, or the lease ran out; alive: it is with another server, or is a
        /// server itself that is new.
        how: Presence,
    },
    /// It has said all that it lists.
    CaughtUp,
}

/// What is said of a node at once, when a server speaks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is there.
    Present,
    /// Its name, tags, services or addresses have changed.
    Changed,
    /// It is still there, but the filter no longer selects it.
    Excluded,
}

/// How far a list of servers goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Servers may be missing. None is dropped, and they are listed again soon.
    Part,
    /// All servers that the natives list which have answered.
    Known,
    /// All servers. Each native has answered.
    Whole,
}

/// What the host must do.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchStep {
    /// Find the servers that may list nodes, then call [`Watch::listed`].
    List,
    /// Open a stream to this server, and end the one that may be open; then call [`Watch::hear`]
    /// for each statement, and [`Watch::ended`].
    Open {
        /// The server.
        server: PeerId,
        /// Where it listens; empty if this is not known, or if the server is this process.
        addrs: Addrs,
    },
    /// Say that a node is gone.
    Gone {
        /// The node.
        peer: PeerId,
        /// The name that it had.
        name: Name,
        /// It left, or it was lost; alive: it left for a server that does not list it.
        how: Presence,
        /// The time since its last server said so.
        ago: Duration,
    },
    /// Say that all servers have caught up, except [`Watch::silent`].
    CaughtUp {
        /// For how long one of them was not heard; zero if all were.
        blind: Duration,
    },
}

const _: () = assert!(size_of::<WatchStep>() <= MAX_MOVED);
