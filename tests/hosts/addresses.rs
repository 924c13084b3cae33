//! Which addresses others are told.

use std::time::Duration;

use crate::harness::Peer;
use crate::network::Network;

/// How soon a change has to be seen. The kernel itself gathers losses of a carrier for up to a second.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn addresses_that_come_and_go_are_seen_when_it_happens() {
    let Some(network) = Network::new() else {
        return;
    };
    let (lan, host) = (network.switch("lan"), network.host("native"));
    lan.plug(&host, "eth0", &["192.168.77.9/24"]);
    let native = host.start("native", "native", &["--listen", "/ip4/0.0.0.0/tcp/4820"]);
    let listens = |ip: &str, so: bool| {
        native.until(ip, SOON, |status| {
            let at = format!("/ip4/{ip}/tcp/4820");
            status.listen.contains(&at) == so
        });
    };
    listens("192.168.77.9", true);

    host.ip(&["addr add 192.168.77.10/24 dev eth0"]);
    listens("192.168.77.10", true);
    host.ip(&["addr del 192.168.77.10/24 dev eth0"]);
    listens("192.168.77.10", false);
    lan.pull(&host, "eth0");
    listens("192.168.77.9", false);
    lan.push(&host, "eth0");
    listens("192.168.77.9", true);
    host.ip(&["link set eth0 down"]);
    listens("192.168.77.9", false);

    assert_eq!(
        said(&native, "eth0: "),
        [
            "192.168.77.10 came",
            "192.168.77.10 went: it was removed",
            "192.168.77.9 went: the interface has no carrier",
            "192.168.77.9 came",
            "192.168.77.9 went: the interface is down",
        ]
    );
}

/// What its log has after `start`.
fn said(peer: &Peer, start: &str) -> Vec<String> {
    let log = peer.log();
    let lines = log.lines().filter_map(|line| line.split_once(start));
    lines.map(|(_, rest)| rest.to_owned()).collect()
}
