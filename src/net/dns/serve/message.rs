//! Queries and answers of a server (RFC 1035, EDNS0 of RFC 6891): bytes in, bytes out, no I/O.
//!
//! Invariants: no query can make this module panic; an answer repeats the question as it was
//! written, or has a header alone if there is not exactly one that can be repeated byte by byte; it
//! is at most as long as its transport and the client allow; one that does not fit says so and has
//! no records.

use domain::base::{
    Message, MessageBuilder, Rtype, StaticCompressor,
    iana::{Class, Opcode, OptRcode},
    message_builder::PushError,
    wire::Composer,
};
use domain::dep::octseq::{OctetsBuilder, ShortBuf, Truncate};

use super::super::message::{self, push};

/// Bytes of a query at most. A name has 255, and options of EDNS0 take little.
pub(crate) const MAX_QUERY: usize = MAX_UDP;
/// Bytes of an answer in one datagram at most.
pub(crate) const MAX_UDP: usize = message::MAX_UDP as usize;
/// The same for a client that does not say that it takes more. Every error fits.
pub(crate) const PLAIN_UDP: usize = 512;
/// Bytes of an answer over TCP at most.
pub(crate) const MAX_TCP: usize = message::MAX_TCP;
const HEADER_LEN: usize = 12;
/// Bytes of the record that says what EDNS0 this server has.
const OPT_LEN: usize = 11;

/// A question in class IN.
pub(crate) struct DnsQuery<'a> {
    /// The labels of its name, as they were written, without the root's.
    pub(crate) labels: Vec<&'a [u8]>,
    /// The type of record.
    pub(crate) rtype: Rtype,
    /// Bytes that an answer in one datagram may have.
    pub(crate) udp: usize,
}

/// Reads a query.
///
/// # Errors
/// The code of the answer, if it can only be answered with an error; `None`: not answered at all.
pub(crate) fn read(bytes: &[u8]) -> Result<DnsQuery<'_>, Option<OptRcode>> {
    let message = Message::from_slice(bytes).map_err(|_| None)?;
    let header = message.header();
    if header.qr() {
        return Err(None);
    }
    if header.opcode() != Opcode::QUERY {
        return Err(Some(OptRcode::NOTIMP));
    }
    let question = message
        .sole_question()
        .map_err(|_| Some(OptRcode::FORMERR))?;
    let udp = match message.opt() {
        Some(opt) if opt.version() != 0 => return Err(Some(OptRcode::BADVERS)),
        Some(opt) => usize::from(opt.udp_payload_size()).clamp(PLAIN_UDP, MAX_UDP),
        None => PLAIN_UDP,
    };
    if question.qclass() != Class::IN {
        return Err(Some(OptRcode::REFUSED));
    }
    let name = name_of(bytes).ok_or(Some(OptRcode::FORMERR))?;
    Ok(DnsQuery {
        labels: labels(name).collect(),
        rtype: question.qtype(),
        udp,
    })
}

/// The wire form of the first question's name; `None` if it is compressed, which is an error,
/// because there is no name before it.
fn name_of(bytes: &[u8]) -> Option<&[u8]> {
    let name = bytes.get(HEADER_LEN..)?;
    let mut at = 0;
    loop {
        match usize::from(*name.get(at)?) {
            0 => return name.get(..=at),
            len if len < 64 => at += 1 + len,
            _ => return None,
        }
    }
}

/// The labels of a name in wire form, without the root's.
fn labels(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first()?;
        let (label, after) = after.split_at_checked(usize::from(*len))?;
        rest = after;
        (!label.is_empty()).then_some(label)
    })
}

/// A record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The wire form of its owner's name; `None`: the name asked for.
    pub(crate) owner: Option<Vec<u8>>,
    /// Its type.
    pub(crate) rtype: Rtype,
    /// Its data, names in it uncompressed.
    pub(crate) data: Vec<u8>,
}

/// What an answer has after its question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sections {
    /// The code of the answer.
    pub(crate) rcode: OptRcode,
    /// How long its records are valid, in seconds.
    pub(crate) ttl: u32,
    /// The records asked for.
    pub(crate) answer: Vec<Record>,
    /// The authority for the answer that there are no records.
    pub(crate) authority: Vec<Record>,
    /// Records that will be asked for next; those that fit.
    pub(crate) additional: Vec<Record>,
}

impl Sections {
    /// An answer without records.
    pub(crate) fn bare(rcode: OptRcode) -> Self {
        Self {
            rcode,
            ttl: 0,
            answer: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
        }
    }
}

/// Writes the answer to `query` with at most `limit` bytes; `None` if this is no query.
pub(crate) fn write(query: &[u8], sections: &Sections, limit: usize) -> Option<Vec<u8>> {
    let message = Message::from_slice(query).ok()?;
    if let (Ok(_), Some(asked)) = (message.sole_question(), name_of(query)) {
        return build(message, asked, sections, limit).ok();
    }
    // Many questions, or compressed ones, would make the answer much longer than the query.
    let mut header = [0; HEADER_LEN];
    header.get_mut(..4)?.copy_from_slice(query.get(..4)?);
    build(Message::from_slice(&header).ok()?, &[0], sections, limit).ok()
}

/// All records are pushed as those of the answer section, so that there is one copy of that code;
/// the counts are put right at the end.
fn build(
    query: &Message<[u8]>,
    asked: &[u8],
    all: &Sections,
    limit: usize,
) -> Result<Vec<u8>, PushError> {
    let has_edns = query.opt().is_some();
    let target = StaticCompressor::new(Bytes(Vec::with_capacity(PLAIN_UDP)));
    let message = MessageBuilder::from_target(target).map_err(|_| PushError::ShortBuf)?;
    let mut message = message.start_error(query, all.rcode.rcode());
    let is_ours = matches!(all.rcode, OptRcode::NOERROR | OptRcode::NXDOMAIN);
    message.header_mut().set_aa(is_ours);
    // The push limit is the first length that is too long.
    let end = (limit + 1).saturating_sub(if has_edns { OPT_LEN } else { 0 });
    message.set_push_limit(end);
    let mut add = |record: &Record| {
        let owner = record.owner.as_deref().unwrap_or(asked);
        push(
            &mut message,
            owner,
            (record.rtype, Class::IN, all.ttl),
            &record.data,
        )
    };
    let mut counts = [0_u16; 3];
    let mut needed = all.answer.iter().chain(&all.authority);
    let needed = needed.try_for_each(&mut add);
    if needed.is_ok() {
        let fits = |record: &&Record| add(record).is_ok();
        let more = all.additional.iter().take_while(fits).count();
        counts = [all.answer.len(), all.authority.len(), more].map(|count| count as u16);
    } else {
        message = message.tc_rewind_into();
    }
    message.clear_push_limit();
    if has_edns {
        // The fields of this record have other meanings than their names (RFC 6891, section 6.1.3).
        let (class, ttl) = (
            Class::from_int(message::MAX_UDP),
            u32::from(all.rcode.ext()) << 24,
        );
        push(&mut message, &[0], (Rtype::OPT, class, ttl), &[])?;
        counts[2] += 1;
    }
    let mut bytes = message.finish().into_target().0;
    let places = bytes.chunks_exact_mut(2).skip(3);
    for (place, count) in places.zip(counts) {
        place.copy_from_slice(&count.to_be_bytes());
    }
    Ok(bytes)
}

/// The bytes of a message; `domain` has no such type without its feature `std`.
struct Bytes(Vec<u8>);

impl OctetsBuilder for Bytes {
    type AppendError = ShortBuf;

    fn append_slice(&mut self, slice: &[u8]) -> Result<(), ShortBuf> {
        self.0.extend_from_slice(slice);
        Ok(())
    }
}

impl Truncate for Bytes {
    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for Bytes {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Composer for Bytes {}
