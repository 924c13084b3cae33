//! What the program reads from outside and has no public decoder, for `tests/fuzz`. It is there
//! only when a fuzzer is built.
//!
//! Whatever the bytes are, nothing panics.

use crate::{
    config::{self, Flags},
    daemon,
    net::{self, convert::parse_key, envelope},
    protocol::Role,
};

/// The signed envelope of a record, and a key of the DHT.
pub fn envelope(bytes: &[u8]) {
    let _ = (envelope::open_indexer(bytes), envelope::open_node(bytes));
    let _ = parse_key(bytes);
}

/// A file of settings, for a process with this role.
pub fn config(path: &str, role: Role) {
    let flags = Flags {
        config: Some(path.to_owned()),
        ..Flags::default()
    };
    let _ = config::load(role, &flags, &|_| None);
}

/// A request on the control socket.
pub fn control(bytes: &[u8]) {
    daemon::control::fuzz(bytes);
}

/// A request of HTTP, and the query in its target.
pub fn http(bytes: &[u8]) {
    daemon::http::fuzz(bytes);
}

/// A query to the own DNS server, and the answer of another one.
pub fn dns(bytes: &[u8]) {
    net::dns::fuzz(bytes);
}

/// A message of multicast DNS.
pub fn mdns(bytes: &[u8]) {
    net::mdns::fuzz(bytes);
}

/// The file with what a process remembers.
pub fn state(bytes: &[u8]) {
    daemon::storage::fuzz(bytes);
}
