//! The messages and events that the checks need. It is kept beside the machines, only from what
//! passes between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use oc_discovery::protocol::{Ack, AckCode, Beat, PeerId, Role, SignedRecord, Want};

use crate::device::DeviceNo;

/// How long the verdict of a beat or a pong counts, ms (PROTOCOL.md).
const VERDICT: u64 = 10_000;
/// The time limit of a probe, ms (PROTOCOL.md).
const PROBE: u64 = 2_000;
/// How long a promise to take a node in is valid, ms.
const TICKET: u64 = 10_000;
/// How long a node that let such a promise expire is remembered, ms.
const LET_GO: u64 = 120_000;
/// The time in which requests and attempts are counted, ms.
const MINUTE: u64 = 60_000;

/// What a native knows about an indexer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// The last beat or pong, if no failed probe came since.
    pub alive_at: Option<u64>,
    /// Free leases in the indexer's last report.
    pub free: Option<u32>,
    /// Nodes released to it since.
    pub promised: u32,
    /// Receipt of its last beat, and the length of the lease granted, ms.
    pub lease: (u64, u64),
    probed_at: Option<u64>,
}

/// What a server has received from a client that holds a lease.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// The role of the client.
    pub role: Role,
    /// Receipt of its last beat.
    pub seen: u64,
    /// Receipt of the last accepted beat, plus the lease granted.
    pub expiry: u64,
    /// The lease granted, ms.
    pub granted: u64,
    /// The stream of that beat, by the world's number.
    pub stream: usize,
}

/// A promise to take a node in that was not used yet.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    told: u64,
    kept_until: u64,
}

/// What has passed between devices.
#[derive(Default)]
pub struct Ledger {
    /// The latest end of a lease that a server has granted its client.
    pub granted: BTreeMap<(DeviceNo, DeviceNo), u64>,
    /// Indexers that have given up their lease with a native, and how long copies of their records
    /// may exist.
    pub departed: BTreeMap<(DeviceNo, PeerId), u64>,
    /// Peers that gave a lease up since their server was checked last.
    pub left: BTreeSet<(DeviceNo, PeerId)>,
    /// What natives know of indexers.
    pub evidence: BTreeMap<(DeviceNo, DeviceNo), Evidence>,
    /// What servers have received from their clients: (server, client).
    pub heard: BTreeMap<(DeviceNo, DeviceNo), Heard>,
    /// Promises of natives to take nodes in: (native, node).
    pub tickets: BTreeMap<(DeviceNo, DeviceNo), Ticket>,
    /// Requests that wait at a native: the indexers that it knew to be alive when they came, and
    /// what they request.
    pub waiting: BTreeMap<(DeviceNo, u64), (BTreeSet<DeviceNo>, Want)>,
    /// Until when a node may try an indexer that it was offered: (node, indexer).
    pub offered: BTreeMap<(DeviceNo, DeviceNo), u64>,
    /// The times of a node's requests and attempts in the last minute.
    pub tries: BTreeMap<DeviceNo, VecDeque<u64>>,
    /// Beats of a native to another since it last reported a live id: (from, to), and the id.
    pub untold: BTreeMap<(DeviceNo, DeviceNo), BTreeMap<PeerId, u32>>,
    /// The records that a device has signed: the sequence, and when the record expires.
    pub signed: BTreeMap<(DeviceNo, u64), u64>,
    /// Since when a node is without any lease.
    pub bare: BTreeMap<DeviceNo, u64>,
}

impl Ledger {
    /// Takes note that a beat of `client` reached `server` on `stream` and was answered.
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
                // Every copy lives at least as long as the lease that it was sent with.
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

    /// Takes note that a stream has ended at its server.
    pub fn stream_ended(&mut self, server: DeviceNo, client: DeviceNo, stream: usize) {
        let is_newest = self.heard.get(&(server, client));
        if is_newest.is_some_and(|heard| heard.stream == stream) {
            self.silenced(server, client);
        }
    }

    /// Cancels the native's verdict about the indexer.
    pub fn silenced(&mut self, native: DeviceNo, indexer: DeviceNo) {
        if let Some(known) = self.evidence.get_mut(&(native, indexer)) {
            known.alive_at = None;
        }
    }

    /// Takes note that the native begins a probe.
    pub fn probe_began(&mut self, now: u64, native: DeviceNo, indexer: DeviceNo) {
        let known = self.evidence.entry((native, indexer)).or_default();
        known.probed_at = Some(now);
    }

    /// Takes note that the native's probe ended in time.
    pub fn probe_ended(&mut self, now: u64, native: DeviceNo, indexer: DeviceNo, alive: bool) {
        let known = self.evidence.entry((native, indexer)).or_default();
        if alive && known.probed_at.take().is_some() {
            known.alive_at = Some(now);
        } else {
            known.fail_probe();
        }
    }

    /// Takes note that the native was polled at `now`: probes that ran out of time have failed.
    pub fn polled(&mut self, now: u64, native: DeviceNo) {
        for (_, known) in self.evidence.range_mut((native, 0)..=(native, usize::MAX)) {
            if known.probed_at.is_some_and(|began| began + PROBE <= now) {
                known.fail_probe();
            }
        }
    }

    /// Whether the native has seen the indexer alive, without a failed probe since.
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

    /// Whether the native recently promised to take the node in.
    pub fn has_ticket(&self, now: u64, native: DeviceNo, node: DeviceNo) -> bool {
        let ticket = self.tickets.get(&(native, node));
        ticket.is_some_and(|ticket| now <= ticket.told + TICKET)
    }

    /// The nodes with such a promise, for which the native reserves a place.
    pub fn places_kept(&self, now: u64, native: DeviceNo) -> impl Iterator<Item = DeviceNo> {
        self.tickets
            .range((native, 0)..=(native, usize::MAX))
            .filter(move |(_, ticket)| now <= ticket.kept_until)
            .map(|((_, node), _)| *node)
    }

    /// Takes note that the native promises to take the node in. For a node that recently let such a
    /// promise expire no place is reserved, unless it is `stranded`.
    pub fn give_ticket(&mut self, now: u64, native: DeviceNo, node: DeviceNo, stranded: bool) {
        let before = self.tickets.get(&(native, node));
        let let_go = before.filter(|before| !stranded && now <= before.told + TICKET + LET_GO);
        let ticket = Ticket {
            told: now,
            kept_until: let_go.map_or(now + TICKET, |before| before.kept_until),
        };
        self.tickets.insert((native, node), ticket);
    }

    /// Takes note of a node's request or attempt. Returns how many there were within a minute.
    pub fn tries(&mut self, now: u64, node: DeviceNo) -> usize {
        let tries = self.tries.entry(node).or_default();
        tries.push_back(now);
        while tries.front().is_some_and(|at| at + MINUTE <= now) {
            tries.pop_front();
        }
        tries.len()
    }

    /// Clears what depends on the device's memory, which was lost.
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
    /// Counts a failed probe. It outweighs what was seen before it began, but nothing that came
    /// later.
    fn fail_probe(&mut self) {
        if let Some(began) = self.probed_at.take()
            && self.alive_at.is_some_and(|at| at < began)
        {
            self.alive_at = None;
        }
    }
}
