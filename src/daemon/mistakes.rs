//! Looks for what is wrong: states that last until they are mended. What happens once is told where
//! it happens.
//!
//! Invariant: a look changes nothing but the list of problems.

#[cfg(all(test, feature = "program"))]
mod book;
mod files;
mod handshakes;
mod pace;
mod sentences;

pub(super) use files::Files;
#[cfg(feature = "program")]
pub(super) use files::{open_dir, open_key};

pub(super) use pace::peer_flapping;
#[cfg(feature = "program")]
pub(super) use sentences::RESET;
pub(super) use sentences::{NO_NATIVE_THERE, early_clock};

use super::{
    clock,
    driver::Driver,
    problems::{Mistake, Problems},
    report::text,
};
use crate::{
    net::{is_for_this_host, pace::TOO_FAST},
    protocol::{
        Draining, Instant, Machine, PeerId, Report, Role, TableStats,
        lease::Lease,
        lease_table::StreamRecord,
        lease_table::flaps::COMES_AND_GOES,
        rivals::{Contested, SAME_IDENTITY},
    },
};
use pace::{own_flapping, own_too_fast, peer_too_fast};
use sentences::{
    TABLE_NEARLY_FULL, TWO_DEVICES, drained, guest, is_own_copy, itself_as_native, joined,
    late_time, nearly_full, no_address, no_native, no_native_there, own_at, own_identity_elsewhere,
    same_identity, tells_of_no_native,
};

impl Driver<'_> {
    /// Looks for what is wrong already at the start. What may come in a moment is left to the first
    /// housekeeping.
    pub(super) fn begin_to_look(&mut self, now: Instant) {
        let mut found: Vec<_> = self.files.mistakes().collect();
        found.extend(early_clock(clock::wall()));
        found.extend(self.late_time());
        found.extend(self.given.has_itself.then(itself_as_native));
        self.problems.found(now, found);
    }

    /// Looks for what is wrong at `now`.
    pub(super) fn look_for_mistakes(&mut self, now: Instant) {
        let mut found = Findings::new(now, self.env.endpoint.machine(), &self.problems);
        self.env.endpoint.machine().report(now, &mut found);
        self.env
            .net
            .tables()
            .into_iter()
            .for_each(|stats| found.table(stats));
        let Findings {
            mut all,
            leases,
            guests,
            ..
        } = found;
        all.extend(guests.iter().map(|peer| {
            let addr = self.env.net.dialled_at(peer);
            guest(peer, addr.as_ref())
        }));
        all.extend(no_native(
            self.env.machine().role(),
            leases,
            self.env.natives().into_iter().next().is_some(),
            &self.given.by_name,
            self.link.found(now).first().map(String::as_str),
        ));
        let addrs = self.env.net.record_addrs();
        all.extend(no_address(
            self.env.machine().role(),
            !addrs.is_empty(),
            addrs.iter().all(is_for_this_host) && self.env.net.has_far_peers(),
        ));
        all.extend(self.unreachable());
        all.extend(self.files.mistakes());
        #[cfg(feature = "program")]
        all.extend(self.own_membership());
        all.extend(early_clock(clock::wall()));
        all.extend(self.late_time());
        all.extend(self.given.has_itself.then(itself_as_native));
        self.problems.found(now, all);
    }

    /// The highest time that is kept is far ahead of the system clock.
    fn late_time(&self) -> Option<Mistake> {
        let highest_ms = self.state.state().highest_time_ms;
        late_time(clock::wall(), highest_ms, self.files.dir())
    }
}

impl Driver<'_> {
    /// A peer beats faster than it may, so its stream was ended.
    pub(super) fn note_too_fast(&mut self, now: Instant, peer: &PeerId, called: &str) {
        self.problems.happened(now, peer_too_fast(peer, called));
    }

    /// A server granted a lease: this device is the one that it keeps. Others may keep another one.
    pub(super) fn note_lease(&mut self, now: Instant, server: &PeerId) {
        if !self.problems.is_empty() {
            self.problems.over(now, TWO_DEVICES, &own_at(server));
        }
    }

    /// A native answered a request, or did not for this reason.
    pub(super) fn note_what_answers(&mut self, now: Instant, native: &PeerId, error: Option<&str>) {
        let about = text(native);
        match error {
            Some(why) if tells_of_no_native(why) => {
                let called = self.env.server(native);
                self.problems.happened(now, no_native_there(&called, about));
            }
            Some(_) => {}
            None => self.problems.over(now, NO_NATIVE_THERE, &about),
        }
    }

    /// A server gave no lease for this reason.
    pub(super) fn note_denial(&mut self, server: &PeerId, called: &str, reason: &str) {
        let (now, machine) = (self.env.now(), self.env.machine());
        if reason.contains(SAME_IDENTITY) {
            let mut found = Findings::new(now, machine, &self.problems);
            machine.report(now, &mut found);
            let elsewhere = own_identity_elsewhere((server, called), found.leases);
            let listed = self.problems.first(is_own_copy);
            self.problems.happened(now, joined(elsewhere, listed));
        } else if reason.contains(COMES_AND_GOES) {
            self.problems
                .happened(now, own_flapping(server, called, reason));
        } else if reason.contains(TOO_FAST) {
            self.problems.happened(now, own_too_fast(server, called));
        } else if tells_of_no_native(reason) && machine.is_native(server) {
            let no_native = no_native_there(called, text(server));
            self.problems.happened(now, no_native);
        }
    }
}

/// Collects the states that the machine reports.
struct Findings<'a> {
    now: Instant,
    machine: &'a dyn Machine,
    before: &'a Problems,
    /// Leases held.
    leases: usize,
    /// Leases granted.
    granted: usize,
    /// Natives that this one is not configured with: those that can be listed.
    guests: Vec<PeerId>,
    all: Vec<Mistake>,
}

impl<'a> Findings<'a> {
    fn new(now: Instant, machine: &'a dyn Machine, before: &'a Problems) -> Self {
        Self {
            now,
            machine,
            before,
            leases: 0,
            granted: 0,
            guests: Vec::new(),
            all: Vec::new(),
        }
    }
}

impl Report for Findings<'_> {
    fn lease(&mut self, lease: &Lease) {
        self.leases += usize::from(lease.expiry(self.now).is_some());
    }

    fn stream_record(&mut self, record: &StreamRecord) {
        self.granted += 1;
        if record.role == Role::Native && !self.machine.is_native(&record.peer) {
            self.guests.push(record.peer);
        }
    }

    fn contested(&mut self, contested: &Contested) {
        self.all.push(same_identity(contested));
    }

    fn draining(&mut self, draining: Draining) {
        self.all.push(drained(draining.nodes));
    }

    fn table(&mut self, stats: TableStats) {
        let was = self.before.has(TABLE_NEARLY_FULL, stats.name);
        self.all.extend(nearly_full(&stats, was, self.granted));
    }
}
