//! `/oc/directory/1.0.0`: one request and one response a stream (PROTOCOL.md).
//!
//! A request is at most [`MAX_FRAME`](super::frame::MAX_FRAME) bytes, a response at most
//! [`MAX_RESPONSE`]. Records in a response are opaque here; `record` opens them.

use heapless::Vec;
use minicbor::{CborLen, Encode, bytes::ByteSlice};

use super::{
    DecodeError, NoRoom,
    cbor::{List, Reader, byte_strings, fitting, length, required, write},
    frame::MAX_RESPONSE,
    peer_to_bytes,
};
use crate::protocol::{
    Cursor, IndexersAnswer, IndexersPage, MAX_ENVELOPE_LEN, MAX_LIST, MAX_NAME_LEN, MAX_REASON_LEN,
    Name, PeerId, Reach, Reason, Tally, Want,
};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Which indexers there are.
    Indexers {
        /// How many at most; never more than [`MAX_LIST`].
        most: u8,
        /// Why the node asks.
        want: Want,
        /// Only asking: the page that is wanted. `None`: whichever indexers the native names.
        from: Option<Cursor>,
    },
    /// Who claims this name. Any text of at most [`MAX_NAME_LEN`] bytes may be asked for, also one that nobody can have.
    FindName {
        /// The name.
        name: Name,
        /// Whether the server asks others too.
        reach: Reach,
    },
    /// The record of this peer.
    FindPeer {
        /// The peer.
        peer: PeerId,
        /// Whether the server asks others too.
        reach: Reach,
    },
}

/// Signed records in a response.
pub type Records<'a> = Vec<&'a [u8], MAX_LIST, u8>;

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// To [`Request::Indexers`].
    Indexers(IndexersAnswer),
    /// To the same, if more pages follow after this one.
    Page(IndexersPage),
    /// To the other two.
    Records {
        /// Signed node records, each at most [`MAX_ENVELOPE_LEN`] bytes, not verified.
        records: Records<'a>,
        /// There are more than these.
        more: bool,
        /// The servers that were asked for this answer, if its sender says so.
        tally: Option<Tally>,
    },
    /// An error, for a person.
    Error(Reason),
}

/// What all requests and responses are written as: key 0 is the code, and the meaning of the others
/// hangs on it.
#[derive(Encode, CborLen)]
#[cbor(map)]
struct Message<A, B, C> {
    #[n(0)]
    code: u8,
    #[n(1)]
    first: A,
    #[n(2)]
    second: Option<B>,
    #[n(3)]
    third: Option<C>,
}

/// Writes a request to `buffer`.
///
/// # Errors
/// See [`NoRoom`].
pub fn encode_request<'b>(request: &Request, buffer: &'b mut [u8]) -> Result<&'b [u8], NoRoom> {
    match request {
        Request::Indexers { most, want, from } => {
            let id = match from {
                Some(Cursor::After(peer)) => Some(peer_to_bytes(peer)),
                Some(Cursor::Start) | None => None,
            };
            let cursor = id.as_ref().map_or(&[][..], |id| id);
            let third = from.map(|_| <&ByteSlice>::from(cursor));
            let second = Some(want_code(*want));
            write(
                &Message {
                    code: 0,
                    first: most,
                    second,
                    third,
                },
                buffer,
            )
        }
        Request::FindName { name, reach } => write(&lookup(1, name.as_str(), *reach), buffer),
        Request::FindPeer { peer, reach } => write(&lookup(2, peer, *reach), buffer),
    }
}

fn lookup<T: ?Sized>(code: u8, what: &T, reach: Reach) -> Message<&T, bool, u8> {
    Message {
        code,
        first: what,
        second: (reach == Reach::Directory).then_some(true),
        third: None,
    }
}

/// The request of these bytes. A count over [`MAX_LIST`], or none, is [`MAX_LIST`].
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_request(bytes: &[u8]) -> Result<Request, DecodeError> {
    match code_of("request", bytes)? {
        0 => decode_indexers_request(bytes),
        1 => {
            let (name, reach) = decode_lookup(bytes, |r| {
                let name = r.text("name asked for", MAX_NAME_LEN)?;
                Name::try_from(name).map_err(|_| DecodeError::Malformed {
                    field: "name asked for",
                })
            })?;
            Ok(Request::FindName { name, reach })
        }
        2 => {
            let (peer, reach) = decode_lookup(bytes, |r| r.peer("peer id asked for"))?;
            Ok(Request::FindPeer { peer, reach })
        }
        code => Err(DecodeError::UnknownCode {
            field: "request",
            code,
        }),
    }
}

/// Writes a response to `buffer`: of its items, as many as fit the buffer and a frame. Records that did
/// not fit are told as "more".
///
/// # Errors
/// See [`NoRoom`].
pub fn encode_response<'b>(
    response: &Response<'_>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], NoRoom> {
    let limit = buffer.len().min(MAX_RESPONSE);
    match response {
        // All offers fit a frame: sixteen of the longest take less than half of it.
        Response::Indexers(IndexersAnswer { offers, takes_in }) => {
            let third = None::<u8>;
            let message = Message {
                code: 0,
                first: List(offers.iter()),
                second: Some(takes_in),
                third,
            };
            write(&message, buffer)
        }
        Response::Page(IndexersPage { offers, next }) => {
            let third = next.as_ref();
            let message = Message {
                code: 0,
                first: List(offers.iter()),
                second: Some(false),
                third,
            };
            write(&message, buffer)
        }
        Response::Records {
            records,
            more,
            tally,
        } => {
            let third = tally.map(|tally| (tally.asked, tally.answered));
            let message = |records, more| Message {
                code: 1,
                first: byte_strings::<&[u8]>(records),
                second: Some(more),
                third,
            };
            // One byte is the head of the empty list, which `fitting` counts.
            let room = (limit + 1).saturating_sub(length(&message(&[], *more)));
            let count = fitting(
                room,
                records.iter().map(|record| <&ByteSlice>::from(*record)),
            );
            let kept = records.get(..count).unwrap_or_default();
            write(&message(kept, *more || count < records.len()), buffer)
        }
        Response::Error(reason) => write(&lookup(255, reason.as_str(), Reach::Network), buffer),
    }
}

/// The response of these bytes. An error's text is cut to [`MAX_REASON_LEN`] bytes.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_response(bytes: &[u8]) -> Result<Response<'_>, DecodeError> {
    match code_of("response", bytes)? {
        0 => {
            let (offers, takes_in, next) = decode_list(bytes, "offers", Reader::offer, |r| {
                r.peer("id to continue after")
            })?;
            let takes_in = required(takes_in, "response", 2)?;
            Ok(match next {
                Some(_) => Response::Page(IndexersPage { offers, next }),
                None => Response::Indexers(IndexersAnswer { offers, takes_in }),
            })
        }
        1 => {
            let (records, more, tally) = decode_list(
                bytes,
                "signed records",
                |r| r.bytes("signed record", MAX_ENVELOPE_LEN),
                read_tally,
            )?;
            Ok(Response::Records {
                records,
                more: more.unwrap_or(false),
                tally,
            })
        }
        255 => value_at_1("response", bytes, |r| r.text("error", usize::MAX).map(cut))
            .map(Response::Error),
        code => Err(DecodeError::UnknownCode {
            field: "response",
            code,
        }),
    }
}

/// What the value is: the meaning of the other keys hangs on key 0, which may stand anywhere in the map.
fn code_of(field: &'static str, bytes: &[u8]) -> Result<u64, DecodeError> {
    let mut code = None;
    Reader::whole(bytes, |r| {
        r.map(field, |r, key| {
            match key {
                0 => code = Some(r.uint(field)?),
                _ => r.skip(field)?,
            }
            Ok(())
        })
    })?;
    required(code, field, 0)
}

/// The value at key 1, the only one besides the code.
fn value_at_1<'b, T>(
    field: &'static str,
    bytes: &'b [u8],
    mut read: impl FnMut(&mut Reader<'b>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut value = None;
    Reader::whole(bytes, |r| {
        r.map(field, |r, key| {
            match key {
                1 => value = Some(read(r)?),
                _ => r.skip(field)?,
            }
            Ok(())
        })
    })?;
    required(value, field, 1)
}

fn decode_indexers_request(bytes: &[u8]) -> Result<Request, DecodeError> {
    const FIELD: &str = "request";
    let (mut most, mut want) = (MAX_LIST as u8, Want::default());
    let mut from = None;
    Reader::whole(bytes, |r| {
        r.map(FIELD, |r, key| {
            match key {
                1 => most = r.uint("indexers asked for")?.min(MAX_LIST as u64) as u8,
                2 => want = r.code("want", want_of)?,
                3 => from = Some(r.cursor("cursor")?),
                _ => r.skip(FIELD)?,
            }
            Ok(())
        })
    })?;
    Ok(Request::Indexers { most, want, from })
}

/// What is looked for, at key 1, and how far the server goes, at key 2.
fn decode_lookup<'b, T>(
    bytes: &'b [u8],
    mut read: impl FnMut(&mut Reader<'b>) -> Result<T, DecodeError>,
) -> Result<(T, Reach), DecodeError> {
    const FIELD: &str = "request";
    let (mut what, mut own) = (None, false);
    Reader::whole(bytes, |r| {
        r.map(FIELD, |r, key| {
            match key {
                1 => what = Some(read(r)?),
                2 => own = r.boolean("request's key 2")?,
                _ => r.skip(FIELD)?,
            }
            Ok(())
        })
    })?;
    let reach = if own {
        Reach::Directory
    } else {
        Reach::Network
    };
    Ok((required(what, FIELD, 1)?, reach))
}

fn read_tally(r: &mut Reader<'_>) -> Result<Tally, DecodeError> {
    const FIELD: &str = "servers asked";
    let counts = r.list::<u32, 2>(FIELD, |r| r.count(FIELD))?;
    match counts.as_slice() {
        &[asked, answered] => Ok(Tally { asked, answered }),
        _ => Err(DecodeError::OutOfBounds {
            field: FIELD,
            bound: "two counts",
        }),
    }
}

type Listed<T, U> = (Vec<T, MAX_LIST, u8>, Option<bool>, Option<U>);

/// The list at key 1, the truth value at key 2, and what `third` reads at key 3.
fn decode_list<'b, T, U>(
    bytes: &'b [u8],
    field: &'static str,
    mut item: impl FnMut(&mut Reader<'b>) -> Result<T, DecodeError>,
    mut third: impl FnMut(&mut Reader<'b>) -> Result<U, DecodeError>,
) -> Result<Listed<T, U>, DecodeError> {
    let (mut list, mut flag, mut last) = (None, None, None);
    Reader::whole(bytes, |r| {
        r.map("response", |r, key| {
            match key {
                1 => list = Some(r.list(field, &mut item)?),
                2 => flag = Some(r.boolean("response's key 2")?),
                3 => last = Some(third(r)?),
                _ => r.skip("response")?,
            }
            Ok(())
        })
    })?;
    Ok((required(list, "response", 1)?, flag, last))
}

/// As many whole characters as a reason holds.
fn cut(text: &str) -> Reason {
    let mut reason = Reason::new();
    for character in text.chars() {
        if reason.push(character).is_err() {
            break;
        }
    }
    debug_assert!(reason.len() <= MAX_REASON_LEN);
    reason
}

fn want_code(want: Want) -> u8 {
    match want {
        Want::Nothing => 0,
        Want::Lease => 1,
        Want::OffersFailed => 2,
    }
}

fn want_of(code: u64) -> Option<Want> {
    let wants = [Want::Nothing, Want::Lease, Want::OffersFailed];
    wants.get(usize::try_from(code).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::codec::fixtures::*;

    fn encode_request(request: &Request) -> Vec<u8> {
        encoded(|buffer| super::encode_request(request, buffer))
    }

    fn encode_response(response: &Response<'_>) -> Vec<u8> {
        encoded(|buffer| super::encode_response(response, buffer))
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
        // Key 3 is a cursor in a request for indexers only.
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
        let offers: crate::protocol::Offers = (0..16).map(long_offer).collect();
        let page = IndexersPage {
            next: Some(PeerId::from_bytes([9; 32])),
            offers: offers.clone(),
        };
        let bytes = encode_response(&Response::Page(page.clone()));
        assert!(bytes.len() <= MAX_RESPONSE);
        assert_eq!(decode_response(&bytes), Ok(Response::Page(page)));
        let last = IndexersPage { offers, next: None };
        let bytes = encode_response(&Response::Page(last.clone()));
        let answer = IndexersAnswer {
            offers: last.offers,
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
        assert_eq!(decode_request(&[0xa1, 0, 3]), Err(unknown("request", 3)));
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
        let offers = (0..16).map(long_offer).collect();
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
            // A response may be long: its cuts cost the square of its length.
            for end in (0..response.len()).step_by(1 + response.len() / 500) {
                prop_assert!(decode_response(&response[..end]).is_err());
            }
            mutations(&request, |bytes| drop(decode_request(bytes)));
            mutations(&response, |bytes| drop(decode_response(bytes)));
        }
    }
}
