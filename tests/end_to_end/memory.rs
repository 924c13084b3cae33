//! Memory that is used only while peers are connected.

use std::fs;
use std::time::{Duration, Instant};

use super::harness::{Look, SLACK, World};

/// The time to live of a record from its receipt: three leases of the tests.
const RECORD_TTL: Duration = Duration::from_secs(9);

#[test]
fn record_of_a_killed_indexer_leaves_the_dht_store_when_it_runs_out() {
    let world = World::new();
    let native = world.native("native", &[]);
    let mut indexer = world.indexer("indexer", &[&native], &[]);
    indexer.until("its lease", SLACK, |s| s.holds_lease_of(&native));
    native.until("its record", SLACK, |s| s.used("dht_records") == 1);
    indexer.kill();
    let killed = Instant::now();
    native.until("its record gone", RECORD_TTL + SLACK, |s| {
        s.used("dht_records") == 0
    });
    // Without a timer of its own, the expiry would wait for housekeeping, up to 20 s.
    let took = killed.elapsed();
    assert!(took < RECORD_TTL + Duration::from_secs(5), "{took:?}");
}

/// The smallest machine, that of a node, is larger; everything else in `.data` has 6 KB.
const MAX_DATA: u64 = 32 * 1024;

#[test]
fn tables_of_the_machines_are_zeroes_that_no_file_has() {
    let program = fs::read(env!("CARGO_BIN_EXE_oc-discovery")).unwrap();
    let [data, bss] = [".data", ".bss"].map(|name| size_of_section(&program, name));
    assert!(bss > 1024 * 1024, "the tables are not there: {bss}");
    // A single field with an initial value that is not zero (as a `None` may be) brings its whole
    // machine into this section.
    assert!(data < MAX_DATA, ".data has {data} bytes");
}

/// Size of a section of an ELF file for a machine of 64 bits, little-endian (gABI, "Section
/// Header").
fn size_of_section(file: &[u8], name: &str) -> u64 {
    assert_eq!(file[..6], *b"\x7fELF\x02\x01", "another kind of file");
    let number = |at: usize, bytes: usize| {
        let mut number = [0; 8];
        number[..bytes].copy_from_slice(&file[at..at + bytes]);
        u64::from_le_bytes(number)
    };
    let at = |at, bytes| number(at, bytes) as usize;
    let (table, each, sections, of_names) = (at(40, 8), at(58, 2), at(60, 2), at(62, 2));
    let header = |index| table + index * each;
    let names = &file[at(header(of_names) + 24, 8)..];
    let found = (0..sections).map(header).find(|header| {
        let rest = names[at(*header, 4)..].strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest[0] == 0)
    });
    let header = found.unwrap_or_else(|| panic!("there is no section {name}"));
    number(header + 32, 8)
}
