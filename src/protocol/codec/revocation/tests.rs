use proptest::prelude::*;

use super::*;
use crate::protocol::codec::fixtures::*;

fn payload(sequence: u64, issued_at_ms: u64, peers: &[PeerId]) -> Vec<u8> {
    encoded(|buffer| encode_revocation(sequence, issued_at_ms, peers, buffer))
}

#[test]
fn a_list_has_the_bytes_of_the_protocol() {
    assert_eq!(payload(1, 2, &[]), [0xa3, 0, 1, 1, 2, 2, 0x80]);
    let one = payload(1, 2, &[PeerId::from_bytes([7; 32])]);
    let head = [
        0xa3, 0, 1, 1, 2, 2, 0x81, 0x58, 38, 0, 0x24, 8, 1, 0x12, 0x20,
    ];
    assert_eq!(one, [&head[..], &[7; 32]].concat());
}

#[test]
fn ninety_six_peers_are_read_and_one_more_is_not() {
    let list = |count: usize| {
        let mut bytes = vec![0xa3, 0, 1, 1, 2, 2];
        bytes.extend(written(|w| w.array(count as u64)?.ok()));
        (0..count).for_each(|_| bytes.extend(item(PeerId::from_bytes([1; 32]))));
        decode_revocation(&bytes).map(|list| list.peers.len())
    };
    assert_eq!(list(96), Ok(96));
    let too_many = DecodeError::TooMany {
        field: "revoked peers",
        count: 97,
        limit: 96,
    };
    assert_eq!(list(97), Err(too_many));
}

#[test]
fn the_longest_list_fits_its_bound() {
    let peers = [PeerId::from_bytes([1; 32]); MAX_REVOKED];
    assert_eq!(
        payload(u64::MAX, u64::MAX, &peers).len(),
        MAX_REVOCATION_PAYLOAD
    );
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let missing = |key| {
        Err(DecodeError::Missing {
            field: "revocation list",
            key,
        })
    };
    assert_eq!(decode_revocation(&[0xa2, 1, 2, 2, 0x80]), missing(0));
    assert_eq!(decode_revocation(&[0xa2, 0, 1, 2, 0x80]), missing(1));
    assert_eq!(decode_revocation(&[0xa2, 0, 1, 1, 2]), missing(2));
    let other = Err(DecodeError::NotEd25519 {
        field: "revoked peer",
    });
    let bytes = [0xa3, 0, 1, 1, 2, 2, 0x81, 0x41, 7];
    assert_eq!(decode_revocation(&bytes), other);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn lists_are_read_back_and_their_damage_answered(
        sequence: u64, issued: u64, peers in prop::collection::vec(any_peer(), 0..=6))
    {
        let bytes = payload(sequence, issued, &peers);
        let list = decode_revocation(&bytes).unwrap();
        prop_assert_eq!((list.sequence, list.issued_at_ms), (sequence, issued));
        prop_assert_eq!(list.peers.is_empty(), peers.is_empty());
        prop_assert!(list.peers.iter().eq(peers));
        for end in 0..bytes.len() {
            prop_assert!(decode_revocation(&bytes[..end]).is_err());
        }
        mutations(&bytes, |bytes| drop(decode_revocation(bytes)));
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_revocation(&bytes);
    }
}
