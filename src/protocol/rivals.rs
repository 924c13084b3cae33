//! Rivals: two devices with one identity, for instance from a copied SD card (PROTOCOL.md, section
//! 3).
//!
//! Each of the two replaces the heartbeat stream of the other. The third replacement from another
//! host within one minute is not made at once: the first beat of the new stream waits until it is
//! known whether the device that holds the stream is still there.
//!
//! ```text
//!            the third within a minute              it answers: a beat, a pong
//!  Counting ───────────────────────────▶ Checking ────────────────────────────▶ Contested:
//!     ▲                                   │    ▲                                the newcomer
//!     └──── it does not answer for 2 s ───┘    └──── another newcomer comes ──── is refused
//!           the newcomer replaces it
//! ```
//!
//! So a host that moves between two networks and back is never refused, because its earlier
//! connection does not answer; and once two devices have met, the host that was refused gets
//! nothing before the lease of the one that was kept is over, even if that one is silent: its
//! connection may be bad, or this server was stopped for a while and the copy came back first. A
//! refused device rests for a minute before it comes again.
//!
//! Two devices behind one address cannot be told from one. That a stream from it replaces one that
//! was heard a moment ago, three times within a minute, is told, and changes nothing
//! ([`home`]).
//!
//! Invariants:
//! - A device that always comes from one host is never delayed and never refused, however often it
//!   reconnects.
//! - A newcomer is refused only if the other device has answered since the newcomer came.
//! - A first beat waits for 2 s at most, and one for each identity. Its stream is answered, or
//!   closed.
//! - A contested identity is logged once, and its end once. It ends after ten minutes without the
//!   other device; when the lease is over; or when it is evicted for others.
//! - If there are too many identities, one of those from the prefix and host with the most is
//!   evicted, so that an attacker that makes many identities on a few hosts displaces only its own.
//! - Only streams with a valid beat are counted.

mod home;
mod room;

use core::{fmt::Write as _, time::Duration};

use heapless::Vec;

pub(super) use home::is_soon;

use super::{
    Ack, Action, Instant, PeerId, Reason, StreamId, Verdict,
    address::{Host, TransportAddr},
    native::probe::PROBE_TIMEOUT,
    table::TableStats,
};

/// Identities with replacements that are counted, at a time.
const MAX_RIVALS: usize = 16;
/// This many replacements within [`WINDOW`] make rivals.
const REPLACEMENTS: usize = 3;
/// The time in which replacements are counted, and for which a refused device does not retry
/// (PROTOCOL.md).
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// After this time without the other device, its return is logged again: 10 min.
const EPISODE: Duration = Duration::from_secs(10 * 60);

/// Is in the reason for which a server refuses one of two devices with one identity.
pub(crate) const SAME_IDENTITY: &str = "has your identity";

/// What the driver must do with the first beat of a heartbeat stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstBeat {
    /// Give it to the machine now.
    Now,
    /// Hold it until [`Action::Judge`] or [`Action::Close`] names its stream. Until then every beat
    /// of the stream is refused.
    Held,
}

/// An identity that two devices use, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contested {
    /// The identity.
    pub peer: PeerId,
    /// The host of the device that was kept.
    pub kept: Host,
    /// The host of the device that was refused; the same if both are behind one address, and none
    /// was refused.
    pub refused: Host,
    /// When the refused device last came.
    pub at: Instant,
}

/// The stream of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) stream: StreamId,
    pub(super) host: Host,
}

/// The stream with the first beat that is processed next.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Opened {
    peer: PeerId,
    stream: StreamId,
    source: TransportAddr,
    /// The host of the device for which it is refused.
    kept: Option<Host>,
}

/// Whether the device that holds the stream is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Liveness {
    /// It must be pinged.
    Unprobed,
    /// It has been pinged since this time.
    Probed,
    Answered,
    Silent,
}

/// What a newcomer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// A second device, because the device that holds the stream is there.
    Rival,
    /// It takes over, because the device that holds the stream is not there.
    Successor,
}

/// A newcomer that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Check {
    holder: Holder,
    liveness: Liveness,
    since: Instant,
    newcomer: StreamId,
    source: TransportAddr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rival {
    peer: PeerId,
    /// The host of the last newcomer.
    from: Host,
    /// The replacements of the last minute from another host.
    replaced: Vec<Instant, { REPLACEMENTS - 1 }>,
    /// Those of the last minute from the same host, each moments after a beat ([`home`]).
    at_home: Vec<Instant, { REPLACEMENTS - 1 }>,
    last: Instant,
    check: Option<Check>,
    verdict: Option<Contested>,
}

/// A stream whose first beat no longer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Displaced {
    pub(super) peer: PeerId,
    pub(super) stream: StreamId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Transition {
    Begins(Contested),
    Ends(PeerId),
    Evicted(PeerId),
}

/// The identities with streams that were recently replaced from another host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rivals {
    /// A list of one element, because `None` would not be all zeroes.
    opened: Vec<Opened, 1>,
    all: Vec<Rival, MAX_RIVALS>,
    /// What is not logged yet. There is room for all identities, because all may end at once.
    transitions: Vec<Transition, MAX_RIVALS>,
    evicted: u64,
}

impl Rivals {
    /// No identity is contested.
    pub(crate) const fn new() -> Self {
        Self {
            opened: Vec::new(),
            all: Vec::new(),
            transitions: Vec::new(),
            evicted: 0,
        }
    }

    /// Takes note of the source of a stream. Its first beat comes next.
    pub(super) fn opened(&mut self, peer: &PeerId, stream: StreamId, source: TransportAddr) {
        self.judges(Opened {
            peer: *peer,
            stream,
            source,
            kept: None,
        });
    }

    fn judges(&mut self, opened: Opened) {
        self.opened.clear();
        // There is room now.
        let _ = self.opened.push(opened);
    }

    fn judged(&self, peer: &PeerId, stream: StreamId) -> Option<&Opened> {
        let mut opened = self.opened.iter();
        opened.find(|opened| opened.stream == stream && opened.peer == *peer)
    }

    /// The source of the stream, while its first beat is processed.
    pub(super) fn source(&self, peer: &PeerId, stream: StreamId) -> Option<TransportAddr> {
        self.judged(peer, stream).map(|opened| opened.source)
    }

    /// Whether a device at this host was refused because another one has its identity, and the
    /// episode is not over.
    pub(super) fn refuses(&self, peer: &PeerId, host: Host) -> bool {
        let mut contested = self.contested();
        contested.any(|contested| contested.peer == *peer && contested.refused == host)
    }

    /// A stream of the peer from another host is about to replace the one of the holder. Returns
    /// the decision about its first beat, and a stream that no longer waits and must be closed.
    pub(super) fn newcomer(
        &mut self,
        now: Instant,
        peer: &PeerId,
        holder: Holder,
        stream: StreamId,
        source: TransportAddr,
    ) -> (FirstBeat, Option<Displaced>) {
        let evicted = self.make_room(peer);
        self.leaves_home(peer);
        let Some(rival) = self.rival(now, peer, source.host) else {
            return (FirstBeat::Now, evicted);
        };
        (rival.last, rival.from) = (now, source.host);
        if let Some(contested) = rival.verdict.as_mut()
            && contested.refused == source.host
        {
            contested.at = now;
            let kept = contested.kept;
            self.judges(Opened {
                peer: *peer,
                stream,
                source,
                kept: Some(kept),
            });
            return (FirstBeat::Now, evicted);
        }
        rival.replaced.retain(|at| now - *at <= WINDOW);
        let counts = rival.verdict.is_none() && rival.check.is_none();
        if counts && rival.replaced.push(now).is_ok() {
            return (FirstBeat::Now, evicted);
        }
        let earlier = rival.check.take();
        let instead_of = earlier.as_ref().map(|check| Displaced {
            peer: *peer,
            stream: check.newcomer,
        });
        let (liveness, since) = match earlier.filter(|check| check.holder == holder) {
            Some(check) => (check.liveness, check.since),
            None => (Liveness::Unprobed, now),
        };
        rival.check = Some(Check {
            holder,
            liveness,
            since,
            newcomer: stream,
            source,
        });
        (FirstBeat::Held, instead_of.or(evicted))
    }

    /// Takes note that the peer's lease is held from this host from now on.
    pub(super) fn holds(&mut self, peer: &PeerId, host: Host) {
        let Some(rival) = self.find_mut(peer) else {
            return;
        };
        match &mut rival.verdict {
            Some(verdict) if verdict.is_at_home() && verdict.kept == host => {}
            Some(verdict) if !verdict.is_at_home() && verdict.refused != host => {
                verdict.kept = host;
            }
            verdict => {
                if verdict.take().is_some() {
                    self.tell(Transition::Ends(*peer));
                }
            }
        }
    }

    /// Takes note that a ping over this stream's connection has ended.
    pub(super) fn probed(&mut self, peer: &PeerId, stream: StreamId, verdict: Verdict) {
        let liveness = match verdict {
            Verdict::Reachable => Liveness::Answered,
            Verdict::Silent => Liveness::Silent,
        };
        self.settle(peer, liveness, |holder| holder.stream == stream);
    }

    /// Takes note that the peer has beaten from this host.
    pub(super) fn beat_from(&mut self, peer: &PeerId, host: Host) {
        self.settle(peer, Liveness::Answered, |holder| holder.host == host);
    }

    /// The reason for the newcomer that is judged now, if it is refused.
    pub(super) fn refusal(&self, peer: &PeerId, stream: StreamId) -> Option<Ack<'static>> {
        self.judged(peer, stream)?.kept.map(refusal)
    }

    /// Whether the first beat of this stream is held back, so that none of its beats counts.
    pub(super) fn is_held(&self, peer: &PeerId, stream: StreamId) -> bool {
        let mut all = self.all.iter().filter(|rival| rival.peer == *peer);
        all.any(|rival| {
            let check = rival.check.as_ref();
            check.is_some_and(|check| check.newcomer == stream)
        })
    }

    /// Whether the identity is contested, so that either device may have sent a message under it.
    pub(super) fn is_contested(&self, peer: &PeerId) -> bool {
        let mut all = self.all.iter();
        all.any(|rival| rival.peer == *peer && rival.verdict.is_some())
    }

    /// Removes the peer, because its lease is over and a device that comes now has no rival.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        if let Some(rival) = self.find_mut(peer) {
            rival.replaced.clear();
            rival.at_home.clear();
            if rival.verdict.take().is_some() {
                self.tell(Transition::Ends(*peer));
            }
        }
        self.settle(peer, Liveness::Silent, |_| true);
    }

    /// The next action at `now`, if there is one.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Action> {
        self.expire(now);
        if !self.transitions.is_empty() {
            return Some(match self.transitions.remove(0) {
                Transition::Begins(contested) => Action::Contested(contested),
                Transition::Ends(peer) => Action::Uncontested {
                    peer,
                    evicted: false,
                },
                Transition::Evicted(peer) => Action::Uncontested {
                    peer,
                    evicted: true,
                },
            });
        }
        let mut all = self.all.iter_mut();
        if let Some((peer, check)) = all.find_map(|rival| rival.unprobed()) {
            check.liveness = Liveness::Probed;
            let stream = check.holder.stream;
            return Some(Action::ProbeStream { peer, stream });
        }
        let decided = |rival: &Rival| rival.check.as_ref()?.judgement(now);
        let mut all = self.all.iter().enumerate();
        let (at, judgement) = all.find_map(|(at, rival)| Some((at, decided(rival)?)))?;
        self.judge(at, judgement, now)
    }

    /// When [`Rivals::poll`] has an action.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let next = |rival: &Rival| match &rival.check {
            Some(check) if check.liveness == Liveness::Probed => Some(check.since + PROBE_TIMEOUT),
            Some(_) => Some(Instant::default()),
            None => rival.verdict.as_ref().map(|_| rival.last + EPISODE),
        };
        let logged = (!self.transitions.is_empty()).then(Instant::default);
        self.all.iter().filter_map(next).chain(logged).min()
    }

    /// The identities that two devices use.
    pub(super) fn contested(&self) -> impl Iterator<Item = &Contested> {
        self.all.iter().filter_map(|rival| rival.verdict.as_ref())
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self) -> TableStats {
        TableStats {
            name: "takeovers",
            used: self.all.len(),
            capacity: MAX_RIVALS,
            refused: 0,
            evicted: self.evicted,
        }
    }

    /// Ends the check of this rival, so that its newcomer is decided now.
    fn judge(&mut self, at: usize, judgement: Judgement, now: Instant) -> Option<Action> {
        let rival = self.all.get_mut(at)?;
        let peer = rival.peer;
        let Check {
            holder,
            newcomer,
            source,
            ..
        } = rival.check.take()?;
        rival.replaced.clear();
        let is_rival = judgement == Judgement::Rival;
        if is_rival {
            let contested = Contested {
                peer,
                kept: holder.host,
                refused: source.host,
                at: now,
            };
            if rival.verdict.replace(contested.clone()).is_none() {
                self.tell(Transition::Begins(contested));
            }
        }
        self.judges(Opened {
            peer,
            stream: newcomer,
            source,
            kept: is_rival.then_some(holder.host),
        });
        Some(Action::Judge {
            peer,
            stream: newcomer,
        })
    }

    fn expire(&mut self, now: Instant) {
        while let Some(at) = self.all.iter().position(|rival| rival.is_over(now)) {
            let over = self.all.swap_remove(at);
            if over.verdict.is_some() {
                self.tell(Transition::Ends(over.peer));
            }
        }
    }

    fn settle(&mut self, peer: &PeerId, liveness: Liveness, is_meant: impl Fn(&Holder) -> bool) {
        let checked = self.find_mut(peer);
        if let Some(check) = checked.and_then(|rival| rival.check.as_mut())
            && matches!(check.liveness, Liveness::Unprobed | Liveness::Probed)
            && is_meant(&check.holder)
        {
            check.liveness = liveness;
        }
    }

    fn find_mut(&mut self, peer: &PeerId) -> Option<&mut Rival> {
        self.all.iter_mut().find(|rival| rival.peer == *peer)
    }

    fn tell(&mut self, transition: Transition) {
        // If the driver does not poll, only a line of the log is lost.
        let _ = self.transitions.push(transition);
    }
}

impl Rival {
    /// Whether nothing that is kept of it counts any more.
    fn is_over(&self, now: Instant) -> bool {
        let since = now - self.last;
        self.check.is_none()
            && match self.verdict {
                Some(_) => since >= EPISODE,
                None => since > WINDOW,
            }
    }

    fn unprobed(&mut self) -> Option<(PeerId, &mut Check)> {
        let check = self.check.as_mut()?;
        (check.liveness == Liveness::Unprobed).then_some((self.peer, check))
    }
}

impl Check {
    /// What the newcomer is; `None` while this is not known.
    fn judgement(&self, now: Instant) -> Option<Judgement> {
        match self.liveness {
            Liveness::Answered => Some(Judgement::Rival),
            Liveness::Silent => Some(Judgement::Successor),
            Liveness::Unprobed | Liveness::Probed => {
                (now >= self.since + PROBE_TIMEOUT).then_some(Judgement::Successor)
            }
        }
    }
}

fn refusal(kept: Host) -> Ack<'static> {
    let mut ack = Ack::refused("");
    let mut reason = Reason::new();
    // There is room for the longest address.
    let _ = write!(
        reason,
        "a device at {kept} {SAME_IDENTITY}: on the copy, `oc-discovery identity reset DIR`"
    );
    ack.reason = reason;
    ack
}

#[cfg(test)]
mod tests;
