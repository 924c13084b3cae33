//! Changes as they happen (PROTOCOL.md, section 5): what a server tells its watchers, and what a
//! watcher makes of the words of many servers.
//!
//! ```text
//!  server                                            watcher
//!   Directory ─▶ Changes ─▶ Watchers ───frames────▶ Watch ─▶ present, changed, left, lost
//!   (records)    (ids, 512)  (32, each with a         (which server holds which node)
//!                             filter and a place)
//! ```
//!
//! [`Changes`] keeps only *which* nodes changed. A frame is made from the directory when it is
//! sent, so that no record is copied, and so that of several changes of one node only the last is
//! sent.
//!
//! The invariants are in [`server`] and [`client`].

mod action;
mod changes;
pub mod client;
mod hearing;
pub mod server;
mod watches;

#[cfg(test)]
mod tests;

pub use action::WatchAction;
pub use changes::{Change, Changes, Ring, fingerprint};
pub(crate) use changes::{MAX_CHANGES, fingerprint_of};
pub use hearing::{ChangedNode, NoticeError};
pub use watches::{OWN_PAUSE, ReaderId, Watches};

/// Names one stream on which a server tells this process of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub u64);

/// Names one stream on which this process tells a peer of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatcherId(pub u64);
