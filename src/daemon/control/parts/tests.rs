use smol::io::AsyncReadExt as _;

use super::super::tests::{BRIEF, asking, desk, line_from, tables};
use super::super::{Control, MAX_CLIENTS};
use super::*;
use crate::daemon::request::MAX_PARTS;
use crate::daemon::status::{ListTally, NodeQuery};
use crate::daemon::storage::DataDir;
use crate::daemon::testdir::TestDir;
use crate::net::executor::{spawn, waits::block_on};

const NODES: &[u8] = b"nodes {\"service\":\"http\"}\n";

/// A tally with this count, before the end of the answer.
fn part(asked: u64) -> Part {
    tally(ListTally {
        asked,
        ..ListTally::default()
    })
}

/// The last one.
fn last_part(asked: u64) -> Part {
    tally(ListTally {
        done: true,
        complete: true,
        asked,
        ..ListTally::default()
    })
}

fn tally(tally: ListTally) -> Part {
    Part::Tally(Box::new(tally))
}

fn line_of(part: &Part) -> String {
    part.to_json() + "\n"
}

/// The next request for an answer in parts.
async fn asked(control: &Control) -> (PartsCall, Parts) {
    match within(Duration::from_secs(10), control.next()).await {
        Some(CallEvent::MadeInParts(query, parts)) => (query, parts),
        event => panic!("{event:?}"),
    }
}

#[test]
fn each_part_comes_as_a_line_while_the_rest_is_still_made() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        let mut client = asking(dir.path(), NODES).await;
        let (query, parts) = asked(&control).await;
        let service = Some("http".to_owned());
        let wanted = NodeQuery {
            service,
            ..NodeQuery::default()
        };
        assert_eq!(query, PartsCall::Nodes(wanted));
        let first = line_of(&part(1));
        assert!(parts.send(part(1)));
        let mut read = vec![0; first.len()];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), first);
        assert!(parts.send(last_part(2)));
        // The last part ends the answer, although the loop has not dropped its end.
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, line_of(&last_part(2)));
    });
}

#[test]
fn answer_without_its_last_part_ends_with_an_error() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        let mut client = asking(dir.path(), NODES).await;
        let (_, parts) = asked(&control).await;
        parts.send(part(1));
        drop(parts);
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        let (first, last) = all.split_once('\n').unwrap();
        assert_eq!(first, part(1).to_json());
        assert!(last.contains("is ending"), "{last}");
    });
}

#[test]
fn ninth_answer_in_parts_is_told_to_come_back() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        let mut open = Vec::new();
        for _ in 0..MAX_STREAMS {
            let client = asking(dir.path(), NODES).await;
            open.push((client, asked(&control).await));
        }
        let ninth: Refusal =
            json::from_str(&line_from(asking(dir.path(), NODES).await).await).unwrap();
        assert_eq!(ninth.again, Some(true), "{ninth:?}");
        let places = tables(dir.path(), &control).await[1];
        assert_eq!((places.used, places.capacity, places.refused), (8, 8, 1));
        // The place of one that leaves is free.
        let (client, (_, parts)) = open.pop().unwrap();
        drop(client);
        assert!(matches!(control.next().await, CallEvent::Left));
        assert!(parts.is_abandoned());
        let _client = asking(dir.path(), NODES).await;
        asked(&control).await;
    });
}

#[test]
fn reader_that_does_not_read_loses_its_place() {
    let (near, _far) = Async::<UnixStream>::pair().unwrap();
    let (desk, events) = desk(MAX_CLIENTS);
    let (parts, read) = Parts::new();
    block_on(async {
        spawn(async move {
            // More than the system buffers.
            while !parts.is_abandoned() {
                parts.send(part(u64::MAX));
                let _ = events.try_recv();
                future::yield_now().await;
            }
        });
        // Without its limit it would wait forever.
        assert!(!desk.pass_on(&read, &near, BRIEF).await);
    });
    assert_eq!(desk.refused.get(), 1);
}

#[test]
fn source_that_had_no_room_is_called_when_its_reader_reads() {
    let (near, mut far) = Async::<UnixStream>::pair().unwrap();
    let (desk, events) = desk(MAX_CLIENTS);
    let (parts, read) = Parts::new();
    for _ in 0..MAX_PARTS {
        assert!(parts.send(part(1)));
    }
    assert_eq!((parts.room(), parts.send(part(1))), (0, false));
    block_on(async {
        spawn(async move {
            desk.pass_on(&read, &near, TAKING).await;
        });
        spawn(async move {
            let mut all = Vec::new();
            let _ = far.read_to_end(&mut all).await;
        });
        let called = within(TAKING, events.recv()).await.unwrap().unwrap();
        assert!(matches!(called, CallEvent::Room), "{called:?}");
        assert!(parts.room() >= MAX_PARTS / 2);
        assert!(parts.send(last_part(1)));
    });
}
