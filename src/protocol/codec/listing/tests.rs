use std::vec::Vec;

use super::*;
use crate::protocol::codec::{
    directory::{Response, Room, decode_request, decode_response, encode_request, encode_response},
    fixtures::*,
};

fn request(filter: Filter, from: Cursor, gone: bool) -> Vec<u8> {
    let request = Request::List { filter, from, gone };
    encoded(|buffer| encode_request(&request, buffer))
}

#[test]
fn a_request_has_the_bytes_of_the_protocol() {
    let all = request(Filter::default(), Cursor::Start, false);
    assert_eq!(all, [0xa1, 0, 3]);
    let filter = Filter::new(to_service_name("http"), Name::try_from("p").unwrap());
    let filter = filter.with_tag("a", "b").unwrap();
    let after = Cursor::After(PeerId::from_bytes([7; 32]));
    let mut bytes = Vec::from(*b"\xa6\x00\x03\x01\x64http\x02\x61p\x03\xa1\x61a\x61b\x04\x58\x26");
    bytes.extend(peer_to_bytes(&PeerId::from_bytes([7; 32])));
    bytes.extend([5, 0xf5]);
    assert_eq!(request(filter, after, true), bytes);
}

#[test]
fn a_request_for_a_service_that_can_have_no_name_is_an_error() {
    let wrong = DecodeError::OutOfBounds {
        field: "service asked for",
        bound: "1 to 15 of a-z 0-9 - as in RFC 6335",
    };
    assert_eq!(decode_request(b"\xa2\x00\x03\x01\x61-"), Err(wrong));
}

#[test]
fn an_entry_that_names_nobody_is_left_out_and_the_others_are_read() {
    // The second has no record and no peer id.
    let bytes = b"\xa2\x00\x03\x01\x83\xa3\x00\x41x\x01\x05\x02\x00\xa3\x00\x40\x01\x05\x02\x02\xa3\x00\x41y\x01\x06\x02\x01";
    let mut room = Room::default();
    let Ok(Response::Entries(page)) = decode_response(bytes, &mut room) else {
        panic!("it cannot be read");
    };
    let entry = |record, ms, presence| Entry {
        subject: Subject::Signed(record),
        age: core::time::Duration::from_millis(ms),
        presence,
    };
    let read = [
        entry(&b"x"[..], 5, Presence::Alive),
        entry(b"y", 6, Presence::Left),
    ];
    assert_eq!(page.entries, read);
}

#[test]
fn the_longest_entries_that_a_page_may_have_fit_a_frame() {
    let envelope = [7; MAX_ENVELOPE_LEN];
    let name = "x".repeat(MAX_NAME_LEN);
    let peer = PeerId::from_bytes([7; 32]);
    let age = core::time::Duration::from_millis(u64::MAX);
    for subject in [
        Subject::Signed(&envelope),
        Subject::Named { peer, name: &name },
    ] {
        let presence = Presence::Lost;
        let entry = Entry {
            subject,
            age,
            presence,
        };
        let count = (MAX_PAGE_BYTES / entry_length(&entry)).min(MAX_ENTRIES);
        let page = EntriesPage {
            entries: &std::vec![entry; count],
            next: Some(peer),
        };
        let bytes = encoded(|buffer| encode_response(&Response::Entries(page), buffer));
        assert!(bytes.len() <= MAX_RESPONSE, "{} bytes", bytes.len());
        let mut room = Room::default();
        assert_eq!(
            decode_response(&bytes, &mut room),
            Ok(Response::Entries(page))
        );
    }
}
