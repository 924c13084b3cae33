//! Messages of DNS-based service discovery by multicast (RFC 6762, 6763): bytes in, bytes out, no
//! I/O.
//!
//! ```text
//! _services._dns-sd._udp.local       PTR  _http._tcp.local                   shared
//! _http._tcp.local                   PTR  pump._http._tcp.local              shared
//! pump._http._tcp.local              SRV  8080 pump-s34unarq.local           only one
//!                                    TXT  "oc=bridge" "site=roof"            only one
//! pump-s34unarq.local                A    192.168.1.17                       only one
//! ```
//!
//! Invariants: no message can make this module panic; names are in the form that they have on the
//! wire, uncompressed; a message that is sent has at most [`MAX_MESSAGE`] bytes.

use std::net::IpAddr;

use domain::base::{MessageBuilder, Name, Rtype, iana::Class, message_builder::PushError};

pub(crate) use self::heard::{Data, HeardRecord, Meaning, Packet, Question, read};
use super::message::{Buffer, MAX_MESSAGE, ONLY_ONE, string};
use crate::{
    net::dns::message::push,
    protocol::codec::service::{ServiceName, Transport},
};

mod heard;

/// Time to live of records that have the name of a host in them, s (RFC 6762, section 10).
const HOST_TTL: u32 = 120;
/// The same of all others.
const OTHER_TTL: u32 = 4_500;
/// The same at most for resolvers that know nothing of multicast DNS (section 6.7).
const LEGACY_TTL: u32 = 10;
const HEADER_LEN: usize = 12;
/// Type, class, time to live and length of a record.
const FIXED_LEN: usize = 10;
/// Addresses of one service that are announced at most: with them all its records fit into a
/// message.
const MAX_ADDRS: usize = 4;
/// Bytes of a TXT record at most, for the same reason.
const MAX_TEXT: usize = 300;
/// The name whose PTR records are the kinds of services (RFC 6763, section 9).
const KINDS: &[u8] = b"\x09_services\x07_dns-sd\x04_udp\x05local\0";
/// The string of services that a bridge announces: another one does not take them for its own.
const BRIDGE: &[u8] = b"oc=bridge";

/// A service as a link is notified of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    /// Its name, at most 63 bytes.
    pub(crate) label: String,
    /// The kind of service.
    pub(crate) service: ServiceName,
    /// Its transport.
    pub(crate) transport: Transport,
    /// Its port.
    pub(crate) port: u16,
    /// The name of its host before `.local`, at most 63 bytes.
    pub(crate) host: String,
    /// Its TXT record; see [`text`].
    pub(crate) text: Vec<u8>,
}

/// The names of an instance's records, in the form that they have on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// That of its kind.
    pub(crate) kind: Vec<u8>,
    /// Its own.
    pub(crate) name: Vec<u8>,
    /// That of its host.
    pub(crate) host: Vec<u8>,
}

/// Which records of an instance are gone with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    /// It was the last one of its kind.
    pub(crate) kind: bool,
    /// It was the last one of its host.
    pub(crate) host: bool,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    owner: Vec<u8>,
    rtype: Rtype,
    ttl: u32,
    data: Vec<u8>,
}

impl Instance {
    /// The names of its records.
    pub(crate) fn names(&self) -> Names {
        Names {
            kind: self.kind(),
            name: self.name(),
            host: self.host(),
        }
    }

    fn name(&self) -> Vec<u8> {
        name(&[self.label.as_bytes()], &self.kind())
    }

    fn kind(&self) -> Vec<u8> {
        kind(&self.service, self.transport)
    }

    fn host(&self) -> Vec<u8> {
        name(&[self.host.as_bytes()], b"\x05local\0")
    }

    /// The data of its SRV record.
    pub(crate) fn srv(&self) -> Vec<u8> {
        // Priority and weight are 0: there is one.
        let mut data = vec![0; 4];
        data.extend(self.port.to_be_bytes());
        data.extend(self.host());
        data
    }

    /// All its records, with these addresses.
    pub(crate) fn records(&self, addrs: &[IpAddr]) -> Vec<Record> {
        let (name, host) = (self.name(), self.host());
        let record = |owner: &[u8], rtype, ttl, data| Record {
            owner: owner.into(),
            rtype,
            ttl,
            data,
        };
        let mut records = vec![
            record(&self.kind(), Rtype::PTR, OTHER_TTL, name.clone()),
            record(&name, Rtype::SRV, HOST_TTL, self.srv()),
            record(&name, Rtype::TXT, OTHER_TTL, self.text.clone()),
            record(KINDS, Rtype::PTR, OTHER_TTL, self.kind()),
        ];
        for addr in addrs.iter().take(MAX_ADDRS) {
            let (rtype, data) = match addr {
                IpAddr::V4(ip) => (Rtype::A, ip.octets().to_vec()),
                IpAddr::V6(ip) => (Rtype::AAAA, ip.octets().to_vec()),
            };
            records.push(record(&host, rtype, HOST_TTL, data));
        }
        records
    }

    /// Its records that are gone, with time to live 0.
    pub(crate) fn goodbye(&self, addrs: &[IpAddr], gone: Gone) -> Vec<Record> {
        let mut records = self.records(addrs);
        records.retain_mut(|record| {
            record.ttl = 0;
            match record.rtype {
                Rtype::A | Rtype::AAAA => gone.host,
                _ => record.owner != KINDS || gone.kind,
            }
        });
        records
    }
}

impl Record {
    /// Whether there is one of its name and type: others are to be forgotten (RFC 6762, section
    /// 10.2).
    fn is_unique(&self) -> bool {
        self.rtype != Rtype::PTR
    }

    fn len(&self) -> usize {
        self.owner.len() + FIXED_LEN + self.data.len()
    }

    fn answers(&self, question: &Question) -> bool {
        same(&self.owner, &question.name)
            && (question.rtype == Rtype::ANY || question.rtype == self.rtype)
    }
}

/// The TXT record of a service with these tags.
pub(crate) fn text<'a>(tags: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut text = Vec::new();
    string(&mut text, BRIDGE);
    for (key, value) in tags {
        let tag = format!("{key}={value}");
        if text.len() + 1 + tag.len() <= MAX_TEXT {
            string(&mut text, tag.as_bytes());
        }
    }
    text
}

/// The name of a kind of service.
pub(crate) fn kind(service: &ServiceName, transport: Transport) -> Vec<u8> {
    let service = format!("_{service}");
    let transport: &[u8] = match transport {
        Transport::Tcp => b"_tcp",
        Transport::Udp => b"_udp",
    };
    name(&[service.as_bytes(), transport], b"\x05local\0")
}

fn name(labels: &[&[u8]], parent: &[u8]) -> Vec<u8> {
    let mut name = Vec::new();
    labels.iter().for_each(|label| string(&mut name, label));
    name.extend(parent);
    name
}

/// Whether two names are the same, whatever case their letters have. The lengths of labels are
/// below those of letters.
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// The messages that announce these records, those of one service together.
pub(crate) fn answers(of: &[Vec<Record>]) -> Vec<Buffer> {
    let mut messages = Vec::new();
    let mut together: Vec<&Record> = Vec::new();
    for records in of {
        // What several have in common is announced once.
        let new = |together: &[&Record]| {
            let new = records.iter().filter(|it| !together.contains(it));
            new.collect::<Vec<_>>()
        };
        let len = |records: &[&Record]| records.iter().map(|it| it.len()).sum::<usize>();
        if HEADER_LEN + len(&together) + len(&new(&together)) > MAX_MESSAGE {
            messages.extend(write(None, &together, together.len()));
            together.clear();
        }
        together.extend(new(&together));
    }
    if !together.is_empty() {
        messages.extend(write(None, &together, together.len()));
    }
    messages
}

/// The answer to one peer alone, as far as it fits. `id`: the number of its message, if it knows
/// nothing of multicast DNS.
pub(crate) fn unicast(
    questions: &[Question],
    mut records: Vec<Record>,
    id: Option<u16>,
) -> Option<Buffer> {
    if id.is_some() {
        for record in &mut records {
            record.ttl = record.ttl.min(LEGACY_TTL);
        }
    }
    let is_asked = |record: &&Record| questions.iter().any(|it| record.answers(it));
    let (asked, others): (Vec<_>, Vec<_>) = records.iter().partition(is_asked);
    let all: Vec<_> = asked.iter().chain(&others).copied().collect();
    write(id.map(|id| (id, questions)), &all, asked.len()).ok()
}

/// The question whether the name of this instance is taken, with what it would be.
pub(crate) fn probe(instance: &Instance) -> Option<Buffer> {
    let name = instance.name();
    let mut message = MessageBuilder::from_target(Buffer::new()).ok()?.question();
    message.push((to_name(&name), Rtype::ANY)).ok()?;
    // There is one piece of code for all sections; the counts are put right after it.
    let mut message = message.answer();
    let class = (Rtype::SRV, Class::IN, HOST_TTL);
    push(&mut message, &name, class, &instance.srv()).ok()?;
    let mut message = message.finish();
    set_counts(&mut message, [0, 1, 0]);
    Some(message)
}

/// The question for all services of a kind, with the names that are known, and for how many seconds
/// each of them is still valid.
pub(crate) fn ask_for_kind<'a>(
    kind: &[u8],
    known: impl Iterator<Item = (&'a [u8], u32)>,
) -> Option<Buffer> {
    let mut message = MessageBuilder::from_target(Buffer::new()).ok()?.question();
    message.push((to_name(kind), Rtype::PTR)).ok()?;
    let mut message = message.answer();
    for (name, ttl) in known {
        // What does not fit is announced again, and no harm is done.
        if push(&mut message, kind, (Rtype::PTR, Class::IN, ttl), name).is_err() {
            break;
        }
    }
    Some(message.finish())
}

/// The question for all that is to be known of an instance, and of its host if that has a name.
pub(crate) fn ask_for_instance(name: &[u8], host: &[u8]) -> Option<Buffer> {
    let mut message = MessageBuilder::from_target(Buffer::new()).ok()?.question();
    for rtype in [Rtype::SRV, Rtype::TXT] {
        message.push((to_name(name), rtype)).ok()?;
    }
    for rtype in [Rtype::A, Rtype::AAAA] {
        if !host.is_empty() {
            message.push((to_name(host), rtype)).ok()?;
        }
    }
    Some(message.answer().finish())
}

/// The port and the host in the data of an SRV record.
pub(crate) fn split_service(data: &[u8]) -> (u16, &[u8]) {
    match data {
        [_, _, _, _, high, low, host @ ..] => (u16::from_be_bytes([*high, *low]), host),
        _ => (0, &[]),
    }
}

fn to_name(wire: &[u8]) -> &Name<[u8]> {
    Name::from_slice(wire).unwrap_or(Name::root_slice())
}

/// The first `count` records are the answer, the others additional.
fn write(
    legacy: Option<(u16, &[Question])>,
    records: &[&Record],
    count: usize,
) -> Result<Buffer, PushError> {
    let mut message = MessageBuilder::from_target(Buffer::new())?.question();
    message.header_mut().set_qr(true);
    message.header_mut().set_aa(true);
    if let Some((id, questions)) = legacy {
        message.header_mut().set_id(id);
        for question in questions {
            message.push((to_name(&question.name), question.rtype))?;
        }
    }
    let mut message = message.answer();
    let mut written = 0;
    for record in records {
        let class = match record.is_unique() && legacy.is_none() {
            true => Class::from_int(Class::IN.to_int() | ONLY_ONE),
            false => Class::IN,
        };
        let class = (record.rtype, class, record.ttl);
        if push(&mut message, &record.owner, class, &record.data).is_err() {
            break;
        }
        written += 1;
    }
    let answers = count.min(written);
    let mut message = message.finish();
    set_counts(&mut message, [answers, 0, written - answers]);
    Ok(message)
}

fn set_counts(message: &mut Buffer, counts: [usize; 3]) {
    let places = message.as_mut().chunks_exact_mut(2).skip(3);
    for (place, count) in places.zip(counts) {
        place.copy_from_slice(&(count as u16).to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
