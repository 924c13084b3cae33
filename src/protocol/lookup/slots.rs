//! The slots of one class of lookups.
//!
//! Invariants: a lookup is made in its slot and is never moved; there are at most `N` at a time,
//! and each one that found no free slot is counted as refused. A slot that has never held a lookup
//! is not looked at, so its memory is not touched: a slot has tens of kilobytes.

use super::{Answer, Here, LookupAction, LookupId, Outcome, QueryId, RecordCopy, run::Lookup};
use crate::protocol::{Addrs, Coverage, Instant, PeerId, TableStats};

/// `N` slots.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slots<
    const N: usize,
    const S: usize,
    const Q: usize,
    const R: usize,
    const O: usize,
> {
    slots: [Lookup<S, Q, R, O>; N],
    /// How many of them have held a lookup: the first ones.
    used: usize,
    refused: u64,
}

impl<const N: usize, const S: usize, const Q: usize, const R: usize, const O: usize>
    Slots<N, S, Q, R, O>
{
    pub(super) const fn new() -> Self {
        Self {
            slots: [const { Lookup::new() }; N],
            used: 0,
            refused: 0,
        }
    }

    /// A free slot, for the lookup of this name. A full class counts a refusal.
    pub(super) fn begin(&mut self, id: LookupId) -> Option<&mut Lookup<S, Q, R, O>> {
        let mut slots = self.slots.iter_mut().enumerate();
        match slots.find(|(_, slot)| slot.is_free()) {
            Some((at, slot)) => {
                self.used = self.used.max(at + 1);
                slot.take(id);
                Some(slot)
            }
            None => {
                self.refused += 1;
                None
            }
        }
    }

    /// The slots that have held a lookup.
    fn held(&self) -> impl Iterator<Item = &Lookup<S, Q, R, O>> {
        self.slots.iter().take(self.used)
    }

    fn held_mut(&mut self) -> impl Iterator<Item = &mut Lookup<S, Q, R, O>> {
        self.slots.iter_mut().take(self.used)
    }

    pub(super) fn give_up(&mut self, now: Instant, id: LookupId) {
        self.held_mut().for_each(|slot| slot.give_up(now, id));
    }

    pub(super) fn heed_grants(&mut self, id: LookupId) {
        self.held_mut().for_each(|slot| slot.heed_grants(id));
    }

    pub(super) fn answered(&mut self, now: Instant, query: QueryId, answer: Answer<'_>) -> bool {
        let mut slots = self.held_mut();
        slots.any(|slot| slot.answered(now, query, answer))
    }

    pub(super) fn found(
        &mut self,
        now: Instant,
        own_ms: u64,
        query: QueryId,
        copy: RecordCopy<'_>,
    ) -> bool {
        let mut slots = self.held_mut();
        slots.any(|slot| slot.found(now, own_ms, query, copy))
    }

    pub(super) fn provided(
        &mut self,
        now: Instant,
        query: QueryId,
        providers: &[(PeerId, Addrs)],
        coverage: Coverage,
    ) -> bool {
        let mut slots = self.held_mut();
        slots.any(|slot| slot.provided(now, query, providers, coverage))
    }

    pub(super) fn searched(&mut self, now: Instant, query: QueryId, reached: u16) -> bool {
        let mut slots = self.held_mut();
        slots.any(|slot| slot.searched(now, query, reached))
    }

    pub(super) fn poll<H: Here + ?Sized>(
        &mut self,
        now: (Instant, u64),
        here: &mut H,
        next: &mut u64,
    ) -> Option<LookupAction> {
        let mut slots = self.held_mut();
        slots.find_map(|slot| slot.poll(now, here, next))
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.held().filter_map(Lookup::timeout).min()
    }

    pub(super) fn outcome(&self, lookup: LookupId) -> Option<Outcome<'_>> {
        self.held().find_map(|slot| slot.outcome(lookup))
    }

    pub(super) fn stats(&self, name: &'static str) -> TableStats {
        TableStats {
            name,
            used: self.held().filter(|slot| !slot.is_free()).count(),
            capacity: N,
            refused: self.refused,
            evicted: 0,
        }
    }
}
