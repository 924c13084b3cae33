//! Which services the link's own devices offer: when the link is asked for them, and how long what
//! was heard is held (RFC 6762).
//!
//! ```text
//!  a kind is asked for after 20 to 120 ms, then after 1, 2, 4 s … 1 h
//!     │ a pointer names an instance
//!     ▼
//!  asked for what is not known of it, at most 3 times ──▶ known: service and address are held
//!     ▲                                                        │ 80, 85, 90, 95 % of a time to live
//!     └────────────────────────────────────────────────────────┤
//!                                                              ▼ the end of one, or a goodbye
//!                                                            gone
//! ```
//!
//! Invariants: at most [`MAX_HEARD`] instances; each is asked for at most once a second.

use core::time::Duration;

use heapless::Vec;

use super::{NEVER, SHARED_DELAY, between};
use crate::protocol::{
    TableStats,
    time::{Instant, Rng},
};

/// Instances at most.
pub const MAX_HEARD: usize = 64;
/// Kinds of services at most.
pub const MAX_KINDS: usize = 16;
/// The first and the longest pause between two questions for a kind (RFC 6762, section 5.2).
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// How often what is not known of an instance is asked for, before its next pointer.
const ATTEMPTS: u8 = 3;
/// What is told to be gone is held for so long, in case another tells it again (section 10.1).
const GOODBYE: Duration = Duration::from_secs(1);
/// The longest time to live that counts.
const LONGEST_TTL: Duration = Duration::from_secs(86_400);
/// When what is held is asked for again, in per cent of its time to live (section 5.2).
const REFRESH: [u32; 4] = [80, 85, 90, 95];

/// What is held of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// That it is there.
    Pointer,
    /// Where its service is.
    Service,
    /// What is said about it.
    Text,
    /// An address of its host.
    Address,
}

const PARTS: usize = 4;

/// What the link is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// For all of the kind with this number.
    Kind(usize),
    /// For all that is to be known of the instance in this slot.
    Instance(usize),
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The link is to be asked.
    Ask(Question),
    /// The instance in this slot is gone, and the slot is free.
    Gone(usize),
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Held {
    from: Instant,
    ttl: Duration,
    /// How many of the times in [`REFRESH`] are over.
    refreshed: usize,
}

impl Held {
    fn ends(&self) -> Instant {
        self.from + self.ttl
    }

    fn refresh_at(&self) -> Instant {
        let share = REFRESH.get(self.refreshed);
        share.map_or(NEVER, |share| self.from + self.ttl * *share / 100)
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Heard {
    /// By [`Part`].
    parts: [Option<Held>; PARTS],
    attempts: u8,
    /// Not asked for before this.
    ask_from: Instant,
}

impl Heard {
    fn is_known(&self) -> bool {
        let has = |part: Part| self.parts.get(part as usize).is_some_and(Option::is_some);
        has(Part::Service) && has(Part::Text) && has(Part::Address)
    }

    fn held(&self) -> impl Iterator<Item = &Held> {
        self.parts.iter().flatten()
    }

    fn ask_at(&self) -> Instant {
        let refresh = self.held().map(Held::refresh_at).min().unwrap_or(NEVER);
        let first = match self.is_known() || self.attempts >= ATTEMPTS {
            true => refresh,
            false => Instant::default(),
        };
        match first == NEVER {
            true => NEVER,
            false => first.max(self.ask_from),
        }
    }

    fn gone_at(&self) -> Instant {
        // Without a pointer, or with a part that has ended, it is not known any more.
        self.held().map(Held::ends).min().unwrap_or_default()
    }
}

/// The kinds that are asked for, and the instances that were heard.
#[derive(Clone, Debug, PartialEq)]
pub struct Browsing {
    kinds: Vec<(Instant, Duration), MAX_KINDS>,
    /// Slots that are never moved.
    slots: Vec<Option<Heard>, MAX_HEARD>,
    rng: Rng,
    refused: u64,
}

impl Browsing {
    /// Asks for this many kinds, at most [`MAX_KINDS`]. `seed` determines the delays.
    pub fn new(now: Instant, seed: u64, kinds: usize) -> Self {
        let mut browsing = Self {
            kinds: (0..kinds.min(MAX_KINDS))
                .map(|_| (now, FIRST_PAUSE))
                .collect(),
            slots: (0..MAX_HEARD).map(|_| None).collect(),
            rng: Rng::new(seed),
            refused: 0,
        };
        browsing.restart(now);
        browsing
    }

    /// There are other links than before: all kinds are asked for again soon.
    pub fn restart(&mut self, now: Instant) {
        for kind in &mut self.kinds {
            *kind = (now + between(&mut self.rng, SHARED_DELAY), FIRST_PAUSE);
        }
    }

    /// A pointer names an instance that is not known yet. Returns its slot, below [`MAX_HEARD`];
    /// `None` if all are taken.
    pub fn add(&mut self, now: Instant) -> Option<usize> {
        let Some(at) = self.slots.iter().position(Option::is_none) else {
            self.refused += 1;
            return None;
        };
        *self.slots.get_mut(at)? = Some(Heard {
            parts: [None; PARTS],
            attempts: 0,
            // What is told together comes in one packet.
            ask_from: now + between(&mut self.rng, SHARED_DELAY),
        });
        Some(at)
    }

    /// A part of an instance was told, and is valid for `ttl`; zero: it is gone.
    pub fn heard(&mut self, now: Instant, slot: usize, part: Part, ttl: Duration) {
        let Some(heard) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let Some(place) = heard.parts.get_mut(part as usize) else {
            return;
        };
        if ttl.is_zero() {
            if let Some(held) = place {
                (held.ttl, held.refreshed) = (now + GOODBYE - held.from, REFRESH.len());
            }
            return;
        }
        if part == Part::Pointer {
            heard.attempts = 0;
        }
        *place = Some(Held {
            from: now,
            ttl: ttl.min(LONGEST_TTL),
            refreshed: 0,
        });
    }

    /// Whether where its service is, at which address, and what is said about it are known.
    pub fn is_known(&self, slot: usize) -> bool {
        let heard = self.slots.get(slot).and_then(Option::as_ref);
        heard.is_some_and(Heard::is_known)
    }

    /// What is left of the time to live of its pointer: what the link need not tell again (section
    /// 7.1).
    pub fn rest(&self, now: Instant, slot: usize) -> Duration {
        let heard = self.slots.get(slot).and_then(Option::as_ref);
        let pointer = heard.and_then(|heard| heard.parts.first().copied().flatten());
        pointer.map_or(Duration::ZERO, |held| held.ends() - now)
    }

    /// Frees a slot.
    pub fn remove(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = None;
        }
    }

    /// The next step at `now`, if there is one.
    pub fn poll(&mut self, now: Instant) -> Option<Step> {
        for (at, (due, pause)) in self.kinds.iter_mut().enumerate() {
            if *due <= now {
                *due = now + *pause;
                *pause = (*pause * 2).min(LONGEST_PAUSE);
                return Some(Step::Ask(Question::Kind(at)));
            }
        }
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let Some(heard) = slot else { continue };
            if heard.held().next().is_some() && heard.gone_at() <= now {
                *slot = None;
                return Some(Step::Gone(at));
            }
            if heard.ask_at() <= now {
                heard.attempts = heard.attempts.saturating_add(1);
                heard.ask_from = now + FIRST_PAUSE;
                for held in heard.parts.iter_mut().flatten() {
                    while held.refresh_at() <= now {
                        held.refreshed += 1;
                    }
                }
                return Some(Step::Ask(Question::Instance(at)));
            }
        }
        None
    }

    /// When [`Browsing::poll`] has a step without an event.
    pub fn timeout(&self) -> Option<Instant> {
        let kinds = self.kinds.iter().map(|(due, _)| *due);
        let heard = self.slots.iter().flatten();
        let heard = heard.map(|heard| match heard.held().next() {
            None => heard.ask_at(),
            Some(_) => heard.ask_at().min(heard.gone_at()),
        });
        kinds.chain(heard).min().filter(|due| *due != NEVER)
    }

    /// The statistics for `status`.
    pub fn stats(&self) -> TableStats {
        TableStats {
            name: "heard_services",
            used: self.slots.iter().flatten().count(),
            capacity: MAX_HEARD,
            refused: self.refused,
            evicted: 0,
        }
    }
}

#[cfg(test)]
mod tests;
