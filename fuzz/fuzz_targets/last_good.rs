//! Arbitrary bytes as the file of a last good set.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    discovery_core::fuzzing::last_good(data);
});
