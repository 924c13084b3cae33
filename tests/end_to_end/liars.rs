//! A new node beside indexers that promise and do not keep it.

use std::net::TcpListener;
use std::time::Duration;

use super::harness::{Look, SLACK, World};

/// As many as fill an answer and one more.
const LIARS: [&str; 17] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q",
];

/// The lease of the defaults.
const TEMPO: [&str; 2] = ["--lease", "90s"];

/// The liars beat to the native and answer its pings; where they say that they are, connections are
/// taken and nothing is said.
#[test]
fn beside_17_liars_a_new_node_has_a_lease_within_3_s_and_an_honest_one_within_15_s() {
    let world = World::new();
    let native = world.native("native", &["--lease", "90s", "--offload-interval", "30s"]);
    let honest = ["honest", "other"].map(|name| world.indexer(name, &[&native], &TEMPO));
    for indexer in &honest {
        native.until("the honest", SLACK, |s| s.live(indexer).is_some());
    }
    let silent = LIARS.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let liars: Vec<_> = LIARS
        .into_iter()
        .zip(&silent)
        .map(|(name, listener)| {
            let port = listener.local_addr().unwrap().port();
            let addr = format!("/ip4/127.0.0.1/tcp/{port}");
            let [lease, length] = TEMPO;
            let args = [lease, length, "--announce", &addr, "--announce-only"];
            world.indexer(name, &[&native], &args)
        })
        .collect();
    for liar in &liars {
        native.until("a liar", SLACK, |s| s.live(liar).is_some());
    }

    let node = world.node(
        "node",
        &[&native],
        &["--lease", "90s", "--connect-interval", "60s"],
    );
    node.until("a lease", SLACK, |s| {
        s.holds_lease_of(&native) || honest.iter().any(|indexer| s.holds_lease_of(indexer))
    });
    let took = node.ready.elapsed();
    assert!(took <= Duration::from_secs(3), "{took:?}");
    node.until("an honest indexer's lease", SLACK, |s| {
        honest.iter().any(|indexer| s.holds_lease_of(indexer))
    });
    let took = node.ready.elapsed();
    assert!(took <= Duration::from_secs(15), "{took:?}");
    assert!(node.log().contains("asks 12D3Koo") || took <= Duration::from_secs(2));
}
