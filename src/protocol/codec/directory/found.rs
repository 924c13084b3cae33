//! The answer to a lookup by name or id: signed records, and what the server knows of them.

use minicbor::{CborLen, Encode};

use super::{Ages, Envelopes, Message, Response, decode_list};
use crate::protocol::{
    Count, MAX_ENVELOPE_LEN, Tally,
    codec::{
        DecodeError,
        cbor::{CborReader, List, byte_strings},
    },
};

/// The map of [`Response::Records`].
pub(super) fn found<'m>(
    records: &'m [&'m [u8]],
    more: bool,
    (tally, claimants): (Option<Tally>, Option<Count>),
    [ages, claims]: [&'m [u32]; 2],
) -> impl Encode<()> + CborLen<()> + 'm {
    Message {
        code: 1,
        first: byte_strings(records),
        second: Some(more),
        third: tally.map(|tally| (tally.asked, tally.answered)),
        fourth: (!ages.is_empty()).then_some(List(ages.iter())),
        fifth: claimants.map(|Count { nodes, are_all }| match are_all {
            true => (nodes, nodes),
            false => (nodes, u32::MAX),
        }),
        sixth: (!claims.is_empty()).then_some(List(claims.iter())),
    }
}

/// Decodes it.
pub(super) fn decode_found(bytes: &[u8]) -> Result<Response<'_>, DecodeError> {
    let (mut records, mut ages, mut claims) = (Envelopes::new(), Ages::new(), Ages::new());
    let (mut more, mut tally, mut claimants) = (None, None, None);
    decode_list(
        bytes,
        |r| {
            r.list_into(&mut records, "signed records", |r| {
                r.bytes("signed record", MAX_ENVELOPE_LEN)
            })
        },
        |r, key| {
            match key {
                2 => more = Some(r.boolean("response's more flag")?),
                3 => tally = Some(read_tally(r)?),
                4 => ages = r.list("ages of records", |r| r.count("age of a record"))?,
                5 => claimants = Some(read_count(r)?),
                6 => claims = r.list("ages of claims", |r| r.count("age of a claim"))?,
                _ => r.skip("response")?,
            }
            Ok(())
        },
    )?;
    for ages in [&mut ages, &mut claims] {
        if ages.len() != records.len() {
            // It is not known which age belongs to which record.
            ages.clear();
        }
    }
    Ok(Response::Records {
        records,
        more: more.unwrap_or(false),
        tally,
        ages,
        claimants,
        claims,
    })
}

fn read_tally(r: &mut CborReader<'_>) -> Result<Tally, DecodeError> {
    let (asked, answered) = read_pair("servers asked", r)?;
    Ok(Tally { asked, answered })
}

fn read_count(r: &mut CborReader<'_>) -> Result<Count, DecodeError> {
    let (nodes, most) = read_pair("nodes that claim the name", r)?;
    Ok(Count {
        nodes,
        are_all: most <= nodes,
    })
}

fn read_pair(field: &'static str, r: &mut CborReader<'_>) -> Result<(u32, u32), DecodeError> {
    let counts = r.list::<u32, 2>(field, |r| r.count(field))?;
    match counts.as_slice() {
        &[first, second] => Ok((first, second)),
        _ => Err(DecodeError::OutOfBounds {
            field,
            bound: "two counts",
        }),
    }
}
