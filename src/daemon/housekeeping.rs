//! What the driver does from time to time, whatever happens: what may be remembered is noted, what
//! has run out leaves, and memory that is not used any more goes back to the system.
//!
//! Invariants: an expired record is gone within [`EXPIRY_PAUSE`]; nothing here is looked at more
//! often than that.

use std::time::Duration;

use super::{context::Context, driver::Driver, storage::KnownPeer, trim};
use crate::{
    net::{CONNECTIONS, multiaddrs},
    protocol::{Addrs, Instant, PeerId, Role, TableStats},
};

/// Records that run out one after the other leave the DHT store together, this often.
const EXPIRY_PAUSE: Duration = Duration::from_secs(1);

impl Driver {
    /// Lets records of the DHT store go that have run out at `now`.
    pub(super) fn expire_records_if_due(&mut self, now: Instant) {
        let next = |cx: &mut Context, expired: Instant| {
            // A tick later than not before.
            let left = cx.net.record_expires_in()? + Duration::from_millis(1);
            Some((now + left).max(expired + EXPIRY_PAUSE))
        };
        self.records = next(&mut self.cx, self.expired);
        if self.records.is_some_and(|due| now >= due) {
            self.cx.net.expire_records();
            self.expired = now;
            self.records = next(&mut self.cx, now);
        }
    }

    /// Gives memory back if much of it is not used any more.
    pub(super) fn trim_if_due(&mut self) {
        let mut used = self.cx.peers().tables;
        let mut note = |stats: TableStats| used.push((stats.name, stats.used));
        self.cx.net.tables().into_iter().for_each(&mut note);
        note(self.lookups.stats());
        self.peaks.saw(CONNECTIONS, self.cx.net.most_connections());
        if self.peaks.look(&used) {
            self.cx.net.shrink();
            trim::trim(&mut *self.cx.machine);
        }
        self.cx.net.forget_most_connections();
    }

    /// Notes which peers are worth trying after a restart.
    pub(super) fn remember(&mut self) {
        let peers = self.cx.peers();
        let known = |peer: PeerId, addrs: &Addrs| KnownPeer {
            peer: peer.into(),
            addrs: multiaddrs(addrs),
        };
        let natives = self.cx.net.natives().into_iter();
        let natives =
            natives.filter_map(|native| Some(known(native, self.cx.machine.addrs_of(&native)?)));
        self.state.set_natives(natives.collect());
        let indexers: Vec<_> = match self.cx.machine.role() {
            Role::Native => peers
                .live
                .iter()
                .map(|offer| known(offer.peer, &offer.addrs))
                .collect(),
            Role::Indexer | Role::Node => peers
                .servers
                .iter()
                .filter(|(_, _, role)| *role == Role::Indexer)
                .map(|(peer, addrs, _)| known(*peer, addrs))
                .collect(),
        };
        // None at the moment is no reason to forget those of before.
        if !indexers.is_empty() {
            self.state.set_indexers(indexers);
        }
        self.remember_addrs();
        if let Some(settled) = self.cx.settled_ms() {
            self.state.note_time(settled);
        }
    }

    /// Peers whose addresses are remembered do not give way to strangers.
    pub(super) fn remember_addrs(&mut self) {
        let state = self.state.state();
        let known = state.natives.iter().chain(&state.indexers);
        self.cx.net.remember(known.flat_map(|known| &known.addrs));
    }
}
