//! CBOR as the protocol uses it: definite lengths, maps keyed by small integers, bounded lists.
//!
//! A thin layer over minicbor that adds what its own map and list decoding leaves open: duplicates, indefinite lengths and
//! trailing bytes are refused, every length is checked against the field's bound before anything is kept, and
//! unknown values are skipped without recursion.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use minicbor::{Decoder, Encoder, data::Type, decode, encode};

use super::{DecodeError, peer_from_bytes, peer_to_bytes, to_multiaddr};
use crate::protocol::{Addr, Addrs, Cursor, MAX_LIST, Offer, PeerId};

/// Reads one message.
pub(super) struct Reader<'b>(Decoder<'b>);

impl<'b> Reader<'b> {
    /// Reads all of `bytes` as one value.
    pub(super) fn whole<T>(
        bytes: &'b [u8],
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let mut reader = Self(Decoder::new(bytes));
        let value = read(&mut reader)?;
        match reader.left() {
            0 => Ok(value),
            length => Err(DecodeError::Trailing { length }),
        }
    }

    /// Reads a map: calls `entry` at each value with its key. `entry` must consume the value, by [`Reader::skip`]
    /// if it does not know the key.
    pub(super) fn map(
        &mut self,
        field: &'static str,
        mut entry: impl FnMut(&mut Self, u64) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = definite(self.0.map(), field)?;
        let mut low = 0u64;
        let mut high = BTreeSet::new();
        for _ in 0..count {
            let key = self.uint(field)?;
            let new = if key < 64 {
                let bit = 1 << key;
                let new = low & bit == 0;
                low |= bit;
                new
            } else {
                high.insert(key)
            };
            if !new {
                return Err(DecodeError::Duplicate { field });
            }
            entry(self, key)?;
        }
        Ok(())
    }

    /// Reads the map `{ * tstr => tstr }`; at most `limit` entries and `limit_bytes` bytes of text in all.
    pub(super) fn text_map(
        &mut self,
        field: &'static str,
        limit: usize,
        limit_bytes: usize,
    ) -> Result<Vec<(String, String)>, DecodeError> {
        let count = definite(self.0.map(), field)?;
        check_count(field, count, limit)?;
        let mut length = 0;
        let mut entries = Vec::<(String, String)>::new();
        for _ in 0..count {
            let key = self.text(field, limit_bytes)?;
            let value = self.text(field, limit_bytes)?;
            length += key.len() + value.len();
            if length > limit_bytes {
                return Err(DecodeError::TooLong {
                    field,
                    length,
                    limit: limit_bytes,
                });
            }
            if entries.iter().any(|(known, _)| known == key) {
                return Err(DecodeError::Duplicate { field });
            }
            entries.push((key.into(), value.into()));
        }
        Ok(entries)
    }

    /// Reads a list of at most `N` items.
    pub(super) fn list<T, const N: usize>(
        &mut self,
        field: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<heapless::Vec<T, N, u8>, DecodeError> {
        let count = definite(self.0.array(), field)?;
        check_count(field, count, N)?;
        let mut items = heapless::Vec::new();
        for _ in 0..count {
            let item = item(self)?;
            items.push(item).map_err(|_| DecodeError::TooMany {
                field,
                count,
                limit: N,
            })?;
        }
        Ok(items)
    }

    /// Reads an unsigned integer.
    pub(super) fn uint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.0.u64().map_err(|error| cause(&error, field))
    }

    /// Reads an unsigned integer; more than `u32` holds is its greatest value.
    pub(super) fn count(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::try_from(self.uint(field)?).unwrap_or(u32::MAX))
    }

    /// Reads a duration in milliseconds.
    pub(super) fn millis(&mut self, field: &'static str) -> Result<Duration, DecodeError> {
        Ok(Duration::from_millis(self.uint(field)?))
    }

    /// Reads a code that `meaning` knows.
    pub(super) fn code<T>(
        &mut self,
        field: &'static str,
        meaning: impl FnOnce(u64) -> Option<T>,
    ) -> Result<T, DecodeError> {
        let code = self.uint(field)?;
        meaning(code).ok_or(DecodeError::UnknownCode { field, code })
    }

    /// Reads a truth value.
    pub(super) fn boolean(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        self.0.bool().map_err(|error| cause(&error, field))
    }

    /// Reads a byte string of at most `limit` bytes.
    pub(super) fn bytes(
        &mut self,
        field: &'static str,
        limit: usize,
    ) -> Result<&'b [u8], DecodeError> {
        self.refuse_indefinite(field)?;
        let bytes = self.0.bytes().map_err(|error| cause(&error, field))?;
        check_length(field, bytes.len(), limit)?;
        Ok(bytes)
    }

    /// Reads a text of at most `limit` bytes.
    pub(super) fn text(
        &mut self,
        field: &'static str,
        limit: usize,
    ) -> Result<&'b str, DecodeError> {
        self.refuse_indefinite(field)?;
        let text = self.0.str().map_err(|error| {
            // In a text of definite length nothing else but UTF-8 is left to be wrong.
            match cause(&error, field) {
                DecodeError::Malformed { .. } => DecodeError::NotUtf8 { field },
                other => other,
            }
        })?;
        check_length(field, text.len(), limit)?;
        Ok(text)
    }

    /// Reads the peer id of an Ed25519 key.
    pub(super) fn peer(&mut self, field: &'static str) -> Result<PeerId, DecodeError> {
        let bytes = self.bytes(field, usize::MAX)?;
        peer_from_bytes(bytes).ok_or(DecodeError::NotEd25519 { field })
    }

    /// Reads where a page begins: an empty byte string, or the id that it begins after.
    pub(super) fn cursor(&mut self, field: &'static str) -> Result<Cursor, DecodeError> {
        match self.bytes(field, usize::MAX)? {
            [] => Ok(Cursor::Start),
            bytes => peer_from_bytes(bytes)
                .map(Cursor::After)
                .ok_or(DecodeError::NotEd25519 { field }),
        }
    }

    /// Reads an offer.
    pub(super) fn offer(&mut self) -> Result<Offer, DecodeError> {
        const FIELD: &str = "offer";
        let (mut peer, mut addrs, mut ttl, mut free) = (None, None, None, None);
        self.map(FIELD, |r, key| {
            match key {
                0 => peer = Some(r.peer("offer's peer id")?),
                1 => addrs = Some(r.addrs()?),
                2 => ttl = Some(r.millis("offer's time to live")?),
                3 => free = Some(r.count("offer's free leases")?),
                _ => r.skip(FIELD)?,
            }
            Ok(())
        })?;
        Ok(Offer {
            peer: required(peer, FIELD, 0)?,
            addrs: required(addrs, FIELD, 1)?,
            ttl: required(ttl, FIELD, 2)?,
            free,
        })
    }

    fn addrs(&mut self) -> Result<Addrs, DecodeError> {
        const FIELD: &str = "offer's addresses";
        let addrs: Addrs = self.list(FIELD, |r| {
            let bytes = r.bytes(FIELD, usize::MAX)?;
            to_multiaddr(bytes)?;
            Addr::from_slice(bytes).map_err(|_| DecodeError::Malformed { field: FIELD })
        })?;
        if addrs.is_empty() {
            return Err(DecodeError::OutOfBounds {
                field: FIELD,
                bound: "1 to 4 addresses",
            });
        }
        Ok(addrs)
    }

    /// Skips one well-formed value of definite length, however deep, in constant stack.
    pub(super) fn skip(&mut self, field: &'static str) -> Result<(), DecodeError> {
        let mut open = 1u64;
        while open > 0 {
            open -= 1;
            let inner = match self.0.datatype().map_err(|error| cause(&error, field))? {
                Type::Array => definite(self.0.array(), field)?,
                Type::Map => definite(self.0.map(), field)?.saturating_mul(2),
                Type::Tag => {
                    self.0.tag().map_err(|error| cause(&error, field))?;
                    1
                }
                Type::ArrayIndef | Type::MapIndef | Type::BytesIndef | Type::StringIndef => {
                    return Err(DecodeError::Indefinite { field });
                }
                Type::Simple => {
                    self.simple(field)?;
                    0
                }
                Type::Break | Type::Unknown(_) => return Err(DecodeError::Malformed { field }),
                Type::String => {
                    self.text(field, usize::MAX)?;
                    0
                }
                _ => {
                    self.0.skip().map_err(|error| cause(&error, field))?;
                    0
                }
            };
            open = open.saturating_add(inner);
        }
        Ok(())
    }

    /// Skips a simple value; the two-byte form of one below 32 is not well-formed (RFC 8949, 3.3).
    fn simple(&mut self, field: &'static str) -> Result<(), DecodeError> {
        let before = self.0.position();
        let value = self.0.simple().map_err(|error| cause(&error, field))?;
        if self.0.position() - before == 2 && value < 32 {
            return Err(DecodeError::Malformed { field });
        }
        Ok(())
    }

    /// minicbor says "type mismatch" here; the sentence should name the real cause.
    fn refuse_indefinite(&self, field: &'static str) -> Result<(), DecodeError> {
        match self.0.datatype() {
            Ok(Type::BytesIndef | Type::StringIndef) => Err(DecodeError::Indefinite { field }),
            _ => Ok(()),
        }
    }

    fn left(&self) -> usize {
        self.0.input().len().saturating_sub(self.0.position())
    }
}

/// The value of a required key.
pub(super) fn required<T>(
    value: Option<T>,
    field: &'static str,
    key: u64,
) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { field, key })
}

fn check_count(field: &'static str, count: u64, limit: usize) -> Result<(), DecodeError> {
    if count > limit as u64 {
        return Err(DecodeError::TooMany {
            field,
            count,
            limit,
        });
    }
    Ok(())
}

fn check_length(field: &'static str, length: usize, limit: usize) -> Result<(), DecodeError> {
    if length > limit {
        return Err(DecodeError::TooLong {
            field,
            length,
            limit,
        });
    }
    Ok(())
}

fn definite(
    length: Result<Option<u64>, decode::Error>,
    field: &'static str,
) -> Result<u64, DecodeError> {
    length
        .map_err(|error| cause(&error, field))?
        .ok_or(DecodeError::Indefinite { field })
}

fn cause(error: &decode::Error, field: &'static str) -> DecodeError {
    if error.is_end_of_input() {
        DecodeError::Truncated
    } else if error.is_type_mismatch() {
        DecodeError::WrongType { field }
    } else {
        DecodeError::Malformed { field }
    }
}

/// Where a message is written to.
pub(super) type Writer = Encoder<Vec<u8>>;
/// The result that minicbor's encoder asks for; a `Vec` never fails.
pub(super) type Written = Result<(), encode::Error<Infallible>>;

/// Room that is made at once: most acks and beats fit.
const USUAL_LEN: usize = 128;

/// The bytes that `write` writes.
pub(super) fn written(write: impl FnOnce(&mut Writer) -> Written) -> Vec<u8> {
    let mut writer = Encoder::new(Vec::with_capacity(USUAL_LEN));
    write(&mut writer).expect("writing to a Vec cannot fail");
    writer.into_writer()
}

/// A list of whole items, first ones first, as many as fit `room` bytes and [`MAX_LIST`]; and how many.
pub(super) fn fitting(room: usize, items: impl Iterator<Item = Vec<u8>>) -> (Vec<u8>, usize) {
    let mut body = Vec::new();
    let mut count = 0;
    for item in items.take(MAX_LIST) {
        // One byte is the list's own head: MAX_LIST is below 24.
        if 1 + body.len() + item.len() > room {
            break;
        }
        body.extend_from_slice(&item);
        count += 1;
    }
    let mut list = written(|w| w.array(count as u64)?.ok());
    list.extend_from_slice(&body);
    (list, count)
}

/// Milliseconds of a duration, at most what 64 bits hold.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Length of [`peer_item`]: a head of two bytes, and the peer id.
pub(super) const PEER_ITEM_LEN: usize = 40;

/// The bytes of a peer id as an item.
pub(super) fn peer_item(peer: &PeerId) -> Vec<u8> {
    written(|w| w.bytes(&peer_to_bytes(peer))?.ok())
}

/// The bytes of an offer as an item.
pub(super) fn offer_item(offer: &Offer) -> Vec<u8> {
    written(|w| {
        w.map(3 + u64::from(offer.free.is_some()))?;
        w.u8(0)?.bytes(&peer_to_bytes(&offer.peer))?;
        w.u8(1)?.array(offer.addrs.len() as u64)?;
        for addr in &offer.addrs {
            w.bytes(addr)?;
        }
        w.u8(2)?.u64(millis(offer.ttl))?;
        if let Some(free) = offer.free {
            w.u8(3)?.u32(free)?;
        }
        w.ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(bytes: &[u8]) -> Result<(), DecodeError> {
        Reader::whole(bytes, |r| r.skip("test"))
    }

    fn keys(bytes: &[u8]) -> Result<Vec<u64>, DecodeError> {
        let mut keys = Vec::new();
        Reader::whole(bytes, |r| {
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
    fn a_list_takes_whole_items_while_they_fit() {
        let items = || (0..20u8).map(|_| vec![0x43, 1, 2, 3]);
        assert_eq!(fitting(1000, items()).1, MAX_LIST);
        assert_eq!(
            fitting(9, items()),
            (vec![0x82, 0x43, 1, 2, 3, 0x43, 1, 2, 3], 2)
        );
        assert_eq!(fitting(8, items()).1, 1);
        assert_eq!(fitting(4, items()), (vec![0x80], 0));
    }
}
