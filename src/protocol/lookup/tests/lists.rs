//! Lists of the own directory, and the ages of what is in it.

use super::*;
use crate::protocol::{
    Beat, Entries, Filter, Indexer, IndexerConfig, Name, RequestId, Role, SignedRecord, StreamId,
    Terms,
    codec::{
        directory::{Request, Response, UNKNOWN_AGE, age_ms, encode_response},
        fixtures::encoded,
        frame::MAX_RESPONSE,
    },
};

const MINUTE: Duration = Duration::from_secs(60);

/// An indexer with nodes of these ids. Their records have so many bytes, and each was heard at the
/// instant of its id.
fn indexer(ids: core::ops::Range<u8>, length: usize) -> Box<Indexer<40>> {
    let mut indexer = Box::new(Indexer::new());
    let config = IndexerConfig {
        terms: Terms {
            lease: MINUTE,
            beat_interval: MINUTE,
        },
        gc_interval: MINUTE,
    };
    indexer.start(at(0), peer(0), 1, config);
    let envelope = vec![7; length];
    for n in ids {
        let record = SignedRecord {
            info: info(n, "pump", 1),
            envelope: &envelope,
        };
        let beat = Beat {
            record: Some(record),
            ..Beat::new(Role::Node, MINUTE)
        };
        indexer.beat(at(n.into()), &peer(n), StreamId(1), &beat);
    }
    indexer
}

/// How many entries each page has that a peer asks for until there is none.
fn pages(indexer: &mut Indexer<40>) -> Vec<usize> {
    let mut lookups = Box::new(EMPTY);
    let (mut pages, mut from) = (Vec::new(), Cursor::Start);
    loop {
        let request = Request::List {
            filter: Filter::default(),
            from,
            gone: false,
        };
        let mut entries = Entries::new();
        let (asker, id) = (peer(99), RequestId(1));
        let served = lookups.serve(at(100), &asker, id, request, &mut *indexer, &mut entries);
        let Served::Now(Response::Entries(page)) = served else {
            panic!("{served:?}");
        };
        let bytes = encoded(|buffer| encode_response(&Response::Entries(page), buffer));
        assert!(bytes.len() <= MAX_RESPONSE);
        pages.push(page.entries.len());
        match page.next {
            Some(id) => from = Cursor::After(id),
            None => return pages,
        }
    }
}

#[test]
fn a_page_has_32_entries_or_as_many_as_fit_a_frame() {
    assert_eq!(pages(&mut indexer(1..1, 1)), [0]);
    assert_eq!(pages(&mut indexer(1..33, 100)), [32]);
    assert_eq!(pages(&mut indexer(1..34, 100)), [32, 1]);
    assert_eq!(pages(&mut indexer(1..34, 1024)), [15, 15, 3]);
}

#[test]
fn an_answer_of_the_own_directory_says_when_each_node_was_heard() {
    let mut indexer = indexer(3..5, 10);
    let mut lookups = Box::new(EMPTY);
    let name = Name::try_from("pump").unwrap();
    let reach = Reach::Directory;
    let by_name = Request::FindName { name, reach };
    let by_id = Request::FindPeer {
        peer: peer(4),
        reach,
    };
    for (request, expected) in [(by_name, &[97, 96][..]), (by_id, &[96])] {
        let mut entries = Entries::new();
        let (asker, id) = (peer(99), RequestId(1));
        match lookups.serve(at(100), &asker, id, request, &mut *indexer, &mut entries) {
            Served::Now(Response::Records { ages, .. }) => assert_eq!(ages, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_age_that_is_not_known_is_none_that_can_be() {
    let never = u64::from(u32::MAX);
    for (told, age) in [(7, 7), (never - 1, u32::MAX - 1), (never, u32::MAX - 1)] {
        assert_eq!(age_ms(Some(Duration::from_millis(told))), age);
    }
    assert_eq!(age_ms(None), UNKNOWN_AGE);
}
