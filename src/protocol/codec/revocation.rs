//! The revocation list of a closed network: the payload of an envelope that the network's key signs
//! (PROTOCOL.md, section 8).
//!
//! Invariant: a decoded list has at most [`MAX_REVOKED`] peers. It may be longer than a stack
//! should hold twice, so it borrows from its bytes.

use minicbor::Encode;

use super::{
    DecodeError, NoRoom, PEER_ID_LEN,
    cbor::{CborReader, List, required, write},
};
use crate::protocol::PeerId;

/// The domain of a list's signature (RFC 0002 of libp2p).
pub const REVOCATION_DOMAIN: &str = "oc-discovery-revocation";
/// The payload type of a list's envelope.
pub const REVOCATION_PAYLOAD_TYPE: &[u8] = b"/oc/revocation/1";
/// Bytes of a list's envelope at most.
pub const MAX_REVOCATION_LEN: usize = 4000;
/// Peers in one list at most.
pub const MAX_REVOKED: usize = 96;

const FIELD: &str = "revocation list";
const PEERS: &str = "revoked peers";
const PEER: &str = "revoked peer";

/// The content of a revocation list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation<'a> {
    /// The list with the highest sequence counts.
    pub sequence: u64,
    /// Wall-clock time of the signature, ms since the Unix epoch.
    pub issued_at_ms: u64,
    /// The peers that do not belong to the network any more.
    pub peers: RevokedPeers<'a>,
}

/// The peers of a list, as they are in it. They were read once, and are read again when they are
/// needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevokedPeers<'a> {
    items: &'a [u8],
    count: usize,
}

impl<'a> RevokedPeers<'a> {
    /// How many they are.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The peers.
    pub fn iter(&self) -> impl Iterator<Item = PeerId> + use<'a> {
        let mut reader = CborReader::new(self.items);
        (0..self.count).map_while(move |_| reader.peer(PEER).ok())
    }

    fn read(r: &mut CborReader<'a>) -> Result<Self, DecodeError> {
        let read = r.raw_list(PEERS, MAX_REVOKED, |r| r.peer(PEER).map(|_| ()));
        read.map(|(items, count)| Self { items, count })
    }
}

#[derive(Encode)]
#[cbor(map)]
struct RevocationMap<P> {
    #[n(0)]
    sequence: u64,
    #[n(1)]
    issued_at_ms: u64,
    #[n(2)]
    peers: P,
}

/// Writes the payload of a list with these peers, at most [`MAX_REVOKED`], to `buffer`.
///
/// # Errors
/// See [`NoRoom`].
pub fn encode_revocation<'b>(
    sequence: u64,
    issued_at_ms: u64,
    peers: &[PeerId],
    buffer: &'b mut [u8],
) -> Result<&'b [u8], NoRoom> {
    debug_assert!(peers.len() <= MAX_REVOKED);
    let map = RevocationMap {
        sequence,
        issued_at_ms,
        peers: List(peers.iter()),
    };
    write(&map, buffer)
}

/// Bytes of the longest payload: the heads of map and list, three keys, two numbers, and the peers,
/// each with two bytes before it.
pub const MAX_REVOCATION_PAYLOAD: usize = 1 + 3 + 2 * 9 + 2 + MAX_REVOKED * (PEER_ID_LEN + 2);

/// Decodes the payload of a list. Its signer is not checked here.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_revocation(payload: &[u8]) -> Result<Revocation<'_>, DecodeError> {
    let (mut sequence, mut issued, mut peers) = (None, None, None);
    CborReader::whole(payload, |r| {
        r.map(FIELD, |r, key| {
            match key {
                0 => sequence = Some(r.uint("revocation list's sequence")?),
                1 => issued = Some(r.uint("revocation list's time of issue")?),
                2 => peers = Some(RevokedPeers::read(r)?),
                _ => r.skip(FIELD)?,
            }
            Ok(())
        })
    })?;
    Ok(Revocation {
        sequence: required(sequence, FIELD, 0)?,
        issued_at_ms: required(issued, FIELD, 1)?,
        peers: required(peers, FIELD, 2)?,
    })
}

#[cfg(test)]
mod tests;
