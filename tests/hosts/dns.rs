//! Programs that know nothing of this system find nodes by DNS: directly, and through the resolvers
//! of a host with the files that the packages install.

use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Look as _, Peer, SLACK, ended, eventually};
use crate::network::{Host, Network, Running};

/// The address of the daemon in these files.
const AT: &str = "127.0.0.1:5320";
const DIG: [&str; 6] = ["@127.0.0.1", "-p", "5320", "+noall", "+tries=1", "+time=8"];

/// A native and an indexer, two nodes that offer something, and one that answers by DNS, each on a
/// host of its own.
struct Site<'a> {
    desk: Host<'a>,
    native: Peer,
    _indexer: Peer,
    node: Peer,
    _nodes: [Peer; 2],
}

fn site(network: &Network) -> Site<'_> {
    let lan = network.switch("lan");
    let [first, second, roof, cellar, desk] =
        ["one", "two", "roof", "cellar", "desk"].map(|name| network.host(name));
    lan.plug(&first, "eth0", &["192.168.77.1/24"]);
    lan.plug(&second, "eth0", &["192.168.77.2/24"]);
    lan.plug(
        &roof,
        "eth0",
        &["192.168.77.3/24", "fd77::3/64", "10.9.9.9/32"],
    );
    lan.plug(&desk, "eth0", &["192.168.77.4/24"]);
    lan.plug(&cellar, "eth0", &["192.168.77.5/24"]);
    let native = first.start("native", "native", &[]);
    let at = format!("/ip4/192.168.77.1/tcp/4820/p2p/{}", native.id);
    let indexer = second.start("indexer", "indexer", &["--native", &at]);
    let about = [
        "--name",
        "pump",
        "--service",
        "http=8080",
        "--service",
        "sip=udp:5060",
    ];
    let about = [&about[..], &["--tag", "site=roof", "--native", &at]].concat();
    let pump = roof.start("node", "pump", &about);
    let about = ["--name", "fan", "--service", "http=80", "--native", &at];
    let fan = cellar.start("node", "fan", &about);
    let own = ["--name", "desk", "--dns", AT, "--native", &at];
    let node = desk.start("node", "desk", &own);
    for peer in [&pump, &fan, &node] {
        peer.until("its lease", SLACK, |status| status.holds_lease_of(&indexer));
    }
    Site {
        desk,
        native,
        _indexer: indexer,
        node,
        _nodes: [pump, fan],
    }
}

/// Runs a command on the host that ends by itself.
fn run(host: &Host<'_>, program: &str, args: &[&str]) -> Output {
    ended(host.command(program).args(args))
}

impl Site<'_> {
    /// What `dig` prints of one question.
    fn dig(&self, words: &str) -> String {
        let words = DIG.into_iter().chain(words.split(' '));
        let output = run(&self.desk, "dig", &words.collect::<Vec<_>>());
        String::from_utf8(output.stdout).unwrap()
    }

    /// The addresses, or other data, that `dig` gets as the answer.
    fn answer(&self, words: &str) -> Vec<String> {
        let lines = self.dig(&format!("+short {words}"));
        let mut lines: Vec<_> = lines.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn found(&self) {
        eventually("the address of the node", SLACK, || {
            (!self.answer("A pump.oc.internal").is_empty()).then_some(())
        });
    }
}

/// The status of an answer as `dig` shows it.
fn code(comments: &str) -> &str {
    let (_, rest) = comments.split_once("status: ").unwrap();
    rest.split(',').next().unwrap()
}

#[test]
fn dig_finds_addresses_tags_and_services_over_udp_and_tcp() {
    let Some(network) = Network::with_tools(&["dig"]) else {
        return;
    };
    let site = site(&network);
    site.found();
    for way in ["+notcp", "+tcp", "+noedns +notcp"] {
        let of = |words: &str| site.answer(&format!("{way} {words}"));
        // The network that the asker is in comes first.
        let first = site.dig(&format!("+short {way} A pump.oc.internal"));
        assert_eq!(first, "192.168.77.3\n10.9.9.9\n");
        assert_eq!(of("AAAA PUMP.oc.internal"), ["fd77::3"]);
        assert_eq!(of("TXT pump.oc.internal"), ["\"site=roof\""]);
        let srv = ["0 0 8080 pump.oc.internal."];
        assert_eq!(of("SRV pump._http._tcp.oc.internal"), srv);
        let srv = ["0 0 5060 pump.oc.internal."];
        assert_eq!(of("SRV pump._sip._udp.oc.internal"), srv);
        assert_eq!(of("A oc.internal"), ["127.0.0.1"]);
        assert_eq!(of("NS oc.internal"), ["oc.internal."]);
        let soa = ["oc.internal. nobody.invalid. 1 3600 600 86400 5"];
        assert_eq!(of("SOA oc.internal"), soa);
        let status = |words: &str| {
            let shown = site.dig(&format!("+comments {way} {words}"));
            code(&shown).to_owned()
        };
        assert_eq!(status("MX pump.oc.internal"), "NOERROR");
        assert_eq!(status("A nobody.oc.internal"), "NXDOMAIN");
        assert_eq!(status("SRV pump._sip._tcp.oc.internal"), "NXDOMAIN");
        assert_eq!(status("A example.com"), "REFUSED");
        assert_eq!(status("ANY +notcp pump.oc.internal"), "REFUSED");
    }
    assert_eq!(code(&site.dig("+comments AXFR oc.internal")), "REFUSED");
    let denial = site.dig("+authority A nobody-else.oc.internal");
    let words: Vec<_> = denial.split_whitespace().take(4).collect();
    // 5 s, less what has passed.
    let [name, ttl, class, rtype] = words[..] else {
        panic!("{denial}");
    };
    assert_eq!([name, class, rtype], ["oc.internal.", "IN", "SOA"]);
    assert!(ttl.parse::<u32>().unwrap() <= 5, "{denial}");
    // A lease of 3 s.
    let answer = site.dig("+answer A pump.oc.internal");
    let ttl: u32 = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(ttl <= 3, "{answer}");
    let tables = site.node.status().tables;
    let table = |name| tables.iter().find(|table| table.name == name).unwrap();
    assert_eq!(table("dns_queries").capacity, 64);
    assert_eq!(table("dns_cache").capacity, 512);
    assert_eq!(
        (
            table("dns_connections").capacity,
            table("dns_lookups").capacity
        ),
        (16, 8)
    );
}

#[test]
fn dig_finds_all_nodes_that_offer_a_service() {
    let Some(network) = Network::with_tools(&["dig"]) else {
        return;
    };
    let site = site(&network);
    site.found();
    let http = ["0 0 80 fan.oc.internal.", "0 0 8080 pump.oc.internal."];
    eventually("both nodes", SLACK, || {
        (site.answer("SRV _http._tcp.oc.internal") == http).then_some(())
    });
    for way in ["+notcp", "+tcp"] {
        let of = |words: &str| site.answer(&format!("{way} {words}"));
        assert_eq!(of("SRV _HTTP._tcp.oc.internal"), http);
        let instances = [
            "fan._http._tcp.oc.internal.",
            "pump._http._tcp.oc.internal.",
        ];
        assert_eq!(of("PTR _http._tcp.oc.internal"), instances);
        let sip = ["0 0 5060 pump.oc.internal."];
        assert_eq!(of("SRV _sip._udp.oc.internal"), sip);
    }
    let status = |words: &str| code(&site.dig(&format!("+comments {words}"))).to_owned();
    assert_eq!(status("A _http._tcp.oc.internal"), "NOERROR");
    assert_eq!(status("SRV _sip._tcp.oc.internal"), "NXDOMAIN");
    assert_eq!(status("SRV _ftp._tcp.oc.internal"), "NXDOMAIN");
    let additional = site.dig("+additional PTR _http._tcp.oc.internal");
    for data in [
        "SRV\t0 0 80 ",
        "A\t192.168.77.3",
        "A\t192.168.77.5",
        "site=roof",
    ] {
        assert!(additional.contains(data), "{data}: {additional}");
    }
    // A lease of 3 s.
    let answer = site.dig("+answer SRV _http._tcp.oc.internal");
    let ttl: u32 = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(ttl <= 3, "{answer}");
}

#[test]
fn while_a_native_is_frozen_nothing_is_denied_and_what_is_known_is_answered() {
    let Some(network) = Network::with_tools(&["dig"]) else {
        return;
    };
    let site = site(&network);
    site.found();
    let native = Pid::from_raw(i32::try_from(site.native.pid()).unwrap()).unwrap();
    kill_process(native, Signal::STOP).unwrap();
    let shown = site.dig("+comments A nobody.oc.internal");
    assert_eq!(code(&shown), "SERVFAIL", "{shown}");
    let shown = site.dig("+comments SRV _ftp._tcp.oc.internal");
    assert_eq!(code(&shown), "SERVFAIL", "{shown}");
    eventually("the address of the node", SLACK, || {
        (site.answer("AAAA pump.oc.internal") == ["fd77::3"]).then_some(())
    });
    kill_process(native, Signal::CONT).unwrap();
    eventually("the denial", SLACK, || {
        let denied = ["A nobody", "SRV _ftp._tcp"].map(|words| {
            let shown = site.dig(&format!("+comments {words}.oc.internal"));
            code(&shown) == "NXDOMAIN"
        });
        (denied == [true, true]).then_some(())
    });
}

#[test]
fn address_that_is_taken_ends_the_start_with_what_to_do() {
    let Some(network) = Network::with_tools(&[]) else {
        return;
    };
    let site = site(&network);
    let output = site.desk.start_in_vain("native", "late", &["--dns", AT]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let sentence = stderr.lines().last().unwrap();
    let says = ["--dns 127.0.0.1:5320: ", "in use", "give another port"];
    assert!(
        says.iter().all(|word| sentence.contains(word)),
        "{sentence}"
    );
}

fn snippet(name: &str) -> String {
    format!("{}/targets/dns/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The C library finds the node through the resolver that `command` makes, which listens on port
/// 53.
fn is_found_through(program: &str, command: impl FnOnce(&Network, &Host<'_>) -> Command) {
    let Some(network) = Network::with_tools(&["dig", "getent", program]) else {
        return;
    };
    network.file("/etc/resolv.conf", "nameserver 127.0.0.1\n");
    network.file("/etc/nsswitch.conf", "hosts: dns\n");
    let site = site(&network);
    site.found();
    let _resolver = Running::start(command(&network, &site.desk));
    let getent = |words: &[&str]| {
        let output = run(&site.desk, "getent", words);
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let hosts = eventually("an answer of the resolver", SLACK, || {
        let (code, hosts) = getent(&["ahostsv4", "pump.oc.internal"]);
        (code == Some(0)).then_some(hosts)
    });
    assert!(
        hosts.contains("192.168.77.3") && hosts.contains("10.9.9.9"),
        "{hosts}"
    );
    for database in ["ahostsv6", "hosts"] {
        let (_, hosts) = getent(&[database, "pump.oc.internal"]);
        assert!(hosts.contains("fd77::3"), "{database}: {hosts}");
    }
    assert_eq!(getent(&["hosts", "nobody.oc.internal"]).0, Some(2));
    // A name with a dot, below one that there is no node of.
    let srv = run(
        &site.desk,
        "dig",
        &["+short", "@127.0.0.1", "SRV", "pump._http._tcp.oc.internal"],
    );
    assert_eq!(
        String::from_utf8_lossy(&srv.stdout),
        "0 0 8080 pump.oc.internal.\n"
    );
}

/// dnsmasq with this file, on a host that is protected against rebinding.
fn dnsmasq(desk: &Host<'_>, config: &str) -> Command {
    let mut command = desk.command("dnsmasq");
    let own = ["-d", "--no-resolv", "--no-hosts", "--conf-file=/dev/null"];
    command.args(own).arg("--stop-dns-rebind");
    command.arg(format!("--conf-file={config}"));
    command
}

#[test]
fn c_library_finds_a_node_through_dnsmasq() {
    is_found_through("dnsmasq", |_, desk| dnsmasq(desk, &snippet("dnsmasq.conf")));
}

/// What OpenWrt's `/etc/init.d/dnsmasq` makes of the commands for `uci batch`: each value of these
/// lists becomes an option of dnsmasq, in the file that dnsmasq is started with.
fn as_openwrt_makes_it(batch: &str) -> String {
    let (lists, commit) = batch.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(commit, "commit dhcp");
    let options = lists.lines().map(|line| {
        let assigned = line.strip_prefix("add_list dhcp.@dnsmasq[0].").unwrap();
        let (list, value) = assigned.split_once('=').unwrap();
        let quoted = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\''));
        let option = match list {
            "server" => "server",
            "rebind_domain" => "rebind-domain-ok",
            _ => panic!("{list}: which option of dnsmasq is it?"),
        };
        format!("{option}={}\n", quoted.unwrap())
    });
    options.collect()
}

#[test]
fn c_library_finds_a_node_through_the_dnsmasq_of_openwrt() {
    is_found_through("dnsmasq", |network, desk| {
        let batch = std::fs::read_to_string(snippet("dnsmasq.uci")).unwrap();
        let config = network.world().path("dnsmasq.conf");
        std::fs::write(&config, as_openwrt_makes_it(&batch)).unwrap();
        dnsmasq(desk, config.to_str().unwrap())
    });
}

/// Where `.ci/tools` puts it: installed, it would become this machine's resolver.
const RESOLVED: &str = concat!(
    env!("CARGO_TARGET_TMPDIR"),
    "/../systemd-resolved/systemd-resolved"
);

/// It reads files in /run as those in /etc/systemd/resolved.conf.d, and runs as a user of its own.
/// The file in front of ours lets it listen where the C library asks.
#[test]
fn c_library_finds_a_node_through_systemd_resolved() {
    is_found_through(RESOLVED, |_, desk| {
        desk.sysctl("net.ipv4.ip_unprivileged_port_start", "0");
        let own = "set -e; cd /run; mkdir -p systemd/resolve systemd/resolved.conf.d
                   printf '[Resolve]\nDNSStubListenerExtra=127.0.0.1\n' >systemd/resolved.conf.d/a.conf
                   cp \"$1\" systemd/resolved.conf.d/oc-discovery.conf
                   exec unshare --user --map-user=1000 --keep-caps \"$0\"";
        let mut command = desk.command("sh");
        command.args(["-c", own, RESOLVED, &snippet("resolved.conf")]);
        command
    });
}

#[test]
fn c_library_finds_a_node_through_unbound() {
    is_found_through("unbound", |network, desk| {
        let config = network.world().path("unbound.conf");
        // The root's keys are not needed: nothing else is asked.
        let own = "server:\n use-syslog: no\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n \
                   pidfile: \"\"\n interface: 127.0.0.1\n private-address: 192.168.0.0/16\n \
                   private-address: 10.0.0.0/8\n private-address: fd00::/8\n";
        let included = format!("{own}include: \"{}\"\n", snippet("unbound.conf"));
        std::fs::write(&config, included).unwrap();
        let mut command = desk.command("unbound");
        command.args(["-d", "-c"]).arg(config);
        command
    });
}
