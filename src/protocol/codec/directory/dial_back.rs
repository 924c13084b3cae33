//! The request to dial back, and its answer.

use minicbor::bytes::ByteSlice;

use super::{Message, NoRoom, Request, value_at_1, write};
use crate::protocol::{
    Addr, Reason,
    codec::{
        DecodeError,
        cbor::{CborReader, required},
    },
    dial_back::{DialedBack, Finding},
    reason_of,
};

/// Writes the request.
pub(super) fn encode_dial_back(port: u16, buffer: &mut [u8]) -> Result<&[u8], NoRoom> {
    let message = Message {
        code: 5,
        first: port,
        second: None::<u8>,
        third: None::<u8>,
        fourth: None::<u8>,
        fifth: None::<u8>,
        sixth: None::<u8>,
    };
    write(&message, buffer)
}

/// Decodes the request.
pub(super) fn decode_dial_back(bytes: &[u8]) -> Result<Request, DecodeError> {
    const FIELD: &str = "port to dial";
    let port = value_at_1("request", bytes, |r| r.uint(FIELD))?;
    match u16::try_from(port) {
        Ok(port @ 1..) => Ok(Request::DialBack { port }),
        _ => Err(DecodeError::OutOfBounds {
            field: FIELD,
            bound: "1 to 65535",
        }),
    }
}

/// Writes the answer.
pub(super) fn encode_dialed_back<'b>(
    answer: &DialedBack,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], NoRoom> {
    let (reason, addr) = (answer.reason.as_str(), answer.addr.as_slice());
    let message = Message {
        code: 5,
        first: answer.finding as u8,
        second: (!reason.is_empty()).then_some(reason),
        third: (!addr.is_empty()).then_some(<&ByteSlice>::from(addr)),
        fourth: None::<u8>,
        fifth: None::<u8>,
        sixth: None::<u8>,
    };
    write(&message, buffer)
}

/// Decodes the answer.
pub(super) fn decode_dialed_back(bytes: &[u8]) -> Result<DialedBack, DecodeError> {
    let (mut finding, mut reason, mut addr) = (None, Reason::new(), Addr::new());
    CborReader::whole(bytes, |r| {
        r.map("response", |r, key| {
            match key {
                1 => finding = Some(r.code("finding", Finding::of)?),
                2 => reason = reason_of(r.text("reason", usize::MAX)?),
                3 => addr = Addr::from_slice(r.addr("address dialled")?).unwrap_or_default(),
                _ => r.skip("response")?,
            }
            Ok(())
        })
    })?;
    Ok(DialedBack {
        finding: required(finding, "response", 1)?,
        reason,
        addr,
    })
}
