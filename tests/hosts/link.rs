//! Natives that are not configured: found on the link, and which of them are trusted.

use rustix::process::Signal;

use crate::harness::{Look as _, Peer, SLACK, eventually};
use crate::network::{Network, Running};

/// The native at this address, in the form of `--native`.
fn option(native: &Peer, ip: &str) -> String {
    format!("/ip4/{ip}/tcp/4820/p2p/{}", native.id)
}

#[test]
fn native_on_the_link_is_named_and_used_only_if_that_is_asked_for_or_it_is_remembered() {
    let Some(network) = Network::new() else {
        return;
    };
    let lan = network.switch("lan");
    let [native_host, node_host] = ["native", "node"].map(|n| network.host(n));
    lan.plug(&native_host, "eth0", &["192.168.77.9/24"]);
    lan.plug(&node_host, "eth0", &["192.168.77.2/24"]);
    let native = native_host.start("native", "native", &[]);

    let mut cautious = node_host.start("node", "cautious", &["--name", "cautious"]);
    let found = option(&native, "192.168.77.9");
    cautious.until("the native as found", SLACK, |status| {
        status.found_natives == [found.as_str()]
    });
    let status = cautious.status();
    assert!(status.natives.is_empty() && status.leases.is_empty());
    let log = cautious.log();
    assert!(log.contains(&format!("--native {found}")), "{log}");
    cautious.end(Signal::TERM);

    let mut node = node_host.start("node", "node", &["--name", "node", "--trust-lan"]);
    node.until("a lease", SLACK, |status| status.holds_lease_of(&native));
    let used = format!(
        "uses the native {}: found by multicast DNS, and trusted because --trust-lan is given",
        &found
    );
    assert!(node.log().contains(&used), "{}", node.log());
    node.end(Signal::TERM);

    // The native has another address now, and the node is no longer told to trust the link.
    native_host.ip(&[
        "addr del 192.168.77.9/24 dev eth0",
        "addr add 192.168.77.19/24 dev eth0",
    ]);
    let node = node_host.start("node", "node", &["--name", "node"]);
    node.until("a lease of the native that moved", SLACK, |status| {
        status.holds_lease_of(&native)
    });
    assert!(node.status().found_natives.is_empty());
    let used = format!(
        "uses the native {}: found by multicast DNS, and trusted because it is known from before",
        option(&native, "192.168.77.19")
    );
    assert!(node.log().contains(&used), "{}", node.log());
}

#[test]
fn without_multicast_dns_a_native_is_not_heard_and_nothing_listens() {
    let Some(network) = Network::new() else {
        return;
    };
    let lan = network.switch("lan");
    let [native_host, silent_host, node_host] =
        ["native", "silent", "node"].map(|n| network.host(n));
    for (n, host) in [&native_host, &silent_host, &node_host]
        .into_iter()
        .enumerate()
    {
        lan.plug(host, "eth0", &[&format!("192.168.77.{}/24", n + 1)]);
    }
    let silent = silent_host.start("native", "silent", &["--no-mdns"]);
    let native = native_host.start("native", "native", &[]);
    let node = node_host.start("node", "node", &[]);
    node.until("the native that is heard", SLACK, |status| {
        status.found_natives == [option(&native, "192.168.77.1").as_str()]
    });
    let open = std::fs::read_to_string(format!("/proc/{}/net/udp", silent.pid())).unwrap();
    assert!(!open.contains(":14E9 "), "UDP port 5353 is open: {open}");
    let open = std::fs::read_to_string(format!("/proc/{}/net/udp", native.pid())).unwrap();
    assert!(open.contains(":14E9 "), "{open}");
}

#[test]
fn indexer_whose_cable_comes_late_finds_the_native_of_its_private_network() {
    let Some(network) = Network::new() else {
        return;
    };
    let lan = network.switch("lan");
    let [native_host, indexer_host] = ["native", "indexer"].map(|n| network.host(n));
    lan.plug(&native_host, "eth0", &["192.168.77.9/24"]);
    lan.plug(&indexer_host, "eth0", &["192.168.77.2/24"]);
    lan.pull(&indexer_host, "eth0");
    let psk = network.world().path("swarm.key");
    std::fs::write(
        &psk,
        format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "5a".repeat(32)),
    )
    .unwrap();
    let psk = psk.to_str().unwrap();
    let native = native_host.start("native", "native", &["--psk", psk]);
    let indexer = indexer_host.start("indexer", "indexer", &["--psk", psk]);
    eventually("its warning", SLACK, || {
        indexer.log().contains("no native is known").then_some(())
    });
    lan.push(&indexer_host, "eth0");
    indexer.until("a lease", SLACK, |status| status.holds_lease_of(&native));
}

#[test]
fn native_that_the_search_domain_names_is_found_without_multicast_dns() {
    let Some(network) = Network::with_tools(&["dnsmasq"]) else {
        return;
    };
    let lan = network.switch("lan");
    let [native_host, node_host] = ["native", "node"].map(|n| network.host(n));
    lan.plug(&native_host, "eth0", &["192.168.77.9/24"]);
    lan.plug(&node_host, "eth0", &["192.168.77.2/24"]);
    network.file(
        "/etc/resolv.conf",
        "nameserver 127.0.0.1\nsearch site.example\n",
    );
    let native = native_host.start("native", "native", &[]);
    let found = option(&native, "192.168.77.9");
    let record = format!("--txt-record=_dnsaddr.oc-discovery.site.example,dnsaddr={found}");
    let settings = [
        "--no-daemon",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--group=root",
    ];
    let mut names = node_host.command("dnsmasq");
    names.args(settings).arg(record);
    let _names = Running::start(names);

    let cautious = node_host.start("node", "cautious", &["--no-mdns", "--name", "cautious"]);
    cautious.until("the native as found", SLACK, |status| {
        status.found_natives == [found.as_str()]
    });
    let node = node_host.start("node", "node", &["--no-mdns", "--trust-lan"]);
    node.until("a lease", SLACK, |status| status.holds_lease_of(&native));
    let used = "found by the DNS of a search domain, and trusted because --trust-lan is given";
    assert!(node.log().contains(used), "{}", node.log());
}
