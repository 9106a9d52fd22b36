//! Arbitrary bytes as lists, events and audits, told to the translator of a watch.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    discovery_etcd::fuzzing::translate(data);
});
