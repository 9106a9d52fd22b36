//! Arbitrary bytes as a key and value of the heartbeat format.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    discovery_etcd::fuzzing::heartbeat(data);
});
