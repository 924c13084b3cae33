//! `--http`: what is answered, to which requests, and what those cost that do not keep to the rules.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use miniserde::json;
use oc_discovery::embed::{Discovery, Status};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType, connect, socket};

use super::harness::{Look as _, Peer, SLACK, World, eventually, ms};

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];
/// How long a request may take, and a client that does not read.
const LIMIT: Duration = Duration::from_secs(10);

/// The address at which the daemon answers.
fn at(peer: &Peer) -> SocketAddr {
    let lines = peer.greeting.iter();
    let mut urls = lines.filter_map(|line| line.strip_prefix("answers HTTP on http://"));
    urls.next().unwrap().trim_end_matches('/').parse().unwrap()
}

fn dial(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(LIMIT + SLACK)).unwrap();
    stream
}

/// An answer.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

/// Sends this, and reads one answer to the end of the connection.
fn reply(at: SocketAddr, request: &str) -> Reply {
    let mut stream = dial(at);
    stream.write_all(request.as_bytes()).unwrap();
    last(stream)
}

/// Reads to the end of the connection.
fn last(mut stream: TcpStream) -> Reply {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let (head, body) = (head.to_owned(), body.to_owned());
    Reply { status, head, body }
}

fn get(at: SocketAddr, target: &str) -> Reply {
    // HTTP/1.0, so that nothing comes in chunks.
    reply(at, &format!("GET {target} HTTP/1.0\r\nHost: {at}\r\n\r\n"))
}

/// Reads one answer of known length.
fn next(from: &mut BufReader<TcpStream>) -> (u16, String) {
    let (mut status, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        match line.trim_end().split_once(' ') {
            Some(("HTTP/1.1", rest)) => status = rest[..3].parse().unwrap(),
            Some(("Content-Length:", rest)) => length = rest.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).unwrap();
    (status, String::from_utf8(body).unwrap())
}

#[test]
fn each_path_answers_and_readiness_depends_on_the_role() {
    let world = World::new();
    let native = world.native("native", &HTTP);
    let at_native = at(&native);
    assert_eq!(get(at_native, "/readyz").status, 200);
    let lone = world.indexer("lone", &[], &HTTP);
    let not_ready = get(at(&lone), "/readyz");
    assert_eq!(not_ready.status, 503);
    assert_eq!(not_ready.body, "not ready: no native grants a lease\n");
    let indexer = world.indexer("indexer", &[&native], &HTTP);
    let cam = [
        "--name",
        "cam",
        "--service",
        "metrics=9100",
        "--service",
        "snmp=udp:161",
        "--tag",
        "site=roof-1",
        "--http",
        "127.0.0.1:0",
    ];
    let node = world.node("cam", &[&native], &cam);
    node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
    indexer.until("its lease", SLACK, |s| s.holds_lease_of(&native));
    for peer in [&native, &indexer, &node] {
        let at = at(peer);
        assert_eq!(get(at, "/healthz").body, "ok\n");
        assert_eq!(get(at, "/readyz").body, "ready\n");
        let status: Status = json::from_str(&get(at, "/status.json").body).unwrap();
        assert_eq!(status.peer_id, peer.id);
        assert_eq!(status.table("http_connections").used, 1);
        assert_eq!(status.table("control_clients").used, 0);
    }
    for (query, count) in [
        ("", 1),
        ("?service=metrics", 1),
        ("?service=ssh", 0),
        ("?name=ca&tag=site%3Droof-1&state=alive", 1),
        ("?state=lost", 0),
    ] {
        let list = get(at_native, &format!("/nodes.json{query}"));
        assert_eq!(list.status, 200);
        let list: json::Object = json::from_str(&list.body).unwrap();
        let json::Value::Array(nodes) = &list["nodes"] else {
            panic!("{list:?}")
        };
        assert_eq!(nodes.len(), count, "{query}");
        assert!(matches!(list["complete"], json::Value::Bool(true)));
    }
    let targets = get(at_native, "/http_sd?service=metrics");
    let expected = format!(
        "[{{\"targets\":[\"127.0.0.1:9100\"],\"labels\":{{\
         \"__meta_oc_discovery_name\":\"cam\",\"__meta_oc_discovery_peer_id\":\"{}\",\
         \"__meta_oc_discovery_protocol\":\"tcp\",\"__meta_oc_discovery_service\":\"metrics\",\
         \"__meta_oc_discovery_state\":\"alive\",\"__meta_oc_discovery_tag_site\":\"roof-1\",\
         \"__meta_oc_discovery_version\":\"{}\"}}}}]\n",
        node.id,
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(targets.body, expected);
    let all = get(at_native, "/http_sd").body;
    assert!(
        all.contains("\"127.0.0.1:161\"") && all.contains("protocol\":\"udp\""),
        "{all}"
    );
    for (target, status) in [
        ("/none", 404),
        ("/nodes.json?colour=red", 400),
        ("/events?state=dead", 400),
    ] {
        assert_eq!(get(at_native, target).status, status, "{target}");
    }
    assert!(get(at_native, "/").body.contains("/nodes.json"));
}

#[test]
fn list_that_lacks_a_server_gives_prometheus_no_targets_unless_it_asks_for_that() {
    let world = World::new();
    let native = world.native("native", &HTTP);
    let mut indexer = world.indexer("indexer", &[&native], &["--lease", "60s"]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    indexer.freeze();
    let lacks = get(at(&native), "/http_sd");
    assert_eq!(lacks.status, 503);
    assert!(
        lacks.body.contains("1 of 1 server asked did not answer"),
        "{lacks:?}"
    );
    assert!(lacks.body.contains(&indexer.id), "{lacks:?}");
    let allowed = get(at(&native), "/http_sd?incomplete=allow");
    assert_eq!((allowed.status, allowed.body.as_str()), (200, "[]\n"));
    indexer.kill();
}

/// The lines of an event stream.
fn events(at: SocketAddr, fields: &str) -> BufReader<TcpStream> {
    let mut stream = dial(at);
    write!(stream, "GET /events HTTP/1.1\r\nHost: {at}\r\n{fields}\r\n").unwrap();
    let mut lines = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(lines.read_line(&mut head).unwrap(), 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(
        head.contains("Content-Type: text/event-stream\r\n"),
        "{head}"
    );
    lines
}

/// The next event of this kind: its number, and its data.
fn event(from: &mut BufReader<TcpStream>, name: &str, about: &str) -> (u64, String) {
    let mut number = 0;
    loop {
        let mut line = String::new();
        assert_ne!(
            from.read_line(&mut line).unwrap(),
            0,
            "the stream has ended"
        );
        if let Some(id) = line.trim_end().strip_prefix("id: ") {
            number = id.parse().unwrap();
        }
        if let Some(data) = line.strip_prefix("data: ")
            && data.starts_with(&format!("{{\"event\":\"{name}\""))
            && data.contains(about)
        {
            return (number, data.to_owned());
        }
    }
}

#[test]
fn events_tell_what_is_there_then_each_change_and_again_what_is_there() {
    let world = World::new();
    let native = world.native("native", &HTTP);
    let first = world.node("first", &[&native], &[]);
    native.until("the node", SLACK, |s| s.is_responsible_for(&first));
    let mut stream = events(at(&native), "");
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert_eq!(line, "retry: 3000\n");
    let (one, _) = event(&mut stream, "present", &first.id);
    let (two, _) = event(&mut stream, "caught_up", "");
    assert!(0 < one && one < two);
    let mut second = world.node("second", &[&native], &[]);
    let (three, _) = event(&mut stream, "present", &second.id);
    assert_eq!(three, two + 1);
    second.kill();
    event(&mut stream, "lost", &second.id);

    let mut again = events(at(&native), "Last-Event-ID: 4\r\n");
    event(&mut again, "present", &first.id);
    event(&mut again, "caught_up", "");
    drop((stream, again));
    native.until("both places are free", SLACK, |s| {
        s.used("http_streams") == 0
    });
}

#[test]
fn requests_follow_each_other_also_without_waiting_and_after_the_end_of_the_clients_direction() {
    let world = World::new();
    let native = world.native("native", &HTTP);
    let at = at(&native);
    let mut stream = dial(at);
    let ask =
        |target: &str, more: &str| format!("GET {target} HTTP/1.1\r\nHost: {at}\r\n{more}\r\n");
    let three = ["/healthz", "/none", "/readyz"].map(|target| ask(target, ""));
    stream.write_all(three.concat().as_bytes()).unwrap();
    stream
        .write_all(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    stream
        .write_all(ask("/readyz", "Connection: close\r\n").as_bytes())
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut replies = BufReader::new(stream);
    assert_eq!(next(&mut replies), (200, "ok\n".into()));
    assert_eq!(next(&mut replies).0, 404);
    assert_eq!(next(&mut replies), (200, "ready\n".into()));
    let mut rest = String::new();
    replies.read_to_string(&mut rest).unwrap();
    let (head, rest) = rest.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Content-Length: 3\r\n"), "{head}");
    assert!(
        rest.starts_with("HTTP/1.1 200") && rest.ends_with("\r\n\r\nready\n"),
        "{rest}"
    );

    let mut chunked = String::new();
    let mut stream = dial(at);
    stream
        .write_all(ask("/nodes.json", "Connection: close\r\n").as_bytes())
        .unwrap();
    stream.read_to_string(&mut chunked).unwrap();
    assert!(
        chunked.contains("Transfer-Encoding: chunked\r\n"),
        "{chunked}"
    );
    assert!(chunked.ends_with("\r\n0\r\n\r\n"), "{chunked}");
}

#[test]
fn what_is_no_request_is_refused_with_its_reason() {
    let world = World::new();
    let native = world.native("native", &HTTP);
    let at = at(&native);
    let long = format!(
        "GET /healthz HTTP/1.1\r\nHost: {at}\r\nX: {}\r\n\r\n",
        "x".repeat(8192)
    );
    for (status, request) in [
        (400, "\u{16}\u{3}\u{1}\u{2}"),
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (
            405,
            "POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
        ),
        (
            413,
            "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
        ),
        (431, long.as_str()),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ] {
        let reply = reply(at, request);
        assert_eq!(reply.status, status, "{request:?}");
        assert!(reply.head.contains("Connection: close"), "{reply:?}");
        assert!(
            status != 405 || reply.head.contains("Allow: GET, HEAD"),
            "{reply:?}"
        );
    }
    let reply = get(at, "/healthz");
    for field in [
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
    ] {
        assert!(reply.head.contains(field), "{reply:?}");
    }
    assert!(!reply.head.contains("Access-Control"), "{reply:?}");
}

#[test]
fn request_that_comes_too_slowly_is_ended_after_ten_seconds() {
    let world = World::new();
    let native = world.native("native", &HTTP);
    let at = at(&native);
    let begin = Instant::now();
    let silent = dial(at);
    let mut slow = dial(at);
    slow.set_read_timeout(Some(ms(500))).unwrap();
    let mut letters = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ".to_vec();
    letters.resize(100, b'x');
    let mut said = Vec::new();
    // A letter each half second, and more often than that once the daemon has closed.
    for letter in letters {
        let mut room = [0; 1024];
        match slow
            .write_all(&[letter])
            .and_then(|()| slow.read(&mut room))
        {
            Ok(0) => break,
            Ok(count) => said.extend_from_slice(&room[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let took = begin.elapsed();
    assert!(took >= LIMIT && took < LIMIT + SLACK, "{took:?}");
    assert!(
        said.starts_with(b"HTTP/1.1 408 "),
        "{}",
        String::from_utf8_lossy(&said)
    );
    let mut nothing = Vec::new();
    (&silent).read_to_end(&mut nothing).unwrap();
    assert!(nothing.is_empty(), "no request was begun");
    native.until("both places are free", SLACK, |s| {
        s.used("http_connections") == 0
    });
}

#[test]
fn seventeenth_connection_takes_the_place_of_the_one_that_is_waited_for_the_longest() {
    let world = World::new();
    let native = world.native("native", &HTTP);
    let at = at(&native);
    let mut silent: Vec<TcpStream> = Vec::new();
    for used in 1..=16 {
        silent.push(dial(at));
        native.until("it has a place", SLACK, |s| {
            s.used("http_connections") == used
        });
    }
    assert_eq!(get(at, "/healthz").status, 200);
    let mut longest = silent.remove(0);
    assert!(
        matches!(longest.read(&mut [0]), Ok(0) | Err(_)),
        "it was closed"
    );
    let status = native.status();
    assert_eq!(status.table("http_connections").evicted, 1);
    drop(silent);
    native.until("all places are free", SLACK, |s| {
        s.used("http_connections") == 0
    });

    // Clients that ask on and on and never read give way, too.
    let stuck: Vec<TcpStream> = (0..16).map(|_| unread(at, "/status.json", 4000)).collect();
    native.until("all places are taken", SLACK, |s| {
        s.used("http_connections") == 16
    });
    for _ in 0..20 {
        assert_eq!(get(at, "/healthz").status, 200);
    }
    drop(stuck);
}

/// A client that asks so many times as it can at once, and does not read. Its own room is small.
fn unread(at: SocketAddr, target: &str, times: usize) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    set_socket_recv_buffer_size(&socket, 1).unwrap();
    connect(&socket, &at).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_nonblocking(true).unwrap();
    let requests = format!("GET {target} HTTP/1.1\r\nHost: {at}\r\n\r\n").repeat(times);
    // What does not fit is not sent.
    let _ = stream.write(requests.as_bytes());
    stream
}

#[test]
fn reader_of_events_that_is_stuck_is_closed_and_50_nodes_keep_their_leases() {
    let world = World::new();
    let native = world.native("native", &HTTP);
    let at = at(&native);
    let nodes: Vec<Discovery> = smol::block_on(async {
        let mut nodes = Vec::new();
        for number in 0..50 {
            let mut node = Discovery::builder()
                .native(&native.addr)
                .listen("/ip4/127.0.0.1/tcp/0")
                .name(format!("node-{number}"))
                .lease(ms(3000))
                .connect_interval(ms(1000));
            for service in 0..8 {
                node = node.service(&format!("service-{service}"), 1000 + service);
            }
            nodes.push(node.tag("long", &"x".repeat(250)).spawn().await.unwrap());
        }
        nodes
    });
    let all = |s: &Status| s.responsible_peers.len() == nodes.len();
    native.until("all nodes are taken in", SLACK * 3, all);
    let stuck = unread(at, "/events", 1);
    native.until("it is served", SLACK, |s| s.used("http_streams") == 1);
    let begin = Instant::now();
    eventually("it is closed", LIMIT + SLACK, || {
        let status = native.status();
        assert!(
            all(&status),
            "a node is gone: {} are left",
            status.responsible_peers.len()
        );
        assert_eq!(get(at, "/healthz").status, 200);
        (status.used("http_streams") == 0).then_some(())
    });
    assert!(begin.elapsed() + ms(1000) >= LIMIT, "{:?}", begin.elapsed());
    drop(stuck);
    // What is there now can be read by another at once.
    let mut stream = events(at, "");
    event(&mut stream, "caught_up", "");
    smol::block_on(async {
        for node in nodes {
            node.close().await;
        }
    });
}

#[test]
fn name_of_another_site_is_refused_so_that_no_page_reads_this_through_a_browser() {
    let world = World::new();
    let native = world.native("native", &HTTP);
    let at = at(&native);
    let named = |host: &str| {
        reply(
            at,
            &format!("GET /status.json HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
        )
    };
    for own in [
        at.to_string(),
        format!("localhost:{}", at.port()),
        "[::1]:1".into(),
    ] {
        assert_eq!(named(&own).status, 200, "{own}");
    }
    for other in [
        "rebind.example",
        "localhost.rebind.example:7480",
        "127.0.0.1.nip.io",
    ] {
        let reply = named(other);
        assert_eq!(reply.status, 421, "{other}");
        assert!(!reply.body.contains(&native.id));
    }
}

#[test]
fn other_addresses_than_loopback_need_a_token() {
    let world = World::new();
    let file = world.path("token");
    let path = file.to_str().unwrap();
    let token = "0123456789abcdef0123456789abcdef";
    fs::write(&file, format!("{token}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let without = world.start_in_vain("native", "without", &["--http", "0.0.0.0:0"]);
    assert_eq!(without.status.code(), Some(2));
    let native = world.native("native", &["--http", "0.0.0.0:0", "--http-token", path]);
    let at = SocketAddr::from(([127, 0, 0, 1], at(&native).port()));
    let with = |target: &str, authorization: &str| {
        reply(
            at,
            &format!("GET {target} HTTP/1.0\r\nHost: native.example\r\n{authorization}\r\n"),
        )
    };
    let right = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(with("/status.json", &right).status, 200);
    let missing = with("/status.json", "");
    assert_eq!(missing.status, 401);
    assert!(
        missing.head.contains("WWW-Authenticate: Basic"),
        "{missing:?}"
    );
    assert!(!missing.body.contains(&native.id));
    assert_eq!(
        with("/events", "Authorization: Bearer 0123456789abcdef\r\n").status,
        401
    );
    assert_eq!(get(at, "/healthz").status, 200);
    assert_eq!(get(at, "/metrics").status, 401);
    assert!(!native.log().contains(token));

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let open = world.native("open", &["--http", "127.0.0.1:0", "--http-token", path]);
    open.logs("other users can read it");
    fs::write(&file, "short").unwrap();
    let short = world.start_in_vain(
        "native",
        "short",
        &["--http", "127.0.0.1:0", "--http-token", path],
    );
    assert_eq!(short.status.code(), Some(1));
    let why = String::from_utf8(short.stderr).unwrap();
    assert!(why.contains("16 to 256 visible"), "{why}");
}
