//! Parses the addresses of options: those to listen on, to announce, and of natives.
//!
//! Invariant: each function takes text and returns checked addresses, or an error of one sentence.

use std::net::IpAddr;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::{Error, LISTEN_MAX, NativeAddr, peer_id_fault, values::at_most};
use crate::protocol::{
    MAX_ADDR_LEN, capacities::MAX_NATIVES, codec::record::MAX_RECORD_ADDRS, dns_name,
    dns_sd::MAX_LABEL_LEN,
};

pub(super) fn listen(values: &[String]) -> Result<Vec<Multiaddr>, Error> {
    const OPTION: &str = "--listen";
    const MULTICAST: &str =
        "TCP cannot listen on a multicast address; give one of this host, or /ip4/0.0.0.0";
    at_most(OPTION, values, LISTEN_MAX)?;
    let addrs = values
        .iter()
        .map(|value| {
            let addr = multiaddr(OPTION, value)?;
            let wrong = |problem: &str| Err(Error::new(OPTION, value, problem));
            match addr.iter().collect::<Vec<_>>().as_slice() {
                [Protocol::Ip4(ip), Protocol::Tcp(_)] if ip.is_multicast() => wrong(MULTICAST),
                [Protocol::Ip6(ip), Protocol::Tcp(_)] if ip.is_multicast() => wrong(MULTICAST),
                [Protocol::Ip6(ip), Protocol::Tcp(_)] if ip.is_unicast_link_local() => {
                    wrong("a link-local address is one of each interface; give another, or /ip6/::")
                }
                [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)] => Ok(addr),
                _ => {
                    wrong("only /ip4/ADDRESS/tcp/PORT and /ip6/ADDRESS/tcp/PORT can be listened on")
                }
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    for (at, (addr, value)) in addrs.iter().zip(values).enumerate() {
        let mut before = addrs.iter().take(at);
        if let Some(other) = before.find(|other| is_one_socket(other, addr)) {
            let problem = format!(
                "{other} is also given, and listens on the same port; leave one of the \
                 two out, or give it another port"
            );
            return Err(Error::new(OPTION, value, problem));
        }
    }
    Ok(addrs)
}

/// Whether only one of the two can be listened on, because they have the same port, and the same
/// address or the unspecified address of its family.
fn is_one_socket(one: &Multiaddr, other: &Multiaddr) -> bool {
    let parts = |addr: &Multiaddr| match addr.iter().collect::<Vec<_>>().as_slice() {
        [Protocol::Ip4(ip), Protocol::Tcp(port)] => Some((IpAddr::from(*ip), *port)),
        [Protocol::Ip6(ip), Protocol::Tcp(port)] => Some((IpAddr::from(*ip), *port)),
        _ => None,
    };
    let (Some((one, port)), Some((other, other_port))) = (parts(one), parts(other)) else {
        return false;
    };
    let meets = one == other || one.is_unspecified() || other.is_unspecified();
    port == other_port && port != 0 && one.is_ipv4() == other.is_ipv4() && meets
}

pub(super) fn announce(values: &[String], only: bool) -> Result<Vec<Multiaddr>, Error> {
    const OPTION: &str = "--announce";
    if only && values.is_empty() {
        return Err(Error::bare(
            "--announce-only",
            "nothing would be announced; give at least one address to announce with it",
        ));
    }
    at_most(OPTION, values, MAX_RECORD_ADDRS)?;
    let mut addrs = Vec::new();
    for value in values {
        let addr = announced(value)?;
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    Ok(addrs)
}

fn announced(value: &str) -> Result<Multiaddr, Error> {
    const OPTION: &str = "--announce";
    let wrong = |problem: &str| Err(Error::new(OPTION, value, problem));
    let addr = multiaddr(OPTION, value)?;
    let port = match addr.iter().collect::<Vec<_>>().as_slice() {
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(port)] => *port,
        [
            Protocol::Dns(host) | Protocol::Dns4(host) | Protocol::Dns6(host),
            Protocol::Tcp(port),
        ] if !host.is_empty() => *port,
        [.., Protocol::P2p(_)] => {
            return wrong("leave /p2p/ID out: a record has the peer's own id already");
        }
        _ => {
            return wrong("only /ip4, /ip6, /dns, /dns4 or /dns6 with /tcp/PORT can be announced");
        }
    };
    if port == 0 {
        return wrong("port 0 cannot be dialled; give the port that leads here");
    }
    if !leads_to_a_host(&addr) {
        return wrong("this address cannot be dialled; give one that leads here from other hosts");
    }
    check_name(OPTION, value, &addr)?;
    Ok(addr)
}

pub(super) fn natives(values: &[String]) -> Result<Vec<NativeAddr>, Error> {
    at_most("--native", values, MAX_NATIVES)?;
    values.iter().map(|value| native(value)).collect()
}

fn native(value: &str) -> Result<NativeAddr, Error> {
    const OPTION: &str = "--native";
    let mut addr = multiaddr(OPTION, value)?;
    let wrong = |problem: &str| Err(Error::new(OPTION, value, problem));
    let peer = match addr.iter().last() {
        Some(Protocol::P2p(peer)) => {
            addr.pop();
            Some(peer)
        }
        _ => None,
    };
    let (by_txt, port) = match addr.iter().collect::<Vec<_>>().as_slice() {
        [Protocol::Dnsaddr(host)] if !host.is_empty() => (true, None),
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(port)] => (false, Some(*port)),
        [
            Protocol::Dns(host) | Protocol::Dns4(host) | Protocol::Dns6(host),
            Protocol::Tcp(port),
        ] if !host.is_empty() => (false, Some(*port)),
        _ => {
            return wrong(
                "only /ip4, /ip6, /dns, /dns4 or /dns6 with /tcp/PORT/p2p/ID, and \
                 /dnsaddr/NAME, can be dialled",
            );
        }
    };
    if port == Some(0) {
        return wrong("port 0 cannot be dialled; give the port that the native listens on");
    }
    if !leads_to_a_host(&addr) {
        return wrong("this address cannot be dialled; give one at which the native is reached");
    }
    check_name(OPTION, value, &addr)?;
    if !by_txt && peer.is_none() {
        return wrong("it must end in /p2p/ID; `oc-discovery id` on the native prints its ID");
    }
    if peer.is_some_and(|peer| crate::protocol::PeerId::try_from(peer).is_err()) {
        return wrong("the ID after /p2p must be that of an Ed25519 key, which starts 12D3KooW");
    }
    Ok(NativeAddr { peer, addr })
}

/// Whether an address can be dialled from another host. An IP address cannot if it is unspecified,
/// multicast or link-local (IPv6).
fn leads_to_a_host(addr: &Multiaddr) -> bool {
    match addr.iter().next() {
        Some(Protocol::Ip4(ip)) => !ip.is_unspecified() && !ip.is_multicast(),
        Some(Protocol::Ip6(ip)) => {
            !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local()
        }
        _ => true,
    }
}

/// Checks that a name in the address can be looked up: it has letters, digits, `-` and `_` between
/// dots, and is not an IP address.
fn check_name(option: &'static str, value: &str, addr: &Multiaddr) -> Result<(), Error> {
    let Some(name) = dns_name(addr.as_ref()) else {
        return Ok(());
    };
    let bare = name.strip_suffix('.').unwrap_or(name);
    let wrong = |problem: String| Err(Error::new(option, value, problem));
    match bare.parse() {
        Ok(IpAddr::V4(ip)) => return wrong(format!("{ip} is not a name; write it /ip4/{ip}")),
        Ok(IpAddr::V6(ip)) => return wrong(format!("{ip} is not a name; write it /ip6/{ip}")),
        Err(_) => {}
    }
    if !bare.is_ascii() {
        return wrong(
            "a name that is looked up is in ASCII; give the form of it that begins with xn--"
                .to_owned(),
        );
    }
    if !is_host_name(bare) {
        return wrong(format!(
            "{bare:?} is not a host name; use letters, digits, - and _, at most {MAX_LABEL_LEN} \
             between dots, and no - after a dot or at the beginning"
        ));
    }
    Ok(())
}

/// Whether the text is a host name in ASCII. Such a name has no character that a terminal or a
/// shell could take for something else, and is no option of a command.
pub(crate) fn is_host_name(name: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    name.split('.').all(|label| {
        (1..=MAX_LABEL_LEN).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(is_letter)
    })
}

fn multiaddr(option: &'static str, value: &str) -> Result<Multiaddr, Error> {
    let addr: Multiaddr = value.parse().map_err(|_| {
        let id = value.split_once("/p2p/");
        if let Some((_, id)) = id.filter(|(addr, _)| addr.parse::<Multiaddr>().is_ok()) {
            let problem = format!("the ID after /p2p {}", peer_id_fault(id));
            return Error::new(option, value, problem);
        }
        let example = match option {
            "--listen" => "/ip4/0.0.0.0/tcp/4820",
            "--announce" => "/dns/gate.example.com/tcp/4821",
            _ => "/ip4/192.0.2.1/tcp/4820/p2p/ID",
        };
        Error::new(
            option,
            value,
            format!("it is not a multiaddress; write it like {example}"),
        )
    })?;
    let ids: usize = addr
        .iter()
        .filter(|part| matches!(part, Protocol::P2p(_)))
        .map(|part| Multiaddr::from(part).len())
        .sum();
    let bytes = addr.len() - ids;
    if bytes > MAX_ADDR_LEN {
        return Err(Error::new(
            option,
            value,
            format!(
                "it has {bytes} bytes in binary form, and {MAX_ADDR_LEN} is the most; use a \
                 shorter name"
            ),
        ));
    }
    Ok(addr)
}
