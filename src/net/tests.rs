//! Several peers in one process, over loopback.

mod dialling;
mod directory;
mod heartbeat;
mod hostile;
mod providers;
mod records;
mod silent;
mod watching;
mod world;
