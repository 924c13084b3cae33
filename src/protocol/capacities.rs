//! The sizes of the tables, chosen when the program is built.
//!
//! `build.rs` writes these constants from environment variables; each one says its variable, its bounds and
//! its default. A value that makes no sense fails the build, so that no code has to check them again: every
//! capacity is at least 1, a native has a connection for each of its leases, and an indexer too.

include!(concat!(env!("OUT_DIR"), "/capacities.rs"));
