//! All kinds of errors of a file of settings, each with the text of a file and what is said of it:
//! the document `snapshots/config-errors.txt`.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use crate::home::{Ended, Home};
use crate::snapshots::differs;

/// A kind of error, and a file for a node that has it. `ID` stands for a peer id.
const KINDS: &[(&str, &str)] = &[
    ("unknown key", "leese = \"90s\""),
    (
        "unknown key, with another mark between its words",
        "beat_interval = \"9s\"",
    ),
    ("unknown key, like no other", "frobnicate = 1"),
    ("unknown section", "[tags]\nroom = \"hall\""),
    ("unknown section, like no other", "[network]\nport = 1"),
    (
        "unknown key of a service",
        "[[service]]\nname = \"http\"\nprot = \"tcp\"",
    ),
    ("duplicate key", "name = \"cam\"\nname = \"lamp\""),
    ("no TOML", "name = \"cam"),
    ("no TOML: a text without quotes", "name = cam"),
    ("wrong type: a number for a duration", "lease = 90"),
    ("wrong type: a text for a number", "min-indexers = \"2\""),
    ("wrong type: a text for a switch", "trust-lan = \"yes\""),
    ("wrong type: a number for a list", "native = 7"),
    ("wrong type: an array for a table", "tag = [\"a=b\"]"),
    (
        "wrong type: one service as a table",
        "[service]\nname = \"http\"",
    ),
    (
        "wrong type: a check outside of a service",
        "check = \"tcp\"",
    ),
    ("duration: no unit", "lease = \"90\""),
    ("duration: below its bound", "lease = \"999ms\""),
    ("duration: above its bound", "lease = \"21m\""),
    ("duration: two units", "lease = \"1m30s\""),
    ("interval: below its bound", "gc-interval = \"99ms\""),
    ("interval: above its bound", "refresh-interval = \"61m\""),
    (
        "interval: more than a third of the lease",
        "\n# a comment\nlease = \"9s\"\nbeat-interval = \"4s\"",
    ),
    ("number: below its bound", "min-indexers = 0"),
    ("number: above its bound", "min-indexers = 9"),
    ("choice: log level", "log = \"loud\""),
    ("choice: log format", "log-format = \"xml\""),
    ("native: no address", "native = [\"native.example:4820\"]"),
    (
        "native: without a peer id",
        "native = [\"/ip4/192.0.2.1/tcp/4820\"]",
    ),
    (
        "native: a peer id that is too short",
        "native = [\"/ip4/192.0.2.1/tcp/4820/p2p/12D3KooWx\"]",
    ),
    (
        "native: a peer id of another key",
        "native = [\"/ip4/192.0.2.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N\"]",
    ),
    (
        "native: UDP",
        "native = [\"/ip4/192.0.2.1/udp/4820/p2p/ID\"]",
    ),
    (
        "native: port 0",
        "native = [\"/ip4/192.0.2.1/tcp/0/p2p/ID\"]",
    ),
    (
        "native: an address of no host",
        "native = [\"/ip4/0.0.0.0/tcp/4820/p2p/ID\"]",
    ),
    (
        "native: a number and no address",
        "native = [\"/dnsaddr/a.example\", 7, \"x\"]",
    ),
    (
        "native: too many",
        "native = [\"/dnsaddr/a.example\", \"/dnsaddr/b.example\", \"/dnsaddr/c.example\", \"/dnsaddr/d.example\",\n    \
         \"/dnsaddr/e.example\", \"/dnsaddr/f.example\", \"/dnsaddr/g.example\", \"/dnsaddr/h.example\", \"/dnsaddr/i.example\"]",
    ),
    ("listen: a name", "listen = [\"/dns/a.example/tcp/4820\"]"),
    (
        "listen: no such port",
        "listen = [\"/ip4/127.0.0.1/tcp/65536\"]",
    ),
    (
        "listen: one port twice",
        "listen = [\"/ip4/0.0.0.0/tcp/4820\", \"/ip4/127.0.0.1/tcp/4820\"]",
    ),
    (
        "announce: an address of no host",
        "announce = [\"/ip4/0.0.0.0/tcp/4821\"]",
    ),
    (
        "announce: with a peer id",
        "announce = [\"/ip4/192.0.2.1/tcp/4821/p2p/ID\"]",
    ),
    ("announce: nothing", "announce-only = true"),
    (
        "name: letters that a name does not have",
        "name = \"Camera 3\"",
    ),
    ("tag: no text", "[tag]\nroom = 7"),
    ("tag: a key that no tag has", "[tag]\n\"a=b\" = \"c\""),
    (
        "tag: too many",
        "[tag]\na = \"1\"\nb = \"2\"\nc = \"3\"\nd = \"4\"\ne = \"5\"\nf = \"6\"\ng = \"7\"\nh = \"8\"\ni = \"9\"",
    ),
    ("service: without a port", "[[service]]\nname = \"http\""),
    ("service: port 0", "[[service]]\nname = \"http\"\nport = 0"),
    (
        "service: a name that no service has",
        "[[service]]\nname = \"Web Site\"\nport = 80",
    ),
    (
        "service: another protocol",
        "[[service]]\nname = \"http\"\nport = 80\nproto = \"sctp\"",
    ),
    (
        "service: given twice",
        "[[service]]\nname = \"http\"\nport = 1\n[[service]]\nname = \"http\"\nport = 2",
    ),
    (
        "check: of no known kind",
        "[[service]]\nname = \"http\"\nport = 80\ncheck = \"ping\"",
    ),
    (
        "check: a path without /",
        "[[service]]\nname = \"http\"\nport = 80\ncheck = \"http:healthz\"",
    ),
    (
        "check: a command without leave",
        "[[service]]\nname = \"http\"\nport = 80\ncheck = \"exec:true\"",
    ),
    (
        "check: TCP for a service on UDP",
        "[[service]]\nname = \"dns\"\nport = 53\nproto = \"udp\"\ncheck = \"tcp\"",
    ),
    ("dns: no address", "dns = \"5320\""),
    ("dns-zone: without dns", "dns-zone = \"oc.internal\""),
    (
        "http: an address for others, without a token",
        "http = \"0.0.0.0:7480\"",
    ),
    ("http-token: without http", "\nhttp-token = \"/etc/token\""),
    (
        "dns-sd: a name that no service has",
        "dns-sd = [\"_http._tcp\"]",
    ),
    (
        "service: a name with the mark of an option",
        "[[service]]\nname = \"a=b\"\nport = 80\ncheck = \"tcp\"",
    ),
    (
        "a service with a wrong port and a wrong check",
        "[[service]]\nname = \"http\"\nport = 0\ncheck = \"ftp\"",
    ),
    (
        "two services with wrong names, and a wrong check",
        "[[service]]\nname = \"a_b\"\nport = 80\ncheck = \"ftp\"\n[[service]]\nname = \"c_d\"\nport = 81\n\
         check = \"tcp\"",
    ),
    (
        "several at once",
        "lease = \"5\"\nlog = \"x\"\ngc-interval = \"2h\"\nname = \"A\"\n[[service]]\nname = \"http\"\n\
         port = 1\n[[service]]\nname = \"http\"\nport = 2",
    ),
];

const ID: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

/// A key of a network, drawn at random.
const KEY: &str = "/key/swarm/psk/1.0.0/\n/base16/\n6f3a91d2c07be85514a9fe0672cd38b1904e7dd35ac81f26eb6b0947f2a1583c\n";
const WEAK: &str = "/key/swarm/psk/1.0.0/\n/base16/\nabababababababababababababababababababababababababababababababab\n";

const PSK: &str = "psk = \"SECRET\"";
const TOKEN: &str = "http = \"127.0.0.1:7480\"\nhttp-token = \"SECRET\"";

/// What a file has and its mode, if there is one.
type Content = Option<(&'static str, u32)>;

/// The same of the file that a setting names: the text, the content of that file and its mode.
const NAMED: &[(&str, &str, Content)] = &[
    ("key file: not there", PSK, None),
    ("key file: no key", PSK, Some(("x\n", 0o600))),
    ("key file: others can read it", PSK, Some((KEY, 0o644))),
    ("key file: not random", PSK, Some((WEAK, 0o600))),
    ("token: not there", TOKEN, None),
    ("token: too short", TOKEN, Some(("x\n", 0o600))),
    (
        "token: others can read it",
        TOKEN,
        Some(("0123456789abcdef\n", 0o604)),
    ),
];

/// Adds what is said of a file, with `/etc/oc-discovery` for the home.
fn add(document: &mut String, home: &Home, kind: &str, text: &str, checked: &Ended) {
    let named = |said: &str| said.replace(&home.path(""), "/etc/oc-discovery/");
    let code = checked.code.unwrap();
    writeln!(document, "# {kind}: exit code {code}").unwrap();
    text.lines()
        .for_each(|line| writeln!(document, "    {line}").unwrap());
    for line in named(&checked.stderr).lines() {
        let line = line.strip_prefix("oc-discovery: ").unwrap();
        writeln!(document, "{line}").unwrap();
    }
    document.push('\n');
}

#[test]
fn each_kind_of_error_is_said_with_its_place_and_what_is_allowed() {
    let home = Home::new();
    let (file, secret) = (home.path("node.toml"), home.path("swarm.key"));
    let mut document = String::new();
    for (kind, text) in KINDS {
        fs::write(&file, text.replace("ID", ID)).unwrap();
        let checked = home.run(&["config", "check", &file]);
        assert_eq!((checked.code, &*checked.stdout), (Some(2), ""), "{kind}");
        // A daemon refuses it with the same words.
        let started = home.run(&["node", "--config", &file, "--data-dir", &home.path("data")]);
        let said = (started.code, &started.stderr);
        assert_eq!(said, (Some(2), &checked.stderr), "{kind}");
        add(&mut document, &home, kind, text, &checked);
    }
    for (kind, text, content) in NAMED {
        let _ = fs::remove_file(&secret);
        if let Some((content, mode)) = content {
            fs::write(&secret, content).unwrap();
            fs::set_permissions(&secret, Permissions::from_mode(*mode)).unwrap();
        }
        let text = text.replace("SECRET", &secret);
        fs::write(&file, &text).unwrap();
        let checked = home.run(&["config", "check", &file]);
        assert_ne!(checked.stderr, "", "{kind}");
        let text = text.replace(&home.path(""), "/etc/oc-discovery/");
        add(&mut document, &home, kind, &text, &checked);
    }
    let long = "#".repeat(64 * 1024 + 1);
    for (kind, shown, content) in [
        ("file: more than 64 KiB", "####…", long.as_bytes()),
        ("file: not UTF-8", "# \\xff", b"# \xff\n"),
    ] {
        fs::write(&file, content).unwrap();
        let checked = home.run(&["config", "check", &file]);
        add(&mut document, &home, kind, shown, &checked);
    }
    fs::remove_file(&file).unwrap();
    let checked = home.run(&["config", "check", &file]);
    add(&mut document, &home, "file: not there", "", &checked);
    fs::create_dir(&file).unwrap();
    let checked = home.run(&["config", "check", &file]);
    add(&mut document, &home, "file: a directory", "", &checked);
    assert_eq!(differs("config-errors.txt", &document), None);
}
