//! Any bytes, as a query to the own DNS server, and as the answer of another one.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oc_discovery::fuzzing::dns(bytes));
