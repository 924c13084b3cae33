//! The protocol core: it makes all decisions of the system.
//!
//! It has no I/O, no clock and no randomness of its own: `now` and seeds are arguments, events are
//! given as [`Input`], and actions are returned by a poll. It does not allocate: all
//! tables have a fixed capacity ([`capacities`]). So each rule has an exact test, and the whole
//! system runs in virtual time in `tests/simulation`.
//!
//! A host gives [`Input`]s to an [`endpoint`], and carries out each [`Action`]. In it is a
//! [`Node`], an [`Indexer`] or a [`Native`], each a [`Machine`], which can also be driven alone.
//! These modules are of use to a host:
//!
//! | module | what a host does with it |
//! |---|---|
//! | [`endpoint`] | drives one process by it: one loop, one match |
//! | [`codec`] | reads and writes the frames |
//! | [`lookup`] | looks up what is not here: which servers are asked, what their answers come to |
//! | [`listing`] | lists all nodes of the network: which servers are asked, and the rows of it |
//! | [`watch`] | tells others of changes in its directory, and follows the changes of all servers |
//! | [`link`] | looks for natives on the local link, and knows which natives to trust |
//! | [`health`] | leaves services out of the record while their checks fail |
//! | [`dial_back`] | asks whether others reach this process, and tells others the same |
//! | [`restart`] | keeps for the next start what was learned, and knows when to write it |
//! | [`grants`], [`closed`] | judges the grants of a closed network, and knows who belongs to it |
//! | [`clock`] | gives an endpoint the time where clocks disagree |
//! | [`zone`] | answers programs by DNS: what a question asks, and what its answer says |
//! | [`dns_sd`] | tells the local link of services found elsewhere: when, and by which names |
//! | [`capacities`] | sizes its tables |
//!
//! Rules without a page of their own are in [`signing`] (when the own record is signed),
//! [`farewell`] (how long a process that ends waits for its servers), `native/` (`offload`,
//! `refresh` and `gc`, one file each), `indexer.rs`, `node/`, `lease_table.rs` (leases granted:
//! `stream_records`, the staleness rule), `life.rs` (how they begin and end, for the log),
//! `rivals.rs` (two devices with one identity), `lease.rs` and `leases.rs` (leases held elsewhere),
//! `directory.rs` (the nodes that can be found here), `lost.rs` (the peers that left or were lost),
//! `announcing.rs` (what is announced in the DHT, and when), `address.rs` and `reader.rs` (which
//! addresses are of use to the peer that reads them).

pub(crate) mod address;
pub(crate) mod announcing;
pub mod capacities;
pub mod clock;
pub mod closed;
pub mod codec;
pub mod dial_back;
pub(crate) mod directory;
pub mod dns_sd;
pub mod endpoint;
pub mod farewell;
pub mod grants;
pub mod health;
pub(crate) mod indexer;
pub(crate) mod input;
pub(crate) mod lease;
pub(crate) mod lease_table;
pub(crate) mod leases;
pub(crate) mod life;
pub mod link;
pub mod listing;
pub mod lookup;
pub(crate) mod lost;
pub(crate) mod machine;
pub(crate) mod native;
pub(crate) mod node;
pub(crate) mod order;
pub(crate) mod reader;
pub mod restart;
pub(crate) mod rivals;
pub mod signing;
pub(crate) mod table;
pub(crate) mod time;
pub(crate) mod types;
pub mod watch;
pub mod zone;

pub use address::{Families, Host, Subnet, TransportAddr, distance, dns_name};
pub use announcing::{AnnounceEnd, Key};
pub use directory::{Claimants, Found};
pub use indexer::{Draining, Indexer, IndexerConfig};
pub use input::Input;
pub use lease::{Lease, Terms};
pub use lease_table::StreamRecord;
pub use life::{Arrival, EndCause, Joined, LeaseEnd, Placement, Shortage};
pub use lost::{Lost, LostPeer};
pub use machine::{Action, Machine, Report};
pub use native::{LiveIndexer, Native, NativeConfig, NewestIndexer, Responsible, Source};
pub use node::{MAX_MIN_INDEXERS, Node, NodeConfig};
pub use reader::Reader;
pub use rivals::{Contested, FirstBeat};
pub use table::{TableStats, Vacant};
pub use time::{Instant, LoopStats, Pace, Rng, not_running};
pub use types::*;
