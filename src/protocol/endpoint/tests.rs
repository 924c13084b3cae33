use core::time::Duration;
use std::{boxed::Box, vec, vec::Vec};

use super::*;
use crate::protocol::{
    Ack, Addr, Addrs, Cursor, Entries, EntriesPage, Filter, Indexer, IndexerConfig, IndexersPage,
    LeaseAnswer, Reach, RequestId, Terms,
    codec::{
        directory::{Request, Response},
        heartbeat::AckCause,
        record::{Flaw, Purpose, Verifier},
    },
    input::tests::Events,
    listing::{LIMIT, ListAsk, ListingAction, ListingId, Row, States},
    lookup::OPERATOR_LIMIT,
};

const ADDR: &[u8] = &[4, 192, 0, 2, 1, 6, 0x12, 0xd4];
/// What the system clock shows.
const TODAY: u64 = 1_000_000;
const NATIVE: PeerId = PeerId::from_bytes([9; 32]);

type Process = Endpoint<
    Box<Indexer<4>>,
    Box<Lookups<1, 1, 1>>,
    Box<Watches<1, 4, 2>>,
    Box<Listing<Vec<u64>>>,
    1,
>;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// An indexer that has started at 0, announces an address, and knows a native.
fn process() -> Process {
    let mut indexer = Box::new(Indexer::new());
    let secs = Duration::from_secs;
    let config = IndexerConfig {
        terms: Terms {
            lease: secs(90),
            beat_interval: secs(30),
        },
        gc_interval: secs(60),
    };
    indexer.start(at(0), PeerId::from_bytes([1; 32]), 7, config);
    let addrs: Addrs = Addr::from_slice(ADDR).into_iter().collect();
    indexer.learn_native(at(0), NATIVE, addrs);
    let mut lookups = Box::new(const { Lookups::new() });
    lookups.start(PeerId::from_bytes([1; 32]));
    let watches = Box::new(const { Watches::new() });
    let listings = Listings::new(PeerId::from_bytes([1; 32]));
    let clock = WallClock::new(TODAY);
    let mut process = Endpoint::new(at(0), indexer, lookups, watches, listings, clock);
    process.announce([ADDR].into_iter());
    process
}

/// What a host carries out at `now`, without the addresses and the content of beats.
fn poll(process: &mut Process, now: u64, system_ms: u64) -> Vec<&'static str> {
    let mut done = vec![];
    while let Some(action) = process.poll(at(now), system_ms) {
        done.push(match action {
            Action::Sign => "sign",
            Action::Beat { .. } => "beat",
            Action::GiveUp { .. } => "give up",
            Action::KeepHouse => "keep house",
            Action::End { answered: true } => "end",
            Action::End { answered: false } => "end without an answer",
            Action::Slot {
                is_reserved: true, ..
            } => "reserve",
            Action::Slot { .. } => "release",
            Action::Slots => "all slots",
            other => panic!("{other:?}"),
        });
    }
    done
}

/// The native has granted the lease.
fn leased() -> Process {
    let mut process = process();
    while let Some(action) = process.poll(at(0), TODAY) {
        if action == Action::Sign {
            process.record_signed(at(0));
        }
    }
    let input = Input::Acked {
        server: &NATIVE,
        over: None,
        cause: AckCause::Beat,
        ack: &Ack::accepted(Duration::from_secs(90)),
        clock: None,
    };
    process.handle(at(0), input);
    assert!(poll(&mut process, 0, TODAY).is_empty());
    process
}

#[test]
fn record_is_signed_before_the_beat_that_carries_it_and_once() {
    let mut process = process();
    assert_eq!(process.poll(at(0), TODAY), Some(Action::Sign));
    assert_eq!(process.record_signed(at(0)), Urgency::AtOnce);
    assert_eq!(poll(&mut process, 0, TODAY), ["beat", "reserve"]);
}

#[test]
fn nothing_is_signed_before_the_clock_is_right_or_without_an_address() {
    let mut process = process();
    assert_eq!(poll(&mut process, 0, TODAY - 1), ["beat", "reserve"]);
    process.announce([].into_iter());
    assert!(poll(&mut process, 0, TODAY).is_empty());
    process.announce([ADDR].into_iter());
    assert_eq!(poll(&mut process, 0, TODAY), ["sign"]);
}

#[test]
fn new_address_is_signed_and_sent_without_a_further_event() {
    let mut process = leased();
    process.announce([ADDR, &ADDR[..7]].into_iter());
    assert_eq!(process.poll(at(10), TODAY), Some(Action::Sign));
    process.record_signed(at(10));
    assert_eq!(poll(&mut process, 10, TODAY), ["beat", "reserve"]);
}

#[test]
fn signature_that_fails_is_tried_again_at_the_next_housekeeping() {
    let mut process = leased();
    let house = HOUSEKEEPING.as_millis() as u64;
    process.offer(0);
    assert_eq!(poll(&mut process, 10, TODAY), ["sign"]);
    assert!(poll(&mut process, house - 1, TODAY).is_empty());
    let said = poll(&mut process, house, TODAY);
    assert_eq!(said, ["keep house", "all slots", "sign"]);
    assert!(poll(&mut process, house, TODAY).is_empty());
}

#[test]
fn host_is_woken_for_its_housekeeping() {
    let mut process = leased();
    let woken = loop {
        let now = process.next_timeout().unwrap();
        if poll(&mut process, now.as_millis(), TODAY).contains(&"keep house") {
            break now;
        }
    };
    assert_eq!(woken, at(0) + HOUSEKEEPING);
}

#[test]
fn process_that_ends_gives_its_leases_up_and_waits_for_the_answers() {
    let mut process = leased();
    process.handle(at(5_000), Input::ShutDown);
    assert!(process.is_ending());
    assert_eq!(poll(&mut process, 5_000, TODAY), ["give up", "release"]);
    process.offer(0);
    assert!(
        poll(&mut process, 5_000, TODAY).is_empty(),
        "it signs no more"
    );
    let server = &NATIVE;
    process.handle(at(5_010), Input::GaveUp { server });
    assert_eq!(process.next_timeout(), Some(Instant::default()));
    assert_eq!(poll(&mut process, 5_010, TODAY), ["end"]);
    assert!(poll(&mut process, 5_010, TODAY).is_empty(), "it ends once");
    assert_eq!(process.next_timeout(), None);
}

#[test]
fn process_that_ends_keeps_house_no_more() {
    let mut process = leased();
    let house = HOUSEKEEPING.as_millis() as u64;
    process.handle(at(house - 1), Input::ShutDown);
    let said = poll(&mut process, house - 1, TODAY);
    assert_eq!(said, ["give up", "release"]);
    assert!(poll(&mut process, house, TODAY).is_empty());
    let end = house - 1 + 1_200;
    assert_eq!(process.next_timeout(), Some(at(end)));
    assert_eq!(poll(&mut process, end, TODAY), ["end without an answer"]);
}

#[test]
fn process_ends_1200_ms_after_its_last_beats_if_they_are_not_answered() {
    let mut process = leased();
    process.handle(at(5_000), Input::ShutDown);
    poll(&mut process, 5_000, TODAY);
    let end = at(6_200);
    assert_eq!(process.next_timeout(), Some(end));
    let end = end.as_millis();
    assert!(poll(&mut process, end - 1, TODAY).is_empty());
    let said = poll(&mut process, end, TODAY);
    assert_eq!(said, ["end without an answer"]);
}

#[test]
fn answer_says_what_becomes_of_the_senders_lease() {
    let lease = Duration::from_millis;
    for (ack, answer) in [
        (Ack::accepted(lease(1)), LeaseAnswer::Held),
        (Ack::accepted(lease(0)), LeaseAnswer::Ended),
        (Ack::released(lease(0), &[]), LeaseAnswer::Held),
        (Ack::full("no room"), LeaseAnswer::Denied),
        (Ack::refused("no"), LeaseAnswer::Denied),
    ] {
        assert_eq!(ack.lease_answer(), answer, "{ack:?}");
        let ends = matches!(answer, LeaseAnswer::Ended | LeaseAnswer::Denied);
        assert_eq!(ack.ends_stream(), ends, "{ack:?}");
    }
}

#[test]
fn a_peer_has_the_role_of_the_lease_with_it_and_without_one_is_a_native_for_an_indexer() {
    let mut process = process();
    let node = PeerId::from_bytes([5; 32]);
    assert_eq!(process.role_of(&NATIVE), Role::Native);
    assert_eq!(process.role_of(&node), Role::Native);
    let beat = Beat::new(Role::Node, Duration::from_secs(90));
    let place = Place::Next;
    assert!(
        process
            .beat(at(0), (&node, StreamId(1)), place, &beat)
            .is_some()
    );
    assert_eq!(process.role_of(&node), Role::Node);
}

/// Opens no record.
struct NoKeys;

impl Verifier for NoKeys {
    fn open(&self, _: Purpose, _: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), Flaw> {
        Err::<(PeerId, [u8; 0]), _>(Flaw::NotAnEnvelope)
    }
}

/// Gives the process the response to a request. Returns the nodes of which a listing makes rows.
fn responded(
    process: &mut Process,
    now: u64,
    query: Query,
    response: Option<&Response<'_>>,
) -> Vec<PeerId> {
    let mut rows = vec![];
    let say = &mut |_, row: &Row<'_>| rows.push(row.peer);
    process.responded(at(now), query, response, &NoKeys, say);
    rows
}

/// Carries out all that is due at `now`, where no server answers and no search finds anything.
/// Returns the last action, which ends a lookup.
fn in_vain(process: &mut Process, now: u64) -> Action {
    for _ in 0..100 {
        match process.poll(at(now), TODAY) {
            Some(Action::Ask { query, .. }) => _ = responded(process, now, query, None),
            Some(Action::Search { query, .. } | Action::Providers { query, .. }) => {
                process.searched((at(now), TODAY), query, 0);
            }
            Some(action) => return action,
            None => break,
        }
    }
    panic!("the lookup has not ended");
}

#[test]
fn lookup_asks_by_poll_and_is_done_when_its_servers_have_answered() {
    let mut process = leased();
    let lookup = process.find(at(10), Question::Indexers).unwrap();
    let Some(Action::Ask { query, server, .. }) = process.poll(at(10), TODAY) else {
        panic!("nothing is asked");
    };
    assert_eq!(server, NATIVE);
    assert_eq!(process.poll(at(10), TODAY), None);
    assert!(process.outcome(lookup).is_none());
    let page = Response::Page(IndexersPage::default());
    responded(&mut process, 20, query, Some(&page));
    assert_eq!(process.poll(at(20), TODAY), Some(Action::Done { lookup }));
    assert!(process.outcome(lookup).unwrap().is_complete);
    assert_eq!(process.poll(at(20), TODAY), None);
    assert!(process.outcome(lookup).is_none(), "its slot is free");
}

#[test]
fn lookup_that_no_server_answers_ends_in_its_time_without_an_event() {
    let mut process = leased();
    let lookup = process.find(at(10), Question::Indexers).unwrap();
    let mut now = at(10);
    loop {
        match process.poll(now, TODAY) {
            Some(Action::Done { lookup: done }) => break assert_eq!(done, lookup),
            Some(_) => {}
            None => now = process.next_timeout().unwrap(),
        }
    }
    assert_eq!(now, at(10) + OPERATOR_LIMIT);
    assert!(!process.outcome(lookup).unwrap().is_complete);
}

#[test]
fn request_of_a_peer_that_needs_a_lookup_is_answered_when_it_is_over() {
    let mut process = leased();
    let (peer, reach) = (PeerId::from_bytes([5; 32]), Reach::Network);
    let request = RequestId(77);
    let asker = (&PeerId::from_bytes([6; 32]), request, Reader::default());
    let find = Request::FindPeer { peer, reach };
    let later = process
        .serve(at(10), asker, find, &mut Entries::new())
        .is_none();
    assert!(later);
    let Action::Respond {
        request: of,
        lookup,
    } = in_vain(&mut process, 10)
    else {
        panic!("another action");
    };
    assert_eq!(of, request);
    assert!(process.outcome(lookup).is_some());
    // What this process lists itself, or does not, it says at once.
    let reach = Reach::Directory;
    let find = Request::FindPeer { peer, reach };
    let mut entries = Entries::new();
    let answer = process.serve(at(20), asker, find, &mut entries);
    assert!(matches!(answer, Some(Response::Records { .. })));
}

/// A listing that has begun at 10 ms, of a process that holds a lease, with room for these rows.
fn lists(process: &mut Process, room: usize) -> Option<ListingId> {
    let which = (Filter::default(), States::ALL);
    let place = || Box::new(Listing::new(vec![0; 64]));
    let listing = process.list(at(10), 7, which, place)?;
    process.listings_mut().has_room(listing, room);
    Some(listing)
}

#[test]
fn listing_asks_by_poll_and_is_over_when_its_servers_have_answered() {
    let mut process = leased();
    let listing = lists(&mut process, 100).unwrap();
    assert_eq!(lists(&mut process, 100), None, "there is one place");
    // Its own rows, then what the native is asked for: indexers, and nodes.
    for _ in 0..3 {
        let page = EntriesPage::default();
        let (query, response) = match process.poll(at(10), TODAY) {
            Some(Action::Listing(ListingAction::Rows { listing })) => {
                process.rows(at(10), listing, &mut |row| panic!("{row:?}"));
                continue;
            }
            Some(Action::Listing(ListingAction::Ask { query, ask, .. })) => match ask {
                ListAsk::Indexers(_) => (query, Response::Page(IndexersPage::default())),
                ListAsk::Nodes(_) => (query, Response::Entries(page)),
            },
            other => panic!("{other:?}"),
        };
        assert!(
            process
                .listings()
                .request(query, ListAsk::Nodes(Cursor::Start))
                .is_some()
        );
        assert_eq!(responded(&mut process, 20, query, Some(&response)), []);
    }
    let listed = process.poll(at(20), TODAY);
    assert_eq!(
        listed,
        Some(Action::Listing(ListingAction::Done { listing }))
    );
    assert!(process.listings().of(listing).unwrap().is_complete());
    assert_eq!(process.poll(at(20), TODAY), None);
    assert!(
        process.listings().of(listing).is_none(),
        "its place is free"
    );
    assert_eq!(process.listings().stats().refused, 1);
}

#[test]
fn listing_that_no_server_answers_ends_in_its_time_without_an_event() {
    let mut process = leased();
    let listing = lists(&mut process, 100).unwrap();
    let mut now = at(10);
    let mut step = || {
        match process.poll(now, TODAY) {
            Some(Action::Listing(ListingAction::Done { .. })) => return Some(now),
            Some(Action::Listing(ListingAction::Rows { listing })) => {
                process.rows(now, listing, &mut |_| {})
            }
            Some(_) => {}
            None => now = process.next_timeout().unwrap(),
        }
        None
    };
    let end = (0..1_000).find_map(|_| step());
    assert!(end.unwrap() <= at(10) + LIMIT);
    assert!(!process.listings().of(listing).unwrap().is_complete());
}

#[test]
fn listing_of_a_reader_that_leaves_asks_no_more() {
    let mut process = leased();
    let listing = lists(&mut process, 100).unwrap();
    process.listings_mut().leave(listing);
    assert_eq!(process.poll(at(10), TODAY), None);
    assert!(
        lists(&mut process, 100) > Some(listing),
        "it has another number"
    );
}

/// A node asks for a lease of this length with a beat of its stream.
fn beats(process: &mut Process, node: u8, sequence: u64, lease: Duration) {
    let (node, stream) = (PeerId::from_bytes([node; 32]), StreamId(node.into()));
    let place = Place::Held {
        reader: Reader::default(),
    };
    let beat = Beat {
        sequence,
        ..Beat::new(Role::Node, lease)
    };
    assert!(
        process
            .beat(at(10), (&node, stream), place, &beat)
            .is_some()
    );
}

#[test]
fn slot_is_reserved_when_a_lease_begins_and_released_when_it_is_given_up() {
    let mut process = leased();
    let node = PeerId::from_bytes([5; 32]);
    // Not with the first beat of the stream, if that one was released.
    for (sequence, lease, said) in [(1, 90, Some(true)), (2, 90, None), (3, 0, Some(false))] {
        beats(&mut process, 5, sequence, Duration::from_secs(lease));
        let slot = said.map(|is_reserved| Action::Slot {
            peer: node,
            is_reserved,
        });
        let first = process.poll(at(10), TODAY);
        assert_eq!(
            first.filter(|action| matches!(action, Action::Slot { .. })),
            slot
        );
        while process.poll(at(10), TODAY).is_some() {}
    }
}

#[test]
fn slot_of_a_native_is_reserved_before_it_is_connected_and_released_when_it_is_forgotten() {
    let mut process = leased();
    let native = &PeerId::from_bytes([8; 32]);
    let addrs = &Addrs::new();
    process.handle(at(10), Input::NativeLearned { native, addrs });
    let slot = |is_reserved| {
        let peer = *native;
        Some(Action::Slot { peer, is_reserved })
    };
    assert_eq!(process.poll(at(10), TODAY), slot(true));
    while process.poll(at(10), TODAY).is_some() {}
    process.handle(at(20), Input::NativeForgotten { native });
    assert_eq!(process.poll(at(20), TODAY), slot(false));
}

#[test]
fn more_changes_than_have_room_make_it_look_at_all_slots() {
    for more in [0, 1] {
        let mut process = leased();
        for n in 0..slots::MAX_WAITING + more {
            let mut id = [7; 32];
            id[..8].copy_from_slice(&(n as u64).to_le_bytes());
            let native = &PeerId::from_bytes(id);
            process.handle(at(10), Input::NativeForgotten { native });
        }
        let said = poll(&mut process, 10, TODAY);
        let (all, named) = said.split_last().unwrap();
        assert_eq!(*all == "all slots", more > 0);
        let releases = named.iter().filter(|said| **said == "release").count();
        assert_eq!(
            releases + usize::from(*all == "release"),
            slots::MAX_WAITING
        );
    }
}
