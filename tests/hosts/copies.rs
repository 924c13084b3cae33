//! Two devices with one identity, for example from a copied SD card.

use std::{fs, time::Duration};

use crate::harness::{Look as _, Peer, World};
use crate::network::{Host, Network};

/// Enough for three replacements: the device that lost its stream comes back within moments.
const IN_TIME: Duration = Duration::from_secs(40);

fn log_lines(peer: &Peer, what: &str) -> usize {
    peer.log()
        .lines()
        .filter(|line| line.contains(what))
        .count()
}

/// Starts a device with the identity of another.
fn start_copy(world: &World, host: &Host<'_>, role: &str, of: &Peer, args: &[&str]) -> Peer {
    let copied = world.path("copy");
    fs::create_dir(&copied).unwrap();
    fs::copy(of.dir().join("identity"), copied.join("identity")).unwrap();
    let copy = host.start(role, "copy", args);
    assert_eq!(copy.id, of.id);
    copy
}

/// Whether the operator of the refused device sees where the other one is.
fn knows_why(copy: &Peer, other: &str) {
    copy.until("the reason", IN_TIME, |s| {
        let mut troubles = s.troubles.iter();
        troubles.any(|trouble| trouble.what.contains(other))
    });
}

#[test]
fn a_copied_indexer_is_refused_by_its_native_and_both_sides_say_so_once() {
    let Some(network) = Network::new() else {
        return;
    };
    let switch = network.switch("lan");
    let hosts = ["native", "first", "copy"].map(|name| network.host(name));
    for (n, host) in hosts.iter().enumerate() {
        switch.plug(host, "eth0", &[&format!("192.168.77.{}/24", n + 1)]);
    }
    let [native_host, first_host, copy_host] = hosts;
    let native = native_host.start("native", "native", &["--listen", "/ip4/0.0.0.0/tcp/4820"]);
    let at = format!("/ip4/192.168.77.1/tcp/4820/p2p/{}", native.id);
    let first = first_host.start("indexer", "first", &["--native", &at]);
    native.until("the first", IN_TIME, |s| s.live(&first).is_some());
    let copy = start_copy(
        network.world(),
        &copy_host,
        "indexer",
        &first,
        &["--native", &at],
    );

    let contested = native.eventually("it is contested", IN_TIME, |s| {
        assert!(s.live(&first).is_some());
        s.contested.first().cloned()
    });
    assert_eq!(contested.peer_id, first.id);
    assert_eq!(
        (&*contested.kept, &*contested.refused),
        ("192.168.77.2", "192.168.77.3")
    );
    knows_why(&copy, "192.168.77.2");
    native.until("the address of the first", IN_TIME, |s| {
        let live = s.live(&first).unwrap();
        live.addrs[0].contains("192.168.77.2")
    });
    assert_eq!(log_lines(&native, "two devices use the identity"), 1);
    assert_eq!(log_lines(&copy, "has your identity"), 1);
}

#[test]
fn a_copied_node_is_refused_and_the_first_keeps_its_lease_and_is_found() {
    let Some(network) = Network::new() else {
        return;
    };
    let world = network.world();
    let switch = network.switch("lan");
    let hosts = ["native", "indexer", "first", "copy"].map(|name| network.host(name));
    for (n, host) in hosts.iter().enumerate() {
        switch.plug(host, "eth0", &[&format!("192.168.77.{}/24", n + 1)]);
    }
    let [native_host, indexer_host, first_host, copy_host] = hosts;
    let native = native_host.start("native", "native", &["--listen", "/ip4/0.0.0.0/tcp/4820"]);
    let at = format!("/ip4/192.168.77.1/tcp/4820/p2p/{}", native.id);
    let indexer = indexer_host.start("indexer", "indexer", &["--native", &at]);
    native.until("the indexer", IN_TIME, |s| s.live(&indexer).is_some());
    let args = ["--native", &at, "--name", "pump"];
    let first = first_host.start("node", "first", &args);
    first.until("its lease", IN_TIME, |s| s.holds_lease_of(&indexer));
    let copy = start_copy(world, &copy_host, "node", &first, &args);

    let contested = indexer.eventually("it is contested", IN_TIME, |s| {
        assert!(first.status().holds_lease_of(&indexer));
        s.contested.first().cloned()
    });
    assert_eq!(
        (&*contested.kept, &*contested.refused),
        ("192.168.77.3", "192.168.77.4")
    );
    knows_why(&copy, "192.168.77.3");
    assert!(first.status().holds_lease_of(&indexer));
    assert!(!copy.status().holds_lease_of(&indexer));

    let found = world.ask(&native, "find", &["pump"]);
    assert_eq!(found.code, Some(0), "{found:?}");
    assert!(found.stdout.contains("/ip4/192.168.77.3/"), "{found:?}");
    assert!(!found.stdout.contains("/ip4/192.168.77.4/"), "{found:?}");

    let no_args: [&str; 0] = [];
    // Lines are wrapped at the width of the terminal.
    let shown = |peer| {
        let shown = world.ask(peer, "status", &no_args).stdout;
        shown.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let of_indexer = shown(&indexer);
    assert!(of_indexer.contains("same-identity"), "{of_indexer}");
    let of_copy = shown(&copy);
    assert!(
        of_copy.contains("another device uses the identity of this one"),
        "{of_copy}"
    );
    assert_eq!(log_lines(&indexer, "two devices use the identity"), 1);
    assert_eq!(log_lines(&copy, "has your identity"), 1);
    for (peer, what) in [(&first, " WARN "), (&copy, "does not answer")] {
        assert_eq!(log_lines(peer, what), 0, "{}", peer.log());
    }
}

#[test]
fn a_host_that_changes_its_address_to_and_fro_is_refused_nothing() {
    let Some(network) = Network::new() else {
        return;
    };
    let switch = network.switch("lan");
    let [native_host, host] = ["native", "indexer"].map(|name| network.host(name));
    switch.plug(&native_host, "eth0", &["192.168.77.1/24"]);
    switch.plug(&host, "eth0", &["192.168.77.2/24"]);
    let native = native_host.start("native", "native", &["--listen", "/ip4/0.0.0.0/tcp/4820"]);
    let at = format!("/ip4/192.168.77.1/tcp/4820/p2p/{}", native.id);
    let lease = ["--lease", "20s"];
    let indexer = host.start(
        "indexer",
        "indexer",
        &[&["--native", &at], &lease[..]].concat(),
    );
    native.until("the indexer", IN_TIME, |s| s.live(&indexer).is_some());
    // Six replacements. From the third on, the connection from the earlier address is pinged.
    for (from, to) in [(2, 22), (22, 2)].into_iter().cycle().take(6) {
        host.ip(&[
            &format!("addr del 192.168.77.{from}/24 dev eth0"),
            &format!("addr add 192.168.77.{to}/24 dev eth0"),
        ]);
        let listens = format!("/ip4/192.168.77.{to}/");
        native.until("the new address", Duration::from_secs(10), |s| {
            let entry = s.live(&indexer).expect("its lease ran out");
            entry.addrs[0].starts_with(&listens)
        });
    }
    assert_eq!(native.status().contested, []);
    assert_eq!(log_lines(&indexer, "has your identity"), 0);
}
