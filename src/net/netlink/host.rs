//! Links and addresses of the host, and their changes.
//!
//! Invariants: an address counts while its link is up and has a carrier; links and addresses are
//! bounded, and what does not fit is left out until a place is free. An address exists as long as
//! one of its networks (prefixes) does. An interface is virtual if software makes it and no
//! physical one carries it: a bridge with a physical port is physical, and so is a VLAN on a
//! physical interface. What leads into another network namespace is the `eth0` of a container, and
//! counts as physical there. The other end of it, on the container's host, is a port of a bridge
//! that it does not make physical.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use super::message::{DEL_ADDR, DEL_LINK, LinkMessage, Message, NEW_ADDR, NEW_LINK, NEW_ROUTE};

/// Links known at most. If a host has more, the later ones are left out.
pub(super) const MAX_LINKS: usize = 1024;

/// Addresses known at most.
pub(super) const MAX_ADDRESSES: usize = 256;

/// How many links may be stacked on one another.
const MAX_DEPTH: u8 = 4;

const UP: u32 = 0x1;
const LOOPBACK: u32 = 0x8;
const RUNNING: u32 = 0x40;

const TEMPORARY: u32 = 0x01;
const OPTIMISTIC: u32 = 0x04;
const DUPLICATE: u32 = 0x08;
const DEPRECATED: u32 = 0x20;
const TENTATIVE: u32 = 0x40;

/// An address of the host that others could reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    /// The length of the network's prefix, in bits.
    pub(crate) prefix: u8,
    /// The interface's name.
    pub(crate) link: Name,
    /// Software makes the interface, and no physical one carries it.
    pub(crate) is_virtual: bool,
    /// The address is temporary: a privacy address of IPv6, or one with a prefix that has expired.
    pub(crate) passing: bool,
}

/// An interface's name.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Name(heapless::Vec<u8, 16>);

impl Name {
    fn new(name: &[u8]) -> Self {
        Self(heapless::Vec::from_slice(name).unwrap_or_default())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What has changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// Addresses that were added, or that came back with their interface.
    pub(crate) new: Vec<Address>,
    /// Addresses that are gone, and why.
    pub(crate) gone: Vec<(Address, Gone)>,
    /// An interface came up.
    pub(crate) link: bool,
    /// A route was added.
    pub(crate) route: bool,
    /// The addresses changed too fast to be reported one by one.
    pub(crate) joined: bool,
}

/// Why an address is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It was removed from the interface.
    Removed,
    /// Its interface has no carrier.
    NoCarrier,
    /// Its interface was shut down.
    Down,
    /// Its interface no longer exists.
    NoLink,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Removed => "it was removed",
            Self::NoCarrier => "the interface has no carrier",
            Self::Down => "the interface is down",
            Self::NoLink => "the interface is gone",
        })
    }
}

impl Change {
    /// The changes of the addresses alone.
    pub(super) fn between(before: &[Address], state: &State) -> Self {
        let after = state.usable();
        let differs = |one: &Address, all: &[Address]| !all.iter().any(|a| a.ip == one.ip);
        let gone = before.iter().filter(|old| differs(old, &after));
        let gone = each_ip_once(gone).into_iter();
        let new = after.iter().filter(|new| differs(new, before));
        Self {
            gone: gone.map(|old| (old.clone(), state.why_gone(old))).collect(),
            new: each_ip_once(new).into_iter().cloned().collect(),
            ..Self::default()
        }
    }

    pub(super) fn is_any(&self) -> bool {
        self.came() || !self.gone.is_empty()
    }

    /// Something was added that may make more peers reachable.
    pub(crate) fn came(&self) -> bool {
        self.link || self.route || !self.new.is_empty()
    }
}

/// Each IP address once: the first entry of it, where several networks or interfaces have it.
fn each_ip_once<'a>(addresses: impl Iterator<Item = &'a Address>) -> Vec<&'a Address> {
    let mut once: Vec<&Address> = Vec::new();
    for address in addresses {
        if !once.iter().any(|other| other.ip == address.ip) {
            once.push(address);
        }
    }
    once
}

/// What a message brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Applied {
    /// An interface came up.
    pub(super) link: bool,
    /// A route was added.
    pub(super) route: bool,
    /// A place is free again, and something had been left out. Another dump will contain it.
    pub(super) room: bool,
}

/// Links by their index, and addresses in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    links: BTreeMap<u32, Link>,
    addresses: Vec<Held>,
    /// A link or an address did not fit.
    left_out: bool,
}

#[derive(Clone, Debug)]
struct Link {
    name: Name,
    flags: u32,
    kind: Kind,
    parent: u32,
    parent_elsewhere: bool,
    master: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    link: u32,
    ip: IpAddr,
    prefix: u8,
    flags: u32,
}

/// What an interface is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A device, or an interface that joins devices or leads to a provider.
    Physical,
    /// As physical as its parent.
    Stacked,
    /// Physical if one of its ports is.
    Bridge,
    /// One end of a pair: physical if the other one is in another network namespace.
    Pair,
    /// Software only.
    Virtual,
}

impl Kind {
    /// From the kernel's name for the kind of a link (`IFLA_INFO_KIND`). The driver of a device
    /// gives none.
    fn new(kind: Option<&[u8]>) -> Self {
        match kind {
            None | Some(b"bond" | b"team" | b"dsa" | b"ppp" | b"wwan" | b"rmnet" | b"ipoib") => {
                Self::Physical
            }
            Some(b"vlan" | b"macvlan" | b"ipvlan" | b"hsr") => Self::Stacked,
            Some(b"bridge") => Self::Bridge,
            Some(b"veth" | b"netkit") => Self::Pair,
            Some(_) => Self::Virtual,
        }
    }
}

impl Link {
    fn is_up(&self) -> bool {
        self.flags & (UP | RUNNING) == UP | RUNNING
    }
}

impl State {
    /// Applies a message to the state.
    pub(super) fn apply(&mut self, message: &Message<'_>) -> Applied {
        let mut applied = Applied::default();
        let used = self.used();
        match message.kind {
            NEW_LINK => applied.link = message.link().is_some_and(|link| self.link(&link)),
            DEL_LINK => {
                if let Some(link) = message.link() {
                    self.links.remove(&link.index);
                    self.addresses.retain(|held| held.link != link.index);
                }
            }
            NEW_ADDR | DEL_ADDR => {
                if let Some(address) = message.address() {
                    let held = Held {
                        link: address.link,
                        ip: address.ip,
                        prefix: address.prefix,
                        flags: address.flags,
                    };
                    self.address(held, message.kind == NEW_ADDR);
                }
            }
            NEW_ROUTE => applied.route = message.is_main_route(),
            _ => {}
        }
        applied.room = self.left_out && self.used() < used;
        applied
    }

    /// Links and addresses stored.
    fn used(&self) -> usize {
        self.links.len() + self.addresses.len()
    }

    /// Returns whether the link came up.
    fn link(&mut self, link: &LinkMessage<'_>) -> bool {
        let known = self.links.get(&link.index);
        if known.is_none() && self.links.len() >= MAX_LINKS {
            self.left_out = true;
            return false;
        }
        let new = Link {
            name: Name::new(link.name.unwrap_or_default()),
            flags: link.flags,
            kind: Kind::new(link.kind),
            parent: link.parent,
            parent_elsewhere: link.parent_elsewhere,
            master: link.master,
        };
        // An interface of a container that comes up makes no new peer reachable.
        let of_container = matches!(new.kind, Kind::Virtual | Kind::Pair);
        let came_up = new.is_up() && !of_container && !known.is_some_and(Link::is_up);
        self.links.insert(link.index, new);
        came_up
    }

    fn address(&mut self, new: Held, is_there: bool) {
        let same =
            |held: &Held| (held.link, held.ip, held.prefix) == (new.link, new.ip, new.prefix);
        let known = self.addresses.iter().position(same);
        match known {
            Some(at) if !is_there => drop(self.addresses.remove(at)),
            Some(at) => {
                if let Some(held) = self.addresses.get_mut(at) {
                    *held = new;
                }
            }
            None if is_there && self.addresses.len() < MAX_ADDRESSES => self.addresses.push(new),
            None => self.left_out |= is_there,
        }
    }

    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|held| held.ip == ip)
    }

    pub(super) fn usable(&self) -> Vec<Address> {
        let usable = self.addresses.iter().filter_map(|held| {
            let link = self.links.get(&held.link).filter(|link| link.is_up())?;
            let checked = held.flags & DUPLICATE == 0
                && (held.flags & TENTATIVE == 0 || held.flags & OPTIMISTIC != 0);
            (checked && !is_link_local(held.ip)).then(|| Address {
                ip: held.ip,
                prefix: held.prefix,
                link: link.name.clone(),
                is_virtual: self.is_virtual(held.link, MAX_DEPTH),
                // IPv4 uses this flag for the secondary addresses of an interface.
                passing: held.flags & DEPRECATED != 0
                    || held.ip.is_ipv6() && held.flags & TEMPORARY != 0,
            })
        });
        usable.collect()
    }

    fn is_virtual(&self, index: u32, depth: u8) -> bool {
        let (Some(link), Some(depth)) = (self.links.get(&index), depth.checked_sub(1)) else {
            return true;
        };
        match link.kind {
            _ if link.flags & LOOPBACK != 0 => false,
            Kind::Physical => false,
            Kind::Virtual => true,
            Kind::Pair | Kind::Stacked if link.parent_elsewhere => false,
            Kind::Pair => true,
            Kind::Stacked => self.is_virtual(link.parent, depth),
            Kind::Bridge => !self.links.iter().any(|(port, link)| {
                let carries = link.kind != Kind::Pair && !self.is_virtual(*port, depth);
                link.master == index && carries
            }),
        }
    }

    fn why_gone(&self, gone: &Address) -> Gone {
        let held = self.addresses.iter().find(|held| held.ip == gone.ip);
        let link = match held {
            Some(held) => self.links.get(&held.link),
            None => self.links.values().find(|link| link.name == gone.link),
        };
        match link {
            None => Gone::NoLink,
            Some(link) if link.flags & UP == 0 => Gone::Down,
            Some(link) if link.flags & RUNNING == 0 => Gone::NoCarrier,
            Some(_) => Gone::Removed,
        }
    }
}

/// Such an address cannot be dialled without a zone.
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if Ipv6Addr::is_unicast_link_local(&ip))
}

#[cfg(test)]
impl State {
    pub(super) fn fixed(ips: &[&str]) -> Self {
        let links: Vec<_> = ips.iter().map(|ip| (*ip, "")).collect();
        Self::with_links(&links)
    }

    pub(super) fn with_links(links: &[(&str, &str)]) -> Self {
        let mut state = Self::default();
        for (index, (ip, kind)) in (1..).zip(links) {
            let ip: IpAddr = ip.parse().unwrap();
            let (kind, flags) = match *kind {
                "passing" => ("", DEPRECATED),
                kind => (kind, 0),
            };
            let link = Link {
                name: Name::new(format!("eth{index}").as_bytes()),
                flags: UP | RUNNING,
                kind: Kind::new(Some(kind.as_bytes()).filter(|kind| !kind.is_empty())),
                parent: 0,
                parent_elsewhere: false,
                master: 0,
            };
            state.links.insert(index, link);
            let (link, prefix) = (index, 24);
            state.addresses.push(Held {
                link,
                ip,
                prefix,
                flags,
            });
        }
        state
    }
}
