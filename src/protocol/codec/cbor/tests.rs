use std::vec::Vec;

use minicbor::bytes::ByteSlice;

use super::{
    super::{NoRoom, fixtures::long_offer},
    *,
};
use crate::protocol::MAX_LIST;

fn skip(bytes: &[u8]) -> Result<(), DecodeError> {
    CborReader::whole(bytes, |r| r.skip("test"))
}

fn keys(bytes: &[u8]) -> Result<Vec<u64>, DecodeError> {
    let mut keys = Vec::new();
    CborReader::whole(bytes, |r| {
        r.map("test", |r, key| {
            keys.push(key);
            r.skip("test")
        })
    })?;
    Ok(keys)
}

#[test]
fn every_definite_value_is_skipped_whole() {
    let values: [&[u8]; 15] = [
        &[0x17],
        &[0x1b, 255, 255, 255, 255, 255, 255, 255, 255],
        &[0x3b, 255, 255, 255, 255, 255, 255, 255, 255],
        &[0x43, 1, 2, 3],
        &[0x62, b'h', b'i'],
        &[0x80],
        &[0x82, 0x81, 0x01, 0xa1, 0x61, b'a', 0x02],
        &[0xa1, 0xa0, 0x80],
        &[0xc1, 0x1a, 0, 0, 0, 1],
        &[0xf4],
        &[0xf6],
        &[0xf8, 32],
        &[0xf9, 0x7e, 0x00],
        &[0xfa, 0, 0, 0, 0],
        &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for value in values {
        assert_eq!(skip(value), Ok(()), "{value:02x?}");
        for end in 0..value.len() {
            assert_eq!(
                skip(&value[..end]),
                Err(DecodeError::Truncated),
                "{value:02x?}"
            );
        }
    }
}

#[test]
fn ill_formed_and_indefinite_values_are_not_skipped() {
    for value in [
        [0x9f, 0xff].as_slice(),
        &[0xbf, 0xff],
        &[0x5f, 0xff],
        &[0x7f, 0xff],
    ] {
        assert_eq!(skip(value), Err(DecodeError::Indefinite { field: "test" }));
    }
    for value in [
        [0xff].as_slice(),
        &[0x1c],
        &[0x5d],
        &[0xfc],
        &[0xf8, 31],
        &[0xdf, 0],
    ] {
        assert_eq!(
            skip(value),
            Err(DecodeError::Malformed { field: "test" }),
            "{value:02x?}"
        );
    }
    assert_eq!(
        skip(&[0x61, 0xff]),
        Err(DecodeError::NotUtf8 { field: "test" })
    );
}

#[test]
fn nesting_costs_no_stack_and_huge_counts_no_time() {
    let mut deep = vec![0x81; 1_000_000];
    assert_eq!(skip(&deep), Err(DecodeError::Truncated));
    deep.push(0);
    assert_eq!(skip(&deep), Ok(()));
    let huge = [0xbb, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0];
    assert_eq!(skip(&huge), Err(DecodeError::Truncated));
    assert_eq!(keys(&huge), Err(DecodeError::Truncated));
}

#[test]
fn a_key_comes_once_whatever_its_size() {
    assert_eq!(keys(&[0xa2, 0x05, 0x00, 0x18, 64, 0x00]), Ok(vec![5, 64]));
    let twice = Err(DecodeError::Duplicate { field: "test" });
    assert_eq!(keys(&[0xa2, 0x05, 0x00, 0x05, 0x00]), twice);
    assert_eq!(keys(&[0xa2, 0x05, 0x00, 0x18, 0x05, 0x00]), twice);
    assert_eq!(keys(&[0xa2, 0x18, 64, 0x00, 0x18, 64, 0x00]), twice);
}

#[test]
fn keys_are_unsigned_integers() {
    let wrong = Err(DecodeError::WrongType { field: "test" });
    assert_eq!(keys(&[0xa1, 0x61, b'a', 0x00]), wrong);
    assert_eq!(keys(&[0xa1, 0x20, 0x00]), wrong);
}

#[test]
fn unknown_keys_over_63_are_at_most_32() {
    let map = |count: u8| {
        let head = [0xb8, count];
        let entries = (0..count).flat_map(|key| [0x18, 64 + key, 0]);
        head.into_iter().chain(entries).collect::<Vec<_>>()
    };
    assert_eq!(keys(&map(32)).unwrap().len(), 32);
    let bound = "without more than 32 unknown keys over 63";
    let field = "test";
    assert_eq!(
        keys(&map(33)),
        Err(DecodeError::OutOfBounds { field, bound })
    );
}

#[test]
fn a_list_takes_whole_items_while_they_fit() {
    let items = || (0..20).map(|_| <&ByteSlice>::from(&[1, 2, 3][..]));
    assert_eq!(fitting(1000, items()), MAX_LIST);
    assert_eq!(fitting(9, items()), 2);
    assert_eq!(fitting(8, items()), 1);
    assert_eq!(fitting(4, items()), 0);
    assert_eq!(fitting(0, items()), 0);
}

#[test]
fn an_offer_has_the_length_that_it_says() {
    for seed in 0..3 {
        let mut offer = long_offer(seed);
        offer.addrs.truncate(seed.into());
        offer.free = offer.free.filter(|_| seed > 1);
        let mut buffer = [0; 400];
        let written = write(&offer, &mut buffer).unwrap().len();
        assert_eq!(length(&offer), written);
        assert_eq!(write(&offer, &mut buffer[..written - 1]), Err(NoRoom));
    }
}
