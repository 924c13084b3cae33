//! The sizes of the tables, which are set when the program is built.
//!
//! `build.rs` writes these constants from environment variables. The documentation of each one has
//! its variable, bounds and default. An invalid value fails the build, so no code has to check them
//! again: every capacity is at least 1, a native has a connection for each of its leases, and an
//! indexer too.

use super::Role;

/// A capacity, and its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The environment variable that sets it when the program is built.
    pub variable: &'static str,
    /// Entries at most.
    pub capacity: usize,
    /// Bytes that one entry takes at most on a 64-bit machine, in all of `tables`. The memory is
    /// touched only when the entry is used.
    pub entry_bytes: usize,
    /// The tables that it sizes, by their names in [`TableStats`](super::TableStats).
    pub tables: &'static [&'static str],
    /// The roles that have these tables.
    pub roles: &'static [Role],
}

include!(concat!(env!("OUT_DIR"), "/capacities.rs"));

// The sizes in the tests are those of 64-bit machines.
#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use core::mem::size_of;

    use super::CAPACITIES;
    use crate::protocol::{Indexer, Native, watch::client::Watch};

    /// The memory of an entry of this capacity, according to `build.rs`.
    fn stated(name: &str) -> usize {
        let named = |variable: &str| variable.strip_prefix("OC_DISCOVERY_") == Some(name);
        let mut all = CAPACITIES.iter();
        all.find(|c| named(c.variable)).unwrap().entry_bytes
    }

    #[test]
    fn the_cost_told_of_an_entry_is_what_it_takes() {
        const S: usize = 256 + 2 * 256 + 16;
        let native = size_of::<Native<256, 512, 256, S>>();
        let grown = [
            (
                "MAX_INDEXERS",
                size_of::<Native<264, 512, 256, { S + 8 }>>(),
            ),
            ("MAX_KNOWN", size_of::<Native<256, 520, 256, S>>()),
            (
                "MAX_RESPONSIBLE",
                size_of::<Native<256, 512, 264, { S + 16 }>>(),
            ),
            (
                "MAX_NATIVES",
                size_of::<Native<256, 512, 256, { S + 16 }>>(),
            ),
        ];
        for (name, grown) in grown {
            let cost = (grown - native) / 8;
            assert!(
                cost.abs_diff(stated(name)) <= 8,
                "{name} costs {cost} bytes"
            );
        }
        let cost = (size_of::<Indexer<1032>>() - size_of::<Indexer<1024>>()) / 8;
        assert!(
            cost.abs_diff(stated("MAX_NODES")) <= 8,
            "MAX_NODES costs {cost} bytes"
        );
        let cost = (size_of::<Watch<1032>>() - size_of::<Watch<1024>>()) / 8;
        let of_four = stated("MAX_WATCHED") / 4;
        assert!(
            cost.abs_diff(of_four) <= 2,
            "MAX_WATCHED costs {cost} bytes of each watch"
        );
    }
}
