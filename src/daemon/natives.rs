//! The configured natives: those given, those remembered, and those that `/dnsaddr` names.
//!
//! A `/dnsaddr` without `/p2p` is resolved repeatedly by a task of its own, because an operator
//! moves a native by changing its records.

use std::time::Duration;

use async_io::Timer;
use libp2p::{Multiaddr, multiaddr::Protocol};
use smol::channel::{Receiver, Sender, bounded};

use super::{clock, servers::tries as in_words, status::Span};
use crate::{
    config::NativeAddr,
    net::{convert, dns::Resolver, executor},
    protocol::{Addrs, Instant, PeerId, capacities::MAX_NATIVES},
};

/// The time after a successful lookup until the next one.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// The first and the longest pause after a failed lookup.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A native that has become known, and its addresses.
pub(super) type Learned = (PeerId, Addrs);

/// What the given natives say before one is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    /// This process is among them.
    pub(super) has_itself: bool,
    /// Those that are given by a name, which has to be resolved.
    pub(super) by_name: Vec<String>,
}

impl Given {
    pub(super) fn of(natives: &[NativeAddr], own: &PeerId) -> Self {
        let by_name = natives.iter().filter(|native| native.peer.is_none());
        Self {
            has_itself: given(natives).iter().any(|(native, _)| native == own),
            by_name: by_name.map(|native| native.addr.to_string()).collect(),
        }
    }
}

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
    let mut outage = Outage::default();
    loop {
        let resolved = resolver.resolve(&addr).await.map(named);
        let now = Instant::from_millis(clock::boottime());
        let pause = match resolved {
            Ok(natives) if !natives.is_empty() => {
                if let Some((lasted, tries)) = outage.over(now) {
                    log::info!(
                        "{addr} is resolved again after {}, {}",
                        Span::of(lasted),
                        in_words(tries)
                    );
                }
                for native in natives {
                    if found.send(native).await.is_err() {
                        return;
                    }
                }
                retry = RETRY_FIRST;
                LOOK_AGAIN
            }
            Ok(_) => {
                let why = "its records name no peer: they must end in /p2p/ID";
                if outage.is_new(now, why) {
                    log::warn!(
                        "{addr}: {why}; looks again every {} s",
                        LOOK_AGAIN.as_secs()
                    );
                }
                LOOK_AGAIN
            }
            Err(error) => {
                let why = error.to_string();
                if outage.is_new(now, &why) {
                    log::warn!(
                        "{addr}: {why}; tries again in {} s, and says only other reasons",
                        retry.as_secs()
                    );
                }
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

/// Reasons that are said of one outage.
const MOST_TOLD: usize = 4;

/// For how long a name has led to no native, and why.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    /// The reasons that were said: those of a broken resolver take turns.
    told: Vec<String>,
    tries: u64,
}

impl Outage {
    /// A lookup has failed. Returns whether that is to be said: the first time, and for up to
    /// [`MOST_TOLD`] reasons.
    fn is_new(&mut self, now: Instant, why: &str) -> bool {
        self.since.get_or_insert(now);
        self.tries = self.tries.saturating_add(1);
        let is_new = self.told.len() < MOST_TOLD && self.told.iter().all(|told| told != why);
        if is_new {
            self.told.push(why.to_owned());
        }
        is_new
    }

    /// A lookup has succeeded. Returns how long none did, and the number of tries, if one failed
    /// before.
    fn over(&mut self, now: Instant) -> Option<(Duration, u64)> {
        let Self { since, tries, .. } = std::mem::take(self);
        Some((now - since?, tries))
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
    fn names_that_are_not_resolved_are_told_for_each_reason_once_and_their_return() {
        let at = Instant::from_millis;
        let mut outage = Outage::default();
        assert_eq!(outage.over(at(0)), None);
        for (now, why, is_new) in [(1, "a", true), (2, "b", true), (3, "a", false)] {
            assert_eq!(outage.is_new(at(now), why), is_new, "{now}");
        }
        assert_eq!(outage.over(at(61_001)), Some((Duration::from_secs(61), 3)));
        assert_eq!(outage.over(at(61_002)), None);
        assert!(outage.is_new(at(61_003), "b"), "it is another outage");
    }

    #[test]
    fn given_names_wait_to_be_resolved() {
        let native = |peer, addr: &str| NativeAddr {
            peer,
            addr: addr.parse().unwrap(),
        };
        let given = [
            native(Some(id(1)), "/ip4/192.0.2.1/tcp/1"),
            native(None, "/dnsaddr/example.com"),
        ];
        let of = |n| Given::of(&given, &PeerId::from_bytes([n; 32]));
        assert_eq!((of(1).has_itself, of(2).has_itself), (true, false));
        assert_eq!(of(1).by_name, ["/dnsaddr/example.com"]);
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
