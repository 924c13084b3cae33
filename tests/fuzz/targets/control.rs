//! Any bytes, as a request on the control socket.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oc_discovery::fuzzing::control(bytes));
