use std::{string::ToString, vec::Vec};

use super::*;
use crate::protocol::codec::{
    fixtures::encoded,
    grant::{GrantName, Roles},
    revocation::{decode_revocation, encode_revocation},
};

const END: u64 = 1_800_000_000_000;

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn grant<'a>(roles: &[Role], names: &[&'a str]) -> Grant<'a> {
    Grant {
        peer: peer(1),
        roles: Roles::of(roles).unwrap(),
        names: names
            .iter()
            .filter_map(|name| GrantName::new(name))
            .collect(),
        issued_at_ms: 5,
        not_after_ms: Some(END),
    }
}

fn bearer(role: Role, name: Option<&str>) -> Bearer<'_> {
    let peer = peer(1);
    Bearer { peer, role, name }
}

#[test]
fn a_grant_counts_for_its_own_subject_alone() {
    let grant = grant(&Role::ALL, &[]);
    let mut node = bearer(Role::Node, None);
    assert_eq!(grant.judge(&node, None), Ok(()));
    node.peer = peer(2);
    assert_eq!(grant.judge(&node, None), Err(Denial::OtherPeer));
}

#[test]
fn a_grant_allows_its_roles_and_no_other() {
    for role in Role::ALL {
        let grant = grant(&[role], &[]);
        for stated in Role::ALL {
            let judged = grant.judge(&bearer(stated, None), None);
            let expected = match stated == role {
                true => Ok(()),
                false => Err(Denial::Role(stated)),
            };
            assert_eq!(judged, expected, "{role} {stated}");
        }
    }
}

#[test]
fn a_node_has_one_of_the_names_if_the_grant_has_names() {
    let named = grant(&Role::ALL, &["pump", "*.roof"]);
    let judged = |name| named.judge(&bearer(Role::Node, Some(name)), None);
    assert_eq!((judged("pump"), judged("cam.roof")), (Ok(()), Ok(())));
    for name in ["pump2", "roof", "cam", ""] {
        assert_eq!(judged(name), Err(Denial::Name), "{name}");
    }
    let any = grant(&Role::ALL, &[]);
    assert_eq!(any.judge(&bearer(Role::Node, Some("cam")), None), Ok(()));
}

#[test]
fn a_name_that_was_not_told_and_that_of_another_role_are_not_judged() {
    let named = grant(&Role::ALL, &["pump"]);
    assert_eq!(named.judge(&bearer(Role::Node, None), None), Ok(()));
    for role in [Role::Indexer, Role::Native] {
        assert_eq!(named.judge(&bearer(role, Some("cam")), None), Ok(()));
    }
}

#[test]
fn a_grant_counts_in_the_last_ms_of_its_time_and_not_after_it() {
    let (grant, node) = (grant(&Role::ALL, &[]), bearer(Role::Node, None));
    for (own, expected) in [
        (0, Ok(())),
        (END - 1, Ok(())),
        (END, Ok(())),
        (END + 1, Err(Denial::Ended { ms: 1 })),
        (u64::MAX, Err(Denial::Ended { ms: u64::MAX - END })),
    ] {
        assert_eq!(grant.judge(&node, Some(own)), expected, "{own}");
    }
    let endless = Grant {
        not_after_ms: None,
        ..grant
    };
    assert_eq!(endless.judge(&node, Some(u64::MAX)), Ok(()));
}

#[test]
fn the_end_is_not_judged_before_own_time_is_trusted_and_is_judged_then() {
    let (grant, node) = (grant(&Role::ALL, &[]), bearer(Role::Node, None));
    assert_eq!(grant.judge(&node, None), Ok(()));
    let judged = grant.judge(&node, Some(END + 1_001));
    assert_eq!(judged, Err(Denial::Ended { ms: 1_001 }));
    assert_eq!(judged.unwrap_err().to_string(), "the grant ended 2 s ago");
}

fn take(revoked: &mut Revoked, sequence: u64, peers: &[PeerId]) -> Taken {
    let payload: Vec<u8> = encoded(|buffer| encode_revocation(sequence, 0, peers, buffer));
    revoked.take(&decode_revocation(&payload).unwrap())
}

#[test]
fn the_list_with_the_highest_sequence_counts_whole() {
    let mut revoked = Revoked::default();
    assert_eq!((revoked.sequence(), revoked.has(&peer(1))), (0, false));
    assert_eq!(take(&mut revoked, 0, &[peer(1)]), Taken::Old);
    assert_eq!(take(&mut revoked, 5, &[peer(1)]), Taken::Newer);
    assert!(revoked.has(&peer(1)) && !revoked.has(&peer(2)));
    for sequence in [4, 5] {
        assert_eq!(take(&mut revoked, sequence, &[peer(2)]), Taken::Old);
        assert_eq!((revoked.sequence(), revoked.peers()), (5, &[peer(1)][..]));
    }
    assert_eq!(take(&mut revoked, 6, &[peer(2)]), Taken::Newer);
    assert_eq!((revoked.sequence(), revoked.peers()), (6, &[peer(2)][..]));
}

#[test]
fn the_longest_list_is_taken_whole() {
    let peers: Vec<PeerId> = (0..MAX_REVOKED as u8).map(peer).collect();
    let mut revoked = Revoked::default();
    assert_eq!(take(&mut revoked, u64::MAX, &peers), Taken::Newer);
    assert_eq!(revoked.peers(), peers);
}
