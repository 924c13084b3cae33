//! Which messages may be sent: one function for each rule, called at each answer, release, beat and
//! close.

use std::collections::BTreeSet;

use oc_discovery::protocol::{
    Ack, AckCode, Beat, IndexersAnswer, MAX_LIST, OutBeat, PeerId, RequestId, Role, SignedRecord,
    Verdict, Want,
};

use crate::{
    device::DeviceNo,
    invariants::{TRIES_A_MINUTE, ensure},
    network::StreamKey,
    world::World,
};

/// What was true before a beat was answered.
pub struct Before {
    taken_in: bool,
    alive: BTreeSet<DeviceNo>,
}

impl World {
    /// Checks that a lease never ends later at the client than at its server.
    pub fn check_lease(&self, no: DeviceNo, server: DeviceNo) -> Result<(), String> {
        let device = &self.devices[no];
        let peer = self.devices[server].peer;
        let view = device.view(self.now);
        let believed = view
            .leases
            .iter()
            .find(|lease| *lease.server() == peer)
            .and_then(|lease| lease.expiry(device.instant(self.now)))
            .map_or(0, |expiry| expiry.as_millis() - device.skew);
        let granted = self.ledger.granted.get(&(no, server)).copied();
        ensure(
            believed <= granted.unwrap_or(0),
            no,
            "a client believes in its lease for longer than was granted",
        )
    }

    /// The indexers that a native knows to be alive and to have room.
    pub fn known_alive(&self, no: DeviceNo) -> BTreeSet<DeviceNo> {
        let device = &self.devices[no];
        let mut alive: BTreeSet<_> = self.ledger.alive(self.now, no).collect();
        if !alive.is_empty() {
            let view = device.view(self.now);
            alive.retain(|indexer| {
                let entry = view.live(&self.devices[*indexer].peer);
                entry.is_some_and(|entry| entry.has_room())
            });
        }
        alive
    }

    /// What must be known about a beat before it is answered.
    pub fn before_beat(
        &self,
        no: DeviceNo,
        client: DeviceNo,
        beat: &Beat<SignedRecord<'_>>,
    ) -> Before {
        if self.devices[no].role != Role::Native || beat.role != Role::Node {
            return Before {
                taken_in: false,
                alive: BTreeSet::new(),
            };
        }
        let view = self.devices[no].view(self.now);
        Before {
            // While the native catches up, a node's lease may seem to have expired.
            taken_in: view.responsible.contains(&self.devices[client].peer)
                || (self.catching_up && self.ledger.heard.contains_key(&(no, client))),
            alive: self.known_alive(no),
        }
    }

    /// Checks that a native takes a node in if it promised to, or if it knows no indexer for it,
    /// and that no peer is refused because of expired entries.
    pub fn check_answer(
        &mut self,
        no: DeviceNo,
        client: DeviceNo,
        beat: &Beat<SignedRecord<'_>>,
        ack: &Ack<'_>,
        before: &Before,
    ) -> Result<(), String> {
        match ack.code {
            AckCode::Accepted if beat.role == Role::Node && !beat.lease.is_zero() => {
                let promised = self.ledger.has_ticket(self.now, no, client);
                self.ledger.tickets.remove(&(no, client));
                self.hasty |= self.catching_up && !before.taken_in && !promised;
                ensure(
                    before.taken_in || promised || before.alive.is_empty(),
                    no,
                    "takes a node in although it knows that an indexer is alive",
                )
            }
            AckCode::Full if beat.role != Role::Native => {
                let view = self.devices[no].view(self.now);
                let full = |name: &str, used: usize| {
                    view.tables
                        .iter()
                        .any(|table| table.name == name && used >= table.capacity)
                };
                let kept = self.ledger.places_kept(self.now, no).count();
                let may = ack.reason.contains("join at once")
                    || self.catching_up
                    || (view.is_drained && ack.reason.contains("being drained"))
                    || full("stream_records", view.records.len())
                    || (beat.role == Role::Indexer && full("live_indexers", view.live.len()))
                    || (beat.role == Role::Node
                        && full("responsible_peers", view.responsible.len() + kept));
                ensure(may, no, "refuses a peer for what has run out")
            }
            AckCode::Accepted if beat.role == Role::Native && !beat.lease.is_zero() => {
                self.check_window(no, client, ack.known)
            }
            _ => Ok(()),
        }
    }

    /// Checks the answer to "wants a lease": if the native knew a live indexer when it was asked,
    /// and has not learned otherwise, it neither takes the node in nor gives an empty answer; and
    /// it promises only places that it has.
    pub fn check_offer(
        &mut self,
        no: DeviceNo,
        request: RequestId,
        answer: &IndexersAnswer,
    ) -> Result<(), String> {
        let (Some((alive, want)), Some(((node, _), _))) = (
            self.ledger.waiting.remove(&(no, request.0)),
            self.devices[no].requests.get(&request).copied(),
        ) else {
            return Ok(());
        };
        let view = self.devices[no].view(self.now);
        if want != Want::Nothing {
            self.check_order(no, answer, &view)?;
        }
        let still_alive = alive.iter().any(|&indexer| {
            let entry = view.live(&self.devices[indexer].peer);
            self.ledger.stands(no, indexer) && entry.is_some_and(|entry| entry.has_room())
        });
        ensure(
            want != Want::Lease || !answer.offers.is_empty() || !still_alive,
            no,
            "offers nothing although an indexer was alive when it was asked",
        )?;
        if !answer.takes_in {
            return Ok(());
        }
        self.hasty |= want == Want::Lease && self.catching_up;
        let is_in = |node: DeviceNo| view.responsible.contains(&self.devices[node].peer);
        let kept: BTreeSet<_> = self
            .ledger
            .places_kept(self.now, no)
            .filter(|node| !is_in(*node))
            .collect();
        let places = view.capacity("responsible_peers");
        ensure(
            is_in(node)
                || kept.contains(&node)
                || kept.len() + view.used("responsible_peers") < places,
            no,
            "a node is without a lease although there is room",
        )?;
        if !is_in(node) {
            let stranded = want == Want::OffersFailed;
            self.ledger.give_ticket(self.now, no, node, stranded);
        }
        Ok(())
    }

    /// The clients of a process that hold a lease there, even if it seems to have expired.
    pub fn holders(&self, no: DeviceNo) -> Vec<DeviceNo> {
        let heard = self.ledger.heard.range((no, 0)..=(no, usize::MAX));
        let clients = heard.map(|((_, client), _)| *client);
        let machine = &self.devices[no].machine();
        clients
            .filter(|client| machine.reserves_slot(&self.devices[*client].peer))
            .collect()
    }

    /// Checks that a process that has caught up after an oversleep has removed none of the earlier
    /// lease holders, except those that gave their lease up: a peer is not stale because the
    /// process slept. And a native that knows indexers has meanwhile neither promised to take a
    /// node in nor done so.
    pub fn check_caught_up(&mut self, no: DeviceNo, before: &[DeviceNo]) -> Result<(), String> {
        self.catching_up = false;
        let after = self.holders(no);
        let is_there = |client: &DeviceNo| {
            after.contains(client) || !self.ledger.heard.contains_key(&(no, *client))
        };
        ensure(
            before.iter().all(is_there),
            no,
            "lets go of a peer before it has caught up",
        )?;
        if !std::mem::take(&mut self.hasty) {
            return Ok(());
        }
        let view = self.devices[no].view(self.now);
        let now = self.devices[no].instant(self.now);
        let may_live = view
            .live
            .iter()
            .any(|entry| entry.has_room() && entry.verdict(now) != Some(Verdict::Silent));
        ensure(
            !may_live,
            no,
            "takes a node in, or says so, before it has caught up",
        )
    }

    /// The other devices for which the process is to reserve slots.
    pub fn slots_to_reserve(&self, no: DeviceNo) -> BTreeSet<PeerId> {
        let machine = self.devices[no].machine();
        let peers = self.devices.iter().map(|device| device.peer);
        peers.filter(|peer| machine.reserves_slot(peer)).collect()
    }

    /// Checks that each peer that is to have a slot has one, before all are looked at.
    pub fn check_slots(&self, no: DeviceNo) -> Result<(), String> {
        ensure(
            self.slots_to_reserve(no).is_subset(&self.devices[no].slots),
            no,
            "no slot is reserved for a peer that holds a lease or grants one",
        )
    }

    /// Checks that a native releases a node only to an indexer that it knows to be alive, and not
    /// more nodes than the indexer last had places for. An indexer that is drained sends a node to
    /// another one; it knows of those only what a native has said.
    pub fn check_release(&mut self, no: DeviceNo, ack: &Ack<'_>) -> Result<(), String> {
        if self.devices[no].role == Role::Indexer {
            let own = self.devices[no].peer;
            let is_another = ack.offers.iter().any(|offer| offer.peer != own);
            return ensure(is_another, no, "releases a node to no other indexer");
        }
        let view = self.devices[no].view(self.now);
        for offer in ack.offers {
            self.check_spread(no, &offer.peer, &view)?;
            let indexer = self.number_of(&offer.peer);
            ensure(
                self.ledger.stands(no, indexer),
                no,
                "releases a node to an indexer that went away",
            )?;
            let known = self.ledger.evidence.entry((no, indexer)).or_default();
            known.promised += 1;
            ensure(
                known.free.is_none_or(|free| known.promised <= free),
                no,
                "promises more places than the indexer last had",
            )?;
        }
        Ok(())
    }

    /// Checks that a node's requests and attempts are bounded, whatever the peers send.
    pub fn check_pace(&mut self, no: DeviceNo) -> Result<(), String> {
        if self.devices[no].role != Role::Node {
            return Ok(());
        }
        let tries = self.ledger.tries(self.now, no);
        self.most_tries = self.most_tries.max(tries);
        ensure(
            tries <= TRIES_A_MINUTE,
            no,
            "a node asks and tries more often than its pace allows",
        )
    }

    /// Checks what a process sends: a node tries only current offers, and a native reports every
    /// live id in turn to each other native.
    pub fn check_beat(
        &mut self,
        no: DeviceNo,
        server: &PeerId,
        beat: &OutBeat,
        known: &[PeerId],
    ) -> Result<(), String> {
        match beat.role {
            Role::Node if !self.devices[no].out.contains_key(server) => {
                self.check_pace(no)?;
                let to = self.number_of(server);
                let holds = self
                    .ledger
                    .granted
                    .get(&(no, to))
                    .is_some_and(|until| self.now <= *until);
                let offered = self.ledger.offered.get(&(no, to));
                ensure(
                    self.devices[to].role == Role::Native
                        || holds
                        || offered.is_some_and(|until| self.now <= *until),
                    no,
                    "tries an offer after its time to live",
                )
            }
            Role::Native => self.check_window(no, self.number_of(server), known),
            _ => Ok(()),
        }
    }

    /// Checks that every live id is reported to each other native once in as many messages as are
    /// needed for all ids, and one more.
    pub fn check_window(
        &mut self,
        no: DeviceNo,
        to: DeviceNo,
        told: &[PeerId],
    ) -> Result<(), String> {
        let view = self.devices[no].view(self.now);
        let untold = self.ledger.untold.entry((no, to)).or_default();
        untold.retain(|peer, _| view.is_live(peer) && view.known.contains(peer));
        for entry in view
            .live
            .iter()
            .filter(|entry| view.known.contains(&entry.peer))
        {
            let beats = untold.entry(entry.peer).or_default();
            *beats = if told.contains(&entry.peer) {
                0
            } else {
                *beats + 1
            };
        }
        let bound = untold.len().div_ceil(MAX_LIST) as u32 + 1;
        ensure(
            untold.values().all(|beats| *beats <= bound),
            no,
            "does not tell another native of every live indexer in turn",
        )
    }

    /// Checks that the GC removes only stale peers, and no peer that beats, even if one beat was
    /// lost.
    pub fn check_close(
        &mut self,
        no: DeviceNo,
        peer: &PeerId,
        stream: Option<StreamKey>,
    ) -> Result<(), String> {
        let client = self.number_of(peer);
        if !self.devices[no].view(self.now).has_record(peer)
            && let Some(known) = self.ledger.evidence.get_mut(&(no, client))
        {
            // Its lease is over, so its load is no longer known.
            known.free = None;
        }
        let Some(heard) = self.ledger.heard.get(&(no, client)) else {
            return Ok(());
        };
        if stream != Some(heard.stream) {
            return Ok(());
        }
        // The diagram's rule, written a second time.
        let instant = |at| self.devices[no].instant(at);
        let (now, expiry) = (instant(self.now), instant(heard.expiry));
        let stale = now > expiry || now - instant(heard.seen) > (expiry - now) * 2;
        self.ledger.heard.remove(&(no, client));
        self.ledger.silenced(no, client);
        ensure(stale, no, "the GC lets go of a peer that beats")
    }
}
