//! The record in an envelope that was verified before.

use super::{Kind, Purpose, Record, decode_record};
use crate::protocol::codec::grant::decode_grant;

/// The record in this envelope. The signature is not verified, and neither is its subject compared
/// with its signer: this is for envelopes that [`open`](super::open) has opened before. `None` if
/// there is no record of this kind in it.
pub fn contents(kind: Kind, envelope: &[u8]) -> Option<Record<'_>> {
    decode_record(kind, payload(Purpose::Record(kind), envelope)?).ok()
}

/// Whether the grant in this envelope, which was verified before, has the name.
pub fn has_by_grant(envelope: &[u8], name: &str) -> bool {
    let grant = payload(Purpose::Grant, envelope).and_then(|payload| decode_grant(payload).ok());
    grant.is_some_and(|grant| grant.has(name))
}

fn payload(purpose: Purpose, envelope: &[u8]) -> Option<&[u8]> {
    let (mut payload_type, mut payload) = (None, None);
    let mut rest = envelope;
    while !rest.is_empty() {
        // The envelope of RFC 0002 has only fields of bytes.
        let (tag, after) = varint(rest)?;
        let (length, after) = varint(after)?;
        let (bytes, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        match tag {
            0x12 => payload_type = Some(bytes),
            0x1a => payload = Some(bytes),
            tag if tag & 7 == 2 => {}
            _ => return None,
        }
        rest = after;
    }
    payload.filter(|_| payload_type == Some(purpose.payload_type()))
}

/// The number at the start of the bytes, and the bytes after it. Nothing in an envelope is longer
/// than three bytes of a varint can say.
fn varint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(3).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}
