//! Why a record does not open, or cannot be signed.

use core::{fmt, time::Duration};

use super::{Flaw, MAX_TAG_BYTES, MAX_TAGS, MAX_TTL};
use crate::protocol::{MAX_ENVELOPE_LEN, MAX_NAME_LEN, codec::DecodeError, grants::Denial};

/// Why an envelope does not open.
#[derive(Debug, PartialEq, Eq)]
pub enum RecordError {
    /// More than [`MAX_ENVELOPE_LEN`] bytes.
    TooLong {
        /// Bytes found.
        length: usize,
    },
    /// It is no envelope that was signed for a record of its kind.
    Envelope(Flaw),
    /// The subject is not the signer.
    WrongSubject,
    /// The closed network has no such member.
    Denied(Denial),
    /// The payload is not a record.
    Payload(DecodeError),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length } => {
                write!(
                    f,
                    "signed record: has {length} bytes, at most {MAX_ENVELOPE_LEN} are allowed"
                )
            }
            Self::Envelope(flaw) => write!(f, "signed record: {flaw}"),
            Self::WrongSubject => f.write_str("signed record: its subject is not its signer"),
            Self::Denied(denial) => write!(f, "signed record: {denial}"),
            Self::Payload(error) => write!(f, "signed record: {error}"),
        }
    }
}

impl core::error::Error for RecordError {}

impl From<Flaw> for RecordError {
    fn from(flaw: Flaw) -> Self {
        Self::Envelope(flaw)
    }
}

impl From<DecodeError> for RecordError {
    fn from(error: DecodeError) -> Self {
        Self::Payload(error)
    }
}

/// Why a record cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// The key is not an Ed25519 key, or cannot sign.
    Key,
    /// None of the addresses can be in a record.
    NoAddress,
    /// The time to live is over [`MAX_TTL`].
    TimeToLive(Duration),
    /// The name is not valid.
    Name,
    /// Too many tags.
    TooManyTags(usize),
    /// Too many bytes in the tags.
    TagsTooLong(usize),
    /// A tag that is given twice.
    TagTwice,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("the identity is not an Ed25519 key that can sign"),
            Self::NoAddress => {
                f.write_str("no address can be announced: none has 1 to 64 bytes without /p2p")
            }
            Self::TimeToLive(ttl) => {
                write!(
                    f,
                    "the time to live of {ttl:?} is over the {MAX_TTL:?} allowed"
                )
            }
            Self::Name => {
                write!(f, "the name must have 1 to {MAX_NAME_LEN} of a-z 0-9 - .")
            }
            Self::TooManyTags(count) => {
                write!(f, "{count} tags were given, at most {MAX_TAGS} are allowed")
            }
            Self::TagsTooLong(length) => {
                write!(
                    f,
                    "the tags have {length} bytes in all, at most {MAX_TAG_BYTES} are allowed"
                )
            }
            Self::TagTwice => f.write_str("a tag is given twice"),
        }
    }
}

impl core::error::Error for SignError {}
