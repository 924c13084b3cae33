//! The closed network of an endpoint: what a peer shows is noted before its beat or ack is given,
//! and a peer that does not belong to it gets no lease, grants none, and is dropped.
//!
//! Invariant: in an open network nothing is asked here.

use core::ops::DerefMut;

use super::{Endpoint, Place};
use crate::protocol::{
    Action, Beat, BeatOutcome, Input, Instant, LeaseAnswer, Machine, PeerId, Role, SignedRecord,
    StreamId,
    closed::{Closed, ForMember, refusal},
    codec::{
        grant::Membership,
        heartbeat::AckCause,
        record::{Kind, Verifier, contents},
    },
    grants::{Bearer, Denial, Taken},
    lookup::{Ask, Query},
    watch::{ChangedNode, NoticeError, ReaderId, Watches},
};

impl<M, L, W, P, const N: usize, C> Endpoint<M, L, W, P, N, C> {
    /// The same process as a member of a closed network, if there is one.
    pub fn member_of<D>(self, closed: Option<D>) -> Endpoint<M, L, W, P, N, D> {
        let Self {
            machine,
            lookups,
            watches,
            listings,
            clock,
            signing,
            farewells,
            stage,
            slots,
            housekeeping,
            closed: _,
        } = self;
        Endpoint {
            machine,
            lookups,
            watches,
            listings,
            clock,
            signing,
            farewells,
            stage,
            slots,
            housekeeping,
            closed,
        }
    }
}

impl<M, L, W, P, const N: usize, C> Endpoint<M, L, W, P, N, C>
where
    M: DerefMut<Target: Machine>,
    C: DerefMut<Target = Closed>,
{
    /// The network; `None` if nothing is shown in it and no peer is refused.
    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_deref()
    }

    /// The same, to be set.
    pub fn closed_mut(&mut self) -> Option<&mut Closed> {
        self.closed.as_deref_mut()
    }

    /// Whether peers that are no members are refused.
    pub(super) fn is_closed(&self) -> bool {
        self.closed().is_some_and(Closed::is_enforced)
    }

    /// Takes what a peer shows of its membership, and the record that it sends with it, before its
    /// beat or ack is given. `system_ms`: what the system clock shows.
    pub fn shown(
        &mut self,
        (now, system_ms): (Instant, u64),
        peer: &PeerId,
        membership: Membership<'_>,
        record: Option<(Kind, &[u8])>,
        verifier: &impl Verifier,
    ) {
        self.tell_time(now, system_ms);
        let Some(closed) = self.closed.as_deref_mut() else {
            return;
        };
        let machine = &*self.machine;
        let is_needed = |peer: &PeerId| machine.reserves_slot(peer);
        closed.shown(now, peer, membership, verifier, &is_needed);
        if let Some(record) = record {
            closed.shown_record(peer, record, verifier);
        }
    }

    /// Own time goes to the network, which judges by it only if it is trusted.
    fn tell_time(&mut self, now: Instant, system_ms: u64) {
        if let Some(closed) = self.closed.as_deref_mut() {
            let is_trusted = self.clock.is_trusted(system_ms);
            let own_ms = is_trusted.then(|| self.clock.own_ms(now, system_ms));
            closed.set_time(now, own_ms);
        }
    }

    /// Why a peer does not belong to the network in this role, if it does not. The name is that of
    /// a node, if it has told it.
    pub fn denial(&self, peer: &PeerId, role: Role, name: Option<&str>) -> Option<Denial> {
        let closed = self.closed.as_deref().filter(|it| it.is_enforced())?;
        let peer = *peer;
        closed.judge(&Bearer { peer, role, name }).err()
    }

    /// Why the beat of a peer is refused, if it is because of the network.
    pub fn denial_of(&self, from: &PeerId, beat: &Beat<SignedRecord<'_>>) -> Option<Denial> {
        let closed = self.closed.as_deref().filter(|it| it.is_enforced())?;
        let record = beat.record.as_ref();
        let name = record.map(|record| record.info.name.as_str());
        let denial = self.denial(from, beat.role, name);
        denial.or_else(|| closed.record_denial(from))
    }

    /// The process is a member of this network from now on.
    pub fn join(&mut self, closed: C) {
        self.closed = Some(closed);
    }

    /// Why the leases that a server grants do not count, if they do not.
    pub fn denial_of_server(&self, server: &PeerId) -> Option<Denial> {
        self.denial(server, self.role_of(server), None)
    }

    /// Whether a record counts that was verified elsewhere.
    ///
    /// # Errors
    /// Why its subject is no member of the network.
    pub fn admit(
        &self,
        kind: Kind,
        envelope: &[u8],
        verifier: &impl Verifier,
    ) -> Result<(), Denial> {
        let Some(closed) = self.closed.as_deref() else {
            return Ok(());
        };
        let record = contents(kind, envelope).ok_or(Denial::Unreadable)?;
        closed.admit(kind, &record, verifier)
    }

    /// Takes the envelope of a revocation list, from a server or from the operator.
    ///
    /// # Errors
    /// It is none of this network, or the network is an open one.
    pub fn take_revocations(
        &mut self,
        envelope: &[u8],
        verifier: &impl Verifier,
    ) -> Result<Taken, Denial> {
        let closed = self.closed.as_deref_mut().ok_or(Denial::OtherNetwork)?;
        closed.take(envelope, verifier)
    }

    /// Whether the input is the ack of a server that does not belong to the network. If it has
    /// shown no grant, the stream may have begun before it had one, so it is opened once more.
    /// Otherwise its answer is taken for a refusal.
    pub(super) fn denies(&mut self, now: Instant, input: &Input<'_>) -> bool {
        let Input::Acked {
            server,
            over,
            cause,
            ack,
            ..
        } = *input
        else {
            return false;
        };
        // What the server says of a refusal of its own is told as it is.
        if ack.lease_answer() == LeaseAnswer::Denied {
            return false;
        }
        let Some(denial) = self.denial_of_server(server) else {
            return false;
        };
        let closed = self.closed.as_deref_mut();
        if denial == Denial::Missing && closed.is_some_and(|closed| closed.asks_again(server)) {
            self.machine.handle(now, Input::LeaseClosed { server });
        } else if cause == AckCause::Beat {
            let ack = &refusal(&denial);
            let (server, clock) = (server, None);
            let input = Input::Acked {
                server,
                over,
                cause,
                ack,
                clock,
            };
            self.machine.handle(now, input);
        }
        true
    }

    /// The answer to the beat of a peer that does not belong to the network. One that has shown no
    /// grant on a stream, which may have begun before it had one, is answered once more, and its
    /// stream is closed, so that it shows its grant on the next one.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        (from, stream): (&PeerId, StreamId),
        place: Place,
        beat: &Beat<SignedRecord<'_>>,
    ) -> Option<BeatOutcome<'static>> {
        let denial = self.denial_of(from, beat)?;
        let closed = self.closed.as_deref_mut()?;
        if denial == Denial::Missing && place == Place::Next && closed.reopens(*from, stream) {
            return None;
        }
        if self.machine.role_of(from).is_some() {
            self.machine.handle(now, Input::Expelled { peer: from });
            self.slots.changed(*from);
        }
        Some(refusal(&denial).into())
    }

    /// What is to be done for the network.
    pub(super) fn poll_members(&mut self, now: Instant, system_ms: u64) -> Option<Action> {
        self.closed.as_ref()?;
        self.tell_time(now, system_ms);
        let closed = self.closed.as_deref_mut()?;
        if let Some((peer, denial)) = closed.next_expelled() {
            let had_lease = self.machine.role_of(&peer).is_some();
            self.machine.handle(now, Input::Expelled { peer: &peer });
            self.slots.changed(peer);
            return Some(Action::Expel {
                peer,
                denial,
                had_lease,
            });
        }
        if let Some(step) = closed.next_step() {
            return Some(step);
        }
        let server = closed.next_fetch(now)?;
        Some(Action::Ask {
            query: Query::Network(server),
            lookup: None,
            server,
            addrs: self.machine.addrs_of(&server).cloned().unwrap_or_default(),
            ask: Ask::Revocations,
        })
    }
}

impl<M, L, W, P, const N: usize, C, const R: usize, const K: usize, const V: usize>
    Endpoint<M, L, W, P, N, C>
where
    W: DerefMut<Target = Watches<R, K, V>>,
    C: DerefMut<Target = Closed>,
{
    /// As [`Watches::told`], for a member of the network.
    ///
    /// # Errors
    /// See there.
    pub fn told(
        &mut self,
        now: Instant,
        of: (ReaderId, &PeerId),
        body: &[u8],
        verifier: &impl Verifier,
        say: &mut dyn FnMut(&ChangedNode<'_>),
    ) -> Result<(), NoticeError> {
        let closed = self.closed.as_deref();
        let verifier = &ForMember { closed, verifier };
        self.watches.told(now, of, body, verifier, say)
    }
}

#[cfg(test)]
mod tests;
