//! Signed envelopes (RFC 0002 of libp2p), which the host opens: what they are signed for, and what
//! may be wrong with them.
//!
//! Invariant: what opens was signed by the peer that is returned with it, for this purpose and no
//! other.

use core::fmt;

use super::{
    grant::{GRANT_DOMAIN, GRANT_PAYLOAD_TYPE},
    record::{Kind, Record},
    revocation::{REVOCATION_DOMAIN, REVOCATION_PAYLOAD_TYPE},
};
use crate::protocol::{PeerId, grants::Denial};

/// What an envelope is signed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A record, by its subject.
    Record(Kind),
    /// A grant, by the key of a closed network.
    Grant,
    /// A revocation list, by the same key.
    Revocations,
}

impl Purpose {
    /// The domain that the signature is for.
    pub const fn domain(self) -> &'static str {
        match self {
            Self::Record(kind) => kind.domain(),
            Self::Grant => GRANT_DOMAIN,
            Self::Revocations => REVOCATION_DOMAIN,
        }
    }

    /// The payload type in the envelope.
    pub const fn payload_type(self) -> &'static [u8] {
        match self {
            Self::Record(kind) => kind.payload_type(),
            Self::Grant => GRANT_PAYLOAD_TYPE,
            Self::Revocations => REVOCATION_PAYLOAD_TYPE,
        }
    }

    /// The kind of the record; `None` if it is none.
    pub const fn kind(self) -> Option<Kind> {
        match self {
            Self::Record(kind) => Some(kind),
            Self::Grant | Self::Revocations => None,
        }
    }
}

/// Why bytes are no envelope that was signed for its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Not a signed envelope.
    NotAnEnvelope,
    /// An envelope of another payload type.
    WrongType,
    /// The signature does not verify for the domain.
    BadSignature,
    /// The key is not an Ed25519 key.
    NotEd25519,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnEnvelope => "it is not a signed envelope",
            Self::WrongType => "something else was signed",
            Self::BadSignature => "its signature does not verify",
            Self::NotEd25519 => "its key is not an Ed25519 key",
        })
    }
}

impl core::error::Error for Flaw {}

/// Opens envelopes, with the host's cryptography.
pub trait Verifier {
    /// The payload of the envelope and the peer that signed it, for this purpose.
    ///
    /// # Errors
    /// See [`Flaw`].
    fn open(&self, purpose: Purpose, envelope: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), Flaw>;

    /// Takes note that a record had so many addresses, at most 8, that cannot be dialled. They are
    /// left out.
    fn left_out(&self, _addresses: usize) {}

    /// Whether an authentic record counts here. Every one does in an open network.
    ///
    /// # Errors
    /// Why the network has no such member.
    fn admit(&self, _kind: Kind, _record: &Record<'_>) -> Result<(), Denial> {
        Ok(())
    }
}
