//! Arbitrary bytes as the configuration of etcd.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    discovery_etcd::fuzzing::config(data);
});
