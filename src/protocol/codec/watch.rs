//! `/oc/watch/1.0.0`: one frame that says what is watched, then a frame for each change
//! (PROTOCOL.md, section 5). Each is at most [`MAX_FRAME`](super::frame::MAX_FRAME) bytes.

use minicbor::Encode;

use super::{
    DecodeError, NoRoom,
    cbor::{CborReader, TextMap, required, write},
    listing::{read_entry, read_filter},
};
use crate::protocol::{Entry, Filter, Presence};

/// What a server tells a watcher. Records are opaque here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// The node is there: it was when the watch began, or has come since.
    Present(Entry<'a>),
    /// Its name, tags, services or addresses have changed.
    Changed(Entry<'a>),
    /// It left or was lost: [`Entry::presence`] says which.
    Gone(Entry<'a>),
    /// The notices of all nodes that are there have been sent.
    CaughtUp,
}

#[derive(Encode)]
#[cbor(map)]
struct AskMap<'a> {
    #[n(1)]
    service: Option<&'a str>,
    #[n(2)]
    prefix: Option<&'a str>,
    #[n(3)]
    tags: Option<TextMap<'a>>,
}

/// Writes what is watched to `buffer`.
///
/// # Errors
/// See [`NoRoom`].
pub fn encode_ask<'b>(filter: &Filter, buffer: &'b mut [u8]) -> Result<&'b [u8], NoRoom> {
    let tags = filter.tags();
    let prefix = filter.prefix.as_str();
    let map = AskMap {
        service: filter.service.as_deref(),
        prefix: (!prefix.is_empty()).then_some(prefix),
        tags: (!tags.is_empty()).then_some(TextMap(&tags)),
    };
    write(&map, buffer)
}

/// Decodes what is watched.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_ask(bytes: &[u8]) -> Result<Filter, DecodeError> {
    const FIELD: &str = "watch";
    let mut filter = Filter::default();
    CborReader::whole(bytes, |r| {
        r.map(FIELD, |r, key| match key {
            1..=3 => read_filter(r, key, &mut filter),
            _ => r.skip(FIELD),
        })
    })?;
    Ok(filter)
}

#[derive(Encode)]
#[cbor(map)]
struct NoticeMap<'a> {
    #[n(0)]
    code: u8,
    #[n(1)]
    entry: Option<&'a Entry<'a>>,
}

/// Writes a notice to `buffer`.
///
/// # Errors
/// See [`NoRoom`].
pub fn encode_notice<'b>(notice: &Notice<'_>, buffer: &'b mut [u8]) -> Result<&'b [u8], NoRoom> {
    let (code, entry) = match notice {
        Notice::Present(entry) => (0, Some(entry)),
        Notice::Changed(entry) => (1, Some(entry)),
        Notice::Gone(entry) if entry.presence == Presence::Lost => (3, Some(entry)),
        Notice::Gone(entry) => (2, Some(entry)),
        Notice::CaughtUp => (4, None),
    };
    write(&NoticeMap { code, entry }, buffer)
}

/// Decodes a notice. `None` if it names no node.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_notice(bytes: &[u8]) -> Result<Option<Notice<'_>>, DecodeError> {
    const FIELD: &str = "change";
    let (mut code, mut entry) = (None, None);
    CborReader::whole(bytes, |r| {
        r.map(FIELD, |r, key| {
            match key {
                0 => code = Some(r.code("change's code", |code| (code <= 4).then_some(code))?),
                1 => entry = Some(read_entry(r)?),
                _ => r.skip(FIELD)?,
            }
            Ok(())
        })
    })?;
    let code = required(code, FIELD, 0)?;
    if code == 4 {
        return Ok(Some(Notice::CaughtUp));
    }
    let entry = required(entry, FIELD, 1)?;
    Ok(entry.map(|entry| match code {
        0 => Notice::Present(entry),
        1 => Notice::Changed(entry),
        // The code decides, whatever presence the entry states.
        2 => Notice::Gone(Entry {
            presence: Presence::Left,
            ..entry
        }),
        _ => Notice::Gone(Entry {
            presence: Presence::Lost,
            ..entry
        }),
    }))
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::protocol::{Name, PeerId, Subject, codec::frame::MAX_FRAME};

    fn entry(presence: Presence) -> Entry<'static> {
        let peer = PeerId::from_bytes([7; 32]);
        let subject = Subject::Named { peer, name: "pump" };
        Entry {
            subject,
            age: Duration::from_secs(3),
            presence,
        }
    }

    #[test]
    fn notices_are_read_back() {
        let signed = Entry {
            subject: Subject::Signed(b"envelope"),
            age: Duration::ZERO,
            presence: Presence::Alive,
        };
        let notices = [
            Notice::Present(signed),
            Notice::Changed(signed),
            Notice::Gone(entry(Presence::Left)),
            Notice::Gone(entry(Presence::Lost)),
            Notice::CaughtUp,
        ];
        for notice in notices {
            let mut buffer = [0; MAX_FRAME];
            let body = encode_notice(&notice, &mut buffer).unwrap();
            assert_eq!(decode_notice(body), Ok(Some(notice)));
        }
    }

    #[test]
    fn what_is_watched_is_read_back() {
        let mut filter = Filter::default();
        filter.prefix = Name::try_from("pump-").unwrap();
        for _ in 0..2 {
            let mut buffer = [0; MAX_FRAME];
            let body = encode_ask(&filter, &mut buffer).unwrap();
            assert_eq!(decode_ask(body), Ok(filter.clone()));
            filter = filter.with_tag("floor", "2").unwrap();
        }
    }

    #[test]
    fn an_empty_map_watches_all() {
        assert_eq!(decode_ask(&[0xa0]), Ok(Filter::default()));
    }

    #[test]
    fn a_notice_has_a_known_code_and_all_but_the_last_an_entry() {
        for (bytes, what) in [
            (&[0xa0][..], "no code"),
            (&[0xa1, 0x00, 0x05], "a code that is not known"),
            (&[0xa1, 0x00, 0x00], "no entry"),
        ] {
            assert!(decode_notice(bytes).is_err(), "{what}");
        }
        assert_eq!(
            decode_notice(&[0xa1, 0x00, 0x04]),
            Ok(Some(Notice::CaughtUp))
        );
    }

    #[test]
    fn a_notice_of_nobody_is_skipped() {
        // {0: 2, 1: {0: '', 1: 5, 2: 1}}
        let bytes = [0xa2, 0, 2, 1, 0xa3, 0, 0x40, 1, 5, 2, 1];
        assert_eq!(decode_notice(&bytes), Ok(None));
    }
}
