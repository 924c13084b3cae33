//! The sockets of multicast DNS (RFC 6762): bytes to and from the links of this host.
//!
//! Beside another responder of the host (avahi, systemd-resolved) they share UDP port 5353.
//!
//! Invariants: a packet is passed on only if it comes from an address of a network in which it
//! speaks, so from the link; at most [`MAX_PACKETS`] a second are read, and the kernel drops the
//! rest; nothing is sent on loopback, nor on a virtual bridge while there is a real link.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    rc::Rc,
    time::{Duration, Instant},
};

use async_io::{Async, Timer};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, netdevice::name_to_index, socket_with, sockopt,
};
use smol::{
    channel::{Sender, bounded},
    future::or,
};

use crate::{
    net::{
        executor,
        netlink::{Address, Host},
    },
    protocol::{
        address::Subnet,
        dns_sd::{LinkSet, MAX_LINKS},
    },
};

/// Where all speak and listen.
pub(crate) const PORT: u16 = 5353;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// The longest message (RFC 6762, section 17).
const MAX_MESSAGE: usize = 9000;
/// Packets read in a second.
const MAX_PACKETS: u32 = 50;
const SECOND: Duration = Duration::from_secs(1);

/// Takes each packet, with its sender and the links that it may be from, one bit each.
pub(crate) type Hear = Rc<dyn Fn(&[u8], SocketAddr, LinkSet)>;

/// The sockets of this process for the links.
pub(crate) struct Links {
    v4: Option<Open>,
    v6: Option<Open>,
    links: Rc<RefCell<Vec<Link>>>,
    /// Networks of virtual bridges, on which it does not speak.
    pub(crate) bridges: Vec<Subnet>,
    hear: Hear,
    /// Sockets that could not be opened, as far as this was logged.
    has_failed: bool,
    /// What was sent: to which link, or to one peer (0).
    #[cfg(test)]
    pub(crate) sent: RefCell<Vec<(LinkSet, Vec<u8>)>>,
}

/// A socket, and what ends the task that listens to it.
struct Open {
    socket: Rc<Async<UdpSocket>>,
    _end: Sender<()>,
}

/// A link on which it speaks: its addresses of either family, and its networks.
struct Link {
    name: String,
    v4: Option<Ipv4Addr>,
    /// The index of the interface, if it has IPv6.
    v6: Option<u32>,
    subnets: Vec<Subnet>,
}

impl Link {
    fn has(&self, address: &Address) -> bool {
        self.name == address.link.to_string()
    }
}

impl Links {
    /// Without a link so far; see [`Links::join`]. `hear` takes each packet.
    pub(crate) fn new(hear: Hear) -> Self {
        Self {
            v4: None,
            v6: None,
            links: Rc::default(),
            bridges: Vec::new(),
            hear,
            has_failed: false,
            #[cfg(test)]
            sent: RefCell::default(),
        }
    }

    /// On these links, with their kinds, and without sockets.
    #[cfg(test)]
    pub(crate) fn on(of: &[(&str, &str)]) -> Self {
        let new = Self::new(Rc::new(|_, _, _| {}));
        *new.links.borrow_mut() = links(&Host::with_links(of).addresses());
        new
    }

    /// Joins the group on all links that the host has now. To be called again after a change.
    pub(crate) fn join(&mut self) {
        let addresses = Host::of_this_thread().addresses();
        let links = links(&addresses);
        let is_other = |at: &&Address| !links.iter().any(|link| link.has(at));
        self.bridges = addresses.iter().filter(is_other).map(subnet).collect();
        if links.iter().any(|link| link.v4.is_some()) && self.v4.is_none() {
            self.v4 = self.open(AddressFamily::INET);
        }
        if links.iter().any(|link| link.v6.is_some()) && self.v6.is_none() {
            self.v6 = self.open(AddressFamily::INET6);
        }
        for link in &links {
            // It fails if the group is joined there already.
            if let (Some(open), Some(ip)) = (&self.v4, &link.v4) {
                let _ = sockopt::set_ip_add_membership(open.socket.get_ref(), &GROUP_V4, ip);
            }
            if let (Some(open), Some(index)) = (&self.v6, link.v6) {
                let _ = sockopt::set_ipv6_add_membership(open.socket.get_ref(), &GROUP_V6, index);
            }
        }
        *self.links.borrow_mut() = links;
    }

    /// Leaves all links, so that messages of others there do not wake this process.
    pub(crate) fn close(&mut self) {
        (self.v4, self.v6) = (None, None);
        self.links.borrow_mut().clear();
    }

    /// How many links there are: the first one has the lowest bit.
    pub(crate) fn count(&self) -> usize {
        self.links.borrow().len()
    }

    /// The networks of the link with this number.
    pub(crate) fn subnets(&self, at: usize) -> Vec<Subnet> {
        let links = self.links.borrow();
        let link = links.get(at);
        link.map(|link| link.subnets.clone()).unwrap_or_default()
    }

    /// Multicasts the message on these links. A link that takes nothing now loses it: it is sent
    /// again later anyway.
    pub(crate) fn send(&self, links: LinkSet, message: &[u8]) {
        let all = self.links.borrow();
        let meant = all.iter().enumerate();
        for (_at, link) in meant.filter(|(at, _)| links & 1 << at != 0) {
            #[cfg(test)]
            self.sent.borrow_mut().push((1 << _at, message.into()));
            if let (Some(open), Some(ip)) = (&self.v4, &link.v4) {
                let socket = open.socket.get_ref();
                let to = SocketAddr::from((GROUP_V4, PORT));
                let sent = sockopt::set_ip_multicast_if(socket, ip)
                    .map_err(io::Error::from)
                    .and_then(|()| socket.send_to(message, to));
                log::trace!("multicast DNS over {ip}: {sent:?}");
            }
            if let (Some(open), Some(index)) = (&self.v6, link.v6) {
                let to = SocketAddrV6::new(GROUP_V6, PORT, 0, index);
                let sent = open.socket.get_ref().send_to(message, SocketAddr::from(to));
                log::trace!("multicast DNS over link {index}: {sent:?}");
            }
        }
    }

    /// Sends the message to one peer on the link.
    pub(crate) fn reply(&self, to: SocketAddr, message: &[u8]) {
        #[cfg(test)]
        self.sent.borrow_mut().push((0, message.into()));
        let open = match to {
            SocketAddr::V4(_) => &self.v4,
            SocketAddr::V6(_) => &self.v6,
        };
        if let Some(open) = open {
            let sent = open.socket.get_ref().send_to(message, to);
            log::trace!("multicast DNS, to {to} alone: {sent:?}");
        }
    }

    fn open(&mut self, family: AddressFamily) -> Option<Open> {
        match socket_for(family) {
            Ok(socket) => {
                let socket = Rc::new(socket);
                let (end, ended) = bounded::<()>(1);
                let heard = Rc::clone(&socket);
                let (links, hear) = (Rc::clone(&self.links), Rc::clone(&self.hear));
                executor::spawn(async move {
                    // The channel is closed when the socket is no longer needed.
                    or(listen(&heard, &links, &hear), async {
                        let _ = ended.recv().await;
                    })
                    .await;
                });
                Some(Open { socket, _end: end })
            }
            Err(why) => {
                if !self.has_failed {
                    log::info!(
                        "cannot use multicast DNS (UDP port {PORT}: {why}): natives and services are not found on the \
                         link"
                    );
                }
                self.has_failed = true;
                None
            }
        }
    }
}

fn socket_for(family: AddressFamily) -> io::Result<Async<UdpSocket>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    let any: SocketAddr = if family == AddressFamily::INET {
        sockopt::set_ip_multicast_ttl(&socket, 255)?;
        (Ipv4Addr::UNSPECIFIED, PORT).into()
    } else {
        sockopt::set_ipv6_v6only(&socket, true)?;
        sockopt::set_ipv6_multicast_hops(&socket, 255)?;
        (Ipv6Addr::UNSPECIFIED, PORT).into()
    };
    bind(&socket, &any)?;
    Async::new_nonblocking(UdpSocket::from(socket))
}

/// The links of these addresses on which to speak.
fn links(addresses: &[Address]) -> Vec<Link> {
    let is_real = |address: &Address| !address.is_virtual && !address.ip.is_loopback();
    let has_real = addresses.iter().any(is_real);
    let counts =
        |address: &&Address| !address.ip.is_loopback() && (!has_real || !address.is_virtual);
    let mut links: Vec<Link> = Vec::new();
    for address in addresses.iter().filter(counts) {
        let name = address.link.to_string();
        let known = links.iter().position(|known| known.name == name);
        let at = known.unwrap_or(links.len());
        if known.is_none() && at < MAX_LINKS {
            links.push(Link {
                name: name.clone(),
                v4: None,
                v6: None,
                subnets: Vec::new(),
            });
        }
        let Some(link) = links.get_mut(at) else {
            continue;
        };
        link.subnets.push(subnet(address));
        match address.ip {
            IpAddr::V4(ip) => link.v4 = link.v4.or(Some(ip)),
            IpAddr::V6(_) => link.v6 = link.v6.or_else(|| index_of(&name)),
        }
    }
    links
}

fn subnet(address: &Address) -> Subnet {
    Subnet {
        ip: address.ip,
        prefix: address.prefix,
    }
}

fn index_of(link: &str) -> Option<u32> {
    let socket = socket_with(
        AddressFamily::INET6,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    );
    name_to_index(socket.ok()?, link).ok()
}

async fn listen(socket: &Async<UdpSocket>, links: &RefCell<Vec<Link>>, hear: &Hear) {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut pace = Pace {
        from: Instant::now(),
        read: 0,
    };
    loop {
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else {
            // The socket reports the error of a packet that was sent; the next one may succeed.
            Timer::after(SECOND).await;
            continue;
        };
        let links = links_of(from, &links.borrow());
        if links != 0 {
            hear(buffer.get(..len).unwrap_or_default(), from, links);
        }
        let pause = pace.count(Instant::now());
        if !pause.is_zero() {
            Timer::after(pause).await;
        }
    }
}

/// How many packets were read in the second that began then.
struct Pace {
    from: Instant,
    read: u32,
}

impl Pace {
    /// A packet was read. Returns how long to wait before the next one is: what is left of the
    /// second, if this was the last one for it.
    fn count(&mut self, now: Instant) -> Duration {
        if now.duration_since(self.from) >= SECOND {
            (self.from, self.read) = (now, 0);
        }
        self.read += 1;
        match self.read < MAX_PACKETS {
            true => Duration::ZERO,
            false => SECOND - now.duration_since(self.from),
        }
    }
}

/// The links that a packet of this sender may come from: they have a network with its address, or
/// link-local addresses of its family.
fn links_of(from: SocketAddr, links: &[Link]) -> LinkSet {
    let is_from = |link: &Link| match from {
        SocketAddr::V4(from) if from.ip().is_link_local() => link.v4.is_some(),
        SocketAddr::V6(from) if from.ip().is_unicast_link_local() => {
            from.scope_id() == 0 || link.v6 == Some(from.scope_id())
        }
        from => link.subnets.iter().any(|net| net.contains(from.ip())),
    };
    let links = links.iter().enumerate().filter(|(_, link)| is_from(link));
    links.fold(0, |all, (at, _)| all | 1 << at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_50_packets_only_the_rest_of_their_second_is_waited_for() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace {
            from: start,
            read: 0,
        };
        let of_quiet_link = (1..=200).map(|count| pace.count(at(100 * count)));
        assert_eq!(of_quiet_link.max(), Some(Duration::ZERO));
        let from = 30_000;
        let pauses: Vec<_> = (0..50).map(|count| pace.count(at(from + count))).collect();
        assert_eq!(pauses[48], Duration::ZERO);
        assert_eq!(pauses[49], Duration::from_millis(951));
        assert_eq!(pace.count(at(from + 1_000)), Duration::ZERO);
    }

    #[test]
    fn it_speaks_on_real_links_and_on_bridges_only_where_there_is_nothing_else() {
        let names = |kinds: &[(&str, &str)]| links(&Host::with_links(kinds).addresses()).len();
        assert_eq!(names(&[("192.0.2.1", ""), ("172.17.0.1", "bridge")]), 1);
        assert_eq!(names(&[("172.17.0.1", "bridge")]), 1);
        assert_eq!(names(&[("127.0.0.1", "")]), 0);
    }

    #[test]
    fn packet_is_of_the_link_in_whose_network_its_sender_is() {
        let of = |links: &[Link], from: &str| {
            let ip: IpAddr = from.parse().unwrap();
            links_of(SocketAddr::new(ip, PORT), links)
        };
        let with_bridge = Host::with_links(&[("192.0.2.1", ""), ("172.17.0.1", "bridge")]);
        let own = links(&with_bridge.addresses());
        assert_eq!(of(&own, "172.17.0.1"), 0);
        assert_eq!(of(&own, "192.0.2.1"), 1);
        assert_eq!(of(&own, "198.51.100.1"), 0);
        assert_eq!(of(&own, "169.254.3.4"), 1);
        assert_ne!(of(&own, "fe80::1"), 0);
        let two = links(&Host::with_links(&[("192.0.2.1", ""), ("198.51.100.1", "")]).addresses());
        assert_eq!(of(&two, "192.0.2.1"), 0b01);
        assert_eq!(of(&two, "198.51.100.1"), 0b10);
        assert_eq!(of(&two, "169.254.3.4"), 0b11);
    }
}
