//! Which addresses are announced.

use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::AddressFamily;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::harness::{Look as _, Peer, SLACK};
use crate::network::Network;

/// How soon a change must be seen. The kernel itself delays reports of a lost carrier for up to a
/// second.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn indexer_behind_ten_bridges_is_reached_at_the_address_that_its_native_sees() {
    let Some(network) = Network::new() else {
        return;
    };
    let lan = network.switch("lan");
    let [native_host, indexer_host, node_host] =
        ["native", "indexer", "node"].map(|n| network.host(n));
    lan.plug(&native_host, "eth0", &["192.168.77.9/24"]);
    lan.plug(&node_host, "eth0", &["192.168.77.2/24"]);
    for n in 0..10 {
        indexer_host.bridge(&format!("docker{n}"), &format!("172.{}.0.1/16", 17 + n));
    }
    lan.plug(&indexer_host, "eth0", &["192.168.77.1/24"]);

    let native = native_host.start("native", "native", &["--listen", "/ip4/0.0.0.0/tcp/4820"]);
    let at = format!("/ip4/192.168.77.9/tcp/4820/p2p/{}", native.id);
    let indexer = indexer_host.start("indexer", "indexer", &["--native", &at]);
    native.until("the indexer, best address first", SLACK, |status| {
        let entry = status.live(&indexer);
        entry.is_some_and(|entry| entry.addrs[0].starts_with("/ip4/192.168.77.1/"))
    });
    // Three bridges would be enough to exclude it from offers, which have four addresses.
    let record = &native.status().live(&indexer).unwrap().addrs.clone();
    assert_eq!(record.len(), 4);
    let node = node_host.start("node", "node", &["--native", &at]);
    node.until("a lease of the indexer", SLACK, |status| {
        status.holds_lease_of(&indexer)
    });
}

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

#[test]
fn host_with_ipv6_alone_is_announced_by_it() {
    let Some(network) = Network::new() else {
        return;
    };
    let lan = network.switch("lan");
    let hosts = ["native", "indexer", "node"].map(|name| network.host(name));
    let [native_host, indexer_host, node_host] = &hosts;
    for (host, ip) in hosts.iter().zip(["fd77::1/64", "fd77::2/64", "fd77::3/64"]) {
        lan.plug(host, "eth0", &[ip]);
    }
    let native = native_host.start("native", "native", &[]);
    let at = format!("/ip6/fd77::1/tcp/4820/p2p/{}", native.id);
    assert_eq!(native.greeting[0], format!("listening on {at}"));
    assert_eq!(native.greeting.last(), Some(&format!("--native {at}")));

    let indexer = indexer_host.start("indexer", "indexer", &["--native", &at]);
    let node = node_host.start("node", "node", &["--native", &at]);
    node.until("a lease of the indexer", SLACK, |status| {
        status.holds_lease_of(&indexer)
    });
    let entry = native.status().live(&indexer).unwrap().clone();
    assert_eq!(entry.addrs, ["/ip6/fd77::2/tcp/4821"]);
}

#[test]
fn indexer_with_loopback_alone_is_no_offer_for_another_host() {
    let Some(network) = Network::new() else {
        return;
    };
    let lan = network.switch("lan");
    let [native_host, indexer_host] = ["native", "indexer"].map(|name| network.host(name));
    lan.plug(&native_host, "eth0", &["192.168.77.9/24"]);
    lan.plug(&indexer_host, "eth0", &["192.168.77.1/24"]);
    let native = native_host.start("native", "native", &[]);
    let at = format!("/ip4/192.168.77.9/tcp/4820/p2p/{}", native.id);
    let listen = ["--listen", "/ip4/127.0.0.1/tcp/0", "--native", &at];
    let indexer = indexer_host.start("indexer", "indexer", &listen);
    native.until("its beats", SLACK, |status| {
        status.stream_record(&indexer).is_some()
    });
    native.until_runs("offload", 2);
    assert!(native.status().live(&indexer).is_none());
}

#[test]
fn node_is_taken_in_by_a_native_whose_only_indexer_is_for_its_own_host() {
    let Some(network) = Network::new() else {
        return;
    };
    let lan = network.switch("lan");
    let [gateway, node_host] = ["gateway", "node"].map(|name| network.host(name));
    lan.plug(&gateway, "eth0", &["192.168.77.9/24"]);
    lan.plug(&node_host, "eth0", &["192.168.77.2/24"]);
    let native = gateway.start("native", "native", &[]);
    let at = |ip: &str| format!("/ip4/{ip}/tcp/4820/p2p/{}", native.id);
    let near = at("127.0.0.1");
    let listen = ["--listen", "/ip4/127.0.0.1/tcp/0", "--native", &near];
    let indexer = gateway.start("indexer", "indexer", &listen);
    native.until("the indexer", SLACK, |status| {
        status.live(&indexer).is_some()
    });
    let node = node_host.start("node", "node", &["--native", &at("192.168.77.9")]);
    node.until("the native's lease", SLACK, |status| {
        status.is_under_native(&native)
    });
    let local = gateway.start("node", "local", &["--native", &near]);
    local.until("the indexer's lease", SLACK, |status| {
        status.holds_lease_of(&indexer)
    });
}

#[test]
fn awaited_address_is_listened_on_when_it_comes() {
    let Some(network) = Network::new() else {
        return;
    };
    let (lan, host) = (network.switch("lan"), network.host("native"));
    lan.plug(&host, "eth0", &["192.168.77.9/24"]);
    let listen = [
        "--listen",
        "/ip4/192.168.77.9/tcp/4820",
        "--listen",
        "/ip4/192.168.77.10/tcp/4820",
    ];
    let native = host.start("native", "native", &listen);
    let listens = |ips: &[&str]| {
        let all: Vec<_> = ips.iter().map(|ip| format!("/ip4/{ip}/tcp/4820")).collect();
        native.until("where it listens", SOON, |status| status.listen == all);
    };
    listens(&["192.168.77.9"]);
    assert_eq!(
        said(&native, "WARN  waits for "),
        ["the address 192.168.77.10:4820, which no interface has yet"]
    );
    host.ip(&["addr add 192.168.77.10/24 dev eth0"]);
    listens(&["192.168.77.9", "192.168.77.10"]);
    host.ip(&["addr del 192.168.77.10/24 dev eth0"]);
    listens(&["192.168.77.9"]);
    host.ip(&["addr add 192.168.77.10/24 dev eth0"]);
    listens(&["192.168.77.9", "192.168.77.10"]);
}

#[test]
fn daemon_that_starts_before_its_network_is_ready_when_that_comes() {
    let Some(network) = Network::new() else {
        return;
    };
    let (lan, host) = (network.switch("lan"), network.host("native"));
    host.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    host.ip(&["link set lo down"]);
    let native = host.start("native", "native", &[]);
    assert!(native.greeting.is_empty(), "{:?}", native.greeting);
    lan.plug(&host, "eth0", &["192.168.77.9/24"]);
    native.until("where it listens", SOON, |status| {
        status.listen == ["/ip4/192.168.77.9/tcp/4820"]
    });
}

#[test]
fn native_says_again_what_others_are_started_with_when_a_better_address_comes() {
    let Some(network) = Network::new() else {
        return;
    };
    let (lan, host) = (network.switch("lan"), network.host("native"));
    let native = host.start("native", "native", &[]);
    let option = |ip: &str| Some(format!("--native /ip4/{ip}/tcp/4820/p2p/{}", native.id));
    assert_eq!(native.greeting.last().cloned(), option("127.0.0.1"));
    assert_eq!(native.status().native_option, option("127.0.0.1"));
    lan.plug(&host, "eth0", &["192.168.77.9/24"]);
    native.until("its new address", SOON, |status| {
        status.native_option == option("192.168.77.9")
    });
    let line = format!("{} from now on", option("192.168.77.9").unwrap());
    assert_eq!(said(&native, "others are started with "), [line]);
    let shown = network.world().ask::<&str>(&native, "status", &[]).stdout;
    let line = format!("others start with {}\n", option("192.168.77.9").unwrap());
    assert!(shown.contains(&line), "{shown}");
}

#[test]
fn start_lines_have_the_best_address_first_and_loopback_last() {
    let Some(network) = Network::new() else {
        return;
    };
    let (lan, host) = (network.switch("lan"), network.host("native"));
    host.bridge("docker0", "172.17.0.1/16");
    lan.plug(&host, "eth0", &["198.51.100.7/24", "fd77::1/64"]);
    let announce = ["--announce", "/dns/gate.example.com/tcp/443"];
    let native = host.start("native", "native", &announce);
    let lines: Vec<_> = native
        .greeting
        .iter()
        .map(|line| line.split("/p2p/").next().unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            "announces /dns/gate.example.com/tcp/443",
            "listening on /ip4/198.51.100.7/tcp/4820",
            "listening on /ip6/fd77::1/tcp/4820",
            "listening on /ip4/172.17.0.1/tcp/4820",
            "listening on /ip4/127.0.0.1/tcp/4820",
            "listening on /ip6/::1/tcp/4820",
            "--native /dns/gate.example.com/tcp/443",
        ]
    );
}

#[test]
fn port_is_taken_again_after_a_restart_unless_another_process_has_it() {
    let Some(network) = Network::new() else {
        return;
    };
    let host = network.host("indexer");
    let port = |peer: &Peer| -> u16 {
        let ports = peer
            .greeting
            .iter()
            .map(|line| line.split('/').nth(4).unwrap());
        let mut ports: Vec<_> = ports.collect();
        ports.dedup();
        assert_eq!(ports.len(), 1, "{:?}", peer.greeting);
        ports[0].parse().unwrap()
    };
    let first = host.start("indexer", "indexer", &[]);
    assert_eq!(port(&first), 4821);
    // A second indexer takes any port, and the same one again after a restart.
    let mut second = host.start("indexer", "second", &[]);
    let any = port(&second);
    assert_ne!(any, 4821);
    let why = format!("port 4821 is in use by another process: takes {any} from now on");
    assert!(second.log().contains(&why), "{}", second.log());
    assert!(!first.log().contains(" is in use"), "{}", first.log());
    second.kill();
    let mut second = host.start("indexer", "second", &[]);
    assert_eq!(port(&second), any);

    second.kill();
    let listen = format!("/ip6/::1/tcp/{any}");
    let _in_the_way = host.start("node", "in-the-way", &["--listen", &listen]);
    let second = host.start("indexer", "second", &[]);
    assert_ne!(port(&second), any);
    let why = format!("port {any} of the last run is in use by another process");
    assert!(second.log().contains(&why), "{}", second.log());
}

#[test]
fn name_that_is_announced_alone_is_dialled_by_nodes() {
    let Some(network) = Network::new() else {
        return;
    };
    network.names("192.168.77.1 gate.example.com\n");
    let lan = network.switch("lan");
    let hosts = ["native", "indexer", "node"].map(|name| network.host(name));
    let [native_host, indexer_host, node_host] = &hosts;
    for (host, ip) in hosts
        .iter()
        .zip(["192.168.77.9/24", "192.168.77.1/24", "192.168.77.2/24"])
    {
        lan.plug(host, "eth0", &[ip]);
    }
    let native = native_host.start("native", "native", &[]);
    let at = format!("/ip4/192.168.77.9/tcp/4820/p2p/{}", native.id);
    let name = "/dns/gate.example.com/tcp/4821";
    let announce = ["--native", &at, "--announce", name, "--announce-only"];
    let indexer = indexer_host.start("indexer", "indexer", &announce);
    native.until("the indexer by its name", SLACK, |status| {
        status
            .live(&indexer)
            .is_some_and(|entry| entry.addrs == [name])
    });
    let node = node_host.start("node", "node", &["--native", &at]);
    node.until("a lease of the indexer", SLACK, |status| {
        status.holds_lease_of(&indexer)
    });
}

/// Installs a filter of system calls, as containers have it. Under it, the thread and its processes
/// get no socket of this family.
fn forbid_sockets(family: AddressFamily, error: Errno) {
    let family = u64::from(family.as_raw());
    let first = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family);
    let rule = SeccompRule::new(vec![first.unwrap()]).unwrap();
    let filter = SeccompFilter::new(
        [(libc::SYS_socket, vec![rule])].into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(error.raw_os_error() as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[test]
fn without_netlink_an_indexer_announces_what_its_connections_use() {
    let Some(network) = Network::new() else {
        return;
    };
    let lan = network.switch("lan");
    let hosts = ["native", "indexer", "node"].map(|name| network.host(name));
    let [native_host, indexer_host, node_host] = &hosts;
    for (host, ip) in hosts
        .iter()
        .zip(["192.168.77.9/24", "192.168.77.1/24", "192.168.77.2/24"])
    {
        lan.plug(host, "eth0", &[ip]);
    }
    let native = native_host.start("native", "native", &[]);
    let at = format!("/ip4/192.168.77.9/tcp/4820/p2p/{}", native.id);
    let filtered = || {
        forbid_sockets(AddressFamily::NETLINK, Errno::PERM);
        indexer_host.start("indexer", "indexer", &["--native", &at])
    };
    // The filter applies only to this thread and its processes.
    let indexer = thread::scope(|scope| scope.spawn(filtered).join().unwrap());
    native.until("the indexer", SLACK, |status| {
        let entry = status.live(&indexer);
        entry.is_some_and(|entry| entry.addrs == ["/ip4/192.168.77.1/tcp/4821"])
    });
    let why = "cannot read the addresses of this host from the kernel (netlink: ";
    assert!(indexer.log().contains(why), "{}", indexer.log());
    let node = node_host.start("node", "node", &["--native", &at]);
    node.until("a lease of the indexer", SLACK, |status| {
        status.holds_lease_of(&indexer)
    });
}

#[test]
fn native_without_netlink_gives_an_address_out_when_a_connection_has_shown_it() {
    let Some(network) = Network::new() else {
        return;
    };
    let lan = network.switch("lan");
    let [native_host, node_host] = ["native", "node"].map(|name| network.host(name));
    lan.plug(&native_host, "eth0", &["192.168.77.9/24"]);
    lan.plug(&node_host, "eth0", &["192.168.77.2/24"]);
    let filtered = || {
        forbid_sockets(AddressFamily::NETLINK, Errno::PERM);
        native_host.start("native", "native", &[])
    };
    let native = thread::scope(|scope| scope.spawn(filtered).join().unwrap());
    let printed = |word: &str| native.greeting.iter().any(|line| line.starts_with(word));
    assert!(printed("listening on ") && !printed("--native "));
    assert_eq!(native.status().native_option, None);
    let why = "it is not known yet at which address others reach this native";
    assert!(native.log().contains(why), "{}", native.log());

    let at = format!("/ip4/192.168.77.9/tcp/4820/p2p/{}", native.id);
    let _node = node_host.start("node", "node", &["--native", &at]);
    let option = format!("--native {at}");
    native.until("the address that was dialled", SLACK, |status| {
        status.native_option.as_ref() == Some(&option)
    });
    let line = format!("{option} from now on");
    assert_eq!(said(&native, "others are started with "), [line]);
}

#[test]
fn host_without_ipv6_serves_ipv4_without_a_word() {
    let Some(network) = Network::new() else {
        return;
    };
    let (lan, host) = (network.switch("lan"), network.host("native"));
    host.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    lan.plug(&host, "eth0", &["192.168.77.9/24"]);
    let filtered = || {
        forbid_sockets(AddressFamily::INET6, Errno::AFNOSUPPORT);
        host.start("native", "native", &[])
    };
    let native = thread::scope(|scope| scope.spawn(filtered).join().unwrap());
    let expected = ["/ip4/192.168.77.9/tcp/4820", "/ip4/127.0.0.1/tcp/4820"];
    assert_eq!(native.status().listen, expected);
    let warned = said(&native, " WARN  ");
    assert!(
        warned.iter().all(|line| line.starts_with("any device")),
        "{warned:?}"
    );
}

#[test]
fn native_whose_port_another_process_has_ends_and_says_so() {
    let Some(network) = Network::new() else {
        return;
    };
    let host = network.host("native");
    let _first = host.start("native", "native", &[]);
    let second = host.start_in_vain("native", "second", &[]);
    assert_eq!(second.status.code(), Some(1));
    let why = String::from_utf8(second.stderr).unwrap();
    let said = "cannot listen on port 4820: it is in use by another process; end that one, or";
    assert!(why.contains(said), "{why}");
}

/// The rest of the log lines that begin with `start`.
fn said(peer: &Peer, start: &str) -> Vec<String> {
    let log = peer.log();
    let lines = log.lines().filter_map(|line| line.split_once(start));
    lines.map(|(_, rest)| rest.to_owned()).collect()
}
