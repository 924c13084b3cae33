//! Hosts as they are: daemons with networks of their own, whose cables, addresses and bridges come
//! and go.
//!
//! Each test makes its hosts in network namespaces ([`network`]) and waits for what it wants to
//! see, with a deadline. The processes and looking at them are those of the tests over loopback.

mod addresses;
mod copies;
#[path = "../end_to_end/harness.rs"]
#[allow(dead_code, reason = "the tests over loopback use more of it")]
mod harness;
mod network;
mod readers;
mod silent;
