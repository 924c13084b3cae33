//! The protocol core: it makes all decisions of the system.
//!
//! It has no I/O, no clock and no randomness of its own: `now` and seeds are arguments, events are
//! given as [`Input`], and actions are returned by [`Machine::poll`]. It does not allocate: all
//! tables have a fixed capacity ([`capacities`]). So each rule has an exact test, and the whole
//! system runs in virtual time in `tests/simulation`.
//!
//! | file | what it decides |
//! |---|---|
//! | [`native`] | the native: `offload`, `refresh`, `gc`, one file each |
//! | [`indexer`] | the indexer |
//! | [`node`] | the node: connect-to-natives |
//! | [`lease_table`] | leases granted: `stream_records`, the staleness rule |
//! | [`rivals`] | two devices with one identity |
//! | [`lease`], [`leases`] | leases held elsewhere |
//! | [`signing`] | when the own record is signed |
//! | [`health`] | when services are checked, and which are left out of the own record |
//! | [`restart`] | what is kept for the next start, and when it is written |
//! | [`directory`] | the nodes that can be found here |
//! | [`announcing`] | which names and services are announced in the DHT, and when |
//! | [`lookup`] | which servers are asked for what is not here, and what their answers come to |
//! | [`codec`] | the frames: bytes to words of the protocol and back |
//! | [`clock`] | what time it is, if clocks disagree |
//! | [`address`] | which host and prefix an address leads to |
//! | [`reader`] | which addresses are of use to the peer that reads them |

pub mod address;
pub mod announcing;
pub mod capacities;
pub mod clock;
pub mod codec;
pub mod directory;
pub mod health;
pub mod indexer;
pub mod input;
pub mod lease;
pub mod lease_table;
pub mod leases;
pub mod lookup;
pub mod machine;
pub mod native;
pub mod node;
pub mod reader;
pub mod restart;
pub mod rivals;
pub mod signing;
pub mod table;
pub mod time;
pub mod types;

pub use address::Endpoint;
pub use announcing::Key;
pub use indexer::{Indexer, IndexerConfig};
pub use input::Input;
pub use lease::Terms;
pub use machine::{Action, Machine, Report};
pub use native::{Native, NativeConfig};
pub use node::{Node, NodeConfig};
pub use reader::Reader;
pub use table::TableStats;
pub use time::{Instant, Rng};
pub use types::*;
