//! Lookups: devices look each other up during faults and afterwards.
//!
//! At all times, a lookup ends in its time, it is complete only if every server that it asked has
//! answered that is needed, and it finds what the answering servers list. When the faults are over,
//! it finds everything that is listed by a server that it has to ask, and is complete.

use std::collections::{BTreeMap, BTreeSet};

use oc_discovery::protocol::{
    Count, Instant, Key, PeerId, Reach, Role,
    codec::{directory::Response, record::Kind},
    lookup::{Ask, LookupId, Lookups, OPERATOR_LIMIT, Query, Question},
};

use crate::{
    device::{Device, DeviceNo, State},
    frames::verified,
    invariants::ensure,
    world::World,
};

/// The lookups of a process.
pub type Slots = Lookups<1, 1, 2>;

/// Made at compile time, because it is large for a stack.
pub const NO_LOOKUPS: Slots = Slots::new();

/// How late a timer may be, ms.
const LATE: u64 = 15;
/// Pairs of devices, of which one looks the other up when the faults are over.
const PAIRS: usize = 24;
/// The message for this broken rule.
const IN_TIME: &str = "a lookup has not ended in its time";

/// A lookup of an operator, as observed from outside.
#[derive(Debug)]
pub struct Watch {
    life: u64,
    began: u64,
    /// The open queries, and whether the server asks others, too.
    open: Vec<(Query, PeerId, bool)>,
    /// Subjects of the records that came in time.
    told: BTreeSet<PeerId>,
}

/// The queries between lookups and their servers.
#[derive(Default)]
pub struct Desk {
    /// The lookups of operators.
    watches: BTreeMap<(DeviceNo, LookupId), Watch>,
    /// Lookups that are over, and complete ones among them.
    pub ended: [u64; 2],
    /// Listings that are over, and complete ones among them.
    pub listed: [u64; 2],
    /// Whether operators have stopped asking by themselves.
    is_closed: bool,
    /// The result of the last one: the subjects, and whether it is complete.
    last: (Vec<PeerId>, bool),
    /// How many claimants the last one has counted.
    counted: Count,
}

impl Desk {
    /// The subjects of the records that the last lookup found.
    pub fn found(&self) -> &[PeerId] {
        &self.last.0
    }

    /// Whether the last lookup is over, has found this one first, and has counted this many
    /// claimants, which are all.
    pub fn is_first(&self, peer: PeerId, nodes: u32) -> bool {
        let are_all = true;
        let is_first = self.last.0.first() == Some(&peer);
        self.is_over() && is_first && self.counted == Count { nodes, are_all }
    }

    /// Whether the last lookup is over.
    pub fn is_over(&self) -> bool {
        self.watches.is_empty()
    }

    /// Whether the last lookup is over and complete.
    pub fn is_complete(&self) -> bool {
        self.watches.is_empty() && self.last.1
    }

    /// Whether the last lookup is over and incomplete.
    pub fn is_cut(&self) -> bool {
        self.watches.is_empty() && !self.last.1
    }

    /// From now on no operator asks by itself.
    pub fn close(&mut self) {
        self.is_closed = true;
    }
}

impl World {
    /// The operator of a device asks for something that may be there.
    pub fn ask_around(&mut self, no: DeviceNo) -> Result<(), String> {
        if !self.plan.asks || self.desk.is_closed {
            return Ok(());
        }
        let of = self.rng.below(self.devices.len() as u64) as usize;
        let question = match self.rng.below(4) {
            3 => return self.list_nodes(no),
            0 => Question::Indexers,
            1 => Question::Peer(self.devices[of].peer),
            _ => Question::Name(self.devices[of].name(of)),
        };
        self.look_up(no, question)
    }

    /// Begins a lookup of a device's operator.
    pub fn look_up(&mut self, no: DeviceNo, question: Question) -> Result<(), String> {
        // The results of an earlier lookup do not count for this one.
        self.desk.last = Default::default();
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        // A process that was stopped may not have ended the lookup before.
        let Some(lookup) = device.endpoint.find(now, question) else {
            return ensure(device.resumed_at + 6_000 > self.now, no, IN_TIME);
        };
        let watch = Watch {
            life: device.life,
            began: self.now,
            open: Vec::new(),
            told: BTreeSet::new(),
        };
        self.desk.watches.insert((no, lookup), watch);
        Ok(())
    }

    /// Takes note of what a lookup asks a server.
    pub fn note_asked(
        &mut self,
        no: DeviceNo,
        lookup: LookupId,
        (query, server): (Query, PeerId),
        ask: &Ask,
    ) {
        let asks_others = matches!(
            ask,
            Ask::Name {
                reach: Reach::Network,
                ..
            } | Ask::Peer {
                reach: Reach::Network,
                ..
            }
        );
        if let Some(watch) = self.desk.watches.get_mut(&(no, lookup)) {
            watch.open.push((query, server, asks_others));
        }
    }

    /// Takes note of a server's answer to a query of a lookup, or of its failure.
    pub fn note_told(&mut self, no: DeviceNo, query: Query, response: Option<&Response<'_>>) {
        // Each process numbers its queries from the start.
        let life = self.devices[no].life;
        let mut watches = self.desk.watches.range_mut((no, LookupId(0))..);
        let watch = watches
            .find(|((of, _), watch)| {
                *of == no
                    && watch.life == life
                    && watch.open.iter().any(|(open, ..)| *open == query)
            })
            .map(|(_, watch)| watch)
            .filter(|watch| self.now <= watch.began + OPERATOR_LIMIT.as_millis() as u64);
        let Some(watch) = watch else { return };
        if !matches!(response, Some(Response::Error(_)) | None) {
            watch.open.retain(|(open, ..)| *open != query);
        }
        if let Some(Response::Records { records, ages, .. }) = response {
            let own_ms = self.devices[no].own_ms(self.now);
            let latest_ms = own_ms + OPERATOR_LIMIT.as_millis() as u64 + LATE;
            let ages = ages.iter().chain(std::iter::repeat(&u32::MAX));
            // A copy that no server lists under a lease may end before the lookup does.
            let stay = records.iter().zip(ages).filter_map(|(envelope, age)| {
                let record = verified(Kind::Node, envelope).ok()?;
                let is_leased = *age != u32::MAX;
                (is_leased || latest_ms <= record.expires_at_ms()).then_some(record.peer)
            });
            watch.told.extend(stay);
        }
    }

    /// Checks that any device finds any other that is listed at a server that it has to ask.
    pub fn any_finds_any(&mut self) -> Result<(), String> {
        self.desk.is_closed = true;
        self.run_until(self.now + OPERATOR_LIMIT.as_millis() as u64 + LATE)?;
        let is_up = |device: &Device| device.state == State::Running;
        let living = self.plan.living() as u64;
        for _ in 0..PAIRS {
            let no = self.rng.below(living) as usize;
            let of = self.rng.below(living) as usize;
            if !is_up(&self.devices[no]) || !is_up(&self.devices[of]) {
                continue;
            }
            let peer = self.devices[of].peer;
            let is_listed = self.is_listed_for(no, &peer);
            let question = match self.rng.below(2) {
                0 => Question::Peer(peer),
                _ => Question::Name(self.devices[of].name(of)),
            };
            let may_be_cut = match &question {
                // A search of the DHT that finds nothing may take longer than a lookup.
                Question::Peer(_) => self.plan.fruitless > 0,
                Question::Name(name) => !self.is_settled(&Key::Name(name.clone())),
                Question::Indexers | Question::Service(_) => false,
            };
            self.look_up(no, question)?;
            self.step(no, Vec::new())?;
            self.run_until(self.now + OPERATOR_LIMIT.as_millis() as u64 + LATE)?;
            let (found, is_complete) = &self.desk.last;
            ensure(
                !is_listed || found.contains(&peer) || may_be_cut,
                no,
                "a lookup in the calm has not found what a server lists that it has to ask",
            )?;
            ensure(
                *is_complete || may_be_cut,
                no,
                "a lookup in the calm is incomplete",
            )?;
        }
        Ok(())
    }

    /// Checks that some lookups and listings were complete; otherwise the run has tested nothing.
    pub fn lookups_were_some(&self) -> Result<(), String> {
        let of = [(self.desk.ended, "lookups"), (self.desk.listed, "listings")];
        for ([ended, complete], what) in of {
            if complete == 0 {
                return Err(format!("{complete} of {ended} {what} were complete"));
            }
        }
        Ok(())
    }

    /// Whether one of the servers that the device has to ask lists the peer: itself, its natives,
    /// and the indexers that are live there; of a native, those that are live at itself.
    pub fn is_listed_for(&self, no: DeviceNo, peer: &PeerId) -> bool {
        let device = &self.devices[no];
        let natives = device.natives.iter().copied();
        let is_native = device.role == Role::Native;
        let pages = natives.clone().filter(|_| !is_native);
        let pages = pages.chain(is_native.then_some(no));
        let live = pages.flat_map(|native| self.devices[native].view(self.now).live);
        let live: Vec<_> = live.map(|entry| self.number_of(&entry.peer)).collect();
        let mut servers = natives.chain(live).chain([no]);
        let now = Instant::from_millis(self.now);
        servers.any(|server| self.devices[server].machine().listed(now, peer).is_some())
    }

    pub fn lookup_done(&mut self, no: DeviceNo, lookup: LookupId) -> Result<(), String> {
        let device = &self.devices[no];
        let outcome = device.endpoint.outcome(lookup);
        let outcome = outcome.ok_or("a lookup that is over has no outcome")?;
        let (is_complete, more) = (outcome.is_complete, outcome.more);
        let counted = outcome.claimants;
        let found: Vec<_> = outcome.records.iter().map(|r| *r.peer()).collect();
        self.desk.ended[0] += 1;
        self.desk.ended[1] += u64::from(is_complete);
        let watch = self.desk.watches.remove(&(no, lookup));
        let Some(watch) = watch.filter(|watch| watch.life == device.life) else {
            return Ok(());
        };
        // If a server that asks all others has found it, no second one is needed.
        let left: Vec<_> = outcome.left().copied().collect();
        let is_needed = |(_, server, asks_others): &(Query, PeerId, bool)| {
            !left.contains(server) && (!asks_others || found.is_empty())
        };
        ensure(
            !is_complete || !watch.open.iter().any(is_needed),
            no,
            "a lookup is complete although a server has not answered",
        )?;
        ensure(
            more || watch.told.iter().all(|peer| found.contains(peer)),
            no,
            "a lookup has lost what a server told",
        )?;
        self.desk.last = (found, is_complete);
        self.desk.counted = counted;
        Ok(())
    }

    /// Checks that no lookup of this process is older than allowed.
    pub fn check_watches(&mut self, no: DeviceNo) -> Result<(), String> {
        let device = &self.devices[no];
        let longest = OPERATOR_LIMIT.as_millis() as u64 + LATE;
        let is_late = |watch: &Watch| {
            watch.life == device.life && watch.began.max(device.resumed_at) + longest < self.now
        };
        let mut watches = self.desk.watches.range((no, LookupId(0))..);
        let late = watches.find(|((of, _), watch)| *of == no && is_late(watch));
        ensure(late.is_none(), no, IN_TIME)
    }
}
