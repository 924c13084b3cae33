//! Services of the network on a link whose devices know multicast DNS alone: seen with a real
//! avahi.

use std::process::Command;

use rustix::process::Signal;

use crate::harness::{Look as _, Peer, SLACK, ended, eventually};
use crate::network::{Host, Network, Running, Switch};

const TOOLS: [&str; 5] = [
    "dig",
    "avahi-daemon",
    "avahi-browse",
    "avahi-publish",
    "dbus-daemon",
];
/// The bus of a host, on which everybody may do everything.
const BUS: &str = "<busconfig><type>system</type><listen>unix:path=BUS</listen><auth>EXTERNAL</auth>\
                   <policy context=\"default\"><allow own=\"*\"/><allow send_destination=\"*\"/>\
                   <allow receive_sender=\"*\"/></policy></busconfig>";

/// A host with avahi, which knows nothing of the system.
struct Phone<'a> {
    host: Host<'a>,
    bus: String,
    _running: [Running; 2],
}

impl<'a> Phone<'a> {
    fn start(network: &'a Network, host: Host<'a>, name: &str) -> Self {
        // Only root has a number in these namespaces.
        network.file(
            "/etc/passwd",
            "root:x:0:0::/:/bin/sh\navahi:x:0:0::/:/bin/sh\n",
        );
        network.file("/etc/group", "root:x:0:\navahi:x:0:\nnetdev:x:0:\n");
        let path = |what: &str| network.world().path(&format!("{name}-{what}"));
        let bus = path("bus").display().to_string();
        std::fs::write(path("bus.conf"), BUS.replace("BUS", &bus)).unwrap();
        let mut dbus = host.command("dbus-daemon");
        dbus.arg("--nofork");
        dbus.arg(format!("--config-file={}", path("bus.conf").display()));
        let dbus = Running::start(dbus);
        eventually("the bus", SLACK, || path("bus").exists().then_some(()));
        let bus = format!("unix:path={bus}");
        std::fs::write(path("avahi.conf"), format!("[server]\nhost-name={name}\n")).unwrap();
        // Its own /run, because each avahi has a file there.
        let own = "mount -t tmpfs tmpfs /run && mkdir /run/avahi-daemon && exec avahi-daemon \
                   --no-drop-root --no-chroot --no-rlimits -f";
        let mut avahi = host.command("unshare");
        avahi.args(["--mount", "sh", "-c"]);
        avahi.arg(format!("{own} {}", path("avahi.conf").display()));
        avahi.env("DBUS_SYSTEM_BUS_ADDRESS", &bus);
        let phone = Self {
            host,
            bus,
            _running: [dbus, Running::start(avahi)],
        };
        eventually("avahi", SLACK, || {
            let output = ended(&mut phone.command("avahi-browse", &["--all", "--terminate"]));
            output.status.success().then_some(())
        });
        phone
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = self.host.command(program);
        command.args(args);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus);
        command
    }

    /// The lines of resolved services of this kind, without the interface:
    /// `IPv4;NAME;…;HOST;ADDRESS;PORT;TEXT`.
    fn sees(&self, kind: &str) -> Vec<String> {
        let args = ["--resolve", "--terminate", "--parsable", kind];
        let output = ended(&mut self.command("avahi-browse", &args));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("=;eth0;"));
        let mut lines: Vec<_> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

/// Two sites with a router between them: the native is on the router, the pump at one site; at the
/// other are a bridge and a phone.
struct Sites<'a> {
    hosts: [Host<'a>; 4],
    roof: Switch<'a>,
    native: Peer,
    option: String,
}

fn sites(network: &Network) -> Sites<'_> {
    let (roof, cellar) = (network.switch("roof"), network.switch("cellar"));
    let hosts = ["router", "pump", "bridge", "phone"].map(|name| network.host(name));
    let [router, pump, bridge, phone] = &hosts;
    roof.plug(router, "eth0", &["192.168.77.1/24"]);
    cellar.plug(router, "eth1", &["192.168.88.1/24"]);
    router.sysctl("net.ipv4.ip_forward", "1");
    roof.plug(pump, "eth0", &["192.168.77.3/24"]);
    pump.ip(&["route add default via 192.168.77.1"]);
    cellar.plug(bridge, "eth0", &["192.168.88.4/24"]);
    cellar.plug(phone, "eth0", &["192.168.88.9/24"]);
    for host in [bridge, phone] {
        host.ip(&["route add default via 192.168.88.1"]);
    }
    let native = router.start("native", "native", &["--no-mdns"]);
    let option = format!("/ip4/192.168.88.1/tcp/4820/p2p/{}", native.id);
    Sites {
        hosts,
        roof,
        native,
        option,
    }
}

impl Sites<'_> {
    fn pump(&self, name: &'static str, more: &[&str]) -> Peer {
        let native = self.option.replace("88", "77");
        let own = ["--name", name, "--native", &native];
        let pump = self.hosts[1].start("node", name, &[&own, more].concat());
        pump.until("a lease", SLACK, |status| {
            status.holds_lease_of(&self.native)
        });
        pump
    }
}

#[test]
fn service_of_another_site_is_seen_on_the_link_until_it_is_gone() {
    let Some(network) = Network::with_tools(&TOOLS) else {
        return;
    };
    let sites = sites(&network);
    let phone = Phone::start(&network, sites.hosts[3], "phone");
    let about = [
        "--service",
        "http=8080",
        "--service",
        "sip=udp:5060",
        "--tag",
        "site=roof",
    ];
    let mut pump = sites.pump("pump", &about);
    let own = [
        "--native",
        &sites.option,
        "--dns-sd",
        "http",
        "--dns-sd",
        "sip",
    ];
    let mut bridge = sites.hosts[2].start("node", "bridge", &own);
    let seen = eventually("the service", SLACK, || {
        let seen = phone.sees("_http._tcp");
        (!seen.is_empty()).then_some(seen)
    });
    let host = format!("pump-{}.local", pump.id[pump.id.len() - 8..].to_lowercase());
    let line =
        format!("IPv4;pump;Web Site;local;{host};192.168.77.3;8080;\"site=roof\" \"oc=bridge\"");
    assert_eq!(seen, [line]);
    eventually("the other service", SLACK, || {
        (phone.sees("_sip._udp").len() == 1).then_some(())
    });
    // A resolver that knows nothing of multicast DNS.
    let asked = [
        "+short",
        "-p",
        "5353",
        "@192.168.88.4",
        "PTR",
        "_http._tcp.local",
    ];
    let output = ended(&mut phone.command("dig", &asked));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "pump._http._tcp.local.\n"
    );
    // A second bridge says the same, and goes on when the first one ends.
    let mut second = sites.hosts[2].start("node", "second", &own);
    eventually("both services at the second", SLACK, || {
        let tables = second.status().tables;
        let mut told = tables
            .iter()
            .filter(|table| table.name == "advertised_services");
        told.any(|table| table.used == 2).then_some(())
    });
    bridge.end(Signal::TERM);
    std::mem::swap(&mut bridge, &mut second);
    eventually("the service as before", SLACK, || {
        (phone.sees("_http._tcp") == seen).then_some(())
    });
    pump.end(Signal::TERM);
    eventually("the goodbye", SLACK, || {
        phone.sees("_http._tcp").is_empty().then_some(())
    });

    let _pump = sites.pump("pump2", &about);
    eventually("the next node", SLACK, || {
        (phone.sees("_http._tcp").len() == 1).then_some(())
    });
    bridge.end(Signal::TERM);
    eventually("the goodbye of the bridge", SLACK, || {
        phone.sees("_http._tcp").is_empty().then_some(())
    });
}

#[test]
fn name_that_a_device_of_the_link_has_is_told_with_a_number() {
    let Some(network) = Network::with_tools(&TOOLS) else {
        return;
    };
    let sites = sites(&network);
    let phone = Phone::start(&network, sites.hosts[3], "phone");
    let _own = Running::start(phone.command("avahi-publish", &["-s", "pump", "_http._tcp", "80"]));
    let names = || -> Vec<String> {
        let seen = phone.sees("_http._tcp").into_iter();
        let seen = seen.filter(|line| line.starts_with("IPv4;"));
        seen.map(|line| line.split(';').nth(1).unwrap().to_owned())
            .collect()
    };
    eventually("its own service", SLACK, || {
        (names() == ["pump"]).then_some(())
    });
    let _pump = sites.pump("pump", &["--service", "http=8080"]);
    let own = [
        "--name",
        "bridge",
        "--native",
        &sites.option,
        "--dns-sd",
        "http",
    ];
    let _bridge = sites.hosts[2].start("node", "bridge", &own);
    // As avahi writes a blank and brackets.
    let second = "pump\\032\\0402\\041";
    eventually("the service with a number", SLACK, || {
        (names() == ["pump", second]).then_some(())
    });
    // Its name is defended against a newcomer, which takes another.
    let _late =
        Running::start(phone.command("avahi-publish", &["-s", "pump (2)", "_http._tcp", "81"]));
    eventually("the newcomer under another name", SLACK, || {
        (names().len() == 3).then_some(())
    });
    let ports = phone.sees("_http._tcp");
    let port = |name: &str| {
        let mut lines = ports.iter().filter(|line| line.starts_with("IPv4;"));
        let line = lines.find(|line| line.split(';').nth(1) == Some(name));
        line.map(|line| line.split(';').nth(6).unwrap().to_owned())
    };
    assert_eq!(port("pump").as_deref(), Some("80"), "{ports:?}");
    assert_eq!(port(second).as_deref(), Some("8080"), "{ports:?}");
}

#[test]
fn service_of_a_device_is_found_at_another_site_and_told_there_but_not_on_its_own_link() {
    let Some(network) = Network::with_tools(&TOOLS) else {
        return;
    };
    let sites = sites(&network);
    let [_, pump_host, bridge_host, phone_host] = sites.hosts;
    let phone = Phone::start(&network, phone_host, "phone");
    let own = ["--name", "bridge", "--native", &sites.option];
    let more = ["--from-dns-sd", "ipp", "--dns-sd", "ipp"];
    let bridge = bridge_host.start("node", "bridge", &[&own[..], &more].concat());
    let pump = sites.pump("pump", &["--dns-sd", "ipp", "--dns", "127.0.0.1:5320"]);
    let printer = ["-s", "Printer 7", "_ipp._tcp", "631", "rp=ipp/print"];
    let printer = Running::start(phone.command("avahi-publish", &printer));
    let ask = |command: &str, args: &[&str]| {
        let answer = network.world().ask(&pump, command, args);
        answer.stdout
    };
    eventually("the printer from the other site", SLACK, || {
        let at = ask("find", &["--addr", "bridge", "ipp"]);
        (at == "192.168.88.9:631\n").then_some(())
    });
    let found = ask("find", &["bridge"]);
    let line = "ipp at 192.168.88.9:631 (device Printer 7)";
    assert!(found.contains(line), "{found}");
    let rows = ask("nodes", &["--service", "ipp", "--json"]);
    let service = r#"{"name":"ipp","protocol":"tcp","port":631,"device":"Printer 7","addresses":["192.168.88.9"]}"#;
    assert!(rows.contains(service), "{rows}");
    let dig = |name: &str, rtype: &str| {
        let words = ["+short", "-p", "5320", "@127.0.0.1", rtype, name];
        let output = ended(pump_host.command("dig").args(words));
        String::from_utf8(output.stdout).unwrap()
    };
    let host = "ip4-192-168-88-9.oc.internal";
    eventually("the printer by DNS", SLACK, || {
        let srv = dig("_ipp._tcp.oc.internal", "SRV");
        (srv == format!("0 0 631 {host}.\n")).then_some(())
    });
    assert_eq!(dig(host, "A"), "192.168.88.9\n");
    // The link of the other site is told of it, at its own address.
    let tablet = network.host("tablet");
    sites.roof.plug(&tablet, "eth0", &["192.168.77.9/24"]);
    let tablet = Phone::start(&network, tablet, "tablet");
    let seen = eventually("the printer on the other link", SLACK, || {
        let seen = tablet.sees("_ipp._tcp");
        (!seen.is_empty()).then_some(seen)
    });
    let [line] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    assert!(line.starts_with("IPv4;Printer\\0327;"), "{line}");
    assert!(line.ends_with(";192.168.88.9;631;\"oc=bridge\""), "{line}");
    // Its own link has it once, although a bridge there tells of printers, too.
    bridge.until("the printer, told or not", SLACK, |status| {
        let mut tables = status.tables.iter();
        tables.any(|table| table.name == "advertised_services" && table.used == 1)
    });
    let own = phone.sees("_ipp._tcp").into_iter();
    let own: Vec<_> = own.filter(|line| line.starts_with("IPv4;")).collect();
    assert!(
        own.len() == 1 && own[0].contains(";phone.local;"),
        "{own:?}"
    );
    drop(printer);
    eventually("that it is gone", SLACK, || {
        let is_gone = !ask("nodes", &["--service", "ipp", "--json"]).contains("Printer");
        (is_gone && tablet.sees("_ipp._tcp").is_empty()).then_some(())
    });
}
