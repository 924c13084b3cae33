//! The rules that hold after every step, one function for each. Each rule is stated in
//! `src/protocol`, beside the code that keeps it. Here it is checked from outside, against the
//! messages between the machines.

use oc_discovery::protocol::{Instant, Lease, PeerId, Role, clock::MAX_TRIP};

use crate::{
    device::DeviceNo,
    dht,
    network::NOTICED,
    view::{Seen, View},
    world::World,
};

/// Requests and attempts of a node in a minute: a burst of 16, then two a second
/// (`protocol::leases`).
pub const TRIES_A_MINUTE: usize = 16 + 2 * 60;
/// How far own time may differ from the right time after a native has reported it, ms: the
/// tolerance, and a second for each of two clocks.
const CLOCK_TOLERANCE: u64 = 32_000;
/// How late a timer or a message may be without faults, ms.
const SLACK: u64 = 1_000;
/// How long a node waits for the answer of a native, ms (`protocol::node::rounds`).
const ASK_TIMEOUT: u64 = 8_000;
/// Time for a search, ms (the diagram's `ctx 5s`).
const SEARCH: u64 = 5_000;
/// The time after which an id without news is removed, ms.
const HOUR: u64 = 3_600_000;

impl World {
    /// Checks all rules of a process.
    pub fn check(&mut self, no: DeviceNo) -> Result<(), String> {
        let mut view = std::mem::take(&mut self.scratch);
        view.clear();
        let device = &self.devices[no];
        device.machine().report(device.instant(self.now), &mut view);
        let checked = self.check_view(no, &view);
        self.scratch = view;
        checked
    }

    fn check_view(&mut self, no: DeviceNo, view: &View) -> Result<(), String> {
        self.tables_are_bounded(no, view)?;
        self.only_holders_are_listed(no, view)?;
        self.departed_stay_away(no, view)?;
        self.holders_are_not_lost(no, view)?;
        self.stale_peers_are_gone(no, view)?;
        self.own_time_is_right(no)?;
        match self.devices[no].role {
            Role::Native => {
                self.better_records_stay(no, view)?;
                self.live_indexers_are_refreshed(no, view)?;
                self.evictions_are_counted(no, view)?;
                self.remember(no, view);
                Ok(())
            }
            Role::Indexer => Ok(()),
            Role::Node => {
                self.one_native_is_sought(no, view)?;
                self.is_under_a_lease(no, view)
            }
        }
    }

    fn tables_are_bounded(&self, no: DeviceNo, view: &View) -> Result<(), String> {
        let bounded = |table: &oc_discovery::protocol::TableStats| table.used <= table.capacity;
        ensure(
            view.tables.iter().all(bounded),
            no,
            "a table is over its capacity",
        )
    }

    fn only_holders_are_listed(&self, no: DeviceNo, view: &View) -> Result<(), String> {
        let device = &self.devices[no];
        ensure(
            view.responsible.iter().all(|peer| view.has_record(peer))
                && view.used("responsible_peers") <= view.used("stream_records"),
            no,
            "a node is taken in that holds no lease",
        )?;
        if device.role == Role::Node {
            return Ok(());
        }
        let mut nodes = self.devices.iter().filter(|other| other.role == Role::Node);
        let now = Instant::from_millis(self.now);
        ensure(
            nodes.all(|other| {
                device.machine().listed(now, &other.peer).is_none()
                    || device.machine().reserves_slot(&other.peer)
            }),
            no,
            "a node is listed that holds no lease",
        )
    }

    fn departed_stay_away(&self, no: DeviceNo, view: &View) -> Result<(), String> {
        let departed = self
            .ledger
            .departed
            .range((no, PeerId::from_bytes([0; 32]))..=(no, PeerId::from_bytes([255; 32])));
        for ((_, peer), until) in departed {
            let is_there = view.is_live(peer) || view.known.contains(peer) || view.has_record(peer);
            ensure(
                self.now > *until || !is_there,
                no,
                "a peer that gave its lease up is still in a table",
            )?;
        }
        Ok(())
    }

    /// A peer that holds a lease here is not among those that left or were lost.
    fn holders_are_not_lost(&self, no: DeviceNo, view: &View) -> Result<(), String> {
        let lost = self.devices[no].machine().lost();
        let mut lost = lost.into_iter().flat_map(|lost| lost.iter());
        ensure(
            lost.all(|lost| !view.has_record(&lost.peer)),
            no,
            "a peer that holds a lease left or was lost",
        )
    }

    /// A silent peer is gone from every table a lease and a run of the GC later.
    fn stale_peers_are_gone(&mut self, no: DeviceNo, view: &View) -> Result<(), String> {
        let device = &self.devices[no];
        let gc = self.plan.interval().as_millis() as u64 * 11 / 10 + SLACK;
        let mut gone = Vec::new();
        let of_server = (no, 0)..=(no, usize::MAX);
        for ((_, client), heard) in self.ledger.heard.range(of_server) {
            let silent_since = heard.seen.max(device.resumed_at);
            if self.now <= heard.expiry.max(silent_since + heard.granted) + gc {
                continue;
            }
            let peer = &self.devices[*client].peer;
            let is_there = view.has_record(peer)
                || view.responsible.contains(peer)
                || device
                    .machine()
                    .listed(Instant::from_millis(self.now), peer)
                    .is_some()
                || (heard.role != Role::Native && device.machine().reserves_slot(peer));
            ensure(!is_there, no, "a stale peer is still in a table")?;
            gone.push(*client);
        }
        for client in gone {
            self.ledger.heard.remove(&(no, client));
        }
        self.live_entries_run_out(no, view)
    }

    /// An entry of `live_indexers` ends with the lease behind it, or with the last record that its
    /// indexer signed.
    fn live_entries_run_out(&self, no: DeviceNo, view: &View) -> Result<(), String> {
        let device = &self.devices[no];
        if device.stepped {
            return Ok(());
        }
        let own_ms = device.own_ms(self.now);
        for entry in &view.live {
            let indexer = self.number_of(&entry.peer);
            let known = self.ledger.evidence.get(&(no, indexer));
            let by_beat = known.is_some_and(|known| {
                let (seen, granted) = known.lease;
                self.now <= seen.max(device.resumed_at) + granted + SLACK
            });
            let signed = self.ledger.signed.range((indexer, 0)..=(indexer, u64::MAX));
            let by_record =
                || signed.map(|(_, until)| *until).max() >= Some(own_ms.saturating_sub(SLACK));
            let by_record = by_record();
            ensure(
                by_beat || by_record,
                no,
                "an indexer is live although its lease and records have run out",
            )?;
        }
        Ok(())
    }

    /// Own time is that of the natives, once one has reported it. Before that, no server changes a
    /// clock that may be right.
    fn own_time_is_right(&self, no: DeviceNo) -> Result<(), String> {
        let device = &self.devices[no];
        let (own, system) = (device.own_ms(self.now), device.system_ms(self.now));
        let right = self.now.saturating_add_signed(crate::world::REAL);
        if device.role == Role::Native {
            return Ok(());
        }
        if !device.natives_clocks.is_empty() {
            let longest_trip = MAX_TRIP.as_millis() as u64;
            return ensure(
                own.abs_diff(right) <= CLOCK_TOLERANCE + longest_trip,
                no,
                "own time is not that of the natives",
            );
        }
        ensure(
            system < device.floor || own == system,
            no,
            "a server that is no native moved a clock that may be right",
        )
    }

    /// A record from a beat or a search is replaced only by a better one.
    fn better_records_stay(&self, no: DeviceNo, view: &View) -> Result<(), String> {
        let device = &self.devices[no];
        let now = device.instant(self.now);
        for (peer, before, expires) in &device.seen.live {
            let Some(sequence) = view
                .live(peer)
                .and_then(|entry| dht::sequence_of(&entry.addrs))
            else {
                continue;
            };
            let indexer = self.number_of(peer);
            let until = |sequence| self.ledger.signed.get(&(indexer, sequence)).copied();
            let is_worse = sequence < *before && until(sequence) < until(*before);
            ensure(
                !is_worse || now > *expires,
                no,
                "a better record was replaced by a worse one",
            )?;
        }
        Ok(())
    }

    /// In a calm network, an indexer with a valid record in the DHT is missing in `live_indexers`
    /// for at most the time of a search. An id that was reported since the last run is searched for
    /// by the next.
    fn live_indexers_are_refreshed(&mut self, no: DeviceNo, view: &View) -> Result<(), String> {
        // The time of a run of the loop, of its searches, and of the next run, which may be the
        // first to find it.
        let pause = self.plan.interval().as_millis() as u64 * 5 / 2 + 10_000;
        let run = self.plan.interval().as_millis() as u64 * 11 / 10 + SLACK;
        let device = &mut self.devices[no];
        let known_since = &mut device.seen.known_since;
        known_since.retain(|(peer, _)| view.known.contains(peer));
        for peer in &view.known {
            if known_since.iter().all(|(other, _)| other != peer) {
                known_since.push((*peer, self.now));
            }
        }
        let is_calm = self
            .calm_since
            .is_some_and(|calm| self.now >= calm.max(device.resumed_at) + pause);
        if !is_calm {
            return Ok(());
        }
        let Seen { live, missing, .. } = &mut device.seen;
        // A full table has no room for entries from the DHT.
        let may = |peer: &PeerId| {
            !view.is_live(peer) && view.known.contains(peer) && !view.is_full("live_indexers")
        };
        missing.retain(|(peer, _)| may(peer));
        for (peer, ..) in live.iter() {
            let is_lost = may(peer);
            if is_lost && missing.iter().all(|(other, _)| other != peer) {
                missing.push((*peer, self.now));
            }
        }
        let own_ms = device.own_ms(self.now);
        let before = self.now.saturating_sub(pause);
        let Seen {
            missing,
            known_since,
            ..
        } = &device.seen;
        let mut lasting = missing.iter().filter(|(peer, since)| {
            let known = known_since.iter().find(|(known, _)| known == peer);
            let looked_at = known.map_or(0, |(_, since)| since + run);
            self.now > (*since).max(looked_at) + SEARCH + SLACK
        });
        let is_lost = lasting.any(|(peer, _)| self.dht.has_valid(before, own_ms, peer));
        ensure(
            !is_lost,
            no,
            "an indexer is not live although its record is in the DHT",
        )
    }

    /// An entry that was not given up and has not expired is removed only if a counter shows it.
    fn evictions_are_counted(&self, no: DeviceNo, view: &View) -> Result<(), String> {
        let device = &self.devices[no];
        let now = device.instant(self.now);
        let departed = |peer: &PeerId| {
            let key = (no, *peer);
            self.ledger.departed.contains_key(&key) || self.ledger.left.contains(&key)
        };
        let counted = turned_away(view);
        let live_gone =
            device.seen.live.iter().any(|(peer, _, expires)| {
                now <= *expires && !view.is_live(peer) && !departed(peer)
            });
        ensure(
            !live_gone || counted[0] > device.seen.turned_away[0],
            no,
            "an entry of live_indexers went, and no counter says so",
        )?;
        // An id without news for an hour is removed.
        let is_young = self.now < HOUR;
        let mut known = device.seen.known.iter();
        let known_gone =
            is_young && known.any(|peer| !view.known.contains(peer) && !departed(peer));
        ensure(
            !known_gone || counted[1] > device.seen.turned_away[1],
            no,
            "a known id went, and no counter says so",
        )
    }

    fn remember(&mut self, no: DeviceNo, view: &View) {
        let seen = &mut self.devices[no].seen;
        let Seen { live, known, .. } = seen;
        live.clear();
        live.extend(view.live.iter().map(|entry| {
            let sequence = dht::sequence_of(&entry.addrs).unwrap_or_default();
            (entry.peer, sequence, entry.expires)
        }));
        known.clone_from(&view.known);
        seen.turned_away = turned_away(view);
        self.ledger.left.retain(|(server, _)| *server != no);
    }

    fn one_native_is_sought(&self, no: DeviceNo, view: &View) -> Result<(), String> {
        let now = self.devices[no].instant(self.now);
        let is_sought = |lease: &&Lease| !lease.is_released() && !lease.is_secure(now);
        let sought = native_leases(view).filter(is_sought);
        ensure(
            sought.count() <= 1,
            no,
            "a node seeks leases with two natives at once",
        )
    }

    /// While a native can be reached, a node is never without a lease for long.
    fn is_under_a_lease(&mut self, no: DeviceNo, view: &View) -> Result<(), String> {
        let now = self.devices[no].instant(self.now);
        let holds = view.leases.iter().any(|lease| lease.expiry(now).is_some());
        let has_places = self.plan.size != crate::scenario::Size::Tight;
        if holds || !has_places || self.devices[no].endpoint.is_ending() {
            self.ledger.bare.remove(&no);
            return Ok(());
        }
        let Some(calm) = self.calm_since else {
            return Ok(());
        };
        let since = *self.ledger.bare.entry(no).or_insert(self.now);
        // Connections that became silent before are noticed by then, and the last request over one
        // is given up.
        let calm = calm + NOTICED + ASK_TIMEOUT;
        let since = since.max(calm).max(self.devices[no].resumed_at);
        let bare = self.now.saturating_sub(since);
        self.longest_bare = self.longest_bare.max(bare);
        // No answer is lost now, so no round fails. What remains is the longest pause between two
        // rounds (ARCHITECTURE.md, "Retries").
        let pause = self.plan.terms.lease.as_millis() as u64 / 6;
        ensure(
            bare <= pause.min(10_000) + SLACK,
            no,
            "a node is without a lease although a native can be reached",
        )
    }
}

/// Leases with natives, or sought with them.
pub fn native_leases(view: &View) -> impl Iterator<Item = &Lease> {
    view.leases
        .iter()
        .filter(|lease| lease.role() == Role::Native)
}

fn turned_away(view: &View) -> [u64; 2] {
    ["live_indexers", "known_peer_ids"].map(|name| {
        let mut tables = view.tables.iter();
        tables
            .find(|table| table.name == name)
            .map_or(0, |table| table.refused + table.evicted)
    })
}

/// An error that names the device, unless it holds.
pub fn ensure(holds: bool, no: DeviceNo, what: &str) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(format!("device {no}: {what}"))
    }
}
