//! Arbitrary bytes as addresses, names and weights.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    discovery_core::fuzzing::address(data);
});
