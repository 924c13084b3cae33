//! A new node among indexers that do not keep their promises.

pub(crate) mod liar;

use std::net::TcpListener;
use std::time::Duration;

use self::liar::{Liars, Lie};
use super::harness::{Look, Peer, SLACK, World, eventually};
use super::stranger::socket;

/// One more than fill an answer.
const LIARS: [&str; 17] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q",
];

/// The default lease.
const TEMPO: [&str; 2] = ["--lease", "90s"];

/// The liars beat to the native and answer its pings. At their addresses, connections are accepted
/// and nothing is answered.
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
    assert!(node.log().contains("asks native …") || took <= Duration::from_secs(2));
}

/// Enough liars to fill an answer twelve times.
const MANY: usize = 200;
/// Three times the bounds of the interface, which are 3 s and 15 s, because this machine also does
/// the work of all liars. The stories of `tests/simulation` check the rule in virtual time.
const FIRST: Duration = Duration::from_secs(9);
const HOME: Duration = Duration::from_secs(45);

/// The native knows the honest indexers, and then the liars. A new node soon holds a lease.
fn beside_many(lie: Lie) {
    let world = World::new();
    let native = world.native("native", &["--lease", "90s", "--offload-interval", "30s"]);
    let honest = ["honest", "other"].map(|name| world.indexer(name, &[&native], &TEMPO));
    for indexer in &honest {
        native.until("the honest", SLACK, |s| s.live(indexer).is_some());
    }
    let liars = Liars::new(socket(&native), MANY, Duration::from_secs(90), lie);
    native.until("all liars", SLACK * 3, |s| {
        s.live_indexers.len() == honest.len() + liars.ids.len()
    });
    let tempo = ["--lease", "90s", "--connect-interval", "60s"];
    let node = world.node("node", &[&native], &tempo);
    let holds = |peers: &[&Peer]| {
        let status = node.status();
        peers.iter().any(|peer| status.holds_lease_of(peer))
    };
    let [one, other] = &honest;
    eventually("a lease", FIRST * 2, || {
        holds(&[&native, one, other]).then_some(())
    });
    let first = node.ready.elapsed();
    eventually("an honest lease", HOME * 2, || {
        holds(&[one, other]).then_some(())
    });
    let home = node.ready.elapsed();
    println!("{MANY} liars: a lease after {first:?}, an honest indexer's after {home:?}");
    assert!(first <= FIRST, "{first:?}");
    assert!(home <= HOME, "{home:?}");
    assert_ne!(node.status().used("failures"), 0, "it met no liar");
}

#[test]
fn beside_200_liars_that_say_nothing_a_new_node_has_a_lease_soon_and_then_an_honest_one() {
    beside_many(Lie::Silent);
}

#[test]
fn beside_200_liars_that_are_full_a_new_node_has_a_lease_soon_and_then_an_honest_one() {
    beside_many(Lie::Full);
}
