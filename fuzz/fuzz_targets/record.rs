//! See `millpond::simulation::fuzzing::record`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    millpond::simulation::fuzzing::record(data);
});
