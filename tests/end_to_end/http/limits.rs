//! What requests cost that do not keep to the rules, and which clients may ask.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType, connect, socket};

use super::*;

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
