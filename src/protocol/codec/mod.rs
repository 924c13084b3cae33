//! The codec: it converts between frames and the types of the protocol ([`specification`], version
//! 1.1), without std and without an allocator.
//!
//! Frames ([`frame`]), the two CBOR protocols ([`heartbeat`], [`directory`]), signed records
//! ([`record`], [`service`]), what a closed network signs ([`grant`], [`revocation`]), and the
//! envelopes of both ([`envelope`]). The definitions of the data are in `oc-discovery.cddl` beside
//! this file. Encoders write to the front of a buffer that the caller gives and return what they
//! have written; decoders borrow from the bytes that they are given.
//!
//! Invariants:
//! - Every decoder is total: any bytes give a value or an error that names the field. It needs a
//!   fixed amount of stack for any bytes.
//! - What a decoder accepts is well-formed, of definite length, without duplicate keys and without
//!   trailing bytes; unknown keys are skipped. Numbers are narrowed without wrapping, but not
//!   clamped: the rules clamp them.
//! - A message that an encoder writes has ascending keys, fits its frame, and is read back by its
//!   decoder.
//! - Addresses are opaque bytes of bounded length. The host leaves out those that it cannot dial.
//! - Text from a peer (reasons, tags, names) is any UTF-8. It must be escaped before it reaches a
//!   terminal.

use core::fmt;

use super::{MAX_NAME_LEN, Name, PeerId};

mod cbor;
pub mod directory;
pub mod envelope;
pub mod frame;
pub mod grant;
pub mod heartbeat;
pub mod link_service;
pub mod listing;
pub mod record;
pub mod revocation;
pub mod service;
pub mod watch;

/// `src/wire/PROTOCOL.md`, which comments cite as PROTOCOL.md.
///
#[doc = include_str!("../../wire/PROTOCOL.md")]
pub mod specification {}

/// The buffer has no room for the message. A buffer of the frame's limit has room for every message
/// with all parts within their bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer has no room for the message")
    }
}

impl core::error::Error for NoRoom {}

/// Why bytes are not a message of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end inside a value.
    Truncated,
    /// Bytes are left after the value.
    Trailing {
        /// The number of bytes.
        length: usize,
    },
    /// An item of indefinite length; the protocol has none.
    Indefinite {
        /// The field.
        field: &'static str,
    },
    /// Another CBOR type than the field has.
    WrongType {
        /// The field.
        field: &'static str,
    },
    /// Not well-formed CBOR.
    Malformed {
        /// The field.
        field: &'static str,
    },
    /// Text that is not UTF-8.
    NotUtf8 {
        /// The field.
        field: &'static str,
    },
    /// A key that is in one map twice.
    Duplicate {
        /// The map.
        field: &'static str,
    },
    /// A required key that is missing.
    Missing {
        /// The map.
        field: &'static str,
        /// The key.
        key: u64,
    },
    /// A code that version 1 does not have.
    UnknownCode {
        /// The field.
        field: &'static str,
        /// The code.
        code: u64,
    },
    /// More bytes than the field may have.
    TooLong {
        /// The field.
        field: &'static str,
        /// Bytes found.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// More items than the list may have.
    TooMany {
        /// The list.
        field: &'static str,
        /// Items announced.
        count: u64,
        /// Items allowed.
        limit: usize,
    },
    /// A value outside its bound.
    OutOfBounds {
        /// The field.
        field: &'static str,
        /// The bound.
        bound: &'static str,
    },
    /// Not the peer id of an Ed25519 key.
    NotEd25519 {
        /// The field.
        field: &'static str,
    },
    /// A beat or an acknowledgement that is not the next one on its stream.
    OutOfOrder {
        /// The message.
        field: &'static str,
        /// Its sequence.
        sequence: u64,
        /// The sequence that it must have.
        due: u64,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the message ends inside a value"),
            Self::Trailing { length } => write!(f, "{length} bytes are left after the message"),
            Self::Indefinite { field } => {
                write!(
                    f,
                    "{field}: has indefinite length, only definite length is allowed"
                )
            }
            Self::WrongType { field } => write!(f, "{field}: has the wrong CBOR type"),
            Self::Malformed { field } => write!(f, "{field}: is not well-formed CBOR"),
            Self::NotUtf8 { field } => write!(f, "{field}: is not UTF-8"),
            Self::Duplicate { field } => write!(f, "{field}: has a key twice"),
            Self::Missing { field, key } => write!(f, "{field}: the required key {key} is missing"),
            Self::UnknownCode { field, code } => write!(f, "{field}: the code {code} is unknown"),
            Self::TooLong {
                field,
                length,
                limit,
            } => {
                write!(
                    f,
                    "{field}: has {length} bytes, at most {limit} are allowed"
                )
            }
            Self::TooMany {
                field,
                count,
                limit,
            } => {
                write!(f, "{field}: has {count} items, at most {limit} are allowed")
            }
            Self::OutOfBounds { field, bound } => write!(f, "{field}: must be {bound}"),
            Self::NotEd25519 { field } => {
                write!(f, "{field}: is not the peer id of an Ed25519 key")
            }
            Self::OutOfOrder {
                field,
                sequence,
                due,
            } => write!(f, "{field}: has the sequence {sequence}, {due} is due"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// The text as a name; `None` unless it is 1 to [`MAX_NAME_LEN`] of `a-z 0-9 - .` (PROTOCOL.md).
pub fn to_name(text: &str) -> Option<Name> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    if text.is_empty() || text.len() > MAX_NAME_LEN || !text.bytes().all(allowed) {
        return None;
    }
    Name::try_from(text).ok()
}

/// The bytes before the key in the binary peer id of an Ed25519 key: an identity multihash of 36
/// bytes with the protobuf `PublicKey { type: Ed25519, data: 32 bytes }` (libp2p peer-ids
/// specification).
pub(crate) const ED25519_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
/// Bytes of the binary peer id of an Ed25519 key.
pub const PEER_ID_LEN: usize = ED25519_PREFIX.len() + 32;

/// The binary peer id, as it is sent.
pub fn peer_to_bytes(peer: &PeerId) -> [u8; PEER_ID_LEN] {
    let mut bytes = [0; PEER_ID_LEN];
    let (prefix, key) = bytes.split_at_mut(ED25519_PREFIX.len());
    prefix.copy_from_slice(&ED25519_PREFIX);
    key.copy_from_slice(peer.as_bytes());
    bytes
}

/// The peer of a binary peer id; `None` if the id is not that of an Ed25519 key.
pub fn peer_from_bytes(bytes: &[u8]) -> Option<PeerId> {
    let key = bytes.strip_prefix(&ED25519_PREFIX)?;
    Some(PeerId::from_bytes(key.try_into().ok()?))
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub(crate) mod fixtures;

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn names_have_one_to_63_of_the_allowed_characters() {
        assert_eq!(to_name("pump-3.hall").unwrap(), "pump-3.hall");
        assert!(to_name(&"a".repeat(63)).is_some());
        for bad in ["", "Pump", "a_b", "a b", "ä", &"a".repeat(64)] {
            assert_eq!(to_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn errors_name_field_value_and_bound() {
        let error = DecodeError::TooLong {
            field: "record",
            length: 1025,
            limit: 1024,
        };
        assert_eq!(
            error.to_string(),
            "record: has 1025 bytes, at most 1024 are allowed"
        );
    }
}
