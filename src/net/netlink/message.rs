//! The messages of rtnetlink(7) that are needed, and their attributes.
//!
//! Invariants: no bytes can cause a panic; what is too short is left out. Numbers are in the byte
//! order of the machine, as the kernel writes them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rustix::io::Errno;

pub(super) const ERROR: u16 = 2;
pub(super) const DONE: u16 = 3;
pub(super) const NEW_LINK: u16 = 16;
pub(super) const DEL_LINK: u16 = 17;
pub(super) const GET_LINK: u16 = 18;
pub(super) const NEW_ADDR: u16 = 20;
pub(super) const DEL_ADDR: u16 = 21;
pub(super) const GET_ADDR: u16 = 22;
pub(super) const NEW_ROUTE: u16 = 24;

/// A change disturbed the dump, which has to be made again.
pub(super) const DUMP_INTR: u16 = 0x10;

const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const HEADER: usize = 16;

/// A request for a dump of links or addresses of all families.
pub(super) fn request(what: u16, sequence: u32) -> [u8; 32] {
    let mut bytes = [0; 32];
    // `nlmsghdr`, then the zeroes of `ifinfomsg`, which is the longest of the headers that may
    // follow.
    bytes[..4].copy_from_slice(&32_u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&what.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(REQUEST | DUMP).to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes
}

/// One message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    body: &'a [u8],
}

/// The messages of a datagram.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(rest, 0)? as usize;
        let message = Message {
            kind: u16_at(rest, 4)?,
            flags: u16_at(rest, 6)?,
            sequence: u32_at(rest, 8)?,
            body: rest.get(HEADER..length)?,
        };
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// A link (`ifinfomsg`).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkMessage<'a> {
    pub(super) index: u32,
    pub(super) flags: u32,
    pub(super) name: Option<&'a [u8]>,
    /// The link below it, or the other end of a pair.
    pub(super) parent: u32,
    /// `parent` is in another network namespace.
    pub(super) parent_elsewhere: bool,
    /// The bridge or bond that it is a port of.
    pub(super) master: u32,
    /// The kind of software that makes it; `None` if the message does not contain it.
    pub(super) kind: Option<&'a [u8]>,
}

/// An address (`ifaddrmsg`).
#[derive(Clone, Copy, Debug)]
pub(super) struct AddressMessage {
    pub(super) link: u32,
    pub(super) ip: IpAddr,
    /// The length of the network's prefix, in bits.
    pub(super) prefix: u8,
    pub(super) flags: u32,
}

impl<'a> Message<'a> {
    /// The link that the message is about. `None` also for messages of a bridge, IPv6 or a radio
    /// about it, which do not describe all of it.
    pub(super) fn link(&self) -> Option<LinkMessage<'a>> {
        const LENGTH: usize = 16;
        const NAME: u16 = 3;
        const PARENT: u16 = 5;
        const MASTER: u16 = 10;
        const WIRELESS: u16 = 11;
        const INFO: u16 = 18;
        const INFO_KIND: u16 = 1;
        const PARENT_NAMESPACE: u16 = 37;
        const UNSPECIFIED: u8 = 0;

        if *self.body.first()? != UNSPECIFIED {
            return None;
        }
        let mut link = LinkMessage {
            index: u32_at(self.body, 4)?,
            flags: u32_at(self.body, 8)?,
            ..LinkMessage::default()
        };
        for (kind, value) in attributes(self.body.get(LENGTH..)?) {
            match kind {
                WIRELESS => return None,
                NAME => link.name = Some(text(value)),
                PARENT => link.parent = u32_at(value, 0)?,
                MASTER => link.master = u32_at(value, 0)?,
                PARENT_NAMESPACE => link.parent_elsewhere = true,
                INFO => {
                    let kind = attributes(value).find(|(kind, _)| *kind == INFO_KIND);
                    link.kind = kind.map(|(_, value)| text(value));
                }
                _ => {}
            }
        }
        Some(link)
    }

    /// The address that the message is about.
    pub(super) fn address(&self) -> Option<AddressMessage> {
        const LENGTH: usize = 8;
        const ADDRESS: u16 = 1;
        const LOCAL: u16 = 2;
        const FLAGS: u16 = 8;

        let (mut address, mut local) = (None, None);
        let mut flags = u32::from(*self.body.get(2)?);
        for (kind, value) in attributes(self.body.get(LENGTH..)?) {
            match kind {
                ADDRESS => address = ip(value),
                LOCAL => local = ip(value),
                FLAGS => flags = u32_at(value, 0)?,
                _ => {}
            }
        }
        Some(AddressMessage {
            link: u32_at(self.body, 4)?,
            // On a point-to-point link the other address is the peer's.
            ip: local.or(address)?,
            prefix: *self.body.get(1)?,
            flags,
        })
    }

    /// Whether it is about a unicast route of the main table, over which peers could be reached.
    pub(super) fn is_main_route(&self) -> bool {
        const MAIN: u8 = 254;
        const UNICAST: u8 = 1;
        self.body.get(4) == Some(&MAIN) && self.body.get(7) == Some(&UNICAST)
    }

    /// The error in an [`ERROR`] message.
    pub(super) fn error(&self) -> io::Error {
        let code = u32_at(self.body, 0).map(|code| (code as i32).saturating_neg());
        match code {
            Some(code) if code > 0 => io::Error::from_raw_os_error(code),
            _ => Errno::BADMSG.into(),
        }
    }
}

fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const LENGTH: usize = 4;
    /// The other two bits of the type describe how the value is written.
    const TYPE: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let found = (u16_at(rest, 2)? & TYPE, rest.get(LENGTH..length)?);
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(found)
    })
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

fn text(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// Messages and attributes begin at multiples of four.
fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// Messages as the kernel writes them, for tests.
#[cfg(test)]
pub(super) mod written {
    use super::*;

    pub(in super::super) fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    pub(in super::super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    /// A link; `kind` is empty for a physical one.
    pub(in super::super) fn link(
        index: u32,
        flags: u32,
        name: &str,
        kind: &str,
        (parent, master): (u32, u32),
    ) -> Vec<u8> {
        let mut body = vec![0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[8..12].copy_from_slice(&flags.to_ne_bytes());
        body.extend(attribute(3, format!("{name}\0").as_bytes()));
        if parent != 0 {
            body.extend(attribute(5, &parent.to_ne_bytes()));
        }
        if master != 0 {
            body.extend(attribute(10, &master.to_ne_bytes()));
        }
        if !kind.is_empty() {
            let info = attribute(1, format!("{kind}\0").as_bytes());
            body.extend(attribute(18 | 0x8000, &info));
        }
        body
    }

    /// The same, with `parent` in another network namespace.
    pub(in super::super) fn link_from_elsewhere(mut link: Vec<u8>) -> Vec<u8> {
        link.extend(attribute(37, &0_u32.to_ne_bytes()));
        link
    }

    pub(in super::super) fn address(link: u32, ip: IpAddr, flags: u32) -> Vec<u8> {
        address_in(link, ip, 24, flags)
    }

    pub(in super::super) fn address_in(link: u32, ip: IpAddr, prefix: u8, flags: u32) -> Vec<u8> {
        let mut body = vec![2, prefix, flags as u8, 0];
        body.extend(link.to_ne_bytes());
        let bytes = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        body.extend(attribute(1, &bytes));
        body.extend(attribute(8, &flags.to_ne_bytes()));
        body
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_one_message() {
        let bytes = request(GET_ADDR, 7);
        let all: Vec<_> = messages(&bytes).collect();
        let [message] = &all[..] else { panic!() };
        assert_eq!((message.kind, message.sequence), (GET_ADDR, 7));
        assert_eq!(message.flags, 0x301);
    }

    #[test]
    fn a_link_and_its_kind_are_read() {
        let bytes = written::message(
            NEW_LINK,
            &written::link(5, 0x11043, "vlan7", "vlan", (2, 3)),
        );
        let link = messages(&bytes).next().unwrap().link().unwrap();
        assert_eq!((link.index, link.flags), (5, 0x11043));
        assert_eq!((link.parent, link.master), (2, 3));
        assert!(!link.parent_elsewhere);
        assert_eq!(link.name, Some(&b"vlan7"[..]));
        assert_eq!(link.kind, Some(&b"vlan"[..]));
    }

    #[test]
    fn what_a_bridge_or_a_radio_says_of_a_link_is_left_out() {
        let mut port = written::link(5, 0, "eth0", "", (0, 3));
        port[0] = 7;
        let mut radio = written::link(5, 0, "wlan0", "", (0, 0));
        radio.extend(written::attribute(11, &[1, 2, 3, 4]));
        for body in [port, radio] {
            let bytes = written::message(DEL_LINK, &body);
            assert!(messages(&bytes).next().unwrap().link().is_none());
        }
    }

    #[test]
    fn on_a_point_to_point_link_the_own_address_counts() {
        let mut body = written::address(4, [10, 0, 0, 2].into(), 0x80);
        body.extend(written::attribute(2, &[10, 0, 0, 1]));
        let bytes = written::message(NEW_ADDR, &body);
        let address = messages(&bytes).next().unwrap().address().unwrap();
        assert_eq!(address.ip, IpAddr::from([10, 0, 0, 1]));
        assert_eq!((address.link, address.flags), (4, 0x80));
    }

    #[test]
    fn several_messages_of_one_datagram_are_read_and_a_torn_one_ends_it() {
        let mut bytes = written::message(NEW_ADDR, &written::address(1, [10, 0, 0, 1].into(), 0));
        bytes.extend(written::message(DONE, &[0; 4]));
        assert_eq!(messages(&bytes).count(), 2);
        bytes.truncate(bytes.len() - 1);
        assert_eq!(messages(&bytes).count(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 16..26_u16) {
            let wrapped = written::message(kind, &bytes);
            for bytes in [&bytes, &wrapped] {
                for message in messages(bytes) {
                    let _ = (message.link(), message.address(), message.is_main_route(), message.error());
                }
            }
        }
    }
}
