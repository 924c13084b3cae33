//! End to end: real processes on real TCP connections over loopback.
//!
//! Every test starts its own natives, indexers and nodes with shortened intervals, and waits with a
//! deadline for the expected state in their `status`. If a bound is part of the interface, it is
//! measured from an observed event.

mod askers;
mod bad_frames;
mod checks;
mod closed;
mod commands;
mod crowd;
mod dht_server;
mod dial_back;
mod draining;
mod ending;
mod garbage;
mod gc;
mod harness;
mod hosts;
#[cfg(feature = "http")]
mod http;
mod leases;
mod liars;
mod life;
mod listing;
mod logs;
mod memory;
mod mistakes;
mod natives;
mod network;
mod offload;
mod refresh;
mod reload;
mod restart;
mod service;
mod stranger;
mod stuck_reader;
mod support;
#[path = "../schema/mod.rs"]
mod validator;
mod watching;
mod wire;
