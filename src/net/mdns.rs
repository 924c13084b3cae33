//! Multicast DNS (RFC 6762): asks the local links for natives, and answers there for this one.
//!
//! Beside another responder of the host (avahi, systemd-resolved) it shares UDP port 5353. It
//! multicasts only, because a unicast answer would reach only one of the two.
//!
//! Invariants: a packet counts only if it comes from port 5353 and from an address of a network in
//! which it speaks, so from the link; at most [`MAX_PACKETS`] a second are read, and the kernel
//! drops the rest; nothing is sent on loopback, nor on a virtual bridge while there is a real link.

mod message;

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    rc::Rc,
    time::Duration,
};

use async_io::{Async, Timer};
use libp2p::{Multiaddr, PeerId};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, netdevice::name_to_index, socket_with, sockopt,
};
use smol::{
    channel::{Receiver, Sender, bounded},
    future::or,
};

use self::message::{Heard, TTL};
use super::{
    executor,
    netlink::{Address, Host},
};
use crate::protocol::{self, address::Subnet};

const PORT: u16 = 5353;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// The longest message (RFC 6762, section 17).
const MAX_MESSAGE: usize = 9000;
/// Packets read in a second.
const MAX_PACKETS: u32 = 50;
/// What was heard and the loop has not taken yet; more is dropped.
const MAX_HEARD: usize = 8;
/// Links on which it speaks.
const MAX_LINKS: usize = 16;

/// What is said on the link.
#[derive(Debug)]
pub(crate) enum Said {
    /// A host asks for peers.
    Question,
    /// Natives are at these addresses, each with `/p2p` at its end.
    Natives(Vec<Multiaddr>),
}

/// The sockets of this process for the links.
pub(crate) struct Mdns {
    own: PeerId,
    v4: Option<Open>,
    v6: Option<Open>,
    links: Vec<Link>,
    /// The networks of those links, for the tasks that listen.
    subnets: Rc<RefCell<Vec<Subnet>>>,
    said: (Sender<Said>, Receiver<Said>),
    /// Sockets that could not be opened, as far as this was logged.
    has_failed: bool,
}

/// A socket, and what ends the task that listens to it.
struct Open {
    socket: Rc<Async<UdpSocket>>,
    _end: Sender<()>,
}

/// A link on which it speaks: its addresses of either family.
struct Link {
    v4: Option<Ipv4Addr>,
    /// The index of the interface, if it has IPv6.
    v6: Option<u32>,
}

impl Mdns {
    /// For the process `own`, without a link so far; see [`Mdns::join`].
    pub(crate) fn new(own: protocol::PeerId) -> Self {
        Self {
            own: own.into(),
            v4: None,
            v6: None,
            links: Vec::new(),
            subnets: Rc::default(),
            said: bounded(MAX_HEARD),
            has_failed: false,
        }
    }

    /// What is said on the links comes here.
    pub(crate) fn said(&self) -> Receiver<Said> {
        self.said.1.clone()
    }

    /// Joins the group on all links that the host has now. To be called again after a change.
    pub(crate) fn join(&mut self) {
        let addresses = Host::of_this_thread().addresses();
        let (links, subnets) = links(&addresses);
        *self.subnets.borrow_mut() = subnets;
        if links.iter().any(|(_, link)| link.v4.is_some()) && self.v4.is_none() {
            self.v4 = self.open(AddressFamily::INET);
        }
        if links.iter().any(|(_, link)| link.v6.is_some()) && self.v6.is_none() {
            self.v6 = self.open(AddressFamily::INET6);
        }
        for (_, link) in &links {
            // It fails if the group is joined there already.
            if let (Some(open), Some(ip)) = (&self.v4, &link.v4) {
                let _ = sockopt::set_ip_add_membership(open.socket.get_ref(), &GROUP_V4, ip);
            }
            if let (Some(open), Some(index)) = (&self.v6, link.v6) {
                let _ = sockopt::set_ipv6_add_membership(open.socket.get_ref(), &GROUP_V6, index);
            }
        }
        self.links = links.into_iter().map(|(_, link)| link).collect();
    }

    /// Leaves all links, so that messages of others there do not wake this process.
    pub(crate) fn close(&mut self) {
        (self.v4, self.v6) = (None, None);
        self.links.clear();
    }

    /// Asks all links for natives.
    pub(crate) fn ask(&self) {
        if let Ok(question) = message::question() {
            self.send(question.as_ref());
        }
    }

    /// Tells all links that this native is at these addresses.
    pub(crate) fn answer(&self, addrs: &[Multiaddr]) {
        if let Ok(answer) = message::answer(&self.own, addrs, TTL) {
            self.send(answer.as_ref());
        }
    }

    /// Tells all links that this native is leaving.
    pub(crate) fn leave(&self) {
        if let Ok(goodbye) = message::answer(&self.own, &[], 0) {
            self.send(goodbye.as_ref());
        }
    }

    /// A link that takes nothing now loses the message: it is sent again later anyway.
    fn send(&self, message: &[u8]) {
        for link in &self.links {
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

    fn open(&mut self, family: AddressFamily) -> Option<Open> {
        match socket_for(family) {
            Ok(socket) => {
                let socket = Rc::new(socket);
                let (end, ended) = bounded::<()>(1);
                let heard = Rc::clone(&socket);
                let (subnets, said, own) =
                    (Rc::clone(&self.subnets), self.said.0.clone(), self.own);
                executor::spawn(async move {
                    let listens = listen(&heard, &subnets, &own, &said);
                    // The channel is closed when the socket is no longer needed.
                    or(listens, async {
                        let _ = ended.recv().await;
                    })
                    .await;
                });
                Some(Open { socket, _end: end })
            }
            Err(why) => {
                if !self.has_failed {
                    log::info!(
                        "cannot use multicast DNS (UDP port {PORT}: {why}): natives are not found on the link"
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

/// The links of these addresses on which to speak, by name, and their networks.
fn links(addresses: &[Address]) -> (Vec<(String, Link)>, Vec<Subnet>) {
    let is_real = |address: &Address| !address.is_virtual && !address.ip.is_loopback();
    let has_real = addresses.iter().any(is_real);
    let counts =
        |address: &&Address| !address.ip.is_loopback() && (!has_real || !address.is_virtual);
    let mut links: Vec<(String, Link)> = Vec::new();
    let mut subnets = Vec::new();
    for address in addresses.iter().filter(counts) {
        let name = address.link.to_string();
        let known = links.iter().position(|(known, _)| *known == name);
        let at = known.unwrap_or(links.len());
        if known.is_none() && at < MAX_LINKS {
            links.push((name.clone(), Link { v4: None, v6: None }));
        }
        let Some((_, link)) = links.get_mut(at) else {
            continue;
        };
        subnets.push(Subnet {
            ip: address.ip,
            prefix: address.prefix,
        });
        match address.ip {
            IpAddr::V4(ip) => link.v4 = link.v4.or(Some(ip)),
            IpAddr::V6(_) => link.v6 = link.v6.or_else(|| index_of(&name)),
        }
    }
    (links, subnets)
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

async fn listen(
    socket: &Async<UdpSocket>,
    subnets: &RefCell<Vec<Subnet>>,
    own: &PeerId,
    said: &Sender<Said>,
) {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut read = 0;
    loop {
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else {
            // The socket reports the error of a packet that was sent; the next one may succeed.
            Timer::after(Duration::from_secs(1)).await;
            continue;
        };
        read += 1;
        if read % MAX_PACKETS == 0 {
            Timer::after(Duration::from_secs(1)).await;
        }
        if from.port() != PORT || !is_on_link(from.ip(), &subnets.borrow()) {
            continue;
        }
        let heard = message::read(buffer.get(..len).unwrap_or_default(), own);
        let heard = match heard {
            Some(Heard::Question) => Said::Question,
            Some(Heard::Natives(addrs)) => Said::Natives(addrs),
            None => continue,
        };
        // A loop that has much else to do asks again later.
        let _ = said.try_send(heard);
    }
}

/// Whether the address is in one of the networks, or is link-local.
fn is_on_link(ip: IpAddr, subnets: &[Subnet]) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    is_link_local || subnets.iter().any(|subnet| subnet.contains(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_speaks_on_real_links_and_on_bridges_only_where_there_is_nothing_else() {
        let names = |kinds: &[(&str, &str)]| links(&Host::with_links(kinds).addresses()).0.len();
        assert_eq!(names(&[("192.0.2.1", ""), ("172.17.0.1", "bridge")]), 1);
        assert_eq!(names(&[("172.17.0.1", "bridge")]), 1);
        assert_eq!(names(&[("127.0.0.1", "")]), 0);
    }

    #[test]
    fn packet_from_another_network_is_not_of_the_link() {
        let host = Host::with_links(&[("192.0.2.1", ""), ("172.17.0.1", "bridge")]);
        let (_, own) = links(&host.addresses());
        assert!(!is_on_link("172.17.0.1".parse().unwrap(), &own));
        assert!(is_on_link("192.0.2.1".parse().unwrap(), &own));
        assert!(!is_on_link("198.51.100.1".parse().unwrap(), &own));
        assert!(is_on_link("fe80::1".parse().unwrap(), &own));
        assert!(is_on_link("169.254.3.4".parse().unwrap(), &own));
    }
}
