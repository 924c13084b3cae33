//! Announces services that were found elsewhere on the local link, by multicast DNS (RFC 6762,
//! 6763): what is sent of each, when, on which links, and under which name.
//!
//! ```text
//!          advertise                   3 probes           2 announcements
//!              │   no conflict, 250 ms apart          1 s apart
//!              ▼                          │               │
//!           Probing ──────────────────────┴──▶ Announcing ┴──▶ Announced ── query ──▶ an answer
//!            ▲   │ the name is another's: the next one, ` (2)`   │
//!            │   └──────┐                                        │ the name is another's
//!            └──────────┴────────────────────────────────────────┘
//! ```
//!
//! All records of an advert are sent together, so that the rate is bounded for the whole.
//!
//! Invariants: an advert is multicast at most once a second on each link ([`PAUSE`]; in answer to a
//! probe, after `DEFENCE_PAUSE`); no two adverts of one kind of service have the same name,
//! whatever case its letters have; at most [`MAX_ADVERTS`] adverts; at most 20 unicast replies a
//! second.

use core::{fmt::Write as _, net::IpAddr, time::Duration};

use heapless::{String, Vec};

use super::{
    TableStats,
    address::Subnet,
    codec::service::{ServiceName, Transport},
    cut,
    time::{Bucket, Instant, Rng},
};

pub mod browsing;

/// Adverts at most.
pub const MAX_ADVERTS: usize = 64;
/// Links at most, each a bit of [`LinkSet`].
pub const MAX_LINKS: usize = LinkSet::BITS as usize;
/// Bytes of a name at most: it is one label of the DNS.
pub const MAX_LABEL_LEN: usize = 63;
/// The least time between two multicasts of an advert on a link (RFC 6762, section 6).
pub const PAUSE: Duration = Duration::from_secs(1);
/// The same for an answer to a probe.
const DEFENCE_PAUSE: Duration = Duration::from_millis(250);
/// Number of probes before a name is used, and the pause between them (RFC 6762, section 8.1).
const PROBES: u8 = 3;
const PROBE_PAUSE: Duration = Duration::from_millis(250);
/// After that it is announced so often (section 8.3).
const ANNOUNCEMENTS: u8 = 2;
/// The pause of the loser of a tie between two probes (section 8.2).
const TIE_PAUSE: Duration = Duration::from_secs(1);
/// An answer that others may give too is delayed by a random time between these (section 6).
const SHARED_DELAY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(120));
/// The same where the asker has more to say of what it knows (section 7.2).
const MORE_DELAY: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(500));
/// An asker that wants it gets a unicast answer, if a multicast one is not older than this: a
/// quarter of the shortest time to live (section 5.4).
const RECENT: Duration = Duration::from_secs(30);
/// After so many conflicts within this time, the next probe comes after [`CONFLICT_PAUSE`] (section
/// 8.1).
const MAX_CONFLICTS: u8 = 15;
const CONFLICT_TIME: Duration = Duration::from_secs(10);
const CONFLICT_PAUSE: Duration = Duration::from_secs(5);
/// Unicast replies a second at most. The address of the asker may be forged, and a reply is longer
/// than a question.
const MAX_REPLIES: u32 = 20;

/// A time that does not come.
const NEVER: Instant = Instant::from_millis(u64::MAX);

/// Links, one bit each.
pub type LinkSet = u16;
/// The name of an advert.
pub type Label = String<MAX_LABEL_LEN, u8>;

/// What is sent of one advert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmission {
    /// Is the name taken? On the links of the advert.
    Probe,
    /// All its records, to these links.
    Records(LinkSet),
}

/// Which question asked for an advert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuestionKind {
    /// By a name that only this advert has.
    Unique,
    /// By what others may have, too: the kind of service.
    Shared {
        /// The asker says in a further packet what else it knows.
        truncated: bool,
    },
    /// By another that wants the name.
    Probe,
}

/// The device that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Its address.
    pub ip: IpAddr,
    /// The links that it may be on.
    pub links: LinkSet,
    /// It wants a unicast answer.
    pub wants_unicast: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Probing { sent: u8 },
    Announcing { sent: u8 },
    Announced,
}

#[derive(Clone, Debug, PartialEq)]
struct Advert {
    base: Label,
    /// 1: the base alone.
    number: u16,
    service: ServiceName,
    transport: Transport,
    state: State,
    /// It was announced under this name: links have its records also while it is probed for again.
    was_announced: bool,
    /// When the next probe or announcement is due.
    due: Instant,
    /// When an answer is due on each link, and when the last multicast there was.
    answers: [Instant; MAX_LINKS],
    said: [Instant; MAX_LINKS],
    /// The asker, as long as there is only one.
    asker: Option<IpAddr>,
}

impl Advert {
    fn label(&self) -> Label {
        label(&self.base, self.number)
    }

    fn is_of(&self, service: &ServiceName, transport: Transport) -> bool {
        self.service == *service && self.transport == transport
    }

    fn probe_from(&mut self, due: Instant) {
        (self.state, self.due) = (State::Probing { sent: 0 }, due);
        self.answers = [NEVER; MAX_LINKS];
    }

    fn say(&mut self, now: Instant, links: LinkSet) {
        for at in bits(links) {
            if let (Some(answer), Some(said)) = (self.answers.get_mut(at), self.said.get_mut(at)) {
                (*answer, *said) = (NEVER, now);
            }
        }
    }

    /// The first link on which an answer is due, and when.
    fn answer_at(&self) -> Instant {
        self.answers.iter().copied().min().unwrap_or(NEVER)
    }
}

/// The adverts of this process.
#[derive(Clone, Debug, PartialEq)]
pub struct Adverts {
    /// Slots that are never moved.
    slots: Vec<Option<Advert>, MAX_ADVERTS>,
    rng: Rng,
    refused: u64,
    conflicts: u8,
    conflicts_from: Instant,
    replies: Bucket<MAX_REPLIES, MAX_REPLIES>,
}

impl Adverts {
    /// None yet. `seed` determines the delays.
    pub fn new(seed: u64) -> Self {
        Self {
            slots: (0..MAX_ADVERTS).map(|_| None).collect(),
            rng: Rng::new(seed),
            refused: 0,
            conflicts: 0,
            conflicts_from: Instant::default(),
            replies: Bucket::new(),
        }
    }

    /// Advertises a service, under the name `base` or one that is made of it. Returns its
    /// slot, below [`MAX_ADVERTS`]; `None` if all are taken.
    pub fn advertise(
        &mut self,
        now: Instant,
        base: &str,
        service: &ServiceName,
        transport: Transport,
    ) -> Option<usize> {
        let Some(slot) = self.slots.iter().position(Option::is_none) else {
            self.refused += 1;
            return None;
        };
        let base = label_of(base, MAX_LABEL_LEN);
        let number = self.free_number(&base, 1, service, transport);
        let mut advert = Advert {
            base,
            number,
            service: service.clone(),
            transport,
            state: State::Announced,
            was_announced: false,
            due: NEVER,
            answers: [NEVER; MAX_LINKS],
            said: [Instant::default(); MAX_LINKS],
            asker: None,
        };
        advert.probe_from(now + self.rng.up_to(PROBE_PAUSE));
        *self.slots.get_mut(slot)? = Some(advert);
        Some(slot)
    }

    /// The name of an advert.
    pub fn label(&self, slot: usize) -> Option<Label> {
        self.get(slot).map(Advert::label)
    }

    /// Whether the advert was announced.
    pub fn is_announced(&self, slot: usize) -> bool {
        let probing = |advert: &Advert| matches!(advert.state, State::Probing { .. });
        self.get(slot).is_some_and(|advert| !probing(advert))
    }

    /// The records of an advert are others, or another bridge has said that they are gone: they are
    /// announced.
    pub fn changed(&mut self, now: Instant, slot: usize) {
        if let Some(advert) = self.announced(slot) {
            let last = advert.said.iter().copied().max().unwrap_or_default();
            advert.state = State::Announcing { sent: 0 };
            advert.due = now.max(last + PAUSE);
        }
    }

    /// The service is gone. Returns whether it was announced: then a goodbye must be sent now.
    pub fn withdraw(&mut self, slot: usize) -> bool {
        let advert = self.slots.get_mut(slot).and_then(Option::take);
        advert.is_some_and(|advert| advert.was_announced)
    }

    /// A device asks for an advert. Returns whether to answer by unicast, now.
    pub fn asked(&mut self, now: Instant, slot: usize, how: QuestionKind, asker: &Asker) -> bool {
        let delay = match how {
            QuestionKind::Unique | QuestionKind::Probe => Duration::ZERO,
            QuestionKind::Shared { truncated: false } => between(&mut self.rng, SHARED_DELAY),
            QuestionKind::Shared { truncated: true } => between(&mut self.rng, MORE_DELAY),
        };
        let pause = match how {
            QuestionKind::Probe => DEFENCE_PAUSE,
            _ => PAUSE,
        };
        let Some(advert) = self.announced(slot) else {
            return false;
        };
        let is_recent = |at: usize| advert.said.get(at).is_some_and(|said| now - *said < RECENT);
        if asker.wants_unicast && bits(asker.links).any(is_recent) {
            return true;
        }
        let is_only = advert.answer_at() == NEVER;
        advert.asker = Some(asker.ip).filter(|_| is_only || advert.asker == Some(asker.ip));
        for at in bits(asker.links) {
            if let (Some(answer), Some(said)) = (advert.answers.get_mut(at), advert.said.get(at)) {
                *answer = (*answer).min((now + delay).max(*said + pause));
            }
        }
        false
    }

    /// Whether a unicast reply may be sent now.
    pub fn can_reply(&self, now: Instant) -> bool {
        self.replies.next(1) <= now
    }

    /// A unicast reply is to be sent. Returns whether it may be.
    pub fn reply(&mut self, now: Instant) -> bool {
        self.replies.take(now)
    }

    /// An asker knows the advert already: it is not answered, if no other device has asked.
    pub fn known(&mut self, slot: usize, asker: &Asker) {
        let advert = self.announced(slot);
        if let Some(advert) = advert.filter(|advert| advert.asker == Some(asker.ip)) {
            advert.answers = [NEVER; MAX_LINKS];
        }
    }

    /// Another responder says that the name of the advert is its own.
    pub fn conflict(&mut self, now: Instant, slot: usize) {
        if now - self.conflicts_from > CONFLICT_TIME {
            (self.conflicts, self.conflicts_from) = (0, now);
        }
        self.conflicts = self.conflicts.saturating_add(1);
        let delay = match self.conflicts < MAX_CONFLICTS {
            true => self.rng.up_to(PROBE_PAUSE),
            false => CONFLICT_PAUSE,
        };
        let Some(advert) = self.get(slot) else { return };
        let number = match advert.state {
            State::Probing { .. } => {
                let next = advert.number.saturating_add(1);
                self.free_number(&advert.base, next, &advert.service, advert.transport)
            }
            // The name was its own; probing again finds out which of the two keeps it (section 9).
            _ => advert.number,
        };
        if let Some(advert) = self.get_mut(slot) {
            // Under its old name, the records are the other's.
            advert.was_announced &= number == advert.number;
            advert.number = number;
            advert.probe_from(now + delay);
        }
    }

    /// Another responder probes for the name of the advert, and its records come later in the order
    /// of the DNS: it keeps the name (section 8.2).
    pub fn lost_tie(&mut self, now: Instant, slot: usize) {
        let advert = self.get_mut(slot);
        if let Some(advert) = advert.filter(|advert| matches!(advert.state, State::Probing { .. }))
        {
            advert.probe_from(now + TIE_PAUSE);
        }
    }

    /// There are other links than before: all names are probed for again.
    pub fn restart(&mut self, now: Instant) {
        for advert in self.slots.iter_mut().flatten() {
            advert.probe_from(now + self.rng.up_to(PROBE_PAUSE));
            advert.said = [Instant::default(); MAX_LINKS];
        }
    }

    /// What is to be sent now, and of which advert.
    pub fn poll(&mut self, now: Instant) -> Option<(usize, Transmission)> {
        let mut adverts = self.slots.iter_mut().enumerate();
        adverts.find_map(|(slot, advert)| Some((slot, poll(advert.as_mut()?, now)?)))
    }

    /// When [`Adverts::poll`] has something to send without an event.
    pub fn timeout(&self) -> Option<Instant> {
        let adverts = self.slots.iter().flatten();
        let due = adverts.map(|advert| advert.due.min(advert.answer_at()));
        due.min().filter(|due| *due != NEVER)
    }

    /// The statistics for `status`.
    pub fn stats(&self) -> TableStats {
        TableStats {
            name: "advertised_services",
            used: self.slots.iter().flatten().count(),
            capacity: MAX_ADVERTS,
            refused: self.refused,
            evicted: 0,
        }
    }

    fn get(&self, slot: usize) -> Option<&Advert> {
        self.slots.get(slot)?.as_ref()
    }

    fn get_mut(&mut self, slot: usize) -> Option<&mut Advert> {
        self.slots.get_mut(slot)?.as_mut()
    }

    fn announced(&mut self, slot: usize) -> Option<&mut Advert> {
        match self.is_announced(slot) {
            true => self.get_mut(slot),
            false => None,
        }
    }

    /// The first number from `from` that gives a name which no advert of this kind has.
    fn free_number(
        &self,
        base: &str,
        from: u16,
        service: &ServiceName,
        transport: Transport,
    ) -> u16 {
        let same = |advert: &&Advert| advert.is_of(service, transport);
        let is_free = |number: &u16| {
            let wanted = label(base, *number);
            let mut taken = self.slots.iter().flatten().filter(same);
            !taken.any(|advert| advert.label().eq_ignore_ascii_case(&wanted))
        };
        // Of one more number than there are slots, one is free.
        let mut numbers = (from..=u16::MAX).take(MAX_ADVERTS + 1);
        numbers.find(is_free).unwrap_or(u16::MAX)
    }
}

/// The addresses of a service that a device of a link can reach, as far as this can be known, best
/// first: if some are in a network of the link (`on_link`), these alone; otherwise all of the
/// link's families that are not of the virtual bridges of this host (`bridges`), which many hosts
/// have with the same addresses. A service of a device of another link (`is_of_device`) has none
/// where one of its addresses is on the link: the link knows it already, or has another device
/// there.
pub fn reachable<'a>(
    addrs: &'a [IpAddr],
    on_link: &'a [Subnet],
    bridges: &'a [Subnet],
    is_of_device: bool,
) -> impl Iterator<Item = IpAddr> + 'a {
    let is_in = |subnets: &[Subnet], ip: IpAddr| subnets.iter().any(|net| net.contains(ip));
    let is_near = addrs.iter().any(|ip| is_in(on_link, *ip));
    addrs.iter().copied().filter(move |ip| {
        let is_family = |net: &Subnet| net.ip.is_ipv4() == ip.is_ipv4();
        match is_near {
            true => !is_of_device && is_in(on_link, *ip),
            false => is_of_network(*ip) && on_link.iter().any(is_family) && !is_in(bridges, *ip),
        }
    })
}

/// Whether other hosts than those of one link can have a use for the address.
pub fn is_of_network(ip: IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(is_link_local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast())
}

fn poll(advert: &mut Advert, now: Instant) -> Option<Transmission> {
    if advert.due <= now {
        match advert.state {
            State::Probing { sent } if sent < PROBES => {
                advert.state = State::Probing { sent: sent + 1 };
                advert.due = now + PROBE_PAUSE;
                return Some(Transmission::Probe);
            }
            State::Probing { .. } => {
                (advert.state, advert.was_announced) = (State::Announcing { sent: 0 }, true);
            }
            State::Announcing { .. } | State::Announced => {}
        }
        if let State::Announcing { sent } = advert.state {
            (advert.state, advert.due) = match sent + 1 < ANNOUNCEMENTS {
                true => (State::Announcing { sent: sent + 1 }, now + PAUSE),
                false => (State::Announced, NEVER),
            };
            advert.say(now, LinkSet::MAX);
            return Some(Transmission::Records(LinkSet::MAX));
        }
    }
    let answers = advert.answers.iter().enumerate();
    let due = answers.filter(|(_, due)| **due <= now);
    let links = due.fold(0, |links, (at, _)| links | 1 << at);
    advert.say(now, links);
    (links != 0).then_some(Transmission::Records(links))
}

/// The name `base`, or with a number that is not 1 `base (number)`, cut so that it fits.
fn label(base: &str, number: u16) -> Label {
    let mut suffix = String::<8, u8>::new();
    if number > 1 {
        // It has room for any number.
        let _ = write!(suffix, " ({number})");
    }
    let mut label = label_of(base, MAX_LABEL_LEN - suffix.len());
    let _ = label.push_str(&suffix);
    label
}

fn label_of(text: &str, longest: usize) -> Label {
    Label::try_from(cut(text, longest)).unwrap_or_default()
}

fn bits(links: LinkSet) -> impl Iterator<Item = usize> {
    (0..MAX_LINKS).filter(move |at| links & 1 << at != 0)
}

fn between(rng: &mut Rng, (shortest, longest): (Duration, Duration)) -> Duration {
    shortest + rng.up_to(longest - shortest)
}

#[cfg(test)]
mod tests;
