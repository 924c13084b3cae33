use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::protocol::codec::fixtures::*;

fn payload(grant: &Grant<'_>) -> Vec<u8> {
    encoded(|buffer| encode_grant(grant, buffer))
}

fn grant<'a>(names: &[&'a str]) -> Grant<'a> {
    Grant {
        peer: PeerId::from_bytes([7; 32]),
        roles: Roles::of(&[Role::Node]).unwrap(),
        names: names
            .iter()
            .filter_map(|name| GrantName::new(name))
            .collect(),
        issued_at_ms: 5,
        not_after_ms: None,
    }
}

/// A grant of the subject 7 for a node, with what comes after its roles.
fn with(keys: u8, rest: &[u8]) -> Vec<u8> {
    let head = [0xa0 + keys, 0, 0x58, 38, 0, 0x24, 8, 1, 0x12, 0x20];
    [&head[..], &[7; 32], &[1, 1], rest].concat()
}

#[test]
fn a_grant_has_the_bytes_of_the_protocol() {
    assert_eq!(payload(&grant(&[])), with(3, &[3, 5]));
    let named = Grant {
        not_after_ms: Some(9),
        ..grant(&["a", "*.b"])
    };
    let rest = [2, 0x82, 0x61, b'a', 0x63, b'*', b'.', b'b', 3, 5, 4, 9];
    assert_eq!(payload(&named), with(5, &rest));
}

#[test]
fn roles_are_a_sum_of_1_node_2_indexer_4_native() {
    let roles = |bits: &[u8]| {
        let mut bytes = with(3, &[3, 5]);
        let at = bytes.len() - 3;
        bytes.splice(at..at + 1, bits.iter().copied());
        decode_grant(&bytes).map(|grant| Role::ALL.map(|role| grant.roles.allow(role)))
    };
    assert_eq!(roles(&[1]), Ok([false, false, true]));
    assert_eq!(roles(&[2]), Ok([false, true, false]));
    assert_eq!(roles(&[4]), Ok([true, false, false]));
    assert_eq!(roles(&[7]), Ok([true; 3]));
    let (field, bound) = (
        "grant's roles",
        "1 to 7, a sum of 1 node, 2 indexer, 4 native",
    );
    let wrong = Err(DecodeError::OutOfBounds { field, bound });
    for bits in [&[0][..], &[8], &[0x19, 1, 1]] {
        assert_eq!(roles(bits), wrong, "{bits:?}");
    }
    assert_eq!(Roles::of(&[]), None);
}

#[test]
fn names_are_one_to_four_of_names_and_endings() {
    let named = |names: &[&str]| {
        let list = written(|w| {
            w.u8(2)?.array(names.len() as u64)?;
            names.iter().try_for_each(|name| w.str(name)?.ok())
        });
        let bytes = with(4, &[&list[..], &[3, 5]].concat());
        decode_grant(&bytes).map(|grant| grant.names.len())
    };
    assert_eq!(named(&["pump-3"; 4]), Ok(4));
    let too_many = DecodeError::TooMany {
        field: "grant's names",
        count: 5,
        limit: 4,
    };
    assert_eq!(named(&["a"; 5]), Err(too_many));
    let (field, bound) = ("grant's names", "1 to 4 names");
    assert_eq!(named(&[]), Err(DecodeError::OutOfBounds { field, bound }));
    let longest = format!("*.{}", "a".repeat(61));
    assert_eq!(named(&[&longest]), Ok(1));
    let too_long = DecodeError::TooLong {
        field: "grant's name",
        length: 64,
        limit: 63,
    };
    assert_eq!(named(&[&format!("{longest}a")]), Err(too_long));
    let wrong = |name| match named(&[name]) {
        Err(DecodeError::OutOfBounds { field, .. }) => field == "grant's name",
        _ => false,
    };
    for name in ["", "*", "*.", "*a", "a.*", "**.a", "*.*.a", "Pump", "a b"] {
        assert!(wrong(name), "{name:?}");
    }
}

#[test]
fn an_ending_covers_what_has_something_before_it_and_a_name_itself_alone() {
    let covers = |pattern, name| GrantName::new(pattern).unwrap().covers(name);
    assert!(covers("*.roof", "a.roof") && covers("*.roof", "pump.east.roof"));
    for name in ["roof", ".roof", "aroof", "a.roof.x", "a.roo", "a.proof"] {
        assert!(!covers("*.roof", name), "{name}");
    }
    assert!(covers("pump", "pump"));
    assert!(!covers("pump", "pump1") && !covers("pump", "a.pump") && !covers("pump", "pum"));
}

#[test]
fn what_is_missing_is_named_and_what_is_unknown_is_skipped() {
    let missing = |key| {
        Err(DecodeError::Missing {
            field: "grant",
            key,
        })
    };
    assert_eq!(decode_grant(&[0xa0]), missing(0));
    let whole = with(3, &[3, 5]);
    let without_roles = [&[0xa2][..], &whole[1..42], &[3, 5]].concat();
    assert_eq!(decode_grant(&without_roles), missing(1));
    assert_eq!(decode_grant(&with(2, &[])), missing(3));
    let more = with(4, &[3, 5, 0x18, 99, 0x81, 0xf6]);
    assert_eq!(decode_grant(&more), Ok(grant(&[])));
    let other = Err(DecodeError::NotEd25519 {
        field: "grant's peer id",
    });
    assert_eq!(decode_grant(&[0xa1, 0, 0x41, 7]), other);
}

proptest! {
    #[test]
    fn grants_are_read_back_and_their_damage_answered(grant in any_grant()) {
        let bytes = payload(&grant);
        prop_assert_eq!(decode_grant(&bytes), Ok(grant));
        for end in 0..bytes.len() {
            prop_assert!(decode_grant(&bytes[..end]).is_err());
        }
        mutations(&bytes, |bytes| drop(decode_grant(bytes)));
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_grant(&bytes);
    }
}
