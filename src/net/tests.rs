//! Several peers in one process, over loopback.

mod directory;
mod heartbeat;
mod hostile;
mod records;
mod world;
