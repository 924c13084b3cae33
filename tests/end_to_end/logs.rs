//! What the log of a process says of servers that are away, of peers that send nonsense, and of
//! itself at each level and in each form.

use std::collections::BTreeMap;

use futures_util::AsyncWriteExt as _;
use libp2p::identity::Keypair;
use miniserde::json;
use smol::block_on;

use super::harness::{Look as _, Peer, SLACK, World, eventually};
use super::stranger::{connect, socket};
use super::wire::frame;

/// The lines of its log that have this text.
fn lines(peer: &Peer, text: &str) -> Vec<String> {
    let log = peer.log();
    let lines = log.lines().filter(|line| line.contains(text));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_native_that_is_away_is_named_once_with_the_reason_and_once_when_it_is_back() {
    let world = World::new();
    let settled = world.settle_native("native");
    let mut native = world.settled(&settled, &[], &[]);
    let (at, id) = (socket(&native), native.short_id().to_owned());
    let node = world.node("node", &[&native], &["--name", "pump"]);
    node.until("its lease", SLACK, |s| s.is_under_native(&native));
    node.logs(&format!("with native …{id} at {at}: 1 of 2 leases"));
    native.kill();
    node.logs(&format!(
        "has lost the lease with native …{id} at {at} after "
    ));
    // Whether the first try meets the process that is dying, or none, is chance: it is refused, or
    // ends in the handshake. The words of each are tested where they are chosen.
    let away = format!("native …{id} cannot be reached at {at}: ");
    node.logs(&away);
    // Further tries are counted.
    let tries = || {
        let status = node.status();
        status.leases.is_empty().then_some(())
    };
    eventually("no lease", SLACK, tries);
    assert_eq!(lines(&node, &away).len(), 1, "{}", node.log());
    let native = world.settled(&settled, &[], &[]);
    node.until("its lease again", SLACK, |s| s.is_under_native(&native));
    node.logs(&format!("native …{id} at {at} answers again after "));
    assert_eq!(
        lines(&node, " answers again after ").len(),
        1,
        "{}",
        node.log()
    );
}

#[test]
fn a_beat_that_cannot_be_read_is_told_with_its_field_and_its_peer() {
    let world = World::new();
    let native = world.native("native", &[]);
    let key = Keypair::generate_ed25519();
    let id = key.public().to_peer_id().to_string();
    let mut connection = connect(&native, &key);
    // A new stream of Yamux, the negotiation, and an empty map.
    let said = [
        b"\x13/multistream/1.0.0\n\x14/oc/heartbeat/1.0.0\n",
        &*frame(&[0xa0]),
    ]
    .concat();
    let length = u32::try_from(said.len()).unwrap().to_be_bytes();
    let head = [0, 0, 0, 1, 0, 0, 0, 1];
    let sent = [&head, &length[..], &said].concat();
    block_on(async {
        connection.write_all(&sent).await.unwrap();
        connection.flush().await.unwrap();
    });
    native.logs(&format!(
        " INFO  peer …{} at 127.0.0.1 sends a beat that cannot be read: beat: the required key 0 is missing",
        &id[id.len() - 8..]
    ));
}

#[test]
fn debug_has_decisions_and_trace_has_frames_too() {
    let world = World::new();
    let native = world.native("native", &["--log", "trace"]);
    let node = world.node("node", &[&native], &["--log", "debug"]);
    let quiet = world.node("quiet", &[&native], &[]);
    for node in [&node, &quiet] {
        node.until("its lease", SLACK, |s| s.is_under_native(&native));
    }
    let id = native.short_id();
    for text in [
        " DEBUG dials ",
        &*format!(" DEBUG decides: asks …{id} at 127.0.0.1:"),
        &*format!(" DEBUG decides: beats to …{id}"),
        &*format!(" DEBUG told: ack of …{id}: Accepted for 3000 ms"),
    ] {
        node.logs(text);
    }
    for text in [
        " TRACE got beat 0 of ",
        " TRACE sends ack 0 of ",
        " TRACE got request ",
        " DEBUG connected with ",
        ": Accepted",
    ] {
        native.logs(text);
    }
    assert_eq!(lines(&node, " TRACE "), [""; 0]);
    assert_eq!(lines(&quiet, " DEBUG "), [""; 0]);
}

#[test]
fn every_line_of_a_log_in_json_is_an_object() {
    let world = World::new();
    let args = ["--log-format", "json", "--log", "trace"];
    let native = world.native("native", &args);
    let node = world.node("node", &[&native], &["--log-format", "json"]);
    node.until("its lease", SLACK, |s| s.is_under_native(&native));
    node.logs("holds a lease of 3 s with native");
    assert!(native.is_json.get() && node.is_json.get(), "their stdout");
    for peer in [&native, &node] {
        // The last line may be written just now.
        let log = peer.log();
        let whole = log.rsplit_once('\n').unwrap().0;
        for line in whole.lines() {
            let object: BTreeMap<String, String> =
                json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
            for key in ["level", "message", "module", "time"] {
                assert!(object.contains_key(key), "{line}");
            }
        }
        assert!(whole.lines().count() >= 3, "{whole}");
    }
    let fields = |peer: &Peer, code: &str| {
        let log = peer.log();
        let mut lines = log.lines();
        let line = lines.find(|line| line.contains(&format!("\"code\":\"{code}\"")));
        let object: BTreeMap<String, String> = json::from_str(line.expect(code)).unwrap();
        (
            object["role"].clone(),
            object["peer"].clone(),
            object["addr"].clone(),
        )
    };
    let (taken_in, granted) = (fields(&native, "taken-in"), fields(&node, "lease-granted"));
    assert_eq!(
        taken_in,
        ("node".into(), node.id.clone(), "127.0.0.1".into())
    );
    assert_eq!(
        granted,
        (
            "native".into(),
            native.id.clone(),
            socket(&native).to_string()
        )
    );
}
