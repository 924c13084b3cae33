//! A process whose port is closed from outside, although its own connections get out: it learns
//! that from a server that dials it back.

use std::time::Duration;

use crate::harness::{Look as _, Peer, World, ended, eventually};
use crate::network::{Host, Network};

/// Enough for the pause of the server, and for a machine under load.
const IN_TIME: Duration = Duration::from_secs(40);

/// Drops what comes to this port of the host, as a firewall does.
fn close(host: &Host<'_>, port: u16) {
    host.ip(&[
        "rule add pref 1 table local",
        "rule del pref 0",
        &format!("rule add pref 0 iif eth0 ipproto tcp dport {port} blackhole"),
    ]);
}

fn open(host: &Host<'_>, port: u16) {
    host.ip(&[&format!(
        "rule del pref 0 iif eth0 ipproto tcp dport {port} blackhole"
    )]);
}

/// What `doctor` says on the host, when it says this.
fn doctor_says(host: &Host<'_>, of: (&World, &Peer), what: &str) -> (Option<i32>, String) {
    let (world, peer) = of;
    eventually(what, IN_TIME, || {
        let asking = world.asking(peer, "doctor", &[""; 0]);
        let mut doctor = host.command(asking.get_program().to_str().unwrap());
        let told = ended(doctor.args(asking.get_args()));
        let said = String::from_utf8(told.stdout).unwrap();
        said.contains(what).then(|| (told.status.code(), said))
    })
}

#[test]
fn indexer_behind_a_firewall_says_so_until_its_port_is_open_and_a_node_only_notes_it() {
    let Some(network) = Network::new() else {
        return;
    };
    let world = network.world();
    let switch = network.switch("lan");
    let hosts = ["native", "indexer", "node"].map(|name| network.host(name));
    for (n, host) in hosts.iter().enumerate() {
        switch.plug(host, "eth0", &[&format!("192.168.77.{}/24", n + 1)]);
    }
    let [native_host, indexer_host, node_host] = hosts;
    close(&indexer_host, 4821);
    close(&node_host, 4822);
    let native = native_host.start("native", "native", &["--listen", "/ip4/0.0.0.0/tcp/4820"]);
    let at = format!("/ip4/192.168.77.1/tcp/4820/p2p/{}", native.id);
    let indexer = indexer_host.start(
        "indexer",
        "indexer",
        &["--native", &at, "--listen", "/ip4/0.0.0.0/tcp/4821"],
    );
    let problem = indexer.eventually("the problem", IN_TIME, |s| {
        let mut problems = s.problems.iter();
        problems.find(|one| one.code == "unreachable").cloned()
    });
    let what = format!(
        "native …{} at 192.168.77.1:4820 could not connect to this indexer at 192.168.77.2:4821, where it sees it: \
         no answer within 3 s",
        native.short_id()
    );
    assert_eq!(problem.what, what);
    assert!(problem.hint.contains("open TCP port 4821 in the firewall"));
    assert_eq!(indexer.log().matches(&what).count(), 1);
    assert!(
        native.status().live(&indexer).is_some(),
        "its lease is not affected"
    );
    let told = world.ask(&indexer, "status", &[""; 0]).stdout;
    assert!(told.contains("reachable from outside: no ("), "{told}");
    let (code, told) = doctor_says(&indexer_host, (world, &indexer), "notice    unreachable: ");
    assert_eq!(code, Some(0), "one server may be wrong: {told}");

    let node = node_host.start(
        "node",
        "node",
        &["--native", &at, "--listen", "/ip4/0.0.0.0/tcp/4822"],
    );
    node.until("its lease", IN_TIME, |s| !s.leases.is_empty());
    let (code, told) = doctor_says(
        &node_host,
        (world, &node),
        "reachable: from outside: no (no answer within",
    );
    assert_eq!(code, Some(0), "{told}");
    assert!(node.status().problems.is_empty());
    let log = indexer.log();
    assert!(
        !log.contains("over after"),
        "it lasts until it is mended: {log}"
    );

    open(&indexer_host, 4821);
    let (code, told) = doctor_says(
        &indexer_host,
        (world, &indexer),
        "reachable: from outside: yes",
    );
    assert_eq!(code, Some(0), "{told}");
    assert!(indexer.status().problems.is_empty());
    assert!(indexer.log().contains("over after"), "{}", indexer.log());
    assert!(indexer.log().contains("reachable from outside: yes"));
}
