//! Which servers are asked, and in which order.
//!
//! Invariants: natives come first, because they are on other networks most likely, and not all
//! processes begin at the same one; no server is asked before a lease is held, because there is no
//! way out yet. A native needs none: the indexers that hold a lease with it have found a way in.

use heapless::Vec;

use crate::protocol::{
    Instant, LiveIndexer, Machine, PeerId, Report, Role, capacities::MAX_NATIVES,
};

/// Calls `tell` for each server that may be asked at `now`, in the order in which they are asked.
pub(super) fn in_order(
    now: Instant,
    own: &PeerId,
    machine: &dyn Machine,
    tell: &mut dyn FnMut(PeerId),
) {
    let mut natives = Vec::<PeerId, MAX_NATIVES>::new();
    let mut has_lease = false;
    machine.servers(now, &mut |server| {
        has_lease |= server.is_held;
        if server.role == Role::Native && server.peer != *own {
            // As many as there can be have room.
            let _ = natives.push(server.peer);
        }
    });
    if !has_lease && machine.role() != Role::Native {
        return;
    }
    let first = own.as_bytes().last().copied().unwrap_or_default();
    let first = usize::from(first) % natives.len().max(1);
    natives.rotate_left(first);
    natives.into_iter().for_each(&mut *tell);
    machine.report(now, &mut Indexers(&mut *tell));
    machine.servers(now, &mut |server| {
        if server.role == Role::Indexer && server.is_held {
            tell(server.peer);
        }
    });
}

/// The indexers that a native knows.
struct Indexers<'a>(&'a mut dyn FnMut(PeerId));

impl Report for Indexers<'_> {
    fn live_indexer(&mut self, entry: &LiveIndexer) {
        (self.0)(entry.peer);
    }
}
