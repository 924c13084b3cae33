//! A closed network, as one of its members knows it (PROTOCOL.md, section 8): which peers have
//! shown a grant, which are revoked, and where a newer revocation list is.
//!
//! ```text
//!  a beat, an ack ──▶ shown: the grant is opened ──▶ members ──▶ judge: role, name, end, list
//!                       │
//!                       └── the other has a newer list ──▶ it is asked for ──▶ take ──▶ who is
//!                                                                         revoked is expelled
//! ```
//!
//! A process that has a grant and is not told to enforce it (`--grant` without `--network`) takes
//! note of what others show, and refuses no peer. So it knows its members when the network is
//! closed.
//!
//! Invariants: a member has shown a grant that the network's key signed for it, and is not revoked;
//! nothing that a stranger sends is stored here, and it can cause one request in [`FETCH_PAUSE`];
//! the list that is kept is the one by which is judged; an end is judged by trusted time alone.

mod members;

use core::{fmt::Write as _, time::Duration};

use heapless::{Deque, Vec};

pub use members::MAX_MEMBERS;

use super::{
    Ack, Action, Instant, PeerId, Reason, Role, StreamId,
    codec::{
        envelope::{Purpose, Verifier},
        grant::{Grant, MAX_GRANT_LEN, Membership, decode_grant},
        record::{Kind, Record, contents},
        revocation::{MAX_REVOCATION_LEN, MAX_REVOKED, decode_revocation},
    },
    grants::{Bearer, Denial, Revoked, Taken, in_time},
    leases::MAX_LEASES,
    table::TableStats,
};
use members::{Member, Members};

/// How long a newer list is not asked for again after it was asked for.
pub const FETCH_PAUSE: Duration = Duration::from_secs(10);

/// Steps that wait for the host at most, which takes them after each input.
const MAX_STEPS: usize = 8;

/// A closed network, as one of its members knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    network: PeerId,
    is_enforced: bool,
    grant: Vec<u8, MAX_GRANT_LEN, u16>,
    revoked: Revoked,
    list: Vec<u8, MAX_REVOCATION_LEN, u16>,
    members: Members,
    /// Own time, and when it was that; `None` while it is not trusted.
    time: Option<(Instant, u64)>,
    /// Why the last peer that was shown is no member.
    denied: Option<(PeerId, Denial)>,
    /// A peer that has a newer list.
    newer: Option<PeerId>,
    /// When a list may be asked for.
    fetch_at: Instant,
    /// Peers that do not belong to the network any more.
    expelled: Deque<(PeerId, Denial), MAX_REVOKED>,
    /// Why the record of the last peer that was shown does not count.
    record_denied: Option<(PeerId, Denial)>,
    /// What the host is to do next.
    steps: Deque<Action, MAX_STEPS>,
    /// Servers whose streams were opened once more because they had shown no grant.
    asked_again: Vec<PeerId, MAX_LEASES>,
}

impl Closed {
    /// No network yet. It is large, so it is made where it stays.
    pub const fn new() -> Self {
        Self {
            network: PeerId::from_bytes([0; 32]),
            is_enforced: false,
            grant: Vec::new(),
            revoked: Revoked::new(),
            list: Vec::new(),
            members: Members::new(),
            time: None,
            denied: None,
            newer: None,
            fetch_at: Instant::from_millis(0),
            expelled: Deque::new(),
            record_denied: None,
            steps: Deque::new(),
            asked_again: Vec::new(),
        }
    }

    /// Sets the network and the envelope of the own grant in it, which the host has verified; of
    /// more than [`MAX_GRANT_LEN`] bytes none is shown.
    pub fn start(&mut self, network: PeerId, grant: &[u8]) {
        self.network = network;
        self.grant = Vec::from_slice(grant).unwrap_or_default();
    }

    /// Peers without a grant are refused from now on.
    pub fn enforce(&mut self) {
        self.is_enforced = true;
    }

    /// Whether they are.
    pub fn is_enforced(&self) -> bool {
        self.is_enforced
    }

    /// The network's id.
    pub fn network(&self) -> &PeerId {
        &self.network
    }

    /// What a message carries beside: the own grant, if it is the first one of its stream, and the
    /// sequence of the list.
    pub fn membership(&self) -> Membership<'_> {
        Membership {
            grant: Some(&self.grant)
                .filter(|grant| !grant.is_empty())
                .map(|it| &**it),
            revocations: self.is_enforced.then(|| self.revoked.sequence()),
        }
    }

    /// The list that counts.
    pub fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    /// Its envelope; empty if there is none.
    pub fn list(&self) -> &[u8] {
        &self.list
    }

    /// The statistics of the members.
    pub fn stats(&self) -> TableStats {
        self.members.stats()
    }

    /// Sets own time at `now`, ms since the Unix epoch; `None` while it is not trusted.
    pub(super) fn set_time(&mut self, now: Instant, own_ms: Option<u64>) {
        self.time = own_ms.map(|ms| (now, ms));
    }

    fn own_ms(&self) -> Option<u64> {
        self.time.map(|(_, ms)| ms)
    }

    /// Takes what a peer shows of its membership. `is_needed`: the peer has a lease with this
    /// process.
    pub(super) fn shown(
        &mut self,
        now: Instant,
        peer: &PeerId,
        membership: Membership<'_>,
        verifier: &impl Verifier,
        is_needed: &dyn Fn(&PeerId) -> bool,
    ) {
        (self.denied, self.record_denied) = (None, None);
        if let Some(envelope) = membership.grant {
            self.shown_grant(now, peer, envelope, verifier, is_needed);
        }
        // Only servers can be asked for a list, and what others say of one is not believed.
        let is_server = |member: &Member| member.is_server();
        let sequence = membership.revocations.unwrap_or(0);
        if self.is_enforced
            && sequence > self.revoked.sequence()
            && self.members.find(peer).is_some_and(is_server)
        {
            self.newer = Some(*peer);
        }
    }

    fn shown_grant(
        &mut self,
        now: Instant,
        peer: &PeerId,
        envelope: &[u8],
        verifier: &impl Verifier,
        is_needed: &dyn Fn(&PeerId) -> bool,
    ) {
        let member = self.opened(envelope, verifier, |grant| {
            if grant.peer != *peer {
                return Err(Denial::OtherPeer);
            }
            // Until the network is closed, all are noted as they are.
            if self.is_enforced {
                in_time(grant.not_after_ms, self.own_ms())?;
            }
            Ok(Member::of(now, grant))
        });
        match member.and_then(|member| member) {
            Ok(_) if self.revoked.has(peer) => self.denied = Some((*peer, Denial::Revoked)),
            Ok(member) => {
                let (peer, is_server) = (*peer, member.is_server());
                // Nodes have no part in the DHT.
                if self.members.put(member, is_needed) && is_server {
                    // The host polls after each input, so there is room.
                    let _ = self.steps.push_back(Action::Admit { peer });
                }
            }
            Err(denial) => self.denied = Some((*peer, denial)),
        }
    }

    /// Takes the record that the same peer sends with it.
    pub(super) fn shown_record(
        &mut self,
        peer: &PeerId,
        (kind, envelope): (Kind, &[u8]),
        verifier: &impl Verifier,
    ) {
        let judged = match contents(kind, envelope) {
            Some(record) => self.admit(kind, &record, verifier),
            None => Err(Denial::Unreadable),
        };
        self.record_denied = judged.err().map(|denial| (*peer, denial));
    }

    /// Why the record does not count that this peer has shown last.
    pub(super) fn record_denial(&self, peer: &PeerId) -> Option<Denial> {
        let denied = self.record_denied.as_ref();
        denied
            .filter(|(of, _)| of == peer)
            .map(|(_, denial)| *denial)
    }

    /// Whether the own stream to a server that has shown no grant is opened once more.
    pub(super) fn asks_again(&mut self, server: &PeerId) -> bool {
        if self.asked_again.contains(server) || self.asked_again.push(*server).is_err() {
            return false;
        }
        let server = *server;
        self.steps.push_back(Action::Drop { server }).is_ok()
    }

    /// Whether a stream is closed, so that its peer shows its grant on the next one.
    pub(super) fn reopens(&mut self, peer: PeerId, stream: StreamId) -> bool {
        let ended = None;
        let close = Action::Close {
            peer,
            stream,
            ended,
        };
        self.steps.push_back(close).is_ok()
    }

    /// What the host is to do next.
    pub(super) fn next_step(&mut self) -> Option<Action> {
        self.steps.pop_front()
    }

    /// Judges a peer that states this role. The name is that of a node, if it has told it.
    ///
    /// # Errors
    /// Why it is no member of the network in this role.
    pub fn judge(&self, bearer: &Bearer<'_>) -> Result<(), Denial> {
        if self.revoked.has(&bearer.peer) {
            return Err(Denial::Revoked);
        }
        let Some(member) = self.members.find(&bearer.peer) else {
            let of_this = |(peer, _): &&(PeerId, Denial)| *peer == bearer.peer;
            let denied = self.denied.as_ref().filter(of_this);
            return Err(denied.map_or(Denial::Missing, |(_, denial)| *denial));
        };
        member.judge(bearer, self.own_ms())?;
        self.judge_name(bearer, member.has_names())
    }

    /// Whether the grant of another member has the bearer's name, and its own has not.
    fn judge_name(&self, bearer: &Bearer<'_>, is_named: bool) -> Result<(), Denial> {
        let name = bearer
            .name
            .filter(|_| bearer.role == Role::Node && !is_named);
        match name.is_some_and(|name| self.members.is_of_another(name, &bearer.peer)) {
            true => Err(Denial::Claimed),
            false => Ok(()),
        }
    }

    /// Whether a record counts, by the grant in it.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn admit(
        &self,
        kind: Kind,
        record: &Record<'_>,
        verifier: &impl Verifier,
    ) -> Result<(), Denial> {
        if !self.is_enforced {
            return Ok(());
        }
        if self.revoked.has(&record.peer) {
            return Err(Denial::Revoked);
        }
        let bearer = Bearer {
            peer: record.peer,
            role: match kind {
                Kind::Indexer => Role::Indexer,
                Kind::Node => Role::Node,
            },
            name: Some(record.name),
        };
        let is_named = self.opened(record.grant, verifier, |grant| {
            let judged = grant.judge(&bearer, self.own_ms());
            judged.map(|()| !grant.names.is_empty())
        })??;
        self.judge_name(&bearer, is_named)
    }

    /// Opens a grant of this network.
    fn opened<T>(
        &self,
        envelope: &[u8],
        verifier: &impl Verifier,
        read: impl FnOnce(&Grant<'_>) -> T,
    ) -> Result<T, Denial> {
        match envelope.len() {
            0 => return Err(Denial::Missing),
            1..=MAX_GRANT_LEN => {}
            _ => return Err(Denial::Unreadable),
        }
        let opened = verifier.open(Purpose::Grant, envelope);
        let (network, payload) = opened.map_err(|_| Denial::Unreadable)?;
        if network != self.network {
            return Err(Denial::OtherNetwork);
        }
        let grant = decode_grant(payload.as_ref()).map_err(|_| Denial::Unreadable)?;
        Ok(read(&grant))
    }

    /// Takes the envelope of a list. If it counts, those that it revokes are expelled.
    ///
    /// # Errors
    /// It is none of this network.
    pub(super) fn take(
        &mut self,
        envelope: &[u8],
        verifier: &impl Verifier,
    ) -> Result<Taken, Denial> {
        let room = Vec::from_slice(envelope).map_err(|_| Denial::Unreadable)?;
        let opened = verifier.open(Purpose::Revocations, envelope);
        let (network, payload) = opened.map_err(|_| Denial::Unreadable)?;
        if network != self.network {
            return Err(Denial::OtherNetwork);
        }
        let list = decode_revocation(payload.as_ref()).map_err(|_| Denial::Unreadable)?;
        let taken = self.revoked.take(&list);
        if taken == Taken::Newer {
            self.list = room;
            self.newer = None;
            let _ = self.steps.push_back(Action::KeepRevocations);
            self.expelled.clear();
            for peer in self.revoked.peers() {
                self.members.remove(peer);
                // There is room for a whole list.
                let _ = self.expelled.push_back((*peer, Denial::Revoked));
            }
        }
        Ok(taken)
    }

    /// The next peer that does not belong to the network any more.
    pub(super) fn next_expelled(&mut self) -> Option<(PeerId, Denial)> {
        if !self.is_enforced {
            return None;
        }
        if let Some(expelled) = self.expelled.pop_front() {
            return Some(expelled);
        }
        let (peer, denial) = self.members.ended(self.own_ms()?)?;
        self.members.remove(&peer);
        Some((peer, denial))
    }

    /// The peer to be asked for its list at `now`.
    pub(super) fn next_fetch(&mut self, now: Instant) -> Option<PeerId> {
        if self.newer.is_none() || now < self.fetch_at {
            return None;
        }
        self.fetch_at = now + FETCH_PAUSE;
        self.newer.take()
    }

    /// When there is something to do without an input.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let fetch = self.newer.map(|_| self.fetch_at);
        let end = self
            .time
            .zip(self.members.first_end())
            .map(|((at, own), end)| {
                // It counts in the millisecond of its end.
                at + Duration::from_millis(end.saturating_add(1).saturating_sub(own))
            });
        fetch
            .into_iter()
            .chain(end)
            .min()
            .filter(|_| self.is_enforced)
    }
}

impl Default for Closed {
    fn default() -> Self {
        Self::new()
    }
}

/// What a peer is told that is denied.
pub(super) fn refusal(denial: &Denial) -> Ack<'static> {
    let mut reason = Reason::new();
    // What does not fit is left out.
    let _ = write!(reason, "closed network: {denial}");
    Ack {
        reason,
        ..Ack::refused("")
    }
}

/// Opens envelopes for a member: a record counts only if its subject is a member, too.
pub(super) struct ForMember<'a, V> {
    pub(super) closed: Option<&'a Closed>,
    pub(super) verifier: &'a V,
}

impl<V: Verifier> Verifier for ForMember<'_, V> {
    fn open(
        &self,
        purpose: Purpose,
        envelope: &[u8],
    ) -> Result<(PeerId, impl AsRef<[u8]>), super::codec::envelope::Flaw> {
        self.verifier.open(purpose, envelope)
    }

    fn left_out(&self, addresses: usize) {
        self.verifier.left_out(addresses);
    }

    fn admit(&self, kind: Kind, record: &Record<'_>) -> Result<(), Denial> {
        match self.closed {
            Some(closed) => closed.admit(kind, record, self.verifier),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
