//! Discovery for devices at the edge, without a cloud. A *node* can be found and finds others by
//! name, an *indexer* grants leases to nodes, and a *native* is the entry point: every device is
//! given its address. This is the program's library: the protocol as an endpoint without I/O,
//! and a node that can be embedded.
//!
//! **Depend on it with `default-features = false`**, and with the feature `embed` or none. The
//! default feature is the program: it compiles all traces out of your whole tree of dependencies.
//!
//! # Start here, with a network stack of your own
//!
//! [`protocol`] decides and reads and writes the frames: `no_std`, without an allocator, a clock or
//! a socket. You give it events and the time, and carry out its actions. The whole of it, with a
//! small `Runtime` trait and a network in memory, is in `tests/examples/runtime.rs`:
//!
//! ```
//! use core::time::Duration;
//! use oc_discovery::protocol::{
//!     Action, Addr, Addrs, Input, Instant, Node, NodeConfig, PeerId, Terms, clock::WallClock,
//!     endpoint::Endpoint, listing::NoListings, lookup::Lookups, watch::Watches,
//! };
//!
//! let mut now = Instant::from_millis(0);
//! let mut node = Node::new();
//! let terms = Terms {
//!     lease: Duration::from_secs(90),
//!     beat_interval: Duration::from_secs(30),
//! };
//! let connect_interval = Duration::from_secs(60);
//! let config = NodeConfig { terms, connect_interval, min_indexers: 1 };
//! let own = PeerId::from_bytes([1; 32]);
//! node.start(now, own, 7, config);
//! // It looks nothing up, and lists and watches nothing.
//! let (mut lookups, mut watches) = (Lookups::<0, 0, 0>::new(), Watches::<0, 1, 0>::new());
//! let (listings, clock) = (NoListings::new(own), WallClock::new(0));
//! let mut endpoint = Endpoint::new(now, &mut node, &mut lookups, &mut watches, listings, clock);
//!
//! // /ip4/192.0.2.1/tcp/4820, as a binary multiaddress.
//! let addr = Addr::from_slice(&[4, 192, 0, 2, 1, 6, 0x12, 0xd4]).unwrap();
//! let (native, addrs) = (&PeerId::from_bytes([2; 32]), &Addrs::from_iter([addr]));
//! endpoint.handle(now, Input::NativeLearned { native, addrs });
//!
//! // The node asks its native for indexers when its first round is due.
//! let asked = loop {
//!     match endpoint.poll(now, 0) {
//!         Some(Action::Ask { server, .. }) => break server,
//!         Some(_) => {}
//!         None => now = endpoint.next_timeout().unwrap(),
//!     }
//! };
//! assert_eq!(asked, *native);
//! ```
#![cfg_attr(
    feature = "embed",
    doc = r#"
# Start here, with a node in your program

[`embed`] runs a node on a thread of its own: `async`, without a logger or signals, several in a process.
All of it runs in `tests/examples/embedded.rs`.

```no_run
# async fn example() -> Result<(), oc_discovery::embed::Error> {
use oc_discovery::embed::Discovery;

let discovery = Discovery::builder()
    .native("/ip4/203.0.113.7/tcp/4820/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp")
    .name("lamp-1")
    .service("http", 8080)
    .spawn()
    .await?;
let found = discovery.find("pump-3").await?;
println!("{:?}, complete: {}", found.records, found.complete);
# Ok(()) }
```

`find` looks up a name or a peer id, `nodes` lists nodes by service, tags, name and state, and `watch` tells of each
change as it happens.
"#
)]
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `core` | nothing: [`protocol`] is always there, and all that `default-features = false` has |
//! | `embed` | the module `embed`: a node in your program, on libp2p |
//! | `program` (default) | what only the binary needs; see below |
//! | `dns` (default) | the program answers other programs by DNS (`--dns`); includes `program` |
//! | `http` (default) | the program answers monitoring and browsers by HTTP (`--http`); includes `program` |
//! | `mdns` (default) | the program finds and answers by multicast DNS; includes `program` |
//!
//! `program` has the command line, logs, signals and the control socket. For the whole tree of
//! dependencies it sets `tracing/max_level_off`, and `idna_adapter` without Unicode tables. It is
//! the default so that `cargo run` and `cargo test` need no flag. With `mdns`, an indexer or a node
//! finds natives on the local link, and a native answers there.
//!
//! # What does not travel to dependents
//!
//! Cargo takes `[patch.crates-io]` from the workspace that builds, never from a dependency. This
//! program replaces three crates below libp2p; a program that embeds a node gets the published
//! ones, which also work. But `futures-timer` then costs a further thread and two wake-ups for each
//! timer of libp2p, `asynchronous-codec` 16 KiB for each connection, and `x25519-dalek` some of the
//! time of each handshake. To use the replacements, put into your own `Cargo.toml`, with the path
//! or git address of this repository:
//!
//! ```toml
//! [patch.crates-io]
//! asynchronous-codec = { path = "oc-discovery/targets/asynchronous-codec" }
//! futures-timer = { path = "oc-discovery/targets/futures-timer" }
//! x25519-dalek = { path = "oc-discovery/targets/x25519-dalek" }
//! ```
//!
//! Profiles (`opt-level`, `lto`, `panic`) do not travel either, and capacities are those of the
//! `OC_DISCOVERY_MAX_…` variables when your program is built ([`protocol::capacities`]).
//!
//! # Further
//!
//! [`architecture`]: how it is put together. [`protocol::codec::specification`]: what is on the
//! wire.

#![cfg_attr(not(any(feature = "embed", test)), no_std)]
// Denied, not forbidden: `daemon::trim` calls malloc_trim(3) and madvise(2), `daemon::control`
// getsockopt(2), `daemon::untouched` is an allocator; their comments say why.
#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]
// Nothing from outside may end the process: see CONTRIBUTING.md.
#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

#[cfg(test)]
extern crate std;

/// `src/ARCHITECTURE.md`, which comments cite as ARCHITECTURE.md.
///
#[doc = include_str!("ARCHITECTURE.md")]
pub mod architecture {}

pub mod protocol;

#[cfg(feature = "embed")]
pub mod embed;

#[cfg(all(fuzzing, feature = "program"))]
pub mod fuzzing;

#[cfg(feature = "program")]
mod cli;
#[cfg(feature = "program")]
pub mod program;

#[cfg(feature = "embed")]
mod config;
#[cfg(feature = "embed")]
mod daemon;
#[cfg(feature = "embed")]
mod net;
