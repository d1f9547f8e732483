//! See `millpond::simulation::fuzzing::checkpoint`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    millpond::simulation::fuzzing::checkpoint(data);
});
