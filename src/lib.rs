//! oc-discovery
#![cfg_attr(not(any(feature = "daemon", test)), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]
#[cfg(test)]
extern crate std;
pub mod protocol;
