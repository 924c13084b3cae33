//! Sets the two values that the program has from its build: the sizes of its tables, and a date
//! before which no clock can be right.
//!
//! Capacities come from environment variables (as in `smoltcp`), so that a device gets tables of
//! the size it needs: `OC_DISCOVERY_MAX_NODES=64 cargo build --release`. An invalid value fails the
//! build with a sentence that names the variable, the value and its bounds.

use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The variable of every capacity starts with this. The rest is the name of the constant.
const PREFIX: &str = "OC_DISCOVERY_";

/// When the newest release was prepared (2026-04-14), in seconds since the Unix epoch. A later date
/// is taken from `SOURCE_DATE_EPOCH` or the last commit; this one serves a build that has neither.
const RELEASE_DATE_S: u64 = 1_776_124_800;

/// 2100-01-01: a build date after it would make every peer's clock look wrong.
const LATEST_DATE_S: u64 = 4_102_444_800;

/// The memory of a connection, measured by `tests/bench/budget` (`lease_rss_kib_500`: 13.8 KiB of
/// RSS on x86_64) for a lease with an open heartbeat stream, a listed record, and a connection that
/// has carried 16 KiB each way.
const CONNECTION_BYTES: usize = 14 * 1024;

/// One compile-time capacity.
struct Capacity {
    name: &'static str,
    default: usize,
    min: usize,
    max: usize,
    doc: &'static str,
    /// Bytes that one entry takes at most on a 64-bit machine, in all the tables that this capacity
    /// sizes. The memory is touched only when the entry is used.
    bytes: usize,
    /// These tables, by their names in `oc-discovery status`.
    tables: &'static [&'static str],
    /// The roles that have these tables, as variants of `protocol::Role`.
    roles: &'static [&'static str],
}

const CAPACITIES: &[Capacity] = &[
    Capacity {
        name: "MAX_INDEXERS",
        default: 256,
        min: 1,
        max: 16_384,
        doc: "Indexers that a native keeps alive: entries of `live_indexers`.",
        bytes: 2_360,
        tables: &["live_indexers", "stream_records", "directory"],
        roles: &["Native"],
    },
    Capacity {
        name: "MAX_NODES",
        default: 1024,
        min: 1,
        max: 65_535,
        doc: "Nodes that hold a lease with one indexer.",
        bytes: 1_930,
        tables: &["stream_records", "directory", "announcements"],
        roles: &["Indexer"],
    },
    Capacity {
        name: "MAX_RESPONSIBLE",
        default: 256,
        min: 1,
        max: 16_384,
        doc: "Nodes that a native takes in by self-delegation: entries of `responsible_peers`.",
        bytes: 3_886,
        tables: &[
            "responsible_peers",
            "stream_records",
            "directory",
            "announcements",
        ],
        roles: &["Native"],
    },
    Capacity {
        name: "MAX_KNOWN",
        default: 512,
        min: 1,
        max: 65_535,
        doc: "Ids of indexers that a native knows of, alive or not: entries of `known_peer_ids`.",
        bytes: 114,
        tables: &["known_peer_ids"],
        roles: &["Native"],
    },
    Capacity {
        name: "MAX_NATIVES",
        default: 8,
        min: 1,
        max: 8,
        doc: "Natives that a process knows: given by `--native`, named by DNS or remembered. A native grants leases to as many \
              again that it does not know.",
        bytes: 3_692,
        tables: &["stream_records", "directory"],
        roles: &["Native"],
    },
    Capacity {
        name: "MAX_DHT_RECORDS",
        default: 1024,
        min: 1,
        max: 65_535,
        doc: "Values that the local part of the DHT stores.",
        bytes: 1_280,
        tables: &["dht_records"],
        roles: &["Native", "Indexer"],
    },
    Capacity {
        name: "MAX_PROVIDERS",
        default: 4096,
        min: 1,
        max: 65_535,
        doc: "Announcements of other peers and of its own that the local part of the DHT stores: which peers know the nodes with a \
              name or a service.",
        bytes: 240,
        tables: &["dht_providers"],
        roles: &["Native", "Indexer"],
    },
    Capacity {
        name: "MAX_WATCHED",
        default: 16_384,
        min: 1,
        max: 65_535,
        doc: "Nodes that a watch knows, so that it says a change once. There are at most 4 watches.",
        bytes: 4 * 162,
        tables: &["watched"],
        roles: &["Native", "Indexer", "Node"],
    },
    Capacity {
        name: "MAX_LOST",
        default: 512,
        min: 1,
        max: 65_535,
        doc: "Peers that gave their lease up or let it run out within the last day.",
        bytes: 114,
        tables: &["lost"],
        roles: &["Native", "Indexer"],
    },
    Capacity {
        name: "MAX_CONNECTIONS",
        default: 1536,
        min: 4,
        max: 131_072,
        doc: "Connections in all, the slots kept for natives and lease holders among them.",
        bytes: CONNECTION_BYTES,
        tables: &["connections"],
        roles: &["Native", "Indexer", "Node"],
    },
];

/// `larger` must be at least the sum of `parts`: `(larger, parts, why)`.
const RELATIONS: &[(&str, &[&str], &str)] = &[
    (
        "MAX_KNOWN",
        &["MAX_INDEXERS"],
        "every live indexer is a known one",
    ),
    (
        "MAX_CONNECTIONS",
        // The natives count twice: the known ones, and as many guests.
        &[
            "MAX_INDEXERS",
            "MAX_RESPONSIBLE",
            "MAX_NATIVES",
            "MAX_NATIVES",
        ],
        "every lease with a native is a connection",
    ),
    (
        "MAX_CONNECTIONS",
        &["MAX_NODES", "MAX_NATIVES"],
        "every lease with an indexer is a connection",
    ),
    (
        "MAX_DHT_RECORDS",
        &["MAX_INDEXERS"],
        "the record of a lease holder is never displaced",
    ),
    (
        "MAX_DHT_RECORDS",
        &["MAX_NODES"],
        "the record of a lease holder is never displaced",
    ),
];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run cargo build")?);
    let chosen = CAPACITIES
        .iter()
        .map(|capacity| Ok((capacity, choose(capacity)?)))
        .collect::<Result<Vec<_>, String>>()?;
    check_relations(&chosen)?;
    let build_ms = build_ms()?;
    let file = out.join("capacities.rs");
    std::fs::write(&file, source(&chosen))
        .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    println!("cargo::rustc-env=OC_DISCOVERY_BUILD_MS={build_ms}");
    link_release();
    Ok(())
}

/// What the linker of a release is told. Debug builds, which tests are, are linked as usual.
fn link_release() {
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|found| found == value);
    if !is("PROFILE", "release") || !is("CARGO_CFG_TARGET_OS", "linux") {
        return;
    }
    // Text that a daemon does not need to start lies apart.
    link_with("targets/layout.ld");
    // A release aborts on panic, so it needs no tables for unwinding. But the start of a static
    // program of glibc refers to them.
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if !features.split(',').any(|feature| feature == "crt-static") {
        link_with("targets/no-unwind.ld");
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    }
}

/// Adds a linker script to the default one.
fn link_with(script: &str) {
    let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rustc-link-arg-bins=-T{root}/{script}");
}

/// The value of one capacity: that of its variable, or its default.
fn choose(capacity: &Capacity) -> Result<usize, String> {
    let variable = format!("{PREFIX}{}", capacity.name);
    println!("cargo::rerun-if-env-changed={variable}");
    let Some(text) = env::var_os(&variable) else {
        return Ok(capacity.default);
    };
    let text = text.to_string_lossy();
    let Capacity { min, max, .. } = *capacity;
    match text.parse::<usize>() {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(format!(
            "{variable} is `{}`: give a whole number from {min} to {max}, or unset it for the default of {}",
            text.escape_debug(),
            capacity.default
        )),
    }
}

fn check_relations(chosen: &[(&Capacity, usize)]) -> Result<(), String> {
    let value = |name: &str| {
        let found = chosen.iter().find(|(capacity, _)| capacity.name == name);
        found.map_or(0, |(_, value)| *value)
    };
    for (larger, parts, why) in RELATIONS {
        let least: usize = parts.iter().map(|part| value(part)).sum();
        if value(larger) < least {
            let sum: Vec<String> = parts
                .iter()
                .map(|part| format!("{PREFIX}{part} ({})", value(part)))
                .collect();
            return Err(format!(
                "{PREFIX}{larger} is {}, less than {} = {least}, but {why}: raise the one or lower the other",
                value(larger),
                sum.join(" + ")
            ));
        }
    }
    Ok(())
}

/// The generated file: one documented constant for each capacity, and a table of them all.
fn source(chosen: &[(&Capacity, usize)]) -> String {
    let mut text = String::new();
    for (capacity, value) in chosen {
        let Capacity {
            name,
            default,
            min,
            max,
            doc,
            bytes,
            ..
        } = capacity;
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "/// {doc}\n///\n/// Set by `{PREFIX}{name}` at build time: {min} to {max}, default {default}.\n///\n/// An entry costs {bytes} bytes at most, once used.\n\
             pub const {name}: usize = {value};\n\n"
        );
    }
    text.push_str("/// Every capacity of this build.\npub const CAPACITIES: &[Capacity] = &[\n");
    for (capacity, _) in chosen {
        let Capacity {
            name,
            bytes,
            tables,
            roles,
            ..
        } = capacity;
        let roles: Vec<String> = roles.iter().map(|role| format!("Role::{role}")).collect();
        let _ = writeln!(
            text,
            "    Capacity {{ variable: \"{PREFIX}{name}\", capacity: {name}, entry_bytes: {bytes}, \
             tables: &{tables:?}, roles: &[{}] }},",
            roles.join(", ")
        );
    }
    text.push_str("];\n");
    text
}

/// The date of the sources, in milliseconds since the Unix epoch. The same sources give the same
/// date, so that builds are reproducible. The clock of the build machine is not used.
fn build_ms() -> Result<u64, String> {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let seconds = match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => Some(match text.parse::<u64>() {
            Ok(seconds) if seconds <= LATEST_DATE_S => seconds,
            _ => {
                return Err(format!(
                    "SOURCE_DATE_EPOCH is `{}`: give seconds since the Unix epoch, at most {LATEST_DATE_S}",
                    text.escape_debug()
                ));
            }
        }),
        Err(_) => last_commit_s(),
    };
    Ok(seconds.unwrap_or(0).max(RELEASE_DATE_S) * 1000)
}

/// The date of the last commit, if this is a work tree of the project and git is installed.
fn last_commit_s() -> Option<u64> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let git = root.join(".git");
    if !git.exists() {
        return None;
    }
    rerun_on_commit(&git);
    let output = Command::new("git")
        .arg("-C")
        .arg(&root)
        .args(["log", "-1", "--format=%ct"])
        .output()
        .ok()?;
    let seconds = std::str::from_utf8(&output.stdout).ok()?.trim();
    seconds.parse().ok().filter(|s| *s <= LATEST_DATE_S)
}

fn rerun_on_commit(git: &Path) {
    let log = git.join("logs/HEAD");
    // For a path that does not exist, Cargo would run this script every time.
    if log.exists() {
        println!("cargo::rerun-if-changed={}", log.display());
    }
}
