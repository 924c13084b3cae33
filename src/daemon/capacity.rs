//! What this build can hold and how much memory that takes, so that capacities can be chosen before
//! a device is flashed.
//!
//! Nothing is measured here, and no daemon is asked: the sizes of tables come from their types and
//! from `build.rs`; those of a connection and of the idle program come from the benchmark. The
//! field names are the interface of `capacity --json`: they are never renamed. All sizes are in
//! bytes unless their names say otherwise.

use std::fmt;

use miniserde::{Deserialize, Serialize};

use super::{
    machines::{self, ProgramLookups, ProgramWatches},
    status::table,
};
use crate::{
    config::Role,
    protocol::capacities::{CAPACITIES, Capacity},
};

/// RSS of a daemon beside its tables and connections, rounded up. On x86_64 it is 4,150 KiB for an
/// idle native, the largest role; with peers, nearly all of its text comes to it.
const IDLE_BYTES: u64 = 5_120 * KIB;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The answer to `capacity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CapacityReport {
    /// Version of the program.
    pub version: String,
    /// Every capacity that is set when the program is built.
    pub capacities: Vec<Row>,
    /// What each role needs when everything is full.
    pub roles: Vec<Need>,
}

/// A capacity of this build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The environment variable that sets it when the program is built.
    pub variable: String,
    /// The roles that have its tables.
    pub roles: Vec<Role>,
    /// The tables that it sizes, by their names in `status`.
    pub tables: Vec<String>,
    /// Entries at most.
    pub capacity: u64,
    /// Bytes of an entry on a 64-bit machine, in all of `tables`.
    pub entry_bytes: u64,
    /// Bytes of all entries.
    pub total_bytes: u64,
}

/// What one role needs when everything is full. It is an upper bound, because the measured
/// connection includes the entries of its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Need {
    /// The role.
    pub role: Role,
    /// The tables of its state machine.
    pub tables_bytes: u64,
    /// The slots of all lookups that may be under way.
    pub lookups_bytes: u64,
    /// The watches, each of as many nodes as it can know.
    pub watches_bytes: u64,
    /// Its part of the DHT: records and providers; 0 if it takes no part in the DHT.
    pub dht_records_bytes: u64,
    /// Its connections.
    pub connections_bytes: u64,
    /// The program itself, with nothing in its tables.
    pub idle_bytes: u64,
    /// The sum of these.
    pub needs_bytes: u64,
    /// The same in MiB, rounded up.
    pub needs_mib: u64,
}

impl CapacityReport {
    /// The report on this build.
    pub(crate) fn of_this_build() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            capacities: CAPACITIES.iter().map(Row::new).collect(),
            roles: Role::ALL.into_iter().map(Need::of_this_build).collect(),
        }
    }
}

impl Row {
    fn new(capacity: &Capacity) -> Self {
        Self {
            variable: capacity.variable.into(),
            roles: capacity.roles.to_vec(),
            tables: capacity.tables.iter().copied().map(Into::into).collect(),
            capacity: capacity.capacity as u64,
            entry_bytes: capacity.entry_bytes as u64,
            total_bytes: full(capacity),
        }
    }
}

impl Need {
    fn of_this_build(role: Role) -> Self {
        // These tables belong to the network side; all others are in the machine.
        let outside = |table| {
            let sizes_it =
                |capacity: &&Capacity| has(capacity, role) && capacity.tables.contains(&table);
            CAPACITIES.iter().filter(sizes_it).map(full).sum::<u64>()
        };
        let tables_bytes = machines::size(role) as u64;
        let lookups_bytes = size_of::<ProgramLookups>() as u64;
        let watches_bytes = size_of::<ProgramWatches>() as u64;
        let dht_records_bytes = outside("dht_records") + outside("dht_providers");
        let connections_bytes = outside("connections");
        let needs_bytes = tables_bytes
            + lookups_bytes
            + watches_bytes
            + dht_records_bytes
            + connections_bytes
            + IDLE_BYTES;
        Self {
            role,
            tables_bytes,
            lookups_bytes,
            watches_bytes,
            dht_records_bytes,
            connections_bytes,
            idle_bytes: IDLE_BYTES,
            needs_bytes,
            needs_mib: needs_bytes.div_ceil(MIB),
        }
    }
}

fn has(capacity: &Capacity, role: Role) -> bool {
    capacity.roles.contains(&role)
}

fn full(capacity: &Capacity) -> u64 {
    capacity.capacity as u64 * capacity.entry_bytes as u64
}

impl fmt::Display for CapacityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.capacities.iter().map(|row| {
            let roles: Vec<_> = row.roles.iter().map(|role| role.name()).collect();
            [
                row.variable.clone(),
                format!("{:>6} x {:>5} B", row.capacity, row.entry_bytes),
                format!("= {}", Size(row.total_bytes)),
                format!("{}: {}", roles.join(", "), row.tables.join(", ")),
            ]
        });
        table(f, "capacities of this build", "none", rows)?;
        let rows = self.roles.iter().map(|need| {
            [
                need.role.to_string(),
                format!("tables {}", Size(need.tables_bytes)),
                format!("+ lookups {}", Size(need.lookups_bytes)),
                format!("+ watches {}", Size(need.watches_bytes)),
                format!("+ DHT records {}", Size(need.dht_records_bytes)),
                format!("+ connections {}", Size(need.connections_bytes)),
                format!("+ idle program {}", Size(need.idle_bytes)),
            ]
        });
        table(f, "roles with everything full", "none", rows)?;
        for need in &self.roles {
            let Need {
                role, needs_mib, ..
            } = need;
            writeln!(
                f,
                "{role} needs at most about {needs_mib} MiB when everything is full"
            )?;
        }
        Ok(())
    }
}

/// Bytes in a readable form, rounded up and aligned to the right.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < MIB {
            write!(f, "{:>6} KiB", self.0.div_ceil(KIB))
        } else {
            let tenths = (self.0 * 10).div_ceil(MIB);
            write!(f, "{:>4}.{} MiB", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use miniserde::json;

    use super::*;
    use crate::protocol::capacities;

    /// The JSON object of the interface, byte for byte.
    const EXAMPLE: &str = concat!(
        r#"{"version":"0.1.0","#,
        r#""capacities":[{"variable":"OC_DISCOVERY_MAX_NODES","roles":["indexer"],"#,
        r#""tables":["stream_records","directory"],"capacity":64,"entry_bytes":1252,"total_bytes":80128},"#,
        r#"{"variable":"OC_DISCOVERY_MAX_CONNECTIONS","roles":["native","indexer","node"],"#,
        r#""tables":["connections"],"capacity":100,"entry_bytes":40960,"total_bytes":4096000}],"#,
        r#""roles":[{"role":"indexer","tables_bytes":90112,"lookups_bytes":1024,"watches_bytes":1024,"dht_records_bytes":0,"#,
        r#""connections_bytes":4096000,"idle_bytes":5767168,"needs_bytes":9955328,"needs_mib":10}]}"#
    );

    fn need(role: Role) -> Need {
        let mut roles = CapacityReport::of_this_build().roles.into_iter();
        roles.find(|need| need.role == role).unwrap()
    }

    #[test]
    fn capacity_keeps_every_field_of_the_interface() {
        let report: CapacityReport = json::from_str(EXAMPLE).unwrap();
        assert_eq!(json::to_string(&report), EXAMPLE);
    }

    #[test]
    fn capacity_is_aligned_for_a_person() {
        let report: CapacityReport = json::from_str(EXAMPLE).unwrap();
        assert_eq!(
            report.to_string(),
            "capacities of this build: 2
  OC_DISCOVERY_MAX_NODES            64 x  1252 B  =     79 KiB  indexer: stream_records, directory
  OC_DISCOVERY_MAX_CONNECTIONS     100 x 40960 B  =    4.0 MiB  native, indexer, node: connections
roles with everything full: 1
  indexer  tables     88 KiB  + lookups      1 KiB  + watches      1 KiB  + DHT records      0 KiB  + connections    4.0 MiB  + idle program    5.5 MiB
indexer needs at most about 10 MiB when everything is full
"
        );
    }

    #[test]
    fn sizes_are_rounded_up_at_the_border_of_their_units() {
        for (bytes, text) in [
            (0, "     0 KiB"),
            (1, "     1 KiB"),
            (KIB, "     1 KiB"),
            (MIB - 1, "  1024 KiB"),
            (MIB, "   1.0 MiB"),
            (MIB + 1, "   1.1 MiB"),
            (100 * MIB, " 100.0 MiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn every_capacity_of_the_build_has_its_row() {
        let report = CapacityReport::of_this_build();
        let rows = report.capacities.iter();
        let told: Vec<_> = rows
            .map(|row| (row.variable.as_str(), row.capacity))
            .collect();
        let chosen = [
            ("OC_DISCOVERY_MAX_INDEXERS", capacities::MAX_INDEXERS),
            ("OC_DISCOVERY_MAX_NODES", capacities::MAX_NODES),
            ("OC_DISCOVERY_MAX_RESPONSIBLE", capacities::MAX_RESPONSIBLE),
            ("OC_DISCOVERY_MAX_KNOWN", capacities::MAX_KNOWN),
            ("OC_DISCOVERY_MAX_NATIVES", capacities::MAX_NATIVES),
            ("OC_DISCOVERY_MAX_DHT_RECORDS", capacities::MAX_DHT_RECORDS),
            ("OC_DISCOVERY_MAX_PROVIDERS", capacities::MAX_PROVIDERS),
            ("OC_DISCOVERY_MAX_WATCHED", capacities::MAX_WATCHED),
            ("OC_DISCOVERY_MAX_LOST", capacities::MAX_LOST),
            ("OC_DISCOVERY_MAX_CONNECTIONS", capacities::MAX_CONNECTIONS),
        ];
        assert_eq!(told, chosen.map(|(name, value)| (name, value as u64)));
        // A build in a container must see each of them.
        let manifest = include_str!("../../Cargo.toml");
        for (variable, _) in told {
            assert!(
                manifest.contains(&format!("    \"{variable}\",\n")),
                "{variable}"
            );
        }
        for row in &report.capacities {
            assert_eq!(row.total_bytes, row.capacity * row.entry_bytes, "{row:?}");
        }
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn machine_is_its_entries_and_little_else() {
        // `build.rs` may be wrong by 8 bytes for each entry; another test checks that. The rest is
        // lists of fixed length.
        const FIXED: u64 = 208 * KIB;
        for role in Role::ALL {
            let outside = ["dht_records", "dht_providers", "connections", "watched"];
            let inside =
                |c: &&Capacity| has(c, role) && !c.tables.iter().any(|t| outside.contains(t));
            let count: u64 = CAPACITIES
                .iter()
                .filter(inside)
                .map(|c| c.capacity as u64)
                .sum();
            let entries: u64 = CAPACITIES.iter().filter(inside).map(full).sum();
            let machine = need(role).tables_bytes;
            let likely = entries.saturating_sub(8 * count)..=entries + 8 * count + FIXED;
            assert!(
                likely.contains(&machine),
                "{role}: {machine} bytes, {entries} in entries"
            );
        }
    }

    #[test]
    fn a_role_needs_its_tables_records_connections_and_the_program() {
        for role in Role::ALL {
            let need = need(role);
            let sum = need.tables_bytes
                + need.lookups_bytes
                + need.watches_bytes
                + need.dht_records_bytes
                + need.connections_bytes
                + need.idle_bytes;
            assert_eq!(need.needs_bytes, sum);
            assert!(need.needs_mib * MIB >= sum && (need.needs_mib - 1) * MIB < sum);
            assert!(need.connections_bytes >= capacities::MAX_CONNECTIONS as u64 * 10 * KIB);
        }
        assert_eq!(need(Role::Node).dht_records_bytes, 0);
        for role in [Role::Native, Role::Indexer] {
            let least = capacities::MAX_DHT_RECORDS as u64 * 1024;
            assert!(need(role).dht_records_bytes >= least, "{role}");
        }
    }
}
