//! Connections that become silent and do not end, and how soon beats arrive again.
//!
//! Existing connections do not notice that a link behind a switch has lost its carrier, that a
//! neighbour cannot be resolved, or that an address is gone.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::harness::{Look as _, Peer, SLACK, eventually, ms};
use crate::network::{Host, Network, Switch};

/// The longest time after a partition or a cable is mended until beats arrive again, at a lease of
/// 6 s.
const COST: Duration = Duration::from_secs(4);

const NATIVE: &str = "192.168.77.1";
const INDEXER: &str = "192.168.77.2";
const NODE: &str = "192.168.77.3";

/// An interface address that no host has.
const STRAY: &str = "02:00:00:00:00:99";

const QUICK: [&str; 2] = ["--lease", "6s"];
/// The default intervals of a daemon.
const DEFAULT: [&str; 10] = [
    "--lease",
    "90s",
    "--offload-interval",
    "30s",
    "--refresh-interval",
    "30s",
    "--gc-interval",
    "30s",
    "--connect-interval",
    "60s",
];

/// A native and an indexer that beats to it, on a switch.
struct Lan<'a> {
    switch: Switch<'a>,
    native_host: Host<'a>,
    indexer_host: Host<'a>,
    native: Peer,
    indexer: Peer,
}

impl<'a> Lan<'a> {
    fn new(network: &'a Network, args: &[&str]) -> Self {
        let begun = Instant::now();
        let switch = network.switch("lan");
        let native_host = network.host("native");
        switch.plug(&native_host, "eth0", &[&format!("{NATIVE}/24")]);
        let indexer_host = network.host("indexer");
        switch.plug(&indexer_host, "eth0", &[&format!("{INDEXER}/24")]);
        let listen = ["--listen", "/ip4/0.0.0.0/tcp/4820"];
        let native = native_host.start("native", "native", &[&listen[..], args].concat());
        let at = address(&native);
        let listen = ["--listen", "/ip4/0.0.0.0/tcp/4821", "--native", &at];
        let indexer = indexer_host.start("indexer", "indexer", &[&listen[..], args].concat());
        let lan = Self {
            switch,
            native_host,
            indexer_host,
            native,
            indexer,
        };
        lan.beats_again(begun, SLACK);
        lan
    }

    /// Adds a node, which holds a lease of the indexer.
    fn node(&self, network: &'a Network, args: &[&str]) -> Peer {
        let host = network.host("node");
        self.switch.plug(&host, "eth0", &[&format!("{NODE}/24")]);
        let at = address(&self.native);
        let node = host.start("node", "node", &[&["--native", &at], args].concat());
        node.until("its lease", ms(10_000), |status| {
            status.holds_lease_of(&self.indexer)
        });
        node
    }

    /// Waits until the native has a beat of the indexer that came after `since`. Returns how long
    /// that took.
    fn beats_again(&self, since: Instant, within: Duration) -> Duration {
        self.native
            .until("a beat of the indexer", within, |status| {
                let waited = since.elapsed().as_millis() as u64;
                let record = status.stream_record(&self.indexer);
                record.is_some_and(|record| record.last_seen_ms < waited)
            });
        since.elapsed()
    }

    /// Separates native and indexer, or joins them again. Neither loses its carrier.
    fn part(&self, parted: bool) {
        for (host, other) in [(&self.native_host, INDEXER), (&self.indexer_host, NATIVE)] {
            host.ip(&[&match parted {
                true => format!("neigh replace {other} lladdr {STRAY} dev eth0 nud permanent"),
                false => format!("neigh del {other} dev eth0"),
            }]);
        }
    }

    /// Waits until the present fault has lasted this long, by the native's clock.
    fn lasts(&self, time: Duration) {
        let end = self.native.status().uptime_ms + time.as_millis() as u64;
        self.native
            .until("the fault's end", time + SLACK, |status| {
                status.uptime_ms >= end
            });
    }

    fn addresses_of_the_indexer(&self) -> Vec<String> {
        let status = self.native.status();
        let entry = status.live(&self.indexer);
        entry.map(|entry| entry.addrs.clone()).unwrap_or_default()
    }
}

fn address(native: &Peer) -> String {
    format!("/ip4/{NATIVE}/tcp/4820/p2p/{}", native.id)
}

#[test]
fn after_a_partition_of_30_s_without_loss_of_carrier_beats_flow_within_4_s() {
    let Some(network) = Network::new() else {
        return;
    };
    let lan = Lan::new(&network, &QUICK);
    lan.part(true);
    lan.lasts(ms(30_000));
    assert!(lan.native.status().live(&lan.indexer).is_none());
    let healed = Instant::now();
    lan.part(false);
    let took = lan.beats_again(healed, COST);
    println!("beats {took:?} after the partition healed");
}

#[test]
fn after_15_s_without_the_cable_of_the_native_beats_flow_within_4_s() {
    let Some(network) = Network::new() else {
        return;
    };
    let lan = Lan::new(&network, &QUICK);
    lan.switch.pull(&lan.native_host, "eth0");
    lan.lasts(ms(15_000));
    let healed = Instant::now();
    lan.switch.push(&lan.native_host, "eth0");
    let took = lan.beats_again(healed, COST);
    println!("beats {took:?} after the cable was in again");
}

#[test]
fn after_15_s_without_its_own_cable_an_indexer_beats_at_once() {
    let Some(network) = Network::new() else {
        return;
    };
    let lan = Lan::new(&network, &QUICK);
    lan.switch.pull(&lan.indexer_host, "eth0");
    lan.lasts(ms(15_000));
    let healed = Instant::now();
    lan.switch.push(&lan.indexer_host, "eth0");
    let took = lan.beats_again(healed, COST);
    println!("beats {took:?} after its cable was in again");
}

/// The indexer's address changes. The native soon lists the new one, and no lease is lost
/// meanwhile.
fn an_indexer_changes_its_address(args: &[&str]) {
    let Some(network) = Network::new() else {
        return;
    };
    let lan = Lan::new(&network, args);
    let node = lan.node(&network, args);
    let changed = Instant::now();
    lan.indexer_host.ip(&[
        "addr del 192.168.77.2/24 dev eth0",
        "addr add 192.168.77.22/24 dev eth0",
    ]);
    let is_new = |addrs: &[String]| addrs == ["/ip4/192.168.77.22/tcp/4821"];
    lan.native
        .until("the new address alone", ms(5_000), |status| {
            let entry = status.live(&lan.indexer).expect("its lease ran out");
            is_new(&entry.addrs)
        });
    println!(
        "the native lists it {:?} after the change",
        changed.elapsed()
    );
    assert!(is_new(&lan.addresses_of_the_indexer()));
    // The node finds the indexer at its new address before its lease has expired, and the native
    // never takes it in.
    let lost = Cell::new(None);
    lan.indexer
        .until("a beat of the node", ms(60_000), |status| {
            if !node.status().holds_lease_of(&lan.indexer) {
                lost.set(lost.get().or_else(|| Some(changed.elapsed())));
            }
            let waited = changed.elapsed().as_millis() as u64;
            let record = status.stream_record(&node).expect("its lease ran out");
            record.last_seen_ms + 500 < waited
        });
    println!("the node beats {:?} after the change", changed.elapsed());
    assert_eq!(lost.get(), None, "the node let its lease go");
}

#[test]
fn a_changed_address_of_an_indexer_costs_no_lease() {
    an_indexer_changes_its_address(&QUICK);
}

#[test]
fn a_changed_address_of_an_indexer_costs_no_lease_at_default_settings() {
    an_indexer_changes_its_address(&DEFAULT);
}

#[test]
fn a_node_whose_address_changes_as_it_starts_has_a_lease_within_seconds() {
    let Some(network) = Network::new() else {
        return;
    };
    let lan = Lan::new(&network, &DEFAULT);
    let host = network.host("node");
    lan.switch.plug(&host, "eth0", &[&format!("{NODE}/24")]);
    let at = address(&lan.native);
    let args = [&["--native", &at], &DEFAULT[..]].concat();
    let node = host.start("node", "node", &args);
    let changed = Instant::now();
    host.ip(&[
        &format!("addr del {NODE}/24 dev eth0"),
        "addr add 192.168.77.33/24 dev eth0",
    ]);
    // A lease of the native counts too, because the native takes the node in if it asks at the
    // wrong moment.
    eventually("a beat of the node", ms(5_000), || {
        let waited = changed.elapsed().as_millis() as u64;
        let statuses = [&lan.indexer, &lan.native].map(Peer::status);
        let records = statuses
            .iter()
            .filter_map(|status| status.stream_record(&node));
        let mut fresh = records.filter(|record| record.last_seen_ms < waited);
        fresh.next().map(drop)
    });
    println!("the node beats {:?} after the change", changed.elapsed());
}
