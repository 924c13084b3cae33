//! CBOR in the form that the protocol uses: definite lengths, maps keyed by small integers, bounded
//! lists.
//!
//! A thin layer over minicbor that adds checks to its decoding of maps and lists. Invariants:
//! duplicate keys, indefinite lengths and trailing bytes are refused; every length is checked
//! against the field's bound before anything is stored; unknown values are skipped without
//! recursion.

mod encode;

use core::time::Duration;

use heapless::Vec;
use minicbor::{Decoder, data::Type, decode};

use super::{DecodeError, peer_from_bytes};
use crate::protocol::{
    Addr, Addrs, Cursor, MAX_ADDR_LEN, MAX_ADDRS, Offer, Offers, PeerId, address::can_be_dialled,
};

pub(super) use encode::{List, TextMap, byte_strings, fitting, length, millis, write};

/// Keys of 64 and more that one map may have. The protocol defines none of them, so these keys are
/// unknown. They are stored only to detect duplicates.
const MAX_HIGH_KEYS: usize = 32;

/// Reads one message.
pub(super) struct CborReader<'b> {
    decoder: Decoder<'b>,
    /// Addresses that cannot be dialled, in lists of addresses read so far.
    left_out: usize,
}

impl<'b> CborReader<'b> {
    /// Reads all of `bytes` as one value.
    pub(super) fn whole<T>(
        bytes: &'b [u8],
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let mut reader = Self::new(bytes);
        let value = read(&mut reader)?;
        match reader.left() {
            0 => Ok(value),
            length => Err(DecodeError::Trailing { length }),
        }
    }

    /// Reads what is in front of `bytes`.
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self {
            decoder: Decoder::new(bytes),
            left_out: 0,
        }
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> usize {
        self.decoder.position()
    }

    /// Reads a map: calls `entry` at each value with its key. `entry` must consume the value, by
    /// [`CborReader::skip`] if it does not know the key.
    pub(super) fn map(
        &mut self,
        field: &'static str,
        mut entry: impl FnMut(&mut Self, u64) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = definite(self.decoder.map(), field)?;
        let mut low = 0u64;
        let mut high = Vec::<u64, MAX_HIGH_KEYS, u8>::new();
        for _ in 0..count {
            let key = self.uint(field)?;
            let bit = if key < 64 { 1 << key } else { 0 };
            if low & bit != 0 || high.contains(&key) {
                return Err(DecodeError::Duplicate { field });
            }
            low |= bit;
            if bit == 0 && high.push(key).is_err() {
                return Err(DecodeError::OutOfBounds {
                    field,
                    bound: "without more than 32 unknown keys over 63",
                });
            }
            entry(self, key)?;
        }
        Ok(())
    }

    /// Reads the map `{ * tstr => tstr }`; at most `N` entries and `limit` bytes of text in all.
    pub(super) fn text_map<const N: usize>(
        &mut self,
        field: &'static str,
        limit: usize,
    ) -> Result<Vec<(&'b str, &'b str), N, u8>, DecodeError> {
        let count = definite(self.decoder.map(), field)?;
        check_count(field, count, N)?;
        let mut length = 0;
        let mut entries = Vec::new();
        for _ in 0..count {
            let key = self.text(field, limit)?;
            let value = self.text(field, limit)?;
            length += key.len() + value.len();
            check_length(field, length, limit)?;
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(DecodeError::Duplicate { field });
            }
            push(&mut entries, (key, value), field)?;
        }
        Ok(entries)
    }

    /// Reads a list of at most `N` items.
    pub(super) fn list<T, const N: usize>(
        &mut self,
        field: &'static str,
        item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T, N, u8>, DecodeError> {
        let mut items = Vec::new();
        self.list_into(&mut items, field, item)?;
        Ok(items)
    }

    /// The same, for a list that is too long to be moved.
    pub(super) fn list_into<T, const N: usize>(
        &mut self,
        items: &mut Vec<T, N, u8>,
        field: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = definite(self.decoder.array(), field)?;
        check_count(field, count, N)?;
        items.clear();
        for _ in 0..count {
            push(items, item(self)?, field)?;
        }
        Ok(())
    }

    /// Reads a list of at most `limit` items that stay bytes: all items, and how many they are.
    pub(super) fn raw_list(
        &mut self,
        field: &'static str,
        limit: usize,
        mut item: impl FnMut(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(&'b [u8], usize), DecodeError> {
        let count = definite(self.decoder.array(), field)?;
        check_count(field, count, limit)?;
        let begin = self.position();
        (0..count).try_for_each(|_| item(self))?;
        let items = self.decoder.input().get(begin..self.position());
        Ok((items.unwrap_or_default(), count as usize))
    }

    /// Begins a list of exactly three items.
    pub(super) fn triple(&mut self, field: &'static str) -> Result<(), DecodeError> {
        match definite(self.decoder.array(), field)? {
            3 => Ok(()),
            _ => Err(DecodeError::OutOfBounds {
                field,
                bound: "3 items",
            }),
        }
    }

    /// Reads an unsigned integer.
    pub(super) fn uint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.decoder.u64().map_err(|error| cause(&error, field))
    }

    /// Reads an unsigned integer. A value above the range of `u32` becomes its greatest value.
    pub(super) fn count(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::try_from(self.uint(field)?).unwrap_or(u32::MAX))
    }

    /// Reads a duration in milliseconds.
    pub(super) fn millis(&mut self, field: &'static str) -> Result<Duration, DecodeError> {
        Ok(Duration::from_millis(self.uint(field)?))
    }

    /// Reads a code for which `meaning` returns a value.
    pub(super) fn code<T>(
        &mut self,
        field: &'static str,
        meaning: impl FnOnce(u64) -> Option<T>,
    ) -> Result<T, DecodeError> {
        let code = self.uint(field)?;
        meaning(code).ok_or(DecodeError::UnknownCode { field, code })
    }

    /// Reads a boolean.
    pub(super) fn boolean(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        self.decoder.bool().map_err(|error| cause(&error, field))
    }

    /// Reads a byte string of at most `limit` bytes.
    pub(super) fn bytes(
        &mut self,
        field: &'static str,
        limit: usize,
    ) -> Result<&'b [u8], DecodeError> {
        self.refuse_indefinite(field)?;
        let bytes = self.decoder.bytes().map_err(|error| cause(&error, field))?;
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
        let text = self.decoder.str().map_err(|error| {
            // In a text of definite length, only the UTF-8 can be wrong.
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

    /// Reads the start of a page: an empty byte string, or the id after which it begins.
    pub(super) fn cursor(&mut self, field: &'static str) -> Result<Cursor, DecodeError> {
        match self.bytes(field, usize::MAX)? {
            [] => Ok(Cursor::Start),
            bytes => peer_from_bytes(bytes)
                .map(Cursor::After)
                .ok_or(DecodeError::NotEd25519 { field }),
        }
    }

    /// Reads offers. One that cannot be dialled is left out.
    pub(super) fn offers_into(&mut self, offers: &mut Offers) -> Result<(), DecodeError> {
        self.list_into(offers, "offers", Self::offer)?;
        offers.retain(|offer| !offer.addrs.is_empty());
        Ok(())
    }

    /// Reads an offer. It has no address if none of them can be dialled.
    fn offer(&mut self) -> Result<Offer, DecodeError> {
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
        let addrs: Vec<_, MAX_ADDRS, u8> = self.dialable(FIELD, "1 to 4 addresses")?;
        let addrs = addrs.iter().map(|addr| Addr::from_slice(addr));
        addrs
            .collect::<Result<_, _>>()
            .map_err(|_| DecodeError::Malformed { field: FIELD })
    }

    /// Reads a list of addresses, of which there is at least one: the addresses that can be
    /// dialled. The others are left out, and counted.
    pub(super) fn dialable<const N: usize>(
        &mut self,
        field: &'static str,
        bound: &'static str,
    ) -> Result<Vec<&'b [u8], N, u8>, DecodeError> {
        let mut addrs: Vec<_, N, u8> = self.list(field, |r| r.addr(field))?;
        let told = addrs.len();
        if told == 0 {
            return Err(DecodeError::OutOfBounds { field, bound });
        }
        addrs.retain(|addr| can_be_dialled(addr));
        self.left_out += told - addrs.len();
        Ok(addrs)
    }

    /// How many addresses were left out because they cannot be dialled.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    /// Reads one address of a list. Its bytes are opaque.
    pub(super) fn addr(&mut self, list: &'static str) -> Result<&'b [u8], DecodeError> {
        const FIELD: &str = "address";
        let addr = self.bytes(list, usize::MAX)?;
        check_length(FIELD, addr.len(), MAX_ADDR_LEN)?;
        if addr.is_empty() {
            return Err(DecodeError::OutOfBounds {
                field: FIELD,
                bound: "1 to 64 bytes",
            });
        }
        Ok(addr)
    }

    /// Skips one well-formed value of definite length and any depth, with a constant amount of
    /// stack.
    pub(super) fn skip(&mut self, field: &'static str) -> Result<(), DecodeError> {
        let mut open = 1u64;
        while open > 0 {
            open -= 1;
            let inner = match self
                .decoder
                .datatype()
                .map_err(|error| cause(&error, field))?
            {
                Type::Array => definite(self.decoder.array(), field)?,
                Type::Map => definite(self.decoder.map(), field)?.saturating_mul(2),
                Type::Tag => {
                    self.decoder.tag().map_err(|error| cause(&error, field))?;
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
                    self.decoder.skip().map_err(|error| cause(&error, field))?;
                    0
                }
            };
            open = open.saturating_add(inner);
        }
        Ok(())
    }

    /// Skips a simple value. The two-byte form of a value below 32 is not well-formed (RFC 8949,
    /// 3.3).
    fn simple(&mut self, field: &'static str) -> Result<(), DecodeError> {
        let before = self.decoder.position();
        let value = self
            .decoder
            .simple()
            .map_err(|error| cause(&error, field))?;
        if self.decoder.position() - before == 2 && value < 32 {
            return Err(DecodeError::Malformed { field });
        }
        Ok(())
    }

    /// Refuses a value of indefinite length. minicbor reports "type mismatch" here, which is not
    /// the real cause.
    fn refuse_indefinite(&self, field: &'static str) -> Result<(), DecodeError> {
        match self.decoder.datatype() {
            Ok(Type::BytesIndef | Type::StringIndef) => Err(DecodeError::Indefinite { field }),
            _ => Ok(()),
        }
    }

    fn left(&self) -> usize {
        self.decoder
            .input()
            .len()
            .saturating_sub(self.decoder.position())
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

/// Adds an item to a list. There is room, because the count was checked.
fn push<T, const N: usize>(
    items: &mut Vec<T, N, u8>,
    item: T,
    field: &'static str,
) -> Result<(), DecodeError> {
    items.push(item).map_err(|_| DecodeError::TooMany {
        field,
        count: N as u64 + 1,
        limit: N,
    })
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

#[cfg(test)]
mod tests;
