//! Envelopes that the key of a closed network signs: grants and revocation lists (PROTOCOL.md,
//! section 8).
//!
//! Invariant: what opens here is authentic, signed by the network that is returned with it. Whether
//! that is the expected network is for the caller to compare.

use std::fmt;

use libp2p::identity::Keypair;

use super::envelope::{Libp2p, seal};
use crate::protocol::{
    PeerId,
    codec::{
        DecodeError,
        envelope::{Flaw, Purpose, Verifier},
        grant::{Grant, MAX_GRANT_LEN, decode_grant, encode_grant},
        revocation::{
            MAX_REVOCATION_LEN, MAX_REVOCATION_PAYLOAD, Revocation, decode_revocation,
            encode_revocation,
        },
    },
};

/// Why an envelope is none of a closed network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// It has more bytes than its kind may have.
    TooLong {
        /// Bytes found.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// It is no envelope that was signed for its purpose.
    Envelope(Flaw),
    /// What was signed has another form.
    Payload(DecodeError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length, limit } => {
                write!(f, "it has {length} bytes, at most {limit} are allowed")
            }
            Self::Envelope(flaw) => flaw.fmt(f),
            Self::Payload(error) => error.fmt(f),
        }
    }
}

/// Why nothing is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SealError {
    /// The key cannot sign.
    Key,
    /// The envelope would have more bytes than its kind may have.
    TooLong {
        /// Bytes of the envelope.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// Signs a grant with the network's key. Returns its envelope.
///
/// # Errors
/// See [`SealError`].
pub(crate) fn sign_grant(key: &Keypair, grant: &Grant<'_>) -> Result<Vec<u8>, SealError> {
    let limit = MAX_GRANT_LEN;
    // Four names of the greatest length fit it.
    let mut buffer = [0; 2 * MAX_GRANT_LEN];
    let length = buffer.len();
    let payload =
        encode_grant(grant, &mut buffer).map_err(|_| SealError::TooLong { length, limit })?;
    sealed(key, Purpose::Grant, payload, limit)
}

/// Opens a grant, and gives it to `read` with the network that signed it.
///
/// # Errors
/// See [`OpenError`].
pub(crate) fn open_grant<T>(
    envelope: &[u8],
    read: impl FnOnce(PeerId, &Grant<'_>) -> T,
) -> Result<T, OpenError> {
    within(envelope, MAX_GRANT_LEN)?;
    let opened = Libp2p.open(Purpose::Grant, envelope);
    let (network, payload) = opened.map_err(OpenError::Envelope)?;
    let grant = decode_grant(payload.as_ref()).map_err(OpenError::Payload)?;
    Ok(read(network, &grant))
}

/// Signs a revocation list of these peers with the network's key. Returns its envelope.
///
/// # Errors
/// See [`SealError`].
pub(crate) fn sign_revocation(
    key: &Keypair,
    sequence: u64,
    issued_at_ms: u64,
    peers: &[PeerId],
) -> Result<Vec<u8>, SealError> {
    let limit = MAX_REVOCATION_LEN;
    let mut buffer = [0; MAX_REVOCATION_PAYLOAD];
    let length = buffer.len();
    let payload = encode_revocation(sequence, issued_at_ms, peers, &mut buffer);
    let payload = payload.map_err(|_| SealError::TooLong { length, limit })?;
    sealed(key, Purpose::Revocations, payload, limit)
}

/// Opens a revocation list, and gives it to `read` with the network that signed it.
///
/// # Errors
/// See [`OpenError`].
pub(crate) fn open_revocation<T>(
    envelope: &[u8],
    read: impl FnOnce(PeerId, &Revocation<'_>) -> T,
) -> Result<T, OpenError> {
    within(envelope, MAX_REVOCATION_LEN)?;
    let opened = Libp2p.open(Purpose::Revocations, envelope);
    let (network, payload) = opened.map_err(OpenError::Envelope)?;
    let list = decode_revocation(payload.as_ref()).map_err(OpenError::Payload)?;
    Ok(read(network, &list))
}

fn sealed(
    key: &Keypair,
    purpose: Purpose,
    payload: &[u8],
    limit: usize,
) -> Result<Vec<u8>, SealError> {
    let envelope = seal(key, purpose, payload).map_err(|_| SealError::Key)?;
    match envelope.len() {
        length if length > limit => Err(SealError::TooLong { length, limit }),
        _ => Ok(envelope),
    }
}

fn within(envelope: &[u8], limit: usize) -> Result<(), OpenError> {
    match envelope.len() {
        length if length > limit => Err(OpenError::TooLong { length, limit }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
