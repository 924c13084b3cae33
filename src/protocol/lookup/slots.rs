//! The slots of one class of lookups.
//!
//! Invariants: a lookup is made in its slot and is never moved; there are at most `N` at a time,
//! and each one that found no free slot is counted as refused.

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
    refused: u64,
}

impl<const N: usize, const S: usize, const Q: usize, const R: usize, const O: usize>
    Slots<N, S, Q, R, O>
{
    pub(super) const fn new() -> Self {
        Self {
            slots: [const { Lookup::new() }; N],
            refused: 0,
        }
    }

    /// A free slot, for the lookup of this name. A full class counts a refusal.
    pub(super) fn begin(&mut self, id: LookupId) -> Option<&mut Lookup<S, Q, R, O>> {
        match self.slots.iter_mut().find(|slot| slot.is_free()) {
            Some(slot) => {
                slot.take(id);
                Some(slot)
            }
            None => {
                self.refused += 1;
                None
            }
        }
    }

    pub(super) fn give_up(&mut self, now: Instant, id: LookupId) {
        self.slots.iter_mut().for_each(|slot| slot.give_up(now, id));
    }

    pub(super) fn answered(&mut self, now: Instant, query: QueryId, answer: Answer<'_>) -> bool {
        let mut slots = self.slots.iter_mut();
        slots.any(|slot| slot.answered(now, query, answer))
    }

    pub(super) fn found(
        &mut self,
        now: Instant,
        own_ms: u64,
        query: QueryId,
        copy: RecordCopy<'_>,
    ) -> bool {
        let mut slots = self.slots.iter_mut();
        slots.any(|slot| slot.found(now, own_ms, query, copy))
    }

    pub(super) fn provided(
        &mut self,
        now: Instant,
        query: QueryId,
        providers: &[(PeerId, Addrs)],
        coverage: Coverage,
    ) -> bool {
        let mut slots = self.slots.iter_mut();
        slots.any(|slot| slot.provided(now, query, providers, coverage))
    }

    pub(super) fn searched(&mut self, now: Instant, query: QueryId, reached: u16) -> bool {
        let mut slots = self.slots.iter_mut();
        slots.any(|slot| slot.searched(now, query, reached))
    }

    pub(super) fn poll<H: Here + ?Sized>(
        &mut self,
        now: Instant,
        here: &mut H,
        next: &mut u64,
    ) -> Option<LookupAction> {
        let mut slots = self.slots.iter_mut();
        slots.find_map(|slot| slot.poll(now, here, next))
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.slots.iter().filter_map(Lookup::timeout).min()
    }

    pub(super) fn outcome(&self, lookup: LookupId) -> Option<Outcome<'_>> {
        self.slots.iter().find_map(|slot| slot.outcome(lookup))
    }

    pub(super) fn stats(&self, name: &'static str) -> TableStats {
        TableStats {
            name,
            used: self.slots.iter().filter(|slot| !slot.is_free()).count(),
            capacity: N,
            refused: self.refused,
            evicted: 0,
        }
    }
}
