//! Any bytes, as a request of HTTP.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oc_discovery::fuzzing::http(bytes));
