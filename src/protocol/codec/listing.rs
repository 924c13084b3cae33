//! The request for a server's own directory, and its response: code 3 of the directory protocol.
//!
//! Invariant: a page that is written fits its frame, and an entry that names no node is left out
//! when it is read.

use minicbor::{CborLen, Encode, Encoder, bytes::ByteSlice, encode, encode::Write};

use super::{
    DecodeError, NoRoom,
    cbor::{CborReader, List, TextMap, length, millis, required, write},
    directory::Request,
    frame::MAX_RESPONSE,
    peer_to_bytes,
    record::{MAX_TAG_BYTES, MAX_TAGS},
    service::{MAX_SERVICE_NAME_LEN, to_service_name},
};
use crate::protocol::{
    Cursor, Entries, EntriesPage, Entry, Filter, MAX_ENTRIES, MAX_ENVELOPE_LEN, MAX_NAME_LEN, Name,
    PeerId, Presence, Selection, Subject,
};

/// The code of the request and of its response.
pub(super) const CODE: u8 = 3;

#[derive(Encode)]
#[cbor(map)]
struct ListMap<'a> {
    #[n(0)]
    code: u8,
    #[n(1)]
    service: Option<&'a str>,
    #[n(2)]
    prefix: Option<&'a str>,
    #[n(3)]
    tags: Option<TextMap<'a>>,
    #[n(4)]
    from: Option<&'a ByteSlice>,
    #[n(5)]
    gone: Option<bool>,
}

/// Writes the request.
pub(super) fn encode_list<'b>(
    which: Selection<'_>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], NoRoom> {
    let Selection { filter, from, gone } = which;
    let tags = filter.tags();
    let id = match from {
        Cursor::After(peer) => Some(peer_to_bytes(&peer)),
        Cursor::Start => None,
    };
    let prefix = filter.prefix.as_str();
    let map = ListMap {
        code: CODE,
        service: filter.service.as_deref(),
        prefix: (!prefix.is_empty()).then_some(prefix),
        tags: (!tags.is_empty()).then_some(TextMap(&tags)),
        from: id.as_ref().map(|id| <&ByteSlice>::from(&id[..])),
        gone: gone.then_some(true),
    };
    write(&map, buffer)
}

/// Reads the request.
pub(super) fn decode_list_request(bytes: &[u8]) -> Result<Request, DecodeError> {
    const FIELD: &str = "request";
    let mut filter = Filter::default();
    let (mut from, mut gone) = (Cursor::Start, false);
    CborReader::whole(bytes, |r| {
        r.map(FIELD, |r, key| {
            match key {
                1..=3 => read_filter(r, key, &mut filter)?,
                4 => from = r.cursor("cursor")?,
                5 => gone = r.boolean("request's key 5")?,
                _ => r.skip(FIELD)?,
            }
            Ok(())
        })
    })?;
    Ok(Request::List { filter, from, gone })
}

/// Reads one part of a filter: the service at key 1, the prefix at key 2, the tags at key 3.
pub(super) fn read_filter(
    r: &mut CborReader<'_>,
    key: u64,
    filter: &mut Filter,
) -> Result<(), DecodeError> {
    const SERVICE: &str = "service asked for";
    const PREFIX: &str = "prefix asked for";
    const TAGS: &str = "tags asked for";
    match key {
        1 => {
            let service = to_service_name(r.text(SERVICE, MAX_SERVICE_NAME_LEN)?);
            filter.service = Some(service.ok_or(DecodeError::OutOfBounds {
                field: SERVICE,
                bound: "1 to 15 of a-z 0-9 - as in RFC 6335",
            })?);
        }
        2 => {
            let prefix = Name::try_from(r.text(PREFIX, MAX_NAME_LEN)?);
            filter.prefix = prefix.map_err(|_| DecodeError::Malformed { field: PREFIX })?;
        }
        _ => {
            for (key, value) in r.text_map::<MAX_TAGS>(TAGS, MAX_TAG_BYTES)? {
                let with_tag = core::mem::take(filter).with_tag(key, value);
                *filter = with_tag.map_err(|_| DecodeError::Malformed { field: TAGS })?;
            }
        }
    }
    Ok(())
}

#[derive(Encode, CborLen)]
#[cbor(map)]
struct EntryMap<'a> {
    #[n(0)]
    envelope: &'a ByteSlice,
    #[n(1)]
    age: u64,
    #[n(2)]
    presence: u8,
    #[n(3)]
    peer: Option<&'a PeerId>,
    #[n(4)]
    name: Option<&'a str>,
}

fn entry_map<'a>(entry: &'a Entry<'a>) -> EntryMap<'a> {
    let (envelope, peer, name) = match &entry.subject {
        Subject::Signed(envelope) => (*envelope, None, None),
        Subject::Named { peer, name } => (&[][..], Some(peer), Some(*name)),
    };
    EntryMap {
        envelope: envelope.into(),
        age: millis(entry.age),
        presence: entry.presence as u8,
        peer,
        name: name.filter(|name| !name.is_empty()),
    }
}

impl<C> Encode<C> for Entry<'_> {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        c: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        entry_map(self).encode(e, c)
    }
}

#[derive(Encode)]
#[cbor(map)]
struct PageMap<'a, L> {
    #[n(0)]
    code: u8,
    #[n(1)]
    entries: L,
    #[n(2)]
    next: Option<&'a PeerId>,
}

/// Bytes that the entries of one page may take, so that the page fits a frame: the rest is for the
/// heads of the map and of the list, the keys, the code and an id.
pub(crate) const MAX_PAGE_BYTES: usize = MAX_RESPONSE - 48;

/// Bytes that an entry takes in a page.
pub(crate) fn entry_length(entry: &Entry<'_>) -> usize {
    length(&entry_map(entry))
}

/// Writes the response.
pub(super) fn encode_entries<'b>(
    page: &EntriesPage<'_>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], NoRoom> {
    let map = PageMap {
        code: CODE,
        entries: List(page.entries.iter().take(MAX_ENTRIES)),
        next: page.next.as_ref(),
    };
    write(&map, buffer)
}

/// Reads the response, with its entries in `entries`. One that names no node is left out.
pub(super) fn decode_entries<'a, 'r>(
    bytes: &'a [u8],
    entries: &'r mut Entries<'a>,
) -> Result<EntriesPage<'r>, DecodeError> {
    const FIELD: &str = "response";
    entries.clear();
    let (mut listed, mut next) = (None, None);
    CborReader::whole(bytes, |r| {
        r.map(FIELD, |r, key| {
            match key {
                1 => {
                    let read = |r: &mut CborReader<'a>| {
                        if let Some(entry) = read_entry(r)? {
                            // There is room, because the list was checked.
                            let _ = entries.push(entry);
                        }
                        Ok(())
                    };
                    listed = Some(r.list::<(), MAX_ENTRIES>("entries", read)?);
                }
                2 => next = Some(r.peer("id to continue after")?),
                _ => r.skip(FIELD)?,
            }
            Ok(())
        })
    })?;
    required(listed, FIELD, 1)?;
    Ok(EntriesPage { entries, next })
}

/// Reads an entry; `None` if it names no node.
pub(super) fn read_entry<'a>(r: &mut CborReader<'a>) -> Result<Option<Entry<'a>>, DecodeError> {
    const FIELD: &str = "entry";
    let (mut envelope, mut age, mut presence) = (None, None, None);
    let (mut peer, mut name) = (None, "");
    r.map(FIELD, |r, key| {
        match key {
            0 => envelope = Some(r.bytes("signed record", MAX_ENVELOPE_LEN)?),
            1 => age = Some(r.millis("entry's age")?),
            2 => presence = Some(r.code("entry's state", presence_of)?),
            3 => peer = Some(r.peer("entry's peer id")?),
            4 => name = r.text("entry's name", MAX_NAME_LEN)?,
            _ => r.skip(FIELD)?,
        }
        Ok(())
    })?;
    let age = required(age, FIELD, 1)?;
    let presence = required(presence, FIELD, 2)?;
    let subject = match required(envelope, FIELD, 0)? {
        [] => peer.map(|peer| Subject::Named { peer, name }),
        envelope => Some(Subject::Signed(envelope)),
    };
    Ok(subject.map(|subject| Entry {
        subject,
        age,
        presence,
    }))
}

fn presence_of(code: u64) -> Option<Presence> {
    Presence::ALL.get(usize::try_from(code).ok()?).copied()
}

#[cfg(test)]
mod tests;
