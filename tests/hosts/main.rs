//! Real hosts: daemons with networks of their own, with cables, addresses and bridges that change.
//!
//! Each test makes its hosts in network namespaces ([`network`]), and waits with a deadline for the
//! expected state. It uses the harness of the tests over loopback.

mod addresses;
#[cfg(all(feature = "dns", feature = "mdns"))]
mod avahi;
mod copies;
#[cfg(feature = "dns")]
mod dns;
#[path = "../end_to_end/harness.rs"]
#[allow(dead_code, reason = "the tests over loopback use more of it")]
mod harness;
mod journal;
#[cfg(feature = "mdns")]
mod link;
mod network;
mod reach;
mod readers;
mod silent;
