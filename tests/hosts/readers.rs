//! A node is offered only indexers that it can dial.

use crate::harness::{Look as _, SLACK};
use crate::network::Network;

#[test]
fn node_of_one_family_stays_with_its_native_until_an_indexer_of_that_family_comes() {
    for (node_ip, native_at, other_ip, own_ip) in [
        (
            "192.168.77.2/24",
            "/ip4/192.168.77.9",
            "fd77::1/64",
            "192.168.77.3/24",
        ),
        (
            "fd77::2/64",
            "/ip6/fd77::9",
            "192.168.77.1/24",
            "fd77::3/64",
        ),
    ] {
        let Some(network) = Network::new() else {
            return;
        };
        let lan = network.switch("lan");
        let names = ["native", "node", "other", "own"];
        let [native_host, node_host, other_host, own_host] = names.map(|name| network.host(name));
        lan.plug(&native_host, "eth0", &["192.168.77.9/24", "fd77::9/64"]);
        lan.plug(&node_host, "eth0", &[node_ip]);
        lan.plug(&other_host, "eth0", &[other_ip]);
        lan.plug(&own_host, "eth0", &[own_ip]);
        let native = native_host.start("native", "native", &[]);
        let at = |ip: &str| format!("{ip}/tcp/4820/p2p/{}", native.id);
        let native_in = |ip: &str| match ip.contains(':') {
            true => at("/ip6/fd77::9"),
            false => at("/ip4/192.168.77.9"),
        };
        let other = other_host.start("indexer", "other", &["--native", &native_in(other_ip)]);
        native.until("an indexer of the other family", SLACK, |status| {
            status.live(&other).is_some()
        });
        let node = node_host.start("node", "node", &["--native", &at(native_at)]);
        node.until("the native's lease", SLACK, |status| {
            status.is_under_native(&native)
        });
        // The loop runs although an indexer is reachable, and the node stays.
        native.until_runs("offload", 3);
        assert!(native.status().live(&other).is_some());
        assert!(node.status().is_under_native(&native));
        assert!(!native.log().contains("releases "), "{}", native.log());

        let own = own_host.start("indexer", "own", &["--native", &native_in(own_ip)]);
        node.until("a lease of the one that it can dial", SLACK, |status| {
            status.holds_lease_of(&own)
        });
    }
}
