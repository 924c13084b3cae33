//! Any bytes, as the signed envelope of a record and as a key of the DHT.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oc_discovery::fuzzing::envelope(bytes));
