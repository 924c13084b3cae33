use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::protocol::MAX_REASON_LEN;
use crate::protocol::{Addr, MAX_ENVELOPE_LEN, codec::fixtures::*, dial_back::Finding};

fn encode_request(request: &Request) -> Vec<u8> {
    encoded(|buffer| super::encode_request(request, buffer))
}

fn encode_response(response: &Response<'_>) -> Vec<u8> {
    encoded(|buffer| super::encode_response(response, buffer))
}

/// The result is leaked with its offers, because a test compares it with a whole response.
fn decode_response(bytes: &[u8]) -> Result<Response<'_>, DecodeError> {
    super::decode_response(bytes, std::boxed::Box::leak(Default::default()))
}

#[test]
fn requests_have_the_bytes_of_the_protocol() {
    let request = Request::Indexers {
        most: 4,
        want: Want::OffersFailed,
        from: None,
    };
    assert_eq!(encode_request(&request), [0xa3, 0, 0, 1, 4, 2, 2]);
    let page = |from| Request::Indexers {
        most: 16,
        want: Want::Nothing,
        from: Some(from),
    };
    let first = [0xa4, 0, 0, 1, 16, 2, 0, 3, 0x40];
    assert_eq!(encode_request(&page(Cursor::Start)), first);
    let mut next = [&first[..8], &[0x58, 38, 0, 0x24, 8, 1, 0x12, 0x20]].concat();
    next.extend([7; 32]);
    let after = Cursor::After(PeerId::from_bytes([7; 32]));
    assert_eq!(encode_request(&page(after)), next);
    let request = Request::FindName {
        name: Name::try_from("ab").unwrap(),
        reach: Reach::Network,
    };
    assert_eq!(encode_request(&request), [0xa2, 0, 1, 1, 0x62, b'a', b'b']);
    let request = Request::FindName {
        name: Name::try_from("ab").unwrap(),
        reach: Reach::Directory,
    };
    let bytes = [0xa3, 0, 1, 1, 0x62, b'a', b'b', 2, 0xf5];
    assert_eq!(encode_request(&request), bytes);
}

#[test]
fn what_a_request_leaves_out_has_its_default() {
    let request = Request::Indexers {
        most: 16,
        want: Want::Nothing,
        from: None,
    };
    assert_eq!(decode_request(&[0xa1, 0, 0]), Ok(request.clone()));
    assert_eq!(decode_request(&[0xa2, 0, 0, 1, 0x19, 1, 0]), Ok(request));
}

#[test]
fn the_code_may_stand_anywhere() {
    let name = Name::try_from("a").unwrap();
    assert_eq!(
        decode_request(&[0xa2, 1, 0x61, b'a', 0, 1]),
        Ok(Request::FindName {
            name,
            reach: Reach::Network
        })
    );
}

#[test]
fn keys_count_only_where_they_belong() {
    // Key 3 is a cursor only in a request for indexers.
    let name = Name::try_from("a").unwrap();
    let bytes = [0xa3, 0, 1, 1, 0x61, b'a', 3, 0x18, 99];
    assert_eq!(
        decode_request(&bytes),
        Ok(Request::FindName {
            name,
            reach: Reach::Network
        })
    );
    let unknown = DecodeError::UnknownCode {
        field: "want",
        code: 99,
    };
    assert_eq!(decode_request(&[0xa2, 0, 0, 2, 0x18, 99]), Err(unknown));
}

#[test]
fn a_cursor_is_empty_or_an_id() {
    let request = |cursor: &[u8]| [&[0xa2, 0, 0, 3], cursor].concat();
    let from = |cursor: &[u8]| match decode_request(&request(cursor)) {
        Ok(Request::Indexers { from, .. }) => Ok(from),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    assert_eq!(from(&[0x40]), Ok(Some(Cursor::Start)));
    let peer = PeerId::from_bytes([7; 32]);
    assert_eq!(from(&item(peer)), Ok(Some(Cursor::After(peer))));
    let bad = DecodeError::NotEd25519 { field: "cursor" };
    assert_eq!(from(&[0x41, 0]), Err(bad));
}

#[test]
fn a_page_says_where_the_next_begins_and_the_last_one_does_not() {
    let offers: &Vec<_> = &(0..16).map(long_offer).collect();
    let page = IndexersPage {
        next: Some(PeerId::from_bytes([9; 32])),
        offers,
    };
    let bytes = encode_response(&Response::Page(page));
    assert!(bytes.len() <= MAX_RESPONSE);
    assert_eq!(decode_response(&bytes), Ok(Response::Page(page)));
    let last = IndexersPage { offers, next: None };
    let bytes = encode_response(&Response::Page(last));
    let answer = IndexersAnswer {
        offers,
        takes_in: false,
    };
    assert_eq!(decode_response(&bytes), Ok(Response::Indexers(answer)));
}

#[test]
fn a_name_asked_for_has_at_most_63_bytes() {
    let bytes = |length: u8| {
        [
            &[0xa2, 0, 1, 1, 0x78, length][..],
            &vec![b'a'; length.into()],
        ]
        .concat()
    };
    assert!(decode_request(&bytes(63)).is_ok());
    let long = DecodeError::TooLong {
        field: "name asked for",
        length: 64,
        limit: 63,
    };
    assert_eq!(decode_request(&bytes(64)), Err(long));
}

#[test]
fn errors_name_their_cause() {
    let unknown = |field, code| DecodeError::UnknownCode { field, code };
    assert_eq!(decode_request(&[0xa1, 0, 6]), Err(unknown("request", 6)));
    assert_eq!(decode_response(&[0xa1, 0, 2]), Err(unknown("response", 2)));
    let missing = |field, key| DecodeError::Missing { field, key };
    assert_eq!(decode_request(&[0xa0]), Err(missing("request", 0)));
    assert_eq!(decode_request(&[0xa1, 0, 1]), Err(missing("request", 1)));
    assert_eq!(
        decode_response(&[0xa2, 0, 0, 1, 0x80]),
        Err(missing("response", 2))
    );
    assert_eq!(
        decode_response(&[0xa2, 0, 0, 2, 0xf5]),
        Err(missing("response", 1))
    );
    let trailing = DecodeError::Trailing { length: 1 };
    assert_eq!(decode_response(&[0xa2, 0, 1, 1, 0x80, 0]), Err(trailing));
    let twice = DecodeError::Duplicate { field: "response" };
    assert_eq!(decode_response(&[0xa3, 0, 1, 1, 0x80, 1, 0x80]), Err(twice));
}

#[test]
fn more_records_than_fit_are_told_as_more() {
    let envelope = [7; MAX_ENVELOPE_LEN];
    let response = |count| Response::Records {
        records: vec![&envelope[..]; count].into_iter().collect(),
        more: false,
        tally: Some(Tally::default()),
        ages: Ages::new(),
        claimants: None,
        claims: Ages::new(),
    };
    let read_back = |bytes: &[u8]| match decode_response(bytes) {
        Ok(Response::Records { records, more, .. }) => (records.len(), more),
        other => panic!("{other:?}"),
    };
    assert_eq!(read_back(&encode_response(&response(16))), (15, true));
    let two = encode_response(&response(2)).len();
    let mut buffer = vec![0; two];
    for (size, kept) in [(two, (2, false)), (two - 1, (1, true))] {
        let bytes = super::encode_response(&response(2), &mut buffer[..size]);
        assert_eq!(read_back(bytes.unwrap()), kept);
    }
}

#[test]
fn the_fullest_answer_fits_its_frame() {
    let offers: &Vec<_> = &(0..16).map(long_offer).collect();
    let response = Response::Indexers(IndexersAnswer {
        offers,
        takes_in: true,
    });
    let bytes = encode_response(&response);
    assert!(bytes.len() <= MAX_RESPONSE);
    assert_eq!(decode_response(&bytes), Ok(response));
}

#[test]
fn lists_have_at_most_sixteen_items_of_bounded_size() {
    let bytes = |count: u8| {
        let head = if count < 24 {
            vec![0x80 | count]
        } else {
            vec![0x98, count]
        };
        [vec![0xa2, 0, 1, 1], head, vec![0x40; count.into()]].concat()
    };
    assert!(decode_response(&bytes(16)).is_ok());
    let many = |count| DecodeError::TooMany {
        field: "signed records",
        count,
        limit: 16,
    };
    assert_eq!(decode_response(&bytes(17)), Err(many(17)));
    assert_eq!(decode_response(&bytes(200)), Err(many(200)));
}

#[test]
fn a_long_error_is_cut_at_a_character() {
    let text = format!("x{}", "ä".repeat(100));
    let bytes = written(|w| w.map(2)?.u8(0)?.u8(255)?.u8(1)?.str(&text)?.ok());
    let Ok(Response::Error(reason)) = decode_response(&bytes) else {
        panic!("not read back");
    };
    assert_eq!(reason.len(), 127);
    assert!(text.starts_with(reason.as_str()));
}

proptest! {
    #[test]
    fn requests_are_read_back(request in any_request()) {
        prop_assert_eq!(decode_request(&encode_request(&request)), Ok(request));
    }

    #[test]
    fn responses_are_read_back(response in any_response()) {
        let bytes = encode_response(&response);
        prop_assert_eq!(decode_response(&bytes), Ok(response));
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_request(&bytes);
        let _ = decode_response(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn every_cut_is_refused_and_every_mutation_answered(
        request in any_request(), response in any_response())
    {
        let (request, response) = (encode_request(&request), encode_response(&response));
        for end in 0..request.len() {
            prop_assert!(decode_request(&request[..end]).is_err());
        }
        // A response may be long, and testing all cuts takes time that grows with the square of its
        // length.
        for end in (0..response.len()).step_by(1 + response.len() / 500) {
            prop_assert!(decode_response(&response[..end]).is_err());
        }
        mutations(&request, |bytes| drop(decode_request(bytes)));
        mutations(&response, |bytes| drop(decode_response(bytes)));
    }
}

#[test]
fn request_for_the_revocation_list_and_its_answer_have_the_bytes_of_the_protocol() {
    assert_eq!(encode_request(&Request::Revocations), [0xa1, 0, 4]);
    let more = [0xa2, 0, 4, 1, 0xf6];
    assert_eq!(decode_request(&more), Ok(Request::Revocations));
    assert_eq!(
        encode_response(&Response::Revocations(&[])),
        [0xa2, 0, 4, 1, 0x40]
    );
    let one = Response::Revocations(&[0xab]);
    assert_eq!(encode_response(&one), [0xa2, 0, 4, 1, 0x41, 0xab]);
    let of = |length: usize| {
        let list = vec![7; length];
        let bytes = written(|w| w.map(2)?.u8(0)?.u8(4)?.u8(1)?.bytes(&list)?.ok());
        match decode_response(&bytes) {
            Ok(Response::Revocations(list)) => Ok(list.len()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        }
    };
    assert_eq!((of(0), of(4000)), (Ok(0), Ok(4000)));
    let too_long = DecodeError::TooLong {
        field: "revocation list",
        length: 4001,
        limit: 4000,
    };
    assert_eq!(of(4001), Err(too_long));
}

#[test]
fn request_to_dial_back_and_its_answer_have_the_bytes_of_the_protocol() {
    let request = Request::DialBack { port: 4820 };
    let bytes = [0xa2, 0, 5, 1, 0x19, 0x12, 0xd4];
    assert_eq!(encode_request(&request), bytes);
    assert_eq!(decode_request(&bytes), Ok(request));
    let answer = |finding, reason: &str, addr: &[u8]| {
        Response::DialedBack(DialedBack {
            finding,
            reason: Reason::try_from(reason).unwrap(),
            addr: Addr::from_slice(addr).unwrap(),
        })
    };
    let reached = answer(Finding::Reached, "", &[4, 127, 0, 0, 1]);
    let bytes = [0xa3, 0, 5, 1, 0, 3, 0x45, 4, 127, 0, 0, 1];
    assert_eq!(encode_response(&reached), bytes);
    assert_eq!(decode_response(&bytes), Ok(reached));
    let cannot = answer(Finding::Cannot, "busy", &[]);
    let bytes = [0xa3, 0, 5, 1, 2, 2, 0x64, b'b', b'u', b's', b'y'];
    assert_eq!(encode_response(&cannot), bytes);
    assert_eq!(decode_response(&bytes), Ok(cannot));
}

#[test]
fn request_to_dial_back_has_a_port_from_1_to_65535() {
    let bound = DecodeError::OutOfBounds {
        field: "port to dial",
        bound: "1 to 65535",
    };
    let with = |port: &[u8]| decode_request(&[&[0xa2, 0, 5, 1], port].concat());
    assert_eq!(with(&[0]), Err(bound.clone()));
    assert_eq!(with(&[1]), Ok(Request::DialBack { port: 1 }));
    assert_eq!(
        with(&[0x19, 0xff, 0xff]),
        Ok(Request::DialBack { port: 65535 })
    );
    assert_eq!(with(&[0x1a, 0, 1, 0, 0]), Err(bound));
    let field = "request";
    assert_eq!(
        decode_request(&[0xa1, 0, 5]),
        Err(DecodeError::Missing { field, key: 1 })
    );
}

#[test]
fn answer_to_dial_back_has_a_known_finding_and_a_bounded_address() {
    let (field, code) = ("finding", 3);
    let unknown = DecodeError::UnknownCode { field, code };
    assert_eq!(decode_response(&[0xa2, 0, 5, 1, 3]), Err(unknown));
    let long = [&[0xa3, 0, 5, 1, 1, 3, 0x58, 65][..], &[0; 65]].concat();
    assert!(matches!(
        decode_response(&long),
        Err(DecodeError::TooLong { limit: 64, .. })
    ));
    let reason = [&[0xa3, 0, 5, 1, 1, 2, 0x78, 200][..], &[b'a'; 200]].concat();
    let Ok(Response::DialedBack(answer)) = decode_response(&reason) else {
        panic!("a long reason is cut");
    };
    assert_eq!(answer.reason.len(), MAX_REASON_LEN);
}
