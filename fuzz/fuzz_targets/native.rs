//! Arbitrary bytes as a key and value of the native format.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    discovery_etcd::fuzzing::native(data);
});
