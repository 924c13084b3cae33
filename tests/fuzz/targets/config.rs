//! Any bytes, as a file of settings, for a process of each role.

#![no_main]

use std::{env, fs, process, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use oc_discovery::{fuzzing, protocol::Role};

static FILE: LazyLock<String> = LazyLock::new(|| {
    let name = format!("oc-discovery-fuzz-{}.toml", process::id());
    env::temp_dir().join(name).display().to_string()
});

fuzz_target!(|bytes: &[u8]| {
    fs::write(&*FILE, bytes).expect("a file of its own can be written");
    for role in [Role::Node, Role::Indexer, Role::Native] {
        fuzzing::config(&FILE, role);
    }
});
