//! What must be true: after every event, and when the faults are over.

use std::collections::{BTreeMap, BTreeSet};

use oc_discovery::protocol::{Ack, AckCode, OutBeat, PeerId, Role};

use crate::{
    device::{DeviceNo, State},
    view::View,
    world::World,
};

/// What has been said between devices, as far as the checks need it.
#[derive(Default)]
pub struct Ledger {
    /// Until when a server has granted its client a lease, at the latest.
    granted: BTreeMap<(DeviceNo, DeviceNo), u64>,
    /// Indexers that have given their lease with a native up, and how long copies of their records may be around.
    departed: BTreeMap<(DeviceNo, PeerId), u64>,
}

impl Ledger {
    /// A beat of `client` reached `server` and was answered.
    pub fn beat_answered(
        &mut self,
        now: u64,
        (client, server): (DeviceNo, DeviceNo),
        from: &PeerId,
        beat: &OutBeat,
        ack: &Ack,
    ) {
        if ack.code != AckCode::Accepted {
            return;
        }
        if beat.lease.is_zero() {
            // Every copy lives at least as long as the lease it was sent with.
            let copies = now + 1_000;
            self.departed.insert((server, *from), copies);
        } else {
            self.departed.remove(&(server, *from));
            let until = now + ack.lease.as_millis() as u64;
            let granted = self.granted.entry((client, server)).or_default();
            *granted = until.max(*granted);
        }
    }

    /// The device lost its memory.
    pub fn forget(&mut self, no: DeviceNo) {
        self.departed.retain(|(native, _), _| *native != no);
    }
}

impl World {
    /// What must be true of a process at any time.
    pub fn check(&self, no: DeviceNo) -> Result<(), String> {
        let device = &self.devices[no];
        let view = device.view(self.now);
        for table in &view.tables {
            ensure(
                table.used <= table.capacity,
                no,
                "a table is over its capacity",
            )?;
        }
        ensure(
            view.responsible.iter().all(|peer| view.has_record(peer))
                && view.used("responsible_peers") <= view.used("stream_records"),
            no,
            "a node is taken in that holds no lease",
        )?;
        ensure(
            self.devices.iter().all(|other| {
                device.machine.listed(&other.peer).is_none() || device.machine.favours(&other.peer)
            }),
            no,
            "a node is listed that holds no lease",
        )?;
        let departed = self
            .ledger
            .departed
            .range((no, PeerId::from_bytes([0; 32]))..=(no, PeerId::from_bytes([255; 32])));
        for ((_, peer), until) in departed {
            let is_there = view.is_live(peer) || view.known.contains(peer) || view.has_record(peer);
            ensure(
                self.now > *until || !is_there,
                no,
                "who gave its lease up is still in a table",
            )?;
        }
        let sought = native_leases(&view).filter(|lease| !lease.is_released());
        ensure(
            device.role != Role::Node || sought.count() <= 1,
            no,
            "a node seeks leases with two natives at once",
        )
    }

    /// A client never believes in a lease longer than its server does.
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
        let granted = self.ledger.granted.get(&(no, server)).copied().unwrap_or(0);
        ensure(
            believed <= granted,
            no,
            "a client believes in a lease longer than its server",
        )
    }

    /// What is not as it must be some time after the last fault.
    pub fn complaints(&self) -> BTreeSet<String> {
        let views: Vec<_> = self.devices.iter().map(|d| d.view(self.now)).collect();
        let of_role = |role| {
            self.devices
                .iter()
                .enumerate()
                .filter(move |(_, device)| device.state == State::Running && device.role == role)
                .map(|(no, _)| no)
        };
        let indexers: Vec<_> = of_role(Role::Indexer).collect();
        let nodes = of_role(Role::Node).map(|node| {
            if self.plan.tight {
                self.settled_if_there_is_room(node, &indexers, &views)
            } else {
                self.settled_node(node, &indexers, &views)
            }
        });
        let natives = of_role(Role::Native).map(|native| {
            ensure(
                views[native].responsible.is_empty()
                    || !self.offers_a_place(native, &indexers, &views),
                native,
                "nodes are taken in although indexers have room",
            )
        });
        let listed = indexers
            .iter()
            .filter(|_| !self.plan.tight)
            .map(|&indexer| {
                let peer = &self.devices[indexer].peer;
                let mut natives = self.devices[indexer].natives.iter();
                ensure(
                    natives.all(|&native| views[native].is_live(peer)),
                    indexer,
                    "an indexer is not in live_indexers of its native",
                )
            });
        nodes
            .chain(natives)
            .chain(listed)
            .filter_map(Result::err)
            .collect()
    }

    fn settled_node(
        &self,
        no: DeviceNo,
        indexers: &[DeviceNo],
        views: &[View],
    ) -> Result<(), String> {
        let held = self.held(no, indexers, views);
        let wanted = self.plan.min_indexers.min(indexers.len());
        if held != wanted {
            return Err(format!(
                "device {no} holds {held} leases with indexers, not {wanted}"
            ));
        }
        let natives = native_leases(&views[no]).count();
        let taken_in = (0..self.plan.natives)
            .filter(|&native| views[native].responsible.contains(&self.devices[no].peer))
            .count();
        let expected = usize::from(indexers.is_empty());
        ensure(
            natives == expected && taken_in == expected,
            no,
            "a node is not under one native's lease exactly if there is no indexer",
        )
    }

    /// Where tables are too small for everybody, somebody may be left out, but only if there is really no room.
    fn settled_if_there_is_room(
        &self,
        no: DeviceNo,
        indexers: &[DeviceNo],
        views: &[View],
    ) -> Result<(), String> {
        // The lease of a native that is sending the node away still runs (make before break).
        let now = self.devices[no].instant(self.now);
        if views[no].leases.iter().any(|lease| lease.is_secure(now)) {
            return Ok(());
        }
        let is_full = |&native: &DeviceNo| {
            let view = &views[native];
            !self.offers_a_place(native, indexers, views)
                && (view.is_full("responsible_peers") || view.is_full("stream_records"))
        };
        ensure(
            self.devices[no].natives.iter().all(is_full),
            no,
            "a node is without a lease although there is room",
        )
    }

    /// Whether the native knows a live indexer that has room; a full `live_indexers` may know only others.
    fn offers_a_place(&self, native: DeviceNo, indexers: &[DeviceNo], views: &[View]) -> bool {
        indexers.iter().any(|&indexer| {
            !views[indexer].is_full("stream_records")
                && (!self.plan.tight || views[native].is_live(&self.devices[indexer].peer))
        })
    }

    /// Leases with live indexers that both sides know of.
    fn held(&self, no: DeviceNo, indexers: &[DeviceNo], views: &[View]) -> usize {
        let device = &self.devices[no];
        views[no]
            .leases
            .iter()
            .filter(|lease| lease.is_secure(device.instant(self.now)))
            .filter(|lease| {
                let server = self.number_of(lease.server());
                indexers.contains(&server) && views[server].has_record(&device.peer)
            })
            .count()
    }
}

fn native_leases(view: &View) -> impl Iterator<Item = &oc_discovery::protocol::lease::Lease> {
    view.leases
        .iter()
        .filter(|lease| lease.role() == Role::Native)
}

fn ensure(holds: bool, no: DeviceNo, what: &str) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(format!("device {no}: {what}"))
    }
}
