//! The format of the file `state`: a CBOR map with small integer keys.
//!
//! ```text
//! state = { 0: 1                  ; version of this format
//!           1: uint               ; no record with a sequence above this one was signed
//!           2: uint               ; highest time seen, ms since the Unix epoch
//!           3: [0*8 known]        ; natives
//!           4: [0*64 known]       ; indexers
//!         ? 5: uint               ; port that is listened on, 1 to 65535
//!         ? 6: tstr               ; role that the process had
//!         ? 7: [* lost] }         ; peers that left or were lost
//! known = [bstr, [0*4 bstr]]      ; peer id, multiaddresses (binary, at most 64 bytes each)
//! lost = [bstr, tstr, tstr, 1 / 2, uint] ; peer id, name, role, left or lost, when (ms since the
//!                                 ; Unix epoch, 0: not known)
//! ```
//!
//! Any bytes give a state within its bounds, or an error. Unknown keys are skipped, so that an
//! older program can read the file of a newer one with the same format version.

use minicbor::{Decoder, Encoder};

use super::state::{KnownPeer, State};
use crate::{
    config::Role,
    net::convert::{to_addr, to_multiaddr},
    protocol::{
        Addrs, MAX_ADDRS, Name, PeerId, Presence,
        capacities::{MAX_LOST, MAX_NATIVES},
        codec::{peer_from_bytes, peer_to_bytes},
        restart::{MAX_REMEMBERED, Saved, SavedLost},
    },
};

/// A longer file is damaged, because a full state has about 40 KiB, and at most 128 bytes for each
/// peer that left or was lost.
pub(super) const MAX_FILE_BYTES: u64 = 64 * 1024 + 128 * MAX_LOST as u64;
const VERSION: u64 = 1;

type EncodeError = minicbor::encode::Error<std::convert::Infallible>;
type DecodeError = minicbor::decode::Error;

pub(super) fn encode(saved: &Saved<State>) -> Result<Vec<u8>, EncodeError> {
    let state = &saved.state;
    let mut encoder = Encoder::new(Vec::new());
    let options = [
        state.port.is_some(),
        state.role.is_some(),
        !state.lost.is_empty(),
    ];
    encoder.map(5 + options.map(u64::from).iter().sum::<u64>())?;
    encoder.u8(0)?.u64(VERSION)?;
    encoder.u8(1)?.u64(saved.record_sequence)?;
    encoder.u8(2)?.u64(saved.highest_time_ms)?;
    encode_known(encoder.u8(3)?, &state.natives)?;
    encode_known(encoder.u8(4)?, &state.indexers)?;
    if let Some(port) = state.port {
        encoder.u8(5)?.u16(port)?;
    }
    if let Some(role) = state.role {
        encoder.u8(6)?.str(role.name())?;
    }
    if !state.lost.is_empty() {
        encode_lost(encoder.u8(7)?, &state.lost)?;
    }
    Ok(encoder.into_writer())
}

fn encode_known(encoder: &mut Encoder<Vec<u8>>, peers: &[KnownPeer]) -> Result<(), EncodeError> {
    encoder.array(peers.len() as u64)?;
    for (peer, addrs) in peers {
        encoder.array(2)?.bytes(&peer_to_bytes(peer))?;
        encoder.array(addrs.len() as u64)?;
        for addr in addrs {
            encoder.bytes(addr)?;
        }
    }
    Ok(())
}

fn encode_lost(encoder: &mut Encoder<Vec<u8>>, lost: &[SavedLost]) -> Result<(), EncodeError> {
    encoder.array(lost.len() as u64)?;
    for lost in lost {
        encoder.array(5)?.bytes(&peer_to_bytes(&lost.peer))?;
        encoder.str(&lost.name)?.str(lost.role.name())?;
        encoder.u8(lost.presence as u8)?.u64(lost.ended_ms)?;
    }
    Ok(())
}

pub(super) fn decode(bytes: &[u8]) -> Result<Saved<State>, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let mut saved = Saved::<State>::default();
    let state = &mut saved.state;
    let mut version = None;
    for _ in 0..definite(decoder.map()?)? {
        match decoder.u64()? {
            0 => version = Some(decoder.u64()?),
            1 => saved.record_sequence = decoder.u64()?,
            2 => saved.highest_time_ms = decoder.u64()?,
            3 => state.natives = decode_known(&mut decoder, MAX_NATIVES)?,
            4 => state.indexers = decode_known(&mut decoder, MAX_REMEMBERED)?,
            5 => state.port = Some(decoder.u16()?).filter(|port| *port != 0),
            6 => state.role = Role::named(decoder.str()?),
            7 => state.lost = decode_lost(&mut decoder)?.into(),
            _ => decoder.skip()?,
        }
    }
    if version != Some(VERSION) {
        return Err(DecodeError::message("not version 1 of the format"));
    }
    if decoder.position() != bytes.len() {
        return Err(DecodeError::message("something follows the state"));
    }
    Ok(saved)
}

fn decode_known(decoder: &mut Decoder<'_>, max: usize) -> Result<Vec<KnownPeer>, DecodeError> {
    let mut peers = Vec::new();
    for _ in 0..at_most(decoder.array()?, MAX_REMEMBERED)? {
        if definite(decoder.array()?)? != 2 {
            return Err(DecodeError::message("a known peer has two fields"));
        }
        let peer = decode_peer(decoder)?;
        let mut addrs = Addrs::new();
        for _ in 0..at_most(decoder.array()?, MAX_ADDRS)? {
            let addr = to_multiaddr(decoder.bytes()?).and_then(|addr| to_addr(&addr));
            // There are at most as many as fit.
            let _ = addrs.push(addr.map_err(DecodeError::message)?);
        }
        peers.push((peer, addrs));
    }
    // A build with larger tables may have written more.
    peers.truncate(max);
    Ok(peers)
}

fn decode_lost(decoder: &mut Decoder<'_>) -> Result<Vec<SavedLost>, DecodeError> {
    let mut all = Vec::new();
    for _ in 0..at_most(decoder.array()?, usize::from(u16::MAX))? {
        if definite(decoder.array()?)? != 5 {
            return Err(DecodeError::message("a lost peer has five fields"));
        }
        let peer = decode_peer(decoder)?;
        let name = Name::try_from(decoder.str()?);
        let role = Role::named(decoder.str()?);
        let presence = match decoder.u8()? {
            1 => Presence::Left,
            _ => Presence::Lost,
        };
        let wrong = || DecodeError::message("a lost peer has no name or role of this system");
        all.push(SavedLost {
            peer,
            name: name.map_err(|_| wrong())?,
            role: role.ok_or_else(wrong)?,
            presence,
            ended_ms: decoder.u64()?,
        });
    }
    // A build with a larger table may have written more.
    all.truncate(MAX_LOST);
    Ok(all)
}

fn decode_peer(decoder: &mut Decoder<'_>) -> Result<PeerId, DecodeError> {
    let peer = peer_from_bytes(decoder.bytes()?);
    peer.ok_or_else(|| DecodeError::message("a peer id is none of this system"))
}

fn definite(length: Option<u64>) -> Result<u64, DecodeError> {
    length.ok_or_else(|| DecodeError::message("a length is indefinite"))
}

fn at_most(length: Option<u64>, max: usize) -> Result<u64, DecodeError> {
    let length = definite(length)?;
    if length > max as u64 {
        return Err(DecodeError::message("a list is too long"));
    }
    Ok(length)
}

/// For `crate::fuzzing`: what was read is written, and read as the same again.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(saved) = decode(bytes) {
        let written = encode(&saved).unwrap_or_default();
        assert_eq!(decode(&written).ok(), Some(saved));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::state::tests::known;
    use super::*;
    use crate::{net::convert::to_addrs, protocol::MAX_ADDR_LEN};

    #[test]
    fn fullest_state_fits_into_the_bound_of_the_file() {
        let host = "x".repeat(MAX_ADDR_LEN - 6);
        let addr: libp2p::Multiaddr = format!("/dns4/{host}/tcp/1").parse().unwrap();
        assert!(addr.len() > MAX_ADDR_LEN - 4 && addr.len() <= MAX_ADDR_LEN);
        let full = |count| {
            let mut peers = known(count);
            let addrs = to_addrs(&vec![addr.clone(); MAX_ADDRS]);
            peers.iter_mut().for_each(|known| known.1 = addrs.clone());
            peers
        };
        let state = Saved {
            record_sequence: u64::MAX,
            highest_time_ms: u64::MAX,
            state: State {
                port: Some(u16::MAX),
                role: Some(Role::Indexer),
                natives: full(MAX_NATIVES),
                indexers: full(MAX_REMEMBERED),
                lost: vec![lost(u64::MAX); MAX_LOST].into(),
            },
        };
        let bytes = encode(&state).unwrap();
        assert!((bytes.len() as u64) < MAX_FILE_BYTES);
        assert_eq!(decode(&bytes).unwrap(), state);
    }

    fn lost(ended_ms: u64) -> SavedLost {
        SavedLost {
            peer: PeerId::from_bytes([7; 32]),
            name: Name::try_from("x".repeat(63).as_str()).unwrap(),
            role: Role::Indexer,
            presence: Presence::Left,
            ended_ms,
        }
    }

    #[test]
    fn state_of_a_program_that_knew_of_no_lost_peers_is_read() {
        // {0: 1, 1: 7, 2: 9, 3: [], 4: [], 5: 4001, 6: "node"}
        let old = b"\xa7\x00\x01\x01\x07\x02\x09\x03\x80\x04\x80\x05\x19\x0f\xa1\x06\x64node";
        let saved = decode(old).unwrap();
        assert_eq!(saved.state.port, Some(4001));
        assert_eq!(*saved.state.lost, []);
        assert_eq!(encode(&saved).unwrap(), old, "and nothing is added to it");
    }

    #[test]
    fn more_lost_peers_than_there_is_room_for_are_read_as_far_as_there_is_room() {
        let mut written = Saved::<State>::default();
        written.state.lost = vec![lost(1); MAX_LOST + 1].into();
        let read = decode(&encode(&written).unwrap()).unwrap();
        assert_eq!(read.state.lost.len(), MAX_LOST);
    }

    #[test]
    fn natives_that_a_build_with_room_for_more_wrote_are_read_as_far_as_there_is_room() {
        let natives = known(MAX_NATIVES + 1);
        let mut written = Saved::<State>::default();
        written.state.natives.clone_from(&natives);
        let bytes = encode(&written);
        let read = decode(&bytes.unwrap()).unwrap().state.natives;
        assert_eq!(read, natives[..MAX_NATIVES]);
    }

    #[test]
    fn unknown_keys_are_skipped() {
        let state = decode(&[0xa3, 0x00, 0x01, 0x18, 99, 0x81, 0x61, b'x', 0x01, 0x07]).unwrap();
        assert_eq!(state.record_sequence, 7);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_bounded_state_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let prefixed = [&[0xa5, 0x00, 0x01, 0x01, 0x05, 0x03][..], &bytes].concat();
            for bytes in [&bytes, &prefixed] {
                if let Ok(state) = decode(bytes) {
                    prop_assert!(state.state.natives.len() <= MAX_NATIVES);
                    prop_assert!(state.state.indexers.len() <= MAX_REMEMBERED);
                }
            }
        }
    }
}
