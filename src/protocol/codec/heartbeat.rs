//! `/oc/heartbeat/1.0.0`: beats and their acknowledgements (PROTOCOL.md).
//!
//! Invariant: a decoded beat or ack has the form that PROTOCOL.md states, with every list, text and
//! record within its bound. Its meaning is not checked here. The layers above check whether role 2
//! and the known ids count, and whether the record is the sender's. They know which sequence is due
//! ([`Beat::in_order`], [`WireAck::cause`]).

use minicbor::{CborLen, Encode, bytes::ByteSlice};

use super::{
    DecodeError, NoRoom,
    cbor::{CborReader, List, fitting, length, millis, required, write},
    frame::MAX_FRAME,
    grant::{MAX_GRANT_LEN, Membership},
    record::{Kind, RecordError, Verifier},
};
use crate::protocol::{
    Ack, AckBuf, AckCode, Beat, Load, MAX_ENVELOPE_LEN, MAX_REASON_LEN, Offers, OutBeat, PeerId,
    PeerList, Publisher, Reason, Role, SignedRecord,
};

/// The server's wall clock, as it reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallReading {
    /// ms since the Unix epoch.
    pub ms: u64,
    /// Whether the clock is synchronised.
    pub synchronised: bool,
}

/// The last beat that was sent on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastBeat {
    /// Its sequence.
    pub sequence: u64,
    /// Whether it was not answered yet.
    pub is_awaited: bool,
}

/// Why an ack was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckCause {
    /// It answers the last beat.
    Beat,
    /// The server releases the lease without having been asked.
    Unsolicited,
}

/// A beat as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireBeat<'a> {
    /// What it says of the lease. Its record is not verified.
    pub beat: Beat<&'a [u8]>,
    /// What it says of the sender's membership in a closed network. Its grant is not verified.
    pub membership: Membership<'a>,
}

/// An acknowledgement as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireAck<'a> {
    /// The sequence answered; in an unsolicited ack, the last sequence received.
    pub sequence: u64,
    /// The verdict. Its times are not clamped.
    pub ack: AckBuf,
    /// The server's clock, if it reports one.
    pub clock: Option<WallReading>,
    /// What it says of the server's membership in a closed network. Its grant is not verified.
    pub membership: Membership<'a>,
    /// Addresses in its offers that cannot be dialled, at most 64. They are left out.
    pub left_out: usize,
}

impl WireAck<'_> {
    /// Why it was sent on a stream with this last beat. If that is no longer awaited, or with an
    /// earlier sequence, an ack can only be an unsolicited `released`.
    ///
    /// # Errors
    /// It is neither; its stream must be dropped.
    pub fn cause(&self, last: LastBeat) -> Result<AckCause, DecodeError> {
        if last.is_awaited && self.sequence == last.sequence {
            return Ok(AckCause::Beat);
        }
        if self.ack.code == AckCode::Released && self.sequence <= last.sequence {
            return Ok(AckCause::Unsolicited);
        }
        Err(DecodeError::OutOfOrder {
            field: "acknowledgement",
            sequence: self.sequence,
            due: last.sequence,
        })
    }
}

#[derive(Encode)]
#[cbor(map)]
struct BeatMap<'a, K> {
    #[n(0)]
    sequence: u64,
    #[n(1)]
    role: u8,
    #[n(2)]
    lease: u64,
    #[n(3)]
    record: Option<&'a ByteSlice>,
    #[n(4)]
    load: Option<(u32, u32)>,
    #[n(5)]
    known: Option<K>,
    #[n(6)]
    grant: Option<&'a ByteSlice>,
    #[n(7)]
    revocations: Option<u64>,
    #[n(8)]
    publish: Option<bool>,
}

/// Writes a beat with these `known` ids to `buffer`. The own `record`, which has at most
/// [`MAX_ENVELOPE_LEN`] bytes, is in it only if `beat.with_record` says so, and the own grant only
/// if it is the first one of its stream.
///
/// # Errors
/// See [`NoRoom`].
pub fn encode_beat<'b>(
    sequence: u64,
    beat: &OutBeat,
    record: Option<&[u8]>,
    known: &[PeerId],
    membership: Membership<'_>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], NoRoom> {
    let record = record.filter(|_| beat.with_record);
    let grant = membership.grant.filter(|_| sequence == 0);
    debug_assert!(record.is_none_or(|record| record.len() <= MAX_ENVELOPE_LEN));
    let map = BeatMap {
        sequence,
        role: role_code(beat.role),
        lease: millis(beat.lease),
        record: record.map(Into::into),
        load: beat.load.map(|load| (load.held, load.possible)),
        known: (!known.is_empty()).then(|| List(known.iter())),
        grant: grant.map(Into::into),
        revocations: membership.revocations,
        publish: (beat.publisher == Publisher::Another).then_some(false),
    };
    write(&map, buffer)
}

/// Decodes a beat.
///
/// # Errors
/// See [`DecodeError`]; the stream it came on is to be closed.
pub fn decode_beat(bytes: &[u8]) -> Result<WireBeat<'_>, DecodeError> {
    const FIELD: &str = "beat";
    let (mut sequence, mut role, mut lease) = (None, None, None);
    let (mut record, mut load, mut known) = (None, None, PeerList::new());
    let (mut publisher, mut membership) = (Publisher::Receiver, Membership::OPEN);
    CborReader::whole(bytes, |r| {
        r.map(FIELD, |r, key| {
            match key {
                0 => sequence = Some(r.uint("beat's sequence")?),
                1 => role = Some(r.code("role", role_of)?),
                2 => lease = Some(r.millis("lease asked for")?),
                3 => record = Some(r.bytes("signed record", MAX_ENVELOPE_LEN)?),
                4 => load = Some(read_load(r)?),
                5 => known = r.list("known ids", |r| r.peer("known id"))?,
                6 => membership.grant = Some(read_grant(r)?),
                7 => membership.revocations = Some(read_revocations(r)?),
                8 => {
                    publisher = match r.boolean("whether to publish")? {
                        true => Publisher::Receiver,
                        false => Publisher::Another,
                    }
                }
                _ => r.skip(FIELD)?,
            }
            Ok(())
        })
    })?;
    Ok(WireBeat {
        beat: Beat {
            sequence: required(sequence, FIELD, 0)?,
            role: required(role, FIELD, 1)?,
            lease: required(lease, FIELD, 2)?,
            record,
            load,
            known,
            publisher,
        },
        membership,
    })
}

impl<'a> Beat<&'a [u8]> {
    /// The beat, if it is the one with the sequence `due`.
    ///
    /// # Errors
    /// It is another one; its stream must be closed.
    pub fn in_order(self, due: u64) -> Result<Self, DecodeError> {
        match self.sequence == due {
            true => Ok(self),
            false => Err(DecodeError::OutOfOrder {
                field: "beat",
                sequence: self.sequence,
                due,
            }),
        }
    }

    /// Opens its record. The kind of the record follows from the sender's role. A native has no
    /// record, so one that it sends is ignored.
    ///
    /// # Errors
    /// See [`RecordError`]; the stream of the beat must be closed.
    pub fn open(self, verifier: &impl Verifier) -> Result<Beat<SignedRecord<'a>>, RecordError> {
        let record = match self.record {
            Some(envelope) if self.role != Role::Native => {
                Some(SignedRecord::open(verifier, Kind::of(self.role), envelope)?)
            }
            _ => None,
        };
        Ok(Beat {
            record,
            sequence: self.sequence,
            role: self.role,
            lease: self.lease,
            publisher: self.publisher,
            load: self.load,
            known: self.known,
        })
    }
}

#[derive(Encode, CborLen)]
#[cbor(map)]
struct AckMap<'a, O, K> {
    #[n(0)]
    sequence: u64,
    #[n(1)]
    code: u8,
    #[n(2)]
    lease: u64,
    #[n(3)]
    offers: Option<O>,
    #[n(4)]
    reason: Option<&'a str>,
    #[n(5)]
    clock_ms: Option<u64>,
    #[n(6)]
    synchronised: Option<bool>,
    #[n(7)]
    known: Option<K>,
    #[n(8)]
    grant: Option<&'a ByteSlice>,
    #[n(9)]
    revocations: Option<u64>,
}

/// Writes an acknowledgement to `buffer`, with as many offers as fit the buffer and a frame. The
/// own grant is in it only if it answers the first beat of its stream.
///
/// # Errors
/// See [`NoRoom`].
pub fn encode_ack<'b>(
    sequence: u64,
    ack: &Ack<'_>,
    clock: Option<WallReading>,
    membership: Membership<'_>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], NoRoom> {
    let mut map = AckMap {
        sequence,
        code: ack_code(ack.code),
        lease: millis(ack.lease),
        offers: None,
        reason: (!ack.reason.is_empty()).then_some(ack.reason.as_str()),
        clock_ms: clock.map(|clock| clock.ms),
        synchronised: clock.map(|clock| clock.synchronised),
        known: (!ack.known.is_empty()).then(|| List(ack.known.iter())),
        grant: membership.grant.filter(|_| sequence == 0).map(Into::into),
        revocations: membership.revocations,
    };
    if !ack.offers.is_empty() {
        // The key of the offers takes one byte.
        let rest = length(&map) + 1;
        let room = buffer.len().min(MAX_FRAME).saturating_sub(rest);
        let count = fitting(room, ack.offers.iter());
        map.offers = (count > 0).then(|| List(ack.offers.iter().take(count)));
    }
    write(&map, buffer)
}

/// Decodes an acknowledgement. Key 6 (synchronised) has no meaning without a wall clock (key 5). A
/// clock without key 6 is not synchronised.
///
/// # Errors
/// See [`DecodeError`]; the stream it came on is to be closed.
pub fn decode_ack(bytes: &[u8]) -> Result<WireAck<'_>, DecodeError> {
    const FIELD: &str = "acknowledgement";
    let (mut sequence, mut code, mut lease) = (None, None, None);
    let (mut offers, mut reason, mut left_out) = (Offers::new(), Reason::new(), 0);
    let (mut wall, mut synchronised) = (None, false);
    let (mut known, mut membership) = (PeerList::new(), Membership::OPEN);
    CborReader::whole(bytes, |r| {
        r.map(FIELD, |r, key| {
            match key {
                0 => sequence = Some(r.uint("acknowledgement's sequence")?),
                1 => code = Some(r.code("verdict", ack_code_of)?),
                2 => lease = Some(r.millis("lease granted")?),
                3 => r.offers_into(&mut offers)?,
                4 => reason = read_reason(r)?,
                5 => wall = Some(r.uint("wall clock")?),
                6 => synchronised = r.boolean("synchronised")?,
                7 => known = r.list("known ids", |r| r.peer("known id"))?,
                8 => membership.grant = Some(read_grant(r)?),
                9 => membership.revocations = Some(read_revocations(r)?),
                _ => r.skip(FIELD)?,
            }
            Ok(())
        })?;
        left_out = r.left_out();
        Ok(())
    })?;
    Ok(WireAck {
        sequence: required(sequence, FIELD, 0)?,
        ack: AckBuf {
            code: required(code, FIELD, 1)?,
            lease: required(lease, FIELD, 2)?,
            offers,
            reason,
            known,
        },
        clock: wall.map(|ms| WallReading { ms, synchronised }),
        membership,
        left_out,
    })
}

fn read_grant<'b>(r: &mut CborReader<'b>) -> Result<&'b [u8], DecodeError> {
    r.bytes("grant", MAX_GRANT_LEN)
}

fn read_revocations(r: &mut CborReader<'_>) -> Result<u64, DecodeError> {
    r.uint("revocation list's sequence")
}

fn read_load(r: &mut CborReader<'_>) -> Result<Load, DecodeError> {
    const FIELD: &str = "load";
    let counts = r.list::<u32, 2>(FIELD, |r| r.count(FIELD))?;
    match counts.as_slice() {
        &[held, possible] => Ok(Load { held, possible }),
        _ => Err(DecodeError::OutOfBounds {
            field: FIELD,
            bound: "two counts",
        }),
    }
}

fn read_reason(r: &mut CborReader<'_>) -> Result<Reason, DecodeError> {
    const FIELD: &str = "reason";
    let text = r.text(FIELD, MAX_REASON_LEN)?;
    Reason::try_from(text).map_err(|_| DecodeError::Malformed { field: FIELD })
}

fn role_code(role: Role) -> u8 {
    match role {
        Role::Node => 0,
        Role::Indexer => 1,
        Role::Native => 2,
    }
}

fn role_of(code: u64) -> Option<Role> {
    let roles = [Role::Node, Role::Indexer, Role::Native];
    roles.get(usize::try_from(code).ok()?).copied()
}

fn ack_code(code: AckCode) -> u8 {
    match code {
        AckCode::Accepted => 0,
        AckCode::Released => 1,
        AckCode::Full => 2,
        AckCode::Refused => 3,
    }
}

fn ack_code_of(code: u64) -> Option<AckCode> {
    use AckCode::{Accepted, Full, Refused, Released};
    let codes = [Accepted, Released, Full, Refused];
    codes.get(usize::try_from(code).ok()?).copied()
}

#[cfg(test)]
mod tests;
