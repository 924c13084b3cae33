use core::time::Duration;
use std::{boxed::Box, vec, vec::Vec};

use super::*;
use crate::protocol::{
    Ack, Addr, Addrs, Indexer, IndexerConfig, LeaseEnd, RecordInfo, RequestId, Terms,
    address::TransportAddr,
    clock::WallClock,
    closed::tests::{Sealed, grant, list},
    codec::directory::{Request, Response},
    life::EndCause,
    listing::{Listing, Listings},
    lookup::Lookups,
    reader::Reader,
    watch::Watches,
};

const NETWORK: PeerId = PeerId::from_bytes([200; 32]);
const NATIVE: PeerId = PeerId::from_bytes([9; 32]);
const TODAY: u64 = 1_000_000;
const LEASE: Duration = Duration::from_secs(90);

type Process = Endpoint<
    Box<Indexer<4>>,
    Box<Lookups<1, 1, 1>>,
    Box<Watches<1, 4, 2>>,
    Box<Listing<Vec<u64>>>,
    1,
    Box<Closed>,
>;

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

/// An indexer that knows a native and has asked it for a lease. `is_enforced`: its network is
/// closed.
fn process(is_enforced: bool) -> Process {
    let mut indexer = Box::new(Indexer::new());
    let config = IndexerConfig {
        terms: Terms {
            lease: LEASE,
            beat_interval: LEASE / 3,
        },
        gc_interval: LEASE,
    };
    indexer.start(at(0), peer(1), 7, config);
    let addrs: Addrs = Addr::from_slice(&[4, 192, 0, 2, 1, 6, 0, 80])
        .into_iter()
        .collect();
    let (native, addrs) = (&NATIVE, &addrs);
    indexer.handle(at(0), Input::NativeLearned { native, addrs });
    let mut lookups = Box::new(const { Lookups::new() });
    lookups.start(peer(1));
    let watches = Box::new(const { Watches::new() });
    let listings = Listings::new(peer(1));
    let clock = WallClock::new(TODAY);
    let mut closed = Box::new(const { Closed::new() });
    closed.start(NETWORK, b"own");
    if is_enforced {
        closed.enforce();
    }
    let process = Endpoint::new(at(0), indexer, lookups, watches, listings, clock);
    let mut process = process.member_of(Some(closed));
    done(&mut process, 0);
    process
}

/// What the host carries out at `now`, without housekeeping and what concerns slots.
fn done(process: &mut Process, now: u64) -> Vec<Action> {
    let mut done = vec![];
    while let Some(action) = process.poll(at(now), TODAY) {
        let is_meant = !matches!(
            action,
            Action::Slot { .. } | Action::Slots | Action::KeepHouse | Action::Sign
        );
        done.extend(is_meant.then_some(action));
    }
    done
}

fn show(process: &mut Process, now: u64, n: u8, grant: &[u8], revocations: u64) {
    let shown = Membership {
        grant: Some(grant).filter(|grant| !grant.is_empty()),
        revocations: Some(revocations),
    };
    process.shown((at(now), TODAY), &peer(n), shown, None, &Sealed);
}

/// The reason for which a beat is refused; empty if it is not.
fn beat(process: &mut Process, now: u64, n: u8, stream: u64, role: Role) -> std::string::String {
    let place = match stream % 2 {
        0 => Place::Next,
        _ => Place::First {
            source: TransportAddr::of(&[4, 192, 0, 2, 7, 6, 0, 80]),
            reader: Reader::default(),
        },
    };
    let beat = Beat::new(role, LEASE);
    let from = peer(n);
    let outcome = process.beat(at(now), (&from, StreamId(stream)), place, &beat);
    outcome.unwrap().ack.reason.as_str().into()
}

fn ack(process: &mut Process, now: u64, ack: &Ack<'_>) {
    let input = Input::Acked {
        server: &NATIVE,
        over: None,
        cause: AckCause::Beat,
        ack,
        clock: None,
    };
    process.handle(at(now), input);
}

fn holds(process: &Process, n: u8) -> bool {
    process.machine().role_of(&peer(n)) == Some(Role::Node)
}

#[test]
fn a_beat_gets_a_lease_only_with_a_grant_for_its_role() {
    let mut process = process(true);
    show(&mut process, 0, 5, &[], 0);
    let reason = beat(&mut process, 0, 5, 1, Role::Node);
    assert_eq!(reason, "closed network: no grant of this network was shown");
    show(
        &mut process,
        0,
        5,
        &grant(5, &[Role::Indexer], &[], None),
        0,
    );
    let reason = beat(&mut process, 0, 5, 3, Role::Node);
    assert_eq!(
        reason,
        "closed network: the grant does not allow the role node"
    );
    assert!(!holds(&process, 5));
    show(&mut process, 0, 5, &grant(5, &[Role::Node], &[], None), 0);
    assert_eq!(beat(&mut process, 0, 5, 5, Role::Node), "");
    assert!(holds(&process, 5));
}

#[test]
fn a_node_needs_one_of_the_names_of_its_grant_and_a_record_with_a_grant() {
    let mut process = process(true);
    let named = grant(5, &[Role::Node], &["pump"], None);
    show(&mut process, 0, 5, &named, 0);
    let info = |name: &str| RecordInfo {
        peer: peer(5),
        sequence: 1,
        issued_at_ms: TODAY,
        ttl: LEASE,
        addrs: Addrs::new(),
        name: name.try_into().unwrap(),
    };
    let denial = |process: &Process, name: &str| {
        let mut beat = Beat::new(Role::Node, LEASE);
        beat.record = Some(SignedRecord {
            info: info(name),
            envelope: &[],
        });
        process.denial_of(&peer(5), &beat)
    };
    assert_eq!(denial(&process, "pump"), None);
    assert_eq!(denial(&process, "fan"), Some(Denial::Name));
    let shown = Membership {
        grant: Some(&named),
        revocations: None,
    };
    // What is no record has no grant.
    let record = Some((Kind::Node, &b"?"[..]));
    process.shown((at(0), TODAY), &peer(5), shown, record, &Sealed);
    assert_eq!(denial(&process, "pump"), Some(Denial::Unreadable));
}

#[test]
fn a_lease_from_before_the_network_was_closed_is_kept_and_its_stream_opened_again() {
    let mut process = process(false);
    assert_eq!(beat(&mut process, 0, 5, 1, Role::Node), "");
    process.closed_mut().unwrap().enforce();
    let stream = StreamId(2);
    assert_eq!(beat(&mut process, 10, 5, 2, Role::Node), "");
    let close = Action::Close {
        peer: peer(5),
        stream,
        ended: None,
    };
    assert!(done(&mut process, 10).contains(&close));
    assert!(holds(&process, 5));
    show(&mut process, 20, 5, &grant(5, &[Role::Node], &[], None), 0);
    assert_eq!(beat(&mut process, 20, 5, 3, Role::Node), "");
    // Another one has no grant to show.
    assert_eq!(beat(&mut process, 30, 6, 4, Role::Node), "");
    assert_ne!(beat(&mut process, 40, 6, 5, Role::Node), "");
    assert!(holds(&process, 5) && !holds(&process, 6));
}

#[test]
fn the_ack_of_a_server_without_a_grant_for_its_role_is_taken_for_a_refusal() {
    let is_denied = |done: &[Action]| {
        let mut done = done.iter();
        done.any(|action| matches!(action, Action::Denied { .. }))
    };
    let mut process = process(true);
    show(
        &mut process,
        0,
        9,
        &grant(9, &[Role::Indexer], &[], None),
        0,
    );
    ack(&mut process, 0, &Ack::accepted(LEASE));
    let said = done(&mut process, 0);
    assert!(is_denied(&said), "{said:?}");
    assert!(said.contains(&Action::Drop { server: NATIVE }), "{said:?}");
    let mut process = self::process(true);
    show(&mut process, 0, 9, &grant(9, &[Role::Native], &[], None), 0);
    ack(&mut process, 0, &Ack::accepted(LEASE));
    assert!(!is_denied(&done(&mut process, 0)));
    assert_eq!(process.denial_of_server(&NATIVE), None);
}

#[test]
fn a_server_that_has_shown_no_grant_is_asked_once_more_and_then_refused() {
    let mut process = process(true);
    ack(&mut process, 0, &Ack::accepted(LEASE));
    let said = done(&mut process, 0);
    assert!(matches!(said[..], [Action::Drop { .. }, ..]), "{said:?}");
    // It has been given time to try again.
    let again = process.next_timeout().unwrap().as_millis();
    let said = done(&mut process, again);
    assert!(
        said.iter().any(|it| matches!(it, Action::Beat { .. })),
        "{said:?}"
    );
    ack(&mut process, again, &Ack::accepted(LEASE));
    let said = done(&mut process, again);
    assert!(
        said.iter().any(|it| matches!(it, Action::Denied { .. })),
        "{said:?}"
    );
}

#[test]
fn a_revoked_peer_loses_its_lease_at_once_and_its_connection() {
    let mut process = process(true);
    show(&mut process, 0, 5, &grant(5, &[Role::Node], &[], None), 0);
    assert_eq!(beat(&mut process, 0, 5, 1, Role::Node), "");
    done(&mut process, 0);
    let envelope = list(200, 7, &[peer(5)]);
    assert_eq!(
        process.take_revocations(&envelope, &Sealed),
        Ok(Taken::Newer)
    );
    let said = done(&mut process, 1);
    let expel = Action::Expel {
        peer: peer(5),
        denial: Denial::Revoked,
        had_lease: true,
    };
    assert!(
        said.contains(&expel) && said.contains(&Action::KeepRevocations),
        "{said:?}"
    );
    let ended = said.iter().find_map(|action| match action {
        Action::Close { ended, .. } => *ended,
        _ => None,
    });
    assert!(matches!(
        ended,
        Some(LeaseEnd {
            how: EndCause::Expelled,
            ..
        })
    ));
    assert!(!holds(&process, 5));
    show(&mut process, 2, 5, &grant(5, &[Role::Node], &[], None), 7);
    let reason = beat(&mut process, 2, 5, 3, Role::Node);
    assert_eq!(
        reason,
        "closed network: the key of the network has revoked it"
    );
}

#[test]
fn a_newer_list_is_fetched_from_who_has_it_and_told_to_who_asks() {
    let mut process = process(true);
    show(&mut process, 0, 9, &grant(9, &[Role::Native], &[], None), 7);
    let said = done(&mut process, 0);
    let asked = said.iter().find_map(|action| match action {
        Action::Ask { query, ask, .. } => Some((*query, ask.clone())),
        _ => None,
    });
    let query = Query::Network(NATIVE);
    assert_eq!(asked, Some((query, Ask::Revocations)));
    let envelope = list(200, 7, &[peer(5)]);
    let response = Response::Revocations(&envelope);
    process.responded(at(1), query, Some(&response), &Sealed, &mut |_, _| {});
    assert_eq!(process.closed().unwrap().revoked().sequence(), 7);
    let asker = (&peer(6), RequestId(1), Reader::default());
    let mut entries = crate::protocol::Entries::new();
    let told = process.serve(at(2), asker, Request::Revocations, &mut entries);
    assert_eq!(told, Some(Response::Revocations(&envelope)));
}
