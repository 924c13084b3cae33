//! The leases that this process holds elsewhere, and its own record that goes with them.
//!
//! Invariants: there are at most [`MAX_LEASES`] leases, and one at most with each server; each
//! stream that is opened, and each request of a node, takes tokens from one bucket, whatever the
//! peers send.
//!
//! A node has 16 at once and then two a second; an indexer or native, which holds a lease with each
//! of its natives, has 64 and then eight a second. A stream or request that gets no token waits in
//! its order. The own record is signed again when it is older than one lease. Every server then
//! gets it with the next beat, and on a new stream with the first.

use core::time::Duration;

use heapless::Vec;

use super::{
    Ack, AckCode, Action, Addrs, Instant, OutBeat, PeerId, Reason, Rng, Role,
    address::TransportAddr,
    capacities::MAX_NATIVES,
    lease::{Farewell, Lease, Step, Terms},
    lookup::KnownServer,
    signing::Urgency,
    table::TableStats,
    time::Bucket,
};

/// Leases held at most: 8 wanted, and some that begin or end.
pub(crate) const MAX_LEASES: usize = 16;

// An indexer and a native hold a lease with each native that they know.
const _: () = assert!(MAX_NATIVES <= MAX_LEASES, "a native would get no lease");

/// The tokens that one stream or request of a node takes.
pub(crate) const NODE_DIAL: u32 = 4;
/// The tokens that one stream of an indexer or native takes.
pub(crate) const SERVER_DIAL: u32 = 1;

/// A step for a lease or the record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LeaseStep {
    /// Send a beat to the server at these addresses.
    Beat(PeerId, Addrs, Manner),
    /// Anything else.
    Other(Action),
}

/// How a beat is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// With the own record.
    pub with_record: bool,
    /// Over a new connection ([`OutBeat::fresh`]).
    pub fresh: bool,
    /// On a new stream that replaces an earlier one. Its dial was not counted when the lease was
    /// begun.
    pub again: bool,
}

impl LeaseStep {
    /// Makes the action; `beat` makes the beat.
    pub(crate) fn into_action(self, beat: impl FnOnce(Manner) -> OutBeat) -> Action {
        match self {
            Self::Beat(server, addrs, manner) => Action::Beat {
                server,
                addrs,
                beat: beat(manner),
            },
            Self::Other(action) => action,
        }
    }
}

/// A lease that is given up, whose stream must end.
#[derive(Clone, Debug, PartialEq)]
struct Leaving {
    server: PeerId,
    role: Role,
    farewell: Farewell,
}

/// The leases held.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Leases {
    terms: Terms,
    held: Vec<Lease, MAX_LEASES>,
    leaving: Vec<Leaving, MAX_LEASES>,
    // A list of one element, because `None` would not be all zeroes and would move the whole
    // machine from `.bss` into the binary.
    denied: Vec<(PeerId, Reason), 1>,
    generation: u64,
    sign_at: Option<Instant>,
    dials: Bucket<8, 64>,
    /// The tokens that a stream or request takes.
    cost: u32,
    /// Attempts start at once because the network has changed; not in the log yet.
    pub retries: bool,
}

impl Leases {
    /// No lease is held.
    pub(crate) const fn new() -> Self {
        Self {
            terms: Terms {
                lease: Duration::ZERO,
                beat_interval: Duration::ZERO,
            },
            held: Vec::new(),
            leaving: Vec::new(),
            denied: Vec::new(),
            generation: 0,
            sign_at: None,
            dials: Bucket::new(),
            cost: 0,
            retries: false,
        }
    }

    /// Sets the requested terms. `cost`: the tokens that a stream takes, [`NODE_DIAL`] or
    /// [`SERVER_DIAL`].
    pub(crate) fn start(&mut self, terms: Terms, cost: u32) {
        self.cost = cost;
        self.terms = terms;
    }

    /// Sets the longest time between beats. A beat that is due later than that at `now` comes
    /// with the next answer at the latest, so a shorter one begins with a beat to every server.
    pub(crate) fn set_beat_interval(&mut self, now: Instant, interval: Duration) {
        let is_shorter = interval < self.terms.beat_interval;
        self.terms.beat_interval = interval;
        if is_shorter {
            self.held.iter_mut().for_each(|lease| lease.hurry(now));
        }
    }

    /// The own record is to be signed, first at `now`. Without this, there is none.
    pub(crate) fn start_signing(&mut self, now: Instant) {
        self.sign_at = Some(now);
    }

    /// Calls `tell` for each server with which a lease is held or sought.
    pub(crate) fn servers(&self, now: Instant, tell: &mut dyn FnMut(KnownServer)) {
        for lease in &self.held {
            tell(KnownServer {
                peer: *lease.server(),
                role: lease.role(),
                is_held: lease.is_secure(now),
            });
        }
    }

    /// The role of a server with which a lease is held or sought.
    pub(crate) fn role_of(&self, server: &PeerId) -> Option<Role> {
        self.find(server).map(Lease::role)
    }

    /// Begins a lease with the server, or updates its addresses. Ignored if the table is full.
    pub(crate) fn add(&mut self, now: Instant, server: PeerId, role: Role, addrs: &Addrs) -> bool {
        let asked = self.terms.lease;
        match self.find_mut(&server) {
            Some(lease) => {
                lease.learn_addrs(now, addrs);
                true
            }
            None => self
                .held
                .push(Lease::new(now, server, role, addrs.clone(), asked))
                .is_ok(),
        }
    }

    /// Begins a lease with a native, or updates its addresses. The first [`MAX_NATIVES`] are kept.
    pub(crate) fn add_native(&mut self, now: Instant, native: PeerId, addrs: &Addrs) {
        let is_native = |lease: &&Lease| lease.role() == Role::Native;
        let known = self.held.iter().filter(is_native).count();
        if known < MAX_NATIVES || self.find(&native).is_some() {
            self.add(now, native, Role::Native, addrs);
        }
    }

    /// Begins a lease with an unknown server, which has `patience` for its first ack. Ignored if
    /// the table is full.
    pub(crate) fn attempt(
        &mut self,
        now: Instant,
        server: PeerId,
        addrs: &Addrs,
        patience: Duration,
    ) -> bool {
        let lease = Lease::new(now, server, Role::Indexer, addrs.clone(), self.terms.lease);
        self.find(&server).is_none() && self.held.push(lease.with_patience(patience)).is_ok()
    }

    /// Whether no further lease can be begun.
    pub(crate) fn is_full(&self) -> bool {
        self.held.is_full()
    }

    /// Whether a stream could be opened at `now`, in addition to those that are due already and to
    /// `others` that come first.
    pub(crate) fn has_dials(&self, now: Instant, others: u32) -> bool {
        let due = |lease: &&Lease| lease.opens_next() && lease.timeout() <= now;
        let due = u32::try_from(self.held.iter().filter(due).count()).unwrap_or(u32::MAX);
        let all = due.saturating_add(others).saturating_add(1);
        let tokens = all.saturating_mul(self.cost);
        self.dials.next(tokens) <= now
    }

    /// When a further stream can be opened or request sent.
    pub(crate) fn next_dial(&self) -> Instant {
        self.dials.next(self.cost)
    }

    /// Takes the tokens for a request. Streams that are due come first, because an offer must be
    /// tried in time.
    pub(crate) fn draw(&mut self, now: Instant) -> bool {
        self.has_dials(now, 0) && self.dials.take_many(now, self.cost)
    }

    /// The statistics of the bucket for `status`: how many streams and requests are taken.
    pub(crate) fn dials(&self, now: Instant) -> TableStats {
        let of_these = |tokens: u32| tokens.div_ceil(self.cost.max(1)) as usize;
        TableStats {
            name: "dials",
            used: of_these(self.dials.spent(now)),
            capacity: of_these(Bucket::<8, 64>::BURST),
            refused: 0,
            evicted: 0,
        }
    }

    /// Gives the lease up, with its stream if one is open or being opened.
    pub(crate) fn give_up(&mut self, server: &PeerId) {
        let Some(at) = self.held.iter().position(|lease| lease.server() == server) else {
            return;
        };
        let lease = self.held.remove(at);
        if let Some(farewell) = lease.farewell() {
            // The list is as long as `held` can be, so there is room if the driver polls. If not,
            // the lease expires by itself.
            let _ = self.leaving.push(Leaving {
                server: *server,
                role: lease.role(),
                farewell,
            });
        }
    }

    /// Gives up every lease.
    pub(crate) fn give_up_all(&mut self) {
        self.sign_at = None;
        while let Some(server) = self.held.first().map(|lease| *lease.server()) {
            self.give_up(&server);
        }
    }

    /// What is to be done at `now`, if anything.
    pub(crate) fn poll(&mut self, now: Instant, rng: &mut Rng) -> Option<LeaseStep> {
        // Reported before the stream is dropped, so that the drop does not seem to be the reason.
        if let Some((server, reason)) = self.denied.pop() {
            return Some(LeaseStep::Other(Action::Denied { server, reason }));
        }
        if core::mem::take(&mut self.retries) {
            return Some(LeaseStep::Other(Action::Retry));
        }
        if let Some(leaving) = self.leaving.pop() {
            let Leaving { server, role, .. } = leaving;
            return Some(LeaseStep::Other(match leaving.farewell {
                Farewell::LastBeat => Action::GiveUp { server, role },
                Farewell::Drop => Action::Drop { server },
            }));
        }
        if self.sign_at.is_some_and(|at| at <= now) {
            self.sign_at = Some(now + self.terms.lease);
            return Some(LeaseStep::Other(Action::Sign));
        }
        let generation = self.generation;
        self.held.iter_mut().find_map(|lease| {
            let server = *lease.server();
            let opens = lease.opens_next();
            if opens && (lease.timeout() > now || self.dials.next(self.cost) > now) {
                return None;
            }
            Some(match lease.poll(now, rng)? {
                Step::Beat { fresh } => {
                    let drawn = !opens || self.dials.take_many(now, self.cost);
                    debug_assert!(drawn, "it was asked above");
                    let with_record = lease.wants_record(generation);
                    let manner = Manner {
                        with_record,
                        fresh,
                        again: opens && (fresh || !lease.is_attempt()),
                    };
                    LeaseStep::Beat(server, lease.addrs().clone(), manner)
                }
                Step::Drop => LeaseStep::Other(Action::Drop { server }),
            })
        })
    }

    /// Makes the next beat to the server due now.
    pub(crate) fn hurry(&mut self, now: Instant, server: &PeerId) {
        if let Some(lease) = self.find_mut(server) {
            lease.hurry(now);
        }
    }

    /// When [`Leases::poll`] has something to do.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        if !self.leaving.is_empty() {
            return Some(Instant::from_millis(0));
        }
        let next = |lease: &Lease| match lease.opens_next() {
            true => lease.timeout().max(self.next_dial()),
            false => lease.timeout(),
        };
        self.held.iter().map(next).chain(self.sign_at).min()
    }

    /// Takes note that the server's next ack comes over a connection to this address.
    pub(crate) fn carried(&mut self, server: &PeerId, by: TransportAddr) {
        if let Some(lease) = self.find_mut(server) {
            lease.carry(by);
        }
    }

    /// Processes an unsolicited ack.
    pub(crate) fn notified(&mut self, server: &PeerId, ack: &Ack<'_>) {
        if let Some(lease) = self.find_mut(server) {
            lease.notified(ack);
        }
    }

    /// Processes a server's answer. Returns its lease.
    pub(crate) fn acked(
        &mut self,
        now: Instant,
        server: &PeerId,
        ack: &Ack<'_>,
        rng: &mut Rng,
    ) -> Option<&Lease> {
        let terms = self.terms;
        if matches!(ack.code, AckCode::Full | AckCode::Refused) {
            // If another one was not polled yet, only a line of the log is lost.
            let _ = self.denied.push((*server, ack.reason.clone()));
        }
        let lease = self.find_mut(server)?;
        lease.acked(now, ack, &terms, rng);
        Some(lease)
    }

    /// The server does not belong to the network: its lease ends at once.
    pub(crate) fn expelled(&mut self, now: Instant, server: &PeerId, rng: &mut Rng) {
        if let Some(lease) = self.find_mut(server) {
            lease.expelled(now, rng);
        }
    }

    /// The stream to the server has ended; returns its lease.
    pub(crate) fn closed(
        &mut self,
        now: Instant,
        server: &PeerId,
        rng: &mut Rng,
    ) -> Option<&Lease> {
        let lease = self.find_mut(server)?;
        lease.closed(now, rng);
        Some(lease)
    }

    /// Takes the server's addresses from a native. They count only while the server does not answer
    /// at the old ones.
    pub(crate) fn learn_addrs(&mut self, now: Instant, server: &PeerId, addrs: &Addrs) {
        if let Some(lease) = self.find_mut(server)
            && lease.is_late()
        {
            lease.learn_addrs(now, addrs);
        }
    }

    /// A link, a route or an address of this host was added: see [`Lease::network_changed`].
    pub(crate) fn network_changed(&mut self, now: Instant) {
        for lease in &mut self.held {
            self.retries |= lease.network_changed(now);
        }
    }

    /// The own record was signed at `now`.
    pub(crate) fn signed(&mut self, now: Instant, urgency: Urgency) {
        self.generation += 1;
        self.sign_at = Some(now + self.terms.lease);
        if urgency == Urgency::AtOnce {
            self.hurry_all(now);
        }
    }

    /// Makes the next beat to every server due now.
    pub(crate) fn hurry_all(&mut self, now: Instant) {
        self.held.iter_mut().for_each(|lease| lease.hurry(now));
    }

    /// All leases.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.held.iter()
    }

    /// The lease with the server.
    pub(crate) fn find(&self, server: &PeerId) -> Option<&Lease> {
        self.held.iter().find(|lease| lease.server() == server)
    }

    fn find_mut(&mut self, server: &PeerId) -> Option<&mut Lease> {
        self.held.iter_mut().find(|lease| lease.server() == server)
    }
}

#[cfg(test)]
mod tests;
