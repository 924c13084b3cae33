//! Requests and responses as they are in frames.

use super::*;
use crate::protocol::{
    IndexerConfig, Input, Native, NativeConfig, RequestId, Terms, Want,
    codec::{
        directory::{Envelopes, Request, Response},
        fixtures::encoded,
        record::{Flaw, Purpose, Record, Tags, Verifier, encode_record},
    },
    indexer::Indexer,
};

const MINUTE: Duration = Duration::from_secs(60);
const TERMS: Terms = Terms {
    lease: MINUTE,
    beat_interval: MINUTE,
};

fn native(fellow: Option<u8>) -> Box<Native<2, 4, 2, 6>> {
    let mut native = Box::new(Native::new());
    let config = NativeConfig {
        terms: TERMS,
        offload_interval: MINUTE,
        refresh_interval: MINUTE,
        gc_interval: MINUTE,
    };
    native.start(at(0), peer(0), 1, config);
    if let Some(fellow) = fellow.map(peer) {
        let (native_id, addrs) = (&fellow, &Addrs::new());
        let learned = Input::NativeLearned {
            native: native_id,
            addrs,
        };
        native.handle(at(0), learned);
    }
    native
}

fn find_pump(reach: Reach) -> Request {
    let name = name("pump");
    Request::FindName { name, reach }
}

fn indexers(want: Want, from: Option<Cursor>) -> Request {
    let most = 16;
    Request::Indexers { most, want, from }
}

/// The place for the entries is leaked, because a served list borrows from it.
fn serve<'a, M: Machine>(lookups: &mut Slots, request: Request, machine: &'a mut M) -> Served<'a> {
    let entries = Box::leak(Box::default());
    lookups.serve(at(0), &peer(9), RequestId(1), request, machine, entries)
}

#[test]
fn page_is_for_a_peer_that_only_asks_and_names_a_cursor() {
    let (mut lookups, mut native) = (Box::new(EMPTY), native(None));
    for want in [Want::Nothing, Want::Lease, Want::OffersFailed] {
        for from in [None, Some(Cursor::Start)] {
            let is_page = want == Want::Nothing && from.is_some();
            match serve(&mut lookups, indexers(want, from), &mut *native) {
                Served::Now(Response::Page(_)) => assert!(is_page, "{want:?}"),
                Served::Now(Response::Indexers(_)) | Served::Later => assert!(!is_page),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn answer_of_the_own_directory_alone_counts_no_servers() {
    let mut indexer = Box::new(Indexer::<2>::new());
    let config = IndexerConfig {
        terms: TERMS,
        gc_interval: MINUTE,
    };
    indexer.start(at(0), peer(0), 1, config);
    let mut lookups = Box::new(EMPTY);
    match serve(&mut lookups, find_pump(Reach::Directory), &mut *indexer) {
        Served::Now(Response::Records { tally, .. }) => assert_eq!(tally, None),
        other => panic!("{other:?}"),
    }
    let served = serve(&mut lookups, find_pump(Reach::Network), &mut *indexer);
    assert!(matches!(served, Served::Lookup(_)));
}

#[test]
fn server_of_an_open_network_has_no_revocation_list() {
    let mut native = native(None);
    let answer = serve(&mut Box::new(EMPTY), Request::Revocations, &mut *native);
    let Served::Now(Response::Revocations(list)) = answer else {
        panic!("{answer:?}");
    };
    assert!(list.is_empty());
}

#[test]
fn peer_that_finds_no_slot_is_told_to_come_back() {
    let (mut lookups, mut native) = (Box::new(EMPTY), native(Some(NATIVE)));
    let find = || find_pump(Reach::Network);
    for _ in 0..2 {
        let served = serve(&mut lookups, find(), &mut *native);
        assert!(matches!(served, Served::Lookup(_)));
    }
    match serve(&mut lookups, find(), &mut *native) {
        Served::Now(Response::Error(why)) => assert_eq!(why, FULL),
        other => panic!("{other:?}"),
    }
}

/// A verifier of envelopes that are the signer's id and the payload. Other envelopes do not verify.
struct Named;

impl Verifier for Named {
    fn open(&self, _: Purpose, envelope: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), Flaw> {
        match envelope.split_first() {
            Some((&signer, payload)) => Ok((peer(signer), payload)),
            None => Err(Flaw::NotAnEnvelope),
        }
    }
}

fn envelope(signer: u8, subject: u8) -> Vec<u8> {
    let record = Record {
        peer: peer(subject),
        sequence: 1,
        issued_at_ms: 1,
        ttl: MINUTE,
        addrs: [&[4][..]].into_iter().collect(),
        name: "pump",
        tags: Tags::new(),
        services: Default::default(),
        version: "",
        link_services: Default::default(),
        grant: &[],
    };
    let payload = encoded(|buffer| encode_record(&record, buffer));
    [&[signer], &payload[..]].concat()
}

#[test]
fn record_that_does_not_verify_is_none() {
    let mut desk = Desk::new(Role::Node).indexer(1);
    desk.begin(pump());
    let (_, query) = desk.question(1, false).expect("it was asked");
    let envelopes = [envelope(5, 5), envelope(6, 7), Vec::new()];
    let records: Envelopes<'_> = envelopes.iter().map(Vec::as_slice).collect();
    let response = Response::Records {
        records,
        more: false,
        tally: None,
        ages: Default::default(),
        claimants: None,
        claims: Default::default(),
    };
    desk.lookups
        .responded(at(10), query, Some(&response), &Named);
    desk.poll(10);
    assert_eq!(desk.found(), [5]);
    let told = desk.outcome().response();
    let Response::Records { records, .. } = told else {
        panic!("{told:?}");
    };
    assert_eq!(records[..], [&envelopes[0][..]]);
}
