//! Several peers in one process, over loopback.

mod dialling;
mod directory;
mod heartbeat;
mod hostile;
mod providers;
mod records;
mod watching;
mod world;
