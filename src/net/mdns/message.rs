//! Messages of multicast DNS (RFC 6762) about natives, in the form of libp2p's mDNS discovery:
//! bytes in, bytes out, no I/O.
//!
//! ```text
//! question  _p2p._udp.local                 PTR
//! answer    _p2p._udp.local                 PTR  NAME._p2p._udp.local
//!           NAME._p2p._udp.local            TXT  "dnsaddr=/ip4/…/tcp/…/p2p/ID" … "oc=native"
//! ```
//!
//! The last string belongs to this system: other programs of libp2p announce themselves by the same
//! names, and are no natives.
//!
//! Invariants: no message can make this module panic; at most [`MAX_ADDRS`] addresses are taken
//! from one.

use domain::{
    base::{
        Message, MessageBuilder, Name, ParsedName, Rtype, iana::Class, message_builder::PushError,
    },
    dep::octseq::Array,
    rdata::{Ptr, Txt},
};
use libp2p::{Multiaddr, PeerId};

use crate::net::{
    dns::message::{MAX_UDP, push},
    undialable::is_kept,
};

/// Bytes of the longest message that is sent.
pub(super) const MAX_MESSAGE: usize = MAX_UDP as usize;
/// Addresses taken from one message.
const MAX_ADDRS: usize = 32;
/// `_p2p._udp.local`, as it is on the wire.
const SERVICE: &[u8] = b"\x04_p2p\x04_udp\x05local\0";
/// Each string of a TXT record with an address begins with this.
const ADDRESS: &[u8] = b"dnsaddr=";
/// The string that only natives have.
const NATIVE: &[u8] = b"oc=native";
/// The record is the only one of its name: others of the name are to be forgotten (RFC 6762,
/// section 10.2).
pub(super) const ONLY_ONE: u16 = 0x8000;
/// The time to live of an answer, s (RFC 6762, section 10).
pub(super) const TTL: u32 = 120;

/// A message.
pub(super) type Buffer = Array<MAX_MESSAGE>;

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A host asks for peers of libp2p.
    Question,
    /// Addresses of natives, each with `/p2p` at its end.
    Natives(Vec<Multiaddr>),
}

/// The question for all peers of libp2p on the link.
pub(super) fn question() -> Result<Buffer, PushError> {
    let mut message = MessageBuilder::from_target(Buffer::new())?.question();
    message.push((service(), Rtype::PTR))?;
    Ok(message.finish())
}

/// The answer of a native with these addresses. Those that do not fit are left out. With `ttl` 0 it
/// is a goodbye.
pub(super) fn answer(own: &PeerId, addrs: &[Multiaddr], ttl: u32) -> Result<Buffer, PushError> {
    let instance = instance(own);
    let mut message = MessageBuilder::from_target(Buffer::new())?.answer();
    message.header_mut().set_qr(true);
    message.header_mut().set_aa(true);
    let pointer = (Rtype::PTR, Class::IN, ttl);
    push(&mut message, SERVICE, pointer, &instance)?;
    // Where other programs of libp2p look for it.
    let mut message = message.additional();
    let only = Class::from_int(Class::IN.to_int() | ONLY_ONE);
    let mut text = Vec::new();
    string(&mut text, NATIVE);
    for addr in addrs {
        let before = text.len();
        string(&mut text, format!("dnsaddr={addr}/p2p/{own}").as_bytes());
        if text.len() > MAX_MESSAGE / 2 + MAX_MESSAGE / 4 {
            text.truncate(before);
        }
    }
    push(&mut message, &instance, (Rtype::TXT, only, ttl), &text)?;
    Ok(message.finish())
}

/// What the message means for the process `own`; `None`: nothing. A question that names it among
/// the answers that are known wants no answer (RFC 6762, section 7.1).
pub(super) fn read(message: &[u8], own: &PeerId) -> Option<Heard> {
    let message = Message::from_slice(message).ok()?;
    if !message.header().qr() {
        let mut questions = message.question().flatten();
        let ours = questions
            .any(|question| question.qname() == service() && question.qtype() == Rtype::PTR);
        return (ours && !knows(message, own)).then_some(Heard::Question);
    }
    let (_, answer, _, additional) = message.sections().ok()?;
    let mut addrs = Vec::new();
    for record in answer.chain(additional) {
        // What follows a broken record cannot be read.
        let Ok(record) = record else { break };
        let is_ours = record.owner().ends_with(&service());
        if let (true, Ok(Some(record))) = (is_ours, record.to_record::<Txt<&[u8]>>()) {
            addresses(record.data(), record.ttl().as_secs(), &mut addrs);
        }
    }
    (!addrs.is_empty()).then_some(Heard::Natives(addrs))
}

/// Whether the question has the own PTR record, with at least half of its time to live.
fn knows(question: &Message<[u8]>, own: &PeerId) -> bool {
    let instance = instance(own);
    let known = question.answer().into_iter().flatten().flatten();
    let mut known =
        known.filter_map(|record| record.into_record::<Ptr<ParsedName<&[u8]>>>().ok()?);
    known.any(|record| {
        let is_ours = Name::from_slice(&instance).is_ok_and(|own| *record.data().ptrdname() == own);
        is_ours && record.ttl().as_secs() >= TTL / 2
    })
}

/// Adds the addresses in a TXT record of a native.
fn addresses(text: &Txt<&[u8]>, ttl: u32, addrs: &mut Vec<Multiaddr>) {
    if ttl == 0 || !text.iter().any(|string| string == NATIVE) {
        return;
    }
    let strings = text
        .iter()
        .filter_map(|string| string.strip_prefix(ADDRESS));
    let read = strings.filter_map(|addr| str::from_utf8(addr).ok()?.parse().ok());
    let read = read.filter(is_kept);
    addrs.extend(read.take(MAX_ADDRS.saturating_sub(addrs.len())));
}

fn service() -> &'static Name<[u8]> {
    Name::from_slice(SERVICE).unwrap_or(Name::root_slice())
}

/// The name of the own TXT record, as it is on the wire.
fn instance(own: &PeerId) -> Vec<u8> {
    let id = own.to_base58();
    let tail = id.len().saturating_sub(32);
    let mut name = Vec::new();
    string(&mut name, id.get(tail..).unwrap_or_default().as_bytes());
    name.extend_from_slice(SERVICE);
    name
}

/// Adds a string with its length before it; one of more than 255 bytes is left out.
pub(super) fn string(to: &mut Vec<u8>, string: &[u8]) {
    if let Ok(len) = u8::try_from(string.len()) {
        to.push(len);
        to.extend_from_slice(string);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";

    fn own() -> PeerId {
        ID.parse().unwrap()
    }

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn read_back(addrs: &[Multiaddr], ttl: u32) -> Option<Heard> {
        read(answer(&own(), addrs, ttl).unwrap().as_ref(), &own())
    }

    #[test]
    fn question_is_what_libp2p_asks() {
        let asked = question().unwrap();
        assert_eq!(
            asked.as_ref(),
            b"\0\0\0\0\0\x01\0\0\0\0\0\0\x04_p2p\x04_udp\x05local\0\0\x0c\0\x01"
        );
        assert_eq!(read(asked.as_ref(), &own()), Some(Heard::Question));
    }

    #[test]
    fn question_for_something_else_is_not_ours() {
        for (from, to) in [(b"_p2p", b"_ipp"), (b"\0\0\x0c\0", b"\0\0\x10\0")] {
            let mut asked = question().unwrap().as_ref().to_vec();
            let at = asked.windows(4).rposition(|four| four == from).unwrap();
            asked[at..at + 4].copy_from_slice(to);
            assert_eq!(read(&asked, &own()), None);
        }
    }

    #[test]
    fn natives_addresses_come_back_with_its_id() {
        let addrs = [
            addr("/ip4/192.0.2.1/tcp/4820"),
            addr("/ip6/2001:db8::1/tcp/4820"),
        ];
        let whole = addrs.map(|addr| addr.with(libp2p::multiaddr::Protocol::P2p(own())));
        assert_eq!(
            read_back(
                &[
                    addr("/ip4/192.0.2.1/tcp/4820"),
                    addr("/ip6/2001:db8::1/tcp/4820")
                ],
                TTL
            ),
            Some(Heard::Natives(whole.to_vec()))
        );
    }

    #[test]
    fn goodbye_and_a_peer_that_is_no_native_are_nothing_for_us() {
        let addrs = [addr("/ip4/192.0.2.1/tcp/4820")];
        assert_eq!(read_back(&addrs, 0), None);
        let mut other = answer(&own(), &addrs, TTL).unwrap().as_ref().to_vec();
        let at = other.windows(9).position(|nine| nine == NATIVE).unwrap();
        other[at] = b'x';
        assert_eq!(read(&other, &own()), None);
    }

    #[test]
    fn asker_that_knows_us_for_half_of_our_time_is_not_answered() {
        let asked = |ttl| {
            let mut message = MessageBuilder::from_target(Buffer::new())
                .unwrap()
                .question();
            message.push((service(), Rtype::PTR)).unwrap();
            let mut message = message.answer();
            let known = instance(&own());
            push(&mut message, SERVICE, (Rtype::PTR, Class::IN, ttl), &known).unwrap();
            read(message.finish().as_ref(), &own())
        };
        assert_eq!(asked(TTL / 2), None);
        assert_eq!(asked(TTL / 2 - 1), Some(Heard::Question));
    }

    #[test]
    fn message_of_many_long_addresses_keeps_the_first() {
        let long = format!("/dns/{}.example/tcp/4820", "a".repeat(50));
        let addrs = vec![addr(&long); 40];
        let Some(Heard::Natives(read)) = read_back(&addrs, TTL) else {
            panic!("nothing was read");
        };
        assert!((5..10).contains(&read.len()), "{}", read.len());
    }

    proptest! {
        #[test]
        fn no_message_panics(message in proptest::collection::vec(any::<u8>(), 0..600)) {
            read(&message, &own());
        }

        #[test]
        fn no_answer_that_was_changed_panics(at in 0usize..200, to: u8, cut in 0usize..300) {
            let mut message = answer(&own(), &[addr("/ip4/192.0.2.1/tcp/4820")], TTL).unwrap().as_ref().to_vec();
            let len = message.len();
            message[at % len] = to;
            read(&message[..cut.min(len)], &own());
            read(&message, &own());
        }
    }
}
