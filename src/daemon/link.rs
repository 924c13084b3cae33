//! Natives without configuration: an indexer or a node that is given none asks the link, then the
//! search domains of the host; a native answers on the link.
//! [`protocol::link`](crate::protocol::link) decides when, and which natives are trusted.
//!
//! Invariants: what was found and is not trusted is logged with what to type, and shown in `status`
//! while it is heard, at most [`MAX_FOUND`] of them; with a lease no socket is open; nothing is
//! asked or answered while all own addresses are on loopback.

use std::time::Duration;

use libp2p::{Multiaddr, multiaddr::Protocol};
use smol::channel::{Receiver, Sender, bounded};
#[cfg(feature = "mdns")]
use smol::future::or;

use super::{driver::Driver, natives, report::text};
use crate::{
    config::{Config, Role},
    net::{dns::Resolver, each::each, executor, is_for_this_host, multiaddrs},
    protocol::{
        Addrs, Instant, MAX_ADDRS, PeerId, TableStats, Verdict,
        link::{Asking, FoundNatives, Grounds, Need, Origin, Trust, Via, trust},
    },
};
#[cfg(feature = "mdns")]
use crate::{
    net::mdns::{Mdns, Said},
    protocol::link::Answering,
};

/// Natives that were found and are not trusted: the most that are remembered.
const MAX_FOUND: usize = 8;
/// One of them is forgotten if it was not heard for so long: an answer on the link is valid for two
/// minutes, and the domains are asked every eighth minute.
const FORGET: Duration = Duration::from_secs(600);
/// With the third question, 3 s after the first, the search domains are asked too, and then with
/// every eighth: the link has had time to answer, and questions are a minute apart then.
const DOMAINS_FROM: u32 = 3;
const DOMAINS_EVERY: u32 = 8;
/// Rounds over the search domains with results that the loop has not taken yet.
const MAX_ROUNDS: usize = 8;
/// The name under each search domain at which TXT records name natives.
const DOMAIN_NAME: &str = "oc-discovery";

/// What this process does on the link.
pub(super) struct OnLink {
    part: Part,
    /// `None`: multicast DNS is off.
    #[cfg(feature = "mdns")]
    mdns: Option<Mdns>,
    candidates: FoundNatives,
    found: Vec<Found>,
    by_domain: (Sender<Vec<Multiaddr>>, Receiver<Vec<Multiaddr>>),
    has_key: bool,
    trusts_link: bool,
}

enum Part {
    /// Natives are given, or this is a native without multicast DNS.
    None,
    /// With the number of questions so far.
    Asks(Asking, u32),
    #[cfg(feature = "mdns")]
    Answers {
        when: Answering,
        told: Vec<Multiaddr>,
    },
}

impl Part {
    fn of(config: &Config, now: Instant, seed: u64) -> Self {
        match config.role {
            #[cfg(feature = "mdns")]
            Role::Native if config.mdns => Self::Answers {
                when: Answering::new(seed),
                told: Vec::new(),
            },
            Role::Indexer | Role::Node if config.natives.is_empty() => {
                Self::Asks(Asking::new(now, seed), 0)
            }
            _ => Self::None,
        }
    }
}

/// What the link and the search domains say, for the loop.
pub(super) struct LinkEvents {
    #[cfg(feature = "mdns")]
    said: Option<Receiver<Said>>,
    by_domain: Receiver<Vec<Multiaddr>>,
}

/// One thing that is said.
pub(super) enum LinkEvent {
    #[cfg(feature = "mdns")]
    Said(Said),
    /// A search domain names natives.
    Named(Vec<Multiaddr>),
}

impl LinkEvents {
    /// The next one. Cancel-safe.
    pub(super) async fn next(&self) -> LinkEvent {
        let event = async { self.by_domain.recv().await.map(LinkEvent::Named) };
        #[cfg(feature = "mdns")]
        let event = or(event, async {
            match &self.said {
                Some(said) => said.recv().await.map(LinkEvent::Said),
                None => std::future::pending().await,
            }
        });
        match event.await {
            Ok(event) => event,
            // The sender is dropped with the driver, at the end.
            Err(_) => std::future::pending().await,
        }
    }
}

/// A native that was found and is not trusted.
struct Found {
    peer: PeerId,
    heard: Instant,
    /// Its first address, in the form of `--native`.
    option: String,
}

impl OnLink {
    /// The part of a process with this configuration.
    pub(super) fn new(config: &Config, own: PeerId, now: Instant, seed: u64) -> Self {
        let part = Part::of(config, now, seed);
        #[cfg(not(feature = "mdns"))]
        let _ = own;
        Self {
            part,
            #[cfg(feature = "mdns")]
            mdns: config.mdns.then(|| Mdns::new(own)),
            candidates: FoundNatives::default(),
            found: Vec::new(),
            by_domain: bounded(MAX_ROUNDS),
            has_key: config.psk.is_some(),
            trusts_link: config.trust_lan,
        }
    }

    /// What is said comes here.
    pub(super) fn events(&self) -> LinkEvents {
        LinkEvents {
            #[cfg(feature = "mdns")]
            said: self.mdns.as_ref().map(Mdns::said),
            by_domain: self.by_domain.1.clone(),
        }
    }

    /// Natives that were found in the last minutes and are not trusted, in the form of `--native`.
    pub(super) fn found(&self, now: Instant) -> Vec<String> {
        let recent = self.found.iter().filter(|found| now - found.heard < FORGET);
        recent.map(|found| found.option.clone()).collect()
    }

    /// The statistics of the natives that must answer before they are known, and of the messages of
    /// multicast DNS.
    pub(super) fn stats(&self) -> impl Iterator<Item = TableStats> {
        #[cfg(feature = "mdns")]
        let messages = self.mdns.as_ref().map(Mdns::stats);
        #[cfg(not(feature = "mdns"))]
        let messages = None;
        [Some(self.candidates.stats()), messages]
            .into_iter()
            .flatten()
    }
}

impl Driver<'_> {
    /// When [`Driver::speak_if_due`] has work without an event.
    pub(super) fn link_timeout(&self) -> Option<Instant> {
        match &self.link.part {
            Part::None => None,
            Part::Asks(asking, _) => {
                let timeouts = [asking.timeout(self.need()), self.link.candidates.timeout()];
                timeouts.into_iter().flatten().min()
            }
            #[cfg(feature = "mdns")]
            Part::Answers { when, .. } => when.timeout(),
        }
    }

    /// Asks or answers on the link, if it is time.
    pub(super) fn speak_if_due(&mut self, now: Instant) {
        if matches!(self.link.part, Part::None) {
            return;
        }
        while let Some((peer, addrs)) = self.link.candidates.poll(now) {
            self.env.net.probe(peer, &addrs);
        }
        let need = self.need();
        let mut addrs = announced(self.env.net.record_addrs()).peekable();
        let OnLink {
            part,
            #[cfg(feature = "mdns")]
            mdns,
            by_domain,
            ..
        } = &mut self.link;
        match part {
            Part::None => {}
            Part::Asks(asking, questions) => {
                #[cfg(feature = "mdns")]
                if let (Need::Nothing, Some(mdns)) = (need, &mut *mdns) {
                    mdns.close();
                }
                if !asking.poll(now, need) || addrs.peek().is_none() {
                    return;
                }
                #[cfg(feature = "mdns")]
                if let Some(mdns) = mdns {
                    mdns.join();
                    mdns.ask();
                }
                *questions = questions.wrapping_add(1);
                if *questions % DOMAINS_EVERY == DOMAINS_FROM {
                    executor::spawn(ask_domains(by_domain.0.clone()));
                }
            }
            #[cfg(feature = "mdns")]
            Part::Answers { when, told } => {
                let Some(mdns) = mdns else { return };
                if !told.iter().eq(addrs) {
                    *told = announced(self.env.net.record_addrs()).cloned().collect();
                    mdns.join();
                    when.changed(now);
                }
                if when.poll(now) && !told.is_empty() {
                    mdns.answer(told);
                }
            }
        }
    }

    /// Natives were given by a reload, or are no longer given: looks for some only without.
    #[cfg(feature = "program")]
    pub(super) fn relink(&mut self, before: &Config, after: &Config) {
        self.link.trusts_link = after.trust_lan;
        let has_any = |config: &Config| !config.natives.is_empty();
        if after.role != Role::Native && has_any(before) != has_any(after) {
            let now = self.env.now();
            self.link.part = Part::of(after, now, now.as_millis());
            self.link.candidates.clear();
            self.link.found.clear();
            #[cfg(feature = "mdns")]
            if let Some(mdns) = &mut self.link.mdns {
                mdns.close();
            }
        }
    }

    fn need(&self) -> Need {
        match self.holds_a_lease() {
            true => Need::Nothing,
            false => Need::Natives,
        }
    }

    /// The host's links may have changed.
    pub(super) fn link_changed(&mut self, now: Instant) {
        match &mut self.link.part {
            Part::None => {}
            Part::Asks(asking, _) => asking.restart(now),
            #[cfg(feature = "mdns")]
            Part::Answers { when, .. } => when.changed(now),
        }
        #[cfg(feature = "mdns")]
        self.join_link();
    }

    /// Joins the links that came, if they are needed.
    #[cfg(feature = "mdns")]
    fn join_link(&mut self) {
        let is_reachable = announced(self.env.net.record_addrs()).next().is_some();
        let is_needed = match self.link.part {
            Part::None => false,
            Part::Asks(..) => self.need() == Need::Natives,
            Part::Answers { .. } => true,
        };
        if let (true, true, Some(mdns)) = (is_reachable, is_needed, &mut self.link.mdns) {
            mdns.join();
        }
    }

    /// A ping has ended, perhaps that of a native that was found.
    pub(super) fn link_probed(&mut self, peer: &PeerId, verdict: Verdict) {
        if let Some((addrs, origin)) = self.link.candidates.probed(peer, verdict) {
            log_use(peer, &addrs, origin);
            self.on_learned((*peer, addrs));
        }
    }

    /// Something was said on the link or by a search domain.
    pub(super) fn on_link(&mut self, event: LinkEvent) {
        match (&mut self.link.part, event) {
            #[cfg(feature = "mdns")]
            (Part::Answers { when, .. }, LinkEvent::Said(Said::Question)) => {
                when.asked(self.env.now())
            }
            #[cfg(feature = "mdns")]
            (Part::Asks(..), LinkEvent::Said(Said::Natives(addrs))) => {
                self.on_found(addrs, Via::Link)
            }
            (Part::Asks(..), LinkEvent::Named(addrs)) => self.on_found(addrs, Via::Domain),
            _ => {}
        }
    }

    /// Natives were found at these addresses.
    fn on_found(&mut self, addrs: Vec<Multiaddr>, via: Via) {
        for (peer, addrs) in natives::named(addrs) {
            if peer == self.env.own {
                continue;
            }
            let remembered = &self.state.state().state.natives;
            let grounds = Grounds {
                is_remembered: remembered.iter().any(|(known, _)| *known == peer),
                has_key: self.link.has_key,
                trusts_link: self.link.trusts_link,
            };
            let Some(trust) = trust(grounds) else {
                self.tell_found(peer, &addrs);
                continue;
            };
            let origin = Origin { via, trust };
            match self.env.machine().addrs_of(&peer) {
                None => self.link.candidates.heard(peer, &addrs, origin),
                Some(known) => {
                    let joined = joined(known, &addrs);
                    if *known != joined {
                        log_use(&peer, &addrs, origin);
                        self.on_learned((peer, joined));
                    }
                }
            }
        }
    }

    /// Says at the end that this native is leaving.
    pub(super) fn leave_link(&mut self) {
        #[cfg(feature = "mdns")]
        if let (Part::Answers { .. }, Some(mdns)) = (&self.link.part, &self.link.mdns) {
            mdns.leave();
        }
        self.link.part = Part::None;
    }

    fn tell_found(&mut self, peer: PeerId, addrs: &Addrs) {
        let now = self.env.now();
        let found = &mut self.link.found;
        if let Some(known) = found.iter_mut().find(|found| found.peer == peer) {
            known.heard = now;
            return;
        }
        found.retain(|found| now - found.heard < FORGET);
        if found.len() >= MAX_FOUND {
            return;
        }
        let Some(addr) = multiaddrs(addrs).into_iter().next() else {
            return;
        };
        let option = format!("{addr}/p2p/{}", text(&peer));
        log::warn!(
            "found a native on this network: to use it, start with --native {option}, or with --trust-lan to use \
             whoever says on the link that it is one"
        );
        found.push(Found {
            peer,
            heard: now,
            option,
        });
    }

    fn holds_a_lease(&self) -> bool {
        let mut holds = false;
        self.env
            .machine()
            .servers(self.env.now(), &mut |server| holds |= server.is_held);
        holds
    }
}

/// The addresses to try of a native that was found: half of the places are for what was known of it
/// already, because any host on the link can name wrong addresses.
fn joined(known: &Addrs, found: &Addrs) -> Addrs {
    let mut known = known.iter();
    let mut joined: Addrs = known.by_ref().take(MAX_ADDRS / 2).cloned().collect();
    for addr in found.iter().chain(known) {
        if !joined.contains(addr) && joined.push(addr.clone()).is_err() {
            break;
        }
    }
    joined
}

/// Tells the operator that a native is used that was not given.
fn log_use(peer: &PeerId, addrs: &Addrs, origin: Origin) {
    let Some(addr) = multiaddrs(addrs).into_iter().next() else {
        return;
    };
    let via = match origin.via {
        Via::Link => "multicast DNS",
        Via::Domain => "the DNS of a search domain",
    };
    let why = match origin.trust {
        Trust::Remembered => "it is known from before",
        Trust::Key => "the network has a key",
        Trust::Link => "--trust-lan is given",
    };
    let id = text(peer);
    each!(
        info,
        "uses the native {addr}/p2p/{id}: found by {via}, and trusted because {why}"
    );
}

/// The addresses that others on a link can use.
fn announced(addrs: &[Multiaddr]) -> impl Iterator<Item = &Multiaddr> {
    addrs.iter().filter(|addr| !is_for_this_host(addr))
}

/// Asks the search domains of this host for natives, one after another.
async fn ask_domains(found: Sender<Vec<Multiaddr>>) {
    let resolver = Resolver::of_this_thread();
    for domain in resolver.search_domains() {
        let name = format!("{DOMAIN_NAME}.{}", domain.trim_end_matches('.'));
        let addr = Multiaddr::empty().with(Protocol::Dnsaddr(name.into()));
        match resolver.resolve(&addr).await {
            // If the channel is full, the loop has enough to do.
            Ok(natives) => drop(found.try_send(natives)),
            Err(why) => log::debug!("no native by {addr}: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Addr;

    fn addrs(numbers: &[u8]) -> Addrs {
        let addr = |n: &u8| Addr::from_slice(&[*n]).unwrap();
        numbers.iter().map(addr).collect()
    }

    #[test]
    fn wrong_addresses_of_a_known_native_leave_half_of_what_was_known() {
        let known = addrs(&[1, 2, 3, 4]);
        assert_eq!(joined(&known, &addrs(&[5, 6, 7, 8])), addrs(&[1, 2, 5, 6]));
        assert_eq!(joined(&addrs(&[1]), &addrs(&[5, 1])), addrs(&[1, 5]));
        assert_eq!(joined(&known, &addrs(&[3])), addrs(&[1, 2, 3, 4]));
    }
}
