use libp2p::core::SignedEnvelope;

use super::*;
use crate::protocol::{
    Role,
    codec::{
        fixtures::mutations,
        grant::{GrantName, Roles},
        revocation::MAX_REVOKED,
    },
};

fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn peer(seed: u8) -> PeerId {
    PeerId::try_from(key(seed).public().to_peer_id()).unwrap()
}

fn grant<'a>(names: &[&'a str]) -> Grant<'a> {
    Grant {
        peer: peer(2),
        roles: Roles::of(&[Role::Node, Role::Indexer]).unwrap(),
        names: names
            .iter()
            .filter_map(|name| GrantName::new(name))
            .collect(),
        issued_at_ms: u64::MAX,
        not_after_ms: Some(u64::MAX),
    }
}

fn network_of(envelope: &[u8]) -> Result<PeerId, OpenError> {
    open_grant(envelope, |network, _| network)
}

#[test]
fn a_grant_says_what_was_signed_and_by_which_network() {
    let signed = grant(&["pump", "*.roof"]);
    let envelope = sign_grant(&key(1), &signed).unwrap();
    let check = |network, read: &Grant<'_>| assert_eq!((network, read), (peer(1), &signed));
    open_grant(&envelope, check).unwrap();
    let other = sign_grant(&key(9), &signed).unwrap();
    assert_eq!(network_of(&other), Ok(peer(9)));
}

#[test]
fn every_byte_of_a_grant_is_under_the_signature_or_changes_its_form() {
    let envelope = sign_grant(&key(1), &grant(&["pump"])).unwrap();
    mutations(&envelope, |bytes| {
        if bytes != envelope {
            // A damaged key is another network, for which the signature does not verify.
            assert!(network_of(bytes).is_err(), "{bytes:02x?}");
        }
    });
    for end in 0..envelope.len() {
        assert!(network_of(&envelope[..end]).is_err());
    }
}

#[test]
fn a_grant_is_signed_up_to_384_bytes() {
    let length = |extra: usize| {
        let (long, rest) = ("a".repeat(63), "b".repeat(extra));
        let mut names = vec![long.as_str(); 3];
        names.push(&rest);
        sign_grant(&key(1), &grant(&names)).map(|envelope| envelope.len())
    };
    let fits = 384 - length(1).unwrap() + 1;
    assert_eq!(length(fits), Ok(384));
    let too_long = SealError::TooLong {
        length: 385,
        limit: 384,
    };
    assert_eq!(length(fits + 1), Err(too_long));
    let longest = [
        "a".repeat(63),
        "b".repeat(63),
        "c".repeat(63),
        "d".repeat(63),
    ];
    let all = sign_grant(&key(1), &grant(&longest.each_ref().map(String::as_str)));
    assert!(matches!(all, Err(SealError::TooLong { .. })), "{all:?}");
}

#[test]
fn a_grant_of_385_bytes_is_not_opened() {
    let too_long = OpenError::TooLong {
        length: 385,
        limit: 384,
    };
    assert_eq!(network_of(&[0; 385]), Err(too_long));
    let no_envelope = OpenError::Envelope(Flaw::NotAnEnvelope);
    assert_eq!(network_of(&[0; 384]), Err(no_envelope));
}

#[test]
fn the_longest_list_is_signed_and_opened() {
    let peers: Vec<PeerId> = (0..MAX_REVOKED).map(|n| peer(n as u8)).collect();
    let envelope = sign_revocation(&key(1), u64::MAX, u64::MAX, &peers).unwrap();
    assert!(envelope.len() <= MAX_REVOCATION_LEN, "{}", envelope.len());
    let opened = open_revocation(&envelope, |network, list| {
        assert!(list.peers.iter().eq(peers.iter().copied()));
        (network, list.sequence, list.issued_at_ms)
    });
    assert_eq!(opened, Ok((peer(1), u64::MAX, u64::MAX)));
}

#[test]
fn a_grant_is_no_list_and_a_list_no_grant() {
    let grant = sign_grant(&key(1), &grant(&[])).unwrap();
    let list = sign_revocation(&key(1), 1, 2, &[]).unwrap();
    let wrong = || OpenError::Envelope(Flaw::WrongType);
    assert_eq!(network_of(&list), Err(wrong()));
    assert_eq!(open_revocation(&grant, |_, _| ()), Err(wrong()));
}

#[test]
fn the_domain_is_part_of_the_signature() {
    let mut buffer = [0; 384];
    let payload = encode_grant(&grant(&[]), &mut buffer).unwrap();
    let of_domain = |domain: &str| {
        let of_type = Purpose::Grant.payload_type().to_vec();
        let sealed = SignedEnvelope::new(&key(1), domain.into(), of_type, payload.to_vec());
        sealed.unwrap().into_protobuf_encoding()
    };
    let other = of_domain(Purpose::Revocations.domain());
    let error = OpenError::Envelope(Flaw::BadSignature);
    assert_eq!(network_of(&other), Err(error));
    let same = of_domain(Purpose::Grant.domain());
    assert_eq!(network_of(&same), Ok(peer(1)));
}
