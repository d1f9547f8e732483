//! See `millpond::simulation::fuzzing::stream`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    millpond::simulation::fuzzing::stream(data);
});
