use std::{boxed::Box, string::ToString, vec, vec::Vec};

use super::*;
use crate::protocol::{
    codec::{
        envelope::Flaw,
        fixtures::encoded,
        grant::{GrantName, Roles, encode_grant},
        record::{MAX_TTL, Tags},
        revocation::encode_revocation,
    },
    grants::Denial,
};

const NETWORK: PeerId = PeerId::from_bytes([200; 32]);
const END: u64 = 1_800_000_000_000;

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

/// Envelopes whose first byte is the signer and whose second one is the purpose.
pub(crate) struct Sealed;

fn mark(purpose: Purpose) -> u8 {
    purpose.payload_type().len() as u8
}

pub(crate) fn seal(signer: u8, purpose: Purpose, payload: &[u8]) -> Vec<u8> {
    [&[signer, mark(purpose)], payload].concat()
}

impl Verifier for Sealed {
    fn open(&self, purpose: Purpose, envelope: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), Flaw> {
        match envelope {
            [signer, of, payload @ ..] if *of == mark(purpose) => Ok((peer(*signer), payload)),
            _ => Err(Flaw::WrongType),
        }
    }
}

/// A grant that the key of the network 200 signs.
pub(crate) fn grant(n: u8, roles: &[Role], names: &[&str], end: Option<u64>) -> Vec<u8> {
    let grant = Grant {
        peer: peer(n),
        roles: Roles::of(roles).unwrap(),
        names: names.iter().filter_map(|it| GrantName::new(it)).collect(),
        issued_at_ms: 5,
        not_after_ms: end,
    };
    let payload = encoded(|buffer| encode_grant(&grant, buffer));
    seal(200, Purpose::Grant, &payload)
}

pub(crate) fn list(signer: u8, sequence: u64, peers: &[PeerId]) -> Vec<u8> {
    let mut buffer = [0; MAX_REVOCATION_LEN];
    let payload = encode_revocation(sequence, 5, peers, &mut buffer).unwrap();
    seal(signer, Purpose::Revocations, payload)
}

fn closed() -> Box<Closed> {
    let mut closed = Box::new(const { Closed::new() });
    closed.start(NETWORK, b"own");
    closed.enforce();
    closed
}

fn show(closed: &mut Closed, n: u8, grant: &[u8], revocations: u64) {
    let shown = Membership {
        grant: Some(grant).filter(|grant| !grant.is_empty()),
        revocations: Some(revocations),
    };
    closed.shown(at(0), &peer(n), shown, &Sealed, &|_| false);
}

fn judged(closed: &Closed, n: u8, role: Role, name: Option<&str>) -> Result<(), Denial> {
    let peer = peer(n);
    closed.judge(&Bearer { peer, role, name })
}

fn node_record<'a>(n: u8, name: &'a str, grant: &'a [u8]) -> Record<'a> {
    Record {
        peer: peer(n),
        sequence: 1,
        issued_at_ms: 1,
        ttl: MAX_TTL,
        addrs: Default::default(),
        name,
        tags: Tags::new(),
        services: Default::default(),
        version: "",
        link_services: Default::default(),
        grant,
    }
}

fn admits(closed: &Closed, record: &Record<'_>) -> Result<(), Denial> {
    closed.admit(Kind::Node, record, &Sealed)
}

#[test]
fn who_shows_no_grant_of_the_network_is_no_member() {
    let mut closed = closed();
    let node = Role::Node;
    assert_eq!(judged(&closed, 1, node, None), Err(Denial::Missing));
    let own = grant(1, &[node], &[], None);
    for (shown, denial) in [
        (vec![], Denial::Missing),
        (vec![9, 9, 9], Denial::Unreadable),
        (vec![200; MAX_GRANT_LEN + 1], Denial::Unreadable),
        ([&[201], &own[1..]].concat(), Denial::OtherNetwork),
        (grant(2, &[node], &[], None), Denial::OtherPeer),
    ] {
        show(&mut closed, 1, &shown, 0);
        assert_eq!(judged(&closed, 1, node, None), Err(denial), "{shown:?}");
        assert_eq!(closed.next_step(), None);
    }
    show(&mut closed, 1, &own, 0);
    assert_eq!(judged(&closed, 1, node, None), Ok(()));
    assert_eq!(closed.next_step(), None, "nodes have no part in the DHT");
    for role in [Role::Indexer, Role::Native] {
        let own = grant(role as u8 + 2, &[role], &[], None);
        show(&mut closed, role as u8 + 2, &own, 0);
        let peer = peer(role as u8 + 2);
        assert_eq!(closed.next_step(), Some(Action::Admit { peer }));
        show(&mut closed, role as u8 + 2, &own, 0);
        assert_eq!(closed.next_step(), None, "it was known");
    }
    assert_eq!(
        judged(&closed, 1, Role::Native, None),
        Err(Denial::Role(Role::Native))
    );
}

#[test]
fn a_grant_ends_one_ms_after_its_last_and_is_not_judged_before_time_is_trusted() {
    let mut closed = closed();
    show(&mut closed, 1, &grant(1, &[Role::Node], &[], Some(END)), 0);
    for (own, expected) in [
        (None, Ok(())),
        (Some(END - 1), Ok(())),
        (Some(END), Ok(())),
        (Some(END + 1), Err(Denial::Ended { ms: 1 })),
    ] {
        closed.set_time(at(7), own);
        assert_eq!(judged(&closed, 1, Role::Node, None), expected, "{own:?}");
    }
}

#[test]
fn a_member_whose_grant_ends_is_expelled_at_its_end_or_when_time_becomes_trusted() {
    let mut closed = closed();
    show(&mut closed, 1, &grant(1, &[Role::Node], &[], Some(END)), 0);
    show(&mut closed, 2, &grant(2, &[Role::Node], &[], None), 0);
    closed.set_time(at(1_000), None);
    assert_eq!((closed.timeout(), closed.next_expelled()), (None, None));
    closed.set_time(at(1_000), Some(END - 50));
    assert_eq!(closed.timeout(), Some(at(1_051)));
    closed.set_time(at(1_050), Some(END));
    assert_eq!(closed.next_expelled(), None);
    closed.set_time(at(1_051), Some(END + 1));
    let ended = (peer(1), Denial::Ended { ms: 1 });
    assert_eq!(closed.next_expelled(), Some(ended));
    assert_eq!((closed.timeout(), closed.next_expelled()), (None, None));
    assert_eq!(judged(&closed, 2, Role::Node, None), Ok(()));
}

#[test]
fn who_is_revoked_or_whose_grant_has_ended_is_not_admitted_again() {
    let mut closed = closed();
    let steps = |closed: &mut Closed| core::iter::from_fn(|| closed.next_step()).count();
    closed.take(&list(200, 1, &[peer(1)]), &Sealed).unwrap();
    while closed.next_step().is_some() || closed.next_expelled().is_some() {}
    show(&mut closed, 1, &grant(1, &[Role::Indexer], &[], None), 1);
    assert_eq!(steps(&mut closed), 0);
    let indexer = grant(2, &[Role::Indexer], &[], Some(END));
    for (now, admitted) in [(END + 1, 0), (END, 1)] {
        closed.set_time(at(0), Some(now));
        show(&mut closed, 2, &indexer, 1);
        assert_eq!(steps(&mut closed), admitted, "at {now}");
        assert_eq!(closed.next_expelled(), None);
    }
}

#[test]
fn a_name_of_a_grant_is_nobody_elses_and_an_unclaimed_one_anybodys() {
    let mut closed = closed();
    for n in 1..=4 {
        let names: &[&str] = match n {
            1 => &["pump", "*.roof"],
            2 => &["cam.roof"],
            _ => &[],
        };
        show(&mut closed, n, &grant(n, &[Role::Node], names, None), 0);
    }
    let node = |n, name| judged(&closed, n, Role::Node, Some(name));
    assert_eq!(node(1, "pump"), Ok(()));
    assert_eq!(node(1, "fan"), Err(Denial::Name));
    for name in ["pump", "cam.roof", "x.roof"] {
        assert_eq!(node(3, name), Err(Denial::Claimed), "{name}");
    }
    assert_eq!(node(2, "cam.roof"), Ok(()), "two grants have it");
    for name in ["fan", "roof", "pump-2"] {
        assert_eq!((node(3, name), node(4, name)), (Ok(()), Ok(())), "{name}");
    }
}

#[test]
fn a_record_counts_by_the_grant_in_it() {
    let mut closed = closed();
    let node = &[Role::Node][..];
    let named = grant(1, node, &["pump"], None);
    assert_eq!(admits(&closed, &node_record(1, "pump", &named)), Ok(()));
    assert_eq!(
        admits(&closed, &node_record(1, "fan", &named)),
        Err(Denial::Name)
    );
    assert_eq!(
        admits(&closed, &node_record(2, "pump", &named)),
        Err(Denial::OtherPeer)
    );
    assert_eq!(
        admits(&closed, &node_record(1, "pump", &[])),
        Err(Denial::Missing)
    );
    let indexer = grant(1, &[Role::Indexer], &[], None);
    assert_eq!(
        admits(&closed, &node_record(1, "pump", &indexer)),
        Err(Denial::Role(Role::Node))
    );
    // Another's name, by a grant without names.
    let free = grant(2, node, &[], None);
    assert_eq!(admits(&closed, &node_record(2, "pump", &free)), Ok(()));
    show(&mut closed, 1, &named, 0);
    assert_eq!(
        admits(&closed, &node_record(2, "pump", &free)),
        Err(Denial::Claimed)
    );
    closed.take(&list(200, 1, &[peer(1)]), &Sealed).unwrap();
    assert_eq!(
        admits(&closed, &node_record(1, "pump", &named)),
        Err(Denial::Revoked)
    );
}

#[test]
fn grants_are_ignored_until_the_network_is_closed_but_noted() {
    let mut closed = Box::new(const { Closed::new() });
    closed.start(NETWORK, b"own");
    show(&mut closed, 1, &grant(1, &[Role::Node], &[], Some(1)), 3);
    closed.set_time(at(0), Some(2));
    assert_eq!(admits(&closed, &node_record(1, "pump", &[])), Ok(()));
    assert_eq!((closed.next_expelled(), closed.timeout()), (None, None));
    assert_eq!(closed.next_fetch(at(0)), None);
    assert_eq!(closed.membership().revocations, None);
    assert_eq!(closed.membership().grant, Some(&b"own"[..]));
    closed.enforce();
    assert_eq!(closed.membership().revocations, Some(0));
    assert!(closed.next_expelled().is_some());
}

#[test]
fn of_all_lists_the_one_with_the_highest_sequence_counts_and_drops_whom_it_names() {
    let mut closed = closed();
    show(&mut closed, 1, &grant(1, &[Role::Node], &[], None), 0);
    while closed.next_step().is_some() {}
    let take = |closed: &mut Closed, list: &[u8]| closed.take(list, &Sealed);
    assert_eq!(
        take(&mut closed, &list(201, 9, &[peer(1)])),
        Err(Denial::OtherNetwork)
    );
    assert_eq!(take(&mut closed, b"?"), Err(Denial::Unreadable));
    let second = list(200, 2, &[peer(1)]);
    assert_eq!(take(&mut closed, &second), Ok(Taken::Newer));
    assert_eq!(closed.next_step(), Some(Action::KeepRevocations));
    let revoked = (peer(1), Denial::Revoked);
    assert_eq!(closed.next_expelled(), Some(revoked));
    assert_eq!(closed.next_expelled(), None);
    for sequence in [1, 2] {
        let old = list(200, sequence, &[]);
        assert_eq!(take(&mut closed, &old), Ok(Taken::Old));
        assert_eq!(closed.next_step(), None);
        assert_eq!(closed.list(), &*second);
    }
    // Its grant does not help.
    show(&mut closed, 1, &grant(1, &[Role::Node], &[], None), 2);
    assert_eq!(judged(&closed, 1, Role::Node, None), Err(Denial::Revoked));
    assert_eq!(take(&mut closed, &list(200, 3, &[])), Ok(Taken::Newer));
    show(&mut closed, 1, &grant(1, &[Role::Node], &[], None), 3);
    assert_eq!(judged(&closed, 1, Role::Node, None), Ok(()));
}

#[test]
fn a_list_of_96_peers_expels_them_all() {
    let mut closed = closed();
    let peers: Vec<PeerId> = (0..MAX_REVOKED as u8).map(peer).collect();
    assert_eq!(
        closed.take(&list(200, 1, &peers), &Sealed),
        Ok(Taken::Newer)
    );
    let expelled: Vec<PeerId> = core::iter::from_fn(|| closed.next_expelled())
        .map(|(peer, _)| peer)
        .collect();
    assert_eq!(expelled, peers);
}

#[test]
fn a_peer_with_a_newer_list_is_asked_for_it_and_not_again_within_ten_seconds() {
    let mut closed = closed();
    closed.take(&list(200, 5, &[]), &Sealed).unwrap();
    // What a stranger and a node say of a list is not believed: neither can be asked for it.
    show(&mut closed, 3, &[], 9);
    show(&mut closed, 4, &grant(4, &[Role::Node], &[], None), 9);
    assert_eq!(closed.next_fetch(at(0)), None);
    for n in [1, 2] {
        show(&mut closed, n, &grant(n, &[Role::Indexer], &[], None), 0);
    }
    for (sequence, expected) in [(4, None), (5, None), (6, Some(peer(1)))] {
        show(&mut closed, 1, &[], sequence);
        assert_eq!(closed.next_fetch(at(0)), expected, "{sequence}");
    }
    show(&mut closed, 2, &[], 6);
    assert_eq!(closed.timeout(), Some(at(10_000)));
    assert_eq!(closed.next_fetch(at(9_999)), None);
    assert_eq!(closed.next_fetch(at(10_000)), Some(peer(2)));
    show(&mut closed, 2, &[], 6);
    closed.take(&list(200, 6, &[]), &Sealed).unwrap();
    assert_eq!(closed.next_fetch(at(30_000)), None, "it has it");
}

#[test]
fn a_full_table_lets_the_member_go_that_showed_its_grant_the_longest_ago_and_has_no_lease() {
    let mut members = Box::new(const { Members::new() });
    let id = |n: usize| {
        let mut id = [7; 32];
        id[..8].copy_from_slice(&(n as u64).to_le_bytes());
        PeerId::from_bytes(id)
    };
    let member = |n: usize| {
        let grant = Grant {
            peer: id(n),
            roles: Roles::of(&[Role::Node]).unwrap(),
            names: Default::default(),
            issued_at_ms: 0,
            not_after_ms: None,
        };
        Member::of(at(n as u64), &grant)
    };
    let is_needed = |peer: &PeerId| *peer == id(0);
    for n in 0..MAX_MEMBERS {
        assert!(members.put(member(n), &is_needed));
    }
    assert!(members.put(member(MAX_MEMBERS), &is_needed));
    assert!(members.find(&id(0)).is_some() && members.find(&id(1)).is_none());
    assert!(
        !members.put(member(MAX_MEMBERS + 1), &|_| true),
        "all have a lease"
    );
    let stats = members.stats();
    assert_eq!((stats.evicted, stats.refused), (1, 1));
}

#[test]
fn the_reason_of_a_refusal_fits_an_ack() {
    let longest = Denial::Ended { ms: u64::MAX };
    for denial in [longest, Denial::Claimed, Denial::Missing] {
        let reason = refusal(&denial).reason;
        assert!(reason.ends_with(&denial.to_string()), "{reason}");
    }
}
