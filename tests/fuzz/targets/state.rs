//! Any bytes, as the file with what a process remembers.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oc_discovery::fuzzing::state(bytes));
