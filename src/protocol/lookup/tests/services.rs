//! Lookups for a service: each server is asked for the nodes of its own directory that offer it.

use super::*;
use crate::protocol::{
    EntriesPage, MAX_ENTRIES, Presence, Subject,
    codec::{
        directory::{Request, Response},
        fixtures::{encoded, unsigned},
        record::{Flaw, Kind, Purpose, Record, Tags, Verifier, contents, encode_record},
        service::{Service, Transport, to_service_name},
    },
};

fn http() -> Question {
    Question::Service(to_service_name("http").unwrap())
}

/// The envelope of a node that offers this service.
fn offers(n: u8, service: &str) -> Vec<u8> {
    let service = Service {
        name: to_service_name(service).unwrap(),
        transport: Transport::Tcp,
        port: 80,
    };
    unsigned(&Record {
        peer: peer(n),
        sequence: 1,
        issued_at_ms: 1,
        ttl: Duration::from_secs(60),
        addrs: [&[4][..]].into_iter().collect(),
        name: "pump",
        tags: Tags::new(),
        services: [service].into_iter().collect(),
        version: "",
        link_services: Default::default(),
        grant: &[],
    })
}

/// Verifies what [`unsigned`] makes.
struct Unsigned;

impl Verifier for Unsigned {
    fn open(&self, purpose: Purpose, envelope: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), Flaw> {
        let record = purpose
            .kind()
            .and_then(|kind| contents(kind, envelope))
            .ok_or(Flaw::NotAnEnvelope)?;
        let payload = encoded(|buffer| encode_record(&record, buffer));
        Ok((record.peer, payload))
    }
}

impl Desk {
    /// The page that the server is asked for has these envelopes; `next`: there are more behind
    /// that id.
    fn lists_nodes(&mut self, now: u64, n: u8, nodes: &[(Vec<u8>, Presence)], next: Option<u8>) {
        let (ask, query) = self.question(n, false).expect("it was asked");
        let Request::List { filter, from, gone } = ask.into() else {
            panic!("it is asked for a list");
        };
        assert_eq!((filter.service.as_deref(), gone), (Some("http"), false));
        assert_eq!((from, filter.prefix.as_str()), (self.page, ""));
        self.page = next.map_or(Cursor::Start, |next| Cursor::After(peer(next)));
        let entries = nodes.iter().map(|(envelope, presence)| Entry {
            subject: Subject::Signed(envelope),
            age: Duration::from_millis(u64::from(n)),
            presence: *presence,
        });
        let entries: Vec<_> = entries.collect();
        let page = Response::Entries(EntriesPage {
            entries: &entries,
            next: next.map(peer),
        });
        self.lookups
            .responded(at(now), query, Some(&page), &Unsigned);
        self.poll(now);
    }

    fn lists_those(&mut self, now: u64, n: u8, nodes: &[u8]) {
        let nodes = nodes.iter().map(|n| (offers(*n, "http"), Presence::Alive));
        self.lists_nodes(now, n, &nodes.collect::<Vec<_>>(), None);
    }

    fn has_here(mut self, n: u8, service: &str) -> Self {
        let envelope = offers(n, service);
        let info = contents(Kind::Node, &envelope).unwrap().info();
        self.here.directory.list(at(0), &info, &envelope);
        self
    }

    fn found_in_order_of_ids(&self) -> Vec<u8> {
        let mut found = self.found();
        found.sort();
        found
    }
}

#[test]
fn node_asks_its_indexers_its_natives_and_all_that_these_list() {
    let mut desk = Desk::new(Role::Node).indexer(1).native(NATIVE);
    desk.begin(http());
    assert!(desk.wanted.is_empty());
    desk.lists_indexers(10, NATIVE, &[1, 2], None);
    desk.lists_those(20, 1, &[7]);
    desk.lists_those(20, NATIVE, &[8]);
    assert_eq!((desk.done, desk.waiting()), (None, vec![2]));
    desk.lists_those(20, 2, &[7, 9]);
    assert_eq!(desk.found_in_order_of_ids(), [7, 8, 9]);
    assert!(desk.outcome().is_complete);
    let age = desk.outcome().records.iter().map(FoundRecord::age).min();
    assert_eq!(age, Some(Some(Duration::from_millis(1))));
}

#[test]
fn node_is_told_of_nothing_as_complete_only_if_every_server_has_answered() {
    for is_silent in [false, true] {
        let mut desk = Desk::new(Role::Node).indexer(1).native(NATIVE);
        desk.begin(http());
        desk.lists_indexers(10, NATIVE, &[1], None);
        desk.lists_those(10, NATIVE, &[]);
        match is_silent {
            true => desk.fails(10, 1, false),
            false => desk.lists_those(10, 1, &[]),
        }
        assert!(desk.found().is_empty() && desk.asked.is_empty());
        assert_eq!(desk.outcome().is_complete, !is_silent);
    }
}

#[test]
fn indexer_asks_the_providers_and_all_indexers_if_there_may_be_other_providers() {
    for more in [false, true] {
        let mut desk = Desk::new(Role::Indexer).native(NATIVE).has_here(5, "http");
        desk = desk.has_here(6, "sip");
        desk.begin(http());
        let named: Vec<u8> = (20..37).chain([3]).collect();
        desk.names(10, &named[if more { 0 } else { 17 }..], Coverage::Complete);
        desk.search_ends(10, 1);
        while let Some(&n) = desk.waiting().first() {
            desk.lists_those(20, n, &[7]);
            if n == NATIVE {
                break;
            }
        }
        assert_eq!(desk.done.is_some(), !more);
        if more {
            desk.lists_indexers(30, NATIVE, &[20, 4], None);
            desk.lists_those(30, 4, &[8, 9]);
        }
        let found: &[u8] = if more { &[5, 7, 8, 9] } else { &[5, 7] };
        assert_eq!(desk.found_in_order_of_ids(), found);
        assert_eq!(desk.outcome().is_complete, !more);
    }
}

#[test]
fn indexer_that_finds_nothing_asks_all_that_a_native_lists() {
    let mut desk = Desk::new(Role::Indexer).native(NATIVE);
    desk.begin(http());
    desk.search_ends(10, 4);
    desk.lists_those(20, NATIVE, &[]);
    desk.lists_indexers(30, NATIVE, &[4], None);
    desk.lists_those(40, 4, &[]);
    assert!(desk.found().is_empty() && desk.outcome().is_complete);
}

#[test]
fn list_of_a_server_is_read_to_its_end_and_one_node_more_than_32_is_one_too_many() {
    assert_eq!((MAX_ENTRIES, MAX_FOUND), (32, 32));
    let page = |ids: core::ops::RangeInclusive<u8>| -> Vec<_> {
        ids.map(|n| (offers(n, "http"), Presence::Alive)).collect()
    };
    for (last, complete) in [(47, true), (48, false)] {
        let mut desk = Desk::new(Role::Node).indexer(1);
        desk.begin(http());
        desk.lists_nodes(10, 1, &page(10..=20), Some(20));
        // Of the nodes that the server has looked at for this one, none offers the service.
        desk.lists_nodes(20, 1, &[], Some(26));
        assert_eq!((desk.done, desk.waiting()), (None, vec![1]));
        desk.lists_nodes(30, 1, &page(27..=last), None);
        assert_eq!((desk.found().len(), desk.tally()), (32, (1, 1)));
        assert_eq!(desk.outcome().more, !complete);
        assert_eq!(desk.outcome().is_complete, complete);
    }
}

#[test]
fn list_is_not_read_on_if_there_are_more_nodes_than_are_kept_or_its_ids_do_not_grow() {
    for (first, next) in [(33, 60), (1, 20)] {
        let mut desk = Desk::new(Role::Node).indexer(1);
        desk.begin(http());
        let nodes: Vec<_> = (20..20 + first)
            .map(|n| (offers(n, "http"), Presence::Alive))
            .collect();
        desk.lists_nodes(10, 1, &nodes[..1], Some(20));
        desk.lists_nodes(20, 1, &nodes[1..], Some(next));
        assert!(desk.waiting().is_empty());
        assert!(desk.outcome().more && !desk.outcome().is_complete);
    }
}

#[test]
fn own_directory_gives_32_nodes_and_one_more_makes_the_answer_incomplete() {
    for count in [31, 32] {
        let mut desk = Desk::new(Role::Node).indexer(1);
        for n in 10..10 + count {
            desk = desk.has_here(n, "http");
        }
        desk.begin(http());
        desk.lists_those(10, 1, &[99]);
        assert_eq!(desk.found().len(), 32);
        assert_eq!(desk.outcome().is_complete, count == 31);
    }
}

#[test]
fn who_is_gone_or_offers_something_else_is_not_found() {
    let mut desk = Desk::new(Role::Node).indexer(1);
    desk.begin(http());
    let nodes = [
        (offers(7, "http"), Presence::Left),
        (offers(8, "http"), Presence::Lost),
        (offers(9, "https"), Presence::Alive),
        (Vec::from([1, 2, 3]), Presence::Alive),
        (offers(5, "http"), Presence::Alive),
    ];
    desk.lists_nodes(10, 1, &nodes, None);
    assert_eq!(desk.found(), [5]);
}

#[test]
fn list_is_no_answer_to_a_name_and_records_are_none_to_a_service() {
    let list = Response::Entries(EntriesPage::default());
    let records = Response::Records {
        records: Default::default(),
        more: false,
        tally: None,
        ages: Default::default(),
        claimants: None,
        claims: Default::default(),
    };
    for (question, response, is_answer) in [
        (http(), &list, true),
        (http(), &records, false),
        (pump(), &list, false),
        (pump(), &records, true),
    ] {
        let mut desk = Desk::new(Role::Node).indexer(1);
        desk.begin(question);
        let (_, query) = desk.question(1, false).expect("it was asked");
        desk.lookups
            .responded(at(10), query, Some(response), &Unsigned);
        desk.poll(10);
        assert_eq!(desk.refused().is_empty(), is_answer);
        assert_eq!(desk.outcome().is_complete, is_answer);
    }
}
