//! Rivals: two devices with one identity, a copied SD card for instance (PROTOCOL.md, section 3).
//!
//! Each of the two replaces the heartbeat stream of the other. The third replacement from another
//! host within one minute is not made at once: its first beat waits until the device that holds the
//! stream has shown whether it is still there.
//!
//! ```text
//!            the third within a minute              it answers: a beat, a pong
//!  Counting ───────────────────────────▶ Checking ─────────────────────────────▶ Refusing
//!     ▲                                   │    ▲                                 for 1 min
//!     └──── it does not answer for 2 s ───┘    └── the refused host comes again ────┘
//!           the newcomer replaces it                after that minute
//! ```
//!
//! So a host that moves between two networks and back is refused nothing, because its earlier
//! connection does not answer; and while the same two devices meet, the one that holds the stream is
//! not replaced any more.
//!
//! Invariants: a device that comes from one host is never held up and never refused, however often
//! it comes; a newcomer is refused only after the other device has answered since the newcomer came,
//! for one minute, and then it is checked again; a first beat waits for 2 s at most, and one for
//! each identity; what is contested is named to the log once, and its end once: ten minutes without
//! the other device, or the device that was kept does not answer or gave its lease up. Only streams
//! that brought a valid beat are counted.

use core::{fmt::Write as _, time::Duration};

use heapless::Vec;

use super::{
    Ack, Action, Instant, PeerId, Reason, StreamId,
    address::{Host, Source},
    native::probe::PROBE_TIMEOUT,
    table::TableStats,
};

/// Identities whose replacements are counted at a time; one more, and the one that was quiet the longest is forgotten, one that is
/// not contested first.
const MAX_RIVALS: usize = 16;
/// So many replacements within [`WINDOW`] make rivals.
const REPLACEMENTS: usize = 3;
/// In which time replacements are counted, and for how long the newcomer is refused (PROTOCOL.md).
pub const WINDOW: Duration = Duration::from_secs(60);
/// Time without the other device after which what comes next is news: 10 min.
const EPISODE: Duration = Duration::from_secs(10 * 60);

/// What is to be done with the first beat of a heartbeat stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstBeat {
    /// Give it to the machine now.
    Now,
    /// Keep it until [`Action::Judge`] names its stream, or [`Action::Close`] does.
    Held,
}

/// An identity that two devices use, as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contested {
    /// The identity.
    pub peer: PeerId,
    /// Where the device is that was kept.
    pub kept: Host,
    /// Where the device is that was refused.
    pub refused: Host,
    /// When it was found out last that both are there.
    pub at: Instant,
}

/// The stream of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) stream: StreamId,
    pub(super) host: Host,
}

/// What becomes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Newcomer {
    /// Its first beat is judged now.
    Judged,
    /// It waits, in place of an earlier one.
    Waits { instead_of: Option<StreamId> },
}

/// Whether the device that holds the stream is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// It is to be pinged.
    Unasked,
    /// It is pinged since then.
    Asked,
    Answered,
    Silent,
}

/// A newcomer that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    holder: Holder,
    presence: Presence,
    since: Instant,
    newcomer: StreamId,
    source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rival {
    peer: PeerId,
    /// The replacements of the last minute.
    replaced: Vec<Instant, { REPLACEMENTS - 1 }>,
    last: Instant,
    check: Option<Check>,
    verdict: Option<Contested>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum News {
    Begins(Contested),
    Ends(PeerId),
}

/// The identities whose streams were replaced from another host lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rivals {
    /// The stream whose first beat comes next. A list of one: `None` would not be all zeroes.
    opened: Vec<(PeerId, StreamId, Source), 1>,
    all: Vec<Rival, MAX_RIVALS>,
    /// What was not said in the log yet.
    news: Vec<News, 4>,
    refused: u64,
    evicted: u64,
}

impl Rivals {
    /// No identity is contested.
    pub const fn new() -> Self {
        Self {
            opened: Vec::new(),
            all: Vec::new(),
            news: Vec::new(),
            refused: 0,
            evicted: 0,
        }
    }

    /// The first beat of a stream came from there, and is judged next.
    pub(super) fn opened(&mut self, peer: &PeerId, stream: StreamId, source: Source) {
        self.opened.clear();
        // There is room now.
        let _ = self.opened.push((*peer, stream, source));
    }

    /// Where the stream comes from whose first beat is judged now.
    pub(super) fn source(&self, peer: &PeerId, stream: StreamId) -> Option<Source> {
        let mut opened = self.opened.iter();
        let is_it = |(of, id, _): &&(PeerId, StreamId, Source)| (of, *id) == (peer, stream);
        opened.find(is_it).map(|(_, _, source)| *source)
    }

    /// A stream of the peer from another host is about to replace the one of the holder, which is open.
    pub(super) fn newcomer(
        &mut self,
        now: Instant,
        peer: &PeerId,
        holder: Holder,
        stream: StreamId,
        source: Source,
    ) -> Newcomer {
        let Some(rival) = self.rival(now, peer) else {
            self.refused += 1;
            return Newcomer::Judged;
        };
        rival.last = now;
        let contested = rival.verdict.as_ref();
        if contested.is_some_and(|verdict| verdict.refuses(now, source.host)) {
            return Newcomer::Judged;
        }
        rival.replaced.retain(|at| now - *at <= WINDOW);
        let is_known = contested.is_some_and(|verdict| verdict.kept != source.host);
        if !is_known && rival.check.is_none() && rival.replaced.push(now).is_ok() {
            return Newcomer::Judged;
        }
        let earlier = rival.check.take();
        let instead_of = earlier.as_ref().map(|check| check.newcomer);
        let (presence, since) = match earlier.filter(|check| check.holder == holder) {
            Some(check) => (check.presence, check.since),
            None => (Presence::Unasked, now),
        };
        rival.check = Some(Check {
            holder,
            presence,
            since,
            newcomer: stream,
            source,
        });
        Newcomer::Waits { instead_of }
    }

    /// A ping over this stream's connection has ended.
    pub(super) fn probed(&mut self, peer: &PeerId, stream: StreamId, alive: bool) {
        let presence = match alive {
            true => Presence::Answered,
            false => Presence::Silent,
        };
        self.settle(peer, presence, |holder| holder.stream == stream);
    }

    /// The peer beat from this host: it is there.
    pub(super) fn beat_from(&mut self, peer: &PeerId, host: Host) {
        self.settle(peer, Presence::Answered, |holder| holder.host == host);
    }

    /// What the newcomer is told, if it is refused.
    pub(super) fn refusal(
        &self,
        now: Instant,
        peer: &PeerId,
        newcomer: Host,
    ) -> Option<Ack<'static>> {
        let rival = self.all.iter().find(|rival| rival.peer == *peer)?;
        let verdict = rival.verdict.as_ref()?;
        verdict
            .refuses(now, newcomer)
            .then(|| refusal(verdict.kept))
    }

    /// Whether the identity is contested: what a device says under it may be said by the other.
    pub(super) fn is_contested(&self, peer: &PeerId) -> bool {
        let mut all = self.all.iter();
        all.any(|rival| rival.peer == *peer && rival.verdict.is_some())
    }

    /// The peer gave its lease up: a device that comes now has no rival.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        if let Some(rival) = self.all.iter_mut().find(|rival| rival.peer == *peer) {
            rival.replaced.clear();
            if rival.verdict.take().is_some() {
                self.tell(News::Ends(*peer));
            }
        }
        self.settle(peer, Presence::Silent, |_| true);
    }

    /// What is to be done at `now`, if anything.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Action> {
        self.expire(now);
        if let Some(news) = self.news.pop() {
            return Some(match news {
                News::Begins(contested) => Action::Contested(contested),
                News::Ends(peer) => Action::Uncontested { peer },
            });
        }
        let mut all = self.all.iter_mut();
        if let Some((peer, check)) = all.find_map(|rival| rival.unasked()) {
            check.presence = Presence::Asked;
            let stream = check.holder.stream;
            return Some(Action::ProbeStream { peer, stream });
        }
        let decided = |rival: &Rival| rival.check.as_ref()?.is_rival(now);
        let mut all = self.all.iter().enumerate();
        let (at, is_rival) = all.find_map(|(at, rival)| Some((at, decided(rival)?)))?;
        self.judge(at, is_rival, now)
    }

    /// When [`Rivals::poll`] has something to do.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let next = |rival: &Rival| match &rival.check {
            Some(check) if check.presence == Presence::Asked => Some(check.since + PROBE_TIMEOUT),
            Some(_) => Some(Instant::default()),
            None => rival.verdict.as_ref().map(|_| rival.last + EPISODE),
        };
        let news = (!self.news.is_empty()).then(Instant::default);
        self.all.iter().filter_map(next).chain(news).min()
    }

    /// The identities that were contested in the last ten minutes.
    pub(super) fn contested(&self) -> impl Iterator<Item = &Contested> {
        self.all.iter().filter_map(|rival| rival.verdict.as_ref())
    }

    /// What the operator sees. Refused: replacements that were made without being counted, because
    /// every place is taken by a check.
    pub(super) fn stats(&self) -> TableStats {
        TableStats {
            name: "takeovers",
            used: self.all.len(),
            capacity: MAX_RIVALS,
            refused: self.refused,
            evicted: self.evicted,
        }
    }

    /// Ends the check of this rival: its newcomer is judged now.
    fn judge(&mut self, at: usize, is_rival: bool, now: Instant) -> Option<Action> {
        let rival = self.all.get_mut(at)?;
        let peer = rival.peer;
        let Check {
            holder,
            newcomer,
            source,
            ..
        } = rival.check.take()?;
        rival.replaced.clear();
        if is_rival {
            let contested = Contested {
                peer,
                kept: holder.host,
                refused: source.host,
                at: now,
            };
            if rival.verdict.replace(contested.clone()).is_none() {
                self.tell(News::Begins(contested));
            }
        } else if let Some(verdict) = &mut rival.verdict {
            if verdict.refused == source.host {
                rival.verdict = None;
                self.tell(News::Ends(peer));
            } else {
                // The device that was kept has moved.
                verdict.kept = source.host;
            }
        }
        self.opened(&peer, newcomer, source);
        Some(Action::Judge {
            peer,
            stream: newcomer,
        })
    }

    fn expire(&mut self, now: Instant) {
        let is_over = |rival: &Rival| rival.check.is_none() && now - rival.last >= EPISODE;
        while let Some(at) = self.all.iter().position(is_over) {
            let over = self.all.swap_remove(at);
            if over.verdict.is_some() {
                self.tell(News::Ends(over.peer));
            }
        }
    }

    fn settle(&mut self, peer: &PeerId, presence: Presence, is_meant: impl Fn(&Holder) -> bool) {
        let checked = self.all.iter_mut().find(|rival| rival.peer == *peer);
        if let Some(check) = checked.and_then(|rival| rival.check.as_mut())
            && matches!(check.presence, Presence::Unasked | Presence::Asked)
            && is_meant(&check.holder)
        {
            check.presence = presence;
        }
    }

    fn tell(&mut self, news: News) {
        // Only a line of the log is lost if the driver does not poll.
        let _ = self.news.push(news);
    }

    fn rival(&mut self, now: Instant, peer: &PeerId) -> Option<&mut Rival> {
        if !self.all.iter().any(|rival| rival.peer == *peer) {
            if self.all.is_full() {
                let all = self.all.iter().enumerate();
                let may_go = all.filter(|(_, rival)| rival.check.is_none());
                let (at, _) =
                    may_go.min_by_key(|(_, rival)| (rival.verdict.is_some(), rival.last))?;
                self.all.swap_remove(at);
                self.evicted += 1;
            }
            // There is room now.
            let _ = self.all.push(Rival {
                peer: *peer,
                replaced: Vec::new(),
                last: now,
                check: None,
                verdict: None,
            });
        }
        self.all.iter_mut().find(|rival| rival.peer == *peer)
    }
}

impl Rival {
    fn unasked(&mut self) -> Option<(PeerId, &mut Check)> {
        let check = self.check.as_mut()?;
        (check.presence == Presence::Unasked).then_some((self.peer, check))
    }
}

impl Check {
    /// Whether the newcomer is a rival, as soon as that is known.
    fn is_rival(&self, now: Instant) -> Option<bool> {
        match self.presence {
            Presence::Answered => Some(true),
            Presence::Silent => Some(false),
            Presence::Unasked | Presence::Asked => {
                (now >= self.since + PROBE_TIMEOUT).then_some(false)
            }
        }
    }
}

impl Contested {
    fn refuses(&self, now: Instant, host: Host) -> bool {
        self.refused == host && now - self.at < WINDOW
    }
}

fn refusal(kept: Host) -> Ack<'static> {
    let mut ack = Ack::refused("");
    let mut reason = Reason::new();
    // The longest address leaves room.
    let _ = write!(
        reason,
        "a device at {kept} has your identity: on the copy, remove `identity` in its data directory"
    );
    ack.reason = reason;
    ack
}
#[cfg(test)]
mod tests;
