//! Any bytes, as a message of multicast DNS.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oc_discovery::fuzzing::mdns(bytes));
