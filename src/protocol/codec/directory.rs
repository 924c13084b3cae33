//! `/oc/directory/1.0.0`: one request and one response a stream (PROTOCOL.md).
//!
//! Invariants: a request has at most [`MAX_FRAME`](super::frame::MAX_FRAME) bytes, a response at
//! most [`MAX_RESPONSE`]; records in a response are opaque here, and `record` opens them.

mod dial_back;
mod found;

use core::time::Duration;

use heapless::Vec;
use minicbor::{CborLen, Encode, bytes::ByteSlice};

use dial_back::{decode_dial_back, decode_dialed_back, encode_dial_back, encode_dialed_back};
use found::{decode_found, found};

use super::{
    DecodeError, NoRoom,
    cbor::{CborReader, List, fitting, length, required, write},
    frame::MAX_RESPONSE,
    listing::{decode_entries, decode_list_request, encode_entries, encode_list},
    peer_to_bytes,
    revocation::MAX_REVOCATION_LEN,
};
use crate::protocol::{
    Count, Cursor, Entries, EntriesPage, Filter, IndexersAnswer, IndexersPage, MAX_LIST,
    MAX_NAME_LEN, Name, Offers, PeerId, Reach, Reason, Selection, Tally, Want,
    dial_back::DialedBack, machine::MAX_MOVED, reason_of,
};

/// A directory request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a message is encoded where it is made, and decoded where it is used"
)]
pub enum Request {
    /// A request for indexers.
    Indexers {
        /// The greatest number of indexers, at most [`MAX_LIST`].
        most: u8,
        /// The reason of the request.
        want: Want,
        /// Only asking: the requested page. `None`: the native chooses the indexers.
        from: Option<Cursor>,
    },
    /// A request for the nodes that claim this name. It may be any text of at most [`MAX_NAME_LEN`]
    /// bytes, even one that is not a valid name.
    FindName {
        /// The name.
        name: Name,
        /// Whether the server asks others too.
        reach: Reach,
    },
    /// A request for the record of this peer.
    FindPeer {
        /// The peer.
        peer: PeerId,
        /// Whether the server asks others too.
        reach: Reach,
    },
    /// A request for one page of the server's own directory.
    List {
        /// Which nodes are listed.
        filter: Filter,
        /// Which page is requested.
        from: Cursor,
        /// Whether nodes that left or were lost are listed too.
        gone: bool,
    },
    /// A request to connect to this port at the address that the request comes from.
    DialBack {
        /// The port, from 1 on.
        port: u16,
    },
    /// A request for the revocation list of a closed network.
    Revocations,
}

const _: () = assert!(size_of::<Request>() <= MAX_MOVED);

/// Signed records in a response.
pub type Envelopes<'a> = Vec<&'a [u8], MAX_LIST, u8>;
/// The time since the last heartbeat of each record's subject, or since it claimed the name, in ms;
/// `UNKNOWN_AGE` where it is not known. Empty if the server tells none.
pub type Ages = Vec<u32, MAX_LIST, u8>;

/// The age that means: not known.
pub(crate) const UNKNOWN_AGE: u32 = u32::MAX;

/// An age as a response tells it: one that is known is never told as `UNKNOWN_AGE`, however long
/// it is.
pub(crate) fn age_ms(age: Option<Duration>) -> u32 {
    age.map_or(UNKNOWN_AGE, |age| {
        let age = u32::try_from(age.as_millis());
        age.unwrap_or(UNKNOWN_AGE).min(UNKNOWN_AGE - 1)
    })
}

/// What is too long to be moved in a response. A response that is read borrows from it.
#[derive(Debug, Default)]
pub struct Room<'a> {
    /// Those of [`Response::Indexers`] and [`Response::Page`].
    pub offers: Offers,
    /// Those of [`Response::Entries`].
    pub entries: Entries<'a>,
    /// Addresses in its offers that cannot be dialled, at most 64. They are left out.
    pub left_out: usize,
}

/// A directory response.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a message is encoded where it is made, and decoded where it is used"
)]
pub enum Response<'a> {
    /// The answer to [`Request::Indexers`].
    Indexers(IndexersAnswer<'a>),
    /// The answer to the same, if more pages follow this one.
    Page(IndexersPage<'a>),
    /// The answer to a lookup by name or id.
    Records {
        /// Signed node records, each at most
        /// [`MAX_ENVELOPE_LEN`](crate::protocol::MAX_ENVELOPE_LEN) bytes, not verified.
        records: Envelopes<'a>,
        /// Whether there are more records than these.
        more: bool,
        /// The servers that were asked for this answer, if its sender reports them.
        tally: Option<Tally>,
        /// How long ago each record's subject was heard.
        ages: Ages,
        /// How many nodes claim the name, if its sender reports it.
        claimants: Option<Count>,
        /// For how long each record's subject has claimed the name.
        claims: Ages,
    },
    /// The answer to [`Request::List`].
    Entries(EntriesPage<'a>),
    /// The answer to [`Request::DialBack`].
    DialedBack(DialedBack),
    /// The answer to [`Request::Revocations`]: the signed list, at most [`MAX_REVOCATION_LEN`]
    /// bytes, not verified; empty if there is none.
    Revocations(&'a [u8]),
    /// An error, as a text for the operator.
    Error(Reason),
}

const _: () = assert!(size_of::<Response<'_>>() <= MAX_MOVED);

/// The map form of all requests and responses: key 0 is the code, and the meaning of the other keys
/// depends on it.
#[derive(Encode, CborLen)]
#[cbor(map)]
struct Message<A, B, C, D = u8, E = u8, F = u8> {
    #[n(0)]
    code: u8,
    #[n(1)]
    first: A,
    #[n(2)]
    second: Option<B>,
    #[n(3)]
    third: Option<C>,
    #[n(4)]
    fourth: Option<D>,
    #[n(5)]
    fifth: Option<E>,
    #[n(6)]
    sixth: Option<F>,
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
                    fourth: None::<u8>,
                    fifth: None::<u8>,
                    sixth: None::<u8>,
                },
                buffer,
            )
        }
        Request::FindName { name, reach } => write(&lookup(1, name.as_str(), *reach), buffer),
        Request::FindPeer { peer, reach } => write(&lookup(2, peer, *reach), buffer),
        Request::List { filter, from, gone } => {
            let (from, gone) = (*from, *gone);
            encode_list(Selection { filter, from, gone }, buffer)
        }
        Request::DialBack { port } => encode_dial_back(*port, buffer),
        Request::Revocations => write(&coded(4, None::<u8>), buffer),
    }
}

fn lookup<T: ?Sized>(code: u8, what: &T, reach: Reach) -> Message<&T, bool, u8> {
    Message {
        code,
        first: what,
        second: (reach == Reach::Directory).then_some(true),
        third: None,
        fourth: None,
        fifth: None,
        sixth: None,
    }
}

/// A message with nothing but its code and one value.
fn coded<A>(code: u8, first: Option<A>) -> Message<Option<A>, u8, u8> {
    Message {
        code,
        first,
        second: None,
        third: None,
        fourth: None,
        fifth: None,
        sixth: None,
    }
}

/// Decodes a request. If the count is missing or over [`MAX_LIST`], it is [`MAX_LIST`].
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
        3 => decode_list_request(bytes),
        4 => Ok(Request::Revocations),
        5 => decode_dial_back(bytes),
        code => Err(DecodeError::UnknownCode {
            field: "request",
            code,
        }),
    }
}

/// Writes a response to `buffer`, with as many items as fit the buffer and a frame. If records do
/// not fit, the response states that there are more.
///
/// # Errors
/// See [`NoRoom`].
pub fn encode_response<'b>(
    response: &Response<'_>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], NoRoom> {
    let limit = buffer.len().min(MAX_RESPONSE);
    match response {
        // All offers fit a frame, because sixteen of the longest take less than half of it.
        Response::Indexers(IndexersAnswer { offers, takes_in }) => {
            let third = None::<u8>;
            let message = Message {
                code: 0,
                first: List(offers.iter().take(MAX_LIST)),
                second: Some(takes_in),
                third,
                fourth: None::<u8>,
                fifth: None::<u8>,
                sixth: None::<u8>,
            };
            write(&message, buffer)
        }
        Response::Page(IndexersPage { offers, next }) => {
            let third = next.as_ref();
            let message = Message {
                code: 0,
                first: List(offers.iter().take(MAX_LIST)),
                second: Some(false),
                third,
                fourth: None::<u8>,
                fifth: None::<u8>,
                sixth: None::<u8>,
            };
            write(&message, buffer)
        }
        Response::Records {
            records,
            more,
            tally,
            ages,
            claimants,
            claims,
        } => {
            let told = (*tally, *claimants);
            let message = |records, more, ages| found(records, more, told, ages);
            // One byte is the head of the empty list, which `fitting` counts.
            let room = (limit + 1).saturating_sub(length(&message(&[], *more, [ages, claims])));
            let count = fitting(
                room,
                records.iter().map(|record| <&ByteSlice>::from(*record)),
            );
            let kept = records.get(..count).unwrap_or_default();
            let ages = [ages, claims].map(|ages| ages.get(..count).unwrap_or_default());
            write(&message(kept, *more || count < records.len(), ages), buffer)
        }
        Response::Entries(page) => encode_entries(page, buffer),
        Response::DialedBack(answer) => encode_dialed_back(answer, buffer),
        Response::Revocations(list) => write(&coded(4, Some(<&ByteSlice>::from(*list))), buffer),
        Response::Error(reason) => write(&lookup(255, reason.as_str(), Reach::Network), buffer),
    }
}

/// Decodes a response, with its lists in `room`. The text of an error is cut to that of a
/// [`Reason`].
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_response<'a: 'r, 'r>(
    bytes: &'a [u8],
    room: &'r mut Room<'a>,
) -> Result<Response<'r>, DecodeError> {
    match code_of("response", bytes)? {
        0 => {
            let (mut takes_in, mut next) = (None, None);
            let offers = &mut room.offers;
            let read = |r: &mut CborReader<'a>| r.offers_into(offers);
            room.left_out = decode_list(bytes, read, |r, key| {
                match key {
                    2 => takes_in = Some(r.boolean("response's takes-in flag")?),
                    3 => next = Some(r.peer("id to continue after")?),
                    _ => r.skip("response")?,
                }
                Ok(())
            })?;
            let takes_in = required(takes_in, "response", 2)?;
            Ok(match next {
                Some(_) => Response::Page(IndexersPage { offers, next }),
                None => Response::Indexers(IndexersAnswer { offers, takes_in }),
            })
        }
        1 => decode_found(bytes),
        3 => decode_entries(bytes, &mut room.entries).map(Response::Entries),
        4 => value_at_1("response", bytes, |r| {
            r.bytes("revocation list", MAX_REVOCATION_LEN)
        })
        .map(Response::Revocations),
        5 => decode_dialed_back(bytes).map(Response::DialedBack),
        255 => value_at_1("response", bytes, |r| {
            r.text("error", usize::MAX).map(reason_of)
        })
        .map(Response::Error),
        code => Err(DecodeError::UnknownCode {
            field: "response",
            code,
        }),
    }
}

/// Reads the code at key 0, which may be anywhere in the map. The meaning of the other keys depends
/// on it.
fn code_of(field: &'static str, bytes: &[u8]) -> Result<u64, DecodeError> {
    let mut code = None;
    CborReader::whole(bytes, |r| {
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
    mut read: impl FnMut(&mut CborReader<'b>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut value = None;
    CborReader::whole(bytes, |r| {
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
    CborReader::whole(bytes, |r| {
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

/// Reads the subject of the lookup at key 1, and how far the server goes at key 2.
fn decode_lookup<'b, T>(
    bytes: &'b [u8],
    mut read: impl FnMut(&mut CborReader<'b>) -> Result<T, DecodeError>,
) -> Result<(T, Reach), DecodeError> {
    const FIELD: &str = "request";
    let (mut what, mut own) = (None, false);
    CborReader::whole(bytes, |r| {
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

/// Reads the list at key 1 by `list`, and the keys after it by `others`. Returns how many addresses
/// were left out because they cannot be dialled.
fn decode_list<'b>(
    bytes: &'b [u8],
    mut list: impl FnMut(&mut CborReader<'b>) -> Result<(), DecodeError>,
    mut others: impl FnMut(&mut CborReader<'b>, u64) -> Result<(), DecodeError>,
) -> Result<usize, DecodeError> {
    let (mut listed, mut left_out) = (None, 0);
    CborReader::whole(bytes, |r| {
        r.map("response", |r, key| {
            match key {
                0 => r.skip("response")?,
                1 => listed = Some(list(r)?),
                key => others(r, key)?,
            }
            Ok(())
        })?;
        left_out = r.left_out();
        Ok(())
    })?;
    required(listed, "response", 1)?;
    Ok(left_out)
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
mod tests;
