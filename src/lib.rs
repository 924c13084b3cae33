//! `oc-discovery`: discovery for devices at the edge, without a cloud.
//!
//! Imports point downward only ([`architecture`]):
//!
//! ```text
//! main, cli ─▶ daemon ─▶ net ─▶ protocol
//!                └──▶ config
//! ```
//!
//! | module | what it is for |
//! |---|---|
//! | [`protocol`] | what the system decides, and its frames: pure, `no_std`, without a heap |
//! | `net` | libp2p on one thread: connections, streams, the DHT |
//! | `daemon` | the one loop, and what survives it |
//! | `config` | flags in, one checked configuration out |
//!
//! Without the feature `daemon` (on by default) only [`protocol`] is built, for devices that bring
//! their own network.

#![cfg_attr(not(any(feature = "embed", test)), no_std)]
// Denied and not forbidden, because `daemon::trim` calls malloc_trim(3) and madvise(2), and
// `daemon::control` calls getsockopt(2). They give their reasons.
#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

#[cfg(test)]
extern crate std;

/// `src/ARCHITECTURE.md`, which comments cite as ARCHITECTURE.md.
///
#[doc = include_str!("ARCHITECTURE.md")]
pub mod architecture {}

pub mod protocol;

#[cfg(feature = "embed")]
pub mod embed;

#[cfg(feature = "program")]
mod cli;
#[cfg(feature = "embed")]
pub mod config;
#[cfg(feature = "embed")]
pub mod daemon;
#[cfg(feature = "embed")]
pub mod net;
#[cfg(feature = "program")]
pub mod program;
