//! The configured natives: those given, those remembered, and those that `/dnsaddr` names.
//!
//! A `/dnsaddr` without `/p2p` is resolved repeatedly by a task of its own, because an operator
//! moves a native by changing its records.

use std::time::Duration;

use async_io::Timer;
use libp2p::{Multiaddr, multiaddr::Protocol};
use smol::channel::{Receiver, Sender, bounded};

use crate::{
    config::NativeAddr,
    net::{convert, dns::Resolver, executor},
    protocol::{Addrs, PeerId, capacities::MAX_NATIVES},
};

/// The time after a successful lookup until the next one.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// The first and the longest pause after a failed lookup.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A native that has become known, and its addresses.
pub(super) type Learned = (PeerId, Addrs);

/// The natives that are given with their peer ids, each once with all its addresses.
pub(super) fn given(natives: &[NativeAddr]) -> Vec<Learned> {
    let given = natives
        .iter()
        .filter_map(|native| Some((PeerId::try_from(native.peer?).ok()?, native.addr.clone())));
    grouped(given)
}

/// Resolves the other natives. The results are sent through the channel as long as it is open.
pub(super) fn resolve(natives: &[NativeAddr]) -> Receiver<Learned> {
    let (found, learned) = bounded(MAX_NATIVES);
    for native in natives.iter().filter(|native| native.peer.is_none()) {
        executor::spawn(look(native.addr.clone(), found.clone()));
    }
    learned
}

async fn look(addr: Multiaddr, found: Sender<Learned>) {
    let resolver = Resolver::of_this_thread();
    let mut retry = RETRY_FIRST;
    loop {
        let pause = match resolver.resolve(&addr).await.map(named) {
            Ok(natives) if !natives.is_empty() => {
                for native in natives {
                    if found.send(native).await.is_err() {
                        return;
                    }
                }
                retry = RETRY_FIRST;
                LOOK_AGAIN
            }
            Ok(_) => {
                log::warn!("{addr}: its records name no peer: they must end in /p2p/ID");
                LOOK_AGAIN
            }
            Err(error) => {
                log::warn!("{addr}: {error}; tries again in {} s", retry.as_secs());
                let pause = retry;
                retry = (retry * 2).min(RETRY_MAX);
                pause
            }
        };
        Timer::after(pause).await;
        // A reload has given other natives. A name that leads nowhere would be asked for ever.
        if found.is_closed() {
            return;
        }
    }
}

/// The natives among these addresses, each of which ends in `/p2p`.
pub(super) fn named(addrs: Vec<Multiaddr>) -> Vec<Learned> {
    grouped(addrs.into_iter().filter_map(|mut addr| match addr.pop()? {
        Protocol::P2p(peer) => Some((PeerId::try_from(peer).ok()?, addr)),
        _ => None,
    }))
}

fn grouped(natives: impl Iterator<Item = (PeerId, Multiaddr)>) -> Vec<Learned> {
    let mut all: Vec<(PeerId, Vec<Multiaddr>)> = Vec::new();
    for (peer, addr) in natives {
        match all.iter_mut().find(|(known, _)| *known == peer) {
            Some((_, addrs)) => addrs.push(addr),
            None => all.push((peer, vec![addr])),
        }
    }
    all.into_iter()
        .map(|(peer, addrs)| (peer, convert::to_addrs(&addrs)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> libp2p::PeerId {
        PeerId::from_bytes([n; 32]).into()
    }

    #[test]
    fn a_native_with_two_addresses_is_one_native() {
        let native = |n, addr: &str| NativeAddr {
            peer: Some(id(n)),
            addr: addr.parse().unwrap(),
        };
        let given = given(&[
            native(1, "/ip4/192.0.2.1/tcp/1"),
            native(2, "/ip4/192.0.2.2/tcp/1"),
            native(1, "/ip6/2001:db8::1/tcp/1"),
        ]);
        let counts: Vec<_> = given.iter().map(|(_, addrs)| addrs.len()).collect();
        assert_eq!(counts, [2, 1]);
    }

    #[test]
    fn records_without_a_peer_name_no_native() {
        let with = format!("/ip4/192.0.2.1/tcp/1/p2p/{}", id(1))
            .parse()
            .unwrap();
        let found = named(vec!["/ip4/192.0.2.1/tcp/1".parse().unwrap(), with]);
        assert_eq!(found.len(), 1);
    }
}
