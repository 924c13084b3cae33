//! What the host does for the watches of its readers, and for its watchers.

use core::time::Duration;

use super::{ReaderId, WatcherId};
use crate::protocol::{Addrs, Name, PeerId, Presence};

/// Something that the driver must do for a watch or a watcher.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchAction {
    /// Open a watch stream to this server for a reader, with the reader's filter ([`Watches::of`]),
    /// and end the one that may be open. Then call [`Watches::told`] for its first frame, and
    /// [`Watches::ended`].
    ///
    /// [`Watches::of`]: super::Watches::of
    /// [`Watches::told`]: super::Watches::told
    /// [`Watches::ended`]: super::Watches::ended
    Open {
        /// The reader.
        reader: ReaderId,
        /// The server.
        server: PeerId,
        /// Where it listens; empty if this is not known.
        addrs: Addrs,
    },
    /// Read the next frame of this stream.
    ReadOn {
        /// The reader.
        reader: ReaderId,
        /// The server.
        server: PeerId,
    },
    /// Call [`Watches::hear_own`](super::Watches::hear_own).
    Hear {
        /// The reader.
        reader: ReaderId,
    },
    /// Tell the reader that a node is gone.
    Gone {
        /// The reader.
        reader: ReaderId,
        /// The node.
        peer: PeerId,
        /// The name that it had.
        name: Name,
        /// It left, or it was lost; alive: it left for a server that does not list it.
        how: Presence,
        /// The time since its last server said so.
        ago: Duration,
    },
    /// Tell the reader that all servers have caught up, except the silent ones of
    /// [`Watches::of`](super::Watches::of).
    CaughtUp {
        /// The reader.
        reader: ReaderId,
        /// For how long one of them was not heard; zero if all were.
        blind: Duration,
    },
    /// The reader was behind for too long, and its watch is over. End its streams.
    Behind {
        /// The reader.
        reader: ReaderId,
    },
    /// Write [`Watches::frames`](super::Watches::frames) on the stream of this watcher; then call
    /// [`Watchers::written`](super::server::Watchers::written).
    Notify {
        /// The watcher.
        watcher: WatcherId,
    },
    /// End the stream of this watcher.
    Dismiss {
        /// The watcher.
        watcher: WatcherId,
    },
}
