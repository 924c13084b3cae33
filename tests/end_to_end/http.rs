//! `--http`: what is answered, and to which requests.

mod limits;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use miniserde::json;
use oc_discovery::embed::{Discovery, Status};

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
    assert!(lacks.body.contains(indexer.short_id()), "{lacks:?}");
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
    // It has nothing more to say, and still reads.
    stream.get_ref().shutdown(Shutdown::Write).unwrap();
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
