//! Two devices with one identity: an SD card that was copied.

use std::{fs, time::Duration};

use crate::harness::{Look as _, Peer};
use crate::network::Network;

/// Three takeovers: the device that lost its stream comes back within seconds.
const IN_TIME: Duration = Duration::from_secs(40);

fn log_lines(peer: &Peer, what: &str) -> usize {
    peer.log()
        .lines()
        .filter(|line| line.contains(what))
        .count()
}

#[test]
fn of_two_devices_with_one_identity_one_is_refused_and_both_sides_say_so_once() {
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
    native.until("the first", IN_TIME, |s| s.stream_record(&first).is_some());
    let copied = network.world().path("copy");
    fs::create_dir(&copied).unwrap();
    fs::copy(first.dir().join("identity"), copied.join("identity")).unwrap();
    let copy = copy_host.start("indexer", "copy", &["--native", &at]);
    assert_eq!(copy.id, first.id);

    let contested = native.eventually("it is contested", IN_TIME, |s| s.contested.first().cloned());
    assert_eq!(contested.peer_id, first.id);
    let mut addresses = [&contested.kept, &contested.refused];
    addresses.sort();
    assert_eq!(addresses, ["192.168.77.2", "192.168.77.3"]);
    let refused = if contested.refused == "192.168.77.2" {
        &first
    } else {
        &copy
    };
    refused.until("the reason", IN_TIME, |s| {
        let mut troubles = s.troubles.iter();
        troubles.any(|trouble| trouble.what.contains(&contested.kept))
    });
    assert_eq!(log_lines(&native, "two devices use the identity"), 1);
    assert_eq!(log_lines(refused, "has your identity"), 1);
}
