//! What is read of a message, and what it means for an instance.
//!
//! Invariants: no message can make this module panic; of one that asks, at most [`MAX_QUESTIONS`]
//! questions and [`MAX_ASKED_RECORDS`] records are read, because each is compared with all that is
//! told.

use std::net::IpAddr;

use domain::{
    base::{Message, ParsedName, ParsedRecord, Rtype, iana::Class},
    rdata::{A, Aaaa, Ptr, Srv, Txt},
};

use super::{BRIDGE, KINDS, Names, OTHER_TTL, same};
use crate::net::mdns::message::{ONLY_ONE, string};

/// Questions that are read of one message at most.
const MAX_QUESTIONS: usize = 16;
/// Records that are read of a message that asks at most: the answers that the asker knows, and as
/// many of its claims.
const MAX_ASKED_RECORDS: usize = 64;
/// Records that are read of an answer at most.
const MAX_HEARD_RECORDS: usize = 512;

/// What was heard.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Packet {
    /// The number of the message, for a resolver that knows nothing of multicast DNS.
    pub(crate) id: u16,
    /// It tells, and does not ask.
    pub(crate) is_answer: bool,
    /// What the asker knows is continued in another packet.
    pub(crate) has_more: bool,
    /// What is asked.
    pub(crate) questions: Vec<Question>,
    /// What is told; in a question, what the asker knows.
    pub(crate) records: Vec<HeardRecord>,
    /// In a question: what the asker would tell, if the name is free.
    pub(crate) claims: Vec<HeardRecord>,
}

/// A question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The name asked for.
    pub(crate) name: Vec<u8>,
    pub(super) rtype: Rtype,
    /// A unicast answer is enough.
    pub(crate) wants_unicast: bool,
}

/// A record that was heard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HeardRecord {
    /// Its name.
    pub(crate) owner: Vec<u8>,
    /// Its time to live, s.
    pub(crate) ttl: u32,
    /// What was heard before of its name and type, and is not in this packet, is to be forgotten
    /// (RFC 6762, section 10.2).
    pub(crate) flushes: bool,
    /// What it says.
    pub(crate) data: Data,
}

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// A name.
    Pointer(Vec<u8>),
    /// The whole data of an SRV record.
    Service(Vec<u8>),
    /// A text.
    Text {
        /// It says that a bridge tells of the service.
        is_bridged: bool,
    },
    /// An address.
    Address(IpAddr),
}

/// What a question asks of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// For the kinds that there are.
    Kinds,
    /// For all of its kind.
    Kind,
    /// For what has its name, or that of its host.
    Name,
}

impl Question {
    /// What it asks of the instance with these names, if anything.
    pub(crate) fn meaning(&self, names: &Names) -> Option<Meaning> {
        let is = |types: &[Rtype]| self.rtype == Rtype::ANY || types.contains(&self.rtype);
        let pointers = is(&[Rtype::PTR]);
        if pointers && same(&self.name, KINDS) {
            Some(Meaning::Kinds)
        } else if pointers && same(&self.name, &names.kind) {
            Some(Meaning::Kind)
        } else {
            let by_name = is(&[Rtype::SRV, Rtype::TXT]) && same(&self.name, &names.name);
            let by_host = is(&[Rtype::A, Rtype::AAAA]) && same(&self.name, &names.host);
            (by_name || by_host).then_some(Meaning::Name)
        }
    }
}

impl HeardRecord {
    /// Whether it is the pointer that answers such a question about the instance, with half of its
    /// time to live at least (RFC 6762, section 7.1).
    pub(crate) fn is_known(&self, meaning: Meaning, names: &Names) -> bool {
        let (owner, to) = match meaning {
            Meaning::Kinds => (KINDS, &names.kind),
            Meaning::Kind => (names.kind.as_slice(), &names.name),
            Meaning::Name => return false,
        };
        let is_it = |data: &Data| matches!(data, Data::Pointer(name) if same(name, to));
        self.ttl >= OTHER_TTL / 2 && same(&self.owner, owner) && is_it(&self.data)
    }
}

/// Reads a packet; `None` if it is none.
pub(crate) fn read(bytes: &[u8]) -> Option<Packet> {
    let message = Message::from_slice(bytes).ok()?;
    let header = message.header();
    let (questions, answer, authority, additional) = message.sections().ok()?;
    let mut packet = Packet {
        id: header.id(),
        is_answer: header.qr(),
        has_more: header.tc(),
        ..Packet::default()
    };
    let most = match packet.is_answer {
        true => MAX_HEARD_RECORDS,
        false => MAX_ASKED_RECORDS,
    };
    for question in questions.take(MAX_QUESTIONS) {
        let question = question.ok()?;
        packet.questions.push(Question {
            name: wire(question.qname()),
            rtype: question.qtype(),
            wants_unicast: question.qclass().to_int() & ONLY_ONE != 0,
        });
    }
    // What follows a broken record cannot be read.
    for record in answer.chain(additional).map_while(Result::ok).take(most) {
        packet.records.extend(heard_record(&record));
    }
    for record in authority.map_while(Result::ok).take(most) {
        packet.claims.extend(heard_record(&record));
    }
    Some(packet)
}

fn heard_record(record: &ParsedRecord<'_, [u8]>) -> Option<HeardRecord> {
    if record.class().to_int() & !ONLY_ONE != Class::IN.to_int() {
        return None;
    }
    let data = match record.rtype() {
        Rtype::PTR => {
            let pointer = record.to_record::<Ptr<ParsedName<&[u8]>>>().ok()??;
            Data::Pointer(wire(pointer.data().ptrdname()))
        }
        Rtype::SRV => {
            let service = record.to_record::<Srv<ParsedName<&[u8]>>>().ok()??;
            let service = service.data();
            let numbers = [service.priority(), service.weight(), service.port()];
            let mut data: Vec<_> = numbers.into_iter().flat_map(u16::to_be_bytes).collect();
            data.extend(wire(service.target()));
            Data::Service(data)
        }
        Rtype::TXT => {
            let text = record.to_record::<Txt<&[u8]>>().ok()??;
            let is_bridged = text.data().iter().any(|string| string == BRIDGE);
            Data::Text { is_bridged }
        }
        Rtype::A => {
            let address = record.to_record::<A>().ok()??;
            Data::Address(address.data().addr().into())
        }
        Rtype::AAAA => {
            let address = record.to_record::<Aaaa>().ok()??;
            Data::Address(address.data().addr().into())
        }
        _ => return None,
    };
    Some(HeardRecord {
        owner: wire(&record.owner()),
        ttl: record.ttl().as_secs(),
        flushes: record.class().to_int() & ONLY_ONE != 0,
        data,
    })
}

/// The name, uncompressed.
fn wire(name: &ParsedName<&[u8]>) -> Vec<u8> {
    let mut wire = Vec::with_capacity(64);
    for label in name.iter() {
        string(&mut wire, label.as_slice());
    }
    wire
}
