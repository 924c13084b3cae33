//! What the core has to know about an address: the host that it leads to, the prefix of that host,
//! and the port.
//!
//! The core keeps multiaddresses as opaque bytes ([`Addr`](super::Addr)) and reads only their first
//! component, because that is what a connection goes to, whatever follows it (a relay, another peer
//! id). Servers and clients count sources and failures by it. For an attacker, peer ids cost
//! nothing, hosts cost more, and prefixes cost most.
//!
//! Invariants: two forms of the same host compare as equal (an IPv4 address mapped into IPv6,
//! capital letters or a last dot in a name); bytes that cannot be read count as a host of their
//! own, so that every input has a host.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A network: an address in it, and the length of its prefix in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// An address in it, that of this host as a rule.
    pub ip: IpAddr,
    /// The length of its prefix, in bits.
    pub prefix: u8,
}

impl Subnet {
    /// Whether the address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let same = |one: u128, other: u128, bits: u32| {
            let host = bits.saturating_sub(u32::from(self.prefix));
            (one ^ other).checked_shr(host).unwrap_or_default() == 0
        };
        match (self.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                same(u32::from(own).into(), u32::from(ip).into(), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => same(own.into(), ip.into(), 128),
            _ => false,
        }
    }
}

/// How far an address is, in three steps, for the host that dials it: this host, or `asker`. `own`
/// are the networks of this host. Nearest are those that the asker is in too, then the others of
/// `own`.
pub fn distance(ip: IpAddr, own: &[Subnet], asker: Option<IpAddr>) -> u8 {
    let mut meeting = own.iter().filter(|subnet| subnet.contains(ip)).peekable();
    match (meeting.peek().is_some(), asker) {
        (false, _) => 2,
        (true, Some(asker)) if !meeting.any(|subnet| subnet.contains(asker)) => 1,
        (true, _) => 0,
    }
}

/// A host, in the smallest form that can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address that is not a mapped IPv4 address.
    V6(Ipv6Addr),
    /// A hash (56 bits) of a DNS name, or of a whole address that could not be read.
    Name(u64),
}

/// Hosts that usually belong to one holder: an IPv4 /24, an IPv6 /48, or a whole name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Prefix(u64);

impl Prefix {
    /// The family and the significant bits; different prefixes have different ones.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

/// A host and a port: where a connection goes to, or comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransportAddr {
    /// The host.
    pub host: Host,
    /// The TCP port; 0 where the address names none.
    pub port: u16,
}

/// A set of IP address families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families(u8);

impl Families {
    /// No known family.
    pub const NONE: Self = Self(0);
    /// IPv4.
    pub const V4: Self = Self(1);
    /// IPv6.
    pub const V6: Self = Self(2);
    /// Both.
    pub const BOTH: Self = Self(3);

    /// The families in which a connection to a binary multiaddress can be made. `/dns4` and `/dns6`
    /// have one family; other names, and bytes that cannot be read, may have any.
    pub fn of(addr: &[u8]) -> Self {
        match first(addr) {
            Some((_, Host::V4(_), _)) | Some((DNS4, ..)) => Self::V4,
            Some((_, Host::V6(_), _)) | Some((DNS6, ..)) => Self::V6,
            _ => Self::BOTH,
        }
    }

    /// The families that are in either set.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the two have a family in common.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the set is empty.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// Whether the set has exactly one family.
    pub fn is_one(self) -> bool {
        matches!(self, Self::V4 | Self::V6)
    }
}

impl Host {
    /// The prefix that the host is in.
    pub(crate) fn prefix(self) -> Prefix {
        let (family, bits) = match self {
            Self::V4(ip) => (4u8, u64::from(u32::from(ip) >> 8)),
            Self::V6(ip) => (6, (u128::from(ip) >> 80) as u64),
            Self::Name(hash) => (0xd, hash & HASH_MASK),
        };
        Prefix(u64::from(family) << 56 | bits)
    }
}

impl Host {
    /// The family of an address; none for a name.
    pub fn family(self) -> Families {
        match self {
            Self::V4(_) => Families::V4,
            Self::V6(_) => Families::V6,
            Self::Name(_) => Families::NONE,
        }
    }

    /// Whether the address is meaningful only on its own host: loopback, unspecified, and IPv6
    /// link-local addresses, because their zones are names of that host's interfaces. Also true for
    /// multicast, which does not lead to another host.
    pub(crate) fn is_of_its_own_host(self) -> bool {
        match self {
            Self::V4(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_multicast(),
            Self::V6(ip) => {
                ip.is_loopback()
                    || ip.is_unspecified()
                    || ip.is_multicast()
                    || ip.is_unicast_link_local()
            }
            Self::Name(_) => false,
        }
    }
}

impl Host {
    /// Whether no host has the address: it is unspecified, multicast, or broadcast.
    fn is_nobodys(self) -> bool {
        match self {
            // All of 0.0.0.0/8 is "this network" (RFC 1122).
            Self::V4(ip) => ip.octets()[0] == 0 || ip.is_multicast() || ip.is_broadcast(),
            Self::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
            Self::Name(_) => false,
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => Self::V6(ip),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(ip) => ip.fmt(f),
            Self::V6(ip) => ip.fmt(f),
            Self::Name(_) => f.write_str("a named host"),
        }
    }
}

impl TransportAddr {
    /// Reads where a binary multiaddress (without its length) leads to first. Never
    /// fails: see the invariants.
    pub fn of(addr: &[u8]) -> Self {
        read(addr).unwrap_or(Self {
            host: Host::Name(hash(addr.iter().copied())),
            port: 0,
        })
    }

    /// The prefix that the host is in.
    pub(crate) fn prefix(self) -> Prefix {
        self.host.prefix()
    }
}

impl From<SocketAddr> for TransportAddr {
    fn from(addr: SocketAddr) -> Self {
        Self {
            host: addr.ip().into(),
            port: addr.port(),
        }
    }
}

/// Whether a connection to a binary multiaddress can lead to another host, or to this one: not to
/// an unspecified or multicast address, to the broadcast address, or to port 0. Bytes that cannot
/// be read count as if they could be dialled, because a later version may read them.
pub(crate) fn can_be_dialled(addr: &[u8]) -> bool {
    let Some((_, host, mut rest)) = first(addr) else {
        return true;
    };
    let port = match varint(&mut rest) {
        Some(TCP | UDP) => fixed::<2>(&mut rest),
        _ => None,
    };
    !host.is_nobodys() && port != Some([0; 2])
}

/// The DNS name that a binary multiaddress begins with, as it is written there; `None` if it begins
/// with anything else.
pub fn dns_name(addr: &[u8]) -> Option<&str> {
    let mut rest = addr;
    match varint(&mut rest)? {
        DNS..=DNSADDR => core::str::from_utf8(sized(&mut rest)?).ok(),
        _ => None,
    }
}

/// The significant bits of a hash. A family fits above them.
const HASH_MASK: u64 = (1 << 56) - 1;

// Codes of the multiaddr table.
const IP4: u64 = 4;
const TCP: u64 = 6;
const IP6: u64 = 41;
const IP6ZONE: u64 = 42;
const DNS: u64 = 53;
const DNS4: u64 = 54;
const DNS6: u64 = 55;
const DNSADDR: u64 = 56;
const UDP: u64 = 273;

fn read(addr: &[u8]) -> Option<TransportAddr> {
    let (_, host, mut rest) = first(addr)?;
    let port = match varint(&mut rest) {
        Some(TCP) => u16::from_be_bytes(fixed::<2>(&mut rest)?),
        _ => 0,
    };
    Some(TransportAddr { host, port })
}

/// The code and host of the first component, and the bytes after it.
fn first(addr: &[u8]) -> Option<(u64, Host, &[u8])> {
    let mut rest = addr;
    let mut code = varint(&mut rest)?;
    if code == IP6ZONE {
        // The zone names the interface; the host is in the address that follows.
        sized(&mut rest)?;
        code = varint(&mut rest)?;
    }
    let host = match code {
        IP4 => Host::V4(fixed::<4>(&mut rest)?.into()),
        IP6 => IpAddr::from(fixed::<16>(&mut rest)?).into(),
        // dns, dns4, dns6 and dnsaddr.
        DNS..=DNSADDR => {
            let name = sized(&mut rest)?;
            let name = name.strip_suffix(b".").unwrap_or(name);
            Host::Name(hash(name.iter().map(u8::to_ascii_lowercase)))
        }
        _ => return None,
    };
    Some((code, host, rest))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (part, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*part)
}

fn sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint(rest)?).ok()?;
    let (part, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(part)
}

/// The bits of FNV-1a in [`HASH_MASK`].
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ hash >> 56) & HASH_MASK
}

#[cfg(test)]
mod tests;
