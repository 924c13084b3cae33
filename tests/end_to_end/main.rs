//! End to end: real processes on real TCP connections over loopback.
//!
//! Every test starts its own natives, indexers and nodes with shortened intervals and waits for
//! what it wants to see in their `status`, with a deadline. Where a bound is part of the interface
//! it is measured from an event that was seen.

mod bad_frames;
mod commands;
mod crowd;
mod dht_server;
mod ending;
mod garbage;
mod gc;
mod harness;
mod hosts;
mod leases;
mod liars;
mod memory;
mod natives;
mod network;
mod offload;
mod refresh;
mod restart;
mod service;
mod stranger;
mod stuck_reader;
