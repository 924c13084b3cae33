//! The rules that hold some time after the last fault.

use std::collections::BTreeSet;

use oc_discovery::protocol::Role;

use crate::{
    device::{DeviceNo, State},
    invariants::{ensure, native_leases},
    scenario::Size,
    view::View,
    world::World,
};

impl World {
    /// The rules that do not hold some time after the last fault.
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
            if self.is_tight() {
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
            .filter(|_| !self.is_tight())
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

    /// Checks that no native knows a device that has been away for more than an hour.
    pub fn forgotten(&self) -> Result<(), String> {
        let natives = self.devices[..self.plan.natives].iter().enumerate();
        for (no, native) in natives {
            let view = native.view(self.now);
            let mut away = self.devices.iter().filter(|device| !device.is_up());
            ensure(
                !away.any(|device| view.known.contains(&device.peer) || view.is_live(&device.peer)),
                no,
                "an id of which nothing was heard for an hour is still known",
            )?;
        }
        Ok(())
    }

    fn is_tight(&self) -> bool {
        self.plan.size == Size::Tight
    }

    fn settled_node(
        &self,
        no: DeviceNo,
        indexers: &[DeviceNo],
        views: &[View],
    ) -> Result<(), String> {
        let held = self.held(no, indexers, views);
        let wanted = self.plan.min_indexers.min(indexers.len());
        // When places are short, a spare lease yields.
        let may_be_fewer = held > 0 && indexers.iter().any(|&indexer| views[indexer].is_short());
        if held != wanted && !may_be_fewer {
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

    /// If tables are too small for all, a device may be left out, but only if there is really no
    /// room.
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

    /// Whether the native knows a live indexer that has room; a full `live_indexers` may know only
    /// others.
    fn offers_a_place(&self, native: DeviceNo, indexers: &[DeviceNo], views: &[View]) -> bool {
        indexers.iter().any(|&indexer| {
            !views[indexer].is_full("stream_records")
                && (!self.is_tight() || views[native].is_live(&self.devices[indexer].peer))
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
