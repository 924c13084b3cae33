//! What has been said and done, as far as the checks need it: kept beside the machines, from what
//! passes between them alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use oc_discovery::protocol::{Ack, AckCode, Beat, PeerId, Role, SignedRecord, Want};

use crate::device::DeviceNo;

/// A beat or a pong speaks for an indexer for so long, ms (PROTOCOL.md).
const VERDICT: u64 = 10_000;
/// A probe ends after so long, ms (PROTOCOL.md).
const PROBE: u64 = 2_000;
/// A word "I take you in" holds for so long, ms.
const TICKET: u64 = 10_000;
/// A node that let such a word go is remembered for so long, ms.
const LET_GO: u64 = 120_000;
/// In which asks and attempts are counted, ms.
const MINUTE: u64 = 60_000;

/// What a native has seen of an indexer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// The last beat or pong that nothing has spoken against since.
    pub alive_at: Option<u64>,
    /// Free leases at the indexer's last word about them.
    pub free: Option<u32>,
    /// Nodes released to it since.
    pub promised: u32,
    /// Receipt of its last beat, and how long a lease that was granted, ms.
    pub lease: (u64, u64),
    probed_at: Option<u64>,
}

/// What a server has heard of a client that holds a lease.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// What the client is.
    pub role: Role,
    /// Receipt of its last beat.
    pub seen: u64,
    /// Receipt of the last beat that was accepted, plus what was granted.
    pub expiry: u64,
    /// What was granted, ms.
    pub granted: u64,
    /// The stream it came on, as the world numbers them.
    pub stream: usize,
}

/// A word "I take you in" that was not made use of yet.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    told: u64,
    kept_until: u64,
}

/// What has been said between devices.
#[derive(Default)]
pub struct Ledger {
    /// Until when a server has granted its client a lease, at the latest.
    pub granted: BTreeMap<(DeviceNo, DeviceNo), u64>,
    /// Indexers that have given their lease with a native up, and how long copies of their records
    /// may be around.
    pub departed: BTreeMap<(DeviceNo, PeerId), u64>,
    /// Peers that gave a lease up since their server was checked last.
    pub left: BTreeSet<(DeviceNo, PeerId)>,
    /// What natives know of indexers.
    pub evidence: BTreeMap<(DeviceNo, DeviceNo), Evidence>,
    /// What servers heard of their clients: (server, client).
    pub heard: BTreeMap<(DeviceNo, DeviceNo), Heard>,
    /// What a native told a node that it takes in: (native, node).
    pub tickets: BTreeMap<(DeviceNo, DeviceNo), Ticket>,
    /// Requests that wait at a native: which indexers it knew to be alive when they came, and what
    /// is wanted.
    pub waiting: BTreeMap<(DeviceNo, u64), (BTreeSet<DeviceNo>, Want)>,
    /// Until when a node may try an indexer that it was offered: (node, indexer).
    pub offered: BTreeMap<(DeviceNo, DeviceNo), u64>,
    /// When a node asked or tried a server, in the last minute.
    pub tries: BTreeMap<DeviceNo, VecDeque<u64>>,
    /// Beats of a native to another since it last told of a live id: (from, to), and the id.
    pub untold: BTreeMap<(DeviceNo, DeviceNo), BTreeMap<PeerId, u32>>,
    /// The records that a device has signed: sequence, and when the record runs out.
    pub signed: BTreeMap<(DeviceNo, u64), u64>,
    /// Since when a node is without any lease.
    pub bare: BTreeMap<DeviceNo, u64>,
}

impl Ledger {
    /// A beat of `client` reached `server` on `stream` and was answered.
    pub fn beat_answered(
        &mut self,
        now: u64,
        (client, server): (DeviceNo, DeviceNo),
        stream: usize,
        from: &PeerId,
        beat: &Beat<SignedRecord<'_>>,
        ack: &Ack<'_>,
    ) {
        let key = (server, client);
        match ack.code {
            AckCode::Accepted if beat.lease.is_zero() => {
                self.heard.remove(&key);
                self.evidence.remove(&key);
                // Every copy lives at least as long as the lease it was sent with.
                self.departed.insert((server, *from), now + 1_000);
                self.left.insert((server, *from));
            }
            AckCode::Accepted => {
                self.departed.remove(&(server, *from));
                let granted = ack.lease.as_millis() as u64;
                let longest = self.granted.entry((client, server)).or_default();
                *longest = (now + granted).max(*longest);
                let heard = Heard {
                    role: beat.role,
                    seen: now,
                    expiry: now + granted,
                    granted,
                    stream,
                };
                self.heard.insert(key, heard);
                if beat.role == Role::Indexer {
                    let known = self.evidence.entry(key).or_default();
                    known.alive_at = Some(now);
                    if let Some(load) = beat.load {
                        let load = load.clamped();
                        known.free = Some(load.possible.saturating_sub(load.held));
                    }
                    known.promised = 0;
                    known.lease = (now, granted);
                }
            }
            AckCode::Released => {
                if let Some(heard) = self.heard.get_mut(&key) {
                    (heard.seen, heard.stream) = (now, stream);
                }
            }
            AckCode::Full | AckCode::Refused => {}
        }
    }

    /// A stream ended at its server.
    pub fn stream_ended(&mut self, server: DeviceNo, client: DeviceNo, stream: usize) {
        let is_newest = self.heard.get(&(server, client));
        if is_newest.is_some_and(|heard| heard.stream == stream) {
            self.silenced(server, client);
        }
    }

    /// What the native saw of the indexer counts no longer.
    pub fn silenced(&mut self, native: DeviceNo, indexer: DeviceNo) {
        if let Some(known) = self.evidence.get_mut(&(native, indexer)) {
            known.alive_at = None;
        }
    }

    /// The native begins a probe.
    pub fn probe_began(&mut self, now: u64, native: DeviceNo, indexer: DeviceNo) {
        let known = self.evidence.entry((native, indexer)).or_default();
        known.probed_at = Some(now);
    }

    /// The native's probe came to its end in time.
    pub fn probe_ended(&mut self, now: u64, native: DeviceNo, indexer: DeviceNo, alive: bool) {
        let known = self.evidence.entry((native, indexer)).or_default();
        if alive && known.probed_at.take().is_some() {
            known.alive_at = Some(now);
        } else {
            known.fail_probe();
        }
    }

    /// The native has been polled at `now`: probes whose time is over have failed.
    pub fn polled(&mut self, now: u64, native: DeviceNo) {
        for (_, known) in self.evidence.range_mut((native, 0)..=(native, usize::MAX)) {
            if known.probed_at.is_some_and(|began| began + PROBE <= now) {
                known.fail_probe();
            }
        }
    }

    /// Whether the native has seen the indexer alive, and nothing has spoken against it since.
    pub fn stands(&self, native: DeviceNo, indexer: DeviceNo) -> bool {
        let known = self.evidence.get(&(native, indexer));
        known.is_some_and(|known| known.alive_at.is_some())
    }

    /// The indexers that the native knows to be alive now.
    pub fn alive(&self, now: u64, native: DeviceNo) -> impl Iterator<Item = DeviceNo> {
        self.evidence
            .range((native, 0)..=(native, usize::MAX))
            .filter(move |(_, known)| known.alive_at.is_some_and(|at| now <= at + VERDICT))
            .map(|((_, indexer), _)| *indexer)
    }

    /// Whether the native told the node lately that it takes it in.
    pub fn has_ticket(&self, now: u64, native: DeviceNo, node: DeviceNo) -> bool {
        let ticket = self.tickets.get(&(native, node));
        ticket.is_some_and(|ticket| now <= ticket.told + TICKET)
    }

    /// The nodes that the native told so, and keeps a place for.
    pub fn places_kept(&self, now: u64, native: DeviceNo) -> impl Iterator<Item = DeviceNo> {
        self.tickets
            .range((native, 0)..=(native, usize::MAX))
            .filter(move |(_, ticket)| now <= ticket.kept_until)
            .map(|((_, node), _)| *node)
    }

    /// The native tells the node that it takes it in. A node that lately let such a word go is kept
    /// no place, unless it is `stranded`.
    pub fn give_ticket(&mut self, now: u64, native: DeviceNo, node: DeviceNo, stranded: bool) {
        let before = self.tickets.get(&(native, node));
        let let_go = before.filter(|before| !stranded && now <= before.told + TICKET + LET_GO);
        let ticket = Ticket {
            told: now,
            kept_until: let_go.map_or(now + TICKET, |before| before.kept_until),
        };
        self.tickets.insert((native, node), ticket);
    }

    /// The node asks or tries a server; returns how often it did so within a minute.
    pub fn tries(&mut self, now: u64, node: DeviceNo) -> usize {
        let tries = self.tries.entry(node).or_default();
        tries.push_back(now);
        while tries.front().is_some_and(|at| at + MINUTE <= now) {
            tries.pop_front();
        }
        tries.len()
    }

    /// The device lost its memory.
    pub fn forget(&mut self, no: DeviceNo) {
        self.departed.retain(|(native, _), _| *native != no);
        self.evidence.retain(|(native, _), _| *native != no);
        self.heard.retain(|(server, _), _| *server != no);
        self.tickets.retain(|(native, _), _| *native != no);
        self.waiting.retain(|(native, _), _| *native != no);
        self.offered.retain(|(node, _), _| *node != no);
        self.untold.retain(|(native, _), _| *native != no);
        self.tries.remove(&no);
        self.bare.remove(&no);
    }
}

impl Evidence {
    /// The probe failed: that outweighs what was seen before it began, and nothing that came later.
    fn fail_probe(&mut self) {
        if let Some(began) = self.probed_at.take()
            && self.alive_at.is_some_and(|at| at < began)
        {
            self.alive_at = None;
        }
    }
}
